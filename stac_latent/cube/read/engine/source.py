"""What the xarray engine was given to open: an Item, one of its assets, the address of an Item, or a store of latents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pystac
from pystac.utils import str_to_datetime

from stac_latent.cube.asset_choice import Upto, check_upto, pick_refs
from stac_latent.cube.band_grid import band_grids
from stac_latent.cube.item_assets import decodable_assets, latent_assets, stamp_of
from stac_latent.cube.keyframe.decode import with_key_frame
from stac_latent.cube.ref import LatentRef, encryption_of
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.geo.extents import in_utc
from stac_latent.net.fetch import Sign
from stac_latent.net.items import read_item
from stac_latent.spec import Grid, Spec
from stac_latent.store.georeference import grid_fields
from stac_latent.store.zarr.group import open_arrays
from stac_latent.system.links import href_of, is_local, local_path, shown

__all__ = ["Latent", "Source", "source_of"]


@dataclass(frozen=True)
class Latent:
    """One latent asset, and how far it is decoded."""

    ref: LatentRef
    stamp: str
    upto: Upto
    time: datetime | None = None
    """When its Item was taken, in UTC; None where that is not known."""


@dataclass(frozen=True)
class Source:
    """What was given.

    Parameters
    ----------
    item
        The Item; None where a store was given.
    store
        The store; None where an Item was given.
    asset
        Key of the asset that was given; None where none was.
    """

    item: pystac.Item | None
    store: LatentRef | None = None
    stamp: str = ""
    asset: str | None = None
    sign: Sign | None = None

    def keys(self, upto: Upto | None) -> list[str]:
        """Keys of the assets that can be opened; one that is empty where a store was given."""
        if self.item is None:
            return [""]
        if self.asset is not None:
            return [self.asset]
        return decodable_assets(self.item) if upto == "field" else latent_assets(self.item)

    def latent(self, asset: str | None, upto: Upto | None) -> Latent:
        """One of them.

        Parameters
        ----------
        asset
            Its key; None where there is only one.
        upto
            Pixels or cells; None: pixels where there is a decoder.

        Raises
        ------
        CatalogError
            If there is no such asset, or several and no key.
        GridError
            If it has no grid.
        """
        if self.item is None and self.store is not None:
            return Latent(self.store, self.stamp, upto or _most(self.store.spec.kind))
        if self.item is None:
            raise CatalogError("nothing was given to open")
        asset = self.asset if asset is None else asset
        only = latent_assets(self.item)
        if upto is None and (asset is not None or len(only) == 1):
            chosen = self.item.assets.get(asset or only[0])
            upto = None if chosen is None else _most(chosen.extra_fields.get("latent:kind"))
        ref = pick_refs([self.item], asset, upto or "field")[0].signed(self.sign)
        return Latent(ref, stamp_of(self.item, ref.asset), upto or _most(ref.spec.kind), _time(self.item))


def source_of(obj: Any, asset: str | None, upto: Upto | None, sign: Sign | None) -> Source:
    """Find out what was given.

    Parameters
    ----------
    obj
        Item, asset of one, or the address of an Item or of a store.
    asset
        Key of an asset of an Item.
    upto
        Checked before anything is read.
    sign
        Signs addresses before they are asked for.

    Raises
    ------
    CatalogError
        If it is none of these, or the asset belongs to no Item.
    CorruptDataError
        If there is no readable store.
    """
    check_upto(upto or "field", None)
    if isinstance(obj, pystac.Asset):
        return _of_asset(obj, asset, sign)
    if isinstance(obj, pystac.Item):
        return Source(obj, asset=asset, sign=sign)
    if not isinstance(obj, str | os.PathLike):
        raise CatalogError(
            "engine 'stac-latent' opens a pystac Item, an asset of one, or the href of an Item or of a latent Zarr group; got "
            f"{type(obj).__name__}"
        )
    href = os.fspath(obj)
    if is_local(href):
        href = href_of(local_path(href))
    if href.partition("?")[0].endswith((".json", ".geojson")):
        return Source(read_item(href, sign=sign), asset=asset, sign=sign)
    if asset is not None:
        raise CatalogError(
            f"asset={asset!r} is of an Item, and {shown(href)} is opened as a latent Zarr group: leave asset out, or give the address of "
            "the Item (.json)"
        )
    return _of_store(href, sign)


def _of_asset(given: pystac.Asset, asset: str | None, sign: Sign | None) -> Source:
    owner = given.owner
    if not isinstance(owner, pystac.Item):
        raise CatalogError(
            f"the asset {shown(given.href)} belongs to no Item, which says how it is decoded: open the Item, with asset="
        )
    keys = [key for key, one in owner.assets.items() if one is given or one.href == given.href]
    if not keys or asset not in (None, *keys):
        raise CatalogError(
            f"the asset {shown(given.href)} was given with asset={asset!r}; item {owner.id!r} has it as {', '.join(keys) or 'none'}"
        )
    return Source(owner, asset=asset or keys[0], sign=sign)


def _of_store(href: str, sign: Sign | None) -> Source:
    attrs = grid_fields(open_arrays(href, sign=sign).attributes)
    name = href.rstrip("/").rsplit("/", 1)[-1]
    part = attrs.get("latent:part", 0)
    if type(part) is not int or part < 0:
        raise CorruptDataError(f"{shown(href)} declares latent:part {part!r}; expected 0, 1, ...")
    ref = LatentRef(
        name, "latent", href, Spec.from_fields(attrs), Grid.from_fields(attrs),
        sign=sign, sealed=encryption_of(attrs, name), band_grids=band_grids(attrs), part=part,
    )  # fmt: skip
    return Source(None, with_key_frame(ref, attrs.get("latent:reference_store")), repr(sorted(attrs.items())))


def _most(kind: object) -> Upto:
    return "latent" if kind == "embedding" else "field"


def _time(item: pystac.Item) -> datetime | None:
    """When an Item was taken in UTC, as :func:`stac_latent.load` has it: else when that began, or ended."""
    return next(_times([item.datetime, *map(item.properties.get, ("start_datetime", "end_datetime"))]), None)


def _times(values: list[Any]) -> Iterator[datetime]:
    for value in values:
        try:
            found = in_utc(str_to_datetime(value) if isinstance(value, str) else value)
        except (ValueError, OverflowError):
            continue
        if isinstance(found, datetime):
            yield found.replace(tzinfo=None)
