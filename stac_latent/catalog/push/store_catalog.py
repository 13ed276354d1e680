"""A catalogue in an object store that Items are added to, also by several writers at once.

Stores and bundles are written first, then Items, then the links to them. A Collection and the root are read, changed and written on the condition that
nobody else wrote them meanwhile; otherwise that is done again with what the other wrote.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pystac

from stac_latent.catalog.push.upload import Upload, new_names, waves_of
from stac_latent.catalog.tree import CatalogTree
from stac_latent.errors import RemoteError
from stac_latent.net.answers import connections
from stac_latent.net.items import item_of
from stac_latent.system.documents import parse_json
from stac_latent.system.links import shown

__all__ = ["StoreCatalog", "Written"]

_TRIES = 30
"""Times that a Collection is written anew where others write it at the same time."""
_PAUSE = 5.0
_LINKED_LATER = 64
"""As of a catalogue on disk: a Collection is written once for each such share of its links."""


@dataclass(frozen=True)
class Written:
    """An Item that is in the store."""

    name: str
    """Of its document below the destination."""
    document: bytes

    def opened(self, dest: str) -> pystac.Item:
        """The Item, as it is read from the store."""
        address = f"{dest.rstrip('/')}/{self.name}"
        return item_of(parse_json(self.document, shown(address)), address)


@dataclass
class StoreCatalog:
    """Adds Items to a catalogue in an object store.

    Parameters
    ----------
    dest
        Address of the catalogue's folder.
    """

    dest: str
    upload: Upload = field(init=False)
    _waiting: dict[str, Written] = field(default_factory=dict, init=False)
    """Items that are written and that no Collection knows yet, by their names."""
    _links: int = field(default=0, init=False)
    """Items that the Collections knew when they were written last."""
    _codecs: set[str] = field(default_factory=set, init=False)
    """Folders of bundles that are there."""

    def __post_init__(self) -> None:
        self.upload = Upload(self.dest)

    def find(self, names: Iterable[str]) -> list[Written | None]:
        """Items that are in the store already, of those of some names.

        Raises
        ------
        RemoteError
            If the store cannot be read.
        """
        wanted = list(names)
        with ThreadPoolExecutor(connections()) as pool:
            found = list(pool.map(self.upload.there, wanted))
        return [None if f is None else Written(name, f[0]) for name, f in zip(wanted, found, strict=True)]

    def add(self, root: Path) -> list[Written]:
        """Write all that lies in a catalogue on disk, but for its links; an Item comes after what it links to.

        Where another Item of that name is there, what the new one links to gets new names, so that a reader finds the old Item with the old pixels or the new
        one with the new.

        Raises
        ------
        RemoteError
            If the store does not take a file.
        """
        waves = list(waves_of(root))[:3]
        with ThreadPoolExecutor(connections()) as pool:
            names, new = new_names(
                root, waves, lambda p: self.upload.readable(p.relative_to(root).as_posix()), pool
            )
            bundles = {p.relative_to(root).parts[1] for p in waves[1]} - self._codecs
            known = {b for b in bundles if self.upload.readable(f"codecs/{b}/item.json")}
            skipped = self._codecs | known
            for wave in waves[:2]:
                files = [
                    (name, path)
                    for path in wave
                    for name in names.get(path, [path.relative_to(root).as_posix()])
                ]
                wanted = [
                    (n, p) for n, p in files if not (n.startswith("codecs/") and n.split("/")[1] in skipped)
                ]
                list(pool.map(lambda job: self.upload.send(*job), wanted))
            self._codecs |= bundles
            out = [Written(p.relative_to(root).as_posix(), new.get(p) or p.read_bytes()) for p in waves[2]]
            list(pool.map(lambda w: self.upload.send(w.name, root / w.name, w.document), out))
        return out

    def know(self, items: Iterable[Written]) -> None:
        """Let the Collections link to Items that are written: now, or with others later; see :meth:`link`."""
        self._waiting |= {item.name: item for item in items}
        if _LINKED_LATER * len(self._waiting) > self._links:
            self.link()

    def link(self) -> None:
        """Let the Collections and the root know all Items that are written.

        Raises
        ------
        RemoteError
            If the store does not take a document, or others change it again and again.
        """
        for attempt in range(_TRIES):
            if not self._waiting or self._linked():
                self._waiting.clear()
                return
            time.sleep(random.uniform(0, min(_PAUSE, 0.05 * 2**attempt)))  # noqa: S311 - so that writers part
        raise RemoteError(
            f"the links of {shown(self.dest)} were changed by others each of the {_TRIES} times that {len(self._waiting)} items were to be added; the items are "
            "written: run the same again to link them"
        )

    def _linked(self) -> bool:
        """Add what is waiting to the documents as they are now; False where somebody else wrote one meanwhile."""
        with TemporaryDirectory(prefix="stac-latent-links-") as folder:
            tree = CatalogTree(Path(folder))
            collections = {name.split("/")[0] for name in self._waiting}
            tags: dict[str, str | None] = {}
            for name in [*(f"{c}/collection.json" for c in sorted(collections)), "catalog.json"]:
                found = self.upload.there(name)
                tags[name] = None if found is None else found[1]
                if found is not None:
                    _write(tree.root / name, found[0])
            before = {name: (tree.root / name).read_bytes() for name, tag in tags.items() if tag is not None}
            for name, item in self._waiting.items():
                _write(tree.root / name, item.document)
            with tree.gathering():
                for item in self._waiting.values():
                    opened = item.opened(str(tree.root))
                    tree.know(opened.id, opened.collection_id)
            self._links = len(tree.items())
            for name, tag in tags.items():
                data = (tree.root / name).read_bytes()
                if data != before.get(name) and not self.upload.replace(name, data, tag):
                    return False
        return True


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
