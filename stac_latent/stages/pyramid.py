"""Pyramid: wavelet coefficients of independent tiles of 256 pixels, as latents in cells of 8 pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from stac_latent.codec import Array, Level
from stac_latent.errors import BundleError
from stac_latent.stages.base import FRACTION_BITS, BaseStage
from stac_latent.stages.lifting import analyse, synthesise
from stac_latent.stages.normalise import refuse_far
from stac_latent.stages.subbands import pack_cells, unpack_cells

if TYPE_CHECKING:
    from stac_latent.spec import Window

__all__ = ["CELL", "CELL_LEVELS", "TILE", "Pyramid", "tiles_of"]

CELL_LEVELS = 3
CELL = 1 << CELL_LEVELS
"""Pixels of a cell along each axis."""
TILE = 256
"""Pixels of a tile along each axis; the last ones may be smaller."""


def tiles_of(height: int, width: int, *, size: int) -> Iterator[Window]:
    """Windows ``((y0, y1), (x0, x1))`` of tiles counted from the upper left, row by row."""
    for y, x in itertools.product(range(0, height, size), range(0, width, size)):
        yield (y, min(y + size, height)), (x, min(x + size, width))


class Pyramid(BaseStage):
    """CDF 9/7 wavelet over three levels, tile by tile, float32.

    Tiles do not overlap: each decodes alone, from the bytes of its own chunk. Channels of a band are those of
    :func:`~stac_latent.stages.subbands.pack_cells`; a step of one unit in any of them changes the field by about as much
    energy, so that latents can be compared and quantised without weights.

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
    tile = TILE

    @property
    def stride(self) -> tuple[int, int]:
        """Eight pixels along each axis."""
        return (CELL, CELL)

    def forward(self, x: Array) -> Array:
        """``(band, y, x)`` in units of ``2**-4`` to latents ``(band * 64, y / 8, x / 8)`` float32, in whole units.

        Raises
        ------
        FieldError
            If a value is so large that it was clipped.
        """
        bands, h, w = x.shape
        refuse_far(np.maximum(x.max(axis=(1, 2)), -x.min(axis=(1, 2))))
        out = np.empty((bands * CELL**2, h // CELL, w // CELL), np.float32)
        for (y0, y1), (x0, x1) in tiles_of(h, w, size=TILE):
            part = (x[:, y0:y1, x0:x1] * 2.0**-FRACTION_BITS).astype(np.float32)
            analyse(part, CELL_LEVELS)
            out[:, y0 // CELL : y1 // CELL, x0 // CELL : x1 // CELL] = pack_cells(part, CELL_LEVELS)
        return out

    def inverse(self, y: Array) -> Array:
        """Inverse of :meth:`forward`, float64."""
        _, cy, cx = y.shape
        out = np.empty((len(y) // CELL**2, cy * CELL, cx * CELL))
        for (y0, y1), (x0, x1) in tiles_of(cy, cx, size=TILE // CELL):
            part = unpack_cells(y[:, y0:y1, x0:x1], CELL_LEVELS)
            synthesise(part, CELL_LEVELS)
            out[:, y0 * CELL : y1 * CELL, x0 * CELL : x1 * CELL] = part
        out *= 2.0**FRACTION_BITS
        return out

    def config(self) -> dict[str, Any]:
        """Levels and tile, as they are fixed."""
        return {"levels": CELL_LEVELS, "tile": TILE}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config`."""
        if dict(config) != {"levels": CELL_LEVELS, "tile": TILE} or tensors:
            raise BundleError(
                f"pyramid: this version knows {CELL_LEVELS} levels and tiles of {TILE}; got {dict(config)}"
            )
        return cls()
