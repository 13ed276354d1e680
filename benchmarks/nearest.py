"""A million vectors: publishing them, reading a place of them, and finding the most similar ones.

Vectors are made tile by tile while they are read, as a model would give them: clusters of Zipf's sizes in patches of 5 x 5 cells, a
spectrum that falls as a power, a common mean that is not zero, clusters of unequal width. Every case runs in a process of its own;
times are CPU times of all threads, peaks are above the imports. Run with::

    python benchmarks/nearest.py            # writes benchmarks/results/nearest.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac

from stac_latent.catalog.publish.publish import publish
from stac_latent.spec import Grid, Spec
from stac_latent.store.geoparquet.writer import read_table

SIDE, DIMENSIONS, STRIDE, SCENES = 250, 128, 8, 16
SPACE = "sha256:" + 64 * "0"
CLUSTERS = 4000


@cache
def clusters() -> tuple[Any, Any, Any, Any]:
    """Centres (cluster, k), widths (cluster,), weights (cluster,) and the spectrum (k,)."""
    rng = np.random.default_rng(2024)
    spectrum = (1 + np.arange(DIMENSIONS)) ** -0.5
    turn = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0]
    centres = rng.standard_normal((CLUSTERS, DIMENSIONS)) * spectrum @ turn + 0.5 * rng.standard_normal(
        DIMENSIONS
    )
    widths = 0.3 * np.exp(0.4 * rng.standard_normal(CLUSTERS))
    weights = 1 / (5 + np.arange(CLUSTERS))
    return (
        centres.astype(np.float32),
        widths,
        weights / weights.sum(),
        (spectrum[:, None] * turn).astype(np.float32),
    )


def draw(rng: np.random.Generator, which: Any) -> Any:
    """Vectors (n, k) of clusters (n,)."""
    centres, widths, _, basis = clusters()
    noise = rng.standard_normal((len(which), DIMENSIONS), dtype=np.float32) @ basis
    return centres[which] + noise * widths[which, None].astype(np.float32)


class Made:
    """A latent that is made when it is read; equal windows are equal."""

    codec = None

    def __init__(self, number: int) -> None:
        size = SIDE * STRIDE
        self.spec = Spec("codec", SPACE, DIMENSIONS, (STRIDE, STRIDE), (2, 2))
        y, x = divmod(number, 4)
        self.grid = Grid(
            "EPSG:32633",
            (10, 0, 300_000 + 10 * size * x, 0, -10, 5_300_000 - 10 * size * y),
            (size, size),
            (STRIDE, STRIDE),
        )
        self.number = number

    def read_latent(self, cells: Any = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Vectors of the window."""
        (y0, y1), (x0, x1) = cells
        rng = np.random.default_rng([self.number, y0, x0])
        h, w = y1 - y0, x1 - x0
        patches = rng.choice(CLUSTERS, (-(-h // 5), -(-w // 5)), p=clusters()[2])
        which = np.kron(patches, np.ones((5, 5), np.int64))[:h, :w].ravel()
        return np.ascontiguousarray(draw(rng, which).T.reshape(DIMENSIONS, h, w))

    def read_valid_share(self, cells: Any = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All valid."""
        (y0, y1), (x0, x1) = cells
        return np.ones((y1 - y0, x1 - x0), np.float32)


def make_item(number: int) -> pystac.Item:
    """Item of one scene."""
    fields = Made(number).spec.to_fields() | Made(number).grid.to_fields()
    item = pystac.Item(f"scene-{number:02}", None, None, datetime(2024, 5, 1 + number, tzinfo=UTC), {})
    item.add_asset("latent", pystac.Asset("./latent.zarr", roles=["latent"], extra_fields=fields))
    return item


class Counted(io.FileIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        """As of any file."""
        data = super().read(-1 if size is None else size)
        self.count += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        size = super().readinto(buffer)
        self.count += size or 0
        return size or 0


def peak(base: int) -> float:
    """MiB above ``base``."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024


def case_publish(folder: Path, dtype: str, partition: int | None = None) -> dict[str, Any]:
    """Publish a million vectors, and read a place of 1 % of their area."""
    path = folder / (f"{dtype}-tiles" if partition is not None else f"{dtype}.parquet")
    made = {f"scene-{i:02}": Made(i) for i in range(SCENES)}
    clusters()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, worked = time.perf_counter(), time.process_time()
    publish(
        [make_item(i) for i in range(SCENES)], path, dtype=dtype, partition=partition, compression_level=3,  # type: ignore[arg-type]
        reader=lambda item, _: made[item.id],
    )  # fmt: skip
    out: dict[str, Any] = {
        "wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - worked, "peak_mib": peak(base)
    }  # fmt: skip
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    metas = [pq.ParquetFile(f).metadata for f in files]
    sizes = [m.row_group(i).total_byte_size for m in metas for i in range(m.num_row_groups)]
    rows = sum(m.num_rows for m in metas)
    size = sum(f.stat().st_size for f in files)
    out |= {
        "rows": rows,
        "files": len(files),
        "row_groups": len(sizes),
        "largest_row_group_mib": max(sizes) / 2**20,
    }
    out |= {"bytes": size, "bytes_per_row": size / rows}
    return out | (look_up(path, rows) if partition is None else {})


def look_up(path: Path, rows: int) -> dict[str, Any]:
    """Bytes and time to read boxes of 1 % of the area, the mean of nine places."""
    bounds = json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["geometry"]["bbox"]
    west, south, east, north = bounds
    width, height = (east - west) / 10, (north - south) / 10
    counts, found, cpu = [], [], []
    for i in range(9):
        x, y = (
            west + (0.15 + 0.3 * (i % 3)) * (east - west),
            south + (0.15 + 0.3 * (i // 3)) * (north - south),
        )
        with Counted(path) as file:
            worked = time.process_time()
            table = read_table(file, bbox=(x, y, x + width, y + height))
            cpu.append(time.process_time() - worked)
            counts.append(file.count / path.stat().st_size)
            found.append(table.num_rows / rows)
    mean = {"box_rows_percent": found, "box_bytes_percent": counts}
    return {k: 100 * float(np.mean(v)) for k, v in mean.items()} | {
        "box_bytes_percent_worst": 100 * max(counts), "box_cpu_ms": 1e3 * float(np.mean(cpu))
    }  # fmt: skip


def cpu_ms(call: Callable[[int], Any], count: int, first: int = 2) -> float:
    """Mean CPU time of a call [ms], after some that are not counted."""
    for i in range(first):
        call(i)
    worked = time.process_time()
    for i in range(count):
        call(i)
    return 1e3 * (time.process_time() - worked) / count


def case_search(folder: Path, dtype: str, simd: str) -> dict[str, Any]:
    """Exact and indexed searches of a table."""
    if simd == "numpy":
        sys.modules["simsimd"] = None  # type: ignore[assignment]
    from stac_latent.index.ivf import build_index
    from stac_latent.index.memory_map import cache_folder
    from stac_latent.index.metric import Form
    from stac_latent.index.nearest import find, nearest
    from stac_latent.index.table import open_table

    table = open_table(folder / f"{dtype}.parquet")
    rng = np.random.default_rng(7)
    queries = draw(rng, rng.choice(CLUSTERS, 232, p=clusters()[2]))
    form = Form.of("cosine", DIMENSIONS)
    out: dict[str, Any] = {}
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worked = time.process_time()
    build_index(table)
    out["layout_cpu_s"] = time.process_time() - worked
    for metric in ("cosine", "l2"):
        own = Form.of(metric, DIMENSIONS)
        out[f"exact_{metric}_cpu_ms"] = cpu_ms(
            lambda i, own=own: find(table, queries[i : i + 1], 10, own), 10
        )
    out["exact_batch_of_32_cpu_ms_per_query"] = (
        cpu_ms(lambda _: find(table, queries[:32], 10, form), 2, 1) / 32
    )
    keep = np.zeros(table.rows, np.bool_)
    keep[: table.rows // 100] = True
    out["exact_of_1_percent_cpu_ms"] = cpu_ms(lambda i: find(table, queries[i : i + 1], 10, form, keep), 10)
    if simd != "numpy":
        worked = time.process_time()
        made = build_index(table, form)
        out["index_cpu_s"] = time.process_time() - worked
        assert made is not None
        out |= {"index_bytes": made.nbytes, "index_over_int8_bytes": made.nbytes / (table.rows * DIMENSIONS)}
        out |= {"lists": int(made.index.nlist), "lists_probed": made.nprobe, "recall_of_sample": made.recall}
        _, exact = find(table, queries[32:], 10, form)
        _, found = find(table, queries[32:], 10, form, index=True)
        shares = [
            len(set(e.tolist()) & set(f.tolist())) / 10 for (e, _), (f, _) in zip(exact, found, strict=True)
        ]
        out |= {"recall_at_10": float(np.mean(shares)), "queries": len(shares)}
        out["indexed_cpu_ms"] = cpu_ms(lambda i: find(table, queries[i : i + 1], 10, form, index=True), 100)
        out["indexed_rows_as_a_frame_cpu_ms"] = cpu_ms(
            lambda i: nearest(table, queries[i], 10, index=True), 50
        )
        half = np.arange(table.rows) % 2 == 0
        out["indexed_of_half_cpu_ms"] = cpu_ms(
            lambda i: find(table, queries[i : i + 1], 10, form, half, index=True), 20
        )
    sizes = {p.name: p.stat().st_size for p in cache_folder(table).iterdir()}
    return out | {"peak_mib": peak(base), "files": sizes}


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "publish float32": lambda f: case_publish(f, "float32"),
    "publish float16": lambda f: case_publish(f, "float16"),
    "publish int8": lambda f: case_publish(f, "int8"),
    "publish int8, tiles of zoom 9": lambda f: case_publish(f, "int8", 9),
    "search float16": lambda f: case_search(f, "float16", "simsimd"),
    "search int8, numpy": lambda f: case_search(f, "int8", "numpy"),
    "search int8, simsimd": lambda f: case_search(f, "int8", "simsimd"),
}


def rounded(value: Any) -> Any:
    """Numbers to four digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    """Measure all cases and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="Keep the tables there.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nearest.json")
    parser.add_argument("--only", help="Cases whose name holds this; other results are kept.", default="")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(rounded(CASES[args.case](args.folder))))
        return
    with tempfile.TemporaryDirectory() as own:
        folder = args.folder or Path(own)
        known = json.loads(args.out.read_text(encoding="utf-8"))["results"] if args.only else {}
        for name in CASES:
            if args.only not in name:
                continue
            command = [sys.executable, __file__, "--case", name, "--folder", str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
            known[name] = json.loads(done.stdout)
            print(f"{name:32}", known[name], file=sys.stderr)
            write({n: known[n] for n in CASES if n in known}, args.out)


def write(results: dict[str, Any], dest: Path) -> None:
    """Write what was measured so far."""
    document = {
        "what": f"{SCENES * SIDE * SIDE} vectors of {DIMENSIONS} values in {CLUSTERS} clusters, from {SCENES} scenes",
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "versions": {p: version(p) for p in ("faiss-cpu", "numpy", "pyarrow", "simsimd")},
        "results": results,
    }
    dest.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
