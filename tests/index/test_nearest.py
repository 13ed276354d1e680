"""Similar places: exact against brute force, filters, queries of every kind, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
import shapely.geometry
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nearest_support import OTHER, SPACE, brute, clustered, write

from stac_latent.errors import CatalogError, CorruptDataError, SearchError
from stac_latent.index.conditions import mask_of
from stac_latent.index.memory_map import cache_folder, open_cache, write_cache
from stac_latent.index.nearest import nearest
from stac_latent.index.table import open_table
from stac_latent.spec import Stats
from stac_latent.store.embeddings import read_table, vectors

METRICS = ("cosine", "l2", "dot")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """One table in each type, in many row groups."""
    folder = tmp_path_factory.mktemp("tables")
    values = clustered(1500, 24)
    return {
        t: write(folder / f"{t}.parquet", values, dtype=t, dates=3) for t in ("float16", "float32", "int8")
    }


def lay(path, laid_out):
    """With the layout beside the table, or without."""
    shutil.rmtree(cache_folder(open_table(path)), ignore_errors=True)
    if laid_out:
        write_cache(open_table(path))
    assert (open_cache(open_table(path)) is not None) == laid_out


def same(frame, ids, distance):
    """The frame holds these rows; rows at distances that float64 cannot tell apart may change places."""
    assert np.allclose(frame["distance"], distance[: len(frame)], rtol=1e-9, atol=1e-9)
    beyond = distance[len(frame)] if len(distance) > len(frame) else np.inf
    sure = {i for i, d in zip(ids, distance, strict=True) if d < min(beyond, distance[len(frame) - 1]) - 1e-9}
    assert sure <= set(frame["id"])
    assert frame["rank"].tolist() == list(range(1, len(frame) + 1))


# -- exact -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_exact_equals_brute_force(tables, dtype, laid_out):
    path = tables[dtype]
    lay(path, laid_out)
    queries = clustered(6, 24, seed=3)
    stats = Stats(tuple(np.linspace(-1, 1, 24)), tuple(np.linspace(0.1, 3, 24)))
    for metric in METRICS:
        for whiten in (False, stats):
            mean, std = (0, 1) if whiten is False else (np.array(stats.mean), np.array(stats.std))
            found = nearest(path, queries, 7, metric=metric, whiten=whiten)
            assert found["query"].tolist() == [i for i in range(6) for _ in range(7)]
            for i, query in enumerate(queries):
                same(found[found["query"] == i], *brute(path, query, metric, mean, std))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 60), k=st.integers(1, 5), metric=st.sampled_from(METRICS),
       dtype=st.sampled_from(["float16", "float32", "int8"]), integer=st.booleans(), laid_out=st.booleans())  # fmt: skip
def test_exact_on_drawn_tables(tmp_path_factory, seed, n, k, metric, dtype, integer, laid_out):
    rng = np.random.default_rng(seed)
    values = (
        rng.integers(-2, 3, (n, k)) if integer else rng.normal(size=(n, k)) * 10.0 ** rng.integers(-3, 4)
    ).astype(np.float32)
    path = write(tmp_path_factory.mktemp("t") / "t.parquet", values, dtype=dtype)
    if laid_out:
        write_cache(open_table(path))
    query = rng.normal(size=k)
    ids, distance = brute(path, query.astype(np.float32), metric)
    assume(len(ids) > 0)  # a table of zeros has no direction
    found = nearest(path, query, min(n, 4), metric=metric)
    assert len(found) == min(n, 4, len(ids))
    same(found, ids, distance)


def test_near_ties_are_told_apart_in_float64(tmp_path):
    """Rows that float32 products order wrongly come in the right order."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=64) * 100
    values = np.stack([base + rng.normal(size=64) * 1e-5 for _ in range(300)]).astype(np.float32)
    path = write(tmp_path / "t.parquet", values)
    write_cache(open_table(path))
    for metric in METRICS:
        found = nearest(path, values[17], 50, metric=metric)
        _, distance = brute(path, values[17], metric)
        assert np.allclose(found["distance"], distance[:50], rtol=1e-12, atol=1e-13)


def test_equal_rows_keep_the_order_of_the_table(tmp_path):
    path = write(tmp_path / "t.parquet", np.ones((50, 4), np.float32))
    ids = read_table(path, ["id"])["id"].to_pylist()
    assert nearest(path, np.ones(4), 5, metric="l2")["id"].tolist() == ids[:5]
    write_cache(open_table(path))
    assert nearest(path, np.ones(4), 5, metric="l2")["id"].tolist() == ids[:5]


@pytest.mark.parametrize("present", [True, False])
def test_simsimd_changes_nothing(tables, monkeypatch, present):
    if present:
        pytest.importorskip("simsimd")
    else:
        monkeypatch.setitem(sys.modules, "simsimd", None)
    write_cache(open_table(tables["int8"]))
    for query in clustered(5, 24, seed=8):
        for metric in METRICS:
            same(nearest(tables["int8"], query, 9, metric=metric), *brute(tables["int8"], query, metric))


def test_whitening_by_the_table_is_by_its_moments(tables):
    x = vectors(read_table(tables["float32"])).astype(np.float64)
    query = clustered(1, 24, seed=5)[0]
    found = nearest(tables["float32"], query, 5, metric="l2", whiten="table")
    same(found, *brute(tables["float32"], query, "l2", x.mean(axis=0), x.std(axis=0)))


def test_moments_equal_numpy(tables):
    x = vectors(read_table(tables["float16"])).astype(np.float64)
    stats = open_table(tables["float16"]).moments()
    assert np.allclose(stats.mean, x.mean(axis=0), atol=1e-9)
    assert np.allclose(stats.std, x.std(axis=0), atol=1e-9)


def test_several_files_are_one_table(tmp_path):
    values = clustered(400, 8)
    whole = write(tmp_path / "whole.parquet", values)
    parts = [write(tmp_path / "parts" / f"{i}.parquet", v) for i, v in enumerate(np.split(values, 4))]
    query = values[7]
    expected = nearest(whole, query, 10)["distance"]
    for source in (parts, tmp_path / "parts", open_table(parts), str(tmp_path / "parts")):
        assert np.allclose(nearest(source, query, 10)["distance"], expected, atol=1e-12)


# -- filters -----------------------------------------------------------------------------------------------------

CONDITIONS = [
    {"where": {"op": ">=", "args": [{"property": "valid"}, 0.6]}},
    {"where": {"op": "like", "args": [{"property": "item_id"}, "item-%1"]}},
    {"where": "row + col > 20"},
    {"bbox": (10.03, 49.9, 10.12, 50)},
    {"intersects": shapely.geometry.mapping(shapely.Point(10.1, 49.9).buffer(0.06))},
    {"datetime": "2024-01-02/.."},
    {"min_valid": 0.5},
]


@pytest.mark.parametrize("laid_out", [False, True])
@given(
    picks=st.lists(st.sampled_from(range(len(CONDITIONS))), unique=True, max_size=3),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_filters_commute_with_the_search(tables, laid_out, picks, k, seed):
    """The nearest of what matches are what matches of all, nearest first."""
    asked = {}
    for i in picks:
        if not (set(CONDITIONS[i]) & set(asked) or {"bbox", "intersects"} <= set(CONDITIONS[i]) | set(asked)):
            asked |= CONDITIONS[i]
    path = tables["float32"]
    if (open_cache(open_table(path)) is not None) != laid_out:
        lay(path, laid_out)
    query = clustered(1, 24, seed)[0]
    everything = nearest(path, query, 1500)
    keep = mask_of(open_table(path), **asked)
    ids = read_table(path, ["id"])["id"].to_pylist()
    wanted = set(ids) if keep is None else {i for i, use in zip(ids, keep, strict=True) if use}
    expected = everything[everything["id"].isin(wanted)][:k]
    found = nearest(path, query, k, **asked)
    assert found["id"].tolist() == expected["id"].tolist()


@pytest.mark.parametrize(
    "where",
    [
        "valid > 0.5", "0.5 < valid", "valid BETWEEN 0.3 AND 0.7", "item_id IN ('item-0', 'item-2')", "collection IS NULL",
        "NOT (collection = 'scenes')", "datetime >= TIMESTAMP('2024-01-02T00:00:00Z')", "row = 3 OR (col < 2 AND valid <> 1)",
        "item_id LIKE '%-1'", "row * 2 = col", "item_id = 3", "collection <> 'x' OR row < 2", "NOT (row IN (1, 2, 3))",
        "S_INTERSECTS(geometry, BBOX(10.0, 49.9, 10.05, 50.0))", "T_AFTER(datetime, DATE('2024-01-01'))",
    ],
)  # fmt: skip
def test_columns_and_rows_give_one_answer_to_cql2(tables, where, monkeypatch):
    table = open_table(tables["float32"])
    from stac_latent.index import conditions as module

    def rows_only(*_):
        raise module._NoColumnFormError

    def found():
        found = np.zeros(table.rows, bool)
        with suppress(SearchError):
            found = mask_of(table, where=where)
        return found

    by_column = found()
    monkeypatch.setattr(module, "_evaluate", rows_only)
    assert np.array_equal(by_column, found())


@pytest.mark.parametrize("share", [0.2, 0.6, 0.7, 0.9])
@pytest.mark.parametrize(
    "place",
    [None, {"op": "s_intersects", "args": [{"property": "geometry"}, {"bbox": [-180, -90, 180, 90]}]}],
)
def test_shares_compare_as_they_are_stored(tmp_path, share, place):
    """0.9 in float32 is a little less than 0.9 in float64, and still at least 0.9: by column, and row by row."""
    path = write(
        tmp_path / "t.parquet", clustered(30, 4), valid=np.where(np.arange(30) < 12, share, share - 1e-6)
    )
    assert len(nearest(path, np.ones(4), 99, min_valid=share)) == 12
    for op, count in ((">=", 12), ("=", 12), (">", 0), ("<", 18), ("<=", 30), ("<>", 18)):
        where = {"op": op, "args": [{"property": "valid"}, share]}
        where = where if place is None else {"op": "and", "args": [where, place]}
        if count:
            assert len(nearest(path, np.ones(4), 99, where=where)) == count, op
        else:
            with pytest.raises(SearchError, match=r"no row of .* matches where="):
                nearest(path, np.ones(4), 99, where=where)


def test_a_box_reads_only_its_row_groups(tables, monkeypatch):
    lay(tables["float32"], laid_out=False)
    table = open_table(tables["float32"])
    read = []
    monkeypatch.setattr(
        type(table),
        "_vectors",
        lambda _self, part, group: (
            read.append(group) or np.ones((part.groups[group + 1] - part.groups[group], 24), np.float32)
        ),
    )
    nearest(table, np.ones(24), 3, bbox=(10.0, 49.98, 10.02, 50.0))
    assert 0 < len(set(read)) < len(table.files[0].groups) / 3


# -- queries -----------------------------------------------------------------------------------------------------


def test_a_point_is_the_row_there_and_its_time_chooses_among_dates(tables):
    path = tables["float32"]
    for when, item in (
        (None, "item-2"),
        ("2024-01-01", "item-0"),
        ("2024-01-02T05:00:00Z", "item-1"),
        ("1999", "item-0"),
    ):
        query = (10.055, 49.955) if when is None else (10.055, 49.955, when)
        first = nearest(path, query, 1).iloc[0]
        assert first["id"] == f"{item}/4/5"
        assert first["distance"] == pytest.approx(0, abs=1e-12)
    assert nearest(path, shapely.Point(10.055, 49.955), 1)["id"].tolist() == ["item-2/4/5"]


def test_an_area_is_the_mean_of_its_rows(tables):
    path = tables["float32"]
    area = shapely.box(10.021, 49.951, 10.049, 49.979)
    frame = read_table(path)
    shapes = shapely.from_wkb(frame["geometry"].to_numpy())
    mean = vectors(frame)[shapely.intersects(shapes, area)].astype(np.float64).mean(axis=0)
    for query in (
        area,
        shapely.geometry.mapping(area),
        {"type": "Feature", "geometry": shapely.geometry.mapping(area)},
    ):
        same(nearest(path, query, 5), *brute(path, mean.astype(np.float32), "cosine"))


def test_a_list_of_queries_is_a_batch(tables):
    values = clustered(2, 24, seed=4)
    found = nearest(tables["int8"], [values[0], (10.055, 49.955), values[1]], 4)
    assert found["query"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for i, query in ((0, values[0]), (2, values[1])):
        same(found[found["query"] == i], *brute(tables["int8"], query, "cosine"))
    assert "query" not in nearest(tables["int8"], values[0].tolist(), 4)


# -- what is refused, and what is stated -------------------------------------------------------------------------


def test_more_than_there_are_gives_all(tables):
    assert len(nearest(tables["float32"], np.ones(24), 10_000)) == 1500
    assert len(nearest(tables["float32"], np.ones(24), 10_000, min_valid=0.9)) == 300


@pytest.mark.parametrize("laid_out", [False, True])
def test_rows_with_nan_never_appear_and_zero_vectors_not_under_the_cosine(tmp_path, laid_out):
    values = clustered(80, 6)
    values[3, 2], values[9] = np.nan, 0
    path = write(tmp_path / "t.parquet", values)
    if laid_out:
        write_cache(open_table(path))
    gone = {
        m: {f"item-0/{i // 9}/{i % 9}" for i in r}
        for m, r in (("cosine", (3, 9)), ("l2", (3,)), ("dot", (3,)))
    }
    for metric in METRICS:
        found = nearest(path, values[0], 80, metric=metric)
        assert set(read_table(path, ["id"])["id"].to_pylist()) - set(found["id"]) == gone[metric]


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize(
    "sizes", [(1e20,), (1e30,), (1e-20,), (1e-30,), (1.0, 1e25), (1.0, 1e-25), (1e37, 1e-37), (1e-43, 1.0), (2e37, 1e37)], ids=str
)  # fmt: skip
def test_magnitudes_leave_nothing_out(tmp_path, sizes, laid_out):
    """Lengths whose squares are beyond float32, or below it: the answer is that of numpy in float64, whatever the query's length."""
    values = clustered(90, 6)
    with np.errstate(under="ignore"):
        values = (values / np.abs(values).max() * np.resize(sizes, 90)[:, None]).astype(np.float32)
    path = write(tmp_path / "t.parquet", values)
    if laid_out:
        write_cache(open_table(path))
    for length in (1.0, 1e-30, 1e30, float(sizes[0])):
        query = (clustered(1, 6, 5)[0] * length).astype(np.float32)
        for metric in METRICS:
            ids, distance = brute(path, query, metric)
            found = nearest(path, query, 90, metric=metric)
            assert len(found) == 90, metric
            assert np.allclose(
                found["distance"], distance, rtol=1e-12, atol=1e-12 if metric == "cosine" else 0
            )
            if metric != "cosine" or sizes[0] != 1e-43:
                assert found["id"].tolist() == ids, metric
            assert nearest(path, query, 5, metric=metric)["id"].tolist() == found["id"][:5].tolist()


def test_whitening_with_magnitudes(tmp_path):
    values = clustered(60, 4) * np.float32(1e22)
    path = write(tmp_path / "t.parquet", values)
    mean, std = values.astype(np.float64).mean(axis=0), values.astype(np.float64).std(axis=0)
    for metric in METRICS:
        ids, _ = brute(path, values[3], metric, mean, std)
        assert nearest(path, values[3], 60, metric=metric, whiten="table")["id"].tolist() == ids


@pytest.mark.parametrize("index", [False, True])
def test_nothing_with_a_direction_is_left(tmp_path, index):
    if index:
        pytest.importorskip("faiss")
    values = np.zeros((36, 4), np.float32)
    values[6:] = clustered(30, 4)
    path = write(tmp_path / "t.parquet", values)
    text = r"none of the 6 rows of .* can be compared by cosine: .* zero, which is no direction; loosen the conditions, or .*metric='l2'"
    with pytest.raises(SearchError, match=text):
        nearest(
            path,
            np.ones(4),
            where={"op": "in", "args": [{"property": "id"}, [f"item-0/0/{i}" for i in range(6)]]},
            index=index,
        )
    zeros = write(tmp_path / "z.parquet", np.zeros((4, 4), np.float32))
    with pytest.raises(SearchError, match="all are zero or hold NaN" if index else "none of the 4 rows of"):
        nearest(zeros, np.ones(4), index=index)
    assert nearest(zeros, np.ones(4), metric="l2", index=index)["distance"].tolist() == [2.0] * 4


@pytest.mark.parametrize("laid_out", [False, True])
def test_few_rows_that_match_are_all_given(tmp_path, laid_out):
    """A condition that leaves 1.6 % of the rows, one of which holds NaN."""
    values = clustered(2500, 6)
    values[35, 2] = np.nan
    path = write(tmp_path / "t.parquet", values, group=1 << 20)
    if laid_out:
        write_cache(open_table(path))
    where = {"op": "=", "args": [{"property": "row"}, 0]}
    ids = [i for i in brute(path, values[3], "cosine")[0] if i.startswith("item-0/0/")]
    assert len(ids) == 49
    assert nearest(path, values[3], 99, where=where)["id"].tolist() == ids
    assert nearest(path, values[3], 20, where=where)["id"].tolist() == ids[:20]


def test_int8_tells_no_nan(tmp_path):
    values = clustered(10, 6)
    values[3, 2] = np.nan
    with pytest.raises(CatalogError, match="1 of 10 vectors hold NaN or infinity, which int8 cannot store"):
        write(tmp_path / "t.parquet", values, dtype="int8")


@pytest.mark.parametrize(
    ("query", "options", "text"),
    [
        (np.ones(23), {}, r"the query has shape \(23,\); vectors of .* hold 24 values"),
        (np.full(24, np.nan), {}, "query 0 holds NaN or infinity"),
        (np.zeros(24), {}, "query 0 is a zero vector, which has no direction"),
        (np.ones(24), {"k": 0}, "k=0 is no number of rows"),
        (np.ones(24), {"metric": "hamming"}, "metric='hamming' is unknown; it is 'cosine', 'l2', 'dot'"),
        (np.ones(24), {"whiten": "pca"}, "whiten='pca' is unknown"),
        (np.ones(24), {"whiten": Stats((0.0,), (1.0,))}, "are of 1 channels, the table's vectors have 24"),
        (np.ones(24), {"min_valid": 2}, "min_valid=2 is no share"),
        (np.ones(24), {"where": "psnr > 3"}, "the filter names psnr; the columns of .* are id, item_id"),
        (np.ones(24), {"where": "valid > 3"}, "no row of .* matches where=valid > 3; loosen the conditions"),
        (np.ones(24), {"space": OTHER}, f"the query is of {OTHER}, .* of {SPACE}"),
        ((3.0, 4.0), {}, "no row of .* lies at lon=3, lat=4; its rows lie within longitudes 10 to"),
        ((300.0, 4.0), {}, "lon=300, lat=4 is no place"),
        ("here", {}, "cannot search for str 'here'; give a vector of 24 numbers"),
        (shapely.box(0, 0, 1, 1), {}, "no row of .* touches the area with bounds"),
        ({"type": "Nothing"}, {}, "is no GeoJSON geometry"),
        (["a"], {}, "cannot search for str 'a'"),
    ],
)  # fmt: skip
def test_errors_say_what_was_expected(tables, query, options, text):
    with pytest.raises(SearchError, match=text):
        nearest(tables["float32"], query, **({"k": 3} | options))


def test_spaces_never_meet(tmp_path):
    one = write(tmp_path / "one.parquet", clustered(20, 6))
    other = write(tmp_path / "other.parquet", clustered(20, 6), space=OTHER)
    with pytest.raises(
        SearchError,
        match=f"different spaces cannot be compared: .*one.parquet holds {SPACE}, .*other.parquet holds {OTHER}",
    ):
        nearest([one, other], np.ones(6))
    more = write(tmp_path / "more.parquet", clustered(20, 7))
    with pytest.raises(SearchError, match=r"different dimensions cannot be compared: .* holds 6, .* holds 7"):
        nearest([one, more], np.ones(6))


def test_an_item_of_another_space_is_refused(tables, tmp_path):
    from publish_support import LATLON, item_of, reader_of

    with pytest.raises(SearchError, match=f"item 'a' is of {OTHER}, .*float32.parquet of {SPACE}"):
        nearest(tables["float32"], item_of("a", reader_of(LATLON, 24, space=OTHER)))


def rewritten(path, change):
    """The file with another table in it, under the same footer."""
    table = pq.read_table(path)
    table = change(table).replace_schema_metadata(table.schema.metadata)
    pq.write_table(table, path)
    return path


def test_vectors_of_unequal_length_are_refused(tmp_path):
    def ragged(table):
        values = [[1.0] * (6 if i != 5 else 4) for i in range(table.num_rows)]
        return table.set_column(
            table.schema.get_field_index("vector"), "vector", pa.array(values, pa.list_(pa.float32()))
        )

    path = rewritten(write(tmp_path / "t.parquet", clustered(20, 6)), ragged)
    with pytest.raises(
        CorruptDataError,
        match=r"t.parquet, row group 0: the column 'vector' is list<.*expected lists of one length in each row: row 0 holds 6, row 5 4 values",
    ):
        nearest(path, np.ones(6))


def test_lists_of_equal_length_are_read(tmp_path):
    values = clustered(20, 6)
    path = write(tmp_path / "t.parquet", values)
    expected = nearest(path, values[3], 5)["id"].tolist()

    def plain(table):
        column = table["vector"].combine_chunks().cast(pa.list_(pa.float32()))
        return table.set_column(table.schema.get_field_index("vector"), "vector", column)

    assert nearest(rewritten(path, plain), values[3], 5)["id"].tolist() == expected


def test_vectors_that_are_not_as_the_footer_says_are_refused(tmp_path):
    def shorter(table):
        values = [[1.0] * 5] * table.num_rows
        return table.set_column(
            table.schema.get_field_index("vector"), "vector", pa.array(values, pa.list_(pa.float32(), 5))
        )

    path = rewritten(write(tmp_path / "t.parquet", clustered(20, 6)), shorter)
    with pytest.raises(CorruptDataError, match="holds vectors of 5 values, its footer says 6"):
        nearest(path, np.ones(6))


@pytest.mark.parametrize(
    ("latent", "text"),
    [
        (b"{", "the 'latent' footer of .* is no JSON object"),
        (b"{}", "lacks latent:space, latent:dimensions, data_type"),
        (b"7", "is no JSON object"),
        (
            b'{"latent:space": "a", "latent:dimensions": "6", "data_type": "int8"}',
            "says '6' dimensions of 'int8'",
        ),
    ],
)
def test_wrong_footers_are_refused(tmp_path, latent, text):
    path = write(tmp_path / "t.parquet", clustered(20, 6))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"latent": latent}), path)
    with pytest.raises(CorruptDataError, match=text):
        nearest(path, np.ones(6))


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="no embeddings file at"):
        nearest(tmp_path / "none.parquet", np.ones(3))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match=r"holds no \.parquet file"):
        nearest(tmp_path / "empty", np.ones(3))
    with pytest.raises(CatalogError, match="no table to search"):
        nearest([], np.ones(3))
    with pytest.raises(CatalogError, match="item 'a' has no table of vectors"):
        nearest(
            pystac.Item(
                "a",
                None,
                None,
                None,
                {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z"},
            ),
            np.ones(3),
        )
    (tmp_path / "cut.parquet").write_bytes(write(tmp_path / "t.parquet", clustered(20, 6)).read_bytes()[:-50])
    with pytest.raises(CorruptDataError, match="is no complete Parquet file"):
        nearest(tmp_path / "cut.parquet", np.ones(6))


# -- the layout beside the table ---------------------------------------------------------------------------------


def test_a_new_publication_makes_the_layout_stale(tmp_path):
    values = clustered(100, 6)
    path = write(tmp_path / "t.parquet", values)
    folder = write_cache(open_table(path))
    assert open_cache(open_table(path)) is not None
    old = open_table(path)
    fresh = write(tmp_path / "new" / "t.parquet", values[::-1].copy())
    fresh.replace(path)
    assert folder.is_dir()
    assert open_cache(open_table(path)) is None
    same(nearest(path, values[2], 5), *brute(path, values[2], "cosine"))
    with pytest.raises(SearchError, match="was published anew since it was opened"):
        nearest(old, values[2])


def test_a_copy_with_another_time_keeps_the_layout(tmp_path):
    path = write(tmp_path / "t.parquet", clustered(100, 6))
    write_cache(open_table(path))
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert open_cache(open_table(path)) is not None
    path.write_bytes(data[:-1] + bytes([data[-1]]))
    assert open_cache(open_table(path)) is not None


@pytest.mark.parametrize("damage", ["meta.json", "vectors.npy", "norms.npy", "rows.arrow"])
def test_a_damaged_layout_is_none(tmp_path, damage):
    path = write(tmp_path / "t.parquet", clustered(100, 6))
    folder = write_cache(open_table(path))
    (folder / damage).write_bytes(b"no")
    assert open_cache(open_table(path)) is None
    assert len(nearest(path, np.ones(6), 5)) == 5


def test_layouts_say_what_they_are_of(tmp_path):
    path = write(tmp_path / "t.parquet", clustered(100, 6), dtype="int8")
    meta = json.loads((write_cache(open_table(path)) / "meta.json").read_text())
    assert (meta["space"], meta["rows"]) == (SPACE, 100)
    assert meta["files"][0]["checksum"].startswith("1220")
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".")) == []
