"""The asymmetric numeral system behind ``stac-latent-rans-1``: constriction's coder, and a compiled decoder of it.

The stream is that of constriction's default ANS coder: 32-bit words, 64-bit state, 24-bit probabilities. Tables hold
integer counts that sum to 2**20; symbol ``i`` of ``n`` starts at ``floor(cum * (2**24 - n) / 2**20) + i`` of 2**24. With
numba the decoder is our own: it holds no lock, so that chunks decode side by side. Both give the same symbols.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import constriction
import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.transform import kernels
from stac_latent.stages.transform.kernels import kernel

__all__ = ["TOTAL", "Decoder", "Model"]

TOTAL = 2**20
"""Sum of the counts of every table."""
_BITS = 24
_LOOKUP_BITS = 12


class Model:
    """One probability table, for either coder.

    Parameters
    ----------
    counts
        Positive integers that sum to 2**20, one for each symbol ``0..n-1``.
    """

    def __init__(self, counts: Array) -> None:
        self.counts = counts

    @cached_property
    def coder(self) -> Any:
        """Constriction's model. The probabilities are exact in binary, so that every machine builds the same."""
        return constriction.stream.model.Categorical(self.counts.astype(np.float64) / TOTAL, perfect=False)

    @cached_property
    def bounds(self) -> Array:
        """Where each symbol starts within 2**24, and the end; uint64 ``(n + 1,)``."""
        n = self.counts.size
        cum = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        bounds = (cum * (2**_BITS - n) // TOTAL) + np.arange(n + 1)
        return np.asarray(bounds, np.uint64)

    @cached_property
    def lookup(self) -> Array:
        """Symbol in which each of 4096 equal parts of 2**24 starts, int64."""
        starts = np.arange(2**_LOOKUP_BITS, dtype=np.uint64) << np.uint64(_BITS - _LOOKUP_BITS)
        return np.asarray(np.searchsorted(self.bounds, starts, side="right") - 1, np.int64)


class Decoder:
    """Reads symbols off a stream, last pushed first.

    Parameters
    ----------
    words
        uint32; the last one is not zero.
    """

    def __init__(self, words: Array) -> None:
        kernels.warn_if_slow()
        self.words = words
        self._state = np.array([0, words.size], np.uint64)
        self._coder = None
        if kernels.COMPILED:
            _start(words, self._state)
        else:
            ans = constriction.stream.stack.AnsCoder
            self._coder = ans(words) if words.size else ans()

    def decode(self, model: Model, size: int) -> Array:
        """The next ``size`` symbols of a table, int32."""
        if self._coder is not None:
            return np.asarray(self._coder.decode(model.coder, size))
        out = np.empty(size, np.int32)
        _decode(self.words, self._state, model.bounds, model.lookup, out)
        return out


@kernel
def _start(words: Array, state: Array) -> None:
    value, left = np.uint64(0), state[1]
    while left > 0 and value < np.uint64(2**32):
        left -= np.uint64(1)
        value = (value << np.uint64(32)) | np.uint64(words[left])
    state[0], state[1] = value, left


@kernel
def _decode(words: Array, state: Array, bounds: Array, lookup: Array, out: Array) -> None:
    value, left = state[0], state[1]
    for i in range(out.size):
        quantile = value & np.uint64(2**24 - 1)
        symbol = lookup[quantile >> np.uint64(12)]
        while bounds[symbol + 1] <= quantile:
            symbol += 1
        start = bounds[symbol]
        value = (value >> np.uint64(24)) * (bounds[symbol + 1] - start) + (quantile - start)
        if value < np.uint64(2**32) and left > 0:
            left -= np.uint64(1)
            value = (value << np.uint64(32)) | np.uint64(words[left])
        out[i] = symbol
    state[0], state[1] = value, left
