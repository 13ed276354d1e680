"""``encode`` into an object store: a few Items at a time are encoded on disk, as ever, then written to the store and forgotten here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pystac

from stac_latent.aliases import Progress
from stac_latent.catalog.encode.encoded_item import name_of
from stac_latent.catalog.encode.fingerprint import made_from
from stac_latent.catalog.encode.messages import ItemOutcome, naming_errors, passing_over
from stac_latent.catalog.encode.options import EncodeOptions
from stac_latent.catalog.encode.run import EncodeRun
from stac_latent.catalog.push.store_catalog import StoreCatalog, Written
from stac_latent.catalog.tree import CatalogTree
from stac_latent.errors import CatalogError, RemoteError, StacLatentError
from stac_latent.system.links import is_object, shown

__all__ = ["EncodeToStore"]

Work = Callable[[EncodeRun], Callable[[Sequence[pystac.Item]], list[pystac.Item]]]


@dataclass(frozen=True)
class EncodeToStore:
    """One ``encode`` whose catalogue lies in an object store.

    Parameters
    ----------
    options
        As of any other.
    dest
        Address of the catalogue's folder.
    at_once
        Items that are on disk here together.
    outcomes
        Receives what becomes of each Item.
    progress
        Called with a label, the Items done and their number.
    """

    options: EncodeOptions
    dest: str
    at_once: int
    outcomes: list[ItemOutcome]
    progress: Progress | None

    def __post_init__(self) -> None:
        """Refuse what needs the catalogue on disk.

        Raises
        ------
        CatalogError
            For an address that is none of an object store, and for stores that several Items share or refer to.
        """
        if not is_object(self.dest):
            raise CatalogError(
                f"dest must be a local folder or the address of a folder in an object store (s3://, gs://, az://), got {shown(self.dest)}; "
                "encode into a folder and copy that"
            )
        for name, value in (("pack", self.options.pack), ("references", self.options.key_frames)):
            if value is not None:
                raise CatalogError(
                    f"{name} needs the catalogue on disk: encode into a local folder, then copy that to {shown(self.dest)} (stac-latent copy)"
                )

    def encode_all(self, items: Sequence[pystac.Item], work: Work) -> list[pystac.Item]:
        """Encode Items; those that are catalogued, in the order given.

        Parameters
        ----------
        items
            What to encode.
        work
            What encodes some of them, of a run whose catalogue is on disk.

        Raises
        ------
        StacLatentError
            As ``encode``; a :class:`~stac_latent.errors.RemoteError` where the store does not take what is written.
        """
        catalog = StoreCatalog(self.dest)
        out: list[pystac.Item] = []
        with _linked_at_the_end(catalog):
            for at in range(0, len(items), self.at_once):
                part = items[at : at + self.at_once]
                with TemporaryDirectory(prefix="stac-latent-") as folder:
                    out += self._encode(part, CatalogTree(Path(folder), shown(self.dest)), catalog, work)
                if self.progress:
                    self.progress("items", at + len(part), len(items))
        return out

    def _encode(
        self, items: Sequence[pystac.Item], tree: CatalogTree, catalog: StoreCatalog, work: Work
    ) -> list[pystac.Item]:
        """Encode some Items into a catalogue on disk, and write what is new in it to the store."""
        run = EncodeRun(self.options, tree, None if self.progress is None else self._but_items)
        paths = [
            tree.item_path(name_of(item, self.options.asset, self.options.mode), item.collection_id)
            for item in items
        ]
        names = [path.relative_to(tree.root).as_posix() for path in paths]
        known = dict(zip(names, catalog.find(names), strict=True))
        finished: dict[str, Written] = {}
        todo = []
        for item, path, name in zip(items, paths, names, strict=True):
            there = known[name]
            if there is None:
                todo.append(item)
                continue
            with passing_over(item.id, wanted=self.options.skip_failing), self._noting(item, tree.root):
                if self._is_finished(run, item, there):
                    finished[name] = there
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(there.document)  # what else it holds is kept, or stands in the way
                todo.append(item)
        sent: dict[str, Written] = {}
        try:
            work(run)(todo)  # which notes failures
        finally:  # those before one that fails are whole
            for name, there in known.items():
                path = tree.root / name
                if there is not None and path.exists() and path.read_bytes() == there.document:
                    path.unlink()
            self.outcomes.extend(outcome for outcome in run.outcomes if outcome.state == "failed")
            failed = {outcome.id for outcome in self.outcomes if outcome.state == "failed"}
            tried = {name: item for name, item in zip(names, items, strict=True) if item.id not in failed}
            new = [item for name, item in tried.items() if name not in finished]
            sent = self._written(new, tree.root, catalog)
            for name, item in tried.items():
                if name in finished or name in sent:
                    state: Literal["skipped", "done"] = "skipped" if name in finished else "done"
                    self.outcomes.append(
                        ItemOutcome(item.id, item.collection_id, state, f"{self.dest.rstrip('/')}/{name}")
                    )
            catalog.know([*finished.values(), *sent.values()])
        have = finished | sent
        return [have[name].opened(self.dest) for name in names if name in have]

    def _but_items(self, label: str, done: int, total: int | None) -> None:
        """Progress within an Item; of Items, :meth:`encode_all` knows the number."""
        if self.progress and label != "items":
            self.progress(label, done, total)

    def _is_finished(self, run: EncodeRun, item: pystac.Item, there: Written) -> bool:
        """Whether an Item of the store has the asset, made from what the source is now."""
        known = there.opened(self.dest)
        if self.options.overwrite or self.options.asset not in known.assets:
            return False
        return made_from(known, self.options.asset, run.task(item, None).digest)

    def _written(self, items: Sequence[pystac.Item], root: Path, catalog: StoreCatalog) -> dict[str, Written]:
        """Write what lies on disk to the store; Items that it does not take fail, or are passed over."""
        try:
            return {written.name: written for written in catalog.add(root)}
        except RemoteError as exc:
            for item in items:
                with passing_over(item.id, wanted=self.options.skip_failing), self._noting(item, root):
                    raise RemoteError(f"item {item.id!r}: {exc}") from exc
        return {}

    @contextmanager
    def _noting(self, item: pystac.Item, root: Path) -> Iterator[None]:
        """Name the error of an Item, and take note of it."""
        try:
            with naming_errors(item.id, root):
                yield
        except StacLatentError as exc:
            self.outcomes.append(ItemOutcome(item.id, item.collection_id, "failed", error=exc))
            raise


@contextmanager
def _linked_at_the_end(catalog: StoreCatalog) -> Iterator[None]:
    """Link all Items that are written when a run ends, however it does."""
    try:
        yield
    except BaseException as exc:
        try:
            catalog.link()
        except StacLatentError as other:
            exc.add_note(str(other))
        raise
    catalog.link()
