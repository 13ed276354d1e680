"""Whether a file of others is as it was when it was described: its size, and when it was written."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stac_latent.errors import CorruptDataError
from stac_latent.system.links import is_local, local_path

__all__ = ["FileState", "check_unchanged", "state_of"]

_SHARE = 20
"""A folder's state is taken for that of now this many times as long as it took to find."""
_known: dict[str, tuple[float, FileState]] = {}


@dataclass(frozen=True, slots=True)
class FileState:
    """A file, or the files of a folder together."""

    size: int
    """Bytes."""
    updated: str
    """When the latest was written, UTC, RFC 3339 to the microsecond."""


def state_of(href: str) -> FileState | None:
    """State of a local file or folder; None of what is elsewhere or not there."""
    if not is_local(href):
        return None
    path = local_path(href)
    if path.is_dir():
        return _of_folder(path)
    try:
        found = path.stat()
    except OSError:
        return None
    return FileState(found.st_size, _text(found.st_mtime_ns))


def check_unchanged(href: str, size: int | None, updated: str | None) -> None:
    """Hold a file against what an Item says of it.

    Parameters
    ----------
    href
        Path or URL; nothing is asked of a URL.
    size
        ``file:size`` [bytes]; None: the Item does not say it.
    updated
        When it was written, as :class:`FileState` has it; None: the Item does not say it.

    Raises
    ------
    CorruptDataError
        If it is another file now.
    """
    if size is None and updated is None:
        return
    now = state_of(href)
    if now is None:
        return
    why = ""
    if size is not None and now.size != size:
        why = f"it has {now.size} bytes, its item says {size}"
    elif updated is not None and now.updated != updated:
        why = f"it was written {now.updated}, its item knows that of {updated}"
    if why:
        raise CorruptDataError(
            f"{href} was changed since it was adopted: {why}; adopt it again, so that place, time and description are those of the file"
        )


def _of_folder(path: Path) -> FileState:
    key, start = str(path), time.monotonic()
    if key in _known and _known[key][0] > start:
        return _known[key][1]
    size, latest, todo = 0, 0, [key]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    todo.append(entry.path)
                else:
                    found = entry.stat()
                    size, latest = size + found.st_size, max(latest, found.st_mtime_ns)
    state = FileState(size, _text(latest))
    now = time.monotonic()
    _known[key] = (now + _SHARE * (now - start), state)
    return state


def _text(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return (
        datetime.fromtimestamp(seconds, UTC)
        .replace(microsecond=rest // 1000)
        .isoformat()
        .replace("+00:00", "Z")
    )
