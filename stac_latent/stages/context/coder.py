"""Adaptive context coder of integer planes: weights and tables of the model, and both forms of the coder behind one door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError, CorruptDataError
from stac_latent.stages.base import take
from stac_latent.stages.context import _numba_encode, _numpy
from stac_latent.stages.context.layout import scratch
from stac_latent.stages.context.model import (
    BINS,
    MOST_WEIGHT,
    SETS,
    SIGNS,
    SYMBOLS,
    bin_table,
    bits_table,
    default_counts,
    default_runs,
    default_signs,
    default_weights,
)
from stac_latent.stages.transform.kernels import COMPILED, warn_if_slow

__all__ = ["Coded", "ContextModel"]

_SHAPES = ((SETS, 4, 8), (4, BINS, SYMBOLS), (4, 2), (3, 2, SIGNS, 2))
_coder = _numba_encode if COMPILED else _numpy


@dataclass(frozen=True)
class Coded:
    """Planes as they are stored, and what they hold; of an encoder, valid until its thread encodes again."""

    q: Array
    """int32 buffer of quantised samples; empty when read."""
    words: Array
    states: Array
    raw: Array
    raw_bits: int


@cache
def _tables() -> tuple[Array, Array]:
    return bin_table(), bits_table()


@dataclass(frozen=True)
class ContextModel:
    """Weights and initial counts of the contexts.

    Parameters
    ----------
    weights
        int16 ``(SETS, 4, 8)``; see :mod:`stac_latent.stages.context.model`.
    counts
        uint16 ``(4, BINS, SYMBOLS)``, none of them zero.
    runs
        uint16 ``(4, 2)``.
    signs
        uint16 ``(3, 2, SIGNS, 2)``.
    """

    weights: Array
    counts: Array
    runs: Array
    signs: Array

    def __post_init__(self) -> None:
        shapes = tuple(v.shape for v in self.tensors().values())
        if shapes != _SHAPES:
            raise BundleError(f"planes: weights, counts, runs and signs must be {_SHAPES}; got {shapes}")
        least = min(self.counts.min(), self.runs.min(), self.signs.min())
        if least < 1 or self.weights.min() < 0 or self.weights.max() > MOST_WEIGHT:
            raise BundleError(f"planes: counts must be positive and weights 0 to {MOST_WEIGHT}")

    @classmethod
    def default(cls) -> ContextModel:
        """The model of unfitted chains."""
        return cls(
            default_weights().astype(np.int16),
            default_counts().astype(np.uint16),
            default_runs().astype(np.uint16),
            default_signs().astype(np.uint16),
        )

    @classmethod
    def build(cls, tensors: Mapping[str, Array]) -> ContextModel:
        """Rebuild from :meth:`tensors`."""
        return cls(
            take(tensors, "weights", "lin", 3),
            take(tensors, "counts", "lin", 3),
            take(tensors, "runs", "lin", 2),
            take(tensors, "signs", "lin", 4),
        )

    def tensors(self) -> dict[str, Array]:
        """Arrays of the model."""
        return {"weights": self.weights, "counts": self.counts, "runs": self.runs, "signs": self.signs}

    def _adaptive(self) -> tuple[Array, Array, Array]:
        """Counts as they are before the first plane, int64."""
        signs = self.signs.reshape(-1, 2).astype(np.int64)
        return self.counts.astype(np.int64), self.runs.astype(np.int64), signs

    def encode(self, u: Array, weight: Array, table: Array, lam: float) -> Coded:
        """Quantise and code planes.

        Parameters
        ----------
        u
            float32, samples in steps, in the layout of ``table``.
        weight
            float32, weight of each squared error, or of size 1.
        table
            See :meth:`stac_latent.stages.lin.subbands.Layout.program`.
        lam
            Squared steps that a bit is worth.
        """
        lut, bits = _tables()
        samples = int((table[:, 1] * table[:, 2]).sum()) if table.size else 0
        most = 2 * samples + samples // 8 + 4 * len(table) + 16
        freq, cum = scratch("freq", most, np.uint16), scratch("cum", most, np.uint16)
        raw, tally = scratch("raw", 7 * samples + 16, np.uint8), np.zeros(2, np.int64)
        q = scratch("chosen", u.size, np.int32)
        q[:] = 0
        adaptive = self._adaptive()
        m, r = (scratch(f"mags{i}", n, np.int16) for i, n in enumerate(_coder.scratch_sizes(table)))
        _coder.choose(
            u, weight, table, self.weights.astype(np.int64), *adaptive, lut, bits, float(lam), q, freq, cum, raw, tally,
            m, r,
        )  # fmt: skip
        n, n_raw = int(tally[0]), int(tally[1])
        lanes = 8 if n >= 4096 else 4 if n >= 1024 else 2 if n >= 256 else 1
        words, states = scratch("words", n + 1, np.uint16), np.zeros(lanes, np.int64)
        start = int(_coder.rans_encode(freq[:n], cum[:n], lanes, words, states))
        return Coded(q, words[start:], states, raw[: -(-n_raw // 8)], n_raw)

    def decode(
        self, coded: Coded, table: Array, size: int, *, whole: bool = True, ends: Array | None = None
    ) -> Array:
        """Quantised planes, int32 ``(size,)`` in the layout of ``table``; valid until this thread decodes again.

        Where not the ``whole`` stream is wanted the table has the first planes of it, and nothing is checked beyond them. ``ends``, int64, receives the number of
        words up to the end of each plane.

        Raises
        ------
        CorruptDataError
            If the stream does not end where the planes do.
        """
        warn_if_slow()
        q = scratch("q", size, np.int32)
        q[:] = 0
        m, r = (scratch(f"mags{i}", n, np.int16) for i, n in enumerate(_coder.scratch_sizes(table)))
        lut, _ = _tables()
        failed = _coder.decode(
            coded.words, coded.states, coded.raw, coded.raw_bits, table, self.weights.astype(np.int64),
            *self._adaptive(), lut, q, m, r, scratch("ends", len(table), np.int64) if ends is None else ends, whole,
        )  # fmt: skip
        if failed:
            raise CorruptDataError("lin: the coded planes do not end where the stream does; it was changed")
        return q
