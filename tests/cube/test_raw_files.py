"""The truth of a verification: raw files by plain rasterio, apart from what ``encode`` reads through."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from core_support import make_scene, nothing_catalogued, scene_field, small_codec
from typer.testing import CliRunner

from stac_latent import encode, load
from stac_latent.catalog.verify import verify
from stac_latent.cli import app
from stac_latent.codec.shipped import embed_patch
from stac_latent.cube.raw.files import RawFiles
from stac_latent.cube.raw.source import ItemSource
from stac_latent.errors import CatalogError, GridError, SourceWarning, VerificationError
from stac_latent.store.zarr.group import StoreLayout


def truth_of(scene, **options):
    source = ItemSource(scene.item, small_codec("dct"))
    return RawFiles(scene.item, ("red", "nir"), source.decoded, source.grid, **options)


def padded(scene, grid):
    top, bottom, left, right = grid.padding
    return np.pad(scene.field, ((0, 0), (top, bottom), (left, right)))


@contextmanager
def served(folder):
    """Address of a folder on a server in a process of its own: GDAL opens files under Python's lock."""
    code = "import sys, time; from servers.files import FileServer\nwith FileServer(sys.argv[1]) as s: print(s.url, flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process.stdout.readline().strip()
        process.terminate()


def test_pixels_of_the_files_on_the_padded_grid(tmp_path):
    scene = make_scene(tmp_path)
    truth = truth_of(scene)
    want = padded(scene, truth.grid)
    for window in (((0, 64), (0, 80)), ((64, 128), (72, 216)), ((184, want.shape[1]), (208, want.shape[2]))):
        field, valid = truth.read(window)
        part = want[:, slice(*window[0]), slice(*window[1])]
        assert field.dtype == np.uint16
        assert (field == part).all()
        assert (np.broadcast_to(valid, part.shape) == (part != 0)).all()
    assert truth.samples == scene.field.size
    assert not truth.assembled


@pytest.mark.parametrize("fault", ["zeros", "shift", "mask"])
def test_a_fault_in_reading_is_an_error_and_not_a_perfect_figure(tmp_path, monkeypatch, fault):
    scene = make_scene(tmp_path / "raw")
    read = ItemSource.read

    def broken(self, window):
        field, valid = read(self, window)
        if fault == "zeros":
            return np.zeros_like(field), valid
        if fault == "shift":
            return np.roll(field, 1, axis=2), np.roll(valid, 1, axis=2)
        return field, valid & (np.arange(field.shape[2]) != 100)

    monkeypatch.setattr(ItemSource, "read", broken)
    with pytest.raises(
        VerificationError, match=r"were not read as the raw files have them: band 'red' holds .* was encoded"
    ):
        encode(scene.item, small_codec("zstd"), tmp_path / "cat")
    assert nothing_catalogued(tmp_path / "cat")


def test_the_type_is_the_files_and_both_say_what_is_missing(tmp_path):
    scene = make_scene(tmp_path, nodata=None)
    inside = np.s_[:, 2 : 2 + 187, 2 : 2 + 213]
    whole = ((0, 192), (0, 216))
    assert truth_of(scene).read(whole)[1][inside].all()  # nobody says that 0 is no value
    for key in ("red", "nir"):
        asset = scene.item.assets[key]
        asset.extra_fields |= {"data_type": "int16", "nodata": 1234}
        with rasterio.open(asset.href, "r+") as dst:
            dst.nodata = 0
    field, valid = truth_of(scene).read(whole)
    assert field.dtype == np.uint16
    assert (np.broadcast_to(valid, field.shape)[inside] == (scene.field != 0) & (scene.field != 1234)).all()


def test_another_crs_and_missing_bands(tmp_path):
    scene = make_scene(tmp_path)
    source = ItemSource(scene.item, small_codec("dct"))
    with pytest.raises(CatalogError, match=r"item 'scene' has no raw band 'blue'; it has red, nir"):
        RawFiles(scene.item, ("red", "blue"), source.decoded, source.grid)
    with pytest.raises(CatalogError, match=r"has 1 band\(s\); item 'scene' names band 4"):
        RawFiles(scene.item, ("red", "nir.4"), source.decoded, source.grid)
    with rasterio.open(scene.item.assets["nir"].href, "r+") as dst:
        dst.crs = "EPSG:32632"
    with pytest.raises(GridError, match="lies in EPSG:32632, its latent in EPSG:32633"):
        RawFiles(scene.item, ("red", "nir"), source.decoded, source.grid)


def test_a_resampled_grid_is_assembled_by_odc_stac(tmp_path):
    scene = make_scene(tmp_path / "raw")
    (item,) = encode(scene.item, small_codec("dct"), tmp_path / "cat", resolution=20, resampling="average")
    fields = item.assets["latent"].extra_fields
    assert fields["latent:source_bands"] == ["red", "nir"]
    assert fields["latent:source_resampling"] == "average"
    (row,) = verify(item)
    assert (row.problems, row.compared, row.read_by, row.share) == ([], True, "odc-stac", 1.0)
    del fields["latent:source_resampling"]
    (row,) = verify(item)
    assert not row.compared
    assert "lie on other pixels than the latent, which does not say how they were resampled" in row.reason


def test_the_item_says_what_it_was_made_from(tmp_path):
    scene = make_scene(tmp_path / "raw")
    (item,) = encode(scene.item, small_codec("dct"), tmp_path / "cat", bands={"red": "nir", "nir": "red"})
    fields = item.assets["latent"].extra_fields
    assert fields["latent:source_bands"] == ["nir", "red"]
    assert "latent:source_resampling" not in fields
    (row,) = verify(item)
    assert (row.problems, row.compared, row.read_by) == ([], True, "rasterio")
    assert row.samples == int(scene.valid.sum())


def test_a_sample_of_the_chunks_or_all_of_them(tmp_path):
    scene = make_scene(tmp_path / "raw")
    (item,) = encode(scene.item, small_codec("dct"), tmp_path / "cat", layout=StoreLayout(4, 8))
    (some,), (every,) = verify(item), verify(item, full=True)
    assert some.problems == every.problems == []
    assert (every.share, every.samples) == (1.0, int(scene.valid.sum()))
    assert 0 < some.samples < every.samples
    assert some.share == 16 / 42
    item.assets["latent"].extra_fields["latent:psnr"] += 1
    assert verify(item)[0].problems == []  # a sample cannot tell
    assert "latent:psnr is" in verify(item, full=True)[0].problems[0]
    item.assets["latent"].extra_fields["latent:max_error"] = 0.5
    assert "latent:max_error is 0.5 in the item and" in verify(item)[0].problems[0]


def test_an_embedding_is_made_anew(tmp_path):
    scene = make_scene(tmp_path / "raw")
    codec = embed_patch("patches", small_codec("fitted"), 16)
    (item,) = encode(scene.item, codec, tmp_path / "cat", asset="embedding")
    (row,) = verify(item)
    assert (row.problems, row.compared) == ([], True)
    assert row.samples > 0
    with rasterio.open(scene.item.assets["red"].href, "r+") as dst:
        dst.write(dst.read() + 500)
    assert "are not the embedding that codec" in verify(item)[0].problems[0]


def test_a_derived_item_leads_to_the_raw_files(tmp_path):
    scene = make_scene(tmp_path / "raw")
    scene.item.save_object(include_self_link=False)
    encode(scene.item, small_codec("dct"), tmp_path / "cat", mode="derived")
    (row,) = verify(str(tmp_path / "cat" / "catalog.json"))
    assert (row.problems, row.compared) == ([], True)
    Path(scene.item.self_href).unlink()
    (row,) = verify(str(tmp_path / "cat" / "catalog.json"))
    assert (row.problems, row.compared) == ([], False)
    assert "item 'scene-latent' has no raw band 'red'" in row.reason
    assert "scene.json" in row.reason


def test_own_raw_assets_come_before_a_link_that_leads_elsewhere(tmp_path):
    """Items of Earth Search have a ``derived_from`` link to the level 1C that they were made from."""
    scene = make_scene(tmp_path / "raw")
    scene.item.add_link(
        pystac.Link("derived_from", "https://example.org/l1c.json", media_type="application/json")
    )
    encode(scene.item, small_codec("dct"), tmp_path / "cat")
    (row,) = verify(str(tmp_path / "cat" / "catalog.json"))
    assert (row.problems, row.compared) == ([], True)


def test_raw_files_on_a_server(tmp_path, monkeypatch):
    scene = make_scene(tmp_path / "raw", scene_field((60, 70)))
    encode(scene.item, small_codec("dct"), tmp_path / "cat")
    path = tmp_path / "cat/scenes/scene/scene.json"
    with served(tmp_path / "raw") as url:
        path.write_text(path.read_text().replace(str(tmp_path / "raw"), url))
        (row,) = verify(str(tmp_path / "cat" / "catalog.json"))
        assert (row.problems, row.compared) == ([], True)
    path.write_text(path.read_text().replace(url, "http://127.0.0.1:9"))
    (row,) = verify(str(tmp_path / "cat" / "catalog.json"))
    assert (row.problems, row.compared) == ([], False)
    assert "cannot be read" in row.reason


def test_nothing_measured_is_no_success(tmp_path):
    scene = make_scene(tmp_path / "raw", scene_field((60, 70)))
    encode(scene.item, small_codec("dct"), tmp_path / "cat")
    catalog = str(tmp_path / "cat" / "catalog.json")
    run = CliRunner().invoke
    assert run(app, ["verify", catalog, "--full"]).exit_code == 0
    shutil.rmtree(tmp_path / "raw")
    result = run(app, ["verify", catalog])
    assert result.exit_code == 1
    assert "1 not compared: " in result.stdout
    assert "scene-red.tif cannot be read as a raster" in result.stdout.replace("\n", " ")
    assert "pass --no-raw to check without them" in result.stdout.replace("\n", " ")
    found = json.loads(run(app, ["verify", catalog, "--json"]).stdout)
    assert (found["failed"], found["compared"]) == (0, 0)
    assert run(app, ["verify", catalog, "--no-raw"]).exit_code == 0


def test_values_are_those_that_load_gives(tmp_path):
    """The figures of a scaled band refer to the decoded unit, and physical values agree with the raw file's."""
    scene = make_scene(tmp_path / "raw", fields={"raster:offset": -0.1})
    with pytest.warns(SourceWarning, match="uint16 cannot hold; it is decoded to int16"):
        (item,) = encode(scene.item, small_codec("dct"), tmp_path / "cat")
    error = item.assets["latent"].extra_fields["latent:band_max_error"]
    decoded = load(item, physical=True)
    for i, name in enumerate(("red", "nir")):
        want = scene.field[i] * 1e-4 - 0.1
        gap = np.abs(decoded[name][0].values - want)[scene.valid[i]]
        assert gap.max() == pytest.approx(error[i] * 1e-4, abs=1e-6)
