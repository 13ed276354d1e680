"""The one way to the network: HTTP by :mod:`~stac_latent.net.servers`, object stores by :mod:`~stac_latent.net.object_store`."""

from __future__ import annotations

from urllib.parse import urlsplit

from stac_latent.net.answers import TRIES, WHOLE, Answer, BusyError, Part, State, connections
from stac_latent.net.object_store import OBJECTS, from_store, listed, object_store, state_in_store
from stac_latent.net.servers import from_server, keep_quiet, state_on_server

__all__ = [
    "TRIES", "WHOLE", "Answer", "BusyError", "Part", "State", "connections", "get", "is_object", "is_served", "keep_quiet", "listed",
    "object_store", "state",
]  # fmt: skip


def is_served(href: str) -> bool:
    """Whether :func:`get` knows the scheme of an address."""
    return urlsplit(href).scheme.lower() in ("http", "https", *OBJECTS)


def is_object(href: str) -> bool:
    """Whether an address is one of an object store."""
    return urlsplit(href).scheme.lower() in OBJECTS


def get(href: str, part: Part, limit: int, tag: str = "") -> Answer | None:
    """Part of an object; None where there is no such object.

    Parameters
    ----------
    href
        Address, signed where it must be.
    part
        Bytes that are wanted.
    limit
        Most bytes that are read.
    tag
        State in which the reader knows the part; it is not sent again if the object is still in it.

    Raises
    ------
    BusyError
        If it may help to ask again.
    RemoteError
        If it does not.
    """
    return (from_store if is_object(href) else from_server)(href, part, limit, tag)


def state(href: str) -> State | None:
    """Size and state of an object; None where there is none. Nothing of it is read; errors as of :func:`get`.

    A server is asked for the first byte: some refuse a request for the header alone.
    """
    return state_in_store(href) if is_object(href) else state_on_server(href)
