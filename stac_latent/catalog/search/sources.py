"""Where items come from: a static catalogue, items at hand, a stac-geoparquet file, or a STAC API."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from os import PathLike
from typing import Any, Protocol

import pystac

from stac_latent.catalog.files.listing import raster_below
from stac_latent.catalog.search.api import ApiSource, is_api, page_count, pages
from stac_latent.catalog.search.documents import Reader, to_item
from stac_latent.catalog.search.order import item_view
from stac_latent.catalog.search.query import ItemRow, Query
from stac_latent.errors import CatalogError, SearchError
from stac_latent.system.links import absolute, check_link, href_of, is_remote, link_href, local_path

__all__ = ["FeatureSource", "Source", "StaticSource", "open_sources"]

_EXPECTED = (
    "expected a catalog.json, collection.json, item or FeatureCollection file, a stac-geoparquet file, "
    "the address of a STAC API, or a pystac object"
)


def _checked(target: Any, origin: Any) -> Any:
    """A link, if the catalogue that has it may lead there."""
    try:
        return check_link(target, origin) if isinstance(target, str) and isinstance(origin, str) else target
    except CatalogError as exc:
        raise SearchError(str(exc)) from exc


class Source(Protocol):
    """Somewhere that items can be searched."""

    sorts: bool
    """Whether :meth:`items` yields in the order that the query asks for."""

    def items(self, query: Query, limit: int) -> Iterator[pystac.Item]:
        """Yield items that match, read as they are needed; ``limit`` is a good number to read at a time."""


class FeatureSource:
    """Items at hand, as objects or as dictionaries, in batches that may be read late.

    ``base`` is the address that relative hrefs of dictionaries are taken from.
    """

    sorts = False

    def __init__(self, batches: Iterable[Sequence[Any]], origin: str, base: str | None = None) -> None:
        self._batches = batches
        self._origin = origin
        self._base = base

    def items(self, query: Query, limit: int) -> Iterator[pystac.Item]:  # noqa: ARG002
        """Yield matching items in their order; Item objects are passed on as they are."""
        for feature in chain.from_iterable(self._batches):
            if isinstance(feature, pystac.Item):
                query.known.meet(feature.properties)
                if query.matches(ItemRow(item_view(feature))):
                    yield feature
                continue
            check_feature(feature, self._origin)
            query.known.meet(feature["properties"])
            if query.matches(ItemRow(feature)):
                yield to_item(copy.deepcopy(dict(feature)), self._origin, base=self._base)


class StaticSource:
    """A static catalogue, read as far as the search gets.

    Follows child and item links depth first, each document once, ``most`` of them: a catalogue that makes up links as it is read ends
    there. Documents that do not match never become Items.
    """

    sorts = False

    def __init__(
        self,
        root: pystac.Catalog | str,
        reader: Reader,
        document: Mapping[str, Any] | None = None,
        *,
        most: int = 1_000_000,
    ) -> None:
        self.failures: list[tuple[str, str]] | None = None
        """Where it is a list, documents that cannot be read go there, and the rest is searched."""
        self._root = root
        self._reader = reader
        self._document = document
        self._most = most

    def items(self, query: Query, limit: int) -> Iterator[pystac.Item]:  # noqa: ARG002
        """Yield matching items, those of a catalogue before those of its children."""
        visited: set[Any] = set()
        stack: list[tuple[pystac.STACObject | str, str]] = [(self._root, "")]
        while stack:
            node, parent = stack.pop()
            key = node if isinstance(node, str) else node.get_self_href() or id(node)
            if key in visited:
                continue
            visited.add(key)
            try:
                item, links = self._visit(node, parent, query)
            except SearchError as exc:
                if self.failures is None:
                    raise
                self.failures.append((str(key), str(exc)))
                continue
            if item is not None:
                yield item
            name = key if isinstance(key, str) else "a catalogue in memory"
            stack.extend((_checked(target, key), name) for target in reversed(links))
            if len(visited) + len(stack) > self._most:
                raise SearchError(
                    f"{self._root} leads to more than {self._most} documents; search a part of it, or its table of items"
                )

    def _visit(
        self, node: pystac.STACObject | str, parent: str, query: Query
    ) -> tuple[pystac.Item | None, Sequence[pystac.STACObject | str]]:
        """What a node is: a matching item, or links to others."""
        if isinstance(node, str):
            document = self._read(node, parent)
            if document.get("type") != "Feature":
                return None, _document_links(document, node)
            check_feature(document, node)
            query.known.meet(document["properties"])
            return (to_item(document, node, href=node) if query.matches(ItemRow(document)) else None), ()
        if isinstance(node, pystac.Item):
            query.known.meet(node.properties)
            return (node if query.matches(ItemRow(item_view(node))) else None), ()
        return None, _object_links(node)

    def _read(self, href: str, parent: str) -> dict[str, Any]:
        if href == self._root and self._document is not None:
            return dict(self._document)
        try:
            document = self._reader.json(href)
        except SearchError as exc:
            raise SearchError(f"{exc} (linked from {parent})") from exc
        if document.get("type") not in ("Catalog", "Collection", "Feature") and "links" not in document:
            raise SearchError(f"{href} (linked from {parent}) is no Catalog, Collection or Item")
        return document


def check_feature(feature: Any, origin: str) -> None:
    """Refuse what cannot be an Item before its properties are read."""
    if (
        not isinstance(feature, Mapping)
        or not isinstance(feature.get("properties"), Mapping)
        or "id" not in feature
    ):
        raise SearchError(
            f"{origin}: not a STAC Item (a Feature with id and properties): {str(feature)[:100]}"
        )


def _document_links(document: Mapping[str, Any], href: str) -> list[pystac.STACObject | str]:
    """Addresses of the children and items of a Catalog or Collection, items first."""
    links = document.get("links") or ()
    if not isinstance(links, list | tuple) or not all(isinstance(link, Mapping) for link in links):
        raise SearchError(f"{href}: links must be a list of objects, got {str(links)[:100]}")
    found: list[pystac.STACObject | str] = [
        absolute(str(link["href"]), href)
        for rel in ("item", "child")
        for link in links
        if link.get("rel") == rel and "href" in link
    ]
    if not found and any(link.get("rel") == "items" for link in links):
        root = next((str(link["href"]) for link in links if link.get("rel") == "root"), "its root")
        raise SearchError(
            f"{href} belongs to a STAC API and lists no items itself; "
            f"search {root} with collections={[document.get('id')]!r}"
        )
    return found


def _object_links(node: pystac.STACObject) -> list[pystac.STACObject | str]:
    found: list[pystac.STACObject | str] = []
    for rel in ("item", "child"):
        for link in node.get_links(rel):
            target = link.target
            if not isinstance(target, pystac.STACObject):
                target = link_href(link) or str(target)
            found.append(target)
    return found


def open_sources(source: Any, reader: Reader) -> list[Source]:
    """Open whatever was given as sources; a sequence may mix addresses, objects and Items.

    Raises
    ------
    SearchError
        If there is nothing at an address, or nothing that can be searched.
    """
    if isinstance(source, str | PathLike | Mapping | pystac.STACObject | pystac.ItemCollection):
        return [_open(source, reader)]
    if not isinstance(source, Iterable):
        raise SearchError(f"cannot search {type(source).__name__}: {_EXPECTED}, or several of these")
    sources: list[Source] = []
    loose: list[pystac.Item] = []
    for part in source:
        if isinstance(part, pystac.Item):
            if not loose:
                sources.append(FeatureSource([loose], "items"))
            loose.append(part)
        else:
            sources.append(_open(part, reader))
    return sources


def _open(source: Any, reader: Reader) -> Source:
    if isinstance(source, pystac.Item):
        return FeatureSource([[source]], "item")
    if isinstance(source, pystac.ItemCollection):
        return FeatureSource([source.items], "ItemCollection")
    if isinstance(source, pystac.Catalog):
        return _client(source, reader) or StaticSource(source, reader)
    if isinstance(source, Mapping):
        return _features(source, f"a dictionary of type {source.get('type')!r}", None)
    if not isinstance(source, str | PathLike):
        raise SearchError(f"cannot search {type(source).__name__}: {_EXPECTED}")
    href = str(source)
    return _open_remote(href, reader) if is_remote(href) else _open_local(href, reader)


def _client(source: pystac.Catalog, reader: Reader) -> Source | None:
    """Source of an opened pystac_client.Client, with its own session and modifier; None of any other catalogue."""
    io = getattr(source, "_stac_io", None)
    if not hasattr(source, "get_conforms_to") or io is None:
        return None
    links = [link.to_dict(transform_href=False) for link in source.links]
    landing = {"links": links, "conformsTo": source.get_conforms_to()}
    if not is_api(landing):
        return None
    return ApiSource(
        source.get_self_href() or "", landing, reader, io=io, modifier=getattr(source, "modifier", None)
    )


def _features(document: Mapping[str, Any], origin: str, base: str | None) -> Source:
    if document.get("type") == "FeatureCollection" and isinstance(document.get("features"), list):
        _warn_of_other_pages(document, origin)
        return FeatureSource([document["features"]], origin, base)
    if document.get("type") == "Feature":
        return FeatureSource([[document]], origin, base)
    raise SearchError(f"cannot search {origin}: {_EXPECTED}")


def _warn_of_other_pages(document: Mapping[str, Any], origin: str) -> None:
    held, told = len(document["features"]), page_count(document) or 0
    if told > held or any(link.get("rel") == "next" for link in document.get("links") or ()):
        warnings.warn(
            f"{origin} is one page of an answer, with {held} of {told if told > held else 'more'} items: the others are not seen; "
            "search the API itself, or put all pages into one FeatureCollection",
            stacklevel=2,
        )


def _open_local(href: str, reader: Reader) -> Source:
    path = local_path(href).absolute()
    if path.is_dir():
        names = [n for n in ("catalog.json", "collection.json") if (path / n).is_file()]
        if not names:
            if raster_below(path):
                raise SearchError(_are_files(f"folder {href} holds", href))
            raise SearchError(f"folder {href} has no catalog.json or collection.json; {_EXPECTED}")
        path = path / names[0]
    if not path.exists():
        raise SearchError(f"no such file: {href}; {_EXPECTED}")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1" or path.suffix in (".parquet", ".geoparquet"):
        return _parquet(href_of(path))
    try:
        document = reader.json(href_of(path))
    except SearchError as exc:
        if raster_below(path):
            raise SearchError(_are_files(f"{href} is one of", href)) from exc
        raise SearchError(f"{exc}; {_EXPECTED}") from exc
    if document.get("type") in ("Catalog", "Collection"):
        return StaticSource(href_of(path), reader, document)
    return _features(document, f"{href} (JSON of type {document.get('type')!r})", href_of(path))


def _are_files(what: str, href: str) -> str:
    return (
        f"{what} raster files, not STAC Items: describe them with 'stac-latent items {href} items' (stac_latent.items_from_files), then "
        "give items/catalog.json"
    )


def _parquet(href: str, content: bytes | None = None) -> Source:
    from stac_latent.catalog.search.stac_geoparquet import ParquetSource

    return ParquetSource(href, content)


class _Pages:
    """Pages of a FeatureCollection at an address, from the first again each time."""

    def __init__(self, reader: Reader, href: str, first: Mapping[str, Any]) -> None:
        self._make = partial(pages, reader, href, first=first)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return self._make()


def _open_remote(href: str, reader: Reader) -> Source:
    if href.partition("?")[0].endswith((".parquet", ".geoparquet")):
        return _parquet(href, reader.bytes(href))
    document = reader.json(href)
    if document.get("type") == "FeatureCollection":
        return FeatureSource(_Pages(reader, href, document), href, href)
    if is_api(document):
        return ApiSource(href, document, reader)
    if document.get("type") in ("Catalog", "Collection"):
        return StaticSource(href, reader, document)
    return _features(document, f"{href} (JSON of type {document.get('type')!r})", href)
