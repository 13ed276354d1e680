"""What is written stays what it was, byte for byte: catalogues, byte strings, spaces and a table, held against committed digests.

``golden/written_bytes.json`` holds the digests: of each file of six small catalogues and of the pixels that they load as, of
byte strings of :meth:`Codec.compress`, and the space of each installed codec. A change that is to leave behaviour alone
leaves that file alone. One that means to change what is written writes it anew, and its difference tells what changed::

    python tests/golden/written_bytes.py --update

Where libraries are other versions than those that the file names, files that differ are passed over with a note, as what
compresses, places and describes is theirs; spaces and pixels are held to in any case.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKER = Path(__file__).parent / "golden" / "written_bytes.py"
EXPECTED = json.loads(MAKER.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Digests of what a process of its own makes, whatever the tests before this one opened or set."""
    here = tmp_path_factory.mktemp("written")
    env = {k: v for k, v in os.environ.items() if not k.startswith("STAC_LATENT_")}
    env["STAC_LATENT_CACHE"] = str(here / "cache")
    done = subprocess.run(
        [sys.executable, MAKER, here / "made"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((here / "made" / "digests.json").read_text())


def hold(ours, theirs, libraries=None):
    """Equal digests; else the names of those that differ, unless they depend on libraries and these are others."""
    lost, new = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
    other = [k for k in sorted(theirs.keys() & ours.keys()) if ours[k] != theirs[k]]
    if not (lost or new or other):
        return
    what = f"not the same bytes: {other}; missing: {lost}; new: {new}"
    if libraries is not None and libraries != EXPECTED["libraries"]:
        pytest.skip(f"{what}; written with {EXPECTED['libraries']}, here are {libraries}")
    pytest.fail(f"{what}. If this is meant: python tests/golden/{MAKER.name} --update")


def test_all_is_there(found):
    assert len(EXPECTED["catalogues"]) == 6
    assert {v["starts"] for v in EXPECTED["byte strings"].values()} == {"SLC1", "SLN1", "SLE1"}
    for part in ("catalogues", "byte strings", "spaces"):
        assert found[part].keys() == EXPECTED[part].keys()


def test_spaces(found):
    hold(found["spaces"], EXPECTED["spaces"])


@pytest.mark.parametrize("name", EXPECTED["catalogues"])
def test_pixels_of_catalogues(found, name):
    hold(*(d["catalogues"][name]["pixels"] for d in (found, EXPECTED)))


@pytest.mark.parametrize("name", EXPECTED["catalogues"])
def test_files_of_catalogues(found, name):
    ours, theirs = (d["catalogues"][name] for d in (found, EXPECTED))
    hold(ours["files"], theirs["files"], found["libraries"])
    assert ours["digest"] == theirs["digest"]


def test_fields_of_byte_strings(found):
    hold(*({k: v["field"] for k, v in d["byte strings"].items()} for d in (found, EXPECTED)))


def test_byte_strings(found):
    hold(found["byte strings"], EXPECTED["byte strings"], found["libraries"])
