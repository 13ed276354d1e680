"""Readers of Sentinel-2 tiles on native grids in the benchmark data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stac_latent.bench.coder import Array
from stac_latent.bench.data.base import Dataset, Tile, cuts, read
from stac_latent.bench.data.sentinel import dark, reflectance

__all__ = ["s2_20m", "s2_native"]

_GROUPS = (("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12"), ("B01", "B09"))
_GSD = (10, 20, 60)
_DSEN2 = ("im10", "im20", "im60")


def s2_native(data: Path) -> Dataset:
    """Bands of 10, 20 and 60 m, each on its own grid, never resampled."""
    groups = tuple(
        tuple(reflectance(n, gsd) for n in names) for names, gsd in zip(_GROUPS, _GSD, strict=True)
    )
    return Dataset(
        "s2-native", "Sentinel-2, 12 bands on native grids of 10, 20 and 60 m", groups, tuple(_native(data))
    )


def _native(data: Path) -> Iterator[Tile]:
    for path in sorted((data / "sentinel2" / "dsen2_multires").glob("*.mat")):
        whole = [dark(read(f"HDF5:{path}://{name}")) for name in _DSEN2]
        for i in range(2):
            for j in range(2):
                parts = (_quarter(x, i, j) for x in whole)
                yield Tile(f"dsen2_{i}{j}", "33UUB", tuple(parts))
    for folder in sorted((data / "sentinel2" / "bigearthnet_tiny").glob("*")):
        name = folder.name
        parts = (np.concatenate([dark(read(folder / f"{name}_{b}.tif")) for b in names]) for names in _GROUPS)
        yield Tile(f"bigearthnet_{name}", name, tuple(parts))


def _quarter(x: Array, i: int, j: int) -> Array:
    h, w = (n // 2 for n in x.shape[1:])
    return np.ascontiguousarray(x[:, i * h : (i + 1) * h, j * w : (j + 1) * w])


def s2_20m(data: Path) -> Dataset:
    """The six 20 m bands on their native grid (a desert scene at 200 m, reduced without interpolation between bands)."""
    return Dataset(
        "s2-20m", "Sentinel-2, the 20 m bands on their grid", (tuple(reflectance(n, 20) for n in _GROUPS[1]),),
        tuple(_twenty(data)),
    )  # fmt: skip


def _twenty(data: Path) -> Iterator[Tile]:
    folder = data / "sentinel2" / "S2A_29RKH_20200219_0_L2A_COG"
    if folder.is_dir():
        scene = np.concatenate([read(folder / f"{b}.tif").astype(np.uint16) for b in _GROUPS[1]])
        yield from (Tile(f"29RKH{name}", "29RKH", (cut,)) for name, cut in cuts(scene))
    for path in sorted((data / "sentinel2" / "worldcereal_minicubes").glob("*/S2_L2A_20m_*.nc")):
        site = path.parent.name
        dates = np.stack([read(f"netcdf:{path}:{b}") for b in _GROUPS[1]], axis=1)
        whole = [i for i, x in enumerate(dates) if (x > 0).all()]
        for i in whole[:: max(1, len(whole) // 8)]:
            yield Tile(f"worldcereal_{site}_{i}", site, (dates[i].astype(np.uint16),))
