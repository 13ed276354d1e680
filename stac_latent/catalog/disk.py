"""What ``encode`` does about a disk: errors in words, and no leftovers."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from stac_latent.errors import StacLatentError, VerificationError
from stac_latent.files import clear_killed, clear_parts

__all__ = ["clear", "disk_errors", "remove"]


class disk_errors:  # noqa: N801 - reads as a context manager
    """Turn a failing disk into an error that says where, and that nothing half-written was catalogued."""

    def __init__(self, dest: str | os.PathLike[str]) -> None:
        self.dest = dest

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, tb: object) -> None:
        if isinstance(exc, OSError) and not isinstance(exc, StacLatentError):
            raise VerificationError(
                f"writing to {os.fspath(self.dest)} failed: {exc}; the item being written was not catalogued. "
                "Free some space, or choose another dest, and run the same command again"
            ) from exc


def clear(store: Path, root: Path) -> None:
    """Remove what a killed process left of a store, and beside it."""
    for place in (store.parent, store.parent.parent, root):
        clear_parts(place)
    clear_killed(store)


def remove(folder: Path) -> None:
    """Remove a folder for good: writes that a failing store still has under way may make it anew."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
        if not folder.exists():
            return
