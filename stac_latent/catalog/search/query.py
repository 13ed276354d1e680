"""What is searched for: the arguments of a search, checked and in one form for every source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stac_latent.catalog.search.arguments import (
    Time,
    names,
    parse_datetime,
    parse_place,
    sort_keys,
)
from stac_latent.catalog.search.cql2 import Predicate, Row, compile_filter, parse_filter, properties_of
from stac_latent.catalog.search.cql2_operators import conjunction, parse_time
from stac_latent.catalog.search.known_fields import KnownFields, named_in
from stac_latent.catalog.search.measures import MeasuredLatent
from stac_latent.errors import SearchError
from stac_latent.geo.extents import rfc3339

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = ["TIMES", "ItemRow", "Query"]

TIMES = (
    "datetime",
    "start_datetime",
    "end_datetime",
    "created",
    "updated",
    "expires",
    "published",
    "unpublished",
)
"""Properties that hold times; they compare as times in every source."""
_TOP = ("id", "collection", "type", "stac_version", "stac_extensions", "bbox", "assets")


class ItemRow:
    """Properties of one Item (as a dictionary) by name, as the filter reads them.

    ``properties.x`` and ``x`` name the same property; times are aware datetimes; the geometry is shapely's.
    """

    __slots__ = ("_geometry", "_item")

    def __init__(self, item: Mapping[str, Any]) -> None:
        self._item = item
        self._geometry: BaseGeometry | None = None

    def __call__(self, name: str) -> Any:
        """Return the value of a property, None where it is missing."""
        if name == "geometry":
            return self._shape()
        if name in _TOP:
            return self._item.get(name)
        name = name.removeprefix("properties.")
        value = self._item["properties"].get(name)
        if name in TIMES and isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if name in TIMES and isinstance(value, str):
            try:
                return parse_time(value)
            except ValueError:
                return None
        return value

    def _shape(self) -> BaseGeometry | None:
        geometry = self._item.get("geometry")
        if self._geometry is None and geometry is not None:
            import numpy as np
            from shapely.geometry import shape

            from stac_latent.geo.antimeridian import within_180

            try:
                self._geometry = within_180(np.array([shape(geometry)], dtype=object))[0]
            except Exception as exc:
                raise SearchError(f"item {self._item.get('id')!r} has a malformed geometry: {exc}") from exc
        return self._geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A checked search. Every part must hold for an item to match; a part that is None is not asked for.

    Examples
    --------
    >>> query = Query.parse(datetime="2024-06", latent=MeasuredLatent.parse("codec", min_psnr=40))
    >>> query.interval
    '2024-06-01T00:00:00Z/2024-06-30T23:59:59.999999Z'
    >>> item = {"id": "a", "properties": {"datetime": "2024-06-05T10:00:00Z", "latent:kinds": ["codec"]}}
    >>> query.matches(ItemRow(item))  # no latent:psnr
    False
    """

    place: BaseGeometry | None = None
    """Area in longitude and latitude that the footprint must touch."""
    start: datetime | None = None
    end: datetime | None = None
    collections: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    cql2: dict[str, Any] | None = None
    """CQL2 JSON of the latent's properties and of the free filter together."""
    sortby: tuple[tuple[str, bool], ...] = ()
    """Property and whether it descends, first the most important."""
    predicate: Predicate | None = field(default=None, compare=False, repr=False)
    """All of ``cql2`` but the limits of what was measured, which :attr:`latent` tests asset by asset."""
    latent: MeasuredLatent = field(default_factory=MeasuredLatent)
    known: KnownFields = field(default_factory=KnownFields, compare=False, repr=False)
    """Fields that sources have, and those that the search names."""

    @classmethod
    def parse(
        cls,
        *,
        bbox: Sequence[float] | None = None,
        intersects: Any = None,
        datetime: Time | Sequence[Time] = None,
        collections: str | Iterable[str] | None = None,
        ids: str | Iterable[str] | None = None,
        latent: MeasuredLatent | None = None,
        filter: str | Mapping[str, Any] | None = None,  # noqa: A002
        sortby: str | Mapping[str, str] | Sequence[str | Mapping[str, str]] | None = None,
    ) -> Query:
        """Check the arguments of :func:`stac_latent.search`, before any source is opened; those of latents are checked already.

        Raises
        ------
        SearchError
            For the first argument that is malformed; says what was expected.
        """
        start, end = (None, None) if datetime is None else parse_datetime(datetime)
        latent = latent or MeasuredLatent()
        free = [] if filter is None else [parse_filter(filter)]
        own = [compile_filter(part) for part in (*free, *latent.kinds_and_spaces())]
        parts = [*latent.kinds_and_spaces(), *latent.of_properties(), *free]
        cql2 = None if not parts else parts[0] if len(parts) == 1 else {"op": "and", "args": parts}
        order = sort_keys(sortby)
        asked = [*named_in(free), *(name.removeprefix("properties.") for name, _ in order)]
        return cls(
            place=parse_place(bbox, intersects),
            start=start,
            end=end,
            collections=names("collections", collections),
            ids=names("ids", ids),
            cql2=cql2,
            sortby=order,
            predicate=(lambda row: conjunction([part(row) for part in own])) if own else None,
            latent=latent,
            known=KnownFields(asked),
        )

    @property
    def interval(self) -> str | None:
        """Time as the STAC API writes it: an instant, or an interval whose open end is ``..``."""
        if self.start is None and self.end is None:
            return None
        if self.start == self.end and self.start is not None:
            return rfc3339(self.start)
        return "/".join(".." if t is None else rfc3339(t) for t in (self.start, self.end))

    def properties(self) -> set[str]:
        """Names of the properties that :meth:`matches` reads."""
        read = properties_of(self.cql2)
        if self.start is not None or self.end is not None:
            read |= {"datetime", "start_datetime", "end_datetime"}
        wanted = {"geometry": self.place, "id": self.ids, "collection": self.collections}
        return read | {name for name, part in wanted.items() if part is not None}

    def matches(self, row: Row) -> bool:
        """Whether an item matches; unknown (a property that it lacks) is no match."""
        if self.ids is not None and row("id") not in self.ids:
            return False
        if self.collections is not None and row("collection") not in self.collections:
            return False
        if not self._in_time(row) or not self.matches_filter(row):
            return False
        if self.place is None:
            return True
        geometry = row("geometry")
        return geometry is not None and bool(self.place.intersects(geometry))

    def matches_filter(self, row: Row) -> bool:
        """Whether the CQL2 part is true of an item."""
        return (self.predicate is None or self.predicate(row) is True) and self.latent.met(row)

    def _in_time(self, row: Row) -> bool:
        """Test the time: an item covers start_datetime to end_datetime, or its datetime; closed at both ends."""
        if self.start is None and self.end is None:
            return True
        instant = row("datetime")
        first, last = row("start_datetime") or instant, row("end_datetime") or instant
        after = self.start is None or (last is not None and last >= self.start)
        return after and (self.end is None or (first is not None and first <= self.end))
