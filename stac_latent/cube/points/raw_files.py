"""Values of raw files at many pixels: each file is opened once, and each of its blocks is read once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from stac_latent.cube.grid.points import Pixels
from stac_latent.cube.raw.band_reader import FileSource, file_source
from stac_latent.cube.raw.named import RawBands
from stac_latent.errors import CatalogError, SourceWarning
from stac_latent.system.suggest import did_you_mean

__all__ = ["RawSamples", "data_bands"]


def data_bands(raw: RawBands) -> list[str]:
    """Names of all bands of an Item's raster files that hold data, as odc-stac has them.

    Raises
    ------
    CatalogError
        If there are none.
    """
    names = [str(row["names"][0]) for row in raw.rows.values() if row["kind"] == "data"]
    if not names:
        raise CatalogError(
            f"item {raw.item.id!r} has no raster asset; its assets are {', '.join(raw.item.assets) or 'none'}"
        )
    return names


class RawSamples:
    """Raw pixels of one Item at points, on the grid of each file.

    Parameters
    ----------
    raw
        Bands of the Item.
    names
        Those that are read, by any name that :meth:`RawBands.find` knows.
    physical
        Whether values are times scale plus offset, as the Item states them, else the file.

    Raises
    ------
    CatalogError
        If there is no such band, or its file cannot be read.
    GridError
        If file and Item contradict each other on where it lies.
    """

    def __init__(self, raw: RawBands, names: Sequence[str], *, physical: bool) -> None:
        self._physical = physical
        self.asked = list(names)
        """Bands in the order in which they were asked for."""
        files: dict[str, list[tuple[str, FileSource]]] = {}
        for name in names:
            source = _source(raw, name)
            files.setdefault(source.file.href, []).append((name, source))
        grids: dict[GeoBox, list[list[tuple[str, FileSource]]]] = {}
        for members in files.values():
            grids.setdefault(members[0][1].file.box, []).append(members)
        self._files = list(grids.values())
        self.names: list[tuple[str, ...]] = [
            tuple(name for members in of_grid for name, _ in members) for of_grid in self._files
        ]
        """Bands of each grid."""
        self.boxes: list[GeoBox] = list(grids)
        """Their pixels."""

    def read(self, pixels: Sequence[Pixels]) -> list[npt.NDArray[Any]]:
        """``(band, n)`` for the pixels of each grid; NaN without data."""
        return [
            np.concatenate([self._of_file([source for _, source in members], found) for members in of_grid])
            for of_grid, found in zip(self._files, pixels, strict=True)
        ]

    def _of_file(self, sources: Sequence[FileSource], pixels: Pixels) -> npt.NDArray[Any]:
        """``(band, n)`` of some bands of one file."""
        dtype = np.result_type(*(s.facts.data_type for s in sources))
        values, valid = sources[0].file.at(
            [s.index for s in sources], pixels.rows, pixels.columns, str(dtype), masked=any(s.masked for s in sources)
        )  # fmt: skip
        if self._physical:
            out = np.empty(values.shape, sources[0].spec.bands[0].data_type)
        else:
            out = values.astype(np.result_type(dtype, np.float32))
        for i, source in enumerate(sources):
            if self._physical:
                scale = 1.0 if source.facts.scale is None else source.facts.scale
                np.multiply(values[i], scale, out=out[i], casting="unsafe")
                out[i] += np.float32(source.facts.offset or 0.0)
            for missing in source.facts.missing:
                valid[i] &= values[i] != values.dtype.type(missing)
        out[~valid] = math.nan
        return out


def _source(raw: RawBands, name: str) -> FileSource:
    band = raw.find(name)
    if band is None:
        raise CatalogError(
            f"no raw band {name!r}{did_you_mean(name, raw.names)} in item {raw.item.id!r}; it has {raw.listing or 'no raster asset'}"
        )
    source = file_source(band.ref)
    for note in source.notes:
        warnings.warn(f"item {raw.item.id!r}: {note}", SourceWarning, stacklevel=4)
    return source
