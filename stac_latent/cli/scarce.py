"""Little memory: what a limit of the address space (``ulimit -v``) does to libraries ends in a message, not in a signal."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stac_latent.cli.console import as_text
from stac_latent.errors import StacLatentError, without_secrets

__all__ = ["told", "watched"]

_LITTLE = 4 << 30
"""Bytes of address space below which libraries are kept from reserving it for threads and pools."""
_FRUGAL = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)
_SIGNS = (
    "can't start new thread",
    "failed to launch worker thread",
    "cannot allocate",
    "unable to allocate",
    "failed to map segment",
    "without setting an exception",
)
"""What libraries say where there is no memory, in lower case."""


def watched() -> None:
    """Go on in a child where the address space is limited: this process waits, and ends as the child does.

    Libraries in C end a process that cannot get memory: OpenBLAS does while it is imported. Nothing within the
    process can say so afterwards, hence the child. Signals that are sent to this process are passed on to it.
    """
    limit = _limit()
    if limit is None or threading.active_count() > 1:
        return
    if limit < _LITTLE:
        for name, value in _FRUGAL.items():
            os.environ.setdefault(name, value)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    heeded = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    try:
        child = os.fork()
    except OSError:  # no memory, or no process more: it goes on unwatched
        child = 0
    if child:
        _wait(child, heeded)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def told() -> Iterator[None]:
    """Make an exception for lack of memory, whoever raises it, one line on stderr and exit code 1."""
    try:
        yield
    except StacLatentError:
        raise
    except Exception as exc:
        reason = _reason(exc)
        if reason is None:
            raise
        _say(reason)
        sys.exit(1)


def _limit() -> int | None:
    """Bytes of address space that this process may have, where that is limited."""
    if sys.platform != "linux":
        return None
    import resource

    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _wait(child: int, heeded: set[signal.Signals]) -> None:
    while True:
        got = signal.sigwaitinfo(heeded)
        if got.si_signo != signal.SIGCHLD:
            if got.si_code <= 0:  # sent to this process alone; what a terminal sends, the child gets itself
                os.kill(child, got.si_signo)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
    code = os.waitstatus_to_exitcode(status)
    if -code in _CRASHES:
        _say(f"a library ended the process with {signal.Signals(-code).name}")
        code = 1
    os._exit(code if code >= 0 else 128 - code)


def _say(reason: str) -> None:
    limit = _limit()
    way = "ask for less at once, or free some"
    if limit is not None:
        way = (
            f"the address space is limited to {limit >> 20} MiB, raise that (ulimit -v, RLIMIT_AS) to {_LITTLE >> 20} MiB "
            "or more, or ask for less at once"
        )
    # Colours would need memory.
    sys.stderr.write(as_text(f"error MemoryError: not enough memory: {reason}; {way}") + "\n")
    sys.stderr.flush()


def _reason(exc: BaseException) -> str | None:
    """What an exception, or what led to it, says of memory that was not there; None if it says nothing of that."""
    seen: BaseException | None = exc
    while seen is not None:
        text = without_secrets(str(seen)).strip()
        lacking = isinstance(seen, MemoryError) or getattr(seen, "errno", None) == errno.ENOMEM
        if lacking or any(sign in text.lower() for sign in _SIGNS):
            return text or "an allocation failed"
        seen = seen.__cause__ or seen.__context__
    return None
