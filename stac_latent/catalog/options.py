"""What a caller of ``encode`` asked for, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, cast

import pystac

from stac_latent.bound import BoundLike, ErrorBound
from stac_latent.bounded import base_step
from stac_latent.catalog.references import References
from stac_latent.codec import Codec
from stac_latent.errors import CatalogError
from stac_latent.secure import Key, use
from stac_latent.target import Target

__all__ = ["bound_of", "goal_of", "listed_of", "secret_of"]


def listed_of(items: pystac.Item | Iterable[pystac.Item]) -> list[pystac.Item]:
    """Items to encode, each id once."""
    todo = [items] if isinstance(items, pystac.Item) else list(items)
    if not todo:
        raise CatalogError("nothing to encode: the list of items is empty")
    if len({i.id for i in todo}) < len(todo):
        raise CatalogError("two of the items have the same id; a catalogue holds each id once")
    return todo


def bound_of(codec: Codec, given: BoundLike | None) -> ErrorBound | None:
    """What every pixel of the codec's bands shall keep, in their order."""
    if given is not None and codec.kind != "codec":
        raise CatalogError(
            f"codec {codec.name!r} is an embedder: what it writes cannot be decoded, and has no error to bound"
        )
    return None if given is None else ErrorBound.of(given, codec.bands)


def goal_of(codec: Codec, target: dict[str, Any], bound: ErrorBound | None) -> Target:
    """What the latents shall reach: the target given, the codec's own, or what goes with a bound."""
    goal = Target(**target)
    if goal.given:
        return goal
    if (own := getattr(codec.tail, "aim", None)) is not None:
        return cast("Target", own.target)
    return goal if bound is None else Target(step=base_step(codec, bound, [0.0] * len(codec.bands)))


def secret_of(
    encrypt: Key | str | os.PathLike[str] | None, references: References, guard: str | None = None
) -> Key | None:
    """Key to encrypt with, if any."""
    if encrypt is not None and guard == "fallback":
        raise CatalogError(
            "encrypted stores have no fallback of single tiles: take error_bound= for all of them, or guard='warn'"
        )
    if encrypt is not None and references is not None:
        raise CatalogError(
            "encrypted dates are not coded against key frames: leave out references or encrypt"
        )
    return None if encrypt is None else use(encrypt)
