"""Catalogues whose pixels keep an error bound: any chain, windows, key frames, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pystac
import pytest
import zarr
from core_support import BANDS, check, make_scene, nothing_catalogued, scene_field, small_codec
from test_native_catalog import chain, decoded, error_of, sentinel

import stac_latent
from stac_latent import encode, load, open_codec
from stac_latent.catalog.verify import verify
from stac_latent.cube.read import reader as decode
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, CorruptDataError, FieldError, SourceWarning, VerificationError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.spec import Band
from stac_latent.stages.residual.payload import decode_residual, encode_residual
from stac_latent.store.zarr.group import StoreLayout
from stac_latent.store.zarr.residual import read_residual

FLOATS = (Band("red", "float32", nodata=math.nan), Band("nir", "float32", nodata=math.nan))


def kept(item, scene, bound, bands=BANDS):
    field = LatentReader.open(item).read_field()
    assert ErrorBound.of(bound, bands).broken(scene.field, field, scene.valid, bands) is None
    assert (field[~scene.valid] == 0).all()
    return field


@pytest.mark.parametrize("name", ["dct", "wavelet", "fitted", "jpeg2000", "zstd", "lin"])
def test_any_chain_keeps_it_and_a_window_equals_the_whole(tmp_path, utm_scene, name):
    """Several chunks, an origin off the lattice, nodata, a chain with a halo."""
    codec = open_codec("lin", bands=list(BANDS)) if name == "lin" else small_codec(name)
    unit = 96 // codec.stride[0]
    layout = None if name == "lin" else StoreLayout(unit, 2 * unit)
    bound = {"red": 3, "nir": "1%"}
    (item,) = encode(utm_scene.item, codec, tmp_path, error_bound=bound, layout=layout)
    check(item)
    field = kept(item, utm_scene, bound)
    for (y0, y1), (x0, x1) in (((0, 1), (0, 1)), ((29, 101), (61, 67)), ((180, 187), (200, 213))):
        window = LatentReader.open(item).read_field(((y0, y1), (x0, x1)))
        np.testing.assert_array_equal(window, field[:, y0:y1, x0:x1])
    fields = item.assets["latent"].extra_fields
    assert fields["latent:space"] == codec.space
    assert fields["latent:residual"] == "stac-latent-residual-1"
    assert fields["latent:error_bounds"] == [3.0, 0.01]
    assert fields["latent:error_bound_kinds"] == ["absolute", "relative"]
    largest = max(3.0, 0.01 * utm_scene.field[1].max())
    assert fields["latent:error_bound"] == item.properties["latent:error_bound"] == pytest.approx(largest)
    assert fields["latent:max_error"] <= fields["latent:error_bound"]


def test_load_decodes_it_lazily_and_latents_stay_comparable(tmp_path, utm_scene):
    codec = open_codec("lin", bands=list(BANDS))
    (plain,) = encode(utm_scene.item, codec, tmp_path / "plain", step=64)
    (item,) = encode(utm_scene.item, codec, tmp_path / "bounded", step=64, error_bound=0)
    cube = load([item], chunks={"x": 64, "y": 64})
    assert cube.red.chunks is not None
    pixels = np.stack([cube[b].isel(time=0).values for b in ("red", "nir")])
    np.testing.assert_array_equal(pixels, utm_scene.field)
    a, b = (load([i], upto="latent")["latent"].values for i in (plain, item))
    np.testing.assert_array_equal(a, b)


def test_a_window_reads_the_residuals_of_its_chunks_alone(tmp_path, utm_scene, monkeypatch):
    (item,) = encode(utm_scene.item, small_codec("dct"), tmp_path, error_bound=1, layout=StoreLayout(8, 16))
    asked = []

    def counted(array, y, x, **options):
        asked.append((y, x))
        return residual_of(array, y, x, **options)

    residual_of = decode.read_residual
    monkeypatch.setattr(decode, "read_residual", counted)
    reader = LatentReader.open(item)
    reader.read_field(((40, 50), (100, 101)))
    top, _, left, _ = reader.grid.padding
    assert sorted(set(asked)) == [
        (y, (100 + left) // 64) for y in range((40 + top) // 64, (49 + top) // 64 + 1)
    ]


def test_infinite_values_and_nan_of_floats_come_back(tmp_path):
    rng = np.random.default_rng(0)
    field = np.cumsum(rng.normal(0, 1, (2, 90, 101)), axis=2).astype(np.float32)
    field[0, 3, 4], field[1, 60, 7] = np.inf, -np.inf
    field[:, 20:30, 20:40] = np.nan
    scene = make_scene(tmp_path / "raw", field, nodata=None, fields={"raster:scale": 1.0})
    (item,) = encode(scene.item, open_codec("lin", bands=list(FLOATS)), tmp_path / "out", error_bound=0)
    assert LatentReader.open(item).read_field().tobytes() == field.tobytes()
    assert item.properties["latent:max_error"] == item.properties["latent:error_bound"] == 0
    json.dumps(item.to_dict(), allow_nan=False)


@pytest.mark.filterwarnings("ignore:item 'scene'. band 'nir':stac_latent.errors.SourceWarning")
@pytest.mark.parametrize(
    ("chain", "dtype", "bound"),
    [
        ("lin", "float32", 0),
        ("lin", "float64", "1%"),
        ("dct", "float32", 0.01),
        ("dct", "float64", 0),
        ("fitted", "float32", "1%"),
    ],
)
def test_floats_without_a_scale_are_kept_in_a_codec_of_integers(tmp_path, chain, dtype, bound):
    """Reflectances from 0 to 1, below 0, far away, infinite and missing: as the file has them."""
    field = (scene_field((90, 101)) / 10000).astype(dtype)
    field[0, 3, 4], field[1, 60, 7], field[0, 5, 5], field[1, 8, 9] = np.inf, -np.inf, -0.25, -1e30
    field[:, 20:30, 20:40] = np.nan
    scene = unscaled(make_scene(tmp_path / "raw", field, nodata=None))
    codec = open_codec("lin", bands=list(BANDS)) if chain == "lin" else small_codec(chain)
    with pytest.warns(
        SourceWarning,
        match=f"'red' is {dtype}, and codec .* takes uint16: the residual keeps its values as they are",
    ):
        (item,) = encode(scene.item, codec, tmp_path / "out", error_bound=bound)
    check(item)
    cube = load([item])
    got = np.stack([cube[b].isel(time=0).values for b in ("red", "nir")])
    assert got.dtype == dtype
    np.testing.assert_array_equal(np.isnan(got), np.isnan(field))
    limit = ErrorBound.of(bound, BANDS)
    assert limit.broken(field, got, ~np.isnan(field), BANDS) is None
    if bound == 0:
        assert got.tobytes() == field.tobytes()
    physical = load([item], physical=True)
    np.testing.assert_array_equal(physical.nir.isel(time=0).values, got[1].astype(np.float32))
    for band in item.assets["latent"].extra_fields["bands"]:
        assert band["data_type"] == dtype
        assert "raster:scale" not in band
    assert item.properties["latent:spaces"] == [codec.space]
    (checked,) = verify(tmp_path / "out", full=True)
    assert checked.compared
    assert checked.problems == []


@pytest.mark.filterwarnings("ignore:item 'scene'. band 'red':stac_latent.errors.SourceWarning")
def test_a_band_of_floats_beside_one_of_integers_keeps_each_its_own(tmp_path):
    whole = scene_field((64, 70))
    scene = unscaled(make_scene(tmp_path / "raw", whole, nodata=None))
    part = np.linspace(-1, 1, 64 * 70, dtype=np.float32).reshape(1, 64, 70)
    other = unscaled(make_scene(tmp_path / "other", part, nodata=None, keys=("red",)))
    scene.item.assets["red"] = other.item.assets["red"]
    (item,) = encode(scene.item, small_codec("dct"), tmp_path / "out", error_bound=0)
    cube = load([item]).isel(time=0)
    assert (cube.red.dtype, cube.nir.dtype) == (np.float32, np.uint16)
    np.testing.assert_array_equal(cube.red.values, part[0])
    np.testing.assert_array_equal(cube.nir.values, whole[1])
    bands = item.assets["latent"].extra_fields["bands"]
    assert [b.get("raster:scale") for b in bands] == [None, BANDS[1].scale]


@pytest.mark.parametrize(
    ("chain", "bound", "way"),
    [
        (
            "dct",
            None,
            r"leads to the codec's unit, keep them as they are with error_bound= \(--error-bound\)",
        ),
        ("zstd", 0, "leads to the codec's unit, or choose a codec"),
    ],
)
def test_floats_that_nothing_keeps_are_refused(tmp_path, chain, bound, way):
    """Without a bound, or where pixels are stored as they are, which an integer type cannot."""
    field = scene_field((40, 48)).astype(np.float32) / 10000
    scene = unscaled(make_scene(tmp_path / "raw", field, nodata=None))
    with pytest.raises(FieldError, match=f"'red' of item 'scene' is float32; codec .* takes uint16.*{way}"):
        encode(scene.item, small_codec(chain), tmp_path / "out", error_bound=bound)
    assert nothing_catalogued(tmp_path / "out")


def unscaled(scene):
    for asset in scene.item.assets.values():
        del asset.extra_fields["raster:scale"], asset.extra_fields["raster:offset"]
    return scene


def test_key_frames_and_bounds_go_together(tmp_path):
    rng = np.random.default_rng(0)
    ground = 3000 + rng.normal(0, 300, (2, 128, 128))
    dates = [np.rint(ground * (1 + 0.01 * i)).astype(np.uint16) for i in range(3)]
    scenes = [make_scene(tmp_path / f"d{i}", x, name=f"d{i}") for i, x in enumerate(dates)]
    items = encode(
        [s.item for s in scenes], open_codec("lin", bands=list(BANDS)), tmp_path / "out", references=3, step=24,
        error_bound=2,
    )  # fmt: skip
    assert any("latent:reference_item" in item.assets["latent"].extra_fields for item in items)
    for item, scene in zip(items, scenes, strict=True):
        kept(item, scene, 2)


def test_key_frames_of_dates_of_other_types_and_infinite_values(tmp_path):
    """A date of floats against one of integers, both as their files have them."""
    rng = np.random.default_rng(0)
    ground = np.rint(3000 + rng.normal(0, 300, (2, 128, 128)))
    floats = (ground + 0.25).astype(np.float32)
    floats[0, 60, 60] = np.inf
    dates = [ground.astype(np.uint16), floats, (ground + 2).astype(np.uint16)]
    scenes = [
        unscaled(make_scene(tmp_path / f"d{i}", x, name=f"d{i}", nodata=None)) for i, x in enumerate(dates)
    ]
    with pytest.warns(SourceWarning, match="float32"):
        items = encode(
            [s.item for s in scenes], open_codec("lin", bands=list(BANDS)), tmp_path / "out", references=3, step=24,
            error_bound=0,
        )  # fmt: skip
    assert sum("latent:reference_item" in item.assets["latent"].extra_fields for item in items) == 2
    for item, date in zip(items, dates, strict=True):
        got = LatentReader.open(item).read_field()
        assert got.dtype == date.dtype
        np.testing.assert_array_equal(got, date)


@pytest.mark.parametrize("payload", ["coded", "plain"])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 0), ("float32", -9999.0)])
def test_bands_of_several_native_grids_have_bounds_of_their_own(tmp_path, dtype, nodata, payload):
    """Bands of 10 and 20 m share an array, those of 60 m have a group; the codec's order of bands is another than the asset's."""
    item, fields = sentinel(tmp_path / "raw", (91, 77), dtype=dtype, nodata=nodata)
    bound = {"B01": 0, "B02": 4, "B05": "1%", "*": 9}
    out = encode(
        item, chain(dtype=dtype, nodata=nodata), tmp_path / "out", payload=payload, error_bound=bound
    )[0]
    check(out)
    for name, truth in fields.items():
        band = [Band(name, dtype, nodata=nodata)]
        goal = ErrorBound.of(bound.get(name, bound["*"]), band)
        got = decoded(out, name)[0]
        assert goal.broken(truth[None], got[None], (truth != nodata)[None], band) is None
    assert error_of(out, fields, nodata) == out.properties["latent:max_error"]
    asset = out.assets["latent"].extra_fields
    assert [b["name"] for b in asset["bands"]] == ["B02", "B03", "B05", "B06", "B01"]
    assert asset["latent:error_bounds"] == [4, 9, 0.01, 9, 0]
    assert asset["latent:error_bound_kinds"] == ["absolute", "absolute", "relative", "absolute", "absolute"]
    assert asset["latent:error_bound"] == pytest.approx(max(9, 0.01 * float(fields["B05"].max())))
    for group in ("", "/g60"):
        assert "residual" in zarr.open_group(asset_href(out) + group, mode="r")
    cube = load([out], bands=["B01"], resolution=60).B01.isel(time=0).values
    empty = np.nan if dtype == "float32" else nodata
    np.testing.assert_array_equal(cube, np.where(fields["B01"] == nodata, empty, fields["B01"]))


def test_pixels_that_are_repeated_for_the_finest_grid_cost_little(tmp_path):
    """A band of 20 m beside one of 10 m is coded on pixels of 10 m."""
    sizes = {}
    for names in (("B02",), ("B02", "B05")):
        item, _ = sentinel(tmp_path / f"raw{len(names)}", (256, 256))
        out = encode(item, chain(names), tmp_path / f"out{len(names)}", error_bound=0, step=4096)[0]
        group = zarr.open_group(asset_href(out), mode="r")
        sizes[names] = sum(
            int.from_bytes(bytes(p[:4]), "little")
            for p in group["residual"][:].reshape(-1, group["residual"].shape[-1])
        )
    assert sizes["B02", "B05"] < 1.5 * sizes["B02",]


def asset_href(item):
    return item.assets["latent"].get_absolute_href()


def test_a_store_that_breaks_its_bound_is_not_catalogued(tmp_path, utm_scene, monkeypatch):
    def wrong(data, base, valid, bands):
        field = decode_residual(data, base, valid, bands)
        field[1, 140, 50] += 6
        return field

    monkeypatch.setattr(decode, "decode_residual", wrong)
    with pytest.raises(
        VerificationError, match=r"do not keep the error bound: 1 pixels of band 'nir'.*pixel \(140, 50\)"
    ):
        encode(utm_scene.item, small_codec("dct"), tmp_path / "out", error_bound=2)
    assert nothing_catalogued(tmp_path / "out")


@pytest.mark.filterwarnings("ignore:item 'scene'. band 'nir':stac_latent.errors.SourceWarning")
def test_values_that_the_type_cannot_hold_are_kept_in_one_that_can(tmp_path):
    field = np.full((2, 40, 40), 500, np.uint16)
    scene = make_scene(tmp_path / "raw", field, fields={"raster:offset": -0.1})
    with pytest.warns(SourceWarning, match="'red' holds values from -500 to -500, which uint16 cannot hold"):
        (item,) = encode(scene.item, small_codec("dct"), tmp_path / "out", error_bound=2)
    decoded = LatentReader.open(item).read_field()
    assert decoded.dtype == np.int16
    assert np.abs(decoded + 500).max() <= 2
    assert item.properties["latent:spaces"] == [small_codec("dct").space]


def test_an_embedder_has_no_error_to_bound(tmp_path, utm_scene):
    with pytest.raises(CatalogError, match="is an embedder: what it writes cannot be decoded"):
        encode(utm_scene.item, "s2-10m-embed", tmp_path, error_bound=2)


def test_item_and_store_have_to_agree(tmp_path, utm_scene):
    (item,) = encode(utm_scene.item, small_codec("dct"), tmp_path, error_bound=2)
    ref = LatentRef.from_item(item)
    without = dataclasses.replace(ref, spec=dataclasses.replace(ref.spec, residual=None))
    newer = dataclasses.replace(ref, spec=dataclasses.replace(ref.spec, residual="stac-latent-residual-9"))
    with pytest.raises(
        CorruptDataError, match="the store has residuals that keep an error bound, the item has none"
    ):
        LatentReader(without).read_field()
    with pytest.raises(
        CorruptDataError, match="residuals of the form 'stac-latent-residual-9'; this version reads"
    ):
        LatentReader(newer).read_field()


def test_lost_residuals_are_noticed(tmp_path, utm_scene):
    (item,) = encode(utm_scene.item, small_codec("dct"), tmp_path, error_bound=2)
    store = item.assets["latent"].get_absolute_href()
    group = zarr.open_group(store, mode="r+")
    group["residual"][0, 0] = 0
    with pytest.raises(CorruptDataError, match=r"chunk \(0, 0\) is missing or cut short"):
        LatentReader.open(item).read_field()


def test_writing_anew_without_a_bound_takes_it_off_the_item(tmp_path, utm_scene):
    encode(utm_scene.item, small_codec("dct"), tmp_path, error_bound=2)
    (item,) = encode(utm_scene.item, small_codec("dct"), tmp_path, overwrite=True)
    assert "latent:error_bound" not in item.properties
    assert "latent:residual" not in item.assets["latent"].extra_fields


def test_plain_latents_may_be_bounded_too(tmp_path, utm_scene):
    (item,) = encode(utm_scene.item, small_codec("dct"), tmp_path, payload="plain", error_bound=5)
    kept(item, utm_scene, 5)


def test_many_threads_write_each_chunk_in_its_place(tmp_path):
    """More than eight chunks in a row, hence two shards, each filled by several threads: payloads are those of chunk after chunk."""
    scene = make_scene(tmp_path / "raw", scene_field((40, 150)))
    codec, layout = small_codec("dct"), StoreLayout(2, 4)
    (item,) = encode(scene.item, codec, tmp_path / "out", error_bound=2, layout=layout)
    kept(item, scene, 2)
    reader = LatentReader.open(item)
    stored = reader.arrays.residual
    assert stored.shape[1] > stored.shards[1]
    bound = ErrorBound.of(2, BANDS)
    chunks = dict(reader.chunk_windows())
    assert len(chunks) == math.prod(stored.shape[:2])
    for (y, x), window in chunks.items():
        truth, valid = (a[(..., *window.slices)] for a in (scene.field, scene.valid))
        payload = encode_residual(truth, reader.decode_base(window), valid, bound, codec.bands)
        assert read_residual(stored, y, x) == payload, (y, x)


def test_from_the_command_line(run, tmp_path):
    scene = make_scene(tmp_path / "raw", scene_field())
    scene.item.save_object(include_self_link=True)
    path = scene.item.get_self_href()
    args = ("encode", path, tmp_path / "out", "--codec", "lin", "--bands", "red,nir", "--json")
    code, out, err = run(*args, "--error-bound", "red=1", "--error-bound", "1%")
    assert code == 0, err
    item = pystac.Item.from_file(json.loads(out)["items"][0]["href"])
    assert item.assets["latent"].extra_fields["latent:error_bounds"] == [1.0, 0.01]
    pixels = stac_latent.load([item], bands=["red"]).red.isel(time=0).values
    assert np.abs(pixels.astype(int) - scene.field[0]).max() <= 1
    code, _, err = run(*args, "--overwrite", "--error-bound", "red=1")
    assert code != 0
    assert "error_bound has nothing for nir; name them, or give '*' for all others" in " ".join(err.split())
