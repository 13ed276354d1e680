"""The verb ``load``: Items with latents to a cube, decoded to pixels or as they are.

Three functions load what there is to load: :func:`load_field` pixels, :func:`load_latent` cells on their lattice, and
:func:`load_channels` the channels of embeddings on any grid. What they read together is described in
:mod:`stac_latent.cube.read.variables`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pystac
import xarray as xr
from odc.geo.geobox import GeoBox

from stac_latent.cube.asset_choice import Upto, check_bands, pick_refs
from stac_latent.cube.bad_items import Errors, error_policy, sound_items
from stac_latent.cube.band_kinds import asked_names, check_decoded, check_known, raw_names
from stac_latent.cube.grid.areas import Area
from stac_latent.cube.grid.coverage import check_meets
from stac_latent.cube.grid.fusing import Fuse
from stac_latent.cube.grid.lattice import cell_geobox, common_lattice
from stac_latent.cube.grid.mosaic import Execution
from stac_latent.cube.grid.properties import Properties, property_requests
from stac_latent.cube.item_assets import as_items
from stac_latent.cube.odc_private import StacMDParser
from stac_latent.cube.raw.named import RawBands
from stac_latent.cube.read import accessor as _accessor  # noqa: F401 (registers the accessor)
from stac_latent.cube.read.physical import check_stored, with_common_nodata
from stac_latent.cube.read.request import LoadRequest, PerBand, Selection
from stac_latent.cube.read.variables import (
    ResolvedAsset,
    channel_variable,
    field_variables,
    latent_variable,
    raw_variables,
    read_variables,
)
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError
from stac_latent.secure import Key, use
from stac_latent.system.suggest import known_options

__all__ = ["check_space", "load", "load_channels", "load_field", "load_latent", "resolved_assets"]


@known_options()
def load(
    items: pystac.Item | Iterable[pystac.Item],
    bands: str | Sequence[str] | None = None,
    *,
    asset: str | None = None,
    upto: Upto = "field",
    bbox: tuple[float, float, float, float] | None = None,
    lon: tuple[float, float] | None = None,
    lat: tuple[float, float] | None = None,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
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
    fuse_func: Fuse = None,
    chunks: Mapping[str, Any] | None = None,
    groupby: Any = "time",
    preserve_original_order: bool = False,
    with_properties: Properties = None,
    pool: Any = None,
    progress: Any = None,
    errors: Errors | None = None,
    fail_on_error: bool | None = None,
    stac_cfg: dict[str, Any] | None = None,
    use_overviews: bool = True,
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
        Decoded bands by name or common name, and raw ones as ``odc.stac.load`` calls them; all decoded ones when left out. A
        name that both have is the decoded band; the key of an asset before it says which is meant: ``latent.B04``, ``red.1``
        (the first band of raw asset ``red``), ``image.B04``. Only with ``upto="field"``.
    asset
        Key of the latent asset; needed where an Item has several that fit.
    upto
        ``field`` decodes to pixels on any grid, resampled as the stock driver would resample the decoded raster.
        ``latent`` stops before the synthesis: dequantised cells, not resampled, so only on the lattice of cells; those
        of embeddings on any grid where ``resampling`` says how.
    bbox, lon, lat, x, y, geobox, like, geopolygon, intersects, crs, resolution, anchor
        Where and on which grid, as in ``odc.stac.load``; ``bbox`` is in degrees of longitude and latitude, with
        west > east across 180 degrees; ``lon`` and ``lat`` are pairs in degrees, ``x`` and ``y`` in units of ``crs``. An area apart from all Items is refused; a whole grid holds nodata there. With
        ``upto="latent"`` an area is widened to whole cells, and cut to the Items'.
    resampling, dtype
        One for all bands, or a mapping from band name (``"*"``: the others). Only with ``upto="field"``, but for the
        ``resampling`` of embeddings. Raw classes and masks stay ``nearest`` where values would be computed, unless named.
    nodata
        Value for pixels without data, instead of the bands' own; those of the first Item that has one, where Items differ.
    physical
        Values times scale plus offset, in physical units: float32, NaN without data. Sensors that store a band in
        other types or scales meet in one cube only so. Only with ``upto="field"``.
    fuse_func
        What a pixel has where several Items of a time step hold data: ``first`` (default), ``last``, ``min``, ``max``,
        ``mean`` or ``median``, or a function ``(dst, src)`` of a module as ``odc.stac.load`` has it, as such or by its dotted
        name; one for all bands, or a mapping. Integers are rounded, halves to even. A median holds all of a chunk's Items at once.
    chunks
        Sizes along ``time``, ``y`` and ``x`` make the arrays dask arrays; None loads at once.
    groupby
        ``time``, ``solar_day``, ``id``, a property, or a function ``(item, parsed, position)`` of the Items as they were
        given: which of them share a time step. Times are UTC.
    preserve_original_order
        Items of a time step come in the order that they were given, not by time and id.
    with_properties
        Properties of the Items, as variables along time: names, or mappings as ``odc.stac.load`` takes them.
    key
        Key of encrypted latents, or its file; else ``$STAC_LATENT_KEY`` names files, in other processes always.
    patch_url
        Signs addresses: called before each request with the address of the object, which may be any below an asset's; what it
        returns is asked for. ``$STAC_LATENT_SIGN`` names one for other processes.
    pool
        Threads that load at once where ``chunks`` is None, or an executor; remote items are loaded by 16, or
        ``$STAC_LATENT_CONNECTIONS``, where it is left out.
    errors
        ``raise`` (default); ``warn`` and ``ignore`` leave out Items that cannot be loaded, and pixels that cannot be read have
        no data; ``warn`` names the Items (:class:`~stac_latent.errors.SourceWarning`).
    fail_on_error
        ``False`` is ``errors="ignore"`` in the words of ``odc.stac.load``.
    stac_cfg, progress
        As in ``odc.stac.load``; ``stac_cfg`` is of raw assets.
    use_overviews
        Whether a grid of a quarter of the resolution or less is read from coarser levels of the wavelet, where the codec has
        them and ``resampling`` is of values (``nearest``, ``average``, ``bilinear``, ...): a fraction of the work, for a difference
        below the codec's error. False decodes every pixel first.

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
    request = LoadRequest(
        Selection(bands, asset, upto, resampling, dtype, nodata, physical, fuse_func),
        Area(bbox, geobox, like, geopolygon, intersects, crs, resolution, anchor, lon, lat, x, y),
        Execution(
            chunks,
            groupby,
            pool,
            progress,
            error_policy(errors, fail_on_error),
            preserve_original_order,
            property_requests(with_properties),
            use_overviews,
        ),
        patch_url,
        stac_cfg,
    )
    if key is not None:
        use(key)
    request.check()
    assets = resolved_assets(as_items(items, "load"), request)
    refs = [a.ref for a in assets]
    request = request.with_pool(refs)
    check_meets(refs, request.area.parts)
    if upto == "field":
        return load_field(assets, request)
    if resampling is not None and all(ref.spec.kind == "embedding" for ref in refs):
        return load_channels(assets, request)
    return load_latent(assets, request)


def load_field(assets: Sequence[ResolvedAsset], request: LoadRequest) -> xr.Dataset:
    """Decoded pixels on any grid, one variable for each band, and raw ones beside them."""
    selection, refs = request.selection, [a.ref for a in assets]
    asked = asked_names(selection.bands)
    raw = raw_names(asked, assets)
    bands = check_bands([n for n in asked if n not in raw] if asked else None, refs)
    stored = {n: [(a.ref.item_id, a.band(n)) for a in assets] for n in (*bands, *raw)}
    check_stored(stored, physical=selection.physical)
    raw_bands = {n: assets[0].band(n) for n in raw}
    if selection.nodata is None and not selection.physical:
        bands, raw_bands = with_common_nodata(bands, stored), with_common_nodata(raw_bands, stored)
    variables = [*field_variables(bands, assets, selection), *raw_variables(raw_bands, assets, selection)]
    ds = read_variables(assets, variables, request, request.area.of_grid())
    return ds[[*asked, *(n for n in ds.data_vars if n not in asked)]]


def load_latent(assets: Sequence[ResolvedAsset], request: LoadRequest) -> xr.Dataset:
    """Dequantised cells as they are, on the lattice that all Items share."""
    selection, area, refs = request.selection, request.area, [a.ref for a in assets]
    selection.check_latents(resampling=selection.resampling, anchor=area.anchor)
    check_space(refs)
    box = cell_geobox(common_lattice(refs), refs, area)
    return read_variables(assets, [latent_variable(refs)], request, {"geobox": box})


def load_channels(assets: Sequence[ResolvedAsset], request: LoadRequest) -> xr.Dataset:
    """Channels of embeddings on any grid, resampled as numbers."""
    selection, refs = request.selection, [a.ref for a in assets]
    selection.check_latents()
    check_space(refs)
    variable = channel_variable(refs, selection.resampling)
    return read_variables(assets, [variable], request, request.area.of_grid())


def resolved_assets(items: Sequence[pystac.Item], request: LoadRequest) -> list[ResolvedAsset]:
    """The asset of each Item that is loaded; Items without one, or without a band that is asked for, are refused or left out."""
    selection = request.selection
    parser, asked = StacMDParser(request.stac_cfg or {}), asked_names(selection.bands)

    def checked(item: pystac.Item, ref: LatentRef | None) -> ResolvedAsset:
        if ref is None:
            (ref,) = pick_refs([item], selection.asset, selection.upto)
        found = ResolvedAsset(item, ref.signed(request.patch_url), RawBands(item, parser, request.patch_url))
        if selection.upto == "field":
            check_known(asked, found)
        return found

    errors = request.execution.errors
    refs = pick_refs(items, selection.asset, selection.upto) if errors == "raise" else [None] * len(items)
    found = sound_items(
        [(i.id, (i, ref)) for i, ref in zip(items, refs, strict=True)], lambda p: checked(*p), errors
    )
    if selection.upto == "latent":
        return found
    decoded = [n for n in asked if n not in raw_names(asked, found)]

    def decoding(asset: ResolvedAsset) -> ResolvedAsset:
        check_decoded(decoded, asset)
        return asset

    return sound_items([(a.item.id, a) for a in found], decoding, errors)


def check_space(refs: Sequence[LatentRef]) -> None:
    """Refuse latents of several spaces, with :class:`CatalogError`: they are no vectors of one kind."""
    spaces: dict[str, list[str]] = {}
    for ref in refs:
        spaces.setdefault(ref.spec.space, []).append(ref.item_id)
    if len(spaces) > 1:
        parts = [f"{space} (items {', '.join(ids[:5])})" for space, ids in spaces.items()]
        raise CatalogError(
            f"latents of {len(spaces)} spaces cannot share one cube: {'; '.join(parts)}; load each space apart, or "
            "decode with upto='field'"
        )
