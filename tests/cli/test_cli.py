"""The command line, as a user has it: output on stdout, messages on stderr, exit codes."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from PIL import Image

from stac_latent import __version__
from stac_latent.cli import app
from stac_latent.validation import validate

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "catalogs" / "sample"
CATALOG = str(SAMPLE / "catalog.json")
ITEM = str(SAMPLE / "s2-sample" / "spyndex-s2-sample" / "spyndex-s2-sample.json")
SCHEMAS = ROOT.parent / "shared" / "schemas"


def one_line(text):
    """A message as one line: rich wraps usage errors into a box."""
    return " ".join(text.replace("│", " ").split())


# -- the program ---------------------------------------------------------------------------------------------


def test_python_m_and_console_script_are_one_program():
    for command in (
        [sys.executable, "-m", "stac_latent"],
        [str(Path(sys.executable).with_name("stac-latent"))],
    ):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"stac-latent {__version__}\n"
        assert done.stderr == ""


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in ("demo", "encode", "search", "load", "publish", "codecs", "info", "validate"):
        assert f" {name} " in out
        code, text, _ = run(name, "--help")
        assert code == 0
        assert "Usage:" in text


def commands(group=app, words=()):
    """Words that call each command, and its function."""
    for info in group.registered_commands:
        yield (*words, info.name or info.callback.__name__), info.callback
    for info in group.registered_groups:
        yield from commands(info.typer_instance, (*words, info.name))


def described(function):
    """Options and arguments of a command."""
    hints = typing.get_type_hints(function, include_extras=True).values()
    return [m for hint in hints for m in getattr(hint, "__metadata__", ())]


@pytest.mark.parametrize(
    ("words", "function"), list(commands()), ids=lambda v: " ".join(v) if type(v) is tuple else ""
)
def test_help_says_what_the_source_says(run, monkeypatch, words, function):
    monkeypatch.setenv("COLUMNS", "1000")
    code, text, _ = run(*words, "--help")
    assert code == 0
    assert inspect.getdoc(function).partition("\n")[0] in text
    for what in described(function):
        assert what.help in text
        assert "default:" not in what.help.lower()  # Typer prints it
        if isinstance(what.show_default, str):
            assert f"{what.help} [default: ({what.show_default})]" in text


def test_brackets_in_help_are_text(run, monkeypatch):
    assert len([m for _, function in commands() for m in described(function)]) > 150
    monkeypatch.setenv("COLUMNS", "200")
    assert "At least this PSNR [dB] in each tile." in run("encode", "--help")[1]
    assert "PSNR [dB] to compare rates over. [default: 36,46]" in run("bench", "rd", "--help")[1]


def test_commands_come_in_groups(run):
    _, text, _ = run("--help")
    panels = re.findall(r"─ (\w+) ─.*?\n(.*?)╰", text, re.DOTALL)
    assert [name for name, _ in panels] == ["Options", "Make", "Find", "Read", "Share", "Trust"]
    listed = [re.findall(r"^│ (\w+) ", rows, re.MULTILINE) for _, rows in panels[1:]]
    assert listed[0] == ["items", "encode", "embedder", "fit", "train", "adopt"]
    assert listed[2] == ["load", "cube", "points", "info", "map"]
    assert {name for names in listed for name in names} == {words[0] for words, _ in commands()}


@pytest.mark.parametrize(
    ("typed", "shown"), [("ver", "verify"), ("encode --ps", "--psnr"), ("bench sp", "speed")]
)
def test_shells_complete_commands_and_options(monkeypatch, typed, shown):
    monkeypatch.setenv("_STAC_LATENT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"stac-latent {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    program = Path(sys.executable).with_name("stac-latent")
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (shown, "")


def test_no_command_is_wrong_usage(run):
    code, out, err = run()
    assert code == 2
    assert "Usage:" in out + err


def test_interrupt_has_its_exit_code(run, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("stac_latent.codec.registry.codec_names", stop)
    code, out, err = run("codecs")
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_errors_are_one_line_on_stderr_in_a_real_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "stac_latent", "search", "nowhere/catalog.json", "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error SearchError: no such file: nowhere/catalog.json; expected ")
    assert done.stderr.count("\n") == 1


def test_runs_without_torch(tmp_path):
    """Neither is torch imported, nor is it missed where it cannot be."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.argv = ['stac-latent', 'load', {ITEM!r}, '--asset', 'latent', '--json']\n"
        "from stac_latent.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout)["sizes"] == {"y": 300, "x": 300, "time": 1}


# -- demo ----------------------------------------------------------------------------------------------------


def test_demo_prints_one_object_and_what_it_names_is_there(run, tmp_path):
    code, out, err = run("demo", "here", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    wanted = {"catalog", "item", "geoparquet", "preview", "psnr", "bits_per_pixel", "ratio", "seconds"}
    assert wanted <= set(result)
    assert result["psnr"] > 45
    assert 0.5 < result["bits_per_pixel"] < 1.5
    assert result["ratio"] == pytest.approx(16 / result["bits_per_pixel"])
    assert 0 < result["seconds"] < 60
    for key in ("catalog", "item", "geoparquet", "preview"):
        assert Path(result[key]).is_absolute()
        assert Path(result[key]).is_relative_to(tmp_path / "here")
    assert pystac.read_file(result["item"]).properties["latent:psnr"] == result["psnr"]
    with Image.open(result["preview"]) as picture:
        assert picture.width > 3 * 300
        assert len(picture.getcolors(1 << 24)) > 1000
    assert run("validate", "here")[0] == 0
    code, out, _ = run("demo", "here")
    assert code == 0, "a second run replaces the first"
    assert "bits per pixel and band" in out


# -- encode --------------------------------------------------------------------------------------------------


def test_encode_writes_a_catalogue(run, tmp_path):
    code, out, err = run(
        "encode", ITEM, "out", "--codec", "s2-10m-4b", "--asset", "again", "--step", 320, "--json"
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["catalog"] == str(tmp_path / "out" / "catalog.json")
    (row,) = result["items"]
    assert row["id"] == "spyndex-s2-sample"
    assert 42 < row["psnr"] < 48
    item = pystac.read_file(row["href"])
    assert item.assets["again"].extra_fields["latent:psnr"] == row["psnr"]
    code, out, _ = run("encode", ITEM, "out", "--asset", "again")
    assert code == 1
    code, out, err = run("encode", ITEM, "out", "--asset", "again", "--overwrite")
    assert (code, err) == (0, "")
    assert "spyndex-s2-sample" in out
    assert "catalogue: out/catalog.json" in out
    assert pystac.read_file(row["href"]).assets["again"].extra_fields["latent:psnr"] > row["psnr"]


def test_encode_resumes(run):
    query = ("--ids", "spyndex-s2-sample,synthetic-later", "--asset", "two", "--json")
    assert run("encode", CATALOG, "out", *query, "--max-items", 1)[0] == 0
    assert run("encode", CATALOG, "out", *query, "--quality", 70, "--stop-at-error")[0] == 1
    code, out, err = run("encode", CATALOG, "out", *query, "--resume")
    assert code == 0
    assert "1 of 2 items have the asset 'two' already" in err
    assert len(json.loads(out)["items"]) == 1
    assert len(json.loads(run("search", "out/catalog.json", "--json")[1])["items"]) == 2


def test_encode_any_bands_derived_and_plain(run):
    code, out, _ = run(
        "encode", ITEM, "out", "--codec", "dct", "--bands", "B04,B08", "--mode", "derived", "--payload", "plain", "--json"
    )  # fmt: skip
    assert code == 0
    (row,) = json.loads(out)["items"]
    item = pystac.read_file(row["href"])
    assert item.id == "spyndex-s2-sample-latent"
    assert [b["name"] for b in item.assets["latent"].extra_fields["bands"]] == ["B04", "B08"]
    store = xr.open_zarr(item.assets["latent"].get_absolute_href(), consolidated=False)
    assert dict(store["latent"].sizes) == {"channel": 128, "y": 39, "x": 38}


def test_encode_matches_bands_by_pairs(run):
    code, out, _ = run("encode", ITEM, "out", "--bands", "B02=B03,B03=B02", "--asset", "swapped", "--json")
    assert code == 0
    (row,) = json.loads(out)["items"]
    swapped, straight = (
        run("load", source, f"{asset}.tif", "--asset", asset)
        for source, asset in ((row["href"], "swapped"), (ITEM, "latent"))
    )
    assert swapped[0] == straight[0] == 0
    with rasterio.open("swapped.tif") as a, rasterio.open("latent.tif") as b:
        gap = np.abs(a.read(1).astype("int32") - b.read(2))
    assert np.median(gap) < 60, "the first band holds what was green"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--codec", "nope"], 1, "error CodecError: no codec 'nope': it is neither installed (dct, "),
        (["--codec", "dct"], 1, "needs to be told which: bands="),
        (["--mode", "inside"], 2, "--mode is beside or derived; got 'inside'"),
        (["--payload", "zip"], 2, "--payload is coded or plain; got 'zip'"),
        (["--bbox", "1,2,3"], 2, "--bbox is 4 numbers with commas between; got 3"),
        (["--bbox", "a,b,c,d"], 2, "--bbox is 4 numbers with commas between; got 'a,b,c,d'"),
        (["--ids", "other"], 1, "matches (ids=['other']); loosen the search"),
        (["--bands", "B02=B99"], 1, "lacks band(s) B99"),
        (["--codec", "s2-l2a-12b"], 1, "lacks band(s) B01, B05"),
    ],
)
def test_encode_refuses(run, args, code, message):
    got, out, err = run("encode", ITEM, "out", "--asset", "x", *args)
    assert (got, out) == (code, "")
    assert message in one_line(err)
    assert code == 2 or err.count("\n") == 1
    assert not Path("out").exists() or not list(Path("out").rglob("*.zarr"))


# -- search --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        ([], {"spyndex-s2-sample", "synthetic-later", "spyndex-s2-sample-coarse"}),
        (["--min-psnr", 45], {"spyndex-s2-sample", "synthetic-later"}),
        (["--max-bits-per-pixel", 0.9], {"spyndex-s2-sample", "spyndex-s2-sample-coarse"}),
        (["--max-error", 400, "--datetime", "2020-06-01/.."], {"synthetic-later"}),
        (["--kind", "embedding", "--datetime", "../2020-03-01"], {"spyndex-s2-sample"}),
        (["--filter", '"latent:psnr" < 45'], {"spyndex-s2-sample-coarse"}),
        (["--collections", "other"], set()),
        (["--bbox", "0,0,1,1"], set()),
    ],
)  # fmt: skip
def test_search(run, args, ids):
    code, out, err = run("search", CATALOG, *args, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["matched"] == len(ids)
    assert {row["id"] for row in result["items"]} == ids


def test_search_sorts_and_prints(run):
    code, out, _ = run("search", CATALOG, "--sortby", "-latent:psnr", "--max-items", 2)
    assert code == 0
    assert out.index("spyndex-s2-sample (plain)") < out.index(
        "synthetic-later"
    )  # the best of its latents counts
    assert "spyndex-s2-sample-coarse" not in out
    assert "2 item(s)" in out


@pytest.mark.parametrize("name", ["items.json", "items.parquet"])
def test_search_writes_what_can_be_searched_and_loaded(run, name):
    code, out, _ = run("search", CATALOG, CATALOG, "--min-psnr", 45, "--out", name)
    assert code == 0
    assert f"-> {name}" in out
    code, out, _ = run("search", name, "--datetime", "2020-07-01", "--json")
    assert [row["id"] for row in json.loads(out)["items"]] == ["synthetic-later"]
    code, out, _ = run("load", name, "--ids", "synthetic-later", "--asset", "latent", "--json")
    assert json.loads(out)["sizes"] == {"y": 160, "x": 160, "time": 1}


def test_search_refuses(run):
    code, _, err = run("search", CATALOG, "--out", "items.csv")
    assert code == 2
    assert "--out ends with .json or .parquet; got 'items.csv'" in one_line(err)
    code, _, err = run("search", CATALOG, "--filter", "psnr >")
    assert code == 1
    assert err.startswith("error SearchError: ")


# -- load ----------------------------------------------------------------------------------------------------


def test_load_describes_without_writing(run, tmp_path):
    code, out, _ = run("load", ITEM, "--asset", "latent", "--bands", "red,B08")
    assert code == 0
    assert "<xarray.Dataset>" in out
    assert " red " in out
    assert "B02" not in out
    assert list(tmp_path.iterdir()) == []


def test_load_writes_zarr_and_geotiff(run):
    grid = ("--crs", "EPSG:32618", "--resolution", 20, "--resampling", "average")
    for out in ("cube.zarr", "cube.tif"):
        assert run("load", ITEM, out, "--asset", "latent", *grid)[0] == 0
    cube = xr.open_zarr("cube.zarr", mask_and_scale=False)
    with rasterio.open("cube.tif") as src:
        assert src.scales == (1e-4,) * 4
        assert src.crs.to_epsg() == 32618
        assert (src.res, src.nodata, src.count) == ((20, 20), 0, 4)
        assert src.descriptions == ("B02", "B03", "B04", "B08")
        for i, name in enumerate(src.descriptions, start=1):
            np.testing.assert_array_equal(src.read(i), cube[name].values[0])


def test_load_writes_a_geotiff_for_each_date(run):
    words = (
        "--asset",
        "latent",
        "--ids",
        "spyndex-s2-sample,synthetic-later",
        "--physical",
        "--bands",
        "red",
    )
    code, out, _ = run("load", CATALOG, "r.tif", *words, "--json")
    assert (code, json.loads(out)["out"]) == (0, ["r_2020-01-01.tif", "r_2020-07-01.tif"])
    assert sorted(p.name for p in Path().iterdir()) == ["r_2020-01-01.tif", "r_2020-07-01.tif"]
    with rasterio.open("r_2020-07-01.tif") as src:
        assert (src.dtypes, src.scales, src.descriptions) == (("float32",), (1.0,), ("red",))
        assert 0 < np.nanmean(src.read(1)) < 1
    code, _, err = run("load", CATALOG, "r.tif", *words)
    assert (code, "r_2020-01-01.tif exists; pass overwrite=True (--overwrite)" in one_line(err)) == (1, True)


def test_load_takes_places_names_and_properties(run):
    place = ("--x", "600000,600500", "--y", "4498000,4498500", "--crs", "EPSG:32618")
    words = (
        "--bands",
        "red,B04.1,latent.B04",
        "--with-properties",
        "latent:psnr,datetime",
        "--groupby",
        "id",
    )
    code, _, err = run(
        "load", CATALOG, "some.zarr", "--asset", "latent", "--on-error", "warn", *place, *words
    )
    assert code == 0
    assert "warning 1 of 2 item(s) cannot be loaded and are left out: 'spyndex-s2-sample-coarse'" in one_line(
        err
    )
    cube = xr.open_zarr("some.zarr", mask_and_scale=False)
    assert {"red", "B04.1", "latent.B04", "latent_psnr", "datetime"} <= set(cube.data_vars)
    assert dict(cube.sizes) == {"time": 1, "y": 50, "x": 50}
    np.testing.assert_array_equal(cube.red.values, cube["latent.B04"].values)
    assert not np.array_equal(cube.red.values, cube["B04.1"].values)
    assert cube.datetime.values.tolist() == ["2020-01-01T00:00:00Z"]
    code, out, _ = run(
        "load",
        ITEM,
        "--asset",
        "latent",
        "--lon",
        "-73.79,-73.80",
        "--lat",
        "40.63,40.64",
        "--mosaic",
        "mean",
        "--json",
    )
    assert (code, json.loads(out)["sizes"]) == (0, {"y": 113, "x": 87, "time": 1})


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--mosaic", "meen"), 2, "--mosaic is one of first, last, min, max, mean, median; got 'meen'"),
        (("--on-error", "skip"), 2, "--on-error is one of raise, warn, ignore; got 'skip'"),
        (("--lon", "1", "--lat", "3,4"), 2, "--lon is 2 numbers with commas between; got 1"),
        (("--lon", "1,2"), 1, "lon= was given alone: lon= and lat= say where to load together"),
        (("--x", "1,2", "--y", "1,2"), 1, "x= and y= are in units of crs=, which was not given"),
        (("--lon", "1,2", "--lat", "3,4"), 1, "items that match but for bbox lie between"),
        (("--bands", "rad,slc"), 1, "no band 'rad' (did you mean 'red'?), 'slc' in asset 'latent'"),
    ],
)
def test_load_refuses_what_it_cannot_do(run, words, code, text):
    got, _, err = run("load", ITEM, "--asset", "latent", *words)
    assert (got, text in one_line(err)) == (code, True)


def test_load_latents(run):
    code, out, _ = run("load", ITEM, "cells.zarr", "--asset", "embedding", "--upto", "latent", "--json")
    assert code == 0
    assert json.loads(out)["sizes"] == {"y": 39, "x": 38, "time": 1, "channel": 32}
    cells = xr.open_zarr("cells.zarr")["latent"]
    assert np.isfinite(cells).all()
    assert cells.attrs["latent:kind"] == "embedding"


def test_load_replaces_only_when_told_to(run):
    assert run("load", ITEM, "cube.zarr", "--asset", "latent")[0] == 0
    marker = Path("cube.zarr/marker")
    marker.write_text("mine")
    code, _, err = run("load", ITEM, "cube.zarr", "--asset", "latent")
    assert code == 1
    assert one_line(err) == (
        "error CatalogError: cube.zarr exists; pass --overwrite to replace it, or choose another name"
    )
    assert marker.exists()
    assert run("load", ITEM, "cube.zarr", "--asset", "latent", "--overwrite")[0] == 0
    assert not marker.exists()
    assert sorted(p.name for p in Path().iterdir()) == ["cube.zarr"]


@pytest.mark.parametrize("name", ["cube.zarr", "cube.tif"])
def test_load_that_is_interrupted(run, tmp_path, monkeypatch, name):
    """Before the cube is in place it says to run the same command again, and the old cube stays; afterwards, that it is whole."""
    import stac_latent.cli.common as module
    from stac_latent.system import files
    from stac_latent.system.files import remove

    def stop(*args):
        os.kill(os.getpid(), signal.SIGTERM)

    words = ("load", ITEM, name, "--asset", "latent", "--bands", "red")
    assert (
        run(*words)[0] == 0
    )  # the codec's probe is on record now: only the cube is put into place from here on
    remove(tmp_path / name)
    with monkeypatch.context() as patch:
        patch.setattr(files, "put", stop)
        code, _, err = run(*words)
    assert (code, list(tmp_path.iterdir())) == (143, [])
    assert "interrupted: nothing half-written is kept; run the same command again" in err
    with monkeypatch.context() as patch:
        patch.setattr(module, "print_lines", stop)
        code, _, err = run(*words)
    assert (code, [p.name for p in tmp_path.iterdir()]) == (143, [name])
    assert f"interrupted: {name} is written and whole; there is nothing to run again" in err
    before = (tmp_path / name).stat()
    with monkeypatch.context() as patch:
        patch.setattr(files, "put", stop)
        code, _, err = run(*words, "--overwrite")
    assert code == 143
    assert "run the same command again" in err
    assert (tmp_path / name).stat() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert run(*words, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([ITEM], 1, "several latent assets"),
        ([ITEM, "--asset", "latent", "--bands", "B99"], 1, "B99"),
        ([ITEM, "--asset", "embedding"], 1, "embedding"),
        ([ITEM, "--upto", "bytes"], 2, "--upto is field or latent; got 'bytes'"),
        (
            [ITEM, "cube.png"],
            1,
            "the output ends with .tif (Cloud-Optimized GeoTIFF), .nc (NetCDF-4) or .zarr; got 'cube.png'",
        ),
        (
            [ITEM, "l.tif", "--asset", "latent", "--upto", "latent", "--physical"],
            1,
            "physical given with upto='latent'",
        ),
    ],
)
def test_load_refuses(run, args, code, message):
    got, out, err = run("load", *args)
    assert (got, out) == (code, "")
    assert message in one_line(err)
    assert list(Path().iterdir()) == []


# -- publish -------------------------------------------------------------------------------------------------


def test_publish(run):
    import geopandas

    code, out, err = run(
        "publish", ITEM, "e.parquet", "--asset", "embedding", "--by", "patch", "--patch", "4,4", "--dtype", "int8", "--json"
    )  # fmt: skip
    assert (code, err) == (0, "")
    result = json.loads(out)
    table = geopandas.read_parquet(result["geoparquet"])
    assert len(table) == result["rows"] > 90
    assert result["bytes"] == Path("e.parquet").stat().st_size
    assert pystac.read_file(result["item"]).properties["table:row_count"] == result["rows"]
    code, out, _ = run("publish", CATALOG, "all.parquet", "--asset", "embedding", "--by", "item",
                       "--ids", "spyndex-s2-sample,synthetic-later", "--standardise", "--channels", 8)  # fmt: skip
    assert code == 0
    assert out.startswith("2 rows, ")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--patch", "8"], 2, "--patch is 2 numbers with commas between; got 1"),
        (["--asset", "nope"], 1, "'nope'"),
        (["--asset", "latent", "--by", "tile"], 1, "'tile'"),
        ([], 1, "several"),
    ],
)
def test_publish_refuses(run, args, code, message):
    got, out, err = run("publish", ITEM, "e.parquet", *args)
    assert (got, out) == (code, "")
    assert message in one_line(err)
    assert list(Path().iterdir()) == []


# -- codecs, info, validate -----------------------------------------------------------------------------------


def test_codecs(run):
    code, out, _ = run("codecs", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert {"s2-10m-4b", "s2-l2a-12b", "s2-10m-embed", "dct", "wavelet", "jpeg2000", "zstd"} <= set(rows)
    assert rows["s2-10m-4b"]["bands"] == ["B02", "B03", "B04", "B08"]
    assert rows["s2-10m-embed"]["kind"] == "embedding"
    assert rows["dct"]["bands"] is None
    text = run("codecs")[1]
    assert rows["s2-l2a-12b"]["space"][7:15] in text
    assert "any (--bands)" in text


def test_info_shows_and_draws(run, tmp_path):
    code, out, _ = run("info", ITEM, "--asset", "latent", "--preview", "look.png", "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert row["chain"] == "normalise > pyramid > lin"
    assert (row["shape"], row["cells"], row["stride"]) == ([300, 300], [39, 38], [8, 8])
    assert row["bytes"] == sum(
        p.stat().st_size
        for p in (SAMPLE / "s2-sample/spyndex-s2-sample/latent.zarr").rglob("*")
        if p.is_file()
    )
    with Image.open("look.png") as picture:
        assert picture.size == (300, 300)
        pixels = np.asarray(picture)
    assert pixels.std(axis=(0, 1)).min() > 20
    code, out, _ = run("info", ITEM)
    assert code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["look.png"], "a picture is written only where it is named"
    assert "spyndex-s2-sample / embedding" in out


def test_info_refuses(run, tmp_path):
    code, _, err = run("info", ITEM, "--preview", "one.png")
    assert code == 2
    assert "choose with --asset" in one_line(err)
    code, _, err = run("info", "absent.json")
    assert code == 1
    assert "absent.json" in err
    (tmp_path / "no.json").write_text("{}")
    code, _, err = run("info", "no.json")
    assert code == 1
    assert "no.json is no STAC Item" in one_line(err)
    assert list(tmp_path.glob("*.png")) == []


def test_info_refuses_a_changed_codec(run, tmp_path, fresh_process):
    shutil.copytree(SAMPLE, tmp_path / "copy")
    (weights,) = tmp_path.glob("copy/codecs/s2-10m-4b-*/codec.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, out, err = run("info", "copy/s2-sample/spyndex-s2-sample-coarse/spyndex-s2-sample-coarse.json")
    assert (code, out) == (1, "")
    assert "checksum" in one_line(err)


def test_validate(run, tmp_path):
    code, out, _ = run("validate", SAMPLE, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["files"], result["problems"]) == (9, {})
    assert any("projection" in uri for uri in result["unchecked"])
    assert run("validate", SAMPLE, "--strict")[0] == 1
    assert "schema not at hand" in run("validate", SAMPLE)[1]
    doc = json.loads(Path(ITEM).read_text())
    doc["assets"]["latent"]["latent:kind"] = "picture"
    (tmp_path / "bad.json").write_text(json.dumps(doc))
    code, out, _ = run("validate", "bad.json")
    assert code == 1
    assert "'picture' is not one of" in one_line(out)
    assert "1 file(s), 1 with problems" in out


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the shared schemas are absent")
def test_validate_with_schemas_is_complete(run):
    examples = ROOT / "extensions/latent/examples"
    code, out, _ = run("validate", SAMPLE, examples, "--schemas", SCHEMAS, "--strict")
    assert code == 0
    assert out.strip() == f"{9 + len(list(examples.glob('*.json')))} file(s), 0 with problems"
    assert validate(ITEM, SCHEMAS) == []


def test_validate_refuses(run):
    code, out, err = run("validate", "absent")
    assert (code, out) == (1, "")
    assert one_line(err) == "error CatalogError: absent does not exist"
    Path("empty").mkdir()
    code, _, err = run("validate", "empty")
    assert code == 1
    assert "no STAC document below empty" in err


@pytest.mark.parametrize(
    "words",
    [
        ("load", ITEM, "there", "--asset", "latent"),
        ("publish", CATALOG, "there"),
        ("map", CATALOG, "there"),
        ("label", "v.parquet", "there", "--examples", "e.geojson"),
        ("search", CATALOG, "--out", "there"),
        ("nearest", "v.parquet", "--point=0,0", "--out", "there"),
        ("coverage", CATALOG, "--map", "there"),
        ("coverage", CATALOG, "--missing", "there"),
        ("info", ITEM, "--asset", "latent", "--preview", "there"),
    ],
    ids=lambda words: " ".join(w for w in words if w[0].isalpha() and "/" not in w),
)
def test_what_is_there_is_replaced_only_if_asked(run, words):
    suffix = {"load": ".tif", "label": ".tif", "search": ".json", "nearest": ".geojson"}.get(words[0], ".any")
    words = tuple(f"there{suffix}" if w == "there" else w for w in words)
    Path(f"there{suffix}").write_text("precious")
    code, out, err = run(*words)
    said = f"error CatalogError: there{suffix} exists; pass --overwrite to replace it, or choose another name"
    assert (code, out, one_line(err)) == (1, "", said)
    assert Path(f"there{suffix}").read_text() == "precious"
    assert "Replace what is there." in run(words[0], "--help")[1]


def test_outputs_are_the_last_argument():
    from stac_latent.cli import app

    made = {
        "encode",
        "fit",
        "adopt",
        "items",
        "load",
        "cube",
        "points",
        "publish",
        "write_map",
        "label",
        "embedder",
        "export",
        "copy",
        "keygen",
        "demo",
    }
    for command in app.registered_commands:
        parameters = inspect.signature(command.callback, eval_str=True).parameters.values()
        marks = [p.annotation.__metadata__[0] for p in parameters if hasattr(p.annotation, "__metadata__")]
        arguments = [m for m in marks if type(m).__name__ == "ArgumentInfo"]
        last = arguments[-1].metavar if arguments else None
        assert (last == "OUT") == (command.callback.__name__ in made), command.callback.__name__


@pytest.mark.parametrize(
    "words", [["--out", "m.html"], ["--out=m.html"], ["--title", "A", "--out", "m.html"]]
)
def test_the_output_may_be_named_by_out(run, words):
    code, _, err = run("map", str(ROOT / "catalogs/sample/catalog.json"), *words)
    assert code == 0, err
    assert Path("m.html").is_file()


def test_the_output_is_named_once(run):
    code, _, err = run("keygen", "a", "--out", "b")
    assert (code, "unexpected extra argument" in err) == (2, True)
    code, _, err = run("keygen", "--out")
    assert (code, "No such option: --out" in err) == (2, True)
    assert not Path("a").exists()
    assert not Path("b").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("load", ITEM, "taken/c.zarr", "--asset", "latent"),
        ("load", ITEM, "taken/c.tif", "--asset", "latent"),
        ("info", ITEM, "--asset", "latent", "--preview", "taken/p.png"),
        ("demo", "taken/demo"),
        ("coverage", CATALOG, "--missing", "taken/m.csv"),
    ],
)
def test_what_cannot_be_written_is_named(run, words):
    Path("taken").write_text("a file where the folder should be")
    code, _, err = run(*words)
    assert code == 1
    place = next(w for w in words if "taken/" in w)
    assert one_line(err).startswith(f"error CatalogError: could not write {place} ([Errno ")
    assert one_line(err).endswith("nothing half-written is kept; free some space, or choose another place")


def test_a_full_disk_ends_the_writing_of_a_cube(run, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    code, _, err = run("load", ITEM, "c.zarr", "--asset", "latent", "--bands", "red")
    assert code == 1
    assert (
        "could not write c.zarr ([Errno 28] No space left on device); nothing half-written is kept"
        in one_line(err)
    )
    assert list(tmp_path.iterdir()) == []
