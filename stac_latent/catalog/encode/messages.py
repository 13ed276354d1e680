"""What ``encode`` says of one Item: errors that name it, refusals, Items that are passed over, and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rasterio.errors import RasterioError

from stac_latent.errors import (
    CatalogError,
    GuardError,
    GuardWarning,
    SkippedWarning,
    StacLatentError,
    VerificationError,
)
from stac_latent.system.files import is_disk_full

__all__ = ["ItemOutcome", "naming_errors", "naming_refusals", "passing_over", "warn_of", "warnings_of"]

_CALLER = 6
"""Frames from a warning to the caller of ``encode``: its helper, the Item, the loop over Items, the verb, the check of its options."""


@dataclass(frozen=True)
class ItemOutcome:
    """What became of one Item of a run of :func:`stac_latent.encode`.

    Parameters
    ----------
    id, collection
        Those of the Item as it was given.
    state
        ``done``: encoded and catalogued. ``skipped``: it was finished before. ``failed``: left out, or what ended the run.
    href
        The catalogued Item, or None.
    error
        Why it failed, or None.

    Examples
    --------
    >>> ItemOutcome("scene", None, "failed", error=CatalogError("no CRS")).to_dict()["error"]
    {'type': 'CatalogError', 'message': 'no CRS'}
    """

    id: str
    collection: str | None
    state: Literal["done", "skipped", "failed"]
    href: str | None = None
    error: StacLatentError | None = None

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON has it; what has no value is left out."""
        row: dict[str, Any] = {"id": self.id, "collection": self.collection, "state": self.state}
        if self.href is not None:
            row["href"] = self.href
        if self.error is not None:
            row["error"] = {"type": type(self.error).__name__, "message": str(self.error)}
        return row


@contextmanager
def naming_errors(item: str, dest: Path) -> Iterator[None]:
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


@contextmanager
def naming_refusals(item: str) -> Iterator[None]:
    """Say which Item the guard or a check refuses."""
    try:
        yield
    except GuardError as exc:
        raise GuardError(
            f"item {item!r} is refused and was not catalogued: {exc}. Look at it; to have it all the same, encode it with another "
            "codec or rate, with guard='warn' (--guard warn), or without the check"
        ) from None


@contextmanager
def passing_over(item: str, *, wanted: bool) -> Iterator[None]:
    """Turn the error of an Item into a warning, where that is wanted and the next one may fare better."""
    try:
        yield
    except StacLatentError as exc:
        if not wanted or is_disk_full(exc.__cause__):
            raise
        warnings.warn(SkippedWarning(item, exc), stacklevel=_CALLER)


def warn_of(item: str, texts: Iterable[str], category: type[Warning] = GuardWarning) -> None:
    """One warning for each text, at the caller of ``encode``."""
    for warning in warnings_of(item, texts, category):
        warnings.warn(warning, stacklevel=_CALLER)


def warnings_of(item: str, texts: Iterable[str], category: type[Warning] = GuardWarning) -> Iterator[Warning]:
    """One warning for each text, which names the Item."""
    return (category(f"item {item!r}: {text}") for text in texts)
