"""From the latent of one Item to rows of a table: each cell, pooled patches, or the Item as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from stac_latent.catalog.footprints import cells_in, footprints
from stac_latent.codec.codec import Codec
from stac_latent.errors import CatalogError
from stac_latent.spec import Grid, Spec
from stac_latent.window import Window

__all__ = ["POOLS", "UNITS", "Cut", "LatentSource", "Pool", "Rows", "Unit", "rows_of"]

Unit = Literal["cell", "patch", "item"]
Pool = Literal["mean", "max", "min"]
UNITS = get_args(Unit)
POOLS = get_args(Pool)
Floats = npt.NDArray[np.float32]

_TILE_SIDE = 128
_START = {"mean": 0.0, "max": -np.inf, "min": np.inf}
_FOLD: dict[str, np.ufunc] = {"mean": np.add, "max": np.maximum, "min": np.minimum}


class LatentSource(Protocol):
    """What is read from an Item; :class:`stac_latent.cube.read.reader.LatentReader` is one."""

    @property
    def spec(self) -> Spec:
        """Contract of the asset."""

    @property
    def grid(self) -> Grid:
        """Pixels, and the lattice of cells above them."""

    @property
    def codec(self) -> Codec | None:
        """Codec of the space, where it is known."""

    def read_latent(self, cells: Window | None = None) -> Floats:
        """(channel, y, x) dequantised; NaN where a cell holds no valid pixel."""

    def read_valid_share(self, cells: Window | None = None) -> Floats:
        """(y, x) share of each cell's pixels that are valid."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Vectors and where they lie; n rows."""

    row: npt.NDArray[np.int32]
    """(n,) first cell, downwards."""
    col: npt.NDArray[np.int32]
    valid: Floats
    """(n,) share of valid pixels."""
    values: Floats
    """(n, channel)."""
    geometry: npt.NDArray[np.object_]
    """(n,) footprints in OGC:CRS84."""
    time: pa.Array | None = None
    """(n,) timestamps; None: all are of the Item's time."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """Part of the lattice that begins and ends on borders of patches, and may reach over the lattice's edges."""

    row: int
    col: int
    values: Floats
    """(channel, y, x); NaN where there is no cell."""
    share: Floats
    """(y, x); 0 where there is no cell."""


def _phase(grid: Grid, patch: tuple[int, int]) -> tuple[int, int]:
    """Cells of the first patch that lie before the lattice, so that patches of neighbouring scenes coincide.

    Patches are counted from the origin of the CRS; where the lattice does not hit it, from the first cell.
    """
    a, b, c, d, e, f = grid.cell_transform
    if b or d:
        return 0, 0
    first = (f / e, c / a)
    if any(abs(v - round(v)) > 1e-3 for v in first):
        return 0, 0
    return round(first[0]) % patch[0], round(first[1]) % patch[1]


def _tiles(source: LatentSource, window: Window, patch: tuple[int, int], tile_bytes: int) -> Iterator[_Tile]:
    """The window, extended to whole patches, in square tiles of whole patches."""
    cells = source.grid.cells
    side = min(_TILE_SIDE, max(1, int((tile_bytes / 4 / source.spec.dimensions) ** 0.5) // 64) * 64)
    step = [max(p, side // p * p) for p in patch]
    phase = _phase(source.grid, patch)
    begin = [(lo + k) // p * p - k for (lo, _), p, k in zip(window, patch, phase, strict=True)]
    for r in range(begin[0], window.y.stop, step[0]):
        for c in range(begin[1], window.x.stop, step[1]):
            size = [
                min(s, -(-(hi - o) // p) * p)
                for s, (_, hi), o, p in zip(step, window, (r, c), patch, strict=True)
            ]
            block = Window.of((max(0, o), min(n, o + s)) for o, s, n in zip((r, c), size, cells, strict=True))
            (r0, r1), (c0, c1) = block
            values, share = source.read_latent(block), source.read_valid_share(block)
            edge = [(r0 - r, r + size[0] - r1), (c0 - c, c + size[1] - c1)]
            if any(map(any, edge)):
                values = np.pad(values, [(0, 0), *edge], constant_values=np.nan)
                share = np.pad(share, edge)
            yield _Tile(r, c, values, share)


def _pooled(
    tile: _Tile, patch: tuple[int, int], pool: Pool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Floats]:
    """Folded values (channel, py, px) of the valid cells of each patch, their number and the share of valid pixels."""
    k, h, w = tile.values.shape
    blocks = (h // patch[0], patch[0], w // patch[1], patch[1])
    values = tile.values.reshape(k, *blocks)
    here = np.isfinite(values).all(axis=0)
    filled = np.where(here, values, np.float32(_START[pool]))
    kind = np.float64 if pool == "mean" else np.float32
    folded = _FOLD[pool].reduce(filled, axis=(2, 4), dtype=kind)
    share = (
        np.where(here, tile.share.reshape(blocks), 0).mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
    )
    return folded, here.sum(axis=(1, 3)), share


def _overlapping(geometry: npt.NDArray[np.object_], region: shapely.Geometry) -> npt.NDArray[np.bool_]:
    """Which footprints share area with the region; touching edges do not count."""
    hit = np.asarray(shapely.intersects(region, geometry))
    hit[hit] = shapely.relate_pattern(geometry[hit], region, "T********")
    return hit


@dataclass(frozen=True, slots=True)
class Cut:
    """How latents are cut into rows."""

    by: Unit = "cell"
    patch: tuple[int, int] = (1, 1)
    """Cells (y, x) of a patch. Patches are counted from the origin of the CRS where the lattice allows it, so those
    of neighbouring and repeated scenes coincide; at the edges of the lattice they reach beyond it."""
    pool: Pool = "mean"
    """How the valid cells of a patch or Item become one vector."""
    min_valid: float = 0.0
    """Least share of valid pixels of a row. Rows without any valid cell are always dropped."""
    region: shapely.Geometry | None = None
    """In OGC:CRS84; only rows (for ``"item"``: cells) that share area with it."""

    @classmethod
    def of(
        cls, by: str, patch: Sequence[int], pool: str, min_valid: float, region: shapely.Geometry | None
    ) -> Self:
        """Check arguments.

        Raises
        ------
        CatalogError
            If one is unknown or out of range.
        """
        if by not in UNITS:
            raise CatalogError(f"by={by!r} is unknown; one row is made by {', '.join(map(repr, UNITS))}")
        if pool not in POOLS:
            raise CatalogError(
                f"pool={pool!r} is unknown; vectors are pooled by {', '.join(map(repr, POOLS))}"
            )
        if len(patch) != 2 or min(patch) < 1:
            raise CatalogError(f"patch={patch!r} is no size; it is (y, x) in cells, each at least 1")
        if not 0 <= min_valid <= 1:
            raise CatalogError(f"min_valid={min_valid!r} is no share; it is between 0 and 1")
        if region is not None:
            shapely.prepare(region)
        return cls(cast("Unit", by), (int(patch[0]), int(patch[1])), cast("Pool", pool), min_valid, region)

    @property
    def size(self) -> tuple[int, int] | None:
        """Cells (y, x) of a row; None for the whole Item."""
        return {"cell": (1, 1), "patch": self.patch, "item": None}[self.by]

    def to_dict(self) -> dict[str, Any]:
        """JSON object for the footer."""
        out: dict[str, Any] = {"by": self.by}
        if self.by == "patch":
            out["patch"] = list(self.patch)
        return out if self.by == "cell" else out | {"pool": self.pool}


def rows_of(source: LatentSource, cut: Cut, tile_bytes: int = 32 << 20) -> Iterator[Rows]:
    """Rows of one latent, read in tiles of at most 128 x 128 cells and so many bytes (or one patch).

    Parameters
    ----------
    source
        Where to read.
    cut
        How to make rows of it.
    tile_bytes
        Bytes of cells that are read at a time.

    Yields
    ------
    Rows
        Never empty ones.
    """
    size, region = cut.size, cut.region
    window: Window | None = Window.whole(source.grid.cells)
    if region is not None:
        window = cells_in(source.grid, region)
    if window is None:
        return
    if size is None:
        yield from _whole(source, window, cut, tile_bytes)
        return
    mean = (cut.by, cut.pool) == ("patch", "mean")
    for tile in _tiles(source, window, size, tile_bytes):
        folded, count, share = _pooled(tile, size, cut.pool if cut.by == "patch" else "max")
        y, x = np.nonzero((count > 0) & (share >= cut.min_valid))
        row, col = tile.row + y * size[0], tile.col + x * size[1]
        geometry = footprints(source.grid, row, col, size)
        if region is not None:
            keep = _overlapping(geometry, region)
            y, x, row, col, geometry = y[keep], x[keep], row[keep], col[keep], geometry[keep]
        if len(y):
            values = folded[:, y, x].T / (count[y, x, None] if mean else 1)
            yield Rows(
                row.astype(np.int32), col.astype(np.int32), share[y, x], values.astype(np.float32), geometry
            )


def _whole(source: LatentSource, window: Window, cut: Cut, tile_bytes: int) -> Iterator[Rows]:
    """One row for the window: cells pooled tile by tile; the footprint is the rectangle of the cells used."""
    total = np.full(source.spec.dimensions, _START[cut.pool])
    fold = _FOLD[cut.pool]
    count, area = 0, 0.0
    low, high = np.array([2**31, 2**31]), np.array([-1, -1])
    selected = 0
    for tile in _tiles(source, window, (1, 1), tile_bytes):
        use = np.ones(tile.share.shape, dtype=np.bool_)
        y, x = np.nonzero(use)
        if cut.region is not None:
            use[y, x] = _overlapping(footprints(source.grid, tile.row + y, tile.col + x), cut.region)
        selected += int(use.sum())
        here = use & np.isfinite(tile.values).all(axis=0)
        if not here.any():
            continue
        values = tile.values[:, here]
        total = fold(total, fold.reduce(values, axis=1, dtype=np.float64))
        count += values.shape[1]
        area += float(tile.share[here].sum(dtype=np.float64))
        y, x = np.nonzero(here)
        low = np.minimum(low, [tile.row + y.min(), tile.col + x.min()])
        high = np.maximum(high, [tile.row + y.max(), tile.col + x.max()])
    share = np.float32(area / selected) if selected else np.float32(0)
    if not count or share < np.float32(cut.min_valid):
        return
    mean = total / count if cut.pool == "mean" else total
    extent = (int(high[0] - low[0] + 1), int(high[1] - low[1] + 1))
    row, col = low[:1].astype(np.int32), low[1:].astype(np.int32)
    valid = np.array([share])
    yield Rows(row, col, valid, mean.astype(np.float32)[None], footprints(source.grid, row, col, extent))
