"""The verb: which rows it writes, what it says about them, and that it writes all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from publish_support import LATLON, OTHER, SPACE, UTM, item_of, opener, reader_of

from stac_latent.catalog.publish.publish import publish
from stac_latent.catalog.publish.recipe import Recipe
from stac_latent.catalog.publish.rows import Cut, rows_of
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.index.nearest import nearest
from stac_latent.spec import Grid
from stac_latent.store.geoparquet.hilbert import hilbert_keys
from stac_latent.store.geoparquet.writer import read_embeddings, read_table, vectors
from stac_latent.validation import validate

SCHEMAS = Path(__file__).parents[3] / "shared" / "schemas"
NEIGHBOUR = Grid("EPSG:32633", (10, 0, 499_980 + 3200, 0, -10, 5_300_040), (240, 320), (8, 8))


def one(
    tmp_path: Path, reader=None, dest="v.parquet", **options
) -> tuple[pystac.Item, dict[tuple[int, int], np.ndarray]]:
    """Publish one Item; the Item and the vectors by (row, col)."""
    reader = reader or reader_of()
    item = publish(
        item_of("a", reader), tmp_path / dest, reader=opener(a=reader), **({"dtype": "float32"} | options)
    )
    table = read_table(tmp_path / dest)
    return item, dict(
        zip(zip(*(table[c].to_pylist() for c in ("row", "col")), strict=True), vectors(table), strict=True)
    )


# -- rows ------------------------------------------------------------------------------------------------------


def test_one_row_for_each_cell(tmp_path):
    reader = reader_of()
    _, got = one(tmp_path, reader)
    assert len(got) == 30 * 40
    for (row, col), vector in got.items():
        assert np.array_equal(vector, reader.latent[:, row, col])


def test_columns_of_a_row(tmp_path):
    reader = reader_of()
    reader.share[3, 5] = 0.25
    one(tmp_path, reader)
    frame = read_embeddings(tmp_path / "v.parquet").set_index("id")
    row = frame.loc["a/3/5"]
    assert (row["item_id"], row["collection"], row["row"], row["col"], row["valid"]) == (
        "a",
        "scenes",
        3,
        5,
        0.25,
    )
    assert row["datetime"] == datetime(2024, 5, 17, 10, 20, 31, tzinfo=UTC)
    assert frame.index.is_unique


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("by", ["cell", "patch", "item"])
def test_a_share_is_at_least_itself(tmp_path, by, share):
    """Shares are float32, in which 0.9 is a little less than in float64: rows are kept, and found again by the same limit."""
    reader = reader_of()
    reader.share[:] = np.float32(share)
    item, _ = one(tmp_path, reader, by=by, patch=(3, 4), min_valid=share, dtype="float32")
    rows = item.properties["table:row_count"]
    assert rows == {"cell": 30 * 40, "patch": 10 * 10, "item": 1}[by]
    assert len(nearest(tmp_path / "v.parquet", np.ones(6), 9999, min_valid=share)) == rows


def test_cells_without_data_are_dropped_and_min_valid_asks_for_more(tmp_path):
    reader = reader_of()
    reader.share[:10] = 0
    reader.share[10:20] = 0.4
    _, got = one(tmp_path, reader)
    assert {r for r, _ in got} == set(range(10, 30))
    _, got = one(tmp_path, reader, min_valid=0.5)
    assert {r for r, _ in got} == set(range(20, 30))


def test_order_is_hilbert_over_all_items(tmp_path):
    readers = {"a": reader_of(UTM), "b": reader_of(NEIGHBOUR, seed=1), "c": reader_of(LATLON, seed=2)}
    items = [item_of(n, r) for n, r in readers.items()]
    publish(items, tmp_path / "v.parquet", reader=opener(**readers), row_group_bytes=64 << 10)
    table = pq.read_table(tmp_path / "v.parquet", columns=["item_id", "geometry"])
    bounds = shapely.bounds(shapely.from_wkb(table["geometry"].to_numpy()))
    assert (np.diff(hilbert_keys(bounds).astype(object)) >= 0).all()
    near = np.array(table["item_id"].to_pylist()) != "c"
    centre = np.stack([bounds[near, 0] + bounds[near, 2], bounds[near, 1] + bounds[near, 3]], axis=1) / 2
    path = np.linalg.norm(np.diff(centre, axis=0), axis=1).sum()
    lines = centre[np.lexsort((centre[:, 0], np.round(centre[:, 1], 4)))]
    assert path < 0.75 * np.linalg.norm(np.diff(lines, axis=0), axis=1).sum()
    window = 64  # neighbours in the file are neighbours on the ground
    spread = [np.ptp(centre[i : i + window], axis=0).max() for i in range(0, len(centre) - window, window)]
    assert np.median(spread) < 0.25 * np.ptp(centre, axis=0).max()


def test_small_row_groups_hold_the_rows_of_one(tmp_path):
    reader = reader_of()
    item = item_of("a", reader)
    for name, size in (("one", 64 << 20), ("many", 32 << 10)):
        publish(item, tmp_path / f"{name}.parquet", reader=opener(a=reader), row_group_bytes=size)
    one_, many = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("one", "many"))
    assert one_.equals(many)
    assert pq.ParquetFile(tmp_path / "many.parquet").num_row_groups > 3


def test_latents_larger_than_a_tile_are_read_in_tiles():
    big = Grid("EPSG:32633", (10, 0, 499_980, 0, -10, 5_300_040), (150, 70), (1, 1))
    reader = reader_of(big, 6)
    got = {}
    for rows in rows_of(reader, Cut(), tile_bytes=6 * 4 * 64 * 64):
        got |= dict(zip(zip(rows.row, rows.col, strict=True), rows.values, strict=True))
    assert len(reader.windows) == 6
    assert max((y1 - y0) * (x1 - x0) for (y0, y1), (x0, x1) in reader.windows) <= 64 * 64
    assert len(got) == 150 * 70
    assert all(np.array_equal(v, reader.latent[:, r, c]) for (r, c), v in got.items())


# -- pooling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "fold"), [("mean", np.mean), ("max", np.max), ("min", np.min)])
@pytest.mark.parametrize("grid", [UTM, LATLON])
def test_patches_equal_a_loop(tmp_path, grid, pool, fold):
    reader = reader_of(grid)
    reader.share[2:9, 1:7] = 0
    reader.share[9, 3] = 0.5
    _, got = one(tmp_path, reader, by="patch", patch=(4, 3), pool=pool)
    ny, nx = grid.cells
    seen = set()
    for (row, col), vector in got.items():
        y, x = slice(max(0, row), min(ny, row + 4)), slice(max(0, col), min(nx, col + 3))
        valid = reader.share[y, x] > 0
        assert np.allclose(vector, fold(reader.latent[:, y, x][:, valid], axis=1), atol=1e-6)
        seen |= {
            (i, j) for i in range(y.start, y.stop) for j in range(x.start, x.stop) if reader.share[i, j] > 0
        }
    assert len(seen) == (reader.share > 0).sum()


def test_patches_of_neighbouring_scenes_coincide(tmp_path):
    """Scenes that begin at different cells of one lattice cut it at the same places."""
    shifted = Grid("EPSG:32633", (10, 0, 499_980 + 240, 0, -10, 5_300_040 - 80), (160, 160), (8, 8))
    zone = Grid("EPSG:32633", (10, 0, 480_000, 0, -10, 5_300_000), (240, 320), (8, 8))
    moved = Grid("EPSG:32633", (10, 0, 480_000 + 240, 0, -10, 5_300_000 - 80), (160, 160), (8, 8))
    for first, second, same in ((zone, moved, True), (UTM, shifted, False)):
        readers = {"a": reader_of(first), "b": reader_of(second)}
        items = [item_of(n, r) for n, r in readers.items()]
        publish(items, tmp_path / "v.parquet", by="patch", patch=(4, 4), reader=opener(**readers))
        frame = read_embeddings(tmp_path / "v.parquet", ["item_id", "row", "col", "valid"])
        a, b = (set(frame[frame["item_id"] == n].geometry.to_wkb()) for n in ("a", "b"))
        assert bool(a & b) == same
        if same:
            assert b <= a
            edge = frame[(frame["item_id"] == "b") & (frame["col"] < 0)]
            assert len(edge)
            assert (edge["valid"] < 1).all()


def test_valid_share_of_a_patch_counts_all_its_pixels(tmp_path):
    aligned = Grid("EPSG:32633", (10, 0, 480_000, 0, -10, 5_300_160), (160, 160), (8, 8))
    reader = reader_of(aligned)
    reader.share[:2, :4] = 0
    reader.share[2, :4] = 0.5
    one(tmp_path, reader, by="patch", patch=(4, 4))
    frame = read_embeddings(tmp_path / "v.parquet").set_index(["row", "col"])
    first = min(frame.index)
    want = np.pad(reader.share, [(-first[0], 0), (-first[1], 0)])[:4, :4].mean()
    assert frame.loc[first, "valid"] == pytest.approx(want)


@pytest.mark.parametrize(("pool", "fold"), [("mean", np.mean), ("max", np.max), ("min", np.min)])
def test_items_are_pooled_over_valid_cells(tmp_path, pool, fold):
    grid = Grid("EPSG:32633", (10, 0, 499_980, 0, -10, 5_300_040), (1200, 1600), (8, 8))
    reader = reader_of(grid)
    reader.share[:70] = 0
    reader.share[:, 140:] = 0
    item, got = one(tmp_path, reader, by="item", pool=pool)
    assert list(got) == [(70, 0)]
    assert np.allclose(got[70, 0], fold(reader.latent[:, 70:, :140], axis=(1, 2)), atol=1e-5)
    frame = read_embeddings(tmp_path / "v.parquet")
    assert frame["valid"][0] == pytest.approx(80 * 140 / (150 * 200))
    assert item.assets["embeddings"].extra_fields["latent:granularity"] == "scene"
    back = frame.to_crs("EPSG:32633").geometry[0]
    assert back.bounds == pytest.approx(
        (499_980, 5_300_040 - 12_000, 499_980 + 11_200, 5_300_040 - 5600), abs=0.5
    )


# -- selection ---------------------------------------------------------------------------------------------------


def test_a_box_publishes_the_cells_it_overlaps_and_reads_no_others(tmp_path):
    reader = reader_of()
    one(tmp_path, reader, dest="all.parquet")
    reader.windows.clear()
    box = (15.010, 47.840, 15.0201, 47.8455)
    _, got = one(tmp_path, reader, bbox=box)
    frame = read_embeddings(tmp_path / "all.parquet", ["row", "col"])
    hit = frame[shapely.area(shapely.intersection(frame.geometry.values, shapely.box(*box))) > 0]
    assert set(got) == set(zip(hit["row"], hit["col"], strict=True))
    (window,) = reader.windows
    assert (window[0][1] - window[0][0]) * (window[1][1] - window[1][0]) < 1.6 * len(got)


def test_a_geometry_selects_too(tmp_path):
    triangle = shapely.Polygon([(15.0, 47.835), (15.02, 47.835), (15.0, 47.85)])
    _, from_shape = one(tmp_path, intersects=triangle)
    _, from_json = one(tmp_path, intersects=json.loads(shapely.to_geojson(triangle)))
    assert set(from_shape) == set(from_json)
    frame = read_embeddings(tmp_path / "v.parquet")
    assert frame.intersects(triangle).all()
    assert 0.4 < len(frame) / len(frame.clip(triangle.envelope)) <= 1


def test_an_item_pools_the_selected_cells(tmp_path):
    reader = reader_of()
    box = (15.010, 47.840, 15.020, 47.845)
    _, cells = one(tmp_path, reader, bbox=box)
    _, pooled = one(tmp_path, reader, bbox=box, by="item")
    assert np.allclose(next(iter(pooled.values())), np.mean(list(cells.values()), axis=0), atol=1e-6)


def test_a_box_with_cell_edges_on_its_own_takes_no_neighbours(tmp_path):
    exact = Grid("EPSG:4326", (0.125, 0, 10.0, 0, -0.125, 50.0), (40, 40), (2, 2))
    _, got = one(tmp_path, reader_of(exact), bbox=(10.5, 49.0, 11.0, 49.5))
    assert set(got) == {(2, 2), (2, 3), (3, 2), (3, 3)}


# -- vectors and their space -------------------------------------------------------------------------------------


def test_channels_and_standardising(tmp_path):
    reader = reader_of()
    stats = reader.codec.stats
    _, first = one(tmp_path, reader, channels=2)
    _, chosen = one(tmp_path, reader, channels=[5, 0])
    _, standard = one(tmp_path, reader, standardise=True, channels=[3])
    for (r, c), v in first.items():
        x = reader.latent[:, r, c]
        assert np.array_equal(v, x[:2])
        assert np.array_equal(chosen[r, c], x[[5, 0]])
        assert np.allclose(standard[r, c], [(x[3] - stats.mean[3]) / stats.std[3]])


def test_a_space_is_kept_only_by_comparable_vectors(tmp_path):
    def space(**options):
        item, _ = one(tmp_path, **options)
        assert item.properties["latent:spaces"] == [item.assets["embeddings"].extra_fields["latent:space"]]
        return item.properties["latent:spaces"][0]

    assert {
        space(),
        space(by="patch"),
        space(by="item"),
        space(channels=6),
        space(pool="max"),
        space(dtype="int8"),
    } == {SPACE}
    made = [
        space(channels=3),
        space(channels=[2, 1, 0]),
        space(standardise=True),
        space(standardise=True, channels=3),
        space(by="patch", pool="max"),
        space(by="item", pool="min"),
    ]
    assert len({*made, SPACE}) == 7
    assert space(channels=3) == made[0]
    assert all(len(s) == 71 and s.startswith("sha256:") for s in made)


@settings(deadline=None)
@given(channels=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
def test_recipe_says_how_a_query_is_made(channels):
    reader = reader_of()
    recipe = Recipe.of(reader.spec, reader.codec.stats, channels)
    told = json.loads(json.dumps(recipe.to_dict()))
    latent = reader.latent[:, :3, 4].T
    query = (latent - np.float32(told["mean"])) / np.float32(told["std"])
    kept = told.get("channels", range(6))
    assert np.allclose(recipe.apply(latent), query[:, list(kept)], atol=1e-6)
    assert told["source_space"] == SPACE


def test_footers_say_what_the_item_says(tmp_path):
    item, _ = one(tmp_path, by="patch", patch=(2, 3), pool="max", dtype="int8", channels=4)
    keys = pq.ParquetFile(tmp_path / "v.parquet").metadata.metadata
    latent, emb = json.loads(keys[b"latent"]), json.loads(keys[b"emb"])
    how = latent.pop("publish")
    fields = item.assets["embeddings"].extra_fields
    assert latent == {k: v for k, v in fields.items() if not k.startswith("file:")}
    assert how == item.properties["processing:expression"]["expression"]
    assert 0.9 < how.pop("recall_at_10") <= 1
    assert how.pop("recall_rows") == item.properties["table:row_count"]
    assert how == {
        "by": "patch",
        "patch": [2, 3],
        "pool": "max",
        "source_space": SPACE,
        "channels": [0, 1, 2, 3],
    }
    assert latent["latent:quantization"] == "per_vector"
    assert latent["latent:stride"] == [16, 24]
    assert (emb["emb:type"], emb["emb:dimensions"], emb["data_type"]) == ("chip", 4, "int8")
    assert emb["emb:chip_layout"]["chip_size"] == [16, 24]
    assert emb["emb:quantization"]["quantized_dtype"] == "int8"


# -- the Item ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the folder of published schemas is absent")
@pytest.mark.parametrize(
    "options", [{}, {"dtype": "int8"}, {"by": "item", "standardise": True}, {"by": "patch"}]
)
def test_item_is_valid_stac(tmp_path, options):
    one(tmp_path, **options)
    assert validate(tmp_path / "v.parquet.json", SCHEMAS) == []


def test_item_describes_the_table(tmp_path):
    made, _ = one(tmp_path, dtype="int8")
    item = pystac.Item.from_file(tmp_path / "v.parquet.json")
    assert item.to_dict() == made.to_dict()
    asset = item.assets["embeddings"]
    assert Path(asset.get_absolute_href()) == tmp_path / "v.parquet"
    data = (tmp_path / "v.parquet").read_bytes()
    assert asset.extra_fields["file:size"] == len(data)
    assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
    assert (asset.media_type, asset.roles) == ("application/vnd.apache.parquet", ["data", "latent"])
    schema = pq.read_schema(tmp_path / "v.parquet")
    assert [c["name"] for c in item.properties["table:columns"]] == schema.names
    assert all(c["type"] and c["description"] for c in item.properties["table:columns"])
    assert item.properties["table:row_count"] == 1200
    assert item.properties["table:primary_geometry"] == "geometry"
    assert asset.extra_fields["latent:shape"] == [1200, 6]
    assert {link.rel: link.href for link in item.links if link.rel != "self"} == {
        "derived_from": "https://example.com/items/a.json",
        "latent:encoder": "https://example.com/codecs/aaaa.json",
        "latent:decoder": "https://example.com/codecs/aaaa.json",
    }


def test_pooled_vectors_have_an_encoder_and_no_decoder(tmp_path):
    for options in ({"by": "patch"}, {"channels": 3}, {"standardise": True}):
        item, _ = one(tmp_path, **options)
        (link,) = item.get_links("latent:encoder")
        assert link.extra_fields["latent:space"] == SPACE
        assert not item.get_links("latent:decoder")


def test_local_hrefs_are_relative(tmp_path):
    reader = reader_of()
    item = item_of("a", reader)
    item.set_self_href(str(tmp_path / "catalog" / "a" / "a.json"))
    publish(item, tmp_path / "tables" / "v.parquet", reader=opener(a=reader))
    links = json.loads((tmp_path / "tables" / "v.parquet.json").read_text())["links"]
    assert next(k["href"] for k in links if k["rel"] == "derived_from") == "../catalog/a/a.json"
    assert not [k for k in links if k["rel"] == "self"]


def test_extent_in_time_and_space(tmp_path):
    readers = {"a": reader_of(UTM), "b": reader_of(NEIGHBOUR), "c": reader_of(LATLON)}
    readers["c"].share[:] = 0
    days = [datetime(2024, 5, d, tzinfo=UTC) for d in (3, 1, 9)]
    items = [item_of(n, r, t) for (n, r), t in zip(readers.items(), days, strict=True)]
    item = publish(items, tmp_path / "v.parquet", reader=opener(**readers))
    assert item.datetime is None
    assert item.properties["start_datetime"] == "2024-05-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2024-05-03T00:00:00Z", "the third item gave no rows"
    assert [k.title for k in item.get_links("derived_from")] == ["a", "b"]
    frame = read_embeddings(tmp_path / "v.parquet")
    assert item.bbox == pytest.approx(frame.total_bounds, abs=1e-5)
    hull = shapely.geometry.shape(item.geometry)
    assert hull.area == pytest.approx(frame.union_all().area, rel=5e-3)


def test_a_period_counts_from_its_start(tmp_path):
    reader = reader_of()
    item = item_of("a", reader)
    item.datetime = None
    item.properties |= {
        "datetime": None,
        "start_datetime": "2023-01-01T00:00:00Z",
        "end_datetime": "2023-12-31T00:00:00Z",
    }
    made = publish(item, tmp_path / "v.parquet", reader=opener(a=reader))
    assert read_embeddings(tmp_path / "v.parquet")["datetime"].unique().tolist() == [
        datetime(2023, 1, 1, tzinfo=UTC)
    ]
    assert made.properties["start_datetime"] == "2023-01-01T00:00:00Z"
    assert made.properties["end_datetime"] == "2023-12-31T00:00:00Z"


def test_extent_across_the_antimeridian(tmp_path):
    grid = Grid("EPSG:32701", (1000, 0, 100_000, 0, -1000, 8_300_000), (200, 200), (4, 4))
    item, _ = one(tmp_path, reader_of(grid))
    west, south, east, north = item.bbox
    assert 178 < west < 180
    assert -180 < east < -177
    assert -18 < south < north < -15
    assert item.geometry["type"] == "MultiPolygon"
    geo = json.loads(pq.ParquetFile(tmp_path / "v.parquet").metadata.metadata[b"geo"])["columns"]["geometry"]
    assert geo["geometry_types"] == ["Polygon", "MultiPolygon"]
    box = read_embeddings(tmp_path / "v.parquet", bbox=(179.9, -18, -179.9, -15))
    assert 0 < len(box) < 2500


# -- refusals --------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, items, message: str, error=CatalogError, **options) -> None:
    with pytest.raises(error, match=message):
        publish(items, tmp_path / "v.parquet", **options)
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_mixed_spaces_are_refused_and_named(tmp_path):
    readers = {"a": reader_of(), "b": reader_of(space=OTHER), "c": reader_of()}
    items = [item_of(n, r) for n, r in readers.items()]
    message = rf"vectors of 2 latent spaces cannot be compared.*{SPACE}: 'a', 'c'; {OTHER}: 'b'\); publish each space to a file"
    refused(tmp_path, items, message, reader=opener(**readers))
    assert not readers["a"].windows


def test_which_asset(tmp_path):
    reader = reader_of()
    plain, several = item_of("a", reader), item_of("b", reader)
    del plain.assets["latent"]
    several.assets["embedding"] = several.assets["latent"].clone()
    refused(tmp_path, plain, r"item 'a' has no latent asset; its assets: red; encode it first")
    refused(
        tmp_path, several, r"item 'b' has several latent assets \(latent, embedding\); choose with asset="
    )
    refused(
        tmp_path,
        several,
        r"item 'b' has no latent asset 'red'; its latent assets: latent, embedding",
        asset="red",
    )
    publish(several, tmp_path / "v.parquet", asset="embedding", reader=opener(b=reader))
    assert len(read_table(tmp_path / "v.parquet")) == 1200


def test_a_published_table_is_not_published_again(tmp_path):
    table, _ = one(tmp_path)
    with pytest.raises(CatalogError, match="item 'v' has no latent asset; its assets: embeddings"):
        publish(table, tmp_path / "w.parquet")


def test_wrong_items(tmp_path):
    reader = reader_of()
    refused(tmp_path, [], "nothing to publish: no items were given")
    refused(tmp_path, ["a.json"], r"expected pystac Items, got str; read one with pystac\.Item\.from_file")
    refused(
        tmp_path,
        [item_of("a", reader)] * 2,
        "several items are named 'a', and rows are identified by the item's name",
    )


def test_nothing_left_to_publish(tmp_path):
    reader = reader_of()
    item = item_of("a", reader)
    refused(
        tmp_path,
        item,
        "no cell of 1 items overlaps the region holds valid pixels",
        bbox=(0, 0, 1, 1),
        reader=opener(a=reader),
    )
    reader.share[:] = 0.3
    refused(
        tmp_path,
        item,
        r"no patch of 1 items holds valid pixels \(at least 0\.5 of them\); widen",
        by="patch",
        min_valid=0.5,
        reader=opener(a=reader),
    )
    refused(
        tmp_path,
        item,
        "no item of 1 items holds valid pixels",
        by="item",
        min_valid=0.5,
        reader=opener(a=reader),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "tile"}, "by='tile' is unknown; one row is made by 'cell', 'patch', 'item'"),
        ({"pool": "median"}, "pool='median' is unknown; vectors are pooled by 'mean', 'max', 'min'"),
        ({"patch": (0, 4)}, r"patch=\(0, 4\) is no size; it is \(y, x\) in cells"),
        ({"min_valid": 50}, "min_valid=50 is no share; it is between 0 and 1"),
        (
            {"bbox": (1, 2, 3)},
            r"bbox must be 4 numbers .west, south, east, north. or 6 with heights, got 3: \(1, 2, 3\)",
        ),
        (
            {"bbox": (0, 50, 10, 40)},
            r"bbox has south 50 above north 40; the order is west, south, east, north, got \(0, 50, 10, 40\)",
        ),
        ({"bbox": (499980, 5e6, 500980, 5.1e6)}, "is not west, south, east, north in degrees"),
        ({"bbox": (0, 0, 1, 1), "intersects": {}}, "bbox and intersects were both given; choose one"),
        ({"intersects": {"type": "Blob"}}, "is neither GeoJSON nor a shapely geometry"),
        (
            {"channels": 7},
            r"channels=7 cannot be taken from 6; give how many of the first, or different positions from 0 to 5",
        ),
        ({"channels": 0}, "channels=0 cannot be taken from 6"),
        ({"channels": [1, 1]}, r"channels=\[1, 1\] cannot be taken from 6"),
        ({"dtype": "float64"}, "cannot store vectors as 'float64'"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    reader = reader_of()
    refused(tmp_path, item_of("a", reader), message, reader=opener(a=reader), **options)


def test_bad_destinations(tmp_path):
    item = item_of("a", reader_of())
    for dest, message in (
        ("s3://bucket/v.parquet", "cannot write to s3://bucket/v.parquet: dest is a local path"),
        (tmp_path, "dest is the path of a file, such as 'vectors.parquet'"),
        (tmp_path / "v", "dest is the path of a file"),
        (tmp_path / "v.json", "dest is the path of a file"),
    ):
        with pytest.raises(CatalogError, match=message):
            publish(item, dest)
    assert not list(tmp_path.iterdir())


def test_standardising_needs_statistics(tmp_path):
    reader = reader_of()
    reader.codec.stats = None
    message = (
        f"cannot standardise: the codec of space {SPACE} states no statistics.*publish with standardise=False"
    )
    refused(tmp_path, item_of("a", reader), message, standardise=True, reader=opener(a=reader))


# -- all or nothing --------------------------------------------------------------------------------------------------


def test_a_latent_that_fails_half_way_leaves_nothing(tmp_path):
    good, bad = reader_of(), reader_of()

    def fail(cells=None):
        raise CorruptDataError("chunk c/0/0/0 is truncated")

    bad.read_latent = fail
    refused(
        tmp_path,
        [item_of("a", good), item_of("b", bad)],
        "chunk c/0/0/0 is truncated",
        CorruptDataError,
        reader=opener(a=good, b=bad),
        row_group_bytes=32 << 10,
    )


def test_a_store_that_cannot_be_read_is_named(tmp_path):
    reader = reader_of()

    def fail(cells=None):
        raise TimeoutError("store does not answer")

    reader.read_latent = fail
    message = "could not read the latent of item 'a' .store does not answer.; nothing was written"
    refused(tmp_path, item_of("a", reader), message, reader=opener(a=reader))


@pytest.mark.parametrize("fails", ["v.parquet", "v.parquet.json"])
def test_a_rename_that_fails_restores_what_was_there(tmp_path, monkeypatch, fails):
    reader = reader_of()
    item = item_of("a", reader)
    publish(item, tmp_path / "v.parquet", reader=opener(a=reader))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    rename = Path.replace

    def replace(self, target):
        if Path(target).name == fails and self.suffix != ".old":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(
        CatalogError,
        match=r"could not write .*v\.parquet .*No space left on device.*nothing was changed there",
    ):
        publish(item, tmp_path / "v.parquet", by="patch", reader=opener(a=reader))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


LIMITED = """
import resource, signal, sys
from publish_support import item_of, opener, reader_of
from stac_latent.catalog.publish.publish import publish
from stac_latent.errors import CatalogError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
reader = reader_of(dimensions=64)
try:
    publish(item_of("a", reader), sys.argv[1], reader=opener(a=reader), row_group_bytes=int(sys.argv[3]))
except CatalogError as exc:
    print(exc)
"""


@pytest.mark.parametrize(("limit", "group"), [(60_000, 64 << 20), (10_000, 64 << 10)])
def test_a_full_disk_leaves_nothing(tmp_path, limit, group):
    """Writing really fails: in the table, and in a sorted run before it."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    }
    dest = tmp_path / "out" / "v.parquet"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(dest), str(limit), str(group)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"could not write {dest}" in done.stdout
    assert "nothing was changed there" in done.stdout
    assert list(dest.parent.iterdir()) == []


def test_progress_counts_items(tmp_path):
    readers = {"a": reader_of(), "b": reader_of(NEIGHBOUR)}
    calls: list[tuple[str, int, int]] = []
    publish(
        (item_of(n, r) for n, r in readers.items()),
        tmp_path / "v.parquet",
        reader=opener(**readers),
        progress=lambda *c: calls.append(c),
    )
    assert calls == [("publish", 1, 2), ("publish", 2, 2)]


# -- the whole line --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> dict[str, pystac.Item]:
    """The Sentinel-2 sample, encoded for real: as a codec's latent and as an embedding."""
    pytest.importorskip("spyndex", reason="the sample comes from the spyndex wheel")
    from stac_latent.catalog.encode.encode import encode
    from stac_latent.catalog.sample import sample_item

    folder = tmp_path_factory.mktemp("line")
    raw = sample_item(folder / "raw")
    out = {}
    for key, codec in (("latent", "s2-10m-4b"), ("embedding", "s2-10m-embed")):
        (out[key],) = encode(raw, codec, folder / key, asset=key)
    return out


@pytest.mark.parametrize("key", ["latent", "embedding"])
def test_published_cells_are_what_the_reader_gives(tmp_path, encoded, key):
    from stac_latent.cube.read.reader import LatentReader

    item = encoded[key]
    made = publish(item, tmp_path / "v.parquet", dtype="float32")
    reader = LatentReader.open(item, key)
    latent, share = reader.read_latent(), reader.read_valid_share()
    table = read_table(tmp_path / "v.parquet")
    row, col = (table[c].to_numpy() for c in ("row", "col"))
    assert len(table) == np.isfinite(latent[0]).sum() > 1000
    assert np.array_equal(vectors(table), latent[:, row, col].T)
    assert np.array_equal(table["valid"].to_numpy(), share[row, col])
    source = item.assets[key].extra_fields
    assert made.properties["latent:spaces"] == [source["latent:space"]]
    (link,) = made.get_links("latent:encoder")
    document = Path(link.get_absolute_href())
    assert link.extra_fields["file:checksum"] == "1220" + hashlib.sha256(document.read_bytes()).hexdigest()
    (origin,) = made.get_links("derived_from")
    assert Path(origin.get_absolute_href()) == Path(item.get_self_href())
    if SCHEMAS.is_dir():
        assert validate(tmp_path / "v.parquet.json", SCHEMAS) == []


@pytest.mark.parametrize("key", ["latent", "embedding"])
def test_real_latents_standardise_with_their_codec(tmp_path, encoded, key):
    publish(encoded[key], tmp_path / "v.parquet", standardise=True, by="patch", patch=(2, 2), dtype="int8")
    found = vectors(read_table(tmp_path / "v.parquet"))
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 100
    assert 0.05 < np.median(found.std(axis=0)) < 10
