"""Spectral rotations that travel in a payload: plane rotations with quantised angles, relative to a known basis.

A basis is an orthonormal matrix whose rows are components. A tile's own basis is coded as the angles that turn the
first ``k`` rows of a reference into it, row by row; rows beyond ``k`` carry no samples and cost nothing. Sines and
cosines come from a table of multiples of ``2**-20``, so that every machine rebuilds the same matrix.
"""

from __future__ import annotations

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.transform.kernels import kernel

__all__ = ["PRECISIONS", "angles_of", "read_rotation", "rice_bits", "rotate", "write_rotation"]

PRECISIONS = tuple(range(4, 12))
"""Bits of an angle within a right angle."""
_TOP = 11
_COS = np.rint(np.cos(np.arange(2**_TOP + 1) * (np.pi / 2 / 2**_TOP)) * 2.0**20) / 2.0**20
_ESCAPE = 24


@kernel
def _cos_sin(angle: int, precision: int) -> tuple[float, float]:
    i = abs(angle) << (_TOP - precision)
    c, s = _COS[i], _COS[2**_TOP - i]
    return c, -s if angle < 0 else s


@kernel
def _rotate_row(m: Array, row: Array, i: int, precision: int) -> None:
    for t in range(row.size):
        j = i + 1 + t
        if row[t] != 0:
            c, s = _cos_sin(row[t], precision)
            x = m[i].copy()
            m[i] = c * x + s * m[j]
            m[j] = c * m[j] - s * x


@kernel
def rotate(m: Array, angles: Array, k: int, precision: int) -> None:
    """Turn the rows of ``m`` (C, C) float64 by the angles of its first ``k`` rows, in place."""
    n, at = m.shape[0], 0
    for i in range(k):
        _rotate_row(m, angles[at : at + n - i - 1], i, precision)
        at += n - i - 1


def angles_of(reference: Array, target: Array, k: int, precision: int) -> tuple[Array, Array]:
    """Angles that turn the first ``k`` rows of a reference basis into those of a target, and what they make.

    Parameters
    ----------
    reference, target
        ``(C, C)`` orthonormal rows. The sign of the target's rows does not matter.
    k
        Rows to match.
    precision
        Bits of an angle within a right angle.

    Returns
    -------
    angles, basis
        int64 ``(k * C - k * (k + 1) / 2,)``; float64 ``(C, C)``.
    """
    m = np.array(reference, np.float64)
    angles = np.zeros(k * len(m) - k * (k + 1) // 2, np.int64)
    _turn(m, np.ascontiguousarray(target, np.float64), k, precision, angles)
    return angles, m


@kernel
def _turn(m: Array, target: Array, k: int, precision: int, angles: Array) -> None:
    n = m.shape[0]
    v, size = np.zeros(n), np.zeros(n)
    at = 0
    for i in range(k):
        v[i:] = 0
        for b in range(n):
            v[i:] += m[i:, b] * target[i, b]
        if v[i] < 0:
            v[i:] = -v[i:]
        size[i] = v[i]
        square = v[i] * v[i]
        for j in range(i + 1, n):
            square += v[j] * v[j]
            size[j] = np.sqrt(square)
        for j in range(i + 1, n):
            angle = np.arctan2(v[j], size[j - 1]) * (2.0**precision / (np.pi / 2))
            angles[at + j - i - 1] = int(np.rint(angle))
        _rotate_row(m, angles[at : at + n - i - 1], i, precision)
        at += n - i - 1


@kernel
def _put(bits: Array, at: int, value: int, width: int) -> int:
    for k in range(width - 1, -1, -1):
        bits[at] = (value >> k) & 1
        at += 1
    return at


@kernel
def _get(bits: Array, at: int, width: int) -> int:
    value = 0
    for k in range(width):
        value = 2 * value + int(bits[at + k])
    return value


@kernel
def _rice_size(row: Array, k: int) -> int:
    total = 0
    for t in range(row.size):
        z = 2 * row[t] if row[t] >= 0 else -2 * row[t] - 1
        total += min(z >> k, _ESCAPE) + 1 + k
        if z >> k >= _ESCAPE:
            total += 16
    return total


@kernel
def _best_rice(row: Array) -> int:
    best, least = 0, _rice_size(row, 0)
    for k in range(1, 12):
        size = _rice_size(row, k)
        if size < least:
            best, least = k, size
    return best


@kernel
def rice_bits(angles: Array, n: int, k: int) -> int:
    """Bits of the coded angles of ``k`` rows of an ``n`` x ``n`` basis."""
    at, total = 0, 0
    for i in range(k):
        row = angles[at : at + n - i - 1]
        at += n - i - 1
        total += 4 + _rice_size(row, _best_rice(row))
    return total


@kernel
def write_rotation(bits: Array, at: int, angles: Array, n: int, k: int) -> int:
    """Write angles as Rice codes to ``bits`` (one bit each); returns the next position."""
    start = 0
    for i in range(k):
        row = angles[start : start + n - i - 1]
        start += n - i - 1
        r = _best_rice(row)
        at = _put(bits, at, r, 4)
        for t in range(row.size):
            z = 2 * row[t] if row[t] >= 0 else -2 * row[t] - 1
            high = min(z >> r, _ESCAPE)
            for _ in range(high):
                bits[at] = 1
                at += 1
            if high < _ESCAPE:
                bits[at] = 0
                at += 1
                at = _put(bits, at, z & ((1 << r) - 1), r)
            else:
                at = _put(bits, at, z, 17 + r)
    return at


@kernel
def read_rotation(bits: Array, at: int, n: int, k: int, limit: int, angles: Array) -> int:
    """Inverse of :func:`write_rotation`, into ``angles``; -1 where the bits end too soon or an angle passes ``limit``."""
    start = 0
    for i in range(k):
        if at + 4 > bits.size:
            return -1
        r = _get(bits, at, 4)
        at += 4
        for t in range(n - i - 1):
            high = 0
            while high < _ESCAPE and at < bits.size and bits[at] == 1:
                high += 1
                at += 1
            if high < _ESCAPE:
                at += 1
                if at + r > bits.size:
                    return -1
                z = (high << r) | _get(bits, at, r)
                at += r
            else:
                if at + 17 + r > bits.size:
                    return -1
                z = _get(bits, at, 17 + r)
                at += 17 + r
            a = z >> 1 if z & 1 == 0 else -((z + 1) >> 1)
            if abs(a) > limit:
                return -1
            angles[start + t] = a
        start += n - i - 1
    return at
