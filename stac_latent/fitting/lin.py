"""Closed-form fit of a ``lin`` chain: bases, weights and tables from tiles that are streamed, never held at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.codec.native_grids import block_basis, members_of
from stac_latent.errors import CodecError
from stac_latent.field.validity import fill_invalid
from stac_latent.spec import Band, Stats
from stac_latent.stages.base import FRACTION_BITS
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.context.fit import ModelFit
from stac_latent.stages.lin.grids import CELL, CELL_LEVELS, Lattices, Nest
from stac_latent.stages.lin.lifting import analyse, levels_of
from stac_latent.stages.lin.pyramid import Pyramid
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.lin.subbands import layout_of
from stac_latent.stages.lin.tile import MAX_LEVELS, TileCoder
from stac_latent.stages.transform.normalise import LIMIT, Normalise

__all__ = ["Tiles", "fit_lin"]

Tiles = Callable[[], Iterable[tuple[Array, "Array | None"]]]
"""Gives the tiles anew at each call: ``(field, mask)``, field ``(band, y, x)`` in the stored unit, mask as ``encode`` takes it."""

_FLOOR = 50.0
_PEAK_UNITS = 10_000.0
_MODEL_TILES = 8
_RELATIVE_STEPS = (0.4, 1.0, 2.5, 6.0)
_LEAST_VALID = 0.5
_MARGIN = 1.02
"""On what a band has to reach: means and units are rounded to a few digits."""
_STEADY = 64
"""Range of integers below which a band hardly varies."""
_WIDE = 2.0**16
"""How far from its mean such a band is codable, where its type is larger."""
_ENOUGH = 5
"""Valid pixels for each band, at least."""


def fit_lin(
    name: str,
    tiles: Tiles,
    bands: Sequence[Band],
    *,
    psnr: float = 46.0,
    step: float | None = None,
    about: dict[str, Any] | None = None,
    lattices: Lattices | None = None,
) -> Codec:
    """Fit a chain normalise > pyramid > lin.

    Parameters
    ----------
    name
        Name of the codec.
    tiles
        Called twice; tiles of up to 256 x 256 pixels, whole cells of 8, in any number.
    bands
        Their bands.
    psnr
        Quality of the default step on the fitting tiles, in dB.
    step
        The default step instead, in units of the normalised field.
    about
        Model card.
    lattices
        Bands of each grid of each lattice, where they have several (see :mod:`stac_latent.stages.lin.grids`): tiles then give
        a field and a mask of each lattice, larger pixels repeated on the finest.

    Returns
    -------
    Codec
        Its payloads may have any step; see :meth:`~stac_latent.codec.codec.Codec.compress`.

    Raises
    ------
    CodecError
        If there are too few valid pixels.

    Notes
    -----
    Covariances of the subbands are averaged over tiles with weights ``1 / (e + 50**2)``, e the mean energy of a tile's
    details: else snow and clouds dominate. Context weights are the non-negative ones under which magnitudes are
    likeliest, as geometric about what the weights expect; tables are the histograms of what was coded, at four steps.
    """
    counts = lattices or ((len(bands),),)
    ends = list(itertools.accumulate(map(sum, counts)))
    fits = [_LatticeFit(bands[end - sum(c) : end], Nest(c)) for c, end in zip(counts, ends, strict=True)]
    for layers in map(_layers, tiles()):
        for fit, (field, mask) in zip(fits, layers, strict=True):
            fit.first.add(field, mask)
    for fit in fits:
        fit.normalise = fit.first.normalise()
    for i, layers in enumerate(map(_layers, tiles())):
        for fit, (field, mask) in zip(fits, layers, strict=True):
            fit.add(i, field, mask)
    blocks = [fit.moments.basis() for fit in fits]
    basis = (
        blocks[0]
        if lattices is None
        else block_basis([_blocks(b, f.nest) for b, f in zip(blocks, fits, strict=True)])
    )
    if step is None:
        step = _step_for(
            TileCoder(blocks[0]), fits[0].tiles, psnr, fits[0].first.peaks(fits[0].normalise.unit)
        )
    model = _fit_model(list(zip(blocks, (f.tiles for f in fits), strict=True)), step)
    mean, std = (np.concatenate(v) for v in zip(*(f.moments.stats() for f in fits), strict=True))
    centre, unit = (np.concatenate([getattr(f.normalise, n) for f in fits]) for n in ("mean", "unit"))
    stages = (
        Normalise(centre.tolist(), unit.tolist()),
        Pyramid(lattices),
        Lin(basis, model, float(f"{step:.3g}"), lattices=lattices),
    )
    stats = Stats(tuple(mean.tolist()), tuple(std.tolist()))
    return Codec(name, stages, tuple(bands), dimensions=len(mean), stats=stats, about=about or {})


def _layers(tile: tuple[Any, Any]) -> list[tuple[Array, Array | None]]:
    """Field and mask of each lattice."""
    field, mask = tile
    return list(zip(field, mask, strict=True)) if isinstance(field, list | tuple) else [(field, mask)]


class _LatticeFit:
    """What is fitted to the tiles of one lattice."""

    def __init__(self, bands: Sequence[Band], nest: Nest) -> None:
        self.nest, self.first, self.moments = nest, _First(bands), _Moments(nest)
        self.normalise = Normalise([0.0], [1.0])
        self.kept: list[list[Array]] = []
        self.spare: list[list[Array]] = []

    def add(self, i: int, field: Array, mask: Array | None) -> None:
        """Tile ``i`` of the second pass."""
        x = _normalised(field, mask, self.normalise)
        if x is None:
            return
        grids = [np.ascontiguousarray(g) for g in self.nest.gather(x)]
        self.moments.add(grids)
        self.spare = self.spare or [grids]
        if i % max(1, self.first.tiles // _MODEL_TILES) == 0 and len(self.kept) < _MODEL_TILES:
            self.kept.append(grids)

    @property
    def tiles(self) -> list[list[Array]]:
        """A few tiles in normalised units, to fit tables to."""
        return self.kept or self.spare


def _blocks(basis: Array, nest: Nest) -> list[Array]:
    """Of each level, the components of the bands that its group has."""
    sizes = [members_of(nest, level) for level in range(len(basis))]
    return [b[:m, :m] for b, m in zip(basis, sizes, strict=True)]


class _First:
    """First pass: centre and range of each band over its own valid pixels; 0 and none of a band that has no such pixel."""

    def __init__(self, bands: Sequence[Band]) -> None:
        self.bands, self.tiles, self.pixels = tuple(bands), 0, 0
        self.medians: list[list[float]] = [[] for _ in bands]
        self.lows, self.highs = np.full(len(bands), np.inf), np.full(len(bands), -np.inf)
        self.least, self.most = self.lows.copy(), self.highs.copy()

    def add(self, field: Array, mask: Array | None) -> None:
        self.tiles += 1
        valid = np.isfinite(field)
        if mask is not None:
            valid &= mask
        self.pixels += int(valid.any(axis=0).sum())
        for i, (values, here) in enumerate(zip(field, valid, strict=True)):
            known = values[here]
            if known.size:
                self.medians[i].append(float(np.median(known)))
                low, high = np.quantile(known, (0.001, 0.999))
                self.lows[i], self.highs[i] = min(self.lows[i], low), max(self.highs[i], high)
                self.least[i], self.most[i] = (
                    min(self.least[i], float(known.min())),
                    max(self.most[i], float(known.max())),
                )

    @property
    def spread(self) -> Array:
        """Range of each band, float64; of a constant one its magnitude, at least 1."""
        constant = np.maximum(np.abs(np.where(np.isfinite(self.lows), self.lows, 0.0)), 1.0)
        return np.where(self.highs > self.lows, self.highs - self.lows, constant)

    def normalise(self) -> Normalise:
        n = len(self.bands)
        if self.pixels < _ENOUGH * max(n, 200):
            raise CodecError(
                f"only {self.pixels} valid pixels to fit {n} bands on; at least {_ENOUGH * max(n, 200)} are needed: give more "
                "items, or a larger area"
            )
        mean = [float(np.median(m)) if m else 0.0 for m in self.medians]
        units = []
        for i, (band, spread) in enumerate(zip(self.bands, self.spread, strict=True)):
            peak = band.peak(spread)
            least = _MARGIN * self._reach(i, mean[i]) / (LIMIT * 2.0**-FRACTION_BITS)
            units.append(float(f"{max(peak / _PEAK_UNITS, least):.3g}"))
        return Normalise([float(f"{m:.4g}") for m in mean], units)

    def _reach(self, i: int, mean: float) -> float:
        """How far from its mean a band has to be codable: as far as was seen, and where it hardly varies as its type allows."""
        dtype = np.dtype(self.bands[i].data_type)
        seen = max(self.most[i] - mean, mean - self.least[i], 0.0)
        steady = self.highs[i] - self.lows[i] < _STEADY
        if dtype.kind == "f" or not (steady or dtype.itemsize == 1):
            return float(seen)
        info = np.iinfo(dtype)
        return float(max(seen, min(max(info.max - mean, mean - info.min), _WIDE)))

    def peaks(self, units: Array) -> Array:
        """Peaks in normalised units."""
        own = [b.peak(s) for b, s in zip(self.bands, self.spread, strict=True)]
        return np.asarray(own) / units


def _normalised(field: Array, mask: Array | None, normalise: Normalise) -> Array | None:
    """A tile in normalised units, holes filled, float32; None where less than half of it is valid."""
    _, h, w = field.shape
    h, w = h // CELL * CELL, w // CELL * CELL
    field = field[:, :h, :w]
    valid = np.isfinite(field)
    if mask is not None:
        valid = valid & np.broadcast_to(mask[:, :h, :w], field.shape)
    if not valid.size or valid.mean() < _LEAST_VALID:
        return None
    clean = np.where(valid, field, 0) if field.dtype.kind == "f" else field
    x = fill_invalid(normalise.forward(clean), valid, (CELL, CELL))
    return (x * 2.0**-FRACTION_BITS).astype(np.float32)


class _Moments:
    """Second pass: covariances of the subbands and moments of the latents, tile by tile."""

    def __init__(self, nest: Nest) -> None:
        self.nest, self.bands = nest, len(nest.steps)
        self.cov = np.zeros((MAX_LEVELS + 1, self.bands, self.bands))
        self.weight = np.zeros(MAX_LEVELS + 1)
        self.count = 0
        self.sum, self.square = np.zeros(nest.channels), np.zeros(nest.channels)

    def add(self, grids: Sequence[Array]) -> None:
        tile = [x.copy() for x in grids]
        for depth, part in enumerate(tile):
            analyse(part, CELL_LEVELS - depth)
        cells = self.nest.pack(tile).reshape(len(self.sum), -1).astype(np.float64)
        self.count += cells.shape[1]
        self.sum += cells.sum(axis=1)
        self.square += np.square(cells).sum(axis=1)
        t = tile[0]
        levels = levels_of(*t.shape[1:], most=MAX_LEVELS)
        for depth, part in enumerate(tile):
            analyse(part, levels - depth, CELL_LEVELS - depth)
        layout = layout_of(tuple(part.shape for part in tile), levels)
        detail = float(np.square(np.rint(t[:, t.shape[1] // 2 :]), dtype=np.float64).mean())
        for group in layout.groups:
            m = len(group.members)
            flat = np.concatenate(
                [group.samples(tile, o).reshape(m, -1) for o in range(len(group.norms))], axis=1
            )
            if flat.shape[1]:
                flat = np.rint(flat).astype(np.float64)  # sums of integers are exact, in any order
                w = 1 / (detail + _FLOOR**2)
                self.cov[group.level, :m, :m] += w * (flat @ flat.T)
                self.weight[group.level] += w * flat.shape[1]

    def basis(self) -> Array:
        """Rows are components by descending variance, the largest entry of each positive."""
        if not self.weight.any():
            raise CodecError("no tile is at least half valid; give items with fewer holes, or a smaller area")
        out = np.tile(np.eye(self.bands, dtype=np.float32), (MAX_LEVELS + 1, 1, 1))
        known = np.flatnonzero(self.weight)
        for level in range(MAX_LEVELS + 1):
            nearest = (
                level
                if level in known
                else (known[-1] if level == 0 else known[np.abs(known - level).argmin()])
            )
            m = members_of(self.nest, level)
            _, vectors = np.linalg.eigh(self.cov[nearest, :m, :m])
            rows = vectors.T[::-1]
            signs = np.sign(rows[np.arange(m), np.abs(rows).argmax(axis=1)])
            out[level, :m, :m] = np.rint(rows * signs[:, None] * 2.0**14) * 2.0**-14
        return out

    def stats(self) -> tuple[Array, Array]:
        mean = self.sum / self.count
        return mean, np.sqrt(np.maximum(self.square / self.count - mean**2, 0))


def _prepare(coder: TileCoder, grids: Sequence[Array]) -> Any:
    tile = [x.copy() for x in grids]
    levels = levels_of(*tile[0].shape[1:], most=MAX_LEVELS)
    for depth, part in enumerate(tile):
        analyse(part, levels - depth)
    return coder.prepare(tile)


def _step_for(coder: TileCoder, tiles: Sequence[Sequence[Array]], psnr: float, peaks: Array) -> float:
    """Step at which the tiles reach a PSNR, by the mean square error of their coefficients."""
    goal = float(np.mean(np.asarray(peaks) ** 2)) / 10 ** (psnr / 10)
    prepared = [_prepare(coder, x) for x in tiles[:4]]
    low, high = 2.0**-6, 2.0**14
    for _ in range(10):
        step = math.sqrt(low * high)
        mse = float(np.mean([coder.code_measured(p, step)[1] for p in prepared]))
        low, high = (step, high) if mse < goal else (low, step)
    return math.sqrt(low * high)


def _fit_model(lattices: Sequence[tuple[Array, Sequence[Sequence[Array]]]], step: float) -> ContextModel:
    """Context weights and tables, from what the default model codes of the tiles of each lattice with its basis."""
    fit = ModelFit()
    for basis, tiles in lattices:
        coder = TileCoder(basis)
        for grids in tiles:
            prepared = _prepare(coder, grids)
            for relative in _RELATIVE_STEPS:
                fit.add(*coder.quantise(prepared, step * relative))
    return fit.model()
