"""``points``: the pixels that hold them, each chunk decoded once, nothing lost in silence, and tables that are none."""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import shapely
from adopt_support import NORTH, alphaearth_codes, alphaearth_truth
from affine import Affine
from load_support import CRS, NOON, PROJ, encoded, pixel_grid, scene, stock_item, write_tiff
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import stac_latent
from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.place.plan import Plan
from stac_latent.catalog.place.table import Columns, point_table
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read import driver
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, GridError, OptionError, SourceWarning, StacLatentError
from stac_latent.spec import Band
from stac_latent.store import StoreLayout
from stac_latent.system.links import local_path

SHAPE = (187, 213)
GRID = pixel_grid(SHAPE)
LEFT, TOP = 400_020.0, 5_099_980.0
DAYS = [NOON + dt.timedelta(days=d) for d in (0, 10, 30)]
CUT = StoreLayout(4, 8)
"""Chunks of 32 pixels: a scene has 6 x 7 or 7 x 8 of them."""


def to_lonlat(x, y, crs=CRS):
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)


def table_of(x, y, **columns):
    lon, lat = to_lonlat(np.asarray(x, float), np.asarray(y, float))
    return pd.DataFrame({"lon": lon, "lat": lat, **columns})


def middles(rows, columns):
    """Points near the middle of pixels of ``GRID``."""
    return LEFT + 10 * np.asarray(columns) + 4.9, TOP - 10 * np.asarray(rows) - 5.1


@pytest.fixture(scope="module")
def dates(tmp_path_factory):
    """Three dates of one place, raw and encoded in chunks of 32 pixels."""
    folder = tmp_path_factory.mktemp("points")
    raw, coded = [], []
    for i, when in enumerate(DAYS):
        write_tiff(folder / f"d{i}.tif", scene(SHAPE, i), GRID)
        raw.append(stock_item(f"d{i}", folder / f"d{i}.tif", GRID, when=when))
        coded.append(encoded(folder, f"d{i}", scene(SHAPE, i), GRID, when=when, layout=CUT))
    return raw, coded


@pytest.fixture
def reads(monkeypatch):
    """What is decoded and opened: chunks by Item, and readers."""
    seen = Counter()
    decode, opened = LatentReader._decode_alone, driver.open_cells

    def counted(self, window, bands):
        seen[self.ref.item_id, window] += 1
        return decode(self, window, bands)

    def counted_open(ref):
        seen["opened", ref.item_id] += 1
        return opened(ref)

    driver._open.cache_clear()
    monkeypatch.setattr(LatentReader, "_decode_alone", counted)
    monkeypatch.setattr(driver, "open_cells", counted_open)
    return seen


@pytest.mark.parametrize("physical", [False, True])
def test_values_are_those_of_the_pixel_that_load_gives(dates, physical):
    """Random points, and those a hair from all four edges of the scene."""
    _, coded = dates
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(LEFT, LEFT + 2130, 300), [LEFT + 0.01, LEFT + 2129.99] * 2])
    y = np.concatenate([rng.uniform(TOP - 1870, TOP, 300), [TOP - 0.01] * 2, [TOP - 1869.99] * 2])
    found = stac_latent.points(coded, table_of(x, y), ["red", "B02"], physical=physical)
    whole = stac_latent.load(
        coded, ["red", "B02"], geobox=GeoBox(SHAPE, Affine(*GRID.transform), CRS), physical=physical
    )
    rows, columns = np.floor((TOP - y) / 10).astype(int), np.floor((x - LEFT) / 10).astype(int)
    assert list(found.columns) == ["point", "time", "item", "status", "red", "B02"]
    assert len(found) == 3 * 304
    for name in ("red", "B02"):
        expected = whole[name].to_numpy()[:, rows, columns].T.ravel().astype(np.float32)
        if not physical:
            expected[expected == 0] = np.nan
        np.testing.assert_array_equal(found[name], expected)
    assert (found.status == np.where(np.isnan(found.red), "nodata", "data")).all()
    assert 0 < (found.status == "nodata").sum() < len(found)
    assert list(found.point) == list(np.repeat(np.arange(304), 3))
    assert list(found.item[:3]) == ["d0", "d1", "d2"]
    assert list(found.time[:3]) == [pd.Timestamp(d).tz_localize(None) for d in DAYS]


def test_values_are_those_of_a_minicube_of_one_pixel(dates):
    _, coded = dates
    table = table_of(*middles([20, 100, 186], [40, 130, 212]))
    found = stac_latent.points(coded, table, "green").set_index(["point", "item"])
    for i, row in table.iterrows():
        cube = stac_latent.minicube(coded, row.lat, row.lon, bands="green", edge_size=1)
        expected = cube.green.to_numpy()[:, 0, 0].astype(float)
        assert found.green[i].tolist() == pytest.approx(
            np.where(expected == 0, np.nan, expected).tolist(), nan_ok=True
        )


def test_each_chunk_is_decoded_once_and_each_store_is_opened_once(dates, reads):
    """5,000 points in disorder, many in each chunk; then three of them."""
    _, coded = dates
    rng = np.random.default_rng(1)
    table = table_of(rng.uniform(LEFT, LEFT + 2130, 5000), rng.uniform(TOP - 1870, TOP, 5000))
    stac_latent.points(coded, table, ["red", "green"])
    chunks = sum(1 for _ in LatentReader.open(coded[0]).chunk_windows())
    assert set(reads.values()) == {1}
    assert len(reads) == 3 * (chunks + 1)
    driver._open.cache_clear()
    reads.clear()
    stac_latent.points(coded, table_of(*middles([100, 101, 100], [50, 51, 50])), "red")
    assert len(reads) == 3 * (1 + 1)


def test_the_order_of_the_table_does_not_matter_and_twins_are_kept(dates):
    _, coded = dates
    rng = np.random.default_rng(2)
    table = table_of(rng.uniform(LEFT, LEFT + 2130, 50), rng.uniform(TOP - 1870, TOP, 50))
    order = np.concatenate([rng.permutation(50), [7, 7]])
    one = stac_latent.points(coded, table)
    other = stac_latent.points(coded, table.iloc[order])
    assert list(other.point) == list(np.repeat(order, 3))
    pd.testing.assert_frame_equal(
        other.set_index("point"), pd.concat([one[one.point == i] for i in order]).set_index("point")
    )


def test_points_outside_are_named(dates):
    _, coded = dates
    x, y = (
        [LEFT - 0.01, LEFT + 5, LEFT + 2130.01, LEFT + 5, LEFT + 5],
        [TOP - 5, TOP + 0.01, TOP - 5, TOP - 1870.01, TOP - 1000],
    )
    table = table_of(x, y, name=list("abcde")).set_index("name")
    found = stac_latent.points(coded, table, "red")
    assert list(found.point) == ["a", "b", "c", "d", "e", "e", "e"]
    assert list(found.status) == ["outside"] * 4 + ["data"] * 3
    assert found[:4].red.isna().all()
    assert found[:4].item.isna().all()
    assert found[:4].time.isna().all()


def test_a_time_takes_the_nearest_item_or_all_within_tolerance(dates):
    _, coded = dates
    x, y = middles([100] * 5, [50] * 5)
    times = ["2024-06-01", "2024-06-08T12:00:00+02:00", "2024-06-20T23:59:00Z", "2025-01-01", "2024-06-11"]
    table = table_of(x, y, when=times, site=["a", "b", "c", "d", "e"])
    near = stac_latent.points(coded, table, "red", time="when", point="site")
    assert list(near.item) == ["d0", "d1", "d1", "d2", "d1"]
    some = stac_latent.points(coded, table, "red", time="when", point="site", tolerance="5D")
    assert list(some.status) == ["data", "data", "no date", "no date", "data"]
    assert list(some.point) == ["a", "b", "c", "d", "e"]
    every = stac_latent.points(
        coded, table, "red", time="when", point="site", tolerance=pd.Timedelta("10D"), match="all"
    )
    assert list(zip(every.point, every.item.fillna("none"), strict=True)) == [
        ("a", "d0"), ("b", "d0"), ("b", "d1"), ("c", "d1"), ("d", "none"), ("e", "d0"), ("e", "d1")
    ]  # fmt: skip
    assert list(
        stac_latent.points(coded, table, "red", start_date="2024-06-05", end_date="2024-06-11").item.unique()
    ) == ["d1"]


def test_of_neighbouring_tiles_of_one_time_the_one_with_data_is_taken(tmp_path):
    holes = scene(SHAPE, 5)
    holes[:, 90:104, 120:151] = 777
    full, empty = (encoded(tmp_path, n, f, GRID) for n, f in (("z", holes), ("a", scene(SHAPE, 5))))
    table = table_of(*middles([95, 50], [130, 130]), when="2024-06-02")
    found = stac_latent.points([full, empty], table, "red", time="when")
    assert list(found.item) == ["z", "a"]
    assert list(found.status) == ["data", "data"]


def test_geometries_and_coordinates_of_any_crs(dates):
    _, coded = dates
    x, y = middles([100, 30], [50, 60])
    expected = stac_latent.points(coded, table_of(x, y), "red")
    frame = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=CRS)
    plain = pd.DataFrame({"x": x, "y": y, "east": x, "north": y})
    turned = (
        table_of(x, y)
        .rename(columns={"lon": "longitude", "lat": "latitude"})
        .assign(longitude=lambda t: t.longitude - 360)
    )
    for table, options in [
        (frame, {}),
        (frame.to_crs("EPSG:3035"), {}),
        (plain, {"crs": CRS}),
        (plain, {"crs": CRS, "lon": "east", "lat": "north"}),
        (turned, {}),
    ]:
        pd.testing.assert_frame_equal(stac_latent.points(coded, table, "red", **options), expected)


def test_bands_of_several_grids_are_read_from_their_own_pixels_in_one_pass(tmp_path, reads):
    """10, 20 and 60 m: the first two share chunks, the third has a lattice of its own."""
    gsd = {"B02": 10, "B05": 20, "B01": 60, "B03": 10}
    item = pystac.Item("s", None, None, NOON, {}, stac_extensions=[PROJ])
    boxes, fields = {}, {}
    for i, (name, size) in enumerate(gsd.items()):
        shape = tuple(-(-n * 10 // size) for n in (300, 280))
        boxes[name] = pixel_grid(shape, 400_020.0, 5_100_000.0, float(size))
        fields[name] = scene(shape, i, 1)
        write_tiff(tmp_path / f"{name}.tif", fields[name], boxes[name])
        part = stock_item(
            "s", tmp_path / f"{name}.tif", boxes[name], bands=[Band(name, nodata=0, scale=1e-4)], key=name
        )
        item.add_asset(name, part.assets[name])
        item.geometry, item.bbox = part.geometry, part.bbox
    codec = open_codec("lin", bands=[Band(n, nodata=0, scale=1e-4) for n in gsd], mean=1300.0)
    (coded,) = encode(item, codec, tmp_path / "c", max_error=0)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(400_025, 402_815, 200), rng.uniform(5_097_005, 5_099_995, 200)
    found = stac_latent.points(coded, table_of(x, y), list(gsd))
    for name, size in gsd.items():
        rows, columns = (
            np.floor((5_100_000 - y) / size).astype(int),
            np.floor((x - 400_020) / size).astype(int),
        )
        expected = fields[name][0][rows, columns].astype(np.float32)
        np.testing.assert_array_equal(found[name], np.where(expected == 0, np.nan, expected))
    assert {v for k, v in reads.items() if k[0] == "s"} == {1}
    assert reads["opened", "s"] == 2


def test_raw_items_hold_what_rasterio_samples(dates):
    raw, _ = dates
    rng = np.random.default_rng(4)
    x, y = rng.uniform(LEFT, LEFT + 2130, 200), rng.uniform(TOP - 1870, TOP, 200)
    found = stac_latent.points(raw, table_of(x, y), ["image.3", "blue"])
    for i, item in enumerate(raw):
        mine = found[found.item == item.id]
        with rasterio.open(item.assets["image"].href) as src:
            expected = np.array(list(src.sample(zip(x, y, strict=True), indexes=[3, 1])), np.float32)
        expected[expected == 0] = np.nan
        np.testing.assert_array_equal(mine[["image.3", "blue"]], expected)
        assert len(mine) == 200, i
    assert list(stac_latent.points(raw, table_of(x, y)).columns[4:]) == ["image", "image.2", "image.3"]


def test_raw_values_in_physical_units_and_without_what_a_mask_leaves_out(tmp_path):
    field = scene(SHAPE, 7, 1)
    write_tiff(tmp_path / "a.tif", field, GRID, nodata=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "a.tif", "r+") as dst:
        dst.write_mask(field[0] % 2 == 0)
    item = stock_item("a", tmp_path / "a.tif", GRID, bands=[Band("v", scale=0.5, offset=3.0)])
    rows, columns = np.divmod(np.arange(0, 187 * 213, 97), 213)
    found = stac_latent.points(item, table_of(*middles(rows, columns)), "v", physical=True)
    values = field[0, rows, columns]
    np.testing.assert_array_equal(found.v, np.where(values % 2 == 0, values * np.float32(0.5) + 3, np.nan))


def test_cells_of_latents_are_those_of_load(dates):
    _, coded = dates
    whole = stac_latent.load(coded, upto="latent")
    rng = np.random.default_rng(6)
    x, y = rng.uniform(LEFT, LEFT + 2130, 60), rng.uniform(TOP - 1870, TOP, 60)
    found = stac_latent.points(coded, table_of(x, y), upto="latent")
    column, row = (np.floor(v).astype(int) for v in ~whole.odc.geobox.affine * (x, y))
    expected = whole["latent"].to_numpy()[:, :, row, column].transpose(2, 0, 1).reshape(180, -1)
    np.testing.assert_array_equal(np.stack(found["latent"]), expected)


def test_vectors_of_others_are_dequantised_also_where_rows_run_north(tmp_path):
    codes = alphaearth_codes(1)
    south = NORTH * Affine.translation(0, codes.shape[1]) * Affine.scale(1, -1)
    with rasterio.open(
        tmp_path / "aef.tiff", "w", driver="GTiff", count=64, height=11, width=13, dtype="int8", nodata=-128, transform=south, crs=CRS
    ) as dst:  # fmt: skip
        dst.write(codes)
    item = stac_latent.adopt("alphaearth", tmp_path / "aef.tiff", tmp_path / "c", when="2024")[0]
    rows, columns = (v.ravel() for v in np.mgrid[:11, :13])
    x, y = south * (columns + 0.4, rows + 0.6)
    found = stac_latent.points(item, table_of(x, y), upto="latent")
    np.testing.assert_allclose(
        np.stack(found["latent"]), alphaearth_truth(codes)[:, rows, columns].T, atol=1e-6
    )
    assert (
        found.status == np.where(np.isnan(alphaearth_truth(codes)[0, rows, columns]), "nodata", "data")
    ).all()


def test_longitudes_from_0_to_360_are_the_same_places(tmp_path):
    grid = pixel_grid((60, 80), 340.0, 30.0, 0.5, "EPSG:4326")
    item = encoded(tmp_path, "w", np.maximum(scene((60, 80)), 1), grid)
    item.bbox, item.geometry = [-20, 0, 20, 30], shapely.box(-20, 0, 20, 30).__geo_interface__
    table = pd.DataFrame({"lon": [-10.1, 349.9, 10.1, 370.0 - 359.9], "lat": 10.1})
    found = stac_latent.points(item, table, "red")
    assert (found.status == "data").all()
    assert found.red[0] == found.red[1] != found.red[2] == found.red[3]


BAD = [
    (pd.DataFrame(), "has no rows"),
    ([(1, 2)], "is a pandas DataFrame or a GeoDataFrame, got list"),
    (pd.DataFrame({"lat": [46.0]}), r"no column 'lon' or 'longitude'; it has lat: name the column with lon="),
    (pd.DataFrame({"longitud": [1], "lat": [46.0]}), r"no column 'lon' or 'longitude' \(did you mean 'longitud'\?\)"),
    (pd.DataFrame({"lon": [1], "longitude": [1], "lat": [46.0]}), "has both columns"),
    (pd.DataFrame({"lon": [13, None], "lat": 46.0}), "1 of 2 rows have no place .*the first is row 1; drop them"),
    (pd.DataFrame({"lon": [13, np.inf], "lat": 46.0}), "1 of 2 rows have no place"),
    (pd.DataFrame({"lon": ["13", "13°E"], "lat": 46.0}), "column 'lon' must be numbers; row 1 holds '13°E'"),
    (pd.DataFrame({"lon": [46.0], "lat": [113.0]}), "longitude 46 and latitude 113; the two columns seem to be swapped"),
    (pd.DataFrame({"lon": [400_100.0], "lat": [5_099_000.0]}), "coordinates in metres need crs="),
    (pd.DataFrame([[1, 2, 3]], columns=["lon", "lon", "lat"]), "2 columns 'lon'"),
    (gpd.GeoDataFrame(geometry=[shapely.Point(1, 2)]), "has no CRS; say which with table.set_crs"),
    (gpd.GeoDataFrame(geometry=[shapely.box(1, 2, 3, 4)], crs=4326), "1 of 1 rows are no points: row 0 is Polygon"),
    (gpd.GeoDataFrame({"a": [1]}), "has no geometry; it has a"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "text"), BAD)
def test_what_is_no_table_of_points(dates, table, text):
    with pytest.raises(CatalogError, match=text):
        stac_latent.points(dates[1], table)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"time": "wen"}, CatalogError, r"no column 'wen' \(did you mean 'when'\?\), which time= names"),
        ({"time": "year"}, CatalogError, "column 'year' holds numbers"),
        (
            {"time": "bad"},
            CatalogError,
            "1 of 2 rows have no time in column 'bad', the first is row 1 with 'soon'",
        ),
        ({"tolerance": "5D"}, CatalogError, "name their column with time="),
        ({"time": "when", "match": "all"}, CatalogError, "match='all' needs tolerance="),
        ({"time": "when", "match": "some"}, CatalogError, "match='some' is not known"),
        ({"time": "when", "tolerance": "five"}, CatalogError, "is no length of time"),
        ({"time": "when", "tolerance": "-1D"}, CatalogError, "must not be negative"),
        ({"bands": "rad"}, CatalogError, r"no band 'rad' \(did you mean 'red'\?\)"),
        ({"bands": "red", "upto": "latent"}, CatalogError, "latents have channels, not bands"),
        ({"crs": "nowhere"}, GridError, "is not a CRS that PROJ knows"),
        ({"tolerence": "5D"}, OptionError, r"did you mean 'tolerance'\?"),
        ({"start_date": "2030"}, CatalogError, r"it has 3 there, from 2024-06-01 to 2024-07-01"),
    ],
)
def test_options_that_cannot_be_followed(dates, options, kind, text):
    table = table_of(*middles([100, 100], [50, 60]), when="2024-06-01", year=2024, bad=["2024-06-01", "soon"])
    with pytest.raises(kind, match=text):
        stac_latent.points(dates[1], table, **options)


def test_raw_items_lack_what_latents_have(dates):
    table = table_of(*middles([100], [50]))
    with pytest.raises(CatalogError, match=r"upto='latent' given, and none of 3 item\(s\) has a latent"):
        stac_latent.points(dates[0], table, upto="latent")
    with pytest.raises(
        CatalogError,
        match=r"no raw band 'rad' \(did you mean 'red'\?\) in item 'd0'; it has image \(B02, blue\)",
    ):
        stac_latent.points(dates[0], table, "rad")


def test_where_file_and_item_disagree_the_rule_is_told(dates):
    item = dates[0][0].clone()
    item.assets["image"].extra_fields["bands"][0]["nodata"] = 777
    with pytest.warns(
        SourceWarning, match="item 'd0': band 'blue' has nodata 777 in the item and 0 in its file"
    ):
        stac_latent.points(item, table_of(*middles([100], [50])), "blue")


def test_a_result_larger_than_the_memory_is_refused_before_it_is_read(dates):
    """Rows are counted first: here as many as a table of 10 million rows and a million dates would make."""
    known = point_table(table_of(*middles([100], [50])), Columns())
    plan = Plan(known, [], None, "nearest")
    plan.rows = 10**13

    class Wide:
        asked = ("red",)

    plan.sources = [Wide()]
    with pytest.raises(
        GridError, match=r"make up to 10,000,000,000,000 rows, which take .* GiB .*Give the table in parts"
    ):
        plan.check_size()


def test_many_points_are_searched_for_as_a_few_places():
    """Points of both sides of 180 degrees search two cells, not the globe; a thousand search one box."""
    near = point_table(pd.DataFrame({"lon": [179.95, -179.95, 180.05], "lat": -17.05}), Columns()).area()
    assert near.bounds[0] == -180
    assert near.area < 0.1
    rng = np.random.default_rng(0)
    many = point_table(
        pd.DataFrame({"lon": rng.uniform(3, 9, 1000), "lat": rng.uniform(40, 50, 1000)}), Columns()
    ).area()
    assert many.geom_type == "Polygon"
    assert len(many.exterior.coords) == 5


def test_raw_bands_are_read_beside_decoded_ones(dates):
    _, coded = dates
    table = table_of(*middles([100, 30], [50, 60]))
    found = stac_latent.points(coded, table, ["image.1", "B02", "image.3"])
    alone = stac_latent.points(coded, table, ["B02"])
    raw = stac_latent.points(dates[0], table, ["image.3", "image.1"])
    assert list(found.columns[4:]) == ["image.1", "B02", "image.3"]
    for name, other in (("image.1", raw), ("B02", alone), ("image.3", raw)):
        np.testing.assert_array_equal(found[name], other[name])


def test_an_item_that_cannot_be_read_ends_the_run_or_is_named(dates, tmp_path):
    """Its store is gone; of the second, its fields are."""
    _, coded = dates
    gone, torn = (encoded(tmp_path / n, n, scene(SHAPE, 1), GRID, when=DAYS[1]) for n in ("gone", "torn"))
    shutil.rmtree(local_path(LatentReader.open(gone).ref.href))
    torn = torn.clone()
    del torn.assets["latent"].extra_fields["latent:space"]
    table = table_of(*middles([100], [50]))
    with pytest.raises(CatalogError, match="latent:space"):
        stac_latent.points([*coded, torn], table, "red")
    with pytest.raises(StacLatentError, match="gone"):
        stac_latent.points([*coded, gone], table, "red")
    with pytest.warns(SourceWarning) as said:
        found = stac_latent.points([*coded, gone, torn], table, "red", errors="warn")
    assert list(found.item) == ["d0", "d1", "gone", "d2"]
    assert list(found.status) == ["data", "data", "unreadable", "data"]
    texts = [str(w.message) for w in said]
    assert any("'torn'" in t for t in texts)
    assert any("1 of 4 item(s) cannot be read, and have no values: 'gone'" in t for t in texts)
