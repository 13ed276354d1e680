"""Grids of a codec's bands: which share a pyramid, what sizes they must have, how each is normalised."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.chain import Chain
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.storage_type import check_field
from stac_latent.field.validity import fill_invalid, zero_invalid
from stac_latent.spec import Band
from stac_latent.stages.base import FRACTION_BITS
from stac_latent.stages.lin.grids import CELL, DEEPEST
from stac_latent.stages.lin.stage import stages_of
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.system.limits import MAX_PIXELS

__all__ = [
    "DEEPEST",
    "Family",
    "GridPart",
    "check_fields",
    "families",
    "families_of",
    "misfit",
    "normalised",
    "parts_of",
]


@dataclass(frozen=True)
class Family:
    """Grids that share a pyramid, finest first."""

    grids: tuple[int, ...]
    """Positions of the grids among those of the codec."""
    bands: tuple[tuple[int, ...], ...]
    """Positions of each grid's bands in the codec."""


def families(chain: Chain) -> tuple[Family, ...]:
    """Grids of a codec, by what it was made for or its bands' ``gsd``, and which of them share a pyramid.

    Raises
    ------
    CodecError
        If a band has no ``gsd``, bands are not in order of it, or the chain is not that of ``lin``.
    """
    _, tail = stages_of(chain)
    if tail.lattices is not None:
        return families_of([n for counts in tail.lattices for n in counts], range(len(tail.lattices[0])))
    sizes = [b.gsd or math.nan for b in chain.bands]
    if not all(a <= b for a, b in itertools.pairwise(sizes)) or math.isnan(sizes[0]):
        raise CodecError(
            f"bands of several grids need a gsd each, finest first; got {[(b.name, b.gsd) for b in chain.bands]}"
        )
    grids = list(dict.fromkeys(sizes))
    joint = [0]
    for i, size in enumerate(grids):
        if i and round(size / grids[0], 6) == 2 ** len(joint) and len(joint) <= DEEPEST:
            joint.append(i)
    return families_of([sizes.count(size) for size in grids], joint)


def families_of(counts: Sequence[int], joint: Sequence[int]) -> tuple[Family, ...]:
    """Families of grids of so many bands, of which some share the first's pyramid."""
    ends = list(itertools.accumulate(counts))
    bands = [tuple(range(end - n, end)) for n, end in zip(counts, ends, strict=True)]
    alone = [(i,) for i in range(len(counts)) if i not in joint]
    return tuple(Family(tuple(g), tuple(bands[i] for i in g)) for g in (joint, *alone))


def misfit(found: Sequence[Family], shapes: Sequence[Sequence[int]]) -> str | None:
    """What is wrong with the sizes of grids, if anything."""
    for family in found:
        h, w = shapes[family.grids[0]][1:]
        if h * w > MAX_PIXELS:
            return f"grid {family.grids[0]} has {h} x {w} pixels; at most {MAX_PIXELS} are coded"
        for depth, g in enumerate(family.grids):
            got, want = tuple(shapes[g][1:]), (-(-h >> depth), -(-w >> depth))
            if got != want:
                return f"grid {g} has {got} pixels; {want} of its size cover the {h} x {w} of the finest"
    return None


@dataclass(frozen=True)
class GridPart:
    """Bands of one grid, and how they are normalised."""

    name: str
    """Of the codec, for errors."""
    bands: tuple[Band, ...]
    normalise: Normalise


def parts_of(chain: Chain, found: Sequence[Family]) -> list[GridPart]:
    """For each grid its bands and their normalisation."""
    first, _ = stages_of(chain)
    bands = dict(pair for f in found for pair in zip(f.grids, f.bands, strict=True))
    index = [list(bands[g]) for g in range(len(bands))]
    return [
        GridPart(
            chain.name,
            tuple(chain.bands[b] for b in i),
            Normalise(first.mean[i].tolist(), first.unit[i].tolist()),
        )
        for i in index
    ]


def normalised(x: Array, mask: Array | None, part: GridPart) -> Array:
    """Values in normalised units, float32, something smooth in their gaps."""
    y = part.normalise.forward(x if mask is None else zero_invalid(x, mask))
    if mask is not None:
        pad = [(0, 0), *((0, -n % CELL) for n in x.shape[1:])]
        wide = fill_invalid(np.pad(y, pad, mode="edge"), np.pad(mask, pad, mode="edge"), (CELL, CELL))
        y = wide[:, : x.shape[1], : x.shape[2]]
    return (y * 2.0**-FRACTION_BITS).astype(np.float32)


def check_fields(found: Sequence[Family], parts: Sequence[GridPart], fields: Sequence[Array]) -> None:
    """Refuse fields that do not fit the bands or each other, with :class:`FieldError`."""
    if len(fields) != len(parts):
        raise FieldError(f"codec {parts[0].name!r} has bands on {len(parts)} grids; got {len(fields)} fields")
    for i, (x, part) in enumerate(zip(fields, parts, strict=True)):
        try:
            check_field(x, part.name, part.bands, (1, 1))
        except FieldError as exc:
            raise FieldError(f"field {i}: {exc}") from exc
    if wrong := misfit(found, [x.shape for x in fields]):
        raise FieldError(wrong)
