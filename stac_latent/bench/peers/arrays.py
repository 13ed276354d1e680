"""Coders of floating-point arrays with bounded error: SPERR, SZ3, ZFP, LERC."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from stac_latent.bench.coder import Array, Context, Framed, UnavailableError, need
from stac_latent.bench.integers import to_type
from stac_latent.bench.peers.jpeg2000 import split

__all__ = ["Lerc", "Sperr", "Sz3", "Zfp"]

_BELOW_PEAK = tuple(float(k) for k in range(12, 73, 3))


class OneArray(Framed):
    """Base of the coders of one float32 array: the scales of bands of unlike units, then the library's bytes.

    The knob is the error bound (or the target), in dB below the peak. Bands with a scale share the unit of the peak; others are
    divided by their range, so that one bound holds for all of them.
    """

    knob = "error bound [dB below the peak]"
    knobs = _BELOW_PEAK
    library = ""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.codecs = need("imagecodecs", self.name)
        if not getattr(getattr(self.codecs, self.library, None), "available", False):
            raise UnavailableError(f"{self.name}: this build of imagecodecs has no {self.library}")
        self._own_range = any(b.scale == 1.0 for b in context.bands)

    def encode_filled(self, x: Array, knob: float) -> bytes:
        """See :class:`~stac_latent.bench.coder.Framed`."""
        y, head = x.astype(np.float32), b""
        peak = self.context.peak
        if self._own_range:
            low = x.min(axis=(1, 2)).astype("<f4")
            width = np.maximum(x.max(axis=(1, 2)) - low, np.finfo("<f4").tiny).astype("<f4")
            y = ((x - low[:, None, None].astype(np.float64)) / width[:, None, None]).astype(np.float32)
            head, peak = low.tobytes() + width.tobytes(), 1.0
        return head + self.encode_array(np.ascontiguousarray(y), peak * 10 ** (-knob / 20))

    def decode_filled(self, data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
        """Inverse of :meth:`encode_filled`."""
        if not self._own_range:
            return to_type(self.decode_array(data, shape).reshape(shape), dtype)
        low, width = np.frombuffer(data, "<f4", 2 * shape[0]).astype(np.float64).reshape(2, -1, 1, 1)
        y = self.decode_array(data[8 * shape[0] :], shape).reshape(shape)
        return to_type(y * width + low, dtype)

    def encode_array(self, x: Array, bound: float) -> bytes:
        """A float32 array ``(band, y, x)`` as bytes."""
        raise UnavailableError(f"{self.name} cannot code {x.dtype} within {bound}")

    def decode_array(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        """Inverse of :meth:`encode_array`."""
        raise UnavailableError(f"{self.name} cannot decode {len(data)} bytes to {shape}")


class Sperr(OneArray):
    """SPERR, wavelets over bands, rows and columns (one band: over rows and columns); aims at a squared error, as the others of its quality do."""

    name = "SPERR 3-D"
    library = "SPERR"
    knob = "target PSNR [dB]"

    def encode_array(self, x: Array, bound: float) -> bytes:
        """See :class:`OneArray`."""
        width = float(x.max() - x.min())
        if not width:
            return struct.pack("<Bf", 0, float(x.flat[0]))
        psnr = max(1.0, 20 * np.log10(width / bound))  # SPERR's peak is the range of the array
        shaped = x if len(x) > 1 else x[0]  # as a volume of one slice it does not decode
        data = self.codecs.sperr_encode(shaped, psnr, "psnr", numthreads=self.context.threads)
        return b"\x01" + bytes(data)

    def decode_array(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        """See :class:`OneArray`."""
        if not data[0]:
            return np.full(shape, struct.unpack_from("<f", data, 1)[0], np.float32)
        return np.asarray(self.codecs.sperr_decode(data[1:], numthreads=self.context.threads))


class Sz3(OneArray):
    """SZ3, interpolation over bands, rows and columns, bounded absolute error."""

    name = "SZ3 3-D"
    library = "SZ3"

    def encode_array(self, x: Array, bound: float) -> bytes:
        """See :class:`OneArray`."""
        return bytes(self.codecs.sz3_encode(x, mode="abs", abs=bound))

    def decode_array(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        """See :class:`OneArray`."""
        return np.asarray(self.codecs.sz3_decode(data, shape=shape, dtype=np.float32))


class Zfp(OneArray):
    """ZFP, blocks of 4 x 4 x 4, bounded absolute error."""

    name = "ZFP 3-D"
    library = "ZFP"
    knobs = tuple(float(k) for k in range(-12, 73, 4))

    def encode_array(self, x: Array, bound: float) -> bytes:
        """See :class:`OneArray`."""
        return bytes(self.codecs.zfp_encode(x, level=bound, mode="a"))

    def decode_array(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        """See :class:`OneArray`."""
        del shape
        return np.asarray(self.codecs.zfp_decode(data))


class Lerc(OneArray):
    """LERC with zstd, band by band, bounded absolute error."""

    name = "LERC per band"
    library = "LERC"

    def encode_array(self, x: Array, bound: float) -> bytes:
        """See :class:`OneArray`."""
        parts = [bytes(self.codecs.lerc_encode(b, level=bound, compression="zstd")) for b in x]
        return b"".join(struct.pack("<I", len(p)) + p for p in parts)

    def decode_array(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        """See :class:`OneArray`."""
        return np.stack([np.asarray(self.codecs.lerc_decode(p)) for p in split(data, shape[0])])
