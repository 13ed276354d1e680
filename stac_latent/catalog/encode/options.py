"""What a caller of ``encode`` asked for, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import pystac

from stac_latent.bytestring.bounded import base_step
from stac_latent.catalog.encode.key_frames import References
from stac_latent.codec.codec import Codec
from stac_latent.errors import CatalogError, CodecError
from stac_latent.field.error_bound import BoundLike, ErrorBound
from stac_latent.field.rate_target import Target
from stac_latent.secure import Key, use
from stac_latent.store.zarr.group import Payload
from stac_latent.system.suggest import did_you_mean

__all__ = ["bound_of", "form_of", "goal_of", "listed_of", "secret_of"]


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


def form_of(codec: Codec, payload: Payload | None, target: Mapping[str, Any]) -> Payload:
    """How the latents are stored: entropy coded where the chain can, unless the caller says otherwise.

    Raises
    ------
    CatalogError
        If there is no such form, or a target is given for latents that are stored as they are.
    CodecError
        If they are to be coded, and the chain has no entropy coder.
    """
    if payload not in (None, "coded", "plain"):
        raise CatalogError(
            f"payload={payload!r}{did_you_mean(str(payload), ('coded', 'plain'))}; expected 'coded' or 'plain'"
        )
    if payload == "coded" and codec.tail is None:
        raise CodecError(
            f"codec {codec.name!r} has no entropy coder; store its symbols with payload='plain' (--payload plain)"
        )
    asked = Target.of(target, "encode()")
    goal = asked if asked.given else codec.target
    if payload == "plain" and goal.given:
        raise CatalogError(
            f"payload='plain' stores the latents as they are, at no rate, so that {goal} would not be heeded: leave it out, or take "
            "payload='coded' (--payload coded)"
        )
    return payload or ("coded" if codec.tail is not None else "plain")


def goal_of(codec: Codec, target: Mapping[str, Any], bound: ErrorBound | None) -> Target:
    """What the latents shall reach: the target given, the codec's own, or what goes with a bound."""
    goal = Target.of(target, "encode()")
    if goal.given:
        return goal
    if (own := codec.target).given:
        return own
    return goal if bound is None else Target(step=base_step(codec, bound, [0.0] * len(codec.bands)))


def secret_of(
    key: Key | str | os.PathLike[str] | None, references: References, guard: str | None = None
) -> Key | None:
    """Key to encrypt with, if any."""
    if key is not None and guard == "fallback":
        raise CatalogError(
            "encrypted stores have no fallback of single tiles: take error_bound= for all of them, or guard='warn'"
        )
    if key is not None and references is not None:
        raise CatalogError("encrypted dates are not coded against key frames: leave out references= or key=")
    return None if key is None else use(key)
