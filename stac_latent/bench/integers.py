"""Fields as 16-bit integers, which image coders take, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from stac_latent.bench.coder import Array

__all__ = ["pack_integers", "to_type", "unpack_integers"]


def pack_integers(x: Array, *, signed: bool) -> tuple[bytes, Array]:
    """Header and 16-bit integers of a field.

    Integers keep their unit: signed ones are taken relative to the mean of their band, where that fits, unsigned ones
    relative to the smallest value of the type. Floats and wider integers are scaled to 65,536 levels between the extremes of their band.

    Parameters
    ----------
    x
        ``(band, y, x)``, finite.
    signed
        int16 instead of uint16.

    Returns
    -------
    tuple of bytes and ndarray
        2 bytes for each band (floats: 8), and int16 or uint16 ``(band, y, x)``.
    """
    if x.dtype.kind in "iu" and x.dtype.itemsize <= 2:
        wide = x.astype(np.int32)
        centre = int(np.iinfo(x.dtype).min)
        offset = np.full(len(x), centre, np.int32)
        if signed:
            offset = np.rint(x.mean(axis=(1, 2))).astype(np.int32)
            too_far = np.abs(wide - offset[:, None, None]).max(axis=(1, 2)) > 32767
            offset[too_far] = centre + 32768
        head = (offset - centre).astype("<u2").tobytes() if signed else b""
        out = wide - offset[:, None, None]
        return head, out.astype(np.int16 if signed else np.uint16)
    low = x.min(axis=(1, 2)).astype("<f4")
    step = np.maximum((x.max(axis=(1, 2)) - low) / 65535, np.finfo("<f4").tiny).astype("<f4")
    level = (x - low[:, None, None].astype(np.float64)) / step[:, None, None]
    level = np.clip(np.rint(level), 0, 65535)
    head = low.tobytes() + step.tobytes()
    return head, (level - 32768).astype(np.int16) if signed else level.astype(np.uint16)


def unpack_integers(
    data: bytes, bands: int, dtype: np.dtype[Any], *, signed: bool
) -> tuple[int, Array, Array]:
    """Size of the header that :func:`pack_integers` wrote, and offset and step of each band.

    A decoded value is ``level * step + offset``.
    """
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        centre = int(np.iinfo(dtype).min)
        if not signed:
            return 0, np.full(bands, float(centre)), np.ones(bands)
        offset = np.frombuffer(data, "<u2", bands).astype(np.float64) + centre
        return 2 * bands, offset, np.ones(bands)
    low, step = np.frombuffer(data, "<f4", 2 * bands).astype(np.float64).reshape(2, bands)
    return 8 * bands, low + (32768 * step if signed else 0), step


def to_type(values: Array, dtype: np.dtype[Any]) -> Array:
    """Real numbers as a stored type: rounded and clipped where that is an integer."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.clip(np.rint(values), info.min, info.max).astype(dtype)
    return values.astype(dtype)
