"""What a stage of a chain is, and what it may be able to do beside mapping arrays.

An ability is a class without state. A stage that has it lists it among its bases; nothing is concluded from the names of a
stage's attributes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from stac_latent.aliases import Array, Level
from stac_latent.field.rate_target import Target
from stac_latent.spec import Band, Quantization

if TYPE_CHECKING:
    from stac_latent.chain import Chain

__all__ = [
    "ChainT",
    "EntropyCoder",
    "FastPath",
    "GridStage",
    "MultiGrid",
    "PointWise",
    "Quantiser",
    "RateControlled",
    "Stage",
    "StoresType",
    "TakesComplex",
    "Tiled",
]

ChainT = TypeVar("ChainT", bound="Chain")


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


class PointWise:
    """A stage that maps each pixel alone, so that pixels without data are filled after it."""


class TakesComplex:
    """A stage that takes complex values and gives them back; all others compute with real numbers."""


class Tiled(ABC):
    """A stage that codes square tiles independently: a window decodes every tile that it touches, and needs no halo."""

    tile: ClassVar[int]
    """Pixels of a tile along each axis."""


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


class MultiGrid(ABC):
    """A stage that lays bands of several native grids over one lattice of cells."""

    @property
    @abstractmethod
    def native_pixels(self) -> tuple[int, ...] | None:
        """How often each band's native pixel is repeated along an axis; None where all bands share one grid."""

    @abstractmethod
    def grid_chains(self, chain: ChainT) -> tuple[ChainT, ...]:
        """One chain for each lattice of cells that bands of the chain need."""


class RateControlled(ABC):
    """A last stage that can search for the step that reaches a target; the space stays the same."""

    @property
    @abstractmethod
    def target(self) -> Target:
        """What is coded towards; empty for the stage's own step."""

    @property
    @abstractmethod
    def searches(self) -> bool:
        """Whether the stage was given a target, weights or gains."""

    @abstractmethod
    def with_target(
        self,
        chain: Chain,
        target: Target,
        *,
        bands: Sequence[Band],
        weights: Array | None = None,
        gains: Array | None = None,
        overhead: int = 0,
        samples: int | None = None,
    ) -> Stage:
        """The stage, coding towards a target; see :meth:`Chain.with_target`."""

    @abstractmethod
    def at_own_rate(self) -> Stage:
        """The stage at its own step."""

    @abstractmethod
    def measured_over(self, valid: Array, pixels: int | None = None) -> Stage:
        """The stage, measuring over valid pixels alone; see :meth:`Chain.measured_over`."""

    @abstractmethod
    def step_of(self, payload: bytes) -> float:
        """Quantiser step of a payload, in units of the normalised field."""


class FastPath(ABC):
    """A last stage that knows shorter ways between pixels and bytes, equal to the chain's bit for bit."""

    @abstractmethod
    def encoder(self, chain: Chain) -> Callable[[Array, Array | None], bytes] | None:
        """Function from a field and its mask to bytes, without the latents; None where there is none for the chain."""

    @abstractmethod
    def decoder(self, chain: Chain) -> Callable[[bytes], Array] | None:
        """Function from bytes to pixels of the stored type, without the latents; None where there is none for the chain."""
