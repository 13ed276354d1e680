"""Fields in the stored type of their bands: what a codec takes, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError, CorruptDataError, FieldError
from stac_latent.spec import Band

__all__ = ["check_field", "common_type", "lowest_values", "to_field"]


def check_field(field: Array, name: str, bands: Sequence[Band], stride: tuple[int, int]) -> None:
    """Refuse what a codec cannot code.

    Parameters
    ----------
    field
        Should be ``(band, y, x)`` of real numbers, or of complex ones where the bands are, and whole cells.
    name, bands, stride
        Of the codec.

    Raises
    ------
    FieldError
        If bands, type or size do not fit.
    """
    if field.ndim != 3 or field.shape[0] != len(bands):
        names = ", ".join(b.name for b in bands)
        raise FieldError(
            f"codec {name!r} takes (band, y, x) with {len(bands)} bands ({names}); got shape {field.shape}"
        )
    if field.dtype.kind not in ("iufc" if bands[0].is_complex else "iuf"):
        raise FieldError(f"codec {name!r} takes real numbers; got dtype {field.dtype}")
    if field.dtype.kind == "f" and all(np.dtype(b.data_type).kind in "iu" for b in bands):
        raise FieldError(
            f"codec {name!r} takes {bands[0].data_type}; got {field.dtype}. Scale the field to the codec's "
            "unit and round it, or choose a codec whose bands are floats"
        )
    if any(n == 0 or n % s for n, s in zip(field.shape[1:], stride, strict=True)):
        raise FieldError(
            f"codec {name!r} takes whole cells of {stride} pixels; got {field.shape[1:]}; pad the "
            "field, or use compress(), which does"
        )


def common_type(bands: Sequence[Band]) -> np.dtype[Any]:
    """Type of the array that holds a field of these bands: theirs, or the smallest that holds all of theirs.

    Raises
    ------
    FieldError
        If there is none that holds each of them exactly.
    """
    types = list(dict.fromkeys(np.dtype(b.data_type) for b in bands))
    common = np.result_type(*types)
    if any(not np.can_cast(t, common) or (t.itemsize == 8 and t.kind != common.kind) for t in types):
        names = ", ".join(f"{b.name} {b.data_type}" for b in bands)
        raise FieldError(
            f"no type holds all values of these bands: {names}; code 64-bit integers apart from bands of other types"
        )
    return common


def to_field(x: Array, bands: Sequence[Band]) -> Array:
    """Round and clip ``(band, y, x)``, each band to its stored type, held in the :func:`common_type` of all.

    Raises
    ------
    BundleError
        If there are more or fewer of them than bands: the parts of a chain do not fit together.
    CorruptDataError
        If they are complex, and bands are not.
    """
    if len(x) != len(bands):
        raise BundleError(f"the chain gives {len(x)} bands of pixels, but its codec names {len(bands)}")
    dtype = common_type(bands)
    if x.dtype.kind == "c" != dtype.kind:
        raise CorruptDataError(
            f"the payload holds complex values ({x.dtype}), and its bands are {dtype}; it was changed"
        )
    if len({b.data_type for b in bands}) == 1:
        if x.dtype == dtype:
            return x
        if dtype.kind in "fc":
            return x.astype(dtype)
        low, high = _ends(bands, dtype, x.dtype)
        return np.clip(np.rint(x), low.reshape(-1, 1, 1), high).astype(dtype)
    out = np.empty(x.shape, dtype)
    for i, band in enumerate(bands):
        own = np.dtype(band.data_type)
        out[i] = x[i].astype(own) if own.kind in "fc" else to_field(x[i : i + 1], [band])[0]
    return out


def lowest_values(bands: Sequence[Band], dtype: np.dtype[Any]) -> Array:
    """Lowest value of each band that a decoded pixel may take, int64.

    A band whose nodata is the lowest value of its type keeps that value for pixels without data.
    """
    low = np.iinfo(dtype).min
    return np.asarray([low + 1 if b.nodata == low else low for b in bands], np.int64)


def _ends(bands: Sequence[Band], dtype: np.dtype[Any], held: np.dtype[Any]) -> tuple[Array, Any]:
    """Lowest values and the highest one of a type, as the array that is clipped holds them."""
    high = held.type(min(np.iinfo(dtype).max, np.iinfo(held).max if held.kind in "iu" else np.inf))
    if int(high) > np.iinfo(dtype).max:
        high = np.nextafter(high, held.type(0))
    low = lowest_values(bands, dtype)
    if held.kind in "iu":
        low = np.clip(low, np.iinfo(held).min, None) if held.kind == "i" else np.maximum(low, 0)
    return low.astype(held), high
