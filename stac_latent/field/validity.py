"""Pixels without data: values that stand for them, and what takes their place before they are coded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["fill_invalid", "fits", "zero_invalid"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def fits(value: float | None, dtype: np.dtype[Any]) -> bool:
    """Whether a type can hold a nodata value; None fits any."""
    if value is None or dtype.kind not in "iu":
        return True
    return (
        math.isfinite(value) and value == value // 1 and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    )


def zero_invalid(x: Array, mask: Mask) -> Array:
    """Zeros in place of the masked NaN and infinite values of a float field; other fields as they are.

    Parameters
    ----------
    x
        ``(band, y, x)``.
    mask
        ``(1 or band, y, x)``, true where valid.
    """
    if x.dtype.kind != "f" or mask.all():
        return x
    return np.where(mask | np.isfinite(x), x, x.dtype.type(0))


def fill_invalid(x: Array, mask: Mask, block: tuple[int, int]) -> Array:
    """Replace masked pixels by the rounded mean of the valid ones in their cell, or zero in an empty cell.

    Works cell by cell, so the result does not depend on where a window was cut.

    Parameters
    ----------
    x
        ``(band, y, x)``, integer valued.
    mask
        ``(1 or band, y, x)``, true where valid.
    block
        Cell size (y, x).
    """
    if mask.all():
        return x
    c, h, w = x.shape
    by, bx = block if block != (1, 1) else (min(8, h), min(8, w))
    if h % by or w % bx:
        by = bx = 1
    m = np.broadcast_to(mask, x.shape).reshape(c, h // by, by, w // bx, bx)
    v = x.reshape(c, h // by, by, w // bx, bx).astype(np.float64)
    count = m.sum(axis=(2, 4), keepdims=True)
    mean = np.rint(np.where(m, v, 0).sum(axis=(2, 4), keepdims=True) / np.maximum(count, 1))
    return np.where(m, v, mean).reshape(x.shape).astype(x.dtype)
