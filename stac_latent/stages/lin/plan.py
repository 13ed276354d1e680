"""What the encoder of ``lin`` decides before it quantises: bases, rotated components, and which of them are coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import FieldError
from stac_latent.stages.context.layout import lay_planes, rotate_samples, scratch
from stac_latent.stages.lin.basis import choose_basis, put_bits, side_size
from stac_latent.stages.lin.subbands import Group, Layout

__all__ = ["Planned", "Prepared", "plan", "squared_error"]

_QUIET = 0.9
"""A plane none of whose samples passes this, in steps, is not coded: its nonzeros would cost more than they gain."""
_LARGEST = 2**22


@dataclass(frozen=True)
class Prepared:
    """A tile analysed, ready to be coded at any step."""

    layout: Layout
    tile: tuple[Array, ...]
    """Coefficients ``(band, y, x)`` float32 in Mallat's layout, one array for each native resolution."""
    covariances: tuple[Array, ...]
    """Second moments of the samples of each group, times their norm."""
    weights: tuple[tuple[Array, ...], ...] | None
    """Weight of the squared error of each sample, for each group and orientation."""
    gains: Array | None
    """Factor on the precision of each band, float32 ``(C,)``."""

    @property
    def samples(self) -> int:
        """Number of samples of all bands."""
        return sum(int(np.prod(s)) for s in self.layout.shapes)

    def factors(self, group: Group, orientation: int) -> Array:
        """What samples are multiplied by before they are rotated, float32 ``(member,)``."""
        norm = np.float32(group.norms[orientation])
        if self.gains is None:
            return np.full(len(group.members), norm)
        return np.asarray(self.gains[list(group.members)] * norm)


@dataclass(frozen=True)
class Planned:
    """Rotated planes of a tile, in steps; valid until this thread plans again."""

    side: Array
    """Side information, one bit each, uint8."""
    table: Array
    u: Array
    """float32, samples in steps, in the layout of ``table``."""
    weight: Array
    """float32, weight of each squared error in the same layout, or of size 1."""
    lost: Sequence[Array]
    """Samples that are not coded, float32, one array for each orientation."""


def plan(known: Array, prepared: Prepared, step: float) -> Planned:
    """Choose bases, rotate, and lay out the planes that are worth coding.

    Parameters
    ----------
    known
        Bases of the bundle, float32 ``(level, C, C)``.
    prepared
        The tile.
    step
        Quantiser step.

    Raises
    ------
    FieldError
        If the step is too fine for the values.
    """
    layout = prepared.layout
    side = np.zeros(sum(side_size(len(g.members)) for g in layout.groups), np.uint8)
    room = scratch("rotated", prepared.samples, np.float32)
    at, last, free = 0, None, 0
    active: list[list[int]] = []
    rotated: list[Array] = []
    lost = []
    for group, covariance in zip(layout.groups, prepared.covariances, strict=True):
        last, at = choose_basis(known, group, covariance, step, last, side, at)
        rows = last.astype(np.float32)
        counts = []
        for o, (h, w) in enumerate(group.shapes):
            z = room[free : free + len(rows) * h * w].reshape(len(rows), h * w)
            free += z.size
            part, top, left = group.place(prepared.tile, o)
            peaks = rotate_samples(part, (top, left, h, w), prepared.factors(group, o), rows, z)
            k = _worth(peaks, step)
            counts.append(k)
            rotated.append(z[:k])
            lost.append(z[k:])
            at = put_bits(side, at, k, len(rows).bit_length())
        active.append(counts)
    table, size = layout.program(active)
    u = scratch("steps", size, np.float32)
    u[:] = 0
    lay_planes(rotated, table, np.float32(1 / step), u)
    weight = np.ones(1, np.float32) if prepared.weights is None else np.ones(size, np.float32)
    if prepared.weights is not None:
        every = [
            np.broadcast_to(w, (k, w.size))
            for ws, counts in zip(prepared.weights, active, strict=True)
            for w, k in zip(ws, counts, strict=True)
        ]
        lay_planes(every, table, np.float32(1), weight)
    return Planned(side[:at], table, u, weight, lost)


def _worth(peaks: Array, step: float) -> int:
    """Number of components that are coded, by the largest magnitude of each."""
    if peaks.max(initial=0.0) > _LARGEST * step:
        raise FieldError(
            f"a step of {step:g} is too fine for values of {peaks.max():g}: at most {_LARGEST} steps are coded"
        )
    loud = np.flatnonzero(peaks > _QUIET * step)
    return int(loud[-1]) + 1 if loud.size else 0


def squared_error(planned: Planned, q: Array, step: float) -> float:
    """Squared error of the coefficients of a tile, in normalised units."""
    lost = sum(float(np.square(z, dtype=np.float64).sum()) for z in planned.lost)
    kept = float(np.square(planned.u - q, dtype=np.float64).sum())
    return lost + step * step * kept
