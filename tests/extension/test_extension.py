"""The pystac classes: every field there and back, nulls, versions, hooks, summaries."""

import copy
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_latent.errors import CatalogError
from stac_latent.extension import (
    LATENT_EXTENSION_HOOKS,
    SCHEMA_URI,
    VERSION,
    ExtensionNotDeclaredError,
    LatentExtension,
    check_version,
)
from stac_latent.validation import latent_schema, validate

EXAMPLES = Path(__file__).parent / "documents"
SPACE = "sha256:" + "0" * 64
NEWER = SCHEMA_URI.replace("v0.1.0", "v1.0.0")

MEASURED = {
    "bits_per_pixel": 0.31,
    "psnr": 46.5,
    "max_error": 100.0,
    "sam": 0.5,
    "error_bound": 128.0,
    "ood_score": 0.1,
}
ITEM = {**MEASURED, "spaces": [SPACE], "kinds": ["codec", "embedding"]}
ASSET = {
    **MEASURED,
    "kind": "codec",
    "space": SPACE,
    "required_features": ["difference", "residual", "encryption", "chips"],
    "granularity": "patch",
    "dimensions": 32,
    "stride": [8, 8],
    "halo": [2, 2],
    "padding": [0, 4, 0, 4],
    "shape": [32, 10, 10],
    "dim_order": ["channel", "y", "x"],
    "dtype": "float32",
    "quantization": "power",
    "quantization_scale": [0.5],
    "quantization_offset": [0.0],
    "quantization_power": 2.0,
    "array": "embeddings",
    "time_index": 1,
    "chip_index": 17,
    "overviews": "mean",
    "columns": ["vector"],
    "position": ["lon", "lat"],
    "time_column": "year",
    "scale_asset": "scales",
    "bitstream": "rans/1",
    "ood_tiles": 3,
    "fallback_tiles": 0,
    "fallback_bound": 0.0,
    "checks": ["psnr>=40:refuse", "ssim>=0.99:warn"],
    "check_values": [42.5, 0.98],
    "residual": "residual/1",
    "error_bounds": [128.0, 0.01],
    "error_bound_kinds": ["absolute", "relative"],
    "reference_item": "scene-1",
    "band_psnr": [46.5, None],
    "band_max_error": [100.0, 0.0],
    "input_digest": SPACE,
    "source_bands": ["red", "image.2"],
    "source_resampling": "average",
    "metadata_digest": SPACE,
    "mask_chunks": "80",
    "encryption": "aes-256-gcm-1",
    "key_id": "0123456789abcdef",
    "wrapped_key": "AAAA",
    "determinism": "platform",
}


def new_item():
    item = pystac.Item("scene", None, None, datetime(2026, 1, 1, tzinfo=UTC), {})
    item.add_asset("latent", pystac.Asset("./a.zarr", roles=["latent"]))
    return item


def new_collection():
    extent = pystac.Extent(
        pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]])
    )
    collection = pystac.Collection("c", "A collection", extent)
    collection.item_assets = {
        "latent": pystac.ItemAssetDefinition({"type": "application/vnd.zarr", "roles": ["latent"]})
    }
    return collection


def schema_names(definition):
    schema = json.loads(latent_schema().read_text())["definitions"][definition]
    fields = schema if "properties" in schema else schema["allOf"][0]
    return {name.removeprefix("latent:") for name in fields["properties"] if name.startswith("latent:")}


def test_the_classes_have_the_fields_of_the_schema():
    item = LatentExtension.ext(new_item(), add_if_missing=True)
    asset = LatentExtension.ext(pystac.Asset("a"))
    assert item._fields == set(ITEM) == schema_names("item_properties")
    assert asset._fields == set(ASSET) == schema_names("asset_fields")


@pytest.mark.parametrize("name", ITEM)
def test_item_field_round_trip(name):
    item = new_item()
    setattr(LatentExtension.ext(item, add_if_missing=True), name, ITEM[name])
    document = json.loads(json.dumps(item.to_dict()))
    assert document["properties"][f"latent:{name}"] == ITEM[name]
    read = pystac.Item.from_dict(document)
    assert getattr(LatentExtension.ext(read), name) == ITEM[name]
    setattr(LatentExtension.ext(read), name, None)
    assert f"latent:{name}" not in read.properties
    assert getattr(LatentExtension.ext(read), name) is None


@pytest.mark.parametrize("name", ASSET)
def test_asset_field_round_trip(name):
    item = new_item()
    setattr(LatentExtension.ext(item.assets["latent"], add_if_missing=True), name, ASSET[name])
    document = json.loads(json.dumps(item.to_dict()))
    assert document["assets"]["latent"][f"latent:{name}"] == ASSET[name]
    asset = pystac.Item.from_dict(document).assets["latent"]
    assert getattr(LatentExtension.ext(asset), name) == ASSET[name]
    setattr(LatentExtension.ext(asset), name, None)
    assert f"latent:{name}" not in asset.extra_fields
    assert getattr(LatentExtension.ext(asset), name) is None


@pytest.mark.parametrize("name", ASSET)
def test_item_asset_field_round_trip(name):
    collection = new_collection()
    definition = collection.item_assets["latent"]
    definition.set_owner(collection)
    setattr(LatentExtension.ext(definition, add_if_missing=True), name, ASSET[name])
    collection.item_assets = {"latent": definition}
    document = json.loads(json.dumps(collection.to_dict()))
    assert SCHEMA_URI in document["stac_extensions"]
    assert document["item_assets"]["latent"][f"latent:{name}"] == ASSET[name]
    read = pystac.Collection.from_dict(document).item_assets["latent"]
    assert getattr(LatentExtension.ext(read), name) == ASSET[name]


def test_link_round_trip():
    item = new_item()
    item.add_link(pystac.Link("latent:decoder", "./codec.json"))
    LatentExtension.ext(item.get_single_link("latent:decoder"), add_if_missing=True).space = SPACE
    read = pystac.Item.from_dict(json.loads(json.dumps(item.to_dict())))
    assert LatentExtension.ext(read.get_single_link("latent:decoder")).space == SPACE


@given(
    scale=st.lists(st.floats(0, 1e6), min_size=1, max_size=4),
    shape=st.lists(st.integers(1, 10**6), min_size=1, max_size=4),
    psnr=st.floats(-10, 200),
)
def test_any_numbers_round_trip(scale, shape, psnr):
    asset = pystac.Asset("a")
    LatentExtension.ext(asset).apply(quantization_scale=scale, shape=shape, psnr=psnr)
    read = LatentExtension.ext(pystac.Asset.from_dict(json.loads(json.dumps(asset.to_dict()))))
    assert (read.quantization_scale, read.shape, read.psnr) == (scale, shape, psnr)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("item*.json")), ids=lambda p: p.stem)
def test_examples_survive_pystac(path):
    document = json.loads(path.read_text())
    read = pystac.Item.from_dict(copy.deepcopy(document)).to_dict(
        include_self_link=False, transform_hrefs=False
    )
    assert read == document


def test_the_example_collection_survives_pystac():
    document = json.loads((EXAMPLES / "collection.json").read_text())
    collection = pystac.Collection.from_dict(copy.deepcopy(document))
    assert collection.to_dict(include_self_link=False, transform_hrefs=False) == document
    assert LatentExtension.ext(collection.item_assets["latent"]).stride == [8, 8]


def test_numpy_numbers_are_written_as_json():
    np = pytest.importorskip("numpy")
    asset = pystac.Asset("a")
    LatentExtension.ext(asset).apply(dimensions=np.int64(3), psnr=np.float32(40.5), stride=np.array([8, 8]))
    assert json.loads(json.dumps(asset.extra_fields)) == {
        "latent:dimensions": 3,
        "latent:psnr": 40.5,
        "latent:stride": [8, 8],
    }


def test_nulls_are_absent():
    item = pystac.Item.from_file(EXAMPLES / "item.json")
    asset = item.assets["latent"]
    asset.extra_fields["latent:halo"] = asset.extra_fields["latent:sam"] = None
    found = LatentExtension.ext(asset)
    assert found.halo is None
    assert found.sam is None
    assert "latent:halo" not in found.fields()
    assert found.fields()["latent:stride"] == [8, 8]


def test_items_come_back_from_geoparquet(tmp_path):
    stac_geoparquet = pytest.importorskip("stac_geoparquet.arrow")
    items = [
        pystac.Item.from_file(EXAMPLES / f"{n}.json") for n in ("item", "item-derived", "item-embedding")
    ]
    documents = [item.to_dict(include_self_link=False, transform_hrefs=False) for item in items]
    table = stac_geoparquet.parse_stac_items_to_arrow(documents).read_all()
    read = [pystac.Item.from_dict(d) for d in stac_geoparquet.stac_table_to_items(table)]
    for before, after in zip(items, read, strict=True):
        assert LatentExtension.ext(after).fields() == LatentExtension.ext(before).fields()
        for key, asset in before.assets.items():
            found, known = LatentExtension.ext(after.assets[key]), LatentExtension.ext(asset)
            assert found.fields() == known.fields()
            assert [getattr(found, n) for n in ASSET] == [getattr(known, n) for n in ASSET]


def test_whole_numbers_may_come_back_as_floats():
    assert LatentExtension.ext(pystac.Asset("a", extra_fields={"latent:stride": [8.0, 8.0]})).stride == [8, 8]


def test_an_asset_does_not_inherit_measurements_of_its_item():
    item = pystac.Item.from_file(EXAMPLES / "item.json")
    assert LatentExtension.ext(item).psnr == 46.21
    assert LatentExtension.ext(item.assets["red"]).psnr is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kind", "model", "latent:kind is 'model': expected one of codec, embedding"),
        (
            "psnr",
            float("inf"),
            "latent:psnr is inf: expected a finite number .*at most 200",
        ),
        ("psnr", "40", "latent:psnr is '40': expected a finite number"),
        ("psnr", True, "latent:psnr is True: expected a finite number"),
        ("dimensions", 1.5, "latent:dimensions is 1.5: expected an integer"),
        ("dimensions", {}, "latent:dimensions is {}"),
        ("stride", 8, "latent:stride is 8"),
        ("stride", [8], r"latent:stride is \[8\]: expected a list of 2 values"),
        ("padding", [1, 2], "expected a list of 4 values"),
        ("dim_order", "yx", "latent:dim_order is 'yx': expected a list"),
        ("dim_order", [1], "expected a string"),
        ("space", 1, "latent:space is 1: expected a string"),
        ("determinism", "mostly", "expected one of exact, platform"),
    ],
)
def test_bad_values_are_refused_when_written_and_when_read(name, value, message):
    asset = pystac.Asset("a")
    with pytest.raises(CatalogError, match=message):
        setattr(LatentExtension.ext(asset), name, value)
    assert asset.extra_fields == {}
    asset.extra_fields[f"latent:{name}"] = value
    with pytest.raises(CatalogError, match=message):
        getattr(LatentExtension.ext(asset), name)


def test_apply_refuses_what_is_no_field():
    with pytest.raises(
        CatalogError, match=r"no such field here: kind, model; expected bits_per_pixel, error_bound"
    ):
        LatentExtension.ext(new_item(), add_if_missing=True).apply(kind="codec", model="x")


def test_apply_keeps_what_is_not_named_and_repr_shows_it():
    found = LatentExtension.ext(pystac.Asset("a")).apply(kind="codec", dimensions=3).apply(kind=None)
    assert found.fields() == {"latent:dimensions": 3}
    assert repr(found) == "AssetLatentExtension({'latent:dimensions': 3})"


def test_ext_needs_the_declaration():
    item = new_item()
    for obj in (item, item.assets["latent"]):
        with pytest.raises(
            ExtensionNotDeclaredError, match=r"'scene' does not declare .* \(has: none\).*add_if_missing"
        ):
            LatentExtension.ext(obj)
    with pytest.raises(pystac.ExtensionNotImplemented):
        LatentExtension.ext(item)
    LatentExtension.ext(item.assets["latent"], add_if_missing=True)
    LatentExtension.ext(item, add_if_missing=True)
    assert item.stac_extensions == [SCHEMA_URI]


def test_ext_of_an_orphan():
    assert LatentExtension.ext(pystac.Asset("a")).kind is None
    with pytest.raises(CatalogError, match="Asset has no owner to add the latent extension to"):
        LatentExtension.ext(pystac.Asset("a"), add_if_missing=True)


def test_ext_of_something_else():
    with pytest.raises(pystac.ExtensionTypeError, match=r"Collection.*LatentExtension.summaries"):
        LatentExtension.ext(new_collection())


@pytest.mark.parametrize("version", ["0.1.1", "0.2.0", "1.0.0", "10.0.0"])
def test_newer_versions_are_refused(version):
    item = new_item()
    item.stac_extensions = [SCHEMA_URI.replace(f"v{VERSION}", f"v{version}")]
    message = f"'scene' declares version {version} of the latent extension, expected at most 0.1.0: .*upgrade"
    for refuse in (check_version, LatentExtension.ext):
        with pytest.raises(CatalogError, match=message):
            refuse(item)
    with pytest.raises(CatalogError, match=message):
        check_version(item.to_dict())
    with pytest.raises(CatalogError, match=message):
        LatentExtension.ext(item.assets["latent"], add_if_missing=True)


@pytest.mark.parametrize("version", ["1", "0.1", "0.1.0-rc.1", "latest", ""])
def test_what_is_no_version_is_refused(version):
    uri = SCHEMA_URI.replace(f"v{VERSION}", f"v{version}")
    with pytest.raises(
        CatalogError, match=f"version '{version}' of the latent extension, which is no version; expected"
    ):
        check_version({"id": "x", "stac_extensions": [uri]})


def test_known_and_other_extensions_pass():
    assert check_version({"stac_extensions": [SCHEMA_URI]}) == "0.1.0"
    assert check_version({"stac_extensions": [NEWER, SCHEMA_URI]}) == "0.1.0"
    assert check_version({"stac_extensions": [SCHEMA_URI.replace("v0.1.0", "v0.0.9")]}) == "0.0.9"
    assert (
        check_version({"stac_extensions": ["https://stac-extensions.github.io/eo/v2.0.0/schema.json"]})
        is None
    )
    assert check_version({"stac_extensions": None}) is None
    assert check_version(new_item()) is None


def test_summaries():
    collection = new_collection()
    with pytest.raises(ExtensionNotDeclaredError, match="'c' does not declare"):
        LatentExtension.summaries(collection)
    found = LatentExtension.summaries(collection, add_if_missing=True)
    assert (found.spaces, found.kinds, found.range("psnr")) == (None, None, None)
    item = pystac.Item.from_file(EXAMPLES / "item.json")
    found.update(item)
    LatentExtension.ext(item).apply(psnr=30.0, sam=None, spaces=[SPACE], kinds=["embedding"])
    found.update(item)
    read = LatentExtension.summaries(
        pystac.Collection.from_dict(json.loads(json.dumps(collection.to_dict())))
    )
    assert read.kinds == ["codec", "embedding"]
    assert read.spaces[1:] == [SPACE]
    assert read.range("psnr").to_dict() == {"minimum": 30.0, "maximum": 46.21}
    assert read.range("sam").to_dict() == {"minimum": 0.42, "maximum": 0.42}
    assert read.range("ood_score") is None
    assert validate(collection) == []
    read.spaces = None
    assert read.spaces is None


def test_summaries_keep_many_spaces():
    collection = new_collection()
    spaces = [f"sha256:{i:064x}" for i in range(60)]
    LatentExtension.summaries(collection, add_if_missing=True).spaces = spaces
    assert collection.to_dict()["summaries"]["latent:spaces"] == spaces


def test_summaries_of_what_has_no_range():
    found = LatentExtension.summaries(new_collection(), add_if_missing=True)
    with pytest.raises(
        CatalogError, match="'kind' has no range; expected one of bits_per_pixel, error_bound"
    ):
        found.range("kind")


def test_hooks_are_registered_once():
    assert pystac.EXTENSION_HOOKS.hooks[SCHEMA_URI] is LATENT_EXTENSION_HOOKS
    document = json.loads((EXAMPLES / "item.json").read_text())
    assert LATENT_EXTENSION_HOOKS.has_extension(document)
    old = {**document, "stac_version": "1.0.0"}
    assert pystac.Item.from_dict(old).stac_extensions.count(SCHEMA_URI) == 1


def test_the_entry_point_is_the_hooks():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pystac.extensions"] == {
        "latent": "stac_latent.extension:LATENT_EXTENSION_HOOKS"
    }


@pytest.mark.parametrize("first", ["import pystac", "import stac_latent.extension"])
def test_import_is_light_and_works_in_either_order(first):
    code = f"""
{first}
import sys, pystac
pystac.Item.from_file({str(EXAMPLES / "item.json")!r})
import stac_latent.extension as e
assert pystac.EXTENSION_HOOKS.hooks[e.SCHEMA_URI].schema_uri == e.SCHEMA_URI
heavy = {{"numpy", "torch", "rasterio", "xarray", "zarr", "pandas", "pyarrow"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
