"""Loading decoded pixels: what is decoded, how often, what dask shares, and what is refused."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from dataclasses import replace

import numpy as np
import odc.stac
import pystac
import pytest
import xarray as xr
from load_support import BANDS, NAMES, codec_of, encoded, pair, pixel_grid, ref_of, scene

import stac_latent
from stac_latent.cube import item_assets, ref
from stac_latent.cube.odc_private import StacMDParser
from stac_latent.cube.raw.named import RawBands
from stac_latent.cube.read import reader
from stac_latent.cube.read.load import load
from stac_latent.cube.read.variables import ResolvedAsset
from stac_latent.errors import CatalogError, CorruptDataError, GridError

ALL = ((0, 187), (0, 213))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("field"))


@pytest.fixture
def windows(monkeypatch):
    """Every window that is decoded, with the bands asked for."""
    seen = []
    real = reader.LatentReader.read_field

    def spy(self, window=None, bands=None, **more):
        seen.append((window, bands))
        return real(self, window, bands, **more)

    monkeypatch.setattr(reader.LatentReader, "read_field", spy)
    return seen


def copied(item):
    """The same Item again, with its place."""
    out = pystac.Item.from_dict(item.to_dict(include_self_link=False, transform_hrefs=False))
    out.set_self_href(item.get_self_href())
    return out


# -- what is decoded -----------------------------------------------------------------------------------------------


def test_one_decode_serves_all_bands(scenes, windows):
    (item, _), _ = scenes
    ds = load(item, chunks={"y": 100, "x": 120})
    assert windows == []
    ds.compute(scheduler="synchronous")
    assert sorted(w for w, _ in windows) == [
        ((0, 100), (0, 120)),
        ((0, 100), (120, 213)),
        ((100, 187), (0, 120)),
        ((100, 187), (120, 213)),
    ]
    assert [b for _, b in windows] == [[0, 1, 2]] * 4


def test_eager_load_decodes_once(scenes, windows):
    (item, _), _ = scenes
    load(item, bands=["B04", "B02"])
    assert windows == [(ALL, [2, 0])]


def test_only_the_cells_of_the_chunk_are_decoded(scenes, windows):
    (item, other), _ = scenes
    ds = load([item, other], chunks={"y": 64, "x": 64}, resampling="cubic")
    corner = ds.B03[0, :64, :64].compute(scheduler="synchronous")
    assert [w for w, _ in windows] == [((0, 64), (0, 64))]
    assert (corner.data > 0).any()


def test_a_resampled_chunk_decodes_its_surroundings_only(scenes, windows):
    (item, _), _ = scenes
    box = load(item, chunks={}).odc.geobox[20:60, 30:90].zoom_out(2)
    load(item, geobox=box, resampling="bilinear")
    (((y0, y1), (x0, x1)), _), *more = windows
    assert more == []
    assert 10 <= y0 <= 20
    assert 60 <= y1 <= 70
    assert 20 <= x0 <= 30
    assert 90 <= x1 <= 100


def test_a_window_without_data_decodes_nothing(scenes, windows):
    (item, _), _ = scenes
    box = load(item, chunks={}).odc.geobox.translate_pix(5000, 0)
    ds = load(item, geobox=box, chunks={})
    assert not ds.B02.compute().any()
    assert windows == []


def test_bands_of_other_types_are_read_apart(tmp_path, windows):
    item = encoded(tmp_path, "mixed", scene((64, 72)), pixel_grid((64, 72)))
    item.assets["latent"].extra_fields["bands"][1]["nodata"] = 7
    windows.clear()
    ds = load(item)
    assert [ds[n].attrs["_FillValue"] for n in NAMES] == [0, 7, 0]
    assert [b for _, b in windows] == [[0, 2], [1]]


# -- names and arguments -------------------------------------------------------------------------------------------


def test_names_are_those_that_were_asked_for(scenes):
    (item, _), _ = scenes
    every = load(item)
    some = load(item, bands=["red", "B02", "B02"])
    assert list(every.data_vars) == NAMES
    assert list(some.data_vars) == ["red", "B02"]
    np.testing.assert_array_equal(some.red.data, every.B04.data)
    assert list(load(item, bands="B03").data_vars) == ["B03"]


def test_resampling_and_dtype_may_differ_by_band(scenes):
    (item, _), _ = scenes
    box = load(item, chunks={}).odc.geobox.zoom_out(3)
    ds = load(item, geobox=box, resampling={"B02": "average", "*": "nearest"}, dtype={"B04": "int32"})
    assert load(item, ["B02"], dtype=np.float64, chunks={}).B02.dtype == np.float64
    assert [str(ds[n].dtype) for n in NAMES] == ["uint16", "uint16", "int32"]
    np.testing.assert_array_equal(ds.B02.data, load(item, geobox=box, resampling="average").B02.data)
    np.testing.assert_array_equal(ds.B03.data, load(item, geobox=box).B03.data)


def test_the_cube_knows_its_place_and_units(scenes):
    (item, _), _ = scenes
    ds = load(item, chunks={"x": 50})
    assert ds.odc.crs == "EPSG:32633"
    assert ds.B02.odc.geobox == ds.odc.geobox
    assert ds.B02.attrs == {"_FillValue": 0, "nodata": 0, "units": "1", "eo:common_name": "blue"}
    assert set(ds.coords) == {"time", "y", "x", "spatial_ref"}
    assert ds.B02.chunks == ((1,), (187,), (50, 50, 50, 50, 13))


def test_scale_and_offset_are_told(tmp_path):
    bands = tuple(replace(b, scale=0.0001, offset=-0.1, unit="reflectance") for b in BANDS)
    item = encoded(tmp_path, "scaled", scene((64, 72)), pixel_grid((64, 72)), codec=codec_of(bands=bands))
    attrs = load(item).B02.attrs
    assert attrs.pop("eo:common_name") == "blue"
    assert attrs == {
        "units": "reflectance",
        "scale_factor": 0.0001,
        "add_offset": -0.1,
        "_FillValue": 0,
        "nodata": 0,
    }


def test_items_are_grouped_by_time(tmp_path):
    noon = dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC)
    fields = [scene((64, 72), seed=i) for i in range(3)]
    whens = [noon, noon + dt.timedelta(minutes=5), noon + dt.timedelta(days=5)]
    items = [
        encoded(tmp_path, f"t{i}", f, pixel_grid((64, 72)), when=w)
        for i, (f, w) in enumerate(zip(fields, whens, strict=True))
    ]
    assert load(items).sizes["time"] == 3
    assert load(items, groupby="solar_day").sizes["time"] == 2
    assert load(items[::-1], groupby="id").sizes["time"] == 3
    ds = load(iter(items))
    np.testing.assert_array_equal(ds.B02[2].data, load(items[2]).B02[0].data)


def test_the_callers_items_are_not_changed(scenes):
    (item, _), _ = scenes
    before = json.dumps(item.to_dict(transform_hrefs=False), default=str)
    href = item.assets["latent"].href
    load(item, chunks={})
    load(item, upto="latent", chunks={})
    assert item.assets["latent"].href == href
    assert json.dumps(item.to_dict(transform_hrefs=False), default=str) == before


def test_relative_hrefs_count_from_the_item(scenes):
    (item, _), _ = scenes
    again = pystac.Item.from_file(item.get_self_href())
    assert again.assets["latent"].href.startswith("./")
    np.testing.assert_array_equal(load(again).B02.data, load(item).B02.data)


def test_the_verb_is_at_the_top_of_the_package(scenes):
    (item, _), _ = scenes
    assert stac_latent.load is load
    assert list(stac_latent.load(item, ["B02"], chunks={}).data_vars) == ["B02"]


def test_progress_is_reported(scenes):
    (item, _), _ = scenes
    seen = []

    def progress(work):
        for step in work:
            seen.append(step)
            yield step

    load(item, progress=progress)
    assert len(seen) == 1


# -- what dask shares ----------------------------------------------------------------------------------------------


def test_two_decoders_of_one_href_do_not_share_results(scenes, tmp_path):
    (item, _), _ = scenes
    one = encoded(tmp_path / "a", "s", scene(), pixel_grid((187, 213)), codec=codec_of(step=20.0))
    two = encoded(tmp_path / "b", "s", scene(), pixel_grid((187, 213)), codec=codec_of(step=300.0))
    want = load(two).B02.data
    first = load(one, ["B02"], chunks={})
    place = one.assets["latent"].get_absolute_href()
    shutil.rmtree(place)
    shutil.copytree(two.assets["latent"].get_absolute_href(), place)
    fake = copied(two)
    fake.assets["latent"].href = place
    second = load(fake, ["B02"], chunks={})
    assert one.assets["latent"].get_absolute_href() == fake.assets["latent"].get_absolute_href()
    shared = {str(k).split("-")[0] for k in {*first.__dask_graph__()} & {*second.__dask_graph__()}}
    assert shared == {"cfg", "grid"}
    np.testing.assert_array_equal(second.B02.data.compute(), want)
    assert not np.array_equal(want, load(item).B02.data)


def test_equal_loads_share_their_tokens(scenes):
    (item, _), _ = scenes
    assert load(item, chunks={}).B02.data.name == load(copied(item), chunks={}).B02.data.name


def test_a_latent_written_anew_is_read_anew(tmp_path):
    first = encoded(tmp_path, "s", scene(seed=1), pixel_grid((187, 213)))
    before = load(first, ["B02"], chunks={})
    old = before.B02.data.compute()
    second = encoded(tmp_path, "s", scene(seed=2), pixel_grid((187, 213)), overwrite=True)
    after = load(second, ["B02"], chunks={})
    assert before.B02.data.name != after.B02.data.name
    assert not np.array_equal(old, after.B02.data.compute())


# -- what is refused -----------------------------------------------------------------------------------------------


def test_no_items():
    with pytest.raises(CatalogError, match="nothing to load: no items were given"):
        load([])


def test_something_else_than_items():
    with pytest.raises(
        CatalogError, match=r"expected pystac Items, got str; read one with pystac.Item.from_file"
    ):
        load(["item.json"])


def test_unknown_level(scenes):
    (item, _), _ = scenes
    with pytest.raises(CatalogError, match="upto='symbols' cannot be loaded; expected 'field'"):
        load(item, upto="symbols")


def test_missing_band_names_what_there_is(scenes):
    (item, _), _ = scenes
    with pytest.raises(
        CatalogError,
        match=r"no band 'B08', 'B99' in asset 'latent' of item 's0'; it has B02 \(blue\), B03 \(green\), B04 \(red\)",
    ):
        load(item, bands=["B02", "B08", "B99"])


def test_items_without_latents_are_all_named(scenes):
    (item, _), plain = scenes
    with pytest.raises(
        CatalogError, match=r"no latent asset of kind 'codec' in 's0' \(assets: image\), 's1'.*encode"
    ):
        load([item, *plain])


def test_several_latents_need_a_choice(scenes):
    (item, _), _ = scenes
    two = copied(item)
    two.add_asset("other", two.assets["latent"].clone())
    with pytest.raises(
        CatalogError, match=r"several latent assets: 'latent' \(codec, .*'other' .*choose one with asset="
    ):
        load(two)
    assert list(load(two, asset="other", chunks={}).data_vars) == NAMES
    with pytest.raises(
        CatalogError,
        match=r"no latent asset 'third' in 's0' \(assets: image, latent, thumbnail, other\)",
    ):
        load(two, asset="third")


def test_a_raw_asset_is_not_a_latent(scenes):
    (item, _), _ = scenes
    with pytest.raises(
        CatalogError, match=r"asset 'image' of item 's0' is not a latent: its roles are \['data'\]; this"
    ):
        load(item, asset="image")


def test_an_embedding_has_no_pixels(scenes):
    (item, _), _ = scenes
    features = copied(item)
    features.assets["latent"].extra_fields["latent:kind"] = "embedding"
    with pytest.raises(CatalogError, match=r"embeddings load with upto='latent'"):
        load(features)
    with pytest.raises(
        CatalogError, match=r"is of kind 'embedding' and has no decoder: load it with upto='latent'"
    ):
        load(features, asset="latent")


@pytest.mark.parametrize("field", ["proj:code", "proj:shape", "proj:transform"])
def test_no_grid(scenes, field):
    (item, _), _ = scenes
    lost = copied(item)
    lost.properties.pop(field, None)
    lost.assets["latent"].extra_fields.pop(field)
    with pytest.raises(
        GridError, match=rf"asset 'latent' of item 's0': the asset has no grid: {field} missing"
    ):
        load(lost)


def test_unknown_crs(scenes):
    (item, _), _ = scenes
    lost = copied(item)
    lost.assets["latent"].extra_fields["proj:code"] = "EPSG:999999"
    with pytest.raises(
        GridError, match="'EPSG:999999' is not a CRS that PROJ knows; expected such as 'EPSG:32633'"
    ):
        load(lost)


def test_contradicting_places(scenes):
    (item, _), _ = scenes
    box = load(item, chunks={}).odc.geobox
    with pytest.raises(GridError, match="bbox and like were given; each says where to load: keep one"):
        load(item, bbox=(13, 46, 14, 47), like=box)
    with pytest.raises(
        GridError,
        match="geobox= is a whole grid and was given with crs, resolution: leave crs, resolution out",
    ):
        load(item, geobox=box, crs="EPSG:3857", resolution=10)
    with pytest.raises(GridError, match="like= has no grid: got DataArray without coordinates and CRS"):
        load(item, like=xr.DataArray(np.zeros((3, 4)), dims=("a", "b")))
    assert load(item, like=load(item), chunks={}).odc.geobox == box


def test_unknown_resampling(scenes):
    (item, _), _ = scenes
    with pytest.raises(
        GridError, match="resampling='best' is unknown; expected one of nearest, bilinear, cubic"
    ):
        load(item, resampling={"B03": "best"})


def test_a_newer_extension_is_refused(scenes):
    (item, _), _ = scenes
    newer = copied(item)
    newer.stac_extensions = [u.replace("latent/v0.1", "latent/v9.1") for u in newer.stac_extensions]
    with pytest.raises(CatalogError, match=r"9\.1\.0"):
        load(newer)


def test_a_damaged_store_is_an_error_or_a_gap(scenes, tmp_path, caplog):
    item = encoded(tmp_path, "s", scene(seed=1), pixel_grid((187, 213)))
    _, plain = scenes
    for chunk in (tmp_path / "catalog").rglob("latent.zarr/latent/c/**/*"):
        if chunk.is_file():
            data = bytearray(chunk.read_bytes())
            data[40] ^= 0x10
            chunk.write_bytes(data)
    with pytest.raises(CorruptDataError, match="do not decode"):
        load(item)
    ds = load(item, fail_on_error=False)
    assert not ds.B02.any()
    assert "Ignoring read failure" in caplog.text
    assert odc.stac.load(plain, bands=["image.1"])["image.1"].any()


# -- what is done once -----------------------------------------------------------------------------------------------


def test_the_assets_of_an_item_are_listed_once(scenes, monkeypatch):
    listed, real = [], item_assets.latent_assets

    def spy(item):
        listed.append(item.id)
        return real(item)

    monkeypatch.setattr(item_assets, "latent_assets", spy)
    monkeypatch.setattr(ref, "latent_assets", spy)
    load(scenes[0], bands=["B02", "B03"], chunks={})
    assert listed == [item.id for item in scenes[0]]


def test_a_band_is_placed_once(scenes):
    item = scenes[0][0]
    asset = ResolvedAsset(item, ref_of(item), RawBands(item, StacMDParser({})))
    assert asset.view("B02") is asset.view("B02")
    assert asset.native_grid("B02") is None
