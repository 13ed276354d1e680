"""The verb ``encode``: what is written equals the whole scene's encode, is measured, catalogued and linked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
from core_support import ORIGIN, check, make_scene, scene_field, small_codec

from stac_latent import encode, open_codec
from stac_latent.catalog.tree import CatalogTree
from stac_latent.codec.shipped import dct, zstd
from stac_latent.cube.grid.tiling import padded_shape
from stac_latent.cube.raw.source import ItemSource, find_bands
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, FieldError
from stac_latent.extension import SCHEMA_URI, LatentExtension
from stac_latent.spec import Band
from stac_latent.store.zarr.group import StoreLayout
from stac_latent.system.files import clear_killed, temporary, tree_size

CODECS = {"dct": {}, "wavelet": {"levels": 2}, "fitted": {}, "zstd": {}}


def whole_scene(item, codec):
    source = ItemSource(item, codec)
    h, w = padded_shape(source.grid)
    field, valid = source.read(((0, h), (0, w)))
    return codec.encode(field, mask=valid, upto="symbols")


# -- chunk-wise equals whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "payload"), [*((name, "coded") for name in CODECS), ("dct", "plain")])
@pytest.mark.slow
def test_shard_by_shard_equals_the_whole_scene(tmp_path, utm_scene, name, payload):
    """Several shards of several chunks, an origin off the lattice, nodata: no symbol differs, nor any pixel."""
    codec = small_codec(name, **CODECS[name])
    unit = 4 if codec.stride > (1, 1) else 32
    whole = whole_scene(utm_scene.item, codec)
    (item,) = encode(utm_scene.item, codec, tmp_path, payload=payload, layout=StoreLayout(unit, 2 * unit))
    reader = LatentReader.open(item)
    assert reader.arrays.latent.chunks[1:] == (unit, unit)
    assert min(n // s for n, s in zip(whole.shape[1:], reader.arrays.latent.shards[1:], strict=True)) >= 2
    assert int((reader.read_symbols() != whole).sum()) == 0
    decoded = reader.read_field()
    top, _, left, _ = reader.grid.padding
    h, w = reader.grid.shape
    expected = codec.decode(whole)[:, top : top + h, left : left + w]
    np.testing.assert_array_equal(decoded, np.where(utm_scene.valid, expected, 0))
    for at in (((0, 1), (0, 1)), ((h - 1, h), (w - 3, w)), ((29, 101), (61, 67))):
        np.testing.assert_array_equal(
            reader.read_field(at), decoded[:, at[0][0] : at[0][1], at[1][0] : at[1][1]]
        )
    if name == "zstd":
        np.testing.assert_array_equal(decoded, utm_scene.field)


def test_jpeg2000_stores_what_it_is(tmp_path, utm_scene):
    (item,) = encode(utm_scene.item, small_codec("jpeg2000", quality=25.0), tmp_path)
    reader = LatentReader.open(item)
    decoded = reader.read_field()
    np.testing.assert_array_equal(decoded == 0, utm_scene.field == 0)
    error = np.abs(decoded.astype(int) - utm_scene.field)
    assert error.max() == item.properties["latent:max_error"] > 0


def test_overlapping_scenes_have_the_same_cells(tmp_path):
    """Two scenes of one zone, corners anywhere: their cells coincide, and cells that both see whole are equal."""
    field = scene_field((150, 170))
    codec = small_codec("dct")
    first = make_scene(tmp_path / "a", field[:, :120, :130], name="a")
    second = make_scene(
        tmp_path / "b", field[:, 21:, 35:], name="b", origin=(ORIGIN[0] + 350, ORIGIN[1] - 210)
    )
    a, b = (LatentReader.open(i) for i in encode([first.item, second.item], codec, tmp_path / "cat"))
    ta, tb = a.grid.cell_transform, b.grid.cell_transform
    dx, dy = (tb[2] - ta[2]) / 80, (ta[5] - tb[5]) / 80
    assert (dx, dy) == (int(dx), int(dy))
    dx, dy = int(dx), int(dy)
    # inner cells of b, and the same place in a
    in_b = b.read_symbols()[:, 1 : a.grid.cells[0] - dy - 1, 1 : a.grid.cells[1] - dx - 1]
    in_a = a.read_symbols()[:, dy + 1 : a.grid.cells[0] - 1, dx + 1 : a.grid.cells[1] - 1]
    assert in_a.shape[1] > 9
    np.testing.assert_array_equal(in_a, in_b)


def test_masks_of_their_own_from_a_later_shard_on(tmp_path):
    """The first shards have one mask for all bands; then a band misses pixels that another has."""
    field = scene_field()
    field[1, 150:171, 140:190] = 0
    scene = make_scene(tmp_path / "raw", field)
    (item,) = encode(scene.item, small_codec("dct"), tmp_path / "cat", layout=StoreLayout(4, 8))
    reader = LatentReader.open(item)
    assert reader.arrays.mask.shape[0] == 2
    np.testing.assert_array_equal(reader.read_field() == 0, field == 0)
    np.testing.assert_array_equal(reader.read_field(bands=[1])[0] == 0, field[1] == 0)
    share = reader.read_valid_share()
    latent = reader.read_latent()
    np.testing.assert_array_equal(np.isnan(latent).all(axis=0), share == 0)


def test_a_scene_without_nodata_has_no_holes(tmp_path):
    field = scene_field((64, 72), bands=[Band("a"), Band("b")])
    scene = make_scene(tmp_path / "raw", field, nodata=None)
    (item,) = encode(scene.item, zstd([Band("red"), Band("nir")]), tmp_path / "cat")
    np.testing.assert_array_equal(LatentReader.open(item).read_field(), field)


# -- what is measured, and what the catalogue says ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, utm_scene):
    (item,) = encode(utm_scene.item, small_codec("dct"), tmp_path_factory.mktemp("cat"))
    return item


def test_measurements_are_those_of_the_stored_bytes(encoded, utm_scene):
    reader = LatentReader.open(encoded)
    valid = utm_scene.valid
    error = (reader.read_field().astype(float) - utm_scene.field)[valid]
    fields = encoded.assets["latent"].extra_fields
    assert fields["latent:psnr"] == pytest.approx(10 * np.log10(1e8 / np.mean(error**2)))
    assert fields["latent:max_error"] == np.abs(error).max()
    assert 0 < fields["latent:sam"] < 5
    size = tree_size(LatentRef.from_item(encoded).href)
    assert fields["file:size"] == size
    assert fields["latent:bits_per_pixel"] == pytest.approx(size * 8 / utm_scene.field.size)
    for name in ("psnr", "max_error", "sam", "bits_per_pixel"):
        assert encoded.properties[f"latent:{name}"] == fields[f"latent:{name}"]


def test_the_item_is_valid_and_says_what_it_is(encoded, utm_scene):
    check(encoded)
    codec = small_codec("dct")
    assert SCHEMA_URI in encoded.stac_extensions
    assert encoded.properties["latent:spaces"] == [codec.space]
    assert encoded.properties["latent:kinds"] == ["codec"]
    ext = LatentExtension.ext(encoded.assets["latent"])
    assert ext.space == codec.space
    fields = encoded.assets["latent"].extra_fields
    assert fields["latent:shape"] == [128, 24, 27]
    top, bottom, left, right = fields["latent:padding"]
    assert (top + 187 + bottom, left + 213 + right) == (24 * 8, 27 * 8)
    assert (top, left) == (2, 2)
    assert fields["proj:transform"] == utm_scene.item.properties["proj:transform"]
    assert encoded.assets["latent"].roles == ["latent"]
    assert {"red", "nir"} < set(encoded.assets)  # beside the raw ones


def test_hrefs_inside_the_catalogue_are_relative(encoded):
    root = json.loads(Path(encoded.get_self_href()).read_text())
    assert root["assets"]["latent"]["href"] == "./latent.zarr"
    decoder = next(link for link in root["links"] if link["rel"] == "latent:decoder")
    assert decoder["href"].startswith("../../codecs/")
    assert decoder["latent:space"] == small_codec("dct").space
    catalog = pystac.Catalog.from_file(str(CatalogTree(_root(encoded)).path))
    assert [i.id for i in catalog.get_items(recursive=True)] == ["scene"]
    collection = next(iter(catalog.get_children()))
    assert collection.summaries.to_dict()["latent:kinds"] == ["codec"]


def _root(item):
    return Path(item.get_self_href()).parents[2]


def test_a_moved_catalogue_still_reads(encoded, tmp_path, fresh_process):
    moved = tmp_path / "moved"
    shutil.copytree(_root(encoded), moved)
    item = pystac.Item.from_file(str(moved / "scenes" / "scene" / "scene.json"))
    field = LatentReader.open(item).read_field(((20, 90), (40, 80)))
    np.testing.assert_array_equal(field, LatentReader.open(encoded).read_field(((20, 90), (40, 80))))
    assert str(moved) in LatentRef.from_item(item).href


def test_derived_items(tmp_path, utm_scene):
    (item,) = encode(utm_scene.item, small_codec("dct"), tmp_path, mode="derived", asset="lat")
    assert item.id == "scene-lat"
    assert set(item.assets) == {"lat", "thumbnail"}
    link = item.get_single_link("derived_from")
    assert link.href.endswith("scene.json")
    assert LatentReader.open(item).read_field().shape == utm_scene.field.shape
    check(item)


def test_a_second_latent_beside_the_first(tmp_path, sample):
    encode(sample, "s2-10m-4b", tmp_path)
    (item,) = encode(sample, "s2-10m-embed", tmp_path, asset="embedding")
    assert {"latent", "embedding"} < set(item.assets)
    assert item.properties["latent:kinds"] == ["codec", "embedding"]
    assert item.properties["latent:psnr"] > 40
    rels = [link.rel for link in item.links if str(link.rel).startswith("latent:")]
    assert rels == ["latent:decoder", "latent:encoder"]
    embedding = LatentReader.open(item, "embedding")
    latent = embedding.read_latent()
    assert latent.shape == (32, 39, 38)
    with pytest.raises(
        FieldError, match="is an embedding: it cannot be decoded to pixels; load it with upto='latent'"
    ):
        embedding.read_field()
    with pytest.raises(
        CatalogError, match=r"has several latent assets: latent, embedding; choose with asset="
    ):
        LatentReader.open(item)
    check(item)


def test_overwrite(tmp_path, utm_scene):
    encode(utm_scene.item, small_codec("dct"), tmp_path)
    with pytest.raises(
        CatalogError,
        match=r"already has an asset 'latent'; pass overwrite=True to replace it, or another asset=",
    ):
        encode(utm_scene.item, small_codec("zstd"), tmp_path)
    (item,) = encode(utm_scene.item, small_codec("zstd"), tmp_path, overwrite=True)
    np.testing.assert_array_equal(LatentReader.open(item).read_field(), utm_scene.field)
    assert item.properties["latent:psnr"] == item.assets["latent"].extra_fields["latent:psnr"] == 200
    assert item.properties["latent:max_error"] == 0


def test_progress_and_several_items(tmp_path, utm_scene):
    other = make_scene(tmp_path / "raw", scene_field((40, 50), 7), name="other")
    seen = []
    items = encode(
        [utm_scene.item, other.item],
        small_codec("dct"),
        tmp_path / "cat",
        progress=lambda *step: seen.append(step),
    )
    assert [i.id for i in items] == ["scene", "other"]
    assert {label for label, _, _ in seen} == {"encode", "verify", "items"}
    assert all(1 <= done <= total for _, done, total in seen)
    again = pystac.Catalog.from_file(str(tmp_path / "cat" / "catalog.json"))
    assert sorted(i.id for i in again.get_items(recursive=True)) == ["other", "scene"]


def test_floats_with_nan(tmp_path):
    field = np.random.default_rng(0).normal(280, 5, (1, 70, 90)).astype(np.float32)
    field[:, 10:30, 5:9] = np.nan
    scene = make_scene(
        tmp_path / "raw", field, nodata=float("nan"), keys=("t2m",), fields={"raster:scale": 1.0}
    )
    codec = open_codec(
        "wavelet", bands=[Band("t2m", "float32", nodata=float("nan"))], step=8.0, mean=280.0, unit=0.01
    )
    (item,) = encode(scene.item, codec, tmp_path / "cat")
    decoded = LatentReader.open(item).read_field()
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(field))
    assert np.nanmax(np.abs(decoded - field)) < 0.4
    check(item)


# -- scales and offsets ------------------------------------------------------------------------------------------------

S2 = {"s2:processing_baseline": "04.00"}


@pytest.mark.parametrize(
    ("properties", "fields", "expected"),
    [
        ({}, {"raster:scale": 1e-4, "raster:offset": 0.0}, (1.0, 0.0)),
        ({}, {"raster:scale": 1e-4, "raster:offset": -0.1}, (1.0, -1000.0)),
        ({}, {"raster:scale": None, "raster:offset": None}, (1.0, 0.0)),
        (S2, {"raster:scale": None, "raster:offset": None}, (1.0, -1000.0)),
        ({"s2:processing_baseline": "05.09"}, {"raster:scale": 1e-4, "raster:offset": None}, (1.0, -1000.0)),
        ({"s2:processing_baseline": "02.14"}, {"raster:scale": 1e-4, "raster:offset": None}, (1.0, 0.0)),
        (
            S2 | {"earthsearch:boa_offset_applied": True},
            {"raster:scale": 1e-4, "raster:offset": -0.1},
            (1.0, 0.0),
        ),
        (
            S2 | {"earthsearch:boa_offset_applied": False},
            {"raster:scale": 1e-4, "raster:offset": -0.1},
            (1.0, -1000.0),
        ),
        (
            {},
            {"raster:scale": None, "raster:offset": None, "raster:bands": [{"scale": 2e-4, "offset": 0.01}]},
            (2.0, 100.0),
        ),
        ({}, {"raster:scale": 2.75e-05, "raster:offset": -0.2}, (0.275, -2000.0)),
    ],
)
def test_scale_and_offset_lead_to_the_codecs_unit(tmp_path, properties, fields, expected):
    fields = {"raster:scale": None, "raster:offset": None, **fields}
    scene = make_scene(tmp_path, properties=properties, fields=fields)
    for asset in scene.item.assets.values():
        asset.extra_fields = {k: v for k, v in asset.extra_fields.items() if v is not None}
    bands = find_bands(scene.item, small_codec("dct"))
    assert [(b.gain, b.shift) for b in bands] == [pytest.approx(expected)] * 2


def test_the_offset_is_in_the_decoded_pixels(tmp_path):
    field = scene_field((48, 56))
    field[field > 0] += 1000
    scene = make_scene(tmp_path / "raw", field, properties=S2, fields={"raster:offset": -0.1})
    (item,) = encode(scene.item, small_codec("zstd"), tmp_path / "cat")
    decoded = LatentReader.open(item).read_field()
    expected = np.where(field > 0, field.astype(int) - 1000, 0)
    np.testing.assert_array_equal(decoded, expected)
    band = item.assets["latent"].extra_fields["bands"][0]
    assert (band["raster:scale"], band.get("raster:offset", 0)) == (1e-4, 0)


def test_a_codec_without_a_scale_keeps_what_is_stored(tmp_path):
    """Classes and counts are coded as they are, and the asset carries the Item's scale for its reader."""
    scene = make_scene(tmp_path / "raw", properties=S2, fields={"raster:offset": -0.1})
    (item,) = encode(scene.item, zstd(["red", "nir"]), tmp_path / "cat")
    np.testing.assert_array_equal(LatentReader.open(item).read_field(), scene.field)
    band = item.assets["latent"].extra_fields["bands"][0]
    assert (band["raster:scale"], band["raster:offset"]) == (1e-4, -0.1)
    spec = LatentRef.from_item(item).spec
    assert spec.bands[0].scale == 1e-4
    check(item)


def test_bands_by_name_common_name_and_mapping(tmp_path):
    scene = make_scene(tmp_path, keys=("one", "two"), fields={"eo:common_name": "x"})
    scene.item.assets["one"].extra_fields["bands"] = [{"name": "B04", "eo:common_name": "red"}]
    scene.item.assets["two"].extra_fields["bands"] = [{"name": "B08", "eo:common_name": "nir"}]

    def assets(*bands, **names):
        return [b.asset for b in find_bands(scene.item, dct(list(bands)), names or None)]

    assert assets(Band("B08"), Band("B04")) == ["two", "one"]
    assert assets(Band("x", common_name="nir"), Band("one")) == ["two", "one"]
    assert assets(Band("a"), Band("b"), a="two", b="one") == ["two", "one"]


def test_resampling_to_one_grid(tmp_path):
    fine = make_scene(tmp_path, scene_field((96, 104)), name="fine")
    coarse = make_scene(tmp_path, scene_field((48, 52), 3)[1:], name="coarse", res=20.0, keys=("nir",))
    item = fine.item
    item.assets["nir"] = coarse.item.assets["nir"]
    item.assets["nir"].extra_fields |= {
        k: v for k, v in coarse.item.properties.items() if k.startswith("proj:")
    }
    (out,) = encode(item, small_codec("zstd"), tmp_path / "cat", resolution=10.0)
    decoded = LatentReader.open(out).read_field()
    np.testing.assert_array_equal(decoded[0], fine.field[0])
    np.testing.assert_array_equal(decoded[1], np.kron(coarse.field[0], np.ones((2, 2), np.uint16)))
    (half,) = encode(item, small_codec("zstd"), tmp_path / "cat", resolution=20.0, asset="half")
    np.testing.assert_array_equal(LatentReader.open(half, "half").read_field()[1], coarse.field[0])


def test_the_real_sample(tmp_path, sample):
    (item,) = encode(sample, "s2-10m-4b", tmp_path)
    assert item.properties["latent:psnr"] > 40
    assert item.properties["latent:bits_per_pixel"] < 4
    truth = ItemSource(sample, open_codec("s2-10m-4b"))
    h, w = truth.grid.shape
    top, _, left, _ = truth.grid.padding
    field, _ = truth.read(((top, top + h), (left, left + w)))
    error = np.abs(LatentReader.open(item).read_field().astype(int) - field)
    assert error.max() == item.properties["latent:max_error"]
    check(item)


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    """Half-written stores go, the one that was being replaced comes back; those of running processes stay."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "latent.zarr"
    mine = temporary(path, "part")
    dead, replaced = (mine.with_name(mine.name.replace(str(os.getpid()), str(gone.pid))) for _ in "ab")
    replaced = replaced.with_suffix(".old")
    foreign = tmp_path / f".latent.zarr.elsewhere.{gone.pid}.part"
    for folder in (mine, dead, replaced, foreign):
        folder.mkdir()
    (replaced / "zarr.json").write_text("{}")
    clear_killed(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([mine.name, foreign.name, path.name])
    assert (path / "zarr.json").exists()


@pytest.mark.parametrize(
    ("codec", "layout", "text"),
    [
        ("dct", StoreLayout(4, 6), r"layout must have shards of whole chunks; got StoreLayout\(inner=4, shard=6, sharded=True\)"),
        ("dct", StoreLayout(0, 0), r"shards of whole chunks; got"),
        ("dct", StoreLayout(shard=64), r"shards of whole chunks; got"),
        ("lin", StoreLayout(8, 16), r"chunks of codec 'lin' are its tiles, which follow the size of the scene: leave inner and shard out of"),
    ],
)  # fmt: skip
def test_layouts_that_cannot_be_read_are_refused(tmp_path, utm_scene, codec, layout, text):
    chain = open_codec("lin", bands=["red", "nir"]) if codec == "lin" else small_codec(codec)
    with pytest.raises(CatalogError, match=text):
        encode(utm_scene.item, chain, tmp_path / "cat", layout=layout)
    assert not (tmp_path / "cat").exists()
