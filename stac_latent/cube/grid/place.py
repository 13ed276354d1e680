"""A square of pixels round a place: which UTM zone, which pixels, and how far each lies from the place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from shapely.geometry.base import BaseGeometry

from stac_latent.errors import GridError
from stac_latent.geo.antimeridian import to_lonlat
from stac_latent.geo.crs import crs_label, crs_text

__all__ = ["MAX_EDGE", "UNITS", "Square", "check_lonlat", "square_at", "utm_zone"]

UNITS = {"px": None, "m": 1.0, "km": 1000.0}
"""Units of an edge, and their length [m]."""
MAX_EDGE = 2**14
"""Pixels along an edge, at most: what is larger is an area, and no surroundings of a place."""
_LONLAT = "EPSG:4326"
_SOUTH, _NORTH = -80.0, 84.0
"""Latitudes between which UTM is defined."""


@dataclass(frozen=True)
class Square:
    """A square grid round a place."""

    box: GeoBox
    lat: float
    lon: float
    x: float
    """The place in the CRS of the grid, as it is: not moved to a pixel."""
    y: float
    resolution: float

    @property
    def edge_size(self) -> int:
        """Pixels along an edge."""
        return int(self.box.shape.x)

    @property
    def crs(self) -> str:
        """Its CRS as text."""
        return crs_text(self.box.crs)

    def in_degrees(self) -> BaseGeometry:
        """Its outline in longitude and latitude, in two parts where it crosses 180 degrees."""
        outline = shapely.box(*self.box.boundingbox.bbox)
        crs = CRS(self.crs)
        turn = Transformer.from_crs(crs, _LONLAT, always_xy=True).transform
        shapes = np.array([outline], dtype=object)
        found: BaseGeometry = to_lonlat(shapes, turn, projected=not crs.is_geographic)[0]
        return found


def check_lonlat(lat: float, lon: float) -> tuple[float, float]:
    """Latitude and longitude as floats.

    Raises
    ------
    GridError
        If they are no numbers, or none of a place; where they seem to be swapped, the message says so.
    """
    try:
        north, east = float(lat), float(lon)
    except (TypeError, ValueError) as exc:
        raise GridError(f"lat={lat!r} and lon={lon!r} must be numbers in degrees") from exc
    if not (math.isfinite(north) and math.isfinite(east)):
        raise GridError(f"lat={north:g} and lon={east:g} are no place; expected two numbers in degrees")
    if abs(north) > 90:
        swapped = (
            f"; they seem to be swapped: did you mean lat={east:.10g}, lon={north:.10g}?"
            if abs(east) <= 90 and abs(north) <= 180
            else ""
        )
        raise GridError(f"lat={north:.10g} is not between -90 and 90 degrees{swapped}")
    if abs(east) > 180:
        turned = (east + 180) % 360 - 180
        raise GridError(
            f"lon={east:.10g} is not between -180 and 180 degrees; the same meridian is lon={turned:.10g}"
        )
    return north, east


def utm_zone(lat: float, lon: float) -> str:
    """Code of the UTM zone of a place (WGS 84), six degrees wide everywhere; on the border of two, the western one.

    Raises
    ------
    GridError
        If UTM does not reach it.

    Examples
    --------
    >>> utm_zone(46.4, 11.3), utm_zone(-33.9, 18.4)
    ('EPSG:32632', 'EPSG:32734')
    """
    if not _SOUTH <= lat <= _NORTH:
        raise GridError(
            f"lat={lat:.10g} lies outside UTM, which reaches from {_SOUTH:g} to {_NORTH:g} degrees; give crs=, such as "
            f"'EPSG:{3413 if lat > 0 else 3031}' (polar stereographic, in metres)"
        )
    zone = min(max(math.ceil((lon + 180) / 6), 1), 60)
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def square_at(
    lat: float, lon: float, edge_size: float, resolution: float, *, units: str = "px", crs: Any = None
) -> Square:
    """Pixels round a place: their edges are multiples of ``resolution`` in the CRS.

    An even number of pixels is centred on the corner of pixels that is nearest to the place, which is the grid that cubo
    takes; of an odd number, the pixel that holds the place is in the middle.

    Parameters
    ----------
    lat, lon
        The place, in degrees.
    edge_size
        Length of an edge in ``units``: ``px``, or ``m`` and ``km``, of which as many pixels are taken as it needs.
    resolution
        Pixel size in units of the CRS.
    crs
        Of the grid; None: the place's UTM zone.

    Raises
    ------
    GridError
        If the place, the edge or the resolution makes no square, or the CRS does not reach the place.
    """
    lat, lon = check_lonlat(lat, lon)
    size = _positive("resolution", resolution)
    text = utm_zone(lat, lon) if crs is None else crs_text(crs)
    known = CRS(text)
    n = _pixels(edge_size, units, size, text, metres=not known.is_geographic)
    x, y = Transformer.from_crs(_LONLAT, known, always_xy=True).transform(lon, lat)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise GridError(
            f"lat={lat:.10g}, lon={lon:.10g} lies outside {crs_label(text)}; give the crs= of a map that reaches it, or leave crs out for "
            "the UTM zone of the place"
        )
    if known.is_geographic and n * size > 360:
        raise GridError(
            f"resolution={size:g} is in units of {crs_label(text)}, degrees: {n} pixels are {n * size:g} degrees. Give a resolution in "
            "degrees, or leave crs out for metres in the UTM zone of the place"
        )
    left, top = (_edge(v, size, n) for v in (x, -y))
    affine = Affine(size, 0, left * size, 0, -size, -top * size)
    return Square(GeoBox((n, n), affine, text), lat, lon, x, y, size)


def _edge(v: float, size: float, n: int) -> int:
    """Number of the edge where ``n`` pixels begin."""
    return round(v / size) - n // 2 if n % 2 == 0 else math.floor(v / size) - n // 2


def _pixels(edge: float, units: str, size: float, crs: str, *, metres: bool) -> int:
    """Pixels along an edge."""
    if units not in UNITS:
        raise GridError(f"units={units!r} are not known; expected {', '.join(map(repr, UNITS))}")
    length = _positive("edge_size", edge)
    metre = UNITS[units]
    if metre is None:
        if length != int(length):
            raise GridError(
                f"edge_size={edge!r} must be a whole number of pixels, or a length with units='m'"
            )
        n = int(length) if length < 2**53 else MAX_EDGE + 1
    elif metres:
        pixels = length * metre / size
        n = max(1, math.ceil(pixels - 1e-6)) if pixels < 2**53 else MAX_EDGE + 1
    else:
        raise GridError(
            f"units={units!r} with {crs_label(crs)}, whose pixels are in degrees: give edge_size in pixels (units='px'), or leave crs out "
            "for the UTM zone of the place"
        )
    if n > MAX_EDGE:
        raise GridError(
            f"edge_size={edge!r} {units} is more than {MAX_EDGE} pixels of {size:g} along an edge; load such an area with "
            "stac_latent.load(items, bbox=..., chunks=...)"
        )
    return n


def _positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as exc:
        raise GridError(f"{name}={value!r} must be a number above 0") from exc
    if not (math.isfinite(number) and number > 0):
        raise GridError(f"{name}={value!r} must be a number above 0")
    return number
