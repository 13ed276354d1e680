"""Variables of a cube: what is read together, from which asset of each Item, and the cube made of it.

Items become virtual ones whose assets have the latent's href and the grid to be read; odc-loader does the rest
(:mod:`stac_latent.cube.grid.mosaic`) with :class:`stac_latent.cube.read.driver.LatentDriver`. The bands that share type, nodata
and pixels are one ``(band, y, x)`` variable while they are read, so that one decode serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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

from stac_latent.cube.asset_choice import Reading, band_attrs, driver_data, latent_attrs, named_index
from stac_latent.cube.grid.boxes import cell_box, pixel_box
from stac_latent.cube.grid.fusing import check_fuser, fuser_of
from stac_latent.cube.grid.mosaic import mosaic
from stac_latent.cube.raw.band_reader import raw_data
from stac_latent.cube.raw.named import RawBand, RawBands
from stac_latent.cube.read.band_views import BandView, view_of
from stac_latent.cube.read.driver import LatentDriver
from stac_latent.cube.read.physical import physical_band
from stac_latent.cube.read.request import LoadRequest, PerBand, Selection
from stac_latent.cube.read.resample import check_complex
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, GridError
from stac_latent.extension.schemas import PROJ_URI
from stac_latent.field.validity import fits
from stac_latent.geo.crs import crs_fields
from stac_latent.geo.extents import fields_in_utc, in_utc
from stac_latent.spec import Band, Grid
from stac_latent.system.links import shown

if TYPE_CHECKING:
    from odc.loader.types import BandKey

__all__ = [
    "ResolvedAsset",
    "Variable",
    "channel_variable",
    "field_variables",
    "latent_variable",
    "raw_variables",
    "read_variables",
]

_DATA = "stac_latent:driver_data"
_COMPUTING = frozenset(("bilinear", "cubic", "cubic_spline", "lanczos", "average", "gauss", "sum", "rms"))
"""Ways to resample that make values which no pixel has: none for classes, masks and flags."""


@dataclass(frozen=True, eq=False)
class ResolvedAsset:
    """An Item, the one of its assets that is loaded, and where its bands are; made once for each Item of a load."""

    item: pystac.Item
    ref: LatentRef
    raw: RawBands
    """Its raw bands, which are looked at where one is asked for."""
    _views: dict[str, BandView] = field(default_factory=dict)

    def view(self, name: str) -> BandView:
        """Where a band is, by a name that the asset has."""
        if name not in self._views:
            self._views[name] = view_of(self.ref, cast("int", named_index(self.ref, name)))
        return self._views[name]

    def band(self, name: str) -> Band:
        """A decoded or a raw band, as this Item describes it."""
        index = named_index(self.ref, name)
        return self.ref.spec.bands[index] if index is not None else cast("RawBand", self.raw.find(name)).band

    def native_grid(self, name: str) -> tuple[int, Grid] | None:
        """Part and pixels of a band; None where all bands of the asset share them."""
        if not self.ref.band_grids:
            return None
        view = self.view(name)
        return view.ref.part, view.grid


@dataclass(frozen=True)
class Variable:
    """Bands that are read as one ``(band, y, x)`` variable, or the channels of latents."""

    key: str
    names: tuple[str, ...]
    bands: tuple[Band, ...]
    meta: RasterBandMetadata
    coord: FixedCoord | None
    """None of one band that is read as ``(y, x)``."""
    resampling: str = "nearest"
    reading: Reading = "field"
    physical: bool = False
    fuse: str = "first"

    def bands_of(self, cube: xr.Dataset) -> dict[str, xr.Variable]:
        """Its bands by name, with their attributes; bare, since aligning arrays that share their coordinates takes time for nothing."""
        found = {}
        whole = cube.variables[self.key]
        for i, (name, band) in enumerate(zip(self.names, self.bands, strict=True)):
            found[name] = whole.copy(deep=False) if self.coord is None else whole.isel({self.coord.dim: i})
            found[name].attrs = band_attrs(_as_read(band, found[name]))
        return found

    def source(self, asset: ResolvedAsset) -> pystac.Asset:
        """What odc-loader is told of it: the grid that it lies on in an Item, and what a worker needs to read it."""
        href = shown(asset.ref.href)
        if self.reading != "field":
            return _virtual_asset(
                href, cell_box(asset.ref.grid), driver_data(asset.item, asset.ref, self.reading)
            )
        views = [asset.view(name) for name in self.names]
        first = views[0]
        data = driver_data(
            asset.item, first.ref, self.reading, [v.index for v in views], first.grid, physical=self.physical
        )
        return _virtual_asset(href, pixel_box(first.grid), data)


@dataclass(frozen=True)
class RawVariable(Variable):
    """A raw band."""

    def source(self, asset: ResolvedAsset) -> pystac.Asset:
        """What odc-loader is told of it."""
        found = asset.raw.find(self.names[0])
        assert found is not None  # noqa: S101 - every Item was asked for it
        file = found.ref.item.assets[found.ref.asset]
        return _virtual_asset(shown(file.href), found.box, raw_data(found, physical=self.physical))


def field_variables(
    bands: Mapping[str, Band], assets: Sequence[ResolvedAsset], selection: Selection
) -> list[Variable]:
    """Bands that are alike, and share their pixels in every Item."""
    members: dict[tuple[Any, ...], list[str]] = {}
    loaded = {name: physical_band(band) if selection.physical else band for name, band in bands.items()}
    for name, band in loaded.items():
        nodata = "nan" if band.nodata is not None and math.isnan(band.nodata) else band.nodata
        resampling = _resampling(selection.resampling, name)
        dtype = _for_band(selection.dtype, name)
        fuse = fuser_of(selection.fuse_func, name)
        check_complex(band, resampling, dtype)
        check_fuser(band, fuse)
        _check_nodata(selection.nodata, name, dtype or band.data_type)
        grids = [asset.native_grid(name) for asset in assets]
        alone = name if "." in fuse else None  # functions of others expect (y, x)
        key = (band.data_type, nodata, resampling, dtype, fuse, alone, *grids)
        members.setdefault(key, []).append(name)
    variables = []
    for i, ((data_type, _, resampling, dtype, fuse, alone, *_), names) in enumerate(members.items()):
        dim = f"band_{i}"
        dims = () if alone else (dim, "y", "x")
        meta = RasterBandMetadata(dtype or data_type, loaded[names[0]].nodata, dims=dims)
        coord = None if alone else FixedCoord(dim, list(names))
        alike = tuple(loaded[n] for n in names)
        variables.append(
            Variable(
                f"_g{i}", tuple(names), alike, meta, coord, resampling, "field", selection.physical, fuse
            )
        )
    return variables


def raw_variables(
    bands: Mapping[str, Band], assets: Sequence[ResolvedAsset], selection: Selection
) -> list[RawVariable]:
    """Raw bands, each by itself."""
    variables = []
    for i, (name, stored) in enumerate(bands.items()):
        band = physical_band(stored) if selection.physical else stored
        resampling, dtype = _resampling(selection.resampling, name), _for_band(selection.dtype, name)
        if (
            cast("RawBand", assets[0].raw.find(name)).categorical
            and resampling in _COMPUTING
            and not _is_named(selection.resampling, name)
        ):
            resampling = "nearest"
        fuse = fuser_of(selection.fuse_func, name)
        check_complex(band, resampling, dtype)
        check_fuser(band, fuse)
        _check_nodata(selection.nodata, name, dtype or band.data_type)
        meta = RasterBandMetadata(dtype or band.data_type, band.nodata)
        variables.append(
            RawVariable(f"_r{i}", (name,), (band,), meta, None, resampling, "field", selection.physical, fuse)
        )
    return variables


def _check_nodata(nodata: float | None, name: str, dtype: str) -> None:
    if nodata is not None and not fits(nodata, np.dtype(dtype)):
        raise CatalogError(
            f"nodata={nodata!r} is no value of band {name!r}, which is {dtype}; give one that it can have, or dtype= a type that holds it"
        )


def latent_variable(refs: Sequence[LatentRef]) -> Variable:
    """Dequantised latents, on their lattice."""
    meta = RasterBandMetadata("float32", math.nan, dims=("channel", "y", "x"), attrs=latent_attrs(*refs))
    channels = list(range(refs[0].spec.dimensions))
    return Variable("latent", (), (), meta, FixedCoord("channel", channels), reading="latent")


def channel_variable(refs: Sequence[LatentRef], resampling: PerBand) -> Variable:
    """Channels of embeddings, resampled as numbers."""
    return replace(latent_variable(refs), resampling=_resampling(resampling, "latent"), reading="channels")


def read_variables(
    assets: Sequence[ResolvedAsset],
    variables: Sequence[Variable],
    request: LoadRequest,
    grid: Mapping[str, Any],
) -> xr.Dataset:
    """Read variables onto one grid; those of bands come apart into one for each.

    Parameters
    ----------
    assets
        One for each Item.
    variables
        What is read together; all are read in one way.
    request
        Nodata, time steps, chunks and threads.
    grid
        Arguments of ``odc.stac.output_geobox``.
    """
    coords = [v.coord for v in variables if v.coord is not None]
    meta = RasterGroupMetadata(
        bands={(v.key, 1): v.meta for v in variables},
        extra_dims={c.dim: len(c.values) for c in coords},
        extra_coords=coords,
    )
    ds = mosaic(
        [asset.item for asset in assets],
        [
            _virtual(i, a, variables, outline=callable(request.execution.groupby))
            for i, a in enumerate(assets)
        ],
        LatentDriver(_Template(meta), warn=request.execution.errors == "warn"),
        {v.key: v.resampling for v in variables},
        request.execution,
        grid,
        request.selection.nodata,
        {v.key: v.fuse for v in variables},
    )
    if variables[0].reading != "field":
        return ds
    properties = {r.output_name: ds[r.output_name] for r in request.execution.properties}
    bands = {name: array for v in variables for name, array in v.bands_of(ds).items()}
    if taken := [name for name in properties if name in bands]:
        raise CatalogError(
            f"with_properties= gives a variable {taken[0]!r}, and so is a band called; give the property another name: {{'key': ..., "
            f"'name': '{taken[0]}_of_item'}}"
        )
    made = [*(v.key for v in variables), *(c.name for c in coords)]
    return ds.drop_vars([*made, *properties]).assign({**bands, **properties})


def _as_read(band: Band, variable: xr.Variable) -> Band:
    """The band with the type and the nodata value that its variable has, which the caller may have chosen."""
    return replace(band, data_type=variable.dtype.name, nodata=variable.attrs.get("nodata"))


class _Template:
    """odc-loader's metadata parser for the virtual Items made here."""

    def __init__(self, meta: RasterGroupMetadata) -> None:
        self.meta = meta

    def extract(self, md: Any) -> RasterGroupMetadata:  # noqa: ARG002 (odc-loader's protocol)
        return self.meta

    def driver_data(self, md: Any, band_key: BandKey) -> Any:
        return md.assets[band_key[0]].extra_fields[_DATA]


def _virtual(
    position: int, asset: ResolvedAsset, variables: Sequence[Variable], *, outline: bool
) -> pystac.Item:
    """The Item that odc-loader sees; its outline, of which parsing takes long, for functions of the caller's alone: grids say the rest."""
    item = asset.item
    out = pystac.Item(
        item.id,
        _footprint(item.geometry) if outline else None,
        item.bbox,
        in_utc(item.datetime),
        fields_in_utc(item.properties),
        stac_extensions=[PROJ_URI],
        collection=f"stac-latent-{position}",  # odc-stac takes the grids of a collection's first Item for those of all
    )
    for variable in variables:
        out.add_asset(variable.key, variable.source(asset))
    return out


def _virtual_asset(href: str, box: GeoBox, data: Mapping[str, Any]) -> pystac.Asset:
    fields = {
        **crs_fields(str(box.crs)),
        "proj:shape": list(box.shape),
        "proj:transform": list(box.transform)[:6],
        _DATA: data,
    }
    return pystac.Asset(href, roles=["data"], extra_fields=fields)


def _footprint(geometry: dict[str, Any] | None) -> dict[str, Any] | None:
    """The geometry as one with coordinates, which a GeometryCollection has not."""
    if geometry is None or geometry.get("type") != "GeometryCollection":
        return geometry
    return shapely.geometry.mapping(shapely.union_all([shapely.geometry.shape(geometry)]))


def _resampling(resampling: PerBand, name: str) -> str:
    """How a variable is resampled."""
    how = _for_band(resampling, name) or "nearest"
    try:
        resampling_s2rio(how)
    except ValueError as exc:
        known = ", ".join(r.name for r in Resampling)
        raise GridError(f"resampling={how!r} is unknown; expected one of {known}") from exc
    return how


def _is_named(value: Any, name: str) -> bool:
    return isinstance(value, Mapping) and name in value


def _for_band(value: Any, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        chosen = value.get(name, value.get("*"))
        return None if chosen is None else str(chosen)
    return str(np.dtype(value))
