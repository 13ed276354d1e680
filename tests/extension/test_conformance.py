"""The conformance kit: the package passes all of it, and its runner tells right from wrong."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pystac
import pytest

from stac_latent.errors import StacLatentError
from stac_latent.secure import key_ring
from stac_latent.system.session import own_session
from stac_latent.validation import validate

KIT = Path(__file__).parents[2] / "extensions" / "latent" / "conformance"
CASES = json.loads((KIT / "manifest.json").read_text())["cases"]


def script(name):
    spec = importlib.util.spec_from_file_location(f"kit_{name}", KIT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


decoder, runner = script("decode"), script("run")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_the_package_passes(case):
    folder = KIT / case["folder"]
    key_ring().clear()
    if case["outcome"] == "refused":
        with own_session(), pytest.raises(StacLatentError):  # a codec that is at hand needs no file
            decoder.decode(folder)
        return
    want = gzip.decompress((KIT / case["expected"]).read_bytes())
    assert "1220" + hashlib.sha256(want).hexdigest() == case["checksum"]
    got = decoder.pack(decoder.decode(folder))
    assert runner.compare(got, want, case.get("tolerance", 0)) == ""


def test_manifest_says_what_the_cases_say():
    for case in CASES:
        own = json.loads((KIT / case["folder"] / "case.json").read_text())
        assert own | {k: case[k] for k in ("folder", "expected") if k in case} == case
    assert len({c["name"] for c in CASES}) == len(CASES)
    assert {p.parent.name for p in KIT.glob("cases/*/case.json")} == {c["name"] for c in CASES}


def test_kit_is_small():
    size = sum(p.stat().st_size for n in ("cases", "codecs") for p in (KIT / n).rglob("*") if p.is_file())
    assert size < 1_650_000


def test_compare_says_what_differs():
    def file(values, name="a", kind="uint16", shape=(2,)):
        head = json.dumps({"arrays": [{"name": name, "data_type": kind, "shape": list(shape)}]})
        return head.encode() + b"\n" + values

    right = file(b"\1\0\2\0")
    assert runner.compare(right, right, 0) == ""
    assert runner.compare(file(b"\1\0\3\0"), right, 0) == "a: 1 of 2 values differ"
    assert "it has the arrays" in runner.compare(file(b"\1\0\2\0", name="b"), right, 0)
    assert "declares 4 bytes of values, there are 2" in runner.compare(file(b"\1\0"), right, 0)
    assert "not in the format" in runner.compare(b"pixels", right, 0)
    nan, one, near = b"\0\0\xc0\x7f", b"\0\0\x80\x3f", b"\1\0\x80\x3f"
    floats = [file(nan + v, kind="float32") for v in (one, near)]
    assert runner.compare(*floats, 1e-6) == ""
    assert "1 of 2 values differ, such as" in runner.compare(*floats, 0)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("open(out, 'wb').write(gzip.decompress(expected))", 0, "1 of 1"),
        ("open(out, 'wb').write(gzip.decompress(expected)[:-1] + b'~')", 1, "1 of 4270 values differ"),
        ("raise SystemExit('I cannot')", 1, "exit code 1: I cannot"),
    ],
)
def test_runner_with_other_decoders(tmp_path, body, code, said):
    name = CASES[0]["name"]
    path = tmp_path / "decoder.py"
    path.write_text(
        "import gzip, sys\nfolder, out = sys.argv[1:]\n"
        f"expected = open(folder + '/expected.gz', 'rb').read()\n{body}\n"
    )
    command = [
        sys.executable,
        str(KIT / "run.py"),
        "--only",
        name,
        "--decoder",
        shlex.join([sys.executable, str(path)]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout


def test_runner_wants_refusals_with_a_sentence(tmp_path):
    case = {"name": "x", "folder": "x", "outcome": "refused"}
    for body, said in (
        ("print('the chunk was changed', file=sys.stderr); sys.exit(1)", ""),
        ("", "was decoded"),
        ("raise ValueError('oh')", "a crash"),
        ("sys.exit(3)", "a crash"),
    ):
        wrong, _ = runner.run(case, tmp_path, [sys.executable, "-c", f"import sys\n{body}"], 60)
        assert said in wrong
        assert bool(wrong) == bool(said)


def test_items_and_codecs_are_valid():
    """Documents of the kit are as the schema has them, but for that whose feature nobody knows."""
    found = {}
    for path in [*(KIT / c["folder"] / c["item"] for c in CASES), *KIT.glob("codecs/*/item.json")]:
        problems = validate(pystac.Item.from_file(str(path)))
        found[path.stem] = [str(p) for p in problems if p.keyword != "unavailable"]
    assert "'tomorrow' is not one of" in found.pop("unknown-feature")[0]
    assert {name: said for name, said in found.items() if said} == {}
