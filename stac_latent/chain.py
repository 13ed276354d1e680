"""A chain of stages; decoding inverts the chain as far as the caller asks.

::

    field --transform--> latent --quantise--> symbols --entropy code--> bytes

A :class:`Chain` knows what a stage is (:mod:`stac_latent.stage`), but no stage, no byte string and no file.
:class:`stac_latent.codec.Codec` is a chain that codes whole fields.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import LEVELS, Array, Level
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.rate_target import Target
from stac_latent.field.storage_type import check_field, common_type, to_field
from stac_latent.field.validity import fill_invalid, fits, zero_invalid
from stac_latent.spec import Band, Granularity, Kind, Quantization, Spec, Stats
from stac_latent.stage import (
    EntropyCoder,
    Platform,
    PointWise,
    Quantiser,
    Stage,
    StoresType,
    TakesComplex,
    Tiled,
)
from stac_latent.system.digests import canonical_json
from stac_latent.window import WindowLike

__all__ = ["BandDecoder", "Chain", "ChainT", "FastPath", "MultiGrid", "RateControlled"]


ChainT = TypeVar("ChainT", bound="Chain")


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


class BandDecoder(Protocol):
    """From bytes to pixels ``(band, y, x)``."""

    def __call__(self, payload: bytes, bands: Sequence[int] | None = None, /) -> Array:
        """Pixels of the bands at these positions, in this order; of all where None are given."""
        ...


class FastPath(ABC):
    """A last stage that knows shorter ways between pixels and bytes, equal to the chain's bit for bit."""

    @abstractmethod
    def encoder(self, chain: Chain) -> Callable[[Array, Array | None], bytes] | None:
        """Function from a field and its mask to bytes, without the latents; None where there is none for the chain."""

    @property
    @abstractmethod
    def by_band(self) -> bool:
        """Whether :meth:`decoder` does less for fewer bands."""

    @property
    @abstractmethod
    def reductions(self) -> int:
        """Times that the resolution of what :meth:`decoder` gives can be halved."""

    @abstractmethod
    def prefixes(self, payload: bytes) -> tuple[int, ...]:
        """Bytes at the beginning of a payload that each of the :attr:`reductions` needs, from 1 on."""

    @abstractmethod
    def decoder(self, chain: Chain, reduction: int = 0, *, prefix: bool = False) -> BandDecoder | None:
        """Function from bytes to pixels of the stored type, without the latents; None where there is none for the chain.

        It takes the positions of the bands to give, or None for all.

        With a ``reduction`` pixels are means of ``2**reduction`` by as many, or nearly, and what they do not need of the bytes is
        not decoded. Of a ``prefix`` only these bytes need be there, and checksums of the whole are not looked at.
        """


@dataclass(frozen=True)
class Chain:
    """A chain of stages for fields of given bands.

    Parameters
    ----------
    name
        Short name, part of file names; not part of the space.
    stages
        The chain, first to last.
    bands
        Bands of the field, in order.
    kind
        ``codec`` (decodable) or ``embedding`` (features only).
    dimensions
        Channels of the symbols.
    stats
        Mean and deviation of the dequantised latent channels over the fitting data.
    """

    name: str
    stages: tuple[Stage, ...]
    bands: tuple[Band, ...]
    kind: Kind = "codec"
    dimensions: int = 0
    stats: Stats | None = None
    granularity: Granularity = "patch"
    about: Mapping[str, Any] = field(default_factory=dict)
    """Model card: description, licence, training data, metrics. Not part of the space."""
    whole_space: str = ""
    """Space of the codec that this is one of the :attr:`grid_chains` of, or the same as for bands of other types or nodata."""
    untyped: frozenset[str] = frozenset()
    """Bands that were given by name alone: type and nodata are those of the source."""

    def __post_init__(self) -> None:
        if not self.stages or not self.bands:
            raise CodecError(f"codec {self.name!r} needs at least one stage and one band")
        order = [LEVELS.index(s.level) for s in self.stages]
        if order != sorted(order) or LEVELS.index("bytes") in order[:-1]:
            raise CodecError(
                f"codec {self.name!r}: levels of its stages are {[s.level for s in self.stages]}; a chain goes from "
                "field over latent and symbols to bytes and never back"
            )
        for b in self.bands:
            if not fits(b.nodata, np.dtype(b.data_type)):
                raise CodecError(
                    f"band {b.name!r} of codec {self.name!r} is {b.data_type}, which cannot hold nodata {b.nodata}"
                )
        if first := next((b for b in self.bands if b.is_complex), None):
            if not self.takes_complex:
                raise CodecError(
                    f"band {first.name!r} of codec {self.name!r} is {first.data_type}, and its stages compute with real numbers: code real "
                    "and imaginary part, or magnitude and phase, as bands of their own, or take the chain 'zstd'"
                )
            if real := next((b for b in self.bands if not b.is_complex), None):
                raise CodecError(
                    f"band {first.name!r} of codec {self.name!r} is {first.data_type} and band {real.name!r} is {real.data_type}; complex "
                    "bands and real ones are coded apart, as two assets"
                )

    # -- what the chain is ---------------------------------------------------------------------------------

    @cached_property
    def stride(self) -> tuple[int, int]:
        """Source pixels per cell (y, x): the product over the stages."""
        sy = sx = 1
        for s in self.stages:
            sy, sx = sy * s.stride[0], sx * s.stride[1]
        return sy, sx

    @cached_property
    def halo(self) -> tuple[int, int]:
        """Cells needed round a window to decode it; none where tiles decode alone (:attr:`tiled`)."""
        hy = hx = 0
        for s in self.stages:
            hy, hx = -(-hy // s.stride[0]) + s.halo[0], -(-hx // s.stride[1]) + s.halo[1]
        return hy, hx

    @cached_property
    def overlap(self) -> tuple[int, int]:
        """Whole-cell pixels needed round a window to encode it (y, x)."""
        need, scale = [0, 0], [1, 1]
        for s in self.stages:
            for i in (0, 1):
                need[i] += s.overlap[i] * scale[i]
                scale[i] *= s.stride[i]
        return (
            -(-need[0] // self.stride[0]) * self.stride[0],
            -(-need[1] // self.stride[1]) * self.stride[1],
        )

    @cached_property
    def tiled(self) -> bool:
        """True where tiles decode alone and as a whole: there is no halo then, and windows are cut from whole tiles."""
        return any(isinstance(s, Tiled) for s in self.stages)

    def tile_of(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Pixels (y, x) of the tiles that a field of so many is cut into: all of it, where the chain has none."""
        return next((s.tile_of(shape) for s in self.stages if isinstance(s, Tiled)), shape)

    @cached_property
    def tolerance(self) -> float:
        """Largest difference of latents between machines, in deviations of them; 0 where they are equal bit for bit."""
        return max((s.tolerance for s in self.stages if isinstance(s, Platform)), default=0.0)

    def agrees(self, symbols: Array, others: Array) -> bool:
        """Whether symbols are the same, within the tolerance of the chain: of integers, but for one step."""
        if not self.tolerance or symbols.shape != others.shape or symbols.dtype != others.dtype:
            return np.array_equal(symbols, others, equal_nan=symbols.dtype.kind == "f")
        gap = np.abs(symbols.astype(np.float64) - others)
        most = 1.0 if symbols.dtype.kind in "iu" else self.tolerance * max(float(others.std()), 1e-30)
        return bool(gap.max(initial=0) <= most)

    @property
    def takes_complex(self) -> bool:
        """Whether complex values come back as they went in."""
        return all(isinstance(s, TakesComplex) for s in self.stages)

    @cached_property
    def native_pixels(self) -> tuple[int, ...]:
        """How often each band's native pixel is repeated along an axis to fill the finest grid."""
        found = [s.native_pixels for s in self.stages if isinstance(s, MultiGrid)]
        return next((v for v in found if v), (1,) * len(self.bands))

    @cached_property
    def grid_chains(self) -> tuple[Self, ...]:
        """One chain for each native grid that needs cells of its own; of one grid, the chain itself alone."""
        return next((s.grid_chains(self) for s in self.stages if isinstance(s, MultiGrid)), (self,))

    @property
    def tail(self) -> Stage | None:
        """The entropy-coding stage, if the chain ends with one."""
        return self.stages[-1] if self.stages[-1].level == "bytes" else None

    @cached_property
    def space(self) -> str:
        """Digest of chain, weights and normalisation: equal digests mean comparable, decodable latents."""
        if self.whole_space:
            return self.whole_space
        h = hashlib.sha256()
        h.update(canonical_json(self.chain()))
        rows = [[b.name, b.data_type, b.scale, b.offset, str(b.nodata)] for b in self.bands]
        h.update(canonical_json(rows))
        for key, arr in sorted(self.tensors().items()):
            little = np.ascontiguousarray(arr, dtype=arr.dtype.newbyteorder("<"))
            h.update(f"{key}:{little.dtype.str}:{list(arr.shape)}".encode())
            h.update(little.tobytes())
        return f"sha256:{h.hexdigest()}"

    def chain(self) -> list[dict[str, Any]]:
        """Names and parameters of the stages."""
        return [{"stage": s.name, **s.config()} for s in self.stages]

    def tensors(self) -> dict[str, Array]:
        """Arrays of every stage, keyed ``<position>.<name>``."""
        return {f"{i}.{k}": v for i, s in enumerate(self.stages) for k, v in s.tensors().items()}

    @cached_property
    def spec(self) -> Spec:
        """The contract that the ``latent:`` fields of an asset carry (plain payload; no bitstream)."""
        quantiser = next((s for s in self.stages if s.level == "symbols"), None)
        quantization = quantiser.quantization if isinstance(quantiser, Quantiser) else Quantization("none")
        types = [s.data_type for s in self.stages if isinstance(s, StoresType)]
        stored = types[-1] if types else str(common_type(self.bands))
        return Spec(
            kind=self.kind,
            space=self.space,
            dimensions=self.dimensions or len(self.bands),
            stride=self.stride,
            halo=self.halo,
            bands=self.bands,
            data_type=stored,
            dtype="float32" if quantiser is not None else stored,
            quantization=quantization,
            granularity=self.granularity,
            determinism="platform" if self.tolerance else "exact",
        )

    @property
    def bitstream(self) -> str | None:
        """Identifier and version of the entropy-coded container; None for a chain without one."""
        if self.tail is None:
            return None
        last = self.stages[-1]
        return last.bitstream if isinstance(last, EntropyCoder) else last.name

    @property
    def exact_symbols(self) -> bool:
        """Whether symbols come back from bytes as they went in, bit for bit."""
        last = self.stages[-1]
        return isinstance(last, EntropyCoder) and last.lossless

    # -- encode and decode arrays of whole cells -------------------------------------------------------------

    def encode(
        self, field: Array, *, mask: npt.NDArray[np.bool_] | None = None, upto: Level = "bytes"
    ) -> Any:
        """Encode a field as far as ``upto``.

        Parameters
        ----------
        field
            ``(band, y, x)`` in the bands' stored unit; y and x are whole cells (see :attr:`stride`).
        mask
            Valid pixels, ``(1 or band, y, x)``; others are replaced by the mean of the valid ones in their cell.
        upto
            Level to stop at; ``bytes`` needs a chain that ends with an entropy coder.

        Returns
        -------
        bytes or ndarray
            ``latent``: float64 before quantising; ``symbols``: integers ``(channel, y, x)``.
        """
        check_field(field, self.name, self.bands, self.stride)
        if upto == "bytes" and self._encoder is not None:
            return self._encoder(field, mask)
        x: Any = field if mask is None else zero_invalid(field, mask)
        if self.stages[0].level == "bytes":  # a coder of pixels
            x = to_field(x, self.bands)
        filled = mask is None
        for stage in self._upto(upto):
            if not filled and not isinstance(stage, PointWise):
                filled = True
                if not (isinstance(stage, EntropyCoder) and stage.lossless):
                    x = fill_invalid(x, cast("Array", mask), self.stride)
            x = stage.forward(x)
        return x

    def decode(
        self,
        payload: Any,
        *,
        upto: Level = "field",
        window: WindowLike | None = None,
        bands: Sequence[int] | None = None,
    ) -> Array:
        """Invert the chain from bytes or symbols down to ``upto``.

        Parameters
        ----------
        payload
            ``bytes``, or symbols ``(channel, y, x)``.
        upto
            ``symbols``; ``latent`` (dequantised, float32); ``field``.
        window
            Pixels ``((y0, y1), (x0, x1))`` of the field to return; only their cells and the halo are inverted.
        bands
            Positions of the bands of the field to return; default: all.

        Returns
        -------
        ndarray
            ``(band or channel, y, x)``. Pixels without data are not masked here: masks travel beside payloads.
        """
        if self.kind == "embedding" and upto == "field":
            raise CodecError(
                f"{self.name!r} is an embedder: its latents cannot be decoded; ask for upto='latent'"
            )
        coded = isinstance(payload, bytes | bytearray | memoryview)
        if coded and upto == "field" and window is None and self._decoder is not None:
            return self._decoder(bytes(payload), bands)
        symbols = self.entropy_decode(payload) if coded else payload
        if upto in ("symbols", "latent"):
            return cast("Array", symbols if upto == "symbols" else self.spec.quantization.dequantise(symbols))
        crop: tuple[slice, slice] = (slice(None), slice(None))
        if window is not None:
            symbols, crop = self._cells(symbols, window)
        if self._synthesis is not None:
            return _chosen(self._synthesis(symbols)[:, crop[0], crop[1]], bands)
        x = symbols.copy() if self.stages[0].level == "bytes" else symbols  # never a view of the caller's
        for stage in reversed([s for s in self.stages if s.level != "bytes"]):
            x = stage.inverse(x)
        return _chosen(to_field(x[:, crop[0], crop[1]], self.bands), bands)

    @cached_property
    def by_band(self) -> bool:
        """Whether :meth:`decode` does less from bytes to pixels where fewer bands are asked for."""
        last = self.stages[-1]
        alike = len({b.data_type for b in self.bands}) == 1
        return isinstance(last, FastPath) and self._decoder is not None and last.by_band and alike

    @cached_property
    def _encoder(self) -> Callable[[Array, Array | None], bytes] | None:
        """Function from pixels and their mask to bytes, where the last stage knows a short way."""
        last = self.stages[-1]
        return last.encoder(self) if isinstance(last, FastPath) else None

    @cached_property
    def _decoder(self) -> BandDecoder | None:
        """Function from bytes to pixels, where the last stage knows a short way."""
        last = self.stages[-1]
        return last.decoder(self) if isinstance(last, FastPath) else None

    @cached_property
    def _synthesis(self) -> Callable[[Array], Array] | None:
        """Function from symbols to pixels through all stages at once; rooms above that know the stages may have one."""
        return None

    def entropy_encode(self, symbols: Array) -> bytes:
        """Symbols ``(channel, y, x)`` to one self-contained bitstream."""
        if self.tail is None:
            raise CodecError(f"codec {self.name!r} has no entropy coder; its symbols are stored plainly")
        return bytes(self.tail.forward(symbols))

    def entropy_decode(self, payload: bytes | bytearray | memoryview) -> Array:
        """Inverse of :meth:`entropy_encode`."""
        if self.tail is None:
            raise CodecError(f"codec {self.name!r} has no entropy coder; it cannot read a bitstream")
        return self.tail.inverse(bytes(payload))

    # -- what the last stage codes towards ---------------------------------------------------------------------

    @property
    def rate_control(self) -> RateControlled | None:
        """The last stage, where it can search for a target."""
        last = self.stages[-1]
        return last if isinstance(last, RateControlled) else None

    @property
    def target(self) -> Target:
        """What the chain codes towards; empty where that is its own step."""
        return Target() if self.rate_control is None else self.rate_control.target

    @property
    def searches(self) -> bool:
        """Whether the last stage was told what to code towards, or how to weigh it."""
        return self.rate_control is not None and self.rate_control.searches

    def with_target(
        self,
        target: Target,
        *,
        bands: Sequence[Band] | None = None,
        weights: Array | None = None,
        band_weights: Sequence[float] | None = None,
        overhead: int = 0,
        samples: int | None = None,
    ) -> Self:
        """The chain, coding towards a target; what it writes is of the same space.

        Parameters
        ----------
        target
            What to reach.
        bands
            Bands whose scales tell the peaks that PSNR refers to, where they know better than the chain's.
        weights
            Weight of each pixel's squared error, float32 ``(y, x)`` of the padded field.
        band_weights
            Factor on the precision of each band: 2 halves its error against the others'.
        overhead
            Bytes that are stored beside the payload and count in its rate.
        samples
            Pixels times bands that the rate refers to; None for those that are coded.

        Raises
        ------
        CodecError
            If the chain has a fixed rate, or the target makes no sense.
        """
        if not target.given and weights is None and band_weights is None:
            return self
        if self.rate_control is None:
            raise CodecError(
                f"codec {self.name!r} codes at the one rate that is part of its space; for {target} take a chain that ends with "
                "'lin', or open it with another step="
            )
        gains = None if band_weights is None else np.asarray(band_weights, np.float32)
        if gains is not None and (gains.shape != (len(self.bands),) or not (gains > 0).all()):
            raise CodecError(
                f"band_weights must be {len(self.bands)} positive numbers, one for each band; got {list(band_weights or ())}"
            )
        return self._ending(
            self.rate_control.with_target(
                self,
                target,
                bands=bands or self.bands,
                weights=weights,
                gains=gains,
                overhead=overhead,
                samples=samples,
            )
        )

    def at_own_rate(self) -> Self:
        """The chain without the target that :meth:`with_target` gave it."""
        if self.rate_control is None or not self.searches:
            return self
        return self._ending(self.rate_control.at_own_rate())

    def measured_over(self, valid: Array | None, pixels: int | None = None) -> Self:
        """The chain, measuring over valid pixels ``(1 or band, y, x)`` where it codes towards a target.

        ``pixels`` of a chunk of a scene are those that its rate refers to.
        """
        if valid is None or self.rate_control is None or not self.searches:
            return self
        return self._ending(self.rate_control.measured_over(valid, pixels))

    def for_bands(self, bands: Sequence[Band]) -> Self:
        """The same chain, of the same space, for bands of other types or nodata: those that an asset or a source states.

        Names, scales and offsets stay the chain's; so does everything where the number of bands differs.
        """
        stated = tuple(
            replace(own, data_type=b.data_type, nodata=b.nodata)
            for own, b in zip(self.bands, bands, strict=False)
        )
        if len(stated) != len(self.bands) or str(stated) == str(self.bands):
            return self
        return replace(self, bands=stated, whole_space=self.space, untyped=frozenset())

    # -- helpers -------------------------------------------------------------------------------------------------

    def _ending(self, tail: Stage) -> Self:
        """The chain with another last stage."""
        return replace(self, stages=(*self.stages[:-1], tail))

    def _upto(self, upto: Level) -> Sequence[Stage]:
        if upto not in LEVELS:
            raise CodecError(f"upto={upto!r} is not a level; expected one of {', '.join(LEVELS)}")
        if upto == "bytes" and self.tail is None:
            raise CodecError(f"codec {self.name!r} has no entropy coder; the furthest level is 'symbols'")
        return [s for s in self.stages if LEVELS.index(s.level) <= LEVELS.index(upto)]

    def _cells(self, symbols: Array, window: WindowLike) -> tuple[Array, tuple[slice, slice]]:
        cuts, crops = [], []
        for (lo, hi), s, h, n in zip(window, self.stride, self.halo, symbols.shape[1:], strict=True):
            if not 0 <= lo < hi <= n * s:
                raise FieldError(f"window {window} is not inside the {n * s} pixels of this axis")
            if self.tiled:  # the stages invert tile by tile, counted from the upper left
                cuts.append(slice(0, n))
                crops.append(slice(lo, hi))
                continue
            first, last = max(0, lo // s - h), min(n, -(-hi // s) + h)
            cuts.append(slice(first, last))
            crops.append(slice(lo - first * s, hi - first * s))
        return symbols[:, cuts[0], cuts[1]], (crops[0], crops[1])


def _chosen(x: Array, bands: Sequence[int] | None) -> Array:
    return x if bands is None else x[list(bands)]
