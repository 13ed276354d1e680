"""Random access: time to read one window of pixels from a Zarr store that the package wrote."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.bench.coder import Array
from stac_latent.bench.loads.files import raster_item
from stac_latent.codec.codec import Codec
from stac_latent.window import Window

__all__ = ["run_windows"]


def run_windows(
    field: Array, codec: Codec, *, step: float | None = None, size: int = 512, count: int = 9
) -> dict[str, Any]:
    """Write a field as an Item, encode it, and read windows of it.

    Parameters
    ----------
    field
        ``(band, y, x)`` in the stored unit.
    codec
        A codec of its bands.
    step
        Quantiser step [stored unit], for codecs that take one.
    size
        Pixels of a side of a window.
    count
        Windows at random places, most of them across the borders of chunks.

    Returns
    -------
    dict
        Medians [ms] and extremes of ``cold`` (nothing open: metadata, codec and window), ``opened`` (the store is open, the window is
        not decoded), ``aligned`` (the same for windows that begin where chunks do) and ``warm`` (decoded before); bits per pixel and
        band of the store.
    """
    from stac_latent.catalog.encode.encode import encode
    from stac_latent.cube.read.chunk_cache import forget
    from stac_latent.cube.read.reader import LatentReader

    rng = np.random.default_rng(0)
    high = [max(1, n - size) for n in field.shape[1:]]
    places = [(int(rng.integers(high[0])), int(rng.integers(high[1]))) for _ in range(count)]
    times: dict[str, list[float]] = {"cold": [], "opened": [], "aligned": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        raw = raster_item(field, codec.bands, Path(folder), "GTiff", {"tiled": True, "compress": "deflate"})
        (item,) = encode(raw, codec, Path(folder) / "latents", step=step)
        opened = LatentReader.open(item)
        opened.read_field(_window((0, 0), 64, field))
        (rows, _), (columns, _) = opened.chunk_pixels()
        for y, x in places:
            window = _window((y, x), size, field)
            forget()
            times["cold"].append(_seconds(lambda w=window: LatentReader.open(item).read_field(w)))
            forget()
            times["opened"].append(_seconds(lambda w=window: opened.read_field(w)))
            times["warm"].append(_seconds(lambda w=window: opened.read_field(w)))
            forget()
            corner = _window((y // rows * rows, x // columns * columns), size, field)
            times["aligned"].append(_seconds(lambda w=corner: opened.read_field(w)))
        rate = item.properties.get("latent:bits_per_pixel")
        psnr = item.properties.get("latent:psnr")
    out = {k: {"median_ms": 1e3 * float(np.median(v)), "max_ms": 1e3 * max(v)} for k, v in times.items()}
    return {"pixels": size, "windows": count, "bits_per_pixel": rate, "psnr": psnr, **out}


def _window(corner: tuple[int, int], size: int, field: Array) -> Window:
    return Window.of((lo, min(lo + size, n)) for lo, n in zip(corner, field.shape[1:], strict=True))


def _seconds(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
