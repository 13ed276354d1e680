"""Coder of integer planes without numba: the same bytes as :mod:`stac_latent.stages.context._numba_encode`, some 30 times slower.

What passes before say is vectorised over a pass; what depends on samples of the same pass, and the entropy coder itself, steps
symbol by symbol.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.context.model import (
    ADAPT_LIMIT,
    CAP,
    COUNT,
    ESCAPE,
    LOW,
    PRECISION,
    RUN,
    SHARE_BITS,
    SIGNS,
    TOTAL,
    orientation_of,
)

__all__ = ["choose", "decode", "features", "rans_encode", "scratch_sizes"]

_SHIFTS = ((0, 0), (1, 1), (0, 1), (1, 0))
_DIRECT = ((0, -1), (0, 1), (-1, 0), (1, 0))
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def scratch_sizes(_tab: Array) -> tuple[int, int]:
    """No buffers are needed here."""
    return 0, 0


def _view(q: Array, tab: Array, k: int) -> Array:
    """Plane ``k`` with a margin of one, which is zero."""
    at, h, w = tab[k, :3]
    return q[at : at + (h + 2) * (w + 2)].reshape(h + 2, w + 2)


def _around(a: Array, shifts: tuple[tuple[int, int], ...], where: tuple[slice, slice]) -> Array:
    h, w = a.shape[0] - 2, a.shape[1] - 2
    parts = [a[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w][where] for dy, dx in shifts]
    return np.asarray(np.sum([_magnitude(p) for p in parts], axis=0, dtype=np.int64))


def _magnitude(a: Array) -> Array:
    return np.asarray(np.minimum(np.abs(a.astype(np.int64)), CAP))


def _parts(q: Array, tab: Array, k: int, step: int, wanted: Array) -> Iterator[tuple[int, Array]]:
    """Number of the weight, and what it weighs, int64 ``(y, x)``; of weights that are ``wanted`` and have something."""
    oy, ox = _SHIFTS[step]
    where = (slice(oy, None, 2), slice(ox, None, 2))
    own = _view(q, tab, k)
    if step and wanted[0]:
        yield 0, _around(own, _DIAGONAL if step == 1 else _DIRECT, where)
    if step == 3 and wanted[1]:
        yield 1, _around(own, _DIAGONAL, where)
    h, w = own[1:-1, 1:-1][where].shape
    cut = (slice(0, h), slice(0, w))
    if tab[k, 3] >= 0:
        parent = _view(q, tab, int(tab[k, 3]))
        wide = np.pad(parent, ((0, 2), (0, 2)))  # parents of odd tiles may be a sample smaller
        if wanted[2]:
            yield 2, _magnitude(wide[1:-1, 1:-1][cut])
        if wanted[3]:
            yield 3, _around(wide, (*_DIRECT, *_DIAGONAL), cut)
    for column, i in ((4, 4), (5, 5), (6, 5)):
        if tab[k, column] >= 0 and wanted[i]:
            yield i, _magnitude(_view(q, tab, int(tab[k, column]))[1:-1, 1:-1][where])


def context(q: Array, tab: Array, k: int, weights: Array, step: int) -> Array:
    """What passes before and other planes add to the expected magnitudes of one pass, in 256ths, int64 ``(y, x)``."""
    oy, ox = _SHIFTS[step]
    w = weights[tab[k, 7], step]
    e = np.zeros(_view(q, tab, k)[1:-1, 1:-1][oy::2, ox::2].shape, np.int64)
    for i, part in _parts(q, tab, k, step, w):
        e += w[i] * part
    return e


def _bins(sums: Array, lut: Array) -> Array:
    return np.asarray(lut[np.minimum(sums >> 2, lut.size - 1)].astype(np.int64))


def same_pass(m: Array) -> tuple[Array, Array]:
    """Left of each sample of a pass, and the three above it, from its magnitudes int64 ``(y, x)``."""
    wide = np.pad(np.minimum(m, ESCAPE), ((1, 0), (1, 1)))
    return wide[1:, :-2], wide[:-1, :-2] + wide[:-1, 1:-1] + wide[:-1, 2:]


def pass_of(q: Array, tab: Array, k: int, step: int) -> Array:
    """Samples of one pass, in order."""
    oy, ox = _SHIFTS[step]
    return _view(q, tab, k)[1:-1, 1:-1][oy::2, ox::2].ravel()


def features(q: Array, tab: Array, k: int, step: int) -> tuple[Array, Array]:
    """What weights weigh, int64 ``(sample, 8)``, and the magnitudes of one pass, for the fit of the model."""
    oy, ox = _SHIFTS[step]
    m = np.abs(_view(q, tab, k)[1:-1, 1:-1][oy::2, ox::2].astype(np.int64))
    out = np.zeros((m.size, 8), np.int64)
    if m.size:
        for i, part in _parts(q, tab, k, step, np.ones(6, np.int64)):
            out[:, i] += part.ravel()
        out[:, 6], out[:, 7] = (part.ravel() for part in same_pass(m))
    return out, m.ravel()


def sign_contexts(q: Array, tab: Array, k: int, step: int, samples: Array) -> tuple[Array, Array]:
    """Contexts of the signs of some samples of a pass: rows of the table, -1 for a raw bit, and whether they are mirrored."""
    oriented = orientation_of(int(tab[k, 7]))
    if oriented < 0 or step == 0:
        return np.full(samples.size, -1, np.int64), np.zeros(samples.size, bool)
    oy, ox = _SHIFTS[step]
    signs = np.sign(_view(q, tab, k)).astype(np.int64)
    h, w = signs.shape[0] - 2, signs.shape[1] - 2

    def near(shifts: tuple[tuple[int, int], ...]) -> Array:
        parts = [signs[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w][oy::2, ox::2] for dy, dx in shifts]
        return (parts[0] + parts[1]).ravel()[samples]

    a, b = (
        (near(p) for p in (((-1, -1), (1, 1)), ((-1, 1), (1, -1))))
        if step == 1
        else (near(_DIRECT[:2]), near(_DIRECT[2:]))
    )
    around = 5 * a + b + 12
    row = np.where(around > 12, around - 13, 11 - around) + (2 * oriented + (step > 1)) * SIGNS
    return np.where(around == 12, -1, row), around < 12


def renormalise(counts: Array, limit: int = ADAPT_LIMIT) -> tuple[Array, Array]:
    """Frequencies and cumulated frequencies of counts, as the compiled form has them; counts of a larger sum are halved."""
    total = counts.sum(axis=1)
    big = total > limit
    counts[big] = (counts[big] + 1) // 2
    total = counts.sum(axis=1)
    freq = 1 + (counts * (((TOTAL - counts.shape[1]) << SHARE_BITS) // total)[:, None] >> SHARE_BITS)
    freq[np.arange(len(freq)), counts.argmax(axis=1)] += TOTAL - freq.sum(axis=1)
    return freq, np.cumsum(freq, axis=1) - freq


def _passes(tab: Array) -> Iterator[tuple[int, bool, int]]:
    """Planes and passes that hold samples: ``(plane, first pass of it, pass)``."""
    for k in range(len(tab)):
        h, w = tab[k, 1], tab[k, 2]
        if h and w:
            for step, (oy, ox) in enumerate(_SHIFTS):
                if h > oy and w > ox:
                    yield k, step == 0, step


def _runs(bins: Array, nonzero: Array) -> tuple[Array, Array, Array]:
    """Positions of bin 0 that open a run, whether each run holds a nonzero, and which samples are coded alone."""
    zero = np.flatnonzero(bins == 0)
    heads = zero[::RUN]
    flags = (
        np.logical_or.reduceat(nonzero[zero], np.arange(0, zero.size, RUN))
        if zero.size
        else np.zeros(0, bool)
    )
    coded = np.ones(bins.size, bool)
    coded[zero] = np.repeat(flags, RUN)[: zero.size]
    return heads, flags, coded


def choose(
    u: Array, weight: Array, tab: Array, weights: Array, counts: Array, runs: Array, signs: Array, lut: Array,
    bits: Array, lam: float, q: Array, out_freq: Array, out_cum: Array, raw: Array, tally: Array, _m: Array, _r: Array,
) -> None:  # fmt: skip
    """As :func:`stac_latent.stages.context._numba_encode.choose`."""
    n_sym, n_raw = 0, 0
    raw[:] = 0
    tables: list[tuple[Array, Array]] = []
    rfreq = rcum = sfreq = scum = np.zeros((0, 0), np.int64)
    for k, start, step in _passes(tab):
        if start:
            tables = [renormalise(c) for c in counts]
            rfreq, rcum = renormalise(runs)
            sfreq, scum = renormalise(signs)
        freq, cum = tables[step]
        oy, ox = _SHIFTS[step]
        where = (slice(oy, None, 2), slice(ox, None, 2))
        base = context(q, tab, k, weights, step)
        v = _view(u, tab, k)[1:-1, 1:-1][where].ravel()
        g = (
            np.ones(v.size, np.float32)
            if weight.size == 1
            else _view(weight, tab, k)[1:-1, 1:-1][where].ravel()
        )
        first = bits[rfreq[step, 1]] - bits[rfreq[step, 0]] + (RUN - 1) * bits[freq[0, 0]]
        left, above = weights[tab[k, 7], step, 6:].tolist()
        m = _decide(np.abs(v), g, base, (left, above), lut, bits[freq], first, lam)
        beside, over = same_pass(m.reshape(base.shape))
        sums = (base + left * beside + above * over).ravel()
        e, b = sums >> 2, _bins(sums, lut)
        signed = np.where(v >= 0, m, -m).astype(np.int32)
        plane = _view(q, tab, k)[1:-1, 1:-1]
        plane[where] = signed.reshape(plane[where].shape)
        heads, flags, coded = _runs(b, m > 0)
        s = np.minimum(m, ESCAPE)
        key = np.concatenate([heads * 2, np.flatnonzero(coded) * 2 + 1])
        order = np.argsort(key, kind="stable")
        f = flags.astype(np.int64)
        every = np.concatenate([rfreq[step, f], freq[b, s][coded]])[order]
        out_freq[n_sym : n_sym + every.size] = every
        out_cum[n_sym : n_sym + every.size] = np.concatenate([rcum[step, f], cum[b, s][coded]])[order]
        n_sym += every.size
        np.add.at(runs[step], f, COUNT)
        np.add.at(counts[step], (b[coded], s[coded]), COUNT)
        filled = np.flatnonzero(signed)
        negative = signed[filled] < 0
        row, mirrored = sign_contexts(q, tab, k, step, filled)
        plain = row < 0
        _put(raw, n_raw, negative[plain])
        n_raw += int(plain.sum())
        row, other = row[~plain], (negative != mirrored)[~plain].astype(np.int64)
        out_freq[n_sym : n_sym + row.size] = sfreq[row, other]
        out_cum[n_sym : n_sym + row.size] = scum[row, other]
        n_sym += row.size
        np.add.at(signs, (row, other), COUNT)
        for i in np.flatnonzero(m >= ESCAPE):
            n_raw = _put_escape(raw, n_raw, int(m[i]), int(e[i]))
    tally[0], tally[1] = n_sym, n_raw


def _decide(
    v: Array, g: Array, base: Array, same: tuple[int, int], lut: Array, cost: Array, first: float, lam: float
) -> Array:
    """Magnitudes of least ``g * d**2 + lam * bits`` among the nearest, the one below and zero; one after the other."""
    rows, width = base.shape
    left, above = same
    top = (v + np.float32(0.5)).astype(np.int64)
    seen = np.zeros((rows + 1, width + 2), np.int64)  # what is chosen, as the contexts see it
    out = np.zeros(v.size, np.int64)
    for i in np.flatnonzero(top).tolist():
        y, x = divmod(i, width)
        over = int(seen[y, x] + seen[y, x + 1] + seen[y, x + 2])
        e = (int(base[y, x]) + left * int(seen[y + 1, x]) + above * over) >> 2
        b = int(lut[min(e, lut.size - 1)])
        wide, weight = float(v[i]), float(g[i])
        best, least = 0, wide * wide * weight
        if b:
            least += lam * float(cost[b, 0])
        for t in range(int(top[i]), max(0, int(top[i]) - 2), -1):
            d = float(v[i] - np.float32(t))
            rate = float(cost[b, min(t, ESCAPE)]) + 1.0
            if not b:
                rate += first
            if t >= ESCAPE:
                rate += 2.0 * ((t - ESCAPE + 1).bit_length() - 1)
            j = d * d * weight + lam * rate
            if j < least:
                best, least = t, j
        out[i], seen[y + 1, x + 1] = best, min(best, ESCAPE)
    return out


def _put(raw: Array, at: int, flags: Array) -> None:
    where = at + np.flatnonzero(flags)
    np.bitwise_or.at(raw, where >> 3, (128 >> (where & 7)).astype(np.uint8))


def _put_escape(raw: Array, at: int, v: int, e: int) -> int:
    k = min(20, max(0, e.bit_length() - 8))
    x = v - ESCAPE + (1 << k)
    length = x.bit_length() - 1
    text = "1" * (length - k) + "0" + (format(x - (1 << length), f"0{length}b") if length else "")
    _put(raw, at, np.frombuffer(text.encode(), np.uint8) == ord("1"))
    return at + len(text)


def rans_encode(freq: Array, cum: Array, lanes: int, words: Array, states: Array) -> int:
    """As :func:`stac_latent.stages.context._numba_encode.rans_encode`."""
    st = [LOW] * lanes
    out: list[int] = []
    mask, shift = lanes - 1, 32 - PRECISION
    pairs = zip(freq.tolist(), cum.tolist(), strict=True)
    for i, (f, c) in reversed(list(enumerate(pairs))):
        x = st[i & mask]
        if x >= f << shift:
            out.append(x & 0xFFFF)
            x >>= 16
        st[i & mask] = ((x // f) << PRECISION) + x % f + c
    words[words.size - len(out) :] = out[::-1]
    states[:] = st
    return int(words.size - len(out))


def decode(
    words: Array, states: Array, raw: Array, n_raw: int, tab: Array, weights: Array, counts: Array, runs: Array,
    signs: Array, lut: Array, q: Array, _m: Array, _r: Array, ends: Array, whole: bool,
) -> int:  # fmt: skip
    """As :func:`stac_latent.stages.context._numba_decode.decode`."""
    reader = _Reader(words.tolist(), states.tolist())
    ends[:] = 0
    flags = np.unpackbits(raw, count=min(n_raw, 8 * raw.size)).astype(bool)
    at = 0
    tables: list[tuple[Array, Array]] = []
    rfreq = rcum = sfreq = scum = np.zeros((0, 0), np.int64)
    try:
        for k, start, step in _passes(tab):
            if start:
                tables = [renormalise(c) for c in counts]
                rfreq, rcum = renormalise(runs)
                sfreq, scum = renormalise(signs)
            oy, ox = _SHIFTS[step]
            base, same = context(q, tab, k, weights, step), weights[tab[k, 7], step, 6:].tolist()
            m, escapes = reader.magnitudes(
                base, same, lut, *tables[step], rfreq[step], rcum[step], counts[step], runs[step]
            )
            filled = np.flatnonzero(m)
            row, mirrored = sign_contexts(q, tab, k, step, filled)
            plain = row < 0
            if at + int(plain.sum()) > n_raw:
                return 1
            negative = np.zeros(filled.size, bool)
            negative[plain] = flags[at : at + int(plain.sum())]
            negative[~plain] = reader.signs(row[~plain], sfreq, scum, signs) != mirrored[~plain]
            at += int(plain.sum())
            for i, e in escapes:
                m[i], at = _take_escape(flags, at, e)
            m[filled] = np.where(negative, -m[filled], m[filled])
            plane = _view(q, tab, k)[1:-1, 1:-1][oy::2, ox::2]
            plane[...] = m.reshape(plane.shape)
            ends[k:] = reader.at
    except IndexError:
        return 1
    if not whole:
        return 0
    ended = all(x == LOW for x in reader.states) and reader.at == len(reader.words) and at == n_raw
    return 0 if ended else 1


def _take_escape(flags: Array, at: int, e: int) -> tuple[int, int]:
    k = min(20, max(0, e.bit_length() - 8))
    length = k
    while flags[at]:
        at += 1
        length += 1
        if length >= 30:
            raise IndexError("an escape of 30 bits or more")
    at += 1
    x = 1
    for i in range(length):
        x = 2 * x + int(flags[at + i])
    return ESCAPE + x - (1 << k), at + length


class _Reader:
    """Interleaved rANS states, symbol by symbol."""

    def __init__(self, words: list[int], states: list[int]) -> None:
        self.words, self.states = words, states
        self.at = self.count = 0
        self.mask = len(states) - 1

    def magnitudes(
        self, base: Array, same: list[int], lut: Array, freq: Array, cum: Array, rfreq: Array, rcum: Array,
        counts: Array, runs: Array,
    ) -> tuple[Array, list[tuple[int, int]]]:  # fmt: skip
        """Symbols of one pass, int64, and place and expected magnitude of each escape; counts what it read."""
        f, c = freq.tolist(), cum.tolist()
        rf, rc = rfreq.tolist(), rcum.tolist()
        left, above = same
        out: list[int] = []
        escapes = []
        waiting = 0
        last = np.zeros(base.shape[1] + 2, np.int64)
        for line in base:
            over = line + above * (last[:-2] + last[1:-1] + last[2:]) if out and last.any() else line
            now = [0] * last.size
            for i, (e, b) in enumerate(zip(over.tolist(), _bins(over, lut).tolist(), strict=True)):
                if now[i]:
                    e += left * now[i]  # noqa: PLW2901 - what was decoded just before counts too
                    b = int(lut[min(e >> 2, lut.size - 1)])  # noqa: PLW2901
                if b == 0:
                    if waiting == 0:
                        s = self.symbol(rf, rc)
                        runs[s] += COUNT
                        waiting = RUN if s else -RUN
                    if waiting < 0:
                        waiting += 1
                        continue
                    waiting -= 1
                s = now[i + 1] = self.symbol(f[b], c[b])
                counts[b, s] += COUNT
                if s == ESCAPE:
                    escapes.append((len(out) + i, e >> 2))
            out += now[1:-1]
            last = np.array(now)
        return np.array(out, np.int64), escapes

    def signs(self, rows: Array, freq: Array, cum: Array, counts: Array) -> Array:
        """Signs of some samples, bool: whether they differ from their contexts; counts what it read."""
        f, c = freq.tolist(), cum.tolist()
        out = np.array([self.symbol(f[r], c[r]) for r in rows.tolist()], np.int64)
        np.add.at(counts, (rows, out), COUNT)
        return np.asarray(out == 1)

    def symbol(self, freq: list[int], cum: list[int]) -> int:
        lane = self.count & self.mask
        self.count += 1
        x = self.states[lane]
        slot = x & (TOTAL - 1)
        s, last = 0, len(freq) - 1
        while s < last and slot >= cum[s + 1]:
            s += 1
        x = freq[s] * (x >> PRECISION) + slot - cum[s]
        if x < LOW:
            x = (x << 16) | self.words[self.at]
            self.at += 1
        self.states[lane] = x
        return s
