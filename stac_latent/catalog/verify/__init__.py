"""The verb ``verify``: every latent asset of a catalogue, checked again as when it was written."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pystac
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from stac_latent.aliases import Progress
from stac_latent.catalog.encode.fingerprint import check_checksum
from stac_latent.catalog.search.documents import Reader
from stac_latent.catalog.search.query import Query
from stac_latent.catalog.search.sources import StaticSource, open_sources
from stac_latent.catalog.tree import CatalogTree
from stac_latent.catalog.verify.adopted import adopted_assets, verify_adopted
from stac_latent.catalog.verify.overlaps import disagreeing
from stac_latent.catalog.verify.raw_files import raw_files
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import replace_known
from stac_latent.cube.grid.tiling import tiles
from stac_latent.cube.item_assets import latent_assets
from stac_latent.cube.read.band_views import lattices_of
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.verify import measure, measurements
from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.quality.distortion import Distortion
from stac_latent.secure import Key, has_key, use
from stac_latent.store.zarr.chips import ChipArray, asset_size
from stac_latent.store.zarr.known_metadata import metadata_digest, stored_chunks
from stac_latent.store.zarr.trust import CONFIG, check_array
from stac_latent.system.links import asset_href, is_local, local_path
from stac_latent.window import Window

__all__ = ["Checked", "verify"]

_TOLERANCE = 1e-6
"""Relative; sums of floats depend on the order of what is summed."""

_UNLINKED = "nothing in the catalogue links to it, so that no search finds it; run the command that wrote it again, which links it"

_SAMPLE = 16
"""Chunks that are compared with the raw files, where not all of them are."""

_LARGEST = ("latent:max_error", "latent:band_max_error")

_LOCKED = "encrypted for key {}, which is not at hand: its size and its bundle alone were checked; pass its key, or let such assets pass"


@dataclass
class Checked:
    """One asset, and what is wrong with it."""

    item: str
    asset: str
    problems: list[str] = field(default_factory=list)
    compared: bool = False
    """Whether it was measured against the raw files."""
    reason: str = ""
    """Why it was not."""
    read_by: str = ""
    """What read the raw files: ``rasterio``, or ``odc-stac`` where the latent's grid is not theirs."""
    samples: int = 0
    """Valid pixels, of all bands, that were compared; of an embedding, those under the cells that were made anew."""
    share: float = 0.0
    """Share of the stored chunks that were compared."""
    measured: dict[str, Any] = field(default_factory=dict)
    locked: bool = False
    """Whether it is encrypted for a key that is not at hand, so that nothing was decoded."""

    adopted: bool = False
    """Whether another producer wrote it, so that there is nothing to compare it with: its file was read."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def verify(
    source: Any,
    *,
    asset: str | None = None,
    key: Key | str | os.PathLike[str] | None = None,
    locked: bool = False,
    full: bool = False,
    raw: bool = True,
    progress: Progress | None = None,
) -> list[Checked]:
    """Check latent assets; one that fails does not stop the others.

    For each: the Item and its links; the checksums, digest and probe of its bundle, which is opened anew; the bytes that are
    stored against ``file:size``; every chunk, mask and coordinate, decoded; and, wherever the raw files can be reached, the
    decoded pixels against these files, which plain rasterio reads (see :mod:`stac_latent.cube.raw.files`): masks have to be
    equal, and errors as the fields say. An embedding is made anew, and has to be the stored one. Of a latent of more than 16
    chunks, 16 are compared. An adopted file has to be the one that was adopted, to decode, and to agree with others of its space at the same cells and time. Files of other assets are held against their ``file:checksum``.

    Parameters
    ----------
    source
        Whatever :func:`stac_latent.search` takes, or Items.
    asset
        Name of the assets to check; None for all.
    key
        Opens encrypted assets; else as :func:`stac_latent.load`.
    locked
        Let encrypted assets pass whose key is not at hand: of these, size and bundle alone are checked.
    full
        Compare every chunk.
    raw
        Look for the raw files; without, bytes and decoding are checked alone.
    progress
        Called with a label, the steps done and their number.

    Returns
    -------
    list of Checked
        One for each latent asset, for each document that could not be read, and for each file of an Item or Collection that the
        catalogue does not link to. Where ``compared`` is false, ``reason`` says why,
        or ``adopted`` is true.

    Examples
    --------
    >>> [row.problems for row in verify("catalogue/catalog.json")]  # doctest: +SKIP
    [[], []]
    """
    if key is not None:
        use(key)
    failures: list[tuple[str, str]] = []
    reader = Reader()
    found = list(_items(source, reader, failures))
    out = [Checked(where, "", [text]) for where, text in failures]
    out += [Checked(str(path), "", [_UNLINKED]) for path in _unlinked(source)]
    adopted = {(item.id, item.collection_id, name) for item in found for name in adopted_assets(item)}
    todo = [
        (item, name) for item in found
        for name in dict.fromkeys([*latent_assets(item), *adopted_assets(item)]) if asset in (None, name)
    ]  # fmt: skip
    opened: dict[Any, Codec | StacLatentError] = {}
    for item in found:
        for name, problem in _files(item):
            out.append(Checked(item.id, name, [problem]))
    for i, (item, name) in enumerate(todo):
        row = Checked(item.id, name)
        try:
            if (item.id, item.collection_id, name) in adopted:
                row.adopted = True
                row.problems += verify_adopted(item, name, full=full, progress=progress)
            else:
                _check(item, name, row, opened, _Compare(full, raw, reader), progress)
        except (StacLatentError, OSError) as exc:
            row.problems.append(f"{type(exc).__name__}: {exc}")
        if row.locked and not locked:
            row.problems.append(_LOCKED.format(item.assets[name].extra_fields["latent:key_id"]))
        out.append(row)
        if progress:
            progress("assets", i + 1, len(todo))
    rows = out[len(out) - len(todo) :]
    foreign = [(row, pair) for row, pair in zip(rows, todo, strict=True) if row.adopted and not row.problems]
    for i, problem in disagreeing([pair for _, pair in foreign]):
        foreign[i][0].problems.append(problem)
    return out


def _unlinked(source: Any) -> list[Path]:
    """Files of Items and Collections in the folder of a local catalogue that it does not link to."""
    if not isinstance(source, str | os.PathLike) or not is_local(os.fspath(source)):
        return []
    path = local_path(os.fspath(source))
    path = path / "catalog.json" if path.is_dir() else path
    return list(CatalogTree(path.parent).unlinked()) if path.name == "catalog.json" and path.is_file() else []


def _items(source: Any, reader: Reader, failures: list[tuple[str, str]]) -> Iterator[pystac.Item]:
    for part in open_sources(source, reader):
        if isinstance(part, StaticSource):
            part.failures = failures
        yield from part.items(Query(), 100)


class _Compare(NamedTuple):
    """What to compare with the raw files."""

    full: bool
    raw: bool
    reader: Reader
    """Reads the Items that others are derived from."""


def _check(
    item: pystac.Item,
    key: str,
    row: Checked,
    opened: dict[Any, Codec | StacLatentError],
    compare: _Compare,
    progress: Progress | None,
) -> None:
    ref = replace(
        LatentRef.from_item(item, key), metadata=None, masks=None
    )  # what is stored, not what follows from it
    fields = item.assets[key].extra_fields
    codec = _codec(ref, opened)
    size = asset_size(local_path(ref.href), ref.chip) if is_local(ref.href) else None
    declared = fields.get("file:size")
    if size is not None and declared is not None and size != declared:
        row.problems.append(f"{size} bytes are stored, the item declares {declared}")
    if ref.sealed is not None and not has_key(ref.sealed.key_id):
        row.locked = True
        return
    readers = [LatentReader(lattice, codec) for lattice in lattices_of(ref)]
    for reader in readers:
        _metadata(reader, row)
    row.problems += _layout(readers[0], fields)
    bounds = _bounds(fields, [len(r.codec.bands) for r in readers])
    found = raw_files(item, fields, readers, compare.reader) if compare.raw else "it was not asked for"
    if isinstance(found, str):
        row.reason = found
        for reader in readers:
            _decode(reader, _chunks(reader), progress)
        return
    parts, chunks = [], 0
    for truth, reader, bound in zip(found, readers, bounds, strict=True):
        every = _chunks(reader)
        chosen = every if compare.full else _sample(every, f"{item.id}/{key}")
        parts.append(measure(truth, reader, chosen, progress, bound))
        _decode(reader, [c for c in every if c not in set(chosen)], progress)
        row.share += len(chosen)
        chunks += len(every)
    whole, row.share = Distortion.merged(parts), row.share / chunks
    row.compared, row.samples = True, int(whole.count.sum())
    row.read_by = "odc-stac" if any(t.assembled for t in found) else "rasterio"
    if ref.spec.kind == "codec":
        row.measured = dict(measurements(whole))
    if size is not None:
        row.measured["latent:bits_per_pixel"] = size * 8 / sum(t.samples for t in found)
    row.problems += _differences(row.measured, fields, complete=row.share == 1)


def _chunks(reader: LatentReader) -> list[Window]:
    """Cells of each stored chunk."""
    _, rows, columns = reader.arrays.latent.chunks
    return list(tiles(reader.ref.grid.cells, (rows, columns)))


def _sample(chunks: Sequence[Window], seed: str) -> list[Window]:
    """Some chunks, always the same: the first, the last, and others by chance."""
    if len(chunks) <= _SAMPLE:
        return list(chunks)
    inner = random.Random(seed).sample(range(1, len(chunks) - 1), _SAMPLE - 2)  # noqa: S311 - no secret
    return [chunks[i] for i in (0, *sorted(inner), len(chunks) - 1)]


def _bounds(fields: Mapping[str, Any], counts: Sequence[int]) -> list[ErrorBound] | list[None]:
    """What the bands of each lattice shall keep, as the asset's fields say."""
    values: Any = fields.get("latent:error_bounds")
    kinds: Any = fields.get("latent:error_bound_kinds")
    if values is None:
        return [None] * len(counts)
    lists = isinstance(values, list) and isinstance(kinds, list) and len(values) == len(kinds) == sum(counts)
    if not lists or not all(isinstance(v, int | float) and v >= 0 for v in values):
        raise CatalogError(
            f"latent:error_bounds {values} and latent:error_bound_kinds {kinds} do not give one bound for each of {sum(counts)} bands"
        )
    return ErrorBound(tuple(values), tuple(k == "relative" for k in kinds)).split(counts)


def _decode(reader: LatentReader, parts: Sequence[Window], progress: Progress | None) -> None:
    """Decode chunks."""
    ref = reader.ref
    for i, cells in enumerate(parts):
        reader.read_latent(cells)
        if ref.spec.kind == "codec":
            reader.decode_block(_pixels(ref, cells))
        if progress:
            progress("decode", i + 1, len(parts))


def _codec(ref: LatentRef, opened: dict[Any, Codec | StacLatentError]) -> Codec:
    """Codec read anew, once for each decoder link; its error again where it had one."""
    place = (ref.decoder, ref.spec.space)
    if place not in opened:
        try:
            opened[place] = ref.open_codec(refresh=True)
        except StacLatentError as exc:
            opened[place] = exc
    found = opened[place]
    if isinstance(found, StacLatentError):
        raise found
    replace_known(found)
    return found


def _metadata(reader: LatentReader, row: Checked) -> None:
    """Attributes and coordinates of a store against the Item."""
    ref, attributes = reader.ref, reader.arrays.attributes
    for name, value in ref.spec.to_fields().items():
        if name.startswith("latent:") and name in attributes and attributes[name] != value:
            row.problems.append(f"{name} is {attributes[name]!r} in the store, {value!r} in the item")
    with zarr.config.set(CONFIG):
        group = zarr.open_group(reader.arrays.latent.store, mode="r")
    if ref.chip is not None:
        place = group.get("transform")
        if isinstance(place, zarr.Array) and place.shape[1:] == (6,) and ref.chip < place.shape[0]:
            check_array(place, f"{ref.href}/transform", 2, "f")
            if not np.allclose(ChipArray(place, ref.chip)[:], ref.grid.cell_transform, rtol=1e-12, atol=0):
                row.problems.append("transform of the store is not that of the item's grid")
        return
    a, _, c, _, e, f = ref.grid.cell_transform
    for name, n, start, step in (("y", ref.grid.cells[0], f, e), ("x", ref.grid.cells[1], c, a)):
        found = group.get(name)
        if isinstance(found, zarr.Array) and found.shape == (n,):
            check_array(found, f"{ref.href}/{name}", 1, "f")
            centres = reader.arrays.read_all(found)
            if not np.allclose(centres, start + step * (np.arange(n) + 0.5), rtol=0, atol=1e-6 * abs(step)):
                row.problems.append(f"coordinate {name} of the store is not that of the item's grid")


def _layout(reader: LatentReader, fields: Mapping[str, Any]) -> Iterator[str]:
    """What an Item says of the files of a store that is not so; which chunks there are is seen of local ones only."""
    store, mask = reader.arrays.latent.store, reader.arrays.mask
    checksum = fields.get("latent:metadata_digest")
    document = sync(store.get("zarr.json", default_buffer_prototype()))
    if checksum is not None and document is not None and metadata_digest(document.to_bytes()) != checksum:
        yield "latent:metadata_digest is not that of the store's zarr.json; encode the item again"
    stored = fields.get("latent:mask_chunks")
    if stored is None or mask is None or not is_local(reader.ref.href):
        return
    found = stored_chunks(mask, local_path(reader.ref.href))
    if found != stored:
        yield f"latent:mask_chunks is {stored!r}, the store has {found!r}; encode the item again"


def _pixels(ref: LatentRef, cells: Window) -> Window:
    spans = zip(cells, ref.grid.stride, ref.grid.lead, ref.grid.shape, strict=True)
    return Window.of((max(0, lo * s - p), min(n, hi * s - p)) for (lo, hi), s, p, n in spans)


def _differences(measured: Mapping[str, Any], fields: Mapping[str, Any], *, complete: bool) -> Iterator[str]:
    """Measurements that are not what the fields say; of a sample, the rate, and errors that are larger."""
    for name, value in measured.items():
        declared = fields.get(name)
        if declared is None or _close(value, declared):
            continue
        if complete or name == "latent:bits_per_pixel" or (name in _LARGEST and _exceeds(value, declared)):
            yield f"{name} is {declared} in the item and {value} when measured again; the source or the latent was changed"


def _exceeds(a: float | Sequence[float], b: Any) -> bool:
    pairs = zip(a, b, strict=True) if isinstance(a, Sequence) else ((a, b),)
    return any(x > y for x, y in pairs)


def _close(a: float | Sequence[float], b: Any) -> bool:
    if isinstance(a, Sequence):
        return isinstance(b, Sequence) and len(a) == len(b) and all(map(_close, a, b))
    return isinstance(b, int | float) and math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _files(item: pystac.Item) -> Iterator[tuple[str, str]]:
    """Local files of an Item that are not what their ``file:checksum`` says."""
    for key, asset in item.assets.items():
        checksum, href = asset.extra_fields.get("file:checksum"), asset_href(asset)
        if checksum is None or not is_local(href):
            continue
        path = local_path(href)
        try:
            check_checksum(path, checksum)
        except CorruptDataError as exc:
            yield key, str(exc)
        if not path.exists():
            yield key, f"{path} is missing"
