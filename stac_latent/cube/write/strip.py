"""Encode a strip of cells, chunk by chunk, by a few threads; store which of its pixels are valid."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.bytestring.bounded import codable, refuse_far_values
from stac_latent.codec.codec import Codec
from stac_latent.cube.grid.tiling import padded_shape, tiles, with_margin
from stac_latent.cube.keyframe.encode import ReferenceCoder, whole_cells
from stac_latent.cube.write.verify import Source, Sums, pixel_sum
from stac_latent.errors import VerificationError
from stac_latent.spec import Grid
from stac_latent.store.zarr.group import ChunkSizes, LatentArrays
from stac_latent.store.zarr.precoded import Precoded
from stac_latent.window import Window

__all__ = ["encode_strip", "write_mask"]

_WORKERS = 4


def encode_strip(
    source: Source,
    codec: Codec,
    cells: Window,
    out: Array,
    sizes: ChunkSizes,
    precoded: Precoded | None = None,
    reference: ReferenceCoder | None = None,
    *,
    defer_uncodable: bool = False,
) -> tuple[npt.NDArray[np.bool_], dict[Window, Sums]]:
    """Encode a strip of cells, chunk by chunk.

    Parameters
    ----------
    source
        Pixels.
    codec
        What to encode with; may code towards a target.
    cells
        The strip.
    out
        Where its symbols go, ``(channel, y, x)``.
    sizes
        How the store is cut.
    precoded
        Where payloads go that are found here, because valid pixels and the scene's rate are known here; None where symbols are
        stored as they are.
    reference
        Codes chunks against a key frame.
    defer_uncodable
        Leave pixels that the chain cannot represent to the residual; else they are refused.

    Returns
    -------
    valid, sums
        Valid pixels of the strip ``(1 or band, y, x)``; checksums of what was read and made of each chunk, by its cells.
    """
    stride = codec.stride
    window = cells.scaled(stride)
    wide = with_margin(window, codec.overlap, padded_shape(source.grid))
    field, valid = source.read(wide)
    if not defer_uncodable:
        refuse_far_values(field, valid, codec)
    mask = codable(field, valid, codec) if defer_uncodable else None
    coded = valid if mask is None else mask
    lead = (window.y.start - wide.y.start, window.x.start - wide.x.start)

    def one(block: Window) -> tuple[Window, Sums]:
        (y0, y1), (x0, x1) = block
        pixels = block.scaled(stride).shifted(lead)
        (a0, a1), (b0, b1) = with_margin(pixels, codec.overlap, (field.shape[1], field.shape[2]))
        symbols = codec.encode(field[:, a0:a1, b0:b1], mask=coded[:, a0:a1, b0:b1], upto="symbols")
        ty, tx = (pixels.y.start - a0) // stride[0], (pixels.x.start - b0) // stride[1]
        symbols = np.ascontiguousarray(symbols[:, ty : ty + y1 - y0, tx : tx + x1 - x0])
        placed = block.shifted((cells.y.start, cells.x.start))
        inside = _pixels_inside(source.grid, placed)
        if reference is not None:
            own = coded[:, *pixels.slices]
            place = sizes.place(placed)
            coder = codec.measured_over(coded[:, a0:a1, b0:b1], inside)
            symbols, payload = reference.code(coder, symbols, place, whole_cells(own, stride))
            if precoded is not None:
                precoded.put(symbols, payload)
        elif codec.searches and precoded is not None:
            precoded.put(symbols, codec.measured_over(coded[:, a0:a1, b0:b1], inside).entropy_encode(symbols))
        out[:, y0:y1, x0:x1] = symbols
        read = pixel_sum(field[:, *pixels.slices], valid[:, *pixels.slices])
        return placed, Sums(read, zlib.crc32(symbols.data))

    with ThreadPoolExecutor(max_workers=min(_WORKERS, os.cpu_count() or 1)) as pool:
        sums = dict(pool.map(one, tiles((out.shape[1], out.shape[2]), sizes.inner)))
    return valid[:, *window.counted_from(wide).slices], sums


def _pixels_inside(grid: Grid, cells: Window) -> int:
    """Pixels of the scene under these cells; the others pad it."""
    spans = zip(cells, grid.stride, grid.lead, grid.shape, strict=True)
    h, w = (min(n, hi * s - p) - max(0, lo * s - p) for (lo, hi), s, p, n in spans)
    return h * w


def write_mask(
    arrays: LatentArrays, codec: Codec, grid: Grid, cells: Window, valid: npt.NDArray[np.bool_]
) -> LatentArrays:
    """Store the validity of a shard; bands get masks of their own from the first shard on where they differ."""
    if valid.all():
        return arrays
    (cy0, cy1), (cx0, cx1) = cells
    sy, sx = codec.stride
    if arrays.valid is not None:
        share = valid.any(axis=0).reshape(cy1 - cy0, sy, cx1 - cx0, sx).mean(axis=(1, 3))
        percent = np.where(share > 0, np.maximum(1, np.floor(share * 100)), 0)
        arrays.valid[cy0:cy1, cx0:cx1] = percent.astype(np.uint8)
        return arrays
    if arrays.mask is None:
        raise VerificationError("the group has no mask array, but pixels without data are to be stored")
    if arrays.mask.shape[0] < len(valid):
        arrays = arrays.widen_mask(len(valid))
    top, left = grid.lead
    y0, x0 = cy0 * sy - top, cx0 * sx - left
    ya, yb = max(0, y0), min(grid.shape[0], cy1 * sy - top)
    xa, xb = max(0, x0), min(grid.shape[1], cx1 * sx - left)
    piece = valid[:, ya - y0 : yb - y0, xa - x0 : xb - x0].astype(np.uint8)
    if arrays.mask is not None and not piece.all():
        arrays.mask[:, ya:yb, xa:xb] = np.broadcast_to(piece, (arrays.mask.shape[0], *piece.shape[1:]))
    return arrays
