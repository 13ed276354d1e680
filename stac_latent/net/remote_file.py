"""A file on a server or in an object store, for readers that seek; and a copy of one on disk, for those that map it."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.net.answers import State
from stac_latent.net.fetch import Sign, fetch, look
from stac_latent.system.files import cache_folder, replacing
from stac_latent.system.links import is_local, is_served, local_path, shown
from stac_latent.system.names import plain_name

__all__ = ["RemoteFile", "local_copy", "open_binary"]

_BUFFER = 1 << 18
"""Bytes that are asked for at least."""
_PIECE = 8 << 20


def open_binary(href: str, sign: Sign | None = None) -> io.BufferedIOBase:
    """File at a path or an address, opened for reading and seeking.

    Raises
    ------
    CatalogError
        If there is none, or its address is of no kind that is read.
    """
    if is_local(href):
        try:
            return local_path(href).open("rb")
        except OSError as exc:
            raise CatalogError(f"cannot read {href}: {exc.strerror or exc}") from None
    return io.BufferedReader(RemoteFile(href, sign), _BUFFER)


class RemoteFile(io.RawIOBase):
    """Bytes of a remote file, asked for as they are read.

    Parameters
    ----------
    href
        Address.
    sign
        Signs the address before it is asked for.

    Raises
    ------
    CatalogError
        If there is no such file.
    RemoteError
        If its server refuses; while it is read, too.
    CorruptDataError
        While it is read: if it has changed since it was opened.
    """

    def __init__(self, href: str, sign: Sign | None = None) -> None:
        super().__init__()
        self._href, self._sign, self._at = href, sign, 0
        self._state = _state(href, sign)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._state.size

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def seekable(self) -> bool:
        """Say that it is."""
        return True

    def tell(self) -> int:
        """Position of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; returns it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError(f"no position {start + offset} in a file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        """Read as many bytes as there is room for, fewer at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        n = min(len(view), max(0, self.size - self._at))
        if n == 0:
            return 0
        found = fetch(self._href, (self._at, self._at + n), n + 1, self._sign)
        data, tag = (b"", "") if found is None else found
        if len(data) != n or (tag and self._state.tag and not _same(tag, self._state.tag)):
            raise CorruptDataError(
                f"{shown(self._href)} was changed while it was read, or its server sent {len(data)} of {n} bytes; read it again"
            )
        view[:n] = data
        self._at += n
        return n


def local_copy(href: str, sign: Sign | None = None) -> Path:
    """Copy of a remote file in the cache folder, made where there is none of its present state; older ones are removed.

    Raises
    ------
    CatalogError, RemoteError, CorruptDataError
        As of :class:`RemoteFile`, and if there is no room.
    """
    place = urlsplit(href)._replace(query="", fragment="").geturl()
    state = _state(href, sign)
    folder = cache_folder() / "files" / hashlib.sha256(place.encode()).hexdigest()[:32]
    kept = folder / hashlib.sha256(f"{state.tag} {state.size}".encode()).hexdigest()[:16]
    path = kept / plain_name(Path(urlsplit(href).path).name)
    if path.is_file() and path.stat().st_size == state.size and state.tag:
        return path
    try:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as part, open_binary(href, sign) as source, part.open("wb") as out:
            while data := source.read(_PIECE):
                out.write(data)
        for old in folder.iterdir():
            if old != kept:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as exc:
        raise CatalogError(
            f"no copy of {shown(href)} can be made in {folder}: {exc.strerror or exc}; free some space, or set STAC_LATENT_CACHE to another folder"
        ) from None
    return path


def _state(href: str, sign: Sign | None) -> State:
    if not is_served(href):
        raise CatalogError(
            f"{shown(href)} is not read: expected a path, an http or https address, or one of an object store (s3, gs, az)"
        )
    found = look(href, sign)
    if found is None:
        raise CatalogError(f"there is no {shown(href)} (HTTP 404 or its like); check the address")
    return found


def _same(tag: str, other: str) -> bool:
    """Whether two tags name one state; weak ones differ by their mark alone, and dates come with other sizes."""
    if tag.startswith("~") or other.startswith("~"):
        return tag.rpartition(" ")[0] == other.rpartition(" ")[0]
    return tag.removeprefix("W/") == other.removeprefix("W/")
