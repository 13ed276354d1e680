"""Payloads that are coded before the array that holds them is written."""

from __future__ import annotations

import hashlib
import threading

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec

__all__ = ["Precoded"]


class Precoded:
    """Payloads of symbols, handed from a writer that knows more than Zarr does to the codec of the array.

    A writer codes a chunk where its valid pixels are known, and the rate of the whole scene. Zarr then asks for the bytes of an
    array, and tells its codec no place. So payloads are found by the digest of their symbols: of chunks with equal symbols any
    payload is right, whichever was put first, since all decode to those symbols. What was never put is coded.

    Parameters
    ----------
    codec
        Codes symbols that were not put.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._payloads: dict[bytes, list[bytes]] = {}
        self._lock = threading.Lock()

    def put(self, symbols: Array, payload: bytes) -> None:
        """Keep the payload of symbols ``(channel, y, x)`` until it is asked for, once."""
        key = _digest(symbols)
        with self._lock:
            self._payloads.setdefault(key, []).append(payload)

    def entropy_encode(self, symbols: Array) -> bytes:
        """The payload of symbols, of which trailing rows and columns of NaN lie outside the array; forgotten from then on."""
        payload = self._take(symbols) if self._payloads else None  # where none is put, nothing is digested
        return self.codec.entropy_encode(symbols) if payload is None else payload

    def _take(self, symbols: Array) -> bytes | None:
        key = _digest(_inside(symbols))
        with self._lock:
            known = self._payloads.pop(key, [])
            if len(known) > 1:
                self._payloads[key] = known[1:]
            return known[0] if known else None


def _inside(symbols: Array) -> Array:
    """Symbols without the rows and columns of NaN with which Zarr fills the last chunks of an array of floats."""
    if symbols.dtype.kind != "f":
        return symbols
    known = ~np.isnan(symbols[0])
    return symbols[:, : int(known.any(axis=1).sum()), : int(known.any(axis=0).sum())]


def _digest(symbols: Array) -> bytes:
    digest = hashlib.blake2b(f"{symbols.dtype.str}{symbols.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(symbols).data)
    return digest.digest()
