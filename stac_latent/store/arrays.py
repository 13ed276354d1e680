"""Windows of arrays that others wrote: GeoTIFF, NumPy files and Zarr, each read as ``(channel, y, x)``.

An array's axes are named by whoever describes it, so that one reader serves every order of axes. Only what covers a
window is read: tiles of a GeoTIFF, rows of a NumPy file (by seeking, also over HTTP), chunks of a Zarr array.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stac_latent.access import is_local, local_path, shown
from stac_latent.codec import Array
from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError
from stac_latent.spec import Window
from stac_latent.store.foreign import open_zarr
from stac_latent.store.raster import open_raster
from stac_latent.store.remote_file import open_binary

if TYPE_CHECKING:
    pass

__all__ = ["AXES", "ForeignArray", "axis_names", "open_array"]

AXES = {
    "channel": ("channel", "channels", "band", "bands", "feature", "features", "embedding", "c"),
    "y": ("y", "row", "lat", "latitude", "northing", "height", "h"),
    "x": ("x", "column", "col", "lon", "longitude", "easting", "width", "w"),
}
"""Our name of an axis, and those that others use for it."""


def axis_names(dims: Sequence[str]) -> tuple[str, ...]:
    """Our names of an array's axes.

    Raises
    ------
    CatalogError
        If a name is unknown, or the axes are not y, x and at most one channel.

    Examples
    --------
    >>> axis_names(["northing", "easting", "band"])
    ('y', 'x', 'channel')
    """
    ours = {other: name for name, others in AXES.items() for other in others}
    found = tuple(ours.get(str(d).lower(), "?") for d in dims)
    if sorted(found) not in (["channel", "x", "y"], ["x", "y"]):
        raise CatalogError(
            f"the axes {list(dims)} are not y, x and channel: name them so in latent:dim_order, in the order of the file "
            f"(also known: {', '.join(sorted(ours))})"
        )
    return found


class ForeignArray(Protocol):
    """An array with known axes, read by window."""

    shape: tuple[int, int, int]
    """Channels (1 where there is no such axis), rows and columns."""
    dtype: np.dtype[Any]

    def read(self, window: Window) -> Array:
        """``(channel, y, x)`` of a window of rows and columns as they are stored."""
        ...


def open_array(container: str, href: str, axes: tuple[str, ...], array: str = "") -> ForeignArray:
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

    Raises
    ------
    CatalogError
        If there is no such file, or no such array in it.
    CorruptDataError
        If it is none of that format, or its axes are others.
    """
    kinds: dict[str, Callable[[str, tuple[str, ...], str], ForeignArray]] = {
        "geotiff": _GeoTiff,
        "npy": _Npy,
        "zarr": _Zarr,
    }
    if container not in kinds:
        raise CatalogError(f"{href}: cannot read arrays from {container!r}; expected {', '.join(kinds)}")
    if is_local(href) and not local_path(href).exists():
        raise CatalogError(f"{href} does not exist")
    return kinds[container](href, axes, array)


class _GeoTiff:
    def __init__(self, href: str, axes: tuple[str, ...], array: str) -> None:  # noqa: ARG002 (one signature for all)
        self.href = href
        with open_raster(self.href, CorruptDataError) as src:
            self.shape = (src.count, src.height, src.width)
            types = set(src.dtypes)
        if len(types) != 1:
            raise CorruptDataError(
                f"{href} has bands of several types ({', '.join(sorted(types))}); expected one"
            )
        self.dtype = np.dtype(types.pop())

    def read(self, window: Window) -> Array:
        with open_raster(self.href, CorruptDataError) as src:
            return np.asarray(src.read(window=window))


class _Npy:
    """A C-ordered array file, of which only the wanted rows are read."""

    def __init__(self, href: str, axes: tuple[str, ...], array: str) -> None:  # noqa: ARG002
        self.href, self.axes = href, axes
        with open_binary(href) as file:
            try:
                version = np.lib.format.read_magic(file)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }
                self.full, fortran, self.dtype = read[version](file)
            except (ValueError, KeyError, EOFError) as exc:
                raise CorruptDataError(f"{href} is no NumPy file (.npy) that can be read: {exc}") from exc
            self.start = file.tell()
            size = file.seek(0, 2)
        if fortran or self.dtype.kind not in "iuf" or min(self.full, default=0) < 1:
            raise CorruptDataError(
                f"{href} holds {'Fortran-ordered ' if fortran else ''}{self.dtype} of shape {self.full}; expected numbers in C order: "
                "save it again with numpy.save(path, numpy.ascontiguousarray(array))"
            )
        _check_axes(href, self.full, axes)
        if axes.index("x") < axes.index("y"):
            raise CorruptDataError(
                f"{href}: x comes before y, which cannot be read by window; store y before x"
            )
        need = self.start + math.prod(self.full) * self.dtype.itemsize
        if size < need:
            raise CorruptDataError(
                f"{href} has {size} bytes, its header declares {need}; it is truncated, fetch it again"
            )
        self.shape = _sizes(self.full, axes)

    def read(self, window: Window) -> Array:
        """Rows are one run of bytes below the axes that come before y."""
        (y0, y1), (x0, x1) = window
        at = self.axes.index("y")
        outer, inner = self.full[:at], self.full[at + 1 :]
        row = math.prod(inner) * self.dtype.itemsize
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
                out[place] = np.frombuffer(data, self.dtype).reshape(out.shape[at:])
        cut = tuple(slice(x0, x1) if name == "x" else slice(None) for name in self.axes)
        return _ordered(out[cut], self.axes)


class _Zarr:
    def __init__(self, href: str, axes: tuple[str, ...], array: str) -> None:
        import zarr
        import zarr.errors

        self.href, self.axes = href, axes
        try:
            node = open_zarr(href)
            found = node[array] if array else node
        except KeyError as exc:
            raise CatalogError(f"{shown(href)} has no array {array!r}; it has {_members(node)}") from exc
        except StacLatentError:
            raise
        except (OSError, ValueError, TypeError, zarr.errors.BaseZarrError) as exc:
            raise CorruptDataError(
                f"{shown(href)} is no Zarr that can be read: {type(exc).__name__}: {exc}"
            ) from exc
        if not isinstance(found, zarr.Array) or found.dtype.kind not in "iuf":
            raise CorruptDataError(f"{href}/{array} is no array of numbers; name one with latent:array")
        _check_axes(f"{href}/{array}", found.shape, axes)
        self.array: zarr.Array[Any] = found
        self.dtype = np.dtype(found.dtype)
        self.shape = _sizes(found.shape, axes)

    def read(self, window: Window) -> Array:
        import zarr.errors

        spans = {"y": slice(*window[0]), "x": slice(*window[1]), "channel": slice(None)}
        try:
            part = np.asarray(self.array[tuple(spans[name] for name in self.axes)])
        except StacLatentError:
            raise
        except (OSError, ValueError, RuntimeError, TypeError, zarr.errors.BaseZarrError) as exc:
            raise CorruptDataError(
                f"{self.href}: window {window} does not decode: {exc}; fetch it again"
            ) from exc
        return _ordered(part, self.axes)


def _members(group: Any) -> str:
    """Names of a group's members, where its store can be listed."""
    try:
        return ", ".join(sorted(group.keys())) or "none"
    except StacLatentError:
        return "what its server does not list"


def _check_axes(where: str, shape: Sequence[int], axes: tuple[str, ...]) -> None:
    if len(shape) != len(axes):
        raise CorruptDataError(
            f"{where} has shape {tuple(shape)}, which does not have the axes {', '.join(axes)}"
        )


def _sizes(shape: Sequence[int], axes: tuple[str, ...]) -> tuple[int, int, int]:
    size = dict(zip(axes, shape, strict=True))
    return size.get("channel", 1), size["y"], size["x"]


def _ordered(part: Array, axes: tuple[str, ...]) -> Array:
    if "channel" not in axes:
        part, axes = part[..., None], (*axes, "channel")
    return np.ascontiguousarray(part.transpose([axes.index(n) for n in ("channel", "y", "x")]))
