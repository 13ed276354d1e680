"""Work in a process of its own: on so many processors, and without harm to the race where a library crashes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from stac_latent.bench.coder import UnavailableError

__all__ = ["apart"]

_POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "STAC_LATENT_THREADS",
)
R = TypeVar("R")


def apart(function: Callable[..., R], *arguments: Any, threads: int = 1) -> R:
    """Result of a function that runs in a fresh process.

    Parameters
    ----------
    function, arguments
        What to call; both are pickled.
    threads
        Processors that the process stays on, and threads that its libraries start.

    Raises
    ------
    UnavailableError
        If the process dies. What the function raises is raised here.
    """
    try:
        with _environment(dict.fromkeys(_POOLS, str(threads))):
            pool = ProcessPoolExecutor(1, get_context("spawn"), _pin, (threads,))
            with pool:
                return pool.submit(function, *arguments).result()
    except BrokenProcessPool as exc:
        raise UnavailableError("its process died, by a crash of its library or for lack of memory") from exc


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that processes started meanwhile inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _pin(threads: int) -> None:
    """Keep this process, with all threads that it has, on so many processors, where the system can."""
    tasks = Path("/proc/self/task")
    if not hasattr(os, "sched_setaffinity") or not tasks.is_dir():
        return
    chosen = set(sorted(os.sched_getaffinity(0))[:threads])
    for thread in tasks.iterdir():
        os.sched_setaffinity(int(thread.name), chosen)
