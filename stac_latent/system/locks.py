"""One writer at a time: a lock that processes and threads wait for, and that ends with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stac_latent.errors import CatalogError

__all__ = ["locked"]

WAIT = 600.0
"""Seconds that a writer waits for another."""
_PAUSE = 0.02
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_held = threading.local()


@contextmanager
def locked(path: Path, wait: float | None = None) -> Iterator[None]:
    """Hold what ``path`` stands for alone, among the processes and threads that ask for the same.

    The lock is the system's, on a file beside ``path`` that is gone afterwards. One that a killed process held is free at once. A
    thread that holds it may ask again.

    Parameters
    ----------
    path
        A file or folder; it need not exist.
    wait
        Longest time to wait for another holder, in seconds; ten minutes by default.

    Raises
    ------
    CatalogError
        If another holds it for longer.

    Examples
    --------
    >>> with locked(Path("catalogue/catalog.json")):
    ...     pass
    """
    mine: set[Path] = _held.__dict__.setdefault("paths", set())
    place = path.parent.resolve() / path.name
    if place in mine:
        yield
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f".{place.name}.lock")
    handle = _acquired(file, WAIT if wait is None else wait)
    mine.add(place)
    try:
        yield
    finally:
        mine.discard(place)
        with suppress(OSError):
            file.unlink()  # before it is free: who has opened it meanwhile sees that it is gone, and makes it anew
        os.close(handle)


def _acquired(file: Path, wait: float) -> int:
    """Handle of the locked file; closing it ends the lock."""
    end = time.monotonic() + wait
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() > end:
                raise CatalogError(
                    f"{file.parent} is being written by {_holder(file)} for more than {wait:g} seconds; wait for it or end it, and "
                    "run the same command again"
                ) from None
            time.sleep(_PAUSE)
            continue
        except OSError as exc:
            if exc.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            warnings.warn(
                f"{file.parent} lies on a file system without locks ({exc}): let one process at a time write there",
                stacklevel=5,
            )
            return handle
        if _is_still(file, handle):
            with suppress(OSError):  # a full disk
                os.truncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
            return handle
        os.close(handle)


def _is_still(file: Path, handle: int) -> bool:
    """Whether the file that was opened is the one of that name: its last holder removes it."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace") or "another process"
    except OSError:
        return "another process"
