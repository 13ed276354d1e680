"""One chunk of an array as one self-contained byte string, and back.

Little endian: ``SLA1``, CRC-32 of all that follows, form, type, number of dimensions, and the dimensions in seven bits a byte. Then

- form 0, one value for all: that value;
- form 1, bit for bit: see :mod:`stac_latent.arrays.lossless`;
- form 2, coded: what is given and which axis the bands are, eight digits of the codec's space, nodata, which of the values without data are NaN,
  exponent of the unit and units of the mean, bands of a part; then each part's size and byte string (:mod:`stac_latent.arrays.frames`).

The type's number has 64 added for big-endian values and 128 for those in Fortran's order, so that a reader gives back the bytes that the writer was given.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.arrays import lossless
from stac_latent.arrays.chains import FIXED, Scale, chain_for, scale_for, takes_any_bands
from stac_latent.arrays.frames import full, thin
from stac_latent.arrays.layout import Layout
from stac_latent.arrays.settings import NAME, Settings
from stac_latent.bytestring.framing import Numbers, number, pack_mask, unpack_mask
from stac_latent.errors import CodecError, CorruptDataError, FieldError, VerificationError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.field.validity import fits
from stac_latent.spec import Band
from stac_latent.system.limits import at_most, check_bytes

__all__ = ["Chunk", "decode_chunk", "encode_chunk"]

_MAGIC = b"SLA1"
_START = struct.Struct("<4sI")
_SAME, _BITS, _CODED = range(3)
_TYPES = ("|b1", "|u1", "|i1", *(f"<{kind}{n}" for n in (2, 4, 8) for kind in "uif"), "<c8", "<c16")
_BIG, _FORTRAN = 64, 128
_NODATA, _SCALED, _NAN, _AFAR = 1, 2, 4, 8
_SMALL = 48
"""Bytes that no codec is asked to go below."""
_HEAD = 24
"""Bytes of a chunk's header beyond those of a byte string, at most: a rate is kept with them."""
_EXACT_IN_FLOAT = 2**53
_TOGETHER = 4
"""Bands that a residual codes together: more save a few percent, and cost several times as long."""
_ALIKE = 16
"""The same, without a residual."""
_MOST_DIMENSIONS = 32
_DISTANCE = 2.0**100
"""Nodata so many times as large as all values is NaN to a chain, which computes with what it masks."""
_ROOM, _SLACK = 16, 1 << 20
"""Bytes that decoding may take for each value, and beside them."""


@dataclass(frozen=True)
class Chunk:
    """A decoded chunk.

    Parameters
    ----------
    values
        As they were given: type, byte order, shape and order of the axes in memory.
    exact
        Whether they are bit for bit what was encoded.
    """

    values: Array
    exact: bool


def encode_chunk(values: Array, settings: Settings, fill: Any = None) -> bytes:
    """Bytes of a chunk.

    Parameters
    ----------
    values
        Of any dimensions.
    settings
        How.
    fill
        The array's fill value, which is nodata where the settings have none.

    Raises
    ------
    FieldError
        If type or shape are none that the codec takes.
    CodecError
        If no step reaches a rate.
    """
    settings.check(values.dtype, values.shape)
    little = values.dtype.newbyteorder("<")
    x = np.ascontiguousarray(values, little).reshape(values.shape)  # ascontiguousarray makes one axis of none
    flags = _BIG if values.dtype.byteorder == ">" or (values.dtype.str[0] == ">") else 0
    if values.ndim > 1 and values.flags.f_contiguous and not values.flags.c_contiguous:
        flags |= _FORTRAN
    head = bytes([_TYPES.index(little.str) + flags, values.ndim]) + b"".join(map(number, values.shape))
    bits = lossless.bits_of(x)
    bits = bits.reshape(-1, x.dtype.itemsize // bits.dtype.itemsize)
    if len(bits) and (bits == bits[:1]).all():
        return _frame(_SAME, head + bits[:1].tobytes())
    best = _frame(_BITS, head + lossless.pack(x))
    if x.dtype.kind in "iuf" and len(best) > _SMALL:
        try:
            coded = _coded(x, settings, fill)
        except (FieldError, VerificationError, CodecError):
            if (
                settings.max_bits_per_pixel is not None
                and 8 * len(best) > settings.max_bits_per_pixel * x.size
            ):
                raise
            coded = None
        if coded is not None:
            best = min(best, _frame(_CODED, head + coded), key=len)
        most = settings.max_bits_per_pixel
        if coded is None and most is not None and 8 * len(best) > most * x.size:
            raise CodecError(
                f"a chunk of {x.shape} {x.dtype} can only be kept bit for bit, which takes {8 * len(best) / x.size:.3g} bits for each "
                f"value, more than max_bits_per_pixel={most:g}: its integers are beyond 2**53, or its values no codec can hold. Ask for "
                "more bits, or leave max_bits_per_pixel out"
            )
    return best


def decode_chunk(
    data: bytes, settings: Settings, shape: tuple[int, ...] | None = None, dtype: np.dtype[Any] | None = None
) -> Chunk:
    """Inverse of :func:`encode_chunk`.

    Parameters
    ----------
    data
        Its bytes.
    settings
        Of which the codec's name alone is used: all else is in the bytes.
    shape, dtype
        What the array's metadata say, where there are some.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed, of another codec, or of another chunk than the metadata's.
    """
    try:
        return _decode(data, settings, shape, dtype)
    except (CorruptDataError, CodecError):
        raise
    except (ValueError, IndexError, OverflowError, AssertionError, MemoryError, struct.error) as exc:
        raise CorruptDataError(f"a chunk of codec {NAME!r} does not decode: {exc}") from exc


def _frame(form: int, rest: bytes) -> bytes:
    rest = bytes([form]) + rest
    return _START.pack(_MAGIC, zlib.crc32(rest)) + rest


def _decode(
    data: bytes, settings: Settings, shape: tuple[int, ...] | None, dtype: np.dtype[Any] | None
) -> Chunk:
    if data[:4] != _MAGIC:
        raise CorruptDataError(
            f"a chunk starts with {data[:4]!r} ({len(data)} bytes), not {_MAGIC!r}: codec {NAME!r} did not write it, or it was truncated"
        )
    if len(data) < _START.size or zlib.crc32(data[_START.size :]) != _START.unpack_from(data)[1]:
        raise CorruptDataError(
            f"the checksum of a chunk of {len(data)} bytes does not match; it was truncated or changed"
        )
    read = Numbers(data[_START.size :])
    form, code, dims = read.take(3)
    kind = code & 63
    if kind >= len(_TYPES) or dims > _MOST_DIMENSIONS:
        raise CorruptDataError(f"a chunk declares type {kind} and {dims} dimensions, which cannot be")
    own, size = np.dtype(_TYPES[kind]), tuple(read.number() for _ in range(dims))
    given = own.newbyteorder(">") if code & _BIG else own
    if shape is not None and size != tuple(shape):
        raise CorruptDataError(f"a chunk holds {size} values; the array has chunks of {tuple(shape)}")
    if dtype is not None and own != dtype.newbyteorder("<"):
        raise CorruptDataError(f"a chunk holds values of {own}; the array is of {dtype}")
    check_bytes(size, own.itemsize, "a chunk")
    if form == _SAME:
        x, exact = np.full(size, np.frombuffer(read.rest(), own, 1)[0], own), True
    elif form == _BITS:
        x, exact = lossless.unpack(read.rest(), size, own), True
    elif form == _CODED and own.kind in "iuf":
        with at_most(math.prod(size) * _ROOM + _SLACK):
            x, exact = _decoded(read, settings, size, own)
    else:
        raise CorruptDataError(
            f"a chunk of {own} is of form {form}; this version reads 0 to {_CODED}, the last of real numbers alone"
        )
    order: Any = "F" if code & _FORTRAN else "C"
    return Chunk(np.asarray(x, given, order=order).reshape(size, order="A"), exact)


# -- form 2 --------------------------------------------------------------------------------------------------------


def _coded(x: Array, settings: Settings, fill: Any) -> bytes | None:
    """The coded form without what all forms have; None where no chain codes the values as asked."""
    field = Layout(x.shape, settings.band_axis).to_field(x)
    nodata = _nodata(x.dtype, settings, fill)
    some = field[np.isfinite(field)] if x.dtype.kind == "f" else field.ravel()
    some = some if nodata is None else some[some != nodata]
    if (
        not some.size
        or not _held(some)
        or not _within_type(some, settings)
        or (settings.exact and x.dtype.kind == "f" and not _plain_nan(field))
    ):
        return None
    scale, count = _scale(some, settings)
    if scale is None:
        return None
    if x.dtype.kind == "f" and not _plain_nan(field):
        field = np.where(
            np.isnan(field), x.dtype.type(math.nan), field
        )  # signalling ones warn wherever they are cast
    flags = _SCALED if scale is not FIXED else 0
    nan, masked = b"", nodata
    if nodata is not None:
        flags |= _NODATA
        if x.dtype.kind == "f" and np.isnan(field).any():  # a chain has one value for both
            flags |= _NAN
            nan = pack_mask(np.isnan(field[(field == nodata) | np.isnan(field)]))
        if x.dtype.kind == "f" and abs(nodata) > _DISTANCE * max(1.0, float(np.abs(some).max())):
            flags |= _AFAR
            field, masked = np.where(field == nodata, x.dtype.type(math.nan), field), None
    axis = 0 if settings.band_axis is None else settings.band_axis % x.ndim + 1
    space, parts = _parts(field, settings, masked, scale, count)
    out = bytes([flags, axis]) + space
    if nodata is not None:
        out += np.array([nodata], x.dtype).tobytes()
    if flags & _NAN:
        out += number(len(nan)) + nan
    if scale is not FIXED:
        out += struct.pack("<h", scale.exponent) + number(2 * abs(scale.units) + (scale.units < 0))
    return out + number(count) + parts


def _scale(some: Array, settings: Settings) -> tuple[Scale | None, int]:
    """Mean and unit for values that hold data, and how many bands are coded together."""
    if not takes_any_bands(settings.codec):
        return FIXED, len(chain_for(settings.codec).bands)
    size, bound = None, settings.bound
    if bound is not None:
        sizes = np.abs(some.astype(np.float64))
        typical = float(np.partition(sizes, sizes.size // 2)[sizes.size // 2])  # a mean of two may overflow
        size = ErrorBound.of(bound, [Band("0")]).typical([typical])
    return scale_for(settings.codec, some, size, settings.target), _ALIKE if bound is None else _TOGETHER


def _parts(
    field: Array, settings: Settings, nodata: float | None, scale: Scale, count: int
) -> tuple[bytes, bytes]:
    """Digits of the space, and so many bands at a time as the codec writes them."""
    asked: dict[str, Any] = {**settings.target.given}
    if settings.bound is not None:
        asked["error_bound"] = settings.bound
    space, parts = b"", []
    for i in range(0, len(field), count):
        part = field[i : i + count]
        chain = chain_for(settings.codec, len(part), field.dtype.name, nodata, scale)
        room, rate = 8 * _HEAD / part.size, settings.max_bits_per_pixel
        if rate is not None and rate > 2 * room:
            asked["max_bits_per_pixel"] = rate - room
        space = space or _digits(chain.space)
        data = thin(chain.compress(part, **asked), chain.space, _three(part.shape))
        parts += [number(len(data)), data]
    return space, b"".join(parts)


def _decoded(
    read: Numbers, settings: Settings, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Array, bool]:
    """Values of the coded form, and whether they are exact."""
    flags, axis = read.take(2)
    space = read.take(4)
    nodata, scale = None, FIXED
    if flags & _NODATA:
        nodata = float(np.frombuffer(read.take(dtype.itemsize), dtype)[0])
    nan = read.take(read.number()) if flags & _NAN else b""
    if flags & _SCALED:
        (exponent,) = struct.unpack("<h", read.take(2))
        units = read.number()
        scale = Scale(exponent, -(units >> 1) if units & 1 else units >> 1)
        if abs(exponent) > 1000 or not math.isfinite(scale.mean):
            raise CorruptDataError(f"a chunk declares units of 2**{exponent}, which cannot be")
    masked = None if flags & _AFAR else nodata
    layout = Layout(shape, axis - 1 if axis else None)
    bands, height, width = layout.field
    count = read.number()
    if not 0 < count <= max(bands, _ALIKE) or dtype.kind not in "iuf":
        raise CorruptDataError(f"a chunk declares parts of {count} bands of {dtype}, which cannot be")
    out, first = np.empty((bands, height, width), dtype), True
    for i in range(0, bands, count):
        n = min(count, bands - i)
        chain = chain_for(settings.codec, n, dtype.name, masked, scale)
        if first and _digits(chain.space) != space:
            raise CorruptDataError(
                f"a chunk was coded in the space sha256:{space.hex()}..., and codec {settings.codec!r} is {chain.space}: it was written by "
                "another codec, or another version of it"
            )
        first = False
        values = chain.decompress(full(read.take(read.number()), chain.space, (n, height, width)))
        if values.shape != (n, height, width):
            raise CorruptDataError(f"a part decodes to {values.shape}; {(n, height, width)} was declared")
        out[i : i + n] = values
    if read.rest():
        raise CorruptDataError("bytes follow the last part of a chunk; they were changed")
    if flags & (_NAN | _AFAR):
        empty = np.flatnonzero(np.isnan(out) if flags & _AFAR else out == nodata)
        bits = unpack_mask(nan, min(1, empty.size), (1, empty.size)) if flags & _NAN else None
        out.reshape(-1)[empty] = nodata
        out.reshape(-1)[empty[bits.ravel()] if bits is not None else empty[:0]] = math.nan
    return layout.from_field(out), settings.exact


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    bands, height, width = shape
    return bands, height, width


def _digits(space: str) -> bytes:
    """First eight hexadecimal digits of a space."""
    return bytes.fromhex(space.removeprefix("sha256:")[:8])


def _nodata(dtype: np.dtype[Any], settings: Settings, fill: Any) -> float | None:
    """Nodata of a chunk in its type; NaN and what the type cannot hold stand for none."""
    value = fill if settings.nodata is None else settings.nodata
    if value is None or not fits(float(value), dtype):
        return None
    with np.errstate(over="ignore"):
        value = float(dtype.type(value))
    if math.isnan(value) or (settings.exact and dtype.kind == "f" and value == 0):  # there is a -0.0
        return None
    return value


def _held(x: Array) -> bool:
    """Whether float64, in which chains compute, holds values one by one: 64-bit integers may be too large."""
    return x.dtype.kind == "f" or (int(x.max()) < _EXACT_IN_FLOAT and int(x.min()) > -_EXACT_IN_FLOAT)


def _within_type(x: Array, settings: Settings) -> bool:
    """Whether decoded values stay in their type, and shares of values are numbers that float64 holds to the last bit."""
    if x.dtype.kind != "f":
        return True
    sizes = np.abs(x[x != 0].astype(np.float64))
    if settings.bound is None:  # nothing looks at single values, and one may become infinite
        return not sizes.size or float(sizes.max()) < float(np.finfo(x.dtype).max) / 2
    shares = [v for v, r in _bounds(settings) if r]
    return not shares or not sizes.size or float(sizes.min()) * min(shares) > float(np.finfo(np.float64).tiny)


def _bounds(settings: Settings) -> list[tuple[float, bool]]:
    """Each band's bound, and whether it is a share."""
    names = None if takes_any_bands(settings.codec) else chain_for(settings.codec).bands
    bound = ErrorBound.of(settings.bound or 0, names or [Band("0")])
    return list(zip(bound.values, bound.relative, strict=True))


def _plain_nan(field: Array) -> bool:
    """Whether every NaN has the bits that decoding gives it."""
    nan = np.isnan(field)
    if not nan.any():
        return True
    usual = lossless.bits_of(np.array([math.nan], field.dtype))
    return bool((lossless.bits_of(field)[nan] == usual).all())
