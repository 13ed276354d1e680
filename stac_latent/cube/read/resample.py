"""Decoded pixels onto any grid, bit for bit as the stock driver reads a GeoTIFF without overviews.

Where source and target share a grid, decoded pixels are copied. Otherwise the pixels that the warper can touch
are decoded into a sparse scratch GeoTIFF that has the size and place of the whole source, and odc-loader's own
rasterio reader does the rest. So every rule of nodata, alignment and resampling is the stock driver's.
"""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import rasterio
import rasterio.shutil
import rasterio.warp
from odc.geo.geobox import GeoBox
from odc.geo.overlap import ReprojectInfo, compute_reproject_roi
from odc.geo.roi import roi_is_empty, roi_shape
from odc.geo.warp import resampling_s2rio
from odc.loader import RasterSource, RioReader, resolve_dst_nodata, resolve_src_nodata
from odc.loader.types import RasterLoadParams

from stac_latent.aliases import Array
from stac_latent.cube.grid.boxes import to_pixels, to_world
from stac_latent.cube.grid.reach import reach
from stac_latent.cube.odc_private import LocalContext
from stac_latent.errors import CatalogError, GridError
from stac_latent.spec import Band, Spec
from stac_latent.window import Span, Window

__all__ = ["FieldSource", "Scratch", "check_complex", "read_onto"]

Roi = tuple[Any, Any]

# Source pixels that GDAL's kernels reach to each side, at a scale of one; averages look inside their pixel.
_RADIUS = {"nearest": 1, "bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3}
_LINEAR = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "sum")
"""Resamplings that are the same for complex values and for their real and imaginary parts."""
_SLACK = 4
"""Pixels more, for the warper's approximate transform and for small differences between PROJ builds."""
_SAMPLES = 64


@dataclass(frozen=True)
class Scratch:
    """How much memory the scratch rasters take."""

    in_memory: int = 256 * 2**20
    """Bytes of decoded pixels up to which they stay in memory; larger ones go to temporary files."""
    strip: int = 64 * 2**20
    """Bytes of decoded pixels that are held as an array at a time."""


_SCRATCH = Scratch()


class FieldSource(Protocol):
    """The part of a latent reader that is needed here."""

    @property
    def spec(self) -> Spec:
        """Bands and stride."""
        ...

    def read_field(self, window: Window | None = None, bands: Sequence[int] | None = None) -> Array:
        """``(band, y, x)`` of a pixel window, in the bands' stored unit; the caller may change it."""
        ...


def read_onto(
    reader: FieldSource,
    pixels: GeoBox,
    bands: Sequence[int],
    cfg: RasterLoadParams,
    dst: GeoBox,
    scratch: Scratch = _SCRATCH,
) -> tuple[Roi, Array]:
    """Decode what a target grid needs and bring it there; one decode serves all bands.

    Parameters
    ----------
    reader
        Decodes pixel windows.
    pixels
        Grid of the whole decoded field.
    bands
        Zero-based bands to read.
    cfg
        odc-loader's parameters: dtype, fill value, resampling.
    dst
        Target grid.
    scratch
        Memory for what is decoded on the way.

    Returns
    -------
    roi, array
        Part of ``dst`` that the source reaches, and its pixels ``(band, y, x)`` in the output type.
    """
    chosen = [reader.spec.bands[i] for i in bands]
    dtype = np.dtype(cfg.dtype if cfg.dtype is not None else chosen[0].data_type)
    if chosen[0].is_complex:
        return _by_parts(reader, pixels, bands, cfg, dst, dtype, scratch)
    far = reach(pixels, dst)
    if far is not None:
        return _warped(reader, pixels, bands, cfg, dst, far.window(dst), dtype, scratch)
    info = compute_reproject_roi(pixels, dst, ttol=0.9 if cfg.nearest else 0.05)
    paste = info.paste_ok and info.read_shrink == 1
    reaches = not roi_is_empty(info.roi_dst) and not roi_is_empty(info.roi_src)
    if reaches and paste and all(np.dtype(b.data_type) == dtype for b in chosen):
        field = reader.read_field(_window(info.roi_src), bands).astype(dtype, copy=False)
        for band, plane in zip(chosen, field, strict=True):
            _remap_nodata(plane, band, cfg)
        return info.roi_dst, field
    out = np.zeros((len(bands), *roi_shape(info.roi_dst)), dtype)
    if not reaches:
        for band, plane in zip(chosen, out, strict=True):
            _fill(plane, resolve_dst_nodata(dtype, cfg, resolve_src_nodata(band.nodata, cfg)))
        return info.roi_dst, out
    window = _window(info.roi_src) if paste else warp_window(pixels, dst[info.roi_dst], info, cfg.resampling)
    with _scratch(reader, pixels, bands, window, scratch) as paths:
        for path, plane in zip(paths, out, strict=True):
            stock = RioReader(RasterSource(path), LocalContext())
            with rasterio.Env(
                GDAL_DISABLE_READDIR_ON_OPEN="FALSE"
            ):  # CRSs that GeoTIFF has no keys for lie beside it
                roi, got = stock.read(cfg.patch(fail_on_error=True), dst)
            if roi != info.roi_dst:
                raise RuntimeError(f"the stock reader wrote {roi}, expected {info.roi_dst}")
            plane[:] = got
    return info.roi_dst, out


def check_complex(band: Band, how: str, dtype: Any) -> None:
    """Refuse to resample complex values where that ranks, counts or squares them, and types without an imaginary part.

    Raises
    ------
    GridError
        Names the resamplings that there are.
    CatalogError
        Names the way to real numbers.
    """
    if not band.is_complex:
        return
    if how not in _LINEAR:
        raise GridError(
            f"resampling={how!r} is one of real numbers, and band {band.name!r} is {band.data_type}; for complex values there are "
            f"{', '.join(_LINEAR)}"
        )
    if dtype is not None and np.dtype(dtype).kind != "c":
        raise CatalogError(
            f"band {band.name!r} is {band.data_type}, and dtype={str(dtype)!r} has no imaginary part: leave dtype= out, and take magnitude, "
            "phase or a part of what is loaded"
        )


class _Parts:
    """Complex bands as twice as many real ones: the real and the imaginary part of each in turn, both NaN without data."""

    def __init__(self, source: FieldSource) -> None:
        self._source = source
        parts = [
            replace(b, data_type=_part(np.dtype(b.data_type)).name, nodata=math.nan)
            for b in source.spec.bands
            for _ in range(2)
        ]
        self.spec: Spec = replace(source.spec, bands=tuple(parts))

    def read_field(self, window: Window | None = None, bands: Sequence[int] | None = None) -> Array:
        """``(part, y, x)`` of a pixel window, of both parts of each band."""
        chosen = range(len(self.spec.bands)) if bands is None else bands
        field = self._source.read_field(window, [i // 2 for i in chosen[::2]])
        for plane, i in zip(field, chosen[::2], strict=True):
            nodata = self._source.spec.bands[i // 2].nodata
            plane[np.isnan(plane) | (plane == nodata)] = complex(math.nan, math.nan)
        return np.stack([field.real, field.imag], axis=1).reshape(-1, *field.shape[1:])


def _part(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type of the real and the imaginary part of a complex type."""
    return np.finfo(dtype).dtype


def _by_parts(
    reader: FieldSource, pixels: GeoBox, bands: Sequence[int], cfg: RasterLoadParams, dst: GeoBox, dtype: np.dtype[Any],
    scratch: Scratch,
) -> tuple[Roi, Array]:  # fmt: skip
    """Complex bands: real and imaginary parts go the way of floats, and pixels without data take the fill value."""
    for i in bands:
        check_complex(reader.spec.bands[i], cfg.resampling, dtype)
    own = cfg.patch(dtype=_part(dtype).name, fill_value=math.nan)
    both = [j for i in bands for j in (2 * i, 2 * i + 1)]
    roi, parts = read_onto(_Parts(reader), pixels, both, own, dst, scratch)
    out = np.empty((len(bands), *parts.shape[1:]), dtype)
    out.real, out.imag = parts[::2], parts[1::2]
    out[np.isnan(out)] = math.nan if cfg.fill_value is None else cfg.fill_value
    return roi, out


def _warped(
    reader: FieldSource, pixels: GeoBox, bands: Sequence[int], cfg: RasterLoadParams, dst: GeoBox, window: Window | None,
    dtype: np.dtype[Any], scratch: Scratch,
) -> tuple[Roi, Array]:  # fmt: skip
    """All of a target grid as rasterio warps it, from the part of the source that may reach it."""
    if window is None:
        return (slice(0, 0), slice(0, 0)), np.empty((len(bands), 0, 0), dtype)
    out = np.empty((len(bands), *dst.shape.yx), dtype)
    with _scratch(reader, pixels, bands, window, scratch) as paths:
        for path, plane, i in zip(paths, out, bands, strict=True):
            src_nodata = resolve_src_nodata(reader.spec.bands[i].nodata, cfg)
            dst_nodata = resolve_dst_nodata(dtype, cfg, src_nodata)
            _fill(plane, dst_nodata)
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="FALSE"), rasterio.open(path) as src:
                rasterio.warp.reproject(
                    rasterio.band(src, 1), plane, src_nodata=src_nodata, dst_crs=str(dst.crs), dst_transform=dst.affine,
                    dst_nodata=dst_nodata, resampling=resampling_s2rio(cfg.resampling),
                )  # fmt: skip
    return (slice(0, dst.shape.y), slice(0, dst.shape.x)), out


def warp_window(src: GeoBox, dst: GeoBox, info: ReprojectInfo, resampling: str) -> Window:
    """Source pixels that GDAL's warper can read for a target grid, and a few more.

    Target points are sampled at the edges and inside. The kernel is as wide as the change of scale makes it.
    """
    ny, nx = dst.shape
    yy = np.unique(np.linspace(0, ny, min(ny, _SAMPLES) + 1))
    xx = np.unique(np.linspace(0, nx, min(nx, _SAMPLES) + 1))
    gx, gy = (v.ravel() for v in np.meshgrid(xx, yy))
    wx, wy = to_world(dst, gx, gy)
    if src.crs is not None and dst.crs is not None and src.crs != dst.crs:
        wx, wy = dst.crs.transformer_to_crs(src.crs)(wx, wy)
    with np.errstate(invalid="ignore"):  # points beyond the projection are infinite
        px, py = to_pixels(src, np.asarray(wx), np.asarray(wy))
    good = np.isfinite(px) & np.isfinite(py)
    if not good.all():
        return Window.whole(src.shape.yx)
    radius = _RADIUS.get(resampling, 3)
    roi_y, roi_x = info.roi_src
    out = []
    for v, n_dst, n_src, roi in ((py, ny, src.shape.y, roi_y), (px, nx, src.shape.x, roi_x)):
        scale = max(1.0, float(v.max() - v.min()) / n_dst)
        margin = math.ceil(radius * scale) + _SLACK
        lo = min(math.floor(v.min()), roi.start) - margin
        hi = max(math.ceil(v.max()), roi.stop) + margin
        out.append((max(0, lo), min(n_src, hi)))
    return Window.of(out)


@contextmanager
def _scratch(
    reader: FieldSource, pixels: GeoBox, bands: Sequence[int], window: Window, scratch: Scratch = _SCRATCH
) -> Iterator[list[str]]:
    """One sparse GeoTIFF for each band, as large as the whole source, filled inside the window."""
    (y0, y1), (x0, x1) = window
    chosen = [reader.spec.bands[i] for i in bands]
    row = max(1, sum(np.dtype(b.data_type).itemsize for b in chosen) * (x1 - x0))
    stride = reader.spec.stride[0]
    step = max(stride, scratch.strip // row // stride * stride)
    with _folder(in_memory=row * (y1 - y0) <= scratch.in_memory) as folder:
        paths = [f"{folder}/{i}.tif" for i in range(len(chosen))]
        files = [_create(p, pixels, b) for p, b in zip(paths, chosen, strict=True)]
        try:
            for y in range(y0, y1, step):
                strip = Window(Span(y, min(y + step, y1)), Span(x0, x1))
                field = reader.read_field(strip, bands)
                for file, band, plane in zip(files, chosen, field, strict=True):
                    file.write(plane.astype(band.data_type, copy=False), 1, window=strip)
        finally:
            for file in files:
                file.close()
        try:
            yield paths
        finally:
            for path in paths:
                rasterio.shutil.delete(path)


@contextmanager
def _folder(*, in_memory: bool) -> Iterator[str]:
    if in_memory:
        yield f"/vsimem/stac-latent-{uuid.uuid4().hex}"
        return
    with tempfile.TemporaryDirectory(prefix="stac-latent-") as folder:
        yield folder


def _create(path: str, pixels: GeoBox, band: Band) -> Any:
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape.y,
        width=pixels.shape.x,
        count=1,
        dtype=band.data_type,
        nodata=band.nodata,
        crs=str(pixels.crs),
        transform=pixels.transform,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        sparse_ok=True,
        bigtiff="if_safer",
    )


def _remap_nodata(plane: Array, band: Band, cfg: RasterLoadParams) -> None:
    src = resolve_src_nodata(band.nodata, cfg)
    dst = resolve_dst_nodata(plane.dtype, cfg, src)
    if dst is None or src == dst:
        return
    missing = np.isnan(plane) if plane.dtype.kind == "f" else np.zeros(plane.shape, bool)
    if src is not None and not math.isnan(src):
        missing |= plane == src
    plane[missing] = dst


def _fill(plane: Array, value: float | None) -> None:
    plane[:] = 0 if value is None else value


def _window(roi: Roi) -> Window:
    return Window.of((int(along.start), int(along.stop)) for along in roi)
