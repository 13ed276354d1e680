"""From STAC Items to what a worker needs to read a latent: a few kilobytes of JSON, never a codec.

A :class:`Source` names one latent asset of one Item. Its ``document`` is a STAC Item cut down to that asset, to
what the asset refers to and to the decoder links, with absolute hrefs; a worker rebuilds a reader from it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pystac
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.utils import datetime_to_str

from stac_latent.errors import CatalogError, GridError
from stac_latent.spec import Grid, Spec

__all__ = ["DriverData", "Source", "Upto", "as_items", "latent_assets", "pick_sources"]

Upto = Literal["field", "latent"]
COMPANIONS = frozenset({"latent:mask", "latent:scales", "latent:codebook"})


class DriverData(TypedDict):
    """What odc-loader carries to a worker for one source; plain JSON values."""

    subdataset: str
    """Digest of everything below; odc-loader puts this key, and no other, into its dask token."""
    document: str
    asset: str
    upto: Upto
    bands: list[int]
    """Bands of the decoded field (zero based); empty for latents."""


@dataclass(frozen=True)
class Source:
    """One latent asset of one Item, ready to be sent to a worker."""

    item_id: str
    asset: str
    href: str
    """Absolute."""
    document: str
    """Canonical JSON of the reduced Item."""
    spec: Spec
    grid: Grid

    @classmethod
    def from_item(cls, item: pystac.Item, asset: str) -> Source:
        """Describe an asset; the Item is not changed.

        Raises
        ------
        CatalogError
            If the asset is no latent, its extension version is newer than ours, or an href cannot be resolved.
        GridError
            If the asset has no CRS, shape or transform.
        """
        from stac_latent.extension import check_version

        check_version(item)
        where = f"asset {asset!r} of item {item.id!r}"
        fields = _fields(item, item.assets[asset])
        try:
            spec, grid = Spec.from_fields(fields), Grid.from_fields(fields)
        except (CatalogError, GridError) as exc:
            raise type(exc)(f"{where}: {exc}") from exc
        keep = {asset, *_companions(item, fields)}
        assets = {
            key: {"href": _absolute(a, f"asset {key!r} of item {item.id!r}"), **_plain(item, a, key == asset)}
            for key, a in item.assets.items()
            if key in keep
        }
        document = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": list(item.stac_extensions),
            "id": item.id,
            "geometry": None,
            "properties": _dates(item),
            "links": _decoder_links(item),
            "assets": assets,
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return cls(item.id, asset, str(assets[asset]["href"]), text, spec, grid)

    @functools.cached_property
    def pixels(self) -> GeoBox:
        """Pixel grid of the decoded field."""
        return to_geobox(self.grid)

    @functools.cached_property
    def cells(self) -> GeoBox:
        """Lattice of the latent."""
        return to_geobox(self.grid.cell_grid())

    def driver_data(self, upto: Upto, bands: Sequence[int] = ()) -> DriverData:
        """Data for the odc-loader driver; ``bands`` are zero-based positions in the asset's own band list."""
        digest = hashlib.sha256(f"{self.document}|{self.asset}|{upto}|{list(bands)}".encode()).hexdigest()
        return {
            "subdataset": f"{self.spec.space}/{digest}",
            "document": self.document,
            "asset": self.asset,
            "upto": upto,
            "bands": list(bands),
        }

    def band_index(self, name: str) -> int | None:
        """Position of a band by name, or by a common name that only one band has."""
        names = [b.name for b in self.spec.bands]
        if name in names:
            return names.index(name)
        common = [b.common_name for b in self.spec.bands]
        return common.index(name) if common.count(name) == 1 else None


def to_geobox(grid: Grid) -> GeoBox:
    """The grid's pixels as an odc-geo GeoBox.

    Raises
    ------
    GridError
        If the CRS cannot be understood.
    """
    try:
        return GeoBox(grid.shape, Affine(*grid.transform), grid.crs)
    except Exception as exc:
        raise GridError(f"proj:code {grid.crs!r} is not a CRS that PROJ knows; expected such as 'EPSG:32633'") from exc


def as_items(items: pystac.Item | Iterable[pystac.Item]) -> list[pystac.Item]:
    """One Item, an iterable of Items or an ItemCollection as a list.

    Raises
    ------
    CatalogError
        If there is none, or something else than Items.
    """
    found = [items] if isinstance(items, pystac.Item) else list(items)
    if not found:
        raise CatalogError("nothing to load: no items were given; did the search match anything?")
    if wrong := [type(i).__name__ for i in found if not isinstance(i, pystac.Item)]:
        raise CatalogError(f"expected pystac Items, got {wrong[0]}; read one with pystac.Item.from_file(href)")
    return found


def latent_assets(item: pystac.Item, *, decodable: bool = False) -> dict[str, pystac.Asset]:
    """Assets with role ``latent``; with ``decodable``, only those of kind ``codec``."""
    found = {k: a for k, a in item.assets.items() if "latent" in (a.roles or ())}
    return {k: a for k, a in found.items() if not decodable or a.extra_fields.get("latent:kind") == "codec"}


def pick_sources(items: Sequence[pystac.Item], asset: str | None, upto: Upto) -> list[Source]:
    """The latent asset of each Item, chosen by key or because it is the only one that fits.

    Raises
    ------
    CatalogError
        If Items lack a fitting asset (all are named), or have several and no key was given.
    """
    missing: list[str] = []
    keys: list[str] = []
    for item in items:
        fit = latent_assets(item, decodable=upto == "field")
        if asset is not None and asset in item.assets and asset not in fit:
            raise CatalogError(_unfit(item, asset, upto))
        if asset is None and len(fit) > 1:
            raise CatalogError(
                f"item {item.id!r} has several latent assets: {_listing(fit)}; choose one with asset="
            )
        key = next(iter(fit), None) if asset is None else asset
        if key is None or key not in fit:
            missing.append(f"{item.id!r} (assets: {', '.join(item.assets) or 'none'})")
            continue
        keys.append(key)
    if missing:
        what = "latent asset" if asset is None else f"latent asset {asset!r}"
        kind = " of kind 'codec'" if upto == "field" and asset is None else ""
        hint = "; embeddings load with upto='latent'" if upto == "field" else ""
        raise CatalogError(f"no {what}{kind} in {_some(missing)}; encode these items first, or leave them out{hint}")
    return [Source.from_item(item, key) for item, key in zip(items, keys, strict=True)]


# -- helpers ---------------------------------------------------------------------------------------------------


def _fields(item: pystac.Item, asset: pystac.Asset) -> dict[str, Any]:
    inherited = {k: v for k, v in item.properties.items() if k.startswith("proj:")}
    own = {k: v for k, v in asset.extra_fields.items() if v is not None}
    return {**inherited, **own}


def _plain(item: pystac.Item, asset: pystac.Asset, inherit: bool) -> dict[str, Any]:
    fields = _fields(item, asset) if inherit else {k: v for k, v in asset.extra_fields.items() if v is not None}
    out: dict[str, Any] = {"type": asset.media_type, "roles": list(asset.roles or ()), **fields}
    return {k: v for k, v in out.items() if v is not None}


def _companions(item: pystac.Item, fields: Mapping[str, Any]) -> list[str]:
    named = {fields.get("latent:scale_asset"), fields.get("latent:codebook_asset")}
    return [k for k, a in item.assets.items() if k in named or COMPANIONS & set(a.roles or ())]


def _absolute(asset: pystac.Asset, where: str) -> str:
    href = asset.get_absolute_href()
    if href is None:
        raise CatalogError(
            f"{where} has the relative href {asset.href!r} and the item does not know where it lies; read it with "
            "pystac.Item.from_file(href), or call item.set_self_href(href)"
        )
    return href


def _decoder_links(item: pystac.Item) -> list[dict[str, Any]]:
    out = []
    for link in item.get_links("latent:decoder"):
        href = link.get_absolute_href()
        if href is not None:
            media_type = {} if link.media_type is None else {"type": str(link.media_type)}
            out.append({"rel": str(link.rel), "href": href, **media_type, **link.extra_fields})
    return out


def _dates(item: pystac.Item) -> dict[str, Any]:
    moment = None if item.datetime is None else datetime_to_str(item.datetime)
    period = {k: item.properties[k] for k in ("start_datetime", "end_datetime") if k in item.properties}
    return {"datetime": moment, **period}


def _listing(assets: Mapping[str, pystac.Asset]) -> str:
    return ", ".join(
        f"{k!r} ({a.extra_fields.get('latent:kind')}, space {a.extra_fields.get('latent:space')})"
        for k, a in assets.items()
    )


def _unfit(item: pystac.Item, asset: str, upto: Upto) -> str:
    have = latent_assets(item, decodable=upto == "field")
    others = f"; this item has {_listing(have)}" if have else ""
    if asset in latent_assets(item):
        kind = item.assets[asset].extra_fields.get("latent:kind")
        return f"asset {asset!r} of item {item.id!r} is of kind {kind!r} and has no decoder: load it with upto='latent'{others}"
    return f"asset {asset!r} of item {item.id!r} is not a latent: its roles are {item.assets[asset].roles}{others}"


def _some(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more items" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
