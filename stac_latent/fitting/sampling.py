"""Which tiles a fit reads: whole tiles over items, places and dates, and a split of the places.

A place is a block of a lattice in the CRS of the tile, so that all dates of a place fall on one side of the split. Tiles of
held-out places that overlap a fitting tile, as scenes in neighbouring zones do, are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import rasterio.warp

from stac_latent.errors import CatalogError
from stac_latent.fitting.sources import FitSource
from stac_latent.spec import Grid
from stac_latent.window import Window

__all__ = ["CELL", "Plan", "Tile", "make_plan", "round_robin"]

CELL = 8
"""Tiles are whole cells of so many pixels."""
_LAYOUTS = ((256, 4), (256, 2), (256, 1), (256, 0.5), (128, 0.5), (64, 0.5), (32, 0.5))
"""Pixels along a tile, tiles along a block: the first that gives enough places is taken. With half a tile each is a place."""
_PLACES = 2
_PER_SOURCE = 24
_SHRINK = 0.12
"""Part of a tile's box that is left out at each side when overlaps are looked for: boxes in degrees are larger than tiles."""


@dataclass(frozen=True)
class Tile:
    """A window of an item."""

    source: int
    """Position among the sources."""
    window: Window
    """Pixels."""
    place: str
    order: str
    """Hash that tiles are drawn by."""

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return math.prod(self.window.shape)


@dataclass(frozen=True)
class Plan:
    """Tiles to draw from, in order, and how the places were split."""

    fit: tuple[Tile, ...]
    held_out: tuple[Tile, ...]
    tile: int
    """Largest number of pixels along a tile."""
    block: float
    """Tiles along a block."""
    places: tuple[str, ...]
    held_out_places: tuple[str, ...]


def make_plan(sources: Sequence[FitSource], pixels: int, share: float, seed: int) -> Plan:
    """Lay out tiles and split their places.

    Parameters
    ----------
    sources
        Items.
    pixels
        To be drawn for fitting: tells how many tiles of an item are worth listing.
    share
        Part of the places that is held out, 0 to 0.9.
    seed
        Another seed gives other tiles and another split.

    Raises
    ------
    CatalogError
        If no item is large enough for a tile, or all tiles lie at one place.
    """
    best: Plan | None = None
    most = math.ceil(6 * pixels / (len(sources) * 256**2))
    for size, block in _LAYOUTS:
        found = [
            t for i, s in enumerate(sources) for t in _tiles(i, s, size, block, max(most, _PER_SOURCE), seed)
        ]
        if not found:
            break
        plan = _split(sources, found, size, block, share, seed)
        if best is None or (share and not best.held_out):
            best = plan
        if (plan.held_out and len(plan.places) >= _PLACES) or not share:
            best = plan
            break
    if best is None:
        raise CatalogError(
            f"none of {len(sources)} item(s) has {CELL} x {CELL} pixels; a fit needs larger rasters: check --resolution and bbox"
        )
    if share and not best.held_out:
        raise CatalogError(
            f"all tiles of {len(sources)} item(s) lie at one place ({best.places[0]}), so that none can be held out; give "
            "items of several places, or holdout=0 (--holdout 0) to fit without measuring on unseen places"
        )
    return best


def round_robin(tiles: Sequence[Tile]) -> tuple[Tile, ...]:
    """One tile of each place in turn, places and their tiles by hash."""
    groups: dict[str, list[Tile]] = {}
    for tile in sorted(tiles, key=lambda t: t.order):
        groups.setdefault(tile.place, []).append(tile)
    order = sorted(
        ((rank, tile.order, tile) for g in groups.values() for rank, tile in enumerate(g)),
        key=lambda e: e[:2],
    )
    return tuple(tile for _, _, tile in order)


def _tiles(i: int, source: FitSource, size: int, block: float, most: int, seed: int) -> Iterator[Tile]:
    """Tiles of one item: whole cells, evenly laid out, at most ``most`` of them."""
    grid = source.grid
    rows, columns = (_spans(n, size, source.align) for n in grid.shape)
    every = [Window.of((r, c)) for r in rows for c in columns]
    if len(every) > most:
        draw = np.random.default_rng(int(_hash(seed, _name(source))[:16], 16))
        every = [every[j] for j in sorted(draw.choice(len(every), most, replace=False))]
    for window in every:
        place = _place(grid, window, size * block)
        yield Tile(i, window, place, _hash(seed, f"{_name(source)}|{window}"))


def _spans(length: int, size: int, align: int = 1) -> list[tuple[int, int]]:
    count = max(1, math.floor(length / size + 0.6))
    step = length / count
    side = min(size, int(step)) // CELL * CELL
    starts = [int(k * step) // align * align for k in range(count)]
    return [(start, start + side) for start in starts] if side else []


def _place(grid: Grid, window: Window, edge: float) -> str:
    a, b, c, d, e, f = grid.transform
    (y0, y1), (x0, x1) = window
    row, col = (y0 + y1) / 2, (x0 + x1) / 2
    x, y = a * col + b * row + c, d * col + e * row + f
    sizes = edge * math.hypot(a, d), edge * math.hypot(b, e)
    return f"{grid.crs} block {math.floor(x / sizes[0])},{math.floor(y / sizes[1])} of {sizes[0]:.6g}"


def _split(
    sources: Sequence[FitSource], tiles: list[Tile], size: int, block: float, share: float, seed: int
) -> Plan:
    places = sorted({t.place for t in tiles}, key=lambda p: _hash(seed, p))
    apart_places = _held_out(places, tiles, share)
    held = set(apart_places)
    fit = [t for t in tiles if t.place not in held]
    apart = [t for t in tiles if t.place in held]
    if apart:
        apart = _without_overlap(sources, fit, apart)
    kept = {t.place for t in apart}
    return Plan(
        round_robin(fit),
        round_robin(apart),
        size,
        block,
        tuple(places),
        tuple(p for p in apart_places if p in kept),
    )


def _held_out(places: list[str], tiles: list[Tile], share: float) -> list[str]:
    """Places, in their order, that hold about this share of the pixels; at least one, never all."""
    size = dict.fromkeys(places, 0)
    for tile in tiles:
        size[tile.place] += tile.pixels
    wanted, total, out = share * sum(size.values()), 0, []
    for place in places:
        if total < wanted and total + size[place] <= 1.25 * wanted:
            out.append(place)
            total += size[place]
    if share and not out and len(places) > 1:
        out = [min(places, key=lambda p: size[p])]
    return out


def _without_overlap(sources: Sequence[FitSource], fit: list[Tile], apart: list[Tile]) -> list[Tile]:
    boxes = _boxes(sources, [*fit, *apart])
    ours, theirs = boxes[: len(fit)], boxes[len(fit) :]
    kept = []
    for tile, (w, s, e, n) in zip(apart, theirs, strict=True):
        touching = (ours[:, 0] < e) & (ours[:, 2] > w) & (ours[:, 1] < n) & (ours[:, 3] > s)
        if not touching.any():
            kept.append(tile)
    return kept


def _boxes(sources: Sequence[FitSource], tiles: list[Tile]) -> npt.NDArray[np.float64]:
    """West, south, east, north [deg] of tiles, a little smaller than they are."""
    out = np.empty((len(tiles), 4))
    by_crs: dict[str, list[int]] = {}
    for k, tile in enumerate(tiles):
        by_crs.setdefault(sources[tile.source].grid.crs, []).append(k)
    for crs, members in by_crs.items():
        xs, ys = np.empty((len(members), 4)), np.empty((len(members), 4))
        for row, k in enumerate(members):
            a, b, c, d, e, f = sources[tiles[k].source].grid.transform
            (y0, y1), (x0, x1) = tiles[k].window
            dy, dx = _SHRINK * (y1 - y0), _SHRINK * (x1 - x0)
            for j, (py, px) in enumerate(
                ((y0 + dy, x0 + dx), (y0 + dy, x1 - dx), (y1 - dy, x0 + dx), (y1 - dy, x1 - dx))
            ):
                xs[row, j], ys[row, j] = a * px + b * py + c, d * px + e * py + f
        if crs not in ("EPSG:4326", "OGC:CRS84"):
            lon, lat = rasterio.warp.transform(crs, "OGC:CRS84", xs.ravel(), ys.ravel())[:2]
            xs, ys = np.reshape(lon, xs.shape), np.reshape(lat, ys.shape)
        out[members] = np.stack([xs.min(1), ys.min(1), xs.max(1), ys.max(1)], axis=1)
    return out


def _name(source: FitSource) -> str:
    return f"{source.item.collection_id}/{source.item.id}"


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()
