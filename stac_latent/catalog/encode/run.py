"""One run of ``encode``: its Items, one after the other, into stores and into the catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pystac
from rasterio.errors import RasterioError

from stac_latent.aliases import Progress
from stac_latent.catalog.encode.disk import clear, new_store
from stac_latent.catalog.encode.encoded_item import (
    check_key,
    describe,
    describe_bands,
    name_of,
    renewed,
    summarise,
)
from stac_latent.catalog.encode.fingerprint import INPUT, input_digest, intact, made_from
from stac_latent.catalog.encode.key_frames import check_references, dates, set_reference
from stac_latent.catalog.encode.messages import (
    ItemOutcome,
    naming_errors,
    naming_refusals,
    passing_over,
    warn_of,
    warnings_of,
)
from stac_latent.catalog.encode.native_codec import codec_for
from stac_latent.catalog.encode.options import (
    EncodeKeywords,
    EncodeOptions,
)
from stac_latent.catalog.encode.shared_store import gather, of_chip, sweep
from stac_latent.catalog.encode.task import Task
from stac_latent.catalog.encode.thumbnail import (
    Picture,
    describe_thumbnail,
    placed_picture,
)
from stac_latent.catalog.encode.workers import Batch, Outcome, batches_of, outcomes_of
from stac_latent.catalog.items import codec_item
from stac_latent.catalog.tree import CatalogTree, write_json
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import resolve_space
from stac_latent.cube.grid.tiling import padded_shape
from stac_latent.cube.raw.source import ItemSource
from stac_latent.cube.write.writer import Encoded, write
from stac_latent.errors import CatalogError, SourceWarning, StacLatentError
from stac_latent.store.zarr.pack import alike
from stac_latent.system.files import clear_parts, placed, remove, workplace, writing
from stac_latent.system.names import safe_name
from stac_latent.window import Span, Window

__all__ = ["EncodeRun"]

_STRIP = 512
"""Rows that are read at a time to see whether an Item can be read."""


@dataclass(frozen=True)
class _Chip:
    """An Item that is encoded, and waits for others to share a store with."""

    number: int
    task: Task
    encoded: Encoded
    store: Path
    decoder: Path


@dataclass(frozen=True)
class EncodeRun:
    """One ``encode``: its options, and the catalogue that its Items go to."""

    options: EncodeOptions
    tree: CatalogTree
    progress: Progress | None
    warn: Callable[..., None] = warn_of
    opened: dict[str, list[ItemSource]] = field(default_factory=dict)
    """Sources that were opened to choose key frames, by the id of their Item, until it is encoded."""
    outcomes: list[ItemOutcome] = field(default_factory=list)
    """What became of each Item so far."""
    finished: set[str] = field(default_factory=set)
    """Ids of source Items that were finished before."""

    def encode_all(self, items: Sequence[pystac.Item]) -> list[pystac.Item]:
        """Encode Items, key frames before the dates that refer to them; those that are catalogued, in the order given."""
        skip = self.options.skip_failing
        out: dict[int, pystac.Item] = {}
        try:
            with self.tree.gathering():
                for turn, (i, frame) in enumerate(self._planned(items)):
                    if self.progress and turn:
                        self.progress("items", turn, len(items))
                    with passing_over(items[i].id, wanted=skip), self._noting(items[i]):
                        if isinstance(frame, int) and frame not in out:
                            raise CatalogError(f"its key frame {items[frame].id!r} was not encoded")
                        out[i] = self.encode_item(items[i], out[frame] if isinstance(frame, int) else frame)
                        self._did(items[i], out[i])
        except (KeyboardInterrupt, SystemExit) as exc:
            self._note(exc, len(out), len(items))
            raise
        return [out[i] for i in sorted(out)]

    def encode_elsewhere(
        self, items: Sequence[pystac.Item], executor: Executor, keywords: EncodeKeywords
    ) -> list[pystac.Item]:
        """As :meth:`encode_all`, by the workers of an executor, which are told ``keywords``; the catalogue learns of their Items here."""
        out: dict[int, pystac.Item] = {}
        ready: dict[int, Outcome] = {}
        with workplace(self.tree.root / "codec") as folder:
            bundle = str(save_bundle(self.options.codec, folder / "bundle"))
            batches = batches_of(items, keywords, self.options.codec, bundle, str(self.tree.root))
            try:
                with self.tree.gathering():
                    turn = 0  # links and errors come in the order of the Items, whoever is first
                    for outcome in outcomes_of(executor, _encode_batch, batches):
                        ready[outcome.number] = outcome
                        if self.progress:
                            self.progress("items", turn + len(ready), len(items))
                        while turn in ready:
                            self._heed(ready.pop(turn), items, out)
                            turn += 1
            except BaseException as exc:
                with self.tree.gathering():
                    for number in sorted(n for n, outcome in ready.items() if outcome.error is None):
                        self._heed(ready.pop(number), items, out)
                if not isinstance(exc, Exception):
                    self._note(exc, len(out), len(items))
                raise
        return [out[i] for i in sorted(out)]

    def _heed(self, outcome: Outcome, items: Sequence[pystac.Item], out: dict[int, pystac.Item]) -> None:
        """Give a worker's warnings or error of an Item again, or make the catalogue know the Item."""
        for note in outcome.notes:
            warnings.warn(note, stacklevel=5)
        item = items[outcome.number]
        with passing_over(item.id, wanted=self.options.skip_failing), self._noting(item):
            if outcome.error is not None:
                raise outcome.error
            if outcome.skipped:
                self.finished.add(item.id)
            out[outcome.number] = self.tree.know(outcome.name, outcome.collection)
            self._did(item, out[outcome.number])

    @contextmanager
    def _noting(self, item: pystac.Item) -> Iterator[None]:
        """Name the error of an Item, and take note of it."""
        try:
            with naming_errors(item.id, self.tree.root):
                yield
        except StacLatentError as exc:
            self.outcomes.append(ItemOutcome(item.id, item.collection_id, "failed", error=exc))
            raise

    def _did(self, item: pystac.Item, made: pystac.Item) -> None:
        """Take note that an Item is catalogued."""
        state: Literal["done", "skipped"] = "skipped" if item.id in self.finished else "done"
        self.outcomes.append(ItemOutcome(item.id, item.collection_id, state, made.get_self_href()))

    def _note(self, exc: BaseException, done: int, total: int) -> None:
        """Say of an interruption what is there."""
        exc.add_note(
            f"{done} of {total} items are encoded and catalogued in {self.tree.called}, and nothing is half-written; run the same "
            "again to go on"
        )

    def encode_chips(self, items: Sequence[pystac.Item], pack: int) -> list[pystac.Item]:
        """As :meth:`encode_all`, with stores that up to ``pack`` Items share."""
        sweep(self.tree, items)
        out: dict[int, pystac.Item] = {}
        waiting: list[_Chip] = []
        with workplace(self.tree.root / f"{self.options.asset}.zarr") as folder:
            try:
                for i, item in enumerate(items):
                    with (
                        passing_over(item.id, wanted=self.options.skip_failing),
                        self._noting(item),
                    ):
                        made = self._encode_chip(i, item, folder / str(i))
                        if isinstance(made, _Chip):
                            waiting.append(made)
                        else:
                            out[i] = made
                            self._did(item, made)
                    if len(waiting) == pack:
                        full, waiting = waiting, []
                        out |= self._catalogue_chips(full, folder)
                    if self.progress:
                        self.progress("items", i + 1, len(items))
            except BaseException as exc:
                with suppress(StacLatentError, OSError):
                    out |= self._catalogue_chips(waiting, folder)
                if not isinstance(exc, Exception):
                    self._note(exc, len(out), len(items))
                raise
            out |= self._catalogue_chips(waiting, folder)
        return [out[i] for i in sorted(out)]

    def _encode_chip(self, number: int, item: pystac.Item, store: Path) -> _Chip | pystac.Item:
        """Encode one Item into a store of its own, which is gathered with others later; the catalogued Item where it is done."""
        task, tree = self.task(item, None), self.tree
        with tree.locked():
            if (finished := self._finished(task)) is not None:
                return finished
            decoder = _write_codec(task.options.codec, tree.root)
        with naming_refusals(item.id):
            job = task.job(store, decoder.parent)
            encoded = write(job, self.progress)
        self.warn(item.id, encoded.unusual)
        self.warn(item.id, dict.fromkeys(note for s in job.sources for note in s.notes), SourceWarning)
        return _Chip(number, task, encoded, store, decoder)

    def _catalogue_chips(self, chips: Sequence[_Chip], folder: Path) -> dict[int, pystac.Item]:
        """Gather encoded Items in a store for each shape, and catalogue those of a store together or not at all."""
        groups: dict[tuple[Path, str], list[_Chip]] = {}
        for chip in chips:
            place = self.tree.collection_folder(chip.task.item.collection_id)
            groups.setdefault((place, alike(chip.store)), []).append(chip)
        out: dict[int, pystac.Item] = {}
        for (place, _), own in groups.items():
            with workplace(folder / "gathered") as work, writing(place):
                made = work / f"{self.options.asset}.zarr"
                name, sizes = gather([c.store for c in own], [c.task.name for c in own], made)
                store, items = place / name, []
                with self.tree.locked():
                    place.mkdir(parents=True, exist_ok=True)
                    with placed(made, store):
                        for i, (chip, size) in enumerate(zip(own, sizes, strict=True)):
                            encoded = of_chip(chip.encoded, size)
                            items.append(self._described(chip.task, encoded, chip.decoder, (store, i)))
                        written = self.tree.add_together(items)
            out |= {chip.number: item for chip, item in zip(own, written, strict=True)}
            for chip, item in zip(own, written, strict=True):
                self._did(chip.task.item, item)
                remove(chip.store)
        return out

    def encode_item(self, item: pystac.Item, key_frame: pystac.Item | None) -> pystac.Item:
        """Encode one Item, or find it done; the catalogued Item."""
        task, tree = self.task(item, key_frame), self.tree
        with tree.locked():
            if (finished := self._finished(task)) is not None:
                return finished
            decoder = _write_codec(task.options.codec, tree.root)
        if key_frame is not None and key_frame.id == task.name:
            raise CatalogError(f"item {task.name!r} cannot be its own key frame; leave it out of references")
        with naming_refusals(item.id), new_store(task.store) as folder:
            job = task.job(folder, decoder.parent)
            picture = Picture(job.sources) if task.is_drawn else None  # type: ignore[arg-type]
            encoded = write(job, self.progress)
            drawn = None if picture is None else picture.png()
            with tree.locked():
                if (finished := self._finished(task)) is not None:
                    return finished  # by another writer meanwhile
                with placed(folder, task.store), placed_picture(drawn, task.thumbnail):
                    out = self._catalogue(task, encoded, decoder)
        self.warn(item.id, encoded.unusual)
        self.warn(item.id, dict.fromkeys(note for s in job.sources for note in s.notes), SourceWarning)
        return out

    def task(self, item: pystac.Item, key_frame: pystac.Item | None) -> Task:
        """What is to be done about an Item; what a killed process left of its store is gone."""
        asset = self.options.asset
        name = name_of(item, asset, self.options.mode)
        store = self.tree.collection_folder(item.collection_id) / safe_name(name) / f"{asset}.zarr"
        sources = self.opened.pop(item.id, None) or self._sources(item)
        known = self.tree.find(name, item.collection_id)
        stored = None if known is None else known.assets.get(asset)
        if self.options.pack is None:
            clear(store, self.tree.root, None if stored is None else stored.extra_fields.get("file:size"))
        space = sources[0].codec.space
        whole = self.options.codec if space == self.options.codec.space else resolve_space(space)
        options = self.options.for_codec(whole)
        digest = input_digest(sources, options.fingerprint(key_frame))
        return Task(item, key_frame, options, sources, name, store, digest)

    def _sources(self, item: pystac.Item) -> list[ItemSource]:
        """Pixels of an Item, of each lattice."""
        pixels, bounded = self.options.pixels, self.options.error_bound is not None
        native = pixels.resolution is None
        codec = codec_for(
            item, self.options.codec, pixels.bands, pixels.trust, native=native, bounded=bounded
        )
        check_references(item, codec, self.options.key_frames)
        return [
            ItemSource(
                item, chain, pixels.bands, pixels.resolution, pixels.resampling, bounded=bounded, trust=pixels.trust
            )
            for chain in codec.grid_chains
        ]  # fmt: skip

    def _finished(self, task: Task) -> pystac.Item | None:
        """The catalogued Item where its asset was made from the same inputs, with what its source says now; None to encode it.

        Raises
        ------
        CatalogError
            If another asset is in the way.
        """
        item, options = task.item, self.options
        asset, mode = options.asset, options.mode
        known = self.tree.find(task.name, item.collection_id)
        same = made_from(known, asset, task.digest)
        if known is None or options.overwrite or not same or not intact(known.assets[asset]):
            check_key(item, known, self.tree, asset, mode, overwrite=options.overwrite or same)
            return None
        self.finished.add(item.id)
        out = renewed(item, known, self.tree, task.name, mode)
        describe_bands(out.assets[asset], [band for source in task.sources for band in source.decoded])
        summarise(out, asset, item)
        out.properties["updated"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.tree.renew(out)

    def _catalogue(self, task: Task, encoded: Encoded, decoder: Path) -> pystac.Item:
        """Catalogue what was written and lies in its place."""
        out = self._described(task, encoded, decoder)
        if task.is_drawn:
            describe_thumbnail(out, task.thumbnail)
        set_reference(out, self.options.asset, task.key_frame if encoded.key_frame is not None else None)
        return self.tree.add(out)

    def _described(
        self, task: Task, encoded: Encoded, decoder: Path, packed: tuple[Path, int] | None = None
    ) -> pystac.Item:
        """The Item as it is to be catalogued."""
        item, asset = task.item, self.options.asset
        known = self.tree.find(task.name, item.collection_id)
        out = renewed(item, known, self.tree, task.name, self.options.mode, replaced=asset)
        describe(out, asset, encoded, task.store.parent, decoder, item, packed)
        if task.digest is not None:
            out.assets[asset].extra_fields[INPUT] = task.digest
        return out

    def _planned(self, items: Sequence[pystac.Item]) -> Iterable[tuple[int, int | pystac.Item | None]]:
        """Positions of the Items in the order of encoding, each with its key frame, as :func:`dates` has them."""
        if self.options.key_frames is None:
            return ((i, None) for i in range(len(items)))
        try:
            return self._plan(items, range(len(items)))
        except (StacLatentError, OSError, RasterioError):  # of which Item: a plan needs samples of all
            sound = []
            for i, item in enumerate(items):
                with (
                    passing_over(item.id, wanted=self.options.skip_failing),
                    self._noting(item),
                ):
                    _read_all(self._open(item))
                    sound.append(i)
            if len(sound) == len(items):
                raise
            return self._plan(items, sound)

    def _plan(
        self, items: Sequence[pystac.Item], places: Sequence[int]
    ) -> list[tuple[int, int | pystac.Item | None]]:
        """Key frames of the Items at some places."""
        options = self.options
        plan = dates(
            [items[i] for i in places],
            options.key_frames,
            options.codec.with_target(options.target),
            options.payload,
            options.asset,
            lambda item: self._open(item)[0],
            self.progress,
        )
        return [(places[i], places[frame] if isinstance(frame, int) else frame) for i, frame in plan]

    def _open(self, item: pystac.Item) -> list[ItemSource]:
        """Sources of an Item, opened once."""
        if item.id not in self.opened:
            self.opened[item.id] = self._sources(item)
        return self.opened[item.id]


def _encode_batch(batch: Batch) -> list[Outcome]:
    """Encode the Items of a batch, in a worker; what becomes of one says nothing about the next."""
    options, items = batch.opened()
    run = EncodeRun(options, CatalogTree(Path(batch.dest)), None)
    found = []
    with run.tree.unlinking():
        for number, item in zip(batch.numbers, items, strict=True):
            name, error = item.id, None
            notes: list[Warning] = []
            run = replace(run, warn=lambda *note, to=notes: to.extend(warnings_of(*note)))
            try:
                with naming_errors(item.id, run.tree.root):
                    name = run.encode_item(item, None).id
            except StacLatentError as exc:
                error = exc
            found.append(
                Outcome(number, name, item.collection_id, error, tuple(notes), item.id in run.finished)
            )
    return found


def _read_all(sources: Sequence[ItemSource]) -> None:
    for source in sources:
        height, width = padded_shape(source.grid)
        for y in range(0, height, _STRIP):
            source.read(Window(Span(y, min(y + _STRIP, height)), Span(0, width)))


def _write_codec(codec: Codec, root: Path) -> Path:
    """Bundle and MLM Item of the codec below the catalogue; path of the Item."""
    folder = root / "codecs" / f"{safe_name(codec.name, 'codec')}-{codec.space.removeprefix('sha256:')[:12]}"
    path = folder / "item.json"
    clear_parts(folder)
    if not path.exists():
        save_bundle(codec, folder)
        about = {k: v for k, v in codec.about.items() if k in ("description", "license", "title")}
        item = codec_item(codec, folder, properties=about)
        write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False))
    return path
