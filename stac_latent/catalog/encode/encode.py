"""The verb ``encode``: Items of a catalogue gain latents, in a catalogue of their own beside the raw imagery."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import pystac

from stac_latent.aliases import Progress
from stac_latent.catalog.encode.encoded_item import (
    Mode,
)
from stac_latent.catalog.encode.key_frames import References
from stac_latent.catalog.encode.messages import ItemOutcome
from stac_latent.catalog.encode.options import (
    EncodeKeywords,
    OnError,
    SourceGrid,
    items_to_encode,
)
from stac_latent.catalog.encode.run import EncodeRun
from stac_latent.catalog.push.encode_to_store import EncodeToStore
from stac_latent.catalog.tree import CatalogTree
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import remember
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.raw.contract import Trust
from stac_latent.cube.write.monitor import Policy
from stac_latent.field.error_bound import BoundLike
from stac_latent.quality.checks import Check
from stac_latent.secure import Key
from stac_latent.store.zarr.group import Payload, StoreLayout
from stac_latent.system.links import is_local, local_path
from stac_latent.system.suggest import known_options

__all__ = ["encode"]

_ON_DISK, _ON_DISK_TOGETHER = 16, 64
"""Items that are encoded on disk before they are written to an object store: one after the other, and by the workers of an executor."""


@known_options()
def encode(
    items: pystac.Item | Iterable[pystac.Item],
    codec: str | os.PathLike[str] | Codec,
    dest: str | os.PathLike[str],
    *,
    asset: str = "latent",
    mode: Mode = "beside",
    payload: Payload | None = None,
    psnr: float | None = None,
    max_bits_per_pixel: float | None = None,
    max_error: float | None = None,
    quality: float | None = None,
    step: float | None = None,
    bands: Mapping[str, str] | None = None,
    resolution: float | None = None,
    resampling: str = "nearest",
    overwrite: bool = False,
    on_error: OnError = "raise",
    references: References = None,
    guard: Policy | None = None,
    fallback_bound: float = 0.0,
    checks: Sequence[str | Check] = (),
    error_bound: BoundLike | None = None,
    key: Key | str | os.PathLike[str] | None = None,
    trust: Trust | None = None,
    layout: StoreLayout | None = None,
    thumbnail: bool = True,
    pack: int | None = None,
    executor: Executor | None = None,
    outcomes: list[ItemOutcome] | None = None,
    progress: Progress | None = None,
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
        Local folder of the catalogue, made if need be; or the address of a folder in an object store, such as ``s3://bucket/catalogue``: a few Items at a time are then
        encoded on disk and written there, also by several processes at once. Not with ``references`` and ``pack``.
    asset
        Key of the latent asset.
    mode
        ``beside``: a copy of the Item with the latent asset beside the raw ones. ``derived``: a new Item
        ``<id>-<asset>`` with the latent alone and a ``derived_from`` link.
    payload
        ``coded`` (smallest; default where the chain has an entropy coder) or ``plain`` (zstd, opens anywhere).
    psnr, max_bits_per_pixel, max_error, quality, step
        At most one target: a quality of at least ``psnr`` [dB], at most ``max_bits_per_pixel`` (and band), at most ``max_error``
        [stored unit], ``quality`` (0 to 100; 50 is the codec's own step, 10 more halve it), or a quantiser ``step`` [stored unit].
        Each tile of about 256 pixels reaches it; it needs a chain that ends with ``lin``. Without one, the codec's own step. The header
        of a tile that the end of a scene cuts short may pass a low rate.
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
        either by name of the band; 0 is lossless. The latents stay those of the codec's space; the target rules them. See
        :class:`stac_latent.field.error_bound.ErrorBound`.
    key
        Encryption key, or the file that holds it: chunks are encrypted with AES-256-GCM; see :mod:`stac_latent.secure`. Not
        with ``references``.
    trust
        What to do where Item and file contradict each other on the grid: refuse it (default), take the ``file``'s, or place the
        pixels where the ``item`` says. See :mod:`stac_latent.cube.raw.contract`, also for what they may differ in.
    layout
        Cells along the chunks and the shards of a store, where the usual ones (about 256 and 2048 pixels) do not fit; chunks of a
        chain whose tiles are coded alone are these tiles. ``sharded=False`` with a ``plain`` payload is a store that GDAL 3.12 opens.
    thumbnail
        Whether an Item that is encoded by a codec, and has no thumbnail yet, gains one: a PNG of a few kB, at most 128 pixels wide and high, of
        red, green and blue or else of the first band, made of pixels that are read anyway. Not of encrypted assets, and not with ``pack``.
    pack
        How many Items share a store, at most: for chips, of which each would have more metadata than payload. Those of equal shape share one, in
        which ``latent:chip_index`` says which is which. They are catalogued when a store is full and at the end, or where the run
        ends early. Not with ``references``, ``key``, ``error_bound`` or ``guard="fallback"``.
    executor
        Encodes Items at the same time: anything with ``submit`` as :class:`concurrent.futures.ProcessPoolExecutor` has it, also that of a dask cluster
        on the same disk (``Client.get_executor()``). Its workers need the package and the source of the Items. Not with ``references`` and
        ``pack``; ``key`` has to be the path of a file.
    outcomes
        A list to which what becomes of each Item is added as soon as it is known, also of a run that ends early: done, skipped because it was finished
        before, or failed, and why; see :class:`stac_latent.catalog.ItemOutcome`.
    progress
        Called with a label, the steps done and their number.

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
    keywords = EncodeKeywords(
        asset=asset, mode=mode, overwrite=overwrite, on_error=on_error, payload=payload,
        target={"psnr": psnr, "max_bits_per_pixel": max_bits_per_pixel, "max_error": max_error, "quality": quality, "step": step}, error_bound=error_bound,
        references=references, guard=guard, fallback_bound=fallback_bound, checks=checks, key=key,
        pixels=SourceGrid(bands, resolution, resampling, trust), layout=layout,
        thumbnail=thumbnail, pack=pack,
    )  # fmt: skip
    opened = open_codec(codec)
    remember(opened)
    options = keywords.checked(opened)
    noted = [] if outcomes is None else outcomes
    todo = items_to_encode(items)

    def work(run: EncodeRun) -> Callable[[Sequence[pystac.Item]], list[pystac.Item]]:
        if executor is not None:
            return partial(run.encode_elsewhere, executor=executor, keywords=keywords.for_workers(options))
        return run.encode_all if options.pack is None else partial(run.encode_chips, pack=options.pack)

    if not is_local(os.fspath(dest)):
        at_once = _ON_DISK if executor is None else _ON_DISK_TOGETHER
        return EncodeToStore(options, os.fspath(dest), at_once, noted, progress).encode_all(todo, work)
    tree = CatalogTree(local_path(os.fspath(dest)))
    return work(EncodeRun(options, tree, progress, outcomes=noted))(todo)
