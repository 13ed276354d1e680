"""Bands and cells as arrays of xarray that are read when they are looked at: what is asked for, by stored chunk.

Bands of one lattice share a decode. Where what is read is larger than the cache of decoded chunks, the pixels that the other
bands of an open Dataset have at the same places are put aside for them, within a limit.
"""

from __future__ import annotations

import abc
import asyncio
import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from stac_latent.aliases import Array
from stac_latent.cube.read.band_views import BandView, NativeReader, steps_to
from stac_latent.cube.read.chunk_cache import limit
from stac_latent.cube.read.driver import cells_for, reader_for
from stac_latent.cube.read.engine.gather import Blocks, Found, Places, Read, at_crossings, at_points
from stac_latent.cube.read.physical import physical_band, to_physical
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.spec import Band
from stac_latent.store.zarr.group import open_arrays
from stac_latent.system.limits import memory
from stac_latent.window import Window

__all__ = ["BandArray", "BandGroup", "CellArray", "cell_chunks", "pixel_chunks"]

_BLOCK = 256
"""Cells along a block of an embedding that others wrote."""


@dataclass(frozen=True)
class _Asked:
    """Rows and columns that are asked for: where they cross, or the points that they are in pairs."""

    rows: Places
    columns: Places
    points: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows),) if self.points else (len(self.rows), len(self.columns))

    @property
    def window(self) -> Window | None:
        """The window that they are, row by row; None where they are none."""
        spans = [(int(p[0]), int(p[-1]) + 1) for p in (self.rows, self.columns)]
        runs = all(
            hi - lo == len(p) and (np.diff(p) == 1).all()
            for (lo, hi), p in zip(spans, (self.rows, self.columns), strict=True)
        )
        return Window.of(spans) if runs and not self.points else None

    @property
    def token(self) -> tuple[Any, ...]:
        return self.points, self.rows.tobytes(), self.columns.tobytes()

    def found(self, read: Read, blocks: Sequence[Blocks]) -> Iterator[Found]:
        """Parts of the answer, chunk by chunk: index into :attr:`shape`, and ``(n, ...)``."""
        return (at_points if self.points else at_crossings)(read, blocks, self.rows, self.columns)


class _LazyArray(BackendArray, abc.ABC):
    """An array ``(..., y, x)`` of which every indexer of xarray reads what it hits."""

    dtype: np.dtype[Any]

    def __init__(self, shape: tuple[int, ...], *, time: bool) -> None:
        self.shape, self.time = ((1, *shape) if time else shape), time

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self._at_crossings(key.tuple)
        arrays = [isinstance(k, np.ndarray) for k in key.tuple]
        if arrays == [False] * (len(arrays) - 2) + [True] * 2:
            return self._at_points(key.tuple)
        # xarray fails at slices that are empty and go backwards
        runs = (
            slice(0, 0) if isinstance(k, slice) and not range(n)[k] else k
            for k, n in zip(key.tuple, self.shape, strict=True)
        )
        return indexing.explicit_indexing_adapter(
            indexing.VectorizedIndexer(tuple(runs)),
            self.shape,
            indexing.IndexingSupport.OUTER,
            self._at_crossings,
        )

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """As ``[key]``, for ``Dataset.load_async``."""
        return await asyncio.to_thread(self.__getitem__, key)

    def _at_points(self, key: tuple[Any, ...]) -> Array:
        """Points of the plane; their dimensions come before that of a slice of channels."""
        rows, columns = np.broadcast_arrays(
            *(np.arange(n)[k] for n, k in zip(self.shape[-2:], key[-2:], strict=True))
        )
        lead = [np.arange(n)[k] for n, k in zip(self.shape, key[:-2], strict=False)]
        found = self._read(lead, _Asked(rows.ravel(), columns.ravel(), points=True))
        return np.moveaxis(found, -1, 0).reshape(rows.shape + tuple(map(len, lead)))

    def _at_crossings(self, key: tuple[Any, ...]) -> Array:
        places = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        found = self._read(places[:-2], _Asked(places[-2], places[-1], points=False))
        return found[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]

    def _read(self, lead: Sequence[Places], asked: _Asked) -> Array:
        """``(*lead, *asked.shape)``."""
        if not all(map(len, (*lead, asked.rows, asked.columns))):
            return np.empty((*map(len, lead), *asked.shape), self.dtype)
        if not self.time:
            return self._found(lead, asked)
        found = self._found(lead[1:], asked)
        return np.broadcast_to(found, (len(lead[0]), *found.shape)).copy()

    @abc.abstractmethod
    def _found(self, lead: Sequence[Places], asked: _Asked) -> Array: ...


class CellArray(_LazyArray):
    """Dequantised cells ``(channel, y, x)``, float32.

    Parameters
    ----------
    ref, stamp
        As of :func:`~stac_latent.cube.read.driver.cells_for`.
    time
        Whether the first axis is one of time, with one step.
    """

    def __init__(self, ref: LatentRef, stamp: str, *, time: bool = False) -> None:
        super().__init__((ref.spec.dimensions, *ref.grid.cells), time=time)
        self.ref, self.stamp, self.dtype = ref, stamp, np.dtype(np.float32)

    def _found(self, lead: Sequence[Places], asked: _Asked) -> Array:
        (channels,) = lead
        reader = cells_for(self.ref, self.stamp)
        window = asked.window
        if window is not None:
            return reader.read_latent(window)[channels]
        sizes = reader.arrays.latent.chunks[1:] if isinstance(reader, LatentReader) else (_BLOCK, _BLOCK)
        blocks = [Blocks(size, 0, n) for size, n in zip(sizes, self.shape[-2:], strict=True)]
        out = np.empty((len(channels), *asked.shape), self.dtype)
        for where, found in asked.found(
            lambda windows: (reader.read_latent(w)[channels] for w in windows), blocks
        ):
            out[:, *where] = found
        return out


class BandGroup:
    """Bands of one Dataset that share pixels and a lattice.

    Parameters
    ----------
    view
        Of any of them.
    stamp
        As of :func:`~stac_latent.cube.read.driver.reader_for`.
    """

    def __init__(self, view: BandView, stamp: str) -> None:
        self.ref, self.grid, self.stamp = view.ref, view.grid, stamp
        self.join_anew()

    def join_anew(self) -> None:
        """Have no members yet."""
        self.members: weakref.WeakSet[BandArray] = weakref.WeakSet()
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"ref": self.ref, "grid": self.grid, "stamp": self.stamp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.join_anew()

    def read(self, asked: _Asked, bands: Sequence[int]) -> list[Array]:
        """Pixels of each band in its stored unit and type, of :attr:`_Asked.shape`."""
        reader = reader_for(self.ref, self.stamp)
        source = NativeReader(reader, self.grid)
        types = [np.dtype(reader.spec.bands[i].data_type) for i in bands]
        window = asked.window
        if window is not None and len(bands) == 1:
            return [source.read_field(window, bands)[0].astype(types[0], copy=False)]
        blocks = source.blocks()
        parts: Iterator[tuple[Any, Array]]
        if window is None:
            parts = asked.found(lambda windows: reader.read_windows(windows, bands), blocks)
        else:
            strips = blocks[0].runs(window.y)
            parts = (
                (
                    (slice(y.start - window.y.start, y.stop - window.y.start),),
                    source.read_field((y, window.x), bands),
                )
                for y in strips
            )
        out = [np.empty(asked.shape, t) for t in types]
        for where, found in parts:
            for plane, pixels in zip(out, found, strict=True):
                plane[where] = pixels
        return out

    def is_large(self, asked: _Asked) -> bool:
        """Whether the chunks that are hit do not fit the cache of decoded ones."""
        reader = reader_for(self.ref, self.stamp)
        blocks = NativeReader(reader, self.grid).blocks()
        y, x = (
            len(np.unique(b.chunk_of(b.fine(p))))
            for b, p in zip(blocks, (asked.rows, asked.columns), strict=True)
        )
        pixel = sum(np.dtype(b.data_type).itemsize for b in reader.codec.bands)
        hit = max(y, x) if asked.points else y * x
        return hit * math.prod(b.size for b in blocks) * pixel > limit()


class BandArray(_LazyArray):
    """One band, ``(y, x)``.

    Parameters
    ----------
    group
        It joins this one.
    index
        Its position among the bands of the lattice.
    band
        Says how it is stored.
    physical
        Whether scale and offset are applied, and pixels without data are NaN.
    time
        Whether the first axis is one of time, with one step.
    """

    def __init__(
        self, group: BandGroup, index: int, band: Band, *, physical: bool, time: bool = False
    ) -> None:
        super().__init__(group.grid.shape, time=time)
        self.group, self.index, self.band, self.physical = group, index, band, physical
        self.dtype = np.dtype((physical_band(band) if physical else band).data_type)
        self.aside: tuple[tuple[Any, ...], Array] | None = None
        group.members.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"aside": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.group.members.add(self)

    def _found(self, lead: Sequence[Places], asked: _Asked) -> Array:  # noqa: ARG002 (bands have no other axis)
        token = asked.token
        with self.group.lock:
            kept, self.aside = self.aside, None
        if kept is not None and kept[0] == token:
            return self._in_unit(kept[1])
        others = list(self._others(asked))
        found = self.group.read(asked, [self.index, *(o.index for o in others)])
        with self.group.lock:
            for other, pixels in zip(others, found[1:], strict=True):
                other.aside = token, pixels
        return self._in_unit(found[0])

    def _others(self, asked: _Asked) -> Iterator[BandArray]:
        """Bands whose pixels are put aside: those that are still to be read, as many as fit an eighth of the machine's memory."""
        if not self.group.is_large(asked):
            return
        room = memory() // 8
        for other in sorted(self.group.members, key=lambda o: o.index):
            room -= math.prod(asked.shape) * np.dtype(other.band.data_type).itemsize
            if other is not self and room >= 0:
                yield other

    def _in_unit(self, stored: Array) -> Array:
        return to_physical(stored, self.band, np.empty(stored.shape, self.dtype)) if self.physical else stored


def pixel_chunks(view: BandView) -> dict[str, Any]:
    """Lengths of the parts along y and x in which a band's pixels are best read."""
    chunks, factors = _cuts(view.ref)
    step, offset = steps_to(view.ref.grid, view.grid)
    lattice = zip(
        chunks, factors, view.ref.grid.stride, view.ref.grid.lead, view.grid.shape, offset, strict=True
    )
    sizes = [Blocks(c * s, pad, n, step, o).sizes(factor) for c, factor, s, pad, n, o in lattice]
    return {"chunks": tuple(sizes)}


def cell_chunks(ref: LatentRef) -> dict[str, Any]:
    """As :func:`pixel_chunks`, of cells; nothing for an embedding that others wrote."""
    if ref.layout is not None:
        return {}
    chunks, factors = _cuts(ref)
    blocks = zip(chunks, factors, ref.grid.cells, strict=True)
    return {"chunks": tuple(Blocks(c, 0, n).sizes(factor) for c, factor, n in blocks)}


def _cuts(ref: LatentRef) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cells along y and x of a chunk, and how many chunks a shard has along them."""
    latent = open_arrays(ref.href, sign=ref.sign, chip=ref.chip).latent
    chunks, shards = latent.chunks[1:], (latent.shards or latent.chunks)[1:]
    return chunks, tuple(s // c for s, c in zip(shards, chunks, strict=True))
