"""What a process keeps between calls: opened codecs, keys, caches. It is kept in one place, and can be begun anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["Session", "own_session", "session"]

T = TypeVar("T")


class Session:
    """One object of each kind that is asked for, made when it first is.

    A module that keeps something for the process states what in a class of its own, and asks the session for it::

        class _Known:
            def __init__(self):
                self.codecs = {}

        session().of(_Known).codecs
    """

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def of(self, kind: Callable[[], T]) -> T:
        """The session's object of a class, which takes no arguments; it is made where there is none yet."""
        with self._lock:
            if kind not in self._kept:
                self._kept[kind] = kind()
            found: T = self._kept[kind]
            return found


_current = Session()


def session() -> Session:
    """The session of this process."""
    return _current


@contextmanager
def own_session() -> Iterator[Session]:
    """Inside, all threads of the process have a new session, as after a restart; the former one comes back at the end.

    Examples
    --------
    >>> before = session()
    >>> with own_session() as own:
    ...     assert session() is own is not before
    >>> session() is before
    True
    """
    global _current  # noqa: PLW0603 - this is the place of the process's state
    before, _current = _current, Session()
    try:
        yield _current
    finally:
        _current = before
