"""How an array of any dimensions lies in bands of pixels ``(band, y, x)``, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import FieldError

__all__ = ["Layout"]

_IMAGE = 256
"""Pixels below which an image of many bands is laid out as one image with a row for each band."""


@dataclass(frozen=True)
class Layout:
    """Bands, rows and columns of an array.

    The last two axes are rows and columns, all before them bands; an array of one axis is one row. Many bands of a few pixels
    each, such as a chunk that is long in time alone, become rows of one band.

    Parameters
    ----------
    shape
        Of the array.
    band_axis
        Axis of the bands, which is moved in front of rows and columns; None where it is there.

    Examples
    --------
    >>> Layout((5, 4, 64, 64)).field, Layout((64, 64, 3), band_axis=-1).field, Layout((9,)).field
    ((20, 64, 64), (3, 64, 64), (1, 1, 9))
    >>> Layout((365, 4, 4)).field
    (1, 365, 16)
    """

    shape: tuple[int, ...]
    band_axis: int | None = None

    def __post_init__(self) -> None:
        axis, n = self.band_axis, len(self.shape)
        if axis is not None and (n < 3 or not -n <= axis < n):
            raise FieldError(
                f"band_axis={axis} of chunks of shape {self.shape}: expected one of their axes, at least 3 of them; leave "
                "band_axis out where there are no bands, or where they come before rows and columns"
            )

    @property
    def field(self) -> tuple[int, int, int]:
        """Bands, rows and columns."""
        *bands, height, width = self._moved
        count = math.prod(bands)
        if count > 16 and height * width < _IMAGE:
            return 1, count, height * width
        return count, height, width

    @property
    def _moved(self) -> tuple[int, ...]:
        shape = list(self.shape)
        if self.band_axis is not None:
            shape.insert(len(shape) - 3, shape.pop(self.band_axis))
        return (*(1,) * (2 - len(shape)), *shape)

    def to_field(self, x: Array) -> Array:
        """``(band, y, x)``, contiguous."""
        if self.band_axis is not None:
            x = np.moveaxis(x, self.band_axis, -3)
        return np.ascontiguousarray(x).reshape(self.field)

    def from_field(self, field: Array) -> Array:
        """Inverse of :meth:`to_field`; a view where it can be."""
        if self.band_axis is None:
            return field.reshape(self.shape)
        return np.moveaxis(field.reshape(self._moved), -3, self.band_axis)
