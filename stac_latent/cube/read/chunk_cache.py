"""Decoded chunks: each is decoded once for all bands and callers, by a few threads that the process shares."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from stac_latent.aliases import Array
from stac_latent.system.settings import whole_number

__all__ = ["LIMIT", "aside", "chunk", "forget", "known", "workers"]

T = TypeVar("T")

LIMIT = 256 * 2**20
"""Bytes of decoded pixels that a process keeps."""

_lock = threading.Lock()
_chunks: OrderedDict[Hashable, Future[Array]] = OrderedDict()
_pools: dict[int, ThreadPoolExecutor] = {}


def workers() -> int:
    """Threads that decode: ``$STAC_LATENT_THREADS``, or one more than there are cores.

    Each waits for zarr's event loop part of the time: with one more, the cores stay busy.
    """
    return whole_number("STAC_LATENT_THREADS", (os.cpu_count() or 1) + 1, "threads", least=1)


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
    with _lock:
        found = _chunks.get(key)
        if found is not None and not (found.done() and found.exception() is not None):
            _chunks.move_to_end(key)
            return found
        future = _pool().submit(decode)
        _chunks[key] = future
        _trim()
        return future


def known(key: Hashable) -> bool:
    """Whether the chunk of a key is kept, or being decoded."""
    with _lock:
        found = _chunks.get(key)
        return found is not None and not (found.done() and found.exception() is not None)


def aside(read: Callable[[], T]) -> Future[T]:
    """Read something by the same threads while chunks are decoded; nothing is kept, and it must not ask for chunks."""
    with _lock:
        return _pool().submit(read)


def forget() -> None:
    """Drop every chunk that is kept."""
    with _lock:
        _chunks.clear()


def _pool() -> ThreadPoolExecutor:
    """The pool of this process: a forked child makes its own."""
    pid = os.getpid()
    if pid not in _pools:
        _pools.clear()
        _pools[pid] = ThreadPoolExecutor(workers(), thread_name_prefix="stac-latent")
    return _pools[pid]


def _trim() -> None:
    """Drop the chunks that were not used for longest; those in progress stay."""
    sizes = {k: _size(f) for k, f in _chunks.items()}
    held = sum(sizes.values())
    for key, size in sizes.items():
        if held <= LIMIT:
            break
        if size:
            del _chunks[key]
            held -= size


def _size(future: Future[Array]) -> int:
    if not future.done() or future.exception() is not None:
        return 0
    return int(np.asarray(future.result()).nbytes)
