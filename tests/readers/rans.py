"""A decoder of ``stac-latent-rans-1`` written from spec/rans.md alone, and of the transforms below it."""

from __future__ import annotations

import struct
import zlib

import numpy as np


class Stream:
    def __init__(self, words):
        self.words, self.state = list(words), 0
        self.fill()

    def fill(self):
        while self.words and self.state < 2**32:
            self.state = self.state * 2**32 + self.words.pop()

    def take(self, starts):
        slot = self.state % 2**24
        i = int(np.searchsorted(starts, slot, side="right")) - 1
        self.state = (self.state // 2**24) * int(starts[i + 1] - starts[i]) + slot - int(starts[i])
        if self.state < 2**32 and self.words:
            self.state = self.state * 2**32 + self.words.pop()
        return i


def starts_of(counts):
    n = len(counts)
    return np.concatenate([[0], np.cumsum(counts.astype(np.int64))]) * (2**24 - n) // 2**20 + np.arange(n + 1)


def cut(flat, radius):
    return [starts_of(t) for t in np.split(flat, np.cumsum(2 * radius + 2)[:-1])] if len(radius) else []


def decode(data, t):
    """Symbols of a chunk, int16; ``t`` are the tensors of the stage."""
    magic, channels, height, width, crc, n_words, n_escapes = struct.unpack_from("<4s6I", data)
    radius = t["radius"].astype(np.int64)
    count, runs = len(radius), len(t["gap_counts"])
    at = 28 + 4 * runs
    if magic != b"SLR1" or channels != len(t["typical"]) or len(data) != at + 4 * n_words + n_escapes:
        raise ValueError("no such payload")
    gaps = struct.unpack_from(f"<{runs}I", data, 28)
    stream = Stream(struct.unpack_from(f"<{n_words}I", data, at))
    rest = data[at + 4 * n_words :]
    escapes = iter(np.frombuffer(zlib.decompress(rest), "<i4").tolist() if rest else [])
    table = starts_of(t["index_counts"])
    index = np.array([stream.take(table) - count + int(u) for u in t["typical"]])
    table, class_, classes = starts_of(t["class_counts"]), 4, []
    for _ in range(height * width):
        class_ += stream.take(table) - 8
        classes.append(class_)
    which = np.clip(index[:, None] + np.array(classes)[None] - 4, 0, count)
    which[index == 0] = 0
    out = np.zeros(which.shape, np.int64)
    tables, nonzero = cut(t["counts"], radius), cut(t["nonzero_counts"], radius[:runs])

    def symbol(number, r):
        return next(escapes) if number == 2 * r + 1 else number - r

    for i in range(1, count + 1):
        places, r = np.argwhere(which == i), int(radius[i - 1])
        if i > runs:
            for c, n in places:
                out[c, n] = symbol(stream.take(tables[i - 1]), r)
            continue
        table, gap, found, at = starts_of(t["gap_counts"][i - 1]), 0, [], 0
        for _ in range(gaps[i - 1]):
            number = stream.take(table)
            gap += number
            if number < 256:
                at += gap
                found.append(at)
                at, gap = at + 1, 0
        for place in found:
            c, n = places[place]
            out[c, n] = symbol(stream.take(nonzero[i - 1]), r)
    out = out.reshape(channels, height, width)
    for c in t["predicted"]:
        out[c, :, 0] = np.cumsum(out[c, :, 0])
        out[c] = np.cumsum(out[c], axis=1)
    out = out.astype(np.int16)
    if zlib.crc32(out.astype("<i2").tobytes()) != crc:
        raise ValueError("another checksum")
    return out


def shifted(x):
    return np.rint(x / 2**14)


def inverse(x, stage, t):
    """Undo a stage; ``x`` is float64 (channel, y, x)."""
    name = stage["stage"]
    if name == "uniform":
        return x * np.array(stage["step"], np.float64).reshape(-1, 1, 1)
    if name == "klt":
        return shifted(np.einsum("cb,cyx->byx", t["matrix"].astype(np.float64), x))
    if name == "dct":
        return cosine(x, stage, t["basis"].astype(np.float64))
    return wavelet(x, stage["levels"])


def cosine(x, stage, basis):
    size, components = stage["size"], stage["components"]
    keep = stage["keep"] if stage["keep"] is not None else range(components * size * size)
    _, h, w = x.shape
    full = np.zeros((components * size * size, h, w))
    full[list(keep)] = x
    cells = full.reshape(components, size, size, h, w)
    half = shifted(np.einsum("kp,cjkyx->cjpyx", basis, cells))
    pixels = shifted(np.einsum("jq,cjpyx->cqpyx", basis, half))
    return pixels.transpose(0, 3, 1, 4, 2).reshape(components, h * size, w * size)


def wavelet(x, levels):
    per, (_, h, w) = 4**levels, x.shape
    cells = x.reshape(-1, per, h, w)
    low, at = cells[:, 0], 1
    for level in range(levels):
        m, bands = 2**level, []
        for _ in range(3):
            part = cells[:, at : at + m * m].reshape(-1, m, m, h, w)
            bands.append(part.transpose(0, 3, 1, 4, 2).reshape(-1, h * m, w * m))
            at += m * m
        along_x, along_y, both = bands
        low = merged(merged(low, along_y, 1), merged(along_x, both, 1), 2)
    return low


def merged(low, detail, axis):
    s, d = (np.moveaxis(v, axis, -1).copy() for v in (low, detail))

    def pairs(v, ahead):
        other = (
            np.concatenate([v[..., 1:], v[..., -1:]], -1)
            if ahead
            else np.concatenate([v[..., :1], v[..., :-1]], -1)
        )
        return v + other

    s += shifted(-7266 * pairs(d, ahead=False))
    d += shifted(-14466 * pairs(s, ahead=True))
    s += shifted(868 * pairs(d, ahead=False))
    d += shifted(25987 * pairs(s, ahead=True))
    out = np.empty((*s.shape[:-1], 2 * s.shape[-1]))
    out[..., ::2], out[..., 1::2] = s, d
    return np.moveaxis(out, -1, axis)
