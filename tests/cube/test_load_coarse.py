"""Loads onto much coarser grids: from coarser levels of the wavelet, a fraction of the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from load_support import BANDS, encoded, pixel_grid, scene
from odc.geo.geobox import GeoBox
from servers.files import FileServer

from stac_latent import encode, load, open_codec
from stac_latent.catalog.sample import sample_item
from stac_latent.cube.grid.boxes import pixel_box
from stac_latent.cube.read import driver
from stac_latent.cube.read.chunk_cache import forget
from stac_latent.cube.read.driver import reader_for
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.read.reduced import ReducedReader, reduction_for
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CodecError, CorruptDataError
from stac_latent.stages.context import _numpy, coder
from stac_latent.stages.lin.lifting import levels_of, synthesise
from stac_latent.stages.transform.normalise import store
from stac_latent.store.consolidate import finish

SHAPE = (531, 587)
GRID = pixel_grid(SHAPE)


def lin(step=20.0):
    return open_codec("lin", bands=list(BANDS), step=step)


@pytest.fixture(scope="module")
def item(tmp_path_factory):
    return encoded(tmp_path_factory.mktemp("coarse"), "scene", scene(SHAPE), GRID, codec=lin())


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    return encode(sample_item(folder / "raw"), "s2-10m-4b", folder / "catalog", psnr=42)[0]


@pytest.fixture(scope="module")
def reader(item):
    return LatentReader.open(item)


@pytest.mark.parametrize("reduction", [1, 2, 3])
@pytest.mark.parametrize("size", [(256, 256), (40, 248), (8, 16)])
def test_the_low_bands_are_those_of_the_whole_tile(reduction, size):
    codec = lin()
    payload = codec.encode(scene((256, 256))[:, : size[0], : size[1]])
    first, stage = codec.stages[0], codec.stages[-1]
    (tile,) = stage.decode_tile(payload)
    levels = levels_of(*size)
    synthesise(tile, levels, reduction)
    low = tile[:, : size[0] >> reduction, : size[1] >> reduction] * np.float32(2.0**-reduction)
    assert np.array_equal(codec.decode_reduced(payload, reduction), store(low, first, codec.bands))


def test_fields_of_several_tiles_are_put_together():
    codec, field = lin(), scene((512, 264))
    whole = codec.decode_reduced(codec.encode(field), 2)
    tiles = [codec.decode_reduced(codec.encode(field[:, ys]), 2) for ys in (slice(256), slice(256, 512))]
    assert whole.shape == (3, 128, 66)
    assert np.array_equal(whole, np.concatenate(tiles, axis=1))


def test_a_codec_says_what_it_can():
    payload = lin().encode(scene((256, 256)))
    for reduction in (0, 4, -1):
        with pytest.raises(
            CodecError, match=rf"'lin' halves its resolution 0 to 3 times; got reduction={reduction}"
        ):
            lin().decode_reduced(payload, reduction)
    other = open_codec("dct", bands=list(BANDS))
    with pytest.raises(CodecError, match="'dct' halves its resolution 0 to 0 times"):
        other.decode_reduced(b"", 1)


@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_pixels_lie_where_their_grid_says(tmp_path, reduction):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    ramp = np.stack([1000 + 4 * x, 1000 + 4 * y, 2000 + 2 * x + 2 * y]).astype(np.uint16)
    reader = LatentReader.open(encoded(tmp_path, "ramp", ramp, GRID, codec=lin(1.0)))
    coarse = ReducedReader(reader, reduction)
    fine = pixel_box(reader.grid)
    ny, nx = coarse.box.shape
    rows, columns = np.arange(ny) + 0.5, np.arange(nx) + 0.5
    _, wy = coarse.box.affine * (0.0 * rows, rows)
    wx, _ = coarse.box.affine * (columns, 0.0 * columns)
    px, py = (~fine.affine * (wx, 0 * wx))[0] - 0.5, (~fine.affine * (0 * wy, wy))[1] - 0.5
    assert px[0] - 2 ** (reduction - 1) <= -0.5
    assert px[-1] + 2 ** (reduction - 1) >= SHAPE[1] - 0.5
    inside = np.ix_((py > 16) & (py < SHAPE[0] - 16), (px > 16) & (px < SHAPE[1] - 16))
    off = np.abs(coarse.read_field().astype(float)[0] - (1000 + 4 * px))[inside]
    assert np.median(off) <= 1
    off = np.abs(coarse.read_field().astype(float)[1] - (1000 + 4 * py[:, None]))[inside]
    assert np.median(off) <= 1


@pytest.mark.parametrize("reduction", [1, 3])
def test_windows_are_parts_of_the_whole(reader, reduction):
    coarse = ReducedReader(reader, reduction)
    whole = coarse.read_field()
    assert whole.shape == (3, *coarse.box.shape)
    rng = np.random.default_rng(0)
    for _ in range(20):
        (y0, y1), (x0, x1) = (np.sort(rng.choice(n + 1, 2, replace=False)) for n in coarse.box.shape)
        part = coarse.read_field(((y0, y1), (x0, x1)), [2, 0])
        assert np.array_equal(part, whole[[2, 0], y0:y1, x0:x1])
    valid = whole[0] != 0
    assert 0.9 < valid.mean() < 1


@pytest.mark.parametrize("factor", [4, 6, 8])
def test_means_of_real_pixels_differ_by_less_than_the_codec_loses(sample, factor):
    full, fast = (
        load(sample, resolution=10 * factor, resampling="average", use_overviews=used)
        for used in (False, True)
    )
    peak = 10 ** (sample.assets["latent"].extra_fields["latent:psnr"] / 20)
    for name in full.data_vars:
        off = full[name].values.astype(float) - fast[name].values
        assert 0 < np.sqrt((off**2).mean()) < 10000 / peak


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_no_filling_is_in_pixels_beside_holes(tmp_path, factor):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    field = np.stack([2000 + 800 * np.sin((x + 30 * b) / 60) * np.cos(y / 50) for b in range(3)]).astype(
        np.uint16
    )
    field[:, (np.random.default_rng(0).random(SHAPE) < 0.02) | (x // 37 % 5 == 0) | (x + y < 250)] = 0
    item = encoded(tmp_path, "holes", field, GRID, codec=lin(1.0))
    full, fast = (
        load(item, ["B02"], resolution=10 * factor, resampling="average", use_overviews=used)["B02"].values
        for used in (False, True)
    )
    both = (full != 0) & (fast != 0)
    off = fast[both].astype(float) - full[both]
    assert both.mean() > 0.5
    assert np.sqrt((off**2).mean()) < 0.7 * factor  # 17, 31 and 50 with the filling
    assert np.abs(off).max() < 60


def test_less_is_decoded(item, monkeypatch):
    seen = []

    class Counted(ReducedReader):
        def __init__(self, reader, reduction):
            seen.append(reduction)
            super().__init__(reader, reduction)

    monkeypatch.setattr(driver, "ReducedReader", Counted)
    whole, alone = [], LatentReader._decode_alone
    monkeypatch.setattr(LatentReader, "_decode_alone", lambda *args: whole.append(args) or alone(*args))
    forget()
    ds = load(item, resolution=80, resampling="bilinear")
    assert seen == [2]
    assert len(whole) == 1  # the one with a corner and a hole without data, of nine
    assert (ds.B02.values != 0).any()


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """A scene of 16 chunks, from which on stores say what coarser pixels need."""
    shape = (4 * 256, 4 * 256)
    field = np.tile(scene((256, 256)), (1, 4, 4))
    return encoded(tmp_path_factory.mktemp("tiled"), "tiled", field, pixel_grid(shape), codec=lin())


def place(item):
    """Folder of the store."""
    return Path(item.assets["latent"].get_absolute_href())


@pytest.mark.parametrize("form", ["compiled", "numpy"])
def test_what_a_reduction_needs_is_known_to_the_byte(tiled, form, monkeypatch):
    if form == "numpy":
        monkeypatch.setattr(coder, "_coder", _numpy)
    arrays, codec = LatentReader.open(tiled).arrays, lin()
    payload = arrays.payloads.read(0, 3)
    sizes = codec.prefixes(payload)
    assert len(payload) > sizes[0] > sizes[1] > sizes[2]
    assert sizes == tuple(arrays.prefixes.of(0, 3, r).size for r in (1, 2, 3))
    for reduction, size in enumerate(sizes, 1):
        want = codec.decode_reduced(payload, reduction)
        np.testing.assert_array_equal(codec.decode_reduced(payload[:size], reduction, prefix=True), want)
        with pytest.raises(CorruptDataError, match="planes do not end where the stream does"):
            codec.decode_reduced(payload[: size - 2], reduction, prefix=True)
        with pytest.raises(CorruptDataError, match="the checksum does not match"):
            codec.decode_reduced(payload[:size], reduction)


def test_a_coarse_load_reads_a_fraction_of_the_bytes(tiled):
    root = place(tiled).parent
    sent = {}
    with FileServer(root) as server:
        for factor in (1, 4, 16):
            other = tiled.clone()
            other.assets["latent"].href = f"{server.url}/{Path(tiled.assets['latent'].href).name}"
            forget()
            before = len(server.requests)
            far = load(other, resolution=10 * factor, resampling="average")
            near = load(tiled, resolution=10 * factor, resampling="average")
            np.testing.assert_array_equal(far.B02.values, near.B02.values)
            sent[factor] = sum(r.sent for r in server.requests[before:] if "/latent/c/" in r.path)
    assert sent[16] < 0.6 * sent[4] < 0.6 * 0.9 * sent[1]


def test_damaged_beginnings_are_refused(tiled, tmp_path):
    item = copied(tiled, tmp_path)
    arrays = LatentReader.open(item).arrays
    start, key = arrays.prefixes.of(1, 2, 2), arrays.payloads._key(1, 2)
    offset, _ = arrays.payloads._span(key, (1, 2, start.size))
    file = place(item) / key
    data = bytearray(file.read_bytes())
    data[offset + start.size - 1] ^= 1
    file.write_bytes(data)
    forget()
    with pytest.raises(
        CorruptDataError,
        match=rf"item 'tiled': .*the checksum of its first {start.size} bytes does not match",
    ):
        load(item, resolution=80, resampling="average")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (lambda old: old * 0 + 2**31, r"and the array prefix says that 2147483648 are its beginning"),
        (lambda old: old[:, :, :2], r"uint32 \(3, 2, 2, 4\); expected uint32 \(reduction, 2, 4, 4\)"),
        (lambda old: old * 0, None),
    ],
)
def test_what_is_said_of_beginnings_is_checked(tiled, tmp_path, values, text):
    item = copied(tiled, tmp_path)
    folder = place(item)
    group = zarr.open_group(str(folder), mode="r+", zarr_format=3)
    new = values(group["prefix"][:])
    made = group.create_array(
        "prefix",
        shape=new.shape,
        dtype="u4",
        chunks=new.shape,
        overwrite=True,
        dimension_names=group["prefix"].metadata.dimension_names,
    )
    made[:] = new
    finish(folder)
    forget()
    if text is None:
        want = load(tiled, resolution=80, resampling="average").B02.values
        np.testing.assert_array_equal(load(item, resolution=80, resampling="average").B02.values, want)
        return
    with pytest.raises(CorruptDataError, match=text):
        load(item, resolution=80, resampling="average")


def copied(item, folder):
    """The same Item with a store of its own."""
    own = item.clone()
    own.assets["latent"].href = str(folder / "latent.zarr")
    shutil.copytree(place(item), folder / "latent.zarr")
    return own


def test_lazy_loads_are_equal(item):
    eager = load(item, resolution=70, resampling="average")
    lazy = load(item, resolution=70, resampling="average", chunks={"y": 13, "x": 20})
    assert eager.sizes["y"] > 30
    for name in eager.data_vars:
        assert np.array_equal(eager[name].values, lazy[name].compute().values)


@pytest.mark.parametrize("how", ["mode", "max", "med", "q1", "sum"])
def test_ranks_and_sums_see_every_pixel(item, how):
    full, same = (load(item, resolution=80, resampling=how, use_overviews=used) for used in (False, True))
    assert full.equals(same)


def test_bounds_of_the_error_need_every_pixel(tmp_path):
    bounded = encoded(tmp_path, "bounded", scene(SHAPE), GRID, codec=lin(200.0), error_bound=3)
    full, same = (
        load(bounded, resolution=80, resampling="average", use_overviews=used) for used in (False, True)
    )
    assert full.equals(same)
    assert reader_for(LatentRef.from_item(bounded)).reductions == 0


def test_other_codecs_decode_every_pixel(tmp_path):
    plain = encoded(tmp_path, "plain", scene((187, 213)), pixel_grid((187, 213)))
    full, same = (
        load(plain, resolution=80, resampling="average", use_overviews=used) for used in (False, True)
    )
    assert full.equals(same)


def test_which_reduction():
    fine = pixel_box(GRID)
    factors = (0.5, 1, 2, 3.9, 4, 7.9, 8, 16, 100)
    assert [reduction_for(fine, fine.zoom_out(n), "nearest") for n in factors] == [0, 0, 0, 0, 1, 1, 2, 3, 5]
    assert reduction_for(fine, fine.zoom_out(8), "max") == 0
    degrees = GeoBox.from_bbox((-180, -90, 180, 90), "EPSG:4326", resolution=0.01)  # some 700 m here
    assert reduction_for(fine, degrees, "average") == 5
