"""Tiles that ``lin`` codes: from latents in cells, or straight from a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stac_latent.codec import Array
from stac_latent.errors import FieldError
from stac_latent.stages.lifting import analyse, levels_of, synthesise
from stac_latent.stages.lin_tile import MAX_LEVELS
from stac_latent.stages.normalise import Normalise, load
from stac_latent.stages.pyramid import CELL, CELL_LEVELS
from stac_latent.stages.subbands import unpack_cells

if TYPE_CHECKING:
    from stac_latent.spec import Window

__all__ = ["FromField", "FromLatents", "Source"]


class Source(Protocol):
    """Gives tiles by their window of cells."""

    @property
    def cells(self) -> tuple[int, int]:
        """Cells (y, x)."""
        ...

    def tile(self, window: Window, pixels: bool) -> tuple[Array | None, Array]:
        """Pixels in normalised units, if they are asked for, and all coefficients; ``(band, y, x)`` float32."""
        ...


@dataclass(frozen=True)
class FromLatents:
    """Latents ``(band * 64, y, x)`` float32; trailing rows and columns of NaN lie outside the field."""

    latents: Array

    @classmethod
    def inside(cls, x: Array, bands: int) -> FromLatents:
        """Latents without what lies outside the field.

        Raises
        ------
        FieldError
            If they are not latents of so many bands, or not finite.
        """
        if x.ndim != 3 or len(x) != bands * CELL**2:
            raise FieldError(f"lin takes ({bands * CELL**2}, y, x) latents of {bands} bands; got {x.shape}")
        known = ~np.isnan(x[0])
        x = x[:, : int(known.any(axis=1).sum()), : int(known.any(axis=0).sum())]
        if not x.size or not np.isfinite(x).all():
            raise FieldError(
                "lin: latents hold NaN or infinite values inside the field; mask its pixels as nodata first"
            )
        return cls(x)

    @property
    def cells(self) -> tuple[int, int]:
        """Cells (y, x)."""
        return int(self.latents.shape[1]), int(self.latents.shape[2])

    def tile(self, window: Window, pixels: bool) -> tuple[Array | None, Array]:
        """As :meth:`Source.tile`."""
        (y0, y1), (x0, x1) = window
        tile = unpack_cells(self.latents[:, y0:y1, x0:x1], CELL_LEVELS)
        truth = None
        if pixels:
            truth = tile.copy()
            synthesise(truth, CELL_LEVELS)
        analyse(tile, levels_of(*tile.shape[1:], most=MAX_LEVELS), CELL_LEVELS)
        return truth, tile


@dataclass(frozen=True)
class FromField:
    """A field ``(band, y, x)`` of whole cells in the stored type, and its valid pixels ``(1 or band, y, x)``."""

    field: Array
    mask: Array | None
    first: Normalise

    @property
    def cells(self) -> tuple[int, int]:
        """Cells (y, x)."""
        return self.field.shape[1] // CELL, self.field.shape[2] // CELL

    def tile(self, window: Window, pixels: bool) -> tuple[Array | None, Array]:
        """As :meth:`Source.tile`."""
        ys, xs = (slice(lo * CELL, hi * CELL) for lo, hi in window)
        mask = None if self.mask is None else self.mask[:, ys, xs]
        tile = load(self.field[:, ys, xs], self.first, mask, (CELL, CELL))
        truth = tile.copy() if pixels else None
        analyse(tile, levels_of(*tile.shape[1:], most=MAX_LEVELS))
        return truth, tile
