"""Fields within an error bound as one byte string: what a codec writes, and the residual of what that decodes to.

Layout: ``SLE1``, checksum and header (see :mod:`stac_latent.bytestring.framing`), the codec's own byte
string, masks, payloads of residuals tile by tile. The codec's own string stands alone: its latents are those of its space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.bytestring import multi_grid, single_grid
from stac_latent.bytestring.framing import BOUNDED, SEVERAL_GRIDS, frame, pack_mask, unframe, unpack_mask
from stac_latent.bytestring.grid_families import GridPart, families, parts_of
from stac_latent.bytestring.options import CompressOptions
from stac_latent.chain import Chain
from stac_latent.errors import CorruptDataError, FieldError, VerificationError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.field.rate_target import Target
from stac_latent.field.validity import apply_nodata, valid_mask
from stac_latent.stages.base import FRACTION_BITS
from stac_latent.stages.lin.pyramid import field_tiles
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.residual.payload import BITSTREAM, decode_residual, encode_residual
from stac_latent.stages.transform.normalise import LIMIT, Normalise
from stac_latent.system.limits import MAX_PIXELS
from stac_latent.system.threads import each

if TYPE_CHECKING:
    from stac_latent.spec import Band

__all__ = ["base_step", "codable", "decode", "encode", "refuse_far_values", "typical"]

Mask = npt.NDArray[np.bool_]
_COARSER = 8.0
"""Steps of the base in steps of the residual, at least: finer ones cost more than they save; see ``docs/error_bound.md``."""


def encode(chain: Chain, field: Array | Sequence[Array], options: CompressOptions) -> bytes:
    """Encode a field, every pixel within a bound.

    Parameters
    ----------
    chain
        Any chain that ends with an entropy coder.
    field
        ``(band, y, x)`` in the bands' stored unit, or a list of the fields of several grids. Infinite values come back
        as they are.
    options
        The bound, and a target of the chain's own part. Without one, the chain's own step, or a coarser one where the bound is
        wide.

    Raises
    ------
    CodecError
        If the bound makes no sense.
    FieldError
        If the field does not fit the codec, or holds values that the bands' type cannot.
    OptionError
        If an option has no meaning beside a bound.

    Examples
    --------
    >>> from stac_latent import open_codec
    >>> codec = open_codec("lin", bands=["B04"])
    >>> x = np.arange(4096, dtype=np.uint16).reshape(1, 64, 64)
    >>> y = codec.decompress(codec.compress(x, error_bound=2))
    >>> int(abs(x.astype(int) - y).max()) <= 2
    True
    """
    bound = ErrorBound.of(0 if options.error_bound is None else options.error_bound, chain.bands)
    if chain.bands[0].is_complex:
        raise FieldError(
            f"codec {chain.name!r} takes {chain.bands[0].data_type}, and an error bound is one of real numbers: leave error_bound out, as the "
            "codec is lossless"
        )
    several = isinstance(field, list | tuple)
    parts = _parts(chain, several)
    fields: list[Array] = [np.asarray(x) for x in (field if several else (field,))]
    own = options.target if options.target.given else chain.target
    fits = len(parts) == len(fields) and all(
        x.ndim == 3 and len(x) == len(p.bands) for x, p in zip(fields, parts, strict=True)
    )  # what does not is refused by the codec
    if not own.given and fits:
        found = {
            b.name: m
            for x, p in zip(fields, parts, strict=True)
            for b, m in zip(p.bands, typical(x, valid_mask(x, p.bands)), strict=True)
        }
        step = base_step(chain, bound, [found[b.name] for b in chain.bands])
        own = Target(step=step)
    masks: list[Mask | None] = []
    if several:
        base = multi_grid.encode(chain, fields, replace(options, target=own))
        decoded = multi_grid.decode(chain, base)
    else:
        options.refuse("a field within a bound", "mask")
        known = codable(fields[0], None, chain) if fits else None
        base = single_grid.encode(chain, fields[0], replace(options, target=own, mask=known))
        decoded = [single_grid.unpack(chain, base)[0]]
    head: dict[str, Any] = {"base": len(base), "masks": [], "residual": BITSTREAM, "sizes": []}
    body = []
    for x, part, known in zip(fields, parts, decoded, strict=True):
        mask = valid_mask(x, part.bands)
        masks.append(mask)
        bits = pack_mask(mask)
        payloads = _code(x, known, mask, _of_part(bound, chain, part), part.bands)
        head["masks"].append([0 if mask is None else len(mask), len(bits)])
        head["sizes"].append(list(x.shape))
        sizes = np.array([len(p) for p in payloads], "<u4").tobytes()
        body += [bits, sizes, *payloads]
    data = frame(BOUNDED, head, b"".join([base, *body]))
    back = decode(chain, data)
    _verify(chain, back if several else [back], fields, masks, bound, parts)
    return data


def decode(chain: Chain, data: bytes) -> Any:
    """Inverse of :func:`encode`: ``(band, y, x)``, or a list of them.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed, or of another space than the codec's.
    """
    head, body = unframe(data, BOUNDED, "compress(error_bound=)")
    base, shapes, masks = _read_head(head, body)
    several = base[:4] == SEVERAL_GRIDS
    parts = _parts(chain, several)
    decoded = multi_grid.decode(chain, base) if several else [single_grid.unpack(chain, base)[0]]
    if [list(x.shape) for x in decoded] != shapes or len(parts) != len(shapes):
        raise CorruptDataError(
            f"the base decodes to {[x.shape for x in decoded]}; the residual is of {shapes}: they do not belong together"
        )
    at, out = len(base), []
    for x, part, (rows, size) in zip(decoded, parts, masks, strict=True):
        mask = unpack_mask(body[at : at + size], rows, (x.shape[1], x.shape[2]))
        at += size
        windows = list(field_tiles(*x.shape[1:]))
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


def codable(field: Array, valid: Mask | None, chain: Chain) -> Mask | None:
    """Pixels that the chain itself can take, of those that are valid: finite, and not too far from its mean.

    What it leaves out is coded by the residual alone. None for all.
    """
    mask = valid if valid is not None else valid_mask(field, chain.bands)
    first = chain.stages[0]
    if field.dtype.kind != "f" and not isinstance(first, Normalise):
        return mask
    some = np.isfinite(field) if field.dtype.kind == "f" else np.ones(field.shape, bool)
    if isinstance(first, Normalise):
        with np.errstate(all="ignore"):
            far = (
                np.abs(field.astype(np.float64) - first.mean[:, None, None])
                * (2.0**FRACTION_BITS / first.unit)[:, None, None]
            )
        some &= far < LIMIT - 1
    if some.all():
        return mask
    return some if mask is None else some & mask


def refuse_far_values(field: Array, valid: Mask | None, chain: Chain) -> None:
    """Refuse a field whose valid pixels the chain would clip: too far from the mean that is part of it.

    Raises
    ------
    FieldError
        Names the first such band, its values and the ways out.
    """
    first = chain.stages[0]
    if not isinstance(first, Normalise) or field.dtype.kind not in "iuf":
        return
    if field.dtype.kind != "f":
        info = np.iinfo(field.dtype)
        reach = np.maximum(info.max - first.mean, first.mean - info.min) * 2.0**FRACTION_BITS / first.unit
        if (reach < LIMIT - 1).all():
            return
    known = codable(field, valid, chain)
    if known is None or known is valid:
        return
    lost = ~np.broadcast_to(known, field.shape) & np.broadcast_to(
        True if valid is None else valid, field.shape
    )
    if field.dtype.kind == "f":
        lost &= np.isfinite(field)
    for i, band in enumerate(chain.bands):
        if lost[i].any():
            far = field[i][lost[i]]
            raise FieldError(
                f"band {band.name!r} holds {far.min():g} to {far.max():g}, more than {LIMIT * 2.0**-FRACTION_BITS * first.unit[i]:g} from "
                f"{first.mean[i]:g}, the mean that is part of codec {chain.name!r}: such pixels would be clipped. Keep them exactly "
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


def base_step(chain: Chain, bound: ErrorBound, magnitudes: Sequence[float]) -> float | None:
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
    first, tail = chain.stages[0], chain.tail
    if not isinstance(first, Normalise) or not isinstance(tail, Lin) or tail.searches:
        return None
    whole = all(np.dtype(b.data_type).kind in "iu" for b in chain.bands)
    wide = _COARSER * (2 * bound.typical(magnitudes) + whole)
    own = tail.step * float(np.median(first.unit))
    return min(wide, own * 2.0**12) if wide > own else None


def _parts(chain: Chain, several: bool) -> Sequence[Chain | GridPart]:
    return parts_of(chain, families(chain)) if several else [chain]


def _of_part(bound: ErrorBound, chain: Chain, part: Chain | GridPart) -> ErrorBound:
    """Bounds of the bands of one grid."""
    names = [b.name for b in chain.bands]
    return bound.some([names.index(b.name) for b in part.bands])


def _code(x: Array, known: Array, mask: Mask | None, bound: ErrorBound, bands: Sequence[Band]) -> list[bytes]:
    def one(window: Any) -> bytes:
        (y0, y1), (x0, x1) = window
        valid = None if mask is None else mask[:, y0:y1, x0:x1]
        return encode_residual(x[:, y0:y1, x0:x1], known[:, y0:y1, x0:x1], valid, bound, bands)

    return each(one, list(field_tiles(*x.shape[1:])))


def _restore(x: Array, mask: Mask | None, payloads: Sequence[bytes], bands: Sequence[Band]) -> None:
    """Apply residuals to a decoded field, in place."""

    def one(task: tuple[Any, bytes]) -> None:
        ((y0, y1), (x0, x1)), payload = task
        valid = None if mask is None else mask[:, y0:y1, x0:x1]
        x[:, y0:y1, x0:x1] = decode_residual(payload, np.ascontiguousarray(x[:, y0:y1, x0:x1]), valid, bands)

    each(one, list(zip(field_tiles(*x.shape[1:]), payloads, strict=True)))


def _verify(
    chain: Chain,
    decoded: Sequence[Array],
    fields: Sequence[Array],
    masks: Sequence[Mask | None],
    bound: ErrorBound,
    parts: Sequence[Chain | GridPart],
) -> None:
    for x, y, mask, part in zip(fields, decoded, masks, parts, strict=True):
        valid = np.ones((1, *x.shape[1:]), bool) if mask is None else mask
        broken = _of_part(bound, chain, part).broken(x, y, valid, part.bands)
        if broken is not None:
            raise VerificationError(
                f"the bytes were decoded again and do not keep the error bound: {broken}; the machine is at fault"
            )


def _read_head(head: dict[str, Any], body: bytes) -> tuple[bytes, list[list[int]], list[list[int]]]:
    base, shapes, masks = head["base"], head["sizes"], head["masks"]
    pairs = zip(masks, shapes, strict=True)
    sound = all(0 < s[1] * s[2] <= MAX_PIXELS and m[0] in (0, 1, s[0]) for m, s in pairs)
    if not sound or base > len(body):
        raise CorruptDataError(f"the header declares {head}, which cannot be")
    return body[:base], shapes, masks
