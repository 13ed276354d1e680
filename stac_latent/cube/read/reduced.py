"""Decoded pixels at a fraction of their resolution, where a target grid is that much coarser.

A wavelet codes coarse levels first: a half, a quarter or an eighth of the resolution is decoded from the beginning of each
chunk's bytes. What comes are low bands, whose samples lie on every ``2**reduction``-th pixel of the lattice, so that their grid
is half a pixel off that of means; resampling takes it as it is. One level finer than the target is read, and the rest is
left to resampling: means over a target pixel then differ from those of all decoded pixels by less than the codec's error.

Where there is no data the wavelet coded a filling, which is no pixel of anything and is part of the low bands about it. Samples
there are means of the decoded pixels that hold data instead, for which the chunks with such places are decoded as a whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from odc.geo.geobox import GeoBox

from stac_latent.aliases import Array
from stac_latent.cube.grid.boxes import pixel_box, to_pixels, to_world
from stac_latent.cube.read.reader import LatentReader
from stac_latent.field.validity import apply_nodata, mask_of
from stac_latent.spec import Spec
from stac_latent.window import Span, Window, WindowLike

__all__ = ["SMOOTH", "ReducedReader", "reduction_for"]

SMOOTH = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "gauss")
"""Resamplings that may start from fewer pixels; others rank, count or sum all of them."""


def reduction_for(source: GeoBox, target: GeoBox, resampling: str) -> int:
    """Times that a source's resolution may be halved for a target: once less than would reach the target's.

    It is told at the centre of the source, so that all parts of one target agree.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> fine = GeoBox.from_bbox((0, 0, 5120, 5120), "EPSG:32633", resolution=10)
    >>> [reduction_for(fine, fine.zoom_out(n), "average") for n in (1, 3, 4, 8, 16)]
    [0, 0, 1, 2, 3]
    """
    if resampling not in SMOOTH:
        return 0
    y, x = (n / 2 for n in source.shape)
    corners = to_world(source, np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    if source.crs is not None and target.crs is not None and source.crs != target.crs:
        corners = source.crs.transformer_to_crs(target.crs)(*corners)
    with np.errstate(invalid="ignore"):  # points beyond the projection are infinite
        px, py = to_pixels(target, *map(np.asarray, corners))
        longest = max(math.hypot(px[i] - px[0], py[i] - py[0]) for i in (1, 2))
    if not 0 < longest < 1:
        return 0
    return max(0, math.floor(math.log2(1 / longest) + 1e-6) - 1)


_REACH = 2
"""Samples on either side whose pixels have a noticeable share in a low band."""


@dataclass(frozen=True)
class _Axis:
    """Samples of one axis that lie over the pixels of a scene."""

    pixels: int
    lead: int
    """Pixels of padding before the first."""
    stored: int
    """Samples in the store."""
    step: int
    """Pixels of one sample."""

    @property
    def first(self) -> int:
        """The first sample that reaches the scene."""
        return max(0, math.floor((self.lead - 0.5 - self.step / 2) / self.step) + 1)

    @property
    def count(self) -> int:
        """Samples that reach the scene; that after the last stored one repeats it."""
        last = math.ceil((self.pixels + self.lead - 0.5 + self.step / 2) / self.step) - 1
        return min(last, self.stored) - self.first + 1

    @property
    def origin(self) -> float:
        """Where the first begins, in pixels of the scene."""
        return self.first * self.step - self.lead + 0.5 - self.step / 2

    def centres(self, lo: int, hi: int) -> tuple[range, Array]:
        """Pixels about the centres of samples, as a range of the scene and positions in it."""
        at = np.clip((self.first + np.arange(lo, hi)) * self.step - self.lead, 0, self.pixels - 1)
        return range(int(at[0]), int(at[-1]) + 1), at - at[0]

    def reached(self, lo: int, hi: int) -> tuple[Span, Array]:
        """Pixels that the low bands of samples are made of, and which of them those of each are, 0 or 1."""
        span, at = self.centres(lo, hi)
        about = self.about(span)
        off = np.abs(np.arange(*about) - (at + span.start)[:, None])
        return about, (off <= _REACH * self.step).astype(np.float64)

    def about(self, centres: range) -> Span:
        """Pixels that the low bands of samples with these centres are made of."""
        reach = _REACH * self.step
        return Span(max(0, centres.start - reach), min(self.pixels, centres.stop + reach))


class ReducedReader:
    """Windows of decoded pixels at a fraction of the resolution; another source for :func:`~stac_latent.cube.read.resample.read_onto`.

    A pixel has data where the one at its centre has.

    Parameters
    ----------
    reader
        Of the asset.
    reduction
        1 for half of the pixels along each axis, 2 for a quarter, ... up to ``reader.reductions``.

    Raises
    ------
    CodecError
        When it is read, if the codec cannot.
    """

    def __init__(self, reader: LatentReader, reduction: int) -> None:
        grid, step = reader.grid, 1 << reduction
        self.reader, self.reduction = reader, reduction
        stored = [c * s // step for c, s in zip(grid.cells, grid.stride, strict=True)]
        self._axes = [
            _Axis(n, lead, m, step) for n, lead, m in zip(grid.shape, grid.lead, stored, strict=True)
        ]

    @classmethod
    def for_target(cls, reader: LatentReader, target: GeoBox, resampling: str) -> Self | None:
        """The reader of a target that is so much coarser; None where it is not, or the asset does not allow it."""
        reduction = reduction_for(pixel_box(reader.grid), target, resampling)
        reduction = min(reduction, reader.reductions) if reduction else 0
        return cls(reader, reduction) if reduction else None

    @property
    def spec(self) -> Spec:
        """The asset's contract."""
        return self.reader.spec

    @property
    def box(self) -> GeoBox:
        """Grid of the pixels that are read."""
        fine, (y, x) = pixel_box(self.reader.grid), self._axes
        affine = fine.affine * fine.affine.translation(x.origin, y.origin) * fine.affine.scale(x.step)
        return GeoBox((y.count, x.count), affine, fine.crs)

    def read_field(self, window: WindowLike | None = None, bands: Sequence[int] | None = None) -> Array:
        """Decoded pixels ``(band, y, x)`` of a window of :attr:`box`, in the bands' stored unit."""
        own = Window.whole(self.box.shape.yx) if window is None else Window.of(window)
        known = self.reader.codec.bands
        chosen = list(range(len(known)) if bands is None else bands)
        rows, columns = (
            np.minimum(np.arange(lo, hi) + axis.first, axis.stored - 1)
            for (lo, hi), axis in zip(own, self._axes, strict=True)
        )
        sizes = [size >> self.reduction for size, _ in self.reader.chunk_pixels()]
        parts = [
            [(int(n), np.flatnonzero(at // size == n)) for n in np.unique(at // size)]
            for at, size in zip((rows, columns), sizes, strict=True)
        ]
        places = list(itertools.product(*parts))
        (over_y, at_y), (over_x, at_x) = (a.centres(*span) for a, span in zip(self._axes, own, strict=True))
        about = Window(*(axis.about(span) for span, axis in zip((over_y, over_x), self._axes, strict=True)))
        self.reader.reduced_ahead([(y, x) for (y, _), (x, _) in places], self.reduction)
        pending = [self.reader.reduced_chunk((y, x), self.reduction) for (y, _), (x, _) in places]
        mask = mask_of(self.reader.arrays.read_mask(about), chosen)
        if mask is not None and mask.all():
            mask = None
        out = np.empty((len(chosen), *own.shape), pending[0].result().dtype)
        for ((y, iy), (x, ix)), future in zip(places, pending, strict=True):
            ys, xs = rows[iy] - y * sizes[0], columns[ix] - x * sizes[1]
            out[:, iy[0] : iy[-1] + 1, ix[0] : ix[-1] + 1] = future.result()[
                np.ix_(np.asarray(chosen), ys, xs)
            ]
            if mask is not None:
                part = Window.of(((iy[0], iy[-1] + 1), (ix[0], ix[-1] + 1)))
                self._without_filling(out, own, part, chosen, mask, about)
        valid = (
            None
            if mask is None
            else mask[:, at_y + over_y.start - about.y.start][:, :, at_x + over_x.start - about.x.start]
        )
        return apply_nodata(out, valid, [known[i] for i in chosen])

    def _without_filling(
        self, out: Array, window: Window, part: Window, bands: Sequence[int], mask: Array, about: Window
    ) -> None:
        """Replace samples of a part of a window by means of pixels with data, where some about them have none; ``mask`` is of ``about``."""
        place = part.shifted((window.y.start, window.x.start))
        rows, columns = (a.about(a.centres(*span)[0]) for a, span in zip(self._axes, place, strict=True))
        mask = mask[:, *Window(rows, columns).counted_from(about).slices]
        if mask.all():
            return
        by_y, by_x = (a.reached(*span)[1] for a, span in zip(self._axes, place, strict=True))
        holes = (by_y @ ~mask @ by_x.T > 0) & (by_y @ mask @ by_x.T > 0)
        if not holes.any():
            return
        half = (1 << self.reduction) // 2
        centres = [
            span.start + at for span, at in (a.centres(*s) for a, s in zip(self._axes, place, strict=True))
        ]
        needed = [c[holes.any(axis=axes)] for c, axes in zip(centres, ((0, 2), (0, 1)), strict=True)]
        area = Window.of(
            (max(r.start, int(n[0]) - half), min(r.stop, int(n[-1]) + half + 1))
            for n, r in zip(needed, (rows, columns), strict=True)
        )
        pixels = self.reader.read_field(area, bands)
        mask = mask[:, area.y.start - rows.start : area.y.stop - rows.start]
        mask = mask[:, :, area.x.start - columns.start : area.x.stop - columns.start]
        total = np.where(mask, pixels, 0).astype(np.float64)
        share = mask.astype(np.float64)
        for axis, (c, span) in enumerate(zip(centres, area, strict=True), start=1):
            total, share = (_sums(v, c - span.start, half, axis) for v in (total, share))
        kept = np.broadcast_to(holes & (share > 0), total.shape)
        means = (total / np.where(share > 0, share, 1))[kept]
        out[(slice(None), *part.slices)][kept] = np.rint(means) if out.dtype.kind in "iu" else means


def _sums(values: Array, centres: Array, half: int, axis: int) -> Array:
    """Sums of the pixels about centres, with halves of the first and the last; of each in one order, whatever is about it."""
    length = values.shape[axis]
    out: Array | None = None
    for off in range(-half, half + 1):
        at = centres + off
        weight = np.where((at >= 0) & (at < length), 0.5 if abs(off) == half else 1.0, 0.0)
        term = np.take(values, np.clip(at, 0, length - 1), axis) * weight.reshape(
            [-1 if i == axis else 1 for i in range(3)]
        )
        out = term if out is None else out + term
    return np.asarray(out)
