"""Published vectors for the databases that search them: LanceDB and PostgreSQL with pgvector."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stac_latent.errors import CatalogError, SearchError
from stac_latent.index.table import PublishedTable, open_table
from stac_latent.store.embeddings import vectors
from stac_latent.system.files import replacing

__all__ = ["to_lancedb", "to_pgvector"]

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TYPES = {
    "id": "text PRIMARY KEY", "item_id": "text NOT NULL", "collection": "text", "datetime": "timestamptz",
    "row": "integer NOT NULL", "col": "integer NOT NULL", "valid": "real NOT NULL",
}  # fmt: skip
MOST_PGVECTOR = 16_000
MOST_INDEXED = 2_000


def to_lancedb(source: Any, uri: str | Path, name: str = "embeddings", *, overwrite: bool = False) -> Any:
    """Write published vectors to a LanceDB table, a row group at a time.

    Parameters
    ----------
    source
        As :func:`~stac_latent.index.table.open_table` takes it.
    uri
        Of the database: a folder, or what ``lancedb.connect`` takes.
    name
        Of the table. Its columns are those of the source, ``vector`` as float32; the space is in the schema's metadata.
    overwrite
        Replace a table of that name.

    Returns
    -------
    lancedb.table.Table

    Raises
    ------
    SearchError
        If lancedb is missing.
    CatalogError
        If the table exists and ``overwrite`` is False.
    """
    try:
        import lancedb
    except ImportError as exc:
        raise SearchError(
            "writing LanceDB needs the package lancedb: pip install 'stac-latent[lancedb]'"
        ) from exc
    table = open_table(source)
    schema = None
    database = lancedb.connect(str(uri))
    made = None
    for batch in _batches(table):
        if made is None:
            schema = batch.schema.with_metadata({"latent:space": table.space})
            try:
                made = database.create_table(
                    name, batch.cast(schema), mode="overwrite" if overwrite else "create"
                )
            except ValueError as exc:
                raise CatalogError(
                    f"LanceDB {uri} has a table {name!r} ({exc}); pass overwrite=True, or choose a name"
                ) from exc
        else:
            made.add(batch.cast(schema))
    return made


def _batches(table: PublishedTable) -> Iterator[pa.Table]:
    """Rows of each row group, with float32 vectors and without the columns that only GeoParquet needs."""
    names = [n for n in table.names() if n != "bbox"]
    for part, group in table.groups():
        rows = table.read(part, [group], names)
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors(rows).ravel()), table.dimensions)
        plain = rows.drop_columns([n for n in ("vector", "scale") if n in names])
        yield plain.append_column("vector", values).replace_schema_metadata()


def to_pgvector(source: Any, dest: Any, name: str = "embeddings", *, overwrite: bool = False) -> int:
    """Write published vectors for PostgreSQL with the extension pgvector.

    Parameters
    ----------
    source
        As :func:`~stac_latent.index.table.open_table` takes it.
    dest
        Path of an SQL file to write, for ``psql -f``; or an open psycopg connection, which is not committed.
    name
        Of the table: lower-case letters, digits and underscores. It has the columns of the source with ``vector vector(k)``, and
        ``geometry bytea`` (WKB, OGC:CRS84). The space is the table's comment.
    overwrite
        Replace a table, or a file, of that name.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    CatalogError
        If the name is none, the file exists, a vector holds NaN or infinity, or the server lacks the extension: pgvector is installed
        beside the server, not from Python.
    SearchError
        If vectors are longer than pgvector allows (16,000).
    """
    table = open_table(source)
    if not _NAME.fullmatch(name):
        raise CatalogError(f"{name!r} is no name of a table: use lower-case letters, digits and underscores")
    if table.dimensions > MOST_PGVECTOR:
        raise SearchError(
            f"pgvector holds vectors of at most {MOST_PGVECTOR} values; these have {table.dimensions}"
        )
    if not isinstance(dest, str | Path):
        return _to_server(table, dest, name, overwrite=overwrite)
    path = Path(dest)
    if path.exists() and not overwrite:
        raise CatalogError(f"{path} exists; pass overwrite=True to replace it, or choose another name")
    count = 0
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(_create(table, name, overwrite=overwrite)) + "\n" + _copy(name) + ";\n")
        for line in _lines(table):
            file.write(line)
            count += 1
        file.write("\\.\n" + _comment(table, name) + "\n")
    return count


def _create(table: PublishedTable, name: str, *, overwrite: bool) -> list[str]:
    columns = [f'  "{n}" {kind}' for n, kind in _TYPES.items()]
    columns += [f'  "vector" vector({table.dimensions}) NOT NULL', '  "geometry" bytea NOT NULL']
    drop = [f'DROP TABLE IF EXISTS "{name}";'] if overwrite else []
    return [
        "CREATE EXTENSION IF NOT EXISTS vector;",
        *drop,
        f'CREATE TABLE "{name}" (',
        ",\n".join(columns),
        ");",
    ]


def _copy(name: str) -> str:
    columns = ", ".join(f'"{n}"' for n in (*_TYPES, "vector", "geometry"))
    return f'COPY "{name}" ({columns}) FROM STDIN'


def _comment(table: PublishedTable, name: str) -> str:
    space = table.space.replace("'", "''")
    note = f'-- then, for approximate searches: CREATE INDEX ON "{name}" USING hnsw ("vector" vector_cosine_ops);\n'
    return (
        note if table.dimensions <= MOST_INDEXED else ""
    ) + f"COMMENT ON TABLE \"{name}\" IS 'latent:space {space}';"


def _lines(table: PublishedTable) -> Iterator[str]:
    """Rows in the text format of COPY."""
    for batch in _batches(table):
        fields = [batch[n].to_pylist() for n in (*_TYPES, "geometry")]
        values = batch["vector"].combine_chunks().flatten().to_numpy().reshape(-1, table.dimensions)
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            raise CatalogError(
                f"row {batch['id'][int(np.argmin(finite))].as_py()!r} of {table.name} holds NaN or infinity, which pgvector refuses; "
                "publish the table with invalid='drop', and write it again"
            )
        for i, (*plain, wkb) in enumerate(zip(*fields, strict=True)):
            vector = "[" + ",".join(f"{v:.9g}" for v in values[i].tolist()) + "]"
            yield "\t".join([*map(_escaped, plain), vector, "\\\\x" + wkb.hex()]) + "\n"


def _escaped(value: Any) -> str:
    if value is None:
        return "\\N"
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _to_server(table: PublishedTable, connection: Any, name: str, *, overwrite: bool) -> int:
    import psycopg

    extension, *rest = _create(table, name, overwrite=overwrite)
    count = 0
    with connection.cursor() as cursor:
        try:
            cursor.execute(extension)
        except psycopg.Error as exc:
            raise CatalogError(
                f"the PostgreSQL server has no extension pgvector ({str(exc).strip().splitlines()[0]}); install it beside the "
                "server (package postgresql-NN-pgvector), or write an SQL file and load it elsewhere"
            ) from exc
        try:
            cursor.execute("\n".join(rest))
        except psycopg.errors.DuplicateTable as exc:
            raise CatalogError(
                f"the database has a table {name!r}; pass overwrite=True, or choose another name"
            ) from exc
        with cursor.copy(_copy(name)) as copy:
            for line in _lines(table):
                copy.write(line)
                count += 1
        cursor.execute(_comment(table, name))
    return count
