"""What was read over the network, kept on disk: whole answers, the least recently used removed first.

An entry is named by address, state of the object (its ETag) and part; what it was signed with takes no part. One small file
for each address says in which state it was seen last, and when: within ``$STAC_LATENT_CACHE_SECONDS`` no question is asked, later a
conditional request finds out. Files appear whole, by renaming, so that processes may share a folder. Errors are never kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stac_latent.system.files import cache_folder, clear_parts, write_whole
from stac_latent.system.settings import seconds, whole_number

__all__ = ["DEFAULT", "FRESH", "Cache", "Hit", "process_cache"]

DEFAULT = 1 << 30
"""Bytes that are kept where ``$STAC_LATENT_CACHE_BYTES`` does not say otherwise; 0 keeps nothing."""
FRESH = 300.0
"""Seconds for which nothing is asked where ``$STAC_LATENT_CACHE_SECONDS`` does not say otherwise; with 0, each read asks."""
_ROOM = 0.9
_SIGNATURE = re.compile(
    r"(?i)^(x-(amz|goog)-.*|sig|signature|se|st|sp|sv|sr|spr|sip|ske|skt|sks|skv|skoid|sktid|saoid|suoid|scid|sdd|"
    r"expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|(access_)?token)$"
)


@dataclass(frozen=True)
class Hit:
    """What is kept of a part of an object."""

    data: bytes
    tag: str
    fresh: bool


class Cache:
    """Answers in a folder.

    Parameters
    ----------
    folder
        Made when first needed.
    limit
        Bytes that may be kept; for a moment it may be passed by what processes write at once.
    fresh
        Seconds after which the state of an object is asked for again.
    """

    def __init__(self, folder: Path, limit: int, fresh: float = FRESH) -> None:
        self.folder, self.limit, self.fresh = folder, limit, fresh
        self._lock = threading.Lock()
        self._written: int | None = None

    def find(self, href: str, part: tuple[int, int | None]) -> Hit | None:
        """What is kept of a part, in the state in which the object was seen last."""
        if not self.limit:
            return None
        try:
            state = self._state(href)
            tag, seen = state.read_text(), state.stat().st_mtime
            path = self._entry(href, tag, part)
            stored = path.read_bytes()
        except (OSError, UnicodeDecodeError):
            return None
        if zlib.crc32(stored[4:]) != int.from_bytes(stored[:4], "little"):
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)
        return Hit(stored[4:], tag, 0 <= time.time() - seen < self.fresh)

    def put(self, href: str, part: tuple[int, int | None], tag: str, data: bytes) -> None:
        """Keep an answer, if the object's state is known; a disk that is full or not ours keeps nothing."""
        if not self.limit or not tag or len(data) > self.limit // 8:
            return
        path = self._entry(href, tag, part)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._state(href).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path, zlib.crc32(data).to_bytes(4, "little") + data)
            write_whole(self._state(href), tag.encode())
            self._count(len(data))

    def confirm(self, href: str) -> None:
        """Note that an object is still in the state in which it was seen last."""
        with suppress(OSError):
            os.utime(self._state(href))

    def trim(self) -> None:
        """Remove what was not used for longest, until there is room again."""
        found = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                info = path.stat()
                found.append((info.st_mtime, info.st_size, path))
        held = sum(size for _, size, _ in found)
        if held <= self.limit:
            return
        for _, size, path in sorted(found, key=lambda f: f[0]):
            if held <= _ROOM * self.limit:
                return
            with suppress(OSError):
                path.unlink()
            held -= size

    def _count(self, size: int) -> None:
        """Trim once in a while: with a process's first entry, and after each sixteenth of the limit."""
        with self._lock:
            first = self._written is None
            self._written = (self._written or 0) + size
            due = first or self._written > self.limit // 16
            if due:
                self._written = 0
        if due:
            for folder in self.folder.glob("??") if first else ():
                clear_parts(folder)
            self.trim()

    def _entry(self, href: str, tag: str, part: tuple[int, int | None]) -> Path:
        return self._path(f"{tag}\n{part[0]}\n{part[1]}\n{_unsigned(href)}")

    def _state(self, href: str) -> Path:
        return self._path(_unsigned(href))

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / digest[2:]


def process_cache() -> Cache:
    """Cache of this process: ``remote`` in :func:`~stac_latent.system.files.cache_folder`, as the environment says."""
    key = (
        cache_folder() / "remote",
        whole_number("STAC_LATENT_CACHE_BYTES", DEFAULT, "bytes"),
        seconds("STAC_LATENT_CACHE_SECONDS", FRESH, zero=True),
    )
    with _lock:
        if key not in _caches:
            _caches.clear()
            _caches[key] = Cache(*key)
        return _caches[key]


_lock = threading.Lock()
_caches: dict[tuple[Path, int, float], Cache] = {}


def _unsigned(href: str) -> str:
    """Address without what signs it: two signatures of one object are one object."""
    url = urlsplit(href)
    kept = [p for p in url.query.split("&") if p and not _SIGNATURE.match(p.partition("=")[0])]
    return url._replace(query="&".join(kept), fragment="").geturl()
