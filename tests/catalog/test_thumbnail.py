"""Thumbnails: small pictures of what is encoded, which nothing takes for data."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
from core_support import check, make_scene, scene_field, small_codec
from PIL import Image

from stac_latent import encode, load, open_codec, search, verify
from stac_latent.catalog.encode.thumbnail import Picture
from stac_latent.cube.grid.tiling import padded_shape
from stac_latent.cube.raw.source import ItemSource
from stac_latent.errors import GuardError
from stac_latent.secure import Key
from stac_latent.spec import Band
from stac_latent.window import Span, Window

RGB = tuple(Band(k, nodata=0, scale=1e-4, common_name=k) for k in ("nir", "blue", "green", "red"))


def colours(shape=(187, 213)):
    """Red in the north-west, green in the north-east, blue in the south; a corner without data."""
    field = np.full((4, *shape), 500, np.uint16)
    half = (shape[0] // 2, shape[1] // 2)
    field[3, : half[0], : half[1]] = field[2, : half[0], half[1] :] = field[1, half[0] :] = 3000
    field[:, -40:, -50:] = 0
    return field


def picture_of(item):
    asset = item.assets["thumbnail"]
    data = Path(asset.get_absolute_href()).read_bytes()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")), data


def test_an_item_gains_a_small_picture(tmp_path):
    scene = make_scene(tmp_path / "raw", colours(), keys=("nir", "blue", "green", "red"))
    codec = open_codec("dct", bands=list(RGB))
    (item,) = encode(scene.item, codec, tmp_path / "out")
    check(item)
    asset = item.assets["thumbnail"]
    assert (asset.roles, asset.media_type) == (["thumbnail"], "image/png")
    pixels, data = picture_of(item)
    assert max(pixels.shape) <= 128
    assert len(data) < 4000
    assert pixels[5, 5, :3].tolist() == [255, 0, 0]
    assert pixels[5, -5, :3].tolist() == [0, 255, 0]
    assert pixels[-5, 5, :3].tolist() == [0, 0, 255]
    assert (pixels[5, 5, 3], pixels[-3, -3, 3]) == (255, 0)
    (again,) = encode(scene.item, codec, tmp_path / "again")
    assert picture_of(again)[1] == data
    saved = pystac.Item.from_file(item.get_self_href())
    assert saved.assets["thumbnail"].href == "./thumbnail.png"


def test_a_single_band_is_grey_and_gaps_are_transparent(tmp_path):
    field = scene_field()
    scene = make_scene(tmp_path / "raw", field)
    (item,) = encode(scene.item, small_codec(), tmp_path / "out")
    pixels, _ = picture_of(item)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert len(np.unique(pixels[..., 0])) > 20
    step = -(-max(field.shape[1:]) // 128)
    there = field[0, step // 2 :: step, step // 2 :: step] != 0
    np.testing.assert_array_equal(pixels[..., 3] > 0, there)


@pytest.mark.parametrize("shape", [(1, 3000), (700, 2)])
def test_a_scene_that_is_a_line_has_a_picture_that_is_one(tmp_path, shape):
    scene = make_scene(tmp_path / "raw", np.full((2, *shape), 500, np.uint16))
    (item,) = encode(scene.item, open_codec("zstd", bands=["red", "nir"]), tmp_path / "out")
    seen, _ = picture_of(item)
    assert min(seen.shape[:2]) == 1
    assert 64 <= max(seen.shape[:2]) <= 128


def test_the_picture_does_not_depend_on_how_pixels_were_read(tmp_path):
    scene = make_scene(tmp_path / "raw")

    def drawn(height, width):
        source = ItemSource(scene.item, small_codec())
        picture = Picture([source])
        rows, columns = padded_shape(source.grid)
        for y, x in itertools.product(range(0, rows, height), range(0, columns, width)):
            source.read(Window(Span(y, min(y + height + 8, rows)), Span(x, min(x + width, columns))))
        return picture.png()

    assert drawn(200, 220) == drawn(16, 64) == drawn(40, 7)


def test_nothing_takes_it_for_data(tmp_path):
    scene = make_scene(tmp_path / "raw")
    (item,) = encode(scene.item, small_codec(), tmp_path / "out")
    assert "thumbnail" not in odc.stac.load([item], bands=["red"], driver="rio")
    assert set(load(item)) == {"red", "nir"}
    (found,) = search(tmp_path / "out" / "catalog.json")
    assert [row.problems for row in verify(tmp_path / "out" / "catalog.json")] == [[]]
    (twice,) = encode(found, small_codec("wavelet"), tmp_path / "twice", asset="w")
    assert twice.assets["thumbnail"].href == str(tmp_path / "out" / "scenes" / "scene" / "thumbnail.png")


def test_a_thumbnail_that_is_there_stays(tmp_path):
    scene = make_scene(tmp_path / "raw")
    scene.item.add_asset("preview", pystac.Asset("https://example.com/p.jpg", roles=["thumbnail"]))
    (item,) = encode(scene.item, small_codec(), tmp_path / "out")
    assert "thumbnail" not in item.assets
    (derived,) = encode(scene.item, small_codec(), tmp_path / "out", mode="derived", asset="d")
    assert "thumbnail" in derived.assets


def test_it_is_renewed_with_the_latent(tmp_path):
    scene = make_scene(tmp_path / "raw")
    (first,) = encode(scene.item, small_codec(), tmp_path / "out")
    before = picture_of(first)[1]
    other = make_scene(tmp_path / "raw", scene_field(seed=5)[:, ::-1])
    (second,) = encode(other.item, small_codec(), tmp_path / "out", overwrite=True)
    assert picture_of(second)[1] != before
    assert len(list((tmp_path / "out").rglob("*.png"))) == 1


@pytest.mark.parametrize("how", ["off", "embedding", "encrypted", "complex"])
def test_where_there_is_none(tmp_path, how):
    field = scene_field().astype("complex64") if how == "complex" else None
    fields = {"data_type": "cfloat32", "raster:scale": 1.0} if how == "complex" else {}
    scene = make_scene(tmp_path / "raw", field, fields=fields, nodata=None if how == "complex" else 0)
    codec, options = small_codec(), {}
    if how == "off":
        options["thumbnail"] = False
    elif how == "embedding":
        codec = open_codec("s2-10m-embed")
        scene = make_scene(
            tmp_path / "raw", np.repeat(scene_field(), 2, axis=0), keys=("B02", "B03", "B04", "B08")
        )
    elif how == "encrypted":
        pytest.importorskip("cryptography")
        options["key"] = Key(bytes(range(32)))
    else:
        codec = open_codec("zstd", bands=[Band(k, "complex64") for k in ("red", "nir")])
    (item,) = encode(scene.item, codec, tmp_path / "out", **options)
    assert "thumbnail" not in item.assets
    assert list((tmp_path / "out").rglob("*.png")) == []


def test_what_fails_leaves_no_picture(tmp_path):
    scene = make_scene(tmp_path / "raw")
    with pytest.raises(GuardError, match="psnr"):
        encode(scene.item, small_codec(), tmp_path / "out", checks=["psnr>=400:refuse"])
    assert [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".png", ".part")] == []
