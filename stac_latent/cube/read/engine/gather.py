"""Pixels at any rows and columns, from windows that each lie in one stored chunk: no chunk without a pixel of them is read.

What is asked for is grouped by chunk, so that each is read once, whatever the order and however often a pixel is repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.window import Span, Window

__all__ = ["Blocks", "Found", "Places", "Read", "at_crossings", "at_points"]

Places = npt.NDArray[np.int64]
"""Rows or columns, counted from 0."""

Read = Callable[[Sequence[Window]], Iterator[Array]]
"""Gives ``(n, y, x)`` of each window, in their order."""

Found = tuple[tuple[Any, ...], Array]


@dataclass(frozen=True)
class Blocks:
    """How an axis is cut into chunks.

    Parameters
    ----------
    size
        Places of a chunk.
    lead
        How many of the first chunk lie before the first place.
    length
        Places of the axis.
    step, offset
        Where rows or columns are larger than the chunks' own: how many of these are one, and where the first begins.
    """

    size: int
    lead: int
    length: int
    step: int = 1
    offset: int = 0

    def fine(self, places: Places) -> Places:
        """Places on the axis that chunks are counted on."""
        return places * self.step + self.offset

    def chunk_of(self, fine: Places) -> Places:
        """Number of the chunk of each place of :meth:`fine`."""
        return (fine + self.lead) // self.size

    def runs(self, span: Span) -> list[Span]:
        """The parts of a run of places that lie in one chunk each."""
        number = self.chunk_of(self.fine(np.arange(*span)))
        cuts = (np.flatnonzero(np.diff(number)) + 1 + span.start).tolist()
        return [Span(lo, hi) for lo, hi in itertools.pairwise([span.start, *cuts, span.stop])]

    def sizes(self, factor: int = 1) -> int | tuple[int, ...]:
        """Length of ``factor`` chunks at a time along the axis: one number where all but the last are alike.

        Examples
        --------
        >>> Blocks(256, 0, 600).sizes(), Blocks(256, 100, 600).sizes(), Blocks(256, 0, 600).sizes(8)
        (256, (156, 256, 188), 600)
        """
        number = self.chunk_of(self.fine(np.arange(self.length))) // factor
        sizes = np.unique(number, return_counts=True)[1].tolist()
        alike = len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]
        return int(sizes[0]) if alike else tuple(map(int, sizes))


def at_crossings(read: Read, blocks: Sequence[Blocks], rows: Places, columns: Places) -> Iterator[Found]:
    """What lies where rows and columns cross: index into ``(row, column)``, and ``(n, ...)`` of it, chunk by chunk."""
    y, x = (_groups(b, places) for b, places in zip(blocks, (rows, columns), strict=True))
    pairs = [(one, other) for one in y for other in x]
    windows = [Window.of((one.span, other.span)) for one, other in pairs]
    for (one, other), pixels in zip(pairs, read(windows), strict=True):
        yield (one.where[:, None], other.where), pixels[:, one.inside[:, None], other.inside]


def at_points(read: Read, blocks: Sequence[Blocks], rows: Places, columns: Places) -> Iterator[Found]:
    """What lies at points: index into ``(point,)``, and ``(n, point)`` of it, chunk by chunk."""
    fine = [b.fine(places) for b, places in zip(blocks, (rows, columns), strict=True)]
    y, x = (b.chunk_of(f) for b, f in zip(blocks, fine, strict=True))
    members = _alike(y * (x.max(initial=0) + 1) + x)
    windows = [Window.of((int(f[m].min()), int(f[m].max()) + 1) for f in fine) for m in members]
    for where, window, pixels in zip(members, windows, read(windows), strict=True):
        rows, columns = (f[where] - span.start for f, span in zip(fine, window, strict=True))
        yield (where,), pixels[:, rows, columns]


def _alike(numbers: Places) -> list[Places]:
    """Positions of equal numbers."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else []


@dataclass(frozen=True)
class _Group:
    """Those of the places along an axis that lie in one chunk."""

    where: Places
    """Their positions in what was asked for."""
    inside: Places
    """The places, counted from the start of the span."""
    span: tuple[int, int]


def _groups(blocks: Blocks, places: Places) -> list[_Group]:
    fine = blocks.fine(places)
    out = []
    for where in _alike(blocks.chunk_of(fine)):
        lo, hi = int(fine[where].min()), int(fine[where].max()) + 1
        out.append(_Group(where, fine[where] - lo, (lo, hi)))
    return out
