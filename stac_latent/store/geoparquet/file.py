"""Parquet files by others: opened with limits on what their footers may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from stac_latent.errors import CorruptDataError
from stac_latent.net.remote_file import open_binary
from stac_latent.system.links import is_local, local_path, shown

__all__ = ["UNREADABLE", "open_parquet", "parquet_at"]

UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError, MemoryError,
    pa.ArrowException, shapely.errors.ShapelyError,
)  # fmt: skip
"""What pyarrow and shapely raise for files that are not as they should be."""

_THRIFT = 64 << 20
"""Bytes of a text, and entries of a list, of a footer."""


def open_parquet(source: Any, name: str, *, most: int = 4 << 30, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file.

    Parameters
    ----------
    source
        Path or buffer.
    name
        What errors call it.
    most
        Bytes that a row group may take in memory.
    **options
        Of :class:`pyarrow.parquet.ParquetFile`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    CorruptDataError
        If the footer is not readable, or declares more than may be read at once.
    """
    try:
        file = pq.ParquetFile(
            source, thrift_string_size_limit=_THRIFT, thrift_container_size_limit=_THRIFT, **options
        )
        size, rows = _largest_group(file.metadata)
        file.schema_arrow  # noqa: B018 - parses it, so that what is wrong with it is found here
    except FileNotFoundError:
        raise
    except UNREADABLE as exc:
        raise CorruptDataError(
            f"{name} is no complete Parquet file ({exc}); fetch or publish it again"
        ) from exc
    if size > most or rows > most // 8:
        raise CorruptDataError(
            f"{name} declares row groups of {rows} rows and {size} bytes; at most {most} bytes are read at once"
        )
    return file


@contextmanager
def parquet_at(href: str) -> Iterator[pq.ParquetFile]:
    """As :func:`open_parquet`, of a path or an address."""
    if is_local(href):
        with open_parquet(local_path(href), href) as file:
            yield file
    else:
        with open_binary(href) as raw, open_parquet(raw, shown(href)) as file:
            yield file


def _largest_group(meta: pq.FileMetaData) -> tuple[int, int]:
    """Bytes and rows that the largest row groups declare.

    Metadata of columns is left alone: pyarrow ends the process where what a footer says of one is damaged.
    """
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    return max((g.total_byte_size for g in groups), default=0), max((g.num_rows for g in groups), default=0)
