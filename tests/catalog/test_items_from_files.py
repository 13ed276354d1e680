"""Raster files become Items: what names, headers and metadata say of them, and words where they say nothing."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from files_support import PRODUCT, UTM, write, write_netcdf, write_product
from rasterio.control import GroundControlPoint
from typer.testing import CliRunner

import stac_latent
from stac_latent.catalog import sensor_names
from stac_latent.catalog.files.sensors import open_sensors
from stac_latent.cli import app
from stac_latent.errors import CatalogError, GridError, SearchError, SkippedWarning, SourceWarning
from stac_latent.validation import validate

items_from_files = stac_latent.items_from_files


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    return write_product(tmp_path_factory.mktemp("safe"), size=180)


def band(item, key, index=0):
    return item.assets[key].extra_fields["bands"][index]


# -- Sentinel-2 ----------------------------------------------------------------------------------------------------


def test_a_product_of_sentinel_2(product, tmp_path):
    with pytest.warns(SourceWarning, match=r"4 coarser copies of its bands are left out|coarser copies"):
        (item,) = items_from_files(product.parent, tmp_path / "items")
    assert item.id == PRODUCT
    assert item.collection_id == "sentinel-2-l2a"
    assert sorted(item.assets) == ["B02", "B04", "B05", "SCL", "TCI"]
    assert item.datetime.isoformat() == "2022-06-27T11:23:47.123456+00:00"
    said = item.properties
    assert said["platform"] == "sentinel-2a"
    assert said["constellation"] == "sentinel-2"
    assert said["instruments"] == ["msi"]
    assert said["grid:code"] == "MGRS-29UNU"
    assert said["eo:cloud_cover"] == 12.5
    assert said["s2:processing_baseline"] == "04.00"
    assert said["view:sun_elevation"] == 58.5
    assert said["proj:code"] == "EPSG:32629"
    blue = item.assets["B02"]
    assert blue.media_type == "image/jp2"
    assert blue.roles == ["data", "reflectance"]
    assert blue.extra_fields["proj:shape"] == [180, 180]
    assert blue.extra_fields["proj:transform"] == [610, 0, 499980, 0, -610, 5900040]
    assert band(item, "B02") == {
        "name": "B02", "data_type": "uint16", "nodata": 0, "eo:common_name": "blue", "eo:center_wavelength": 0.49,
        "eo:full_width_half_max": 0.098, "raster:scale": 0.0001, "raster:offset": -0.1,
    }  # fmt: skip
    assert item.assets["SCL"].roles == ["data-mask"]
    assert "raster:scale" not in band(item, "SCL")
    assert item.assets["TCI"].roles == ["overview", "visual"]
    assert item.assets["B05"].extra_fields["proj:transform"][2] + 1 > 499980
    assert items_from_files(product.parent, tmp_path / "items") == [], "nothing is new"
    assert item.bbox == pytest.approx([-9.0003, 52.2497, -7.3592, 53.2492], abs=0.01)


def test_a_part_of_a_product_is_described_alike(product):
    with pytest.warns(SourceWarning):
        (whole,) = items_from_files(product)
    with warnings.catch_warnings():
        (part,) = items_from_files(next(product.glob("GRANULE/*/IMG_DATA/R10m")))
    assert part.id == whole.id
    assert part.properties == whole.properties
    assert part.assets["B04"].extra_fields == whole.assets["B04"].extra_fields


def test_the_baseline_decides_where_the_product_does_not_say(tmp_path):
    """Metadata of a granule alone, as copies of single files have it."""
    root = write_product(tmp_path, size=180, bands={"B04": 10})
    (root / "MTD_MSIL2A.xml").unlink()
    with pytest.warns(SourceWarning, match="coarser"):
        (item,) = items_from_files(root)
    assert band(item, "B04")["raster:offset"] == -0.1


@pytest.mark.parametrize(("text", "what"), [("<a", "no sound XML"), ("<!DOCTYPE a []><a/>", "document type")])
def test_metadata_that_are_no_xml(tmp_path, text, what):
    root = write_product(tmp_path, size=60, bands={"B05": 60})
    (root / "MTD_MSIL2A.xml").write_text(text)
    with pytest.raises(CatalogError, match=what):
        items_from_files(root)


def test_files_that_lost_their_place_have_that_of_their_granule(tmp_path):
    folder = tmp_path / "S2A_29UNU_20220627_0_L2A"
    root = write_product(tmp_path / "p", size=60, bands={"B05": 60})
    write(folder / "B04.tif", np.full((180, 180), 900, "uint16"), crs=None, transform=None)
    (folder / "granule_metadata.xml").write_text(next(root.glob("GRANULE/*/MTD_TL.xml")).read_text())
    (item,) = items_from_files(folder)
    assert item.id == folder.name
    assert item.properties["proj:code"] == "EPSG:32629"
    assert item.assets["B04"].extra_fields["proj:transform"] == [610, 0, 499980, 0, -610, 5900040]
    assert band(item, "B04")["raster:offset"] == 0, "Earth Search applied it"


def test_an_offset_that_nothing_states_is_warned_about(tmp_path):
    write(tmp_path / "T29UNU_20220627T112121_B04_10m.tif")
    with pytest.warns(SourceWarning, match=r"nothing says its processing baseline.*--offset -0.1"):
        (item,) = items_from_files(tmp_path)
    assert band(item, "B04")["raster:offset"] == 0
    (item,) = items_from_files(tmp_path, offset=-0.1)
    assert band(item, "B04")["raster:offset"] == -0.1


# -- names of other sensors ------------------------------------------------------------------------------------------

NAMES = {
    "T29UNU_20190627T112121_B04_60m.tif": ("sentinel-2-l2a", "T29UNU_20190627T112121", "B04", "2019-06-27T11:21:21Z", "MGRS-29UNU"),
    "T29UNU_20190627T112121_B04.tif": ("sentinel-2-l1c", "T29UNU_20190627T112121", "B04", "2019-06-27T11:21:21Z", "MGRS-29UNU"),
    "HLS.S30.T17RLN.2023123T161829.v2.0.B04.tif": ("hls2-s30", "HLS.S30.T17RLN.2023123T161829.v2.0", "B04", "2023-05-03T16:18:29Z", "MGRS-17RLN"),
    "HLS.L30.T17RLN.2023123T161829.v2.0.B05.tif": ("hls2-l30", "HLS.L30.T17RLN.2023123T161829.v2.0", "B05", "2023-05-03T16:18:29Z", "MGRS-17RLN"),
    "LC08_L2SP_190027_20200601_20200824_02_T1_SR_B4.TIF": ("landsat-c2-l2", "LC08_L2SP_190027_20200601_20200824_02_T1", "SR_B4", "2020-06-01T00:00:00Z", "WRS2-190027"),
    "LE07_L2SP_190027_20200601_20200824_02_T1_SR_B4.TIF": ("landsat-c2-l2", "LE07_L2SP_190027_20200601_20200824_02_T1", "SR_B4", "2020-06-01T00:00:00Z", "WRS2-190027"),
    "S1A_IW_GRDH_1SDV_20200601T054500_20200601T054525_032821_03CD3A_vv.tif": ("sentinel-1-grd", "S1A_IW_GRDH_1SDV_20200601T054500_20200601T054525_032821_03CD3A", "VV", "2020-06-01T05:45:00Z", None),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path, name):
    write(tmp_path / name, np.ones((40, 50), "int16" if "HLS" in name else "uint16"))
    (item,) = items_from_files(tmp_path)
    collection, scene, key, when, grid = NAMES[name]
    assert (item.collection_id, item.id, list(item.assets)) == (collection, scene, [key])
    assert item.to_dict()["properties"]["datetime"] == when
    assert item.properties.get("grid:code") == grid


def test_numbers_of_landsat_and_hls(tmp_path):
    scene = "LC08_L2SP_190027_20200601_20200824_02_T1"
    for key in ("SR_B4", "ST_B10", "QA_PIXEL"):
        write(tmp_path / "l" / f"{scene}_{key}.TIF")
    mtl = 'GROUP = A\n DATE_ACQUIRED = 2020-06-01\n SCENE_CENTER_TIME = "10:02:37.1234560Z"\n CLOUD_COVER = 7.25\n SUN_AZIMUTH = -20.5\nEND\n'
    (tmp_path / "l" / f"{scene}_MTL.txt").write_text(mtl)
    (item,) = items_from_files(tmp_path / "l")
    assert item.datetime.isoformat() == "2020-06-01T10:02:37.123456+00:00"
    assert item.properties["eo:cloud_cover"] == 7.25
    assert item.properties["view:sun_azimuth"] == 339.5
    assert item.properties["platform"] == "landsat-8"
    red, heat = band(item, "SR_B4"), band(item, "ST_B10")
    assert (red["eo:common_name"], red["raster:scale"], red["raster:offset"], red["nodata"]) == (
        "red",
        2.75e-5,
        -0.2,
        0,
    )
    assert (heat["raster:scale"], heat["raster:offset"], heat["unit"]) == (0.00341802, 149.0, "K")
    assert item.assets["QA_PIXEL"].roles == ["data-mask"]
    assert band(item, "QA_PIXEL")["nodata"] == 1
    for key, kind in (("B04", "int16"), ("Fmask", "uint8")):
        write(tmp_path / "h" / f"HLS.S30.T17RLN.2023123T161829.v2.0.{key}.tif", np.ones((40, 50), kind))
    (item,) = items_from_files(tmp_path / "h", sensor="hls")
    assert (band(item, "B04")["nodata"], band(item, "B04")["raster:scale"]) == (-9999, 1e-4)
    assert (band(item, "Fmask")["nodata"], item.assets["Fmask"].roles) == (255, ["data-mask"])


def test_what_the_header_states_comes_before_the_sensor(tmp_path):
    path = write(tmp_path / "T29UNU_20190627T112121_B04_60m.tif", nodata=7)
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (0.5,), (2.0,)
    (item,) = items_from_files(path)
    assert {k: band(item, "B04")[k] for k in ("nodata", "raster:scale", "raster:offset")} == {
        "nodata": 7, "raster:scale": 0.5, "raster:offset": 2.0,
    }  # fmt: skip


def test_floats_have_no_scale_of_integers(tmp_path):
    path = write(tmp_path / "T29UNU_20190627T112121_B04_60m.tif", np.ones((4, 5), "float32"), nodata=np.nan)
    (item,) = items_from_files(path)
    assert "raster:scale" not in band(item, "B04")
    assert band(item, "B04")["nodata"] == "nan"


def test_every_sensor_is_well_formed():
    assert {
        "sentinel-2-l2a",
        "sentinel-2-l1c",
        "sentinel-1-grd",
        "landsat-c2-l2-oli",
        "hls-l30",
        "any",
    } <= set(sensor_names())
    for name in sensor_names():
        (sensor,) = open_sensors(name)
        assert sensor.title
        for key in sensor.bands:
            assert sensor.band(key.lower()) == key
            assert sensor.facts(key, "uint16")["roles"]


def test_a_sensor_of_the_user(tmp_path):
    doc = {
        "title": "Mine", "names": [{"match": r"/(?P<scene>cam_(?P<when>\d{8}))_(?P<band>\w+)$"}], "platforms": {},
        "kinds": {"light": {"roles": ["data"], "types": ["uint16"], "fields": {"raster:scale": 0.01}}}, "bands": {"r": {"kind": "light"}},
    }  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(doc))
    path = write(tmp_path / "cam_20200601_r.tif")
    (item,) = items_from_files(path, sensor=str(tmp_path / "mine.json"))
    assert (item.id, item.collection_id, band(item, "r")["raster:scale"]) == ("cam_20200601", "mine", 0.01)
    for change, text in (
        ({"bans": {}}, "has unknown keys bans; expected title"),
        ({"title": None, "bands": {"r": {"kind": "heat"}}}, "the kind of band 'r' is none of light"),
        ({"names": [{"match": "("}]}, "has a pattern that is none"),
        ({"names": [{"match": "(?P<band>a)"}]}, "names band; expected scene"),
    ):
        (tmp_path / "mine.json").write_text(json.dumps(doc | change))
        with pytest.raises(CatalogError, match=text):
            items_from_files(path, sensor=str(tmp_path / "mine.json"))


# -- own names -------------------------------------------------------------------------------------------------------


def test_a_pattern(tmp_path):
    for key in ("B04", "B08"):
        for day in ("2020-06-01", "20200611"):
            write(tmp_path / f"lake_{day}_{key}.tif")
    write(tmp_path / "notes.tif")
    with pytest.warns(
        SkippedWarning, match=r"notes.tif does not fit the pattern '\{site\}_\{date\}_\{band\}.tif'"
    ):
        items = items_from_files(
            tmp_path, sensor="sentinel-2-l2a", pattern="{site}_{date}_{band}.tif", on_error="skip"
        )
    assert [i.id for i in items] == ["lake_2020-06-01", "lake_20200611"]
    assert [i.datetime.isoformat()[:10] for i in items] == ["2020-06-01", "2020-06-11"]
    assert all(sorted(i.assets) == ["B04", "B08"] for i in items)
    assert band(items[0], "B04")["raster:scale"] == 1e-4


def test_a_day_says_that_it_is_one(tmp_path):
    write(tmp_path / "s2_2020-06-01_B04.tif")
    (item,) = items_from_files(tmp_path, sensor="sentinel-2-l2a")
    assert item.datetime.isoformat() == "2020-06-01T00:00:00+00:00"
    assert item.properties["end_datetime"] == "2020-06-01T23:59:59Z"


def test_a_format_reads_the_date_of_a_pattern(tmp_path):
    """Digits around it do not matter: the pattern says where it begins and ends."""
    write(tmp_path / "LE70220491999322EDC01_stack.tif")
    options = {"sensor": "any", "datetime_pattern": "%Y%j"}
    with pytest.raises(CatalogError, match="states no time as %Y%j"):
        items_from_files(tmp_path, **options)
    (item,) = items_from_files(tmp_path, pattern="LE7022049{date}EDC{site}.tif", **options)
    assert item.datetime.isoformat()[:10] == "1999-11-18"


def test_a_year_is_a_range(tmp_path):
    write(tmp_path / "1985.tif")
    (item,) = items_from_files(tmp_path, sensor="any", datetime_pattern="%Y")
    assert item.datetime is None
    assert (item.properties["start_datetime"], item.properties["end_datetime"]) == (
        "1985-01-01T00:00:00Z",
        "1985-12-31T23:59:59Z",
    )


def test_bands_by_descriptions_by_name_and_by_number(tmp_path):
    stack = np.ones((3, 4, 5), "uint16")
    write(tmp_path / "a_20200601.tif", stack, descriptions=("B2", "red", "B8"))
    write(tmp_path / "b_20200601.tif", stack)
    (item,) = items_from_files(tmp_path / "a_20200601.tif", sensor="sentinel-2-l2a")
    assert [b["name"] for b in item.assets["data"].extra_fields["bands"]] == ["B02", "B04", "B08"]
    assert band(item, "data", 2)["eo:common_name"] == "nir"
    (item,) = items_from_files(
        tmp_path / "b_20200601.tif", sensor="sentinel-2-l2a", bands=["blue", "B04", "mine"]
    )
    assert [b["name"] for b in item.assets["data"].extra_fields["bands"]] == ["B02", "B04", "mine"]
    (item,) = items_from_files(tmp_path / "b_20200601.tif")
    assert [b["name"] for b in item.assets["data"].extra_fields["bands"]] == ["b1", "b2", "b3"]


def test_grids_may_differ(tmp_path):
    write(tmp_path / "x_20200601_B04.tif")
    write(tmp_path / "x_20200601_B05.tif", np.ones((20, 25), "uint16"), transform=UTM @ Affine.scale(2))
    (item,) = items_from_files(tmp_path, sensor="sentinel-2-l2a")
    assert [item.assets[k].extra_fields["gsd"] for k in ("B04", "B05")] == [10, 20]
    assert item.properties["gsd"] == 10


def test_turned_grids_and_the_antimeridian(tmp_path):
    turned = Affine.translation(600000, 5300000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    (item,) = items_from_files(write(tmp_path / "a_20200601.tif", transform=turned))
    assert item.assets["b1"].extra_fields["proj:transform"] == pytest.approx(list(turned)[:6])
    path = write(tmp_path / "b_20200601.tif", crs="EPSG:4326", transform=Affine(0.1, 0, 178, 0, -0.1, 2))
    (item,) = items_from_files(path)
    assert item.bbox == pytest.approx([178, -2, -177, 2])
    assert item.geometry["type"] == "MultiPolygon"


def test_a_crs_without_a_code(tmp_path):
    crs = "+proj=laea +lat_0=12 +lon_0=34 +datum=WGS84 +units=m"
    (item,) = items_from_files(write(tmp_path / "a_20200601.tif", crs=crs))
    assert item.properties["proj:code"] is None
    assert item.properties["proj:wkt2"].startswith("PROJCRS[")


def test_two_folders_of_one_name(tmp_path):
    for year in ("2019", "2020"):
        write(tmp_path / year / "site_20200601.tif")
    assert [i.id for i in items_from_files(tmp_path)] == ["2019_site_20200601", "2020_site_20200601"]


# -- the catalogue -----------------------------------------------------------------------------------------------------


def test_a_catalogue_is_valid_relative_and_grows(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "items"
    for day in ("20200601", "20200611"):
        write(raw / f"x_{day}_B04.tif")
    told = []
    first = items_from_files(raw, out, sensor="sentinel-2-l2a")
    assert len(first) == 2
    catalog = pystac.Catalog.from_file(str(out / "catalog.json"))
    assert len(list(catalog.get_items(recursive=True))) == 2
    doc = json.loads((out / "sentinel-2-l2a" / "x_20200601" / "x_20200601.json").read_text())
    assert doc["assets"]["B04"]["href"] == "../../../raw/x_20200601_B04.tif"
    for path in out.rglob("*.json"):
        assert [p for p in validate(path) if p.keyword != "unavailable"] == []
    collection = catalog.get_child("sentinel-2-l2a")
    assert collection.extent.temporal.intervals[0][0].isoformat() == "2020-06-01T00:00:00+00:00"
    assert not any("latent" in uri for uri in collection.stac_extensions or ())
    assert items_from_files(raw, out, sensor="sentinel-2-l2a", tell=told.append) == []
    assert told == [
        "2 of 2 scenes are not new to the catalogue; --overwrite (overwrite=True) writes them anew"
    ]
    write(raw / "x_20200621_B04.tif")
    write(raw / "x_20200611_B08.tif")
    assert [i.id for i in items_from_files(raw, out, sensor="sentinel-2-l2a")] == ["x_20200611", "x_20200621"]
    assert len(items_from_files(raw, out, sensor="sentinel-2-l2a", overwrite=True)) == 3
    assert len(list(pystac.Catalog.from_file(str(out / "catalog.json")).get_items(recursive=True))) == 3


def test_a_scene_in_two_collections_is_told(tmp_path):
    raw, out, told = tmp_path / "raw", tmp_path / "items", []
    write(raw / "x_20200601_B04.tif")
    items_from_files(raw, out, sensor="any", tell=told.append)
    assert told == []
    items_from_files(raw, out, sensor="sentinel-2-l2a", tell=told.append)
    (text,) = told
    assert text.startswith(
        "1 of 1 scenes are in collection 'items' of this catalogue already, which keeps them: encode takes both"
    )


def test_an_item_of_other_files_is_not_replaced(tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder / "x_20200601_B04.tif")
    items_from_files(tmp_path / "a", tmp_path / "out")
    with pytest.raises(
        CatalogError,
        match=r"item 'x_20200601' of collection 'items' is there already, of other files such as .*a.*--overwrite",
    ):
        items_from_files(tmp_path / "b", tmp_path / "out")


def test_the_whole_line(tmp_path):
    y, x = np.mgrid[0:64, 0:64]
    for i, key in enumerate(("B02", "B03", "B04", "B08")):
        write(tmp_path / "raw" / f"x_20200601_{key}.tif", (500 + 100 * i + 3 * x + 2 * y).astype("uint16"))
    items_from_files(tmp_path / "raw", tmp_path / "items", sensor="sentinel-2-l2a")
    raw = stac_latent.search(tmp_path / "items" / "catalog.json")
    (coded,) = stac_latent.encode(raw, "s2-10m-4b", tmp_path / "latents", psnr=55, guard="off")
    cube = stac_latent.load(coded, bands=["red"])
    assert np.abs(cube["red"].values[0].astype(int) - (700 + 3 * x + 2 * y)).max() < 100


# -- times of one file -------------------------------------------------------------------------------------------------

GLOBE = Affine(10, 0, -5, 0, -10, 90)


@pytest.fixture
def series(tmp_path):
    values = np.arange(2 * 18 * 36, dtype="float32").reshape(2, 18, 36) / 7
    return write_netcdf(
        tmp_path / "raw" / "era.nc", values, (0, 6), "hours since 2020-06-01 00:00:00", GLOBE
    ), values


def test_each_time_of_a_netcdf_file_is_an_item(series, tmp_path):
    path, values = series
    first, second = items_from_files(path, tmp_path / "items")
    assert [first.id, second.id] == ["era_20200601T000000", "era_20200601T060000"]
    assert second.datetime.isoformat() == "2020-06-01T06:00:00+00:00"
    assert second.properties["proj:code"] == "EPSG:4326"
    assert band(second, "t2m")["name"] == "t2m"
    assert band(second, "t2m")["unit"] == "K"
    assert second.bbox[0] == -180
    text = (tmp_path / "items" / "items" / second.id / "t2m.vrt").read_text()
    assert 'relativeToVRT="1">NETCDF:' in text
    assert str(tmp_path) not in text
    with rasterio.open(second.assets["t2m"].href) as src:
        assert src.bounds.left == -185
        assert np.array_equal(src.read(1), np.roll(values[1], 18, axis=1)), "begun at 180 degrees west"
    assert items_from_files(path, tmp_path / "items") == []
    raw = stac_latent.search(tmp_path / "items" / "catalog.json")
    options = {"bands": ["t2m"]}
    coded = stac_latent.encode(
        raw, stac_latent.open_codec("lin", **options), tmp_path / "latents", error_bound=0.01
    )
    assert len(coded) == 2
    assert max(i.properties["latent:max_error"] for i in coded) <= 0.01


def test_times_that_are_not_the_clocks(tmp_path):
    path = write_netcdf(tmp_path / "a.nc", np.ones((2, 18, 36)), (0, 1), "months since 2020-06-01", GLOBE)
    with pytest.raises(
        CatalogError, match=r"its time '0' in 'months since 2020-06-01' .* is none of the clock's; convert it"
    ):
        items_from_files(path, tmp_path / "items")


def test_a_netcdf_file_needs_a_catalogue(series):
    with pytest.raises(CatalogError, match=r"era.nc \(netCDF\) needs a catalogue"):
        items_from_files(series[0])


# -- bad input ---------------------------------------------------------------------------------------------------------


def gcps(folder):
    path = folder / "x_20200601.tif"
    points = [GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100) for r, c in ((0, 0), (0, 50), (40, 0))]
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=40, width=50, dtype="uint8", gcps=points, crs="EPSG:4326"
    ) as dst:
        dst.write(np.ones((1, 40, 50), "uint8"))


def cut(folder):
    noise = np.random.default_rng(0).integers(0, 9999, (400, 500)).astype("uint16")
    path = write(folder / "x_20200601.tif", noise)
    rasterio.shutil.copy(path, folder / "y_20200601.tif", driver="COG")
    data = (folder / "y_20200601.tif").read_bytes()
    path.write_bytes(data[: len(data) - 9000])
    (folder / "y_20200601.tif").unlink()


def twice(folder):
    write(folder / "T29UNU_20190627T112121_B04_60m.tif")
    write(folder / "copy" / "T29UNU_20190627T112121_B04_60m.tif")


BAD = {
    "nothing": (lambda p: (p / "a.txt").write_text("x"), {}, CatalogError, r"no raster file in it or below; looked for .tif"),
    "not there": (lambda p: p.rmdir(), {}, CatalogError, "no such file or folder"),
    "no crs": (lambda p: write(p / "x_20200601.tif", crs=None), {}, GridError, r"has no CRS; state .* --crs EPSG:32633"),
    "no place": (lambda p: write(p / "x_20200601.tif", transform=None), {}, GridError, "does not say where its pixels lie: it has no transform"),
    "points": (gcps, {}, GridError, "has ground control points and no grid: warp it to one first"),
    "no raster": (lambda p: (p / "x_20200601.tif").write_text("hello"), {}, CatalogError, "cannot be read as a raster"),
    "empty": (lambda p: (p / "x_20200601.tif").touch(), {}, CatalogError, r"is empty \(0 bytes\)"),
    "cut off": (cut, {}, CatalogError, r"last pixel cannot be read .*; is it cut off\?"),
    "no date": (lambda p: write(p / "x.tif"), {}, CatalogError, "neither its name nor its tags say of when .* --datetime 2020-06-01"),
    "two": (twice, {}, CatalogError, r"are two files for band 'B04' of scene 'T29UNU_20190627T112121'; name the one that you mean"),
    "no bands": (lambda p: write(p / "x_20200601.tif"), {"sensor": "sentinel-2-l2a"}, CatalogError, r"has 1 band\(s\), and neither its name .*--bands"),
    "other bands": (lambda p: write(p / "x_20200601.tif"), {"bands": ["a", "b"]}, CatalogError, r"has 1 band\(s\), and --bands \(bands=\) names 2: a, b"),
    "sensor": (lambda p: write(p / "x.tif"), {"sensor": "sentinel-2-l2b"}, CatalogError, r"'sentinel-2-l2b' is not known \(did you mean 'sentinel-2-l2a'\?\); expected auto, any"),
    "other sensor": (lambda p: write(p / "T29UNU_20190627T112121_B04_60m.tif"), {"sensor": "landsat-c2-l2"}, CatalogError, r"is named as sentinel-2-l2a names its files, not as landsat"),
    "unclear": (lambda p: write(p / "s2_20200601_B04.tif"), {}, CatalogError, r"1 file\(s\) such as .*s2_20200601_B04.tif may be sentinel-2-l1c or sentinel-2-l2a: .*--sensor"),
    "pattern": (lambda p: write(p / "x.tif"), {"pattern": "x.tif"}, CatalogError, "has no field in braces"),
    "no match": (lambda p: write(p / "x.tif"), {"pattern": "{site}_{date}.tif"}, CatalogError, "does not fit the pattern"),
    "format": (lambda p: write(p / "x.tif"), {"datetime_pattern": "%Q"}, CatalogError, "has %Q; expected parts of %Y"),
    "day": (lambda p: write(p / "x.tif"), {"datetime": "yesterday"}, CatalogError, "is no time"),
    "address": (lambda p: None, {"files": "https://x.org/a.tif"}, CatalogError, "only files of this machine"),
    "store": (lambda p: (p / "a.zarr").mkdir(), {}, CatalogError, r"a.zarr is a folder of arrays \(Zarr\), which encode does not read"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_in_words(tmp_path, case):
    make, options, error, text = BAD[case]
    folder = tmp_path / "raw"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(folder)
    with pytest.raises(error, match=text):
        items_from_files(**{"files": folder, "dest": tmp_path / "out", **options})
    assert not (tmp_path / "out" / "catalog.json").exists()


def test_the_catalogue_is_no_file_of_its_own(tmp_path):
    path = write(tmp_path / "x_20200601.tif")
    with pytest.raises(
        CatalogError, match=r"all files that were given lie in the catalogue .*; give it a folder of its own"
    ):
        items_from_files(path, path)


def test_names_that_give_one_id(tmp_path):
    for name in ("a#b_20200601.tif", "a%b_20200601.tif"):
        write(tmp_path / "raw" / name)
    with pytest.warns(SkippedWarning, match=r"both give an item 'a_b_20200601'.*--pattern"):
        (item,) = items_from_files(tmp_path / "raw", tmp_path / "out", on_error="skip")
    assert item.assets["b1"].href.endswith("a%23b_20200601.tif")


def test_links_in_circles_end(tmp_path):
    write(tmp_path / "raw" / "x_20200601.tif")
    (tmp_path / "raw" / "again").symlink_to(tmp_path / "raw")
    assert len(items_from_files(tmp_path / "raw")) == 1


def test_from_a_shell(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "items"
    for i in range(5):
        (raw / f"bad{i}_20200601.tif").parent.mkdir(exist_ok=True)
        (raw / f"bad{i}_20200601.tif").touch()
    write(raw / "good_20200601_B04.tif")
    run = CliRunner().invoke(app, ["items", str(raw), str(out)])
    assert run.exit_code == 1
    assert "good_20200601" in run.output
    assert "sensor any: 6 scene(s), no sensor's names" in run.output
    assert run.output.count("is empty (0 bytes)") == 3
    assert "and 2 more for the same reason" in run.output
    run = CliRunner().invoke(app, ["items", str(raw), str(out), "--json"])
    told = json.loads(run.stdout)
    assert told["items"] == []
    assert len(told["failed"]) == 5
    run = CliRunner().invoke(app, ["items", str(raw), str(out), "--stop-at-error"])
    assert isinstance(run.exception, CatalogError)
    run = CliRunner().invoke(app, ["items", "--list"])
    assert "hls-s30" in run.output
    assert re.search("expected FILES... OUT", CliRunner().invoke(app, ["items"]).output)


def test_encode_says_the_way_from_files_to_items(tmp_path):
    path = write(tmp_path / "x_20200601.tif")
    for given, what in ((tmp_path, "folder .* holds raster files"), (path, "is one of raster files")):
        with pytest.raises(
            SearchError,
            match=rf"{what}, not STAC Items: describe them with 'stac-latent items .* items'.*items/catalog.json",
        ):
            list(stac_latent.search(given))
