"""Properties of Items along the time steps of a cube, as ``odc.stac.load(with_properties=)`` gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pystac
import xarray as xr
from odc.loader.types import AuxBandMetadata, AuxDataSource, AuxLoadParams
from odc.stac.model import PropertyLoadRequest

from stac_latent.cube.band_names import RESERVED
from stac_latent.cube.odc_private import StacAuxReader
from stac_latent.errors import CatalogError

__all__ = ["Bins", "Properties", "property_requests", "property_variables"]

Properties = Sequence[str | Mapping[str, Any]] | None
"""Names of properties, or what ``odc.stac.load`` takes for one: ``{"key": ..., "name": ..., "dtype": ...}``."""
Bins = Mapping[tuple[int, int, int], Sequence[int]]
"""Positions of the Items that reach each tile (time, y, x)."""


def property_requests(wanted: Properties) -> list[PropertyLoadRequest]:
    """Read what was asked for.

    Parameters
    ----------
    wanted
        As of :func:`stac_latent.load`.

    Raises
    ------
    CatalogError
        If it is not of that form, or a variable would have the name of another.
    """
    if isinstance(wanted, str | Mapping):
        wanted = [wanted]
    try:
        requests = PropertyLoadRequest.from_user_input(
            [dict(w) if isinstance(w, Mapping) else w for w in wanted or ()]
        )
        names = [r.output_name for r in requests]
        _ = [r.fill_value for r in requests]
    except (TypeError, ValueError, AttributeError) as exc:
        raise CatalogError(
            f"with_properties={wanted!r:.200} cannot be read ({exc}); expected names of properties, or mappings with key, and name, dtype, "
            "nodata, units or fuser, as odc.stac.load takes them"
        ) from exc
    if taken := [n for n in names if n in RESERVED]:
        raise CatalogError(
            f"with_properties= gives a variable {taken[0]!r}, as a coordinate or variable of every cube is called; give it another name: "
            f"{{'key': ..., 'name': '{taken[0]}_of_item'}}"
        )
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise CatalogError(
            f"with_properties= gives two variables {twice[0]!r}; give one of them another name: {{'key': ..., 'name': ...}}"
        )
    return requests


def property_variables(
    items: Sequence[pystac.Item], requests: Sequence[PropertyLoadRequest], bins: Bins, time: xr.DataArray
) -> dict[str, xr.DataArray]:
    """One variable along time for each property, of the Items of a time step that reach the cube.

    Parameters
    ----------
    items
        All Items, in the order that they were given.
    requests
        What to take of them.
    bins
        Which of them are read where.
    time
        Coordinate of the time steps.

    Raises
    ------
    CatalogError
        If values are not of the type that was asked for.
    """
    steps: list[set[int]] = [set() for _ in range(time.size)]
    for (t, _, _), members in bins.items():
        steps[t].update(members)
    out = {}
    for request in requests:
        meta = AuxBandMetadata(request.dtype, nodata=request.nodata, units=request.units, driver_data=request)
        cfg = AuxLoadParams(dtype=request.dtype, fill_value=request.nodata, meta=meta)
        values = [[items[i].properties.get(request.key) for i in sorted(members)] for members in steps]
        if np.dtype(request.dtype).kind in "iub":  # which have no None
            values = [[v for v in row if v is not None] for row in values]
        sources = [[AuxDataSource("", driver_data=v) for v in row] for row in values]
        try:
            out[request.output_name] = StacAuxReader().read(sources, cfg, set(), {"time": time}, None)
        except (TypeError, ValueError, OverflowError) as exc:
            some = next((v for row in values for v in row if v is not None), None)
            fitting = "U" if isinstance(some, str) else "object"
            raise CatalogError(
                f"property {request.key!r} is {some!r:.60} in an item, and no {request.dtype} ({exc}); say its type: "
                f"with_properties=[{{'key': {request.key!r}, 'dtype': {fitting!r}}}]"
            ) from exc
    return out
