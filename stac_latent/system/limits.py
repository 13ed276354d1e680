"""How much memory stored bytes may ask for: what a header declares is held against it before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from stac_latent.errors import CorruptDataError
from stac_latent.system.settings import whole_number

__all__ = ["DEFAULT", "MAX_PIXELS", "at_most", "check_bytes", "largest", "memory"]

DEFAULT = 4 << 30
"""Bytes that one payload may decode to, where ``$STAC_LATENT_MAX_BYTES`` does not say otherwise."""

MAX_PIXELS = 2**28
"""Pixels of one grid of a byte string, at most."""

_here: ContextVar[int | None] = ContextVar("largest", default=None)


def largest() -> int:
    """Bytes that a payload may decode to, here and now."""
    inside = _here.get()
    return inside if inside is not None else whole_number("STAC_LATENT_MAX_BYTES", DEFAULT, "bytes")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Inside, payloads may decode to no more than ``size`` bytes: what their container has room for."""
    token = _here.set(min(size, largest()))
    try:
        yield
    finally:
        _here.reset(token)


def memory() -> int:
    """Bytes of this machine's memory; sixteen times the default where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 16 * DEFAULT


def check_bytes(shape: Iterable[int], itemsize: int, what: str, limit: int | None = None) -> None:
    """Refuse an array that would be larger than is allowed: ``limit``, or what a payload may decode to.

    Raises
    ------
    CorruptDataError
        If it would be; ``what`` names what declares it.

    Examples
    --------
    >>> check_bytes((4, 256, 256), 2, "a tile")
    >>> check_bytes((4, 2**20, 2**20), 8, "a tile")
    Traceback (most recent call last):
    stac_latent.errors.CorruptDataError: a tile declares (4, 1048576, 1048576) values, 35184372088832 bytes; ...
    """
    dims = tuple(int(n) for n in shape)
    size = math.prod(dims) * itemsize
    most = largest() if limit is None else limit
    if size > most or min(dims, default=0) < 0:
        way = (
            "set STAC_LATENT_MAX_BYTES if the data can be trusted" if limit is None else "read it in windows"
        )
        raise CorruptDataError(
            f"{what} declares {dims} values, {size} bytes; at most {most} are allowed here: {way}"
        )
