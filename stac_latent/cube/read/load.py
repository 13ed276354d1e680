"""The verb ``load``: Items with latents to a cube, decoded to pixels or as they are.

Items become virtual ones whose single asset has the latent's href and the grid to be read; odc-loader does
the rest (:mod:`stac_latent.cube.grid.mosaic`) with :class:`stac_latent.cube.read.driver.LatentDriver`. The bands that share type and nodata are one
``(band, y, x)`` variable while they are read, so that one decode serves all of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pystac
import shapely
import shapely.geometry
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.warp import resampling_s2rio
from odc.loader import FixedCoord, RasterBandMetadata, RasterGroupMetadata
from rasterio.enums import Resampling

from stac_latent.cube.asset_choice import (
    Reading,
    Upto,
    band_attrs,
    band_index,
    cell_box,
    check_bands,
    check_upto,
    driver_data,
    latent_attrs,
    pick_refs,
    pixel_box,
)
from stac_latent.cube.grid.areas import area_parts, joined
from stac_latent.cube.grid.coverage import check_meets
from stac_latent.cube.grid.lattice import cell_geobox, check_area, common_lattice, geobox_like
from stac_latent.cube.grid.mosaic import mosaic
from stac_latent.cube.item_assets import as_items
from stac_latent.cube.read import accessor as _accessor  # noqa: F401 (registers the accessor)
from stac_latent.cube.read.band_views import view_of
from stac_latent.cube.read.driver import LatentDriver
from stac_latent.cube.read.physical import check_stored, physical_band, with_common_nodata
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, GridError
from stac_latent.geo.crs import crs_fields
from stac_latent.geo.extents import fields_in_utc, in_utc
from stac_latent.net.answers import connections
from stac_latent.secure import Key, use
from stac_latent.spec import Band, Grid
from stac_latent.system.links import is_remote, shown
from stac_latent.system.suggest import known_options

if TYPE_CHECKING:
    from odc.loader.types import BandKey

__all__ = ["load"]

_DATA = "stac_latent:driver_data"
_PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PerBand = str | Mapping[str, str] | None


@known_options()
def load(
    items: pystac.Item | Iterable[pystac.Item],
    bands: str | Sequence[str] | None = None,
    *,
    asset: str | None = None,
    upto: Upto = "field",
    bbox: tuple[float, float, float, float] | None = None,
    geobox: GeoBox | None = None,
    like: Any = None,
    geopolygon: Any = None,
    intersects: Any = None,
    crs: Any = None,
    resolution: Any = None,
    anchor: Any = None,
    resampling: PerBand = None,
    dtype: Any = None,
    nodata: float | None = None,
    physical: bool = False,
    chunks: Mapping[str, Any] | None = None,
    groupby: Any = "time",
    pool: Any = None,
    progress: Any = None,
    fail_on_error: bool = True,
    key: Key | str | os.PathLike[str] | None = None,
    patch_url: Callable[[str], str] | None = None,
) -> xr.Dataset:
    """Load Items that carry latents as one cube, whatever catalogues, sensors and CRSs they are of.

    Where several Items of a time step have data in a pixel or a cell, the earliest has it, and of one time the one whose
    id comes first; what is compared are decoded pixels, and dequantised latents of one space.

    Parameters
    ----------
    items
        Items with a latent asset each; one Item will do.
    bands
        Bands of the decoded field, by name or common name; all when left out. Only with ``upto="field"``.
    asset
        Key of the latent asset; needed where an Item has several that fit.
    upto
        ``field`` decodes to pixels on any grid, resampled as the stock driver would resample the decoded raster.
        ``latent`` stops before the synthesis: dequantised cells, not resampled, so only on the lattice of cells; those
        of embeddings on any grid where ``resampling`` says how.
    bbox, geobox, like, geopolygon, intersects, crs, resolution, anchor
        Where and on which grid, as in ``odc.stac.load``; ``bbox`` is in degrees of longitude and latitude, with
        west > east across 180 degrees. An area apart from all Items is refused; a whole grid holds nodata there. With
        ``upto="latent"`` an area is widened to whole cells, and cut to the Items'.
    resampling, dtype
        One for all bands, or a mapping from band name (``"*"``: the others). Only with ``upto="field"``, but for the
        ``resampling`` of embeddings.
    nodata
        Value for pixels without data, instead of the bands' own; those of the first Item that has one, where Items differ.
    physical
        Values times scale plus offset, in physical units: float32, NaN without data. Sensors that store a band in
        other types or scales meet in one cube only so. Only with ``upto="field"``.
    chunks
        Sizes along ``time``, ``y`` and ``x`` make the arrays dask arrays; None loads at once.
    groupby
        ``time``, ``solar_day``, ``id``, a property, or a function ``(item, parsed, position)`` of the Items as they were
        given: which of them share a time step. Times are UTC.
    key
        Key of encrypted latents, or its file; else ``$STAC_LATENT_KEY`` names files, in other processes always.
    patch_url
        Signs addresses: called before each request with the address of the object, which may be any below an asset's; what it
        returns is asked for. ``$STAC_LATENT_SIGN`` names one for other processes.
    pool
        Threads that load at once where ``chunks`` is None, or an executor; remote items are loaded by 16, or
        ``$STAC_LATENT_CONNECTIONS``, where it is left out.
    progress, fail_on_error
        As in ``odc.stac.load``.

    Returns
    -------
    xarray.Dataset
        ``field``: one variable ``(time, y, x)`` for each band, in its stored unit or, with ``physical``, in its own. ``latent``: the variable
        ``latent (time, channel, y, x)``, float32, NaN where there is no data, its ``latent:`` fields as attributes.

    Raises
    ------
    CatalogError
        For no items, no or several latent assets, unknown bands, bands that are stored in different ways, latents of
        different spaces, or a ``groupby`` that Items lack.
    GridError
        If a latent asset has no grid, the arguments of the grid contradict, it is off the cell lattice, or the cube is
        larger than the memory of this machine and no ``chunks`` are given.

    Examples
    --------
    >>> import pystac, stac_latent
    >>> item = pystac.Item.from_file("catalog/item.json")  # doctest: +SKIP
    >>> ds = stac_latent.load(item, bands=["B04"], resolution=20, resampling="average")  # doctest: +SKIP
    """
    if key is not None:
        use(key)
    check_upto(upto, bands)
    check_area(
        bbox=bbox,
        geobox=geobox,
        like=like,
        geopolygon=geopolygon,
        intersects=intersects,
        crs=crs,
        resolution=resolution,
        anchor=anchor,
    )
    found = as_items(items, "load")
    refs = [ref.signed(patch_url) for ref in pick_refs(found, asset, upto)]
    if pool is None and chunks is None and len(refs) > 1 and any(is_remote(ref.href) for ref in refs):
        pool = min(len(refs), connections())
    area = geopolygon if geopolygon is not None else intersects
    parts = area_parts(bbox, area)
    check_meets(refs, parts)
    loose = resampling is not None and upto == "latent" and all(r.spec.kind == "embedding" for r in refs)
    only = {"dtype": dtype, "nodata": nodata, "physical": physical or None}
    check_upto(upto, bands, only if loose else {"resampling": resampling, "anchor": anchor, **only})
    common: dict[str, Any] = {
        "chunks": None if chunks is None else dict(chunks),
        "groupby": groupby,
        "pool": pool,
        "progress": progress,
        "fail_on_error": fail_on_error,
    }
    if upto == "latent":
        _same_space(refs)
    if upto == "latent" and not loose:
        cells = common_lattice(refs)
        box = cell_geobox(cells, refs, geobox=geobox, like=like, parts=parts, crs=crs, resolution=resolution)
        return _run(found, refs, [_latent_group(*refs)], geobox=box, **common)
    if loose:
        groups = [_channel_group(refs, resampling)]
    else:
        chosen = check_bands(bands, refs)
        check_stored(chosen, refs, physical=physical)
        if nodata is None and not physical:
            chosen = with_common_nodata(chosen, refs)
        groups = _field_groups(chosen, refs, resampling, dtype, physical=physical)
    given = {
        "geobox": geobox,
        "like": None if like is None else geobox_like(like),
        "geopolygon": joined(parts) if parts else None,
        "crs": crs,
        "resolution": resolution,
        "anchor": anchor,
        "nodata": nodata,
    }
    return _run(found, refs, groups, **{k: v for k, v in given.items() if v is not None}, **common)


# -- what is read together ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Bands that are read as one ``(band, y, x)`` variable."""

    key: str
    names: tuple[str, ...]
    bands: tuple[Band, ...]
    meta: RasterBandMetadata
    coord: FixedCoord
    resampling: str = "nearest"
    upto: Reading = "field"
    physical: bool = False

    def data(self, item: pystac.Item, ref: LatentRef) -> tuple[GeoBox, Mapping[str, Any]]:
        """The grid that the bands of an Item lie on, and what a worker needs to read them."""
        if self.upto != "field":
            return cell_box(ref.grid), driver_data(item, ref, self.upto)
        views = [view_of(ref, cast("int", band_index(ref.spec, n))) for n in self.names]
        first = views[0]
        return pixel_box(first.grid), driver_data(
            item, first.ref, self.upto, [v.index for v in views], first.grid, physical=self.physical
        )


class _Template:
    """odc-loader's metadata parser for the virtual Items made here."""

    def __init__(self, meta: RasterGroupMetadata) -> None:
        self.meta = meta

    def extract(self, md: Any) -> RasterGroupMetadata:  # noqa: ARG002 (odc-loader's protocol)
        return self.meta

    def driver_data(self, md: Any, band_key: BandKey) -> Any:
        return md.assets[band_key[0]].extra_fields[_DATA]


def _field_groups(
    bands: Mapping[str, Band], refs: Sequence[LatentRef], resampling: PerBand, dtype: Any, *, physical: bool
) -> list[_Group]:
    """Bands that are alike, and share their pixels in every Item."""
    members: dict[tuple[Any, ...], list[str]] = {}
    out = {name: physical_band(band) if physical else band for name, band in bands.items()}
    for name, band in out.items():
        nodata = "nan" if band.nodata is not None and math.isnan(band.nodata) else band.nodata
        how = _for_band(resampling, name) or "nearest"
        _check_resampling(how)
        kind = (band.data_type, nodata, how, _for_band(dtype, name), *(_lattice(ref, name) for ref in refs))
        members.setdefault(kind, []).append(name)
    groups = []
    for i, ((data_type, _, how, kept, *_), names) in enumerate(members.items()):
        dim = f"band_{i}"
        meta = RasterBandMetadata(kept or data_type, out[names[0]].nodata, dims=(dim, "y", "x"))
        coord = FixedCoord(dim, list(names))
        group = tuple(out[n] for n in names)
        groups.append(_Group(f"_g{i}", tuple(names), group, meta, coord, how, physical=physical))
    return groups


def _lattice(ref: LatentRef, name: str) -> tuple[int, Grid] | None:
    """Part and pixels of a band; None where an Item's bands share them all."""
    if not ref.band_grids:
        return None
    view = view_of(ref, cast("int", band_index(ref.spec, name)))
    return view.ref.part, view.grid


def _latent_group(*refs: LatentRef) -> _Group:
    meta = RasterBandMetadata("float32", math.nan, dims=("channel", "y", "x"), attrs=latent_attrs(*refs))
    channels = list(range(refs[0].spec.dimensions))
    return _Group("latent", (), (), meta, FixedCoord("channel", channels), upto="latent")


def _channel_group(refs: Sequence[LatentRef], resampling: PerBand) -> _Group:
    how = _for_band(resampling, "latent") or "nearest"
    _check_resampling(how)
    return replace(_latent_group(*refs), resampling=how, upto="channels")


def _run(
    items: Sequence[pystac.Item], refs: Sequence[LatentRef], groups: Sequence[_Group], **kw: Any
) -> xr.Dataset:
    meta = RasterGroupMetadata(
        bands={(g.key, 1): g.meta for g in groups},
        extra_dims={g.coord.dim: len(g.coord.values) for g in groups},
        extra_coords=[g.coord for g in groups],
    )
    virtual = [_virtual(item, ref, groups) for item, ref in zip(items, refs, strict=True)]
    ds = mosaic(
        items, virtual, LatentDriver(_Template(meta)), resampling={g.key: g.resampling for g in groups}, **kw
    )
    if groups[0].upto != "field":
        return ds
    out = {}
    for group in groups:
        for i, (name, band) in enumerate(zip(group.names, group.bands, strict=True)):
            out[name] = ds[group.key].isel({group.coord.dim: i}, drop=True)
            out[name].attrs.update(band_attrs(band))
    return ds.drop_vars([*(g.key for g in groups), *(g.coord.name for g in groups)]).assign(out)


def _virtual(item: pystac.Item, ref: LatentRef, groups: Sequence[_Group]) -> pystac.Item:
    out = pystac.Item(
        item.id,
        _footprint(item.geometry),
        item.bbox,
        in_utc(item.datetime),
        fields_in_utc(item.properties),
        stac_extensions=[_PROJ],
        collection="stac-latent",
    )
    for group in groups:
        box, data = group.data(item, ref)
        fields = {
            **crs_fields(str(box.crs)),
            "proj:shape": list(box.shape),
            "proj:transform": list(box.transform)[:6],
            _DATA: data,
        }
        out.add_asset(group.key, pystac.Asset(shown(ref.href), roles=["data"], extra_fields=fields))
    return out


def _footprint(geometry: dict[str, Any] | None) -> dict[str, Any] | None:
    """The geometry as one with coordinates, which a GeometryCollection has not."""
    if geometry is None or geometry.get("type") != "GeometryCollection":
        return geometry
    return shapely.geometry.mapping(shapely.union_all([shapely.geometry.shape(geometry)]))


# -- arguments -----------------------------------------------------------------------------------------------------


def _check_resampling(how: str) -> None:
    try:
        resampling_s2rio(how)
    except ValueError as exc:
        known = ", ".join(r.name for r in Resampling)
        raise GridError(f"resampling={how!r} is unknown; expected one of {known}") from exc


def _for_band(value: Any, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        chosen = value.get(name, value.get("*"))
        return None if chosen is None else str(chosen)
    return str(np.dtype(value))


def _same_space(refs: Sequence[LatentRef]) -> None:
    spaces: dict[str, list[str]] = {}
    for s in refs:
        spaces.setdefault(s.spec.space, []).append(s.item_id)
    if len(spaces) > 1:
        parts = [f"{space} (items {', '.join(ids[:5])})" for space, ids in spaces.items()]
        raise CatalogError(
            f"latents of {len(spaces)} spaces cannot share one cube: {'; '.join(parts)}; load each space apart, or "
            "decode with upto='field'"
        )
