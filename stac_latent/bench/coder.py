"""What runs in the race: the :class:`Coder` protocol, and the frame that makes a peer's bytes self-contained."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError, StacLatentError
from stac_latent.field.validity import apply_nodata, fill_invalid, valid_mask
from stac_latent.spec import Band

__all__ = ["Array", "Coder", "Context", "Entrant", "Framed", "Team", "UnavailableError", "need"]

_HEAD = struct.Struct("<4s3H2BI")
_MAGIC = b"SLPF"
_TYPES = ("|u1", "|i1", *(f"<{kind}{n}" for kind in "iuf" for n in (2, 4, 8)))


class UnavailableError(StacLatentError):
    """A coder cannot take part: its library is absent, or the bands do not fit it."""


class Coder(Protocol):
    """One entrant, ready for fields of given bands."""

    name: str
    lossless: bool
    """Whether decoding gives the field back; such a coder has one knob."""

    @property
    def knobs(self) -> Sequence[float]:
        """Settings to sweep, coarse to fine."""
        ...

    @property
    def knob(self) -> str:
        """What a setting is, with its unit."""
        ...

    def encode(self, field: Array, knob: float) -> bytes:
        """A field ``(band, y, x)`` in the stored unit as one self-contained payload: headers, tables, masks included."""
        ...

    def decode(self, data: bytes) -> Array:
        """Inverse of :meth:`encode`: ``(band, y, x)`` in the stored type, nodata kept."""
        ...


@dataclass(frozen=True)
class Context:
    """What a coder may know before the race.

    Parameters
    ----------
    bands
        Bands of the fields.
    fit
        Fields ``(band, y, x)`` of the fitting places, for coders with a static fit.
    peaks
        Peak of each band that PSNR refers to, stored unit; the smallest of all tiles, where it differs.
    threads
        Threads that a coder may use.
    ranges
        Smallest and largest value of each band in all tiles, stored unit; empty where they are not known.
    """

    bands: tuple[Band, ...]
    fit: tuple[Array, ...] = ()
    peaks: tuple[float, ...] = (10_000.0,)
    threads: int = 1
    ranges: tuple[tuple[float, float], ...] = ()

    @property
    def peak(self) -> float:
        """Median of the peaks."""
        return float(np.median(self.peaks))


class Team:
    """One coder for each grid of a data set; their payloads are counted together.

    Parameters
    ----------
    coders
        In the order of the grids.
    """

    def __init__(self, coders: Sequence[Coder]) -> None:
        self.coders = tuple(coders)

    @property
    def knobs(self) -> Sequence[float]:
        """Settings to sweep, coarse to fine; every coder gets the same."""
        return self.coders[0].knobs

    def encode(self, fields: Sequence[Array], knob: float) -> list[bytes]:
        """Payload of each field."""
        return [c.encode(f, knob) for c, f in zip(self.coders, fields, strict=True)]

    def decode(self, payloads: Sequence[bytes]) -> list[Array]:
        """Inverse of :meth:`encode`."""
        return [c.decode(p) for c, p in zip(self.coders, payloads, strict=True)]


@dataclass(frozen=True)
class Entrant:
    """A name and how to open its coder; opening raises :class:`UnavailableError` with the reason.

    Parameters
    ----------
    name
        Shown in tables.
    open
        Coder for the bands of one grid.
    joint
        Coder for the bands of all grids in one payload, in place of ``open``.
    """

    name: str
    open: Callable[[Context], Coder]
    joint: Callable[[Sequence[Context]], Team] | None = None


def need(module: str, coder: str) -> Any:
    """Import the library of a coder, or say how to get it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise UnavailableError(
            f"{coder} needs {module.split('.', maxsplit=1)[0]}, which is not installed: pip install 'stac-latent[bench]'"
        ) from exc


class Framed:
    """Base of the peers: a header of 16 bytes, the mask of valid pixels, then what the peer's library wrote.

    Pixels without data take the mean of the valid ones near them before they are coded, and nodata afterwards.

    Parameters
    ----------
    context
        Bands and threads.
    """

    name = ""
    knob = ""
    knobs: tuple[float, ...] = ()
    lossless = False

    def __init__(self, context: Context) -> None:
        self.context = context

    def encode(self, field: Array, knob: float) -> bytes:
        """See :meth:`Coder.encode`."""
        code = _TYPES.index(field.dtype.newbyteorder("<").str)
        mask = valid_mask(field, self.context.bands)
        bits = b"" if mask is None else zlib.compress(np.packbits(mask).tobytes(), 9)
        x = self.filled(field)
        rows = 0 if mask is None else len(mask)
        head = _HEAD.pack(_MAGIC, *field.shape, code, min(rows, 2), len(bits))
        return head + bits + self.encode_filled(np.ascontiguousarray(x), knob)

    def decode(self, data: bytes) -> Array:
        """See :meth:`Coder.decode`."""
        magic, c, h, w, code, rows, size = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise CorruptDataError(f"{self.name}: the payload starts with {magic!r}, not {_MAGIC!r}")
        mask = None
        if rows:
            shape = (1 if rows == 1 else c, h, w)
            raw = np.frombuffer(zlib.decompress(data[_HEAD.size : _HEAD.size + size]), np.uint8)
            mask = np.unpackbits(raw, count=int(np.prod(shape))).astype(bool).reshape(shape)
        field = self.decode_filled(data[_HEAD.size + size :], (c, h, w), np.dtype(_TYPES[code]))
        return field if mask is None else apply_nodata(np.array(field), mask, self.context.bands)

    def filled(self, field: Array) -> Array:
        """A field with something smooth in its gaps."""
        mask = valid_mask(field, self.context.bands)
        return field if mask is None else _fill(field, mask)

    def encode_filled(self, x: Array, knob: float) -> bytes:
        """Code a field without gaps."""
        raise UnavailableError(f"{type(self).__name__} cannot code {x.dtype} at {knob}")

    def decode_filled(self, data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
        """Inverse of :meth:`encode_filled`."""
        raise UnavailableError(f"{type(self).__name__} cannot decode {len(data)} bytes to {shape} of {dtype}")


def _fill(field: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """Gaps filled by means of cells, and where a cell is empty by the mean of the band."""
    x = np.array(field)
    for band, valid in zip(x, np.broadcast_to(mask, x.shape), strict=True):
        mean = band[valid].mean() if valid.any() else 0
        band[~valid] = np.rint(mean) if x.dtype.kind in "iu" else mean
    if x.dtype.kind == "f":
        return x
    cell = np.ones_like(mask)
    h, w = (n // 8 * 8 for n in x.shape[1:])
    blocks = mask[:, :h, :w].reshape(len(mask), h // 8, 8, w // 8, 8).any(axis=(2, 4))
    cell[:, :h, :w] = np.repeat(np.repeat(blocks, 8, axis=1), 8, axis=2)
    use = mask | ~cell  # empty cells keep the mean of the band
    x[:, :h, :w] = fill_invalid(x[:, :h, :w], use[:, :h, :w], (8, 8))
    return x
