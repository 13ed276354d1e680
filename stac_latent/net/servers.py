"""HTTP through requests: parts of files, as servers give them."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from stac_latent.errors import RemoteError, without_secrets
from stac_latent.net.answers import (
    WHOLE,
    Answer,
    BusyError,
    Part,
    State,
    connections,
    request_timeout,
    unpacked,
)
from stac_latent.net.retry import Retries
from stac_latent.system.links import check_link, shown
from stac_latent.system.session import session

if TYPE_CHECKING:
    import requests

__all__ = ["CONNECT", "from_server", "keep_quiet", "state_on_server"]

CONNECT = 10.0
"""Seconds in which a server must take a connection."""
_SMALL = 1 << 20
"""Bytes of a file that are read although its server ignores ranges."""
_HOPS = 5
_PIECE = 1 << 16
_LOGGERS = (
    "urllib3.connectionpool", "pystac_client.stac_api_io", "rasterio", "rasterio._base", "rasterio._env", "rasterio._err",
    "rasterio._io", "rasterio._vsiopener", "rasterio.env", "rasterio.session", "odc.loader._rio",
)  # fmt: skip
"""Of libraries that write down addresses."""


class _Quiet(logging.Filter):
    """Leaves what may be secret in addresses out of the debugging output of other libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, str):
            record.msg = without_secrets(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(without_secrets(a) if isinstance(a, str) else a for a in record.args)
        return True


def keep_quiet() -> None:
    """Have the libraries that ask servers leave secrets out of what they log."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Quiet) for f in logger.filters):
            logger.addFilter(_Quiet())


@lru_cache(maxsize=2)
def _session(pid: int) -> requests.Session:  # noqa: ARG001 - a forked child makes its own
    import requests
    from requests.adapters import HTTPAdapter

    keep_quiet()
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections(), max_retries=0))
    return session


def from_server(href: str, part: Part, limit: int, tag: str) -> Answer | None:
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
    headers = {}
    if part != WHOLE:
        start, stop = part
        headers["Range"] = (
            f"bytes={start}" if start < 0 else f"bytes={start}-{'' if stop is None else stop - 1}"
        )
    if tag and not tag.startswith("~"):
        headers["If-None-Match"] = tag
    with _response(href, headers) as response:
        return _answer(response, href, part, limit)


def state_on_server(href: str) -> State | None:
    """Size and state of an object; None where there is none; errors as of :func:`from_server`.

    Nothing of it is read but the first byte: some servers refuse a request for the header alone.
    """
    with _response(href, {"Range": "bytes=0-0"}) as response:
        if response.status_code == 416:
            return State(0, _tag(response))
        if not _is_there(response, href):
            return None
        span = response.headers.get("Content-Range", "").rpartition("/")[2]
        size = span if response.status_code == 206 else response.headers.get("Content-Length", "")
        if not size.isdecimal() or _encoding(response):
            raise RemoteError(
                f"{shown(href)} does not say how many bytes it has; serve it from a server that does (nginx, Caddy, any object store), "
                "or copy it and read the copy"
            )
        return State(int(size), _tag(response))


@contextmanager
def _response(href: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """Answer of a server, or of the one that it redirects to; its body is not read."""
    import requests

    asked, target = {"Accept-Encoding": "identity", **headers}, href
    for _ in range(_HOPS):
        try:
            response = _session(os.getpid()).get(
                target,
                headers=asked,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT, request_timeout()),
            )
        except requests.Timeout:
            raise _silent(href) from None
        except (requests.RequestException, ValueError) as exc:
            raise BusyError(
                f"cannot reach {shown(href)}: {_reason(exc)}; check the address and the network"
            ) from None
        with response:
            if not response.is_redirect:
                yield response
                return
            target = check_link(urljoin(response.url, response.headers["location"]), response.url)
    raise RemoteError(
        f"{shown(href)} is redirected more than {_HOPS} times; give the address that it leads to"
    )


def _reason(exc: Exception) -> str:
    for pattern in (r"[Cc]onnection refused", r"[Nn]ame or service not known", r"[Ff]ailed to resolve"):
        if found := re.search(pattern, str(exc)):
            return found.group().lower()
    return f"{type(exc).__name__}: {without_secrets(str(exc))[:200]}"


def _silent(href: str) -> BusyError:
    return BusyError(
        f"{shown(href)} sent nothing for {request_timeout():g} s; try again later, or set STAC_LATENT_TIMEOUT to more seconds"
    )


def _is_there(response: requests.Response, href: str) -> bool:
    """Whether an answer holds data; False where there is no such object.

    Raises
    ------
    BusyError, RemoteError
        If it holds something else.
    """
    status, where = response.status_code, shown(href)
    if status in (404, 410):
        return False
    if status in session().of(Retries).reads.statuses:
        raise BusyError(
            f"{where} answered HTTP {status}; the server is busy or broken: try again later, or copy the catalogue and "
            "read the copy",
            _after(response),
        )
    if status in (401, 403):
        raise RemoteError(
            f"{where} answered HTTP {status}: it wants credentials, or a signature that has not expired; sign hrefs with "
            "load(..., patch_url=) or $STAC_LATENT_SIGN. Some object stores answer so for files that do not exist: read those by "
            "their s3:// address"
        )
    if status not in (200, 206):
        raise RemoteError(f"{where} answered HTTP {status}; expected 200 or 206: check the address")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise RemoteError(
            f"{where} answers with a web page (text/html) where data was expected; it may be a page to log in, or the address of "
            "a page about the file: give the address of the file itself, signed if need be"
        )
    return True


def _answer(response: requests.Response, href: str, part: Part, limit: int) -> Answer | None:
    status, where = response.status_code, shown(href)
    if status == 304:
        return Answer(b"", same=True)
    if status == 416:
        return Answer(b"", _tag(response))
    if not _is_there(response, href):
        return None
    if status == 206 and _encoding(response):
        raise RemoteError(
            f"{where} sent a part of the file packed ({_encoding(response)}), which cannot be unpacked alone; serve it as it is "
            "(Content-Encoding: identity), or copy it and read the copy"
        )
    if status == 206 or part == WHOLE:
        return Answer(_unpacked(response, href, part, limit), _tag(response))
    size = response.headers.get("Content-Length", "")
    if not size.isdecimal() or int(size) > _SMALL:
        raise RemoteError(
            f"{where} ignores ranges: its server answers a request for a part with the whole file, {size or '?'} bytes; serve "
            "it from one that knows ranges (nginx, Caddy, any object store), or copy the catalogue and read the copy"
        )
    start, stop = part
    return Answer(_unpacked(response, href, WHOLE, _SMALL)[start:stop], _tag(response))


def _encoding(response: requests.Response) -> str:
    """How a body is packed; empty where it is not."""
    found = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if found == "identity" else found


def _unpacked(response: requests.Response, href: str, part: Part, limit: int) -> bytes:
    """As :func:`_body`; what a server packs although it was asked not to is unpacked."""
    return unpacked(_body(response, href, part, limit), _encoding(response), href, limit)


def _body(response: requests.Response, href: str, part: Part, limit: int) -> bytes:
    """Bytes of an answer; no more than ``limit``, and in no more time than ten times the patience."""
    import urllib3.exceptions

    start, stop = part
    first = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if part != WHOLE and start >= 0 and (first is None or int(first[1]) != start):
        raise RemoteError(
            f"{shown(href)} sent the range {response.headers.get('Content-Range')!r} instead of the bytes from {start} on; its "
            "server or a proxy is broken: copy the catalogue and read the copy"
        )
    most = limit if stop is None else min(limit, stop - start)
    most = min(most, -start) if start < 0 else most
    pieces, held, end = [], 0, time.monotonic() + 10 * request_timeout()
    try:
        while held < most:
            piece = response.raw.read1(min(_PIECE, most - held), decode_content=False)
            if not piece:
                break
            pieces.append(piece)
            held += len(piece)
            if time.monotonic() > end:
                raise _silent(href)
    except urllib3.exceptions.ReadTimeoutError:
        raise _silent(href) from None
    except (urllib3.exceptions.HTTPError, OSError):
        declared = response.headers.get("Content-Length", "?")
        raise BusyError(
            f"{shown(href)} ended after {held} of {declared} bytes; the connection was cut, or the server is broken: try again "
            "later, or copy the catalogue and read the copy"
        ) from None
    return b"".join(pieces)


def _tag(response: requests.Response) -> str:
    tag = response.headers.get("ETag", "")
    changed = response.headers.get("Last-Modified")
    if tag or changed is None:
        return tag
    size = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get(
        "Content-Length", ""
    )
    return f"~{changed} {size}"


def _after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None
