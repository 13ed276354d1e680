"""The bands of a GeoTIFF: what GDAL keeps of each of them, and the one type and nodata value that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from stac_latent.aliases import Array
from stac_latent.errors import CatalogError

__all__ = ["Plane", "planes_of", "shared_nodata", "shared_type", "with_nodata"]

_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class Plane:
    """One band of a file: its pixels ``(y, x)``, and what it is called and measured in."""

    name: str
    values: xr.DataArray
    nodata: complex | float | None
    scale: float
    offset: float
    unit: str | None
    colour: str | None
    """``red``, ``green`` or ``blue``."""
    wavelength: float | None
    """Its centre in micrometres."""
    width: float | None
    """Full width at half maximum, in micrometres."""

    @property
    def is_continuous(self) -> bool:
        """Whether the mean of two values means something: numbers with a fraction or a scale, and channels of a spectrum."""
        spectral = self.colour is not None or self.wavelength is not None
        return self.values.dtype.kind == "f" or (self.scale, self.offset) != (1.0, 0.0) or spectral


def planes_of(cube: xr.Dataset, spatial: tuple[str, str]) -> list[Plane]:
    """Bands of one date: a variable ``(y, x)`` is one, one with channels has a band for each, and one without pixels none.

    Raises
    ------
    CatalogError
        If a variable has other dimensions.
    """
    planes = []
    for name, variable in cube.data_vars.items():
        others = [d for d in variable.dims if d not in spatial]
        if not variable.dims:
            continue
        if len(others) > 1 or not set(spatial) <= set(variable.dims):
            raise CatalogError(
                f"variable {name!r} has the dimensions {tuple(variable.dims)}; a GeoTIFF holds {spatial} and channels of one more "
                "dimension: write a .nc or a .zarr"
            )
        ordered = variable.transpose(*others, *spatial)
        if not others:
            planes.append(_plane(str(name), ordered))
            continue
        labels = ordered[others[0]].values
        planes += [_plane(f"{name} {at}", ordered[i]) for i, at in enumerate(labels)]
    return planes


def _plane(name: str, values: xr.DataArray) -> Plane:
    attrs = values.attrs
    nodata = next((attrs[k] for k in ("_FillValue", "nodata") if k in attrs), None)
    if nodata is None and values.dtype.kind in "fc":
        nodata = math.nan
    colour = attrs.get("eo:common_name")
    return Plane(
        name, values, nodata, float(attrs.get("scale_factor", 1.0)), float(attrs.get("add_offset", 0.0)),
        attrs.get("units"), colour if colour in _COLOURS else None, attrs.get("eo:center_wavelength"),
        attrs.get("eo:full_width_half_max"),
    )  # fmt: skip


def shared_type(planes: Sequence[Plane]) -> np.dtype[Any]:
    """The smallest type of a GeoTIFF that holds the values of all bands.

    Raises
    ------
    CatalogError
        If there is none.
    """
    kinds = {p.values.dtype for p in planes}
    dtype = np.dtype(np.uint8) if kinds == {np.dtype(bool)} else np.result_type(*kinds)
    if dtype == np.float16:
        return np.dtype(np.float32)
    wide = [d for d in kinds if d.kind in "iu" and d.itemsize == 8]
    if dtype.kind not in "iufc" or (wide and dtype.kind not in "iu"):
        raise CatalogError(
            f"a GeoTIFF holds numbers of one type, and the bands are of {', '.join(sorted(map(str, kinds)))}: write a .nc or a .zarr, or "
            "give one dtype="
        )
    return dtype


def shared_nodata(
    planes: Sequence[Plane], dtype: np.dtype[Any]
) -> tuple[np.dtype[Any], complex | float | None]:
    """One nodata value for all bands, and the type that holds it.

    Where bands have others, or only some have one, it is a value that no band can hold: NaN of floats, and the least int32 for
    integers of 16 bits.

    Raises
    ------
    CatalogError
        If integers have 32 bits or more, so that there is no such value.
    """
    kinds = {"nan" if p.nodata is not None and np.isnan(p.nodata) else p.nodata for p in planes}
    if len(kinds) == 1:
        return dtype, planes[0].nodata
    if dtype.kind in "fc":
        return dtype, math.nan
    if dtype.itemsize <= 2:
        return np.dtype(np.int32), int(np.iinfo(np.int32).min)
    listed = ", ".join(f"{p.name}: {'none' if p.nodata is None else f'{p.nodata:g}'}" for p in planes)
    raise CatalogError(
        f"a GeoTIFF has one nodata value for all bands, and these have several ({listed}): write a .nc or a .zarr, the bands one by one, "
        "or load with physical=True (--physical)"
    )


def with_nodata(values: Array, own: complex | None, dtype: np.dtype[Any], shared: Any) -> npt.NDArray[Any]:
    """Values in the file's type, those without data marked by the file's nodata value."""
    out = values.astype(dtype, copy=False)
    if own is None or shared is None or own == shared or (np.isnan(own) and np.isnan(shared)):
        return out
    empty = np.isnan(values) if np.isnan(own) else values == own
    return np.where(empty, dtype.type(shared), out)
