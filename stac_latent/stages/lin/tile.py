"""One tile of the ``lin`` coder: coefficients to one bitstream, by rotation, rate-distortion quantising and integer contexts.

For each group of subbands the bands are rotated onto principal components (:mod:`stac_latent.stages.lin.basis`);
components are quantised and coded as planes (:mod:`stac_latent.stages.context.model`). The step travels in the payload:
tiles of one space may differ in rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError, CorruptDataError, FieldError
from stac_latent.stages.context.coder import Coded, ContextModel
from stac_latent.stages.context.layout import mix, moments, scratch
from stac_latent.stages.lin.basis import get_bits, read_basis
from stac_latent.stages.lin.lifting import levels_of
from stac_latent.stages.lin.payload import GAINS, LARGEST, STEPS, Head, pack, unpack
from stac_latent.stages.lin.plan import Planned, Prepared, plan, squared_error
from stac_latent.stages.lin.subbands import Group, Layout, layout_of

__all__ = ["LAMBDA", "MAX_LEVELS", "Prepared", "ReadPlanes", "TileCoder"]

MAX_LEVELS = 6
LAMBDA = 0.12
"""Squared steps that a bit is worth; ``2 ln(2) / 12`` in the limit of high rate."""
_ENOUGH = 2**14


@dataclass(frozen=True)
class ReadPlanes:
    """What a payload holds; valid until this thread reads another."""

    head: Head
    layout: Layout
    bases: list[Array]
    active: list[list[int]]
    table: Array
    q: Array


def _stored(step: float) -> float:
    """The step as a payload has it."""
    if not STEPS[0] <= step <= STEPS[1]:
        raise FieldError(
            f"the step must be {STEPS[0]:g} to {STEPS[1]:g} units of the normalised field; got {step:g}"
        )
    return float(np.float32(step))


def _covariance(prepared: Prepared, group: Group) -> Array:
    """Second moments of the samples of a group, of at most some 16,000 of them."""
    total = sum(h * w for h, w in group.shapes)
    every = 1 + total // _ENOUGH
    out, count = np.zeros((len(group.members),) * 2), 0
    for o, (h, w) in enumerate(group.shapes):
        part, top, left = group.place(prepared.tile, o)
        count += moments(part, (top, left, h, w), prepared.factors(group, o), every, out)
    return out / max(1, count)


class TileCoder:
    """Coder of single tiles.

    Parameters
    ----------
    basis
        float32 ``(MAX_LEVELS + 1, C, C)``: rows are components, for the coarsest band and for details of levels 1 to
        6; of a group that fewer bands have, the upper left block counts.
    model
        Weights and tables of the contexts.
    lam
        Squared steps that a bit is worth.
    """

    def __init__(self, basis: Array, model: ContextModel | None = None, lam: float = LAMBDA) -> None:
        b = np.asarray(basis, np.float32)
        if b.ndim != 3 or b.shape[0] != MAX_LEVELS + 1 or b.shape[1] != b.shape[2]:
            raise BundleError(f"lin: basis must be ({MAX_LEVELS + 1}, C, C); got shape {b.shape}")
        self.basis, self.model, self.lam = b, model or ContextModel.default(), float(lam)

    @property
    def bands(self) -> int:
        """Number of bands."""
        return int(self.basis.shape[1])

    def prepare(
        self, tile: Sequence[Array], weights: Sequence[Array] | None = None, gains: Array | None = None
    ) -> Prepared:
        """Group the coefficients of a tile.

        Parameters
        ----------
        tile
            Arrays ``(band, y, x)`` float32 in Mallat's layout, fully analysed, one for each native resolution.
        weights
            Weight of the squared error of each coefficient, ``(y, x)`` float32 for each array.
        gains
            Factor on the precision of each band, float32 ``(C,)``; travels in the payload.

        Raises
        ------
        FieldError
            If the tile or the gains are none that a payload can hold.
        """
        shapes = tuple(t.shape for t in tile)
        if not all(0 < n <= LARGEST for n in shapes[0][1:]):
            raise FieldError(f"lin codes tiles of 1 to {LARGEST} pixels a side; got {shapes[0][1:]}")
        if gains is not None and not ((gains >= GAINS[0]) & (gains <= GAINS[1])).all():
            raise FieldError(f"gains of bands must be {GAINS[0]:g} to {GAINS[1]:g}; got {gains.tolist()}")
        layout = layout_of(shapes, levels_of(*shapes[0][1:], most=MAX_LEVELS))
        whole = Prepared(layout, tuple(np.ascontiguousarray(t, np.float32) for t in tile), (), None, gains)
        every = None
        if weights is not None:
            first = weights[0]
            every = tuple(
                tuple(np.ascontiguousarray(first[places[0]]).ravel() for places in group.regions)
                for group in layout.groups
            )
        return replace(whole, covariances=tuple(_covariance(whole, g) for g in layout.groups), weights=every)

    def quantise(self, prepared: Prepared, step: float) -> tuple[Array, Array]:
        """Quantised planes of a tile, int32, and their table; for the fit of the model."""
        planned, coded = self._coded(prepared, step)
        return coded.q.copy(), planned.table

    def code(self, prepared: Prepared, step: float) -> bytes:
        """Code a tile at a step.

        Raises
        ------
        FieldError
            If the step is none that a payload can hold, or too fine for the values.
        """
        return self._pack(prepared, step, *self._coded(prepared, step))

    def code_measured(self, prepared: Prepared, step: float) -> tuple[bytes, float]:
        """As :meth:`code`, and the mean square error of the coefficients: within a few percent that of the pixels."""
        planned, coded = self._coded(prepared, step)
        error = squared_error(planned, coded.q, _stored(step))
        return self._pack(prepared, step, planned, coded), error / max(1, prepared.samples)

    def _coded(self, prepared: Prepared, step: float) -> tuple[Planned, Coded]:
        planned = plan(self.basis, prepared, _stored(step))
        return planned, self.model.encode(planned.u, planned.weight, planned.table, self.lam)

    def _pack(self, prepared: Prepared, step: float, planned: Planned, coded: Coded) -> bytes:
        layout = prepared.layout
        _, height, width = layout.shapes[0]
        head = Head(height, width, layout.levels, _stored(step), planned.side.size, coded, prepared.gains)
        return pack(head, planned.side)

    def decode_tile(
        self,
        payload: bytes,
        counts: Sequence[int] | None = None,
        *,
        borrow: bool = False,
        bands: Sequence[int] | None = None,
    ) -> list[Array]:
        """Coefficients of a tile in Mallat's layout, float32, as :meth:`prepare` takes them.

        Parameters
        ----------
        payload
            What :meth:`code` gave.
        counts
            Bands of each array, finest first; None where all share one.
        borrow
            Give arrays that are valid until this thread decodes again: fresh memory is slow.
        bands
            Positions of the bands to give, where all share one grid; None for all.

        Raises
        ------
        CorruptDataError
            If the payload was truncated or changed, or is none of a tile of so many bands.
        """
        return self.mixed(self.read_planes(payload, counts), borrow=borrow, bands=bands)

    def read_planes(
        self, payload: bytes, counts: Sequence[int] | None = None, *, reduction: int = 0, prefix: bool = False
    ) -> ReadPlanes:
        """First half of :meth:`decode_tile`: what the bytes hold, before any sample of a band is made of it.

        With a ``reduction`` only what the low bands after so many levels are made of: it comes first, and the rest is not decoded. A ``prefix`` that holds it is
        enough.
        """
        planes, coded = self._planes(payload, counts, reduction, prefix=prefix)
        table, size = planes.layout.program(planes.active)
        q = self.model.decode(coded, table, size, whole=not reduction)
        return replace(planes, table=table, q=q)

    def prefixes_of(self, payload: bytes, counts: Sequence[int] | None, reductions: int) -> list[int]:
        """Bytes of a payload that :meth:`read_planes` needs for each reduction, from 1 on."""
        planes, coded = self._planes(payload, counts, 1)
        table, size = planes.layout.program(planes.active)
        ends = np.zeros(len(table) + 1, np.int64)
        self.model.decode(coded, table, size, whole=False, ends=ends[1:])
        before = len(payload) - 2 * coded.words.size
        groups = [self._layout(planes.head, counts).coarser(r).groups for r in range(1, reductions + 1)]
        held = [sum(sum(k) for k in planes.active[: len(some)]) for some in groups]
        return [before + 2 * int(ends[n]) for n in held]

    def _layout(self, head: Head, counts: Sequence[int] | None) -> Layout:
        return layout_of(self.shapes(head.height, head.width, counts), head.levels)

    def _planes(
        self, payload: bytes, counts: Sequence[int] | None, reduction: int, *, prefix: bool = False
    ) -> tuple[ReadPlanes, Coded]:
        """What the header and the side information say of a reduction, and the coded planes."""
        head, side, coded = unpack(payload, self.bands, prefix=prefix)
        if max(head.height, head.width) > LARGEST or head.levels != levels_of(
            head.height, head.width, most=MAX_LEVELS
        ):
            raise CorruptDataError(
                f"lin: the header declares {head.height} x {head.width} pixels and {head.levels} levels, which cannot be"
            )
        layout = self._layout(head, counts)
        bases, active = self._read_side(layout, side)
        layout = layout.coarser(reduction)
        bases, active = bases[: len(layout.groups)], active[: len(layout.groups)]
        none = np.zeros(0, np.int32)
        return ReadPlanes(head, layout, bases, active, none, none), coded

    def mixed(
        self, planes: ReadPlanes, *, borrow: bool = False, bands: Sequence[int] | None = None
    ) -> list[Array]:
        """Second half of :meth:`decode_tile`: samples of the bands from those of their components."""
        head, layout, table, q = planes.head, planes.layout, planes.table, planes.q
        chosen = slice(None) if bands is None else list(bands)
        shapes = layout.shapes if bands is None else [(len(bands), *layout.shapes[0][1:])]
        tile = [
            scratch(f"tile{i}", math.prod(s), np.float32).reshape(s) if borrow else np.empty(s, np.float32)
            for i, s in enumerate(shapes)
        ]
        p = 0
        for group, basis, coded_of in zip(layout.groups, planes.bases, planes.active, strict=True):
            for o, k in enumerate(coded_of):
                matrix = (basis[:k].astype(np.float32) * np.float32(head.step / group.norms[o])).T
                if head.gains is not None:
                    matrix = matrix / head.gains[list(group.members), None]
                self._mix(q, table[p : p + k], matrix[chosen], tile, group, o)
                p += k
        return tile

    def _read_side(self, layout: Layout, side: Array) -> tuple[list[Array], list[list[int]]]:
        """Basis of each group, and the number of components of each of its orientations."""
        at, last = 0, None
        bases, active = [], []
        for group in layout.groups:
            last, at = read_basis(self.basis, group, last, side, at)
            counts = []
            for _ in group.shapes:
                k, at = get_bits(side, at, len(group.members).bit_length())
                if k > len(group.members):
                    raise CorruptDataError(f"lin: {k} components of {len(group.members)} bands cannot be")
                counts.append(k)
            bases.append(last)
            active.append(counts)
        if at != side.size:
            raise CorruptDataError(
                f"lin: the side information ends at bit {at} of {side.size}; it was changed"
            )
        return bases, active

    @staticmethod
    def _mix(q: Array, rows: Array, matrix: Array, tile: Sequence[Array], group: Group, o: int) -> None:
        """Samples of one orientation into every array that has it."""
        at = 0
        for a, (ys, xs) in zip(group.arrays, group.regions[o], strict=True):
            part = tile[a]
            if len(rows):
                mix(q, rows, matrix[at : at + len(part)], part, ys.start, xs.start)
            else:
                part[:, ys, xs] = 0
            at += len(part)

    def shapes(
        self, height: int, width: int, counts: Sequence[int] | None = None
    ) -> tuple[tuple[int, int, int], ...]:
        """Shapes of the arrays of a tile: each has half the rows and columns of the one before, rounded up."""
        split = [self.bands] if counts is None else counts
        return tuple((n, -(-height // (1 << d)), -(-width // (1 << d))) for d, n in enumerate(split))
