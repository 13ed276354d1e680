"""Files, Items and answers of servers that other tools of this field stumbled over, as public threads tell; each with the result that is right."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import adopt_support as files
import numpy as np
import odc.stac
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import rioxarray  # noqa: F401 (registers .rio)
import shapely
import xarray as xr
import zarr
from affine import Affine
from core_support import CRS
from servers.loopback import Loopback
from test_source_contract import PLACE, coded, scene, told, values, write

from stac_latent import adopt, encode, load, load_table, nearest, open_codec, publish, search
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet
from stac_latent.catalog.verify import verify
from stac_latent.errors import CatalogError, CorruptDataError, SearchError
from stac_latent.spec import Band
from stac_latent.validation import validate

ROTATED = Affine.translation(399_990, 5_100_000) @ Affine.rotation(12) @ Affine.scale(10, -10)
SHEARED = Affine(10, 3, 399_990, 0, -10, 5_100_000)


def placed(tmp_path, data, transform=PLACE, crs=CRS, fields=None, name="v", band="v", **options):
    """An Item of one band, encoded without loss."""
    path = write(tmp_path / f"{name}.tif", data, transform=transform, crs=crs, **options)
    proj = told(list(transform)[:6], data.shape, crs)
    return scene({band: (path, fields or {})}, proj=proj, name=name)


# -- grids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [ROTATED, SHEARED], ids=["rotated", "sheared"])
def test_rotated_and_sheared_rasters_lie_where_their_files_do(tmp_path, transform):
    """developmentseed/titiler#1074, corteva/rioxarray#847, xarray-contrib/xarray-spatial#1764."""
    data = values()
    item = placed(tmp_path, data, transform, fields={"data_type": "uint16"})
    out, cube = coded(tmp_path, item)
    np.testing.assert_array_equal(cube.v.values[0], data)
    height, width = data.shape
    corners = np.array([transform @ p for p in ((0, 0), (width, 0), (0, height), (width, height))])
    np.testing.assert_allclose(cube.odc.geobox.boundingbox.bbox, [*corners.min(axis=0), *corners.max(axis=0)])
    upright = load(out, crs=CRS, resolution=10)
    raw = odc.stac.load([item], geobox=upright.odc.geobox)
    np.testing.assert_array_equal(upright.v.values, raw.v.values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rioxarray: the transform is rotated
        cube.isel(time=0, drop=True).rio.to_raster(tmp_path / "back.tif")
    with rasterio.open(tmp_path / "back.tif") as src:
        assert src.transform.almost_equals(transform, 1e-9)
        np.testing.assert_array_equal(src.read(1), data)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (Affine(9.87654321, 0, 399_990.123456, 0, -9.87654321, 5_100_000.654321), CRS),
        (Affine(0.000277777777778, 0, -77.0001388888889, 0, -0.000277777777778, 40.0001388888889), "EPSG:4326"),
        (Affine(0.1, 0, -180, 0, -0.1, 90), "EPSG:4326"),
    ],
)  # fmt: skip
def test_a_cube_that_is_saved_has_the_origin_of_its_file(tmp_path, transform, crs):
    """gjoseph92/stackstac#168, #68."""
    _, cube = coded(tmp_path, placed(tmp_path, values(), transform, crs))
    cube.isel(time=0, drop=True).rio.to_raster(tmp_path / "back.tif")
    with rasterio.open(tmp_path / "back.tif") as src:
        assert src.transform.almost_equals(transform, 1e-9)


def test_a_resolution_with_many_digits_makes_no_row_too_many(tmp_path):
    """gjoseph92/stackstac#147: a degree with six pixels of overlap."""
    size, height, width = 0.000277777777778, 3612, 40
    place = Affine(size, 0, -77 - 6 * size, 0, -size, 40 + 6 * size)
    data = values(shape=(height, width))
    out, _ = coded(tmp_path, placed(tmp_path, data, place, "EPSG:4269"))
    np.testing.assert_array_equal(load(out, crs="EPSG:4269", resolution=size).v.values[0], data)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_overlapping_items_meet_without_a_seam_in_another_crs(tmp_path, resampling):
    """opendatacube/odc-stac#259: nodata is 1, and each Item has a margin of it where the other has data."""
    crs, codec = "EPSG:32648", open_codec("zstd", bands=["v"])
    left, right = values(low=100, shape=(90, 90)), values(low=100, shape=(90, 90), seed=1)
    left[:, 80:], right[:, :10] = 1, 1
    items = [
        placed(tmp_path, data, Affine(30, 0, 500_000 + x, 0, -30, 1_500_000), crs, {"nodata": 1, "data_type": "uint16"}, name, nodata=1)
        for name, data, x in (("left", left, 0), ("right", right, 60 * 30))
    ]  # fmt: skip
    made = [out for item in items for out in encode(item, codec, tmp_path / "cat")]
    how = {"crs": "EPSG:6933", "resolution": 30, "resampling": resampling, "groupby": "solar_day"}
    cube, raw = load(made, **how).v, odc.stac.load(items, **how).v
    assert (cube.values[0, 15:-15, 15:-15] != 1).all()
    np.testing.assert_array_equal(cube.values, raw.values)


# -- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"nodata": 7}, {}], ids=["in the item", "in the file"])
def test_tiles_of_a_geotiff_that_were_never_written_hold_nodata(tmp_path, fields):
    """earth-mover/icechunk#2328: offset 0 and length 0."""
    path, data = tmp_path / "v.tif", values(low=8, shape=(64, 64))
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "crs": CRS, "transform": PLACE, "nodata": 7}
    with rasterio.open(
        path, "w", width=192, height=192, tiled=True, blockxsize=64, blockysize=64, sparse_ok=True, **profile
    ) as dst:
        dst.write(data, 1, window=rasterio.windows.Window(64, 64, 64, 64))
    _, cube = coded(tmp_path, scene({"v": (path, fields)}, proj=told(shape=(192, 192))))
    truth = np.full((192, 192), 7, np.uint16)
    truth[64:128, 64:128] = data
    np.testing.assert_array_equal(cube.v.values[0], truth)
    assert cube.v.attrs["_FillValue"] == 7


@pytest.mark.parametrize("codec", ["zstd", "lin"])
def test_a_negative_reflectance_stays_negative(tmp_path, codec):
    """Element84/earth-search#23: 500 times 1e-4 less 0.1."""
    data = np.full((40, 56), 500, np.uint16)
    data[3, 4] = 3000
    item = placed(tmp_path, data, fields={"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0})
    out, cube = coded(tmp_path, item, codec, error_bound=0)
    assert (cube.v.values[0, 0, 0], cube.v.dtype) == (500, "uint16")
    np.testing.assert_allclose(load(out, physical=True).v.values[0], data * 1e-4 - 0.1, atol=1e-7)


def test_an_offset_that_is_in_the_pixels_is_applied_once(tmp_path):
    """gjoseph92/stackstac#241, microsoft/PlanetaryComputer#349."""
    data = values(low=1000)
    item = placed(tmp_path, data, fields={"raster:scale": 1e-4, "raster:offset": -0.1}, band="red")
    item.properties |= {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.10"}
    out, _ = coded(tmp_path, item)
    np.testing.assert_allclose(load(out, physical=True).red.values[0], data * 1e-4, atol=1e-7)


# -- bands -----------------------------------------------------------------------------------------------------------


def test_bands_are_found_by_name_below_an_asset_of_another_name(tmp_path):
    """Open-EO/openeo-geopyspark-driver#1356, opendatacube/odc-stac#251."""
    data = np.stack([values(seed=s) for s in range(3)])
    path = write(tmp_path / "v.tif", data)
    item = scene({"asset": (path, {"bands": [{"name": f"b{i}"} for i in (1, 2, 3)]})}, proj=told())
    out, cube = coded(tmp_path, item, open_codec("zstd", bands=["b3", "b1"]))
    np.testing.assert_array_equal(cube.b3.values[0], data[2])
    np.testing.assert_array_equal(load(out, ["b1"]).b1.values[0], data[0])
    np.testing.assert_array_equal(load(out, ["b2"]).b2.values[0], data[1])  # which only the raw file has
    with pytest.raises(CatalogError, match="no band 'b4' in asset 'latent' of item 'scene'; it has b3, b1"):
        load(out, ["b4"])
    bare = scene({"asset": (write(tmp_path / "bare.tif", values()), {})}, proj=told(), name="bare")
    assert list(coded(tmp_path, bare)[1].data_vars) == ["asset"]
    with pytest.raises(CatalogError, match=r"item 'bare' lacks band\(s\) v of codec 'zstd'; it has asset"):
        coded(tmp_path, bare, open_codec("zstd", bands=["v"]))


def test_an_item_that_lacks_a_band_is_named(tmp_path):
    """Open-EO/openeo-geopyspark-driver#528."""
    path = write(tmp_path / "v.tif", values())
    full = scene({"a": (path, {}), "b": (path, {})}, proj=told(), name="full")
    half = scene({"a": (path, {})}, proj=told(), name="half")
    made = [coded(tmp_path, item)[0] for item in (full, half)]
    with pytest.raises(CatalogError, match="no band 'b' in asset 'latent' of item 'half'; it has a"):
        load(made)
    assert list(load(made, ["a"]).data_vars) == ["a"]
    with pytest.raises(CatalogError, match=r"item 'half' lacks band\(s\) b of codec"):
        encode(half, open_codec("zstd", bands=["a", "b"]), tmp_path / "other")


def test_an_item_without_a_raster_names_the_media_types(tmp_path):
    """stac-utils/xpystac#69."""
    item = scene({"doc": (tmp_path / "a.pdf", {})})
    item.assets["doc"].media_type = "application/pdf"
    with pytest.raises(CatalogError, match=r"no asset that is a raster: doc \(application/pdf\)"):
        coded(tmp_path, item, open_codec("zstd", bands=["v"]))
    with pytest.raises(CatalogError, match=r"no latent asset of kind 'codec' in 'scene' \(assets: doc\)"):
        load(item)


# -- errors within a bound, and cubes that are saved -----------------------------------------------------------------


@pytest.mark.parametrize("codec", ["lin", "dct"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bounds_hold_near_116_and_beside_nan(tmp_path, codec, dtype):
    """szcompressor/SZ3#91, szcompressor/SZ2#102: the bound is that of what is stored, and NaN stays NaN."""
    rng = np.random.default_rng(0)
    for name, data, bound in (
        ("near", 116 + rng.normal(0, 1e-3, (32, 40)), 1e-5),
        ("steep", np.where(np.arange(40) < 20, 0, 1e4) + rng.normal(size=(32, 40)), 1e-3),
    ):
        data[10:14, 18:22] = np.nan
        kept = data.astype(dtype)
        item = placed(tmp_path, kept, fields={"nodata": "nan"}, name=name, nodata=np.nan)
        chosen = open_codec(codec, bands=[Band("v", dtype, nodata=np.nan)])
        out, cube = coded(tmp_path, item, chosen, error_bound=bound)
        found = cube.v.values[0]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(kept))
        error = np.nanmax(np.abs(found.astype(float) - kept.astype(float)))
        assert error <= bound
        assert out.properties["latent:max_error"] == pytest.approx(error, abs=1e-12)


def test_a_lazy_cube_is_saved_whole_or_not_at_all(tmp_path):
    """zarr-developers/zarr-python#3682: chunks that share a shard are refused, others are saved without a loss."""
    data = values(shape=(130, 110))
    out, _ = coded(tmp_path, placed(tmp_path, data))
    cube = load(out, chunks={"y": 25, "x": 25})
    with pytest.raises(ValueError, match="would overlap multiple Dask chunks"):
        cube.to_zarr(
            tmp_path / "shards.zarr",
            zarr_format=3,
            encoding={"v": {"chunks": (1, 25, 25), "shards": (1, 50, 50)}},
        )
    cube.to_zarr(tmp_path / "plain.zarr", zarr_format=3, consolidated=False)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "plain.zarr", consolidated=False).v.values[0], data)


# -- what servers answer ---------------------------------------------------------------------------------------------

SQUARE = [[10, 45], [11, 45], [11, 46], [10, 46], [10, 45]]


def feature(name, ring=SQUARE, geometry=None, **properties):
    geometry = geometry or {"type": "Polygon", "coordinates": [ring]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "c", "geometry": geometry, "links": [],
        "bbox": list(shapely.geometry.shape(geometry).bounds), "properties": {"datetime": "2024-06-01T00:00:00Z"} | properties,
        "assets": {"a": {"href": "https://example.com/a.tif"}},
    }  # fmt: skip


def strip(west, east):
    return [[west, -10], [east, -10], [east, -9], [west, -9], [west, -10]]


PERIOD = {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-02-01T00:00:00Z"}


class Answers(Loopback):
    """An API whose search is a function of the request: features, and the token of the next page or None."""

    def __init__(self, answer, **told):
        self.answer, self.told, self.asked = answer, told, []
        super().__init__(_Answering, "answers")


class _Answering(BaseHTTPRequestHandler):
    answers = None

    def do_GET(self):
        links = [{"rel": "search", "href": f"{self.answers.url}search", "method": "POST"}]
        conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
        self._send(
            {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "", "links": links, "conformsTo": conforms}
        )  # fmt: skip

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answers.asked.append(request)
        features, token = self.answers.answer(request)
        following = {"rel": "next", "method": "POST", "href": f"{self.answers.url}search", "merge": True}
        links = [] if token is None else [following | {"body": {"token": token}}]
        self._send({"type": "FeatureCollection", "features": features, "links": links} | self.answers.told)

    def _send(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/geo+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def by_pages(pages):
    """An answer that gives these pages one after the other."""

    def answer(request):
        page = request.get("token", 0)
        return pages[page], page + 1 if page + 1 < len(pages) else None

    return answer


def test_pages_keep_the_question_and_give_each_item_once():
    """microsoft/PlanetaryComputer#163, stac-utils/pystac-client#648: a next link that says merge."""
    pages = [[feature("a"), feature("b")], [feature("b"), feature("c")], [feature("d"), feature("a")]]
    with Answers(by_pages(pages)) as api:
        assert [i.id for i in search(api.url, collections="c", limit=2)] == ["a", "b", "c", "d"]
        assert [r["collections"] for r in api.asked] == [["c"]] * 3


@pytest.mark.parametrize("told", [{"numberMatched": 300}, {"context": {"matched": 300}}, {"numMatched": 300}])
def test_fewer_items_than_the_server_told_of_are_warned_about(told):
    """microsoft/planetary-computer-apis#274: no next link after the first page of many."""
    with Answers(by_pages([[feature(str(i)) for i in range(10)]]), **told) as api:
        with pytest.warns(UserWarning, match=r"told of 300 items, brought 10 and links to no further page"):
            assert len(search(api.url)) == 10
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(search(api.url, max_items=5)) == 5


def test_as_many_items_as_the_server_told_of_are_no_matter():
    told = Answers(by_pages([[feature("a")], [feature("b")]]), numberMatched=2)
    with told as api, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(search(api.url)) == 2


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"numberMatched": 300}, "2 of 300 items"),
        ({"links": [{"rel": "next", "href": "https://example.com/2"}]}, "2 of more items"),
    ],
)
def test_a_page_that_was_saved_is_no_whole(tmp_path, told, text):
    page = {"type": "FeatureCollection", "features": [feature("a"), feature("b")]} | told
    (tmp_path / "page.json").write_text(json.dumps(page))
    with pytest.warns(UserWarning, match=f"is one page of an answer, with {text}: the others are not seen"):
        assert len(search(tmp_path / "page.json")) == 2


@pytest.mark.parametrize("stripped", [False, True])
def test_items_of_a_period_come_one_a_page(stripped):
    """stac-utils/stac-server#608, stac-utils/pgstac#425: ``datetime`` is null, or was left out as if it were nothing."""
    found = [
        feature(str(i), datetime=None, **PERIOD | {"start_datetime": f"2024-01-0{i + 1}T00:00:00Z"})
        for i in range(4)
    ]
    for one in found if stripped else ():
        del one["properties"]["datetime"]
    with Answers(by_pages([[one] for one in found])) as api:
        assert [i.id for i in search(api.url, limit=1, sortby="-datetime")] == ["3", "2", "1", "0"]
    inside, outside = (
        search({"type": "FeatureCollection", "features": found}, datetime=t) for t in ("2024-01-20", "2025")
    )
    assert (len(inside), len(outside)) == (4, 0)


def test_a_box_across_180_degrees_reaches_servers_that_order_boxes():
    """stac-utils/pgstac#428, stac-utils/stac-fastapi-pgstac#323: west and east would change places."""
    all_of_them = [feature(n, strip(w, w + 1)) for n, w in (("west", 178.5), ("east", -179.5), ("zero", 0))]

    def answer(request):
        if "bbox" in request:
            west, south, east, north = request["bbox"]
            place = shapely.box(min(west, east), south, max(west, east), north)
        else:
            place = shapely.geometry.shape(request["intersects"])
        return [f for f in all_of_them if place.intersects(shapely.geometry.shape(f["geometry"]))], None

    box = (178, -45, -178, 45)
    with Answers(answer) as api:
        assert {i.id for i in search(api.url, bbox=box)} == {"west", "east"}
    static = search({"type": "FeatureCollection", "features": all_of_them}, bbox=box)
    assert {i.id for i in static} == {"west", "east"}


@pytest.mark.parametrize("parquet", [False, True])
def test_footprints_at_180_degrees_are_found_where_they_lie(tmp_path, parquet):
    """microsoft/PlanetaryComputer#296, #213: an outline to -180.67, and a split one whose box is that of the world."""
    halves = [[strip(179, 180)], [strip(-180, -179)]]
    items = [
        feature("beyond", strip(-180.67, -178.5)),
        feature("split", geometry={"type": "MultiPolygon", "coordinates": halves}),
    ]
    source = {"type": "FeatureCollection", "features": items}
    if parquet:
        source = to_geoparquet([pystac.Item.from_dict(i) for i in items], tmp_path / "items.parquet")
    for west, east, names in (
        (179.5, 179.6, ["beyond", "split"]), (-179.6, -179.5, ["beyond", "split"]), (-178.9, -178.8, ["beyond"]), (-1, 1, [])
    ):  # fmt: skip
        assert sorted(i.id for i in search(source, bbox=(west, -10, east, -9))) == names


@pytest.mark.parametrize("operator", ["eq", "==", "!=", "lte"])
def test_operators_of_other_languages_are_named(operator):
    """stac-utils/rustac-py#135."""
    with pytest.raises(SearchError, match=f"filter: unknown operator '{operator}'; known are and, or, not"):
        search([], filter={"op": operator, "args": [{"property": "cloud"}, 5]})


def test_a_property_of_two_types_is_named_with_both_items(tmp_path):
    """uw-cryo/coincident#8."""
    items = [pystac.Item.from_dict(feature(n, gsd=v)) for n, v in (("a", 10), ("b", [10, 20]))]
    text = "field properties.gsd is a number in item 'a', a list in item 'b'; a table has one type for each field"
    with pytest.raises(CatalogError, match=text):
        to_geoparquet(items, tmp_path / "items.parquet")
    assert list(tmp_path.iterdir()) == []


# -- catalogues with something broken in them ------------------------------------------------------------------------


def test_what_is_broken_is_named_and_the_rest_is_checked(tmp_path, run):
    """stac-utils/stac-check#108, stac-utils/stactools#51: one Item of three is no JSON, the link to another is dead."""
    codec = open_codec("zstd", bands=["v"])
    for name in "abc":
        encode(placed(tmp_path, values(), name=name), codec, tmp_path / "cat")
    (tmp_path / "cat/c/b/b.json").write_text("{ not json")
    shutil.move(tmp_path / "cat/c/c/c.json", tmp_path / "c.json")
    code, out, _ = run("validate", tmp_path / "cat", "--json")
    found = json.loads(out)
    problems = {k.rsplit("/", 1)[1]: v for k, v in found["problems"].items()}
    assert code == 1
    assert found["files"] == 5  # catalogue, codec, Collection, a, b
    assert set(problems) == {"b.json", "collection.json"}
    assert "b.json is not JSON (" in problems["b.json"][0]
    assert "item './c/c.json' leads to no file" in problems["collection.json"][0]
    code, out, _ = run("verify", tmp_path / "cat", "--json")
    rows = {r["item"].rsplit("/", 1)[-1]: r["problems"] for r in json.loads(out)["assets"]}
    assert code == 1
    assert rows["a"] == []
    assert "b.json is not JSON" in rows["b.json"][0]
    assert "No such file or directory" in rows["c.json"][0]


# -- embeddings and tables of others ---------------------------------------------------------------------------------

MINE = {"producer": "me", "name": "mine", "version": "1", "when": "2024"}


@pytest.mark.parametrize("encoding", ["default", "v2"])
@pytest.mark.parametrize("separator", [".", "/"])
def test_chunks_of_zarr_are_read_whatever_their_keys(tmp_path, encoding, separator):
    """zarr-developers/VirtualiZarr#1069: ``c.0.0`` is no missing chunk."""
    codes = np.random.default_rng(0).integers(1, 100, (4, 20, 24)).astype(np.int8)
    array = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3).create_array(
        "embeddings", shape=codes.shape, dtype="int8", chunks=(4, 10, 12), fill_value=0,
        chunk_key_encoding={"name": encoding, "separator": separator}, dimension_names=["channel", "y", "x"],
    )  # fmt: skip
    array[:] = codes
    fields = {
        "latent:dim_order": ["channel", "y", "x"],
        "latent:quantization": "linear",
        "latent:quantization_scale": [0.1] * 4,
        "latent:array": "embeddings",
    }
    place = {"crs": CRS, "transform": list(PLACE)[:6]}
    items = adopt("any", tmp_path / "a.zarr", tmp_path / "c", fields=fields, **place, **MINE)
    np.testing.assert_allclose(load(items, upto="latent")["latent"].values[0], codes * 0.1, rtol=1e-6)


def test_two_models_under_one_name_are_told_apart_where_they_overlap(tmp_path):
    """ucam-eo/tessera#11: nothing but their numbers says that two tiles are of other weights; copies and other years pass."""
    codes, scale = files.tessera_codes(0, (24, 26, 128))
    again, other = np.clip(codes + np.int8(1), -127, 127), files.tessera_codes(7, (24, 26, 128))
    tiles = [
        files.write_tessera(tmp_path / name, c, s, year=year, name=f"grid_{name}.05_45.15")
        for name, c, s, year in (
            ("1", codes, scale, 2024), ("2", again, scale, 2024), ("3", *other, 2023), ("4", *other, 2024)
        )
    ]  # fmt: skip
    adopt("tessera", tiles, tmp_path / "c")
    rows = {r.item: r.problems for r in verify(str(tmp_path / "c/catalog.json"))}
    assert [n for n, p in rows.items() if p] == ["grid_4.05_45.15"]
    text = r"its vectors are not those of item 'grid_1.05_45.15' at the same cells and time \(median cosine -?0.0\d\)"
    assert re.match(text, rows["grid_4.05_45.15"][0])


def test_adopted_files_are_held_against_the_checksum_that_is_stated(tmp_path, run):
    """ucam-eo/geotessera#245, #161, #114: one byte changes, and neither size nor time do; the other files are delivered."""
    paths = [
        files.write_tiff(tmp_path / f"aef_2024_{i}.tif", files.alphaearth_codes(i), PLACE @ Affine.translation(50 * i, 0), nodata=-128)
        for i in range(3)
    ]  # fmt: skip
    stated = [{"file:checksum": "1220" + hashlib.sha256(p.read_bytes()).hexdigest()} for p in paths]
    for path, fields in zip(paths, stated, strict=True):
        (item,) = adopt("alphaearth", path, tmp_path / "c", fields=fields)
        assert [p for p in validate(item) if p.keyword != "unavailable"] == []
    assert run("verify", tmp_path / "c")[0] == 0
    before, data = paths[1].stat(), bytearray(paths[1].read_bytes())
    data[-5] ^= 1
    paths[1].write_bytes(data)
    os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    code, out, _ = run("verify", tmp_path / "c", "--json")
    rows = {r["item"]: r["problems"] for r in json.loads(out)["assets"] if r["problems"]}
    assert (code, list(rows)) == (1, ["aef_2024_1"])
    assert (
        f"aef_2024_1.tif has checksum 1220{hashlib.sha256(data).hexdigest()}, its asset states 1220"
        in rows["aef_2024_1"][0]
    )
    with pytest.raises(CorruptDataError, match="the file was changed or cut short: fetch it again"):
        adopt("alphaearth", paths[1], tmp_path / "d", fields=stated[1])
    assert not (tmp_path / "d").exists()


def _table(path, geometry, **columns):
    columns["geometry"] = pa.array(shapely.to_wkb(geometry))
    footer = {k: json.dumps(v) for k, v in files.geo_footer().items()}
    pq.write_table(pa.table(columns).replace_schema_metadata(footer), path)
    return path


def test_codes_of_two_files_are_dequantised_each_with_its_own_scale(tmp_path):
    """isaaccorley/terrabit: a scale and a zero point per file; the first one's are not those of all."""
    codes = np.random.default_rng(0).integers(-127, 128, (2, 6, 8)).astype(np.int8)
    known = ((0.02, 0.06), (0.07, -0.35))
    paths = [
        _table(tmp_path / f"{i}.parquet", files.boxes(6), v=pa.array(q.tolist(), pa.list_(pa.int8())))
        for i, q in enumerate(codes)
    ]
    columns = {"latent:columns": ["v"]}
    with pytest.raises(CatalogError, match="holds int8, and nothing says how these codes become numbers"):
        adopt("any", paths, tmp_path / "a", fields=columns, **MINE)
    items = [
        adopt("any", path, tmp_path / "c", **MINE, fields=columns | {
            "latent:quantization": "linear", "latent:quantization_scale": [scale], "latent:quantization_offset": [offset],
        })[0]
        for path, (scale, offset) in zip(paths, known, strict=True)
    ]  # fmt: skip
    truth = np.concatenate([q * scale + offset for q, (scale, offset) in zip(codes, known, strict=True)])
    np.testing.assert_allclose(np.stack(list(load_table(items).vector)), truth, rtol=1e-5, atol=1e-6)


def test_cells_that_a_table_repeats_are_rows_of_their_own_times(tmp_path):
    """ESA-PhiLab/Major-TOM#17, #19: the geometry says where a cell lies, not its name in one of two grids."""
    vectors, place = files.vectors_of(0, 3, 16), files.boxes(2)
    path = _table(
        tmp_path / "t.parquet", place[[0, 0, 1]], grid_cell=pa.array(["471U_587L", "471U_587L", "1U_1L"]),
        embedding=pa.array(vectors.tolist(), pa.list_(pa.float32())),
        timestamp=pa.array([datetime(2024, m, 1, tzinfo=UTC) for m in (1, 6, 1)]),
    )  # fmt: skip
    items = adopt("major-tom", path, tmp_path / "c", version="1")
    assert list(load_table(items).grid_cell) == ["471U_587L", "471U_587L", "1U_1L"]
    publish(items, tmp_path / "p.parquet", dtype="float32")
    found = nearest(tmp_path / "p.parquet", vectors[1].tolist(), k=3, bbox=place[0].buffer(-1e-4).bounds)
    assert list(found.row) == [1, 0]
    assert [t.month for t in found.datetime] == [6, 1]


def test_a_row_group_at_0_and_across_180_degrees_is_found_by_both_boxes(tmp_path):
    """opengeospatial/geoparquet#198."""
    east, west = shapely.box(179.5, 0, 180, 1), shapely.box(-180, 0, -179.5, 1)
    shapes = [shapely.box(-0.5, 0, 0.5, 1), shapely.MultiPolygon([east, west]), shapely.box(50, 0, 51, 1)]
    vectors = files.vectors_of(0, 3, 8)
    path = _table(tmp_path / "t.parquet", shapes, v=pa.array(vectors.tolist(), pa.list_(pa.float32())))
    items = adopt("any", path, tmp_path / "c", fields={"latent:columns": ["v"]}, **MINE)
    publish(items, tmp_path / "p.parquet", dtype="float32")
    for box, row in (
        ((-1, 0, 1, 1), 0), ((179.6, 0, 179.9, 1), 1), ((-179.9, 0, -179.6, 1), 1), ((179, 0, -179, 1), 1), ((49, 0, 52, 1), 2)
    ):  # fmt: skip
        assert list(nearest(tmp_path / "p.parquet", vectors[0].tolist(), bbox=box).row) == [row]
        assert len(load_table(items, bbox=box)) == 1
    with pytest.raises(SearchError, match=r"no row of .* matches bbox="):
        nearest(tmp_path / "p.parquet", vectors[0].tolist(), bbox=(90, 0, 100, 1))
