"""Dates coded against a key frame: what is stored is ``latent - gain * reference``, in the cells of one lattice.

The reference is the decoded latent of another Item of the same space and grid, chunk by chunk. Each chunk has a gain
for each level of the wavelet, in 1/16; where all are zero (clouds, a changed scene) it stands alone and the reference is
never fetched. Key frames have no reference themselves: a date costs at most one more fetch. ::

    difference      (channel, y, x)             what is left of the date, in the place of ``latent``
    reference_gain  (level, tile_y, tile_x)     uint8, 16ths; level 0 is the low band, then details, coarsest first
    reference_crc   (tile_y, tile_x)            uint32, CRC-32 of the reference's payload: a key frame that was
                                                written anew is refused and never gives wrong pixels
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.cube.keyframe.gains import LEVELS, LOST, predict
from stac_latent.cube.open_store import open_store
from stac_latent.cube.ref import KeyFrameLink, LatentRef
from stac_latent.errors import CatalogError, CodecError, CorruptDataError, GridError
from stac_latent.net.fetch import Sign
from stac_latent.spec import Grid
from stac_latent.stages.lin.pyramid import Pyramid
from stac_latent.stages.lin.stage import Lin
from stac_latent.store.zarr.group import LatentArrays
from stac_latent.system.links import absolute, shown
from stac_latent.system.threads import LruCache
from stac_latent.window import Window

__all__ = [
    "KeyFrame",
    "Reference",
    "lin_stage",
    "open_key_frame",
    "open_reference",
    "same_cells",
    "with_key_frame",
]

_KEPT = 64 << 20
"""Bytes of decoded key frames that a process keeps."""


def lin_stage(codec: Codec) -> Lin:
    """The last stage of a codec whose latents can be predicted; others are refused.

    Raises
    ------
    CodecError
        If its chain is not of the family ``lin``.
    """
    if not isinstance(codec.tail, Lin) or not any(isinstance(s, Pyramid) for s in codec.stages):
        chain = " > ".join(s.name for s in codec.stages)
        raise CodecError(
            f"codec {codec.name!r} ({chain}) cannot code dates against a key frame: that takes a chain of "
            "pyramid and lin, as in 's2-10m-4b'; choose such a codec, or leave references out"
        )
    return codec.tail


def same_cells(a: Grid, b: Grid) -> bool:
    """Whether two grids have the same cells, so that their chunks lie on each other."""
    alike = (a.crs, a.shape, a.stride, a.padding) == (b.crs, b.shape, b.stride, b.padding)
    return alike and np.allclose(a.transform, b.transform, rtol=0, atol=1e-6 * abs(a.transform[0]))


class KeyFrame:
    """Decoded latents of a key frame, chunk by chunk.

    Parameters
    ----------
    arrays
        Its store, opened for reading.
    codec
        Codec of its space.
    name
        What errors call it.
    """

    def __init__(self, arrays: LatentArrays, codec: Codec, name: str) -> None:
        lin_stage(codec)
        if arrays.payloads is None:
            raise CodecError(f"{name} is not entropy coded; a key frame is, with payload='coded'")
        if arrays.reference is not None or arrays.is_difference:
            raise CorruptDataError(
                f"{name} is coded against a key frame and is none itself; references are never chained: encode again"
            )
        self.payloads, self.codec, self.name = arrays.payloads, codec, name
        self._where = str(arrays.latent.store_path)
        self._chunks = arrays.latent.chunks[1:]

    def check_chunks(self, size: tuple[int, int]) -> None:
        """Refuse a date that is cut into chunks of another size.

        Raises
        ------
        GridError
            Names both.
        """
        if self._chunks != size:
            raise GridError(
                f"the key frame {self.name} is cut into chunks of {self._chunks} cells, the date of {size}: encode the key frame again, or "
                "the date alone"
            )

    def chunk(self, y: int, x: int, crc: int | None = None) -> tuple[Array, int]:
        """Latents ``(channel, y, x)`` of a chunk and the CRC-32 of its payload; nobody may change them.

        Raises
        ------
        CorruptDataError
            If the payload has not the checksum ``crc``.
        """
        if crc is not None and (kept := _cache.find((self._where, y, x, crc))) is not None:
            return kept, crc
        payload = self.payloads.read(y, x)
        actual = zlib.crc32(payload)
        if crc is not None and actual != crc:
            raise CorruptDataError(
                f"chunk ({y}, {x}) of the reference {self.name} is not what this date was coded against (CRC-32 {actual:08x}, "
                f"expected {crc:08x}): the key frame was written anew; encode the dates that refer to it again, or restore it"
            )
        latent = self.codec.entropy_decode(payload)
        latent.flags.writeable = False
        _cache.get((self._where, y, x, actual), lambda: latent)
        return latent, actual


@dataclass(frozen=True)
class Reference:
    """How a date was coded against its key frame.

    Parameters
    ----------
    key
        The key frame.
    gains
        uint8 ``(LEVELS, tile_y, tile_x)``.
    crcs
        uint32 ``(tile_y, tile_x)``.
    chunk
        Cells of a chunk, along y and x.
    """

    key: KeyFrame
    gains: Array
    crcs: Array
    chunk: tuple[int, int]

    def refers(self, y: int, x: int) -> bool:
        """Whether a chunk needs the key frame."""
        return bool(self.gains[:, y, x].any())

    def restore(self, latent: Array, y: int, x: int) -> Array:
        """Latents of a chunk from what is stored of it, ``(channel, y, x)``."""
        if not self.refers(y, x):
            return latent
        key_latent, _ = self.key.chunk(y, x, int(self.crcs[y, x]))
        if key_latent.shape != latent.shape:
            raise CorruptDataError(
                f"chunk ({y}, {x}) of the reference {self.key.name} is {key_latent.shape}; the date has {latent.shape}"
            )
        return latent + predict(key_latent, self.gains[:, y, x])

    def restore_window(self, latent: Array, cells: Window) -> Array:
        """Latents of a window of cells from what is stored of them, ``(channel, y, x)``."""
        out = latent
        for y, x, inside, part in _chunks(cells, self.chunk):
            if not self.refers(y, x):
                continue
            if out is latent:
                out = latent.copy()
            key_latent, _ = self.key.chunk(y, x, int(self.crcs[y, x]))
            out[:, inside[0], inside[1]] += predict(key_latent[:, part[0], part[1]], self.gains[:, y, x])
        return out


def open_key_frame(
    key: KeyFrameLink | LatentRef, grid: Grid, codec: Codec, sign: Sign | None = None
) -> KeyFrame:
    """Open a key frame for dates of a grid and codec.

    Raises
    ------
    CatalogError
        If there is none where the link points, or it is of another space.
    GridError
        If it lies on other cells.
    """
    ref = key.open(sign) if isinstance(key, KeyFrameLink) else key
    name = f"{ref.item_id!r} ({shown(ref.href)})"
    if ref.spec.space != codec.space:
        raise CatalogError(
            f"the key frame {name} is of space {ref.spec.space}, the date of {codec.space}: a date is coded against latents "
            "of its own space; encode both with one codec"
        )
    if not same_cells(ref.grid, grid):
        raise GridError(
            f"the key frame {name} and the date do not have the same cells: {_describe(ref.grid)}, and {_describe(grid)}; "
            "encode the date alone, or against a key frame of its own grid"
        )
    return KeyFrame(open_store(ref, codec), codec, name)


def with_key_frame(ref: LatentRef, href: str | None) -> LatentRef:
    """Reference to a store that was opened without its Item, with the key frame that its attributes name.

    Parameters
    ----------
    ref
        The store.
    href
        Attribute ``latent:reference_store``: address of the key frame's store, as seen from this one; None for none.
    """
    if href is None:
        return ref
    target = absolute(href, f"{ref.href.rstrip('/')}/zarr.json")
    return replace(ref, reference=replace(ref, item_id=href, href=target))


def open_reference(ref: LatentRef, arrays: LatentArrays, codec: Codec) -> Reference:
    """How an asset was coded against its key frame.

    Raises
    ------
    CorruptDataError
        If the store and the Item do not agree on whether there is a key frame, or the gains do not fit the chunks.
    """
    if ref.reference is None or arrays.reference is None or not arrays.is_difference:
        says, lacks = ("store", "item") if ref.reference is None else ("item", "store")
        raise CorruptDataError(
            f"asset {ref.asset!r} of item {ref.item_id!r}: the {says} says that it was coded against a key frame, and the {lacks} "
            "does not say how; the field latent:reference_item, the link latent:reference and the arrays difference, "
            "reference_gain and reference_crc belong together: restore them, or encode the item again"
        )
    chunk = (arrays.latent.chunks[1], arrays.latent.chunks[2])
    counts = tuple(-(-n // c) for n, c in zip(ref.grid.cells, chunk, strict=True))
    gain, crc = arrays.reference
    if (gain.shape, crc.shape) != (
        (LEVELS, *counts),
        counts,
    ) or f"{gain.dtype} {crc.dtype}" != "uint8 uint32":
        raise CorruptDataError(
            f"{shown(ref.href)}: reference_gain is {gain.dtype} {gain.shape} and reference_crc {crc.dtype} {crc.shape}; expected uint8 "
            f"{(LEVELS, *counts)} and uint32 {counts}"
        )
    gains, crcs = (arrays.read_all(a) for a in (gain, crc))
    if (gains == LOST).any():
        raise CorruptDataError(
            f"{shown(ref.href)}: a chunk of reference_gain is missing, without which differences would pass for latents; fetch the item "
            "again, or encode it again with --overwrite (overwrite=True)"
        )
    return Reference(open_key_frame(ref.reference, ref.grid, codec, ref.sign), gains, crcs, chunk)


def _describe(grid: Grid) -> str:
    return f"{grid.crs}, transform {grid.transform}, {grid.shape} pixels with padding {grid.padding}"


def _chunks(
    cells: Window, chunk: tuple[int, int]
) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """Chunks of a window: their numbers, where they lie in the window, and which of their cells do."""
    (y0, y1), (x0, x1) = cells
    h, w = chunk
    for y in range(y0 // h, (y1 - 1) // h + 1):
        for x in range(x0 // w, (x1 - 1) // w + 1):
            a, b = (max(y * h, y0), min((y + 1) * h, y1)), (max(x * w, x0), min((x + 1) * w, x1))
            yield (
                y,
                x,
                (slice(a[0] - y0, a[1] - y0), slice(b[0] - x0, b[1] - x0)),
                (slice(a[0] - y * h, a[1] - y * h), slice(b[0] - x * w, b[1] - x * w)),
            )


_cache: LruCache[Array] = LruCache(_KEPT, lambda latent: latent.nbytes)
"""Decoded chunks of key frames that were used last."""
