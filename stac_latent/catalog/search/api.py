"""A STAC API as a source of items: CQL2 where it can filter, the same filter here where it cannot."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pystac

from stac_latent.catalog.search.documents import HttpError, Reader, to_item
from stac_latent.catalog.search.order import ALWAYS, in_order, sort_items
from stac_latent.catalog.search.query import ItemRow, Query
from stac_latent.errors import CatalogError, SearchError
from stac_latent.system.links import check_link

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

__all__ = ["ApiSource", "is_api", "page_count", "pages"]


_MOST_KEYS = 3
_ESTIMATE = 10
"""How far what a server tells of may be off: databases estimate."""


def _check(target: str, origin: str) -> str:
    try:
        return check_link(target, origin)
    except CatalogError as exc:
        raise SearchError(str(exc)) from exc


def is_api(landing: Mapping[str, Any]) -> bool:
    """Whether a Catalog is the landing page of a STAC API, not a static catalogue that can be walked."""
    rels = {link.get("rel") for link in landing.get("links", ())}
    return "search" in rels or ("conformsTo" in landing and not rels & {"child", "item"})


def page_count(page: Mapping[str, Any]) -> int | None:
    """Number of items that a page's search matched, if the server tells; three conventions are known."""
    context = page.get("context")
    told = [page.get("numberMatched"), page.get("numMatched")]
    told += [context.get("matched")] if isinstance(context, Mapping) else []
    return next((n for n in told if isinstance(n, int) and not isinstance(n, bool) and n >= 0), None)


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

    Fewer than the server told of are warned about.

    Raises
    ------
    SearchError
        If a next link leads to a request that was made already, if a page brings only items that came before, if many
        times as many items come as the server told of, or if a page is no FeatureCollection.
    """
    request: dict[str, Any] = {"method": method, "parameters": dict(parameters or {})}
    if method == "GET" and parameters:  # as a next link has them, so that the two can be compared
        from requests import Request

        url = Request("GET", url, params=request["parameters"]).prepare().url or url
        request["parameters"] = {}
    asked: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    told: int | None = None
    page = first
    while True:
        asked.add(json.dumps([url, request], sort_keys=True))
        page = reader.json(url, io=io, **request) if page is None else page
        features = page.get("features")
        if not isinstance(features, list) or not all(isinstance(f, dict) for f in features):
            raise SearchError(f"{url} did not answer with a FeatureCollection: {json.dumps(page)[:200]}")
        if not features:
            _warn_of_missing(url, told, len(seen))
            return
        told = page_count(page) if told is None else told
        keys = {(f.get("collection"), f.get("id")) for f in features}
        if keys <= seen:
            raise SearchError(
                f"paging does not advance: {url} brings only items of earlier pages; the server is at fault"
            )
        seen |= keys
        if told is not None and len(seen) > _ESTIMATE * told + 1000:
            raise SearchError(
                f"paging does not end: {url} told of {told} items and brought {len(seen)} by now; the server is at fault. "
                "Give max_items to stop earlier"
            )
        yield features
        link = next((x for x in page.get("links", ()) if x.get("rel") == "next"), None)
        if link is None:
            _warn_of_missing(url, told, len(seen))
            return
        before = url
        url, request = _follow(link, url, request)
        _check(url, before)
        if json.dumps([url, request], sort_keys=True) in asked:
            raise SearchError(
                f"paging does not end: the next link of a page leads back to {url}; the server is at fault"
            )
        page = None


def _warn_of_missing(url: str, told: int | None, brought: int) -> None:
    """Say that the last page came before all of the items that the server told of."""
    if told is not None and told > brought:
        warnings.warn(
            f"{url} told of {told} items, brought {brought} and links to no further page, so that the others are not seen, unless it "
            "only estimates; a larger limit=, or searches of smaller areas and shorter times, bring them",
            stacklevel=2,
        )


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
    the filter, the filter is evaluated here on all that place, time, collections and ids leave; a warning says so. So it
    is with sorting: databases put items without the property first or last as they like, so that those with and those
    without it are asked for one after the other, where the API filters; where it does not, all are read and sorted here.
    """

    sorts = True

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
        self.posts = bool(posts)
        """Whether it is searched by POST, so that queries may be long."""
        self._method = "POST" if posts else "GET"
        self._search = _check(urljoin(url, str((posts or links)[0]["href"])), url)
        self._conforms = self._conformance(landing)
        self._links = list(landing.get("links", ()))

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
        """Yield matching items, asked for ``limit`` at a time, in the order that the query asks for."""
        if not query.sortby or self._orders(query):
            return chain.from_iterable(self._found(part, limit) for part in in_order(query))
        return iter(sort_items(list(self._found(replace(query, sortby=()), limit)), query.sortby))

    def count(self, query: Query) -> int | None:
        """Number of matching items as the API tells it; None where it does not, or cannot filter."""
        if query.cql2 is not None and not self._filters:
            return None
        parameters = self._parameters(replace(query, sortby=()), 1, remote=True)
        return page_count(
            self._reader.json(self._search, io=self._io, method=self._method, parameters=parameters)
        )

    def features(self, query: Query, limit: int) -> Iterator[dict[str, Any]]:
        """Yield matching features as the API has them."""
        remote = query.cql2 is not None and self._filters
        if query.cql2 is not None and not remote:
            self._warn("does not conform to the filter extension")
        stream = self._pages(query, limit, remote=remote)
        try:
            first = next(stream, [])
        except HttpError as exc:
            if not remote or exc.status not in (400, 422, 500, 501):
                raise
            self._warn(f"refused the filter ({exc})")
            remote, stream = False, self._pages(query, limit, remote=False)
            first = next(stream, [])
        if query.known.asked:
            query.known.meet(self._queryables)
            if remote and not self._queryables:  # what does not match is not seen
                query.known.cannot_tell()
        for feature in chain(first, chain.from_iterable(stream)):
            if not isinstance(feature.get("properties"), Mapping):
                raise SearchError(f"{self.url}: {feature.get('id')!r} is no STAC Item: it has no properties")
            query.known.meet(feature["properties"])
            if query.matches_filter(
                ItemRow(feature)
            ):  # APIs read some filters in their own way, or not at all
                yield feature

    def _found(self, query: Query, limit: int) -> Iterator[pystac.Item]:
        for feature in self.features(query, limit):
            item = to_item(feature, self.url)
            if self._modifier is not None:
                self._modifier(item)
            yield item

    @property
    def _filters(self) -> bool:
        return self._has("item-search#filter")

    def _orders(self, query: Query) -> bool:
        """Whether the API sorts as asked for: it can, and can tell the items that lack the property from the others."""
        others = [name for name, _ in query.sortby if name not in ALWAYS]
        if not self._has("item-search#sort") or len(others) > _MOST_KEYS or (others and not self._filters):
            return False
        known = self._queryables
        if unknown := [n for n in others if known and n.removeprefix("properties.") not in known]:
            self._warn(
                f"does not name {', '.join(unknown)} among its queryables, so it may sort numbers as text; it is sorted here",
                all_of_it=False,
            )
            return False
        return True

    @cached_property
    def _queryables(self) -> set[str]:
        """Names of properties whose type the API knows; none where it does not tell."""
        for link in self._links:
            if str(link.get("rel")).endswith("/queryables"):
                try:
                    href = _check(urljoin(self.url, str(link["href"])), self.url)
                    document = self._reader.json(href, io=self._io)
                except SearchError:
                    return set()
                return {str(n).removeprefix("properties.") for n in document.get("properties") or ()}
        return set()

    def _parameters(self, query: Query, limit: int, *, remote: bool) -> dict[str, Any]:
        """A search as the STAC API writes it."""
        from pystac_client import ItemSearch

        place = query.place
        box = place is not None and place.geom_type == "Polygon" and place.equals(place.envelope)
        cql2, language = (query.cql2, "cql2-json") if remote and query.cql2 is not None else (None, None)
        if cql2 is not None and self._method == "GET" and not self._has("cql2-json"):
            cql2, language = _cql2_text(query), "cql2-text"
        return ItemSearch(
            self._search,
            method=self._method,
            stac_io=self._io or self._reader.io,
            limit=limit,
            bbox=place.bounds if place is not None and box else None,
            intersects=place.__geo_interface__ if place is not None and not box else None,
            datetime=query.interval,
            collections=None if query.collections is None else list(query.collections),
            ids=query.ids,
            filter=cql2,
            filter_lang=language,
            sortby=[{"field": name, "direction": "desc" if down else "asc"} for name, down in query.sortby]
            or None,
        ).get_parameters()

    def _pages(self, query: Query, limit: int, *, remote: bool) -> Iterator[list[dict[str, Any]]]:
        parameters = self._parameters(query, limit, remote=remote)
        io = self._io or self._reader.io
        return pages(self._reader, self._search, io=io, method=self._method, parameters=parameters)

    def _warn(self, why: str, *, all_of_it: bool = True) -> None:
        rest = "; the filter is applied here, to every item that place, time, collections and ids leave"
        warnings.warn(f"the STAC API at {self.url} {why}{rest if all_of_it else ''}", stacklevel=2)


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
