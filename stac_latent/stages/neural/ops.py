"""Convolutions of the ``fast`` chain: sums in one stated order, so that every machine gives the same bits.

Each output starts from its bias; products are added one at a time, by input channel, then by row and column of the
kernel, in float32. Compiled loops run along a line of pixels and vectorise without changing that order; the plain forms
add whole planes. Both give the same bits.
"""

from __future__ import annotations

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.transform.kernels import COMPILED, kernel

__all__ = ["LEAK", "activate", "around", "contrast", "finer", "point"]

LEAK = np.float32(0.125)
"""Slope of the activation below zero."""
_SOFT = np.float32(0.125)
_BLOCK = 1024
_FOUR = 4


def activate(x: Array) -> Array:
    """Leaky rectifier, in place."""
    return np.maximum(x, LEAK * x, out=x)


def contrast(low: Array) -> Array:
    """What each sample differs from the mean of the 3 x 3 about it, as ``d / (1 + |d| / 8)``; at the ends, of what is there."""
    h, w = low.shape[1:]
    rows = low.copy()
    rows[:, 1:] += low[:, :-1]
    rows[:, :-1] += low[:, 1:]
    total = rows.copy()
    total[:, :, 1:] += rows[:, :, :-1]
    total[:, :, :-1] += rows[:, :, 1:]
    ny, nx = (np.minimum(np.arange(n), 1) + np.minimum(n - 1 - np.arange(n), 1) + 1 for n in (h, w))
    total /= np.multiply.outer(ny, nx).astype(np.float32)
    np.subtract(low, total, out=total)
    scale = np.abs(total)
    scale *= _SOFT
    scale += np.float32(1)
    total /= scale
    return total


def finer(x: Array, height: int, width: int) -> Array:
    """``(4 * channel, y, x)`` to ``(channel, height, width)``, twice as fine."""
    c, h, w = len(x) // 4, *x.shape[1:]
    out = x.reshape(c, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c, 2 * h, 2 * w)
    return out[:, :height, :width]


def point(x: Array, weight: Array, bias: Array) -> Array:
    """1 x 1 convolution of ``(channel, y, x)``; ``weight`` is ``(out, channel)``."""
    flat = np.ascontiguousarray(x).reshape(len(x), -1)
    count, odd = len(weight), len(weight) % 2
    weight, bias = np.pad(weight, ((0, odd), (0, 0))), np.pad(bias, (0, odd))
    out = np.empty((len(weight), flat.shape[1]), np.float32)
    done = 0
    if COMPILED:
        done = len(flat) // _FOUR * _FOUR
        _point(flat[:done], weight, bias, out)
    else:
        out[:] = bias[:, None]
    for c in range(done, len(flat)):
        out += weight[:, c, None] * flat[c]
    return out[:count].reshape(-1, *x.shape[1:])


def around(x: Array, weight: Array, bias: Array) -> Array:
    """3 x 3 convolution of ``(channel, y, x)`` with zeros beyond the ends; ``weight`` is ``(out, channel, 9)``."""
    c, h, w = x.shape
    wide = np.zeros((c, h + 2, w + 2), np.float32)
    wide[:, 1:-1, 1:-1] = x
    out = np.empty((len(weight), h, w), np.float32)
    if COMPILED:
        _around(wide, weight, bias, out)
        return out
    out[:] = bias[:, None, None]
    for k in range(c):
        for tap in range(9):
            i, j = divmod(tap, 3)
            out += weight[:, k, tap, None, None] * wide[k, i : i + h, j : j + w]
    return out


@kernel
def _point(x: Array, weight: Array, bias: Array, out: Array) -> None:
    """Two outputs and four inputs at a time."""
    inputs, n = x.shape
    for s in range(0, n, _BLOCK):
        e = min(n, s + _BLOCK)
        for o in range(0, out.shape[0], 2):
            p, q, a, b = weight[o], weight[o + 1], out[o, s:e], out[o + 1, s:e]
            for i in range(e - s):
                a[i] = bias[o]
                b[i] = bias[o + 1]
            for c in range(0, inputs, _FOUR):
                r0, r1, r2, r3 = x[c, s:e], x[c + 1, s:e], x[c + 2, s:e], x[c + 3, s:e]
                p0, p1, p2, p3, q0, q1, q2, q3 = (
                    p[c],
                    p[c + 1],
                    p[c + 2],
                    p[c + 3],
                    q[c],
                    q[c + 1],
                    q[c + 2],
                    q[c + 3],
                )
                for i in range(e - s):
                    u, v = a[i], b[i]
                    u += p0 * r0[i]
                    u += p1 * r1[i]
                    u += p2 * r2[i]
                    u += p3 * r3[i]
                    v += q0 * r0[i]
                    v += q1 * r1[i]
                    v += q2 * r2[i]
                    v += q3 * r3[i]
                    a[i] = u
                    b[i] = v


@kernel
def _around(wide: Array, weight: Array, bias: Array, out: Array) -> None:
    n, h, w = out.shape
    for y in range(h):
        for o in range(n):
            a = out[o, y]
            for x in range(w):
                a[x] = bias[o]
            for c in range(wide.shape[0]):
                r0, r1, r2, k = wide[c, y], wide[c, y + 1], wide[c, y + 2], weight[o, c]
                k0, k1, k2, k3, k4, k5, k6, k7, k8 = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
                for x in range(w):
                    u = a[x]
                    u += k0 * r0[x]
                    u += k1 * r0[x + 1]
                    u += k2 * r0[x + 2]
                    u += k3 * r1[x]
                    u += k4 * r1[x + 1]
                    u += k5 * r1[x + 2]
                    u += k6 * r2[x]
                    u += k7 * r2[x + 1]
                    u += k8 * r2[x + 2]
                    a[x] = u
