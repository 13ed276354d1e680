"""The pages in ``extensions/latent/spec`` are enough: readers that were written from them decode the kit, bit for bit.

Most of the cases take these readers seconds, so that some stand for all here; ``python tests/extension/test_spec.py`` runs all.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from readers import encryption, space, store

ROOT = Path(__file__).parents[2]
KIT, SPEC = ROOT / "extensions/latent/conformance", ROOT / "extensions/latent/spec"
CASES = {c["name"]: c for c in json.loads((KIT / "manifest.json").read_text())["cases"]}
SOME = [
    "fitted", "latents", "nodata-int16-zero", "nodata-uint8", "nodata-float32", "native-groups", "plain", "unsharded", "plain-symbols",
    "embedding-power", "embedding-linear", "bound-kept", "bound-fold", "lossless-bits", "lossless-float", "rans-latents", "date-latents", "rans-dct", "rans-wavelet", "rans-rotated", "chip-1", "encrypted", "date",
    *(n for n, c in CASES.items() if c["outcome"] == "refused"),
]  # fmt: skip
PRODUCTS = ROOT / "stac_latent/products"


def runner():
    spec = importlib.util.spec_from_file_location("kit_run_for_spec", KIT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def file_of(arrays):
    head = [{"name": n, "data_type": a.dtype.name, "shape": list(a.shape)} for n, a in arrays.items()]
    return (
        json.dumps({"arrays": head}).encode()
        + b"\n"
        + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
    )


def wrong(case):
    """What the reader does wrong in a case; nothing where it passes."""
    try:
        got = file_of(store.decode(KIT / case["folder"]))
    except (store.Refused, encryption.Changed) as exc:
        return "" if case["outcome"] == "refused" else str(exc)
    if case["outcome"] == "refused":
        return "was decoded; it must be refused"
    want = gzip.decompress((KIT / case["expected"]).read_bytes())
    return runner().compare(got, want, case.get("tolerance", 0))


@pytest.mark.parametrize("name", SOME)
def test_a_reader_of_the_texts_passes(name):
    assert wrong(CASES[name]) == ""


def test_readers_import_nothing_of_the_package():
    for path in [*(ROOT / "tests/readers").glob("*.py"), ROOT / "tests/lin_reference.py"]:
        assert "import stac_latent" not in (text := path.read_text())
        assert "from stac_latent" not in text


def test_vectors_of_the_page_on_spaces_follow_from_its_steps():
    page = (SPEC / "space.md").read_text()
    first, second, product = re.findall(r"`(sha256:[0-9a-f]{64})`", page)
    document = re.search(r"```json\n(.*?)```", page, re.DOTALL)[1]
    shown = re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)
    digest, data = space.space_of_codec(document, {})
    assert (digest, data.decode()) == (first, shown[0])
    taps = np.array([[1, -2], [3, 4]], "<i2").tobytes()
    assert taps.hex() == "0100feff03000400"
    digest, data = space.space_of_codec(document, {"1.taps": ("<i2", [2, 2], taps)})
    assert (digest, data) == (second, shown[0].encode() + b"1.taps:<i2:[2, 2]" + taps)
    digest, data = space.space_of_product(
        "Google DeepMind", "AlphaEarth Foundations Satellite Embedding", "1"
    )
    assert (digest, data.decode()) == (product, shown[1])


@pytest.mark.parametrize(
    "folder",
    [
        *(ROOT / "stac_latent/bundles").iterdir(),
        *KIT.glob("codecs/*"),
        *(ROOT / "tests/golden/v1").glob("d*t/"),
    ],
    ids=lambda p: p.name,
)
def test_digest_of_every_bundle_follows_from_the_page(folder):
    bundle = space.Bundle((folder / "codec.json").read_bytes(), (folder / "codec.safetensors").read_bytes())
    assert (
        space.space_of_codec(
            (folder / "codec.json").read_bytes(), space.tensors((folder / "codec.safetensors").read_bytes())
        )[0]
        == bundle.doc["space"]
    )


def test_canonical_json_is_that_of_the_code():
    from stac_latent.system.digests import canonical_json

    given = {
        "b": [1.0, 0.12, 1e-05, 1.5e16, 1e16, 768, -0.0, None, True],
        "a": 'ü"\\\n\t\x01\x7f/',
        "": {"z": {}, "y": []},
    }
    assert space.canonical(space.parse(json.dumps(given))).encode() == canonical_json(given)


def test_registry_of_spaces():
    """Digests are those of the page, and what adopts a product writes its texts to the letter."""
    from stac_latent.catalog.adopt.products import space_digest

    doc = json.loads((ROOT / "extensions/latent/spaces.json").read_text())
    assert doc["format"] == "latent-spaces-1"
    known = {}
    for row in doc["spaces"]:
        facts = {k: row[k] for k in ("producer", "product", "version")}
        assert row["space"] == space.space_of_product(**facts)[0] == space_digest(facts)
        assert row["about"].startswith("https://")
        known.setdefault((row["producer"], row["product"]), set()).add(row["version"])
    assert len({r["space"] for r in doc["spaces"]}) == len(doc["spaces"])
    told = {"alphaearth": "1", "alphaearth-zarr": "1", "alphaearth-points": "1", "climatic-regions": "v1"}
    for path in PRODUCTS.glob("*.json"):
        rule = json.loads(path.read_text())["space"]
        if path.stem in told:
            assert told[path.stem] == rule["version"]
        if path.stem in told or path.stem.startswith(("tessera", "clay")):
            assert (rule["producer"], rule["product"]) in known, path.stem
            assert (
                not isinstance(rule["version"], str)
                or rule["version"] in known[rule["producer"], rule["product"]]
            )


def test_context_of_the_page_on_encryption():
    from readers import encryption

    asset = json.loads((KIT / "cases/encrypted/encrypted.json").read_text())["assets"]["latent"]
    page = (SPEC / "encryption.md").read_text()
    assert re.search(r"```json\n(.*?)\n```", page, re.DOTALL)[1] == encryption.context(asset).decode()
    assert encryption.key_id(bytes(range(32))) == asset["latent:key_id"]
    assert (
        hashlib.sha256(b"stac-latent key id 1" + bytes(range(32)))
        .hexdigest()
        .startswith(asset["latent:key_id"])
    )


def test_context_of_whole_numbers_and_of_a_crs_without_a_code():
    from pyproj import CRS
    from readers import encryption

    from stac_latent.cube.ref import encryption_of

    asset = json.loads((KIT / "cases/encrypted/encrypted.json").read_text())["assets"]["latent"]
    known = encryption_of(asset, "latent").context
    asset["bands"][0]["gsd"] = 10
    assert encryption_of(asset, "latent").context == encryption.context(asset) == known
    wkt = CRS("+proj=laea +lat_0=51 +lon_0=9 +datum=WGS84").to_wkt()
    asset |= {"proj:code": None, "proj:wkt2": wkt}
    bound = encryption_of(asset, "latent").context
    assert bound == encryption.context(asset)
    assert json.loads(bound)["proj:wkt2"] == wkt


if __name__ == "__main__":
    for case in CASES.values():
        said = wrong(case)
        print("FAIL" if said else "pass", case["name"], said, flush=True)
