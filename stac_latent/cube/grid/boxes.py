"""A grid's pixels and cells as odc-geo has them, and the way between pixels and the world."""

from __future__ import annotations

from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent.errors import GridError
from stac_latent.spec import Grid

__all__ = ["cell_box", "pixel_box", "to_pixels", "to_world"]


def pixel_box(grid: Grid) -> GeoBox:
    """Give the grid's pixels as an odc-geo GeoBox.

    Raises
    ------
    GridError
        If the CRS cannot be understood.
    """
    try:
        return GeoBox(grid.shape, Affine(*grid.transform), grid.crs)
    except Exception as exc:
        raise GridError(
            f"proj:code {grid.crs!r} is not a CRS that PROJ knows; expected such as 'EPSG:32633', or proj:wkt2"
        ) from exc


def cell_box(grid: Grid) -> GeoBox:
    """Give the grid's cells as an odc-geo GeoBox; errors as :func:`pixel_box`."""
    return pixel_box(grid.cell_grid())


def to_world(box: GeoBox, x: Any, y: Any) -> tuple[Any, Any]:
    """Map pixel coordinates of a GeoBox to its CRS; arrays or numbers."""
    convert: Any = box.pix2wld
    px, py = convert(x, y)
    return px, py


def to_pixels(box: GeoBox, x: Any, y: Any) -> tuple[Any, Any]:
    """Map coordinates in a GeoBox's CRS to its pixels; arrays or numbers."""
    convert: Any = box.wld2pix
    px, py = convert(x, y)
    return px, py
