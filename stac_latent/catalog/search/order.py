"""The order of items: by property, those without it last, equal ones by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pystac

from stac_latent.catalog.search.cql2 import Predicate, compile_filter
from stac_latent.catalog.search.cql2_operators import conjunction
from stac_latent.catalog.search.query import ItemRow, Query
from stac_latent.errors import SearchError

__all__ = ["ALWAYS", "in_order", "item_view", "sort_items"]

ALWAYS = frozenset(("id", "collection", "datetime", "properties.datetime", "properties.id"))
"""What every item has; an item over a time span is sorted by its begin."""


def item_view(item: pystac.Item) -> dict[str, Any]:
    """Give what a filter reads of an Item object."""
    return {
        "id": item.id,
        "collection": item.collection_id,
        "geometry": item.geometry,
        "bbox": item.bbox,
        "stac_extensions": item.stac_extensions,
        "type": "Feature",
        "assets": {key: asset.extra_fields for key, asset in item.assets.items()},
        "properties": item.properties
        if item.datetime is None
        else {**item.properties, "datetime": item.datetime},
    }


def sort_items(items: list[pystac.Item], keys: Sequence[tuple[str, bool]]) -> list[pystac.Item]:
    """Items by property (name, whether it descends), those without it last, whatever the direction; equal ones by id.

    Raises
    ------
    SearchError
        If the values of a property have no common order.

    Examples
    --------
    >>> from datetime import datetime
    >>> made = [pystac.Item(name, None, None, datetime(2024, 1, day), {}) for name, day in (("b", 2), ("a", 2), ("c", 1))]
    >>> [item.id for item in sort_items(made, [("datetime", True)])]
    ['a', 'b', 'c']
    """
    if not any(name == "id" for name, _ in keys):
        items = sorted(items, key=lambda item: item.id)
    for name, descending in reversed(keys):
        values = [_value(item, name) for item in items]
        with_value = [i for i, value in enumerate(values) if value is not None]
        try:
            with_value.sort(key=values.__getitem__, reverse=descending)
        except TypeError as exc:
            raise SearchError(
                f"sortby: {name!r} has values that have no common order ({exc}); sort by another property"
            ) from exc
        without = [i for i, value in enumerate(values) if value is None]
        items = [items[i] for i in (*with_value, *without)]
    return items


def in_order(query: Query) -> Iterator[Query]:
    """Parts of a sorted query, one after the other: items that have the properties, then those that lack them."""
    optional = [name for name, _ in query.sortby if name not in ALWAYS]
    sortby = query.sortby if any(name == "id" for name, _ in query.sortby) else (*query.sortby, ("id", False))
    if not query.sortby or not optional:
        yield replace(query, sortby=sortby if query.sortby else ())
        return
    for lacks in product((False, True), repeat=len(optional)):
        missing = {name for name, lack in zip(optional, lacks, strict=True) if lack}
        nulls: list[dict[str, Any]] = [{"op": "isNull", "args": [{"property": name}]} for name in optional]
        parts = [
            null if lack else {"op": "not", "args": [null]} for null, lack in zip(nulls, lacks, strict=True)
        ]
        cql2 = {"op": "and", "args": [*([] if query.cql2 is None else [query.cql2]), *parts]}
        yield replace(
            query,
            cql2=cql2 if len(cql2["args"]) > 1 else parts[0],
            predicate=_both(query.predicate, [compile_filter(part) for part in parts]),
            sortby=tuple(key for key in sortby if key[0] not in missing),
        )


def _both(own: Predicate | None, parts: Sequence[Predicate]) -> Predicate:
    return lambda row: conjunction([True if own is None else own(row), *(part(row) for part in parts)])


def _value(item: pystac.Item, name: str) -> Any:
    row = ItemRow(item_view(item))
    value = row(name)
    if value is None and name.removeprefix("properties.") == "datetime":
        return row("start_datetime")
    return value
