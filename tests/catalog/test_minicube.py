"""``minicube``: cubo's grid and attributes, the pixels of ``load`` on it, and what makes no cube."""

from __future__ import annotations

import datetime as dt
import math
from functools import partial

import numpy as np
import odc.stac
import pytest
import rasterio
import shapely
from load_support import NOON, encoded, pixel_grid, scene, stock_item, write_tiff
from pyproj import Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info

import stac_latent
from stac_latent.cube.grid.place import square_at, utm_zone
from stac_latent.errors import CatalogError, GridError, OptionError, SearchError
from stac_latent.geo.antimeridian import to_lonlat
from stac_latent.geo.extents import bbox_of

CRS = "EPSG:32633"
SHAPE = (187, 213)
X, Y = 401_234.0, 5_099_017.0
DAYS = (NOON, NOON + dt.timedelta(days=10))


def lonlat(x, y, crs=CRS):
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)


LON, LAT = lonlat(X, Y)


@pytest.fixture(scope="module")
def dates(tmp_path_factory):
    """Two dates of one place, raw and encoded: ``(raw Items, encoded Items)``."""
    folder, grid = tmp_path_factory.mktemp("minicube"), pixel_grid(SHAPE)
    raw, coded = [], []
    for i, when in enumerate(DAYS):
        write_tiff(folder / f"d{i}.tif", scene(SHAPE, i), grid)
        raw.append(stock_item(f"d{i}", folder / f"d{i}.tif", grid, when=when))
        coded.append(encoded(folder, f"d{i}", scene(SHAPE, i), grid, when=when))
    return raw, coded


def cubo_bounds(lat, lon, edge, resolution):
    """West, south, east, north of cubo's cube, in the words of its documentation: the place in its UTM zone is
    rounded to the resolution, half an edge is added on each side, and the bounds are widened to whole pixels."""
    x, y = Transformer.from_crs("EPSG:4326", utm_zone(lat, lon), always_xy=True).transform(lon, lat)
    half = round(edge * resolution / 2)
    sides = [round(v / resolution) * resolution + s * half for s in (-1, 1) for v in (x, y)]
    down = [math.floor(v / resolution) * resolution for v in sides[:2]]
    return (*down, *(math.ceil(v / resolution) * resolution for v in sides[2:]))


@pytest.mark.parametrize(("edge", "resolution"), [(128, 10), (64, 20), (2, 60), (10, 30), (96, 0.5)])
def test_the_grid_of_an_even_edge_is_cubos(edge, resolution):
    rng = np.random.default_rng(edge)
    for lat, lon in zip(rng.uniform(-79, 83, 20), rng.uniform(-180, 180, 20), strict=True):
        bounds = cubo_bounds(lat, lon, edge, resolution)
        box = square_at(lat, lon, edge, resolution).box
        assert box.shape == (edge, edge)
        assert str(box.crs) == utm_zone(lat, lon)
        assert tuple(box.boundingbox) == pytest.approx(bounds, abs=1e-6)


def test_zones_are_those_that_the_database_names_first():
    for lat, lon in [(50, 6), (0, 9), (-1e-9, 9), (10, -180), (84, 180), (60, 5)]:
        first = query_utm_crs_info("WGS 84", AreaOfInterest(lon, lat, lon, lat))[0]
        assert utm_zone(lat, lon) == f"EPSG:{first.code}"


@pytest.mark.parametrize("edge", [1, 3, 7])
def test_of_an_odd_edge_the_middle_pixel_holds_the_place(edge):
    rng = np.random.default_rng(edge)
    for lat, lon in zip(rng.uniform(-79, 83, 20), rng.uniform(-180, 180, 20), strict=True):
        square = square_at(lat, lon, edge, 10)
        column, row = ~square.box.affine * (square.x, square.y)
        assert (math.floor(row), math.floor(column)) == (edge // 2, edge // 2)
        assert square.box.shape == (edge, edge)


def test_lengths_take_as_many_pixels_as_they_need():
    sizes = {
        u: square_at(LAT, LON, n, 30, units=u).edge_size for u, n in (("m", 1000), ("km", 0.3), ("px", 9))
    }
    assert sizes == {"m": 34, "km": 10, "px": 9}


@pytest.mark.parametrize("options", [{}, {"bands": ["red"], "resampling": "bilinear"}, {"physical": True}])
def test_a_cube_is_what_load_gives_on_its_grid(dates, options):
    _, coded = dates
    cube = stac_latent.minicube(coded, LAT, LON, edge_size=24, **options)
    box = square_at(LAT, LON, 24, 10).box
    expected = stac_latent.load(coded, geobox=box, **options)
    assert cube.odc.geobox == box
    assert dict(cube.sizes) == {"time": 2, "y": 24, "x": 24}
    assert (
        cube.drop_vars("cubo:distance_from_center")
        .drop_attrs(deep=False)
        .identical(expected.drop_attrs(deep=False))
    )


def test_dates_are_included_at_both_ends(dates):
    _, coded = dates
    days = [f"{d:%Y-%m-%d}" for d in DAYS]
    for start, end, count in [
        (None, None, 2),
        (*days, 2),
        (days[0], days[0], 1),
        (days[1], None, 1),
        (None, DAYS[0], 1),
    ]:
        found = stac_latent.minicube(coded, LAT, LON, edge_size=2, start_date=start, end_date=end)
        assert found.sizes["time"] == count


def test_attributes_and_distances_are_those_of_cubo(dates):
    _, coded = dates
    cube = stac_latent.minicube(coded, LAT, LON, start_date="2024-05", edge_size=6)
    asked = dict(cube.attrs)
    assert asked.pop("central_x") == pytest.approx(X, abs=1e-3)
    assert asked.pop("central_y") == pytest.approx(Y, abs=1e-3)
    assert asked == {
        "collection": coded[0].collection_id, "stac": "the list", "epsg": 32633, "resolution": 10.0, "edge_size": 6, "edge_size_m": 60.0,
        "central_lat": LAT, "central_lon": LON, "time_coverage_start": "2024-05", "time_coverage_end": f"{DAYS[1]:%Y-%m-%d}",
    }  # fmt: skip
    far = cube["cubo:distance_from_center"]
    assert far.dims == ("y", "x")
    expected = np.hypot(*np.meshgrid(cube.x.values - X, cube.y.values - Y))
    np.testing.assert_allclose(far, expected, atol=1e-3)
    array = cube.to_dataarray("band").transpose("time", "band", "y", "x")
    assert array.shape == (2, 3, 6, 6)
    assert array.attrs == cube.attrs


def test_raw_items_are_loaded_by_the_stock_reader(dates):
    raw, _ = dates
    box = square_at(LAT, LON, 10, 10).box
    cube = stac_latent.minicube(raw, LAT, LON, edge_size=10, bands=["red", "image.3", "B02"])
    assert list(cube.data_vars) == ["red", "image.3", "B02"]
    np.testing.assert_array_equal(cube["red"], cube["image.3"])
    expected = odc.stac.load(raw, bands=["image.3"], geobox=box)
    np.testing.assert_array_equal(cube["image.3"], expected["image.3"])
    with rasterio.open(raw[0].assets["image"].href) as src:
        (value,) = src.sample([(float(cube.x[4]), float(cube.y[2]))], indexes=[3])
    assert int(cube["image.3"][0, 2, 4]) == value[0]


def test_lazy_cubes_hold_the_same(dates):
    _, coded = dates
    now = stac_latent.minicube(coded, LAT, LON, edge_size=20)
    later = stac_latent.minicube(coded, LAT, LON, edge_size=20, chunks={"x": 8, "y": 10})
    assert later.chunks["x"] == (8, 8, 4)
    assert later["cubo:distance_from_center"].chunks == ((10, 10), (8, 8, 4))
    assert later.compute().equals(now.compute())


def test_latents_are_the_cells_that_the_square_touches(dates):
    _, coded = dates
    cube = stac_latent.minicube(coded, LAT, LON, edge_size=20, upto="latent")
    inside = square_at(LAT, LON, 20, 10).box.boundingbox
    whole = stac_latent.load(coded, upto="latent").odc.geobox
    assert cube.odc.geobox.resolution == whole.resolution
    outer = cube.odc.geobox.boundingbox
    assert outer.left <= inside.left <= inside.right <= outer.right
    assert max(inside.left - outer.left, outer.right - inside.right) < whole.resolution.x
    assert cube["cubo:distance_from_center"].shape == cube.odc.geobox.shape


def test_another_crs_keeps_the_pixels_of_its_items(dates):
    _, coded = dates
    cube = stac_latent.minicube(coded, LAT, LON, edge_size=0.002, units="km", crs="EPSG:32632", resolution=1)
    assert (cube.attrs["epsg"], cube.sizes["x"]) == (32632, 2)
    degrees = stac_latent.minicube(coded, LAT, LON, edge_size=4, crs="EPSG:4326", resolution=1e-4)
    assert "edge_size_m" not in degrees.attrs
    assert degrees["cubo:distance_from_center"].attrs["units"] == "degree"


@pytest.mark.parametrize(
    ("place", "options", "kind", "text"),
    [
        ((100, 5), {}, GridError, r"lat=100 is not between -90 and 90 degrees; they seem to be swapped: did you mean lat=5, lon=100\?"),
        ((5, 200), {}, GridError, "the same meridian is lon=-160"),
        (("north", 5), {}, GridError, "must be numbers in degrees"),
        ((math.nan, 5), {}, GridError, "are no place"),
        ((90, 0), {}, GridError, "outside UTM, .*'EPSG:3413'"),
        ((-85, 0), {}, GridError, "outside UTM, .*'EPSG:3031'"),
        ((LAT, LON), {"edge_size": 0}, GridError, "edge_size=0 must be a number above 0"),
        ((LAT, LON), {"edge_size": 10**7}, GridError, "more than 16384 pixels of 10 .*load such an area with"),
        ((LAT, LON), {"edge_size": 2.5}, GridError, "must be a whole number of pixels"),
        ((LAT, LON), {"resolution": -10}, GridError, "resolution=-10 must be a number above 0"),
        ((LAT, LON), {"units": "mile"}, GridError, "units='mile' are not known; expected 'px', 'm', 'km'"),
        ((LAT, LON), {"crs": "EPSG:4326"}, GridError, "128 pixels are 1280 degrees"),
        ((LAT, LON), {"crs": "EPSG:4326", "units": "m"}, GridError, "whose pixels are in degrees"),
        ((LAT, LON), {"crs": "nowhere"}, GridError, "is not a CRS that PROJ knows"),
        ((LAT, LON), {"start_date": "2025", "end_date": "2024"}, SearchError, "ends before it begins"),
        ((LAT, LON), {"start_date": "2024/2025"}, SearchError, "is an interval; give its two ends"),
        ((LAT, LON), {"start_date": "2025"}, CatalogError, "from 2025 to the last; it has 2 there, from 2024-06-01 to 2024-06-11"),
        ((LON, LAT), {}, CatalogError, r"are the two swapped\?"),
        ((0, 0), {}, CatalogError, r"its items lie within \(13\.\d+, 46\.\d+, 13\.\d+, 46\.\d+\)"),
        ((LAT, LON), {"asset": "x"}, CatalogError, "has an asset 'x'; they have image, latent"),
        ((LAT, LON), {"edge": 3}, OptionError, r"no option 'edge' \(did you mean 'edge_size'\?\)"),
    ],
)  # fmt: skip
def test_what_makes_no_cube(dates, place, options, kind, text):
    with pytest.raises(kind, match=text):
        stac_latent.minicube(dates[1], *place, **options)


def test_options_of_latents_are_refused_for_raw_items(dates):
    with pytest.raises(CatalogError, match=r"physical=True given, and none of 2 item\(s\) has a latent"):
        stac_latent.minicube(dates[0], LAT, LON, physical=True)
    with pytest.raises(
        CatalogError, match=r"no raw band 'B99' in 2 item\(s\); item 'd0' has image \(B02, blue\)"
    ):
        stac_latent.minicube(dates[0], LAT, LON, bands=["B99"])


def test_a_cube_across_180_degrees_has_pixels_of_both_sides(tmp_path):
    """A scene of zone 60 that reaches beyond 180 degrees, and a place a few metres west and east of it."""
    grid = pixel_grid((100, 120), 815_000.0, 8_120_000.0, 100.0, "EPSG:32760")
    item = encoded(tmp_path, "far", np.maximum(scene((100, 120)), 1), grid)
    outline = to_lonlat(
        np.array([shapely.box(815_000, 8_110_000, 827_000, 8_120_000)]),
        partial(lonlat, crs="EPSG:32760"),
        projected=True,
    )
    item.geometry, item.bbox = outline[0].__geo_interface__, list(bbox_of(outline[0]))
    assert item.bbox[0] > item.bbox[2]
    for lon in (179.9999, -179.9999):
        cube = stac_latent.minicube(item, -17.02, lon, edge_size=30, resolution=100, bands="red")
        assert cube.attrs["epsg"] == (32760 if lon > 0 else 32701)
        assert (cube.red > 0).all()
