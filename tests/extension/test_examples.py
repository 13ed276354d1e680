"""The examples of the extension: each field of the schema stands in one, and each leads to data that decode as it says."""

import json
import re
import warnings
from pathlib import Path

import pystac
import pytest

import stac_latent
from stac_latent.errors import CatalogError
from stac_latent.secure import Key, use
from stac_latent.validation import latent_schema, validate

FOLDER = Path(__file__).parents[2] / "extensions" / "latent"
SCHEMAS = FOLDER.parents[2] / "shared" / "schemas"
PATHS = sorted((FOLDER / "examples").glob("*.json"))
ITEMS = [p for p in PATHS if p.name.startswith("item")]
DEFINITIONS = json.loads(latent_schema().read_text())["definitions"]


def names(*path):
    found = DEFINITIONS
    for key in path:
        found = found[key]
    return {name for name in found["properties"] if name.startswith("latent:")}


def used(objects):
    return {name for one in objects for name in one if name.startswith("latent:")}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_examples_are_valid(path):
    found = validate(path, SCHEMAS if SCHEMAS.is_dir() else None)
    assert [str(p) for p in found if p.keyword != "unavailable"] == []


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_examples_are_laid_out_as_javascript_writes_them(path):
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    assert not re.search(r"^ .*(\d\.0|\de-0\d),?$", text, re.MULTILINE)


def test_every_field_stands_in_an_example():
    documents = [json.loads(p.read_text()) for p in PATHS]
    assets = [a for d in documents for a in d.get("assets", {}).values()]
    items = [d["properties"] for d in documents if d["type"] == "Feature"]
    assert used(assets) == {n for part in ("core", "store", "quality") for n in names(part)}
    assert used(items) == names("item_properties", "allOf", 0)
    assert used(link for d in documents for link in d["links"]) == names("link", "allOf", 0)
    bands = DEFINITIONS["asset_fields"]["properties"]["bands"]["items"]["properties"]
    assert used(b for a in assets for b in a.get("bands", ())) == set(bands)
    summaries = [d["summaries"] for d in documents if d["type"] == "Collection"]
    assert used(summaries) == names("summaries")
    features = {n for a in assets for n in a.get("latent:required_features", ())}
    assert features == set(DEFINITIONS["core"]["properties"]["latent:required_features"]["items"]["enum"])
    methods = {a["latent:quantization"] for a in assets if "latent:quantization" in a}
    assert methods >= {"none", "linear", "power", "per_vector"}


def test_every_example_decodes_to_what_it_says():
    use(Key(bytes(range(32))))
    items = [pystac.Item.from_file(str(p)) for p in ITEMS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = stac_latent.verify(items)
    assert {(row.item, row.asset): row.problems for row in rows if row.problems} == {}
    latents = [(i.id, k) for i in items for k, a in i.assets.items() if "latent" in (a.roles or ())]
    assert sorted((row.item, row.asset) for row in rows) == sorted(latents)
    assert all(row.compared or row.adopted for row in rows)


@pytest.mark.parametrize("path", ITEMS, ids=lambda p: p.stem)
def test_every_example_loads(path):
    use(Key(bytes(range(32))))
    item = pystac.Item.from_file(str(path))
    for key, asset in item.assets.items():
        fields = asset.extra_fields
        if "latent" not in (asset.roles or ()):
            continue
        if "latent:columns" in fields:
            table = stac_latent.load_table(item, asset=key)
            assert len(table) == 12
        elif fields["latent:kind"] == "codec":
            band = fields["bands"][0]["name"]
            assert int(stac_latent.load(item, asset=key, bands=[band])[band].max()) > 0
        else:
            assert abs(stac_latent.load(item, asset=key, upto="latent")["latent"]).max() > 0


def test_a_table_that_needs_more_is_refused():
    item = pystac.Item.from_file(str(FOLDER / "examples" / "item-table.json"))
    (key,) = item.assets
    item.assets[key].extra_fields["latent:required_features"] = ["hologram"]
    with pytest.raises(
        CatalogError, match="asset 'embeddings' of item 'points' needs a reader that knows 'hologram'"
    ):
        stac_latent.load_table(item)


def test_all_that_examples_lead_to_is_there_and_nothing_else():
    wanted = set()
    for path in PATHS:
        document = json.loads(path.read_text())
        for one in (*document.get("assets", {}).values(), *document["links"]):
            if not one["href"].startswith("http"):
                target = (path.parent / one["href"]).resolve()
                assert target.exists(), f"{path.name}: {one['href']}"
                wanted.add(target)
    files = [p.resolve() for p in (FOLDER / "data").rglob("*") if p.is_file()]
    left = [p for p in files if not any(p == w or w in p.parents for w in wanted)]
    assert {p.name for p in left} <= {"tessera_metadata.json", "grid_-73.75_40.65.tiff"}
