"""Residuals in a latent group: one payload for each stored chunk of the latents.

``residual (tile_y, tile_x, byte)`` is an ordinary uint8 array: uint32 length, payload, zeros up to the end, which zstd makes
vanish. One inner chunk is one payload, so that a window costs those of the chunks that it touches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from zarr.codecs import Crc32cCodec, ZstdCodec

from stac_latent.errors import CorruptDataError, StacLatentError
from stac_latent.extension.features import group_features
from stac_latent.secure import Encrypt
from stac_latent.store.georeference import dimension_names
from stac_latent.store.zarr.chips import AnyArray
from stac_latent.store.zarr.encrypted_store import for_writing
from stac_latent.store.zarr.trust import UNREADABLE

__all__ = ["SPARSE", "ResidualWriter", "mark_residual", "read_residual"]

SPARSE = "-sparse"
"""Ends the identifier of residuals that only some chunks have; the others say so, so that a lost one is still missed."""
_NONE = 2**32 - 1
"""Length of a chunk without a residual."""
_LENGTH = 4
_SHARD_BYTES = 128 << 20
_LARGEST = 1 << 30


class ResidualWriter:
    """Adds the array to a group and fills it, shard by shard.

    Parameters
    ----------
    path
        Folder of the group.
    counts
        Chunks of the latents along y and x.
    size
        Bytes of a payload, at most.
    encryption
        Encrypts the payloads, which are then not gathered in shards.
    """

    def __init__(
        self, path: Path, counts: tuple[int, int], size: int, encryption: Encrypt | None = None
    ) -> None:
        self.counts, self.size = counts, size + _LENGTH
        self.side = max(1, min(8, int((_SHARD_BYTES / self.size) ** 0.5)))
        self.shape = (min(self.side, counts[0]), min(self.side, counts[1]))
        group = zarr.open_group(for_writing(path, encryption), mode="r+", zarr_format=3)
        with zarr.config.set({"json_indent": None}):
            self.array: zarr.Array[Any] = group.create_array(
                "residual",
                shape=(*counts, self.size),
                dtype="uint8",
                chunks=(1, 1, self.size),
                shards=(*self.shape, self.size) if encryption is None else None,
                compressors=[ZstdCodec(level=3), Crc32cCodec()],
                dimension_names=dimension_names(("tile_y", "tile_x", "byte"), group.attrs),
                config={"write_empty_chunks": True},
            )

    def write(self, payloads: Mapping[tuple[int, int], bytes]) -> None:
        """The payloads of one shard, by their numbers along y and x; an empty one says that the chunk has none."""
        ys, xs = ([place[i] for place in payloads] for i in (0, 1))
        y0, x0 = min(ys), min(xs)
        block = np.zeros((max(ys) + 1 - y0, max(xs) + 1 - x0, self.size), np.uint8)
        for (y, x), payload in payloads.items():
            data = (len(payload) or _NONE).to_bytes(_LENGTH, "little") + payload
            block[y - y0, x - x0, : len(data)] = np.frombuffer(data, np.uint8)
        self.array[y0 : y0 + len(block), x0 : x0 + block.shape[1]] = block


def mark_residual(path: Path, form: str) -> None:
    """Say in the attributes of a group that it has residuals of this form."""
    with zarr.config.set({"json_indent": None}):
        attrs = zarr.open_group(str(path), mode="r+", zarr_format=3).attrs
        attrs.put(group_features({**attrs, "latent:residual": form}))


def read_residual(array: AnyArray | None, y: int, x: int, *, sparse: bool = False) -> bytes:
    """Payload of one chunk; empty where ``sparse`` residuals have none for it.

    Raises
    ------
    CorruptDataError
        If it is missing, or the stored bytes do not hold.
    """
    if (
        array is None
        or array.ndim != 3
        or array.dtype != np.uint8
        or not _LENGTH < array.chunks[2] <= _LARGEST
    ):
        raise CorruptDataError(
            "the array residual must be uint8 (tile_y, tile_x, byte); the store was changed, write it again"
        )
    where = f"{str(array.store_path).removeprefix('wrapping-')}: chunk ({y}, {x})"
    if y >= array.shape[0] or x >= array.shape[1]:
        raise CorruptDataError(f"{where} is not there; the array has {array.shape[:2]}")
    try:
        data = np.asarray(array[y, x]).tobytes()
    except StacLatentError:
        raise
    except UNREADABLE as exc:
        raise CorruptDataError(f"{where} does not decode: {exc}; fetch or write the store again") from exc
    length = int.from_bytes(data[:_LENGTH], "little")
    if sparse and length == _NONE:
        return b""
    if not 0 < length <= len(data) - _LENGTH:
        raise CorruptDataError(f"{where} is missing or cut short; fetch or write the store again")
    return data[_LENGTH : _LENGTH + length]
