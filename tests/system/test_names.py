"""Names from documents make no path: whatever ids, collections, keys and names of codecs are, nothing is written outside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from adopt_support import alphaearth_codes, write_tiff
from core_support import make_scene, scene_field, small_codec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stac_latent import adopt, encode, publish, search
from stac_latent.catalog.adopt.emb_export import export_emb
from stac_latent.catalog.adopt.products import space_digest
from stac_latent.errors import CatalogError, StacLatentError
from stac_latent.fitting.items import fit
from stac_latent.system.names import plain_name, safe_name

parts = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "/",
        "\\",
        "\x00",
        "\n",
        "\x1b[2J",
        "#",
        "?",
        "%2e%2e",
        "~",
        "ä",
        "C:",
        "codecs",
        "catalog.json",
    ]
)
names = (
    st.lists(parts, max_size=6).map("/".join)
    | st.lists(parts, max_size=4).map("".join)
    | st.text(max_size=20)
)
quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def outside(root, inside):
    """Files below a folder that are in none of those."""
    return {p for p in root.rglob("*") if p.is_file() and not any(p.is_relative_to(i) for i in inside)}


@given(names)
def test_a_safe_name_is_one_part_of_a_path(name):
    try:
        kept = safe_name(name)
    except CatalogError:
        return
    assert kept == name
    assert Path("/x", name).parent == Path("/x")
    assert not name.startswith(".")
    assert len(name.encode()) <= 200


@given(names)
def test_a_plain_name_is_safe(name):
    assert safe_name(plain_name(name)) == plain_name(name)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("raw"), scene_field((24, 24)))


@quick
@given(name=names, what=st.sampled_from(["id", "collection", "key", "codec"]))
def test_encode_writes_nowhere_else(scene, tmp_path_factory, name, what):
    root = tmp_path_factory.mktemp("deep") / "a" / "b"
    item, codec, key = scene.item.clone(), small_codec(), "latent"
    if what == "id":
        item.id = name
    elif what == "collection":
        item.collection_id = name
    elif what == "codec":
        from dataclasses import replace

        codec = replace(codec, name=name)
    else:
        key = name
    try:
        encode(item, codec, root / "cat", asset=key, guard="off")
    except StacLatentError:
        assert not (root / "cat" / "catalog.json").exists()
    else:
        (found,) = search(str(root / "cat"))  # what was written is found
        assert found.assets
    assert outside(root.parents[1], [root / "cat"]) == set()
    shutil.rmtree(root.parents[1])


@quick
@given(name=names, what=st.sampled_from(["id", "collection"]))
def test_adopt_and_export_write_nowhere_else(tmp_path_factory, name, what):
    root = tmp_path_factory.mktemp("deep") / "a" / "b"
    tile = write_tiff(root / "raw" / "t_2024.tif", alphaearth_codes(1), nodata=-128)
    allowed = [root / "raw", root / "cat", root / "out"]
    try:
        (item,) = adopt(
            "alphaearth", [tile], root / "cat", **({"collection": name} if what == "collection" else {})
        )
        if what == "id":
            item.id = name
        export_emb([item], root / "out", model="https://x.org/m", source_data="https://x.org/s")
    except StacLatentError:
        pass
    assert outside(root.parents[1], allowed) == set()
    shutil.rmtree(root.parents[1])


@quick
@given(name=names)
def test_fit_refuses_names(scene, tmp_path_factory, name):
    root = tmp_path_factory.mktemp("deep") / "a" / "b"
    with pytest.raises(StacLatentError, match="name"):
        fit([scene.item], root / "codec", name=f"{name}/", pixels=100)
    assert outside(root.parents[1], []) == set()


@quick
@given(name=names)
def test_ids_of_adopted_files_are_their_stems(tmp_path_factory, name):
    from stac_latent.catalog.adopt.adopt import _stem

    assert safe_name(_stem(f"/data/{name}.tif"))
    assert "SECRET" not in _stem("https://x.org/a.tif?sig=SECRET")
    assert json.dumps(_stem(f"https://x.org/{name}"))


HALF = "a\ud800b"


def test_halves_of_characters_end_in_messages(scene, tmp_path):
    """JSON can say them, files and tables cannot."""
    item = scene.item.clone()
    next(iter(item.assets.values())).href = f"/{HALF}.tif"
    with pytest.raises(CatalogError, match="halves of characters are in no name of a file"):
        encode(item, small_codec(), tmp_path / "cat")
    with pytest.raises(CatalogError, match="hold half of a character; correct the description"):
        space_digest({"producer": HALF})
    (made,) = encode(scene.item, small_codec(), tmp_path / "cat")
    made.collection_id = HALF
    with pytest.raises(CatalogError, match="holds half of a character, which Parquet does not have"):
        publish(made, tmp_path / "v.parquet")
    assert not (tmp_path / "v.parquet").exists()
