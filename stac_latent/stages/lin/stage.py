"""The ``lin`` stage: latents of :class:`~stac_latent.stages.lin.pyramid.Pyramid` to bytes, at a step or towards a target."""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.chain import BandDecoder, Chain, FastPath, RateControlled
from stac_latent.errors import BundleError, CodecError, CorruptDataError, FieldError
from stac_latent.field.rate_target import Target
from stac_latent.spec import Band
from stac_latent.stage import EntropyCoder, GridStage
from stac_latent.stages.base import FRACTION_BITS, BaseStage, take
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.context.layout import scratch
from stac_latent.stages.lin.grids import CELL, CELL_LEVELS, Lattices, Nest, checked_lattices
from stac_latent.stages.lin.lifting import analyse, levels_of, synthesise
from stac_latent.stages.lin.payload import LARGEST, unpack
from stac_latent.stages.lin.plan import Prepared, plan
from stac_latent.stages.lin.pyramid import TILE, cells_of_tile, tiles_of
from stac_latent.stages.lin.rate_control import Objective, Reached, expected_step, measure, search
from stac_latent.stages.lin.repeats import Part, find_parts, is_split, join_parts, split_parts
from stac_latent.stages.lin.tile import LAMBDA, MAX_LEVELS, TileCoder
from stac_latent.stages.lin.tile_source import FromField, FromLatents, Source, transform
from stac_latent.stages.transform.normalise import Normalise, store
from stac_latent.system.limits import MAX_PIXELS, check_bytes
from stac_latent.system.threads import each
from stac_latent.window import Window

__all__ = ["Lin", "stages_of"]

_SEVERAL = b"SLT\x01"
_FINE = 2.0**FRACTION_BITS
_CLEAR = 1.2
"""How many times the cost of one way to code a tile is that of the other, for the other to be taken at any step."""
_COUNTS = struct.Struct("<4sIIBB")


@dataclass(frozen=True)
class Split:
    """A tile with repeated pixels, ready to be coded either way."""

    pixels: Array
    """float32 ``(band, y, x)`` in normalised units."""
    valid: Array | None
    """Those that hold data, bool ``(1 or band, y, x)``; None for all."""
    whole: Prepared
    parts: list[tuple[Part, TileCoder, Prepared]]
    clear: list[bool] = field(default_factory=list)
    """Whether parts are the cheaper way, once that is clear."""


class Lin(TileCoder, BaseStage, EntropyCoder, RateControlled, FastPath, GridStage):
    """Entropy-coding stage of the ``lin`` chain; see :class:`~stac_latent.stages.lin.tile.TileCoder`.

    Parameters
    ----------
    basis, model, lam
        Of the tile coder.
    step
        Quantiser step in units of the normalised field, where no target is set.
    lattices
        Bands of each grid of each lattice, where they have several; see :mod:`stac_latent.stages.lin.grids`.
    """

    name: ClassVar[str] = "lin"
    level: ClassVar[Level] = "bytes"
    bitstream = "stac-latent-lin-1"
    splits: ClassVar[bool] = True
    """Whether tiles with repeated pixels are coded in parts."""
    objective: Objective | None = None
    """What is coded towards, and how it is measured; None for the stage's own step."""
    weights: Array | None = None
    """Weight of each pixel's squared error, float32 ``(y, x)``; None for one."""
    gains: Array | None = None
    """Factor on the precision of each band, float32 ``(band,)``; None for one."""

    def __init__(
        self,
        basis: Array,
        model: ContextModel | None = None,
        step: float = 64.0,
        lam: float = LAMBDA,
        lattices: Lattices | None = None,
    ) -> None:
        TileCoder.__init__(self, basis, model, lam)
        self.lattices = checked_lattices(lattices, self.name)
        if self.lattices is not None and sum(map(sum, self.lattices)) != self.bands:
            raise BundleError(f"lin: lattices {self.lattices} are not of {self.bands} bands")
        self.nest = Nest((self.bands,) if self.lattices is None else self.lattices[0])
        if not step > 0:
            raise BundleError(f"lin: the step must be positive; got {step}")
        self.step = float(step)

    @property
    def target(self) -> Target:
        """What is coded towards; empty for the stage's own step."""
        return Target() if self.objective is None else self.objective.target

    @property
    def searches(self) -> bool:
        """Whether the stage was given a target, weights or gains."""
        return self.objective is not None

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
    ) -> Self:
        """The stage, coding towards a target; see :meth:`stac_latent.chain.Chain.with_target`.

        Raises
        ------
        BundleError
            If the chain does not start with ``normalise``.
        CodecError
            If there are weights of pixels, and bands on several grids.
        """
        first = chain.stages[0]
        if not isinstance(first, Normalise):
            raise BundleError("lin: a chain that codes towards a target starts with normalise")
        if weights is not None and not self.nest.single:
            raise CodecError("regions of interest are for fields on one grid; leave roi out")
        peaks = np.array([b.peak(np.nan) for b in bands])
        integer = np.array([np.dtype(b.data_type).kind in "iu" for b in chain.bands])
        out = copy.copy(self)
        out.objective = Objective(target, first, chain, peaks, integer, overhead=overhead, samples=samples)
        out.weights, out.gains = weights, gains
        return out

    def at_own_rate(self) -> Self:
        """The same stage at its own step, without a target, weights or gains."""
        out = copy.copy(self)
        out.objective, out.weights, out.gains = None, None, None
        return out

    def measured_over(self, valid: Array, pixels: int | None = None) -> Self:
        """The stage, measuring over valid pixels ``(1 or band, y, x)`` alone; see :class:`Objective` for ``pixels``."""
        out = copy.copy(self)
        out.objective = (
            None if self.objective is None else replace(self.objective, valid=valid, pixels=pixels)
        )
        return out

    def step_of(self, payload: bytes) -> float:
        """Quantiser step of a payload (of its first tile), in units of the normalised field."""
        first = split(payload)[0][0]
        if not is_split(first):
            return unpack(first, self.bands)[0].step
        parts, payloads = split_parts(first, self.bands, LARGEST)
        return unpack(payloads[0], len(parts[0].bands))[0].step * math.sqrt(parts[0].weight)

    # -- to bytes ------------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> bytes:
        """Latents ``(band * 64, y, x)`` float32 to bytes; trailing rows and columns of NaN lie outside the field."""
        return self._payload(FromLatents.inside(x, self.nest))

    def encoder(self, chain: Chain) -> Callable[[Array, Array | None], bytes] | None:
        """Function from a field and its mask to bytes, equal to the chain's, without the latents."""
        first = self._normalise(chain)
        if first is None:
            return None
        return lambda field, mask: self._payload(FromField(field, mask, first, self.nest))

    def _payload(self, source: Source) -> bytes:
        cells = source.cells
        size = cells_of_tile(cells)
        windows = list(tiles_of(*cells, size=size))
        fixed = self._known_step()
        if fixed is not None or self.objective is None:  # tile by tile: none is kept
            step = fixed or self.step
            return join(
                each(lambda w: self._coded_tile(self._prepared(source, w)[1], step), windows), cells, size
            )
        truth, prepared = zip(*each(lambda w: self._prepared(source, w, pixels=True), windows), strict=True)
        objective = self.objective
        valid = [
            self.nest.native(_cut(objective.valid, w), t.shape) for w, t in zip(windows, truth, strict=True)
        ]
        wanted = each(objective.stored, truth)
        peaks = objective.heights(wanted, valid)
        samples = objective.samples or (objective.pixels or cells[0] * cells[1] * CELL**2) * self.nest.share
        bounds = None if objective.target.max_error is None else objective.bounds(truth)

        def trial(step: float) -> Reached:
            coded = each(lambda p: self._coded_tile(p, step), prepared)
            payload = join(coded, cells, size)
            decoded = each(self._decoded, coded)
            psnr, worst = measure(wanted, each(objective.stored, decoded), valid, peaks, objective.lost)
            rate = (len(payload) + objective.overhead) * 8 / samples
            ratio = 0.0
            if bounds is not None:  # before rounding errors change with the step, not by whole numbers
                _, exact = measure(truth, decoded, valid, peaks)
                ratio = float((exact * objective.first.unit / (bounds + 0.5 * objective.integer)).max())
                ratio = min(ratio, 1.0) if (worst <= bounds).all() else max(ratio, 1.0 + 2**-10)
            return Reached(payload, rate, psnr, ratio)

        part = objective.pixels is not None and 2 * cells[0] * cells[1] < (TILE // CELL) ** 2
        start, slope = self._likely_step(prepared, peaks, valid)
        return search(trial, objective.target, start, near=part, slope=slope).payload

    def _likely_step(
        self, prepared: Sequence[Prepared | Split], peaks: Array, valid: Sequence[Array | None]
    ) -> tuple[float, float | None]:
        """Where to begin to search for a PSNR, of one tile: what its samples would lose if all were rounded alike."""
        tile, goal = prepared[0], None if self.objective is None else self.objective.target.psnr
        whole = tile if isinstance(tile, Prepared) else tile.whole
        weighted = self.gains is not None and not (self.gains == 1).all()
        if goal is None or len(prepared) > 1 or weighted:
            return self.step, None
        assert self.objective is not None  # noqa: S101 - narrows the type
        share = 1.0 if valid[0] is None else float(np.mean(valid[0]))
        error = 10.0 ** (-goal / 10) * share / float(np.mean((self.objective.first.unit / peaks) ** 2))
        step = float(np.clip(math.sqrt(12 * error), self.step / 64, self.step))
        try:
            planned = plan(self.basis, whole, step)
        except FieldError:  # too fine for the values
            return self.step, None
        lost = sum(float(np.square(z, dtype=np.float64).sum()) for z in planned.lost)
        return expected_step(planned.u, lost, whole.samples, step, error)

    def _prepared(
        self, source: Source, window: Window, *, pixels: bool = False
    ) -> tuple[Any, Prepared | Split]:
        """Pixels of a tile in normalised units where they are asked for, and its coefficients, ready to be coded."""
        split = self.splits and self.nest.single and self.weights is None
        truth, tile = source.tile(window, pixels or split)
        weights = None if self.weights is None else self._weight_map(window, source.cells)
        whole = self.prepare(tile, weights, self.gains)
        if split and truth is not None:
            exact = np.rint(truth * np.float32(_FINE)) / np.float32(
                _FINE
            )  # latents are rounded, fields are not
            valid = None if self.objective is None else _cut(self.objective.valid, window)
            parts = find_parts(exact, valid)
            if parts is not None:
                return truth, Split(exact, valid, whole, [self._part(exact, part) for part in parts])
        return truth, whole

    def _part(self, pixels: Array, part: Part) -> tuple[Part, TileCoder, Prepared]:
        """A part of a tile, ready to be coded: each own pixel counts as often as it is repeated."""
        tile = [np.ascontiguousarray(x) for x in part.gather(pixels)]
        transform(tile)
        gains = np.repeat(np.float32(2) ** np.arange(len(tile), dtype=np.float32), part.counts)
        if self.gains is not None:
            gains *= self.gains[list(part.bands)]
        coder = self._coder(part)
        return part, coder, coder.prepare(tile, None, None if (gains == 1).all() else gains)

    def _coder(self, part: Part) -> TileCoder:
        """Coder of a part: with the bases of the space if it has all bands on one array, else without."""
        if part.arrays == (tuple(range(self.bands)),):
            return TileCoder(self.basis, self.model, self.lam)
        return TileCoder(_identity(len(part.bands)), self.model, self.lam)

    def _coded_tile(self, prepared: Prepared | Split, step: float) -> bytes:
        """Payload of a tile: whole or in parts, by what its squared error and its bits cost together."""
        if isinstance(prepared, Prepared):
            return self.code(prepared, step)
        ways = prepared.clear or (False, True)
        coded = [self._in_parts(prepared, step) if way else self.code(prepared.whole, step) for way in ways]
        if len(coded) == 1:
            return coded[0]

        def cost(payload: bytes) -> float:
            error = np.square(self._decoded(payload, borrow=True) - prepared.pixels, dtype=np.float64)
            valid = error if prepared.valid is None else error * prepared.valid
            return float(valid.sum()) + self.lam * step**2 * 8 * len(payload)

        whole, parts = map(cost, coded)
        if max(whole, parts) > _CLEAR * min(whole, parts):
            prepared.clear.append(parts < whole)
        return coded[parts < whole]

    def _in_parts(self, prepared: Split, step: float) -> bytes:
        coded = [coder.code(tile, step / math.sqrt(part.weight)) for part, coder, tile in prepared.parts]
        return join_parts([part for part, _, _ in prepared.parts], coded)

    def _joined(self, payload: bytes, *, borrow: bool, bands: Sequence[int] | None = None) -> Array:
        """Pixels ``(band, y, x)`` of a tile in parts, in normalised units; parts that hold none of some bands are left alone."""
        if not self.nest.single:
            raise CorruptDataError(
                "lin: a tile of bands on several grids is not coded in parts; it was changed"
            )
        parts, payloads = split_parts(payload, self.bands, LARGEST)
        shape = self.bands, *parts[0].shape
        out = (
            scratch("joined", math.prod(shape), np.float32).reshape(shape)
            if borrow
            else np.empty(shape, np.float32)
        )
        for part, data in zip(parts, payloads, strict=True):
            if bands is not None and set(bands).isdisjoint(part.bands):
                continue
            tile = self._coder(part).decode_tile(data, part.counts, borrow=True)
            if tile[0].shape[1:] != (part.rows.size, part.columns.size):
                raise CorruptDataError(
                    f"lin: a part is {tile[0].shape[1:]} pixels; its place has {(part.rows.size, part.columns.size)}"
                )
            levels = levels_of(*tile[0].shape[1:], most=MAX_LEVELS)
            for depth, own in enumerate(tile):
                synthesise(own, levels - depth)
            part.spread(tile, out)
        return out if bands is None else out[list(bands)]

    @property
    def reductions(self) -> int:
        """Times that a tile's resolution can be halved: as often as its cells can, where all bands have one grid."""
        return CELL_LEVELS if self.nest.single else 0

    def prefixes(self, payload: bytes) -> tuple[int, ...]:
        """Bytes of a payload that its low bands need; all where there are several tiles in it, or a tile in parts."""
        if is_split(payload) or split(payload)[1] is not None:
            return (len(payload),) * self.reductions
        return tuple(self.prefixes_of(payload, self.nest.counts, self.reductions))

    def _reduced(self, payload: bytes, reduction: int, *, prefix: bool) -> Array:
        """Low bands ``(band, y, x)`` of a tile after some levels, in normalised units: each has a gain of two."""
        if is_split(payload):
            tile = self._joined(payload, borrow=False)
            analyse(tile, reduction)
            tile = tile[:, : -(-tile.shape[1] >> reduction), : -(-tile.shape[2] >> reduction)]
            return np.ascontiguousarray(tile) * np.float32(2.0**-reduction)
        planes = self.read_planes(payload, self.nest.counts, reduction=reduction, prefix=prefix)
        (tile,) = self.mixed(planes, borrow=True)
        synthesise(tile, planes.head.levels - reduction)
        tile *= np.float32(2.0**-reduction)
        return tile

    def _decoded(self, payload: bytes, *, borrow: bool = False, bands: Sequence[int] | None = None) -> Array:
        """Pixels ``(band, y, x)`` of a tile in normalised units, those of larger ones repeated."""
        if is_split(payload):
            joined = self._joined(payload, borrow=borrow, bands=bands)
            analyse(joined, CELL_LEVELS)  # to latents and back: bit for bit what they give
            synthesise(joined, CELL_LEVELS)
            return joined
        tile = self.decode_tile(payload, self.nest.counts, borrow=borrow, bands=bands)
        levels = levels_of(*tile[0].shape[1:], most=MAX_LEVELS)
        for depth, part in enumerate(tile):
            synthesise(part, levels - depth)
        return self.nest.spread(tile)

    def _known_step(self) -> float | None:
        """Step in normalised units where there is nothing to search for."""
        if self.objective is None or not self.objective.target.given:
            return self.step
        target = self.objective.target
        if target.step is not None:
            return target.step / float(np.median(self.objective.first.unit))
        return None if target.quality is None else self.step * 2.0 ** ((50 - target.quality) / 10)

    def _weight_map(self, window: Window, cells: tuple[int, int]) -> Sequence[Array]:
        """Weights of a tile's pixels as weights of its coefficients: the largest under each."""
        (y0, y1), (x0, x1) = window
        assert self.weights is not None  # noqa: S101 - narrows the type
        pixels = cells[0] * CELL, cells[1] * CELL
        if self.weights.shape != pixels:
            raise FieldError(
                f"weights of pixels have shape {self.weights.shape}; the padded field has {pixels}"
            )
        return [_pyramid_max(self.weights[y0 * CELL : y1 * CELL, x0 * CELL : x1 * CELL])]

    def inverse(self, y: bytes) -> Array:
        """Bytes to latents ``(band * 64, y, x)`` float32."""
        parts, cut = split(y)
        if cut is None:
            return self._latents(y)
        check_bytes((self.bands * CELL**2, *cut.cells), 4, "lin: the header")
        return assemble(each(self._latents, parts), cut, 1)

    def _latents(self, payload: bytes) -> Array:
        joined = is_split(payload)
        tile = (
            [self._joined(payload, borrow=False)] if joined else self.decode_tile(payload, self.nest.counts)
        )
        shape = tile[0].shape[1:]
        if any(n % CELL for n in shape):
            raise CorruptDataError(f"lin: a tile of {shape} pixels is not made of cells of {CELL}")
        if joined:
            analyse(tile[0], CELL_LEVELS)
        levels = CELL_LEVELS if joined else levels_of(*shape, most=MAX_LEVELS)
        for depth, part in enumerate(tile):
            synthesise(part, levels - depth, CELL_LEVELS - depth)
        return self.nest.pack(tile)

    @property
    def by_band(self) -> bool:
        """Where all bands have one grid, only those that are asked for are mixed of their components, and synthesised."""
        return self.nest.single

    def decoder(self, chain: Chain, reduction: int = 0, *, prefix: bool = False) -> BandDecoder | None:
        """Function from bytes to pixels ``(band, y, x)`` of the stored type; see :meth:`~stac_latent.chain.FastPath.decoder`."""
        first = self._normalise(chain)
        if first is None or reduction > self.reductions:
            return None
        side = CELL >> reduction

        def one(payload: bytes, bands: Sequence[int] | None = None) -> Array:
            if reduction:
                return store(self._reduced(payload, reduction, prefix=prefix), first, chain.bands)
            pixels = self._decoded(payload, borrow=True, bands=bands)
            if bands is None:
                return store(pixels, first, chain.bands)
            return store(pixels, first.of_bands(bands), [chain.bands[i] for i in bands])

        def field(payload: bytes, bands: Sequence[int] | None = None, /) -> Array:
            if bands is not None and (reduction or not chain.by_band):
                return field(payload)[list(bands)]
            parts, cut = split(payload)
            if cut is None:
                return one(payload, bands)
            check_bytes((self.bands, *(n * side for n in cut.cells)), 4, "lin: the header")
            return assemble(each(partial(one, bands=bands), parts), cut, side)

        return field

    def _normalise(self, chain: Chain) -> Normalise | None:
        """First stage of a chain normalise > pyramid > this one, of one lattice; None of any other."""
        first, several = chain.stages[0], self.lattices is not None and len(self.lattices) > 1
        known = [s.name for s in chain.stages] == ["normalise", "pyramid", self.name] and not several
        return first if isinstance(first, Normalise) and known else None

    def config(self) -> dict[str, Any]:
        """Default step and the price of a bit, and lattices where there are several grids."""
        out: dict[str, Any] = {"step": self.step, "lam": self.lam}
        return out if self.lattices is None else out | {"lattices": [list(c) for c in self.lattices]}

    def for_grid(self, bands: slice, counts: tuple[int, ...]) -> Self:
        """See :meth:`~stac_latent.stage.GridStage.for_grid`."""
        basis = np.ascontiguousarray(self.basis[:, bands, bands])
        return type(self)(basis, self.model, self.step, self.lam, (counts,))

    def tensors(self) -> dict[str, Array]:
        """Bases, weights and tables."""
        return {"basis": self.basis, **self.model.tensors()}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config` and :meth:`tensors`."""
        basis = take(tensors, "basis", cls.name, 3, "f")
        model, lattices = ContextModel.build(tensors), config.get("lattices")
        return cls(basis, model, float(config["step"]), float(config["lam"]), lattices)


@cache
def _identity(bands: int) -> Array:
    return np.tile(np.eye(bands, dtype=np.float32), (MAX_LEVELS + 1, 1, 1))


def _cut(valid: Array | None, cells: Any) -> Array | None:
    if valid is None:
        return None
    (y0, y1), (x0, x1) = cells
    return valid[:, y0 * CELL : y1 * CELL, x0 * CELL : x1 * CELL]


def _pyramid_max(pixels: Array) -> Array:
    """Mallat's layout of the largest weight under each coefficient."""
    out = np.array(pixels, np.float32)
    levels = levels_of(*out.shape, most=MAX_LEVELS)
    part = out
    for _ in range(levels):
        h, w = part.shape
        low = np.pad(part, ((0, h % 2), (0, w % 2)), mode="edge")
        low = low.reshape(low.shape[0] // 2, 2, low.shape[1] // 2, 2).max(axis=(1, 3))
        sy, sx = low.shape
        part[sy:, :sx], part[:sy, sx:], part[sy:, sx:] = (
            low[: h - sy],
            low[:, : w - sx],
            low[: h - sy, : w - sx],
        )
        part[:sy, :sx] = low
        part = part[:sy, :sx]
    return out


class Cut(NamedTuple):
    """How a field of several tiles is cut."""

    cells: tuple[int, int]
    """Of the field, along y and x."""
    tile: tuple[int, int]
    """Of a tile."""


def join(parts: Sequence[bytes], cells: tuple[int, int], tile: tuple[int, int]) -> bytes:
    """Payloads of tiles of so many cells, row by row, as one; a single one stays as it is."""
    if len(parts) == 1:
        return parts[0]
    if cells[0] * cells[1] * CELL**2 > MAX_PIXELS:
        raise FieldError(
            f"lin codes at most {MAX_PIXELS} pixels at once; got {cells[0]} x {cells[1]} cells of {CELL} x {CELL}"
        )
    head = _COUNTS.pack(_SEVERAL, *cells, *tile)
    return head + np.array([len(p) for p in parts], "<u4").tobytes() + b"".join(parts)


def split(data: bytes) -> tuple[list[bytes], Cut | None]:
    """Inverse of :func:`join`; how the field is cut, where it is."""
    if data[:4] != _SEVERAL:
        return [data], None
    if len(data) < _COUNTS.size:
        raise CorruptDataError(f"lin: {len(data)} bytes are less than a header; truncated")
    _, h, w, rows, columns = _COUNTS.unpack_from(data)
    if not (0 < rows <= LARGEST // CELL and 0 < columns <= LARGEST // CELL):
        raise CorruptDataError(
            f"lin: the header declares tiles of {rows} x {columns} cells; they have 1 to {LARGEST // CELL} a side"
        )
    n = -(-h // rows) * -(-w // columns)
    start = _COUNTS.size + 4 * n
    if not n or h * w * CELL**2 > MAX_PIXELS or start > len(data):
        raise CorruptDataError(
            f"lin: the header declares {h} x {w} cells, which {len(data)} bytes cannot hold"
        )
    ends = start + np.cumsum(np.frombuffer(data, "<u4", n, _COUNTS.size).astype(np.int64))
    if ends[-1] != len(data):
        raise CorruptDataError(
            f"lin: the tiles end at byte {int(ends[-1])} of {len(data)}; truncated or changed"
        )
    begins = [start, *ends[:-1].tolist()]
    return [data[a:b] for a, b in zip(begins, ends.tolist(), strict=True)], Cut((h, w), (rows, columns))


def assemble(tiles: Sequence[Array], cut: Cut, side: int) -> Array:
    """One array ``(channel, y, x)`` of ``side`` samples a cell from its tiles, row by row.

    Raises
    ------
    CorruptDataError
        If a tile has not the shape of its place.
    """
    (h, w), (rows, columns) = cut
    shape, size = (h * side, w * side), (rows * side, columns * side)
    out = np.empty((len(tiles[0]), *shape), tiles[0].dtype)
    for tile, ((y0, y1), (x0, x1)) in zip(tiles, tiles_of(*shape, size=size), strict=True):
        if tile.shape != (len(out), y1 - y0, x1 - x0):
            raise CorruptDataError(
                f"lin: a tile is {tile.shape}; its place has {(len(out), y1 - y0, x1 - x0)}"
            )
        out[:, y0:y1, x0:x1] = tile
    return out


def stages_of(chain: Chain) -> tuple[Normalise, Lin]:
    """First and last stage of a ``lin`` chain; :class:`CodecError` for any other."""
    first, tail = chain.stages[0], chain.tail
    names = [s.name for s in chain.stages]
    if (
        names != ["normalise", "pyramid", "lin"]
        or not isinstance(first, Normalise)
        or not isinstance(tail, Lin)
    ):
        raise CodecError(
            f"codec {chain.name!r} codes bands of one grid; open 'lin', or a bundle of it, for native grids"
        )
    return first, tail
