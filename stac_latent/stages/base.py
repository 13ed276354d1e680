"""What most stages share: no stride, no halo, no parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError

__all__ = ["FRACTION_BITS", "BaseStage", "rounded_shift", "take"]

FRACTION_BITS = 4
"""Transforms carry values in units of 2**-4 of the normalised unit, as integers held in float64."""


class BaseStage:
    """Defaults of the :class:`~stac_latent.stage.Stage` protocol for stages that work cell by cell."""

    @property
    def stride(self) -> tuple[int, int]:
        """Input pixels per output cell (y, x)."""
        return (1, 1)

    @property
    def halo(self) -> tuple[int, int]:
        """Output cells needed round a window to decode it."""
        return (0, 0)

    @property
    def overlap(self) -> tuple[int, int]:
        """Input pixels needed round a window to encode it."""
        return (0, 0)

    def config(self) -> dict[str, Any]:
        """Return no parameters."""
        return {}

    def tensors(self) -> dict[str, Array]:
        """Return no arrays."""
        return {}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from keyword parameters; stages with tensors override this."""
        if tensors:
            raise BundleError(f"stage {cls.__name__} has no tensors; the bundle holds {sorted(tensors)}")
        return cls(**config)


def take(tensors: Mapping[str, Array], key: str, stage: str, ndim: int, kind: str = "iu") -> Array:
    """Tensor ``key`` of a bundle, checked for rank and type.

    Raises
    ------
    BundleError
        If it is missing or not as a bundle of this stage has it.
    """
    if key not in tensors:
        raise BundleError(
            f"stage {stage!r} needs tensor {key!r}; the bundle holds {sorted(tensors) or 'none'}"
        )
    arr = tensors[key]
    if arr.ndim != ndim or arr.dtype.kind not in kind:
        raise BundleError(
            f"tensor {key!r} of stage {stage!r} must have {ndim} dimensions and a type of kind {kind!r}; "
            f"got shape {arr.shape}, {arr.dtype}"
        )
    return arr


def rounded_shift(x: Array, bits: int) -> Array:
    """``rint(x / 2**bits)`` in place: exact, since scaling by a power of two is."""
    x *= 2.0**-bits
    return np.rint(x, out=x)
