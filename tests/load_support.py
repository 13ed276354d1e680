"""Shared by the load tests: asymmetric scenes, their Items, and the same pixels as plain GeoTIFFs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import ClassVar

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent.spec import Band, Grid, Quantization, Spec

CRS = "EPSG:32633"
BANDS = (
    Band("B02", nodata=0, common_name="blue"),
    Band("B03", nodata=0, common_name="green"),
    Band("B04", nodata=0, common_name="red"),
)
SPACE = "sha256:" + "a1" * 32
STRIDE = (8, 8)
PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


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


def padded_grid(shape, *, left=399_990.0 + 30, top=5_100_030.0 - 50, res=10.0, stride=STRIDE, crs=CRS):
    """Grid of a scene whose corner is not on the zone-anchored lattice."""
    pl = round(left / res) % stride[1]
    pt = round(-top / res) % stride[0]
    pr, pb = -(pl + shape[1]) % stride[1], -(pt + shape[0]) % stride[0]
    return Grid(crs, (res, 0.0, left, 0.0, -res, top), shape, stride, (pt, pb, pl, pr))


def write_tiff(path, field, grid, bands=BANDS):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=grid.shape[0],
        width=grid.shape[1],
        count=len(field),
        dtype=field.dtype,
        nodata=bands[0].nodata,
        crs=grid.crs,
        transform=Affine(*grid.transform),
    ) as dst:
        dst.write(field)


def footprint(grid):
    box = GeoBox(grid.shape, Affine(*grid.transform), grid.crs)
    geom = box.footprint("EPSG:4326")
    return geom.json, list(geom.boundingbox.bbox)


def stock_item(name, href, grid, *, bands=BANDS, when=None, key="image"):
    """An Item with one multi-band GeoTIFF, as the stock driver reads it."""
    geometry, bbox = footprint(grid)
    item = pystac.Item(
        name, geometry, bbox, when or dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC), {}, stac_extensions=[PROJ]
    )
    fields = {
        "proj:code": grid.crs,
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform),
        "bands": [b.to_stac() for b in bands],
    }
    item.add_asset(
        key, pystac.Asset(str(href), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=fields)
    )
    return item


def fake_spec(space=SPACE, bands=BANDS, kind="codec"):
    return Spec(
        kind, space, len(bands), STRIDE, (2, 2), bands, quantization=Quantization("linear", (0.5,), (1.0,))
    )


def fake_item(folder: Path, name, field, grid, *, spec=None, when=None, key="latent"):
    """An Item whose latent asset is read by :class:`FakeReader`: the field lies beside it as .npy."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = spec or fake_spec()
    item = stock_item(name, folder / "none.tif", grid, when=when)
    item.assets.clear()
    href = folder / f"{name}.{key}.zarr"
    np.save(f"{href}.npy", field)
    fields = {**spec.to_fields(), **grid.to_fields(), "latent:shape": [spec.dimensions, *grid.cells]}
    item.add_asset(
        key,
        pystac.Asset(
            str(href), media_type="application/vnd.zarr; version=3", roles=["latent"], extra_fields=fields
        ),
    )
    return item


class FakeReader:
    """Same interface as the real reader; the pixels come from a .npy file and every decode is counted."""

    decodes: ClassVar[list] = []

    def __init__(self, ref):
        self.spec, self.grid, self.field = ref.spec, ref.grid, np.load(f"{ref.href}.npy")

    def read_field(self, window=None, bands=None):
        self.decodes.append((window, bands))
        (y0, y1), (x0, x1) = window or ((0, self.grid.shape[0]), (0, self.grid.shape[1]))
        assert 0 <= y0 < y1 <= self.grid.shape[0]
        assert 0 <= x0 < x1 <= self.grid.shape[1]
        return self.field[list(range(len(self.field)) if bands is None else bands), y0:y1, x0:x1]

    def read_latent(self, cells=None):
        t, b, left, r = self.grid.padding
        sy, sx = self.grid.stride
        f = np.pad(self.field.astype("float32"), ((0, 0), (t, b), (left, r)))
        f[f == 0] = np.nan
        f = f.reshape(len(f), f.shape[1] // sy, sy, -1, sx)[:, :, sy // 2, :, sx // 3]
        (y0, y1), (x0, x1) = cells or ((0, f.shape[1]), (0, f.shape[2]))
        return f[:, y0:y1, x0:x1]
