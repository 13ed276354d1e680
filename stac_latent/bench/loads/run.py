"""Times of loads: a scene as latents beside the same scene in every format that GDAL offers, and beside what no decoder can beat."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pystac
from rasterio.errors import RasterioError

from stac_latent.aliases import Progress
from stac_latent.bench.byte_budget import load_budget
from stac_latent.bench.coder import Array
from stac_latent.bench.data.base import Dataset, Tile
from stac_latent.bench.isolation import apart
from stac_latent.bench.loads.files import COG, FORMATS, Format, raster_item, series
from stac_latent.bench.loads.tasks import (
    TASKS,
    Stored,
    Task,
    cpu_encode,
    cpu_limit,
    cpu_load,
    cpu_write,
    pixels_of,
)
from stac_latent.bench.race import Row, contexts_of, distortion
from stac_latent.errors import CatalogError, StacLatentError

__all__ = ["OURS", "compared", "run_load"]

R = TypeVar("R")
OURS = "latents"
_HALVINGS = 7
ENCODE = "encode"


@dataclass
class _Scene:
    """The scene that is raced on: on disk as rasters without loss, and what is found meanwhile."""

    dataset: Dataset
    tile: Tile
    raw: Path
    work: Path
    rows: list[Row]
    skipped: dict[str, str]
    apart: Callable[..., Any]

    @property
    def bands(self) -> Any:
        return self.dataset.groups[0]

    def psnr(self, decoded: Array) -> float:
        """PSNR [dB] of decoded pixels of the scene, or of its first rows and columns."""
        inside = self.tile.fields[0][:, : decoded.shape[1], : decoded.shape[2]]
        found = distortion(self.dataset, Tile("scene", "several", (inside,)), [decoded])["psnr"]
        return math.inf if found is None else float(found)


def run_load(
    dataset: Dataset,
    tile: Tile,
    codec: str,
    *,
    psnr: float = 42.0,
    formats: Sequence[Format] = FORMATS,
    tasks: Sequence[Task] = TASKS,
    isolated: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure loads and writes of a scene in seconds of one processor.

    Each load runs in a process of its own, several times; the fastest counts. Formats with loss are written at the setting whose PSNR on
    a quarter of the scene is nearest to that of the latents.

    Parameters
    ----------
    dataset, tile
        Bands of one grid, and the scene.
    codec
        Name or bundle folder.
    psnr
        Quality [dB] of the latents.
    formats
        Peers.
    tasks
        What is loaded.
    isolated
        Measure each in a process of its own, with one thread; otherwise what one imported the next does not pay.
    progress
        Called with a label, steps done, steps in all.

    Returns
    -------
    dict
        ``rows``: for each task and format ``cpu_s`` (the fastest of ``runs``), ``first_cpu_s`` (the first in a new process: libraries
        are imported, compiled loops are loaded), ``bytes_read`` and ``bytes_given``; ``formats``: bytes and PSNR; ``budget``: where the time of our
        whole scene goes; ``table`` (see :func:`compared`); ``skipped``.

    Raises
    ------
    CatalogError
        If the bands have several grids.
    """
    if len(dataset.groups) != 1:
        raise CatalogError(
            f"'bench load' takes data sets of one grid; the bands of {dataset.name!r} have {len(dataset.groups)}: choose another with --dataset"
        )
    report = progress or (lambda *_: None)
    total = (len(formats) + 1) * (len(tasks) + 1)
    with tempfile.TemporaryDirectory(prefix="stac-latent-bench-") as folder:
        work = Path(folder)
        raster_item(tile.fields[0], dataset.groups[0], work / "raw", COG.driver, COG.options)
        scene = _Scene(
            replace(dataset, tiles=()),
            tile,
            work / "raw" / "item.json",
            work,
            [],
            {},
            apart if isolated else _here,
        )
        stored: list[Stored] = []
        steps: list[Callable[[], Stored | None]] = [
            lambda: _ours(scene, codec, psnr, max(t.dates for t in tasks))
        ]
        steps += [lambda form=form: _peer(scene, form, stored, tasks) for form in formats]  # type: ignore[misc]
        for step in steps:
            report("load", len(scene.rows), total)
            found = step()
            if found is None:
                continue
            stored.append(found)
            for task in tasks:
                report("load", len(scene.rows), total)
                scene.rows.append(
                    {"task": task.name, "format": found.name, **scene.apart(cpu_load, found, task)}
                )
        first = stored[0]
        for task in tasks:
            mine = next(r for r in scene.rows if (r["task"], r["format"]) == (task.name, OURS))
            limit = scene.apart(cpu_limit, first, task, mine["bytes_given"], mine["bytes_read"])
            scene.rows.append({"task": task.name, "format": "limit", **limit})
        budget = scene.apart(load_budget, first.items[0])
        about = {s.name: s.about for s in stored}
    report("load", total, total)
    titles = {t.name: t.title for t in tasks} | {ENCODE: "encode, or write, the whole scene"}
    return {
        "scene": {
            "title": f"{dataset.title}, {tile.fields[0].shape[1]} x {tile.fields[0].shape[2]} pixels",
            "pixels": tile.pixels,
            "samples": tile.samples,
        },
        "psnr": psnr,
        "codec": codec,
        "processors": os.cpu_count(),
        "formats": about,
        "budget": budget,
        "table": compared(scene.rows, titles),
        "rows": scene.rows,
        "skipped": scene.skipped,
    }


def compared(rows: Sequence[Row], titles: dict[str, str]) -> list[dict[str, Any]]:
    """Ours, the best peer and the limit of each task.

    Parameters
    ----------
    rows
        With ``task``, ``format`` and ``cpu_s``.
    titles
        What to call each task.

    Returns
    -------
    list of dict
        ``task``, ``title``, ``ours``, ``peer`` (its name), ``best``, ``limit`` in seconds; ``ratio`` of ours to the best peer, below one
        where ours is faster, and ``limit_ratio`` to the limit; None where there is nothing to compare with.
    """
    out = []
    for task in dict.fromkeys(r["task"] for r in rows):
        seconds = {r["format"]: r["cpu_s"] for r in rows if r["task"] == task}
        ours, limit = seconds.pop(OURS), seconds.pop("limit", None)
        peer = min(seconds, key=lambda n: seconds[n]) if seconds else None
        best = None if peer is None else seconds[peer]
        out.append(
            {"task": task, "title": titles[task], "ours": ours, "peer": peer, "best": best, "limit": limit,
             "ratio": ours / best if best else None, "limit_ratio": ours / limit if limit else None}
        )  # fmt: skip
    return out


def _ours(scene: _Scene, codec: str, psnr: float, dates: int) -> Stored:
    """The scene as latents."""
    from stac_latent.cube.read.reader import LatentReader

    (context,) = contexts_of(scene.dataset, (), [scene.tile], threads=1)
    row = scene.apart(cpu_encode, scene.raw, codec, context, psnr, scene.work / OURS)
    scene.rows.append({"task": ENCODE, "format": OURS, **row})
    item = pystac.Item.from_file(row["item"])
    reached = scene.psnr(LatentReader.open(item).read_field())
    about = {"bytes": _size(Path(row["item"]).parent), "psnr": reached}
    return _dated(scene, OURS, item, dates, about)


def _peer(scene: _Scene, form: Format, stored: Sequence[Stored], tasks: Sequence[Task]) -> Stored | None:
    """The scene in a peer's format; None where it cannot be written, with the reason among those that are skipped."""
    try:
        value = _setting(scene, form, stored[0].about["psnr"]) if form.setting else 0.0
        dest = scene.work / form.name.replace(" ", "-")
        row = scene.apart(cpu_write, scene.raw, scene.bands, form, value, dest)
    except (RasterioError, StacLatentError, ValueError) as exc:
        scene.skipped[form.name] = f"{type(exc).__name__}: {exc}"
        return None
    scene.rows.append({"task": ENCODE, "format": form.name, **row})
    item = pystac.Item.from_file(row["item"])
    about: dict[str, Any] = {"bytes": _size(dest), "psnr": scene.psnr(pixels_of(item, scene.bands))}
    if form.setting:
        about["setting"] = {form.setting: value}
    return _dated(scene, form.name, item, max(t.dates for t in tasks), about)


def _setting(scene: _Scene, form: Format, psnr: float) -> float:
    """Setting whose PSNR on a quarter of the scene is nearest to one, bisected on a logarithmic scale."""
    field = scene.tile.fields[0]
    part = np.ascontiguousarray(field[:, : -(-field.shape[1] // 2), : -(-field.shape[2] // 2)])
    known: dict[float, float] = {}
    coarse, fine = form.ends
    for _ in range(_HALVINGS):
        middle = math.sqrt(coarse * fine)
        with tempfile.TemporaryDirectory(dir=scene.work) as folder:
            item = raster_item(part, scene.bands, Path(folder), form.driver, form.at(middle))
            known[middle] = scene.psnr(pixels_of(item, scene.bands))
        coarse, fine = (middle, fine) if known[middle] < psnr else (coarse, middle)
    return min(known, key=lambda v: abs(known[v] - psnr))


def _dated(scene: _Scene, name: str, item: pystac.Item, dates: int, about: dict[str, Any]) -> Stored:
    """What is loaded: the scene under so many dates."""
    items = series(item, scene.work / "series" / name.replace(" ", "-"), dates)
    return Stored(name, name == OURS, tuple(items), scene.tile.fields[0].shape, tuple(scene.bands), about)


def _here(function: Callable[..., R], *arguments: Any) -> R:
    return function(*arguments)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
