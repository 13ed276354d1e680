"""Fit of the context model: weights by non-negative least squares, tables by counting."""

from __future__ import annotations

import numpy as np

from stac_latent.codec import Array
from stac_latent.stages.planes import PlaneModel
from stac_latent.stages.planes_model import (
    BINS,
    ESCAPE,
    RUN,
    SYMBOLS,
    bin_table,
    default_counts,
    default_runs,
    default_weights,
)
from stac_latent.stages.planes_plain import features

__all__ = ["ModelFit", "non_negative"]

_STRENGTH = 300
_SWEEPS = 300
_SATURATED = 64
"""Magnitudes are cut here, so that a few large ones do not outweigh the rest."""


class ModelFit:
    """Collects quantised planes and turns them into a model.

    Sums are kept, not samples: any number of tiles may be added.
    """

    def __init__(self) -> None:
        self.gram = np.zeros((6, 4, 7, 7))
        self.cross = np.zeros((6, 4, 7))
        self.planes: list[tuple[Array, Array]] = []

    def add(self, q: Array, table: Array) -> None:
        """Add the planes of a tile: quantised samples int32 in the layout of ``table``."""
        for k in range(len(table)):
            for step in range(4):
                f, m = features(q, table, k, step)
                if not m.size:
                    continue
                f = np.minimum(f, _SATURATED).astype(np.float64)
                m = np.minimum(m, _SATURATED).astype(np.float64)
                w = 1 / (1 + f @ np.array([0.2, 0.1, 0.1, 0.02, 0.2, 0.1, 0.0]))  # large magnitudes vary more
                key = int(table[k, 7]), step
                self.gram[key] += (f * w[:, None]).T @ f
                self.cross[key] += (f * w[:, None]).T @ m
        self.planes.append((q, table))

    def model(self) -> PlaneModel:
        """Weights, then the counts of what they sort into bins."""
        weights = default_weights()
        for s in range(6):
            for step in range(4):
                if self.gram[s, step, 6, 6] > 0:
                    w = non_negative(self.gram[s, step], self.cross[s, step])
                    weights[s, step] = np.clip(np.rint(64 * w), 0, 255)
        counts, runs = np.zeros((BINS, SYMBOLS)), np.zeros((4, 2))
        lut = bin_table()
        for q, table in self.planes:
            for k in range(len(table)):
                for step in range(4):
                    f, m = features(q, table, k, step)
                    if not m.size:
                        continue
                    b = lut[np.minimum(f @ weights[table[k, 7], step], lut.size - 1)].astype(np.int64)
                    zero = np.flatnonzero(b == 0)
                    coded = np.ones(m.size, bool)
                    if zero.size:
                        full = np.logical_or.reduceat(m[zero] > 0, np.arange(0, zero.size, RUN))
                        runs[step] += np.bincount(full.astype(int), minlength=2)
                        coded[zero] = np.repeat(full, RUN)[: zero.size]
                    np.add.at(counts, (b[coded], np.minimum(m[coded], ESCAPE)), 1)
        prior = default_counts() / default_counts().sum(axis=1, keepdims=True)
        mixed = counts + 50 * prior
        mixed = np.maximum(1, np.rint(_STRENGTH * mixed / mixed.sum(axis=1, keepdims=True)))
        mixed_runs = runs + default_runs()
        mixed_runs = np.maximum(1, np.rint(100 * mixed_runs / mixed_runs.sum(axis=1, keepdims=True)))
        return PlaneModel(weights.astype(np.int16), mixed.astype(np.uint16), mixed_runs.astype(np.uint16))


def non_negative(gram: Array, cross: Array, sweeps: int = _SWEEPS) -> Array:
    """Minimiser of ``w' G w / 2 - c' w`` over ``w >= 0``, by coordinate descent."""
    g = gram + 1e-9 * np.trace(gram) * np.eye(len(gram))
    w = np.zeros(len(g))
    for _ in range(sweeps):
        for i in range(len(g)):
            w[i] = max(0.0, w[i] + (cross[i] - g[i] @ w) / g[i, i])
    return w
