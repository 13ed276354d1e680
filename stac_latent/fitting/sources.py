"""Where a fit reads: one source for each Item, on the grid of its bands, or on several native ones at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
from affine import Affine

from stac_latent.cube.grid.native_grids import arrange
from stac_latent.cube.raw.source import ItemSource, find_bands
from stac_latent.errors import GridError
from stac_latent.fitting.bands import stand_in
from stac_latent.spec import Band
from stac_latent.stages.lin.grids import Lattices
from stac_latent.window import Window

__all__ = ["FitSource", "Layer", "native_bands", "open_sources"]

Layer = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]
"""Field ``(band, y, x)`` and valid pixels of one lattice."""


@dataclass(frozen=True)
class FitSource:
    """Pixels of one Item, as one layer for each lattice of cells."""

    parts: tuple[ItemSource, ...]

    @property
    def item(self) -> pystac.Item:
        """The Item."""
        return self.parts[0].item

    @property
    def grid(self) -> Any:
        """Grid of the finest pixels, in which windows are given."""
        return self.parts[0].grid

    @property
    def align(self) -> int:
        """Windows begin at multiples of so many pixels."""
        return max(self.parts[0].codec.native_pixels)

    def read(self, window: Window) -> list[Layer]:
        """Pixels of a window of :attr:`grid`; of other lattices, those that lie in it as a whole."""
        out = []
        for part in self.parts:
            pixels = window if part is self.parts[0] else self._under(window, part)
            if min(pixels.shape) > 0:
                out.append(part.read(pixels.shifted(part.grid.lead)))
            else:
                n = len(part.bands)
                out.append((np.zeros((n, 0, 0), part.decoded[0].data_type), np.zeros((1, 0, 0), bool)))
        return out

    def _under(self, window: Window, part: ItemSource) -> Window:
        fine, own = Affine(*self.grid.transform), Affine(*part.grid.transform)
        (y0, y1), (x0, x1) = window
        corners = [~own * (fine * c) for c in ((x0, y0), (x1, y1))]
        return Window.of(
            (
                max(0, math.ceil(corners[0][i] - 1e-3)),
                min(part.grid.shape[1 - i], math.floor(corners[1][i] + 1e-3)),
            )
            for i in (1, 0)
        )


def native_bands(
    item: pystac.Item, bands: Sequence[Band], keys: Mapping[str, str] | None
) -> tuple[tuple[Band, ...], Lattices | None]:
    """Bands in the order of the lattices of an Item's native grids, with their pixel sizes; None where they share one grid."""
    boxes = [b.box for b in find_bands(item, stand_in(bands), keys)]
    order, lattices = arrange(boxes)
    if lattices == ((len(boxes),),) or len({str(b.crs) for b in boxes}) > 1:
        return tuple(bands), None
    metric = boxes[0].crs is not None and boxes[0].crs.projected
    sizes = [abs(b.affine.a) if metric else None for b in boxes]
    return tuple(replace(bands[i], gsd=sizes[i]) for i in order), lattices


def open_sources(
    items: Sequence[pystac.Item],
    bands: Sequence[Band],
    lattices: Lattices | None,
    keys: Mapping[str, str] | None,
    resolution: float | None,
    resampling: str,
) -> list[FitSource]:
    """One source for each Item.

    Raises
    ------
    GridError
        If an Item's bands lie on several native grids although those of the first do not, or on others than these.
    """
    probe = stand_in(bands, lattices=lattices)
    out = []
    for item in items:
        try:
            parts = [ItemSource(item, p, keys, resolution, resampling) for p in probe.grid_chains]
        except GridError as exc:
            if "several native grids" in str(exc):
                text = str(exc).partition(". Choose")[0]
            elif "do not nest" in str(exc):
                text = f"the bands of item {item.id!r} lie on other native grids than those of item {items[0].id!r}"
            else:
                raise
            raise GridError(
                f"{text}. Fit to items of one kind, to a group of bands by itself (--bands), or state the grid to resample to with "
                "resolution= (--resolution)"
            ) from exc
        out.append(FitSource(tuple(parts)))
    return out
