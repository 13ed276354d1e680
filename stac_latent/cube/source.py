"""Where the pixels come from: the bands of one Item as a lazy odc-stac cube, in the unit that the codec expects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import odc.stac
import pystac
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent.codec import Array, Codec
from stac_latent.cube.asset_bands import band_lists, band_table, match
from stac_latent.cube.grids import arrange, asset_geobox, cover, crs_code, native_geobox, offset_of
from stac_latent.cube.raw import check_raw_asset
from stac_latent.cube.tiling import lattice_grid
from stac_latent.errors import CatalogError, FieldError, GridError
from stac_latent.spec import Band, Grid, Window

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ItemSource", "SourceBand", "find_bands"]

_CHUNK = 1024
_S2_OFFSET = -1000.0


@dataclass(frozen=True)
class SourceBand:
    """One band of an Item, matched to one of the codec's."""

    band: Band
    asset: str
    index: int
    """Position within the asset, from one."""
    data_type: str
    nodata: float | None
    gain: float
    """``codec value = stored value * gain + shift``."""
    shift: float
    decoded: Band
    """The codec's band, with the Item's scale and offset where it is coded as it is stored."""

    @property
    def name(self) -> str:
        """odc-stac's name of the band."""
        return self.asset if self.index == 1 else f"{self.asset}.{self.index}"


def find_bands(item: pystac.Item, codec: Codec, names: Mapping[str, str] | None = None) -> list[SourceBand]:
    """Match each band of the codec to a band of the Item.

    A codec's band is looked for as an asset key, a band's name, a common name, and the stem of an asset's file.

    Parameters
    ----------
    names
        Asset keys (or ``asset.2`` for its second band) by the codec's band names, where matching would not find them.

    Raises
    ------
    CatalogError
        If bands are missing; the message names them and what the Item has.
    """
    table = band_table(item)
    found, missing = [], []
    for band in codec.bands:
        wanted = (names or {}).get(band.name)
        hit = (
            match(band, table)
            if wanted is None
            else next((e for e in table if wanted in e["names"][:1]), None)
        )
        if hit is None:
            missing.append(wanted or band.name)
            continue
        gain, shift = _rescale(item, hit["meta"], band)
        nodata = hit["meta"].get("nodata", band.nodata)
        found.append(
            SourceBand(
                band, hit["asset"], hit["index"], str(hit["meta"].get("data_type", band.data_type)),
                None if nodata is None else float(nodata), gain, shift, _decoded_band(item, hit["meta"], band),
            )
        )  # fmt: skip
    if missing:
        have = sorted({e["names"][0] for e in table})
        raise CatalogError(
            f"item {item.id!r} lacks band(s) {', '.join(missing)} of codec {codec.name!r}; it has {', '.join(have) or 'none'}. "
            "Name the assets with bands={'"
            + missing[0]
            + "': 'asset key'}, or choose a codec for these bands"
        )
    return found


def _rescale(item: pystac.Item, meta: Mapping[str, Any], band: Band) -> tuple[float, float]:
    """Gain and shift from the Item's stored values to the codec's.

    The Item's scale and offset are applied as STAC says. Two Sentinel-2 habits are honoured: Earth Search declares
    the offset of processing baseline 04.00 although ``earthsearch:boa_offset_applied`` says that the pixels have it
    already, and other catalogues declare no offset although the baseline asks for -1000. Integer bands of a codec
    that states no scale of its own are coded as they are stored.
    """
    if _as_stored(band):
        return 1.0, 0.0
    scale, offset = _declared(item, meta, band)
    if scale is None and offset is None:
        return 1.0, 0.0
    scale, offset = float(scale if scale is not None else band.scale), float(offset or 0.0)
    gain, shift = scale / band.scale, (offset - band.offset) / band.scale
    return _snap(gain), _snap(shift)


def _as_stored(band: Band) -> bool:
    return (band.scale, band.offset) == (1.0, 0.0) and np.dtype(band.data_type).kind in "iu"


def _decoded_band(item: pystac.Item, meta: Mapping[str, Any], band: Band) -> Band:
    scale, offset = _declared(item, meta, band) if _as_stored(band) else (None, None)
    if scale is None:
        return band
    return replace(band, scale=float(scale), offset=float(offset or 0.0))


def _declared(item: pystac.Item, meta: Mapping[str, Any], band: Band) -> tuple[float | None, float | None]:
    """Scale and offset of the Item's stored values; None where nothing is declared."""
    scale, offset = meta.get("raster:scale", meta.get("scale")), meta.get("raster:offset", meta.get("offset"))
    if item.properties.get("earthsearch:boa_offset_applied"):
        offset = 0.0
    elif offset is None and _baseline(item) >= (4, 0):
        offset = _S2_OFFSET * float(scale if scale is not None else band.scale)
    return scale, offset


def _snap(v: float) -> float:
    """Whole numbers that decimal fractions blurred."""
    return float(round(v)) if math.isclose(v, round(v), rel_tol=1e-9, abs_tol=1e-9) else v


def _baseline(item: pystac.Item) -> tuple[int, int]:
    text = str(item.properties.get("s2:processing_baseline", "0.0"))
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


class ItemSource:
    """Pixels of one Item on its native grid, padded to whole cells, read window by window.

    Where the codec's bands have pixels of several sizes, each is read on its own grid, and larger pixels are repeated on
    the finest ones.

    Parameters
    ----------
    item
        STAC Item with raw raster assets.
    codec
        Tells the bands, their unit and the stride; one of the ``parts`` of a codec of several lattices.
    bands
        See :func:`find_bands`.
    resolution, resampling
        Target resolution (units of the CRS) where the bands' native grids differ, and how to get there.
    chunk
        Pixels that are read at once, along each axis.
    infinite
        Take infinite values for data; else they count as missing.

    Raises
    ------
    CatalogError, GridError, FieldError
        If bands are missing, there is no single grid, or the data type does not fit the codec.
    """

    def __init__(
        self,
        item: pystac.Item,
        codec: Codec,
        bands: Mapping[str, str] | None = None,
        resolution: float | None = None,
        resampling: str = "nearest",
        chunk: int = _CHUNK,
        infinite: bool = False,
    ) -> None:
        self.item, self.codec = item, codec
        self._resampling, self._chunk, self._infinite = resampling, chunk, infinite
        self.bands = find_bands(item, codec, bands)
        for key in {b.asset for b in self.bands}:
            check_raw_asset(item, key)
        self._check_types()
        self.boxes = [asset_geobox(item, b.asset) for b in self.bands]
        if max(codec.steps) == 1:
            boxes = {b.name: g for b, g in zip(self.bands, self.boxes, strict=True)}
            self.native = native_geobox(item.id, boxes, resolution)
            self.boxes = [self.native] * len(self.bands)
        else:
            self._check_nest(resolution)
            self.native = cover(self.boxes, codec.steps)
        crs, t = crs_code(self.native), self.native.affine
        height, width = self.native.shape.yx
        self.grid: Grid = lattice_grid(crs, (t.a, t.b, t.c, t.d, t.e, t.f), (height, width), codec.stride)
        self.decoded = tuple(b.decoded for b in self.bands)
        self.samples = sum(math.prod(g.shape.yx) for g in self.boxes)

    def _check_nest(self, resolution: float | None) -> None:
        sizes = ", ".join(
            f"{b.name} {abs(g.affine.a):g}" for b, g in zip(self.bands, self.boxes, strict=True)
        )
        if resolution is not None:
            raise GridError(
                f"codec {self.codec.name!r} codes bands on their native grids (resolutions: {sizes}); leave resolution out"
            )
        order, lattices = arrange(self.boxes)
        steps = tuple(1 << d for d, n in enumerate(lattices[0]) for _ in range(n))
        if len(lattices) > 1 or order != tuple(range(len(order))) or steps != self.codec.steps:
            raise GridError(
                f"the grids of item {self.item.id!r} (resolutions: {sizes}) do not nest as codec {self.codec.name!r} has them: "
                f"pixels {', '.join(map(str, self.codec.steps))} times the finest's, edge on edge; fit a codec to such items, or "
                "take one that was not made for native grids"
            )

    def _check_types(self) -> None:
        for b in self.bands:
            source, target = np.dtype(b.data_type), np.dtype(b.band.data_type)
            if source.kind == "c" or (
                source.kind == "f" and target.kind != "f" and (b.gain, b.shift) == (1.0, 0.0)
            ):
                raise FieldError(
                    f"band {b.band.name!r} of item {self.item.id!r} is {source}; codec {self.codec.name!r} takes {target}. "
                    "Give the asset a raster:scale that leads to the codec's unit, or choose a codec for such values"
                )

    @cached_property
    def _cubes(self) -> dict[int, xr.Dataset]:
        """Bands of each pixel size, on the padded grid of that size."""
        return {step: self._cube(step) for step in dict.fromkeys(self.codec.steps)}

    def _cube(self, step: int) -> xr.Dataset:
        top, bottom, left, right = self.grid.padding
        a, b, c, d, e, f = self.grid.transform
        t = Affine(a, b, c - a * left - b * top, d, e, f - d * left - e * top)
        shape = (self.grid.shape[0] + top + bottom, self.grid.shape[1] + left + right)
        geobox = GeoBox((shape[0] // step, shape[1] // step), t * Affine.scale(step), self.native.crs)
        size = -(-self._chunk // self.codec.stride[0]) * self.codec.stride[0] // step
        bands = [b for b, s in zip(self.bands, self.codec.steps, strict=True) if s == step]
        item = self.item.clone()
        # odc-stac skips what lies outside the footprint, and footprints in catalogues are drawn by hand.
        item.geometry = self.native.geographic_extent.buffer(0.02).json
        item.set_self_href(self.item.get_self_href())
        return odc.stac.load(
            [item],
            bands=[b.name for b in bands],
            geobox=geobox,
            resampling=self._resampling,
            chunks={"y": size, "x": size},
            stac_cfg=_stac_cfg(self.item, bands),
        )

    def read(self, window: Window) -> tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Pixels of a window of the padded grid.

        Parameters
        ----------
        window
            Pixels, counted from the corner of the first cell; whole pixels of every band.

        Returns
        -------
        field, valid
            ``(band, y, x)`` in the codec's unit, whole numbers where its bands hold integers, and the pixels that
            hold data, ``(1 or band, y, x)``.
        """
        (y0, y1), (x0, x1) = window
        rows, columns = self.native.dimensions  # latitude and longitude in geographic CRSs
        parts = {
            s: cube.isel({rows: slice(y0 // s, y1 // s), columns: slice(x0 // s, x1 // s)}).compute()
            for s, cube in self._cubes.items()
        }
        layers, masks = [], []
        for b, step, box in zip(self.bands, self.codec.steps, self.boxes, strict=True):
            raw = parts[step][b.name].values[0]
            if step > 1:
                raw = raw.repeat(step, axis=0).repeat(step, axis=1)
            valid = np.ones(raw.shape, bool) if b.nodata is None or math.isnan(b.nodata) else raw != b.nodata
            if raw.dtype.kind == "f":
                valid &= ~np.isnan(raw) if self._infinite else np.isfinite(raw)
            layers.append(_to_codec_unit(raw, b, valid))
            masks.append(valid & self._inside(window, box, step))
        field, valid = np.stack(layers), np.stack(masks)
        return field, valid[:1] if (valid == valid[:1]).all() else valid

    def _inside(self, window: Window, box: GeoBox, step: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Pixels of a window that lie on a band's own grid."""
        (y0, y1), (x0, x1) = window
        top, left = offset_of(self.native.affine, box.affine)
        rows = np.arange(y0, y1) - self.grid.lead[0] - top
        cols = np.arange(x0, x1) - self.grid.lead[1] - left
        return np.logical_and.outer(
            (rows >= 0) & (rows < box.shape.y * step), (cols >= 0) & (cols < box.shape.x * step)
        )


def _to_codec_unit(raw: Array, b: SourceBand, valid: np.ndarray[Any, np.dtype[np.bool_]]) -> Array:
    target = np.dtype(b.band.data_type)
    if (b.gain, b.shift) == (1.0, 0.0):
        return np.where(valid, raw, 0).astype(raw.dtype)
    value = raw.astype(np.float64) * b.gain + b.shift
    value[~valid] = 0
    return np.rint(value).astype(np.int32) if target.kind in "iu" else value.astype(target)


def _stac_cfg(item: pystac.Item, bands: Sequence[SourceBand]) -> dict[str, Any]:
    assets: dict[str, Any] = {}
    for b in bands:
        entry: dict[str, Any] = {"data_type": b.data_type}
        if b.nodata is not None:
            entry["nodata"] = b.nodata
        single = band_lists(item.assets[b.asset])[1] == 1
        assets[b.asset if single else f"{b.asset}.*"] = (
            entry  # odc-stac reads the bands of the latter from the Item
        )
    return {item.collection_id or "_": {"assets": assets}}
