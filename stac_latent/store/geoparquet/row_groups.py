"""One Parquet file of vectors while it is written: rows come in order, and leave in row groups of equal size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stac_latent.store.embeddings import SIDES, BBox

__all__ = ["GroupedFile", "TableInfo"]


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What was written: rows, their bounds in degrees, row groups, names and Parquet types of the columns."""

    rows: int
    bounds: BBox
    row_groups: int
    columns: tuple[tuple[str, str], ...]


class GroupedFile:
    """One file while it is written: rows come in order, and leave in groups of equal size."""

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        per_group: int,
        bounds: npt.NDArray[np.float64],
        options: Mapping[str, Any],
    ) -> None:
        self._schema, self._per_group, self._bounds = schema, per_group, bounds
        self._boxes: list[list[float]] = []
        self._rest: pa.Table | None = None
        self._rows = 0
        self._writer = pq.ParquetWriter(
            str(path), schema, compression="zstd", write_page_index=True, write_page_checksum=True, **options
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            if self._rest is not None:
                self._group(self._rest)
            self._writer.add_key_value_metadata({"row_groups": json.dumps({"bbox": self._boxes})})
        self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows; what does not fill a group waits."""
        if self._rest is not None:
            rows = pa.concat_tables([self._rest, rows])
        whole = rows.num_rows // self._per_group * self._per_group
        for start in range(0, whole, self._per_group):
            self._group(rows.slice(start, self._per_group))
        self._rest = rows.slice(whole) if whole < rows.num_rows else None

    def _group(self, rows: pa.Table) -> None:
        named = rows.replace_schema_metadata(self._schema.metadata)
        self._writer.write_table(named, row_group_size=rows.num_rows)
        box = [pc.struct_field(rows["bbox"], side) for side in SIDES]
        self._boxes.append([float((pc.min(v) if i < 2 else pc.max(v)).as_py()) for i, v in enumerate(box)])
        self._rows += rows.num_rows

    @property
    def info(self) -> TableInfo:
        """What was written."""
        columns = tuple((field.name, str(field.type)) for field in self._schema)
        west, south, east, north = self._bounds.tolist()
        return TableInfo(self._rows, (west, south, east, north), len(self._boxes), columns)
