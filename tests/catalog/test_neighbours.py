"""What an Item and its Collection say for those who know Zarr and data cubes, and no latents."""

from __future__ import annotations

import json
from pathlib import Path

import pystac
import pytest
from core_support import small_codec

from stac_latent import encode, open_codec
from stac_latent.catalog.asset_definitions import define_assets
from stac_latent.cube.decoder import decoder_of
from stac_latent.cube.item_assets import MEDIA_TYPE
from stac_latent.extension.schemas import CUBE_URI, ZARR_URI
from stac_latent.validation import validate

SCHEMAS = Path(__file__).parents[3] / "shared" / "schemas"


@pytest.fixture(scope="module")
def document(tmp_path_factory, utm_scene):
    """The written Item of a scene with two latents."""
    dest = tmp_path_factory.mktemp("catalogue")
    encode(utm_scene.item, small_codec("dct"), dest, asset="a")
    (item,) = encode(utm_scene.item, small_codec("wavelet"), dest, asset="b", payload="plain")
    return Path(item.get_self_href())


def test_each_latent_is_a_group_and_links_to_its_store(document):
    item = json.loads(document.read_text())
    zarr = {k: a for k, a in item["assets"].items() if "zarr" in a.get("type", "")}
    assert sorted(zarr) == ["a", "b"], "arrays are no assets"
    for asset in zarr.values():
        assert asset["type"] == MEDIA_TYPE
        group = json.loads((document.parent / asset["href"] / "zarr.json").read_text())
        assert (asset["zarr:node_type"], asset["zarr:zarr_format"]) == (
            group["node_type"],
            group["zarr_format"],
        )
        assert asset["zarr:consolidated"] == ("consolidated_metadata" in group)
    stores = [link["href"] for link in item["links"] if link["rel"] == "store"]
    assert stores == ["./a.zarr", "./b.zarr"]
    assert ZARR_URI in item["stac_extensions"]


def test_a_collection_defines_the_assets_of_its_items(document):
    collection = json.loads((document.parents[1] / "collection.json").read_text())
    assert CUBE_URI in collection["stac_extensions"]
    defined = collection["item_assets"]
    assert set(defined) == set(json.loads(document.read_text())["assets"])
    assert defined["a"]["roles"] == ["latent"]
    assert defined["a"]["latent:kind"] == "codec"
    variables = defined["a"]["cube:variables"]
    assert variables["latent"]["dimensions"] == ["channel", "y", "x"]
    assert variables["mask"]["variable_type"] == "auxiliary"
    schemas = SCHEMAS if SCHEMAS.is_dir() else None
    for path in (document, document.parents[1] / "collection.json"):
        assert not [p for p in validate(path, schemas=schemas) if p.keyword != "unavailable"]


def test_definitions_keep_what_all_items_have_in_common():
    collection = {}
    asset = {"href": "a.tif", "type": "image/tiff", "roles": ["data"], "title": "of a"}
    define_assets(collection, {"assets": {"red": asset}})
    assert collection["item_assets"] == {"red": {"title": "of a", "type": "image/tiff", "roles": ["data"]}}
    for _ in range(2):
        define_assets(collection, {"assets": {"red": {"href": "b.jp2", "roles": ["data"], "title": "of b"}}})
        assert collection["item_assets"] == {"red": {"title": "red", "roles": ["data"]}}
    define_assets(collection, {"assets": {"red": {"href": "c"}, "nir": {"href": "d"}}})
    assert collection["item_assets"]["nir"] == {"title": "nir", "description": "Asset nir"}


def test_definitions_name_the_arrays_of_all_stores():
    """A date that is a difference to a key frame has another array."""
    fields = {
        "latent:kind": "codec",
        "latent:dim_order": ["channel", "y", "x"],
        "data_type": "float32",
        "zarr:node_type": "group",
    }
    collection = {}
    for more in ({}, {"latent:reference_item": "day-1"}):
        define_assets(collection, {"assets": {"latent": {"href": "./latent.zarr", **fields, **more}}})
    assert set(collection["item_assets"]["latent"]["cube:variables"]) == {"latent", "difference", "mask"}


def test_an_embedding_links_to_its_encoder(tmp_path):
    raw = pystac.Item.from_file(
        str(Path(__file__).parents[2] / "catalogs/sample/raw/spyndex-s2-sample/item.json")
    )
    (item,) = encode(raw, "s2-10m-embed", tmp_path, asset="e")
    space = item.assets["e"].extra_fields["latent:space"]
    assert [link.extra_fields["latent:space"] for link in item.get_links("latent:encoder")] == [space]
    assert not item.get_links("latent:decoder")
    assert decoder_of(item, space) is not None
    assert open_codec(item).space == space


def test_an_item_that_lies_nowhere_is_not_linked_to(tmp_path, utm_scene):
    raw = utm_scene.item.clone()
    for asset in raw.assets.values():
        asset.href = asset.get_absolute_href()
    placed = raw.clone()
    raw.remove_links("self")
    placed.set_self_href(str(tmp_path / "raw" / "item.json"))
    (item,) = encode(raw, small_codec("dct"), tmp_path / "a", mode="derived")
    assert not item.get_links("derived_from")
    (item,) = encode(placed, small_codec("dct"), tmp_path / "b", mode="derived")
    assert [link.href for link in item.get_links("derived_from")] == [placed.get_self_href()]
