"""Integer context model of quantised planes: constants, default weights and tables.

A plane is an integer image: one component of one subband. Its samples are coded in four passes over a 2 x 2 lattice,
``(0, 0), (1, 1), (0, 1), (1, 0)``, so that all contexts of a pass are known before it starts. The expected magnitude of
a sample, in 64ths, is a quarter of a weighted sum of magnitudes that were coded before, rounded down:

====== =================================================================================
weight of
====== =================================================================================
0      the neighbours: diagonal in pass 1, direct in passes 2 and 3
1      the diagonal neighbours in pass 3
2, 3   the sample of the parent plane (half the resolution), and its eight neighbours
4      the first relative: the component before this one
5      the other relatives: two components before, or the same component of other subbands
6, 7   of the same pass: the sample to the left, and the three in the row above
====== =================================================================================

The weights are those of the plane's set, of which there are ``SETS``: by orientation, resolution, and whether it is the first
component (:func:`set_of`). Magnitudes of the same pass count as their symbols do, an escape as 15. Half an octave of the expected magnitude makes one of ``BINS`` bins, each with an adaptive table for
each pass over magnitudes ``0..14`` and an escape. Samples of bin 0 (nothing around them) come in runs of ``RUN`` with one flag:
all zero or not. After each pass come signs, those of details by an adaptive table of what the signs around them are, and
escapes as raw bits.
"""

from __future__ import annotations

import numpy as np

from stac_latent.aliases import Array

__all__ = [
    "ADAPT_LIMIT",
    "BINS",
    "CAP",
    "COUNT",
    "ESCAPE",
    "LOW",
    "MOST_WEIGHT",
    "PRECISION",
    "RUN",
    "SETS",
    "SHARE_BITS",
    "SIGNS",
    "SYMBOLS",
    "TOTAL",
    "bin_table",
    "bits_table",
    "default_counts",
    "default_runs",
    "default_signs",
    "default_weights",
    "orientation_of",
    "set_of",
]

BINS = 24
SYMBOLS = 16
ESCAPE = SYMBOLS - 1
RUN = 8
SETS = 20
SIGNS = 12
"""Contexts of a sign: sums of two signs and of two others, -2 to 2 each, up to the sign of both; without (0, 0)."""
PRECISION = 14
TOTAL = 1 << PRECISION
SHARE_BITS = 20
"""Fraction bits of what a count is worth in frequency: one division for each table."""
LOW = 1 << 16
"""Lower end of a coder's 32-bit state; 16 bits move at a time."""
CAP = (1 << 15) - 1
"""Magnitudes count as this much at most in contexts: sums stay within 31 bits."""
COUNT = 32
"""What a coded symbol adds to its count; initial counts are finer than one symbol."""
ADAPT_LIMIT = 1 << 16
"""Counts are halved where their sum passes this."""
MOST_WEIGHT = 1023
"""Weights are in 256ths: sums of all that they weigh stay within 31 bits."""


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


def set_of(level: int, orientation: int, component: int) -> int:
    """Set of weights of a plane: details of levels 1, 2 and beyond by orientation; level 0 is the coarsest band."""
    later = int(component > 0)
    return later if level == 0 else 2 + 2 * (3 * (min(level, 3) - 1) + orientation) + later


def orientation_of(kind: int) -> int:
    """Orientation of the planes of a set, -1 for the coarsest band."""
    return -1 if kind < 2 else (kind - 2) // 2 % 3


def default_weights() -> Array:
    """Weights of the unfitted model, int64 ``(SETS, 4, 8)``."""
    own = [
        [0, 0, 16, 4, 21, 8, 46, 22], [31, 0, 9, 1, 13, 6, 25, 14], [48, 0, 9, 0, 11, 4, 12, 6], [41, 12, 2, 0, 8, 3, 5, 6]
    ]  # fmt: skip
    cross = [
        [0, 0, 8, 2, 20, 35, 32, 21], [32, 0, 6, 0, 12, 23, 20, 10], [45, 0, 2, 0, 11, 14, 10, 5], [39, 10, 4, 0, 11, 14, 4, 4]
    ]  # fmt: skip
    return np.array([cross if orientation_of(s) > 0 else own for s in range(SETS)], np.int64)


def default_counts() -> Array:
    """Counts of magnitudes by pass and bin, int64 ``(4, BINS, SYMBOLS)``: geometric about the bin's magnitude."""
    middle = np.array([0.01] + [2 ** ((b - 12.5) / 2) for b in range(1, BINS)])[:, None]
    ratio = middle / (1 + middle)
    s = np.arange(SYMBOLS)[None, :]
    p = (1 - ratio) * ratio**s
    p[:, ESCAPE] = ratio[:, 0] ** ESCAPE
    return np.tile(np.asarray(np.maximum(1, np.rint(300 * COUNT * p)), np.int64), (4, 1, 1))


def default_signs() -> Array:
    """Counts of signs that are as their context and that are not, int64 ``(3, 2, SIGNS, 2)``.

    By orientation, and by whether the context holds diagonal neighbours (pass 1) or direct ones. Along the axis of its
    detail a wavelet coefficient mostly differs in sign from its neighbours; across it agrees.
    """
    around = np.arange(13, 25)
    a, b = around // 5 - 2, around % 5 - 2
    along = np.array([b - a, a - b, -a - b])  # orientation 0 is detail along x
    shares = 0.5 + 0.12 * np.clip(along, -2, 2)
    both = np.stack([np.full_like(shares, 0.5), shares], axis=1)
    return np.asarray(np.rint(100 * COUNT * np.stack([both, 1 - both], axis=-1)), np.int64)


def default_runs() -> Array:
    """Counts of runs that are all zero and that are not, int64 ``(4, 2)``."""
    return np.tile(COUNT * np.array([90, 10], np.int64), (4, 1))
