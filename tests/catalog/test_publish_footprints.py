"""Footprints of cells against other libraries, and where maps end: the antimeridian and the poles."""

from __future__ import annotations

import functools

import numpy as np
import pyproj
import pystac
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from publish_support import LATLON, UTM

from stac_latent.catalog.footprints import cells_in, footprints
from stac_latent.catalog.publish.item import Extent
from stac_latent.errors import GridError
from stac_latent.spec import Grid

FIJI = Grid("EPSG:32701", (1000, 0, 100_000, 0, -1000, 8_300_000), (200, 200), (4, 4))
ARCTIC = Grid("EPSG:3413", (25_000, 0, -1_000_000, 0, -25_000, 1_000_000), (80, 80), (10, 10))
GLOBAL = Grid("EPSG:4326", (1, 0, 0, 0, -1, 90), (180, 360), (10, 10))
SOUTH_UP = Grid("EPSG:32633", (10, 0, 500_000, 0, 10, 5_300_000), (80, 80), (8, 8))
GEOD = pyproj.Geod(ellps="WGS84")


@functools.cache
def all_of(grid: Grid, size=(1, 1)) -> np.ndarray:
    row, col = (v.ravel() for v in np.mgrid[0 : grid.cells[0] : size[0], 0 : grid.cells[1] : size[1]])
    return footprints(grid, row, col, size)


def area(geometry: shapely.Geometry) -> float:
    """Square metres on the ellipsoid, with edges of the longitude-latitude plane."""
    return abs(GEOD.geometry_area_perimeter(shapely.segmentize(geometry, 0.05))[0])


@pytest.mark.parametrize("grid", [UTM, LATLON])
def test_cells_are_those_of_odc_geo(grid):
    box = GeoBox(grid.cells, Affine(*grid.cell_transform), grid.crs)
    row, col = np.array([0, 3, grid.cells[0] - 1]), np.array([0, 5, grid.cells[1] - 1])
    for r, c, polygon in zip(row, col, footprints(grid, row, col), strict=True):
        want = box[int(r) : int(r) + 1, int(c) : int(c) + 1].extent.to_crs("EPSG:4326").geom
        assert polygon.symmetric_difference(want).area < 2e-5 * want.area  # rounded to 2**-27 degrees


def test_corners_are_those_of_proj_to_a_millimetre():
    polygon = footprints(UTM, np.array([2]), np.array([3]))[0]
    inverse = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:32633", always_xy=True)
    got = {tuple(np.round(inverse.transform(*p), 2)) for p in polygon.exterior.coords}
    x, y = 499_980 + 3 * 80, 5_300_040 - 2 * 80
    assert got == {(x, y), (x + 80, y), (x, y - 80), (x + 80, y - 80)}


def test_lat_lon_cells_are_exact():
    assert footprints(LATLON, np.array([1]), np.array([2]))[0].bounds == pytest.approx(
        (10.08, 49.92, 10.12, 49.96), abs=1e-8
    )


@pytest.mark.parametrize("grid", [UTM, LATLON, SOUTH_UP, FIJI, ARCTIC, GLOBAL])
def test_cells_are_valid_ccw_and_on_earth(grid):
    cells = all_of(grid)
    assert shapely.is_valid(cells).all()
    parts = shapely.get_parts(cells)
    assert shapely.is_ccw(shapely.get_exterior_ring(parts)).all()
    bounds = shapely.bounds(parts)
    assert (np.abs(bounds[:, [0, 2]]) <= 180).all()
    assert (np.abs(bounds[:, [1, 3]]) <= 90).all()
    assert (bounds[:, 2] - bounds[:, 0]).max() <= (360 if grid is ARCTIC else 10.1)


@pytest.mark.parametrize("grid", [UTM, SOUTH_UP, FIJI, LATLON, ARCTIC])
def test_cells_tile_the_lattice_without_gap_or_overlap(grid):
    cells = all_of(grid)
    whole = shapely.union_all(cells)
    total = shapely.area(cells).sum()
    assert total == pytest.approx(whole.area, rel=1e-4)


def test_cells_across_the_antimeridian_are_split():
    cells = all_of(FIJI)
    kinds = {g.geom_type for g in cells}
    assert kinds == {"Polygon", "MultiPolygon"}
    for cell in cells[shapely.get_num_geometries(cells) > 1]:
        bounds = shapely.bounds(shapely.get_parts(cell))
        assert sorted((bounds[:, 0].min(), bounds[:, 2].max())) == [-180, 180]
        assert (bounds[:, 2] - bounds[:, 0]).max() < 0.1
    total = sum(area(c) for c in cells)
    assert total == pytest.approx(50 * 50 * 4000**2, rel=0.02)


@pytest.mark.parametrize("shift", [0, 5])
def test_cells_round_the_pole_cover_it_once(shift):
    """With the pole on a corner of four cells, and inside one."""
    a, b, c, d, e, f = ARCTIC.transform
    grid = Grid(ARCTIC.crs, (a, b, c + shift * 25_000, d, e, f + shift * 25_000), ARCTIC.shape, ARCTIC.stride)
    cells = all_of(grid)
    assert shapely.is_valid(cells).all()
    holders = [g for g in cells if g.bounds[3] == 90]
    assert len(holders) == (4 if shift == 0 else 1)
    width = shapely.box(-180, 89.999, 180, 90)
    assert shapely.union_all(holders).intersection(width).area == pytest.approx(width.area, rel=1e-6)
    assert sum(g.intersection(width).area for g in holders) == pytest.approx(width.area, rel=1e-6)


def test_longitudes_beyond_180_are_brought_back():
    cells = all_of(GLOBAL)
    assert shapely.union_all(cells).area == pytest.approx(360 * 180)
    assert shapely.area(cells).sum() == pytest.approx(360 * 180)
    assert cells[20].bounds == (-160, 80, -150, 90)
    assert footprints(GLOBAL, np.array([0]), np.array([0]), GLOBAL.cells)[0].area == pytest.approx(360 * 180)


def test_a_cell_over_the_end_of_latitudes_is_cut_there():
    centred = Grid("EPSG:4326", (2, 0, -1, 0, -2, 91), (91, 180), (1, 1))
    first = footprints(centred, np.array([0, 0]), np.array([0, 90]))
    assert first[0].bounds == (-1, 89, 1, 90)
    assert first[1].geom_type == "MultiPolygon"
    assert sorted(g.bounds for g in first[1].geoms) == [(-180, 89, -179, 90), (179, 89, 180, 90)]


def test_long_edges_follow_the_curve():
    """A footprint of a whole scene covers the cells of its edge, which a quadrilateral would cut off."""
    tile = Grid("EPSG:32633", (10, 0, 300_000, 0, -10, 7_800_000), (10_980, 10_980), (60, 60))
    whole = footprints(tile, np.array([0]), np.array([0]), tile.cells)[0]
    middle = footprints(tile, np.array([0]), np.array([90]))[0]
    assert middle.intersection(whole).area > 0.99 * middle.area
    assert 8 < len(whole.exterior.coords) < 130
    assert len(middle.exterior.coords) == 5


# -- windows ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    west=st.floats(-0.01, 0.99),
    south=st.floats(-0.01, 0.99),
    width=st.floats(1e-4, 0.3),
    height=st.floats(1e-4, 0.3),
)
@pytest.mark.parametrize("grid", [UTM, LATLON, FIJI, GLOBAL])
def test_window_holds_every_cell_of_a_box(grid, west, south, width, height):
    cells = all_of(grid)
    parts = shapely.get_parts(cells[0 if grid is not FIJI else 5])
    west0, south0, east0, north0 = shapely.total_bounds(cells if grid is not FIJI else parts)
    x, y = west0 + west * (east0 - west0), south0 + south * (north0 - south0)
    region = shapely.box(x, y, x + width * (east0 - west0), y + height * (north0 - south0))
    hit = shapely.area(shapely.intersection(cells, region)) > 0
    window = cells_in(grid, region)
    if window is None:
        assert not hit.any()
        return
    (y0, y1), (x0, x1) = window
    inside = np.zeros(grid.cells, bool)
    inside[y0:y1, x0:x1] = True
    assert inside.ravel()[hit].all()
    if grid is not GLOBAL:  # there, a box round the first meridian has its cells at both ends
        assert inside.sum() <= hit.sum() + 4 * (y1 - y0 + x1 - x0)


def test_window_over_the_antimeridian():
    region = shapely.union_all([shapely.box(179.9, -16.5, 180, -16), shapely.box(-180, -16.5, -179.9, -16)])
    cells = all_of(FIJI)
    hit = (shapely.area(shapely.intersection(cells, region)) > 0).reshape(FIJI.cells)
    (y0, y1), (x0, x1) = cells_in(FIJI, region)
    assert hit[y0:y1, x0:x1].sum() == hit.sum() > 50
    assert (y1 - y0) * (x1 - x0) < 2 * hit.sum()


def test_window_of_the_world_is_everything_and_of_elsewhere_nothing():
    world = shapely.box(-180, -90, 180, 90)
    for grid in (UTM, LATLON, FIJI, ARCTIC, GLOBAL):
        ny, nx = grid.cells
        assert cells_in(grid, world) == ((0, ny), (0, nx))
    assert cells_in(UTM, shapely.box(-60, -10, -50, 0)) is None


def test_unplaceable_grids():
    with pytest.raises(GridError, match=r"unknown CRS 'EPSG:1'.*proj:code is e\.g\. 'EPSG:32633'"):
        footprints(Grid("EPSG:1", UTM.transform, UTM.shape, UTM.stride), np.array([0]), np.array([0]))
    far = Grid("EPSG:32633", (10, 0, 1e12, 0, -10, 1e12), (8, 8), (8, 8))
    with pytest.raises(GridError, match="cells of the grid in EPSG:32633 have no longitude and latitude"):
        footprints(far, np.array([0]), np.array([0]))


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413"])
def test_a_table_round_a_pole_has_a_box_and_an_outline_that_hold_all_rows(crs):
    grid = Grid(crs, (1000.0, 0.0, -32000.0, 0.0, -1000.0, 30000.0), (64, 72), (8, 8))
    row, col = (v.ravel() for v in np.mgrid[: grid.cells[0], : grid.cells[1]])
    shapes = footprints(grid, row, col)
    extent = Extent()
    extent.add(shapes)
    extent.close(
        pystac.Item(
            "a",
            None,
            None,
            None,
            {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-01-02T00:00:00Z"},
        )
    )
    np.testing.assert_allclose(extent.bbox(), shapely.total_bounds(shapes), atol=1e-9)
    outside = shapely.difference(shapely.union_all(shapes), extent.geometry)
    assert shapely.area(outside) < 1e-9
    assert shapely.get_num_coordinates(extent.geometry) < 200
