"""When an adopted file is of: from its address, its attributes, a column, its footer, or as it is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from stac_latent.errors import CatalogError
from stac_latent.store.tables import VectorTable

__all__ = ["Period", "moments", "period", "time_of"]

Period = tuple[datetime, datetime]


def period(text: Any) -> Period:
    """First and last moment of a year, a day, an instant or an interval.

    Examples
    --------
    >>> [t.isoformat() for t in period("2024")]
    ['2024-01-01T00:00:00+00:00', '2024-12-31T23:59:59+00:00']
    >>> [t.isoformat() for t in period("2024-06-01T10:00:00Z/2024-06-02")]
    ['2024-06-01T10:00:00+00:00', '2024-06-02T23:59:59+00:00']
    """
    text = str(text).strip()
    if "/" in text:
        first, last = text.split("/", 1)
        return period(first)[0], period(last)[1]
    second = timedelta(seconds=1)
    try:
        if re.fullmatch(r"\d{4}", text):
            start = datetime(int(text), 1, 1, tzinfo=UTC)
            return start, start.replace(year=start.year + 1) - second
        if re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", text):
            start = datetime.fromisoformat(text).replace(tzinfo=UTC)
            return start, start + timedelta(days=1) - second
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise CatalogError(
            f"{text!r} is no time: {exc}; expected 2024, 2024-06-01, an instant, or two with '/' between"
        ) from exc
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment, moment


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
        Of the product: ``href`` (pattern with one group), ``attribute``, ``column`` or ``footer``.
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
        If nothing says it.
    """
    if given is not None:
        return period(given)
    if rule.get("href") and (found := re.findall(rule["href"], href)):
        return period(found[-1])
    if rule.get("attribute") and (value := (attributes or {}).get(rule["attribute"])) is not None:
        return period(value)
    if table is not None and rule.get("footer"):
        place: Any = table.facts.footer
        for key in rule["footer"]:
            place = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(place, Mapping) and (first := place.get("start_datetime") or place.get("datetime")):
            return period(first)[0], period(place.get("end_datetime") or first)[1]
    if table is not None and rule.get("column") in dict(table.facts.columns):
        return _of_column(table, rule["column"])
    where = ", ".join(f"{k} {v!r}" for k, v in rule.items()) or "no rule of the product"
    raise CatalogError(
        f"{href}: nothing says of when it is ({where}); state it with --datetime 2024, or when="
    )


def moments(column: pa.ChunkedArray, where: str) -> pa.Array:
    """First moment of each year, date, time or text of one in a column, as timestamps in UTC; null where there is none.

    Raises
    ------
    CatalogError
        If a value is no time.
    """
    kind = pa.timestamp("us", tz="UTC")
    found = column.combine_chunks()
    if pa.types.is_timestamp(found.type) or pa.types.is_date(found.type):
        return found.cast(kind, safe=False)
    words = found.dictionary_encode()
    known = [None if w is None else _moment(w, where) for w in words.dictionary.to_pylist()]
    return pa.array(known, kind).take(words.indices)


def _moment(value: Any, where: str) -> datetime:
    import pandas as pd

    if isinstance(value, int):
        return period(value)[0]
    try:
        return pd.to_datetime(str(value), utc=True).to_pydatetime(warn=False)
    except ValueError as exc:
        raise CatalogError(f"{where} holds {value!r}, which is no time: {exc}") from exc


def _of_column(table: VectorTable, column: str) -> Period:
    """First and last moment of a column of years, dates, times or texts of them."""
    import pandas as pd

    low: list[Any] = []
    for group in table.groups([column]):
        values = group[column].drop_null().to_pandas()
        if len(values):
            low += [values.min(), values.max()]
    if not low:
        raise CatalogError(
            f"{table.href}: column {column!r} holds no time; state it with --datetime, or when="
        )
    if all(isinstance(v, int | np.integer) for v in low):
        return period(min(low))[0], period(max(low))[1]
    try:
        moments = pd.to_datetime([str(v) for v in low], utc=True, format="mixed")
    except ValueError as exc:
        raise CatalogError(f"{table.href}: column {column!r} holds no times: {exc}") from exc
    return moments.min().to_pydatetime(warn=False), moments.max().to_pydatetime(warn=False)
