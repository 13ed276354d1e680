"""Coded chunks as they are stored: the bytes of one tile, out of its shard or a file of its own, without decoding them.

Layout of a shard (Zarr v3, codec ``sharding_indexed``): the inner chunks, then for each of them, in C order, offset and
length as uint64, then the CRC-32C of this index.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from stac_latent.errors import CorruptDataError, StacLatentError
from stac_latent.store.zarr_codec import LatentZarrCodec

__all__ = ["PayloadReader"]

_CRC_BYTES = 4
_MISSING = 2**64 - 1
_SLACK = 65536
_FARTHEST = 2**48
_KEPT = 64
"""Indexes of shards that are kept: 1 KiB each."""


class PayloadReader:
    """Reads coded chunks of one array ``(channel, y, x)``.

    Parameters
    ----------
    array
        With the zarr codec ``stac_latent``, sharded or not.

    Raises
    ------
    TypeError
        If it is stored otherwise; :meth:`reads` tells beforehand.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        if not self.reads(array):
            raise TypeError(f"{array.store_path} holds no coded chunks")
        self.array = array
        self._lock = threading.Lock()
        self._indexes: OrderedDict[str, npt.NDArray[np.uint64]] = OrderedDict()
        shards = array.shards or array.chunks
        self._per = tuple(s // c for s, c in zip(shards, array.chunks, strict=True))
        self._most = 2 * math.prod(array.chunks) * array.dtype.itemsize + _SLACK

    @staticmethod
    def reads(array: zarr.Array[Any]) -> bool:
        """Whether the chunks of an array can be read so."""
        codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
        if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec):
            return _coded(codecs)
        at_end = str(getattr(codecs[0].index_location, "value", codecs[0].index_location)) == "end"
        return _coded(codecs[0].codecs) and at_end and len(codecs[0].index_codecs) == 2

    def read(self, y: int, x: int) -> bytes:
        """Payload of the chunk in row ``y`` and column ``x`` of the grid of chunks.

        Raises
        ------
        CorruptDataError
            If the shard is missing, cut short, or does not hold the chunk.
        """
        if self.array.shards is None:
            return self._alone(f"{self.array.path}/{self.array.metadata.encode_chunk_key((0, y, x))}")
        shard = (0, y // self._per[1], x // self._per[2])
        key = f"{self.array.path}/{self.array.metadata.encode_chunk_key(shard)}"
        index = self._index(key)
        offset, length = (int(v) for v in index[y % self._per[1], x % self._per[2]])
        if offset == _MISSING or length <= _CRC_BYTES:
            raise CorruptDataError(
                f"{self._where(key)} lacks chunk ({y}, {x}); the store is incomplete, write it again"
            )
        if length > self._most or offset > _FARTHEST:
            raise CorruptDataError(
                f"{self._where(key)} declares {length} bytes at {offset} for chunk ({y}, {x}), which cannot be; it was changed"
            )
        data = self._get(key, RangeByteRequest(offset, offset + length))
        if len(data) != length:
            raise CorruptDataError(f"{self._where(key)} ends within chunk ({y}, {x}); it was truncated")
        return data[:-_CRC_BYTES]

    def _alone(self, key: str) -> bytes:
        """Payload of a chunk that is a file of its own."""
        data = self._get(key, None)
        if not _CRC_BYTES < len(data) <= self._most:
            raise CorruptDataError(
                f"{self._where(key)} has {len(data)} bytes, which cannot be; it was changed"
            )
        return data[:-_CRC_BYTES]

    def _index(self, key: str) -> npt.NDArray[np.uint64]:
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
                return self._indexes[key]
        n = self._per[1] * self._per[2]
        size = 16 * n + _CRC_BYTES
        data = self._get(key, SuffixByteRequest(size))
        if len(data) != size:
            raise CorruptDataError(
                f"{self._where(key)} holds {len(data)} bytes, less than its index; it was truncated"
            )
        from google_crc32c import value

        if value(data[:-_CRC_BYTES]) != int.from_bytes(data[-_CRC_BYTES:], "little"):
            raise CorruptDataError(
                f"{self._where(key)}: the checksum of the index does not match; it was changed"
            )
        index = np.frombuffer(data, "<u8", 2 * n).reshape(self._per[1], self._per[2], 2)
        with self._lock:
            self._indexes[key] = index
            while len(self._indexes) > _KEPT:
                self._indexes.popitem(last=False)
        return index

    def _get(self, key: str, part: RangeByteRequest | SuffixByteRequest | None) -> bytes:
        try:
            found = sync(self.array.store.get(key, default_buffer_prototype(), byte_range=part))
        except StacLatentError:
            raise
        except (ValueError, OverflowError) as exc:
            raise CorruptDataError(
                f"{self._where(key)} cannot be read: {exc}; it was truncated or changed, fetch or write it again"
            ) from exc
        if found is None:
            raise CorruptDataError(
                f"{self._where(key)} is missing; the store is incomplete, fetch or write it again"
            )
        return bytes(found.to_bytes())

    def _where(self, key: str) -> str:
        return f"{str(self.array.store_path).removeprefix('wrapping-').removesuffix(self.array.path)}{key}"


def _coded(codecs: tuple[Any, ...]) -> bool:
    return len(codecs) == 2 and isinstance(codecs[0], LatentZarrCodec) and isinstance(codecs[1], Crc32cCodec)
