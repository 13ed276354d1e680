"""Vectors in the types that tables store: float16, float32, and int8 with a scale for each vector.

Where the vectors lie far from zero together, int8 counts its steps from it: an offset for each channel, that of the whole table. ``value = int8 *
scale + offset``, in float32 and in that order; a vector of zeros stays one.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stac_latent.errors import CatalogError

__all__ = ["VectorType", "offset_of", "restored", "shifted", "stored"]

VectorType = Literal["float16", "float32", "int8"]
Floats = npt.NDArray[np.float32]

GAIN = 2.0
"""Times that steps of int8 must become smaller for an offset to be worth its place."""
FEWEST = 16
"""Rows from which an offset is taken, at least."""


def offset_of(values: Floats) -> Floats | None:
    """The offset (k,) for int8 vectors like these (n, k): their median, where that makes the steps much smaller; else None.

    Examples
    --------
    >>> spread = np.linspace(-1, 1, 40, dtype=np.float32).reshape(20, 2)
    >>> offset_of(spread) is None, offset_of(spread + [100, 0]).round().tolist()
    (True, [100.0, 0.0])
    """
    fine = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    if len(fine) < FEWEST:
        return None
    middle = np.median(fine, axis=0).astype(np.float32)
    plain, centred = (float(np.median(np.abs(v).max(axis=1))) for v in (fine, fine - middle))
    return middle if plain > GAIN * centred else None


def stored(values: Floats, dtype: VectorType, offset: Floats | None = None) -> tuple[npt.NDArray[Any], Any]:
    """Vectors (n, k) as they are stored, and the scale (n,) of each or None.

    Raises
    ------
    CatalogError
        If a number is beyond the type, or a vector would become zero.
    """
    with np.errstate(over="ignore"):
        out, scale = _int8(values, offset) if dtype == "int8" else (values.astype(dtype), None)
    if dtype == "float16" and (peak := float(np.abs(values).max(initial=0))) > 65504:
        raise CatalogError(
            f"a vector holds {peak:g}, but float16 ends at 65504; publish with dtype='float32' or 'int8', or "
            "standardise the vectors"
        )
    if dtype != "float32":
        lost = ~restored(out, scale, offset).any(axis=1) & values.any(axis=1)
        if lost.any():
            raise CatalogError(
                f"{int(lost.sum())} of {len(values)} vectors are so small (at most {float(np.abs(values[lost]).max()):g}) that {dtype} "
                "holds them as zero, and they would not be found; publish with dtype='float32', or standardise the vectors"
            )
    return out, scale


def _int8(values: Floats, offset: Floats | None) -> tuple[npt.NDArray[np.int8], Floats]:
    if lost := int((~np.isfinite(values)).any(axis=1).sum()):
        raise CatalogError(
            f"{lost} of {len(values)} vectors hold NaN or infinity, which int8 cannot store; publish with dtype='float32' or 'float16'"
        )
    there = np.asarray(values.any(axis=1, keepdims=True))
    left = values if offset is None else np.where(there, values - offset, np.float32(0))
    scale = np.abs(left).max(axis=1) / np.float32(127)
    symbols = np.rint(left / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    same = np.flatnonzero((scale == 0) & there[:, 0])
    if offset is not None and len(same):  # as the offset, and no vectors of zeros
        symbols[same, 0], scale[same] = 1, np.finfo(np.float32).tiny
    return symbols, scale


def restored(symbols: npt.NDArray[Any], scale: Floats | None = None, offset: Floats | None = None) -> Floats:
    """Vectors (n, k) float32 of what is stored."""
    out = symbols.astype(np.float32)
    if scale is not None:
        out *= scale[:, None]
    return out if offset is None else shifted(out, offset)


def shifted(values: Floats, offset: Floats, axis: int = 1) -> Floats:
    """Vectors plus the offset (k,) of their channels, which lie along ``axis``; vectors of zeros stay zero."""
    zero = ~values.any(axis=axis, keepdims=True)
    size = [1] * values.ndim
    size[axis] = -1
    return np.where(zero, np.float32(0), values + offset.reshape(size))
