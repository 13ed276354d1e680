"""A STAC API that takes items: what it offers for that, and requests that are made again where it is busy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import quote, urljoin

from stac_latent.catalog.search.api import ApiSource, is_api
from stac_latent.catalog.search.documents import HttpError, Reader
from stac_latent.catalog.search.query import Query
from stac_latent.errors import CatalogError, SearchError
from stac_latent.net.retry import Retries
from stac_latent.system.links import check_link, is_http
from stac_latent.system.session import session

__all__ = ["Transactions"]

Json = dict[str, Any]
_ITEMS = "ogcapi-features/extensions/transaction"
_COLLECTIONS = "collections/extensions/transaction"
_REFUSED = (400, 409, 413, 422)
"""The items are at fault, not the connection or the rights."""


class Transactions:
    """Writes Collections and Items through the transaction extension, many at a time where that is offered.

    Parameters
    ----------
    url
        Address of the API's landing page.
    headers
        Sent with each request.
    timeout
        Longest wait for an answer [s].
    tries
        Times that a request is made again where the server is busy or does not answer.

    Raises
    ------
    CatalogError
        If this is no STAC API, or takes no items.
    SearchError
        If it does not answer.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str], timeout: float, tries: int) -> None:
        if not is_http(url):
            raise CatalogError(
                f"{url!r} is no address of a STAC API; expected one that begins with http:// or https://"
            )
        self.url = url.rstrip("/") + "/"
        retries = replace(session().of(Retries).writes, times=tries)
        self._reader = Reader(timeout=timeout, headers=headers, retries=retries)
        landing = self._reader.json(self.url)
        if not is_api(landing):
            kind = landing.get("type", "JSON document")
            raise CatalogError(
                f"{url} is no STAC API but a {kind}; give the address of an API's landing page"
            )
        self._landing = landing
        self._source = ApiSource(self.url, landing, self._reader)
        conforms = [str(uri) for uri in landing.get("conformsTo", ())]
        if not any(uri.endswith(_ITEMS) for uri in conforms):
            raise CatalogError(
                f"the STAC API at {url} takes no items: it does not conform to the transaction extension "
                f"({_ITEMS}); for stac-fastapi set ENABLE_TRANSACTIONS_EXTENSIONS=true"
            )
        self.takes_collections = any(uri.endswith(_COLLECTIONS) for uri in conforms)

    @cached_property
    def bulk(self) -> bool:
        """Whether there is a bulk endpoint; the service description tells."""
        for link in self._landing.get("links", ()):
            if link.get("rel") == "service-desc":
                try:
                    href = check_link(urljoin(self.url, str(link["href"])), self.url)
                    paths = self._reader.json(href).get("paths") or {}
                except (CatalogError, SearchError):
                    return False
                return any(str(path).endswith("/bulk_items") for path in paths)
        return False

    def collection(self, name: str) -> Json | None:
        """Collection as the API has it; None where it has none of that name."""
        try:
            return self._reader.json(self._address(name))
        except HttpError as exc:
            if exc.status != 404:
                raise
            return None

    def put_collection(self, document: Json, *, known: bool) -> None:
        """Add a Collection, or replace one that the API has."""
        if not self.takes_collections:
            raise CatalogError(
                f"the STAC API at {self.url} takes no collections, and its {document['id']!r} is "
                f"{'another' if known else 'missing'}: its operator has to {'change' if known else 'add'} it"
            )
        if known:
            self._reader.send("PUT", self._address(str(document["id"])), document)
        else:
            self._reader.send("POST", urljoin(self.url, "collections"), document)

    def known(self, collection: str, ids: Sequence[str]) -> dict[str, Json]:
        """Items of a Collection as the API has them, by id."""
        step = len(ids) if self._source.posts else 40
        found: dict[str, Json] = {}
        for i in range(0, len(ids), step):
            query = Query.parse(collections=collection, ids=ids[i : i + step])
            found |= {str(f["id"]): f for f in self._source.features(query, step)}
        return found

    def put_items(self, collection: str, items: Sequence[Json], known: Iterable[str]) -> dict[str, str]:
        """Add items, or replace those that the API has.

        Returns
        -------
        dict
            Why an item was refused, by id; empty where all were taken.
        """
        present = set(known)
        if self.bulk and len(items) > 1 and self._together(collection, items, "bulk_items"):
            return {}
        new = [item for item in items if item["id"] not in present]
        if not self.bulk and len(new) > 1 and self._together(collection, new, "items"):
            items = [item for item in items if item["id"] in present]
        refused = {}
        for item in items:
            try:
                self._one(collection, item, known=item["id"] in present)
            except HttpError as exc:
                if exc.status not in _REFUSED:
                    raise
                refused[str(item["id"])] = str(exc)
        return refused

    def _together(self, collection: str, items: Sequence[Json], endpoint: str) -> bool:
        """Send items in one request; False where not all were taken."""
        body: Json = {"type": "FeatureCollection", "features": list(items)}
        if endpoint == "bulk_items":
            body = {"items": {item["id"]: item for item in items}, "method": "upsert"}
        try:
            answer = self._reader.send("POST", f"{self._address(collection)}/{endpoint}", body)
        except HttpError as exc:
            if exc.status not in (*_REFUSED, 405, 500, 501):
                raise
            return False
        return not (isinstance(answer, Mapping) and answer.get("errors"))

    def _one(self, collection: str, item: Json, *, known: bool) -> None:
        address = f"{self._address(collection)}/items"
        if not known:
            try:
                self._reader.send("POST", address, item)
            except HttpError as exc:
                if exc.status != 409:  # a request before this one was taken, and its answer lost
                    raise
                known = True
        if known:
            self._reader.send("PUT", f"{address}/{quote(str(item['id']), safe='')}", item)

    def _address(self, collection: str) -> str:
        return urljoin(self.url, f"collections/{quote(collection, safe='')}")
