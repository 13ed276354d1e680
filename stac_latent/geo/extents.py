"""Where and when Items are, in every form that STAC allows: boxes of six numbers or across 180 degrees, none at all, times with offsets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely
import shapely.geometry
from pystac.utils import str_to_datetime

__all__ = [
    "WORLD",
    "BBox",
    "bbox_of",
    "bbox_of_parts",
    "extent_of",
    "fields_in_utc",
    "flat_bbox",
    "in_utc",
    "item_bbox",
    "rfc3339",
    "spanning",
    "spanning_text",
    "times_in_utc",
]

BBox = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east crosses the antimeridian."""

WORLD: BBox = (-180.0, -90.0, 180.0, 90.0)
TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated")
"""Fields of the core that hold a time; STAC allows no offset but ``Z`` there."""


def flat_bbox(bbox: Sequence[float]) -> BBox:
    """West, south, east, north of a bbox of four numbers, or of six with heights.

    Raises
    ------
    ValueError
        If it is neither, or south lies above north.

    Examples
    --------
    >>> flat_bbox([13.6, 46.0, 0, 13.8, 46.1, 900])
    (13.6, 46.0, 13.8, 46.1)
    """
    try:
        values = [float(v) for v in bbox]
    except (TypeError, ValueError) as exc:
        raise ValueError(f"bbox must be numbers (west, south, east, north), got {bbox!r}") from exc
    if len(values) not in (4, 6) or not all(map(math.isfinite, values)):
        raise ValueError(
            f"bbox must be 4 numbers (west, south, east, north) or 6 with heights, got {len(values)}: {bbox!r}"
        )
    west, south, east, north = values if len(values) == 4 else (*values[:2], *values[3:5])
    if south > north:
        raise ValueError(
            f"bbox has south {south:g} above north {north:g}; the order is west, south, east, north, got {bbox!r}"
        )
    return west, south, east, north


def spanning(boxes: Iterable[BBox]) -> BBox:
    """Smallest box that holds some boxes; across 180 degrees only where one of them is.

    Examples
    --------
    >>> spanning([(170, -1, -175, 0), (-170, 0, -160, 2)])
    (170.0, -1.0, -160.0, 2.0)
    """
    known = list(boxes)
    south, north = min(float(b[1]) for b in known), max(float(b[3]) for b in known)
    if all(w <= e for w, _, e, _ in known):
        return min(float(b[0]) for b in known), south, max(float(b[2]) for b in known), north
    spans = sorted((float(w), float(e) if w <= e else e + 360.0, float(w), float(e)) for w, _, e, _ in known)
    first, *others = spans
    reach, edge = first[1], first[3]
    gap, west, east = 0.0, -180.0, 180.0
    for lo, hi, left, right in [*others, (first[0] + 360, first[1] + 360, *first[2:])]:
        if lo - reach > gap:
            gap, west, east = lo - reach, left, edge
        if hi > reach:
            reach, edge = hi, right
    return west, south, east, north


def spanning_text(boxes: Iterable[BBox]) -> str:
    """Smallest box that holds some boxes, for messages: west, south, east, north."""
    return ", ".join(f"{v:.6g}" for v in spanning(boxes))


def bbox_of(geometry: shapely.Geometry) -> BBox:
    """West, south, east, north of a geometry; west > east where that is the shorter way over the antimeridian."""
    return bbox_of_parts(shapely.bounds(np.array(shapely.get_parts(geometry), dtype=object)))


def bbox_of_parts(bounds: npt.NDArray[np.float64]) -> BBox:
    """Box of parts by their bounds ``(n, 4)``: over the antimeridian where parts touch it from both sides and leave a gap elsewhere."""
    found = bounds[np.isfinite(bounds).all(axis=1)]
    found = found[np.argsort(found[:, 0])]
    south, north = float(found[:, 1].min()), float(found[:, 3].max())
    reach = np.maximum.accumulate(found[:, 2])
    west, east = float(found[0, 0]), float(reach[-1])
    gaps = found[1:, 0] - reach[:-1]
    if len(gaps) and west <= -180 and east >= 180 and gaps.max() > 0:
        i = int(gaps.argmax())
        west, east = float(found[i + 1, 0]), float(reach[i])
    return west, south, east, north


def item_bbox(item: pystac.Item) -> BBox | None:
    """Box of an Item from its bbox, else its geometry; None where it has neither, or none that can be read."""
    try:
        if item.bbox:
            return flat_bbox(item.bbox)
        return bbox_of(shapely.geometry.shape(item.geometry)) if item.geometry else None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, shapely.errors.ShapelyError):
        return None


def extent_of(items: Sequence[pystac.Item], default: BBox = WORLD) -> pystac.Extent:
    """Extent of a Collection of some Items; the place is ``default`` where none of them has one."""
    boxes = [b for b in map(item_bbox, items) if b is not None]
    times = [t for item in items for t in times_in_utc(item)]
    spatial = pystac.SpatialExtent([list(spanning(boxes) if boxes else default)])
    span: list[datetime | None] = [min(times), max(times)] if times else [None, None]
    return pystac.Extent(spatial, pystac.TemporalExtent([span]))


def times_in_utc(item: pystac.Item) -> list[datetime]:
    """First and last time of an Item, aware, UTC; nothing where it has none."""
    known = item.common_metadata
    times = [item.datetime, known.start_datetime, known.end_datetime]
    found = [in_utc(t) for t in times if t is not None]
    return [min(found), max(found)] if found else []


def in_utc(value: Any) -> Any:
    """A time in UTC: a datetime as a datetime, RFC 3339 text as text that ends with Z; what is neither stays as it is.

    Times without an offset are taken for UTC.

    Examples
    --------
    >>> in_utc("2024-06-01T02:00:00.25+05:30")
    '2024-05-31T20:30:00.250000Z'
    """
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if not isinstance(value, str) or value.endswith("Z"):
        return value
    try:
        found: datetime = in_utc(str_to_datetime(value))
    except (ValueError, OverflowError):
        return value
    return rfc3339(found)


def rfc3339(time: datetime) -> str:
    """Text of an aware UTC time, as STAC has it."""
    return time.isoformat().replace("+00:00", "Z")


def fields_in_utc(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an Item or asset with the core's times in UTC."""
    return {k: in_utc(v) if k in TIMES else v for k, v in fields.items()}
