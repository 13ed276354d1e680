"""Item Asset Definitions: what a Collection says of the assets of all of its Items.

A definition keeps what all assets of a key have in common, so it only shrinks; those of latents say which arrays their stores hold, as the
datacube extension has it, once and not on each Item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stac_latent.extension.features import DIFFERENCE
from stac_latent.extension.schemas import CUBE_URI

__all__ = ["define_assets"]

_OF_ALL = ("title", "type", "roles")
_OF_LATENTS = (
    "data_type",
    "latent:kind",
    "latent:space",
    "latent:granularity",
    "latent:dimensions",
    "latent:dim_order",
    "latent:dtype",
    "latent:quantization",
    "latent:stride",
    "latent:bitstream",
    "latent:determinism",
    "zarr:node_type",
    "zarr:zarr_format",
)
_VARIABLES = "cube:variables"


def define_assets(collection: dict[str, Any], item: Mapping[str, Any]) -> None:
    """Take the assets of an Item into the definitions of its Collection, both as they are written.

    Examples
    --------
    >>> collection = {}
    >>> define_assets(collection, {"assets": {"red": {"href": "a.tif", "type": "image/tiff", "title": "of a"}}})
    >>> define_assets(collection, {"assets": {"red": {"href": "b.tif", "type": "image/tiff", "title": "of b"}}})
    >>> collection["item_assets"]
    {'red': {'type': 'image/tiff', 'title': 'red'}}
    """
    known = collection.setdefault("item_assets", {})
    for key, asset in item["assets"].items():
        new = _definition(asset)
        old = known.get(key, new)
        variables = {**old.get(_VARIABLES, {}), **new.get(_VARIABLES, {})}
        both = {k: v for k, v in old.items() if new.get(k) == v}
        both |= {_VARIABLES: variables} if variables else {}
        both.setdefault("title", key)
        if len(both) == 1:  # fewer than two members are no definition
            both["description"] = f"Asset {key}"
        known[key] = both
    declared = collection.setdefault("stac_extensions", [])
    if CUBE_URI not in declared and any(_VARIABLES in one for one in known.values()):
        declared.append(CUBE_URI)


def _definition(asset: Mapping[str, Any]) -> dict[str, Any]:
    latent = asset.get("latent:kind") is not None
    names = (*_OF_ALL, *_OF_LATENTS) if latent else _OF_ALL
    out = {name: asset[name] for name in names if asset.get(name) is not None}
    if latent and asset.get("zarr:node_type") == "group":
        out[_VARIABLES] = _variables(asset)
    return out


def _variables(asset: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of the store of a latent; those of chips that share one have an axis in front."""
    front = [] if asset.get("latent:chip_index") is None else ["chip"]
    name = "latent" if asset.get("latent:reference_item") is None else DIFFERENCE
    stored = {
        "dimensions": [*front, *asset["latent:dim_order"]],
        "variable_type": "data",
        "data_type": asset["data_type"],
    }
    codec = asset["latent:kind"] == "codec"
    valid = {
        "dimensions": [*front, *(("mask_band", "py", "px") if codec else ("y", "x"))],
        "variable_type": "auxiliary",
        "data_type": "uint8",
    }
    return {name: stored, "mask" if codec else "valid": valid}
