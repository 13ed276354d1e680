"""The codec of arrays for Zarr 3: pixels of any array, chunk by chunk, as this package's codecs write them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

from stac_latent.arrays.array_chunk import decode_chunk, encode_chunk
from stac_latent.arrays.settings import NAME, Settings
from stac_latent.errors import CodecError, OptionError
from stac_latent.store.zarr.codec import Decoded, chunk_shape, warn_of_part

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

__all__ = ["Latent"]


@dataclass(frozen=True, init=False, repr=False)
class Latent(ArrayBytesCodec):
    """Codes arrays with a codec of this package: give it to Zarr or xarray as ``serializer``.

    Nothing is lost unless you say how much. Rows and columns are the last two axes, and the axes before them are bands. Name and
    options are the whole configuration: ``zarr.json`` holds them, and any process with stac-latent installed reads the array.

    Parameters
    ----------
    codec
        Name of an installed codec. ``"lin"`` takes any bands and types.
    error_bound
        Largest error of every value, in the array's unit, or as a text such as ``"1%"`` of each value. 0 is lossless, and what is done
        without any target.
    psnr
        At least this [dB], of each chunk. At most one of the five targets is given.
    max_bits_per_pixel
        At most this many bits for each value of a chunk.
    max_error
        At most this absolute error.
    quality
        0 to 100; 50 is the codec's own step, 10 more halve it.
    step
        Quantiser step, in the array's unit.
    nodata
        Value that is kept exactly, and that no other value becomes; default: the array's fill value.
    band_axis
        Axis of the bands where it is another: -1 for ``(y, x, band)``.

    Raises
    ------
    CodecError
        If there is no such codec, or it cannot do what is asked of it.
    OptionError
        If there is no such option.

    Examples
    --------
    >>> import zarr
    >>> x = np.hypot(*np.mgrid[:64, :64]).astype(np.float32)
    >>> a = zarr.create_array({}, data=x, chunks=(64, 64), serializer=Latent(error_bound=0.5), compressors=None)
    >>> bool(abs(a[:] - x).max() <= 0.5)
    True
    """

    is_fixed_size = False

    settings: Settings

    def __init__(self, codec: str = "lin", **options: Any) -> None:
        object.__setattr__(self, "settings", Settings.of({"codec": codec, **options}, "Latent()"))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the codec's entry in ``zarr.json``."""
        config = data.get("configuration", {})
        if not isinstance(config, dict):
            raise OptionError(f"codec {NAME!r} takes a configuration of options by name; got {config!r}")
        codec = cls.__new__(cls)
        object.__setattr__(codec, "settings", Settings.from_config(config, f"codec {NAME!r}"))
        return codec

    def to_dict(self) -> dict[str, Any]:
        """Entry for ``zarr.json``."""
        return {"name": NAME, "configuration": self.settings.to_config()}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays whose chunks can never be coded; zarr asks when an array is made or opened.

        Raises
        ------
        FieldError
            If type, dimensions or bands are none that the codec takes.
        """
        self.settings.check(dtype.to_native_dtype(), chunk_shape(chunk_grid, shape))

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """The same codec; of chunks within shards, which :meth:`validate` is not asked for, the same are refused."""
        self.settings.check(array_spec.dtype.to_native_dtype(), array_spec.shape)
        return self

    def __repr__(self) -> str:
        return f"Latent({', '.join(f'{k}={v!r}' for k, v in self.settings.to_config().items())})"

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode, chunk_bytes, chunk_spec)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode, chunk_array, chunk_spec)

    def _decode(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        chunk = decode_chunk(chunk_bytes.to_bytes(), self.settings, chunk_spec.shape, dtype)
        values = chunk.values.astype(dtype, copy=False)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(
            values if chunk.exact else values.view(Decoded)
        )

    def _encode(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        values = chunk_array.as_numpy_array()
        warn_of_part(values, NAME)
        payload = encode_chunk(np.asarray(values), self.settings, chunk_spec.fill_value)
        return chunk_spec.prototype.buffer.from_bytes(payload)

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Refuse: sizes are not known beforehand."""
        raise CodecError(f"the size of a {NAME!r} chunk is not known from {input_byte_length} bytes of input")


register_codec(NAME, Latent)  # beside the entry point, which a copy that is not installed lacks
