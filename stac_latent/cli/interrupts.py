"""Commands that are interrupted: they clear up, and say how to go on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from stac_latent.cli.console import err

__all__ = ["placing", "stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(SystemExit):
    """Ends a command from within, so that what it has opened is closed and what is half-written is removed."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end a command in order, with exit code 130, 143 or 129 and a message.

    The message is the note that the command has added to the exception, if any. What ``nohup`` and the like ignore stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.getsignal(s) for s in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    except _Stopped as exc:
        notes = getattr(exc, "__notes__", [])
        said = notes[-1] if notes else "nothing half-written is kept; run the same command again"
        err.print(f"interrupted: {said}")
        sys.exit(exc.code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def placing(path: Path | None) -> Iterator[None]:
    """Say of a command that makes one file or folder, and was interrupted after it was put in place, that it is whole; None for none."""
    before = _identity(path)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as exc:
        if _identity(path) not in (None, before):
            exc.add_note(f"{path} is written and whole; there is nothing to run again")
        raise


def _identity(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(128 + number)
