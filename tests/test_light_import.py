"""``import stac_latent`` is light, and nothing but the neural stages ever needs torch."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from core_support import make_scene, scene_field

HEAVY = (
    "torch",
    "rasterio",
    "zarr",
    "xarray",
    "odc.stac",
    "geopandas",
    "pyarrow",
    "dask",
    "pandas",
    "numba",
    "pystac",
)

PACKAGE = Path(__file__).parents[1] / "stac_latent"
LAZY = sorted(
    ".".join(("stac_latent", *p.relative_to(PACKAGE).parent.parts))
    for p in PACKAGE.rglob("__init__.py")
    if "= lazy(" in p.read_text(encoding="utf-8")
)
"""Packages whose names are imported when they are used."""


def run(code, *args):
    out = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_import_takes_less_than_three_tenths_of_a_second():
    code = "import time; t = time.perf_counter(); import stac_latent; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(5)) < 0.3


def test_import_pulls_in_nothing_heavy():
    code = f"import stac_latent, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_the_command_line_starts_without_them_and_without_numpy():
    code = f"import stac_latent.cli, sys; print([m for m in {(*HEAVY, 'numpy')!r} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_verbs_are_there_when_asked_for():
    code = "import stac_latent as s; print(sorted(s.__all__) == [n for n in dir(s) if n in s.__all__], s.encode.__name__)"
    assert run(code).split() == ["True", "encode"]


def typed_names(path):
    """Names that type checkers read from a package: those of its block of imports for them that are given on."""
    (block,) = (
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {a.asname for node in block.body for a in node.names if a.asname}


@pytest.mark.parametrize("name", LAZY)
def test_what_a_package_gives_is_what_type_checkers_read(name):
    package = importlib.import_module(name)
    path = Path(package.__file__)
    assert {n for n in package.__all__ if n not in vars(package)} >= typed_names(path)
    assert set(package.__all__) - typed_names(path) <= set(vars(package))
    assert set(package.__all__) <= set(dir(package))
    for exported in package.__all__:
        assert getattr(package, exported) is not None
        assert not (path.parent / exported).exists(), "importing the module would hide the name"
        assert not (path.parent / f"{exported}.py").exists(), "importing the module would hide the name"


def test_rooms_are_as_light_as_the_package():
    code = f"import sys, {', '.join(LAZY)}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_no_such_attribute():
    import stac_latent

    with pytest.raises(AttributeError, match="module 'stac_latent' has no attribute 'decode_everything'"):
        _ = stac_latent.decode_everything
    with pytest.raises(ImportError, match="cannot import name 'save_bundles'"):
        exec("from stac_latent.codec import save_bundles")  # noqa: S102 - type checkers see it, too


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails, as where it is not installed
from pathlib import Path
import pystac
import stac_latent
folder = Path(sys.argv[2])
encoded = stac_latent.encode(pystac.Item.from_file(sys.argv[1]), sys.argv[3], folder / "cat", bands={
    "B02": "a", "B03": "b", "B04": "c", "B08": "d"})
found = list(stac_latent.search(folder / "cat" / "catalog.json", kind="codec", min_psnr=20))
assert [i.id for i in found] == ["scene"], found
field = stac_latent.load(found, bands=["B02", "B08"])
latent = stac_latent.load(found, upto="latent")
out = stac_latent.publish(found, folder / "vectors.parquet")
print(dict(field.sizes)["y"], dict(latent.sizes)["channel"], Path(folder / "vectors.parquet").stat().st_size > 1000)
"""


def test_the_whole_line_works_without_torch(tmp_path):
    layers = np.concatenate([scene_field((64, 72), seed) for seed in (0, 1)])
    scene = make_scene(tmp_path / "raw", layers, keys=("a", "b", "c", "d"))
    scene.item.save_object(include_self_link=False, dest_href=str(tmp_path / "item.json"))
    y, channels, published = run(WITHOUT_TORCH, tmp_path / "item.json", tmp_path, "s2-10m-4b").split()
    assert (int(y), published) == (64, "True")
    assert int(channels) > 50


def test_without_torch_every_module_imports_but_the_neural_ones():
    names = sorted(
        ".".join(("stac_latent", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for p in PACKAGE.rglob("*.py")
    )
    neural = (
        "stac_latent.train",
        "stac_latent.tasks",
        "stac_latent.stages.neural.stage",
        "stac_latent.__main__",
    )
    names = [n for n in names if not n.startswith(neural)]
    code = "import sys, importlib, json\nsys.modules['torch'] = None\nfor n in json.loads(sys.argv[1]): importlib.import_module(n)\nprint(len(sys.modules) > 100)"
    assert run(code, json.dumps(names)).strip() == "True"


WITHOUT_NUMBA = """
import sys, warnings
if sys.argv[2] == "missing":
    sys.modules["numba"] = None
import numpy as np
import stac_latent
codec = stac_latent.open_codec(sys.argv[1], bands=["a"])
field = np.arange(4096, dtype=np.uint16).reshape(1, 64, 64) % 251
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    data = codec.compress(field)
    for _ in range(2):
        codec.decompress(data)
print(*[f"{w.category.__name__}: {w.message}" for w in caught], sep="\\n")
"""


@pytest.mark.parametrize("codec", ["lin", "dct", "wavelet"])
def test_decoding_without_numba_says_so_once(codec, monkeypatch):
    said = (
        "SlowWarning: decoding without numba ({}): the same pixels, up to 35 times slower; pip install numba"
    )
    if codec == "lin":
        missing = "import of numba halted; None in sys.modules"
        assert run(WITHOUT_NUMBA, codec, "missing").strip() == said.format(missing)
        assert run(WITHOUT_NUMBA, "zstd", "missing").strip() == ""  # nothing of it is compiled
    monkeypatch.setenv("STAC_LATENT_NO_NUMBA", "1")
    assert run(WITHOUT_NUMBA, codec, "off").strip() == said.format("switched off by STAC_LATENT_NO_NUMBA")


def test_the_test_kit_says_what_it_needs():
    code = """
import sys
sys.modules["hypothesis"] = None
try:
    import stac_latent.testing
except ImportError as exc:
    print(exc)
"""
    assert "needs pytest and hypothesis" in run(code)
    assert "pip install 'stac-latent[test]'" in run(code)
