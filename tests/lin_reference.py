"""A decoder of ``stac-latent-lin-1`` written from docs/lin.md alone: plain Python, slow, of one tile."""

from __future__ import annotations

import math
import struct
import zlib

NORMS = (
    (1.0113, 1.0404),
    (0.9984, 0.9672),
    (1.0458, 1.0396),
    (1.0668, 1.0751),
    (1.0729, 1.0858),
    (1.0745, 1.0887),
)
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
DIRECT = ((0, -1), (0, 1), (-1, 0), (1, 0))
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


class Bits:
    def __init__(self, data, count):
        self.bits = [byte >> (7 - i) & 1 for byte in data for i in range(8)][:count]
        self.at = 0

    def take(self, n):
        value = 0
        for _ in range(n):
            value = 2 * value + self.bits[self.at]
            self.at += 1
        return value


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def read_payload(data, bands):
    assert data[:3] == b"SL\x01"
    assert struct.unpack_from("<I", data, 3)[0] == zlib.crc32(data[7:])
    height, width, packed, step = struct.unpack_from("<HHBf", data, 7)
    at, gains = 16, [1.0] * bands
    if packed >> 7:
        gains = struct.unpack_from(f"<{bands}f", data, at)
        at += 4 * bands
    sizes = []
    for _ in range(3):
        value, at = varint(data, at)
        sizes.append(value)
    side = Bits(data[at : at + -(-sizes[0] // 8)], sizes[0])
    at += -(-sizes[0] // 8)
    raw = Bits(data[at : at + -(-sizes[1] // 8)], sizes[1])
    at += -(-sizes[1] // 8)
    lanes = 1 << (packed >> 4 & 7)
    states = list(struct.unpack_from(f"<{lanes}I", data, at))
    at += 4 * lanes
    words = list(struct.unpack_from(f"<{sizes[2]}H", data, at))
    assert at + 2 * sizes[2] == len(data)
    has_gains = bool(packed >> 7)
    return height, width, packed & 15, step, gains if has_gains else None, side, raw, states, words


def cos_sin(angle, precision):
    n = abs(angle) << (11 - precision)
    c, s = (round(2**20 * math.cos(i * math.pi / 4096)) / 2**20 for i in (n, 2048 - n))
    return c, -s if angle < 0 else s


def read_basis(side, fixed, last):
    m = len(fixed)
    digits = m.bit_length()
    mode = side.take(2)
    if mode < 2:
        return last if mode else fixed
    basis = [list(row) for row in (last if side.take(1) else fixed)]
    precision = side.take(3) + 4
    rows = side.take(digits)
    for i in range(rows):
        r = side.take(4)
        for j in range(i + 1, m):
            ones = 0
            while ones < 24 and side.take(1):
                ones += 1
            z = (ones << r) + side.take(r) if ones < 24 else side.take(17 + r)
            angle = -(z + 1) // 2 if z % 2 else z // 2
            if angle:
                c, s = cos_sin(angle, precision)
                x, y = basis[i], basis[j]
                basis[i] = [c * a + s * b for a, b in zip(x, y, strict=True)]
                basis[j] = [c * b - s * a for a, b in zip(x, y, strict=True)]
    return basis


class Coder:
    def __init__(self, model, raw, states, words):
        self.weights, self.counts, self.runs, self.signs = (
            model[k].astype(int).tolist() for k in ("weights", "counts", "runs", "signs")
        )
        self.raw, self.states, self.words = raw, states, words
        self.number = self.word = 0

    def symbol(self, frequency):
        lane = self.number % len(self.states)
        self.number += 1
        x = self.states[lane]
        slot, s, low = x % 2**14, 0, 0
        while slot >= low + frequency[s]:
            low += frequency[s]
            s += 1
        x = frequency[s] * (x // 2**14) + slot - low
        if x < 2**16:
            x = x * 2**16 + self.words[self.word]
            self.word += 1
        self.states[lane] = x
        return s

    def frequencies(self, tables):
        out = []
        for t in tables:
            if sum(t) > 2**16:
                t[:] = [(n + 1) // 2 for n in t]
            share = 2**20 * (2**14 - len(t)) // sum(t)
            f = [1 + n * share // 2**20 for n in t]
            f[t.index(max(t))] += 2**14 - sum(f)
            out.append(f)
        return out

    def sign(self, q, y, x, orientation, step, frequencies):
        """Whether a sample is negative."""

        def of(a, b):
            v = q.get((y + a, x + b), 0)
            return (v > 0) - (v < 0)

        if orientation < 0 or step == 0:
            return self.raw.take(1)
        if step == 1:
            a, b = of(-1, -1) + of(1, 1), of(-1, 1) + of(1, -1)
        else:
            a, b = of(0, -1) + of(0, 1), of(-1, 0) + of(1, 0)
        around = 5 * a + b
        if around == 0:
            return self.raw.take(1)
        row = abs(around) - 1
        s = self.symbol(frequencies[orientation][step > 1][row])
        self.signs[orientation][step > 1][row][s] += 32
        return s if around > 0 else 1 - s

    def plane(self, h, w, kind, orientation, parent, before, others):  # noqa: C901 - as the page has it
        """Samples ``{(y, x): value}`` of one plane; planes that are looked up are such dictionaries, or empty."""
        q = {}
        if not h * w:
            return q
        by_pass, flags = [self.frequencies(t) for t in self.counts], self.frequencies(self.runs)
        directed = [[self.frequencies(t) for t in both] for both in self.signs]

        def size(plane, y, x):
            return min(abs(plane.get((y, x), 0)), 32767)

        for step, (oy, ox) in enumerate(PASSES):
            ws, tables = self.weights[kind][step], by_pass[step]
            done = dict(q)
            found, same, waiting, flag = [], {}, 0, 0
            for y in range(oy, h, 2):
                for x in range(ox, w, 2):
                    near = () if step == 0 else DIAGONAL if step == 1 else DIRECT
                    e = ws[0] * sum(size(done, y + a, x + b) for a, b in near)
                    if step == 3:
                        e += ws[1] * sum(size(done, y + a, x + b) for a, b in DIAGONAL)
                    e += ws[2] * size(parent, y // 2, x // 2)
                    e += ws[3] * sum(size(parent, y // 2 + a, x // 2 + b) for a, b in (*DIRECT, *DIAGONAL))
                    e += ws[4] * size(before, y, x) + ws[5] * sum(size(o, y, x) for o in others)
                    e += ws[6] * same.get((y, x - 2), 0) + ws[7] * sum(
                        same.get((y - 2, x + a), 0) for a in (-2, 0, 2)
                    )
                    e //= 4
                    b = 0 if e == 0 else min(23, (min(e, 4095) ** 2).bit_length())
                    if b == 0:
                        if not waiting:
                            flag = self.symbol(flags[step])
                            self.runs[step][flag] += 32
                            waiting = 8
                        waiting -= 1
                        if not flag:
                            continue
                    s = self.symbol(tables[b])
                    self.counts[step][b][s] += 32
                    if s:
                        same[y, x] = s
                        found.append((y, x, s, e))
            signs = [self.sign(done, y, x, orientation, step, directed) for y, x, _, _ in found]
            for (y, x, s, e), negative in zip(found, signs, strict=True):
                value = s
                if s == 15:
                    k = n = min(20, max(0, e.bit_length() - 8))
                    while self.raw.take(1):
                        n += 1
                    value = (1 << n) + self.raw.take(n) + 15 - (1 << k)
                q[y, x] = -value if negative else value
        return q


def unlift(low, high):
    a, b, c, d, k = (
        f32(v)
        for v in (
            -1.586134342059924,
            -0.052980118572961,
            0.882911075530934,
            0.443506852043971,
            1.149604398860241,
        )
    )
    if not high:
        return low
    s, t = [f32(v * f32(1 / 1.149604398860241)) for v in low], [f32(v * k) for v in high]
    ns, nt = len(s), len(t)

    def lows(f):
        for i in range(ns):
            s[i] = f32(s[i] - f32(f * f32(t[max(i - 1, 0)] + t[min(i, nt - 1)])))

    def highs(f):
        for i in range(nt):
            t[i] = f32(t[i] - f32(f * f32(s[i] + s[min(i + 1, ns - 1)])))

    lows(d)
    highs(c)
    lows(b)
    highs(a)
    out = [0.0] * (ns + nt)
    out[::2], out[1::2] = s, t
    return out


def lift(x):
    """Inverse of :func:`unlift`: low samples and details."""
    a, b, c, d, k = (
        f32(v)
        for v in (
            -1.586134342059924,
            -0.052980118572961,
            0.882911075530934,
            0.443506852043971,
            1.149604398860241,
        )
    )
    if len(x) == 1:
        return x, []
    s, t = list(x[::2]), list(x[1::2])
    ns, nt = len(s), len(t)

    def lows(f):
        for i in range(ns):
            s[i] = f32(s[i] + f32(f * f32(t[max(i - 1, 0)] + t[min(i, nt - 1)])))

    def highs(f):
        for i in range(nt):
            t[i] = f32(t[i] + f32(f * f32(s[i] + s[min(i + 1, ns - 1)])))

    highs(a)
    lows(b)
    highs(c)
    lows(d)
    return [f32(v * k) for v in s], [f32(v * f32(1 / 1.149604398860241)) for v in t]


def to_latents(band):
    """Three levels of the wavelet, along x and then y; the sides at each level."""
    heights, widths = [len(band)], [len(band[0])]
    for _ in range(3):
        heights.append(-(-heights[-1] // 2))
        widths.append(-(-widths[-1] // 2))
    for level in range(3):
        h, w = heights[level], widths[level]
        for y in range(h):
            low, high = lift(band[y][:w])
            band[y][:w] = low + high
        for x in range(w):
            low, high = lift([band[y][x] for y in range(h)])
            for y, v in enumerate(low + high):
                band[y][x] = v
    return heights, widths


def unlift_levels(band, heights, widths, levels, depth):
    for level in range(levels, depth, -1):
        h, w, n, m = heights[level - 1], widths[level - 1], heights[level], widths[level]
        for x in range(w):
            column = [band[y][x] for y in range(h)]
            for y, v in enumerate(unlift(column[:n], column[n:])):
                band[y][x] = v
        for y in range(h):
            band[y][:w] = unlift(band[y][:m], band[y][m:w])


def pixels_of(payload, basis, model, counts, stop=0):
    """Pixels of each band in normalised units, lists of rows, of a tile of one part; ``counts`` are the bands of its arrays.

    With ``stop`` the levels down to that one stay as they are: coefficients in Mallat's layout.
    """
    bands = sum(counts)
    height, width, levels, step, gains, side, raw, states, words = read_payload(payload, bands)
    coder = Coder(model, raw, states, words)
    depth_of = [d for d, n in enumerate(counts) for _ in range(n)]
    heights, widths = [height], [width]
    for _ in range(levels):
        heights.append(-(-heights[-1] // 2))
        widths.append(-(-widths[-1] // 2))
    groups, last = [], None
    for level in (0, *range(levels, 0, -1)):
        members = [b for b in range(bands) if not level or level > depth_of[b]]
        fixed = [[float(v) for v in row[: len(members)]] for row in basis[level][: len(members)]]
        last = read_basis(side, fixed, last)
        counted = [side.take(len(members).bit_length()) for _ in range(3 if level else 1)]
        groups.append((level, members, last, counted))
    assert side.at == len(side.bits)
    image = [[[0.0] * widths[d] for _ in range(heights[d])] for d in depth_of]
    planes, shapes = {}, {}
    for g, (level, members, rows, counted) in enumerate(groups):
        h, w = heights[level or levels], widths[level or levels]
        details = [(heights[level - 1] - h, widths[level - 1] - w)] if level else []
        for o, count in enumerate(counted):
            dh, dw = details[0] if level else (0, 0)
            shape = (h, w) if not level else ((h, dw), (dh, w), (dh, dw))[o]
            top, left = (0, 0) if not level else ((0, w), (h, 0), (h, w))[o]
            shapes[g, o] = shape
            for c in range(count):
                near = [(g, o, c - 2)] if o == 0 else [(g, 0, c)] if o == 1 else [(g, 0, c), (g, 1, c)]
                others = [planes[n] for n in near if n in planes and shapes[n[:2]] == shape]
                parent = planes.get((g - 1, o, c), {}) if g > 1 else {}
                before = planes.get((g, o, c - 1), {})
                kind = (2 + 2 * (3 * (min(level, 3) - 1) + o) if level else 0) + (c > 0)
                planes[g, o, c] = coder.plane(*shape, kind, o if level else -1, parent, before, others)
            norm = 1.0 if not level else NORMS[level - 1][o == 2]
            for m, b in enumerate(members):
                for c in range(count):
                    factor = f32(f32(rows[c][m]) * f32(step / norm))
                    factor = factor if gains is None else f32(factor / gains[b])
                    for (y, x), v in planes[g, o, c].items():
                        line = image[b][top + y]
                        line[left + x] = f32(line[left + x] + f32(factor * f32(v)))
    assert all(x == 2**16 for x in coder.states)
    assert coder.word == len(words)
    assert raw.at == len(raw.bits)
    for band, depth in zip(image, depth_of, strict=True):
        unlift_levels(band, heights, widths, levels, max(stop, depth))
    return image


def identity(n):
    return [[[float(i == j) for j in range(n)] for i in range(n)]] * 7


def read_runs(data, at, size):
    """For each row or column of a tile the own pixel that covers it, and the next position."""
    empty, at = varint(data, at)
    common, at = varint(data, at)
    if common:
        first, at = varint(data, at)
        return [empty + (0 if i < first else 1 + (i - first) // common) for i in range(size)], at
    new = Bits(data[at : at + -(-(size - 1) // 8)], size - 1)
    out = [empty]
    for bit in new.bits:
        out.append(out[-1] + bit)
    return out, at + -(-(size - 1) // 8)


def in_parts(data, basis, model, bands, stop=0):
    assert struct.unpack_from("<I", data, 4)[0] == zlib.crc32(data[8:])
    height, at = varint(data, 8)
    width, at = varint(data, at)
    count, at = varint(data, at)
    parts = []
    for _ in range(count):
        arrays, n = [], 0
        n, at = varint(data, at)
        for _ in range(n):
            arrays.append([])
            members, at = varint(data, at)
            for _ in range(members):
                band, at = varint(data, at)
                arrays[-1].append(band)
        rows, at = read_runs(data, at, height)
        columns, at = read_runs(data, at, width)
        size, at = varint(data, at)
        parts.append((arrays, rows, columns, size))
    out = [None] * bands
    for arrays, rows, columns, size in parts:
        known = basis if arrays == [list(range(bands))] else identity(sum(map(len, arrays)))
        own = iter(pixels_of(data[at : at + size], known, model, [len(a) for a in arrays]))
        for depth, members in enumerate(arrays):
            for band in members:
                x = next(own)
                out[band] = [[x[r >> depth][c >> depth] for c in columns] for r in rows]
        at += size
    assert at == len(data)
    for band in out:
        heights, widths = to_latents(band)
        unlift_levels(band, heights, widths, 3, stop)
    return out


def decode(payload, basis, model, unit, mean):
    """Pixels of each band, in stored units and not yet rounded: lists of rows."""
    bands = len(unit)
    if payload[:4] == b"SLR\x01":
        image = in_parts(payload, basis, model, bands)
    else:
        image = pixels_of(payload, basis, model, [bands])
    return [
        [[v * 16 * (u / 16) + o for v in row] for row in band]
        for band, u, o in zip(image, unit, mean, strict=True)
    ]
