"""The verb ``push``: Collections and Items of a catalogue into a STAC API, as far as it does not have them yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import pystac

from stac_latent.aliases import Progress
from stac_latent.catalog.push.transactions import Transactions
from stac_latent.catalog.search.documents import Reader
from stac_latent.catalog.search.query import Query
from stac_latent.catalog.search.sources import open_sources
from stac_latent.errors import CatalogError
from stac_latent.geo.extents import extent_of
from stac_latent.net.items import read_object
from stac_latent.system.links import absolute, href_of, is_local, is_remote, local_path
from stac_latent.system.suggest import known_options

__all__ = ["Pushed", "push"]

Json = dict[str, Any]
_TREE = frozenset(("self", "root", "parent", "collection", "item", "items", "child", "data", "search"))
"""Links that an API makes itself."""
_SERVERS_OWN = ("created", "updated")


@dataclass
class Pushed:
    """What came of a push."""

    collections: list[str] = field(default_factory=list)
    """Collections that were added or replaced."""
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    """Items that the API had as they are; they were not sent."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why an item (``collection/id``) was not taken."""
    local: int = 0
    """Assets whose address is a file of this machine: they can be found, and not be read through the API."""

    def to_dict(self) -> Json:
        """As JSON has it."""
        return asdict(self)


@known_options()
def push(
    source: Any,
    api: str,
    *,
    href: str | None = None,
    batch: int = 500,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    tries: int = 5,
    progress: Progress | None = None,
) -> Pushed:
    """Send Collections, then Items to a STAC API that takes transactions.

    The API is asked for the items of each batch first, and what it has already, equal but for links and the times of the
    server's own, is not sent. So a push that was cut short goes on where it stopped when it is started again, and a second
    one sends nothing. Requests are made again where the server is busy (429, 500, 502 to 504, no answer), after growing
    pauses or as long as it asks for, up to 10 s. Items of the API that the source does not have stay.

    Parameters
    ----------
    source
        Whatever :func:`stac_latent.search` takes. Collections come from a static catalogue; those of other sources are
        made up from their items where the API has none of that name.
    api
        Address of the API's landing page.
    href
        Address at which the folder of a static catalogue is published: its paths become addresses below it. Without
        it they become ``file:`` addresses, which :func:`stac_latent.load` refuses to follow from an API.
    batch
        Items that are compared and sent at a time.
    headers
        Sent with each request, for example ``{"Authorization": "Bearer ..."}``.
    timeout
        Longest wait for an answer [s].
    tries
        Times that a request is made again.
    progress
        Called with a label, the items done, and their number (None where it is not known).

    Returns
    -------
    Pushed
        How many items were new, changed, unchanged, and which were refused by the API, with its reason.

    Raises
    ------
    CatalogError
        If the API takes no items, or an item has no collection or footprint.
    SearchError
        If the source or the API cannot be read, or the API does not answer; what was sent before stays.

    Examples
    --------
    >>> push("catalogue/catalog.json", "http://127.0.0.1:8391").to_dict()  # doctest: +SKIP
    {'collections': ['s2'], 'new': 120, 'changed': 0, 'unchanged': 0, 'refused': {}, 'local': 0}
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 10_000:
        raise CatalogError(f"batch must be a whole number from 1 to 10000, got {batch!r}")
    catalog = _static(source)
    root = None if catalog is None else catalog.get_self_href()
    if href is not None and root is None:
        raise CatalogError("href is for static catalogues with a place of their own; this source has none")
    base = None if href is None or root is None else (root.rpartition("/")[0] + "/", href.rstrip("/") + "/")
    target = Transactions(api, headers=headers or {}, timeout=timeout, tries=tries)
    done = Pushed()
    total, fresh = _collections(catalog, source, target, base, done)
    count = 0
    for collection, documents in _batches(_documents(source, base, done), batch):
        known = {} if collection in fresh else target.known(collection, [str(d["id"]) for d in documents])
        _push_batch(collection, documents, known, target, done)
        count += len(documents)
        if progress:
            progress("push", count, total)
    return done


def _static(source: Any) -> pystac.Catalog | None:
    """Catalogue that a source is, where it is a static one; None of items, tables and APIs."""
    if isinstance(source, pystac.Catalog):
        return None if hasattr(source, "get_conforms_to") else source
    if not isinstance(source, str | PathLike) or is_remote(str(source)):
        return None
    path = Path(source)
    path = next((p for p in (path / "catalog.json", path / "collection.json", path) if p.is_file()), path)
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        found = read_object(href_of(path))
    except Exception:  # noqa: BLE001 - whatever it is, the search says so
        return None
    return found if isinstance(found, pystac.Catalog) else None


def _collections(
    catalog: pystac.Catalog | None,
    source: Any,
    target: Transactions,
    base: tuple[str, str] | None,
    done: Pushed,
) -> tuple[int | None, set[str]]:
    """Send the Collections that the API lacks or has otherwise.

    Returns
    -------
    total, fresh
        Number of items, where it is known; Collections that the API did not have, and so no item of theirs.
    """
    fresh = set()
    if catalog is None:
        made, total = _made_up(source)
    else:
        found = [catalog] if isinstance(catalog, pystac.Collection) else []
        made = [_document(c, base, done) for c in (*found, *catalog.get_all_collections())]
        total = None
    for document in made:
        known = target.collection(str(document["id"]))
        if known is None or (catalog is not None and not _same(document, known)):
            target.put_collection(document, known=known is not None)
            done.collections.append(str(document["id"]))
        if known is None:
            fresh.add(str(document["id"]))
    return total, fresh


def _made_up(source: Any) -> tuple[list[Json], int]:
    """Collections of what no Collection came with, and the number of items: one reading of all of them."""
    members: dict[str, list[pystac.Item]] = {}
    count = 0
    for item in _items(source):
        count += 1
        some = members.setdefault(_collection_of(item), [])
        some.append(pystac.Item(item.id, item.geometry, item.bbox, item.datetime, dict(item.properties)))
    out = []
    for name, items in members.items():
        collection = pystac.Collection(name, f"Items of {name}", extent_of(items), license="other")
        out.append(collection.to_dict(include_self_link=False, transform_hrefs=False) | {"links": []})
    return out, count


def _items(source: Any) -> Iterator[pystac.Item]:
    for part in open_sources(source, Reader()):
        yield from part.items(Query(), 500)


def _collection_of(item: pystac.Item) -> str:
    if not item.collection_id:
        raise CatalogError(
            f"item {item.id!r} has no collection, and a STAC API has items in collections only; set its collection_id"
        )
    return str(item.collection_id)


def _documents(source: Any, base: tuple[str, str] | None, done: Pushed) -> Iterator[Json]:
    seen: set[tuple[str, str]] = set()
    for item in _items(source):
        key = (_collection_of(item), item.id)
        if item.geometry is None:
            raise CatalogError(
                f"item {item.id!r} has no geometry, which a STAC API cannot hold; give it a footprint"
            )
        if key not in seen:
            seen.add(key)
            yield _document(item, base, done)


def _document(thing: pystac.STACObject, base: tuple[str, str] | None, done: Pushed) -> Json:
    """Item or Collection as it is sent: absolute addresses, no links of the tree, no null fields."""
    own = thing.get_self_href()
    out = thing.to_dict(include_self_link=False, transform_hrefs=False)
    out["links"] = [link for link in out["links"] if link.get("rel") not in _TREE]
    assets = list((out.get("assets") or {}).values())
    for part in (*out["links"], *assets):
        place = absolute(str(part["href"]), own)
        if base is not None and place.startswith(base[0]):
            place = base[1] + place[len(base[0]) :]
        # a path would be taken for one of the API's own
        part["href"] = local_path(place).absolute().as_uri() if is_local(place) else place
    done.local += sum(not is_remote(str(asset["href"])) for asset in assets)
    try:
        plain: Json = json.loads(json.dumps(out, allow_nan=False))
    except ValueError as exc:
        raise CatalogError(
            f"{thing.id!r} cannot be sent as JSON: {exc}; write nodata of NaN as the text 'nan'"
        ) from exc
    return plain


def _batches(documents: Iterable[Json], size: int) -> Iterator[tuple[str, list[Json]]]:
    """Items in lists of one Collection each."""
    waiting: dict[str, list[Json]] = {}
    for document in documents:
        some = waiting.setdefault(document["collection"], [])
        some.append(document)
        if len(some) == size:
            yield document["collection"], waiting.pop(document["collection"])
    yield from waiting.items()


def _push_batch(
    collection: str, documents: list[Json], known: Mapping[str, Json], target: Transactions, done: Pushed
) -> None:
    """Send what the API does not have, or has otherwise."""
    todo = [d for d in documents if d["id"] not in known or not _same(d, known[d["id"]])]
    done.unchanged += len(documents) - len(todo)
    if not todo:
        return
    refused = target.put_items(collection, todo, known)
    done.refused |= {f"{collection}/{name}": why for name, why in refused.items()}
    taken = [d["id"] for d in todo if d["id"] not in refused]
    done.changed += sum(name in known for name in taken)
    done.new += sum(name not in known for name in taken)


def _same(ours: Json, theirs: Json) -> bool:
    return _essence(ours) == _essence({k: v for k, v in theirs.items() if k in ours or v})


def _essence(document: Json) -> Json:
    """What of a document is its author's: no nulls, no links that an API makes, no times of the server's own."""
    out: Json = {k: _without_nulls(v) for k, v in document.items() if v not in (None, [], {})}
    links = [link for link in document.get("links") or () if link.get("rel") not in _TREE | {"queryables"}]
    out["links"] = sorted(json.dumps(link, sort_keys=True) for link in links if not _is_queryables(link))
    if isinstance(out.get("properties"), dict):
        out["properties"] = {k: v for k, v in out["properties"].items() if k not in _SERVERS_OWN}
    if isinstance(out.get("geometry"), dict):  # databases write the last digits in their own way
        out["geometry"] = _rounded(out["geometry"])
    return out


def _rounded(value: Any) -> Any:
    """Coordinates to a billionth of a degree."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 9) if isinstance(value, float) else value


def _is_queryables(link: Mapping[str, Any]) -> bool:
    return str(link.get("rel")).endswith("/queryables")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value
