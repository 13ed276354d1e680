"""Describe rasters of others: GeoTIFF, NumPy files and Zarr groups, with their scales and grids."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pystac
import shapely
from affine import Affine

from stac_latent.catalog.adopt.description import Description, UserMetadata, asset_fields
from stac_latent.catalog.adopt.period import Period, period, time_of
from stac_latent.catalog.adopt.products import Product
from stac_latent.catalog.adopt.space import space_of
from stac_latent.catalog.adopt.zarr_group import steps_of, with_geoemb
from stac_latent.catalog.footprints import footprints
from stac_latent.cube.foreign_layout import CONTAINERS, upright
from stac_latent.errors import CatalogError, CorruptDataError, GridError
from stac_latent.extension import ROLE_SCALES
from stac_latent.geo.crs import crs_fields, crs_text
from stac_latent.geo.extents import bbox_of
from stac_latent.net.raster import open_raster
from stac_latent.spec import Grid
from stac_latent.store.foreign.arrays import ForeignArray, open_array
from stac_latent.store.foreign.axes import axis_names
from stac_latent.store.foreign.zarr_array import array_attributes, attributes_of, dimension_names
from stac_latent.system.links import is_local, local_path

__all__ = ["describe_array", "footprint"]

SCALES = "scales"
_PATCHES = (8, 14, 16, 32)
"""Usual sides of a patch of a vision transformer [pixels]."""


def describe_array(
    product: Product, href: str, told: UserMetadata, base: pystac.Item | None
) -> list[Description]:
    """Fields, time and place of a raster, or of each step of one with a time axis; the file is opened, its numbers are not read.

    Raises
    ------
    CatalogError, CorruptDataError, GridError
        As :func:`stac_latent.catalog.adopt.adopt`.
    """
    attributes = _attributes(href, product, told)
    if product.container == "zarr":
        product = with_geoemb(product, attributes, href)
    said = {**product.asset, **told.fields}
    named = str(said.get("latent:array") or "")
    dims = _dims(product, href, told, said, named)
    axes = axis_names(dims)
    array = open_array(product.container, href, axes, named)
    found: dict[str, Any] = {
        "data_type": array.dtype.name,
        "latent:dimensions": array.shape[0],
        "nodata": _plain_number(array.header.nodata),
    }
    fields = asset_fields(product, told, found, array.header, href)
    sizes = {**dict(zip(("channel", "y", "x"), array.shape, strict=True)), "time": array.steps}
    fields |= {"latent:dim_order": list(axes), "latent:shape": [sizes[a] for a in axes]}
    grid = _grid(product, href, told, array, attributes)
    fields |= {**crs_fields(grid.crs), "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}
    if array.header.levels and product.overviews:
        fields["latent:overviews"] = product.overviews
    assets = {}
    if fields["latent:quantization"] == "per_vector":
        assets[SCALES] = _scales(product, href, told, array)
        fields["latent:scale_asset"] = SCALES
    times = _times(product, href, told, attributes, base, dims, array.steps)
    fields["latent:space"] = space_of(product, href, told, attributes, {})
    polygon: Any = footprint(grid)
    place = json.loads(shapely.to_geojson(polygon)), list(bbox_of(polygon))
    if "time" not in axes:
        return [Description(fields, times[0][1], *place, assets)]
    out = []
    for number, when in times:
        own = {k: a.clone() for k, a in assets.items()}
        for extra in (a.extra_fields for a in own.values() if "time" in a.extra_fields["latent:dim_order"]):
            extra["latent:time_index"] = number
        name = when[0].strftime("%Y" if when == period(when[0].year) else "%Y%m%dT%H%M%S")
        out.append(Description({**fields, "latent:time_index": number}, when, *place, own, name=name))
    return out


def _dims(product: Product, href: str, told: UserMetadata, said: Mapping[str, Any], named: str) -> list[str]:
    """Names of the axes: as told, as the file names them, or as the product has them."""
    if product.container == "geotiff":
        return ["channel", "y", "x"]
    dims = list(told.fields.get("latent:dim_order") or said.get("latent:dim_order") or [])
    if product.container == "zarr" and not told.fields.get("latent:dim_order"):
        own = dimension_names(href, named)
        fitting = (order for order in (dims, *product.orders) if len(order) == len(own))
        dims = own if all(own) else list(next(fitting, dims))
    if not dims:
        raise CatalogError(
            f"{href}: the order of its axes is not known; state it as latent:dim_order, such as ['y', 'x', 'channel'] (--dim-order y,x,channel)"
        )
    return dims


def footprint(grid: Grid) -> shapely.Geometry:
    """Outline of a grid in longitude and latitude."""
    whole: shapely.Geometry = footprints(upright(grid)[0], np.array([0]), np.array([0]), grid.shape)[0]
    return whole


def _times(
    product: Product, href: str, told: UserMetadata, attributes: Mapping[str, Any], base: pystac.Item | None, dims: list[str], steps: int
) -> list[tuple[int, Period]]:  # fmt: skip
    """Steps of the time axis, and the time of each; of a file without one, its time."""

    def single() -> Period:
        start = None if base is None else base.datetime or base.common_metadata.start_datetime
        if base is not None and start is not None and told.when is None:
            return start, base.datetime or base.common_metadata.end_datetime or start
        return time_of(product.time, href, attributes=attributes, given=told.when)

    axes = axis_names(dims)
    if "time" not in axes:
        return [(0, single())]
    return steps_of(product, href, dims[axes.index("time")], steps, told.when, single)


def _attributes(href: str, product: Product, told: UserMetadata) -> Mapping[str, Any]:
    """Tags of a GeoTIFF; attributes of a Zarr group, of the group that it is in, and of the array."""
    if product.container == "zarr":
        named = str({**product.asset, **told.fields}.get("latent:array") or "")
        return {**attributes_of(href), **(array_attributes(href, named) if named else {})}
    if product.container == "geotiff":
        with open_raster(href, CorruptDataError) as src:
            return dict(src.tags())
    return {}


def _plain_number(value: float | None) -> float | None:
    return int(value) if value is not None and value.is_integer() else value


def _scales(product: Product, href: str, told: UserMetadata, array: ForeignArray) -> pystac.Asset:
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
    own = dimension_names(where, named) if container == "zarr" else []
    order = own if own and all(own) else rule.get("dim_order")
    candidate, dims = _open_scales(container, where, order, named, array.shape)
    extra: dict[str, Any] = {"data_type": candidate.dtype.name, "latent:dim_order": list(axis_names(dims))}
    if (nothing := str(rule.get("nodata") or "").lstrip("+").lower()) not in ("", "nan"):
        extra["nodata"] = "inf" if nothing == "inf" else float(nothing)
    if named:
        extra["latent:array"] = named
    return pystac.Asset(
        where, "Scales", media_type=CONTAINERS[container], roles=[ROLE_SCALES], extra_fields=extra
    )


def _open_scales(
    container: str, where: str, dims: list[str] | None, named: str, shape: tuple[int, int, int]
) -> tuple[ForeignArray, list[str]]:
    """The array of scales and the order of its axes: the first that fits the codes."""
    problem: CorruptDataError | None = None
    unfit: CorruptDataError | None = None
    plain = [["y", "x"], ["y", "x", "channel"], ["channel", "y", "x"]]
    for order in [dims] if dims else [*plain, *(["time", *p] for p in plain if container == "zarr")]:
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
    product: Product, href: str, told: UserMetadata, array: ForeignArray, attributes: Mapping[str, Any]
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
        _check_spatial(href, attributes, shape)
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


def _check_spatial(href: str, attributes: Mapping[str, Any], shape: tuple[int, int]) -> None:
    """Hold the ``spatial:`` attributes of a Zarr group against the array."""
    said = attributes.get("spatial:shape")
    if said is not None and list(said) != list(shape):
        raise CorruptDataError(f"{href}: spatial:shape is {list(said)}, the array has {list(shape)} cells")
    registration = attributes.get("spatial:registration", "pixel")
    if registration != "pixel":
        raise GridError(
            f"{href}: spatial:registration is {registration!r}; expected 'pixel': state the grid of its cells with --crs and --transform"
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
        transform = transform * Affine.scale(*_cell_size(href, size, shape)[::-1])
    return _grid_of(crs, tuple(transform), shape)


def _cell_size(href: str, size: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float]:
    """Pixels of an image along y and x under a cell that a model made of it.

    A model whose patches do not divide the image leaves out the pixels behind the last whole patch.
    """
    patches = [n // m for n, m in zip(size, shape, strict=True)]
    rest = [n - k * m for n, k, m in zip(size, patches, shape, strict=True)]
    if not any(rest):
        return patches[0], patches[1]
    kind, found = "equal parts of the whole image", (size[0] / shape[0], size[1] / shape[1])
    if patches[0] == patches[1] and patches[0] in _PATCHES and max(rest) < patches[0]:
        kind = f"patches of {patches[0]} pixels from the first row and column on"
        found = float(patches[0]), float(patches[1])
    warnings.warn(
        f"{href} has {size} pixels, which {shape} cells do not divide; the cells are taken for {kind}: if the image was cropped or resized "
        "in another way, state the grid of the cells with --crs and --transform, or crs= and transform=",
        stacklevel=2,
    )
    return found
