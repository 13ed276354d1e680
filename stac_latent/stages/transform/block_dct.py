"""Block DCT: cells of N x N pixels, each coded alone, so that windows need no halo and seams are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError
from stac_latent.stages.base import BaseStage, rounded_shift
from stac_latent.stages.transform.klt import MATRIX_BITS, integer_matrix

__all__ = ["BlockDCT", "dct_matrix"]


def dct_matrix(n: int) -> Array:
    """Orthonormal DCT-II, ``(frequency, sample)``: ``sqrt(2/n) cos(pi (2x+1) k / 2n)``, first row over sqrt 2."""
    k, x = np.mgrid[:n, :n]
    m = np.sqrt(2 / n) * np.cos(np.pi * (2 * x + 1) * k / (2 * n))
    m[0] /= np.sqrt(2)
    return np.asarray(m)


class BlockDCT(BaseStage):
    """Two-dimensional DCT-II of blocks of ``size`` x ``size`` pixels; each block becomes one cell.

    Channels are ordered component by component, frequencies row by row; ``keep`` lists those that are stored.

    Parameters
    ----------
    size
        Pixels along a block.
    components
        Channels of the input.
    keep
        Indices into ``components * size * size`` channels; None keeps all.

    Examples
    --------
    >>> stage = BlockDCT(size=4, components=1)
    >>> x = np.arange(16.0).reshape(1, 4, 4) * 16
    >>> bool(np.abs(stage.inverse(stage.forward(x)) - x).max() <= 1)  # in units of 2**-4
    True
    """

    name: ClassVar[str] = "dct"
    level: ClassVar[Level] = "latent"

    def __init__(self, size: int = 8, components: int = 1, keep: Sequence[int] | None = None) -> None:
        if size not in (2, 4, 8, 16) or not 1 <= components <= 400:
            raise BundleError(
                f"dct: size is 2, 4, 8 or 16 and components 1 to 400; got size {size}, components {components}"
            )
        total = components * size * size
        self.size, self.components = size, components
        self.keep = np.arange(total) if keep is None else np.asarray(keep, np.int64)
        if (
            self.keep.size == 0
            or self.keep.min() < 0
            or self.keep.max() >= total
            or (np.diff(self.keep) <= 0).any()
        ):
            raise BundleError(f"dct: keep must be increasing channel numbers below {total}")
        self._dct = integer_matrix(dct_matrix(size)).astype(np.float64)

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels of a block."""
        return (self.size, self.size)

    @property
    def basis(self) -> Array:
        """DCT matrix ``(frequency, sample)`` in units of 2**-14, float64."""
        return self._dct

    @property
    def channels(self) -> int:
        """Channels per cell."""
        return int(self.keep.size)

    def forward(self, x: Array) -> Array:
        """``(component, y, x)`` to ``(channel, y / size, x / size)``, integer valued."""
        c, h, w = x.shape
        n = self.size
        rows = self._dct @ x.reshape(c, h // n, n, w)
        rounded_shift(rows, MATRIX_BITS)
        both = rows.reshape(-1, n) @ self._dct.T
        rounded_shift(both, MATRIX_BITS)
        cells = (
            both.reshape(c, h // n, n, w // n, n).transpose(0, 2, 4, 1, 3).reshape(c * n * n, h // n, w // n)
        )
        return np.ascontiguousarray(cells[self.keep])

    def inverse(self, y: Array) -> Array:
        """Inverse of :meth:`forward`, rounding aside; components that are zero throughout cost nothing."""
        n, (_, cy, cx) = self.size, y.shape
        out = np.zeros((self.components, cy * n, cx * n))
        component = self.keep // (n * n)
        for c in range(self.components):
            mine = np.flatnonzero(component == c)
            live = mine[y[mine].any(axis=(1, 2))] if mine.size else mine
            if live.size:
                out[c] = self._inverse_one(y, live)
        return out

    def _inverse_one(self, y: Array, live: Array) -> Array:
        n, (_, cy, cx) = self.size, y.shape
        ky, kx = np.divmod(self.keep[live] % (n * n), n)
        ny, nx = int(ky.max()) + 1, int(kx.max()) + 1
        block = np.zeros((cy, ny, cx, nx))
        block[:, ky, :, kx] = y[live]
        rows = block.reshape(-1, nx) @ self._dct[:nx]
        rounded_shift(rows, MATRIX_BITS)
        both = self._dct[:ny].T @ rows.reshape(cy, ny, cx * n)
        return rounded_shift(both, MATRIX_BITS).reshape(cy * n, cx * n)

    def config(self) -> dict[str, Any]:
        """Size, components and the channels kept."""
        full = self.components * self.size * self.size
        keep = None if self.channels == full else self.keep.tolist()
        return {"size": self.size, "components": self.components, "keep": keep}

    def tensors(self) -> dict[str, Array]:
        """The integer basis, so that no machine has to compute a cosine."""
        return {"basis": self._dct.astype(np.int32)}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from a bundle; the basis stored there is the one that is used."""
        stage = cls(size=config["size"], components=config["components"], keep=config["keep"])
        basis = tensors.get("basis")
        if basis is None or basis.shape != stage._dct.shape or np.abs(basis).max() > 2**MATRIX_BITS:
            raise BundleError(
                f"dct: the bundle's basis must be {stage._dct.shape} integers; got {getattr(basis, 'shape', None)}"
            )
        stage._dct = basis.astype(np.float64)
        return stage
