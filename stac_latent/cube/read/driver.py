"""An odc-loader driver that reads latents: decoded to pixels on any grid, or as they are on their lattice.

``odc.stac.load(items, bands=["red"], driver="stac_latent.cube.LatentDriver")`` works on Items that carry a
latent asset of kind ``codec``: its bands are found by name. An asset key that is also a band name stays the
asset, as in a stock load; ``"<asset key>.<band name>"`` always means the decoded band. Sources that are not
latent are read by the stock rasterio reader, so raw and decoded bands may be mixed.
"""

from __future__ import annotations

import abc
import copy
import functools
import logging
import warnings
from typing import Any, cast

import numpy as np
import rasterio.errors
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.loader import RasterBandMetadata, RasterGroupMetadata, RasterSource, RioDriver
from odc.loader.types import BandKey, RasterLoadParams

from stac_latent.aliases import Array
from stac_latent.cube.asset_choice import DriverData, driver_data, reference
from stac_latent.cube.grid.boxes import cell_box, pixel_box
from stac_latent.cube.grid.fusing import StackReader, is_stack
from stac_latent.cube.grid.lattice import lattice_offset
from stac_latent.cube.item_assets import decodable_assets, latent_assets
from stac_latent.cube.odc_private import StacAuxReader, StacMDParser
from stac_latent.cube.raw.band_reader import is_raw, read_raw
from stac_latent.cube.read.band_views import BandsAlone, NativeReader, view_of
from stac_latent.cube.read.embedding.cells import ChannelField, PlainReader
from stac_latent.cube.read.embedding.table import TableReader
from stac_latent.cube.read.physical import PhysicalSource
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.read.reduced import ReducedReader
from stac_latent.cube.read.resample import FieldSource, Roi, read_onto
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, FieldError, SourceWarning, StacLatentError, without_secrets
from stac_latent.system.links import shown
from stac_latent.window import Span, Window

__all__ = [
    "CellReader",
    "FieldReader",
    "LatentDriver",
    "LatentParser",
    "cells_for",
    "is_latent",
    "open_cells",
    "reader_for",
]

log = logging.getLogger(__name__)


class _Key:
    """A reference and its stamp, compared as text so that NaN nodata equals itself after pickling."""

    __slots__ = ("ref", "text")

    def __init__(self, ref: LatentRef, stamp: str) -> None:
        self.ref, self.text = ref, f"{ref.text}|{stamp}"

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text and self.ref.sign == other.ref.sign


def open_cells(ref: LatentRef) -> LatentReader | PlainReader:
    """Make the reader of an asset's cells; :func:`cells_for` keeps those that it made."""
    if ref.layout is None:
        return LatentReader(ref)
    return (TableReader if ref.layout.container == "parquet" else PlainReader)(ref)


@functools.lru_cache(maxsize=32)
def _open(key: _Key) -> LatentReader | PlainReader:
    return open_cells(key.ref)


def cells_for(ref: LatentRef, stamp: str = "") -> LatentReader | PlainReader:
    """Open the reader of an asset's cells: a latent of this package, or an embedding in its producer's container.

    Parameters as of :func:`reader_for`.
    """
    return _open(_Key(ref, stamp))


def reader_for(ref: LatentRef, stamp: str = "") -> LatentReader:
    """Open the reader of a latent asset; each process keeps the last 32 that it opened.

    Parameters
    ----------
    ref
        What to read.
    stamp
        Tells apart what was written to one place at different times (:func:`stac_latent.cube.item_assets.stamp_of`).
    """
    reader = cells_for(ref, stamp)
    if not isinstance(reader, LatentReader):
        raise FieldError(
            f"asset {ref.asset!r} of item {ref.item_id!r} is an embedding: it cannot be decoded to pixels; load it with upto='latent'"
        )
    return reader


def is_latent(driver_data: Any) -> bool:
    """Whether a source's ``driver_data`` is ours (raw sources carry none, or another driver's)."""
    return isinstance(driver_data, dict) and isinstance(driver_data.get("ref"), LatentRef)


class _Reader(abc.ABC):
    """What both readers share: the source, and what happens when it cannot be read."""

    def __init__(self, src: RasterSource, *, warn: bool = False) -> None:
        self._src, self._warn = src, warn
        self._data: DriverData = src.driver_data

    def read(
        self,
        cfg: RasterLoadParams,
        dst_geobox: GeoBox,
        *,
        dst: Array | None = None,
        selection: Any = None,
    ) -> tuple[Roi, Array]:
        """Pixels of the part of ``dst_geobox`` that the source reaches.

        Returns
        -------
        roi, array
            Part of ``dst_geobox`` and its pixels: ``(band, y, x)``, ``(y, x)`` for one plain band, or ``(y, x, band)`` where
            the source's dimensions begin so.
        """
        meta = self._src.meta
        last = self._src.band == 0 and meta is not None and len(meta.dims) > 2 and meta.ydim == 0
        if dst is not None:
            cfg = cfg.patch(dtype=dst.dtype.name)
        try:
            roi, pixels = self._read(cfg, dst_geobox, selection)
        except (StacLatentError, OSError, rasterio.errors.RasterioError) as exc:
            if cfg.fail_on_error:
                raise
            ref = self._data["ref"]
            _left_out(f"asset {ref.asset!r} of item {ref.item_id!r}", self._src, exc, warn=self._warn)
            roi, pixels = (slice(0, 0), slice(0, 0)), np.empty((1, 0, 0), cfg.dtype)
            if self._src.band == 0:
                pixels = np.empty((self._count(selection), 0, 0), cfg.dtype)
        if self._src.band != 0:
            pixels = pixels[0]
        elif last:
            pixels = np.moveaxis(pixels, 0, -1)
        if dst is None:
            return roi, pixels
        target = dst[roi] if last else dst[(..., *roi)]
        target[...] = pixels
        return roi, target

    @abc.abstractmethod
    def _read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, selection: Any) -> tuple[Roi, Array]: ...

    def _count(self, selection: Any) -> int:
        return len(_select(range(len(self._data["bands"])), selection))


class RawReader:
    """Reads a raw band, onto any grid."""

    def __init__(self, src: RasterSource, *, warn: bool = False) -> None:
        self._src, self._warn = src, warn

    def read(
        self,
        cfg: RasterLoadParams,
        dst_geobox: GeoBox,
        *,
        dst: Array | None = None,
        selection: Any = None,  # noqa: ARG002 - it is one band
    ) -> tuple[Roi, Array]:
        """Pixels (y, x) of the part of ``dst_geobox`` that the band reaches; as :meth:`FieldReader.read`."""
        try:
            roi, pixels = read_raw(self._src, cfg, dst_geobox)
        except (StacLatentError, OSError, rasterio.errors.RasterioError) as exc:
            ref = self._src.driver_data["raw"]
            what = f"raw asset {ref.asset!r} of item {ref.item.id!r}"
            if cfg.fail_on_error:
                if isinstance(exc, StacLatentError):
                    raise
                raise CatalogError(f"{what} cannot be read: {without_secrets(str(exc))}") from None
            _left_out(what, self._src, exc, warn=self._warn)
            roi, pixels = (slice(0, 0), slice(0, 0)), np.empty((0, 0), cfg.dtype)
        if dst is None:
            return roi, pixels
        target = dst[(..., *roi)]
        target[...] = pixels
        return roi, target


def _left_out(what: str, src: RasterSource, exc: Exception, *, warn: bool) -> None:
    """Say that a source is passed over: in a warning that names the Item, or in the log as the stock driver does."""
    if warn:
        text = f"{what} cannot be read, and is left out: {without_secrets(str(exc))}"
        warnings.warn(text, SourceWarning, stacklevel=3)
    else:
        log.warning("Ignoring read failure of %s: %s", shown(src.uri), without_secrets(str(exc)))


class FieldReader(_Reader):
    """Reads a latent decoded to pixels, onto any grid."""

    def _read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, selection: Any) -> tuple[Roi, Array]:
        reader = reader_for(self._data["ref"], self._data["stamp"])
        bands, grid = _select(self._data["bands"], selection), self._data["grid"]
        if beyond := [b + 1 for b in bands if not 0 <= b < len(reader.spec.bands)]:
            raise CatalogError(_no_band(self._data["ref"], beyond[0]))
        source: FieldSource = reader if grid == reader.grid else NativeReader(reader, grid)
        box = pixel_box(grid)
        if cfg.use_overviews and source is reader:
            coarser = ReducedReader.for_target(reader, dst_geobox, cfg.resampling)
            if coarser is not None:
                source, box = coarser, coarser.box
        if source is reader and self._src.band == 0:  # all bands that are wanted are here
            source = BandsAlone(reader)
        source = PhysicalSource(source) if self._data["physical"] else source
        return read_onto(source, box, bands, cfg, dst_geobox)


class CellReader(_Reader):
    """Reads dequantised latents; only onto grids whose cells are cells of the lattice."""

    def _read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, selection: Any) -> tuple[Roi, Array]:
        reader = cells_for(self._data["ref"], self._data["stamp"])
        cells = cell_box(reader.grid)
        dy, dx = lattice_offset(cells, dst_geobox)
        y0, y1 = max(0, dy), min(cells.shape.y, dy + dst_geobox.shape.y)
        x0, x1 = max(0, dx), min(cells.shape.x, dx + dst_geobox.shape.x)
        if y0 >= y1 or x0 >= x1:
            channels = _select(range(reader.spec.dimensions), selection)
            return (slice(0, 0), slice(0, 0)), np.empty((len(channels), 0, 0), cfg.dtype)
        latent = reader.read_latent(Window(Span(y0, y1), Span(x0, x1)))
        if selection is not None:
            latent = latent[_select(range(len(latent)), selection)]
        return (slice(y0 - dy, y1 - dy), slice(x0 - dx, x1 - dx)), latent.astype(cfg.dtype, copy=False)

    def _count(self, selection: Any) -> int:
        return len(_select(range(self._data["ref"].spec.dimensions), selection))


class ChannelReader(_Reader):
    """Reads dequantised vectors of an embedding, channel by channel, onto any grid."""

    def _read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, selection: Any) -> tuple[Roi, Array]:
        reader = cells_for(self._data["ref"], self._data["stamp"])
        channels = _select(range(reader.spec.dimensions), selection)
        if isinstance(reader, PlainReader):
            shrink = compute_reproject_roi(cell_box(reader.grid), dst_geobox).scale
            reader = cells_for(reader.coarser(shrink), self._data["stamp"])
        return read_onto(ChannelField(reader), cell_box(reader.grid), channels, cfg, dst_geobox)

    def _count(self, selection: Any) -> int:
        return len(_select(range(self._data["ref"].spec.dimensions), selection))


class LatentParser:
    """odc-loader's metadata parser: bands of latent assets beside those that the stock parser finds.

    Parameters
    ----------
    stac_cfg
        As ``odc.stac.load(stac_cfg=)``, for the raw assets.
    """

    def __init__(self, stac_cfg: dict[str, Any] | None = None) -> None:
        self._raw = StacMDParser(stac_cfg or {})

    def extract(self, md: Any) -> RasterGroupMetadata:
        """Bands and aliases of an Item."""
        raw = copy.copy(md)
        hidden = latent_assets(md)
        raw.assets = {k: a for k, a in md.assets.items() if k not in hidden}
        base = self._raw.extract(raw)
        bands, aliases = dict(base.bands), dict(base.aliases)
        for key in decodable_assets(md):
            for i, band in enumerate(reference(md, key).spec.bands, 1):
                nodata = None if band.is_complex else band.nodata  # odc-loader finds no NaN in complex pixels
                bands[key, i] = RasterBandMetadata(band.data_type, nodata, band.unit or "1")
                called = [n for n in dict.fromkeys((band.name, band.common_name)) if n is not None]
                for alias in (*called, *(f"{key}.{name}" for name in called)):
                    if alias not in raw.assets:
                        aliases[alias] = [*aliases.get(alias, []), (key, i)]
        return base.patch(bands=bands, aliases=aliases)

    def driver_data(self, md: Any, band_key: BandKey) -> Any:
        """Give what the workers need to read a band; None for a raw one."""
        key, index = band_key
        if key in decodable_assets(md):
            ref = reference(md, key)
            if not 1 <= index <= len(ref.spec.bands):
                raise CatalogError(_no_band(ref, index))
            view = view_of(ref, index - 1)
            return driver_data(md, view.ref, "field", [view.index], view.grid)
        return self._raw.driver_data(md, band_key)


class LatentDriver(RioDriver):
    """Stock rasterio driver that can also read latents.

    Parameters
    ----------
    md_parser
        Metadata parser; the default understands STAC Items with latent assets.
    aux_reader, dask_reader
        As of ``odc.loader.RioDriver``; the default reads tables that Items name, as odc-stac does.
    warn
        Whether sources that are passed over (``fail_on_error=False``) are named in a warning; else in the log.

    Examples
    --------
    >>> from odc.loader import reader_driver
    >>> type(reader_driver("stac_latent.cube.LatentDriver")).__name__
    'LatentDriver'
    """

    def __init__(
        self, md_parser: Any = None, aux_reader: Any = None, dask_reader: Any = None, *, warn: bool = False
    ) -> None:
        super().__init__(md_parser or LatentParser(), aux_reader or StacAuxReader(), dask_reader)
        self._warn = warn

    def open(self, src: RasterSource, ctx: Any) -> Any:
        """Make the reader of one source; the stock one if it is not a latent."""
        if is_stack(src.driver_data):
            return StackReader(src, functools.partial(self.open, ctx=ctx))
        if is_raw(src.driver_data):
            return RawReader(src, warn=self._warn)
        if not is_latent(src.driver_data):
            return super().open(src, ctx)
        data = cast("DriverData", src.driver_data)
        if data["upto"] == "channels":
            return ChannelReader(src, warn=self._warn)
        return (FieldReader if data["upto"] == "field" else CellReader)(src, warn=self._warn)


def _no_band(ref: LatentRef, number: int) -> str:
    names = ", ".join(f"{i} ({b.name})" for i, b in enumerate(ref.spec.bands, 1))
    return f"there is no band {number} in asset {ref.asset!r} of item {ref.item_id!r}; it has {names}"


def _select(values: Any, selection: Any) -> list[int]:
    if selection is None:
        return list(values)
    chosen = np.asarray(list(values))[selection]
    return [int(v) for v in np.atleast_1d(chosen)]
