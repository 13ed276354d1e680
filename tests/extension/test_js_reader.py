"""The JavaScript reader decodes the conformance kit, and stores that encode has just written, bit for bit."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from load_support import BANDS, encoded, pixel_grid, scene

import stac_latent
from stac_latent.cube.read.reader import LatentReader

ROOT = Path(__file__).parents[2]
DECODE = ROOT / "extensions" / "latent" / "js" / "decode.mjs"
KIT = ROOT / "extensions" / "latent" / "conformance"
MANIFEST = json.loads((KIT / "manifest.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def test_the_conformance_kit():
    """Every case is decoded bit for bit, or refused with a sentence."""
    command = ["node", str(DECODE.parent / "tools" / "kit.mjs")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert not result.stderr, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["case"] for row in rows] == [case["name"] for case in MANIFEST["cases"]]
    for row in rows:
        if row["expected"] == "refused":
            assert row["outcome"] == "refused", row
            assert row["said"].endswith(".")
        else:
            assert (row["outcome"], row["said"]) == ("decoded", ""), row


def test_the_command_for_the_runner_of_the_kit():
    command = [sys.executable, KIT / "run.py", "--decoder", f"node {shlex.quote(str(DECODE))}"]
    command += ["--only", "fitted,latents,corrupt-chunk", "--json"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=True)
    assert [row["passed"] for row in json.loads(result.stdout)] == [True, True, True]


def read(folder, item, asset):
    """Arrays by band that the JavaScript reader gives of an asset."""
    case = {"item": str(item), "asset": asset, "want": "pixels"}
    (folder / "case.json").write_text(json.dumps(case))
    command = ["node", str(DECODE), str(folder), str(folder / "out")]
    subprocess.run(command, check=True, timeout=100)
    head, _, rest = (folder / "out").read_bytes().partition(b"\n")
    out, at = {}, 0
    for one in json.loads(head)["arrays"]:
        dtype = np.dtype(one["data_type"])
        size = int(np.prod(one["shape"])) * dtype.itemsize
        out[one["name"]] = np.frombuffer(rest[at : at + size], dtype).reshape(one["shape"])
        at += size
    return out


@pytest.mark.parametrize("payload", ["coded", "plain"])
def test_what_encode_has_just_written(tmp_path, payload):
    """Several tiles of a real scene, coded and as plain latents."""
    raw = stac_latent.search(ROOT / "catalogs" / "sample" / "catalog.json", ids=["spyndex-s2-sample"])
    target = {"psnr": 44} if payload == "coded" else {}
    (item,) = stac_latent.encode(raw, "s2-10m-4b", tmp_path / "cat", asset="mine", payload=payload, **target)
    got = read(tmp_path, item.get_self_href(), "mine")
    cube = stac_latent.load([item], asset="mine")
    assert list(got) == ["B02", "B03", "B04", "B08"]
    for name, pixels in got.items():
        assert np.array_equal(pixels, np.asarray(cube[name]).reshape(pixels.shape))


_COARSE = """
import { readTile } from "LIB/image.js";
import { NodeSource, addressOf } from "LIB/node.js";
import { openAsset } from "LIB/open.js";
const source = new NodeSource();
const asked = [];
const read = source.read.bind(source);
source.read = (href, range, ...more) => { asked.push([href, range]); return read(href, range, ...more); };
const image = await openAsset(source, addressOf(ITEM), "latent");
try {
  const { bands } = await readTile(image, image.lattices[0], 1, 2, [0, 1], { level: 2, share: 0.1 });
  const sizes = asked.filter(([href]) => href.includes("/latent/c/")).map(([, range]) => range.length ?? -range.suffix);
  console.log(JSON.stringify({ sizes, values: bands.map((b) => Array.from(b.data)) }));
} catch (error) {
  console.log(JSON.stringify({ said: error.message }));
}
"""


def coarse_tile(item):
    code = _COARSE.replace("LIB", (DECODE.parent / "lib").as_uri()).replace(
        "ITEM", json.dumps(str(item.self_href))
    )
    command = ["node", "--input-type=module", "-e", code]
    return json.loads(subprocess.run(command, check=True, timeout=100, capture_output=True, text=True).stdout)


def test_a_coarse_tile_takes_the_bytes_that_the_store_says(tmp_path):
    shape = (1024, 1024)
    field = np.tile(scene((256, 256)), (1, 4, 4))
    codec = stac_latent.open_codec("lin", bands=list(BANDS), step=20.0)
    item = encoded(tmp_path, "tiled", field, pixel_grid(shape), codec=codec)
    arrays = LatentReader.open(item).arrays
    payload, start = arrays.payloads.read(1, 2), arrays.prefixes.of(1, 2, 2)
    got = coarse_tile(item)
    assert [n for n in got["sizes"] if n > 0] == [start.size]
    assert start.size < 0.7 * len(payload)
    want = codec.decode_reduced(payload, 2)[:2].astype(float)
    values = np.clip(np.array(got["values"]).reshape(want.shape), 1, 65535)  # 0 is nodata
    assert np.abs(values - want).max() <= 0.51
    file = Path(item.assets["latent"].get_absolute_href()) / arrays.payloads._key(1, 2)
    data = file.read_bytes()
    file.write_bytes(data.replace(payload, bytes([*payload[:200], payload[200] ^ 1, *payload[201:]])))
    assert (
        coarse_tile(item)["said"]
        == "The beginning of the chunk at 1, 2 of latent is damaged: its CRC-32C differs."
    )
