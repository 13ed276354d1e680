"""Entropy coding with rANS over integer tables: adaptive in space and by channel, exact on every machine.

The bitstream ``stac-latent-rans-1`` holds one array of symbols ``(channel, y, x)``. Every channel has a scale
index and every cell an activity class; their sum picks the probability table of a symbol. Table 0 means "zero,
nothing coded", so that dead channels and flat cells cost neither bytes nor time. All tables are integer counts
from the bundle; nothing is computed from floats when decoding.

Layout, little endian::

    4s  magic "SLR1"          4I  channels, rows, columns, CRC-32 of the symbols (int16, C order)
    I   coded words           I   bytes of zlib-compressed escapes (int16)
    I   gap symbols, for each table coded by runs
    words (uint32)            escapes

The symbols of each table are coded together, tables in ascending order. The first tables, whose symbols are nearly
all zero, are coded by runs: the zeros before each nonzero symbol, then those symbols.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import constriction
import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError, CorruptDataError, FieldError
from stac_latent.stage import EntropyCoder
from stac_latent.stages.base import BaseStage, take
from stac_latent.stages.rans.coder import Decoder
from stac_latent.stages.rans.tables import CLASSES, GAP, TOTAL, TableSet
from stac_latent.stages.transform.kernels import gather, group_sizes, scatter, table_numbers
from stac_latent.system.limits import check_bytes

__all__ = ["Rans"]

_HEADER = struct.Struct("<4s6I")
_MAGIC = b"SLR1"
_MAX_CELLS = 4096 * 4096


class Rans(BaseStage, EntropyCoder):
    """Entropy coder for symbols ``(channel, y, x)``; see the module's docstring for the bitstream.

    Parameters
    ----------
    tables
        Probability tables of the symbols, classes and scale indices.
    typical
        Scale index that each channel usually has, int32 ``(channel,)``: indices are coded as differences to it.
    predicted
        Channels coded as the difference to their left neighbour (lowest frequencies), int32.
    """

    name: ClassVar[str] = "rans"
    level: ClassVar[Level] = "bytes"
    bitstream = "stac-latent-rans-1"
    lossless = True

    def __init__(self, tables: TableSet, typical: Array, predicted: Array) -> None:
        self.tables, self.typical = tables, np.asarray(typical, np.int64)
        self.predicted = np.asarray(predicted, np.int64)
        channels = self.typical.size
        if channels == 0 or self.typical.min() < 0 or self.typical.max() > tables.count:
            raise BundleError(f"rans: typical scale indices must lie in 0..{tables.count}")
        if self.predicted.size and not 0 <= self.predicted.min() <= self.predicted.max() < channels:
            raise BundleError(f"rans: predicted channels must lie below {channels}")

    @property
    def channels(self) -> int:
        """Channels of the symbols."""
        return int(self.typical.size)

    # -- encode ------------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> bytes:
        """Symbols (int8 or int16) to one bitstream."""
        if x.ndim != 3 or x.shape[0] != self.channels or x.dtype.kind != "i" or x.dtype.itemsize > 2:
            raise FieldError(
                f"rans codes int8 or int16 symbols ({self.channels}, y, x); got shape {x.shape}, {x.dtype}"
            )
        c, h, w = x.shape
        if not 0 < h * w <= _MAX_CELLS:
            raise FieldError(f"rans codes 1 to {_MAX_CELLS} cells at once; got {h} x {w}. Encode it in tiles")
        flat = self._predict(x).reshape(c, h * w)
        index, classes = self.tables.assign(flat)
        which = self.which(index)
        counts = group_sizes(which, classes)
        values = gather(flat, which, classes, counts)
        escapes: list[Array] = []
        runs = np.zeros(len(self.tables.gaps), "<u4")
        coder = constriction.stream.stack.AnsCoder()
        stop = values.size
        for t in range(self.tables.count - 1, -1, -1):  # a stack: what is decoded first is pushed last
            n = int(counts[t + 1])
            group, stop = values[stop - n : stop], stop - n
            if t < len(runs):
                at = np.flatnonzero(group)
                coder.encode_reverse(self._coded(t, group[at], escapes), self.tables.run_models[t][1].coder)
                gaps = _gap_symbols(at)
                coder.encode_reverse(gaps, self.tables.run_models[t][0].coder)
                runs[t] = gaps.size
            else:
                coder.encode_reverse(self._coded(t, group, escapes), self.tables.models[t].coder)
        delta = np.diff(classes, prepend=CLASSES // 2) + CLASSES
        coder.encode_reverse(delta.astype(np.int32), self.tables.class_model.coder)
        coder.encode_reverse(
            (index - self.typical + self.tables.count).astype(np.int32), self.tables.index_model.coder
        )
        words = coder.get_compressed().astype("<u4").tobytes()
        extra = np.concatenate(escapes[::-1]).astype("<i4") if escapes else np.empty(0, "<i4")
        tail = zlib.compress(extra.tobytes(), 9) if extra.size else b""
        head = _HEADER.pack(_MAGIC, c, h, w, _checksum(x), len(words) // 4, len(tail))
        return bytes(head + runs.tobytes() + words + tail)

    def _coded(self, t: int, group: Array, escapes: list[Array]) -> Array:
        """Coder's alphabet of the symbols of a table; those beyond its radius go to ``escapes``."""
        radius = int(self.tables.radius[t])
        outside = np.abs(group) > radius
        escapes.append(group[outside])
        return np.where(outside, 2 * radius + 1, group + radius).astype(np.int32)

    # -- decode ------------------------------------------------------------------------------------------------

    def inverse(self, y: bytes) -> Array:
        """Bitstream to int16 symbols ``(channel, y, x)``.

        Raises
        ------
        CorruptDataError
            If the bytes are truncated, changed, of another version, or coded with other tables.
        """
        (h, w), crc, runs, words, escapes = self._parse(y)
        c = self.channels
        coder = Decoder(words)
        index = coder.decode(self.tables.index_model, c) + self.typical - self.tables.count
        classes = np.cumsum(coder.decode(self.tables.class_model, h * w) - CLASSES) + CLASSES // 2
        if (
            index.min() < 0
            or index.max() > self.tables.count
            or classes.min() < 0
            or classes.max() >= CLASSES
        ):
            raise CorruptDataError(
                "rans: side information out of range; the payload was changed or is of other tables"
            )
        which = self.which(index)
        counts = group_sizes(which, classes)
        values = np.zeros(counts.sum(), np.int32)
        start = used = 0
        for t in range(self.tables.count):
            n = int(counts[t + 1])
            at: Array | slice = slice(start, start + n)
            model, size = self.tables.models[t], n
            if t < len(runs):
                gap_model, model = self.tables.run_models[t]
                at = start + _positions(coder.decode(gap_model, int(runs[t])), n)
                size = at.size
            radius = int(self.tables.radius[t])
            group = coder.decode(model, size)
            outside = np.flatnonzero(group == 2 * radius + 1)
            group -= radius
            if outside.size:
                if used + outside.size > escapes.size:
                    raise CorruptDataError(
                        "rans: fewer escapes than the stream asks for; the payload was changed"
                    )
                group[outside] = escapes[used : used + outside.size]
                used += outside.size
            values[at] = group
            start += n
        symbols = self._restore(scatter(values, which, classes, counts).reshape(c, h, w))
        if _checksum(symbols) != crc:
            raise CorruptDataError(
                "rans: the checksum of the decoded symbols does not match; the payload was changed, or this machine "
                "decodes differently from the writer's"
            )
        return symbols

    def _parse(self, y: bytes) -> tuple[tuple[int, int], int, Array, Array, Array]:
        if len(y) < _HEADER.size:
            raise CorruptDataError(
                f"rans: {len(y)} bytes are less than the {_HEADER.size} of a header; truncated"
            )
        magic, c, h, w, crc, n_words, n_tail = _HEADER.unpack_from(y)
        if magic != _MAGIC:
            raise CorruptDataError(
                f"rans: the payload starts with {magic!r}, not {_MAGIC!r}; it is no such bitstream"
            )
        if c != self.channels or not 0 < h * w <= _MAX_CELLS:
            raise CorruptDataError(
                f"rans: the header declares {c} channels of {h} x {w} cells; this codec has {self.channels} channels"
            )
        check_bytes((c, h, w), 8, "rans: the header")
        n_runs = len(self.tables.gaps)
        start = _HEADER.size + 4 * n_runs
        if len(y) != start + 4 * n_words + n_tail:
            raise CorruptDataError(
                f"rans: the header declares {start + 4 * n_words + n_tail} bytes, there are {len(y)}; truncated?"
            )
        runs = np.frombuffer(y, "<u4", n_runs, _HEADER.size)
        if runs.sum(dtype=np.int64) > c * h * w + n_runs:
            raise CorruptDataError(f"rans: the header declares {runs.tolist()} runs in {c * h * w} symbols")
        if h * w * self.tables.bits_per_class > 32 * n_words + 64:
            raise CorruptDataError(
                f"rans: {n_words} words are too few for {h} x {w} cells; the header was changed"
            )
        words = np.frombuffer(y, "<u4", n_words, start).astype(np.uint32)
        if n_words and words[-1] == 0:
            raise CorruptDataError(
                "rans: the last word is zero, which no encoder writes; the payload was changed"
            )
        return (h, w), crc, runs, words, _inflate(y[start + 4 * n_words :], 4 * c * h * w)

    # -- helpers -------------------------------------------------------------------------------------------------

    def which(self, index: Array) -> Array:
        """Table of each channel and class, uint8 ``(channel, class)``; 0 where nothing is coded."""
        return table_numbers(index, CLASSES // 2, self.tables.count, CLASSES)

    def _predict(self, x: Array) -> Array:
        out = x.astype(np.int32)
        p = self.predicted
        out[p, :, 1:] -= x[p, :, :-1]
        out[p, 1:, 0] -= x[p, :-1, 0]
        return out

    def _restore(self, out: Array) -> Array:
        p = self.predicted
        if p.size:
            part = out[p].astype(np.int32)
            part[:, :, 0] = np.cumsum(part[:, :, 0], axis=1)
            out[p] = np.cumsum(part, axis=2).astype(np.int16)
        return out

    def tensors(self) -> dict[str, Array]:
        """Integer tables, typical indices and predicted channels."""
        return {
            **self.tables.tensors(),
            "typical": self.typical.astype(np.int32),
            "predicted": self.predicted.astype(np.int32),
        }

    def config(self) -> dict[str, Any]:
        """Bitstream version and the sum of each table."""
        return {"bitstream": self.bitstream, "total": TOTAL, "classes": CLASSES}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from a bundle.

        Raises
        ------
        BundleError
            If the bitstream is of a version that this package does not read.
        """
        if (config.get("bitstream"), config.get("total"), config.get("classes")) != (
            cls.bitstream,
            TOTAL,
            CLASSES,
        ):
            raise BundleError(
                f"rans: bitstream {config.get('bitstream')!r} is not known; this version reads {cls.bitstream!r}. "
                "A newer stac-latent is needed"
            )
        return cls(
            TableSet.from_tensors(tensors),
            take(tensors, "typical", cls.name, 1),
            take(tensors, "predicted", cls.name, 1),
        )


def _inflate(data: bytes, limit: int) -> Array:
    """Escapes, int32; at most ``limit`` bytes of them."""
    if not data:
        return np.empty(0, np.int32)
    try:
        raw = zlib.decompressobj().decompress(data, limit + 1)
    except zlib.error as exc:
        raise CorruptDataError(f"rans: the escapes do not inflate: {exc}") from exc
    if len(raw) > limit or len(raw) % 4:
        raise CorruptDataError("rans: more escapes than symbols; the payload was changed")
    return np.frombuffer(raw, "<i4")


def _gap_symbols(at: Array) -> Array:
    """Zeros before each position: symbols ``0..255``, preceded by one 256 for every 256 zeros more; int32."""
    gap = np.diff(at, prepend=-1) - 1
    more = gap // GAP
    out = np.full(at.size + int(more.sum()), GAP, np.int32)
    out[np.arange(at.size) + np.cumsum(more)] = gap % GAP
    return out


def _positions(gaps: Array, size: int) -> Array:
    """Inverse of :func:`_gap_symbols` within ``size`` symbols."""
    last = gaps < GAP
    at = np.cumsum(gaps.astype(np.int64) + last)[last] - 1
    if at.size and at[-1] >= size:
        raise CorruptDataError("rans: runs reach past their group; the payload was changed")
    return at


def _checksum(symbols: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(symbols, "<i2").data)
