"""Work spread over threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["each"]

T = TypeVar("T")
R = TypeVar("R")


def each(function: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Map over tiles, by threads where there are several."""
    if len(things) < 2:
        return [function(t) for t in things]
    with ThreadPoolExecutor(min(len(things), os.cpu_count() or 1)) as pool:
        return list(pool.map(function, things))
