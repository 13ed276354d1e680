"""Encode a strip of cells, chunk by chunk, by a few threads."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.bytestring.bounded import codable, refuse_far_values
from stac_latent.bytestring.single_grid import over
from stac_latent.chain import Codec
from stac_latent.cube.grid.tiling import padded_shape, tiles, with_margin
from stac_latent.cube.keyframe.encode import ReferenceCoder, whole_cells
from stac_latent.cube.write.verify import Source, Sums, pixel_sum
from stac_latent.spec import Grid, Window
from stac_latent.store.zarr.group import chunk_cells

__all__ = ["encode_strip"]

_WORKERS = 4


def encode_strip(
    source: Source,
    codec: Codec,
    cells: Window,
    out: Array,
    reference: ReferenceCoder | None = None,
    *,
    every: bool = False,
) -> tuple[npt.NDArray[np.bool_], dict[Window, Sums]]:
    """Encode a strip of cells into ``out`` ``(channel, y, x)``; ``every``: pixels that the chain cannot take come later.

    Returns
    -------
    valid, sums
        Valid pixels of the strip ``(1 or band, y, x)``; checksums of what was read and made of each chunk, by its cells.
    """
    stride = codec.stride
    window = tuple((lo * s, hi * s) for (lo, hi), s in zip(cells, stride, strict=True))
    wide = with_margin((window[0], window[1]), codec.overlap, padded_shape(source.grid))
    field, valid = source.read(wide)
    if not every:
        refuse_far_values(field, valid, codec)
    known = codable(field, valid, codec) if every else valid
    whole = valid if known is None else known
    lead = (window[0][0] - wide[0][0], window[1][0] - wide[1][0])
    inner, _ = chunk_cells(codec)

    def one(block: Window) -> tuple[Window, Sums]:
        (y0, y1), (x0, x1) = block
        pixels = tuple((lo * s + m, hi * s + m) for (lo, hi), s, m in zip(block, stride, lead, strict=True))
        (a0, a1), (b0, b1) = with_margin(
            (pixels[0], pixels[1]), codec.overlap, (field.shape[1], field.shape[2])
        )
        symbols = codec.encode(field[:, a0:a1, b0:b1], mask=whole[:, a0:a1, b0:b1], upto="symbols")
        ty, tx = (pixels[0][0] - a0) // stride[0], (pixels[1][0] - b0) // stride[1]
        symbols = np.ascontiguousarray(symbols[:, ty : ty + y1 - y0, tx : tx + x1 - x0])
        (cy, _), (cx, _) = cells
        inside = _pixels_inside(source.grid, ((cy + y0, cy + y1), (cx + x0, cx + x1)))
        tail: Any = codec.tail
        if reference is not None:
            own = whole[:, pixels[0][0] : pixels[0][1], pixels[1][0] : pixels[1][1]]
            place = (cy + y0) // inner, (cx + x0) // inner
            coder = over(codec, whole[:, a0:a1, b0:b1], inside)
            symbols, payload = reference.code(coder, symbols, place, whole_cells(own, stride))
            tail.keep(symbols, payload)
        elif getattr(tail, "aim", None) is not None:  # searched here, where valid pixels are known
            tail.keep(symbols, over(codec, whole[:, a0:a1, b0:b1], inside).entropy_encode(symbols))
        out[:, y0:y1, x0:x1] = symbols
        inner_pixels = np.s_[:, pixels[0][0] : pixels[0][1], pixels[1][0] : pixels[1][1]]
        read = pixel_sum(field[inner_pixels], valid[inner_pixels])
        return ((cy + y0, cy + y1), (cx + x0, cx + x1)), Sums(read, zlib.crc32(symbols.data))

    with ThreadPoolExecutor(max_workers=min(_WORKERS, os.cpu_count() or 1)) as pool:
        sums = dict(pool.map(one, tiles((out.shape[1], out.shape[2]), inner)))
    h, w = window[0][1] - window[0][0], window[1][1] - window[1][0]
    return valid[:, lead[0] : lead[0] + h, lead[1] : lead[1] + w], sums


def _pixels_inside(grid: Grid, cells: Window) -> int:
    """Pixels of the scene under these cells; the others pad it."""
    spans = zip(cells, grid.stride, grid.lead, grid.shape, strict=True)
    h, w = (min(n, hi * s - p) - max(0, lo * s - p) for (lo, hi), s, p, n in spans)
    return h * w
