"""The container: order, sorting beyond memory, and what each reader sees."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import duckdb
import geopandas
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.store.geoparquet.external_sort import KEY, ExternalSort
from stac_latent.store.geoparquet.hilbert import hilbert_index, hilbert_keys
from stac_latent.store.geoparquet.writer import EmbeddingsWriter, read_embeddings, read_table, vectors

WHEN = datetime(2024, 5, 17, 10, 20, 31, tzinfo=UTC)
SIDE = 64


def write(
    folder,
    dtype="float32",
    *,
    dimensions=16,
    side=SIDE,
    group=1 << 20,
    values=None,
    west=10.0,
    step=0.01,
    **options,
):
    """A lattice of side x side boxes, appended row by row of boxes; returns the path and the vectors by id."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    writer = EmbeddingsWriter(work, dimensions, dtype, row_group_bytes=group, **options)
    rng = np.random.default_rng(1)
    if values is None:
        values = rng.normal(size=(side, side, dimensions)).astype(np.float32)
    for y in range(side):
        x = np.arange(side)
        boxes = shapely.box(west + x * step, 50 - y * step, west + (x + 1) * step, 50 - (y - 1) * step)
        writer.append(
            "scene",
            "c",
            WHEN,
            row=np.full(side, y),
            col=x,
            valid=np.ones(side),
            values=values[y],
            geometry=boxes,
        )
    path = folder / f"{dtype}.parquet"
    info = writer.finish(
        path, {"latent": {"latent:dimensions": dimensions}, "emb": {"emb:dimensions": dimensions}}
    )
    return path, {f"scene/{y}/{x}": values[y, x] for y in range(side) for x in range(side)}, info


def expected(values: np.ndarray, dtype: str) -> np.ndarray:
    """What a reader of the stored column must see, in float64, before int8 is multiplied out."""
    if dtype == "int8":
        scale = np.abs(values).max() / np.float32(127)
        return np.rint(values / scale)
    return values.astype(dtype).astype(np.float64)


# -- order -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 5])
def test_hilbert_visits_every_cell_once_in_steps_of_one(level):
    y, x = np.mgrid[0 : 2**level, 0 : 2**level]
    index = hilbert_index(x.ravel(), y.ravel(), level)
    assert sorted(index.tolist()) == list(range(4**level))
    order = np.argsort(index)
    steps = np.abs(np.diff(x.ravel()[order])) + np.abs(np.diff(y.ravel()[order]))
    assert (steps == 1).all()


def test_hilbert_refines_itself():
    """A finer curve visits the cells of a coarser one in the same order, but for a turn of the square."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2**20, (2, 500))
    fine, coarse = hilbert_index(x, y, 20), hilbert_index(x >> 2, y >> 2, 18)
    assert np.array_equal(fine >> np.uint64(4), coarse)


def test_keys_of_boxes_at_the_corners_of_the_earth():
    corners = np.array([[-180, -90, -180, -90], [180, 90, 180, 90], [-180, 0, 180, 1]], float)
    keys = hilbert_keys(corners)
    assert keys[0] == 0
    assert len(set(keys.tolist())) == 3


# -- sorting ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    keys=st.lists(
        st.lists(st.integers(0, 5) | st.integers(0, 2**64 - 1), min_size=1, max_size=20),
        min_size=1,
        max_size=8,
    ),
    limit=st.sampled_from([1, 100, 10_000_000]),
    size=st.integers(1, 40),
)
def test_spool_is_a_stable_sort(tmp_path_factory, keys, limit, size):
    spool = ExternalSort(tmp_path_factory.mktemp("runs"), limit)
    number = 0
    for batch in keys:
        ids = np.arange(number, number + len(batch))
        spool.append(pa.table({"id": ids}), np.array(batch, np.uint64))
        number += len(batch)
    parts = list(spool.drain(size))
    flat = np.array([k for batch in keys for k in batch], np.uint64)
    assert [i for p in parts for i in p["id"].to_pylist()] == np.argsort(flat, kind="stable").tolist()
    assert [len(p) for p in parts[:-1]] == [size] * (len(parts) - 1)
    assert parts[0].column_names == ["id", KEY]


def test_spool_holds_little_of_many_rows(tmp_path):
    spool = ExternalSort(tmp_path, 1 << 20)
    rng = np.random.default_rng(0)
    base, peak = pa.total_allocated_bytes(), 0
    for _ in range(200):
        keys = rng.integers(0, 2**64, 10_000, np.uint64)
        spool.append(pa.table({"key": keys, "more": keys}), keys)
        peak = max(peak, pa.total_allocated_bytes() - base)
    last, rows = 0, 0
    for part in spool.drain(50_000):
        peak = max(peak, pa.total_allocated_bytes() - base)
        assert part["key"][0].as_py() >= last
        last, rows = part["key"][-1].as_py(), rows + len(part)
        del part
    assert rows == 2_000_000
    assert spool.nbytes == 48_000_000
    assert peak < 4 << 20


def test_a_table_of_many_runs_equals_one_of_a_single_run(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, _, info_one = write(tmp_path / "a", group=64 << 20, memory=16 << 10)
    many, _, info_many = write(tmp_path / "b", group=32 << 10, memory=16 << 10)
    assert info_one.row_groups == 1
    assert info_many.row_groups > 15
    assert len(list((tmp_path / "b" / "work").glob("run*.arrow"))) > 15
    assert not list((tmp_path / "a" / "work").iterdir())
    assert pq.read_table(one).equals(pq.read_table(many))


# -- what readers see --------------------------------------------------------------------------------------------


def by_pyarrow(path):
    table = pq.read_table(path)
    return table["id"].to_pylist(), np.array(table["vector"].to_pylist(), np.float64)


def by_geopandas(path):
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert frame.geometry.iloc[0].geom_type == "Polygon"
    return frame["id"].tolist(), np.stack(frame["vector"]).astype(np.float64)


def by_polars(path):
    frame = pl.read_parquet(path)
    assert isinstance(frame.schema["vector"], pl.Array)
    return frame["id"].to_list(), np.array(frame["vector"].to_list(), np.float64)


def by_duckdb(path):
    rows = duckdb.read_parquet(str(path)).select("id", "vector").fetchall()
    return [r[0] for r in rows], np.array([r[1] for r in rows], np.float64)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
@pytest.mark.parametrize("read", [by_pyarrow, by_geopandas, by_polars, by_duckdb])
def test_every_reader_sees_the_same(tmp_path, dtype, read):
    path, values, _ = write(tmp_path, dtype, side=16, group=64 << 10)
    ids, got = read(path)
    assert len(ids) == 256
    assert set(ids) == set(values)
    assert np.array_equal(got, np.array([expected(values[i], dtype) for i in ids]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_own_reader_gives_float32_and_the_footer(tmp_path, dtype):
    path, values, _ = write(tmp_path, dtype, side=16)
    frame = read_embeddings(path)
    assert frame.crs == "OGC:CRS84"
    assert frame.attrs["latent"] == {"latent:dimensions": 16}
    assert "scale" not in frame.columns
    bound = {"float32": 0, "float16": 2e-3, "int8": 2e-2}[dtype]
    for name, vector in zip(frame["id"], frame["vector"], strict=True):
        assert vector.dtype == np.float32
        assert np.abs(vector - values[name]).max() <= bound


def test_int8_error_is_half_a_step_of_each_vector(tmp_path):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(8, 8, 16)).astype(np.float32) * 10.0 ** rng.integers(-3, 5, (8, 8, 1)).astype(
        np.float32
    )
    values[0, 0] = 0
    path, _, _ = write(tmp_path, "int8", side=8, values=values)
    table = read_table(path, ["id", "vector", "scale"])
    want = np.array([values[int(i.split("/")[1]), int(i.split("/")[2])] for i in table["id"].to_pylist()])
    assert (np.abs(vectors(table) - want) <= table["scale"].to_numpy()[:, None] * 0.5001).all()
    assert vectors(table)[table["id"].to_pylist().index("scene/0/0")].tolist() == [0.0] * 16


def test_columns_are_chosen_and_scale_follows_the_vector(tmp_path):
    path, _, _ = write(tmp_path, "int8", side=8)
    assert list(read_embeddings(path, ["vector"]).columns) == ["vector", "geometry"]
    assert list(read_embeddings(path, ["id"]).columns) == ["id", "geometry"]
    assert read_table(path, ["row", "scale"]).column_names == ["row", "scale"]


# -- layout ----------------------------------------------------------------------------------------------------


def test_row_groups_are_cut_by_bytes(tmp_path):
    path, _, info = write(tmp_path, "float32", group=128 << 10)
    meta = pq.ParquetFile(path).metadata
    sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    assert meta.num_row_groups == info.row_groups > 5
    assert len(set(sizes[:-1])) == 1
    assert 0.5 < sizes[0] * pq.read_table(path).nbytes / SIDE**2 / (128 << 10) <= 1.0


@pytest.mark.parametrize(
    ("dtype", "encoding"),
    [("float16", "PLAIN"), ("float32", "BYTE_STREAM_SPLIT"), ("int8", "RLE_DICTIONARY")],
)
def test_encodings_and_compression(tmp_path, dtype, encoding):
    path, _, _ = write(tmp_path, dtype, side=16)
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert encoding in columns["vector.list.element"].encodings
    assert ("RLE_DICTIONARY" in columns["vector.list.element"].encodings) == (dtype == "int8")
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert columns["bbox.xmin"].statistics.has_min_max
    assert columns["vector.list.element"].statistics is None


def test_footer_keys(tmp_path):
    path, _, _ = write(tmp_path)
    keys = pq.ParquetFile(path).metadata.metadata
    assert {b"geo", b"latent", b"emb"} <= keys.keys()
    assert b"pandas" not in keys
    assert json.loads(keys[b"emb"]) == {"emb:dimensions": 16}


def test_geo_key_keeps_the_rules_of_geoparquet_1_1(tmp_path):
    path, _, _ = write(tmp_path)
    file = pq.ParquetFile(path)
    geo = json.loads(file.metadata.metadata[b"geo"])
    assert geo.keys() == {"version", "primary_column", "columns"}
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] in geo["columns"]
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    assert "crs" not in column, "absent means OGC:CRS84"
    assert column["edges"] == "planar"
    assert column["orientation"] == "counterclockwise"
    assert column["covering"] == {"bbox": {s: ["bbox", s] for s in ("xmin", "ymin", "xmax", "ymax")}}
    schema = file.schema_arrow
    assert schema.field("geometry").type == pa.binary()
    assert not schema.field("geometry").nullable
    assert [f.name for f in schema.field("bbox").type] == ["xmin", "ymin", "xmax", "ymax"]
    geometry = shapely.from_wkb(pq.read_table(path)["geometry"].to_numpy())
    assert np.allclose(column["bbox"], shapely.total_bounds(geometry), rtol=0, atol=0)
    assert shapely.is_ccw(shapely.get_exterior_ring(geometry)).all()


@settings(deadline=None, max_examples=40)
@given(west=st.floats(-179, 178), step=st.floats(1e-5, 0.4))
def test_covering_contains_the_geometry(tmp_path_factory, west, step):
    path, _, _ = write(tmp_path_factory.mktemp("t"), side=2, west=west, step=step)
    table = pq.read_table(path)
    box = np.array([list(row.values()) for row in table["bbox"].to_pylist()])
    exact = shapely.bounds(shapely.from_wkb(table["geometry"].to_numpy()))
    assert (box[:, :2] <= exact[:, :2]).all()
    assert (box[:, 2:] >= exact[:, 2:]).all()
    assert np.abs(box - exact).max() < 2e-5 * 2


# -- reading by place ------------------------------------------------------------------------------------------


def test_a_box_reads_few_row_groups_and_finds_every_row(tmp_path, monkeypatch):
    path, _, info = write(tmp_path, group=32 << 10)
    read: list[int] = []
    original = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda self, groups, **k: read.extend(groups) or original(self, groups, **k),
    )
    box = (10.105, 49.905, 10.145, 49.935)
    table = read_table(path, ["id", "geometry"], bbox=box)
    full = read_table(path)
    geometry = shapely.from_wkb(full["geometry"].to_numpy())
    want = {
        i for i, g in zip(full["id"].to_pylist(), geometry, strict=True) if g.intersects(shapely.box(*box))
    }
    assert set(table["id"].to_pylist()) == want
    assert len(want) >= 20
    meta = pq.ParquetFile(path).metadata
    touched = sum(meta.row_group(i).total_byte_size for i in read)
    assert info.row_groups > 20
    assert len(read) <= 4
    assert touched < 0.15 * sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    assert len(geopandas.read_parquet(path, bbox=box)) == len(want)


def test_a_box_over_the_antimeridian(tmp_path):
    path, _, _ = write(tmp_path, west=179.5, step=0.005, side=32)
    (tmp_path / "west").mkdir()
    other, _, _ = write(tmp_path / "west", west=-180, step=0.005, side=32)
    box = (179.6, 49.0, -179.9, 51.0)
    assert {i.split("/")[2] for i in read_table(path, ["id"], box)["id"].to_pylist()} == {
        str(c) for c in range(19, 32)
    }
    assert len(read_table(other, ["id"], box)) == 32 * 21
    assert len(read_table(path, ["id"], (-10, 0, 10, 80))) == 0
    assert len(read_embeddings(path, bbox=(-10, 0, 10, 80))) == 0


# -- errors ----------------------------------------------------------------------------------------------------


def test_unreadable_files(tmp_path):
    path, _, _ = write(tmp_path, side=8)
    with pytest.raises(CatalogError, match=r"no embeddings file at .*nowhere\.parquet; give the path"):
        read_table(tmp_path / "nowhere.parquet")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        CorruptDataError, match=r"cut\.parquet is no complete Parquet file .*; fetch or publish it again"
    ):
        read_embeddings(cut)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(CatalogError, match="has no 'latent' footer; only files written by publish"):
        read_table(tmp_path / "other.parquet")
    with pytest.raises(CatalogError, match=r"has no columns \['nope'\]; it has \['id', 'item_id'"):
        read_table(path, ["nope"])


def test_a_flipped_byte_is_an_error(tmp_path):
    path, _, _ = write(tmp_path, side=16)
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(7)
    assert column.path_in_schema == "vector.list.element"
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match="holds damaged data"):
        read_table(path)


def test_vectors_needs_its_columns(tmp_path):
    path, _, _ = write(tmp_path, "int8", side=8)
    with pytest.raises(CatalogError, match=r"no column 'vector'; it has \['id'\]"):
        vectors(read_table(path, ["id"]))
    with pytest.raises(CatalogError, match="int8 vectors need the column 'scale'"):
        vectors(read_table(path, ["vector"]))


def test_float16_overflow_is_refused(tmp_path):
    values = np.full((2, 2, 4), 70_000, np.float32)
    with pytest.raises(
        CatalogError, match="a vector holds 70000, but float16 ends at 65504; publish with dtype='float32'"
    ):
        write(tmp_path, "float16", dimensions=4, side=2, values=values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "cannot store vectors as 'float64'; dtype is 'float16', 'float32' or 'int8'"),
        ({"row_group_bytes": 10}, "row_group_bytes is 10; it must be between 4 KiB and 1 GiB"),
        ({"compression_level": 40}, "compression_level is 40; Zstandard knows 1 to 22"),
    ],
)
def test_writer_refuses_bad_options(tmp_path, options, message):
    with pytest.raises(CatalogError, match=message):
        EmbeddingsWriter(tmp_path, 4, **options)


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="no vector to write: a table of embeddings has at least one row"):
        EmbeddingsWriter(tmp_path, 4).finish(tmp_path / "x.parquet", {})
    assert not list(tmp_path.iterdir())
