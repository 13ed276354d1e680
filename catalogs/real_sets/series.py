"""Time series of single places: what codecs that look back at earlier dates are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from real_sets.authoring import (
    COPERNICUS,
    L2A,
    REFLECTANCE,
    Raster,
    read,
    s2_bands,
    write_catalog,
    write_item,
)
from real_sets.minicubes import cubes

CLOUDS = (3, 8, 9, 10)
"""Cloud shadow, medium and high cloud probability, cirrus."""
TENS, TWENTIES = ["B02", "B03", "B04", "B08"], ["B05", "B06", "B07", "B8A", "B11", "B12"]


def boadella(data: Path, root: Path) -> Path | None:
    """Twelve dates of a reservoir, clouds and all."""
    docs = []
    for path in sorted((data / "sentinel2" / "boadella_timeseries").glob("*.tif")):
        values, transform, _ = read(path)
        note = (
            "Surface reflectance (L2A) on a geographic grid of about 10 m, all bands resampled to it; some dates are cloudy. "
            f"The time of day is nominal. {COPERNICUS}"
        )
        about = {"constellation": "sentinel-2", "gsd": 10, "description": note, "license": "other"}
        raster = Raster(values, transform, s2_bands(L2A), REFLECTANCE, ("data", "reflectance"))
        when = f"{path.stem.rpartition('_')[2]}T10:50:00Z"
        docs.append(
            write_item(root, "boadella", path.stem.lower(), "EPSG:4326", when, {"s2l2a": raster}, about)
        )
    return write_catalog(root, "Sentinel-2 L2A, Boadella reservoir, twelve dates", docs) if docs else None


def worldcereal(data: Path, root: Path) -> Path | None:
    """Sentinel-2 (20 m and, at one site, 10 m; scene classes) and Sentinel-1 of two fields, every acquisition of 16 months."""
    docs = [*_optical(data / "sentinel2" / "worldcereal_minicubes", root), *_radar(data / "sentinel1" / "worldcereal_minicubes", root)]  # fmt: skip
    sites = {doc["collection"]: doc["collection"].rpartition("-")[2] for doc in docs}
    titles = {
        c: f"{'Sentinel-2 L2A' if '-s2-' in c else 'Sentinel-1 GRD'}, minicube {s}" for c, s in sites.items()
    }
    return write_catalog(root, "WorldCereal minicubes", docs, titles) if docs else None


def _optical(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    fields = {**REFLECTANCE, "nodata": 0}
    roles = ("data", "reflectance")
    finer = {cube.site: cube for cube in cubes(source, "S2_L2A_10m")}  # not every site has one
    for coarse in cubes(source, "S2_L2A_20m"):
        twenties, classes = coarse.stack(TWENTIES), coarse.stack(["SCL"]).astype(np.uint8)
        fine = finer.get(coarse.site)
        if fine is not None and fine.times != coarse.times:
            raise ValueError(f"{fine.path.name} and {coarse.path.name} have different dates")
        tens = None if fine is None else fine.stack(TENS)
        for i, when in enumerate(coarse.times):
            rasters = {}
            if fine is not None and tens is not None:
                rasters["s2-10m"] = Raster(
                    tens[i], fine.transform, s2_bands(TENS), {**fields, "gsd": 10}, roles
                )
            rasters["s2-20m"] = Raster(
                twenties[i], coarse.transform, s2_bands(TWENTIES), {**fields, "gsd": 20}, roles
            )
            rasters["scl"] = Raster(classes[i], coarse.transform, [{"name": "SCL"}], {"nodata": 0, "gsd": 20})
            cloud = 100 * float(np.isin(classes[i], CLOUDS).mean())
            note = f"Surface reflectance (L2A), native grids, 640 m. Cloud cover is counted in SCL, shadows with it. {COPERNICUS}"
            about = {"constellation": "sentinel-2", "gsd": 20 if fine is None else 10, "eo:cloud_cover": round(cloud, 2), "description": note, "license": "other"}  # fmt: skip
            collection = f"worldcereal-s2-{coarse.site}"
            yield write_item(root, collection, f"s2-{coarse.site}-{i:03d}", coarse.crs, when, rasters, about)


def _radar(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for cube in cubes(source, "S1_GRD"):
        # int32 in 1e-4 dB, 0 where there is none.
        stored = cube.stack(["VV", "VH"])
        values = np.where(stored == 0, np.nan, stored * 1e-4).astype(np.float32)
        for i, when in enumerate(cube.times):
            fields = {"unit": "dB", "nodata": "nan", "gsd": 20}
            raster = Raster(values[i], cube.transform, [{"name": "VV"}, {"name": "VH"}], fields)
            note = (
                f"GRD backscatter in dB at 20 m, distributed so as integers of 1e-4 dB; 640 m. {COPERNICUS}"
            )
            about = {"constellation": "sentinel-1", "gsd": 20, "description": note, "license": "other"}
            collection = f"worldcereal-s1-{cube.site}"
            yield write_item(
                root, collection, f"s1-{cube.site}-{i:03d}", cube.crs, when, {"s1": raster}, about
            )
