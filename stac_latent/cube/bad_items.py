"""Items that cannot be loaded: they end a load, or are left out, with a word or without."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, get_args

from stac_latent.errors import CatalogError, SourceWarning, StacLatentError

__all__ = ["Errors", "error_policy", "sound_items"]

S = TypeVar("S")
T = TypeVar("T")
Errors = Literal["raise", "warn", "ignore"]
_SHOWN = 5


def error_policy(errors: Errors | None, fail_on_error: bool | None) -> Errors:
    """What becomes of a bad Item, from the two arguments of :func:`stac_latent.load` that say it.

    Raises
    ------
    CatalogError
        If ``errors`` is unknown, or the two contradict each other.

    Examples
    --------
    >>> error_policy(None, None), error_policy(None, False), error_policy("warn", False)
    ('raise', 'ignore', 'warn')
    """
    if errors is not None and errors not in get_args(Errors):
        raise CatalogError(f"errors={errors!r} is unknown; expected one of {', '.join(get_args(Errors))}")
    if errors is not None and fail_on_error is not None and (errors == "raise") != fail_on_error:
        raise CatalogError(
            f"errors={errors!r} and fail_on_error={fail_on_error} contradict each other: fail_on_error=True is errors='raise', False is "
            "errors='ignore' in the words of odc.stac.load; keep one"
        )
    if errors is None:
        return "ignore" if fail_on_error is False else "raise"
    return errors


def sound_items(items: Sequence[tuple[str, S]], make: Callable[[S], T], errors: Errors) -> list[T]:
    """What is made of each Item, but for those of which it cannot be made.

    Parameters
    ----------
    items
        Their ids, and what it is made of.
    make
        Makes it, or raises a :class:`StacLatentError`.
    errors
        ``raise`` ends with the first; ``warn`` and ``ignore`` leave them out, and ``warn`` names them.

    Raises
    ------
    StacLatentError
        If nothing is left: what was wrong with the first.
    """
    if errors == "raise":
        return [make(item) for _, item in items]
    made, bad = [], []
    for name, item in items:
        try:
            made.append(make(item))
        except StacLatentError as exc:
            bad.append((name, exc))
    if bad and not made:
        raise bad[0][1]
    if bad and errors == "warn":
        named = "; ".join(f"{name!r}: {exc}" for name, exc in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more: {', '.join(n for n, _ in bad[_SHOWN:])}" * (
            len(bad) > _SHOWN
        )
        warnings.warn(
            f"{len(bad)} of {len(items)} item(s) cannot be loaded and are left out: {named}{more}",
            SourceWarning,
            stacklevel=5,
        )
    return made
