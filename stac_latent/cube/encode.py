"""Encode one source into one latent store, shard by shard in bounded memory, and verify it by a cold decode."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stac_latent.bundle import load_bundle
from stac_latent.checks.metrics import Distortion
from stac_latent.codec import Array, Codec
from stac_latent.cube.contract import LatentRef
from stac_latent.cube.decode import LatentReader
from stac_latent.cube.tiling import padded_shape, tiles, with_margin
from stac_latent.errors import FieldError, VerificationError
from stac_latent.spec import Band, Grid, Spec, Window
from stac_latent.store.io import tree_size
from stac_latent.store.zarr import LatentArrays, Payload, chunk_cells, create

__all__ = ["Encoded", "Progress", "Source", "asset_spec", "encode_source", "verify_store"]

Progress = Callable[[str, int, int], None]
"""Called with a label, the steps done and their number."""


class Source(Protocol):
    """Pixels on a grid of whole cells; see :class:`~stac_latent.cube.source.ItemSource`."""

    grid: Grid
    decoded: tuple[Band, ...]
    """Bands of the decoded field, for the asset's fields."""

    def read(self, window: Window) -> tuple[Array, npt.NDArray[np.bool_]]:
        """``(field, valid)`` of a window of the padded grid."""
        ...


@dataclass(frozen=True)
class Encoded:
    """What was written, and how good it is."""

    spec: Spec
    grid: Grid
    """Grid that the asset's fields carry: pixels for a codec, cells for an embedding."""
    size: int
    """Bytes of the store, metadata and mask included."""
    fields: Mapping[str, Any]
    """``latent:`` measurements; empty for an embedding, but for its rate."""


def asset_spec(codec: Codec, payload: Payload, bands: tuple[Band, ...]) -> Spec:
    """The codec's contract with the bitstream of the payload and the scales of the source's bands."""
    return replace(codec.spec, bitstream=codec.bitstream if payload == "coded" else None, bands=bands)


def encode_source(
    source: Source, codec: Codec, path: Path, payload: Payload, bundle: Path, progress: Progress | None = None
) -> Encoded:
    """Write a latent group at ``path`` and verify it.

    Parameters
    ----------
    source
        Pixels; read twice, once to encode and once to verify.
    codec
        What to encode with.
    path
        New folder; the caller renames it into place.
    payload
        ``coded`` or ``plain``; see :func:`stac_latent.store.zarr.create`.
    bundle
        Folder of the codec's bundle as it was written: the verification opens a fresh codec from there.
    progress
        Called after each shard.

    Returns
    -------
    Encoded
        With PSNR, largest error and bpppb, measured on what a cold decode of the stored bytes gives.

    Raises
    ------
    FieldError
        If no pixel is valid.
    VerificationError
        If the stored bytes do not decode to what was encoded.
    """
    spec, grid = asset_spec(codec, payload, source.decoded), source.grid
    attributes = {**spec.to_fields(), **grid.to_fields()}
    arrays = create(path, codec, grid, payload, 1, attributes)
    _, shard = chunk_cells(codec)
    shards = list(tiles(grid.cells, shard))
    sums, valid_pixels = [], 0
    for i, cells in enumerate(shards):
        symbols, valid = _encode_shard(source, codec, cells)
        arrays.latent[:, slice(*cells[0]), slice(*cells[1])] = symbols
        arrays = _write_mask(arrays, codec, grid, cells, valid)
        sums.append(zlib.crc32(symbols.data))
        valid_pixels += int(valid.any(axis=0).sum())
        del symbols, valid
        if progress:
            progress("encode", i + 1, len(shards))
    if not valid_pixels:
        raise FieldError("no pixel of the source is valid: every one is nodata; there is nothing to encode")
    size = tree_size(path)
    fields = verify_store(source, codec, spec, path, bundle, sums, progress)
    pixels = grid.shape[0] * grid.shape[1] * len(codec.bands)
    return Encoded(
        spec, _asset_grid(spec, grid), size, {"latent:bits_per_pixel": size * 8 / pixels, **fields}
    )


def _asset_grid(spec: Spec, grid: Grid) -> Grid:
    return grid.cell_grid() if spec.kind == "embedding" else grid


def _encode_shard(source: Source, codec: Codec, cells: Window) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Symbols ``(channel, y, x)`` of a shard and the valid pixels of it, ``(1 or band, y, x)``."""
    stride, spec = codec.stride, codec.spec
    window = tuple((lo * s, hi * s) for (lo, hi), s in zip(cells, stride, strict=True))
    wide = with_margin((window[0], window[1]), codec.overlap, padded_shape(source.grid))
    field, valid = source.read(wide)
    origin = (wide[0][0], wide[1][0])
    out = np.empty((spec.dimensions, cells[0][1] - cells[0][0], cells[1][1] - cells[1][0]), spec.data_type)
    inner, _ = chunk_cells(codec)

    def one(block: Window) -> None:
        (y0, y1), (x0, x1) = block
        start = [lo * s + w[0] - o for lo, s, w, o in zip((y0, x0), stride, window, origin, strict=True)]
        stop = [hi * s + w[0] - o for hi, s, w, o in zip((y1, x1), stride, window, origin, strict=True)]
        (a0, a1), (b0, b1) = with_margin(
            ((start[0], stop[0]), (start[1], stop[1])), codec.overlap, (field.shape[1], field.shape[2])
        )
        symbols = codec.encode(field[:, a0:a1, b0:b1], mask=valid[:, a0:a1, b0:b1], upto="symbols")
        ty, tx = (start[0] - a0) // stride[0], (start[1] - b0) // stride[1]
        out[:, y0:y1, x0:x1] = symbols[:, ty : ty + y1 - y0, tx : tx + x1 - x0]

    blocks = list(tiles((out.shape[1], out.shape[2]), inner))
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(one, blocks))
    my, mx = window[0][0] - origin[0], window[1][0] - origin[1]
    h, w = window[0][1] - window[0][0], window[1][1] - window[1][0]
    return out, valid[:, my : my + h, mx : mx + w]


def _write_mask(
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
    top, _, left, _ = grid.padding
    y0, x0 = cy0 * sy - top, cx0 * sx - left
    ya, yb = max(0, y0), min(grid.shape[0], cy1 * sy - top)
    xa, xb = max(0, x0), min(grid.shape[1], cx1 * sx - left)
    piece = valid[:, ya - y0 : yb - y0, xa - x0 : xb - x0].astype(np.uint8)
    if arrays.mask is not None and not piece.all():
        arrays.mask[:, ya:yb, xa:xb] = np.broadcast_to(piece, (arrays.mask.shape[0], *piece.shape[1:]))
    return arrays


def verify_store(
    source: Source,
    codec: Codec,
    spec: Spec,
    path: Path,
    bundle: Path,
    sums: list[int],
    progress: Progress | None = None,
) -> dict[str, float]:
    """Decode a store cold, with a codec opened afresh from its bundle, and measure it against the source.

    Returns
    -------
    dict
        ``latent:psnr`` [dB], ``latent:max_error`` [stored unit], ``latent:sam`` [degrees, several bands].

    Raises
    ------
    VerificationError
        If symbols or valid pixels differ from what was encoded.
    """
    fresh = load_bundle(bundle, space=codec.space)
    ref = LatentRef("new item", path.name, str(path), spec, _asset_grid(spec, source.grid))
    reader = LatentReader(ref, fresh)
    distortion = Distortion(codec.bands)
    _, shard = chunk_cells(codec)
    shards = list(tiles(source.grid.cells, shard))
    for i, (cells, crc) in enumerate(zip(shards, sums, strict=True)):
        exact = spec.bitstream is None or getattr(codec.tail, "lossless", False)
        if exact and zlib.crc32(np.ascontiguousarray(reader.read_symbols(cells)).data) != crc:
            raise VerificationError(
                f"cells {cells} of {path} do not decode to the symbols that were written; nothing was catalogued. "
                "The disk, or a library's coder, is at fault: encode again"
            )
        if spec.kind == "codec":
            _measure(source, reader, cells, distortion)
        if progress:
            progress("verify", i + 1, len(shards))
    found = {
        "latent:psnr": distortion.psnr,
        "latent:max_error": distortion.max_error,
        "latent:sam": distortion.sam,
    }
    return {k: v for k, v in found.items() if v is not None}


def _measure(source: Source, reader: LatentReader, cells: Window, distortion: Distortion) -> None:
    grid = source.grid
    offsets = (grid.padding[0], grid.padding[2])
    bounds = []
    for (lo, hi), s, pad, n in zip(cells, grid.stride, offsets, grid.shape, strict=True):
        bounds.append((max(0, lo * s - pad), min(n, hi * s - pad)))
    for (ya, yb), (xa, xb) in tiles((bounds[0][1] - bounds[0][0], bounds[1][1] - bounds[1][0]), 1024):
        window = ((bounds[0][0] + ya, bounds[0][0] + yb), (bounds[1][0] + xa, bounds[1][0] + xb))
        padded = tuple((lo + p, hi + p) for (lo, hi), p in zip(window, offsets, strict=True))
        truth, valid = source.read((padded[0], padded[1]))
        stored = reader.arrays.read_mask(window)
        same = valid.all() if stored is None else bool((np.broadcast_to(valid, stored.shape) == stored).all())
        if not same:
            raise VerificationError(
                f"the stored mask of pixels {window} differs from the source; nothing was catalogued"
            )
        distortion.add(truth, reader.read_field(window), valid)
