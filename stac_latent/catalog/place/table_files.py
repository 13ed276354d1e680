"""Tables of points and of values as files: CSV, GeoJSON and Parquet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from stac_latent.errors import CatalogError
from stac_latent.system.files import replacing, writing

__all__ = ["check_output", "read_table", "write_table"]

_VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
_PARQUET = (".parquet", ".geoparquet")


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of points: CSV, GeoJSON or another vector file, Parquet or GeoParquet.

    Raises
    ------
    CatalogError
        If there is no such file, its ending is another, or it cannot be read.
    """
    file = Path(path)
    ending = file.suffix.lower()
    if ending not in (".csv", *_VECTORS, *_PARQUET):
        raise CatalogError(
            f"table {str(path)!r} must end with .csv, {', '.join((*_VECTORS, *_PARQUET))}; the ending says how it is read"
        )
    if not file.is_file():
        raise CatalogError(f"no such file: {path}; expected a table of points")
    try:
        return _read(file, ending)
    except (ValueError, OSError, RuntimeError, TypeError) as exc:  # pandas, pyarrow and pyogrio raise these
        raise CatalogError(f"table {str(path)!r} cannot be read: {type(exc).__name__}: {exc}") from exc


def _read(file: Path, ending: str) -> pd.DataFrame:
    if ending == ".csv":
        return pd.read_csv(file)
    import geopandas
    import pyarrow.parquet as pq

    read: Any = geopandas.read_file
    if ending in _PARQUET:
        placed = b"geo" in (pq.read_schema(file).metadata or {})
        read = geopandas.read_parquet if placed else pd.read_parquet
    found: pd.DataFrame = read(file)
    if len(found.columns) == 0:
        raise ValueError("it has no columns")
    return found


def check_output(path: str | os.PathLike[str], *, vectors: bool = False) -> str:
    """The ending of a file that values are to be written to.

    Raises
    ------
    CatalogError
        If values cannot be written so.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise CatalogError(f"{str(path)!r} must end with .csv or .parquet; the ending is the format")
    if vectors and ending == ".csv":
        raise CatalogError(f"{str(path)!r}: a CSV file holds no vectors; write a .parquet")
    return ending


def write_table(values: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write values as CSV or Parquet, complete or not at all; errors as of :func:`check_output`."""
    dest: Any = Path(path)
    ending = check_output(dest, vectors="latent" in values)
    with writing(dest), replacing(dest, parents=True) as part:
        if ending == ".csv":
            values.to_csv(part, index=False)
        else:
            values.to_parquet(part, index=False)
