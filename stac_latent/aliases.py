"""Types that every room shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy.typing as npt

__all__ = ["LEVELS", "Array", "Level", "Progress"]

Array = npt.NDArray[Any]
"""A NumPy array of any type."""
Level = Literal["field", "latent", "symbols", "bytes"]
"""How far a field is encoded: pixels, real latents, integer symbols, or the bytes that are stored."""
LEVELS: tuple[Level, ...] = ("field", "latent", "symbols", "bytes")
"""Every level, in the order in which a chain goes through them."""
Progress = Callable[[str, int, int | None], None]
"""Told ``(label, done, total)`` while something runs; the total is None where it is not known."""
