"""``xarray.open_dataset(href, engine="stac-latent")``: one latent as arrays that are read lazily.

The href is that of a latent Zarr group, or of a STAC Item (``.json``) with a latent asset. Pixels are decoded, or
cells dequantised, when they are first looked at; only stored chunks with pixels that are asked for are read. Bands of several
native grids, and several assets of an Item, are the nodes of ``xarray.open_datatree``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import xarray as xr
from xarray.backends import BackendEntrypoint
from xarray.core import indexing

if TYPE_CHECKING:
    from stac_latent.cube.asset_choice import Upto
    from stac_latent.cube.read.band_views import BandView
    from stac_latent.cube.read.engine.source import Latent, Source
    from stac_latent.secure import Key
    from stac_latent.spec import Band

__all__ = ["LatentBackendEntrypoint"]


class LatentBackendEntrypoint(BackendEntrypoint):
    """xarray backend for latents; use it by name, ``engine="stac-latent"``.

    Examples
    --------
    >>> import xarray as xr
    >>> ds = xr.open_dataset("item.json", engine="stac-latent", upto="latent")  # doctest: +SKIP
    >>> red = xr.open_dataset("item.latent.zarr", engine="stac-latent")["B04"]  # doctest: +SKIP
    >>> tree = xr.open_datatree("item.json", engine="stac-latent")  # doctest: +SKIP
    """

    description = "Latents of stac-latent: decoded bands, or dequantised cells"
    supports_groups = True
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "mask_and_scale",
        "decode_times",
        "decode_timedelta",
        "use_cftime",
        "concat_characters",
        "decode_coords",
        "drop_variables",
        "group",
        "asset",
        "upto",
        "bands",
        "squeeze",
        "key",
        "patch_url",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: bool | Mapping[str, bool] | None = None,
        decode_times: object = None,
        decode_timedelta: object = None,
        use_cftime: object = None,
        concat_characters: object = None,
        decode_coords: object = None,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        asset: str | None = None,
        upto: Upto | None = None,
        bands: str | Iterable[str] | None = None,
        squeeze: bool = True,
        key: Key | str | os.PathLike[str] | None = None,
        patch_url: Callable[[str], str] | None = None,
    ) -> xr.Dataset:
        """Open one latent.

        Parameters
        ----------
        filename_or_obj
            Href of a latent Zarr group or of a STAC Item; a :class:`pystac.Item`, or an asset of one.
        mask_and_scale
            True: bands times scale plus offset, float32, NaN without data, as ``load(physical=True)`` has them. False or None: as
            they are stored. Or by band.
        decode_times, decode_timedelta, use_cftime, concat_characters, decode_coords
            Accepted, as of every engine; latents hold nothing that they change.
        drop_variables
            Names of variables to leave out.
        group
            A node of :func:`xarray.open_datatree`: the native grid of an asset whose bands have several (``g20``), an asset of
            an Item that has several, or a grid of one (``latent/g20``).
        asset
            Key of the latent asset of an Item, where it has several.
        upto
            ``field`` (default for kind ``codec``): one variable ``(y, x)`` for each band.
            ``latent`` (default for an embedding): ``latent (channel, y, x)``, float32, NaN without data.
        bands
            Bands to open; default: all.
        squeeze
            The time of the Item is a coordinate without a dimension. False: the first dimension of each variable, of one step, as
            in a cube of :func:`stac_latent.load`; ``open_mfdataset(combine="by_coords")`` needs it.
        key
            Key of encrypted latents, or its file; else ``$STAC_LATENT_KEY`` names files, in other processes always.
        patch_url
            Signs addresses, as of :func:`stac_latent.load`.

        Raises
        ------
        CatalogError
            If it is no Item and no latent group, or the band, asset or group does not exist.
        GridError
            If the latent has no grid, or the bands lie on several.
        """
        del decode_times, decode_timedelta, use_cftime, concat_characters, decode_coords
        wanted = _Wanted(
            mask_and_scale,
            drop_variables,
            group,
            asset,
            upto,
            bands,
            squeeze=squeeze,
            key=key,
            patch_url=patch_url,
        )
        return wanted.dataset(filename_or_obj)

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """A Dataset for each asset and native grid, by the path of its node; parameters as of :meth:`open_dataset`."""
        for name in _IGNORED:
            options.pop(name, None)
        return _Wanted(**options).groups(filename_or_obj)

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """A tree with a node for each asset of an Item that has several, and for each native grid of an asset that has several.

        Parameters
        ----------
        filename_or_obj, **options
            As of :meth:`open_dataset`; ``group`` is the node that is the root.
        """
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))

    def guess_can_open(self, filename_or_obj: Any) -> bool:  # noqa: ARG002 (xarray's protocol)
        """Never: plain Zarr groups and JSON files have engines of their own."""
        return False


_IGNORED = ("decode_times", "decode_timedelta", "use_cftime", "concat_characters", "decode_coords")


@dataclass(frozen=True)
class _Wanted:
    """What is to be opened, by the names of :meth:`LatentBackendEntrypoint.open_dataset`."""

    mask_and_scale: bool | Mapping[str, bool] | None = None
    drop_variables: str | Iterable[str] | None = None
    group: str | None = None
    asset: str | None = None
    upto: Upto | None = None
    bands: str | Iterable[str] | None = None
    squeeze: bool = True
    key: Key | str | os.PathLike[str] | None = None
    patch_url: Callable[[str], str] | None = None

    def dataset(self, obj: Any) -> xr.Dataset:
        from stac_latent.errors import GridError

        source = self._source(obj)
        path = (self.group or "").strip("/")
        keys = [k for k in source.keys(self.upto) if k and (path == k or path.startswith(f"{k}/"))]
        asset = max(keys, key=len) if keys else None
        latent = source.latent(asset, self.upto)
        grids = self._grids(latent)
        name = path[len(asset or "") :].strip("/")
        if name:
            if name not in grids:
                raise self._no_group(source)
            return self._opened(latent, grids[name])
        if len(grids) > 1:
            listed = "; ".join(f"{', '.join(views)} in {group!r}" for group, views in grids.items())
            raise GridError(
                f"the bands of asset {latent.ref.asset!r} of {latent.ref.item_id!r} lie on several native grids ({listed}): choose one with "
                "group= or bands=, open all with xarray.open_datatree, or bring all to one grid with stac_latent.load"
            )
        return self._opened(latent, next(iter(grids.values())))

    def groups(self, obj: Any) -> dict[str, xr.Dataset]:
        source = self._source(obj)
        root = (self.group or "").strip("/")
        out = {f"/{root}".rstrip("/"): xr.Dataset()}
        for path, latent, views in self._nodes(source):
            if not root or path == root or path.startswith(f"{root}/"):
                out[f"/{path}".rstrip("/")] = self._opened(latent, views)
        if root and list(out) == [f"/{root}"] and not out[f"/{root}"].variables:
            raise self._no_group(source)
        return {path[len(root) + bool(root) :] or "/": ds for path, ds in out.items()}

    def _source(self, obj: Any) -> Source:
        from stac_latent.cube.asset_choice import check_upto
        from stac_latent.cube.read.engine.source import source_of
        from stac_latent.errors import CatalogError
        from stac_latent.secure import use

        if not isinstance(self.group, str | None):
            raise CatalogError(f"group={self.group!r} is no path; expected such as 'g20' or 'latent/g20'")
        if not isinstance(self.mask_and_scale, bool | np.bool_ | Mapping | None):
            raise CatalogError(
                f"mask_and_scale={self.mask_and_scale!r} is neither True, False nor None, nor a mapping from bands to these"
            )
        check_upto(self.upto or "field", self.bands if self.upto == "latent" else None)
        if self.key is not None:
            use(self.key)
        return source_of(obj, self.asset, self.upto, self.patch_url)

    def _nodes(self, source: Source) -> Iterable[tuple[str, Latent, dict[str, BandView]]]:
        """Paths, and what is there: each native grid of each asset."""
        keys = source.keys(self.upto or (None if self.bands is None else "field"))
        for key in keys if len(keys) > 1 else [None]:
            latent = source.latent(key, self.upto)
            grids = self._grids(latent)
            for name, views in grids.items():
                yield "/".join(filter(None, (key, name if len(grids) > 1 else ""))), latent, views

    def _no_group(self, source: Source) -> Exception:
        from stac_latent.errors import CatalogError

        there = [path for path, _, _ in self._nodes(source)]
        has = ", ".join(map(repr, there)) if any(there) else "none: all is in the root, leave group out"
        return CatalogError(f"there is no group {self.group!r}; groups are {has}")

    def _grids(self, latent: Latent) -> dict[str, dict[str, BandView]]:
        """Bands of each native grid, by names after the size of its pixels; cells have none."""
        from stac_latent.cube.asset_choice import check_bands, check_upto, named_index
        from stac_latent.cube.read.band_views import view_of
        from stac_latent.errors import CatalogError

        check_upto(latent.upto, self.bands)
        if latent.upto == "latent":
            return {"": {}}
        grids: dict[Any, dict[str, BandView]] = {}
        for name in check_bands(self.bands, [latent.ref]):
            view = view_of(latent.ref, cast("int", named_index(latent.ref, name)))
            grids.setdefault((view.grid.transform, view.grid.shape), {})[name] = view
        if not grids:
            names = ", ".join(b.name for b in latent.ref.spec.bands)
            raise CatalogError(f"bands={self.bands!r} names no band; asset {latent.ref.asset!r} has {names}")
        out: dict[str, dict[str, BandView]] = {}
        for (transform, _), views in grids.items():
            name = f"g{abs(transform[0]):g}"
            out[name if name not in out else f"{name}-{len(out) + 1}"] = views
        return out

    def _opened(self, latent: Latent, views: Mapping[str, BandView]) -> xr.Dataset:
        ds = self._field(latent, views) if views else self._latent(latent)
        names = self.drop_variables
        ds = ds.drop_vars([names] if isinstance(names, str) else list(names or ()), errors="ignore")
        ds.set_close(_close)
        return ds

    def _field(self, latent: Latent, views: Mapping[str, BandView]) -> xr.Dataset:
        from stac_latent.cube.asset_choice import band_attrs, check_bands
        from stac_latent.cube.grid.boxes import pixel_box
        from stac_latent.cube.read.engine.arrays import BandArray, BandGroup, pixel_chunks
        from stac_latent.cube.read.physical import physical_band

        bands = check_bands(list(views), [latent.ref])
        steps = self._steps(latent)
        groups: dict[int, BandGroup] = {}
        out = {}
        for name, view in views.items():
            group = groups.setdefault(view.ref.part, BandGroup(view, latent.stamp))
            physical = self._is_physical(name)
            attrs = band_attrs(physical_band(bands[name]) if physical else bands[name])
            if physical:  # as xarray has them: what a file is to hold is in the encoding
                del attrs["_FillValue"], attrs["nodata"]
            array = BandArray(group, view.index, bands[name], physical=physical, time=bool(steps))
            out[name] = (
                array,
                attrs,
                pixel_chunks(view) | (_packing(bands[name]) if physical else {}),
            )
        box = pixel_box(next(iter(views.values())).grid)
        dims = (*steps, *box.dimensions)
        variables = {n: _variable(dims, *made) for n, made in out.items()}
        return xr.Dataset(variables, self._coords(latent, box), {"latent:space": latent.ref.spec.space})

    def _latent(self, latent: Latent) -> xr.Dataset:
        from stac_latent.cube.asset_choice import latent_attrs
        from stac_latent.cube.grid.boxes import cell_box
        from stac_latent.cube.read import accessor as _accessor  # noqa: F401 (registers the accessor)
        from stac_latent.cube.read.engine.arrays import CellArray, cell_chunks

        box, steps = cell_box(latent.ref.grid), self._steps(latent)
        array = CellArray(latent.ref, latent.stamp, time=bool(steps))
        dims = (*steps, "channel", *box.dimensions)
        variable = _variable(dims, array, latent_attrs(latent.ref), cell_chunks(latent.ref))
        coords = self._coords(latent, box) | {"channel": np.arange(latent.ref.spec.dimensions)}
        return xr.Dataset({"latent": variable}, coords)

    def _is_physical(self, name: str) -> bool:
        by_band = self.mask_and_scale
        return bool(by_band.get(name) if isinstance(by_band, Mapping) else by_band)

    def _steps(self, latent: Latent) -> tuple[str, ...]:
        """The dimension of time, where there is one."""
        return () if self.squeeze or latent.time is None else ("time",)

    def _coords(self, latent: Latent, box: Any) -> dict[Any, Any]:
        from odc.geo.xr import xr_coords

        coords: dict[Any, Any] = dict(xr_coords(box))
        if latent.time is not None:
            when = np.datetime64(latent.time, "us")
            coords["time"] = xr.Variable((), when) if self.squeeze else xr.Variable("time", [when])
        return coords


def _close() -> None:
    """Nothing is open between reads, and xarray closes what it combined."""


def _variable(
    dims: tuple[str, ...], array: Any, attrs: dict[str, Any], encoding: dict[str, Any]
) -> xr.Variable:
    sizes = encoding.pop("chunks", None)
    if sizes is not None:
        whole = dict(zip(dims, array.shape, strict=True))
        encoding = {"preferred_chunks": {**whole, **dict(zip(dims[-2:], sizes, strict=True))}, **encoding}
    return xr.Variable(
        dims, indexing.LazilyIndexedArray(array), attrs, {"grid_mapping": "spatial_ref", **encoding}
    )


def _packing(band: Band) -> dict[str, Any]:
    """How a file holds the physical values as they were stored: xarray's encoding, which packs integers alone."""
    if np.dtype(band.data_type).kind not in "iu":
        return {} if band.is_complex else {"_FillValue": np.float32(np.nan)}
    packing: dict[str, Any] = {"dtype": np.dtype(band.data_type)}
    if (band.scale, band.offset) != (1.0, 0.0):
        packing |= {"scale_factor": band.scale, "add_offset": band.offset}
    return (
        packing
        if band.nodata is None
        else packing | {"_FillValue": np.dtype(band.data_type).type(band.nodata)}
    )
