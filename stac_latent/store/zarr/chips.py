"""One chip of a store that holds many: its arrays have one more axis in front, ``chip``, and a chip is one step along it.

The chunks of many chips lie in one shard, so that a chip costs the index of its shard, which all of them share, and a range.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr

from stac_latent.errors import CorruptDataError
from stac_latent.system.files import tree_size

__all__ = [
    "ITEMS",
    "AnyArray",
    "ChipArray",
    "StoredArray",
    "asset_size",
    "chunk_key",
    "shard_index",
    "slot_of",
]

ITEMS = "latent:items"
"""Attribute of a store of chips: the ids of their Items, in order."""
_CRC_BYTES = 4
_MISSING = 2**64 - 1


class ChipArray:
    """What an array ``(chip, ...)`` holds of one chip, read as an array of the other axes.

    Parameters
    ----------
    array
        With the axis ``chip`` in front, of which a chunk has one step.
    chip
        Which of them.
    """

    def __init__(self, array: zarr.Array[Any], chip: int) -> None:
        self.array, self.chip = array, chip
        self.shape: tuple[int, ...] = array.shape[1:]
        self.ndim = array.ndim - 1
        self.chunks: tuple[int, ...] = array.chunks[1:]
        self.shards: tuple[int, ...] | None = None if array.shards is None else array.shards[1:]
        self.dtype: np.dtype[Any] = array.dtype
        self.path, self.store, self.store_path = array.path, array.store, array.store_path
        self.metadata: Any = array.metadata

    def __getitem__(self, where: Any) -> Any:
        """As of an array of these axes."""
        return self.array[(self.chip, *(where if isinstance(where, tuple) else (where,)))]

    def __setitem__(self, where: Any, values: Any) -> None:
        """As of an array of these axes."""
        self.array[(self.chip, *(where if isinstance(where, tuple) else (where,)))] = values


AnyArray = zarr.Array[Any] | ChipArray


def slot_of(array: AnyArray) -> tuple[int, int]:
    """Which chip of a shard this is, and how many a shard has; 0 and 1 of an array that holds none."""
    if not isinstance(array, ChipArray):
        return 0, 1
    chips = (array.array.shards or array.array.chunks)[0]
    return array.chip % chips, chips


def chunk_key(array: AnyArray, place: tuple[int, ...]) -> str:
    """Name in the store of the file with a shard, or a chunk where there are none, by its number along each axis."""
    if isinstance(array, ChipArray):
        place = (array.chip // slot_of(array)[1], *place)
    return f"{array.path}/{array.metadata.encode_chunk_key(place)}"


def shard_index(data: bytes) -> npt.NDArray[np.uint64] | None:
    """Offset and length of each chunk of a shard, from the bytes of its index; None where their checksum does not hold."""
    from google_crc32c import value

    if value(data[:-_CRC_BYTES]) != int.from_bytes(data[-_CRC_BYTES:], "little"):
        return None
    return np.frombuffer(data[:-_CRC_BYTES], "<u8").reshape(-1, 2)


class StoredArray(NamedTuple):
    """The files of one array in a local store, and how they are cut."""

    folder: Path
    document: dict[str, Any]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    """Those of the chunks where there are none."""
    codecs: Sequence[dict[str, Any]]
    """Of a chunk."""

    @classmethod
    def open(cls, folder: Path) -> StoredArray:
        """Read the metadata of an array that this package wrote."""
        document = json.loads((folder / "zarr.json").read_text())
        shards = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        first = document["codecs"][0]
        if first["name"] != "sharding_indexed":
            return cls(folder, document, shards, shards, document["codecs"])
        inner = first["configuration"]
        return cls(folder, document, tuple(inner["chunk_shape"]), shards, inner["codecs"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.document["shape"])

    @property
    def is_sharded(self) -> bool:
        """Whether chunks are gathered in shards."""
        return self.codecs is not self.document["codecs"]

    def per_shard(self) -> tuple[int, ...]:
        """Chunks of a shard along each axis."""
        return tuple(s // c for s, c in zip(self.shards, self.chunks, strict=True))

    def places(self) -> Iterator[tuple[int, ...]]:
        """Numbers of the chunks along each axis, in C order."""
        return itertools.product(*(range(-(-n // c)) for n, c in zip(self.shape, self.chunks, strict=True)))

    def file(self, shard: Sequence[int]) -> Path:
        """Where a shard lies."""
        return self.folder.joinpath("c", *map(str, shard))

    def shard(self, number: Sequence[int]) -> tuple[bytes, npt.NDArray[np.uint64]] | None:
        """Bytes of a shard, and where its chunks lie in them: offset and length, by their numbers; None where there is none.

        Raises
        ------
        CorruptDataError
            If it was truncated or changed.
        """
        path, per = self.file(number), self.per_shard()
        if not path.is_file():
            return None
        data = path.read_bytes()
        size = 16 * math.prod(per) + _CRC_BYTES
        index = shard_index(data[-size:]) if len(data) >= size else None
        held = np.zeros((0, 2), np.uint64) if index is None else index[index[:, 0] != _MISSING]
        if index is None or int(held.sum(axis=1).max(initial=0)) + size > len(data):
            raise CorruptDataError(
                f"the index of {path} does not hold; it was truncated or changed, write the store again"
            )
        return data, index.reshape(*per, 2)

    def chunk_bytes(self) -> Iterator[bytes | None]:
        """What is stored of each chunk, in C order; None where it is not stored."""
        last: tuple[tuple[int, ...], tuple[bytes, npt.NDArray[np.uint64]] | None] | None = None
        per = self.per_shard()
        for place in self.places():
            number = tuple(p // n for p, n in zip(place, per, strict=True))
            if not self.is_sharded:
                path = self.file(number)
                yield path.read_bytes() if path.is_file() else None
                continue
            if last is None or last[0] != number:
                last = (number, self.shard(number))
            if last[1] is None:
                yield None
                continue
            offset, length = (
                int(v) for v in last[1][1][tuple(p % n for p, n in zip(place, per, strict=True))]
            )
            yield None if offset == _MISSING else last[1][0][offset : offset + length]

    def lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each chunk of an array of shards, by their numbers; 0 where it is not stored."""
        per = self.per_shard()
        counts = [-(-n // s) for n, s in zip(self.shape, self.shards, strict=True)]
        out = np.zeros([n * p for n, p in zip(counts, per, strict=True)], np.int64)
        for number in itertools.product(*map(range, counts)):
            found = self.shard(number)
            if found is not None:
                part = tuple(slice(i * p, (i + 1) * p) for i, p in zip(number, per, strict=True))
                out[part] = np.where(found[1][..., 0] == _MISSING, 0, found[1][..., 1]).astype(np.int64)
        return out


def asset_size(path: Path, chip: int | None) -> int:
    """Bytes of a local store; of one chip in it: its chunks, and an equal share of all that belongs to no chip.

    Raises
    ------
    CorruptDataError
        If there is no such chip, or a shard was truncated or changed.
    """
    total = tree_size(path)
    if chip is None:
        return total
    try:
        sizes = _chip_sizes(path, (path / "zarr.json").stat().st_mtime_ns, total)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise CorruptDataError(
            f"{path} is no store of chips: {type(exc).__name__}: {exc}; write it again"
        ) from exc
    if chip >= len(sizes):
        raise CorruptDataError(
            f"{path} holds {len(sizes)} chips; there is none of latent:chip_index {chip}, counted from 0"
        )
    return sizes[chip]


@lru_cache(maxsize=8)
def _chip_sizes(path: Path, _changed: int, total: int) -> tuple[int, ...]:
    own: npt.NDArray[np.int64] | None = None
    for document in sorted(path.rglob("zarr.json")):
        if json.loads(document.read_text()).get("node_type") != "array":
            continue
        array = StoredArray.open(document.parent)
        if array.is_sharded:
            lengths = array.lengths()[: array.shape[0]]
            each = lengths.reshape(len(lengths), -1).sum(axis=1)
            own = each if own is None else own + each
    if own is None:
        raise ValueError("it has no shards")
    share = -(-(total - int(own.sum())) // len(own))
    return tuple(int(n) + share for n in own)
