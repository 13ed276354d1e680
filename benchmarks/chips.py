"""Chips for machine learning: bytes of each, and the processor time to write and to read all of them, in a store each and in one store.

Real chips: 340 of 64 pixels (EuroSAT, Sentinel-2 L2A, no places given, so that they are laid out in rows), and 12 of 264 pixels (SSL4EO-S12,
four seasons of three places, laid out likewise), twelve bands each. Beside them the same chips as Cloud-Optimized GeoTIFFs (deflate, predictor 2)
and in one Zarr array (zstd, a chunk for each chip, sharded). Run with::

    python benchmarks/chips.py DATA    # writes benchmarks/results/chips.json

A latent at 42 dB is lossy, the others are not; ``zstd`` is the lossless chain of the package.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore, ZipStore

from stac_latent import encode, items_from_files, load, open_codec, search
from stac_latent.system.files import tree_size

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
RESULT = Path(__file__).parent / "results" / "chips.json"


def eurosat(data: Path) -> Sequence[np.ndarray[Any, Any]]:
    """340 chips ``(band, y, x)``."""
    store = ZipStore(data / "sentinel2/eurosat_l2a_chips/eurosat_l2a_340chips.zarr.zip", mode="r")
    return list(np.asarray(zarr.open_group(store, mode="r")["chips"][:]))


def ssl4eo(data: Path) -> Sequence[np.ndarray[Any, Any]]:
    """Twelve chips ``(band, y, x)``, as uint16."""
    out = []
    for path in sorted((data / "sentinel2/ssl4eo_s12_seasons").glob("*.tif")):
        with warnings.catch_warnings(), rasterio.open(path) as file:
            warnings.simplefilter("ignore")
            out.append(file.read().clip(0).astype(np.uint16))
    return out


def write_tiffs(chips: Sequence[np.ndarray[Any, Any]], folder: Path) -> None:
    """Chips as GeoTIFFs with a CRS, each beside the last."""
    folder.mkdir()
    for k, chip in enumerate(chips):
        side = chip.shape[1]
        row, column = divmod(k, 20)
        size = 80 * -(-side // 8 + 1)
        place = from_origin(500_000 + column * size, 5_300_000 - row * size, 10, 10)
        profile = {"count": len(chip), "height": side, "width": chip.shape[2], "dtype": "uint16"}
        path = folder / f"chip{k:04d}.tif"
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32632", transform=place, **profile) as file:
            file.write(chip)
            file.descriptions = BANDS


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time [s], and what came of it."""
    start = time.process_time()
    value = what()
    return time.process_time() - start, value


def latents(raw: Path, work: Path, codec: Any, options: dict[str, Any]) -> dict[str, Any]:
    """One way to store latents of all chips."""
    items = list(search(str(raw / "catalog.json")))
    dest = work / "latents"
    encode(items[0], codec, work / "warm", **options)
    seconds, made = timed(lambda: encode(items, codec, dest, **options))
    load(made[:1]).compute()
    reading, pixels = timed(lambda: [load(item).compute() for item in made])
    payload = sum(
        p.stat().st_size for p in dest.rglob("*") if p.is_file() and {"latent", "c"} <= set(p.parts)
    )
    stores = sum(tree_size(p) for p in dest.rglob("*.zarr"))
    documents = sum(p.stat().st_size for p in dest.rglob("*.json") if p.stem == p.parent.name)
    pictures = sum(p.stat().st_size for p in dest.rglob("*.png"))
    assert len(pixels) == len(items)
    return facts(len(items), dest, seconds, reading, payload, stores - payload, documents, pictures)


def facts(
    count: int,
    folder: Path,
    writing: float,
    reading: float,
    payload: int,
    metadata: int = 0,
    documents: int = 0,
    pictures: int = 0,
) -> dict[str, Any]:
    """Bytes of a chip, and processor time of all of them."""
    out = {"payload": payload, "metadata": metadata, "items": documents, "thumbnails": pictures}
    return {
        **{name: round(size / count) for name, size in out.items()},
        "files": sum(p.is_file() for p in folder.rglob("*")),
        "write_s": round(writing, 2),
        "read_s": round(reading, 2),
    }


def cogs(tiffs: Path, work: Path) -> dict[str, Any]:
    """A Cloud-Optimized GeoTIFF for each chip."""
    folder = work / "cogs"
    folder.mkdir()
    files = sorted(tiffs.glob("*.tif"))
    options = {"driver": "COG", "compress": "DEFLATE", "predictor": "YES"}
    writing, _ = timed(lambda: [copy_raster(f, folder / f.name, **options) for f in files])
    reading, _ = timed(lambda: [_read(folder / f.name) for f in files])
    return facts(len(files), folder, writing, reading, tree_size(folder))


def _read(path: Path) -> Any:
    with rasterio.open(path) as file:
        return file.read()


def one_zarr(chips: Sequence[np.ndarray[Any, Any]], work: Path) -> dict[str, Any]:
    """One array of all chips."""
    values, folder = np.stack(chips), work / "one.zarr"
    made = zarr.create_array(
        LocalStore(folder), shape=values.shape, dtype="uint16", chunks=(1, *values.shape[1:]), shards=values.shape,
        compressors=[ZstdCodec(level=9)],
    )  # fmt: skip

    def write() -> None:
        made[:] = values

    writing, _ = timed(write)
    opened = zarr.open_array(LocalStore(folder, read_only=True), mode="r")
    reading, _ = timed(lambda: [opened[i] for i in range(len(values))])
    metadata = (folder / "zarr.json").stat().st_size
    return facts(len(chips), folder, writing, reading, tree_size(folder) - metadata, metadata)


def table(raw: Path, dest: Path) -> int:
    """Bytes of the Items of a packed catalogue as one stac-geoparquet file."""
    from stac_latent.catalog import to_geoparquet

    to_geoparquet(search(str(raw / "catalog.json")), dest)
    return dest.stat().st_size


def measure(chips: Sequence[np.ndarray[Any, Any]], work: Path) -> dict[str, Any]:
    """All ways to store some chips."""
    write_tiffs(chips, work / "tiffs")
    items_from_files(
        [str(work / "tiffs")], str(work / "raw"), bands=list(BANDS), datetime="2020-06-01", scale=1e-4
    )
    lossy, exact = open_codec("s2-l2a-12b"), open_codec("zstd", bands=list(BANDS))
    out: dict[str, Any] = {"chips": len(chips), "shape": list(chips[0].shape)}
    for name, codec, options in (
        ("latents of 42 dB, a store each", lossy, {"psnr": 42.0, "guard": "off"}),
        ("latents of 42 dB, one store", lossy, {"psnr": 42.0, "guard": "off", "pack": 1000}),
        ("lossless (zstd), a store each", exact, {}),
        ("lossless (zstd), one store", exact, {"pack": 1000}),
    ):
        place = work / name.replace(" ", "-")
        place.mkdir()
        out[name] = latents(work / "raw", place, codec, options)
        if "pack" in options:
            out[name]["items_as_table"] = round(
                table(place / "latents", place / "items.parquet") / len(chips)
            )
    out["Cloud-Optimized GeoTIFFs"] = cogs(work / "tiffs", work)
    out["one Zarr array"] = one_zarr(chips, work)
    return out


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.machine()}
    for name, chips in (("eurosat", eurosat(given.data)), ("ssl4eo", ssl4eo(given.data))):
        with tempfile.TemporaryDirectory() as work:
            found[name] = measure(chips, Path(work))
        print(name, json.dumps(found[name], indent=1), flush=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
