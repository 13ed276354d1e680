"""Items of a source at a place and in a time, and in words why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pystac
from shapely.geometry.base import BaseGeometry

from stac_latent.catalog.search.arguments import Time
from stac_latent.catalog.search.search import search
from stac_latent.cube.item_assets import latent_assets
from stac_latent.errors import CatalogError, SearchError
from stac_latent.geo.extents import item_bbox, spanning_text, times_in_utc

__all__ = ["Period", "has_latents", "items_at", "name_of"]

_LOOKED_AT = 100
"""Items that are looked at to say where, or when, a source has some."""


@dataclass(frozen=True)
class Period:
    """First and last date of what is asked for, both included; None where it is open."""

    start: Time = None
    end: Time = None

    @property
    def asked(self) -> Any:
        """As ``search`` takes it.

        Raises
        ------
        SearchError
            If one of them is an interval.
        """
        for name, value in (("start_date", self.start), ("end_date", self.end)):
            if isinstance(value, str) and "/" in value:
                raise SearchError(
                    f"{name}={value!r} is an interval; give its two ends as start_date= and end_date="
                )
        return None if self.start is None and self.end is None else (self.start, self.end)

    @property
    def text(self) -> str:
        """In words, for messages; empty where it is open at both ends."""
        if self.asked is None:
            return ""
        return f" from {'the first' if self.start is None else self.start} to {'the last' if self.end is None else self.end}"


def items_at(
    source: Any,
    place: BaseGeometry | None,
    period: Period,
    collections: str | Sequence[str] | None,
    asset: str | None,
    what: str,
) -> list[pystac.Item]:
    """Items of a source, at least one; of those with ``asset``, where one is named.

    Parameters
    ----------
    source
        What ``stac_latent.search`` takes.
    place
        In longitude and latitude; None: everywhere.
    period
        When.
    collections
        Ids of collections; None: all.
    asset
        Key of the asset that is read; None: any.
    what
        The place in words, for errors.

    Raises
    ------
    CatalogError
        If there are none; the message says when there are some at the place, or where others lie.
    SearchError
        If the source cannot be searched.
    """
    found = list(search(source, intersects=place, datetime=period.asked, collections=collections))
    if not found:
        raise CatalogError(
            f"no item of {name_of(source)} at {what}{period.text}{_others(source, place, period, collections)}"
        )
    kept = [item for item in found if asset is None or asset in item.assets]
    if not kept:
        keys = sorted({key for item in found for key in item.assets})
        raise CatalogError(
            f"none of {len(found)} item(s) of {name_of(source)} at {what} has an asset {asset!r}; they have {', '.join(keys) or 'none'}"
        )
    return kept


def has_latents(items: Sequence[pystac.Item]) -> bool:
    """Whether any of the Items has a latent; raw ones are read as they are."""
    return any(latent_assets(item) for item in items)


def name_of(source: Any) -> str:
    """A source in a few words."""
    return repr(source) if isinstance(source, str) else f"the {type(source).__name__}"


def _others(
    source: Any, place: BaseGeometry | None, period: Period, collections: str | Sequence[str] | None
) -> str:
    """When the source has Items at the place, or where it has some at all."""
    if period.asked is not None:
        here = list(search(source, intersects=place, collections=collections, max_items=_LOOKED_AT))
        times = [t for item in here for t in times_in_utc(item)]
        if times:
            more = "at least " if len(here) == _LOOKED_AT else ""
            return f"; it has {more}{len(here)} there, from {min(times):%Y-%m-%d} to {max(times):%Y-%m-%d}"
    anywhere = list(search(source, datetime=period.asked, collections=collections, max_items=_LOOKED_AT))
    boxes = [b for b in map(item_bbox, anywhere) if b is not None]
    if not boxes:
        return "; it has none elsewhere either: look at the dates and collections that are asked for"
    return f"; its items lie within ({spanning_text(boxes)}): west, south, east, north in degrees"
