"""Embeddings that others wrote, held against their Item: the file, its shape and types, and all that it stores, read again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pystac

from stac_latent.aliases import Progress
from stac_latent.catalog.adopt.period import moments
from stac_latent.catalog.adopt.table_rows import described, is_adopted_table, parts_of
from stac_latent.cube.foreign_layout import layout_of
from stac_latent.cube.grid.tiling import tiles
from stac_latent.cube.item_assets import latent_assets
from stac_latent.cube.read.driver import open_cells
from stac_latent.cube.read.embedding.cells import PlainReader
from stac_latent.cube.read.embedding.table import TableReader, table_of
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError
from stac_latent.window import Window

__all__ = ["adopted_assets", "verify_adopted"]

_SIDE = 512
"""Cells along a side of what is read at a time."""
_SAMPLE = 64
"""Windows that are read, where not all of them are."""
_ODD = 100
"""Scales this many times the median are named."""


def adopted_assets(item: pystac.Item) -> list[str]:
    """Keys of the assets that others wrote: rasters, and tables in their producer's layout."""
    tables = [k for k, asset in item.assets.items() if is_adopted_table(asset)]
    rasters = [k for k in latent_assets(item) if k not in tables and _is_foreign(item, k)]
    return [*rasters, *tables]


def _is_foreign(item: pystac.Item, key: str) -> bool:
    try:
        return layout_of(item, key) is not None
    except CatalogError:
        return (
            True  # its scales or its quantisation are not those of a reader, which is told when it is checked
        )


def verify_adopted(
    item: pystac.Item, key: str, *, full: bool = False, progress: Progress | None = None
) -> list[str]:
    """What is wrong with an embedding of another producer.

    Its file is the one that was adopted, of the shape and type that the Item says, and decodes. There is no source that it
    could be compared with.

    Parameters
    ----------
    item, key
        The Item and its asset.
    full
        Read all of a raster; otherwise some windows of one of more than 64.
    progress
        Called with a label, the steps done and their number.

    Raises
    ------
    StacLatentError
        If it cannot be read, or is another file now.
    """
    if is_adopted_table(item.assets[key]):
        return list(_of_table(item, key))
    reader = open_cells(LatentRef.from_item(item, key))
    if not isinstance(reader, PlainReader) or isinstance(reader, TableReader):
        raise CatalogError(f"asset {key!r} of item {item.id!r} is no raster of another producer")
    windows = list(tiles(reader.grid.shape, (_SIDE, _SIDE)))
    if not full and len(windows) > _SAMPLE:
        windows = [windows[i] for i in np.linspace(0, len(windows) - 1, _SAMPLE).astype(int)]
    scales = []
    for i, window in enumerate(windows):
        reader.read_latent(window)
        scales += _largest(reader, window)
        if progress:
            progress("decode", i + 1, len(windows))
    return list(_odd_scales(scales))


def _largest(reader: PlainReader, window: Window) -> list[tuple[float, float, Window]]:
    """Median and largest scale of a window."""
    scale = reader.read_scales(window)
    if scale is None or not np.isfinite(scale).any():
        return []
    good = scale[np.isfinite(scale)]
    return [(float(np.median(good)), float(good.max()), window)]


def _odd_scales(scales: list[tuple[float, float, Window]]) -> Iterator[str]:
    if not scales:
        return
    usual = float(np.median([median for median, _, _ in scales]))
    odd = [(top, window) for _, top, window in scales if usual > 0 and top > _ODD * usual]
    if odd:
        top, ((y0, y1), (x0, x1)) = max(odd, key=lambda o: o[0])
        yield (
            f"a scale of {top:g} in rows {y0} to {y1}, columns {x0} to {x1} is more than {_ODD} times the usual {usual:g}; vectors there are "
            "far longer than others: ask its producer, or leave these cells out"
        )


def _of_table(item: pystac.Item, key: str) -> Iterator[str]:
    spec, layout = described(item, key)
    table = table_of(layout)
    fields: dict[str, Any] = item.assets[key].extra_fields
    said = item.properties.get("table:row_count", table.facts.rows)
    if said != table.facts.rows:
        yield f"{layout.href} has {table.facts.rows} rows, its item says {said}; adopt it again"
    clock = fields.get("latent:time_column")
    if clock is not None and clock not in dict(table.facts.columns):
        yield f"{layout.href} has no column {clock!r}, which its item names as that of the times; adopt it again"
        clock = None
    for part in parts_of(table, spec, layout, [clock] if clock else [], None, "keep"):
        if clock:
            moments(part.table[clock], f"{part.where}, column {clock!r}")
