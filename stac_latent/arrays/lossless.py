"""Values bit for bit: bytes of equal weight side by side, or those of differences, behind zstd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError

__all__ = ["bits_of", "pack", "unpack"]

_EFFORT = 3
_RAW, _PLANES, _DIFFERENCES = range(3)


def bits_of(x: Array) -> Array:
    """The bits of values as unsigned integers, those of complex ones as two along the last axis; ``x`` is contiguous."""
    size = x.dtype.itemsize // (2 if x.dtype.kind == "c" else 1)
    return np.atleast_1d(x).view(f"<u{size}")


def pack(x: Array) -> bytes:
    """Bytes of a contiguous little-endian array; never many more than it has."""
    from numcodecs.zstd import Zstd

    bits = bits_of(x)
    size = bits.dtype.itemsize
    zstd = Zstd(level=_EFFORT)
    best = bytes([_RAW]) + bits.tobytes()
    if not x.size:
        return best
    rows = _rows(bits, x.shape, x.dtype)
    for form, values in ((_PLANES, rows), (_DIFFERENCES, np.diff(rows, axis=1, prepend=bits.dtype.type(0)))):
        planes = np.ascontiguousarray(np.ascontiguousarray(values).view(np.uint8).reshape(-1, size).T)
        best = min(best, bytes([form]) + bytes(zstd.encode(planes)), key=len)
    return best


def unpack(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Inverse of :func:`pack`, for an array whose size was checked.

    Raises
    ------
    CorruptDataError
        If the bytes are none of such an array.
    """
    from numcodecs.zstd import Zstd

    form, body = (data[0], data[1:]) if data else (-1, b"")
    halves = 2 if dtype.kind == "c" else 1
    size, count = dtype.itemsize // halves, math.prod(shape) * halves
    if form == _RAW and len(body) == size * count:
        return np.frombuffer(body, dtype).reshape(shape).copy()
    if form not in (_PLANES, _DIFFERENCES) or not count:
        raise CorruptDataError(f"{len(data)} bytes hold no {shape} values of {dtype}; they were changed")
    planes: npt.NDArray[np.uint8] = np.empty((size, count), np.uint8)
    try:
        Zstd().decode(body, out=planes)
    except (RuntimeError, ValueError) as exc:
        raise CorruptDataError(f"zstd: the bytes do not inflate to {shape} values of {dtype}: {exc}") from exc
    bits = np.ascontiguousarray(planes.T).view(f"<u{size}")
    if form == _DIFFERENCES:
        bits = np.cumsum(_rows(bits, shape, dtype), axis=1, dtype=bits.dtype)
    return bits.reshape(-1).view(dtype).reshape(shape)


def _rows(bits: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Along the last axis of the array, real and imaginary parts apart: ``(row, value, part)``."""
    return bits.reshape(-1, shape[-1] if shape else 1, 2 if dtype.kind == "c" else 1)
