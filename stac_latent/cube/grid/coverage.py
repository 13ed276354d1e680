"""Whether an area that is asked for meets what Items cover: a cube of nodata is no answer to a slip of the pen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj import Transformer
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from stac_latent.cube.grid.boxes import pixel_box, to_world
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import GridError
from stac_latent.geo.extents import bbox_of, spanning_text

__all__ = ["check_meets"]

_EDGE = 64
"""Points along an edge of a grid."""
_SLACK = 1e-3
"""Of the size of a footprint: what straight lines between those points may miss."""


def check_meets(refs: Sequence[LatentRef], parts: Sequence[Geometry]) -> None:
    """Refuse an area that none of the Items reaches.

    Parameters
    ----------
    refs
        Latents, by whose grids the Items are placed.
    parts
        Of the area; none where everything is asked for.

    Raises
    ------
    GridError
        If they are apart; the message says where the Items lie.
    """
    if not parts:
        return
    asked = shapely.union_all([_in_degrees(part) for part in parts])
    covered = [_footprint(pixel_box(ref.grid)) for ref in refs]
    if any(_meet(asked, place) for place in covered):
        return
    raise GridError(
        f"the area that was asked for ({_span([asked])}) and the {len(refs)} item(s), which lie within ({_span(covered)}), lie apart: "
        "west, south, east, north in degrees. Ask for a place there, or search for the items of the area first "
        "(stac_latent.search with the same bbox or intersects)"
    )


def _in_degrees(part: Geometry) -> BaseGeometry:
    if part.crs is None or part.crs.geographic:
        return part.geom
    size = max(part.boundingbox.span_x, part.boundingbox.span_y)
    geometry: BaseGeometry = (part.segmented(size / _EDGE) if size else part).to_crs("EPSG:4326").geom
    return geometry


def _footprint(box: GeoBox) -> BaseGeometry:
    """Outline of a grid in degrees, its longitudes without a jump; all longitudes where it goes round a pole."""
    height, width = box.shape.yx
    along = np.linspace(0, 1, _EDGE, endpoint=False)
    x = np.concatenate([along, np.ones(_EDGE), 1 - along, np.zeros(_EDGE)]) * width
    y = np.concatenate([np.zeros(_EDGE), along, np.ones(_EDGE), 1 - along]) * height
    lon, lat = Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True).transform(*to_world(box, x, y))
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):  # a grid that reaches beyond its projection
        return shapely.box(-180, -90, 180, 90)
    if box.crs is not None and box.crs.geographic:
        west, south, east, north = lon.min(), lat.min(), lon.max(), lat.max()
        return shapely.box(float(west), float(south), float(east), float(north))
    turned = np.unwrap(np.append(lon, lon[0]), period=360)
    if abs(turned[-1] - turned[0]) > 180:
        south, north = (lat.min(), 90.0) if lat.mean() > 0 else (-90.0, lat.max())
        return shapely.box(-180, south, 180, north)
    outline = shapely.Polygon(np.column_stack([turned[:-1], lat]))
    west, south, east, north = outline.bounds
    return outline.buffer(_SLACK * max(east - west, north - south))


def _meet(asked: BaseGeometry, place: BaseGeometry) -> bool:
    """Whether two geometries share a point, whatever turn of the globe their longitudes are counted in."""
    turns = (-720.0, -360.0, 0.0, 360.0, 720.0)
    return any(asked.intersects(affinity.translate(place, xoff=turn)) for turn in turns)


def _span(places: Sequence[BaseGeometry]) -> str:
    """West, south, east, north of some places, longitudes from -180 to 180."""
    boxes = []
    for place in places:
        west, south, east, north = bbox_of(place)
        west, east = (-180.0, 180.0) if east - west >= 360 else (_turned(west), _turned(east))
        boxes.append((west, south, east, north))
    return spanning_text(boxes)


def _turned(longitude: float) -> float:
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180
