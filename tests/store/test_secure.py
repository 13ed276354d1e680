"""Encrypted assets: equal to plain ones with the key, and nothing but errors without it or after any change."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import xarray as xr
from core_support import hold_keys, make_scene, scene_field, small_codec

from stac_latent import encode, load
from stac_latent.catalog.verify import verify
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, EncryptionError, StacLatentError
from stac_latent.secure import Encrypt, Key, keygen
from stac_latent.store.zarr.group import StoreLayout
from stac_latent.system.session import own_session

pytest.importorskip("cryptography")
KEY, OTHER = Key(bytes(range(32))), Key(bytes(32))


@pytest.fixture(autouse=True)
def _own_ring(monkeypatch):
    monkeypatch.delenv("STAC_LATENT_KEY", raising=False)
    with own_session():
        hold_keys({KEY.id: KEY})
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secure")
    scene = make_scene(folder / "raw", scene_field((70, 90)))
    layout = StoreLayout(4, 8)
    with own_session():
        encode(
            scene.item,
            small_codec("dct"),
            folder / "cat",
            asset="plain-zstd",
            payload="plain",
            key=KEY,
            layout=layout,
        )
        encode(scene.item, small_codec("dct"), folder / "cat", asset="coded", key=KEY, layout=layout)
        encode(scene.item, small_codec("dct"), folder / "cat", asset="open", layout=layout)
    return folder / "cat"


@pytest.fixture
def cat(made, tmp_path):
    shutil.copytree(made, tmp_path / "cat")
    return tmp_path / "cat"


def item_of(cat):
    return pystac.Item.from_file(str(cat / "scenes/scene/scene.json"))


def chunks(cat, key="coded"):
    return sorted(p for p in (cat / f"scenes/scene/{key}.zarr/latent/c").rglob("*") if p.is_file())


@pytest.mark.parametrize("key", ["coded", "plain-zstd"])
def test_with_the_key_pixels_are_those_of_the_plain_asset(cat, key):
    item = item_of(cat)
    expected = LatentReader.open(item, "open").read_field()
    reader = LatentReader.open(item, key)
    np.testing.assert_array_equal(reader.read_field(), expected)
    np.testing.assert_array_equal(reader.read_field(((33, 50), (8, 70))), expected[:, 33:50, 8:70])
    fields = item.assets[key].extra_fields
    assert fields["latent:psnr"] == item.assets["open"].extra_fields["latent:psnr"]
    assert fields["latent:space"] == item.assets["open"].extra_fields["latent:space"]
    assert (fields["latent:encryption"], fields["latent:key_id"]) == ("aes-256-gcm-1", KEY.id)


def test_a_window_reads_its_chunks_alone(cat):
    for path in chunks(cat)[1:]:
        path.unlink()
    reader = LatentReader.open(item_of(cat), "coded")
    assert reader.read_field(((0, 20), (0, 20))).any()
    with pytest.raises(StacLatentError, match="is missing, which the manifest lists"):
        reader.read_field()


def test_nothing_of_the_pixels_is_stored(cat):
    """Chunks, mask and coordinates: none is a zstd frame or payload, and equal chunks differ."""
    folder = cat / "scenes/scene/coded.zarr"
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json"]
    assert {p.relative_to(folder).parts[0] for p in files} >= {"latent", "mask", "x", "y", "manifest"}
    for path in files:
        data = path.read_bytes()
        assert b"SLR1" not in data and b"\x28\xb5\x2f\xfd" not in data[:40]  # noqa: PT018
    nonces = [p.read_bytes()[:12] for p in files]
    assert len(set(nonces)) == len(nonces)


def test_wrong_key_no_key_and_the_right_one(cat, tmp_path, monkeypatch):
    item = item_of(cat)
    hold_keys({})
    with pytest.raises(
        EncryptionError,
        match=rf"encrypted for key {KEY.id}; none is at hand. Pass key= \(--key-file\), or name",
    ):
        load(item, asset="coded")
    with pytest.raises(EncryptionError, match=f"encrypted for key {KEY.id}; at hand: {OTHER.id}"):
        load(item, asset="coded", key=OTHER)
    hold_keys({KEY.id: OTHER})
    with pytest.raises(EncryptionError, match="does not open latent:wrapped_key"):
        load(item, asset="coded")
    hold_keys({})
    path = tmp_path / "k"
    found = keygen(path)
    path.write_text(path.read_text().replace(path.read_text().split(":")[1].strip(), _b64(KEY)))
    monkeypatch.setenv("STAC_LATENT_KEY", str(path))
    assert load(item, asset="coded").red.values.any()
    assert found.id != KEY.id


def _b64(key):
    import base64

    return base64.b64encode(key.secret).decode()


def test_any_changed_byte_is_refused(cat):
    item, rng = item_of(cat), np.random.default_rng(0)
    folder = cat / "scenes/scene/coded.zarr"
    files = [p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] not in ("x", "y")]
    for path in files:
        good = path.read_bytes()
        for _ in range(3):
            bad = bytearray(good)
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            if path.name == "zarr.json" and path.parent != folder:
                continue  # the gathered metadata is what is read
            with pytest.raises(StacLatentError):
                LatentReader.open(item, "coded").read_field()
        path.write_bytes(good)
    assert LatentReader.open(item, "coded").read_field().any()


def test_chunks_cannot_change_places(cat):
    first, second = chunks(cat)[:2]
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    with pytest.raises(EncryptionError, match="is the chunk of another place or asset"):
        LatentReader.open(item_of(cat), "coded").read_field()


def test_a_mask_that_was_taken_away_is_missed(cat):
    shutil.rmtree(cat / "scenes/scene/coded.zarr/mask/c")
    with pytest.raises(StacLatentError, match="is missing, which the manifest lists"):
        LatentReader.open(item_of(cat), "coded").read_field()


@pytest.mark.parametrize(
    "fields",
    [
        {"proj:transform": [10.0, 0.0, 0.0, 0.0, -10.0, 0.0]},
        {"latent:quantization_scale": [2.0]},
        {"latent:wrapped_key": "AAAA"},
    ],
)
def test_changed_fields_do_not_open_the_key(cat, fields):
    item = item_of(cat)
    item.assets["coded"].extra_fields |= fields
    with pytest.raises(EncryptionError, match="or the asset's fields were changed"):
        LatentReader.open(item, "coded").read_field()


def test_other_forms_and_key_frames_are_refused(cat, tmp_path):
    item = item_of(cat)
    item.assets["coded"].extra_fields["latent:encryption"] = "rot13"
    with pytest.raises(CatalogError, match="is encrypted with 'rot13'; this version reads 'aes-256-gcm-1'"):
        LatentRef.from_item(item, "coded")
    with pytest.raises(CatalogError, match="leave out references= or key="):
        encode(item, small_codec("dct"), tmp_path / "x", key=KEY, references=2)


def test_a_data_key_that_was_read_encrypts_nothing():
    stage = Encrypt.new(KEY, b"")
    stage.forward(b"a", "p")
    with pytest.raises(EncryptionError, match="is not added to"):
        Encrypt.open(stage.wrapped, KEY, b"").forward(b"b", "q")
    with pytest.raises(EncryptionError, match="does not decrypt"):
        stage.inverse(b"short", "p")


def test_without_the_package(cat, tmp_path, monkeypatch):
    item = item_of(cat)
    for name in [m for m in sys.modules if m.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    text = r"encryption needs the package cryptography: pip install 'stac-latent\[secure\]'"
    with pytest.raises(EncryptionError, match=text):
        load(item, asset="coded")
    with pytest.raises(EncryptionError, match=text):
        encode(_raw(item), small_codec("dct"), tmp_path / "new", key=KEY)
    assert not (tmp_path / "new/scenes").exists()
    assert load(item, asset="open").red.values.any()


def test_key_files(tmp_path):
    path = tmp_path / "my.key"
    key = keygen(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Key.read(path) == key != keygen(tmp_path / "second.key")
    assert key.secret.hex() not in repr(key)
    with pytest.raises(EncryptionError, match="keys are not replaced"):
        keygen(path)
    (tmp_path / "no.key").write_text("hello")
    with pytest.raises(EncryptionError, match="is no key file"):
        Key.read(tmp_path / "no.key")
    with pytest.raises(EncryptionError, match="cannot read a key"):
        Key.read(tmp_path / "gone.key")
    with pytest.raises(EncryptionError, match="a key has 32 bytes"):
        Key(b"short")


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b"\xef\xbb\xbf" + b,
        lambda b: b.replace(b"\n", b"\r\n"),
        lambda b: b"  " + b + b"\n\n",
        lambda b: b.decode().encode("utf-16"),
        lambda b: b.strip(),
    ],
    ids=["byte order mark", "CRLF", "spaces", "UTF-16", "no newline"],
)
def test_key_files_that_went_through_an_editor(tmp_path, change):
    key = keygen(tmp_path / "my.key")
    (tmp_path / "other.key").write_bytes(change((tmp_path / "my.key").read_bytes()))
    assert Key.read(tmp_path / "other.key") == key


def test_verify_without_the_key(cat, monkeypatch):
    """Nothing encrypted can be said to be sound without its key; sizes and bundles are checked all the same."""
    hold_keys({})
    rows = {r.asset: r for r in verify(str(cat / "catalog.json"))}
    assert (rows["open"].problems, rows["open"].locked) == ([], False)
    (text,) = rows["coded"].problems
    assert rows["coded"].locked
    assert (
        f"encrypted for key {KEY.id}, which is not at hand: its size and its bundle alone were checked"
        in text
    )
    rows = verify(str(cat / "catalog.json"), locked=True)
    assert [(r.problems, r.compared, r.locked) for r in rows] == [
        ([], r.asset == "open", r.asset != "open") for r in rows
    ]
    chunks(cat)[0].unlink()
    rows = {r.asset: r for r in verify(str(cat / "catalog.json"), locked=True)}
    assert "bytes are stored, the item declares" in rows["coded"].problems[0]


def test_verify_with_the_key_names_what_was_changed(cat):
    path = chunks(cat)[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    rows = {r.asset: r for r in verify(str(cat / "catalog.json"), key=KEY)}
    assert "EncryptionError: latent/c/" in rows["coded"].problems[0]
    assert not rows["plain-zstd"].problems


def test_a_store_that_is_opened_by_its_path(cat, monkeypatch):
    href = cat / "scenes/scene/coded.zarr"
    cube = xr.open_dataset(href, engine="stac-latent", upto="field")
    np.testing.assert_array_equal(cube.red, load(item_of(cat), asset="open").red[0])
    hold_keys({})
    href = shutil.copytree(href, cat / "elsewhere.zarr")  # readers that are open stay open
    with pytest.raises(EncryptionError, match="none is at hand"):
        xr.open_dataset(href, engine="stac-latent", upto="field").load()


def test_verify_and_a_second_run(cat, made):
    rows = verify(str(cat / "catalog.json"))
    assert [(r.problems, r.compared) for r in rows] == [([], True)] * 3
    item = item_of(made)
    (again,) = encode(_raw(item), small_codec("dct"), made, asset="coded", key=KEY, layout=StoreLayout(4, 8))
    assert by_links(again) == by_links(item)


def by_links(item):
    """The Item with its links in one order."""
    found = item.to_dict()
    return found | {"links": sorted(found["links"], key=lambda link: (link["rel"], link["href"]))}


def _raw(item):
    raw = item.clone()
    raw.assets = {k: a for k, a in raw.assets.items() if k in ("red", "nir")}
    return raw


def test_from_a_shell(tmp_path, sample, monkeypatch):
    from typer.testing import CliRunner

    from stac_latent.cli import app

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "item.json"
    path.write_text(json.dumps(sample.to_dict(include_self_link=False)))
    assert CliRunner().invoke(app, ["keygen", "k"]).exit_code == 0
    done = CliRunner().invoke(app, ["encode", str(path), "cat", "--key-file", "k", "--json"])
    assert done.exit_code == 0, done.output
    item = next(Path("cat").rglob("spyndex-s2-sample.json"))
    hold_keys({})
    assert isinstance(CliRunner().invoke(app, ["load", str(item), "a.tif"]).exception, EncryptionError)
    assert CliRunner().invoke(app, ["load", str(item), "a.tif", "--key-file", "k"]).exit_code == 0
