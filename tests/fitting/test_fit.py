"""The verb ``fit``: what is drawn, how places are split, what is written, and what is refused."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pystac
import pytest
import rasterio.warp
from core_support import BANDS, ORIGIN, check, make_scene
from typer.testing import CliRunner

from stac_latent.catalog.encode.encode import encode
from stac_latent.cli import app
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.raw.source import ItemSource
from stac_latent.errors import CatalogError, GridError
from stac_latent.fitting import items as verb
from stac_latent.fitting.bands import choose_bands, stand_in
from stac_latent.fitting.items import fit
from stac_latent.fitting.sampling import make_plan, round_robin
from stac_latent.fitting.sources import FitSource
from stac_latent.fitting.tile_cache import TileCache
from stac_latent.testing import make_field
from stac_latent.window import Window

SIDE = 96
STEP = 20_000.0
"""Metres between places."""


def scene(folder, place, date=0, *, shape=(SIDE, SIDE), **options):
    """One date of a place."""
    made = make_scene(
        folder, make_field(BANDS, shape, 10 * place + date), name=f"p{place}-d{date}",
        origin=(ORIGIN[0] + STEP * place, ORIGIN[1]), **options,
    )  # fmt: skip
    made.item.datetime = dt.datetime(2024, 6, 1 + date, tzinfo=dt.UTC)
    return made.item


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Six places, two dates; not to be changed."""
    folder = tmp_path_factory.mktemp("scenes")
    return [scene(folder, place, date) for place in range(6) for date in range(2)]


@pytest.fixture(scope="module")
def catalogue(items, tmp_path_factory):
    """The items as a collection of items."""
    path = tmp_path_factory.mktemp("collection") / "items.json"
    doc = pystac.ItemCollection(items, clone_items=True).to_dict(transform_hrefs=False)
    path.write_text(json.dumps(doc))
    return path


@pytest.fixture(scope="module")
def fitted(items, tmp_path_factory):
    """A small fit; not to be changed."""
    return fit(items, tmp_path_factory.mktemp("fitted") / "mine", ["red", "nir"], pixels=40_000)


def sources_of(items, **options):
    bands, usable = choose_bands(items, ["red", "nir"])
    return [FitSource((ItemSource(i, stand_in(bands), **options),)) for i in usable]


# -- what is written ------------------------------------------------------------------------------------------------


def test_the_bundle_opens_and_codes_other_data(fitted):
    codec = open_codec(fitted.path)
    assert codec.space == fitted.codec.space
    assert [(b.name, b.data_type, b.nodata, b.scale) for b in codec.bands] == [
        ("red", "uint16", 0, 1e-4),
        ("nir", "uint16", 0, 1e-4),
    ]
    field = make_field(BANDS, (50, 61), 99)
    decoded = codec.decompress(codec.compress(field, psnr=50))
    error = (decoded.astype(float) - field)[field != 0] / 1e4
    assert -10 * np.log10(np.mean(error**2)) > 50
    assert ((decoded == 0) == (field == 0)).all()


def test_the_card_says_what_was_fitted_on_and_what_was_held_out(fitted, items):
    about = fitted.codec.about
    assert about["sample"]["seed"] == 0
    assert about["sample"]["pixels"] >= 40_000
    held = about["held_out"]
    assert set(about["places"]).isdisjoint(held["places"])
    assert set(about["fitted_on"]).isdisjoint(held["items"])
    assert set(about["fitted_on"]) | set(held["items"]) <= {f"scenes/{i.id}" for i in items}
    assert held["split"].startswith("by place: blocks of 1024 pixels")
    assert about["license"] == "other"
    assert set(about["bands"]["nir"]) == {"mean", "std", "min", "max"}


def test_rate_and_distortion_are_measured_on_real_bytes(fitted, items):
    points = fitted.codec.about["rate_distortion"]
    assert [p["quality"] for p in points] == [30, 40, 50, 60, 70]
    for better, worse in zip(points[1:], points, strict=False):
        assert better["bits_per_pixel"] > worse["bits_per_pixel"]
        assert better["psnr"] > worse["psnr"]
    (identifier, *_) = fitted.codec.about["held_out"]["items"]
    item = next(i for i in items if f"scenes/{i.id}" == identifier)
    (source,) = sources_of([item])
    ((field, _),) = source.read(Window.whole((SIDE, SIDE)))
    data = fitted.codec.compress(field.astype(np.uint16), quality=50)
    assert 8 * len(data) / field.size == pytest.approx(points[2]["bits_per_pixel"], rel=0.3)


def test_the_mlm_item_is_valid_and_covers_the_fitting_items(fitted, items):
    item = pystac.Item.from_file(str(fitted.path / "item.json"))
    check(item)
    used = [i for i in items if f"scenes/{i.id}" in fitted.codec.about["fitted_on"]]
    assert item.bbox[0] == min(i.bbox[0] for i in used)
    assert item.properties["start_datetime"].startswith("2024-06-0")
    assert item.properties["mlm:hyperparameters"]["seed"] == 0
    assert item.properties["rate_distortion"] == fitted.codec.about["rate_distortion"]
    assert sorted(p.name for p in fitted.path.iterdir()) == ["codec.json", "codec.safetensors", "item.json"]
    assert [p.name for p in fitted.path.parent.iterdir()] == ["mine"]


def test_the_same_arguments_give_the_same_bytes(fitted, items, tmp_path):
    again = fit(items[::-1], tmp_path / "mine", ["red", "nir"], pixels=40_000)
    assert again.codec.space == fitted.codec.space
    for name in ("codec.json", "codec.safetensors"):
        ours, theirs = (
            json.loads(p.read_text()) if name.endswith("json") else p.read_bytes()
            for p in (again.path / name, fitted.path / name)
        )
        assert ours == theirs


def test_encode_takes_the_bundle(fitted, items, tmp_path):
    (item,) = encode(items[0], fitted.path, tmp_path)
    assert item.properties["latent:psnr"] > 40
    check(item)


# -- what is drawn --------------------------------------------------------------------------------------------------


def test_dates_of_a_place_stay_on_one_side(items):
    plan = make_plan(sources_of(items), 10**9, 0.34, 0)
    assert len(plan.places) == 6
    assert len(plan.held_out_places) == 2
    assert not {t.place for t in plan.fit} & {t.place for t in plan.held_out}
    assert len(plan.fit) + len(plan.held_out) == len(items)


def test_another_seed_gives_another_split(items):
    sources = sources_of(items)
    splits = {make_plan(sources, 10**9, 0.3, seed).held_out_places for seed in range(6)}
    assert len(splits) > 2


def test_a_place_larger_than_the_share_is_fitted_on(items, tmp_path):
    large = scene(tmp_path, 30, shape=(256, 256))
    sources = sources_of([large, *items])
    for seed in range(6):
        plan = make_plan(sources, 10**9, 0.2, seed)
        assert {sources[t.source].item.id for t in plan.fit} >= {"p30-d0"}
        assert plan.held_out


def test_places_take_turns(items):
    plan = make_plan(sources_of(items), 10**9, 0, 0)
    first = [t.place for t in plan.fit[:6]]
    assert len(set(first)) == 6
    assert round_robin(plan.fit[::-1]) == plan.fit


def test_tiles_are_whole_cells_inside_the_scene(tmp_path):
    source = sources_of([scene(tmp_path, 0, shape=(377, 610))])
    plan = make_plan(source, 10**9, 0, 0)
    assert plan.tile == 256
    for tile in plan.fit:
        (y0, y1), (x0, x1) = tile.window
        assert 0 <= y0 < y1 <= 377
        assert 0 <= x0 < x1 <= 610
        assert (y1 - y0) % 8 == (x1 - x0) % 8 == 0
    assert len(plan.fit) == 4


def test_one_scene_is_cut_into_places(tmp_path):
    plan = make_plan(sources_of([scene(tmp_path, 0, shape=(300, 320))]), 10**9, 0.2, 0)
    assert plan.tile < 256
    assert len(plan.places) >= 2
    assert plan.held_out
    small = make_plan(sources_of([scene(tmp_path, 1, shape=(33, 49))]), 10**9, 0.2, 0)
    assert (small.tile, len(small.places), len(small.fit), len(small.held_out)) == (32, 2, 1, 1)


def test_two_sites_are_not_cut_up(items):
    plan = make_plan(sources_of(items[:4]), 10**9, 0.2, 0)
    assert (plan.tile, len(plan.places), len(plan.held_out_places)) == (256, 2, 1)


def test_held_out_tiles_that_overlap_a_fitting_tile_are_left_out(tmp_path):
    """The same ground in the neighbouring zone is another place by its CRS, and must not be measured on."""
    corner = (780_000.0, 5_000_000.0)
    xs, ys = rasterio.warp.transform("EPSG:32633", "EPSG:32634", [corner[0]], [corner[1]])
    here = make_scene(tmp_path, make_field(BANDS, (256, 256), 1), name="a", origin=corner)
    far = [scene(tmp_path, place, shape=(256, 256)) for place in range(5)]
    there = make_scene(
        tmp_path, make_field(BANDS, (256, 256), 3), name="c", origin=(xs[0], ys[0]), crs="EPSG:32634"
    )
    sources = sources_of([here.item, *far, there.item])
    for seed in range(8):
        plan = make_plan(sources, 10**9, 0.3, seed)
        fitting = {sources[t.source].item.id for t in plan.fit}
        apart = {sources[t.source].item.id for t in plan.held_out}
        assert not ({"a", "c"} & fitting and {"a", "c"} & apart)


def test_tiles_with_little_data_are_passed_over(tmp_path):
    empty = scene(tmp_path, 0, 1)
    field = make_field(BANDS, (SIDE, SIDE), 5)
    field[:, : SIDE * 2 // 3] = 0
    hollow = make_scene(tmp_path, field, name="hollow", origin=ORIGIN).item
    sources = sources_of([hollow, empty])
    plan = make_plan(sources, 10**9, 0, 0)
    spool = TileCache(tmp_path / "spool", "key", sources, sources[0].parts[0].codec.bands)
    taken, passed = spool.draw(plan.fit, 10**9, lambda _: None)
    assert [sources[t.source].item.id for t in taken] == ["p0-d1"]
    assert passed == 1


def test_an_interrupted_fit_goes_on_where_it_was(items, tmp_path, monkeypatch):
    read, count = ItemSource.read, [0]

    def counted(self, window):
        count[0] += 1
        return read(self, window)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ItemSource, "read", counted)
    monkeypatch.setattr(verb, "fit_lin", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(items, tmp_path / "mine", ["red", "nir"], pixels=30_000)
    first = count[0]
    assert first > 3
    assert not (tmp_path / "mine").exists()
    with pytest.raises(KeyboardInterrupt):
        fit(items, tmp_path / "mine", ["red", "nir"], pixels=30_000)
    assert count[0] == first, "tiles were read again"
    with pytest.raises(KeyboardInterrupt):
        fit(items, tmp_path / "mine", ["nir"], pixels=30_000)
    assert count[0] > first, "tiles of other bands were taken"


def test_items_of_another_unit_are_brought_to_the_first(tmp_path):
    fields = {"raster:scale": 1e-4, "raster:offset": -0.1}
    plain, shifted = scene(tmp_path, 0), scene(tmp_path, 1, fields=fields)
    bands, usable = choose_bands([plain, shifted], ["red"])
    assert len(usable) == 2
    source = FitSource((ItemSource(shifted, stand_in(bands)),))
    ((field, valid),) = source.read(Window.whole((8, 8)))
    raw = make_field(BANDS, (SIDE, SIDE), 10)[:1, :8, :8].astype(int)
    np.testing.assert_array_equal(field[valid], raw[valid] - 1000)


def test_bands_are_described_as_the_items_have_them(tmp_path):
    values = make_field(BANDS, (SIDE, SIDE), 3).astype(np.float32) / 7
    item = make_scene(
        tmp_path, values, name="db", nodata=None, fields={"unit": "dB", "raster:scale": 1.0}
    ).item
    for asset in item.assets.values():
        asset.extra_fields["nodata"] = "nan"
    bands, _ = choose_bands([item], None)
    assert [(b.name, b.data_type, b.unit, b.scale) for b in bands] == [
        ("red", "float32", "dB", 1.0),
        ("nir", "float32", "dB", 1.0),
    ]
    assert bands[0].nodata is None  # NaN is without data in any case


# -- what is refused ------------------------------------------------------------------------------------------------


def test_refused_no_items(tmp_path):
    with pytest.raises(CatalogError, match="nothing to fit on: no items were given"):
        fit([], tmp_path / "x-codec")


def test_refused_no_bands_in_common(items, tmp_path):
    with pytest.raises(
        CatalogError,
        match=r"none of 12 item\(s\) has all of the bands red, swir: item 'p0-d0' lacks band\(s\) swir of codec 'fit'; it has nir, red\. .*; in fit the pairs are keys= \(--bands red=key\)",
    ):
        fit(items, tmp_path / "x-codec", ["red", "swir"])
    with pytest.raises(CatalogError, match="a name comes twice; name each band once"):
        fit(items, tmp_path / "x-codec", ["red", "red"])


def test_items_that_lack_a_band_are_passed_over(items, tmp_path, monkeypatch):
    lacking = scene(tmp_path, 9)
    del lacking.assets["nir"]
    _, usable = choose_bands([lacking, *items], ["red", "nir"])
    assert len(usable) == len(items)


def test_refused_all_nodata(tmp_path):
    empty = [make_scene(tmp_path, np.zeros((2, 64, 64), np.uint16), name=f"e{k}", origin=(ORIGIN[0] + STEP * k, ORIGIN[1])).item for k in range(3)]  # fmt: skip
    with pytest.raises(CatalogError, match=r"none of \d tile\(s\) is at least half valid.*--bbox"):
        fit(empty, tmp_path / "out" / "x-codec")
    assert not list((tmp_path / "out").iterdir()), "the folder of tiles was left"


def test_refused_a_band_without_data_and_left_out_where_none_is_named(tmp_path):
    items = []
    for k in range(3):
        field = make_field(BANDS, (SIDE, SIDE), k)
        field[1] = 0
        item = make_scene(tmp_path, np.concatenate([field, field[:1] + 1]), name=f"d{k}", origin=(ORIGIN[0] + STEP * k, ORIGIN[1]), keys=("red", "dead", "nir")).item  # fmt: skip
        items.append(item)
    with pytest.raises(
        CatalogError, match=r"band\(s\) dead hold no data in any of \d tile\(s\); leave them out of bands="
    ):
        fit(items, tmp_path / "x-codec", ["red", "dead", "nir"])
    made = fit(items, tmp_path / "x-codec", holdout=0)
    assert [b.name for b in made.codec.bands] == ["red", "nir"]
    assert "dead" in made.codec.about["limits"]
    assert "rate_distortion" not in made.codec.about


def test_refused_too_few_pixels(tmp_path):
    small = [scene(tmp_path, k, shape=(16, 16)) for k in range(3)]
    with pytest.raises(
        CatalogError, match=r"\d+ pixels are valid in all of the 2 bands; a fit needs 1000 at least"
    ):
        fit(small, tmp_path / "x-codec")
    with pytest.raises(CatalogError, match=r"none of 1 item.* has 8 x 8 pixels"):
        fit(scene(tmp_path, 5, shape=(7, 40)), tmp_path / "x-codec")


def test_refused_one_place(tmp_path):
    with pytest.raises(CatalogError, match=r"all tiles of 1 item\(s\) lie at one place.*--holdout 0"):
        fit(scene(tmp_path, 0, shape=(16, 16)), tmp_path / "x-codec")


def mixed(folder, place=0):
    """An Item with a band of 10 m and one of 20 m."""
    item = scene(folder, place)
    coarse = scene(folder / "coarse", place, shape=(SIDE // 2, SIDE // 2), res=20.0)
    item.assets["nir"] = coarse.assets["nir"]
    item.assets["nir"].extra_fields |= {k: coarse.properties[k] for k in ("proj:shape", "proj:transform")}
    return item


def test_refused_grids_that_differ_from_item_to_item(tmp_path):
    item, plain = mixed(tmp_path), scene(tmp_path, 1)
    way_out = r"Fit to items of one kind, to a group of bands by itself \(--bands\), or state the grid.*--resolution"
    with pytest.raises(GridError, match=rf"resolutions: red 10, nir 20\). {way_out}"):
        fit([plain, item], tmp_path / "x-codec", ["red", "nir"])
    with pytest.raises(
        GridError, match=rf"{plain.id}' lie on other native grids than those of item '{item.id}'. {way_out}"
    ):
        fit([item, plain], tmp_path / "x-codec", ["red", "nir"])
    bands, _ = choose_bands([item], ["red", "nir"])
    assert ItemSource(item, stand_in(bands), resolution=20.0).grid.shape == (SIDE // 2, SIDE // 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": 0}, "pixels=0; a fit needs some"),
        ({"holdout": 1.5}, "holdout=1.5 is no share; expected 0 to 0.9"),
        ({"name": "7"}, "'7' cannot name a codec.*--name"),
        ({"name": "a/b"}, "cannot be a file name"),
    ],
)
def test_refused_arguments(items, tmp_path, options, message):
    with pytest.raises(CatalogError, match=message):
        fit(items, tmp_path / "x-codec", ["red", "nir"], **options)


def test_refused_a_folder_that_is_taken(items, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(CatalogError, match="is there already; pass overwrite=True"):
        fit(items, tmp_path / "mine")
    with pytest.raises(CatalogError, match=r"holds more than a bundle \(diary.txt\)"):
        fit(items, tmp_path / "mine", ["red"], pixels=9000, holdout=0, overwrite=True)
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear"


# -- from a shell ---------------------------------------------------------------------------------------------------


def test_command(catalogue, tmp_path):
    arguments = [
        "fit",
        str(catalogue),
        str(tmp_path / "mine"),
        "--bands",
        "red,infrared=nir",
        "--mpixel",
        "0.03",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["bands"] == ["red", "infrared"]
    assert result["space"] == open_codec(tmp_path / "mine").space
    assert len(result["rate_distortion"]) == 5
    assert result["sample"]["pixels"] >= 30_000
    assert set(result["seconds"]) == {"read", "fit", "measure", "guard"}
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "is there already" in str(again.exception)
    shown = CliRunner().invoke(app, [*arguments, "--overwrite", "--holdout", "0"])
    assert shown.exit_code == 0
    assert "2 bands" in shown.stdout
    assert "PSNR" not in shown.stdout


def test_command_without_items(catalogue, tmp_path):
    done = CliRunner().invoke(app, ["fit", str(catalogue), str(tmp_path / "x"), "--datetime", "1999"])
    assert done.exit_code == 1
    assert "no item of" in str(done.exception)
