"""Cubes to NetCDF-4 and Zarr, by the CF conventions."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.errors import UnstableSpecificationWarning, ZarrUserWarning

from stac_latent.cube.save.pieces import check_derived, geobox_of, in_pieces, watched
from stac_latent.errors import CatalogError
from stac_latent.system.files import replacing, replacing_folder, writing

__all__ = ["write_netcdf", "write_zarr"]

_CHUNK = 512
Progress = Callable[[str, int, int], Any]


def write_netcdf(cube: xr.Dataset, path: Path, progress: Progress | None = None) -> None:
    """Write NetCDF-4, compressed.

    Raises
    ------
    CatalogError
        If there are complex numbers, which NetCDF has not.
    """
    if pairs := [str(k) for k, v in cube.data_vars.items() if v.dtype.kind == "c"]:
        raise CatalogError(
            f"NetCDF holds no complex numbers, as {', '.join(pairs)} has; write a .zarr or a .tif"
        )
    if importlib.util.find_spec("h5py") is None:
        raise CatalogError(
            "NetCDF-4 is written by h5py, which is not installed: pip install h5py, or write a .zarr or a .tif"
        )
    ready = _conventional(cube)
    for attrs in (ready.attrs, *(v.attrs for v in ready.variables.values())):
        attrs |= {k: json.dumps(v, default=str) for k, v in attrs.items() if not _is_plain(v)}
    halves = {k: v.astype("float32") for k, v in ready.data_vars.items() if v.dtype == np.float16}
    ready = ready.assign(halves)
    encoding = {
        k: {"zlib": True, "complevel": 4, "shuffle": True, "chunksizes": chunk, **ready[k].encoding}
        for k, chunk in _chunks(ready).items()
    }
    with writing(path), replacing(path, parents=True) as part, watched(progress, "write"):
        ready.to_netcdf(part, engine="h5netcdf", encoding=encoding)


def write_zarr(cube: xr.Dataset, path: Path, progress: Progress | None = None) -> None:
    """Write a Zarr v3 store, whose metadata is gathered in one document."""
    ready = _conventional(cube)
    encoding = {k: {"chunks": chunk, **ready[k].encoding} for k, chunk in _chunks(ready).items()}
    for name, variable in ready.data_vars.items():
        if "_FillValue" in variable.attrs:
            encoding[name]["fill_value"] = variable.attrs["_FillValue"]
    with writing(path), replacing_folder(path) as part, watched(progress, "write"), warnings.catch_warnings():
        # consolidated metadata is not yet part of the v3 text, and every reader knows it
        warnings.simplefilter("ignore", ZarrUserWarning)
        warnings.simplefilter(
            "ignore", UnstableSpecificationWarning
        )  # nor is the type of texts, as properties along time are
        ready.to_zarr(part, mode="w", zarr_format=3, consolidated=True, encoding=encoding)


def _conventional(cube: xr.Dataset) -> xr.Dataset:
    """The cube in pieces, with the attributes that readers of CF find grids by, and no encoding of where it came from."""
    check_derived(cube)
    if groups := [str(k) for k in cube.variables if "/" in str(k)]:
        raise CatalogError(
            f"variable {groups[0]!r} has a '/' in its name, which NetCDF and Zarr take for a group, so that no reader would find it; rename "
            f"it: cube.rename({{{groups[0]!r}: {groups[0].replace('/', '_')!r}}})"
        )
    box = geobox_of(cube)
    if cube.odc.grid_mapping is None:
        cube = cube.odc.assign_crs(box.crs)
    mapping = cube.odc.grid_mapping
    out = in_pieces(cube).drop_encoding()
    out.attrs = {"Conventions": "CF-1.11"} | cube.attrs
    geographic = bool(box.crs and box.crs.geographic)
    names = (
        ("latitude", "longitude") if geographic else ("projection_y_coordinate", "projection_x_coordinate")
    )
    for dim, name, axis in zip(box.dimensions, names, "YX", strict=True):
        if dim in out.coords:
            out[dim].attrs |= {"standard_name": name, "axis": axis}
    for variable in out.data_vars.values():
        if "grid_mapping" not in variable.attrs:
            variable.encoding["grid_mapping"] = mapping
        if "_FillValue" in variable.attrs:  # says it already, in the files' own way
            variable.attrs.pop("nodata", None)
        if variable.dtype == bool:  # neither format has a third value
            variable.attrs.pop("_FillValue", None)
        elif "_FillValue" in variable.attrs:
            variable.attrs["_FillValue"] = _of_type(variable)
    return out


def _of_type(variable: xr.DataArray) -> Any:
    """The nodata value of a variable in its own type, as both formats want it."""
    given = np.asarray(variable.attrs["_FillValue"])
    with np.errstate(all="ignore"):
        own = given.astype(variable.dtype)
    if given.shape or not (own == given or (own != own and given != given)):  # noqa: PLR0124
        raise CatalogError(
            f"variable {variable.name!r} is {variable.dtype}, and its nodata value {variable.attrs['_FillValue']!r} is none of that type; "
            "give it one that is (variable.attrs['_FillValue'] = ...), or remove that attribute"
        )
    return own[()]


def _is_plain(value: Any) -> bool:
    """Whether NetCDF has attributes of this kind: texts, numbers, and lists of either."""
    if isinstance(value, str | bytes | np.ndarray | np.generic):
        return True
    if isinstance(value, list | tuple):
        return len({isinstance(v, str) for v in value}) == 1 and all(
            not isinstance(v, list | tuple) and _is_plain(v) for v in value
        )
    return isinstance(value, int | float) and not isinstance(value, bool)


def _chunks(cube: xr.Dataset) -> dict[Any, tuple[int, ...]]:
    """Stored chunks, which divide those that are written at once."""
    return {k: tuple(min(_CHUNK, chunk[0]) for chunk in v.chunks or ()) for k, v in cube.data_vars.items()}
