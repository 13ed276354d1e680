"""Which asset a codec's band is: what comes first, what is never taken, and what is refused for want of certainty."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from core_support import nothing_catalogued

from stac_latent import encode, fit, load, open_codec
from stac_latent.codec.shipped import zstd
from stac_latent.cube.raw.asset_bands import assign, band_table
from stac_latent.errors import CatalogError
from stac_latent.spec import Band

CRS, CORNER = "EPSG:32633", (400_000.0, 5_100_000.0)
GEOMETRY = {
    "type": "Polygon",
    "coordinates": [[[13.6, 46.0], [13.8, 46.0], [13.8, 46.1], [13.6, 46.1], [13.6, 46.0]]],
}


def pixels(seed, shape=(40, 48), high=3000, dtype="uint16"):
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(shape[0]) * 11, np.arange(shape[1]) * 7) % (high - 20)
    return (1 + smooth + rng.integers(0, 9, shape)).astype(dtype)


def add(
    item, folder, key, data, *, res=10.0, media=pystac.MediaType.GEOTIFF, roles=("data",), file=None, **fields
):
    """Write a TIFF and describe it as the fields say, no more."""
    layers = data[None] if data.ndim == 2 else data
    path = folder / (file or f"{item.id}-{key}.tif")
    with rasterio.open(
        path, "w", driver="GTiff", height=layers.shape[1], width=layers.shape[2], count=len(layers), dtype=layers.dtype, crs=CRS,
        transform=Affine(res, 0, CORNER[0], 0, -res, CORNER[1]),
    ) as dst:  # fmt: skip
        dst.write(layers)
    item.add_asset(key, pystac.Asset(str(path), media_type=media, roles=list(roles), extra_fields=fields))


def new_item(folder, name="scene"):
    when = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    item = pystac.Item(name, GEOMETRY, [13.6, 46.0, 13.8, 46.1], when, {}, collection="scenes")
    item.set_self_href(str(folder / f"{name}.json"))
    return item


def named(*bands):
    return [{"name": n, "eo:common_name": c} for n, c in bands]


def assets(item, *bands, **given):
    return [
        row["asset"]
        for row in assign(item, [b if isinstance(b, Band) else Band(b) for b in bands], "zstd", given)
    ]


def test_data_of_one_band_comes_before_a_picture_of_three(tmp_path):
    item = new_item(tmp_path)
    truth = {n: pixels(i) for i, n in enumerate(("B04", "B03"))}
    picture = np.stack([(v // 16).astype(np.uint8) for v in truth.values()])
    add(item, tmp_path, "tci", picture, roles=["visual"], **{"eo:bands": [{"name": n} for n in truth]})
    add(item, tmp_path, "red", truth["B04"], **{"eo:bands": [{"name": "B04", "common_name": "red"}]})
    add(item, tmp_path, "green", truth["B03"], **{"eo:bands": [{"name": "B03", "common_name": "green"}]})
    cube = load(encode(item, zstd(["B04", "B03"]), tmp_path / "cat"))
    for name, raw in truth.items():
        np.testing.assert_array_equal(cube[name][0], raw)


def test_pictures_never_stand_in_for_a_missing_band(tmp_path):
    item = new_item(tmp_path)
    add(
        item,
        tmp_path,
        "visual",
        np.stack([pixels(i, high=200) for i in (1, 2)]),
        bands=named(("B04", "red"), ("B03", "green")),
    )
    add(item, tmp_path, "B03", pixels(2))
    with pytest.raises(
        CatalogError, match=r"lacks band\(s\) B04 .*it has B03, visual \(B04, red, a picture\)"
    ):
        assets(item, "B04", "B03")
    assert assets(item, "B04") == ["visual"]  # a codec of pictures takes them whole
    assert assets(item, "B04", "B03", B04="visual") == ["visual", "B03"]


@pytest.mark.parametrize(
    ("key", "roles", "fields"),
    [
        ("mask_B02", ["data"], {}),
        ("aux", ["cloud"], {"bands": [{"name": "B02"}]}),
        ("snow", ["data", "snow-ice"], {"bands": [{"name": "B02", "eo:common_name": "blue"}]}),
        ("radsat", ["saturation"], {"eo:bands": [{"name": "x", "common_name": "blue"}]}),
        ("qa_B02", None, {}),
    ],
)
def test_masks_are_no_bands(tmp_path, key, roles, fields):
    item = new_item(tmp_path)
    add(
        item,
        tmp_path,
        key,
        pixels(0, high=40, dtype="uint8"),
        roles=roles or [],
        file="MSK_B02.tif",
        **fields,
    )
    with pytest.raises(CatalogError, match=r"lacks band\(s\) B02"):
        assets(item, Band("B02", common_name="blue"))
    add(item, tmp_path, "blue", pixels(1), bands=named(("blue", "blue")))
    assert assets(item, Band("B02", common_name="blue")) == ["blue"]
    assert assets(item, Band(key)) == [key]  # its own name is a request for it


def test_masks_are_found_by_their_own_names(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "scl", pixels(0, high=40, dtype="uint8"), file="SCL.tif")
    assert assets(item, "SCL") == ["scl"]


def test_quick_looks_are_no_rasters(tmp_path):
    item = new_item(tmp_path)
    for key, roles in (("thumb", ["thumbnail"]), ("low", ["overview"]), ("preview", [])):
        add(item, tmp_path, key, pixels(0), roles=roles, bands=[{"name": "B04"}])
    assert band_table(item) == []
    with pytest.raises(
        CatalogError, match=r"no asset that is a raster: thumb \(image/tiff; application=geotiff\), low"
    ):
        assets(item, "B04")


@pytest.mark.parametrize("stated", ["proj:transform", "raster:bands", "file"])
def test_the_finest_copy(tmp_path, stated):
    item = new_item(tmp_path)
    for res in (60.0, 10.0, 20.0):
        fields = {
            "proj:transform": {
                "proj:transform": [res, 0, CORNER[0], 0, -res, CORNER[1]],
                "bands": [{"name": "B02"}],
            },
            "raster:bands": {"raster:bands": [{"spatial_resolution": res}], "eo:bands": [{"name": "B02"}]},
            "file": {"bands": [{"name": "B02"}]},
        }[stated]
        add(item, tmp_path, f"B02_{res:g}m", pixels(int(res)), res=res, **fields)
    assert assets(item, "B02") == ["B02_10m"]


def test_equals_are_refused_with_the_way_out(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "first", pixels(0), bands=named(("B04", "red")))
    add(item, tmp_path, "second", pixels(1), bands=named(("B04", "red")))
    with pytest.raises(
        CatalogError,
        match=r"several assets that band 'B04' may be: first \(B04, red\), second \(B04, red\)\. Name the one that you mean with "
        r"bands=\{'B04': 'first'\} \(--bands B04=first\)",
    ):
        encode(item, zstd(["B04"]), tmp_path / "cat")
    nothing_catalogued(tmp_path / "cat")
    cube = load(encode(item, zstd(["B04"]), tmp_path / "cat", bands={"B04": "second"}))
    np.testing.assert_array_equal(cube.B04[0], pixels(1))


def test_file_and_common_name_that_disagree(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "angle", pixels(0), file="view_B02.tif")
    add(item, tmp_path, "blue", pixels(1), bands=named(("blue", "blue")))
    with pytest.raises(CatalogError, match=r"band 'B02' may be: blue, angle"):
        assets(item, Band("B02", common_name="blue"))
    assert assets(item, "B02") == ["angle"]  # nothing says that this one is blue


def test_jpeg_2000_beside_tiff(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "red-jp2", pixels(0), media=pystac.MediaType.JPEG2000, bands=named(("red", "red")))
    add(item, tmp_path, "B04", pixels(0), bands=named(("red", "red")))
    assert assets(item, "red") == ["B04"]


def test_one_source_serves_one_band(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "B05", pixels(0), bands=named(("B05", "rededge")))
    bands = (Band("B05", common_name="rededge"), Band("B06", common_name="rededge"))
    text = r"bands 'B05' and 'B06' would both be B05 \(rededge\) of item 'scene'"
    with pytest.raises(CatalogError, match=text):
        assets(item, *bands)
    with pytest.raises(CatalogError, match=text):
        assets(item, *bands, B06="B05")


def test_bands_described_by_eo_alone(tmp_path):
    item = new_item(tmp_path)
    truth = np.stack([pixels(i, high=240, dtype="uint8") for i in range(4)])
    names = ("Red", "Green", "Blue", "NIR")
    add(
        item, tmp_path, "image", truth, **{"eo:bands": [{"name": n, "common_name": n.lower()} for n in names]}
    )
    cube = load(encode(item, zstd([Band(n, "uint8") for n in names]), tmp_path / "cat"))
    for i, name in enumerate(names):
        np.testing.assert_array_equal(cube[name][0], truth[i])
        np.testing.assert_array_equal(
            load(pystac.Item.from_file(str(next(tmp_path.glob("cat/scenes/*/scene.json")))), name.lower())[
                name.lower()
            ][0],
            truth[i],
        )


def test_more_bands_described_than_there_are(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "image", np.stack([pixels(i) for i in range(2)]), bands=[{"name": n} for n in "abc"])
    with pytest.raises(
        CatalogError,
        match=r"asset 'image' of item 'scene' has 3 bands in the item and 2 in its file; correct the item",
    ):
        encode(item, zstd(["a", "c"]), tmp_path / "cat")
    nothing_catalogued(tmp_path / "cat")


def test_files_that_nothing_describes(tmp_path):
    item = new_item(tmp_path)
    truth = np.stack([pixels(i) for i in range(3)])
    add(item, tmp_path, "stack", truth)
    cube = load(encode(item, zstd(["a", "b"]), tmp_path / "cat", bands={"a": "stack.3", "b": "stack"}))
    np.testing.assert_array_equal(cube.a[0], truth[2])
    np.testing.assert_array_equal(cube.b[0], truth[0])
    with pytest.raises(CatalogError, match=r"lacks band\(s\) stack\.4"):
        assets(item, "a", a="stack.4")


def test_a_key_that_says_nothing(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "asset", pixels(3), bands=[{"name": "b1"}])
    cube = load(encode(item, zstd(["b1"]), tmp_path / "cat"))
    np.testing.assert_array_equal(cube.b1[0], pixels(3))


@pytest.mark.parametrize(
    ("media", "roles", "file", "is_one"),
    [
        (None, [], "a.tif", True),
        (None, ["data"], "a.bin", True),
        (None, ["metadata"], "a.tif", False),
        (None, [], "a.xml", False),
        ("image/tiff", [], "a.bin", True),
        ("IMAGE/TIFF; application=geotiff; profile=cloud-optimized", [], "a", True),
        ("image/png", ["data"], "a.png", True),
        ("application/x-hdf5", [], "a.h5", True),
        ("application/json", ["data"], "a.tif", False),
        ("image/tiff", ["overview"], "a.tif", False),
    ],
)
def test_rasters_as_odc_stac_tells_them(media, roles, file, is_one):
    item = pystac.Item("a", None, None, dt.datetime(2024, 1, 1, tzinfo=dt.UTC), {})
    item.add_asset("it", pystac.Asset(f"https://example.com/{file}?sig=a.b", media_type=media, roles=roles))
    assert bool(band_table(item)) == is_one


@pytest.mark.parametrize("name", ["x", "y", "time", "spatial_ref", "latitude", "latent"])
def test_names_of_coordinates(tmp_path, name):
    item = new_item(tmp_path)
    add(item, tmp_path, name, pixels(0))
    for codec in (zstd([name]), open_codec("lin", bands=[name])):
        with pytest.raises(
            CatalogError, match=rf"has a band called '{name}', as a coordinate or variable of every cube is"
        ):
            encode(item, codec, tmp_path / "cat")
    nothing_catalogued(tmp_path / "cat")
    cube = load(encode(item, zstd(["height"]), tmp_path / "cat", bands={"height": name}, asset="coded"))
    np.testing.assert_array_equal(cube.height[0], pixels(0))


def test_load_refuses_names_of_coordinates(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "a", pixels(0))
    (coded,) = encode(item, zstd(["a"]), tmp_path / "cat")
    coded.assets["latent"].extra_fields["bands"][0]["name"] = "time"
    with pytest.raises(CatalogError, match="asset 'latent' of item 'scene' has a band called 'time'"):
        load(coded)


DESCRIBED = {
    "bands": [
        {
            "name": "B04",
            "eo:common_name": "red",
            "eo:center_wavelength": 0.665,
            "eo:full_width_half_max": 0.038,
            "unit": "sr-1",
        },
    ]
}
OLD = {
    "eo:bands": [
        {"name": "B04", "common_name": "red", "center_wavelength": 0.665, "full_width_half_max": 0.038}
    ],
    "raster:bands": [{"unit": "sr-1", "data_type": "uint16"}],
}


@pytest.mark.parametrize("fields", [DESCRIBED, OLD], ids=["bands", "eo:bands"])
@pytest.mark.parametrize("chain", ["lin", "dct", "wavelet", "zstd", "jpeg2000"])
def test_what_bands_are_survives(tmp_path, chain, fields):
    item = new_item(tmp_path)
    add(item, tmp_path, "one", pixels(0), **fields)
    (coded,) = encode(item, open_codec(chain, bands=["B04"]), tmp_path / "cat")
    (band,) = coded.assets["latent"].extra_fields["bands"]
    assert {k: v for k, v in band.items() if k.startswith("eo:") or k == "unit"} == {
        "eo:common_name": "red", "eo:center_wavelength": 0.665, "eo:full_width_half_max": 0.038, "unit": "sr-1",
    }  # fmt: skip
    cube = load(coded, "red")
    assert list(cube.data_vars) == ["red"]
    assert cube.red.attrs["units"] == "sr-1"
    assert cube.red.attrs["eo:center_wavelength"] == 0.665
    with pytest.raises(CatalogError, match=r"no band 'rad' \(did you mean 'red'\?\) .*; it has B04 \(red\)"):
        load(coded, "rad")


def test_what_bands_of_several_grids_are_survives(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "fine", pixels(0), bands=named(("B04", "red")))
    add(item, tmp_path, "coarse", pixels(1, (20, 24)), res=20.0, bands=named(("B11", "swir16")))
    (coded,) = encode(item, open_codec("lin", bands=["B11", "red"]), tmp_path / "cat")
    found = {b["name"]: b["eo:common_name"] for b in coded.assets["latent"].extra_fields["bands"]}
    assert found == {"red": "red", "B11": "swir16"}
    assert set(load(coded, ["swir16", "red"], resolution=20)) == {"swir16", "red"}


def test_fit_by_common_name(tmp_path):
    item = new_item(tmp_path)
    for key, common in (("B04", "red"), ("B08", "nir")):
        add(item, tmp_path, key, pixels(len(common), (256, 256)), bands=named((key, common)))
    made = fit(item, tmp_path / "my-codec", ["red", "nir"], holdout=0)
    assert [(b.name, b.common_name) for b in made.codec.bands] == [("red", "red"), ("nir", "nir")]
    with pytest.raises(
        CatalogError,
        match=r"lacks band\(s\) rad \(did you mean 'red'\?\) .*; it has B04 \(red\), B08 \(nir\)",
    ):
        fit(item, tmp_path / "other", ["rad"], holdout=0)


def test_pairs_of_bands_that_the_codec_has_not(tmp_path):
    item = new_item(tmp_path)
    add(item, tmp_path, "red", pixels(0))
    with pytest.raises(
        CatalogError,
        match=r"bands= names 'B4' \(did you mean 'B04'\?\), which is no band of codec 'zstd'; it has B04",
    ):
        assets(item, "B04", B4="red")
