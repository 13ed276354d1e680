"""GeoParquet 1.1 tables of vectors, written in Hilbert order with bounded memory.

One row for each vector, in the columns of :data:`COLUMNS`. The file says about itself what a reader needs, in three
footer keys: ``geo`` (GeoParquet 1.1, with a bounding-box covering), ``latent`` (the ``latent:`` fields) and ``emb``
(names of the community's embedding specification). Pages carry checksums.

Encodings are the smallest among those that pyarrow, polars, DuckDB and geopandas all read: float32 is split into byte
streams; float16 is plain, since DuckDB (2.0) cannot read it split, which would save 7 % (polars reads float16 at all
from 1.31 on, 1.20 does not); int8 keeps its dictionary. Reading is in :mod:`stac_latent.store.embeddings`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from stac_latent.errors import CatalogError
from stac_latent.store.embeddings import SIDES, BBox, read_embeddings, read_table, vectors
from stac_latent.store.hilbert import hilbert_keys
from stac_latent.store.spool import Spool

__all__ = [
    "COLUMNS",
    "EmbeddingsWriter",
    "TableInfo",
    "VectorType",
    "read_embeddings",
    "read_table",
    "vectors",
]

VectorType = Literal["float16", "float32", "int8"]
MiB = 1024 * 1024
_TYPES = {3: "Polygon", 6: "MultiPolygon"}

COLUMNS = {
    "id": "Identifier of the row: item_id/row/col",
    "item_id": "Identifier of the STAC Item that the vector was computed from",
    "collection": "Collection of that Item",
    "datetime": "Time of that Item (the start, where it has a period)",
    "row": "Index of the first cell in the item's lattice, downwards; negative where a patch begins outside",
    "col": "Index of the first cell in the item's lattice, rightwards; negative where a patch begins outside",
    "valid": "Share of the footprint's pixels that hold data",
    "vector": "The vector",
    "scale": "Number that the int8 vector is multiplied by",
    "geometry": "Footprint in longitude and latitude (OGC:CRS84), as WKB",
    "bbox": "Bounds of the footprint, rounded outwards to float32",
}
"""What each column holds; ``scale`` is there for int8 only."""


def _schema(dimensions: int, dtype: VectorType) -> pa.Schema:
    value = {"float16": pa.float16(), "float32": pa.float32(), "int8": pa.int8()}[dtype]
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("collection", pa.string()),
        pa.field("datetime", pa.timestamp("us", tz="UTC")),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("col", pa.int32(), nullable=False),
        pa.field("valid", pa.float32(), nullable=False),
        pa.field("vector", pa.list_(pa.field("element", value, nullable=False), dimensions), nullable=False),
        pa.field("geometry", pa.binary(), nullable=False),
        pa.field(
            "bbox", pa.struct([pa.field(s, pa.float32(), nullable=False) for s in SIDES]), nullable=False
        ),
    ]
    if dtype == "int8":
        fields.insert(8, pa.field("scale", pa.float32(), nullable=False))
    return pa.schema(fields)


def _outwards(bounds: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float32]]:
    """West, south, east, north as float32 that contain the float64 box: covering must never miss a geometry."""
    out = []
    for side, values in enumerate(bounds.T):
        single = values.astype(np.float32)
        inward = single > values if side < 2 else single < values
        away = np.float32(-np.inf if side < 2 else np.inf)
        out.append(np.where(inward, np.nextafter(single, away), single))
    return out


def _stored(values: npt.NDArray[np.float32], dtype: VectorType) -> tuple[npt.NDArray[Any], Any]:
    """Vectors (n, k) as they are stored, and the scale (n,) of each or None."""
    if dtype == "int8":
        scale = np.abs(values).max(axis=1) / np.float32(127)
        return np.rint(values / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8), scale
    if dtype == "float16" and (peak := float(np.abs(values).max(initial=0))) > 65504:
        raise CatalogError(
            f"a vector holds {peak:g}, but float16 ends at 65504; publish with dtype='float32' or 'int8', or "
            "standardise the vectors"
        )
    return values.astype(dtype), None


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What was written: rows, their bounds in degrees, row groups, names and Parquet types of the columns."""

    rows: int
    bounds: BBox
    row_groups: int
    columns: tuple[tuple[str, str], ...]


class EmbeddingsWriter:
    """Writes one GeoParquet file of vectors, in Hilbert order, with memory bounded by the size of a row group.

    Rows are spooled to ``folder`` when they exceed ``row_group_bytes`` (see :class:`~stac_latent.store.spool.Spool`);
    the peak is about five times ``row_group_bytes`` above the batch that is appended, for any number of rows.

    Parameters
    ----------
    folder
        An existing folder for temporary runs; its owner deletes it.
    dimensions
        Length of each vector.
    dtype
        Stored type; ``"int8"`` adds a float32 ``scale`` for each vector, its largest magnitude / 127.
    compression_level
        Of Zstandard, 1 to 22.
    row_group_bytes
        Size of a row group in memory, before encoding.

    Raises
    ------
    CatalogError
        If an argument is out of range.
    """

    def __init__(
        self,
        folder: Path,
        dimensions: int,
        dtype: VectorType = "float16",
        *,
        compression_level: int = 15,
        row_group_bytes: int = 128 * MiB,
    ) -> None:
        if dtype not in ("float16", "float32", "int8"):
            raise CatalogError(f"cannot store vectors as {dtype!r}; dtype is 'float16', 'float32' or 'int8'")
        if not 4096 <= row_group_bytes <= 1024 * MiB:
            raise CatalogError(f"row_group_bytes is {row_group_bytes}; it must be between 4 KiB and 1 GiB")
        if not 1 <= compression_level <= 22:
            raise CatalogError(f"compression_level is {compression_level}; Zstandard knows 1 to 22")
        self._dtype, self._level, self._group = dtype, compression_level, row_group_bytes
        self._schema = _schema(dimensions, dtype)
        self._spool = Spool(folder, row_group_bytes // 2)
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self._types: set[str] = set()

    @property
    def rows(self) -> int:
        """Rows appended so far."""
        return self._spool.rows

    def append(
        self,
        item_id: str,
        collection: str | None,
        time: datetime | None,
        *,
        row: npt.NDArray[Any],
        col: npt.NDArray[Any],
        valid: npt.NDArray[Any],
        values: npt.NDArray[np.float32],
        geometry: npt.NDArray[np.object_],
    ) -> None:
        """Add the vectors of one item: ``values`` is (n, dimensions), the others (n,); geometry in OGC:CRS84.

        Raises
        ------
        CatalogError
            If a value does not fit into float16.
        """
        n = len(row)
        if n == 0:
            return
        bounds = shapely.bounds(geometry)
        low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
        self._bounds[:2], self._bounds[2:] = (
            np.minimum(self._bounds[:2], low),
            np.maximum(self._bounds[2:], high),
        )
        self._types |= {_TYPES[int(code)] for code in np.unique(shapely.get_type_id(geometry))}
        stored, scale = _stored(values, self._dtype)
        rows, cols = pa.array(row, pa.int32()), pa.array(col, pa.int32())
        item = pa.array([item_id] * n, pa.string())
        element = self._schema.field("vector").type
        columns: dict[str, pa.Array] = {
            "id": pc.binary_join_element_wise(item, rows.cast(pa.string()), cols.cast(pa.string()), "/"),
            "item_id": item,
            "collection": pa.array([collection] * n, pa.string()),
            "datetime": pa.array([time] * n, self._schema.field("datetime").type),
            "row": rows,
            "col": cols,
            "valid": pa.array(valid, pa.float32()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), type=element),
            "geometry": pa.array(shapely.to_wkb(geometry, byte_order=1), pa.binary()),
            "bbox": pa.StructArray.from_arrays(
                [pa.array(v) for v in _outwards(bounds)], fields=list(self._schema.field("bbox").type)
            ),
        }
        if scale is not None:
            columns["scale"] = pa.array(scale, pa.float32())
        table = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        self._spool.append(table, hilbert_keys(bounds))

    def _geo(self) -> dict[str, Any]:
        column = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types, reverse=True),
            "orientation": "counterclockwise",
            "edges": "planar",
            "bbox": self._bounds.tolist(),
            "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
        }
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}

    def _encodings(self) -> dict[str, Any]:
        """Options of the Parquet writer: encoding and statistics of each column."""
        vector = "vector.list.element"
        boxes = ["bbox." + side for side in SIDES]
        encoding = dict.fromkeys(boxes, "BYTE_STREAM_SPLIT") | {"geometry": "PLAIN", "id": "DELTA_BYTE_ARRAY"}
        dictionary = ["item_id", "collection", "datetime", "valid"]
        if self._dtype == "int8":
            dictionary.append(vector)
            encoding["scale"] = "BYTE_STREAM_SPLIT"
        else:
            encoding[vector] = "PLAIN" if self._dtype == "float16" else "BYTE_STREAM_SPLIT"
        compared = [n for n in self._schema.names if n not in ("vector", "geometry", "bbox")]
        return {
            "use_dictionary": dictionary,
            "column_encoding": encoding,
            "write_statistics": compared + boxes,
        }

    def finish(self, path: Path, footer: Mapping[str, Mapping[str, Any]]) -> TableInfo:
        """Write the file; ``footer`` holds JSON objects by key, besides ``geo``.

        Raises
        ------
        CatalogError
            If no row was appended.
        """
        if not self.rows:
            raise CatalogError("no vector to write: a table of embeddings has at least one row")
        keys = {"geo": self._geo(), **footer}
        schema = self._schema.with_metadata({k: json.dumps(v) for k, v in keys.items()})
        per_group = max(1, int(self._group / (self._spool.nbytes / self.rows)))
        groups = 0
        with pq.ParquetWriter(
            str(path),
            schema,
            compression="zstd",
            compression_level=self._level,
            write_page_index=True,
            write_page_checksum=True,
            **self._encodings(),
        ) as writer:
            for part in self._spool.drain(per_group):
                writer.write_table(part.replace_schema_metadata(schema.metadata), row_group_size=per_group)
                groups += 1
                del part  # before the next one is read
        columns = tuple((field.name, str(field.type)) for field in schema)
        west, south, east, north = self._bounds.tolist()
        return TableInfo(self.rows, (west, south, east, north), groups, columns)
