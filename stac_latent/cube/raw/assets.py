"""What the file of a raw asset says of itself: types, nodata, scales, grid, masks; and which files remote Items may name."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pystac
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags

from stac_latent.errors import CatalogError, FieldError
from stac_latent.net.raster import open_raster
from stac_latent.spec import DATA_TYPES
from stac_latent.system.links import asset_href, check_link, is_remote

__all__ = ["FileBand", "Header", "check_raw_asset", "read_header"]

_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "JPEG", "PNG", "netCDF", "HDF5", "ENVI")
"""Of remote Items: formats whose pixels are in the file itself."""
_READ_AS = {"complex_int16": "complex64"}
"""Types of files that rasterio reads as another; it names GDAL's CInt32 as what it reads it as."""


@dataclass(frozen=True)
class FileBand:
    """One band as the file has it."""

    data_type: str
    nodata: float | None
    scale: float
    offset: float
    unit: str | None
    alpha: bool
    """Whether the file says that this band is the opacity of the others."""
    masked: bool
    """Whether a mask (beside the file, in it, or an alpha band) says which pixels hold data."""


@dataclass(frozen=True)
class Header:
    """What opening a raster tells, before a pixel is read."""

    href: str
    bands: tuple[FileBand, ...]
    shape: tuple[int, int]
    """Pixels (y, x)."""
    crs: CRS | None
    transform: Affine | None
    """None where the file says nothing of its place."""
    points: bool
    """Whether ground control points are all that it says."""


def check_raw_asset(item: pystac.Item, key: str) -> None:
    """Refuse an asset of a remote Item that leads to this machine, or whose pixels do (a VRT names files of its own)."""
    if is_remote(item.get_self_href()):
        read_header(item, key)


def read_header(item: pystac.Item, key: str) -> Header:
    """Open the file of an asset and read its header.

    An asset of a remote Item may not lead to this machine, nor may its pixels (a VRT names files of its own).

    Raises
    ------
    CatalogError
        If it cannot be read, or leads where it may not.
    FieldError
        If it holds a type that is none of STAC's numbers.
    """
    origin, href = item.get_self_href(), asset_href(item.assets[key])
    if is_remote(origin):
        href = check_link(href, origin)
    name = f"asset {key!r} of item {item.id!r}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with open_raster(href) as src:
                driver, header = src.driver, _header(src, href, name)
    except CatalogError as exc:
        raise CatalogError(f"{name} cannot be read: {exc}") from None
    if is_remote(origin) and driver not in _DRIVERS:
        raise CatalogError(
            f"{name} is read by GDAL's {driver} driver; remote items may hold {', '.join(_DRIVERS)}: "
            "download it and encode the copy if you trust it"
        )
    return header


def _header(src: rasterio.DatasetReader, href: str, name: str) -> Header:
    bands = []
    rows = zip(
        src.dtypes, src.nodatavals, src.scales, src.offsets, src.units, src.colorinterp, src.mask_flag_enums, strict=True
    )  # fmt: skip
    for dtype, nodata, scale, offset, unit, meaning, flags in rows:
        data_type = _READ_AS.get(dtype, dtype)
        if data_type not in DATA_TYPES:
            raise FieldError(f"{name} holds {dtype} values; bands are of {', '.join(sorted(DATA_TYPES))}")
        masked = not {MaskFlags.all_valid, MaskFlags.nodata} & set(flags)
        bands.append(
            FileBand(str(np.dtype(data_type)), nodata, scale, offset, unit or None, meaning == ColorInterp.alpha, masked)
        )  # fmt: skip
    placed = not src.transform.is_identity
    points = not placed and bool(src.gcps[0] or src.rpcs)
    return Header(href, tuple(bands), src.shape, src.crs or None, src.transform if placed else None, points)
