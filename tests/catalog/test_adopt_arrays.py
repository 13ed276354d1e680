"""What files of others say of their numbers: masks, alpha, nodata, scales, byte order; and files that change after they were adopted."""

from __future__ import annotations

import os

import adopt_support as files
import numpy as np
import pytest
import rasterio
import shapely
import zarr
from rasterio.enums import ColorInterp

from stac_latent import adopt, load, load_table, publish
from stac_latent.errors import CatalogError, CorruptDataError

ANY = {"producer": "me", "name": "mine", "version": "1", "when": "2024"}


@pytest.fixture
def values():
    """Four channels with a hole of no data, and the same with another number in it."""
    x = np.random.default_rng(0).normal(size=(4, 16, 12)).astype(np.float32)
    x[:, :5] = np.nan
    return x


def numbers(path, out, **more):
    items = adopt("any", path, out, **ANY, **more)
    return load(items, upto="latent")["latent"].values[0]


# -- masks


@pytest.mark.parametrize("inside", [False, True])
def test_pixels_under_a_mask_hold_no_data(tmp_path, values, inside):
    path = files.write_tiff(tmp_path / "a.tif", np.nan_to_num(values, nan=7))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as dst:
        dst.write_mask(np.isfinite(values[0]))
    assert path.with_name("a.tif.msk").exists() is not inside
    assert np.array_equal(numbers(path, tmp_path / "c"), values, equal_nan=True)
    cube = load(
        adopt("any", path, tmp_path / "d", **ANY),
        upto="latent",
        crs=files.UTM,
        resolution=20,
        resampling="average",
    )
    whole = np.nanmean(values[:, 6:].reshape(4, 5, 2, 6, 2), axis=(2, 4))
    np.testing.assert_allclose(cube["latent"].values[0][:, 3:], whole, rtol=1e-5)


@pytest.mark.parametrize("at", [0, 4])
def test_an_alpha_band_is_a_mask_and_no_channel(tmp_path, values, at):
    alpha = np.isfinite(values[0]).astype(np.float32)
    path = files.write_tiff(tmp_path / "a.tif", np.insert(np.nan_to_num(values), at, alpha, axis=0))
    with rasterio.open(path, "r+") as dst:
        kinds = [ColorInterp.undefined] * 5
        kinds[at] = ColorInterp.alpha
        dst.colorinterp = kinds
    found = numbers(path, tmp_path / "c")
    assert found.shape == values.shape
    assert np.array_equal(found, values, equal_nan=True)


def test_four_bytes_that_gdal_takes_for_colours_are_channels(tmp_path):
    codes = np.random.default_rng(0).integers(0, 255, (4, 6, 7)).astype(np.uint8)
    path = files.write_tiff(tmp_path / "a.tif", codes)
    with rasterio.open(path) as src:
        assert src.colorinterp[3] == ColorInterp.alpha
    assert np.array_equal(numbers(path, tmp_path / "c", fields={"latent:quantization": "round"}), codes)


# -- scales and nodata of headers and attributes


def test_a_scale_in_the_header_makes_the_numbers(tmp_path, values):
    codes = np.nan_to_num(values * 100).astype(np.int16)
    path = files.write_tiff(tmp_path / "a.tif", codes)
    scale, offset = [0.01, 0.02, 0.03, 0.04], [1.0, 0.0, -1.0, 2.0]
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = scale, offset
    truth = codes * np.array(scale).reshape(-1, 1, 1) + np.array(offset).reshape(-1, 1, 1)
    same = {
        "latent:quantization": "linear",
        "latent:quantization_scale": scale,
        "latent:quantization_offset": offset,
    }
    for name, fields in (("a", {}), ("b", {"latent:quantization": "round"}), ("c", same)):
        np.testing.assert_allclose(numbers(path, tmp_path / name, fields=fields), truth, rtol=1e-5, atol=1e-6)
    other = {"latent:quantization": "linear", "latent:quantization_scale": [0.5]}
    with pytest.raises(
        CatalogError,
        match=r"its header says scale 0.01, 0.02, 0.03, 0.04 and offset .* 'linear' with .*which of them",
    ):
        numbers(path, tmp_path / "d", fields=other)
    power = {
        "latent:quantization": "power",
        "latent:quantization_scale": [0.5],
        "latent:quantization_power": 2.0,
    }
    with pytest.raises(CatalogError, match=r"latent:quantization is 'power' with"):
        numbers(path, tmp_path / "d", fields=power)
    with rasterio.open(path, "r+") as dst:
        dst.scales = [-1.0] * 4
    with pytest.raises(CatalogError, match=r"its header has negative scales"):
        numbers(path, tmp_path / "d")


def store(path, data, zarr_format=3, fill=0, **attributes):
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    array = group.create_array("v", shape=data.shape, dtype=data.dtype, chunks=(4, 8, 8), fill_value=fill)
    array[:] = data
    array.attrs.update(attributes)
    return path


ZARR = {"crs": files.UTM, "transform": list(files.NORTH)[:6]}


def fields(**more):
    return {"latent:array": "v", "latent:dim_order": ["channel", "y", "x"], **more}


@pytest.mark.parametrize(
    ("zarr_format", "fill", "attributes"),
    [
        (3, 0, {"_FillValue": -9999.0}),
        (3, 0, {"missing_value": [-9999.0]}),
        (3, 0, {"_FillValue": "AAAAAICHw8A="}),
        (2, -9999.0, {}),
        (2, 0, {"_FillValue": -9999.0}),
    ],
)
def test_fill_values_of_zarr_hold_no_data(tmp_path, values, zarr_format, fill, attributes):
    """As attributes of CF, as xarray writes them to Zarr v3, and as the fill value of Zarr v2."""
    path = store(tmp_path / "a.zarr", np.nan_to_num(values, nan=-9999), zarr_format, fill, **attributes)
    assert np.array_equal(numbers(path, tmp_path / "c", fields=fields(), **ZARR), values, equal_nan=True)


def test_a_default_fill_value_is_a_number(tmp_path, values):
    data = np.nan_to_num(values)
    path = store(tmp_path / "a.zarr", data, 2)
    assert np.array_equal(numbers(path, tmp_path / "c", fields=fields(), **ZARR), data)


def test_scale_factors_of_zarr_are_applied(tmp_path, values):
    codes = np.nan_to_num(values * 100, nan=-9).astype(np.int16)
    path = store(tmp_path / "a.zarr", codes, scale_factor=0.01, add_offset=1.0, _FillValue=-9)
    truth = np.where(codes == -9, np.nan, codes * np.float32(0.01) + 1)
    np.testing.assert_allclose(numbers(path, tmp_path / "c", fields=fields(), **ZARR), truth, rtol=1e-6)
    only = store(tmp_path / "b.zarr", codes, add_offset=2.0)
    np.testing.assert_allclose(numbers(only, tmp_path / "d", fields=fields(), **ZARR), codes + 2.0)


def test_attributes_that_contradict_are_refused(tmp_path, values):
    data = np.nan_to_num(values)
    path = store(tmp_path / "a.zarr", data, _FillValue=-1.0, missing_value=-2.0)
    with pytest.raises(
        CatalogError, match=r"several numbers that they stand for no data \(_FillValue -1, missing_value -2\)"
    ):
        numbers(path, tmp_path / "c", fields=fields(), **ZARR)
    path = store(tmp_path / "b.zarr", data, _FillValue="none")
    with pytest.raises(CorruptDataError, match=r"_FillValue of .* is 'none'; expected a number"):
        numbers(path, tmp_path / "c", fields=fields(), **ZARR)
    path = store(tmp_path / "d.zarr", data, _FillValue=-1.0)
    with pytest.raises(CorruptDataError, match=r"has nodata -1; product 'any' has 0"):
        numbers(path, tmp_path / "c", fields=fields(nodata=0), **ZARR)


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i2", "<i4", "f2", "g"])
def test_every_byte_order_and_width(tmp_path, values, kind):
    data = (np.nan_to_num(values) * 100).astype(kind)
    np.save(tmp_path / "a.npy", data)
    more = {"latent:dim_order": ["channel", "y", "x"], "latent:quantization": "round"}
    found = numbers(tmp_path / "a.npy", tmp_path / "c", fields=more, **ZARR)
    assert np.array_equal(found, data.astype(np.float32))


# -- files that change


def changed(item, message=r"was changed since it was adopted: .*; adopt it again"):
    with pytest.raises(CorruptDataError, match=message):
        load(item, upto="latent")


def test_a_raster_that_was_written_again_is_an_error(tmp_path):
    path = files.write_tiff(tmp_path / "2024" / "a.tif", files.alphaearth_codes(0), nodata=-128)
    (item,) = adopt("alphaearth", path, tmp_path / "c")
    before = load(item, upto="latent")["latent"].values
    size = path.stat().st_size
    path.unlink()
    files.write_tiff(path, files.alphaearth_codes(1), nodata=-128)
    assert path.stat().st_size == size
    changed(item, r"it was written .*Z, its item knows that of .*Z; adopt it again")
    (item,) = adopt("alphaearth", path, tmp_path / "c")
    assert (load(item, upto="latent")["latent"].values != before).any()


def test_scales_and_stores_that_were_written_again_are_errors(tmp_path):
    codes, scale = files.tessera_codes(0)
    tile = files.write_tessera(tmp_path, codes, scale)
    (item,) = adopt("tessera", tile, tmp_path / "c")
    load(item, upto="latent")
    np.save(tile.with_name(f"{tile.stem}_scales.npy"), 5 * scale)
    changed(item, r"_scales.npy was changed since it was adopted")
    (item,) = adopt("tessera-zarr", files.write_tessera_zarr(tmp_path, codes, scale), tmp_path / "d")
    load(item, upto="latent")
    zarr.open_group(tmp_path / "2024.zarr", mode="a")["utm33/embeddings"][0, 0] = 1
    changed(item, r"utm33 was changed")


def test_a_table_that_was_written_again_is_an_error(tmp_path):
    def write(n):
        columns = files.clay_columns(files.vectors_of(0, n, 768))
        return files.write_table(tmp_path / "a.gpq", columns, files.geo_footer())

    items = adopt("clay", write(4), tmp_path / "c", version="v0")
    assert len(load_table(items)) == 4
    write(6)
    for verb in (load_table, lambda i: publish(i, tmp_path / "v.parquet")):
        with pytest.raises(
            CorruptDataError, match=r"a.gpq was changed since it was adopted: it has .* bytes, its item says"
        ):
            verb(items)
    assert not (tmp_path / "v.parquet").exists()
    assert shapely.box(*items[0].bbox).area > 0


def test_items_that_do_not_say_when_their_file_was_written_load(tmp_path):
    path = files.write_tiff(tmp_path / "2024" / "a.tif", files.alphaearth_codes(0), nodata=-128)
    (item,) = adopt("alphaearth", path, tmp_path / "c")
    for name in ("updated", "file:size"):
        item.assets["embeddings"].extra_fields.pop(name)
    os.utime(path, (0, 0))
    assert load(item, upto="latent")["latent"].shape[1] == 64
