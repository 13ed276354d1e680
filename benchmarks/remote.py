"""What reading over HTTP asks for: latents beside COGs of the same pixels, in the same run, counted by the server.

    python benchmarks/remote.py DATA [--latency 0.03] [--out benchmarks/results/remote.json]

Three real Sentinel-2 dates (4 bands of 915 x 915 pixels) are encoded, and written as COGs (deflate with predictor, blocks of 512
pixels): one file for each band, as archives have them, and one of four bands. The series has 100 dates: the three, served under 100
names. The server waits before each answer. COGs are read by the stock driver of odc-stac with GDAL's settings for the cloud, both with 16
threads for the series. Bytes and requests are exact; seconds are the median of the repeats, the whole of a call, decoding included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers.files import FileServer

from stac_latent import encode, load, search
from stac_latent.cube.grid.boxes import pixel_box
from stac_latent.cube.read.chunk_cache import forget
from stac_latent.cube.read.driver import _open
from stac_latent.cube.ref import LatentRef

BANDS = ("blue", "green", "red", "nir")
DATES = 100
THREADS = 16
REPEATS = 3


def catalogue(shared: Path, work: Path) -> list[pystac.Item]:
    """The three dates, encoded, and their COGs beside the stores."""
    make = Path(__file__).parent.parent / "catalogs" / "real.py"
    subprocess.run([sys.executable, make, shared, work / "raw", "--only", "mapchete"], check=True)  # noqa: S603
    raw = list(search(str(work / "raw" / "mapchete" / "catalog.json")))
    items = encode(raw, "s2-10m-4b", work / "cat")
    for before, item in zip(raw, items, strict=True):
        folder = Path(str(item.get_self_href())).parent
        layers = []
        for band in BANDS:
            with rasterio.open(before.assets[band].get_absolute_href()) as source:
                profile, data = source.profile, source.read()
            layers.append(data)
            write_cog(folder / f"{band}.tif", data, profile)
        write_cog(folder / "bands.tif", np.concatenate(layers), profile)
    return items


def write_cog(path: Path, data: Any, profile: Any) -> None:
    """A COG as archives of Sentinel-2 have them."""
    options = {
        "crs": profile["crs"],
        "transform": profile["transform"],
        "nodata": profile["nodata"],
        "dtype": data.dtype,
    }
    shape = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
    form = {"driver": "COG", "compress": "DEFLATE", "predictor": 2, "blocksize": 512, "interleave": "pixel"}
    with rasterio.open(path, "w", **form, **shape, **options) as file:
        file.write(data)


def dates(items: list[pystac.Item], url: str, count: int, form: str) -> list[pystac.Item]:
    """Items of ``count`` dates at a server; ``form`` is ``latent``, ``band`` (a COG each) or ``bands`` (one COG)."""
    out = []
    for i in range(count):
        base = items[i % len(items)]
        doc = json.loads(Path(str(base.get_self_href())).read_text())
        doc["properties"]["datetime"] = f"{1900 + i}-06-01T10:00:00Z"
        doc["id"] = f"{base.id}-{i}"
        item = pystac.Item.from_dict(doc, href=f"{url}/{base.collection_id}/d{i}/{base.id}.json")
        grid = LatentRef.from_item(item).grid
        proj = {"proj:code": grid.crs, "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}
        if form != "latent":
            names = BANDS if form == "band" else ("bands",)
            item.assets = {}
            for name in names:
                own = [
                    {"name": b, "data_type": "uint16", "nodata": 0}
                    for b in (BANDS if name == "bands" else (name,))
                ]
                href = f"{url}/{base.collection_id}/d{i}/{name}.tif"
                item.add_asset(
                    name,
                    pystac.Asset(
                        href,
                        roles=["data"],
                        media_type=pystac.MediaType.COG,
                        extra_fields=proj | {"bands": own},
                    ),
                )
        out.append(item)
    return out


def stock(items: list[pystac.Item], form: str, box: GeoBox, pool: int | None) -> Any:
    """Pixels of COGs by the stock driver."""
    bands = list(BANDS) if form == "band" else [f"bands.{i}" for i in range(1, 5)]
    return odc.stac.load(items, bands=bands, geobox=box, pool=pool)


def measured(run: Any, root: Path, latency: float, count: int) -> dict[str, Any]:
    """Requests, bytes and seconds of a call, at a server of its own each time."""
    rows = []
    for _ in range(REPEATS):
        with FileServer(root, latency=latency) as server:
            rows.append(run(server))
    last = rows[-1]
    return {
        "requests": last[0], "requests_per_date": last[0] / count, "bytes": last[1],
        "seconds": round(statistics.median(r[2] for r in rows), 3),
    }  # fmt: skip


def timed(server: FileServer, call: Any) -> tuple[int, int, float]:
    """What a call asks a server for, and how long it takes."""
    server.reset()
    begin = time.perf_counter()
    call()
    seconds = time.perf_counter() - begin
    return len(server.requests), server.sent, seconds


def main() -> None:
    """Run all and write the results."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("shared", type=Path)
    options.add_argument("--latency", type=float, default=0.03)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "remote.json")
    given = options.parse_args()
    odc.stac.configure_rio(cloud_defaults=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        items = catalogue(given.shared, work)
        root, home = work / "cat", Path(str(items[0].get_self_href())).parents[1]
        for i in range(DATES):
            (home / f"d{i}").symlink_to(Path(str(items[i % len(items)].get_self_href())).parent)
        whole = pixel_box(LatentRef.from_item(items[0]).grid)
        window = GeoBox((512, 512), whole.affine * Affine.translation(200, 180), whole.crs)
        point = GeoBox((1, 1), whole.affine * Affine.translation(460, 420), whole.crs)
        load(items)  # compiles the loops, opens the codec

        def latents(server: FileServer, count: int, box: GeoBox, *, again: bool) -> tuple[int, int, float]:
            os.environ["STAC_LATENT_CACHE"] = str(work / "cache")
            shutil.rmtree(work / "cache", ignore_errors=True)
            found = dates(items, server.url, count, "latent")
            for turn in range(2 if again else 1):
                _open.cache_clear()
                forget()
                row = timed(server, lambda: load(found, geobox=box))
                last = (turn, row)
            return last[1]

        def cogs(server: FileServer, count: int, box: GeoBox, form: str) -> tuple[int, int, float]:
            found = dates(items, server.url, count, form)
            return timed(server, lambda: stock(found, form, box, THREADS if count > 1 else None).load())

        result: dict[str, Any] = {
            "latency_s": given.latency,
            "dates": DATES,
            "gdal": rasterio.__gdal_version__,
            "cases": {},
        }
        for case, count, box in (("window_512", 1, window), ("point_100_dates", DATES, point)):
            result["cases"][case] = {
                "latent": measured(lambda s, n=count, b=box: latents(s, n, b, again=False), root, given.latency, count),
                "latent_again": measured(lambda s, n=count, b=box: latents(s, n, b, again=True), root, given.latency, count),
                "cog_per_band": measured(lambda s, n=count, b=box: cogs(s, n, b, "band"), root, given.latency, count),
                "cog_of_4_bands": measured(lambda s, n=count, b=box: cogs(s, n, b, "bands"), root, given.latency, count),
            }  # fmt: skip
        exact = {f: stock(dates(items, str(root), 1, f), f, window, None) for f in ("band", "bands")}
        truth = np.stack([exact["band"][b].values for b in BANDS])
        assert (truth == np.stack([exact["bands"][f"bands.{i}"].values for i in range(1, 5)])).all()
        decoded = np.stack([v.values for v in load(items[:1], geobox=window).data_vars.values()])
        error = (decoded.astype(float) - truth)[truth != 0]
        result["psnr_of_the_window"] = round(float(10 * np.log10(1e8 / np.square(error).mean())), 2)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
