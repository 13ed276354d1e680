"""Read windows of one latent asset, as latents or decoded pixels; pure: no catalogue, no resampling."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import remember
from stac_latent.cube.keyframe.decode import Reference, open_reference
from stac_latent.cube.open_store import open_store
from stac_latent.cube.read.chunk_cache import aside, chunk, known, workers
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, CorruptDataError, FieldError, GridError
from stac_latent.field.validity import apply_nodata, mask_of
from stac_latent.spec import Grid, Spec
from stac_latent.stages.residual.payload import BITSTREAM, decode_residual
from stac_latent.store.zarr.group import LatentArrays
from stac_latent.store.zarr.residual import SPARSE, read_residual
from stac_latent.system.links import shown
from stac_latent.window import Span, Window, WindowLike

if TYPE_CHECKING:
    import pystac

__all__ = ["LatentReader"]

_AHEAD = 64
"""Chunks that are read from a server ahead of decoding."""


class LatentReader:
    """Windowed access to one latent asset.

    The codec and the store are opened when first needed. Instances may be shared between threads; they are not
    pickled: workers build their own from the :class:`~stac_latent.cube.ref.LatentRef`.

    Parameters
    ----------
    ref
        What to read.
    codec
        Decoder, if the caller already has it.
    """

    def __init__(self, ref: LatentRef, codec: Codec | None = None) -> None:
        self.ref = ref
        self._codec = codec
        self._lock = threading.Lock()
        self._token = object()
        self._subsets: dict[tuple[int, ...], tuple[int, ...]] = {}
        if codec is not None and codec.space != ref.spec.space:
            raise GridError(
                f"codec {codec.name!r} is {codec.space}, asset {ref.asset!r} needs {ref.spec.space}"
            )

    @classmethod
    def open(cls, item: pystac.Item, asset: str | None = None) -> Self:
        """Reader of a latent asset of an Item; see :meth:`LatentRef.from_item` for the errors."""
        return cls(LatentRef.from_item(item, asset))

    @property
    def spec(self) -> Spec:
        """The asset's contract."""
        return self.ref.spec

    @property
    def grid(self) -> Grid:
        """The asset's pixels and cells."""
        return self.ref.grid

    @cached_property
    def codec(self) -> Codec:
        """What decodes the asset, resolved on first use: of a codec of several lattices, the part of this one.

        Its bands have the types and the nodata of the asset's.
        """
        parts = self._whole.grid_chains
        if self.ref.part >= len(parts):
            raise CorruptDataError(
                f"asset {self.ref.asset!r} of item {self.ref.item_id!r} names {self.ref.part} group(s) besides the first; codec "
                f"{self._whole.name!r} has {len(parts) - 1}"
            )
        part = parts[self.ref.part]
        return part.for_bands(self.spec.bands) if self.spec.kind == "codec" else part

    @property
    def _whole(self) -> Codec:
        with self._lock:
            if self._codec is None:
                self._codec = self.ref.open_codec()
            return self._codec

    @cached_property
    def arrays(self) -> LatentArrays:
        """The stored arrays."""
        codec = None
        if self.spec.bitstream is not None:
            remember(self._whole)  # so that the zarr codec finds its space
            codec = self.codec
            if self.spec.bitstream != codec.bitstream:
                raise CatalogError(
                    f"asset {self.ref.asset!r} of item {self.ref.item_id!r} is of bitstream {self.spec.bitstream!r:.100}, and the codec of "
                    f"its space, {codec.name!r}, reads {codec.bitstream!r}: the item was changed, or a newer version wrote it; upgrade "
                    "stac-latent (pip install -U stac-latent)"
                )
        return open_store(self.ref, codec)

    @cached_property
    def bounded(self) -> bool:
        """Whether residuals keep an error bound of the decoded pixels.

        Raises
        ------
        CorruptDataError
            If the Item and the store do not agree on that, or the residuals are of a form that is not known here.
        """
        if self.spec.residual not in (None, BITSTREAM, BITSTREAM + SPARSE):
            raise CorruptDataError(
                f"asset {self.ref.asset!r} of item {self.ref.item_id!r} has residuals of the form {self.spec.residual!r}; this "
                f"version reads {BITSTREAM!r}: update stac-latent"
            )
        if (self.spec.residual is None) != (self.arrays.residual is None):
            says, lacks = ("store", "item") if self.spec.residual is None else ("item", "store")
            raise CorruptDataError(
                f"asset {self.ref.asset!r} of item {self.ref.item_id!r}: the {says} has residuals that keep an error bound, the "
                f"{lacks} has none; the field latent:residual and the array residual belong together: restore them, or encode again"
            )
        return self.spec.residual is not None

    @cached_property
    def reference(self) -> Reference | None:
        """How the latents were coded against those of a key frame; None where they stand alone."""
        if self.arrays.reference is None and self.ref.reference is None and not self.arrays.is_difference:
            return None
        return open_reference(self.ref, self.arrays, self.codec)

    @cached_property
    def reductions(self) -> int:
        """Times that the resolution can be halved without decoding all of it: 0 where pixels need residuals or a key frame."""
        alone = not self.bounded and self.reference is None and self.arrays.payloads is not None
        return self.codec.reductions if alone and self.codec.tiled else 0

    def reduced_chunk(self, place: tuple[int, int], reduction: int) -> Future[Array]:
        """Decoded pixels of one stored chunk at a fraction of the resolution, padding included; see :meth:`Codec.decode_reduced`."""

        def decode() -> Array:
            payloads: Any = self.arrays.payloads
            with self._named():
                start = self.arrays.prefixes.of(*place, reduction)
                payload = payloads.read(*place, start)
                return self.codec.decode_reduced(payload, reduction, prefix=start is not None)

        return chunk((self._token, place, reduction), decode)

    def reduced_ahead(self, places: Sequence[tuple[int, int]], reduction: int) -> None:
        """Start to read what :meth:`reduced_chunk` needs of remote chunks, of which none is kept."""
        with self._named():
            missing = [p for p in places if not known((self._token, p, reduction))]
            self.arrays.ahead(missing, reduction)

    def read_symbols(self, cells: WindowLike | None = None) -> Array:
        """Symbols ``(channel, y, x)`` of a window of cells (default: all), with what a key frame says of them."""
        window = self._within(cells, self.grid.cells, "cells")
        stored = self.arrays.read_symbols(window)
        return stored if self.reference is None else self.reference.restore_window(stored, window)

    def read_latent(self, cells: WindowLike | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Dequantised latents of a window of cells.

        Parameters
        ----------
        cells
            ``((y0, y1), (x0, x1))``; default: all.

        Returns
        -------
        ndarray
            float32 ``(channel, y, x)``; NaN in cells that hold no valid pixel.
        """
        window = self._within(cells, self.grid.cells, "cells")
        latent = self.spec.quantization.dequantise(self.read_symbols(window))
        share = self.read_valid_share(window)
        latent[:, share == 0] = np.nan
        return latent

    def read_valid_share(self, cells: WindowLike | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Share of valid pixels in each cell, float32 ``(y, x)``, 0 to 1."""
        window = self._within(cells, self.grid.cells, "cells")
        percent = self.arrays.read_valid(window)
        if percent is not None:
            return np.asarray(percent / np.float32(100), dtype=np.float32)
        if self.spec.kind == "embedding":
            return np.ones(window.shape, np.float32)
        (cy0, cy1), (cx0, cx1) = window
        sy, sx = self.grid.stride
        top, left = self.grid.lead
        valid = np.zeros(((cy1 - cy0) * sy, (cx1 - cx0) * sx), np.float32)
        h, w = self.grid.shape
        y0, y1 = max(0, cy0 * sy - top), min(h, cy1 * sy - top)
        x0, x1 = max(0, cx0 * sx - left), min(w, cx1 * sx - left)
        mask = self.arrays.read_mask(Window(Span(y0, y1), Span(x0, x1)))
        oy, ox = y0 + top - cy0 * sy, x0 + left - cx0 * sx
        valid[oy : oy + y1 - y0, ox : ox + x1 - x0] = 1.0 if mask is None else mask.any(axis=0)
        return np.asarray(valid.reshape(cy1 - cy0, sy, cx1 - cx0, sx).mean(axis=(1, 3)), dtype=np.float32)

    def read_field(
        self, window: WindowLike | None = None, bands: Sequence[int] | None = None, *, alone: bool = False
    ) -> Array:
        """Decoded pixels of a window.

        Parameters
        ----------
        window
            Pixels ``((y0, y1), (x0, x1))`` of the asset's grid; default: all.
        bands
            Positions of the bands to return; all are decoded at once, and kept for whoever asks for others.
        alone
            Whether others will hardly be asked for: then few bands are decoded alone, where the codec can and no others of the same
            chunk are kept.

        Returns
        -------
        ndarray
            ``(band, y, x)`` in the bands' stored type; nodata where the source had none.
        """
        if self.spec.kind == "embedding":
            raise FieldError(
                f"asset {self.ref.asset!r} of item {self.ref.item_id!r} is an embedding: it cannot be decoded to pixels; "
                "load it with upto='latent'"
            )
        pixels = self._within(window, self.grid.shape, "pixels")
        chosen = list(range(len(self.codec.bands)) if bands is None else bands)
        chosen_bands = [self.codec.bands[i] for i in chosen]
        out: Array | None = None
        self.arrays.mask_ahead(pixels)
        pending = aside(partial(self.arrays.read_mask, pixels))
        places = list(itertools.product(*self._chunks_of(pixels)))
        parts = [(place, _shared(self._pixels_of(place), pixels)) for place in places]
        for cut, piece, at in self._pieces(parts, chosen, self._few(chosen) if alone else None):
            part = cut.counted_from(pixels)
            if out is None:
                out = np.empty((len(chosen), *pixels.shape), piece.dtype)
            valid, inside = pending.result(), out[:, *part.slices]
            for plane, i in zip(inside, at, strict=True):
                plane[...] = piece[i]
            valid = None if valid is None else valid[:, *part.slices]
            apply_nodata(inside, mask_of(valid, chosen), chosen_bands)
        if out is None:
            raise GridError(f"window {window} holds no pixel")
        return out

    def read_windows(
        self, windows: Sequence[Window], bands: Sequence[int], *, alone: bool = False
    ) -> Iterator[Array]:
        """Decoded pixels of many windows, in their order, as :meth:`read_field` gives them; a few are decoded ahead.

        Parameters
        ----------
        windows
            Each within the scene, and within one chunk of :meth:`chunk_pixels`.
        bands, alone
            As of :meth:`read_field`.
        """
        chosen = list(bands)
        parts = [((y.start, x.start), w) for w in windows for y, x in [self._chunks_of(w)]]
        masks: deque[Future[Array | None]] = deque()
        few = self._few(chosen) if alone else None
        for i, (_, piece, at) in enumerate(self._pieces(parts, chosen, few)):
            while len(masks) < min(len(parts) - i, 2 * workers()):
                masks.append(aside(partial(self.arrays.read_mask, parts[i + len(masks)][1])))
            valid = mask_of(masks.popleft().result(), chosen)
            yield apply_nodata(piece[at], valid, [self.codec.bands[b] for b in chosen])

    def decode_block(self, window: Window) -> tuple[Array, Array]:
        """One window of pixels at once (with residuals: the pixels of a stored chunk), and the symbols of the cells that cover it.

        Nothing is kept, and no other thread takes part. Memory is some 30 bytes per pixel and band.

        Returns
        -------
        field, symbols
            ``(band, y, x)`` as :meth:`read_field`; ``(channel, y, x)`` without the halo.
        """
        symbols, cells = self._symbols_of(window)
        field = self._restored(np.ascontiguousarray(self._decode(symbols, cells, window)), window)
        apply_nodata(field, self.arrays.read_mask(window), self.codec.bands)
        inner = self.grid.cells_of(window).counted_from(cells)
        return field, symbols[:, *inner.slices]

    def _symbols_of(self, window: Window) -> tuple[Array, Window]:
        """Symbols of the cells of a pixel window and of their halo, and which cells these are."""
        cells = self.grid.cells_of(window, self.codec.halo)
        if self.codec.tiled:
            cells = self._whole_chunks(cells)
        return self.read_symbols(cells), cells

    def _whole_chunks(self, cells: Window) -> Window:
        """Cells of the chunks that hold ``cells``."""
        return Window.of(
            (lo // c * c, min(-(-hi // c) * c, n))
            for (lo, hi), c, n in zip(cells, self.arrays.latent.chunks[1:], self.grid.cells, strict=True)
        )

    def _decode(self, symbols: Array, cells: Window, window: Window) -> Array:
        """Pixels of a window from the symbols of ``cells``, which cover it and its halo."""
        inside = Window.of(
            (lo + pad - c * s, hi + pad - c * s)
            for (lo, hi), pad, (c, _), s in zip(window, self.grid.lead, cells, self.grid.stride, strict=True)
        )
        if not self.codec.tiled:
            return self.codec.decode(symbols, window=inside)
        _, rows, columns = self.arrays.latent.chunks
        strips = []
        for y in range(0, symbols.shape[1], rows):
            strip = [
                self.codec.decode(np.ascontiguousarray(symbols[:, y : y + rows, x : x + columns]))
                for x in range(0, symbols.shape[2], columns)
            ]
            strips.append(np.concatenate(strip, axis=2))
        return np.concatenate(strips, axis=1)[:, *inside.slices]

    def _pieces(
        self,
        parts: Sequence[tuple[tuple[int, ...], Window]],
        chosen: Sequence[int],
        few: tuple[int, ...] | None,
    ) -> Iterator[tuple[Window, Array, list[int]]]:
        """Windows within chunks, given with the numbers of these, their pixels, and where in them the chosen bands are.

        A few chunks are decoded ahead.
        """
        pending: deque[tuple[Window, Window, list[int], Future[Array]]] = deque()
        for i, (place, window) in enumerate(parts):
            if i % _AHEAD == 0:
                self._ahead([p for p, _ in parts[i : i + _AHEAD]], few)
            whole, bands = self._pixels_of(place), self._decoded_bands(place, few)
            decoded = chunk((self._token, place, bands), partial(self._decode_alone, whole, bands))
            at = list(chosen) if bands is None else [bands.index(b) for b in chosen]
            pending.append((window, window.counted_from(whole), at, decoded))
            if len(pending) > 2 * workers():
                yield self._cut(*pending.popleft())
        while pending:
            yield self._cut(*pending.popleft())

    @staticmethod
    def _cut(
        window: Window, inside: Window, at: list[int], future: Future[Array]
    ) -> tuple[Window, Array, list[int]]:
        return window, future.result()[:, *inside.slices], at

    def _few(self, chosen: Sequence[int]) -> tuple[int, ...] | None:
        """The bands that are decoded for the chosen ones; None for all, where they are many or fewer would be no less work."""
        bands = tuple(sorted(set(chosen)))
        few = 0 < 2 * len(bands) <= len(self.codec.bands)
        alone = few and self.codec.by_band and self.codec.tiled and not self.bounded
        return bands if alone and self.arrays.payloads is not None else None

    def _decoded_bands(self, place: tuple[int, ...], few: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The bands of a chunk to decode, or that are kept: all where these are kept, or others than the ones asked for are."""
        if few is None or known((self._token, place, None)):
            return None
        with self._lock:
            other = self._subsets.get(place, few)
            if other != few and known((self._token, place, other)):
                return None
            self._subsets[place] = few
        return few

    def _ahead(self, places: Sequence[tuple[int, ...]], few: tuple[int, ...] | None) -> None:
        """Start to read chunks that will be decoded from their bytes, and are not decoded yet."""
        if self.codec.tiled:
            missing = (
                p for p in places if not (known((self._token, p, few)) or known((self._token, p, None)))
            )
            self.arrays.ahead((p[0], p[1]) for p in missing)

    def chunk_pixels(self) -> list[tuple[int, int]]:
        """Pixels of a chunk and padding before the first, along y and x."""
        sizes = [c * s for c, s in zip(self.arrays.latent.chunks[1:], self.grid.stride, strict=True)]
        return list(zip(sizes, self.grid.lead, strict=True))

    def _chunks_of(self, window: Window) -> list[range]:
        """Numbers of the chunks that hold a window, along y and x."""
        spans = zip(window, self.chunk_pixels(), strict=True)
        return [range((lo + pad) // size, (hi - 1 + pad) // size + 1) for (lo, hi), (size, pad) in spans]

    def _pixels_of(self, place: tuple[int, ...]) -> Window:
        """Pixels of one chunk, within the scene."""
        return Window.of(
            (max(0, i * size - pad), min(n, (i + 1) * size - pad))
            for i, (size, pad), n in zip(place, self.chunk_pixels(), self.grid.shape, strict=True)
        )

    def decode_base(self, window: Window) -> Array:
        """Pixels of a window without residuals, ``(band, y, x)``, and without nodata: what residuals refer to."""
        symbols, cells = self._symbols_of(window)
        return np.ascontiguousarray(self._decode(symbols, cells, window))

    def chunk_windows(self) -> Iterator[tuple[tuple[int, int], Window]]:
        """Numbers of the stored chunks along y and x, and the pixels of each."""
        for y, x in itertools.product(*self._chunks_of(Window.whole(self.grid.shape))):
            yield (y, x), self._pixels_of((y, x))

    def _restored(self, base: Array, window: Window) -> Array:
        """Pixels of one stored chunk within the error bound, from those that its latents decode to."""
        if not self.bounded:
            return base
        y, x = (spans[0] for spans in self._chunks_of(window))
        if self._pixels_of((y, x)) != window:
            raise GridError(f"residuals are of whole chunks; {window} is none")
        data = read_residual(self.arrays.residual, y, x, sparse=self.spec.residual == BITSTREAM + SPARSE)
        if not data:
            return base
        return decode_residual(data, base, self.arrays.read_mask(window), self.codec.bands)

    def _decode_alone(self, window: Window, bands: Sequence[int] | None) -> Array:
        """Pixels of the one chunk of a window; of some bands only where :meth:`_few` gives them."""
        with self._named():
            if self.codec.tiled and self.arrays.payloads is not None:
                return self._restored(self._decode_payload(window, bands), window)
            return self._restored(self.decode_base(window), window)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let an error about the bytes of a chunk say whose they are, and what helps."""
        try:
            yield
        except CorruptDataError as exc:
            raise CorruptDataError(
                f"asset {self.ref.asset!r} of item {self.ref.item_id!r}: {exc}; fetch the item again, or encode it again with --overwrite "
                "(overwrite=True)"
            ) from exc

    def _decode_payload(self, window: Window, bands: Sequence[int] | None) -> Array:
        """Pixels of the one chunk of a window, from its bytes: its latents are never laid out."""
        (y, x) = (spans[0] for spans in self._chunks_of(window))
        payloads = self.arrays.payloads
        if payloads is None:
            raise GridError(f"{shown(self.ref.href)} holds no coded chunks")
        coded: Any = payloads.read(y, x)
        if self.reference is not None and self.reference.refers(y, x):
            coded = self.reference.restore(self.codec.entropy_decode(coded), y, x)
        pixels = self.codec.decode(coded, bands=bands)
        (sy, py), (sx, px) = self.chunk_pixels()
        inside = window.shifted((py - y * sy, px - x * sx))
        cut = pixels[:, *inside.slices]
        if cut.shape[1:] != window.shape:
            raise CorruptDataError(
                f"{shown(self.ref.href)}: chunk ({y}, {x}) decodes to {pixels.shape[1:]} pixels, which do not hold its place"
            )
        return cut

    @staticmethod
    def _within(window: WindowLike | None, shape: tuple[int, int], unit: str) -> Window:
        if window is None:
            return Window.whole(shape)
        if not all(0 <= lo < hi <= n for (lo, hi), n in zip(window, shape, strict=True)):
            raise GridError(f"window {window} is not inside the {shape[0]} x {shape[1]} {unit} of the asset")
        return Window.of(window)


def _shared(one: Window, other: Window) -> Window:
    return Window.of((max(a, lo), min(b, hi)) for (a, b), (lo, hi) in zip(one, other, strict=True))
