"""Rate and distortion of every coder on every tile, and what they say together."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from stac_latent.aliases import Progress
from stac_latent.bench.coder import Array, Context, Entrant, Team, UnavailableError
from stac_latent.bench.curves import Curve, bd_rate, pool
from stac_latent.bench.data.base import Dataset, Tile
from stac_latent.bench.isolation import apart
from stac_latent.errors import StacLatentError
from stac_latent.field.psnr import LOSSLESS, decibels
from stac_latent.field.validity import valid_mask
from stac_latent.quality.distortion import Distortion, peak_of
from stac_latent.spec import Band

__all__ = ["ANCHOR", "Row", "compare", "contexts_of", "distortion", "open_team", "run_rd"]

ANCHOR = "KLT of the image + JPEG 2000"
_SECOND = "JPEG 2000, rate shared among bands"
Row = dict[str, Any]


def run_rd(
    dataset: Dataset,
    fit: Sequence[Tile],
    tiles: Sequence[Tile],
    entrants: Sequence[Entrant],
    *,
    interval: tuple[float, float] = (36.0, 46.0),
    jobs: int = 1,
    isolated: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Race coders on tiles, each with one thread.

    Parameters
    ----------
    dataset
        Where the tiles come from.
    fit
        Tiles of the fitting places, for coders with a static fit.
    tiles
        Tiles to race on.
    entrants
        Coders to open.
    interval
        PSNR [dB] over which rates are compared; a sweep stops 2 dB above it.
    jobs
        Coders that run at a time; with more than one, speeds tell little.
    isolated
        Run each coder in a process of its own, so that a crash of its library leaves the others alone.
    progress
        Called with a label, coders done, coders in all.

    Returns
    -------
    dict
        ``rows``: each tile, coder and setting; ``skipped``: coders that could not run, with the reason; see :func:`compare` for
        the rest.
    """
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    bare = replace(dataset, tiles=())
    jobs = max(1, jobs)
    with ThreadPoolExecutor(jobs) as pool:
        work = partial(apart, _race) if isolated else _race
        running = {pool.submit(work, e, bare, fit, tiles, interval): e.name for e in entrants}
        for done, future in enumerate(as_completed(running)):
            if progress is not None:
                progress("coders", done + 1, len(running))
            try:
                rows += future.result()
            except StacLatentError as exc:
                skipped[running[future]] = str(exc)
    order = {e.name: i for i, e in enumerate(entrants)}
    rows.sort(key=lambda r: order[r["coder"]])
    return {**compare(rows, interval), "skipped": skipped, "rows": rows}


def _race(
    entrant: Entrant,
    dataset: Dataset,
    fit: Sequence[Tile],
    tiles: Sequence[Tile],
    interval: tuple[float, float],
) -> list[Row]:
    """Rows of one coder."""
    team = open_team(entrant, dataset, fit, tiles, threads=1)
    return [{"coder": entrant.name, **r} for t in tiles for r in sweep(team, dataset, t, interval)]


def open_team(
    entrant: Entrant, dataset: Dataset, fit: Sequence[Tile], tiles: Sequence[Tile], threads: int
) -> Team:
    """Coders of an entrant for the grids of a data set; raises the reason where it cannot run."""
    contexts = contexts_of(dataset, fit, tiles, threads)
    return Team([entrant.open(c) for c in contexts]) if entrant.joint is None else entrant.joint(contexts)


def contexts_of(dataset: Dataset, fit: Sequence[Tile], tiles: Sequence[Tile], threads: int) -> list[Context]:
    """What coders may know of each grid of a data set."""
    contexts = []
    for i, bands in enumerate(dataset.groups):
        facts = [_facts(bands, tile.fields[i]) for tile in tiles]
        peaks, ranges = zip(*(_peak_and_range(b, k, facts) for k, b in enumerate(bands)), strict=True)
        contexts.append(Context(bands, tuple(t.fields[i] for t in fit), peaks, threads, ranges))
    return contexts


def _facts(bands: Sequence[Band], field: Array) -> Distortion:
    """A field measured against itself: extremes and number of valid pixels of each band."""
    d = Distortion(bands)
    d.add(field, field, valid_mask(field, bands))
    return d


def _peak_and_range(band: Band, k: int, facts: Sequence[Distortion]) -> tuple[float, tuple[float, float]]:
    """Smallest peak of a band in any field, and the range of its values in all; 1 and (0, 0) without a valid pixel."""
    spans = [(float(d.low[k]), float(d.high[k])) for d in facts if d.count[k]]
    if not spans:
        return 1.0, (0.0, 0.0)
    peaks = [p for low, high in spans if (p := peak_of(band, high, low)) > 0]
    return min(peaks, default=1.0), (min(low for low, _ in spans), max(high for _, high in spans))


def sweep(team: Team, dataset: Dataset, tile: Tile, interval: tuple[float, float]) -> list[Row]:
    """Rows of one tile, coarse to fine: from the middle of the interval both ways, until 2 dB beyond its ends."""
    knobs = team.knobs
    rows: dict[int, Row] = {}

    def at(i: int) -> float:
        """PSNR at a knob; that of the interval's middle where the library refused."""
        if i not in rows:
            rows[i] = measure(team, dataset, tile, knobs[i])
        found = rows[i]["psnr"]
        return sum(interval) / 2 if found is None else float(found)

    low, high = 0, len(knobs) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if at(middle) < sum(interval) / 2 else (low, middle)
    for i in range(low, len(knobs)):
        if at(i) > interval[1] + 2:
            break
    for i in range(low, -1, -1):
        if at(i) < interval[0] - 2:
            break
    return [rows[i] for i in sorted(rows)]


def measure(team: Team, dataset: Dataset, tile: Tile, knob: float) -> Row:
    """One tile at one setting: bytes, distortion, seconds; ``error`` where a library refused."""
    row: Row = {"tile": tile.name, "place": tile.place, "knob": knob}
    try:
        return row | _measured(team, dataset, tile, knob)
    except (StacLatentError, RuntimeError, ValueError, MemoryError, struct.error) as exc:
        return row | {"psnr": None, "error": f"{type(exc).__name__}: {exc}"}


def _measured(team: Team, dataset: Dataset, tile: Tile, knob: float) -> Row:
    start = time.perf_counter()
    payloads = team.encode(tile.fields, knob)
    middle = time.perf_counter()
    decoded = team.decode(payloads)
    end = time.perf_counter()
    size = sum(map(len, payloads))
    return {
        "bytes": size,
        "bits_per_pixel": size * 8 / tile.samples,
        **distortion(dataset, tile, decoded),
        "encode_mpixel_s": tile.pixels / 1e6 / (middle - start),
        "decode_mpixel_s": tile.pixels / 1e6 / (end - middle),
    }


def distortion(dataset: Dataset, tile: Tile, decoded: Sequence[Any]) -> Row:
    """PSNR [dB] over the samples of all groups, mean spectral angle [deg], largest error [stored unit]."""
    parts = []
    for bands, field, back in zip(dataset.groups, tile.fields, decoded, strict=True):
        if back.shape != field.shape or back.dtype != field.dtype:
            raise UnavailableError(
                f"decoding gave {back.shape} {back.dtype}, expected {field.shape} {field.dtype}"
            )
        d = Distortion(bands)
        d.add(field, back, valid_mask(field, bands))
        parts.append(d)
    mse = [
        (10 ** (-d.psnr / 10) if d.psnr < LOSSLESS else 0.0, int(d.count.sum()))
        for d in parts
        if d.psnr is not None
    ]
    count = sum(n for _, n in mse)
    mean = sum(m * n for m, n in mse) / count if count else None
    angles = sum(d.angle_count for d in parts)
    return {
        "psnr": None if mean is None else decibels(mean),
        "sam": sum(d.angle_sum for d in parts) / angles if angles else None,
        "max_error": max((d.max_error for d in parts if d.max_error is not None), default=None),
    }


def compare(rows: Sequence[Row], interval: tuple[float, float]) -> dict[str, Any]:
    """What the rows say together.

    Returns
    -------
    dict
        ``summary``: for each coder the mean of the tiles' BD-rates to the anchor (:data:`ANCHOR`, with one band JPEG 2000) [%] and their worst tile, BD-rate of the
        pooled curves, mean rate [bpppb] at whole PSNRs over the tiles ``covered``, on which the anchor reaches the whole interval
        (None where the coder does not); ``bd_rate``: by coder and tile; ``lossless``: mean rate of the lossless coders.
    """
    curves: dict[str, dict[str, Curve]] = {}
    lossless: dict[str, list[float]] = {}
    measured = [r for r in rows if r["psnr"] is not None]
    for coder in dict.fromkeys(r["coder"] for r in measured):
        mine = [r for r in measured if r["coder"] == coder]
        if all(r["psnr"] >= LOSSLESS for r in mine):
            lossless[coder] = [r["bits_per_pixel"] for r in mine]
            continue
        curves[coder] = {
            t: Curve(
                (r["bits_per_pixel"], r["psnr"]) for r in mine if r["tile"] == t and r["psnr"] < LOSSLESS
            )
            for t in dict.fromkeys(r["tile"] for r in mine)
        }
    levels = [float(p) for p in np.arange(np.ceil(interval[0]), interval[1] + 0.5)]
    names = list(dict.fromkeys(r["tile"] for r in rows))
    first = next((c for c in (ANCHOR, _SECOND, *curves) if c in curves), None)
    anchor = curves[first] if first else {}
    covered = [
        t for t in names if t in anchor and anchor[t].low <= levels[0] and anchor[t].high >= levels[-1]
    ]
    summary, every = {}, {}
    for coder, own in curves.items():
        each = {t: bd_rate(anchor[t], c, interval) for t, c in own.items() if t in anchor}
        known = {t: b.percent for t, b in each.items() if b is not None}
        every[coder] = known
        both = [t for t in names if t in known]
        pooled = bd_rate(
            pool([anchor[t] for t in both], levels), pool([own[t] for t in both], levels), interval
        )
        worst = max(known, key=known.__getitem__, default=None)
        summary[coder] = {
            "bd_rate": float(np.mean(list(known.values()))) if known else None,
            "bd_rate_pooled": None if pooled is None else pooled.percent,
            "worst_tile": worst,
            "worst_bd_rate": None if worst is None else known[worst],
            "tiles": len(known),
            **_rates(own, covered, levels),
            **_speeds(measured, coder, interval),
        }
    return {
        "interval": list(interval),
        "anchor": first,
        "tiles": names,
        "covered": covered,
        "summary": summary,
        "bd_rate": every,
        "failed": sum("error" in r for r in rows),
        "lossless": {
            c: {"bits_per_pixel": float(np.mean(v)), "tiles": len(v), **_speeds(measured, c, None)}
            for c, v in lossless.items()
        },
    }


def _rates(curves: dict[str, Curve], names: Sequence[str], levels: Sequence[float]) -> Row:
    """Mean rate at each PSNR over the tiles; None where one does not reach it."""
    rates = np.array([curves[t].rate(np.array(levels)) for t in names if t in curves])
    mean = rates.mean(axis=0) if len(rates) == len(names) > 0 else np.full(len(levels), np.nan)
    return {
        "bits_per_pixel_at_psnr": {
            f"{p:g}": float(r) if np.isfinite(r) else None for p, r in zip(levels, mean, strict=True)
        }
    }


def _speeds(rows: Sequence[Row], coder: str, interval: tuple[float, float] | None) -> Row:
    """Median speed [Mpixel/s] of the settings inside the interval; small tiles, hence only a hint."""
    mine = [r for r in rows if r["coder"] == coder]
    inside = [r for r in mine if interval is None or interval[0] <= r["psnr"] <= interval[1]] or mine
    return {k: float(np.median([r[k] for r in inside])) for k in ("encode_mpixel_s", "decode_mpixel_s")}
