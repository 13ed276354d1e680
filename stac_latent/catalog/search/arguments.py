"""Arguments of a search, checked: what is malformed is refused before any source is opened."""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from stac_latent.catalog.search.cql2_operators import parse_time
from stac_latent.errors import SearchError
from stac_latent.geo.extents import flat_bbox

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "Time",
    "names",
    "parse_bbox",
    "parse_datetime",
    "parse_place",
    "sort_keys",
]

Time = str | date | None


def parse_place(bbox: Sequence[float] | None, intersects: Any) -> BaseGeometry | None:
    """Shapely geometry of a bounding box or of a geometry, in longitude and latitude; prepared for many tests.

    ``intersects`` is a GeoJSON geometry or Feature (dict or text), or anything with ``__geo_interface__``.
    """
    if bbox is None and intersects is None:
        return None
    if bbox is not None and intersects is not None:
        raise SearchError("give either bbox or intersects, not both")
    import shapely

    if bbox is not None:
        west, south, east, north = parse_bbox(bbox)
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        place = shapely.unary_union([_rectangle(w, south, e, north) for w, e in spans])
    else:
        place = _geometry(intersects)
    west, south, east, north = place.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise SearchError(
            f"place spans longitudes {west:.10g} to {east:.10g} and latitudes {south:.10g} to {north:.10g}; expected degrees, "
            "-180 to 180 and -90 to 90 (project other coordinates to EPSG:4326 first)"
        )
    shapely.prepare(place)
    return place


def _rectangle(west: float, south: float, east: float, north: float) -> BaseGeometry:
    """Box, or the line or point that a box without extent is."""
    import shapely

    if west < east and south < north:
        return shapely.box(west, south, east, north)
    if west == east and south == north:
        return shapely.Point(west, south)
    return shapely.LineString([(west, south), (east, north)])


def parse_bbox(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """West, south, east, north [deg] of four or six numbers; heights are dropped; west > east crosses 180 deg."""
    try:
        return flat_bbox(bbox)
    except ValueError as exc:
        raise SearchError(str(exc)) from exc


def _geometry(intersects: Any) -> BaseGeometry:
    from shapely.geometry import shape

    try:
        geometry = getattr(intersects, "__geo_interface__", intersects)
        if isinstance(geometry, str):
            geometry = json.loads(geometry)
        place = shape(geometry["geometry"] if geometry["type"] == "Feature" else geometry)
    except Exception as exc:
        raise SearchError(
            f"intersects must be a GeoJSON geometry or Feature, or have __geo_interface__, got {str(intersects)[:100]!r}"
        ) from exc
    if place.is_empty:
        raise SearchError("intersects is an empty geometry; leave it out to search everywhere")
    return place


def parse_datetime(value: Time | Sequence[Time]) -> tuple[datetime | None, datetime | None]:
    """Begin and end (closed, aware UTC; None where open) of an instant, a date, a month, a year or an interval.

    Text as the STAC API has it (``"2024-06-01T10:00:00Z"``, ``"2024-06"``, ``"2024/2025-03"``, ``"2024-06-01/.."``),
    datetimes, dates, or a pair of those with None for an open end. A date, month or year stands for all of it.
    """
    if isinstance(value, str):
        ends: list[Any] = value.split("/")
    else:
        ends = list(value) if isinstance(value, Sequence) else [value]
    if len(ends) not in (1, 2):
        raise SearchError(f"datetime must be one time or an interval 'begin/end', got {value!r}")
    ends = [None if e in ("", "..") else e for e in ends]
    if all(e is None for e in ends):
        raise SearchError(f"datetime {value!r} is open at both ends; leave it out to search all times")
    spans = [None if e is None else _span(e) for e in ends]
    start, end = spans[0] and spans[0][0], spans[-1] and spans[-1][1]
    if start is not None and end is not None and start > end:
        raise SearchError(f"datetime {value!r} ends before it begins; the order is begin/end")
    return start, end


def _span(value: Any) -> tuple[datetime, datetime]:
    """First and last microsecond that a time, date, month or year stands for."""
    if isinstance(value, datetime):
        time = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return time, time
    text = str(value)  # dates and numpy.datetime64 write themselves so
    try:
        if match := re.fullmatch(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", text):
            year, month, day = (None if g is None else int(g) for g in match.groups())
            start = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
            last = start.replace(month=month or 12)
            last = last.replace(day=day or monthrange(last.year, last.month)[1])
            return start, datetime.combine(last, datetime.max.time(), tzinfo=UTC)
        time = parse_time(text)
    except ValueError as exc:
        raise SearchError(
            f"datetime {text!r} is not a time: {exc}; expected for example 2024-06-01T10:00:00Z, 2024-06-01, 2024-06, "
            "2024, or an interval of two such as 2024-06-01/2024-06-30 or 2024-06-01/.."
        ) from exc
    return time, time


def names(argument: str, value: Any) -> tuple[str, ...] | None:
    """One name or several as a tuple; ``argument`` is what they were given as."""
    if value is None:
        return None
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if not found or not all(isinstance(n, str) and n for n in found):
        raise SearchError(
            f"{argument} must be one name or several, got {value!r}; leave it out to search all"
        )
    return found


def sort_keys(sortby: Any) -> tuple[tuple[str, bool], ...]:
    """Properties to sort by, and whether each descends."""
    if sortby is None:
        return ()
    entries = (
        sortby.split(",") if isinstance(sortby, str) else [sortby] if isinstance(sortby, Mapping) else sortby
    )
    keys = []
    for entry in entries:
        text = entry
        if isinstance(entry, Mapping):
            text = ("-" if entry.get("direction", "asc") == "desc" else "") + str(entry.get("field", ""))
        name = str(text).strip().lstrip("+-")
        if not isinstance(text, str) or not name:
            raise SearchError(
                f"sortby takes property names such as 'datetime' or '-latent:psnr', or {{'field', 'direction'}}, "
                f"got {entry!r}"
            )
        keys.append((name, text.strip().startswith("-")))
    return tuple(keys)
