"""One self-contained byte string for one field: header, validity mask, entropy-coded symbols.

Layout, little endian: ``SLC1``, uint32 header length, uint32 CRC-32 of all that follows, JSON header, mask (zlib of
packed bits), payload. Catalogues store payloads in Zarr instead; this form serves messages, tests and comparisons with
other codecs.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stac_latent.errors import CorruptDataError, FieldError
from stac_latent.spec import Band

if TYPE_CHECKING:
    from stac_latent.codec import Array, Codec

__all__ = ["apply_nodata", "compress", "decompress", "valid_mask"]

_MAGIC = b"SLC1"
_START = struct.Struct("<4sII")
_MAX_HEADER = 65536
_MAX_PIXELS = 2**28


def valid_mask(field: Array, codec: Codec) -> npt.NDArray[np.bool_] | None:
    """Pixels that hold data: not the band's nodata, not NaN.

    Parameters
    ----------
    field
        ``(band, y, x)`` in the stored unit.
    codec
        Its bands tell the nodata values.

    Returns
    -------
    ndarray or None
        ``(1, y, x)`` where all bands agree, else ``(band, y, x)``; None where every pixel is valid.
    """
    valid = np.ones(field.shape, bool)
    for i, band in enumerate(codec.bands):
        if band.nodata is not None and not math.isnan(band.nodata):
            valid[i] = field[i] != band.nodata
        if field.dtype.kind == "f":
            valid[i] &= ~np.isnan(field[i])
    if valid.all():
        return None
    return valid[:1] if (valid == valid[:1]).all() else valid


def apply_nodata(field: Array, mask: npt.NDArray[np.bool_] | None, bands: Sequence[Band]) -> Array:
    """Put each band's nodata value (NaN for floats without one) where ``mask`` is false; in place."""
    if mask is None or mask.all():
        return field
    holes = ~mask
    for i, band in enumerate(bands):
        here = holes[min(i, len(holes) - 1)]
        if here.any():
            value = band.nodata if band.nodata is not None else (math.nan if field.dtype.kind == "f" else 0)
            field[i][here] = value
    return field


def compress(codec: Codec, field: Array) -> bytes:
    """Encode a field of any height and width; pixels without data are kept.

    Parameters
    ----------
    codec
        A chain that ends with an entropy coder.
    field
        ``(band, y, x)`` in the bands' stored unit.

    Raises
    ------
    FieldError
        If bands or dtype do not fit the codec, or the field is empty.
    """
    if field.ndim != 3 or 0 in field.shape:
        raise FieldError(f"compress takes (band, y, x) with at least one pixel; got shape {field.shape}")
    if len(field) != len(codec.bands):
        names = ", ".join(b.name for b in codec.bands)
        raise FieldError(
            f"codec {codec.name!r} codes {len(codec.bands)} bands ({names}); got shape {field.shape}"
        )
    mask = valid_mask(field, codec)
    pad = [(0, -n % s) for n, s in zip(field.shape[1:], codec.stride, strict=True)]
    clean = field
    if mask is not None and field.dtype.kind == "f":
        clean = np.where(np.isnan(field), field.dtype.type(0), field)
    inner = mask
    if any(p[1] for p in pad):
        clean = np.pad(clean, [(0, 0), *pad], mode="edge")
        inner = None if mask is None else np.pad(mask, [(0, 0), *pad], mode="edge")
    payload = codec.encode(clean, mask=inner)
    bits = b"" if mask is None else zlib.compress(np.packbits(mask).tobytes(), 9)
    head = json.dumps(
        {
            "space": codec.space,
            "shape": list(field.shape),
            "dtype": field.dtype.name,
            "mask": [0 if mask is None else len(mask), len(bits)],
        },
        separators=(",", ":"),
    ).encode()
    body = head + bits + payload
    return bytes(_START.pack(_MAGIC, len(head), zlib.crc32(body)) + body)


def decompress(codec: Codec, data: bytes) -> Array:
    """Inverse of :func:`compress`: ``(band, y, x)`` in the bands' stored type.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed, or of another space than the codec's.
    """
    head, body = _read_head(data)
    if head["space"] != codec.space:
        raise CorruptDataError(
            f"the bytes are of space {head['space']}, codec {codec.name!r} is {codec.space}; open the codec of that space"
        )
    (bands, h, w), (rows, n_bits) = head["shape"], head["mask"]
    if (
        bands != len(codec.bands)
        or min(h, w) < 1
        or h * w > _MAX_PIXELS
        or rows not in (0, 1, bands)
        or n_bits < 0
    ):
        raise CorruptDataError(
            f"the header declares shape {head['shape']} and mask {head['mask']}, which cannot be"
        )
    bits, payload = body[:n_bits], body[n_bits:]
    mask = None
    if rows:
        size = -(-rows * h * w // 8)
        try:
            raw = zlib.decompressobj().decompress(bits, size + 1)
        except zlib.error as exc:
            raise CorruptDataError(f"the mask does not inflate: {exc}") from exc
        if len(raw) != size:
            raise CorruptDataError(f"the mask inflates to {len(raw)} bytes, {size} were declared")
        mask = (
            np.unpackbits(np.frombuffer(raw, np.uint8), count=rows * h * w).astype(bool).reshape(rows, h, w)
        )
    field = codec.decode(payload)[:, :h, :w]
    if field.shape != (bands, h, w):
        raise CorruptDataError(f"the payload decodes to {field.shape}; {(bands, h, w)} was declared")
    return apply_nodata(np.ascontiguousarray(field), mask, codec.bands)


def _read_head(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < _START.size or data[:4] != _MAGIC:
        raise CorruptDataError(
            f"the bytes start with {bytes(data[:4])!r}, not {_MAGIC!r}; compress() did not write them"
        )
    _, n, crc = _START.unpack_from(data)
    if zlib.crc32(data[_START.size :]) != crc:
        raise CorruptDataError("the checksum does not match; the bytes were truncated or changed")
    if n > _MAX_HEADER or _START.size + n > len(data):
        raise CorruptDataError(f"the header declares {n} bytes of {len(data)}; truncated?")
    try:
        head = json.loads(data[_START.size : _START.size + n])
        numbers = [*head["shape"], *head["mask"]]
        sound = len(head["shape"]) == 3 and all(type(n) is int for n in numbers) and len(numbers) == 5
        space = head["space"]
    except (ValueError, KeyError, TypeError) as exc:
        raise CorruptDataError(f"the header is not readable: {exc}") from exc
    if not (sound and isinstance(space, str)):
        raise CorruptDataError(
            f"the header declares shape {head['shape']}, mask {head['mask']}, space {space!r}; expected 3 and 2 whole numbers and a digest"
        )
    return head, data[_START.size + n :]
