"""Chips that share stores: each decodes as if it had its own, and a run that ends early or goes wrong catalogues whole stores or nothing."""

from __future__ import annotations

import json
import math
import shutil
import threading
import warnings

import numpy as np
import pystac
import pytest
import xarray as xr
import zarr
from core_support import check, make_scene, scene_field, small_codec

from stac_latent import encode, load, search, verify
from stac_latent.catalog.encode import run as module
from stac_latent.catalog.tree import CatalogTree
from stac_latent.codec.shipped import lin
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, CorruptDataError, SkippedWarning, VerificationError
from stac_latent.store.zarr import pack as packing
from stac_latent.store.zarr.chips import StoredArray
from stac_latent.store.zarr.group import open_arrays
from stac_latent.store.zarr.pack import pack_chips
from stac_latent.system.files import tree_size
from stac_latent.system.links import local_path

SHAPE = (40, 48)


def chip(folder, i, shape=SHAPE, name=None, **options):
    """A scene beside the others; of cells that begin with its pixels."""
    origin = (600_000 + 80 * 8 * i, 5_100_000)
    return make_scene(folder, scene_field(shape, i, **options), name=name or f"s{i}", origin=origin).item


@pytest.fixture
def chips(tmp_path):
    return [chip(tmp_path / "raw", i) for i in range(4)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A catalogue that is read alone."""
    folder = tmp_path_factory.mktemp("made")
    encode([chip(folder / "raw", i) for i in range(4)], small_codec(), folder / "cat", pack=10)
    return folder / "cat"


@pytest.fixture
def copied(made, tmp_path):
    """A copy of it to be damaged."""
    return shutil.copytree(made, tmp_path / "cat")


def items_of(dest):
    return sorted(search(str(dest / "catalog.json")), key=lambda item: item.id)


def stores(dest):
    return sorted((dest / "scenes").glob("*.zarr"))


def fields_of(item):
    return item.assets["latent"].extra_fields


def catalogued(dest):
    return sorted(item.id for item in search(str(dest / "catalog.json")))


def left_over(dest):
    return [p for p in dest.rglob(".*") if p.suffix in (".part", ".old")]


def all_is_well(dest):
    rows = verify(str(dest / "catalog.json"), full=True)
    assert [row.problems for row in rows] == [[]] * len(rows)
    assert all(row.compared for row in rows)
    assert left_over(dest) == []
    return len(rows)


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        (lambda: lin(small_codec().bands, step=32.0), {}),
        (small_codec, {}),
    ],
    ids=["lin", "dct"],
)
def test_a_chip_decodes_as_if_it_had_its_own_store(chips, tmp_path, codec, options):
    alone = encode(chips, codec(), tmp_path / "alone", **options)
    packed = encode(chips, codec(), tmp_path / "packed", pack=10, **options)
    (store,) = stores(tmp_path / "packed")
    assert [fields_of(item)["latent:chip_index"] for item in packed] == [0, 1, 2, 3]
    assert len({item.assets["latent"].href for item in packed}) == 1
    for one, other in zip(alone, packed, strict=True):
        check(other)
        readers = LatentReader.open(one), LatentReader.open(other)
        np.testing.assert_array_equal(*(r.read_field() for r in readers))
        np.testing.assert_array_equal(*(r.read_latent() for r in readers))
        np.testing.assert_array_equal(*(r.read_field(((3, 21), (9, 30))) for r in readers))
        same = ("latent:psnr", "latent:max_error", "latent:shape", "proj:transform", "latent:input_digest")
        assert {k: fields_of(one)[k] for k in same} == {k: fields_of(other)[k] for k in same}
    sizes = [fields_of(item)["file:size"] for item in packed]
    assert 0 <= sum(sizes) - tree_size(store) < len(sizes)
    assert sum(sizes) < sum(fields_of(item)["file:size"] for item in alone) / 2
    for item, size in zip(packed, sizes, strict=True):
        assert item.properties["latent:bits_per_pixel"] == pytest.approx(size * 8 / (2 * SHAPE[0] * SHAPE[1]))
    assert all_is_well(tmp_path / "packed") == 4


def test_an_embedding(tmp_path):
    import rasterio

    scenes = []
    for i in range(3):
        field = scene_field((64, 64), i)
        scene = make_scene(
            tmp_path / "raw", np.concatenate([field, field]), name=f"s{i}", keys=("B02", "B03", "B04", "B08")
        )
        scenes.append(scene.item)
    with rasterio.open(scenes[0].assets["B02"].href, "r+") as file:
        file.write(np.zeros((1, 24, 64), "uint16"), window=rasterio.windows.Window(0, 0, 64, 24))
    alone = encode(scenes, "s2-10m-embed", tmp_path / "alone")
    packed = encode(scenes, "s2-10m-embed", tmp_path / "packed", pack=3)
    for one, other in zip(alone, packed, strict=True):
        np.testing.assert_array_equal(
            LatentReader.open(one).read_latent(), LatentReader.open(other).read_latent()
        )
    assert np.isnan(LatentReader.open(packed[0]).read_latent()).any()
    assert all_is_well(tmp_path / "packed") == 3


def test_zarr_alone_opens_a_store_of_plain_chips(chips, tmp_path):
    items = encode(chips, small_codec(), tmp_path / "cat", pack=10, payload="plain")
    (store,) = stores(tmp_path / "cat")
    with xr.open_zarr(store) as found:
        assert dict(found.latent.sizes) == {"chip": 4, "channel": 128, "y": 5, "x": 6}
        assert found.attrs["latent:items"] == [item.id for item in items]
        for i, item in enumerate(items):
            np.testing.assert_array_equal(found.latent[i], LatentReader.open(item).read_symbols())
            assert found.transform[i].values.tolist() == list(LatentReader.open(item).grid.cell_transform)


def test_stores_are_shared_by_chips_of_one_shape(tmp_path):
    shapes = [SHAPE, (48, 48), SHAPE, (48, 48), SHAPE]
    scenes = [chip(tmp_path / "raw", i, shape) for i, shape in enumerate(shapes)]
    items = encode(scenes, small_codec(), tmp_path / "cat", pack=4)
    assert [item.id for item in items] == ["s0", "s1", "s2", "s3", "s4"]
    assert [fields_of(item)["latent:chip_index"] for item in items] == [0, 0, 1, 1, 0]
    assert len(stores(tmp_path / "cat")) == 3
    assert all_is_well(tmp_path / "cat") == 5


def test_a_chip_of_several_tiles_and_shards_of_several_files(tmp_path):
    scenes = [chip(tmp_path / "raw", i, (264, 600)) for i in range(3)]
    codec = lin(small_codec().bands, step=32.0)
    items = encode(scenes, codec, tmp_path / "cat", pack=3)
    assert all_is_well(tmp_path / "cat") == 3
    alone = encode(scenes, codec, tmp_path / "alone")
    xr.testing.assert_equal(load(items, bands=["red"]).compute(), load(alone, bands=["red"]).compute())
    own = [local_path(item.assets["latent"].get_absolute_href()) for item in alone]
    latent = StoredArray.open(own[0] / "latent")
    *_, last = latent.places()
    assert last != (0, 0, 0)
    one = 4 * math.prod((n + 1) * c for n, c in zip(last, latent.chunks, strict=True))
    pack_chips(tmp_path / "some.zarr", own, ["a", "b", "c"], shard_bytes=2 * one)
    assert sorted(p.name for p in (tmp_path / "some.zarr" / "latent" / "c").iterdir()) == ["0", "1"]
    for i, store in enumerate(own):
        found, expected = open_arrays(str(tmp_path / "some.zarr"), chip=i), open_arrays(str(store))
        assert found.payloads.read(*last[1:]) == expected.payloads.read(*last[1:])
        np.testing.assert_array_equal(found.read_all(found.mask), expected.read_all(expected.mask))
    text = r"items of 128 x \d+ x \d+ values are too large to share a store; encode them without pack= \(--pack\)"
    with pytest.raises(CatalogError, match=text):
        pack_chips(tmp_path / "none.zarr", own, ["a", "b", "c"], shard_bytes=one - 1)


def test_masks_are_those_of_the_chip(tmp_path):
    scenes = [chip(tmp_path / "raw", i) for i in range(3)]
    whole = scene_field(SHAPE, 9)
    whole[whole == 0] = 500
    scenes.append(make_scene(tmp_path / "raw", whole, name="whole").item)
    items = encode(scenes, small_codec(), tmp_path / "cat", pack=4)
    bits = [fields_of(item)["latent:mask_chunks"] for item in items]
    assert bits == ["80", "80", "80", "00"]
    assert LatentReader.open(items[3]).arrays.mask is None  # and is not asked for
    for scene, item in zip(scenes, items, strict=True):
        import rasterio

        with rasterio.open(scene.assets["red"].href) as file:
            np.testing.assert_array_equal(LatentReader.open(item).read_field()[0] == 0, file.read(1) == 0)


# -- runs that end early, or go wrong --------------------------------------------------------------------------------------


def encoding(monkeypatch, failing=None, error=None):
    """Ids of what is encoded; ``error`` is raised at one of them."""
    done, honest = [], module.write

    def write(job, *args):
        name = job.sources[0].item.id
        done.append(name)
        if name == failing:
            raise error
        return honest(job, *args)

    monkeypatch.setattr(module, "write", write)
    return done


def test_an_interrupted_run_keeps_what_is_done_and_goes_on(chips, tmp_path, monkeypatch):
    dest = tmp_path / "cat"
    with monkeypatch.context() as patch:
        encoding(patch, "s2", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as caught:
            encode(chips, small_codec(), dest, pack=10)
    assert "2 of 4 items are encoded and catalogued in" in caught.value.__notes__[0]
    assert catalogued(dest) == ["s0", "s1"]
    assert all_is_well(dest) == 2
    before = stores(dest)
    done = encoding(monkeypatch)
    items = encode(chips, small_codec(), dest, pack=10)
    assert done == ["s2", "s3"]
    assert [item.id for item in items] == ["s0", "s1", "s2", "s3"]
    assert len(stores(dest)) == 2
    assert set(before) < set(stores(dest))
    assert all_is_well(dest) == 4
    assert encode(chips, small_codec(), dest, pack=10)[3].id == "s3"
    assert done == ["s2", "s3"]


def test_one_bad_chip_does_not_end_the_run(chips, tmp_path):
    path = local_path(chips[1].assets["nir"].href)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.warns(SkippedWarning, match="item 's1'"):
        items = encode(chips, small_codec(), tmp_path / "cat", pack=10, on_error="skip")
    assert [item.id for item in items] == ["s0", "s2", "s3"]
    assert [fields_of(item)["latent:chip_index"] for item in items] == [0, 1, 2]
    assert all_is_well(tmp_path / "cat") == 3
    with pytest.raises(CatalogError, match="item 's1'"):
        encode(chips, small_codec(), tmp_path / "raised", pack=10)
    assert catalogued(tmp_path / "raised") == ["s0"]


@pytest.mark.parametrize("moment", ["gathered", "placed", "linked"])
def test_a_store_is_catalogued_with_its_items_or_not_at_all(chips, tmp_path, monkeypatch, moment):
    dest = tmp_path / "cat"
    encode(chips[:1], small_codec(), dest, pack=10)
    before = {p: p.read_bytes() for p in sorted(dest.rglob("*")) if p.is_file() and p.suffix != ".lock"}
    with monkeypatch.context() as patch:
        place, name = {
            "gathered": (module, "gather"),
            "placed": (CatalogTree, "add_together"),
            "linked": (CatalogTree, "_update_collection"),
        }[moment]
        patch.setattr(place, name, _full_disk)
        with pytest.raises(CatalogError, match="No space left on device"):
            encode(chips[1:], small_codec(), dest, pack=10)
    now = {p: p.read_bytes() for p in sorted(dest.rglob("*")) if p.is_file() and p.suffix != ".lock"}
    assert now == before
    assert len(encode(chips, small_codec(), dest, pack=10)) == 4
    assert all_is_well(dest) == 4


def _full_disk(*_args, **_options):
    raise OSError(28, "No space left on device")


def test_what_is_read_back_has_to_be_what_was_gathered(chips, tmp_path, monkeypatch):
    honest = packing._write_shard

    def faulty(path, *args):
        honest(path, *args)
        data = bytearray(path.read_bytes())
        data[5] ^= 1
        path.write_bytes(bytes(data))

    monkeypatch.setattr(packing, "_write_shard", faulty)
    with pytest.raises(VerificationError, match="latent is not what was written; nothing was catalogued"):
        encode(chips, small_codec(), tmp_path / "cat", pack=10)
    assert stores(tmp_path / "cat") == []


def test_stores_that_no_item_has_are_swept(chips, tmp_path):
    """A killed run leaves one that was put in place and not catalogued; a replaced one has no chip in use."""
    dest = tmp_path / "cat"
    encode(chips[:2], small_codec(), dest, pack=10)
    (used,) = stores(dest)
    shutil.copytree(used, used.with_name("latent-0123456789ab.zarr"))
    other = used.with_name("other.zarr")
    other.mkdir()
    encode(chips, small_codec(), dest, pack=10)
    assert used in stores(dest)
    assert other in stores(dest)  # it is none of ours
    assert len(stores(dest)) == 3
    encode(chips[:2], small_codec(step=77.0), dest, pack=10, overwrite=True)
    encode(chips[0], small_codec(step=77.0), dest, pack=10)
    assert len(stores(dest)) == 3
    assert used not in stores(dest)
    assert all_is_well(dest) == 4


def test_two_writers(chips, tmp_path):
    dest, codec = tmp_path / "cat", small_codec()
    threads = [
        threading.Thread(target=encode, args=(part, codec, dest), kwargs={"pack": 2})
        for part in (chips[:3], chips[1:])
    ]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # filters are the process's, and a thread puts back those of the other
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert catalogued(dest) == ["s0", "s1", "s2", "s3"]
    assert all_is_well(dest) == 4


# -- damage, and what does not go together -----------------------------------------------------------------------------------


def test_damage_is_told(copied):
    (store,) = stores(copied)
    shard = store / "latent" / "c" / "0" / "0" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    found = {row.item: row.problems for row in verify(str(copied / "catalog.json"), raw=False)}
    assert sum(map(bool, found.values())) == 1
    shard.write_bytes(whole[:-1])
    (row, *_) = verify(str(copied / "catalog.json"), raw=False)
    assert "the index of" in row.problems[0]
    assert "it was truncated or changed, write the store again" in row.problems[0]
    shard.unlink()
    with pytest.raises(CorruptDataError, match="is missing; the store is incomplete"):
        LatentReader.open(items_of(copied)[0]).read_field()


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (4, r"holds 4 chips; the item declares latent:chip_index 4, counted from 0"),
        (None, r"must be an array \(channel, y, x\) of numbers; it holds 4 chips: open the Item of one"),
    ],
)
def test_an_index_that_the_store_has_not(made, index, text):
    item = items_of(made)[0]
    fields_of(item)["latent:chip_index"] = index
    if index is None:
        del fields_of(item)["latent:required_features"]
    with pytest.raises(CorruptDataError, match=text):
        LatentReader.open(item).read_field()


@pytest.mark.parametrize("index", [-1, 1.0, "1", True, 2**40])
def test_an_index_that_is_none(made, index):
    item = items_of(made)[0]
    fields_of(item)["latent:chip_index"] = index
    with pytest.raises(
        CatalogError, match=r"latent:chip_index of asset 'latent' is .*; expected 0, 1, \.\.\."
    ):
        LatentReader.open(item)


def test_the_transform_of_the_store_is_that_of_the_item(copied):
    (store,) = stores(copied)
    zarr.open_group(str(store), mode="r+")["transform"][1, 2] = 7.0
    found = {row.item: row.problems for row in verify(str(copied / "catalog.json"), raw=False)}
    text = "transform of the store is not that of the item's grid"
    assert [name for name, problems in found.items() if text in problems] == ["s1"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pack": 0}, "pack=0; expected the number of items in a store, 1 to 16384"),
        ({"pack": True}, "pack=True; expected the number of items"),
        ({"pack": 2, "references": "auto"}, r"do not go with references \(--references\): leave out either"),
        ({"pack": 2, "error_bound": 1}, r"do not go with error_bound \(--error-bound\)"),
    ],
)
def test_what_does_not_go_together(chips, tmp_path, options, text):
    with pytest.raises(CatalogError, match=text):
        encode(chips, small_codec(), tmp_path / "cat", **options)
    assert not (tmp_path / "cat").exists()


# -- elsewhere -----------------------------------------------------------------------------------------------------------


def test_a_chip_on_a_server_is_one_range(chips, tmp_path, monkeypatch, short_pauses):
    from servers.files import FileServer

    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path / "cache"))
    local = encode(chips[1:], lin(small_codec().bands, step=32.0), tmp_path / "cat", pack=10)
    with FileServer(tmp_path / "cat") as server:
        items = sorted(search(f"{server.url}/catalog.json"), key=lambda item: item.id)
        LatentReader.open(items[0]).read_field()
        server.requests.clear()
        got = LatentReader.open(items[2]).read_field()
        asked = [r.range for r in server.requests if "/latent/" in r.path]
        assert len(asked) == 1
        assert not asked[0].startswith("bytes=-")
    np.testing.assert_array_equal(got, LatentReader.open(local[2]).read_field())


def test_from_a_shell_and_through_a_table(run, chips, tmp_path):
    pystac.ItemCollection(chips).save_object("scenes.json")
    code, out, _ = run(
        "encode", "scenes.json", "out", "--codec", "dct", "--bands", "red,nir", "--pack", "3", "--json"
    )
    assert code == 0
    assert [row["id"] for row in json.loads(out)["items"]] == ["s0", "s1", "s2", "s3"]
    assert run("search", "out/catalog.json", "--out", "chips.parquet")[0] == 0
    assert run("verify", "chips.parquet")[0] == 0
    code, _, err = run(
        "encode",
        "scenes.json",
        "out",
        "--codec",
        "dct",
        "--bands",
        "red,nir",
        "--pack",
        "3",
        "--references",
        "auto",
    )
    assert code != 0
    assert "do not go with references" in err
