"""Verify a store by a cold decode: symbols, mask and distortion against the raw files.

The truth is a :class:`stac_latent.cube.raw.files.RawFiles`, which shares no code with what ``encode`` reads through. Checksums
of the pixels that were encoded are held against it, chunk by chunk, so that a fault in reading is an error, not a perfect figure.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array, Progress
from stac_latent.codec.bundle import load_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import replace_known
from stac_latent.cube.grid.tiling import padded_shape, tiles, with_margin
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.monitor import QualityMonitor
from stac_latent.errors import VerificationError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.quality.distortion import Distortion
from stac_latent.spec import Band, Grid
from stac_latent.store.zarr.group import ChunkSizes
from stac_latent.window import Window

__all__ = [
    "STRIP",
    "Progress",
    "Source",
    "Sums",
    "WrittenGrid",
    "measure",
    "measurements",
    "pixel_sum",
    "verify_store",
]

STRIP = 2
"""Rows of chunks that are read from the source at once."""


class Source(Protocol):
    """Pixels on a grid of whole cells; see :class:`~stac_latent.cube.raw.source.ItemSource` and ``RawFiles``."""

    grid: Grid
    decoded: tuple[Band, ...]
    """Bands of the decoded field, for the asset's fields."""

    def read(self, window: Window) -> tuple[Array, npt.NDArray[np.bool_]]:
        """``(field, valid)`` of a window of the padded grid."""
        ...


class Sums(NamedTuple):
    """Checksums of one chunk as it was encoded."""

    pixels: int
    """Of what was read; see :func:`pixel_sum`."""
    symbols: int
    """CRC-32 of the symbols."""


def pixel_sum(field: Array, valid: npt.NDArray[np.bool_]) -> int:
    """CRC-32 of pixels ``(band, y, x)`` and of which of them are valid, whatever type holds them."""
    every = np.broadcast_to(valid, field.shape)
    wide = np.complex128 if field.dtype.kind == "c" else np.float64
    values = np.where(every, field, 0).astype(wide) + 0.0  # no negative zero
    return zlib.crc32(np.packbits(every).data, zlib.crc32(np.ascontiguousarray(values).data))


@dataclass(frozen=True)
class WrittenGrid:
    """One lattice as it was written, and what its verification is held against.

    Parameters
    ----------
    truth
        The raw files, by a path of their own.
    source
        What was encoded; read again only where it was not the truth.
    codec, ref
        What it was encoded with (one of a codec's parts where it has several), and the store.
    bundle
        Folder of the codec's bundle as it was written.
    sums
        Checksums of each chunk that was encoded, by its cells.
    sizes
        How the store is cut.
    bound
        What every valid pixel has to keep.
    only
        Chunks that have to keep the bound, by their numbers along y and x; None: all.
    """

    truth: Source
    source: Source
    codec: Codec
    ref: LatentRef
    bundle: Path
    sums: Mapping[Window, Sums]
    sizes: ChunkSizes
    bound: ErrorBound | None = None
    only: Collection[tuple[int, int]] | None = None

    def bound_of(self, cells: Window) -> ErrorBound | None:
        """What the pixels of a chunk have to keep."""
        in_bound = self.only is None or self.sizes.place(cells) in self.only
        return self.bound if in_bound else None


def verify_store(
    written: WrittenGrid, monitor: QualityMonitor | None = None, progress: Progress | None = None
) -> Distortion:
    """Decode a store cold, with a codec opened afresh from its bundle, and measure it against the raw files.

    Parameters
    ----------
    written
        The store.
    monitor
        Judges each decoded chunk.
    progress
        Called after each strip.

    Returns
    -------
    Distortion
        Over native samples: larger pixels, repeated on the grid, count once.

    Raises
    ------
    VerificationError
        If the pixels that were encoded are not those of the files, if symbols or valid pixels differ from what was
        encoded, or if a pixel breaks the bound.
    """
    codec, ref, sums = written.codec, written.ref, written.sums
    fresh = load_bundle(written.bundle, space=codec.space)
    replace_known(fresh)  # the store's coder, too, is that of the bundle
    spec, reader = ref.spec, LatentReader(ref, fresh)
    distortion = Distortion(written.truth.decoded, codec.native_pixels)
    exact = spec.bitstream is None or codec.exact_symbols
    rows, columns = written.sizes.inner
    strips = list(tiles(written.truth.grid.cells, (STRIP * rows, STRIP * columns)))
    for i, strip in enumerate(strips):
        pixels = _Truth(written.truth, strip)
        for cells in [c for c in sums if _covers(strip, c)]:
            pixels.check_read(written.source, cells, sums[cells].pixels)
            if spec.kind == "codec":
                symbols = pixels.measure(reader, cells, distortion, written.bound_of(cells), monitor)
            else:
                symbols = reader.read_symbols(cells)
            if exact and zlib.crc32(np.ascontiguousarray(symbols).data) != sums[cells].symbols:
                raise VerificationError(
                    f"cells {cells} of {ref.href} do not decode to the symbols that were written; nothing was "
                    "catalogued. The disk, or a library's coder, is at fault: encode again"
                )
        if progress:
            progress("verify", i + 1, len(strips))
    return distortion


def measure(
    truth: Source,
    reader: LatentReader,
    parts: Sequence[Window],
    progress: Progress | None = None,
    bound: ErrorBound | None = None,
) -> Distortion:
    """Decode chunks of a lattice and measure them against the raw files.

    Parameters
    ----------
    truth
        Pixels on the grid of the lattice.
    reader
        The lattice.
    parts
        Cells of the chunks.
    progress
        Called after each chunk.
    bound
        What every valid pixel has to keep.

    Raises
    ------
    VerificationError
        If the stored mask differs from the files', a pixel breaks the bound, or the cells of an embedding are not those
        that its codec makes of the files.
    CorruptDataError
        If stored bytes do not decode.
    """
    distortion = Distortion(truth.decoded, reader.codec.native_pixels)
    for i, cells in enumerate(parts):
        if reader.spec.kind == "codec":
            _Truth(truth, cells).measure(reader, cells, distortion, bound)
        else:
            distortion.count += _embed_again(truth, reader, cells)
        if progress:
            progress("measure", i + 1, len(parts))
    return distortion


def _embed_again(truth: Source, reader: LatentReader, cells: Window) -> int:
    """Pixels under some cells, whose embedding was made anew and is the stored one."""
    codec, stride = reader.codec, truth.grid.stride
    window = cells.scaled(stride)
    wide = with_margin(window, codec.overlap, padded_shape(truth.grid))
    field, valid = truth.read(wide)
    symbols = codec.encode(field, mask=valid, upto="symbols")
    cut = [
        slice((lo - a) // s, (hi - a) // s) for (lo, hi), (a, _), s in zip(window, wide, stride, strict=True)
    ]
    if not codec.agrees(symbols[:, cut[0], cut[1]], reader.read_symbols(cells)):
        raise VerificationError(
            f"cells {cells} of {reader.ref.href} are not the embedding that codec {codec.name!r} makes of the raw files; the "
            "source or the latent was changed: encode the item again"
        )
    return int(valid.any(axis=0).sum())


def measurements(distortion: Distortion) -> dict[str, float | Sequence[float]]:
    """Fields of an asset: ``latent:psnr`` [dB], ``latent:max_error`` [stored unit], ``latent:sam`` [degrees].

    ``latent:band_psnr`` and ``latent:band_max_error`` are those of each band; there is an angle for several bands only,
    and nothing at all without a valid pixel.
    """
    if distortion.max_error is None:
        return {}
    several: dict[str, Sequence[float]] = {
        "latent:band_psnr": distortion.band_psnr,
        "latent:band_max_error": distortion.band_max_error,
    }
    figures: dict[str, float | Sequence[float] | None] = {
        "latent:psnr": distortion.psnr,
        "latent:max_error": distortion.max_error,
        "latent:sam": distortion.sam,
        **(several if len(distortion.bands) > 1 else {}),
    }
    return {k: v for k, v in figures.items() if v is not None}


def _covers(outer: Window, part: Window) -> bool:
    return all(a <= lo and hi <= b for (a, b), (lo, hi) in zip(outer, part, strict=True))


class _Truth:
    """Raw pixels of a strip of cells, read once, to hold its chunks against."""

    def __init__(self, source: Source, strip: Window) -> None:
        self.grid = source.grid
        window = strip.scaled(self.grid.stride)
        self.origin = (window.y.start, window.x.start)
        self.field, self.valid = source.read(window)

    def check_read(self, source: Source, cells: Window, expected: int) -> None:
        """Refuse a chunk whose pixels were not read as the files have them."""
        rows, columns = (
            slice(lo * s - o, hi * s - o)
            for (lo, hi), s, o in zip(cells, self.grid.stride, self.origin, strict=True)
        )
        field, valid = self.field[:, rows, columns], self.valid[:, rows, columns]
        if pixel_sum(field, valid) == expected:
            return
        window = cells.scaled(self.grid.stride)
        read, had = source.read(window)
        every, theirs = np.broadcast_to(valid, field.shape), np.broadcast_to(had, field.shape)
        wrong = (every != theirs) | (every & theirs & (field != read))
        if wrong.any():
            place = tuple(int(v[0]) for v in np.nonzero(wrong))
            in_file, in_source = (
                f"{values[place]:g}" if there[place] else "no data"
                for values, there in ((field, every), (read, theirs))
            )
            top, left = self.grid.lead
            raise VerificationError(
                f"{int(wrong.sum())} pixels were not read as the raw files have them: band {source.decoded[place[0]].name!r} holds "
                f"{in_file} in row {window.y.start + place[1] - top}, column {window.x.start + place[2] - left}, and {in_source} was encoded; nothing was "
                "catalogued. The files changed meanwhile, or this is a fault of stac-latent: please report the item"
            )

    def measure(
        self,
        reader: LatentReader,
        cells: Window,
        distortion: Distortion,
        bound: ErrorBound | None = None,
        monitor: QualityMonitor | None = None,
    ) -> Array:
        """Add one chunk to the distortion; returns its decoded symbols. Every cell holds a pixel of the scene."""
        pads = self.grid.lead
        window = Window.of(
            (max(0, lo * s - p), min(n, hi * s - p))
            for (lo, hi), s, p, n in zip(cells, self.grid.stride, pads, self.grid.shape, strict=True)
        )
        cut = [
            slice(lo + p - o, hi + p - o) for (lo, hi), p, o in zip(window, pads, self.origin, strict=True)
        ]
        truth, valid = self.field[:, cut[0], cut[1]], self.valid[:, cut[0], cut[1]]
        stored = reader.arrays.read_mask(window)
        if not (
            valid.all() if stored is None else bool((np.broadcast_to(valid, stored.shape) == stored).all())
        ):
            raise VerificationError(
                f"the stored mask of pixels {window} differs from the raw files; nothing was catalogued"
            )
        field, symbols = reader.decode_block(window)
        if bound is not None:
            broken = bound.broken(truth, field, valid, distortion.bands)
            if broken is not None:
                raise VerificationError(
                    f"pixels {window} of {reader.ref.href}, decoded from the stored bytes, do not keep the error bound: {broken}; "
                    "nothing was catalogued. The disk, or a library's coder, is at fault: encode again"
                )
            if truth.dtype.kind == "f":  # infinite ones came back as they are
                valid = valid & np.isfinite(truth)
        sse, count = distortion.sse.copy(), distortion.count.copy()
        distortion.add(truth, field, valid)
        if monitor is not None:
            pair = (truth, field)
            monitor.add(reader, cells, symbols, pair, valid, distortion.sse - sse, distortion.count - count)
        return symbols
