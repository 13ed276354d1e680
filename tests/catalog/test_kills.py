"""``kill -9`` while items are encoded: complete or absent, never twice, and finished work is not done again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from core_support import make_scene, scene_field, small_codec

from stac_latent import encode
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.fixture(scope="module")
def kills():
    spec = importlib.util.spec_from_file_location("kills", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kills"]


def test_killed_at_random_moments(kills, tmp_path, monkeypatch):
    """The experiment of ``benchmarks/kills.py``, smaller; it raises where a promise is broken."""
    pytest.importorskip("spyndex")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    found = kills.experiment(tmp_path, 4, 4, codec="s2-10m-4b", size=48)
    assert found["kills"] == len(found["trials"]) == 4
    assert all(0 <= t["items_finished"] <= 4 for t in found["trials"])


@pytest.fixture
def scenes(tmp_path):
    return [make_scene(tmp_path / "raw", scene_field((40, 48), i), name=f"s{i}").item for i in range(3)]


def counted(monkeypatch):
    """Ids of the items that are really encoded."""
    import stac_latent.catalog.encode.run as module

    done, honest = [], module.write

    def write(job, *args):
        done.append(job.sources[0].item.id)
        return honest(job, *args)

    monkeypatch.setattr(module, "write", write)
    return done


def test_finished_items_are_passed_over(tmp_path, scenes, monkeypatch):
    codec, done = small_codec("dct"), counted(monkeypatch)
    encode(scenes[:2], codec, tmp_path / "cat")
    first = Path(tmp_path / "cat" / "scenes" / "s0" / "s0.json").read_bytes()
    items = encode(scenes, codec, tmp_path / "cat")
    assert done == ["s0", "s1", "s2"]
    assert [i.id for i in items] == ["s0", "s1", "s2"]
    assert items[0].assets["latent"].extra_fields["latent:input_digest"].startswith("sha256:")
    assert Path(items[0].get_self_href()).read_bytes() == first
    encode(scenes[0], codec, tmp_path / "cat", overwrite=True)
    assert done[3:] == ["s0"]


def test_other_inputs_are_not_finished(tmp_path, scenes):
    """Pixels, codec, payload: whatever changes the bytes changes the digest, and nothing is replaced unasked."""
    import rasterio

    codec = small_codec("dct")
    encode(scenes[0], codec, tmp_path / "cat")
    text = "already has an asset 'latent'; pass overwrite=True"
    with pytest.raises(CatalogError, match=text):
        encode(scenes[0], codec, tmp_path / "cat", payload="plain")
    with pytest.raises(CatalogError, match=text):
        encode(scenes[0], small_codec("zstd"), tmp_path / "cat")
    with rasterio.open(scenes[0].assets["red"].href, "r+") as dst:
        dst.write(np.full((40, 48), 77, np.uint16), 1)
    with pytest.raises(CatalogError, match=text):
        encode(scenes[0], codec, tmp_path / "cat")


def test_a_virtual_raster_is_encoded_again(tmp_path, scenes):
    """Its pixels lie in other files: what it holds is not told by its own bytes."""
    from affine import Affine

    grid = Affine(*scenes[0].properties["proj:transform"])
    for asset in scenes[0].assets.values():
        path = Path(asset.href).with_suffix(".vrt")
        path.write_text(
            '<VRTDataset rasterXSize="48" rasterYSize="40"><SRS>EPSG:32633</SRS>'
            f"<GeoTransform>{', '.join(map(str, grid.to_gdal()))}</GeoTransform>"
            '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
            f'<SourceFilename relativeToVRT="0">{asset.href}</SourceFilename><SourceBand>1</SourceBand>'
            "</SimpleSource></VRTRasterBand></VRTDataset>"
        )
        asset.href = str(path)
    (item,) = encode(scenes[0], small_codec("dct"), tmp_path / "cat")
    assert "latent:input_digest" not in item.assets["latent"].extra_fields


def test_a_store_that_lost_bytes_is_written_again(tmp_path, scenes, monkeypatch):
    codec = small_codec("dct")
    (item,) = encode(scenes[0], codec, tmp_path / "cat")
    before = LatentReader.open(item).read_field()
    done = counted(monkeypatch)
    shard = Path(item.assets["latent"].get_absolute_href()) / "latent/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-9])
    (again,) = encode(scenes[0], codec, tmp_path / "cat")
    assert done == ["s0"]
    np.testing.assert_array_equal(LatentReader.open(again).read_field(), before)


def test_an_item_that_was_written_and_not_linked_is_linked(tmp_path, scenes):
    """Killed between the Item's file and the Collection that links to it."""
    encode(scenes[:1], small_codec("dct"), tmp_path / "cat")
    collection = tmp_path / "cat" / "scenes" / "collection.json"
    doc = json.loads(collection.read_text())
    collection.unlink()
    (tmp_path / "cat" / "catalog.json").unlink()
    encode(scenes[:1], small_codec("dct"), tmp_path / "cat")
    assert json.loads(collection.read_text()) == doc
    assert (tmp_path / "cat" / "catalog.json").exists()


def test_half_written_documents_go(tmp_path, scenes):
    import subprocess

    from stac_latent.system.files import temporary

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = tmp_path / "cat" / "scenes"
    folder.mkdir(parents=True)
    import os

    name = temporary(folder / "collection.json", "part").name.replace(str(os.getpid()), str(gone.pid))
    (folder / name).write_text("{")
    encode(scenes[:1], small_codec("dct"), tmp_path / "cat")
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_measurements_of_each_band(tmp_path, scenes):
    (item,) = encode(scenes[0], small_codec("dct"), tmp_path / "cat")
    fields = item.assets["latent"].extra_fields
    import rasterio

    truth = np.stack([rasterio.open(scenes[0].assets[k].href).read(1) for k in ("red", "nir")]).astype(float)
    error = LatentReader.open(item).read_field() - truth
    for i, band in enumerate(error):
        valid = truth[i] != 0
        assert fields["latent:band_max_error"][i] == np.abs(band[valid]).max()
        expected = 10 * np.log10(1e8 / np.mean(band[valid] ** 2))
        assert fields["latent:band_psnr"][i] == pytest.approx(expected)
    assert max(fields["latent:band_max_error"]) == fields["latent:max_error"]
