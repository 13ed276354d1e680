"""CRSs of every kind: with codes of any authority, and without; read, stored, loaded and published where the file lies."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import rasterio.warp
import zarr
from affine import Affine
from core_support import check, make_scene, scene_field, small_codec

from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.footprints import footprints
from stac_latent.catalog.publish.publish import publish
from stac_latent.catalog.verify import verify
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.load import load
from stac_latent.errors import GridError
from stac_latent.geo.crs import crs_fields, crs_from_fields, crs_label, crs_text
from stac_latent.spec import Grid
from stac_latent.testing import make_field

CODELESS = {
    "sinusoidal": "+proj=sinu +R=6371007.181 +units=m",
    "albers": "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +datum=WGS84",
    "lambert": "+proj=lcc +lat_0=38.5 +lon_0=-97.5 +lat_1=38.5 +lat_2=38.5 +R=6371229",
    "equal-earth": "+proj=eqearth +lon_0=100 +datum=WGS84",
    "no-datum": "+proj=utm +zone=33 +ellps=intl +units=m",
    "shifted": "+proj=utm +zone=33 +ellps=intl +towgs84=-87,-98,-121",
}
TRANSFORM = Affine(463.3, 0, -1e5, 0, -463.3, 1e6)


def raster_item(folder, crs, field, *, transform=TRANSFORM, fields=None, nodata=0, name="a"):
    """An Item with one band in a GeoTIFF that no proj: fields describe, but those given."""
    path = folder / f"{name}.tif"
    height, width = field.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=field.dtype, crs=crs,
        transform=transform, nodata=nodata,
    ) as dst:  # fmt: skip
        dst.write(field, 1)
    ring = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    item = pystac.Item(
        name, {"type": "Polygon", "coordinates": [ring]}, [0, 0, 1, 1], None,
        {"start_datetime": "2024-06-01T00:00:00Z", "end_datetime": "2024-06-02T00:00:00Z"}, collection="c",
    )  # fmt: skip
    extra = {"data_type": str(field.dtype)} | ({} if nodata is None else {"nodata": nodata}) | (fields or {})
    item.add_asset("v", pystac.Asset(str(path), media_type=pystac.MediaType.GEOTIFF, extra_fields=extra))
    item.set_self_href(str(folder / f"{name}.json"))
    return item


def pixels(shape=(60, 70), seed=0):
    return make_field(open_codec("zstd", bands=["v"]).bands, shape, seed)[0]


@pytest.mark.parametrize("text", CODELESS.values(), ids=CODELESS)
def test_a_crs_without_a_code_is_stored_as_wkt_and_loaded_in_place(tmp_path, text):
    field, wkt = pixels(), pyproj.CRS(text).to_wkt()
    (made,) = encode(raster_item(tmp_path, wkt, field), open_codec("zstd", bands=["v"]), tmp_path / "o")
    fields = json.loads((tmp_path / "o/c/a/a.json").read_text())["assets"]["latent"]
    assert fields["proj:code"] is None
    assert pyproj.CRS(fields["proj:wkt2"]).equals(pyproj.CRS(wkt), ignore_axis_order=True)
    attrs = zarr.open_group(str(tmp_path / "o/c/a/latent.zarr"), mode="r").attrs
    assert attrs["proj:wkt2"] == fields["proj:wkt2"]
    check(made)
    whole = load(made)
    np.testing.assert_array_equal(whole.v.values[0], field)
    assert tuple(whole.odc.geobox.affine)[:6] == tuple(TRANSFORM)[:6]
    assert pyproj.CRS(whole.odc.crs.proj).equals(pyproj.CRS(wkt), ignore_axis_order=True)


@pytest.mark.parametrize("text", CODELESS.values(), ids=CODELESS)
def test_a_crs_without_a_code_is_reprojected_as_rasterio_does(tmp_path, text):
    field, wkt = pixels(), pyproj.CRS(text).to_wkt()
    made = encode(raster_item(tmp_path, wkt, field), open_codec("zstd", bands=["v"]), tmp_path / "o")
    found = load(made, crs="EPSG:4326", resolution=0.004, resampling="bilinear").v
    expected = np.zeros(found.shape[1:], field.dtype)
    rasterio.warp.reproject(
        field, expected, src_crs=wkt, src_transform=TRANSFORM, src_nodata=0, dst_crs="EPSG:4326",
        dst_transform=found.odc.geobox.affine, dst_nodata=0, resampling=rasterio.warp.Resampling.bilinear,
    )  # fmt: skip
    assert (expected > 0).mean() > 0.5
    np.testing.assert_array_equal(found.values[0], expected)


@pytest.mark.parametrize("crs", [CODELESS["sinusoidal"], "ESRI:54009"])
def test_latents_of_such_a_crs_load_and_are_published_where_they_are(tmp_path, crs):
    codec = open_codec("lin", bands=["v"])
    made = encode(raster_item(tmp_path, crs, pixels((64, 64))), codec, tmp_path / "o")
    cells = load(made, upto="latent")
    to_lonlat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    publish(made, tmp_path / "t.parquet")
    rows = geopandas.read_parquet(tmp_path / "t.parquet")
    x, y = to_lonlat.transform(float(cells.x[3]), float(cells.y[2]))
    middle = rows[(rows["row"] == 2) & (rows["col"] == 3)].geometry.iloc[0].centroid
    assert (middle.x, middle.y) == pytest.approx((x, y), abs=1e-5)


def test_fields_say_a_crs_in_any_form():
    sinusoidal = pyproj.CRS(CODELESS["sinusoidal"])
    wkt = crs_text(sinusoidal)
    assert crs_fields("ESRI:54009") == {"proj:code": "ESRI:54009"}
    assert crs_fields(wkt) == {"proj:code": None, "proj:wkt2": wkt}
    assert crs_from_fields({"proj:projjson": sinusoidal.to_json_dict()}) == wkt
    assert crs_from_fields({"proj:code": None, "proj:wkt2": wkt}, {"proj:code": "EPSG:4326"}) == wkt
    assert crs_from_fields({"proj:code": "EPSG:None"}, {"proj:epsg": 32633}) == "EPSG:32633"
    assert crs_from_fields({}, {}) is None
    assert crs_label(wkt) == "unknown (no authority's code; proj:wkt2)"
    grid = Grid(wkt, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (4, 4))
    assert Grid.from_fields(grid.to_fields()) == grid
    with pytest.raises(
        GridError, match=r"proj:wkt2: 'PROJCRS\[oops' is not a CRS that PROJ knows; expected a code such as"
    ):
        crs_from_fields({"proj:wkt2": "PROJCRS[oops"})


@pytest.mark.parametrize(
    "code", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:2154", "ESRI:54009", "OGC:CRS84"]
)
def test_a_code_survives_the_files_that_say_it_in_other_words(code):
    crs = pyproj.CRS(code)
    for text in (code, crs.to_wkt(), rasterio.crs.CRS.from_user_input(code).to_wkt(), crs.to_json()):
        assert crs_text(text) == code


def test_a_like_crs_is_not_taken_for_one_with_a_code():
    loose = pyproj.CRS(CODELESS["no-datum"])
    assert loose.to_epsg() == 23033  # what a looser match makes of it
    assert "[" in crs_text(loose)
    assert "[" in crs_text(pyproj.CRS("+proj=utm +zone=33 +ellps=GRS80"))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:3857", Affine(100, 0, 20037508.34 - 6000, 0, -100, -1900000)),
        ("EPSG:6933", Affine(1000, 0, -17367530, 0, -1000, 7000000)),
        ("EPSG:3395", Affine(100, 0, -20037508.34, 0, -100, -1900000)),
        ("EPSG:8857", Affine(1000, 0, 17243959 - 70000, 0, -1000, 30000)),
        ("EPSG:4326", Affine(0.01, 0, 179.4, 0, -0.01, 10)),
        ("EPSG:4326", Affine(0.01, 0, 179.7, 0, -0.01, 10)),
        ("EPSG:3832", Affine(1000, 0, 3339584 - 35000, 0, -1000, 20000)),
        ("ESRI:54009", Affine(1000, 0, -18040000, 0, -1000, 20000)),
        ("EPSG:3031", Affine(1000, 0, -30000, 0, -1000, 30000)),
        ("EPSG:32601", Affine(1000, 0, 140000, 0, -1000, 20000)),
    ],
    ids=lambda v: v if isinstance(v, str) else f"{v.c:g}",
)  # fmt: skip
@pytest.mark.parametrize("nodata", [None, 0])
def test_rasters_at_the_edge_of_the_world_keep_their_pixels(tmp_path, crs, transform, nodata):
    field = np.where(pixels() == 0, 1, pixels())
    item = raster_item(tmp_path, crs, field, transform=transform, nodata=nodata)
    (made,) = encode(item, open_codec("zstd", bands=["v"]), tmp_path / "o")
    assert made.properties["latent:max_error"] == 0
    np.testing.assert_array_equal(load(made).v.values[0], field)


@pytest.mark.parametrize("text", ["../../up", "Maupit", "a\x1b[2Jy", "a\ud800b", "utm zone"])
def test_a_text_that_is_like_a_name_is_no_crs(text):
    """PROJ takes ``../../up`` for Maupiti 83."""
    with pytest.raises(
        GridError, match=r"is not a CRS that PROJ knows; expected a code such as 'EPSG:32633'"
    ):
        crs_text(text)
    with pytest.raises(GridError, match=r"proj:code .* is not a CRS that PROJ knows; expected such as"):
        crs_from_fields({"proj:code": text})


def test_names_that_are_whole_and_numbers_are_crss():
    assert (
        crs_text("WGS 84 / UTM zone 33N")
        == crs_text("wgs 84 / utm zone 33n")
        == crs_text("32633")
        == "EPSG:32633"
    )


def test_cells_of_which_only_the_bends_are_off_the_earth():
    """Corners and middles of edges are seen from the satellite, other points of the edges are not."""
    grid = Grid("+proj=ortho +lat_0=0 +lon_0=0 +R=6371000", (7e6, 0, -9e6, 0, -7e6, 0), (1, 1), (1, 1))
    with pytest.raises(GridError, match="have no longitude and latitude; check proj:transform"):
        footprints(grid, np.array([0]), np.array([0]))


def test_verify_names_a_code_that_nobody_knows(tmp_path):
    item = encode(make_scene(tmp_path / "raw", scene_field((40, 48))).item, small_codec(), tmp_path / "cat")[
        0
    ]
    item.assets["latent"].extra_fields["proj:code"] = "con:aux"
    item.save_object()
    (found,) = verify(item.get_self_href())
    assert "'con:aux' is not a CRS that GDAL knows" in str(found.problems) + str(found.reason)
