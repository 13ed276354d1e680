"""How many of their true neighbours vectors still find as they are stored: measured on a sample while a table is published."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.errors import CatalogError, RecallWarning

__all__ = ["WARNED", "RecallSample"]

Floats = npt.NDArray[np.float32]

ROWS = 2000
"""Rows of the sample, at most; fewer where they would take more than ``BYTES``."""
BYTES = 64 << 20
QUERIES = 200
"""Of these so many are looked for among all."""
NEAREST = 10
REFUSED = 0.5
"""Below this share of the ten nearest, a table is refused."""
WARNED = 0.9
"""Below this share there is a warning."""
_SLACK = 1e-6
"""What is farther by less than this (in 1 - cosine, relative to the distance) is as near."""


class RecallSample:
    """A random sample of the vectors of a table, in the precision that they came in.

    Parameters
    ----------
    dimensions
        Of a vector.
    """

    def __init__(self, dimensions: int) -> None:
        self._size = max(2 * NEAREST, min(ROWS, BYTES // (4 * dimensions)))
        self._rng = np.random.default_rng(0)
        self._rank = np.empty(0)
        self._rows = np.empty((0, dimensions), np.float32)

    def add(self, values: Floats) -> None:
        """Offer vectors (n, dimensions): each of all that are offered is in the sample with equal chance."""
        rank = self._rng.random(len(values))
        if len(self._rank) == self._size:
            low = rank < self._rank.max()
            rank, values = rank[low], values[low]
        rank = np.concatenate([self._rank, rank])
        kept = np.sort(np.argsort(rank, kind="stable")[: self._size])
        self._rows = np.concatenate([self._rows, values])[kept]
        self._rank = rank[kept]

    @property
    def rows(self) -> Floats:
        """The sample (n, dimensions), of vectors that have a direction."""
        fine = np.isfinite(self._rows).all(axis=1) & self._rows.any(axis=1)
        return self._rows[fine]

    def recall(self, read: Floats, *, asked: bool = False) -> float:
        """Share of the ten nearest by cosine that are found among the sample's vectors as they are read (n, dimensions).

        What is looked for is a vector as it came, or with ``asked`` as it is read.
        """
        rows = self.rows
        k = min(NEAREST, len(rows) // 2)
        if not k:
            return 1.0
        truth, found = _unit(rows), _unit(read)
        some = self._rng.choice(len(rows), min(QUERIES, len(rows)), replace=False)
        true = _distances(truth, truth[some], some)
        near = np.argsort(_distances(found, (found if asked else truth)[some], some), axis=1, kind="stable")[
            :, :k
        ]
        limit = np.partition(true, k - 1, axis=1)[:, k - 1, None]
        hit = np.take_along_axis(true, near, axis=1) <= limit + _SLACK * np.maximum(limit, _SLACK)
        return float(np.mean(hit))

    def judged(self, read: Floats, dtype: str, standardised: bool) -> dict[str, Any]:
        """What the table says of its vectors as they are read: ``recall_at_10``, and of how many rows.

        Raises
        ------
        CatalogError
            If less than half of the neighbours are found; less than nine tenths are a :class:`~stac_latent.errors.RecallWarning`.
        """
        share, count = self.recall(read), len(self.rows)
        text = (
            f"as {dtype}, the vectors find {share:.0%} of their ten nearest (cosine, measured on {count} of them): they differ by less than "
            f"it holds; publish with dtype='float32'{'' if standardised else ', or standardise the vectors'}"
        )
        if share < REFUSED:
            raise CatalogError(text)
        if share < WARNED:
            warnings.warn(text, RecallWarning, stacklevel=4)
        return {"recall_at_10": round(share, 4), "recall_rows": count}


def _unit(x: Floats) -> npt.NDArray[np.float64]:
    """Vectors of length 1; NaN where one has none."""
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def _distances(
    x: npt.NDArray[np.float64], queries: npt.NDArray[np.float64], own: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """1 - cosine (m, n) of all but the query's own row; infinite where there is none."""
    with np.errstate(invalid="ignore"):
        out = 1 - queries @ x.T
    out[np.isnan(out)] = np.inf
    out[np.arange(len(own)), own] = np.inf
    return out
