"""Finished stores of one chip each, gathered in one store of all of them: see :mod:`stac_latent.store.zarr.chips`.

Chunks are copied as they are, so that what was decoded and measured before is what is stored. In the place of coordinates of
cells, which each chip has its own of, there is ``transform (chip, affine)``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from google_crc32c import value

from stac_latent.errors import CatalogError, CorruptDataError, VerificationError
from stac_latent.extension.features import group_features
from stac_latent.spec import Grid
from stac_latent.store.consolidate import finish
from stac_latent.store.georeference import MAPPING, PLACED, grid_fields
from stac_latent.store.prefixes import PREFIX
from stac_latent.store.zarr.chips import ITEMS, StoredArray
from stac_latent.store.zarr.trust import UNREADABLE

__all__ = ["MOST", "alike", "pack_chips"]

MOST = 1 << 14
"""Chips in a store, at most."""
_MAX_CHUNKS = 1 << 16
_NAMED = ("geoemb:", "zarr_conventions")
_OWN = (PREFIX, "x", "y", "px", "py", MAPPING)
_PLACE = ("proj:code", "proj:wkt2", "proj:transform", "latent:padding")
_SHARED = ("proj:code", "proj:wkt2", "latent:padding")
"""What may be that of all chips all the same."""
_INDEX: Sequence[dict[str, Any]] = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
)


def alike(store: Path) -> str:
    """What stores have to have in common to be gathered: groups, shapes and types of arrays, how they are cut and coded, and attributes but those of place."""
    groups = [[_unplaced(_attributes(store / group)), _arrays(store / group)] for group in _groups(store)]
    return json.dumps(groups, sort_keys=True)


def pack_chips(
    folder: Path, stores: Sequence[Path], items: Sequence[str], shard_bytes: int = 1 << 30
) -> None:
    """Gather stores of one chip each, and read back what was written.

    Parameters
    ----------
    folder
        New folder.
    stores
        Finished stores, :func:`alike`.
    items
        The id of the Item of each.
    shard_bytes
        Of a shard, decoded, at most; more than a reader takes by default would be refused.

    Raises
    ------
    CatalogError
        If a chip is too large to be gathered with others.
    VerificationError
        If what is read back is not what was gathered.
    """
    groups = list(_groups(stores[0]))
    for group in groups:
        parts = [store / group for store in stores]
        attributes = [_attributes(part) for part in parts]
        kept = {
            k: attributes[0][k]
            for k in _SHARED
            if all(k in a and a[k] == attributes[0][k] for a in attributes)
        }
        shared = _unplaced(attributes[0]) | kept
        named = attributes[0].get("zarr_conventions", [])
        if kept.get("proj:code") or kept.get("proj:wkt2"):  # declared is what is there
            shared["zarr_conventions"] = [c for c in named if c["name"] == "proj:"]
        own = group_features(shared | ({} if group else {ITEMS: list(items)}), {ITEMS: items})
        _write_document(folder / group, "group", attributes=own)
        for name in _arrays(parts[0]):
            _pack_array(folder / group / name, [StoredArray.open(part / name) for part in parts], shard_bytes)
        _write_transforms(
            folder / group,
            [Grid.from_fields(grid_fields(a)).cell_transform for a in attributes],
        )
    for group in reversed(groups):
        finish(folder / group)
    for group in groups:
        _check(folder / group, [store / group for store in stores])


def _groups(store: Path) -> Iterator[str]:
    """The store itself, and groups in it."""
    yield ""
    for document in sorted(store.glob("*/zarr.json")):
        if json.loads(document.read_text())["node_type"] == "group":
            yield document.parent.name


def _attributes(group: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((group / "zarr.json").read_text())["attributes"]
    return attributes


def _unplaced(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without what says where the pixels of a chip lie, and those of its bands."""
    out = {k: v for k, v in attributes.items() if k not in _PLACE and not k.startswith(_NAMED)}
    if "latent" in out:
        out["latent"] = {k: v for k, v in out["latent"].items() if k not in _PLACE}
    if "bands" in out:
        out["bands"] = [{k: v for k, v in band.items() if k not in _PLACE} for band in out["bands"]]
    return out


def _arrays(group: Path) -> dict[str, dict[str, Any]]:
    """Documents of the arrays to be gathered, by their names."""
    found = {p.parent.name: json.loads(p.read_text()) for p in sorted(group.glob("*/zarr.json"))}
    return {
        k: _unplaced_array(v)
        for k, v in found.items()
        if v["node_type"] == "array" and k not in _OWN and k.rpartition("_")[0] not in _OWN
    }


def _unplaced_array(document: dict[str, Any]) -> dict[str, Any]:
    """The document of an array without what says where one chip lies."""
    own = {k: v for k, v in document.get("attributes", {}).items() if k not in PLACED}
    return {**document, "attributes": own}


def _write_document(folder: Path, kind: str, **members: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": kind, **members}))


def _pack_array(folder: Path, chips: Sequence[StoredArray], most: int) -> None:
    """One array of chips from one array of each, a shard at a time."""
    first = chips[0]
    counts = [-(-n // c) for n, c in zip(first.shape, first.chunks, strict=True)]
    whole = [n * c for n, c in zip(counts, first.chunks, strict=True)]
    size = math.prod(whole) * np.dtype(first.document["data_type"]).itemsize
    if size > most or math.prod(counts) > _MAX_CHUNKS:
        raise CatalogError(
            f"items of {' x '.join(map(str, first.shape))} values are too large to share a store; encode them without pack= (--pack)"
        )
    rows = max(1, min(len(chips), most // size, _MAX_CHUNKS // math.prod(counts)))
    sharding = {
        "chunk_shape": [1, *first.chunks],
        "codecs": first.codecs,
        "index_codecs": _INDEX,
        "index_location": "end",
    }
    own = {
        k: v
        for k, v in _unplaced_array(first.document).items()
        if k not in ("zarr_format", "node_type", "consolidated_metadata")
    }
    grid = {"name": "regular", "configuration": {"chunk_shape": [rows, *whole]}}
    names = ["chip", *first.document["dimension_names"]]
    _write_document(
        folder, "array",
        **{**own, "shape": [len(chips), *first.shape], "chunk_grid": grid, "dimension_names": names,
           "codecs": [{"name": "sharding_indexed", "configuration": sharding}]},
    )  # fmt: skip
    target = StoredArray.open(folder)
    for start in range(0, len(chips), rows):
        _write_shard(
            target.file([start // rows] + [0] * len(counts)),
            chips[start : start + rows],
            rows * math.prod(counts),
        )


def _write_shard(path: Path, chips: Sequence[StoredArray], room: int) -> None:
    """Chunks of some chips one after another, then where each lies; no file where there is no chunk at all."""
    index = np.full((room, 2), 2**64 - 1, "<u8")
    parts: list[bytes] = []
    at = 0
    for i, data in enumerate(chunk for chip in chips for chunk in chip.chunk_bytes()):
        if data is not None:
            index[i] = at, len(data)
            parts.append(data)
            at += len(data)
    if not parts:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    end = index.tobytes()
    path.write_bytes(b"".join([*parts, end, value(end).to_bytes(4, "little")]))


def _write_transforms(folder: Path, transforms: Sequence[Sequence[float]]) -> None:
    """Place of the cells of each chip in its CRS, as ``proj:transform`` has that of pixels."""
    values = np.array(transforms, np.float64)
    with zarr.config.set({"json_indent": None}):
        group = zarr.open_group(str(folder), mode="r+", zarr_format=3)
        out = group.create_array(
            "transform",
            shape=values.shape,
            dtype="float64",
            chunks=values.shape,
            dimension_names=("chip", "affine"),
        )
    out[:] = values


def _check(folder: Path, stores: Sequence[Path]) -> None:
    """Hold the chunks of all chips against what they were gathered from, and the values of the first and the last, as zarr reads them."""
    for name in _arrays(stores[0]):
        try:
            same = _has_chunks(folder / name, [s / name for s in stores]) and all(
                _has_values(folder / name, i, stores[i] / name) for i in {0, len(stores) - 1}
            )
        except (*UNREADABLE, CorruptDataError):
            same = False
        if not same:
            raise VerificationError(
                f"what is read back of {folder / name} is not what was written; nothing was catalogued. The disk, or a library, is at "
                "fault: encode again"
            )


def _has_chunks(packed: Path, chips: Sequence[Path]) -> bool:
    alone = (data for chip in chips for data in StoredArray.open(chip).chunk_bytes())
    return all(a == b for a, b in zip(StoredArray.open(packed).chunk_bytes(), alone, strict=True))


def _has_values(packed: Path, number: int, chip: Path) -> bool:
    found, alone = (zarr.open_array(str(path), mode="r") for path in (packed, chip))
    values = np.asarray(found[number])
    return np.array_equal(values, np.asarray(alone[:]), equal_nan=values.dtype.kind in "fc")
