"""Stores that many Items share: gathered from finished ones, named by their contents, and swept once no Item has them any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pystac

from stac_latent.catalog.tree import CatalogTree
from stac_latent.catalog.versions import versioned
from stac_latent.cube.write.writer import Encoded
from stac_latent.errors import StacLatentError
from stac_latent.store.zarr.chips import ITEMS, asset_size
from stac_latent.store.zarr.pack import pack_chips
from stac_latent.system.documents import read_json
from stac_latent.system.files import clear_parts, files_below, remove

__all__ = ["gather", "of_chip", "sweep"]


def gather(stores: Sequence[Path], items: Sequence[str], path: Path) -> tuple[str, list[int]]:
    """Gather finished stores of one Item each.

    Parameters
    ----------
    stores
        What is gathered.
    items
        The id of the Item of each.
    path
        New folder, whose name says what the store is called.

    Returns
    -------
    name, sizes
        What to call the store, with a digest of its contents; bytes of each chip of it.
    """
    pack_chips(path, stores, items)
    return versioned(path, sorted(files_below(path))), [asset_size(path, i) for i in range(len(stores))]


def of_chip(made: Encoded, size: int) -> Encoded:
    """What was measured of an Item in a store of its own, with the bytes that it takes in a shared one."""
    fields = dict(made.fields)
    fields.pop("latent:metadata_digest", None)
    fields["latent:bits_per_pixel"] *= size / made.size
    return replace(made, size=size, fields=fields)


def sweep(tree: CatalogTree, items: Iterable[pystac.Item]) -> None:
    """Remove what killed processes left in the folders of the Items' Collections, and shared stores there that no Item has.

    A run that is killed between putting a store in place and writing its Items leaves such a store, and so does one that replaces
    all of its Items.
    """
    clear_parts(tree.root)
    for collection in dict.fromkeys(item.collection_id for item in items):
        folder = tree.collection_folder(collection)
        clear_parts(folder)
        with tree.locked():
            for store in folder.glob("*.zarr"):
                if not _is_used(tree, store, collection):
                    remove(store)


def _is_used(tree: CatalogTree, store: Path, collection: str | None) -> bool:
    """Whether an Item has the store, as far as can be told."""
    try:
        names = read_json(store / "zarr.json")["attributes"][ITEMS]
        return any(store in (tree.files_of(str(name), collection) or ()) for name in names)
    except (StacLatentError, KeyError, TypeError, OSError):
        return True  # it is none of these stores
