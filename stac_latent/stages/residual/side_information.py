"""Bytes of a residual beside its symbols: weights of all bands, exact values, and how they are deflated."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError
from stac_latent.spec import Band
from stac_latent.stages.residual.predictor import KINDS, count_contexts, count_features
from stac_latent.stages.residual.quantiser import Values

__all__ = ["Fold", "Side", "inflate", "read_exact", "shuffled", "unshuffled", "write_exact"]

_WORTH = 0.9
"""Share of the rows, or columns, that is kept at most for others to be left out."""
_BAND = struct.Struct("<Bddd")
"""Kind, bound, what counts as zero, and a typical magnitude, of each band."""


@dataclass(frozen=True)
class Fold:
    """Rows and columns of a tile that all its bands repeat, as bands that were enlarged by repeating pixels do.

    Parameters
    ----------
    rows, columns
        Which are kept, bool ``(y,)`` and ``(x,)``; the first always.
    """

    rows: Array
    columns: Array

    @classmethod
    def of(cls, fields: Sequence[Array], mask: Array, shape: tuple[int, int]) -> Fold:
        """What can be left out of flat bands and their masks ``(band, pixels)``; nothing where it is little."""
        keep = [np.zeros(n, bool) for n in shape]
        for x, m in zip(fields, mask, strict=True):
            tile, valid = (np.where(m, x, x.dtype.type(0)).reshape(shape), m.reshape(shape))
            if tile.dtype.kind == "f":
                tile = tile.view(f"i{tile.dtype.itemsize}")
            for axis, kept in enumerate(keep):
                change = np.diff(valid, axis=axis) | (np.diff(tile, axis=axis) != 0)
                kept[1:] |= change.any(axis=1 - axis)
        for kept in keep:
            kept[0] = True
            if kept.mean() > _WORTH:
                kept[:] = True
        return cls(keep[0], keep[1])

    @property
    def small(self) -> tuple[int, int]:
        """Height and width of what is kept."""
        return int(self.rows.sum()), int(self.columns.sum())

    def take(self, flat: Array) -> Array:
        """What is kept of a flat band."""
        return np.asarray(flat.reshape(self.rows.size, self.columns.size)[self.rows][:, self.columns].ravel())

    def give(self, small: Array) -> Array:
        """A flat band from what was kept of it, ``(y, x)``."""
        ys, xs = np.cumsum(self.rows) - 1, np.cumsum(self.columns) - 1
        return np.asarray(small[ys][:, xs].ravel())

    def pack(self) -> bytes:
        """One byte where all is kept; else the deflated bits after their length."""
        if self.rows.all() and self.columns.all():
            return bytes(1)
        bits = zlib.compress(np.packbits(np.concatenate([self.rows, self.columns])).tobytes(), 9)
        return b"\x01" + len(bits).to_bytes(2, "little") + bits

    @classmethod
    def unpack(cls, data: bytes, shape: tuple[int, int]) -> tuple[Fold, int]:
        """Inverse of :meth:`pack`, and the bytes that it took."""
        if data[:1] == b"\x00":
            return cls(np.ones(shape[0], bool), np.ones(shape[1], bool)), 1
        if data[:1] != b"\x01":
            raise CorruptDataError(
                f"residual: a fold that starts with {data[:1]!r} cannot be; expected 0 or 1. It was truncated or changed"
            )
        size = int.from_bytes(data[1:3], "little")
        raw = inflate(data[3 : 3 + size], -(-sum(shape) // 8))
        keep = np.unpackbits(np.frombuffer(raw, np.uint8), count=sum(shape)).astype(bool)
        if not keep[0] or not keep[shape[0]]:
            raise CorruptDataError(
                "residual: the first row and column of a tile are always kept; it was changed"
            )
        return cls(keep[: shape[0]], keep[shape[0] :]), 3 + size


@dataclass
class Side:
    """Weights of all bands, in the order in which they are used."""

    groups: int
    weights: list[Array] = field(default_factory=list)
    contexts: list[Array] = field(default_factory=list)

    def pack(self, values: Sequence[Values]) -> bytes:
        """Weights and the kinds of residuals, deflated."""
        head = b"".join(_BAND.pack(v.kind, v.bound, v.small, v.typical) for v in values)
        flat = np.concatenate(self.weights) if self.weights else np.zeros(0, np.int16)
        high = (flat >> 8).astype(np.int8).tobytes() + (flat & 255).astype(np.uint8).tobytes()
        contexts = np.concatenate(self.contexts) if self.contexts else np.zeros(0, np.uint8)
        return zlib.compress(head + high + contexts.tobytes(), 9)

    @classmethod
    def unpack(cls, data: bytes, groups: int, bands: Sequence[Band]) -> tuple[Side, list[Values]]:
        """Inverse of :meth:`pack`."""
        counts = [
            [f(b, k % KINDS) for b in range(len(bands)) for k in range(groups * KINDS)]
            for f in (count_features, count_contexts)
        ]
        n, m = sum(counts[0]), sum(counts[1])
        start = _BAND.size * len(bands)
        raw = inflate(data, start + 2 * n + m)
        values = [
            Values(kind, np.dtype(b.data_type), *numbers)
            for b, (kind, *numbers) in zip(bands, _BAND.iter_unpack(raw[:start]), strict=True)
        ]
        high = np.frombuffer(raw, np.int8, n, start).astype(np.int16)
        flat = (high << 8) | np.frombuffer(raw, np.uint8, n, start + n)
        contexts = np.frombuffer(raw, np.uint8, m, start + 2 * n)
        return cls(groups, _cut(flat, counts[0]), _cut(contexts, counts[1])), values


def _cut(flat: Array, counts: Sequence[int]) -> list[Array]:
    return np.split(flat, np.cumsum(counts)[:-1])


def shuffled(parts: Sequence[Array]) -> bytes:
    """Values byte by byte: the first of all, then the second."""
    out = []
    for x in parts:
        little = np.ascontiguousarray(x, x.dtype.newbyteorder("<"))
        out.append(little.view(np.uint8).reshape(-1, x.dtype.itemsize).T.tobytes())
    return b"".join(out)


def unshuffled(raw: bytes, counts: Sequence[int], bands: Sequence[Band]) -> list[Array]:
    """Inverse of :func:`shuffled`, of so many values of each band."""
    out, at = [], 0
    for n, band in zip(counts, bands, strict=True):
        dtype = np.dtype(band.data_type)
        size = n * dtype.itemsize
        part = np.frombuffer(raw, np.uint8, size, at).reshape(dtype.itemsize, n).T
        out.append(np.ascontiguousarray(part).view(dtype.newbyteorder("<")).reshape(n).astype(dtype))
        at += size
    return out


def write_exact(parts: Sequence[Array]) -> bytes:
    """Exact values of each band, deflated behind their numbers."""
    counts = np.array([e.size for e in parts], "<u4").tobytes()
    return zlib.compress(counts + shuffled(parts), 6)


def read_exact(data: bytes, mask: Array, bands: Sequence[Band]) -> list[Array]:
    """Inverse of :func:`write_exact`; at most the pixels of ``mask`` ``(band, pixels)``."""
    sizes = [np.dtype(b.data_type).itemsize for b in bands]
    most = 4 * len(bands) + sum(s * int(m.sum()) for s, m in zip(sizes, mask, strict=True))
    raw = inflate(data, most, exact=False)
    counts = np.frombuffer(raw[: 4 * len(bands)], "<u4").astype(np.int64)
    if counts.size != len(bands) or len(raw) != 4 * len(bands) + int((counts * sizes).sum()):
        raise CorruptDataError("residual: the exact values are not as many as declared; changed?")
    return unshuffled(raw[4 * len(bands) :], counts.tolist(), bands)


def inflate(data: bytes, size: int, *, exact: bool = True) -> bytes:
    """Deflated bytes, which are so many, or at most so many."""
    try:
        raw = zlib.decompressobj().decompress(data, size + 1)
    except zlib.error as exc:
        raise CorruptDataError(f"residual: a part does not inflate: {exc}") from exc
    if len(raw) > size or (exact and len(raw) != size):
        raise CorruptDataError(f"residual: a part inflates to {len(raw)} bytes, {size} were expected")
    return raw
