"""Tables of vectors as their producers wrote them: sound vectors, their places and their times, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pystac
import shapely

from stac_latent.catalog.adopt.period import moments
from stac_latent.catalog.publish.rows import Rows
from stac_latent.cube.foreign_layout import Layout, layout_of
from stac_latent.cube.read.embedding.cells import check_scales
from stac_latent.cube.read.embedding.table import dequantised, in_lonlat, table_of
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.spec import Spec
from stac_latent.store.foreign.table import Invalid, VectorTable, sound_vectors

__all__ = ["Part", "described", "is_adopted_table", "parts_of", "rows_of_table"]

_WORLD = np.array([-180.0, -90.0, 180.0, 90.0])


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one row group; n of them are kept."""

    table: pa.Table
    """All rows of the group, in the columns that were asked for."""
    rows: npt.NDArray[np.int64]
    """(n,) positions in ``table``."""
    first: int
    """Number of the group's first row in the file."""
    values: npt.NDArray[np.float32]
    """(n, channel), dequantised."""
    shapes: npt.NDArray[np.object_]
    """(n,) in OGC:CRS84."""
    where: str
    """Named in errors."""


def is_adopted_table(asset: pystac.Asset) -> bool:
    """Whether an asset is a table as its producer wrote it; tables of :func:`stac_latent.publish` have one layout, and do not state it."""
    return "parquet" in (asset.media_type or "") and bool(asset.extra_fields.get("latent:columns"))


def described(item: pystac.Item, key: str) -> tuple[Spec, Layout]:
    """Contract and layout of a table.

    Raises
    ------
    CatalogError
        If the asset is no embedding.
    """
    layout = layout_of(item, key)
    if layout is None:
        raise CatalogError(
            f"asset {key!r} of item {item.id!r} is no embedding: only vectors of kind 'embedding' load as a table"
        )
    return Spec.from_fields(item.assets[key].extra_fields), layout


def parts_of(
    table: VectorTable, spec: Spec, layout: Layout, columns: Sequence[str], region: Any, invalid: Invalid
) -> Iterator[Part]:
    """Rows of a table, one row group at a time.

    Parameters
    ----------
    table, spec, layout
        What is read.
    columns
        Other columns than those of vectors and places.
    region
        Only rows that touch it, in OGC:CRS84; None for all.
    invalid
        What happens to rows without a sound vector; see :func:`~stac_latent.store.foreign.table.sound_vectors`.

    Raises
    ------
    CorruptDataError
        If vectors are ragged, or not sound and ``invalid`` is ``raise``; the message names file and row.
    """
    first = 0
    for number, group in enumerate(table.groups([*columns, *table.vector_columns, *table.place_columns])):
        where = f"{table.href}, row group {number}"
        values = table.vectors(group, spec.dimensions)
        if table.scale:
            check_scales(group[table.scale].to_numpy(), where)
        values = dequantised(values, spec, layout)
        shapes = in_lonlat(table, table.shapes(group))
        keep = (
            np.ones(len(values), bool) if region is None else np.asarray(shapely.intersects(shapes, region))
        )
        inside = np.flatnonzero(keep)
        inside = inside[sound_vectors(values[inside], invalid, where)]
        yield Part(group, inside, first, values[inside], shapes[inside], where)
        first += group.num_rows


def rows_of_table(item: pystac.Item, key: str, region: Any, invalid: Invalid) -> Iterator[Rows]:
    """Rows to publish of an adopted table: one for each of its own, numbered as they are in the file.

    Parameters
    ----------
    item, key
        The Item and its table.
    region, invalid
        As in :func:`parts_of`. Rows without a place are left out with ``drop``, and an error otherwise.

    Raises
    ------
    CatalogError, CorruptDataError
        If the table cannot be read, is not as the Item says, or is longer than 2^31 - 1 rows.
    """
    spec, layout = described(item, key)
    table = table_of(layout)
    if table.facts.rows >= 1 << 31:
        raise CatalogError(
            f"{table.href} has {table.facts.rows:,} rows; at most 2,147,483,647 can be numbered: split it"
        )
    clock = item.assets[key].extra_fields.get("latent:time_column")
    if clock is not None and clock not in dict(table.facts.columns):
        raise CorruptDataError(
            f"{table.href} has no column {clock!r}, which its item names as that of the times; adopt it again"
        )
    for part in parts_of(table, spec, layout, [clock] if clock else [], region, invalid):
        fine = _placed(part, invalid)
        rows = part.rows[fine]
        if not len(rows):
            continue
        shapes = shapely.orient_polygons(shapely.force_2d(part.shapes[fine]))
        time = (
            moments(part.table[clock].take(pa.array(rows)), f"{part.where}, column {clock!r}")
            if clock
            else None
        )
        number = (part.first + rows).astype(np.int32)
        whole = np.ones(len(rows), np.float32)
        yield Rows(number, np.zeros_like(number), whole, part.values[fine], shapes, time)


def _placed(part: Part, invalid: Invalid) -> npt.NDArray[np.bool_]:
    """Which rows lie on the Earth."""
    bounds = shapely.bounds(part.shapes)
    fine = np.isfinite(bounds).all(axis=1)
    fine &= (bounds >= _WORLD[[0, 1, 0, 1]]).all(axis=1) & (bounds <= _WORLD[[2, 3, 2, 3]]).all(axis=1)
    if invalid != "drop" and not fine.all():
        raise CorruptDataError(
            f"{part.where}: {int((~fine).sum())} rows have no place in longitude and latitude (first: row "
            f"{int(part.rows[~fine][0])}); leave them out with invalid='drop' (--invalid drop)"
        )
    return np.asarray(fine)
