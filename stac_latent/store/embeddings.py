"""Reading embeddings files by place: only the row groups that a box may touch, int8 multiplied out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from stac_latent.errors import CatalogError, CorruptDataError

if TYPE_CHECKING:
    import geopandas

__all__ = ["SIDES", "BBox", "read_embeddings", "read_every", "read_table", "table_size", "vectors"]

BBox = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east where it crosses the antimeridian."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
"""Fields of the covering, in the order of the specification."""


def _open(path: str | Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(str(path), page_checksum_verification=True)
    except FileNotFoundError as exc:
        raise CatalogError(
            f"no embeddings file at {path}; give the path of a published .parquet file"
        ) from exc
    except pa.ArrowInvalid as exc:
        raise CorruptDataError(
            f"{path} is no complete Parquet file ({exc}); fetch or publish it again"
        ) from exc
    if b"latent" not in (file.schema_arrow.metadata or {}):
        file.close()
        raise CatalogError(f"{path} has no 'latent' footer; only files written by publish can be read here")
    return file


def _groups_in(file: pq.ParquetFile, bbox: BBox) -> list[int]:
    """Row groups whose rows may touch the box, by the covering's statistics; those without statistics stay."""
    meta = file.metadata
    at = (
        {meta.row_group(0).column(i).path_in_schema: i for i in range(meta.num_columns)}
        if meta.num_row_groups
        else {}
    )
    out = []
    for group in range(meta.num_row_groups):
        stats = [meta.row_group(group).column(at["bbox." + side]).statistics for side in SIDES]
        if any(s is None or not s.has_min_max for s in stats):
            out.append(group)
            continue
        west, south, east, north = stats[0].min, stats[1].min, stats[2].max, stats[3].max
        apart = south > bbox[3] or north < bbox[1]
        if not apart and any(west <= e and east >= w for w, e in _spans(bbox)):
            out.append(group)
    return out


def _spans(bbox: BBox) -> list[tuple[float, float]]:
    """Ranges of longitude of a box: two where it crosses the antimeridian (west > east)."""
    west, east = bbox[0], bbox[2]
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]


def _touching(table: pa.Table, bbox: BBox) -> pa.Table:
    box = {side: pc.struct_field(table["bbox"], side).to_numpy() for side in SIDES}
    east_west = [(box["xmin"] <= e) & (box["xmax"] >= w) for w, e in _spans(bbox)]
    return table.filter(np.any(east_west, axis=0) & (box["ymin"] <= bbox[3]) & (box["ymax"] >= bbox[1]))


def read_table(path: str | Path, columns: Sequence[str] | None = None, bbox: BBox | None = None) -> pa.Table:
    """Rows of an embeddings file as an Arrow table, as they are stored.

    Parameters
    ----------
    path
        A file written by :func:`stac_latent.publish`.
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
    with _open(path) as file:
        names = file.schema_arrow.names
        wanted = list(names if columns is None else columns)
        if unknown := [c for c in wanted if c not in names]:
            raise CatalogError(f"{path} has no columns {unknown}; it has {names}")
        try:
            if bbox is None:
                return file.read(columns=wanted)
            table = file.read_row_groups(_groups_in(file, bbox), columns=[*wanted, *({"bbox"} - set(wanted))])
        except (OSError, pa.ArrowInvalid) as exc:
            raise CorruptDataError(f"{path} holds damaged data ({exc}); fetch or publish it again") from exc
    return _touching(table, bbox).select(wanted)


def table_size(path: str | Path) -> tuple[int, int]:
    """Rows of an embeddings file and values of each vector, from its footer alone.

    Raises
    ------
    CorruptDataError, CatalogError
        As :func:`read_table`.
    """
    with _open(path) as file:
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
    with _open(path) as file:
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
    """The ``vector`` column as one (n, k) float32 array; int8 is multiplied by the table's ``scale``.

    Raises
    ------
    CatalogError
        If the column is missing, or an int8 vector comes without its scale.
    """
    if "vector" not in table.column_names:
        raise CatalogError(f"the table has no column 'vector'; it has {table.column_names}")
    column = table["vector"].combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    size = column.type.list_size
    out = np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, size).astype(np.float32)
    if column.type.value_type == pa.int8():
        if "scale" not in table.column_names:
            raise CatalogError("int8 vectors need the column 'scale': read it with the vectors")
        out *= table["scale"].to_numpy()[:, None]
    return out


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

    with _open(path) as file:
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
