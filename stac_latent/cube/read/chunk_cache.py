"""Decoded chunks: each is decoded once for all bands and callers, by a few threads that the process shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from stac_latent.aliases import Array
from stac_latent.system.settings import whole_number
from stac_latent.system.threads import LruCache, ProcessPool

__all__ = ["aside", "chunk", "forget", "known", "limit", "workers"]

T = TypeVar("T")

_DEFAULT = 256 * 2**20


def workers() -> int:
    """Threads that decode: ``$STAC_LATENT_THREADS``, or one more than there are cores.

    Each waits for zarr's event loop part of the time: with one more, the cores stay busy.
    """
    return whole_number("STAC_LATENT_THREADS", (os.cpu_count() or 1) + 1, "threads", least=1)


def limit() -> int:
    """Bytes of decoded pixels that a process keeps: ``$STAC_LATENT_DECODED_BYTES``, or 256 MiB."""
    return whole_number("STAC_LATENT_DECODED_BYTES", _DEFAULT, "bytes")


def chunk(key: Hashable, decode: Callable[[], Array]) -> Future[Array]:
    """The decoded chunk of a key: kept, being decoded by another caller, or started now.

    Parameters
    ----------
    key
        Names the reader and the chunk.
    decode
        Gives ``(band, y, x)``, which nobody may change; must not ask for chunks itself.

    Returns
    -------
    Future
        Of the pixels; one that failed is not kept.
    """
    return _chunks.get(key, lambda: _pool.get().submit(decode), _is_good)


def known(key: Hashable) -> bool:
    """Whether the chunk of a key is kept, or being decoded."""
    found = _chunks.find(key)
    return found is not None and _is_good(found)


def aside(read: Callable[[], T]) -> Future[T]:
    """Read something by the same threads while chunks are decoded; nothing is kept, and it must not ask for chunks."""
    return _pool.get().submit(read)


def forget() -> None:
    """Drop every chunk that is kept."""
    _chunks.clear()


def _is_good(future: Future[Array]) -> bool:
    return not (future.done() and future.exception() is not None)


def _size(future: Future[Array]) -> int:
    """Bytes of decoded pixels; 0 while they are being decoded, and where that failed."""
    if not future.done() or future.exception() is not None:
        return 0
    return int(np.asarray(future.result()).nbytes)


_pool = ProcessPool(workers, "stac-latent")
_chunks: LruCache[Future[Array]] = LruCache(limit, _size)
