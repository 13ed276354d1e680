"""Verify a store by a cold decode: symbols, mask and distortion against the source."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stac_latent.bound import ErrorBound
from stac_latent.bundle import load_bundle
from stac_latent.checks.metrics import Distortion
from stac_latent.codec import Array, Codec
from stac_latent.cube.contract import LatentRef
from stac_latent.cube.decode import LatentReader
from stac_latent.cube.tiling import tiles
from stac_latent.cube.watch import Watch
from stac_latent.errors import VerificationError
from stac_latent.registry import replace_known
from stac_latent.spec import Band, Grid, Window
from stac_latent.store.zarr import chunk_cells

__all__ = ["STRIP", "Progress", "Source", "measure_again", "measurements", "verify_store"]

STRIP = 2
"""Rows of chunks that are read from the source at once."""

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


def verify_store(
    source: Source,
    codec: Codec,
    ref: LatentRef,
    bundle: Path,
    sums: Mapping[Window, int],
    progress: Progress | None = None,
    bound: ErrorBound | None = None,
    watch: Watch | None = None,
    only: Collection[tuple[int, int]] | None = None,
) -> Distortion:
    """Decode a store cold, with a codec opened afresh from its bundle, and measure it against the source.

    Parameters
    ----------
    source
        What was encoded; read once more.
    codec, ref
        What it was encoded with (one of a codec's parts where it has several), and the store.
    bundle
        Folder of the codec's bundle as it was written.
    sums
        CRC-32 of the symbols of each chunk that was encoded, by its cells.
    progress
        Called after each strip.
    bound
        What every valid pixel has to keep.
    watch
        Looks at each decoded chunk.
    only
        Chunks that have to keep the bound, by their numbers along y and x; None: all.

    Returns
    -------
    Distortion
        Over native samples: larger pixels, repeated on the grid, count once.

    Raises
    ------
    VerificationError
        If symbols or valid pixels differ from what was encoded, or a pixel breaks the bound.
    """
    fresh = load_bundle(bundle, space=codec.space)
    replace_known(fresh)  # the store's coder, too, is that of the bundle
    spec, reader = ref.spec, LatentReader(ref, fresh)
    distortion = Distortion(source.decoded, codec.steps)
    exact = spec.bitstream is None or getattr(codec.tail, "lossless", False)
    inner, _ = chunk_cells(codec)
    strips = list(tiles(source.grid.cells, STRIP * inner))
    for i, strip in enumerate(strips):
        truth = _Truth(source, strip) if spec.kind == "codec" else None
        for cells in [c for c in sums if _covers(strip, c)]:
            symbols = (
                reader.read_symbols(cells)
                if truth is None
                else truth.measure(
                    reader, cells, distortion, bound if _has(only, cells, inner) else None, watch
                )
            )
            if exact and zlib.crc32(np.ascontiguousarray(symbols).data) != sums[cells]:
                raise VerificationError(
                    f"cells {cells} of {ref.href} do not decode to the symbols that were written; nothing was "
                    "catalogued. The disk, or a library's coder, is at fault: encode again"
                )
        if progress:
            progress("verify", i + 1, len(strips))
    return distortion


def _has(only: Collection[tuple[int, int]] | None, cells: Window, inner: int) -> bool:
    return only is None or (cells[0][0] // inner, cells[1][0] // inner) in only


def measure_again(
    source: Source,
    reader: LatentReader,
    chunk: int,
    progress: Progress | None = None,
    bound: ErrorBound | None = None,
) -> Distortion:
    """Decode a lattice of a store chunk by chunk and measure it against its source, as when it was written.

    Parameters
    ----------
    source
        Pixels on the grid of the lattice.
    reader
        The lattice.
    chunk
        Cells along a stored chunk.
    progress
        Called after each strip.
    bound
        What every valid pixel has to keep.

    Raises
    ------
    VerificationError
        If the stored mask differs from the source's, or a pixel breaks the bound.
    CorruptDataError
        If stored bytes do not decode.
    """
    distortion = Distortion(source.decoded, reader.codec.steps)
    strips = list(tiles(source.grid.cells, STRIP * chunk))
    for i, strip in enumerate(strips):
        truth = _Truth(source, strip)
        (y0, y1), (x0, x1) = strip
        for (a, b), (c, d) in tiles((y1 - y0, x1 - x0), chunk):
            truth.measure(reader, ((y0 + a, y0 + b), (x0 + c, x0 + d)), distortion, bound)
        if progress:
            progress("measure", i + 1, len(strips))
    return distortion


def measurements(distortion: Distortion) -> dict[str, float | list[float]]:
    """Fields of an asset: ``latent:psnr`` [dB], ``latent:max_error`` [stored unit], ``latent:sam`` [degrees].

    ``latent:band_psnr`` and ``latent:band_max_error`` are those of each band; there is an angle for several bands only,
    and nothing at all without a valid pixel.
    """
    if distortion.max_error is None:
        return {}
    several = {"latent:band_psnr": distortion.band_psnr, "latent:band_max_error": distortion.band_max_error}
    found = {
        "latent:psnr": distortion.psnr,
        "latent:max_error": distortion.max_error,
        "latent:sam": distortion.sam,
        **(several if len(distortion.bands) > 1 else {}),
    }
    return {k: v for k, v in found.items() if v is not None}


def _covers(outer: Window, part: Window) -> bool:
    return all(a <= lo and hi <= b for (a, b), (lo, hi) in zip(outer, part, strict=True))


class _Truth:
    """Source pixels of a strip of cells, read once, to measure its chunks against."""

    def __init__(self, source: Source, strip: Window) -> None:
        self.grid = source.grid
        self.origin = tuple(lo * s for (lo, _), s in zip(strip, self.grid.stride, strict=True))
        ends = [hi * s for (_, hi), s in zip(strip, self.grid.stride, strict=True)]
        self.field, self.valid = source.read(((self.origin[0], ends[0]), (self.origin[1], ends[1])))

    def measure(
        self,
        reader: LatentReader,
        cells: Window,
        distortion: Distortion,
        bound: ErrorBound | None = None,
        watch: Watch | None = None,
    ) -> Array:
        """Add one chunk to the distortion; returns its decoded symbols. Every cell holds a pixel of the scene."""
        pads = self.grid.lead
        spans = [
            (max(0, lo * s - p), min(n, hi * s - p))
            for (lo, hi), s, p, n in zip(cells, self.grid.stride, pads, self.grid.shape, strict=True)
        ]
        window: Window = (spans[0], spans[1])
        cut = [
            slice(lo + p - o, hi + p - o) for (lo, hi), p, o in zip(window, pads, self.origin, strict=True)
        ]
        truth, valid = self.field[:, cut[0], cut[1]], self.valid[:, cut[0], cut[1]]
        stored = reader.arrays.read_mask(window)
        if not (
            valid.all() if stored is None else bool((np.broadcast_to(valid, stored.shape) == stored).all())
        ):
            raise VerificationError(
                f"the stored mask of pixels {window} differs from the source; nothing was catalogued"
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
        if watch is not None:
            pair = (truth, field)
            watch.see(reader, cells, symbols, pair, valid, distortion.sse - sse, distortion.count - count)
        return symbols
