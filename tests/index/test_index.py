"""The inverted index finds what the exact search finds; labels make maps; exports hold what was published."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import shapely.geometry
from nearest_support import SPACE, brute, clustered, write
from rasterio.warp import transform

from stac_latent.errors import CatalogError, RecallWarning, SearchError
from stac_latent.index.export import to_lancedb, to_pgvector
from stac_latent.index.ivf import build_index
from stac_latent.index.label import label
from stac_latent.index.label_raster import write_map
from stac_latent.index.memory_map import cache_folder, open_cache, write_cache
from stac_latent.index.metric import Form
from stac_latent.index.nearest import nearest
from stac_latent.index.table import open_table
from stac_latent.spec import Stats
from stac_latent.store.embeddings import read_table, vectors

faiss = pytest.importorskip("faiss")

ROWS, WIDTH = 6000, 32


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("ivf") / "t.parquet",
        clustered(ROWS, WIDTH),
        dtype="int8",
        dates=2,
        group=256 << 10,
    )


# -- index -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whiten", [False, "table"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_the_index_finds_what_the_exact_search_finds(table, metric, whiten):
    queries = clustered(60, WIDTH, seed=5)
    exact = nearest(table, queries, 10, metric=metric, whiten=whiten)
    found = nearest(table, queries, 10, metric=metric, whiten=whiten, index=True)
    shares = [
        len(set(exact[exact["query"] == i]["id"]) & set(found[found["query"] == i]["id"])) / 10
        for i in range(60)
    ]
    assert np.mean(shares) >= 0.99
    both = exact.merge(found, on=["query", "id"])
    assert (both["distance_x"] == both["distance_y"]).all()


def test_an_index_is_small_and_says_what_it_found(table):
    made = build_index(table, Form.of("l2", WIDTH))
    assert made.recall >= 0.99
    assert 1 <= made.nprobe <= made.index.nlist
    assert made.nbytes < 1.9 * ROWS * WIDTH  # 8 bytes of the row's number come to 32 of the vector
    facts = json.loads(made.path.with_suffix(".json").read_text())
    assert facts["rows"] == ROWS
    assert build_index(table) is None


def test_a_selection_holds_in_the_index_too(table):
    query = clustered(1, WIDTH, seed=9)[0]
    for asked in ({"min_valid": 0.9}, {"where": "row < 3"}, {"datetime": "2024-01-01"}):
        exact = nearest(table, query, 20, **asked)
        found = nearest(table, query, 20, index=True, **asked)
        assert len(found) == 20
        assert len(set(exact["id"]) & set(found["id"])) >= 19
    assert (nearest(table, query, 20, index=True, min_valid=0.9)["valid"] >= 0.9).all()


def test_more_than_the_lists_hold_are_scanned(table):
    assert len(nearest(table, np.ones(WIDTH), ROWS - 5, index=True)) == ROWS - 5


def test_a_new_publication_makes_the_index_stale(tmp_path):
    values = clustered(500, 8)
    path = write(tmp_path / "t.parquet", values)
    assert nearest(path, values[3], 1, index=True, metric="l2")["distance"].tolist() == [0.0]
    fresh = write(tmp_path / "new" / "t.parquet", values + 1000)
    fresh.replace(path)
    assert open_cache(open_table(path)) is None
    again = nearest(path, values[3] + 1000, 1, index=True, metric="l2")
    assert again["distance"].tolist() == pytest.approx(brute(path, values[3] + 1000, "l2")[1][:1].tolist())
    assert open_cache(open_table(path)) is not None


def test_small_and_odd_tables_are_indexed(tmp_path):
    for n in (1, 2, 40):
        path = write(tmp_path / str(n) / "t.parquet", clustered(n, 3))
        assert len(nearest(path, np.ones(3), 5, index=True)) == min(n, 5)
    values = clustered(50, 3)
    values[7], values[8, 1] = 0, np.nan
    path = write(tmp_path / "odd.parquet", values)
    assert len(nearest(path, np.ones(3), 50, index=True)) == 48
    path = write(tmp_path / "zero.parquet", np.zeros((5, 3), np.float32))
    with pytest.raises(SearchError, match="holds no vector that can be indexed: all are zero or hold NaN"):
        nearest(path, np.ones(3), index=True)


def test_an_index_file_that_is_damaged_is_built_anew(tmp_path):
    path = write(tmp_path / "t.parquet", clustered(200, 4))
    expected = nearest(path, np.ones(4), 5, index=True)["id"].tolist()
    (file,) = cache_folder(open_table(path)).glob("*.faiss")
    file.write_bytes(b"IwSq and no more")
    assert nearest(path, np.ones(4), 5, index=True)["id"].tolist() == expected


def test_without_faiss_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    path = write(tmp_path / "t.parquet", clustered(20, 4))
    with pytest.raises(
        SearchError, match=r"an index needs the package faiss-cpu: pip install 'stac-latent\[search\]'"
    ):
        nearest(path, np.ones(4), index=True)


# -- labels ------------------------------------------------------------------------------------------------------


@pytest.fixture
def halves(tmp_path):
    """A table of 20 x 20 rows: west of the middle one kind of vector, east of it another."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 5)) * 0.1
    west = np.arange(400) % 20 < 10
    values[west, 0] += 1
    values[~west, 1] += 1
    return write(tmp_path / "halves.parquet", values.astype(np.float32))


WEST, EAST = (10.045, 49.895), (10.155, 49.905)


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_few_examples_make_a_map(halves, metric, laid_out):
    if laid_out:
        write_cache(open_table(halves))
    examples = [(WEST, "water"), (EAST, "old wood"), ((10.005, 49.995), "water")]
    found = label(halves, examples, metric=metric, crs="OGC:CRS84", resolution=0.01)
    assert found["label"].shape == (20, 20)
    assert found["label"].attrs["flag_meanings"] == "old_wood water"
    assert (found["label"].to_numpy()[:, :10] == 2).all()
    assert (found["label"].to_numpy()[:, 10:] == 1).all()
    assert found["x"].to_numpy()[0] == pytest.approx(10.005)
    assert found["y"].to_numpy()[0] == pytest.approx(49.995)
    assert found.attrs["votes"] == 1
    assert (found["agreement"] == 1).all()


def test_labels_by_geojson_become_a_geotiff(halves, tmp_path):
    features = [
        {"type": "Feature", "properties": {"kind": kind}, "geometry": shapely.geometry.mapping(shape)}
        for kind, shape in (("a", shapely.Point(WEST)), ("b", shapely.box(10.12, 49.85, 10.18, 49.95)))
    ]
    path = tmp_path / "examples.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = label(halves, path, column="kind")
    assert found.rio.crs.to_epsg() == 32632 or found.rio.crs.to_epsg() == 32633
    write_map(found, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.count, file.nodata, file.dtypes) == (2, 0, ("uint8", "uint8"))
        assert file.tags(1) == {"label_1": "a", "label_2": "b"}
        xs, ys = transform("OGC:CRS84", file.crs, [WEST[0], EAST[0]], [WEST[1], EAST[1]])
        row, col = np.transpose([file.index(x, y) for x, y in zip(xs, ys, strict=True)])
        assert file.read(1)[row, col].tolist() == [1, 2]


def test_votes_are_of_the_nearest_and_limited_by_distance(halves):
    found = label(halves, [(WEST, "only")], max_distance=0.3, crs="OGC:CRS84", resolution=0.01)
    drawn = found["label"].to_numpy()
    assert drawn[:, :10].mean() > 0.9
    assert (drawn[:, 10:] == 0).all()
    assert np.isnan(found["distance"].to_numpy()[:, 10:]).all()
    with pytest.raises(SearchError, match="no row gets a label"):
        label(halves, [(np.array([0, 0, 0, 0, 1.0]), "x")], max_distance=1e-6)


def test_later_rows_are_drawn_over_earlier_ones(tmp_path):
    values = np.repeat(np.eye(2, 3), 100, axis=0).astype(np.float32)
    path = write(tmp_path / "t.parquet", values, dates=2)
    examples = [(np.array([1.0, 0, 0]), "first"), (np.array([0, 1.0, 0]), "second")]
    grid = {"crs": "OGC:CRS84", "resolution": 0.01}
    assert (label(path, examples, **grid)["label"] == 2).all()
    assert (label(path, examples, datetime="2024-01-01", **grid)["label"] == 1).all()


def test_rows_without_a_time_are_the_oldest(tmp_path):
    """Of rows at one place, the latest is drawn and looked for; of two that are equally late, the first."""
    days = [datetime(2024, 1, d, tzinfo=UTC) for d in (2, 3, 3)]
    path = write(tmp_path / "t.parquet", np.eye(4, dtype=np.float32), times=[None, *days])
    with pq.ParquetFile(path) as file:
        table = file.read()
    here = pa.array([table["geometry"][0].as_py()] * 4)  # all four at one place
    box = pa.concat_arrays([table["bbox"].combine_chunks().slice(0, 1)] * 4)
    for name, column in (("geometry", here), ("bbox", box)):
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    pq.write_table(table, path)
    taken = nearest(path, (10.005, 49.995), 1)["datetime"][0]
    drawn = label(path, [(v, str(i)) for i, v in enumerate(np.eye(4))], k=1, crs="OGC:CRS84", resolution=0.01)
    place = int(drawn["label"].to_numpy()[drawn["label"].to_numpy() > 0][0]) - 1
    rows = nearest(path, np.eye(4)[place], 1)
    assert (taken, rows["datetime"][0]) == (days[1], days[1])
    assert rows["id"][0] == nearest(path, (10.005, 49.995), 1)["id"][0]


@pytest.mark.parametrize(
    ("examples", "options", "text"),
    [
        ([], {}, r"examples are pairs \(query, label\), at least one"),
        ({"features": []}, {}, "the examples are empty"),
        ({"features": [{"properties": {"a": 1}, "geometry": None}]}, {}, r"example 0 has no 'label' \(it has a\)"),
        ({"features": [{"properties": {"label": 1}, "geometry": {"type": "x"}}]}, {}, "example 0 has no geometry"),
        ("none.geojson", {}, r"cannot read the examples none.geojson"),
        (7, {}, "examples are a GeoDataFrame, GeoJSON or pairs"),
        ([(WEST, str(i)) for i in range(256)], {}, "the examples have 256 labels; a map holds at most 255"),
        ([((0.0, 0.0), "a")], {}, "no row of .* lies at lon=0, lat=0"),
        ([(WEST, "a")], {"k": 0}, "k=0 is no number of examples"),
        ([(WEST, "a")], {"crs": "EPSG:1"}, "crs='EPSG:1' cannot be used for the map"),
        ([(WEST, "a")], {"resolution": -1}, "resolution=-1 is no size of a pixel"),
        ([(WEST, "a")], {"resolution": 0.1}, "select a region, or give a larger resolution"),
    ],
)  # fmt: skip
def test_label_says_what_it_expected(halves, examples, options, text):
    with pytest.raises(SearchError, match=text):
        label(halves, examples, **options)


@pytest.mark.parametrize("size", [1e25, 1e37, 1e-25, 1e-42])
def test_an_index_of_any_magnitude(tmp_path, size):
    """Squares beyond float32 would end the process within faiss."""
    values = clustered(400, 8)
    values = (values / np.abs(values).max() * size).astype(np.float32)
    path = write(tmp_path / "t.parquet", values, group=1 << 20)
    for metric in ("l2", "dot"):
        for query in (values[3], np.ones(8, np.float32), (values[3] * 1e-3).astype(np.float32)):
            found = nearest(path, query, 10, metric=metric, index=True)
            assert np.allclose(found["distance"], brute(path, query, metric)[1][:10], rtol=1e-6, atol=0)


def test_an_index_that_finds_too_few_is_left_aside(tmp_path):
    """One row that is far longer than the others spoils the codes of an index by inner products: its file knows, and it is not used."""
    values = clustered(3000, 16)
    values[17] *= 1e5
    path = write(tmp_path / "t.parquet", values, group=1 << 20)
    made = build_index(path, Form.of("dot", 16))
    assert made is not None
    assert made.recall < 0.6
    queries = clustered(5, 16, seed=3)
    with pytest.warns(
        RecallWarning,
        match=r"the index of .* for dot finds \d+% of the ten nearest rows, as measured",
    ):
        found = nearest(path, queries, 10, metric="dot", index=True)
    for i, query in enumerate(queries):
        assert found[found["query"] == i]["id"].tolist() == brute(path, query, "dot")[0][:10]


# -- exports -----------------------------------------------------------------------------------------------------


def test_the_sql_file_holds_the_rows(table, tmp_path):
    assert to_pgvector(table, tmp_path / "t.sql", "places") == ROWS
    lines = (tmp_path / "t.sql").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "CREATE EXTENSION IF NOT EXISTS vector;"
    assert f'  "vector" vector({WIDTH}) NOT NULL,' in lines
    first = next(i for i, line in enumerate(lines) if line.startswith("COPY"))
    rows = [line.split("\t") for line in lines[first + 1 : lines.index("\\.")]]
    stored = read_table(table)
    assert [r[0] for r in rows] == stored["id"].to_pylist()
    assert {r[2] for r in rows} == {"\\N", "scenes"}
    assert np.array_equal(np.array([json.loads(r[7]) for r in rows], np.float32), vectors(stored))
    assert bytes.fromhex(rows[5][8].removeprefix("\\\\x")) == stored["geometry"][5].as_py()
    assert lines[-1] == f"COMMENT ON TABLE \"places\" IS 'latent:space {SPACE}';"
    with pytest.raises(CatalogError, match=r"t\.sql exists; pass overwrite=True"):
        to_pgvector(table, tmp_path / "t.sql", "places")
    with pytest.raises(CatalogError, match="is no name of a table"):
        to_pgvector(table, tmp_path / "u.sql", 'x"; drop table y; --')


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_pgvector_refuses_is_refused_before_it_is_written(tmp_path, bad):
    values = clustered(40, 4)
    values[7, 1] = bad
    path = write(tmp_path / "t.parquet", values)
    with pytest.raises(
        CatalogError,
        match=r"row 'item-0/1/0' of .* holds NaN or infinity, which pgvector refuses; publish .* invalid='drop'",
    ):
        to_pgvector(path, tmp_path / "t.sql")
    assert [p.name for p in tmp_path.iterdir() if "sql" in p.name] == []


def test_several_exports_of_one_name_at_once(table, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(lambda _: to_pgvector(table, tmp_path / "t.sql", overwrite=True), range(3)))
    assert counts == [ROWS] * 3
    assert (tmp_path / "t.sql").read_text(encoding="utf-8").count("\titem-0\t") == ROWS // 2
    assert [p.name for p in tmp_path.iterdir()] == ["t.sql"]


def test_lancedb_holds_the_rows(tmp_path):
    pytest.importorskip("lancedb")
    values = clustered(300, 8)
    path = write(tmp_path / "t.parquet", values)
    made = to_lancedb(path, tmp_path / "db")
    assert made.count_rows() == 300
    assert made.schema.metadata[b"latent:space"].decode() == SPACE
    got = made.search(values[4]).metric("l2").limit(5).to_arrow()
    assert got["id"].to_pylist() == nearest(path, values[4], 5, metric="l2")["id"].tolist()
    with pytest.raises(CatalogError, match="has a table 'embeddings'"):
        to_lancedb(path, tmp_path / "db")
    assert to_lancedb(path, tmp_path / "db", overwrite=True).count_rows() == 300


def test_without_lancedb_the_way_out_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(SearchError, match=r"needs the package lancedb: pip install 'stac-latent\[lancedb\]'"):
        to_lancedb(table, tmp_path)


def test_whitening_of_an_index_is_part_of_its_name(table):
    stats = Stats(tuple(np.zeros(WIDTH)), tuple(np.full(WIDTH, 2.0)))
    names = {build_index(table, Form.of("l2", WIDTH, s)).path.name for s in (None, stats)}
    assert len(names) == 2
