"""Bytes of a ``lin`` payload: header, side information, raw bits, coded words; checked before anything is allocated."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError
from stac_latent.stages.context.coder import Coded

__all__ = ["GAINS", "LARGEST", "STEPS", "Head", "pack", "read_varint", "unpack", "varint"]

STEPS = (2.0**-40, 2.0**40)
"""Finest and coarsest step: what is decoded stays far within float32."""
GAINS = (2.0**-20, 2.0**20)
"""Least and largest factor on the precision of a band."""

LARGEST = 512
"""Pixels along a side of a tile, at most."""

_MAGIC = b"SL\x01"
_FIXED = struct.Struct("<3sIHHBf")
_HAS_GAINS = 128


@dataclass(frozen=True)
class Head:
    """What a payload declares.

    Parameters
    ----------
    height, width
        Pixels of the finest array.
    levels
        Wavelet levels.
    step
        Quantiser step.
    side_bits
        Length of the side information.
    coded
        The entropy-coded planes.
    gains
        Factor on the precision of each band, float32 ``(C,)``; None for one.
    """

    height: int
    width: int
    levels: int
    step: float
    side_bits: int
    coded: Coded
    gains: Array | None = None


def pack(head: Head, side: Array) -> bytes:
    """One payload."""
    coded = head.coded
    lanes = coded.states.size
    packed = head.levels | (lanes.bit_length() - 1) << 4 | (0 if head.gains is None else _HAS_GAINS)
    gains = b"" if head.gains is None else head.gains.astype("<f4").tobytes()
    sizes = b"".join(varint(n) for n in (head.side_bits, coded.raw_bits, coded.words.size))
    body = (
        struct.pack("<HHBf", head.height, head.width, packed, head.step)
        + gains
        + sizes
        + np.packbits(side).tobytes()
        + coded.raw.tobytes()
        + coded.states.astype("<u4").tobytes()
        + coded.words.astype("<u2").tobytes()
    )
    return _MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def unpack(data: bytes, bands: int, *, prefix: bool = False) -> tuple[Head, Array, Coded]:
    """Header, side information (one bit each, uint8) and coded planes of a tile of so many bands.

    Of a ``prefix``, the words may end early, and the checksum, which is of the whole payload, is not looked at.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated, changed or of another format.
    """
    if len(data) < _FIXED.size or data[:3] != _MAGIC:
        raise CorruptDataError(
            f"the payload starts with {bytes(data[:3])!r}, not {_MAGIC!r}; it is no lin bitstream"
        )
    _, crc, height, width, packed, step = _FIXED.unpack_from(data)
    if not prefix and zlib.crc32(data[7:]) != crc:
        raise CorruptDataError("lin: the checksum does not match; the payload was truncated or changed")
    at = _FIXED.size
    gains = None
    if packed & _HAS_GAINS:
        if len(data) < at + 4 * bands:
            raise CorruptDataError(
                f"lin: {len(data)} bytes do not hold the gains of {bands} bands; truncated"
            )
        gains = np.frombuffer(data, "<f4", bands, at).astype(np.float32)
        at += 4 * bands
        if not ((gains >= GAINS[0]) & (gains <= GAINS[1])).all():
            raise CorruptDataError(f"lin: a band's gain is not {GAINS[0]:g} to {GAINS[1]:g}")
    side_bits, at = read_varint(data, at)
    raw_bits, at = read_varint(data, at)
    n_words, at = read_varint(data, at)
    lanes = 1 << (packed >> 4 & 7)
    cut = np.cumsum([at, -(-side_bits // 8), -(-raw_bits // 8), 4 * lanes, 2 * n_words])
    if prefix and cut[3] <= len(data) < cut[-1]:
        n_words = (len(data) - int(cut[3])) // 2
        cut[-1] = len(data)
    if cut[-1] != len(data) or lanes > 8 or not (height and width and STEPS[0] <= step <= STEPS[1]):
        raise CorruptDataError(
            f"lin: the header declares {int(cut[-1])} bytes of {len(data)}, no pixels, or a step of {step:g}"
        )
    side = np.unpackbits(np.frombuffer(data, np.uint8, int(cut[1] - at), at), count=side_bits)
    raw = np.frombuffer(data, np.uint8, int(cut[2] - cut[1]), int(cut[1]))
    states = np.frombuffer(data, "<u4", lanes, int(cut[2])).astype(np.int64)
    words = np.frombuffer(data, "<u2", n_words, int(cut[3])).astype(np.uint16)
    coded = Coded(np.zeros(0, np.int32), words, states, raw, raw_bits)
    return Head(height, width, packed & 15, step, side_bits, coded, gains), side, coded


def varint(n: int) -> bytes:
    """A number of seven bits a byte, the lowest first; the highest bit says that another byte follows."""
    out = bytearray()
    while True:
        out.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Inverse of :func:`varint`: the number and the next position."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise CorruptDataError("lin: a size in the header does not end")
