"""When an adopted file is of: from its address, its attributes, a column, its footer, or as it is told."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stac_latent.errors import CatalogError
from stac_latent.store.foreign.table import VectorTable

__all__ = ["Period", "moments", "period", "time_of"]

Period = tuple[datetime, datetime]

_KIND = pa.timestamp("us", tz="UTC")
_SECOND = timedelta(seconds=1)
_FIRST = 1900
"""No product is older; smaller numbers are no years."""
_EMPTY = ("", "nat", "nan", "none", "null")
_INTERVAL = re.compile(r"\d{4}[^/]*/\d{4}[^/]*")
"""Two times, each with the year first."""
_DAY = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:[T ]+(\S.*))?")
_YEAR_LAST = re.compile(r"\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2,4}(?!\d)")
_MONTH_NAME = re.compile(r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", re.IGNORECASE)
_EXPECTED = "expected 2024, 2024-06, 2024-06-01, an instant, or two with '/' between"


def period(value: Any) -> Period:
    """First and last moment of a year, a month, a day, an instant or an interval.

    Parameters
    ----------
    value
        Text with the year first, a whole number that is a year or a day (``20240601``), or a date or time.

    Raises
    ------
    CatalogError
        If it is none of these, or day and month cannot be told apart; nothing is guessed.

    Examples
    --------
    >>> [t.isoformat() for t in period("2024")]
    ['2024-01-01T00:00:00+00:00', '2024-12-31T23:59:59+00:00']
    >>> [t.isoformat() for t in period("2024-06-01T10:00:00Z/2024-06-02")]
    ['2024-06-01T10:00:00+00:00', '2024-06-02T23:59:59+00:00']
    """
    try:
        return _read(value)
    except (ValueError, OverflowError) as exc:
        raise CatalogError(f"{value!r:.80} is no time: {exc}; {_EXPECTED}") from exc


def _read(value: Any) -> Period:
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment, moment
    if isinstance(value, date):
        return _day(value.year, value.month, value.day)
    if isinstance(value, str):
        return _of_text(value.strip())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _of_number(value)
    raise ValueError(f"it is of type {type(value).__name__}")


def _of_number(value: float) -> Period:
    """A year or a day; other numbers may count anything since anything."""
    if float(value).is_integer():
        text = str(int(value))
        year = int(text[:4])
        if len(text) in (4, 8) and _FIRST <= year <= datetime.now(UTC).year + 100:
            return _of_text(text)
    raise ValueError(
        "the number is no year and no day written as 20240601; numbers that count seconds, milliseconds or days, and years with fractions, "
        "do not say from when: write them as times, for instance with pandas.to_datetime(column, unit=...)"
    )


def _of_text(text: str) -> Period:
    if _INTERVAL.fullmatch(text):
        return _of_interval(text)
    if (found := _of_calendar(text)) is not None:
        return found
    if _YEAR_LAST.match(text):
        raise ValueError("day and month cannot be told apart; write the year first")
    if "/" in text:
        return _of_interval(text)
    if re.fullmatch(r"[-+]?\d+(\.\d+)?", text):
        raise ValueError("it is a number, and neither a year nor a day written as 20240601")
    if _MONTH_NAME.search(text):
        import pandas as pd

        return _read(pd.to_datetime(text, utc=True).to_pydatetime(warn=False))
    return _read(datetime.fromisoformat(text))


def _of_calendar(text: str) -> Period | None:
    """A year, a month, a day or a day with a time, with the year first and with or without zeros."""
    if re.fullmatch(r"\d{4}(\.0*)?", text):
        return _year(int(text[:4]))
    if re.fullmatch(r"\d{8}(\.0*)?", text):
        return _day(int(text[:4]), int(text[4:6]), int(text[6:8]))
    if found := re.fullmatch(r"(\d{4})[-/](\d{1,2})", text):
        return _month(int(found[1]), int(found[2]))
    if found := _DAY.fullmatch(text):
        year, _, month, day, clock = found.groups()
        if clock is None:
            return _day(int(year), int(month), int(day))
        return _read(datetime.fromisoformat(f"{year}-{int(month):02}-{int(day):02}T{clock}"))
    return None


def _of_interval(text: str) -> Period:
    parts = text.split("/")
    if len(parts) != 2:
        raise ValueError("it has more than one '/'")
    first, last = (_of_text(part.strip()) for part in parts)
    if last[1] < first[0]:
        raise ValueError("it ends before it begins")
    return first[0], last[1]


def _year(year: int) -> Period:
    return datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)


def _month(year: int, month: int) -> Period:
    start = datetime(year, month, 1, tzinfo=UTC)
    return start, (start + timedelta(days=32)).replace(day=1) - _SECOND


def _day(year: int, month: int, day: int) -> Period:
    start = datetime(year, month, day, tzinfo=UTC)
    return start, start + timedelta(days=1) - _SECOND


def time_of(
    rule: Mapping[str, Any],
    href: str,
    *,
    attributes: Mapping[str, Any] | None = None,
    table: VectorTable | None = None,
    given: str | None = None,
) -> Period:
    """Time of a file.

    Parameters
    ----------
    rule
        Of the product: ``href`` (a pattern, or several of which the first that fits counts), ``years`` (the first and the last
        that it has; None: none is the last), ``attribute``, ``column`` or ``footer``.
    href
        Address of the file.
    attributes
        Of a Zarr group.
    table
        The file, if it is a table.
    given
        What the caller says, before all others.

    Raises
    ------
    CatalogError
        If nothing says it, or the address says several times.
    """
    if given is not None:
        return period(given)
    if table is not None and rule.get("column") in dict(table.facts.columns):
        return _of_column(table, rule["column"])
    if rule.get("href") and (found := _of_href(rule, href)) is not None:
        return found
    if rule.get("attribute") and (value := (attributes or {}).get(rule["attribute"])) is not None:
        return period(value)
    if table is not None and rule.get("footer"):
        place: Any = table.facts.footer
        for key in rule["footer"]:
            place = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(place, Mapping) and (first := place.get("start_datetime") or place.get("datetime")):
            return period(first)[0], period(place.get("end_datetime") or first)[1]
    where = ", ".join(f"{k} {v!r}" for k, v in rule.items()) or "no rule of the product"
    raise CatalogError(
        f"{href}: nothing says of when it is ({where}); state it with --datetime 2024, or when="
    )


def _of_href(rule: Mapping[str, Any], href: str) -> Period | None:
    """Time that an address says, among those that the product can have."""
    patterns = [rule["href"]] if isinstance(rule["href"], str) else rule["href"]
    first, last = rule.get("years", (_FIRST, None))
    last = datetime.now(UTC).year if last is None else last
    path = re.sub(r"^[a-z][a-z0-9+]*://[^/]*", "", href)
    for pattern in patterns:
        said: dict[Period, str] = {}
        for match in re.finditer(pattern, path):
            text = "-".join(match.groups())
            try:
                when = period(text)
            except CatalogError:
                continue
            if first <= when[0].year <= last:
                said[when] = text
        whole = [p for p in said if all(q[0] <= p[0] and p[1] <= q[1] for q in said)]
        if whole:
            return whole[0]
        if said:
            raise CatalogError(
                f"{href} names several times ({', '.join(said.values())}); state which one it is of with --datetime, or when="
            )
    return None


def moments(column: pa.ChunkedArray, where: str) -> pa.Array:
    """First moment of each year, date, time, interval or text of one in a column, as timestamps in UTC; null where there is none.

    Raises
    ------
    CatalogError
        If a value is no time.
    """
    return _spans(column, where)[0]


def _spans(column: pa.ChunkedArray, where: str) -> tuple[pa.Array, pa.Array]:
    """First and last moments of the values of a column; days count as their first moment."""
    found = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], found.type)
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_null(found.type):
        none = pa.nulls(len(found), _KIND)
        return none, none
    if pa.types.is_timestamp(found.type) or pa.types.is_date(found.type):
        times = found.cast(_KIND, safe=False)
        return times, times
    words = found.dictionary_encode()
    known = [_span(w, where) for w in words.dictionary.to_pylist()]
    sides = [pa.array([None if p is None else p[i] for p in known], _KIND) for i in (0, 1)]
    return sides[0].take(words.indices), sides[1].take(words.indices)


def _span(value: Any, where: str) -> Period | None:
    if value is None or str(value).strip().lower() in _EMPTY:
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    try:
        first, last = _read(value)
    except (ValueError, OverflowError) as exc:
        raise CatalogError(
            f"{where} holds {value!r:.80}, which is no time: {exc}; {_EXPECTED}, or --datetime, or when=, for all rows"
        ) from exc
    return (first, first) if last - first == timedelta(days=1) - _SECOND else (first, last)


def _of_column(table: VectorTable, column: str) -> Period:
    """First and last moment of a column, of values that are read before they are compared."""
    low: list[datetime] = []
    high: list[datetime] = []
    for group in table.groups([column]):
        first, last = _spans(group[column], f"{table.href}, column {column!r}")
        if first.null_count < len(first):
            low.append(pc.min(first).as_py())
            high.append(pc.max(last).as_py())
    if not low:
        raise CatalogError(
            f"{table.href}: column {column!r} holds no time; state it with --datetime, or when="
        )
    return min(low), max(high)
