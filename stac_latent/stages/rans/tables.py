"""Integer probability tables for :mod:`stac_latent.stages.rans.stage`, and the choice of table for each symbol."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Self

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError
from stac_latent.stages.base import take
from stac_latent.stages.rans.coder import TOTAL, Model
from stac_latent.stages.transform.kernels import histogram

__all__ = ["CLASSES", "GAP", "TOTAL", "TableSet", "counts_of", "laplace_tables", "run_tables"]

CLASSES = 8
"""Activity classes of cells; one class is half an octave of scale."""
GAP = 256
"""Zeros that one gap symbol can stand for."""
_RUN_SHARE = 0.94
_FIRST_SCALE = 0.05
_BINS = 29
_BLOCK = 4096
"""Cells whose class is chosen at a time: some 25 MB of histograms."""
_IMPOSSIBLE = 1e12
"""Bits: more than any array costs, so that no symbol is ever given a table that cannot code it."""


def counts_of(p: Array) -> Array:
    """Integer counts that sum to ``TOTAL``, each at least 1, proportional to ``p`` (int32)."""
    p = np.asarray(p, np.float64)
    counts: Array = np.maximum(1, np.floor(p / p.sum() * (TOTAL - p.size))).astype(np.int64)
    counts[np.argmax(counts)] += TOTAL - counts.sum()
    return counts.astype(np.int32)


def laplace_probabilities(scale: float, radius: int, rounding: float) -> Array:
    """Dead-zone quantised Laplacian over ``-radius..radius`` and the escape, ``(2 radius + 2,)``.

    A Laplacian of mean magnitude ``scale`` (in steps), quantised as ``floor(|y| + rounding)``.
    """
    k = np.arange(1, radius + 1)
    one = 0.5 * np.exp(-(k - rounding) / scale) * (1 - np.exp(-1 / scale))
    zero = 1 - np.exp(-(1 - rounding) / scale)
    escape = np.exp(-(radius + 1 - rounding) / scale)
    return np.concatenate([one[::-1], [zero], one, [escape]])


def laplace_tables(count: int = 24, rounding: float = 0.375) -> TableSet:
    """Tables of Laplacians whose scale grows by half octaves from 0.05 steps: good for any data."""
    tables, radius = [], []
    for t in range(count):
        scale = _FIRST_SCALE * 2 ** (t / 2)
        r = int(min(1024, np.ceil(7 * scale) + 2))
        tables.append(counts_of(laplace_probabilities(scale, r, rounding)))
        radius.append(r)
    delta = np.exp(-np.abs(np.arange(-CLASSES, CLASSES + 1)) / 1.1)
    index = np.exp(-np.abs(np.arange(-count, count + 1)) / 0.9)
    return TableSet(tables, np.asarray(radius), counts_of(delta), counts_of(index), *run_tables(tables))


def run_tables(tables: list[Array]) -> tuple[list[Array], list[Array]]:
    """Tables for coding by runs, for the first tables: those whose symbols are nearly all zero.

    Returns
    -------
    gaps, nonzero
        For each such table: counts of the zeros before a symbol, ``0..255`` and "256 more"; and the table's own
        counts with next to none for zero.
    """
    gaps, nonzero = [], []
    for table in tables:
        middle = (table.size - 2) // 2
        p = table[middle] / TOTAL
        if p < _RUN_SHARE:
            break
        g = np.arange(GAP)
        gaps.append(counts_of(np.append((1 - p) * p**g, p**GAP)))
        rest = table.astype(np.float64)
        rest[middle] = 0
        nonzero.append(counts_of(rest))
    return gaps, nonzero


class TableSet:
    """Tables 1..n by growing scale, and those of the side information.

    Parameters
    ----------
    tables
        One int32 array ``(2 radius + 2,)`` for each scale: symbols ``-radius..radius``, then the escape.
    radius
        Largest magnitude that each table codes.
    class_counts
        Differences of neighbouring classes, ``-8..8``.
    index_counts
        Scale indices relative to the channel's typical one, ``-n..n``.
    gaps, nonzero
        For the first tables, which are coded by runs; see :func:`run_tables`.
    """

    def __init__(
        self,
        tables: list[Array],
        radius: Array,
        class_counts: Array,
        index_counts: Array,
        gaps: list[Array],
        nonzero: list[Array],
    ) -> None:
        self.tables, self.radius = tables, np.asarray(radius, np.int64)
        self.class_counts, self.index_counts = class_counts, index_counts
        self.gaps, self.nonzero = gaps, nonzero
        n, runs = len(tables), len(gaps)
        sizes = [2 * CLASSES + 1, 2 * n + 1, *(2 * int(r) + 2 for r in self.radius)]
        sizes += [GAP + 1] * runs + sizes[2 : 2 + runs]
        everything = [class_counts, index_counts, *tables, *gaps, *nonzero]
        if len(nonzero) != runs or runs > n or len(sizes) != len(everything):
            raise BundleError(
                f"rans: {n} tables, {runs} of them with gaps, {len(nonzero)} without zero: they do not match"
            )
        if not 1 <= n <= 250 or any(a.shape != (s,) for a, s in zip(everything, sizes, strict=True)):
            raise BundleError(f"rans: {n} tables whose sizes do not match their radii")
        if any(a.min() < 1 or int(a.sum(dtype=np.int64)) != TOTAL for a in everything):
            raise BundleError(f"rans: every table needs positive counts that sum to {TOTAL}")

    @property
    def count(self) -> int:
        """Number of tables."""
        return len(self.tables)

    @cached_property
    def models(self) -> list[Model]:
        """Coder's models of the symbol tables."""
        return [Model(t) for t in self.tables]

    @cached_property
    def run_models(self) -> list[tuple[Model, Model]]:
        """Coder's models of gaps and of nonzero symbols, for the tables coded by runs."""
        return [(Model(g), Model(v)) for g, v in zip(self.gaps, self.nonzero, strict=True)]

    @cached_property
    def class_model(self) -> Model:
        """Coder's model of class differences."""
        return Model(self.class_counts)

    @cached_property
    def bits_per_class(self) -> float:
        """Fewest bits that a cell's class takes: bounds the cells that a payload can hold."""
        return float(np.log2(TOTAL / self.class_counts.max()))

    @cached_property
    def index_model(self) -> Model:
        """Coder's model of scale indices."""
        return Model(self.index_counts)

    # -- the encoder's choice ------------------------------------------------------------------------------------

    def assign(self, flat: Array, rounds: int = 2) -> tuple[Array, Array]:
        """Scale index of each channel and class of each cell that make the symbols cheap.

        Alternates between the best index for the given classes and the best class for the given indices. Any
        choice decodes; a better one is only smaller.

        Parameters
        ----------
        flat
            Symbols int32 ``(channel, cell)``.

        Returns
        -------
        index, classes
            int64 ``(channel,)`` in ``0..n`` and ``(cell,)`` in ``0..7``.
        """
        size = np.minimum(np.abs(flat), len(_BIN_OF) - 1)
        bins = _BIN_OF[size]
        activity = np.log2(size.sum(axis=0, dtype=np.float64) + 0.5)
        classes = np.clip(np.rint(2 * (activity - activity.mean())) + CLASSES // 2, 0, CLASSES - 1).astype(
            np.int64
        )
        index = self._best_index(bins, classes)
        for _ in range(rounds - 1):
            classes = self._best_class(bins, index)
            index = self._best_index(bins, classes)
        return index, classes

    def _best_index(self, bins: Array, classes: Array) -> Array:
        c = bins.shape[0]
        hist = histogram(bins, np.arange(c), classes, (c, CLASSES, _BINS))
        cost = hist @ self._costs.reshape(self.count + 1, -1).T
        return np.asarray(cost.argmin(axis=1), np.int64)

    def _best_class(self, bins: Array, index: Array) -> Array:
        t, costs = self.count + 1, self._costs.transpose(0, 2, 1).reshape(-1, CLASSES)
        out = np.empty(bins.shape[1], np.int64)
        for start in range(0, out.size, _BLOCK):
            part = np.ascontiguousarray(bins[:, start : start + _BLOCK].T)
            hist = histogram(part, np.arange(len(part)), index, (len(part), t, _BINS))
            out[start : start + _BLOCK] = (hist @ costs).argmin(axis=1)
        return out

    @cached_property
    def _costs(self) -> Array:
        """Cost of each magnitude bin in 1/256 bit, ``(index, class, bin)``; whole numbers, so that sums are exact."""
        bits = np.full((self.count + 1, _BINS), _IMPOSSIBLE)
        bits[0, 0] = 0
        for t, (counts, r) in enumerate(zip(self.tables, self.radius, strict=True), start=1):
            b = -np.log2(counts / TOTAL)
            for i, magnitude in enumerate(_BIN_CENTRE):
                bits[t, i] = b[r + magnitude] if magnitude <= r else b[-1] + 16
        index, cls = np.mgrid[: self.count + 1, :CLASSES]
        which = np.clip(index + cls - CLASSES // 2, 0, self.count)
        which[0] = 0
        return np.asarray(np.rint(bits[which] * 256))

    # -- bundle --------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Array]:
        """Flat integer arrays for the bundle."""
        return {
            "counts": np.concatenate(self.tables).astype(np.int32),
            "radius": self.radius.astype(np.int32),
            "class_counts": self.class_counts.astype(np.int32),
            "index_counts": self.index_counts.astype(np.int32),
            "gap_counts": np.asarray(self.gaps, np.int32).reshape(-1, GAP + 1),
            "nonzero_counts": np.concatenate([np.empty(0, np.int32), *self.nonzero]).astype(np.int32),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Self:
        """Inverse of :meth:`tensors`."""
        flat, radius = take(tensors, "counts", "rans", 1), take(tensors, "radius", "rans", 1).astype(np.int64)
        ends = np.cumsum(2 * radius + 2)
        if not radius.size or radius.min() < 0 or radius.max() > 2**15 or ends[-1] != flat.size:
            raise BundleError("rans: the radii do not match the tables")
        gaps, nonzero = take(tensors, "gap_counts", "rans", 2), take(tensors, "nonzero_counts", "rans", 1)
        runs = len(gaps)
        if runs > radius.size or (ends[runs - 1] if runs else 0) != nonzero.size:
            raise BundleError(
                f"rans: {runs} gap tables do not match {nonzero.size} counts of nonzero symbols"
            )
        return cls(
            np.split(flat, ends[:-1]),
            radius,
            take(tensors, "class_counts", "rans", 1),
            take(tensors, "index_counts", "rans", 1),
            list(gaps),
            np.split(nonzero, ends[: runs - 1]) if runs else [],
        )


def _bins() -> tuple[Array, list[int]]:
    """Magnitude bins: 0 to 15 one by one, then one an octave half."""
    of = np.zeros(2**13, np.uint8)
    edges = [*range(16)]
    edge = 16.0
    while len(edges) < _BINS:
        edges.append(int(edge))
        edge *= 2**0.75
    for i, (lo, hi) in enumerate(zip(edges, [*edges[1:], of.size], strict=True)):
        of[lo:hi] = i
    centre = [
        *range(16),
        *(int((lo * hi) ** 0.5) for lo, hi in zip(edges[16:], [*edges[17:], of.size], strict=True)),
    ]
    return of, centre


_BIN_OF, _BIN_CENTRE = _bins()
