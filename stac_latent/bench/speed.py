"""Time to encode and decode a large scene at one quality, by every coder in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stac_latent.aliases import Progress
from stac_latent.bench.byte_budget import budget_of
from stac_latent.bench.coder import Array, Entrant, Team
from stac_latent.bench.data.base import Dataset, Tile
from stac_latent.bench.isolation import apart
from stac_latent.bench.own_codecs import Chain
from stac_latent.bench.race import Row, distortion, open_team
from stac_latent.bench.scene import assemble
from stac_latent.bench.windows import run_windows
from stac_latent.errors import StacLatentError

__all__ = ["nearest_knob", "run_speed"]

_RUNS = 3
"""Runs, of which the fastest counts; slow coders run once."""
_ENOUGH = 6.0
"""Seconds after which a measurement is not repeated."""


@dataclass(frozen=True)
class _Task:
    """What a process of its own measures."""

    entrant: Entrant
    dataset: Dataset
    fit: tuple[Tile, ...]
    scene: Tile
    threads: int
    psnr: float
    windows: bool


def run_speed(
    dataset: Dataset,
    fit: Sequence[Tile],
    tiles: Sequence[Tile],
    entrants: Sequence[Entrant],
    *,
    size: int = 2048,
    psnr: float = 42.0,
    threads: Sequence[int] = (2, 1),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure speeds.

    Each coder runs in a process of its own that may use so many processors and as many threads. Its setting is the one that comes
    nearest to the PSNR on a quarter of the scene; it has coded that quarter before the clock starts, so that what is
    compiled or loaded once is not counted.

    Parameters
    ----------
    dataset, fit, tiles, entrants
        As :func:`~stac_latent.bench.race.run_rd`.
    size
        Pixels of a side of the scene.
    psnr
        Quality [dB] to compare at.
    threads
        Numbers of threads to measure with.

    Returns
    -------
    dict
        ``rows``: for each coder and number of threads ``encode_mpixel_s`` and ``decode_mpixel_s`` (Mpixel/s of all bands, by the clock;
        ``..._cpu_s`` for each second of a processor, which other processes disturb less),
        ``bits_per_pixel``, ``psnr``; ``budget`` for ``lin`` (see :func:`~stac_latent.bench.byte_budget.budget_of`); ``windows`` (see
        :func:`~stac_latent.bench.windows.run_windows`) for the package's own, with most threads; ``skipped``.
    """
    scene = assemble(tiles, size)
    small = replace(dataset, tiles=())
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    total, done = len(entrants) * len(threads), 0
    for entrant in entrants:
        for count in threads:
            if progress is not None:
                progress("speed", done, total)
            done += 1
            if entrant.name in skipped:
                continue
            try:
                task = _Task(entrant, small, tuple(fit), scene, count, psnr, count == max(threads))
                rows.append(apart(_measured, task, threads=count))
            except StacLatentError as exc:
                skipped[entrant.name] = str(exc)
            except (RuntimeError, ValueError, MemoryError) as exc:
                skipped[entrant.name] = f"{type(exc).__name__}: {exc}"
    if progress is not None:
        progress("speed", total, total)
    names = {
        "title": f"{dataset.title}, {size} x {size} pixels",
        "pixels": scene.pixels,
        "samples": scene.samples,
    }
    return {"scene": names, "psnr": psnr, "processors": os.cpu_count(), "rows": rows, "skipped": skipped}


def _measured(task: _Task) -> Row:
    """One row; runs in a process of its own."""
    team = open_team(task.entrant, task.dataset, task.fit, [task.scene], task.threads)
    quarter = Tile("quarter", "several", tuple(_quarter(f) for f in task.scene.fields))
    knob = nearest_knob(team, task.dataset, quarter, task.psnr)
    there, there_cpu, payloads = _fastest(lambda: team.encode(task.scene.fields, knob))
    back, back_cpu, decoded = _fastest(lambda: team.decode(payloads))
    mega = task.scene.pixels / 1e6
    row = {
        "coder": task.entrant.name,
        "threads": task.threads,
        "knob": knob,
        "bits_per_pixel": sum(map(len, payloads)) * 8 / task.scene.samples,
        **distortion(task.dataset, task.scene, decoded),
        "encode_mpixel_s": mega / there,
        "decode_mpixel_s": mega / back,
        "encode_mpixel_cpu_s": mega / max(there_cpu, 1e-9),
        "decode_mpixel_cpu_s": mega / max(back_cpu, 1e-9),
    }
    parts = [b for c, p in zip(team.coders, payloads, strict=True) if (b := budget_of(c, p)) is not None]
    if parts:
        row["budget"] = parts[0]
    if task.windows and len(team.coders) == 1 and isinstance(team.coders[0], Chain):
        row["windows"] = _windows(team.coders[0], task.scene, knob)
    return row


def _windows(chain: Chain, scene: Tile, knob: float) -> Row:
    """Random access to a store of the scene; the reason where the chain cannot be stored."""
    codec, target = chain.at(knob)
    try:
        return run_windows(chain.converted(scene.fields[0]), codec, step=target.get("step"))
    except StacLatentError as exc:
        return {"error": str(exc)}


def nearest_knob(team: Team, dataset: Dataset, tile: Tile, psnr: float) -> float:
    """Setting that comes nearest to a PSNR on a tile: bisected among the knobs, then interpolated between two."""
    knobs = team.knobs
    known: dict[float, float] = {}

    def reached(knob: float) -> float:
        if knob not in known:
            decoded = team.decode(team.encode(tile.fields, knob))
            known[knob] = distortion(dataset, tile, decoded)["psnr"] or 0.0
        return known[knob]

    low, high = 0, len(knobs) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(knobs[middle]) < psnr else (low, middle)
    a, b = reached(knobs[low]), reached(knobs[high])
    if a < psnr < b:
        share = (psnr - a) / (b - a)
        reached(knobs[low] + share * (knobs[high] - knobs[low]))
    return min(known, key=lambda k: abs(known[k] - psnr))


def _fastest(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds and processor seconds of the fastest of several runs, and the result."""
    best, spent, result = (np.inf, np.inf), 0.0, None
    for _ in range(_RUNS):
        result = None  # not two of them at a time
        start, busy = time.perf_counter(), time.process_time()
        result = function()
        seconds = (time.perf_counter() - start, time.process_time() - busy)
        best, spent = min(best, seconds), spent + seconds[0]
        if spent > _ENOUGH:
            break
    return float(best[0]), float(best[1]), result


def _quarter(field: Array) -> Array:
    """The upper left quarter, in pixels of a side a half."""
    side = -(-field.shape[1] // 2)
    return np.ascontiguousarray(field[:, :side, :side])
