"""CDF 9/7 wavelet of one tile in float32: lifting with symmetric extension, any size, in place.

Coefficients lie in Mallat's layout: the coarsest band in the upper left, details of level ``l`` around it. Gains
make the transform nearly orthonormal, so that squared errors of coefficients and of pixels agree within a few percent.

Each operation is one IEEE float32 addition or multiplication in a stated order, without sums over many values: numpy
and compiled code give the same bits on any machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.transform.kernels import COMPILED, kernel

__all__ = ["NORMS", "analyse", "levels_of", "sizes", "synthesise"]

_A = np.float32(-1.586134342059924)
_B = np.float32(-0.052980118572961)
_C = np.float32(0.882911075530934)
_D = np.float32(0.443506852043971)
_K = np.float32(1.149604398860241)
_I = np.float32(1 / 1.149604398860241)

NORMS = (
    (1.0113, 1.0404),
    (0.9984, 0.9672),
    (1.0458, 1.0396),
    (1.0668, 1.0751),
    (1.0729, 1.0858),
    (1.0745, 1.0887),
)
"""Norm of the synthesis functions of details by level, finest first: horizontal or vertical, and diagonal."""


def sizes(n: int, levels: int) -> list[int]:
    """Length of the low band after 0, 1, ... levels."""
    out = [n]
    for _ in range(levels):
        out.append(-(-out[-1] // 2))
    return out


def levels_of(height: int, width: int, *, most: int = 6, least: int = 3) -> int:
    """Levels that a tile is worth: its coarsest band keeps four samples or so."""
    return max(least, min(most, max(height, width).bit_length() - 3))


def analyse(x: Array, levels: int, start: int = 0) -> None:
    """Transform ``(band, y, x)`` float32 in place, from level ``start`` on."""
    ys, xs = sizes(x.shape[1], levels), sizes(x.shape[2], levels)
    for level in range(start, levels):
        h, w = ys[level], xs[level]
        if COMPILED:
            for band in x:
                _forward_rows(band, h, w)
                _forward_columns(band, h, w)
        else:
            part = x[:, :h, :w]
            part[...] = _swap(_forward(_swap(_forward(part))))


def synthesise(x: Array, levels: int, stop: int = 0) -> None:
    """Inverse of :func:`analyse` in place, down to level ``stop``."""
    ys, xs = sizes(x.shape[1], levels), sizes(x.shape[2], levels)
    for level in range(levels - 1, stop - 1, -1):
        h, w = ys[level], xs[level]
        if COMPILED:
            for band in x:
                _inverse_columns(band, h, w)
                _inverse_rows(band, h, w)
        else:
            part = x[:, :h, :w]
            part[...] = _inverse(_swap(_inverse(_swap(part))))


def _swap(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _next(s: Array, n: int) -> Array:
    """``s[i + 1]`` for each of ``n`` details, mirrored at the end."""
    return np.concatenate([s[..., 1:], s[..., -1:]], axis=-1)[..., :n]


def _last(d: Array, n: int) -> Array:
    """``d[i - 1] + d[i]`` for each of ``n`` low samples, mirrored at both ends."""
    wide = np.concatenate([d[..., :1], d, d[..., -1:]], axis=-1)
    return np.asarray(wide[..., :n] + wide[..., 1 : n + 1])


def _forward(x: Array) -> Array:
    if x.shape[-1] == 1:
        return x
    s, d = x[..., 0::2].copy(), x[..., 1::2].copy()
    ns, nd = s.shape[-1], d.shape[-1]
    d += _A * (s[..., :nd] + _next(s, nd))
    s += _B * _last(d, ns)
    d += _C * (s[..., :nd] + _next(s, nd))
    s += _D * _last(d, ns)
    return np.concatenate([s * _K, d * _I], axis=-1)


def _inverse(x: Array) -> Array:
    n = x.shape[-1]
    if n == 1:
        return x
    ns, nd = -(-n // 2), n // 2
    s, d = x[..., :ns] * _I, x[..., ns:] * _K
    s -= _D * _last(d, ns)
    d -= _C * (s[..., :nd] + _next(s, nd))
    s -= _B * _last(d, ns)
    d -= _A * (s[..., :nd] + _next(s, nd))
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = s, d
    return out


@kernel
def _copy(a: Array, b: Array) -> None:
    """As much of ``a`` into ``b`` as both hold."""
    for i in range(min(a.size, b.size)):
        b[i] = a[i]


@kernel
def _add_neighbours(x: Array, a: Array, b: Array, f: Any) -> None:
    for i in range(x.size):
        x[i] += f * (a[i] + b[i])


@kernel
def _sub_neighbours(x: Array, a: Array, b: Array, f: Any) -> None:
    for i in range(x.size):
        x[i] -= f * (a[i] + b[i])


@kernel
def _forward_rows(x: Array, h: int, n: int) -> None:  # noqa: C901 - one loop for each lifting step
    """Along x, row by row, of the upper left ``h`` by ``n`` samples."""
    if n == 1:
        return
    ns, nd = (n + 1) // 2, n // 2
    s, d = np.empty(ns + 2, np.float32), np.empty(nd + 2, np.float32)
    for y in range(h):
        row = x[y]
        for i in range(ns):
            s[i] = row[2 * i]
        s[ns] = s[ns - 1]
        for i in range(nd):
            d[1 + i] = row[2 * i + 1]
        for i in range(nd):
            d[1 + i] += _A * (s[i] + s[i + 1])
        d[0], d[nd + 1] = d[1], d[nd]
        for i in range(ns):
            s[i] += _B * (d[i] + d[i + 1])
        s[ns] = s[ns - 1]
        for i in range(nd):
            d[1 + i] += _C * (s[i] + s[i + 1])
        d[0], d[nd + 1] = d[1], d[nd]
        for i in range(ns):
            s[i] += _D * (d[i] + d[i + 1])
        for i in range(ns):
            row[i] = s[i] * _K
        for i in range(nd):
            row[ns + i] = d[1 + i] * _I


@kernel
def _forward_columns(x: Array, n: int, w: int) -> None:  # noqa: C901 - one loop for each lifting step
    """Along y, whole rows at a time, of the upper left ``n`` by ``w`` samples."""
    if n == 1:
        return
    ns, nd = (n + 1) // 2, n // 2
    t = np.empty((n, w), np.float32)
    for i in range(ns):
        _copy(x[2 * i], t[i])
    for i in range(nd):
        _copy(x[2 * i + 1], t[ns + i])
    s, d = t[:ns], t[ns:]
    for i in range(nd):
        _add_neighbours(d[i], s[i], s[min(i + 1, ns - 1)], _A)
    for i in range(ns):
        _add_neighbours(s[i], d[max(i - 1, 0)], d[min(i, nd - 1)], _B)
    for i in range(nd):
        _add_neighbours(d[i], s[i], s[min(i + 1, ns - 1)], _C)
    for i in range(ns):
        _add_neighbours(s[i], d[max(i - 1, 0)], d[min(i, nd - 1)], _D)
    for i in range(ns):
        for j in range(w):
            x[i, j] = s[i, j] * _K
    for i in range(nd):
        for j in range(w):
            x[ns + i, j] = d[i, j] * _I


@kernel
def _inverse_rows(x: Array, h: int, n: int) -> None:  # noqa: C901 - one loop for each lifting step
    if n == 1:
        return
    ns, nd = (n + 1) // 2, n // 2
    s, d = np.empty(ns + 2, np.float32), np.empty(nd + 2, np.float32)
    for y in range(h):
        row = x[y]
        for i in range(ns):
            s[i] = row[i] * _I
        for i in range(nd):
            d[1 + i] = row[ns + i] * _K
        d[0], d[nd + 1] = d[1], d[nd]
        for i in range(ns):
            s[i] -= _D * (d[i] + d[i + 1])
        s[ns] = s[ns - 1]
        for i in range(nd):
            d[1 + i] -= _C * (s[i] + s[i + 1])
        d[0], d[nd + 1] = d[1], d[nd]
        for i in range(ns):
            s[i] -= _B * (d[i] + d[i + 1])
        s[ns] = s[ns - 1]
        for i in range(nd):
            d[1 + i] -= _A * (s[i] + s[i + 1])
        for i in range(nd):
            row[2 * i] = s[i]
            row[2 * i + 1] = d[1 + i]
        if ns > nd:
            row[n - 1] = s[ns - 1]


@kernel
def _inverse_columns(x: Array, n: int, w: int) -> None:  # noqa: C901 - one loop for each lifting step
    if n == 1:
        return
    ns, nd = (n + 1) // 2, n // 2
    t = np.empty((n, w), np.float32)
    for i in range(ns):  # a step of each kind for each row: what it touches stays in the cache
        for j in range(w):
            t[2 * i, j] = x[i, j] * _I
        if i < nd:
            for j in range(w):
                t[2 * i + 1, j] = x[ns + i, j] * _K
        _sub_neighbours(t[2 * i], t[2 * max(i - 1, 0) + 1], t[2 * min(i, nd - 1) + 1], _D)
        if i >= 1:
            _sub_neighbours(t[2 * i - 1], t[2 * i - 2], t[2 * i], _C)
            _sub_neighbours(t[2 * i - 2], t[2 * max(i - 2, 0) + 1], t[2 * i - 1], _B)
        if i >= 2:
            _sub_neighbours(t[2 * i - 3], t[2 * i - 4], t[2 * i - 2], _A)
    if nd == ns:  # the last detail sees its low neighbour twice
        _sub_neighbours(t[n - 1], t[n - 2], t[n - 2], _C)
    _sub_neighbours(t[2 * ns - 2], t[2 * max(ns - 2, 0) + 1], t[2 * min(ns - 1, nd - 1) + 1], _B)
    if ns >= 2:
        _sub_neighbours(t[2 * ns - 3], t[2 * ns - 4], t[2 * ns - 2], _A)
    if nd == ns:
        _sub_neighbours(t[n - 1], t[n - 2], t[n - 2], _A)
    for i in range(n):
        _copy(t[i], x[i, :w])
