"""How an asset that others wrote is stored: container, axes, nodata, and where its scales are; read from the asset's fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pystac

from stac_latent.errors import CatalogError
from stac_latent.extension.features import check_features
from stac_latent.spec import Grid
from stac_latent.system.links import absolute, check_link

__all__ = ["CONTAINERS", "Layout", "absolute_href", "container_of", "is_table", "layout_of", "upright"]

CONTAINERS = {
    "geotiff": "image/tiff; application=geotiff",
    "npy": "application/x-npy",
    "zarr": "application/vnd.zarr; version=3",
    "parquet": "application/vnd.apache.parquet",
}
"""Containers that are read, and their media types."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the stored numbers of an asset are, and how they lie there."""

    container: str
    href: str
    dims: tuple[str, ...] = ("channel", "y", "x")
    """Names of the axes, in the order of the file."""
    array: str = ""
    """Array within a Zarr group; empty: the href is the array."""
    nodata: float | None = None
    """Stored number that stands for no data."""
    columns: tuple[str, ...] = ()
    """Columns of a table: one of lists, or one of numbers for each channel."""
    position: tuple[str, ...] = ()
    """Columns x and y of a table without a geometry."""
    scale: Layout | None = None
    """Factors of the stored numbers."""
    flip: bool = False
    """Whether the first row is the southernmost."""
    step: int = 0
    """Step of a time axis."""
    overviews: str | None = None
    """What pixels of overviews are, where they may stand for those of the file: ``mean``."""
    overview: int | None = None
    """Which overview is read; None: the file itself."""
    size: int | None = None
    """Bytes of the file when it was described; None: not known."""
    updated: str | None = None
    """When the file that was described had been written; None: not known."""


def absolute_href(href: str, owner: pystac.STACObject) -> str:
    """Href of an asset as seen from nowhere; relative ones count from the owner, or from the working directory.

    Raises
    ------
    CatalogError
        If the owner may not lead there; see :mod:`stac_latent.system.links`.
    """
    origin = owner.get_self_href()
    return check_link(href if Path(href).is_absolute() else absolute(href, origin), origin)


def is_table(fields: Mapping[str, Any]) -> bool:
    """Whether an asset's media type is that of a table."""
    return "parquet" in str(fields.get("type") or "")


def container_of(fields: Mapping[str, Any]) -> str:
    """Container of an asset, by its media type, else by the end of its href; empty where neither is known.

    Examples
    --------
    >>> container_of({"type": "image/tiff; application=geotiff"}), container_of({"href": "a/b.npy"})
    ('geotiff', 'npy')
    """
    media, href = str(fields.get("type") or ""), str(fields.get("href") or "").rstrip("/").lower()
    for name, words in {
        "geotiff": ("image/tiff",), "npy": ("x-npy",), "zarr": ("zarr",), "parquet": ("parquet",)
    }.items():  # fmt: skip
        if any(w in media for w in words):
            return name
    ends = {".tif": "geotiff", ".tiff": "geotiff", ".vrt": "geotiff", ".npy": "npy", ".zarr": "zarr"}
    ends |= {".parquet": "parquet", ".gpq": "parquet", ".geoparquet": "parquet"}
    return next((kind for end, kind in ends.items() if href.endswith(end)), "")


def layout_of(item: pystac.Item, key: str) -> Layout | None:
    """Layout of a latent asset that others wrote; None for a store of this package.

    Parameters
    ----------
    item
        The Item.
    key
        Key of its latent asset.

    Raises
    ------
    CatalogError
        If the asset is quantised in a way that has no reader, or its scales are not where it says.
    """
    fields = item.assets[key].to_dict()
    where = f"asset {key!r} of item {item.id!r}"
    check_features(fields, where)
    container = container_of(fields)
    own = container == "zarr" and not fields.get("latent:array")
    if own or not container or fields.get("latent:kind") != "embedding":
        return None
    method = fields.get("latent:quantization")
    layout = _plain(fields, item)
    if method != "per_vector":
        return layout
    name = fields.get("latent:scale_asset")
    if container == "parquet" and name == key:
        return replace(layout, scale=replace(layout, columns=("scale",), nodata=None))
    source = _owner(item, name)
    if source is None:
        raise CatalogError(
            f"{where} is quantised per vector, and its scales {name!r} are no asset of the item or its collection "
            f"(assets: {', '.join(item.assets)}); add the asset with role 'latent:scales'"
        )
    return replace(layout, scale=_plain(source[0], source[1]))


def _plain(fields: Mapping[str, Any], owner: pystac.STACObject) -> Layout:
    nodata = fields.get("nodata")
    container = container_of(fields)
    default = ["row", "channel"] if container == "parquet" else ["channel", "y", "x"]
    return Layout(
        container,
        absolute_href(str(fields["href"]), owner),
        tuple(fields.get("latent:dim_order") or default),
        str(fields.get("latent:array") or ""),
        None if nodata is None else float(nodata),
        tuple(fields.get("latent:columns") or (("vector",) if container == "parquet" else ())),
        tuple(fields.get("latent:position") or ()),
        step=int(fields.get("latent:time_index") or 0),
        overviews=fields.get("latent:overviews"),
        size=fields.get("file:size"),
        updated=fields.get("updated"),
    )


def _owner(item: pystac.Item, name: str | None) -> tuple[dict[str, Any], pystac.STACObject] | None:
    """Fields of an asset, and who has it: the Item, else its Collection."""
    if name is None:
        return None
    if name in item.assets:
        return item.assets[name].to_dict(), item
    collection = item.get_collection() if item.get_single_link("collection") else None
    if collection is not None and name in collection.assets:
        return collection.assets[name].to_dict(), collection
    return None


def upright(grid: Grid) -> tuple[Grid, bool]:
    """The grid with its first row in the north, and whether that turned it over.

    Examples
    --------
    >>> grid, turned = upright(Grid("EPSG:32610", (10, 0, 500000, 0, 10, 4000000), (4, 4)))
    >>> grid.transform, turned
    ((10, 0, 500000, 0, -10, 4000040), True)
    """
    a, b, c, d, e, f = grid.transform
    if b or d or e <= 0 or math.isnan(e):
        return grid, False
    return replace(grid, transform=(a, b, c, d, -e, f + e * grid.shape[0])), True
