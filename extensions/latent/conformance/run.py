"""Run a decoder over the conformance kit of the latent: extension, and say which features it has.

    python extensions/latent/conformance/run.py --decoder "COMMAND" [--only NAME,...] [--kit FOLDER]

COMMAND is called once for each case, with two more arguments: the folder of the case, and the path of the file to write. It
writes what ``case.json`` asks for, or exits with another code than 0 and one sentence on standard error. README.md beside this
file has the formats. Needs Python 3.9, and nothing else. Exits with 0 if every case passes.
"""

from __future__ import annotations

import argparse
import array
import gzip
import json
import math
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODES = {"float32": "f", "float64": "d"}


def read(data: bytes) -> list[tuple[str, str, list[int], bytes]]:
    """Name, type, shape and bytes of the arrays of a file in the format of the kit."""
    head, _, rest = data.partition(b"\n")
    out, at = [], 0
    for one in json.loads(head)["arrays"]:
        size = int("".join(filter(str.isdigit, one["data_type"]))) // 8
        for n in one["shape"]:
            size *= n
        out.append((one["name"], one["data_type"], one["shape"], rest[at : at + size]))
        at += size
    if at != len(rest):
        raise ValueError(f"its head declares {at} bytes of values, there are {len(rest)}")
    return out


def values(data: bytes, data_type: str) -> array.array[float]:
    """Little-endian floats."""
    out = array.array(CODES[data_type])
    out.frombytes(data)
    if sys.byteorder == "big":
        out.byteswap()
    return out


def differ(got: bytes, want: bytes, data_type: str, tolerance: float) -> str:
    """What is to be said of the values of one array; nothing where they agree."""
    if got == want:
        return ""
    if data_type not in CODES:
        size = len(want) // max(1, len(want) // (int("".join(filter(str.isdigit, data_type))) // 8))
        count = sum(got[i : i + size] != want[i : i + size] for i in range(0, len(want), size))
        return f"{count} of {len(want) // size} values differ"
    a, b = values(got, data_type), values(want, data_type)
    wrong = [
        (x, y)
        for x, y in zip(a, b)  # noqa: B905 - Python 3.9, and lengths are equal
        if not (x == y or (math.isnan(x) and math.isnan(y)) or abs(x - y) <= tolerance * max(abs(x), abs(y)))
    ]
    return (
        f"{len(wrong)} of {len(b)} values differ, such as {wrong[0][0]!r} for {wrong[0][1]!r}"
        if wrong
        else ""
    )


def compare(got: bytes, want: bytes, tolerance: float) -> str:
    """What is wrong with a decoder's file; nothing where it is right."""
    try:
        mine, theirs = read(got), read(want)
    except (ValueError, KeyError, TypeError) as exc:
        return f"its file is not in the format of the kit: {exc}"
    if [m[:3] for m in mine] != [t[:3] for t in theirs]:
        return f"it has the arrays {[m[:3] for m in mine]}; expected {[t[:3] for t in theirs]}"
    for (name, data_type, _, a), (*_, b) in zip(mine, theirs):  # noqa: B905
        if said := differ(a, b, data_type, tolerance):
            return f"{name}: {said}"
    return ""


def run(case: dict[str, object], kit: Path, command: list[str], limit: float) -> tuple[str, float]:
    """What a decoder did wrong in one case, nothing where it passes; and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out, started = Path(folder) / "out", time.perf_counter()
        try:
            done = subprocess.run(  # noqa: S603 - the command that the user gave
                [*command, str(kit / str(case["folder"])), str(out)],
                capture_output=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"took more than {limit:g} s", limit
        taken, said = time.perf_counter() - started, done.stderr.decode(errors="replace").strip()
        if case["outcome"] == "refused":
            if done.returncode == 0:
                return "was decoded; it must be refused", taken
            if done.returncode < 0 or "Traceback" in said or not said:
                return f"was refused by a crash (exit code {done.returncode}): {said[-200:]}", taken
            return "", taken
        if done.returncode != 0 or not out.is_file():
            return f"exit code {done.returncode}: {said[-300:]}", taken
        want = gzip.decompress((kit / str(case["expected"])).read_bytes())
        return compare(out.read_bytes(), want, float(str(case.get("tolerance", 0)))), taken


def main() -> int:
    """Run the cases; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decoder", required=True, metavar="COMMAND")
    parser.add_argument("--kit", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--only", default="", help="names of cases, with commas between")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a case")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    asked = parser.parse_args()
    cases = json.loads((asked.kit / "manifest.json").read_text(encoding="utf-8"))["cases"]
    only = set(filter(None, asked.only.split(",")))
    if unknown := only - {c["name"] for c in cases}:
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    rows = []
    for case in cases:
        if only and case["name"] not in only:
            continue
        wrong, taken = run(case, asked.kit, shlex.split(asked.decoder), asked.limit)
        rows.append(
            {
                "feature": case["feature"],
                "case": case["name"],
                "passed": not wrong,
                "seconds": round(taken, 2),
                "said": wrong,
            }
        )
        if not asked.json:
            print(
                f"{'pass' if not wrong else 'FAIL'}  {case['feature']:24} {case['name']:24} {taken:6.2f} s  {wrong}",
                flush=True,
            )
    passed = sum(bool(r["passed"]) for r in rows)
    if asked.json:
        print(json.dumps(rows, indent=1))
    else:
        failing = sorted({str(r["feature"]) for r in rows if not r["passed"]})
        print(
            f"\n{passed} of {len(rows)} cases pass"
            + (f"; not all of: {', '.join(failing)}" if failing else "")
        )
    return 0 if passed == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
