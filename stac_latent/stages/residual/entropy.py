"""Entropy coder of residuals: adaptive tables over tokens of magnitudes, rANS, and bits stored as they are.

The expected magnitude of a residual chooses a bin, half an octave wide. Of a magnitude, a few low bits that no table could
foretell are stored plainly; the rest is a token: 0 to 11, then two for each octave. The last token says that the pixel is
stored exactly elsewhere. Tables adapt from pass to pass.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError
from stac_latent.stages.context import _numba_encode, _numpy
from stac_latent.stages.context._numpy import renormalise
from stac_latent.stages.context.model import LOW, PRECISION, TOTAL
from stac_latent.stages.transform.kernels import COMPILED, kernel, warn_if_slow

__all__ = ["CAP", "LARGEST", "ROOT_BIN", "Decoder", "Encoder", "bins_of"]

_ADAPT_LIMIT = 1 << 15
UNIT = 256
"""Expected magnitudes are in 256ths."""
CAP = 1 << 20
"""Magnitudes count as this much at most in contexts."""
ROOT_BIN = 58
"""Bin of pixels that have no neighbours yet."""
BINS = ROOT_BIN + 1
_DIRECT = 12
_TOKENS = 52
EXACT = _TOKENS
"""Token of a pixel that is stored exactly."""
_STRENGTH = 256
_coder = _numba_encode if COMPILED else _numpy


def _starts() -> Array:
    """Smallest magnitude of each token, and the end of the last: int64 ``(_TOKENS + 1,)``."""
    out = [*range(_DIRECT), _DIRECT]
    v = 16
    while len(out) <= _TOKENS:
        out += [v, v + v // 2]
        v *= 2
    return np.array(out[: _TOKENS + 1], np.int64)


_START = _starts()
LARGEST = int(_START[-1])
"""Residuals of this magnitude or more have no token in some bin; their pixels are stored exactly."""
_EXTRA = np.array([int(v).bit_length() - 1 for v in np.diff(_START)], np.int64)
_SHIFT = np.maximum(0, (np.arange(BINS) - 1) // 2 - 11)
_SHIFT[ROOT_BIN] = 4


def bins_of(expected: Array) -> Array:
    """Bin of expected magnitudes in 256ths, int64: 0 for zero, then half octaves from 1 on."""
    e = np.minimum(expected, CAP * UNIT).astype(np.float64)
    half = np.frexp(e * e)[1]  # floor(2 log2(e)) + 1; products of floats round alike on any machine
    return np.asarray(np.where(expected > 0, np.minimum(half, ROOT_BIN - 1), 0), np.int64)


def _prior() -> Array:
    """Counts of the tokens in each bin before any was seen, int64: geometric about the bin's magnitude.

    Powers are products of floats, one at a time, so that any machine has the same counts.
    """
    middle = np.full(BINS, 0.01)
    for b in range(1, ROOT_BIN):
        middle[b] = 2.0 ** (b // 2) * (0.8408964152537145 if b % 2 == 0 else 1.189207115002721) / UNIT
    middle[ROOT_BIN] = 1024.0
    square = np.repeat((middle / (1 + middle))[:, None], _TOKENS + 1, axis=1)
    exponent, power = _START[None, :] << _SHIFT[:, None], np.ones(square.shape)
    while exponent.any():
        power = np.where(exponent & 1, power * square, power)
        square, exponent = square * square, exponent >> 1
    p = np.zeros((BINS, _TOKENS + 1))
    p[:, :-1] = power[:, :-1] - power[:, 1:]
    return np.asarray(np.maximum(1, np.rint(_STRENGTH * p)), np.int64)


_PRIOR = _prior()


class _Tables:
    def __init__(self) -> None:
        self.counts = _PRIOR.copy()

    def frequencies(self) -> tuple[Array, Array]:
        return renormalise(self.counts, _ADAPT_LIMIT)

    def learn(self, bins: Array, tokens: Array) -> None:
        np.add.at(self.counts, (bins, tokens), 1)


class Encoder:
    """Collects residuals pass by pass."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._freq: list[Array] = []
        self._cum: list[Array] = []
        self._raw: list[Array] = []

    def add(self, k: Array, bins: Array, exact: Array) -> None:
        """Residuals of one pass, int64 ``(n,)``, their bins, and which pixels are stored exactly."""
        m = np.abs(k)
        shift = _SHIFT[bins]
        token = np.where(exact, EXACT, np.searchsorted(_START, m >> shift, side="right") - 1)
        freq, cum = self._tables.frequencies()
        self._freq.append(freq[bins, token].astype(np.uint16))
        self._cum.append(cum[bins, token].astype(np.uint16))
        self._tables.learn(bins, token)
        coded = np.flatnonzero(~exact & ((token > 0) | (shift > 0)))
        t, s = token[coded], shift[coded]
        low = m[coded] - (_START[t] << s)
        self._raw.append(_bits((low << 1) | (k[coded] < 0), _EXTRA[t] + s + 1))

    def finish(self) -> tuple[Array, Array, Array, int]:
        """Words uint16, states uint32, raw bits uint8, and how many bits there are."""
        freq = np.concatenate(self._freq) if self._freq else np.zeros(0, np.uint16)
        cum = np.concatenate(self._cum) if self._cum else np.zeros(0, np.uint16)
        lanes = 8 if freq.size >= 4096 else 1
        words, states = np.empty(freq.size + 1, np.uint16), np.zeros(lanes, np.int64)
        start = int(_coder.rans_encode(freq, cum, lanes, words, states))
        raw = np.concatenate(self._raw) if self._raw else np.zeros(0, np.uint8)
        return words[start:], states.astype(np.uint32), np.packbits(raw), raw.size


def _bits(value: Array, length: Array) -> Array:
    """Bits of values, most significant first, one after the other: uint8 of zeros and ones."""
    ends = np.cumsum(length)
    out = np.zeros(int(ends[-1]) if ends.size else 0, np.uint8)
    for j in range(int(length.max(initial=0))):
        has = np.flatnonzero(length > j)
        out[ends[has] - 1 - j] = (value[has] >> j) & 1
    return out


class Decoder:
    """Gives back what :class:`Encoder` collected, in the same order.

    Parameters
    ----------
    words, states, raw, bits
        As :meth:`Encoder.finish` gave them.
    """

    def __init__(self, words: Array, states: Array, raw: Array, bits: int) -> None:
        if states.size not in (1, 8) or raw.size != -(-bits // 8):
            raise CorruptDataError(
                f"residual: {states.size} states and {bits} bits in {raw.size} bytes; changed?"
            )
        warn_if_slow()
        self._tables = _Tables()
        self._words = words.astype(np.uint16)
        self._states = states.astype(np.int64)
        self._place = np.zeros(2, np.int64)
        self._raw = np.unpackbits(raw, count=bits)
        self._at = 0

    def take(self, bins: Array) -> tuple[Array, Array]:
        """Residuals of one pass, int64 ``(n,)``, and which pixels are stored exactly."""
        freq, cum = self._tables.frequencies()
        token = np.zeros(bins.size, np.int64)
        read = _tokens if COMPILED else _tokens_plain
        if read(self._words, self._states, self._place, bins, freq, cum, token):
            raise CorruptDataError("residual: the coded words end too soon; they were truncated or changed")
        self._tables.learn(bins, token)
        exact = token == EXACT
        shift = _SHIFT[bins]
        out = np.zeros(bins.size, np.int64)
        coded = np.flatnonzero(~exact & ((token > 0) | (shift > 0)))
        t, s = token[coded], shift[coded]
        value = self._bits(_EXTRA[t] + s + 1)
        magnitude = (_START[t] << s) + (value >> 1)
        out[coded] = np.where(value & 1, -magnitude, magnitude)
        return out, exact

    def _bits(self, length: Array) -> Array:
        """Inverse of :func:`_bits` for the next values."""
        ends = np.cumsum(length)
        total = int(ends[-1]) if ends.size else 0
        if self._at + total > self._raw.size:
            raise CorruptDataError("residual: the raw bits end too soon; they were truncated or changed")
        raw, value = self._raw[self._at : self._at + total], np.zeros(length.size, np.int64)
        for j in range(int(length.max(initial=0))):
            has = np.flatnonzero(length > j)
            value[has] |= raw[ends[has] - 1 - j].astype(np.int64) << j
        self._at += total
        return value

    def end(self) -> None:
        """Refuse a stream that does not end where its residuals do."""
        if (self._states != LOW).any() or self._place[0] != self._words.size or self._at != self._raw.size:
            raise CorruptDataError(
                "residual: the coded residuals do not end where the stream does; it was changed"
            )


def _tokens_plain(
    words: Array, states: Array, place: Array, bins: Array, freq: Array, cum: Array, out: Array
) -> int:
    """As :func:`_tokens`, without numba."""
    coded, st, mask = words.tolist(), states.tolist(), states.size - 1
    f, c = freq.tolist(), cum.tolist()
    at, count = int(place[0]), int(place[1])
    for i, b in enumerate(bins.tolist()):
        x = st[count & mask]
        slot = x & (TOTAL - 1)
        s = bisect_right(c[b], slot) - 1
        x = f[b][s] * (x >> PRECISION) + slot - c[b][s]
        if x < LOW:
            if at >= len(coded):
                return 1
            x = (x << 16) | coded[at]
            at += 1
        st[count & mask] = x
        count += 1
        out[i] = s
    states[:], place[0], place[1] = st, at, count
    return 0


@kernel
def _tokens(
    words: Array, states: Array, place: Array, bins: Array, freq: Array, cum: Array, out: Array
) -> int:
    """Decode the tokens of a pass; ``place`` holds the words and the symbols read so far. 1 where the words end too soon."""
    at, count, mask, last = place[0], place[1], states.size - 1, freq.shape[1] - 1
    for i in range(bins.size):
        b, x = bins[i], states[count & mask]
        slot = x & (TOTAL - 1)
        s = 0
        while s < last and slot >= cum[b, s + 1]:
            s += 1
        x = freq[b, s] * (x >> PRECISION) + slot - cum[b, s]
        if x < LOW:
            if at >= words.size:
                return 1
            x = (x << 16) | np.int64(words[at])
            at += 1
        states[count & mask] = x
        count += 1
        out[i] = s
    place[0], place[1] = at, count
    return 0
