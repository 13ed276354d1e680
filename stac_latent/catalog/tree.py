"""A self-contained static catalogue on disk: root Catalog, one Collection for each source collection, Items below.

Files are written under a temporary name and renamed; an Item's file comes before the Collection that links to it, so
that a reader never follows a link to nothing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pystac

from stac_latent.catalog.asset_definitions import define_assets
from stac_latent.catalog.footprints import footprints
from stac_latent.cube.item_assets import latent_assets
from stac_latent.errors import CatalogError, StacLatentError
from stac_latent.extension import LatentExtension
from stac_latent.geo.extents import WORLD, bbox_of, extent_of, fields_in_utc, flat_bbox, item_bbox, spanning
from stac_latent.net.items import read_item
from stac_latent.spec import Grid
from stac_latent.system.documents import json_text, read_json, unicode_text
from stac_latent.system.files import remove, write_whole
from stac_latent.system.links import absolute, asset_href, href_of, is_local, link_href, local_path, relative
from stac_latent.system.locks import locked
from stac_latent.system.names import safe_name

__all__ = ["CatalogTree", "write_json"]

_DEFAULT_COLLECTION = "latents"
_ABOUT = "Latents, catalogued beside the imagery that they encode"
_ABOUT_ITEMS = "Items whose assets are also stored as latents; see the latent extension"
_LINKED_LATER = 64
"""A growing Collection is written once for each such share of its links: often enough for who looks at it, and in all as many bytes as 64 of it."""
_OWN = ("codecs", "catalog.json")
"""What lies beside the Collections of a catalogue."""


def write_json(path: Path, doc: dict[str, Any]) -> None:
    """Write JSON atomically; a nodata of NaN becomes the string that STAC has for it.

    Raises
    ------
    CatalogError
        If another value is NaN or infinite, which JSON cannot hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = json_text(_nodata_as_text(doc))
    except ValueError as exc:
        raise CatalogError(
            f"{path.name} cannot be written: {exc}; remove the field that is NaN or infinite"
        ) from exc
    write_whole(path, unicode_text(text + "\n"))


class CatalogTree:
    """Adds Items to a catalogue folder.

    Parameters
    ----------
    root
        Folder; ``catalog.json`` in it is read if it is there.
    called
        What messages call it; None for the folder.
    """

    def __init__(self, root: Path, called: str | None = None) -> None:
        self.root = Path(os.path.normpath(root.absolute()))
        self.called = str(self.root) if called is None else called
        self.path = self.root / "catalog.json"
        self._gathered: dict[str | None, dict[Path, pystac.Item]] | None = None
        self._links = True

    def collection_folder(self, collection: str | None) -> Path:
        """Folder of a Collection."""
        name = safe_name(collection or _DEFAULT_COLLECTION, "collection id")
        if name in _OWN:
            raise CatalogError(
                f"collection id {name!r} is the name of a part of the catalogue itself; choose another"
            )
        return self.root / name

    def item_folder(self, item: pystac.Item) -> Path:
        """Folder of an Item and its stores."""
        return self.collection_folder(item.collection_id) / safe_name(item.id)

    def find(self, item_id: str, collection: str | None) -> pystac.Item | None:
        """The catalogued Item of that id, with absolute asset hrefs, or None."""
        path = self.item_path(item_id, collection)
        if not path.exists():
            return None
        item = read_item(href_of(path))
        for asset in item.assets.values():
            asset.href = asset_href(asset)
        links = [link for link in item.links if link.rel not in ("self", "root", "parent", "collection")]
        for link in links:
            link.target = link_href(link) or link.target
        item.links = links
        return item

    def locked(self) -> AbstractContextManager[None]:
        """Hold the catalogue alone: what is read of it stays so until it is written."""
        return locked(self.path)

    def add(self, item: pystac.Item) -> pystac.Item:
        """Write an Item and make its Collection and the root know it; returns it as it can be read back."""
        if self._links and self._gathered is None:
            return self.add_together([item])[0]
        path = self.item_path(item.id, item.collection_id)
        with self.locked(), _all_or_none(path):
            write_json(path, self._document(item))
            return self.know(item.id, item.collection_id)

    def know(self, item_id: str, collection: str | None) -> pystac.Item:
        """Make the Collection and the root know an Item that is written, while Items are gathered with others; returns it as it can be read back."""
        path = self.item_path(item_id, collection)
        written = read_item(href_of(path))
        if self._gathered is None:
            return written
        waiting = self._gathered.setdefault(collection, {})
        waiting[path] = written
        with self.locked():
            if _LINKED_LATER * len(waiting) > len(_links_of(self._collection_path(collection))):
                try:
                    self._link_gathered(collection)
                except BaseException:
                    del waiting[path]
                    raise
        return written

    @contextmanager
    def unlinking(self) -> Iterator[None]:
        """Meanwhile :meth:`add` writes Items and links none: another process will (:meth:`know`)."""
        self._links = False
        try:
            yield
        finally:
            self._links = True

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Meanwhile :meth:`add` makes a Collection know a few Items at a time, a share of those that it has; at the end all.

        So a Collection that grows is not written for each of its Items. Of a process that is killed, :meth:`unlinked` finds what is missing.
        """
        self._gathered = {}
        try:
            yield
        except BaseException:
            with suppress(StacLatentError, OSError):
                self._link_all()
            raise
        else:
            try:
                self._link_all()
            except OSError as exc:
                raise CatalogError(
                    f"the last items are written to {self.root}, but their collection cannot be: {exc}; run the same again to link them"
                ) from exc
        finally:
            self._gathered = None

    def _link_all(self) -> None:
        for collection in self._gathered or ():
            self._link_gathered(collection)

    def add_together(self, items: Sequence[pystac.Item]) -> list[pystac.Item]:
        """As :meth:`add`, of Items of one Collection, all of them or none."""
        collection = items[0].collection_id
        paths = [self.item_path(item.id, collection) for item in items]
        collection_path = self._collection_path(collection)
        with self.locked(), _all_or_none(*paths, collection_path, self.path):
            for path, item in zip(paths, items, strict=True):
                write_json(path, self._document(item))
            written = [read_item(href_of(path)) for path in paths]
            self._update_collection(dict(zip(paths, written, strict=True)), collection_path)
            self._update_root(collection_path, collection or _DEFAULT_COLLECTION)
        return written

    def add_many(self, items: Sequence[pystac.Item], about: str) -> None:
        """Write Items without latents; each Collection and the root are written once for all of them.

        Parameters
        ----------
        items
            Of any Collections. Their hrefs stay as they are, but for files inside the catalogue.
        about
            Description of the catalogue and of Collections that are not there yet.
        """
        named: dict[str, dict[Path, pystac.Item]] = {}
        for item in items:
            path = self.item_path(item.id, item.collection_id)
            named.setdefault(item.collection_id or _DEFAULT_COLLECTION, {})[path] = item
        for collection, own in named.items():
            collection_path = self._collection_path(collection)
            with self.locked(), _all_or_none(collection_path, self.path):
                for path, item in own.items():
                    write_json(path, self._document(item))
                self._update_collection(own, collection_path, about)
                self._update_root(collection_path, collection, about)

    def _link_gathered(self, collection: str | None) -> None:
        """Make a Collection and the root know the Items that wait for it."""
        waiting = (self._gathered or {}).get(collection)
        if not waiting:
            return
        collection_path = self._collection_path(collection)
        with self.locked(), _all_or_none(collection_path, self.path):
            self._update_collection(waiting, collection_path)
            self._update_root(collection_path, collection or _DEFAULT_COLLECTION)
        waiting.clear()

    def links_to(self, item_id: str, collection: str | None) -> bool:
        """Whether an Item's Collection and the root know it."""
        collection_path = self._collection_path(collection)
        return self.item_path(item_id, collection) in _links_of(
            collection_path
        ) and collection_path in _links_of(self.path)

    def files_of(self, item_id: str, collection: str | None) -> set[Path] | None:
        """Local files of the assets of a catalogued Item; None where there is no such Item."""
        path = self.item_path(item_id, collection)
        if not path.exists():
            return None
        assets = _read(path).get("assets")
        hrefs = [a.get("href", "") for a in assets.values()] if isinstance(assets, dict) else []
        found = (absolute(str(h), href_of(path)) for h in hrefs)
        return {Path(os.path.normpath(local_path(h))) for h in found if is_local(h)}

    def renew(self, item: pystac.Item) -> pystac.Item:
        """As :meth:`add`, but an Item that is written already and says the same is linked alone."""
        path = self.item_path(item.id, item.collection_id)
        now, new = (_facts(doc) for doc in (_read(path), self._document(item)))
        return self.relink(item.id, item.collection_id) if now == new else self.add(item)

    def relink(self, item_id: str, collection: str | None) -> pystac.Item:
        """Make the Collection and the root know an Item that is written already; returns it as it can be read back."""
        path = self.item_path(item_id, collection)
        item, collection_path = (
            read_item(href_of(path)),
            self._collection_path(collection),
        )
        with self.locked():
            if path not in _links_of(collection_path):
                self._update_collection({path: item}, collection_path)
            self._update_root(collection_path, collection or _DEFAULT_COLLECTION)
        return item

    def items(self) -> list[Path]:
        """Files of the Items that are linked, in all Collections."""
        collections = [p for p in _links_of(self.path) if p.name == "collection.json"]
        return sorted(path for c in collections for path in _links_of(c) if path.parent.parent == c.parent)

    def remove(self, path: Path) -> None:
        """Remove an Item with all that lies in its folder; nothing links to it any more when its first file goes.

        The Collection's extent and summaries stay as they are: they may say more than is there.
        """
        collection_path = path.parent.parent / "collection.json"
        with self.locked():
            doc = _read(collection_path)
            href = relative(str(path), collection_path)
            doc["links"] = [link for link in doc["links"] if link.get("href") != href]
            write_json(collection_path, doc)
            path.unlink(missing_ok=True)
            remove(path.parent)

    def unlinked(self) -> Iterator[Path]:
        """Files of Items and Collections of the catalogue that it does not link to, as a lost update or a killed writer leaves them."""
        children = _links_of(self.path)
        for collection_path in sorted(self.root.glob("*/collection.json")):
            items = _links_of(collection_path)
            if collection_path not in children and self.path in items:
                yield collection_path
            folders = sorted(p for p in collection_path.parent.iterdir() if p.is_dir())
            for path in (p / f"{p.name}.json" for p in folders):
                if path.is_file() and path not in items and collection_path in _links_of(path):
                    yield path

    def _collection_path(self, collection: str | None) -> Path:
        return self.collection_folder(collection) / "collection.json"

    def item_path(self, item_id: str, collection: str | None) -> Path:
        """File of an Item, which need not be there."""
        return self.collection_folder(collection) / safe_name(item_id) / f"{safe_name(item_id)}.json"

    def _document(self, item: pystac.Item) -> dict[str, Any]:
        """An Item as it is written: hrefs inside the catalogue are relative."""
        path = self.item_path(item.id, item.collection_id)
        doc = item.to_dict(include_self_link=False, transform_hrefs=False)
        doc["collection"] = item.collection_id or _DEFAULT_COLLECTION
        doc["properties"] = fields_in_utc(doc["properties"])
        if doc["geometry"] is not None and not doc.get("bbox"):
            doc["bbox"] = list(item_bbox(item) or WORLD)
        for asset in doc["assets"].values():
            asset.update(fields_in_utc(asset), href=_relative(asset["href"], path, self.root))
        for link in doc["links"]:
            link["href"] = _relative(link["href"], path, self.root)
        up = "../collection.json"
        doc["links"] = [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": up, "type": "application/json"},
            {"rel": "collection", "href": up, "type": "application/json"},
            *doc["links"],
        ]
        return doc

    def _update_collection(
        self, items: Mapping[Path, pystac.Item], collection_path: Path, about: str = _ABOUT_ITEMS
    ) -> None:
        if collection_path.exists():
            collection = pystac.Collection.from_dict(_read(collection_path), preserve_dict=False)
        else:
            collection = _new_collection(next(iter(items.values())), about)
        doc_links = collection.to_dict(include_self_link=False, transform_hrefs=False)["links"]
        keep = [link for link in doc_links if link["rel"] not in ("root", "parent", "self")]
        linked = {link["href"] for link in keep if link["rel"] == "item"}
        for path, item in items.items():
            _widen(collection, item)
            if latent_assets(item):
                LatentExtension.summaries(collection, add_if_missing=True).update(item)
            if (href := relative(str(path), collection_path)) not in linked:
                keep.append({"rel": "item", "href": href, "type": "application/geo+json", "title": item.id})
        doc = collection.to_dict(include_self_link=False, transform_hrefs=False)
        for item in items.values():
            define_assets(doc, item.to_dict(include_self_link=False, transform_hrefs=False))
        up = {"href": "../catalog.json", "type": "application/json"}
        doc["links"] = [{"rel": "root", **up}, {"rel": "parent", **up}, *keep]
        write_json(collection_path, doc)

    def _update_root(self, collection_path: Path, collection_id: str, about: str = _ABOUT) -> None:
        if self.path.exists():
            doc = _read(self.path)
        else:
            catalog = pystac.Catalog("latents" if about == _ABOUT else "items", about)
            doc = catalog.to_dict(include_self_link=False, transform_hrefs=False)
            doc["links"] = [{"rel": "root", "href": "./catalog.json", "type": "application/json"}]
        href = "./" + collection_path.relative_to(self.root).as_posix()
        if not any(link["rel"] == "child" and link["href"] == href for link in doc["links"]):
            doc["links"].append(
                {"rel": "child", "href": href, "type": "application/json", "title": collection_id}
            )
            write_json(self.path, doc)


@contextmanager
def _all_or_none(*paths: Path) -> Iterator[None]:
    """Put files back as they were if the body fails."""
    before = [path.read_bytes() if path.exists() else None for path in paths]
    try:
        yield
    except BaseException:
        for path, old in zip(paths, before, strict=True):
            if old is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != old:
                path.write_bytes(old)
        raise


def _links_of(path: Path) -> frozenset[Path]:
    """Where a document links to; nowhere where there is no such document."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return frozenset()
    return _known_links(path, stat.st_mtime_ns, stat.st_ino, stat.st_size)


@lru_cache(maxsize=4)
def _known_links(path: Path, *_state: int) -> frozenset[Path]:
    links = _read(path).get("links") or ()
    hrefs = (str(link["href"]) for link in links if isinstance(link, dict) and "href" in link)
    found = (absolute(href, href_of(path)) for href in hrefs)
    return frozenset(local_path(href) for href in found if is_local(href))


def _facts(doc: dict[str, Any]) -> Any:
    """What an Item says, but when that was written."""
    facts = json.loads(json.dumps(_nodata_as_text(doc)))
    facts["properties"].pop("updated", None)
    return facts


def _nodata_as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_nodata_as_text(v) for v in value]
    if not isinstance(value, dict):
        return value
    odd = value.get("nodata")
    changed = {"nodata": str(odd)} if isinstance(odd, float) and not math.isfinite(odd) else {}
    return {k: _nodata_as_text(v) for k, v in value.items()} | changed


def _new_collection(item: pystac.Item, about: str) -> pystac.Collection:
    return pystac.Collection(
        id=item.collection_id or _DEFAULT_COLLECTION,
        description=about,
        extent=_extent(item),
        license="other",
    )


def _extent(item: pystac.Item) -> pystac.Extent:
    """Place and time of an Item; where it says no place, that of its latents."""
    box = WORLD
    for key in latent_assets(item) if item.geometry is None else ():
        with suppress(StacLatentError):
            grid = Grid.from_fields(item.assets[key].extra_fields, item.properties)
            box = bbox_of(footprints(grid.cell_grid(), np.array([0]), np.array([0]), grid.cells)[0])
    return extent_of([item], box)


def _widen(collection: pystac.Collection, item: pystac.Item) -> None:
    """Grow the Collection's extent to cover the Item."""
    new = _extent(item)
    known = [flat_bbox(b) for b in collection.extent.spatial.bboxes]
    collection.extent.spatial.bboxes = [list(spanning([*known, *(flat_bbox(b) for b in new.spatial.bboxes)]))]
    far = datetime.max.replace(tzinfo=UTC)
    spans = [*collection.extent.temporal.intervals, *new.temporal.intervals]
    starts = [s[0] or far for s in spans]
    ends = [s[1] for s in spans]
    last = None if any(e is None for e in ends) else max(e for e in ends if e is not None)
    collection.extent.temporal.intervals = [[min(starts), last]]


def _relative(href: str, start: Path, root: Path) -> str:
    """Relative to ``start`` for files inside the catalogue; others stay absolute."""
    inside = is_local(href) and (path := local_path(href)).is_absolute() and path.is_relative_to(root)
    return relative(href, start) if inside else href


def _read(path: Path) -> dict[str, Any]:
    try:
        doc = read_json(path)
    except CatalogError as exc:
        raise CatalogError(f"{exc}; move it away to start a new catalogue") from None
    if not isinstance(doc, dict):
        raise CatalogError(f"{path} is no STAC object: expected a JSON object, got {type(doc).__name__}")
    return doc
