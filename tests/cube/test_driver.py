"""The odc-loader driver in plain loads, and the xarray engine."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import odc.stac
import pytest
import xarray as xr
from load_support import BANDS, NAMES, encoded, pair, pixel_grid, ref_of, scene
from odc.loader import RasterBandMetadata, RioDriver, reader_driver
from odc.loader.types import RasterLoadParams, RasterSource

import stac_latent.cube
from stac_latent.cube.asset_choice import driver_data
from stac_latent.cube.grid.boxes import cell_box, pixel_box
from stac_latent.cube.odc_private import LocalContext
from stac_latent.cube.read import chunk_cache as chunks
from stac_latent.cube.read import reader as decode
from stac_latent.cube.read.driver import CellReader, FieldReader, LatentDriver, LatentParser, reader_for
from stac_latent.cube.read.load import load
from stac_latent.cube.read.xarray_engine import LatentBackendEntrypoint
from stac_latent.errors import CatalogError, CorruptDataError, GridError

DRIVER = "stac_latent.cube.LatentDriver"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("driver"))


@pytest.fixture(autouse=True)
def _fresh():
    chunks.forget()


def without_raw(item):
    out = item.clone()
    del out.assets["image"]
    return out


# -- plain loads ---------------------------------------------------------------------------------------------------


def test_the_driver_is_found_by_name():
    assert isinstance(reader_driver(DRIVER), LatentDriver)
    assert stac_latent.cube.LatentDriver is LatentDriver
    with pytest.raises(AttributeError, match=r"'stac_latent\.cube' has no attribute 'Driver'"):
        _ = stac_latent.cube.Driver


def test_importing_the_package_is_light():
    code = "import sys, stac_latent.cube; sys.exit(any(m in sys.modules for m in ('odc.loader', 'rasterio', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("chunks", [None, {"y": 90}], ids=["eager", "dask"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_a_plain_load_decodes(scenes, chunks, resampling):
    latents, plain = scenes
    items = [without_raw(i) for i in latents]
    options = {"crs": "EPSG:3857", "resolution": 25, "chunks": chunks, "resampling": resampling}
    got = odc.stac.load(items, bands=["red", "B03"], driver=DRIVER, **options)
    want = odc.stac.load(plain, bands=["image.3", "image.2"], **options)
    np.testing.assert_array_equal(got.red.compute().data, want["image.3"].compute().data)
    np.testing.assert_array_equal(got.B03.compute().data, want["image.2"].compute().data)


def test_all_bands_of_a_plain_load(scenes):
    latents, _ = scenes
    assert list(odc.stac.load([without_raw(latents[0])], driver=DRIVER, chunks={}).data_vars) == NAMES
    both = odc.stac.load([latents[0]], driver=DRIVER, chunks={})
    assert list(both.data_vars) == ["image.1", "image.2", "image.3", *NAMES]


@pytest.mark.parametrize("chunks", [None, {}], ids=["eager", "dask"])
def test_raw_and_decoded_in_one_load(scenes, chunks):
    latents, plain = scenes
    got = odc.stac.load(latents, bands=["image.3", "latent.B04"], driver=DRIVER, chunks=chunks).compute()
    raw = odc.stac.load(latents, bands=["image.3"])
    decoded = odc.stac.load(plain, bands=["image.3"])
    np.testing.assert_array_equal(got["image.3"].data, raw["image.3"].data)
    np.testing.assert_array_equal(got["latent.B04"].data, decoded["image.3"].data)
    assert not np.array_equal(got["image.3"].data, got["latent.B04"].data)


def test_an_asset_key_is_the_asset(scenes):
    latents, _ = scenes
    item = latents[0].clone()
    raw = item.assets.pop("image")
    raw.extra_fields["bands"] = raw.extra_fields["bands"][:1]
    item.add_asset("B02", raw)
    ds = odc.stac.load([item], bands=["B02", "latent.B02", "B03"], driver=DRIVER)
    stock = odc.stac.load([item], bands=["B02"])
    np.testing.assert_array_equal(ds.B02.data, stock.B02.data)
    assert not np.array_equal(ds.B02.data, ds["latent.B02"].data)
    np.testing.assert_array_equal(ds["latent.B02"].data, load(item).B02.data)


def test_a_stock_load_does_not_see_latents(scenes):
    latents, _ = scenes
    assert list(odc.stac.load(latents, chunks={}).data_vars) == ["image.1", "image.2", "image.3"]


def test_items_without_latents_are_read_as_ever(scenes):
    _, plain = scenes
    got = odc.stac.load(plain, driver=DRIVER)
    want = odc.stac.load(plain)
    xr.testing.assert_equal(got, want)


def test_a_band_by_band_load_decodes_once(scenes, monkeypatch):
    seen = []
    real = decode.LatentReader._decode_alone

    def spy(self, window, bands):
        seen.append(window)
        return real(self, window, bands)

    monkeypatch.setattr(decode.LatentReader, "_decode_alone", spy)
    item = without_raw(scenes[0][0])
    odc.stac.load([item], bands=NAMES, driver=DRIVER)
    once = sorted(seen)
    assert len(once) == len(set(once)) > 0
    chunks.forget()
    seen.clear()
    odc.stac.load([item], bands=NAMES, driver=DRIVER, chunks={"y": 100}).compute()
    assert sorted(seen) == once  # chunks of the cube that share a chunk of the store share its decode, too


# -- what travels to workers ---------------------------------------------------------------------------------------


def test_workers_receive_a_small_reference(scenes):
    item = scenes[0][0]
    data = driver_data(item, ref_of(item), "field", [0, 1, 2])
    parcel = pickle.dumps(data)
    assert len(parcel) < 4000
    assert pickle.loads(parcel) == data  # noqa: S301 (our own bytes)
    assert data["subdataset"].startswith(item.assets["latent"].extra_fields["latent:space"])
    whole = pickle.dumps(load(item, chunks={"y": 50, "x": 50}))
    assert len(whole) < 40_000


def test_another_process_decodes_what_it_receives(scenes, tmp_path):
    item = scenes[0][0]
    ds = load(item, ["B03"], chunks={"y": 100})
    (tmp_path / "ds.pickle").write_bytes(pickle.dumps(ds))
    code = (
        "import pickle, sys, numpy as np, stac_latent.codec.registry as r\n"
        "r.entry_points = lambda **kw: ()\n"
        "ds = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.save(sys.argv[2], ds.B03.data.compute(scheduler='synchronous'))\n"
    )
    args = [sys.executable, "-c", code, str(tmp_path / "ds.pickle"), str(tmp_path / "out.npy")]
    subprocess.run(args, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), load(item).B03.data)


def test_readers_are_kept_even_with_nan_nodata(scenes):
    item = scenes[0][0]
    ref = ref_of(item)
    nan = replace(ref, spec=replace(ref.spec, bands=(replace(BANDS[0], nodata=math.nan),)))
    first = reader_for(nan)
    assert reader_for(pickle.loads(pickle.dumps(nan))) is first  # noqa: S301 (our own bytes)
    assert reader_for(nan, "written later") is not first
    assert reader_for(ref) is not first


@pytest.mark.parametrize("change", ["space", "stamp", "bands", "level"])
def test_every_part_of_the_decoding_is_in_the_token(scenes, change):
    item = scenes[0][0]
    ref = ref_of(item)
    base = driver_data(item, ref, "field", [0])["subdataset"]
    newer = item.clone()
    newer.properties["updated"] = "2030-01-01T00:00:00Z"
    other = {
        "space": lambda: driver_data(
            item, replace(ref, spec=replace(ref.spec, space="sha256:" + "0" * 64)), "field", [0]
        ),
        "stamp": lambda: driver_data(newer, ref, "field", [0]),
        "bands": lambda: driver_data(item, ref, "field", [1]),
        "level": lambda: driver_data(item, ref, "latent", [0]),
    }[change]()["subdataset"]
    assert other != base
    assert (
        RasterSource("a", subdataset=base).__dask_tokenize__()
        != RasterSource("a", subdataset=other).__dask_tokenize__()
    )


# -- readers -------------------------------------------------------------------------------------------------------


def source(item, upto="field", bands=(0, 1, 2), band=0):
    return RasterSource("latent", band=band, driver_data=driver_data(item, ref_of(item), upto, list(bands)))


@pytest.mark.parametrize("selection", [None, slice(1, 3), [2, 0], 1])
def test_a_selection_of_bands(scenes, selection):
    item = scenes[0][0]
    reader = FieldReader(source(item))
    box = pixel_box(ref_of(item).grid)
    roi, got = reader.read(RasterLoadParams("uint16", 0), box, selection=selection)
    want = reader_for(ref_of(item)).read_field()
    want = want if selection is None else np.atleast_3d(want[[1]] if selection == 1 else want[selection])
    assert box[roi] == box
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("upto", ["field", "latent"])
def test_a_given_array_is_filled(scenes, upto):
    item = scenes[0][0]
    make, grid = (FieldReader, pixel_box) if upto == "field" else (CellReader, cell_box)
    box = grid(ref_of(item).grid).translate_pix(-3, -5)
    dtype = "uint16" if upto == "field" else "float32"
    cfg = RasterLoadParams(dtype, 0 if upto == "field" else math.nan)
    dst = np.full((3 if upto == "field" else 192, *box.shape), 7, dtype)
    roi, part = make(source(item, upto)).read(cfg, box, dst=dst)
    again_roi, again = make(source(item, upto)).read(cfg, box)
    assert np.shares_memory(part, dst)
    assert roi == again_roi
    np.testing.assert_array_equal(dst[(slice(None), *roi)], again)
    assert (dst[:, :5] == 7).all()


@pytest.mark.parametrize("selection", [None, slice(5, 9)])
@pytest.mark.parametrize("shift", [0, 1000])
def test_a_selection_of_channels(scenes, selection, shift):
    item = scenes[0][0]
    box = cell_box(ref_of(item).grid).translate_pix(shift, 0)
    cfg = RasterLoadParams("float32", math.nan)
    roi, got = CellReader(source(item, "latent")).read(cfg, box, selection=selection)
    want = reader_for(ref_of(item)).read_latent()[selection or slice(None)]
    if shift:
        assert got.shape == (len(want), 0, 0)
        assert roi == (slice(0, 0), slice(0, 0))
    else:
        np.testing.assert_array_equal(got, want)


def test_the_cell_reader_itself_refuses_other_grids(scenes):
    item = scenes[0][0]
    with pytest.raises(GridError, match="is off the lattice"):
        CellReader(source(item, "latent")).read(RasterLoadParams("float32"), pixel_box(ref_of(item).grid))


@pytest.mark.parametrize(("upto", "count"), [("field", 3), ("latent", 192)])
def test_a_failing_source_can_be_skipped(scenes, tmp_path, caplog, upto, count):
    item = scenes[0][0].clone()
    item.set_self_href(scenes[0][0].get_self_href())
    item.assets["latent"].href = str(tmp_path / "gone.zarr")
    make, grid = (FieldReader, pixel_box) if upto == "field" else (CellReader, cell_box)
    reader, box = make(source(item, upto)), grid(ref_of(item).grid)
    with pytest.raises(CorruptDataError, match=r"gone\.zarr is no Zarr v3 group"):
        reader.read(RasterLoadParams("float32"), box)
    roi, got = reader.read(RasterLoadParams("float32", fail_on_error=False), box)
    assert roi == (slice(0, 0), slice(0, 0))
    assert got.shape == (count, 0, 0)
    assert "Ignoring read failure of latent" in caplog.text


def test_chunks_are_decoded_once_for_many_threads():
    chunks.forget()
    calls, started = [], threading.Barrier(4)

    def decoded():
        calls.append(1)
        return np.ones((3, 4, 4))

    def one(_):
        started.wait()
        return chunks.chunk("a", decoded).result()

    with ThreadPoolExecutor(4) as pool:
        assert all(got.sum() == 48 for got in pool.map(one, range(4)))
    assert len(calls) == 1


def test_chunks_are_kept_within_a_limit(monkeypatch):
    chunks.forget()
    monkeypatch.setenv("STAC_LATENT_DECODED_BYTES", str(3 * 8 * 16))
    calls = []

    def decoded(i):
        calls.append(i)
        return np.zeros((4, 4))

    for _ in range(2):
        for i in range(5):
            chunks.chunk(i, lambda i=i: decoded(i)).result()
    assert calls == [0, 1, 2, 3, 4] * 2  # the least recently used goes first
    assert len(chunks._chunks) <= 4


def test_a_chunk_that_failed_is_tried_again():
    chunks.forget()

    def fail():
        raise CorruptDataError("bad bytes")

    with pytest.raises(CorruptDataError, match="bad bytes"):
        chunks.chunk("b", fail).result()
    assert chunks.chunk("b", lambda: np.ones(2)).result().sum() == 2


# -- what odc-loader expects of a driver ----------------------------------------------------------------------------


def test_bands_come_last_where_the_source_has_them_so(scenes):
    item = scenes[0][0]
    box = pixel_box(ref_of(item).grid)
    src = source(item, bands=[0, 2])
    first = FieldReader(src).read(RasterLoadParams("uint16"), box)[1]
    src = replace(src, meta=RasterBandMetadata("uint16", 0, dims=("y", "x", "band")))
    for dst in (None, np.zeros((*box.shape, 2), "uint16")):
        roi, last = FieldReader(src).read(RasterLoadParams("uint16"), box, dst=dst)
        np.testing.assert_array_equal(last, np.moveaxis(first, 0, -1))
        assert dst is None or (dst[roi] == last).all()


@pytest.mark.parametrize("how", [{}, {"dtype": "uint16"}], ids=["no type", "another type"])
def test_an_array_that_is_filled_says_its_type(scenes, how, tmp_path):
    item, plain = scenes[0][0], scenes[1][0]
    box = pixel_box(ref_of(item).grid)
    want, got = (np.zeros(box.shape, "float32") for _ in range(2))
    stock = RasterSource(plain.assets["image"].href, band=2, meta=RasterBandMetadata("uint16", 0))
    cfg = RasterLoadParams(**how)
    RioDriver().open(stock, LocalContext()).read(cfg, box, dst=want)
    FieldReader(source(item, band=1, bands=[1])).read(cfg, box, dst=got)
    assert np.isnan(want).any()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_band_that_is_not_there(scenes, number):
    item = scenes[0][0]
    text = (
        rf"there is no band {number} in asset 'latent' of item 's0'; it has 1 \(B02\), 2 \(B03\), 3 \(B04\)"
    )
    with pytest.raises(CatalogError, match=text):
        LatentParser().driver_data(item, ("latent", number))
    with pytest.raises(CatalogError, match=text):
        FieldReader(source(item, bands=[number - 1])).read(
            RasterLoadParams("uint16"), pixel_box(ref_of(item).grid)
        )


def test_readers_of_others_are_passed_on():
    aux, dask = object(), object()
    driver = LatentDriver(aux_reader=aux, dask_reader=dask)
    assert (driver.aux_reader, driver.dask_reader) == (aux, dask)
    assert isinstance(driver.md_parser, LatentParser)


# -- the engine ----------------------------------------------------------------------------------------------------


def engine():
    found = entry_points(group="xarray.backends", name="stac-latent")
    return "stac-latent" if found else LatentBackendEntrypoint


@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
@pytest.mark.parametrize("what", ["item file", "item", "group"])
@pytest.mark.parametrize("chunks", [None, {"y": 64, "x": 96}], ids=["lazy", "dask"])
def test_open_dataset_decodes(scenes, what, chunks):
    item = scenes[0][0]
    href = {
        "item file": item.get_self_href(),
        "item": item,
        "group": item.assets["latent"].get_absolute_href(),
    }[what]
    ds = xr.open_dataset(href, engine=engine(), chunks=chunks)
    want = load(item)
    assert list(ds.data_vars) == NAMES
    assert ds.odc.geobox == want.odc.geobox
    assert ds.B02.attrs == want.B02.attrs
    for name in NAMES:
        np.testing.assert_array_equal(ds[name].data, want[name].data[0])


@pytest.mark.parametrize(
    "key",
    [
        (slice(3, 50, 4), slice(100, 20, -3)),
        (17, slice(None)),
        (slice(None, None, -1), 200),
        (5, 6),
        ([3, 1, 88], slice(10, 12)),
        (slice(9, 9), slice(None)),
    ],
    ids=str,
)
def test_open_dataset_reads_what_is_indexed(scenes, key, monkeypatch):
    item = scenes[0][0]
    want = load(item).B03[0]
    seen = []
    real = decode.LatentReader.read_field

    def spy(self, window=None, bands=None):
        seen.append(window)
        return real(self, window, bands)

    monkeypatch.setattr(decode.LatentReader, "read_field", spy)
    ds = xr.open_dataset(item, engine=engine())
    assert seen == []
    got = ds.B03[key]
    np.testing.assert_array_equal(got.data, want[key].data)
    assert all((y1 - y0) * (x1 - x0) < 187 * 213 / 2 for (y0, y1), (x0, x1) in seen)


def test_open_dataset_gives_latents(scenes):
    item = scenes[0][0]
    want = load(item, upto="latent")["latent"][0]
    ds = xr.open_dataset(item, engine=engine(), upto="latent")
    assert ds["latent"].dims == ("channel", "y", "x")
    np.testing.assert_array_equal(ds["latent"][7:20:3, 4:9, 2].data, want[7:20:3, 4:9, 2].data)
    np.testing.assert_array_equal(ds["latent"].data, want.data)
    assert ds.stac_latent.space == item.assets["latent"].extra_fields["latent:space"]


def test_open_dataset_options(scenes):
    item = scenes[0][0]
    assert list(xr.open_dataset(item, engine=engine(), bands="green", asset="latent").data_vars) == ["green"]
    assert list(xr.open_dataset(item, engine=engine(), drop_variables=["B02"]).data_vars) == ["B03", "B04"]
    assert list(xr.open_dataset(item, engine=engine(), drop_variables="B02").data_vars) == ["B03", "B04"]


def test_open_dataset_of_an_embedding_gives_latents(tmp_path):
    item = encoded(tmp_path, "s", scene((64, 72)), pixel_grid((64, 72)))
    item.assets["latent"].extra_fields |= {
        "latent:kind": "embedding",
        "proj:shape": [9, 10],
        "latent:padding": None,
    }
    item.assets["latent"].extra_fields["proj:transform"] = [80.0, 0.0, 400000.0, 0.0, -80.0, 5100000.0]
    assert list(xr.open_dataset(item, engine=engine()).data_vars) == ["latent"]


def test_open_dataset_refuses(scenes, tmp_path):
    item = scenes[0][0]
    (tmp_path / "a.json").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    with pytest.raises(
        CatalogError, match=r"a\.json is no STAC Item but a FeatureCollection; stac_latent\.search"
    ):
        xr.open_dataset(tmp_path / "a.json", engine=engine())
    with pytest.raises(CatalogError, match=r"cannot read .*gone\.json"):
        xr.open_dataset(tmp_path / "gone.json", engine=engine())
    with pytest.raises(CorruptDataError, match="is no Zarr v3 group"):
        xr.open_dataset(tmp_path, engine=engine())
    with pytest.raises(CatalogError, match=r"opens a pystac Item, an asset of one, or the href .*; got int"):
        xr.open_dataset(3, engine=engine())
    with pytest.raises(
        CatalogError,
        match=r"no band 'B77' in asset 'latent' of item 's0'; it has B02 \(blue\), B03 \(green\)",
    ):
        xr.open_dataset(item, engine=engine(), bands=["B77"])
    with pytest.raises(CatalogError, match="no latent asset 'x' in 's0'"):
        xr.open_dataset(item, engine=engine(), asset="x")


def test_the_engine_never_guesses(scenes):
    assert LatentBackendEntrypoint().guess_can_open(scenes[0][0].get_self_href()) is False
