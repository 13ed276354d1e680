"""stac-geoparquet: many Items in one table, searched column by column, written from items that differ in fields."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pystac
import shapely
from pystac.utils import make_absolute_href, make_relative_href

from stac_latent.catalog.query import TIMES, Query
from stac_latent.catalog.reader import is_url, local_path, to_item
from stac_latent.errors import CatalogError, CorruptDataError, SearchError
from stac_latent.store.parquet import UNREADABLE, open_parquet

__all__ = ["ParquetSource", "python_values", "to_geoparquet"]

_TOP = ("type", "stac_version", "stac_extensions", "id", "bbox", "geometry", "collection", "links", "assets")
_LARGEST_BATCH = 1024
"""Rows that are turned into Items at a time; the first batch is smaller."""


class ParquetSource:
    """Items of a stac-geoparquet file: reads the columns that a query needs, then the whole rows that match it.

    ``content`` holds the bytes of a file that is not local. Relative hrefs are taken from the file's own address.
    """

    sorts = False

    def __init__(self, href: str, content: bytes | None = None) -> None:
        self.href = href
        try:
            self._file = open_parquet(local_path(href) if content is None else pa.BufferReader(content), href)
        except (OSError, CorruptDataError) as exc:
            raise SearchError(f"{href} is not a readable Parquet file: {exc}") from exc
        self._names = set(self._file.schema_arrow.names)
        if missing := {"id", "geometry", "links"} - self._names:
            raise SearchError(
                f"{href} is Parquet but not stac-geoparquet: it has no column {', '.join(sorted(missing))}; "
                "write one with stac_latent.catalog.table.to_geoparquet"
            )

    def items(self, query: Query, limit: int) -> Iterator[pystac.Item]:  # noqa: ARG002
        """Yield matching items in the file's order."""
        wanted = {n if n == "geometry" else n.removeprefix("properties.") for n in query.properties()}
        for group in range(self._file.num_row_groups):
            with self._readable(group):
                rows = self._matching(group, query, sorted(wanted & self._names))
                table = self._file.read_row_group(group, columns=None if rows else [])
            batch = 256
            while rows:
                with self._readable(group):
                    features = list(_features(table.take(_indices(rows[:batch]))))
                for feature in features:
                    yield to_item(feature, self.href, base=self.href)
                rows, batch = rows[batch:], min(4 * batch, _LARGEST_BATCH)

    def _matching(self, group: int, query: Query, names: list[str]) -> list[int]:
        """Rows of a row group that match, from the columns that the query reads."""
        table = self._file.read_row_group(group, columns=names)
        columns = {name: _query_values(name, table[name]) for name in table.column_names}
        count = self._file.metadata.row_group(group).num_rows
        return [i for i in range(count) if query.matches(_Row(columns, i))]

    @contextmanager
    def _readable(self, group: int) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as exc:
            if isinstance(exc, SearchError):
                raise
            raise SearchError(
                f"{self.href}: row group {group} cannot be read ({exc}); write the file anew"
            ) from exc


class _Row:
    """One row of a few columns, as a filter reads it."""

    __slots__ = ("_columns", "_index")

    def __init__(self, columns: Mapping[str, list[Any]], index: int) -> None:
        self._columns = columns
        self._index = index

    def __call__(self, name: str) -> Any:
        column = self._columns.get(name) or self._columns.get(name.removeprefix("properties."))
        value = None if column is None else column[self._index]
        return shapely.from_wkb(value) if name == "geometry" and value is not None else value


def _indices(rows: list[int]) -> pa.Array:
    """Row numbers as an Arrow array; ``pa.array`` would import pandas, which takes longer than the search."""
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(array("q", rows))])


def _query_values(name: str, column: pa.ChunkedArray) -> list[Any]:
    """Values of a column as a filter compares them: times as aware datetimes, all else as in JSON."""
    if name in TIMES and pa.types.is_timestamp(column.type):
        micros = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).combine_chunks()
        values: list[datetime | None] = micros.cast(pa.int64()).cast(pa.timestamp("us")).to_pylist()
        return [None if v is None else v.replace(tzinfo=UTC) for v in values]
    return python_values(column)


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:  # noqa: PLR0911 -- one return for each type
    """JSON values of an Arrow array; faster than ``to_pylist``, and nulls and empty objects are left out of objects.

    Times become RFC 3339 text; a NaN inside an object is ``"nan"``, as STAC writes ``nodata``.

    Examples
    --------
    >>> python_values(pa.array([{"a": 1, "b": None}, {"a": None, "b": None}, None]))
    [{'a': 1}, {}, None]
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
    return list(values.to_pylist())


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


def _features(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows as Item dictionaries, without the nulls that a table has where an item lacks a field."""
    columns = {name: python_values(table[name]) for name in table.column_names}
    geometry = columns.pop("geometry")
    properties = {name: values for name, values in columns.items() if name not in _TOP}
    for i in range(table.num_rows):
        feature = {name: columns[name][i] for name in _TOP if name in columns}
        feature = {name: value for name, value in feature.items() if value is not None}
        feature["type"] = "Feature"
        feature.setdefault("stac_version", "1.1.0")
        wkb = geometry[i]
        feature["geometry"] = None if wkb is None else json.loads(shapely.to_geojson(shapely.from_wkb(wkb)))
        if "bbox" in feature:
            feature["bbox"] = _bbox_list(feature["bbox"])
        feature["assets"] = {k: _geojson_inside(a) for k, a in feature.get("assets", {}).items()}
        feature.setdefault("links", [])
        row = {name: values[i] for name, values in properties.items()}
        kept = {k: v for k, v in row.items() if v is not None and v != {} and not _is_nan(v)}
        feature["properties"] = _geojson_inside({"datetime": None, **kept})
        yield feature


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _bbox_list(bbox: Any) -> list[float]:
    if not isinstance(bbox, Mapping):
        return list(bbox)
    return [bbox[k] for k in ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax") if k in bbox]


def _geojson_inside(fields: dict[str, Any]) -> dict[str, Any]:
    if isinstance(wkb := fields.get("proj:geometry"), bytes):
        fields["proj:geometry"] = json.loads(shapely.to_geojson(shapely.from_wkb(wkb)))
    return fields


def to_geoparquet(
    items: Iterable[pystac.Item],
    path: str | os.PathLike[str],
    *,
    relative: bool = False,
    row_group_size: int = 10_000,
) -> Path:
    """Write Items to one stac-geoparquet file, whole or not at all. They may have different fields.

    Null fields and empty objects are left out, as a table cannot tell them from absent ones. Hrefs become absolute
    where the item knows its own address; a footprint without bbox gets one.

    Parameters
    ----------
    items : iterable of pystac.Item
        Read once; needs the package stac-geoparquet.
    path : path
        Local file to write; replaced if it exists.
    relative : bool
        Write hrefs relative to the file, so that it can move with what it points to. :func:`stac_latent.search`
        resolves them; other readers may not.
    row_group_size : int
        Rows in a group.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    CatalogError
        If there are no items, if one has no footprint, if a field has another type in one item than in another
        (names the field and both items), or if stac-geoparquet is missing.

    Examples
    --------
    >>> to_geoparquet(items, "items.parquet")  # doctest: +SKIP
    PosixPath('items.parquet')
    """
    try:
        from stac_geoparquet.arrow import parse_stac_items_to_arrow
    except ImportError as exc:
        raise CatalogError(
            "writing stac-geoparquet needs the package stac-geoparquet: pip install 'stac-latent[search]'"
        ) from exc
    target = Path(path)
    features = [_plain(item, str(target.absolute()) if relative else None) for item in items]
    if not features:
        raise CatalogError(
            f"no items to write to {target}; a stac-geoparquet file needs at least one for its schema"
        )
    _one_type_per_field(features)
    if len(lengths := {len(f["bbox"]) for f in features}) > 1:
        raise CatalogError(
            f"bbox has {sorted(lengths)} numbers in different items; drop the heights from all of them"
        )
    try:
        table = parse_stac_items_to_arrow(features, drop_invalid_properties=False).read_all()
    except (ValueError, pa.ArrowException, shapely.errors.ShapelyError) as exc:
        raise CatalogError(f"the items do not fit one table: {exc}") from exc
    _write_whole(table, target, row_group_size)
    return target


def _write_whole(table: pa.Table, target: Path, row_group_size: int) -> None:
    """Write beside the target, then put it in its place."""
    from stac_geoparquet.arrow import to_parquet

    partial = target.with_name(f".{target.name}.part")
    try:
        to_parquet(table.to_reader(max_chunksize=row_group_size), partial, compression="zstd")
        partial.replace(target)
    except (OSError, pa.ArrowException) as exc:
        raise CatalogError(f"cannot write {target}: {exc}") from exc
    finally:
        partial.unlink(missing_ok=True)


def _plain(item: pystac.Item, base: str | None) -> dict[str, Any]:
    """Item as a dictionary that fits a table."""
    if item.geometry is None:
        raise CatalogError(
            f"item {item.id!r} has no geometry, which stac-geoparquet cannot hold; give it a footprint or leave it out"
        )
    own = item.get_self_href()
    feature = item.to_dict(transform_hrefs=False)
    for part in (*feature["links"], *feature["assets"].values()):
        href = part["href"] if own is None else make_absolute_href(part["href"], own)
        part["href"] = make_relative_href(href, base) if base is not None and not is_url(href) else href
    bbox = feature.get("bbox") or list(shapely.geometry.shape(item.geometry).bounds)
    kept = {key: _without_nulls(value) for key, value in feature.items() if value is not None}
    kept["properties"].setdefault("datetime", None)
    return {**kept, "bbox": [float(v) for v in bbox], "assets": kept["assets"], "geometry": item.geometry}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        cleaned = {k: _without_nulls(v) for k, v in value.items() if v is not None}
        return {k: v for k, v in cleaned.items() if v != {}}
    if isinstance(value, list | tuple):
        return [_without_nulls(v) for v in value]
    return value


_NONFINITE = ("nan", "inf", "-inf")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "not finite" if value in _NONFINITE else "text"
    return "an object" if isinstance(value, Mapping) else "a list"


def _leaves(
    value: Any, path: tuple[str, ...], parent: Any, key: Any
) -> Iterator[tuple[tuple[str, ...], Any, Any, Any]]:
    """Each value below a JSON value: its path (``[]`` for any list index), itself, and where it is held."""
    if value is None:
        return
    yield path, value, parent, key
    if isinstance(value, Mapping):
        for name, child in value.items():
            if name not in ("geometry", "proj:geometry"):
                yield from _leaves(child, (*path, name), value, name)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _leaves(child, (*path, "[]"), value, index)


def _one_type_per_field(features: Sequence[dict[str, Any]]) -> None:
    """Refuse a field of two types; text such as ``nan`` among an asset's numbers becomes that number."""
    kinds: dict[tuple[str, ...], dict[str, str]] = {}
    for feature in features:
        for path, value, _, _ in _leaves(feature, (), None, None):
            kinds.setdefault(path, {}).setdefault(_kind(value), feature["id"])
    numbers = set()
    for path, found in kinds.items():
        if set(found) == {"a number", "not finite"} and path[0] == "assets":
            numbers.add(path)
        elif len(found) > 1 and set(found) != {"text", "not finite"}:
            each = ", ".join(f"{kind} in item {name!r}" for kind, name in found.items())
            raise CatalogError(
                f"field {'.'.join(path)} is {each}; a table has one type for each field: write them all alike"
            )
    if numbers:
        for feature in features:
            for path, value, parent, key in list(_leaves(feature, (), None, None)):
                if path in numbers and isinstance(value, str):
                    parent[key] = float(value)
