"""Many Items, several writers: one bad Item is left out and named, nobody's work is lost, what the source says now is taken over."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pystac
import pytest
from core_support import BANDS, make_scene, scene_field, small_codec

from stac_latent import encode, search
from stac_latent.catalog import ItemOutcome
from stac_latent.catalog.tree import CatalogTree
from stac_latent.cli.guard_messages import saying
from stac_latent.codec.shipped import lin
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, SkippedWarning
from stac_latent.extension import LatentExtension
from stac_latent.secure import Key
from stac_latent.system.digests import multihash
from stac_latent.system.locks import locked


def scenes_in(folder, count, shape=(40, 48)):
    return [make_scene(folder, scene_field(shape, i), name=f"s{i}").item for i in range(count)]


def cut_short(asset):
    path = Path(asset.href)
    path.write_bytes(path.read_bytes()[:2000])


def found(dest):
    return sorted(i.id for i in search(str(dest / "catalog.json")))


# -- one bad Item ---------------------------------------------------------------------------------------------------


def test_a_broken_item_is_a_row_and_the_others_are_encoded(run, tmp_path):
    """A truncated file and one of other bytes than its checksum says, among two good ones: named, and exit code 1."""
    scenes = [make_scene(tmp_path / "raw", scene_field((48, 64), i), name=f"s{i}").item for i in range(4)]
    cut = Path(scenes[1].assets["nir"].href)
    cut.write_bytes(cut.read_bytes()[:2000])
    scenes[2].assets["red"].extra_fields["file:checksum"] = "1220" + "0" * 64
    pystac.ItemCollection(scenes).save_object("scenes.json")
    words = ("encode", "scenes.json", "out", "--codec", "zstd", "--bands", "red,nir")
    code, out, err = run(*words, "--json")
    found = json.loads(out)
    assert code == 1
    assert [r["id"] for r in found["items"]] == ["s0", "s3"]
    assert [r["item"] for r in found["failed"]] == ["s1", "s2"]
    assert "item 's1'" in found["failed"][0]["error"]
    assert "s1-nir.tif cannot be read" in found["failed"][0]["error"]
    assert (
        f"s2-red.tif has checksum {multihash(Path('raw/s2-red.tif').read_bytes())}"
        in found["failed"][1]["error"]
    )
    assert "space" not in err
    assert "2 of 4 could not be done:" in err
    assert err.rstrip().splitlines()[-1].startswith("failed s2: CorruptDataError: item 's2'")
    assert [r["id"] for r in json.loads(run("search", "out/catalog.json", "--json")[1])["items"]] == [
        "s0",
        "s3",
    ]
    code, _, err = run(*words, "--stop-at-error", "--overwrite")
    assert code == 1
    assert err.startswith("error CatalogError: item 's1'")


def test_resume_links_what_nothing_links(run, tmp_path):
    scenes = [make_scene(tmp_path / "raw", scene_field((48, 64), i), name=f"s{i}").item for i in range(2)]
    pystac.ItemCollection(scenes).save_object("scenes.json")
    words = ("encode", "scenes.json", "out", "--codec", "zstd", "--bands", "red,nir")
    assert run(*words)[0] == 0
    collection = tmp_path / "out/scenes/collection.json"
    doc = json.loads(collection.read_text())
    lost = doc | {"links": [link for link in doc["links"] if "s1" not in link["href"]]}
    collection.write_text(json.dumps(lost))
    code, out, _ = run("verify", "out/catalog.json", "--json")
    assert code == 1
    (row,) = (r for r in json.loads(out)["assets"] if r["problems"])
    assert row["item"] == str(tmp_path / "out/scenes/s1/s1.json")
    assert row["problems"][0].startswith("nothing in the catalogue links to it")
    assert run(*words, "--resume")[0] == 0
    assert [link["href"] for link in json.loads(collection.read_text())["links"]] == [
        k["href"] for k in doc["links"]
    ]
    assert run("verify", "out/catalog.json")[0] == 0


def test_skip_or_raise(tmp_path):
    scenes, codec = scenes_in(tmp_path / "raw", 3), small_codec("zstd")
    cut_short(scenes[1].assets["red"])
    with pytest.raises(CatalogError, match=r"item 's1'.*s1-red\.tif cannot be read"):
        encode(scenes, codec, tmp_path / "a")
    assert found(tmp_path / "a") == ["s0"]
    with pytest.warns(SkippedWarning, match="'s1' was left out: CatalogError: item 's1'") as said:
        items = encode(scenes, codec, tmp_path / "b", on_error="skip")
    assert [w.message.name for w in said if w.category is SkippedWarning] == ["s1"]
    assert [i.id for i in items] == found(tmp_path / "b") == ["s0", "s2"]
    assert not (tmp_path / "b" / "scenes" / "s1").exists()
    with pytest.raises(CatalogError, match="on_error='ignore'; expected 'raise' or 'skip'"):
        encode(scenes, codec, tmp_path / "b", on_error="ignore")


def test_every_error_names_its_item(tmp_path):
    """Also those of metadata: an asset without a grid among good ones."""
    scenes = scenes_in(tmp_path / "raw", 2)
    Path(scenes[1].assets["nir"].href).unlink()
    with pytest.raises(CatalogError, match="item 's1'"):
        encode(scenes, small_codec("zstd"), tmp_path / "cat")


def test_dates_of_a_key_frame_that_was_left_out(tmp_path):
    """A plan of key frames is made of the Items that can be read."""
    scenes = scenes_in(tmp_path / "raw", 3, (64, 64))
    for day, scene in enumerate(scenes):
        scene.datetime += dt.timedelta(days=day)
    Path(scenes[0].assets["red"].href).write_bytes(b"no raster")
    with pytest.warns(SkippedWarning, match="'s0' was left out"):
        items = encode(scenes, lin(BANDS, step=24.0), tmp_path / "cat", references=3, on_error="skip")
    assert [i.id for i in items] == ["s1", "s2"]


def test_a_full_disk_ends_the_run(tmp_path, monkeypatch):
    import errno

    from stac_latent.catalog import tree
    from stac_latent.errors import VerificationError

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tree, "write_whole", full)
    with pytest.raises(VerificationError, match="Free some space"):
        encode(scenes_in(tmp_path / "raw", 2), small_codec("zstd"), tmp_path / "cat", on_error="skip")


# -- what the source says ---------------------------------------------------------------------------------------------


def moved(scene):
    """The same id, reprocessed: another time, place, cloud cover and other files."""
    new = make_scene(
        Path(scene.assets["red"].href).parent / "new",
        scene_field((40, 48), 9),
        name=scene.id,
        origin=(600000, 5200000),
    ).item
    new.datetime = dt.datetime(2025, 2, 2, tzinfo=dt.UTC)
    new.properties["eo:cloud_cover"] = 3
    return new


def test_overwrite_replaces_the_facts_and_keeps_other_latents(tmp_path):
    (scene,) = scenes_in(tmp_path / "raw", 1)
    scene.properties["note"] = "old"
    encode(scene, small_codec("zstd"), tmp_path / "cat", asset="a")
    encode(scene, small_codec("dct"), tmp_path / "cat", asset="b")
    new = moved(scene)
    (item,) = encode(new, small_codec("dct"), tmp_path / "cat", asset="b", overwrite=True)
    assert (item.datetime, item.bbox) == (new.datetime, pytest.approx(new.bbox))
    assert item.geometry == json.loads(json.dumps(new.geometry))
    assert item.properties["eo:cloud_cover"] == 3
    assert "note" not in item.properties
    assert item.assets["red"].get_absolute_href() == new.assets["red"].href
    assert list(item.assets) == ["red", "nir", "a", "thumbnail", "b"]
    np.testing.assert_array_equal(LatentReader.open(item, "a").read_field(), scene_field((40, 48), 0))
    assert [i.id for i in search(str(tmp_path / "cat/catalog.json"), bbox=new.bbox)] == ["s0"]
    decoders = [link.extra_fields["latent:space"] for link in item.links if link.rel == "latent:decoder"]
    assert decoders == [item.assets[k].extra_fields["latent:space"] for k in "ab"]


def test_overwrite_with_another_codec_leaves_no_link_to_the_old_one(tmp_path):
    (scene,) = scenes_in(tmp_path / "raw", 1)
    encode(scene, small_codec("zstd"), tmp_path / "cat")
    (item,) = encode(scene, small_codec("dct"), tmp_path / "cat", overwrite=True)
    (link,) = (link for link in item.links if link.rel == "latent:decoder")
    assert link.extra_fields["latent:space"] == item.assets["latent"].extra_fields["latent:space"]


@pytest.mark.parametrize("mode", ["beside", "derived"])
def test_corrected_metadata_of_equal_pixels_are_taken_over(tmp_path, mode, monkeypatch):
    import stac_latent.catalog.encode.run as module

    (scene,) = scenes_in(tmp_path / "raw", 1)
    (first,) = encode(scene, small_codec("zstd"), tmp_path / "cat", mode=mode)
    path = Path(first.get_self_href())
    before = path.read_bytes()
    monkeypatch.setattr(module, "write", None)  # no pixel is encoded again
    encode(scene, small_codec("zstd"), tmp_path / "cat", mode=mode)
    assert path.read_bytes() == before
    scene.datetime = dt.datetime(2023, 3, 3, tzinfo=dt.UTC)
    scene.properties |= {"eo:cloud_cover": 12, "gsd": 10.0}
    (item,) = encode(scene, small_codec("zstd"), tmp_path / "cat", mode=mode)
    assert (item.datetime, item.properties["eo:cloud_cover"]) == (scene.datetime, 12)
    assert item.assets["latent"].extra_fields["gsd"] == 10.0
    doc = json.loads(path.read_text())
    doc["properties"] |= {
        k: v for k, v in json.loads(before)["properties"].items() if k in ("updated", "datetime")
    }
    for name in ("eo:cloud_cover", "gsd"):
        del doc["properties"][name]
    for place in (doc["assets"]["latent"], *doc["assets"]["latent"]["bands"]):
        assert place.pop("gsd") == 10.0
    assert doc == json.loads(before)


# -- several writers ----------------------------------------------------------------------------------------------------


WRITER = """
import sys, pystac
from stac_latent.catalog import ItemOutcome
from stac_latent.catalog.tree import CatalogTree
from stac_latent.cli.guard_messages import saying
from stac_latent.codec.shipped import lin
from pathlib import Path
for path in sys.argv[2:]:
    CatalogTree(Path(sys.argv[1])).add(pystac.Item.from_file(path))
"""


def test_processes_and_threads_lose_no_link(tmp_path):
    scenes = scenes_in(tmp_path / "raw", 24, (4, 4))
    for scene in scenes:
        LatentExtension.ext(scene, add_if_missing=True)
        scene.save_object(include_self_link=False)
    paths = [str(s.get_self_href()) for s in scenes]
    words = [sys.executable, "-c", WRITER, str(tmp_path / "cat")]
    running = [subprocess.Popen([*words, *paths[k:12:2]]) for k in range(2)]

    def add(part):
        for scene in part:
            CatalogTree(tmp_path / "cat").add(scene)

    threads = [threading.Thread(target=add, args=(scenes[12 + k :: 2],)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.wait() for p in running] == [0, 0]
    links = json.loads((tmp_path / "cat/scenes/collection.json").read_text())["links"]
    assert sorted(link["title"] for link in links if link["rel"] == "item") == sorted(s.id for s in scenes)
    assert not list((tmp_path / "cat").glob(".*"))


@pytest.mark.filterwarnings("ignore")  # Python's switch for warnings is one for all threads
def test_two_writers_of_one_item_keep_both_latents(tmp_path):
    (scene,) = scenes_in(tmp_path / "raw", 1)
    problems = []

    def write(key):
        try:
            encode(scene, small_codec("zstd"), tmp_path / "cat", asset=key)
        except CatalogError as exc:
            problems.append(exc)

    threads = [threading.Thread(target=write, args=(key,)) for key in ("a", "b", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    (item,) = search(str(tmp_path / "cat/catalog.json"))
    assert {"a", "b"} < set(item.assets)
    for key in "ab":
        np.testing.assert_array_equal(LatentReader.open(item, key).read_field(), scene_field((40, 48), 0))
    assert not list((tmp_path / "cat").rglob(".*"))


def test_a_lock_that_is_held_is_an_error_after_a_while(tmp_path):
    path, held, done = tmp_path / "catalog.json", threading.Event(), threading.Event()

    def hold():
        with locked(path):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    text = (
        rf"{tmp_path} is being written by process \d+ on .* for more than 0.1 seconds; wait for it or end it"
    )
    with pytest.raises(CatalogError, match=text), locked(path, wait=0.1):
        pass
    done.set()
    thread.join()
    with locked(path, wait=0.1), locked(path, wait=0.1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = "import os, sys; from pathlib import Path; from stac_latent.system.locks import locked\nwith locked(Path(sys.argv[1])): os._exit(9)"
    assert (
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "catalog.json")], check=False).returncode
        == 9
    )
    assert [p.name for p in tmp_path.iterdir()] == [".catalog.json.lock"]
    with locked(tmp_path / "catalog.json", wait=0.1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unlinked_files_are_seen_and_others_are_not(tmp_path):
    encode(scenes_in(tmp_path / "raw", 2), small_codec("zstd"), tmp_path / "cat")
    tree = CatalogTree(tmp_path / "cat")
    assert list(tree.unlinked()) == []
    for path in (tree.path, tree.root / "scenes/collection.json"):
        doc = json.loads(path.read_text())
        doc["links"] = [link for link in doc["links"] if link["rel"] not in ("item", "child")]
        path.write_text(json.dumps(doc))
    assert [p.name for p in tree.unlinked()] == ["collection.json", "s0.json", "s1.json"]


def test_an_interrupt_says_how_to_go_on(tmp_path):
    scenes, calls = scenes_in(tmp_path / "raw", 3), []

    def interrupt(label, _done, _total):
        calls.append(label)
        if label == "encode" and calls.count("encode") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        encode(scenes, small_codec("zstd"), tmp_path / "cat", progress=interrupt)
    assert "1 of 3 items are encoded and catalogued" in caught.value.__notes__[0]
    assert found(tmp_path / "cat") == ["s0"]
    encode(scenes, small_codec("zstd"), tmp_path / "cat")
    assert found(tmp_path / "cat") == ["s0", "s1", "s2"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_is_interrupted_says_how_far_it_came(run, tmp_path, monkeypatch, number, code):
    import stac_latent.catalog.encode.run as module

    honest, calls = module.write, []

    def interrupted(*args, **options):
        calls.append(1)
        made = honest(*args, **options)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return made

    before = signal.getsignal(number)
    pystac.ItemCollection(scenes_in(tmp_path / "raw", 3)).save_object("scenes.json")
    monkeypatch.setattr(module, "write", interrupted)
    words = ("encode", "scenes.json", "out", "--codec", "zstd", "--bands", "red,nir")
    got, _, err = run(*words)
    assert got == code
    assert (
        "interrupted: 1 of 3 are done and in out, and nothing half-written is kept; run the same command again"
        in err
    )
    assert signal.getsignal(number) == before
    assert found(tmp_path / "out") == ["s0"]
    assert not list((tmp_path / "out").rglob(".*"))
    assert run(*words)[0] == 0
    assert found(tmp_path / "out") == ["s0", "s1", "s2"]


def test_a_dead_link_and_a_broken_item_of_the_source(run, tmp_path):
    """They are named as what cannot be encoded is, and the others are encoded."""
    encode(scenes_in(tmp_path / "raw", 3), small_codec("zstd"), tmp_path / "source")
    (tmp_path / "source/scenes/s0/s0.json").unlink()
    (tmp_path / "source/scenes/s1/s1.json").write_text('{"type": "Feat')
    words = ("encode", "source/catalog.json", "out", "--codec", "zstd", "--bands", "red,nir", "--asset", "b")
    code, out, err = run(*words, "--json")
    assert code == 1
    result = json.loads(out)
    assert [r["id"] for r in result["items"]] == ["s2"]
    assert [Path(r["item"]).name for r in result["failed"]] == ["s0.json", "s1.json"]
    assert "2 of 3 could not be done:" in err
    code, out, err = run(*words, "--stop-at-error", "--overwrite")
    assert (code, out) == (1, "")
    assert "s0.json" in err


KILLED = """
import os, sys, pystac
sys.path.insert(0, sys.argv[3])
from core_support import small_codec
from stac_latent import encode
from stac_latent.catalog import ItemOutcome
from stac_latent.catalog.tree import CatalogTree
from stac_latent.cli.guard_messages import saying
CatalogTree.add = lambda *_: os._exit(9)
encode(pystac.Item.from_file(sys.argv[1]), small_codec("dct"), sys.argv[2], overwrite=True)
"""


def test_killed_between_the_new_store_and_its_item(tmp_path):
    """The store that the Item describes comes back with the next run."""
    (scene,) = scenes_in(tmp_path / "raw", 1)
    scene.save_object(include_self_link=False)
    encode(scene, small_codec("zstd"), tmp_path / "cat")
    words = [scene.get_self_href(), tmp_path / "cat", Path(__file__).parents[1]]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], check=False)
    assert done.returncode == 9
    (item,) = encode(scene, small_codec("zstd"), tmp_path / "cat")
    np.testing.assert_array_equal(LatentReader.open(item).read_field(), scene_field((40, 48), 0))
    assert not list((tmp_path / "cat").rglob(".*.old"))


# -- a Collection that grows -----------------------------------------------------------------------------------------


def bare(count):
    when = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    return [pystac.Item(f"i{n}", square, [0, 0, 1, 1], when, {}, collection="c") for n in range(count)]


def linked(tree):
    path = tree.root / "c" / "collection.json"
    links = json.loads(path.read_text(encoding="utf-8"))["links"] if path.exists() else []
    return [link["title"] for link in links if link["rel"] == "item"]


def test_a_collection_is_written_once_for_a_share_of_its_items(tmp_path, monkeypatch):
    tree, sizes = CatalogTree(tmp_path), []
    update = CatalogTree._update_collection
    monkeypatch.setattr(
        CatalogTree,
        "_update_collection",
        lambda self, *args: (sizes.append(len(args[0])), update(self, *args))[1],
    )
    with tree.gathering():
        for i, item in enumerate(bare(300)):
            assert tree.add(item).id == item.id
            assert tree.find(item.id, "c").id == item.id
            assert len(linked(tree)) >= i + 1 - (i + 1) / 60  # who looks at it meanwhile misses the last few
    assert linked(tree) == [f"i{n}" for n in range(300)]
    assert not list(tree.unlinked())
    assert sum(sizes) == 300
    assert len(sizes) < 190  # 64 one by one, then fewer and fewer
    tree.add(bare(301)[-1])
    assert linked(tree)[-1] == "i300"


def test_an_error_links_what_is_written(tmp_path):
    tree, items = CatalogTree(tmp_path), bare(103)

    def cut_short():
        with tree.gathering():
            for item in items:
                tree.add(item)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert len(linked(tree)) == 103


def test_a_collection_that_cannot_be_written_leaves_no_item_of_that_add(tmp_path, monkeypatch):
    tree, items = CatalogTree(tmp_path), bare(3)

    def full(*_args):
        raise OSError(28, "No space left on device")

    with tree.gathering():
        tree.add(items[0])
        with monkeypatch.context() as patch:
            patch.setattr(CatalogTree, "_update_collection", full)
            with pytest.raises(OSError, match="No space left"):
                tree.add(items[1])
        assert tree.find("i1", "c") is None
        tree.add(items[2])
    assert linked(tree) == ["i0", "i2"]


def test_the_last_links_fail(tmp_path, monkeypatch):
    tree = CatalogTree(tmp_path)

    def full(*_args):
        raise OSError(28, "No space left on device")

    def add():
        with tree.gathering():
            for item in bare(70):
                tree.add(item)
            monkeypatch.setattr(CatalogTree, "_update_collection", full)

    with pytest.raises(
        CatalogError, match=r"their collection cannot be: .*No space left.*; run the same again to link them"
    ):
        add()
    assert [p.stem for p in tree.unlinked()] == ["i69"]


# -- several runs ----------------------------------------------------------------------------------------------------


def test_shards_are_the_whole(run, tmp_path):
    pystac.ItemCollection(scenes_in(tmp_path / "raw", 5)).save_object("scenes.json")
    words = ("encode", "scenes.json", "--codec", "zstd", "--bands", "red,nir", "--json")
    assert run(*words, "whole")[0] == 0
    parts = [json.loads(run(*words, "cat", "--shard", f"{k}/3")[1])["items"] for k in (1, 2, 3)]
    assert sorted(row["id"] for part in parts for row in part) == found(tmp_path / "whole")
    assert found(tmp_path / "cat") == found(tmp_path / "whole")
    assert max(map(len, parts)) < 5
    for name in found(tmp_path / "cat"):
        chunks = [tmp_path / c / "scenes" / name / "latent.zarr" / "zarr.json" for c in ("cat", "whole")]
        assert chunks[0].read_bytes() == chunks[1].read_bytes()
    code, out, err = run(*words, "none", "--shard", "400/1000")
    assert (code, json.loads(out)["items"]) == (0, [])
    assert "shard 400 of 1000: 0 of 5 items" in err


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0", "1/3/5"])
def test_a_shard_that_is_none(run, tmp_path, shard):
    pystac.ItemCollection(scenes_in(tmp_path / "raw", 1)).save_object("scenes.json")
    code, _, err = run("encode", "scenes.json", "cat", "--shard", shard)
    assert code == 2
    assert "--shard is a run and the number of runs, as 3/16, counted from 1" in " ".join(
        err.replace("│", " ").split()
    )


# -- workers ---------------------------------------------------------------------------------------------------------


def everything_in(folder):
    """Contents of the files of a catalogue but for when they were written."""
    stamp = re.compile(rb'"(created|updated)": "[^"]*"')
    return {
        str(p.relative_to(folder)): stamp.sub(b"", p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def test_workers_write_what_one_process_does(tmp_path):
    scenes = scenes_in(tmp_path / "raw", 5)
    encode(scenes, lin(bands=BANDS), tmp_path / "alone", psnr=40)
    steps = []
    with ThreadPoolExecutor(3) as pool:
        items = encode(
            scenes,
            lin(bands=BANDS),
            tmp_path / "cat",
            psnr=40,
            executor=pool,
            progress=lambda *at: steps.append(at),
        )
    assert [i.id for i in items] == [s.id for s in scenes]
    assert everything_in(tmp_path / "cat") == everything_in(tmp_path / "alone")
    assert steps[-1] == ("items", 5, 5)


def test_jobs_of_the_command_name_what_fails(run, tmp_path):
    scenes = scenes_in(tmp_path / "raw", 3)
    cut_short(scenes[1].assets["nir"])
    pystac.ItemCollection(scenes).save_object("scenes.json")
    words = ("encode", "scenes.json", "out", "--codec", "zstd", "--bands", "red,nir", "--json", "--jobs", "2")
    code, out, _ = run(*words)
    result = json.loads(out)
    assert code == 1
    assert [r["id"] for r in result["items"]] == ["s0", "s2"] == found(tmp_path / "out")
    assert [r["item"] for r in result["failed"]] == ["s1"]
    assert "s1-nir.tif cannot be read" in result["failed"][0]["error"]


def test_errors_of_workers(tmp_path):
    scenes = scenes_in(tmp_path / "raw", 3)
    cut_short(scenes[1].assets["nir"])
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(CatalogError, match=r"item 's1': .*s1-nir\.tif cannot be read as a raster"):
            encode(scenes, small_codec("zstd"), tmp_path / "cat", executor=pool)
        assert found(tmp_path / "cat") == ["s0"]
        for option, text in (
            ({"references": 2}, r"workers \(executor=, --jobs\) do not go with references"),
            ({"pack": 2}, r"workers \(executor=, --jobs\) do not go with pack"),
            ({"key": Key(bytes(32))}, r"a key is not handed to workers: give key= the path of a key file"),
        ):
            with pytest.raises(CatalogError, match=text):
                encode(scenes, lin(bands=BANDS), tmp_path / "none", executor=pool, **option)


class _Killed(Executor):
    """An executor the workers of which are killed after the first batch."""

    def __init__(self):
        self.count = 0

    def submit(self, work, *args):
        self.count += 1
        future = Future()
        if self.count > 1:
            future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        else:
            future.set_result(work(*args))
        return future


def test_a_worker_that_is_killed(tmp_path):
    scenes = scenes_in(tmp_path / "raw", 3)
    with pytest.raises(
        CatalogError,
        match=r"a worker ended without an answer \(a process was terminated abruptly\): it was killed",
    ):
        encode(scenes, small_codec("zstd"), tmp_path / "cat", executor=_Killed(), on_error="skip")
    assert found(tmp_path / "cat") == ["s0"]
    assert not list(tmp_path.glob("cat/**/.*"))
    encode(scenes, small_codec("zstd"), tmp_path / "cat")
    assert found(tmp_path / "cat") == ["s0", "s1", "s2"]


# -- reports ----------------------------------------------------------------------------------------------------------


def states(path):
    doc = json.loads(Path(path).read_text())
    return doc["state"], {row["id"]: row["state"] for row in doc["items"]}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_report_has_a_row_for_each_item_and_what_failed_is_tried_again(run, tmp_path, jobs):
    """A row says what became of an Item; the file that was put right is the only one that is encoded again."""
    scenes = scenes_in(tmp_path / "raw", 3)
    sound = Path(scenes[1].assets["nir"].href).read_bytes()
    cut_short(scenes[1].assets["nir"])
    pystac.ItemCollection(scenes).save_object("scenes.json")
    words = ("encode", "scenes.json", "out", "--codec", "zstd", "--bands", "red,nir", "--report", "r.json")
    assert run(*words, "--jobs", str(jobs))[0] == 1
    assert states("r.json") == ("finished", {"s0": "done", "s1": "failed", "s2": "done"})
    doc = json.loads(Path("r.json").read_text())
    (failed,) = (row for row in doc["items"] if row["state"] == "failed")
    assert (doc["total"], doc["done"], doc["skipped"], doc["failed"]) == (3, 2, 0, 1)
    assert failed["error"]["type"] == "CatalogError"
    assert "s1-nir.tif cannot be read" in failed["error"]["message"]
    assert run(*words)[0] == 1
    assert states("r.json") == ("finished", {"s0": "skipped", "s1": "failed", "s2": "skipped"})
    Path(scenes[1].assets["nir"].href).write_bytes(sound)
    assert run(*words, "--retry-failed", "r.json")[0] == 0
    assert states("r.json") == ("finished", {"s1": "done"})
    assert found(Path("out")) == ["s0", "s1", "s2"]
    code, _, err = run(*words, "--retry-failed", "r.json")
    assert (code, "no item failed in r.json" in err) == (1, True)
    assert run(*words, "--resume")[0] == 0
    assert states("r.json")[1] == dict.fromkeys(("s0", "s1", "s2"), "skipped")


def test_a_run_that_ends_early_is_reported(run, tmp_path, monkeypatch):
    """The error that ends a run is a row; of an interrupted run there are the rows so far."""
    scenes = scenes_in(tmp_path / "raw", 3)
    cut_short(scenes[1].assets["nir"])
    pystac.ItemCollection(scenes).save_object("scenes.json")
    words = ("encode", "scenes.json", "out", "--codec", "zstd", "--bands", "red,nir", "--report", "r.json")
    assert run(*words, "--stop-at-error")[0] == 1
    assert states("r.json") == ("failed", {"s0": "done", "s1": "failed"})

    def stopped(*_args):
        raise KeyboardInterrupt

    outcomes = [ItemOutcome("s0", None, "done"), ItemOutcome("s1", None, "failed", error=CatalogError("no"))]
    with pytest.raises(KeyboardInterrupt) as caught, saying(outcomes, 3, "out"):
        stopped()
    assert caught.value.__notes__[0].startswith("1 of 3 are done and in out")
    monkeypatch.setattr(CatalogTree, "add", stopped)
    assert run(*words)[0] != 0
    assert states("r.json") == ("interrupted", {"s0": "skipped", "s1": "failed"})


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "no JSON",
        '{"type": "Feature", "items": []}',
        '{"type": "stac-latent encode report", "items": [{"id": [1]}]}',
    ],
)
def test_what_is_no_report_is_neither_replaced_nor_retried(run, tmp_path, text):
    pystac.ItemCollection(scenes_in(tmp_path / "raw", 1)).save_object("scenes.json")
    Path("other.json").write_text(text)
    words = ("encode", "scenes.json", "out", "--codec", "zstd", "--bands", "red,nir")
    for option in ("--report", "--retry-failed"):
        code, _, err = run(*words, option, "other.json")
        assert code == 1
        assert "other.json is no report of encode; name a file that encode --report wrote" in err
    assert Path("other.json").read_text() == text
    assert not Path("out/catalog.json").exists()


def test_chips_that_share_a_store_have_outcomes(tmp_path):
    scenes, outcomes = scenes_in(tmp_path / "raw", 3), []
    encode(scenes, small_codec(), tmp_path / "out", pack=2, outcomes=outcomes)
    encode(scenes, small_codec(), tmp_path / "out", pack=2, outcomes=outcomes)
    assert [o.state for o in outcomes] == ["done"] * 3 + ["skipped"] * 3
    assert all(Path(o.href).is_file() for o in outcomes)
