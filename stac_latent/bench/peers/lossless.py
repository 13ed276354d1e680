"""Lossless coders: GeoTIFFs as they are published, JPEG XL."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import numpy as np

from stac_latent.bench.coder import Array, Context, Framed, UnavailableError, need
from stac_latent.bench.integers import pack_integers, to_type, unpack_integers
from stac_latent.bench.peers.jpeg2000 import split

__all__ = ["CogDeflate", "CogZstd", "JpegXlLossless"]


class CogDeflate(Framed):
    """Cloud-optimised GeoTIFF, deflate with a predictor, GDAL's default level."""

    name = "COG deflate"
    knob = "lossless"
    knobs = (0.0,)
    lossless = True
    compression = "DEFLATE"

    def encode_filled(self, x: Array, knob: float) -> bytes:
        """See :class:`~stac_latent.bench.coder.Framed`."""
        del knob
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.io import MemoryFile

        profile = {"count": len(x), "height": x.shape[1], "width": x.shape[2], "dtype": x.dtype.name}
        options = {"compress": self.compression, "predictor": "YES", "overviews": "NONE"}
        with warnings.catch_warnings(), MemoryFile(ext=".tif") as file:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with file.open(driver="COG", num_threads=self.context.threads, **options, **profile) as dst:
                dst.write(x)
            return bytes(file.read())

    def decode_filled(self, data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
        """Inverse of :meth:`encode_filled`."""
        del shape, dtype
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.io import MemoryFile

        with warnings.catch_warnings(), MemoryFile(data, ext=".tif") as file:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with file.open(num_threads=self.context.threads) as src:
                return np.asarray(src.read())


class CogZstd(CogDeflate):
    """Cloud-optimised GeoTIFF, zstd with a predictor, GDAL's default level."""

    name = "COG zstd"
    compression = "ZSTD"


class JpegXlLossless(Framed):
    """JPEG XL without loss, effort 7, each band a grey image of 16 bits; integers only."""

    name = "JPEG XL per band, lossless"
    knob = "lossless"
    knobs = (0.0,)
    lossless = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.codecs = need("imagecodecs", self.name)
        wide = sorted({b.data_type for b in context.bands} - {"uint8", "int8", "uint16", "int16"})
        if wide:
            raise UnavailableError(f"{self.name} codes integers of at most 16 bits; got {', '.join(wide)}")

    def encode_filled(self, x: Array, knob: float) -> bytes:
        """See :class:`~stac_latent.bench.coder.Framed`."""
        del knob
        head, levels = pack_integers(x, signed=False)
        options = {"lossless": True, "effort": 7, "numthreads": self.context.threads}
        parts = [bytes(self.codecs.jpegxl_encode(np.ascontiguousarray(b), **options)) for b in levels]
        return head + b"".join(struct.pack("<I", len(p)) + p for p in parts)

    def decode_filled(self, data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
        """Inverse of :meth:`encode_filled`."""
        start, offset, _ = unpack_integers(data, shape[0], dtype, signed=False)
        threads = self.context.threads
        levels = [
            self.codecs.jpegxl_decode(p, numthreads=threads).reshape(shape[1:])
            for p in split(data[start:], shape[0])
        ]
        return to_type(np.stack(levels) + offset[:, None, None], dtype)
