"""Where the pixels come from: the bands of one Item, read from its files in the unit that the codec expects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
from odc.geo.geobox import GeoBox

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.cube.band_names import check_names
from stac_latent.cube.grid.native_grids import arrange, check_resampling, cover, native_geobox, offset_of
from stac_latent.cube.grid.tiling import lattice_grid
from stac_latent.cube.raw.asset_bands import assign, described
from stac_latent.cube.raw.assets import read_header
from stac_latent.cube.raw.contract import (
    Facts,
    Trust,
    agreed_bands,
    agreed_grid,
    agreed_values,
    is_data,
    placed_by,
)
from stac_latent.cube.raw.pixels import RasterFile
from stac_latent.cube.raw.units import decoded_band, rescale, to_codec_unit, with_sentinel2_offset
from stac_latent.errors import FieldError, GridError
from stac_latent.geo.crs import crs_text
from stac_latent.spec import Band, Grid
from stac_latent.window import Window

__all__ = ["ItemSource", "SourceBand", "find_bands"]

_THREADS = 8
"""Files of an Item that are read at once."""
_KEPT = (
    "band {band.name!r} is {decoded.data_type}, and codec {codec!r} takes {band.data_type}: the residual keeps its values as they are, and "
    "the latents are of the same numbers in the codec's unit"
)
_AREAS = frozenset(("average", "mode", "max", "min", "med", "q1", "q3", "sum", "rms"))
"""Ways to resample that look at all of a pixel."""


@dataclass(frozen=True)
class SourceBand:
    """One band of an Item, matched to one of the codec's, as its file has it."""

    band: Band
    asset: str
    index: int
    """Position within the asset, from one."""
    facts: Facts
    masked: bool
    """Whether a mask of the file says which pixels hold data."""
    gain: float
    """``codec value = stored value * gain + shift``."""
    shift: float
    decoded: Band
    """The band as it is decoded; see :func:`stac_latent.cube.raw.units.decoded_band`."""
    file: RasterFile
    """Where it is read, and its grid."""
    placed: Trust
    """Whose grid that is."""
    notes: tuple[str, ...] = ()
    """Where Item and file disagreed, in words."""

    @property
    def name(self) -> str:
        """odc-stac's name of the band."""
        return self.asset if self.index == 1 else f"{self.asset}.{self.index}"

    @property
    def box(self) -> GeoBox:
        """Its grid."""
        return self.file.box


def find_bands(
    item: pystac.Item,
    codec: Codec,
    names: Mapping[str, str] | None = None,
    trust: Trust | None = None,
    *,
    bounded: bool = False,
) -> list[SourceBand]:
    """Match each band of the codec to a band of the Item, and agree with its file on what it holds.

    See :func:`stac_latent.cube.raw.asset_bands.assign` for the matching.

    Parameters
    ----------
    names
        Asset keys (or ``asset.2`` for its second band) by the codec's band names, where matching would not find them.
    trust
        See :mod:`stac_latent.cube.raw.contract`.
    bounded
        Whether a residual keeps an error bound, and so floats of bands that the codec has as integers.

    Raises
    ------
    CatalogError, FieldError, GridError
        If bands are missing or several fit, files cannot be read, or file, Item and codec contradict each other.
    """
    rows = assign(item, codec.bands, codec.name, names)
    headers = {key: read_header(item, key) for key in dict.fromkeys(row["asset"] for row in rows)}
    grids = {key: agreed_grid(item, key, header, trust) for key, header in headers.items()}
    found = []
    gsd = item.properties.get("gsd")
    for band, row in zip(codec.bands, rows, strict=True):
        key, header = row["asset"], headers[row["asset"]]
        agreed_bands(item, key, row, header)
        own = header.bands[row["index"] - 1]
        _check_complex(item, key, own.data_type, band, codec, bounded=bounded)
        facts = with_sentinel2_offset(item, row, band, agreed_values(item, band.name, row["meta"], own))
        gain, shift = rescale(codec, band, facts)
        decoded = decoded_band(item, codec, band, facts, gain=gain, shift=shift, bounded=bounded)
        box, notes = grids[key]
        if band.name not in codec.untyped and _kind(band) != "f" == _kind(decoded):
            notes = (*notes, _KEPT.format(band=band, decoded=decoded, codec=codec.name))
        masked = own.masked and not is_data(item, key, header)
        found.append(
            SourceBand(
                band, key, row["index"], facts, masked, gain, shift, described(decoded, row, gsd), RasterFile(header.href, box),
                placed_by(box, header), (*facts.notes, *notes),
            )
        )  # fmt: skip
    return found


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
    bounded
        Whether residuals keep every value: infinite ones are data then, else they count as missing; and see :func:`find_bands`.
    trust
        Which to take where the grids of Item and file contradict each other; see :mod:`stac_latent.cube.raw.contract`.

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
        bounded: bool = False,
        trust: Trust | None = None,
    ) -> None:
        self.item = item
        self.seen: Callable[[Window, Array, Array], None] | None = None
        self.resampling, self.infinite = resampling, bounded
        check_resampling(resampling, resolution)
        check_names([b.name for b in codec.bands], f"codec {codec.name!r}")
        self.bands = find_bands(item, codec, bands, trust, bounded=bounded)
        self.decoded = tuple(b.decoded for b in self.bands)
        self.codec = codec = codec.for_bands(self.decoded)
        self.notes = tuple(dict.fromkeys(n for b in self.bands for n in b.notes))
        self.boxes = [b.box for b in self.bands]
        self.placed: Trust = "item" if any(b.placed == "item" for b in self.bands) else "file"
        if max(codec.native_pixels) == 1:
            boxes = {b.name: g for b, g in zip(self.bands, self.boxes, strict=True)}
            self.native = native_geobox(item.id, boxes, resolution)
            if resolution is not None:
                if found := next(
                    (b for b in self.bands if b.decoded.is_complex and b.box != self.native), None
                ):
                    raise FieldError(
                        f"asset {found.asset!r} of item {item.id!r} holds complex values, which are not resampled before they are coded; "
                        "encode it on its own pixels (leave resolution out), and load it with resampling="
                    )
                if masked := next((b for b in self.bands if b.masked and b.box != self.native), None):
                    raise FieldError(
                        f"asset {masked.asset!r} of item {item.id!r} has a mask, which cannot be resampled; encode it on its own pixels "
                        "(leave resolution out), or write nodata where the mask leaves pixels out"
                    )
                self.boxes = [self.native] * len(self.bands)
        else:
            self._check_nest(resolution)
            self.native = cover(self.boxes, codec.native_pixels)
        crs, t = crs_text(self.native.crs), self.native.affine
        height, width = self.native.shape.yx
        self.grid: Grid = lattice_grid(crs, (t.a, t.b, t.c, t.d, t.e, t.f), (height, width), codec.stride)
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
        if len(lattices) > 1 or order != tuple(range(len(order))) or steps != self.codec.native_pixels:
            raise GridError(
                f"the grids of item {self.item.id!r} (resolutions: {sizes}) do not nest as codec {self.codec.name!r} has them: "
                f"pixels {', '.join(map(str, self.codec.native_pixels))} times the finest's, edge on edge; fit a codec to such items, or "
                "take one that was not made for native grids"
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
        for b, step, found in zip(self.bands, self.codec.native_pixels, self._stored(window), strict=True):
            raw, valid = (v if step == 1 else v.repeat(step, axis=0).repeat(step, axis=1) for v in found)
            for value in b.facts.missing:
                valid = valid & (raw != raw.dtype.type(value))
            if raw.dtype.kind in "fc":
                valid = valid & (~np.isnan(raw) if self.infinite else np.isfinite(raw))
            target = np.dtype(b.decoded.data_type)
            layers.append(to_codec_unit(raw, valid, gain=b.gain, shift=b.shift, target=target))
            masks.append(valid)
        field, valid = np.stack(layers), np.stack(masks)
        valid = valid[:1] if (valid == valid[:1]).all() else valid
        if self.seen is not None:
            self.seen(window, field, valid)
        return field, valid

    def _stored(self, window: Window) -> list[tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]]:
        """Stored values of each band in its own pixels, and which of these its file and its mask hold; files are read at once."""
        groups: dict[Any, list[int]] = {}
        for k, (b, step) in enumerate(zip(self.bands, self.codec.native_pixels, strict=True)):
            groups.setdefault((b.asset, step, b.facts, b.masked), []).append(k)
        with ThreadPoolExecutor(min(len(groups), _THREADS)) as pool:
            read = pool.map(lambda members: self._of_file(members, window), groups.values())
            found = dict(pair for pairs in read for pair in pairs)
        return [found[k] for k in range(len(self.bands))]

    def _of_file(
        self, members: Sequence[int], window: Window
    ) -> list[tuple[int, tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]]]:
        """Position, values and extent of bands of one file."""
        first = members[0]
        band, step, box = self.bands[first], self.codec.native_pixels[first], self.boxes[first]
        file, facts = band.file, band.facts
        index = [self.bands[k].index for k in members]
        top, left = offset_of(self.native.affine, box.affine)
        starts = (self.grid.lead[0] + top, self.grid.lead[1] + left)
        spans = [
            ((lo - start) // step, (hi - start) // step)
            for (lo, hi), start in zip(window, starts, strict=True)
        ]
        (y0, y1), (x0, x1) = spans
        rows, columns = held = Window.of(
            (max(0, lo), max(0, lo, min(hi, n))) for (lo, hi), n in zip(spans, box.shape.yx, strict=True)
        )
        out = np.zeros((len(members), y1 - y0, x1 - x0), facts.data_type)
        inside = np.zeros(out.shape[1:], bool)
        part = np.s_[rows[0] - y0 : rows[1] - y0, columns[0] - x0 : columns[1] - x0]
        if inside[part].size:
            inside[part] = True
            if box is file.box:
                out[:, *part] = file.read(index, held, facts.data_type)
                if band.masked:
                    inside[part] = file.read_mask(band.index, held)
            else:
                out[:, *part] = file.resampled(
                    index,
                    box,
                    held,
                    facts.data_type,
                    resampling=self.resampling,
                    missing=next(iter(facts.missing), facts.nodata),
                    nodata=facts.nodata,
                )
                inside &= _reached(box, file.box, spans, self.resampling)
        return [(k, (plane, inside)) for k, plane in zip(members, out, strict=True)]


def _check_complex(
    item: pystac.Item, key: str, data_type: str, band: Band, codec: Codec, *, bounded: bool
) -> None:
    """Refuse complex values where they would be computed with, and where the codec's band is of the other kind."""
    is_complex = np.dtype(data_type).kind == "c"
    where = f"asset {key!r} of item {item.id!r} holds {data_type} values"
    if is_complex and (bounded or not codec.takes_complex):
        taker = (
            "an error bound is one of real numbers" if bounded else f"codec {codec.name!r} takes real numbers"
        )
        raise FieldError(
            f"{where}, and {taker}: write real and imaginary part, or magnitude and phase, as bands of their own, and encode these, or "
            f"encode it with open_codec('zstd', bands=[{band.name!r}]){' and no error bound' * bounded}, which keeps complex values as they are"
        )
    if band.name not in codec.untyped and is_complex != band.is_complex:
        raise FieldError(
            f"{where}, and codec {codec.name!r} has band {band.name!r} as {band.data_type}: give the band's name without a type, so that it "
            "has the file's"
        )


def _kind(band: Band) -> str:
    return np.dtype(band.data_type).kind


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
