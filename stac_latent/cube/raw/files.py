"""Pixels of raw files as plain rasterio reads them: the truth that a stored latent is measured against.

Nothing here is shared with :mod:`stac_latent.cube.raw.source`, through which ``encode`` reads: type, nodata, masks, scale and
grid come from the file itself, and from the Item only where the file is silent. So a fault of one path shows as a
difference between the two. Grids that are no file's own are assembled by odc-stac, from what the files say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import odc.stac
import pystac
import rasterio
import rasterio.errors
import rasterio.windows
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import MemoryFile

from stac_latent.aliases import Array
from stac_latent.cube.raw.location import crs_of, moved_file, plain_item
from stac_latent.errors import CatalogError, GridError
from stac_latent.net.raster import gdal_name
from stac_latent.spec import Band, Grid
from stac_latent.system.links import asset_href, shown
from stac_latent.window import Window

if TYPE_CHECKING:
    import xarray as xr

    from stac_latent.cube.raw.contract import Trust

__all__ = ["RawFiles"]


_ALIGNED = 0.02
"""Part of a pixel by which a grid may miss the file's through rounding."""
_CHUNK = 1024
_REFLECTANCE = re.compile(
    r"(b0?[1-9]|b1[0-2]|b8a|coastal|blue|green|red|rededge\w*|nir\d*|cirrus|swir\d+)(_\d+m)?(-jp2)?",
    re.IGNORECASE,
)
"""Sentinel-2's bands, by their names and common names, that processing baseline 04.00 shifted by 1000."""


@dataclass(frozen=True)
class _RawBand:
    """One band of a file, and what it was made into."""

    href: str
    index: int
    """Position in the file, from one."""
    data_type: str
    missing: tuple[float, ...]
    """Values that the file or the Item says are no data."""
    masked: bool
    """Whether the file marks missing pixels by a mask or an alpha band."""
    gain: float
    """``value in the decoded band's unit = stored value * gain + shift``."""
    shift: float
    crs: CRS | None
    transform: Affine
    shape: tuple[int, int]
    decoded: Band
    step: int
    """Pixels of the store's grid along one of this band's."""
    kept: MemoryFile | None = None
    """What holds ``href`` where it is a virtual file."""


class RawFiles:
    """Raw pixels of the bands of one lattice, in the unit of the decoded bands.

    It is a :class:`stac_latent.cube.write.verify.Source`, as :class:`stac_latent.cube.raw.source.ItemSource` is.

    Parameters
    ----------
    item
        Item with the raw assets.
    names
        Raw band of each decoded band: an asset key, or ``<key>.<n>`` for its nth band.
    bands
        Decoded bands, in the same order.
    grid
        Grid of the store's finest pixels.
    steps
        Pixels of that grid along a pixel of each band; default: one.
    resampling
        How a grid other than the files' own was made.
    trust
        Whose CRS and corner hold where Item and file contradict each other.
    infinite
        Take infinite values for data; else they count as missing.

    Raises
    ------
    CatalogError
        If an asset is missing, or its file cannot be opened.
    GridError
        If a file lies in another CRS than the store.
    """

    def __init__(
        self,
        item: pystac.Item,
        names: Sequence[str],
        bands: Sequence[Band],
        grid: Grid,
        steps: Sequence[int] = (),
        resampling: str = "nearest",
        trust: Trust = "file",
        *,
        infinite: bool = False,
    ) -> None:
        self.item, self.grid, self.decoded = item, grid, tuple(bands)
        self._resampling, self._infinite = resampling, infinite
        rows = zip(names, bands, steps or [1] * len(bands), strict=True)
        self._bands = [_raw_band(item, name, band, step) for name, band, step in rows]
        crs = crs_of(grid)
        if trust == "item":
            self._bands = [
                _placed_by_item(b, item, name, grid, crs) for b, name in zip(self._bands, names, strict=True)
            ]
        for b in self._bands:
            if b.crs is not None and b.crs != crs:
                raise GridError(
                    f"{shown(b.href)} of item {item.id!r} lies in {b.crs.to_string()[:80]}, its latent in {grid.crs[:80]}: they "
                    "cannot be compared; encode the item again"
                )
        self._places = [_place(b, grid) for b in self._bands]

    @property
    def assembled(self) -> bool:
        """Whether a grid is no file's own, so that odc-stac assembles the pixels instead of rasterio."""
        return any(place is None for place in self._places)

    @property
    def samples(self) -> int:
        """Pixels of all bands, each on its own grid."""
        if self.assembled:
            return sum(math.prod(self.grid.shape) // b.step**2 for b in self._bands)
        return sum(math.prod(b.shape) for b in self._bands)

    def read(self, window: Window) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Pixels of a window of the padded grid.

        Parameters
        ----------
        window
            Pixels ``((y0, y1), (x0, x1))``, counted from the corner of the first cell; whole pixels of every band.

        Returns
        -------
        field, valid
            ``(band, y, x)`` in the unit of the decoded bands, 0 where there are no data, and the pixels that hold
            data, ``(1 or band, y, x)``.

        Raises
        ------
        CatalogError
            If a file cannot be read.
        """
        pairs = self._assembled(window) if self.assembled else self._stored(window)
        layers, masks = zip(*pairs, strict=True)
        field, valid = np.stack(layers), np.stack(masks)
        return field, valid[:1] if (valid == valid[:1]).all() else valid

    def _stored(self, window: Window) -> list[tuple[Array, npt.NDArray[np.bool_]]]:
        """All bands of a window, from the files' own pixels; a file of several bands is opened once, so that they share its blocks."""
        with ExitStack() as stack:
            files = {}
            for b in self._bands:
                if b.href not in files:
                    with self._naming(b.href):
                        files[b.href] = stack.enter_context(rasterio.open(b.href))
            pairs = zip(self._bands, self._places, strict=True)
            return [self._own(files[b.href], b, place, window) for b, place in pairs]

    @contextmanager
    def _naming(self, href: str) -> Iterator[None]:
        """Say which file cannot be read."""
        try:
            yield
        except rasterio.errors.RasterioError as exc:
            raise CatalogError(f"{shown(href)} of item {self.item.id!r} cannot be read: {exc}") from None

    def _own(self, src: Any, b: _RawBand, place: Any, window: Window) -> tuple[Array, npt.NDArray[np.bool_]]:
        """One band of a window, from the file's own pixels."""
        (y0, y1), (x0, x1) = window
        top, left = self.grid.lead
        row, col = (y0 - top - place[0]) // b.step, (x0 - left - place[1]) // b.step
        h, w = (y1 - y0) // b.step, (x1 - x0) // b.step
        raw, valid = np.zeros((h, w), b.data_type), np.zeros((h, w), bool)
        r0, r1, c0, c1 = max(0, row), min(b.shape[0], row + h), max(0, col), min(b.shape[1], col + w)
        if r0 < r1 and c0 < c1:
            inner = np.s_[r0 - row : r1 - row, c0 - col : c1 - col]
            part = rasterio.windows.Window(c0, r0, c1 - c0, r1 - r0)
            with self._naming(b.href):
                raw[inner] = src.read(b.index, window=part)
                valid[inner] = src.read_masks(b.index, window=part) > 0 if b.masked else True
        if b.step > 1:
            raw, valid = (v.repeat(b.step, axis=0).repeat(b.step, axis=1) for v in (raw, valid))
        return self._converted(raw, valid, b)

    def _converted(
        self, raw: Array, valid: npt.NDArray[np.bool_], b: _RawBand
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Values in the decoded band's unit, 0 where they are missing."""
        for value in b.missing:
            valid = valid & (raw != raw.dtype.type(value))
        if raw.dtype.kind in "fc":
            valid = valid & (~np.isnan(raw) if self._infinite else np.isfinite(raw))
        if (b.gain, b.shift) == (1.0, 0.0):
            return np.where(valid, raw, raw.dtype.type(0)), valid
        scaled = (
            np.where(valid, raw, raw.dtype.type(0)).astype(np.result_type(raw.dtype, np.float64)) * b.gain
            + b.shift
        )
        scaled[~valid] = 0
        whole = np.dtype(b.decoded.data_type).kind in "iu"
        return (np.rint(scaled) if whole else scaled.astype(b.decoded.data_type)), valid

    def _assembled(self, window: Window) -> list[tuple[Array, npt.NDArray[np.bool_]]]:
        """All bands of a window, resampled by odc-stac."""
        out = []
        for b, (values, reached) in zip(self._bands, self._cubes, strict=True):
            (y0, y1), (x0, x1) = ((lo // b.step, hi // b.step) for lo, hi in window)
            raw, known = values[0, y0:y1, x0:x1].values, ~np.isnan(reached[0, y0:y1, x0:x1].values)
            if b.step > 1:
                raw, known = (v.repeat(b.step, axis=0).repeat(b.step, axis=1) for v in (raw, known))
            rows, columns = (
                (np.arange(lo, hi) >= pad) & (np.arange(lo, hi) < pad + n)
                for (lo, hi), pad, n in zip(window, self.grid.lead, self.grid.shape, strict=True)
            )
            out.append(self._converted(raw, known & np.logical_and.outer(rows, columns), b))
        return out

    @cached_property
    def _cubes(self) -> list[tuple[xr.DataArray, xr.DataArray]]:
        """Each band on the padded grid of its pixel size, lazily: as stored, and as floats that are NaN where no file reaches."""
        sy, sx = self.grid.stride
        a, b, c, d, e, f = self.grid.cell_transform
        fine = Affine(a / sx, b / sy, c, d / sx, e / sy, f)
        height, width = self.grid.cells[0] * sy, self.grid.cells[1] * sx
        out = []
        for band in self._bands:
            geobox = GeoBox(
                (height // band.step, width // band.step), fine * Affine.scale(band.step), self.grid.crs
            )
            facts = {"data_type": band.data_type} | ({"nodata": band.missing[-1]} if band.missing else {})
            stored, reached = (
                odc.stac.load(
                    [plain_item(band.href, band.crs, band.transform, band.shape)], bands=["band"], geobox=geobox, resampling=self._resampling,
                    chunks={"y": _CHUNK, "x": _CHUNK}, stac_cfg={"raw": {"assets": {"band": known}}},
                )["band"]
                for known in (facts, {"data_type": "float64", "nodata": math.nan})
            )  # fmt: skip
            out.append((stored, reached))
        return out


def _raw_band(item: pystac.Item, name: str, decoded: Band, step: int) -> _RawBand:
    """Facts of a band, from its file; the Item fills in what the file does not say."""
    asset, index = _asset_of(item, name)
    href = gdal_name(asset_href(asset))
    stated = _stated(asset, index)
    try:
        with rasterio.open(href) as src:
            if index > src.count:
                raise CatalogError(
                    f"{shown(href)} has {src.count} band(s); item {item.id!r} names band {index}"
                )
            read_as = src.dtypes[index - 1].replace("complex_int16", "complex64")  # what rasterio reads it as
            facts = (read_as, src.crs, src.transform, src.shape)
            own = src.scales[index - 1], src.offsets[index - 1]
            missing = _values((src.nodatavals[index - 1], stated.get("nodata")), facts[0])
            masked = _masked(src, asset, index)
    except rasterio.errors.RasterioIOError as exc:
        raise CatalogError(f"asset {name!r} of item {item.id!r} cannot be read: {exc}") from None
    gain, shift = _conversion(item, name, stated, own, facts[0], decoded)
    return _RawBand(
        href, index, facts[0], missing, masked, gain, shift, facts[1], facts[2], facts[3], decoded, step
    )


def _placed_by_item(b: _RawBand, item: pystac.Item, name: str, grid: Grid, crs: CRS) -> _RawBand:
    """The band where the Item says that it lies; where its file says, if that alone is what the grid follows."""
    transform = (item.properties | _asset_of(item, name)[0].extra_fields).get("proj:transform")
    own = b if transform is None else replace(b, transform=Affine(*transform[:6]))
    if _place(own, grid) is None and _place(b, grid) is not None:
        own = b
    file = moved_file(b.href, crs, own.transform)
    return replace(own, crs=crs, href=file.name, kept=file)


def _values(stated: Sequence[Any], data_type: str) -> tuple[float, ...]:
    """Those nodata values that a pixel of the type can have; NaN is missing in any case."""
    out = []
    for value in stated:
        with suppress(TypeError, ValueError, OverflowError):
            number, dtype = float(value), np.dtype(data_type)
            limits = np.iinfo(dtype) if dtype.kind in "iu" else None
            whole = limits is None or (number == int(number) and limits.min <= number <= limits.max)
            if not math.isnan(number) and whole:
                out.append(number)
    return tuple(out)


def _masked(src: Any, asset: pystac.Asset, index: int) -> bool:
    """Whether a mask says which pixels are data; an alpha band that the Item describes as a band of its own is none."""
    flags = src.mask_flag_enums[index - 1]
    if MaskFlags.alpha not in flags:
        return MaskFlags.per_dataset in flags
    alphas = [i for i, c in enumerate(src.colorinterp, 1) if c is ColorInterp.alpha]
    names = [{str(v).lower() for v in _stated(asset, i, named=True).values()} for i in alphas]
    return not all(n and not n & {"alpha", "mask"} for n in names)


def _asset_of(item: pystac.Item, name: str) -> tuple[pystac.Asset, int]:
    if name in item.assets:
        return item.assets[name], 1
    key, _, number = name.rpartition(".")
    if key not in item.assets or not number.isdigit():
        raise CatalogError(
            f"item {item.id!r} has no raw band {name!r}; it has {', '.join(item.assets) or 'none'}"
        )
    return item.assets[key], int(number)


def _stated(asset: pystac.Asset, index: int, *, named: bool = False) -> dict[str, Any]:
    """What an asset says of one of its bands, in any of the forms that STAC has had; ``named``: in the band's own entry."""
    out = {} if named else dict(asset.extra_fields)
    for lists in ("eo:bands", "raster:bands", "bands"):
        entries = asset.extra_fields.get(lists) or []
        if len(entries) >= index:
            out |= {k: v for k, v in entries[index - 1].items() if v is not None}
    return out


def _conversion(
    item: pystac.Item,
    name: str,
    stated: dict[str, Any],
    own: tuple[float, float],
    data_type: str,
    decoded: Band,
) -> tuple[float, float]:
    """Gain and shift from the file's values to the decoded band's."""
    scale = stated.get("raster:scale", stated.get("scale"))
    offset = stated.get("raster:offset", stated.get("offset"))
    if scale is None and offset is None and own != (1.0, 0.0):
        scale, offset = own
    if np.dtype(data_type).kind in "iu" and _reflectance(name, stated, decoded):
        if item.properties.get("earthsearch:boa_offset_applied"):
            offset = None if scale is offset is None else 0.0
        elif offset is None and (scale is not None or decoded.scale != 1.0) and _since_04(item):
            offset = -1000.0 * float(decoded.scale if scale is None else scale)
    if scale is None and offset is None:
        return 1.0, 0.0
    gain = float(decoded.scale if scale is None else scale) / decoded.scale
    shift = (float(offset or 0.0) - decoded.offset) / decoded.scale
    return _whole(gain), _whole(shift)


def _reflectance(name: str, stated: dict[str, Any], decoded: Band) -> bool:
    names = (name, stated.get("name"), stated.get("common_name"), stated.get("eo:common_name"), decoded.name)
    return any(_REFLECTANCE.fullmatch(str(n)) for n in names if n)


def _since_04(item: pystac.Item) -> bool:
    """Whether Sentinel-2's pixels are of processing baseline 04.00 or later."""
    try:
        return float(item.properties.get("s2:processing_baseline", 0)) >= 4.0
    except (TypeError, ValueError):
        return False


def _whole(v: float) -> float:
    """Whole numbers that decimal fractions blurred."""
    return float(round(v)) if abs(v - round(v)) <= 1e-9 * max(1.0, abs(v)) else v


def _place(b: _RawBand, grid: Grid) -> tuple[int, int] | None:
    """Pixels (y, x) of the store's grid from its corner to the file's; None where it is another grid."""
    to_ours = ~Affine(*grid.transform) * b.transform
    x, y = to_ours * (0, 0)
    h, w = b.shape
    for corner in ((0, 0), (w, 0), (0, h), (w, h)):
        found = to_ours * corner
        wanted = (round(x) + corner[0] * b.step, round(y) + corner[1] * b.step)
        if math.dist(found, wanted) > _ALIGNED:
            return None
    return round(y), round(x)
