"""Values of Arrow columns as JSON has them, whatever type a writer chose for them.

Numbers are compared as they were written: 0.9 in a float32 column is 0.9, and not the float64 that is nearest to its bits; decimals are
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from stac_latent.catalog.search.cql2_operators import parse_time
from stac_latent.errors import SearchError

__all__ = ["numbers", "python_values", "time_values", "without_views"]


def time_values(name: str, column: pa.ChunkedArray) -> list[datetime | None]:
    """Times of a column as aware datetimes: timestamps, dates (their first moment) or RFC 3339 text.

    Raises
    ------
    SearchError
        If the column is of another type, or a text is no time.
    """
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_null(kind):
        return [None] * len(values)
    if pa.types.is_timestamp(kind):
        # as naive, since a named zone would be looked up
        micros = values.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
        plain: list[datetime | None] = micros.cast(pa.timestamp("us")).to_pylist()
        return [None if t is None else t.replace(tzinfo=UTC) for t in plain]
    found = python_values(values)
    try:
        return [None if t is None else parse_time(t) for t in found]
    except (TypeError, ValueError) as exc:
        raise SearchError(
            f"the column {name!r} is {kind} and holds no RFC 3339 times ({exc}); write them as timestamps"
        ) from exc


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:  # noqa: PLR0911 -- one return for each type
    """JSON values of an Arrow array; faster than ``to_pylist``, and nulls and empty objects are left out of objects.

    Times and dates become RFC 3339 text, decimals and small floats the number that was written; a NaN inside an object is
    ``"nan"``, as STAC writes ``nodata``.

    Examples
    --------
    >>> python_values(pa.array([{"a": 1, "b": None}, {"a": None, "b": None}, None]))
    [{'a': 1}, {}, None]
    >>> python_values(pa.array([0.1, 0.9], pa.float32()))
    [0.1, 0.9]
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return python_values(values.storage)
    if pa.types.is_dictionary(kind):
        return python_values(values.dictionary_decode())
    if pa.types.is_struct(kind):
        return _objects(values)
    if pa.types.is_fixed_size_list(kind):
        return python_values(values.cast(pa.list_(kind.value_type)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets = values.offsets.to_pylist()
        first = offsets[0] if offsets else 0
        inner = python_values(values.values.slice(first, offsets[-1] - first if offsets else 0))
        bounds = zip(offsets, offsets[1:], values.is_valid().to_pylist(), strict=False)
        return [inner[a - first : b - first] if valid else None for a, b, valid in bounds]
    if pa.types.is_timestamp(kind):
        micros = (
            values.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64()).cast(pa.timestamp("us"))
        )
        return [None if t is None else t.isoformat() + "Z" for t in micros.to_pylist()]
    if pa.types.is_date(kind):
        return [None if t is None else _day(t) for t in values.to_pylist()]
    return numbers(values)


def numbers(values: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Values as Python has them; numbers of float32, float16 and decimal columns as the shortest decimals that mean them."""
    found = values.to_pylist()
    if pa.types.is_float32(values.type) or pa.types.is_float16(values.type):
        kind = np.float32 if pa.types.is_float32(values.type) else np.float16
        return [None if v is None else float(str(kind(v))) for v in found]
    if pa.types.is_decimal(values.type):
        return [None if v is None else _number(v) for v in found]
    return list(found)


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _day(value: date | datetime) -> str:
    return value.date().isoformat() if isinstance(value, datetime) else value.isoformat()


def without_views(table: pa.Table) -> pa.Table:
    """The table with views of text, bytes and lists as their plain types, which rows can be taken of."""
    kinds = [pa.field(f.name, _without_views(f.type), f.nullable, f.metadata) for f in table.schema]
    schema = pa.schema(kinds, table.schema.metadata)
    return table if schema.equals(table.schema) else table.cast(schema)


def _without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_without_views(f.type)) for f in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_views(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_views(kind.value_type)))
    return kind


def _objects(values: pa.StructArray) -> list[Any]:
    names = [values.type.field(i).name for i in range(values.type.num_fields)]
    columns = [python_values(child) for child in values.flatten()]
    for i, column in enumerate(columns):
        if pa.types.is_floating(values.type.field(i).type):
            columns[i] = [str(v) if v is not None and not math.isfinite(v) else v for v in column]
    rows: Iterable[tuple[Any, ...]] = zip(*columns, strict=True) if columns else [()] * len(values)
    return [
        {k: v for k, v in zip(names, row, strict=True) if v is not None and v != {}} if valid else None
        for row, valid in zip(rows, values.is_valid().to_pylist(), strict=True)
    ]
