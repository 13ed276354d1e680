"""Values of many points through 100 dates: ``points`` beside other ways to the same numbers, in the same run.

    python benchmarks/points.py DATA [--points 10000] [--out benchmarks/results/points.json]

Three real Sentinel-2 dates (4 bands of 915 x 915 pixels) are encoded, and written as GeoTIFFs of the decoded pixels (deflate with predictor,
blocks of 256 pixels, one file for each band), so that all ways give the same values, which is checked. The series has 100 dates: the three under
100 names. Points are drawn evenly, in no order. Each way runs in a process of its own; loops are compiled and codecs opened before the clock
starts. Seconds are of processor (all threads) and of the clock; memory is the largest of the process. One load for each point is measured with five
points, and stated for one. ``rasterio`` is ``DatasetReader.sample`` on each open file, with points as they come and sorted by block; it is
measured on ten dates, and stated for all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pandas as pd
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent import encode, load, points, search
from stac_latent.cube.read.reader import LatentReader

BANDS = ("blue", "green", "red", "nir")
DATES = 100
BLOCK = 256
FEW = 5
"""Points of the way that loads each by itself."""
FIRST = 10
"""Dates of the ways that ask rasterio for each point of each file."""


def prepare(data: Path, work: Path) -> None:
    """The three dates, encoded, and their decoded pixels as GeoTIFFs."""
    make = Path(__file__).parent.parent / "catalogs" / "real.py"
    subprocess.run([sys.executable, make, data, work / "raw", "--only", "mapchete"], check=True)  # noqa: S603
    for item in encode(
        list(search(str(work / "raw" / "mapchete" / "catalog.json"))), "s2-10m-4b", work / "cat"
    ):
        reader = LatentReader.open(item)
        field, grid = reader.read_field(), reader.grid
        for plane, band in zip(field, BANDS, strict=True):
            with rasterio.open(
                work / f"{item.id}-{band}.tif", "w", driver="GTiff", height=grid.shape[0], width=grid.shape[1], count=1, dtype=plane.dtype,
                crs=grid.crs, transform=Affine(*grid.transform), nodata=0, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate",
                predictor=2,
            ) as dst:  # fmt: skip
                dst.write(plane, 1)


def series(work: Path) -> list[pystac.Item]:
    """100 Items of the three dates."""
    found = list(search(str(work / "cat" / "catalog.json")))
    out = []
    for i in range(DATES):
        item = found[i % len(found)].clone()
        item.set_self_href(found[i % len(found)].get_self_href())
        item.properties["of"] = item.id
        item.id, item.datetime = f"d{i:03}", pd.Timestamp("2023-01-01", tz="UTC") + pd.Timedelta(days=i)
        out.append(item)
    return out


def files(work: Path, items: list[pystac.Item]) -> list[list[Path]]:
    """The GeoTIFFs of each Item."""
    return [[work / f"{i.properties['of']}-{b}.tif" for b in BANDS] for i in items]


def raw_items(work: Path, items: list[pystac.Item]) -> list[pystac.Item]:
    """Items of the GeoTIFFs."""
    out = []
    for item, paths in zip(items, files(work, items), strict=True):
        raw = pystac.Item(item.id, item.geometry, item.bbox, item.datetime, {})
        raw.stac_extensions = item.stac_extensions
        box = LatentReader.open(item).grid
        fields = {
            "proj:code": box.crs,
            "proj:shape": list(box.shape),
            "proj:transform": list(box.transform),
            "data_type": "uint16",
            "nodata": 0,
        }
        for band, path in zip(BANDS, paths, strict=True):
            raw.add_asset(
                band,
                pystac.Asset(
                    str(path), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=fields
                ),
            )
        out.append(raw)
    return out


def drawn(items: list[pystac.Item], count: int) -> tuple[Any, Any, Any, Any, str]:
    """Middles of pixels in no order: x, y, rows, columns, CRS."""
    grid = LatentReader.open(items[0]).grid
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(0, n, count) for n in grid.shape)
    x, y = Affine(*grid.transform) * (columns + 0.5, rows + 0.5)
    return x, y, rows, columns, grid.crs


def by_points(work: Path, items: list[pystac.Item], count: int, raw: bool = False) -> Any:
    """The verb, on latents or on raw Items."""
    x, y, *_, crs = drawn(items, count)
    source = raw_items(work, items) if raw else items
    found = points(source, pd.DataFrame({"x": x, "y": y}), BANDS, crs=crs)
    return found[list(BANDS)].to_numpy().reshape(count, DATES, 4)


def by_points_raw(work: Path, items: list[pystac.Item], count: int) -> Any:
    """The verb on raw Items."""
    return by_points(work, items, count, raw=True)


def by_load_each(work: Path, items: list[pystac.Item], count: int) -> Any:  # noqa: ARG001
    """A load of one pixel for each point."""
    x, y, *_, crs = drawn(items, count)
    out = []
    for px, py in zip(x[:FEW], y[:FEW], strict=True):
        box = GeoBox((1, 1), Affine(10, 0, px - 5, 0, -10, py + 5), crs)
        cube = load(items, BANDS, geobox=box)
        out.append(np.stack([cube[b].to_numpy()[:, 0, 0] for b in BANDS], axis=1))
    return np.stack(out).astype(float)


def by_load_area(work: Path, items: list[pystac.Item], count: int) -> Any:  # noqa: ARG001
    """A load of all pixels, and a pick."""
    _, _, rows, columns, _ = drawn(items, count)
    cube = load(items, BANDS)
    return np.stack([cube[b].to_numpy()[:, rows, columns].T for b in BANDS], axis=2).astype(float)


def by_odc_area(work: Path, items: list[pystac.Item], count: int) -> Any:
    """The same with the stock driver and raw Items."""
    _, _, rows, columns, _ = drawn(items, count)
    cube = odc.stac.load(raw_items(work, items), BANDS, pool=os.cpu_count())
    return np.stack([cube[b].to_numpy()[:, rows, columns].T for b in BANDS], axis=2).astype(float)


def by_rasterio(work: Path, items: list[pystac.Item], count: int, ordered: bool = False) -> Any:
    """Samples of each open file."""
    x, y, rows, columns, _ = drawn(items, count)
    order = np.lexsort((columns // BLOCK, rows // BLOCK)) if ordered else np.arange(count)
    out = np.zeros((count, FIRST, 4))
    for i, paths in enumerate(files(work, items[:FIRST])):
        for k, path in enumerate(paths):
            with rasterio.open(path) as src:
                out[order, i, k] = [v[0] for v in src.sample(zip(x[order], y[order], strict=True))]
    return out


def by_rasterio_sorted(work: Path, items: list[pystac.Item], count: int) -> Any:
    """The same, with points sorted by block."""
    return by_rasterio(work, items, count, ordered=True)


WAYS = {
    "points, latents": by_points,
    "load of each point, latents (one point)": by_load_each,
    "load of the area, latents": by_load_area,
    "points, raw": by_points_raw,
    "odc.stac.load of the area, raw": by_odc_area,
    "rasterio sample, raw": by_rasterio,
    "rasterio sample, raw, points sorted by block": by_rasterio_sorted,
}


def measure(way: str, work: Path, count: int) -> dict[str, float]:
    """One way, in this process."""
    items = series(work)
    load(items[:1], BANDS, bbox=None)
    clock, processor = time.perf_counter(), time.process_time()
    values = WAYS[way](work, items, count)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    share = DATES / values.shape[1] / (FEW if len(values) == FEW < count else 1)
    np.save(work / f"{list(WAYS).index(way)}.npy", np.nan_to_num(values[:FEW, :FIRST]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"seconds": clock * share, "processor": processor * share, "memory_mib": peak}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "points.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(args.data, work)
        found = {}
        for way in WAYS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[way] = pool.apply(measure, (way, work, args.points))
            print(way, found[way], flush=True)
        first, *others = (np.load(work / f"{i}.npy") for i in range(len(WAYS)))
        assert all(np.array_equal(first, other) for other in others), "the ways do not give the same values"
        stores = sum(
            p.stat().st_size for p in (work / "cat").rglob("*") if p.is_file() and "latent" in str(p)
        )
        tiffs = sum(p.stat().st_size for p in work.glob("*.tif"))
    base = found["points, latents"]["processor"]
    for row in found.values():
        row["processor_ratio"] = row["processor"] / base
    result = {
        "points": args.points, "dates": DATES, "bands": 4, "pixels": [915, 915], "cores": os.cpu_count(), "python": platform.python_version(),
        "bytes_of_three_dates": {"latents": stores, "geotiffs": tiffs}, "ways": found,
    }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
