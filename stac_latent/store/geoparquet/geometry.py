"""Where the geometry of a Parquet file is: by its GeoParquet footer, or by the logical types that Parquet itself has.

Footers are written by others: what they say is checked here, before anything is read by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import shapely

from stac_latent.errors import CorruptDataError, GridError
from stac_latent.geo.antimeridian import to_lonlat
from stac_latent.geo.crs import crs_text

__all__ = ["check_srid", "geometry_of", "in_degrees"]

_AGAIN = "write the file again, for instance with geopandas"
_LOGICAL = ("GEOMETRY", "GEOGRAPHY")


def geometry_of(file: pq.ParquetFile, href: str) -> tuple[str | None, dict[str, Any]]:
    """Name of the primary geometry, and what GeoParquet says of that column; None and nothing where there is none.

    A column of Parquet's own type GEOMETRY or GEOGRAPHY is described as GeoParquet would.

    Raises
    ------
    CorruptDataError
        If the footer is not as GeoParquet has it, or names a column that is not there.
    """
    meta = file.schema_arrow.metadata or {}
    if b"geo" not in meta:
        return _logical(file)
    try:
        geo = json.loads(meta[b"geo"])
    except (ValueError, RecursionError) as exc:
        raise CorruptDataError(f"the 'geo' footer of {href} is no JSON ({exc}); {_AGAIN}") from exc
    if not isinstance(geo, Mapping) or not isinstance(geo.get("columns"), Mapping):
        raise CorruptDataError(
            f"the 'geo' footer of {href} holds {str(geo)[:80]!r}; expected an object with primary_column and columns: {_AGAIN}"
        )
    primary = geo.get("primary_column")
    if not isinstance(primary, str) or not isinstance(geo["columns"].get(primary), Mapping):
        raise CorruptDataError(
            f"the 'geo' footer of {href} has primary_column {str(primary)[:80]!r}; expected the name of one that it describes "
            f"({', '.join(map(str, geo['columns'])) or 'none'}): {_AGAIN}"
        )
    if primary not in file.schema_arrow.names:
        raise CorruptDataError(
            f"the 'geo' footer of {href} names the geometry {primary!r}, which is no column of it: {_AGAIN}"
        )
    described = dict(geo["columns"][primary])
    if not described.get("crs", True) and described["crs"] is not None:
        raise CorruptDataError(
            f"the 'geo' footer of {href} gives {primary!r} the CRS {described['crs']!r}; expected PROJJSON: {_AGAIN}"
        )
    return primary, described


def _logical(file: pq.ParquetFile) -> tuple[str | None, dict[str, Any]]:
    """The first column of Parquet's own type for geometries."""
    for i in range(len(file.schema)):
        column = file.schema.column(i)
        if column.logical_type.type in _LOGICAL and "." not in column.path:
            crs = json.loads(column.logical_type.to_json()).get("crs")
            return column.name, {"encoding": "WKB"} | ({"crs": _crs(crs, file)} if crs else {})
    return None, {}


def _crs(text: str, file: pq.ParquetFile) -> Any:
    """CRS of a logical type as pyproj takes it: ``srid:`` and ``projjson:`` are Parquet's words, all else is passed on."""
    scheme, _, rest = text.partition(":")
    if scheme == "srid":
        return f"EPSG:{rest}"
    if scheme == "projjson":
        return (file.schema_arrow.metadata or {}).get(rest.encode(), b"").decode() or text
    return text


def in_degrees(shapes: npt.NDArray[np.object_], crs: Any, href: str) -> npt.NDArray[np.object_]:
    """Geometries (n,) of a column whose CRS is stated, in longitude and latitude (OGC:CRS84), split at 180 degrees; without one they are that.

    Raises
    ------
    CorruptDataError
        If the CRS is none, or of no place on the Earth.
    """
    if not crs:
        return shapes
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError, ProjError

    try:
        own, degrees = CRS(crs_text(crs)), CRS("OGC:CRS84")
        if own.equals(degrees, ignore_axis_order=True):
            return shapes
        turn = Transformer.from_crs(own, degrees, always_xy=True)
    except (CRSError, GridError, ProjError) as exc:
        raise CorruptDataError(f"{href}: the CRS of its geometry cannot be read ({exc}); {_AGAIN}") from exc
    return to_lonlat(shapes, turn.transform, projected=own.is_projected)


def check_srid(shapes: npt.NDArray[np.object_], crs: Any, href: str) -> None:
    """Hold the SRIDs that geometries carry themselves (EWKB) against the CRS of their column.

    Raises
    ------
    CorruptDataError
        If one is of another CRS; the message names both.
    """
    found = np.unique(shapely.get_srid(shapes))
    for srid in found[found > 0].tolist():
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        own = CRS(crs) if crs else CRS("OGC:CRS84")
        try:
            same = CRS.from_epsg(srid).equals(own, ignore_axis_order=True)
        except CRSError:
            same = False
        if not same:
            raise CorruptDataError(
                f"{href}: geometries are of SRID {srid} (EWKB), and the column's CRS is {own.name}; correct the one that is wrong"
            )
