"""Assets of bands of several native grids: passed over when they are there, verified again, encrypted as one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pystac
import pytest
from test_native_catalog import chain, decoded, sentinel

from stac_latent import encode, secure
from stac_latent.catalog.verify import verify
from stac_latent.cube.contract import LatentRef
from stac_latent.cube.natives import lattices_of
from stac_latent.errors import EncryptionError, StacLatentError
from stac_latent.secure import Key

KEY = Key(bytes(range(32)))
ITEM = "scenes/scene/scene.json"
NAMES = ("B02", "B05", "B01")
"""Bands of 10, 20 and 60 m; the latter has a group of its own."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("trust")
    item, _ = sentinel(folder / "raw", (90, 110))
    item.collection_id = "scenes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secure, "_ring", {})
        encode(item, chain(), folder / "cat", key="open", psnr=44)
        encode(item, chain(), folder / "cat", key="sealed", psnr=44, encrypt=KEY)
    return item, folder / "cat"


@pytest.fixture
def cat(made, tmp_path, monkeypatch):
    monkeypatch.setattr(secure, "_ring", {KEY.id: KEY})
    shutil.copytree(made[1], tmp_path / "cat")
    return tmp_path / "cat"


def only(cat, key):
    item = pystac.Item.from_file(str(cat / ITEM))
    item.assets = {k: a for k, a in item.assets.items() if k == key}
    return item


def test_the_same_pixels(cat):
    for name in NAMES:
        np.testing.assert_array_equal(
            decoded(only(cat, "sealed"), name)[0], decoded(only(cat, "open"), name)[0]
        )
    folder = cat / "scenes/scene/sealed.zarr"
    assert (folder / "manifest").is_file()
    assert (folder / "g60/manifest").is_file()
    nonces = [
        p.read_bytes()[:12] for p in folder.rglob("*") if p.is_file() and not p.name.endswith("zarr.json")
    ]
    assert len(set(nonces)) == len(nonces) > 4


@pytest.mark.parametrize("part", ["latent/c/0/0/0", "manifest"])
def test_groups_cannot_change_places(cat, part):
    first, second = (cat / "scenes/scene/sealed.zarr" / group / part for group in ("", "g60"))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    for name in NAMES:
        with pytest.raises(EncryptionError, match="is the chunk of another place or asset"):
            decoded(only(cat, "sealed"), name)


def test_a_group_that_was_taken_away(cat):
    (cat / "scenes/scene/sealed.zarr/g60/manifest").unlink()
    decoded(only(cat, "sealed"), "B05")
    with pytest.raises(EncryptionError, match="has no manifest"):
        decoded(only(cat, "sealed"), "B01")


@pytest.mark.parametrize("field", ["proj:transform", "proj:shape", "latent:dimensions"])
def test_changed_places_do_not_open_the_key(cat, field):
    item = only(cat, "sealed")
    band = next(b for b in item.assets["sealed"].extra_fields["bands"] if b["name"] == "B01")
    band[field] = 7 if field == "latent:dimensions" else [v * 2 for v in band[field]]
    with pytest.raises(StacLatentError, match="or the asset's fields were changed"):
        decoded(item, "B02")


def test_wrong_key(cat, monkeypatch):
    monkeypatch.setattr(secure, "_ring", {})
    with pytest.raises(EncryptionError, match=f"encrypted for key {KEY.id}"):
        decoded(only(cat, "sealed"), "B01")


def test_verify(cat):
    rows = verify(str(cat / "catalog.json"))
    assert [(r.asset, r.problems, r.compared) for r in rows] == [("open", [], True), ("sealed", [], True)]
    plain, sealed = (r.measured for r in rows)
    assert plain.pop("latent:bits_per_pixel") < sealed.pop("latent:bits_per_pixel")
    assert plain == sealed
    assert len(plain["latent:band_psnr"]) == 5
    doc = json.loads((cat / ITEM).read_text())
    doc["assets"]["open"]["latent:band_max_error"][4] += 1
    (cat / ITEM).write_text(json.dumps(doc))
    chunk = next(p for p in (cat / "scenes/scene/sealed.zarr/g60/latent/c").rglob("*") if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    chunk.write_bytes(data)
    first, second = verify(str(cat / "catalog.json"))
    assert "latent:band_max_error is" in first.problems[0]
    assert "g60" in second.problems[0] or "does not decrypt" in second.problems[0]


def test_without_the_source_every_group_is_decoded(cat):
    doc = json.loads((cat / ITEM).read_text())
    for name, asset in doc["assets"].items():
        if name.startswith("B"):
            asset["href"] = f"/nowhere/{name}.tif"
    (cat / ITEM).write_text(json.dumps(doc))
    assert [(r.problems, r.compared) for r in verify(str(cat / "catalog.json"))] == [([], False)] * 2
    chunk = next(p for p in (cat / "scenes/scene/open.zarr/g60/latent/c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-9])
    assert [bool(r.problems) for r in verify(str(cat / "catalog.json"))] == [True, False]


def test_a_second_run_passes_over(made, cat):
    item, _ = made
    before = {p: p.stat().st_mtime_ns for p in cat.rglob("c/**/*") if p.is_file()}
    for key, options in (("open", {}), ("sealed", {"encrypt": KEY})):
        (again,) = encode(item, chain(), cat, key=key, psnr=44, **options)
        assert again.assets[key].extra_fields == only(cat, key).assets[key].extra_fields
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [r.part for r in lattices_of(LatentRef.from_item(only(cat, "sealed")))] == [0, 1]
