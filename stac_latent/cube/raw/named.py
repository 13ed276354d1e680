"""Raw bands of an Item by the names that users know: those of ``odc.stac.load``, and of STAC 1.1's bands."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pystac
from odc.geo.geobox import GeoBox
from odc.loader import RasterBandMetadata

from stac_latent.cube.grid.native_grids import asset_geobox
from stac_latent.cube.item_assets import latent_assets
from stac_latent.cube.odc_private import StacMDParser
from stac_latent.cube.raw.asset_bands import AssetBand, asset_rows, described, listing
from stac_latent.cube.raw.assets import FileBand
from stac_latent.cube.raw.contract import agreed_values
from stac_latent.cube.raw.units import with_sentinel2_offset
from stac_latent.errors import MALFORMED, CatalogError, GridError, StacLatentError
from stac_latent.field.validity import fits
from stac_latent.net.fetch import Sign
from stac_latent.spec import Band, numpy_type
from stac_latent.system.links import asset_href

__all__ = ["RawBand", "RawBands", "RawRef"]

_NEEDED = ("proj:", "s2:processing_baseline", "earthsearch:boa_offset_applied", "updated")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CLASSES = ("classification:classes", "classification:bitfields")


@dataclass(frozen=True, eq=False)
class RawRef:
    """All that is needed to read one raw band, in a form that is cheap to pickle."""

    item: pystac.Item
    """The Item with this asset alone, and only the properties that say how it is read."""
    row: AssetBand
    name: str
    """What the band was asked for by."""
    sign: Sign | None = field(default=None, repr=False)

    @property
    def asset(self) -> str:
        """Key of the asset."""
        return self.row["asset"]

    @cached_property
    def digest(self) -> str:
        """Of all that it says but the function that signs."""
        fields = self.item.to_dict(include_self_link=False, transform_hrefs=False)
        text = json.dumps([fields, self.row, self.item.get_self_href()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RawRef) and self.digest == other.digest


@dataclass(frozen=True, eq=False)
class RawBand:
    """One raw band of an Item."""

    ref: RawRef
    meta: RasterBandMetadata
    """Type and nodata, as the stock parser has them."""
    band: Band
    """As the Item describes it, by the rules of :mod:`stac_latent.cube.raw.contract`."""
    categorical: bool
    """Whether its values are classes, masks or flags, of which no others can be made by computing."""

    @cached_property
    def box(self) -> GeoBox:
        """Its grid, as the Item says, or else the file."""
        try:
            return asset_geobox(self.ref.item, self.ref.asset)
        except MALFORMED as exc:
            if isinstance(exc, StacLatentError):
                raise
            raise GridError(
                f"the proj: fields of asset {self.ref.asset!r} of item {self.ref.item.id!r} are no grid ({exc}); correct the item"
            ) from exc


class RawBands:
    """Raw bands of one Item, by name.

    Parameters
    ----------
    item
        With raw assets.
    parser
        odc-stac's, with a configuration or without.
    sign
        Signs addresses of files.
    """

    def __init__(self, item: pystac.Item, parser: StacMDParser, sign: Sign | None = None) -> None:
        self.item = item
        self._parser, self._sign = parser, sign
        self._found: dict[str, RawBand | None] = {}

    @cached_property
    def _stock(self) -> tuple[Mapping[Any, Any], Mapping[str, Any]]:
        """Bands and aliases as the stock parser has them."""
        plain = copy.copy(self.item)
        hidden = latent_assets(self.item)
        plain.assets = {k: a for k, a in self.item.assets.items() if k not in hidden}
        try:
            found = self._parser.extract(plain)
        except MALFORMED as exc:
            raise CatalogError(f"the raw assets of item {self.item.id!r} cannot be read: {exc}") from exc
        return found.bands, found.aliases

    @cached_property
    def rows(self) -> dict[tuple[str, int], AssetBand]:
        """Description of each band that the stock parser has."""
        keys = dict.fromkeys(key for key, _ in self._stock[0] if key in self.item.assets)
        rows = {(r["asset"], r["index"]): r for key in keys for r in asset_rows(key, self.item.assets[key])}
        return {place: row for place, row in rows.items() if place in self._stock[0]}

    @property
    def names(self) -> list[str]:
        """All names of single bands, for suggestions."""
        return [str(n) for row in self.rows.values() for n in (*row["names"], row["common"]) if n]

    @property
    def listing(self) -> str:
        """Bands with what they are called, for errors."""
        return listing(self.rows.values())

    def find(self, name: str) -> RawBand | None:
        """A band by name: an asset's key, an alias of odc-stac's, a band's name or common name, or one of these behind the key of its asset.

        Where several assets have bands of a name, it is of the asset with the fewest bands, as odc-stac chooses.
        """
        if name not in self._found:
            place = self._place(name)
            self._found[name] = None if place is None else self._made(name, place)
        return self._found[name]

    def _place(self, name: str) -> tuple[str, int] | None:
        bands, aliases = self._stock
        if (name, 1) in self.rows:
            return name, 1
        if known := next(
            (place for place in aliases.get(name, ()) if place in bands and place in self.rows), None
        ):
            return str(known[0]), int(known[1])
        rows = sorted(self.rows.values(), key=lambda r: (r["count"], r["asset"], r["index"]))
        if row := next((r for r in rows if name in (r["names"][1], r["common"])), None):
            return row["asset"], row["index"]
        for key in sorted((k for k in self.item.assets if name.startswith(f"{k}.")), key=len, reverse=True):
            own = [r for r in self.rows.values() if r["asset"] == key]
            band = name[len(key) + 1 :]
            for r in own:
                if band in (str(r["index"]), r["names"][1], r["common"]):
                    return key, r["index"]
        return None

    def _made(self, name: str, place: tuple[str, int]) -> RawBand:
        row, asset = self.rows[place], self.item.assets[place[0]]
        meta: RasterBandMetadata = self._stock[0][place]
        kept = {k: v for k, v in self.item.properties.items() if k.startswith(_NEEDED)}
        small = pystac.Item(self.item.id, None, None, self.item.datetime or _EPOCH, kept)
        small.set_self_href(self.item.get_self_href())
        file = pystac.Asset(
            asset_href(asset),
            media_type=asset.media_type,
            roles=asset.roles,
            extra_fields=dict(asset.extra_fields),
        )
        small.add_asset(place[0], file)
        data_type = numpy_type(str(meta.data_type or "float32"))
        band = Band(name, data_type)
        facts = agreed_values(
            small, name, row["meta"], FileBand(data_type, None, 1.0, 0.0, None, alpha=False, masked=False)
        )
        facts = with_sentinel2_offset(small, row, band, facts)
        scale, offset = 1.0 if facts.scale is None else facts.scale, facts.offset or 0.0
        unit = facts.unit or (None if meta.units in (None, "1") else meta.units)
        nodata = meta.nodata if fits(meta.nodata, np.dtype(data_type)) else None
        band = described(Band(name, data_type, nodata, scale, offset, unit), row)
        classes = any(k in fields for k in _CLASSES for fields in (row["meta"], asset.extra_fields))
        return RawBand(RawRef(small, row, name, self._sign), meta, band, classes or row["kind"] == "mask")
