"""How many bytes at the beginning of each payload a coarser decoding needs: the pyramid of a store, without a second copy of anything.

``prefix (reduction, prefix_value, tile_y, tile_x)`` is uint32: for each chunk of ``latent`` the bytes from its first on that hold half, a quarter and an eighth of the
resolution, and their CRC-32C. 0 bytes say that this is not known: then the whole chunk is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr
from google_crc32c import value as crc32c
from zarr.codecs import Crc32cCodec, ZstdCodec

from stac_latent.errors import CorruptDataError, StacLatentError
from stac_latent.store.georeference import dimension_names
from stac_latent.store.zarr.trust import UNREADABLE
from stac_latent.system.threads import each

__all__ = ["PREFIX", "Prefixes", "Start", "create_prefixes", "fill_prefixes", "start_of"]

PREFIX = "prefix"
_LEAST = 16
"""Chunks of a group from which on it has the array: of fewer, its metadata would outweigh what it saves."""
_SIDE = 64
_MOST = 8


class Start(NamedTuple):
    """The beginning of a chunk."""

    size: int
    """Bytes."""
    crc: int
    """Their CRC-32C."""

    def check(self, data: bytes, where: str) -> bytes:
        """The bytes, if they are these.

        Raises
        ------
        CorruptDataError
            If they are not.
        """
        if len(data) != self.size or crc32c(data) != self.crc:
            raise CorruptDataError(
                f"{where}: the checksum of its first {self.size} bytes does not match; the store is truncated or was changed, fetch or write it again"
            )
        return data


def start_of(payload: bytes, size: int) -> Start:
    """What a store says of the first bytes of a payload."""
    return Start(size, crc32c(payload[:size]))


def create_prefixes(group: zarr.Group, counts: tuple[int, ...], reductions: int) -> zarr.Array[Any] | None:
    """Add the array, empty, to a group with so many chunks along y and x; None where it would not pay."""
    if not reductions or counts[0] * counts[1] < _LEAST:
        return None
    return group.create_array(
        PREFIX,
        shape=(reductions, 2, *counts),
        dtype="uint32",
        chunks=(reductions, 2, *(min(_SIDE, n) for n in counts)),
        fill_value=0,
        compressors=[ZstdCodec(level=9), Crc32cCodec()],
        dimension_names=dimension_names(("reduction", "prefix_value", "tile_y", "tile_x"), group.attrs),
        attributes={"prefix_value": ["bytes", "crc32c"]},
    )


def fill_prefixes(
    path: Path,
    counts: tuple[int, int],
    read: Callable[[int, int], bytes],
    lengths: Callable[[bytes], Sequence[int]],
) -> None:
    """Fill the array of a group whose chunks are all written.

    Parameters
    ----------
    path
        Folder of the group.
    counts
        Chunks of its latents along y and x.
    read
        Gives the payload of a chunk by its row and column.
    lengths
        Gives the bytes of a payload that each reduction needs.
    """
    places = [(y, x) for y in range(counts[0]) for x in range(counts[1])]

    def starts(place: tuple[int, int]) -> list[Start]:
        payload = read(*place)
        return [start_of(payload, size) for size in lengths(payload)]

    values = np.array(each(starts, places), np.uint32).reshape(*counts, -1, 2)
    array: Any = zarr.open_array(str(path / PREFIX), mode="r+", zarr_format=3)
    array[:] = values.transpose(2, 3, 0, 1)


class Prefixes:
    """Reads the array, once for all chunks.

    Parameters
    ----------
    array
        ``prefix`` of a group; None where it has none.
    counts
        Chunks of its latents along y and x.

    Raises
    ------
    CorruptDataError
        If the array is of other chunks.
    """

    def __init__(self, array: zarr.Array[Any] | None, counts: Sequence[int]) -> None:
        self._array, self.counts = array, (counts[0], counts[1])
        self._values: npt.NDArray[np.uint32] | None = None
        self._lock = threading.Lock()
        if array is None:
            return
        if (
            array.ndim != 4
            or array.shape[1:] != (2, *counts)
            or array.shape[0] > _MOST
            or array.dtype != np.uint32
        ):
            raise CorruptDataError(
                f"{self._where}: {array.dtype} {array.shape}; expected uint32 (reduction, 2, {counts[0]}, {counts[1]}) of at most {_MOST} reductions; the "
                "store was changed, write it again"
            )

    def of(self, y: int, x: int, reduction: int) -> Start | None:
        """What to read of a chunk for a reduction; None where all of it is needed, or it is not known.

        Raises
        ------
        CorruptDataError
            If the array cannot be read.
        """
        if self._array is None or reduction > self._array.shape[0]:
            return None
        size, crc = (int(v) for v in self._read()[reduction - 1, :, y, x])
        return Start(size, crc) if size else None

    def _read(self) -> npt.NDArray[np.uint32]:
        with self._lock:
            if self._values is None:
                array: Any = self._array
                try:
                    self._values = np.asarray(array[:])
                except StacLatentError:
                    raise
                except UNREADABLE as exc:
                    raise CorruptDataError(
                        f"{self._where} does not decode: {exc}; fetch or write the store again"
                    ) from exc
            return self._values

    @property
    def _where(self) -> str:
        path = "" if self._array is None else str(self._array.store_path)
        return path.removeprefix("wrapping-")
