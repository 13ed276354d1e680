"""Reading over the network: parts of objects, signed, tried again where a server is busy, and kept in the local cache."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import cast
from urllib.parse import quote

from stac_latent.errors import CatalogError, RemoteError, StacLatentError
from stac_latent.net.answers import WHOLE, Answer, Part, State, connections
from stac_latent.net.disk_cache import process_cache
from stac_latent.net.object_store import from_store, state_in_store
from stac_latent.net.retry import Retries
from stac_latent.net.servers import from_server, state_on_server
from stac_latent.system.links import is_object, is_remote, shown
from stac_latent.system.session import session
from stac_latent.system.threads import ProcessPool

__all__ = [
    "Sign",
    "fetch",
    "inner",
    "keep",
    "kept",
    "look",
    "network",
    "read_remote",
    "sign_hook",
    "signed",
]

Sign = Callable[[str], str]
"""Takes the address of an object and returns it signed; called before each request."""


def sign_hook() -> Sign | None:
    """The function that ``$STAC_LATENT_SIGN`` names as ``module:function``; None where it is not set.

    Raises
    ------
    CatalogError
        If there is no such function.
    """
    name = os.environ.get("STAC_LATENT_SIGN", "")
    return _imported(name) if name else None


@lru_cache(maxsize=8)
def _imported(name: str) -> Sign:
    module, _, function = name.partition(":")
    try:
        return cast("Sign", getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as exc:
        raise CatalogError(
            f"STAC_LATENT_SIGN={name!r} names no function ({exc}); expected module:function, such as planetary_computer:sign"
        ) from exc


def inner(href: str, key: str) -> str:
    """Address of what lies below another; what the outer one is signed with stays at the end.

    Examples
    --------
    >>> inner("https://x.org/a.zarr?sig=1", "latent/c/0/0/0")
    'https://x.org/a.zarr/latent/c/0/0/0?sig=1'
    """
    if not is_remote(href):
        return f"{href.rstrip('/')}/{key}"
    base, mark, query = href.partition("?")
    return f"{base.rstrip('/')}/{key if is_object(href) else quote(key)}{mark}{query}"


def kept(href: str, part: Part) -> bytes | None:
    """What the cache has of an object and need not ask for."""
    found = process_cache().find(href, part)
    return found.data if found is not None and found.fresh else None


def keep(href: str, part: Part, tag: str, data: bytes) -> None:
    """Keep a part of a larger answer."""
    process_cache().put(href, part, tag, data)


def read_remote(href: str, part: Part = WHOLE, *, limit: int, sign: Sign | None = None) -> bytes | None:
    """Part of an object, from the cache or from its server; None where there is no such object.

    Parameters
    ----------
    href
        Address, as the catalogue has it.
    part
        Bytes that are wanted.
    limit
        Most bytes that are read.
    sign
        Signs the address; else ``$STAC_LATENT_SIGN`` does.

    Raises
    ------
    RemoteError
        If the server refuses, is silent, or sends something else, and asking again does not help.
    """
    cache = process_cache()
    found = cache.find(href, part)
    if found is not None and found.fresh:
        return found.data
    if found is not None and not found.tag.startswith("~"):
        answer = _asked(href, part, limit, sign, found.tag)
        if answer is not None and answer.same:
            cache.confirm(href)
            return found.data
    else:
        answer = _asked(href, part, limit, sign)
    if answer is None:
        return None
    if len(answer.data) < limit:
        cache.put(href, part, answer.tag, answer.data)
    return answer.data


def fetch(href: str, part: Part, limit: int, sign: Sign | None = None) -> tuple[bytes, str] | None:
    """Part of an object from its server, and its state, for :func:`keep`; errors as :func:`read_remote`."""
    answer = _asked(href, part, limit, sign)
    return None if answer is None else (answer.data, answer.tag)


def look(href: str, sign: Sign | None = None) -> State | None:
    """Size and state of an object, asked of its server; errors as :func:`read_remote`."""
    return session().of(Retries).reads.call(lambda: _state(signed(href, sign)))


def _asked(href: str, part: Part, limit: int, sign: Sign | None, tag: str = "") -> Answer | None:
    return session().of(Retries).reads.call(lambda: _get(signed(href, sign), part, limit, tag))


def _get(href: str, part: Part, limit: int, tag: str) -> Answer | None:
    """One request for a part, as :func:`~stac_latent.net.servers.from_server`."""
    return (from_store if is_object(href) else from_server)(href, part, limit, tag)


def _state(href: str) -> State | None:
    """One request for a state, as :func:`~stac_latent.net.servers.state_on_server`."""
    return (state_in_store if is_object(href) else state_on_server)(href)


def signed(href: str, sign: Sign | None = None) -> str:
    """An address, signed by a function or by the one of ``$STAC_LATENT_SIGN``; as it is where there is none."""
    hook = sign or sign_hook()
    if hook is None:
        return href
    try:
        signed = hook(href)
    except StacLatentError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever another's function raises
        raise RemoteError(
            f"{shown(href)} could not be signed: {type(exc).__name__} in the function that signs; its message is left out, since it "
            "may hold secrets"
        ) from None
    if not isinstance(signed, str):
        raise RemoteError(f"{shown(href)} was signed to a {type(signed).__name__}; expected an address")
    return signed


_pool = ProcessPool(connections, "stac-latent-network")


def network() -> ThreadPoolExecutor:
    """Threads of this process that wait for servers; nothing in them may wait for another of them."""
    return _pool.get()
