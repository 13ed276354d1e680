"""Encryption of an asset's chunks: the one thing here that may be called secure.

Each asset has a random data key. Each chunk is encrypted with AES-256-GCM under it; the nonce is a counter that lives as long
as the data key is held for writing, so that none is used twice, and the chunk's place in the store is authenticated with it,
so that chunks cannot change places. The data key is stored beside the asset, encrypted under a key that HKDF-SHA256 derives
from the user's key and 32 random bytes, together with the fields of the asset: changed fields do not open it.

What is not hidden: that there is an asset, its fields (footprint, time, measurements), its size and those of its chunks.
"""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from stac_latent.errors import EncryptionError
from stac_latent.spec import Grid, Spec
from stac_latent.system.session import session

__all__ = ["FORM", "Encrypt", "EncryptedAsset", "Key", "context_of", "find_key", "has_key", "keygen", "use"]

FORM = "aes-256-gcm-1"
_HEAD = "stac-latent-key-1:"
_SALT, _NONCE, _TAG = 32, 12, 16
_INFO = b"stac-latent wrap 1"
_NUMBERS = "gsd", "eo:center_wavelength", "eo:full_width_half_max"
"""Members of a Band Object that are floats in the context, however they are written."""


@dataclass(frozen=True, repr=False)
class Key:
    """A user's key: 32 random bytes."""

    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise EncryptionError(
                f"a key has 32 bytes, got {len(self.secret)}; 'stac-latent keygen FILE' makes one"
            )

    @property
    def id(self) -> str:
        """Which key it is, without telling what it is."""
        return hashlib.sha256(b"stac-latent key id 1" + self.secret).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Key({self.id})"

    @classmethod
    def read(cls, key: Key | str | os.PathLike[str]) -> Key:
        """A key, or the file that holds it, in any Unicode encoding; raises ``EncryptionError`` where it holds none."""
        if isinstance(key, Key):
            return key
        try:
            data = Path(key).read_bytes()
            text = data.decode(json.detect_encoding(data)).strip()
            if not text.startswith(_HEAD):
                raise EncryptionError(f"{key} is no key file; 'stac-latent keygen FILE' makes one")
            return cls(base64.b64decode(text.removeprefix(_HEAD), validate=True))
        except (OSError, ValueError, binascii.Error) as exc:
            if isinstance(exc, EncryptionError):
                raise
            raise EncryptionError(f"cannot read a key from {key}: {exc}") from exc


def keygen(path: str | os.PathLike[str]) -> Key:
    """Write a new random key to a file that only its owner may read; a file that is there stays as it is.

    Raises
    ------
    EncryptionError
        If the file is there or cannot be written.

    Examples
    --------
    >>> key = keygen("my.key")
    >>> Key.read("my.key") == key
    True
    """
    key = Key(os.urandom(32))
    text = _HEAD + base64.b64encode(key.secret).decode() + "\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise EncryptionError(
            f"cannot write a key to {os.fspath(path)}: {exc.strerror}; keys are not replaced"
        ) from exc
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as exc:
        Path(path).unlink()
        raise EncryptionError(
            f"cannot write a key to {os.fspath(path)}: {exc.strerror}; no key was kept"
        ) from exc
    return key


class _KeyRing(dict[str, "Key"]):
    """Keys by id."""


def key_ring() -> dict[str, Key]:
    """Keys that were given to this process, by id."""
    return session().of(_KeyRing)


def use(key: Key | str | os.PathLike[str]) -> Key:
    """Have this process decrypt what the key opens."""
    found = Key.read(key)
    return key_ring().setdefault(found.id, found)


def has_key(key_id: str) -> bool:
    """Whether :func:`find_key` finds it."""
    ring = key_ring()
    if key_id not in ring:
        for path in filter(None, os.environ.get("STAC_LATENT_KEY", "").split(os.pathsep)):
            use(path)
    return key_id in ring


def find_key(key_id: str) -> Key:
    """Key of an id: given to this process, or in a file that ``$STAC_LATENT_KEY`` names.

    Raises
    ------
    EncryptionError
        If there is none, or such a file holds none.
    """
    if not has_key(key_id):
        ring = key_ring()
        have = f"at hand: {', '.join(ring)}" if ring else "none is at hand"
        raise EncryptionError(
            f"the asset is encrypted for key {key_id}; {have}. Pass key= (--key-file), or name its file in STAC_LATENT_KEY"
        )
    return key_ring()[key_id]


def context_of(spec: Spec, grid: Grid, places: Sequence[Any] = ()) -> bytes:
    """What a data key is bound to: the fields that decide on what its chunks mean.

    ``places`` are those of bands of several native grids, as dataclasses.
    """
    fields = json.loads(json.dumps({**spec.to_fields(), **grid.to_fields()}))
    bound = Spec.from_fields(fields)
    place = Grid.from_fields(fields)
    place = place.cell_grid() if spec.kind == "embedding" else place
    own: dict[str, Any] = {"places": [None if p is None else asdict(p) for p in places]} if places else {}
    said = {**bound.to_fields(), **place.to_fields(), **own}
    for band in said.get("bands", ()):  # a server may give a whole number back without its point
        band.update({name: float(band[name]) for name in _NUMBERS if name in band})
    return json.dumps(said, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class EncryptedAsset:
    """What an Item says of an encrypted asset."""

    key_id: str
    wrapped: str
    """The asset's own key, encrypted."""
    context: bytes
    """Of :func:`context_of`."""
    group: str = ""
    """Group of the store that is meant; empty: the store itself."""

    def open(self) -> Encrypt:
        """Stage that decrypts, with a key of this process.

        Raises
        ------
        EncryptionError
            If the key is not at hand, or does not open it.
        """
        return Encrypt.open(self.wrapped, find_key(self.key_id), self.context).within(self.group)


class Encrypt:
    """Last stage of an asset: chunks to encrypted chunks, under a key of the asset.

    It is no part of the space: encrypted latents stay comparable with others. Made with :meth:`new` or :meth:`open`.

    Examples
    --------
    >>> key = Key(bytes(32))
    >>> stage = Encrypt.new(key, b"fields")
    >>> sealed = stage.forward(b"pixels", "latent/c/0/0/0")
    >>> Encrypt.open(stage.wrapped, key, b"fields").inverse(sealed, "latent/c/0/0/0")
    b'pixels'
    """

    name = "encrypt"
    form = FORM

    def __init__(self, data_key: bytes, wrapped: str, key_id: str, *, writes: bool) -> None:
        self._cipher, self.wrapped, self.key_id = _aes(data_key), wrapped, key_id
        self._nonces = itertools.count() if writes else None
        self._lock = threading.Lock()
        self.group = ""

    @classmethod
    def new(cls, key: Key, context: bytes) -> Self:
        """With a new data key, for writing one asset."""
        _needed()
        data_key, salt = os.urandom(32), os.urandom(_SALT)
        sealed = _aes(_derive(key, salt)).encrypt(bytes(_NONCE), data_key, context)
        return cls(data_key, base64.b64encode(salt + sealed).decode(), key.id, writes=True)

    @classmethod
    def open(cls, wrapped: str, key: Key, context: bytes) -> Self:
        """With the data key of an asset that was written, for reading.

        Raises
        ------
        EncryptionError
            If the key is another one, or the asset's fields or its data key were changed.
        """
        _needed()
        from cryptography.exceptions import InvalidTag

        try:
            data = base64.b64decode(wrapped, validate=True)
            if len(data) != _SALT + 32 + _TAG:
                raise ValueError(f"{len(data)} bytes")  # noqa: TRY301
            data_key = _aes(_derive(key, data[:_SALT])).decrypt(bytes(_NONCE), data[_SALT:], context)
        except (ValueError, TypeError, binascii.Error, InvalidTag) as exc:
            raise EncryptionError(
                f"key {key.id} does not open latent:wrapped_key: it is another key, or the asset's fields were changed"
            ) from exc
        return cls(data_key, wrapped, key.id, writes=False)

    def within(self, group: str) -> Self:
        """The same for a group of the store; both take their nonces from one counter."""
        out = copy.copy(self)
        out.group = group
        return out

    def fields(self) -> dict[str, Any]:
        """Fields of the asset."""
        return {"latent:encryption": FORM, "latent:key_id": self.key_id, "latent:wrapped_key": self.wrapped}

    def forward(self, data: bytes, place: str) -> bytes:
        """Encrypt the chunk of a place."""
        if self._nonces is None:
            raise EncryptionError(
                "an asset that was written is not added to: encode it again, under a new data key"
            )
        with self._lock:
            nonce = next(self._nonces).to_bytes(_NONCE, "big")
        return nonce + bytes(self._cipher.encrypt(nonce, data, self._bound(place)))

    def inverse(self, data: bytes, place: str) -> bytes:
        """Decrypt the chunk of a place.

        Raises
        ------
        EncryptionError
            If it was changed, or is that of another place or asset.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._cipher.decrypt(data[:_NONCE], data[_NONCE:], self._bound(place)))
        except (InvalidTag, ValueError) as exc:
            raise EncryptionError(
                f"{place} does not decrypt: it was changed, or is the chunk of another place or asset"
            ) from exc

    def _bound(self, place: str) -> bytes:
        return f"{FORM}|{self.group}/{place}".encode()


def _derive(key: Key, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt, _INFO).derive(key.secret)


def _aes(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _needed() -> None:
    """Say so where the package is missing."""
    try:
        import cryptography  # noqa: F401
    except ImportError as exc:
        raise EncryptionError(
            "encryption needs the package cryptography: pip install 'stac-latent[secure]'"
        ) from exc
