"""Fields in the stored type of their bands: what a codec takes, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.errors import FieldError
from stac_latent.spec import Band

__all__ = ["check_field", "lowest_values", "to_field"]

Array = npt.NDArray[Any]


def check_field(field: Array, name: str, bands: Sequence[Band], stride: tuple[int, int]) -> None:
    """Refuse what a codec cannot code.

    Parameters
    ----------
    field
        Should be ``(band, y, x)`` of real numbers and whole cells.
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
    if field.dtype.kind not in "iuf":
        raise FieldError(f"codec {name!r} takes real numbers; got dtype {field.dtype}")
    if field.dtype.kind == "f" and all(np.dtype(b.data_type).kind != "f" for b in bands):
        raise FieldError(
            f"codec {name!r} takes {bands[0].data_type}; got {field.dtype}. Scale the field to the codec's "
            "unit and round it, or choose a codec whose bands are floats"
        )
    if any(n == 0 or n % s for n, s in zip(field.shape[1:], stride, strict=True)):
        raise FieldError(
            f"codec {name!r} takes whole cells of {stride} pixels; got {field.shape[1:]}; pad the "
            "field, or use compress(), which does"
        )


def to_field(x: Array, bands: Sequence[Band]) -> Array:
    """Round and clip ``(band, y, x)`` to the stored type of its bands."""
    dtypes = {np.dtype(b.data_type) for b in bands}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.result_type(*dtypes)
    if x.dtype == dtype:
        return x
    if dtype.kind == "f":
        return x.astype(dtype)
    bound = lowest_values(bands, dtype).astype(x.dtype).reshape(-1, 1, 1)
    return np.clip(np.rint(x), bound, np.iinfo(dtype).max).astype(dtype)


def lowest_values(bands: Sequence[Band], dtype: np.dtype[Any]) -> Array:
    """Lowest value of each band that a decoded pixel may take, int64.

    A band whose nodata is the lowest value of its type keeps that value for pixels without data.
    """
    low = np.iinfo(dtype).min
    return np.asarray([low + 1 if b.nodata == low else low for b in bands], np.int64)
