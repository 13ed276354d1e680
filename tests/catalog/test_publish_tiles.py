"""Tables in parts, and how little of one is read for a place."""

from __future__ import annotations

import io
import json

import duckdb
import geopandas
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from publish_support import LATLON, UTM, item_of, opener, reader_of

from stac_latent.catalog.publish.publish import publish
from stac_latent.errors import CatalogError
from stac_latent.index.nearest import nearest
from stac_latent.index.table import open_table
from stac_latent.spec import Grid
from stac_latent.store.geoparquet.writer import read_table, vectors

BIG = Grid("EPSG:4326", (0.01, 0, 10.0, 0, -0.01, 50.0), (200, 200), (2, 2))


class Counted(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data

    def readinto(self, buffer):
        size = super().readinto(buffer)
        self.count += size
        return size


def tiles_of(path, zoom, **options):
    readers = {"a": reader_of(UTM), "b": reader_of(LATLON, seed=1)}
    return publish(
        [item_of(n, r) for n, r in readers.items()], path, partition=zoom, reader=opener(**readers), **options
    )


@pytest.mark.parametrize("zoom", [0, 5, 9])
def test_tiles_hold_the_rows_of_the_one_file(tmp_path, zoom):
    readers = {"a": reader_of(UTM), "b": reader_of(LATLON, seed=1)}
    publish([item_of(n, r) for n, r in readers.items()], tmp_path / "one.parquet", reader=opener(**readers))
    tiles_of(tmp_path / "many", zoom)
    one = read_table(tmp_path / "one.parquet").to_pylist()
    files = sorted((tmp_path / "many").glob("tile=*/part-0.parquet"))
    many = [row for f in files for row in pq.ParquetFile(f).read().to_pylist()]
    assert sorted(one, key=lambda r: r["id"]) == sorted(many, key=lambda r: r["id"])
    assert len(files) > (1 if zoom > 5 else 0)


@settings(max_examples=6, deadline=None)
@given(zoom=st.integers(0, 11), group=st.sampled_from([8 << 10, 1 << 20]))
def test_rows_lie_in_the_tile_that_the_folder_names(tmp_path_factory, zoom, group):
    folder = tmp_path_factory.mktemp("tiles") / "v"
    item = tiles_of(folder, zoom, row_group_bytes=group)
    side = 180 / 2**zoom
    for file in folder.glob("tile=*/part-0.parquet"):
        z, x, y = map(int, file.parent.name.removeprefix("tile=").split("-"))
        assert z == zoom
        table = pq.read_table(file, partitioning=None)
        bounds = shapely.bounds(shapely.from_wkb(table["geometry"].to_numpy()))
        lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
        assert (np.floor((lon + 180) / side) == x).all()
        assert (np.ceil((90 - lat) / side) - 1 == y).all() or (np.floor((90 - lat) / side) == y).all()
        geo = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]["bbox"]
        assert np.allclose(geo, [*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)])
        asset = item.assets[f"embeddings-{z}-{x}-{y}"]
        assert asset.extra_fields["file:size"] == file.stat().st_size
        assert asset.extra_fields["latent:shape"] == [len(table), 6]
    assert item.properties["table:row_count"] == sum(
        a.extra_fields["latent:shape"][0] for a in item.assets.values()
    )


def test_tiles_open_everywhere_and_are_searched_as_one(tmp_path):
    folder = tmp_path / "v"
    item = tiles_of(folder, 9, dtype="float32")
    rows = item.properties["table:row_count"]
    assert len(geopandas.read_parquet(folder)) == rows
    counts = duckdb.read_parquet(f"{folder}/*/*.parquet", hive_partitioning=True).aggregate(
        "count(*), count(DISTINCT tile)"
    )
    assert counts.fetchall()[0] == (rows, len(item.assets))
    assert pl.read_parquet(f"{folder}/*/*.parquet").height == rows
    table = open_table(folder)
    assert table.rows == rows
    query = vectors(read_table(table.files[0].path))[0]
    found = nearest(folder, query, 3, metric="l2")
    assert found["distance"].iloc[0] == 0
    for source in (item, pystac.Item.from_file(f"{folder}.json")):
        assert nearest(source, query, 3, metric="l2")["id"].tolist() == found["id"].tolist()


def test_tiles_replace_tiles_and_nothing_else(tmp_path):
    folder = tmp_path / "v"
    tiles_of(folder, 9)
    tiles_of(folder, 2)
    assert [p.name for p in folder.iterdir()] == ["tile=2-4-0"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(
        CatalogError, match=r"cannot write tiles to .*: it is a folder that holds 'notes.txt'"
    ):
        tiles_of(folder, 2)
    (tmp_path / "f").write_text("mine")
    with pytest.raises(CatalogError, match="it is a file; dest is the path of a new folder"):
        tiles_of(tmp_path / "f", 2)
    with pytest.raises(CatalogError, match="partition=16 is no zoom of WorldCRS84Quad; choose 0 to 15"):
        tiles_of(tmp_path / "g", 16)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "v", "v.json"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_a_place_of_one_percent_reads_little(tmp_path, dtype):
    reader = reader_of(BIG, 32)
    path = tmp_path / "v.parquet"
    publish(
        item_of("a", reader),
        path,
        reader=opener(a=reader),
        dtype=dtype,
        row_group_bytes=8 << 10,
        compression_level=1,
    )
    whole = path.read_bytes()
    opened = Counted(whole)
    pq.ParquetFile(opened)
    shares = []
    for x, y in ((10.3, 48.3), (10.7, 49.1), (11.1, 49.2)):
        file = Counted(whole)
        table = read_table(file, ["id", "vector", "geometry"], bbox=(x, y, x + 0.2, y + 0.2))
        assert 0.008 < table.num_rows / 10_000 < 0.016
        shares.append((file.count - opened.count) / (len(whole) - opened.count))
    assert 0 < np.mean(shares) < 0.05


def test_bounds_of_row_groups_are_those_of_their_rows(tmp_path):
    reader = reader_of(UTM)
    publish(item_of("a", reader), tmp_path / "v.parquet", reader=opener(a=reader), row_group_bytes=16 << 10)
    file = pq.ParquetFile(tmp_path / "v.parquet")
    boxes = json.loads(file.metadata.metadata[b"row_groups"])["bbox"]
    assert len(boxes) == file.num_row_groups > 5
    for group, box in enumerate(boxes):
        bounds = shapely.bounds(
            shapely.from_wkb(file.read_row_group(group, ["geometry"])["geometry"].to_numpy())
        )
        tight = [*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)]
        assert np.allclose(box, tight, atol=1e-5)
        assert (np.array(box[:2]) <= tight[:2]).all()
        assert (np.array(box[2:]) >= tight[2:]).all()


def test_files_without_bounds_of_row_groups_are_read_alike(tmp_path):
    reader = reader_of(UTM)
    path = tmp_path / "v.parquet"
    publish(item_of("a", reader), path, reader=opener(a=reader), row_group_bytes=16 << 10)
    box = (15.001, 47.84, 15.02, 47.85)
    expected = read_table(path, bbox=box)
    table = pq.read_table(path)
    pq.write_table(table, tmp_path / "plain.parquet", row_group_size=100)
    assert read_table(tmp_path / "plain.parquet", bbox=box).equals(expected)
