"""One tile of the ``lin`` coder: coefficients to one bitstream, by rotation, rate-distortion quantising and integer contexts.

For each group of subbands the bands are rotated onto principal components (:mod:`stac_latent.stages.lin_basis`);
components are quantised and coded as planes (:mod:`stac_latent.stages.planes_model`). The step travels in the payload:
tiles of one space may differ in rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stac_latent.codec import Array
from stac_latent.errors import BundleError, CorruptDataError, FieldError
from stac_latent.stages.lifting import levels_of
from stac_latent.stages.lin_basis import choose_basis, get_bits, put_bits, read_basis, side_size
from stac_latent.stages.lin_payload import GAINS, STEPS, Head, pack, unpack
from stac_latent.stages.planes import PlaneModel, rotate_samples
from stac_latent.stages.pyramid import TILE
from stac_latent.stages.subbands import Group, Layout, layout_of

__all__ = ["LAMBDA", "MAX_LEVELS", "Prepared", "TileCoder"]

MAX_LEVELS = 6
LAMBDA = 0.12
"""Squared steps that a bit is worth; ``2 ln(2) / 12`` in the limit of high rate."""
_QUIET = 0.9
"""A plane none of whose samples passes this, in steps, is not coded: its nonzeros would cost more than they gain."""
_LARGEST = 2**22
_ENOUGH = 2**14


@dataclass(frozen=True)
class Prepared:
    """A tile analysed and grouped, ready to be coded at any step."""

    layout: Layout
    flats: tuple[tuple[Array, ...], ...]
    """Samples ``(member, n)`` of each group and orientation, times their norm."""
    covariances: tuple[Array, ...]
    weights: tuple[tuple[Array, ...], ...] | None
    gains: Array | None

    @property
    def samples(self) -> int:
        """Number of samples of all bands."""
        return sum(int(np.prod(s)) for s in self.layout.shapes)


@dataclass(frozen=True)
class _Planned:
    """Rotated planes of a tile, in steps."""

    side: Array
    side_bits: int
    table: Array
    u: Array
    weight: Array
    lost: float
    """Squared error of what is not coded."""


def _covariance(flat: Array) -> Array:
    """Second moments of ``(member, n)`` over at most some 16,000 samples.

    Of rounded values, so that the sums are exact and do not depend on the machine or its threads.
    """
    few = np.rint(flat[:, :: 1 + flat.shape[1] // _ENOUGH]).astype(np.float64)
    return np.asarray(few @ few.T / max(1, few.shape[1]))


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

    def __init__(self, basis: Array, model: PlaneModel | None = None, lam: float = LAMBDA) -> None:
        b = np.asarray(basis, np.float32)
        if b.ndim != 3 or b.shape[0] != MAX_LEVELS + 1 or b.shape[1] != b.shape[2]:
            raise BundleError(f"lin: basis must be ({MAX_LEVELS + 1}, C, C); got shape {b.shape}")
        self.basis, self.model, self.lam = b, model or PlaneModel.default(), float(lam)

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
        if not all(0 < n <= TILE for n in shapes[0][1:]):
            raise FieldError(f"lin codes tiles of 1 to {TILE} pixels a side; got {shapes[0][1:]}")
        if gains is not None and not ((gains >= GAINS[0]) & (gains <= GAINS[1])).all():
            raise FieldError(f"gains of bands must be {GAINS[0]:g} to {GAINS[1]:g}; got {gains.tolist()}")
        layout = layout_of(shapes, levels_of(*shapes[0][1:], most=MAX_LEVELS))
        flats, covariances, every = [], [], []
        for group in layout.groups:
            parts = []
            for o, norm in enumerate(group.norms):
                s = group.samples(tile, o)
                factor = (
                    np.float32(norm) if gains is None else gains[list(group.members), None] * np.float32(norm)
                )
                parts.append(s.reshape(len(s), -1) * factor)
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
            covariances.append(_covariance(whole))
            flats.append(tuple(parts))
            if weights is not None:
                every.append(
                    tuple(
                        np.ascontiguousarray(weights[0][group.regions[o][0]]).ravel()
                        for o in range(len(group.norms))
                    )
                )
        return Prepared(
            layout, tuple(flats), tuple(covariances), tuple(every) if weights is not None else None, gains
        )

    def _plan(self, prepared: Prepared, step: float) -> _Planned:
        """Choose bases, rotate, and lay out the planes that are worth coding."""
        layout = prepared.layout
        side = np.zeros(sum(side_size(len(g.members)) for g in layout.groups), np.uint8)
        at, last = 0, None
        active: list[list[int]] = []
        rotated: list[list[Array]] = []
        lost = 0.0
        for g, group in enumerate(layout.groups):
            basis, at = choose_basis(self.basis, group, prepared.covariances[g], step, last, side, at)
            last = basis
            rows = basis.astype(np.float32)
            counts, zs = [], []
            width = len(group.members).bit_length()
            for flat in prepared.flats[g]:
                z = rotate_samples(rows, flat)
                peaks = np.abs(z).max(axis=1) if z.shape[1] else np.zeros(len(z))
                if peaks.max(initial=0.0) > _LARGEST * step:
                    raise FieldError(
                        f"a step of {step:g} is too fine for values of {peaks.max():g}: at most {_LARGEST} steps are coded"
                    )
                loud = np.flatnonzero(peaks > _QUIET * step)
                k = int(loud[-1]) + 1 if loud.size else 0
                lost += float(np.square(z[k:], dtype=np.float64).sum())
                counts.append(k)
                zs.append(z[:k])
                at = put_bits(side, at, k, width)
            active.append(counts)
            rotated.append(zs)
        table, size = layout.program(active)
        u = np.zeros(size, np.float32)
        weight = np.ones(1 if prepared.weights is None else size, np.float32)
        p, inverse = 0, np.float32(1 / step)
        for g, zs in enumerate(rotated):
            for o, z in enumerate(zs):
                for row in z:
                    o0, h, w = table[p, :3]
                    inner = u[o0 : o0 + (h + 2) * (w + 2)].reshape(h + 2, w + 2)[1:-1, 1:-1]
                    np.multiply(row.reshape(h, w), inverse, out=inner)
                    if prepared.weights is not None:
                        weight[o0 : o0 + (h + 2) * (w + 2)].reshape(h + 2, w + 2)[1:-1, 1:-1] = (
                            prepared.weights[g][o].reshape(h, w)
                        )
                    p += 1
        return _Planned(side, at, table, u, weight, lost)

    def quantise(self, prepared: Prepared, step: float) -> tuple[Array, Array]:
        """Quantised planes of a tile, int32, and their table; for the fit of the model."""
        plan = self._plan(prepared, step)
        return self.model.encode(plan.u, plan.weight, plan.table, self.lam).q, plan.table

    def code(self, prepared: Prepared, step: float) -> tuple[bytes, float]:
        """Code a tile at a step.

        Returns
        -------
        payload, mse
            The bytes, and the mean square error of the coefficients: within a few percent that of the pixels.

        Raises
        ------
        FieldError
            If the step is none that a payload can hold, or too fine for the values.
        """
        if not STEPS[0] <= step <= STEPS[1]:
            raise FieldError(
                f"the step must be {STEPS[0]:g} to {STEPS[1]:g} units of the normalised field; got {step:g}"
            )
        step = float(np.float32(step))  # as the payload has it
        plan, layout = self._plan(prepared, step), prepared.layout
        coded = self.model.encode(plan.u, plan.weight, plan.table, self.lam)
        error = plan.u - coded.q
        mse = (plan.lost + step * step * float(np.square(error, dtype=np.float64).sum())) / max(
            1, prepared.samples
        )
        head = Head(
            layout.shapes[0][1],
            layout.shapes[0][2],
            layout.levels,
            step,
            plan.side_bits,
            coded,
            prepared.gains,
        )
        return pack(head, plan.side[: plan.side_bits]), mse

    def decode_tile(self, payload: bytes, counts: Sequence[int] | None = None) -> list[Array]:
        """Coefficients of a tile in Mallat's layout, float32, as :meth:`prepare` takes them.

        Parameters
        ----------
        payload
            What :meth:`code` gave.
        counts
            Bands of each array, finest first; None where all share one.

        Raises
        ------
        CorruptDataError
            If the payload was truncated or changed, or is none of a tile of so many bands.
        """
        head, side, coded = unpack(payload, self.bands)
        shapes = self.shapes(head.height, head.width, counts)
        if max(head.height, head.width) > TILE or head.levels != levels_of(
            head.height, head.width, most=MAX_LEVELS
        ):
            raise CorruptDataError(
                f"lin: the header declares {head.height} x {head.width} pixels and {head.levels} levels, which cannot be"
            )
        layout = layout_of(shapes, head.levels)
        bases, active = self._read_side(layout, side)
        table, size = layout.program(active)
        q = self.model.decode(coded, table, size)
        tile = [np.empty(s, np.float32) for s in shapes]
        p = 0
        for group, basis, coded_of in zip(layout.groups, bases, active, strict=True):
            for o, k in enumerate(coded_of):
                mix = (basis[:k].astype(np.float32) * np.float32(head.step / group.norms[o])).T
                if head.gains is not None:
                    mix = mix / head.gains[list(group.members), None]
                self._mix(q, table[p : p + k], mix, tile, group, o)
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

    def _mix(self, q: Array, rows: Array, mix: Array, tile: Sequence[Array], group: Group, o: int) -> None:
        """Samples of one orientation into every array that has it."""
        at = 0
        for a, (ys, xs) in zip(group.arrays, group.regions[o], strict=True):
            part = tile[a]
            if len(rows):
                self.model.mix(q, rows, mix[at : at + len(part)], part, ys.start, xs.start)
            else:
                part[:, ys, xs] = 0
            at += len(part)

    def shapes(
        self, height: int, width: int, counts: Sequence[int] | None = None
    ) -> tuple[tuple[int, int, int], ...]:
        """Shapes of the arrays of a tile: each has half the rows and columns of the one before, rounded up."""
        split = [self.bands] if counts is None else counts
        return tuple((n, -(-height // (1 << d)), -(-width // (1 << d))) for d, n in enumerate(split))
