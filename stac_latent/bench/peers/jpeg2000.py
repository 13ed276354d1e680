"""JPEG 2000: band by band, all bands jointly, and behind a Karhunen-Loeve transform.

GDAL's OpenJPEG driver writes raw codestreams of int16 components, irreversible 9/7 wavelet; all components of a codestream share
the rate by its rate-distortion allocation.
"""

from __future__ import annotations

import struct
import warnings
from typing import Any

import numpy as np

from stac_latent.bench.coder import Array, Context, Framed, UnavailableError, need
from stac_latent.bench.integers import pack_integers, to_type, unpack_integers

__all__ = ["KltImage", "KltStatic", "PerBandQuality", "PerBandRate", "SharedRate"]

_RATES = tuple(round(0.02 * 1.5**k, 4) for k in range(21))
"""Percent of the raw bytes, 0.02 to 67."""
_RESOLUTIONS = 5
"""Four levels of the wavelet. GDAL's default gives a tile of 256 pixels only one, which costs 70 % at 40 dB."""
_UNIT = 1 << 14
"""Matrices are sent as int16, in units of 1 / 16384."""


def codestream(x: Array, percent: float, threads: int = 1) -> bytes:
    """JPEG 2000 codestream of int16 components ``(component, y, x)``, so many percent of their raw bytes."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    h, w = (max(32, n) for n in x.shape[1:])
    padded = np.pad(x, [(0, 0), (0, h - x.shape[1]), (0, w - x.shape[2])], mode="edge")
    profile = {"count": len(x), "height": h, "width": w, "dtype": x.dtype.name}
    options = {
        "QUALITY": str(min(100.0, percent)),
        "REVERSIBLE": "NO",
        "RESOLUTIONS": str(_RESOLUTIONS),
        "YCC": "NO",
        "CODEC": "J2K",
    }
    with (
        warnings.catch_warnings(),
        rasterio.Env(GDAL_NUM_THREADS=threads),
        MemoryFile(ext=".j2k") as file,
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(driver="JP2OpenJPEG", **options, **profile) as dst:
            dst.write(padded)
        return bytes(file.read())


def components(data: bytes, shape: tuple[int, int, int], threads: int = 1) -> Array:
    """Components of a codestream, cropped to ``shape``."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    with (
        warnings.catch_warnings(),
        rasterio.Env(GDAL_NUM_THREADS=threads),
        MemoryFile(data, ext=".j2k") as file,
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(driver="JP2OpenJPEG") as src:
            return np.asarray(src.read()[:, : shape[1], : shape[2]])


class SharedRate(Framed):
    """All bands as components of one codestream: the rate goes where it lowers the error most."""

    name = "JPEG 2000, rate shared among bands"
    knob = "percent of the raw bytes"
    knobs = _RATES

    def encode_filled(self, x: Array, knob: float) -> bytes:
        """Offsets, then the codestream."""
        head, levels = pack_integers(x, signed=True)
        return head + self._code(levels, knob)

    def decode_filled(self, data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
        """Inverse of :meth:`encode_filled`."""
        start, offset, step = unpack_integers(data, shape[0], dtype, signed=True)
        levels = self._decode(data[start:], shape)
        return to_type(levels * step[:, None, None] + offset[:, None, None], dtype)

    def _code(self, levels: Array, knob: float) -> bytes:
        return codestream(levels, knob, self.context.threads)

    def _decode(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        return components(data, shape, self.context.threads)


class PerBandRate(SharedRate):
    """Each band a codestream of its own, all at one rate: a product that gives every band file the same budget."""

    name = "JPEG 2000 per band, same rate"

    def _code(self, levels: Array, knob: float) -> bytes:
        parts = [codestream(b[None], knob, self.context.threads) for b in levels]
        return b"".join(struct.pack("<I", len(p)) + p for p in parts)

    def _decode(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        parts = split(data, shape[0])
        return np.concatenate([components(p, (1, *shape[1:]), self.context.threads) for p in parts])


class PerBandQuality(PerBandRate):
    """Each band a codestream of its own, all at one squared error, hence about one slope: the format Sentinel-2 ships in."""

    name = "JPEG 2000 per band, same quality"
    knob = "PSNR of each band [dB], peak 65535"
    knobs = tuple(float(p) for p in range(16, 91, 2))

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._codecs = need("imagecodecs", self.name)

    def _code(self, levels: Array, knob: float) -> bytes:
        options = {"level": knob, "reversible": False, "codecformat": "j2k", "resolutions": _RESOLUTIONS}
        parts = [
            bytes(self._codecs.jpeg2k_encode(b, numthreads=self.context.threads, **options)) for b in levels
        ]
        return b"".join(struct.pack("<I", len(p)) + p for p in parts)

    def _decode(self, data: bytes, shape: tuple[int, int, int]) -> Array:
        threads = self.context.threads
        return np.stack(
            [
                self._codecs.jpeg2k_decode(p, numthreads=threads).reshape(shape[1:])
                for p in split(data, shape[0])
            ]
        )


class KltImage(SharedRate):
    """KLT of the very image, then JPEG 2000 of its components: the strongest classical chain, its matrix counted.

    The matrix is sent as int16, for the components that the allocation spent bytes on; the others are left out.
    """

    name = "KLT of the image + JPEG 2000"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if len(context.bands) < 2:
            raise UnavailableError(f"{self.name} needs two bands or more; got {len(context.bands)}")

    def encode_filled(self, x: Array, knob: float) -> bytes:
        """Offsets, matrix, scale, codestream."""
        head, levels = pack_integers(x, signed=True)
        flat = levels.reshape(len(x), -1).astype(np.float64)
        matrix, sent = self._matrix(flat)
        latent = matrix @ flat
        scale = max(1.0, float(np.abs(latent).max()) / 32767)
        levels = np.rint(latent / np.float32(scale)).astype(np.int16).reshape(-1, *x.shape[1:])
        used, code = self._allocated(levels, knob)
        kept = np.packbits(np.isin(np.arange(len(levels)), used)).tobytes()
        body = sent(used) if sent else b""
        return head + struct.pack("<f", scale) + kept + body + code

    def decode_filled(self, data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
        """Inverse of :meth:`encode_filled`."""
        n = shape[0]
        start, offset, step = unpack_integers(data, n, dtype, signed=True)
        (scale,) = struct.unpack_from("<f", data, start)
        bits = -(-n // 8)
        used = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, bits, start + 4), count=n))
        matrix, size = self._received(data[start + 4 + bits :], used)
        latent = components(data[start + 4 + bits + size :], (len(used), *shape[1:]), self.context.threads)
        levels = (matrix.T @ (latent.reshape(len(used), -1) * np.float64(scale))).reshape(shape)
        return to_type(levels * step[:, None, None] + offset[:, None, None], dtype)

    def _allocated(self, levels: Array, knob: float) -> tuple[Array, bytes]:
        """Components that get bits, and their codestream; the first alone where none does.

        Empty components cost headers, so many bands start with sixteen components and get more where these do not do.
        """
        n = count = len(levels)
        used = np.zeros(0, np.int64)
        for count in sorted({min(16 * 2**k, n) for k in range(n.bit_length())}):
            code = codestream(levels[:count], knob * n / count, self.context.threads)
            used = np.flatnonzero(components(code, (count, *levels.shape[1:])).any(axis=(1, 2)))
            if len(used) < 0.75 * count:
                break
        if len(used) == count:
            return used, code
        used = used if len(used) else np.array([0])
        return used, codestream(levels[used], knob * n / len(used), self.context.threads)

    def _matrix(self, flat: Array) -> tuple[Array, Any]:
        """Analysis matrix, and what of it is sent for the components that are used."""
        sent = quantised(basis(flat))
        return sent.astype(np.float64) / _UNIT, lambda used: sent[used].tobytes()

    def _received(self, data: bytes, used: Array) -> tuple[Array, int]:
        n = len(self.context.bands)
        matrix = np.frombuffer(data, "<i2", len(used) * n).reshape(len(used), n)
        return matrix.astype(np.float64) / _UNIT, matrix.nbytes


class KltStatic(KltImage):
    """KLT fitted on other places, known to both sides, then JPEG 2000 of its components."""

    name = "KLT of other places + JPEG 2000"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if not context.fit:
            raise UnavailableError(
                f"{self.name} needs fitting places; the data set has none beside those raced on"
            )
        pixels = [pack_integers(self.filled(f), signed=True)[1].reshape(len(f), -1) for f in context.fit]
        self._static = (
            quantised(basis(np.concatenate(pixels, axis=1).astype(np.float64))).astype(np.float64) / _UNIT
        )

    def _matrix(self, flat: Array) -> tuple[Array, Any]:
        del flat
        return self._static, None

    def _received(self, data: bytes, used: Array) -> tuple[Array, int]:
        del data
        return self._static[used], 0


def basis(flat: Array) -> Array:
    """Eigenvectors of the covariance of ``(band, pixel)`` as rows, by falling eigenvalue; unit vectors for one pixel."""
    if flat.shape[1] < 2:
        return np.eye(len(flat))
    _, vectors = np.linalg.eigh(np.cov(flat))
    return np.asarray(vectors.T[::-1])


def quantised(matrix: Array) -> Array:
    """A matrix of entries up to 1 as int16."""
    return np.asarray(np.rint(matrix * _UNIT).astype("<i2"))


def split(data: bytes, count: int) -> list[bytes]:
    """Parts that each follow their length."""
    parts, at = [], 0
    for _ in range(count):
        (size,) = struct.unpack_from("<I", data, at)
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return parts
