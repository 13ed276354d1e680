"""What byte strings of fields share: four bytes that name the form, a JSON header, a checksum, masks of bits."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.errors import CorruptDataError

__all__ = [
    "BOUNDED",
    "HEAD_SIZE",
    "ONE_GRID",
    "SEVERAL_GRIDS",
    "frame",
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
_START = struct.Struct("<4sII")
HEAD_SIZE = _START.size
"""Bytes before the JSON header."""
_MAX_HEADER = 65536


def frame(magic: bytes, head: bytes, body: bytes) -> bytes:
    """Header and body behind four bytes that name the form, the header's length and a checksum."""
    return _START.pack(magic, len(head), zlib.crc32(body, zlib.crc32(head))) + head + body


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
    _, n, crc = _START.unpack_from(data)
    if zlib.crc32(data[_START.size :]) != crc:
        raise CorruptDataError("the checksum does not match; the bytes were truncated or changed")
    if n > _MAX_HEADER or _START.size + n > len(data):
        raise CorruptDataError(f"the header declares {n} bytes of {len(data)}; truncated?")
    try:
        head = json.loads(data[_START.size : _START.size + n])
    except (ValueError, RecursionError) as exc:
        raise CorruptDataError(f"the header is not readable: {exc}") from exc
    if not isinstance(head, dict):
        raise CorruptDataError(f"the header is not readable: expected an object, got {type(head).__name__}")
    return head, data[_START.size + n :]


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
