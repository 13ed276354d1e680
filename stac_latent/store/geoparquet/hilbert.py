"""Where a footprint lies: position on one Hilbert curve over the whole Earth, and tile of a grid of degrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

__all__ = ["LEVEL", "hilbert_index", "hilbert_keys", "tile_name"]

LEVEL = 31
"""Bits per axis: steps of 2e-7 degrees, 2 cm at the equator."""


def hilbert_index(x: npt.NDArray[Any], y: npt.NDArray[Any], level: int = LEVEL) -> npt.NDArray[np.uint64]:
    """Distance along the Hilbert curve of cell (x, y) in a square of ``2**level`` cells a side.

    Parameters
    ----------
    x, y
        Integers in ``[0, 2**level)``, any common shape.
    level
        Order of the curve, at most 31.

    Returns
    -------
    numpy.ndarray
        uint64, the shape of ``x``.

    Examples
    --------
    >>> hilbert_index(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), level=1).tolist()
    [0, 1, 2, 3]
    """
    x, y = np.array(x, np.uint64), np.array(y, np.uint64)
    last = np.uint64(2**level - 1)
    out = np.zeros(x.shape, np.uint64)
    for bit in range(level - 1, -1, -1):
        one, shift = np.uint64(1), np.uint64(bit)
        right, upper = (x >> shift) & one, (y >> shift) & one
        out |= ((np.uint64(3) * right) ^ upper) << np.uint64(2 * bit)
        lower = upper == 0
        flip = lower & (right == 1)
        x, y = np.where(flip, last - x, x), np.where(flip, last - y, y)
        x, y = np.where(lower, y, x), np.where(lower, x, y)
    return out


def hilbert_keys(bounds: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Sort keys of boxes by their centres on the world's curve.

    Degrees count alike on both axes, so neighbours on the curve are near in longitude and in latitude. The curve
    does not depend on the data: files can be merged, and parts of a stream sorted, without knowing the rest. A box
    of more than half the Earth's width is one that was split at the antimeridian; it is placed there.

    Parameters
    ----------
    bounds
        (n, 4) float64: west, south, east, north in degrees.

    Returns
    -------
    numpy.ndarray
        (n,) uint64.
    """
    west, south, east, north = bounds.T
    x = np.where(east - west > 180, 180.0, (west + east) / 2) + 180
    y = (south + north) / 2 + 90
    cells = 2.0**LEVEL
    ints = [np.clip(v / 360 * cells, 0, cells - 1).astype(np.uint64) for v in (x, y)]
    return hilbert_index(ints[0], ints[1])


def tile_name(wkb: bytes, zoom: int) -> str:
    """Name z-x-y of the tile that holds the centre of a footprint's bounds."""
    west, south, east, north = shapely.bounds(shapely.from_wkb(wkb)).tolist()
    x, y = (180.0 if east - west > 180 else (west + east) / 2) + 180, (south + north) / 2 + 90
    side = 180 / 2**zoom
    column, row = min(int(x / side), 2 ** (zoom + 1) - 1), min(int(y / side), 2**zoom - 1)
    return f"{zoom}-{column}-{2**zoom - 1 - row}"
