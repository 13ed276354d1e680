"""Compiled contexts of the coder of integer planes: expected magnitudes of a row, adaptive frequencies, escapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context.model import ADAPT_LIMIT, SHARE_BITS, TOTAL
from stac_latent.stages.transform.kernels import kernel

__all__ = ["context", "places_of", "renormalise", "rice", "scratch_sizes", "sign_context", "unsigned"]


@kernel
def scratch_sizes(tab: Array) -> tuple[int, int]:
    """Samples of the two buffers of magnitudes: by phase, and in the layout of ``tab`` for planes that are parents."""
    places, r = places_of(tab), 0
    for k in range(tab.shape[0]):
        p = tab[k, 3]
        if p >= 0:
            r = max(r, tab[p, 0] + (tab[p, 1] + 2) * (tab[p, 2] + 2))
    return places[-1] + 8, r + 2 * (int(tab[:, 2].max()) if tab.shape[0] else 0) + 8


@kernel
def places_of(tab: Array) -> Array:
    """Offset of each plane's four phases, int64 ``(plane + 1,)``: phases lie one after the other, with a margin of one."""
    out = np.zeros(tab.shape[0] + 1, np.int64)
    for k in range(tab.shape[0]):
        out[k + 1] = out[k] + 4 * ((tab[k, 1] + 1) // 2 + 2) * ((tab[k, 2] + 1) // 2 + 2)
    return out


@kernel
def unsigned(i: int) -> Any:
    """Index that cannot be negative: without a test for it, loops run over vectors."""
    return np.uint64(i)


@kernel
def context(  # noqa: C901, PLR0912 - one branch for each neighbour
    m: Array, r: Array, places: Array, k: int, tab: Array, w: Array, step: int, row: int, n: int, e: Array
) -> Any:
    """Expected magnitudes but for what is to the left, in 256ths, of row ``row`` of one phase into ``e``; returns 0 where all are zero.

    ``m`` holds magnitudes by phase, so that neighbours of a row are contiguous; ``r`` holds them in the layout of ``tab``.
    """
    plane = tab[k]
    ws = (plane[2] + 1) // 2 + 2
    size = ((plane[1] + 1) // 2 + 2) * ws
    base = places[k] + (row + 1) * ws + 1
    phase = (0, 3, 1, 2)[step]
    above, f = base + phase * size - ws, w[7]
    for i in range(n):
        e[unsigned(i)] = f * (
            m[unsigned(above + i - 1)] + m[unsigned(above + i)] + m[unsigned(above + i + 1)]
        )
    if step == 1:  # diagonal neighbours of (1, 1) are in phase (0, 0)
        a, f = base, w[0]
        for i in range(n):
            e[unsigned(i)] += f * (
                m[unsigned(a + i)]
                + m[unsigned(a + i + 1)]
                + m[unsigned(a + ws + i)]
                + m[unsigned(a + ws + i + 1)]
            )
    elif step == 2:  # of (0, 1): left and right in (0, 0), above and below in (1, 1)
        a, c, f = base, base + 3 * size, w[0]
        for i in range(n):
            e[unsigned(i)] += f * (
                m[unsigned(a + i)] + m[unsigned(a + i + 1)] + m[unsigned(c + i)] + m[unsigned(c - ws + i)]
            )
    elif step == 3:  # of (1, 0): left and right in (1, 1), above and below in (0, 0), diagonals in (0, 1)
        a, c, f = base + 3 * size, base, w[0]
        for i in range(n):
            e[unsigned(i)] += f * (
                m[unsigned(a + i)] + m[unsigned(a + i - 1)] + m[unsigned(c + i)] + m[unsigned(c + ws + i)]
            )
        if w[1] != 0:
            a, f = base + size, w[1]
            for i in range(n):
                e[unsigned(i)] += f * (
                    m[unsigned(a + i)]
                    + m[unsigned(a + i - 1)]
                    + m[unsigned(a + ws + i)]
                    + m[unsigned(a + ws + i - 1)]
                )
    if plane[3] >= 0:
        wp = tab[plane[3], 2] + 2
        p = tab[plane[3], 0] + (row + 1) * wp + 1
        if w[2] != 0:
            f = w[2]
            for i in range(n):
                e[unsigned(i)] += f * r[unsigned(p + i)]
        if w[3] != 0:
            f = w[3]
            for i in range(n):
                e[unsigned(i)] += f * (
                    r[unsigned(p + i - 1)] + r[unsigned(p + i + 1)] + r[unsigned(p + i - wp)] + r[unsigned(p + i + wp)]
                    + r[unsigned(p + i - wp - 1)] + r[unsigned(p + i - wp + 1)] + r[unsigned(p + i + wp - 1)] + r[unsigned(p + i + wp + 1)]
                )  # fmt: skip
    for column in range(4, 7):
        if plane[column] >= 0:
            f = w[4] if column == 4 else w[5]
            if f != 0:
                o = places[plane[column]] + phase * size + (row + 1) * ws + 1
                for i in range(n):
                    e[unsigned(i)] += f * m[unsigned(o + i)]
    some = np.int32(0)
    for i in range(n):
        some |= e[unsigned(i)]
    return some


@kernel
def sign_context(q: Array, at: Any, stride: Any, step: int) -> Any:
    """``5 (a + 2) + b + 2`` of the signs around a sample that were coded before: 12 where they say nothing.

    ``a`` and ``b`` are sums of two: along x and along y, or, in pass 1, along the two diagonals.
    """
    if step == 1:
        a = np.sign(q[at - stride - 1]) + np.sign(q[at + stride + 1])
        b = np.sign(q[at - stride + 1]) + np.sign(q[at + stride - 1])
    else:
        a = np.sign(q[at - 1]) + np.sign(q[at + 1])
        b = np.sign(q[at - stride]) + np.sign(q[at + stride])
    return 5 * a + b + 12


@kernel
def renormalise(counts: Array, freq: Array, cum: Array, seen: Array, fresh: Array) -> None:
    """Frequencies of sum ``TOTAL`` from counts, none of them zero; the remainder goes to the likeliest symbol.

    Rows whose sum is that which was ``seen`` last stay; the others are marked in ``fresh``.
    """
    n = counts.shape[1]
    for b in range(counts.shape[0]):
        total = 0
        for s in range(n):
            total += counts[b, s]
        fresh[b] = total != seen[b] or total > ADAPT_LIMIT
        if not fresh[b]:
            continue
        if total > ADAPT_LIMIT:
            total = 0
            for s in range(n):
                counts[b, s] = (counts[b, s] + 1) // 2
                total += counts[b, s]
        seen[b] = total
        share = ((TOTAL - n) << SHARE_BITS) // total
        left, best = TOTAL, 0
        for s in range(n):
            freq[b, s] = 1 + (counts[b, s] * share >> SHARE_BITS)
            left -= freq[b, s]
            if counts[b, s] > counts[b, best]:
                best = s
        freq[b, best] += left
        at = 0
        for s in range(n):
            cum[b, s] = at
            at += freq[b, s]


@kernel
def rice(e: int) -> int:
    """Order of the exponential Golomb code of an escape, from the expected magnitude in 64ths."""
    k = 0
    while e >> (k + 8) and k < 20:
        k += 1
    return k
