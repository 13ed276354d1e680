"""One cube from several catalogues, CRSs and sensors; and which of two overlapping Items is seen."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import odc.stac
import pytest
import xarray as xr
from affine import Affine
from load_support import (
    BANDS,
    NOON,
    codec_of,
    decoded_tiff,
    encoded,
    pixel_grid,
    scene,
    stock_item,
    write_tiff,
)
from odc.geo.geobox import GeoBox

from stac_latent import load, search
from stac_latent.catalog.encode.encode import encode
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, GridError

LATER = NOON + dt.timedelta(hours=1)
SCALED = tuple(
    replace(b, data_type="int16", nodata=-9999, scale=2e-4, offset=-0.1, name=f"SR_{b.name}") for b in BANDS
)


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    """Two catalogues of one sensor in neighbouring zones: Items, and GeoTIFFs of what they decode to."""
    folder = tmp_path_factory.mktemp("zones")
    east = pixel_grid((120, 140), 500_020.0, 5_099_980.0, crs="EPSG:32633")
    west = pixel_grid((130, 110), 968_000.0, 5_110_000.0, crs="EPSG:32632")
    items = [
        encoded(folder / name, name, scene(grid.shape, seed=i), grid, when=NOON)
        for i, (name, grid) in enumerate((("east", east), ("west", west)))
    ]
    return items, [decoded_tiff(item, folder / f"{item.id}.tif") for item in items]


def test_catalogues_of_two_zones_on_one_lattice(zones):
    """As the stock driver mosaics the decoded rasters, bit for bit."""
    items, plain = zones
    catalogs = [i.get_root().get_self_href() for i in items]
    assert len(set(catalogs)) == 2
    found = search([*catalogs, *items])  # what is in both is given once
    assert len(found) == 2
    box = GeoBox.from_bbox((14.98, 46.0, 15.03, 46.06), "EPSG:4326", resolution=0.0002)
    ours = load(found, geobox=box, groupby="solar_day", resampling="bilinear")
    names = [f"image.{i}" for i in (1, 2, 3)]
    stock = odc.stac.load(plain, bands=names, geobox=box, groupby="solar_day", resampling="bilinear")
    for band, name in zip(BANDS, names, strict=True):
        np.testing.assert_array_equal(ours[band.name].values, stock[name].values)
    assert ours.sizes["time"] == 1
    assert 0 < int((ours["B02"] > 0).sum()) < ours["B02"].size


def test_latents_of_two_zones_are_refused(zones):
    items, _ = zones
    with pytest.raises(GridError, match="EPSG:3263"):
        load(items, upto="latent")


def sensors(folder):
    """The same ground twice: uint16 reflectance x 1, and int16 x 2e-4 - 0.1 of the same reflectance on 30 m."""
    fine = pixel_grid((96, 96), 400_000.0, 5_100_000.0)
    coarse = pixel_grid((32, 32), 400_000.0, 5_100_000.0, res=30.0)
    bands = tuple(replace(b, scale=1e-4) for b in BANDS)
    first = np.full((3, 96, 96), 4000, np.uint16)
    first[:, :, 48:] = 0
    second = np.full((3, 32, 32), round((0.4 + 0.1) / 2e-4), np.int16)
    second[:, :8] = -9999
    out = []
    for name, grid, field, kinds, when in (
        ("one", fine, first, bands, NOON),
        ("two", coarse, second, SCALED, LATER),
    ):
        path = folder / f"{name}.tif"
        write_tiff(path, field, grid, nodata=kinds[0].nodata)
        item = stock_item(name, path, grid, bands=kinds, when=when)
        out += encode(item, codec_of(step=1.0, bands=kinds), folder / f"{name}-catalog")
    return out


def test_two_sensors_meet_in_physical_units(tmp_path):
    one, two = sensors(tmp_path)
    box = GeoBox((32, 32), Affine(30, 0, 400_000, 0, -30, 5_100_000), "EPSG:32633")
    with pytest.raises(
        CatalogError,
        match=r"band 'red' is not stored alike in all items: uint16 x 0.0001 \+ 0 \(items one\); "
        r"int16 x 0.0002 \+ -0.1 \(items two\); load them with physical=True",
    ):
        load([one, two], ["red"], geobox=box)
    cube = load([two, one], ["red"], geobox=box, groupby="solar_day", physical=True)
    red = cube["red"].isel(time=0).values
    assert red.dtype == np.float32
    seen = np.isfinite(red)
    expected = np.ones((32, 32), bool)
    expected[:8, 16:] = False  # neither has data there
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_allclose(red[seen], 0.4, atol=2e-4)
    assert cube["red"].attrs.get("scale_factor") is None
    apart = load(one, ["red"], geobox=box)["red"]
    both = load(one, ["red"], geobox=box, physical=True)["red"]
    np.testing.assert_allclose(
        both.values[apart.values > 0], apart.values[apart.values > 0] * 1e-4, rtol=1e-6
    )
    assert np.isnan(both.values[apart.values == 0]).all()


def test_physical_is_of_pixels(tmp_path):
    one, _ = sensors(tmp_path)
    with pytest.raises(CatalogError, match="physical given with upto='latent'"):
        load(one, upto="latent", physical=True)


def test_units_must_agree(tmp_path):
    one, two = sensors(tmp_path)
    for item, unit in ((one, "1"), (two, "K")):
        for band in item.assets["latent"].extra_fields["bands"]:
            band["unit"] = unit
    with pytest.raises(
        CatalogError, match=r"unit 1 \(items one\); unit K \(items two\); load these items apart"
    ):
        load([one, two], ["red"], physical=True, crs="EPSG:32633", resolution=30)


def test_latents_are_mosaicked_after_dequantising(tmp_path):
    """Other steps, one space: the earliest has a cell where it has data, and the other fills in."""
    items, lin = [], open_codec("lin", bands=list(BANDS))
    for name, left, when, target in (("b", 400_000.0, NOON, 35.0), ("a", 400_640.0, LATER, 50.0)):
        grid = pixel_grid((128, 128), left, 5_100_480.0)
        items += [
            encoded(
                tmp_path, name, scene(grid.shape, seed=ord(name)), grid, when=when, codec=lin, psnr=target
            )
        ]
    assert len({i.properties["latent:spaces"][0] for i in items}) == 1
    mosaic = load(items[::-1], upto="latent", groupby="solar_day")["latent"].isel(time=0)
    alone = [load(i, upto="latent")["latent"].isel(time=0) for i in items]
    for item, cells in zip(items, alone, strict=True):
        np.testing.assert_array_equal(cells.values, LatentReader.open(item, "latent").read_latent())
    first, second = xr.align(*alone, join="outer")
    right = first.combine_first(second).transpose(*mosaic.dims).sortby("y", ascending=False)
    np.testing.assert_array_equal(mosaic.sortby("y", ascending=False).values, right.values)
    overlap = np.isfinite(first.values) & np.isfinite(second.values)
    assert overlap.any()
    assert (first.values[overlap] != second.values[overlap]).any()
