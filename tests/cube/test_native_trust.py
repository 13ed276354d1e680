"""Assets of bands of several native grids: passed over when they are there, verified again, encrypted as one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pystac
import pytest
import rasterio
from core_support import hold_keys
from test_native_catalog import chain, decoded, sentinel

from stac_latent import encode
from stac_latent.catalog.verify import verify
from stac_latent.cube.read.band_views import lattices_of
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, EncryptionError, StacLatentError
from stac_latent.secure import Key
from stac_latent.system.session import own_session

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
    with own_session():
        encode(item, chain(), folder / "cat", asset="open", psnr=44)
        encode(item, chain(), folder / "cat", asset="sealed", psnr=44, key=KEY)
    return item, folder / "cat"


@pytest.fixture
def cat(made, tmp_path):
    shutil.copytree(made[1], tmp_path / "cat")
    with own_session():
        hold_keys({KEY.id: KEY})
        yield tmp_path / "cat"


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


def test_wrong_key(cat):
    hold_keys({})
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
    for key, options in (("open", {}), ("sealed", {"key": KEY})):
        (again,) = encode(item, chain(), cat, asset=key, psnr=44, **options)
        assert again.assets[key].extra_fields == only(cat, key).assets[key].extra_fields
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [r.part for r in lattices_of(LatentRef.from_item(only(cat, "sealed")))] == [0, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"proj:transform": 0.5},
        {"proj:transform": [{"a": 1}, 0, 0, 0, 0, 0]},
        {"proj:transform": [float("nan"), 0, 0, 0, -60, 0]},
        {"proj:transform": [0, 0, 0, 0, 0, 0]},
        {"proj:transform": [1e-300, 0, 4e5, 0, 1e-300, 5e6]},
        {"proj:shape": [[], []]},
        {"proj:shape": [2**40, 1]},
        {"latent:group": [1]},
        {"latent:group": 0},
        {"latent:dimensions": "x"},
        {"latent:dimensions": -1},
    ],
)
@pytest.mark.parametrize("name", ["B05", "B01"])
def test_places_that_are_none(cat, change, name):
    item = only(cat, "open")
    bands = item.assets["open"].extra_fields["bands"]
    bands[[b["name"] for b in bands].index(name)] |= change
    with pytest.raises(
        StacLatentError,
        match=r"do not tell where it is|maps no pixels|lie on no grids|not whole ones|no grid|declares",
    ):
        decoded(item, name)


def test_residuals_are_encrypted_and_verified(made, tmp_path, monkeypatch):
    """A lossless asset of several grids: equal with the key, and verified against its bound."""
    hold_keys({KEY.id: KEY})
    item, folder = made[0], tmp_path / "cat"
    encode(item, chain(), folder, asset="sealed", psnr=44, error_bound=0, key=KEY)
    for name in NAMES:
        with rasterio.open(item.assets[name].href) as raw:
            np.testing.assert_array_equal(decoded(only(folder, "sealed"), name)[0], raw.read(1))
    (row,) = verify(str(folder / "catalog.json"))
    assert (row.problems, row.compared, row.measured["latent:max_error"]) == ([], True, 0.0)
    before = only(folder, "sealed").assets["sealed"].extra_fields
    (again,) = encode(item, chain(), folder, asset="sealed", psnr=44, error_bound=0, key=KEY)
    assert again.assets["sealed"].extra_fields == before
    with pytest.raises(CatalogError, match="already has an asset 'sealed'"):
        encode(item, chain(), folder, asset="sealed", psnr=44, error_bound=1, key=KEY)
    paths = [p for p in (folder / "scenes/scene/sealed.zarr").rglob("residual/c/**/*") if p.is_file()]
    assert {p.relative_to(folder / "scenes/scene/sealed.zarr").parts[0] for p in paths} == {"residual", "g60"}
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    (row,) = verify(str(folder / "catalog.json"))
    assert "residual/c/" in row.problems[0]
    assert "does not decrypt" in row.problems[0]


def test_verify_holds_the_bound_against_the_source(made, tmp_path):
    encode(made[0], chain(), tmp_path, psnr=44, error_bound=3)
    path = tmp_path / ITEM
    doc = json.loads(path.read_text())
    doc["assets"]["latent"]["latent:error_bounds"] = [0.5] * 5
    path.write_text(json.dumps(doc))
    assert "do not keep the error bound" in verify(str(tmp_path / "catalog.json"))[0].problems[0]
    doc["assets"]["latent"]["latent:error_bounds"] = [3]
    path.write_text(json.dumps(doc))
    assert (
        "do not give one bound for each of 5 bands" in verify(str(tmp_path / "catalog.json"))[0].problems[0]
    )
