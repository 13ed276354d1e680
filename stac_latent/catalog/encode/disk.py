"""What ``encode`` does about files: errors of one Item in words that name it, and no leftovers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rasterio.errors import RasterioError

from stac_latent.errors import CatalogError, StacLatentError, VerificationError
from stac_latent.system.files import (
    clear_killed,
    clear_parts,
    is_disk_full,
    left_by_killed,
    remove,
    temporary,
    tree_size,
)

__all__ = ["clear", "errors_of", "new_store"]


@contextmanager
def errors_of(item: str, dest: Path) -> Iterator[None]:
    """Turn what fails while an Item is encoded into errors that name it, and tell what cannot be read from what cannot be written.

    Parameters
    ----------
    item
        Its id.
    dest
        Folder of the catalogue.
    """
    try:
        yield
    except StacLatentError as exc:
        if repr(item) not in str(exc):
            exc.args = (f"item {item!r}: {exc}", *exc.args[1:])
        raise
    except (OSError, RasterioError) as exc:
        if isinstance(exc, OSError) and _is_write(exc, dest):
            way_out = "Free some space, or choose" if is_disk_full(exc) else "Choose"
            raise VerificationError(
                f"writing to {dest} failed: {exc}; the item being written, {item!r}, was not catalogued. {way_out} another dest, "
                "and run the same command again"
            ) from exc
        because = "" if exc.__cause__ is None else f" ({exc.__cause__})"
        raise CatalogError(
            f"item {item!r} cannot be read: {exc}{because}; it was not catalogued. Put its file right, or leave the item out"
        ) from exc


def _is_write(exc: OSError, dest: Path) -> bool:
    """Whether it was our own writing that failed: readers of rasters give no number, or name a file elsewhere."""
    if exc.errno is None or is_disk_full(exc):
        return exc.errno is not None
    return exc.filename is None or Path(str(exc.filename)).absolute().is_relative_to(dest.absolute())


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
