"""Loads beside peers: what is written, what is loaded, what is compared, and what the command prints."""

from __future__ import annotations

import numpy as np
import odc.stac
import pystac
import pytest
from typer.testing import CliRunner

from stac_latent.bench import runs
from stac_latent.bench.byte_budget import load_budget
from stac_latent.bench.data.base import Dataset, Tile
from stac_latent.bench.loads.files import COG, FORMATS, Format, raster_item, scene_box, series
from stac_latent.bench.loads.run import OURS, compared, run_load
from stac_latent.bench.loads.tasks import TASKS, Task, cpu_limit
from stac_latent.bench.plots import plot_load
from stac_latent.cli import app
from stac_latent.errors import CatalogError
from stac_latent.spec import Band
from stac_latent.testing import make_field

BANDS = (
    Band("B02", "uint16", nodata=0, scale=1e-4, common_name="blue"),
    Band("B04", "uint16", nodata=0, scale=1e-4, common_name="red"),
    Band("B08", "uint16", nodata=0, scale=1e-4, common_name="nir"),
)
FIELD = make_field(BANDS, (96, 96), 3)
TILE = Tile("t", "somewhere", (FIELD,))
SET = Dataset("set", "A set", (BANDS,), (TILE,))
SMALL = (
    Task("whole", "whole"),
    Task("series", "two dates", bands=2, window=1, dates=2),
    Task("coarse", "an eighth", bands=1, coarser=8),
)
LERC = next(f for f in FORMATS if f.name == "COG LERC")


@pytest.fixture(scope="module")
def found():
    formats = (COG, LERC, Format("nothing", "NoSuchDriver", {}))
    return run_load(SET, TILE, "lin", formats=formats, tasks=SMALL, isolated=False)


def test_every_task_is_measured_in_every_format_that_can_be_written(found):
    names = {(r["task"], r["format"]) for r in found["rows"]}
    loaded = {(t.name, f) for t in SMALL for f in (OURS, "COG deflate", "COG LERC", "limit")}
    assert names == loaded | {("encode", f) for f in (OURS, "COG deflate", "COG LERC")}
    assert list(found["skipped"]) == ["nothing"]
    assert "NoSuchDriver" in found["skipped"]["nothing"]
    for row in found["rows"]:
        assert 0 < row["cpu_s"] == min(row["runs"])
    whole = [r for r in found["rows"] if r["task"] == "whole" and r["format"] != "limit"]
    assert {r["bytes_given"] for r in whole} == {FIELD.nbytes}


def test_formats_with_loss_are_as_good_as_the_latents(found):
    about = found["formats"]
    assert about[OURS]["psnr"] == pytest.approx(42, abs=1.5)
    assert about["COG LERC"]["psnr"] == pytest.approx(about[OURS]["psnr"], abs=1.5)
    assert about["COG deflate"]["psnr"] == 200
    assert about[OURS]["bytes"] > 0


def test_the_budget_adds_up_to_the_load(found):
    parts = dict(found["budget"])
    assert set(parts) == {"open", "read", "entropy", "rotation", "wavelet", "types", "rest", "load"}
    assert parts.pop("load") == pytest.approx(sum(parts.values()))


def test_a_budget_is_of_lin_alone(tmp_path):
    from stac_latent import encode, open_codec

    raw = raster_item(FIELD, BANDS, tmp_path / "raw", "GTiff", {})
    (item,) = encode(raw, open_codec("dct", bands=list(BANDS), step=50.0), tmp_path / "dct")
    assert load_budget(item.get_self_href()) is None


def test_the_table_takes_the_fastest_peer():
    rows = [
        {"task": "a", "format": f, "cpu_s": s}
        for f, s in ((OURS, 2.0), ("x", 8.0), ("y", 4.0), ("limit", 0.5))
    ]
    (row,) = compared(rows, {"a": "A"})
    assert row == {
        "task": "a", "title": "A", "ours": 2.0, "peer": "y", "best": 4.0, "limit": 0.5, "ratio": 0.5, "limit_ratio": 4.0,
    }  # fmt: skip
    (alone,) = compared(rows[:1], {"a": "A"})
    assert (alone["peer"], alone["ratio"], alone["limit_ratio"]) == (None, None, None)


def test_tasks_choose_bands_and_places():
    assert Task("n", "", bands=2).names(BANDS) == ["B04", "B08"]
    assert Task("n", "").names(BANDS[:1]) == ["B02"]
    box = Task("w", "", window=512).box((12, 1830, 1830))
    assert box.shape == (512, 512)
    corner = scene_box((1830, 1830)).overlap_roi(box)
    assert all(s.start % 256 for s in corner)
    assert Task("w", "", window=512).box((1, 100, 90)).shape == (90, 90)
    assert TASKS[4].box((12, 1830, 1830)).resolution.x == 80


def test_a_series_is_the_scene_under_other_names(tmp_path):
    item = raster_item(FIELD, BANDS, tmp_path / "raw", COG.driver, COG.options)
    paths = series(item, tmp_path / "series", 3)
    dates = [pystac.Item.from_file(str(p)) for p in paths]
    assert len({i.id for i in dates}) == len({i.assets["B02"].href for i in dates}) == 3
    cube = odc.stac.load(dates, ["B02"], geobox=scene_box(FIELD.shape))
    np.testing.assert_array_equal(cube["B02"].values, np.stack([FIELD[0]] * 3))


def test_the_limit_is_less_than_any_load(found, tmp_path):
    rows = {(r["task"], r["format"]): r["cpu_s"] for r in found["rows"]}
    assert all(rows[t.name, "limit"] < rows[t.name, f] for t in SMALL for f in (OURS, "COG deflate"))
    item = raster_item(FIELD, BANDS, tmp_path / "raw", COG.driver, COG.options)
    from stac_latent.bench.loads.tasks import Stored

    stored = Stored("x", ours=False, items=(tmp_path / "raw" / "item.json",), shape=FIELD.shape, bands=BANDS)
    assert item.assets
    assert cpu_limit(stored, SMALL[0], 10**6, None)["cpu_s"] > 0


def test_bands_of_several_grids_are_refused():
    with pytest.raises(
        CatalogError, match="'bench load' takes data sets of one grid; the bands of 'set' have 2"
    ):
        run_load(Dataset("set", "A set", (BANDS, BANDS), ()), TILE, "lin")


def test_the_codec_is_the_shipped_one_of_the_bands():
    assert runs.shipped_for(["B02", "B03", "B04", "B08"]) == "s2-10m-4b"
    assert runs.shipped_for(["something"]) == "lin"


def test_the_command_prints_ours_the_best_peer_and_the_limit(found, tmp_path, monkeypatch):
    asked = {}

    def run(given, **options):
        asked.update(options, peers=given.only_peers, codecs=given.codecs)
        return found | {"files": ["x.json"], "peers": []}

    monkeypatch.setattr(runs, "load", run)
    done = CliRunner().invoke(
        app, ["bench", "load", "--data", str(tmp_path), "--peer", "COG", "--codec", "lin"]
    )
    assert done.exit_code == 0, done.output
    assert asked == {"size": 1830, "psnr": 42.0, "peers": ["COG"], "codecs": ["lin"]}
    assert "ours / peer" in done.output
    assert "COG LERC" in done.output
    assert "skipped nothing" in done.output
    done = CliRunner().invoke(app, ["bench", "load", "--data", str(tmp_path / "none"), "--size", "12"])
    assert done.exit_code == 2
    plot_load(found, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_no_tile_and_no_peer_are_said(tmp_path):
    with pytest.raises(CatalogError, match="is no folder"):
        runs.load(runs.Run(tmp_path / "none"))
    raster_item(FIELD, BANDS, tmp_path, "GTiff", {})
    with pytest.raises(CatalogError, match="no peer is named like x; there are COG deflate, COG zstd"):
        runs.load(runs.Run(tmp_path, only_peers=["x"]))


def test_tiles_whose_repeated_pixels_are_coded_once_have_a_budget_too(tmp_path):
    from stac_latent import encode, open_codec

    coarse = FIELD[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    coarse[:1] = FIELD[:1]
    raw = raster_item(coarse, BANDS, tmp_path / "raw", "GTiff", {})
    (item,) = encode(raw, open_codec("lin", bands=list(BANDS)), tmp_path / "lin", psnr=45)
    found = load_budget(item.get_self_href())
    assert found["repeats"] > 0
    assert "wavelet" not in found
