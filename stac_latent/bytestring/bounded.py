"""Fields within an error bound as one byte string: what a codec writes, and the residual of what that decodes to.

Layout, little endian: ``SLE1``, uint32 header length, uint32 CRC-32 of all that follows, JSON header, the codec's own byte
string, masks, payloads of residuals tile by tile. The codec's own string stands alone: its latents are those of its space.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.bytestring.framing import BOUNDED, SEVERAL_GRIDS, pack_mask, seal, unpack_mask, unseal
from stac_latent.bytestring.grid_families import families, parts_of
from stac_latent.bytestring.multi_grid import compress_native, decompress_native
from stac_latent.bytestring.single_grid import compress, target_of, unpack
from stac_latent.chain import Codec
from stac_latent.errors import CorruptDataError, FieldError, VerificationError
from stac_latent.field.error_bound import BoundLike, ErrorBound
from stac_latent.field.validity import apply_nodata, valid_mask
from stac_latent.stages.lin.pyramid import tiles_of
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.residual.payload import BITSTREAM, TILE, decode_residual, encode_residual
from stac_latent.stages.transform.normalise import LIMIT, Normalise
from stac_latent.system.limits import MAX_PIXELS
from stac_latent.system.threads import each

if TYPE_CHECKING:
    from stac_latent.spec import Band

__all__ = ["base_step", "codable", "compress_bounded", "decompress_bounded", "refuse_far_values", "typical"]

Mask = npt.NDArray[np.bool_]
_COARSER = 8.0
"""Steps of the base in steps of the residual, at least: finer ones cost more than they save; see ``docs/error_bound.md``."""


def compress_bounded(
    codec: Codec, field: Array | Sequence[Array], *, error_bound: BoundLike, **target: Any
) -> bytes:
    """Encode a field, every pixel within a bound.

    Parameters
    ----------
    codec
        Any chain that ends with an entropy coder.
    field
        ``(band, y, x)`` in the bands' stored unit, or a list of the fields of several grids. Infinite values come back
        as they are.
    error_bound
        See :meth:`stac_latent.field.error_bound.ErrorBound.of`: ``2`` in the stored unit, ``"1%"`` of the value, or either by name of the band;
        0 is lossless.
    **target
        Of the codec's own part, as :func:`stac_latent.bytestring.single_grid.compress` takes it. Without one, its own step, or a
        coarser one where the bound is wide.

    Raises
    ------
    CodecError
        If the bound makes no sense.
    FieldError
        If the field does not fit the codec, or holds values that the bands' type cannot.

    Examples
    --------
    >>> from stac_latent import open_codec
    >>> codec = open_codec("lin", bands=["B04"])
    >>> x = np.arange(4096, dtype=np.uint16).reshape(1, 64, 64)
    >>> y = codec.decompress(codec.compress(x, error_bound=2))
    >>> int(abs(x.astype(int) - y).max()) <= 2
    True
    """
    bound = ErrorBound.of(error_bound, codec.bands)
    several = isinstance(field, list | tuple)
    parts = _parts(codec, several)
    fields: list[Array] = [np.asarray(x) for x in (field if several else (field,))]
    own: dict[str, Any] = dict(target) or target_of(codec).given
    fits = len(parts) == len(fields) and all(
        x.ndim == 3 and len(x) == len(p.bands) for x, p in zip(fields, parts, strict=True)
    )  # what does not is refused by the codec
    if not own and fits:
        found = {
            b.name: m
            for x, p in zip(fields, parts, strict=True)
            for b, m in zip(p.bands, typical(x, valid_mask(x, p.bands)), strict=True)
        }
        step = base_step(codec, bound, [found[b.name] for b in codec.bands])
        own = {} if step is None else {"step": step}
    masks: list[Mask | None] = []
    if several:
        base = compress_native(codec, fields, **own)
        decoded = decompress_native(codec, base)
    else:
        base = compress(codec, fields[0], mask=codable(fields[0], None, codec) if fits else None, **own)
        decoded = [unpack(codec, base)[0]]
    head: dict[str, Any] = {"base": len(base), "masks": [], "residual": BITSTREAM, "sizes": []}
    body = []
    for x, part, known in zip(fields, parts, decoded, strict=True):
        mask = valid_mask(x, part.bands)
        masks.append(mask)
        bits = pack_mask(mask)
        payloads = _code(x, known, mask, _of_part(bound, codec, part), part.bands)
        head["masks"].append([0 if mask is None else len(mask), len(bits)])
        head["sizes"].append(list(x.shape))
        sizes = np.array([len(p) for p in payloads], "<u4").tobytes()
        body += [bits, sizes, *payloads]
    data = seal(BOUNDED, json.dumps(head, separators=(",", ":")).encode(), b"".join([base, *body]))
    back = decompress_bounded(codec, data)
    _verify(codec, back if several else [back], fields, masks, bound, parts)
    return data


def decompress_bounded(codec: Codec, data: bytes) -> Any:
    """Inverse of :func:`compress_bounded`: ``(band, y, x)``, or a list of them.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed, or of another space than the codec's.
    """
    head, body = unseal(data, BOUNDED, "compress(error_bound=)")
    base, shapes, masks = _read_head(head, body)
    several = base[:4] == SEVERAL_GRIDS
    parts = _parts(codec, several)
    decoded = decompress_native(codec, base) if several else [unpack(codec, base)[0]]
    if [list(x.shape) for x in decoded] != shapes or len(parts) != len(shapes):
        raise CorruptDataError(
            f"the base decodes to {[x.shape for x in decoded]}; the residual is of {shapes}: they do not belong together"
        )
    at, out = len(base), []
    for x, part, (rows, size) in zip(decoded, parts, masks, strict=True):
        mask = unpack_mask(body[at : at + size], rows, (x.shape[1], x.shape[2]))
        at += size
        windows = list(tiles_of(*x.shape[1:], size=TILE))
        lengths = np.frombuffer(body[at : at + 4 * len(windows)], "<u4").astype(np.int64)
        if lengths.size != len(windows) or at + 4 * len(windows) + int(lengths.sum()) > len(body):
            raise CorruptDataError("the residual ends before its tiles do; the bytes were changed")
        ends = at + 4 * len(windows) + np.cumsum(lengths)
        pieces = [body[e - n : e] for e, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
        at = int(ends[-1])
        _restore(x, mask, pieces, part.bands)
        out.append(apply_nodata(x, mask, part.bands))
    if at != len(body):
        raise CorruptDataError(f"{len(body) - at} bytes follow the residual; the bytes were changed")
    return out if several else out[0]


def codable(field: Array, valid: Mask | None, codec: Codec) -> Mask | None:
    """Pixels that the chain itself can take, of those that are valid: finite, and not too far from its mean.

    What it leaves out is coded by the residual alone. None for all.
    """
    mask = valid if valid is not None else valid_mask(field, codec.bands)
    first = codec.stages[0]
    if field.dtype.kind != "f" and not isinstance(first, Normalise):
        return mask
    some = np.isfinite(field) if field.dtype.kind == "f" else np.ones(field.shape, bool)
    if isinstance(first, Normalise):
        with np.errstate(all="ignore"):
            far = (
                np.abs(field.astype(np.float64) - first.mean[:, None, None])
                * (16 / first.unit)[:, None, None]
            )
        some &= far < LIMIT - 1
    if some.all():
        return mask
    return some if mask is None else some & mask


def refuse_far_values(field: Array, valid: Mask | None, codec: Codec) -> None:
    """Refuse a field whose valid pixels the chain would clip: too far from the mean that is part of it.

    Raises
    ------
    FieldError
        Names the first such band, its values and the ways out.
    """
    first = codec.stages[0]
    if not isinstance(first, Normalise) or field.dtype.kind not in "iuf":
        return
    if field.dtype.kind != "f":
        info = np.iinfo(field.dtype)
        reach = np.maximum(info.max - first.mean, first.mean - info.min) * 16 / first.unit
        if (reach < LIMIT - 1).all():
            return
    known = codable(field, valid, codec)
    if known is None or known is valid:
        return
    lost = ~np.broadcast_to(known, field.shape) & np.broadcast_to(
        True if valid is None else valid, field.shape
    )
    if field.dtype.kind == "f":
        lost &= np.isfinite(field)
    for i, band in enumerate(codec.bands):
        if lost[i].any():
            far = field[i][lost[i]]
            raise FieldError(
                f"band {band.name!r} holds {far.min():g} to {far.max():g}, more than {LIMIT / 16 * first.unit[i]:g} from "
                f"{first.mean[i]:g}, the mean that is part of codec {codec.name!r}: such pixels would be clipped. Keep them exactly "
                "with error_bound= (--error-bound), open the codec with a larger unit=, or mask them as nodata"
            )


def typical(field: Array, valid: Mask | None) -> list[float]:
    """Median magnitude of each band's finite valid pixels; 0 where there is none."""
    mask = np.broadcast_to(True if valid is None else valid, field.shape)
    out = []
    for x, m in zip(field, mask, strict=True):
        some = np.abs(x[m].astype(np.float64))
        some = some[np.isfinite(some)]
        out.append(float(np.median(some)) if some.size else 0.0)
    return out


def base_step(codec: Codec, bound: ErrorBound, magnitudes: Sequence[float]) -> float | None:
    """Step of the base [stored unit] where no target is given: its own step, or a coarser one beside a wide bound.

    Parameters
    ----------
    codec
        A chain; others than ``lin`` have one step, and a ``lin`` with a target of its own keeps it: the answer is None.
    bound
        Of the bands.
    magnitudes
        Of their values, for relative bounds.
    """
    first, tail = codec.stages[0], codec.tail
    if not isinstance(first, Normalise) or not isinstance(tail, Lin) or tail.aim is not None:
        return None
    whole = all(np.dtype(b.data_type).kind in "iu" for b in codec.bands)
    wide = _COARSER * (2 * bound.typical(magnitudes) + whole)
    own = tail.step * float(np.median(first.unit))
    return min(wide, own * 2.0**12) if wide > own else None


def _parts(codec: Codec, several: bool) -> list[Codec]:
    return parts_of(codec, families(codec)) if several else [codec]


def _of_part(bound: ErrorBound, codec: Codec, part: Codec) -> ErrorBound:
    """Bounds of the bands of one grid."""
    names = [b.name for b in codec.bands]
    return bound.some([names.index(b.name) for b in part.bands])


def _code(x: Array, known: Array, mask: Mask | None, bound: ErrorBound, bands: Sequence[Band]) -> list[bytes]:
    def one(window: Any) -> bytes:
        (y0, y1), (x0, x1) = window
        valid = None if mask is None else mask[:, y0:y1, x0:x1]
        return encode_residual(x[:, y0:y1, x0:x1], known[:, y0:y1, x0:x1], valid, bound, bands)

    return each(one, list(tiles_of(*x.shape[1:], size=TILE)))


def _restore(x: Array, mask: Mask | None, payloads: Sequence[bytes], bands: Sequence[Band]) -> None:
    """Apply residuals to a decoded field, in place."""

    def one(task: tuple[Any, bytes]) -> None:
        ((y0, y1), (x0, x1)), payload = task
        valid = None if mask is None else mask[:, y0:y1, x0:x1]
        x[:, y0:y1, x0:x1] = decode_residual(payload, np.ascontiguousarray(x[:, y0:y1, x0:x1]), valid, bands)

    each(one, list(zip(tiles_of(*x.shape[1:], size=TILE), payloads, strict=True)))


def _verify(
    codec: Codec,
    decoded: Sequence[Array],
    fields: Sequence[Array],
    masks: Sequence[Mask | None],
    bound: ErrorBound,
    parts: Sequence[Codec],
) -> None:
    for x, y, mask, part in zip(fields, decoded, masks, parts, strict=True):
        valid = np.ones((1, *x.shape[1:]), bool) if mask is None else mask
        broken = _of_part(bound, codec, part).broken(x, y, valid, part.bands)
        if broken is not None:
            raise VerificationError(
                f"the bytes were decoded again and do not keep the error bound: {broken}; the machine is at fault"
            )


def _read_head(head: dict[str, Any], body: bytes) -> tuple[bytes, list[list[int]], list[list[int]]]:
    try:
        base, shapes, masks = head["base"], head["sizes"], head["masks"]
        whole = all(type(n) is int and n >= 0 for row in (*shapes, *masks, [base]) for n in row)
        sound = whole and all(len(s) == 3 and 0 < s[1] * s[2] <= MAX_PIXELS for s in shapes)
        sound = (
            sound
            and len(masks) == len(shapes)
            and all(len(m) == 2 and m[0] in (0, 1, s[0]) for m, s in zip(masks, shapes, strict=True))
        )
        known = head["residual"] == BITSTREAM
    except (KeyError, TypeError) as exc:
        raise CorruptDataError(f"the header lacks what a residual needs: {exc}") from exc
    if not known:
        raise CorruptDataError(
            f"the residual is of the form {head['residual']!r}; this version reads {BITSTREAM!r}"
        )
    if not sound or base > len(body):
        raise CorruptDataError(f"the header declares {head}, which cannot be")
    return body[:base], shapes, masks
