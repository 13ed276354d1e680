"""A load to pixels equals the stock driver reading the decoded raster as a GeoTIFF, bit for bit."""

from __future__ import annotations

import numpy as np
import odc.stac
import pytest
from load_support import BANDS, FakeReader, fake_item, padded_grid, scene, stock_item, write_tiff
from odc.geo.geobox import GeoBox

from stac_latent.cube import driver
from stac_latent.cube.load import load


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(driver, "LatentReader", FakeReader)
    FakeReader.decodes.clear()
    driver._open.cache_clear()
    yield FakeReader
    driver._open.cache_clear()


@pytest.fixture
def pair(fake, tmp_path):
    """Two overlapping scenes of one moment, as latents and as GeoTIFFs."""
    latents, plain = [], []
    for i, (left, shape) in enumerate([(400_020.0, (187, 213)), (401_310.0, (240, 150))]):
        grid = padded_grid(shape, left=left, top=5_100_030.0 - 50 - 170 * i)
        field = scene(shape, seed=i)
        write_tiff(tmp_path / f"{i}.tif", field, grid)
        latents.append(fake_item(tmp_path, f"s{i}", field, grid))
        plain.append(stock_item(f"s{i}", tmp_path / f"{i}.tif", grid))
    return latents, plain


def grids(base):
    return {
        "native": base,
        "shifted": base.translate_pix(37.3, 21.6)[11:150, 5:191],
        "cropped": base[13:140, 31:200],
        "coarser": GeoBox.from_bbox(base.boundingbox, crs=base.crs, resolution=37),
        "twice": base.zoom_out(2),
        "finer": base[80:120, 100:170].zoom_out(0.4),
        "mercator": GeoBox.from_bbox(base.extent.to_crs("EPSG:3857").boundingbox, resolution=17),
        "degrees": GeoBox.from_bbox(base.extent.to_crs("EPSG:4326").boundingbox, resolution=0.00031),
    }


@pytest.mark.parametrize("chunks", [None, {"y": 61, "x": 83}], ids=["eager", "dask"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    "grid", ["native", "shifted", "cropped", "coarser", "twice", "finer", "mercator", "degrees"]
)
def test_load_equals_the_stock_driver(pair, grid, resampling, chunks):
    latents, plain = pair
    box = grids(odc.stac.load(plain, bands=["image"], chunks={}).odc.geobox)[grid]
    names = [b.name for b in BANDS]
    got = load(latents, geobox=box, resampling=resampling, chunks=chunks)
    want = odc.stac.load(
        plain, bands=[f"image.{i}" for i in (1, 2, 3)], geobox=box, resampling=resampling, chunks=chunks
    )
    assert list(got.data_vars) == names
    assert got.odc.geobox == want.odc.geobox
    for i, name in enumerate(names, 1):
        a, b = got[name].compute(), want[f"image.{i}"].compute()
        assert a.dims == b.dims
        assert a.dtype == b.dtype
        assert (b.data > 0).any()
        assert (b.data == 0).any()
        np.testing.assert_array_equal(a.data, b.data)
