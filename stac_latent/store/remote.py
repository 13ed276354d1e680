"""Reading over the network: time limits, a few more tries where a server is busy, and redirects that stay where they may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from stac_latent.access import check_link
from stac_latent.errors import StacLatentError

__all__ = ["TIMEOUT", "TRIES", "options_for", "retried", "retried_async"]

TRIES = 3
"""Times that a read is tried; the second after 0.2 s, the third 0.8 s later."""
TIMEOUT = {"total": 300.0, "sock_connect": 10.0, "sock_read": 30.0}
"""Seconds for a whole answer, for the connection, and between two pieces of the answer."""
_PAUSE = 0.2
_BUSY = (429, 500, 502, 503, 504)
R = TypeVar("R")


def options_for(href: str) -> dict[str, Any]:
    """Options of fsspec for an address: time limits, and a look at each redirect."""
    return {"get_client": _client} if href.lower().startswith(("http://", "https://")) else {}


async def _client(loop: Any = None, **kwargs: Any) -> Any:
    import aiohttp

    trace = aiohttp.TraceConfig()

    async def redirected(_session: Any, _context: Any, params: Any) -> None:
        target = params.response.headers.get("Location") or params.response.headers.get("URI") or ""
        check_link(str(params.url.join(type(params.url)(target))), str(params.url))

    trace.on_request_redirect.append(redirected)
    kwargs.setdefault("timeout", aiohttp.ClientTimeout(**TIMEOUT))
    return aiohttp.ClientSession(loop=loop, trace_configs=[trace], **kwargs)


def retried(read: Callable[[], R]) -> R:
    """Result of a read; tried again where the network or a busy server is at fault."""
    for attempt in range(TRIES):
        try:
            return read()
        except Exception as exc:
            if attempt + 1 == TRIES or not _may_pass(exc):
                raise
        time.sleep(_PAUSE * 4**attempt)
    raise AssertionError


async def retried_async(read: Callable[[], Awaitable[R]]) -> R:
    """As :func:`retried`, for a coroutine."""
    for attempt in range(TRIES):
        try:
            return await read()
        except Exception as exc:
            if attempt + 1 == TRIES or not _may_pass(exc):
                raise
        await asyncio.sleep(_PAUSE * 4**attempt)
    raise AssertionError


def _may_pass(exc: BaseException) -> bool:
    """Whether an error of the network may be gone when it is tried again."""
    if isinstance(exc, StacLatentError | FileNotFoundError | PermissionError):
        return False
    status = getattr(exc, "status", None)
    return (
        status in _BUSY
        if isinstance(status, int)
        else isinstance(exc, ConnectionError | TimeoutError | OSError)
    )
