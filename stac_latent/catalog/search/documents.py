"""Read JSON documents from files and URLs, with timeouts, and errors that say what came instead."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pystac

from stac_latent.errors import CatalogError, SearchError, without_secrets
from stac_latent.net.fetch import signed
from stac_latent.net.hrefs import read_bytes
from stac_latent.net.items import make_absolute
from stac_latent.net.retry import BUSY, Retries, RetryPolicy
from stac_latent.net.servers import keep_quiet
from stac_latent.system.documents import parse_json, unicode_text
from stac_latent.system.links import check_link, is_http, is_object, is_remote, local_path, shown
from stac_latent.system.session import session

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

_LARGEST = 1 << 30
"""Bytes of an answer, or of a document."""

__all__ = ["HttpError", "Reader", "to_item"]


class HttpError(SearchError):
    """A server refused a request; ``status`` is its HTTP status, None where it did not answer at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Reader:
    """Reads JSON objects; one for each search, so that connections are reused.

    ``timeout`` [s] bounds each wait for a server; ``headers`` go with each request (for example a token).
    """

    timeout: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)
    retries: RetryPolicy = field(default_factory=lambda: session().of(Retries).searches)

    @cached_property
    def io(self) -> StacApiIO:
        """The HTTP session, made when first needed. It tries again where a server is busy, by default twice and never for long."""
        from pystac_client.stac_api_io import StacApiIO

        keep_quiet()
        made = StacApiIO(
            headers=dict(self.headers),
            timeout=(min(self.timeout, 10.0), self.timeout),
            max_retries=self.retries.adapter(),
        )
        made.session.hooks["response"].append(_bounded)
        return made

    def json(self, href: str, *, io: StacApiIO | None = None, **request: Any) -> dict[str, Any]:
        """JSON object at an address; ``request`` (method, parameters, headers) is for URLs.

        Raises
        ------
        HttpError
            If a server cannot be reached or refuses.
        SearchError
            If there is no file, or if what is there is no JSON object.
        """
        if is_object(href):
            data = _object(href)
        elif is_remote(href):
            data = unicode_text(self._fetch(href, io or self.io, request))
        else:
            try:
                data = local_path(href).read_bytes()
            except OSError as exc:
                raise SearchError(f"cannot read {href}: {exc.strerror or exc}") from exc
        try:
            value = parse_json(data, shown(href))
        except CatalogError as exc:
            raise SearchError(str(exc)) from None
        if not isinstance(value, dict):
            raise SearchError(f"{shown(href)} holds a JSON {type(value).__name__}; expected a STAC object")
        return value

    def bytes(self, href: str) -> bytes:
        """All bytes at a URL; raises as :meth:`json` does."""
        return _object(href) if is_object(href) else bytes(self._request("GET", href).content)

    def send(self, method: str, href: str, body: Mapping[str, Any]) -> Any:
        """Send a JSON object to a URL; returns the answer if it is JSON, else None. Raises as :meth:`json` does."""
        try:
            text = json.dumps(body, allow_nan=False)
        except (ValueError, RecursionError) as exc:
            raise SearchError(f"{body.get('id', href)} cannot be sent as JSON: {exc}") from exc
        answer = self._request(method, href, data=text.encode(), headers={"Content-Type": "application/json"})
        try:
            return answer.json()
        except ValueError:
            return None

    def _request(self, method: str, href: str, **options: Any) -> Any:
        from requests import RequestException

        self._check_scheme(href)
        try:
            response = self.io.session.request(method, signed(href), timeout=self.io.timeout, **options)
        except RequestException as exc:
            raise _unreachable(href, exc) from None
        if not response.ok:
            raise _refused(href, response.status_code, response.text)
        return response

    def _fetch(self, href: str, io: StacApiIO, request: Mapping[str, Any]) -> str:
        from pystac_client.exceptions import APIError

        self._check_scheme(href)
        try:
            return io.request(signed(href), **request)
        except APIError as exc:
            status = getattr(exc, "status_code", None)
            raise (_unreachable(href, exc) if status is None else _refused(href, status, str(exc))) from None

    @staticmethod
    def _check_scheme(href: str) -> None:
        if not is_http(href):
            raise SearchError(
                f"{shown(href)}: only http and https addresses, those of object stores, and local files can be searched"
            )


def _bounded(response: Any, **_: Any) -> None:
    """Read an answer up to a limit, and look where it redirects; runs before anything else of it is read."""
    if response.is_redirect:
        check_link(urljoin(response.url, response.headers["location"]), response.url)
    body = response.raw.read(_LARGEST + 1, decode_content=True)
    if len(body) > _LARGEST:
        response.close()
        raise SearchError(
            f"{shown(response.url)} answers with more than the {_LARGEST} bytes that are read of a document"
        )
    if body[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        body = body.decode("utf-16", "replace").encode()  # the client takes all text for UTF-8
    response._content = body  # noqa: SLF001 - what requests itself sets
    response._content_consumed = True  # noqa: SLF001


def _object(href: str) -> bytes:
    """A document in an object store."""
    try:
        return read_bytes(href, limit=_LARGEST)
    except CatalogError as exc:
        raise SearchError(str(exc)) from None


def _unreachable(href: str, cause: Exception) -> HttpError:
    reason = without_secrets(str(cause))[:200]
    for pattern in (
        r"[Tt]imed out",
        r"Connection refused",
        r"[Nn]ame or service not known|[Ff]ailed to resolve",
    ):
        if match := re.search(pattern, str(cause)):
            reason = match.group().lower()
            break
    return HttpError(
        f"cannot reach {shown(href)}: {reason}; check the address and the network, "
        "or search a static catalogue or a stac-geoparquet file instead"
    )


def _refused(href: str, status: int, text: str) -> HttpError:
    hint = (
        "; pass headers={'Authorization': ...}, or sign addresses with $STAC_LATENT_SIGN"
        if status in (401, 403)
        else ""
    )
    hint = "; it is busy: try again later, or ask for less at a time (limit)" if status in BUSY else hint
    return HttpError(f"{shown(href)} answered HTTP {status}: {without_secrets(text[:300])!r}{hint}", status)


def to_item(
    feature: dict[str, Any], origin: str, *, href: str | None = None, base: str | None = None
) -> pystac.Item:
    """Item of a dictionary, which it keeps. ``origin`` names the source in errors.

    ``href`` is the item's own address; without it, relative hrefs of links and assets are taken from ``base``, the
    address of the file that held the item among others.

    Raises
    ------
    SearchError
        If the dictionary is no STAC Item.
    """
    _make_absolute(feature, base or href or "", origin, always=base is not None)
    old = not str(feature.get("stac_version", "0")).startswith("1.")
    try:
        item = pystac.Item.from_dict(feature, href=href, migrate=old, preserve_dict=False)
        place = href or base or (origin if is_remote(origin) else None)
        if is_remote(place) and (href is not None or not is_remote(item.get_self_href())):
            item.set_self_href(place)  # a remote document is not local because it says so
    except Exception as exc:
        raise SearchError(
            f"{origin}: {feature.get('id', 'a feature')!r} is no STAC Item ({type(exc).__name__}: {exc})"
        ) from exc
    return item


def _make_absolute(feature: dict[str, Any], base: str, origin: str, *, always: bool) -> None:
    """As :func:`~stac_latent.net.items.make_absolute`."""
    try:
        make_absolute(feature, base, always=always)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise SearchError(
            f"{origin}: links and assets of {feature.get('id')!r} need an href each: {exc}"
        ) from exc
