"""What a stage of a chain is, and what it may be able to do beside mapping arrays.

An ability is a class without state. A stage that has it lists it among its bases; nothing is concluded from the names of a
stage's attributes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from stac_latent.aliases import Array, Level
from stac_latent.spec import Quantization

__all__ = [
    "EntropyCoder",
    "GridStage",
    "Platform",
    "PointWise",
    "Quantiser",
    "Stage",
    "StoresType",
    "TakesComplex",
    "Tiled",
]


@runtime_checkable
class Stage(Protocol):
    """One invertible step of a chain.

    A stage maps arrays ``(channel, y, x)``; the last one may map to bytes. With ``stride`` (sy, sx) the output
    has ``y / sy`` by ``x / sx`` cells, and inputs are whole cells. A transform that looks past its cell states
    ``overlap`` (input pixels needed to encode a window) and ``halo`` (output cells needed to decode one); at
    the ends of the array it may extend as it likes, the caller crops.

    ``forward`` must not depend on where a window was cut: with the overlap cropped, its result equals the
    whole array's, bit for bit. Stages reach this by exact arithmetic (integers, held in float64 below 2**53).
    """

    name: ClassVar[str]
    level: ClassVar[Level]
    """Level of what ``forward`` returns."""

    @property
    def stride(self) -> tuple[int, int]:
        """Input pixels per output cell (y, x)."""

    @property
    def halo(self) -> tuple[int, int]:
        """Output cells needed on each side of a window to decode it (y, x)."""

    @property
    def overlap(self) -> tuple[int, int]:
        """Input pixels needed on each side of a window to encode it (y, x)."""

    def forward(self, x: Array) -> Any:
        """Encode: ``(channel, y, x)`` to the next array, or to bytes."""

    def inverse(self, y: Any) -> Array:
        """Decode what ``forward`` gave."""

    def config(self) -> dict[str, Any]:
        """JSON parameters; with :meth:`tensors` they rebuild the stage exactly."""

    def tensors(self) -> dict[str, Array]:
        """Arrays that belong to the stage: matrices, tables, weights."""

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild a stage from :meth:`config` and :meth:`tensors`."""


class Quantiser(ABC):
    """A stage whose symbols stand for real values on a stated scale."""

    @property
    @abstractmethod
    def quantization(self) -> Quantization:
        """How symbols become latents again."""


class StoresType(ABC):
    """A stage that fixes the type in which its output is stored."""

    data_type: str
    """Name of a NumPy type."""


class Platform(ABC):
    """A stage that promises no equal bits on other machines, in other versions of its library or for other windows, but equal numbers within a tolerance.

    Nothing that feeds an entropy coder may be one.
    """

    tolerance: float
    """Largest difference, in deviations of the values about it."""


class PointWise:
    """A stage that maps each pixel alone, so that pixels without data are filled after it."""


class TakesComplex:
    """A stage that takes complex values and gives them back; all others compute with real numbers."""


class Tiled(ABC):
    """A stage that codes tiles independently: a window decodes every tile that it touches, and needs no halo."""

    @abstractmethod
    def tile_of(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Pixels (y, x) of the tiles that a field of so many is cut into, from the upper left; a tile alone is one tile."""


class EntropyCoder(ABC):
    """A last stage: integers or pixels to bytes, in a bitstream that has a name."""

    bitstream: ClassVar[str]
    """Identifier and version of the bitstream."""

    @property
    def lossless(self) -> bool:
        """Whether the inverse gives back, bit for bit, what went in."""
        return False


class GridStage(ABC):
    """A stage of bands on several native grids that can be cut down to some of them."""

    @abstractmethod
    def for_grid(self, bands: slice, counts: tuple[int, ...]) -> Stage:
        """The stage of some bands.

        Parameters
        ----------
        bands
            Their positions among those of the chain.
        counts
            How many of them each grid has, finest first.
        """
