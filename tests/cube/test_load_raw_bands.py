"""Raw bands beside decoded ones in one cube: the same pixels as a stock load, the names that were asked for, physical units."""

from __future__ import annotations

import json
import pickle

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
from load_support import BANDS, encoded, pixel_grid, scene, write_tiff

from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.load import load
from stac_latent.errors import CatalogError, GridError

LEFT, TOP = 400_020.0, 5_099_980.0


def classes(shape, seed=0):
    """Scene classes, 0 without data, in patches."""
    rng = np.random.default_rng(seed)
    field = rng.integers(1, 12, (1, shape[0] // 4, shape[1] // 4)).astype(np.uint8)
    field[:, :3, :5] = 0
    return field.repeat(4, axis=1).repeat(4, axis=2)


def site(folder, name, left, top, seed, codec=None):
    """An Item with a three-band image, a band of its own name, a 20 m class map, and the latent of the image."""
    grid = pixel_grid((180, 208), left, top)
    item = encoded(folder, name, scene((180, 208), seed=seed), grid, codec=codec)
    for key, field, res in (
        ("scl", classes((88, 100), seed), 20.0),
        ("B03", scene((180, 208), seed + 9, n=1), 10.0),
    ):
        own = pixel_grid(field.shape[1:], left, top, res)
        write_tiff(folder / f"{name}-{key}.tif", field, own)
        fields = {"proj:code": own.crs, "proj:shape": list(own.shape), "proj:transform": list(own.transform)}
        fields |= {"data_type": str(field.dtype), "nodata": 0}
        fields |= {"raster:scale": 1e-4, "raster:offset": -0.1, "unit": "1"} if key == "B03" else {}
        item.add_asset(
            key,
            pystac.Asset(
                str(folder / f"{name}-{key}.tif"),
                media_type="image/tiff; application=geotiff",
                roles=["data"],
                extra_fields=fields,
            ),
        )
    return item


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    return [site(folder, "a", LEFT, TOP, 0), site(folder, "b", LEFT + 900, TOP - 500, 1)]


@pytest.mark.parametrize("chunks", [None, {"y": 131, "x": 123}], ids=["eager", "dask"])
@pytest.mark.parametrize(
    "grid",
    [
        {},
        {"crs": "EPSG:3857", "resolution": 17, "resampling": "cubic"},
        {"resolution": 30, "resampling": "average"},
    ],
    ids=["native", "mercator", "coarse"],
)
def test_both_are_what_they_are_apart(items, grid, chunks):
    got = load(items, ["red", "scl", "image.B04", "B02", "B03.1"], chunks=chunks, **grid).compute()
    assert list(got.data_vars) == ["red", "scl", "image.B04", "B02", "B03.1"]
    how = grid.get("resampling", "nearest")
    options = {"geobox": got.odc.geobox, "chunks": chunks}
    decoded = load(items, ["red", "B02"], resampling=how, **options)
    stock = odc.stac.load(
        items, bands=["scl", "image.3", "B03"], resampling={"scl": "nearest", "*": how}, **options
    )
    np.testing.assert_array_equal(got.time.data, stock.time.data)
    pairs = [
        ("red", decoded.red),
        ("B02", decoded.B02),
        ("scl", stock.scl),
        ("image.B04", stock["image.3"]),
        ("B03.1", stock.B03),
    ]
    for name, want in pairs:
        assert got[name].dtype == want.dtype
        np.testing.assert_array_equal(got[name].data, want.compute().data)
        assert got[name].data.any()
    assert not np.array_equal(got.red.data, got["image.B04"].data)


def test_the_grid_is_that_of_the_finest_band(items):
    assert load(items, ["scl", "red"], chunks={}).odc.geobox == load(items, ["red"], chunks={}).odc.geobox
    coarse = load(items, ["scl"], chunks={}).odc.geobox
    assert coarse.resolution.xy == (20, -20)
    assert coarse.extent.contains(odc.stac.load(items[:1], bands=["scl"], chunks={}).odc.geobox.extent)


@pytest.mark.parametrize("groupby", ["time", "id", "solar_day"])
def test_they_share_their_time_steps(items, groupby):
    got = load(items, ["red", "scl"], groupby=groupby)
    stock = odc.stac.load(items, bands=["scl"], groupby=groupby, geobox=got.odc.geobox)
    np.testing.assert_array_equal(got.scl.data, stock.scl.data)


def test_a_bare_name_is_the_decoded_band(items):
    got = load(items[0], ["B03", "latent.B03", "latent.green", "B03.1"])
    for name in ("latent.B03", "latent.green"):
        assert got[name].equals(got.B03)
    assert not np.array_equal(got["B03.1"].data, got.B03.data)
    np.testing.assert_array_equal(got["B03.1"].data, odc.stac.load([items[0]], bands=["B03"]).B03.data)


def test_names_are_those_of_odc(items):
    """Asset keys, positions, and aliases of the eo extension: the same band in both."""
    item = items[0].clone()
    item.set_self_href(items[0].get_self_href())
    item.stac_extensions.append("https://stac-extensions.github.io/eo/v1.1.0/schema.json")
    item.assets["scl"].extra_fields["eo:bands"] = [{"name": "SCL", "common_name": "classes"}]
    for name in ("scl", "SCL", "classes", "image", "image.2"):
        got = load(item, [name, "red"])[name]
        want = odc.stac.load([item], bands=[name], geobox=got.odc.geobox)[name]
        np.testing.assert_array_equal(got.data, want.data)
        assert got.dtype == want.dtype


def test_classes_are_not_computed_with_unless_named(items):
    box = load(items, chunks={}).odc.geobox.zoom_out(5)
    values = set(np.unique(load(items[0], ["scl"]).scl.data))
    for how in ("average", {"*": "cubic"}):
        got = load(items[0], ["scl", "red"], geobox=box, resampling=how)
        assert set(np.unique(got.scl.data)) <= values
        assert not np.array_equal(got.red.data, load(items[0], ["red"], geobox=box).red.data)
    stock = {"bands": ["scl"], "geobox": box}
    mode = load(items[0], ["scl", "red"], geobox=box, resampling="mode")
    np.testing.assert_array_equal(
        mode.scl.data, odc.stac.load([items[0]], resampling="mode", **stock).scl.data
    )
    named = load(items[0], ["scl"], geobox=box, resampling={"scl": "average"})
    np.testing.assert_array_equal(
        named.scl.data, odc.stac.load([items[0]], resampling="average", **stock).scl.data
    )


def test_types_differ_by_band(items):
    got = load(items[0], ["red", "scl"], dtype={"scl": "int16"}, chunks={})
    assert (got.red.dtype, got.scl.dtype) == ("uint16", "int16")


def test_attributes_say_what_values_are(items):
    got = load(items[0], ["scl", "B03.1"], chunks={})
    assert got.scl.attrs == {"_FillValue": 0, "nodata": 0, "units": "1"}
    assert got["B03.1"].attrs == {
        "_FillValue": 0,
        "nodata": 0,
        "units": "1",
        "scale_factor": 1e-4,
        "add_offset": -0.1,
    }


# -- physical units ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """An Item whose latent is exact, so that raw and decoded bands have to be equal; its file has a scale and a second nodata."""
    folder = tmp_path_factory.mktemp("exact")
    folder.mkdir(exist_ok=True)
    item = encoded(
        folder, "e", scene((90, 104)), pixel_grid((90, 104)), codec=open_codec("zstd", bands=list(BANDS))
    )
    with rasterio.open(folder / "e.tif", "r+") as dst:
        dst.scales, dst.offsets = (2e-4,) * 3, (-0.2,) * 3
    for band in item.assets["latent"].extra_fields["bands"]:
        band |= {"raster:scale": 2e-4, "raster:offset": -0.2}
    return item


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_physical_values_of_an_exact_latent_are_those_of_its_file(exact, resampling):
    box = load(exact, chunks={}).odc.geobox
    for grid in (box, box.zoom_out(1.7), box.to_crs("EPSG:3857")):
        got = load(exact, ["red", "image.red"], physical=True, geobox=grid, resampling=resampling)
        assert got["image.red"].dtype == "float32"
        for name in ("red", "image.red"):
            assert np.isnan([got[name].attrs.pop(n) for n in ("_FillValue", "nodata")]).all()
            assert got[name].attrs == {"units": "1", "eo:common_name": "red"}
        np.testing.assert_array_equal(got["image.red"].data, got.red.data)
        assert np.isnan(got.red.data).any()
        assert np.nanmin(got.red.data) < 0.5


def test_what_item_and_file_call_nodata_is_none(exact):
    item = exact.clone()
    item.set_self_href(exact.get_self_href())
    stored = load(item, ["image.3"])["image.3"].data
    value = int(np.bincount(stored[stored > 0]).argmax())
    for band in item.assets["image"].extra_fields["bands"]:
        band["nodata"] = value
    got = load(item, ["image.3"], physical=True)["image.3"].data
    np.testing.assert_array_equal(np.isnan(got), (stored == 0) | (stored == value))


def test_a_mask_of_the_file_leaves_pixels_out(exact, tmp_path):
    item = exact.clone()
    item.set_self_href(exact.get_self_href())
    values = scene((90, 104))
    values[values == 0] = 7
    write_tiff(tmp_path / "m.tif", values, pixel_grid((90, 104)), nodata=None)
    inside = np.ones((90, 104), bool)
    inside[20:40, 30:60] = False
    with rasterio.open(tmp_path / "m.tif", "r+") as dst:
        dst.write_mask(inside)
    item.assets["image"].href = str(tmp_path / "m.tif")
    for band in item.assets["image"].extra_fields["bands"]:
        band.pop("nodata", None)
    got = load(item, ["image.1"], physical=True)["image.1"].data[0]
    np.testing.assert_array_equal(np.isnan(got), ~inside)
    np.testing.assert_array_equal(got[inside], values[0][inside].astype("float32"))


def test_sentinel_2_has_its_offset(exact):
    item = exact.clone()
    item.set_self_href(exact.get_self_href())
    with rasterio.open(item.assets["image"].get_absolute_href()) as src:
        stored = src.read(1).astype("float64")
    for band in item.assets["image"].extra_fields["bands"]:
        band["raster:scale"] = 1e-4
    for properties, offset in (
        ({"s2:processing_baseline": "05.09"}, -0.1),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, 0.0),
        ({"s2:processing_baseline": "02.14"}, 0.0),
    ):
        dated = item.clone()
        dated.set_self_href(item.get_self_href())
        dated.properties |= properties
        got = load(dated, ["image.B02"], physical=True)["image.B02"].data[0]
        np.testing.assert_allclose(got[stored > 0], stored[stored > 0] * 1e-4 + offset, atol=1e-6)
        assert load(dated, ["image.B02"], chunks={})["image.B02"].attrs.get("add_offset", 0.0) == offset


def test_file_and_item_that_contradict_each_other_are_refused(exact):
    item = exact.clone()
    item.set_self_href(exact.get_self_href())
    item.assets["image"].extra_fields["proj:transform"] = [10.0, 0.0, 400_520.0, 0.0, -10.0, 5_099_980.0]
    with pytest.raises(
        GridError, match=r"asset 'image' of item 'e': proj:transform .* lies up to 50 pixels off"
    ):
        load(item, ["image.1"], physical=True)


def test_bands_stored_in_other_ways_meet_in_physical_units_alone(items):
    other = items[1].clone()
    other.set_self_href(items[1].get_self_href())
    other.assets["B03"].extra_fields["raster:offset"] = 0.0
    both = [items[0], other]
    with pytest.raises(CatalogError, match=r"band 'B03.1' is not stored alike in all items: .*physical=True"):
        load(both, ["B03.1"], chunks={})
    got = load(both, ["B03.1"], physical=True, groupby="id", chunks={})
    assert "scale_factor" not in got["B03.1"].attrs


# -- what is refused, and what travels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bands", "text"),
    [
        (
            ["red", "slc"],
            (
                r"no band 'slc' \(did you mean 'scl'\?\) in asset 'latent' of item 'a'; it has B02 \(blue\), B03 \(green\), B04 \(red\); raw "
                r"bands of the item: B03, image \(B02, blue\), image.2 \(B03, green\), image.3 \(B04, red\), scl \(a mask\)"
            ),
        ),
        ("latent.B99", "no band 'latent.B99' in asset 'latent'"),
        ("image.4", "no band 'image.4'"),
        ([], "bands= is empty; name bands, or leave it out to load all decoded ones"),
        ([4], "bands=4 is no name of a band"),
    ],
)
def test_unknown_names(items, bands, text):
    with pytest.raises(CatalogError, match=text):
        load(items, bands)


def test_raw_bands_of_another_item_are_told(items):
    item = items[0].clone()
    item.set_self_href(items[0].get_self_href())
    for key in ("image", "scl", "B03"):
        del item.assets[key]
    with pytest.raises(CatalogError, match=r"it has B02 .*; the item has no raw bands$"):
        load(item, ["scl"])
    item.add_link(pystac.Link("derived_from", "https://example.com/raw.json"))
    with pytest.raises(
        CatalogError,
        match=r"in the item that it is derived from \(https://example.com/raw.json\). Encode with mode='beside'",
    ):
        load(item, ["scl"])


def test_one_name_is_one_kind_in_all_items(items):
    other = items[1].clone()
    other.set_self_href(items[1].get_self_href())
    other.assets["latent"].extra_fields["bands"][1] |= {"name": "G", "eo:common_name": "g"}
    with pytest.raises(
        CatalogError,
        match=r"'B03' is a raw band of item 'b' and a decoded one of others: .* such as 'B03.1'",
    ):
        load([items[0], other], ["B03"])


def test_a_common_name_of_several_bands_is_no_name(items):
    item = items[0].clone()
    item.set_self_href(items[0].get_self_href())
    for band in item.assets["latent"].extra_fields["bands"]:
        band["eo:common_name"] = "rededge"
    with pytest.raises(
        CatalogError, match=r"'rededge' is the common name of several bands .*: B02, B03, B04; ask for one"
    ):
        load(item, ["rededge"])


def test_a_raw_file_that_is_gone(items, tmp_path, caplog):
    item = items[0].clone()
    item.set_self_href(items[0].get_self_href())
    item.assets["scl"].href = str(tmp_path / "gone.tif")
    for physical in (False, True):
        with pytest.raises(CatalogError, match=r"asset 'scl' of item 'a' cannot be read: .*gone\.tif"):
            load(item, ["red", "scl"], physical=physical)
        got = load(item, ["red", "scl"], physical=physical, errors="ignore")
        assert not np.nan_to_num(got.scl.data).any()
        assert np.nan_to_num(got.red.data).any()
    assert "Ignoring read failure of" in caplog.text


def test_a_raw_asset_that_has_no_grid_is_one_of_a_bad_item(items):
    item = items[0].clone()
    item.set_self_href(items[0].get_self_href())
    item.assets["scl"].extra_fields["proj:shape"] = "large"
    with pytest.raises(GridError, match="the proj: fields of asset 'scl' of item 'a' are no grid"):
        load([item, items[1]], ["red", "scl"])
    got = load([item, items[1]], ["red", "scl"], errors="ignore")
    assert got.identical(load(items[1], ["red", "scl"]))


def test_nodata_that_no_pixel_has_counts_as_not_said(items):
    item = items[0].clone()
    item.set_self_href(items[0].get_self_href())
    item.assets["scl"].extra_fields["nodata"] = 999
    got = load(item, ["scl"]).scl
    assert "_FillValue" not in got.attrs
    np.testing.assert_array_equal(got.data, load(items[0], ["scl"]).scl.data)


def test_a_raw_band_travels_small(items):
    got = load(items, ["red", "scl"], chunks={"y": 50, "x": 50})
    parcel = pickle.dumps(got)
    assert len(parcel) < 60_000
    again = pickle.loads(parcel)  # noqa: S301 (our own bytes)
    np.testing.assert_array_equal(again.scl.compute().data, load(items, ["red", "scl"]).scl.data)


def test_a_file_of_another_item_has_another_token(items):
    first = load(items[0], ["scl"], chunks={}).scl
    again = load(items[0], ["scl"], chunks={}).scl
    physical = load(items[0], ["scl"], chunks={}, physical=True).scl
    assert first.data.name == again.data.name
    assert len({first.data.name, physical.data.name, load(items[1], ["scl"], chunks={}).scl.data.name}) == 3


def test_the_items_are_not_changed(items):
    before = json.dumps(items[0].to_dict(transform_hrefs=False), default=str)
    load(items[0], ["red", "scl"], chunks={})
    assert json.dumps(items[0].to_dict(transform_hrefs=False), default=str) == before


def test_a_configuration_of_odc_describes_raw_assets(items):
    item = items[0].clone()
    item.set_self_href(items[0].get_self_href())
    for name in ("data_type", "nodata"):
        del item.assets["scl"].extra_fields[name]
    item.collection_id = "c"
    cfg = {"c": {"assets": {"scl": {"data_type": "uint8", "nodata": 0}}, "aliases": {"classes": "scl"}}}
    got = load(item, ["red", "classes"], stac_cfg=cfg)
    want = odc.stac.load([item], bands=["classes"], stac_cfg=cfg, geobox=got.odc.geobox)
    assert got.classes.dtype == want.classes.dtype == "uint8"
    np.testing.assert_array_equal(got.classes.data, want.classes.data)
    assert load(item, ["scl"], chunks={}).scl.dtype == "float32"


def test_signed_files(items, monkeypatch):
    """``patch_url`` is asked for addresses of servers, and for no local file."""
    asked = []
    got = load(items[0], ["scl"], patch_url=lambda url: asked.append(url) or url)
    np.testing.assert_array_equal(got.scl.data, load(items[0], ["scl"]).scl.data)
    assert asked == []
