"""Zarr stores by address, for reading."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.net.fetch import Sign
from stac_latent.store.zarr.remote_store import MAX_FILE, MAX_METADATA, RemoteStore
from stac_latent.system.links import is_local, is_served, local_path, shown

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["LocalFiles", "store_at"]


def store_at(href: str, sign: Sign | None = None, known: Mapping[str, bytes] | None = None) -> Any:
    """Store at a path, on a server or in an object store; arguments as of :class:`RemoteStore`."""
    if is_local(href):
        path = local_path(href)
        if not (path / "zarr.json").is_file():
            raise CorruptDataError(f"{href} is no Zarr v3 group: it has no zarr.json")
        return LocalFiles(LocalStore(path, read_only=True))
    if is_served(href):
        return RemoteStore(href, sign, known)
    raise CatalogError(
        f"{shown(href)} is not read: expected a path, an http or https address, or one of an object store (s3, gs, az)"
    )


class LocalFiles(WrapperStore[LocalStore]):
    """Refuses files of no bytes, which zarr would take for chunks that were never written, and files that are too large."""

    def read(self, key: str, part: RangeByteRequest | SuffixByteRequest) -> bytes | None:
        """Part of a file, read by the thread that asks: an event loop between them takes longer than the reading. None where there is no file.

        Raises
        ------
        ValueError
            If there is nothing in that part.
        """
        try:
            with (self._store.root / key).open("rb", buffering=0) as file:
                if isinstance(part, RangeByteRequest):
                    file.seek(part.start)
                    data = file.read(part.end - part.start)
                else:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - part.suffix))
                    data = file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        if not data:
            raise ValueError(f"{key} is empty")
        return data

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As the store's, but for files that were cut to nothing or are too large."""
        limit = MAX_METADATA if key.endswith("zarr.json") else MAX_FILE
        part = RangeByteRequest(0, limit + 1) if byte_range is None else byte_range
        out: Buffer | None = await self._store.get(key, prototype, part)
        if out is not None and len(out) == 0:
            raise ValueError(f"{key} is empty")
        if out is not None and byte_range is None and len(out) > limit:
            raise CorruptDataError(f"{key} is larger than the {limit} bytes that are read of such a file")
        return out
