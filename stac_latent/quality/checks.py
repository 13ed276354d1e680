"""Checks: a metric, a threshold and what to do when it is missed, written ``psnr>=40:refuse``.

Metrics are plug-ins: a package adds one with the entry point group ``stac_latent.metrics``, a class as :class:`Metric` has
it; :class:`stac_latent.testing.MetricConformance` holds its laws.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import ClassVar, Literal, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.errors import CodecError
from stac_latent.spec import Band

__all__ = ["BUILTIN", "Check", "Checks", "Metric", "metric_class", "metric_names"]

Action = Literal["warn", "refuse"]

BUILTIN = {
    "psnr": "stac_latent.quality.error_metrics:Psnr",
    "sam": "stac_latent.quality.error_metrics:Sam",
    "max_error": "stac_latent.quality.error_metrics:MaxError",
    "mean_bias": "stac_latent.quality.error_metrics:MeanBias",
    "ssim": "stac_latent.quality.structure_metrics:Ssim",
    "dssim": "stac_latent.quality.structure_metrics:DataSsim",
    "spectrum": "stac_latent.quality.structure_metrics:Spectrum",
    "quantile": "stac_latent.quality.distribution_metrics:QuantileShift",
    "exceedance": "stac_latent.quality.distribution_metrics:Exceedance",
    "histogram": "stac_latent.quality.distribution_metrics:Histogram",
}
_OF_COMPLEX = ("psnr", "max_error")
"""Metrics that are defined for complex values, by their magnitude."""
_FORM = re.compile(
    r"^\s*(?P<name>[A-Za-z][\w-]*)\s*(\((?P<options>[^()]*)\))?\s*(?P<sense>>=|<=)\s*(?P<threshold>[^:\s]+)\s*"
    r"(:\s*(?P<action>\w+)\s*)?$"
)


@runtime_checkable
class Metric(Protocol):
    """A measure of a decoded field, added up window by window.

    Keyword arguments of the constructor are numbers, and have defaults; bad ones raise a
    :class:`~stac_latent.errors.CodecError`.
    """

    name: ClassVar[str]
    better: ClassVar[Literal["higher", "lower"]]
    """Which values are good: a threshold is a floor, or a ceiling."""

    def add(self, truth: Array, decoded: Array, valid: npt.NDArray[np.bool_], bands: Sequence[Band]) -> None:
        """Add a window.

        Parameters
        ----------
        truth, decoded
            ``(band, y, x)`` in the stored unit, of bands on one native grid; not to be changed.
        valid
            Pixels that count, ``(band, y, x)``.
        bands
            Theirs; names tell the bands of several grids apart.
        """

    def value(self) -> float | None:
        """Over all windows so far; None where it is not defined, as a spectral angle of one band."""


def metric_names() -> list[str]:
    """Metrics that ship with the package or are installed, sorted."""
    return sorted({*BUILTIN, *(p.name for p in entry_points(group="stac_latent.metrics"))})


@cache
def metric_class(name: str) -> type[Metric]:
    """Class of a metric by its name.

    Raises
    ------
    CodecError
        If there is none of that name.
    """
    if name in BUILTIN:
        module, _, attr = BUILTIN[name].partition(":")
        return cast("type[Metric]", getattr(importlib.import_module(module), attr))
    for point in entry_points(group="stac_latent.metrics", name=name):
        return cast("type[Metric]", point.load())
    raise CodecError(f"no metric {name!r}; known are {', '.join(metric_names())}")


@dataclass(frozen=True)
class Check:
    """A metric, a threshold and an action.

    Parameters
    ----------
    name
        Of the metric.
    threshold
        Floor of a metric whose higher values are better, else ceiling.
    action
        ``warn``, or ``refuse`` the Item.
    options
        Of the metric.

    Examples
    --------
    >>> Check.of("psnr >= 40 : refuse")
    Check(name='psnr', threshold=40.0, action='refuse', options={})
    >>> str(Check.of("exceedance(q=0.999)<=0.05"))
    'exceedance(q=0.999)<=0.05:warn'
    """

    name: str
    threshold: float
    action: Action = "warn"
    options: Mapping[str, float] | None = None

    @classmethod
    def of(cls, given: str | Check) -> Check:
        """Read ``NAME[(OPTION=NUMBER, ...)] >= or <= NUMBER [: warn or refuse]``.

        Raises
        ------
        CodecError
            If it is not of that form, the metric is not known, or the threshold is on its wrong side.
        """
        if isinstance(given, Check):
            return given
        found = _FORM.match(given)
        if found is None or found["action"] not in (None, "warn", "refuse"):
            raise CodecError(
                f"check {given!r} cannot be read; expected METRIC>=NUMBER:ACTION or METRIC<=NUMBER:ACTION with the action warn or "
                "refuse, such as 'psnr>=40:refuse' or 'exceedance(q=0.99)<=0.05:warn'"
            )
        kind = metric_class(found["name"])
        sense = ">=" if kind.better == "higher" else "<="
        if found["sense"] != sense:
            raise CodecError(
                f"check {given!r}: {kind.better} values of {found['name']} are better, so that its threshold is written with {sense}"
            )
        pairs = [o.partition("=") for o in (found["options"] or "").split(",") if o.strip()]
        options = {k.strip(): _number(v, given) for k, _, v in pairs}
        action: Action = "refuse" if found["action"] == "refuse" else "warn"
        check = cls(found["name"], _number(found["threshold"], given), action, options)
        check.metric()
        return check

    def check_bands(self, bands: Sequence[Band]) -> None:
        """Refuse bands of complex values where the metric is one of real numbers.

        Raises
        ------
        CodecError
            Names the band, and the metrics that there are.
        """
        first = next((b for b in bands if b.is_complex), None)
        if first is not None and self.name not in _OF_COMPLEX:
            raise CodecError(
                f"check {str(self)!r}: {self.name} is a metric of real numbers, and band {first.name!r} is {first.data_type}; for complex "
                f"values there are {' and '.join(_OF_COMPLEX)}"
            )

    def metric(self) -> Metric:
        """A metric to add windows to.

        Raises
        ------
        CodecError
            If it does not take these options.
        """
        try:
            return metric_class(self.name)(**(self.options or {}))
        except TypeError as exc:
            raise CodecError(f"metric {self.name!r} does not take these options: {exc}") from exc

    def passes(self, value: float | None) -> bool:
        """Whether a value keeps the threshold; one that is not defined does, NaN does not."""
        if value is None:
            return True
        higher = metric_class(self.name).better == "higher"
        return value >= self.threshold if higher else value <= self.threshold

    def __str__(self) -> str:
        options = ",".join(f"{k}={v:g}" for k, v in (self.options or {}).items())
        sense = ">=" if metric_class(self.name).better == "higher" else "<="
        return f"{self.name}{f'({options})' if options else ''}{sense}{self.threshold:g}:{self.action}"


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise CodecError(f"check {whole!r}: {text.strip()!r} is no number")
    return value


class Checks:
    """Checks of one field, with their metrics.

    Parameters
    ----------
    checks
        As :meth:`Check.of` reads them.

    Examples
    --------
    >>> checks = Checks(["max_error<=3:refuse"])
    >>> x = np.zeros((1, 4, 4))
    >>> checks.add(x, x + 5, np.ones((1, 4, 4), bool), [Band("a")])
    >>> checks.failed()
    [(Check(name='max_error', threshold=3.0, action='refuse', options={}), 5.0)]
    """

    def __init__(self, checks: Iterable[str | Check]) -> None:
        self.checks = [Check.of(c) for c in checks]
        self.metrics = [c.metric() for c in self.checks]

    def add(
        self, truth: Array, decoded: Array, valid: Array, bands: Sequence[Band], steps: Sequence[int] = ()
    ) -> None:
        """Add a window to every metric; ``steps`` as :class:`~stac_latent.quality.distortion.Distortion` has them."""
        if not self.metrics:
            return
        mask, every = np.broadcast_to(valid, truth.shape), tuple(steps) or (1,) * len(bands)
        for step in sorted(set(every)):
            chosen = [i for i, s in enumerate(every) if s == step]
            cut = (chosen, slice(None, None, step), slice(None, None, step))
            part = (
                [truth, decoded, mask]
                if len(set(every)) == 1 == step
                else [a[cut] for a in (truth, decoded, mask)]
            )
            for metric in self.metrics:
                metric.add(part[0], part[1], part[2], [bands[i] for i in chosen])

    def values(self) -> list[float | None]:
        """Of each check's metric."""
        return [m.value() for m in self.metrics]

    def failed(self) -> list[tuple[Check, float]]:
        """Checks that are missed, and their values."""
        pairs = zip(self.checks, self.values(), strict=True)
        return [(c, v) for c, v in pairs if v is not None and not c.passes(v)]
