"""Compiled decoder of integer planes; the plain form is in :mod:`stac_latent.stages.context._numpy`."""

from __future__ import annotations

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context._numba_contexts import (
    context,
    places_of,
    renormalise,
    rice,
    sign_context,
    unsigned,
)
from stac_latent.stages.context.model import (
    BINS,
    CAP,
    COUNT,
    ESCAPE,
    LOW,
    PRECISION,
    RUN,
    SIGNS,
    SYMBOLS,
    TOTAL,
)
from stac_latent.stages.transform.kernels import kernel

__all__ = ["decode"]

_MASK = TOTAL - 1


@kernel
def decode(  # noqa: C901, PLR0911, PLR0912, PLR0915 - the inverse of choose and rans_encode, in one loop nest
    words: Array, states: Array, raw: Array, n_raw: int, tab: Array, weights: Array, counts: Array, runs: Array,
    signs: Array, lut: Array, q: Array, m: Array, r: Array, ends: Array, whole: bool,
) -> int:  # fmt: skip
    """Decode planes; see :func:`choose` for the arguments.

    Parameters
    ----------
    words
        uint16, the coded words.
    states
        int64 ``(lanes,)``, as stored.
    raw, n_raw
        Raw bits, and how many there are.
    ends
        int64, receives the number of words that are read with each plane and those before it.
    whole
        Whether the stream ends with the planes of the table; if not, more planes follow that are not wanted.

    Returns
    -------
    int
        0, or 1 where the stream ends too soon or does not end where it should.
    """
    freqs, cums = np.zeros(counts.shape, np.int64), np.full((4, BINS, SYMBOLS + 1), TOTAL, np.int64)
    rfreq, rcum = np.zeros((4, 2), np.int64), np.zeros((4, 2), np.int64)
    sfreq, scum = np.zeros((6 * SIGNS, 2), np.int64), np.zeros((6 * SIGNS, 2), np.int64)
    seen, rseen, sseen = np.zeros((4, BINS), np.int64), np.zeros(4, np.int64), np.zeros(6 * SIGNS, np.int64)
    fresh = np.zeros(6 * SIGNS, np.bool_)
    st, lane_mask = states.copy(), states.size - 1
    places = places_of(tab)
    m[:], r[:] = 0, 0
    w32 = weights.astype(np.int32)
    widest, most = 0, 0
    for k in range(tab.shape[0]):
        widest = max(widest, (tab[k, 2] + 1) // 2)
        most = max(most, (tab[k, 1] + 1) // 2 * ((tab[k, 2] + 1) // 2))
    e = np.zeros(widest + 2, np.int32)
    filled, phased = np.zeros(most + 2, np.int64), np.zeros(most + 2, np.int64)
    escaped, negative = np.zeros((most + 2, 2), np.int64), np.zeros(most + 2, np.bool_)
    n_sym, at_raw, at_word, n_words = 0, 0, 0, words.size
    for k in range(tab.shape[0]):
        h, wd = tab[k, 1], tab[k, 2]
        ends[k] = at_word
        if h == 0 or wd == 0:
            continue
        renormalise(runs, rfreq, rcum, rseen, fresh)
        renormalise(signs, sfreq, scum, sseen, fresh)
        for ps in range(4):
            renormalise(counts[ps], freqs[ps], cums[ps], seen[ps], fresh)
        oriented = -1 if tab[k, 7] < 2 else (tab[k, 7] - 2) // 2 % 3
        ws = (wd + 1) // 2 + 2
        size = ((h + 1) // 2 + 2) * ws
        for ps in range(4):
            oy, ox = ps % 2, (ps == 1) | (ps == 2)
            n, rows = (wd - ox + 1) // 2, (h - oy + 1) // 2
            if n <= 0 or rows <= 0:
                continue
            waiting, n_filled, n_escaped = 0, 0, 0
            freq, cum, count = freqs[ps], cums[ps], counts[ps]
            left = np.int64(w32[tab[k, 7], ps, 6])
            for row in range(rows):
                some = context(m, r, places, k, tab, w32[tab[k, 7], ps], ps, row, n, e)
                at = tab[k, 0] + (2 * row + oy + 1) * (wd + 2) + 1 + ox
                phase = places[k] + (0, 3, 1, 2)[ps] * size + (row + 1) * ws + 1
                i, before = -1, np.int32(0)
                while i < n - 1:
                    i += 1
                    b, expected = np.int64(0), (e[unsigned(i)] + before) >> 2
                    before = np.int32(0)
                    if expected:
                        b = np.int64(lut[unsigned(min(expected, lut.size - 1))])
                    else:
                        if waiting == 0:
                            lane = n_sym & lane_mask
                            n_sym += 1
                            x = st[lane]
                            slot = x & _MASK
                            s = np.int64(slot >= rcum[ps, 1])
                            x = rfreq[ps, s] * (x >> PRECISION) + slot - rcum[ps, s]
                            if x < LOW:
                                if at_word >= n_words:
                                    return 1
                                x = (x << 16) | words[at_word]
                                at_word += 1
                            st[lane] = x
                            runs[ps, s] += COUNT
                            waiting = RUN if s else -RUN
                        if waiting < 0:
                            skip, most_skip = 1, min(-waiting, n - i)  # pass over what is in the run at once
                            if some:
                                while skip < most_skip and e[unsigned(i + skip)] < 4:
                                    skip += 1
                            else:
                                skip = most_skip
                            waiting += skip
                            i += skip - 1
                            continue
                        waiting -= 1
                    lane = n_sym & lane_mask
                    n_sym += 1
                    x = st[lane]
                    slot = x & _MASK
                    s = np.int64(0)
                    while slot >= cum[b, s + 1]:
                        s += 1
                    x = freq[b, s] * (x >> PRECISION) + slot - cum[b, s]
                    if x < LOW:
                        if at_word >= n_words:
                            return 1
                        x = (x << 16) | words[at_word]
                        at_word += 1
                    st[lane] = x
                    count[b, s] += COUNT
                    if s:
                        q[at + 2 * i] = s
                        if at + 2 * i < r.size:
                            r[at + 2 * i] = s
                        m[phase + i] = s
                        before = np.int32(left * s)
                        if s == ESCAPE:
                            escaped[n_escaped, 0], escaped[n_escaped, 1] = n_filled, expected
                            n_escaped += 1
                        filled[n_filled], phased[n_filled] = at + 2 * i, phase + i
                        n_filled += 1
            directed = oriented >= 0 and ps > 0
            for j in range(n_filled):
                around = sign_context(q, filled[j], wd + 2, ps) if directed else 12
                if around == 12:
                    if at_raw >= n_raw:
                        return 1
                    negative[j] = raw[at_raw >> 3] & (128 >> (at_raw & 7)) != 0
                    at_raw += 1
                    continue
                c = (2 * oriented + (ps > 1)) * SIGNS + (around - 13 if around > 12 else 11 - around)
                lane = n_sym & lane_mask
                n_sym += 1
                x = st[lane]
                slot = x & _MASK
                s = np.int64(slot >= scum[c, 1])
                x = sfreq[c, s] * (x >> PRECISION) + slot - scum[c, s]
                if x < LOW:
                    if at_word >= n_words:
                        return 1
                    x = (x << 16) | words[at_word]
                    at_word += 1
                st[lane] = x
                signs[c, s] += COUNT
                negative[j] = (s == 1) == (around > 12)
            for j in range(n_escaped):
                kk = rice(escaped[j, 1])
                length = kk
                while True:
                    if at_raw >= n_raw or length >= 30:
                        return 1
                    bit = raw[at_raw >> 3] & (128 >> (at_raw & 7))
                    at_raw += 1
                    if not bit:
                        break
                    length += 1
                if at_raw + length > n_raw:
                    return 1
                v = 1
                for _ in range(length):
                    v = 2 * v + (1 if raw[at_raw >> 3] & (128 >> (at_raw & 7)) else 0)
                    at_raw += 1
                v += ESCAPE - (1 << kk)
                place = escaped[j, 0]
                q[filled[place]] = v
                if filled[place] < r.size:
                    r[filled[place]] = min(v, CAP)
                m[phased[place]] = min(v, CAP)
            for j in range(n_filled):
                if negative[j]:
                    q[filled[j]] = -q[filled[j]]
        ends[k] = at_word
    if not whole:
        return 0
    for lane in range(states.size):
        if st[lane] != LOW:
            return 1
    return 0 if at_word == n_words and at_raw == n_raw else 1
