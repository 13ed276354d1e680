"""``import stac_latent`` is light, and nothing but the neural stages ever needs torch."""

from __future__ import annotations

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


def test_verbs_are_there_when_asked_for():
    code = "import stac_latent as s; print(sorted(s.__all__) == [n for n in dir(s) if n in s.__all__], s.encode.__name__)"
    assert run(code).split() == ["True", "encode"]


def test_no_verb_has_the_name_of_a_module():
    """Importing a module puts it in the place of a verb of that name."""
    import stac_latent

    folder = Path(stac_latent.__file__).parent
    assert [n for n in stac_latent.__all__ if (folder / n).exists() or (folder / f"{n}.py").exists()] == []


def test_no_such_attribute():
    import stac_latent

    with pytest.raises(AttributeError, match="module 'stac_latent' has no attribute 'decode_everything'"):
        _ = stac_latent.decode_everything


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
    package = Path(__file__).parents[1] / "stac_latent"
    names = sorted(
        ".".join(("stac_latent", *p.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        for p in package.rglob("*.py")
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
