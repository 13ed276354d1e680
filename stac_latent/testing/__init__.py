"""Test kit for plug-ins: hypothesis strategies, and conformance suites that a stage, codec or product inherits.

::

    import pytest

    pytest.register_assert_rewrite("stac_latent.testing")  # so that a failing law shows its values
    from stac_latent.testing import CodecConformance


    class TestMine(CodecConformance):
        max_error = 0  # it is lossless

        def make(self):
            return my_package.codec()

Every test of a suite states one law of :class:`stac_latent.stage.Stage`, :class:`stac_latent.codec.codec.Codec` or
:class:`stac_latent.catalog.Product`, or of a metric (:class:`stac_latent.quality.Metric`). Needs
pytest and hypothesis (``pip install 'stac-latent[test]'``).
"""

from __future__ import annotations

try:
    from stac_latent.testing.metrics import MetricConformance
    from stac_latent.testing.products import ProductConformance
    from stac_latent.testing.strategies import damaged, fields, make_field, symbols, windows
    from stac_latent.testing.suites import CodecConformance, StageConformance
except ModuleNotFoundError as exc:
    if exc.name not in ("hypothesis", "pytest"):
        raise
    raise ImportError(
        f"stac_latent.testing needs pytest and hypothesis, and {exc.name} is not installed; pip install 'stac-latent[test]'"
    ) from exc

__all__ = [
    "CodecConformance",
    "MetricConformance",
    "ProductConformance",
    "StageConformance",
    "damaged",
    "fields",
    "make_field",
    "symbols",
    "windows",
]
