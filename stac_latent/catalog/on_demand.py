"""A latent view of raw Items: each is encoded when it is first asked for, and kept in a folder of limited size."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pystac

from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.encode.encoded_item import name_of
from stac_latent.catalog.encode.fingerprint import intact
from stac_latent.catalog.encode.options import items_to_encode
from stac_latent.catalog.tree import CatalogTree
from stac_latent.codec.codec import Codec
from stac_latent.cube.open_codec import open_codec
from stac_latent.errors import CatalogError
from stac_latent.system.digests import digest
from stac_latent.system.documents import read_json
from stac_latent.system.files import tree_size, write_whole
from stac_latent.system.locks import locked

__all__ = ["OnDemand", "on_demand"]

_ABOUT = "on-demand.json"
"""File of the cache that says what it holds."""
_REFUSED = ("executor", "on_error", "overwrite", "pack", "progress", "references")
"""Keywords of encode that ask for what spans several Items, or that make no sense for one."""


@dataclass(frozen=True)
class OnDemand:
    """What :func:`on_demand` gives: ids of raw Items to latent Items.

    Attributes
    ----------
    tree : CatalogTree
        The cache, a catalogue like any other: search, load and verify it by its ``path``.
    max_bytes : int
        Limit of its size [byte].
    keep : float
        Seconds since an Item was last asked for in which it is not removed [s].
    """

    raw: dict[str, pystac.Item]
    codec: Codec
    tree: CatalogTree
    max_bytes: int
    keep: float
    log: Path | None
    options: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __getitem__(self, item_id: str) -> pystac.Item:
        """The latent Item of a raw one: found in the cache, or encoded now.

        Of several processes and threads that ask for the same Item one encodes it, and the others wait.

        Raises
        ------
        CatalogError
            If no raw Item has that id.
        StacLatentError
            If it cannot be encoded; the next who asks tries again.
        """
        raw = self.raw.get(item_id)
        if raw is None:
            raise CatalogError(
                f"no item {item_id!r} among the {len(self.raw)} raw items; ids are those of the source"
            )
        if self.log is not None:
            _note(self.log, item_id)
        found = self._found(raw)
        if found is not None:
            return found
        with locked(self.tree.root / f"{digest(item_id.encode())[7:23]}.encoding"):
            found = self._found(raw)  # by who held the lock
            if found is None:
                (found,) = encode(raw, self.codec, self.tree.root, **self.options)
                self._touch(found)
        self._make_room()
        return found

    def items(self, ids: Iterable[str] | None = None) -> list[pystac.Item]:
        """Latent Items by id, in that order, all of them without ids: what :func:`stac_latent.load` takes."""
        return [self[i] for i in (self.raw if ids is None else ids)]

    def _found(self, raw: pystac.Item) -> pystac.Item | None:
        asset = self.options.get("asset", "latent")
        item = self.tree.find(name_of(raw, asset, self.options.get("mode", "beside")), raw.collection_id)
        if item is None or asset not in item.assets or not intact(item.assets[asset]):
            return None
        self._touch(item)
        return item

    def _touch(self, item: pystac.Item) -> None:
        path = self.tree.item_path(item.id, item.collection_id)
        with suppress(
            FileNotFoundError
        ):  # removed by another process meanwhile: made again when it is asked for
            os.utime(path)

    def _make_room(self) -> None:
        """Remove the Items that were not asked for the longest, until the cache keeps its size."""
        entries = sorted((p.stat().st_mtime, p) for p in self.tree.items() if p.exists())
        sizes = {path: tree_size(path.parent) for _, path in entries}
        used = sum(sizes.values())
        for _, path in entries:
            if used <= self.max_bytes:
                return
            with self.tree.locked():
                if path.exists() and time.time() - path.stat().st_mtime > self.keep:
                    self.tree.remove(path)
                    used -= sizes[path]


def on_demand(
    items: pystac.Item | Iterable[pystac.Item],
    codec: str | os.PathLike[str] | Codec,
    cache: str | os.PathLike[str],
    *,
    max_bytes: float = 10e9,
    keep: float = 600.0,
    log: str | os.PathLike[str] | None = None,
    **options: Any,
) -> OnDemand:
    """A latent view of raw Items; nothing is encoded before it is asked for.

    Parameters
    ----------
    items
        Raw Items, as :func:`stac_latent.encode` takes them.
    codec
        Name, bundle folder, or an opened codec.
    cache
        Folder that keeps what was encoded, a catalogue of its own; it is made if need be, and processes may share it. It holds latents
        of one codec and one set of options.
    max_bytes
        Limit of its size [byte]. Beyond it the Items that were not asked for the longest are removed.
    keep
        Seconds for which an Item that was asked for stays in any case, so that a cube that was loaded lazily can be computed. The
        cache may pass its limit for so long [s].
    log
        CSV file that gains a row for each time an Item is asked for: what ``stac-latent cost --log`` reads.
    **options
        Keywords of :func:`stac_latent.encode`, but those that span several Items.

    Returns
    -------
    OnDemand
        ``view["id"]`` is a latent Item, ``view.items(ids)`` are several.

    Raises
    ------
    CatalogError
        If the cache holds latents of another codec or other options, a number makes no sense, or a keyword is one of a whole run.

    Examples
    --------
    >>> view = on_demand(scenes, "s2-10m-4b", "cache", psnr=42)  # doctest: +SKIP
    >>> cube = load(view.items(["scene-1", "scene-2"]))  # doctest: +SKIP
    """
    if refused := sorted(set(options) & set(_REFUSED)):
        raise CatalogError(
            f"on_demand() encodes one item at a time and takes no {', '.join(refused)}; encode() does, into a catalogue of your own"
        )
    if not (max_bytes > 0 and keep >= 0):
        raise CatalogError(
            f"max_bytes is {max_bytes!r} and keep {keep!r}; expected a number above 0, and one of at least 0"
        )
    raw, opened = {i.id: i for i in items_to_encode(items)}, open_codec(codec)
    tree = CatalogTree(Path(cache))
    _claim(tree.root / _ABOUT, opened, options)
    limit = int(min(max_bytes, 2.0**62))
    return OnDemand(raw, opened, tree, limit, keep, None if log is None else Path(log), options)


def _claim(path: Path, codec: Codec, options: dict[str, Any]) -> None:
    """Write down what a cache holds, or hold it against what is written."""
    said = {k: v for k, v in sorted(options.items()) if k != "key"} | {
        "encrypted": options.get("key") is not None
    }
    about = json.loads(json.dumps({"space": codec.space, "codec": codec.name, "options": said}, default=str))
    with locked(path):
        if not path.exists():
            write_whole(path, json.dumps(about, indent=2).encode())
        elif (there := read_json(path)) != about:
            raise CatalogError(
                f"{path.parent} holds latents of {there}, asked for are {about}; name another folder for these"
            )


def _note(log: Path, item_id: str) -> None:
    """Add a row to a log, and the heading to one that is new."""
    with locked(log):
        new = not log.exists()
        with log.open("a", encoding="utf-8", newline="") as file:
            file.write("item\n" * new)
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow([item_id])
