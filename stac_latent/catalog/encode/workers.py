"""What ``encode`` does in other processes: a batch of Items goes to a worker, which encodes, stores and describes them; links are made here.

A worker is told where the codec and the catalogue lie, never handed a codec, a key or an open connection. Any executor
will do that has ``submit`` as those of :mod:`concurrent.futures` have: threads, processes, or that of a cluster of dask, whose
workers see the same disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any

import pystac

from stac_latent.catalog.encode.options import EncodeKeywords, EncodeOptions
from stac_latent.codec.bundle import load_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import remember
from stac_latent.errors import CatalogError, StacLatentError

__all__ = ["Batch", "Outcome", "batches_of", "outcomes_of"]

_AT_ONCE = 16
"""Items of a batch, at most: few enough that no worker waits long for the others at the end."""
_AHEAD = 64
"""Batches that are handed over before the first is done."""


@dataclass(frozen=True)
class Batch:
    """What a worker is told; all of it can be pickled."""

    items: tuple[dict[str, Any], ...]
    addresses: tuple[str | None, ...]
    """Where each Item was read, from which its relative links count."""
    numbers: tuple[int, ...]
    codec: str
    """Folder of its bundle."""
    untyped: frozenset[str]
    dest: str
    keywords: EncodeKeywords

    def opened(self) -> tuple[EncodeOptions, list[pystac.Item]]:
        """Options and Items, in the worker."""
        codec = replace(load_bundle(self.codec), untyped=self.untyped)
        remember(codec)
        items = []
        for doc, address in zip(self.items, self.addresses, strict=True):
            item = pystac.Item.from_dict(doc)
            item.set_self_href(address)
            items.append(item)
        return self.keywords.checked(codec), items


@dataclass(frozen=True)
class Outcome:
    """What became of one Item."""

    number: int
    name: str
    """Id of the Item that is written; that of the source where there is an error."""
    collection: str | None
    error: StacLatentError | None
    notes: tuple[Warning, ...]
    skipped: bool = False
    """Whether it was finished before."""


def batches_of(
    items: Sequence[pystac.Item], keywords: EncodeKeywords, codec: Codec, bundle: str, dest: str
) -> Iterator[Batch]:
    """Batches of Items for workers.

    Parameters
    ----------
    items
        What is to be encoded.
    keywords
        As :meth:`EncodeKeywords.for_workers` gives them.
    codec, bundle
        What is encoded with, and the folder of its bundle.
    dest
        Folder of the catalogue.
    """
    count = max(1, min(_AT_ONCE, len(items) // _AHEAD))
    for at in range(0, len(items), count):
        part = items[at : at + count]
        yield Batch(
            tuple(i.to_dict(include_self_link=False, transform_hrefs=False) for i in part),
            tuple(i.get_self_href() for i in part),
            tuple(range(at, at + len(part))),
            bundle, codec.untyped, dest, keywords,
        )  # fmt: skip


def outcomes_of(
    executor: Executor, work: Callable[[Batch], list[Outcome]], batches: Iterator[Batch]
) -> Iterator[Outcome]:
    """Outcomes of Items as they come; no more batches are handed over when the caller stops.

    Raises
    ------
    CatalogError
        If a worker ends without an answer, as one does that is killed.
    """
    pending: set[Future[list[Outcome]]] = set()
    try:
        while True:
            while len(pending) < _AHEAD and (batch := next(batches, None)) is not None:
                pending.add(executor.submit(work, batch))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in sorted(
                done, key=lambda f: f.exception() is not None
            ):  # what is finished counts first
                yield from future.result()
    except BrokenExecutor as exc:
        raise CatalogError(
            f"a worker ended without an answer ({exc}): it was killed, or memory ran out; what is finished is catalogued. "
            "Run the same again to go on, with fewer workers if memory is short"
        ) from exc
    finally:
        for future in pending:
            future.cancel()
