"""Tables whose rows are the cells of a regular grid, read as rasters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox

from stac_latent.cube.grid.boxes import cell_box, to_pixels
from stac_latent.cube.read.embedding.cells import PlainReader
from stac_latent.errors import CatalogError, CorruptDataError, GridError
from stac_latent.geo.antimeridian import to_lonlat
from stac_latent.spec import Spec
from stac_latent.store.foreign.changes import check_unchanged
from stac_latent.store.foreign.table import VectorTable
from stac_latent.store.geoparquet.vector_types import shifted
from stac_latent.window import WindowLike

if TYPE_CHECKING:
    from stac_latent.cube.foreign_layout import Layout

__all__ = [
    "TableReader",
    "bounds",
    "centres",
    "dequantised",
    "in_crs",
    "in_lonlat",
    "regular_grid",
    "table_of",
]

_SLACK = 0.05
"""Part of a cell by which a row may miss its centre."""


def table_of(layout: Layout) -> VectorTable:
    """Open the table of a layout."""
    check_unchanged(layout.href, layout.size, layout.updated)
    scale = "" if layout.scale is None else layout.scale.columns[0]
    return VectorTable(layout.href, layout.columns, layout.position, scale)


def dequantised(values: npt.NDArray[np.float32], spec: Spec, layout: Layout) -> npt.NDArray[np.float32]:
    """Codes ``(rows, channel)`` as numbers; those with a scale of their own were multiplied with it when they were read."""
    if layout.scale is not None:
        offset = np.array(spec.quantization.offset, np.float32)
        return shifted(values, offset) if offset.any() else values
    out = spec.quantization.dequantise(values, axis=1)
    if layout.nodata is not None:
        out[values == layout.nodata] = np.nan
    return out


def in_crs(table: VectorTable, shapes: npt.NDArray[np.object_], crs: Any) -> npt.NDArray[np.object_]:
    """Geometries of a table in another CRS.

    Raises
    ------
    CatalogError
        If the table declares a projected CRS, and holds degrees.
    """
    turn, _ = _transformer(table, shapes, crs)
    return np.asarray(shapely.transform(shapes, lambda p: np.stack(turn(p[:, 0], p[:, 1]), axis=1)))


def in_lonlat(table: VectorTable, shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Geometries of a table in OGC:CRS84, longitudes in [-180, 180]: what crosses 180 degrees is split. Errors as :func:`in_crs`."""
    turn, projected = _transformer(table, shapes, "OGC:CRS84")
    return to_lonlat(shapes, turn, projected=projected)


def _transformer(table: VectorTable, shapes: npt.NDArray[np.object_], crs: Any) -> tuple[Any, bool]:
    """Transformation of coordinates of a table, and whether its own are those of a map."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError, ProjError

    try:
        table_crs = CRS(table.facts.crs) if table.facts.crs and not table.position else CRS("OGC:CRS84")
        other = CRS(crs)
    except CRSError as exc:
        raise GridError(f"{table.href}: {exc}; expected a CRS such as 'EPSG:32633'") from exc
    xy = np.abs(shapely.get_coordinates(shapes))
    if table_crs.is_projected and len(xy) and xy[:, 0].max() <= 180 and xy[:, 1].max() <= 90:
        raise CatalogError(
            f"{table.href} declares its geometry in {table_crs.name}, and holds what look like degrees: correct the file, or name its columns "
            "of longitude and latitude (--position lon,lat)"
        )
    try:
        return Transformer.from_crs(table_crs, other, always_xy=True).transform, table_crs.is_projected
    except ProjError as exc:
        raise GridError(
            f"{table.href}: its geometry is in {table_crs.name}, from which nothing leads to {other.name} ({exc}); write it in a CRS of the Earth"
        ) from exc


def bounds(table: VectorTable, crs: Any) -> npt.NDArray[np.float64]:
    """``(rows, 4)`` left, bottom, right and top of all rows in a CRS."""
    out = [shapely.bounds(in_crs(table, table.shapes(g), crs)) for g in table.groups(table.place_columns)]
    return np.concatenate(out) if out else np.empty((0, 4))


def centres(table: VectorTable, crs: Any) -> npt.NDArray[np.float64]:
    """``(rows, 2)`` x and y of all rows in a CRS: points as they are, the middle of the bounds of footprints."""
    extent = bounds(table, crs)
    return (extent[:, :2] + extent[:, 2:]) / 2


def regular_grid(xy: npt.NDArray[np.float64], crs: str, where: str) -> GeoBox:
    """The grid whose cells are the rows of a table.

    Parameters
    ----------
    xy
        Centres, ``(rows, 2)``.
    crs
        Their CRS.
    where
        Named in errors.

    Raises
    ------
    GridError
        If the centres are not those of different cells of one grid.
    """
    sides = []
    for values in xy.T:
        steps = np.diff(np.unique(values))
        steps = steps[steps > 1e-6 * max(1e-9, float(np.ptp(values)))]
        if not np.isfinite(values).all() or not steps.size:
            raise GridError(_irregular(where, crs, "they lie on one line, or nowhere"))
        step = float(np.median(steps[steps <= 1.5 * steps.min()]))
        index = np.rint((values - values.min()) / step)
        step = float((values - values.min()) @ index / (index @ index))
        off = float(np.abs((values - values.min()) / step - index).max())
        if off > _SLACK:
            raise GridError(
                _irregular(where, crs, f"they miss the cells of a grid of {step:g} by up to {off:.2f} cells")
            )
        sides.append((float(values.min()), step, int(index.max()) + 1))
    (left, dx, nx), (bottom, dy, ny) = sides
    if nx * ny > 4e9 or nx * ny > 10_000 * len(xy):
        raise GridError(_irregular(where, crs, f"{len(xy)} rows would fill a grid of {ny} x {nx} cells"))
    from affine import Affine

    return GeoBox((ny, nx), Affine(dx, 0, left - dx / 2, 0, -dy, bottom + dy * (ny - 0.5)), crs)


def _irregular(where: str, crs: str, why: str) -> str:
    return (
        f"the rows of {where} are no cells of a regular grid in {crs}: {why}; load them as a table with stac_latent.load_table, or "
        "name the CRS in which they are regular"
    )


class TableReader(PlainReader):
    """Windows of a table whose rows are cells: only the row groups with rows in the window are read."""

    @property
    def tile(self) -> tuple[int, int]:
        """All cells: row groups hold what they like."""
        return self.grid.shape

    @cached_property
    def table(self) -> VectorTable:
        """The file."""
        return table_of(self.layout)

    @cached_property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row and column of the cell of each row of the file, and its row group."""
        xy = centres(self.table, self.grid.crs)
        px, py = to_pixels(cell_box(self.grid), xy[:, 0], xy[:, 1])
        off = max(np.abs(v - np.floor(v) - 0.5).max(initial=0) for v in (px, py))
        row, col = (np.floor(v).astype(np.int64) for v in (py, px))
        where = f"{self.layout.href} (asset {self.ref.asset!r} of item {self.ref.item_id!r})"
        if off > 2 * _SLACK:
            raise GridError(f"{where}: rows miss the centres of the declared cells by up to {off:.2f} cells")
        if len(np.unique(row * (1 << 32) + col)) != len(row):
            raise GridError(
                f"{where}: several rows lie in one cell, so they are no raster; load them with stac_latent.load_table, or adopt "
                "each date apart"
            )
        sizes = self.table.sizes
        return row, col, np.repeat(np.arange(len(sizes)), sizes)

    def read_latent(self, cells: WindowLike | None = None) -> npt.NDArray[np.float32]:
        """Vectors of the rows in a window of cells, NaN in cells without a row; float32 ``(channel, y, x)``."""
        (y0, y1), (x0, x1) = self._within(cells)
        check_unchanged(self.layout.href, self.layout.size, self.layout.updated)
        row, col, group = self.places
        inside = (row >= y0) & (row < y1) & (col >= x0) & (col < x1)
        out = np.full((self.spec.dimensions, y1 - y0, x1 - x0), np.nan, np.float32)
        wanted: Sequence[int] = np.unique(group[inside]).tolist()
        for number, part in zip(wanted, self.table.groups(self.table.vector_columns, wanted), strict=True):
            in_group = group == number
            keep = inside[in_group]
            values = dequantised(self.table.vectors(part, self.spec.dimensions), self.spec, self.layout)
            if len(values) != len(keep):
                raise CorruptDataError(f"{self.layout.href} was changed while it was read; try again")
            out[:, row[in_group][keep] - y0, col[in_group][keep] - x0] = values[keep].T
        return out
