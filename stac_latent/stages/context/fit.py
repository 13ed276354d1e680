"""Fit of the context model: weights by reweighted non-negative least squares, tables by counting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context._numpy import features, pass_of, sign_contexts
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.context.model import (
    BINS,
    COUNT,
    ESCAPE,
    MOST_WEIGHT,
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

_STRENGTH = 500 * COUNT
_SIGN_STRENGTH = 800 * COUNT
_RUN_STRENGTH = 100 * COUNT
_SWEEPS = 100
_ROUNDS = 5
_POOLED = 1000
"""Samples that what sets or passes have in common is worth."""
_THIN = 256
"""Samples that are kept of each pass of a plane."""
_SATURATED = 1000
"""Magnitudes are cut here, and sums of them."""
_LEAST = 0.01
"""Expected magnitude that is the least where deviations are weighed."""


class ModelFit:
    """Collects quantised planes and turns them into a model."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], list[tuple[Array, Array, float]]] = {}
        self.planes: list[tuple[Array, Array]] = []

    def add(self, q: Array, table: Array) -> None:
        """Add the planes of a tile: quantised samples int32 in the layout of ``table``."""
        for k in range(len(table)):
            for step in range(4):
                f, m = features(q, table, k, step)
                some = np.flatnonzero(f.any(axis=1))
                thin = some[:: 1 + some.size // _THIN]
                if thin.size:
                    few = np.minimum(f[thin], _SATURATED).astype(np.int16)
                    sizes = np.minimum(m[thin], _SATURATED).astype(np.int16)
                    key = int(table[k, 7]), step
                    self.kept.setdefault(key, []).append((few, sizes, some.size / thin.size))
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
                    e = f @ weights[table[k, 7], step] >> 2
                    b = lut[np.minimum(e, lut.size - 1)].astype(np.int64)
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
            _scaled(runs + default_runs() / COUNT, _RUN_STRENGTH),
            _scaled(signs.reshape(3, 2, SIGNS, 2) + default_signs() / COUNT, _SIGN_STRENGTH),
        )

    def _weights(self) -> Array:
        """Weights of each set; what all sets of its orientation have in common counts as some samples more."""
        weights = default_weights()
        for step in range(4):
            for orientation in (-1, 0, 1, 2):
                alike = [
                    s for s in range(SETS) if orientation_of(s) == orientation and (s, step) in self.kept
                ]
                if not alike:
                    continue
                own = [self._samples([s], step) for s in alike]
                every = self._samples(alike, step)
                start, gram, cross = _likely(*every, weights[alike[0], step] / 256)
                share = _POOLED / every[2].sum()
                for s, samples in zip(alike, own, strict=True):
                    w, _, _ = _likely(*samples, start, share * gram, share * cross)
                    weights[s, step] = np.clip(np.rint(256 * w), 0, MOST_WEIGHT)
        return weights

    def _samples(self, sets: Sequence[int], step: int) -> tuple[Array, Array, Array]:
        """What is weighed, magnitudes, and how many samples each stands for."""
        parts = [part for s in sets for part in self.kept[s, step]]
        f = np.concatenate([f for f, _, _ in parts]).astype(np.float64)
        m = np.concatenate([m for _, m, _ in parts]).astype(np.float64)
        return f, m, np.repeat([n for _, _, n in parts], [len(m) for _, m, _ in parts])


def _likely(
    f: Array, m: Array, n: Array, start: Array, gram: Array | float = 0.0, cross: Array | float = 0.0
) -> tuple[Array, Array, Array]:
    """Weights under which magnitudes are likely, taken as geometric about ``f @ weights``; and the last normal equations.

    Squared deviations count by their variance, ``mean * (1 + mean)``, at the weights of the round before.
    """
    w, own, right = start, np.zeros((f.shape[1],) * 2), np.zeros(f.shape[1])
    for _ in range(_ROUNDS):
        mean = np.maximum(f @ w, _LEAST)
        scaled = f * (n / (mean * (1 + mean)))[:, None]
        own, right = scaled.T @ f, scaled.T @ m
        w = 0.3 * w + 0.7 * non_negative(own + gram, right + cross)
    return w, own, right


def _scaled(counts: Array, total: int) -> Array:
    """Counts of this sum along the last axis, uint16, none of them zero."""
    scaled = np.rint(total * counts / counts.sum(axis=-1, keepdims=True))
    return np.asarray(np.maximum(1, scaled), np.uint16)


def non_negative(gram: Array, cross: Array, sweeps: int = _SWEEPS) -> Array:
    """Minimiser of ``w' G w / 2 - c' w`` over ``w >= 0``, by coordinate descent."""
    g = gram + 1e-9 * np.trace(gram) * np.eye(len(gram))
    w = np.zeros(len(g))
    for _ in range(sweeps):
        last = w.copy()
        for i in range(len(g)):
            w[i] = max(0.0, w[i] + (cross[i] - g[i] @ w) / g[i, i])
        if (w == last).all():
            break
    return w
