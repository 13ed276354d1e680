"""Which rows of a table take part: place, time, quality and free CQL2, before any vector is looked at.

CQL2 is evaluated column by column where an operator has a form for columns, and row by row, with the evaluator of the search
over Items, where it has none. Both follow the three-valued logic of SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from stac_latent.catalog.search.arguments import Time, parse_datetime, parse_place
from stac_latent.catalog.search.arrow import numbers
from stac_latent.catalog.search.cql2 import compile_filter, parse_filter, properties_of
from stac_latent.catalog.search.cql2_operators import parse_time
from stac_latent.errors import SearchError
from stac_latent.index.table import PublishedTable

__all__ = ["mask_of", "rows_at", "rows_in"]

NEAR = 1e-5
"""Degrees (a metre) by which a place may miss a row that is a point: as much as tables of results round away."""

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_COMPARE = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def mask_of(
    table: PublishedTable,
    *,
    where: str | Mapping[str, Any] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Any = None,
    datetime: Time | Sequence[Time] = None,
    min_valid: float = 0.0,
) -> Mask | None:
    """Rows (n,) that match everything asked for; None where nothing is asked.

    Raises
    ------
    SearchError
        If an argument is malformed, the filter names a column that the table has not, or no row matches.
    """
    if not 0 <= min_valid <= 1:
        raise SearchError(f"min_valid={min_valid!r} is no share; it is between 0 and 1")
    masks: list[Mask] = []
    place = parse_place(bbox, intersects)
    if place is not None:
        inside = np.zeros(table.rows, np.bool_)
        inside[rows_in(table, place)] = True
        masks.append(inside)
    if datetime is not None:
        start, end = parse_datetime(datetime)
        times = table.columns(["datetime"])["datetime"]
        for bound, compare in ((start, pc.greater_equal), (end, pc.less_equal)):
            if bound is not None:
                masks.append(_true(compare(times, pa.scalar(bound, times.type))))
    if min_valid > 0:
        valid = table.columns(["valid"])["valid"]
        masks.append(_true(pc.greater_equal(valid, pa.scalar(min_valid, valid.type))))
    if where is not None:
        masks.append(_matching(table, parse_filter(where)))
    if not masks:
        return None
    found: Mask = np.logical_and.reduce(masks)
    if not found.any():
        asked = {
            "where": where,
            "bbox": bbox,
            "intersects": intersects,
            "datetime": datetime,
            "min_valid": min_valid or None,
        }
        said = ", ".join(f"{k}={str(v)[:80]}" for k, v in asked.items() if v is not None)
        raise SearchError(f"no row of {table.name} matches {said}; loosen the conditions")
    return found


def rows_in(table: PublishedTable, place: shapely.Geometry) -> Rows:
    """Rows whose footprint touches a geometry in longitude and latitude, ascending; only row groups near it are read."""
    west, south, east, north = shapely.bounds(place).tolist()
    out = [np.empty(0, np.int64)]
    for part, group in table.groups((west, south, east, north)):
        rows = table.read(part, [group], ["bbox", "geometry"])
        box = {s: pc.struct_field(rows["bbox"], s).to_numpy() for s in ("xmin", "ymin", "xmax", "ymax")}
        near = np.flatnonzero(
            (box["xmin"] <= east) & (box["xmax"] >= west) & (box["ymin"] <= north) & (box["ymax"] >= south)
        )
        shapes = shapely.from_wkb(rows["geometry"].take(pa.array(near)).to_numpy(zero_copy_only=False))
        out.append(part.groups[group] + near[shapely.intersects(place, shapes)])
    return np.concatenate(out)


def rows_at(table: PublishedTable, lon: float, lat: float) -> Rows:
    """Rows whose footprint holds a point, or that are that point, to a metre.

    Raises
    ------
    SearchError
        If the point is none, or no row is there; where rows are points, the message names the nearest.
    """
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise SearchError(f"lon={lon:g}, lat={lat:g} is no place; expected degrees, longitude first")
    place = shapely.Point(lon, lat)
    rows = rows_in(table, place)
    if table.has_points:
        near = rows_in(table, place.buffer(NEAR, cap_style="square"))
        shapes = (
            shapely.from_wkb(table.columns(["geometry"], near)["geometry"].to_numpy()) if len(near) else []
        )
        rows = np.union1d(rows, near[shapely.get_dimensions(shapes) == 0])
    if len(rows):
        return rows
    if table.of_points:
        point = _nearest_point(table, place)
        raise SearchError(
            f"no row of {table.name} lies at lon={lon:g}, lat={lat:g}; its rows are points, and the nearest is "
            f"{point.x:.6f},{point.y:.6f}: choose that, or an area"
        )
    raise SearchError(
        f"no row of {table.name} lies at lon={lon:g}, lat={lat:g}; its rows lie within {_extent(table)}: choose a place there"
    )


def _nearest_point(table: PublishedTable, place: shapely.Point) -> shapely.Point:
    """The point of the table that is nearest to a place, on the Earth."""
    from pyproj import Geod

    best, found = np.inf, place
    for part, group in table.groups():
        shapes = shapely.from_wkb(table.read(part, [group], ["geometry"])["geometry"].to_numpy())
        lon, lat = shapely.get_coordinates(shapes).T
        far = Geod(ellps="WGS84").inv(lon, lat, np.full_like(lon, place.x), np.full_like(lat, place.y))[2]
        if far.min() < best:
            best, found = far.min(), shapes[far.argmin()]
    return found


def _extent(table: PublishedTable) -> str:
    bounds = np.array([table.extent_of(f) for f in table.files])
    west, south = bounds[:, :2].min(axis=0)
    east, north = bounds[:, 2:].max(axis=0)
    return f"longitudes {west:.5g} to {east:.5g} and latitudes {south:.5g} to {north:.5g}"


def _true(values: Any) -> Mask:
    """Where a column of truth values is true; nulls are not."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Scalar):
        raise _NoColumnFormError
    return np.asarray(pc.fill_null(values, fill_value=False).to_numpy(zero_copy_only=False), dtype=np.bool_)


class _NoColumnFormError(Exception):
    """An expression is left to the evaluator of rows."""


def _matching(table: PublishedTable, expr: Mapping[str, Any]) -> Mask:
    predicate = compile_filter(expr)
    names = sorted({n.removeprefix("properties.") for n in properties_of(expr)})
    known = [n for n in table.names() if n not in ("vector", "bbox")]
    if unknown := [n for n in names if n not in known]:
        raise SearchError(
            f"the filter names {', '.join(unknown)}; the columns of {table.name} are {', '.join(known)}"
        )
    columns = table.columns(names) if names else None
    try:
        if columns is not None:
            return _true(_evaluate(expr, columns))
    except (_NoColumnFormError, pa.ArrowException):
        pass
    values = {} if columns is None else {name: numbers(columns[name]) for name in names}
    if "geometry" in values:
        values["geometry"] = list(shapely.from_wkb(np.array(values["geometry"], dtype=object)))
    return np.array([predicate(_row(values, i)) is True for i in range(table.rows)], dtype=np.bool_)


def _row(values: Mapping[str, list[Any]], index: int) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        value = values[name.removeprefix("properties.")][index]
        return value.astimezone(UTC) if isinstance(value, datetime) else value

    return get


def _evaluate(expr: Any, columns: pa.Table) -> Any:
    """Truth values of a CQL2 JSON expression, by column."""
    if not isinstance(expr, Mapping) or "op" not in expr:
        raise _NoColumnFormError
    op, args = str(expr["op"]).lower(), expr["args"]
    if op in ("and", "or"):
        return reduce(pc.and_kleene if op == "and" else pc.or_kleene, (_evaluate(a, columns) for a in args))
    if op == "not":
        return pc.invert(_evaluate(args[0], columns))
    if op in _COMPARE and _is_column(args[1]):
        op, args = _TURNED.get(op, op), args[::-1]
    column = _column(args[0], columns)
    if op == "isnull":
        return pc.is_null(column)
    if op in _COMPARE:
        return _COMPARE[op](column, _literal(args[1], column.type))
    if op == "between":
        low, high = (_literal(a, column.type) for a in args[1:])
        return pc.and_kleene(pc.greater_equal(column, low), pc.less_equal(column, high))
    if op == "in" and isinstance(args[1], list) and args[1]:
        return reduce(pc.or_kleene, (pc.equal(column, _literal(v, column.type)) for v in args[1]))
    raise _NoColumnFormError


def _is_column(expr: Any) -> bool:
    return isinstance(expr, Mapping) and isinstance(expr.get("property"), str)


def _column(expr: Any, columns: pa.Table) -> pa.ChunkedArray:
    if not _is_column(expr) or expr["property"].removeprefix("properties.") == "geometry":
        raise _NoColumnFormError
    column = columns[expr["property"].removeprefix("properties.")]
    if pa.types.is_floating(column.type):
        nan = pc.is_nan(column)
        column = pc.if_else(nan, pa.scalar(None, column.type), column)
    return column


def _literal(value: Any, kind: pa.DataType) -> pa.Scalar:
    """A literal as what it is compared with; the evaluator of rows knows what other pairs mean."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and pa.types.is_floating(kind):
        return pa.scalar(float(value), kind)  # 0.9 in float32 is what a column of shares holds for it
    if number and pa.types.is_integer(kind):
        return pa.scalar(float(value), pa.float64())
    if isinstance(value, str) and pa.types.is_string(kind):
        return pa.scalar(value)
    if pa.types.is_timestamp(kind):
        text = (
            value
            if isinstance(value, str)
            else value.get("timestamp", value.get("date"))
            if isinstance(value, Mapping)
            else None
        )
        try:
            return pa.scalar(parse_time(str(text)), kind)
        except ValueError as exc:
            raise _NoColumnFormError from exc
    raise _NoColumnFormError
