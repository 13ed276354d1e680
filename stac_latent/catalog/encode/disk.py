"""What ``encode`` does about files: new stores, and no leftovers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stac_latent.system.files import (
    clear_killed,
    clear_parts,
    left_by_killed,
    remove,
    temporary,
    tree_size,
)

__all__ = ["clear", "new_store"]


def clear(store: Path, root: Path, size: int | None = None) -> None:
    """Remove what a killed process left of a store, and beside it; of an old and a new one, the one that was not catalogued.

    Parameters
    ----------
    store
        Path of the store.
    root
        Folder of the catalogue.
    size
        Bytes of the store that is catalogued, as its Item says.
    """
    for place in (store.parent, store.parent.parent, root):
        clear_parts(place)
    replaced = [left for left, state in left_by_killed(store) if state == "old"]
    if (
        replaced
        and store.exists()
        and size != tree_size(store)
        and any(tree_size(p) == size for p in replaced)
    ):
        remove(store)  # put into place, and not catalogued
    clear_killed(store)


@contextmanager
def new_store(path: Path) -> Iterator[Path]:
    """Temporary place of a store; gone afterwards where it was not renamed, and so are folders that stayed empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(path, "part")
    try:
        yield part
    finally:
        if part.exists() or not path.exists():
            _remove_for_good(part)
            for folder in (path.parent, path.parent.parent):
                with suppress(OSError):
                    folder.rmdir()  # if it is empty


def _remove_for_good(folder: Path) -> None:
    """Remove a folder: writes that a failing store still has under way may make it anew."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
        if not folder.exists():
            return
