"""Windows of arrays that others wrote: GeoTIFF, NumPy files and Zarr, each read as ``(channel, y, x)``.

An array's axes are named by whoever describes it, so that one reader serves every order of axes. Only what covers a
window is read: tiles of a GeoTIFF, rows of a NumPy file (by seeking, also over HTTP), chunks of a Zarr array. Numbers come as they are
stored, in the byte order of this machine; what a file says of them (nodata, scale, offset, masks) is told beside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from stac_latent.aliases import Array
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.net.raster import open_raster
from stac_latent.net.remote_file import open_binary
from stac_latent.store.foreign.axes import ArrayHeader, check_axes, in_order, sizes_of
from stac_latent.store.foreign.zarr_array import ZarrArray
from stac_latent.system.links import is_local, local_path
from stac_latent.window import Window

__all__ = ["ForeignArray", "open_array"]

_RUN = 4 << 20
"""Bytes of a NumPy file that are read together."""


class ForeignArray(Protocol):
    """An array with known axes, read by window."""

    shape: tuple[int, int, int]
    """Channels (1 where there is no such axis), rows and columns."""
    steps: int
    """Steps of a time axis; 1 where there is none."""
    dtype: np.dtype[Any]
    """Type in which numbers are read: that of the file, in the byte order of this machine."""
    header: ArrayHeader
    tile: tuple[int, int]
    """Rows and columns that are stored, and decoded, together."""

    def read(self, window: Window) -> Array:
        """``(channel, y, x)`` of a window of rows and columns as they are stored."""
        ...

    def read_valid(self, window: Window) -> npt.NDArray[np.bool_] | None:
        """``(channel, y, x)`` or ``(1, y, x)``: what a mask of the file lets through; None where there is no mask."""
        ...


def open_array(
    container: str,
    href: str,
    axes: tuple[str, ...],
    array: str = "",
    *,
    step: int = 0,
    overview: int | None = None,
) -> ForeignArray:
    """Open an array for reading.

    Parameters
    ----------
    container
        ``geotiff``, ``npy`` or ``zarr``.
    href
        Path or URL.
    axes
        As of :func:`axis_names`; a GeoTIFF is always ``(channel, y, x)``.
    array
        Path of the array in a Zarr group; empty: the href is the array.
    step
        Which step of a time axis is read.
    overview
        Which overview of a GeoTIFF is read; None: the file itself.

    Raises
    ------
    CatalogError
        If there is no such file, or no such array in it.
    CorruptDataError
        If it is none of that format, or its axes are others.
    """
    kinds = ("geotiff", "npy", "zarr")
    if container not in kinds:
        raise CatalogError(f"{href}: cannot read arrays from {container!r}; expected {', '.join(kinds)}")
    if is_local(href) and not local_path(href).exists():
        raise CatalogError(f"{href} does not exist")
    if container == "geotiff":
        return _GeoTiff(href, overview)
    if container == "npy":
        return _Npy(href, axes)
    return ZarrArray(href, axes, array, step)


class _GeoTiff:
    """Bands of a raster; an alpha band is its mask and no channel."""

    steps = 1

    def __init__(self, href: str, overview: int | None) -> None:
        self.href, self.options = href, {} if overview is None else {"overview_level": overview}
        with _opened(self.href, self.options) as src:
            alpha = _alpha_band(src)
            self.bands = [i for i in src.indexes if i != alpha]
            self.shape = (len(self.bands), src.height, src.width)
            self.tile = tuple(src.block_shapes[0])
            types = {src.dtypes[i - 1] for i in self.bands}
            self.header = ArrayHeader(_number(src.nodata), *_linear(src, self.bands), tuple(src.overviews(1)))
            flags = {f for i in self.bands for f in src.mask_flag_enums[i - 1]}
            whole = all(MaskFlags.per_dataset in src.mask_flag_enums[i - 1] for i in self.bands)
        if len(types) != 1:
            raise CorruptDataError(
                f"{href} has bands of several types ({', '.join(sorted(types))}); expected one"
            )
        self.dtype = np.dtype(types.pop())
        if self.dtype.kind not in "iuf":
            raise CorruptDataError(f"{href} holds {self.dtype}; expected real numbers")
        own = flags - {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}
        self.masked: list[int] = []
        if alpha is not None:
            self.masked = [alpha]
        elif own and MaskFlags.alpha not in flags:
            self.masked = self.bands[:1] if whole else self.bands
        self.alpha = alpha is not None

    def read(self, window: Window) -> Array:
        with _opened(self.href, self.options) as src:
            return np.asarray(src.read(self.bands, window=window))

    def read_valid(self, window: Window) -> npt.NDArray[np.bool_] | None:
        if not self.masked:
            return None
        with _opened(self.href, self.options) as src:
            found = (
                src.read(self.masked, window=window)
                if self.alpha
                else src.read_masks(self.masked, window=window)
            )
        return np.asarray(found > 0)


@contextmanager
def _opened(href: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """A raster with the masks and overviews in files beside it, whatever the caller's settings of GDAL."""
    beside = {"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"} if is_local(href) else {}
    with rasterio.Env(**beside), open_raster(href, CorruptDataError, **options) as src:
        yield src


def _alpha_band(src: Any) -> int | None:
    """The alpha band of a raster, counted from 1; four bytes are red to alpha for whoever writes them without a word, and channels here."""
    kinds = list(src.colorinterp)
    rgba = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    if ColorInterp.alpha not in kinds or len(kinds) == 1 or (kinds == rgba and set(src.dtypes) == {"uint8"}):
        return None
    return kinds.index(ColorInterp.alpha) + 1


def _linear(src: Any, bands: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scales and offsets of a raster's header; empty where they change nothing."""
    scale, offset = ([float(v[i - 1]) for i in bands] for v in (src.scales, src.offsets))
    if set(scale) <= {1.0} and set(offset) <= {0.0}:
        return (), ()
    return _shortest(scale), _shortest(offset)


def _shortest(values: Sequence[float]) -> tuple[float, ...]:
    return (values[0],) if len(set(values)) == 1 else tuple(values)


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


class _Npy:
    """A C-ordered array file, of which only the wanted rows are read."""

    steps = 1
    header = ArrayHeader()

    def __init__(self, href: str, axes: tuple[str, ...]) -> None:
        self.href, self.axes = href, axes
        if "time" in axes:
            raise CatalogError(f"{href}: NumPy files with a time axis are not read; save each time as a file")
        with open_binary(href) as file:
            try:
                version = np.lib.format.read_magic(file)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }
                self.full, fortran, self.stored = read[version](file)
            except (ValueError, KeyError, EOFError) as exc:
                raise CorruptDataError(f"{href} is no NumPy file (.npy) that can be read: {exc}") from exc
            self.start = file.tell()
            size = file.seek(0, 2)
        if fortran or self.stored.kind not in "iuf" or min(self.full, default=0) < 1:
            raise CorruptDataError(
                f"{href} holds {'Fortran-ordered ' if fortran else ''}{self.stored} of shape {self.full}; expected numbers in C order: "
                "save it again with numpy.save(path, numpy.ascontiguousarray(array))"
            )
        check_axes(href, self.full, axes)
        if axes.index("x") < axes.index("y"):
            raise CorruptDataError(
                f"{href}: x comes before y, which cannot be read by window; store y before x"
            )
        need = self.start + math.prod(self.full) * self.stored.itemsize
        if size < need:
            raise CorruptDataError(
                f"{href} has {size} bytes, its header declares {need}; it is truncated, fetch it again"
            )
        self.shape = sizes_of(self.full, axes)
        row_bytes = math.prod(self.full) // self.shape[1] * self.stored.itemsize
        self.tile = (max(1, _RUN // row_bytes), self.shape[2])
        wide = self.stored.kind == "f" and self.stored.itemsize > 8
        self.dtype = np.dtype(np.float64) if wide else self.stored.newbyteorder("=")

    def read(self, window: Window) -> Array:
        """Rows are one run of bytes below the axes that come before y."""
        (y0, y1), (x0, x1) = window
        at = self.axes.index("y")
        outer, inner = self.full[:at], self.full[at + 1 :]
        row = math.prod(inner) * self.stored.itemsize
        out = np.empty((*outer, y1 - y0, *inner), self.dtype)
        with open_binary(self.href) as file:
            for place in itertools.product(*map(range, outer)):
                first = 0
                for i, n in zip(place, outer, strict=True):
                    first = first * n + i
                file.seek(self.start + (first * self.full[at] + y0) * row)
                data = file.read((y1 - y0) * row)
                if len(data) != (y1 - y0) * row:
                    raise CorruptDataError(
                        f"{self.href} ends within rows {y0} to {y1}; it is truncated, fetch it again"
                    )
                out[place] = np.frombuffer(data, self.stored).reshape(out.shape[at:])
        cut = tuple(slice(x0, x1) if name == "x" else slice(None) for name in self.axes)
        return in_order(out[cut], self.axes)

    def read_valid(self, window: Window) -> None:
        """There are no masks in such files."""
