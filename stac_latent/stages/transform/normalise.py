"""Normalise: stored values to integers about zero, on which every later transform is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError, FieldError
from stac_latent.field.storage_type import lowest_values, to_field
from stac_latent.field.validity import fill_invalid, zero_invalid
from stac_latent.spec import Band
from stac_latent.stage import GridStage, PointWise
from stac_latent.stages.base import FRACTION_BITS, BaseStage
from stac_latent.stages.transform.kernels import COMPILED, kernel

__all__ = ["LIMIT", "Normalise", "load", "refuse_far", "store"]

_FINE = 2.0**FRACTION_BITS
LIMIT = 2.0**21
"""Largest normalised magnitude: keeps every later sum below 2**53 for up to 400 bands."""


class Normalise(BaseStage, PointWise, GridStage):
    """``rint((x - mean) / unit * 2**4)``, clipped to 2**21: integers held in float64.

    Parameters
    ----------
    mean, unit
        One value for each band, in the band's stored unit. With ``unit`` 1 integer data pass through exactly.

    Examples
    --------
    >>> stage = Normalise(mean=[1000.0], unit=[1.0])
    >>> stage.forward(np.array([[[1000, 1003]]], np.uint16))
    array([[[ 0., 48.]]])
    >>> stage.inverse(np.array([[[0.0, 48.0]]]))
    array([[[1000., 1003.]]])
    """

    name: ClassVar[str] = "normalise"
    level: ClassVar[Level] = "latent"

    def __init__(self, mean: Sequence[float], unit: Sequence[float]) -> None:
        self.mean = np.asarray(mean, np.float64)
        self.unit = np.asarray(unit, np.float64)
        if self.mean.shape != self.unit.shape or self.mean.ndim != 1:
            raise BundleError(
                f"normalise: {self.mean.shape} means but {self.unit.shape} units; one each for a band"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.unit).all() and (self.unit > 0).all()):
            raise BundleError("normalise: means must be finite and units positive")

    def forward(self, x: Array) -> Array:
        """``(band, y, x)`` of any real type to integer-valued float64.

        Raises
        ------
        FieldError
            If a value is NaN or infinite: pixels without data belong in the mask.
        """
        y = x.astype(np.float64)
        y -= self.mean[:, None, None]
        y *= (2.0**FRACTION_BITS / self.unit)[:, None, None]
        if x.dtype.kind == "f" and not np.isfinite(y).all():
            raise FieldError(
                "the field holds NaN or infinite values outside its mask; mask them as nodata first"
            )
        np.rint(y, out=y)
        return np.clip(y, -LIMIT, LIMIT, out=y)

    def inverse(self, y: Array) -> Array:
        """Integer-valued float64 to stored values, not yet rounded to the bands' type."""
        out = y * (self.unit * 2.0**-FRACTION_BITS)[:, None, None]
        out += self.mean[:, None, None]
        return out

    def of_bands(self, bands: Sequence[int]) -> Self:
        """The stage of the bands at these positions."""
        at = list(bands)
        return type(self)(self.mean[at].tolist(), self.unit[at].tolist())

    def for_grid(self, bands: slice, counts: tuple[int, ...]) -> Self:
        """See :meth:`~stac_latent.stage.GridStage.for_grid`."""
        del counts
        return type(self)(self.mean[bands].tolist(), self.unit[bands].tolist())

    def config(self) -> dict[str, Any]:
        """Means and units."""
        return {"mean": self.mean.tolist(), "unit": self.unit.tolist()}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config`."""
        del tensors
        return cls(mean=config["mean"], unit=config["unit"])


def refuse_far(peaks: Array) -> None:
    """Refuse bands whose largest normalised magnitude ``(band,)`` was clipped.

    Raises
    ------
    FieldError
        Names the first of them.
    """
    far = np.flatnonzero(peaks >= LIMIT)
    if far.size:
        raise FieldError(
            f"values of band {int(far[0])} (counted from 0) are more than {LIMIT * 2.0**-FRACTION_BITS:.0f} units from the "
            "mean that is part of the codec; mask them as nodata, or open the codec with a larger unit="
        )


def load(x: Array, stage: Normalise, mask: Array | None, stride: tuple[int, int]) -> Array:
    """Pixels ``(band, y, x)`` float32 in normalised units from those of the stored type.

    Equal to :meth:`Normalise.forward`, the fill of pixels without data, and division by 2**4, bit for bit; in one pass
    where there is numba and nothing to fill.

    Raises
    ------
    FieldError
        If a value is infinite, or NaN and valid, or too far from the mean.
    """
    if mask is not None and mask.all():
        mask = None
    if COMPILED and mask is None and x.dtype.kind in "iu":
        out, peaks = np.empty(x.shape, np.float32), np.zeros(len(x))
        _load(x, stage.mean, 2.0**FRACTION_BITS / stage.unit, out, peaks)
        refuse_far(peaks)
        return out
    y = stage.forward(x if mask is None else zero_invalid(x, mask))
    y = y if mask is None else fill_invalid(y, mask, stride)
    refuse_far(np.abs(y).max(axis=(1, 2)))
    y *= 2.0**-FRACTION_BITS
    return y.astype(np.float32)


@kernel
def _load(x: Array, mean: Array, factor: Array, out: Array, peaks: Array) -> None:
    for b in range(x.shape[0]):
        least, most = 0.0, 0.0
        for y in range(x.shape[1]):
            source, target = x[b, y], out[b, y]
            for i in range(x.shape[2]):
                v = min(max(np.rint((np.float64(source[i]) - mean[b]) * factor[b]), -LIMIT), LIMIT)
                least, most = min(least, v), max(most, v)
                target[i] = v * 0.0625
        peaks[b] = max(-least, most)


def store(x: Array, stage: Normalise, bands: Sequence[Band]) -> Array:
    """Pixels ``(band, y, x)`` of the stored type from float32 pixels in normalised units.

    Equal to :meth:`Normalise.inverse`, rounding and clipping, bit for bit, in one pass where there is numba.
    """
    if not len(x) == stage.unit.size == len(bands):  # the compiled loop looks at no bounds
        raise BundleError(
            f"normalise: {len(x)} bands of pixels, {stage.unit.size} units and {len(bands)} bands to store do not match"
        )
    dtypes = {b.data_type for b in bands}
    if COMPILED and len(dtypes) == 1 and np.dtype(bands[0].data_type).kind in "iu":
        out = np.empty(x.shape, bands[0].data_type)
        low = lowest_values(bands, out.dtype).astype(np.float64)
        _store(x, stage.unit * 2.0**-FRACTION_BITS, stage.mean, low, float(np.iinfo(out.dtype).max), out)
        return out
    return to_field(stage.inverse(x * 2.0**FRACTION_BITS), bands)


@kernel
def _store(x: Array, scale: Array, mean: Array, low: Array, high: float, out: Array) -> None:
    for b in range(x.shape[0]):
        for y in range(x.shape[1]):
            for i in range(x.shape[2]):
                v = np.rint(np.float64(x[b, y, i]) * _FINE * scale[b] + mean[b])
                out[b, y, i] = min(max(v, low[b]), high)
