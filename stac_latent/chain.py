"""A codec is a chain of stages; decoding inverts the chain as far as the caller asks.

::

    field --transform--> latent --quantise--> symbols --entropy code--> bytes

This module holds the :class:`Stage` protocol, the :class:`Codec` chain and its digest. It knows no STAC client
and no file format; :mod:`stac_latent.codec.bundle` reads and writes chains, :mod:`stac_latent.codec.registry` finds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import LEVELS, Array, Level
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.storage_type import check_field, common_type, to_field
from stac_latent.field.validity import fill_invalid, fits, zero_invalid
from stac_latent.spec import Band, Granularity, Kind, Quantization, Spec, Stats
from stac_latent.system.digests import canonical_json
from stac_latent.window import WindowLike

__all__ = ["Codec", "Stage", "open_codec"]


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


@dataclass(frozen=True)
class Codec:
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
    """Space of the codec that this is one of the :attr:`parts` of, or the same as for bands of other types or nodata."""
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
        """Cells needed round a window to decode it; none where tiles decode alone (:attr:`whole`)."""
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
    def whole(self) -> bool:
        """True where tiles decode alone and as a whole: there is no halo then, and windows are cut from whole tiles."""
        return any(hasattr(s, "tile") for s in self.stages)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Pixels of the field along a native pixel of each band: 1 but where larger ones are repeated."""
        return next((v for s in self.stages if (v := getattr(s, "steps", None))), (1,) * len(self.bands))

    @cached_property
    def parts(self) -> tuple[Codec, ...]:
        """Codec of each lattice of cells, of this one's space: itself, but where pixels fit no cell of the finest's."""
        return next((p(self) for s in self.stages if (p := getattr(s, "parts", None))), (self,))

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
        quantization = getattr(quantiser, "quantization", Quantization("none"))
        last = next((s for s in reversed(self.stages) if hasattr(s, "data_type")), None)
        stored = str(getattr(last, "data_type", common_type(self.bands)))
        return Spec(
            kind=self.kind,
            space=self.space,
            dimensions=self.dimensions or len(self.bands),
            stride=self.stride,
            halo=None if self.whole else self.halo,
            bands=self.bands,
            data_type=stored,
            dtype="float32" if quantiser is not None else stored,
            quantization=quantization,
            granularity=self.granularity,
        )

    @property
    def bitstream(self) -> str | None:
        """Identifier and version of the entropy-coded container; None for a chain without one."""
        return None if self.tail is None else str(getattr(self.tail, "bitstream", self.tail.name))

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
            if not filled and stage.name != "normalise":
                filled = True
                if not getattr(stage, "lossless", False):
                    x = fill_invalid(x, cast("Array", mask), self.stride)
            x = stage.forward(x)
        return x

    def decode(self, payload: Any, *, upto: Level = "field", window: WindowLike | None = None) -> Array:
        """Invert the chain from bytes or symbols down to ``upto``.

        Parameters
        ----------
        payload
            ``bytes``, or symbols ``(channel, y, x)``.
        upto
            ``symbols``; ``latent`` (dequantised, float32); ``field``.
        window
            Pixels ``((y0, y1), (x0, x1))`` of the field to return; only their cells and the halo are inverted.

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
        if coded and upto == "field" and window is None and self._direct is not None:
            return self._direct(bytes(payload))
        symbols = self.entropy_decode(payload) if coded else payload
        if upto in ("symbols", "latent"):
            return cast("Array", symbols if upto == "symbols" else self.spec.quantization.dequantise(symbols))
        crop: tuple[slice, slice] = (slice(None), slice(None))
        if window is not None:
            symbols, crop = self._cells(symbols, window)
        if self._fused is not None:
            return self._fused(symbols)[:, crop[0], crop[1]]
        x = symbols.copy() if self.stages[0].level == "bytes" else symbols  # never a view of the caller's
        for stage in reversed([s for s in self.stages if s.level != "bytes"]):
            x = stage.inverse(x)
        return to_field(x[:, crop[0], crop[1]], self.bands)

    @cached_property
    def _encoder(self) -> Callable[[Array, Array | None], bytes] | None:
        """Function from pixels and their mask to a bitstream without the latents, if the last stage offers one."""
        return getattr(self.tail, "encoder", lambda _: None)(self)

    @cached_property
    def _direct(self) -> Callable[[bytes], Array] | None:
        """Function from a bitstream to pixels that leaves the latents out, if the last stage offers one."""
        return getattr(self.tail, "direct", lambda _: None)(self)

    @cached_property
    def _fused(self) -> Callable[[Array], Array] | None:
        """Inverse of the whole chain in one go, if its first stage offers one (see ``Normalise.fused``)."""
        return getattr(self.stages[0], "fused", lambda _: None)(self)

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

    def compress(self, field: Array | Sequence[Array], **target: Any) -> bytes:
        """One self-contained byte string of a field of any size, nodata kept; see :func:`stac_latent.bytestring.single_grid.compress`.

        A list or tuple holds the fields of several grids, finest first; see :func:`stac_latent.bytestring.multi_grid.compress_native`.
        ``target`` is at most one of ``psnr=``, ``max_bits_per_pixel=``, ``max_error=``, ``quality=`` and ``step=``, and beside it
        ``error_bound=``, which a residual guarantees for every pixel; see :func:`stac_latent.bytestring.bounded.compress_bounded`.
        """
        coder: Callable[..., bytes]
        if "error_bound" in target:
            from stac_latent.bytestring.bounded import compress_bounded as coder
        elif isinstance(field, list | tuple):
            from stac_latent.bytestring.multi_grid import compress_native as coder
        else:
            from stac_latent.bytestring.single_grid import compress as coder
        return coder(self, field, **target)

    def decompress(self, data: bytes) -> Any:
        """Inverse of :meth:`compress`: ``(band, y, x)`` in the bands' stored type, or a list of them, one for each grid."""
        from stac_latent.bytestring.framing import BOUNDED, SEVERAL_GRIDS

        if data[:4] == BOUNDED:
            from stac_latent.bytestring.bounded import decompress_bounded as inverse
        elif data[:4] == SEVERAL_GRIDS:
            from stac_latent.bytestring.multi_grid import decompress_native as inverse
        else:
            from stac_latent.bytestring.single_grid import decompress as inverse
        return inverse(self, data)

    # -- helpers -------------------------------------------------------------------------------------------------

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
            if self.whole:  # the stages invert tile by tile, counted from the upper left
                cuts.append(slice(0, n))
                crops.append(slice(lo, hi))
                continue
            first, last = max(0, lo // s - h), min(n, -(-hi // s) + h)
            cuts.append(slice(first, last))
            crops.append(slice(lo - first * s, hi - first * s))
        return symbols[:, cuts[0], cuts[1]], (crops[0], crops[1])


def open_codec(name: Any, **options: Any) -> Codec:
    """Open a codec by registered name, bundle path, or from a STAC Item that links to its decoder.

    Parameters
    ----------
    name
        A name that ``stac-latent codecs`` lists, a bundle directory, or a :class:`pystac.Item`.
    **options
        Passed to the codec's factory, for instance ``bands=`` for the chains that take any.

    Examples
    --------
    >>> codec = open_codec("s2-10m-4b")
    >>> [b.name for b in codec.bands]
    ['B02', 'B03', 'B04', 'B08']
    """
    from stac_latent.codec.registry import open_any

    return open_any(name, **options)
