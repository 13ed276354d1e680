"""The zarr codec ``stac_latent``: entropy-coded chunks inside an ordinary Zarr v3 array.

A zarr codec sees one chunk and its own configuration. The configuration therefore names the space; the bundle is
found by that digest among the codecs already opened in this process, the installed ones and the local cache.
"""

from __future__ import annotations

import asyncio
import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

from stac_latent.codec.registry import opened, resolve_space
from stac_latent.errors import CodecError, CorruptDataError, FieldError, StacLatentError
from stac_latent.system.limits import at_most

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.chunk_grids import ChunkGrid

    from stac_latent.aliases import Array
    from stac_latent.codec.codec import Codec

__all__ = ["Decoded", "Encoder", "LatentZarrCodec", "chunk_shape", "warn_of_part"]

NAME = "stac_latent"
_MEMBERS = ("space", "bitstream", "part", "reference")
_ROOM = 16
"""Bytes that decoding may take for each value of a chunk."""
_SLACK = 1 << 20


class Decoded(np.ndarray):
    """Values as a chunk decodes to them, with loss. What zarr reads of them is copied into arrays without this mark.

    A chunk of which a part is written is this with some values replaced: by the mark its codec knows.
    """


def warn_of_part(values: Array, name: str) -> None:
    """Warn where a chunk to encode is one that was decoded, a part of which was written."""
    if isinstance(values, Decoded):
        warnings.warn(
            f"part of a chunk was written in an array of codec {name!r}, which loses some: the rest of the chunk was decoded and is "
            "coded once more, so that values nobody wrote may move, each time by as much as the codec loses. Write whole chunks "
            f"({' x '.join(map(str, values.shape))})",
            stacklevel=2,
        )


def chunk_shape(grid: ChunkGrid, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an array's chunks; that of the array where they differ."""
    described: Any = grid.to_dict()  # classes of grids are others in zarr 3.1 and 3.4
    return tuple(described["configuration"]["chunk_shape"]) if described["name"] == "regular" else shape


class Encoder(Protocol):
    """What codes chunks: a codec, or :class:`~stac_latent.store.zarr.precoded.Precoded`."""

    def entropy_encode(self, symbols: Array) -> bytes:
        """Symbols ``(channel, y, x)`` to one bitstream."""
        ...


@dataclass(frozen=True)
class LatentZarrCodec(ArrayBytesCodec):
    """Codes each chunk ``(channel, y, x)`` of symbols, or ``(chip, channel, y, x)`` of one chip, as one bitstream.

    Parameters
    ----------
    space
        Digest of the codec bundle.
    bitstream
        Container of the payload, for readers that look without decoding.
    part
        Which of the codec's lattices the array holds.
    reference
        Address of the store of a key frame, where the array holds what that leaves of the latents: what is decoded here is the
        difference alone.
    """

    is_fixed_size = False

    space: str
    bitstream: str
    part: int = 0
    reference: str | None = None
    encoder: Encoder | None = field(default=None, compare=False, repr=False)
    """What to encode with, where it is not the plain codec of the space: one with a target, for instance, or payloads that are
    known already."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the codec's entry in ``zarr.json``."""
        config = data.get("configuration")
        if not isinstance(config, dict) or not {"space", "bitstream"} <= set(config):
            raise CorruptDataError(
                f"codec {NAME!r} in zarr.json needs a space and a bitstream; got {config!r}"
            )
        if unknown := sorted(set(config) - set(_MEMBERS)):
            raise CorruptDataError(
                f"codec {NAME!r} in zarr.json has {', '.join(map(repr, unknown))} in its configuration, and this version knows "
                f"{', '.join(_MEMBERS)}: what it would decode may be wrong; upgrade stac-latent (pip install -U stac-latent)"
            )
        part, reference = config.get("part", 0), config.get("reference")
        if type(part) is not int or part < 0:
            raise CorruptDataError(f"codec {NAME!r} in zarr.json declares part {part!r}; expected 0, 1, ...")
        if not isinstance(reference, str | None):
            raise CorruptDataError(
                f"codec {NAME!r} in zarr.json declares reference {reference!r}; expected the address of a store"
            )
        return cls(str(config["space"]), str(config["bitstream"]), part, reference)

    def to_dict(self) -> dict[str, Any]:
        """Entry for ``zarr.json``."""
        config: dict[str, Any] = {"space": self.space, "bitstream": self.bitstream}
        config |= {"part": self.part} if self.part else {}
        return {
            "name": NAME,
            "configuration": config | ({"reference": self.reference} if self.reference else {}),
        }

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: ChunkGrid) -> None:
        """Refuse arrays that hold no symbols of the space, where this process has opened its codec.

        Raises
        ------
        FieldError
            If dimensions, channels or type are others.
        """
        whole = opened(self.space)
        if whole is None or self.part >= len(whole.grid_chains):
            return
        spec, chunk, kind = (
            whole.grid_chains[self.part].spec,
            chunk_shape(chunk_grid, shape),
            dtype.to_native_dtype(),
        )
        if (
            chunk[:-3] not in ((), (1,))
            or len(chunk) < 3
            or chunk[-3] != spec.dimensions
            or not np.can_cast(spec.data_type, kind, "same_kind")
        ):
            raise FieldError(
                f"codec {NAME!r} of space {self.space[:23]}... codes chunks (channel, y, x) of {spec.dimensions} channels of {spec.data_type}; "
                f"the array has chunks of {chunk} {kind}. To code pixels, take stac_latent.Latent as the serializer"
            )

    def _codec(self) -> Codec:
        parts = resolve_space(self.space).grid_chains
        if self.part >= len(parts):
            raise CorruptDataError(
                f"a chunk is of part {self.part} of {self.space}, which has {len(parts)}; the store was changed"
            )
        part = parts[self.part]
        if part.bitstream != self.bitstream:
            raise CodecError(
                f"a chunk is of bitstream {self.bitstream!r}, and the codec {part.name!r} of its space reads {part.bitstream!r}: the "
                "store was changed, or a newer version wrote it; upgrade stac-latent (pip install -U stac-latent)"
            )
        return part

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
        symbols = _filled(symbols, chunk_spec.shape[-3:])
        if chunk_spec.shape[:-3] == (1,):  # of many chips, one
            symbols = symbols[np.newaxis]
        if symbols.shape != chunk_spec.shape:
            raise CorruptDataError(
                f"a chunk decodes to shape {symbols.shape}; the array has chunks {chunk_spec.shape}"
            )
        dtype = chunk_spec.dtype.to_native_dtype()
        if symbols.dtype.kind == "c" != dtype.kind:
            raise CorruptDataError(f"a chunk decodes to complex values; the array is of {dtype}")
        symbols = symbols.astype(dtype, copy=False)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(
            symbols if self._codec().exact_symbols else symbols.view(Decoded)
        )

    def _encode(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        symbols = chunk_array.as_numpy_array()
        warn_of_part(symbols, NAME)
        symbols = np.ascontiguousarray(symbols.reshape(symbols.shape[-3:]))
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
