"""Integer context model of quantised planes: constants, default weights and tables.

A plane is an integer image: one component of one subband. Its samples are coded in four passes over a 2 x 2 lattice,
``(0, 0), (1, 1), (0, 1), (1, 0)``, so that all contexts of a pass are known before it starts. The expected magnitude of
a sample, in 64ths, is a weighted sum of magnitudes that were coded before:

====== =================================================================================
weight of
====== =================================================================================
0      the neighbours: diagonal in pass 1, direct in passes 2 and 3
1      the diagonal neighbours in pass 3
2, 3   the sample of the parent plane (half the resolution), and its eight neighbours
4      the first relative: the component before this one
5      the other relatives: two components before, or the same component of other subbands
6      a constant
====== =================================================================================

Half an octave of it makes one of ``BINS`` bins, each with an adaptive table over magnitudes ``0..14`` and an escape.
Samples of bin 0 (nothing around them) come in runs of ``RUN`` with one flag: all zero or not. Signs and escapes
are raw bits, after each pass.
"""

from __future__ import annotations

import numpy as np

from stac_latent.codec import Array

__all__ = [
    "ADAPT_LIMIT",
    "BINS",
    "CAP",
    "ESCAPE",
    "LOW",
    "PRECISION",
    "RUN",
    "SYMBOLS",
    "TOTAL",
    "bin_table",
    "bits_table",
    "default_counts",
    "default_runs",
    "default_weights",
]

BINS = 24
SYMBOLS = 16
ESCAPE = SYMBOLS - 1
RUN = 8
PRECISION = 14
TOTAL = 1 << PRECISION
LOW = 1 << 16
"""Lower end of a coder's 32-bit state; 16 bits move at a time."""
CAP = (1 << 15) - 1
"""Magnitudes count as this much at most in contexts: sums stay within 31 bits."""
ADAPT_LIMIT = 1 << 15
"""Counts are halved where their sum passes this."""


def bin_table() -> Array:
    """Bin of each expected magnitude in 64ths, uint8 ``(4096,)``: zero, then half octaves from 1 on."""
    e = np.arange(1, 4096, dtype=object)
    # 2 * log2(e), floored, in integers: log2(e**2)
    half = [int(v * v).bit_length() - 1 for v in e]
    return np.array([0, *(min(BINS - 1, 1 + h) for h in half)], np.uint8)


def bits_table() -> Array:
    """``-log2(f / TOTAL)`` for f in 0..TOTAL, float64; 40 at zero, which no symbol has."""
    out = np.full(TOTAL + 1, 40.0)
    out[1:] = PRECISION - np.log2(np.arange(1, TOTAL + 1))
    return out


def default_weights() -> Array:
    """Weights of the unfitted model, int64 ``(6, 4, 7)``: details and coarsest band by orientation."""
    own = [[0, 0, 3, 1, 6, 3, 0], [8, 0, 3, 1, 5, 3, 0], [14, 0, 4, 0, 5, 1, 0], [11, 4, 1, 0, 2, 1, 0]]
    cross = [[0, 0, 2, 1, 8, 9, 0], [10, 0, 1, 0, 2, 9, 0], [15, 0, 0, 0, 3, 4, 0], [10, 0, 1, 0, 5, 7, 0]]
    return np.array([own, own, cross, own, cross, cross], np.int64)


def default_counts() -> Array:
    """Counts of magnitudes in each bin, int64 ``(BINS, SYMBOLS)``: geometric about the bin's magnitude."""
    middle = np.array([0.01] + [2 ** ((b - 12.5) / 2) for b in range(1, BINS)])[:, None]
    ratio = middle / (1 + middle)
    s = np.arange(SYMBOLS)[None, :]
    p = (1 - ratio) * ratio**s
    p[:, ESCAPE] = ratio[:, 0] ** ESCAPE
    return np.asarray(np.maximum(1, np.rint(300 * p)), np.int64)


def default_runs() -> Array:
    """Counts of runs that are all zero and that are not, int64 ``(4, 2)``."""
    return np.tile(np.array([90, 10], np.int64), (4, 1))
