"""What is loaded, and what it costs in seconds of a processor; each function runs in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import rasterio
from odc.geo.geobox import GeoBox

from stac_latent.bench.coder import Array, Context
from stac_latent.bench.loads.files import Format, raster_item, scene_box
from stac_latent.bench.own_codecs import Chain
from stac_latent.spec import Band

__all__ = ["DATES", "TASKS", "Stored", "Task", "cpu_encode", "cpu_limit", "cpu_load", "cpu_write"]

DATES = 100
_RUNS, _ENOUGH = 5, 4.0
"""Runs, of which the fastest counts; none begins after so many seconds."""
_COMMON = (("red",), ("nir", "nir08", "rededge"))


@dataclass(frozen=True)
class Task:
    """One thing to load.

    Parameters
    ----------
    name, title
        Short name, and what tables say.
    bands
        How many of the scene's; None: all.
    window
        Pixels of a side; None: the whole.
    coarser
        How many times coarser than the scene's grid.
    dates
        Items along time.
    """

    name: str
    title: str
    bands: int | None = None
    window: int | None = None
    coarser: int = 1
    dates: int = 1

    def names(self, bands: Sequence[Band]) -> list[str]:
        """Bands to load: red and near infrared first, where the scene has them."""
        known = {b.common_name: b.name for b in reversed(bands)}
        order = [known[next(c for c in some if c in known)] for some in _COMMON if set(some) & set(known)]
        order += [b.name for b in bands]
        return list(dict.fromkeys(order))[: self.bands or len(order)]

    def box(self, shape: Sequence[int]) -> GeoBox:
        """Grid to load on; windows begin where no block of any format does."""
        whole = scene_box(shape)
        if self.window is not None:
            size = min(self.window, *shape[-2:])
            y, x = (min(n - size, n // 3 + 37) for n in shape[-2:])
            return whole[y : y + size, x : x + size]
        return whole.zoom_out(self.coarser) if self.coarser > 1 else whole


TASKS = (
    Task("whole", "whole scene, all bands"),
    Task("window", "512 x 512 pixels off the blocks, all bands", window=512),
    Task("one", "whole scene, one band", bands=1),
    Task("two", "whole scene, two bands", bands=2),
    Task("eighth", "an eighth of the resolution, all bands", coarser=8),
    Task("series", f"one pixel through {DATES} dates, all bands", window=1, dates=DATES),
    Task("series-two", f"one pixel through {DATES} dates, two bands", bands=2, window=1, dates=DATES),
)


@dataclass(frozen=True)
class Stored:
    """A scene in one format.

    Parameters
    ----------
    name
        Shown in tables.
    ours
        Whether it is latents, which ``stac_latent.load`` reads; ``odc.stac.load`` reads the others.
    items
        Documents of the dates, that of the scene itself first.
    shape, bands
        Of the scene.
    """

    name: str
    ours: bool
    items: tuple[Path, ...]
    shape: tuple[int, ...]
    bands: tuple[Band, ...]
    about: dict[str, Any] = field(default_factory=dict)


def cpu_load(stored: Stored, task: Task) -> dict[str, Any]:
    """Seconds of a load: of the first in this process, and of each after it; bytes that were read from files.

    Chunks that were decoded are forgotten before each; files come from the system's memory.
    """
    items = [pystac.Item.from_file(str(p)) for p in stored.items[: task.dates]]
    names, box = task.names(stored.bands), task.box(stored.shape)
    how = "average" if task.coarser > 1 else "nearest"
    if stored.ours:
        from stac_latent.cube.read.chunk_cache import forget
        from stac_latent.cube.read.load import load

        def run() -> Any:
            forget()
            return load(items, names, geobox=box, resampling=how)
    else:

        def run() -> Any:
            return odc.stac.load(items, names, geobox=box, resampling=how)

    first, _ = spent(run)
    before = _read_bytes()
    seconds, cube = spent(run)
    after = _read_bytes()
    if any(cube[n].shape != (task.dates, *box.shape) for n in names):
        raise ValueError(f"{stored.name}: {task.title} gave {dict(cube.sizes)}")
    return {
        "first_cpu_s": first,
        **_summary([seconds, *repeated(run)]),
        "bytes_read": None if before is None or after is None else after - before,
        "bytes_given": sum(cube[n].nbytes for n in names),
    }


def cpu_limit(stored: Stored, task: Task, size: int, read: int | None) -> dict[str, Any]:
    """Seconds to read so many bytes from the format's files, and to copy so many of pixels: what no decoder can beat."""
    items = [pystac.Item.from_file(str(p)) for p in stored.items[: task.dates]]
    source = np.ones(max(1, size), np.uint8)
    target = np.zeros_like(source)
    files = [_files(i) for i in items]

    def run() -> None:
        for paths in files:
            _read(paths, (read or 0) // len(files))
        np.copyto(target, source)

    run()
    return _summary(repeated(run))


def cpu_encode(raw: Path, name: str, context: Context, psnr: float, dest: Path) -> dict[str, Any]:
    """Seconds of ``encode`` of an Item's rasters towards a PSNR, and the new Item's address."""
    from stac_latent.catalog.encode.encode import encode

    item, codec = pystac.Item.from_file(str(raw)), Chain(name, context).codec

    def run() -> Any:
        return encode(item, codec, dest, psnr=psnr, overwrite=True)

    first, made = spent(run)
    found = made[0]
    return {
        "first_cpu_s": first,
        **_summary(repeated(run)),
        "item": found.get_self_href(),
        "psnr": found.properties.get("latent:psnr"),
        "bits_per_pixel": found.properties.get("latent:bits_per_pixel"),
    }


def cpu_write(raw: Path, bands: Sequence[Band], form: Format, value: float, dest: Path) -> dict[str, Any]:
    """Seconds to read an Item's rasters and to write them in a format."""
    item = pystac.Item.from_file(str(raw))

    def run() -> Any:
        return raster_item(pixels_of(item, bands), bands, dest, form.driver, form.at(value))

    first, _ = spent(run)
    return {"first_cpu_s": first, **_summary(repeated(run)), "item": str(dest / "item.json")}


def pixels_of(item: pystac.Item, bands: Sequence[Band]) -> Array:
    """Pixels ``(band, y, x)`` of an Item with one raster for each band."""
    out = []
    for band in bands:
        with rasterio.open(item.assets[band.name].href) as src:
            out.append(src.read(1))
    return np.stack(out)


def spent(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processors, of this process with its threads and of those that it started, and the result."""
    before = _cpu()
    result = run()
    return _cpu() - before, result


def repeated(run: Callable[[], Any]) -> list[float]:
    """Seconds of several runs."""
    out: list[float] = []
    begin = time.perf_counter()
    while len(out) < _RUNS and (not out or time.perf_counter() - begin < _ENOUGH):
        out.append(spent(run)[0])
    return out


def _summary(seconds: Sequence[float]) -> dict[str, Any]:
    return {"cpu_s": min(seconds), "runs": list(seconds)}


def _cpu() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _read_bytes() -> int | None:
    """Bytes that this process has read from files by now; None where the system does not say."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return None
    return int(counters.read_text(encoding="ascii").split("rchar: ")[1].split()[0])


def _files(item: pystac.Item) -> list[Path]:
    """Files of an Item's assets, the largest first."""
    places = [Path(a.get_absolute_href() or a.href) for a in item.assets.values()]
    found = [q for p in places for q in (p.rglob("*") if p.is_dir() else [p]) if q.is_file()]
    return sorted(found, key=lambda p: -p.stat().st_size)


def _read(paths: Sequence[Path], size: int) -> None:
    """Read so many bytes from the first files."""
    for path in paths:
        if size <= 0:
            return
        with path.open("rb", buffering=0) as file:
            size -= len(file.read(size))
