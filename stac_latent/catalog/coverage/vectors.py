"""Which cells of adopted embeddings hold vectors, never will (water), or have none yet; told from their scales, without reading a vector."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pystac
import rasterio.warp

from stac_latent.catalog.verify.adopted import adopted_assets
from stac_latent.cube.grid.boxes import cell_box
from stac_latent.cube.grid.tiling import tiles
from stac_latent.cube.read.driver import open_cells
from stac_latent.cube.read.embedding.cells import PlainReader
from stac_latent.cube.ref import LatentRef
from stac_latent.window import Window

__all__ = ["VectorShares", "vector_shares"]

_SIDE = 2048
"""Cells along a side of what is read at a time."""


@dataclass(frozen=True, slots=True)
class VectorShares:
    """Cells of one Item, in the area."""

    item: str
    cells: int
    vectors: int
    """Those that hold a vector."""
    water: int
    """Those that never will: their scale is NaN."""
    pending: int
    """Those that have none yet: their scale is what the producer fills a store with."""


def vector_shares(
    items: Iterable[pystac.Item], bbox: tuple[float, float, float, float] | None = None
) -> list[VectorShares]:
    """Count the cells of embeddings whose scales tell water from what is still to come, such as Tessera's Zarr stores.

    Parameters
    ----------
    items
        Others than such are passed over.
    bbox
        West, south, east, north [deg]; only cells in the rectangle around it, in the CRS of each Item. None: all.

    Returns
    -------
    list of VectorShares
        One for each Item that has cells in the area.

    Raises
    ------
    StacLatentError
        If a file cannot be read, or was changed since it was adopted.
    """
    out = []
    for item in items:
        for key in adopted_assets(item):
            scales = item.assets.get(item.assets[key].extra_fields.get("latent:scale_asset", ""))
            if scales is None or scales.extra_fields.get("nodata") is None:
                continue
            reader = open_cells(LatentRef.from_item(item, key))
            window = _window(reader, bbox) if isinstance(reader, PlainReader) else None
            if isinstance(reader, PlainReader) and window is not None:
                out.append(_count(item.id, reader, window))
    return out


def _count(name: str, reader: PlainReader, window: Window) -> VectorShares:
    water = pending = 0
    for part in tiles(window.shape, (_SIDE, _SIDE)):
        gone, later = reader.read_absence(part.shifted((window.y.start, window.x.start)))
        water, pending = water + int(gone.sum()), pending + int(later.sum())
    cells = math.prod(window.shape)
    return VectorShares(name, cells, cells - water - pending, water, pending)


def _window(reader: PlainReader, bbox: tuple[float, float, float, float] | None) -> Window | None:
    """Cells in the rectangle around an area; None where there are none."""
    if bbox is None:
        return Window.whole(reader.grid.shape)
    height, width = reader.grid.shape
    box = cell_box(reader.grid)
    west, south, east, north = rasterio.warp.transform_bounds("OGC:CRS84", str(box.crs), *bbox)
    x, y = ~box.affine * (np.array([west, east]), np.array([north, south]))
    window = Window.of(
        (max(0, math.floor(min(v))), min(n, math.ceil(max(v)))) for v, n in ((y, height), (x, width))
    )
    return window if min(window.shape) > 0 else None
