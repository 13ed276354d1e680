"""Peak signal-to-noise ratio: one rule for rate control, which aims at it, and for metrics, which state it."""

from __future__ import annotations

import math

__all__ = ["LOSSLESS", "decibels"]

LOSSLESS = 200.0
"""The most decibels that are told: smaller errors, of a mean square of 10^-20 of the peak's, are not told from none."""


def decibels(mse: float) -> float:
    """PSNR [dB] of a mean squared error that is relative to the square of the peak.

    Examples
    --------
    >>> decibels(1e-4), decibels(0.0)
    (40.0, 200.0)
    """
    return LOSSLESS if mse == 0 else min(LOSSLESS, -10 * math.log10(mse))
