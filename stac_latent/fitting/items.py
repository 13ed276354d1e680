"""The verb ``fit``: a codec for the Items of a catalogue, as a bundle with a model card."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pystac

from stac_latent.aliases import Progress
from stac_latent.codec.bundle import FILES, save_bundle
from stac_latent.codec.codec import Codec
from stac_latent.cube.item_assets import as_items
from stac_latent.errors import CatalogError, CodecError, StacLatentError
from stac_latent.fitting.bands import choose_bands
from stac_latent.fitting.checks import check_amount, checked_name, live_bands, summarise
from stac_latent.fitting.lin import fit_lin
from stac_latent.fitting.model_card import band_table_of, licence_of, measure, write_card
from stac_latent.fitting.sampling import Plan, Tile, make_plan
from stac_latent.fitting.sources import FitSource, native_bands, open_sources
from stac_latent.fitting.tile_cache import TileCache
from stac_latent.quality.moments import Summary
from stac_latent.quality.ood_calibration import Layers, calibrated
from stac_latent.spec import Band
from stac_latent.stages.lin.grids import Lattices
from stac_latent.system.digests import canonical_json
from stac_latent.system.files import replacing_folder, writing
from stac_latent.system.links import asset_href
from stac_latent.system.suggest import known_options

__all__ = ["Fitted", "fit"]

_MAX_ITEMS = 512
_HOLDOUT_PIXELS = 0.25
"""Of the fitting pixels."""
_GUARD_TILES = 24
"""Tiles of the fit that a guard is calibrated on, at most."""


@dataclass(frozen=True)
class Fitted:
    """What a fit made."""

    codec: Codec
    path: Path
    """Folder of the bundle; ``item.json`` in it is the MLM Item."""
    items: int
    """Items that tiles were taken from."""
    skipped: int
    """Items that lack a band."""
    seconds: Mapping[str, float]
    """Time of reading, fitting, measuring and calibrating the guard."""


@dataclass
class _Job:
    """Arguments that the parts of a fit share."""

    items: list[pystac.Item]
    bands: tuple[Band, ...]
    keys: Mapping[str, str] | None
    resolution: float | None
    resampling: str
    pixels: int
    holdout: float
    seed: int
    lattices: Lattices | None
    name: str
    about: Mapping[str, Any]
    """What the caller says in the model card."""
    guard: float | None
    named: bool
    """Whether the bands were asked for, or share no grid: one without data is then an error, and not left out."""
    progress: Progress


@known_options("psnr", "step")
def fit(
    items: pystac.Item | Iterable[pystac.Item],
    dest: str | os.PathLike[str],
    bands: Sequence[str] | None = None,
    *,
    name: str | None = None,
    keys: Mapping[str, str] | None = None,
    pixels: int = 2_000_000,
    holdout: float = 0.2,
    seed: int = 0,
    resolution: float | None = None,
    resampling: str = "nearest",
    guard: float | None = 0.99,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Fitted:
    """Fit a codec to the imagery of Items, in closed form, and measure it on places that it has not seen.

    Whole tiles of up to 256 pixels are drawn over items, places and dates. Places are blocks of a lattice; some of them are
    held out. Each tile is read once, through odc-stac, into a folder beside ``dest``, where a fit that was interrupted finds
    it again. The same arguments give the same codec.

    Parameters
    ----------
    items
        Items with raster assets, as pystac or :func:`stac_latent.search` gives them. Those that lack a band are passed over.
    dest
        Folder of the bundle to write.
    bands
        Names of bands, assets or common names; None: all that hold data.
    name
        Name of the codec; that of the folder by default.
    keys
        Asset keys by band name, where they cannot be matched.
    pixels
        Pixels (of all bands) to fit on; a quarter as many are measured on.
    holdout
        Share of the pixels whose places are held out; 0 to measure nothing.
    seed
        Of the draw and of the split.
    resolution, resampling
        A grid to resample to. Without one, bands of several native grids are fitted on these, as one codec.
    guard
        Share of tiles like those held out that the guard of ``encode`` shall pass; lower where so few tiles cannot guarantee it.
        None, or nothing held out: no guard. See :mod:`stac_latent.quality.ood_calibration`.
    about
        More of the model card: ``description``, ``license``, ``attribution``.
    overwrite
        Replace a bundle that is there.
    progress
        Called with a label, the steps done and their number.
    **options
        To :func:`stac_latent.fitting.lin.fit_lin`: ``psnr`` [dB] or ``step`` of the codec's own rate.

    Raises
    ------
    CatalogError
        If there is nothing to fit on: no items, no bands in common, no or too few valid pixels, one place only; or ``dest``
        is taken.
    GridError
        If the bands of Items lie on different native grids and no ``resolution`` is given.

    Examples
    --------
    >>> made = fit(items, "my-codec", ["B02", "B03", "B04", "B08"])  # doctest: +SKIP
    >>> made.codec.about["rate_distortion"][2]  # doctest: +SKIP
    {'quality': 50.0, 'bits_per_pixel': 1.21, 'psnr': 46.1, 'max_error': 180.0, 'sam': 0.9}
    """
    folder = Path(dest)
    title = checked_name(name or folder.resolve().name)
    _check_numbers(pixels, holdout)
    if folder.exists() and not overwrite and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise CatalogError(
            f"{folder} is there already; pass overwrite=True (--overwrite) to replace it, or choose another folder"
        )
    given = as_items(items, "fit on")
    chosen, usable = choose_bands(_thinned(given, seed), bands, keys)
    skipped = min(len(given), _MAX_ITEMS) - len(usable)
    lattices = None
    if resolution is None:
        chosen, lattices = native_bands(usable[0], chosen, keys)
    job = _Job(
        usable, chosen, keys, resolution, resampling, pixels, holdout, seed, lattices, title, about or {}, guard,
        named=bands is not None or lattices is not None, progress=progress or (lambda *_: None),
    )  # fmt: skip
    with writing(folder):
        return _run(job, folder, skipped, options)


def _run(job: _Job, folder: Path, skipped: int, options: dict[str, Any]) -> Fitted:
    progress = job.progress
    clock = [time.perf_counter()]
    sources = open_sources(job.items, job.bands, job.lattices, job.keys, job.resolution, job.resampling)
    plan = make_plan(sources, job.pixels, job.holdout, job.seed)
    key = hashlib.sha256(canonical_json(_identity(job, plan))).hexdigest()
    spool = TileCache(folder.with_name(f".{folder.name}.fit"), key, sources, job.bands)
    try:
        taken, passed = spool.draw(
            plan.fit, job.pixels, lambda n: progress("read to fit (pixels)", n, job.pixels)
        )
        apart_pixels = int(job.pixels * _HOLDOUT_PIXELS) if job.holdout else 0
        apart, empty = spool.draw(plan.held_out, apart_pixels, lambda n: progress("read to measure", n, apart_pixels)) if apart_pixels else ([], 0)  # fmt: skip
        moments = summarise(spool, taken, len(job.bands))
        keep = live_bands(job.bands, moments, taken, passed, job.named)
        bands = [job.bands[i] for i in keep]
        check_amount(
            moments if len(keep) == len(job.bands) else summarise(spool, taken, len(bands), keep), bands
        )
        clock.append(time.perf_counter())

        passes = _Passes(spool, taken, keep, progress)
        codec = fit_lin(job.name, passes, bands, lattices=job.lattices, **options)
        clock.append(time.perf_counter())

        points = []
        if apart:
            report = lambda done, total: progress("measure", done, total)  # noqa: E731 - names its label
            points = measure(codec, lambda: spool.layers(apart, keep), len(apart), report)
        clock.append(time.perf_counter())
        used = _items_of(sources, taken)
        card = _card(job, plan, taken, apart, sources, moments, points, bands)
        left_out = [b.name for i, b in enumerate(job.bands) if i not in keep]
        card |= {"limits": f"bands that held no data are left out: {', '.join(left_out)}"} if left_out else {}
        codec = replace(codec, about={"license": licence_of(used), **card, **job.about})
        if job.guard is not None and apart:
            codec = _with_guard(codec, spool, taken, apart, keep, job.guard, progress)
            clock.append(time.perf_counter())
        parameters = {**_parameters(job, plan), **options, "tiles_passed_over": passed + empty}
        _place_bundle(codec, folder, used, parameters)
    except StacLatentError:
        spool.remove()
        raise
    spool.remove()
    names = ("read", "fit", "measure", "guard")
    seconds = {n: round(b - a, 2) for n, a, b in zip(names, clock, clock[1:], strict=False)}
    return Fitted(codec, folder, len(used), skipped, seconds)


def _with_guard(
    codec: Codec, spool: TileCache, taken: Sequence[Tile], apart: Sequence[Tile], keep: Sequence[int], share: float,
    progress: Progress,
) -> Codec:  # fmt: skip
    """Calibrated on tiles of the fit and, for the edge, on those held out; as it is where they are too few."""
    few = (
        [taken[i * len(taken) // _GUARD_TILES] for i in range(_GUARD_TILES)]
        if len(taken) > _GUARD_TILES
        else taken
    )
    total, done = len(few) + len(apart), 0

    def counted(tiles: Sequence[Tile]) -> Iterator[Layers]:
        nonlocal done
        for layers in spool.layers(tiles, keep):
            yield layers
            done += 1
            progress("guard", done, total)

    note = "tiles of the fitting places and, for the edge, of those held out"
    try:
        return calibrated(codec, lambda: counted(few), lambda: counted(apart), share, note)
    except CodecError as exc:
        if not 0.5 <= share < 1:
            raise
        return replace(codec, about={**codec.about, "no_guard": str(exc)})


@dataclass
class _Passes:
    """The tiles anew at each call, with a bar for each pass."""

    spool: TileCache
    taken: Sequence[Tile]
    keep: Sequence[int]
    progress: Progress
    count: int = 0

    def __call__(self) -> Iterator[tuple[Any, Any]]:
        self.count += 1
        label, total = f"fit, pass {self.count}", len(self.taken)
        for i, layers in enumerate(self.spool.layers(self.taken, self.keep)):
            fields, masks = zip(*layers, strict=True)
            yield (fields[0], masks[0]) if len(layers) == 1 else (fields, masks)
            self.progress(label, i + 1, total)


def _check_numbers(pixels: int, holdout: float) -> None:
    if pixels < 1:
        raise CatalogError(f"pixels={pixels}; a fit needs some, 2,000,000 by default")
    if not 0 <= holdout <= 0.9:
        raise CatalogError(f"holdout={holdout:g} is no share; expected 0 to 0.9")


def _thinned(items: list[pystac.Item], seed: int) -> list[pystac.Item]:
    """So many items as a fit can look at, by hash, in their order."""
    if len(items) <= _MAX_ITEMS:
        return items
    rank = [hashlib.sha256(f"{seed}:{i.collection_id}/{i.id}".encode()).digest() for i in items]
    kept = sorted(sorted(range(len(items)), key=rank.__getitem__)[:_MAX_ITEMS])
    return [items[k] for k in kept]


def _identity(job: _Job, plan: Plan) -> dict[str, Any]:
    """All that decides what the spooled tiles hold."""
    hrefs = [[i.id, *sorted(asset_href(a) for a in i.assets.values())] for i in job.items]
    bands = [[b.name, b.data_type, b.scale, b.offset, str(b.nodata)] for b in job.bands]
    orders = [t.order for t in (*plan.fit, *plan.held_out)]
    return {"items": hrefs, "bands": bands, "tiles": orders, "grid": [job.resolution, job.resampling, plan.tile, job.lattices], "keys": dict(job.keys or {})}  # fmt: skip


def _items_of(sources: Sequence[FitSource], tiles: Sequence[Tile]) -> list[pystac.Item]:
    return [sources[i].item for i in sorted({t.source for t in tiles})]


def _labels(sources: Sequence[FitSource], tiles: Sequence[Tile]) -> list[str]:
    items = _items_of(sources, tiles)
    return sorted(f"{i.collection_id}/{i.id}" if i.collection_id else i.id for i in items)


def _card(
    job: _Job, plan: Plan, taken: Sequence[Tile], apart: Sequence[Tile], sources: Sequence[FitSource], moments: Summary,
    points: list[dict[str, float]], bands: Sequence[Band],
) -> dict[str, Any]:  # fmt: skip
    everything = dict(
        zip((b.name for b in job.bands), band_table_of(job.bands, moments).values(), strict=True)
    )
    names = [b.name for b in bands]
    shown = ", ".join(names) if len(names) <= 16 else f"{names[0]} to {names[-1]}"
    collections = sorted({str(s.item.collection_id) for s in sources})
    texts = sorted({str(t) for s in sources if (t := s.item.properties.get("description"))})
    card: dict[str, Any] = {
        "title": f"{len(names)} band(s): {shown}",
        "description": f"Closed-form codec fitted to {', '.join(collections)}",
        "fitted_on": _labels(sources, taken),
        "places": sorted({t.place for t in taken}),
        "sample": {
            "tiles": len(taken),
            "pixels": sum(t.pixels for t in taken),
            "tile": plan.tile,
            "seed": job.seed,
        },
        "bands": {n: everything[n] for n in names},
    }
    if apart:
        card["held_out"] = {
            "split": f"by place: blocks of {plan.block * plan.tile:g} pixels of a lattice in each CRS; {len(plan.held_out_places)} of {len(plan.places)} places held out",
            "places": sorted({t.place for t in apart}),
            "items": _labels(sources, apart),
            "tiles": len(apart),
        }
        card["rate_distortion"] = points
    if texts:
        card["sources"] = texts[:8]
    return card


def _parameters(job: _Job, plan: Plan) -> dict[str, Any]:
    out = {
        "seed": job.seed,
        "pixels": job.pixels,
        "holdout": job.holdout,
        "tile": plan.tile,
        "block_tiles": plan.block,
    }
    return out | (
        {} if job.resolution is None else {"resolution": job.resolution, "resampling": job.resampling}
    )


def _place_bundle(
    codec: Codec, folder: Path, items: Sequence[pystac.Item], parameters: Mapping[str, Any]
) -> None:
    """Write beside, then rename; what was there goes only when the new bundle is whole."""
    with replacing_folder(folder) as part:
        save_bundle(codec, part)
        write_card(codec, part, items, parameters)
        if folder.exists():
            strangers = sorted(p.name for p in folder.iterdir() if p.name not in (*FILES, "item.json"))
            if strangers:
                raise CatalogError(
                    f"{folder} holds more than a bundle ({', '.join(strangers[:3])}); choose another folder"
                )
