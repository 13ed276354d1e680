"""What a reader knows of a store without asking for it: its metadata, and which chunks of its mask there are.

Metadata follows from codec and grid, and a checksum in the Item says that it does. The checksum is of the document ``zarr.json`` of the group without attributes, its own and those of the arrays that it gathers, as JSON with sorted keys and without white
space. A reader makes the document anew; where it has another checksum, because the store was written in another way or by
another version, the stored one is read.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from stac_latent.codec.codec import Codec
from stac_latent.errors import CorruptDataError
from stac_latent.secure import Encrypt
from stac_latent.spec import Grid
from stac_latent.store.consolidate import finish
from stac_latent.store.zarr.chips import AnyArray, ChipArray, StoredArray, chunk_key
from stac_latent.store.zarr.group import GroupOptions, Payload, create
from stac_latent.system.digests import digest

__all__ = ["absent_chunks", "known_metadata", "layout_fields", "metadata_digest", "stored_chunks"]

_NAME = "zarr.json"
_KEPT = 256
_lock = threading.Lock()
_made: dict[tuple[Any, ...], bytes] = {}


def metadata_digest(document: bytes) -> str | None:
    """Digest of the metadata of a group (``sha256:`` and hexadecimal digits); None where it is no such document."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return digest(json.dumps(_plain(found), sort_keys=True, separators=(",", ":")).encode())


def _plain(node: dict[str, Any]) -> dict[str, Any]:
    """A metadata document, and those gathered in it, without attributes: they tell where arrays lie, not how they are stored."""
    kept = {k: v for k, v in node.items() if k != "attributes"}
    gathered: Any = node.get("consolidated_metadata")
    inner = gathered.get("metadata") if isinstance(gathered, dict) else None
    if not isinstance(inner, dict):
        return kept
    plain = {name: _plain(one) if isinstance(one, dict) else one for name, one in inner.items()}
    return kept | {"consolidated_metadata": {**gathered, "metadata": plain}}


def known_metadata(checksum: str | None, codec: Codec, grid: Grid, payload: Payload) -> dict[str, bytes]:
    """The metadata document that has a checksum, by its name in the store; empty where it cannot be made.

    Parameters
    ----------
    checksum
        As an Item has it.
    codec, grid, payload
        What the store was made with.
    """
    if checksum is None or (payload == "coded" and codec.tail is None):
        return {}
    for masks in dict.fromkeys((1, len(codec.spec.bands) or 1)):
        key = (codec.space, grid.cells, grid.shape, any(grid.transform[1:4:2]), payload, masks)
        with _lock:
            if key not in _made:
                if len(_made) > _KEPT:
                    _made.clear()
                _made[key] = _make(codec, grid, payload, masks)
            document = _made[key]
        if metadata_digest(document) == checksum:
            return {_NAME: document}
    return {}


def _make(codec: Codec, grid: Grid, payload: Payload, masks: int) -> bytes:
    store = MemoryStore()
    create(store, codec, grid, {}, GroupOptions(payload, masks))
    finish(store)
    found = sync(store.get(_NAME, default_buffer_prototype()))
    return b"" if found is None else found.to_bytes()


def layout_fields(folder: Path, mask: AnyArray | None, encryption: Encrypt | None) -> dict[str, Any]:
    """Fields that an asset says of its finished store; none of an encrypted one, whose manifest says it."""
    if encryption is not None:
        return {}
    fields: dict[str, Any] = {"latent:metadata_digest": metadata_digest((folder / _NAME).read_bytes())}
    return fields if mask is None else {**fields, "latent:mask_chunks": stored_chunks(mask, folder)}


def stored_chunks(array: AnyArray, folder: Path) -> str:
    """Which chunks of a mask ``(band, y, x)`` are stored in a folder: bits in hexadecimal notation, row by row."""
    if isinstance(array, ChipArray):
        there = (StoredArray.open(folder / array.path).lengths()[array.chip] > 0).ravel().tolist()
    else:
        there = [(folder / key).is_file() for key in _keys(array)]
    return np.packbits(there).tobytes().hex()


def absent_chunks(array: AnyArray, bits: str) -> list[str]:
    """Keys of the chunks of a mask that are not stored, by what :func:`stored_chunks` wrote of it.

    Raises
    ------
    CorruptDataError
        If it was written of another array.
    """
    keys = _keys(array)
    try:
        stored = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))
    except ValueError:
        stored = np.zeros(0, np.uint8)
    if len(stored) != -(-len(keys) // 8) * 8:
        raise CorruptDataError(
            f"latent:mask_chunks is {bits[:40]!r}; a mask of {len(keys)} chunks has {-(-len(keys) // 8)} bytes in hexadecimal "
            "notation: remove the field, or encode the item again"
        )
    return [key for key, there in zip(keys, stored, strict=False) if not there]


def _keys(array: AnyArray) -> list[str]:
    counts = [math.ceil(n / c) for n, c in zip(array.shape[1:], array.chunks[1:], strict=True)]
    places = itertools.product(*map(range, counts))
    return [chunk_key(array, (0, *place)) for place in places]
