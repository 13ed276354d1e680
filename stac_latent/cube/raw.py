"""What raw assets of remote Items may be: files whose pixels are in the file itself, at public addresses."""

from __future__ import annotations

import pystac

from stac_latent.access import asset_href, check_link, is_remote
from stac_latent.errors import CatalogError
from stac_latent.store.raster import open_raster

__all__ = ["check_raw_asset"]

_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "JPEG", "PNG", "netCDF", "HDF5", "ENVI")
"""Of remote Items: formats whose pixels are in the file itself."""


def check_raw_asset(item: pystac.Item, key: str) -> None:
    """Refuse an asset of a remote Item that leads to this machine, or whose pixels do (a VRT names files of its own)."""
    origin = item.get_self_href()
    if not is_remote(origin):
        return
    href = check_link(asset_href(item.assets[key]), origin)
    try:
        with open_raster(href) as src:
            driver = src.driver
    except CatalogError as exc:
        raise CatalogError(f"asset {key!r} of item {item.id!r} cannot be read: {exc}") from None
    if driver not in _DRIVERS:
        raise CatalogError(
            f"asset {key!r} of item {item.id!r} is read by GDAL's {driver} driver; remote items may hold {', '.join(_DRIVERS)}: "
            "download it and encode the copy if you trust it"
        )
