"""Offline validation: nothing is fetched, nothing unknown counts as valid, and fields must agree."""

import copy
import json
from pathlib import Path

import pystac
import pytest

from stac_latent.errors import CatalogError
from stac_latent.extension import SCHEMA_URI
from stac_latent.validation import (
    OfflineValidator,
    Problem,
    check_valid,
    latent_schema,
    projjson_schema,
    schema_folder,
    validate,
)

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "tests" / "extension" / "documents"
SCHEMAS = ROOT.parent / "shared" / "schemas"
needs_schemas = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the folder of published schemas is absent")
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
SPACE = "sha256:" + "0" * 64


def example(name):
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def bare(name):
    """Load an example that declares no extension but ours, so that all of it can be checked."""
    document = example(name)
    document["stac_extensions"] = [SCHEMA_URI]
    return document


@pytest.fixture
def folder(tmp_path):
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "$id": PROJECTION, "type": "object"}
    (tmp_path / "projection.json").write_text(json.dumps(schema))
    (tmp_path / "index.json").write_text(json.dumps({PROJECTION: "projection.json"}))
    return tmp_path


@needs_schemas
@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda p: p.stem)
def test_examples_are_valid_against_everything_they_declare(path):
    assert validate(path, SCHEMAS) == []
    check_valid(path, SCHEMAS)
    obj = pystac.read_dict(json.loads(path.read_text()))
    assert validate(obj, SCHEMAS) == []
    assert obj.validate(validator=OfflineValidator(SCHEMAS))[1:] == obj.stac_extensions


def test_unknown_schemas_are_reported_not_fetched_and_not_passed():
    found = validate(EXAMPLES / "item-embedding.json")
    assert [(p.keyword, p.schema) for p in found] == [("unavailable", PROJECTION)]
    assert str(found[0]) == (
        f"stac_extensions: {PROJECTION}, which is not available offline; give a folder that has it "
        f"(schemas=, with an index.json) [unavailable, {PROJECTION}]"
    )


def test_pystac_does_not_fetch_them_either():
    item = pystac.Item.from_file(EXAMPLES / "item-embedding.json")
    with pytest.raises(Exception, match=f"Error when fetching schema {PROJECTION}: not available offline"):
        item.validate(validator=OfflineValidator())


def test_a_folder_makes_them_known(folder):
    assert validate(EXAMPLES / "item-embedding.json", folder) == []
    assert validate(EXAMPLES / "item-embedding.json", str(folder)) == []
    assert schema_folder(folder) == {PROJECTION: folder / "projection.json"}


def test_a_schema_that_refers_to_an_unknown_one(folder):
    schema = {"$id": PROJECTION, "properties": {"properties": {"$ref": "https://example.com/other.json#/x"}}}
    (folder / "projection.json").write_text(json.dumps(schema))
    (found,) = validate(EXAMPLES / "item-embedding.json", folder)
    assert found.keyword == "unavailable"
    assert "https://example.com/other.json" in found.message


@needs_schemas
def test_an_mlm_item_whose_rules_cannot_all_be_checked():
    document = example("item-codec")
    document["properties"]["mlm:input"][0]["pre_processing_function"] = {
        "format": "python",
        "expression": "a:b",
    }
    (found,) = validate(document, SCHEMAS)
    assert found.keyword == "unavailable"
    assert "processing/v1.1.0" in found.message


@needs_schemas
def test_other_schemas_do_reject():
    document = example("item-codec")
    del document["properties"]["mlm:name"]
    (found,) = validate(document, SCHEMAS)
    assert (found.path, found.keyword) == ("properties", "required")
    assert "mlm:name" in found.message


@needs_schemas
def test_projjson_is_checked():
    document = example("item-embedding")
    document["assets"]["embedding"]["proj:projjson"] = {"type": "GeographicCRS"}
    found = validate(document, SCHEMAS)
    assert projjson_schema() is not None
    assert [p.schema for p in found] == [PROJECTION]
    assert not any(p.keyword == "unavailable" for p in found)


def test_the_core_is_checked():
    document = bare("item-embedding")
    document["properties"]["gsd"] = -10
    (found,) = validate(document)
    assert found.path == "properties/gsd"
    assert found.keyword == "exclusiveMinimum"
    assert found.schema == "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"


def test_an_older_core_is_reported():
    document = {**bare("item-embedding"), "stac_version": "1.0.0"}
    assert [(p.keyword, p.schema) for p in validate(document)] == [
        ("unavailable", "https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/item.json")
    ]


def test_a_catalog_and_an_item_collection():
    assert validate(pystac.Catalog("c", "A catalogue")) == []
    good, wrong = bare("item-embedding"), bare("item-embedding")
    del wrong["assets"]["embedding"]["latent:space"]
    (found,) = validate({"type": "FeatureCollection", "features": [good, wrong]})
    assert found.path == "features/1/assets/embedding"
    assert found.message == "'latent:space' is a required property"


def test_check_valid_lists_ten():
    features = [bare("item-embedding") for _ in range(12)]
    for feature in features:
        feature["properties"]["gsd"] = -10
    with pytest.raises(
        CatalogError, match=r"12 problem\(s\):\n  features/0/properties/gsd: .*\n(.*\n){9}  and 2 more"
    ):
        check_valid({"type": "FeatureCollection", "features": features})


def test_fields_that_are_not_declared():
    document = {**bare("item-embedding"), "stac_extensions": []}
    assert {p.path for p in validate(document)} == {"properties", "assets/embedding"}
    assert "latent:spaces, latent:kinds used, but https://stac-latent" in validate(document)[0].message
    collection = {**bare("collection"), "stac_extensions": []}
    assert {p.path for p in validate(collection)} == {
        "summaries",
        "item_assets/latent",
        "item_assets/latent-mask",
    }


def change(document, field, value, key="latent"):
    document["assets"][key][f"latent:{field}"] = value


MEANING = {
    "spaces": (
        "item",
        lambda d: d["properties"].update({"latent:spaces": [SPACE]}),
        "properties/latent:spaces",
        "are not the assets' latent:space",
    ),
    "kinds": (
        "item",
        lambda d: d["properties"].update({"latent:kinds": ["codec", "embedding"]}),
        "properties/latent:kinds",
        "['codec', 'embedding'] are not the assets' latent:kind: ['codec']",
    ),
    "decoder of another space": (
        "item",
        lambda d: d["links"][1].update({"latent:space": SPACE}),
        "assets/latent",
        "no latent:decoder link has the asset's space sha256:",
    ),
    "dim_order": (
        "item",
        lambda d: change(d, "dim_order", ["channel", "y"]),
        "assets/latent/latent:shape",
        "has not the dimensions ['channel', 'y']",
    ),
    "channels": (
        "item",
        lambda d: change(d, "dimensions", 255),
        "assets/latent/latent:shape",
        "256 channels, but latent:dimensions is 255",
    ),
    "scales": (
        "item",
        lambda d: change(d, "quantization_scale", [1, 2]),
        "assets/latent/latent:quantization_scale",
        "2 values; expected one, or one for each of 256 channels",
    ),
    "cells": (
        "item",
        lambda d: change(d, "shape", [256, 1373, 1374]),
        "assets/latent/latent:shape",
        "(1373, 1374) cells (y, x) are stored, but stride and padding make (1374, 1374)",
    ),
    "padding": (
        "item",
        lambda d: change(d, "padding", [0, 0, 0, 0]),
        "assets/latent/latent:padding",
        "are not whole cells of (8, 8) pixels",
    ),
    "a measurement that no asset has": (
        "item",
        lambda d: d["properties"].update({"latent:psnr": 50}),
        "properties/latent:psnr",
        "50 is not the best of the assets of kind 'codec', which is 46.21",
    ),
    "fewer source bands": (
        "item",
        lambda d: change(d, "source_bands", ["blue"]),
        "assets/latent/latent:source_bands",
        "1 values; expected one for each of the asset's 4 bands",
    ),
    "more values than checks": (
        "item",
        lambda d: (change(d, "checks", ["psnr>=40:warn"]), change(d, "check_values", [46.0, 1.0])),
        "assets/latent/latent:check_values",
        "2 values; expected one for each of 1 latent:checks",
    ),
    "no such asset": (
        "item-embedding",
        lambda d: (
            d["assets"]["embedding"].pop("latent:quantization_power"),
            change(d, "quantization", "per_vector", "embedding"),
            change(d, "scale_asset", "scales", "embedding"),
        ),
        "assets/embedding/latent:scale_asset",
        "there is no asset 'scales' (has: embedding)",
    ),
}


@pytest.mark.parametrize("case", MEANING)
def test_fields_that_disagree(case):
    name, mutate, path, message = MEANING[case]
    document = bare(name)
    before = copy.deepcopy(document)
    assert validate(document) == []
    mutate(document)
    assert document != before
    (found,) = validate(document)
    assert (found.path, found.keyword, found.schema) == (path, "meaning", SCHEMA_URI)
    assert message in found.message


def test_the_crs_may_be_that_of_the_item():
    document = bare("item")
    document["properties"]["proj:code"] = document["assets"]["latent"].pop("proj:code")
    assert validate(document) == []


def test_a_newer_version_is_refused():
    document = {**bare("item"), "stac_extensions": [SCHEMA_URI.replace("v0.1.0", "v0.3.0")]}
    with pytest.raises(
        CatalogError, match=r"version 0\.3\.0 of the latent extension, expected at most 0\.1\.0"
    ):
        validate(document)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "Feature"}, "no STAC document: type 'Feature', stac_version None"),
        ({"type": "Map", "stac_version": "1.1.0"}, "no STAC document: type 'Map'"),
        (
            {"id": "a", "type": "Feature", "x": float("inf")},
            "'a' cannot be written as JSON: .*leave infinities out",
        ),
        ({"id": "a", "type": "Feature", "x": {1, 2}}, "'a' cannot be written as JSON: .*convert numpy"),
    ],
)
def test_what_is_no_stac(document, message):
    with pytest.raises(CatalogError, match=message):
        validate(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read .*No such file"), ("{", "is not JSON"), ("[]", "holds a JSON list")],
)
def test_unreadable_files(tmp_path, text, message):
    path = tmp_path / "item.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CatalogError, match=message):
        validate(path)


def test_bad_schema_folders(folder, tmp_path_factory):
    with pytest.raises(CatalogError, match=r"cannot read .*index\.json"):
        OfflineValidator(tmp_path_factory.mktemp("empty"))
    (folder / "index.json").write_text(json.dumps({PROJECTION: "gone.json"}))
    with pytest.raises(CatalogError, match=r"index\.json names files that are not there: gone\.json"):
        OfflineValidator(folder)


def test_a_schema_that_is_wrong_itself_is_reported(folder):
    (folder / "projection.json").write_text(json.dumps({"$id": PROJECTION, "type": "nothing"}))
    (found,) = validate(EXAMPLES / "item-embedding.json", folder)
    assert found.keyword == "unavailable"
    assert "the schema itself is not valid" in found.message


def test_the_schema_is_found():
    assert json.loads(latent_schema().read_text())["title"] == "Latent Extension"
    assert str(Problem("", "wrong", "type", "x")) == "(document): wrong [type, x]"
