"""Pyramid: wavelet coefficients of independent tiles of about 256 pixels, as latents in cells of 8 pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.chain import ChainT, MultiGrid
from stac_latent.errors import BundleError, FieldError
from stac_latent.stage import GridStage, StoresType, Tiled
from stac_latent.stages.base import FRACTION_BITS, BaseStage
from stac_latent.stages.lin.grids import CELL, CELL_LEVELS, Lattices, Nest, chains_of, checked_lattices
from stac_latent.stages.lin.lifting import analyse, synthesise
from stac_latent.stages.transform.normalise import refuse_far
from stac_latent.window import Span, Window

__all__ = ["CELL", "CELL_LEVELS", "TILE", "Pyramid", "cells_of_tile", "field_tiles", "tiles_of"]

TILE = 256
"""Pixels along each axis that tiles come near to."""
_ONE = 48
"""Cells along an axis that stay one tile."""
_SIDES = range(40, 27, -1)
"""Cells along the tiles of longer axes."""


def cells_of_tile(cells: Sequence[int]) -> tuple[int, int]:
    """Cells (y, x) of the tiles that a field of so many is cut into, from the upper left; the last of a row or column may be smaller.

    Up to 48 cells along an axis are one tile. Of more, a tile has 28 to 40: the number of which the last tile lacks the fewest,
    and the larger of equals, so that no tile is a thin remainder.

    Examples
    --------
    >>> cells_of_tile((33, 49)), cells_of_tile((229, 1373))
    ((33, 28), (33, 32))
    """
    return _along(cells[0]), _along(cells[1])


def _along(cells: int) -> int:
    return cells if cells <= _ONE else min(_SIDES, key=lambda side: -cells % side)


def pixels_of_tile(shape: tuple[int, int]) -> tuple[int, int]:
    """Pixels (y, x) of the tiles that a field of so many is cut into: whole cells."""
    rows, columns = cells_of_tile([-(-n // CELL) for n in shape])
    return rows * CELL, columns * CELL


def tiles_of(height: int, width: int, *, size: tuple[int, int]) -> Iterator[Window]:
    """Windows ``((y0, y1), (x0, x1))`` of tiles of ``size`` counted from the upper left, row by row."""
    for y, x in itertools.product(range(0, height, size[0]), range(0, width, size[1])):
        yield Window(Span(y, min(y + size[0], height)), Span(x, min(x + size[1], width)))


def field_tiles(height: int, width: int) -> Iterator[Window]:
    """Windows of the tiles that a field of so many pixels is cut into, row by row."""
    return tiles_of(height, width, size=pixels_of_tile((height, width)))


class Pyramid(BaseStage, StoresType, Tiled, MultiGrid, GridStage):
    """CDF 9/7 wavelet over three levels, tile by tile, float32.

    Tiles do not overlap: each decodes alone, from the bytes of its own chunk. Channels of a band are those of
    :func:`~stac_latent.stages.lin.subbands.pack_cells`; a step of one unit in any of them changes the field by about as much
    energy, so that latents can be compared and quantised without weights.

    Parameters
    ----------
    lattices
        Bands of each grid of each lattice, where they have several; see :mod:`stac_latent.stages.lin.grids`.

    Examples
    --------
    >>> stage = Pyramid()
    >>> latent = stage.forward(np.full((1, 8, 16), 160.0))
    >>> latent.shape, bool(abs(latent[0, 0, 0] - 80.0) < 1e-3)
    ((64, 1, 2), True)
    """

    name: ClassVar[str] = "pyramid"
    level: ClassVar[Level] = "latent"
    data_type = "float32"

    def __init__(self, lattices: Lattices | None = None) -> None:
        self.lattices = checked_lattices(lattices, self.name)

    @property
    def stride(self) -> tuple[int, int]:
        """Eight pixels along each axis."""
        return (CELL, CELL)

    def tile_of(self, shape: tuple[int, int]) -> tuple[int, int]:
        """See :meth:`~stac_latent.stage.Tiled.tile_of`."""
        return pixels_of_tile(shape)

    def forward(self, x: Array) -> Array:
        """``(band, y, x)`` in units of ``2**-4`` to latents ``(band * 64, y / 8, x / 8)`` float32, in whole units.

        Raises
        ------
        FieldError
            If a value is so large that it was clipped.
        """
        bands, h, w = x.shape
        refuse_far(np.maximum(x.max(axis=(1, 2)), -x.min(axis=(1, 2))))
        nest = self._nest(bands)
        out = np.empty((nest.channels, h // CELL, w // CELL), np.float32)
        for (y0, y1), (x0, x1) in field_tiles(h, w):
            grids = [
                (part * 2.0**-FRACTION_BITS).astype(np.float32) for part in nest.gather(x[:, y0:y1, x0:x1])
            ]
            for depth, part in enumerate(grids):
                analyse(part, CELL_LEVELS - depth)
            out[:, y0 // CELL : y1 // CELL, x0 // CELL : x1 // CELL] = nest.pack(grids)
        return out

    def inverse(self, y: Array) -> Array:
        """Inverse of :meth:`forward`, float64."""
        _, cy, cx = y.shape
        nest = self._nest(len(y) // CELL**2)
        out = np.empty((len(nest.steps), cy * CELL, cx * CELL))
        for (y0, y1), (x0, x1) in tiles_of(cy, cx, size=cells_of_tile((cy, cx))):
            grids = nest.unpack(y[:, y0:y1, x0:x1])
            for depth, part in enumerate(grids):
                synthesise(part, CELL_LEVELS - depth)
            out[:, y0 * CELL : y1 * CELL, x0 * CELL : x1 * CELL] = nest.spread(grids)
        out *= 2.0**FRACTION_BITS
        return out

    def _nest(self, bands: int) -> Nest:
        if self.lattices is None:
            return Nest((bands,))
        if len(self.lattices) > 1:
            raise FieldError(
                f"a codec of {len(self.lattices)} lattices codes each by itself: take one of its parts, or compress() a list of fields"
            )
        return Nest(self.lattices[0])

    @property
    def native_pixels(self) -> tuple[int, ...] | None:
        """See :attr:`~stac_latent.chain.MultiGrid.native_pixels`."""
        return None if self.lattices is None else tuple(s for c in self.lattices for s in Nest(c).steps)

    def grid_chains(self, chain: ChainT) -> tuple[ChainT, ...]:
        """One chain for each lattice; see :func:`~stac_latent.stages.lin.grids.chains_of`."""
        return chains_of(chain, self.lattices)

    def for_grid(self, bands: slice, counts: tuple[int, ...]) -> Self:
        """See :meth:`~stac_latent.stage.GridStage.for_grid`."""
        del bands
        return type(self)((counts,))

    def config(self) -> dict[str, Any]:
        """Levels, and the pixels that tiles come near to, as they are fixed, and lattices where there are several grids."""
        out: dict[str, Any] = {"levels": CELL_LEVELS, "tile": TILE}
        return out if self.lattices is None else out | {"lattices": [list(c) for c in self.lattices]}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config`."""
        rest = {k: v for k, v in config.items() if k != "lattices"}
        if rest != {"levels": CELL_LEVELS, "tile": TILE} or tensors:
            raise BundleError(
                f"pyramid: this version knows {CELL_LEVELS} levels and tiles of {TILE}; got {dict(config)}"
            )
        return cls(config.get("lattices"))
