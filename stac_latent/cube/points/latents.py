"""Values at many pixels of one latent: every chunk that holds one is decoded once, whatever their number and order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from stac_latent.aliases import Array
from stac_latent.cube.grid.boxes import cell_box, pixel_box
from stac_latent.cube.grid.points import Integers, Pixels, by_tile
from stac_latent.cube.item_assets import stamp_of
from stac_latent.cube.read.band_views import NativeReader
from stac_latent.cube.read.driver import cells_for
from stac_latent.cube.read.embedding.cells import PlainReader
from stac_latent.cube.read.physical import physical_band, to_physical
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.read.variables import ResolvedAsset
from stac_latent.spec import Band, Grid
from stac_latent.system.threads import each
from stac_latent.window import Window

__all__ = ["CellSamples", "FieldSamples", "as_numbers"]

Numbers = npt.NDArray[Any]


def as_numbers(values: Array, bands: Sequence[Band], *, physical: bool) -> Numbers:
    """Stored values ``(band, n)`` with NaN for nodata: float32 where that holds the type, else float64; complex values stay complex."""
    if physical:
        out = np.empty(values.shape, physical_band(bands[0]).data_type)
        for plane, stored, band in zip(out, values, bands, strict=True):
            to_physical(stored, band, plane)
        return out
    out = values.astype(np.result_type(values.dtype, np.float32))
    for i, band in enumerate(bands):
        if band.nodata is not None:
            out[i][values[i] == band.nodata] = np.nan
    return out


@dataclass(frozen=True)
class _Part:
    """Bands of one lattice on one grid."""

    grid: Grid
    indices: tuple[int, ...]


class FieldSamples:
    """Decoded pixels of one Item at points, on the native grid of each band.

    Parameters
    ----------
    asset
        What is read.
    names
        Bands by name or common name.
    physical
        Whether values are times scale plus offset.
    """

    def __init__(self, asset: ResolvedAsset, names: Sequence[str], *, physical: bool) -> None:
        self._physical = physical
        self.asked = list(names)
        """Bands in the order in which they were asked for."""
        self._stamp = stamp_of(asset.item, asset.ref.asset)
        grids: dict[tuple[int, Grid], list[str]] = {}
        for name in names:
            view = asset.view(name)
            grids.setdefault((view.ref.part, view.grid), []).append(name)
        self.names: list[tuple[str, ...]] = [tuple(of_grid) for of_grid in grids.values()]
        """Bands of each grid."""
        self.boxes: list[GeoBox] = [pixel_box(grid) for _, grid in grids]
        """Their pixels."""
        self._refs = [asset.view(of_grid[0]).ref for of_grid in self.names]
        self._parts = [
            _Part(grid, tuple(asset.view(name).index for name in of_grid))
            for (_, grid), of_grid in zip(grids, self.names, strict=True)
        ]

    def read(self, pixels: Sequence[Pixels]) -> list[Numbers]:
        """``(band, n)`` for the pixels of each grid; NaN without data."""
        out: list[Numbers | None] = [None] * len(pixels)
        for part in dict.fromkeys(ref.part for ref in self._refs):
            members = [i for i, ref in enumerate(self._refs) if ref.part == part]
            reader = cells_for(self._refs[members[0]], self._stamp)
            assert isinstance(reader, LatentReader)  # noqa: S101 - of kind codec
            found = _sampled(reader, [self._parts[i] for i in members], [pixels[i] for i in members])
            for i, values in zip(members, found, strict=True):
                bands = [reader.codec.bands[k] for k in self._parts[i].indices]
                out[i] = as_numbers(values, bands, physical=self._physical)
        return [v for v in out if v is not None]


def _sampled(reader: LatentReader, parts: Sequence[_Part], pixels: Sequence[Pixels]) -> list[Array]:
    """Stored values of each part, from one pass over the chunks that hold any of its pixels."""
    places = []
    for part, found in zip(parts, pixels, strict=True):
        step, offset = 1, (0, 0)
        if part.grid != reader.grid:
            native = NativeReader(reader, part.grid)
            step, offset = native.step, native.offset
        places.append((found.rows * step + offset[0], found.columns * step + offset[1]))
    (height, top), (width, left) = reader.chunk_pixels()
    tiles = [inside for _, inside in by_tile(places, (height, width), (top, left))]
    windows = [_around(places, inside) for inside in tiles]
    bands = sorted({i for part in parts for i in part.indices})
    dtype = np.result_type(*(np.dtype(reader.codec.bands[i].data_type) for i in bands))
    out = [
        np.zeros((len(part.indices), len(rows)), dtype) for part, (rows, _) in zip(parts, places, strict=True)
    ]
    fields = reader.read_windows(windows, bands, alone=True)
    for field, window, inside in zip(fields, windows, tiles, strict=True):
        for part, values, (rows, columns), at in zip(parts, out, places, inside, strict=True):
            chosen = np.array([bands.index(i) for i in part.indices])[:, None]
            values[:, at] = field[chosen, rows[at] - window.y.start, columns[at] - window.x.start]
    return out


def _around(places: Sequence[tuple[Integers, Integers]], inside: Sequence[Integers]) -> Window:
    """The smallest window with some points of each group."""
    rows, columns = (np.concatenate([v[i][at] for v, at in zip(places, inside, strict=True)]) for i in (0, 1))
    return Window.of((int(v.min()), int(v.max()) + 1) for v in (rows, columns))


class CellSamples:
    """Latents of one Item, or vectors of an embedding, at points.

    Parameters
    ----------
    asset
        What is read.
    """

    names: Sequence[tuple[str, ...]] = [("latent",)]
    asked: Sequence[str] = ["latent"]

    def __init__(self, asset: ResolvedAsset) -> None:
        self._ref, self._stamp = asset.ref, stamp_of(asset.item, asset.ref.asset)
        self.boxes: list[GeoBox] = [cell_box(asset.ref.grid)]
        """Its cells."""
        self.dimensions = asset.ref.spec.dimensions
        """Channels."""

    def read(self, pixels: Sequence[Pixels]) -> list[Numbers]:
        """float32 ``(channel, n)`` for the cells; NaN without data."""
        (cells,) = pixels
        reader = cells_for(self._ref, self._stamp)
        rows = cells.rows
        if isinstance(reader, PlainReader):
            size: Sequence[int] = reader.tile
            if reader.layout.flip:  # tiles are counted from the first row of the file
                rows = reader.grid.shape[0] - 1 - rows
        else:
            size = reader.arrays.latent.chunks[1:]
        tiles = [inside for _, (inside,) in by_tile([(rows, cells.columns)], size)]
        out = np.empty((reader.spec.dimensions, len(rows)), np.float32)

        def fill(at: Integers) -> None:
            window = _around([(cells.rows, cells.columns)], [at])
            row, column = cells.rows[at] - window.y.start, cells.columns[at] - window.x.start
            out[:, at] = reader.read_latent(window)[:, row, column]

        each(fill, tiles)
        return [out]
