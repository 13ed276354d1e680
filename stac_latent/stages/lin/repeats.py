"""Bands whose pixels are repeated, as a nearest-neighbour resampling to a finer grid leaves them: found, and coded once.

Such a band is constant along runs of rows and of columns. One value for each run holds all that it has to say. Bands
with the same runs make a *part*, which is coded as a tile of its own on its own pixels; bands whose runs are pairs of
those of another part join it as a further array, as bands of coarser native grids do.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CorruptDataError
from stac_latent.stages.lin.grids import DEEPEST
from stac_latent.stages.lin.payload import LARGEST, read_varint, varint

__all__ = ["Part", "find_parts", "is_split", "join_parts", "split_parts"]

_MAGIC = b"SLR\x01"
_WORTH = 0.5
"""Share of a tile's pixels that a band's own may be at most, to be coded by themselves."""


@dataclass(frozen=True)
class Part:
    """Bands that are coded together on their own pixels.

    Parameters
    ----------
    arrays
        Bands of each array, the finest first; own pixels of each are two by two of those of the one before.
    rows, columns
        First row and column of the tile that each own pixel of the finest array covers, int64, from 0 on; the first ones may cover none.
    shape
        Rows and columns of the tile.
    """

    arrays: tuple[tuple[int, ...], ...]
    rows: Array
    columns: Array
    shape: tuple[int, int]

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands of all arrays, in the order in which they are coded."""
        return sum(self.arrays, ())

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of bands of each array."""
        return tuple(map(len, self.arrays))

    @property
    def own(self) -> tuple[int, int]:
        """Rows and columns of the finest array."""
        return self.rows.size, self.columns.size

    @property
    def weight(self) -> float:
        """Pixels of the tile for each own pixel of the finest array."""
        return math.prod(self.shape) / math.prod(self.own)

    def _starts(self) -> Iterator[tuple[list[int], Array, Array]]:
        for d, bands in enumerate(self.arrays):
            yield list(bands), self.rows[:: 1 << d], self.columns[:: 1 << d]

    def gather(self, field: Array) -> list[Array]:
        """Own pixels of each array, from ``(band, y, x)``."""
        return [field[bands][:, rows][:, :, columns] for bands, rows, columns in self._starts()]

    def spread(self, arrays: Sequence[Array], out: Array) -> None:
        """Inverse of :meth:`gather`, into the bands of ``out``."""
        for x, (bands, rows, columns) in zip(arrays, self._starts(), strict=True):
            heights, widths = (np.diff(s, append=n) for s, n in zip((rows, columns), self.shape, strict=True))
            wide = np.repeat(x, widths, axis=2)
            for band, values in zip(bands, wide, strict=True):
                out[band] = np.repeat(values, heights, axis=0)


def find_parts(field: Array, mask: Array | None) -> tuple[Part, ...] | None:
    """Parts of a tile ``(band, y, x)``, or None where too few of its pixels are repeated.

    Parameters
    ----------
    field
        Values as they are stored.
    mask
        Bool ``(1 or band, y, x)``, valid pixels; None for all. It has to be repeated as the values are.
    """
    shape = field.shape[1], field.shape[2]
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    whole = np.arange(shape[0]), np.arange(shape[1])
    for band, values in enumerate(field):
        valid = None if mask is None else mask[band if len(mask) > 1 else 0]
        rows, columns = _starts_of(values, valid)
        if rows.size * columns.size > _WORTH * values.size:
            rows, columns = whole
        alike.setdefault((rows.tobytes(), columns.tobytes()), []).append(band)
    runs = [(np.frombuffer(r, np.int64), np.frombuffer(c, np.int64), b) for (r, c), b in alike.items()]
    if len(runs) == 1 and runs[0][0].size == shape[0] and runs[0][1].size == shape[1]:
        return None
    runs.sort(key=lambda run: -run[0].size * run[1].size)
    parts: list[Part] = []
    for rows, columns, members in runs:
        for i, part in enumerate(parts):
            joined = _joined(part, rows, columns, tuple(members))
            if joined is not None:
                parts[i] = joined
                break
        else:
            parts.append(Part((tuple(members),), rows, columns, shape))
    return tuple(parts)


def _joined(part: Part, rows: Array, columns: Array, bands: tuple[int, ...]) -> Part | None:
    """The part with more bands, in the first of its arrays, or in the next, that has all their runs and few others.

    While it has one array, own pixels that cover nothing may go before the first, so that pairs begin where those of the bands do.
    """
    for d in range(min(len(part.arrays), DEEPEST) + 1):
        shifts = range(1 << d if len(part.arrays) == 1 else 1)
        for sy, sx in itertools.product(shifts, shifts):
            every = (
                np.concatenate([np.zeros(s, np.int64), x]) for s, x in ((sy, part.rows), (sx, part.columns))
            )
            wider = replace(part, rows=next(every), columns=next(every))
            ys, xs = wider.rows[:: 1 << d], wider.columns[:: 1 << d]
            few = rows.size * columns.size >= _WORTH * ys.size * xs.size
            if few and max(wider.own) <= LARGEST and np.isin(rows, ys).all() and np.isin(columns, xs).all():
                arrays = [*part.arrays, ()] if d == len(part.arrays) else list(part.arrays)
                arrays[d] = tuple(sorted((*arrays[d], *bands)))
                return replace(wider, arrays=tuple(arrays))
    return None


def _starts_of(values: Array, valid: Array | None) -> tuple[Array, Array]:
    """First row and column of each run of equal ones, int64; pixels without data equal each other."""
    rows = _starts(values, valid)
    return rows, _starts(values.T, None if valid is None else valid.T)


def _starts(v: Array, m: Array | None) -> Array:
    middle = slice(v.shape[1] // 2, v.shape[1] // 2 + 1)  # one column first: most bands have no runs at all
    new = _changes(v[:, middle], None if m is None else m[:, middle])
    if not new.all():
        new = _changes(v, m)
    return np.flatnonzero(np.concatenate([[True], new])).astype(np.int64)


def _changes(v: Array, m: Array | None) -> Array:
    """Whether each row but the first differs from the one before."""
    differ = v[1:] != v[:-1]
    if m is not None:
        differ = np.where(m[1:] & m[:-1], differ, m[1:] != m[:-1])
    return np.asarray(differ.any(axis=1))


def is_split(payload: bytes) -> bool:
    """Whether a tile's payload is one of parts."""
    return payload[:4] == _MAGIC


def join_parts(parts: Sequence[Part], payloads: Sequence[bytes]) -> bytes:
    """One payload of those of all parts."""
    height, width = parts[0].shape
    head = bytearray(varint(height) + varint(width) + varint(len(parts)))
    for part, payload in zip(parts, payloads, strict=True):
        head += varint(len(part.arrays))
        for bands in part.arrays:
            head += varint(len(bands)) + b"".join(map(varint, bands))
        head += _runs(part.rows, height) + _runs(part.columns, width) + varint(len(payload))
    body = bytes(head) + b"".join(payloads)
    return _MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def split_parts(data: bytes, bands: int, most: int) -> tuple[list[Part], list[bytes]]:
    """Inverse of :func:`join_parts`, of a tile of so many bands and at most so many pixels a side.

    Raises
    ------
    CorruptDataError
        If the bytes are truncated or changed.
    """
    if len(data) < 8 or zlib.crc32(data[8:]) != struct.unpack_from("<I", data, 4)[0]:
        raise CorruptDataError("lin: the checksum does not match; the payload was truncated or changed")
    height, at = read_varint(data, 8)
    width, at = read_varint(data, at)
    n, at = read_varint(data, at)
    if not (0 < height <= most and 0 < width <= most and 0 < n <= bands):
        raise CorruptDataError(
            f"lin: the header declares {n} parts of {height} x {width} pixels, which cannot be"
        )
    parts, sizes = [], []
    for _ in range(n):
        depth, at = read_varint(data, at)
        if not 0 < depth <= DEEPEST + 1:
            raise CorruptDataError(f"lin: a part of {depth} arrays cannot be")
        arrays = []
        for _ in range(depth):
            count, at = read_varint(data, at)
            members = []
            for _ in range(min(count, bands + 1)):
                band, at = read_varint(data, at)
                members.append(band)
            arrays.append(tuple(members))
        rows, at = _read_runs(data, at, height)
        columns, at = _read_runs(data, at, width)
        size, at = read_varint(data, at)
        parts.append(Part(tuple(arrays), rows, columns, (height, width)))
        sizes.append(size)
    known = sorted(b for part in parts for b in part.bands)
    if known != list(range(bands)) or not all(all(p.counts) for p in parts) or at + sum(sizes) != len(data):
        raise CorruptDataError(
            "lin: the parts of a tile are not its bands, or do not end where the payload does"
        )
    ends = np.cumsum([at, *sizes]).tolist()
    return parts, [data[a:b] for a, b in itertools.pairwise(ends)]


def _runs(starts: Array, size: int) -> bytes:
    """Runs along an axis: how many cover nothing, then a common length and that of the first, or 0 and a bit for each place but the first."""
    empty = int(np.count_nonzero(starts == 0)) - 1
    starts = starts[empty:]
    first, second = (int(starts[i]) if starts.size > i else size for i in (1, 2))
    common = max(first, second - first)
    if np.array_equal(starts[1:], np.arange(first, size, common)):
        return varint(empty) + varint(common) + varint(first)
    new = np.zeros(size, np.uint8)
    new[starts] = 1
    return varint(empty) + varint(0) + np.packbits(new[1:]).tobytes()


def _read_runs(data: bytes, at: int, size: int) -> tuple[Array, int]:
    empty, at = read_varint(data, at)
    common, at = read_varint(data, at)
    if common:
        first, at = read_varint(data, at)
        if not 0 < first <= common <= size:
            raise CorruptDataError(f"lin: runs of {common} pixels of which the first has {first} cannot be")
        later = np.arange(first, size, common)
    else:
        n = -(-(size - 1) // 8)
        if at + n > len(data):
            raise CorruptDataError("lin: the runs of a part end too soon")
        later = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, n, at), count=size - 1)) + 1
        at += n
    if empty >= 1 << DEEPEST:
        raise CorruptDataError(f"lin: {empty} runs that cover nothing cannot be")
    return np.concatenate([np.zeros(empty + 1), later]).astype(np.int64), at
