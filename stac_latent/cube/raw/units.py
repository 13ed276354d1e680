"""How stored values of a source become a codec's: scale and offset, and the type and nodata that they decode to."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pystac

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.cube.raw.asset_bands import AssetBand
from stac_latent.cube.raw.contract import Facts
from stac_latent.errors import FieldError
from stac_latent.field.validity import fits
from stac_latent.spec import Band
from stac_latent.stages.transform.normalise import Normalise

__all__ = ["computes", "decoded_band", "holding_type", "rescale", "to_codec_unit", "with_sentinel2_offset"]

_S2_OFFSET = -1000.0
_S2_BAND = re.compile(r"B(0?[1-9]|1[0-2]|8A)(_\d+m)?(-jp2)?", re.IGNORECASE)
_S2_COMMON = re.compile(r"(coastal|blue|green|red|rededge\w*|nir\d*|cirrus|swir\d+)(-jp2)?")
_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def with_sentinel2_offset(item: pystac.Item, row: AssetBand, band: Band, facts: Facts) -> Facts:
    """Facts of a Sentinel-2 reflectance with the offset that its Item leaves out, or declares although it is applied already.

    Earth Search declares the offset of processing baseline 04.00 although ``earthsearch:boa_offset_applied`` says that the
    pixels have it; other catalogues declare none, although pixels of that baseline are 1000 too high. Only integer bands B01
    to B12 and B8A, by these names or the common names of reflectances, have it.

    Parameters
    ----------
    row
        The Item's band; see :func:`stac_latent.cube.raw.asset_bands.band_table`.
    band
        The codec's.
    """
    if np.dtype(facts.data_type).kind not in "iu" or not _is_reflectance(row, band):
        return facts
    if item.properties.get("earthsearch:boa_offset_applied"):
        return replace(facts, offset=0.0) if facts.offset is not None or facts.scale is not None else facts
    if facts.offset is None and _baseline(item) >= (4, 0):
        return replace(facts, offset=_S2_OFFSET * (band.scale if facts.scale is None else facts.scale))
    return facts


def _is_reflectance(row: AssetBand, band: Band) -> bool:
    names = [str(n) for n in (row["asset"], row["names"][1], row["common"], band.name) if n]
    return any(_S2_BAND.fullmatch(n) or _S2_COMMON.fullmatch(n) for n in names)


def _baseline(item: pystac.Item) -> tuple[int, int]:
    text = str(item.properties.get("s2:processing_baseline", "0.0"))
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _as_stored(codec: Codec, band: Band) -> bool:
    if band.name in codec.untyped:
        return True
    return (band.scale, band.offset) == (1.0, 0.0) and np.dtype(band.data_type).kind in "iu"


def rescale(codec: Codec, band: Band, facts: Facts) -> tuple[float, float]:
    """Gain and shift from stored values to those of the codec's band; integers of a band without a scale stay as they are."""
    if _as_stored(codec, band) or facts.scale is facts.offset is None:
        return 1.0, 0.0
    scale = band.scale if facts.scale is None else facts.scale
    return _snap(scale / band.scale), _snap(((facts.offset or 0.0) - band.offset) / band.scale)


def _snap(v: float) -> float:
    """Whole numbers that decimal fractions blurred."""
    return float(round(v)) if math.isclose(v, round(v), rel_tol=1e-9, abs_tol=1e-9) else v


def decoded_band(
    item: pystac.Item,
    codec: Codec,
    band: Band,
    facts: Facts,
    *,
    gain: float,
    shift: float,
    bounded: bool = False,
) -> Band:
    """The band as it is decoded: of the source where it is coded as it is stored, else of the codec.

    Under an error bound (``bounded``) floats that no scale brings to the unit of a band of integers are decoded to their own
    type and scale: the residual keeps them, and the latents are of the same numbers in the codec's unit.

    Raises
    ------
    FieldError
        If the codec cannot take the source's type, or has no place for its nodata.
    """
    out = replace(band, unit=band.unit or facts.unit)
    if _as_stored(codec, band):
        out = replace(band, unit=facts.unit or band.unit)
    if _as_stored(codec, band) and facts.scale is not None:
        out = replace(out, scale=facts.scale, offset=facts.offset or 0.0)
    stated = band.nodata if facts.nodata == band.nodata else facts.nodata  # 0 and 0.0 are of two spaces
    if band.name in codec.untyped:
        return replace(out, data_type=facts.data_type, nodata=stated)
    source, target = np.dtype(facts.data_type), np.dtype(band.data_type)
    if source.kind == "f" and target.kind != "f" and (gain, shift) == (1.0, 0.0):
        out, target = _unscaled(item, codec, out, facts, bounded=bounded), source
    if facts.nodata is None:
        nodata = None if source.kind != "f" or target.kind == "f" else _stand_in(band)
        return replace(out, nodata=nodata)
    if target.kind in "fc":
        return replace(out, nodata=math.nan)
    if fits(facts.nodata, target):
        return replace(out, nodata=stated)
    if not math.isfinite(facts.nodata):
        return replace(out, nodata=_stand_in(band))
    if computes(codec):
        like = source if source.kind in "iu" and (gain, shift) == (1.0, 0.0) else target
        return replace(out, data_type=holding_type([facts.nodata], like), nodata=facts.nodata)
    raise FieldError(
        f"band {band.name!r} of item {item.id!r} has nodata {facts.nodata:g}; codec {codec.name!r} stores it as {target}, which "
        "cannot hold that. Give the band's name without a type, so that it has the file's, or a type that holds it"
    )


def _unscaled(item: pystac.Item, codec: Codec, band: Band, facts: Facts, *, bounded: bool) -> Band:
    """A band of integers, decoded to the floats that a residual keeps; refused where there is none."""
    if bounded and computes(codec):
        scale, offset = 1.0 if facts.scale is None else facts.scale, facts.offset or 0.0
        return replace(band, data_type=facts.data_type, scale=scale, offset=offset, unit=facts.unit)
    keep = "keep them as they are with error_bound= (--error-bound), " if computes(codec) else ""
    raise FieldError(
        f"band {band.name!r} of item {item.id!r} is {facts.data_type}; codec {codec.name!r} takes {band.data_type}. "
        f"Give the asset a raster:scale that leads to the codec's unit, {keep}or choose a codec for such values"
    )


def _stand_in(band: Band) -> float:
    """Nodata of integers whose source has NaN: the codec's own, or the lowest value of its type."""
    return float(np.iinfo(band.data_type).min) if band.nodata is None else band.nodata


def computes(codec: Codec) -> bool:
    """Whether a codec computes with numbers, so that its pixels may be decoded to another type than its own."""
    return isinstance(codec.stages[0], Normalise)


def holding_type(values: list[float], like: np.dtype[Any]) -> str:
    """The smallest integer type that holds some values, and is at least as large as another; text."""
    info = np.iinfo(like)
    if all(info.min <= v <= info.max for v in values):
        return like.name
    for name in _TYPES:
        info = np.iinfo(name)
        if np.dtype(name).itemsize >= like.itemsize and all(info.min <= v <= info.max for v in values):
            return name
    raise FieldError(f"no integer type holds the values {', '.join(f'{v:g}' for v in values)}")


def to_codec_unit(raw: Array, valid: Array, *, gain: float, shift: float, target: np.dtype[Any]) -> Array:
    """Values ``(y, x)`` in the codec's unit, 0 where not valid: as they are, or rounded where ``target`` is an integer type."""
    if (gain, shift) == (1.0, 0.0):
        return np.where(valid, raw, raw.dtype.type(0))
    value = raw.astype(np.result_type(raw.dtype, np.float64)) * gain + shift
    value[~valid] = 0
    if target.kind in "fc":
        return value.astype(target)
    value = np.rint(value)
    small = not value.size or float(np.abs(value).max()) < 2**31
    return value.astype(np.int32 if small else np.int64)
