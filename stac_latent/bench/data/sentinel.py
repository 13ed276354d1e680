"""Readers of the Sentinel-2 tiles in the benchmark data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from stac_latent.bench.coder import Array
from stac_latent.bench.data.base import Dataset, Tile, read
from stac_latent.spec import Band

__all__ = ["READERS", "dark", "reflectance"]

_NAMES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_COMMON = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B8A": "nir08", "B09": "nir09",
           "B11": "swir16", "B12": "swir22"}  # fmt: skip
_L1C_WITHOUT_B10 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]


def reflectance(name: str, gsd: float = 10) -> Band:
    """Band of stored reflectance."""
    return Band(name, "uint16", nodata=0, scale=1e-4, gsd=gsd, common_name=_COMMON.get(name))


def dark(x: Array) -> Array:
    """Reflectance as uint16; zeros and negatives of a file without nodata are dark pixels, not gaps."""
    return np.maximum(x, 1).astype(np.uint16)


def _s2_tiles(data: Path) -> Iterator[Tile]:
    s2 = data / "sentinel2"
    for path in sorted((s2 / "ssl4eo_s12_seasons").glob("*.tif")):
        yield Tile(path.stem, path.stem.split("_")[2], (dark(read(path, 256)),))
    for path in sorted((s2 / "boadella_timeseries").glob("*.tif")):
        yield Tile(path.stem, "boadella", (dark(read(path, 256)),))
    for path in sorted((s2 / "terramind_colocated" / "S2L2A").glob("*.tif")):
        yield Tile(f"terramind_{path.stem}", path.stem, (dark(read(path)),))
    for path in sorted((s2 / "rastereasy").glob("sentinel.tif")):
        yield Tile("rastereasy", "rastereasy", (dark(read(path, 256)),))
    for path in sorted((s2 / "sen12mscr" / "s2").glob("*.tif")):
        place = path.stem.rpartition("_")[0]
        yield Tile(path.stem, place, (dark(read(path, 256, _L1C_WITHOUT_B10)),))
    for path in sorted((s2 / "barkbeetle" / "2020").glob("*.tif"))[::10]:
        yield Tile(f"barkbeetle_{path.stem}", path.stem.split("_")[2], (read(path, 256).astype(np.uint16),))
    chips = s2 / "eurosat_l2a_chips" / "eurosat_l2a_340chips.zarr.zip"
    if chips.exists():
        yield from _eurosat(chips)


def _eurosat(path: Path, mosaics: int = 3) -> Iterator[Tile]:
    """Chips of 64 pixels side by side, 4 x 4 in a tile; their places are not known."""
    import zarr
    from zarr.storage import ZipStore

    with ZipStore(path, mode="r") as store:
        node = zarr.open(store, mode="r")
        array = node if isinstance(node, zarr.Array) else next(a for _, a in node.arrays())
        for k in range(mosaics):
            first = k * (array.shape[0] // mosaics)
            chips = np.asarray(array[first : first + 16])
            tile = chips.reshape(4, 4, 12, 64, 64).transpose(2, 0, 3, 1, 4).reshape(12, 256, 256)
            yield Tile(f"eurosat_mosaic_{k}", "eurosat", (dark(tile),))


def s2(data: Path) -> Dataset:
    """Twelve bands on one 10 m grid (20 and 60 m bands interpolated by the data sets' makers)."""
    return Dataset(
        "s2",
        "Sentinel-2, 12 bands on one 10 m grid",
        (tuple(reflectance(n) for n in _NAMES),),
        tuple(_s2_tiles(data)),
        ("0080717", "0173706"),
    )


READERS: dict[str, Callable[[Path], Dataset]] = {"s2": s2}
