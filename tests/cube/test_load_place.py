"""Loads where maps end: at 180 degrees, round the poles, over the edge of a projection; and which Items share a time step."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pystac
import pytest
import rasterio.warp
from affine import Affine
from odc.geo.geobox import GeoBox
from test_crs import pixels, raster_item

from stac_latent.catalog.encode.encode import encode
from stac_latent.cube.grid import mosaic as module
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.load import load
from stac_latent.errors import CatalogError, GridError

SHAPE = (100, 120)
SCENES = {
    "zone 60": ("EPSG:32760", Affine(200, 0, 810000, 0, -200, 8000000)),
    "zone 1": ("EPSG:32701", Affine(200, 0, 170000, 0, -200, 8000000)),
    "mercator": ("EPSG:3857", Affine(200, 0, 20037508.34 - 24000, 0, -200, -1900000)),
    "degrees": ("EPSG:4326", Affine(0.002, 0, 179.9, 0, -0.002, -17)),
    "pacific": ("EPSG:3832", Affine(200, 0, 3339584 - 12000, 0, -200, -1900000)),
}
GRIDS = {
    "west": ((-180, -18.4, -179.6, -16.8), "EPSG:4326", 0.004),
    "east": ((179.6, -18.4, 180, -16.8), "EPSG:4326", 0.004),
    "beyond": ((179.6, -18.4, 180.4, -16.8), "EPSG:4326", 0.004),
    "mercator": ((20037508.34 - 60000, -1960000, 20037508.34, -1870000), "EPSG:3857", 400),
    "pacific": ((3339584 - 60000, -2060000, 3339584 + 60000, -1870000), "EPSG:3832", 400),
    "zone 60": ((760000, 7900000, 900000, 8120000), "EPSG:32760", 400),
}


def field():
    return np.where(pixels(SHAPE) == 0, 1, pixels(SHAPE))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    codec = open_codec("zstd", bands=["v"])
    return {
        name: encode(
            raster_item(folder, crs, field(), transform=t, name=name.replace(" ", "")), codec, folder / "o"
        )[0]
        for name, (crs, t) in SCENES.items()
    }


def warped(data, crs, transform, box):
    out = np.zeros(box.shape, data.dtype)
    rasterio.warp.reproject(
        data, out, src_crs=crs, src_transform=transform, src_nodata=0, dst_crs=str(box.crs),
        dst_transform=box.affine, dst_nodata=0,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_raster_at_180_degrees_reaches_all_that_rasterio_gives(encoded, scene, grid):
    bounds, crs, resolution = GRIDS[grid]
    box = GeoBox.from_bbox(bounds, crs, resolution=resolution)
    expected = warped(field(), *SCENES[scene], box)
    np.testing.assert_array_equal(load(encoded[scene], geobox=box).v.values[0], expected)
    parts = load(encoded[scene], geobox=box, chunks={"y": 64, "x": 64}).v.values[0]
    assert ((parts > 0) != (expected > 0)).sum() <= 0.01 * max(1, (expected > 0).sum())


def test_grids_that_run_south_to_north_are_as_full(encoded):
    box = GeoBox.from_bbox((179.6, -18.4, 180, -16.8), "EPSG:4326", resolution=0.004).flipy()
    np.testing.assert_array_equal(
        load(encoded["zone 60"], geobox=box).v.values[0], warped(field(), *SCENES["zone 60"], box)
    )


def test_a_raster_round_a_pole_reaches_every_longitude(tmp_path):
    transform = Affine(1000, 0, -50_000, 0, -1000, 50_000)
    item = raster_item(tmp_path, "EPSG:3031", field(), transform=transform)
    (made,) = encode(item, open_codec("zstd", bands=["v"]), tmp_path / "o")
    box = GeoBox.from_bbox((-180, -90, 180, -89.6), "EPSG:4326", resolution=0.2)
    found, expected = load(made, geobox=box).v.values[0], warped(field(), "EPSG:3031", transform, box)
    assert (expected > 0).all()
    np.testing.assert_array_equal(found, expected)


def test_tiles_on_both_sides_of_180_degrees_meet_without_a_gap(tmp_path):
    codec = open_codec("zstd", bands=["v"])
    size = Affine.scale(0.01, -0.01)
    east = raster_item(
        tmp_path, "EPSG:4326", field(), transform=Affine.translation(178.8, 0) * size, name="e"
    )
    west = raster_item(tmp_path, "EPSG:4326", field(), transform=Affine.translation(-180, 0) * size, name="w")
    made = encode([east, west], codec, tmp_path / "o")
    box = GeoBox.from_bbox((3250000, -90000, 3430000, -20000), "EPSG:3832", resolution=2000)
    assert (load(made, geobox=box).v.values[0] > 0).all()


def test_latents_of_a_box_across_180_degrees_are_those_of_the_items(encoded):
    found = load(encoded["zone 60"], bbox=(179.95, -18.15, -179.95, -18.1), upto="latent")["latent"]
    whole = load(encoded["zone 60"], upto="latent")["latent"]
    assert found.size < whole.size / 4
    assert np.isfinite(found.values).any()
    np.testing.assert_array_equal(
        found.values, whole.sel(y=found.y, x=found.x).values
    )  # fmt: skip


def test_a_box_across_180_degrees_has_heights_and_is_small(encoded):
    flat = load(encoded["zone 60"], bbox=(179.95, -18.15, -179.95, -18.1))
    high = load(encoded["zone 60"], bbox=(179.95, -18.15, 0, -179.95, -18.1, 900))
    assert max(flat.sizes["x"], flat.sizes["y"]) < 80
    assert high.odc.geobox == flat.odc.geobox
    degrees = load(
        encoded["zone 60"], bbox=(179.95, -18.15, -179.95, -18.1), crs="EPSG:4326", resolution=0.002
    )
    np.testing.assert_allclose([degrees.longitude[0], degrees.longitude[-1]], [179.951, 180.049])
    assert (degrees.v.values > 0).all()


def test_an_area_apart_from_the_items_is_refused_for_latents(encoded):
    with pytest.raises(
        GridError,
        match=r"area that was asked for \(10, 45, 11, 46\) and the 1 item\(s\), which lie within \(179\.\d+, .*\), lie apart",
    ):
        load(encoded["zone 60"], bbox=(10, 45, 11, 46), upto="latent")
    with pytest.raises(GridError, match="bbox must be 4 numbers"):
        load(encoded["zone 60"], bbox=(10, 45, 11), upto="latent")


def test_what_does_not_fit_the_memory_says_its_size(encoded, monkeypatch):
    monkeypatch.setattr(module, "memory", lambda: 1 << 20)
    with pytest.raises(
        GridError,
        match=r"the cube would take 0\.1 GiB, and this machine has 0\.0: 1 time step\(s\) of .*chunks= to load",
    ):
        load(encoded["zone 60"], crs="EPSG:3857", resolution=1, bbox=(179.9, -18.15, 180, -18.1))
    lazy = load(
        encoded["zone 60"], crs="EPSG:3857", resolution=1, bbox=(179.9, -18.15, 180, -18.1), chunks={}
    )
    assert lazy.v.nbytes > 1 << 20


def test_bands_of_one_pixel_size_and_other_extents_load_whole(tmp_path):
    t = Affine(10, 0, 400_000, 0, -10, 5_100_000)
    large, small = pixels((60, 70), 1) + np.uint16(1), pixels((20, 30), 2) + np.uint16(1)
    item = raster_item(
        tmp_path, "EPSG:32633", small, transform=t * Affine.translation(16, 8), name="s", nodata=None
    )
    other = raster_item(tmp_path, "EPSG:32633", large, transform=t, name="l", nodata=None)
    item.assets = {"a": item.assets["v"], "b": other.assets["v"]}
    for codec in ("zstd", "lin"):
        bound = {} if codec == "zstd" else {"error_bound": 0}
        (made,) = encode(item, open_codec(codec, bands=["a", "b"]), tmp_path / codec, **bound)
        for names in (None, ["b"], ["a"]):
            found = load(made, bands=names)
            if "b" in found:
                np.testing.assert_array_equal(found.b.values[0], large)
            if "a" in found:
                inside = found.a.values[0] if names == ["a"] else found.a.values[0][8:28, 16:46]
                np.testing.assert_array_equal(inside, small)


# -- time steps -----------------------------------------------------------------------------------------------------


def days(folder, **properties):
    """Two Items of two collections and days, with the raw asset of their own name."""
    out = []
    for day, name in enumerate(("s2", "landsat"), 1):
        item = raster_item(folder, "EPSG:32633", field(), name=name)
        raw = pystac.Item(
            name, item.geometry, item.bbox, dt.datetime(2024, 6, day, 10, tzinfo=dt.UTC),
            {k: v[day - 1] for k, v in properties.items()}, collection=name, assets=item.assets,
        )  # fmt: skip
        raw.set_self_href(str(folder / f"{name}.json"))
        out.append(raw)
    return encode(out, open_codec("zstd", bands=["v"]), folder / "o")


def test_functions_of_groupby_see_the_real_items(tmp_path):
    made = days(tmp_path, orbit=[7, 7])
    seen = []

    def by(item, _parsed, position):
        seen.append((item.collection_id, item.get_self_href() is not None, set(item.assets), position))
        return item.collection_id

    assert load(made, groupby=by).sizes["time"] == 2
    assert {s[0] for s in seen} == {"s2", "landsat"}
    assert all(s[1] and {"v", "latent"} <= s[2] for s in seen)
    assert load(made, groupby=lambda i, *_: i.assets["v"].href[-3:]).sizes["time"] == 1
    assert load(made, groupby=lambda _, parsed, __: round(parsed.geometry.area, 3)).sizes["time"] == 1
    assert load(made, groupby="orbit").sizes["time"] == 1
    assert load(made, groupby="solar_day").sizes["time"] == 2
    assert load(made, groupby=None).sizes["time"] == 2


def test_what_cannot_group_is_refused_by_name(tmp_path):
    made = days(tmp_path, orbit=[7, None], mixed=[1, "one"])
    with pytest.raises(
        CatalogError,
        match=r"groupby='orbit' is no property of 1 of 2 items: landsat; expected 'time', 'solar_day'",
    ):
        load(made, groupby="orbit")
    with pytest.raises(CatalogError, match=r"groupby='tme' is no property of 2 of 2 items"):
        load(made, groupby="tme")
    with pytest.raises(CatalogError, match=r"groupby='mixed' gives values that have no order"):
        load(made, groupby="mixed")
    with pytest.raises(CatalogError, match=r"groupby=3 is neither text nor a function"):
        load(made, groupby=3)
