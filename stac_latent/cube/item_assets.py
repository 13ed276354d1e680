"""Items as they are given, and which of their assets are latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import pystac

from stac_latent.cube.foreign_layout import is_table
from stac_latent.errors import CatalogError

__all__ = ["MEDIA_TYPE", "as_items", "decodable_assets", "latent_assets", "stamp_of"]

MEDIA_TYPE = "application/vnd.zarr; version=3; profile=latent"
"""Of stores of latents; the profile keeps readers of pixels in Zarr away."""


def as_items(items: pystac.Item | Iterable[pystac.Item], purpose: str) -> list[pystac.Item]:
    """One Item, an iterable of Items or an ItemCollection as a list; ``purpose`` is the verb that errors name.

    Raises
    ------
    CatalogError
        If there is none, or something else than Items.
    """
    listed = [items] if isinstance(items, pystac.Item) else list(items)
    if not listed:
        raise CatalogError(f"nothing to {purpose}: no items were given; did the search match anything?")
    if wrong := [type(i).__name__ for i in listed if not isinstance(i, pystac.Item)]:
        raise CatalogError(
            f"expected pystac Items, got {wrong[0]}; read one with pystac.Item.from_file(href)"
        )
    return listed


def latent_assets(item: pystac.Item) -> list[str]:
    """Keys of the Item's rasters of latents: role ``latent`` or a ``latent:kind`` field, and no table but one on a grid of cells."""
    return [
        key
        for key, asset in item.assets.items()
        if (asset.extra_fields.get("latent:kind") is not None or _has_role(asset, "latent"))
        and (not is_table({"type": asset.media_type}) or "proj:shape" in asset.extra_fields)
    ]


def decodable_assets(item: pystac.Item) -> list[str]:
    """Keys of the latent assets of kind ``codec``."""
    return [k for k in latent_assets(item) if item.assets[k].extra_fields.get("latent:kind") == "codec"]


def stamp_of(item: pystac.Item, asset: str) -> str:
    """Digest of what an Item says of an asset; a latent that was written anew in the same place has another."""
    text = json.dumps(
        [item.assets[asset].to_dict(), item.properties.get("updated")], sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _has_role(asset: pystac.Asset, role: str) -> bool:
    return isinstance(asset.roles, list) and role in asset.roles
