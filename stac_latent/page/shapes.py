"""Footprints as small whole numbers, for a page that draws thousands of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely
import shapely.geometry

__all__ = ["UNIT", "footprint", "pack", "packed_bytes"]

UNIT = 1e-6
"""Degrees of one step of a packed coordinate: 11 cm at most."""
MOST_POINTS = 64
"""Points of a ring; more are simplified away."""
_DEGREES = np.array([180.0, 90.0])


def footprint(item: pystac.Item) -> shapely.Geometry | None:
    """Footprint of an Item in longitude and latitude: its geometry, else its bbox; None where neither is sound.

    Examples
    --------
    >>> from datetime import datetime
    >>> footprint(pystac.Item("a", None, [11, 46, 12, 47], datetime(2024, 6, 5), {})).bounds
    (11.0, 46.0, 12.0, 47.0)
    """
    try:
        shape = shapely.force_2d(shapely.geometry.shape(item.geometry)) if item.geometry else None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, shapely.errors.ShapelyError):
        shape = None
    if shape is not None and _sound(shape):
        return shape
    box = _box(item.bbox)
    return box if box is not None and _sound(box) else None


def _box(bbox: Any) -> shapely.Geometry | None:
    """Rectangle of a bbox of four or six numbers; two where it crosses the antimeridian."""
    try:
        numbers = [float(v) for v in bbox]
    except (TypeError, ValueError):
        return None
    if len(numbers) not in (4, 6) or not np.isfinite(numbers).all():
        return None
    west, south, east, north = (numbers[i] for i in ((0, 1, 2, 3) if len(numbers) == 4 else (0, 1, 3, 4)))
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))


def _sound(shape: shapely.Geometry) -> bool:
    points = shapely.get_coordinates(shape)
    return bool(len(points)) and bool((np.abs(points) <= _DEGREES).all())


def _rings(shape: shapely.Geometry | None) -> list[npt.NDArray[np.float64]]:
    """Outer rings (m, 2), without the point that closes them; a line or a point is a ring of its points."""
    out = []
    for part in shapely.get_parts(shape) if shape is not None else ():
        line = shapely.get_exterior_ring(part) if shapely.get_type_id(part) == 3 else part
        points = shapely.get_coordinates(line)
        width = np.ptp(points, axis=0).max() if len(points) else 0.0
        for share in (1e-3, 2e-3, 5e-3, 1e-2, 5e-2):
            if len(points) <= MOST_POINTS:
                break
            points = shapely.get_coordinates(shapely.simplify(line, width * share))
        closed = len(points) > 1 and (points[0] == points[-1]).all()
        points = points[:-1] if closed else points
        step = -(-len(points) // MOST_POINTS) or 1
        if len(points):
            out.append(points[::step])
    return out


def pack(shapes: Sequence[shapely.Geometry | None]) -> dict[str, str]:
    """Shapes as three arrays in base64: rings of each shape, points of each ring, and differences of coordinates.

    Parameters
    ----------
    shapes
        In longitude and latitude; None has no ring.

    Returns
    -------
    dict
        ``rings`` (uint8), ``points`` (uint8), ``xy`` (int32, little-endian): x and y of all points one after another,
        in units of :data:`UNIT`, each less the one before it.
    """
    rings = [_rings(s)[:255] for s in shapes]
    flat = [ring for each in rings for ring in each]
    points = np.concatenate(flat) if flat else np.empty((0, 2))
    steps = np.diff(np.rint(points / UNIT).astype("<i4"), axis=0, prepend=np.zeros((1, 2), "<i4"))
    return {
        "rings": packed_bytes(np.array([len(each) for each in rings], np.uint8)),
        "points": packed_bytes(np.array([len(ring) for ring in flat], np.uint8)),
        "xy": packed_bytes(steps.astype("<i4")),
    }


def packed_bytes(array: npt.NDArray[Any]) -> str:
    """Base64 of an array's bytes."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
