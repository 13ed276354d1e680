"""Fit of the context model: weights by non-negative least squares, tables by counting."""

from __future__ import annotations

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context._numpy import features, pass_of, sign_contexts
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.context.model import (
    BINS,
    ESCAPE,
    RUN,
    SETS,
    SIGNS,
    SYMBOLS,
    bin_table,
    default_counts,
    default_runs,
    default_signs,
    default_weights,
    orientation_of,
)

__all__ = ["ModelFit", "non_negative"]

_STRENGTH = 800
_SWEEPS = 300
_POOLED = 1000
"""Samples that what sets or passes have in common is worth."""
_SATURATED = 64
"""Magnitudes are cut here, so that a few large ones do not outweigh the rest."""


class ModelFit:
    """Collects quantised planes and turns them into a model.

    Sums are kept, not samples: any number of tiles may be added.
    """

    def __init__(self) -> None:
        self.gram = np.zeros((SETS, 4, 7, 7))
        self.cross = np.zeros((SETS, 4, 7))
        self.samples = np.zeros((SETS, 4))
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
                self.samples[key] += m.size
        self.planes.append((q, table))

    def model(self) -> ContextModel:
        """Weights, then the counts of what they sort into bins."""
        weights = self._weights()
        counts, runs = np.zeros((4, BINS, SYMBOLS)), np.zeros((4, 2))
        signs = np.zeros((6 * SIGNS, 2))
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
                    np.add.at(counts[step], (b[coded], np.minimum(m[coded], ESCAPE)), 1)
                    filled = np.flatnonzero(m)
                    row, mirrored = sign_contexts(q, table, k, step, filled)
                    other = (pass_of(q, table, k, step)[filled] < 0) != mirrored
                    np.add.at(signs, (row[row >= 0], other[row >= 0].astype(np.int64)), 1)
        prior = default_counts()[0] / default_counts()[0].sum(axis=1, keepdims=True)
        pooled = counts.sum(axis=0) + 50 * prior
        mixed = counts + _POOLED * pooled / pooled.sum(axis=1, keepdims=True)
        return ContextModel(
            weights.astype(np.int16),
            _scaled(mixed, _STRENGTH),
            _scaled(runs + default_runs(), 100),
            _scaled(signs.reshape(3, 2, SIGNS, 2) + default_signs(), _STRENGTH),
        )

    def _weights(self) -> Array:
        """Weights of each set; what all sets of its orientation have in common counts as some samples more."""
        weights = default_weights()
        oriented = np.array([orientation_of(s) for s in range(SETS)])
        for s in range(SETS):
            alike = oriented == oriented[s]
            for step in range(4):
                n = self.samples[alike, step].sum()
                gram, cross = self.gram[alike, step].sum(axis=0), self.cross[alike, step].sum(axis=0)
                if gram[6, 6] > 0:
                    share = _POOLED / n
                    w = non_negative(self.gram[s, step] + share * gram, self.cross[s, step] + share * cross)
                    weights[s, step] = np.clip(np.rint(64 * w), 0, 255)
        return weights


def _scaled(counts: Array, total: int) -> Array:
    """Counts of this sum along the last axis, uint16, none of them zero."""
    scaled = np.rint(total * counts / counts.sum(axis=-1, keepdims=True))
    return np.asarray(np.maximum(1, scaled), np.uint16)


def non_negative(gram: Array, cross: Array, sweeps: int = _SWEEPS) -> Array:
    """Minimiser of ``w' G w / 2 - c' w`` over ``w >= 0``, by coordinate descent."""
    g = gram + 1e-9 * np.trace(gram) * np.eye(len(gram))
    w = np.zeros(len(g))
    for _ in range(sweeps):
        for i in range(len(g)):
            w[i] = max(0.0, w[i] + (cross[i] - g[i] @ w) / g[i, i])
    return w
