"""What a raw file holds is what is coded: types, nodata, masks, scales and grids of file and Item, one rule for each."""

from __future__ import annotations

import json
import math

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import rasterio.enums
import rasterio.warp
import xarray as xr
from affine import Affine
from core_support import CRS, PROJ, nothing_catalogued
from odc.geo.geobox import GeoBox

from stac_latent import encode, fit, load, open_codec
from stac_latent.catalog.verify import verify
from stac_latent.errors import CatalogError, FieldError, GridError, SourceWarning
from stac_latent.spec import Band

PLACE = Affine(10, 0, 399_990, 0, -10, 5_100_000)
SHAPE = (40, 56)


def values(dtype="uint16", low=1, high=3000, seed=0, shape=SHAPE):
    """No symmetry, both ends taken."""
    f = np.random.default_rng(seed).random(shape).cumsum(axis=1)
    f = low + (f - f.min()) / (f.max() - f.min()) * (high - low)
    return (np.rint(f) if np.dtype(dtype).kind in "iu" else f).astype(dtype)


def write(path, data, *, nodata=None, crs=CRS, transform=PLACE, mask=None, scale=None, **options):
    data = data[None] if data.ndim == 2 else data
    with rasterio.open(
        path, "w", driver="GTiff", count=len(data), height=data.shape[1], width=data.shape[2], dtype=data.dtype,
        nodata=nodata, crs=crs, transform=transform, **options,
    ) as dst:  # fmt: skip
        dst.write(data)
        if mask is not None:
            dst.write_mask(mask)
        if scale is not None:
            dst.scales, dst.offsets = (scale[0],) * len(data), (scale[1],) * len(data)
    return path


def scene(assets, properties=None, proj=None, name="scene"):
    """Item of ``{key: (path, fields)}``."""
    item = pystac.Item(
        name, {"type": "Point", "coordinates": [13.7, 46.0]}, [13.7, 46.0, 13.7, 46.0], None,
        {"start_datetime": "2024-06-01T00:00:00Z", "end_datetime": "2024-06-01T00:00:00Z", "datetime": "2024-06-01T00:00:00Z"}
        | dict(properties or {}) | dict(proj or {}), stac_extensions=[PROJ] if proj else [], collection="c",
    )  # fmt: skip
    item.datetime = pystac.utils.str_to_datetime("2024-06-01T00:00:00Z")
    for key, (path, fields) in assets.items():
        item.add_asset(
            key,
            pystac.Asset(
                str(path), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=dict(fields)
            ),
        )
    item.set_self_href(str(path.parent / f"{name}.json"))
    return item


def coded(tmp_path, item, codec="zstd", **options):
    """Encoded and loaded: Item and cube."""
    chosen = open_codec(codec, bands=list(item.assets)) if isinstance(codec, str) else codec
    (out,) = encode(item, chosen, tmp_path / "cat", **options)
    return out, load(out)


# -- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
@pytest.mark.parametrize(("codec", "bound"), [("zstd", None), ("lin", 0), ("dct", 0)])
def test_the_file_tells_the_type(tmp_path, dtype, codec, bound):
    """Nothing declared: all values come back, of the file's type, whatever the codec's default is."""
    kind = np.dtype(dtype).kind
    data = values(
        dtype,
        *(
            (-1.5, 1e5)
            if kind == "f"
            else (max(np.iinfo(dtype).min, -70_000), min(np.iinfo(dtype).max, 200_000))
        ),
    )
    item = scene({"v": (write(tmp_path / "v.tif", data), {})})
    out, cube = coded(tmp_path, item, codec, error_bound=bound)
    assert cube.v.dtype == dtype
    np.testing.assert_array_equal(cube.v.values[0], data)
    assert out.properties["latent:max_error"] == 0
    assert out.assets["latent"].extra_fields["bands"][0]["data_type"] == dtype
    assert "nodata" not in out.assets["latent"].extra_fields["bands"][0]


def test_a_declared_type_that_is_wrong_is_named(tmp_path):
    data = values("int16", -400, 2000)
    item = scene({"dem": (write(tmp_path / "v.tif", data), {"data_type": "uint16"})})
    with pytest.warns(
        SourceWarning, match="'dem' is uint16 in the item and int16 in its file; the file's type is taken"
    ):
        _, cube = coded(tmp_path, item)
    np.testing.assert_array_equal(cube.dem.values[0], data)


def test_floats_need_a_unit_where_there_are_losses(tmp_path):
    item = scene({"v": (write(tmp_path / "v.tif", values("float32", 0.01, 0.9)), {})})
    for codec in ("lin", "dct", "wavelet"):
        with pytest.raises(FieldError, match=r"band\(s\) v of item 'scene' are floats.*error_bound="):
            coded(tmp_path, item, codec)
    assert nothing_catalogued(tmp_path / "cat")


def test_a_type_that_was_given_refuses_what_it_cannot_hold(tmp_path):
    item = scene({"v": (write(tmp_path / "v.tif", values("int16", -400, 2000)), {})})
    text = "band 'v' of item 'scene' holds values from -400 to 2000, which uint16 of codec 'zstd' cannot hold.*name without a type"
    with pytest.raises(FieldError, match=text):
        coded(tmp_path, item, open_codec("zstd", bands=[Band("v", "uint16")]))
    assert nothing_catalogued(tmp_path / "cat")


@pytest.mark.filterwarnings("ignore:item 'scene'. band 'B0:stac_latent.errors.SourceWarning")
def test_negative_reflectance_of_a_fitted_codec_is_kept(tmp_path):
    """Its space stays, so that dates stay comparable; the pixels are decoded to a type that has signs."""
    data = values(low=1, high=4000)
    assets = {b: (write(tmp_path / f"{b}.tif", data, nodata=0), {}) for b in ("B02", "B03", "B04", "B08")}
    item = scene(assets, {"s2:processing_baseline": "05.11"})
    with pytest.warns(
        SourceWarning,
        match="'B02' holds values from -999 to 3000, which uint16 cannot hold; it is decoded to int16",
    ):
        out, cube = coded(tmp_path, item, open_codec("s2-10m-4b"), guard="off")
    assert out.properties["latent:spaces"] == [open_codec("s2-10m-4b").space]
    error = np.abs(cube.B02.values[0].astype(int) - (data.astype(int) - 1000))
    assert cube.B02.dtype == np.int16
    assert error.max() == out.assets["latent"].extra_fields["latent:band_max_error"][0] < 200
    (row,) = verify(str(tmp_path / "cat" / "catalog.json"))
    assert (row.compared, row.problems) == (True, [])


def test_values_too_far_for_the_chain_are_refused_by_name(tmp_path):
    item = scene({"v": (write(tmp_path / "v.tif", values("uint32", 0, 900_000)), {})})
    for codec in ("dct", "wavelet", "lin"):
        with pytest.raises(
            FieldError, match=r"band 'v' holds 1.* to 900000, more than 131072 from 0.*error_bound="
        ):
            coded(tmp_path, item, codec)


@pytest.mark.parametrize(
    "pair", [("uint16", "uint8"), ("int16", "uint16"), ("int8", "uint8"), ("uint16", "float32")]
)
@pytest.mark.parametrize("codec", ["zstd", "lin", "dct", "wavelet", "jpeg2000"])
def test_bands_of_several_types_keep_each_its_own(tmp_path, pair, codec):
    """Values at both ends of the narrow type, with losses: none wraps round, and what is said is what is there."""
    ends = {
        "uint8": (0, 255),
        "int8": (-128, 127),
        "uint16": (0, 4000),
        "int16": (-3000, 3000),
        "float32": (-5, 5000),
    }
    data = {
        k: np.clip(values("float64", *ends[d], seed=i) * 1.2, *ends[d]).astype(d)
        for i, (k, d) in enumerate(zip("ab", pair, strict=True))
    }
    item = scene({k: (write(tmp_path / f"{k}.tif", v), {}) for k, v in data.items()})
    chosen = open_codec(codec, bands=[Band(k, v.dtype.name) for k, v in data.items()])
    if codec == "jpeg2000" and pair not in (("uint16", "uint8"), ("int8", "uint8")):
        with pytest.raises(FieldError, match="jpeg2000 codes uint8, uint16 and int16; got"):
            coded(tmp_path, item, chosen)
        return
    out, cube = coded(tmp_path, item, chosen)
    said = out.assets["latent"].extra_fields["latent:band_max_error"]
    for k, most in zip("ab", said, strict=True):
        assert cube[k].dtype == data[k].dtype
        error = np.abs(cube[k].values[0].astype(float) - data[k])
        assert error.max() == pytest.approx(most, rel=1e-6)
        assert error.max() < (1e-9 if codec == "zstd" else 240)


def test_no_type_for_64_bits_beside_others(tmp_path):
    item = scene(
        {
            "a": (write(tmp_path / "a.tif", values("int64")), {}),
            "b": (write(tmp_path / "b.tif", values("uint64")), {}),
        }
    )
    with pytest.raises(FieldError, match="no type holds all values of these bands: a int64, b uint64"):
        coded(tmp_path, item)


# -- nodata ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["zstd", "lin", "dct"])
@pytest.mark.parametrize("where", ["item", "file", "both"])
@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 255), ("int16", -9999), ("uint16", 0), ("float32", -9999)]
)
def test_nodata_is_that_of_the_source(tmp_path, codec, where, dtype, nodata):
    """0 stays a value beside nodata of 255; the same pixels are empty as in a load of the raw, resampled as well."""
    data = values(dtype, 0 if nodata else 1, 200)
    data[10:20, 8:30] = nodata
    path = write(tmp_path / "v.tif", data, nodata=None if where == "item" else nodata)
    fields = {"data_type": dtype, "nodata": nodata}
    item = scene({"v": (path, {} if where == "file" else fields)}, proj=told())
    _, cube = coded(tmp_path, item, codec, error_bound=0)
    empty = data == nodata
    own = math.nan if dtype == "float32" else nodata
    np.testing.assert_array_equal(cube.v.values[0], np.where(empty, own, data))
    assert cube.v.attrs["_FillValue"] == pytest.approx(own, nan_ok=True)
    grid = {"crs": CRS, "resolution": 25, "resampling": "bilinear"}
    tagged = scene({"v": (write(tmp_path / "tagged.tif", data, nodata=nodata), fields)}, proj=told())
    box = load(item_of(tmp_path), **grid).odc.geobox
    expected = odc.stac.load([tagged], geobox=box, resampling="bilinear").v.values
    if dtype == "float32":
        expected = np.where(expected == nodata, np.nan, expected)
    np.testing.assert_array_equal(load(item_of(tmp_path), **grid).v.values, expected)


def item_of(tmp_path):
    """The one that was catalogued."""
    return pystac.Item.from_file(str(next((tmp_path / "cat").glob("c/*/*.json"))))


def test_item_and_file_may_each_have_nodata(tmp_path):
    data = values("int16", 1, 900)
    data[:5], data[5:9] = -9999, 0
    item = scene({"v": (write(tmp_path / "v.tif", data, nodata=-9999), {"nodata": 0})})
    with pytest.warns(
        SourceWarning, match="'v' has nodata 0 in the item and -9999 in its file; both are without data"
    ):
        _, cube = coded(tmp_path, item)
    np.testing.assert_array_equal(cube.v.values[0], np.where(data == -9999, 0, data))


def test_nodata_that_no_pixel_can_be_is_left_out(tmp_path):
    data = values("uint8", 0, 255)
    item = scene({"v": (write(tmp_path / "v.tif", data), {"nodata": -9999})})
    with pytest.warns(
        SourceWarning, match="'v' has nodata -9999 in the item, which no pixel of uint8 can be"
    ):
        out, cube = coded(tmp_path, item)
    np.testing.assert_array_equal(cube.v.values[0], data)
    assert "nodata" not in out.assets["latent"].extra_fields["bands"][0]


def test_nodata_as_text(tmp_path):
    data = values("float32", -5, 5)
    data[3:6] = np.nan
    item = scene({"v": (write(tmp_path / "v.tif", data), {"nodata": "nan"})})
    np.testing.assert_array_equal(coded(tmp_path, item)[1].v.values[0], data)
    item.assets["v"].extra_fields["nodata"] = "none"
    with pytest.raises(CatalogError, match="band 'v' of item 'scene' has nodata 'none', which is no number"):
        coded(tmp_path, item)


@pytest.mark.parametrize("codec", ["lin", "dct", "jpeg2000"])
def test_no_valid_pixel_decodes_to_nodata(tmp_path, codec):
    """Nodata in the middle of the values, coarse steps: what has data keeps having some."""
    data = values("int16", -50, 50)
    data[(data == 7) | (np.arange(56) % 9 == 0)] = 7
    item = scene({"v": (write(tmp_path / "v.tif", data, nodata=7), {})})
    _, cube = coded(tmp_path, item, codec)
    np.testing.assert_array_equal(cube.v.values[0] == 7, data == 7)


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["YES", "NO"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("codec", ["zstd", "lin"])
def test_masks_beside_and_in_the_file(tmp_path, inside, dtype, codec):
    """Pixels that a mask leaves out are empty; 0 and the largest value are values."""
    data = values(dtype, 0, 255)
    mask = np.ones(SHAPE, bool)
    mask[4:17, 9:33] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        path = write(tmp_path / "v.tif", data[: SHAPE[0]], mask=mask)
    if dtype == "uint8":
        with rasterio.open(path, "r+") as dst:
            data[data == 9] = 10
            dst.write(data, 1)
    _, cube = coded(tmp_path, scene({"v": (path, {})}), codec, error_bound=0)
    got, nodata = cube.v.values[0], cube.v.attrs.get("_FillValue", math.nan)
    np.testing.assert_array_equal(np.isnan(got) if dtype == "float32" else got == nodata, ~mask)
    np.testing.assert_array_equal(got[mask], data[mask])


def test_an_alpha_band_is_a_mask_unless_the_item_describes_it(tmp_path):
    data = np.stack([values("uint8", 1, 200, seed=i) for i in range(4)])
    data[3] = 255
    data[3, :9] = 0
    path = write(tmp_path / "v.tif", data)  # GDAL takes the fourth of four bands of bytes for opacity
    names = [{"name": n} for n in ("r", "g", "b", "n")]
    codec = open_codec("zstd", bands=["r", "g", "b"])
    _, cube = coded(tmp_path, scene({"v": (path, {"bands": names[:3]})}), codec)
    np.testing.assert_array_equal(
        cube.r.values[0], np.where(data[3] == 0, cube.r.attrs["_FillValue"], data[0])
    )
    _, whole = coded(
        tmp_path, scene({"v": (path, {"bands": names})}, name="four"), open_codec("zstd", bands=["r", "n"])
    )
    np.testing.assert_array_equal(whole.r.values[0], data[0])
    np.testing.assert_array_equal(whole.n.values[0], data[3])


def test_a_mask_is_not_resampled(tmp_path):
    mask = np.ones(SHAPE, bool)
    mask[:9] = False
    item = scene({"v": (write(tmp_path / "v.tif", values(), mask=mask), {})})
    with pytest.raises(FieldError, match="asset 'v' of item 'scene' has a mask, which cannot be resampled"):
        coded(tmp_path, item, resolution=20)


# -- scale and offset --------------------------------------------------------------------------------------------------


def test_scales_of_the_file_count_where_the_item_has_none(tmp_path):
    data = values("int16", -100, 900)
    item = scene({"v": (write(tmp_path / "v.tif", data, scale=(0.01, 5.0)), {})})
    out, _ = coded(tmp_path, item)
    np.testing.assert_allclose(load(out, physical=True).v.values[0], data * 0.01 + 5, rtol=1e-6)
    item.assets["v"].extra_fields["raster:scale"] = 0.1
    other, _ = coded(tmp_path, item, overwrite=True)
    np.testing.assert_allclose(load(other, physical=True).v.values[0], data * 0.1, rtol=1e-6)


def test_the_offset_of_sentinel2_is_of_reflectances(tmp_path):
    path = write(tmp_path / "v.tif", values(low=1500, high=3000), nodata=0)
    fields = {"raster:bands": [{"data_type": "uint16", "nodata": 0, "scale": 0.001}]}
    item = scene(
        dict.fromkeys(("B04", "AOT", "WVP", "ndvi"), (path, fields)), {"s2:processing_baseline": "05.11"}
    )
    out, cube = coded(tmp_path, item)
    offsets = {b["name"]: b.get("raster:offset", 0) for b in out.assets["latent"].extra_fields["bands"]}
    assert offsets == {"B04": -1.0, "AOT": 0.0, "WVP": 0.0, "ndvi": 0.0}
    np.testing.assert_array_equal(cube.AOT.values, cube.B04.values)


def test_a_scale_of_zero_is_refused(tmp_path):
    item = scene({"v": (write(tmp_path / "v.tif", values()), {"raster:scale": 0})})
    with pytest.raises(
        CatalogError, match="band 'v' of item 'scene' has scale 0, which leads to no physical value"
    ):
        coded(tmp_path, item)


# -- grids -------------------------------------------------------------------------------------------------------------

SIX = [10, 0, 399_990, 0, -10, 5_100_000]


def told(transform=SIX, shape=SHAPE, code=CRS):
    return {"proj:code": code, "proj:transform": list(transform), "proj:shape": list(shape)}


@pytest.mark.parametrize(
    ("proj", "text"),
    [
        (told(shape=SHAPE[::-1]), r"proj:shape is \[56, 40\], the file has \[40, 56\] pixels \(proj:shape is \(y, x\)"),
        (told([10, 0, 399_995, 0, -10, 5_099_995]), r"proj:transform .* lies up to 0.5 pixels off"),
        (told([20, 0, 399_990, 0, -20, 5_100_000]), r"lies up to 56 pixels off \[10.0, 0.0, 399990.0"),
        (told([399_990, 10, 0, 5_100_000, 0, -10]), r"is in GDAL's order, STAC's is \[10.0, 0.0, 399990.0, 0.0, -10.0, 5100000.0\]"),
        (told(code="EPSG:32634"), r"its CRS is EPSG:32634 in the item and EPSG:32633 in the file"),
    ],
)  # fmt: skip
def test_contradictions_of_the_grid(tmp_path, proj, text):
    """Refused by name; the file's grid is taken where that is asked for."""
    data = values()
    item = scene({"v": (write(tmp_path / "v.tif", data), {})}, proj=proj)
    with pytest.raises(GridError, match=f"asset 'v' of item 'scene': .*{text}.*trust='file'"):
        coded(tmp_path, item)
    assert nothing_catalogued(tmp_path / "cat")
    with pytest.warns(SourceWarning, match="the file's grid is taken"):
        _, cube = coded(tmp_path, item, trust="file")
    assert cube.odc.geobox.affine == PLACE
    np.testing.assert_array_equal(cube.v.values[0], data)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("trust", [None, "file", "item"])
def test_fewer_pixels_without_a_place_are_refused(tmp_path, trust):
    """A file of a scene made smaller, without georeference: the item's transform is of the pixels before."""
    path = write(tmp_path / "v.tif", values(), crs=None, transform=None)
    item = scene({"v": (path, {})}, proj=told(shape=(SHAPE[0] * 12, SHAPE[1] * 12)))
    with pytest.raises(
        GridError, match="does not say where they lie: proj:transform of the item is of other pixels"
    ):
        coded(tmp_path, item, trust=trust)
    assert nothing_catalogued(tmp_path / "cat")


def test_the_item_is_trusted_where_that_is_meant(tmp_path):
    """The pixels are placed where it says, and measured there again."""
    data = values()
    item = scene(
        {"v": (write(tmp_path / "v.tif", data), {})},
        proj=told([20, 0, 0, 0, -20, 5_000_000], code="EPSG:32634"),
    )
    with pytest.warns(SourceWarning, match="the item's grid is taken"):
        _, cube = coded(tmp_path, item, trust="item")
    assert (cube.odc.geobox.affine, cube.odc.geobox.crs) == (
        Affine(20, 0, 0, 0, -20, 5_000_000),
        "EPSG:32634",
    )
    np.testing.assert_array_equal(cube.v.values[0], data)
    (row,) = verify(str(tmp_path / "cat" / "catalog.json"))
    assert (row.compared, row.problems) == (True, [])
    with pytest.raises(GridError, match="trust='me' names neither side"):
        coded(tmp_path, item, trust="me")


def test_less_than_half_a_pixel_is_the_files(tmp_path):
    item = scene(
        {"v": (write(tmp_path / "v.tif", values()), {})}, proj=told([10, 0, 399_993, 0, -10, 5_100_001])
    )
    with pytest.warns(SourceWarning, match="lies 0.3 pixels off in the item; the grid of its file is taken"):
        _, cube = coded(tmp_path, item)
    assert cube.odc.geobox.affine == PLACE
    item.properties["proj:transform"] = [
        10,
        0,
        399_990.00001,
        0,
        -10,
        5_100_000,
        0,
        0,
        1,
    ]  # rounding goes without a word
    assert coded(tmp_path, item, overwrite=True)[1].odc.geobox.affine == PLACE


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_one_side_lacks_the_other_tells(tmp_path):
    data = values()
    bare = write(tmp_path / "bare.tif", data, crs=None, transform=Affine.identity())
    _, cube = coded(tmp_path, scene({"v": (bare, {})}, proj=told()))
    assert (cube.odc.geobox.affine, cube.odc.geobox.crs) == (PLACE, CRS)
    np.testing.assert_array_equal(cube.v.values[0], data)
    half = write(tmp_path / "half.tif", data, crs=None)
    _, cube = coded(tmp_path, scene({"v": (half, {})}, proj={"proj:epsg": 32633}, name="epsg"))
    assert cube.odc.geobox.crs == CRS
    full = scene(
        {"v": (write(tmp_path / "full.tif", data), {})}, proj={"proj:code": "EPSG:None"}, name="none"
    )
    with pytest.warns(SourceWarning, match="proj:code 'EPSG:None' is no CRS; it is left out"):
        _, cube = coded(tmp_path, full)
    assert cube.odc.geobox.crs == CRS
    with pytest.raises(GridError, match="asset 'v' of item 'bare' has no CRS: neither proj:code in the item"):
        coded(tmp_path, scene({"v": (bare, {})}, name="bare"))


def test_a_band_that_the_file_lacks(tmp_path):
    path = write(tmp_path / "v.tif", values())
    item = scene({"v": (path, {"bands": [{"name": "a"}, {"name": "b"}]})})
    with pytest.raises(
        CatalogError, match="asset 'v' of item 'scene' has 2 bands in the item and 1 in its file"
    ):
        coded(tmp_path, item, open_codec("zstd", bands=["b"]))


def test_a_sheared_raster_of_nine_numbers_and_pixels_as_points(tmp_path):
    data, place = values(), Affine(9, 2, 399_990, 1, -11, 5_100_000)
    path = write(tmp_path / "v.tif", data, transform=place)
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(path) as src:
        place = src.transform
    _, cube = coded(tmp_path, scene({"v": (path, {})}, proj=told([*place][:9])))
    assert cube.odc.geobox.affine == place
    np.testing.assert_array_equal(cube.v.values[0], data)


@pytest.mark.parametrize("nodata", [math.nan, -9999.0])
def test_bundles_of_floats_are_json(tmp_path, nodata):
    """NaN is no number of JSON's: neither a derived codec nor a fitted one writes it, and pixels without data stay so."""
    data = values("float32", 1, 90, shape=(300, 300))
    data[30:60, 8:90] = nodata
    item = scene({"v": (write(tmp_path / "v.tif", data, nodata=nodata), {})})
    fitted = fit(item, tmp_path / "fitted", ["v"], pixels=40_000, holdout=0).codec
    for codec in (open_codec("zstd", bands=["v"]), fitted):
        (out,) = encode(item, codec, tmp_path / codec.name)
        for path in tmp_path.rglob("*.json"):
            json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
        np.testing.assert_array_equal(
            np.isnan(load(out).v.values[0]), np.isnan(np.where(data == nodata, np.nan, data))
        )


# -- nodata in the codec's unit --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "options"),
    [("lin", {"error_bound": 0}), ("lin", {"error_bound": {"B02": "5%"}}), ("zstd", {})],
    ids=["exact", "relative", "zstd"],
)
def test_values_that_an_offset_brings_to_nodata_stay_values(tmp_path, codec, options):
    """1000 is a reflectance of 0, which is nodata of the codec: nodata moves, the value does not."""
    data = values(low=900, high=1100)
    data[:4] = 0
    fields = {"nodata": 0, "raster:scale": 1e-4, "raster:offset": -0.1}
    item = scene({"B02": (write(tmp_path / "v.tif", data, nodata=0), fields)})
    chosen = open_codec(codec, bands=[Band("B02", "int16", nodata=0, scale=1e-4)])
    with pytest.warns(
        SourceWarning, match="'B02' has pixels that scale and offset bring to its nodata 0; they are kept"
    ):
        (out,) = encode(item, chosen, tmp_path / "cat", **options)
    got = load(out).B02
    assert (data == 1000).any()
    np.testing.assert_array_equal(got.values[0] == got.attrs["_FillValue"], data == 0)
    zero = got.values[0][data == 1000]
    np.testing.assert_array_equal(zero, 0)
    if "5%" not in str(options):
        np.testing.assert_array_equal(got.values[0][4:], data[4:].astype(int) - 1000)
        assert out.properties["latent:max_error"] == 0
    assert not verify(out)[0].problems


# -- latents decoded in memory ---------------------------------------------------------------------------------------


def test_latents_decode_to_the_types_and_scales_of_the_item(tmp_path):
    """Several types, one widened, and a scale that the Item alone states; through a file as well."""
    a = write(tmp_path / "a.tif", values("int16", -900, 3000))
    b = write(tmp_path / "b.tif", values("uint8", 0, 255))
    item = scene({"a": (a, {"raster:scale": 0.5, "raster:offset": -3.0, "unit": "m"}), "b": (b, {})})
    with pytest.warns(SourceWarning, match="'a' holds values from -900 to 3000, which uint16 cannot hold"):
        out, want = coded(tmp_path, item, open_codec("lin", bands=[Band("a", "uint16"), Band("b", "uint8")]))
    cube = load(out, upto="latent")
    cube.to_zarr(tmp_path / "cube.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False, decode_coords="all").stac_latent.decode()
    opened = xr.open_dataset(out.get_self_href(), engine="stac-latent", upto="latent")
    for got in (cube.stac_latent.decode(), again, opened.stac_latent.decode().expand_dims("time")):
        for name, dtype in (("a", "int16"), ("b", "uint8")):
            assert got[name].dtype == want[name].dtype == dtype
            inner = got[name].sel(x=want.x, y=want.y, method="nearest")
            np.testing.assert_array_equal(inner.values[0], want[name].values[0])
            assert got[name].attrs == want[name].attrs
    assert want.a.attrs["scale_factor"] == 0.5


def test_latents_of_dates_of_several_types(tmp_path):
    """They decode to the smallest type that holds all; dates of other scales are refused."""
    codec = open_codec("lin", bands=[Band("v", "uint16")])
    dates = (("uint16", 0, 60_000, {}), ("int16", -900, 0, {}), ("uint16", 0, 60_000, {"raster:scale": 0.1}))
    raw = []
    for i, (dtype, low, high, fields) in enumerate(dates):
        path = write(tmp_path / f"{i}.tif", values(dtype, low, high))
        raw.append(scene({"v": (path, fields)}, name=f"d{i}"))
        raw[-1].datetime = pystac.utils.str_to_datetime(f"2024-06-0{i + 1}T00:00:00Z")
    with pytest.warns(SourceWarning, match="it is decoded to int16"):
        items = encode(raw, codec, tmp_path / "cat")
    got = load(items[:2], upto="latent").stac_latent.decode().v
    assert got.dtype == np.int32
    for i, item in enumerate(items[:2]):
        want = load(item).v
        inner = got[i].sel(x=want.x, y=want.y, method="nearest")
        np.testing.assert_array_equal(inner.values, want.values[0])
    with pytest.raises(
        CatalogError,
        match=r"'v' has scale 1 and offset 0 in one item of this cube, 0\.1 and 0 in another: decode their dates apart",
    ):
        load(items, upto="latent").stac_latent.decode()


# -- several lattices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [PLACE, Affine(10, 0, 399_960, 0, -10, 5_100_000)], ids=["apart", "nested"])
@pytest.mark.parametrize("trust", [None, "item"])
def test_bands_of_several_grids_are_held_against_their_files(tmp_path, place, trust):
    """Pixels of 10, 20 and 60 m, of lattices of their own; where the Item is trusted, each lies where it says."""
    move = Affine.translation(3000, -1200) if trust else Affine.identity()
    crs = "EPSG:32634" if trust else CRS
    wide = place * Affine.scale(2), place * Affine.scale(6)
    rows = {"a": (place, (60, 72)), "b": (wide[0], (30, 36)), "c": (wide[1], (10, 12))}
    assets, data = {}, {}
    for name, (own, shape) in rows.items():
        data[name] = values(low=-500, dtype="int16", shape=shape)
        told = {"proj:code": crs, "proj:transform": list(move * own)[:6]}
        assets[name] = (write(tmp_path / f"{name}.tif", data[name], transform=own), told)
    codec = open_codec("lin", bands=list(rows))
    options = {"error_bound": 0, "trust": trust}
    item = scene(assets, proj={"proj:code": crs})
    item.save_object(include_self_link=True, dest_href=str(tmp_path / "scene.json"))
    if trust:
        with pytest.warns(SourceWarning, match="the item's grid is taken"):
            (out,) = encode(item, codec, tmp_path / "cat", **options)
    else:
        (out,) = encode(item, codec, tmp_path / "cat", **options)
    for name, (own, shape) in rows.items():
        got = load(out, bands=[name], geobox=GeoBox(shape, move * own, crs))[name]
        np.testing.assert_array_equal(got.values[0], data[name])
    checked = verify(out, full=True)[0]
    assert (checked.problems, checked.compared, checked.read_by) == ([], True, "rasterio")
    assert checked.samples == sum(a.size for a in data.values())


def test_a_trusted_item_is_resampled_where_it_says(tmp_path):
    """Half pixels: the file's own place would give other averages."""
    data = values()
    told = {"proj:code": CRS, "proj:transform": list(Affine.translation(30, -10) * PLACE)[:6]}
    item = scene({"v": (write(tmp_path / "v.tif", data), told)})
    item.save_object(include_self_link=True, dest_href=str(tmp_path / "scene.json"))
    with pytest.warns(SourceWarning, match="the item's grid is taken"):
        (out,) = encode(
            item, open_codec("zstd", bands=["v"]), tmp_path / "cat", trust="item", resolution=20, resampling="average"
        )  # fmt: skip
    moved = GeoBox(SHAPE, Affine.translation(30, -10) * PLACE, CRS)
    cube = load(out)
    want = np.zeros(cube.v.shape[1:], "uint16")
    rasterio.warp.reproject(
        data, want, src_transform=moved.affine, src_crs=CRS, dst_transform=cube.odc.geobox.affine, dst_crs=CRS,
        resampling=rasterio.enums.Resampling.average,
    )  # fmt: skip
    np.testing.assert_array_equal(cube.v.values[0], want)
    checked = verify(out)[0]
    assert (checked.problems, checked.compared, checked.read_by) == ([], True, "odc-stac")


# -- dates of other nodata -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodata", [(0, 65_535), (None, 0), (0, None)])
def test_dates_of_other_nodata_share_one_and_a_warning_says_so(tmp_path, nodata):
    raw, empty = [], []
    for i, value in enumerate(nodata):
        data = values(low=1, seed=i)
        if value is not None:
            data[:5] = value
        empty.append(data == value)
        raw.append(scene({"v": (write(tmp_path / f"{i}.tif", data, nodata=value), {})}, name=f"d{i}"))
        raw[-1].datetime = pystac.utils.str_to_datetime(f"2024-06-0{i + 1}T00:00:00Z")
    items = encode(raw, open_codec("zstd", bands=["v"]), tmp_path / "cat")
    with pytest.warns(
        SourceWarning, match=r"'v' does not have the same nodata in all items: .*physical=True"
    ) as caught:
        cube = load(items).v
    assert {w.filename for w in caught if w.category is SourceWarning} == {__file__}
    assert cube.attrs["_FillValue"] == 0
    np.testing.assert_array_equal(cube.values == 0, empty)
    np.testing.assert_array_equal(np.isnan(load(items, physical=True).v.values), empty)
    np.testing.assert_array_equal(load(items, nodata=9999).v.values == 9999, empty)


def test_a_footprint_of_several_geometries(tmp_path):
    data = values()
    item = scene({"v": (write(tmp_path / "v.tif", data), {})})
    part = {"type": "Polygon", "coordinates": [[[13.6, 46], [13.8, 46], [13.8, 46.1], [13.6, 46]]]}
    item.geometry = {"type": "GeometryCollection", "geometries": [part, {"type": "Point", "coordinates": [13.7, 46]}]}  # fmt: skip
    _, cube = coded(tmp_path, item)
    np.testing.assert_array_equal(cube.v.values[0], data)
