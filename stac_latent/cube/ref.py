"""From a STAC Item to what a reader needs of one of its latent assets: a small, picklable reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Self

import pystac

from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import resolve_space
from stac_latent.cube.band_grid import BandGrid, band_grids
from stac_latent.cube.decoder import Decoder, codec_in_store, decoder_of
from stac_latent.cube.foreign_layout import Layout, absolute_href, layout_of, upright
from stac_latent.cube.item_assets import latent_assets
from stac_latent.errors import CatalogError
from stac_latent.extension import check_version
from stac_latent.extension.features import check_features
from stac_latent.net.fetch import Sign, inner
from stac_latent.net.items import read_item
from stac_latent.secure import FORM, EncryptedAsset, context_of
from stac_latent.spec import Grid, Spec
from stac_latent.system.links import shown

__all__ = [
    "KeyFrameLink",
    "LatentRef",
    "chip_of",
    "encryption_of",
]

_ITEM_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class KeyFrameLink:
    """A ``latent:reference`` link: the Item and asset that a date was coded against."""

    href: str
    asset: str

    def __repr__(self) -> str:
        return f"KeyFrameLink({shown(self.href)!r}, {self.asset!r})"

    def open(self, sign: Sign | None = None) -> LatentRef:
        """Reference to the key frame, from its Item.

        Raises
        ------
        CatalogError
            If there is no such Item or asset.
        """
        try:
            item = read_item(self.href, limit=_ITEM_LIMIT, sign=sign)
        except CatalogError as exc:
            raise CatalogError(
                f"the key frame {shown(self.href)} cannot be read, and what was coded against it is not decoded without it: {exc}"
            ) from exc
        return LatentRef.from_item(item, self.asset).signed(sign)


@dataclass(frozen=True, slots=True)
class LatentRef:
    """All that is needed to read one latent asset, in a form that is cheap to pickle."""

    item_id: str
    asset: str
    href: str
    spec: Spec
    grid: Grid
    decoder: Decoder | None = None
    reference: KeyFrameLink | LatentRef | None = None
    """The key frame that it was coded against; None where it stands alone."""
    metadata: str | None = None
    """Checksum of the store's metadata, which need not be read where it can be made anew."""
    masks: str | None = None
    """Which chunks of the mask are stored; None where the Item does not say."""
    sign: Sign | None = field(default=None, compare=False, repr=False)
    """Signs remote addresses before each request."""
    sealed: EncryptedAsset | None = None
    """What opens its chunks; None where they are plain."""
    band_grids: tuple[BandGrid | None, ...] = ()
    """What differs for the bands of several native grids; empty where all share the asset's."""
    part: int = 0
    """Which of the codec's lattices this is."""
    layout: Layout | None = None
    """How an embedding of another producer is stored; None for a store of this package."""
    chip: int | None = None
    """Which chip of a store that holds many; None for a store of its own."""

    def __repr__(self) -> str:
        return f"LatentRef({self.item_id!r}, {self.asset!r}, {shown(self.href)!r}, {self.spec.space!r})"

    @property
    def text(self) -> str:
        """All that it says, secrets included, to be compared or hashed; NaN equals itself."""
        return repr(astuple(replace(self, sign=None)))

    @classmethod
    def from_item(cls, item: pystac.Item, asset: str | None = None) -> Self:
        """Reference to a latent asset of an Item; the Item is not changed.

        Parameters
        ----------
        item
            With or without a self href; relative hrefs count from it, or from the working directory.
        asset
            Key of the asset; None where there is only one.

        Raises
        ------
        CatalogError
            If the Item has no such latent asset, several and none was named, or is of a newer extension version.
        GridError
            If the asset carries no grid.
        """
        check_version(item)
        keys = latent_assets(item)
        if not keys:
            raise CatalogError(
                f"item {item.id!r} has no latent asset (assets: {', '.join(item.assets) or 'none'}); "
                "an asset with role 'latent' and latent: fields is needed: 'stac-latent encode' adds one"
            )
        if asset is None and len(keys) > 1:
            raise CatalogError(
                f"item {item.id!r} has several latent assets: {', '.join(keys)}; choose with asset="
            )
        key = keys[0] if asset is None else asset
        if key not in keys:
            raise CatalogError(f"item {item.id!r} has no latent asset {key!r}; it has {', '.join(keys)}")
        return cls._of_asset(item, key)

    @classmethod
    def of_chosen(cls, item: pystac.Item, key: str) -> Self:
        """Reference to an asset that is known to be one of the Item's latents; errors as of :meth:`from_item`."""
        check_version(item)
        return cls._of_asset(item, key)

    @classmethod
    def _of_asset(cls, item: pystac.Item, key: str) -> Self:
        fields = item.assets[key].to_dict()
        check_features(fields, f"asset {key!r} of item {item.id!r}")
        spec = Spec.from_fields(fields)
        grid, layout = Grid.from_fields(fields, item.properties), layout_of(item, key)
        if layout is not None:
            grid, turned = upright(grid)
            layout = replace(layout, flip=turned)
        return cls(
            item_id=item.id,
            asset=key,
            href=absolute_href(item.assets[key].href, item),
            spec=spec,
            grid=grid,
            decoder=decoder_of(item, spec.space),
            reference=_key_frame(item, key),
            metadata=_text(fields, "latent:metadata_digest"),
            masks=_text(fields, "latent:mask_chunks"),
            sealed=encryption_of(fields, key),
            band_grids=band_grids(fields),
            layout=layout,
            chip=chip_of(fields, key),
        )

    def signed(self, sign: Sign | None) -> Self:
        """The same, with a function that signs remote addresses."""
        return self if sign is None else replace(self, sign=sign)

    def open_codec(self, *, refresh: bool = False) -> Codec:
        """Codec of the asset's space: from the item's link, the store's own copy, or an installed one.

        ``refresh`` reads it anew and runs its probe, whatever was opened or passed before.
        """
        if self.decoder is not None:
            return self.decoder.open(self.spec.space, refresh=refresh, sign=self.sign)
        codec = codec_in_store(self.href, self.spec.space, refresh=refresh, sign=self.sign)
        if codec is not None:
            return codec
        tried = [
            f"latent:decoder links of item {self.item_id!r} (none with this space)",
            shown(inner(self.href, "bundle")),
        ]
        return resolve_space(self.spec.space, tried)


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None


def chip_of(fields: Mapping[str, Any], key: str) -> int | None:
    """Which chip of its store asset ``key`` is, by its fields; None where it has a store of its own."""
    chip = fields.get("latent:chip_index")
    if chip is not None and (type(chip) is not int or not 0 <= chip < 2**31):
        raise CatalogError(f"latent:chip_index of asset {key!r} is {chip!r:.60}; expected 0, 1, ...")
    return chip


def encryption_of(fields: Mapping[str, Any], key: str) -> EncryptedAsset | None:
    """What the fields of asset ``key`` say of its encryption; None where it has none."""
    form = fields.get("latent:encryption")
    if form is None:
        return None
    names = [fields.get("latent:key_id"), fields.get("latent:wrapped_key")]
    if form != FORM or not all(isinstance(n, str) for n in names):
        raise CatalogError(
            f"asset {key!r} is encrypted with {form!r:.60}; this version reads {FORM!r}, with latent:key_id and latent:wrapped_key"
        )
    context = context_of(Spec.from_fields(fields), Grid.from_fields(fields), band_grids(fields))
    return EncryptedAsset(str(names[0]), str(names[1]), context)


def _key_frame(item: pystac.Item, key: str) -> KeyFrameLink | None:
    """Link to the key frame of an asset; None where it stands alone."""
    name = item.assets[key].extra_fields.get("latent:reference_item")
    if name is None:
        return None
    links = [link for link in item.links if link.rel == "latent:reference"]
    if len(links) > 1 or (
        links and "latent:asset" in links[0].extra_fields
    ):  # copies of an Item lose such fields
        links = [link for link in links if link.extra_fields.get("latent:asset") == key]
    for link in links:
        target = link.target.get_self_href() if isinstance(link.target, pystac.STACObject) else link.target
        if target:
            return KeyFrameLink(absolute_href(str(target), item), key)
    raise CatalogError(
        f"asset {key!r} of item {item.id!r} was coded against item {name!r}, and the item has no latent:reference link with "
        f"latent:asset {key!r}: restore the link, or encode the item again"
    )
