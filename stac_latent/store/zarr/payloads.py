"""Coded chunks as they are stored: the bytes of one tile, out of its shard or a file of its own, without decoding them.

Layout of a shard (Zarr v3, codec ``sharding_indexed``): the inner chunks, then for each of them, in C order, offset and
length as uint64, then the CRC-32C of this index.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from stac_latent.errors import CorruptDataError, StacLatentError
from stac_latent.net.fetch import fetch, keep, kept, network
from stac_latent.store.prefixes import Start
from stac_latent.store.zarr.chips import AnyArray, chunk_key, shard_index, slot_of
from stac_latent.store.zarr.codec import LatentZarrCodec
from stac_latent.store.zarr.open_store import LocalFiles
from stac_latent.store.zarr.remote_store import RemoteStore, part_of
from stac_latent.system.threads import LruCache

__all__ = ["PayloadReader"]

_CRC_BYTES = 4
_MISSING = 2**64 - 1
_SLACK = 65536
_FARTHEST = 2**48
_GAP = 64 << 10
"""Bytes between two chunks of a remote shard that are read for nothing rather than asking twice."""
_SPAN = 16 << 20
_PREFIX_GAP = 4 << 10
"""The same between the beginnings of two chunks."""
Place = tuple[int, int, int]
"""Row and column of a chunk, and how many of its first bytes are wanted; 0 for all."""


class PayloadReader:
    """Reads coded chunks of one array ``(channel, y, x)``.

    Parameters
    ----------
    array
        With the zarr codec ``stac_latent``, sharded or not; of one chip, where it holds many.
    indexes
        Indexes of shards that are kept: 1 KiB each.

    Raises
    ------
    TypeError
        If it is stored otherwise; :meth:`reads` tells beforehand.
    """

    def __init__(self, array: AnyArray, indexes: int = 64) -> None:
        if not self.reads(array):
            raise TypeError(f"{array.store_path} holds no coded chunks")
        self.array = array
        self._lock = threading.Lock()
        self._indexes: LruCache[npt.NDArray[np.uint64]] = LruCache(indexes)
        self._reading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._coming: dict[Place, Future[bytes]] = {}
        shards = array.shards or array.chunks
        self._per = tuple(s // c for s, c in zip(shards, array.chunks, strict=True))
        self._slot, self._chips = slot_of(array)
        self._most = 2 * math.prod(array.chunks) * array.dtype.itemsize + _SLACK

    @staticmethod
    def reads(array: AnyArray) -> bool:
        """Whether the chunks of an array can be read so."""
        codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
        if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec):
            return _coded(codecs)
        at_end = str(getattr(codecs[0].index_location, "value", codecs[0].index_location)) == "end"
        return _coded(codecs[0].codecs) and at_end and len(codecs[0].index_codecs) == 2

    def read(self, y: int, x: int, start: Start | None = None) -> bytes:
        """Payload of the chunk in row ``y`` and column ``x`` of the grid of chunks, or the start of it.

        Raises
        ------
        CorruptDataError
            If the shard is missing, cut short, or does not hold the chunk, or what is read is not what the ``start`` says.
        """
        place = (y, x, 0 if start is None else start.size)
        data = self._read(place)
        if start is None:
            return data
        return start.check(data, f"{self._where(self._key(y, x))}: chunk ({y}, {x})")

    def _read(self, place: Place) -> bytes:
        y, x, size = place
        with self._lock:
            coming = self._coming.pop(place, None)
        if coming is not None:
            return coming.result()
        key = self._key(y, x)
        if self.array.shards is None:
            return self._alone(key) if not size else self._get(key, RangeByteRequest(0, size))
        start, stop = self._span(key, place)
        return self._payload(self._get(key, RangeByteRequest(start, stop)), stop - start, key, place)

    def ahead(self, places: Iterable[Place]) -> None:
        """Start to read the chunks of a remote store that :meth:`read` will be asked for, or their first bytes; neighbours in one request."""
        if self.array.shards is None or not isinstance(self.array.store, RemoteStore):
            return
        shards: defaultdict[str, dict[Place, Future[bytes]]] = defaultdict(dict)
        with self._lock:
            for place in places:
                known = self._coming.get(place)
                if known is None or (known.done() and known.exception() is not None):
                    self._coming[place] = shards[self._key(*place[:2])][place] = Future()
        for key, wanted in shards.items():
            network().submit(self._ahead, self.array.store, key, wanted)

    def _ahead(self, store: RemoteStore, key: str, wanted: dict[Place, Future[bytes]]) -> None:
        """Answer with what is kept; read the rest in as few requests as may be, the first of them here."""
        missing: list[tuple[int, int, Place]] = []
        for place, future in wanted.items():
            try:
                start, stop = self._span(key, place)
                data = kept(store.url(key), (start, stop))
                if data is None:
                    missing.append((start, stop, place))
                else:
                    future.set_result(self._payload(data, stop - start, key, place))
            except Exception as exc:  # noqa: BLE001 - raised where the chunk is asked for
                future.set_exception(exc)
        gap = _PREFIX_GAP if any(size for *_, size in wanted) else _GAP
        first, *others = _together(missing, gap) or [[]]
        for group in others:
            network().submit(self._fetch, store, key, group, wanted)
        self._fetch(store, key, first, wanted)

    def _fetch(
        self,
        store: RemoteStore,
        key: str,
        group: Sequence[tuple[int, int, Place]],
        wanted: dict[Place, Future[bytes]],
    ) -> None:
        """Read neighbouring chunks in one request."""
        if not group:
            return
        low, high = group[0][0], max(stop for _, stop, _ in group)
        try:
            found = fetch(store.url(key), (low, high), high - low, store.sign)
        except Exception as exc:  # noqa: BLE001 - raised where the chunks are asked for
            for _, _, place in group:
                wanted[place].set_exception(exc)
            return
        data, tag = found or (b"", "")
        for start, stop, place in group:
            part = data[start - low : stop - low]
            try:
                wanted[place].set_result(self._payload(part, stop - start, key, place))
            except CorruptDataError as exc:
                wanted[place].set_exception(exc)
            else:
                keep(store.url(key), (start, stop), tag, part)

    def _key(self, y: int, x: int) -> str:
        return chunk_key(self.array, (0, y // self._per[1], x // self._per[2]))

    def _span(self, key: str, place: Place) -> tuple[int, int]:
        """Where a chunk, or what is wanted of it, lies in its shard."""
        y, x, size = place
        with self._reading[key]:
            index = self._index(key)
        offset, length = (int(v) for v in index[self._slot, y % self._per[1], x % self._per[2]])
        if offset == _MISSING or length <= _CRC_BYTES:
            raise CorruptDataError(
                f"{self._where(key)} lacks chunk ({y}, {x}); the store is incomplete, write it again"
            )
        if length > self._most or offset > _FARTHEST:
            raise CorruptDataError(
                f"{self._where(key)} declares {length} bytes at {offset} for chunk ({y}, {x}), which cannot be; it was changed"
            )
        if size > length - _CRC_BYTES:
            raise CorruptDataError(
                f"{self._where(key)}: chunk ({y}, {x}) has {length - _CRC_BYTES} bytes, and the array prefix says that {size} are its beginning; one of them was changed"
            )
        return offset, offset + (size or length)

    def _payload(self, data: bytes, length: int, key: str, place: Place) -> bytes:
        y, x, size = place
        if len(data) != length:
            raise CorruptDataError(f"{self._where(key)} ends within chunk ({y}, {x}); it was truncated")
        return data if size else data[:-_CRC_BYTES]

    def _alone(self, key: str) -> bytes:
        """Payload of a chunk that is a file of its own."""
        data = self._get(key, None)
        if not _CRC_BYTES < len(data) <= self._most:
            raise CorruptDataError(
                f"{self._where(key)} has {len(data)} bytes, which cannot be; it was changed"
            )
        return data[:-_CRC_BYTES]

    def _index(self, key: str) -> npt.NDArray[np.uint64]:
        known = self._indexes.find(key)
        if known is not None:
            return known
        n = self._chips * self._per[1] * self._per[2]
        size = 16 * n + _CRC_BYTES
        data = self._get(key, SuffixByteRequest(size))
        if len(data) != size:
            raise CorruptDataError(
                f"{self._where(key)} holds {len(data)} bytes, less than its index; it was truncated"
            )
        index = shard_index(data)
        if index is None:
            raise CorruptDataError(
                f"{self._where(key)}: the checksum of the index does not match; it was changed"
            )
        places = index.reshape(self._chips, self._per[1], self._per[2], 2)
        return self._indexes.get(key, lambda: places)

    def _get(self, key: str, part: RangeByteRequest | SuffixByteRequest | None) -> bytes:
        try:
            if isinstance(
                self.array.store, RemoteStore
            ):  # this may be one of the threads that its get() waits for
                found = self.array.store.read(key, part_of(part))
            elif isinstance(self.array.store, LocalFiles) and part is not None:
                found = self.array.store.read(key, part)
            else:
                buffer = sync(self.array.store.get(key, default_buffer_prototype(), byte_range=part))
                found = None if buffer is None else bytes(buffer.to_bytes())
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
        return found

    def _where(self, key: str) -> str:
        return f"{str(self.array.store_path).removeprefix('wrapping-').removesuffix(self.array.path)}{key}"


def _coded(codecs: tuple[Any, ...]) -> bool:
    return len(codecs) == 2 and isinstance(codecs[0], LatentZarrCodec) and isinstance(codecs[1], Crc32cCodec)


def _together(parts: list[tuple[int, int, Place]], gap: int) -> list[list[tuple[int, int, Place]]]:
    """Parts in groups that lie close together, in their order.

    Examples
    --------
    >>> _together([(0, 10, (0, 0, 0)), (100_000, 100_010, (0, 1, 0)), (20, 30, (1, 0, 0))], 65_536)
    [[(0, 10, (0, 0, 0)), (20, 30, (1, 0, 0))], [(100000, 100010, (0, 1, 0))]]
    """
    groups: list[list[tuple[int, int, Place]]] = []
    for part in sorted(parts):
        if groups and part[0] - groups[-1][-1][1] <= gap and part[1] - groups[-1][0][0] <= _SPAN:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups
