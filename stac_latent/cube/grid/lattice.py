"""The lattice of cells: which grids are made of whole cells, and which one an area asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from odc.geo import CRS, res_
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from stac_latent.cube.grid.areas import Area, geobox_like
from stac_latent.cube.grid.boxes import cell_box, to_pixels, to_world
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import GridError
from stac_latent.geo.crs import crs_label

__all__ = [
    "TOLERANCE",
    "cell_geobox",
    "common_lattice",
    "describe_grid",
    "describe_lattice",
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
        in_cells = np.stack(to_pixels(cells, *to_world(target, *corners.T)), axis=1)
        first = np.rint(in_cells[0])
        if np.abs(in_cells - corners - first).max() < TOLERANCE:
            return int(first[1]), int(first[0])
    raise GridError(f"{describe_grid(target)} is off the lattice of the latents. {describe_lattice(cells)}")


def describe_grid(box: GeoBox) -> str:
    """CRS, resolution and origin of a grid, in words."""
    res = box.resolution
    left, top = to_world(box, 0, 0)
    return f"the grid with CRS {crs_label(box.crs)}, resolution (y, x) ({res.y:g}, {res.x:g}), origin (x, y) ({left:.10g}, {top:.10g})"


def describe_lattice(cells: GeoBox) -> str:
    """Which grids would do, in words, with an example."""
    res = cells.resolution
    left, top = to_world(cells, 0, 0)
    bounds = tuple(float(f"{v:.10g}") for v in cells.boundingbox)
    return (
        "Latents are never resampled: a grid must be made of whole cells, that is CRS "
        f"{crs_label(cells.crs)}, resolution (y, x) ({res.y:g}, {res.x:g}), origin (x, y) at ({left:.10g}, {top:.10g}) plus whole "
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


def cell_geobox(cells: GeoBox, refs: Sequence[LatentRef], area: Area) -> GeoBox:
    """Whole cells that were asked for, of an area those that the Items reach; everything when nothing was.

    Raises
    ------
    GridError
        If the grid is off the lattice, or the area and the Items lie apart.
    """
    grid = area.geobox if area.like is None else geobox_like(area.like)
    if grid is not None:
        dy, dx = lattice_offset(cells, grid)
        return _cells_between(cells, dy, dy + grid.shape.y, dx, dx + grid.shape.x)
    if area.crs is not None and CRS(area.crs) != cells.crs:
        raise GridError(f"crs={area.crs} is not that of the latents. {describe_lattice(cells)}")
    if area.resolution is not None:
        asked, have = res_(area.resolution), cells.resolution
        if max(abs(asked.x / have.x - 1), abs(asked.y / have.y - 1)) > TOLERANCE:
            raise GridError(
                f"resolution (y, x) ({asked.y:g}, {asked.x:g}) is not that of the latents. {describe_lattice(cells)}"
            )
    boxes = [(*lattice_offset(cells, cell_box(s.grid)), *cell_box(s.grid).shape.yx) for s in refs]
    whole = (
        min(y for y, *_ in boxes),
        min(x for _, x, *_ in boxes),
        max(y + h for y, _, h, _ in boxes),
        max(x + w for _, x, _, w in boxes),
    )
    if not area.parts:
        return _cells_between(cells, whole[0], whole[2], whole[1], whole[3])
    spans = [
        span for part in area.parts if (span := _common(whole, _cells_of(cells, part, whole))) is not None
    ]
    if not spans:
        raise GridError(
            "the area that was asked for and the cells of the items lie apart; search for the items of the area first "
            "(stac_latent.search with the same bbox or intersects)"
        )
    return _cells_between(
        cells,
        min(s[0] for s in spans),
        max(s[2] for s in spans),
        min(s[1] for s in spans),
        max(s[3] for s in spans),
    )


_Span = tuple[int, int, int, int]
"""First row and column, and those after the last."""


def _cells_of(cells: GeoBox, part: Geometry, whole: _Span) -> _Span:
    """Cells that a part of an area touches; ``whole`` where it reaches beyond what the CRS can show."""
    step = max(part.boundingbox.span_x, part.boundingbox.span_y) / 64
    inside = (part.segmented(step) if step else part).to_crs(str(cells.crs))
    west, south, east, north = inside.boundingbox.bbox
    xs, ys = to_pixels(cells, np.array([west, east]), np.array([north, south]))
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        return whole
    return (
        math.floor(min(ys) + TOLERANCE),
        math.floor(min(xs) + TOLERANCE),
        math.ceil(max(ys) - TOLERANCE),
        math.ceil(max(xs) - TOLERANCE),
    )


def _common(a: _Span, b: _Span) -> _Span | None:
    overlap = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return overlap if overlap[0] < overlap[2] and overlap[1] < overlap[3] else None


def _cells_between(cells: GeoBox, y0: int, y1: int, x0: int, x1: int) -> GeoBox:
    return GeoBox((y1 - y0, x1 - x0), cells.translate_pix(x0, y0).transform, cells.crs)
