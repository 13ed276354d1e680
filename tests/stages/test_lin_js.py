"""The JavaScript decoder, written from docs/lin.md, gives the same pixels bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stac_latent import open_codec
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.shipped import lin
from stac_latent.spec import Band
from stac_latent.stages.lin.stage import Lin
from stac_latent.testing import make_field

JS = Path(__file__).parents[2] / "extensions" / "latent" / "js"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def node(*arguments):
    return subprocess.run(
        ["node", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def decoded(folder, cases):
    """What the JavaScript decoder says of payloads: digests of pixels, or a sentence."""
    rows = []
    for i, (codec, payload) in enumerate(cases):
        bundle = save_bundle(codec, folder / f"codec{i}")
        (folder / f"{i}.payload").write_bytes(payload)
        rows.append({"codec": str(Path(bundle)), "payload": str(folder / f"{i}.payload")})
    (folder / "cases.json").write_text(json.dumps(rows))
    result = node(JS / "tools" / "payloads.mjs", folder / "cases.json")
    assert not result.stderr, result.stderr
    return json.loads(result.stdout)


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def coded(codec, field):
    return codec.entropy_encode(codec.encode(field, upto="symbols"))


def with_odd_tables(bands, seed, model):
    """A codec with bases, weights of contexts and counts that no fit would give."""
    rng = np.random.default_rng(seed)
    names = [Band(f"b{i}") for i in range(bands)]
    codec = lin(
        names, mean=rng.uniform(0, 3000, bands).tolist(), unit=rng.uniform(0.5, 5, bands).tolist(), step=9.0
    )
    basis = np.stack([np.linalg.qr(rng.normal(size=(bands, bands)))[0] for _ in range(7)]).astype(np.float32)
    stage = Lin(basis, model, step=9.0)
    return codec.__class__("any", (*codec.stages[:2], stage), codec.bands, dimensions=64 * bands)


def repeated(steps, shape, offset):
    """A field of which each band is repeated this many times along both axes."""
    rng = np.random.default_rng(5)
    walk = rng.normal(0, 30, shape).cumsum(axis=0).cumsum(axis=1) / 4
    field = [(3000 + walk + rng.normal(0, 40, shape)).clip(1, 9999).astype(np.uint16) for _ in steps]
    rows, columns = (np.arange(n) + offset for n in shape)
    return np.stack(
        [
            x[np.ix_((rows // s) % shape[0], (columns // s) % shape[1])]
            for x, s in zip(field, steps, strict=True)
        ]
    )


def same(folder, cases):
    got = decoded(folder, [(codec, payload) for codec, payload, _ in cases])
    assert got == [{"sha256": digest(expected)} for _, _, expected in cases]


@needs_node
def test_tiles_of_every_kind(tmp_path):
    """Sizes, numbers of bands, steps and contents; all levels; floats; weights of bands; one to eight lanes."""
    cases = []
    for seed, (name, shape, kind) in enumerate((
        ("s2-10m-4b", (16, 256), "scene"), ("landsat-c2l2-6b", (64, 40), "noise"), ("s2-10m-4b", (8, 8), "extremes"),
        ("s2-l2a-12b", (40, 72), "scene"), ("era5-surface", (48, 24), "scene"), ("s2-10m-4b", (256, 256), "sparse"),
        ("s1-grd-db", (264, 264), "scene"), ("s2-10m-4b", (32, 32), "constant"), ("s2-10m-4b", (384, 352), "noise"),
    )):  # fmt: skip
        codec = open_codec(name)
        payload = coded(codec, np.nan_to_num(make_field(codec.bands, shape, seed, kind, (-30, 30))))
        cases.append((codec, payload, codec.decode(payload)))
    lanes = {payload[11] >> 4 & 7 for _, payload, _ in cases}
    assert lanes >= {0, 3}
    same(tmp_path, cases)


@needs_node
def test_weights_of_bands_and_types(tmp_path):
    """Weights travel in the payload; every type of integer is clipped to what it holds, nodata left out."""
    cases = []
    for seed, (kind, nodata) in enumerate(
        (("uint8", 0), ("int16", -32768), ("int16", 0), ("uint16", None), ("float32", None))
    ):
        bands = [Band(f"b{i}", kind, nodata=nodata) for i in range(3)]
        codec = open_codec("lin", bands=bands, step=2.0, unit=0.5)
        field = make_field(bands, (40, 48), seed, "extremes" if kind != "float32" else "scene", (-9, 9))
        stage = codec.stages[2]
        stage.gains = np.array([0.5, 1.25, 2], np.float32)
        payload = stage.code(stage.prepare(_tiles(codec, field), None, stage.gains), 2.0)
        assert payload[11] & 128
        cases.append((codec, payload, codec.decode(payload)))
    same(tmp_path, cases)


def _tiles(codec, field):
    from stac_latent.stages.lin import lifting

    x = (codec.stages[0].forward(field) / 16).astype(np.float32)
    lifting.analyse(x, lifting.levels_of(*x.shape[1:]))
    return [x]


@needs_node
def test_tables_that_no_fit_would_give(tmp_path):
    cases = []
    for seed, bands in enumerate((1, 2, 5)):
        codec = with_odd_tables(bands, seed, open_codec("s2-10m-4b").stages[2].model)
        payload = coded(codec, make_field(codec.bands, (72, 88), seed, "noise" if seed else "scene"))
        cases.append((codec, payload, codec.decode(payload)))
    same(tmp_path, cases)


@needs_node
def test_repeated_pixels_and_several_tiles(tmp_path):
    """A tile in parts, whose runs are regular or not, of integers and of floats; a field of several tiles."""
    cases = []
    for kind, offset in (("uint16", 0), ("uint16", 3), ("float32", 1)):
        codec = open_codec("lin", bands=[Band(f"b{i}", kind) for i in range(5)], step=8.0)
        field = repeated((1, 1, 2, 2, 6), (56, 64), offset).astype(kind)
        payload = codec.tail.encoder(codec)(field, None)
        assert payload[:3] == b"SLR"
        cases.append((codec, payload, codec.tail.decoder(codec)(payload)))
    codec = open_codec("s2-10m-4b")
    payload = coded(codec, make_field(codec.bands, (264, 560), 3, "sparse"))
    assert payload[:3] == b"SLT"
    cases.append((codec, payload, codec.decode(payload)))
    same(tmp_path, cases)


@needs_node
def test_damage_and_newer_versions_are_refused_with_a_sentence(tmp_path):
    codec = open_codec("s2-10m-4b")
    payload = coded(codec, make_field(codec.bands, (24, 32), 1))
    flipped = bytearray(payload)
    flipped[-5] ^= 1
    newer = payload[:2] + b"\x02" + payload[3:]
    refused = decoded(
        tmp_path, [(codec, x) for x in (bytes(flipped), newer, payload[:40], b"", b"PNG" + payload)]
    )
    expected = ("CRC-32 differs", "newer decoder", "CRC-32 differs", "cut short", "does not begin with SL")
    for one, text in zip(refused, expected, strict=True):
        assert text in one["error"]


@needs_node
def test_units_of_the_decoder():
    result = node("--test", JS / "test/")
    assert result.returncode == 0, result.stdout[-3000:]
