"""``xarray.open_dataset(href, engine="stac-latent")``: one latent as an array that is read lazily.

The href is that of a latent Zarr group, or of a STAC Item (``.json``) with a latent asset. Pixels are decoded, or
cells dequantised, when they are first looked at, window by window; with ``chunks=`` each dask chunk is one window.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

if TYPE_CHECKING:
    from stac_latent.cube.asset_choice import Upto
    from stac_latent.cube.read.band_views import BandView
    from stac_latent.cube.ref import LatentRef

__all__ = ["LatentBackendEntrypoint"]


class LatentBackendEntrypoint(BackendEntrypoint):
    """xarray backend for latents; use it by name, ``engine="stac-latent"``.

    Examples
    --------
    >>> import xarray as xr
    >>> ds = xr.open_dataset("item.json", engine="stac-latent", upto="latent")  # doctest: +SKIP
    >>> red = xr.open_dataset("item.latent.zarr", engine="stac-latent")["B04"]  # doctest: +SKIP
    """

    description = "Latents of stac-latent: decoded bands, or dequantised cells"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "drop_variables",
        "asset",
        "upto",
        "bands",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        asset: str | None = None,
        upto: Upto | None = None,
        bands: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """Open one latent.

        Parameters
        ----------
        filename_or_obj
            Href of a latent Zarr group or of a STAC Item; or a :class:`pystac.Item`.
        drop_variables
            Names of variables to leave out.
        asset
            Key of the latent asset of an Item, where it has several.
        upto
            ``field`` (default for kind ``codec``): one variable ``(y, x)`` for each band, in its stored unit.
            ``latent`` (default for an embedding): ``latent (channel, y, x)``, float32, NaN without data.
        bands
            Bands to open; default: all.

        Raises
        ------
        CatalogError
            If the href is no Item and no latent group, or the band or asset does not exist.
        GridError
            If the latent has no grid.
        """
        from stac_latent.cube.asset_choice import check_bands, check_upto

        source = _reference(filename_or_obj, asset, upto)
        ref = source.ref
        level: Upto = upto or ("field" if ref.spec.kind == "codec" else "latent")
        check_upto(level, bands)
        ds = _latent(source) if level == "latent" else _field(source, check_bands(bands, [ref]))
        names = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return ds.drop_vars(names, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:  # noqa: ARG002 (xarray's protocol)
        """Never: plain Zarr groups and JSON files have engines of their own."""
        return False


class _Given(NamedTuple):
    ref: LatentRef
    stamp: str


class _Windowed(BackendArray):
    """An array ``(..., y, x)`` that is read window by window."""

    def __init__(
        self, given: _Given, shape: tuple[int, ...], dtype: Any, view: BandView | None = None
    ) -> None:
        self.given, self.shape, self.dtype, self.view = given, shape, np.dtype(dtype), view

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> Any:
        from stac_latent.cube.read.band_views import NativeReader
        from stac_latent.cube.read.driver import cells_for, reader_for
        from stac_latent.window import Window

        spans = [
            range(n)[k] if isinstance(k, slice) else range(k, k + 1)
            for k, n in zip(key, self.shape, strict=True)
        ]
        rest = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)
        if not all(len(s) for s in spans):
            return np.empty(tuple(len(s) for s in spans), self.dtype)[rest]
        window = Window.of((min(s[0], s[-1]), max(s[0], s[-1]) + 1) for s in spans[-2:])
        if self.view is None:
            out = cells_for(self.given.ref, self.given.stamp).read_latent(window)[np.asarray(spans[0])]
        else:
            source = NativeReader(reader_for(self.view.ref, self.given.stamp), self.view.grid)
            out = source.read_field(window, [self.view.index])[0].astype(self.dtype, copy=False)
        iy, ix = (np.asarray(s) - lo for s, (lo, _) in zip(spans[-2:], window, strict=True))
        return out[..., iy, :][..., ix][rest]


def _reference(obj: Any, asset: str | None, upto: Upto | None) -> _Given:
    """Find out what was given: an Item, the href of one, or a latent group."""
    import pystac

    from stac_latent.cube.asset_choice import pick_refs
    from stac_latent.cube.band_grid import band_grids
    from stac_latent.cube.item_assets import latent_assets, stamp_of
    from stac_latent.cube.keyframe.decode import with_key_frame
    from stac_latent.cube.ref import LatentRef, encryption_of
    from stac_latent.errors import CatalogError, CorruptDataError
    from stac_latent.net.items import read_item
    from stac_latent.spec import Grid, Spec
    from stac_latent.store.zarr.group import open_arrays
    from stac_latent.system.links import href_of, is_local, local_path

    if not isinstance(obj, pystac.Item):
        if not isinstance(obj, str | os.PathLike):
            raise CatalogError(
                f"engine 'stac-latent' opens the href of an Item or of a latent Zarr group; got {type(obj).__name__}"
            )
        href = os.fspath(obj)
        if is_local(href):
            href = href_of(local_path(href))
        if not href.endswith((".json", ".geojson")):
            attrs = open_arrays(href).attributes
            name = href.rstrip("/").rsplit("/", 1)[-1]
            part = attrs.get("latent:part", 0)
            if type(part) is not int or part < 0:
                raise CorruptDataError(f"{href} declares latent:part {part!r}; expected 0, 1, ...")
            spec, grid = Spec.from_fields(attrs), Grid.from_fields(attrs)
            ref = LatentRef(
                name,
                "latent",
                href,
                spec,
                grid,
                sealed=encryption_of(attrs, name),
                band_grids=band_grids(attrs),
                part=part,
            )
            return _Given(with_key_frame(ref, attrs.get("latent:reference")), repr(sorted(attrs.items())))
        obj = read_item(href)
    only = latent_assets(obj)
    if upto is None and (asset is not None or len(only) == 1):
        chosen = obj.assets.get(asset or only[0])
        kind = None if chosen is None else chosen.extra_fields.get("latent:kind")
        upto = "latent" if kind == "embedding" else "field"
    ref = pick_refs([obj], asset, upto or "field")[0]
    return _Given(ref, stamp_of(obj, ref.asset))


def _field(given: _Given, bands: dict[str, Any]) -> xr.Dataset:
    from odc.geo.xr import xr_coords

    from stac_latent.cube.asset_choice import band_attrs, named_index
    from stac_latent.cube.grid.boxes import pixel_box
    from stac_latent.cube.read.band_views import view_of
    from stac_latent.errors import GridError

    ref = given.ref
    views = {name: view_of(ref, cast("int", named_index(ref, name))) for name in bands}
    grids: dict[Any, list[str]] = {}
    for name, view in views.items():
        grids.setdefault((view.grid.transform, view.grid.shape), []).append(name)
    if len(grids) > 1:
        listed = "; ".join(f"{', '.join(names)} at {t[0]:g}" for (t, _), names in grids.items())
        raise GridError(
            f"the bands of asset {ref.asset!r} of {ref.item_id!r} lie on several native grids ({listed}): choose those of one with "
            "bands=, or bring all to one grid with stac_latent.load"
        )
    box = pixel_box(next(iter(views.values())).grid)
    out = {}
    for name, band in bands.items():
        data = indexing.LazilyIndexedArray(_Windowed(given, tuple(box.shape), band.data_type, views[name]))
        out[name] = xr.Variable(
            box.dimensions, data, band_attrs(band), encoding={"grid_mapping": "spatial_ref"}
        )
    return xr.Dataset(out, coords=xr_coords(box), attrs={"latent:space": ref.spec.space})


def _latent(given: _Given) -> xr.Dataset:
    from odc.geo.xr import xr_coords

    from stac_latent.cube.asset_choice import latent_attrs
    from stac_latent.cube.grid.boxes import cell_box

    ref = given.ref
    box = cell_box(ref.grid)
    shape = (ref.spec.dimensions, *box.shape)
    data = indexing.LazilyIndexedArray(_Windowed(given, shape, "float32"))
    dims = ("channel", *box.dimensions)
    variable = xr.Variable(dims, data, latent_attrs(ref), encoding={"grid_mapping": "spatial_ref"})
    coords = {**xr_coords(box), "channel": np.arange(ref.spec.dimensions)}
    return xr.Dataset({"latent": variable}, coords=coords)
