"""Raw bands beside decoded ones in one cube: as the stock driver reads them, or in physical units by the rules of a raw asset."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pystac
from odc.geo.geobox import GeoBox
from odc.loader import RasterSource, RioReader
from odc.loader.types import RasterLoadParams

from stac_latent.aliases import Array
from stac_latent.cube.odc_private import LocalContext
from stac_latent.cube.raw.assets import Header, read_header
from stac_latent.cube.raw.contract import Facts, agreed_bands, agreed_grid, agreed_values, is_data
from stac_latent.cube.raw.named import RawBand, RawRef
from stac_latent.cube.raw.pixels import RasterFile
from stac_latent.cube.raw.units import with_sentinel2_offset
from stac_latent.cube.read.physical import physical_band, to_physical
from stac_latent.cube.read.resample import Roi, read_onto
from stac_latent.net.fetch import signed
from stac_latent.net.raster import gdal_name
from stac_latent.spec import Band, Spec
from stac_latent.system.links import asset_href, is_http, is_remote
from stac_latent.window import Window

__all__ = ["FileSource", "RawData", "file_source", "is_raw", "raw_data", "read_raw"]


class RawData(TypedDict):
    """What odc-loader carries to a worker for one raw band."""

    subdataset: str
    """Digest of everything below, for dask's token."""
    raw: RawRef
    physical: bool


def raw_data(band: RawBand, *, physical: bool) -> RawData:
    """Pack what the driver is to read."""
    return {"subdataset": f"{band.ref.digest}/{physical}", "raw": band.ref, "physical": physical}


def is_raw(driver_data: Any) -> bool:
    """Whether a source's ``driver_data`` is that of a raw band."""
    return isinstance(driver_data, dict) and isinstance(driver_data.get("raw"), RawRef)


def read_raw(src: RasterSource, cfg: RasterLoadParams, dst: GeoBox) -> tuple[Roi, Array]:
    """Pixels (y, x) of the part of a grid that the band reaches.

    Raises
    ------
    CatalogError, GridError
        If file and Item contradict each other, or the file cannot be read.
    rasterio.errors.RasterioError
        If the stock reader cannot read it.
    """
    data: RawData = src.driver_data
    ref = data["raw"]
    if data["physical"]:
        source = file_source(ref)
        roi, pixels = read_onto(source, source.file.box, [0], cfg, dst)
        return roi, pixels[0]
    if is_remote(ref.item.get_self_href()):
        _header(ref)  # which refuses files that lead to this machine
    stock = RioReader(src.patch(uri=gdal_name(_address(ref)), band=ref.row["index"]), LocalContext())
    return stock.read(cfg.patch(fail_on_error=True), dst)


@dataclass(frozen=True)
class FileSource:
    """One band of a file times scale plus offset, NaN where it has no data; a :class:`~stac_latent.cube.read.resample.FieldSource`."""

    file: RasterFile
    index: int
    facts: Facts
    """Values of the band, as file and Item agree on them."""
    masked: bool
    """Whether masks of the file say which pixels hold data."""
    spec: Spec
    notes: tuple[str, ...]
    """Where Item and file disagree, in words."""

    def read_field(self, window: Window | None = None, bands: Sequence[int] | None = None) -> Array:  # noqa: ARG002 - it has one
        """``(1, y, x)`` float32 or complex64 of a window."""
        own = Window.whole(self.file.box.shape.yx) if window is None else window
        stored = self.file.read([self.index], own, self.facts.data_type)
        missing = np.zeros(stored.shape, bool)
        for value in self.facts.missing:
            missing |= stored == stored.dtype.type(value)
        if self.masked:
            missing |= ~self.file.read_mask(self.index, own)
        scale = 1.0 if self.facts.scale is None else self.facts.scale
        band = Band("raw", self.facts.data_type, None, scale, self.facts.offset or 0.0)
        out = to_physical(stored, band, np.empty(stored.shape, self.spec.bands[0].data_type))
        out[missing] = np.nan
        return out


def file_source(ref: RawRef) -> FileSource:
    """One raw band of a file, by the rules of a raw asset (:mod:`stac_latent.cube.raw.contract`)."""
    item, key, row, header = ref.item, ref.asset, ref.row, _header(ref)
    agreed_bands(item, key, row, header)
    own = header.bands[row["index"] - 1]
    band = Band(ref.name, own.data_type)
    facts = with_sentinel2_offset(item, row, band, agreed_values(item, ref.name, row["meta"], own))
    box, notes = agreed_grid(item, key, header)
    spec: Spec = Spec("codec", "", 1, (1, 1), (0, 0), (physical_band(band),))
    masked = own.masked and not is_data(item, key, header)
    return FileSource(
        RasterFile(_address(ref), box), row["index"], facts, masked, spec, (*notes, *facts.notes)
    )


@functools.lru_cache(maxsize=256)
def _header(ref: RawRef) -> Header:
    """What the file says; its address, which may be signed for a while only, is not of use."""
    small = pystac.Item(ref.item.id, None, None, ref.item.datetime, {})
    small.set_self_href(ref.item.get_self_href())
    asset = ref.item.assets[ref.asset].clone()
    asset.href = _address(ref)
    small.add_asset(ref.asset, asset)
    return read_header(small, ref.asset)


def _address(ref: RawRef) -> str:
    href = asset_href(ref.item.assets[ref.asset])
    return signed(href, ref.sign) if ref.sign is not None and is_http(href) else href
