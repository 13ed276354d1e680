"""Shared by the load tests: asymmetric scenes, their Items, and the same pixels as plain GeoTIFFs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent.catalog.encode.encode import encode
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.spec import Band, Grid, Spec

CRS = "EPSG:32633"
BANDS = (
    Band("B02", nodata=0, common_name="blue"),
    Band("B03", nodata=0, common_name="green"),
    Band("B04", nodata=0, common_name="red"),
)
NAMES = [b.name for b in BANDS]
PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
NOON = dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC)


def scene(shape=(187, 213), seed=0, n=3):
    """A (band, y, x) uint16 field without any symmetry, with a nodata corner and a hole."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    planes = [
        1500 + 6 * x + 3 * y + 400 * np.sin(x / (7 + b) + y / 23 + seed) + rng.normal(0, 60, shape)
        for b in range(n)
    ]
    field = np.clip(np.rint(planes), 1, 10000).astype(np.uint16)
    field[:, y + 2 * x < 60] = 0
    field[:, 90:104, 120:151] = 0
    return field


def pixel_grid(shape, left=400_020.0, top=5_099_980.0, res=10.0, crs=CRS):
    """Grid of a scene whose corner is, by default, not on the zone-anchored lattice."""
    return Grid(crs, (res, 0.0, left, 0.0, -res, top), shape)


def write_tiff(path, field, grid, nodata=0):
    """Save a field as a GeoTIFF without overviews."""
    options = {"height": grid.shape[0], "width": grid.shape[1], "count": len(field), "dtype": field.dtype}
    with rasterio.open(
        path, "w", driver="GTiff", crs=grid.crs, transform=Affine(*grid.transform), nodata=nodata, **options
    ) as dst:
        dst.write(field)


def stock_item(name, href, grid, *, bands=BANDS, when=NOON, key="image"):
    """An Item with one multi-band GeoTIFF, as the stock driver reads it."""
    outline = GeoBox(grid.shape, Affine(*grid.transform), grid.crs).footprint("EPSG:4326")
    item = pystac.Item(name, outline.json, list(outline.boundingbox.bbox), when, {}, stac_extensions=[PROJ])
    fields = {
        "proj:code": grid.crs,
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform),
        "bands": [b.to_stac() for b in bands],
    }
    asset = pystac.Asset(str(href), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=fields)
    item.add_asset(key, asset)
    return item


def codec_of(step=20.0, bands=BANDS):
    """A codec that loses something, so that decoded and raw pixels differ."""
    return open_codec("dct", bands=list(bands), step=step)


def encoded(folder: Path, name, field, grid, *, codec=None, when=NOON, **options):
    """Encode one scene; the catalogued Item, with the raw asset beside the latent."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.tif"
    write_tiff(path, field, grid)
    item = stock_item(name, path, grid, when=when)
    return encode(item, codec or codec_of(), folder / "catalog", **options)[0]


def decoded_tiff(item, path, asset="latent"):
    """The whole latent, decoded and saved as a GeoTIFF: what the stock driver is to read."""
    reader = LatentReader.open(item, asset)
    write_tiff(path, reader.read_field(), reader.grid)
    return stock_item(item.id, path, reader.grid, when=item.datetime)


def pair(folder: Path):
    """Two overlapping scenes of one moment: the encoded Items, and Items of the decoded GeoTIFFs."""
    latents, plain = [], []
    for i, (left, top, shape) in enumerate(
        [(400_020.0, 5_099_980.0, (187, 213)), (401_310.0, 5_099_810.0, (240, 150))]
    ):
        item = encoded(folder, f"s{i}", scene(shape, seed=i), pixel_grid(shape, left, top))
        latents.append(item)
        plain.append(decoded_tiff(item, folder / f"decoded-{i}.tif"))
    return latents, plain


class ArrayReader:
    """Reads windows of an array as the latent reader does, and notes each of them."""

    def __init__(self, field, bands=BANDS):
        self.field, self.windows = field, []
        self.spec = Spec("codec", "sha256:" + "0" * 64, len(bands), (8, 8), (0, 0), tuple(bands))

    def read_field(self, window=None, bands=None):
        assert window is not None
        self.windows.append(window)
        (y0, y1), (x0, x1) = window
        assert 0 <= y0 < y1 <= self.field.shape[1]
        assert 0 <= x0 < x1 <= self.field.shape[2]
        return self.field[list(range(len(self.field)) if bands is None else bands), y0:y1, x0:x1]


def ref_of(item, asset="latent"):
    return LatentRef.from_item(item, asset)
