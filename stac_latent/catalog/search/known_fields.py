"""Fields that a filter or an order names and no item has: a slip of the pen reads as unknown, and finds nothing in silence."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stac_latent.catalog.push.queryables import TITLES
from stac_latent.system.suggest import did_you_mean

__all__ = ["KnownFields", "named_in"]

_ALWAYS = (
    "id", "collection", "type", "stac_version", "stac_extensions", "bbox", "geometry", "assets", "datetime", "start_datetime",
    "end_datetime", "created", "updated", "expires", "published", "unpublished", *TITLES,
)  # fmt: skip


def named_in(expr: Any) -> list[str]:
    """Properties that a CQL2 JSON expression compares; to ask whether one is null is no claim that there is one."""
    if isinstance(expr, Mapping):
        if isinstance(name := expr.get("property"), str):
            return [name.removeprefix("properties.")]
        if str(expr.get("op")).lower() == "isnull":
            return []
        expr = list(expr.values())
    if isinstance(expr, Sequence) and not isinstance(expr, str):
        return [name for part in expr for name in named_in(part)]
    return []


class KnownFields:
    """Fields that a search names, and those that were met while it ran.

    Parameters
    ----------
    asked
        Names, without ``properties.``; those that any item may have are left out.
    """

    def __init__(self, asked: Iterable[str] = ()) -> None:
        self.asked = [n for n in dict.fromkeys(asked) if n not in _ALWAYS]
        self._met: dict[str, None] = {}
        self._silent = False

    def meet(self, names: Iterable[str]) -> None:
        """Fields of an item that was looked at, columns of a table, or what an API says that it can be asked for."""
        if self.asked:
            self._met.update(dict.fromkeys(names))

    def cannot_tell(self) -> None:
        """A source does not say what its items have."""
        self._silent = True

    def warn(self) -> None:
        """Warn of names that nothing had, once the search has looked everywhere."""
        if self._silent or not self._met:
            return
        for name in [n for n in self.asked if n not in self._met]:
            hint = did_you_mean(name, (*self._met, *_ALWAYS))
            warnings.warn(
                f"no item that was searched has the field {name!r}{hint}, which filter or sortby names: it counts as unknown",
                stacklevel=3,
            )
        self.asked = []
