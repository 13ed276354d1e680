"""Cubes in pieces: chunks that fit in memory, and how much of them is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from dask.callbacks import Callback
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from stac_latent.errors import CatalogError, GridError

__all__ = ["check_derived", "geobox_of", "in_pieces", "watched"]

_SIDE, _LEAST = 1024, 128
_BYTES = 64 << 20
_FEW, _OFF = 3, 0.25
"""Coordinates that say how evenly they are spaced, and the share of a pixel that they may be off."""


def in_pieces(cube: xr.Dataset) -> xr.Dataset:
    """The cube with chunks of one date and at most :data:`_BYTES`, in which it is read and written.

    Parameters
    ----------
    cube
        Variables ``(..., y, x)``, lazy or in memory.
    """
    y, x = geobox_of(cube).dimensions
    per_pixel = max((_pixel_bytes(v, (y, x)) for v in cube.data_vars.values()), default=1)
    side = _SIDE
    while side > _LEAST and side * side * per_pixel > _BYTES:
        side //= 2
    sizes = {d: side if d in (y, x) else 1 if d == "time" else -1 for d in cube.dims}
    return cube.chunk({d: n for d, n in sizes.items() if any(d in v.dims for v in cube.data_vars.values())})


def geobox_of(cube: xr.Dataset) -> GeoBox:
    """The grid of the cube's pixels or cells.

    Raises
    ------
    GridError
        If it has no CRS, or rows and columns are not evenly spaced.
    """
    box = cube.odc.geobox
    if not isinstance(box, GeoBox) or box.crs is None:
        raise GridError(
            "the cube has no CRS, or no evenly spaced rows and columns, so no file can say where it lies; keep the coordinates y, x and "
            "spatial_ref that load gives"
        )
    even = xr_coords(box)
    for dim in box.dimensions:  # odc-geo looks at the first two only
        there = cube[dim].values if dim in cube.coords else None
        if there is None or len(there) < _FEW:
            continue
        off = np.abs(there.astype(np.float64) - even[dim].values) > _OFF * abs(
            float(there[1]) - float(there[0])
        )
        if off.any():
            at = int(np.flatnonzero(off)[0])
            raise GridError(
                f"the cube's {dim} are not evenly spaced: number {at} is {there[at]:.10g}, and the step of the first two leads to "
                f"{even[dim].values[at]:.10g}. No file can say where such pixels lie; take a slice, as cube.isel({dim}=slice(0, 100, 2)), or "
                "load onto a regular grid"
            )
    return box


def check_derived(cube: xr.Dataset) -> None:
    """Refuse numbers that were made of stored ones and still carry their scale, as ``(nir - red) / (nir + red)`` does.

    Raises
    ------
    CatalogError
        If a variable has the scale or nodata value of a type that it is not of.
    """
    for name, variable in cube.data_vars.items():
        fill = variable.attrs.get("_FillValue")
        kind = np.asarray(fill).dtype.kind if fill is not None else ""
        scaled = "scale_factor" in variable.attrs or "add_offset" in variable.attrs
        if scaled and kind in "iu" and kind and variable.dtype.kind == "f":
            raise CatalogError(
                f"variable {name!r} is {variable.dtype} and carries the scale of {np.asarray(fill).dtype} values: it was computed from "
                "stored values, and that scale is not its own. Load with physical=True before you compute, or remove its attributes "
                "(variable.attrs = {})"
            )


@contextmanager
def watched(progress: Callable[[str, int, int], Any] | None, label: str) -> Iterator[None]:
    """Report the chunks that dask has written within the block."""
    if progress is None:
        yield
        return
    done = total = 0

    def begin(_graph: Any, state: Any) -> None:
        nonlocal total
        total += len(state["waiting"]) + len(state["ready"])

    def step(*_: Any) -> None:
        nonlocal done
        done += 1
        progress(label, min(done, total), total)

    with Callback(start_state=begin, posttask=step):  # type: ignore[no-untyped-call]
        yield


def _pixel_bytes(variable: xr.DataArray, spatial: tuple[str, str]) -> int:
    others = (n for d, n in variable.sizes.items() if d not in (*spatial, "time"))
    return variable.dtype.itemsize * math.prod(others)
