"""Describe rasters of others: GeoTIFF, NumPy files and Zarr groups, with their scales and grids."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pystac
import shapely
from affine import Affine

from stac_latent.access import absolute, is_local, local_path
from stac_latent.catalog.adopt_facts import Description, Told, asset_fields
from stac_latent.catalog.adopt_space import space_of
from stac_latent.catalog.adopt_time import time_of
from stac_latent.catalog.footprints import footprints
from stac_latent.catalog.products import Product
from stac_latent.crs import crs_fields, crs_text
from stac_latent.cube.layout import CONTAINERS, upright
from stac_latent.errors import CatalogError, CorruptDataError, GridError, RemoteError
from stac_latent.spec import Grid
from stac_latent.store.arrays import ForeignArray, axis_names, open_array
from stac_latent.store.foreign import open_zarr
from stac_latent.store.raster import open_raster

__all__ = ["describe_array", "footprint", "zarr_groups"]

SCALES = "scales"


def zarr_groups(href: str, pattern: str) -> list[str]:
    """Hrefs of the groups of a store whose names match; the href itself if it is such a group."""
    import zarr.errors

    parent, _, name = href.rstrip("/").rpartition("/")
    if fnmatch.fnmatch(name, pattern):
        return [href]
    try:
        found = sorted(k for k in open_zarr(href).group_keys() if fnmatch.fnmatch(k, pattern))
    except RemoteError:
        raise
    except (AttributeError, OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as exc:
        raise CorruptDataError(f"{href} is no Zarr store that can be read: {exc}") from exc
    if not found:
        raise CatalogError(
            f"{href} has no group that matches {pattern!r}; name the group itself, below {parent}"
        )
    return [f"{href.rstrip('/')}/{k}" for k in found]


def describe_array(product: Product, href: str, told: Told, base: pystac.Item | None) -> Description:
    """Fields, time and place of a raster; the file is opened, its numbers are not read.

    Raises
    ------
    CatalogError, CorruptDataError, GridError
        As :func:`stac_latent.catalog.adopt.adopt`.
    """
    said = {**product.asset, **told.fields}
    container = product.container
    dims = ["channel", "y", "x"] if container == "geotiff" else list(said.get("latent:dim_order") or [])
    if not dims:
        raise CatalogError(
            f"{href}: the order of its axes is not known; state it as latent:dim_order, such as ['y', 'x', 'channel'] (--dim-order y,x,channel)"
        )
    array = open_array(container, href, axis_names(dims), str(said.get("latent:array") or ""))
    attributes = _attributes(href, container)
    found: dict[str, Any] = {
        "data_type": array.dtype.name,
        "latent:dimensions": array.shape[0],
        "nodata": _nodata(href, container),
    }
    fields = asset_fields(product, told, found, href)
    fields["latent:dim_order"] = [_plain_name(d) for d in dims]
    fields["latent:shape"] = [
        dict(zip(("channel", "y", "x"), array.shape, strict=True))[a] for a in axis_names(dims)
    ]
    grid = _grid(product, href, told, array, attributes)
    fields |= {**crs_fields(grid.crs), "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}
    assets = {}
    if fields["latent:quantization"] == "per_vector":
        assets[SCALES] = _scales(product, href, told, array)
        fields["latent:scale_asset"] = SCALES
    when = _when(product, href, told, attributes, base)
    fields["latent:space"] = space_of(product, href, told, attributes, {})
    polygon: Any = footprint(grid)
    return Description(fields, when, json.loads(shapely.to_geojson(polygon)), list(polygon.bounds), assets)


def footprint(grid: Grid) -> shapely.Geometry:
    """Outline of a grid in longitude and latitude."""
    whole: shapely.Geometry = footprints(upright(grid)[0], np.array([0]), np.array([0]), grid.shape)[0]
    return whole


def _when(
    product: Product, href: str, told: Told, attributes: Mapping[str, Any], base: pystac.Item | None
) -> Any:
    if base is not None and told.when is None:
        start = base.datetime or base.common_metadata.start_datetime
        if start is not None:
            return start, base.datetime or base.common_metadata.end_datetime or start
    return time_of(product.time, href, attributes=attributes, given=told.when)


def _plain_name(dim: str) -> str:
    return axis_names([dim, *{"channel", "y", "x"} - set(_guess(dim))])[0]


def _guess(dim: str) -> list[str]:
    """Our name of one axis."""
    from stac_latent.store.arrays import AXES

    return [ours for ours, others in AXES.items() if str(dim).lower() in others]


def _attributes(href: str, container: str) -> Mapping[str, Any]:
    """Tags of a GeoTIFF; attributes of a Zarr group, and those of the group that it is in."""
    if container == "geotiff":
        with open_raster(href) as src:
            return dict(src.tags())
    if container != "zarr":
        return {}
    own = dict(open_zarr(href).attrs)
    try:
        return {**open_zarr(absolute("..", f"{href.rstrip('/')}/zarr.json")).attrs, **own}
    except (CatalogError, CorruptDataError):
        return own  # it is a store of its own


def _nodata(href: str, container: str) -> float | None:
    if container != "geotiff":
        return None
    with open_raster(href) as src:
        value = src.nodata
    return (
        None
        if value is None or np.isnan(value)
        else (int(value) if float(value).is_integer() else float(value))
    )


def _scales(product: Product, href: str, told: Told, array: ForeignArray) -> pystac.Asset:
    """Asset of the scales, which are held against the codes."""
    rule = product.scales
    named = str(rule.get("array") or "")
    where, container = href, product.container
    if told.scales is not None:
        where, named = told.scales, ""
    elif rule.get("href"):
        pattern, replacement = rule["href"]
        where = re.sub(pattern, replacement, href)
    elif not named:
        raise CatalogError(
            f"{href} is quantised per vector; name the file of its scales with --scales, or scales="
        )
    if is_local(where) and not local_path(where).exists():
        raise CatalogError(
            f"the scales of {href} are not at {where}; fetch them, or name their file with --scales, or scales="
        )
    candidate, dims = _open_scales(container, where, rule.get("dim_order"), named, array.shape)
    extra: dict[str, Any] = {
        "data_type": candidate.dtype.name,
        "latent:dim_order": [_plain_name(d) for d in dims],
    }
    if named:
        extra["latent:array"] = named
    return pystac.Asset(
        where, "Scales", media_type=CONTAINERS[container], roles=["latent:scales"], extra_fields=extra
    )


def _open_scales(
    container: str, where: str, dims: list[str] | None, named: str, shape: tuple[int, int, int]
) -> tuple[ForeignArray, list[str]]:
    """The array of scales and the order of its axes: the first that fits the codes."""
    problem: CorruptDataError | None = None
    unfit: CorruptDataError | None = None
    for order in [dims] if dims else [["y", "x"], ["y", "x", "channel"], ["channel", "y", "x"]]:
        try:
            found = open_array(container, where, axis_names(order), named)
        except CorruptDataError as exc:
            problem = problem or exc
            continue
        if found.shape[1:] != shape[1:] or found.shape[0] not in (1, shape[0]):
            unfit = unfit or CorruptDataError(
                f"the scales {where} have shape {found.shape} (channel, y, x), the codes {shape}; expected one for each vector or "
                "for each number"
            )
        elif found.dtype.kind != "f":
            raise CorruptDataError(f"the scales {where} are {found.dtype}; expected floating-point numbers")
        else:
            return found, order
    raise unfit or problem or CorruptDataError(f"the scales {where} cannot be read")


def _grid(
    product: Product, href: str, told: Told, array: ForeignArray, attributes: Mapping[str, Any]
) -> Grid:
    """Grid of the cells: as told, of the file, of its attributes, or of a raster beside it."""
    shape = (array.shape[1], array.shape[2])
    rule = product.grid
    fit = rule.get("fit") == "extent"
    if told.transform is not None:
        if told.crs is None or len(told.transform) != 6:
            raise GridError(f"transform={told.transform} needs six numbers and crs=, such as 'EPSG:32633'")
        return _grid_of(told.crs, told.transform, shape)
    if told.like is not None:
        return _of_raster(told.like, shape, fit)
    if product.container == "geotiff" and _georeferenced(href):
        return _of_raster(href, shape, fit=False)
    stated = rule.get("is", {})
    code = stated.get("code") or attributes.get(rule.get("code", ""))
    transform = stated.get("transform") or attributes.get(rule.get("transform", ""))
    if code and transform:
        return _grid_of(code, transform, shape)
    tried = []
    for pattern, replacement in rule.get("href", ()):
        other = re.sub(pattern, replacement, href)
        tried.append(other)
        if other != href and (_reachable(other) if not is_local(other) else local_path(other).exists()):
            return _of_raster(other, shape, fit)
    looked = f" (looked for {', '.join(dict.fromkeys(tried))})" if tried else ""
    raise GridError(
        f"{href} does not say where it lies{looked}; name a raster of the same grid with --like, or like=, or state --crs and --transform"
    )


def _reachable(href: str) -> bool:
    """Whether a raster at a URL opens; only asking tells."""
    try:
        with open_raster(href):
            return True
    except CatalogError:
        return False


def _grid_of(crs: Any, transform: Sequence[float], shape: tuple[int, int]) -> Grid:
    a, b, c, d, e, f = (float(v) for v in transform[:6])
    return Grid(crs_text(crs), (a, b, c, d, e, f), shape)


def _georeferenced(href: str) -> bool:
    with open_raster(href) as src:
        return src.crs is not None and src.transform != Affine.identity()


def _of_raster(href: str, shape: tuple[int, int], fit: bool) -> Grid:
    """Grid of a raster; one of another size gives its extent only if that may be divided anew."""
    with open_raster(href, GridError) as src:
        crs, transform, size = src.crs, src.transform, src.shape
    if crs is None or transform == Affine.identity():
        raise GridError(f"{href} has no georeference; name another raster with like=")
    if size != shape:
        if not fit:
            raise GridError(
                f"{href} has {size} pixels, the array {shape} cells: they do not share a grid; name the right raster with like="
            )
        transform = transform * Affine.scale(size[1] / shape[1], size[0] / shape[0])
    return _grid_of(crs, tuple(transform), shape)
