"""Where the arrays of a store lie, in words that other software reads.

Two vocabularies say the same. CF: a variable ``spatial_ref`` with the CRS, which each array names as its ``grid_mapping``, and coordinates
with ``standard_name``, ``units`` and ``axis``. Zarr's conventions: ``proj:``, the CRS, among the attributes of the group, from where its arrays
inherit it; ``spatial:``, axes and transform, on each array, those of cells on the latents and those of pixels on the mask. The pixels'
grid of a codec stands under ``latent`` in the group, since no array but the mask lies on it. Small grids have less of CF, which would be much of their store.

Dimensions of a further lattice have names of their own, so that a store opens as a tree, whose nodes may not disagree on the length
of a dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from pyproj import CRS
from zarr.codecs import BloscCodec

from stac_latent.spec import Grid

__all__ = ["MAPPING", "PLACED", "StorePlace", "dimension_names", "grid_fields", "group_place"]

MAPPING = "spatial_ref"
"""Name of the variable with the CRS."""
PLACED = ("grid_mapping", "coordinates", "zarr_conventions", "spatial:dimensions", "spatial:transform")
"""Attributes of arrays that say where they lie."""
_PROJ = {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:"}
_SPATIAL = {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial:"}
_OF_PIXELS = ("proj:shape", "proj:transform")
_NOT_NEEDED = ("scope", "area", "bbox", "usages")
"""Members of PROJJSON that say where a CRS is used, and not what it is."""
_CHIP = 1 << 14
"""Pixels of a grid, at most, that has no variable with the CRS."""
_SMALL = 1 << 18
"""Pixels of a grid, at most, whose pixels have no coordinates."""


def group_place(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a group from the fields of an asset: of a codec, the grid of its pixels stands under ``latent``.

    Examples
    --------
    >>> group_place({"latent:kind": "codec", "proj:code": "EPSG:32633", "proj:shape": [64, 64]})["latent"]
    {'proj:shape': [64, 64]}
    """
    own = dict(fields)
    if fields.get("latent:kind") == "codec":
        pixels = {name: own.pop(name) for name in _OF_PIXELS if name in own}
        own["latent"] = {**own.get("latent", {}), **pixels}
    return {**own, "zarr_conventions": [_PROJ]}


def grid_fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an asset from the attributes of a group; the inverse of :func:`group_place`."""
    own = attributes.get("latent")
    pixels = {k: v for k, v in own.items() if k in _OF_PIXELS} if isinstance(own, Mapping) else {}
    return {**attributes, **pixels}


def dimension_names(names: Sequence[str], attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the dimensions of an array in a group with these attributes: of the lattice ``latent:part``.

    Examples
    --------
    >>> dimension_names(("channel", "y", "x"), {"latent:part": 1})
    ('channel_1', 'y_1', 'x_1')
    """
    part = attributes.get("latent:part")
    return tuple(f"{name}_{part}" if part else name for name in names)


@dataclass(frozen=True)
class StorePlace:
    """Where the arrays of a group lie.

    Parameters
    ----------
    grid
        Of the pixels.
    group_attributes
        Those of the group.

    Examples
    --------
    >>> place = StorePlace(Grid("EPSG:32633", (10, 0, 400_000, 0, -10, 5_000_000), (64, 64), (8, 8)), {})
    >>> place.of_cells["spatial:dimensions"], place.of_cells["spatial:transform"]
    (['y', 'x'], [80, 0, 400000, 0, -80, 5000000])
    """

    grid: Grid
    group_attributes: Mapping[str, Any]

    @property
    def of_cells(self) -> dict[str, Any]:
        """Attributes of an array of cells."""
        return self._of(self.grid.cell_grid(), ("y", "x"))

    @property
    def of_pixels(self) -> dict[str, Any]:
        """Attributes of an array of pixels."""
        return self._of(self.grid, ("py", "px"))

    def _of(self, grid: Grid, names: Sequence[str]) -> dict[str, Any]:
        mapping = {"grid_mapping": MAPPING, "coordinates": MAPPING} if self._pixels > _CHIP else {}
        own = list(dimension_names(names, self.group_attributes))
        return {
            **mapping,
            "zarr_conventions": [_SPATIAL],
            "spatial:dimensions": own,
            "spatial:transform": list(grid.transform),
        }

    @property
    def _pixels(self) -> int:
        return self.grid.shape[0] * self.grid.shape[1]

    def write(self, group: zarr.Group, *, pixels: bool) -> None:
        """Add coordinates of cells, and of ``pixels``, and the variable with the CRS to a group."""
        if pixels and self._pixels > _SMALL:
            ramps = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=8)
            self._write_coordinates(group, self.grid, ("py", "px"), [ramps])
        self._write_coordinates(group, self.grid.cell_grid(), ("y", "x"), "auto")
        if self._pixels > _CHIP:
            about: dict[str, Any] = {"crs_wkt": _short_wkt(self.grid.crs)}
            group.create_array(MAPPING, shape=(), dtype="uint8", compressors=None, attributes=about)

    def _write_coordinates(
        self, group: zarr.Group, grid: Grid, names: Sequence[str], compressors: Any
    ) -> None:
        """Centres along rows and columns; none where these are turned against the axes of the CRS."""
        a, b, c, d, e, f = grid.transform
        if b or d:
            return
        own = dimension_names(names, self.group_attributes)
        for name, axis, n, start, step in zip(own, "YX", grid.shape, (f, c), (e, a), strict=True):
            out = group.create_array(
                name, shape=(n,), dtype="float64", chunks=(n,), compressors=compressors, dimension_names=(name,),
                attributes=_axis(grid.crs, axis),
            )  # fmt: skip
            out[:] = start + step * (np.arange(n) + 0.5)


@lru_cache(maxsize=256)
def _axis(crs: str, axis: str) -> dict[str, Any]:
    """Attributes of a coordinate along an axis by CF."""
    found = CRS.from_user_input(crs)
    if found.is_geographic:
        name, unit = ("longitude", "degrees_east") if axis == "X" else ("latitude", "degrees_north")
    elif found.is_projected:
        own = found.axis_info[0].unit_name
        name, unit = f"projection_{axis.lower()}_coordinate", "m" if own == "metre" else own
    else:
        return {"axis": axis}
    return {"axis": axis, "standard_name": name, "units": unit}


@lru_cache(maxsize=256)
def _short_wkt(crs: str) -> str:
    """WKT2 of a CRS without the text on where it is used, which is half of it."""
    found = CRS.from_user_input(crs)
    short = CRS.from_json_dict({k: v for k, v in found.to_json_dict().items() if k not in _NOT_NEEDED})
    text = short.to_wkt("WKT2_2015_SIMPLIFIED")
    return text if text and CRS.from_wkt(text).equals(found) else found.to_wkt()
