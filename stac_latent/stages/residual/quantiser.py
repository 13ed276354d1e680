"""How a whole number moves a prediction: the four kinds of residuals, each within its bound.

=========== ================================= ==============================================
kind        bands                             decoded value
=========== ================================= ==============================================
``STEPS``   integers                          prediction, rounded, plus ``k * (2 floor(eps) + 1)``
``REAL``    floats, absolute                  prediction plus ``k * 2 eps``, rounded to the type
``RATIO``   relative                          prediction times ``((1 + eps) / (1 - eps)) ** k``
``BITS``    floats without loss               the float whose number in order is that of the prediction plus ``k``
=========== ================================= ==============================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError
from stac_latent.field.error_bound import within
from stac_latent.spec import Band

__all__ = ["BITS", "RATIO", "REAL", "STEPS", "Values", "apart", "cast_to"]

STEPS, REAL, RATIO, BITS = range(4)
_FAR = 2.0**52
_MOST = 1023
"""Largest exponent of a ratio."""


@dataclass(frozen=True)
class Values:
    """Values of one band and their residuals.

    Parameters
    ----------
    kind
        One of the four.
    dtype
        Stored type.
    bound
        Largest error, or share of the value.
    small
        Predictions that are smaller than this count as zero; of ``RATIO``.
    typical
        A magnitude of the values; of ``RATIO``.
    """

    kind: int
    dtype: np.dtype[Any]
    bound: float
    small: float = 0.0
    typical: float = 1.0

    def __post_init__(self) -> None:
        kinds = (REAL, RATIO, BITS) if self.dtype.kind == "f" else (STEPS, RATIO)
        share = self.kind == RATIO
        sound = (0 < self.bound < 1) if share else (0 <= self.bound < np.inf)
        if self.kind not in kinds or not sound or not self.small >= 0 or not 0 < self.typical < np.inf:
            raise CorruptDataError(
                f"residual: kind {self.kind} with bound {self.bound} is none of a band of {self.dtype}"
            )

    @property
    def step(self) -> float:
        """Distance of neighbouring decoded values, in the unit of :meth:`plain`; of ``RATIO`` at 1."""
        if self.kind == STEPS:
            return float(2 * self._half + 1)
        if self.kind == REAL:
            return 2 * self.bound * (1 - 2.0**-20)
        return 1.0 if self.kind == BITS else 2 * self.bound

    @property
    def unit(self) -> float:
        """The step, of ``RATIO`` at a typical value; never zero."""
        return max(self.step * (self.typical if self.kind == RATIO else 1.0), 1e-300)

    @property
    def _half(self) -> int:
        return min(int(self.bound), 1 << 40)

    @classmethod
    def of(cls, x: Array, bound: float, *, relative: bool) -> Values:
        """Kind that suits some values of a band; bounds that their type can hardly resolve are met without loss."""
        size = (
            np.abs(x[np.isfinite(x)].astype(np.float64))
            if x.dtype.kind == "f"
            else np.abs(x.astype(np.float64))
        )
        if x.dtype.kind in "iu":
            if relative and bound * size.max(initial=0) >= 1:
                return cls(RATIO, x.dtype, bound, 0.5, float(np.median(size)) or 1.0)
            return cls(STEPS, x.dtype, 0.0 if relative else min(bound, 2.0**40))
        unit = float(np.finfo(x.dtype).eps)
        if relative and bound > 8 * unit:
            some = size[size > 0]
            if some.size:
                return cls(RATIO, x.dtype, bound, 0.5 * float(some.min()), float(np.median(some)))
            return cls(RATIO, x.dtype, bound)
        if not relative and bound > 2 * unit * float(np.median(size) if size.size else 0) and bound > 0:
            return cls(REAL, x.dtype, bound)
        return cls(BITS, x.dtype, 0.0)

    def plain(self, x: Array) -> Array:
        """Values in which predictions are made, float64; infinite and NaN ones as zero."""
        if self.kind == BITS:
            return _order(x).astype(np.float64)
        y = x.astype(np.float64)
        return y if x.dtype.kind != "f" else np.where(np.isfinite(y), y, 0.0)

    def residual(self, x: Array, p: Array) -> tuple[Array, Array]:
        """Whole numbers that lead from predictions to values, int64, and where there is none."""
        with np.errstate(all="ignore"):
            if self.kind in (STEPS, BITS):
                start = self._start(p)
                gap = (x.astype(np.int64) if self.kind == STEPS else _order(x)) - start
                return _rounded(gap, 2 * self._half + 1 if self.kind == STEPS else 1), np.zeros(x.shape, bool)
            y = x.astype(np.float64)
            k = np.rint((y - p) / self.step) if self.kind == REAL else self._exponent(y, self._base(p))
        lost = ~(np.abs(k) < (_FAR if self.kind == REAL else _MOST + 1))
        return np.where(lost, 0, k).astype(np.int64), lost

    def apply(self, p: Array, k: Array) -> Array:
        """Decoded values of predictions and residuals, of the stored type."""
        with np.errstate(all="ignore"):
            if self.kind == BITS:
                return _unorder(self._start(p) + k, self.dtype)
            if self.kind == STEPS:
                return self._clip(self._start(p) + k * (2 * self._half + 1))
            if self.kind == REAL:
                return (p + k.astype(np.float64) * self.step).astype(self.dtype)
            y = self._moved(self._base(p), np.clip(k, -_MOST, _MOST))
            if self.dtype.kind == "f":
                return y.astype(self.dtype)
            return self._clip(np.where(np.isfinite(y), np.clip(np.rint(y), -_FAR, _FAR), 0).astype(np.int64))

    def kept(self, x: Array, decoded: Array) -> Array:
        """Where the bound holds."""
        if self.kind == BITS:
            return np.asarray(_order(x) == _order(decoded))
        return within(x, decoded, self.bound, relative=self.kind == RATIO)

    def _start(self, p: Array) -> Array:
        """Predictions as whole numbers, int64."""
        lo, hi = -(2.0**62), 2.0**62
        if self.kind == STEPS:
            info = np.iinfo(self.dtype)
            lo, hi = max(lo, float(info.min)), min(hi, float(info.max))
        return np.asarray(np.clip(np.rint(p), lo, hi).astype(np.int64))

    def _clip(self, y: Array) -> Array:
        info = np.iinfo(self.dtype)
        return np.asarray(np.clip(y, info.min, info.max).astype(self.dtype))

    # -- relative bounds -------------------------------------------------------------------------------------------

    def _base(self, p: Array) -> Array:
        p = np.rint(p) if self.dtype.kind != "f" else p
        return np.where(np.abs(p) < self.small, 0.0, p)

    def _ratio(self, p: Array) -> Array:
        """Ratio of neighbouring decoded values: less of integers, which are rounded; 1 where they move by steps."""
        if self.dtype.kind == "f":
            margin = 2.0**-50 if self.dtype.itemsize == 8 else 2.0**-22
            e = np.full(p.shape, max(0.0, self.bound * (1 - 2.0**-20) - margin))
        else:
            size = np.abs(p)
            e = np.where(self.bound * size >= 4, self.bound - 0.6 / np.maximum(size, 1), 0.0)
        return np.asarray((1 + e) / (1 - e))

    def _exponent(self, y: Array, p: Array) -> Array:
        """Residuals before they are checked, float64; NaN where signs differ. The encoder's alone: logarithms differ by machine."""
        r = self._ratio(p)
        k = np.rint(np.log(y / p) / np.log(r))
        if self.dtype.kind == "f":
            return np.where(p == 0, 0.0, np.where(r > 1, k, np.nan))
        return np.where(r > 1, k, np.rint((y - p) / self._stride(p)))

    def _stride(self, p: Array) -> Array:
        """Step of small integers."""
        return np.asarray(2 * np.floor(self.bound * np.abs(p) / (1 + self.bound)) + 1)

    def _moved(self, p: Array, k: Array) -> Array:
        """``p * ratio ** k``: products of floats, one at a time, as any machine has them."""
        r, power = self._ratio(p), np.ones(p.shape)
        n = np.abs(k)
        for _ in range(int(n.max(initial=0)).bit_length()):
            power = np.where(n & 1, power * r, power)
            r, n = r * r, n >> 1
        moved = np.where(k < 0, p / power, p * power)
        if self.dtype.kind == "f":
            return np.asarray(moved)
        return np.where(self._ratio(p) > 1, moved, p + k * self._stride(p))


def _rounded(gap: Array, step: int) -> Array:
    """``gap / step`` to the nearest whole number, exact for odd steps."""
    if step == 1:
        return gap
    half = step // 2
    return np.where(gap >= 0, (gap + half) // step, -((half - gap) // step))


def _order(x: Array) -> Array:
    """Number of each float in their order, int64; equal for equal bits alone."""
    size = x.dtype.itemsize
    bits = np.ascontiguousarray(x).view(f"i{size}").astype(np.int64)
    low = np.int64(-(2 ** (8 * size - 1)))
    return np.where(bits < 0, low - bits - 1, bits)


def _unorder(n: Array, dtype: np.dtype[Any]) -> Array:
    low = np.int64(-(2 ** (8 * dtype.itemsize - 1)))
    bits = np.where(n < 0, low - n - 1, n)
    return np.asarray(bits.astype(f"i{dtype.itemsize}").view(dtype))


def cast_to(base: Array, dtype: np.dtype[Any]) -> Array:
    """A band of the base in its stored type, flat."""
    flat = base.ravel()
    if flat.dtype == dtype:
        return flat
    if dtype.kind == "f":
        return flat.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.rint(flat.astype(np.float64)), info.min, info.max).astype(dtype)


def apart(truth: Array, decoded: Array, band: Band) -> Array:
    """False where a valid pixel would decode to nodata."""
    if band.nodata is None or np.isnan(band.nodata):
        return ~np.isnan(decoded) if decoded.dtype.kind == "f" else np.ones(truth.shape, bool)
    return np.asarray((decoded != band.nodata) | (truth == band.nodata))
