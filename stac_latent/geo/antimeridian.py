"""Geometries in longitude and latitude where these jump: split at 180 degrees, closed round a pole, brought into -180 to 180."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
import shapely.affinity
from shapely.geometry.base import BaseMultipartGeometry

__all__ = ["split_at_antimeridian", "to_lonlat", "within_180"]

Floats = npt.NDArray[np.float64]
Shapes = npt.NDArray[np.object_]
Turn = Callable[[Any, Any], tuple[Any, Any]]
"""From x and y of a CRS to longitude and latitude."""

_WORLD = shapely.box(-180, -90, 180, 90)
_SEGMENTS = 64
"""Parts that the extent of a geometry is cut into before its jumps are looked at: longer edges may go round the Earth."""


def split_at_antimeridian(
    lon: Floats, lat: Floats, *, projected: bool = True
) -> shapely.Polygon | shapely.MultiPolygon:
    """Polygon in [-180, 180] of one ring (m,) that may cross the antimeridian or hold a pole.

    Neighbouring points are less than 180 degrees of longitude apart. In a ring of a ``projected`` CRS a vertex on a
    pole is one point of the map; otherwise it is a point of the parallel at 90 degrees, with a longitude of its own.
    """
    points: list[tuple[float, float]] = []
    for i, (x, y) in enumerate(zip(lon, lat, strict=True)):
        if (
            projected and abs(y) > 90 - 1e-9
        ):  # a pole has every longitude: arrive on one meridian, leave on another
            points += [(lon[i - 1], y), (lon[(i + 1) % len(lon)], y)]
        else:
            points.append((x, y))
    ring = np.array([*points, points[0]])
    step = np.diff(ring[:, 0])
    ring[1:, 0] = ring[0, 0] + np.cumsum(step - 360 * np.round(step / 360))
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # once round the Earth: close over the pole inside
        pole = np.copysign(90.0, ring[:, 1].mean())
        ring = np.vstack([ring, [ring[-1, 0], pole], [ring[0, 0], pole]])
    turns = np.floor((ring[:, 0].min() + 180) / 360), np.ceil((ring[:, 0].max() - 180) / 360)
    parts = [
        shapely.intersection(shapely.make_valid(shapely.polygons(ring - [360 * t, 0])), _WORLD)
        for t in np.arange(turns[0], turns[1] + 1)
    ]
    area = [p for p in shapely.get_parts(shapely.union_all(parts)) if p.geom_type == "Polygon"]
    rings = [shapely.geometry.polygon.orient(p) for p in area]
    return rings[0] if len(rings) == 1 else shapely.MultiPolygon(rings)


def to_lonlat(shapes: Shapes, turn: Turn, *, projected: bool) -> Shapes:
    """Geometries (n,) of another CRS in longitude and latitude.

    Parameters
    ----------
    shapes
        Of any type; None and what is empty stay.
    turn
        The transformation of coordinates.
    projected
        Whether the CRS is a map: neighbouring points of an outline are near each other on the Earth, so that an outline whose
        longitudes jump crosses 180 degrees. Edges in degrees go the way that their longitudes go.

    Returns
    -------
    numpy.ndarray
        Longitudes lie in [-180, 180]; what crosses 180 degrees has several parts. Coordinates off the Earth are as they come.
    """

    def move(some: Any) -> Any:
        return shapely.transform(some, lambda p: np.stack(turn(p[:, 0], p[:, 1]), axis=1))

    moved = np.asarray(move(shapes), dtype=object)
    if not projected:
        return within_180(moved)
    for i in np.flatnonzero(_jumping(moved)):
        dense = shapely.segmentize(shapes[i], max(_extent(shapes[i]), 1e-9) / _SEGMENTS)
        moved[i] = _unfolded(move(dense))
    return within_180(moved)


def within_180(shapes: Shapes) -> Shapes:
    """Geometries with longitudes of -360 to 540 degrees, brought into [-180, 180]; what crosses 180 is split.

    Examples
    --------
    >>> [p.bounds for p in within_180(np.array([shapely.box(190, 0, 191, 1), shapely.box(179, 0, 181, 1)]))]
    [(-170.0, 0.0, -169.0, 1.0), (-180.0, 0.0, 180.0, 1.0)]
    """
    bounds = shapely.bounds(shapes)
    with np.errstate(invalid="ignore"):
        beyond = (bounds[:, 2] > 180) | (bounds[:, 0] < -180)
        sound = (bounds[:, 0] >= -360) & (bounds[:, 2] <= 540) & (np.abs(bounds[:, 1::2]) <= 90).all(axis=1)
    out = np.asarray(shapes, dtype=object).copy()
    for i in np.flatnonzero(beyond & sound):
        out[i] = _folded(out[i])
    return out


def _jumping(shapes: Shapes) -> npt.NDArray[np.bool_]:
    """Which geometries have neighbouring points more than 180 degrees of longitude apart."""
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    with np.errstate(invalid="ignore"):
        jump = (np.abs(np.diff(xy[:, 0])) > 180) & (owner[1:] == owner[:-1])
    out = np.zeros(len(shapes), bool)
    out[owner[1:][jump]] = True
    return out


def _extent(shape: shapely.Geometry) -> float:
    west, south, east, north = shapely.bounds(shape)
    return float(max(east - west, north - south))


def _unfolded(shape: shapely.Geometry) -> shapely.Geometry:
    """A geometry whose longitudes go on beyond 180 degrees instead of jumping; round a pole, it is closed over the pole."""
    if isinstance(shape, shapely.Polygon):
        outer = _ring(shapely.get_coordinates(shape.exterior)[:-1])
        middle = outer[:, 0].mean()
        holes = [_ring(shapely.get_coordinates(h)[:-1]) for h in shape.interiors]
        holes = [np.add(h, (360 * np.round((middle - h[:, 0].mean()) / 360), 0)) for h in holes]
        return shapely.make_valid(shapely.Polygon(outer, holes))
    if isinstance(shape, shapely.LineString):
        xy = shapely.get_coordinates(shape)
        return shapely.LineString(np.column_stack([np.unwrap(xy[:, 0], period=360), xy[:, 1]]))
    if isinstance(shape, BaseMultipartGeometry):
        return shapely.union_all([_folded(_unfolded(p)) for p in shapely.get_parts(shape)])
    return shape


def _ring(points: Floats) -> Floats:
    lon, lat = points.T
    ring = np.column_stack([np.unwrap(np.append(lon, lon[0]), period=360), np.append(lat, lat[0])])
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # once round the Earth: over the pole inside
        pole = np.copysign(90.0, ring[:, 1].mean())
        ring = np.vstack([ring, [ring[-1, 0], pole], [ring[0, 0], pole]])
    return ring


def _folded(shape: shapely.Geometry) -> shapely.Geometry:
    """A geometry cut at multiples of 180 degrees, each part moved to where it lies between -180 and 180."""
    west, _, east, _ = shapely.bounds(shape)
    parts = []
    for turn in range(int(np.floor((west + 180) / 360)), int(np.ceil((east + 180) / 360))):
        moved = shapely.affinity.translate(shape, -360.0 * turn)
        part = shapely.intersection(shapely.make_valid(moved), _WORLD)
        parts += [p for p in shapely.get_parts(part) if p.geom_type == shapely.get_parts(shape)[0].geom_type]
    return shapely.union_all(parts) if parts else shape
