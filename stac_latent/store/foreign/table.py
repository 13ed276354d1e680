"""Vectors in Parquet files of other producers: columns, positions and checks; nothing of a file is trusted to be whole.

A vector is one column of lists, or one column of numbers for each channel. A place is the file's GeoParquet geometry, or two
columns of coordinates. Row groups are read one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError
from stac_latent.store.geoparquet.file import parquet_at
from stac_latent.store.geoparquet.geometry import check_srid, geometry_of

__all__ = ["Invalid", "TableFacts", "VectorTable", "sound_vectors"]

Invalid = Literal["raise", "drop", "keep"]
_NUMBERS = (pa.types.is_floating, pa.types.is_integer)
_LISTS = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view, pa.types.is_large_list_view
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What a file says of itself."""

    rows: int
    groups: int
    columns: tuple[tuple[str, str], ...]
    """Name and type of each."""
    geometry: str | None
    """The primary geometry; None where the file is no GeoParquet."""
    crs: Any
    """Of the geometry, as PROJJSON; None: longitude and latitude."""
    footer: Mapping[str, Any]
    """JSON keys of the footer, such as ``emb``."""


class VectorTable:
    """A Parquet file with a vector in each row.

    Parameters
    ----------
    href
        Path or URL.
    columns
        One column of lists, or one of numbers for each channel.
    position
        Columns x and y of a file without a geometry; empty: the geometry's.
    scale
        Column of factors; empty: there are none.

    Raises
    ------
    CatalogError
        If there is no such file, or it lacks a column.
    CorruptDataError
        If it is no complete Parquet file, or a column is of another type.
    """

    def __init__(
        self, href: str, columns: Sequence[str], position: Sequence[str] = (), scale: str = ""
    ) -> None:
        self.href, self.columns, self.position, self.scale = href, tuple(columns), tuple(position), scale
        with self._opened() as file:
            schema = file.schema_arrow
            meta = schema.metadata or {}
            footer = {k.decode(): _json(v) for k, v in meta.items() if k not in (b"ARROW:schema", b"pandas")}
            primary, described = geometry_of(file, href)
            self.sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            """Rows of each row group."""
            self.facts = TableFacts(
                file.metadata.num_rows, file.metadata.num_row_groups, tuple((f.name, str(f.type)) for f in schema),
                primary, described.get("crs"), footer,
            )  # fmt: skip
        if primary is not None and described.get("encoding") != "WKB":
            raise CatalogError(
                f"{href}: geometry {primary!r} is encoded as {described.get('encoding')!r}; expected WKB: write it again, for "
                "instance with geopandas"
            )
        wanted = [*self.columns, *self.position, *([scale] if scale else [])]
        if missing := [c for c in wanted if c not in schema.names]:
            raise CatalogError(
                f"{href} has no column {', '.join(map(repr, missing))}; it has {', '.join(schema.names)}"
            )
        if not self.position and primary is not None and described.get("crs", primary) is None:
            raise CatalogError(
                f"{href} says that the CRS of its geometry {primary!r} is not known ('crs': null in its footer): write it with the CRS "
                "(geopandas: set_crs), or name its columns of longitude and latitude (latent:position, --position lon,lat)"
            )
        self._check_once(wanted if self.position or primary is None else [*wanted, primary])
        if not self.position and primary is None:
            raise CatalogError(
                f"{href} has no GeoParquet geometry; name its columns of longitude and latitude (latent:position, --position lon,lat)"
            )
        self._check_types(schema)

    def _check_once(self, columns: Sequence[str]) -> None:
        names = [name for name, _ in self.facts.columns]
        if twice := [c for c in columns if names.count(c) > 1]:
            raise CorruptDataError(
                f"{self.href} has several columns {twice[0]!r}, and which is meant is not known; write it with one of each name"
            )

    def _check_types(self, schema: pa.Schema) -> None:
        types = [_plain_type(schema.field(c).type) for c in self.columns]
        lists = len(types) == 1 and _is_list(types[0])
        inner = [types[0].value_type] if lists else types
        if not inner or not all(any(is_it(t) for is_it in _NUMBERS) for t in inner):
            found = ", ".join(f"{c}: {t}" for c, t in zip(self.columns, types, strict=True)) or "none"
            nested = (
                " (lists of lists are tokens: pool them to one vector for each row first)"
                if "list" in str(inner)
                else ""
            )
            raise CorruptDataError(
                f"{self.href}: {found} is no vector; expected one column of lists of numbers, or columns of numbers{nested}"
            )
        self.lists = lists
        self.dtype = np.dtype(inner[0].to_pandas_dtype())

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            with parquet_at(self.href) as file:
                yield file
        except FileNotFoundError as exc:
            raise CatalogError(f"{self.href} does not exist") from exc
        except StacLatentError:
            raise
        except (pa.ArrowException, OSError) as exc:
            raise CorruptDataError(
                f"{self.href} is no complete Parquet file ({exc}); fetch it again"
            ) from exc

    def groups(self, columns: Sequence[str], numbers: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """Row groups, one by one, with the columns that are named."""
        self._check_once(columns)
        with self._opened() as file:
            for i in range(self.facts.groups) if numbers is None else numbers:
                yield file.read_row_group(i, columns=list(dict.fromkeys(columns)))

    @property
    def vector_columns(self) -> list[str]:
        """Columns that a vector is made of, its scale included."""
        return [*self.columns, *([self.scale] if self.scale else [])]

    @property
    def place_columns(self) -> list[str]:
        """Columns that say where a row is."""
        return list(self.position) or [str(self.facts.geometry)]

    def lengths(self) -> int:
        """Channels of the first row that has a vector.

        Raises
        ------
        CorruptDataError
            If no row has one.
        """
        if not self.lists:
            return len(self.columns)
        for group in self.groups(self.columns):
            found = pc.max(pc.list_value_length(_plain(group[self.columns[0]]))).as_py()
            if found:
                return int(found)
        raise CorruptDataError(f"{self.href}: no row of {self.columns[0]!r} holds a vector")

    def vectors(self, table: pa.Table, dimensions: int) -> npt.NDArray[np.float32]:
        """``(rows, dimensions)`` float32; all NaN where a row has no vector, times its scale where there is one.

        Raises
        ------
        CorruptDataError
            If a vector has another length; the message names the first such row.
        """
        if not self.lists:
            out = np.stack([_floats(table[c]) for c in self.columns], axis=1)
        else:
            column = _plain(table[self.columns[0]])
            sizes = pc.list_value_length(column)
            sizes = np.asarray(sizes.fill_null(dimensions).to_numpy(zero_copy_only=False))
            if (bad := np.flatnonzero(sizes != dimensions)).size:
                raise CorruptDataError(
                    f"{self.href}: row {bad[0]} of {self.columns[0]!r} has {sizes[bad[0]]} numbers, expected {dimensions} "
                    f"({bad.size} rows differ); vectors of several lengths cannot share a space: split the file"
                )
            out = np.full((len(column), dimensions), np.nan, np.float32)
            there = np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
            out[there] = _floats(pc.list_flatten(column)).reshape(-1, dimensions)
        if self.scale:
            out = out * _floats(table[self.scale])[:, None]
        return np.asarray(out, np.float32)

    def shapes(self, table: pa.Table) -> npt.NDArray[np.object_]:
        """Geometry of each row, in the file's coordinates."""
        if self.position:
            x, y = (_floats(table[c], np.float64) for c in self.position)
            return np.asarray(shapely.points(x, y))
        try:
            shapes = np.asarray(shapely.from_wkb(table[str(self.facts.geometry)].to_numpy()))
        except (shapely.errors.ShapelyError, TypeError) as exc:
            raise CorruptDataError(
                f"{self.href}: column {self.facts.geometry!r} holds no WKB geometry: {exc}"
            ) from exc
        check_srid(shapes, self.facts.crs, self.href)
        return shapes


def sound_vectors(values: npt.NDArray[np.float32], invalid: Invalid, where: str) -> npt.NDArray[np.bool_]:
    """Which rows to keep.

    Parameters
    ----------
    values
        ``(rows, dimensions)``.
    invalid
        What to do with vectors that are missing, hold NaN or infinity, or are all zero: ``raise``, ``drop`` or ``keep``.
    where
        Named in the error.

    Raises
    ------
    CorruptDataError
        With ``raise``, if there is one.
    """
    finite = np.isfinite(values)
    kinds = {
        "without a vector": np.isnan(values).all(axis=1),
        "with NaN or infinite numbers": ~finite.all(axis=1),
        "of zeros alone": ~values.any(axis=1),
    }
    bad = np.zeros(len(values), bool)
    said = []
    for name, rows in kinds.items():
        new = rows & ~bad
        bad |= rows
        if new.any():
            said.append(f"{int(new.sum())} {name} (first: row {int(np.flatnonzero(new)[0])})")
    if said and invalid == "raise":
        raise CorruptDataError(
            f"{where}: {len(values)} rows, {' and '.join(said)}; no distance to these can be measured (numbers are read as float32, which ends at 3.4e38): leave them out with "
            "invalid='drop' (--invalid drop), or take them as they are with invalid='keep'"
        )
    return ~bad if invalid == "drop" else np.ones(len(values), bool)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Type of a column; of tensors with one axis, that of the lists that they are stored as."""
    return kind.storage_type if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) == 1 else kind


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array of its plain type."""
    found = column.combine_chunks()
    return found.storage if isinstance(found, pa.ExtensionArray) else found


def _is_list(kind: pa.DataType) -> bool:
    return any(is_it(kind) for is_it in _LISTS)


def _floats(column: Any, dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Numbers of a column; nulls are NaN."""
    values = (
        column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which sound_vectors names
        return np.asarray(values, dtype)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
