"""The committed catalogue is what its script builds, and real scenes go through the whole line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import zarr

from stac_latent.catalog.bands import merge_bands
from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.search.search import search
from stac_latent.cube.read.load import load
from stac_latent.store.georeference import grid_fields
from stac_latent.validation import validate

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "catalogs" / "sample"
DATA = ROOT.parent / "shared" / "data"
SCHEMAS = ROOT.parent / "shared" / "schemas"
REAL_SETS = ("mapchete_33TWM", "ssl4eo_s12_seasons")
needs_data = pytest.mark.skipif(
    not all((DATA / "sentinel2" / name).is_dir() for name in REAL_SETS),
    reason="the shared data folder is absent",
)
LOOSE = ("file:size", "latent:bits_per_pixel", "file:checksum")
"""Depend on the zstd library, or on files that hold such values."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A catalogue built anew by the script, as a user runs it."""
    out = tmp_path_factory.mktemp("catalogs") / "sample"
    done = subprocess.run(
        [sys.executable, ROOT / "catalogs" / "make.py", out], check=True, capture_output=True, text=True
    )
    assert "catalog.json" in done.stdout
    return out


def documents(root):
    """STAC documents and Zarr metadata by relative path."""
    return {p.relative_to(root): json.loads(p.read_text()) for p in sorted(root.rglob("*.json"))}


def same(ours, theirs, where=""):
    """Equal but for times of writing; measurements to a thousandth, sizes to two percent: sums of floats differ between machines."""
    if isinstance(ours, dict):
        assert sorted(ours) == sorted(theirs), where
        for key in ours:
            if key not in (
                "updated",
                "file:checksum",
                "latent:input_digest",
            ):  # the last depends on GDAL's deflate
                same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{where}/{i}")
    elif isinstance(ours, int | float):
        tolerance = 0.02 if where.endswith(LOOSE) or "bits_per_pixel" in where else 1e-3
        assert math.isclose(ours, theirs, rel_tol=tolerance), f"{where}: {ours} is not {theirs}"
    else:
        assert ours == theirs, where


def test_fresh_build_has_the_committed_documents(fresh):
    committed, built = documents(SAMPLE), documents(fresh)
    assert list(built) == list(committed), "run python catalogs/make.py and commit what it writes"
    for path, doc in built.items():
        same(doc, committed[path], str(path))


def test_stores_repeat_what_their_assets_say():
    """Also an embedding: the grid is that of its cells."""
    said = 0
    for path in SAMPLE.glob("s2-sample/*/*.json"):
        for asset in json.loads(path.read_text())["assets"].values():
            if "latent:kind" in asset:
                group = json.loads((path.parent / asset["href"] / "zarr.json").read_text())["attributes"]
                named = {c["name"] for c in group["zarr_conventions"]}
                assert named == {"proj:"} | ({"geoemb:"} if asset["latent:kind"] == "embedding" else set())
                others = ("latent", "zarr_conventions", *(k for k in group if k.startswith("geoemb:")))
                group = {k: v for k, v in grid_fields(group).items() if k not in others}
                assert group == {k: asset[k] for k in group}
                assert {"latent:space", "bands", "proj:code", "proj:shape", "proj:transform"} <= set(group)
                said += asset["latent:kind"] == "embedding"
    assert said


def test_fresh_build_has_the_committed_symbols(fresh):
    import stac_latent.store.zarr.codec

    assert stac_latent.store.zarr.codec.LatentZarrCodec
    items = list(search(str(SAMPLE / "catalog.json")))
    load(next(i for i in items if i.id.endswith("coarse")), bands="B02")  # its space is known from now on
    stores = sorted(p.relative_to(SAMPLE) for p in SAMPLE.rglob("*.zarr"))
    assert len(stores) == 6
    for store in stores:
        ours, theirs = (zarr.open_group(str(root / store), mode="r") for root in (SAMPLE, fresh))
        for name in ("latent", "mask", "valid"):
            if name in ours:
                np.testing.assert_array_equal(ours[name][:], theirs[name][:], err_msg=f"{store}/{name}")


def test_fresh_build_has_the_committed_pixels(fresh):
    tiffs = sorted(SAMPLE.rglob("*.tif"))
    assert len(tiffs) == 8
    for path in tiffs:
        with rasterio.open(path) as ours, rasterio.open(fresh / path.relative_to(SAMPLE)) as theirs:
            np.testing.assert_array_equal(ours.read(), theirs.read(), err_msg=str(path))
            assert ours.transform == theirs.transform


def test_sample_is_small_and_self_contained():
    files = [p for p in SAMPLE.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 1_500_000
    for path, doc in documents(SAMPLE).items():
        hrefs = [a["href"] for a in doc.get("assets", {}).values()]
        hrefs += [link["href"] for link in doc.get("links", []) if "://" not in link["href"]]
        for href in hrefs:
            assert not Path(href).is_absolute(), f"{path}: {href}"
            assert (SAMPLE / path.parent / href).exists(), f"{path}: {href}"


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the shared schemas are absent")
def test_sample_is_valid_stac():
    for path in [*SAMPLE.rglob("*.json")]:
        if ".zarr" not in str(path) and path.name != "codec.json":
            assert validate(path, SCHEMAS) == [], path


def test_derived_item_points_to_its_source():
    (item,) = search(str(SAMPLE / "catalog.json"), ids=["spyndex-s2-sample-coarse"])
    (link,) = item.get_links("derived_from")
    source = pystac.Item.from_file(link.get_absolute_href())
    assert source.id == "spyndex-s2-sample"
    assert set(item.assets) == {"coarse"}
    fine, coarse = (load(i, asset=a) for i, a in ((source, "latent"), (item, "coarse")))
    assert fine.sizes == coarse.sizes
    error = np.abs(fine["B08"].astype("float64") - coarse["B08"]).max()
    errors = [i.assets[a].extra_fields["latent:max_error"] for i, a in ((source, "latent"), (item, "coarse"))]
    assert 0 < error <= sum(errors)


def test_plain_and_coded_assets_decode_to_the_same_scene():
    (item,) = search(str(SAMPLE / "catalog.json"), ids=["spyndex-s2-sample"])
    coded, plain = load(item, asset="latent"), load(item, asset="plain")
    limit = sum(item.assets[k].extra_fields["latent:max_error"] for k in ("latent", "plain"))
    for band in ("B02", "B03", "B04", "B08"):
        assert 0 < np.abs(coded[band].astype(float) - plain[band]).max() <= limit


def test_merge_bands_joins_both_lists_and_keeps_newer_ones():
    item = pystac.Item.from_file(str(next(SAMPLE.rglob("spyndex-s2-sample.json"))))
    old = {
        "eo:bands": [{"name": "a", "common_name": "red"}, {"name": "b"}],
        "raster:bands": [{"nodata": 0, "scale": 0.1, "bits_per_sample": None}],
        "bands": [{"name": "kept"}],
    }
    item.assets = {"x": pystac.Asset("x.tif", extra_fields=old), "y": pystac.Asset("y.tif")}
    item.stac_extensions = [
        "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
        "https://example.com/other.json",
    ]
    merge_bands(item)
    assert item.assets["x"].extra_fields == {
        "bands": [{"name": "kept", "eo:common_name": "red", "nodata": 0, "raster:scale": 0.1}, {"name": "b"}]
    }
    assert item.assets["y"].extra_fields == {}
    assert item.stac_extensions == [
        "https://example.com/other.json",
        "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    ]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Catalogues of the real scenes."""
    out = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, ROOT / "catalogs" / "real.py", DATA, out], check=True)
    return out


@needs_data
@pytest.mark.shared
def test_earth_search_items_keep_their_offset_and_become_valid(real, tmp_path):
    (raw,) = search(str(real / "mapchete" / "catalog.json"), ids=["S2B_33TWM_20230820_0_L2A"])
    assert raw.assets["blue"].extra_fields["raster:bands"][0]["offset"] == -0.1
    (item,) = encode(raw, "s2-10m-4b", tmp_path)
    assert [p for p in validate(item.get_self_href(), SCHEMAS) if p.keyword != "unavailable"] == []
    decoded = load(item, bands="B02")["B02"].values[0]
    with rasterio.open(raw.assets["blue"].get_absolute_href()) as src:
        pixels = src.read(1)
    assert decoded.shape == pixels.shape == (915, 915)
    np.testing.assert_array_equal(decoded == 0, pixels == 0)
    gap = np.abs(decoded.astype("int32") - pixels)
    assert gap.max() <= item.properties["latent:max_error"], "the declared offset is in the pixels already"
    assert item.properties["latent:psnr"] > 44


@needs_data
@pytest.mark.shared
def test_twelve_bands_of_one_asset(real, tmp_path):
    (raw,) = search(str(real / "ssl4eo" / "catalog.json"), ids=["ssl4eo-0181476-1"])
    (item,) = encode(raw, "s2-l2a-12b", tmp_path)
    assert validate(item.get_self_href(), SCHEMAS) == []
    decoded = load(item)
    with rasterio.open(raw.assets["s2l2a"].get_absolute_href()) as src:
        pixels = src.read()
    names = [b["name"] for b in item.assets["latent"].extra_fields["bands"]]
    field = np.stack([decoded[n].values[0] for n in names]).astype("int32")
    assert np.abs(field - pixels).max() == item.properties["latent:max_error"]
    assert item.properties["latent:psnr"] > 47
    assert item.properties["latent:bits_per_pixel"] < 1
