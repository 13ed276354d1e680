"""stac-geoparquet: many Items in one table, searched column by column, written from items that differ in fields."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pystac
import shapely

from stac_latent.catalog.search.arrow import python_values, time_values, without_views
from stac_latent.catalog.search.cql2 import compared_with_numbers
from stac_latent.catalog.search.documents import to_item
from stac_latent.catalog.search.query import TIMES, Query
from stac_latent.errors import CatalogError, CorruptDataError, SearchError
from stac_latent.geo.antimeridian import within_180
from stac_latent.geo.extents import bbox_of, rfc3339
from stac_latent.store.geoparquet.file import UNREADABLE, open_parquet
from stac_latent.store.geoparquet.geometry import geometry_of, in_degrees
from stac_latent.system.files import replacing
from stac_latent.system.links import absolute, local_path
from stac_latent.system.links import relative as relative_href

__all__ = ["ParquetSource", "to_geoparquet"]

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
        schema = self._file.schema_arrow
        self._names = set(schema.names)
        if missing := {"id", "geometry", "links"} - self._names:
            raise SearchError(
                f"{href} is Parquet but not stac-geoparquet: it has no column {', '.join(sorted(missing))}; "
                "write one with stac_latent.catalog.to_geoparquet"
            )
        if "properties" in self._names or not _is_text(schema.field("id").type):
            what = (
                "a column 'properties'"
                if "properties" in self._names
                else f"ids of {schema.field('id').type}"
            )
            raise SearchError(
                f"{href} is Parquet but not stac-geoparquet: it has {what}, where a property is a column of its own and ids are text; "
                "write one with stac_latent.catalog.to_geoparquet"
            )
        try:
            self._crs = geometry_of(self._file, href)[1].get("crs")
        except CorruptDataError as exc:
            raise SearchError(str(exc)) from exc

    def items(self, query: Query, limit: int) -> Iterator[pystac.Item]:  # noqa: ARG002
        """Yield matching items in the file's order."""
        wanted = {n if n == "geometry" else n.removeprefix("properties.") for n in query.properties()}
        self._comparable(query)
        query.known.meet(self._names)
        for group in range(self._file.num_row_groups):
            with self._readable(group):
                rows = self._matching(group, query, sorted(wanted & self._names))
                table = without_views(self._file.read_row_group(group, columns=None if rows else []))
            batch = 256
            while rows:
                with self._readable(group):
                    features = list(self._features(table.take(_indices(rows[:batch]))))
                for feature in features:
                    yield to_item(feature, self.href, base=self.href)
                rows, batch = rows[batch:], min(4 * batch, _LARGEST_BATCH)

    def _matching(self, group: int, query: Query, names: list[str]) -> list[int]:
        """Rows of a row group that match, from the columns that the query reads."""
        measured = self._measured(query)
        table = self._file.read_row_group(group, columns=[*names, *measured])
        columns: dict[str, list[Any]] = {
            n: time_values(n, table[n]) if n in TIMES else python_values(table[n]) for n in names
        }
        if measured:
            columns["assets"] = python_values(table["assets"])
        if "geometry" in columns:
            columns["geometry"] = list(within_180(self._shapes(columns["geometry"])))
        count = self._file.metadata.row_group(group).num_rows
        return [i for i in range(count) if query.matches(_Row(columns, i))]

    def _measured(self, query: Query) -> list[str]:
        """Columns below ``assets`` that tell what was measured of each latent."""
        if not query.latent.limits:
            return []
        ends = tuple(f".{name}" for name in query.latent.fields)
        paths = [self._file.schema.column(i).path for i in range(len(self._file.schema))]
        return [path for path in paths if path.startswith("assets.") and path.endswith(ends)]

    def _comparable(self, query: Query) -> None:
        """Refuse to compare a number of the extension with a column of text: that would leave out every Item in silence."""
        for name in compared_with_numbers(query.cql2):
            if name.startswith("latent:") and name in self._names:
                kind = self._file.schema_arrow.field(name).type
                if _is_text(kind):
                    raise SearchError(
                        f"{self.href} has {name!r} as text ({kind}), which no number compares with; write the column as numbers"
                    )

    def _shapes(self, wkb: Sequence[bytes | None]) -> npt.NDArray[np.object_]:
        """Geometries in longitude and latitude."""
        return in_degrees(np.asarray(shapely.from_wkb(np.array(wkb, object))), self._crs, self.href)

    def _features(self, table: pa.Table) -> Iterator[dict[str, Any]]:
        """Rows as Item dictionaries, without the nulls that a table has where an item lacks a field."""
        columns = {name: python_values(table[name]) for name in table.column_names}
        shapes = self._shapes(columns.pop("geometry"))
        for name in TIMES:
            if name in columns and not pa.types.is_timestamp(table[name].type):
                columns[name] = [None if t is None else rfc3339(t) for t in time_values(name, table[name])]
        properties = {name: values for name, values in columns.items() if name not in _TOP}
        for i in range(table.num_rows):
            feature = {name: columns[name][i] for name in _TOP if name in columns}
            feature = {name: value for name, value in feature.items() if value is not None}
            feature["type"] = "Feature"
            feature.setdefault("stac_version", "1.1.0")
            feature["geometry"] = None if shapes[i] is None else json.loads(shapely.to_geojson(shapes[i]))
            if "bbox" in feature:
                feature["bbox"] = _bbox_list(feature["bbox"])
            feature["assets"] = {k: _geojson_inside(a) for k, a in feature.get("assets", {}).items()}
            feature.setdefault("links", [])
            row = {name: values[i] for name, values in properties.items()}
            kept = {k: v for k, v in row.items() if v is not None and v != {} and not _is_nan(v)}
            feature["properties"] = _geojson_inside({"datetime": None, **kept})
            yield feature

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
        return None if column is None else column[self._index]


def _indices(rows: list[int]) -> pa.Array:
    """Row numbers as an Arrow array; ``pa.array`` would import pandas, which takes longer than the search."""
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(array("q", rows))])


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        is_it(plain) for is_it in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


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
    features = [_plain(item, target.absolute() if relative else None) for item in items]
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

    try:
        with replacing(target) as part:
            to_parquet(table.to_reader(max_chunksize=row_group_size), part, compression="zstd")
    except (OSError, pa.ArrowException) as exc:
        raise CatalogError(f"cannot write {target}: {exc}") from exc


def _plain(item: pystac.Item, base: Path | None) -> dict[str, Any]:
    """Item as a dictionary that fits a table."""
    if item.geometry is None:
        raise CatalogError(
            f"item {item.id!r} has no geometry, which stac-geoparquet cannot hold; give it a footprint or leave it out"
        )
    own = item.get_self_href()
    feature = item.to_dict(transform_hrefs=False)
    for part in (*feature["links"], *feature["assets"].values()):
        href = absolute(part["href"], own)
        part["href"] = href if base is None else relative_href(href, base)
    bbox = feature.get("bbox") or bbox_of(shapely.geometry.shape(item.geometry))
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
