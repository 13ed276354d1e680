"""Pixels without data: values that stand for them, and what takes their place before they are coded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.spec import Band

__all__ = ["apply_nodata", "fill_invalid", "fits", "mask_of", "valid_mask", "zero_invalid"]

Mask = npt.NDArray[np.bool_]


def fits(value: float | None, dtype: np.dtype[Any]) -> bool:
    """Whether a type can hold a nodata value; None fits any."""
    if value is None or dtype.kind not in "iu":
        return True
    return (
        math.isfinite(value) and value == value // 1 and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    )


def zero_invalid(x: Array, mask: Mask) -> Array:
    """Zeros in place of the masked NaN and infinite values of a float or complex field; other fields as they are.

    Parameters
    ----------
    x
        ``(band, y, x)``.
    mask
        ``(1 or band, y, x)``, true where valid.
    """
    if x.dtype.kind not in "fc" or mask.all():
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


def valid_mask(field: Array, bands: Sequence[Band]) -> npt.NDArray[np.bool_] | None:
    """Pixels that hold data: not the band's nodata, not NaN in any part.

    Parameters
    ----------
    field
        ``(band, y, x)`` in the stored unit.
    bands
        Bands of the field, in order; they tell the nodata values.

    Returns
    -------
    ndarray or None
        ``(1, y, x)`` where all bands agree, else ``(band, y, x)``; None where every pixel is valid.
    """
    valid = np.ones(field.shape, bool)
    for i, band in enumerate(bands):
        if band.nodata is not None and not math.isnan(band.nodata):
            valid[i] = field[i] != band.nodata
        if field.dtype.kind in "fc":
            valid[i] &= ~np.isnan(field[i])
    if valid.all():
        return None
    return valid[:1] if (valid == valid[:1]).all() else valid


def mask_of(mask: npt.NDArray[np.bool_] | None, bands: Sequence[int]) -> npt.NDArray[np.bool_] | None:
    """The part of a mask ``(1 or band, y, x)`` that is of some bands; one for all of them stays one."""
    return mask if mask is None or len(mask) == 1 else mask[list(bands)]


def apply_nodata(field: Array, mask: npt.NDArray[np.bool_] | None, bands: Sequence[Band]) -> Array:
    """Put each band's nodata value (NaN for floats and complex values without one) where ``mask`` is false, and nowhere else; in place.

    A valid pixel that decodes to the nodata value takes the value beside it, so that it stays one.
    """
    for i, band in enumerate(bands):
        valid = None if mask is None else mask[min(i, len(mask) - 1)]
        own = np.dtype(band.data_type)
        if band.nodata is not None and not math.isnan(band.nodata):
            lost = field[i] == (band.nodata if own.kind in "fc" else int(band.nodata))
            lost = lost if valid is None else lost & valid
            if lost.any():
                field[i][lost] = _beside(band.nodata, own)
        if valid is not None and not valid.all():
            empty = math.nan if own.kind in "fc" else 0
            field[i][~valid] = empty if band.nodata is None else band.nodata
    return field


def _beside(value: float, dtype: np.dtype[Any]) -> Any:
    """The next value of a type: the one above, or below the largest; of complex ones, that of the real part."""
    if dtype.kind in "fc":
        info = np.finfo(dtype)
        return np.nextafter(info.dtype.type(value), info.dtype.type(np.inf if value < info.max else 0))
    return value + 1 if value < np.iinfo(dtype).max else value - 1
