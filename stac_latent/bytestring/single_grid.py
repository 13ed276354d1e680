"""One self-contained byte string for one field: header, validity mask, entropy-coded symbols.

Layout, little endian: ``SLC1``, uint32 header length, uint32 CRC-32 of all that follows, JSON header, mask (zlib of
packed bits), payload. Catalogues store payloads in Zarr instead; this form serves messages, tests and comparisons with
other codecs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from stac_latent.bytestring.framing import HEAD_SIZE, ONE_GRID, pack_mask, seal, unpack_mask, unseal
from stac_latent.errors import CodecError, CorruptDataError, FieldError
from stac_latent.field.rate_target import Target
from stac_latent.field.validity import apply_nodata, valid_mask
from stac_latent.spec import Band
from stac_latent.system.limits import MAX_PIXELS, check_bytes

if TYPE_CHECKING:
    from stac_latent.aliases import Array
    from stac_latent.chain import Codec

__all__ = ["aim", "compress", "decompress", "over", "unpack"]

_DIGEST = len("sha256:") + 16
_ALSO = ("band_weights", "roi", "roi_weight", "mask", "error_bound")
"""Options of :meth:`Codec.compress` that are no targets."""
"""Characters of the space that a byte string carries: enough to tell spaces apart, few enough not to weigh on small tiles."""


def compress(
    codec: Codec,
    field: Array,
    *,
    band_weights: Sequence[float] | None = None,
    roi: npt.NDArray[np.bool_] | None = None,
    roi_weight: float = 0.1,
    mask: npt.NDArray[np.bool_] | None = None,
    **target: Any,
) -> bytes:
    """Encode a field of any height and width; pixels without data are kept.

    Parameters
    ----------
    codec
        A chain that ends with an entropy coder.
    field
        ``(band, y, x)`` in the bands' stored unit.
    band_weights
        Factor on the precision of each band: 2 halves its error against the others'.
    roi
        Region of interest ``(y, x)``: outside it squared errors weigh ``roi_weight``, and bits move inside.
    roi_weight
        More than 0, at most 1.
    mask
        Pixels to code ``(1 or band, y, x)``; default: those of :func:`valid_mask`.
    **target
        At most one of ``psnr`` [dB], ``max_bits_per_pixel`` (and band), ``max_error`` [stored unit], ``quality`` (0 to
        100) and ``step`` [stored unit]; searched on coded bytes and decoded pixels. Without one, the codec's own step.

    Raises
    ------
    FieldError
        If bands or dtype do not fit the codec, or the field is empty.
    """
    if field.ndim != 3 or 0 in field.shape:
        raise FieldError(f"compress takes (band, y, x) with at least one pixel; got shape {field.shape}")
    if max(codec.steps) > 1 or len(codec.parts) > 1:
        raise FieldError(
            f"codec {codec.name!r} codes bands on several native grids; give compress() a list of fields, one for each grid"
        )
    if field.shape[1] * field.shape[2] > MAX_PIXELS:
        raise FieldError(
            f"compress takes at most {MAX_PIXELS} pixels a band; got {field.shape[1:]}: code it in parts, or as a catalogue"
        )
    if len(field) != len(codec.bands):
        names = ", ".join(b.name for b in codec.bands)
        raise FieldError(
            f"codec {codec.name!r} codes {len(codec.bands)} bands ({names}); got shape {field.shape}"
        )
    mask = valid_mask(field, codec.bands) if mask is None or mask.all() else mask
    pad = [(0, -n % s) for n, s in zip(field.shape[1:], codec.stride, strict=True)]
    clean = field
    if mask is not None and field.dtype.kind == "f":
        clean = np.where(np.isfinite(field) | mask, field, field.dtype.type(0))
    inner = mask
    if any(p[1] for p in pad):
        clean = np.pad(clean, [(0, 0), *pad], mode="edge")
        inner = None if mask is None else np.pad(mask, [(0, 0), *pad], mode="edge")
    bits = pack_mask(mask)
    head = json.dumps(
        {
            "space": codec.space[:_DIGEST],
            "shape": list(field.shape),
            "mask": [0 if mask is None else len(mask), len(bits)],
        },
        separators=(",", ":"),
    ).encode()
    counted = mask
    if any(p[1] for p in pad):  # what was added round the field does not count in its quality
        counted = np.pad(np.ones((1, *field.shape[1:]), bool) if mask is None else mask, [(0, 0), *pad])
    weights = None
    if roi is not None:
        weights = np.pad(_roi_weights(roi, roi_weight, field.shape), pad, mode="edge")
    goal = Target.of(target, "compress()", also=_ALSO)
    overhead = HEAD_SIZE + len(head) + len(bits)
    aimed = aim(codec, goal, weights, band_weights, overhead=overhead, samples=field.size)
    payload = over(aimed, counted).encode(clean, mask=inner)
    return seal(ONE_GRID, head, bits + payload)


def aim(
    codec: Codec,
    goal: Target,
    weights: Array | None = None,
    gains: Sequence[float] | None = None,
    bands: Sequence[Band] | None = None,
    *,
    overhead: int = 0,
    samples: int | None = None,
) -> Codec:
    """The codec, coding towards a target; what it writes is of the same space. See :func:`compress`.

    ``bands`` tell the peaks that PSNR refers to, where they know better than the codec's. A rate counts ``overhead`` bytes beside the
    payload, and refers to ``samples`` (pixels times bands), or else to those that are coded.

    Raises
    ------
    CodecError
        If the codec has a fixed rate, or the target makes no sense.
    """
    if not goal.given and weights is None and gains is None:
        return codec
    offer = getattr(codec.tail, "aimed", None)
    if offer is None:
        raise CodecError(
            f"codec {codec.name!r} codes at the one rate that is part of its space; for {goal} take a chain that ends with "
            "'lin', or open it with another step="
        )
    factors = None if gains is None else np.asarray(gains, np.float32)
    if factors is not None and (factors.shape != (len(codec.bands),) or not (factors > 0).all()):
        raise CodecError(
            f"band_weights must be {len(codec.bands)} positive numbers, one for each band; got {list(gains or ())}"
        )
    tail = offer(codec, bands or codec.bands, goal, weights, factors, overhead=overhead, samples=samples)
    return replace(codec, stages=(*codec.stages[:-1], tail))


def own_rate(codec: Codec) -> Codec:
    """The codec without the target that :func:`aim` gave it."""
    if getattr(codec.tail, "aim", None) is None:
        return codec
    tail: Any = codec.tail
    return replace(codec, stages=(*codec.stages[:-1], tail.own_rate()))


def target_of(codec: Codec) -> Target:
    """What the codec codes towards; empty where that is its own step."""
    found = getattr(codec.tail, "aim", None)
    return Target() if found is None else cast("Target", found.target)


def over(codec: Codec, valid: Array | None, pixels: int | None = None) -> Codec:
    """The codec, measuring over valid pixels ``(1 or band, y, x)`` where it codes towards a target.

    ``pixels`` of a chunk of a scene are those that its rate refers to.
    """
    if valid is None or getattr(codec.tail, "aim", None) is None:
        return codec
    tail: Any = codec.tail
    return replace(codec, stages=(*codec.stages[:-1], tail.over(valid, pixels)))


def _roi_weights(roi: npt.NDArray[np.bool_], weight: float, shape: tuple[int, ...]) -> Array:
    if roi.shape != shape[1:]:
        raise FieldError(f"roi has shape {roi.shape}; the field has {shape[1:]} pixels")
    if not 0 < weight <= 1:
        raise CodecError(f"roi_weight must be more than 0 and at most 1; got {weight:g}")
    return np.where(roi, np.float32(1), np.float32(weight))


def decompress(codec: Codec, data: bytes) -> Array:
    """Inverse of :func:`compress`: ``(band, y, x)`` in the bands' stored type; errors as :func:`unpack`."""
    return apply_nodata(*unpack(codec, data), codec.bands)


def unpack(codec: Codec, data: bytes) -> tuple[Array, npt.NDArray[np.bool_] | None]:
    """Decoded pixels before nodata takes its place, and the mask of valid ones; see :func:`valid_mask`.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed, or of another space than the codec's.
    """
    head, body = _read_head(data)
    if len(head["space"]) < _DIGEST or not codec.space.startswith(head["space"]):
        raise CorruptDataError(
            f"the bytes are of space {head['space']}, codec {codec.name!r} is {codec.space}; open the codec of that space"
        )
    (bands, h, w), (rows, n_bits) = head["shape"], head["mask"]
    if (
        bands != len(codec.bands)
        or min(h, w) < 1
        or h * w > MAX_PIXELS
        or rows not in (0, 1, bands)
        or n_bits < 0
    ):
        raise CorruptDataError(
            f"the header declares shape {head['shape']} and mask {head['mask']}, which cannot be"
        )
    check_bytes((bands, h, w), 4, "the header")
    bits, payload = body[:n_bits], body[n_bits:]
    mask = unpack_mask(bits, rows, (h, w))
    field = codec.decode(payload)[:, :h, :w]
    if field.shape != (bands, h, w):
        raise CorruptDataError(f"the payload decodes to {field.shape}; {(bands, h, w)} was declared")
    return np.ascontiguousarray(field), mask


def _read_head(data: bytes) -> tuple[dict[str, Any], bytes]:
    head, body = unseal(data, ONE_GRID, "compress()")
    try:
        numbers = [*head["shape"], *head["mask"]]
        sound = len(head["shape"]) == 3 and all(type(n) is int for n in numbers) and len(numbers) == 5
        space = head["space"]
    except (KeyError, TypeError) as exc:
        raise CorruptDataError(f"the header is not readable: {exc}") from exc
    if not (sound and isinstance(space, str)):
        raise CorruptDataError(
            f"the header declares shape {head['shape']}, mask {head['mask']}, space {space!r}; expected 3 and 2 whole numbers and a digest"
        )
    return head, body
