"""What is known of a pixel before its residual: a prediction of its value, and how large the residual will be.

Both are weighted sums over what was decoded before: neighbours in the band, the decoded base, other bands. The encoder fits
the weights by least squares, for each band, kind of pass and resolution, and sends them. Sums run one addition at a time, in
float64 for values and in integers for magnitudes, so that any machine has the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context.fit import non_negative
from stac_latent.stages.residual.entropy import CAP
from stac_latent.stages.residual.scan_order import Pass, passes

__all__ = [
    "KINDS",
    "BandModel",
    "Planes",
    "columns",
    "count_contexts",
    "count_features",
    "fit_contexts",
    "fit_weights",
    "group_of",
]

KINDS = 3
WEIGHT = 256.0
"""Weights of values are in 256ths."""
_PRIORS = 8
"""Bands before this one that a prediction looks at."""
_NEAR = 3
"""Bands before this one whose residuals tell the size of this one's."""
_ROUNDS = 2
_FAR = (2, 1, 2)


def group_of(p: Pass, groups: int) -> int:
    """Number of the set of weights of a pass: by resolution, then by kind."""
    return min(p.level, groups - 1) * KINDS + p.kind


def count_features(band: int, kind: int) -> int:
    """Weights of a prediction."""
    return 5 + _FAR[kind] + (min(band, _PRIORS) + 3 if band else 0)


def count_contexts(band: int, kind: int) -> int:
    """Weights of an expected magnitude."""
    return 3 + _FAR[kind] + (min(band, _NEAR) + 1 if band else 0)


def _mean(v: Array, where: Array) -> Array:
    a, b, c, d = v[where[0]], v[where[1]], v[where[2]], v[where[3]]
    return np.asarray(((a + b) + (c + d)) * 0.25)


class Planes:
    """Bands of a tile that are known: values, magnitudes of residuals, and what later bands ask of them.

    Parameters
    ----------
    shape
        Height and width.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.passes = passes(*shape)
        self.values: list[Array] = []
        self.details: list[Array] = []
        self.magnitudes: list[Array] = []
        self.around: Array | None = None

    def detail(self, v: Array) -> Array:
        """Each pixel less the mean of its neighbours of the pass that visits it."""
        out = np.zeros(v.size)
        for p in self.passes[1:]:
            out[p.at] = v[p.at] - _mean(v, p.near)
        return out

    def add(self, values: Array, magnitudes: Array) -> None:
        """A band that is now known, float64 and int64 ``(pixels,)``."""
        self.values.append(values)
        self.details.append(self.detail(values))
        self.magnitudes.append(magnitudes)
        around = np.zeros(magnitudes.size, np.int64)
        for p in self.passes[1:]:
            around[p.at] = magnitudes[p.near].sum(axis=0)
        self.around = around


class BandModel:
    """Features of one band's pixels.

    Parameters
    ----------
    planes
        The bands before it.
    base
        The band as the base decodes it, float64 ``(pixels,)``, finite.
    """

    def __init__(self, planes: Planes, base: Array) -> None:
        self.planes, self.base = planes, base
        self.detail = planes.detail(base)

    def features(self, own: Array, p: Pass, some: Array) -> tuple[Array, list[Array]]:
        """Mean of the neighbours, and what the weights of the prediction weigh.

        Parameters
        ----------
        own
            Values of the band known so far, float64 ``(pixels,)``.
        p
            The pass; not the first.
        some
            Which of its pixels are asked for.
        """
        at, near = p.at[some], p.near[:, some]
        q = [own[n] for n in near]
        m = ((q[0] + q[1]) + (q[2] + q[3])) * 0.25
        out = [q[0] - m, q[1] - m, q[2] - m]
        out += [_mean(own, far[:, some]) - m for far in p.far]
        out += [self.detail[at], (self.base[at] - self.detail[at]) - m]
        planes = self.planes
        for c in range(len(planes.values) - 1, max(-1, len(planes.values) - 1 - _PRIORS), -1):
            out.append(planes.details[c][at])
        if planes.values:
            last = planes.values[-1]
            mean = last[at] - planes.details[-1][at]
            out += [last[n] - mean for n in near[:3]]
        return m, out

    def predict(self, own: Array, p: Pass, some: Array, weights: Array) -> Array:
        """Prediction of some pixels of a pass, float64; that of the base where sums overflow."""
        base = self.base[p.at[some]]
        if p.kind < 0:
            return base
        with np.errstate(over="ignore", invalid="ignore"):
            out, features = self.features(own, p, some)
            for w, f in zip((weights / WEIGHT).tolist(), features, strict=True):
                if w:
                    out = out + w * f
        return np.where(np.isfinite(out), out, base)

    def contexts(self, magnitudes: Array, spread: Array, p: Pass, some: Array) -> list[Array]:
        """What the weights of the expected magnitude weigh, int64, in quarters.

        Parameters
        ----------
        magnitudes
            Of the band's residuals known so far, int64 ``(pixels,)``.
        spread
            Of the neighbours of each pixel asked for, in steps, int64; see :meth:`spread`.
        p, some
            The pass, and which of its pixels.
        """
        at = p.at[some]
        out = [magnitudes[p.near[:, some]].sum(axis=0), spread]
        out += [magnitudes[far[:, some]].sum(axis=0) for far in p.far]
        known = self.planes.magnitudes
        out += [4 * known[c][at] for c in range(len(known) - 1, max(-1, len(known) - 1 - _NEAR), -1)]
        if self.planes.around is not None:
            out.append(self.planes.around[at])
        out.append(np.full(at.size, 4, np.int64))
        return out

    @staticmethod
    def spread(own: Array, p: Pass, some: Array, step: float) -> Array:
        """How far the neighbours of pixels differ, in steps, int64."""
        q = own[p.near[:, some]]
        with np.errstate(over="ignore"):
            far = np.abs(q[0] - q[1]) + np.abs(q[2] - q[3])
            return np.asarray(np.minimum(np.rint(far / step), CAP).astype(np.int64))

    def expect(self, magnitudes: Array, spread: Array, p: Pass, some: Array, weights: Array) -> Array:
        """Expected magnitudes of some pixels of a pass, int64, in 256ths."""
        out = np.zeros(some.size, np.int64)
        for w, f in zip(weights.tolist(), self.contexts(magnitudes, spread, p, some), strict=True):
            if w:
                out += w * f
        return out


def fit_weights(features: Array, target: Array, step: float) -> Array:
    """Weights of least cost: least squares, reweighted towards least magnitudes, or a copy of one neighbour.

    Parameters
    ----------
    features
        float64 ``(feature, n)``.
    target
        What to add to the mean of the neighbours, float64 ``(n,)``.
    step
        Unit of a residual.

    Returns
    -------
    ndarray
        int16, in 256ths.
    """
    n = len(features)
    copies = np.zeros((5, n), np.int16)
    copies[[1, 2, 3], [0, 1, 2]] = int(WEIGHT)
    copies[4, :3] = -int(WEIGHT)
    candidates = [*copies]
    with np.errstate(all="ignore"):
        top = float(max(np.abs(features).max(initial=0), np.abs(target).max(initial=0)))
        if target.size > n and 0 < top < 1e150:
            f, y, unit = features / top, target / top, step / top
            w = _solve(f, y)
            for _ in range(_ROUNDS):
                e = np.abs(y - w @ f)
                g = 1 / (e + 0.5 * float(np.median(e)) + 0.5 * unit + 1e-12)
                w = _solve(f * g, y, f)
            candidates.append(np.clip(np.rint(np.nan_to_num(w) * WEIGHT), -32768, 32767).astype(np.int16))
        costs = [
            np.log2(1 + 2 * np.abs(target - (c / WEIGHT) @ features) / step).sum(dtype=np.float64)
            for c in candidates
        ]
    return np.asarray(candidates[int(np.argmin(np.nan_to_num(costs, nan=np.inf, posinf=np.inf)))])


def _solve(f: Array, y: Array, other: Array | None = None) -> Array:
    gram, cross = f @ (f if other is None else other).T, f @ y
    gram = gram + (1e-9 * float(np.trace(gram)) / len(gram) + 1e-30) * np.eye(len(gram))
    return np.asarray(np.linalg.lstsq(gram, cross, rcond=None)[0])


def fit_contexts(features: Array, magnitudes: Array) -> Array:
    """Weights of expected magnitudes, uint8, in 64ths: non-negative least squares, large magnitudes weigh less.

    Parameters
    ----------
    features
        int64 ``(feature, n)``, in quarters.
    magnitudes
        int64 ``(n,)``.
    """
    f, y = features / 4.0, np.minimum(magnitudes, CAP).astype(np.float64)
    g = f / (0.5 + f.mean(axis=0))
    w = non_negative(g @ f.T, g @ y, 40)
    return np.asarray(np.minimum(255, np.rint(64 * w)).astype(np.uint8))


def columns(parts: Sequence[Sequence[Array]]) -> Array:
    """Features of several passes side by side, ``(feature, n)``."""
    return np.concatenate([np.stack(list(p)) for p in parts], axis=1)
