"""The order in which the pixels of a tile are visited, coarse to fine, and the neighbours that are known by then.

Pixels at multiples of 64 come first. Each halving of the spacing ``s`` adds three passes: the centres ``(s, s)`` of the
known squares, then ``(0, s)``, then ``(s, 0)``. A pixel of the last two passes has known neighbours on all four sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stac_latent.aliases import Array

__all__ = ["ROOT", "Pass", "passes"]

ROOT = 64
"""Spacing of the first pass."""
_OFFSETS = ((1, 1), (0, 1), (1, 0))


@dataclass(frozen=True)
class Pass:
    """One pass: positions are numbers of pixels, row by row.

    Parameters
    ----------
    level
        Halvings of the spacing that are left: 0 is the finest.
    kind
        0, 1 or 2: centres, ``(0, s)``, ``(s, 0)``; -1 for the first pass.
    at
        int64 ``(n,)``, the pixels.
    near
        int64 ``(4, n)``, the four neighbours at the spacing; where the tile ends, the one opposite.
    far
        int64 ``(group, 4, n)``, neighbours further out, in one or two groups.
    """

    level: int
    kind: int
    at: Array
    near: Array
    far: Array


@lru_cache(maxsize=8)
def passes(height: int, width: int) -> tuple[Pass, ...]:
    """Passes over a tile, in order; together they visit each pixel once."""
    first = _numbers(np.arange(0, height, ROOT), np.arange(0, width, ROOT), width)
    none = np.zeros((4, first.size), np.int64)
    out = [Pass(ROOT.bit_length() - 1, -1, first, none, none[None][:0])]
    spacing = ROOT // 2
    while spacing:
        for kind, (oy, ox) in enumerate(_OFFSETS):
            ys = np.arange(oy * spacing, height, 2 * spacing)
            xs = np.arange(ox * spacing, width, 2 * spacing)
            if ys.size and xs.size:
                out.append(_pass(kind, ys, xs, spacing, (height, width)))
        spacing //= 2
    return tuple(out)


def _numbers(ys: Array, xs: Array, width: int) -> Array:
    return np.asarray((ys[:, None] * width + xs[None, :]).ravel(), np.int64)


def _sides(at: Array, distance: int, size: int) -> tuple[Array, Array]:
    """Positions before and after, each replaced by the other where there is none; -1 where there is neither."""
    low, high = at - distance, at + distance
    below, above = low >= 0, high < size
    before = np.where(below, low, np.where(above, high, -1))
    after = np.where(above, high, np.where(below, low, -1))
    return before, after


def _pass(kind: int, ys: Array, xs: Array, s: int, shape: tuple[int, int]) -> Pass:
    (h, w) = shape
    up, down = _sides(ys, s, h)
    left, right = _sides(xs, s, w)
    up3, down3 = (np.where(v < 0, n, v) for v, n in zip(_sides(ys, 3 * s, h), (up, down), strict=True))
    left3, right3 = (np.where(v < 0, n, v) for v, n in zip(_sides(xs, 3 * s, w), (left, right), strict=True))

    def at(rows: Array, columns: Array) -> Array:
        return _numbers(rows, columns, w)

    corners = [at(up, left), at(down, right), at(up, right), at(down, left)]
    rows, columns = [at(up, xs), at(down, xs)], [at(ys, left), at(ys, right)]
    if kind == 0:
        near = corners
        far = [
            [at(up3, left), at(down3, right), at(up3, right), at(down3, left)],
            [at(up, left3), at(down, right3), at(up, right3), at(down, left3)],
        ]
    elif kind == 1:
        near = [*columns, *(columns if up[0] < 0 else rows)]
        far = [[at(ys, left3), at(ys, right3)] * 2]
    else:
        near = [*(rows if left[0] < 0 else columns), *rows]
        far = [[at(up3, xs), at(down3, xs)] * 2, rows * 2 if left[0] < 0 else corners]
    return Pass(s.bit_length() - 1, kind, at(ys, xs), np.stack(near), np.stack([np.stack(f) for f in far]))
