"""The verb ``load_table``: vectors of Items as one table, dequantised, of one space, whoever published them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import pystac

from stac_latent.catalog.adopt.table_rows import described, parts_of
from stac_latent.catalog.publish.inputs import region_of
from stac_latent.cube.foreign_layout import Layout, is_table
from stac_latent.cube.item_assets import as_items
from stac_latent.cube.read.embedding.table import table_of
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.spec import Spec
from stac_latent.store.embeddings import BBox
from stac_latent.store.foreign.table import Invalid
from stac_latent.system.suggest import known_options

if TYPE_CHECKING:
    import geopandas

__all__ = ["load_table", "table_assets"]


def table_assets(item: pystac.Item) -> list[str]:
    """Keys of an Item's tables of vectors."""
    return [
        k
        for k, a in item.assets.items()
        if a.extra_fields.get("latent:kind") is not None and is_table({"type": a.media_type})
    ]


@known_options()
def load_table(
    items: pystac.Item | Iterable[pystac.Item],
    columns: Sequence[str] | None = None,
    *,
    asset: str | None = None,
    bbox: BBox | None = None,
    intersects: Any = None,
    invalid: Invalid = "raise",
) -> geopandas.GeoDataFrame:
    """Load the tables of vectors of Items that share a space as one GeoDataFrame.

    Parameters
    ----------
    items
        Items of :func:`stac_latent.publish` or :func:`stac_latent.adopt` with a table.
    columns
        Other columns to read; by default all that are no part of the vector or its place.
    asset
        Key of the table, where an Item has several.
    bbox, intersects
        Only rows whose geometry touches it: west, south, east, north in degrees (west > east crosses the antimeridian), or
        a geometry in longitude and latitude.
    invalid
        What happens to rows without a vector, with NaN or infinite numbers, or of zeros alone: ``raise``, ``drop`` or ``keep``.

    Returns
    -------
    geopandas.GeoDataFrame
        ``vector`` holds float32 arrays, dequantised; ``item_id`` the Item; ``geometry`` in OGC:CRS84.
        ``attrs["latent"]`` has the ``latent:space`` that all share, and ``latent:dimensions``.

    Raises
    ------
    CatalogError
        If an Item has no table, or the Items are of several spaces.
    CorruptDataError
        If vectors are ragged, or not sound and ``invalid`` is ``raise``; the message names file and row.
    """
    import geopandas
    import pandas as pd

    if invalid not in get_args(Invalid):
        raise CatalogError(f"invalid={invalid!r}; expected 'raise', 'drop' or 'keep'")
    chosen = [(i, *_chosen(i, asset)) for i in as_items(items, "load")]
    _one_space(chosen)
    region = region_of(bbox, intersects)
    parts = [_read(item, spec, layout, columns, region, invalid) for item, spec, layout in chosen]
    found = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    out = geopandas.GeoDataFrame(found, geometry="geometry", crs="OGC:CRS84")
    first = chosen[0][1]
    out.attrs["latent"] = {"latent:space": first.space, "latent:dimensions": first.dimensions}
    return out


def _chosen(item: pystac.Item, asset: str | None) -> tuple[Spec, Layout]:
    keys = table_assets(item)
    if asset is not None and asset in keys:
        keys = [asset]
    if len(keys) != 1:
        what = "several tables of vectors" if len(keys) > 1 else "no table of vectors"
        hint = (
            f"{', '.join(keys)}; choose with asset="
            if len(keys) > 1
            else f"assets: {', '.join(item.assets) or 'none'}; rasters load with load()"
        )
        raise CatalogError(f"item {item.id!r} has {what} ({hint})")
    return described(item, keys[0])


def _one_space(chosen: Sequence[tuple[pystac.Item, Spec, Layout]]) -> None:
    spaces: dict[str, list[str]] = {}
    for item, spec, _ in chosen:
        spaces.setdefault(spec.space, []).append(item.id)
    if len(spaces) > 1:
        listing = "; ".join(f"{space} (items {', '.join(ids[:5])})" for space, ids in spaces.items())
        raise CatalogError(
            f"vectors of {len(spaces)} spaces cannot be compared, so they cannot share a table: {listing}; load each apart"
        )


def _read(
    item: pystac.Item,
    spec: Spec,
    layout: Layout,
    columns: Sequence[str] | None,
    region: Any,
    invalid: Invalid,
) -> Any:
    import pandas as pd

    table = table_of(layout)
    names = [n for n, _ in table.facts.columns]
    own = {*table.vector_columns, *table.place_columns, "vector", "geometry", "bbox", "item_id"}
    wanted = [n for n in names if n not in own] if columns is None else list(columns)
    if unknown := [c for c in wanted if c not in names]:
        raise CatalogError(f"{table.href} has no columns {', '.join(unknown)}; it has {', '.join(names)}")
    frames = []
    for part in parts_of(table, spec, layout, wanted, region, invalid):
        rows = pd.RangeIndex(len(part.rows))  # a table without columns has no rows
        frame = part.table.select(wanted).take(part.rows).to_pandas() if wanted else pd.DataFrame(index=rows)
        frame["item_id"] = item.id
        frame["vector"] = list(part.values)
        frame["geometry"] = part.shapes
        frames.append(frame)
    if not frames:
        raise CorruptDataError(f"{table.href} has no rows")
    filled = [f for f in frames if len(f)] or frames[:1]
    return pd.concat(filled, ignore_index=True) if len(filled) > 1 else filled[0]
