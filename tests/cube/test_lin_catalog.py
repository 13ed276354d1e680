"""The ``lin`` chain in a catalogue: targets and what was reached, edges of scenes, windows, latents, decoding on dask."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from core_support import BANDS, check, make_scene, nothing_catalogued, scene_field

from stac_latent import encode, load, open_codec
from stac_latent.codec.registry import remember
from stac_latent.cube.read.chunk_cache import forget
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CodecError, CorruptDataError, FieldError, GridError
from stac_latent.system.files import tree_size
from stac_latent.window import Window

SHAPE = (395, 273)  # two chunks: 28 + 22 rows of 35 cells, padding on every side


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("raw"), scene_field(SHAPE, 3))


@pytest.fixture(scope="module")
def codec():
    return remember(open_codec("lin", bands=list(BANDS), step=24.0))


@pytest.fixture(scope="module")
def item(scene, codec, tmp_path_factory):
    (item,) = encode(scene.item, codec, tmp_path_factory.mktemp("cat"))
    return item


def fields_of(item):
    return item.assets["latent"].extra_fields


def measured(reader, scene):
    """PSNR, largest error and bits per pixel of what is stored."""
    error = (reader.read_field().astype(float) - scene.field)[scene.valid]
    psnr = 10 * math.log10(1e8 / np.square(error).mean())
    return psnr, np.abs(error).max(), tree_size(reader.ref.href) * 8 / scene.field.size


def payload_bytes(item):
    reader = LatentReader.open(item)
    return sum(len(reader.arrays.payloads.read(*place)) for place, _ in reader.chunk_windows())


@pytest.mark.parametrize(
    "target", [{}, {"psnr": 40}, {"psnr": 55}, {"max_error": 9}, {"max_bits_per_pixel": 2}, {"quality": 30}, {"step": 7}],
    ids=str,
)  # fmt: skip
def test_targets_are_reached_and_told(scene, codec, tmp_path, target):
    (item,) = encode(scene.item, codec, tmp_path, **target)
    check(item)
    psnr, worst, rate = measured(LatentReader.open(item), scene)
    fields = fields_of(item)
    assert fields["latent:psnr"] == pytest.approx(psnr)
    assert fields["latent:max_error"] == worst
    assert fields["latent:bits_per_pixel"] == pytest.approx(rate)
    assert fields["latent:space"] == codec.space, "payloads of any rate are of one space"
    if "psnr" in target:
        assert target["psnr"] - 0.02 <= psnr <= target["psnr"] + 0.5
    if "max_error" in target:
        assert 0.6 * target["max_error"] <= worst <= target["max_error"]
    if "max_bits_per_pixel" in target:  # of the payloads; mask and metadata lie beside them
        assert 0.97 <= payload_bytes(item) * 8 / scene.field.size / target["max_bits_per_pixel"] <= 1


def test_a_target_out_of_reach_leaves_nothing(scene, codec, tmp_path):
    with pytest.raises(CodecError, match=r"no step reaches max_bits_per_pixel=0\.0001"):
        encode(scene.item, codec, tmp_path, max_bits_per_pixel=1e-4)
    with pytest.raises(CodecError, match="one target at a time"):
        encode(scene.item, codec, tmp_path, psnr=40, step=3)
    with pytest.raises(CodecError, match="codes at the one rate that is part of its space"):
        encode(scene.item, open_codec("dct", bands=list(BANDS)), tmp_path, psnr=40)
    assert nothing_catalogued(tmp_path)


def test_a_plain_payload_has_no_rate(scene, codec, tmp_path):
    (item,) = encode(scene.item, codec, tmp_path, payload="plain")
    reader = LatentReader.open(item)
    assert reader.arrays.payloads is None
    np.testing.assert_array_equal(reader.read_field(), scene.field)  # latents themselves are exact


# -- reading -------------------------------------------------------------------------------------------------------------


def test_windows_are_cut_from_the_whole(item, scene):
    whole = LatentReader.open(item).read_field()
    np.testing.assert_array_equal(whole == 0, scene.field == 0)
    h, w = SHAPE
    for (y0, y1), (x0, x1) in [
        ((0, 1), (0, 1)), ((h - 1, h), (w - 1, w)), ((210, 240), (250, 273)), ((100, 101), (0, w)), ((0, h), (0, w)),
    ]:  # fmt: skip
        part = LatentReader.open(item).read_field(((y0, y1), (x0, x1)))
        np.testing.assert_array_equal(part, whole[:, y0:y1, x0:x1])
    one = LatentReader.open(item).read_field(((215, 225), (10, 20)), bands=[1])
    np.testing.assert_array_equal(one, whole[1:, 215:225, 10:20])


def test_few_bands_are_decoded_alone_and_equal(item, monkeypatch):
    """Only those that are asked for; all where others of a chunk are kept, and none again where all are."""
    whole = LatentReader.open(item).read_field()
    seen, real = [], LatentReader._decode_alone

    def spy(self, window, bands):
        seen.append(bands)
        return real(self, window, bands)

    monkeypatch.setattr(LatentReader, "_decode_alone", spy)
    place = ((0, 9), (3, 40))
    reader = LatentReader.open(item)

    def read(bands, *, alone=True):
        found = reader.read_field(place, bands, alone=alone)
        np.testing.assert_array_equal(found, whole[bands, :9, 3:40])

    for bands in ([1], [1], [0], [1], [0], [1, 0], [1, 1]):
        read(bands)
    assert seen == [(1,), None]
    forget()
    seen.clear()
    read([0])  # what was asked for before is gone
    read([0], alone=False)
    assert seen == [(0,), None]
    forget()
    seen.clear()
    (found,) = reader.read_windows([Window.of(place)], [1], alone=True)
    np.testing.assert_array_equal(found, whole[1:, :9, 3:40])
    forget()
    cube = load(item, BANDS[1].name)
    np.testing.assert_array_equal(cube[BANDS[1].name].values[0], whole[1])
    assert set(seen) == {(1,)}


def test_chunks_decode_alike_from_bytes_and_over_latents(item, codec):
    reader = LatentReader.open(item)
    cells = reader.grid.cells
    symbols = reader.read_symbols()
    assert symbols.shape == (128, *cells)
    assert symbols.dtype == np.float32
    assert reader.arrays.latent.chunks[1:] == (28, 35)
    for y, part in enumerate(np.split(symbols, [28], axis=1)):
        payload = reader.arrays.payloads.read(y, 0)
        np.testing.assert_array_equal(codec.entropy_decode(payload), part)
        np.testing.assert_array_equal(codec.decode(payload), codec.decode(part))
    field, block = reader.decode_block(((0, 395), (0, 273)))
    np.testing.assert_array_equal(block, symbols)
    np.testing.assert_array_equal(field, reader.read_field())


def test_latents(item):
    ds = load(item, upto="latent", chunks={})
    assert ds["latent"].dtype == np.float32
    want = LatentReader.open(item).read_latent()
    np.testing.assert_array_equal(ds["latent"][0].compute().data, want)
    part = load(item, upto="latent").isel(y=slice(3, 20))
    with pytest.raises(GridError, match=r"this codec decodes whole tiles of .* only"):
        part.stac_latent.decode()


def test_a_loaded_cube_decodes(codec, tmp_path):
    """Bit for bit where every cell holds a pixel; a hole's own cells are NaN in a cube, and blur what is next to them."""
    field = scene_field(SHAPE, 4)
    field[field == 0] = 777
    scene = make_scene(tmp_path / "raw", field)
    (item,) = encode(scene.item, codec, tmp_path / "cat")
    back = load(item, upto="latent").stac_latent.decode()
    reader = LatentReader.open(item)
    (top, left), (h, w) = reader.grid.lead, reader.grid.shape
    whole = reader.read_field()
    for i, name in enumerate(("red", "nir")):
        np.testing.assert_array_equal(back[name][0].data[top : top + h, left : left + w], whole[i])


@pytest.mark.parametrize("chunks", [None, {"y": 100, "x": 90}], ids=["eager", "dask"])
def test_fields(item, chunks):
    ds = load(item, chunks=chunks)
    whole = LatentReader.open(item).read_field()
    for i, name in enumerate(("red", "nir")):
        np.testing.assert_array_equal(np.asarray(ds[name][0].data), whole[i])


def test_the_codec_comes_from_the_item_alone(item, fresh_process):
    reader = LatentReader(LatentRef.from_item(item))
    assert reader.codec.stages[-1].name == "lin"
    assert reader.spec.halo == (0, 0)
    assert fields_of(item)["latent:bitstream"] == "stac-latent-lin-1"
    assert fields_of(item)["latent:halo"] == [0, 0]
    assert reader.read_field(((0, 4), (0, 5))).shape == (2, 4, 5)


# -- scenes of every size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (9, 257), (256, 256), (263, 8)])
def test_scenes_of_every_size(tmp_path, codec, shape):
    field = scene_field(shape, 5)
    field[:, -1, -1] = 900
    scene = make_scene(tmp_path / "raw", field)
    (item,) = encode(scene.item, codec, tmp_path / "cat", max_error=3)
    back = LatentReader.open(item).read_field()
    np.testing.assert_array_equal(back == 0, field == 0)
    assert np.abs(back.astype(int) - field).max() <= 3


def test_narrow_edges_do_not_break_a_rate(tmp_path, codec):
    """Chunks of a few pixels at the end of a scene, whose headers alone weigh more than a low rate."""
    scene = make_scene(tmp_path / "raw", scene_field((262, 262), 6))
    (item,) = encode(scene.item, codec, tmp_path / "cat", max_bits_per_pixel=0.4)
    assert 0.37 <= payload_bytes(item) * 8 / scene.field.size <= 0.4 + 8 * 3 * 30 / scene.field.size


def test_nothing_valid(tmp_path, codec):
    scene = make_scene(tmp_path / "raw", np.zeros((2, 40, 40), np.uint16))
    with pytest.raises(FieldError, match="no pixel of the source is valid"):
        encode(scene.item, codec, tmp_path / "cat")


def test_chunks_without_a_valid_pixel(tmp_path, codec):
    field = scene_field((264, 520), 2)
    field[:, :, 250:] = 0
    scene = make_scene(tmp_path / "raw", field)
    (item,) = encode(scene.item, codec, tmp_path / "cat", psnr=45)
    back = LatentReader.open(item).read_field()
    np.testing.assert_array_equal(back == 0, field == 0)
    assert fields_of(item)["latent:psnr"] >= 44.98


# -- damaged stores ------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(item, tmp_path):
    """The item's store, to be damaged: its path, the file of its one shard, and a function that opens it."""
    ref = LatentRef.from_item(item)
    shutil.copytree(ref.href, tmp_path / "s.zarr")
    (shard,) = (p for p in (tmp_path / "s.zarr" / "latent").rglob("c/*/*/*") if p.is_file())
    moved = replace(ref, href=str(tmp_path / "s.zarr"))
    return shard, lambda: LatentReader(moved, LatentReader.open(item).codec)


def test_a_missing_shard(copy):
    shard, reader = copy
    shard.unlink()
    with pytest.raises(
        CorruptDataError,
        match=r"s\.zarr/latent/c/0/0/0 is missing; the store is incomplete, fetch or write it",
    ):
        reader().read_field()
    with pytest.raises(CorruptDataError, match="is missing; the store is incomplete"):
        reader().read_symbols()


@pytest.mark.parametrize("keep", [0, 10, 67, 68, 500, 5000])
def test_a_truncated_shard(copy, keep):
    shard, reader = copy
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(CorruptDataError, match=r"truncated|is empty|does not match"):
        reader().read_field()
    with pytest.raises(CorruptDataError):
        reader().read_symbols()


def test_changed_bytes(copy):
    shard, reader = copy
    good = shard.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(good), 20):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        shard.write_bytes(bad)
        with pytest.raises(CorruptDataError):
            reader().read_field()
