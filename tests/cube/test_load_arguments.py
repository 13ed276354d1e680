"""Arguments of a load that mean what they mean in ``odc.stac.load``: places by pairs, properties, the order of Items."""

from __future__ import annotations

import datetime as dt

import numpy as np
import odc.stac
import pytest
from load_support import NOON, encoded, pair, pixel_grid, scene
from odc.geo.geobox import GeoBox

from stac_latent.cube.read.driver import LatentDriver, LatentParser
from stac_latent.cube.read.load import load
from stac_latent.errors import CatalogError, GridError

PROPERTIES = [
    "latent:psnr",
    {"key": "eo:cloud_cover", "name": "clouds", "units": "%"},
    {"key": "platform", "dtype": "object"},
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("arguments"))


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """Three Items, two of one day: encoded, and with the same properties as stock Items."""
    folder, items = tmp_path_factory.mktemp("dated"), []
    for i, hours in enumerate((0, 2, 72)):
        when = NOON + dt.timedelta(hours=hours)
        item = encoded(folder, f"d{i}", scene((64, 72), seed=i), pixel_grid((64, 72)), when=when)
        item.properties |= {"eo:cloud_cover": 10 * i, "platform": f"p{i}"}
        items.append(item)
    del items[2].properties["eo:cloud_cover"]
    return items


# -- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        {"lon": (13.70, 13.72), "lat": (46.04, 46.03)},
        {"x": (400_500, 401_007), "y": (5_099_000, 5_099_500), "crs": "EPSG:32633"},
        {"x": (1_525_000, 1_527_000), "y": (5_788_000, 5_786_000), "crs": "EPSG:3857", "resolution": 20},
    ],
    ids=["degrees", "own crs", "mercator"],
)
def test_pairs_mean_what_they_mean_in_a_stock_load(scenes, place):
    latents, plain = scenes
    got, want = load(latents, ["B03"], **place), odc.stac.load(plain, bands=["image.2"], **place)
    assert got.odc.geobox == want.odc.geobox
    assert want["image.2"].data.any()
    np.testing.assert_array_equal(got.B03.data, want["image.2"].data)


def test_pairs_of_latents_are_widened_to_cells(scenes):
    place = {"lon": (13.70, 13.71), "lat": (46.03, 46.04)}
    got = load(scenes[0], upto="latent", **place)
    assert got.equals(load(scenes[0], upto="latent", bbox=(13.70, 46.03, 13.71, 46.04)))


def test_a_point_is_its_pixel(scenes):
    latents, _ = scenes
    whole = load(latents[0])
    box: GeoBox = whole.odc.geobox
    ((lon, lat),) = box[50:51, 60:61].extent.centroid.to_crs("EPSG:4326").points
    point = {"type": "Point", "coordinates": [lon, lat]}
    for place in (
        {"lon": (lon, lon), "lat": (lat, lat)},
        {"intersects": point},
        {"bbox": (lon, lat, lon, lat)},
    ):
        got = load(latents[0], **place)
        assert dict(got.sizes) == {"time": 1, "y": 1, "x": 1}
        np.testing.assert_array_equal(got.B04.data[0], whole.B04.data[0, 50:51, 60:61])


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({"lon": (13, 14)}, "lon= was given alone: lon= and lat= say where to load together"),
        ({"y": (13, 14), "crs": "EPSG:3857"}, "y= was given alone: x= and y= say where"),
        (
            {"x": (1, 2), "y": (1, 2)},
            "x= and y= are in units of crs=, which was not given; give it, or lon= and lat=",
        ),
        (
            {"x": (1, 2), "y": (1, 2), "crs": "EPSG:99999"},
            "crs='EPSG:99999' is no CRS that x= and y= can be in",
        ),
        (
            {"lon": 13.7, "lat": (46, 47)},
            r"lon=13.7 is no pair of numbers; expected such as lon=\(13.5, 13.7\)",
        ),
        ({"lon": (13, 14, 15), "lat": (46, 47)}, "is no pair of numbers"),
        ({"lon": (13, float("nan")), "lat": (46, 47)}, "is not finite"),
        (
            {"lon": (13, 14), "lat": (46, 47), "bbox": (13, 46, 14, 47)},
            "bbox and lon, lat were given; each says",
        ),
        (
            {"lon": (3, 4), "lat": (46, 47)},
            r"the area that was asked for \(3, 46, 4, 47\) and the 2 item\(s\)",
        ),
        (
            {"resolution": "fine"},
            "resolution='fine' is no size of pixels; expected a number in units of the CRS",
        ),
        ({"resolution": 0}, "resolution=0 is no size of pixels"),
        ({"anchor": "corner"}, "anchor='corner' is unknown; expected one of edge, center"),
    ],
)
def test_places_that_are_none(scenes, place, text):
    with pytest.raises(GridError, match=text):
        load(scenes[0], **place)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"nodata": -1},
            "nodata=-1 is no value of band 'B02', which is uint16; give one that it can have, or dtype=",
        ),
        ({"nodata": 0.5}, r"nodata=0\.5 is no value of band 'B02', which is uint16"),
        ({"nodata": "none"}, "nodata='none' is no number"),
        ({"dtype": "large"}, "dtype='large' is no type of numbers; expected such as 'float32'"),
        ({"dtype": {"B02": "U5"}}, "dtype='U5' is no type of numbers"),
        ({"resampling": 5}, "resampling=5 is no text; expected such as 'bilinear'"),
        ({"chunks": 512}, "chunks=512 is no cutting; expected sizes by dimension"),
        ({"chunks": {"x": "large"}}, "chunks=.*'large'.* is no cutting"),
        ({"pool": "many"}, "pool='many' is no number of threads, and no executor"),
        ({"bands": 5}, r"bands=5 is no list of names; expected such as \['red', 'scl'\]"),
    ],
)
def test_arguments_of_another_kind(dated, given, text):
    with pytest.raises(CatalogError, match=text):
        load(dated, **given)


# -- properties ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, {}], ids=["eager", "dask"])
@pytest.mark.parametrize("groupby", ["time", "solar_day", "id"])
def test_properties_are_those_of_a_stock_load(dated, groupby, chunks):
    options = {"with_properties": PROPERTIES, "groupby": groupby, "chunks": chunks}
    got = load(dated, ["B02"], **options)
    want = odc.stac.load(dated, bands=["image"], **options)
    assert list(got.data_vars) == ["B02", "latent_psnr", "clouds", "platform"]
    for name in ("latent_psnr", "clouds", "platform"):
        assert got[name].identical(want[name])
    if groupby == "solar_day":
        np.testing.assert_array_equal(got.clouds.values, [5, np.nan])
        assert got.platform.values.tolist() == ["p0,p1", "p2"]


def test_integers_that_items_lack_are_nodata(dated):
    wanted = {"key": "eo:cloud_cover", "name": "clouds", "dtype": "int16", "nodata": -1}
    got = load(dated, ["B02"], with_properties=wanted, groupby="solar_day").clouds
    assert got.values.tolist() == [5, -1]
    assert got.attrs["nodata"] == -1


def test_properties_of_latents(dated):
    got = load(dated, upto="latent", with_properties="latent:psnr")
    assert list(got.data_vars) == ["latent", "latent_psnr"]
    assert got.latent_psnr.dims == ("time",)


def test_steps_that_no_item_reaches_have_no_properties(dated, scenes):
    far = scenes[0][1]
    box = load(dated[0], chunks={}).odc.geobox[:20, :20]
    got = load([dated[0], far], geobox=box, with_properties=["latent:psnr"], groupby="id")
    assert np.isnan(got.latent_psnr.values).tolist() == [False, True]


def test_the_driver_takes_properties_by_its_parser(dated):
    driver = LatentDriver(LatentParser({"with_properties": ["latent:psnr"]}))
    got = odc.stac.load(dated, bands=["latent.red"], driver=driver)
    assert got.latent_psnr.identical(load(dated, ["red"], with_properties=["latent:psnr"]).latent_psnr)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (["platform"], r"property 'platform' is 'p0' in an item, and no float32 .* 'dtype': 'U'"),
        ([{"name": "a"}], "Dictionary input must contain 'key' field.*expected names of properties"),
        (5, "with_properties=5 cannot be read"),
        ([{"key": "gsd", "dtype": "large"}], "cannot be read .*data type 'large' not understood"),
        (
            [{"key": "gsd", "name": "time"}],
            "gives a variable 'time', as a coordinate .* 'name': 'time_of_item'",
        ),
        ([{"key": "gsd", "name": "B02"}], "gives a variable 'B02', and so is a band called"),
        (["latent:psnr", "latent_psnr"], "gives two variables 'latent_psnr'"),
    ],
)
def test_properties_that_cannot_be_given(dated, asked, text):
    with pytest.raises(CatalogError, match=text):
        load(dated, ["B02"], with_properties=asked)


# -- the order of Items --------------------------------------------------------------------------------------------


def test_the_order_that_was_given_can_be_kept(scenes):
    latents, plain = scenes
    back = {"bands": ["B03"], "preserve_original_order": True}
    got = load(latents[::-1], **back)
    want = odc.stac.load(plain[::-1], bands=["image.2"], preserve_original_order=True)
    np.testing.assert_array_equal(got.B03.data, want["image.2"].data)
    assert not np.array_equal(got.B03.data, load(latents[::-1], ["B03"]).B03.data)


# -- the driver in a stock load ------------------------------------------------------------------------------------


def test_the_driver_knows_common_names_of_an_asset(scenes):
    latents, _ = scenes
    got = odc.stac.load(latents, bands=["latent.red"], driver="stac_latent.cube.LatentDriver")
    np.testing.assert_array_equal(got["latent.red"].data, load(latents, ["red"]).red.data)
