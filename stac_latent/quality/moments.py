"""Moments of many pixels, added up chunk by chunk: count, range, mean and covariance of the bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.errors import FieldError

__all__ = ["Moments", "Summary"]


@dataclass
class Moments:
    """Weighted sums about a fixed centre; chunks and merged parts give what the whole would.

    Parameters
    ----------
    centre
        One value for each band, near the mean: sums of deviations lose fewer digits than those of values.
    floor
        Pixels weigh ``1 / (e + floor**2)``, e their mean square deviation from ``centre`` over the bands: else snow and
        clouds dominate. Infinite: all weigh the same.

    Examples
    --------
    >>> x = np.arange(12.0).reshape(2, 2, 3)
    >>> whole, parts = Moments([2.0, 8.0]), Moments([2.0, 8.0])
    >>> whole.add(x)
    >>> for row in (0, 1):
    ...     parts.add(x[:, row : row + 1])
    >>> whole.mean.tolist(), bool(np.allclose(whole.covariance, parts.covariance, rtol=1e-12))
    ([2.5, 8.5], True)
    """

    centre: Sequence[float]
    floor: float = np.inf
    count: int = 0
    """Pixels that are valid in all bands."""
    weight: float = 0.0
    seen: Array = field(init=False)
    """Valid pixels of each band."""
    low: Array = field(init=False)
    high: Array = field(init=False)
    total: Array = field(init=False)
    """Weighted deviations from the centre."""
    outer: Array = field(init=False)
    """Weighted products of deviations."""

    def __post_init__(self) -> None:
        n = len(self.centre)
        self.seen, self.total, self.outer = np.zeros(n, np.int64), np.zeros(n), np.zeros((n, n))
        self.low, self.high = np.full(n, np.inf), np.full(n, -np.inf)

    def add(self, values: Array, valid: npt.NDArray[np.bool_] | None = None) -> None:
        """Add a field.

        Parameters
        ----------
        values
            ``(band, y, x)``, real.
        valid
            Pixels that count, ``(1 or band, y, x)``. Range and :attr:`seen` are of each band; sums take the pixels that
            are valid in all.

        Raises
        ------
        FieldError
            If the number of bands differs.
        """
        n = len(self.centre)
        if len(values) != n:
            raise FieldError(
                f"moments of {n} bands cannot take a field of {len(values)}; add the same bands each time"
            )
        good = np.isfinite(values)
        if valid is not None:
            good = good & valid
        for i in range(n):
            chosen = values[i][good[i]]
            self.seen[i] += chosen.size
            if chosen.size:
                self.low[i] = min(self.low[i], float(chosen.min()))
                self.high[i] = max(self.high[i], float(chosen.max()))
        x = values[:, good.all(axis=0)].astype(np.float64)
        x -= np.asarray(self.centre, np.float64)[:, None]
        self.count += x.shape[1]
        if np.isinf(self.floor):
            self.weight += float(x.shape[1])
            self.total += x.sum(axis=1)
            self.outer += x @ x.T
            return
        w = 1 / (np.square(x).mean(axis=0) + self.floor**2)
        self.weight += float(w.sum())
        self.total += x @ w
        self.outer += (x * w) @ x.T

    def merge(self, other: Self) -> None:
        """Add what another process or thread has added up, about the same centre and with the same floor.

        Raises
        ------
        FieldError
            If centre or floor differ.
        """
        if list(self.centre) != list(other.centre) or self.floor != other.floor:
            raise FieldError(
                "moments about different centres, or with different floors, cannot be merged; begin both alike"
            )
        self.count += other.count
        self.weight += other.weight
        self.seen += other.seen
        self.total += other.total
        self.outer += other.outer
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    @property
    def mean(self) -> Array:
        """Weighted mean of each band; NaN without a pixel."""
        return np.asarray(self.centre, np.float64) + self._about

    @property
    def covariance(self) -> Array:
        """Weighted covariance ``(band, band)``; NaN without a pixel."""
        if not self.weight:
            return np.full_like(self.outer, np.nan)
        return np.asarray(self.outer / self.weight - np.outer(self._about, self._about))

    @property
    def std(self) -> Array:
        """Weighted deviation of each band; NaN without a pixel."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0)))

    @property
    def _about(self) -> Array:
        return np.asarray(self.total / self.weight if self.weight else np.full_like(self.total, np.nan))


@dataclass(frozen=True)
class Summary:
    """What :class:`Moments` of one or several fields say of each band."""

    count: int
    """Pixels that are valid in all bands of a field, of the field that has fewest."""
    seen: Array
    low: Array
    high: Array
    mean: Array
    std: Array

    @classmethod
    def of(cls, parts: Sequence[Moments]) -> Self:
        """Bands of all fields, in order.

        Examples
        --------
        >>> a, b = Moments([0.0]), Moments([0.0, 0.0])
        >>> a.add(np.ones((1, 4, 4)))
        >>> b.add(np.full((2, 2, 2), 3.0))
        >>> both = Summary.of([a, b])
        >>> both.count, both.seen.tolist(), both.mean.tolist()
        (4, [16, 4, 4], [1.0, 3.0, 3.0])
        """
        names = ("seen", "low", "high", "mean", "std")
        return cls(
            min(p.count for p in parts), *(np.concatenate([getattr(p, n) for p in parts]) for n in names)
        )
