"""Golden payloads decode to the recorded bits whatever the threads, compiled or not, torch or none, and in another Python."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "golden" / "decode.py"
ROOT = Path(__file__).parents[1]

_spec = importlib.util.spec_from_file_location("golden_decode", SCRIPT)
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)


def decode(*args, python=sys.executable, **env):
    """What the script prints in a process of its own."""
    path = os.pathsep.join([str(ROOT), *sys.path]) if python == sys.executable else str(ROOT)
    done = subprocess.run(
        [python, "-W", "ignore", str(SCRIPT), *args], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def threads(n):
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM")
    return {f"{name}_NUM_THREADS": str(n) for name in names}


def test_every_bitstream_is_among_them():
    assert {part for k in golden.wanted() for part in k.split("/")} >= {
        "dct", "fitted", "zstd", "jpeg2000", "lin", "lin-fitted", "lin-tiles", "coded.zarr", "B02", "B01",
    }  # fmt: skip


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("form", ["numba", "numpy"])
def test_threads_with_and_without_numba(form, n):
    if form == "numba":
        pytest.importorskip("numba")
    off = "1" if form == "numpy" else ""
    out = decode("--threads", str(n), STAC_LATENT_NO_NUMBA=off, **threads(n))
    assert out["about"] == {
        "python": out["about"]["python"], "numba": form == "numba", "threads": n, "torch": False
    }  # fmt: skip
    assert out["runs"] == {"without torch": golden.wanted()}


def test_beside_torch():
    pytest.importorskip("torch")
    out = decode("--torch", "--threads", "2", **threads(2))
    assert out["about"]["torch"]
    assert out["runs"] == {
        f"torch, {dtype}, oneDNN {onednn}": golden.wanted()
        for dtype in ("float32", "bfloat16")
        for onednn in ("on", "off")
    }


@functools.cache
def others():
    """Interpreters of another Python that can import what decoding needs; ``$STAC_LATENT_OTHER_PYTHON`` names more."""
    named = os.environ.get("STAC_LATENT_OTHER_PYTHON", "").split(os.pathsep)
    names = [f"python3.{minor}" for minor in (13, 12, 14) if minor != sys.version_info.minor]
    places = [str(p) for n in names for p in Path.home().glob(f".pyenv/versions/{n[6:]}*/bin/python")]
    test = "import constriction, numpy, odc.stac, rasterio, sys, zarr; print(sys.version_info.minor)"
    out = {}
    for python in filter(None, [*named, *map(shutil.which, names), *places]):
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run([python, "-c", test], capture_output=True, text=True, check=False, env=env)
        if done.returncode == 0 and int(done.stdout) != sys.version_info.minor:
            out.setdefault(int(done.stdout), python)
    return out


def test_in_another_python():
    if not others():
        pytest.skip(
            "no other Python at hand that has numpy, constriction, zarr, rasterio and odc-stac; STAC_LATENT_OTHER_PYTHON may name one"
        )
    for minor, python in others().items():
        out = decode(python=python)
        assert out["about"]["python"].startswith(f"3.{minor}.")
        assert out["runs"] == {"without torch": golden.wanted()}
