"""The zarr codec ``stac_latent``: entropy-coded chunks inside an ordinary Zarr v3 array.

A zarr codec sees one chunk and its own configuration. The configuration therefore names the space; the bundle is
found by that digest among the codecs already opened in this process, the installed ones and the local cache.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

from stac_latent.codec.registry import resolve_space
from stac_latent.errors import CorruptDataError, StacLatentError
from stac_latent.system.limits import at_most

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

    from stac_latent.aliases import Array
    from stac_latent.codec.codec import Codec

__all__ = ["Encoder", "LatentZarrCodec"]

NAME = "stac_latent"
_ROOM = 16
"""Bytes that decoding may take for each value of a chunk."""
_SLACK = 1 << 20


class Encoder(Protocol):
    """What codes chunks: a codec, or :class:`~stac_latent.store.zarr.precoded.Precoded`."""

    def entropy_encode(self, symbols: Array) -> bytes:
        """Symbols ``(channel, y, x)`` to one bitstream."""
        ...


@dataclass(frozen=True)
class LatentZarrCodec(ArrayBytesCodec):
    """Codes each chunk ``(channel, y, x)`` of symbols as one bitstream.

    Parameters
    ----------
    space
        Digest of the codec bundle.
    bitstream
        Container of the payload, for readers that look without decoding.
    part
        Which of the codec's lattices the array holds.
    """

    is_fixed_size = False

    space: str
    bitstream: str
    part: int = 0
    encoder: Encoder | None = field(default=None, compare=False, repr=False)
    """What to encode with, where it is not the plain codec of the space: one with a target, for instance, or payloads that are
    known already."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the codec's entry in ``zarr.json``."""
        config = data.get("configuration")
        if not isinstance(config, dict) or set(config) - {"part"} != {"space", "bitstream"}:
            raise CorruptDataError(
                f"codec {NAME!r} in zarr.json needs a space and a bitstream; got {config!r}"
            )
        part = config.get("part", 0)
        if type(part) is not int or part < 0:
            raise CorruptDataError(f"codec {NAME!r} in zarr.json declares part {part!r}; expected 0, 1, ...")
        return cls(str(config["space"]), str(config["bitstream"]), part)

    def to_dict(self) -> dict[str, Any]:
        """Entry for ``zarr.json``."""
        config: dict[str, Any] = {"space": self.space, "bitstream": self.bitstream}
        return {"name": NAME, "configuration": config | ({"part": self.part} if self.part else {})}

    def _codec(self) -> Codec:
        parts = resolve_space(self.space).grid_chains
        if self.part >= len(parts):
            raise CorruptDataError(
                f"a chunk is of part {self.part} of {self.space}, which has {len(parts)}; the store was changed"
            )
        return parts[self.part]

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode, chunk_bytes, chunk_spec)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode, chunk_array, chunk_spec)

    def _decode(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        room = math.prod(chunk_spec.shape) * _ROOM + _SLACK
        try:
            with at_most(room):
                symbols = self._codec().entropy_decode(chunk_bytes.to_bytes())
        except StacLatentError:
            raise
        except (ValueError, AssertionError, IndexError, MemoryError) as exc:
            raise CorruptDataError(f"a chunk of {self.space} does not decode: {exc}") from exc
        symbols = _filled(symbols, chunk_spec.shape)
        if symbols.shape != chunk_spec.shape:
            raise CorruptDataError(
                f"a chunk decodes to shape {symbols.shape}; the array has chunks {chunk_spec.shape}"
            )
        dtype = chunk_spec.dtype.to_native_dtype()
        if symbols.dtype.kind == "c" != dtype.kind:
            raise CorruptDataError(f"a chunk decodes to complex values; the array is of {dtype}")
        return chunk_spec.prototype.nd_buffer.from_numpy_array(symbols.astype(dtype, copy=False))

    def _encode(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        symbols = np.ascontiguousarray(chunk_array.as_numpy_array())
        payload = (self.encoder or self._codec()).entropy_encode(symbols)
        return chunk_spec.prototype.buffer.from_bytes(payload)

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Refuse: entropy-coded sizes are not known beforehand."""
        raise CorruptDataError(
            f"the size of a {NAME!r} chunk is not known from {input_byte_length} bytes of input"
        )


def _filled(symbols: Array, shape: tuple[int, ...]) -> Array:
    """A chunk at the lower or right end of an array of floats or complex values, with NaN where the array has ended."""
    if symbols.dtype.kind not in "fc" or symbols.shape == shape or symbols.ndim != len(shape):
        return symbols
    if any(n > m for n, m in zip(symbols.shape, shape, strict=True)) or symbols.shape[0] != shape[0]:
        return symbols
    out = np.full(shape, np.nan, symbols.dtype)
    out[:, : symbols.shape[1], : symbols.shape[2]] = symbols
    return out


register_codec(NAME, LatentZarrCodec)  # beside the entry point, which a copy that is not installed lacks
