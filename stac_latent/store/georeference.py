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

from stac_latent.geo.crs import crs_fields
from stac_latent.spec import Grid, Spec

__all__ = [
    "MAPPING",
    "PLACED",
    "StorePlace",
    "dimension_names",
    "embedding_attributes",
    "grid_fields",
    "group_place",
]

MAPPING = "spatial_ref"
"""Name of the variable with the CRS."""
PLACED = ("grid_mapping", "coordinates", "zarr_conventions", "spatial:dimensions", "spatial:transform")
"""Attributes of arrays that say where they lie."""
_PROJ = {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:"}
_SPATIAL = {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial:"}
_GEOEMB = {"uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c", "name": "geoemb:"}
_OF_PIXELS = ("proj:shape", "proj:transform")
_NOT_NEEDED = ("scope", "area", "bbox", "usages")
"""Members of PROJJSON that say where a CRS is used, and not what it is."""
_LEFT_OUT = (
    "crs_wkt",
    "semi_minor_axis",
    "reference_ellipsoid_name",
    "prime_meridian_name",
    "geographic_crs_name",
    "horizontal_datum_name",
    "projected_crs_name",
)
"""Attributes of a grid mapping that follow from others, or are names."""
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
    named = [_GEOEMB] if "geoemb:type" in fields else []
    return {**own, "zarr_conventions": [_PROJ, *named]}


def embedding_attributes(spec: Spec, model: str, source: str) -> dict[str, Any]:
    """Attributes of the group of an embedding by the convention ``geoemb:`` of Zarr, but for its declaration.

    Parameters
    ----------
    spec
        Of the asset.
    model
        Address of the codec's Item, as seen from the group.
    source
        Name of the data that was encoded.
    """
    stride = list(spec.stride)
    pixel = spec.granularity == "pixel"
    out: dict[str, Any] = {
        "geoemb:type": "pixel" if pixel else "chip",
        "geoemb:dimensions": spec.dimensions,
        "geoemb:model": model,
        "geoemb:source_data": [source],
        "geoemb:data_type": spec.data_type,
    }
    if not pixel:
        out["geoemb:chip_layout"] = {"layout_type": "regular_grid", "chip_size": stride}
    if spec.quantization.method != "none":  # scales of channels have no word there
        out["geoemb:quantization"] = {
            "method": spec.quantization.method,
            "original_dtype": spec.dtype,
            "quantized_dtype": spec.data_type,
        }
    return out


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
            group.create_array(
                MAPPING, shape=(), dtype="uint8", compressors=None, attributes=_mapping(self.grid.crs)
            )

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
def _mapping(crs: str) -> dict[str, Any]:
    """Attributes of the variable with the CRS: the parameters by CF, and the code; WKT2 where there is no code, or CF has no words for it."""
    found = CRS.from_user_input(crs)
    words = {k: v for k, v in found.to_cf().items() if k not in _LEFT_OUT}
    if found.prime_meridian is not None and not found.prime_meridian.longitude:
        words.pop("longitude_of_prime_meridian", None)
    coded = crs_fields(crs)["proj:code"] is not None
    out = {"spatial_ref": crs} if coded else {}
    return (
        {**words, **out}
        if coded and "grid_mapping_name" in words
        else {**words, **out, "crs_wkt": _short_wkt(found)}
    )


def _short_wkt(crs: CRS) -> str:
    """WKT2 of a CRS without the text on where it is used, which is half of it."""
    short = CRS.from_json_dict({k: v for k, v in crs.to_json_dict().items() if k not in _NOT_NEEDED})
    text = short.to_wkt("WKT2_2015_SIMPLIFIED")
    return text if text and CRS.from_wkt(text).equals(crs) else crs.to_wkt()
