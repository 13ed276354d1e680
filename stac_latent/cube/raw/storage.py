"""Room for every value of a source: types that hold them, and a nodata value for pixels that only a mask leaves out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.cube.grid.tiling import padded_shape, tiles
from stac_latent.cube.raw.source import ItemSource, SourceBand
from stac_latent.cube.raw.units import computes, holding_type
from stac_latent.errors import FieldError
from stac_latent.spec import Band

__all__ = ["with_room"]

_STRIP = 1024
"""Pixels along a window that is looked at."""


def with_room(source: ItemSource, *, exact: bool = False) -> ItemSource:
    """The same source, each band decoded to a type that holds all its values, and with nodata where it has a mask.

    Pixels are read only where type, scale and offset leave it open whether the codec's type holds them.

    Parameters
    ----------
    source
        As the codec would have it.
    exact
        Whether every value is kept: nodata that a valid pixel has, once scale and offset are applied, becomes another.

    Raises
    ------
    FieldError
        If a value does not fit a type that cannot be widened, or no value is left for pixels without data.
    """
    ranges = {
        i: _ValueRange()
        for i, b in enumerate(source.bands)
        if _may_exceed(b) or _lacks_nodata(b) or (exact and _may_meet(b))
    }
    if not ranges:
        return source
    for values, valid in _windows(source):
        for i, span in ranges.items():
            span.add(values[i][valid[min(i, len(valid) - 1)]])
    notes = list(source.notes)
    decoded = list(source.decoded)
    for i, span in ranges.items():
        if not span.count:
            continue
        decoded[i] = _widened(source, source.bands[i], decoded[i], span, notes)
        b, nodata = source.bands[i], decoded[i].nodata
        meets = exact and _may_meet(b) and nodata is not None and span.has(int(nodata))
        if _lacks_nodata(b) or meets:
            free = span.free(np.dtype(decoded[i].data_type), b, source.item.id)
            decoded[i] = replace(decoded[i], nodata=free)
        if meets:
            notes.append(
                f"band {b.band.name!r} has pixels that scale and offset bring to its nodata {nodata:g}; they are kept, and pixels "
                f"without data have {free:g}"
            )
    out = copy.copy(source)
    out.decoded, out.notes = tuple(decoded), tuple(notes)
    out.codec = source.codec.for_bands(decoded)
    return out


def _may_exceed(b: SourceBand) -> bool:
    """Whether values of the file's type, brought to the codec's unit, may lie beyond the decoded type."""
    source, target = np.dtype(b.facts.data_type), np.dtype(b.decoded.data_type)
    if target.kind in "fc":
        return False
    if source.kind == "f":
        return True
    ends = [int(v) * b.gain + b.shift for v in (np.iinfo(source).min, np.iinfo(source).max)]
    return not np.iinfo(target).min <= min(ends) <= max(ends) <= np.iinfo(target).max


def _lacks_nodata(b: SourceBand) -> bool:
    return b.masked and b.decoded.nodata is None and np.dtype(b.decoded.data_type).kind in "iu"


def _may_meet(b: SourceBand) -> bool:
    """Whether scale and offset may bring values to a nodata value, which is another before."""
    return (
        (b.gain, b.shift) != (1.0, 0.0)
        and b.decoded.nodata is not None
        and np.dtype(b.decoded.data_type).kind in "iu"
    )


def _windows(source: ItemSource) -> Iterator[tuple[Array, Array]]:
    height, width = padded_shape(source.grid)
    step = max(source.codec.native_pixels)
    for window in tiles((-(-height // step), -(-width // step)), (_STRIP, _STRIP)):
        yield source.read(window.scaled((step, step)))


@dataclass
class _ValueRange:
    """Valid values of one band, in the codec's unit."""

    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    small: Array = field(default_factory=lambda: np.zeros(2**16, bool))
    """Which values occur, by their lower 16 bits."""

    def add(self, values: Array) -> None:
        if not values.size:
            return
        self.low, self.high = min(self.low, values.min().item()), max(self.high, values.max().item())
        self.count += values.size
        self.small[values.astype(np.int64) & 0xFFFF] = True  # whole numbers, whatever type holds them

    def has(self, value: int) -> bool:
        """Whether a value may occur."""
        return bool(self.low <= value <= self.high and self.small[value & 0xFFFF])

    def free(self, dtype: np.dtype[Any], b: SourceBand, item: str) -> float:
        """A value of a type that does not occur: 0, an end of the type, or any of few."""
        info = np.iinfo(dtype)
        few = range(info.min, info.max + 1) if dtype.itemsize <= 2 else ()
        for value in (0, info.max, info.min, *few):
            if not self.has(value):
                return float(value)
        raise FieldError(
            f"band {b.band.name!r} of item {item!r} needs a value for pixels without data, and its values leave none of {dtype}; "
            "write it in a larger type, or with nodata"
        )


def _widened(source: ItemSource, b: SourceBand, decoded: Band, span: _ValueRange, notes: list[str]) -> Band:
    own = np.dtype(decoded.data_type)
    if own.kind == "f" or np.iinfo(own).min <= span.low <= span.high <= np.iinfo(own).max:
        return decoded
    what = f"band {b.band.name!r} of item {source.item.id!r} holds values from {span.low:g} to {span.high:g}"
    if not computes(source.codec):
        raise FieldError(
            f"{what}, which {own} of codec {source.codec.name!r} cannot hold. Give the band's name without a type, so that it has "
            f"the file's ({b.facts.data_type}), or a type that holds them, or mask such pixels as nodata"
        )
    known: Sequence[float] = [] if decoded.nodata is None else [decoded.nodata]
    name = holding_type([span.low, span.high, *known], np.dtype("uint8"))
    notes.append(
        f"band {b.band.name!r} holds values from {span.low:g} to {span.high:g}, which {own} cannot hold; it is decoded to {name}"
    )
    return replace(decoded, data_type=name)
