"""Closed-form fit of a ``lin`` chain: bases, weights and tables from tiles that are streamed, never held at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from stac_latent.codec import Array, Codec
from stac_latent.container import valid_mask
from stac_latent.errors import CodecError
from stac_latent.masking import fill_invalid
from stac_latent.spec import Band, Stats
from stac_latent.stages.lifting import analyse, levels_of
from stac_latent.stages.lin import Lin
from stac_latent.stages.lin_tile import MAX_LEVELS, TileCoder
from stac_latent.stages.normalise import Normalise
from stac_latent.stages.planes import PlaneModel
from stac_latent.stages.planes_fit import ModelFit
from stac_latent.stages.pyramid import CELL, CELL_LEVELS, Pyramid
from stac_latent.stages.subbands import layout_of, pack_cells

__all__ = ["Tiles", "fit_lin"]

Tiles = Callable[[], Iterable[tuple[Array, "Array | None"]]]
"""Gives the tiles anew at each call: ``(field, mask)``, field ``(band, y, x)`` in the stored unit, mask as ``encode`` takes it."""

_FLOOR = 50.0
_PEAK_UNITS = 10_000.0
_MODEL_TILES = 6
_RELATIVE_STEPS = (0.4, 1.0, 2.5)
_LEAST_VALID = 0.5
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

    Returns
    -------
    Codec
        Its payloads may have any step; see :meth:`~stac_latent.codec.Codec.compress`.

    Raises
    ------
    CodecError
        If there are too few valid pixels.

    Notes
    -----
    Covariances of the subbands are averaged over tiles with weights ``1 / (e + 50**2)``, e the mean energy of a tile's
    details: else snow and clouds dominate. Context weights are the non-negative least squares of magnitudes on their
    neighbours'; tables are the histograms of what was coded, at three steps.
    """
    first = _First(bands)
    for field, mask in tiles():
        first.add(field, mask)
    normalise = first.normalise()
    moments = _Moments(len(bands))
    kept: list[Array] = []
    spare: Array | None = None
    every = max(1, first.tiles // _MODEL_TILES)
    for i, (field, mask) in enumerate(tiles()):
        x = _normalised(field, mask, normalise)
        if x is None:
            continue
        moments.add(x)
        spare = x if spare is None else spare
        if i % every == 0 and len(kept) < _MODEL_TILES:
            kept.append(x)
    basis = moments.basis()
    if not kept and spare is not None:
        kept.append(spare)
    if step is None:
        step = _step_for(TileCoder(basis), kept, psnr, first.peaks(normalise.unit))
    model = _fit_model(basis, kept, step)
    mean, std = moments.stats()
    stages = (normalise, Pyramid(), Lin(basis, model, float(f"{step:.3g}")))
    stats = Stats(tuple(mean.tolist()), tuple(std.tolist()))
    return Codec(name, stages, tuple(bands), dimensions=CELL**2 * len(bands), stats=stats, about=about or {})


class _First:
    """First pass: centre and range of each band over its own valid pixels; 0 and none of a band that has no such pixel."""

    def __init__(self, bands: Sequence[Band]) -> None:
        self.bands, self.tiles, self.pixels = tuple(bands), 0, 0
        self.medians: list[list[float]] = [[] for _ in bands]
        self.lows, self.highs = np.full(len(bands), np.inf), np.full(len(bands), -np.inf)

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

    @property
    def spread(self) -> Array:
        """Range of each band, float64; 1 of a band that is constant."""
        return np.where(self.highs > self.lows, self.highs - self.lows, 1.0)

    def normalise(self) -> Normalise:
        n = len(self.bands)
        if self.pixels < _ENOUGH * max(n, 200):
            raise CodecError(
                f"only {self.pixels} valid pixels to fit {n} bands on; at least {_ENOUGH * max(n, 200)} are needed: give more "
                "items, or a larger area"
            )
        mean = [float(np.median(m)) if m else 0.0 for m in self.medians]
        units = []
        for band, spread in zip(self.bands, self.spread, strict=True):
            peak = 1 / abs(band.scale) if band.scale != 1 else spread
            units.append(float(f"{peak / _PEAK_UNITS:.3g}"))
        return Normalise([float(f"{m:.4g}") for m in mean], units)

    def peaks(self, units: Array) -> Array:
        """Peaks in normalised units."""
        own = [1 / abs(b.scale) if b.scale != 1 else s for b, s in zip(self.bands, self.spread, strict=True)]
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
    return (x * 2.0**-4).astype(np.float32)


class _Moments:
    """Second pass: covariances of the subbands and moments of the latents, tile by tile."""

    def __init__(self, bands: int) -> None:
        self.bands = bands
        self.cov = np.zeros((MAX_LEVELS + 1, bands, bands))
        self.weight = np.zeros(MAX_LEVELS + 1)
        self.count = 0
        self.sum, self.square = np.zeros(bands * CELL**2), np.zeros(bands * CELL**2)

    def add(self, x: Array) -> None:
        t = x.copy()
        analyse(t, CELL_LEVELS)
        cells = pack_cells(t, CELL_LEVELS).reshape(len(self.sum), -1).astype(np.float64)
        self.count += cells.shape[1]
        self.sum += cells.sum(axis=1)
        self.square += np.square(cells).sum(axis=1)
        levels = levels_of(*t.shape[1:], most=MAX_LEVELS)
        analyse(t, levels, CELL_LEVELS)
        layout = layout_of((t.shape,), levels)
        detail = float(np.square(np.rint(t[:, t.shape[1] // 2 :]), dtype=np.float64).mean())
        for group in layout.groups:
            flat = np.concatenate(
                [group.samples([t], o).reshape(self.bands, -1) for o in range(len(group.norms))], axis=1
            )
            if flat.shape[1]:
                flat = np.rint(flat).astype(np.float64)  # sums of integers are exact, in any order
                w = 1 / (detail + _FLOOR**2)
                self.cov[group.level] += w * (flat @ flat.T)
                self.weight[group.level] += w * flat.shape[1]

    def basis(self) -> Array:
        """Rows are components by descending variance, the largest entry of each positive."""
        if not self.weight.any():
            raise CodecError("no tile is at least half valid; give items with fewer holes, or a smaller area")
        out = np.zeros_like(self.cov, dtype=np.float32)
        known = np.flatnonzero(self.weight)
        for level in range(MAX_LEVELS + 1):
            nearest = (
                level
                if level in known
                else (known[-1] if level == 0 else known[np.abs(known - level).argmin()])
            )
            _, vectors = np.linalg.eigh(self.cov[nearest])
            rows = vectors.T[::-1]
            signs = np.sign(rows[np.arange(self.bands), np.abs(rows).argmax(axis=1)])
            out[level] = np.rint(rows * signs[:, None] * 2.0**14) * 2.0**-14
        return out

    def stats(self) -> tuple[Array, Array]:
        mean = self.sum / self.count
        return mean, np.sqrt(np.maximum(self.square / self.count - mean**2, 0))


def _prepare(coder: TileCoder, x: Array) -> Any:
    t = x.copy()
    analyse(t, levels_of(*t.shape[1:], most=MAX_LEVELS))
    return coder.prepare([t])


def _step_for(coder: TileCoder, tiles: Sequence[Array], psnr: float, peaks: Array) -> float:
    """Step at which the tiles reach a PSNR, by the mean square error of their coefficients."""
    goal = float(np.mean(np.asarray(peaks) ** 2)) / 10 ** (psnr / 10)
    prepared = [_prepare(coder, x) for x in tiles[:4]]
    low, high = 2.0**-6, 2.0**14
    for _ in range(10):
        step = math.sqrt(low * high)
        mse = float(np.mean([coder.code_measured(p, step)[1] for p in prepared]))
        low, high = (step, high) if mse < goal else (low, step)
    return math.sqrt(low * high)


def _fit_model(basis: Array, tiles: Sequence[Array], step: float) -> PlaneModel:
    """Context weights and tables, from what the default model codes."""
    coder, fit = TileCoder(basis), ModelFit()
    for x in tiles:
        prepared = _prepare(coder, x)
        for relative in _RELATIVE_STEPS:
            fit.add(*coder.quantise(prepared, step * relative))
    return fit.model()


def mask_of(field: Array, bands: Sequence[Band]) -> Array | None:
    """Valid pixels of a tile, by the bands' nodata and NaN; None where all are."""
    return valid_mask(field, Codec("fit", (Normalise([0.0] * len(bands), [1.0] * len(bands)),), tuple(bands)))
