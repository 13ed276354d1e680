"""What a raster file says of itself, in one opening."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import rasterio
from affine import Affine

from stac_latent.errors import CatalogError
from stac_latent.geo.crs import crs_text
from stac_latent.net.raster import open_raster
from stac_latent.system.links import href_of

__all__ = ["MEDIA", "Raster", "RasterBand", "read_raster"]

MEDIA = {
    "GTiff": "image/tiff; application=geotiff",
    "COG": "image/tiff; application=geotiff; profile=cloud-optimized",
    "JP2OpenJPEG": "image/jp2",
    "netCDF": "application/netcdf",
    "HDF5": "application/x-hdf5",
}
_MANY = 20_000
"""Bands of a file whose tags are read one by one."""
_SHARED_LIBRARY = (".nc", ".nc4", ".cdf", ".h5", ".hdf", ".grib", ".grib2", ".grb", ".grb2")
_ONE_AT_A_TIME = threading.Lock()
"""Two threads that open netCDF files may wait for each other for ever: one has GDAL's lock of the library, the other Python's."""
_GEOTIFF_PLACES = (Affine.identity(), Affine(1, 0, -0.5, 0, 1, -0.5))
"""Transforms of files that say nothing: with pixels counted from their corners, and from their centres."""


@dataclass(frozen=True, slots=True)
class RasterBand:
    """One band of a file."""

    data_type: str
    nodata: float | None
    scale: float
    offset: float
    unit: str | None
    description: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Raster:
    """A file."""

    path: Path
    driver: str
    shape: tuple[int, int]
    bands: tuple[RasterBand, ...]
    crs: str | None
    transform: Affine | None
    """None where the file does not say where its pixels lie."""
    points: bool
    """Whether ground control points or coefficients are all that says where it lies."""
    tags: Mapping[str, str]
    parts: tuple[str, ...]
    """Its subdatasets, as GDAL names them."""
    media_type: str | None

    @property
    def pixel(self) -> float:
        """Width of a pixel in units of the CRS; 0 where the file does not say."""
        t = self.transform
        return 0.0 if t is None else float((t.a**2 + t.d**2) ** 0.5)


def read_raster(path: Path, name: str | None = None) -> Raster:
    """Open a file, or the part of it that GDAL calls ``name``, and read what it says; its last pixel is read as well.

    Raises
    ------
    CatalogError
        If it is no raster, empty or cut off.
    GridError
        If it states a CRS that PROJ does not know.
    """
    if name is None and path.is_file() and not path.stat().st_size:
        raise CatalogError(f"{path} is empty (0 bytes); fetch or write it again")
    if name is None and path.is_dir():
        raise CatalogError(
            f"{path} is a folder of arrays (Zarr), which encode does not read; write what you mean as GeoTIFFs, for instance with xarray: "
            "dataset.rio.to_raster('2020-06-01_B04.tif')"
        )
    alone = _ONE_AT_A_TIME if path.suffix.lower() in _SHARED_LIBRARY else nullcontext()
    # A listing of the folder for each of its files would take longer than the files.
    with (
        alone,
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"),
        open_raster(href_of(path) if name is None else name) as src,
    ):
        return _read(path, src)


def _read(path: Path, src: rasterio.DatasetReader) -> Raster:
    if src.count and not src.subdatasets:
        _read_last_pixel(path, src)
    few = src.count <= _MANY
    bands = tuple(
        RasterBand(
            src.dtypes[i], src.nodatavals[i], float(src.scales[i]), float(src.offsets[i]), src.units[i] or None,
            src.descriptions[i] or None, src.tags(i + 1) if few else {},
        )
        for i in range(src.count)
    )  # fmt: skip
    placed = src.transform not in _GEOTIFF_PLACES
    crs = crs_text(src.crs) if src.crs else None
    layout = src.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
    shape = (int(src.height), int(src.width))
    tags = {**src.tags(ns="IMAGERY"), **src.tags()}
    return Raster(
        path, src.driver, shape, bands, crs, src.transform if placed else None, bool(src.gcps[0]) or bool(src.rpcs), tags,
        tuple(src.subdatasets), MEDIA.get("COG" if layout == "COG" else src.driver),
    )  # fmt: skip


def _read_last_pixel(path: Path, src: rasterio.DatasetReader) -> None:
    """What was cut off lacks its end."""
    window = rasterio.windows.Window(src.width - 1, src.height - 1, 1, 1)
    try:
        src.read(src.count, window=window)
    except rasterio.errors.RasterioError as exc:
        said = re.sub(r"\s+", " ", str(exc.__cause__ or exc))[:200]
        raise CatalogError(
            f"{path} opens, but its last pixel cannot be read ({said}); is it cut off? Fetch or write it again"
        ) from None
