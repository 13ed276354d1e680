"""Read windows of embeddings that others wrote, dequantised; what is read follows from the asset's fields alone.

Codes become numbers here, and nodata becomes NaN, before anything else may happen to them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from stac_latent.cube.foreign_layout import Layout
from stac_latent.errors import CatalogError, CorruptDataError, GridError
from stac_latent.spec import Band, Grid, Spec
from stac_latent.store.foreign.arrays import ForeignArray, open_array
from stac_latent.store.foreign.axes import axis_names
from stac_latent.store.foreign.changes import check_unchanged
from stac_latent.store.geoparquet.vector_types import shifted
from stac_latent.window import Span, Window, WindowLike

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stac_latent.aliases import Array
    from stac_latent.cube.ref import LatentRef

__all__ = ["ChannelField", "PlainReader", "check_scales", "dequantise"]

Floats = npt.NDArray[np.float32]


def check_scales(scale: Array, where: str) -> None:
    """Refuse scales that are no factors; NaN stands for no data and 0 for a vector of zeros.

    Where a product has another sign of no data among its scales, it is NaN before they are checked.

    Raises
    ------
    CorruptDataError
        If a scale is negative or infinite.
    """
    if np.isinf(scale).any() or (scale < 0).any():
        raise CorruptDataError(
            f"{where} holds negative or infinite scales; expected positive ones, 0 for vectors of zeros, and NaN where there is no data"
        )


def dequantise(
    stored: Array, spec: Spec, nodata: float | None, scale: Array | None, valid: Array | None = None
) -> Floats:
    """Numbers of stored codes, NaN where there is no data.

    Parameters
    ----------
    stored
        ``(channel, ...)`` as in the file.
    spec
        Says how it was quantised.
    nodata
        Code that stands for no data.
    scale
        Factors, ``(1, ...)`` or ``(channel, ...)``, for ``per_vector``.
    valid
        What a mask of the file lets through, ``(1, ...)`` or ``(channel, ...)``; None: all.

    Returns
    -------
    ndarray
        float32, shape of ``stored``.
    """
    if scale is not None:
        out = np.asarray(stored, np.float32) * np.asarray(scale, np.float32)
        if any(spec.quantization.offset):
            out = shifted(out, np.array(spec.quantization.offset, np.float32), axis=0)
    else:
        out = np.array(spec.quantization.dequantise(stored))
    if nodata is not None and not math.isnan(nodata):
        out[stored == nodata] = np.nan
    out = np.asarray(out, np.float32)
    return out if valid is None else np.where(valid, out, np.float32(np.nan))


class PlainReader:
    """Windowed access to an embedding in a container of its producer.

    The arrays are opened when first needed; instances may be shared between threads, and are not pickled.

    Parameters
    ----------
    ref
        What to read; its ``layout`` says how it is stored.
    """

    codec = None
    """There is none: the vectors are what is stored."""

    def __init__(self, ref: LatentRef) -> None:
        if ref.layout is None:
            raise CatalogError(
                f"asset {ref.asset!r} of item {ref.item_id!r} is a store of latents, and has another reader"
            )
        self.ref, self.layout = ref, ref.layout

    @property
    def spec(self) -> Spec:
        """The asset's contract."""
        return self.ref.spec

    @property
    def grid(self) -> Grid:
        """The asset's cells, first row in the north."""
        return self.ref.grid

    @cached_property
    def array(self) -> ForeignArray:
        """The stored codes, checked against what the asset declares."""
        array = _open(self.layout)
        expected = (self.spec.dimensions, *self.grid.shape)
        if array.shape != expected:
            raise CorruptDataError(
                f"{self.layout.href} has shape {array.shape} (channel, y, x); asset {self.ref.asset!r} of item {self.ref.item_id!r} "
                f"declares {expected}"
            )
        if array.dtype != np.dtype(self.spec.data_type):
            raise CorruptDataError(
                f"{self.layout.href} holds {array.dtype}; asset {self.ref.asset!r} of item {self.ref.item_id!r} declares data_type "
                f"{self.spec.data_type}"
            )
        return array

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of the file that are decoded together."""
        return self.array.tile

    @cached_property
    def scale(self) -> ForeignArray | None:
        """The scales of codes quantised per vector; None for the others."""
        if self.layout.scale is None:
            return None
        scales = _open(self.layout.scale)
        if scales.shape[0] not in (1, self.spec.dimensions) or scales.shape[1:] != self.grid.shape:
            raise CorruptDataError(
                f"the scales {self.layout.scale.href} have shape {scales.shape} (channel, y, x); expected (1, y, x) or (channel, y, x) of "
                f"{(self.spec.dimensions, *self.grid.shape)}, one for each vector or for each number"
            )
        if scales.dtype.kind != "f":
            raise CorruptDataError(
                f"the scales {self.layout.scale.href} are {scales.dtype}; expected floating-point numbers"
            )
        return scales

    def coarser(self, shrink: float) -> LatentRef:
        """The coarsest overview whose cells are not larger than ``shrink`` of these; the asset itself where there is none.

        Only overviews that the asset says are means of its vectors: others may be means of codes.
        """
        if self.layout.overviews != "mean" or self.layout.overview is not None:
            return self.ref
        levels = self.array.header.levels
        fit = [i for i, n in enumerate(levels) if n <= shrink * (1 + 1e-6)]
        if not fit:
            return self.ref
        level = max(fit, key=lambda i: levels[i])
        layout = replace(self.layout, overview=level)
        shape = _open(layout).shape[1:]
        a, b, c, d, e, f = self.grid.transform
        ky, kx = (n / m for n, m in zip(self.grid.shape, shape, strict=True))
        grid = replace(self.grid, transform=(a * kx, b * ky, c, d * kx, e * ky, f), shape=shape)
        return replace(self.ref, grid=grid, layout=layout)

    def read_latent(self, cells: WindowLike | None = None) -> Floats:
        """Dequantised ``(channel, y, x)`` of a window of cells (default: all), NaN where there is no data; float32."""
        window = self._stored(cells)
        array, layout = self.array, self.layout
        check_unchanged(layout.href, layout.size, layout.updated)
        scale = None if layout.scale is None else self._factors(layout.scale, window)
        out = dequantise(array.read(window), self.spec, layout.nodata, scale, array.read_valid(window))
        return np.ascontiguousarray(out[:, ::-1]) if self.layout.flip else out

    def read_absence(
        self, cells: WindowLike | None = None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Cells without a vector for good, whose scale is NaN, and those without one yet, whose scale is the asset's nodata; ``(y, x)``.

        Raises
        ------
        CatalogError
            If there are no scales that tell these apart.
        """
        layout, scales = self.layout.scale, self.scale
        if layout is None or scales is None or layout.nodata is None:
            raise CatalogError(
                f"asset {self.ref.asset!r} of item {self.ref.item_id!r} has no scales that tell cells without a vector from those without one "
                "yet; expected an asset of scales with nodata"
            )
        check_unchanged(layout.href, layout.size, layout.updated)
        scale = scales.read(self._stored(cells))
        step = -1 if self.layout.flip else 1
        gone, later = (
            np.asarray(v.any(axis=0))[::step] for v in (np.isnan(scale), np.equal(scale, layout.nodata))
        )
        return gone, later

    def read_scales(self, cells: WindowLike | None = None) -> Array | None:
        """Factors of a window as they are stored, NaN where there is no data; None where there are none."""
        return None if self.layout.scale is None else self._factors(self.layout.scale, self._stored(cells))

    def _factors(self, layout: Layout, window: Window) -> Array:
        """Scales of a window, NaN where there is no data."""
        scales = self.scale
        if scales is None:
            raise CatalogError(f"the scales {layout.href} are not there")
        check_unchanged(layout.href, layout.size, layout.updated)
        scale = scales.read(window)
        if layout.nodata is not None:
            scale = np.where(scale == layout.nodata, np.nan, scale)
        check_scales(scale, layout.href)
        return scale

    def read_valid_share(self, cells: WindowLike | None = None) -> Floats:
        """1 where a cell holds a whole vector, 0 elsewhere; float32 ``(y, x)``."""
        return np.asarray(np.isfinite(self.read_latent(cells)).all(axis=0), np.float32)

    def _stored(self, cells: WindowLike | None) -> Window:
        """Rows and columns of the file with a window of cells."""
        rows, columns = self._within(cells)
        height = self.grid.shape[0]
        return Window(Span(height - rows.stop, height - rows.start) if self.layout.flip else rows, columns)

    def _within(self, cells: WindowLike | None) -> Window:
        shape = self.grid.shape
        if cells is None:
            return Window.whole(shape)
        if not all(0 <= lo < hi <= n for (lo, hi), n in zip(cells, shape, strict=True)):
            raise GridError(f"window {cells} is not inside the {shape[0]} x {shape[1]} cells of the asset")
        return Window.of(cells)


class CellSource(Protocol):
    """What gives dequantised cells by window."""

    @property
    def spec(self) -> Spec:
        """The asset's contract."""
        ...

    def read_latent(self, cells: Window | None = None) -> Floats:
        """``(channel, y, x)``; NaN where there is no data."""
        ...


class ChannelField:
    """The channels of an embedding as bands of a field, so that it can be brought onto any grid.

    Parameters
    ----------
    reader
        Of the embedding: numbers, never codes, are what is resampled.
    """

    def __init__(self, reader: CellSource) -> None:
        self.reader = reader
        bands = tuple(Band(str(i), "float32", math.nan) for i in range(reader.spec.dimensions))
        self.spec = Spec("embedding", reader.spec.space, len(bands), (1, 1), (0, 0), bands)

    def read_field(self, window: Window | None = None, bands: Sequence[int] | None = None) -> Array:
        """float32 ``(channel, y, x)`` of a window of cells; NaN where there is no data."""
        latent = self.reader.read_latent(window)
        return latent if bands is None else np.asarray(latent[list(bands)])


def _open(layout: Layout) -> ForeignArray:
    return open_array(
        layout.container,
        layout.href,
        axis_names(layout.dims),
        layout.array,
        step=layout.step,
        overview=layout.overview,
    )
