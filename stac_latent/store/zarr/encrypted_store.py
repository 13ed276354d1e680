"""A Zarr store whose chunks are encrypted, each as a whole and bound to its key; metadata is plain, and authenticated.

The file ``manifest``, encrypted too, lists every chunk and the SHA-256 of every metadata document: a chunk that is missing is
noticed, and so is a changed shape. Chunks are not gathered in shards: a window reads the chunks that it touches.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

from stac_latent.errors import CorruptDataError, EncryptionError
from stac_latent.secure import Encrypt

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["MANIFEST", "SealedStore", "for_writing", "write_manifest"]

MANIFEST = "manifest"
_META = "zarr.json"


class SealedStore(WrapperStore[Any]):
    """Encrypts what is set and decrypts what is got.

    Parameters
    ----------
    store
        Where the bytes lie.
    encryption
        Stage of the asset; None only where zarr copies the store.
    written
        Whether the store is complete: then its manifest holds.
    """

    def __init__(self, store: Any, encryption: Encrypt | None = None, *, written: bool = False) -> None:
        super().__init__(store)
        self._seal, self._written = encryption, written
        self._manifest: dict[str, Any] | None = None

    def _with_store(self, store: Any) -> Self:
        return type(self)(store, self._seal, written=self._written)

    @property
    def encryption(self) -> Encrypt:
        """The stage."""
        if self._seal is None:
            raise EncryptionError("a sealed store was opened without its key")
        return self._seal

    async def _known(self, prototype: BufferPrototype) -> dict[str, Any]:
        if self._manifest is None:
            found = await self._store.get(MANIFEST, prototype)
            if found is None:
                raise EncryptionError("the store has no manifest: it is incomplete, or was changed")
            doc = json.loads(self.encryption.inverse(found.to_bytes(), MANIFEST))
            self._manifest = {"chunks": frozenset(doc["chunks"]), "metadata": doc["metadata"]}
        return self._manifest

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Decrypted bytes of a key, or the metadata that the manifest knows."""
        if not self._written:
            found: Buffer | None = await self._store.get(key, prototype)
            if found is None or key.endswith(_META):
                return found
            return prototype.buffer.from_bytes(
                _part(self.encryption.inverse(found.to_bytes(), key), byte_range)
            )
        known = await self._known(prototype)
        if key not in known["chunks"] and key not in known["metadata"]:
            return None
        found = await self._store.get(key, prototype)
        if found is None:
            raise CorruptDataError(
                f"{key} is missing, which the manifest lists; fetch or write the store again"
            )
        data = found.to_bytes()
        if key in known["metadata"]:
            if hashlib.sha256(data).hexdigest() != known["metadata"][key]:
                raise EncryptionError(f"{key} was changed: it is not what the manifest lists")
            return found
        return prototype.buffer.from_bytes(_part(self.encryption.inverse(data, key), byte_range))

    async def set(self, key: str, value: Buffer) -> None:
        """Encrypt and store; metadata stays plain."""
        if not key.endswith(_META):
            value = type(value).from_bytes(self.encryption.forward(value.to_bytes(), key))
        await self._store.set(key, value)


def for_writing(path: Path, encryption: Encrypt | None) -> Any:
    """What zarr writes a group to: a folder, or one whose chunks are encrypted."""
    return str(path) if encryption is None else SealedStore(LocalStore(path), encryption)


def write_manifest(folder: Path, encryption: Encrypt) -> None:
    """List what a filled store holds; nothing is written to it afterwards."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    metadata = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names if n.endswith(_META)}
    doc = {"chunks": [n for n in names if n not in metadata], "metadata": metadata}
    (folder / MANIFEST).write_bytes(encryption.forward(json.dumps(doc).encode(), MANIFEST))


def _part(data: bytes, which: ByteRequest | None) -> bytes:
    if isinstance(which, RangeByteRequest):
        return data[which.start : which.end]
    if isinstance(which, OffsetByteRequest):
        return data[which.offset :]
    if isinstance(which, SuffixByteRequest):
        return data[-which.suffix :]
    return data
