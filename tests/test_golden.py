"""What earlier versions wrote stays readable, and decodes to the same values; see ``golden/make.py``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stac_latent.codec.bundle import load_bundle
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.spec import Grid
from stac_latent.store.zarr.group import open_arrays

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(p.parent for p in GOLDEN.glob("*/index.json"))
CASES = [
    (v, n) for v in VERSIONS for n in json.loads((v / "index.json").read_text()) if not n.endswith(".zarr")
]

spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

pytestmark = pytest.mark.usefixtures("fresh_process")


def entry(version, name):
    return json.loads((version / "index.json").read_text())[name]


def test_there_is_one_of_each_bitstream():
    seen = {entry(*case)["bitstream"] for case in CASES}
    assert seen >= {"stac-latent-rans-1", "stac-latent-zstd-1", "stac-latent-jpeg2000-1", "stac-latent-lin-1"}


@pytest.mark.parametrize(("version", "name"), CASES, ids=lambda v: getattr(v, "name", v))
def test_bundles_payloads_and_compressed_fields(version, name):
    wanted = entry(version, name)
    codec = load_bundle(version / name, space=wanted["space"])
    assert codec.bitstream == wanted["bitstream"]
    symbols = codec.entropy_decode((version / f"{name}.payload").read_bytes())
    assert make.digest(symbols) == wanted["symbols"]
    field = codec.decompress((version / f"{name}.slc").read_bytes())
    assert make.digest(field) == wanted["field"]
    assert field.shape == (2, *make.SHAPES.get(name, (37, 45)))
    assert (field == 0).any()


@pytest.mark.parametrize("payload", ["coded", "plain"])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.name)
def test_stores(version, payload):
    from dataclasses import replace

    wanted = entry(version, f"{payload}.zarr")
    codec = load_bundle(version / wanted.get("codec", "dct"), space=wanted["space"])
    grid = Grid.from_fields(wanted["grid"])
    href = str(version / f"{payload}.zarr")
    contract = replace(codec.spec, bitstream=codec.bitstream if payload == "coded" else None)
    reader = LatentReader(LatentRef("golden", "latent", href, contract, grid), codec)
    assert make.digest(reader.read_symbols()) == wanted["symbols"]
    field = reader.read_field()
    assert field.shape == (2, 30, 42)
    assert not field[:, :7, :9].any()
    assert field[:, 7:, 9:].all()
    x = np.asarray(open_arrays(href, contract, grid).latent.attrs["latent:space"])
    assert x == wanted["space"]


def test_golden_files_are_not_remade():
    out = subprocess.run(
        [sys.executable, str(GOLDEN / "make.py"), str(VERSIONS[0])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode != 0
    assert "FileExistsError" in out.stderr
