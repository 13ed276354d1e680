"""Metrics as one affine form, so that any of them is one product of the stored vectors with a query.

With ``x' = (x - mean) / std`` (whitening; mean 0 and deviation 1 without) and the query ``q'`` likewise,

    x' . q' = x . a + c,   a = q' / std,   c = -mean . a

and what is ranked, larger being nearer, is ``x' . q'`` (dot), ``x' . q' / |x'|`` (cosine, for a q' of length 1) or
``2 x' . q' - |x'|^2 - |q'|^2`` (l2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from stac_latent.errors import SearchError
from stac_latent.spec import Stats

__all__ = ["F32", "F64", "METRICS", "TINY", "UNIT", "Form", "Metric"]

Metric = Literal["cosine", "l2", "dot"]
METRICS = get_args(Metric)
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]

UNIT = 2.0**-24
"""Unit roundoff of float32."""
TINY = 2.0**-126
"""Least number that float32 holds to that precision; what is smaller may be taken for zero."""


@dataclass(frozen=True)
class Form:
    """A metric, with or without whitening.

    Examples
    --------
    >>> form = Form.of("l2", 2)
    >>> form.distances(np.array([[3.0, 4.0]]), np.array([0.0, 0.0])).tolist()
    [5.0]
    """

    metric: Metric
    mean: F64
    std: F64
    whitened: bool = False

    @classmethod
    def of(cls, metric: str, dimensions: int, stats: Stats | None = None) -> Form:
        """Check and build.

        Raises
        ------
        SearchError
            If the metric is unknown, or the statistics are of other channels.
        """
        if metric not in METRICS:
            raise SearchError(f"metric={metric!r} is unknown; it is {', '.join(map(repr, METRICS))}")
        if stats is None:
            return cls(metric, np.zeros(dimensions), np.ones(dimensions))  # type: ignore[arg-type]
        if len(stats.mean) != dimensions:
            raise SearchError(
                f"the statistics to whiten with are of {len(stats.mean)} channels, the table's vectors have {dimensions}"
            )
        std = np.asarray(stats.std, np.float64)
        return cls(metric, np.asarray(stats.mean, np.float64), np.where(std > 0, std, 1.0), True)  # type: ignore[arg-type]

    def whiten(self, x: npt.NDArray[Any]) -> F64:
        """(n, k) to float64, whitened."""
        x = np.asarray(x, np.float64)
        return (x - self.mean) / self.std if self.whitened else x

    def queries(self, vectors: npt.NDArray[Any]) -> F64:
        """Whitened queries (m, k); for the cosine of length 1.

        Raises
        ------
        SearchError
            If the cosine is asked of a zero vector.
        """
        q = self.whiten(vectors)
        if self.metric != "cosine":
            return q
        length = np.linalg.norm(q, axis=1, keepdims=True)
        if (length == 0).any():
            raise SearchError(
                f"query {int(np.argmin(length))} is a zero vector, which has no direction: the cosine is not defined; use "
                "metric='l2'"
            )
        return np.asarray(q / length)

    def folded(self, q: F64) -> tuple[F32, F64, F64]:
        """``a`` (m, k) of whitened queries, brought to length 1, that length (m,), and ``c`` (m,)."""
        a = q / self.std
        size = np.linalg.norm(a, axis=1)
        unit = a / np.where(size > 0, size, 1)[:, None]
        return unit.astype(np.float32), np.asarray(size), np.asarray(-(a @ self.mean))

    def norms(self, block: F32) -> tuple[F32, F32]:
        """Lengths (n,) of stored vectors, as they are and whitened; NaN where a vector is not finite.

        They are summed in float64, where no square of a float32 is too large or too small. A length beyond float32 is infinite.
        """
        plain = _lengths(block)
        return plain, _lengths(self.whiten(block)) if self.whitened else plain

    def closeness(self, dots: Floats, error: Floats, white: Floats, q_norm: float) -> tuple[Floats, Floats]:
        """In the precision of the arguments: what is ranked, and how far it may be off, from products (n,) with an error bound (n,) and lengths (n,)."""
        if self.metric == "dot":
            return dots, error
        if self.metric == "cosine":
            inverse = 1 / np.where(white > 0, white, white.dtype.type(1))
            return np.asarray(dots * inverse), np.asarray(error * inverse + 32 * UNIT)
        square, own = white * white, q_norm**2
        bound = 2 * error + len(self.mean) * 4 * UNIT * (square + own)
        return np.asarray(2 * dots - square - own), np.asarray(bound)

    def distances(self, x: npt.NDArray[Any], q: F64) -> F64:
        """Distances (n,) in float64 of stored vectors (n, k) from one whitened query (k,).

        ``1 - cosine``, the Euclidean distance, or the negative product, so that small is near in every metric.
        """
        w = self.whiten(x)
        if self.metric == "l2":
            return np.asarray(np.linalg.norm(w - q, axis=1))
        dots = np.einsum("ij,j->i", w, q)  # one sum for a row, however many rows
        if self.metric == "dot":
            return np.asarray(-dots)
        length = np.linalg.norm(w, axis=1)
        return np.asarray(
            np.maximum(1 - dots / np.where(length > 0, length, 1), 0.0)
        )  # the rounding of equal vectors


def _lengths(x: npt.NDArray[Any]) -> F32:
    found = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    with np.errstate(over="ignore"):
        return np.where(np.isinf(found), np.nan, found).astype(np.float32)
