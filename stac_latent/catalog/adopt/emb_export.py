"""Items of the community's embeddings extension (``emb``, v0.0.1) from Items with embeddings; the data stay where they are.

That version takes STAC 1.0 alone, fields in Item Properties and Collections but not on assets, and wants an asset ``embeddings``
and links to the model and to the source data. What it cannot say (a power, scales in another file, the space) stays in
``latent:`` fields of the asset: the Items declare both extensions, and load as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pystac

from stac_latent.catalog.tree import write_json
from stac_latent.cube.foreign_layout import absolute_href
from stac_latent.cube.item_assets import as_items
from stac_latent.errors import CatalogError
from stac_latent.extension import DECODER_REL, ENCODER_REL, SCHEMA_URI
from stac_latent.extension.schemas import EMB_URI
from stac_latent.spec import Spec
from stac_latent.system.links import is_local, link_href, local_path, relative
from stac_latent.system.names import safe_name

__all__ = ["export_emb"]


def export_emb(
    items: pystac.Item | Iterable[pystac.Item],
    dest: str | Path,
    *,
    asset: str | None = None,
    model: str | None = None,
    source_data: str | None = None,
) -> list[pystac.Item]:
    """Write a catalogue of ``emb`` v0.0.1 Items: a Collection for each space.

    Parameters
    ----------
    items
        Items with an embedding each, adopted, encoded or published.
    dest
        Folder; files of the same name are replaced.
    asset
        Key of the embedding, where an Item has several.
    model, source_data
        Addresses for the links that the extension requires, where the Items have none.

    Returns
    -------
    list of pystac.Item
        As they were written.

    Raises
    ------
    CatalogError
        If an Item has no embedding, or a link that is required is known from nowhere.
    """
    root = Path(dest).absolute()
    groups: dict[str, list[tuple[pystac.Item, str]]] = {}
    for item in as_items(items, "export"):
        key = _key(item, asset)
        groups.setdefault(str(item.assets[key].extra_fields["latent:space"]), []).append((item, key))
    made, children = [], []
    for space, members in groups.items():
        name = safe_name(f"{members[0][0].collection_id or 'embeddings'}-{space[7:15]}")
        links = _required(members[0][0], model, source_data)
        written = [_emb_item(item, key, root / name, name) for item, key in members]
        write_json(root / name / "collection.json", _collection(name, members, written, links))
        for doc in written:
            path = root / name / safe_name(doc["id"]) / f"{safe_name(doc['id'])}.json"
            write_json(path, doc)
            made.append(pystac.Item.from_dict(doc, href=str(path), migrate=False))
        children.append({"rel": "child", "href": f"./{name}/collection.json", "type": "application/json"})
    write_json(
        root / "catalog.json",
        {
            "type": "Catalog", "id": "embeddings", "stac_version": "1.0.0", "description": "Embeddings, described with the emb extension",
            "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}, *children],
        },
    )  # fmt: skip
    return made


def _key(item: pystac.Item, asset: str | None) -> str:
    fit = [k for k, a in item.assets.items() if a.extra_fields.get("latent:kind") == "embedding"]
    if asset is not None and asset in fit:
        return asset
    if asset is None and len(fit) == 1:
        return fit[0]
    several = "several embeddings" if len(fit) > 1 else "no embedding"
    what = several if asset is None else f"no embedding {asset!r}"
    raise CatalogError(
        f"item {item.id!r} has {what} ({', '.join(fit) or 'assets: ' + ', '.join(item.assets)}); choose with asset="
    )


def _required(item: pystac.Item, model: str | None, source: str | None) -> list[dict[str, Any]]:
    """Links to the model and to the source data, from the caller or from the Item's own links."""
    wanted = {
        "emb:model": (model, ("emb:model", ENCODER_REL, DECODER_REL), "model="),
        "emb:source-data": (source, ("emb:source-data", "derived_from", "about"), "source_data="),
    }
    out = []
    for rel, (given, rels, argument) in wanted.items():
        known = [link_href(link) or str(link.target) for r in rels for link in item.get_links(r)]
        href = given or next(iter(known), None)
        if href is None:
            raise CatalogError(
                f"item {item.id!r} has no link {', '.join(rels)}, and the embeddings extension requires {rel}: state it with {argument}, or "
                f"--{argument.rstrip('=').replace('_', '-')}"
            )
        out.append({"rel": rel, "href": href})
    return out


def _emb_fields(spec: Spec, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that describe all embeddings of a Collection."""
    out: dict[str, Any] = {
        "emb:type": "pixel" if spec.granularity == "pixel" else "chip",
        "emb:dimensions": spec.dimensions,
        "data_type": spec.data_type,
    }
    stride = fields.get("latent:stride")
    if stride and out["emb:type"] == "chip":
        layout = [int(v) for v in stride]
        out["emb:chip_layout"] = {"layout_type": "regular_grid", "chip_size": layout, "stride": layout}
    return out


def _quantization(spec: Spec) -> dict[str, Any] | None:
    q = spec.quantization
    if q.method in ("none", "round"):
        return None
    out: dict[str, Any] = {
        "method": q.method,
        "original_dtype": spec.dtype,
        "quantized_dtype": spec.data_type,
    }
    if q.method == "power":
        out["method"] = f"sign(q) * (abs(q) * scale) ^ {q.power:g} + offset"
    if q.method == "per_vector":
        out["method"] = (
            f"q * scale + offset, with the scales in asset {spec.scale_asset!r}"
            if any(q.offset)
            else (f"q * scale, with the scales in asset {spec.scale_asset!r}")
        )
    if q.method != "per_vector" or any(q.offset):
        out["offset"] = list(q.offset)
    if q.method != "per_vector":
        out["scale"] = list(q.scale)
    return out


def _emb_item(item: pystac.Item, key: str, folder: Path, collection: str) -> dict[str, Any]:
    path = folder / safe_name(item.id) / f"{safe_name(item.id)}.json"
    source = item.assets[key]
    spec = Spec.from_fields(source.extra_fields)
    kept = (
        "datetime",
        "start_datetime",
        "end_datetime",
        "license",
        "processing:version",
        "processing:datetime",
    )
    properties = {k: v for k, v in item.to_dict(transform_hrefs=False)["properties"].items() if k in kept}
    properties |= {"latent:spaces": [spec.space], "latent:kinds": ["embedding"]}
    if (quantization := _quantization(spec)) is not None:
        properties["emb:quantization"] = quantization
    assets = {"embeddings": source}
    if spec.scale_asset in item.assets and spec.scale_asset != key:
        assets[str(spec.scale_asset)] = item.assets[str(spec.scale_asset)]
    links = [{"rel": "derived_from", "href": own} for own in [item.get_self_href()] if own]
    up = "../collection.json"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [EMB_URI, SCHEMA_URI],
        "id": item.id,
        "geometry": item.geometry,
        "bbox": item.bbox,
        "properties": properties,
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": up, "type": "application/json"},
            {"rel": "collection", "href": up, "type": "application/json"},
            *links,
        ],
        "assets": {k: _asset(a, item, path, folder.parent) for k, a in assets.items()},
        "collection": collection,
    }


def _asset(asset: pystac.Asset, item: pystac.Item, path: Path, root: Path) -> dict[str, Any]:
    doc = asset.to_dict()
    href = absolute_href(asset.href, item)
    doc["href"] = relative(href, path) if is_local(href) and local_path(href).is_relative_to(root) else href
    return doc


def _collection(
    name: str,
    members: list[tuple[pystac.Item, str]],
    written: list[dict[str, Any]],
    links: list[dict[str, Any]],
) -> dict[str, Any]:
    item, key = members[0]
    fields = item.assets[key].extra_fields
    extent = pystac.Extent.from_items([i for i, _ in members])
    hrefs = [f"./{safe_name(d['id'])}/{safe_name(d['id'])}.json" for d in written]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "stac_extensions": [EMB_URI],
        "id": name,
        "title": item.assets[key].title or name,
        "description": f"Embeddings of one space: {fields['latent:space']}",
        "license": str(item.properties.get("license") or "various"),
        "extent": extent.to_dict(),
        **_emb_fields(Spec.from_fields(fields), fields),
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
            *links,
            *({"rel": "item", "href": h, "type": "application/geo+json"} for h in hrefs),
        ],
    }
