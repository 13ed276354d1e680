"""Which codec an Item's bands are coded with where they lie on several native grids."""

from __future__ import annotations

from collections.abc import Mapping

import pystac

from stac_latent.codec import Codec
from stac_latent.cube.grids import arrange, asset_geobox
from stac_latent.cube.source import find_bands
from stac_latent.native.derive import native_codec
from stac_latent.registry import remember
from stac_latent.stages.lin import Lin

__all__ = ["on_native_grids"]


def on_native_grids(item: pystac.Item, codec: Codec, names: Mapping[str, str] | None = None) -> Codec:
    """The codec for an Item: itself where it fits, else the same for the native grids of the Item's bands.

    Parameters
    ----------
    item
        With raster assets.
    codec
        Made for bands of one grid, or for native grids already.
    names
        Asset keys by band name; see :func:`stac_latent.cube.source.find_bands`.

    Returns
    -------
    Codec
        Another only for a chain of ``lin`` and bands of several pixel sizes in one CRS.
    """
    if type(codec.tail) is not Lin or codec.tail.lattices is not None:
        return codec
    boxes = [asset_geobox(item, band.asset) for band in find_bands(item, codec, names)]
    order, lattices = arrange(boxes)
    if lattices == ((len(boxes),),) or len({str(b.crs) for b in boxes}) > 1:
        return codec
    metric = boxes[0].crs is not None and boxes[0].crs.projected
    sizes = [abs(boxes[i].affine.a) if metric else None for i in order]
    return remember(native_codec(codec, order, lattices, sizes))
