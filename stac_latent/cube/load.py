"""The verb ``load``: Items with latents to a cube, decoded to pixels or as they are.

Items become virtual ones whose single asset has the latent's href and the grid to be read; ``odc.stac.load`` does
the rest with :class:`stac_latent.cube.driver.LatentDriver`. The bands that share type and nodata are one
``(band, y, x)`` variable while they are read, so that one decode serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import odc.stac
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.loader import FixedCoord, RasterBandMetadata, RasterGroupMetadata

from stac_latent.cube import accessor as _accessor  # noqa: F401 (registers Dataset.latent)
from stac_latent.cube.driver import LatentDriver
from stac_latent.cube.lattice import cell_geobox, common_lattice
from stac_latent.cube.sources import Source, Upto, as_items, pick_sources
from stac_latent.errors import CatalogError
from stac_latent.spec import Band

if TYPE_CHECKING:
    from odc.loader.types import BandKey

__all__ = ["load"]

_DATA = "stac_latent:driver_data"
_PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PerBand = str | Mapping[str, str] | None


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
    dtype: PerBand = None,
    nodata: float | None = None,
    chunks: Mapping[str, Any] | None = None,
    groupby: Any = "time",
    pool: Any = None,
    progress: Any = None,
    fail_on_error: bool = True,
) -> xr.Dataset:
    """Load Items that carry latents as one cube.

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
        ``latent`` stops before the synthesis: dequantised cells, never resampled, so only on the lattice of cells.
    bbox, geobox, like, geopolygon, intersects, crs, resolution, anchor
        Where and on which grid, as in ``odc.stac.load``; ``bbox`` is in degrees of longitude and latitude. With
        ``upto="latent"`` an area is widened to whole cells.
    resampling, dtype
        One for all bands, or a mapping from band name (``"*"``: the others). Only with ``upto="field"``.
    nodata
        Value for pixels without data, instead of the bands' own.
    chunks
        Sizes along ``time``, ``y`` and ``x`` make the arrays dask arrays; None loads at once.
    groupby
        ``time``, ``solar_day``, ``id``, a property, or a function: which Items share a time step.
    pool, progress, fail_on_error
        As in ``odc.stac.load``.

    Returns
    -------
    xarray.Dataset
        ``field``: one variable ``(time, y, x)`` for each band, in its stored unit. ``latent``: the variable
        ``latent (time, channel, y, x)``, float32, NaN where there is no data, its ``latent:`` fields as attributes.

    Raises
    ------
    CatalogError
        For no items, no or several latent assets, unknown bands, or latents of different spaces.
    GridError
        If a latent asset has no grid, or the grid that was asked for is off the cell lattice.

    Examples
    --------
    >>> import pystac, stac_latent
    >>> item = pystac.Item.from_file("catalog/item.json")  # doctest: +SKIP
    >>> ds = stac_latent.load(item, bands=["B04"], resolution=20, resampling="average")  # doctest: +SKIP
    """
    _check_upto(upto, bands, {"resampling": resampling, "dtype": dtype, "anchor": anchor, "nodata": nodata})
    found = as_items(items)
    sources = pick_sources(found, asset, upto)
    area = geopolygon if geopolygon is not None else intersects
    common: dict[str, Any] = {
        "chunks": None if chunks is None else dict(chunks),
        "groupby": groupby,
        "pool": pool,
        "progress": progress,
        "fail_on_error": fail_on_error,
    }
    if upto == "latent":
        _same_space(sources)
        cells = common_lattice(sources)
        box = cell_geobox(
            cells, sources, geobox=geobox, like=like, bbox=bbox, area=area, crs=crs, resolution=resolution
        )
        return _run(found, sources, [_latent_group(sources[0])], geobox=box, **common)
    groups = _field_groups(_resolve(bands, sources), resampling, dtype)
    given = {
        "bbox": bbox,
        "geobox": geobox,
        "like": like,
        "geopolygon": area,
        "crs": crs,
        "resolution": resolution,
        "anchor": anchor,
        "nodata": nodata,
    }
    return _run(found, sources, groups, **{k: v for k, v in given.items() if v is not None}, **common)


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
    dtype: str | None = None
    upto: Upto = "field"

    def data(self, source: Source) -> Mapping[str, Any]:
        index = [cast("int", source.band_index(n)) for n in self.names] if self.upto == "field" else []
        return source.driver_data(self.upto, index)


class _Template:
    """odc-loader's metadata parser for the virtual Items made here."""

    def __init__(self, meta: RasterGroupMetadata) -> None:
        self.meta = meta

    def extract(self, md: Any) -> RasterGroupMetadata:
        return self.meta

    def driver_data(self, md: Any, band_key: BandKey) -> Any:
        return md.assets[band_key[0]].extra_fields[_DATA]


def _field_groups(bands: Mapping[str, Band], resampling: PerBand, dtype: PerBand) -> list[_Group]:
    members: dict[tuple[Any, ...], list[str]] = {}
    for name, band in bands.items():
        nodata = "nan" if band.nodata is not None and math.isnan(band.nodata) else band.nodata
        how = _for_band(resampling, name) or "nearest"
        members.setdefault((band.data_type, nodata, how, _for_band(dtype, name)), []).append(name)
    groups = []
    for i, ((data_type, _, how, out), names) in enumerate(members.items()):
        dim = f"band_{i}"
        meta = RasterBandMetadata(data_type, bands[names[0]].nodata, dims=(dim, "y", "x"))
        coord = FixedCoord(dim, list(names))
        groups.append(_Group(f"_g{i}", tuple(names), tuple(bands[n] for n in names), meta, coord, how, out))
    return groups


def _latent_group(source: Source) -> _Group:
    meta = RasterBandMetadata("float32", math.nan, dims=("channel", "y", "x"), attrs=_latent_attrs(source))
    return _Group("latent", (), (), meta, FixedCoord("channel", list(range(source.spec.dimensions))), upto="latent")


def _latent_attrs(source: Source) -> dict[str, Any]:
    fields = source.spec.to_fields()
    attrs = {k: v for k, v in fields.items() if k.startswith("latent:")}
    attrs["latent:bands"] = [b.name for b in source.spec.bands]
    return attrs


def _run(items: Sequence[pystac.Item], sources: Sequence[Source], groups: Sequence[_Group], **kw: Any) -> xr.Dataset:
    meta = RasterGroupMetadata(
        bands={(g.key, 1): g.meta for g in groups},
        extra_dims={g.coord.dim: len(g.coord.values) for g in groups},
        extra_coords=[g.coord for g in groups],
    )
    virtual = [_virtual(item, source, groups) for item, source in zip(items, sources, strict=True)]
    dtypes = {g.key: g.dtype for g in groups if g.dtype is not None}
    ds = odc.stac.load(
        virtual,
        bands=[g.key for g in groups],
        driver=LatentDriver(_Template(meta)),
        resampling={g.key: g.resampling for g in groups},
        dtype=dtypes or None,
        **kw,
    )
    if groups[0].upto == "latent":
        return ds
    out = {}
    for group in groups:
        for i, (name, band) in enumerate(zip(group.names, group.bands, strict=True)):
            out[name] = ds[group.key].isel({group.coord.dim: i}, drop=True)
            out[name].attrs.update(_band_attrs(band))
    return ds.drop_vars([*(g.key for g in groups), *(g.coord.name for g in groups)]).assign(out)


def _virtual(item: pystac.Item, source: Source, groups: Sequence[_Group]) -> pystac.Item:
    box = source.pixels if groups[0].upto == "field" else source.cells
    out = pystac.Item(
        item.id,
        item.geometry,
        item.bbox,
        item.datetime,
        dict(item.properties),
        stac_extensions=[_PROJ],
        collection="stac-latent",
    )
    proj = {"proj:code": str(box.crs), "proj:shape": list(box.shape), "proj:transform": list(box.transform)[:6]}
    for group in groups:
        fields = {**proj, _DATA: group.data(source)}
        out.add_asset(group.key, pystac.Asset(source.href, roles=["data"], extra_fields=fields))
    return out


def _band_attrs(band: Band) -> dict[str, Any]:
    attrs: dict[str, Any] = {"units": band.unit or "1"}
    if (band.scale, band.offset) != (1.0, 0.0):
        attrs["raster:scale"], attrs["raster:offset"] = band.scale, band.offset
    return attrs


# -- arguments -----------------------------------------------------------------------------------------------------


def _check_upto(upto: str, bands: Any, field_only: Mapping[str, Any]) -> None:
    if upto not in ("field", "latent"):
        raise CatalogError(f"upto={upto!r} cannot be loaded; expected 'field' (pixels) or 'latent' (cells)")
    if upto == "latent" and bands is not None:
        raise CatalogError(f"bands={bands!r} with upto='latent': latents have channels, not bands; leave bands out")
    given = [k for k, v in field_only.items() if v is not None]
    if upto == "latent" and given:
        raise CatalogError(
            f"{', '.join(given)} given with upto='latent': latents are float32, never resampled, on their own lattice; "
            "these arguments need upto='field'"
        )


def _resolve(bands: str | Sequence[str] | None, sources: Sequence[Source]) -> dict[str, Band]:
    first = sources[0]
    if bands is None:
        names = [b.name for b in first.spec.bands]
    else:
        names = list(dict.fromkeys([bands] if isinstance(bands, str) else bands))
    for source in sources:
        if missing := [n for n in names if source.band_index(n) is None]:
            raise CatalogError(
                f"no band {', '.join(map(repr, missing))} in asset {source.asset!r} of item {source.item_id!r}; it has "
                f"{', '.join(b.name for b in source.spec.bands)}"
            )
    return {n: first.spec.bands[cast("int", first.band_index(n))] for n in names}


def _for_band(value: PerBand, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        chosen = value.get(name, value.get("*"))
        return None if chosen is None else str(chosen)
    return str(np.dtype(value))


def _same_space(sources: Sequence[Source]) -> None:
    spaces: dict[str, list[str]] = {}
    for s in sources:
        spaces.setdefault(s.spec.space, []).append(s.item_id)
    if len(spaces) > 1:
        parts = [f"{space} (items {', '.join(ids[:5])})" for space, ids in spaces.items()]
        raise CatalogError(
            f"latents of {len(spaces)} spaces cannot share one cube: {'; '.join(parts)}; load each space apart, or "
            "decode with upto='field'"
        )
