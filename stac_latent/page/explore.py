"""The verb ``explore``: Items on a lonboard map, in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pystac

from stac_latent.cube.item_assets import as_items
from stac_latent.errors import CatalogError
from stac_latent.page.colours import shade
from stac_latent.page.facts import MEASURES, shown_asset, text, values_of
from stac_latent.page.shapes import footprint
from stac_latent.system.suggest import known_options

__all__ = ["explore"]


@known_options()
def explore(
    items: pystac.Item | Iterable[pystac.Item], *, asset: str | None = None, measure: str | None = None
) -> Any:
    """Footprints of Items on an interactive map for notebooks, coloured by quality or rate.

    Needs lonboard, of the extra ``viz``. :func:`stac_latent.write_map` makes a page that needs nothing.

    Parameters
    ----------
    items
        Items with or without latents; those without a footprint in degrees are left out.
    asset
        Key of the latent asset whose values are shown; needed where Items have several that decode, none of them
        named ``latent``.
    measure
        ``"psnr"``, ``"bits_per_pixel"``, ``"max_error"`` or ``"sam"``; by default the first that any Item has.

    Returns
    -------
    lonboard.Map
        One polygon layer; a click shows an Item's values.

    Raises
    ------
    CatalogError
        If lonboard is not installed, no Item has a footprint, or none has the measure.

    Examples
    --------
    >>> explore(search("catalog.json", kind="codec"), measure="bits_per_pixel")  # doctest: +SKIP
    """
    found = as_items(items, "show")
    keys = [shown_asset(item, asset) for item in found]
    values = np.array(
        [[np.nan if v is None else v for v in values_of(i, k)] for i, k in zip(found, keys, strict=True)]
    )
    column = _column(values, measure)
    shapes = [footprint(item) for item in found]
    placed = np.array([s is not None for s in shapes])
    if not placed.any():
        raise CatalogError(f"none of {len(found)} items has a footprint in longitude and latitude to map")
    import geopandas

    rows: dict[str, Any] = {
        "id": [text(i.id) for i in found],
        "collection": [text(i.collection_id) for i in found],
    }
    rows["datetime"] = [
        text(i.properties.get("datetime") or i.properties.get("start_datetime")) for i in found
    ]
    rows |= {m.name: values[:, n] for n, m in enumerate(MEASURES) if np.isfinite(values[:, n]).any()}
    frame = geopandas.GeoDataFrame(rows, geometry=shapes, crs="OGC:CRS84")[placed]
    lonboard = _lonboard()
    layer = lonboard.PolygonLayer.from_geopandas(
        frame,
        auto_downcast=False,
        get_fill_color=shade(values[placed, column], 180),
        get_line_color=[40, 48, 56, 200],
        line_width_min_pixels=1,
        auto_highlight=True,
    )
    return lonboard.Map(layer)


def _column(values: np.ndarray[Any, np.dtype[np.float64]], measure: str | None) -> int:
    """Position of the measure to colour by."""
    there = np.isfinite(values).any(axis=0)
    if measure is None:
        return int(there.argmax())
    names = [m.name for m in MEASURES]
    if measure not in names:
        raise CatalogError(f"measure={measure!r} is unknown; it is one of {', '.join(names)}")
    if not there[names.index(measure)]:
        raise CatalogError(
            f"no item has a value of {measure!r}; these have values: "
            f"{', '.join(n for n, t in zip(names, there, strict=True) if t) or 'none'}"
        )
    return names.index(measure)


def _lonboard() -> Any:
    try:
        import lonboard
    except ImportError as exc:
        raise CatalogError(
            f"explore needs lonboard, which cannot be imported ({exc}): pip install 'stac-latent[viz]'; stac_latent.write_map "
            "makes a page without it"
        ) from exc
    return lonboard
