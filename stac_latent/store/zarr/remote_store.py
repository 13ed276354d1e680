"""A Zarr store on a server or in an object store, read only: ranges, several at once, and those that are asked for ahead."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from stac_latent.errors import CorruptDataError, OptionError, RemoteError
from stac_latent.net.answers import WHOLE, Part
from stac_latent.net.fetch import Sign, inner, network, read_remote
from stac_latent.system.links import shown

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["MAX_FILE", "MAX_METADATA", "RemoteStore", "part_of"]

MAX_METADATA = 64 << 20
MAX_FILE = 2 << 30
_AHEAD = 1024
"""Answers that are kept for those who have not fetched them yet."""


class RemoteStore(Store):
    """Objects below an address.

    Parameters
    ----------
    href
        Address of the group; its query goes to each object.
    sign
        Signs the address of each object before it is asked for.
    known
        Objects that need not be read, by key.
    read_only
        True, as servers are not written to.

    Raises
    ------
    RemoteError
        If it shall be writable.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(
        self,
        href: str,
        sign: Sign | None = None,
        known: Mapping[str, bytes] | None = None,
        *,
        read_only: bool = True,
    ) -> None:
        if not read_only:
            raise RemoteError(
                f"{shown(href)} is read only: write to a folder, and copy that to the server or object store"
            )
        super().__init__(read_only=True)
        self._href, self._sign = href, sign
        self._known: dict[str, bytes | None] = dict(known or {})
        self._lock = threading.Lock()
        self._coming: OrderedDict[tuple[str, Part], Future[bytes | None]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_coming")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._coming = threading.Lock(), OrderedDict()

    def __str__(self) -> str:
        return shown(self._href)

    def __repr__(self) -> str:
        return f"RemoteStore({shown(self._href)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other._href == self._href

    def __hash__(self) -> int:
        return hash(self._href)

    @property
    def sign(self) -> Sign | None:
        """What signs the addresses."""
        return self._sign

    def url(self, key: str) -> str:
        """Address of an object, with what the group's address is signed with."""
        return inner(self._href, key)

    def lacks(self, keys: Iterable[str]) -> None:
        """Objects that there are none of: they are not asked for."""
        self._known.update(dict.fromkeys(keys))

    def _at_hand(self, key: str, part: Part) -> bytes | None:
        data = self._known[key]
        return None if data is None else data[slice(*part)]

    def read(self, key: str, part: Part = WHOLE) -> bytes | None:
        """Part of an object; None where there is none.

        Raises
        ------
        RemoteError
            If its server does not give it.
        CorruptDataError
            If it is empty or too large.
        """
        if key in self._known:
            return self._at_hand(key, part)
        with self._lock:
            coming = self._coming.pop((key, part), None)
        return self._read(key, part) if coming is None else coming.result()

    def ahead(self, key: str, part: Part = WHOLE) -> None:
        """Start to read what :meth:`read` will be asked for."""
        with self._lock:
            if key in self._known or (key, part) in self._coming:
                return
            self._coming[key, part] = network().submit(self._read, key, part)
            while len(self._coming) > _AHEAD:
                self._coming.popitem(last=False)

    def _read(self, key: str, part: Part) -> bytes | None:
        limit = MAX_METADATA if key.endswith("zarr.json") else MAX_FILE
        data = read_remote(self.url(key), part, limit=limit + 1, sign=self._sign)
        if data is not None and not data:
            raise CorruptDataError(
                f"{self}/{key} is empty, or ends before what is read of it; it was truncated, write it again"
            )
        if data is not None and len(data) > limit:
            raise CorruptDataError(
                f"{self}/{key} is larger than the {limit} bytes that are read of such a file"
            )
        return data

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As :meth:`read`, for zarr."""
        part = part_of(byte_range)
        if key in self._known:
            data = self._at_hand(key, part)
            return None if data is None else prototype.buffer.from_bytes(data)
        with self._lock:
            coming = self._coming.pop((key, part), None)
        future = network().submit(self._read, key, part) if coming is None else coming
        data = await asyncio.wrap_future(future)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several parts at once."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is an object: its first byte is read."""
        if key in self._known:
            return self._known[key] is not None
        return await asyncio.wrap_future(network().submit(self._read, key, (0, 1))) is not None

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """Refuse."""
        self._check_writable()

    async def delete(self, key: str) -> None:  # noqa: ARG002
        """Refuse."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """Refuse: servers do not list."""
        for key in self._listed():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:  # noqa: ARG002
        """Refuse: servers do not list."""
        for key in self._listed():
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:  # noqa: ARG002
        """Refuse: servers do not list."""
        for key in self._listed():
            yield key

    def _listed(self) -> Iterable[str]:
        raise RemoteError(f"{self} cannot be listed; stores are read by their consolidated metadata")


def part_of(request: ByteRequest | None) -> Part:
    """Part of an object as zarr asks for it.

    Raises
    ------
    OptionError
        If it is asked for in another way.
    """
    if request is None:
        return WHOLE
    if isinstance(request, RangeByteRequest):
        return (request.start, request.end)
    if isinstance(request, OffsetByteRequest):
        return (request.offset, None)
    if isinstance(request, SuffixByteRequest):
        return (-request.suffix, None)
    raise OptionError(
        f"a part of an object is asked for as {request!r}; expected a RangeByteRequest, OffsetByteRequest or SuffixByteRequest of "
        "zarr.abc.store, or None for all of it"
    )
