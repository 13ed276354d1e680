"""Gains of a reference: how much of a key frame's latent is taken away from a date's, one for each level of the wavelet."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.lin.pyramid import CELL_LEVELS

__all__ = ["LEVELS", "LOST", "UNIT", "best_gains", "predict"]

LEVELS = CELL_LEVELS + 1
"""Gains of a chunk: the low band, and details of each level of a cell."""
UNIT = 16
"""A gain of one."""
LOST = 255
"""No gain: the fill value of the array of gains, which a chunk that is missing reads as."""
_MOST = 24
"""Largest gain that is tried."""


@lru_cache(maxsize=8)
def _levels(channels: int) -> Array:
    """Level of each channel: 0 for the low band, then 1 for the coarsest details, and so on."""
    one = [0] + [1 + i for i in range(CELL_LEVELS) for _ in range(3 * 4**i)]
    return np.tile(np.array(one), channels // 4**CELL_LEVELS)


def predict(reference: Array, gains: Array) -> Array:
    """What a reference says of a latent, float32 ``(channel, y, x)``: one multiplication of each value.

    Parameters
    ----------
    reference
        Decoded latents, float32 ``(channel, y, x)``.
    gains
        uint8 ``(LEVELS,)``.
    """
    factor = (gains.astype(np.float32) / np.float32(UNIT))[_levels(len(reference))]
    return np.asarray(reference * factor[:, None, None], np.float32)


def best_gains(
    latent: Array, reference: Array, step: float, cells: Array | None = None
) -> tuple[Array, float]:
    """Gains that leave the fewest bits, by the estimate that the spectral rotations are chosen with.

    Parameters
    ----------
    latent, reference
        float32 ``(channel, y, x)`` of a chunk.
    step
        Quantiser step, in units of the latents.
    cells
        Cells that count, bool ``(y, x)``; None for all.

    Returns
    -------
    gains, share
        uint8 ``(LEVELS,)``, and the estimated bits with them over those without.

    Notes
    -----
    Bits of a level are ``n / 2 * sum(log2(1 + 2 * v / step**2))`` over the variances ``v`` of its principal components. The
    covariance of ``latent - g * reference`` is quadratic in ``g``, so that every gain is tried. Means of the low band
    are left out: they cost next to nothing.
    """
    index, per = _levels(len(latent)), 4**CELL_LEVELS
    bands = len(latent) // per
    tried = np.arange(_MOST + 1) / UNIT
    gains, alone, left = np.zeros(LEVELS, np.uint8), 0.0, 0.0
    for level in range(LEVELS):
        x, y = (
            (a if cells is None else a[:, cells])
            .reshape(bands, per, -1)[:, index[:per] == level]
            .reshape(bands, -1)
            for a in (latent, reference)
        )
        if x.shape[1] < 1:
            continue
        if level == 0:
            x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
        xx, xy, yy = ((a @ b.T).astype(np.float64) / x.shape[1] for a, b in ((x, x), (x, y), (y, y)))
        g = tried[:, None, None]
        variances = np.linalg.eigvalsh(xx - g * (xy + xy.T) + g * g * yy)
        bits = x.shape[1] / 2 * np.log2(1 + 2 * np.maximum(variances, 0) / step**2).sum(axis=1)
        gains[level] = bits.argmin()
        alone, left = alone + bits[0], left + bits.min()
    return gains, float(left / alone) if alone > 0 else 1.0
