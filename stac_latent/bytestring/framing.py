"""What byte strings of fields share: four bytes that name the form, a checksum, a header, masks of bits.

Little endian: four bytes of the form, uint32 CRC-32 of all that follows, the header, the body. The header of one field is the
first 8 bytes of the space's digest, then numbers: bands, rows and columns, rows of the mask and its bytes. That of fields within a bound
is numbers: 1 for the form of the residual, bytes of the base, fields, and the same five of each. Numbers hold seven bits a byte, the lowest
first; the highest bit says that another byte follows. That of several grids is JSON behind its length, uint32.
"""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.errors import CorruptDataError
from stac_latent.stages.residual.payload import BITSTREAM

__all__ = [
    "BOUNDED",
    "ONE_GRID",
    "SEVERAL_GRIDS",
    "Numbers",
    "frame",
    "number",
    "pack_mask",
    "unframe",
    "unpack_mask",
]

ONE_GRID = b"SLC1"
"""First bytes of one field; see :mod:`stac_latent.bytestring.single_grid`."""
SEVERAL_GRIDS = b"SLN1"
"""First bytes of fields on several grids; see :mod:`stac_latent.bytestring.multi_grid`."""
BOUNDED = b"SLE1"
"""First bytes of fields within an error bound; see :mod:`stac_latent.bytestring.bounded`."""
RESIDUALS = ("", BITSTREAM)
"""Forms of residuals by the number that a header has for them."""
_START = struct.Struct("<4sI")
_LENGTH = struct.Struct("<I")
_MAX_HEADER = 65536
_DIGEST = 8
"""Bytes of the space that a byte string carries: enough to tell spaces apart, few enough not to weigh on small tiles."""


def number(n: int) -> bytes:
    """A whole number from 0 on, seven bits a byte, lowest first."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


class Numbers:
    """Numbers and bytes read one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        """Inverse of :func:`number`."""
        n = shift = 0
        while True:
            (byte,) = self.take(1)
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n
            if shift > 63:
                raise CorruptDataError(
                    "the header holds a number of more than 64 bits; the bytes were changed"
                )

    def take(self, count: int) -> bytes:
        """So many bytes."""
        if count > len(self.data) - self.at:
            raise CorruptDataError(
                f"the header declares {count} bytes where {len(self.data) - self.at} are left; the bytes were changed"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data) - self.at)


def frame(magic: bytes, head: Mapping[str, Any], body: bytes) -> bytes:
    """Header and body behind four bytes that name the form, and a checksum."""
    packed = _pack(magic, head)
    return _START.pack(magic, zlib.crc32(body, zlib.crc32(packed))) + packed + body


def _pack(magic: bytes, head: Mapping[str, Any]) -> bytes:
    if magic == SEVERAL_GRIDS:
        text = json.dumps(head, separators=(",", ":")).encode()
        return _LENGTH.pack(len(text)) + text
    if magic == ONE_GRID:
        digest = bytes.fromhex(head["space"].removeprefix("sha256:"))[:_DIGEST]
        return digest + b"".join(number(n) for n in (*head["shape"], *head["mask"]))
    fields = zip(head["sizes"], head["masks"], strict=True)
    numbers = [RESIDUALS.index(head["residual"]), head["base"], len(head["sizes"])]
    return b"".join(number(n) for n in itertools.chain(numbers, *(s + m for s, m in fields)))


def unframe(data: bytes, magic: bytes, writer: str) -> tuple[dict[str, Any], bytes]:
    """Inverse of :func:`frame`, the header parsed as JSON.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated, changed, or of another form than ``writer`` writes.
    """
    if data[:4] != magic:
        raise CorruptDataError(
            f"the bytes start with {bytes(data[:4])!r}, not {magic!r}; {writer} did not write them"
        )
    if len(data) < _START.size:
        raise CorruptDataError(f"{len(data)} bytes are less than a header; they were truncated")
    _, crc = _START.unpack_from(data)
    if zlib.crc32(data[_START.size :]) != crc:
        raise CorruptDataError("the checksum does not match; the bytes were truncated or changed")
    rest = data[_START.size :]
    return _several(rest) if magic == SEVERAL_GRIDS else _numbered(Numbers(rest), magic)


def _several(data: bytes) -> tuple[dict[str, Any], bytes]:
    n = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else 0
    if n > _MAX_HEADER or _LENGTH.size + n > len(data):
        raise CorruptDataError(f"the header declares {n} bytes of {len(data)}; truncated?")
    try:
        head = json.loads(data[_LENGTH.size : _LENGTH.size + n])
    except (ValueError, RecursionError) as exc:
        raise CorruptDataError(f"the header is not readable: {exc}") from exc
    if not isinstance(head, dict):
        raise CorruptDataError(f"the header is not readable: expected an object, got {type(head).__name__}")
    return head, data[_LENGTH.size + n :]


def _numbered(read: Numbers, magic: bytes) -> tuple[dict[str, Any], bytes]:
    if magic == ONE_GRID:
        space = "sha256:" + read.take(_DIGEST).hex()
        shape, mask = ([read.number() for _ in range(n)] for n in (3, 2))
        return {"space": space, "shape": shape, "mask": mask}, read.rest()
    form, base, count = read.number(), read.number(), read.number()
    if form >= len(RESIDUALS) or not form:
        raise CorruptDataError(
            f"the header names residuals of the form {form}; this version reads {RESIDUALS[1:]}"
        )
    if count > _MAX_HEADER:
        raise CorruptDataError(f"the header declares {count} fields, which cannot be")
    rows = [[read.number() for _ in range(5)] for _ in range(count)]
    head = {
        "base": base,
        "masks": [r[3:] for r in rows],
        "residual": RESIDUALS[form],
        "sizes": [r[:3] for r in rows],
    }
    return head, read.rest()


def pack_mask(mask: npt.NDArray[np.bool_] | None) -> bytes:
    """Bits of a mask, deflated; nothing where all pixels are valid."""
    return b"" if mask is None else zlib.compress(np.packbits(mask).tobytes(), 9)


def unpack_mask(data: bytes, rows: int, pixels: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Inverse of :func:`pack_mask`: ``(rows, y, x)``; None for no row.

    Raises
    ------
    CorruptDataError
        If the bytes do not inflate to so many bits.
    """
    if not rows:
        return None
    count = rows * pixels[0] * pixels[1]
    size = -(-count // 8)
    try:
        raw = zlib.decompressobj().decompress(data, size + 1)
    except zlib.error as exc:
        raise CorruptDataError(f"the mask does not inflate: {exc}") from exc
    if len(raw) != size:
        raise CorruptDataError(f"the mask inflates to {len(raw)} bytes, {size} were declared")
    return np.unpackbits(np.frombuffer(raw, np.uint8), count=count).astype(bool).reshape(rows, *pixels)
