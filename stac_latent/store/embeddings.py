"""Reading embeddings files by place: only the row groups that a box may touch, int8 multiplied out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.store.geoparquet.file import UNREADABLE, open_parquet
from stac_latent.store.geoparquet.vector_types import restored

if TYPE_CHECKING:
    import geopandas

__all__ = [
    "SIDES",
    "BBox",
    "groups_in",
    "offset_in",
    "open_embeddings",
    "read_embeddings",
    "read_every",
    "read_table",
    "symbols",
    "table_size",
    "vectors",
]

BBox = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east where it crosses the antimeridian."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
"""Fields of the covering, in the order of the specification."""


def open_embeddings(path: Any) -> pq.ParquetFile:
    """Open a file that was written by :func:`stac_latent.publish`.

    Raises
    ------
    CatalogError
        If there is none, or it has no ``latent`` footer.
    CorruptDataError
        If it is no complete Parquet file.
    """
    try:
        source = path if hasattr(path, "read") else str(path)
        file = open_parquet(source, str(path), page_checksum_verification=True)
    except FileNotFoundError as exc:
        raise CatalogError(
            f"no embeddings file at {path}; give the path of a published .parquet file"
        ) from exc
    footer = (file.schema_arrow.metadata or {}).get(b"latent")
    if footer is not None and b"latent:quantization_offset" in footer:
        _check_joined(file, footer, path)
    if footer is None:
        file.close()
        raise CatalogError(
            f"{path} has no 'latent' footer; only files written by publish can be read here: one of another producer is adopted first "
            "(stac-latent adopt PRODUCT FILE others), and then published (stac-latent publish others/catalog.json vectors.parquet)"
        )
    return file


def _check_joined(file: pq.ParquetFile, footer: bytes, path: Any) -> None:
    """Refuse files that were joined of several: each has an offset of its own, and the footer is that of the first."""
    try:
        told = int(json.loads(footer)["latent:shape"][0])
    except UNREADABLE as exc:
        raise CorruptDataError(
            f"the 'latent' footer of {path} cannot be read ({exc}); publish it again"
        ) from exc
    if file.metadata.num_rows > told:
        file.close()
        raise CorruptDataError(
            f"{path} holds {file.metadata.num_rows} rows of int8, and its footer is of {told}: tables with offsets of their own were joined; "
            "publish their sources together, or search the files without joining them"
        )


def groups_in(file: pq.ParquetFile, bbox: BBox) -> list[int]:
    """Row groups with rows that may touch the box, by the bounds in the footer ``row_groups``, or by the rows' own."""
    boxes = _group_boxes(file)
    if boxes is None:
        groups = range(file.metadata.num_row_groups)
        return [g for g in groups if _touching(file.read_row_group(g, columns=["bbox"]), bbox).num_rows]
    west, south, east, north = boxes.T
    hit = (south <= bbox[3]) & (north >= bbox[1])
    across = np.any([(west <= e) & (east >= w) for w, e in _spans(bbox)], axis=0)
    return [int(g) for g in np.flatnonzero(hit & across)]


def _group_boxes(file: pq.ParquetFile) -> npt.NDArray[np.float64] | None:
    """Bounds (row group, 4) as the footer states them; None where it does not."""
    try:
        boxes = np.array(json.loads((file.metadata.metadata or {})[b"row_groups"])["bbox"], dtype=np.float64)
    except (KeyError, ValueError, TypeError):
        return None
    return boxes if boxes.shape == (file.metadata.num_row_groups, 4) else None


def _spans(bbox: BBox) -> list[tuple[float, float]]:
    """Ranges of longitude of a box: two where it crosses the antimeridian (west > east)."""
    west, east = bbox[0], bbox[2]
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]


def _touching(table: pa.Table, bbox: BBox) -> pa.Table:
    box = {side: pc.struct_field(table["bbox"], side).to_numpy() for side in SIDES}
    east_west = [(box["xmin"] <= e) & (box["xmax"] >= w) for w, e in _spans(bbox)]
    return table.filter(np.any(east_west, axis=0) & (box["ymin"] <= bbox[3]) & (box["ymax"] >= bbox[1]))


def read_table(path: Any, columns: Sequence[str] | None = None, bbox: BBox | None = None) -> pa.Table:
    """Rows of an embeddings file as an Arrow table, as they are stored.

    Parameters
    ----------
    path
        A file written by :func:`stac_latent.publish`: its path, or the file opened for reading.
    columns
        Names of columns; all by default.
    bbox
        West, south, east, north in degrees; west > east crosses the antimeridian. Only row groups that may touch the
        box are read; rows whose bounds touch it are returned.

    Returns
    -------
    pyarrow.Table
        With the footer keys in ``table.schema.metadata``.

    Raises
    ------
    CorruptDataError
        If the file is no complete Parquet file, or the checksum of a page does not hold.
    CatalogError
        If it has no ``latent`` footer, or not the wanted columns.
    """
    with open_embeddings(path) as file:
        names = file.schema_arrow.names
        wanted = list(names if columns is None else columns)
        if unknown := [c for c in wanted if c not in names]:
            raise CatalogError(f"{path} has no columns {unknown}; it has {names}")
        try:
            if bbox is None:
                return file.read(columns=wanted)
            table = file.read_row_groups(groups_in(file, bbox), columns=[*wanted, *({"bbox"} - set(wanted))])
        except UNREADABLE as exc:
            raise CorruptDataError(f"{path} holds damaged data ({exc}); fetch or publish it again") from exc
    return _touching(table, bbox).select(wanted)


def symbols(table: pa.Table) -> npt.NDArray[Any]:
    """The ``vector`` column as one (n, k) array of its stored type.

    Raises
    ------
    CatalogError
        If the column is missing.
    CorruptDataError
        If it does not hold lists of one length in each row, or holds nulls.
    """
    if "vector" not in table.column_names:
        raise CatalogError(f"the table has no column 'vector'; it has {table.column_names}")
    column = table["vector"].combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    wrong = f"the column 'vector' is {column.type}; expected lists of one length in each row"
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if len(lengths) and not (lengths == lengths[0]).all():
            odd = int(np.argmax(lengths != lengths[0]))
            raise CorruptDataError(f"{wrong}: row 0 holds {lengths[0]:g}, row {odd} {lengths[odd]:g} values")
        size = int(lengths[0]) if len(lengths) else 0
    elif pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size
    else:
        raise CorruptDataError(wrong)
    flat = column.flatten()
    if column.null_count or flat.null_count:
        raise CorruptDataError(f"{wrong}, and no null")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), size)


def table_size(path: str | Path) -> tuple[int, int]:
    """Rows of an embeddings file and values of each vector, from its footer alone.

    Raises
    ------
    CorruptDataError, CatalogError
        As :func:`read_table`.
    """
    with open_embeddings(path) as file:
        if "vector" not in file.schema_arrow.names:
            raise CatalogError(f"{path} has no column 'vector'; it has {file.schema_arrow.names}")
        return file.metadata.num_rows, file.schema_arrow.field("vector").type.list_size


def read_every(path: str | Path, columns: Sequence[str], step: int) -> pa.Table:
    """Every ``step``-th row of an embeddings file, read in batches: rows between are not kept.

    Parameters
    ----------
    path
        A file written by :func:`stac_latent.publish`.
    columns
        Names of columns; those that the file has not are left out.
    step
        1 or more; rows 0, step, 2 step, ... are returned.

    Raises
    ------
    CorruptDataError, CatalogError
        As :func:`read_table`.
    """
    with open_embeddings(path) as file:
        wanted = [c for c in columns if c in file.schema_arrow.names]
        parts, first = [], 0
        try:
            for batch in file.iter_batches(columns=wanted):
                parts.append(batch.take(pa.array(np.arange(-first % step, len(batch), step))))
                first += len(batch)
        except (OSError, pa.ArrowInvalid) as exc:
            raise CorruptDataError(f"{path} holds damaged data ({exc}); fetch or publish it again") from exc
        schema = pa.schema([file.schema_arrow.field(c) for c in wanted], file.schema_arrow.metadata)
    return pa.Table.from_batches(parts, schema=parts[0].schema if parts else schema).replace_schema_metadata(
        schema.metadata
    )


def vectors(table: pa.Table) -> npt.NDArray[np.float32]:
    """The ``vector`` column as one (n, k) float32 array; int8 is multiplied by the table's ``scale``, and its footer's offset added.

    Raises
    ------
    CatalogError
        If the column is missing, or an int8 vector comes without its scale or the footer.
    CorruptDataError
        If it does not hold lists of one length in each row.
    """
    stored = symbols(table)
    if stored.dtype != np.int8:
        return restored(stored)
    if "scale" not in table.column_names:
        raise CatalogError("int8 vectors need the column 'scale': read it with the vectors")
    footer = (table.schema.metadata or {}).get(b"latent")
    if footer is None:
        raise CatalogError(
            "int8 vectors need the footer 'latent', which says what they are counted from: read it with them"
        )
    return restored(stored, table["scale"].to_numpy(), offset_in(json.loads(footer)))


def offset_in(latent: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """What the int8 vectors of a file are counted from, (k,), by its ``latent`` footer; None for zero.

    Raises
    ------
    CorruptDataError
        If it is no list of finite numbers, one for each channel.
    """
    said = latent.get("latent:quantization_offset")
    if said is None:
        return None
    try:
        found = np.array(said, np.float32)
    except (TypeError, ValueError):
        found = np.empty(0, np.float32)
    if found.shape != (latent.get("latent:dimensions"),) or not np.isfinite(found).all():
        raise CorruptDataError(
            f"the 'latent' footer has latent:quantization_offset {str(said)[:80]}; expected a number for each of "
            f"{latent.get('latent:dimensions')} channels: publish it again"
        )
    return found


def read_embeddings(
    path: str | Path, columns: Sequence[str] | None = None, bbox: BBox | None = None
) -> geopandas.GeoDataFrame:
    """Rows of an embeddings file as a GeoDataFrame in OGC:CRS84, vectors as float32 arrays.

    Parameters
    ----------
    path, columns, bbox
        As in :func:`read_table`; ``geometry`` is always read. int8 vectors are dequantised, and ``scale`` is left out.

    Returns
    -------
    geopandas.GeoDataFrame
        ``vector`` holds one float32 array of k values in each row; ``attrs["latent"]`` is the file's footer.

    Raises
    ------
    CatalogError, CorruptDataError
        As :func:`read_table`.
    """
    import geopandas

    with open_embeddings(path) as file:
        names = file.schema_arrow.names
    wanted = (
        [c for c in names if c != "bbox"] if columns is None else list(dict.fromkeys([*columns, "geometry"]))
    )
    scale = ["scale"] if "vector" in wanted and "scale" in names and "scale" not in wanted else []
    table = read_table(path, wanted + scale, bbox)
    made_here = {"geometry", "vector", "scale"} if "vector" in wanted else {"geometry"}
    frame = table.select([c for c in wanted if c not in made_here]).to_pandas()
    if "vector" in wanted:
        frame["vector"] = list(vectors(table))
    geometry = shapely.from_wkb(table["geometry"].to_numpy())
    out = geopandas.GeoDataFrame(frame, geometry=geometry, crs="OGC:CRS84")
    out.attrs["latent"] = json.loads(table.schema.metadata[b"latent"])
    return out
