"""Bands of a codec to be fitted, as the Items describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pystac

from stac_latent.codec.codec import Codec
from stac_latent.cube.raw.asset_bands import assign, band_table
from stac_latent.cube.raw.source import SourceBand, find_bands
from stac_latent.errors import CatalogError
from stac_latent.spec import Band
from stac_latent.stages.lin.grids import Lattices
from stac_latent.stages.lin.pyramid import Pyramid
from stac_latent.stages.transform.normalise import Normalise

__all__ = ["choose_bands", "stand_in"]

_MAX_BANDS = 400


def stand_in(
    bands: Sequence[Band], name: str = "fit", lattices: Lattices | None = None, *, untyped: bool = False
) -> Codec:
    """A chain of these bands with cells of one pixel, for readers that take a codec before there is one.

    With lattices, for bands of several native grids, cells are those of ``lin``. Types and nodata of untyped bands are those
    of the source.
    """
    n = len(bands)
    first = Normalise([0.0] * n, [1.0] * n)
    stages = (first,) if lattices is None else (first, Pyramid(lattices))
    names = frozenset(b.name for b in bands) if untyped else frozenset()
    return Codec(name, stages, tuple(bands), untyped=names)


def choose_bands(
    items: Sequence[pystac.Item], names: Sequence[str] | None, keys: Mapping[str, str] | None = None
) -> tuple[tuple[Band, ...], list[pystac.Item]]:
    """Bands in the unit and type that the Items store them in, and the Items that have them.

    Parameters
    ----------
    items
        At least one.
    names
        As :func:`stac_latent.cube.raw.source.find_bands` looks for them; None: all bands of the first Item that are data.
    keys
        Asset keys by name, where names would not be found.

    Raises
    ------
    CatalogError
        If no Item has all of them.
    """
    wanted = list(names) if names is not None else _all_names(items[0])
    if len(set(wanted)) < len(wanted):
        raise CatalogError(f"bands {', '.join(wanted)}: a name comes twice; name each band once")
    if not 1 <= len(wanted) <= _MAX_BANDS:
        raise CatalogError(
            f"{len(wanted)} bands are asked for; a codec has 1 to {_MAX_BANDS}: name some with bands="
        )
    probe = stand_in([Band(n) for n in wanted], untyped=True)
    usable, found, problem = [], [], None
    for item in items:
        try:
            assign(item, probe.bands, probe.name, keys)
        except CatalogError as exc:
            problem = problem or exc
        else:
            usable.append(item)
            found.append(find_bands(item, probe, keys))
    if not usable:
        raise CatalogError(
            f"none of {len(items)} item(s) has all of the bands {', '.join(wanted)}: {problem}; "
            f"in fit the pairs are keys= (--bands {wanted[0]}=key)"
        ) from problem
    return tuple(_band(i, usable[0], found) for i in range(len(wanted))), usable


def _all_names(item: pystac.Item) -> list[str]:
    """Names of all bands of the data assets; odc-stac's where bands share a name or have none."""
    table = [e for e in band_table(item) if e["kind"] == "data" and _is_data(item.assets[e["asset"]])]
    if not table:
        raise CatalogError(
            f"item {item.id!r} has no raster asset of data; name the bands with bands=, or choose other items"
        )
    own = [e["names"][1] for e in table]
    return [
        str(n) if n and own.count(n) == 1 else str(e["names"][0]) for n, e in zip(own, table, strict=True)
    ]


def _is_data(asset: pystac.Asset) -> bool:
    roles = set(asset.roles or [])
    return not roles or bool(roles & {"data", "reflectance", "analytic"})


def _band(i: int, item: pystac.Item, found: Sequence[Sequence[SourceBand]]) -> Band:
    """Band ``i``, described as in the first Item; its type holds the values of all Items."""
    hit = found[0][i]
    entry = next(e for e in band_table(item) if (e["asset"], e["index"]) == (hit.asset, hit.index))
    types = {np.dtype(bands[i].facts.data_type) for bands in found}
    dtype = types.pop() if len(types) == 1 else np.result_type(*types)
    fields: Mapping[str, Any] = {**item.assets[hit.asset].extra_fields, **entry["meta"]}
    scale, offset = hit.decoded.scale, hit.decoded.offset
    if dtype.kind == "f":
        scale, offset = 1.0, 0.0  # floats are read in their physical unit
    gsd = fields.get("gsd", item.properties.get("gsd"))
    return replace(
        hit.decoded,
        data_type=dtype.name,
        nodata=None if dtype.kind == "f" else hit.decoded.nodata,  # NaN is without data in any case
        scale=scale,
        offset=offset,
        gsd=None if gsd is None else float(gsd),
    )
