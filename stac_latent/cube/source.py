"""Where the pixels come from: the bands of one Item, read from its files in the unit that the codec expects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pystac
from odc.geo.geobox import GeoBox

from stac_latent.access import asset_href
from stac_latent.codec import Array, Codec
from stac_latent.crs import crs_text
from stac_latent.cube.asset_bands import assign, described
from stac_latent.cube.band_names import check_names
from stac_latent.cube.grids import arrange, asset_geobox, check_resampling, cover, native_geobox, offset_of
from stac_latent.cube.rasters import RasterFile
from stac_latent.cube.raw import check_raw_asset
from stac_latent.cube.tiling import lattice_grid
from stac_latent.errors import FieldError, GridError
from stac_latent.spec import Band, Grid, Window

__all__ = ["ItemSource", "SourceBand", "find_bands"]

_THREADS = 8
"""Files of an Item that are read at once."""
_S2_OFFSET = -1000.0
_AREAS = frozenset(("average", "mode", "max", "min", "med", "q1", "q3", "sum", "rms"))
"""Ways to resample that look at all of a pixel."""


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
    """Match each band of the codec to a band of the Item; see :func:`stac_latent.cube.asset_bands.assign`.

    Parameters
    ----------
    names
        Asset keys (or ``asset.2`` for its second band) by the codec's band names, where matching would not find them.

    Raises
    ------
    CatalogError
        If bands are missing or several fit; the message names them and what the Item has.
    """
    found = []
    gsd = item.properties.get("gsd")
    for band, hit in zip(codec.bands, assign(item, codec.bands, codec.name, names), strict=True):
        gain, shift = _rescale(item, hit["meta"], band)
        nodata = hit["meta"].get("nodata", band.nodata)
        decoded = described(_decoded_band(item, hit["meta"], band), hit, gsd)
        found.append(
            SourceBand(
                band, hit["asset"], hit["index"], str(hit["meta"].get("data_type", band.data_type)),
                None if nodata is None else float(nodata), gain, shift, decoded,
            )
        )  # fmt: skip
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
        infinite: bool = False,
    ) -> None:
        self.item, self.codec = item, codec
        self.resampling, self.infinite = resampling, infinite
        check_resampling(resampling, resolution)
        check_names([b.name for b in codec.bands], f"codec {codec.name!r}")
        self.bands = find_bands(item, codec, bands)
        for key in {b.asset for b in self.bands}:
            check_raw_asset(item, key)
        self._check_types()
        self.boxes = [asset_geobox(item, b.asset) for b in self.bands]
        self._files = [
            RasterFile(asset_href(item.assets[b.asset]), box)
            for b, box in zip(self.bands, self.boxes, strict=True)
        ]
        if max(codec.steps) == 1:
            boxes = {b.name: g for b, g in zip(self.bands, self.boxes, strict=True)}
            self.native = native_geobox(item.id, boxes, resolution)
            if resolution is not None:
                self.boxes = [self.native] * len(self.bands)
        else:
            self._check_nest(resolution)
            self.native = cover(self.boxes, codec.steps)
        crs, t = crs_text(self.native.crs), self.native.affine
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
        layers, masks = [], []
        for b, step, found in zip(self.bands, self.codec.steps, self._stored(window), strict=True):
            raw, inside = (v if step == 1 else v.repeat(step, axis=0).repeat(step, axis=1) for v in found)
            valid = np.ones(raw.shape, bool) if b.nodata is None or math.isnan(b.nodata) else raw != b.nodata
            if raw.dtype.kind == "f":
                valid &= ~np.isnan(raw) if self.infinite else np.isfinite(raw)
            layers.append(_to_codec_unit(raw, b, valid))
            masks.append(valid & inside)
        field, valid = np.stack(layers), np.stack(masks)
        return field, valid[:1] if (valid == valid[:1]).all() else valid

    def _stored(self, window: Window) -> list[tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]]:
        """Stored values of each band in its own pixels, and which of these its file holds; bands of one file are read at once."""
        groups: dict[Any, list[int]] = {}
        for k, (b, step) in enumerate(zip(self.bands, self.codec.steps, strict=True)):
            groups.setdefault((b.asset, step, b.data_type, b.nodata), []).append(k)
        with ThreadPoolExecutor(min(len(groups), _THREADS)) as pool:
            read = pool.map(lambda members: self._of_file(members, window), groups.values())
            found = dict(pair for pairs in read for pair in pairs)
        return [found[k] for k in range(len(self.bands))]

    def _of_file(
        self, members: Sequence[int], window: Window
    ) -> list[tuple[int, tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]]]:
        """Position, values and extent of bands of one file."""
        first = members[0]
        file, band, step, box = (
            self._files[first],
            self.bands[first],
            self.codec.steps[first],
            self.boxes[first],
        )
        index = [self.bands[k].index for k in members]
        top, left = offset_of(self.native.affine, box.affine)
        starts = (self.grid.lead[0] + top, self.grid.lead[1] + left)
        spans = [
            ((lo - start) // step, (hi - start) // step)
            for (lo, hi), start in zip(window, starts, strict=True)
        ]
        (y0, y1), (x0, x1) = spans
        rows, columns = (
            (max(0, lo), max(0, lo, min(hi, n))) for (lo, hi), n in zip(spans, box.shape.yx, strict=True)
        )
        out = np.zeros((len(members), y1 - y0, x1 - x0), band.data_type)
        inside = np.zeros(out.shape[1:], bool)
        part = np.s_[rows[0] - y0 : rows[1] - y0, columns[0] - x0 : columns[1] - x0]
        if inside[part].size:
            inside[part] = True
            if box is file.box:
                out[:, *part] = file.read(index, (rows, columns), band.data_type)
            else:
                out[:, *part] = file.resampled(
                    index,
                    box,
                    (rows, columns),
                    band.data_type,
                    resampling=self.resampling,
                    nodata=band.nodata,
                )
                inside &= _reached(box, file.box, spans, self.resampling)
        return [(k, (plane, inside)) for k, plane in zip(members, out, strict=True)]


def _reached(
    box: GeoBox, file: GeoBox, spans: Sequence[tuple[int, int]], resampling: str
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Pixels (y, x) of a grid that a file of the same CRS reaches: by their centres, or by any part where areas are summed."""
    y, x = (np.arange(lo, hi) + 0.5 for lo, hi in spans)
    to_file = ~file.affine * box.affine
    column, row = to_file * np.meshgrid(x, y)
    part = 0.5 if resampling in _AREAS else 0.0
    dx, dy = part * (abs(to_file.a) + abs(to_file.b)), part * (abs(to_file.d) + abs(to_file.e))
    inside = (row > -dy) & (row < file.shape.y + dy) & (column > -dx) & (column < file.shape.x + dx)
    return np.asarray(inside)


def _to_codec_unit(raw: Array, b: SourceBand, valid: np.ndarray[Any, np.dtype[np.bool_]]) -> Array:
    target = np.dtype(b.band.data_type)
    if (b.gain, b.shift) == (1.0, 0.0):
        return np.where(valid, raw, 0).astype(raw.dtype)
    value = raw.astype(np.float64) * b.gain + b.shift
    value[~valid] = 0
    return np.rint(value).astype(np.int32) if target.kind in "iu" else value.astype(target)
