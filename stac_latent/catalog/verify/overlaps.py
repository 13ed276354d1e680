"""Adopted embeddings of one space that share cells and time, held against each other: other weights under one name are told apart so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely

from stac_latent.cube.grid.boxes import cell_box
from stac_latent.cube.grid.lattice import lattice_offset
from stac_latent.cube.read.driver import open_cells
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import GridError, StacLatentError
from stac_latent.geo.extents import times_in_utc
from stac_latent.window import Window

__all__ = ["disagreeing"]

_SIDE = 32
"""Cells along a side of what is compared of two."""
_PAIRS = 256
"""Overlaps that are looked at."""
_LEAST = 16
"""Vectors that two have to share before they are compared."""
_ALIKE = 0.8
"""Median cosine below which two are of different models: copies differ by rounding, other weights by far more."""


def disagreeing(rasters: Sequence[tuple[pystac.Item, str]]) -> Iterator[tuple[int, str]]:
    """Rasters whose vectors are not those of an earlier one at the same cells and time.

    Parameters
    ----------
    rasters
        Items and keys of adopted assets. What cannot be read is passed over.

    Yields
    ------
    int, str
        Position, and what is wrong.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, LatentRef]]] = defaultdict(list)
    for i, (item, key) in enumerate(rasters):
        try:
            ref = LatentRef.from_item(item, key)
            groups[ref.spec.space, ref.grid.crs, *times_in_utc(item)].append((i, ref))
        except StacLatentError:
            continue
    pairs = (pair for members in groups.values() for pair in _overlapping(members))
    for _, ((_, first), (i, second)) in zip(range(_PAIRS), pairs, strict=False):
        try:
            cosine = _median_cosine(first, second)
        except StacLatentError:
            continue
        if cosine is not None and cosine < _ALIKE:
            problem = (
                f"its vectors are not those of item {first.item_id!r} at the same cells and time (median cosine {cosine:.2f}), though both "
                "state one space: they are of other weights or versions; adopt each with its own --model-version"
            )
            yield i, problem


def _overlapping(members: Sequence[tuple[int, LatentRef]]) -> Iterator[tuple[tuple[int, LatentRef], ...]]:
    """Pairs whose footprints share an area."""
    if len(members) < 2:
        return
    boxes = np.array([shapely.box(*cell_box(ref.grid).boundingbox.bbox) for _, ref in members])
    for a, b in sorted(zip(*shapely.STRtree(boxes).query(boxes).tolist(), strict=True)):
        if a < b and boxes[a].intersection(boxes[b]).area > 0:
            yield members[a], members[b]


def _median_cosine(first: LatentRef, second: LatentRef) -> float | None:
    """Of the vectors in the middle of what two share; None where that is too little, or on another lattice."""
    try:
        shift = lattice_offset(cell_box(first.grid), cell_box(second.grid))
    except GridError:
        return None
    spans = []
    for s, n, m in zip(shift, first.grid.cells, second.grid.cells, strict=True):
        lo, hi = max(0, s), min(n, s + m)
        lo = max(lo, (lo + hi - _SIDE) // 2)
        spans.append((lo, min(hi, lo + _SIDE)))
    if any(lo >= hi for lo, hi in spans):
        return None
    here = Window.of(spans)
    there = here.shifted((-shift[0], -shift[1]))
    a, b = _vectors(first, here), _vectors(second, there)
    if a.shape != b.shape:
        return None
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    known = np.isfinite(lengths) & (lengths > 0)
    return float(np.median((a * b).sum(axis=0)[known] / lengths[known])) if known.sum() >= _LEAST else None


def _vectors(ref: LatentRef, window: Window) -> npt.NDArray[np.float64]:
    return np.asarray(open_cells(ref).read_latent(window), np.float64)
