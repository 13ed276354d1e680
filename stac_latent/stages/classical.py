"""Classical image and byte coders behind the same interface: JPEG 2000 and zstd.

They code the field itself, so their symbols are the stored pixel values and their stride is one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError, CorruptDataError, FieldError
from stac_latent.stage import EntropyCoder, TakesComplex
from stac_latent.stages.base import BaseStage
from stac_latent.system.limits import check_bytes

__all__ = ["Jpeg2000", "Zstd"]

_HEADER = struct.Struct("<4s3I4s")
_CRC = struct.Struct("<I")
_TYPES = ("|u1", "|i1", *(f"<{kind}{n}" for kind in "iuf" for n in (2, 4, 8)), "<c8", "<c16")
_MAX_VALUES = 2**28
"""Largest number of values that one payload may declare: checked before anything is allocated."""


def _pack(magic: bytes, x: Array, payload: bytes) -> bytes:
    code = x.dtype.newbyteorder("<").str
    if code not in _TYPES or not 0 < x.size <= _MAX_VALUES:
        raise FieldError(
            f"1 to {_MAX_VALUES} values of 8 to 64 bits, or of two floats, are coded at once; got {x.shape} of {x.dtype}"
        )
    head = _HEADER.pack(magic, *x.shape, code.encode().ljust(4))
    return head + _CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


def _unpack(magic: bytes, y: bytes) -> tuple[tuple[int, int, int], np.dtype[Any], bytes]:
    start = _HEADER.size + _CRC.size
    if len(y) < start:
        raise CorruptDataError(f"{len(y)} bytes are less than the {start} of a header; truncated")
    got, c, h, w, code = _HEADER.unpack_from(y)
    (crc,), payload = _CRC.unpack_from(y, _HEADER.size), y[start:]
    if got != magic:
        raise CorruptDataError(f"the payload starts with {got!r}, not {magic!r}; it is no such bitstream")
    if zlib.crc32(payload, zlib.crc32(y[: _HEADER.size])) != crc:
        raise CorruptDataError("the checksum of the payload does not match; it was truncated or changed")
    name = code.decode("ascii", "replace").strip()
    if name not in _TYPES or not 0 < c * h * w <= _MAX_VALUES:
        raise CorruptDataError(
            f"the header declares {c} x {h} x {w} values of {name!r}; at most {_MAX_VALUES} are read"
        )
    check_bytes((c, h, w), np.dtype(name).itemsize, "the header")
    return (c, h, w), np.dtype(name), payload


class Zstd(BaseStage, EntropyCoder, TakesComplex):
    """Lossless: horizontal differences, byte planes apart, then zstd; complex values as real parts, then imaginary ones.

    Parameters
    ----------
    level
        zstd level, 1 to 22.
    """

    name: ClassVar[str] = "zstd"
    level: ClassVar[Level] = "bytes"
    bitstream = "stac-latent-zstd-1"
    lossless = True

    def __init__(self, effort: int = 9) -> None:
        self.effort = int(effort)

    def forward(self, x: Array) -> bytes:
        """``(band, y, x)`` of any type to bytes."""
        from numcodecs.zstd import Zstd as _Zstd

        x = np.ascontiguousarray(x, x.dtype.newbyteorder("<"))
        parts = np.concatenate([x.real, x.imag]) if x.dtype.kind == "c" else x
        size = parts.dtype.itemsize
        bits = parts.view(f"<u{size}")
        delta = np.diff(bits, axis=2, prepend=bits.dtype.type(0))
        planes = np.ascontiguousarray(delta).view(np.uint8).reshape(-1, size).T
        return _pack(b"SLZ1", x, bytes(_Zstd(level=self.effort).encode(np.ascontiguousarray(planes))))

    def inverse(self, y: bytes) -> Array:
        """Inverse of :meth:`forward`, bit for bit."""
        from numcodecs.zstd import Zstd as _Zstd

        shape, dtype, payload = _unpack(b"SLZ1", y)
        bands, height, width = shape
        halves = 2 if dtype.kind == "c" else 1
        size = dtype.itemsize // halves
        out = np.zeros((size, halves * bands * height * width), np.uint8)
        try:
            _Zstd().decode(payload, out=out)
        except (RuntimeError, ValueError) as exc:
            raise CorruptDataError(
                f"zstd: the payload does not inflate to {shape} of {dtype}: {exc}"
            ) from exc
        delta = np.ascontiguousarray(out.T).view(f"<u{size}").reshape(halves * bands, height, width)
        bits = np.cumsum(delta, axis=2, dtype=delta.dtype)
        if halves == 1:
            return bits.view(dtype)
        whole = np.empty(shape, dtype)
        whole.real, whole.imag = np.split(bits.view(f"<f{size}"), 2)
        return whole

    def config(self) -> dict[str, Any]:
        """Effort: the level of zstd."""
        return {"effort": self.effort}


class Jpeg2000(BaseStage, EntropyCoder):
    """JPEG 2000 codestreams of all bands as components, by GDAL's OpenJPEG driver.

    Parameters
    ----------
    quality
        Size in percent of the raw bytes; 100 with ``reversible`` is lossless.
    reversible
        Use the 5/3 wavelet instead of the 9/7.
    """

    name: ClassVar[str] = "jpeg2000"
    level: ClassVar[Level] = "bytes"
    bitstream = "stac-latent-jpeg2000-1"

    def __init__(self, quality: float = 10.0, reversible: bool = False) -> None:
        if not 0 < quality <= 100:
            raise BundleError(f"jpeg2000: quality is a percentage of the raw bytes, 0 to 100; got {quality}")
        self.quality, self.reversible = float(quality), bool(reversible)

    @property
    def lossless(self) -> bool:
        """True where pixels come back unchanged."""
        return self.reversible and self.quality == 100

    def forward(self, x: Array) -> bytes:
        """``(band, y, x)`` of uint8, uint16 or int16 to bytes.

        Raises
        ------
        FieldError
            If the type is none that JPEG 2000 codes here.
        """
        import warnings

        import rasterio
        from rasterio.io import MemoryFile

        if x.dtype.name not in ("uint8", "uint16", "int16"):
            raise FieldError(
                f"jpeg2000 codes uint8, uint16 and int16; got {x.dtype}. Scale the field to int16 first"
            )
        c, h, w = x.shape
        pad = ((0, 0), (0, max(0, 32 - h)), (0, max(0, 32 - w)))  # OpenJPEG refuses images of a few pixels
        padded = np.pad(x, pad, mode="edge")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with MemoryFile(ext=".jp2") as file:
                profile = {
                    "count": c,
                    "height": padded.shape[1],
                    "width": padded.shape[2],
                    "dtype": x.dtype.name,
                }
                with file.open(
                    driver="JP2OpenJPEG",
                    QUALITY=str(self.quality),
                    REVERSIBLE="YES" if self.reversible else "NO",
                    **profile,
                ) as dst:
                    dst.write(padded)
                payload = bytes(file.read())
        return _pack(b"SLJ1", x, payload)

    def inverse(self, y: bytes) -> Array:
        """Bytes to ``(band, y, x)``."""
        import warnings

        import rasterio
        from rasterio.io import MemoryFile

        (c, h, w), dtype, payload = _unpack(b"SLJ1", y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            try:
                with MemoryFile(payload, ext=".jp2") as file, file.open(driver="JP2OpenJPEG") as src:
                    if (src.count, src.height, src.width) != (c, max(32, h), max(32, w)) or src.dtypes[
                        0
                    ] != dtype.name:
                        raise CorruptDataError(
                            f"jpeg2000: the codestream holds {src.count} x {src.height} x {src.width} of {src.dtypes[0]}, "
                            f"the header declares {c} x {h} x {w} of {dtype}"
                        )
                    return np.asarray(src.read()[:, :h, :w])
            except rasterio.errors.RasterioError as exc:
                raise CorruptDataError(f"jpeg2000: the codestream does not decode: {exc}") from exc

    def config(self) -> dict[str, Any]:
        """Quality and wavelet."""
        return {"quality": self.quality, "reversible": self.reversible}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Jpeg2000:
        """Rebuild from :meth:`config`."""
        del tensors
        return cls(config["quality"], config["reversible"])
