"""Spectral transforms: decorrelate the bands of each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError
from stac_latent.stages.base import BaseStage, rounded_shift, take

__all__ = ["MATRIX_BITS", "SpectralKLT", "integer_matrix"]

MATRIX_BITS = 14
"""Orthonormal matrices are stored as integers in units of 2**-14."""


def integer_matrix(m: Array) -> Array:
    """Orthonormal float matrix as int32 in units of ``2**-MATRIX_BITS``."""
    return np.rint(np.asarray(m, np.float64) * 2.0**MATRIX_BITS).astype(np.int32)


class SpectralKLT(BaseStage):
    """Karhunen-Loeve transform over bands: ``y = K x`` with orthonormal rows, by decreasing variance.

    The matrix holds integers, and so does the field: products and sums stay below 2**53, hence exact in float64
    whatever the order of summation, the BLAS or the number of threads. The inverse is the transpose.

    Parameters
    ----------
    matrix
        ``(component, band)`` int32, in units of 2**-14; at most as many components as bands.
    """

    name: ClassVar[str] = "klt"
    level: ClassVar[Level] = "latent"

    def __init__(self, matrix: Array) -> None:
        if matrix.ndim != 2 or matrix.shape[0] > matrix.shape[1] or np.abs(matrix).max() > 2**MATRIX_BITS:
            raise BundleError(
                f"klt: the matrix is (component, band) with components <= bands and entries within 2**{MATRIX_BITS}; "
                f"got shape {matrix.shape}"
            )
        self.matrix = np.ascontiguousarray(matrix, np.int32)
        self._forward = self.matrix.astype(np.float64)

    def forward(self, x: Array) -> Array:
        """``(band, y, x)`` to ``(component, y, x)``, integer valued."""
        y = self._forward @ x.reshape(x.shape[0], -1)
        return rounded_shift(y, MATRIX_BITS).reshape(-1, *x.shape[1:])

    def inverse(self, y: Array) -> Array:
        """``(component, y, x)`` to ``(band, y, x)``; components that are zero throughout cost nothing."""
        flat = y.reshape(y.shape[0], -1)
        live = [i for i in range(len(flat)) if flat[i].any()]
        if not live:
            return np.zeros((self.matrix.shape[1], *y.shape[1:]))
        rows = flat if len(live) == len(flat) else flat[live]
        x = self._forward[live].T @ rows
        return rounded_shift(x, MATRIX_BITS).reshape(-1, *y.shape[1:])

    def config(self) -> dict[str, Any]:
        """Unit of the matrix."""
        return {"bits": MATRIX_BITS}

    def tensors(self) -> dict[str, Array]:
        """The integer matrix."""
        return {"matrix": self.matrix}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from a bundle."""
        if config.get("bits") != MATRIX_BITS:
            raise BundleError(
                f"klt: matrix unit 2**-{config.get('bits')} is not known; expected 2**-{MATRIX_BITS}"
            )
        return cls(take(tensors, "matrix", cls.name, 2))
