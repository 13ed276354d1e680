"""One range of one remote object, as it comes: HTTP through requests, object stores through obstore.

A part of an object is ``(start, stop)``: ``(0, None)`` is all of it, ``(-n, None)`` its last n bytes.
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from stac_latent.access import check_link, shown, without_secrets
from stac_latent.errors import RemoteError

if TYPE_CHECKING:
    import requests

__all__ = [
    "TRIES", "WHOLE", "Answer", "BusyError", "Part", "connections", "get", "is_object", "is_served", "keep_quiet",
    "object_store",
]  # fmt: skip

Part = tuple[int, int | None]
WHOLE: Part = (0, None)
TRIES = 4
"""Times that a read is tried; each pause is four times the one before."""
_CONNECT = 10.0
_SMALL = 1 << 20
"""Bytes of a file that are read although its server ignores ranges."""
_HOPS = 5
_PIECE = 1 << 16
_OBJECTS = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl")
_BUSY = (408, 425, 429, 500, 502, 503, 504)


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


def is_served(href: str) -> bool:
    """Whether :func:`get` knows the scheme of an address."""
    return urlsplit(href).scheme.lower() in ("http", "https", *_OBJECTS)


def is_object(href: str) -> bool:
    """Whether an address is one of an object store."""
    return urlsplit(href).scheme.lower() in _OBJECTS


def connections() -> int:
    """Requests that are under way at once: ``$STAC_LATENT_CONNECTIONS``, or 16."""
    return max(1, int(os.environ.get("STAC_LATENT_CONNECTIONS") or 16))


def patience() -> float:
    """Seconds without a byte after which a server counts as silent: ``$STAC_LATENT_TIMEOUT``, or 30."""
    return max(0.001, float(os.environ.get("STAC_LATENT_TIMEOUT") or 30))


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
    if urlsplit(href).scheme.lower() in _OBJECTS:
        return _from_store(href, part, limit, tag)
    return _from_server(href, part, limit, tag)


# -- HTTP ----------------------------------------------------------------------------------------------------------------


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
    for name in ("urllib3.connectionpool", "pystac_client.stac_api_io"):
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


def _from_server(href: str, part: Part, limit: int, tag: str) -> Answer | None:
    import requests

    headers = {"Accept-Encoding": "identity"}
    if part != WHOLE:
        start, stop = part
        headers["Range"] = (
            f"bytes={start}" if start < 0 else f"bytes={start}-{'' if stop is None else stop - 1}"
        )
    if tag and not tag.startswith("~"):
        headers["If-None-Match"] = tag
    target = href
    for _ in range(_HOPS):
        try:
            response = _session(os.getpid()).get(
                target, headers=headers, stream=True, allow_redirects=False, timeout=(_CONNECT, patience())
            )
        except requests.Timeout:
            raise _silent(href) from None
        except requests.RequestException as exc:
            raise BusyError(
                f"cannot reach {shown(href)}: {_reason(exc)}; check the address and the network"
            ) from None
        with response:
            if not response.is_redirect:
                return _answer(response, href, part, limit)
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
        f"{shown(href)} sent nothing for {patience():g} s; try again later, or set STAC_LATENT_TIMEOUT to more seconds"
    )


def _answer(response: requests.Response, href: str, part: Part, limit: int) -> Answer | None:
    status, where = response.status_code, shown(href)
    if status in (404, 410):
        return None
    if status == 304:
        return Answer(b"", same=True)
    if status == 416:
        return Answer(b"", _tag(response))
    if status in _BUSY:
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
    if status == 206 or part == WHOLE:
        return Answer(_body(response, href, part, limit), _tag(response))
    size = response.headers.get("Content-Length", "")
    if not size.isdecimal() or int(size) > _SMALL:
        raise RemoteError(
            f"{where} ignores ranges: its server answers a request for a part with the whole file, {size or '?'} bytes; serve "
            "it from one that knows ranges (nginx, Caddy, any object store), or copy the catalogue and read the copy"
        )
    start, stop = part
    return Answer(_body(response, href, WHOLE, _SMALL)[start:stop], _tag(response))


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
    pieces, held, end = [], 0, time.monotonic() + 10 * patience()
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


# -- object stores ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _store(root: str, pid: int, wait: float) -> Any:  # noqa: ARG001 - a forked child makes its own
    try:
        from obstore.store import from_url
    except ImportError:
        raise RemoteError(
            f"{root} needs obstore, which is not installed: pip install 'stac-latent[cloud]'"
        ) from None
    client: dict[str, Any] = {"timeout": f"{wait}s", "connect_timeout": f"{_CONNECT}s"}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        client["allow_http"] = True
    options: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": TRIES - 1}}
    try:
        return from_url(root, **options)
    except Exception as exc:  # noqa: BLE001 - obstore and pyo3 raise many
        raise RemoteError(f"{root} cannot be opened: {without_secrets(str(exc))[:300]}") from None


def object_store(href: str) -> tuple[Any, str]:
    """Store of an address, as obstore makes it with the settings of the environment, and the path within it."""
    url = urlsplit(href)
    scheme = {"gcs": "gs", "s3a": "s3"}.get(url.scheme.lower(), url.scheme.lower())
    return _store(f"{scheme}://{url.netloc}", os.getpid(), patience()), url.path.lstrip("/")


def _from_store(href: str, part: Part, limit: int, tag: str) -> Answer | None:
    from obstore import exceptions as failed

    store, path = object_store(href)
    start, stop = part
    options: dict[str, Any] = {"if_none_match": tag} if tag and not tag.startswith("~") else {}
    if part != WHOLE:
        options["range"] = (
            {"suffix": -start} if start < 0 else {"offset": start} if stop is None else (start, stop)
        )
    try:
        found = store.get(path, options=options)
        size = found.range[1] - found.range[0]
        if size > limit:
            raise RemoteError(f"{shown(href)} is larger than the {limit} bytes that are read of such a file")
        return Answer(bytes(found.bytes()), found.meta.get("e_tag") or "")
    except (FileNotFoundError, failed.NotFoundError):
        return None
    except failed.NotModifiedError:
        return Answer(b"", same=True)
    except (OSError, failed.BaseError) as exc:
        raise _refused(href, exc) from None


def _refused(href: str, exc: Exception) -> RemoteError:
    denied = isinstance(exc, PermissionError) or type(exc).__name__ in (
        "PermissionDeniedError",
        "UnauthenticatedError",
    )
    text = " ".join(without_secrets(str(exc).partition("Debug source")[0]).split())[:300]
    way = (
        "give credentials as the environment variables of its provider (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION; "
        "AWS_SKIP_SIGNATURE=true for a public bucket)"
        if denied
        else f"it was tried {TRIES} times: check the address and the network (AWS_ENDPOINT_URL, AWS_REGION), or try again later"
    )
    return RemoteError(f"cannot read {shown(href)}: {text}; {way}")
