"""Where a raw file lies, for odc-stac, and raw files in another place than their own: where an Item says that they lie."""

from __future__ import annotations

from datetime import UTC, datetime

import pystac
import rasterio
import rasterio.errors
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from stac_latent.errors import GridError
from stac_latent.extension.schemas import PROJ_URI
from stac_latent.spec import Grid

__all__ = ["crs_of", "moved_file", "plain_item"]


def moved_file(href: str, crs: CRS, transform: Affine) -> MemoryFile:
    """A virtual raster with the pixels of a file and another grid.

    Parameters
    ----------
    href
        What GDAL opens.
    crs, transform
        Where the pixels lie.

    Returns
    -------
    rasterio.io.MemoryFile
        Its ``name`` is what GDAL opens, as long as this object lives.
    """
    file = MemoryFile(ext=".vrt")
    rasterio.shutil.copy(href, file.name, driver="VRT")
    with rasterio.open(file.name, "r+") as dst:
        dst.crs, dst.transform = crs, transform
    return file


def plain_item(href: str, crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> pystac.Item:
    """Item of one file, its asset ``band``, with nothing but where its pixels (y, x) lie."""
    grid = {"proj:shape": list(shape), "proj:transform": list(transform)[:6]}
    known = {} if crs is None else {"proj:wkt2": crs.to_wkt()}
    item = pystac.Item("raw", None, None, datetime(2000, 1, 1, tzinfo=UTC), grid | known, collection="raw")
    item.stac_extensions.append(PROJ_URI)
    item.add_asset("band", pystac.Asset(href, media_type="image/tiff", roles=["data"]))
    return item


def crs_of(grid: Grid) -> CRS:
    """CRS of a grid; :class:`GridError` where GDAL does not know it."""
    try:
        return CRS.from_user_input(grid.crs)
    except rasterio.errors.CRSError as exc:
        raise GridError(
            f"{grid.crs[:200]!r} is not a CRS that GDAL knows; expected such as 'EPSG:32633', or proj:wkt2"
        ) from exc
