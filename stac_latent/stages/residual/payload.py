"""Residual: what a decoded tile lacks so that every pixel keeps an error bound, down to no error at all.

A tile is predicted pixel by pixel from what the base decodes to and from the pixels before it; the whole number that leads
from the prediction into the bound is entropy coded. Encoder and decoder compute the same prediction from decoded values, so that errors
do not add up. Whatever would break the bound all the same (rounding of floats, infinite values) is stored exactly. A payload
decodes alone and is one of three, told by its first byte: nothing to correct; coded; plain.

The first two go on with the CRC-32 of the base in the stored types: on other pixels a residual would be noise.
Coded, little endian, behind that: rows and columns that repeat the one before (:class:`.Fold`), which are left out; uint8 sets of weights and states, uint32 bytes of side information, of exact
values and of raw bits, number of raw bits and of words; then deflated side information, deflated exact values, raw bits,
uint32 states, uint16 words.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError, FieldError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.spec import Band
from stac_latent.stages.residual.quantiser import Values, apart, cast_to
from stac_latent.stages.residual.side_information import Fold, inflate, shuffled, unshuffled
from stac_latent.stages.residual.tile import GROUPS, code_tile, decode_tile

__all__ = ["BITSTREAM", "decode_residual", "encode_residual", "largest_size"]

BITSTREAM = "stac-latent-residual-1"
_NOTHING, _CODED, _PLAIN = range(3)
_SEEN = 4
"""Bytes of the checksum of the base."""
_SIDE_MATTERS = 12
"""With fewer bytes for each of the side information, fewer weights are tried."""


def largest_size(bands: Sequence[Band], pixels: int) -> int:
    """Bytes of a payload at most, for so many pixels of these bands."""
    raw = sum(np.dtype(b.data_type).itemsize for b in bands) * pixels
    return raw + raw // 1000 + 64  # deflate adds 5 bytes for each 16 KiB of what it cannot shrink


def encode_residual(
    truth: Array, base: Array, valid: Array | None, bound: ErrorBound, bands: Sequence[Band]
) -> bytes:
    """What leads from a decoded tile to one within the bound.

    Parameters
    ----------
    truth
        ``(band, y, x)``, values that each band's type can hold.
    base
        The same tile as it decodes, of any type.
    valid
        Pixels that count, ``(1 or band, y, x)``; None for all.
    bound
        Of each band.
    bands
        Tell the stored types and nodata.

    Raises
    ------
    FieldError
        If a valid value does not fit its band's type.
    """
    mask = _mask(valid, truth.shape)
    fields, values = [], []
    for x, m, band, e, r in zip(truth, mask, bands, bound.values, bound.relative, strict=True):
        field, left = _typed(x.ravel(), m, band, e, relative=r)
        fields.append(field)
        values.append(Values.of(field[m], left, relative=r))
    starts = [cast_to(b, v.dtype) for b, v in zip(base, values, strict=True)]
    if all(
        (v.kept(x[m], s[m]) & apart(x[m], s[m], b)).all()
        for v, x, s, m, b in zip(values, fields, starts, mask, bands, strict=True)
    ):
        return bytes([_NOTHING]) + _seen(starts)
    plain = bytes([_PLAIN]) + zlib.compress(shuffled([x[m] for x, m in zip(fields, mask, strict=True)]), 6)
    best, fold = plain, Fold.of(fields, mask, (truth.shape[1], truth.shape[2]))
    small, known, some = ([fold.take(v) for v in part] for part in (fields, starts, mask))
    for groups in GROUPS:
        coded, side = code_tile(small, known, np.stack(some), values, bands, fold.small, groups)
        best = min(best, bytes([_CODED]) + _seen(starts) + fold.pack() + coded, key=len)
        if len(coded) > _SIDE_MATTERS * side:
            break
    return best


def decode_residual(data: bytes, base: Array, valid: Array | None, bands: Sequence[Band]) -> Array:
    """Inverse of :func:`encode_residual`: the tile within its bound, of the type of ``base``.

    Raises
    ------
    CorruptDataError
        If the payload is none of such a tile.
    """
    mask = _mask(valid, base.shape)
    out = base.copy()
    form, rest = (data[0], data[1:]) if data else (-1, b"")
    if form == _PLAIN:
        counts = mask.sum(axis=1).tolist()
        size = sum(np.dtype(b.data_type).itemsize * n for b, n in zip(bands, counts, strict=True))
        for i, x in enumerate(unshuffled(inflate(rest, size), counts, bands)):
            out[i].reshape(-1)[mask[i]] = x
        return out
    if form not in (_NOTHING, _CODED) or len(rest) < _SEEN or (form == _NOTHING and len(rest) > _SEEN):
        raise CorruptDataError(
            f"residual: {len(data)} bytes that start with {data[:1]!r} are no payload of a tile"
        )
    starts = [cast_to(b, np.dtype(band.data_type)) for b, band in zip(base, bands, strict=True)]
    if rest[:_SEEN] != _seen(starts):
        raise CorruptDataError(
            "residual: the base decodes to other pixels than when it was written. Either its bytes were changed, or its codec is "
            "not the same on every machine (jpeg2000 is not): decode where it was written, or encode again with 'lin'"
        )
    if form == _CODED:
        fold, at = Fold.unpack(rest[_SEEN:], (base.shape[1], base.shape[2]))
        small = np.empty((len(out), *fold.small), out.dtype)
        known, some = ([fold.take(v) for v in part] for part in (starts, mask))
        decode_tile(rest[_SEEN + at :], known, np.stack(some), bands, small)
        for i, x in enumerate(small):
            out[i].reshape(-1)[mask[i]] = fold.give(x)[mask[i]]
    return out


def _seen(starts: Sequence[Array]) -> bytes:
    """CRC-32 of the base that a residual refers to."""
    crc = 0
    for x in starts:
        crc = zlib.crc32(np.ascontiguousarray(x, x.dtype.newbyteorder("<")).view(np.uint8).data, crc)
    return crc.to_bytes(_SEEN, "little")


def _mask(valid: Array | None, shape: tuple[int, ...]) -> Array:
    if max(shape[1:]) > 4096:
        raise FieldError(f"residual: tiles have at most 4096 pixels a side; got {shape[1:]}")
    mask = np.ones(shape, bool) if valid is None else np.broadcast_to(valid, shape)
    return mask.reshape(len(mask), -1)


def _typed(x: Array, mask: Array, band: Band, bound: float, *, relative: bool) -> tuple[Array, float]:
    """Values of a band in its stored type, and what rounding to it leaves of the bound; refuses what the type cannot hold."""
    dtype = np.dtype(band.data_type)
    if x.dtype == dtype:
        return x, bound
    with np.errstate(all="ignore"):
        out = np.where(mask, x, x.dtype.type(0)).astype(dtype)
        lost = np.where((out == x) | ~mask, 0.0, np.abs(out.astype(np.float64) - x.astype(np.float64)))
        share = lost / np.abs(x.astype(np.float64)) if relative else lost
    share = np.where(lost == 0, 0.0, np.where(np.isfinite(share), share, np.inf)) * (1 + 2.0**-20)
    worst = int(share.argmax()) if share.size else 0
    left = bound - float(share[worst])
    if (left < 0 or dtype.kind != "f") and share[worst] > 0:
        raise FieldError(
            f"band {band.name!r} holds {x[worst]}, which its stored type {dtype} cannot within the error bound. Mask such "
            "pixels as nodata, or choose a codec whose bands hold them"
        )
    return out, left
