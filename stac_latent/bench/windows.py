"""Random access: time to read one window of pixels from a Zarr store that the package wrote."""

from __future__ import annotations

import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.bench.coder import Array
from stac_latent.codec.codec import Codec
from stac_latent.extension.schemas import PROJ_URI
from stac_latent.spec import Band
from stac_latent.window import Window

__all__ = ["run_windows"]

_CRS, _ORIGIN, _RESOLUTION = "EPSG:32633", (499_840, 5_200_000), 10


def run_windows(
    field: Array, codec: Codec, *, step: float | None = None, size: int = 512, count: int = 9
) -> dict[str, Any]:
    """Write a field as an Item, encode it, and read windows of it.

    Parameters
    ----------
    field
        ``(band, y, x)`` in the stored unit.
    codec
        A codec of its bands.
    step
        Quantiser step [stored unit], for codecs that take one.
    size
        Pixels of a side of a window.
    count
        Windows at random places, most of them across the borders of chunks.

    Returns
    -------
    dict
        Medians [ms] and extremes of ``cold`` (nothing open: metadata, codec and window), ``opened`` (the store is open, the window is
        not decoded), ``aligned`` (the same for windows that begin where chunks do) and ``warm`` (decoded before); bits per pixel and
        band of the store.
    """
    from stac_latent.catalog.encode.encode import encode
    from stac_latent.cube.read.chunk_cache import forget
    from stac_latent.cube.read.reader import LatentReader
    from stac_latent.store.zarr.group import StoreLayout

    rng = np.random.default_rng(0)
    high = [max(1, n - size) for n in field.shape[1:]]
    chunk = StoreLayout.of(codec).inner * codec.stride[0]
    places = [(int(rng.integers(high[0])), int(rng.integers(high[1]))) for _ in range(count)]
    times: dict[str, list[float]] = {"cold": [], "opened": [], "aligned": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        raw = _item(field, codec.bands, Path(folder))
        (item,) = encode(raw, codec, Path(folder) / "latents", step=step)
        opened = LatentReader.open(item)
        opened.read_field(_window((0, 0), 64, field))
        for y, x in places:
            window = _window((y, x), size, field)
            forget()
            times["cold"].append(_seconds(lambda w=window: LatentReader.open(item).read_field(w)))
            forget()
            times["opened"].append(_seconds(lambda w=window: opened.read_field(w)))
            times["warm"].append(_seconds(lambda w=window: opened.read_field(w)))
            forget()
            corner = _window((y // chunk * chunk, x // chunk * chunk), size, field)
            times["aligned"].append(_seconds(lambda w=corner: opened.read_field(w)))
        rate = item.properties.get("latent:bits_per_pixel")
        psnr = item.properties.get("latent:psnr")
    out = {k: {"median_ms": 1e3 * float(np.median(v)), "max_ms": 1e3 * max(v)} for k, v in times.items()}
    return {"pixels": size, "windows": count, "bits_per_pixel": rate, "psnr": psnr, **out}


def _window(corner: tuple[int, int], size: int, field: Array) -> Window:
    return Window.of((lo, min(lo + size, n)) for lo, n in zip(corner, field.shape[1:], strict=True))


def _seconds(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _item(field: Array, bands: tuple[Band, ...], folder: Path) -> Any:
    """Item with one GeoTIFF for each band."""
    import pystac
    import rasterio
    from affine import Affine
    from odc.geo.geobox import GeoBox

    transform = Affine(_RESOLUTION, 0, _ORIGIN[0], 0, -_RESOLUTION, _ORIGIN[1])
    box = GeoBox(field.shape[1:], transform, _CRS).geographic_extent
    item = pystac.Item("scene", box.json, list(box.boundingbox.bbox), datetime(2023, 1, 1, tzinfo=UTC), {})
    profile = {
        "driver": "GTiff", "count": 1, "height": field.shape[1], "width": field.shape[2], "dtype": field.dtype.name,
        "crs": _CRS, "transform": transform, "tiled": True, "compress": "deflate",
    }  # fmt: skip
    for x, band in zip(field, bands, strict=True):
        path = folder / f"{band.name}.tif"
        with rasterio.open(path, "w", nodata=band.nodata, **profile) as dst:
            dst.write(x, 1)
        facts: dict[str, Any] = {
            "data_type": field.dtype.name,
            "raster:scale": band.scale,
            "raster:offset": band.offset,
        }
        if band.nodata is not None:
            facts["nodata"] = "nan" if np.isnan(band.nodata) else band.nodata
        item.add_asset(
            band.name,
            pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=facts),
        )
    item.properties |= {
        "proj:code": _CRS,
        "proj:shape": list(field.shape[1:]),
        "proj:transform": list(transform)[:6],
    }
    item.stac_extensions = [PROJ_URI]
    path = folder / "item.json"
    item.set_self_href(str(path))
    path.write_text(json.dumps(item.to_dict(transform_hrefs=False)), encoding="utf-8")
    return item
