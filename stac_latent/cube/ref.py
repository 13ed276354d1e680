"""From a STAC Item to what a reader needs: a small, picklable reference, and the codec behind its decoder link."""

from __future__ import annotations

import math
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pystac

from stac_latent.codec.bundle import FILES, read_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import opened, remember, resolve_space
from stac_latent.cube.foreign_layout import Layout, is_table, layout_of, upright
from stac_latent.errors import MALFORMED, CatalogError, UnresolvedSpaceError
from stac_latent.extension import check_version
from stac_latent.net.fetch import Sign, inner
from stac_latent.net.hrefs import read_bytes
from stac_latent.net.items import read_item
from stac_latent.secure import FORM, Sealed, context_of
from stac_latent.spec import Grid, Spec
from stac_latent.system.documents import parse_json
from stac_latent.system.links import absolute, check_link, shown

__all__ = [
    "MEDIA_TYPE",
    "BandPlace",
    "Decoder",
    "KeyFrameLink",
    "LatentRef",
    "as_items",
    "band_places",
    "codec_of_item",
    "latent_assets",
    "sealed_of",
]

MEDIA_TYPE = "application/vnd.zarr; version=3"
_ITEM_LIMIT = 8 << 20
_GROUP = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]*)?")


@dataclass(frozen=True, slots=True)
class Decoder:
    """A ``latent:decoder`` link: the MLM Item of a codec bundle, pinned by checksum."""

    href: str
    checksum: str | None = None

    def __repr__(self) -> str:
        return f"Decoder({shown(self.href)!r}, {self.checksum!r})"


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
class BandPlace:
    """What differs for one band from the asset's fields; see :mod:`stac_latent.cube.read.band_views`."""

    shape: tuple[int, int] | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    group: str = ""
    """Group of the store that holds its latents; empty: the store itself."""
    dimensions: int | None = None
    """Channels of a cell in that group."""


def band_places(fields: Mapping[str, Any]) -> tuple[BandPlace | None, ...]:
    """Places of the bands of an asset; empty where all are as the asset says.

    Raises
    ------
    CatalogError
        If a group's name is none, or its fields are not those of a grid.
    """
    out = tuple(map(_place, fields.get("bands") or ()))
    return out if any(out) else ()


def _place(band: Mapping[str, Any]) -> BandPlace | None:
    names = ("proj:shape", "proj:transform", "latent:group", "latent:dimensions")
    shape, transform, group, dimensions = (band.get(name) for name in names)
    group = "" if group is None else group
    if shape is None and transform is None and group == "":
        return None
    try:
        return _read_place(shape, transform, group, dimensions)
    except MALFORMED as exc:
        raise CatalogError(
            f"band {band.get('name')!r:.100}: latent:group {group!r:.100}, latent:dimensions {dimensions!r:.100}, proj:shape "
            f"{shape!r:.100} and proj:transform {transform!r:.200} do not tell where it is: a group is named with letters, digits, "
            "'.' and '-', and needs the other three"
        ) from exc


def _read_place(shape: Any, transform: Any, group: Any, dimensions: Any) -> BandPlace:
    size = None if shape is None else tuple(map(int, shape))
    affine = None if transform is None else tuple(map(float, transform))[:6]
    if (
        not _GROUP.fullmatch(group)
        or (group and None in (size, affine, dimensions))
        or (size is not None and (len(size) != 2 or not 0 < min(size) <= max(size) < 2**31))
        or (affine is not None and (len(affine) != 6 or not all(map(math.isfinite, affine))))
        or (dimensions is not None and not 0 < int(dimensions) < 2**31)
    ):
        raise ValueError("a value is out of range")
    return BandPlace(size, affine, group, None if dimensions is None else int(dimensions))


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
    sealed: Sealed | None = None
    """What opens its chunks; None where they are plain."""
    places: tuple[BandPlace | None, ...] = ()
    """Where the bands of several native grids are; empty where all share the asset's."""
    part: int = 0
    """Which of the codec's lattices this is."""
    layout: Layout | None = None
    """How an embedding of another producer is stored; None for a store of this package."""

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
        fields = item.assets[key].to_dict()
        spec = Spec.from_fields(fields)
        grid, layout = Grid.from_fields(fields, item.properties), layout_of(item, key)
        if layout is not None:
            grid, turned = upright(grid)
            layout = replace(layout, flip=turned)
        return cls(
            item_id=item.id,
            asset=key,
            href=_absolute(item.assets[key].href, item),
            spec=spec,
            grid=grid,
            decoder=_decoder(item, spec.space),
            reference=_key_frame(item, key),
            metadata=_text(fields, "latent:metadata_checksum"),
            masks=_text(fields, "latent:mask_chunks"),
            sealed=sealed_of(fields, key),
            places=band_places(fields),
            layout=layout,
        )

    def signed(self, sign: Sign | None) -> Self:
        """The same, with a function that signs remote addresses."""
        return self if sign is None else replace(self, sign=sign)

    def open_codec(self, *, again: bool = False) -> Codec:
        """Codec of the asset's space: from the item's link, the store's own copy, or an installed one.

        ``again`` reads it anew and runs its probe, whatever was opened or passed before.
        """
        tried: list[str] = []
        if self.decoder is not None:
            with _opening[self.spec.space]:  # several readers of one space open it once
                return _from_link(self.decoder, self.spec.space, again=again, sign=self.sign)
        tried.append(f"latent:decoder links of item {self.item_id!r} (none with this space)")
        own = inner(self.href, "bundle")
        try:
            files = {name: read_bytes(inner(own, name), limit=512 << 20, sign=self.sign) for name in FILES}
        except CatalogError:
            tried.append(shown(own))
        else:
            return remember(read_bundle(files, space=self.spec.space, where=shown(own), again=again))
        return resolve_space(self.spec.space, tried)


def as_items(items: pystac.Item | Iterable[pystac.Item], purpose: str) -> list[pystac.Item]:
    """One Item, an iterable of Items or an ItemCollection as a list; ``purpose`` is the verb that errors name.

    Raises
    ------
    CatalogError
        If there is none, or something else than Items.
    """
    found = [items] if isinstance(items, pystac.Item) else list(items)
    if not found:
        raise CatalogError(f"nothing to {purpose}: no items were given; did the search match anything?")
    if wrong := [type(i).__name__ for i in found if not isinstance(i, pystac.Item)]:
        raise CatalogError(
            f"expected pystac Items, got {wrong[0]}; read one with pystac.Item.from_file(href)"
        )
    return found


def latent_assets(item: pystac.Item) -> list[str]:
    """Keys of the Item's rasters of latents: role ``latent`` or a ``latent:kind`` field, and no table but one on a grid of cells."""
    return [
        key
        for key, asset in item.assets.items()
        if (asset.extra_fields.get("latent:kind") is not None or _has_role(asset, "latent"))
        and (not is_table({"type": asset.media_type}) or "proj:shape" in asset.extra_fields)
    ]


def _has_role(asset: pystac.Asset, role: str) -> bool:
    return isinstance(asset.roles, list) and role in asset.roles


def codec_of_item(item: pystac.Item, asset: str | None = None) -> Codec:
    """Codec that decodes an Item's latent asset, or that an MLM Item of a codec describes.

    Raises
    ------
    UnresolvedSpaceError
        If no bundle of that space is found; the message lists where it was looked for.
    """
    if asset is None and not latent_assets(item) and any(k in item.assets for k in ("codec", "weights")):
        return remember(
            _read_codec_item(item.to_dict(transform_hrefs=False), item.get_self_href() or "./item.json", None)
        )
    return LatentRef.from_item(item, asset).open_codec()


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    found = fields.get(name)
    return found if isinstance(found, str) else None


def sealed_of(fields: Mapping[str, Any], key: str) -> Sealed | None:
    """What the fields of asset ``key`` say of its encryption; None where it has none."""
    form = fields.get("latent:encryption")
    if form is None:
        return None
    names = [fields.get("latent:key_id"), fields.get("latent:wrapped_key")]
    if form != FORM or not all(isinstance(n, str) for n in names):
        raise CatalogError(
            f"asset {key!r} is encrypted with {form!r:.60}; this version reads {FORM!r}, with latent:key_id and latent:wrapped_key"
        )
    context = context_of(Spec.from_fields(fields), Grid.from_fields(fields), band_places(fields))
    return Sealed(str(names[0]), str(names[1]), context)


def _decoder(item: pystac.Item, space: str) -> Decoder | None:
    for link in item.links:
        if link.rel == "latent:decoder" and link.extra_fields.get("latent:space") == space:
            target = (
                link.target.get_self_href() if isinstance(link.target, pystac.STACObject) else link.target
            )
            if target:
                return Decoder(_absolute(str(target), item), link.extra_fields.get("file:checksum"))
    return None


def _key_frame(item: pystac.Item, key: str) -> KeyFrameLink | None:
    """Link to the key frame of an asset; None where it stands alone."""
    name = item.assets[key].extra_fields.get("latent:reference")
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
            return KeyFrameLink(_absolute(str(target), item), key)
    raise CatalogError(
        f"asset {key!r} of item {item.id!r} was coded against item {name!r}, and the item has no latent:reference link with "
        f"latent:asset {key!r}: restore the link, or encode the item again"
    )


_opening: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)


def _from_link(decoder: Decoder, space: str, *, again: bool = False, sign: Sign | None = None) -> Codec:
    if not again and (known := opened(space)) is not None:
        return known
    data = read_bytes(decoder.href, checksum=decoder.checksum, limit=_ITEM_LIMIT, sign=sign)
    try:
        doc = parse_json(data, shown(decoder.href))
    except CatalogError as exc:
        raise CatalogError(f"{exc}; a latent:decoder link points to the codec's MLM Item") from None
    return remember(_read_codec_item(doc, decoder.href, space, again=again, sign=sign))


def _read_codec_item(
    doc: Mapping[str, Any], href: str, space: str | None, *, again: bool = False, sign: Sign | None = None
) -> Codec:
    assets = doc.get("assets") if isinstance(doc, Mapping) else None
    if assets and not (isinstance(assets, Mapping) and all(isinstance(a, Mapping) for a in assets.values())):
        raise CatalogError(f"{shown(href)} is no STAC Item: its assets are not objects")
    files = {}
    for asset in (assets or {}).values():
        name = str(asset.get("href", "")).partition("?")[0].rsplit("/", 1)[-1]
        if name in FILES:
            target = check_link(absolute(asset["href"], href), href)
            files[name] = read_bytes(target, checksum=asset.get("file:checksum"), limit=512 << 20, sign=sign)
    if missing := [n for n in FILES if n not in files]:
        raise UnresolvedSpaceError(
            f"{shown(href)} has no asset {' and '.join(missing)} (assets: {', '.join(assets or {}) or 'none'}); "
            "the MLM Item of a codec lists the files of its bundle"
        )
    return read_bundle(files, space=space, where=shown(href), again=again)


def _absolute(href: str, item: pystac.Item) -> str:
    origin = item.get_self_href()
    return check_link(href if Path(href).is_absolute() else absolute(href, origin), origin)
