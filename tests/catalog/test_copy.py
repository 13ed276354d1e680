"""A catalogue copied to an object store again and again: readers find the old one or the new one, and nothing is left out unsaid."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from core_support import make_scene, scene_field, small_codec

from stac_latent import encode, search
from stac_latent.catalog.push import upload as module
from stac_latent.catalog.push.object_store import copy
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, RemoteError
from stac_latent.net.hrefs import read_bytes


@pytest.fixture(scope="module")
def objects():
    pytest.importorskip("moto", reason="the object store of the tests comes with moto")
    pytest.importorskip("obstore")
    from servers.objects import ObjectServer

    with ObjectServer("copies") as running:
        yield running
    gc.collect()


@pytest.fixture
def dest(objects, monkeypatch, request, short_pauses):
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STAC_LATENT_CACHE_BYTES", "0")
    return f"s3://copies/{request.node.name}"


def encoded(folder, seed, dest, **options):
    scene = make_scene(folder / f"raw{seed}", scene_field((40, 48), seed), name="s").item
    return encode(scene, small_codec("zstd"), dest, **options)


def there(dest):
    (item,) = search(f"{dest}/catalog.json")
    return item, LatentReader.open(item).read_field()


def test_chips_that_share_a_store(tmp_path, dest):
    scenes = [make_scene(tmp_path / "raw", scene_field((40, 48), i), name=f"c{i}").item for i in range(3)]
    for codec in ("zstd", "dct"):  # the second time, other Items of these names are there
        made = encode(scenes, small_codec(codec), tmp_path / "cat", pack=3, overwrite=True)
        copy(tmp_path / "cat", dest)
        found = sorted(search(f"{dest}/catalog.json"), key=lambda item: item.id)
        for one, other in zip(made, found, strict=True):
            np.testing.assert_array_equal(*(LatentReader.open(i).read_field() for i in (one, other)))


def cut_after(monkeypatch, allowed):
    """An object store that takes what ``allowed`` says, and then no more."""
    honest = module.object_store

    def cut(address):
        store, prefix = honest(address)

        class Cut:
            def put(self, name, data, **how):
                if not allowed(name):
                    raise OSError("the network is gone")
                return store.put(name, data, **how)

        return Cut(), prefix

    monkeypatch.setattr(module, "object_store", cut)


@pytest.mark.parametrize("anew", [False, True])
def test_a_copy_that_is_cut_short_leaves_the_old_item_and_its_pixels(tmp_path, dest, monkeypatch, anew):
    """Overwritten in its catalogue, or encoded into a new one."""
    encoded(tmp_path, 1, tmp_path / "a")
    first = copy(tmp_path / "a", dest)
    assert any(name == "scenes/s/latent.zarr/zarr.json" for name, _ in first)
    new = tmp_path / ("b" if anew else "a")
    encoded(tmp_path, 2, new, overwrite=True)
    with monkeypatch.context() as patch:
        cut_after(patch, lambda name: ".zarr/" in name)
        with pytest.raises(
            RemoteError, match=r"the network is gone; what was written before stays, start the same again"
        ):
            copy(new, dest)
    np.testing.assert_array_equal(there(dest)[1], scene_field((40, 48), 1))
    done = copy(new, dest)
    item, field = there(dest)
    np.testing.assert_array_equal(field, scene_field((40, 48), 2))
    (local,) = search(str(new / "catalog.json"))
    assert item.properties == local.properties
    href = item.assets["latent"].href
    assert Path(href).match("latent-*.zarr")
    assert [link.href for link in item.get_links("store")] == [href]
    assert sorted(n for n, _ in copy(new, dest)) == sorted(n for n, _ in done)
    assert (
        json.loads(read_bytes(f"{dest}/scenes/s/s.json"))["assets"]["red"] == local.to_dict()["assets"]["red"]
    )


def test_a_catalogue_that_did_not_change_keeps_its_names(tmp_path, dest):
    encoded(tmp_path, 1, tmp_path / "cat")
    assert copy(tmp_path / "cat", dest) == copy(tmp_path / "cat" / "catalog.json", dest)
    assert there(dest)[0].assets["latent"].href == "./latent.zarr"


def test_documents_link_to_where_the_copy_is_published(tmp_path, dest):
    encoded(tmp_path, 1, tmp_path / "cat")
    for _ in range(2):  # a second copy is the same catalogue: nothing gets another name
        done = copy(tmp_path / "cat", dest, href="https://data.example.org/c/")
        documents = {n for n, _ in done if n.endswith(".json") and ".zarr" not in n and "codec.json" not in n}
        assert len(documents) >= 3
        for name in documents:
            links = json.loads(read_bytes(f"{dest}/{name}"))["links"]
            assert [x["href"] for x in links if x["rel"] == "self"] == [f"https://data.example.org/c/{name}"]
    assert there(dest)[0].assets["latent"].href.endswith("/latent.zarr")
    local = json.loads((tmp_path / "cat" / "catalog.json").read_text())
    assert "self" not in {x["rel"] for x in local["links"]}
    with pytest.raises(
        CatalogError, match="href is 'cat'; expected the address at which the copy is published"
    ):
        copy(tmp_path / "cat", dest, href="cat")


def test_links_are_followed_and_what_is_left_out_is_named(tmp_path, dest):
    encoded(tmp_path, 1, tmp_path / "cat")
    (tmp_path / "cat" / "scenes").rename(tmp_path / "elsewhere")
    (tmp_path / "cat" / "scenes").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "cat" / ".git").mkdir()
    (tmp_path / "cat" / "gone.tif").symlink_to(tmp_path / "nothing.tif")
    (tmp_path / "cat" / ".catalog.json.host.1-abcd0.part").write_text("{")
    (tmp_path / "cat" / ".old").mkdir()
    (tmp_path / "cat" / ".old" / ".old.json").write_text("{}")
    with pytest.warns(UserWarning, match="left out of the copy") as said:
        done = {name for name, _ in copy(tmp_path / "cat", dest)}
    assert {
        "scenes/collection.json",
        "scenes/s/s.json",
        "scenes/s/latent.zarr/zarr.json",
        ".old/.old.json",
    } < done
    assert not any(name.endswith(".part") for name in done)
    (text,) = [str(w.message) for w in said if "left out" in str(w.message)]
    assert all(name in text for name in (".git", "gone.tif", "scenes/again"))
    np.testing.assert_array_equal(there(dest)[1], scene_field((40, 48), 1))


def test_a_catalogue_that_is_written_meanwhile(tmp_path, dest):
    encoded(tmp_path, 1, tmp_path / "cat")

    def write(_label, done, _total):
        if done == 1:
            encoded(tmp_path, 2, tmp_path / "cat", overwrite=True)

    with pytest.raises(CatalogError, match=r"json changed while it was copied; start the same copy again"):
        copy(tmp_path / "cat", dest, progress=write)
    copy(tmp_path / "cat", dest)
    np.testing.assert_array_equal(there(dest)[1], scene_field((40, 48), 2))
