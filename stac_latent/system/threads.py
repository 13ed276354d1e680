"""What threads share: work spread over them, the pools of this process, and values that are kept for the next caller."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["LruCache", "ProcessPool", "each"]

T = TypeVar("T")
R = TypeVar("R")


def each(function: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Map over tiles, by threads where there are several."""
    if len(things) < 2:
        return [function(t) for t in things]
    with ThreadPoolExecutor(min(len(things), os.cpu_count() or 1)) as pool:
        return list(pool.map(function, things))


class ProcessPool:
    """A pool of threads that is made when it is first used; a forked child makes its own.

    Parameters
    ----------
    threads
        Gives their number, when the pool is made.
    name
        What the names of the threads begin with.
    """

    def __init__(self, threads: Callable[[], int], name: str) -> None:
        self._threads, self._name = threads, name
        self._lock = threading.Lock()
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def get(self) -> ThreadPoolExecutor:
        """The pool of this process."""
        pid = os.getpid()
        with self._lock:
            if pid not in self._pools:
                self._pools.clear()
                self._pools[pid] = ThreadPoolExecutor(self._threads(), thread_name_prefix=self._name)
            return self._pools[pid]


def _one(_value: object) -> int:
    return 1


class LruCache(Generic[T]):
    """Values that were used last, up to a limit; the newest is kept whatever its size.

    Parameters
    ----------
    limit
        Of the sum of their sizes; a function is asked again whenever a value comes.
    size
        Size of a value, 1 by default; it is asked again whenever a value comes. A value whose size is 0 stays.

    Examples
    --------
    >>> cache = LruCache[int](2)
    >>> for key in "abc":
    ...     _ = cache.get(key, lambda: 0)
    >>> "a" in cache, "c" in cache
    (False, True)
    """

    def __init__(self, limit: int | Callable[[], int], size: Callable[[T], int] = _one) -> None:
        self._limit, self._size = limit, size
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def find(self, key: Hashable) -> T | None:
        """The value of a key, which counts as used; None where none is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def get(self, key: Hashable, make: Callable[[], T], good: Callable[[T], bool] = lambda _: True) -> T:
        """The value of a key; made, and kept, where there is none or the one that is kept is not ``good``.

        No other caller is served meanwhile: ``make`` should only start what takes long.
        """
        with self._lock:
            found = self._kept.get(key)
            if found is not None and good(found):
                self._kept.move_to_end(key)
                return found
            made = self._kept[key] = make()
            self._kept.move_to_end(key)
            self._trim()
            return made

    @property
    def limit(self) -> int:
        """Sum of the sizes that are kept."""
        return self._limit() if callable(self._limit) else self._limit

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()

    def _trim(self) -> None:
        """Forget the values that were not used for longest."""
        sizes = {k: self._size(v) for k, v in self._kept.items()}
        held, limit = sum(sizes.values()), self.limit
        for key, size in list(sizes.items())[:-1]:
            if held <= limit:
                return
            if size:
                del self._kept[key]
                held -= size
