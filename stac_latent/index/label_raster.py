"""Maps of rows: footprints with values, drawn on a regular grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stac_latent.errors import GridError, SearchError
from stac_latent.geo.crs import crs_text
from stac_latent.index.metric import F32
from stac_latent.system.files import replacing, writing

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MapGrid", "burn", "write_map"]

MOST_PIXELS = 1 << 28


@dataclass(frozen=True)
class MapGrid:
    """A grid in some CRS that holds all footprints."""

    crs: Any
    transform: Any
    shape: tuple[int, int]

    @classmethod
    def of(cls, shapes: npt.NDArray[np.object_], crs: Any = None, resolution: float | None = None) -> MapGrid:
        """Grid for footprints in longitude and latitude; by default UTM, and the median side of a footprint.

        Raises
        ------
        SearchError
            If the CRS is unknown, or the map would have more than 2^28 pixels.
        """
        import geopandas
        from affine import Affine
        from pyproj import CRS

        frame = geopandas.GeoSeries(shapes, crs="OGC:CRS84")
        try:
            target = frame.estimate_utm_crs() if crs is None else CRS.from_user_input(crs_text(crs))
        except (GridError, RuntimeError) as exc:
            raise SearchError(
                f"crs={crs!r} cannot be used for the map ({exc}); give for example 'EPSG:32633'"
            ) from exc
        bounds = frame.to_crs(target).bounds.to_numpy()
        sides = np.minimum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
        step = float(np.median(sides)) if resolution is None else float(resolution)
        if resolution is None and step > 1:
            step = float(np.round(step, 3))
        if not step > 0:
            points = " (rows that are points have no side to take: state it)" if resolution is None else ""
            raise SearchError(f"resolution={resolution!r} is no size of a pixel{points}")
        west, south = np.floor(bounds[:, :2].min(axis=0) / step + 1e-3) * step
        east, north = np.ceil(bounds[:, 2:].max(axis=0) / step - 1e-3) * step
        width, height = round((east - west) / step), round((north - south) / step)
        if width * height > MOST_PIXELS:
            raise SearchError(
                f"the map would have {width} x {height} pixels of {step:g}; select a region, or give a larger resolution"
            )
        return cls(target, Affine(step, 0, west, 0, -step, north), (height, width))

    def dataset(self, layers: dict[str, F32]) -> xr.Dataset:
        """Layers (y, x) with coordinates and CRS."""
        import rioxarray  # noqa: F401 (registers .rio)
        import xarray as xr

        h, w = self.shape
        x = self.transform.c + (np.arange(w) + 0.5) * self.transform.a
        y = self.transform.f + (np.arange(h) + 0.5) * self.transform.e
        found = xr.Dataset({k: (("y", "x"), v) for k, v in layers.items()}, coords={"y": y, "x": x})
        placed: xr.Dataset = found.rio.write_crs(self.crs).rio.write_transform(self.transform)
        return placed


def burn(shapes: npt.NDArray[np.object_], values: F32, grid: MapGrid) -> F32:
    """Values (n, m) on the pixels whose centre a footprint holds, (m, y, x), later rows over earlier ones; NaN elsewhere."""
    import geopandas
    from rasterio.features import rasterize

    drawn = geopandas.GeoSeries(shapes, crs="OGC:CRS84").to_crs(grid.crs)
    number = rasterize(
        zip(drawn, range(1, len(drawn) + 1), strict=True),
        out_shape=grid.shape, transform=grid.transform, fill=0, dtype="int32",
    )  # fmt: skip
    out = np.full((values.shape[1], *grid.shape), np.nan, np.float32)
    hit = number > 0
    out[:, hit] = values[number[hit] - 1].T
    return out


def write_map(found: xr.Dataset, dest: Path) -> None:
    """Write a map of labels as a GeoTIFF: label, and agreement in percent, both uint8 with 0 for none; complete or not at all."""
    import rasterio

    share = np.nan_to_num(found["agreement"].to_numpy() * 100)
    layers = np.stack([found["label"].to_numpy(), np.clip(np.rint(share), 0, 100).astype("uint8")])
    with (
        writing(dest),
        replacing(dest, parents=True) as part,
        rasterio.open(
            part, "w", driver="GTiff", dtype="uint8", count=2, height=layers.shape[1], width=layers.shape[2], nodata=0,
            crs=found.rio.crs, transform=found.rio.transform(), compress="deflate",
        ) as file,
    ):  # fmt: skip
        file.write(layers)
        file.descriptions = ("label", "agreement [%]")
        meanings = found["label"].attrs["flag_meanings"].split(" ")
        file.update_tags(1, **{f"label_{i}": name for i, name in enumerate(meanings, start=1)})
