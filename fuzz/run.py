"""Fuzz every reader of foreign bytes, and keep count.

Each input is made from a seed by a few mutations, with checksums put right half of the time, and given to one reader. An
input fails where it ends in anything but an error of the package, takes more than five seconds, asks for more memory than
is allowed, or ends the process. Failing inputs are kept in ``fuzz/found/``. Engines: ``random`` (mutations by a seeded
generator), ``hypothesis`` (the same mutations, drawn and shrunk by it), ``atheris`` (guided by coverage of the Python code).

    python fuzz/run.py --seconds 120                      # all targets, random; adds to benchmarks/results/fuzz.json
    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python fuzz/run.py --seconds 120
    python fuzz/run.py --engine atheris --targets lin --seconds 60
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import random
import resource
import subprocess
import sys
import threading
import time
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND = HERE / "found"
RESULTS = HERE.parent / "benchmarks" / "results" / "fuzz.json"
SLOWEST = 5.0
ROOM = 1 << 30
"""Bytes that the process may grow by while it fuzzes."""
ALLOWED = 256 << 20
"""What a payload may decode to, meanwhile."""
_BUFFER = 1 << 24
_BEYOND = "index is out of bounds"
"""What numba says of an index, where it checks them; numpy and Python say which."""


class Watch:
    """Runs one input after another; the one at hand lies in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_BUFFER))
        self.file = path.open("r+b")
        self.map = mmap.mmap(self.file.fileno(), _BUFFER)
        self.started: float | None = None
        self.slowest = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(1)
            started = self.started
            if started is not None and time.perf_counter() - started > SLOWEST:
                sys.stderr.write("HANG\n")
                sys.stderr.flush()
                os._exit(3)

    def run(self, target: Any, data: bytes) -> BaseException | None:
        """What an input raised that is no error of the package, if anything."""
        from stac_latent.errors import StacLatentError

        self.map[:8] = len(data).to_bytes(8, "little")
        self.map[8 : 8 + len(data)] = data
        self.started = time.perf_counter()
        bad: BaseException | None = None
        try:
            target.run(data)
        except StacLatentError as exc:
            cause: BaseException | None = exc
            while cause is not None:
                beyond = (
                    isinstance(cause, IndexError) and str(cause) == _BEYOND
                )  # a compiled loop, with bounds checked
                bad = cause if beyond or isinstance(cause, MemoryError) else bad
                cause = cause.__cause__ or cause.__context__
        except Exception as exc:  # noqa: BLE001 - this is what is looked for
            bad = exc
        self.slowest = max(self.slowest, time.perf_counter() - self.started)
        self.started = None
        return bad


def one_input(rng: random.Random, target: Any) -> bytes:
    """A mutated seed."""
    data = target.mutate(rng, rng.choice(target.seeds), rng.choice(target.seeds))
    return target.repair(data) if rng.random() < 0.5 else data


def fuzz_random(name: str, target: Any, seconds: float, seed: int, watch: Watch) -> tuple[int, list[bytes]]:
    """Inputs run, and those that failed, over some seconds of the process's own time."""
    rng, count, failed = random.Random(f"{name}-{seed}"), 0, []  # noqa: S311 (mutations, not secrets)
    end = time.process_time() + seconds
    while time.process_time() < end and len(failed) < 5:
        data = one_input(rng, target)
        bad = watch.run(target, data)
        count += 1
        if bad is not None:
            failed.append(data)
            traceback.print_exception(bad)
    return count, failed


def fuzz_hypothesis(
    name: str, target: Any, seconds: float, seed: int, watch: Watch
) -> tuple[int, list[bytes]]:
    """As :func:`fuzz_random`, with inputs that hypothesis draws."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    del name, seed
    count, failed, end = 0, [], time.process_time() + seconds

    @settings(max_examples=10**9, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def inner(rng: random.Random) -> None:
        nonlocal count
        if time.process_time() > end:
            raise TimeoutError
        data = one_input(rng, target)
        count += 1
        bad = watch.run(target, data)
        if bad is not None:
            failed.append(data)
            raise bad

    try:
        inner()
    except TimeoutError:
        pass
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    return count, failed[:5]


def fuzz_atheris(target: Any, seconds: float, watch: Watch, report: Path) -> None:
    """Let atheris mutate, repairing checksums; ends the process."""
    import atheris

    count = 0

    def run(data: bytes) -> None:
        nonlocal count
        count += 1
        if count % 64 == 0:
            report.write_text(json.dumps({"count": count, "slowest": watch.slowest, "failed": 0}))
        bad = watch.run(target, target.repair(data) if data[:1] and data[-1] & 1 else data)
        if bad is not None:
            FOUND.mkdir(exist_ok=True)
            (FOUND / "atheris").write_bytes(data)
            report.write_text(json.dumps({"count": count, "slowest": watch.slowest, "failed": 1}))
            raise bad

    corpus = report.with_suffix(".corpus")
    corpus.mkdir(exist_ok=True)
    for i, seed in enumerate(target.seeds):
        (corpus / str(i)).write_bytes(seed)
    atheris.Setup(
        [
            "fuzz",
            f"-max_total_time={int(seconds)}",
            "-max_len=16384",
            "-rss_limit_mb=4096",
            "-timeout=5",
            str(corpus),
        ],
        run,
    )
    atheris.Fuzz()


def child(args: argparse.Namespace) -> None:
    """Fuzz one target, in a process of its own."""
    warnings.simplefilter("ignore")
    faulthandler.enable()
    os.environ["STAC_LATENT_MAX_BYTES"] = str(ALLOWED)
    report = Path(args.report)
    watch = Watch(report.with_suffix(".input"))
    (name,) = args.targets
    if args.engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["stac_latent"]):
            from targets import MAKERS
    else:
        from targets import MAKERS
    target = MAKERS[name]()
    for data in target.seeds:  # compiles what there is to compile
        target.run(data) if name != "mask" else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    soft = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if args.engine == "atheris":
        fuzz_atheris(target, args.seconds, watch, report)
        return
    resource.setrlimit(resource.RLIMIT_AS, (soft + 4 * ROOM, resource.RLIM_INFINITY))
    engine = {"random": fuzz_random, "hypothesis": fuzz_hypothesis}[args.engine]
    count, failed = engine(name, target, args.seconds, args.seed, watch)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    FOUND.mkdir(exist_ok=True)
    for data in failed:
        from targets import name_of

        (FOUND / f"{name}-{name_of(data)}").write_bytes(data)
    report.write_text(
        json.dumps(
            {"count": count, "failed": len(failed), "slowest": round(watch.slowest, 3), "grown": grown}
        )
    )


def leave() -> None:
    """End at once: what libraries do when a process ends is none of what is looked for."""
    sys.stderr.flush()
    os._exit(0)


def save(results: dict[str, Any], failures: int) -> None:
    """Add up and write what was run so far."""
    before = results.get("earlier", {}).get("inputs", 0)
    results["inputs"] = before + sum(e["inputs"] for e in results["runs"].values())
    results["failures_left"] = failures
    results["date"] = datetime.now(UTC).date().isoformat()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Fuzz targets one after another and add up the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of all targets together; of each with atheris"
    )
    parser.add_argument("--engine", default="random", choices=("random", "hypothesis", "atheris"))
    parser.add_argument("--targets", type=lambda t: t.split(","), default=None)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--report", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.report:
        child(args)
        leave()
        return
    from targets import MAKERS

    names = args.targets or list(MAKERS)
    if unknown := sorted(set(names) - set(MAKERS)):
        parser.error(f"no targets {', '.join(unknown)}; there are {', '.join(MAKERS)}")
    checked = bool(os.environ.get("NUMBA_BOUNDSCHECK"))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    failures = 0
    report = Path(os.environ.get("TMPDIR", "/tmp")) / f"fuzz-{os.getpid()}.json"  # noqa: S108
    for name in names:
        report.write_text("{}")
        share = args.seconds if args.engine == "atheris" else args.seconds / len(names)
        command = [
            sys.executable,
            __file__,
            "--report",
            str(report),
            "--targets",
            name,
            "--engine",
            args.engine,
        ]
        command += ["--seconds", str(share), "--seed", str(args.seed)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        found = json.loads(report.read_text() or "{}")
        crashed = done.returncode != 0 and (args.engine != "atheris" or found.get("failed", 1))
        if crashed:
            data = report.with_suffix(".input").read_bytes()
            FOUND.mkdir(exist_ok=True)
            (FOUND / f"{name}-crash").write_bytes(data[8 : 8 + int.from_bytes(data[:8], "little")])
        bad = int(found.get("failed", 0)) + int(crashed) + int(found.get("grown", 0) > ROOM)
        failures += bad
        if bad:
            sys.stderr.write(f"{name}: exit {done.returncode}\n{done.stderr[-3000:]}\n")
        key = f"{name}, {args.engine}{', bounds checked' if checked else ''}"
        entry = results["runs"].setdefault(key, {"inputs": 0, "slowest_s": 0.0, "grown_mb": 0})
        entry["inputs"] += int(found.get("count", 0)) if not bad else 0
        entry["slowest_s"] = max(entry["slowest_s"], round(found.get("slowest", 0.0), 3))
        entry["grown_mb"] = max(entry["grown_mb"], int(found.get("grown", 0)) >> 20)
        print(f"{key}: {found}", flush=True)
        save(results, failures)
    print(f"{results['inputs']:,} inputs so far; {failures} failures in this run")
    sys.exit(bool(failures))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
