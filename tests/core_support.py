"""Scenes as Items with GeoTIFFs, small codecs, and what must not be left behind."""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent.codec.shipped import dct, fit, jpeg2000, wavelet, zstd
from stac_latent.secure import key_ring
from stac_latent.spec import Band
from stac_latent.testing import make_field
from stac_latent.validation import validate

PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
CRS = "EPSG:32633"
ORIGIN = (399_990.0 + 30, 5_100_030.0 - 50)
"""Upper left corner, 2 pixels right of and below lines of the lattice of 8 pixels of 10 m."""
BANDS = (Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4))


@functools.cache
def small_codec(name="dct", **options):
    """Codecs of :data:`BANDS`, made once."""
    if name == "fitted":
        tiles = [make_field(BANDS, (64, 72), seed) for seed in range(3)]
        return fit("fitted", tiles, BANDS, step=24.0, size=4)
    factory = {"dct": dct, "wavelet": wavelet, "zstd": zstd, "jpeg2000": jpeg2000}[name]
    return factory(BANDS, **options)


@dataclass
class Scene:
    item: pystac.Item
    field: np.ndarray
    """(band, y, x) as stored."""
    folder: Path

    @property
    def valid(self):
        nodata = self.item.assets["red"].extra_fields.get("nodata")
        return np.ones(self.field.shape, bool) if nodata is None else self.field != nodata


def scene_field(shape=(187, 213), seed=0, bands=BANDS):
    """No symmetry, a nodata corner and a hole."""
    field = make_field(bands, shape, seed)
    field[:, shape[0] // 2 : shape[0] // 2 + 14, shape[1] // 2 : shape[1] // 2 + 31] = bands[0].nodata or 0
    return field


def make_scene(
    folder, field=None, *, name="scene", origin=ORIGIN, crs=CRS, res=10.0, nodata=0, keys=("red", "nir"),
    fields=None, properties=None, georeferenced=True,
):  # fmt: skip
    """Write one GeoTIFF a band and describe them; ``fields`` go on every asset."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    field = scene_field() if field is None else field
    shape = field.shape[1:]
    transform = Affine(res, 0, origin[0], 0, -res, origin[1])
    outline = GeoBox(shape, transform, crs or CRS).footprint("EPSG:4326")
    item = pystac.Item(
        name, outline.json, list(outline.boundingbox.bbox), dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC),
        dict(properties or {}), stac_extensions=[PROJ], collection="scenes",
    )  # fmt: skip
    if georeferenced:
        item.properties |= {
            "proj:code": crs,
            "proj:shape": list(shape),
            "proj:transform": list(transform)[:6],
        }
    for key, layer in zip(keys, field, strict=True):
        path = folder / f"{name.replace('/', '_')}-{key}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype=layer.dtype, nodata=nodata,
            crs=crs, transform=transform if crs else Affine.identity() * Affine.scale(1.0001),
        ) as dst:  # fmt: skip
            dst.write(layer, 1)
        extra = {"data_type": layer.dtype.name, "raster:scale": 1e-4, "raster:offset": 0.0, **(fields or {})}
        if nodata is not None:
            extra["nodata"] = nodata
        item.add_asset(
            key,
            pystac.Asset(str(path), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=extra),
        )
    item.set_self_href(str(folder / f"{name.replace('/', '_')}.json"))
    return Scene(item, field, folder)


def check(item):
    """Valid STAC; schemas of other extensions count where the shared folder has them."""
    folder = Path(__file__).parents[2] / "shared" / "schemas"
    problems = validate(item, folder if folder.exists() else None)
    assert [p for p in map(str, problems) if "[unavailable" not in p] == []


def nothing_catalogued(dest, *, but=()):
    """No Item, Collection, Catalog or store below ``dest``; the codec's own bundle may be there."""
    dest = Path(dest)
    left = [p.relative_to(dest) for p in dest.rglob("*")] if dest.exists() else []
    return [p for p in left if p.parts[0] != "codecs" and str(p) not in but] == []


def hold_keys(keys):
    """Have the process hold these keys and no others."""
    ring = key_ring()
    ring.clear()
    ring.update(keys)
