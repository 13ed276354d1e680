"""Areas that are asked for: boxes and geometries in longitude and latitude, in one part or in two across 180 degrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from odc.geo import geom, res_
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj.exceptions import ProjError

from stac_latent.cube.odc_private import normalize_geometry
from stac_latent.errors import GridError
from stac_latent.geo.extents import bbox_of, flat_bbox

__all__ = ["Area", "area_parts", "geobox_like", "joined"]

_LONLAT = "EPSG:4326"
_EDGE = 64
"""Points along the longer side of an area that is brought to degrees."""
_ANCHORS = ("edge", "center", "centre", "floating", "default")


@dataclass(frozen=True, eq=False)
class Area:
    """Where to load and on which grid, by the names of ``odc.stac.load``; None where nothing was said."""

    bbox: Sequence[float] | None = None
    geobox: GeoBox | None = None
    like: Any = None
    geopolygon: Any = None
    intersects: Any = None
    crs: Any = None
    resolution: Any = None
    anchor: Any = None
    lon: Sequence[float] | None = None
    lat: Sequence[float] | None = None
    x: Sequence[float] | None = None
    y: Sequence[float] | None = None

    def check(self) -> None:
        """Check that at most one argument says where to load, that pairs are whole, and that a whole grid stands alone.

        Raises
        ------
        GridError
            If two arguments contradict, or a pair is none; they are named.
        """
        names = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        places = [n for n in names if n in ("bbox", "geobox", "like", "geopolygon", "intersects")]
        for pair in (("lon", "lat"), ("x", "y")):
            given = [n for n in pair if n in names]
            if len(given) == 1:
                raise GridError(
                    f"{given[0]}= was given alone: {pair[0]}= and {pair[1]}= say where to load together"
                )
            places += [f"{pair[0]}, {pair[1]}"] if given else []
        if "x" in names and self.crs is None:
            raise GridError(
                "x= and y= are in units of crs=, which was not given; give it, or lon= and lat= in degrees"
            )
        if len(places) > 1:
            raise GridError(f"{' and '.join(places)} were given; each says where to load: keep one")
        if places and places[0] in ("geobox", "like") and len(names) > 1:
            rest = ", ".join(n for n in names if n not in places)
            raise GridError(
                f"{places[0]}= is a whole grid and was given with {rest}: leave {rest} out, or give bbox= instead"
            )
        self._check_grid()

    def _check_grid(self) -> None:
        """Refuse a resolution or an anchor that is none, in words."""
        if self.resolution is not None:
            try:
                size = res_(self.resolution)
                sound = all(math.isfinite(v) and v for v in size.xy)
            except (TypeError, ValueError):
                sound = False
            if not sound:
                raise GridError(
                    f"resolution={self.resolution!r} is no size of pixels; expected a number in units of the CRS, or odc.geo.resyx_(y, x)"
                )
        if isinstance(self.anchor, str) and self.anchor not in _ANCHORS:
            raise GridError(f"anchor={self.anchor!r} is unknown; expected one of {', '.join(_ANCHORS)}")

    @cached_property
    def parts(self) -> list[Geometry]:
        """What was asked for by a box, by pairs or a geometry, as :func:`area_parts` has it."""
        if self.lon is not None and self.lat is not None:
            (west, east), (south, north) = _pair("lon", self.lon), _pair("lat", self.lat)
            return area_parts((west, south, east, north), None)
        if self.x is not None and self.y is not None:
            (left, right), (bottom, top) = _pair("x", self.x), _pair("y", self.y)
            try:
                return [geom.box(left, bottom, right, top, self.crs)]
            except (ValueError, AssertionError, ProjError) as exc:
                raise GridError(
                    f"crs={str(self.crs)[:100]!r} is no CRS that x= and y= can be in; expected such as 'EPSG:32633'"
                ) from exc
        return area_parts(self.bbox, self.intersects if self.geopolygon is None else self.geopolygon)

    @property
    def bounds(self) -> Sequence[float] | None:
        """West, south, east, north in degrees of what was asked for, to search by; None where nothing was, or it has none."""
        if self.bbox is not None or not self.parts:
            return self.bbox
        area = joined(self.parts)
        size = max(area.boundingbox.span_x, area.boundingbox.span_y)
        degrees = (area.segmented(size / _EDGE) if size else area).to_crs(_LONLAT).boundingbox.bbox
        if not all(map(math.isfinite, degrees)):
            return None
        west, south, east, north = degrees
        return west, south, east if east <= 180 else east - 360, north

    def of_grid(self) -> dict[str, Any]:
        """Arguments of ``odc.stac.output_geobox``, those that were given."""
        said = {
            "geobox": self.geobox,
            "like": None if self.like is None else geobox_like(self.like),
            "geopolygon": joined(self.parts) if self.parts else None,
            "crs": self.crs,
            "resolution": self.resolution,
            "anchor": self.anchor,
        }
        return {name: value for name, value in said.items() if value is not None}


def _pair(name: str, value: Any) -> tuple[float, float]:
    """Two numbers, the lower one first, whatever their order: as ``odc.stac.load`` takes them."""
    try:
        low, high = sorted(float(v) for v in value)
    except (TypeError, ValueError) as exc:
        raise GridError(
            f"{name}={value!r} is no pair of numbers; expected such as {name}=(13.5, 13.7)"
        ) from exc
    if not (math.isfinite(low) and math.isfinite(high)):
        raise GridError(f"{name}={value!r} is not finite")
    return low, high


def area_parts(bbox: Sequence[float] | None, area: Any) -> list[Geometry]:
    """Parts of an area, each on one side of 180 degrees; none where no area was given.

    Parameters
    ----------
    bbox
        Four numbers, or six with heights; west > east crosses the antimeridian.
    area
        GeoJSON, shapely (longitude and latitude) or odc-geo geometry, instead of a bbox.

    Raises
    ------
    GridError
        If it is none of these.

    Examples
    --------
    >>> [part.boundingbox.bbox for part in area_parts((179, -1, -179, 1), None)]
    [(179.0, -1.0, 180.0, 1.0), (-180.0, -1.0, -179.0, 1.0)]
    """
    if bbox is not None:
        try:
            west, south, east, north = flat_bbox(bbox)
        except ValueError as exc:
            raise GridError(str(exc)) from exc
        if not (-360 <= west <= 360 and -360 <= east <= 360 and south >= -90 and north <= 90):
            raise GridError(f"bbox={tuple(bbox)} is not west, south, east, north in degrees")
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        return [geom.box(w, south, e, north, _LONLAT) for w, e in spans]
    if area is None:
        return []
    try:
        geometry = normalize_geometry(area)
    except Exception as exc:
        raise GridError(
            f"{str(area)[:100]!r} is no geometry; expected GeoJSON in longitude and latitude, or shapely's or odc-geo's"
        ) from exc
    if geometry.is_empty:
        raise GridError("the area that was asked for is empty; leave it out to load everything")
    if (
        geometry.crs is None
        or not geometry.crs.geographic
        or bbox_of(geometry.geom)[0] <= bbox_of(geometry.geom)[2]
    ):
        return [geometry]
    sides = {
        east: [p for p in shapely.get_parts(geometry.geom) if (p.bounds[0] >= 0) == east]
        for east in (True, False)
    }
    return [Geometry(shapely.union_all(members), geometry.crs) for members in sides.values() if members]


def joined(parts: Sequence[Geometry]) -> Geometry:
    """An area in one piece: what lies east of 180 degrees continues at longitudes above."""
    if len(parts) == 1:
        return parts[0]
    shifted = [
        p.geom if p.boundingbox.left >= 0 else shapely.transform(p.geom, lambda xy: np.add(xy, (360.0, 0.0)))
        for p in parts
    ]
    return Geometry(shapely.union_all(shifted), parts[0].crs)


def geobox_like(like: Any) -> GeoBox:
    """Take the grid of a GeoBox, or of georeferenced xarray data.

    Raises
    ------
    GridError
        If there is no georeference.
    """
    box = like if isinstance(like, GeoBox) else getattr(getattr(like, "odc", None), "geobox", None)
    if not isinstance(box, GeoBox):
        raise GridError(
            f"like= has no grid: got {type(like).__name__} without coordinates and CRS; give a GeoBox, or data that "
            "stac_latent.load or odc.stac.load returned"
        )
    return box
