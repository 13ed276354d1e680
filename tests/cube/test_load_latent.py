"""Loading latents: on the lattice of cells or not at all, of one space, and what can be done with them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from load_support import BANDS, NOON, codec_of, encoded, pair, pixel_grid, scene, stock_item, write_tiff
from odc.geo.geobox import GeoBox

from stac_latent.catalog.encode.encode import encode
from stac_latent.codec.registry import remember
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.accessor import LatentAccessor, requantise
from stac_latent.cube.read.load import load
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, CodecError, GridError
from stac_latent.spec import Quantization, Stats
from stac_latent.system.session import own_session

CELLS = GeoBox.from_bbox((400_000, 5_098_080, 402_160, 5_100_000), "EPSG:32633", resolution=80)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("latent"))[0]


@pytest.fixture(scope="module")
def feature_item(tmp_path_factory):
    """An Item whose only latent is an embedding with statistics."""
    bands = [
        replace(b, name=n, common_name=None)
        for b, n in zip((*BANDS, BANDS[0]), ("B02", "B03", "B04", "B08"), strict=True)
    ]
    folder = tmp_path_factory.mktemp("features")
    field = scene((187, 213), n=4)
    write_tiff(folder / "s.tif", field, pixel_grid((187, 213)))
    raw = stock_item("s", folder / "s.tif", pixel_grid((187, 213)), bands=bands)
    return encode(raw, "s2-10m-embed", folder / "catalog")[0]


@pytest.mark.parametrize("chunks", [None, {"y": 10, "x": 7}], ids=["eager", "dask"])
def test_whole_lattice_of_one_item(scenes, chunks):
    item = scenes[0]
    ds = load(item, upto="latent", chunks=chunks)
    assert ds["latent"].dims == ("time", "channel", "y", "x")
    assert ds["latent"].dtype == np.float32
    assert ds.odc.geobox == CELLS
    assert set(ds.coords) == {"time", "channel", "y", "x", "spatial_ref"}
    want = LatentReader.open(item, "latent").read_latent()
    assert np.isnan(want).any()
    np.testing.assert_array_equal(ds["latent"][0].data, want)


def test_attributes_are_the_fields(scenes):
    item = scenes[0]
    attrs = load(item, upto="latent", chunks={})["latent"].attrs
    fields = item.assets["latent"].extra_fields
    for key in (
        "latent:space",
        "latent:stride",
        "latent:quantization",
        "latent:quantization_scale",
        "latent:dimensions",
    ):
        assert attrs[key] == fields[key]
    assert attrs["latent:shape"] == [192, 24, 27]
    assert attrs["latent:bands"] == '["B02", "B03", "B04"]'
    assert attrs["latent:decoder"].endswith("item.json")


def test_a_mosaic_takes_valid_cells_first_come(scenes):
    ds = load(scenes, upto="latent")
    readers = [LatentReader.open(i, "latent") for i in scenes]
    first, second = (r.read_latent() for r in readers)
    box = ds.odc.geobox
    want = np.full((192, *box.shape), np.nan, np.float32)
    want[:, :24, :27] = first
    part = want[:, -second.shape[1] :, -second.shape[2] :]
    np.copyto(part, second, where=np.isnan(part))
    np.testing.assert_array_equal(ds["latent"][0].data, want)


def test_an_area_is_widened_to_whole_cells(scenes):
    whole = load(scenes[0], upto="latent")
    left, bottom, right, top = 400_500.0, 5_099_010.0, 400_790.0, 5_099_630.0
    area = GeoBox.from_bbox((left, bottom, right, top), "EPSG:32633", resolution=10).extent
    ds = load(scenes[0], upto="latent", geopolygon=area)
    box = ds.odc.geobox.boundingbox
    assert tuple(box) == (400_480.0, 5_098_960.0, 400_800.0, 5_099_680.0)
    xr.testing.assert_equal(ds["latent"], whole["latent"].sel(x=ds.x, y=ds.y))
    degrees = tuple(area.to_crs("EPSG:4326").boundingbox)
    inside = load(scenes[0], upto="latent", bbox=degrees).odc.geobox
    assert inside.boundingbox.left <= left
    assert inside.boundingbox.top >= top
    assert (inside.boundingbox.right - right) < 160
    assert (bottom - inside.boundingbox.bottom) < 160
    same = load(
        scenes[0], upto="latent", intersects=area.to_crs("EPSG:4326").json, crs="EPSG:32633", resolution=80
    )
    assert same.odc.geobox == inside


def test_a_geobox_of_whole_cells(scenes):
    whole = load(scenes[0], upto="latent")
    box = CELLS.translate_pix(-3, 5)[:, 2:20]
    ds = load(scenes[0], upto="latent", geobox=box)
    assert ds.odc.geobox == box
    assert np.isnan(ds["latent"][0, :, :, 0]).all()
    xr.testing.assert_equal(ds["latent"][..., :19, 1:], whole["latent"].sel(x=ds.x[1:], y=ds.y[:19]))
    like = load(scenes[0], upto="latent", like=ds, chunks={})
    assert like.odc.geobox == box


@pytest.mark.parametrize(
    "box",
    [
        CELLS.translate_pix(0.25, 0),
        CELLS.translate_pix(0, 0.9),
        CELLS.zoom_out(2),
        CELLS.zoom_out(0.5),
        CELLS.rotate(3),
        GeoBox.from_bbox((400_000, 5_098_080, 402_160, 5_100_000), "EPSG:32632", resolution=80),
        GeoBox.from_bbox((400_000, 5_098_080, 402_160, 5_100_000), "EPSG:32633", shape=(24, 26)),
    ],
    ids=["shifted in x", "shifted in y", "coarser", "finer", "rotated", "other zone", "stretched"],
)
def test_a_grid_off_the_lattice_is_refused(scenes, box):
    with pytest.raises(GridError, match="is off the lattice of the latents") as info:
        load(scenes[0], upto="latent", geobox=box)
    text = str(info.value)
    assert (
        "CRS EPSG:32633, resolution (y, x) (-80, 80), origin (x, y) at (400000, 5100000) plus whole cells"
        in text
    )
    assert (
        "GeoBox.from_bbox((400000.0, 5098080.0, 402160.0, 5100000.0), 'EPSG:32633', shape=(24, 27))" in text
    )
    assert "upto='field'" in text


def test_the_example_of_the_error_would_do(scenes):
    example = GeoBox.from_bbox((400000.0, 5098080.0, 402160.0, 5100000.0), "EPSG:32633", shape=(24, 27))
    assert load(scenes[0], upto="latent", geobox=example, chunks={}).odc.geobox == CELLS


def test_crs_and_resolution_must_be_the_lattices(scenes):
    with pytest.raises(
        GridError, match=r"crs=EPSG:3857 is not that of the latents. Latents are never resampled"
    ):
        load(scenes[0], upto="latent", crs="EPSG:3857")
    with pytest.raises(GridError, match=r"resolution \(y, x\) \(-10, 10\) is not that of the latents"):
        load(scenes[0], upto="latent", resolution=10)


def test_arguments_of_pixels_are_refused(scenes):
    with pytest.raises(CatalogError, match=r"bands=\['B02'\] with upto='latent': latents have channels"):
        load(scenes[0], ["B02"], upto="latent")
    with pytest.raises(CatalogError, match=r"resampling, dtype given with upto='latent': .* never resampled"):
        load(scenes[0], upto="latent", resampling="bilinear", dtype="int16")


def test_two_spaces_are_refused(scenes, tmp_path):
    other = encoded(tmp_path, "other", scene(), pixel_grid((187, 213)), codec=codec_of(step=50.0))
    with pytest.raises(CatalogError, match="latents of 2 spaces cannot share one cube") as info:
        load([*scenes, other], upto="latent")
    for part in (
        "(items s0, s1)",
        "(items other)",
        *(i.assets["latent"].extra_fields["latent:space"] for i in (scenes[0], other)),
    ):
        assert part in str(info.value)
    assert load([*scenes, other], chunks={}).sizes["time"] == 1


def test_two_lattices_are_refused(scenes, tmp_path):
    zone = encoded(tmp_path, "zone", scene((64, 72)), pixel_grid((64, 72), crs="EPSG:32632"))
    with pytest.raises(
        GridError, match="items 's0' and 'zone' lie on different lattices: the grid with CRS EPSG:32633"
    ):
        load([scenes[0], zone], upto="latent")


def test_an_embedding_loads_as_latents(feature_item):
    ds = load(feature_item, upto="latent")
    want = LatentReader.open(feature_item, "latent").read_latent()
    np.testing.assert_array_equal(ds["latent"][0].data, want)
    assert ds.stac_latent.spec.kind == "embedding"
    with pytest.raises(CodecError, match=r"latents of kind 'embedding' .* have no decoder"):
        ds.stac_latent.decode()


# -- the accessor --------------------------------------------------------------------------------------------------


def test_accessor_on_dataset_and_array(scenes):
    ds = load(scenes[0], upto="latent", chunks={})
    space = scenes[0].assets["latent"].extra_fields["latent:space"]
    assert ds.stac_latent.space == ds.latent.stac_latent.space == space
    assert ds.stac_latent.spec.stride == (8, 8)
    assert ds.stac_latent.codec.space == space
    assert (
        repr(ds.stac_latent).splitlines()[0]
        == "<LatentAccessor codec, 192 channels, 8 x 8 px per cell, 24 x 27 cells>"
    )


def test_the_variable_is_no_accessor(scenes, tmp_path):
    ds = load(scenes[0], upto="latent")
    assert isinstance(ds.latent, xr.DataArray)
    assert ds.latent.identical(ds["latent"])
    assert isinstance(ds.stac_latent, LatentAccessor)
    ds.to_zarr(tmp_path / "cube.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False, decode_coords="all")
    assert again.latent.dims == ("time", "channel", "y", "x")
    assert again.latent.stac_latent.space == again.stac_latent.space == ds.stac_latent.space


def test_accessor_finds_the_codec_through_the_decoder_link(scenes):
    ds = load(scenes[0], upto="latent", chunks={})
    space = ds.stac_latent.space
    with own_session():
        assert ds.stac_latent.codec.space == space


def test_no_latent_variable(scenes):
    ds = load(scenes[0], chunks={})
    with pytest.raises(
        CatalogError, match=r"expected one latent variable.*found none among B02, B03, B04; load it with"
    ):
        _ = ds.stac_latent.spec


@pytest.mark.parametrize("index", [0, 1])
def test_decode_gives_the_pixels_of_whole_cells(scenes, index):
    item = scenes[index]
    reader = LatentReader.open(item, "latent")
    ds = load(item, upto="latent").stac_latent.decode()
    field = load(item)
    top, _, left, _ = reader.grid.padding
    h, w = reader.grid.shape
    assert ds.odc.geobox[top : top + h, left : left + w] == field.odc.geobox
    valid = field.B02.data[0] > 0
    for name in field.data_vars:
        got = ds[name].data[0, top : top + h, left : left + w]
        np.testing.assert_array_equal(got[valid], field[name].data[0][valid])
    assert (ds.B02.data == 0).any()
    assert ds.B02.attrs == {"units": "1", "eo:common_name": "blue", "_FillValue": 0, "nodata": 0}


def test_decode_of_a_part_without_halo_is_exact(scenes):
    whole = load(scenes[0], upto="latent")
    part = whole.isel(y=slice(8, 20), x=slice(3, 11))
    xr.testing.assert_equal(
        part.stac_latent.decode().drop_vars("spatial_ref"),
        whole.stac_latent.decode().isel(y=slice(64, 160), x=slice(24, 88)).drop_vars("spatial_ref"),
    )


def test_a_codec_of_whole_tiles_refuses_a_part(scenes):
    ds = load(scenes[0], upto="latent")
    del ds["latent"].attrs["latent:halo"]
    assert ds.stac_latent.decode().sizes["y"] == 192
    with pytest.raises(GridError, match=r"decodes whole tiles of \[192, 24, 27\] \(channel, y, x\) only"):
        ds.isel(y=slice(3, 9)).stac_latent.decode()


def test_standardise_and_distance(feature_item):
    ds = load(feature_item, upto="latent")
    stats = open_codec("s2-10m-embed").stats
    z = ds.stac_latent.standardise()
    np.testing.assert_allclose(z.data[0], stats.standardise(ds["latent"].data[0]), rtol=1e-6)
    assert z.dims == ds["latent"].dims
    assert float(ds.stac_latent.distance(ds).max()) == 0
    moved = ds.copy(deep=True)
    moved["latent"].data += np.asarray(stats.std, "float32").reshape(1, -1, 1, 1)
    d = ds.stac_latent.distance(moved["latent"])
    assert d.dims == ("time", "y", "x")
    np.testing.assert_allclose(d.data[~np.isnan(d.data)], 1, rtol=1e-4)
    assert 0 <= float(ds.stac_latent.distance(moved, metric="cosine").min()) <= 2
    lazy = load(feature_item, upto="latent", chunks={}).stac_latent.distance(ds)
    assert lazy.chunks is not None


def test_distance_between_dates(feature_item):
    one = load(feature_item, upto="latent")
    later = one.assign_coords(time=one.time + np.timedelta64(5, "D"))
    assert float(one.stac_latent.distance(later).max()) == 0


def test_distance_is_refused(scenes, feature_item):
    features, other = load(feature_item, upto="latent"), load(scenes[0], upto="latent", chunks={})
    with pytest.raises(
        CatalogError,
        match=f"two spaces has no meaning: {features.stac_latent.space} and {other.stac_latent.space}",
    ):
        features.stac_latent.distance(other)
    with pytest.raises(GridError, match=r"do not have the same cells .* load both with one geobox="):
        features.stac_latent.distance(features.isel(x=slice(1, None)))
    with pytest.raises(CatalogError, match="metric='l7' is unknown; expected 'euclidean' or 'cosine'"):
        features.stac_latent.distance(features, metric="l7")
    with pytest.raises(CodecError, match="carries no statistics of its latents"):
        other.stac_latent.distance(other)


def test_statistics_come_with_the_codec(scenes):
    ds = load(scenes[0], upto="latent", chunks={})
    codec = ds.stac_latent.codec
    stats = Stats((0.0,) * 192, (1.0,) * 192)
    with own_session():
        remember(replace(codec, stats=stats))
        assert ds.stac_latent.stats == stats


@pytest.mark.parametrize(
    "q",
    [
        Quantization("linear", (0.37,), (5.0,)),
        Quantization("linear", (0.01, 3.0, 250.0), (0.0, -4.0, 9.5)),
        Quantization("power", (1 / 127.5,), (0.0,), 2.0),
        Quantization("none"),
    ],
)
def test_symbols_come_back_from_values(q):
    symbols = np.random.default_rng(1).integers(-127, 128, (3, 20, 30)).astype(np.int16)
    np.testing.assert_array_equal(requantise(q, q.dequantise(symbols), "int16"), symbols)


def test_time_steps_stay_apart(tmp_path):
    items = [
        encoded(
            tmp_path, f"t{i}", scene((64, 72), seed=i), pixel_grid((64, 72)), when=NOON + dt.timedelta(days=i)
        )
        for i in range(2)
    ]
    ds = load(items, upto="latent")
    decoded = ds.stac_latent.decode()
    assert decoded.sizes["time"] == 2
    for i, item in enumerate(items):
        xr.testing.assert_equal(ds.isel(time=[i]), load(item, upto="latent"))
        want = load(item, upto="latent").stac_latent.decode()
        xr.testing.assert_equal(decoded.isel(time=[i]), want)
