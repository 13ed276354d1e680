"""Catalogues of real data: each loads with odc-stac, goes through ``encode`` without a loss, and can be fitted to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import odc.stac
import pytest
import rasterio

from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.search.search import search
from stac_latent.codec.shipped import zstd
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.load import load
from stac_latent.errors import CatalogError
from stac_latent.fitting.bands import choose_bands
from stac_latent.fitting.items import fit
from stac_latent.spec import Band
from stac_latent.validation import validate

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
SCHEMAS = ROOT.parent / "shared" / "schemas"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is absent"),
]
CASES = {
    "s2-native-10m": ("s2-native", None, ["B02", "B03", "B04", "B08"], "uint16"),
    "s2-native-60m": ("s2-native", "sentinel-2-29rkh", ["B01", "B09"], "uint16"),
    "terramind-s2": ("terramind-s2", None, None, "int16"),
    "sentinel-1": ("sentinel-1", None, ["VV", "VH"], "float32"),
    "landsat": ("landsat", None, ["blue", "green", "red", "nir08", "swir16", "swir22"], "int16"),
    "hls": ("hls", None, ["B02", "B07"], "int16"),
    "enmap": ("enmap", None, None, "int16"),
    "dem": ("dem", "dem-vinschgau", ["elevation"], "float32"),
    "era5-levels": ("era5", "era5-tl31", ["t500", "z850", "sst"], "float32"),
    "era5-global": ("era5", "era5-monthly", ["d2m"], "float32"),
    "era5-grib": ("era5", "era5-members", ["z500", "z850"], "float32"),
    "boadella": ("boadella", None, None, "int16"),
    "worldcereal-20m": ("worldcereal", None, ["B05", "B06", "B07", "B8A", "B11", "B12"], "uint16"),
    "worldcereal-s1": ("worldcereal", None, ["VV", "VH"], "float32"),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Catalogues of all sets."""
    out = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, ROOT / "catalogs" / "real.py", DATA, out], check=True)
    return out


def find(real, case):
    name, collection, bands, dtype = CASES[case]
    items = list(search(str(real / name / "catalog.json"), collections=collection))
    chosen, usable = choose_bands(items, bands)
    assert {b.data_type for b in chosen} == {dtype}
    return chosen, usable


@pytest.mark.parametrize("case", CASES)
def test_items_load_and_encode_without_a_loss(real, case, tmp_path):
    bands, items = find(real, case)
    item = items[0]
    assert [p for p in validate(item.get_self_href(), SCHEMAS) if p.keyword != "unavailable"] == []
    codec = zstd(bands)
    (made,) = encode(item, codec, tmp_path)
    decoded = load(made)
    for band in bands[:4]:
        key, index = next(
            (k, i + 1)
            for k, a in item.assets.items()
            for i, b in enumerate(a.extra_fields["bands"])
            if band.name in (k, b["name"], b.get("eo:common_name"))
        )
        with rasterio.open(item.assets[key].get_absolute_href()) as src:
            pixels, missing = src.read(index), src.read_masks(index) == 0
        values = decoded[band.name].values[0]
        if values.dtype.kind == "f":
            np.testing.assert_array_equal(np.isnan(values), missing, err_msg=band.name)
            values = np.where(missing, pixels, values)
        np.testing.assert_array_equal(values, pixels, err_msg=band.name)
        if index == 1:
            plain = odc.stac.load([item], bands=[key])[key].values[0]
            np.testing.assert_array_equal(plain, pixels, err_msg=key)


def test_what_is_nominal_is_said(real):
    for name, words in (
        ("ssl4eo", "nominal"),
        ("s2-native", "nominal"),
        ("era5", "periodic"),
        ("sentinel-1", "dB"),
    ):
        (item, *_) = search(str(real / name / "catalog.json"))
        assert words in item.properties["description"], name


def test_series_have_dates_and_clouds(real):
    items = list(search(str(real / "boadella" / "catalog.json")))
    assert len({i.datetime for i in items}) == 12
    items = list(
        search(str(real / "worldcereal" / "catalog.json"), collections="worldcereal-s2-00002806639B424A")
    )
    assert len({i.datetime for i in items}) == len(items) == 118
    cover = [i.properties["eo:cloud_cover"] for i in items]
    assert min(cover) == 0
    assert max(cover) == 100
    assert {"s2-10m", "s2-20m", "scl"} <= set(items[0].assets)


def test_a_fit_of_enmap_leaves_out_the_bands_without_data(real, tmp_path):
    items = list(search(str(real / "enmap" / "catalog.json")))
    with pytest.raises(ValueError, match=r"band\(s\) B130, .* hold no data in any of"):
        fit(items, tmp_path / "enmap", [f"B{i:03d}" for i in range(125, 140)])


@pytest.mark.slow
def test_a_fit_to_radar_codes_a_place_held_out(real, tmp_path):
    items = list(search(str(real / "sentinel-1" / "catalog.json")))
    made = fit(items, tmp_path / "s1-db", ["VV", "VH"], pixels=250_000)
    middle = made.codec.about["rate_distortion"][2]
    assert middle["psnr"] > 40
    assert middle["bits_per_pixel"] < 5
    (item,) = encode(next(i for i in items if i.collection_id == "sen12ms-cr"), made.path, tmp_path / "out")
    assert item.properties["latent:psnr"] > 35


def test_two_sensors_of_one_day_meet_in_one_cube(real, tmp_path):
    """Landsat 8 and Sentinel-2, half an hour apart, of two catalogues, stored with other scales and on other pixels."""
    names = {"landsat": "000028085BF08E7E-013", "worldcereal": "s2-000028085BF08E7E-099"}
    common = {"B8A": "nir08", "B11": "swir16"}
    bands = [Band(n, nodata=0, scale=1e-4, common_name=c) for n, c in common.items()]
    codecs = {"landsat": open_codec("landsat-c2l2-6b"), "worldcereal": open_codec("lin", bands=bands)}
    catalogs = []
    for name, item in names.items():
        raw = search(str(real / name / "catalog.json"), ids=[item])
        encode(raw, codecs[name], tmp_path / name, psnr=46)
        catalogs.append(tmp_path / name / "catalog.json")
    found = search(catalogs, sortby="datetime")
    where = {"crs": "EPSG:3035", "resolution": 30, "resampling": "average"}
    with pytest.raises(CatalogError, match="band 'nir08' is not stored alike in all items"):
        load(found, ["nir08", "swir16"], **where)
    cube = load(found, ["nir08", "swir16"], physical=True, **where)
    for band in cube.values():
        first, second = band.values
        both = np.isfinite(first) & np.isfinite(second)
        assert both.mean() > 0.7
        assert np.corrcoef(first[both], second[both])[0, 1] > 0.95
        assert np.median(first[both]) == pytest.approx(np.median(second[both]), rel=0.05)
