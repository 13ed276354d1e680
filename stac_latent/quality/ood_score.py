"""How far a tile is from those that a codec was calibrated on: rate, latent and error, as one calibrated score.

Each measure of a tile is divided by the quantile that the tiles of the first half of the places stay below; the largest
of the three, divided by its split-conformal quantile over the tiles of the other half, is the score. Of tiles like those, the
stated share scores at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError, CodecError

__all__ = ["LEAST_TILES", "Guard", "Score", "Seen", "conformal_level", "features", "fit_guard", "scene_score"]


LEAST_TILES = 8
"""Tiles of each half, at least."""
_CHANNELS = 12
"""Channels that are looked at one by one, those of largest deviation; the others in a few groups."""
_GROUPS = 4
_FLOOR = 1e-3
_FOLDS = 4
_SCENES = 0.95
"""Share of scenes that pass, if their tiles pass or fail independently."""
_LEAST_LIMIT = 0.5
"""Deviations, at least, by which a rate, a distance or an error is divided."""
_MARGIN = 0.5
"""Octaves of the step beyond the calibrated ones in which rate and error are still judged."""
_MOST = 4096
"""Numbers along a table of a calibration, at most."""


@dataclass(frozen=True)
class Seen:
    """What coding one tile showed.

    Parameters
    ----------
    features
        Of its latents; see :func:`features`.
    pixels
        Valid pixels, each on its own grid, divided by the number of bands.
    rate
        log2 of the bits per valid pixel and band; None where the bytes are of another form than those calibrated.
    error
        log2 of the root mean square error in units of each band's deviation; None where it is not that of the chain.
    step
        log2 of the quantiser step; 0 of a chain of one rate.
    """

    features: Array
    pixels: float
    rate: float | None = None
    error: float | None = None
    step: float = 0.0


@dataclass(frozen=True)
class Score:
    """Score of a tile, and its three measures in the same unit: 1 is the edge. NaN where it cannot be judged."""

    score: float
    rate: float
    latent: float
    error: float

    @property
    def flagged(self) -> bool:
        """Whether the tile is unlike those of the calibration."""
        return self.score > 1


@dataclass(frozen=True)
class Guard:
    """A calibration: everything that scores a tile of one lattice of a codec.

    Parameters
    ----------
    share
        Share of tiles of the calibration's kind that score at most 1.
    tiles
        Of both halves.
    least
        Pixels of a tile, at least: smaller ones are not judged.
    units
        Deviation of each band, stored unit.
    steps
        log2 of the steps calibrated, ascending.
    rate, error
        Mean and deviation at each step.
    centre, whitening
        Of the features: ``|whitening @ (f - centre)| / sqrt(len(f))`` is the Mahalanobis distance.
    limits
        What rate, latent and error are divided by.
    """

    share: float
    tiles: tuple[int, int]
    least: float
    units: Array
    steps: Array
    rate: Array
    error: Array
    centre: Array
    whitening: Array
    limits: tuple[float, float, float]

    def score(self, seen: Seen) -> Score:
        """Score of a tile; rate and error count where they are larger than expected at its step."""
        if seen.pixels < self.least:
            return Score(math.nan, math.nan, math.nan, math.nan)
        known = self.steps[0] - _MARGIN <= seen.step <= self.steps[-1] + _MARGIN
        values = (
            self._excess(self.rate, seen.rate if known else None, seen.step),
            self._distance(seen),
            self._excess(self.error, seen.error if known else None, seen.step),
        )
        parts = [v / limit for v, limit in zip(values, self.limits, strict=True)]
        return Score(max(p for p in parts if not math.isnan(p)), *parts)

    def _excess(self, table: Array, value: float | None, step: float) -> float:
        """Deviations above what is expected at a step, from 0 on; NaN without a value."""
        if value is None:
            return math.nan
        mean, std = (float(np.interp(step, self.steps, row)) for row in table)
        return max(0.0, (value - mean) / std)

    def _distance(self, seen: Seen) -> float:
        if seen.features.shape != self.centre.shape:
            raise BundleError(
                f"the bundle's guard compares {self.centre.size} features; a tile has {seen.features.size}: calibrate it again"
            )
        d = float(np.linalg.norm(self.whitening @ (seen.features - self.centre)))
        return d / math.sqrt(self.centre.size)

    def to_dict(self) -> dict[str, Any]:
        """JSON with five digits."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = np.asarray(getattr(self, f.name))
            out[f.name] = value.tolist() if value.dtype.kind in "iu" else _rounded(value)
        return out

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], bands: int) -> Self:
        """Read :meth:`to_dict`.

        Raises
        ------
        BundleError
            If a field is missing, holds no numbers, or has another shape.
        """
        try:
            values = {f.name: np.asarray(given[f.name], np.float64) for f in fields(cls)}
        except (KeyError, TypeError, ValueError) as exc:
            raise BundleError(
                f"the bundle's guard is not readable: {type(exc).__name__}: {exc}; calibrate it again"
            ) from exc
        n, s = values["centre"].size, values["steps"].size
        shapes = {
            "share": (), "least": (), "tiles": (2,), "limits": (3,), "units": (bands,), "steps": (s,),
            "rate": (2, s), "error": (2, s), "centre": (n,), "whitening": (n, n),
        }  # fmt: skip
        wrong = [k for k, v in values.items() if v.shape != shapes[k] or not np.isfinite(v).all()]
        positive = [values["units"], values["rate"][1:], values["error"][1:], values["limits"]]
        if wrong or not 0 < max(n, s) <= _MOST or min(float(v.min(initial=1)) for v in positive) <= 0:
            raise BundleError(
                f"the bundle's guard does not hold together ({', '.join(wrong) or 'sizes, or deviations that are not positive'}); "
                "calibrate it again"
            )
        tiles = values.pop("tiles").astype(int).tolist()
        limits = values.pop("limits").tolist()
        share, least = float(values.pop("share")), float(values.pop("least"))
        return cls(share=share, tiles=(tiles[0], tiles[1]), least=least, limits=tuple(limits), **values)


def features(mean: Array, square: Array) -> Array:
    """What is compared of a tile's latents, whose channels are standardised.

    Parameters
    ----------
    mean, square
        Mean of each channel, and of its square, over cells with data; float64 ``(channel,)``, channels by descending deviation.

    Returns
    -------
    ndarray
        Of each of the first channels mean and log2 of the variance; of groups of the others log2 of the mean variance.

    Examples
    --------
    >>> features(np.zeros(16), np.ones(16)).shape
    (28,)
    """
    variance = np.maximum(square - mean**2, 0)
    groups = [g for g in np.array_split(variance[_CHANNELS:], _GROUPS) if g.size]
    logs = np.log2(np.concatenate([variance[:_CHANNELS], [g.mean() for g in groups]]) + _FLOOR)
    return np.concatenate([mean[:_CHANNELS], logs])


def conformal_level(count: int, share: float) -> tuple[int, float]:
    """Rank of the split-conformal quantile of so many scores, and the share that it guarantees.

    The ``ceil((n + 1) share)``-th smallest score is passed by the share of exchangeable tiles (Vovk et al. 2005; Lei et al.
    2018, algorithm 2). With fewer tiles than that takes, the largest one guarantees ``n / (n + 1)``.

    Examples
    --------
    >>> conformal_level(199, 0.99), conformal_level(19, 0.99)
    ((198, 0.99), (19, 0.95))
    """
    rank = math.ceil(round((count + 1) * share, 9))
    return (rank, share) if rank <= count else (count, round(count / (count + 1), 4))


def fit_guard(
    first: Sequence[Sequence[Seen]],
    second: Sequence[Sequence[Seen]],
    units: Array,
    share: float = 0.99,
) -> Guard:
    """Calibrate on two halves of in-distribution tiles that share no place.

    Parameters
    ----------
    first, second
        Of each tile what coding it showed at each step, finest or coarsest first, the same steps for all.
    units
        Deviation of each band, stored unit.
    share
        Of tiles that shall score at most 1; lower where there are too few tiles.

    Raises
    ------
    CodecError
        If a half has fewer than :data:`LEAST_TILES` tiles, or the share is none.
    """
    if not 0.5 <= share < 1:
        raise CodecError(f"share={share:g} of tiles that pass: expected 0.5 to less than 1, such as 0.99")
    if min(len(first), len(second)) < LEAST_TILES:
        raise CodecError(
            f"{len(first)} and {len(second)} tiles are too few to calibrate a guard; each half needs at least {LEAST_TILES}: give "
            "more items, or leave the guard out"
        )
    at = sorted(range(len(first[0])), key=lambda i: first[0][i].step)
    steps = np.array([first[0][i].step for i in at])
    rate = _expected([[tile[i].rate for tile in first] for i in at])
    error = _expected([[tile[i].error for tile in first] for i in at])
    f = np.stack([seen.features for tile in first for seen in tile])
    least = 0.5 * min(seen.pixels for tile in (*first, *second) for seen in tile)
    own = tuple(map(len, (first, second)))
    raw = Guard(
        share, (own[0], own[1]), least, units, steps, rate, error, f.mean(axis=0), _whitening(f), (1.0, 1.0, 1.0)
    )  # fmt: skip
    judged = [raw.score(seen) for tile in first for seen in tile]
    apart = _apart(f, len(at))
    limits = [_quantile(v, share) for v in ([s.rate for s in judged], apart, [s.error for s in judged])]
    raw = _with_limits(raw, limits, share)
    rank, reached = conformal_level(len(second), share)
    edge = max(sorted(raw.score(tile[i]).score for tile in second)[rank - 1] for i in range(len(at)))
    return _with_limits(raw, [v * edge for v in limits], reached)


def scene_score(scores: Array, share: float) -> float:
    """Score of a scene from those of its tiles: at most 1 where chance explains the tiles beyond 1.

    With ``n`` tiles judged, of which ``1 - share`` may pass 1 by chance, it is the largest score but for the first ``k``,
    where ``k`` is the 95 % quantile of the binomial distribution: none of up to five tiles at a share of 0.99, one of up to 35.

    Parameters
    ----------
    scores
        Of tiles; NaN where not judged.
    share
        Of the guard.

    Returns
    -------
    float
        NaN where no tile was judged.

    Examples
    --------
    >>> scene_score(np.array([0.4, 1.7, np.nan]), 0.99)
    1.7
    >>> scene_score(np.array([0.5] * 1999 + [3.0]), 0.99)
    0.5
    """
    known = np.sort(scores[np.isfinite(scores) | np.isposinf(scores)])[::-1]
    n = known.size
    if not n:
        return math.nan
    chance, term, k = 0.0, n * math.log(share), 0
    while True:
        chance += math.exp(term)
        if chance >= _SCENES or k == n - 1:
            return float(known[k])
        k += 1
        term += math.log((n - k + 1) / k) + math.log((1 - share) / share)


def _expected(values: Sequence[Sequence[float | None]]) -> Array:
    """Mean and deviation at each step, ``(2, step)``; 0 and 1 where there is no value."""
    rows = [np.array([v for v in row if v is not None]) for row in values]
    return np.array(
        [[r.mean() if r.size else 0.0 for r in rows], [max(r.std(), 0.05) if r.size else 1.0 for r in rows]]
    )


def _apart(f: Array, steps: int) -> list[float]:
    """Distance of each row of features to the others, a quarter of the tiles left out at a time."""
    out: list[float] = []
    part = np.arange(len(f)) // steps % _FOLDS
    for k in range(_FOLDS):
        rest = f[part != k]
        z = (f[part == k] - rest.mean(axis=0)) @ _whitening(rest).T
        out += (np.linalg.norm(z, axis=1) / math.sqrt(f.shape[1])).tolist()
    return out


def _quantile(values: Sequence[float], share: float) -> float:
    known = np.array([v for v in values if not math.isnan(v)])
    return max(float(np.quantile(known, share)) if known.size else 0.0, _LEAST_LIMIT)


def _with_limits(guard: Guard, limits: Sequence[float], share: float) -> Guard:
    return replace(guard, limits=(limits[0], limits[1], limits[2]), share=share)


def _whitening(f: Array) -> Array:
    """Square root of the inverse covariance, shrunk towards its diagonal's mean (Ledoit and Wolf 2004, section 3)."""
    x = f - f.mean(axis=0)
    n, p = x.shape
    cov = x.T @ x / n
    mu = np.trace(cov) / p
    spread = float(np.square(cov - mu * np.eye(p)).sum())
    noise = sum(float(np.square(np.outer(row, row) - cov).sum()) for row in x) / n**2
    weight = min(1.0, noise / spread) if spread else 1.0
    shrunk = weight * mu * np.eye(p) + (1 - weight) * cov + 1e-6 * max(mu, 1e-6) * np.eye(p)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(shrunk)).T)


def _rounded(value: Array) -> Any:
    digits = [float(f"{v:.5g}") for v in value.ravel().tolist()]
    return np.array(digits).reshape(value.shape).tolist()
