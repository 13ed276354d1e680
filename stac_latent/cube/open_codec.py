"""The verb ``open_codec``: a codec by its name, by its folder, or as a STAC Item links to it."""

from __future__ import annotations

from typing import Any

import pystac

from stac_latent.codec import registry
from stac_latent.codec.codec import Codec
from stac_latent.cube.decoder import read_codec_item
from stac_latent.cube.item_assets import latent_assets
from stac_latent.cube.ref import LatentRef
from stac_latent.system.suggest import known_options

__all__ = ["codec_of_item", "open_codec"]


def open_codec(name: Any, **options: Any) -> Codec:
    """Open a codec by registered name, bundle path, or from a STAC Item that links to its decoder.

    Parameters
    ----------
    name
        A name that ``stac-latent codecs`` lists, a bundle directory, or a :class:`pystac.Item`.
    **options
        Passed to the codec's factory, for instance ``bands=`` for the chains that take any; of an Item, ``asset=``.

    Raises
    ------
    CodecError
        If there is none of that name, or it does not take these options.
    UnresolvedSpaceError
        If the codec that an Item needs is not found.

    Examples
    --------
    >>> codec = open_codec("s2-10m-4b")
    >>> [b.name for b in codec.bands]
    ['B02', 'B03', 'B04', 'B08']
    """
    if isinstance(name, pystac.Item):
        return known_options()(codec_of_item)(name, **options)
    return registry.open_codec(name, **options)


def codec_of_item(item: pystac.Item, asset: str | None = None) -> Codec:
    """Codec that decodes an Item's latent asset, or that an MLM Item of a codec describes.

    Raises
    ------
    UnresolvedSpaceError
        If no bundle of that space is found; the message lists where it was looked for.
    """
    if asset is None and not latent_assets(item) and any(k in item.assets for k in ("codec", "weights")):
        return registry.remember(
            read_codec_item(item.to_dict(transform_hrefs=False), item.get_self_href() or "./item.json", None)
        )
    return LatentRef.from_item(item, asset).open_codec()
