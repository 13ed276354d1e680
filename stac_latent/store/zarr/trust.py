"""What a Zarr array may ask of its reader: few codecs, chunks of bounded size, and chunks that inflate to what they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import zarr
import zarr.errors
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.registry import register_codec

from stac_latent.errors import CorruptDataError
from stac_latent.store.zarr.codec import LatentZarrCodec

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

__all__ = ["CONFIG", "UNREADABLE", "BoundedZstd", "check_array", "inflated_size"]

_MAX_CHUNK_BYTES = 1 << 30
_MAX_PER_SHARD = 1 << 16
_MAX_CHUNKS = 1 << 24
_MAX_CHANNELS = 1 << 16
_PLAIN = (BytesCodec, TransposeCodec, Crc32cCodec, ZstdCodec, LatentZarrCodec)
UNREADABLE = (
    OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError, MemoryError,
    AssertionError, RuntimeError, zarr.errors.BaseZarrError,
)  # fmt: skip
"""What zarr raises for stores that are not as they should be."""
_MAGIC = b"\x28\xb5\x2f\xfd"


class BoundedZstd(ZstdCodec):
    """zstd that reads a frame's declared size before it allocates it: no more than the chunk has room for."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        room = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        size = inflated_size(chunk_bytes.as_numpy_array()[:18].tobytes())
        if size is None or size > room:
            raise CorruptDataError(
                f"a zstd chunk declares {'no size' if size is None else f'{size} bytes'}; its array has room for {room}"
            )
        return super()._decode_sync(chunk_bytes, chunk_spec)


def inflated_size(frame: bytes) -> int | None:
    """Bytes that a zstd frame says it inflates to (RFC 8878, 3.1.1.1); None where it does not say.

    Examples
    --------
    >>> from numcodecs.zstd import Zstd
    >>> inflated_size(Zstd().encode(bytes(1000)))
    1000
    """
    if frame[:4] != _MAGIC or len(frame) < 6:
        return None
    flags = frame[4]
    single, width = bool(flags & 32), (1 if flags & 32 else 0, 2, 4, 8)[flags >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    if not width or len(frame) < at + width:
        return None
    return int.from_bytes(frame[at : at + width], "little") + (256 if width == 2 else 0)


register_codec("zstd", BoundedZstd)
CONFIG = {"codecs.zstd": f"{BoundedZstd.__module__}.{BoundedZstd.__qualname__}"}
"""Setting of zarr under which arrays are opened for reading."""


def check_array(array: zarr.Array[Any], name: str, ndim: int, kinds: str) -> None:
    """Refuse an array that is not as the writer makes them, before a byte of it is read.

    Raises
    ------
    CorruptDataError
        For other dimensions, types, codecs, or chunks that are too large or too many.
    """
    if array.ndim != ndim or array.dtype.kind not in kinds:
        raise CorruptDataError(
            f"{name} must be an array of {ndim} dimensions and a type of kind {kinds!r}; got {array.shape}, {array.dtype}"
        )
    if array.chunks and (min(array.chunks) < 1 or min(array.shape) < 0):
        raise CorruptDataError(f"{name} declares chunks of {array.chunks} in {array.shape}, which cannot be")
    for size in (array.chunks, array.shards or ()):
        if math.prod(size) * array.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise CorruptDataError(
                f"{name} declares chunks of {size}; more than {_MAX_CHUNK_BYTES} bytes each"
            )
    outer = array.shards or array.chunks
    per = math.prod(-(-s // c) for s, c in zip(outer, array.chunks, strict=True))
    count = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
    if per > _MAX_PER_SHARD or count > _MAX_CHUNKS or (ndim >= 3 and array.shape[-3] > _MAX_CHANNELS):
        raise CorruptDataError(
            f"{name} declares {count} chunks, {per} in a shard, and shape {array.shape}; at most {_MAX_CHUNKS} chunks, "
            f"{_MAX_PER_SHARD} in a shard and {_MAX_CHANNELS} channels are read"
        )
    _check_codecs(getattr(array.metadata, "codecs", ()), name)


def _check_codecs(codecs: tuple[Any, ...], name: str) -> None:
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            _check_codecs((*codec.codecs, *codec.index_codecs), name)
            if any(isinstance(inner, ShardingCodec) for inner in codec.codecs):
                raise CorruptDataError(f"{name} has shards within shards, which are not read")
        elif not isinstance(codec, _PLAIN):
            raise CorruptDataError(
                f"{name} is stored with the codec {type(codec).__name__}; latents are read with bytes, transpose, zstd, crc32c, "
                "sharding and stac_latent: write it anew with one of these"
            )
