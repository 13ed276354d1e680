"""The lattice of cells: which grids are made of whole cells, and which one an area asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from odc.geo import CRS, geom, res_
from odc.geo.geobox import GeoBox
from odc.stac._mdtools import _normalize_geometry

from stac_latent.cube.contract import LatentRef
from stac_latent.cube.refs import cell_box, to_pixels, to_world
from stac_latent.errors import GridError

__all__ = [
    "TOLERANCE",
    "cell_geobox",
    "check_area",
    "common_lattice",
    "describe_grid",
    "describe_lattice",
    "geobox_like",
    "lattice_offset",
]

TOLERANCE = 1e-3
"""Part of a cell by which a grid may miss the lattice through rounding."""


def lattice_offset(cells: GeoBox, target: GeoBox) -> tuple[int, int]:
    """Row and column of the lattice at which a grid of whole cells begins (either may be negative).

    Raises
    ------
    GridError
        If the grid is not made of cells of the lattice; the message says which grids are.
    """
    if target.crs == cells.crs:
        ny, nx = target.shape
        corners = np.array([[0, 0], [nx, 0], [0, ny]], float)
        found = np.stack(to_pixels(cells, *to_world(target, *corners.T)), axis=1)
        first = np.rint(found[0])
        if np.abs(found - corners - first).max() < TOLERANCE:
            return int(first[1]), int(first[0])
    raise GridError(f"{describe_grid(target)} is off the lattice of the latents. {describe_lattice(cells)}")


def describe_grid(box: GeoBox) -> str:
    """CRS, resolution and origin of a grid, in words."""
    res = box.resolution
    left, top = to_world(box, 0, 0)
    return f"the grid with CRS {box.crs}, resolution (y, x) ({res.y:g}, {res.x:g}), origin (x, y) ({left:.10g}, {top:.10g})"


def describe_lattice(cells: GeoBox) -> str:
    """Which grids would do, in words, with an example."""
    res = cells.resolution
    left, top = to_world(cells, 0, 0)
    bounds = tuple(float(f"{v:.10g}") for v in cells.boundingbox)
    return (
        "Latents are never resampled: a grid must be made of whole cells, that is CRS "
        f"{cells.crs}, resolution (y, x) ({res.y:g}, {res.x:g}), origin (x, y) at ({left:.10g}, {top:.10g}) plus whole "
        f"cells; for instance GeoBox.from_bbox({bounds}, {str(cells.crs)!r}, shape={tuple(cells.shape)}), or bbox= alone, "
        "which is widened to whole cells. Other grids load with upto='field', or for embeddings with resampling="
    )


def common_lattice(refs: Sequence[LatentRef]) -> GeoBox:
    """Cells of the first source, on whose lattice all others must lie.

    Raises
    ------
    GridError
        If two refs lie on different lattices; both are described.
    """
    first = refs[0]
    for other in refs[1:]:
        try:
            lattice_offset(cell_box(first.grid), cell_box(other.grid))
        except GridError as exc:
            raise GridError(
                f"items {first.item_id!r} and {other.item_id!r} lie on different lattices: {describe_grid(cell_box(first.grid))}, "
                f"and {describe_grid(cell_box(other.grid))}; load them apart, or decode with upto='field'"
            ) from exc
    return cell_box(first.grid)


def check_area(**given: Any) -> None:
    """Check that at most one argument says where to load, and that a whole grid stands alone.

    Raises
    ------
    GridError
        If two arguments contradict; both are named.
    """
    names = [k for k, v in given.items() if v is not None]
    places = [n for n in names if n in ("bbox", "geobox", "like", "geopolygon", "intersects")]
    if len(places) > 1:
        raise GridError(f"{' and '.join(places)} were given; each says where to load: keep one")
    if places and places[0] in ("geobox", "like") and len(names) > 1:
        rest = ", ".join(n for n in names if n not in places)
        raise GridError(
            f"{places[0]}= is a whole grid and was given with {rest}: leave {rest} out, or give bbox= instead"
        )


def geobox_like(like: Any) -> GeoBox:
    """Take the grid of a GeoBox, or of georeferenced xarray data.

    Raises
    ------
    GridError
        If there is no georeference.
    """
    box = like if isinstance(like, GeoBox) else getattr(getattr(like, "odc", None), "geobox", None)
    if not isinstance(box, GeoBox):
        raise GridError(
            f"like= has no grid: got {type(like).__name__} without coordinates and CRS; give a GeoBox, or data that "
            "stac_latent.load or odc.stac.load returned"
        )
    return box


def cell_geobox(
    cells: GeoBox,
    refs: Sequence[LatentRef],
    *,
    geobox: GeoBox | None,
    like: Any,
    bbox: tuple[float, float, float, float] | None,
    area: Any,
    crs: Any,
    resolution: Any,
) -> GeoBox:
    """Whole cells that were asked for; everything when nothing was."""
    if like is not None:
        geobox = geobox_like(like)
    if geobox is not None:
        dy, dx = lattice_offset(cells, geobox)
        return _cells_between(cells, dy, dy + geobox.shape.y, dx, dx + geobox.shape.x)
    if crs is not None and CRS(crs) != cells.crs:
        raise GridError(f"crs={crs} is not that of the latents. {describe_lattice(cells)}")
    if resolution is not None:
        asked, have = res_(resolution), cells.resolution
        if max(abs(asked.x / have.x - 1), abs(asked.y / have.y - 1)) > TOLERANCE:
            raise GridError(
                f"resolution (y, x) ({asked.y:g}, {asked.x:g}) is not that of the latents. {describe_lattice(cells)}"
            )
    if area is None and bbox is not None:
        area = geom.box(*bbox, "EPSG:4326")
    if area is None:
        boxes = [(*lattice_offset(cells, cell_box(s.grid)), *cell_box(s.grid).shape.yx) for s in refs]
        bottom, right = max(y + h for y, _, h, _ in boxes), max(x + w for _, x, _, w in boxes)
        return _cells_between(cells, min(b[0] for b in boxes), bottom, min(b[1] for b in boxes), right)
    polygon = _normalize_geometry(area)
    step = max(polygon.boundingbox.span_x, polygon.boundingbox.span_y) / 64
    inside = polygon.segmented(step).to_crs(str(cells.crs))
    west, south, east, north = inside.boundingbox.bbox
    xs, ys = to_pixels(cells, np.array([west, east]), np.array([north, south]))
    return _cells_between(
        cells,
        math.floor(min(ys) + TOLERANCE),
        math.ceil(max(ys) - TOLERANCE),
        math.floor(min(xs) + TOLERANCE),
        math.ceil(max(xs) - TOLERANCE),
    )


def _cells_between(cells: GeoBox, y0: int, y1: int, x0: int, x1: int) -> GeoBox:
    return GeoBox((y1 - y0, x1 - x0), cells.translate_pix(x0, y0).transform, cells.crs)
