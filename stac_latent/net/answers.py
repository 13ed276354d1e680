"""What is asked of servers and object stores, and what they answer.

A part of an object is ``(start, stop)``: ``(0, None)`` is all of it, ``(-n, None)`` its last n bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from stac_latent.errors import RemoteError
from stac_latent.system.links import shown
from stac_latent.system.settings import seconds, whole_number

__all__ = ["WHOLE", "Answer", "BusyError", "Part", "State", "connections", "request_timeout", "unpacked"]

Part = tuple[int, int | None]
WHOLE: Part = (0, None)


class BusyError(RemoteError):
    """The network or the server may do better when it is asked again, ``after`` seconds where it says so."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True)
class Answer:
    """What a server sent."""

    data: bytes
    tag: str = ""
    """Names the state of the object: its ETag; ``~`` and date and size where it has none; empty where nothing is known."""
    same: bool = False
    """Whether the object is still in the state that the reader knows; then there is no data."""


@dataclass(frozen=True)
class State:
    """What a server says of an object."""

    size: int
    """Bytes."""
    tag: str
    """As of :class:`Answer`."""


def connections() -> int:
    """Requests that are under way at once: ``$STAC_LATENT_CONNECTIONS``, or 16."""
    return whole_number("STAC_LATENT_CONNECTIONS", 16, "requests", least=1)


def request_timeout() -> float:
    """Seconds without a byte after which a server counts as silent: ``$STAC_LATENT_TIMEOUT``, or 30."""
    return seconds("STAC_LATENT_TIMEOUT", 30.0)


def unpacked(data: bytes, encoding: str, href: str, limit: int) -> bytes:
    """A whole body without what ``Content-Encoding`` says of it.

    Raises
    ------
    RemoteError
        If it is packed in another way than gzip and deflate, or does not unpack.
    """
    if not encoding or not data:
        return data
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise RemoteError(
            f"{shown(href)} is packed ({encoding}), which is not read; serve it as it is, or copy it and read the copy"
        )
    tool = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        out = tool.decompress(data, limit)
    except zlib.error as exc:
        raise RemoteError(
            f"{shown(href)} says that it is packed ({encoding}), and does not unpack: {exc}"
        ) from None
    if not tool.eof and len(out) < limit:
        raise RemoteError(f"{shown(href)} is packed ({encoding}), and ends too early; fetch it again")
    return out
