"""A view that encodes what is asked for: once, in whichever thread or process, into a folder that keeps its size."""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from core_support import make_scene, scene_field

import stac_latent.catalog.on_demand as module
from stac_latent import encode, load, on_demand, open_codec, search, verify
from stac_latent.catalog.cost import read_downloads
from stac_latent.errors import CatalogError
from stac_latent.system.files import tree_size


@pytest.fixture
def scenes(tmp_path):
    return [make_scene(tmp_path / "raw", scene_field((40, 48), i), name=f"s{i}").item for i in range(4)]


@pytest.fixture
def counted(monkeypatch):
    ids = []

    def spy(item, *args, **options):
        ids.append(item.id)
        return encode(item, *args, **options)

    monkeypatch.setattr(module, "encode", spy)
    return ids


def opened():
    return open_codec("zstd", bands=["red", "nir"])


def aged(view, item_id, seconds):
    path = view.tree.item_path(item_id, view.raw[item_id].collection_id)
    then = time.time() - seconds
    os.utime(path, (then, then))


def ids_in(folder):
    return sorted(i.id for i in search(str(folder / "catalog.json")))


def test_nothing_is_encoded_before_it_is_asked_for_and_nothing_twice(scenes, tmp_path, counted):
    view = on_demand(scenes, opened(), tmp_path / "cache")
    assert (list(view), len(view), counted) == (["s0", "s1", "s2", "s3"], 4, [])
    cube = load(view.items(["s2", "s0"]))
    again = load(view["s2"])
    assert counted == ["s2", "s0"]
    np.testing.assert_array_equal(
        again.red.values[0], load(encode(scenes[2], opened(), tmp_path / "out")[0]).red.values[0]
    )
    assert cube.sizes["time"] >= 1
    assert ids_in(tmp_path / "cache") == ["s0", "s2"]
    assert all(not c.problems for c in verify(str(tmp_path / "cache" / "catalog.json")))
    assert on_demand(scenes, opened(), tmp_path / "cache")["s0"].id == "s0"
    assert counted == ["s2", "s0"], "another process finds what is there"


def test_of_many_who_ask_at_once_one_encodes(scenes, tmp_path, counted):
    view = on_demand(scenes, opened(), tmp_path / "cache")
    gate = threading.Barrier(8)

    def ask(i):
        gate.wait()
        return view[f"s{i % 2}"].id

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == ["s0"] * 4 + ["s1"] * 4
    assert sorted(counted) == ["s0", "s1"]
    assert not list((tmp_path / "cache").glob("*.encoding*"))


def test_one_that_cannot_be_encoded_is_tried_again(scenes, tmp_path):
    path = Path(scenes[1].assets["red"].href)
    whole = path.read_bytes()
    path.write_bytes(whole[:2000])
    view = on_demand(scenes, opened(), tmp_path / "cache")
    with pytest.raises(CatalogError, match="item 's1'"):
        view["s1"]
    assert not (tmp_path / "cache" / "catalog.json").exists()
    path.write_bytes(whole)
    assert view["s1"].id == "s1"


def test_the_least_recently_asked_for_goes_when_room_is_needed(scenes, tmp_path, counted):
    view = on_demand(scenes, opened(), tmp_path / "cache", keep=60)
    view.items(["s0", "s1", "s2"])
    one = tree_size(view.tree.item_path("s0", view.raw["s0"].collection_id).parent)
    view = on_demand(scenes, opened(), tmp_path / "cache", keep=60, max_bytes=2.5 * one)
    for seconds, name in ((300, "s1"), (200, "s0"), (100, "s2")):
        aged(view, name, seconds)
    assert view["s1"].id == "s1"  # asked for again: now the newest
    view["s3"]
    assert ids_in(tmp_path / "cache") == ["s1", "s3"]
    assert not view.tree.item_path("s0", view.raw["s0"].collection_id).parent.exists()
    assert all(not c.problems for c in verify(str(tmp_path / "cache" / "catalog.json")))
    view["s0"]
    assert ids_in(tmp_path / "cache") == ["s0", "s1", "s3"], "what was asked for within a minute stays"
    assert counted == ["s0", "s1", "s2", "s3", "s0"]


def test_a_store_that_was_damaged_is_encoded_again(scenes, tmp_path, counted):
    view = on_demand(scenes, opened(), tmp_path / "cache")
    shutil.rmtree(Path(view["s0"].get_assets()["latent"].get_absolute_href()) / "latent" / "c")
    assert load(view["s0"]).red.values.any()
    assert counted == ["s0", "s0"]


def test_a_log_that_cost_reads(scenes, tmp_path):
    view = on_demand(scenes, opened(), tmp_path / "cache", log=tmp_path / "asked.csv")
    view.items(["s0", "s1", "s0"])
    assert read_downloads(tmp_path / "asked.csv") == {"s0": 2, "s1": 1}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pack": 9}, r"on_demand\(\) encodes one item at a time and takes no pack; encode\(\) does"),
        ({"references": "auto"}, "takes no references"),
        ({"max_bytes": 0}, "max_bytes is 0 and keep 600.0; expected a number above 0"),
        ({"keep": -1}, "keep -1; expected"),
    ],
)
def test_keywords_that_are_refused(scenes, tmp_path, options, text):
    with pytest.raises(CatalogError, match=text):
        on_demand(scenes, opened(), tmp_path / "cache", **options)


def test_a_cache_holds_one_codec_and_one_set_of_options(scenes, tmp_path):
    view = on_demand(scenes, opened(), tmp_path / "cache")
    with pytest.raises(CatalogError, match="no item 'x' among the 4 raw items; ids are those of the source"):
        view["x"]
    with pytest.raises(CatalogError, match=r"holds latents of .*; name another folder for these"):
        on_demand(scenes, opened(), tmp_path / "cache", asset="other")
