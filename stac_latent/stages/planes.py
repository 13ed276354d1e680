"""Adaptive context coder of integer planes: weights and tables of the model, and both forms of the coder behind one door."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np

from stac_latent.codec import Array
from stac_latent.errors import BundleError, CorruptDataError
from stac_latent.stages import planes_compiled, planes_plain
from stac_latent.stages.base import take
from stac_latent.stages.kernels import COMPILED, kernel
from stac_latent.stages.planes_model import (
    BINS,
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

__all__ = ["Coded", "PlaneModel", "rotate_samples"]

_SHAPES = ((SETS, 4, 7), (4, BINS, SYMBOLS), (4, 2), (3, 2, SIGNS, 2))
_BLOCK = 1024
_KEPT = 1 << 22
"""Samples of the largest buffer that a thread keeps."""

_coder = planes_compiled if COMPILED else planes_plain


@dataclass(frozen=True)
class Coded:
    """Planes as they are stored, and what they hold."""

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
class PlaneModel:
    """Weights and initial counts of the contexts.

    Parameters
    ----------
    weights
        int16 ``(SETS, 4, 7)``; see :mod:`stac_latent.stages.planes_model`.
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
        if least < 1 or self.weights.min() < 0 or self.weights.max() > 255:
            raise BundleError("planes: counts must be positive and weights 0 to 255")

    @classmethod
    def default(cls) -> PlaneModel:
        """The model of unfitted chains."""
        return cls(
            default_weights().astype(np.int16),
            default_counts().astype(np.uint16),
            default_runs().astype(np.uint16),
            default_signs().astype(np.uint16),
        )

    @classmethod
    def build(cls, tensors: Mapping[str, Array]) -> PlaneModel:
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
            See :meth:`stac_latent.stages.subbands.Layout.program`.
        lam
            Squared steps that a bit is worth.
        """
        lut, bits = _tables()
        samples = int((table[:, 1] * table[:, 2]).sum()) if table.size else 0
        most = 2 * samples + samples // 8 + 4 * len(table) + 16
        freq, cum = np.empty(most, np.uint16), np.empty(most, np.uint16)
        raw, tally = np.zeros(7 * samples + 16, np.uint8), np.zeros(2, np.int64)
        q = np.zeros(u.size, np.int32)
        adaptive = self._adaptive()
        m, r = (_scratch(f"mags{i}", n, np.int16) for i, n in enumerate(_coder.scratch_sizes(table)))
        _coder.choose(
            u, weight, table, self.weights.astype(np.int64), *adaptive, lut, bits, float(lam), q, freq, cum, raw, tally,
            m, r,
        )  # fmt: skip
        n, n_raw = int(tally[0]), int(tally[1])
        lanes = 8 if n >= 4096 else 4 if n >= 1024 else 2 if n >= 256 else 1
        words, states = np.empty(n + 1, np.uint16), np.zeros(lanes, np.int64)
        start = int(_coder.rans_encode(freq[:n], cum[:n], lanes, words, states))
        return Coded(q, words[start:], states, raw[: -(-n_raw // 8)], n_raw)

    def decode(self, coded: Coded, table: Array, size: int) -> Array:
        """Quantised planes, int32 ``(size,)`` in the layout of ``table``; valid until this thread decodes again.

        Raises
        ------
        CorruptDataError
            If the stream does not end where the planes do.
        """
        q = _scratch("q", size, np.int32)
        q[:] = 0
        m, r = (_scratch(f"mags{i}", n, np.int16) for i, n in enumerate(_coder.scratch_sizes(table)))
        lut, _ = _tables()
        failed = _coder.decode(
            coded.words, coded.states, coded.raw, coded.raw_bits, table, self.weights.astype(np.int64),
            *self._adaptive(), lut, q, m, r,
        )  # fmt: skip
        if failed:
            raise CorruptDataError("lin: the coded planes do not end where the stream does; it was changed")
        return q

    @staticmethod
    def mix(q: Array, rows: Array, matrix: Array, out: Array, top: int, left: int) -> None:
        """Samples of all bands from the planes of their components, into a region of ``out``.

        Sums run over components in order, one addition at a time.

        Parameters
        ----------
        q, rows
            Planes, and their rows of the table.
        matrix
            float32 ``(band, component)``.
        out
            float32 ``(band, y, x)``, contiguous.
        top, left
            Upper left of the region.
        """
        if COMPILED:
            _mix(q, rows, np.ascontiguousarray(matrix), out, top, left)
            return
        h, w = int(rows[0, 1]), int(rows[0, 2])
        region = out[:, top : top + h, left : left + w]
        region[...] = 0
        for c, row in enumerate(rows):
            plane = (
                q[row[0] : row[0] + (h + 2) * (w + 2)].reshape(h + 2, w + 2)[1:-1, 1:-1].astype(np.float32)
            )
            for b in range(len(matrix)):
                region[b] += matrix[b, c] * plane


@kernel
def _mix(q: Array, rows: Array, matrix: Array, out: Array, top: int, left: int) -> None:
    h, w = rows[0, 1], rows[0, 2]
    line = np.empty(w, np.float32)
    for y in range(h):
        for b in range(out.shape[0]):
            for x in range(w):
                out[b, top + y, left + x] = 0
        for c in range(rows.shape[0]):
            at = rows[c, 0] + (y + 1) * (w + 2) + 1
            some = np.int32(0)
            for x in range(w):
                some |= q[at + x]
                line[x] = q[at + x]
            if some == 0:
                continue
            for b in range(out.shape[0]):
                f, target = matrix[b, c], out[b, top + y]
                for x in range(w):
                    target[left + x] += f * line[x]


def rotate_samples(rows: Array, flat: Array) -> Array:
    """Components of samples, float32 ``(component, n)``: ``rows @ flat``, one addition at a time in order of the bands.

    Unlike a matrix product of a library, equal on any machine and with any number of threads.
    """
    out = np.zeros((len(rows), flat.shape[1]), np.float32)
    if COMPILED:
        _rotate_samples(np.ascontiguousarray(rows), np.ascontiguousarray(flat), out)
        return out
    for c in range(len(rows)):
        for b in range(len(flat)):
            out[c] += rows[c, b] * flat[b]
    return out


@kernel
def _rotate_samples(rows: Array, flat: Array, out: Array) -> None:
    n = flat.shape[1]
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        for c in range(rows.shape[0]):
            for b in range(flat.shape[0]):
                f, source, target = rows[c, b], flat[b, start:stop], out[c, start:stop]
                for x in range(source.size):
                    target[x] += f * source[x]


_local = threading.local()


def _scratch(name: str, size: int, dtype: Any) -> Array:
    """A buffer of this thread, kept from call to call: fresh pages cost more than the work on them."""
    held = getattr(_local, name, None)
    if held is None or held.size < size:
        held = np.empty(max(size, 1), dtype)
        if size <= _KEPT:
            setattr(_local, name, held)
    return cast("Array", held[:size])
