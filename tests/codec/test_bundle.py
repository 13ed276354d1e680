"""Bundles: what defines a codec, and every way in which its files can be wrong."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from core_support import BANDS, small_codec
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

import stac_latent
from stac_latent.codec.bundle import FILES, load_bundle, read_bundle, save_bundle, write_bundle
from stac_latent.codec.registry import codec_names, open_codec
from stac_latent.codec.shipped import zstd
from stac_latent.errors import BundleError, StacLatentError
from stac_latent.spec import Band
from stac_latent.system.digests import multihash
from stac_latent.testing import make_field

SHIPPED = Path(stac_latent.__file__).parent / "bundles"

pytestmark = pytest.mark.usefixtures("fresh_process")


def edited(files, edit=None, tensors=None, *, checksum=True):
    """The files with ``codec.json`` and the tensors changed, their checksum made right again."""
    doc, weights = json.loads(files[FILES[0]]), files[FILES[1]]
    if tensors:
        arrays = load(weights)
        tensors(arrays)
        weights = save(arrays)
    if checksum:
        doc["tensors"] |= {"checksum": multihash(weights), "size": len(weights)}
    if edit:
        edit(doc)
    return {FILES[0]: json.dumps(doc).encode(), FILES[1]: weights}


@pytest.fixture(scope="module")
def files():
    return write_bundle(small_codec("fitted"))


@pytest.mark.parametrize("name", ["fitted", "dct", "wavelet", "zstd", "jpeg2000"])
def test_folder_round_trip(tmp_path, name):
    codec = small_codec(name)
    path = save_bundle(codec, tmp_path / "deep" / "bundle")
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)  # no temporary file is left
    again = load_bundle(path, space=codec.space)
    assert (again.name, again.bands, again.stats, again.space) == (
        codec.name,
        codec.bands,
        codec.stats,
        codec.space,
    )
    x = make_field(BANDS, (24, 32), 4)
    assert again.compress(x) == codec.compress(x)


def test_what_is_in_it(files):
    doc = json.loads(files["codec.json"])
    codec = small_codec("fitted")
    assert doc["format"] == "stac-latent-bundle-1"
    assert doc["space"] == codec.space
    assert [s["stage"] for s in doc["chain"]] == ["normalise", "klt", "dct", "uniform", "rans"]
    assert doc["tensors"]["checksum"] == "1220" + hashlib.sha256(files["codec.safetensors"]).hexdigest()
    assert len(doc["stats"]["mean"]) == codec.dimensions
    assert {"probe.field", "probe.payload", "1.matrix", "4.counts"} <= set(load(files["codec.safetensors"]))


def test_all_tables_are_integers(files):
    kinds = {k: v.dtype.kind for k, v in load(files["codec.safetensors"]).items()}
    assert set(kinds.values()) <= {"i", "u"}, kinds


# -- tampering -----------------------------------------------------------------------------------------------------------


def test_changed_weights(files):
    weights = bytearray(files[FILES[1]])
    weights[-3] ^= 1
    with pytest.raises(BundleError, match=r"has checksum 1220.*expects 1220.*; fetch the bundle again"):
        read_bundle({**files, FILES[1]: bytes(weights)})


def test_changed_tensor_with_a_right_checksum(files):
    def turn(arrays):
        arrays["1.matrix"] = arrays["1.matrix"][::-1].copy()

    bad = edited(files, tensors=turn)
    with pytest.raises(
        BundleError, match=r"the bundle's digest is sha256:.*codec.json expects sha256:.*or was changed"
    ):
        read_bundle(bad)


def test_another_codec_than_the_item_wants(files):
    with pytest.raises(BundleError, match=rf"the item expects sha256:{'0' * 64}; it is another codec"):
        read_bundle(files, space="sha256:" + "0" * 64)


def test_newer_format(files):
    with pytest.raises(
        BundleError,
        match=r"format 'stac-latent-bundle-2' is not known; this version reads 'stac-latent-bundle-1'",
    ):
        read_bundle(edited(files, lambda d: d.update(format="stac-latent-bundle-2")))


def test_unknown_stage(files):
    with pytest.raises(
        StacLatentError, match=r"unknown stage 'hyperprior'.*plug-in package that defines the stage"
    ):
        read_bundle(edited(files, lambda d: d["chain"][2].update(stage="hyperprior")))


def test_newer_bitstream(files):
    with pytest.raises(BundleError, match=r"bitstream 'stac-latent-rans-9' is not known"):
        read_bundle(edited(files, lambda d: d["chain"][4].update(bitstream="stac-latent-rans-9")))


@pytest.mark.parametrize("key", ["symbols_crc", "field_crc"])
def test_probe_fails(files, key):
    """A machine that decodes otherwise than the author's is told apart before it shows a pixel."""
    bad = edited(files, lambda d: d["probe"].update({key: 1}))
    with pytest.raises(
        BundleError,
        match=r"this machine decodes the probe block to checksums .*pixels decoded here would be wrong",
    ):
        read_bundle(bad)


def test_probe_payload_is_changed(files):
    def flip(arrays):
        arrays["probe.payload"] = arrays["probe.payload"] ^ np.uint8(1)

    with pytest.raises(BundleError, match="the probe block does not decode: rans"):
        read_bundle(edited(files, tensors=flip))


def test_probe_of_a_broken_coder(files, monkeypatch):
    """If the library's coder changes its arithmetic, no bundle opens."""
    from stac_latent.stages.rans import tables

    honest = tables.Model
    monkeypatch.setattr(tables, "Model", lambda counts: honest(counts[::-1]))
    with pytest.raises(BundleError, match="the probe block does not decode"):
        read_bundle(files)


def test_probe_is_missing():
    files = write_bundle(zstd(BANDS))
    with pytest.raises(BundleError, match=r"not a readable codec bundle: KeyError: 'probe'"):
        read_bundle(edited(files, lambda d: d.pop("probe")))

    def drop(arrays):
        arrays.pop("probe.payload")
        arrays.pop("probe.field")

    with pytest.raises(BundleError, match=r"the probe block does not decode: 'probe.field'"):
        read_bundle(edited(files, tensors=drop))


# -- malformed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff\xfe", b"[" * 100000])
def test_no_json_object(files, text):
    with pytest.raises(BundleError, match=r"not a readable codec bundle|format 1 is not known"):
        read_bundle({**files, FILES[0]: text}, where="here")


def test_no_safetensors(files):
    for junk in (b"", b"\x00" * 16, b"\xff" * 64):
        bad = edited({**files, FILES[1]: junk})
        with pytest.raises(BundleError, match="not a readable codec bundle"):
            read_bundle(bad)


def test_missing_files(tmp_path):
    with pytest.raises(
        BundleError, match=r"no codec bundle in .*nowhere.*it holds codec.json and codec.safetensors"
    ):
        load_bundle(tmp_path / "nowhere")
    save_bundle(small_codec("dct"), tmp_path)
    (tmp_path / "codec.safetensors").unlink()
    with pytest.raises(BundleError, match="no codec bundle in"):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match="KeyError"):
        read_bundle({"codec.json": (tmp_path / "codec.json").read_bytes()})


@pytest.mark.parametrize(("name", "most"), [(FILES[0], 16 << 20), (FILES[1], 512 << 20)])
def test_too_large(tmp_path, name, most):
    save_bundle(small_codec("dct"), tmp_path)
    os.truncate(tmp_path / name, most + 1)
    with pytest.raises(BundleError, match=f"{name} has {most + 1} bytes; at most {most} are read"):
        load_bundle(tmp_path)


def paths(obj, at=()):
    yield at
    items = obj.items() if isinstance(obj, dict) else enumerate(obj) if isinstance(obj, list) else ()
    for key, value in items:
        yield from paths(value, (*at, key))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_value_may_be_anything(files, data):
    """Fuzz: each value of codec.json replaced; either it does not matter, or the error is ours."""
    doc = json.loads(files[FILES[0]])
    doc["about"] = {}
    for long in ("mean", "std"):
        doc["stats"][long] = doc["stats"][long][:3]
    where = data.draw(st.sampled_from([p for p in paths(doc) if p]))
    junk = st.sampled_from(
        [None, -1, 0, 2**70, 1e308, float("inf"), float("nan"), "", "x", [], {}, [[1]], True, {"a": []}]
    )
    target = doc
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = data.draw(junk)
    try:
        codec = read_bundle({**files, FILES[0]: json.dumps(doc).encode()})
    except StacLatentError:
        return
    assert codec.space == small_codec("fitted").space


# -- the shipped ones ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["era5-surface", "landsat-c2l2-6b", "s1-grd-db", "s2-10m-4b", "s2-l2a-12b"])
def test_shipped_bundles(name):
    from stac_latent.codec.shipped import _BUNDLES

    codec = load_bundle(_BUNDLES / name)
    assert codec.space == json.loads((_BUNDLES / name / "codec.json").read_text())["space"]
    assert codec.about["license"] in ("CC-BY-4.0", "CC0-1.0")
    assert "data" in codec.about["attribution"] or "Copernicus" in codec.about["attribution"]
    rates = [point["bits_per_pixel"] for point in codec.about["held_out"]["curve"]]
    assert rates == sorted(rates)
    assert not {t.rpartition(" ")[2] for t in codec.about["fitted_on"]} & set(
        codec.about["held_out"]["places"]
    )
    assert codec.stats is not None
    assert len(codec.stats.std) == codec.dimensions
    assert name in codec_names()
    assert open_codec(name).space == codec.space


def _no_constant(name):
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("nodata", [math.nan, math.inf, -math.inf, -9999.0, None])
def test_nodata_is_json(nodata):
    codec = zstd(bands=[Band("a", data_type="float32", nodata=nodata)])
    files = write_bundle(codec)
    (band,) = json.loads(files[FILES[0]], parse_constant=_no_constant)["bands"]
    assert band["nodata"] == (
        nodata
        if nodata is None or math.isfinite(nodata)
        else {"nan": "nan", "inf": "inf", "-inf": "-inf"}[str(nodata)]
    )
    assert str(read_bundle(files).bands[0].nodata) == str(nodata)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*/codec.json")), ids=lambda p: p.parent.name)
def test_shipped_bundles_are_json(path):
    assert (
        json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)["name"] == path.parent.name
    )


def test_a_number_that_is_none_in_the_card():
    codec = replace(small_codec("fitted"), about={"psnr": math.nan})
    with pytest.raises(
        BundleError,
        match=r"a number of its model card or statistics is NaN or infinite, which JSON does not have",
    ):
        write_bundle(codec)
