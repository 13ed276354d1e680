"""Search items by place, time and what their latents are, in any kind of catalogue, with one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import pystac

from stac_latent.catalog.search.api import ApiSource
from stac_latent.catalog.search.arguments import Time
from stac_latent.catalog.search.documents import Reader
from stac_latent.catalog.search.measures import MeasuredLatent
from stac_latent.catalog.search.order import sort_items
from stac_latent.catalog.search.query import Query
from stac_latent.catalog.search.sources import Source, StaticSource, open_sources
from stac_latent.errors import SearchError
from stac_latent.system.suggest import known_options

__all__ = ["Results", "search"]


class Results(Sequence[pystac.Item]):
    """Items that were found, read as they are asked for and kept.

    Iterating reads lazily; ``len``, negative indices and slices read all. An error met while reading is raised again
    on every later attempt to read on, so a failed search never looks like a short one.
    """

    def __init__(
        self, items: Iterator[pystac.Item], limit: int, count: Callable[[], int | None] | None = None
    ) -> None:
        self._count = count
        self._found: list[pystac.Item] = []
        self._rest: Iterator[pystac.Item] | None = items
        self._error: Exception | None = None
        self.limit = limit
        """Items on a page."""

    def _more(self) -> bool:
        """Read one more item; False at the end."""
        if self._error is not None:
            raise self._error
        if self._rest is None:
            return False
        try:
            self._found.append(next(self._rest))
        except StopIteration:
            self._rest = None
            return False
        except Exception as exc:
            self._error = exc
            raise
        return True

    def __iter__(self) -> Iterator[pystac.Item]:
        index = 0
        while index < len(self._found) or self._more():
            yield self._found[index]
            index += 1

    def __len__(self) -> int:
        while self._more():
            pass
        return len(self._found)

    def __bool__(self) -> bool:
        return bool(self._found) or self._more()

    @overload
    def __getitem__(self, index: int) -> pystac.Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[pystac.Item]: ...
    def __getitem__(self, index: int | slice) -> pystac.Item | list[pystac.Item]:
        if isinstance(index, int) and index >= 0:
            while index >= len(self._found) and self._more():
                pass
        else:
            len(self)
        return self._found[index]

    def __repr__(self) -> str:
        return f"<Results: {len(self._found)} items{' so far' if self._rest is not None else ''}>"

    def pages(self) -> Iterator[list[pystac.Item]]:
        """Items in lists of ``limit``, the last one shorter."""
        page: list[pystac.Item] = []
        for item in self:
            page.append(item)
            if len(page) == self.limit:
                yield page
                page = []
        if page:
            yield page

    def matched(self) -> int | None:
        """Number of items that match, ``max_items`` or not; None where an API does not tell.

        A single API is asked, with one request; other sources, and several together, are read to their end. An API may
        estimate, and counts by its own reading of the filter, where :func:`search` looks at each item again.
        """
        return len(self) if self._count is None else self._count()

    def item_collection(self) -> pystac.ItemCollection:
        """All items as one ItemCollection; clones, so that saving it changes none of them."""
        return pystac.ItemCollection(list(self))


@known_options()
def search(
    source: Any,
    *,
    bbox: Sequence[float] | None = None,
    intersects: Any = None,
    datetime: Time | Sequence[Time] = None,
    collections: str | Iterable[str] | None = None,
    ids: str | Iterable[str] | None = None,
    kind: str | None = None,
    space: str | None = None,
    max_bits_per_pixel: float | None = None,
    min_psnr: float | None = None,
    max_error: float | None = None,
    max_sam: float | None = None,
    filter: str | Mapping[str, Any] | None = None,  # noqa: A002
    sortby: str | Mapping[str, str] | Sequence[str | Mapping[str, str]] | None = None,
    limit: int = 100,
    max_items: int | None = None,
    timeout: float = 30.0,
    headers: Mapping[str, str] | None = None,
    failures: list[tuple[str, str]] | None = None,
) -> Results:
    """Items of one or several catalogues that match everything asked for.

    The same items give the same answer from each kind of source. A property that an item lacks is unknown, as in
    SQL: an item without ``latent:psnr`` never matches ``NOT (latent:psnr > 30)``, and matches ``min_psnr`` only where it is lossless, which
    may have no PSNR.

    Parameters
    ----------
    source : str, path, pystac object, or several
        A static catalogue (path or URL of catalog.json or collection.json, its folder, or a pystac.Catalog), a
        stac-geoparquet file (path or http URL; the latter is downloaded whole), items (pystac.ItemCollection,
        FeatureCollection file or dictionary, iterable of pystac.Item), a STAC API (URL of its root, or a
        pystac_client.Client). Several are searched one after another; of items with equal collection and id, the
        first one found is kept.
    bbox : four or six numbers
        West, south, east, north [deg]; west > east crosses the antimeridian; heights are ignored.
    intersects : GeoJSON or object with ``__geo_interface__``
        Geometry in longitude and latitude; not together with ``bbox``. Footprints that touch it match.
    datetime : str, datetime, or pair
        ``"2024-06"``, ``"2024-06-01/.."``, a datetime, a pair with None for an open end; UTC where no zone is given.
        An item matches if its datetime, or its start_datetime to end_datetime, meets the closed interval.
    collections, ids : str or iterable of str
        Collection ids, item ids.
    kind : {"codec", "embedding"}
        Items with a latent of this kind.
    space : str
        Items with a latent of this space (``sha256:`` and 64 digits).
    max_bits_per_pixel : float
        Upper limit of ``latent:bits_per_pixel`` [bit per pixel and band].
    min_psnr : float
        Lower limit of ``latent:psnr`` [dB].
    max_error : float
        Upper limit of ``latent:max_error`` [unit of the bands].
    max_sam : float
        Upper limit of ``latent:sam`` [deg]. An item matches if one of its latents keeps all of these limits, and is of the kind and
        space asked for.
    filter : str or dict
        CQL2 text (needs the extra ``search``) or CQL2 JSON, over item properties; of several latents these have the best figure
        each. A field that no item has is warned about, here and in ``sortby``.
    sortby : str, or list of str or dict
        ``"-datetime"``, ``["collection", "latent:psnr"]``; items without the property come last, equal ones by id. An
        item over a time span is sorted by its begin. A single API sorts if it can, text by its own alphabet.
    limit : int
        Items on a page: asked for at a time from an API, and given by ``Results.pages``.
    max_items : int
        Stop after this many.
    timeout : float
        Longest wait for a server [s].
    headers : mapping
        Sent with each request, for example ``{"Authorization": "Bearer ..."}``.
    failures : list
        Where documents of static catalogues that cannot be read go, as (address, error); the rest is searched. By default the first
        one is an error.

    Returns
    -------
    Results
        A lazy sequence of pystac.Item.

    Raises
    ------
    SearchError
        For a malformed argument or a source that does not exist or answer, at once; for a document that cannot be
        read, when the search gets there.

    Examples
    --------
    >>> from datetime import datetime
    >>> item = pystac.Item("a", {"type": "Point", "coordinates": [11, 46]}, [11, 46, 11, 46], datetime(2024, 6, 5), {})
    >>> item.properties |= {"latent:kinds": ["codec"], "latent:psnr": 48.2}
    >>> [found.id for found in search([item], bbox=(10, 45, 12, 47), datetime="2024", kind="codec", min_psnr=45)]
    ['a']
    """
    query = Query.parse(
        bbox=bbox,
        intersects=intersects,
        datetime=datetime,
        collections=collections,
        ids=ids,
        latent=MeasuredLatent.parse(
            kind,
            space,
            max_bits_per_pixel=max_bits_per_pixel,
            min_psnr=min_psnr,
            max_error=max_error,
            max_sam=max_sam,
        ),
        filter=filter,
        sortby=sortby,
    )
    for name, count in (("limit", limit), ("max_items", 1 if max_items is None else max_items)):
        if (
            isinstance(count, bool)
            or not isinstance(count, int)
            or not 1 <= count <= (10_000 if name == "limit" else count)
        ):
            raise SearchError(
                f"{name} must be a whole number from 1{' to 10000' if name == 'limit' else ''}, got {count!r}"
            )
    if not timeout > 0:
        raise SearchError(f"timeout must be a positive number of seconds, got {timeout!r}")
    sources = open_sources(source, Reader(timeout=timeout, headers=headers or {}))
    for part in sources:
        if isinstance(part, StaticSource):
            part.failures = failures
    page = limit if max_items is None else min(limit, max_items)

    def total() -> int | None:
        if len(sources) == 1 and isinstance(sources[0], ApiSource):
            return sources[0].count(query)
        return sum(1 for _ in _merge(sources, replace(query, sortby=()), limit, None))

    return Results(
        _merge(sources, query, page, max_items),
        limit,
        None
        if max_items is None and not (len(sources) == 1 and isinstance(sources[0], ApiSource))
        else total,
    )


def _merge(
    sources: Sequence[Source], query: Query, page: int, max_items: int | None
) -> Iterator[pystac.Item]:
    """Distinct items of all sources, sorted if asked for, not more than ``max_items``."""
    items = _distinct(item for source in sources for item in source.items(query, page))
    if query.sortby and not (len(sources) == 1 and sources[0].sorts):
        items = iter(sort_items(list(items), query.sortby))
        query.known.warn()
    for count, item in enumerate(items, start=1):
        yield item
        if count == max_items:
            return
    query.known.warn()


def _distinct(items: Iterable[pystac.Item]) -> Iterator[pystac.Item]:
    """Yield the first item of each collection and id."""
    seen = set()
    for item in items:
        key = (item.collection_id, item.id)
        if key not in seen:
            seen.add(key)
            yield item
