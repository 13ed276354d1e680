"""One self-contained byte string for one field: header, validity mask, entropy-coded symbols.

Layout: ``SLC1``, checksum and header (see :mod:`stac_latent.bytestring.framing`), mask (zlib of packed bits), payload. Catalogues store payloads in Zarr instead; this form serves messages, tests and comparisons with
other codecs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.bytestring.framing import ONE_GRID, frame, pack_mask, unframe, unpack_mask
from stac_latent.bytestring.options import CompressOptions
from stac_latent.chain import Chain
from stac_latent.errors import CodecError, CorruptDataError, FieldError
from stac_latent.field.validity import apply_nodata, valid_mask
from stac_latent.system.limits import MAX_PIXELS, check_bytes

__all__ = ["decode", "encode", "unpack"]


def encode(chain: Chain, field: Array, options: CompressOptions) -> bytes:
    """Encode a field of any height and width; pixels without data are kept.

    Parameters
    ----------
    chain
        A chain that ends with an entropy coder.
    field
        ``(band, y, x)`` in the bands' stored unit.
    options
        Targets are searched on coded bytes and decoded pixels.

    Raises
    ------
    FieldError
        If bands or dtype do not fit the codec, or the field is empty.
    CodecError
        If no step reaches the target.
    """
    if field.ndim != 3 or 0 in field.shape:
        raise FieldError(f"compress takes (band, y, x) with at least one pixel; got shape {field.shape}")
    if max(chain.native_pixels) > 1 or len(chain.grid_chains) > 1:
        raise FieldError(
            f"codec {chain.name!r} codes bands on several native grids; give compress() a list of fields, one for each grid"
        )
    if field.shape[1] * field.shape[2] > MAX_PIXELS:
        raise FieldError(
            f"compress takes at most {MAX_PIXELS} pixels a band; got {field.shape[1:]}: code it in parts, or as a catalogue"
        )
    if len(field) != len(chain.bands):
        names = ", ".join(b.name for b in chain.bands)
        raise FieldError(
            f"codec {chain.name!r} codes {len(chain.bands)} bands ({names}); got shape {field.shape}"
        )
    mask = options.mask
    if mask is None or mask.all():
        mask = valid_mask(field, chain.bands)
    pad = [(0, -n % s) for n, s in zip(field.shape[1:], chain.stride, strict=True)]
    clean = field
    if mask is not None and field.dtype.kind == "f":
        clean = np.where(np.isfinite(field) | mask, field, field.dtype.type(0))
    inner = mask
    if any(p[1] for p in pad):
        clean = np.pad(clean, [(0, 0), *pad], mode="edge")
        inner = None if mask is None else np.pad(mask, [(0, 0), *pad], mode="edge")
    bits = pack_mask(mask)
    head = {
        "space": chain.space,
        "shape": list(field.shape),
        "mask": [0 if mask is None else len(mask), len(bits)],
    }
    counted = mask
    if any(p[1] for p in pad):  # what was added round the field does not count in its quality
        counted = np.pad(np.ones((1, *field.shape[1:]), bool) if mask is None else mask, [(0, 0), *pad])
    weights = None
    if options.roi is not None:
        weights = np.pad(_roi_weights(options.roi, options.roi_weight, field.shape), pad, mode="edge")
    aimed = chain.with_target(
        options.target,
        weights=weights,
        band_weights=options.band_weights,
        overhead=len(frame(ONE_GRID, head, bits)),
        samples=field.size,
    )
    payload = aimed.measured_over(counted).encode(clean, mask=inner)
    return frame(ONE_GRID, head, bits + payload)


def _roi_weights(roi: npt.NDArray[np.bool_], weight: float, shape: tuple[int, ...]) -> Array:
    if roi.shape != shape[1:]:
        raise FieldError(f"roi has shape {roi.shape}; the field has {shape[1:]} pixels")
    if not 0 < weight <= 1:
        raise CodecError(f"roi_weight must be more than 0 and at most 1; got {weight:g}")
    return np.where(roi, np.float32(1), np.float32(weight))


def decode(chain: Chain, data: bytes) -> Array:
    """Inverse of :func:`encode`: ``(band, y, x)`` in the bands' stored type; errors as :func:`unpack`."""
    return apply_nodata(*unpack(chain, data), chain.bands)


def unpack(chain: Chain, data: bytes) -> tuple[Array, npt.NDArray[np.bool_] | None]:
    """Decoded pixels before nodata takes its place, and the mask of valid ones; see :func:`valid_mask`.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed, or of another space than the codec's.
    """
    head, body = unframe(data, ONE_GRID, "compress()")
    if not chain.space.startswith(head["space"]):
        raise CorruptDataError(
            f"the bytes are of space {head['space']}, codec {chain.name!r} is {chain.space}; open the codec of that space"
        )
    (bands, h, w), (rows, n_bits) = head["shape"], head["mask"]
    if bands != len(chain.bands) or min(h, w) < 1 or h * w > MAX_PIXELS or rows not in (0, 1, bands):
        raise CorruptDataError(
            f"the header declares shape {head['shape']} and mask {head['mask']}, which cannot be"
        )
    check_bytes((bands, h, w), 4, "the header")
    bits, payload = body[:n_bits], body[n_bits:]
    mask = unpack_mask(bits, rows, (h, w))
    field = chain.decode(payload)[:, :h, :w]
    if field.shape != (bands, h, w):
        raise CorruptDataError(f"the payload decodes to {field.shape}; {(bands, h, w)} was declared")
    return np.ascontiguousarray(field), mask
