"""The colours of values: one ramp for the page and for notebooks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["NO_VALUE", "RAMP", "limits", "shade"]

RAMP = (
    (0, 34, 78), (26, 56, 111), (67, 78, 108), (97, 101, 111), (125, 124, 120), (155, 148, 118), (188, 174, 108),
    (222, 201, 88), (254, 232, 56),
)  # fmt: skip
"""Nine steps of cividis: lightness grows evenly, and people with any colour vision see the same order
(Nuñez, Anderton and Renslow, 2018, doi:10.1371/journal.pone.0199239)."""

NO_VALUE = (150, 150, 158)
"""Colour of what has no value; drawn without the fill of the others on the page."""

Floats = npt.NDArray[np.float64]


def limits(values: Floats) -> tuple[float, float]:
    """Values (n,) that the ends of the ramp stand for: the 2nd and 98th percentile of the finite ones.

    Examples
    --------
    >>> limits(np.array([40.0, np.nan, 50.0]))
    (40.2, 49.8)
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, [2, 98])
    return float(low), float(high)


def shade(values: Floats, alpha: int = 255) -> npt.NDArray[np.uint8]:
    """Colours (n, 4) of values (n,), red, green, blue and alpha; NaN is drawn grey.

    Examples
    --------
    >>> shade(np.array([0.0, 1.0])).tolist()
    [[0, 34, 78, 255], [254, 232, 56, 255]]
    """
    low, high = limits(values) if len(values) > 2 else (np.nanmin(values), np.nanmax(values))
    there = np.isfinite(values)
    unit = np.clip((np.where(there, values, low) - low) / (high - low or 1.0), 0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(unit, stops, [c[i] for c in RAMP]) for i in range(3)]
    colour = np.where(there[:, None], np.stack(channels, axis=-1), NO_VALUE)
    return np.concatenate([np.rint(colour), np.full((len(values), 1), alpha)], axis=1).astype(np.uint8)
