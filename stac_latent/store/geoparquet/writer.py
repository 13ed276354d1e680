"""GeoParquet 1.1 tables of vectors, written in Hilbert order with bounded memory.

One row for each vector, in the columns of :data:`COLUMNS`. The file says about itself what a reader needs, in four
footer keys: ``geo`` (GeoParquet 1.1, with a bounding-box covering), ``latent`` (the ``latent:`` fields), ``emb``
(names of the community's embedding specification) and ``row_groups`` (bounds of each row group). Pages carry checksums.

Encodings are the smallest among those that pyarrow, polars, DuckDB and geopandas all read: float32 is split into byte
streams; float16 is plain, since DuckDB (2.0) cannot read it split, which would save 7 % (polars reads float16 at all
from 1.31 on, 1.20 does not); int8 keeps its dictionary. Reading is in :mod:`stac_latent.store.embeddings`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from stac_latent.errors import CatalogError
from stac_latent.store.embeddings import SIDES, read_embeddings, read_table, vectors
from stac_latent.store.geoparquet.external_sort import KEY, ExternalSort
from stac_latent.store.geoparquet.hilbert import LEVEL, hilbert_keys, tile_name
from stac_latent.store.geoparquet.row_groups import GroupedFile, TableInfo
from stac_latent.store.geoparquet.vector_types import VectorType, offset_of, restored, stored

__all__ = [
    "COLUMNS",
    "EmbeddingsWriter",
    "TableInfo",
    "VectorType",
    "read_embeddings",
    "read_table",
    "vectors",
]

MiB = 1024 * 1024
FIRST = 1024
"""Rows of int8 that wait for an offset to be chosen."""
MOST_ZOOM = 15
_TYPES = {
    0: "Point", 1: "LineString", 3: "Polygon", 4: "MultiPoint", 5: "MultiLineString", 6: "MultiPolygon", 7: "GeometryCollection"
}  # fmt: skip

COLUMNS = {
    "id": "Identifier of the row: item_id/row/col",
    "item_id": "Identifier of the STAC Item that the vector was computed from",
    "collection": "Collection of that Item",
    "datetime": "Time of the row, or of that Item (the start, where it has a period)",
    "row": "Index of the first cell in the item's lattice, downwards; negative where a patch begins outside; number of the row where the "
    "item is a table",
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


def _repeated(name: str | None, count: int) -> pa.Array:
    try:
        return pa.array([name] * count, pa.string())
    except UnicodeEncodeError as exc:
        raise CatalogError(
            f"{name!r} holds half of a character, which Parquet does not have; correct the id"
        ) from exc


class EmbeddingsWriter:
    """Writes GeoParquet files of vectors, in Hilbert order, with bounded memory.

    Rows are spooled to ``folder`` (see :class:`~stac_latent.store.geoparquet.external_sort.ExternalSort`); the peak is about five times the larger of
    ``row_group_bytes`` and ``memory`` above the batch that is appended, for any number of rows.

    Parameters
    ----------
    folder
        An existing folder for temporary runs; its owner deletes it.
    dimensions
        Length of each vector.
    dtype
        Stored type; ``"int8"`` adds a float32 ``scale`` for each vector, its largest magnitude / 127, beyond :attr:`offset`.
    compression_level
        Of Zstandard, 1 to 22.
    row_group_bytes
        Size of a row group in memory, before encoding.
    zoom
        Of the tiles that the rows are parted into by :meth:`finish_tiles`; None for one file.
    memory
        Bytes of rows in memory before they are sorted and set aside, at most, and of what is sorted at a time when they come back.

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
        row_group_bytes: int = MiB,
        zoom: int | None = None,
        memory: int = 64 * MiB,
    ) -> None:
        if zoom is not None and not 0 <= zoom <= MOST_ZOOM:
            raise CatalogError(f"partition={zoom} is no zoom of WorldCRS84Quad; choose 0 to {MOST_ZOOM}")
        if dtype not in ("float16", "float32", "int8"):
            raise CatalogError(f"cannot store vectors as {dtype!r}; dtype is 'float16', 'float32' or 'int8'")
        if not 4096 <= row_group_bytes <= 1024 * MiB:
            raise CatalogError(f"row_group_bytes is {row_group_bytes}; it must be between 4 KiB and 1 GiB")
        if not 1 <= compression_level <= 22:
            raise CatalogError(f"compression_level is {compression_level}; Zstandard knows 1 to 22")
        self._dtype, self._level, self._group = dtype, compression_level, row_group_bytes
        self._schema = _schema(dimensions, dtype)
        self._spool = ExternalSort(folder, max(row_group_bytes // 2, memory))
        self._memory = memory
        self._shift = None if zoom is None else np.uint64(2 * (LEVEL - zoom - 1))
        self._zoom = zoom
        self._bounds: dict[int, npt.NDArray[np.float64]] = {}
        self._types: set[str] = set()
        self._rows = 0
        self._first: list[tuple[pa.Table, npt.NDArray[np.float32], npt.NDArray[np.uint64]]] | None = (
            [] if dtype == "int8" else None
        )
        self._offset: npt.NDArray[np.float32] | None = None

    @property
    def rows(self) -> int:
        """Rows appended so far."""
        return self._rows

    @property
    def offset(self) -> npt.NDArray[np.float32] | None:
        """What int8 vectors are counted from, (dimensions,); None for zero. It is that of the first rows, and settled when it is asked for."""
        self._settle()
        return self._offset

    def as_read(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Vectors (n, dimensions) as readers of the file get them."""
        symbols, scale = stored(values, self._dtype, self.offset)
        return restored(symbols, scale, self._offset)

    def append(
        self,
        item_id: str,
        collection: str | None,
        time: datetime | pa.Array | None,
        *,
        row: npt.NDArray[Any],
        col: npt.NDArray[Any],
        valid: npt.NDArray[Any],
        values: npt.NDArray[np.float32],
        geometry: npt.NDArray[np.object_],
    ) -> None:
        """Add the vectors of one item: ``values`` is (n, dimensions), the others (n,); geometry in OGC:CRS84; one time, or n.

        Raises
        ------
        CatalogError
            If a value does not fit into the type, or an id holds half of a character.
        """
        n = len(row)
        if n == 0:
            return
        bounds = shapely.bounds(geometry)
        keys = hilbert_keys(bounds)
        self._widen(bounds, keys)
        self._types |= {_TYPES[int(code)] for code in np.unique(shapely.get_type_id(geometry))}
        rows, cols = pa.array(row, pa.int32()), pa.array(col, pa.int32())
        item = _repeated(item_id, n)
        clock = self._schema.field("datetime").type
        columns: dict[str, pa.Array] = {
            "id": pc.binary_join_element_wise(item, rows.cast(pa.string()), cols.cast(pa.string()), "/"),
            "item_id": item,
            "collection": _repeated(collection, n),
            "datetime": time.cast(clock) if isinstance(time, pa.Array) else pa.array([time] * n, clock),
            "row": rows,
            "col": cols,
            "valid": pa.array(valid, pa.float32()),
            "geometry": pa.array(shapely.to_wkb(geometry, byte_order=1), pa.binary()),
            "bbox": pa.StructArray.from_arrays(
                [pa.array(v) for v in _outwards(bounds)], fields=list(self._schema.field("bbox").type)
            ),
        }
        self._rows += n
        if self._first is None:
            self._spool_rows(pa.table(columns), values, keys)
            return
        self._first.append((pa.table(columns), values, keys))
        if self._rows >= FIRST:
            self._settle()

    def _settle(self) -> None:
        """Choose the offset, and pass on the rows that waited for it."""
        if self._first is None:
            return
        waiting, self._first = self._first, None
        if waiting:
            self._offset = offset_of(np.concatenate([values for _, values, _ in waiting])[:FIRST])
        for columns, values, keys in waiting:
            self._spool_rows(columns, values, keys)

    def _spool_rows(
        self, columns: pa.Table, values: npt.NDArray[np.float32], keys: npt.NDArray[np.uint64]
    ) -> None:
        symbols, scale = stored(values, self._dtype, self._offset)
        element = self._schema.field("vector").type
        vector = pa.FixedSizeListArray.from_arrays(pa.array(symbols.ravel()), type=element)
        columns = columns.append_column("vector", vector)
        if scale is not None:
            columns = columns.append_column("scale", pa.array(scale, pa.float32()))
        self._spool.append(columns.select(self._schema.names).cast(self._schema), keys)

    def _widen(self, bounds: npt.NDArray[np.float64], keys: npt.NDArray[np.uint64]) -> None:
        """Note the bounds of rows, of each tile."""
        tiles = np.zeros(len(keys), np.uint64) if self._shift is None else keys >> self._shift
        for tile in np.unique(tiles):
            own = bounds[tiles == tile]
            low, high = own[:, :2].min(axis=0), own[:, 2:].max(axis=0)
            if (known := self._bounds.get(int(tile))) is not None:
                low, high = np.minimum(known[:2], low), np.maximum(known[2:], high)
            self._bounds[int(tile)] = np.concatenate([low, high])

    def _geo(self, bounds: npt.NDArray[np.float64]) -> dict[str, Any]:
        column = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types, reverse=True),
            "orientation": "counterclockwise",
            "edges": "planar",
            "bbox": bounds.tolist(),
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
        """Write one file; ``footer`` holds JSON objects by key, besides ``geo`` and ``row_groups``.

        Raises
        ------
        CatalogError
            If no row was appended.
        """
        self._settle()
        if not self.rows:
            raise CatalogError("no vector to write: a table of embeddings has at least one row")
        with self._file(path, footer, self._bounds[0]) as file:
            for part in self._parts():
                file.write(part.drop_columns([KEY]))
                del part  # before the next one is read
        return file.info

    def finish_tiles(self, folder: Path, footer: Mapping[str, Mapping[str, Any]]) -> dict[str, TableInfo]:
        """Write one file for each tile ``z-x-y`` that holds rows, as ``<folder>/tile=z-x-y/part-0.parquet``.

        Tiles are those of the OGC tile matrix set WorldCRS84Quad: 180 / 2^zoom degrees wide, x from the west, y from the north. A row
        belongs to the tile of the centre of its bounds.

        Raises
        ------
        CatalogError
            If no row was appended.
        """
        if self._shift is None or self._zoom is None:
            raise CatalogError("no tiles to write: the writer was made for one file")
        self._settle()
        if not self.rows:
            raise CatalogError("no vector to write: a table of embeddings has at least one row")
        out: dict[str, TableInfo] = {}
        with ExitStack() as stack:
            number, name, file = -1, "", None
            for part in self._parts():
                tiles = part[KEY].to_numpy() >> self._shift
                rows = part.drop_columns([KEY])
                del part
                cuts = [0, *(np.flatnonzero(np.diff(tiles)) + 1).tolist(), len(tiles)]
                for low, high in itertools.pairwise(cuts):
                    if file is None or int(tiles[low]) != number:
                        stack.close()
                        if file is not None:
                            out[name] = file.info
                        number = int(tiles[low])
                        name = tile_name(rows["geometry"][low].as_py(), self._zoom)
                        path = folder / f"tile={name}" / "part-0.parquet"
                        path.parent.mkdir(parents=True)
                        file = stack.enter_context(self._file(path, footer, self._bounds[number]))
                    file.write(rows.slice(low, high - low))
            stack.close()
            if file is not None:
                out[name] = file.info
        return out

    def _parts(self) -> Iterator[pa.Table]:
        """Rows in order, with their keys: whole row groups, as many as fit into the memory of the spool."""
        size = self._per_group * (self._spool.nbytes / self.rows)
        yield from self._spool.drain(self._per_group * max(1, int(self._memory / size)))

    @property
    def _per_group(self) -> int:
        return max(1, int(self._group / (self._spool.nbytes / self.rows)))

    def _file(
        self, path: Path, footer: Mapping[str, Mapping[str, Any]], bounds: npt.NDArray[np.float64]
    ) -> GroupedFile:
        keys = {"geo": self._geo(bounds), **footer}
        schema = self._schema.with_metadata({k: json.dumps(v) for k, v in keys.items()})
        options = self._encodings() | {"compression_level": self._level}
        return GroupedFile(path, schema, self._per_group, bounds, options)
