"""Where a raster reaches on another grid, also across 180 degrees, round the poles and over the edge of a map.

Footprints of rasters that touch 180 degrees come apart when they are projected. Here a raster is a net of small patches, each of
which is brought to the other grid by itself.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from odc.geo import CRS
from odc.geo.geobox import GeoBox, GeoboxTiles
from pyproj.exceptions import ProjError

from stac_latent.cube.grid.boxes import to_pixels, to_world
from stac_latent.window import Window

__all__ = ["Reach", "reach", "tiles_reached"]

Floats = npt.NDArray[np.float64]

PATCHES = 32
"""Patches along each side of a raster."""
_MARGIN = 4
"""Pixels, of the raster and of the other grid, that kernels reach beyond a patch."""
_TORN = 3.0
"""A patch that spans more than the whole raster by this is torn: its corners lie at both ends of the map."""
_LONLAT = "EPSG:4326"


@dataclass(frozen=True)
class Reach:
    """Bounds of the patches of a raster on another grid."""

    low: Floats
    """``(patch, 2)`` x and y in pixels of the other grid."""
    high: Floats
    rows: npt.NDArray[np.int64]
    """``(patch, 2)`` first and last pixel of the raster, along y."""
    columns: npt.NDArray[np.int64]
    everywhere: bool
    """It holds a pole: no patch can be left out."""

    def hits(self, start: tuple[int, int], stop: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which patches may reach a part of the other grid, from and to x and y in its pixels."""
        if self.everywhere:
            return np.ones(len(self.low), bool)
        return np.asarray(
            (self.high > np.array(start) - _MARGIN).all(axis=1)
            & (self.low < np.array(stop) + _MARGIN).all(axis=1)
        )

    def window(self, dst: GeoBox) -> Window | None:
        """Pixels of the raster, in whole patches, that may reach the other grid; None if none do."""
        hit = self.hits((0, 0), dst.shape.xy)
        if not hit.any():
            return None
        return Window.of(
            (max(0, int(v[hit, 0].min()) - _MARGIN), min(int(v.max()), int(v[hit, 1].max()) + _MARGIN))
            for v in (self.rows, self.columns)
        )


def reach(src: GeoBox, dst: GeoBox) -> Reach | None:
    """Patches of a raster on another grid where a footprint would not do; None where it does.

    It does not where the raster touches 180 degrees or holds a pole, where the map of ``dst`` is cut within it, and where
    ``dst`` counts longitudes from another meridian.

    Parameters
    ----------
    src, dst
        Grids of the raster and of the result.
    """
    if src.crs is None or dst.crs is None:
        return None
    same = src.crs == dst.crs
    if same and not src.crs.geographic:
        return None
    net = _in_crs(src, dst.crs)
    shifts = [0.0]
    if dst.crs.geographic:
        net[0] = _unwrapped(net[0])
        shifts = [0.0, -360.0, 360.0]
    bounds = [_patches(dst, net[0] + s, net[1]) for s in shifts]
    rows, columns = _ranges(src)
    patches = Reach(
        np.concatenate([low for low, *_ in bounds]),
        np.concatenate([high for _, high, _ in bounds]),
        np.tile(rows, (len(shifts), 1)),
        np.tile(columns, (len(shifts), 1)),
        not same and _holds_pole(src),
    )
    hit = patches.hits((0, 0), dst.shape.xy)
    shifted = bool(hit[len(rows) :].any())
    beyond = dst.crs.geographic and bool(hit.any()) and max(map(abs, dst.boundingbox.range_x)) > 180
    delicate = (
        beyond or any(torn for *_, torn in bounds) or bool((hit & np.tile(_at_180(src), len(shifts))).any())
    )
    return patches if patches.everywhere or shifted or (delicate and not same) else None


def tiles_reached(found: Reach, gbt: GeoboxTiles) -> list[tuple[int, int]]:
    """Tiles (y, x) of a grid that a raster may reach."""
    ends = [np.cumsum((0, *sizes)).tolist() for sizes in gbt.chunks]
    return [
        (y, x)
        for y, x in np.ndindex(*gbt.shape.yx)
        if found.hits((ends[1][x], ends[0][y]), (ends[1][x + 1], ends[0][y + 1])).any()
    ]


def _steps(n: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, n, min(n, PATCHES) + 1).astype(np.int64))


def _ranges(src: GeoBox) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    y, x = (np.stack([s[:-1], s[1:]], axis=1) for s in map(_steps, src.shape.yx))
    return np.repeat(y, len(x), axis=0), np.tile(x, (len(y), 1))


def _in_crs(src: GeoBox, crs: CRS) -> Floats:
    """``(2, y, x)`` x and y of the corners of patches; NaN where they have none."""
    pixel_x, pixel_y = np.meshgrid(*(_steps(n).astype(float) for n in src.shape.xy))
    x, y = to_world(src, pixel_x, pixel_y)
    if src.crs is None or src.crs == crs:
        return np.stack([x, y])
    net = np.array(src.crs.transformer_to_crs(crs)(x.ravel(), y.ravel()), float)
    net[~np.isfinite(net)] = np.nan
    return net.reshape(2, *x.shape)


def _unwrapped(lon: Floats) -> Floats:
    """Longitudes of a net without jumps from 180 to -180."""
    lon = np.asarray(np.unwrap(lon, period=360, axis=1))
    column = np.unwrap(lon[:, 0], period=360)
    return np.asarray(lon + (column - lon[:, 0])[:, None])


def _patches(dst: GeoBox, x: Floats, y: Floats) -> tuple[Floats, Floats, bool]:
    """Lower and upper bounds ``(patch, 2)`` in pixels of ``dst``, and whether a patch is torn; NaN where all of one is beyond."""
    net = np.stack(to_pixels(dst, x, y), axis=-1)
    corners = np.stack([net[:-1, :-1], net[:-1, 1:], net[1:, :-1], net[1:, 1:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all of a patch, or all of the raster, is beyond
        low, high = np.nanmin(corners, axis=0).reshape(-1, 2), np.nanmax(corners, axis=0).reshape(-1, 2)
        extent, whole = high - low, np.nanmax(net, axis=(0, 1)) - np.nanmin(net, axis=(0, 1))
        usual = np.nanmedian(extent, axis=0)
    torn = ((extent > whole / _TORN) & (extent > 8 * usual)).any()
    return low - usual, high + usual, bool(torn)


@lru_cache(maxsize=256)
def _at_180(src: GeoBox) -> npt.NDArray[np.bool_]:
    """Which patches touch 180 degrees or reach over it."""
    out = np.zeros((len(_steps(src.shape.y)) - 1, len(_steps(src.shape.x)) - 1), bool)
    try:
        lon, _ = _in_crs(src, CRS(_LONLAT))
    except ProjError:
        return out.ravel()
    corners = np.stack([lon[:-1, :-1], lon[:-1, 1:], lon[1:, :-1], lon[1:, 1:]])
    with np.errstate(invalid="ignore"):
        width = corners.max(axis=0) - corners.min(axis=0)
        out = (width > 180) | (np.abs(corners).max(axis=0) + np.minimum(width, 1.0) >= 180)
    return np.asarray(out).ravel()


@lru_cache(maxsize=256)
def _holds_pole(src: GeoBox) -> bool:
    """Whether a projected raster has a pole within it."""
    if src.crs is None or src.crs.geographic:
        return False
    try:
        x, y = CRS(_LONLAT).transformer_to_crs(src.crs)(np.zeros(2), np.array([-90.0, 90.0]))
    except ProjError:
        return False
    good = np.isfinite(x) & np.isfinite(y)
    px, py = to_pixels(src, np.asarray(x)[good], np.asarray(y)[good])
    ny, nx = src.shape
    return bool(((px >= -1) & (px <= nx + 1) & (py >= -1) & (py <= ny + 1)).any())
