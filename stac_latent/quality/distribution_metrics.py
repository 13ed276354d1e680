"""Metrics of the distribution of values: quantiles, exceedances, histograms.

They look at a sample of pixels that is bounded in memory: every pixel up to 262,144 for each band, then every other one, and
so on; the same pixels of both fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CodecError
from stac_latent.spec import Band

__all__ = ["Exceedance", "Histogram", "QuantileShift"]


_MOST = 2**18


class _Sample:
    """Values of one band in both fields, thinned as they grow."""

    def __init__(self) -> None:
        self.parts: list[Array] = []
        self.size, self.every, self.seen = 0, 1, 0

    def add(self, truth: Array, decoded: Array) -> None:
        start = -self.seen % self.every
        self.seen += truth.size
        part = np.array([truth[start :: self.every], decoded[start :: self.every]], np.float64)
        self.parts.append(part)
        self.size += part.shape[1]
        while self.size > _MOST:
            whole = np.concatenate(self.parts, axis=1)[:, ::2]
            self.parts, self.size, self.every = [whole], whole.shape[1], 2 * self.every

    @property
    def pair(self) -> Array:
        """``(2, n)``: truth, decoded."""
        return np.concatenate(self.parts, axis=1)


class _Sampled(ABC):
    """Largest over the bands of what :meth:`_measure` finds."""

    def __init__(self) -> None:
        self.samples: dict[str, _Sample] = {}

    def add(self, truth: Array, decoded: Array, valid: Array, bands: Sequence[Band]) -> None:
        """Add a window; see :meth:`stac_latent.quality.checks.Metric.add`."""
        for band, a, b, mask in zip(bands, truth, decoded, valid, strict=True):
            if mask.any():
                self.samples.setdefault(band.name, _Sample()).add(a[mask], b[mask])

    @abstractmethod
    def _measure(self, truth: Array, decoded: Array) -> float: ...

    def value(self) -> float | None:
        """Of the worst band; None without a valid pixel."""
        return max((self._measure(*s.pair) for s in self.samples.values()), default=None)


class _AtQuantile(_Sampled):
    def __init__(self, q: float = 0.99) -> None:
        super().__init__()
        if not 0 < q < 1:
            raise CodecError(f"q={q:g} is no quantile; expected more than 0 and less than 1, such as 0.99")
        self.q = q


class QuantileShift(_AtQuantile):
    """How far the q-quantile moves, stored unit; ``q=0.99`` by default."""

    name: ClassVar[str] = "quantile"
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def _measure(self, truth: Array, decoded: Array) -> float:
        return float(abs(np.quantile(decoded, self.q) - np.quantile(truth, self.q)))


class Exceedance(_AtQuantile):
    """By which share the number of pixels above the field's own q-quantile changes; ``q=0.99`` by default.

    0.05 means that five of a hundred extreme pixels are lost, or as many are added.
    """

    name: ClassVar[str] = "exceedance"
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def _measure(self, truth: Array, decoded: Array) -> float:
        edge = np.quantile(truth, self.q)
        before, after = int((truth > edge).sum()), int((decoded > edge).sum())
        return abs(after - before) / max(1, before)


class Histogram(_Sampled):
    """Total variation distance of the histograms in 64 bins over the field's range: the share of pixels that change bins."""

    name: ClassVar[str] = "histogram"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    _BINS = 64

    def _measure(self, truth: Array, decoded: Array) -> float:
        low, high = truth.min(), truth.max()
        scale = self._BINS / (high - low) if high > low else 1.0
        rows = []
        for x in (truth, decoded):
            inside = np.clip(np.floor((x - low) * scale), -1, self._BINS - 1)
            bins = np.where(x > high, self._BINS, inside).astype(int) + 1
            rows.append(np.bincount(bins, minlength=self._BINS + 2))
        return float(np.abs(rows[0] - rows[1]).sum() / (2 * truth.size))
