"""What a page says of Items: text that is bounded, and numbers that are numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pystac

from stac_latent.cube.item_assets import latent_assets
from stac_latent.errors import CatalogError

__all__ = ["MEASURES", "Measure", "check_count", "measured", "number", "shown_asset", "text", "values_of"]

_LONGEST = 200
_USUAL = "latent"


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that Items can be coloured by."""

    name: str
    """Without the prefix of its field."""
    title: str
    unit: str
    field: str


MEASURES = (
    Measure("psnr", "PSNR", "dB", "latent:psnr"),
    Measure("bits_per_pixel", "Rate", "bits per pixel and band", "latent:bits_per_pixel"),
    Measure("max_error", "Largest error", "in the stored unit", "latent:max_error"),
    Measure("sam", "Spectral angle", "degrees", "latent:sam"),
)
"""What Items are coloured by, in this order, where they have it."""


def text(value: Any, longest: int = _LONGEST) -> str:
    """Text of a value from a catalogue, cut where it is long; '' for None. Halves of characters become '?'.

    Examples
    --------
    >>> text("a" * 300, 5)
    'aaaa…'
    """
    out = "" if value is None else str(value)[: longest + 1].encode("utf-8", "replace").decode("utf-8")
    return out if len(out) <= longest else out[: longest - 1] + "…"


def check_count(count: int, most: int) -> None:
    """Refuse more Items than a page holds, with :class:`CatalogError`."""
    if count > most:
        raise CatalogError(
            f"{count:,} items are too many for one page, which holds {most:,}; narrow the search, by bbox or datetime, or "
            "stop it with max_items"
        )


def number(value: Any) -> float | None:
    """A finite number, or None.

    Examples
    --------
    >>> number(41.5), number("41.5"), number(True), number(float("nan"))
    (41.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def shown_asset(item: pystac.Item, asset: str | None = None) -> str | None:
    """Key of the latent asset that a page shows: the named one, else the one that decodes, else the first.

    Raises
    ------
    CatalogError
        If several decode, none was named, and none has the key ``latent`` that :func:`stac_latent.encode` gives.
    """
    keys = latent_assets(item)
    if asset is not None:
        return asset if asset in keys else None
    decodable = [k for k in keys if item.assets[k].extra_fields.get("latent:kind") == "codec"]
    if len(decodable) > 1 and _USUAL not in decodable:
        raise CatalogError(
            f"item {item.id!r} has several assets that decode: {', '.join(decodable)}; choose the one to look at with asset="
        )
    return _USUAL if _USUAL in decodable else next(iter(decodable or keys), None)


def values_of(item: pystac.Item, key: str | None) -> list[float | None]:
    """Value of each of :data:`MEASURES`: the shown asset's, or the Item's where that says nothing."""
    fields: Mapping[str, Any] = item.assets[key].extra_fields if key is not None else {}
    return [number(fields.get(m.field, item.properties.get(m.field))) for m in MEASURES]


def measured(values: Sequence[Sequence[float | None]]) -> list[int]:
    """Positions of the :data:`MEASURES` that any Item has."""
    return [i for i in range(len(MEASURES)) if any(row[i] is not None for row in values)]
