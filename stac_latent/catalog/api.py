"""A STAC API as a source of items: CQL2 where it can filter, the same filter here where it cannot."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pystac

from stac_latent.access import check_link
from stac_latent.catalog.query import ItemRow, Query
from stac_latent.catalog.reader import HttpError, Reader, to_item
from stac_latent.errors import CatalogError, SearchError

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

__all__ = ["ApiSource", "is_api", "pages"]


def _check(target: str, origin: str) -> str:
    try:
        return check_link(target, origin)
    except CatalogError as exc:
        raise SearchError(str(exc)) from exc


def is_api(landing: Mapping[str, Any]) -> bool:
    """Whether a Catalog is the landing page of a STAC API, not a static catalogue that can be walked."""
    rels = {link.get("rel") for link in landing.get("links", ())}
    return "search" in rels or ("conformsTo" in landing and not rels & {"child", "item"})


def pages(
    reader: Reader,
    url: str,
    *,
    io: StacApiIO | None = None,
    method: str = "GET",
    parameters: Mapping[str, Any] | None = None,
    first: Mapping[str, Any] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Features of a FeatureCollection page by page, along its next links, until a page is empty.

    Raises
    ------
    SearchError
        If a next link leads to a request that was made already, if a page brings only items that came before, or if
        a page is no FeatureCollection.
    """
    request: dict[str, Any] = {"method": method, "parameters": dict(parameters or {})}
    if method == "GET" and parameters:  # as a next link has them, so that the two can be compared
        from requests import Request

        url = Request("GET", url, params=request["parameters"]).prepare().url or url
        request["parameters"] = {}
    asked: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    page = first
    while True:
        asked.add(json.dumps([url, request], sort_keys=True))
        page = reader.json(url, io=io, **request) if page is None else page
        features = page.get("features")
        if not isinstance(features, list) or not all(isinstance(f, dict) for f in features):
            raise SearchError(f"{url} did not answer with a FeatureCollection: {json.dumps(page)[:200]}")
        if not features:
            return
        keys = {(f.get("collection"), f.get("id")) for f in features}
        if keys <= seen:
            raise SearchError(
                f"paging does not advance: {url} brings only items of earlier pages; the server is at fault"
            )
        seen |= keys
        yield features
        link = next((x for x in page.get("links", ()) if x.get("rel") == "next"), None)
        if link is None:
            return
        before = url
        url, request = _follow(link, url, request)
        _check(url, before)
        if json.dumps([url, request], sort_keys=True) in asked:
            raise SearchError(
                f"paging does not end: the next link of a page leads back to {url}; the server is at fault"
            )
        page = None


def _follow(link: Mapping[str, Any], url: str, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Address and request of a next link, as the paging of the STAC API has it."""
    method = str(link.get("method", "GET")).upper()
    body = dict(link.get("body") or {})
    if method == "POST" and link.get("merge"):
        body = {**request["parameters"], **body}
    following: dict[str, Any] = {"method": method, "parameters": body if method == "POST" else {}}
    if link.get("headers"):
        following["headers"] = dict(link["headers"])
    return urljoin(url, str(link["href"])), following


class ApiSource:
    """Items of a STAC API.

    An API that conforms to the filter extension evaluates the whole query. Where it does not, or where it refuses
    the filter, the filter is evaluated here on all that place, time, collections and ids leave; a warning says so.
    """

    def __init__(
        self,
        url: str,
        landing: Mapping[str, Any],
        reader: Reader,
        io: StacApiIO | None = None,
        modifier: Callable[[Any], Any] | None = None,
    ) -> None:
        self.url = url
        self._modifier = modifier
        self._reader = reader
        self._io = io
        links = [link for link in landing.get("links", ()) if link.get("rel") == "search"]
        if not links:
            raise SearchError(f"the STAC API at {url} has no search link, so it cannot be searched")
        posts = [link for link in links if str(link.get("method", "GET")).upper() == "POST"]
        self._method = "POST" if posts else "GET"
        self._search = _check(urljoin(url, str((posts or links)[0]["href"])), url)
        self._conforms = self._conformance(landing)
        self.sorts = self._has("item-search#sort")

    def _conformance(self, landing: Mapping[str, Any]) -> list[str]:
        if "conformsTo" not in landing:
            for link in landing.get("links", ()):
                if link.get("rel") in ("conformance", "http://www.opengis.net/def/rel/ogc/1.0/conformance"):
                    landing = self._reader.json(
                        _check(urljoin(self.url, str(link["href"])), self.url), io=self._io
                    )
        return [str(uri) for uri in landing.get("conformsTo", ())]

    def _has(self, conformance: str) -> bool:
        return any(uri.endswith(conformance) for uri in self._conforms)

    def items(self, query: Query, limit: int) -> Iterator[pystac.Item]:
        """Yield matching items, asked for ``limit`` at a time."""
        remote = query.cql2 is not None and self._has("item-search#filter")
        if query.cql2 is not None and not remote:
            self._warn("does not conform to the filter extension")
        stream = self._pages(query, limit, remote=remote)
        try:
            first = next(stream, [])
        except HttpError as exc:
            if not remote or exc.status not in (400, 422, 501):
                raise
            self._warn(f"refused the filter ({exc})")
            remote = False
            stream = self._pages(query, limit, remote=remote)
            first = next(stream, [])
        for feature in chain(first, chain.from_iterable(stream)):
            if remote or query.matches_filter(ItemRow(feature)):
                item = to_item(feature, self.url)
                if self._modifier is not None:
                    self._modifier(item)
                yield item

    def _pages(self, query: Query, limit: int, *, remote: bool) -> Iterator[list[dict[str, Any]]]:
        from pystac_client import ItemSearch

        io = self._io or self._reader.io
        place = query.place
        box = place is not None and place.geom_type == "Polygon" and place.equals(place.envelope)
        cql2, language = (query.cql2, "cql2-json") if remote else (None, None)
        if remote and self._method == "GET" and not self._has("cql2-json"):
            cql2, language = _cql2_text(query), "cql2-text"
        parameters = ItemSearch(
            self._search,
            method=self._method,
            stac_io=io,
            limit=limit,
            bbox=place.bounds if place is not None and box else None,
            intersects=place.__geo_interface__ if place is not None and not box else None,
            datetime=query.interval,
            collections=None if query.collections is None else list(query.collections),
            ids=query.ids,
            filter=cql2,
            filter_lang=language,
            sortby=[{"field": name, "direction": "desc" if down else "asc"} for name, down in query.sortby]
            if self.sorts and query.sortby
            else None,
        ).get_parameters()
        return pages(self._reader, self._search, io=io, method=self._method, parameters=parameters)

    def _warn(self, why: str) -> None:
        warnings.warn(
            f"the STAC API at {self.url} {why}; the filter is applied here, to every item that place, time, "
            "collections and ids leave",
            stacklevel=2,
        )


def _cql2_text(query: Query) -> Any:
    """Filter as text, for an API that takes no JSON."""
    try:
        import cql2
    except ImportError as exc:
        raise SearchError(
            "this STAC API takes filters as CQL2 text only, which needs the package cql2: "
            "pip install 'stac-latent[search]'"
        ) from exc
    return cql2.Expr(query.cql2 or {}).to_text()
