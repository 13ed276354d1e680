"""Archives as their producers publish them now: Zarr with a time axis, overviews, hive folders, files that are missing."""

from __future__ import annotations

import json
import time
import warnings

import adopt_support as files
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import zarr
from affine import Affine
from rasterio.enums import Resampling

from stac_latent import adopt, load, load_table
from stac_latent.catalog.coverage.vectors import VectorShares, vector_shares
from stac_latent.cube.read.driver import open_cells
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, CorruptDataError, GridError
from stac_latent.validation import validate

GEOEMB = {
    "geoemb:type": "pixel", "geoemb:dimensions": 128, "geoemb:model": "https://geotessera.org/model/1.0",
    "geoemb:source_data": ["https://sentinel.esa.int"], "geoemb:data_type": "int8", "geoemb:gsd": 10.0,
    "geoemb:spatial_layout": "utm_zones",
    "geoemb:quantization": {
        "method": "per_pixel_scale", "original_dtype": "float32", "quantized_dtype": "int8",
        "scale": {"type": "array", "array_name": "scales", "nodata": "+inf"},
    },
}  # fmt: skip


def zones(root, zone_numbers=(30, 31), years=(2023, 2024), named=True, size=(16, 12)):
    """A store of several years with a group for each zone; codes and scales by (zone, year)."""
    store = zarr.open_group(root, mode="w", zarr_format=3, attributes=GEOEMB)
    rng = np.random.default_rng(0)
    stored = {}
    for zone in zone_numbers:
        place = {
            "proj:code": f"EPSG:{32600 + zone}",
            "spatial:transform": list(files.NORTH)[:6],
            "spatial:shape": list(size),
        }
        group = store.create_group(f"utm{zone}", attributes=place)
        codes = rng.integers(-127, 128, (len(years), 128, *size)).astype(np.int8)
        scale = rng.uniform(0.01, 0.1, (len(years), *size)).astype(np.float32)
        scale[:, 0, :3], scale[:, 1, :3] = np.nan, np.inf
        for name, data, dims in (
            ("embeddings", codes, ["time", "band", "y", "x"]), ("scales", scale, ["time", "y", "x"]),
            ("time", np.array(years, np.int32), ["time"]),
        ):  # fmt: skip
            group.create_array(name, data=data, dimension_names=dims if named else None)
        stored |= {(zone, year): (codes[i], scale[i]) for i, year in enumerate(years)}
    return stored


@pytest.mark.parametrize("product", ["tessera-zarr", "tessera", "geoemb"])
def test_an_item_for_each_zone_and_year(tmp_path, product):
    stored = zones(tmp_path / "v1.zarr")
    items = adopt(product, tmp_path / "v1.zarr", tmp_path / "c")
    assert sorted(i.id for i in items) == ["v1-utm30-2023", "v1-utm30-2024", "v1-utm31-2023", "v1-utm31-2024"]
    for item in items:
        zone, year = (int(part.removeprefix("utm")) for part in item.id.split("-")[1:])
        codes, scale = stored[zone, year]
        truth = codes.astype(np.float32) * np.where(np.isfinite(scale), scale, np.nan)
        assert np.array_equal(load(item, upto="latent")["latent"].values[0], truth, equal_nan=True)
        assert item.properties["start_datetime"] == f"{year}-01-01T00:00:00Z"
        fields = item.assets["embeddings"].extra_fields
        assert (fields["proj:code"], fields["latent:time_index"]) == (f"EPSG:{32600 + zone}", year - 2023)
        assert fields["latent:dim_order"] == ["time", "channel", "y", "x"]
        assert item.assets["scales"].extra_fields["nodata"] == "inf"
        assert [p for p in validate(item) if p.keyword != "unavailable"] == []


def test_axes_without_names_are_those_of_the_product(tmp_path):
    stored = zones(tmp_path / "v1.zarr", (30,), named=False)
    first, second = adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "c")
    codes, scale = stored[30, 2024]
    found = load(second, upto="latent")["latent"].values[0]
    assert np.array_equal(found[:, 2:], (codes * scale)[:, 2:])
    assert first.properties["start_datetime"] == "2023-01-01T00:00:00Z"


def test_times_that_are_asked_for_and_times_that_are_missing(tmp_path):
    zones(tmp_path / "v1.zarr", (30,))
    (item,) = adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "c", when="2024")
    assert item.id == "v1-utm30-2024"
    with pytest.raises(CatalogError, match=r"has no step within 2020; it has 2023-01-01, 2024-01-01"):
        adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "c", when="2020")
    del zarr.open_group(tmp_path / "v1.zarr", mode="a")["utm30/time"]
    with pytest.raises(CatalogError, match=r"has 2 steps of time and no coordinate 'time' that dates them"):
        adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "d")


def test_times_that_count_days(tmp_path):
    zones(tmp_path / "v1.zarr", (30,))
    group = zarr.open_group(tmp_path / "v1.zarr/utm30", mode="a")
    group["time"][:] = [0, 365]
    group["time"].attrs.update(units="days since 2023-01-01", calendar="proleptic_gregorian")
    items = adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "c")
    assert [i.properties["start_datetime"][:4] for i in items] == ["2023", "2024"]


def test_stores_that_contradict_themselves(tmp_path):
    zones(tmp_path / "v1.zarr", (30,))
    group = zarr.open_group(tmp_path / "v1.zarr/utm30", mode="a")
    group.attrs["spatial:shape"] = [3, 4]
    with pytest.raises(CorruptDataError, match=r"spatial:shape is \[3, 4\], the array has \[16, 12\] cells"):
        adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "c")
    group.attrs.update({"spatial:shape": [16, 12], "spatial:registration": "node"})
    with pytest.raises(GridError, match=r"spatial:registration is 'node'; expected 'pixel'"):
        adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "c")
    root = zarr.open_group(tmp_path / "v1.zarr", mode="a")
    root.attrs["geoemb:quantization"] = {"method": "product_quantization", "original_dtype": "float32"}
    with pytest.raises(
        CatalogError, match=r"geoemb:quantization 'product_quantization' is not one that is read"
    ):
        adopt("geoemb", tmp_path / "v1.zarr", tmp_path / "c")


@pytest.mark.parametrize("name", ["mosaic", "mosaic.zarr"])
def test_alphaearth_as_geozarr(tmp_path, name):
    """Codes in degrees, a year at each step; the power law, and not what a linear scale would give."""
    codes = np.stack([files.alphaearth_codes(s, (64, 9, 11)) for s in range(3)])
    attributes = {
        "proj:code": "EPSG:4326", "spatial:transform": [1e-4, 0, 10, 0, -1e-4, 50], "spatial:dimensions": ["y", "x"],
        "geoemb:model": "https://arxiv.org/abs/2507.22291", "geoemb:dimensions": 64, "geoemb:data_type": "int8",
        "geoemb:quantization": {"method": "signed_square", "formula": "(x / 127.5) ** 2 * sign(x)", "nodata": -128},
    }  # fmt: skip
    store = zarr.open_group(tmp_path / name, mode="w", attributes=attributes)
    dims = ["time", "band", "y", "x"]
    store.create_array("embeddings", data=codes, fill_value=-128, dimension_names=dims)
    store.create_array("time", data=np.array([2017, 2024, 2025]), dimension_names=["time"])
    by_name = adopt("alphaearth-zarr", tmp_path / name, tmp_path / "c")
    by_attributes = adopt("geoemb", tmp_path / name, tmp_path / "d")
    cog = adopt("alphaearth", tmp_path / name, tmp_path / "e")
    for items in (by_name, by_attributes, cog):
        assert [i.properties["start_datetime"][:4] for i in items] == ["2017", "2024", "2025"]
        for item, stored in zip(items, codes, strict=True):
            found = load(item, upto="latent")["latent"].values[0]
            np.testing.assert_allclose(found, files.alphaearth_truth(stored), rtol=1e-6)
    assert by_name[0].properties["latent:spaces"] == cog[0].properties["latent:spaces"]


# -- overviews


def cog(path, upward=False, n=512):
    """A tile with overviews that are means of length 1; codes of the tile and of each overview."""
    rng = np.random.default_rng(5)
    coarse = rng.normal(size=(8, n // 64, n // 64))
    x = np.repeat(np.repeat(coarse, 64, 1), 64, 2) + 0.2 * rng.normal(size=(8, n, n))
    x /= np.linalg.norm(x, axis=0)
    profile = {
        "driver": "GTiff",
        "count": 8,
        "dtype": "int8",
        "nodata": -128,
        "crs": files.UTM,
        "tiled": True,
    }
    place = Affine(10, 0, 500_000, 0, 10 if upward else -10, 5_000_000)
    level, codes = x, []
    for k in (1, 2, 4, 8):
        if k > 1:
            level = x.reshape(8, n // k, k, n // k, k).mean(axis=(2, 4))
            level /= np.linalg.norm(level, axis=0)
        codes.append(
            (np.clip(np.rint(np.sqrt(np.abs(level)) * 127.5), 0, 127) * np.sign(level)).astype(np.int8)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"height": n, "width": n, "blockxsize": 128, "blockysize": 128}
    with rasterio.open(path, "w", transform=place, **size, **profile) as dst:
        dst.write(codes[0])
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2, 4, 8], Resampling.nearest)
    for i, data in enumerate(codes[1:]):
        with rasterio.open(path, "r+", overview_level=i) as dst:
            dst.write(data)
    return x, codes


AEF8 = {"latent:dimensions": 8}


@pytest.mark.parametrize("upward", [False, True])
def test_a_coarse_load_reads_overviews(tmp_path, upward, monkeypatch):
    x, codes = cog(tmp_path / "2024" / "tile.tiff", upward)
    (item,) = adopt("alphaearth", tmp_path / "2024" / "tile.tiff", tmp_path / "c", fields=AEF8)
    assert item.assets["embeddings"].extra_fields["latent:overviews"] == "mean"
    from stac_latent.store.foreign import arrays

    read = []
    real = arrays._GeoTiff.read
    monkeypatch.setattr(
        arrays._GeoTiff, "read", lambda self, w: read.append(np.prod(self.shape)) or real(self, w)
    )
    cube = load(item, upto="latent", crs=files.UTM, resolution=80, resampling="average")["latent"].values[0]
    assert max(read) == codes[3].size == codes[0].size // 64
    truth = x.reshape(8, 64, 8, 64, 8).mean(axis=(2, 4))
    truth /= np.linalg.norm(truth, axis=0)
    truth = truth[:, ::-1] if upward else truth
    found = np.sqrt(np.abs(cube)) * np.sign(cube) * 127.5
    assert cube.shape == truth.shape
    assert np.abs(found - np.sqrt(np.abs(truth)) * np.sign(truth) * 127.5).max() <= 1
    exact = load(item, upto="latent", crs=files.UTM, resolution=10, resampling="nearest")["latent"].values[0]
    full = files.alphaearth_truth(codes[0])
    np.testing.assert_allclose(exact, full[:, ::-1] if upward else full, rtol=1e-6)


def test_overviews_between_levels_and_in_part(tmp_path):
    """A resolution of 50 m takes the overview of 40 m, and a window of it is a part of the whole."""
    _, codes = cog(tmp_path / "2024" / "tile.tiff")
    (item,) = adopt("alphaearth", tmp_path / "2024" / "tile.tiff", tmp_path / "c", fields=AEF8)
    reader = open_cells(LatentRef.from_item(item))
    levels = {s: open_cells(reader.coarser(s)).grid.shape[0] for s in (1, 1.9, 2, 5, 8, 100)}
    assert levels == {1: 512, 1.9: 512, 2: 256, 5: 128, 8: 64, 100: 64}
    ours = open_cells(reader.coarser(5)).read_latent(((10, 20), (30, 50)))
    np.testing.assert_allclose(ours, files.alphaearth_truth(codes[2])[:, 10:20, 30:50], rtol=1e-6)


def test_an_overview_in_strips(tmp_path):
    """Beside the file, as GDAL has it too."""
    x, codes = cog(tmp_path / "2024" / "whole.tiff")
    path = files.write_tiff(tmp_path / "2024" / "tile.tiff", codes[0], nodata=-128)
    files.write_tiff(path.with_name("tile.tiff.ovr"), codes[3], None)
    with rasterio.open(path) as src:
        assert src.overviews(1) == [8]
    (item,) = adopt("alphaearth", path, tmp_path / "c", fields=AEF8)
    cube = load(item, upto="latent", crs=files.UTM, resolution=80, resampling="nearest")["latent"].values[0]
    np.testing.assert_allclose(cube, files.alphaearth_truth(codes[3]), rtol=1e-6)
    assert x.shape == codes[0].shape


def test_overviews_of_others_are_not_read(tmp_path):
    cog(tmp_path / "2024" / "tile.tiff")
    fields = {"latent:quantization": "round"}
    (item,) = adopt(
        "any",
        tmp_path / "2024" / "tile.tiff",
        tmp_path / "c",
        producer="a",
        name="b",
        version="1",
        fields=fields,
    )
    reader = open_cells(LatentRef.from_item(item))
    assert reader.coarser(8) is reader.ref


# -- tables in folders, other rasters, and files that are missing


def test_hive_folders_of_clay(tmp_path):
    columns = {
        "chips_id": pa.array(["a", "b"]), "embedding": pa.array(files.vectors_of(0, 2, 1024).tolist(), pa.list_(pa.float32())),
        "geometry": files.clay_columns(files.vectors_of(0, 2))["geometry"],
    }  # fmt: skip
    for month in (6, 7):
        folder = tmp_path / "lgnd-clay-v1-5-sentinel-2-l2a" / "gzd=10S" / "year=2024" / f"month={month:02}"
        folder.mkdir(parents=True)
        files.write_table(folder / "part-0.parquet", columns, files.geo_footer())
    items = adopt("clay-v1.5", tmp_path / "lgnd-clay-v1-5-sentinel-2-l2a", tmp_path / "c")
    assert [i.properties["start_datetime"] for i in items] == ["2024-06-01T00:00:00Z", "2024-07-01T00:00:00Z"]
    assert len({i.id for i in items}) == 2
    assert len({i.properties["latent:spaces"][0] for i in items}) == 1
    assert np.array_equal(
        np.stack(list(load_table(items).vector)), np.tile(files.vectors_of(0, 2, 1024), (2, 1))
    )
    with pytest.raises(CatalogError, match=r"has no table \(.parquet, .geoparquet, .gpq\) in it or below"):
        adopt("clay-v1.5", tmp_path / "c", tmp_path / "d")


def test_climatic_regions(tmp_path):
    """Bytes with a scale in the header, in degrees, a file for each year."""
    codes = np.random.default_rng(0).integers(0, 255, (6, 10, 20)).astype(np.uint8)
    codes[:, :3] = 255
    for year in (2018, 2022):
        path = files.write_tiff(
            tmp_path / f"meteo_biomes_{year}.tif",
            codes,
            Affine(0.1, 0, -180, 0, -0.1, 85),
            "EPSG:4326",
            nodata=255,
        )
        with rasterio.open(path, "r+") as dst:
            dst.scales = [0.004] * 6
    items = adopt("climatic-regions", sorted(tmp_path.glob("*.tif")), tmp_path / "c")
    assert [i.properties["start_datetime"][:4] for i in items] == ["2018", "2022"]
    truth = np.where(codes == 255, np.nan, codes * np.float32(0.004))
    np.testing.assert_allclose(load(items[0], upto="latent")["latent"].values[0], truth, rtol=1e-6)


def test_one_tile_without_scales_keeps_the_others_not_back(tmp_path, run):
    tiles = [
        files.write_tessera(tmp_path, *files.tessera_codes(s), name=f"grid_{s}.05_45.15") for s in range(3)
    ]
    tiles[1].with_name("grid_1.05_45.15_scales.npy").unlink()
    with pytest.raises(
        CatalogError,
        match=r"1 file\(s\) were not adopted, 2 item\(s\) of the others were: the scales of .*grid_1.05",
    ):
        adopt("tessera", tiles, tmp_path / "c")
    code, out, err = run("adopt", "tessera", *tiles, tmp_path / "d", "--json")
    found = json.loads(out)
    assert code == 1
    assert [r["id"] for r in found["items"]] == ["grid_0.05_45.15", "grid_2.05_45.15"]
    assert found["failed"][0]["file"] == str(tiles[1])
    assert "grid_1.05_45.15_scales.npy" in err
    assert load(adopt("tessera", tiles[:1], tmp_path / "e"), upto="latent")["latent"].shape[1] == 128
    seen = []
    assert (
        len(adopt("tessera", tiles, tmp_path / "f", failed=lambda file, exc: seen.append((file, type(exc)))))
        == 2
    )
    assert seen == [(str(tiles[1]), CatalogError)]


def test_archives_are_described_in_no_time(tmp_path):
    """A store that says that it is as large as the world is described without reading it."""
    store = zarr.open_group(
        tmp_path / "aef",
        mode="w",
        attributes={"proj:code": "EPSG:4326", "spatial:transform": [9e-5, 0, -180, 0, -9e-5, 83]},
    )
    store.create_array(
        "embeddings",
        shape=(9, 64, 1_000_000, 4_000_000),
        chunks=(1, 64, 256, 256),
        dtype="int8",
        fill_value=-128,
    )
    store.create_array("time", data=np.arange(2017, 2026))
    start = time.monotonic()
    assert len(adopt("alphaearth-zarr", tmp_path / "aef", tmp_path / "c")) == 9
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("pixels", "side", "how"),
    [
        (224, 16, None),
        (230, 16, "patches of 16 pixels from the first row"),
        (500, 500 / 14, "equal parts of the whole image"),
    ],
)
def test_cells_of_an_image_that_they_do_not_divide(tmp_path, pixels, side, how):
    """A model of whole patches leaves out the last pixels; one that resized its image does not."""
    files.write_tiff(tmp_path / "scene.tif", np.ones((1, pixels, pixels), np.uint8))
    path = files.write_tiff(tmp_path / "scene_embedding.tif", np.ones((8, 14, 14), np.float32), None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        (item,) = adopt("terratorch", path, tmp_path / "c", version="1", when="2024")
    said = [str(w.message) for w in seen if "do not divide" in str(w.message)]
    assert [how in text for text in said] == ([] if how is None else [True])
    found = item.assets["embeddings"].extra_fields["proj:transform"]
    np.testing.assert_allclose(found, [10 * side, 0, 500_000, 0, -10 * side, 5_000_000])


def test_water_is_told_from_data_that_are_still_to_come(tmp_path, run):
    """A scale of NaN is water, one of infinity has no data yet; both load as NaN."""
    stored = zones(tmp_path / "v1.zarr", (33,))
    items = adopt("tessera-zarr", tmp_path / "v1.zarr", tmp_path / "c")
    for found, year in zip(vector_shares(items), (2023, 2024), strict=True):
        scale = stored[33, year][1]
        wanted = VectorShares(
            f"v1-utm33-{year}",
            scale.size,
            int(np.isfinite(scale).sum()),
            int(np.isnan(scale).sum()),
            int(np.isinf(scale).sum()),
        )
        assert found == wanted
    west, south, east, north = items[0].bbox
    (part, _) = vector_shares(items, (west, (south + north) / 2, east, north))
    assert part.cells < items[0].assets["embeddings"].extra_fields["proj:shape"][0] * 12
    assert (part.water, part.pending) == (3, 3)
    assert vector_shares(items, (100, 0, 101, 1)) == []
    code, out, _ = run("coverage", tmp_path / "c" / "catalog.json", "--every", "year", "--vectors", "--json")
    assert code == 0
    assert json.loads(out)["vectors"][1] == {
        "item": "v1-utm33-2024",
        "cells": 192,
        "vectors": 186,
        "water": 3,
        "pending": 3,
    }
    (other,) = adopt(
        "alphaearth", files.write_tiff(tmp_path / "2024" / "a.tif", files.alphaearth_codes(0)), tmp_path / "d"
    )
    assert vector_shares([other]) == []
    with pytest.raises(
        CatalogError, match=r"has no scales that tell cells without a vector from those without one yet"
    ):
        open_cells(LatentRef.from_item(other)).read_absence()
