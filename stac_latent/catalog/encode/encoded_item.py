"""The Item that carries a latent: what it takes from its source, what it keeps, and what it says of the latent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pystac

from stac_latent.catalog.bands import merge_bands
from stac_latent.catalog.items import decoder_link
from stac_latent.catalog.tree import CatalogTree
from stac_latent.codec.probe import software
from stac_latent.cube.item_assets import MEDIA_TYPE, latent_assets
from stac_latent.cube.write.writer import Encoded
from stac_latent.errors import CatalogError
from stac_latent.extension import DECODER_REL, ENCODER_REL, ROLE, LatentExtension
from stac_latent.extension.features import declare_features
from stac_latent.extension.measured import BEST, best_of
from stac_latent.extension.schemas import EO_URI, FILE_URI, PROCESSING_URI, PROJ_URI, RASTER_URI, ZARR_URI
from stac_latent.spec import Band
from stac_latent.system.links import absolute, href_of, is_local, local_path

__all__ = ["Mode", "check_key", "describe", "describe_bands", "name_of", "renewed", "summarise"]

Mode = Literal["beside", "derived"]
_STRUCTURE = ("self", "root", "parent", "collection", "item", "items")


def name_of(item: pystac.Item, key: str, mode: Mode) -> str:
    """Id of the Item that will carry the asset."""
    return item.id if mode == "beside" else f"{item.id}-{key}"


def check_key(
    source: pystac.Item,
    known: pystac.Item | None,
    tree: CatalogTree,
    key: str,
    mode: Mode,
    *,
    overwrite: bool,
) -> None:
    """Refuse a key that another asset has.

    Raises
    ------
    CatalogError
        If that is no latent, or one that is not to be replaced.
    """
    name = name_of(source, key, mode)
    for there in (known, source if known is None and mode == "beside" else None):
        if there is None or key not in there.assets:
            continue
        if key not in latent_assets(there):
            raise CatalogError(
                f"item {name!r} already has an asset {key!r}, and it is no latent; choose another asset="
            )
        if not overwrite:
            raise CatalogError(
                f"item {name!r} in {tree.called} already has an asset {key!r}; pass overwrite=True to replace it, or another asset="
            )


def renewed(
    source: pystac.Item,
    known: pystac.Item | None,
    tree: CatalogTree,
    name: str,
    mode: Mode,
    replaced: str | None = None,
) -> pystac.Item:
    """The Item as its source has it now, with absolute hrefs, and with what the catalogued one has beside.

    Of the catalogued Item the latents are kept, whatever else lies in its folder, and the links that latents need. All other facts
    (time, place, properties, raw assets) are the source's.

    Parameters
    ----------
    source
        Item with raw assets.
    known
        The Item as it is catalogued; None where it is new.
    tree
        The catalogue.
    name
        Id of the Item that is returned.
    mode
        As :func:`stac_latent.encode` has it.
    replaced
        Key of a latent that will be replaced: of it, the place among the assets alone is kept.
    """
    item = pystac.Item.from_dict(
        source.to_dict(include_self_link=False, transform_hrefs=False), preserve_dict=False
    )
    merge_bands(item)
    start = source.get_self_href() or href_of(Path("item.json"))
    for asset in item.assets.values():
        asset.href = absolute(asset.href, start)
    spaces = {a.extra_fields.get("latent:space") for a in item.assets.values()} - {None}
    item.links = [
        link
        for link in item.links
        if link.rel not in _STRUCTURE
        and (not str(link.rel).startswith("latent:") or link.extra_fields.get("latent:space") in spaces)
    ]
    for link in item.links:
        if isinstance(link.target, str):
            link.target = absolute(link.target, start)
    item.links = [
        link for link in item.links if not (link.rel == "store" and _is_inside(link.target, tree.root))
    ]
    if mode == "derived":
        item.id, item.assets = name, {}
        item.add_links(_origin(source))
    if known is None:
        return item
    latents, folder = latent_assets(known), tree.item_folder(item)
    for key, asset in known.assets.items():
        if key in latents or _is_inside(asset.href, folder):
            item.assets[key] = asset
    spaces = {item.assets[key].extra_fields.get("latent:space") for key in latents if key != replaced}
    there = {(link.rel, link.target) for link in item.links}
    for link in known.links:
        if link.extra_fields.get("latent:space") in spaces and (link.rel, link.target) not in there:
            item.add_link(link)
    return item


def _origin(source: pystac.Item) -> list[pystac.Link]:
    """Link to the Item that another is derived from; none where it lies nowhere, and cannot be linked to."""
    own = source.get_self_href()
    if own is None:
        return []
    return [pystac.Link("derived_from", own, media_type=pystac.MediaType.GEOJSON, title=source.id)]


def _is_inside(href: object, folder: Path) -> bool:
    return isinstance(href, str) and is_local(href) and local_path(href).is_relative_to(folder)


def describe(
    item: pystac.Item,
    key: str,
    made: Encoded,
    folder: Path,
    decoder: Path,
    source: pystac.Item,
    packed: tuple[Path, int] | None = None,
) -> None:
    """Add asset, links and properties to the Item.

    Parameters
    ----------
    item
        What is added to.
    key
        Key of the asset.
    made
        What was written.
    folder
        The Item's own, with the store.
    decoder
        The codec's Item.
    source
        The Item that was encoded.
    packed
        The store that the latent shares with others, and which chip of it this is.
    """
    fields = {**made.spec.to_fields(), **made.grid.to_fields(), **made.fields}
    fields["latent:stride"] = list(made.spec.stride)
    fields["latent:shape"] = [made.spec.dimensions, *made.grid.cells]
    fields["latent:dim_order"] = ["channel", "y", "x"]
    fields["file:size"] = made.size
    fields |= {"zarr:node_type": "group", "zarr:zarr_format": 3, "zarr:consolidated": True}
    if made.spec.kind == "embedding":
        fields.pop("latent:padding", None)
    if made.spec.determinism == "platform":
        said = item.properties.get("processing:software")
        item.properties["processing:software"] = {**(said if isinstance(said, dict) else {}), **software()}
    store = folder / f"{key}.zarr" if packed is None else packed[0]
    if packed is not None:
        fields["latent:chip_index"] = packed[1]
    declare_features(fields)
    item.add_asset(
        key,
        pystac.Asset(
            href_of(store), title=f"Latents ({decoder.parent.name})", media_type=MEDIA_TYPE, roles=[ROLE], extra_fields=fields
        ),
    )  # fmt: skip
    rel = DECODER_REL if made.spec.kind == "codec" else ENCODER_REL
    link = decoder_link(folder / f"{item.id}.json", decoder, made.spec.space, rel=rel)
    item.links = [
        old
        for old in item.links
        if old.rel not in (DECODER_REL, ENCODER_REL)
        or old.extra_fields.get("latent:space") != made.spec.space
    ]
    item.add_link(link)
    summarise(item, key, source)
    item.properties["updated"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_bands(asset: pystac.Asset, bands: Sequence[Band]) -> None:
    """Say anew what the bands of a latent are (unit, pixel size, wavelength), where its pixels are what they were."""
    said = {band.name: band.to_stac() for band in bands}
    for band in asset.extra_fields.get("bands", ()):
        for name in ("unit", "gsd", "eo:common_name", "eo:center_wavelength", "eo:full_width_half_max"):
            band.pop(name, None)
            if name in said.get(band.get("name"), {}):
                band[name] = said[band["name"]][name]


def summarise(item: pystac.Item, key: str, source: pystac.Item) -> None:
    """Item properties from the fields of its latent assets, links to their stores, and the extensions that these use.

    The properties are lists, and the best of each measurement of the codecs. The asset ``key`` takes over the source's ``gsd``.
    """
    latent = [a.extra_fields for a in item.assets.values() if a.extra_fields.get("latent:kind")]
    stores = list(
        dict.fromkeys(
            a.href
            for a in item.assets.values()
            if "zarr:node_type" in a.extra_fields and a.extra_fields.get("latent:kind")
        )
    )
    item.links = [link for link in item.links if link.rel != "store" or link.target not in stores]
    item.add_links([pystac.Link("store", href, media_type=MEDIA_TYPE) for href in stores])
    item.assets[key].extra_fields.pop("gsd", None)
    if gsd := source.properties.get("gsd"):
        item.assets[key].extra_fields["gsd"] = gsd
    names = {name for fields in latent for band in fields.get("bands", ()) for name in band}
    uris = {PROJ_URI: True, FILE_URI: True}
    uris |= {
        RASTER_URI: "raster:scale" in names,
        EO_URI: any(name.startswith("eo:") for name in names),
        ZARR_URI: bool(stores),
        PROCESSING_URI: "processing:software" in item.properties,
    }  # only what is used may be declared
    item.stac_extensions += [uri for uri, used in uris.items() if used and uri not in item.stac_extensions]
    ext = LatentExtension.ext(item, add_if_missing=True)
    codecs = [f for f in latent if f["latent:kind"] == "codec"]
    ext.apply(
        spaces=list(dict.fromkeys(f["latent:space"] for f in latent)),
        kinds=list(dict.fromkeys(f["latent:kind"] for f in latent)),
    )
    for name in BEST:
        item.properties.pop(name, None)
    item.properties |= best_of(codecs)
