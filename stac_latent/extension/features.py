"""What a reader has to know lest bytes mean something else than it thinks: ``latent:required_features``.

Each name belongs to a field of the asset; a reader that does not know a name in the list refuses the asset. Groups of a store
repeat the list among their attributes, as ``latent.required_features``, for those who come without an Item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stac_latent.errors import CatalogError

__all__ = [
    "DIFFERENCE",
    "FEATURES",
    "check_features",
    "check_group",
    "declare_features",
    "group_features",
    "required_features",
]

DIFFERENCE = "difference"
"""Name of a feature, and of the array that then lies in the place of ``latent``."""
FIELD = "latent:required_features"
_GROUP, _LIST = "latent", "required_features"
_SPARSE = "-sparse"


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda fields: any(fields.get(name) is not None for name in names)


FEATURES: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    DIFFERENCE: ("latent:reference_item", _has("latent:reference_item", "latent:reference_store")),
    "residual": ("latent:residual", _has("latent:residual")),
    "encryption": ("latent:encryption", _has("latent:encryption")),
    "sparse_fallback": (
        f"latent:residual that ends with {_SPARSE}",
        lambda fields: str(fields.get("latent:residual")).endswith(_SPARSE),
    ),
    "chips": ("latent:chip_index", _has("latent:chip_index", "latent:items")),
}
"""Names that this version knows, in their order: the field that each belongs to, and whether fields have it."""


def required_features(fields: Mapping[str, Any]) -> list[str]:
    """Features that a reader of an asset has to know, by its fields.

    Examples
    --------
    >>> required_features({"latent:residual": "stac-latent-residual-1-sparse", "latent:chip_index": 3})
    ['residual', 'sparse_fallback', 'chips']
    """
    return [name for name, (_, has) in FEATURES.items() if has(fields)]


def declare_features(fields: dict[str, Any]) -> None:
    """Write the list among the fields of an asset that are otherwise complete; none where it is empty."""
    fields.pop(FIELD, None)
    if names := required_features(fields):
        fields[FIELD] = names


def group_features(attributes: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Attributes of a group with the list of what they, and ``more`` fields of the asset, need.

    Examples
    --------
    >>> group_features({"latent:reference_store": "../d0/latent.zarr"})["latent"]
    {'required_features': ['difference']}
    """
    own = {k: v for k, v in dict(attributes.get(_GROUP) or {}).items() if k != _LIST}
    if names := required_features({**attributes, **(more or {})}):
        own[_LIST] = names
    rest = {k: v for k, v in attributes.items() if k != _GROUP}
    return {**rest, _GROUP: own} if own else rest


def check_features(fields: Mapping[str, Any], where: str) -> None:
    """Refuse an asset that needs what this version does not know, or that lacks the field of what it needs.

    Raises
    ------
    CatalogError
        Names the features, and those that are known.
    """
    _check(fields.get(FIELD), fields, FIELD, where)


def check_group(attributes: Mapping[str, Any], where: str) -> None:
    """As :func:`check_features`, of the attributes of a group; which need not have the fields."""
    own = attributes.get(_GROUP)
    _check(own.get(_LIST) if isinstance(own, Mapping) else None, None, f"{_GROUP}.{_LIST}", where)


def _check(names: Any, fields: Mapping[str, Any] | None, said: str, where: str) -> None:
    if names is None:
        return
    if (
        isinstance(names, str)
        or not isinstance(names, Iterable)
        or not all(isinstance(n, str) for n in names)
    ):
        raise CatalogError(
            f"{where}: {said} is {names!r:.100}; expected a list of names, such as ['difference']"
        )
    if unknown := [name for name in names if name not in FEATURES]:
        raise CatalogError(
            f"{where} needs a reader that knows {', '.join(map(repr, unknown))} ({said}), and this version knows "
            f"{', '.join(FEATURES)}: what it would decode may be wrong; upgrade stac-latent (pip install -U stac-latent)"
        )
    if fields is not None and (lacking := [n for n in names if not FEATURES[n][1](fields)]):
        raise CatalogError(
            f"{where} says in {said} that it needs {', '.join(map(repr, lacking))}, and has no "
            f"{', '.join(FEATURES[n][0] for n in lacking)}: restore the field, or encode the item again"
        )
