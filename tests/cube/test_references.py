"""Dates against key frames: round trips, what is refused, what a window costs, and that the catalogue says it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pystac
import pytest
import xarray as xr
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from load_support import BANDS, NOON, pixel_grid, stock_item, write_tiff

import stac_latent
from stac_latent.codec.shipped import dct, lin
from stac_latent.cube import asset_choice
from stac_latent.cube.keyframe.choose import choose_key_frames
from stac_latent.cube.keyframe.decode import open_key_frame
from stac_latent.cube.keyframe.gains import LEVELS, best_gains, predict
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, CodecError, CorruptDataError, GridError
from stac_latent.system.threads import LruCache
from stac_latent.validation import validate

SCHEMAS = Path(__file__).parents[3] / "shared" / "schemas"
SHAPE = (400, 212)
STEP = 24.0


def codec():
    return lin(BANDS, step=STEP)


def ground(shape=SHAPE, seed=0):
    """What all dates share: rough enough to cost bytes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 2000 + 3 * x + 2 * y + 300 * np.sin(x / 9) + rng.normal(0, 250, (len(BANDS), *shape))


def date(base, day, kind="clear"):
    rng = np.random.default_rng(day + 100)
    field = base * (1 + 0.02 * day) + rng.normal(0, 10, base.shape)
    if kind == "cloudy":
        field = 8000 + rng.normal(0, 400, base.shape)
    if kind == "half":
        field[:, : base.shape[1] // 2] = 8000 + rng.normal(
            0, 400, (len(base), base.shape[1] // 2, base.shape[2])
        )
    out = np.clip(np.rint(field), 1, 20000).astype(np.uint16)
    out[:, :20, :30] = 0
    return out


def scenes(folder, kinds, shape=SHAPE, **place):
    folder.mkdir(parents=True, exist_ok=True)
    items, fields = [], []
    for day, kind in enumerate(kinds):
        field, grid = date(ground(shape), day, kind), pixel_grid(shape, **place)
        path = folder / f"d{day}.tif"
        write_tiff(path, field, grid)
        items.append(stock_item(f"d{day}", path, grid, when=NOON + dt.timedelta(days=5 * day)))
        fields.append(field)
    return items, fields


def sizes(items):
    return [item.assets["latent"].extra_fields["file:size"] for item in items]


def href_of(item):
    return item.assets["latent"].get_absolute_href()


def frames(items):
    return [item.assets["latent"].extra_fields.get("latent:reference_item") for item in items]


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Four dates, the third cloudy: encoded alone, and against key frames."""
    folder = tmp_path_factory.mktemp("series")
    items, fields = scenes(folder / "raw", ["clear", "clear", "cloudy", "clear"])
    alone = stac_latent.encode([i.clone() for i in items], codec(), folder / "alone")
    auto = stac_latent.encode([i.clone() for i in items], codec(), folder / "auto", references="auto")
    return folder, items, fields, alone, auto


@pytest.fixture
def copied(series, tmp_path):
    """The catalogue with references, to be spoiled; its Items."""
    shutil.copytree(series[0] / "auto", tmp_path / "auto")
    root = tmp_path / "auto"
    return root, {p.stem: pystac.Item.from_file(str(p)) for p in root.glob("*/d*/d*.json")}


# -- gains ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 24), min_size=LEVELS, max_size=LEVELS), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_gains_are_found_again(true, seed):
    rng = np.random.default_rng(seed)
    reference = rng.normal(0, 500, (2 * 64, 12, 12)).astype(np.float32)
    latent = predict(reference, np.array(true, np.uint8)) + rng.normal(0, 1, reference.shape).astype(
        np.float32
    )
    found, share = best_gains(latent, reference, step=10.0)
    assert np.abs(found.astype(int) - true).max() <= 1
    assert share <= 1


def test_a_reference_that_says_nothing_is_switched_off():
    rng = np.random.default_rng(0)
    latent, other = rng.normal(0, 500, (2, 3 * 64, 16, 16)).astype(np.float32)
    gains, share = best_gains(latent, other, step=10.0)
    assert gains.max() <= 1
    assert share > 0.99


def test_cells_without_data_do_not_count():
    rng = np.random.default_rng(1)
    reference = rng.normal(0, 500, (64, 8, 8)).astype(np.float32)
    latent, cells = reference.copy(), np.zeros((8, 8), bool)
    latent[:, 4:] = rng.normal(0, 5000, (64, 4, 8))
    cells[:4] = True
    assert best_gains(latent, reference, 10.0, cells)[0].tolist() == [16] * LEVELS
    assert best_gains(latent, reference, 10.0)[0].max() < 16


def test_gains_of_constant_tiles():
    flat = np.zeros((64, 4, 4), np.float32)
    gains, share = best_gains(flat, flat, 10.0)
    assert (gains.tolist(), share) == ([0] * LEVELS, 1.0)


# -- key frames ----------------------------------------------------------------------------------------------------


def test_key_frames_are_those_that_make_the_sum_small():
    bits = np.full((5, 5), 100.0)
    bits[[0, 1, 2], [1, 1, 1]], bits[1, 1] = 40, 100
    bits[2, 1], bits[4, 3] = 40, 30
    bits[0, 2] = 90
    assert choose_key_frames(bits) == [1, None, 1, None, 3]
    assert choose_key_frames(bits, most=1) == [1, None, 1, None, None]


def test_where_no_reference_helps_all_stand_alone():
    assert choose_key_frames(np.full((3, 3), 7.0)) == [None] * 3
    assert choose_key_frames(np.ones((1, 1))) == [None]


def test_the_cloudy_date_stands_alone_and_the_others_shrink(series):
    _, _, _, alone, auto = series
    assert frames(auto)[2] is None
    assert sizes(auto)[2] == sizes(alone)[2]
    key = next(i for i in (0, 1, 3) if frames(auto)[i] is None)
    assert {frames(auto)[i] for i in (0, 1, 3) if i != key} == {f"d{key}"}
    assert all(sizes(auto)[i] < 0.75 * sizes(alone)[i] for i in (0, 1, 3) if i != key)


def test_one_key_frame_in_each_run_of_dates(series, tmp_path):
    items = [i.clone() for i in series[1]]
    found = stac_latent.encode(items[::-1], codec(), tmp_path / "c", references=2)
    assert [i.id for i in found] == ["d3", "d2", "d1", "d0"]
    by_id = dict(zip([i.id for i in found], frames(found), strict=True))
    assert sum(f is not None for f in by_id.values()) == 1
    assert {by_id["d0"], by_id["d1"]} in ({"d0", None}, {"d1", None})
    assert by_id["d2"] is by_id["d3"] is None


def test_later_dates_against_a_catalogued_key_frame(series, tmp_path):
    _, items, fields, alone, _ = series
    (first,) = stac_latent.encode(items[0].clone(), codec(), tmp_path / "c")
    key = pystac.Item.from_file(first.get_self_href())
    (second,) = stac_latent.encode(items[1].clone(), codec(), tmp_path / "c", references=key)
    assert frames([second]) == ["d0"]
    assert sizes([second])[0] < 0.75 * sizes(alone)[1]
    link = second.get_single_link("latent:reference")
    assert link.to_dict(transform_href=False)["href"] == "../d0/d0.json"
    error = LatentReader.open(second).read_field().astype(int) - fields[1]
    assert np.abs(error).max() < 4 * STEP


def test_the_best_of_several_key_frames(series, tmp_path):
    """A cloudy one, one of another grid, one that refers to another, and one that fits."""
    _, items, _, alone, _ = series
    moved, _ = scenes(tmp_path / "raw", ["clear"], left=400_060.0)
    moved[0].id = "moved"
    first = stac_latent.encode([items[2].clone(), items[0].clone(), moved[0]], codec(), tmp_path / "c")
    (second,) = stac_latent.encode(items[1].clone(), codec(), tmp_path / "c", references=first)
    assert frames([second]) == ["d0"]
    (third,) = stac_latent.encode(items[3].clone(), codec(), tmp_path / "c", references=[second, *first])
    assert frames([third]) == ["d0"]
    assert sizes([third])[0] < 0.8 * sizes(alone)[3]
    (none,) = stac_latent.encode(items[3].clone(), codec(), tmp_path / "d", references=first[:1])
    assert frames([none]) == [None]


# -- what is decoded -----------------------------------------------------------------------------------------------


def test_decoded_pixels_are_as_good_and_nodata_is_kept(series):
    _, _, fields, alone, auto = series
    for field, a, b in zip(fields, alone, auto, strict=True):
        decoded = LatentReader.open(b).read_field()
        assert ((decoded == 0) == (field == 0)).all()
        assert b.properties["latent:psnr"] > a.properties["latent:psnr"] - 1.5
        worst = int(np.abs(decoded.astype(int) - field)[field > 0].max())
        assert worst == b.properties["latent:max_error"]


def test_chunk_by_chunk_is_the_whole(series):
    auto = series[4]
    item = next(i for i in auto if frames([i])[0])
    whole = LatentReader.open(item).read_field()
    reader = LatentReader.open(item)
    rng = np.random.default_rng(3)
    for _ in range(6):
        y0, x0 = rng.integers(0, SHAPE[0] - 40), rng.integers(0, SHAPE[1] - 40)
        y1, x1 = y0 + rng.integers(1, 40), x0 + rng.integers(1, 40)
        assert (reader.read_field(((y0, y1), (x0, x1))) == whole[:, y0:y1, x0:x1]).all()
    block, _ = reader.decode_block(((0, SHAPE[0]), (0, SHAPE[1])))
    assert (block == whole).all()
    latents = reader.read_latent()
    assert (reader.read_latent(((2, 37), (20, 25))) == latents[:, 2:37, 20:25]).all(
        where=~np.isnan(latents[:, 2:37, 20:25])
    )
    assert np.abs(latents[0][~np.isnan(latents[0])]).max() > 1000  # the latent, not what is stored of it


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["near", "far", "flat"]),
)
@example(0, 41, 41, "flat")
@settings(max_examples=12, deadline=None)
def test_round_trip_of_any_two_dates(seed, h, w, kind):
    from stac_latent.cube.keyframe.encode import ReferenceCoder

    rng = np.random.default_rng(seed)
    cells = (-(-h // 8), -(-w // 8))
    shape = (len(BANDS), 8 * cells[0], 8 * cells[1])
    first = rng.integers(1, 9000, shape).astype(np.uint16)
    second = {
        "near": first + rng.integers(0, 9, shape),
        "far": rng.integers(1, 65535, shape),
        "flat": np.full(shape, 7),
    }[kind]
    chain = codec()
    latents = [chain.encode(f.astype(np.uint16), upto="symbols") for f in (first, second)]
    key = MemoryKey(chain, latents[0])
    coder = ReferenceCoder(key, (1, 1))
    stored, payload = coder.code(chain, latents[1], (0, 0), np.ones(cells, bool))
    restored = chain.entropy_decode(payload)
    used = coder.gains.any()
    if used:
        restored = restored + predict(key.chunk(0, 0)[0], coder.gains[:, 0, 0])
    else:
        assert (stored == latents[1]).all()
    assert len(payload) <= len(chain.entropy_encode(latents[1]))
    assert np.abs(restored - latents[1]).max() < 3 * STEP
    if kind == "near":
        assert used or first.size < 1000


class MemoryKey:
    """A key frame of one chunk that was never written."""

    def __init__(self, chain, latent):
        self.latent = chain.entropy_decode(chain.entropy_encode(latent))

    def chunk(self, *_):
        return self.latent, 1


def test_targets_are_met_against_key_frames(series, tmp_path):
    _, items, *_ = series
    clear = [items[i].clone() for i in (0, 1)]
    for name, target in (("a", {"psnr": 46.0}), ("b", {"max_error": 150.0})):
        plain = stac_latent.encode([i.clone() for i in clear], codec(), tmp_path / name / "alone", **target)
        found = stac_latent.encode(
            [i.clone() for i in clear], codec(), tmp_path / name / "auto", references="auto", **target
        )
        assert sum(sizes(found)) < 0.9 * sum(sizes(plain))
        for item, same in zip(found, plain, strict=True):
            if "psnr" in target:  # peaks are the ranges of whole tiles, not of what is left of them
                assert item.properties["latent:psnr"] == pytest.approx(
                    same.properties["latent:psnr"], abs=0.2
                )
            else:
                assert item.properties["latent:max_error"] <= target["max_error"]


def test_at_a_fixed_rate_quality_rises(series, tmp_path):
    _, items, *_ = series
    clear = [items[i].clone() for i in (0, 1)]
    options = {"max_bits_per_pixel": 1.0}
    plain = stac_latent.encode([i.clone() for i in clear], codec(), tmp_path / "alone", **options)
    found = stac_latent.encode(
        [i.clone() for i in clear], codec(), tmp_path / "auto", references=2, **options
    )
    k = next(i for i in (0, 1) if frames(found)[i])
    assert found[k].properties["latent:psnr"] > plain[k].properties["latent:psnr"] + 1


def test_half_a_cloud_switches_off_half_of_the_chunks(tmp_path):
    shape = (512, 256)
    items, _ = scenes(tmp_path / "raw", ["clear", "half"], shape, left=400_000.0, top=5_099_520.0)
    (first,) = stac_latent.encode(items[0], codec(), tmp_path / "c")
    (second,) = stac_latent.encode(items[1], codec(), tmp_path / "c", references=first)
    gains = np.asarray(zarr.open_group(href_of(second), mode="r")["reference_gain"])
    assert gains.any(axis=0).sum() < gains[0].size
    assert gains.any()


# -- loading -------------------------------------------------------------------------------------------------------


def test_what_saves_less_than_the_gains_take_stands_alone(tmp_path):
    items, _ = scenes(tmp_path / "raw", ["clear", "clear"], (24, 32))
    alone = stac_latent.encode([i.clone() for i in items], codec(), tmp_path / "alone")
    found = stac_latent.encode(items, codec(), tmp_path / "auto", references="auto")
    assert frames(found) == [None, None]
    assert sizes(found) == sizes(alone)
    assert not list((tmp_path / "auto").glob("*/d*/latent.zarr/reference_*"))


def test_load_and_the_xarray_engine(series):
    _, _, _, _, auto = series
    cube = stac_latent.load(auto, chunks={"x": 100, "y": 100}).compute()
    for t, item in enumerate(auto):
        expected = LatentReader.open(item).read_field()
        assert (np.stack([cube[b.name].values[t] for b in BANDS]) == expected).all()
    item = next(i for i in auto if frames([i])[0])
    expected = LatentReader.open(item).read_field()
    for what in (item.get_self_href(), href_of(item)):
        opened = xr.open_dataset(what, engine="stac-latent")
        assert (opened["B03"].values == expected[1]).all()


def test_the_dask_token_knows_the_reference(series):
    item = next(i for i in series[4] if frames([i])[0])
    ref = LatentRef.from_item(item)
    moved = item.clone()
    moved.set_self_href(item.get_self_href())
    link = moved.get_single_link("latent:reference")
    link.target = "../other/other.json"
    other = LatentRef.from_item(moved)
    first, second = (
        asset_choice.driver_data(i, r, "field", [0])["subdataset"] for i, r in ((item, ref), (item, other))
    )
    assert first != second


def test_a_window_costs_its_chunks_and_those_of_the_key_frame(series, monkeypatch):
    from zarr.storage import LocalStore

    from stac_latent.store.zarr.open_store import LocalFiles

    item = next(i for i in series[4] if frames([i])[0])
    read = []
    get = LocalStore.get

    async def counted(self, key, prototype=None, byte_range=None):
        found = await get(self, key, prototype, byte_range)
        if found is not None:
            read.append((Path(str(self.root)).parent.name, key, len(found)))
        return found

    part = LocalFiles.read

    def counted_part(self, key, byte_range):
        found = part(self, key, byte_range)
        read.append((Path(str(self._store.root)).parent.name, key, len(found)))
        return found

    monkeypatch.setattr(LocalStore, "get", counted)
    monkeypatch.setattr(LocalFiles, "read", counted_part)
    monkeypatch.setattr("stac_latent.cube.keyframe.decode._cache", LruCache(0))
    reader = LatentReader.open(item)
    reader.read_field(((0, 4), (60, 64)))
    chunks = [(who, n) for who, key, n in read if key.startswith(("latent/c/", "difference/c/"))]
    key = frames([item])[0]
    # of each store the index of the shard and one chunk
    assert [who for who, _ in chunks] == [item.id] * 2 + [key] * 2
    side = sum(n for who, name, n in read if who == item.id and name.startswith("reference_"))
    assert side < 200
    before = len(read)
    reader.read_field(((390, 394), (0, 4)))
    later = [(who, name) for who, name, _ in read[before:] if name.startswith(("latent/c/", "difference/c/"))]
    assert sorted({who for who, _ in later}) == sorted({item.id, key})


def test_chunks_that_stand_alone_do_not_fetch_the_key_frame(tmp_path, monkeypatch):
    shape = (512, 256)
    items, _ = scenes(tmp_path / "raw", ["clear", "half"], shape, left=400_000.0, top=5_099_520.0)
    (first,) = stac_latent.encode(items[0], codec(), tmp_path / "c")
    (second,) = stac_latent.encode(items[1], codec(), tmp_path / "c", references=first)
    shutil.rmtree(Path(href_of(first)) / "latent" / "c")
    monkeypatch.setattr("stac_latent.cube.keyframe.decode._cache", LruCache(0))
    reader = LatentReader.open(second)
    quiet = ~np.asarray(reader.arrays.reference[0]).any(axis=0)
    y, x = (int(v[0]) for v in np.nonzero(quiet))
    assert reader.read_field(((256 * y + 100, 256 * y + 105), (256 * x + 100, 256 * x + 105))).any()
    with pytest.raises(CorruptDataError, match="is missing; the store is incomplete"):
        reader.read_field()


# -- what is refused -----------------------------------------------------------------------------------------------


def test_missing_key_frame(copied):
    root, items = copied
    item = next(i for i in items.values() if frames([i])[0])
    shutil.rmtree(next(root.glob(f"*/{frames([item])[0]}")))
    with pytest.raises(
        CatalogError,
        match=r"the key frame .* cannot be read, and what was coded against it is not decoded without it",
    ):
        LatentReader.open(item).read_field()


def test_missing_link_and_missing_gains(copied):
    _, items = copied
    item = next(i for i in items.values() if frames([i])[0])
    bare = item.clone()
    bare.set_self_href(item.get_self_href())
    bare.clear_links("latent:reference")
    with pytest.raises(
        CatalogError, match="has no latent:reference link with latent:asset 'latent': restore the link"
    ):
        LatentReader.open(bare)
    unsaid = item.clone()
    unsaid.set_self_href(item.get_self_href())
    del unsaid.assets["latent"].extra_fields["latent:reference_item"]
    with pytest.raises(
        CatalogError,
        match=r"asset 'latent' of item '\w+' says in latent:required_features that it needs 'difference', and has no latent:reference",
    ):
        LatentReader.open(unsaid)
    del unsaid.assets["latent"].extra_fields["latent:required_features"]
    with pytest.raises(
        CorruptDataError, match="the store says that it was coded against a key frame, and the item does not"
    ):
        LatentReader.open(unsaid).read_field()
    said = next(i for i in items.values() if not frames([i])[0]).clone()
    said.set_self_href(item.get_self_href())
    said.assets["latent"].extra_fields["latent:reference_item"] = "d0"
    said.add_link(item.get_single_link("latent:reference").clone())
    assert "latent:asset" not in said.get_single_link("latent:reference").extra_fields
    with pytest.raises(
        CorruptDataError, match="the item says that it was coded against a key frame, and the store does not"
    ):
        LatentReader.open(said).read_field()


def test_a_lost_chunk_of_gains_is_no_gain_of_zero(copied):
    _, items = copied
    item = next(i for i in items.values() if frames([i])[0])
    shutil.rmtree(Path(href_of(item)) / "reference_gain" / "c")
    with pytest.raises(
        CorruptDataError,
        match="a chunk of reference_gain is missing, without which differences would pass for",
    ):
        LatentReader.open(item).read_field()


def test_a_key_frame_that_was_written_anew_is_noticed(series, copied, monkeypatch):
    root, items = copied
    item = next(i for i in items.values() if frames([i])[0])
    raw = next(i for i in series[1] if i.id == frames([item])[0])
    stac_latent.encode(raw.clone(), codec(), root, overwrite=True)  # the same bytes: nothing happens
    expected = LatentReader.open(next(i for i in series[4] if i.id == item.id)).read_field()
    assert (LatentReader.open(item).read_field() == expected).all()
    stac_latent.encode(raw.clone(), codec(), root, overwrite=True, psnr=40)
    monkeypatch.setattr("stac_latent.cube.keyframe.decode._cache", LruCache(0))
    with pytest.raises(
        CorruptDataError, match="the key frame was written anew; encode the dates that refer to it again"
    ):
        LatentReader.open(item).read_field()


def test_a_moved_lattice_is_refused(series, tmp_path):
    _, items, *_ = series
    (key,) = stac_latent.encode(items[0].clone(), codec(), tmp_path / "c")
    moved, _ = scenes(tmp_path / "raw", ["clear", "clear"], left=400_060.0)
    with pytest.raises(GridError, match="do not have the same cells"):
        stac_latent.encode(moved[1], codec(), tmp_path / "c", references=key)
    assert not list((tmp_path / "c").glob("*/d1"))


def test_a_key_frame_in_other_chunks_is_refused(series):
    item = series[3][0]
    reader = LatentReader.open(item)
    frame = open_key_frame(reader.ref, reader.grid, reader.codec)
    frame.check_chunks(reader.arrays.latent.chunks[1:])
    with pytest.raises(
        GridError,
        match=r"is cut into chunks of \(\d+, \d+\) cells, the date of \(9, 9\): encode the key frame again",
    ):
        frame.check_chunks((9, 9))


def test_dates_of_other_grids_stand_alone(series, tmp_path):
    moved, _ = scenes(tmp_path / "raw", ["clear", "clear"], left=400_060.0)
    found = stac_latent.encode([series[1][0].clone(), moved[1]], codec(), tmp_path / "c", references="auto")
    assert frames(found) == [None, None]


def test_another_space_is_refused(series, tmp_path):
    (key,) = stac_latent.encode(series[1][0].clone(), codec(), tmp_path / "c")
    with pytest.raises(CatalogError, match="a date is coded against latents of its own space"):
        stac_latent.encode(series[1][1].clone(), lin(BANDS, step=99), tmp_path / "c", references=key)


def test_references_are_never_chained(series, tmp_path):
    _, items, *_ = series
    (key,) = stac_latent.encode(items[0].clone(), codec(), tmp_path / "c")
    (second,) = stac_latent.encode(items[1].clone(), codec(), tmp_path / "c", references=key)
    with pytest.raises(CatalogError, match="item 'd0' cannot be its own key frame"):
        stac_latent.encode(items[0].clone(), codec(), tmp_path / "c", references=key, overwrite=True)
    with pytest.raises(CorruptDataError, match="references are never chained"):
        stac_latent.encode(items[3].clone(), codec(), tmp_path / "c", references=second)


def test_codecs_without_wavelet_latents_and_plain_payloads_are_refused(series, tmp_path):
    item = series[1][0].clone()
    with pytest.raises(CodecError, match=r"codec 'dct' .* cannot code dates against a key frame"):
        stac_latent.encode(item, dct(BANDS), tmp_path / "c", references="auto")
    with pytest.raises(CatalogError, match="need payload='coded'"):
        stac_latent.encode(item, codec(), tmp_path / "c", payload="plain", references="auto")
    for wrong in (1, "always", True, 2.5):
        with pytest.raises(CatalogError, match="expected 'auto', a number of dates from 2 on, or Items"):
            stac_latent.encode(item, codec(), tmp_path / "c", references=wrong)
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").glob("*/d*"))


# -- the documents -------------------------------------------------------------------------------------------------


def test_items_validate(series):
    for item in series[4]:
        problems = [str(p) for p in validate(item, SCHEMAS if SCHEMAS.exists() else None)]
        assert [p for p in problems if "[unavailable" not in p] == []
    item = next(i for i in series[4] if frames([i])[0])
    link = next(
        link for link in item.to_dict(transform_hrefs=False)["links"] if link["rel"] == "latent:reference"
    )
    assert link["latent:asset"] == "latent"
    assert link["latent:space"] == codec().space


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.update(links=[x for x in d["links"] if x["rel"] != "latent:reference"]), "links"),
        (lambda d: _link(d).pop("latent:asset"), "latent:asset"),
        (lambda d: _link(d).pop("latent:space"), "latent:space"),
        (
            lambda d: _link(d).update({"latent:asset": "other"}),
            "no latent:reference link has latent:asset 'latent'",
        ),
        (lambda d: d["assets"]["latent"].pop("latent:bitstream"), "latent:bitstream"),
        (lambda d: d["links"][0].update({"latent:asset": "latent"}), "links/0"),
    ],
)
def test_what_the_schema_rejects(series, spoil, message):
    document = json.loads(Path(next(i for i in series[4] if frames([i])[0]).get_self_href()).read_text())
    assert not _problems(document)
    spoil(document)
    assert any(message in p for p in _problems(document)), _problems(document)


def _link(document):
    return next(link for link in document["links"] if link["rel"] == "latent:reference")


def _problems(document):
    return [
        p
        for p in map(str, validate(document, SCHEMAS if SCHEMAS.exists() else None))
        if "[unavailable" not in p
    ]


def test_encoding_a_date_alone_again_drops_the_link(copied, series):
    root, items = copied
    item = next(i for i in items.values() if frames([i])[0])
    raw = next(i for i in series[1] if i.id == item.id)
    (again,) = stac_latent.encode(raw.clone(), codec(), root, overwrite=True)
    assert frames([again]) == [None]
    assert again.get_single_link("latent:reference") is None


def test_the_store_opens_by_itself_and_says_what_it_is(series):
    item = next(i for i in series[4] if frames([i])[0])
    open_codec(item)
    group = xr.open_zarr(href_of(item), consolidated=True)
    assert set(group.data_vars) >= {"difference", "reference_gain", "reference_crc"}
    assert "latent" not in group  # a difference is not given for latents
    assert group.attrs["latent"]["required_features"] == ["difference"]
    assert group["reference_gain"].dims == ("level", "tile_y", "tile_x")
    assert group.attrs["latent:reference_store"].endswith(f"{frames([item])[0]}/latent.zarr")
    document = json.loads((Path(href_of(item)) / "difference" / "zarr.json").read_text())
    own = document["codecs"][0]["configuration"]["codecs"][0]["configuration"]
    assert own["reference"] == group.attrs["latent:reference_store"]
    whole = xr.open_dataset(href_of(item), engine="stac-latent")["B02"].values
    assert (whole == stac_latent.load(item, bands=["B02"])["B02"].squeeze("time").values).all()


def test_features_that_are_not_known_are_refused(copied):
    _, items = copied
    item = next(i for i in items.values() if frames([i])[0])
    fields = item.assets["latent"].extra_fields
    assert fields["latent:required_features"] == ["difference"]
    fields["latent:required_features"] = ["difference", "hologram"]
    said = r"needs a reader that knows 'hologram' \({}\), and this version knows difference, residual, encryption, sparse_fallback, chips"
    for read in (stac_latent.load, LatentReader.open, open_codec, stac_latent.publish):
        with pytest.raises(CatalogError, match="item 'd.' " + said.format("latent:required_features")):
            read(item, *(["out.parquet"] if read is stac_latent.publish else []))
    document = item.to_dict(transform_hrefs=False)
    problems = _problems(document)
    assert any("is not one of" in p for p in problems)
    assert any("this version knows difference" in p for p in problems)
    path = Path(href_of(item)) / "zarr.json"
    group = json.loads(path.read_text())
    group["attributes"]["latent"]["required_features"] = ["hologram"]
    path.write_text(json.dumps(group))
    fields["latent:required_features"] = ["difference"]
    with pytest.raises(CatalogError, match=said.format(r"latent\.required_features")):
        LatentReader.open(item).read_field()
    with pytest.raises(CatalogError, match=said.format(r"latent\.required_features")):
        xr.open_dataset(href_of(item), engine="stac-latent")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"prediction": "left"},
            "has 'prediction' in its configuration, and this version knows space, bitstream, part, reference: ",
        ),
        ({"reference": 3}, "declares reference 3; expected the address of a store"),
    ],
)
def test_the_zarr_codec_refuses_what_it_does_not_know(config, message):
    from stac_latent.store.zarr.codec import LatentZarrCodec

    own = {"space": codec().space, "bitstream": "stac-latent-lin-1", **config}
    with pytest.raises(CorruptDataError, match=message):
        LatentZarrCodec.from_dict({"name": "stac_latent", "configuration": own})


@pytest.mark.parametrize("where", ["item", "store"])
def test_a_bitstream_that_is_not_known_is_refused(copied, where):
    _, items = copied
    item = next(i for i in items.values() if not frames([i])[0])
    if where == "item":
        item.assets["latent"].extra_fields["latent:bitstream"] = "stac-latent-lin-2"
        with pytest.raises(
            CatalogError,
            match="of bitstream 'stac-latent-lin-2', and the codec of its space, 'lin', reads 'stac-",
        ):
            LatentReader.open(item).read_field()
        return
    path = Path(href_of(item)) / "zarr.json"
    path.write_text(path.read_text().replace("stac-latent-lin-1", "stac-latent-lin-2"))
    open_codec(item)
    with pytest.raises(
        CodecError,
        match="a chunk is of bitstream 'stac-latent-lin-2', and the codec 'lin' of its space reads 'stac-",
    ):
        xr.open_zarr(href_of(item), consolidated=True)["latent"].load()


def test_command_line(series, tmp_path, monkeypatch, capsys):
    import sys

    from stac_latent.cli import main

    collection = tmp_path / "items.json"
    collection.write_text(
        json.dumps(pystac.ItemCollection([series[1][0], series[1][1]]).to_dict(transform_hrefs=False))
    )
    codec_folder = next((series[0] / "auto" / "codecs").iterdir())

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["stac-latent", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = exc.code or 0
        return code, capsys.readouterr()

    code, out = run(
        "encode", collection, tmp_path / "c", "--codec", codec_folder, "--references", "auto", "--json"
    )
    assert code == 0, out.err
    found = [pystac.Item.from_file(str(p)) for p in sorted((tmp_path / "c").glob("*/d*/d*.json"))]
    assert sorted(f is None for f in frames(found)) == [False, True]
    code, out = run(
        "encode", collection, tmp_path / "d", "--codec", codec_folder, "--references", "sometimes"
    )
    assert code == 2
    assert "auto, a number, or an item or catalogue" in " ".join(out.err.replace("│", " ").split())
