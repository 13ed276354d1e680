"""Image coders, band by band: JPEG XL, HTJ2K, AVIF."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from stac_latent.bench.coder import Array, Context, Framed, UnavailableError, need
from stac_latent.bench.integers import pack_integers, to_type, unpack_integers
from stac_latent.bench.peers.jpeg2000 import split

__all__ = ["Avif", "Htj2k", "JpegXl"]


class PerBand(Framed):
    """Base of the coders of one 16-bit image, by imagecodecs: offsets, then each band after its length."""

    library = ""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.codecs = need("imagecodecs", self.name)
        if not getattr(getattr(self.codecs, self.library, None), "available", False):
            raise UnavailableError(f"{self.name}: this build of imagecodecs has no {self.library}")

    def encode_filled(self, x: Array, knob: float) -> bytes:
        """See :class:`~stac_latent.bench.coder.Framed`."""
        head, levels = pack_integers(x, signed=False)
        parts = [self.encode_band(np.ascontiguousarray(b), knob) for b in levels]
        return head + b"".join(struct.pack("<I", len(p)) + p for p in parts)

    def decode_filled(self, data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
        """Inverse of :meth:`encode_filled`."""
        start, offset, step = unpack_integers(data, shape[0], dtype, signed=False)
        levels = np.stack([self.decode_band(p).reshape(shape[1:]) for p in split(data[start:], shape[0])])
        return to_type(levels * step[:, None, None] + offset[:, None, None], dtype)

    def encode_band(self, band: Array, knob: float) -> bytes:
        """A uint16 band ``(y, x)`` as bytes."""
        raise UnavailableError(f"{self.name} cannot code {band.dtype} at {knob}")

    def decode_band(self, data: bytes) -> Array:
        """Inverse of :meth:`encode_band`."""
        raise UnavailableError(f"{self.name} cannot decode {len(data)} bytes")


class JpegXl(PerBand):
    """JPEG XL, effort 7, each band a grey image of 16 bits."""

    name = "JPEG XL per band"
    library = "JPEGXL"
    knob = "distance"
    knobs = (25.0, 18.0, 12.0, 8.0, 5.0, 3.0, 2.0, 1.3, 0.8, 0.5, 0.3, 0.15, 0.08, 0.04, 0.02, 0.01)

    def encode_band(self, band: Array, knob: float) -> bytes:
        """See :class:`PerBand`."""
        threads = self.context.threads
        return bytes(
            self.codecs.jpegxl_encode(band, distance=knob, effort=7, lossless=False, numthreads=threads)
        )

    def decode_band(self, data: bytes) -> Array:
        """See :class:`PerBand`."""
        return np.asarray(self.codecs.jpegxl_decode(data, numthreads=self.context.threads))


class Htj2k(PerBand):
    """High-throughput JPEG 2000 by OpenJPH, each band a codestream; all bands with one step, hence one slope."""

    name = "HTJ2K per band"
    library = "HTJ2K"
    knob = "quantiser step, of the range of 16 bits"
    knobs = tuple(float(f"{0.2 * 0.62**k:.4g}") for k in range(22))

    def encode_band(self, band: Array, knob: float) -> bytes:
        """See :class:`PerBand`."""
        levels = int(max(1, min(5, np.log2(min(band.shape)))))
        return bytes(self.codecs.htj2k_encode(band, level=knob, reversible=False, resolutions=levels))

    def decode_band(self, data: bytes) -> Array:
        """See :class:`PerBand`."""
        return np.asarray(self.codecs.htj2k_decode(data))


class Avif(PerBand):
    """AVIF (AV1), speed 6, each band a grey image of 12 bits: values lose what 12 bits do not hold.

    Given one channel of 12 bits, the encoder of imagecodecs ignores the quality and stays lossless. Three equal channels
    stored as 4:0:0 hold the same grey image and obey it; the peer checks that they do before it takes part.
    """

    name = "AVIF per band"
    library = "AVIF"
    knob = "quality"
    knobs = (1.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 87.0, 92.0, 96.0, 98.0, 99.0)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        ramp = (np.add.outer(np.arange(64), np.arange(64)) * 37 % 4096).astype(np.uint16)
        if len(self._grey(ramp, 10)) >= len(self._grey(ramp, 95)):
            raise UnavailableError(
                "AVIF per band: this build of imagecodecs codes 12-bit grey without loss whatever the quality; no curve"
            )

    def encode_band(self, band: Array, knob: float) -> bytes:
        """Smallest value and width of a level, then the image."""
        low = int(band.min())
        width = max(1.0, (int(band.max()) - low) / 4095)
        grey = np.rint((band - np.float64(low)) / np.float32(width)).astype(np.uint16)
        return struct.pack("<Hf", low, width) + self._grey(np.minimum(grey, 4095), round(knob))

    def decode_band(self, data: bytes) -> Array:
        """Inverse of :meth:`encode_band`."""
        low, width = struct.unpack_from("<Hf", data)
        image = self.codecs.avif_decode(data[6:], numthreads=self.context.threads)
        grey = image if image.ndim == 2 else image[..., 0]
        return np.asarray(grey * np.float64(width) + low)

    def _grey(self, image: Array, quality: int) -> bytes:
        channels = np.repeat(image[..., None], 3, axis=-1)
        options = {"bitspersample": 12, "pixelformat": "400", "speed": 6, "numthreads": self.context.threads}
        return bytes(self.codecs.avif_encode(channels, level=quality, **options))
