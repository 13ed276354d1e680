"""The examples, and what the script adds to stac-node-validator, as a publisher of the extension would check them."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from stac_latent.errors import CatalogError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "validate_node.py"
EXAMPLES = ROOT / "tests" / "extension" / "documents"
PUBLISHED = ROOT / "extensions" / "latent" / "examples"
SCHEMAS = ROOT.parent / "shared" / "schemas"

spec = importlib.util.spec_from_file_location("validate_node", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.fixture
def node():
    try:
        script.find_validator()
    except CatalogError as exc:
        pytest.skip(f"stac-node-validator cannot run: {exc}")
    if not SCHEMAS.is_dir():
        pytest.skip("the folder of published schemas is absent")

    def run(*args):
        return subprocess.run(
            [sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, check=False, cwd=ROOT
        )

    return run


def test_examples_pass(node):
    done = node(PUBLISHED, "--schemas", SCHEMAS, "--lint")
    assert done.returncode == 0, done.stdout
    count = len(list(PUBLISHED.glob("*.json")))
    assert f"Passed: {count}\n  Invalid: 0\n  Malformed: 0\n  Skipped: 0" in done.stdout


def test_a_wrong_item_fails_for_its_reason(node, tmp_path):
    document = json.loads((EXAMPLES / "item.json").read_text())
    del document["assets"]["latent"]["latent:space"]
    (tmp_path / "item.json").write_text(json.dumps(document))
    done = node(tmp_path / "item.json", "--schemas", SCHEMAS)
    assert done.returncode == 1
    assert "/assets/latent must have required property 'latent:space'" in done.stdout


def test_an_unknown_schema_fails_and_is_not_fetched(node):
    done = node(EXAMPLES / "item-embedding.json")
    assert done.returncode == 1
    assert "projection/v2.0.0/schema.json' not found" in done.stdout


def test_what_refers_to_an_unknown_schema_fails(node, tmp_path):
    document = json.loads((EXAMPLES / "item-codec.json").read_text())
    document["properties"]["mlm:input"][0]["pre_processing_function"] = {
        "format": "python",
        "expression": "a:b",
    }
    (tmp_path / "item.json").write_text(json.dumps(document))
    done = node(tmp_path, "--schemas", SCHEMAS)
    assert done.returncode == 1
    assert "pre_processing_function" in done.stdout


def test_stores_are_left_out(tmp_path):
    for name in ("item.json", "a.latent.zarr/zarr.json", "deep/er/catalog.json", "area.geojson"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = script.stac_files([tmp_path])
    assert sorted(p.relative_to(tmp_path).as_posix() for p in found) == [
        "area.geojson",
        "deep/er/catalog.json",
        "item.json",
    ]


def test_stand_ins_reject_everything_at_every_pointer():
    schemas = {
        "https://a/s.json": {
            "$ref": "https://b/t.json#/definitions/x",
            "items": [
                {"$ref": "https://b/t.json"},
                {"$ref": "#/here"},
                {"$ref": "u.json#/definitions/x/y%20z"},
            ],
            "not": {"$ref": "http://json-schema.org/draft-07/schema#"},
        }
    }
    assert script.stand_ins(schemas) == {
        "https://b/t.json": {"$id": "https://b/t.json", "not": {}, "definitions": {"x": {"not": {}}}},
        "https://a/u.json": {
            "$id": "https://a/u.json",
            "not": {},
            "definitions": {"x": {"y z": {"not": {}}}},
        },
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--validator", "no-such-validator", "{tmp}"], "'no-such-validator' not found; npm install -g"),
        (["--validator", "there", "{tmp}/gone.json"], "no such file: "),
        (["--validator", "there", "{tmp}"], "no JSON files in"),
        (["--validator", "there", "--schemas", "{tmp}", str(EXAMPLES)], "cannot read"),
    ],
)
def test_what_cannot_be_run(args, message, capsys, monkeypatch, tmp_path):
    def which(name, **_):
        return None if name.startswith("no-") else f"/bin/{name}"

    monkeypatch.setattr(script.shutil, "which", which)
    assert script.main([arg.format(tmp=tmp_path) for arg in args]) == 2
    assert message in capsys.readouterr().err


def test_node_is_needed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CatalogError, match="node is not installed"):
        script.find_validator()


def test_the_examples_pin_each_other():
    links = [
        link
        for path in PUBLISHED.glob("item*.json")
        for link in json.loads(path.read_text())["links"]
        if link["rel"] in ("latent:decoder", "latent:encoder")
    ]
    assert len(links) > 8
    for link in links:
        codec = (PUBLISHED / link["href"]).read_bytes()
        assert link["file:size"] == len(codec)
        assert link["file:checksum"] == "1220" + hashlib.sha256(codec).hexdigest()
        assert link["latent:space"] in json.loads(codec)["properties"]["latent:spaces"]
