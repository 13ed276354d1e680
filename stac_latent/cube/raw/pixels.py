"""Pixels of raster files, by row and column: where a file lies is for the caller to say, and no footprint is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from stac_latent.aliases import Array
from stac_latent.cube.grid.points import Integers, by_tile
from stac_latent.errors import GridError
from stac_latent.net.raster import open_raster
from stac_latent.system.links import is_remote, shown
from stac_latent.window import Span, Window

__all__ = ["RasterFile"]


@dataclass(frozen=True)
class RasterFile:
    """A raster file, and the grid that its pixels are taken to lie on."""

    href: str
    box: GeoBox

    def read(self, bands: Sequence[int], window: Window, dtype: str) -> Array:
        """Pixels of a window of the file's own rows and columns.

        Parameters
        ----------
        bands
            Counted from one.
        window
            Rows and columns of the file.
        dtype
            Of the result.

        Returns
        -------
        ndarray
            ``(band, y, x)``.

        Raises
        ------
        GridError
            If the file has not as many pixels as its grid.
        CatalogError
            If it cannot be read.
        """
        with self._opened() as src:
            return np.asarray(src.read(list(bands), window=window, out_dtype=dtype))

    def read_mask(self, band: int, window: Window) -> npt.NDArray[np.bool_]:
        """Pixels (y, x) of a window that the file's mask of a band leaves in, be it beside the file, in it, or an alpha band."""
        with self._opened() as src:
            return np.asarray(src.read_masks(band, window=window) > 0)

    def at(
        self, bands: Sequence[int], rows: Integers, columns: Integers, dtype: str, *, masked: bool
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Pixels at points, with the file opened once and each of its blocks read once; errors as of :meth:`read`.

        Parameters
        ----------
        bands
            Counted from one.
        rows, columns
            ``(n,)``, of the file.
        dtype
            Of the result.
        masked
            Whether the file's masks are looked at.

        Returns
        -------
        values, valid
            ``(band, n)``, and what the masks leave in.
        """
        out = np.zeros((len(bands), len(rows)), dtype)
        valid = np.ones(out.shape, bool)
        with self._opened() as src:
            height, width = src.block_shapes[bands[0] - 1]
            for (y, x), (inside,) in by_tile([(rows, columns)], (height, width)):
                window = Window(
                    Span(y * height, min(src.height, (y + 1) * height)),
                    Span(x * width, min(src.width, (x + 1) * width)),
                )
                row, column = rows[inside] - window.y.start, columns[inside] - window.x.start
                out[:, inside] = src.read(list(bands), window=window, out_dtype=dtype)[:, row, column]
                if masked:
                    valid[:, inside] = src.read_masks(list(bands), window=window)[:, row, column] > 0
        return out, valid

    def resampled(
        self,
        bands: Sequence[int],
        target: GeoBox,
        window: Window,
        dtype: str,
        *,
        resampling: str,
        missing: float | None,
        nodata: float | None,
    ) -> Array:
        """Pixels of a window of another grid in the same CRS; beyond the file nodata, or 0 without one.

        Parameters as of :meth:`read`, but for the ``window``, which counts rows and columns of ``target``, and for
        ``missing``, the value of pixels without data, which become ``nodata``.
        """
        own = {} if nodata is None else {"src_nodata": missing, "nodata": nodata}
        crs = str(self.box.crs)  # one text for both: nothing is projected
        height, width = target.shape.yx
        with (
            self._opened() as src,
            WarpedVRT(
                src, src_crs=crs, crs=crs, src_transform=self.box.affine, transform=target.affine, height=height, width=width,
                resampling=Resampling[resampling], UNIFIED_SRC_NODATA="NO", **own,
            ) as vrt,
        ):  # fmt: skip
            return np.asarray(vrt.read(list(bands), window=window, out_dtype=dtype))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        driver = RioDriver()
        env = driver.capture_env() if is_remote(self.href) else {}
        with (
            driver.restore_env(env, driver.new_load(self.box)),
            open_raster(self.href, sharing=False) as src,
        ):
            if src.shape != tuple(self.box.shape.yx):
                raise GridError(
                    f"{shown(self.href)} has {src.shape} pixels (y, x), its Item says {tuple(self.box.shape.yx)} in proj:shape; "
                    "correct the Item"
                )
            yield src
