"""A whole Sentinel-2 scene: 5490 x 5490 pixels, 12 bands, made of real chips.

    python benchmarks/scene.py DATA WORK [--size 5490]

DATA holds ``sentinel2/ssl4eo_s12_seasons``; WORK gets the scene and its latents (about 1 GB) and is reused. Measures,
and writes to ``benchmarks/results/scene.json``:

- peak memory, time and rate of ``stac-latent encode``, verification included, in a process of its own;
- bytes that a load of 512 x 512 pixels takes from the store;
- speed of decoding with two dask threads, beside the stock driver reading the same pixels from deflated GeoTIFF and
  from JPEG 2000 of the same PSNR, in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import dask
import numpy as np
import odc.stac
import pystac
import rasterio
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

import stac_latent
from stac_latent.cube.read.chunk_cache import forget
from stac_latent.cube.read.reader import LatentReader
from stac_latent.store.zarr.open_store import LocalFiles
from stac_latent.system.files import tree_size

NAMES = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
CRS, ORIGIN, RESOLUTION, CHIP = "EPSG:32633", (499980, 5200020), 20, 260


def build(data: Path, out: Path, size: int) -> Path:
    """Scene of real chips, each turned and mirrored at random; returns the Item's path."""
    path = out / "item.json"
    if path.exists():
        return path
    out.mkdir(parents=True, exist_ok=True)
    chips = []
    for file in sorted((data / "sentinel2" / "ssl4eo_s12_seasons").glob("*.tif")):
        with rasterio.open(file) as src:
            chips.append(np.maximum(src.read()[:, :CHIP, :CHIP], 1).astype(np.uint16))
    n = -(-size // CHIP)
    rng = np.random.default_rng(0)
    which, turn = rng.integers(0, len(chips), (n, n)), rng.integers(0, 8, (n, n))
    transform = Affine(RESOLUTION, 0, ORIGIN[0], 0, -RESOLUTION, ORIGIN[1])
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 1,
        "height": size,
        "width": size,
        "crs": CRS,
        "nodata": 0,
    }
    box = GeoBox((size, size), transform, CRS).geographic_extent
    item = pystac.Item("scene", box.json, list(box.boundingbox.bbox), datetime(2023, 1, 1, tzinfo=UTC), {})
    for b, name in enumerate(NAMES):
        scene = np.empty((n * CHIP, n * CHIP), np.uint16)
        for i, j in np.ndindex(n, n):
            chip = np.rot90(chips[which[i, j]][b], turn[i, j] % 4)
            scene[i * CHIP : (i + 1) * CHIP, j * CHIP : (j + 1) * CHIP] = chip.T if turn[i, j] > 3 else chip
        tif = out / f"{name}.tif"
        with rasterio.open(
            tif, "w", **profile, transform=transform, compress="deflate", predictor=2, tiled=True
        ) as dst:
            dst.write(scene[:size, :size], 1)
        fields = {"data_type": "uint16", "nodata": 0, "raster:scale": 1e-4}
        item.add_asset(
            name, pystac.Asset(str(tif), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields)
        )
    item.properties |= {"proj:code": CRS, "proj:shape": [size, size], "proj:transform": list(transform)[:6]}
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    item.set_self_href(str(path))
    path.write_text(json.dumps(item.to_dict(transform_hrefs=False)))
    return path


def encode(item: Path, dest: Path) -> dict[str, Any]:
    """Encode in a process of its own; time, CPU and peak memory of it."""
    command = [
        sys.executable,
        "-m",
        "stac_latent",
        "encode",
        str(item),
        str(dest),
        "--codec",
        "s2-l2a-12b",
        "--overwrite",
        "--json",
    ]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = json.loads(done.stdout)["items"][0]
    return {
        "href": row["href"],
        "bits_per_pixel": row["bits_per_pixel"],
        "psnr": row["psnr"],
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


class CountedBytes:
    """Counts bytes that local stores hand out while it is active."""

    def __enter__(self) -> Self:
        self.bytes, self.original, self.part = 0, zarr.storage.LocalStore.get, LocalFiles.read

        async def get(store: Any, *args: Any, **kwargs: Any) -> Any:
            found = await self.original(store, *args, **kwargs)
            self.bytes += 0 if found is None else len(found)
            return found

        def read(store: Any, *args: Any) -> Any:
            found = self.part(store, *args)
            self.bytes += 0 if found is None else len(found)
            return found

        zarr.storage.LocalStore.get, LocalFiles.read = get, read
        return self

    def __exit__(self, *exc: object) -> None:
        zarr.storage.LocalStore.get, LocalFiles.read = self.original, self.part


def timed(function: Any, repeat: int = 3) -> float:
    """Best wall-clock seconds of several runs."""
    best = np.inf
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return float(best)


def jpeg2000_item(raw: pystac.Item, out: Path, window: GeoBox, bits: float) -> pystac.Item:
    """The window of each band as JPEG 2000 of about the given bits per pixel."""
    item = pystac.Item("jp2", raw.geometry, raw.bbox, raw.datetime, {})
    cube = odc.stac.load([raw], bands=NAMES, geobox=window)
    out.mkdir(exist_ok=True)
    for name in NAMES:
        path = out / f"{name}.jp2"
        profile = {
            "driver": "JP2OpenJPEG",
            "count": 1,
            "dtype": "uint16",
            "crs": CRS,
            "transform": window.affine,
        }
        shape = {"height": window.shape[0], "width": window.shape[1], "blockxsize": 512, "blockysize": 512}
        with rasterio.open(
            path, "w", **profile, **shape, QUALITY=str(100 * bits / 16), REVERSIBLE="NO"
        ) as dst:
            dst.write(cube[name].values[0], 1)
        item.add_asset(name, pystac.Asset(str(path), media_type=pystac.MediaType.JPEG2000, roles=["data"]))
    return item


def psnr(truth: Any, found: Any) -> float:
    """Over all bands, peak 10000."""
    mse = np.mean([np.square(found[n].values.astype(float) - truth[n].values).mean() for n in NAMES])
    return float(-10 * np.log10(mse / 1e8))


def decode_cold(item: pystac.Item, window: GeoBox, chunks: dict[str, int]) -> None:
    """Load a window with no chunk decoded before."""
    forget()
    stac_latent.load(item, geobox=window, chunks=chunks).compute()


def decode_whole(item: pystac.Item) -> None:
    """Decode every pixel of the scene, strip by strip, keeping none."""
    forget()
    reader = LatentReader.open(item)
    height, width = reader.grid.shape
    for top in range(0, height, 1024):
        reader.read_field(((top, min(top + 1024, height)), (0, width)))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", type=int, default=5490)
    args = parser.parse_args()
    path = build(args.data, args.work / "raw", args.size)
    result: dict[str, Any] = {
        "size": args.size,
        "bands": len(NAMES),
        "cores": os.cpu_count(),
        "encode": encode(path, args.work / "latent"),
    }
    raw = pystac.Item.from_file(str(path))
    item = pystac.Item.from_file(result["encode"].pop("href"))
    fields = item.assets["latent"].extra_fields
    bits = fields["latent:bits_per_pixel"]

    transform = Affine(
        RESOLUTION, 0, ORIGIN[0] + 2000 * RESOLUTION, 0, -RESOLUTION, ORIGIN[1] - 2100 * RESOLUTION
    )
    small, big = GeoBox((512, 512), transform, CRS), GeoBox((2048, 2048), transform, CRS)
    total = tree_size(args.work / "latent" / "latents" / "scene" / "latent.zarr")
    with CountedBytes() as counted:
        stac_latent.load(item, geobox=small)
    result["window"] = {
        "pixels": 512,
        "bytes": counted.bytes,
        "store_bytes": total,
        "share": counted.bytes / total,
    }

    truth = odc.stac.load([raw], bands=NAMES, geobox=big)
    low, high = bits, 4 * bits
    for _ in range(5):  # the rate at which JPEG 2000 is as good as the latents
        middle = (low + high) / 2
        peer = jpeg2000_item(raw, args.work / "jp2", big, middle)
        quality = psnr(truth, odc.stac.load([peer], bands=NAMES, geobox=big))
        low, high = (middle, high) if quality < result["encode"]["psnr"] else (low, middle)
    chunks, pixels = {"x": 1024, "y": 1024}, 2048 * 2048 / 1e6
    with dask.config.set(scheduler="threads", num_workers=2):
        whole = timed(lambda: decode_whole(item), 2)
        ours = timed(lambda: decode_cold(item, big, chunks))
        deflate = timed(lambda: odc.stac.load([raw], bands=NAMES, geobox=big, chunks=chunks).compute())
        jp2 = timed(lambda: odc.stac.load([peer], bands=NAMES, geobox=big, chunks=chunks).compute())
    jp2_bits = (
        sum(f.stat().st_size for f in (args.work / "jp2").glob("*.jp2")) * 8 / (2048 * 2048 * len(NAMES))
    )
    result["decode"] = {
        "whole_scene": {"megapixels_per_second": args.size**2 / 1e6 / whole},
        "megapixels_per_second": pixels / ours,
        "deflate_geotiff": {"megapixels_per_second": pixels / deflate, "ratio": deflate / ours},
        "jpeg2000": {
            "megapixels_per_second": pixels / jp2, "ratio": jp2 / ours, "bits_per_pixel": jp2_bits, "psnr": quality,
        },
    }  # fmt: skip
    out = Path(__file__).parent / "results" / "scene.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
