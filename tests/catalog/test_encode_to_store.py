"""``encode`` into an object store: what is there is what a folder would hold, whatever fails on the way, and whoever writes beside."""

from __future__ import annotations

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from core_support import make_scene, scene_field, small_codec

from stac_latent import encode, load, open_codec, search, verify
from stac_latent.catalog.push.store_catalog import StoreCatalog
from stac_latent.catalog.push.upload import Upload
from stac_latent.errors import CatalogError, RemoteError, SkippedWarning


@pytest.fixture(scope="module")
def objects():
    pytest.importorskip("moto", reason="the object store of the tests comes with moto")
    pytest.importorskip("obstore")
    from servers.objects import ObjectServer

    with ObjectServer("written") as running:
        yield running
    gc.collect()


@pytest.fixture
def dest(objects, monkeypatch, request, short_pauses):
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STAC_LATENT_CACHE_BYTES", "0")
    return f"s3://written/{request.node.name}"


@pytest.fixture
def scenes(tmp_path):
    return [make_scene(tmp_path / f"raw{i}", scene_field((40, 48), i), name=f"s{i}").item for i in range(5)]


CODEC = small_codec("zstd")


def keys(objects, dest):
    prefix = dest.removeprefix("s3://written/") + "/"
    stored = objects.keys()
    return {k.removeprefix(prefix) for k in stored if k.startswith(prefix)}


def test_it_is_what_a_folder_would_hold(objects, dest, scenes, tmp_path):
    made = encode(scenes, CODEC, dest, asset="mine")
    encode(scenes, CODEC, tmp_path / "local", asset="mine")
    local = {
        p.relative_to(tmp_path / "local").as_posix() for p in (tmp_path / "local").rglob("*") if p.is_file()
    }
    assert keys(objects, dest) == {name for name in local if not Path(name).name.startswith(".")}
    for name in sorted(n for n in local if "mine.zarr/" in n):
        got = objects.client.get_object(Bucket="written", Key=f"{dest.removeprefix('s3://written/')}/{name}")
        assert got["Body"].read() == (tmp_path / "local" / name).read_bytes(), name
    assert [item.self_href for item in made] == [f"{dest}/scenes/s{i}/s{i}.json" for i in range(5)]
    found = list(search(f"{dest}/catalog.json"))
    assert [item.id for item in found] == [item.id for item in scenes]
    (near,) = search(str(tmp_path / "local" / "catalog.json"), ids=["s3"])
    got, want = (load(item, asset="mine").red.values for item in (found[3], near))
    np.testing.assert_array_equal(got, want)
    assert all(not c.problems for c in verify(f"{dest}/catalog.json"))


def test_what_is_finished_is_passed_over(objects, dest, scenes):
    encode(scenes[:2], CODEC, dest)
    before = len(objects.requests)
    told = []
    made = encode(scenes[:3], CODEC, dest, outcomes=told)
    assert [item.id for item in made] == ["s0", "s1", "s2"]
    assert [(o.id, o.state) for o in told] == [("s0", "skipped"), ("s1", "skipped"), ("s2", "done")]
    assert told[2].href == f"{dest}/scenes/s2/s2.json"
    puts = {r.path for r in objects.requests[before:] if r.method == "PUT"}
    assert puts
    assert not any("/s0/" in path or "/s1/" in path or "/codecs/" in path for path in puts)
    assert len(list(search(f"{dest}/catalog.json"))) == 3


def test_other_inputs_need_overwrite_and_get_new_names(dest, scenes):
    encode(scenes[0], CODEC, dest)
    other = small_codec("wavelet")
    with pytest.raises(
        CatalogError, match=rf"item 's0' in {dest} already has an asset 'latent'; pass overwrite=True"
    ):
        encode(scenes[0], other, dest)
    (made,) = encode(scenes[0], other, dest, overwrite=True)
    assert Path(made.assets["latent"].href).match("latent-*.zarr")
    encode(scenes[0], CODEC, dest, asset="second")
    (item,) = search(f"{dest}/catalog.json")
    assert {"latent", "second"} <= set(item.assets)
    assert item.assets["latent"].extra_fields["latent:space"] == other.space
    assert load(item, asset="latent").red.shape[-2:] == (40, 48)


def test_several_writers_lose_no_link(dest, scenes):
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda item: encode(item, CODEC, dest), scenes))
    assert sorted(item.id for item in search(f"{dest}/catalog.json")) == [f"s{i}" for i in range(5)]


def test_links_that_others_change_again_and_again(dest, scenes, monkeypatch):
    monkeypatch.setattr(Upload, "replace", lambda *_: False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(
        RemoteError,
        match="were changed by others each of the 30 times that 1 items were to be added; the items are",
    ):
        encode(scenes[0], CODEC, dest)


def test_a_store_that_fails_now_and_then(objects, dest, scenes, monkeypatch):
    """Every third write is answered with 500 or 503, at first: they are made again."""
    honest, seen = objects._app, []

    def failing(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT":
            seen.append(environ["PATH_INFO"])
            if len(seen) % 3 == 0:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(("500 Internal Server Error", "503 Slow Down")[len(seen) % 2], [])
                return [b""]
        return honest(environ, start_response)

    monkeypatch.setattr(objects, "_app", failing)
    encode(scenes[:2], CODEC, dest)
    assert len(seen) > 9
    assert all(not c.problems for c in verify(f"{dest}/catalog.json"))


def test_a_run_that_is_cut_short_lists_nothing_half_written(objects, dest, scenes, monkeypatch):
    """The network goes between a store and its Item; the next run finishes."""
    encode(scenes[0], CODEC, dest)
    send = Upload.send

    def cut(self, name, path, data=None):
        if name == "scenes/s1/s1.json":
            raise RemoteError("the network is gone")
        return send(self, name, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Upload, "send", cut)
        with pytest.raises(RemoteError, match="item 's1': the network is gone"):
            encode(scenes[:3], CODEC, dest)
        assert "scenes/s1/latent.zarr/zarr.json" in keys(objects, dest)
        assert [item.id for item in search(f"{dest}/catalog.json")] == ["s0"]
        told = []
        with pytest.warns(SkippedWarning, match="item 's[12]': the network is gone"):
            encode(scenes[:3], CODEC, dest, on_error="skip", outcomes=told)
        states = {o.id: o.state for o in told}
        assert (len(told), states["s0"], states["s1"]) == (3, "skipped", "failed")
    listed = {item.id for item in search(f"{dest}/catalog.json")}
    assert {"s0"} <= listed <= {"s0", "s2"}  # which was written beside, or was not
    encode(scenes[:3], CODEC, dest)
    assert sorted(item.id for item in search(f"{dest}/catalog.json")) == ["s0", "s1", "s2"]


def test_a_killed_writer_leaves_items_that_the_next_run_links(dest, scenes, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(StoreCatalog, "link", lambda self: None)
        encode(scenes[:2], CODEC, dest)
    encode(scenes[:2], CODEC, dest)
    assert len(list(search(f"{dest}/catalog.json"))) == 2


def test_items_that_cannot_be_encoded_stop_no_others(dest, scenes):
    told = []
    Path(scenes[1].assets["red"].href).write_bytes(b"no raster")
    with pytest.warns(SkippedWarning, match="s1"):
        made = encode(scenes[:3], CODEC, dest, on_error="skip", outcomes=told)
    assert [item.id for item in made] == ["s0", "s2"]
    assert sorted((o.id, o.state) for o in told) == [("s0", "done"), ("s1", "failed"), ("s2", "done")]
    with pytest.raises(CatalogError, match="s1"):
        encode(scenes[:3], CODEC, dest)


def test_what_needs_a_folder_is_refused(dest, scenes):
    for options, name in (({"pack": 2}, "pack"), ({"references": 2}, "references")):
        with pytest.raises(
            CatalogError, match=rf"{name} needs the catalogue on disk: encode into a local folder, then copy"
        ):
            encode(scenes, open_codec("lin", bands=CODEC.bands), dest, **options)
    with pytest.raises(
        CatalogError,
        match=r"address of a folder in an object store .*, got https://example\.org/cat; encode into",
    ):
        encode(scenes[0], CODEC, "https://example.org/cat")


def test_from_a_shell(objects, dest, scenes, tmp_path, capsys):
    from stac_latent.cli import app

    (tmp_path / "scenes.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [i.to_dict() for i in scenes[:2]]})
    )
    app(
        [
            "encode",
            str(tmp_path / "scenes.json"),
            dest,
            "--codec",
            "zstd",
            "--bands",
            "red,nir",
            "--asset",
            "z",
            "--json",
        ],
        standalone_mode=False,
    )
    told = json.loads(capsys.readouterr().out)
    assert told["catalog"] == f"{dest}/catalog.json"
    assert [row["id"] for row in told["items"]] == ["s0", "s1"]
