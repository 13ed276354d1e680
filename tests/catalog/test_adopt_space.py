"""Which model a file's vectors are of: folders, sidecars, tags and attributes; versions and variants never meet."""

from __future__ import annotations

import json

import adopt_support as files
import numpy as np
import pytest
import rasterio

from stac_latent import adopt, load
from stac_latent.errors import CatalogError

NAME = "grid_15.05_45.15"


def archive(root, dataset, landmasks, seed=0, year=2024):
    """A tile in the folders of the producer's repository, its landmask in a folder of its own."""
    codes, scale = files.tessera_codes(seed)
    tile = root / "npy" / dataset / str(year) / NAME / f"{NAME}.npy"
    tile.parent.mkdir(parents=True)
    np.save(tile, codes)
    np.save(tile.with_name(f"{NAME}_scales.npy"), scale)
    files.write_tiff(
        root / "landmasks" / landmasks / f"{NAME}.tiff", np.ones((1, *codes.shape[:2]), np.uint8)
    )
    return tile


def space(product, path, out, **more):
    (item,) = adopt(product, path, out, **more)
    (found,) = item.properties["latent:spaces"]
    assert item.assets["embeddings"].extra_fields["latent:space"] == found
    return found


def test_each_dataset_of_the_archive_is_a_space(tmp_path):
    """Folders of versions and variants; landmasks lie by version alone."""
    datasets = {
        "v1": "v1",
        "v1.1-cam": "v1.1",
        "v1.1-dclimate": "v1.1",
        "v2-2B-L~beta1": "v2",
        "v2-2B-L~beta2": "v2",
    }
    tiles = {name: archive(tmp_path / name, name, mask) for name, mask in datasets.items()}
    items = {name: adopt("tessera", tile, tmp_path / "c" / name)[0] for name, tile in tiles.items()}
    assert len({i.properties["latent:spaces"][0] for i in items.values()}) == len(datasets)
    assert {i.properties["start_datetime"] for i in items.values()} == {"2024-01-01T00:00:00Z"}
    with pytest.raises(CatalogError, match="latents of 2 spaces cannot share one cube"):
        load([items["v1"], items["v1.1-cam"]], upto="latent")
    truth = files.tessera_truth(*files.tessera_codes(0))
    np.testing.assert_allclose(load(items["v1.1-cam"], upto="latent")["latent"].values[0], truth, rtol=1e-6)


def test_one_version_has_one_name(tmp_path):
    """Folders, sidecars, tags, attributes and the argument name one model one way."""
    codes, scale = files.tessera_codes(0)
    by_folder = space("tessera", archive(tmp_path / "a", "v1.1-cam", "v1.1"), tmp_path / "1")
    tile = files.write_tessera(tmp_path / "b", codes, scale)
    sidecar = tmp_path / "b" / "tessera_metadata.json"
    sidecar.write_text(json.dumps({"dataset_version": "v1.1", "dataset_variant": "cambridge"}))
    assert space("tessera", tile, tmp_path / "2") == by_folder
    tiff = files.write_tiff(tmp_path / "grid_1_2024.tiff", np.ones((128, 4, 4), np.float32))
    with rasterio.open(tiff, "r+") as dst:
        dst.update_tags(TESSERA_DATASET_VERSION="1.1", TESSERA_DATASET_VARIANT="cambridge")
    assert space("tessera-tiff", tiff, tmp_path / "3") == by_folder
    assert space("tessera", tile, tmp_path / "4", version="v1.1-cam") == by_folder
    assert space("tessera", tile, tmp_path / "5", version="1.0") != by_folder
    sidecar.write_text(json.dumps({"dataset_version": "v1", "dataset_variant": "vultr"}))
    old = space("tessera", tile, tmp_path / "6")
    assert (
        old
        == space("tessera-zarr", files.write_tessera_zarr(tmp_path, codes, scale), tmp_path / "7")
        != by_folder
    )


def test_versions_are_asked_for_where_nothing_says_them(tmp_path):
    tile = files.write_tessera(tmp_path, *files.tessera_codes(0))
    (tmp_path / "tessera_metadata.json").unlink()
    with pytest.raises(
        CatalogError, match=r"'tessera' does not say the version of its model.*--model-version, or version="
    ):
        adopt("tessera", tile, tmp_path / "c")
    tiff = files.write_tiff(tmp_path / "grid_1_2024.tiff", np.ones((128, 4, 4), np.float32))
    with pytest.raises(CatalogError, match=r"'tessera-tiff' does not say the version .*--model-version"):
        adopt("tessera-tiff", tiff, tmp_path / "c")
    columns = files.clay_columns(files.vectors_of(0, 3, 768))
    chips = files.write_table(tmp_path / "33TWN.gpq", columns, files.geo_footer())
    with pytest.raises(CatalogError, match=r"'clay' does not say the version .*--model-version"):
        adopt("clay", chips, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_two_places_that_contradict_are_refused(tmp_path):
    tile = archive(tmp_path, "v1.1-cam", "v1.1")
    sidecar = tmp_path / "tessera_metadata.json"
    sidecar.write_text(json.dumps({"dataset_version": "v1"}))
    with pytest.raises(
        CatalogError, match=r"not clear which version .*the address says '1.1-cambridge', .*json says '1.0'"
    ):
        adopt("tessera", tile, tmp_path / "c")
    sidecar.write_text(json.dumps({"dataset_version": "v1.1"}))
    assert space("tessera", tile, tmp_path / "c") == space(
        "tessera", tile, tmp_path / "d", version="1.1-cambridge"
    )
    sidecar.write_text("no")
    with pytest.raises(CatalogError, match=r"tessera_metadata.json is no JSON object that can be read"):
        adopt("tessera", tile, tmp_path / "e")


def test_a_version_with_variants_that_names_none(tmp_path):
    tile = files.write_tessera(tmp_path, *files.tessera_codes(0))
    (tmp_path / "tessera_metadata.json").write_text(
        json.dumps({"dataset_version": "v2", "dataset_variant": None})
    )
    with pytest.warns(UserWarning, match=r"says version 2.0 and not which variant of it; .*--model-version"):
        bare = space("tessera", tile, tmp_path / "c")
    assert bare != space("tessera", tile, tmp_path / "d", version="v2-2B-L~beta1")


def test_folders_of_clay_are_spaces(tmp_path):
    columns = files.clay_columns(files.vectors_of(0, 3, 768))
    found = set()
    for name in ("clay-model-v0-embeddings", "clay-v1-sentinel2", "clay-v1-naip"):
        (tmp_path / name).mkdir()
        path = files.write_table(tmp_path / name / "33TWN.gpq", columns, files.geo_footer())
        found.add(space("clay", path, tmp_path / "c" / name))
    assert len(found) == 3
    path = files.write_table(tmp_path / "33TWN_20220610_20220610_v001.gpq", columns, files.geo_footer())
    assert space("clay", path, tmp_path / "d") in found
