"""Compiled coder of integer planes: the loops of :mod:`stac_latent.stages.context.coder`, symbol by symbol.

The plain form of the same bitstream is :mod:`stac_latent.stages.context._numpy`; the tests hold both to equal bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context._numba_contexts import (
    context,
    places_of,
    renormalise,
    rice,
    scratch_sizes,
    sign_context,
)
from stac_latent.stages.context._numba_decode import decode
from stac_latent.stages.context.model import BINS, CAP, COUNT, ESCAPE, LOW, PRECISION, RUN, SIGNS, SYMBOLS
from stac_latent.stages.transform.kernels import kernel

__all__ = ["choose", "decode", "rans_encode", "scratch_sizes"]


@kernel
def choose(  # noqa: C901, PLR0912, PLR0915 - one loop nest over planes, passes, rows and samples
    u: Array, weight: Array, tab: Array, weights: Array, counts: Array, runs: Array, signs: Array, lut: Array,
    bits: Array, lam: float, q: Array, out_freq: Array, out_cum: Array, raw: Array, tally: Array, m: Array, r: Array,
) -> None:  # fmt: skip
    """Quantise by rate and distortion, and list what is coded.

    Parameters
    ----------
    u
        float32, samples in units of the step, in the padded layout of ``tab``.
    weight
        float32, weight of the squared error of each sample, likewise; of size 1 where all are 1.
    tab
        int64 ``(plane, 8)``: offset, height, width, parent, three relatives, set of weights.
    weights
        int64 ``(set, pass, 8)``.
    counts, runs, signs
        int64 ``(4, BINS, SYMBOLS)``, ``(4, 2)`` and ``(6 * SIGNS, 2)``; adapted on the way.
    lut
        Bin of each expected magnitude.
    bits
        ``-log2(f / TOTAL)`` of each frequency.
    lam
        Weight of a bit, in squared steps.
    q
        int32, quantised samples in the same layout, zeros; filled.
    out_freq, out_cum
        uint16, frequency and cumulated frequency of each coded symbol.
    raw
        uint8, bits that are stored as they are.
    tally
        int64 ``(2,)``: symbols coded and raw bits.
    m, r
        int16, scratch; see :func:`scratch_sizes`.
    """
    freq, cum = np.zeros(counts.shape, np.int64), np.zeros(counts.shape, np.int64)
    rfreq, rcum = np.zeros((4, 2), np.int64), np.zeros((4, 2), np.int64)
    sfreq, scum = np.zeros((6 * SIGNS, 2), np.int64), np.zeros((6 * SIGNS, 2), np.int64)
    seen, rseen, sseen = np.zeros((4, BINS), np.int64), np.zeros(4, np.int64), np.zeros(6 * SIGNS, np.int64)
    fresh = np.zeros(6 * SIGNS, np.bool_)
    costs = np.zeros((4, BINS, SYMBOLS))
    one = weight.size == 1
    places = places_of(tab)
    m[:], r[:] = 0, 0
    w32 = weights.astype(np.int32)
    widest = 0
    for k in range(tab.shape[0]):
        widest = max(widest, (tab[k, 1] + 1) // 2 * ((tab[k, 2] + 1) // 2))
    e, bins = np.zeros(widest + 2, np.int32), np.zeros(widest + 2, np.uint8)
    mags = np.zeros(widest + 2, np.int32)
    filled, where = np.zeros(widest + 2, np.int64), np.zeros(widest + 2, np.int64)
    phased = np.zeros(widest + 2, np.int64)
    n_sym, n_raw = 0, 0
    for k in range(tab.shape[0]):
        h, wd = tab[k, 1], tab[k, 2]
        if h == 0 or wd == 0:
            continue
        renormalise(runs, rfreq, rcum, rseen, fresh)
        renormalise(signs, sfreq, scum, sseen, fresh)
        for ps in range(4):
            renormalise(counts[ps], freq[ps], cum[ps], seen[ps], fresh)
            for b in range(BINS):
                if fresh[b]:
                    for s in range(SYMBOLS):
                        costs[ps, b, s] = bits[freq[ps, b, s]]
        oriented = -1 if tab[k, 7] < 2 else (tab[k, 7] - 2) // 2 % 3
        ws = (wd + 1) // 2 + 2
        size = ((h + 1) // 2 + 2) * ws
        for ps in range(4):
            oy, ox = ps % 2, (ps == 1) | (ps == 2)
            n, rows = (wd - ox + 1) // 2, (h - oy + 1) // 2
            if n <= 0 or rows <= 0:
                continue
            cost = costs[ps]
            first = bits[rfreq[ps, 1]] - bits[rfreq[ps, 0]] + (RUN - 1) * cost[0, 0]
            total, n_filled = 0, 0
            directed = oriented >= 0 and ps > 0
            left = np.int64(w32[tab[k, 7], ps, 6])
            for row in range(rows):
                context(m, r, places, k, tab, w32[tab[k, 7], ps], ps, row, n, e[total:])
                at = tab[k, 0] + (2 * row + oy + 1) * (wd + 2) + 1 + ox
                phase = places[k] + (0, 3, 1, 2)[ps] * size + (row + 1) * ws + 1
                before = np.int32(0)
                for i in range(n):
                    expected = (e[total + i] + before) >> 2
                    e[total + i] = expected
                    before = np.int32(0)
                    bins[total + i] = lut[min(expected, lut.size - 1)]
                    v = abs(u[at + 2 * i])
                    best = 0
                    if v >= np.float32(0.5):
                        g = np.float32(1) if one else weight[at + 2 * i]
                        best = _decide(v, g, np.int64(bins[total + i]), cost, first, lam)
                    mags[total + i] = best
                    if best:
                        signed = best if u[at + 2 * i] >= 0 else -best
                        q[at + 2 * i] = signed
                        if at + 2 * i < r.size:
                            r[at + 2 * i] = min(best, CAP)
                        m[phase + i] = min(best, ESCAPE)
                        before = np.int32(left * min(best, ESCAPE))
                        filled[n_filled], where[n_filled], phased[n_filled] = total + i, at + 2 * i, phase + i
                        n_filled += 1
                total += n
            n_sym = _list_pass(
                bins, mags, total, freq[ps], cum[ps], rfreq[ps], rcum[ps], counts[ps], runs[ps], out_freq,
                out_cum, n_sym,
            )  # fmt: skip
            for j in range(n_filled):
                negative = q[where[j]] < 0
                around = sign_context(q, where[j], wd + 2, ps) if directed else 12
                if around == 12:
                    n_raw = _put_bit(raw, n_raw, negative)
                    continue
                other = np.int64(negative) if around > 12 else np.int64(not negative)
                c = (2 * oriented + (ps > 1)) * SIGNS + (around - 13 if around > 12 else 11 - around)
                out_freq[n_sym], out_cum[n_sym] = sfreq[c, other], scum[c, other]
                signs[c, other] += COUNT
                n_sym += 1
            for j in range(n_filled):
                i = filled[j]
                if mags[i] >= ESCAPE:
                    m[phased[j]] = min(mags[i], CAP)
                    n_raw = _put_escape(raw, n_raw, np.int64(mags[i]), np.int64(e[i]))
    tally[0], tally[1] = n_sym, n_raw


@kernel
def _decide(v: Any, g: Any, b: Any, cost: Array, first: Any, lam: float) -> Any:
    """Magnitude of least ``g * d**2 + lam * bits`` among the nearest, the one below and zero."""
    top = int(v + np.float32(0.5))
    best, least = 0, np.float64(v) * np.float64(v) * g
    if b > 0:
        least += lam * cost[b, 0]
    for c in range(2):
        t = top - c
        if t > 0:
            d = np.float64(v - np.float32(t))
            rate = cost[b, min(t, ESCAPE)] + 1.0
            if b == 0:
                rate += first
            if t >= ESCAPE:
                x, length = t - ESCAPE + 1, 0
                while x > 1:
                    length += 1
                    x >>= 1
                rate += 2.0 * length
            j = d * d * g + lam * rate
            if j < least:
                best, least = t, j
    return best


@kernel
def _list_pass(
    bins: Array, mags: Array, total: int, freq: Array, cum: Array, rfreq: Array, rcum: Array, counts: Array,
    runs: Array, out_freq: Array, out_cum: Array, n_sym: int,
) -> int:  # fmt: skip
    """List the symbols of a pass: magnitudes, and flags of the runs of bin 0."""
    waiting = 0
    for i in range(total):
        b = bins[i]
        if b == 0:
            if waiting == 0:
                left, flag, j = RUN, 0, i
                while left > 0 and j < total:
                    if bins[j] == 0:
                        left -= 1
                        if mags[j] != 0:
                            flag = 1
                            break
                    j += 1
                out_freq[n_sym], out_cum[n_sym] = rfreq[flag], rcum[flag]
                n_sym += 1
                runs[flag] += COUNT
                waiting = RUN if flag else -RUN
            if waiting < 0:
                waiting += 1
                continue
            waiting -= 1
        s = min(mags[i], ESCAPE)
        counts[b, s] += COUNT
        out_freq[n_sym], out_cum[n_sym] = freq[b, s], cum[b, s]
        n_sym += 1
    return n_sym


@kernel
def _put_bit(raw: Array, n_raw: int, bit: bool) -> int:
    """Append a bit, the highest of a byte first; returns the next position."""
    if n_raw & 7 == 0:
        raw[n_raw >> 3] = 0
    if bit:
        raw[n_raw >> 3] |= 128 >> (n_raw & 7)
    return n_raw + 1


@kernel
def _put_escape(raw: Array, n_raw: int, v: Any, e: Any) -> int:
    """Exponential Golomb code of a magnitude beyond the tables; returns the next bit."""
    k = rice(e)
    x, length = v - ESCAPE + (1 << k), 0
    while x >> (length + 1):
        length += 1
    for _ in range(length - k):
        n_raw = _put_bit(raw, n_raw, True)
    n_raw = _put_bit(raw, n_raw, False)
    for bit in range(length - 1, -1, -1):
        n_raw = _put_bit(raw, n_raw, (x >> bit) & 1 == 1)
    return n_raw


@kernel
def rans_encode(freq: Array, cum: Array, lanes: int, words: Array, states: Array) -> int:
    """Code symbols last to first over interleaved lanes; words come out in the order in which they are read.

    Parameters
    ----------
    freq, cum
        uint16, of each symbol; their sum is ``TOTAL``.
    lanes
        Interleaved states.
    words
        uint16, at least one more than symbols; filled from its end.
    states
        int64 ``(lanes,)``: final states.

    Returns
    -------
    int
        First word that was written.
    """
    for lane in range(lanes):
        states[lane] = LOW
    at = words.size
    for i in range(freq.size - 1, -1, -1):
        x, f = states[i & (lanes - 1)], np.int64(freq[i])
        if x >= f << (32 - PRECISION):
            at -= 1
            words[at] = x & 0xFFFF
            x >>= 16
        states[i & (lanes - 1)] = ((x // f) << PRECISION) + x % f + cum[i]
    return at
