"""The verb ``encode``: Items of a catalogue gain latents, in a catalogue of their own beside the raw imagery."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pystac
from rasterio.errors import RasterioError

from stac_latent.catalog.encode.disk import clear, errors_of, new_store
from stac_latent.catalog.encode.encoded_item import (
    Mode,
    check_key,
    describe,
    describe_bands,
    name_of,
    renewed,
    summarise,
)
from stac_latent.catalog.encode.fingerprint import INPUT, input_digest, intact, made_from
from stac_latent.catalog.encode.guard_policy import asked_of, naming, warn_of
from stac_latent.catalog.encode.key_frames import References, check_references, dates, set_reference
from stac_latent.catalog.encode.native_codec import codec_for
from stac_latent.catalog.encode.options import bound_of, form_of, goal_of, listed_of, secret_of
from stac_latent.catalog.items import codec_item
from stac_latent.catalog.tree import CatalogTree, write_json
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import remember, resolve_space
from stac_latent.cube.grid.tiling import padded_shape
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.raw.contract import Trust
from stac_latent.cube.raw.source import ItemSource
from stac_latent.cube.raw.storage import with_room
from stac_latent.cube.raw.units import computes
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.monitor import Policy
from stac_latent.cube.write.verify import Progress
from stac_latent.cube.write.writer import WriteJob, write
from stac_latent.errors import CatalogError, SkippedWarning, SourceWarning, StacLatentError
from stac_latent.field.error_bound import BoundLike, ErrorBound
from stac_latent.field.rate_target import TARGETS, Target
from stac_latent.quality.checks import Check
from stac_latent.secure import Key
from stac_latent.store.zarr.group import Payload
from stac_latent.system.files import clear_parts, is_disk_full, placed
from stac_latent.system.links import is_local, local_path
from stac_latent.system.names import safe_name
from stac_latent.system.suggest import known_options
from stac_latent.window import Span, Window

__all__ = ["encode"]

_STRIP = 512
"""Rows that are read at a time to see whether an Item can be read."""


@known_options(*TARGETS)
def encode(
    items: pystac.Item | Iterable[pystac.Item],
    codec: str | os.PathLike[str] | Codec,
    dest: str | os.PathLike[str],
    *,
    asset: str = "latent",
    mode: Mode = "beside",
    payload: Payload | None = None,
    bands: Mapping[str, str] | None = None,
    resolution: float | None = None,
    resampling: str = "nearest",
    overwrite: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    references: References = None,
    guard: Policy | None = None,
    fallback_bound: float = 0.0,
    checks: Sequence[str | Check] = (),
    error_bound: BoundLike | None = None,
    key: Key | str | os.PathLike[str] | None = None,
    trust: Trust | None = None,
    progress: Progress | None = None,
    **target: Any,
) -> list[pystac.Item]:
    """Encode Items and catalogue the result.

    Each Item is encoded on its native grid, or, with a codec of the ``lin`` family, each of its bands on its own, written
    to a temporary folder, decoded again from the stored bytes and measured; only then is the store renamed into place and
    the Item catalogued. A failing Item leaves nothing. Of Items whose asset was made from the same inputs (see
    :mod:`stac_latent.catalog.encode.fingerprint`) no pixel is encoded again: what their source says otherwise now is taken over, and a
    missing link is made, so that a run that was cut short goes on where it stopped when it is started again. Several processes
    and threads may write to one catalogue.

    Parameters
    ----------
    items
        Items with raw raster assets, as pystac or :func:`stac_latent.search` gives them.
    codec
        Name, bundle folder, or an opened codec.
    dest
        Local folder of the catalogue, made if need be.
    asset
        Key of the latent asset; the mask's is ``<asset>-mask``.
    mode
        ``beside``: a copy of the Item with the latent asset beside the raw ones. ``derived``: a new Item
        ``<id>-<asset>`` with the latent alone and a ``derived_from`` link.
    payload
        ``coded`` (smallest; default where the chain has an entropy coder) or ``plain`` (zstd, opens anywhere).
    bands
        Asset keys by the codec's band names, where they cannot be matched.
    resolution, resampling
        A grid to resample to. Without one, bands of several native grids are coded on these, in one asset, by a chain such
        as ``lin``; other chains need one.
    overwrite
        Replace assets of this name that were made from other inputs; further latents stay. The Item's time, place, properties and
        raw assets are the source's in any case.
    on_error
        What happens when an Item cannot be encoded: ``raise`` its error, or ``skip`` it with a
        :class:`~stac_latent.errors.SkippedWarning` and go on. A full disk ends the run in any case.
    references
        Code dates against key frames, chunk by chunk, where that takes fewer bytes; needs a chain such as ``lin``.
        ``auto``: as many key frames as pay, chosen by the bytes of samples. A number: one in each run of so many dates. An
        Item of a catalogue: that one, for dates that come later; several: the best of them. Only dates of the same grid
        refer to each other.
    guard
        About an Item unlike those that the codec was calibrated on, as ``latent:ood_score`` above 1 says: ``warn`` (default
        where the codec has a calibration) with a :class:`~stac_latent.errors.GuardWarning`, ``refuse`` it, ``fallback``:
        keep each flagged tile within ``fallback_bound`` by a residual, or ``off``: do not look.
    fallback_bound
        Largest error of flagged tiles under ``fallback``, stored unit; 0 is lossless.
    checks
        What the decoded pixels shall keep, as ``"psnr>=40:refuse"`` or ``"mean_bias<=1:warn"``; see
        :class:`stac_latent.quality.checks.Check`.
    error_bound
        Largest error of every pixel, guaranteed by a residual beside the latents: ``2`` in the stored unit, ``"1%"`` of the value, or
        either by name of the band; 0 is lossless. The latents stay those of the codec's space; ``**target`` rules them. See
        :class:`stac_latent.field.error_bound.ErrorBound`.
    key
        Encryption key, or the file that holds it: chunks are encrypted with AES-256-GCM; see :mod:`stac_latent.secure`. Not
        with ``references``.
    trust
        What to do where Item and file contradict each other on the grid: refuse it (default), take the ``file``'s, or place the
        pixels where the ``item`` says. See :mod:`stac_latent.cube.raw.contract`, also for what they may differ in.
    progress
        Called with a label, the steps done and their number.
    **target
        At most one of ``psnr`` [dB], ``max_bits_per_pixel`` (and band), ``max_error`` [stored unit], ``quality`` (0 to
        100) and ``step`` [stored unit], reached by each tile of 256 pixels; needs a chain that ends with ``lin``.
        Without one, the codec's own step. The header of a tile that the end of a scene cuts short may pass a low rate.

    Returns
    -------
    list of pystac.Item
        The catalogued Items, with hrefs into ``dest``; without those that were skipped.

    Raises
    ------
    StacLatentError
        For bad input: missing bands, wrong types, no CRS, a file that cannot be read, an unknown codec, a full disk. The
        message names the Item; those before it are catalogued. A :class:`~stac_latent.errors.GuardError` where the guard or a
        check refuses an Item.

    Examples
    --------
    >>> items = encode(scene, "s2-10m-4b", "catalogue")  # doctest: +SKIP
    >>> items[0].properties["latent:psnr"]  # doctest: +SKIP
    49.8
    """
    chosen = open_codec(codec)
    remember(chosen)
    form = form_of(chosen, payload, target)
    bound = bound_of(chosen, error_bound)
    goal = goal_of(chosen, target, bound)
    aimed = chosen.with_target(goal)  # refuses a target that the codec cannot have before anything is written
    asked_of(
        chosen, guard, checks, fallback_bound, bounded=bound is not None
    )  # refuses what cannot be asked for, likewise
    secret = secret_of(key, references, guard)
    if not is_local(os.fspath(dest)):
        raise CatalogError(
            f"dest must be a local folder, got {os.fspath(dest)}; encode locally and copy the folder"
        )
    if mode not in ("beside", "derived"):
        raise CatalogError(f"mode={mode!r}; expected 'beside' or 'derived'")
    if on_error not in ("raise", "skip"):
        raise CatalogError(f"on_error={on_error!r}; expected 'raise' or 'skip'")
    safe_name(asset, "asset")
    todo = listed_of(items)
    run = _Run(
        chosen, CatalogTree(local_path(os.fspath(dest))), asset, mode, form, goal, bands, resolution, resampling, overwrite,
        references, guard, fallback_bound, checks, error_bound, secret, trust, progress,
    )  # fmt: skip
    out: dict[int, pystac.Item] = {}
    try:
        for i, frame in _planned(run, todo, aimed, skip=on_error == "skip"):
            with _skipping(todo[i].id, on_error == "skip"), errors_of(todo[i].id, run.tree.root):
                if isinstance(frame, int) and frame not in out:
                    raise CatalogError(f"its key frame {todo[frame].id!r} was not encoded")
                out[i] = run.one(todo[i], out[frame] if isinstance(frame, int) else frame)
    except (KeyboardInterrupt, SystemExit) as exc:
        exc.add_note(
            f"{len(out)} of {len(todo)} items are encoded and catalogued in {run.tree.root}, and nothing is half-written; run the "
            "same again to go on"
        )
        raise
    return [out[i] for i in sorted(out)]


@dataclass(frozen=True)
class _Run:
    """What all Items of one ``encode`` share."""

    codec: Codec
    tree: CatalogTree
    key: str
    mode: Mode
    payload: Payload
    goal: Target
    bands: Mapping[str, str] | None
    resolution: float | None
    resampling: str
    overwrite: bool
    references: References
    guard: Policy | None
    fallback_bound: float
    checks: Sequence[str | Check]
    error_bound: BoundLike | None
    secret: Key | None
    trust: Trust | None
    progress: Progress | None

    def sources(self, item: pystac.Item) -> list[ItemSource]:
        """Pixels of an Item, of each lattice."""
        bounded = self.error_bound is not None
        native = self.resolution is None
        own = codec_for(item, self.codec, self.bands, self.trust, native=native, bounded=bounded)
        check_references(item, own, self.references)
        return [
            ItemSource(
                item, part, self.bands, self.resolution, self.resampling, bounded=bounded, trust=self.trust
            )
            for part in own.grid_chains
        ]

    def one(self, item: pystac.Item, frame: pystac.Item | None) -> pystac.Item:
        """Encode one Item, or find it done; the catalogued Item."""
        tree, key = self.tree, self.key
        name = name_of(item, key, self.mode)
        store = tree.collection_folder(item.collection_id) / safe_name(name) / f"{key}.zarr"
        sources = self.sources(item)
        known = tree.find(name, item.collection_id)
        asset = None if known is None else known.assets.get(key)
        clear(store, tree.root, None if asset is None else asset.extra_fields.get("file:size"))
        space = sources[0].codec.space
        whole = self.codec if space == self.codec.space else resolve_space(space)
        asked = asked_of(whole, self.guard, self.checks, self.fallback_bound)
        bound = bound_of(whole, self.error_bound)
        options = (
            _options(whole, self.goal, self.payload, frame, key, self.secret, bound) | asked.fingerprint()
        )
        digest = input_digest(sources, options)
        with tree.locked():
            if (done := self._finished(item, sources, name, digest)) is not None:
                return done
            decoder = _write_codec(whole, tree.root)
        if frame is not None and frame.id == name:
            raise CatalogError(f"item {name!r} cannot be its own key frame; leave it out of references")
        exact = bound is not None or asked.policy == "fallback" or not computes(whole)
        sources = [with_room(s, exact=exact) for s in sources]
        coders = [s.codec.with_target(self.goal, bands=s.decoded) for s in sources]
        reference = None if frame is None else LatentRef.from_item(frame, key)
        with naming(item.id), new_store(store) as part:
            job = WriteJob(
                sources, coders, part, self.payload, decoder.parent, reference, bound, asked, self.secret
            )
            made = write(job, self.progress)
            with tree.locked():
                if (done := self._finished(item, sources, name, digest)) is not None:
                    return done  # by another writer meanwhile
                base = renewed(item, tree.find(name, item.collection_id), tree, name, self.mode, replaced=key)
                with placed(part, store):
                    describe(base, key, made, store.parent, decoder, item)
                    if digest is not None:
                        base.assets[key].extra_fields[INPUT] = digest
                    set_reference(base, key, frame if made.key_frame is not None else None)
                    out = tree.add(base)
        warn_of(item.id, made.unusual)
        warn_of(item.id, dict.fromkeys(n for s in sources for n in s.notes), SourceWarning)
        return out

    def _finished(
        self, item: pystac.Item, sources: Sequence[ItemSource], name: str, digest: str | None
    ) -> pystac.Item | None:
        """The catalogued Item where its asset was made from the same inputs, with what its source says now; None to encode it.

        Raises
        ------
        CatalogError
            If another asset is in the way.
        """
        known = self.tree.find(name, item.collection_id)
        same = made_from(known, self.key, digest)
        if known is None or self.overwrite or not same or not intact(known.assets[self.key]):
            check_key(item, known, self.tree, self.key, self.mode, overwrite=self.overwrite or same)
            return None
        again = renewed(item, known, self.tree, name, self.mode)
        describe_bands(again.assets[self.key], [band for source in sources for band in source.decoded])
        summarise(again, self.key, item)
        again.properties["updated"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.tree.renew(again)


def _planned(
    run: _Run, todo: Sequence[pystac.Item], aimed: Codec, *, skip: bool
) -> Iterable[tuple[int, int | pystac.Item | None]]:
    """Positions of the Items in the order of encoding, each with its key frame, as :func:`dates` has them."""
    if run.references is None:
        return ((i, None) for i in range(len(todo)))

    def plan(places: Sequence[int]) -> list[tuple[int, int | pystac.Item | None]]:
        items = [todo[i] for i in places]
        found = dates(
            items,
            run.references,
            aimed,
            run.payload,
            run.key,
            lambda item: run.sources(item)[0],
            run.progress,
        )
        return [(places[i], places[frame] if isinstance(frame, int) else frame) for i, frame in found]

    try:
        return plan(range(len(todo)))
    except (StacLatentError, OSError, RasterioError):  # of which Item: a plan needs samples of all
        sound = []
        for i, item in enumerate(todo):
            with _skipping(item.id, skip), errors_of(item.id, run.tree.root):
                _read_all(run.sources(item))
                sound.append(i)
        if len(sound) == len(todo):
            raise
        return plan(sound)


def _read_all(sources: Sequence[ItemSource]) -> None:
    for source in sources:
        height, width = padded_shape(source.grid)
        for y in range(0, height, _STRIP):
            source.read(Window(Span(y, min(y + _STRIP, height)), Span(0, width)))


@contextmanager
def _skipping(item: str, skip: bool) -> Iterator[None]:
    """Turn the error of an Item into a warning, where that was asked for and the next one may fare better."""
    try:
        yield
    except StacLatentError as exc:
        if not skip or is_disk_full(exc.__cause__):
            raise
        warnings.warn(SkippedWarning(item, exc), stacklevel=5)


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


def _options(
    codec: Codec,
    goal: Target,
    form: Payload,
    key_item: pystac.Item | None,
    key: str,
    secret: Key | None,
    bound: ErrorBound | None,
) -> dict[str, Any]:
    """What decides on the bytes of a latent beside its source."""
    frame = None if key_item is None else [key_item.id, key_item.assets[key].extra_fields.get(INPUT)]
    target = asdict(goal) | {"overhead": 0, "samples": None}  # were fields once: stored digests have them
    out = {"space": codec.space, "target": target, "payload": form, "reference": frame}
    if secret is not None:
        out["encrypt"] = secret.id
    if bound is not None:
        out["error_bound"] = str(bound)
    return out
