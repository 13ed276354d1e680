"""Latents in Zarr v3: one group with the symbols, the validity mask and the cell coordinates.

::

    <item>.latent.zarr/      attributes mirror the asset's fields
      latent  (channel, y, x)     int8/int16; sharded; coded (zarr codec "stac_latent") or plain (zstd)
      difference (channel, y, x)  in its place: what a key frame leaves of the latent; see :mod:`stac_latent.cube.keyframe.decode`
      mask    (mask_band, py, px) uint8, 1 = valid; one band where all bands agree; absent chunks are valid
      valid   (y, x)              embeddings instead of mask: valid pixels of each cell, in percent
      prefix (reduction, prefix_value, tile_y, tile_x)  what coarser pixels need of each chunk; see :mod:`stac_latent.store.prefixes`
      residual (tile_y, tile_x, byte)  what keeps an error bound; see :mod:`stac_latent.store.zarr.residual`
      y, x                        cell centres, so that xarray.open_zarr shows a map
                                  (many chips in one store: see stac_latent.store.zarr.chips)
      py, px, spatial_ref         pixel centres and CRS, of grids that are not small; see :mod:`stac_latent.store.georeference`
      g60/                        the same again for bands whose pixels fit no cell of these; its dimensions are y_1, x_1 and so on
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np
import zarr
import zarr.errors
from pyproj import CRS
from zarr.api.asynchronous import open_group
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.errors import CodecError, CorruptDataError, StacLatentError, without_secrets
from stac_latent.extension.features import DIFFERENCE, check_group
from stac_latent.net.fetch import Sign
from stac_latent.secure import Encrypt
from stac_latent.spec import Grid, Spec
from stac_latent.store.georeference import StorePlace, dimension_names
from stac_latent.store.prefixes import PREFIX, Prefixes, create_prefixes
from stac_latent.store.zarr.chips import AnyArray, ChipArray, chunk_key
from stac_latent.store.zarr.codec import Encoder, LatentZarrCodec
from stac_latent.store.zarr.encrypted_store import SealedStore, for_writing
from stac_latent.store.zarr.open_store import store_at
from stac_latent.store.zarr.payloads import PayloadReader
from stac_latent.store.zarr.remote_store import RemoteStore
from stac_latent.store.zarr.trust import CONFIG, UNREADABLE, check_array
from stac_latent.system.limits import check_bytes, memory
from stac_latent.system.links import shown
from stac_latent.window import Window

if TYPE_CHECKING:
    from pathlib import Path


__all__ = [
    "ChunkSizes",
    "GroupOptions",
    "LatentArrays",
    "Payload",
    "StoreLayout",
    "create",
    "open_arrays",
]

Payload = Literal["coded", "plain"]

_MASKS_AHEAD = 64
_COMPACT = {"json_indent": None}
P = ParamSpec("P")
R = TypeVar("R")


def _compact(function: Callable[P, R]) -> Callable[P, R]:
    """Let metadata be written without white space: it counts in the rate."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with zarr.config.set(_COMPACT):
            return function(*args, **kwargs)

    return inside


@dataclass(frozen=True)
class LatentArrays:
    """The arrays of one latent group."""

    latent: AnyArray
    """What is stored: latents, or what a key frame leaves of them."""
    mask: AnyArray | None
    valid: AnyArray | None
    attributes: Mapping[str, Any]
    reference: tuple[zarr.Array[Any], zarr.Array[Any]] | None = None
    """Gains and checksums of a date that is coded against a key frame; see :mod:`stac_latent.cube.keyframe.decode`."""
    prefix: zarr.Array[Any] | None = None
    """What coarser pixels need of each chunk; see :mod:`stac_latent.store.prefixes`."""
    residual: AnyArray | None = None
    """Payloads that keep an error bound; see :mod:`stac_latent.store.zarr.residual`."""

    def read_symbols(self, cells: Window) -> Array:
        """Stored integers ``(channel, y, x)`` of a window of cells; only its chunks are read.

        Raises
        ------
        CorruptDataError
            If a chunk is missing bytes, or a checksum does not hold.
        """
        (y0, y1), (x0, x1) = cells
        symbols = self._read(self.latent, (slice(None), slice(y0, y1), slice(x0, x1)))
        if symbols.dtype.kind in "fc":
            if np.isnan(symbols[0]).any():
                self._check_present(cells)
                raise CorruptDataError(
                    f"{_where(self.latent)}: chunks of window {cells} hold NaN; the store is incomplete, write it again"
                )
        elif not symbols[:1].any() and not symbols.any():  # the first channel is hardly ever zero
            self._check_present(cells)
        return symbols

    @property
    def is_difference(self) -> bool:
        """Whether :attr:`latent` holds what a key frame leaves of the latents."""
        return self.latent.path.rpartition("/")[2] == DIFFERENCE

    @cached_property
    def payloads(self) -> PayloadReader | None:
        """Access to the coded chunks themselves; None where there are none."""
        return PayloadReader(self.latent) if PayloadReader.reads(self.latent) else None

    def _check_present(self, cells: Window) -> None:
        """Tell zeros that were stored from zeros that stand for a missing file."""
        spans = [range(lo // n, (hi - 1) // n + 1) for (lo, hi), n in zip(cells, self._shard(), strict=True)]
        for y, x in itertools.product(*spans):
            path = chunk_key(self.latent, (0, y, x))
            if not sync(self.latent.store.exists(path)):
                raise CorruptDataError(
                    f"{_where(self.latent)}: {path} is missing; the store is incomplete, fetch or write it again"
                )

    def _shard(self) -> tuple[int, ...]:
        return (self.latent.shards or self.latent.chunks)[1:]

    @cached_property
    def prefixes(self) -> Prefixes:
        """What coarser pixels need of each chunk."""
        counts = [-(-n // c) for n, c in zip(self.latent.shape[1:], self.latent.chunks[1:], strict=True)]
        return Prefixes(self.prefix, counts)

    def ahead(self, chunks: Iterable[tuple[int, int]], reduction: int = 0) -> None:
        """Start to read remote chunks of a coded latent, which will be asked for by row and column, or what a reduction needs of them."""
        if self.payloads is None:
            return
        starts = ((y, x, self.prefixes.of(y, x, reduction) if reduction else None) for y, x in chunks)
        self.payloads.ahead((y, x, 0 if start is None else start.size) for y, x, start in starts)

    def mask_ahead(self, window: Window) -> None:
        """Start to read the mask of a pixel window from a remote store, where it is small."""
        if not isinstance(self.mask, zarr.Array) or not isinstance(self.mask.store, RemoteStore):
            return
        spans = [
            range(lo // n, (hi - 1) // n + 1)
            for (lo, hi), n in zip(window, self.mask.chunks[1:], strict=True)
        ]
        if len(spans[0]) * len(spans[1]) <= _MASKS_AHEAD:
            for y, x in itertools.product(*spans):
                self.mask.store.ahead(chunk_key(self.mask, (0, y, x)))

    def read_mask(self, window: Window) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Valid pixels ``(1 or band, y, x)`` of a pixel window; None where the group has no mask."""
        if self.mask is None:
            return None
        (y0, y1), (x0, x1) = window
        return self._read(self.mask, (slice(None), slice(y0, y1), slice(x0, x1))).astype(bool)

    def read_valid(self, cells: Window) -> Array | None:
        """Valid pixels of each cell in percent, uint8 ``(y, x)``; None where the group does not store it."""
        if self.valid is None:
            return None
        (y0, y1), (x0, x1) = cells
        return self._read(self.valid, (slice(y0, y1), slice(x0, x1)))

    @_compact
    def widen_mask(self, bands: int) -> LatentArrays:
        """The same group with one mask for each of ``bands``; what was stored for all is kept for each."""
        if not isinstance(self.mask, zarr.Array):
            raise CorruptDataError(f"{_where(self.latent)}: the group has no mask to widen")
        old = np.asarray(self.mask[:1])
        group = zarr.open_group(self.latent.store, path=self.latent.path.rpartition("/")[0], mode="r+")
        mask = group.create_array(
            "mask",
            shape=(bands, *old.shape[1:]),
            dtype="uint8",
            chunks=(bands, *self.mask.chunks[1:]),
            fill_value=1,
            compressors=self.mask.compressors,
            dimension_names=dimension_names(("mask_band", "py", "px"), group.attrs),
            attributes=dict(self.mask.attrs),
            overwrite=True,
        )
        mask[:] = np.broadcast_to(old, mask.shape)
        return replace(self, mask=mask)

    def read_all(self, array: AnyArray) -> Array:
        """The whole of a small array of the group; errors as :meth:`read_symbols`."""
        return self._read(array, (slice(None),) * array.ndim)

    @staticmethod
    def _read(array: AnyArray, where: tuple[slice, ...]) -> Array:
        shape = [len(range(*s.indices(n))) for s, n in zip(where, array.shape, strict=True)]
        check_bytes(shape, array.dtype.itemsize, _where(array), memory())
        try:
            return np.asarray(array[where])
        except StacLatentError:
            raise
        except UNREADABLE as exc:
            raise CorruptDataError(
                f"{_where(array)}: stored bytes of window {where[-2:]} do not decode: {exc}; the store is truncated or was "
                "changed, fetch or write it again"
            ) from exc


def _where(array: AnyArray) -> str:
    """Address of an array, without the store's wrapping."""
    return str(array.store_path).removeprefix("wrapping-")


@dataclass(frozen=True)
class StoreLayout:
    """How stores are cut.

    Parameters
    ----------
    inner
        Cells along an inner chunk, the least that is decoded at once. None for the usual ones: a tile, where the codec has tiles; else
        about 256 pixels, at least 32 cells.
    shard
        Cells along a shard, one file of inner chunks; None for eight chunks.
    sharded
        Whether inner chunks are gathered in shards. Otherwise each is a file, and a ``plain`` payload has no codec but zstd, whose own checksum
        guards it, and says its CRS as GDAL does: GDAL 3.12 opens it.
    """

    inner: int | None = None
    shard: int | None = None
    sharded: bool = True

    def sizes(self, codec: Codec, cells: tuple[int, int]) -> ChunkSizes:
        """Cells of the chunks and shards of a scene of so many cells."""
        inner = (self.inner, self.inner) if self.inner else _usual(codec, cells)
        shard = (self.shard, self.shard) if self.shard else (8 * inner[0], 8 * inner[1])
        return ChunkSizes(inner, shard, self.sharded)


class ChunkSizes(NamedTuple):
    """How one store is cut, in cells along y and x; see :class:`StoreLayout`."""

    inner: tuple[int, int]
    shard: tuple[int, int]
    sharded: bool = True

    def place(self, cells: Window) -> tuple[int, int]:
        """Numbers of the chunk that holds the first of some cells."""
        return cells.y.start // self.inner[0], cells.x.start // self.inner[1]

    def within(self, cells: tuple[int, int]) -> ChunkSizes:
        """The same, with chunks no larger than a grid of so many cells."""
        inner = (min(self.inner[0], cells[0]), min(self.inner[1], cells[1]))
        return self if inner == self.inner else self._replace(inner=inner, shard=(8 * inner[0], 8 * inner[1]))


def _usual(codec: Codec, cells: tuple[int, int]) -> tuple[int, int]:
    sy, sx = codec.stride
    if codec.tiled:
        y, x = codec.tile_of((cells[0] * sy, cells[1] * sx))
        return y // sy, x // sx
    side = max(32, 256 // max(sy, sx))
    return side, side


@dataclass(frozen=True)
class GroupOptions:
    """How the arrays of a group are stored.

    Parameters
    ----------
    payload
        ``coded``: smallest, needs the bundle. ``plain``: zstd, opens anywhere.
    mask_bands
        1, or the number of bands where their masks differ; 0 for no mask.
    part
        Which of the codec's lattices the group holds, where it has several.
    reference
        Address of the store of the key frame, as seen from this one, where differences to it are stored; None for latents.
    encryption
        Encrypts the chunks, which are then not gathered in shards.
    encoder
        What codes the chunks; None for the codec.
    sizes
        How they are cut; None for the usual one.
    """

    payload: Payload = "coded"
    mask_bands: int = 1
    part: int = 0
    reference: str | None = None
    encryption: Encrypt | None = None
    encoder: Encoder | None = None
    sizes: ChunkSizes | None = None


@_compact
def create(
    path: Path | MemoryStore,
    codec: Codec,
    grid: Grid,
    attributes: Mapping[str, Any],
    options: GroupOptions,
) -> LatentArrays:
    """Make an empty group at a local path, or in memory, ready to be filled shard by shard.

    Parameters
    ----------
    path
        New folder.
    codec
        Gives channels, data type and, for ``coded``, the entropy coder.
    grid
        Pixel grid and cell lattice.
    attributes
        Written as the group's attributes.
    options
        How the arrays are stored.
    """
    payload, encryption = options.payload, options.encryption
    if payload == "coded" and codec.tail is None:
        raise CodecError(f"codec {codec.name!r} has no entropy coder; write its symbols with payload='plain'")
    spec = codec.spec
    cells, channels = grid.cells, spec.dimensions
    inner, most, sharded = options.sizes or StoreLayout().sizes(codec, cells)
    shards = tuple(min(shard, -(-n // c) * c) for n, c, shard in zip(cells, inner, most, strict=True))
    where = path if isinstance(path, MemoryStore) else for_writing(path, encryption)
    group = zarr.create_group(store=where, zarr_format=3, attributes=dict(attributes))
    stock = payload == "plain" and not sharded
    compressors = [ZstdCodec(level=9, checksum=True)] if stock else [ZstdCodec(level=9), Crc32cCodec()]
    names = functools.partial(dimension_names, attributes=attributes)
    place = StorePlace(grid, attributes)
    of_cells = place.of_cells
    of_cells |= {"_CRS": {"wkt": CRS.from_user_input(grid.crs).to_wkt()}} if stock else {}
    coded: dict[str, Any] = {"compressors": compressors}
    if payload == "coded":
        bitstream = codec.bitstream or ""
        coded = {
            "serializer": LatentZarrCodec(
                codec.space, bitstream, options.part, options.reference, options.encoder or codec
            ),
            "compressors": [Crc32cCodec()],
        }
    latent = group.create_array(
        "latent" if options.reference is None else DIFFERENCE,
        shape=(channels, *cells),
        dtype=spec.data_type,
        chunks=(channels, *inner),
        shards=(channels, *shards) if encryption is None and sharded else None,
        fill_value=np.nan if np.dtype(spec.data_type).kind in "fc" else 0,
        dimension_names=names(("channel", "y", "x")),
        attributes={"latent:space": spec.space, **of_cells},
        config={"write_empty_chunks": True},  # a missing shard is a loss, never zeros
        **coded,
    )
    mask = valid = None
    if options.mask_bands and spec.kind == "embedding":
        valid = group.create_array(
            "valid",
            shape=cells,
            dtype="uint8",
            chunks=inner,
            fill_value=100,
            dimension_names=names(("y", "x")),
            attributes=of_cells,
        )
    elif options.mask_bands:
        step = inner[0] * codec.stride[0], inner[1] * codec.stride[1]
        mask = group.create_array(
            "mask",
            shape=(options.mask_bands, *grid.shape),
            dtype="uint8",
            chunks=(options.mask_bands, *step),
            fill_value=1,
            compressors=compressors,
            dimension_names=names(("mask_band", "py", "px")),
            attributes=place.of_pixels,
        )
    place.write(group, pixels=mask is not None)
    alone = payload == "coded" and encryption is None and options.reference is None and codec.tiled
    counts = (-(-cells[0] // inner[0]), -(-cells[1] // inner[1]))
    prefix = create_prefixes(group, counts, codec.reductions if alone else 0)
    return LatentArrays(latent, mask, valid, dict(attributes), prefix=prefix)


async def _members(store: Any) -> list[Any]:
    """Attributes of a group, its latents and what may lie beside them, in one visit of zarr's event loop: each visit takes longer than the work."""
    group = await open_group(store, mode="r", zarr_format=3)
    latent = await group.get(DIFFERENCE) or await group.getitem("latent")
    names = ("mask", "valid", "residual", "reference_gain", "reference_crc", PREFIX)
    beside = [await group.get(n) for n in names]
    arrays = [zarr.Array(a) if isinstance(a, zarr.AsyncArray) else a for a in (latent, *beside)]
    return [dict(group.attrs), *arrays]


def open_arrays(
    href: str,
    spec: Spec | None = None,
    grid: Grid | None = None,
    encryption: Encrypt | None = None,
    *,
    sign: Sign | None = None,
    known: Mapping[str, bytes] | None = None,
    chip: int | None = None,
) -> LatentArrays:
    """Open a latent group for reading; with ``spec`` and ``grid``, check that it is the one they describe.

    Parameters
    ----------
    href
        Local path, or the address of a server or object store.
    encryption
        Decrypts the chunks of an encrypted asset.
    sign
        Signs remote addresses.
    known
        Remote files that need not be read, by name: metadata that the Item pins.
    chip
        Which chip of a store that holds many.

    Raises
    ------
    CorruptDataError
        If there is no readable group, or its arrays contradict the item.
    """
    try:
        with zarr.config.set(CONFIG):
            store = store_at(href, sign, known)
            store = store if encryption is None else SealedStore(store, encryption, written=True)
            attributes, latent, mask, valid, residual, gain, crc, prefix = sync(_members(store))
    except StacLatentError:
        raise
    except UNREADABLE as exc:
        raise CorruptDataError(
            f"{shown(href)} is no readable latent group: {type(exc).__name__}: {without_secrets(str(exc))}"
        ) from exc
    href = shown(href)  # for messages
    check_group(attributes, href)
    name = DIFFERENCE if isinstance(latent, zarr.Array) and latent.basename == DIFFERENCE else "latent"
    kinds_of_latent = "iufc" if spec is None else "c" if np.dtype(spec.data_type).kind == "c" else "iuf"
    more = 0 if chip is None else 1
    if (
        not isinstance(latent, zarr.Array)
        or latent.ndim != 3 + more
        or latent.dtype.kind not in kinds_of_latent
    ):
        axes = "(channel, y, x)" if chip is None else "(chip, channel, y, x)"
        raise CorruptDataError(f"{href}/{name} must be an array {axes} of numbers{_holding(latent)}")
    for array, called, ndim, kinds in (
        (latent, name, 3, kinds_of_latent), (mask, "mask", 3, "u"), (valid, "valid", 2, "u"),
        (gain, "reference_gain", 3, "u"), (crc, "reference_crc", 2, "u"),
        (residual, "residual", 3, "u"), (prefix, PREFIX, 4 - more, "u"),
    ):  # fmt: skip
        if isinstance(array, zarr.Array):
            check_array(array, f"{href}/{called}", ndim + more, kinds)
    if chip is not None:
        latent, mask, valid, residual = (
            _of_chip(array, chip, href) for array in (latent, mask, valid, residual)
        )
    if spec is not None and grid is not None and latent.shape != (spec.dimensions, *grid.cells):
        raise CorruptDataError(
            f"{href}/{name} has shape {latent.shape}; the item declares {(spec.dimensions, *grid.cells)} (channel, y, x)"
        )
    if isinstance(valid, zarr.Array | ChipArray) and valid.shape != latent.shape[1:]:
        raise CorruptDataError(
            f"{href}/valid has shape {valid.shape}; the latent has {latent.shape[1:]} cells"
        )
    if grid is not None and isinstance(mask, zarr.Array | ChipArray) and mask.shape[1:] != grid.shape:
        raise CorruptDataError(f"{href}/mask has shape {mask.shape}; the item declares {grid.shape} pixels")
    return LatentArrays(
        latent,
        mask if isinstance(mask, zarr.Array | ChipArray) else None,
        valid if isinstance(valid, zarr.Array | ChipArray) else None,
        attributes,
        (gain, crc) if isinstance(gain, zarr.Array) and isinstance(crc, zarr.Array) else None,
        prefix if isinstance(prefix, zarr.Array) and chip is None else None,
        residual if isinstance(residual, zarr.Array | ChipArray) else None,
    )


def _holding(latent: Any) -> str:
    """What to say of a store that was not opened as what it is."""
    if not isinstance(latent, zarr.Array) or latent.ndim != 4:
        return ""
    return f"; it holds {latent.shape[0]} chips: open the Item of one, which says which in latent:chip_index"


def _of_chip(array: Any, chip: int, href: str) -> Any:
    """One chip of an array that has many; what is no array stays as it is."""
    if not isinstance(array, zarr.Array):
        return array
    if chip >= array.shape[0]:
        raise CorruptDataError(
            f"{href}/{array.basename} holds {array.shape[0]} chips; the item declares latent:chip_index {chip}, counted from 0"
        )
    return ChipArray(array, chip)
