"""The verb ``minicube``: the pixels round a place through time, on a grid of their own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np
import odc.stac
import pystac
import xarray as xr
from pyproj import CRS

from stac_latent.catalog.place.found import Period, has_latents, items_at, name_of
from stac_latent.catalog.search.arguments import Time
from stac_latent.catalog.search.search import search
from stac_latent.cube.asset_choice import Upto
from stac_latent.cube.band_kinds import asked_names
from stac_latent.cube.grid.areas import Area
from stac_latent.cube.grid.place import Square, square_at
from stac_latent.cube.odc_private import StacMDParser
from stac_latent.cube.raw.named import RawBands
from stac_latent.cube.read.load import load
from stac_latent.errors import CatalogError
from stac_latent.geo.extents import times_in_utc
from stac_latent.system.links import shown
from stac_latent.system.suggest import did_you_mean, known_options

__all__ = ["minicube"]

_OWN = {"items", "bands", "asset", "upto", "chunks", *(f.name for f in fields(Area))}
_OF_LOAD = tuple(n for n in inspect.signature(load).parameters if n not in _OWN)
"""Options that are handed on to ``load`` as they are."""
_RAW = frozenset(_OF_LOAD) - {"key", "physical", "fuse_func", "errors"}
"""Of these, what ``odc.stac.load`` takes as well."""

_NEAR = 0.1
"""Degrees round a place whose latitude and longitude may be swapped, in which Items are looked for."""


@known_options(*_OF_LOAD)
def minicube(
    source: Any,
    lat: float,
    lon: float,
    *,
    start_date: Time = None,
    end_date: Time = None,
    bands: str | Sequence[str] | None = None,
    edge_size: float = 128,
    units: str = "px",
    resolution: float = 10,
    crs: Any = None,
    collections: str | Iterable[str] | None = None,
    asset: str | None = None,
    upto: Upto = "field",
    chunks: Any = None,
    **options: Any,
) -> xr.Dataset:
    """Load the pixels round a place through time, as ``cubo.create`` does: a square in the UTM zone of the place.

    Items with latents are decoded (:func:`stac_latent.load`), raw ones are loaded by ``odc.stac.load``. The grid is that of
    cubo: edges of pixels are multiples of ``resolution``, and the corner of pixels nearest to the place is the centre.

    Parameters
    ----------
    source
        Whatever :func:`stac_latent.search` takes: a catalogue, Items, a table of Items, a STAC API.
    lat, lon
        The place, in degrees.
    start_date, end_date
        First and last date, both included: ``"2024-06-01"``, ``"2024-06"``, a datetime. Open where left out.
    bands
        By name or common name; all when left out.
    edge_size
        Length of an edge in ``units``. Of an odd number of pixels, the one that holds the place is in the middle.
    units
        ``px``, or ``m`` and ``km``: as many pixels as the length needs.
    resolution
        Pixel size in units of the CRS, metres in UTM.
    crs
        Of the grid, instead of the UTM zone of the place; that of the Items keeps their pixels as they are.
    collections
        Ids of collections; all of the source when left out.
    asset
        Key of the latent asset, where Items have several. Items without it are left out.
    upto
        ``latent`` gives cells instead of pixels: those of the lattice that the square touches, or embeddings on the square's grid where
        ``resampling`` says how.
    chunks
        Sizes along ``time``, ``y`` and ``x`` make the arrays dask arrays; None loads at once.
    **options
        More options of :func:`stac_latent.load`: ``resampling``, ``physical``, ``groupby``, ``nodata``, ``key`` and so on.

    Returns
    -------
    xarray.Dataset
        As of :func:`stac_latent.load`: one variable ``(time, y, x)`` for each band, because bands may differ in type, nodata and scale. cubo's
        array ``(time, band, y, x)`` is ``cube.to_dataarray("band").transpose("time", "band", "y", "x")``. ``x`` and ``y`` are the centres
        of pixels. Attributes are cubo's: ``collection``, ``stac``, ``epsg``, ``resolution``, ``edge_size``, ``edge_size_m``,
        ``central_lat``, ``central_lon``, ``central_x``, ``central_y``, ``time_coverage_start`` and ``time_coverage_end``; so is the
        coordinate ``cubo:distance_from_center``.

    Raises
    ------
    GridError
        If the numbers make no square, the place lies outside UTM and no ``crs`` is given, or the cube is larger than the memory.
    CatalogError
        If there are no Items there and then, or Items that cannot be loaded as one cube.
    SearchError
        If the source or the dates are none.

    Examples
    --------
    >>> import stac_latent
    >>> cube = stac_latent.minicube(
    ...     "catalogs/sample/catalog.json", 40.635, -73.803, edge_size=32, asset="latent"
    ... )  # doctest: +SKIP
    """
    square = square_at(lat, lon, edge_size, resolution, units=units, crs=crs)
    period = Period(start_date, end_date)
    place = f"lat={square.lat:.10g}, lon={square.lon:.10g} ({square.edge_size} pixels of {square.resolution:g} round it)"
    wanted = collections if collections is None or isinstance(collections, str) else list(collections)
    try:
        items = items_at(source, square.in_degrees(), period, wanted, asset, place)
    except CatalogError as exc:
        raise CatalogError(f"{exc}{_swapped(source, square)}") from exc
    if has_latents(items):
        grid: dict[str, Any] = {"geobox": square.box}
        if upto == "latent" and options.get("resampling") is None:
            grid = {"geopolygon": square.box.extent}
        cube = load(items, bands, asset=asset, upto=upto, chunks=chunks, **grid, **options)
    else:
        cube = _raw(items, bands, square, asset, upto, chunks, options)
    cube = cube.assign_attrs(_attributes(source, items, square, period))
    return _with_distance(cube, square, chunks)


def _raw(
    items: Sequence[pystac.Item],
    bands: str | Sequence[str] | None,
    square: Square,
    asset: str | None,
    upto: str,
    chunks: Any,
    options: dict[str, Any],
) -> xr.Dataset:
    """Items without latents, by the stock reader."""
    given = {"asset": asset, "upto": None if upto == "field" else upto}
    given |= {name: value for name, value in options.items() if name not in _RAW}
    if refused := [f"{name}={value!r}" for name, value in given.items() if value]:
        raise CatalogError(
            f"{', '.join(refused)} given, and none of {len(items)} item(s) has a latent: they are raw, and load as they are stored. Leave "
            f"{'it' if len(refused) == 1 else 'them'} out, or encode the items first"
        )
    known = {name: value for name, value in options.items() if name in _RAW}
    names = _raw_names(items, asked_names(bands), options.get("stac_cfg"))
    try:
        cube = odc.stac.load(
            items,
            bands=list(dict.fromkeys(names.values())) or None,
            geobox=square.box,
            chunks=chunks,
            **known,
        )
    except (ValueError, KeyError) as exc:
        keys = sorted({key for item in items for key in item.assets})
        raise CatalogError(
            f"the {len(items)} raw item(s) cannot be loaded: {exc}; their assets are {', '.join(keys)}"
        ) from exc
    return cube.drop_vars(names.values()).assign({name: cube[own] for name, own in names.items()})


def _raw_names(items: Sequence[pystac.Item], asked: Sequence[str], stac_cfg: Any) -> dict[str, str]:
    """What ``odc.stac.load`` calls the bands that were asked for, in the first Item that has each."""
    raw = [RawBands(item, StacMDParser(stac_cfg or {})) for item in items]
    out = {}
    for name in asked:
        found = next((band for of_item in raw if (band := of_item.find(name)) is not None), None)
        if found is None:
            raise CatalogError(
                f"no raw band {name!r}{did_you_mean(name, raw[0].names)} in {len(items)} item(s); item {items[0].id!r} has "
                f"{raw[0].listing or 'no raster asset'}"
            )
        out[name] = str(found.ref.row["names"][0])
    return out


def _attributes(
    source: Any, items: Sequence[pystac.Item], square: Square, period: Period
) -> dict[str, str | float | list[str]]:
    """What cubo says of a cube."""
    found = sorted({item.collection_id for item in items if item.collection_id})
    times = [t for item in items for t in times_in_utc(item)]
    epsg = CRS(square.crs).to_epsg()
    attrs: dict[str, Any] = {
        "collection": found[0] if len(found) == 1 else found,
        "stac": shown(str(source)) if isinstance(source, str) else name_of(source),
        "epsg": epsg,
        "resolution": square.resolution,
        "edge_size": square.edge_size,
        "edge_size_m": None if square.box.crs.geographic else square.edge_size * square.resolution,  # type: ignore[union-attr]
        "central_lat": square.lat,
        "central_lon": square.lon,
        "central_y": square.y,
        "central_x": square.x,
        "time_coverage_start": f"{min(times):%Y-%m-%d}"
        if period.start is None and times
        else str(period.start),
        "time_coverage_end": f"{max(times):%Y-%m-%d}" if period.end is None and times else str(period.end),
    }
    return {name: value for name, value in attrs.items() if value is not None}


def _with_distance(cube: xr.Dataset, square: Square, chunks: Any) -> xr.Dataset:
    """The cube with the distance of each pixel, or cell, from the place."""
    y, x = (cast("Any", cube[axis]) for axis in cube.odc.spatial_dims)
    parts: list[Any] = [xr.DataArray(v.values - at, dims=v.name) for v, at in ((y, square.y), (x, square.x))]
    if chunks is not None:
        parts = [v.chunk({v.dims[0]: chunks.get(v.dims[0], -1)}) for v in parts]
    far: xr.DataArray = np.hypot(parts[0], parts[1])
    far.attrs["units"] = CRS(square.crs).axis_info[0].unit_name
    return cube.assign_coords({"cubo:distance_from_center": far})


def _swapped(source: Any, square: Square) -> str:
    """Whether there are Items where latitude and longitude are the other way round."""
    if abs(square.lon) > 90:
        return ""
    south, west = max(square.lon - _NEAR, -90.0), max(square.lat - _NEAR, -180.0)
    around = (west, south, min(square.lat + _NEAR, 180.0), min(square.lon + _NEAR, 90.0))
    here = search(source, bbox=around, max_items=1)
    return (
        f"; there are some at lat={square.lon:.10g}, lon={square.lat:.10g}: are the two swapped?"
        if here
        else ""
    )
