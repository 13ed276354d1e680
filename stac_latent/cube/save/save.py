"""The verb ``save``: a cube to a Cloud-Optimized GeoTIFF, a NetCDF-4 file or a Zarr store, complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stac_latent.errors import CatalogError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SUFFIXES", "format_of", "save"]

SUFFIXES = {
    ".tif": "a Cloud-Optimized GeoTIFF for each date",
    ".tiff": "the same",
    ".nc": "NetCDF-4",
    ".zarr": "Zarr",
}
"""Endings of the files that a cube is written to."""

Progress = Callable[[str, int, int], Any]


def format_of(path: str | os.PathLike[str]) -> str:
    """The ending of a file's name, which says its format.

    Raises
    ------
    CatalogError
        If it is none of :data:`SUFFIXES`; the message lists them.

    Examples
    --------
    >>> format_of("scene.tif")
    '.tif'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise CatalogError(
            f"the output ends with .tif (Cloud-Optimized GeoTIFF), .nc (NetCDF-4) or .zarr; got {Path(path).name!r}"
        )
    return suffix


def save(
    cube: xr.Dataset | xr.DataArray,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    overviews: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a cube so that other tools read it with its meaning: scale, offset, unit, nodata and the names of bands.

    The cube is written piece by piece, so that one that is lazy (``chunks=``) never lies in memory as a whole. Values are written as they
    are in the cube: integers that :func:`stac_latent.load` gives as stored keep their ``scale_factor`` and ``add_offset``, with
    which GDAL, QGIS, ``xarray.open_dataset`` and ``xarray.open_zarr`` come to physical values.

    Parameters
    ----------
    cube
        What :func:`stac_latent.load` or ``xarray.open_dataset(engine="stac-latent")`` gives: variables ``(y, x)``, ``(time, y, x)`` or
        ``(time, channel, y, x)``.
    path
        Its ending is the format: ``.tif`` is a Cloud-Optimized GeoTIFF, ``.nc`` NetCDF-4, ``.zarr`` a Zarr v3 store. A GeoTIFF holds one
        date: several become several files, whose names end with the date.
    overwrite
        Replace what is there.
    overviews
        How overviews of a GeoTIFF are made, by GDAL's names: ``average``, ``nearest``, ``mode``, ... Left out, it is the average for numbers
        with a fraction or a scale, and the nearest pixel if any band has neither, as classes and flags.
    progress
        Called as ``progress(label, done, total)``.

    Returns
    -------
    list of Path
        What was written: one path, or one for each date.

    Raises
    ------
    CatalogError
        For another ending, a file that is there, what the format cannot hold, or a disk that is full.
    GridError
        If the cube has no CRS or no regular grid.

    Examples
    --------
    >>> import stac_latent
    >>> cube = stac_latent.load("item.json", asset="latent", chunks={"x": 1024, "y": 1024})  # doctest: +SKIP
    >>> stac_latent.save(cube, "scene.tif")  # doctest: +SKIP
    [PosixPath('scene.tif')]
    """
    suffix, out = format_of(path), Path(path)
    data = _as_dataset(cube)
    if overviews is not None and suffix not in (".tif", ".tiff"):
        raise CatalogError(f"overviews={overviews!r} is for GeoTIFF; {out.name!r} has none")
    if suffix in (".tif", ".tiff"):
        from stac_latent.cube.save.geotiff import dated, write_geotiffs

        parts = dated(data, out)
        _refuse_to_replace([out, *parts] if len(parts) == 1 else list(parts), overwrite=overwrite)
        write_geotiffs(parts, overviews, progress)
        return list(parts)
    from stac_latent.cube.save.arrays import write_netcdf, write_zarr

    _refuse_to_replace([out], overwrite=overwrite)
    (write_zarr if suffix == ".zarr" else write_netcdf)(data, out, progress)
    return [out]


def _as_dataset(cube: Any) -> xr.Dataset:
    import xarray as xr

    if isinstance(cube, xr.DataArray):
        cube = cube.to_dataset(name=cube.name or "values")
    if not isinstance(cube, xr.Dataset):
        raise CatalogError(f"save takes a Dataset or a DataArray; got {type(cube).__name__}")
    if not cube.data_vars:
        raise CatalogError("the cube has no variables; there is nothing to write")
    if empty := [str(k) for k, n in cube.sizes.items() if not n]:
        raise CatalogError(
            f"the cube has no pixels: {', '.join(empty)} of length 0; there is nothing to write. Select something that is there"
        )
    return cube


def _refuse_to_replace(paths: Sequence[Path], *, overwrite: bool) -> None:
    if (there := next((p for p in paths if os.path.lexists(p)), None)) is not None and not overwrite:
        raise CatalogError(
            f"{there} exists; pass overwrite=True (--overwrite) to replace it, or choose another name"
        )
    for path in paths:
        if path.is_dir() and not (path.suffix.lower() == ".zarr" and (path / "zarr.json").is_file()):
            raise CatalogError(
                f"{path} is a folder, and no Zarr v3 store that could be replaced; choose another name"
            )
