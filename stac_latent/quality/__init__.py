"""Metrics of decoded fields; with a threshold and an action, guard rails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.quality.checks import Check as Check
    from stac_latent.quality.checks import Checks as Checks
    from stac_latent.quality.checks import Metric as Metric
    from stac_latent.quality.checks import metric_names as metric_names
    from stac_latent.quality.ood_calibration import calibrated as calibrated
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "checks": ["Check", "Checks", "Metric", "metric_names"],
            "ood_calibration": ["calibrated"],
        },
    )
