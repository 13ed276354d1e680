"""Complex values: through the lossless chain from file to cube, resampled by parts, and refused in words elsewhere."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from core_support import CRS, ORIGIN, check, make_scene, nothing_catalogued
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

from stac_latent import encode, load, open_codec, publish, search, verify
from stac_latent.cli import app
from stac_latent.codec.bundle import load_bundle, save_bundle
from stac_latent.codec.shipped import dct, jpeg2000, lin, wavelet, zstd
from stac_latent.errors import (
    CatalogError,
    CodecError,
    CorruptDataError,
    FieldError,
    GridError,
    SourceWarning,
)
from stac_latent.field.storage_type import to_field
from stac_latent.quality.distortion import Distortion
from stac_latent.spec import Band
from stac_latent.stages.classical import Zstd
from stac_latent.store.zarr.group import StoreLayout

EMPTY = complex(math.nan, math.nan)
PLAIN = {"raster:scale": 1.0}  # what make_scene would say otherwise is of reflectances


def values(shape, dtype="complex64", seed=0):
    """Complex noise with pixels that are missing in one part, in the other, and in both."""
    rng = np.random.default_rng(seed)
    out = (rng.normal(size=shape) * 50 + 1j * rng.normal(size=shape)).astype(dtype)
    holes = rng.random(shape)
    out[holes < 0.05] = complex(math.nan, 1)
    out[(holes >= 0.05) & (holes < 0.1)] = complex(1, math.nan)
    out[(holes >= 0.1) & (holes < 0.12)] = EMPTY
    return out


def same(a, b):
    """Equal where both hold data, and missing in the same pixels."""
    return (
        a.dtype == b.dtype
        and np.array_equal(np.isnan(a), np.isnan(b))
        and np.array_equal(a[~np.isnan(a)], b[~np.isnan(b)])
    )


def scene(folder, field, **kw):
    out = make_scene(folder, field, nodata=None, keys=("vv", "vh")[: len(field)], **kw)
    for asset in out.item.assets.values():
        for name in ("data_type", "raster:scale", "raster:offset"):
            del asset.extra_fields[name]
    return out


def write_as(scene, data_type, nodata=None):
    """The same files in another type, as GDAL has it."""
    for asset, layer in zip(scene.item.assets.values(), scene.field, strict=True):
        with rasterio.open(asset.href) as src:
            place = {"crs": src.crs, "transform": src.transform}
        with rasterio.open(
            asset.href, "w", driver="GTiff", height=layer.shape[0], width=layer.shape[1], count=1, dtype=data_type, nodata=nodata,
            **place,
        ) as dst:  # fmt: skip
            dst.write(layer, 1)


def catalogue(item):
    return str(Path(item.get_self_href()).parents[2] / "catalog.json")


def problems(item):
    return [text for row in verify(catalogue(item)) for text in row.problems]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A scene of two bands, and its Item with a latent."""
    folder = tmp_path_factory.mktemp("complex")
    raw = scene(folder / "raw", values((2, 187, 213)))
    (item,) = encode(raw.item, open_codec("zstd", bands=["vv", "vh"]), folder / "cat")
    return raw, item


# -- the chain ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["complex64", "complex128"]),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 999),
)
def test_the_stage_gives_back_every_bit(dtype, bands, height, width, seed):
    field = values((bands, height, width), dtype, seed)
    back = Zstd().inverse(Zstd().forward(field))
    assert (back.dtype, back.shape, back.tobytes()) == (field.dtype, field.shape, field.tobytes())


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["complex64", "complex128"]),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([None, math.nan, 0.0, -9.5]),
    st.integers(0, 999),
)
def test_byte_strings_of_any_size_with_and_without_nodata(dtype, height, width, nodata, seed):
    codec = zstd([Band("vv", dtype, nodata=nodata), Band("vh", dtype, nodata=nodata)])
    field = values((2, height, width), dtype, seed)
    missing = np.isnan(field)
    if nodata is not None and not math.isnan(nodata):
        field[missing] = nodata
    back = codec.decompress(codec.compress(field))
    assert same(back, field)


def test_the_step_beside_nodata_is_of_the_real_part():
    codec = zstd([Band("vv", "complex64", nodata=0)])
    field = np.full((1, 4, 4), 3 + 4j, np.complex64)
    mask = np.ones((1, 4, 4), bool)
    field[0, 1, 1], field[0, 2, 2], mask[0, 2, 2] = 0, 5, False
    back = codec.decompress(codec.compress(field, mask=mask))
    assert 0 < back[0, 1, 1].real < 1e-30
    assert back[0, 1, 1].imag == 0
    assert back[0, 2, 2] == 0


def test_the_probe_of_a_bundle_has_both_parts(tmp_path):
    for dtype in ("complex64", "complex128"):
        codec = zstd([Band("vv", dtype)])
        folder = save_bundle(codec, tmp_path / dtype)
        probe = json.loads((folder / "codec.json").read_text())["probe"]
        opened = load_bundle(folder, refresh=True)
        assert opened.bands == codec.bands
        assert opened.space == codec.space
        assert probe["field_crc"] == probe["symbols_crc"]


def test_payloads_of_real_numbers_are_told_from_complex_ones():
    payload = Zstd().forward(values((1, 4, 4)))
    with pytest.raises(CorruptDataError, match=r"complex values \(complex64\), and its bands are uint16"):
        zstd([Band("a")]).decode(payload)
    with pytest.raises(CorruptDataError, match="complex values"):
        to_field(values((1, 4, 4)), [Band("a", "float32")])


def test_real_fields_of_complex_bands():
    back = zstd([Band("a", "complex64")])
    field = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert np.array_equal(back.decompress(back.compress(field)), field.astype(np.complex64))


@pytest.mark.parametrize("make", [lin, dct, wavelet, jpeg2000])
def test_chains_that_compute_refuse_complex_bands(make):
    with pytest.raises(
        CodecError, match=r"band 'vv' of codec '\w+' is complex64.*real and imaginary part.*'zstd'"
    ):
        make([Band("vv", "complex64")])


def test_complex_bands_and_real_ones_are_coded_apart():
    with pytest.raises(CodecError, match=r"band 'vv' .* is complex64 and band 'dem' is float32; .* apart"):
        zstd([Band("vv", "complex64"), Band("dem", "float32")])


def test_an_error_bound_is_of_real_numbers():
    codec = zstd([Band("vv", "complex64")])
    with pytest.raises(FieldError, match="takes complex64, and an error bound is one of real numbers"):
        codec.compress(np.ones((1, 4, 4), np.complex64), error_bound=1)


def test_real_bands_take_no_complex_field():
    with pytest.raises(FieldError, match="takes real numbers; got dtype complex64"):
        zstd([Band("a", "float32")]).compress(np.ones((1, 4, 4), np.complex64))


def test_latents_are_real_numbers():
    codec = zstd([Band("vv", "complex64")])
    with pytest.raises(FieldError, match=r"complex values \(complex64\).*upto='field'"):
        codec.decode(codec.encode(np.ones((1, 4, 4), np.complex64)), upto="latent")


# -- measured ----------------------------------------------------------------------------------------------------------


def test_magnitudes_are_measured():
    truth = np.array([[[3 + 4j, 0, 6 + 8j]]], np.complex64)
    found = Distortion([Band("vv", "complex64")])
    found.add(truth, truth + np.array([[[0, 0.6 - 0.8j, 0]]], np.complex64))
    assert found.max_error == pytest.approx(1)
    assert found.magnitudes == [10]
    assert found.psnr == pytest.approx(10 * math.log10(10**2 / (1 / 3)))
    two = Distortion([Band("vv", "complex64"), Band("vh", "complex64")])
    two.add(np.concatenate([truth, truth]), np.concatenate([truth, truth]))
    assert (two.psnr, two.max_error, two.sam) == (200.0, 0.0, None)


# -- from file to cube -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ("complex64", None),
        ("complex64", "cfloat32"),
        ("complex64", "cint32"),  # GDAL's CInt32 has no name of its own in rasterio
        ("complex128", None),
        ("complex128", "cfloat64"),
        ("complex_int16", None),
        ("complex_int16", "cint16"),
    ],
)
@pytest.mark.parametrize("payload", ["coded", "plain"])
def test_encode_and_load(tmp_path, stored, said, payload):
    dtype = "complex64" if stored == "complex_int16" else stored
    field = values((2, 87, 113), dtype)
    if stored == "complex_int16":
        field = np.round(np.nan_to_num(field))
    field[0, 5, 6] = complex(math.inf, 0) if stored != "complex_int16" else 7
    raw = scene(tmp_path / "raw", field)
    write_as(raw, stored)
    for asset in raw.item.assets.values() if said else ():
        asset.extra_fields["data_type"] = said
    (item,) = encode(
        raw.item,
        open_codec("zstd", bands=["vv", "vh"]),
        tmp_path / "cat",
        payload=payload,
        layout=StoreLayout(32, 64),
    )
    check(item)
    fields = item.assets["latent"].extra_fields
    name = {"complex64": "cfloat32", "complex128": "cfloat64"}[dtype]
    assert fields["data_type"] == fields["latent:dtype"] == name
    assert [(b["data_type"], b["nodata"]) for b in fields["bands"]] == [(name, "nan")] * 2
    assert (item.properties["latent:max_error"], item.properties["latent:psnr"]) == (0, 200)
    assert "latent:sam" not in item.properties
    expected = np.where(np.isfinite(field), field, field.dtype.type(EMPTY))
    for chunks in (None, {"y": 40, "x": 50}):
        cube = load(item, chunks=chunks)
        for layer, band in zip(expected, ("vv", "vh"), strict=True):
            assert same(cube[band][0].values, layer)
            assert cube[band].dtype == dtype
    again = xr.open_dataset(item.get_self_href(), engine="stac-latent")
    assert same(again.vv.values, expected[0])


def test_nodata_is_zero_in_both_parts(tmp_path):
    field = np.full((1, 40, 50), 1 + 2j, np.complex64)
    field[0, :9], field[0, 20, 20], field[0, 21, 21] = 0, 5j, 5
    raw = scene(tmp_path / "raw", field)
    write_as(raw, "complex64", nodata=0)
    (item,) = encode(raw.item, open_codec("zstd", bands=["vv"]), tmp_path / "cat")
    expected = field[0].copy()
    expected[:9] = EMPTY
    assert same(load(item).vv[0].values, expected)
    filled = load(item, nodata=0).vv[0].values
    assert np.array_equal(filled, field[0])


def test_masks_beside_files_and_offsets_of_reflectances(tmp_path):
    field = np.abs(values((1, 40, 50)).real).astype(np.complex64) + 1j
    field = np.where(np.isnan(field), 1, field).astype(np.complex64)
    raw = make_scene(
        tmp_path / "raw", field, nodata=None, keys=("B02",), properties={"s2:processing_baseline": "05.00"}
    )
    asset = raw.item.assets["B02"]
    asset.extra_fields |= {"data_type": "cfloat32", "raster:scale": 2.0, "raster:offset": 1.0}
    mask = np.ones((40, 50), bool)
    mask[7:9, 11:30] = False
    with rasterio.open(asset.href, "r+") as dst:
        dst.write_mask(mask)
    (item,) = encode(raw.item, open_codec("zstd", bands=["B02"]), tmp_path / "cat")
    expected = np.where(mask, field[0], np.complex64(EMPTY))
    assert same(load(item).B02[0].values, expected)
    assert same(load(item, physical=True).B02[0].values, expected * np.float32(2) + np.float32(1))
    assert problems(item) == []


def test_a_type_that_the_file_has_not_is_said(tmp_path):
    raw = scene(tmp_path / "raw", values((1, 40, 50)))
    raw.item.assets["vv"].extra_fields["data_type"] = "uint16"
    with pytest.warns(SourceWarning, match="band 'vv' is uint16 in the item and complex64 in its file"):
        encode(raw.item, open_codec("zstd", bands=["vv"]), tmp_path / "cat")


def test_dates_and_neighbours_fill_each_other(tmp_path):
    left, right = values((1, 64, 64)), values((1, 64, 64), seed=1)
    codec = open_codec("zstd", bands=["vv"])
    one = scene(tmp_path / "raw", left, name="a")
    two = scene(tmp_path / "raw", right, name="b", origin=(ORIGIN[0] + 320, ORIGIN[1]))
    items = encode([one.item, two.item], codec, tmp_path / "cat")
    expected = np.full((64, 96), EMPTY, np.complex64)
    expected[:, 32:] = right[0]
    expected[:, :64] = np.where(np.isnan(left[0]), expected[:, :64], left[0])
    for chunks in (None, {"y": 30, "x": 40}):
        assert same(load(items, chunks=chunks).vv[0].values, expected)


BOXES = {
    "shifted": GeoBox((90, 101), Affine(10, 0, ORIGIN[0] + 33, 0, -10, ORIGIN[1] - 47), CRS),
    "coarser": GeoBox((80, 90), Affine(23, 0, ORIGIN[0] - 40, 0, -23, ORIGIN[1] + 35), CRS),
    "another CRS": GeoBox.from_bbox(
        GeoBox((187, 213), Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1]), CRS)
        .footprint("EPSG:32632")
        .boundingbox,
        resolution=12.5,
    ),
}


@pytest.fixture(scope="module")
def parts(made, tmp_path_factory):
    """Real and imaginary parts of the same scene, as Items of floats."""
    folder = tmp_path_factory.mktemp("parts")
    raw, _ = made
    empty = np.isnan(raw.field)
    out = []
    for name in ("real", "imag"):
        layers = np.where(empty, np.float32(math.nan), getattr(raw.field, name))
        one = scene(folder / name, layers)
        write_as(one, "float32", nodata=math.nan)
        out += encode(one.item, open_codec("zstd", bands=["vv", "vh"]), folder / f"{name}-cat")
    return out


@pytest.mark.parametrize("where", BOXES)
@pytest.mark.parametrize("how", ["nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "sum"])
def test_other_grids_are_those_of_both_parts(made, parts, where, how):
    found = load(made[1], bands=["vh"], geobox=BOXES[where], resampling=how).vh[0].values
    real, imag = (load(p, bands=["vh"], geobox=BOXES[where], resampling=how).vh[0].values for p in parts)
    assert found.dtype == np.complex64
    assert np.isfinite(found).any()
    assert np.array_equal(np.isnan(found), np.isnan(real))
    good = ~np.isnan(real)
    assert np.array_equal(found.real[good], real[good])
    assert np.array_equal(found.imag[good], imag[good])


@pytest.mark.parametrize("how", ["mode", "max", "min", "med", "q1", "q3", "rms"])
def test_resamplings_of_real_numbers_are_refused(made, how):
    with pytest.raises(
        GridError, match=f"resampling='{how}' is one of real numbers, and band 'vv' is complex64.*bilinear"
    ):
        load(made[1], resampling=how)


def test_loads_that_would_drop_the_imaginary_part_are_refused(made):
    with pytest.raises(
        CatalogError, match="band 'vv' is complex64, and dtype='float32' has no imaginary part"
    ):
        load(made[1], dtype="float32")
    wide = load(made[1], dtype="complex128").vv[0].values
    assert same(wide, made[0].field[0].astype(np.complex128))


def test_latents_are_refused(made, tmp_path):
    with pytest.raises(
        CatalogError, match=r"asset 'latent' of item 'scene' holds complex values.*upto='field'"
    ):
        load(made[1], upto="latent")
    with pytest.raises(FieldError, match="complex values"):
        publish([made[1]], tmp_path / "table.parquet")


def test_the_stock_loader(made):
    import odc.stac

    found = odc.stac.load([made[1]], bands=["latent.vv"], driver="stac_latent.cube.LatentDriver")[
        "latent.vv"
    ][0].values
    assert same(found, made[0].field[0])
    with pytest.raises(CatalogError, match="dtype='float32' has no imaginary part"):
        odc.stac.load([made[1]], bands=["latent.vv"], driver="stac_latent.cube.LatentDriver", dtype="float32")


def test_verify_info_and_search(made, tmp_path):
    _, item = made
    assert problems(item) == []
    out = CliRunner().invoke(
        app, ["info", item.get_self_href(), "--json", "--preview", str(tmp_path / "look.png")]
    )
    assert out.exit_code == 0, out.output
    assert (tmp_path / "look.png").stat().st_size > 1000
    out = CliRunner().invoke(app, ["map", catalogue(item), str(tmp_path / "map.html")])
    assert out.exit_code == 0, out.output
    found = search(catalogue(item), max_error=0)
    assert [i.id for i in found] == [item.id]


def test_maps_without_the_raw_files(tmp_path):
    raw = scene(tmp_path / "raw", values((1, 40, 50)))
    (item,) = encode(raw.item, open_codec("zstd", bands=["vv"]), tmp_path / "cat")
    Path(raw.item.assets["vv"].href).unlink()
    out = CliRunner().invoke(app, ["map", catalogue(item), str(tmp_path / "map.html")])
    assert out.exit_code == 0, out.output


def test_a_change_of_one_part_is_found(made, tmp_path):
    raw = scene(tmp_path / "raw", np.full((1, 40, 50), 1 + 2j, np.complex64))
    (item,) = encode(raw.item, open_codec("zstd", bands=["vv"]), tmp_path / "cat")
    raw.field[0, 3, 4] = 1 + 3j
    write_as(raw, "complex64")
    texts = problems(item)
    assert any("latent:max_error" in t for t in texts), texts


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lin", "dct", "wavelet", "jpeg2000"])
def test_files_are_refused_by_chains_that_compute(tmp_path, name):
    raw = scene(tmp_path / "raw", values((1, 40, 50)))
    with pytest.raises(
        FieldError,
        match=r"asset 'vv' of item 'scene' holds complex64 values.*takes real numbers.*open_codec\('zstd'",
    ):
        encode(raw.item, open_codec(name, bands=["vv"]), tmp_path / "cat")
    assert nothing_catalogued(tmp_path / "cat")


@pytest.mark.parametrize(
    ("codec", "options", "error", "text"),
    [
        (lambda: open_codec("zstd", bands=["vv"]), {"error_bound": 0}, FieldError, "an error bound is one of real numbers"),
        (lambda: open_codec("zstd", bands=["vv"]), {"checks": ["ssim>=0.9"]}, CodecError, "ssim is a metric of real numbers, and band 'vv' is complex64; for complex values there are psnr and max_error"),
        (lambda: zstd([Band("vv", "float32")]), {}, FieldError, "holds complex64 values, and codec 'zstd' has band 'vv' as float32: give the band's name without a type"),
        (lambda: open_codec("zstd", bands=["vv"]), {"resolution": 20}, FieldError, "complex values, which are not resampled before they are coded"),
    ],
)  # fmt: skip
def test_what_is_of_real_numbers_is_refused(tmp_path, codec, options, error, text):
    raw = scene(tmp_path / "raw", values((1, 40, 50)))
    with pytest.raises(error, match=text):
        encode(raw.item, codec(), tmp_path / "cat", **options)
    assert nothing_catalogued(tmp_path / "cat")


def test_a_complex_codec_takes_no_real_file(tmp_path):
    raw = scene(tmp_path / "raw", values((1, 40, 50)).real)
    with pytest.raises(FieldError, match="holds float32 values, and codec 'zstd' has band 'vv' as complex64"):
        encode(raw.item, zstd([Band("vv", "complex64")]), tmp_path / "cat")


def test_checks_by_magnitude(tmp_path):
    raw = scene(tmp_path / "raw", values((1, 40, 50)))
    (item,) = encode(
        raw.item, open_codec("zstd", bands=["vv"]), tmp_path / "cat", checks=["max_error<=0", "psnr>=200"]
    )
    assert item.assets["latent"].extra_fields["latent:check_values"] == [0, 200]
