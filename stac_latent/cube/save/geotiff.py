"""Cubes to Cloud-Optimized GeoTIFF by GDAL's own driver: one file for each date."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from stac_latent.aliases import Array
from stac_latent.cube.save.pieces import check_derived, geobox_of, in_pieces, watched
from stac_latent.cube.save.planes import Plane, planes_of, shared_nodata, shared_type, with_nodata
from stac_latent.errors import CatalogError
from stac_latent.system.files import replacing, workplace, writing

__all__ = ["dated", "write_geotiffs"]

_BLOCK, _LEAST, _BLOCK_BYTES = 512, 128, 8 << 20
_OVERVIEWS = ("average", "bilinear", "cubic", "cubic_spline", "gauss", "lanczos", "mode", "nearest", "rms")


def dated(cube: xr.Dataset, path: Path) -> dict[Path, xr.Dataset]:
    """The files of a cube: itself, or one for each date, whose name ends with the date, and with the time where days repeat.

    Raises
    ------
    CatalogError
        If dates are the same to the second.
    """
    if "time" not in cube.dims:
        return {path: cube}
    steps = [cube.isel(time=i) for i in range(cube.sizes["time"])]
    if len(steps) == 1:
        return {path: steps[0]}
    times = cube["time"].values
    for unit in ("D", "s"):
        names = [str(t).replace(":", "") for t in np.datetime_as_string(times, unit=unit)]
        if len(set(names)) == len(names):
            paths = [path.with_name(f"{path.stem}_{name}{path.suffix}") for name in names]
            return dict(zip(paths, steps, strict=True))
    raise CatalogError(
        f"{len(names) - len(set(names))} of {len(names)} dates are the same to the second, and a GeoTIFF holds one: write a .nc or a .zarr, or "
        "let items of one time share a step (groupby='time')"
    )


def write_geotiffs(
    parts: Mapping[Path, xr.Dataset], overviews: str | None, progress: Callable[[str, int, int], Any] | None
) -> None:
    """Write the files of :func:`dated`; all are put in place when all are finished."""
    if overviews is not None and overviews not in _OVERVIEWS:
        raise CatalogError(f"overviews={overviews!r} is unknown; expected one of {', '.join(_OVERVIEWS)}")
    with ExitStack() as stack:
        for i, (path, cube) in enumerate(parts.items()):
            stack.enter_context(writing(path, RasterioError))
            part = stack.enter_context(replacing(path, parents=True))
            if progress is not None and len(parts) > 1:
                progress("items", i, len(parts))
            with workplace(path) as folder:
                _write(cube, folder, overviews, progress)
                (folder / "cog.tif").replace(part)


def _write(
    cube: xr.Dataset, folder: Path, overviews: str | None, progress: Callable[[str, int, int], Any] | None
) -> None:
    check_derived(cube)
    box = geobox_of(cube)
    planes = planes_of(in_pieces(cube), box.dimensions)
    dtype, nodata = shared_nodata(planes, shared_type(planes))
    side = _BLOCK
    while side > _LEAST and side * side * len(planes) * dtype.itemsize > _BLOCK_BYTES:
        side //= 2
    plain = folder / "plain.tif"
    profile = {
        "driver": "GTiff", "width": box.width, "height": box.height, "count": len(planes), "dtype": dtype.name, "nodata": nodata,
        "crs": rasterio.CRS.from_wkt(str(box.crs.to_wkt())) if box.crs else None, "transform": box.transform, "tiled": True,
        "blockxsize": side, "blockysize": side, "compress": "deflate", "zlevel": 1, "bigtiff": "yes", "interleave": "band",
    }  # fmt: skip
    with rasterio.open(plain, "w", **profile) as dst:
        _describe(dst, planes, cube)
        pixels = [_as_stored(p, dtype, nodata) for p in planes]
        data = xr.concat(pixels, "_band", coords="minimal", compat="override").chunk(_band=-1).data
        with watched(progress, "write"):
            data.store(_Pixels(dst), lock=threading.Lock(), compute=False).compute(scheduler="threads")
    if overviews is None:
        overviews = "average" if all(p.is_continuous for p in planes) and dtype.kind != "c" else "nearest"
    how = {"cubic_spline": "cubicspline"}.get(overviews, overviews)
    rasterio.shutil.copy(
        plain, folder / "cog.tif", driver="COG", compress="deflate", predictor="no" if dtype.kind == "c" else "yes",
        overview_resampling=how, blocksize=side, bigtiff="if_safer", num_threads=str(os.cpu_count() or 1),
    )  # fmt: skip


def _as_stored(plane: Plane, dtype: np.dtype[Any], nodata: Any) -> xr.DataArray:
    data = plane.values.data.map_blocks(with_nodata, plane.nodata, dtype, nodata, dtype=dtype)
    return xr.DataArray(data, dims=plane.values.dims)


class _Pixels:
    """The file as dask writes to it: slices ``(band, y, x)``."""

    def __init__(self, dst: Any) -> None:
        self._dst = dst

    def __setitem__(self, key: Sequence[slice], values: Array) -> None:
        _, y, x = key
        self._dst.write(values, window=Window(x.start, y.start, x.stop - x.start, y.stop - y.start))


def _describe(dst: Any, planes: Sequence[Plane], cube: xr.Dataset) -> None:
    """Say what the bands are, where GDAL looks for it."""
    dst.scales, dst.offsets = [p.scale for p in planes], [p.offset for p in planes]
    dst.units = [None if p.unit == "1" else p.unit for p in planes]
    tags = {k: str(v) for k, v in cube.attrs.items() if isinstance(v, str | int | float)}
    tags |= {str(k): str(v.values) for k, v in cube.data_vars.items() if not v.dims}
    if "time" in cube.coords:
        tags["datetime"] = f"{np.datetime_as_string(cube['time'].values, unit='s')}Z"
    dst.update_tags(**tags)
    colours = []
    for i, plane in enumerate(planes, start=1):
        dst.set_band_description(i, plane.name)
        spectral = {"CENTRAL_WAVELENGTH_UM": plane.wavelength, "FWHM_UM": plane.width}
        dst.update_tags(i, ns="IMAGERY", **{k: f"{v:g}" for k, v in spectral.items() if v is not None})
        colours.append(ColorInterp[plane.colour] if plane.colour else ColorInterp.undefined)
    if {p.colour for p in planes} > {None} and len({p.colour for p in planes if p.colour}) == 3:
        dst.colorinterp = colours
