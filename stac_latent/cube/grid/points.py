"""Points on grids: which pixel holds each, and which of them share a tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from stac_latent.cube.grid.boxes import to_pixels
from stac_latent.errors import GridError
from stac_latent.system.threads import LruCache

__all__ = ["Pixels", "PlacedPoints", "by_tile"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_CRSS = 8
"""CRSs in which coordinates are kept."""


@dataclass(frozen=True)
class Pixels:
    """Those of some points that a grid holds, and the pixel of each."""

    points: Integers
    """Positions among all points, rising."""
    rows: Integers
    columns: Integers

    def where(self, chosen: npt.NDArray[np.bool_]) -> Pixels:
        """Those of the points that are chosen; ``chosen`` has one entry for each of all points."""
        kept = chosen[self.points]
        return Pixels(self.points[kept], self.rows[kept], self.columns[kept])


class PlacedPoints:
    """Points in one CRS, brought to others once for each.

    Parameters
    ----------
    x, y
        ``(n,)``, in the CRS.
    crs
        Its code or WKT.
    """

    def __init__(self, x: Floats, y: Floats, crs: str) -> None:
        self.x, self.y, self.crs = x, y, CRS(crs)
        self._known: LruCache[tuple[Floats, Floats]] = LruCache(_CRSS)

    def __len__(self) -> int:
        return len(self.x)

    def in_crs(self, crs: str) -> tuple[Floats, Floats]:
        """Coordinates in another CRS; infinite where it does not reach.

        Raises
        ------
        GridError
            If there is no way between the two.
        """
        return self._known.get(crs, lambda: self._brought(CRS(crs)))

    def _brought(self, other: CRS) -> tuple[Floats, Floats]:
        if other == self.crs:
            return self.x, self.y
        try:
            x, y = Transformer.from_crs(self.crs, other, always_xy=True).transform(self.x, self.y)
        except ProjError as exc:
            raise GridError(f"points cannot be brought from {self.crs.name} to {other.name}: {exc}") from exc
        return np.asarray(x, float), np.asarray(y, float)

    def on(self, box: GeoBox) -> Pixels:
        """Points that a grid holds; on an edge between two pixels, the one that is further along rows and columns.

        In degrees, longitudes may differ by whole turns.
        """
        x, y = self.in_crs(str(box.crs))
        turns = (0.0, -360.0, 360.0) if box.crs is not None and box.crs.geographic else (0.0,)
        parts = [_held(box, x + turn, y) for turn in turns]
        held = np.concatenate([p.points for p in parts])
        _, first = np.unique(held, return_index=True)
        rows, columns = (
            v[first]
            for v in (np.concatenate([p.rows for p in parts]), np.concatenate([p.columns for p in parts]))
        )
        return Pixels(held[first], rows, columns)


def _held(box: GeoBox, x: Floats, y: Floats) -> Pixels:
    with np.errstate(invalid="ignore"):
        column, row = (np.floor(v) for v in to_pixels(box, x, y))
        inside = (row >= 0) & (row < box.shape.y) & (column >= 0) & (column < box.shape.x)
    points = np.flatnonzero(inside)
    return Pixels(points, row[points].astype(np.int64), column[points].astype(np.int64))


def by_tile(
    places: Sequence[tuple[Integers, Integers]], size: Sequence[int], lead: Sequence[int] = (0, 0)
) -> Iterator[tuple[tuple[int, int], list[Integers]]]:
    """Tiles that hold a point, row by row, each once: number (y, x), and the positions of its points in each group.

    Parameters
    ----------
    places
        Rows and columns of each group of points.
    size
        Rows and columns of a tile.
    lead
        Of the first, what lies before row and column 0.

    Examples
    --------
    >>> rows, columns = np.array([0, 9, 1]), np.array([7, 0, 5])
    >>> [(tile, *inside) for tile, inside in by_tile([(rows, columns)], (5, 5))]
    [((0, 1), array([0, 2])), ((1, 0), array([1]))]
    """
    keys = [(rows + lead[0]) // size[0] * 2**32 + (columns + lead[1]) // size[1] for rows, columns in places]
    orders = [np.argsort(key, kind="stable") for key in keys]
    ordered = [key[order] for key, order in zip(keys, orders, strict=True)]
    tiles = np.unique(np.concatenate([np.unique(key) for key in keys])) if keys else np.empty(0, np.int64)
    ends: list[Any] = [(np.searchsorted(key, tiles), np.searchsorted(key, tiles, "right")) for key in ordered]
    for i, tile in enumerate(tiles.tolist()):
        yield (
            divmod(tile, 2**32),
            [order[start[i] : stop[i]] for order, (start, stop) in zip(orders, ends, strict=True)],
        )
