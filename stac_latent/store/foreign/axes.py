"""Axes of arrays that others wrote: how they are named, in which order they are, and what a file says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import CatalogError, CorruptDataError

__all__ = ["AXES", "ArrayHeader", "axis_names", "check_axes", "in_order", "sizes_of"]

AXES = {
    "channel": ("channel", "channels", "band", "bands", "feature", "features", "embedding", "c"),
    "y": ("y", "row", "lat", "latitude", "northing", "height", "h"),
    "x": ("x", "column", "col", "lon", "longitude", "easting", "width", "w"),
    "time": ("time", "t", "year", "date"),
}
"""Our name of an axis, and those that others use for it."""


def axis_names(dims: Sequence[str]) -> tuple[str, ...]:
    """Our names of an array's axes.

    Raises
    ------
    CatalogError
        If a name is unknown, or the axes are not y, x and at most one channel and one time.

    Examples
    --------
    >>> axis_names(["northing", "easting", "band"])
    ('y', 'x', 'channel')
    """
    ours = {other: name for name, others in AXES.items() for other in others}
    found = tuple(ours.get(str(d).lower(), "?") for d in dims)
    if len(set(found)) != len(found) or not {"x", "y"} <= set(found) or "?" in found:
        raise CatalogError(
            f"the axes {list(dims)} are not y, x and channel: name them so in latent:dim_order, in the order of the file "
            f"(also known: {', '.join(sorted(ours))})"
        )
    return found


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What a file says of its numbers; empty: nothing."""

    nodata: float | None = None
    """Stored number that stands for no data; None where there is none, or it is NaN."""
    scale: tuple[float, ...] = ()
    """Factors that make numbers of what is stored: one, or one for each channel."""
    offset: tuple[float, ...] = ()
    levels: tuple[int, ...] = ()
    """Pixels of the file along a side of a pixel of each of its overviews."""


def check_axes(where: str, shape: Sequence[int], axes: tuple[str, ...]) -> None:
    """Refuse an array that has not as many axes as were named."""
    if len(shape) != len(axes):
        raise CorruptDataError(
            f"{where} has shape {tuple(shape)}, which does not have the axes {', '.join(axes)}"
        )


def sizes_of(shape: Sequence[int], axes: tuple[str, ...]) -> tuple[int, int, int]:
    """Channels, rows and columns of an array."""
    size = dict(zip(axes, shape, strict=True))
    return size.get("channel", 1), size["y"], size["x"]


def in_order(part: Array, axes: tuple[str, ...]) -> Array:
    """A part of an array as ``(channel, y, x)``."""
    if "channel" not in axes:
        part, axes = part[..., None], (*axes, "channel")
    return np.ascontiguousarray(part.transpose([axes.index(n) for n in ("channel", "y", "x")]))
