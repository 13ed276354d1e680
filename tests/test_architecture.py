"""ARCHITECTURE.md tells the truth about imports: they point downward, in circles never, and torch is for training alone."""

from __future__ import annotations

import re
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import SLOW

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import house  # noqa: E402 - a script
from house import MODULES, PACKAGE, imports, room, rooms  # noqa: E402

HEAVY = {"rasterio", "odc", "zarr", "dask", "geopandas", "pyarrow", "pandas", "pystac_client"}

DISTRIBUTIONS = {"PIL": "pillow", "faiss": "faiss-cpu"}
"""What is installed under another name than it is imported by."""
UNSEEN = {
    "h5netcdf": "NetCDF-4, which xarray writes",
    "h5py": "what h5netcdf writes it with",
    "spyndex": "the sample of the demo, a file of its wheel",
}
"""Dependencies that nothing imports."""
EXTRAS = {
    "bench": {"bench"}, "catalog": {"search", "viz"}, "cli": {"torch"}, "index": {"search", "lancedb", "pgvector"},
    "page": {"viz"}, "secure": {"secure"}, "stages": {"onnx"}, "testing": {"test"}, "train": {"torch"},
}  # fmt: skip
"""Extras that a room may ask for."""


def test_every_room_is_in_the_table():
    listed = rooms()
    assert len(listed) == len(set(listed))
    assert set(listed) == {room(m) for m in MODULES} - {"__init__"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module):
    order = {name: level for level, name in enumerate(rooms())}
    for item in imports(module):
        if not item.target.startswith("stac_latent.") or room(item.target) == room(module):
            continue
        if module == "stac_latent":
            assert item.target == "stac_latent.system.exports", f"the package itself imports {item.target}"
            continue
        assert order[room(item.target)] < order[room(module)], (
            f"{module} imports {item.target}, which is above it"
        )


def test_no_module_imports_in_a_circle():
    graph = {module: {i.target for i in imports(module) if i.target in MODULES} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_no_module_waits_for_a_folder_that_waits_for_it():
    """Whichever module is imported first: of a module, the folders that it lies in are run before it."""
    graph = {module: set() for module in MODULES}
    for module in MODULES:
        for target in (i.target for i in imports(module) if i.kind == "top" and i.target in MODULES):
            folders = {target[:at] for at, letter in enumerate(target) if letter == "."}
            above = {f for f in folders if f == module or not module.startswith(f"{f}.")} & set(MODULES)
            graph[module] |= {target, *above} - {module}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_torch_is_imported_for_training_alone(module):
    found = [i for i in imports(module) if i.target.split(".")[0] == "torch"]
    assert room(module) == "train" or [i.target for i in found if i.kind == "top"] == []
    assert room(module) in {"train", "cli"} or found == []


def test_low_rooms_know_no_file_format():
    low = [
        m
        for m in MODULES
        if room(m) in {"errors", "spec", "field", "bytestring", "chain", "extension", "quality"}
    ]
    assert len(low) >= 7
    for module in low:
        top = {i.target.split(".")[0] for i in imports(module) if i.kind == "top"}
        assert not top & HEAVY, f"{module} imports {sorted(top & HEAVY)}"


@pytest.mark.parametrize("figure", [*house.SUMS, *house.LARGEST], ids=lambda f: f.words)
def test_the_house_is_in_order(figure):
    """Figures only fall: lower ``held`` in ``scripts/house.py`` when one does."""
    listed = "\n".join(f"{what}: {n}" for n, what in figure.found)
    assert house.present(figure) <= figure.held, f"{figure.words}: more than {figure.held}\n{listed}"
    assert figure.goal <= figure.held


def test_reasons_are_given_for_what_is_there():
    assert [n for n in house.SMALL if not (PACKAGE / n).exists()] == []


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_in_pages_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+/[\w/.*-]*)`", text))
    assert len(named) > 20
    places = {
        n: [base / m for base in (ROOT, PACKAGE) for m in (n, f"{n}.py")] for n in named if "NAME" not in n
    }
    assert [n for n, paths in places.items() if not any(any(p.parent.glob(p.name)) for p in paths)] == []


def test_the_drawing_is_that_of_the_imports():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert page.partition(house.BEGIN)[2].partition(house.END)[0] == house.drawing(), (
        "run: python scripts/house.py --write"
    )


def test_the_files_left_out_of_the_daily_run_are_there():
    there = {p.stem.removeprefix("test_") for p in (ROOT / "tests").rglob("test_*.py")}
    assert there >= SLOW


def test_tests_lie_where_what_they_test_does():
    """A folder of tests is a room; files beside them are about the package as a whole, or about a module of its root."""
    folders = {p.parent.name for p in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= {n for n in rooms() if (PACKAGE / n).is_dir()}


def test_no_module_is_named_as_one_of_python():
    """Python started inside a folder finds what lies there first."""
    names = {p.stem for p in MODULES.values()} | {p.parent.name for p in MODULES.values()}
    assert names & set(sys.stdlib_module_names) == set()


def test_no_trace_of_unfinished_work():
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError")
    assert [str(p) for p in MODULES.values() if words.search(p.read_text(encoding="utf-8"))] == []


def distribution(target):
    """Name under which a module that is imported is installed; None of Python's own and ours."""
    parts = target.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] == "stac_latent":
        return None
    if parts[0] == "odc":
        return f"odc-{parts[1]}"
    return DISTRIBUTIONS.get(parts[0], parts[0].replace("_", "-"))


@cache
def declared():
    """Names of the dependencies, and of each extra's packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {re.match(r"[\w.-]+", text)[0].lower() for text in texts} for extra, texts in lists.items()
    }


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_is_imported_is_declared(module):
    known = declared()[""].union(*(declared()[extra] for extra in EXTRAS.get(room(module), ())))
    assert {distribution(i.target) for i in imports(module)} - {None} <= known


def test_what_is_declared_is_imported():
    found = {distribution(i.target) for module in MODULES for i in imports(module)}
    assert declared()[""] - found == set(UNSEEN)


def test_the_extras_hold_no_dependency():
    """What everybody has is in no extra, and what an extra alone has is not imported with its module, but for whole rooms."""
    assert [extra for extra, names in declared().items() if extra and names & declared()[""]] == []
    for module in MODULES:
        if room(module) not in {"testing", "train"}:
            top = {distribution(i.target) for i in imports(module) if i.kind == "top"} - {None}
            assert top <= declared()[""], module
