"""The verb ``encode``: Items of a catalogue gain latents, in a catalogue of their own beside the raw imagery."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pystac
from pystac.utils import make_absolute_href

from stac_latent.bound import BoundLike, ErrorBound
from stac_latent.bundle import save_bundle
from stac_latent.catalog.bands import merge_bands
from stac_latent.catalog.disk import clear, disk_errors, remove
from stac_latent.catalog.guarding import asked_of, naming, warn_of
from stac_latent.catalog.inputs import INPUT, input_digest, intact, made_from
from stac_latent.catalog.items import codec_item, decoder_link
from stac_latent.catalog.native import on_native_grids
from stac_latent.catalog.options import bound_of, goal_of, listed_of, secret_of
from stac_latent.catalog.references import References, check_references, dates, set_reference
from stac_latent.catalog.tree import CatalogTree, safe_name, write_json
from stac_latent.checks.checks import Check
from stac_latent.codec import Codec, open_codec
from stac_latent.container import aim
from stac_latent.cube.contract import MEDIA_TYPE, LatentRef, latent_assets
from stac_latent.cube.encode import Encoded, encode_source
from stac_latent.cube.source import ItemSource
from stac_latent.cube.verify import Progress
from stac_latent.cube.watch import Policy
from stac_latent.errors import CatalogError
from stac_latent.extension import ROLE, ROLE_MASK, LatentExtension
from stac_latent.files import clear_parts, temporary
from stac_latent.registry import remember, resolve_space
from stac_latent.secure import Key
from stac_latent.store.io import is_local, local_path
from stac_latent.store.zarr import Payload
from stac_latent.target import Target

__all__ = ["encode"]

Mode = Literal["beside", "derived"]
_PROJ_URI = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_FILE_URI = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_RASTER_URI = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
_EO_URI = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"


def encode(
    items: pystac.Item | Iterable[pystac.Item],
    codec: str | os.PathLike[str] | Codec,
    dest: str | os.PathLike[str],
    *,
    key: str = "latent",
    mode: Mode = "beside",
    payload: Payload | None = None,
    bands: Mapping[str, str] | None = None,
    resolution: float | None = None,
    resampling: str = "nearest",
    overwrite: bool = False,
    references: References = None,
    guard: Policy | None = None,
    fallback_bound: float = 0.0,
    checks: Sequence[str | Check] = (),
    error_bound: BoundLike | None = None,
    encrypt: Key | str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **target: Any,
) -> list[pystac.Item]:
    """Encode Items and catalogue the result.

    Each Item is encoded on its native grid, or, with a codec of the ``lin`` family, each of its bands on its own, written
    to a temporary folder, decoded again from the stored bytes and measured; only then is the store renamed into place and
    the Item catalogued. A failing Item leaves nothing. Items whose asset was made from the same inputs (see
    :mod:`stac_latent.catalog.inputs`) are passed over and returned as they are, so that a run that was cut short goes on
    where it stopped when it is started again.

    Parameters
    ----------
    items
        Items with raw raster assets, as pystac or :func:`stac_latent.search` gives them.
    codec
        Name, bundle folder, or an opened codec.
    dest
        Local folder of the catalogue, made if need be; Items that are already in it, from other inputs, are replaced
        with ``overwrite``, or gain a further latent asset under another ``key``.
    key
        Asset key of the latent; the mask's is ``<key>-mask``.
    mode
        ``beside``: a copy of the Item with the latent asset beside the raw ones. ``derived``: a new Item
        ``<id>-<key>`` with the latent alone and a ``derived_from`` link.
    payload
        ``coded`` (smallest; default where the chain has an entropy coder) or ``plain`` (zstd, opens anywhere).
    bands
        Asset keys by the codec's band names, where they cannot be matched.
    resolution, resampling
        A grid to resample to. Without one, bands of several native grids are coded on these, in one asset, by a chain such
        as ``lin``; other chains need one.
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
        :class:`stac_latent.checks.checks.Check`.
    error_bound
        Largest error of every pixel, guaranteed by a residual beside the latents: ``2`` in the stored unit, ``"1%"`` of the value, or
        either by name of the band; 0 is lossless. The latents stay those of the codec's space; ``**target`` rules them. See
        :class:`stac_latent.bound.ErrorBound`.
    encrypt
        Key, or the file that holds it: chunks are encrypted with AES-256-GCM; see :mod:`stac_latent.secure`. Not with
        ``references``.
    progress
        Called with a label, the steps done and their number.
    **target
        At most one of ``psnr`` [dB], ``max_bits_per_pixel`` (and band), ``max_error`` [stored unit], ``quality`` (0 to
        100) and ``step`` [stored unit], reached by each tile of 256 pixels; needs a chain that ends with ``lin``.
        Without one, the codec's own step. The header of a tile that the end of a scene cuts short may pass a low rate.

    Returns
    -------
    list of pystac.Item
        The catalogued Items, with hrefs into ``dest``.

    Raises
    ------
    StacLatentError
        For bad input: missing bands, wrong types, no CRS, an unknown codec, a full disk. A
        :class:`~stac_latent.errors.GuardError` where the guard or a check refuses an Item; those before it are catalogued.

    Examples
    --------
    >>> items = encode(scene, "s2-10m-4b", "catalogue")  # doctest: +SKIP
    >>> items[0].properties["latent:psnr"]  # doctest: +SKIP
    49.8
    """
    chosen = open_codec(codec)
    remember(chosen)
    bound = bound_of(chosen, error_bound)
    goal = goal_of(chosen, target, bound)
    aimed = aim(chosen, goal)  # refuses a target that the codec cannot have before anything is written
    asked_of(
        chosen, guard, checks, fallback_bound, bounded=bound is not None
    )  # refuses what cannot be asked for, likewise
    secret = secret_of(encrypt, references, guard)
    form: Payload = payload or ("coded" if chosen.tail is not None else "plain")
    if not is_local(os.fspath(dest)):
        raise CatalogError(
            f"dest must be a local folder, got {os.fspath(dest)}; encode locally and copy the folder"
        )
    todo = listed_of(items)

    def sources_of(item: pystac.Item) -> list[ItemSource]:
        own = on_native_grids(item, chosen, bands) if resolution is None else chosen
        check_references(item, own, references)
        infinite = bound is not None
        return [
            ItemSource(item, part, bands, resolution, resampling, infinite=infinite) for part in own.parts
        ]

    out: dict[int, pystac.Item] = {}
    with disk_errors(dest):
        tree = CatalogTree(local_path(os.fspath(dest)))
        for i, frame in dates(todo, references, aimed, form, key, lambda i: sources_of(i)[0], progress):
            item, key_item = todo[i], out[frame] if isinstance(frame, int) else frame
            name, sources = _name(item, key, mode), sources_of(item)
            clear(tree.collection_folder(item.collection_id) / safe_name(name) / f"{key}.zarr", tree.root)
            space = sources[0].codec.space
            whole = chosen if space == chosen.space else resolve_space(space)
            asked = asked_of(whole, guard, checks, fallback_bound)
            digest = input_digest(
                sources,
                _options(whole, goal, form, key_item, key, secret, bound_of(whole, error_bound))
                | asked.options(),
            )
            known = tree.find(name, item.collection_id)
            same = made_from(known, key, digest)
            if same and not overwrite and known is not None and intact(known.assets[key]):
                out[i] = tree.relink(name, item.collection_id)
                continue
            base = _base_item(item, tree, key, mode, overwrite or same)
            if key_item is not None and key_item.id == base.id:
                raise CatalogError(
                    f"item {base.id!r} cannot be its own key frame; leave it out of references"
                )
            decoder = _write_codec(whole, tree.root)
            folder = tree.item_folder(base)
            coders = [aim(s.codec, goal, bands=s.decoded) for s in sources]
            reference = None if key_item is None else LatentRef.from_item(key_item, key)
            run = partial(
                encode_source,
                payload=form,
                bundle=decoder.parent,
                progress=progress,
                reference=reference,
                asked=asked,
                bound=bound_of(whole, error_bound),
                key=secret,
            )
            with naming(item.id), _new_store(sources, coders, folder / f"{key}.zarr", run) as made:
                _describe(base, key, made, folder, decoder, item)
                if digest is not None:
                    base.assets[key].extra_fields[INPUT] = digest
                set_reference(base, key, key_item if made.reference is not None else None)
                out[i] = tree.add(base)
            warn_of(item.id, made.unusual)
    return [out[i] for i in sorted(out)]


def _write_codec(codec: Codec, root: Path) -> Path:
    """Bundle and MLM Item of the codec below the catalogue; path of the Item."""
    folder = root / "codecs" / f"{codec.name}-{codec.space.removeprefix('sha256:')[:12]}"
    path = folder / "item.json"
    clear_parts(folder)
    if not path.exists():
        save_bundle(codec, folder)
        about = {k: v for k, v in codec.about.items() if k in ("description", "license", "title")}
        item = codec_item(codec, folder, properties=about)
        write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False))
    return path


def _name(item: pystac.Item, key: str, mode: Mode) -> str:
    """Id of the Item that will carry the asset."""
    if mode not in ("beside", "derived"):
        raise CatalogError(f"mode={mode!r}; expected 'beside' or 'derived'")
    return item.id if mode == "beside" else f"{item.id}-{safe_name(key, 'key')}"


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
    out = {"space": codec.space, "target": asdict(goal), "payload": form, "reference": frame}
    if secret is not None:
        out["encrypt"] = secret.id
    if bound is not None:
        out["error_bound"] = str(bound)
    return out


def _base_item(item: pystac.Item, tree: CatalogTree, key: str, mode: Mode, overwrite: bool) -> pystac.Item:
    """The Item that will carry the asset: the catalogued one if it is there, else a copy with absolute hrefs."""
    name = _name(item, key, mode)
    known = tree.find(name, item.collection_id)
    there = known if known is not None else item
    if safe_name(key, "key") in there.assets and (known is not None or mode == "beside"):
        if key not in latent_assets(there):
            raise CatalogError(
                f"item {name!r} already has an asset {key!r}, and it is no latent; choose another key"
            )
        if not overwrite:
            raise CatalogError(
                f"item {name!r} in {tree.root} already has an asset {key!r}; pass overwrite=True to replace it, or another key"
            )
    if known is not None:
        return known
    copy = pystac.Item.from_dict(
        item.to_dict(include_self_link=False, transform_hrefs=False), preserve_dict=False
    )
    merge_bands(copy)
    start = item.get_self_href() or str(Path.cwd() / "item.json")
    for asset in copy.assets.values():
        asset.href = make_absolute_href(asset.href, start)
    structural = ("self", "root", "parent", "collection", "item", "items")
    copy.links = [link for link in copy.links if link.rel not in structural]
    for link in copy.links:
        if isinstance(link.target, str):
            link.target = make_absolute_href(link.target, start)
    if mode == "derived":
        copy.id = name
        copy.assets = {}
        copy.add_link(pystac.Link("derived_from", start, media_type=pystac.MediaType.GEOJSON, title=item.id))
    return copy


@contextmanager
def _new_store(
    sources: Sequence[ItemSource], coders: Sequence[Codec], path: Path, run: Callable[..., Encoded]
) -> Iterator[Encoded]:
    """Write and verify a store under a temporary name, then rename; undone if the body does not catalogue it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = temporary(path, "part"), temporary(path, "old")
    placed = False
    try:
        made = run(sources, coders, part)
        if path.exists():
            path.rename(old)
        part.rename(path)
        placed = True
        yield made
    except BaseException:
        remove(path if placed else part)
        if old.exists():
            old.rename(path)
        for folder in (path.parent, path.parent.parent):
            with suppress(OSError):
                folder.rmdir()  # if it is empty
        raise
    shutil.rmtree(old, ignore_errors=True)


def _describe(
    item: pystac.Item, key: str, made: Encoded, folder: Path, decoder: Path, raw: pystac.Item
) -> None:
    """Add asset, mask, link and properties to the Item."""
    fields = {**made.spec.to_fields(), **made.grid.to_fields(), **made.fields}
    fields["latent:stride"] = list(made.spec.stride)
    fields["latent:shape"] = [made.spec.dimensions, *made.grid.cells]
    fields["latent:dim_order"] = ["channel", "y", "x"]
    fields["file:size"] = made.size
    if made.spec.kind == "embedding":
        fields.pop("latent:padding", None)
    store = folder / f"{key}.zarr"
    gsd = raw.properties.get("gsd")
    item.add_asset(
        key,
        pystac.Asset(
            str(store), title=f"Latents ({decoder.parent.name})", media_type=MEDIA_TYPE, roles=[ROLE],
            extra_fields=fields | ({"gsd": gsd} if gsd else {}),
        ),
    )  # fmt: skip
    if (store / "mask").exists():
        item.add_asset(
            f"{key}-mask",
            pystac.Asset(str(store / "mask"), title="Valid pixels", media_type=MEDIA_TYPE, roles=[ROLE_MASK]),
        )
    link = decoder_link(folder / f"{item.id}.json", decoder, made.spec.space)
    item.links = [
        old
        for old in item.links
        if not (old.rel == link.rel and old.extra_fields.get("latent:space") == made.spec.space)
    ]
    item.add_link(link)
    bands = [name for band in fields.get("bands", ()) for name in band]
    uris = {_PROJ_URI: True, _FILE_URI: True}
    uris |= {
        _RASTER_URI: "raster:scale" in bands,
        _EO_URI: "eo:common_name" in bands,
    }  # only what is used may be declared
    item.stac_extensions += [uri for uri, used in uris.items() if used and uri not in item.stac_extensions]
    _summarise(item)
    item.properties["updated"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _summarise(item: pystac.Item) -> None:
    """Item properties from the fields of its latent assets: the lists, and the measurements of the first codec."""
    ext = LatentExtension.ext(item, add_if_missing=True)
    latent = [a.extra_fields for a in item.assets.values() if a.extra_fields.get("latent:kind")]
    codecs = [f for f in latent if f["latent:kind"] == "codec"]
    ext.apply(
        spaces=list(dict.fromkeys(f["latent:space"] for f in latent)),
        kinds=list(dict.fromkeys(f["latent:kind"] for f in latent)),
    )
    for name in ("bits_per_pixel", "psnr", "max_error", "sam", "error_bound", "ood_score"):
        value = next((f[f"latent:{name}"] for f in codecs if f"latent:{name}" in f), None)
        if value is not None:
            item.properties[f"latent:{name}"] = value
        elif name == "error_bound":
            item.properties.pop("latent:error_bound", None)  # of an asset that was written anew without one
