"""The verb ``open_codec``: a codec by its name, by its folder, or as a STAC Item links to it."""

from __future__ import annotations

from typing import Any

import pystac

from stac_latent.codec import registry
from stac_latent.codec.codec import Codec
from stac_latent.cube.ref import codec_of_item
from stac_latent.system.suggest import known_options

__all__ = ["open_codec"]


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
