"""Bands of several pixel sizes over the same cells: how they are held as one field, and where their latents stand.

A *lattice* of cells of 8 finest pixels carries bands of its finest grid (depth 0) and of grids whose pixels are two, four or
eight times as large (depth 1 to 3): a cell of 80 m holds 8 x 8 pixels of 10 m or 4 x 4 of 20 m. As a field, every band
stands on the finest pixels, those of larger ones repeated; only one of each is coded. Grids that do not nest have a lattice
of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.chain import ChainT
from stac_latent.errors import BundleError, CodecError, FieldError
from stac_latent.spec import Stats
from stac_latent.stage import GridStage, Stage
from stac_latent.stages.lin.subbands import pack_cells, unpack_cells

__all__ = ["CELL", "CELL_LEVELS", "DEEPEST", "Lattices", "Nest", "chains_of", "checked_lattices"]

CELL_LEVELS = 3
CELL = 1 << CELL_LEVELS
"""Pixels of a cell along each axis."""
DEEPEST = CELL_LEVELS
"""Levels of the finest grid below which no other joins its pyramid."""

Lattices = tuple[tuple[int, ...], ...]
"""Number of bands of each grid, finest first, on each lattice: ``((4, 6), (2,))`` for 10 and 20 m, and 60 m apart."""


def checked_lattices(value: Any, stage: str) -> Lattices | None:
    """Lattices of a stage's configuration; None for bands of one grid.

    Raises
    ------
    BundleError
        If they are none.
    """
    if value is None:
        return None
    try:
        out = tuple(tuple(counts) for counts in value)
        numbers = list(itertools.chain(*out))
    except TypeError as exc:
        raise BundleError(f"{stage}: lattices are lists of numbers of bands; got {value!r}") from exc
    sound = bool(out) and all(type(n) is int and n > 0 for n in numbers) and all(out)
    if not sound or len(out[0]) > DEEPEST + 1 or any(len(counts) > 1 for counts in out[1:]):
        raise BundleError(
            f"{stage}: lattices {value!r} cannot be: the first has bands of 1 to {DEEPEST + 1} grids, each other of one"
        )
    return out if len(out) > 1 or len(out[0]) > 1 else None


@dataclass(frozen=True)
class Nest:
    """Grids of one lattice.

    Parameters
    ----------
    counts
        Bands of each grid, finest first; the pixels of each are twice as large as those of the one before.

    Examples
    --------
    >>> nest = Nest((1, 2))
    >>> nest.steps, nest.channels, nest.share
    ((1, 2, 2), 96, 1.5)
    >>> fine, coarse = nest.gather(np.arange(48.0).reshape(3, 4, 4))
    >>> fine.shape, coarse.shape, nest.spread([fine, coarse]).shape
    ((1, 4, 4), (2, 2, 2), (3, 4, 4))
    """

    counts: tuple[int, ...]

    @property
    def single(self) -> bool:
        """Whether all bands share one grid."""
        return len(self.counts) == 1

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Finest pixels along a pixel of each band."""
        return tuple(1 << d for d, n in enumerate(self.counts) for _ in range(n))

    @cached_property
    def channels(self) -> int:
        """Channels of a cell."""
        return sum(CELL**2 // s**2 for s in self.steps)

    @cached_property
    def share(self) -> float:
        """Samples of all bands for each finest pixel."""
        return sum(1 / s**2 for s in self.steps)

    @cached_property
    def bands(self) -> tuple[slice, ...]:
        """Bands of each grid."""
        ends = list(itertools.accumulate(self.counts))
        return tuple(slice(end - n, end) for n, end in zip(self.counts, ends, strict=True))

    def gather(self, field: Array) -> list[Array]:
        """Bands of each grid on their own pixels, from ``(band, y, x)`` on the finest; views of it."""
        return [field[b, :: 1 << d, :: 1 << d] for d, b in enumerate(self.bands)]

    def spread(self, grids: Sequence[Array]) -> Array:
        """All bands on the finest pixels: inverse of :meth:`gather`, pixels repeated. A single grid stays as it is."""
        if self.single:
            return grids[0]
        out = np.empty((sum(self.counts), *grids[0].shape[1:]), grids[0].dtype)
        for d, (b, x) in enumerate(zip(self.bands, grids, strict=True)):
            step = 1 << d
            for i, j in itertools.product(range(step), range(step)):
                out[b, i::step, j::step] = x
        return out

    def native(self, valid: Array | None, shape: Sequence[int]) -> Array | None:
        """Valid samples ``(band, y, x)``: one finest pixel for each of a band's own; as it is for a single grid."""
        if self.single:
            return valid
        out = np.zeros((sum(self.counts), *shape[-2:]), bool)
        for x in self.gather(out):
            x[...] = True
        return out if valid is None else out & valid

    def pack(self, grids: Sequence[Array]) -> Array:
        """Latents ``(channel, y, x)`` of coefficients in Mallat's layout, analysed down to the cells."""
        parts = [pack_cells(x, CELL_LEVELS - d) for d, x in enumerate(grids)]
        return parts[0] if self.single else np.concatenate(parts)

    def unpack(self, cells: Array) -> list[Array]:
        """Inverse of :meth:`pack`."""
        if len(cells) != self.channels:
            raise FieldError(
                f"bands {list(self.counts)} of {len(self.counts)} grid(s) have {self.channels} channels; got {len(cells)}"
            )
        out, at = [], 0
        for d, n in enumerate(self.counts):
            size = n * 4 ** (CELL_LEVELS - d)
            out.append(unpack_cells(cells[at : at + size], CELL_LEVELS - d))
            at += size
        return out


def chains_of(chain: ChainT, lattices: Lattices | None) -> tuple[ChainT, ...]:
    """The chain of each lattice, which codes its bands alone; all are of the space of the whole.

    Raises
    ------
    CodecError
        If a stage cannot be cut down to some of the bands.
    """
    if lattices is None or len(lattices) == 1:
        return (chain,)
    out, band, channel = [], 0, 0
    for counts in lattices:
        n, channels = sum(counts), Nest(counts).channels
        bands, places = slice(band, band + n), slice(channel, channel + channels)
        stats = chain.stats
        if stats is not None:
            stats = Stats(stats.mean[places], stats.std[places])
        stages = tuple(_for_grid(stage, bands, counts, chain.name) for stage in chain.stages)
        out.append(
            replace(
                chain, stages=stages, bands=chain.bands[bands], dimensions=channels, stats=stats, whole_space=chain.space
            )
        )  # fmt: skip
        band, channel = band + n, channel + channels
    return tuple(out)


def _for_grid(stage: Stage, bands: slice, counts: tuple[int, ...], name: str) -> Stage:
    if not isinstance(stage, GridStage):
        raise CodecError(
            f"codec {name!r} has bands on several native grids, but its stage {stage.name!r} is no GridStage: it cannot be cut down "
            "to the bands of one"
        )
    return stage.for_grid(bands, counts)
