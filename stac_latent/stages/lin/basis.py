"""The spectral basis of each group of subbands: that of the bundle, that of the group before, or the tile's own.

A tile's own basis is coded as angles (:mod:`stac_latent.stages.lin.rotation`) and taken where its bytes pay for themselves
by the Gaussian estimate of the bits that it saves.
"""

from __future__ import annotations

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError
from stac_latent.stages.lin.rotation import angles_of, read_rotation, rice_bits, rotate, write_rotation
from stac_latent.stages.lin.subbands import Group

__all__ = ["choose_basis", "get_bits", "put_bits", "read_basis", "side_size"]

_STATIC, _LAST, _OWN = 0, 1, 2


def side_size(members: int) -> int:
    """Most bits that one group of this many bands may write."""
    return 128 + 4 * 16 + 24 * members * (members + 1)


def choose_basis(
    known: Array, group: Group, cov: Array, step: float, last: Array | None, side: Array, at: int
) -> tuple[Array, int]:
    """Basis of a group, the cheapest by its estimated bits.

    Parameters
    ----------
    known
        Bases of the bundle, ``(level, C, C)``.
    group
        What is coded.
    cov
        Covariance of its bands, ``(m, m)``.
    step
        Quantiser step.
    last
        Basis of the group before.
    side, at
        Side information, and where to write.

    Returns
    -------
    basis, at
        Rows are components, float64 ``(m, m)``; the next position.
    """
    n, m = sum(h * w for h, w in group.shapes), len(group.members)

    def bits(basis: Array) -> float:
        v = ((basis @ cov) * basis).sum(axis=1)
        return 0.5 * n * float(np.log2(1 + 2 * np.maximum(v, 0) / step**2).sum())

    static = known[group.level, :m, :m].astype(np.float64)
    choices = [(bits(static), _STATIC, static)]
    if last is not None and last.shape == static.shape:
        choices.append((bits(last), _LAST, last))
    else:
        last = None
    best = min(choices, key=lambda c: c[0])
    values, vectors = np.linalg.eigh(cov)
    own = vectors.T[::-1]
    k = min(m, max(1, int((values > (0.25 * step) ** 2).sum())))
    if m > 1 and bits(own) + 2.0 * k * (m - (k + 1) / 2) < best[0]:
        sigma = float(np.sqrt(max(values[-1], 0.0)))
        precision = int(np.clip(np.ceil(np.log2(max(1.0, 2.27 * sigma / step))), 4, 11))
        for mode, reference in ((0, static), (1, last)):
            if reference is None:
                continue
            angles, made = angles_of(reference, own, k, precision)
            total = bits(made) + 16 + rice_bits(angles, m, k)
            if total < best[0]:
                best = (total, _OWN, made)
                written = (mode, precision, k, angles)
    at = put_bits(side, at, best[1], 2)
    if best[1] == _OWN:
        mode, precision, k, angles = written
        at = put_bits(side, at, mode, 1)
        at = put_bits(side, at, precision - 4, 3)
        at = put_bits(side, at, k, m.bit_length())
        at = int(write_rotation(side, at, angles, m, k))
    return best[2], at


def read_basis(known: Array, group: Group, last: Array | None, side: Array, at: int) -> tuple[Array, int]:
    """Inverse of :func:`choose_basis`.

    Raises
    ------
    CorruptDataError
        If the side information is none that it wrote.
    """
    m = len(group.members)
    static = known[group.level, :m, :m].astype(np.float64)
    same = last if last is not None and last.shape == static.shape else None
    mode, at = get_bits(side, at, 2)
    if mode == _STATIC:
        return static, at
    if mode == _LAST and same is not None:
        return same, at
    if mode != _OWN:
        raise CorruptDataError(f"lin: basis mode {mode} cannot be here")
    relative, at = get_bits(side, at, 1)
    precision, at = get_bits(side, at, 3)
    k, at = get_bits(side, at, m.bit_length())
    reference = same if relative else static
    if reference is None or k > m:
        raise CorruptDataError(f"lin: a basis of {k} rows of {m} bands cannot be here")
    angles = np.zeros(k * m - k * (k + 1) // 2, np.int64)
    at = int(read_rotation(side, at, m, k, 1 << (precision + 4), angles))
    if at < 0:
        raise CorruptDataError("lin: the angles of a basis end too soon")
    basis = np.array(reference)
    rotate(basis, angles, k, precision + 4)
    return basis, at


def put_bits(bits: Array, at: int, value: int, width: int) -> int:
    """Write an unsigned number, highest bit first; returns the next position."""
    for b in range(width):
        bits[at + b] = (value >> (width - 1 - b)) & 1
    return at + width


def get_bits(bits: Array, at: int, width: int) -> tuple[int, int]:
    """Read an unsigned number; returns it and the next position."""
    if at + width > bits.size:
        raise CorruptDataError("lin: the side information ends too soon")
    value = 0
    for b in bits[at : at + width].tolist():
        value = 2 * value + b
    return value, at + width
