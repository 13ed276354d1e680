"""The verb ``coverage``: which cells of an area have items in which periods, and which have none."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely

from stac_latent.aliases import Progress
from stac_latent.catalog.search.arguments import parse_bbox
from stac_latent.catalog.search.cql2_operators import parse_time
from stac_latent.catalog.search.query import Query
from stac_latent.catalog.search.search import search
from stac_latent.errors import CatalogError, SearchError
from stac_latent.geo.extents import bbox_of, rfc3339, spanning
from stac_latent.system.suggest import known_options

__all__ = ["WHOLE", "Coverage", "coverage"]

WHOLE = 0.999
"""Share of a cell's area from which on it counts as covered; edges of neighbouring footprints differ by centimetres."""
_LARGEST = 20_000_000
_CALENDAR = ("month", "year")
_DAYS = {"day": 1, "week": 7}


@dataclass(frozen=True)
class Coverage:
    """How much of each cell the footprints of each period cover."""

    bbox: tuple[float, float, float, float]
    """West, south, east, north [deg]; east is over 180 where the area crosses the antimeridian."""
    periods: tuple[tuple[datetime, datetime], ...]
    """First moment of each, and the first after it."""
    items: tuple[int, ...]
    """Items of each period that touch the area."""
    share: npt.NDArray[np.float32]
    """(period, y, x) share of each cell that is covered, rows from north to south, 0 to 1."""

    @property
    def cells(self) -> tuple[int, int]:
        """Number of cells: y, x."""
        return int(self.share.shape[1]), int(self.share.shape[2])

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(y,) area of a cell of each row, relative to the whole area's sum along one column."""
        _, south, _, north = self.bbox
        edges = np.sin(np.radians(np.linspace(north, south, self.cells[0] + 1)))
        return np.asarray(-np.diff(edges) / (edges[0] - edges[-1]))

    def box(self, y: int, x: int) -> tuple[float, float, float, float]:
        """West, south, east, north [deg] of a cell."""
        west, south, east, north = self.bbox
        dy, dx = (north - south) / self.cells[0], (east - west) / self.cells[1]
        return west + x * dx, north - (y + 1) * dy, west + (x + 1) * dx, north - y * dy

    def table(self) -> list[dict[str, Any]]:
        """One row for each period: its begin and end, items, share of the area, and cells by how they are covered."""
        rows = []
        for (start, end), count, share in zip(self.periods, self.items, self.share, strict=True):
            whole, none = int((share >= WHOLE).sum()), int((share <= 0).sum())
            rows.append(
                {
                    "start": rfc3339(start),
                    "end": rfc3339(end),
                    "items": count,
                    "area": round(float((share.mean(axis=1) * self.weights).sum()), 6),
                    "whole_cells": whole,
                    "partial_cells": share.size - whole - none,
                    "missing_cells": none,
                }
            )
        return rows

    def missing(self) -> Iterator[dict[str, Any]]:
        """Cells that a period does not cover whole: its begin, the cell's row, column and box, and the share covered."""
        for (start, _), share in zip(self.periods, self.share, strict=True):
            for y, x in np.argwhere(share < WHOLE):
                box = [round(v, 9) for v in self.box(int(y), int(x))]
                yield {
                    "start": rfc3339(start),
                    "row": int(y),
                    "column": int(x),
                    "bbox": box,
                    "share": round(float(share[y, x]), 6),
                }


@known_options(*inspect.signature(search).parameters)
def coverage(
    source: Any,
    *,
    bbox: tuple[float, float, float, float] | None = None,
    datetime: Any = None,
    every: str = "month",
    cells: int = 32,
    progress: Progress | None = None,
    **query: Any,
) -> Coverage:
    """Lay the footprints of the items that match over cells of an area, period by period.

    Footprints count, not what is valid inside them. An item over a time span counts in each period that it meets.

    Parameters
    ----------
    source
        Whatever :func:`stac_latent.search` takes; several catalogues count together.
    bbox
        West, south, east, north [deg]; west > east crosses the antimeridian. The items' extent when left out.
    datetime
        As in :func:`stac_latent.search`. From the first item's month, day or year to the last one's when left out, or
        where an end is open.
    every
        ``day``, ``week``, ``month``, ``year``, or days as ``10d``. Months and years are those of the calendar, others are
        counted from the begin.
    cells
        Cells along the longer side of the area; they are as square as whole numbers allow.
    progress
        Called with a label, the periods done and their number.
    **query
        What else must match: ``kind``, ``space``, ``min_psnr``, ``collections``, ``filter`` and so on, and ``headers``.

    Returns
    -------
    Coverage
        Shares of cells, and tables of them.

    Raises
    ------
    CatalogError
        If no item matches and the area or the time is not given; for a malformed ``every`` or ``cells``; if there would
        be more than 20 million cells in all periods.
    SearchError
        As :func:`stac_latent.search`.

    Examples
    --------
    >>> item = pystac.Item("a", shapely.geometry.mapping(shapely.box(0, 0, 1, 2)), [0, 0, 1, 2], parse_time("2024-01-05"), {})
    >>> found = coverage([item], bbox=(0, 0, 2, 2), datetime="2024-01/2024-02", cells=2)
    >>> found.share[0].tolist(), found.table()[1]["missing_cells"]
    ([[1.0, 0.0], [1.0, 0.0]], 4)
    """
    step = _step(every)
    if isinstance(cells, bool) or not isinstance(cells, int) or not 1 <= cells <= 4096:
        raise CatalogError(f"cells must be a whole number from 1 to 4096, got {cells!r}")
    asked = Query.parse(bbox=bbox, datetime=datetime)
    found = [
        (*span, item) for item in search(source, bbox=bbox, datetime=datetime, **query)
        if (span := _span(item)) and item.geometry is not None
    ]  # fmt: skip
    if not found and (bbox is None or asked.start is None or asked.end is None):
        raise CatalogError(
            "no item with a footprint and a time matches, so that there is no area and time to report on; give bbox and datetime "
            "closed at both ends, or loosen the search"
        )
    area = _area(bbox, [item for *_, item in found])
    start = asked.start or min(a for a, _, _ in found)
    end = asked.end or max(b for _, b, _ in found)
    periods = list(_periods(start, end, step))
    ny, nx = _shape(area, cells)
    if len(periods) * ny * nx > _LARGEST:
        raise CatalogError(
            f"{len(periods)} periods of {ny} x {nx} cells are more than {_LARGEST:,} in all; take fewer cells or longer periods"
        )
    grid = _grid(area, ny, nx)
    shapes = [(a, b, _shapes(item, area)) for a, b, item in found]
    share = np.zeros((len(periods), ny, nx), np.float32)
    counts = []
    for i, (first, after) in enumerate(periods):
        inside = [part for a, b, part in shapes if a < after and b >= first]
        counts.append(len(inside))
        if inside:
            share[i] = _covered(grid, shapely.union_all(inside)).reshape(ny, nx)
        if progress:
            progress("coverage", i + 1, len(periods))
    return Coverage(area, tuple(periods), tuple(counts), share)


def _step(every: str) -> str | int:
    """``month``, ``year``, or a number of days."""
    if every in _CALENDAR:
        return every
    match = re.fullmatch(r"([1-9]\d{0,3})d", every) if isinstance(every, str) else None
    if every not in _DAYS and match is None:
        raise CatalogError(f"every must be day, week, month, year, or days as '10d'; got {every!r}")
    return int(match[1]) if match else _DAYS[every]


def _span(item: pystac.Item) -> tuple[datetime, datetime] | None:
    """Begin and end of an item; None where it has no time."""
    p = item.properties
    ends = [p.get("start_datetime") or item.datetime, p.get("end_datetime") or item.datetime]
    try:
        times = [parse_time(t) if isinstance(t, str) else t for t in ends]
    except ValueError as exc:
        raise SearchError(f"item {item.id!r} has a malformed time: {exc}") from exc
    if any(t is None for t in times):
        return None
    first, last = (
        t.replace(tzinfo=UTC) if t.tzinfo is None else t.astimezone(UTC) for t in times if t is not None
    )
    return first, last


def _area(bbox: Any, items: list[pystac.Item]) -> tuple[float, float, float, float]:
    if bbox is None:
        west, south, east, north = spanning(bbox_of(shapely.geometry.shape(i.geometry or {})) for i in items)
    else:
        west, south, east, north = parse_bbox(bbox)
    east = east + 360 if west > east else east
    if not (west < east and south < north):
        raise CatalogError(f"the area {(west, south, east, north)} has no extent; give a bbox that has")
    return float(west), float(south), float(east), float(north)


def _periods(start: datetime, end: datetime, step: str | int) -> Iterator[tuple[datetime, datetime]]:
    """Periods that cover a closed interval, first moment and first after."""
    if step == "year":
        at = start.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    elif step == "month":
        at = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    else:
        at = start.replace(hour=0, minute=0, second=0, microsecond=0)
    while at <= end:
        if isinstance(step, int):
            after = at + timedelta(days=step)
        else:
            months = at.month if step == "month" else 12
            after = at.replace(year=at.year + months // 12, month=months % 12 + 1)
        yield at, after
        at = after


def _shape(area: tuple[float, float, float, float], cells: int) -> tuple[int, int]:
    """Cells along y and x; degrees of longitude shrink towards the poles."""
    west, south, east, north = area
    height, width = north - south, (east - west) * math.cos(math.radians((south + north) / 2))
    side = max(height, width) / cells
    return max(1, round(height / side)), max(1, round(width / side))


def _grid(area: tuple[float, float, float, float], ny: int, nx: int) -> npt.NDArray[np.object_]:
    west, south, east, north = area
    x, y = np.linspace(west, east, nx + 1), np.linspace(north, south, ny + 1)
    left, top = np.meshgrid(x[:-1], y[:-1])
    right, bottom = np.meshgrid(x[1:], y[1:])
    return np.asarray(shapely.box(left, bottom, right, top)).ravel()


def _shapes(item: pystac.Item, area: tuple[float, float, float, float]) -> Any:
    """Footprint of an item inside the area, repeated 360 deg further where the area crosses the antimeridian."""
    try:
        shape = shapely.make_valid(shapely.geometry.shape(item.geometry or {}))
    except Exception as exc:
        raise SearchError(f"item {item.id!r} has a malformed geometry: {exc}") from exc
    if area[2] > 180:
        shape = shapely.union(shape, shapely.transform(shape, lambda xy: xy + np.array((360.0, 0.0))))
    return shapely.intersection(shape, shapely.box(*area))


def _covered(grid: npt.NDArray[np.object_], shape: Any) -> npt.NDArray[np.float64]:
    """Share of each cell that a geometry covers."""
    shapely.prepare(shape)
    out = shapely.covers(shape, grid).astype(float)
    partial = shapely.intersects(shape, grid) & (out == 0)
    out[partial] = shapely.area(shapely.intersection(grid[partial], shape)) / shapely.area(grid[partial])
    return np.asarray(np.clip(out, 0, 1))
