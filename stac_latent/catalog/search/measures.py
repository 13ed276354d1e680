"""What a search asks of latents: kind, space and limits of what was measured, met by one asset of an Item."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stac_latent.catalog.search.cql2 import Row
from stac_latent.errors import SearchError
from stac_latent.extension.measured import is_number

__all__ = ["MeasuredLatent"]

_KINDS = ("codec", "embedding")
_LIMITS = {
    "max_bits_per_pixel": ("<=", "latent:bits_per_pixel"),
    "min_psnr": (">=", "latent:psnr"),
    "max_error": ("<=", "latent:max_error"),
    "max_sam": ("<=", "latent:sam"),
}
_PSNR, _ERROR = "latent:psnr", "latent:max_error"
_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


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
        """CQL2 of the limits of the Item's properties, which are the best of its assets' (see :func:`~stac_latent.extension.measured.best_of`).

        What is lossless may state no PSNR: its largest error is 0.
        """
        own = [(name, {"op": op, "args": [{"property": name}, value]}) for name, op, value in self.limits]
        exact = {"op": "=", "args": [{"property": _ERROR}, 0]}
        return [{"op": "or", "args": [part, exact]} if name == _PSNR else part for name, part in own]

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of an asset that :meth:`met` reads; none without limits."""
        names = [name for name, _, _ in self.limits]
        return ("latent:kind", "latent:space", *names, *([_ERROR] if _PSNR in names else [])) if names else ()

    def met(self, row: Row) -> bool:
        """Whether one of an Item's latent assets is so; an Item whose assets state no measurements is taken by its properties."""
        if not self.limits:
            return True
        measured = [f for f in _latents(row("assets")) if any(is_number(f.get(name)) for name in self.fields)]
        if not measured:
            return self._within(row)
        return any(self._is_wanted(f) and self._within(f.get) for f in measured)

    def _is_wanted(self, fields: Mapping[str, Any]) -> bool:
        wanted = (("latent:kind", self.kind), ("latent:space", self.space))
        return all(value is None or fields.get(name) == value for name, value in wanted)

    def _within(self, value: Callable[[str], Any]) -> bool:
        return all(_keeps(value, name, op, limit) for name, op, limit in self.limits)


def _keeps(value: Callable[[str], Any], name: str, op: str, limit: float) -> bool:
    """Whether a measurement is within a limit; what is lossless may state no PSNR."""
    if name == _PSNR and is_number(error := value(_ERROR)) and error == 0:
        return True
    return is_number(v := value(name)) and _COMPARE[op](v, limit)


def _latents(assets: Any) -> Iterator[Mapping[str, Any]]:
    """Fields of each latent asset, of whatever form an Item's assets have."""
    for asset in assets.values() if isinstance(assets, Mapping) else ():
        if isinstance(asset, Mapping) and asset.get("latent:kind") is not None:
            yield asset


def _number(argument: str, limit: Any) -> float:
    try:
        number = math.nan if isinstance(limit, bool | str) else float(limit)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise SearchError(f"{argument} must be a number that is not negative, got {limit!r}")
    return number
