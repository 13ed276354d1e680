"""Recently decoded windows, so that callers who read band by band decode once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.cube.resample import FieldSource
from stac_latent.spec import Spec, Window

__all__ = ["LIMIT", "Remembering", "forget"]

Array = npt.NDArray[Any]

LIMIT = 256 * 2**20
"""Bytes of decoded pixels that a process keeps; a window of more than half of it is not kept."""


class _Slot:
    """One decoded window; its lock lets others wait for the decode instead of repeating it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.field: Array | None = None


_slots: OrderedDict[tuple[FieldSource, Window], _Slot] = OrderedDict()
_lock = threading.Lock()


class Remembering:
    """A reader that decodes all bands of a window at once and keeps them for the next band.

    Parameters
    ----------
    reader
        Decodes pixel windows.

    Examples
    --------
    >>> red = Remembering(reader).read_field(window, [0])  # doctest: +SKIP
    >>> nir = Remembering(reader).read_field(window, [3])  # no second decode  # doctest: +SKIP
    """

    def __init__(self, reader: FieldSource) -> None:
        self._reader = reader

    @property
    def spec(self) -> Spec:
        """Bands and stride of the reader."""
        return self._reader.spec

    def read_field(self, window: Window | None = None, bands: Sequence[int] | None = None) -> Array:
        """``(band, y, x)`` of a pixel window; a copy, free to change."""
        if window is None:
            return self._reader.read_field(window, bands)
        (y0, y1), (x0, x1) = window
        every = self.spec.bands
        if len(every) == 1 or _nbytes([b.data_type for b in every], (y1 - y0) * (x1 - x0)) > LIMIT // 2:
            return self._reader.read_field(window, bands)
        slot = _slot((self._reader, window))
        with slot.lock:
            if slot.field is None:
                slot.field = self._reader.read_field(window)
            field = slot.field
        _trim()
        return field.copy() if bands is None else field[list(bands)]


def forget() -> None:
    """Drop every window that is kept."""
    with _lock:
        _slots.clear()


def _nbytes(dtypes: Sequence[str], pixels: int) -> int:
    return sum(np.dtype(d).itemsize for d in dtypes) * pixels


def _slot(key: tuple[FieldSource, Window]) -> _Slot:
    with _lock:
        slot = _slots.setdefault(key, _Slot())
        _slots.move_to_end(key)
        return slot


def _trim() -> None:
    with _lock:
        held = sum(s.field.nbytes for s in _slots.values() if s.field is not None)
        while held > LIMIT and len(_slots) > 1:
            _, oldest = _slots.popitem(last=False)
            held -= 0 if oldest.field is None else oldest.field.nbytes
