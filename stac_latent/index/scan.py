"""Exact search: every vector is looked at in float32, whatever may be among the nearest again in float64.

The products in float32 come with a bound of their rounding errors (Higham, Accuracy and Stability of Numerical Algorithms,
section 3.1: ``|fl(x.a) - x.a| <= k u |x| |a| / (1 - k u)``). A row whose closeness, at its best, does not reach the k-th best at
its worst cannot be among the k nearest; all others are computed again in float64 and sorted. So the answer is that of a
scan in float64, whichever arithmetic found the candidates. Vectors whose products or lengths float32 does not hold are always computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stac_latent.index.metric import F32, F64, TINY, UNIT, Form

__all__ = ["Chunk", "Vectors", "rank", "scan"]

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
_LOW, _HIGH = 2.0**-40, 2.0**40
QUERIES = 32
"""Queries that are looked for in one pass over the vectors."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table, multiplied with the queries."""

    rows: Rows
    """(n,) numbers of the rows."""
    dots: F32
    """(m, n) products with the folded queries of length 1, without their constant."""
    plain: F32
    """(n,) lengths of the vectors; NaN where a vector holds a NaN."""
    white: F32
    """(n,) lengths of the whitened vectors."""
    extra: F32
    """(m,) error of the products beyond that of float32 arithmetic, for vectors of length 1."""


class Vectors(Protocol):
    """Where vectors come from."""

    dimensions: int

    def chunks(self, a: F32, form: Form, keep: npt.NDArray[np.bool_] | None) -> Iterator[Chunk]:
        """All rows, or those to keep, times ``a`` (m, k); rows ascend."""

    def take(self, rows: Rows) -> F32:
        """Vectors (n, k) of rows that ascend."""


class _Pool:
    """Candidates for the k nearest of one query."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.least = -np.inf
        self._rows: list[Rows] = []
        self._low: list[Floats] = []
        self._high: list[Floats] = []
        self._count = 0

    def add(self, rows: Rows, low: Floats, high: Floats) -> None:
        """Rows with closeness between ``low`` and ``high``."""
        hit = np.flatnonzero(np.greater_equal(high, np.float64(self.least)))
        if not len(hit):
            return
        self._rows.append(rows[hit])
        self._low.append(low[hit])
        self._high.append(high[hit])
        self._count += len(hit)
        if self._count >= self.k:
            self._cut()

    def _cut(self) -> None:
        rows = np.concatenate(self._rows)
        low, high = np.concatenate(self._low), np.concatenate(self._high)
        self.least = float(np.partition(low, len(low) - self.k)[len(low) - self.k])
        hit = np.greater_equal(high, np.float64(self.least))
        self._rows, self._low, self._high = [rows[hit]], [low[hit]], [high[hit]]
        self._count = int(hit.sum())

    def rows(self) -> Rows:
        """Rows that may be among the nearest, ascending."""
        return np.concatenate(self._rows) if self._rows else np.empty(0, np.int64)


def scan(
    source: Vectors, q: F64, k: int, form: Form, keep: npt.NDArray[np.bool_] | None = None
) -> list[tuple[Rows, F64]]:
    """The k nearest rows of each query, exactly.

    Parameters
    ----------
    source
        The vectors.
    q
        (m, k) whitened queries, see :meth:`Form.queries`.
    k
        How many; fewer are returned where there are fewer.
    form
        The metric.
    keep
        (rows,) which rows take part; all by default.

    Returns
    -------
    list of (rows, distances)
        For each query, nearest first; rows at equal distance in the table's order. Rows that hold NaN or infinity, and zero vectors
        under the cosine, are at no distance from anything and never returned.
    """
    out: list[tuple[Rows, F64]] = []
    for start in range(0, len(q), QUERIES):
        part = q[start : start + QUERIES]
        pools = _pools(source, part, k, form, keep)
        out += [rank(source, pool.rows(), query, k, form) for pool, query in zip(pools, part, strict=True)]
    return out


def _pools(source: Vectors, q: F64, k: int, form: Form, keep: Any) -> list[_Pool]:
    a, size, c = form.folded(q)
    pools = [_Pool(k) for _ in q]
    growth = (source.dimensions + 4) * 2 * UNIT
    q_norm = np.linalg.norm(q, axis=1)
    with np.errstate(all="ignore"):
        for chunk in source.chunks(a, form, keep):
            known = ~(np.isnan(chunk.plain) | np.isnan(chunk.white))
            if form.metric == "cosine":
                known &= chunk.white > 0
            every = bool(known.all())
            rows = chunk.rows if every else chunk.rows[known]
            lengths = [v if every else v[known] for v in (chunk.plain, chunk.white)]
            single = _is_ordinary(*lengths, size, q_norm) and float(np.abs(c).max()) < _HIGH
            kind: Any = np.float32 if single else np.float64
            plain, white = (np.asarray(v, kind) for v in lengths)
            for i, pool in enumerate(pools):
                dots = (chunk.dots[i] if every else chunk.dots[i, known]) * kind(size[i])
                relative, least = kind(growth + chunk.extra[i]), kind(source.dimensions * TINY)
                error = (plain * relative + least) * kind(size[i]) + kind(growth * abs(c[i]))
                near, bound = form.closeness(dots + kind(c[i]), error, white, float(q_norm[i]))
                low, high = near - bound, near + bound
                if not single:
                    doubt = ~(np.isfinite(low) & np.isfinite(high)) | ((white > 0) & (white < TINY))
                    low[doubt], high[doubt] = -np.inf, np.inf
                pool.add(rows, low, high)
    return pools


def _is_ordinary(*lengths: npt.NDArray[Any]) -> bool:
    """Whether float32 holds squares and products of these lengths, and their rounding errors."""
    return all(not v.size or (v.min() > _LOW and v.max() < _HIGH) for v in lengths)


def rank(source: Vectors, rows: Rows, query: F64, k: int, form: Form) -> tuple[Rows, F64]:
    """The k nearest among a few rows (ascending), in float64."""
    if not len(rows):
        return rows, np.empty(0)
    x = source.take(rows)
    distance = form.distances(x, query)
    known = np.isfinite(distance)
    if form.metric == "cosine":
        known &= form.whiten(x).any(axis=1)
    rows, distance = rows[known], distance[known]
    order = np.argsort(distance, kind="stable")[:k]
    return rows[order], distance[order]
