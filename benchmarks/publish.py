"""How fast, how lean and how small publishing is, beside geopandas on the same rows in the same run.

Vectors are Gaussian noise, the worst case for compression; the latent is made tile by tile while it is read, so that
memory is that of publishing alone. Every case runs in a process of its own; peaks are above the imports. Run with::

    python benchmarks/publish.py            # writes benchmarks/results/publish.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyproj
import pystac
import shapely

from stac_latent.catalog.publish.publish import publish
from stac_latent.spec import Grid, Spec
from stac_latent.store.geoparquet.writer import read_table

SIDE, DIMENSIONS, STRIDE = 448, 64, 8
SPACE = "sha256:" + 64 * "0"
MIB = 1024 * 1024


class Noise:
    """A latent that is made when it is read; equal windows are equal."""

    codec = None

    def __init__(self, number: int) -> None:
        size = SIDE * STRIDE
        self.spec = Spec("codec", SPACE, DIMENSIONS, (STRIDE, STRIDE), (2, 2))
        origin = 300_000 + 10 * size * number
        self.grid = Grid("EPSG:32633", (10, 0, origin, 0, -10, 5_300_000), (size, size), (STRIDE, STRIDE))
        self.number = number

    def read_latent(self, cells: Any = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Noise of the window's size."""
        (y0, y1), (x0, x1) = cells
        rng = np.random.default_rng([self.number, y0, x0])
        return rng.standard_normal((DIMENSIONS, y1 - y0, x1 - x0), dtype=np.float32)

    def read_valid_share(self, cells: Any = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All valid."""
        (y0, y1), (x0, x1) = cells
        return np.ones((y1 - y0, x1 - x0), np.float32)


def make_item(number: int) -> pystac.Item:
    """Item of one noise latent."""
    fields = Noise(number).spec.to_fields() | Noise(number).grid.to_fields()
    item = pystac.Item(f"scene-{number}", None, None, datetime(2024, 5, 17, tzinfo=UTC), {})
    item.add_asset("latent", pystac.Asset("./latent.zarr", roles=["latent"], extra_fields=fields))
    return item


def by_publish(path: Path, items: int, dtype: str, group: int) -> None:
    """The verb."""
    noise = {f"scene-{i}": Noise(i) for i in range(items)}
    publish(
        [make_item(i) for i in range(items)],
        path,
        dtype=dtype,  # type: ignore[arg-type]
        row_group_bytes=group * MIB,
        reader=lambda item, _: noise[item.id],
    )


def by_geopandas(path: Path, dtype: str, **options: Any) -> None:
    """What one writes without this package: a GeoDataFrame with a list in each row."""
    noise = Noise(0)
    a, _, c, _, e, f = noise.grid.cell_transform
    row, col = (v.ravel() for v in np.mgrid[0:SIDE, 0:SIDE])
    boxes = shapely.box(c + col * a, f + (row + 1) * e, c + (col + 1) * a, f + row * e)
    latent = noise.read_latent(((0, SIDE), (0, SIDE))).reshape(DIMENSIONS, -1).T.astype(dtype)
    columns = {
        "id": [f"scene-0/{r}/{k}" for r, k in zip(row, col, strict=True)],
        "item_id": "scene-0",
        "datetime": datetime(2024, 5, 17, tzinfo=UTC),
        "row": row.astype(np.int32),
        "col": col.astype(np.int32),
        "valid": np.ones(len(row), np.float32),
        "vector": list(latent),
    }
    frame = geopandas.GeoDataFrame(columns, geometry=boxes, crs="EPSG:32633").to_crs("OGC:CRS84")
    if options.pop("hilbert", False):
        frame = frame.iloc[np.argsort(frame.hilbert_distance())]
    frame.to_parquet(path, index=False, **options)


CASES: dict[str, Any] = {
    "publish float16": lambda p: by_publish(p, 1, "float16", 128),
    "publish float32": lambda p: by_publish(p, 1, "float32", 128),
    "publish int8": lambda p: by_publish(p, 1, "int8", 128),
    "publish float16, groups of 16 MiB": lambda p: by_publish(p, 1, "float16", 16),
    "publish float16, 5 items": lambda p: by_publish(p, 5, "float16", 128),
    "publish float16, groups of 16 MiB, 5 items": lambda p: by_publish(p, 5, "float16", 16),
    "geopandas float32 list, defaults": lambda p: by_geopandas(p, "float32"),
    "geopandas float32 list, Hilbert, covering, zstd 15": lambda p: by_geopandas(
        p, "float32", hilbert=True, write_covering_bbox=True, compression="zstd", compression_level=15
    ),
    "geopandas float16 list, Hilbert, covering, zstd 15": lambda p: by_geopandas(
        p, "float16", hilbert=True, write_covering_bbox=True, compression="zstd", compression_level=15
    ),
}


def measure(name: str, path: Path) -> dict[str, float]:
    """Run one case in this process."""
    pyproj.Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True).transform(5e5, 5e6)
    geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.Point(0, 0)], crs=4326).to_parquet(path)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, worked = time.perf_counter(), time.process_time()
    CASES[name](path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
    meta = pq.ParquetFile(path).metadata
    rows = meta.num_rows
    out = {
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "rows_per_cpu_s": rows / cpu,
        "peak_mib": peak,
        "bytes_per_row": path.stat().st_size / rows,
        "row_groups": meta.num_row_groups,
    }
    if name.startswith("publish"):
        out |= look_up(path)
    return out


def look_up(path: Path) -> dict[str, float]:
    """Read a box of 1 % of the first scene's area."""
    whole = read_table(path, ["bbox"])["bbox"].to_pylist()
    west, south = min(b["xmin"] for b in whole), min(b["ymin"] for b in whole)
    middle = [whole[len(whole) // 2][k] for k in ("xmin", "ymin")]
    side = 0.1 * SIDE * STRIDE * 10 / 111_320
    box = (middle[0], middle[1], middle[0] + 1.5 * side, middle[1] + side)
    assert west <= box[0]
    assert south <= box[1]
    start = time.perf_counter()
    rows = len(read_table(path, bbox=box))
    return {"box_rows": rows, "box_seconds": time.perf_counter() - start}


def run(name: str, repeats: int) -> dict[str, Any]:
    """Median of a case over processes."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(  # noqa: S603
                [sys.executable, __file__, "--case", name, "--path", f"{folder}/v.parquet"],
                check=True,
                capture_output=True,
                text=True,
            )
        found.append(json.loads(done.stdout))
    return {k: round(statistics.median(f[k] for f in found), 4) for k in found[0]}


def main() -> None:
    """Measure all cases and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "publish.json")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case, args.path)))
        return
    results = {}
    for name in CASES:
        results[name] = run(name, args.repeats)
        print(f"{name:52}", results[name], file=sys.stderr)
    ours, theirs = results["publish float32"], results["geopandas float32 list, Hilbert, covering, zstd 15"]
    half, plain = results["publish float16"], results["geopandas float16 list, Hilbert, covering, zstd 15"]
    ratios = {
        "bytes, float32: publish / geopandas with the same options": ours["bytes_per_row"]
        / theirs["bytes_per_row"],
        "bytes, float16: publish / geopandas with the same options": half["bytes_per_row"]
        / plain["bytes_per_row"],
        "rows per CPU second, float32: publish / geopandas with the same options": ours["rows_per_cpu_s"]
        / theirs["rows_per_cpu_s"],
        "rows per CPU second, float32: publish / geopandas with defaults": ours["rows_per_cpu_s"]
        / results["geopandas float32 list, defaults"]["rows_per_cpu_s"],
        "peak memory, float32: publish / geopandas with the same options": ours["peak_mib"]
        / theirs["peak_mib"],
        "peak memory: 5 items / 1 item, groups of 16 MiB": results[
            "publish float16, groups of 16 MiB, 5 items"
        ]["peak_mib"]
        / results["publish float16, groups of 16 MiB"]["peak_mib"],
    }
    document = {
        "what": f"{SIDE * SIDE} vectors of {DIMENSIONS} Gaussian values for each item; medians of {args.repeats} processes",
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "versions": {p: version(p) for p in ("geopandas", "numpy", "pyarrow", "shapely")},
        "results": results,
        "ratios": {k: round(v, 3) for k, v in ratios.items()},
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
