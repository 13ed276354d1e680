"""A load to pixels equals the stock driver reading the decoded raster as a GeoTIFF, bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import odc.stac
import pytest
import rasterio
from affine import Affine
from load_support import BANDS, NAMES, ArrayReader, decoded_tiff, encoded, pair, pixel_grid, scene, write_tiff
from odc.geo.geobox import GeoBox
from odc.loader import RasterSource, RioReader
from odc.loader.types import RasterLoadParams

from stac_latent.cube.grid.boxes import pixel_box
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read import resample
from stac_latent.cube.read.load import load

STOCK = ["image.1", "image.2", "image.3"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("oracle"))


def target(name, base):
    return {
        "native": lambda: base,
        "shifted": lambda: base.translate_pix(37.3, 21.6)[11:150, 5:191],
        "cropped": lambda: base[13:140, 31:200],
        "coarser": lambda: GeoBox.from_bbox(base.boundingbox, crs=base.crs, resolution=37),
        "finer": lambda: base[80:120, 100:170].zoom_out(0.4),
        "mercator": lambda: GeoBox.from_bbox(base.extent.to_crs("EPSG:3857").boundingbox, resolution=17),
    }[name]()


@pytest.mark.parametrize("chunks", [None, {"y": 61, "x": 83}], ids=["eager", "dask"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize("grid", ["native", "shifted", "cropped", "coarser", "finer", "mercator"])
def test_load_equals_the_stock_driver(scenes, grid, resampling, chunks):
    latents, plain = scenes
    box = target(grid, odc.stac.load(plain, bands=["image"], chunks={}).odc.geobox)
    got = load(latents, geobox=box, resampling=resampling, chunks=chunks)
    want = odc.stac.load(plain, bands=STOCK, geobox=box, resampling=resampling, chunks=chunks)
    assert list(got.data_vars) == NAMES
    assert got.odc.geobox == want.odc.geobox
    for name, stock in zip(NAMES, STOCK, strict=True):
        a, b = got[name].compute(), want[stock].compute()
        assert a.dims == b.dims
        assert a.dtype == b.dtype
        assert (b.data > 0).any()
        assert (b.data == 0).any()
        np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize(
    ("options", "resampling"),
    [
        ({"dtype": "float32", "nodata": math.nan}, "bilinear"),
        ({"dtype": "float32", "nodata": math.nan}, "nearest"),
        ({"dtype": "int32", "nodata": -1}, "nearest"),
        ({"nodata": 9}, "nearest"),
        ({"nodata": 9}, "cubic"),
        ({"crs": "EPSG:3857", "resolution": 23}, "cubic"),
        ({"resolution": 30, "bbox": (13.70, 46.03, 13.72, 46.04)}, "average"),
        ({"bbox": (13.70, 46.03, 13.72, 46.04)}, "nearest"),
    ],
)
def test_options_mean_what_they_mean_in_a_stock_load(scenes, options, resampling):
    latents, plain = scenes
    got = load(latents, ["B03"], resampling=resampling, **options)
    want = odc.stac.load(plain, bands=["image.2"], resampling=resampling, **options)
    assert got.odc.geobox == want.odc.geobox
    assert got.B03.dtype == want["image.2"].dtype
    np.testing.assert_array_equal(got.B03.data, want["image.2"].data)


@pytest.mark.parametrize("codec", ["wavelet", "zstd", "jpeg2000"])
def test_chunks_of_a_codec_with_a_halo_have_no_seams(tmp_path, codec):
    item = encoded(tmp_path, "s", scene(), pixel_grid((187, 213)), codec=open_codec(codec, bands=list(BANDS)))
    plain = decoded_tiff(item, tmp_path / "decoded.tif")
    box = load(item, chunks={}).odc.geobox
    for target_box, how in ((box, "nearest"), (box.to_crs("EPSG:3857"), "cubic")):
        options = {"geobox": target_box, "resampling": how, "chunks": {"y": 53, "x": 47}}
        got, want = load(item, **options), odc.stac.load([plain], bands=STOCK, **options)
        for name, stock in zip(NAMES, STOCK, strict=True):
            np.testing.assert_array_equal(got[name].compute().data, want[stock].compute().data)


def test_degrees_have_their_own_names_of_axes(tmp_path):
    item = encoded(tmp_path, "s", scene(), pixel_grid((187, 213)))
    transform = [0.0001, 0.0, 13.70013, 0.0, -0.0001, 46.04007]
    item.assets["latent"].extra_fields |= {"proj:code": "EPSG:4326", "proj:transform": transform}
    plain = decoded_tiff(item, tmp_path / "decoded.tif")
    got, want = load(item), odc.stac.load([plain], bands=STOCK)
    assert got.B02.dims == want["image.1"].dims == ("time", "latitude", "longitude")
    np.testing.assert_array_equal(got.B02.data, want["image.1"].data)
    cells = load(item, upto="latent")
    assert cells["latent"].dims == ("time", "channel", "latitude", "longitude")
    assert cells.stac_latent.decode().B02.dims == ("time", "latitude", "longitude")


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A scene larger than most windows, as an array and as a GeoTIFF."""
    shape = (900, 1100)
    field = scene(shape, n=1)
    field[:, 400:470, 150:900] = 0
    path = tmp_path_factory.mktemp("big") / "full.tif"
    write_tiff(path, field, pixel_grid(shape))
    return field, pixel_box(pixel_grid(shape)), str(path)


def random_target(rng, pixels):
    crs = str(rng.choice(["EPSG:32633", "EPSG:32632", "EPSG:3857", "EPSG:4326", "EPSG:3035"]))
    res = 10 * 2 ** rng.uniform(-2, 4) / (111e3 if crs == "EPSG:4326" else 1)
    y, x = int(rng.integers(-100, 900)), int(rng.integers(-100, 1100))
    corner = pixels.translate_pix(x, y)[0:1, 0:1].extent.to_crs(crs).boundingbox
    h, w = (int(n) for n in rng.integers(1, 300, 2))
    box = GeoBox((h, w), Affine(res, 0, corner.left, 0, -res, corner.top), crs)
    return box.rotate(rng.uniform(-30, 30)) if rng.random() < 0.15 else box


@pytest.mark.parametrize("seed", range(4))
def test_random_grids_equal_the_stock_reader(big, seed):
    field, pixels, path = big
    rng, compared = np.random.default_rng(seed), 0
    for _ in range(40):
        box = random_target(rng, pixels)
        how = str(
            rng.choice(["nearest", "bilinear", "cubic", "average", "cubic_spline", "lanczos", "mode", "max"])
        )
        cfg = RasterLoadParams("uint16", 0, resampling=how)
        if rng.random() < 0.3:
            cfg = RasterLoadParams("float32", math.nan, resampling=how)
        reader = ArrayReader(field, BANDS[:1])
        roi, got = resample.read_onto(reader, pixels, [0], cfg, box)
        want_roi, want = RioReader(RasterSource(path), None).read(cfg, box)
        assert roi == want_roi
        np.testing.assert_array_equal(got[0], want, err_msg=f"{box!r} {cfg}")
        compared += want.size > 0
    assert compared > 20


@pytest.mark.parametrize("in_memory", [0, resample.Scratch().in_memory], ids=["on disk", "in memory"])
def test_a_large_window_is_decoded_in_strips(big, monkeypatch, tmp_path, in_memory):
    field, pixels, path = big
    scratch = resample.Scratch(in_memory, strip=100 * 1100 * 2)
    monkeypatch.setattr(resample.tempfile, "tempdir", str(tmp_path))
    box = pixels.zoom_out(30)
    cfg = RasterLoadParams("uint16", 0, resampling="average")
    reader = ArrayReader(field, BANDS[:1])
    _, got = resample.read_onto(reader, pixels, [0], cfg, box, scratch)
    _, want = RioReader(RasterSource(path), None).read(cfg, box)
    np.testing.assert_array_equal(got[0], want)
    assert [y1 - y0 for (y0, y1), _ in reader.windows] == [96] * 9 + [36]
    assert list(tmp_path.iterdir()) == []


def test_scratch_rasters_do_not_stay(big):
    field, pixels, _ = big
    reader = ArrayReader(field, BANDS[:1])
    window = ((10, 40), (300, 350))
    with resample._scratch(reader, pixels, [0], window) as (path,), rasterio.open(path) as src:
        assert (src.height, src.width) == pixels.shape
        inside = src.read(1, window=window)
    np.testing.assert_array_equal(inside, field[0, 10:40, 300:350])
    with pytest.raises(rasterio.errors.RasterioIOError, match="No such file"):
        rasterio.open(path)


def test_a_target_that_leaves_the_globe(big):
    field, pixels, path = big
    box = GeoBox.from_bbox((-7e6, -7e6, 7e6, 7e6), "+proj=ortho +lat_0=46 +lon_0=14", resolution=40_000)
    for how in ("nearest", "average"):
        cfg = RasterLoadParams("uint16", 0, resampling=how)
        with np.errstate(invalid="ignore"):  # odc-geo itself multiplies the infinite corners
            roi, got = resample.read_onto(ArrayReader(field, BANDS[:1]), pixels, [0], cfg, box)
            want_roi, want = RioReader(RasterSource(path), None).read(cfg, box)
        assert roi == want_roi
        np.testing.assert_array_equal(got[0], want)


@pytest.mark.parametrize("nodata", [None, -5.0, math.nan])
@pytest.mark.parametrize("fill", [None, -9.0, -5.0, math.nan])
def test_nodata_of_floats(tmp_path, nodata, fill):
    field = scene((64, 72), n=1).astype("float32")
    field[field == 0] = 1 if nodata is None else nodata
    field[0, 30, 40:50] = np.nan
    grid = pixel_grid((64, 72))
    write_tiff(tmp_path / "f.tif", field, grid, nodata)
    bands = [replace(BANDS[0], data_type="float32", nodata=nodata)]
    cfg = RasterLoadParams("float32", fill)
    for box in (pixel_box(grid), pixel_box(grid).translate_pix(10, 9), pixel_box(grid).translate_pix(500, 0)):
        roi, got = resample.read_onto(ArrayReader(field, bands), pixel_box(grid), [0], cfg, box)
        want_roi, want = RioReader(RasterSource(str(tmp_path / "f.tif")), None).read(cfg, box)
        assert roi == want_roi
        np.testing.assert_array_equal(got[0], want)
