"""Items of the community's embeddings extension (``emb``, v0.0.1), read as descriptions of their embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pystac

from stac_latent.catalog.adopt.products import Product
from stac_latent.cube.foreign_layout import absolute_href, container_of
from stac_latent.errors import CatalogError
from stac_latent.extension.schemas import EMB_URI
from stac_latent.geo.crs import crs_from_fields
from stac_latent.net.items import read_object
from stac_latent.system.links import link_href

__all__ = ["expand"]

_LINEAR = ("linear", "affine", "scale_offset")
_PLAIN = ("none", "", "identity")
_FOUND = ("latent:shape",)
"""What the file itself says."""


def expand(product: Product, href: str) -> Iterator[tuple[Product, str, pystac.Item | None]]:
    """The embeddings of a STAC document, each with its description and the Item that it comes from.

    Parameters
    ----------
    product
        The product ``emb``.
    href
        An Item, Collection or Catalog.

    Raises
    ------
    CatalogError
        If it is no such document, an Item has no asset ``embeddings``, or a quantisation is not known.
    """
    found = read_object(href)
    items = [found] if isinstance(found, pystac.Item) else list(found.get_items(recursive=True))  # type: ignore[attr-defined]
    if not items:
        raise CatalogError(f"{href} holds no items")
    for item in items:
        if not any("/embeddings/" in uri for uri in item.stac_extensions):
            raise CatalogError(
                f"item {item.id!r} of {href} does not declare the embeddings extension ({EMB_URI})"
            )
        if "embeddings" not in item.assets:
            raise CatalogError(
                f"item {item.id!r} of {href} has no asset 'embeddings', which that extension needs (has: {', '.join(item.assets)})"
            )
        target = absolute_href(item.assets["embeddings"].href, item)
        yield _described(product, item), target, item


def _described(product: Product, item: pystac.Item) -> Product:
    collection = _collection(item)
    asset = item.assets["embeddings"]
    facts: dict[str, Any] = {} if collection is None else dict(collection.extra_fields)
    facts |= {k: v for k, v in item.properties.items() if k.startswith("emb:")}
    quantization = facts.get("emb:quantization") or {}
    own = {k: v for k, v in asset.extra_fields.items() if k.startswith("latent:") and k not in _FOUND}
    fields: dict[str, Any] = dict(product.asset) | (
        own if "latent:kind" in own else _quantised(quantization, item.id)
    )
    fields.setdefault("latent:granularity", "pixel" if facts.get("emb:type") == "pixel" else "chip")
    if facts.get("emb:dimensions") is not None:
        fields["latent:dimensions"] = int(facts["emb:dimensions"])
    stored = quantization.get("quantized_dtype")
    if stored:
        fields["data_type"] = stored
    stride = (facts.get("emb:chip_layout") or {}).get("stride")
    if stride and "latent:stride" not in fields:
        fields["latent:stride"] = [int(v) for v in stride]
    if asset.extra_fields.get("nodata") is not None:
        fields["nodata"] = asset.extra_fields["nodata"]
    container = container_of(asset.to_dict())
    if container == "zarr" and "latent:kind" in own and not own.get("latent:array"):
        raise CatalogError(
            f"item {item.id!r} has a store of latents that loads as it is: it needs no adoption, leave it out"
        )
    if not container:
        raise CatalogError(
            f"asset 'embeddings' of item {item.id!r} has type {asset.media_type!r}; expected GeoTIFF, NumPy, Zarr or Parquet"
        )
    links = _links(item, collection)
    return replace(
        product, container=container, asset=fields, links=links, scales=_scales(item, fields.pop("latent:scale_asset", None)), space=_space(item, collection, facts, links),
        grid=_grid({**item.properties, **asset.extra_fields}), title=asset.title or (collection.title if collection is not None and collection.title else product.title),
    )  # fmt: skip


def _collection(item: pystac.Item) -> pystac.Collection | None:
    """Collection of an Item, where it can be read; the link may be to a place that is not reached."""
    link = item.get_single_link("collection")
    target = None if link is None else link_href(link)
    if target is None or re.match(r"https?://example\.", target):
        return None
    try:
        return item.get_collection()
    except (OSError, ValueError, KeyError, pystac.STACError) as exc:
        raise CatalogError(
            f"the collection of item {item.id!r} cannot be read ({exc}); it says type and dimensions of the embeddings: adopt the "
            "collection itself, or remove the link"
        ) from exc


def _quantised(said: dict[str, Any], item_id: str) -> dict[str, Any]:
    method = str(said.get("method") or "none").lower()
    if method in _PLAIN:
        return {"latent:quantization": "none"}
    if method in _LINEAR and said.get("scale"):
        return {
            "latent:quantization": "linear",
            "latent:quantization_scale": [float(v) for v in said["scale"]],
            "latent:quantization_offset": [float(v) for v in said.get("offset") or [0.0]],
        }
    raise CatalogError(
        f"item {item_id!r}: emb:quantization {method!r} is not known (a method has a free name there); expected 'linear' with scale and "
        "offset, or describe the file with product 'any'"
    )


def _grid(fields: dict[str, Any]) -> dict[str, Any]:
    """Grid that the projection extension states."""
    code = crs_from_fields(fields)
    transform = fields.get("proj:transform")
    return {"is": {"code": code, "transform": transform}} if code and transform else {}


def _scales(item: pystac.Item, name: Any) -> dict[str, Any]:
    """Where the scales of an Item with ``latent:`` fields are."""
    if name not in item.assets:
        return {}
    asset = item.assets[name]
    target = absolute_href(asset.href, item).replace("\\", "\\\\")
    rule: dict[str, Any] = {"href": ["^.*$", target]}
    for key, field in (("array", "latent:array"), ("dim_order", "latent:dim_order")):
        if asset.extra_fields.get(field):
            rule[key] = asset.extra_fields[field]
    return rule


def _links(item: pystac.Item, collection: pystac.Collection | None) -> dict[str, str]:
    out = {}
    for owner in (collection, item):
        for rel, key in (("emb:model", "model"), ("emb:source-data", "source")):
            for link in [] if owner is None else owner.get_links(rel):
                out[key] = link_href(link) or str(link.target)
    return out


def _space(
    item: pystac.Item, collection: pystac.Collection | None, facts: dict[str, Any], links: dict[str, str]
) -> dict[str, Any]:
    """Model, and what was done before and after it; without a model, the collection alone is one space."""
    model = (
        links.get("model") or f"collection {item.collection_id or (collection.id if collection else item.id)}"
    )
    version = item.properties.get("processing:version") or "unversioned"
    around = [facts.get("emb:preprocessing"), facts.get("emb:postprocessing"), facts.get("emb:dimensions")]
    return {"producer": "emb", "product": str(model), "version": f"{version} {around}"}
