"""In-distribution tiles of Sentinel-2 for guards: chips of places that neither a fit nor a benchmark uses.

EuroSAT chips (64 pixels, places not stated: each counts as one), forest sites of two years (up to 256 pixels), and, for the first
half, the sites that the bundles are fitted on. Places go to one half or the other by the hash of their name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from zarr.storage import ZipStore

from stac_latent.bench.data.base import read
from stac_latent.bench.data.open import open_dataset
from stac_latent.bench.data.sentinel import dark
from stac_latent.quality.ood_calibration import Layers

SITES = ("0080717", "0173706")
CELL, MOSAIC = 8, 16
ABOUT = (
    "Sentinel-2 L2A at 10 m: EuroSAT chips and forest sites of two years, places halved by hash, and the fitting sites; none of "
    "them is raced on"
)


def sentinel2(data: Path, bands: Sequence[int]) -> tuple[list[Layers], list[Layers]]:
    """Both halves, of some of the twelve bands."""
    halves: tuple[list[Layers], list[Layers]] = ([], [])
    for place, field in [*_chips(data), *_forests(data)]:
        h, w = (n // CELL * CELL for n in field.shape[1:])
        cut = np.ascontiguousarray(field[list(bands), :h, :w])
        halves[int(hashlib.sha256(place.encode()).hexdigest(), 16) % 2].append([(cut, None)])
    own = [t.fields[0][list(bands)] for t in open_dataset(data, "s2").tiles if t.place in SITES]
    halves[0].extend([(field, None)] for field in own)
    return halves


def _chips(data: Path) -> list[tuple[str, np.ndarray]]:
    """EuroSAT chips but for those of the benchmark's mosaics."""
    with ZipStore(
        data / "sentinel2" / "eurosat_l2a_chips" / "eurosat_l2a_340chips.zarr.zip", mode="r"
    ) as store:
        node = zarr.open(store, mode="r")
        array = node if isinstance(node, zarr.Array) else next(a for _, a in node.arrays())
        chips = np.asarray(array[:])
    raced = {k * (len(chips) // 3) + i for k in range(3) for i in range(MOSAIC)}
    return [(f"c{i}", dark(chip)) for i, chip in enumerate(chips) if i not in raced]


def _forests(data: Path) -> list[tuple[str, np.ndarray]]:
    """Forest sites but for those of the benchmark, which takes every tenth of the second year."""
    folder = data / "sentinel2" / "barkbeetle"
    site = lambda path: path.stem.split("_")[2]  # noqa: E731 - reads as a name
    raced = {site(p) for p in sorted((folder / "2020").glob("*.tif"))[::10]}
    paths = [p for year in ("2019", "2020") for p in sorted((folder / year).glob("*.tif"))]
    return [(site(p), read(p, 256).astype(np.uint16)) for p in paths if site(p) not in raced]
