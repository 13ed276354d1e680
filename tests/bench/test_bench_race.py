"""The race itself: rows, comparison, splits by place, crashes, and the commands from end to end."""

from __future__ import annotations

import json
import os
from functools import partial

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from typer.testing import CliRunner

from stac_latent.bench.coder import Entrant, Framed, UnavailableError
from stac_latent.bench.data.base import Dataset, Tile, split, thinned
from stac_latent.bench.data.open import dataset_names, open_dataset
from stac_latent.bench.isolation import apart
from stac_latent.bench.own_codecs import chains
from stac_latent.bench.peers import peers
from stac_latent.bench.race import ANCHOR, compare, run_rd
from stac_latent.bench.runs import Run, chosen
from stac_latent.bench.runs import rd as run_command
from stac_latent.bench.scene import assemble
from stac_latent.cli import app
from stac_latent.errors import CatalogError
from stac_latent.spec import Band

BANDS = tuple(Band(n, "uint16", nodata=0, scale=1e-4) for n in ("B02", "B03", "B04", "B08"))
KLT = next(p for p in peers() if p.name == ANCHOR)
SHARED = next(p for p in peers() if p.name == "JPEG 2000, rate shared among bands")


def tile(name, place, seed, size=64):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    base = np.sin(x / (5 + seed)) + np.cos(y / 7) + 0.2 * rng.standard_normal((size, size))
    field = np.stack(
        [4000 + 600 * base * (1 + 0.2 * i) + 60 * rng.standard_normal((size, size)) for i in range(4)]
    )
    return Tile(name, place, (np.clip(field, 1, 10000).astype(np.uint16),))


TILES = (tile("a1", "alpha", 1), tile("a2", "alpha", 2), tile("b1", "beta", 3), tile("c1", "gamma", 4))
SET = Dataset("made", "Made tiles", (BANDS,), TILES, ("gamma",))


class Noise(Framed):
    """A coder whose PSNR and rate are known: adds what its knob says, and pads to so many bytes."""

    name = "noise"
    knobs = tuple(float(p) for p in range(30, 56, 2))

    def __init__(self, context, factor=1.0):
        super().__init__(context)
        self.factor = factor

    def encode(self, field, knob):
        self.kept = (field, knob)
        return bytes(round(self.factor * 1000 * 2 ** ((knob - 30) / 6)))

    def decode(self, _):
        field, knob = self.kept
        sign = np.where(np.indices(field.shape).sum(axis=0) % 2, 1, -1)
        return (field + sign * round(10_000 * 10 ** (-knob / 20))).astype(field.dtype)


class Fails(Framed):
    name = "fails"
    knobs = (1.0, 2.0, 3.0)

    def encode_filled(self, *_):
        raise RuntimeError("the library says no")


class Crashes(Framed):
    name = "crashes"
    knobs = (1.0,)

    def encode_filled(self, *_):
        os.abort()


def noise(name, factor):
    return Entrant(name, partial(Noise, factor=factor))


def test_rows_hold_rate_quality_and_speed():
    seen = []
    result = run_rd(SET, [], TILES[:1], [KLT], isolated=False, progress=lambda *a: seen.append(a))
    row = result["rows"][-1]
    assert row["bits_per_pixel"] == pytest.approx(row["bytes"] * 8 / TILES[0].samples)
    assert row["psnr"] > 46
    assert row["sam"] > 0
    assert row["max_error"] > 0
    assert row["encode_mpixel_s"] > 0
    assert seen == [("coders", 1, 1)]
    assert result["summary"][ANCHOR]["bd_rate"] == 0


def test_bd_rate_of_a_coder_that_takes_ten_percent_less():
    result = run_rd(SET, [], TILES[:3], [noise("one", 1.0), noise("other", 0.9)], isolated=False)
    assert result["anchor"] == "one"
    row = result["summary"]["other"]
    assert row["bd_rate"] == pytest.approx(-10, abs=0.2)
    assert row["bd_rate_pooled"] == pytest.approx(-10, abs=0.2)
    assert row["tiles"] == 3
    assert row["worst_tile"] in {"a1", "a2", "b1"}
    rates = [result["summary"][c]["bits_per_pixel_at_psnr"]["40"] for c in ("one", "other")]
    assert rates[1] / rates[0] == pytest.approx(0.9, abs=0.002)


def test_the_worst_tile_is_named():
    rows = [
        {
            "coder": c,
            "tile": t,
            "psnr": p,
            "bits_per_pixel": 2 ** (p / 6) * f,
            "encode_mpixel_s": 1.0,
            "decode_mpixel_s": 1.0,
        }
        for c, factors in ((ANCHOR, {"a": 1, "b": 1}), ("x", {"a": 0.5, "b": 1.4}))
        for t, f in factors.items()
        for p in (34.0, 40.0, 48.0)
    ]
    found = compare(rows, (36, 46))["summary"]["x"]
    assert (found["worst_tile"], round(found["worst_bd_rate"])) == ("b", 40)
    assert found["bd_rate"] == pytest.approx(-5)


def test_sweeps_stop_beyond_the_interval():
    knobs = [
        r["psnr"]
        for r in run_rd(SET, [], TILES[:1], [noise("n", 1)], interval=(40, 44), isolated=False)["rows"]
    ]
    assert 35.5 < min(knobs) < 38
    assert 46 < max(knobs) < 48.5


def test_lossless_coders_have_a_table_of_their_own():
    cog = next(p for p in peers() if p.name == "COG deflate")
    result = run_rd(SET, [], TILES[:2], [cog, KLT], isolated=False)
    assert set(result["lossless"]) == {"COG deflate"}
    assert result["lossless"]["COG deflate"]["bits_per_pixel"] > 5
    assert set(result["summary"]) == {ANCHOR}


def test_failing_settings_are_kept_and_do_not_stop_the_race():
    result = run_rd(SET, [], TILES[:1], [Entrant("fails", Fails), KLT], isolated=False)
    assert result["failed"] == 3
    assert [r["knob"] for r in result["rows"][:3]] == [1, 2, 3]
    assert {r["error"] for r in result["rows"] if "error" in r} == {"RuntimeError: the library says no"}
    assert set(result["summary"]) == {ANCHOR}


@pytest.mark.parametrize("isolated", [True, False])
def test_coders_that_cannot_run_are_skipped_with_the_reason(isolated):
    static = next(p for p in peers() if p.name == "KLT of other places + JPEG 2000")
    result = run_rd(SET, [], TILES[:1], [static], isolated=isolated)
    assert "needs fitting places" in result["skipped"][static.name]
    assert result["summary"] == {}
    assert result["anchor"] is None


def test_a_crash_of_one_library_leaves_the_others_alone():
    result = run_rd(SET, [], TILES[:1], [Entrant("crashes", Crashes), SHARED], jobs=2)
    assert "its process died" in result["skipped"]["crashes"]
    assert set(result["summary"]) == {SHARED.name}


def test_a_process_apart_keeps_its_errors_and_its_threads():
    assert apart(os.getenv, "OMP_NUM_THREADS", threads=1) == "1"
    with pytest.raises(ValueError, match="invalid literal"):
        apart(int, "x")
    with pytest.raises(UnavailableError, match="its process died"):
        apart(os.abort)
    if hasattr(os, "sched_getaffinity"):
        assert len(apart(os.sched_getaffinity, 0, threads=1)) == 1


def test_splits_are_by_place():
    fit, race = split(SET, ["Some set, site BETA, 4 seasons"])
    assert {t.place for t in fit} == {"beta", "gamma"}
    assert [t.name for t in race] == ["a1", "a2"]
    assert [t.name for t in split(SET, [], per_place=1)[1]] == ["a1", "b1"]
    assert [t.name for t in thinned(TILES, 2)] == ["a1", "b1"]
    assert thinned(TILES, None) == list(TILES)


def test_groups_of_bands_are_coded_on_their_own_grids():
    coarse = tuple(Band(n, "uint16", nodata=0, scale=1e-4, gsd=20) for n in ("B05", "B06"))
    tiles = [Tile(t.name, t.place, (t.fields[0], t.fields[0][:2, ::2, ::2].copy())) for t in TILES[:2]]
    result = run_rd(
        Dataset("two", "Two grids", (BANDS, coarse), tuple(tiles)), [], tiles, [SHARED], isolated=False
    )
    row = result["rows"][0]
    assert row["bits_per_pixel"] == pytest.approx(row["bytes"] * 8 / (64 * 64 * 4 + 32 * 32 * 2))


def test_a_codec_may_take_all_grids_as_one():
    fine, coarse = (
        tuple(Band(n, "uint16", nodata=0, scale=1e-4, gsd=g) for n in names)
        for g, names in ((10, "abcd"), (20, "ef"))
    )
    tiles = [Tile(t.name, t.place, (t.fields[0], t.fields[0][:2, ::2, ::2].copy())) for t in TILES[:2]]
    entrants = chains(["lin"], 2)
    result = run_rd(
        Dataset("two", "Two grids", (fine, coarse), tuple(tiles)), [], tiles, entrants, isolated=False
    )
    assert result["failed"] == 0
    assert set(result["summary"]) == {"lin", "lin, grids as one"}
    assert [e.name for e in chains(["lin"])] == ["lin", "lin fitted on other places"]
    assert result["skipped"]["lin fitted on other places"].endswith("has no places to fit on")


def test_lin_is_raced_as_fitted_to_the_other_places():
    fit, tiles = list(TILES[:2]), list(TILES[2:])
    result = run_rd(
        Dataset("s", "Sample", (BANDS,), tuple(TILES)), fit, tiles, chains(["lin"]), isolated=False
    )
    assert result["failed"] == 0
    assert set(result["bd_rate"]) == {"lin", "lin fitted on other places"}
    assert result["summary"]["lin fitted on other places"]["bd_rate"] < -3, "a fit is worth its bytes"


def test_a_scene_is_the_same_every_time_and_made_of_the_tiles():
    one, two = assemble(TILES, 100), assemble(TILES, 100)
    assert one.fields[0].shape == (4, 100, 100)
    assert np.array_equal(one.fields[0], two.fields[0])
    assert set(np.unique(one.fields[0])) <= set(np.unique(np.concatenate([t.fields[0] for t in TILES])))
    with pytest.raises(CatalogError, match="no tile is square"):
        assemble([Tile("t", "p", (np.ones((1, 4, 5), np.uint16),))], 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """GeoTIFFs of four bands with scales, one file for each place, and one that does not fit."""
    out = tmp_path_factory.mktemp("tiffs")
    for t in TILES:
        profile = {
            "driver": "GTiff",
            "count": 4,
            "height": 64,
            "width": 64,
            "dtype": "uint16",
            "nodata": 0,
            "crs": "EPSG:32633",
        }
        with rasterio.open(out / f"{t.name}.tif", "w", transform=from_origin(0, 0, 10, 10), **profile) as dst:
            dst.write(t.fields[0])
            dst.descriptions = tuple(b.name for b in BANDS)
            dst.scales = (1e-4,) * 4
    with rasterio.open(
        out / "other.tif", "w", **{**profile, "count": 1}, transform=from_origin(0, 0, 10, 10)
    ) as dst:
        dst.write(TILES[0].fields[0][:1])
    return out


def test_any_folder_of_geotiffs_is_a_data_set(folder):
    found = open_dataset(folder)
    assert found.name == "tiffs"
    assert [b.name for b in found.groups[0]] == ["B02", "B03", "B04", "B08"]
    assert {b.scale for b in found.groups[0]} == {1e-4}
    assert [t.place for t in found.tiles] == ["a1.tif", "a2.tif", "b1.tif", "c1.tif"]


def test_unknown_data_sets_and_empty_folders_say_what_there_is(tmp_path, folder):
    with pytest.raises(CatalogError, match="no data set 'moon'; known are dem, enmap"):
        open_dataset(folder, "moon")
    with pytest.raises(CatalogError, match="holds no tile of data set 's1'; choose with --dataset"):
        open_dataset(folder, "s1")
    with pytest.raises(CatalogError, match="is no folder"):
        open_dataset(tmp_path / "nowhere")
    for name in dataset_names():
        with pytest.raises(CatalogError, match="holds no tile"):
            open_dataset(tmp_path, name)
    with pytest.raises(CatalogError, match="no peer is named like nobody"):
        chosen(["nobody"])
    assert chosen(["none"]) == []


def test_bench_rd_from_end_to_end(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib (extra bench)")
    options = [
        "--codec",
        "s2-10m-4b",
        "--codec",
        "s2-l2a-12b",
        "--peer",
        "klt of the image",
        "--peer",
        "COG deflate",
    ]
    done = CliRunner().invoke(
        app,
        [
            "bench",
            "rd",
            "--data",
            str(folder),
            *options,
            "--max-tiles",
            "2",
            "--out",
            str(tmp_path),
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["tiles"] == ["a1.tif", "b1.tif"]
    assert set(result["summary"]) == {"s2-10m-4b", ANCHOR}
    assert "s2-l2a-12b codes B01" in result["skipped"]["s2-l2a-12b"]
    assert set(result["lossless"]) == {"COG deflate"}
    assert (tmp_path / "rd-tiffs.png").stat().st_size > 10_000
    stored = json.loads((tmp_path / "rd-tiffs.json").read_text())
    assert stored["summary"].keys() == result["summary"].keys()
    assert len(stored["rows"]) == len(result["rows"])


def test_bench_rd_prints_a_table(folder, tmp_path):
    done = CliRunner().invoke(
        app,
        ["bench", "rd", "--data", str(folder), "--codec", "dct", "--peer", "klt of the image", "--max-tiles", "1", "--out", str(tmp_path)],
        env={"COLUMNS": "200"},
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "BD-rate" in done.output
    assert "a1.tif" in done.output
    assert ANCHOR in done.output


def test_bench_speed_from_end_to_end(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib (extra bench)")
    options = [
        "--codec",
        "s2-10m-4b",
        "--peer",
        "rate shared",
        "--size",
        "192",
        "--threads",
        "1",
        "--out",
        str(tmp_path),
    ]
    done = CliRunner().invoke(app, ["bench", "speed", "--data", str(folder), *options, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    ours, peer = result["rows"]
    assert (ours["coder"], peer["coder"]) == ("s2-10m-4b", SHARED.name)
    assert abs(peer["psnr"] - 42) < 1.5
    assert ours["windows"]["opened"]["median_ms"] > 0
    assert ours["windows"]["warm"]["median_ms"] <= ours["windows"]["cold"]["max_ms"]
    assert (tmp_path / "speed-tiffs.png").exists()


def test_wrong_options_are_refused(folder):
    run = partial(CliRunner().invoke, app)
    assert run(["bench", "speed", "--data", str(folder), "--threads", "1.5"]).exit_code == 2
    assert run(["bench", "rd", "--data", str(folder), "--interval", "36"]).exit_code == 2


def test_nothing_left_to_race_on(folder, monkeypatch):
    monkeypatch.setattr("stac_latent.bench.runs.fitted_on", lambda _: ["a1.tif, a2.tif, b1.tif and c1.tif"])
    with pytest.raises(
        CatalogError, match=r"every tile of 'tiffs' .* is of a place that a codec was fitted on"
    ):
        run_command(Run(folder))
