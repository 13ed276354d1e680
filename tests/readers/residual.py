"""A decoder of ``stac-latent-residual-1`` written from spec/residual.md alone: plain, slow, of one tile."""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from itertools import pairwise

import numpy as np

START = [*range(12), 12, *(v for j in range(20) for v in (2 ** (4 + j), 3 * 2 ** (3 + j)))]
EXTRA = [(b - a).bit_length() - 1 for a, b in pairwise(START)]
SHIFT = [max(0, (b - 1) // 2 - 11) for b in range(58)] + [4]
F = (2, 1, 2)


class Refused(Exception):
    """The payload is none of the tile."""


def inflate(data, size):
    raw = zlib.decompress(data)
    if size is not None and len(raw) != size:
        raise Refused(f"{len(raw)} bytes instead of {size}")
    return raw


def planes_of_bytes(raw, counts, types):
    out, at = [], 0
    for n, t in zip(counts, types, strict=True):
        z = t.itemsize
        columns = np.frombuffer(raw, np.uint8, n * z, at).reshape(z, n)
        out.append(np.ascontiguousarray(columns.T).view(t.newbyteorder("<")).ravel().astype(t))
        at += n * z
    if at != len(raw):
        raise Refused("values are not as many as declared")
    return out


def power(x, n):
    out = 1.0
    while n:
        if n & 1:
            out = out * x
        x, n = x * x, n >> 1
    return out


def first_counts():
    tables = []
    for b in range(59):
        half = 0.8408964152537145 if b % 2 == 0 else 1.189207115002721
        middle = 0.01 if b == 0 else 1024.0 if b == 58 else 2.0 ** (b // 2) * half / 256
        x = middle / (1 + middle)
        p = [power(x, v << SHIFT[b]) for v in START]
        tables.append([max(1, round(256 * (p[t] - p[t + 1]))) for t in range(52)] + [1])
    return tables


def frequencies(table):
    if sum(table) > 2**15:
        table[:] = [(n + 1) // 2 for n in table]
    share = 2**20 * (2**14 - len(table)) // sum(table)
    f = [1 + n * share // 2**20 for n in table]
    f[table.index(max(table))] += 2**14 - sum(f)
    return f


def sides(i, d, n):
    low, high = i - d, i + d
    if low < 0 and high >= n:
        return None
    return (low if low >= 0 else high), (high if high < n else low)


def passes(h, w):
    """Level, kind, and pixels with their near and far neighbours."""
    yield 6, -1, [((y, x), None, None) for y in range(0, h, 64) for x in range(0, w, 64)]
    for level in (5, 4, 3, 2, 1, 0):
        s = 2**level
        for kind, (oy, ox) in enumerate(((s, s), (0, s), (s, 0))):
            some = [
                ((y, x), *neighbours(y, x, s, kind, h, w))
                for y in range(oy, h, 2 * s)
                for x in range(ox, w, 2 * s)
            ]
            if some:
                yield level, kind, some


def neighbours(y, x, s, kind, h, w):
    rows, columns = sides(y, s, h), sides(x, s, w)
    u3, v3 = sides(y, 3 * s, h) or rows or (None, None)
    l3, r3 = sides(x, 3 * s, w) or columns or (None, None)
    if kind == 0:
        (u, v), (l, r) = rows, columns
        return [(u, l), (v, r), (u, r), (v, l)], [
            [(u3, l), (v3, r), (u3, r), (v3, l)],
            [(u, l3), (v, r3), (u, r3), (v, l3)],
        ]
    across = None if columns is None else [(y, columns[0]), (y, columns[1])]
    along = None if rows is None else [(rows[0], x), (rows[1], x)]
    if kind == 1:
        return [*across, *(along or across)], [[(y, l3), (y, r3)] * 2]
    corners = along * 2
    if columns is not None:
        (u, v), (l, r) = rows, columns
        corners = [(u, l), (v, r), (u, r), (v, l)]
    return [*(across or along), *along], [[(u3, x), (v3, x)] * 2, corners]


def mean(plane, where):
    a, b, c, d = (plane[i] for i in where)
    return ((a + b) + (c + d)) * 0.25


def details(plane, all_passes):
    out = np.zeros(plane.shape)
    for _, kind, pixels in all_passes:
        for at, near, _ in pixels:
            if kind >= 0:
                out[at] = plane[at] - mean(plane, near)
    return out


def order(x):
    z = 8 * x.dtype.itemsize
    n = x.view(f"i{x.dtype.itemsize}").astype(object)
    return np.vectorize(lambda v: v if v >= 0 else -(2 ** (z - 1)) - v - 1, otypes=[object])(n)


def plain(x, kind):
    if kind == 3:
        return order(x).astype(np.float64)
    y = x.astype(np.float64)
    return np.where(np.isfinite(y), y, 0.0)


class Stream:
    def __init__(self, words, states, raw, bits):
        self.words, self.states = words, list(states)
        self.bits = np.unpackbits(np.frombuffer(raw, np.uint8))[:bits].tolist()
        self.word = self.number = self.bit = 0

    def token(self, f):
        lane = self.number % len(self.states)
        self.number += 1
        x, s, low = self.states[lane], 0, 0
        slot = x % 2**14
        while slot >= low + f[s]:
            low += f[s]
            s += 1
        x = f[s] * (x // 2**14) + slot - low
        if x < 2**16:
            x = x * 2**16 + self.words[self.word]
            self.word += 1
        self.states[lane] = x
        return s

    def take(self, n):
        value = 0
        for _ in range(n):
            value = 2 * value + self.bits[self.bit]
            self.bit += 1
        return value

    def ended(self):
        return set(self.states) == {2**16} and self.word == len(self.words) and self.bit == len(self.bits)


def value_of(p, k, kind, bound, small, dtype):
    p = float(p)
    if kind in (0, 2) and dtype.kind in "iu":
        lo, hi = (int(v) for v in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    whole = min(int(bound), 2**40)
    if kind == 0:
        return dtype.type(
            min(hi, max(lo, int(min(float(hi), max(float(lo), round(p)))) + k * (2 * whole + 1)))
        )
    if kind == 1:
        return np.float64(p + k * (2 * bound * (1 - 2.0**-20))).astype(dtype)
    if kind == 3:
        z = 8 * dtype.itemsize
        n = round(min(2.0**62, max(-(2.0**62), p))) + k
        n = n if n >= 0 else -(2 ** (z - 1)) - n - 1
        return np.array([n], f"i{dtype.itemsize}").view(dtype)[0]
    k = max(-1023, min(1023, k))
    integer = dtype.kind in "iu"
    p = float(round(p)) if integer else p
    if abs(p) < small:
        p = 0.0
    if integer:
        e = bound - 0.6 / max(abs(p), 1) if bound * abs(p) >= 4 else 0.0
    else:
        e = max(0.0, bound * (1 - 2.0**-20) - (2.0**-50 if dtype.itemsize == 8 else 2.0**-22))
    r = (1 + e) / (1 - e)
    if integer and e == 0:
        value = p + k * (2 * np.floor(bound * abs(p) / (1 + bound)) + 1)
    else:
        value = p / power(r, -k) if k < 0 else p * power(r, k)
    if not integer:
        return np.float64(value).astype(dtype)
    if not np.isfinite(value):
        return dtype.type(0)
    return dtype.type(min(hi, max(lo, round(min(2.0**52, max(-(2.0**52), value))))))


def decode(data, base, mask):
    """Bands of a tile within their bounds; ``base`` is one array (y, x) a band, ``mask`` booleans alike."""
    types, out = [b.dtype for b in base], [b.copy() for b in base]
    if data[:1] == b"\2":
        counts = [int(m.sum()) for m in mask]
        size = sum(n * t.itemsize for n, t in zip(counts, types, strict=True))
        for o, m, v in zip(out, mask, planes_of_bytes(inflate(data[1:], size), counts, types), strict=True):
            o[m] = v
        return out
    if data[:1] not in (b"\0", b"\1"):
        raise Refused("no form of a payload")
    crc = 0
    for b in base:
        crc = zlib.crc32(np.ascontiguousarray(b, b.dtype.newbyteorder("<")).tobytes(), crc)
    if struct.unpack_from("<I", data, 1)[0] != crc:
        raise Refused("another base")
    if data[0] == 0:
        if len(data) != 5:
            raise Refused("bytes follow")
        return out
    h, w = base[0].shape
    at, rows, columns = 6, np.ones(h, bool), np.ones(w, bool)
    if data[5]:
        n = struct.unpack_from("<H", data, 6)[0]
        bits = np.unpackbits(np.frombuffer(inflate(data[8 : 8 + n], -(-(h + w) // 8)), np.uint8))[: h + w] > 0
        rows, columns, at = bits[:h], bits[h:], 8 + n
        if not (rows[0] and columns[0]):
            raise Refused("the first row or column is left out")
    kept = [np.ascontiguousarray(b[rows][:, columns]) for b in base]
    some = [m[rows][:, columns] for m in mask]
    ys, xs = np.cumsum(rows) - 1, np.cumsum(columns) - 1
    for o, m, v in zip(out, mask, coded(data[at:], kept, some), strict=True):
        o[m] = v[ys][:, xs][m]
    return out


def coded(data, base, mask):
    groups, lanes, *sizes, bits, words = struct.unpack_from("<BBIIIII", data)
    if groups not in (1, 3) or lanes not in (1, 8):
        raise Refused("groups or states")
    ends = np.cumsum([22, *sizes, 4 * lanes, 2 * words]).tolist()
    if ends[-1] != len(data):
        raise Refused("the payload does not end with its last word")
    side, exact, raw = (data[a:b] for a, b in pairwise(ends[:4]))
    stream = Stream(
        struct.unpack_from(f"<{words}H", data, ends[4]),
        struct.unpack_from(f"<{lanes}I", data, ends[3]),
        raw,
        bits,
    )
    bands, types = len(base), [b.dtype for b in base]
    sets = [(b, k % 3) for b in range(bands) for k in range(3 * groups)]
    n_values = [5 + F[k] + (min(b, 8) + 3 if b else 0) for b, k in sets]
    n_sizes = [3 + F[k] + (min(b, 3) + 1 if b else 0) for b, k in sets]
    total = sum(n_values)
    side = inflate(side, 25 * bands + 2 * total + sum(n_sizes))
    about = list(struct.iter_unpack("<Bddd", side[: 25 * bands]))
    high = np.frombuffer(side, np.int8, total, 25 * bands).astype(int)
    low = np.frombuffer(side, np.uint8, total, 25 * bands + total)
    weights = np.split(256 * high + low, np.cumsum(n_values)[:-1])
    factors = np.split(
        np.frombuffer(side, np.uint8, offset=25 * bands + 2 * total).astype(int), np.cumsum(n_sizes)[:-1]
    )
    exact = inflate(exact, None)
    counts = struct.unpack_from(f"<{bands}I", exact)
    stored = planes_of_bytes(exact[4 * bands :], counts, types)
    order_of_pixels = list(passes(*base[0].shape))
    tables, known, out = first_counts(), [], []
    for b in range(bands):
        own, plane, sizes = one_band(
            b, base[b], mask[b], about[b], weights[3 * groups * b :], factors[3 * groups * b :], stored[b],
            order_of_pixels, groups, known, tables, stream,
        )  # fmt: skip
        around = np.zeros(sizes.shape, int)
        for _, kind, pixels in order_of_pixels:
            for at, near, _ in pixels:
                if kind >= 0:
                    around[at] = sum(sizes[i] for i in near)
        known.append((plane, details(plane, order_of_pixels), sizes, around))
        out.append(own)
    if not stream.ended():
        raise Refused("the stream does not end with its pixels")
    return out


def one_band(b, base, mask, about, weights, factors, stored, order_of_pixels, groups, known, tables, stream):
    kind_of_values, bound, small, typical = about
    types = (1, 2, 3) if base.dtype.kind == "f" else (0, 2)
    if kind_of_values not in types or not typical > 0 or small < 0 or bound < 0:
        raise Refused("kind or bound")
    whole = min(int(bound), 2**40)
    unit = max(1e-300, (2 * whole + 1, 2 * bound * (1 - 2.0**-20), 2 * bound * typical, 1.0)[kind_of_values])
    own, start = base.copy(), plain(base, kind_of_values)
    v, d, sizes = start.copy(), details(start, order_of_pixels), np.zeros(base.shape, int)
    stored = iter(stored)
    for level, kind, pixels in order_of_pixels:
        group = 3 * min(level, groups - 1) + kind
        by_bin = [frequencies(t) for t in tables]
        seen, waiting = defaultdict(int), []
        for at, near, far in pixels:
            if not mask[at]:
                continue
            p, bin_ = start[at], 58
            if kind >= 0:
                q = [v[i] for i in near]
                m = ((q[0] + q[1]) + (q[2] + q[3])) * 0.25
                features = [
                    q[0] - m,
                    q[1] - m,
                    q[2] - m,
                    *(mean(v, f) - m for f in far),
                    d[at],
                    (start[at] - d[at]) - m,
                ]
                features += [known[c][1][at] for c in range(b - 1, max(-1, b - 9), -1)]
                if b:
                    a = known[-1][0][at] - known[-1][1][at]
                    features += [known[-1][0][i] - a for i in near[:3]]
                p = m
                for weight, f in zip(weights[group], features, strict=True):
                    if weight:
                        p = p + (weight / 256) * f
                p = p if np.isfinite(p) else start[at]
                spread = min(2**20, round(min(2.0**30, (abs(q[0] - q[1]) + abs(q[2] - q[3])) / unit)))
                sums = [sum(sizes[i] for i in near), spread, *(sum(sizes[i] for i in f) for f in far)]
                sums += [4 * known[c][2][at] for c in range(b - 1, max(-1, b - 4), -1)]
                sums += [known[-1][3][at]] if b else []
                e = sum(int(x) * int(f) for x, f in zip(factors[group], [*sums, 4], strict=True))
                bin_ = min(57, (min(e, 2**28) ** 2).bit_length())
            token = stream.token(by_bin[bin_])
            seen[bin_, token] += 1
            waiting.append((at, p, bin_, token))
        for (bin_, token), n in seen.items():
            tables[bin_][token] += n
        for at, p, bin_, token in waiting:
            k, s = 0, SHIFT[bin_]
            if token == 52:
                own[at] = next(stored)
            else:
                if token or s:
                    low = stream.take(EXTRA[token] + s + 1)
                    k = (START[token] << s) + (low >> 1)
                    k = -k if low & 1 else k
                own[at] = value_of(p, k, kind_of_values, bound, small, base.dtype)
            v[at] = plain(np.array([own[at]], base.dtype), kind_of_values)[0]
            sizes[at] = min(abs(k), 2**20)
    return own, v, sizes
