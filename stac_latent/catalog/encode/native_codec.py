"""Which codec an Item's bands are coded with: of its files' types where the codec names bands only, and of its native grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pystac

from stac_latent.codec.codec import Codec
from stac_latent.codec.native_grids import native_codec
from stac_latent.codec.registry import remember
from stac_latent.cube.grid.native_grids import arrange
from stac_latent.cube.raw.contract import Trust
from stac_latent.cube.raw.source import SourceBand, find_bands
from stac_latent.errors import FieldError
from stac_latent.spec import Band
from stac_latent.stages.classical import Zstd
from stac_latent.stages.lin.stage import Lin

__all__ = ["codec_for"]


def codec_for(
    item: pystac.Item,
    codec: Codec,
    names: Mapping[str, str] | None = None,
    trust: Trust | None = None,
    *,
    native: bool = True,
    bounded: bool = False,
) -> Codec:
    """The codec for an Item: itself where it fits, else the same for the types and the native grids of the Item's bands.

    Parameters
    ----------
    item
        With raster assets.
    codec
        Made for bands of one grid, or for native grids already.
    names, trust
        See :func:`stac_latent.cube.raw.source.find_bands`.
    native
        Whether bands keep their native grids; else they are resampled to one.
    bounded
        Whether a residual keeps an error bound.

    Returns
    -------
    Codec
        For several pixel sizes in one CRS another only for a chain of ``lin``.

    Raises
    ------
    FieldError
        If bands that were given by name alone are floats, and the chain is for integers of an unknown unit.
    """
    bands = find_bands(item, codec, names, trust, bounded=bounded)
    if codec.untyped:
        codec = _typed(item, codec, bands, bounded=bounded)
    if not native or type(codec.tail) is not Lin or codec.tail.lattices is not None:
        return codec
    boxes = [band.box for band in bands]
    order, lattices = arrange(boxes)
    if lattices == ((len(boxes),),) or len({str(b.crs) for b in boxes}) > 1:
        return codec
    metric = boxes[0].crs is not None and boxes[0].crs.projected
    sizes = [abs(boxes[i].affine.a) if metric else None for i in order]
    return remember(native_codec(codec, order, lattices, sizes))


def _typed(item: pystac.Item, codec: Codec, found: Sequence[SourceBand], *, bounded: bool) -> Codec:
    """The same chain for bands of the files' types and nodata."""
    own = tuple(_of_source(b.band, b.decoded) if b.band.name in codec.untyped else b.band for b in found)
    floats = [b.name for b in own if b.name in codec.untyped and np.dtype(b.data_type).kind == "f"]
    if floats and not bounded and not isinstance(codec.stages[0], Zstd):
        raise FieldError(
            f"band(s) {', '.join(floats)} of item {item.id!r} are floats, and codec {codec.name!r} was opened without their unit: in "
            "steps made for integers they would be lost. Give error_bound= (--error-bound), fit a codec to them, or open it "
            f"with Band({floats[0]!r}, 'float32') and unit="
        )
    return remember(replace(codec, bands=own, untyped=frozenset()))


def _of_source(band: Band, decoded: Band) -> Band:
    """The band with type and nodata of its source; floats and complex values have its scale, so that they are coded as they are stored."""
    if np.dtype(decoded.data_type).kind in "fc":  # NaN is without data in any case, and no number of JSON's
        return replace(
            band, data_type=decoded.data_type, nodata=None, scale=decoded.scale, offset=decoded.offset
        )
    return replace(band, data_type=decoded.data_type, nodata=decoded.nodata)
