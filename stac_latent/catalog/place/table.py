"""A table of points as it is given: where each lies, when, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from stac_latent.cube.grid.points import PlacedPoints
from stac_latent.errors import CatalogError
from stac_latent.geo.crs import crs_text
from stac_latent.system.suggest import did_you_mean

__all__ = ["Columns", "PointTable", "point_table"]

_LONLAT = "EPSG:4326"
_X, _Y = ("lon", "longitude"), ("lat", "latitude")
_CELL = 0.1
"""Degrees of the cells in which Items are searched for."""
_CELLS = 50
"""Cells of a search, at most; more are searched as one box."""
_MARGIN = 0.01
"""Degrees by which a footprint may be short of its pixels."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what; None where they are to be found by their usual names."""

    lon: str | None = None
    lat: str | None = None
    crs: Any = None
    time: str | None = None
    point: str | None = None


@dataclass(frozen=True)
class PointTable:
    """Points, by position in their table."""

    places: PlacedPoints
    names: npt.NDArray[Any]
    """What each is called; need not be unique."""
    times: npt.NDArray[np.int64] | None
    """Microseconds since 1970, UTC; None where there are none."""

    def __len__(self) -> int:
        return len(self.places)

    def area(self) -> BaseGeometry:
        """Where Items are to be searched for, in longitude and latitude: cells that hold points, or one box of them all."""
        x, y = self.places.in_crs(_LONLAT)
        good = np.isfinite(x) & np.isfinite(y)
        if not good.any():
            raise CatalogError(
                f"none of {len(self)} points lies where {self.places.crs.name} has a place on the globe"
            )
        lon, lat = (x[good] + 180) % 360 - 180, np.clip(y[good], -90, 90)
        cells = np.unique(np.floor(np.stack([lon, lat], axis=1) / _CELL), axis=0) * _CELL
        if len(cells) > _CELLS:
            cells, far = np.array([[lon.min(), lat.min()]]), np.array([[lon.max(), lat.max()]])
        else:
            far = cells + _CELL
        ends = [
            np.clip(v, -m, m)
            for v, m in zip((*(cells - _MARGIN).T, *(far + _MARGIN).T), (180, 90, 180, 90), strict=True)
        ]
        area: BaseGeometry = shapely.union_all(shapely.box(*ends))
        return area


def point_table(table: Any, columns: Columns) -> PointTable:
    """Read a table.

    Parameters
    ----------
    table
        DataFrame with longitudes and latitudes, or GeoDataFrame of points.
    columns
        Which columns say what.

    Raises
    ------
    CatalogError
        If it is no table, has no rows, lacks a column, or rows have no place or no time; the first such row is named.
    """
    import geopandas

    if not isinstance(table, pd.DataFrame):
        raise CatalogError(
            f"a table of points is a pandas DataFrame or a GeoDataFrame, got {type(table).__name__}; make one with "
            "pandas.DataFrame({'lon': [...], 'lat': [...]})"
        )
    if not len(table):
        raise CatalogError("the table of points has no rows")
    if isinstance(table, geopandas.GeoDataFrame) and columns.lon is None and columns.lat is None:
        places = _of_geometry(table, columns.crs)
    else:
        places = _of_columns(table, columns)
    times = None if columns.time is None else _times(_column(table, columns.time, "time"), columns.time)
    names = table.index if columns.point is None else _column(table, columns.point, "point")
    return PointTable(places, names.to_numpy(), times)


def _of_geometry(table: Any, crs: Any) -> PlacedPoints:
    try:
        shapes = table.geometry
    except AttributeError as exc:
        raise CatalogError(
            f"the GeoDataFrame has no geometry; it has {_listed(table.columns)}: set one with set_geometry, or name lon= and lat="
        ) from exc
    if crs is not None:
        raise CatalogError(
            "crs= was given with a GeoDataFrame, which says its own: leave it out, or use table.to_crs"
        )
    if table.crs is None:
        raise CatalogError("the GeoDataFrame has no CRS; say which with table.set_crs('EPSG:4326')")
    kinds = shapes.geom_type.fillna("none").to_numpy()
    if (kinds != "Point").any():
        at = int(np.flatnonzero(kinds != "Point")[0])
        raise CatalogError(
            f"{int((kinds != 'Point').sum())} of {len(table)} rows are no points: row {at} is {kinds[at]}; take "
            "table.representative_point(), or drop them"
        )
    return _placed(shapes.x.to_numpy(), shapes.y.to_numpy(), ("geometry", "geometry"), crs_text(table.crs))


def _of_columns(table: pd.DataFrame, columns: Columns) -> PlacedPoints:
    crs = _LONLAT if columns.crs is None else crs_text(columns.crs)
    usual = (_X, _Y) if CRS(crs).is_geographic else (("x",), ("y",))
    names = [
        given if given is not None else _usual(table, known, option)
        for given, known, option in zip((columns.lon, columns.lat), usual, ("lon", "lat"), strict=True)
    ]
    x, y = (
        _numbers(_column(table, name, option), name)
        for name, option in zip(names, ("lon", "lat"), strict=True)
    )
    return _placed(x, y, (names[0], names[1]), crs)


def _usual(table: pd.DataFrame, known: Sequence[str], option: str) -> str:
    """The one of some names that a table has."""
    found = [name for name in known if name in table.columns]
    if len(found) == 1:
        return found[0]
    named = " or ".join(map(repr, known))
    if found:
        raise CatalogError(f"the table has both columns {named}; say which with {option}=")
    near = {did_you_mean(str(c), known): c for c in table.columns if did_you_mean(str(c), known)}
    meant = f" (did you mean {next(iter(near.values()))!r}?)" if near else ""
    raise CatalogError(
        f"the table has no column {named}{meant}; it has {_listed(table.columns)}: name the column with {option}="
    )


def _column(table: pd.DataFrame, name: str, option: str) -> Any:
    if name not in table.columns:
        raise CatalogError(
            f"the table has no column {name!r}{did_you_mean(name, table.columns)}, which {option}= names; it has {_listed(table.columns)}"
        )
    if (count := list(table.columns).count(name)) > 1:
        raise CatalogError(f"the table has {count} columns {name!r}; give each a name of its own")
    return table[name]


def _numbers(column: Any, name: str) -> npt.NDArray[np.float64]:
    found = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    text = np.isnan(found) & column.notna().to_numpy()
    if text.any():
        at = int(np.flatnonzero(text)[0])
        raise CatalogError(f"column {name!r} must be numbers; row {at} holds {str(column.iloc[at])[:60]!r}")
    return np.asarray(found)


def _placed(x: Any, y: Any, names: tuple[str, str], crs: str) -> PlacedPoints:
    bad = ~(np.isfinite(x) & np.isfinite(y))
    if bad.any():
        raise CatalogError(
            f"{int(bad.sum())} of {len(x)} rows have no place ({' or '.join(dict.fromkeys(names))} is missing or infinite), the first is row "
            f"{int(np.flatnonzero(bad)[0])}; drop them first, as with table.dropna(subset={sorted(set(names))})"
        )
    if CRS(crs).is_geographic:
        far = (np.abs(y) > 90) | (np.abs(x) > 360)
        if far.any():
            at = int(np.flatnonzero(far)[0])
            swapped = (
                "; the two columns seem to be swapped"
                if (np.abs(x) <= 90).all() and (np.abs(y) <= 360).all()
                else ""
            )
            raise CatalogError(
                f"{int(far.sum())} of {len(x)} rows are no longitude and latitude in degrees, the first is row {at} with longitude {x[at]:.10g} "
                f"and latitude {y[at]:.10g}{swapped}; coordinates in metres need crs="
            )
    return PlacedPoints(np.asarray(x, np.float64), np.asarray(y, np.float64), crs)


def _times(column: Any, name: str) -> npt.NDArray[np.int64]:
    """Microseconds in UTC; times without a zone are taken for UTC."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise CatalogError(
            f"column {name!r} holds numbers ({column.iloc[0]!r} in row 0); expected times such as '2024-06-01' or '2024-06-01T10:00:00+02:00'"
        )
    found = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601" if _is_text(column) else None)
    missing = found.isna().to_numpy()
    if missing.any():
        at = int(np.flatnonzero(missing)[0])
        raise CatalogError(
            f"{int(missing.sum())} of {len(found)} rows have no time in column {name!r}, the first is row {at} with {str(column.iloc[at])[:60]!r}; "
            "expected such as '2024-06-01' or '2024-06-01T10:00:00Z'"
        )
    return found.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)  # type: ignore[no-any-return]


def _is_text(column: Any) -> bool:
    return bool(pd.api.types.is_string_dtype(column.dtype) or pd.api.types.is_object_dtype(column.dtype))


def _listed(columns: Any) -> str:
    names = [str(c) for c in columns]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"
