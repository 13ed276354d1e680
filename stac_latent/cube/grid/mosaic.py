"""Virtual Items as one cube: its grid, which Items share a time step, and which of them reach each of its tiles.

What :func:`odc.stac.load` does, and by the same means, but for what it leaves to footprints in longitude and latitude: times are
UTC, groups are made of the real Items, and rasters at 180 degrees reach every tile that they have pixels in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox, GeoboxTiles
from odc.loader import (
    RasterBandMetadata,
    RasterLoadParams,
    chunked_load,
    resolve_chunk_shape,
    resolve_load_cfg,
)
from odc.loader.types import AuxLoadParams
from odc.stac import ParsedItem, output_geobox, parse_items
from odc.stac.model import PropertyLoadRequest
from pyproj.exceptions import ProjError

from stac_latent.aliases import Array
from stac_latent.cube.bad_items import Errors
from stac_latent.cube.grid.fusing import stacked
from stac_latent.cube.grid.properties import property_variables
from stac_latent.cube.grid.reach import reach, tiles_reached
from stac_latent.errors import CatalogError, GridError
from stac_latent.geo.crs import crs_label
from stac_latent.geo.extents import in_utc
from stac_latent.system.limits import memory

__all__ = ["Execution", "fill_complex", "mosaic"]

_TILE = 2048
"""Pixels along a side of what is read at once where no chunks are given."""
_NEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Execution:
    """How a cube is read, by the names of :func:`stac_latent.load`."""

    chunks: Mapping[str, Any] | None = None
    groupby: Any = "time"
    pool: Any = None
    progress: Any = None
    errors: Errors = "raise"
    preserve_original_order: bool = False
    properties: Sequence[PropertyLoadRequest] = ()
    use_overviews: bool = True


def mosaic(
    items: Sequence[pystac.Item],
    virtual: Sequence[pystac.Item],
    driver: Any,
    resampling: Mapping[str, str],
    execution: Execution,
    grid: Mapping[str, Any],
    nodata: float | None = None,
    fuse: Mapping[str, str] = MappingProxyType({}),
) -> xr.Dataset:
    """Load virtual Items onto one grid.

    Parameters
    ----------
    items
        The real Items: what functions of ``groupby`` see.
    virtual
        Items with one asset for each variable, of the names in ``resampling``, and their grids as ``proj:`` fields.
    driver
        Reads them, and tells of their variables.
    resampling
        By variable.
    execution
        Time steps, chunks, threads and errors.
    grid
        What says where and on which grid, as ``odc.stac.output_geobox`` has it.
    nodata
        As of :func:`stac_latent.load`.
    fuse
        A method or the dotted name of a function, by variable; the first valid pixel where nothing is said.

    Raises
    ------
    CatalogError
        If ``groupby`` names a property that Items lack, or gives what has no order.
    GridError
        If there is no grid, or what is to be loaded at once does not fit the memory of this machine.
    """
    bands = list(resampling)
    chunks = None if execution.chunks is None else dict(execution.chunks)
    parsed = list(parse_items(virtual, md_plugin=driver.md_parser))
    meta = parsed[0].collection
    variables = meta.resolve_bands(bands)
    by_fuser = {n: _FUSER for n, v in variables.items() if _is_nan_of_complex(v, nodata)}
    by_fuser |= {n: name for n, name in fuse.items() if "." in name}
    how = resolve_load_cfg(
        variables,
        dict(resampling),
        nodata=nodata,
        fail_on_error=execution.errors == "raise",
        fuse_func=by_fuser,
        use_overviews=execution.use_overviews,
    )
    try:
        box = output_geobox(parsed, bands=bands, **grid)
        if box is not None and not grid:
            box = _covering(box, parsed)
        if box is None or box.crs is None:
            raise GridError("the items say no grid to load on; give crs= and resolution=, or geobox=")
        groups = _time_steps(items, parsed, execution, box)
        template = meta.meta_for(bands)
        dims = template.extra_dims_full()
        if chunks is None:
            _check_size(box, variables, dims, len(groups))
            tile: tuple[int, ...] = (1, _TILE, _TILE)
        else:
            tile = resolve_chunk_shape(len(groups), box, chunks, cfg=how, extra_dims=dims)
        gbt = GeoboxTiles(box, (tile[1], tile[2]))
        bins: dict[tuple[int, int, int], list[int]] = {}
        for t, members in enumerate(groups):
            for i in members:
                for y, x in _tiles(parsed[i], box, gbt):
                    bins.setdefault((t, y, x), []).append(i)
    except ProjError as exc:
        raise GridError(f"the items cannot be brought to the grid that was asked for: {exc}") from exc
    if all(len(members) == 1 for members in bins.values()):
        how = {name: _put_whole(one) for name, one in how.items()}
    times = [_time(parsed[members[0]]).replace(tzinfo=None) for members in groups]
    properties = property_variables(items, execution.properties, bins, xr.DataArray(times, dims=("time",)))
    sources: Sequence[Mapping[str, Any]] = [p.resolve_bands(bands) for p in parsed]
    if methods := {n: name for n, name in fuse.items() if name != "first" and "." not in name}:
        sources, bins = stacked(sources, bins, methods)
    ds = chunked_load(
        how, template, sources, bins, gbt, times, driver.capture_env(), driver,
        chunks=chunks, pool=execution.pool, progress=execution.progress,
    )  # fmt: skip
    return ds.assign(properties) if properties else ds


def put(dst: Array, src: Array) -> None:
    """Put all pixels of a source: of a tile that no other source reaches."""
    dst[...] = src


def _put_whole(how: RasterLoadParams | AuxLoadParams) -> RasterLoadParams | AuxLoadParams:
    """Parameters of a variable whose tiles have one source each: looking for pixels that are empty would take a third of a load."""
    one = isinstance(how, RasterLoadParams) and how.fuser_fqn is None
    return how.patch(fuser_fqn=_PUT) if one else how


def fill_complex(dst: Array, src: Array) -> None:
    """Put complex pixels where there are none yet: odc-loader looks for NaN in floats alone."""
    np.copyto(dst, src, where=np.isnan(dst))


_PUT = f"{put.__module__}.{put.__qualname__}"
_FUSER = f"{fill_complex.__module__}.{fill_complex.__qualname__}"


def _is_nan_of_complex(variable: Any, nodata: float | None) -> bool:
    empty = variable.nodata if nodata is None else nodata
    return np.dtype(variable.data_type).kind == "c" and empty is not None and math.isnan(empty)


def _boxes(item: ParsedItem) -> list[GeoBox]:
    return [b for b in item.geoboxes() if isinstance(b, GeoBox) and b.crs is not None]


def _covering(box: GeoBox, items: Sequence[ParsedItem]) -> GeoBox:
    """The grid, grown to hold bands that share its pixels and reach further than the first of their Item."""
    size = (0, 0, *box.shape.yx)
    for other in itertools.chain.from_iterable(map(_boxes, items)):
        if other.crs != box.crs:
            continue
        net = ~box.affine * other.affine
        if max(abs(net.a - 1), abs(net.e - 1), abs(net.b), abs(net.d)) * max(other.shape) > _NEAR:
            continue
        y, x = round(net.f), round(net.c)
        if max(abs(net.f - y), abs(net.c - x)) < _NEAR:
            bottom, right = y + other.shape.y, x + other.shape.x
            size = (min(size[0], y), min(size[1], x), max(size[2], bottom), max(size[3], right))
    if size == (0, 0, *box.shape.yx):
        return box
    top, left, bottom, right = size
    return GeoBox((bottom - top, right - left), box.translate_pix(left, top).affine, box.crs)


def _tiles(item: ParsedItem, target: GeoBox, gbt: GeoboxTiles) -> Iterator[tuple[int, int]]:
    """Tiles (y, x) that any variable of an Item reaches."""
    reached: dict[tuple[int, int], None] = {}
    for box in _boxes(item):
        far = reach(box, target)
        if far is not None:
            reached |= dict.fromkeys(tiles_reached(far, gbt))
            continue
        outline = box.extent if box.crs == target.crs else box.footprint(target.crs or "", wrapdateline=True)
        reached |= dict.fromkeys(gbt.tiles(outline))
    yield from reached


def _check_size(box: GeoBox, variables: Mapping[str, Any], dims: Mapping[str, int], steps: int) -> None:
    """Refuse what is to be loaded at once and is larger than the memory of this machine."""
    per_pixel = sum(
        np.dtype(v.data_type or "float32").itemsize
        * math.prod(dims.get(d, 1) for d in v.dims if d not in ("y", "x"))
        for v in variables.values()
        if isinstance(v, RasterBandMetadata)
    )
    size = steps * math.prod(box.shape) * per_pixel
    if size > memory():
        raise GridError(
            f"the cube would take {size / 2**30:.1f} GiB, and this machine has {memory() / 2**30:.1f}: {steps} time step(s) of "
            f"{tuple(box.shape)} pixels (y, x) in {crs_label(box.crs)}. Give a smaller area or a coarser resolution, or chunks= to load "
            "it in parts; an area across 180 degrees needs a crs= that is not cut there, such as 'EPSG:3832'"
        )


# -- time steps -----------------------------------------------------------------------------------------------------


def _time(item: ParsedItem) -> datetime:
    when: datetime = in_utc(item.nominal_datetime)
    return when


def _time_steps(
    items: Sequence[pystac.Item], parsed: Sequence[ParsedItem], execution: Execution, box: GeoBox
) -> list[list[int]]:
    """Positions of the Items of each time step, the earliest first and then by id, or as they were given."""
    groupby = execution.groupby
    key = _group_key(items, parsed, "id" if groupby is None else groupby, box)
    keys = [key(i) for i in range(len(items))]
    given = execution.preserve_original_order
    try:
        order = sorted(
            range(len(items)),
            key=lambda i: (keys[i], i) if given else (keys[i], _time(parsed[i]), parsed[i].id),
        )
    except TypeError as exc:
        raise CatalogError(
            f"groupby={groupby!r} gives values that have no order ({exc}); give a function that returns text, numbers or dates alone"
        ) from exc
    return [list(members) for _, members in itertools.groupby(order, lambda i: keys[i])]


def _group_key(
    items: Sequence[pystac.Item], parsed: Sequence[ParsedItem], groupby: Any, box: GeoBox
) -> Callable[[int], Any]:
    if callable(groupby):
        return lambda i: groupby(items[i], parsed[i], i)
    if groupby == "time":
        return lambda i: _time(parsed[i])
    if groupby == "id":
        return lambda i: i
    if groupby == "solar_day":
        ((longitude, _),) = box.extent.centroid.to_crs("EPSG:4326").points
        return lambda i: parsed[i].solar_date_at(longitude).date()
    if not isinstance(groupby, str):
        raise CatalogError(
            f"groupby={groupby!r} is neither text nor a function; expected 'time', 'solar_day', 'id', the name of a property, or a "
            "function of the item, its parsed form and its position"
        )
    values = [_property(item, groupby) for item in items]
    if lacking := [item.id for item, v in zip(items, values, strict=True) if v is None]:
        raise CatalogError(
            f"groupby={groupby!r} is no property of {len(lacking)} of {len(items)} items: {', '.join(lacking[:5])}; expected 'time', "
            "'solar_day', 'id', a property that all items have, or a function"
        )
    return lambda i: values[i]


def _property(item: pystac.Item, name: str) -> Any:
    if name == "datetime":
        return in_utc(item.datetime)
    return item.properties.get(name)
