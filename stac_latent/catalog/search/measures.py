"""What a search asks of latents: kind, space and limits of what was measured, met by one asset of an Item."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stac_latent.catalog.search.cql2 import Row
from stac_latent.errors import SearchError

__all__ = ["BEST", "MeasuredLatent", "best_of"]

_KINDS = ("codec", "embedding")
_LIMITS = {
    "max_bits_per_pixel": ("<=", "latent:bits_per_pixel"),
    "min_psnr": (">=", "latent:psnr"),
    "max_error": ("<=", "latent:max_error"),
    "max_sam": ("<=", "latent:sam"),
}
_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
BEST: dict[str, Callable[[Iterable[float]], float]] = {
    "bits_per_pixel": min,
    "psnr": max,
    "max_error": min,
    "sam": min,
    "error_bound": min,
    "ood_score": min,
}
"""Which of its assets' measurements an Item has among its properties."""


def best_of(fields: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Measurements of an Item from the fields of its latent assets of kind ``codec``: of each the best, whichever asset has it.

    A limit of one of them then finds an Item by its properties where any of its assets is within it.

    Examples
    --------
    >>> best_of([{"latent:psnr": 48.1, "latent:bits_per_pixel": 0.7}, {"latent:psnr": 53.3, "latent:bits_per_pixel": 1.3}])
    {'latent:bits_per_pixel': 0.7, 'latent:psnr': 53.3}
    """
    listed = list(fields)
    known = {
        f"latent:{n}": [f[f"latent:{n}"] for f in listed if _is_number(f.get(f"latent:{n}"))] for n in BEST
    }
    return {name: BEST[name.removeprefix("latent:")](values) for name, values in known.items() if values}


@dataclass(frozen=True)
class MeasuredLatent:
    """Kind, space and limits that one latent asset of an Item shall have and keep, all of them."""

    kind: str | None = None
    space: str | None = None
    limits: tuple[tuple[str, str, float], ...] = ()
    """Field, ``<=`` or ``>=``, and number."""

    @classmethod
    def parse(cls, kind: str | None = None, space: str | None = None, **limits: Any) -> MeasuredLatent:
        """Check the arguments of a search.

        Raises
        ------
        SearchError
            For the first that is malformed.
        """
        if kind is not None and kind not in _KINDS:
            raise SearchError(f"kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
        if space is not None and (
            not isinstance(space, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", space)
        ):
            raise SearchError(
                f"space must be 'sha256:' and 64 lower-case hexadecimal digits, got {space!r}; "
                "it is latent:space of an asset, or the attribute space of a codec"
            )
        given = {name: _number(name, value) for name, value in limits.items() if value is not None}
        return cls(kind, space, tuple((_LIMITS[n][1], _LIMITS[n][0], v) for n, v in given.items()))

    def kinds_and_spaces(self) -> list[dict[str, Any]]:
        """CQL2 of the Item's lists."""
        wanted = (("latent:kinds", self.kind), ("latent:spaces", self.space))
        return [{"op": "a_contains", "args": [{"property": n}, [v]]} for n, v in wanted if v is not None]

    def of_properties(self) -> list[dict[str, Any]]:
        """CQL2 of the limits of the Item's properties, which are the best of its assets' (see :func:`best_of`)."""
        return [{"op": op, "args": [{"property": name}, value]} for name, op, value in self.limits]

    def met(self, row: Row) -> bool:
        """Whether one of an Item's latent assets is so; an Item whose assets state no measurements is taken by its properties."""
        if not self.limits:
            return True
        measured = [
            f for f in _latents(row("assets")) if any(_is_number(f.get(name)) for name, _, _ in self.limits)
        ]
        if not measured:
            return self._within(row)
        return any(self._is_wanted(f) and self._within(f.get) for f in measured)

    def _is_wanted(self, fields: Mapping[str, Any]) -> bool:
        wanted = (("latent:kind", self.kind), ("latent:space", self.space))
        return all(value is None or fields.get(name) == value for name, value in wanted)

    def _within(self, value: Callable[[str], Any]) -> bool:
        return all(_is_number(v := value(name)) and _COMPARE[op](v, limit) for name, op, limit in self.limits)


def _latents(assets: Any) -> Iterator[Mapping[str, Any]]:
    """Fields of each latent asset, of whatever form an Item's assets have."""
    for asset in assets.values() if isinstance(assets, Mapping) else ():
        if isinstance(asset, Mapping) and asset.get("latent:kind") is not None:
            yield asset


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(argument: str, limit: Any) -> float:
    try:
        number = math.nan if isinstance(limit, bool | str) else float(limit)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise SearchError(f"{argument} must be a number that is not negative, got {limit!r}")
    return number
