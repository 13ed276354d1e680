"""What a rate control aims at: a quality, a rate, an error bound or a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stac_latent.errors import CodecError
from stac_latent.system.suggest import refuse_unknown

__all__ = ["TARGETS", "Target"]

TARGETS = ("psnr", "max_bits_per_pixel", "max_error", "quality", "step")
"""What a caller may aim at."""


@dataclass(frozen=True)
class Target:
    """What a payload shall reach; at most one of the five.

    Parameters
    ----------
    psnr
        At least this, in dB.
    max_bits_per_pixel
        At most this many bits per pixel and band.
    max_error
        At most this absolute error, in the stored unit.
    quality
        0 to 100: 50 is the codec's own step, 10 more make it half as large.
    step
        Quantiser step, in the stored unit.
    """

    psnr: float | None = None
    max_bits_per_pixel: float | None = None
    max_error: float | None = None
    quality: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        given = self.given
        if len(given) > 1:
            raise CodecError(f"one target at a time; got {self}")
        for name, value in given.items():
            high = {"psnr": 200, "quality": 100}.get(name, math.inf)
            zero = name in ("quality", "max_error")
            if not (0 < value <= high or (zero and value == 0)) or math.isinf(value):
                bounds = f"{'at least' if zero else 'more than'} 0" + (
                    f" and at most {high}" if high < math.inf else ""
                )
                raise CodecError(f"{name} must be {bounds}; got {value:g}")

    @classmethod
    def of(cls, options: Mapping[str, Any], verb: str, *, also: tuple[str, ...] = ()) -> Self:
        """The target that a caller's keyword options state.

        Parameters
        ----------
        options
            Targets by name, None where one is left out.
        verb, also
            Who takes them, and its other options, for errors.

        Raises
        ------
        OptionError
            If there are others than the five.
        CodecError
            If there are several, or one is no number that makes sense.
        """
        refuse_unknown(verb, options, (*TARGETS, *also))
        for name, value in options.items():
            if isinstance(value, bool) or not isinstance(value, int | float | np.number | None):
                raise CodecError(f"{name} must be a number; got {value!r}")
        return cls(**options)

    @property
    def given(self) -> dict[str, float]:
        """What was asked for."""
        return {n: getattr(self, n) for n in TARGETS if getattr(self, n) is not None}

    def __str__(self) -> str:
        return ", ".join(f"{k}={v:g}" for k, v in self.given.items()) or "the codec's own step"
