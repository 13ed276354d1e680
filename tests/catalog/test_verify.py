"""The verb ``verify``: whole catalogues pass; whatever is changed is named, and does not stop the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from core_support import make_scene, scene_field, small_codec

from stac_latent import encode
from stac_latent.catalog.verify import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    items = [make_scene(folder / "raw", scene_field((40, 48), i), name=f"s{i}").item for i in range(3)]
    encode(items, small_codec("dct"), folder / "cat")
    encode(items[0], small_codec("zstd"), folder / "cat", asset="exact", payload="plain")
    return folder


@pytest.fixture
def cat(made, tmp_path):
    shutil.copytree(made / "cat", tmp_path / "cat")
    return tmp_path / "cat"


def failed(cat):
    return {(r.item, r.asset): r.problems for r in verify(str(cat / "catalog.json")) if r.problems}


def test_a_whole_catalogue(made, cat):
    rows = verify(str(cat / "catalog.json"))
    assert sorted((r.item, r.asset) for r in rows) == [
        ("s0", "exact"),
        ("s0", "latent"),
        ("s1", "latent"),
        ("s2", "latent"),
    ]
    assert [r.problems for r in rows] == [[]] * 4
    assert all(r.compared for r in rows)
    assert {"latent:psnr", "latent:band_psnr", "latent:bits_per_pixel"} < set(rows[0].measured)


def test_without_the_source_everything_is_decoded(made, cat):
    for path in (cat / "scenes").rglob("s?.json"):
        doc = json.loads(path.read_text())
        for key in ("red", "nir"):
            doc["assets"][key]["href"] = f"/nowhere/{key}.tif"
        path.write_text(json.dumps(doc))
    rows = verify(str(cat / "catalog.json"))
    assert [(r.problems, r.compared) for r in rows] == [([], False)] * 4


def test_what_is_changed_is_named(cat):
    shard = cat / "scenes/s0/latent.zarr/latent/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[60] ^= 1
    shard.write_bytes(data)
    item = cat / "scenes/s1/s1.json"
    doc = json.loads(item.read_text())
    doc["assets"]["latent"]["latent:psnr"] += 1
    item.write_text(json.dumps(doc))
    (cat / "scenes/s2/s2.json").write_text("{")
    found = failed(cat)
    assert "do not decode" in found["s0", "latent"][0] or "does not match" in found["s0", "latent"][0]
    assert "latent:psnr is" in found["s1", "latent"][0]
    (text,) = found[str(cat / "scenes/s2/s2.json"), ""]
    assert "is not JSON" in text
    assert len(found) == 3  # the exact asset of s0 passes


def test_a_mask_that_was_changed_and_bytes_that_were_added(cat):
    shutil.rmtree(cat / "scenes/s0/latent.zarr/mask/c")
    (cat / "scenes/s1/latent.zarr/more").write_text("x")
    found = failed(cat)
    assert "differs from the raw files" in found["s0", "latent"][-1]
    assert "bytes are stored, the item declares" in found["s1", "latent"][0]


def test_a_bundle_that_was_changed_fails_all_that_need_it(cat):
    folder = next(p for p in (cat / "codecs").iterdir() if p.name.startswith("dct"))
    path = folder / "codec.json"
    path.write_text(path.read_text().replace('"step"', '"step" '))
    found = failed(cat)
    assert sorted(found) == [("s0", "latent"), ("s1", "latent"), ("s2", "latent")]
    assert "has checksum" in found["s0", "latent"][0]


def test_coordinates_and_attributes(cat):
    path = cat / "scenes/s0/latent.zarr/zarr.json"
    doc = json.loads(path.read_text())
    doc["attributes"]["latent:dimensions"] = 7
    path.write_text(json.dumps(doc))
    shutil.copy(
        next(p for p in (cat / "scenes/s1/latent.zarr/x").rglob("0")),
        next(p for p in (cat / "scenes/s1/latent.zarr/y").rglob("0")),
    )
    found = failed(cat)
    assert any("latent:dimensions is 7 in the store, 128 in the item" in p for p in found["s0", "latent"])
    assert ("s1", "latent") in found


def test_the_command(cat, capsys, monkeypatch):
    from typer.testing import CliRunner

    from stac_latent.cli import app

    good = CliRunner().invoke(app, ["verify", str(cat / "catalog.json"), "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["failed"] == 0
    shutil.rmtree(cat / "scenes/s1/latent.zarr")
    bad = CliRunner().invoke(app, ["verify", str(cat / "catalog.json")])
    assert bad.exit_code == 1
    assert "4 checked, 1 failed" in bad.stdout
    assert Path(cat).exists()
