"""Encode one source into one latent store, shard by shard in bounded memory, and verify it by a cold decode."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.codec import Array, Codec
from stac_latent.container import over
from stac_latent.cube.contract import LatentRef
from stac_latent.cube.reference import open_key_frame
from stac_latent.cube.reference_coder import ReferenceCoder, relative_href, whole_cells
from stac_latent.cube.tiling import padded_shape, tiles, with_margin
from stac_latent.cube.verify import STRIP, Progress, Source, verify_store
from stac_latent.errors import FieldError, VerificationError
from stac_latent.secure import Encrypt, Key, context_of
from stac_latent.spec import Band, Grid, Spec, Window
from stac_latent.store.io import tree_size
from stac_latent.store.layout import layout_fields
from stac_latent.store.sealed import write_manifest
from stac_latent.store.zarr import LatentArrays, Payload, chunk_cells, create, finish

__all__ = ["Encoded", "asset_spec", "encode_source"]

_WORKERS = 4


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
    reference: LatentRef | None = None
    """The key frame, where any chunk was coded against it."""


def asset_spec(codec: Codec, payload: Payload, bands: tuple[Band, ...]) -> Spec:
    """The codec's contract with the bitstream of the payload and the scales of the source's bands."""
    return replace(codec.spec, bitstream=codec.bitstream if payload == "coded" else None, bands=bands)


def encode_source(
    source: Source,
    codec: Codec,
    path: Path,
    payload: Payload,
    bundle: Path,
    progress: Progress | None = None,
    reference: LatentRef | None = None,
    key: Key | None = None,
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
    reference
        Key frame of the same cells and space, against which chunks are coded where that takes fewer bytes.

    key
        Encrypts the chunks, under a data key of their own.

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
    where = grid.cell_grid() if spec.kind == "embedding" else grid
    seal = None if key is None else Encrypt.new(key, context_of(spec, where))
    sealed = {} if seal is None else seal.fields()
    arrays = create(path, codec, grid, payload, 1, {**spec.to_fields(), **grid.to_fields(), **sealed}, seal)
    inner, shard = chunk_cells(codec)
    coder = None
    if reference is not None:
        counts = (-(-grid.cells[0] // inner), -(-grid.cells[1] // inner))
        coder = ReferenceCoder(open_key_frame(reference, grid, codec), counts)
    sums: dict[Window, int] = {}
    valid_pixels = 0
    shards = list(tiles(grid.cells, shard))
    for i, cells in enumerate(shards):
        (y0, y1), (x0, x1) = cells
        symbols = np.empty((spec.dimensions, y1 - y0, x1 - x0), spec.data_type)
        for top in range(y0, y1, STRIP * inner):
            strip = ((top, min(top + STRIP * inner, y1)), (x0, x1))
            part = symbols[:, strip[0][0] - y0 : strip[0][1] - y0]
            valid, crcs = _encode_strip(source, codec, strip, part, coder)
            arrays = _write_mask(arrays, codec, grid, strip, valid)
            valid_pixels += int(valid.any(axis=0).sum())
            sums |= crcs
        arrays.latent[:, y0:y1, x0:x1] = symbols
        del symbols, part, valid
        if progress:
            progress("encode", i + 1, len(shards))
    if not valid_pixels:
        raise FieldError("no pixel of the source is valid: every one is nodata; there is nothing to encode")
    used = reference if coder is not None and coder.used else None
    if coder is not None and used is not None:
        if not coder.pays:
            shutil.rmtree(path)
            return encode_source(source, codec, path, payload, bundle, progress)
        coder.write(path, relative_href(used.href, path))
    finish(path)
    if seal is not None:
        write_manifest(path, seal)
    size = tree_size(path)
    ref = LatentRef("new item", path.name, str(path), spec, where, reference=used)
    if seal is not None:
        ref = replace(ref, sealed=(seal.key_id, seal.wrapped))
    fields = verify_store(source, codec, ref, bundle, sums, progress)
    pixels = grid.shape[0] * grid.shape[1] * len(codec.bands)
    about = {"latent:bits_per_pixel": size * 8 / pixels, **layout_fields(path, arrays.mask, seal)}
    return Encoded(spec, where, size, {**about, **fields, **sealed}, used)


def _encode_strip(
    source: Source, codec: Codec, cells: Window, out: Array, reference: ReferenceCoder | None = None
) -> tuple[npt.NDArray[np.bool_], dict[Window, int]]:
    """Encode a strip of cells into ``out`` ``(channel, y, x)``.

    Returns
    -------
    valid, sums
        Valid pixels of the strip ``(1 or band, y, x)``; CRC-32 of the symbols of each chunk, by its cells.
    """
    stride = codec.stride
    window = tuple((lo * s, hi * s) for (lo, hi), s in zip(cells, stride, strict=True))
    wide = with_margin((window[0], window[1]), codec.overlap, padded_shape(source.grid))
    field, valid = source.read(wide)
    lead = (window[0][0] - wide[0][0], window[1][0] - wide[1][0])
    inner, _ = chunk_cells(codec)

    def one(block: Window) -> tuple[Window, int]:
        (y0, y1), (x0, x1) = block
        pixels = tuple((lo * s + m, hi * s + m) for (lo, hi), s, m in zip(block, stride, lead, strict=True))
        (a0, a1), (b0, b1) = with_margin(
            (pixels[0], pixels[1]), codec.overlap, (field.shape[1], field.shape[2])
        )
        symbols = codec.encode(field[:, a0:a1, b0:b1], mask=valid[:, a0:a1, b0:b1], upto="symbols")
        ty, tx = (pixels[0][0] - a0) // stride[0], (pixels[1][0] - b0) // stride[1]
        symbols = np.ascontiguousarray(symbols[:, ty : ty + y1 - y0, tx : tx + x1 - x0])
        (cy, _), (cx, _) = cells
        inside = _pixels_inside(source.grid, ((cy + y0, cy + y1), (cx + x0, cx + x1)))
        tail: Any = codec.tail
        if reference is not None:
            own = valid[:, pixels[0][0] : pixels[0][1], pixels[1][0] : pixels[1][1]]
            place = (cy + y0) // inner, (cx + x0) // inner
            coder = over(codec, valid[:, a0:a1, b0:b1], inside)
            symbols, payload = reference.code(coder, symbols, place, whole_cells(own, stride))
            tail.keep(symbols, payload)
        elif getattr(tail, "aim", None) is not None:  # searched here, where valid pixels are known
            tail.keep(symbols, over(codec, valid[:, a0:a1, b0:b1], inside).entropy_encode(symbols))
        out[:, y0:y1, x0:x1] = symbols
        return ((cy + y0, cy + y1), (cx + x0, cx + x1)), zlib.crc32(symbols.data)

    with ThreadPoolExecutor(max_workers=min(_WORKERS, os.cpu_count() or 1)) as pool:
        sums = dict(pool.map(one, tiles((out.shape[1], out.shape[2]), inner)))
    h, w = window[0][1] - window[0][0], window[1][1] - window[1][0]
    return valid[:, lead[0] : lead[0] + h, lead[1] : lead[1] + w], sums


def _pixels_inside(grid: Grid, cells: Window) -> int:
    """Pixels of the scene under these cells; the others pad it."""
    spans = zip(cells, grid.stride, grid.lead, grid.shape, strict=True)
    h, w = (min(n, hi * s - p) - max(0, lo * s - p) for (lo, hi), s, p, n in spans)
    return h * w


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
    top, left = grid.lead
    y0, x0 = cy0 * sy - top, cx0 * sx - left
    ya, yb = max(0, y0), min(grid.shape[0], cy1 * sy - top)
    xa, xb = max(0, x0), min(grid.shape[1], cx1 * sx - left)
    piece = valid[:, ya - y0 : yb - y0, xa - x0 : xb - x0].astype(np.uint8)
    if arrays.mask is not None and not piece.all():
        arrays.mask[:, ya:yb, xa:xb] = np.broadcast_to(piece, (arrays.mask.shape[0], *piece.shape[1:]))
    return arrays
