"""Tiles that ``lin`` codes: from latents in cells, or straight from a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import FieldError
from stac_latent.stages.lin.grids import CELL, CELL_LEVELS, Nest
from stac_latent.stages.lin.lifting import analyse, levels_of, synthesise
from stac_latent.stages.lin.tile import MAX_LEVELS
from stac_latent.stages.transform.normalise import Normalise, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stac_latent.window import Window

__all__ = ["FromField", "FromLatents", "Source", "transform"]


class Source(Protocol):
    """Gives tiles by their window of cells."""

    @property
    def cells(self) -> tuple[int, int]:
        """Cells (y, x)."""
        ...

    def tile(self, window: Window, pixels: bool) -> tuple[Array | None, list[Array]]:
        """Pixels ``(band, y, x)`` in normalised units, if they are asked for, and all coefficients of each grid; float32."""
        ...


@dataclass(frozen=True)
class FromLatents:
    """Latents ``(channel, y, x)`` float32 of a lattice; trailing rows and columns of NaN lie outside the field."""

    latents: Array
    nest: Nest

    @classmethod
    def inside(cls, x: Array, nest: Nest) -> FromLatents:
        """Latents without what lies outside the field.

        Raises
        ------
        FieldError
            If they are not latents of these bands, or not finite.
        """
        if x.ndim != 3 or len(x) != nest.channels:
            raise FieldError(
                f"lin takes ({nest.channels}, y, x) latents of {len(nest.steps)} bands; got {x.shape}"
            )
        known = ~np.isnan(x[0])
        x = x[:, : int(known.any(axis=1).sum()), : int(known.any(axis=0).sum())]
        if not x.size or not np.isfinite(x).all():
            raise FieldError(
                "lin: latents hold NaN or infinite values inside the field; mask its pixels as nodata first"
            )
        return cls(x, nest)

    @property
    def cells(self) -> tuple[int, int]:
        """Cells (y, x)."""
        return int(self.latents.shape[1]), int(self.latents.shape[2])

    def tile(self, window: Window, pixels: bool) -> tuple[Array | None, list[Array]]:
        """As :meth:`Source.tile`."""
        (y0, y1), (x0, x1) = window
        grids = self.nest.unpack(self.latents[:, y0:y1, x0:x1])
        truth = None
        if pixels:
            known = [x.copy() for x in grids]
            for depth, x in enumerate(known):
                synthesise(x, CELL_LEVELS - depth)
            truth = self.nest.spread(known)
        levels = levels_of(*grids[0].shape[1:], most=MAX_LEVELS)
        for depth, x in enumerate(grids):
            analyse(x, levels - depth, CELL_LEVELS - depth)
        return truth, grids


@dataclass(frozen=True)
class FromField:
    """A field ``(band, y, x)`` of whole cells in the stored type, larger pixels repeated, and its valid pixels."""

    field: Array
    mask: Array | None
    """Bool ``(1 or band, y, x)``; None for all."""
    first: Normalise
    nest: Nest

    @property
    def cells(self) -> tuple[int, int]:
        """Cells (y, x)."""
        return self.field.shape[1] // CELL, self.field.shape[2] // CELL

    def tile(self, window: Window, pixels: bool) -> tuple[Array | None, list[Array]]:
        """As :meth:`Source.tile`."""
        ys, xs = (slice(lo * CELL, hi * CELL) for lo, hi in window)
        mask = None if self.mask is None else self.mask[:, ys, xs]
        tile = load(self.field[:, ys, xs], self.first, mask, (CELL, CELL))
        grids = [np.ascontiguousarray(x) for x in self.nest.gather(tile)]
        truth = None
        if pixels:
            truth = tile.copy() if self.nest.single else self.nest.spread(grids)
        transform(grids)
        return truth, grids


def transform(grids: Sequence[Array]) -> None:
    """Pixels of each grid of a tile to coefficients of all levels, in place."""
    levels = levels_of(*grids[0].shape[1:], most=MAX_LEVELS)
    for depth, x in enumerate(grids):
        analyse(x, levels - depth)
