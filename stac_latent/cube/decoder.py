"""The codec behind a decoder link: an MLM Item that lists the files of a bundle, pinned by checksum."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pystac

from stac_latent.codec.bundle import FILES, read_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import opened, remember
from stac_latent.cube.foreign_layout import absolute_href
from stac_latent.errors import CatalogError, UnresolvedSpaceError
from stac_latent.extension import DECODER_REL, ENCODER_REL
from stac_latent.net.fetch import Sign, inner
from stac_latent.net.hrefs import read_bytes
from stac_latent.system.documents import parse_json
from stac_latent.system.links import absolute, check_link, shown

__all__ = ["Decoder", "codec_in_store", "decoder_of", "read_codec_item"]

_ITEM_LIMIT = 8 << 20
_BUNDLE_LIMIT = 512 << 20
_opening: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
"""One lock for each space that is being opened."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A ``latent:decoder`` link: the MLM Item of a codec bundle, pinned by checksum."""

    href: str
    checksum: str | None = None

    def __repr__(self) -> str:
        return f"Decoder({shown(self.href)!r}, {self.checksum!r})"

    def open(self, space: str, *, refresh: bool = False, sign: Sign | None = None) -> Codec:
        """Codec that the link leads to; several readers of one space open it once.

        ``refresh`` reads it anew and runs its probe, whatever was opened or passed before.

        Raises
        ------
        CatalogError, UnresolvedSpaceError
            If there is none, or one of another space.
        """
        with _opening[space]:
            if not refresh and (codec := opened(space)) is not None:
                return codec
            data = read_bytes(self.href, checksum=self.checksum, limit=_ITEM_LIMIT, sign=sign)
            try:
                doc = parse_json(data, shown(self.href))
            except CatalogError as exc:
                raise CatalogError(f"{exc}; a latent:decoder link points to the codec's MLM Item") from None
            return remember(read_codec_item(doc, self.href, space, refresh=refresh, sign=sign))


def decoder_of(item: pystac.Item, space: str) -> Decoder | None:
    """Link of an Item to the codec of a space, that decodes it or, of an embedding, encoded it; None where it has none."""
    for link in item.links:
        if link.rel in (DECODER_REL, ENCODER_REL) and link.extra_fields.get("latent:space") == space:
            target = (
                link.target.get_self_href() if isinstance(link.target, pystac.STACObject) else link.target
            )
            if target:
                return Decoder(absolute_href(str(target), item), link.extra_fields.get("file:checksum"))
    return None


def codec_in_store(href: str, space: str, *, refresh: bool = False, sign: Sign | None = None) -> Codec | None:
    """Codec of which a store holds a copy of its own; None where it holds none."""
    folder = inner(href, "bundle")
    try:
        files = {name: read_bytes(inner(folder, name), limit=_BUNDLE_LIMIT, sign=sign) for name in FILES}
    except CatalogError:
        return None
    return remember(read_bundle(files, space=space, where=shown(folder), refresh=refresh))


def read_codec_item(
    doc: Mapping[str, Any], href: str, space: str | None, *, refresh: bool = False, sign: Sign | None = None
) -> Codec:
    """Codec of the bundle that an MLM Item lists.

    Parameters
    ----------
    doc, href
        The Item, and where it was read.
    space
        Digest that the bundle must have; None for any.
    refresh
        Whether its probe is run whatever was passed before.
    sign
        Signs remote addresses.

    Raises
    ------
    CatalogError
        If it is no Item.
    UnresolvedSpaceError
        If it does not list the files of a bundle.
    """
    assets = doc.get("assets") if isinstance(doc, Mapping) else None
    if assets and not (isinstance(assets, Mapping) and all(isinstance(a, Mapping) for a in assets.values())):
        raise CatalogError(f"{shown(href)} is no STAC Item: its assets are not objects")
    files = {}
    for asset in (assets or {}).values():
        name = str(asset.get("href", "")).partition("?")[0].rsplit("/", 1)[-1]
        if name in FILES:
            target = check_link(absolute(asset["href"], href), href)
            files[name] = read_bytes(
                target, checksum=asset.get("file:checksum"), limit=_BUNDLE_LIMIT, sign=sign
            )
    if missing := [n for n in FILES if n not in files]:
        raise UnresolvedSpaceError(
            f"{shown(href)} has no asset {' and '.join(missing)} (assets: {', '.join(assets or {}) or 'none'}); "
            "the MLM Item of a codec lists the files of its bundle"
        )
    return read_bundle(files, space=space, where=shown(href), refresh=refresh)
