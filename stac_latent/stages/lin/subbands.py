"""Where the subbands of a tile lie: groups of one resolution, their bands, and the order in which planes are coded.

A tile is a list of arrays ``(band, y, x)`` in Mallat's layout, one for each native resolution, finest first; array
``d`` has half the pixels of array ``d - 1`` along each axis. Bands meet at the levels that they share: group ``l``
holds the details of level ``l`` (counted on the finest array) of every band that has them, group 0 the coarsest bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context.model import set_of
from stac_latent.stages.lin.lifting import NORMS, sizes
from stac_latent.stages.transform.kernels import kernel

__all__ = ["Group", "Layout", "layout_of", "pack_cells", "unpack_cells"]

Region = tuple[slice, slice]


@dataclass(frozen=True)
class Group:
    """Subbands of one resolution.

    Parameters
    ----------
    level
        Level on the finest array; 0 for the coarsest band.
    members
        Positions of the bands that have it.
    regions
        Of each orientation, of each array that has it: where its samples lie.
    shapes
        Height and width of each orientation.
    norms
        Norm of the synthesis functions of each orientation.
    """

    level: int
    members: tuple[int, ...]
    arrays: tuple[int, ...]
    regions: tuple[tuple[Region, ...], ...]
    shapes: tuple[tuple[int, int], ...]
    norms: tuple[float, ...]

    def samples(self, tile: Sequence[Array], orientation: int) -> Array:
        """Samples of all members, ``(member, y, x)``."""
        parts = [tile[a][:, r[0], r[1]] for a, r in zip(self.arrays, self.regions[orientation], strict=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def place(self, tile: Sequence[Array], orientation: int) -> tuple[Array, int, int]:
        """An array ``(member, y, x)`` that holds all members, and the upper left of the samples in it."""
        if len(self.arrays) == 1:
            ys, xs = self.regions[orientation][0]
            return tile[self.arrays[0]], ys.start, xs.start
        return self.samples(tile, orientation), 0, 0


@dataclass(frozen=True)
class Layout:
    """Groups of a tile, coarsest first."""

    groups: tuple[Group, ...]
    levels: int
    shapes: tuple[tuple[int, int, int], ...]

    def program(self, active: Sequence[Sequence[int]]) -> tuple[Array, int]:
        """Table of planes for the coder, and the length of its buffer.

        Parameters
        ----------
        active
            Components that are coded, for each group and orientation.

        Returns
        -------
        table, size
            int64 ``(plane, 8)``: offset, height, width, parent, three relatives, set of weights; relatives are -1
            where there is none of the same size.
        """
        counts = np.zeros((len(self.groups), 3), np.int64)
        for g, row in enumerate(active):
            counts[g, : len(row)] = row
        table = np.empty((int(counts.sum()), 8), np.int64)
        end = _program(self._heights, self._widths, counts, self._sets, table)
        return table, int(end) + 2 * int(self._widths.max(initial=0)) + 8

    def coarser(self, reduction: int) -> Layout:
        """The groups that the low bands after ``reduction`` levels are made of, in arrays of their size; all arrays share one grid."""
        if not reduction:
            return self
        kept = tuple(g for g in self.groups if g.level == 0 or g.level > reduction)
        shapes = tuple((n, sizes(h, reduction)[-1], sizes(w, reduction)[-1]) for n, h, w in self.shapes)
        return Layout(kept, self.levels, shapes)

    @cached_property
    def _heights(self) -> Array:
        return self._sizes(0)

    @cached_property
    def _widths(self) -> Array:
        return self._sizes(1)

    def _sizes(self, axis: int) -> Array:
        """Height or width of each orientation of each group, int64 ``(group, 3)``."""
        out = np.zeros((len(self.groups), 3), np.int64)
        for g, group in enumerate(self.groups):
            out[g, : len(group.shapes)] = [s[axis] for s in group.shapes]
        return out

    @cached_property
    def _sets(self) -> Array:
        """Set of weights of the first component and of later ones, int64 ``(group, 3, 2)``."""
        sets = [[[set_of(g.level, o, c) for c in range(2)] for o in range(3)] for g in self.groups]
        return np.array(sets, np.int64)


@kernel
def _program(heights: Array, widths: Array, counts: Array, sets: Array, table: Array) -> int:
    """Fill the table of planes; returns the end of the last."""
    first = np.zeros(counts.shape, np.int64)
    at, k = 0, 0
    for g in range(counts.shape[0]):
        for o in range(3):
            h, w = heights[g, o], widths[g, o]
            first[g, o] = k
            for c in range(counts[g, o]):
                row = table[k]
                row[0], row[1], row[2] = at, h, w
                row[3] = first[g - 1, o] + c if g > 1 and c < counts[g - 1, o] else -1
                row[4] = k - 1 if c > 0 else -1
                row[5], row[6] = -1, -1
                if o == 0 and c > 1:
                    row[5] = k - 2
                for other in range(o):
                    if c < counts[g, other] and heights[g, other] == h and widths[g, other] == w:
                        row[5 + other] = first[g, other] + c
                row[7] = sets[g, o, min(c, 1)]
                at += (h + 2) * (w + 2)
                k += 1
    return at


@lru_cache(maxsize=64)
def layout_of(shapes: tuple[tuple[int, int, int], ...], levels: int) -> Layout:
    """Layout of a tile of arrays of these shapes ``(band, y, x)`` after ``levels`` levels of the finest."""
    starts = np.cumsum([0, *(s[0] for s in shapes)])
    groups = []
    for level in (0, *range(levels, 0, -1)):
        arrays = tuple(d for d in range(len(shapes)) if level == 0 or d < level)
        members = tuple(int(m) for d in arrays for m in range(starts[d], starts[d + 1]))
        regions, dims = [], []
        for o in range(1 if level == 0 else 3):
            row = [_region(shapes[d], (level or levels) - d, o if level else -1) for d in arrays]
            regions.append(tuple(row))
            dims.append((row[0][0].stop - row[0][0].start, row[0][1].stop - row[0][1].start))
        norm = NORMS[(level or levels) - 1] if levels else (1.0, 1.0)
        norms = (1.0,) if level == 0 else (norm[0], norm[0], norm[1])
        groups.append(Group(level, members, arrays, tuple(regions), tuple(dims), norms))
    return Layout(tuple(groups), levels, shapes)


def _region(shape: tuple[int, int, int], level: int, orientation: int) -> Region:
    """Samples of a band's own level; orientation -1 is the low band, 0 to 2 horizontal, vertical, diagonal details."""
    if level <= 0:
        return slice(0, shape[1]), slice(0, shape[2])
    ys, xs = sizes(shape[1], level), sizes(shape[2], level)
    low = slice(0, ys[-1]), slice(0, xs[-1])
    high = slice(ys[-1], ys[-2]), slice(xs[-1], xs[-2])
    return (low[0] if orientation in (-1, 0) else high[0]), (low[1] if orientation in (-1, 1) else high[1])


def pack_cells(x: Array, levels: int) -> Array:
    """Mallat's layout ``(band, y, x)`` to cells ``(band * 4**levels, y / 2**levels, x / 2**levels)``, float32.

    Channels of a band: the low sample, then details of each level, coarsest first, by orientation and place.
    """
    b, h, w = x.shape
    cy, cx = h >> levels, w >> levels
    out = np.empty((b, 4**levels, cy, cx), np.float32)
    out[:, 0] = x[:, :cy, :cx]
    at = 1
    for level in range(levels, 0, -1):
        m = 1 << (levels - level)
        for o in range(3):
            ys, xs = _region((b, h, w), level, o)
            part = x[:, ys, xs].reshape(b, cy, m, cx, m).transpose(0, 2, 4, 1, 3)
            out[:, at : at + m * m] = part.reshape(b, m * m, cy, cx)
            at += m * m
    return out.reshape(b * 4**levels, cy, cx)


def unpack_cells(cells: Array, levels: int) -> Array:
    """Inverse of :func:`pack_cells`."""
    n, cy, cx = cells.shape
    b, h, w = n // 4**levels, cy << levels, cx << levels
    parts = cells.reshape(b, 4**levels, cy, cx)
    x = np.empty((b, h, w), np.float32)
    x[:, :cy, :cx] = parts[:, 0]
    at = 1
    for level in range(levels, 0, -1):
        m = 1 << (levels - level)
        for o in range(3):
            ys, xs = _region((b, h, w), level, o)
            part = parts[:, at : at + m * m].reshape(b, m, m, cy, cx)
            x[:, ys, xs] = part.transpose(0, 3, 1, 4, 2).reshape(b, cy * m, cx * m)
            at += m * m
    return x
