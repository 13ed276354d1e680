"""Where cells lie on the Earth: polygons in longitude and latitude of cells of any grid, and cells of any region."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from stac_latent.errors import GridError
from stac_latent.geo.antimeridian import split_at_antimeridian
from stac_latent.geo.crs import crs_label
from stac_latent.spec import Grid
from stac_latent.window import Span, Window

__all__ = ["cells_in", "footprints"]

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-4
"""An edge may deviate from the true curve by this share of its length before it gets more points."""
MOST_SEGMENTS = 32
STEP = 2.0**-27
"""Coordinates are rounded to this many degrees (below 1 mm), which lets them compress to half."""


def _to_lonlat(grid: Grid) -> Transformer:
    return Transformer.from_crs(
        CRS.from_user_input(grid.crs), CRS.from_user_input("OGC:CRS84"), always_xy=True
    )


def _corners(
    transform: tuple[float, ...], row: Ints, col: Ints, size: tuple[int, int], segments: int
) -> Floats:
    """(n, 4 * segments, 2): x, y along the edges of boxes of cells, counter-clockwise in the CRS."""
    a, b, c, d, e, f = transform
    t = np.arange(segments) / segments
    zero, one = np.zeros(segments), np.ones(segments)
    u, v = np.concatenate([t, one, 1 - t, zero]), np.concatenate([zero, t, one, 1 - t])
    if a * e - b * d < 0:
        u, v = np.roll(u[::-1], 1), np.roll(v[::-1], 1)
    i, j = col[:, None] + u * size[1], row[:, None] + v * size[0]
    return np.stack([a * i + b * j + c, d * i + e * j + f], axis=-1)


def _segments(ring: Floats, geographic: bool) -> Ints:
    """Segments for each edge of rings that were sampled with two: a power of two, by the chord's deviation."""
    if geographic:
        widest = np.abs(ring - np.roll(ring, 2, axis=1)).max(axis=(1, 2))
        needed = np.ceil(widest / 90)
    else:
        start, middle, end = ring[:, ::2], ring[:, 1::2], np.roll(ring[:, ::2], -1, axis=1)
        shrink = np.cos(np.radians(start[..., 1:]))
        chord, bend = end - start, middle - start
        for step in (chord, bend):
            step[..., 0] -= 360 * np.round(step[..., 0] / 360)
            step[..., :1] *= shrink
        length = np.linalg.norm(chord, axis=-1)
        deviation = np.linalg.norm(bend - chord / 2, axis=-1)
        needed = np.sqrt((deviation / np.maximum(length, 1e-12)).max(axis=1) / TOLERANCE)
    return np.asarray(2 ** np.ceil(np.log2(np.clip(needed, 1, MOST_SEGMENTS))), dtype=np.int64)


def footprints(grid: Grid, row: Ints, col: Ints, size: tuple[int, int] = (1, 1)) -> npt.NDArray[np.object_]:
    """Polygons in OGC:CRS84 of boxes of cells.

    Parameters
    ----------
    grid
        Grid of the latent; cells are those of ``grid.cell_transform``.
    row, col
        (n,) indices of the first (top left) cell of each box.
    size
        Cells (y, x) of each box.

    Returns
    -------
    numpy.ndarray
        (n,) shapely polygons, counter-clockwise, with longitudes in [-180, 180]; a MultiPolygon where a box crosses
        the antimeridian. Edges get more points where they bend, so that none is off by more than 1e-4 of its length.

    Raises
    ------
    GridError
        If the CRS is unknown, or a cell has no longitude and latitude.

    Examples
    --------
    >>> grid = Grid("EPSG:4326", (1, 0, 10, 0, -1, 50), (4, 4), (2, 2))
    >>> footprints(grid, np.array([0]), np.array([1]))[0].bounds
    (12.0, 48.0, 14.0, 50.0)
    """
    try:
        transformer = _to_lonlat(grid)
    except ProjError as exc:
        raise GridError(
            f"unknown CRS {grid.crs!r}: cells cannot be placed; proj:code is e.g. 'EPSG:32633'"
        ) from exc
    geographic = transformer.source_crs is not None and transformer.source_crs.is_geographic
    row, col = np.asarray(row), np.asarray(col)

    def rings(which: npt.NDArray[Any], segments: int) -> Floats:
        xy = _corners(grid.cell_transform, row[which], col[which], size, segments)
        found = np.stack(transformer.transform(xy[..., 0], xy[..., 1]), axis=-1)
        if not np.isfinite(found).all():
            raise GridError(
                f"cells of the grid in {crs_label(grid.crs)} have no longitude and latitude; check proj:transform"
            )
        return found

    probe = _corners(grid.cell_transform, row, col, size, 2) if geographic else rings(np.arange(len(row)), 2)
    segments = _segments(probe, geographic)
    out = np.empty(len(row), dtype=object)
    for number in np.unique(segments):
        which = np.flatnonzero(segments == number)
        out[which] = _polygons(rings(which, int(number)), projected=not geographic)
    return out


def _polygons(ring: Floats, *, projected: bool) -> npt.NDArray[np.object_]:
    """Polygons of rings (n, m, 2) in degrees; the few that are special are split one by one."""
    ring = np.round(ring / STEP) * STEP
    lon, lat = ring[..., 0], ring[..., 1]
    lon -= 360 * np.floor(((lon.min(axis=1) + lon.max(axis=1)) / 2 + 180) / 360)[:, None]
    jumps = np.abs(np.diff(lon, axis=1, append=lon[:, :1])) > 180
    beyond = (np.abs(lon) > 180) | (np.abs(lat) > (90 - 1e-9 if projected else 90))
    special = (jumps | beyond).any(axis=1)
    out = np.empty(len(ring), dtype=object)
    out[~special] = shapely.polygons(ring[~special])
    for i in np.flatnonzero(special):
        out[i] = split_at_antimeridian(lon[i], lat[i], projected=projected)
    return out


def cells_in(grid: Grid, region: shapely.Geometry) -> Window | None:
    """Smallest window of cells that holds all cells that a region in OGC:CRS84 may touch; None if none.

    Examples
    --------
    >>> grid = Grid("EPSG:4326", (1, 0, 10, 0, -1, 50), (40, 40), (2, 2))
    >>> cells_in(grid, shapely.box(20.5, 45, 21, 47))
    ((1, 3), (5, 6))
    """
    ny, nx = grid.cells
    whole = footprints(grid, np.array([0]), np.array([0]), (ny, nx))[0]
    overlap = shapely.intersection(whole, region)
    if overlap.is_empty:
        return None
    to_grid = Transformer.from_crs("OGC:CRS84", CRS.from_user_input(grid.crs), always_xy=True)
    shifts = (-360.0, 0.0, 360.0) if CRS.from_user_input(grid.crs).is_geographic else (0.0,)
    a, b, c, d, e, f = grid.cell_transform
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    windows = []
    for part in shapely.get_parts(overlap):
        west, south, east, north = part.bounds
        wide = (
            west - STEP,
            max(south - STEP, -90.0),
            east + STEP,
            min(north + STEP, 90.0),
        )  # footprints are rounded
        box = to_grid.transform_bounds(*wide, densify_pts=21)
        for shift in shifts:
            x0, y0, x1, y1 = box[0] + shift, box[1], box[2] + shift, box[3]
            corners = np.array([[x0, y0], [x0, y1], [x1, y0], [x1, y1]]) - [c, f]
            index = corners @ inverse.T
            windows.append([index[:, 1].min(), index[:, 1].max(), index[:, 0].min(), index[:, 0].max()])
    if not np.isfinite(windows).all():
        return Window.whole((ny, nx))
    inside = [w for w in windows if w[1] > 0 and w[0] < ny and w[3] > 0 and w[2] < nx]
    if not inside:
        return None
    low, high = np.floor(np.min(inside, axis=0)), np.ceil(np.max(inside, axis=0))
    return Window(
        Span(int(np.clip(low[0], 0, ny)), int(np.clip(high[1], 0, ny))),
        Span(int(np.clip(low[2], 0, nx)), int(np.clip(high[3], 0, nx))),
    )
