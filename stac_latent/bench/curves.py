"""Rate-distortion curves: interpolation, and the mean difference of rate between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BdRate", "Curve", "bd_rate", "pool"]

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BdRate:
    """Mean difference of rate, and where it was taken.

    Parameters
    ----------
    percent
        Negative where the tested coder needs fewer bits.
    low, high
        Interval of PSNR [dB] that both curves and the caller's interval share.
    """

    percent: float
    low: float
    high: float


class Curve:
    """Rate over PSNR through measured points.

    Points that cost more bits than another of at least their PSNR are left out. Between points the logarithm of the
    rate is a monotone piecewise cubic (PCHIP: slopes of Fritsch and Butland, harmonic means weighted by intervals).

    Parameters
    ----------
    points
        Pairs of rate (above 0, any unit) and PSNR [dB].

    Examples
    --------
    >>> c = Curve([(0.1, 36.0), (0.2, 40.0), (0.4, 44.0)])
    >>> c.low, c.high, round(float(c.rate(40.0)), 3)
    (36.0, 44.0, 0.2)
    """

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        best: list[tuple[float, float]] = []
        for rate, psnr in sorted(points, key=lambda p: (p[0], -p[1])):
            if not best or psnr > best[-1][1] + 1e-9:
                best.append((rate, psnr))
        self.psnr: Vector = np.array([p[1] for p in best], np.float64)
        self.log_rate: Vector = np.log(np.array([p[0] for p in best], np.float64))
        self._slopes = _slopes(self.psnr, self.log_rate)

    @property
    def low(self) -> float:
        """Smallest PSNR [dB]; infinite without points."""
        return float(self.psnr[0]) if self.psnr.size else np.inf

    @property
    def high(self) -> float:
        """Largest PSNR [dB]."""
        return float(self.psnr[-1]) if self.psnr.size else -np.inf

    def rate(self, psnr: Any) -> Any:
        """Rate at a PSNR inside the curve; NaN outside.

        Parameters
        ----------
        psnr
            Number or array [dB].
        """
        return np.exp(self._log(np.asarray(psnr, np.float64)))

    def _log(self, psnr: Vector) -> Vector:
        if self.psnr.size < 2:
            at = self.log_rate[0] if self.psnr.size else np.nan
            return np.where(psnr == self.low, at, np.nan)
        x, y, m = self.psnr, self.log_rate, self._slopes
        i = np.clip(np.searchsorted(x, psnr, side="right") - 1, 0, len(x) - 2)
        h = x[i + 1] - x[i]
        t = (psnr - x[i]) / h
        value = (
            y[i] * (1 + 2 * t) * (1 - t) ** 2
            + h * m[i] * t * (1 - t) ** 2
            + y[i + 1] * t**2 * (3 - 2 * t)
            + h * m[i + 1] * t**2 * (t - 1)
        )
        return np.where((psnr >= x[0]) & (psnr <= x[-1]), value, np.nan)


def bd_rate(anchor: Curve, test: Curve, interval: tuple[float, float] | None = None) -> BdRate | None:
    """Mean difference of rate of ``test`` to ``anchor`` at equal PSNR.

    The mean of the difference of log-rates over the PSNR that both curves cover, as G. Bjontegaard, "Calculation of average PSNR
    differences between RD-curves", ITU-T VCEG-M33, 2001; with PCHIP in place of one cubic polynomial, as in
    JVET-H0030 and the common test conditions of VVC.

    Parameters
    ----------
    anchor, test
        Curves of the same content.
    interval
        PSNR [dB] to stay within.

    Returns
    -------
    BdRate or None
        None where the curves share less than half of the interval, or less than 1 dB.
    """
    low, high = max(anchor.low, test.low), min(anchor.high, test.high)
    if interval is not None:
        low, high = max(low, interval[0]), min(high, interval[1])
    wanted = 1.0 if interval is None else max(0.5 * (interval[1] - interval[0]), 1e-3)
    if not high - low >= wanted:
        return None
    at = np.linspace(low, high, 513)
    difference = np.log(test.rate(at)) - np.log(anchor.rate(at))
    mean = np.trapezoid(difference, at) / (high - low)
    return BdRate(float(np.expm1(mean) * 100), low, high)


def pool(curves: Sequence[Curve], levels: Sequence[float]) -> Curve:
    """Mean rate over tiles of equal size at each PSNR: the curve of the whole set, held at one quality everywhere.

    Levels that some tile does not reach are left out.
    """
    rates = np.array([c.rate(np.asarray(levels, np.float64)) for c in curves]).reshape(-1, len(levels))
    mean = rates.mean(axis=0) if len(rates) else np.full(len(levels), np.nan)
    return Curve((float(r), float(p)) for r, p in zip(mean, levels, strict=True) if np.isfinite(r))


def _slopes(x: Vector, y: Vector) -> Vector:
    """Slopes of PCHIP at the points."""
    if len(x) < 2:
        return np.zeros(len(x))
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    if len(x) == 2:
        return np.array([d[0], d[0]])
    m = np.zeros(len(x))
    left, right = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    rising = d[:-1] * d[1:] > 0
    m[1:-1][rising] = ((left + right)[rising]) / (
        left[rising] / d[:-1][rising] + right[rising] / d[1:][rising]
    )
    m[0] = _end(h[0], h[1], d[0], d[1])
    m[-1] = _end(h[-1], h[-2], d[-1], d[-2])
    return m


def _end(h0: float, h1: float, d0: float, d1: float) -> float:
    """One-sided three-point slope that keeps the shape."""
    m = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    if m * d0 <= 0:
        return 0.0
    return 3 * d0 if d0 * d1 < 0 and abs(m) > 3 * abs(d0) else float(m)
