"""Vectors as they are stored still find their neighbours, or the table says how many; int8 far from zero counts from an offset."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from nearest_support import brute, clustered, write

from stac_latent import adopt, load, load_table, nearest, publish
from stac_latent.catalog.publish.recall import RecallSample
from stac_latent.errors import CatalogError, CorruptDataError, RecallWarning
from stac_latent.index.export import to_pgvector
from stac_latent.index.memory_map import write_cache
from stac_latent.index.metric import METRICS
from stac_latent.index.table import open_table
from stac_latent.page.places import places_of_items
from stac_latent.store.embeddings import read_embeddings, read_table, vectors
from stac_latent.validation import validate

GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": []}},
}


def adopted(folder, values, **fields):
    """A table of (n, k) vectors of somebody else, in a row of places."""
    x = 10 + 1e-3 * np.arange(len(values))
    kind = pa.float32() if values.dtype.kind == "f" else pa.from_numpy_dtype(values.dtype)
    table = pa.table(
        {"v": pa.array(values.tolist(), pa.list_(kind)), "geometry": shapely.to_wkb(shapely.box(x, 50, x + 1e-3, 50.001))}
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(GEO)}), folder / "v.parquet")
    return adopt(
        "any", folder / "v.parquet", folder / "catalog", producer="me", name="mine", version="1", when="2024",
        fields={"latent:columns": ["v"]} | fields,
    )  # fmt: skip


def far(n=400, k=16, away=40.0):
    """Vectors of which one channel is far larger than all others differ."""
    values = clustered(n, k)
    values[:, 3] += away
    return values


def found_of_ten(values, stored, queries):
    """Share of the ten nearest in float64 that the stored vectors find for the true queries, without the query's own row."""
    shares = []
    for query in queries:
        near = []
        for x in (values.astype(np.float64), stored.astype(np.float64)):
            with np.errstate(invalid="ignore", divide="ignore"):
                cosine = x @ values[query] / np.linalg.norm(x, axis=1)
            cosine[query] = -np.inf
            near.append(set(np.argsort(-np.nan_to_num(cosine, nan=-np.inf), kind="stable")[:10].tolist()))
        shares.append(len(near[0] & near[1]) / 10)
    return float(np.mean(shares))


def test_float16_says_what_it_still_finds(tmp_path):
    values = clustered(400, 16)
    values = (values / np.linalg.norm(values, axis=1, keepdims=True) * 2e-6).astype(np.float32)
    item = publish(adopted(tmp_path, values), tmp_path / "t.parquet")
    how = item.properties["processing:expression"]["expression"]
    assert json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"latent"])["publish"] == how
    assert how["recall_rows"] == 400
    own = found_of_ten(values, values.astype(np.float16), range(400))
    assert 0.9 < own < 0.99
    assert how["recall_at_10"] == pytest.approx(own, abs=0.02)


def test_float16_that_loses_neighbours(tmp_path):
    values = clustered(400, 16)
    values = values / np.linalg.norm(values, axis=1, keepdims=True)
    items = adopted(tmp_path / "a", (values * 3e-7).astype(np.float32))
    with pytest.warns(
        RecallWarning,
        match=r"as float16, the vectors find \d\d% of their ten nearest \(cosine, measured on 400 of them\)",
    ):
        item = publish(items, tmp_path / "a.parquet")
    assert 0.5 < item.properties["processing:expression"]["expression"]["recall_at_10"] < 0.9
    items = adopted(tmp_path / "b", (values * 1e-8).astype(np.float32))
    with pytest.raises(
        CatalogError,
        match=r"of 400 vectors are so small .* that float16 holds them as zero.*; publish with dtype='float32'",
    ):
        publish(items, tmp_path / "b.parquet")
    assert not list(tmp_path.glob("*b.parquet*"))
    publish(items, tmp_path / "c.parquet", dtype="int8")  # each vector has a scale of its own


def test_neighbours_that_no_type_tells_apart_are_refused(tmp_path):
    """They differ in the last bits of float32."""
    rng = np.random.default_rng(0)
    values = (1 + 3e-4 * rng.normal(size=(300, 8))).astype(np.float32)
    with pytest.raises(
        CatalogError,
        match=r"as float16, the vectors find \d+% of their ten nearest .*; publish with dtype='float32', or stand",
    ):
        publish(adopted(tmp_path, values), tmp_path / "t.parquet")
    how = publish(adopted(tmp_path, values), tmp_path / "t.parquet", dtype="int8").properties[
        "processing:expression"
    ]
    assert how["expression"]["recall_at_10"] > 0.9  # counted from their median
    assert "recall_at_10" not in publish(adopted(tmp_path, values), tmp_path / "t.parquet", dtype="float32").properties["processing:expression"]["expression"]  # fmt: skip


@pytest.mark.parametrize("away", [30.0, 1000.0])
def test_int8_of_one_large_channel(tmp_path, away):
    values = far(away=away)
    values[7] = 0
    item = publish(adopted(tmp_path, values), tmp_path / "t.parquet", dtype="int8", invalid="keep")
    assert [p for p in validate(item) if p.keyword != "unavailable"] == []
    asset = item.assets["embeddings"].extra_fields
    offset = np.array(asset["latent:quantization_offset"], np.float32)
    assert offset[3] == pytest.approx(away, abs=3)
    table = read_table(tmp_path / "t.parquet")
    row = table["row"].to_numpy()
    stored = np.array(table["vector"].to_pylist(), np.float32) * table["scale"].to_numpy()[:, None]
    read = np.where(stored.any(axis=1)[:, None], stored + offset, 0)
    assert np.array_equal(vectors(table), read)
    assert not read[row == 7].any()
    step = np.abs(values[row] - offset).max(axis=1) / 127
    assert (np.abs(read - values[row]) <= (0.501 * step[:, None] + 1e-7 * away))[row != 7].all()
    assert np.array_equal(np.stack(read_embeddings(tmp_path / "t.parquet")["vector"]), read)
    assert np.array_equal(np.stack(load_table(item, invalid="keep")["vector"]), read)
    how = item.properties["processing:expression"]["expression"]
    order = np.argsort(row)
    fine = np.delete(np.arange(400), 7)
    assert how["recall_at_10"] == pytest.approx(
        found_of_ten(values[fine], read[order][fine], range(0, 399, 2)), abs=0.04
    )
    assert how["recall_at_10"] > 0.9


def test_vectors_around_zero_have_no_offset(tmp_path):
    item = publish(
        adopted(tmp_path, np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)),
        tmp_path / "t.parquet",
        dtype="int8",
    )
    assert "latent:quantization_offset" not in item.assets["embeddings"].extra_fields


def test_a_vector_that_is_the_offset_is_no_vector_of_zeros(tmp_path):
    values = np.repeat(np.array([[50.0, 1, 2]], np.float32), 40, axis=0)
    values[20:] += np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32) * 0.1
    path = write(tmp_path / "t.parquet", values, dtype="int8")
    assert np.allclose(vectors(read_table(path)).max(axis=1), 50, atol=0.5)
    assert len(nearest(path, np.ones(3), 99)) == 40


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("laid_out", [False, True])
def test_the_search_is_exact_with_an_offset(tmp_path, laid_out, integer, monkeypatch):
    if integer:
        pytest.importorskip("simsimd")
    else:
        monkeypatch.setitem(__import__("sys").modules, "simsimd", None)
    values = far(300, 8)
    values[11] = 0
    path = write(tmp_path / "t.parquet", values, dtype="int8")
    assert open_table(path).offset is not None
    if laid_out:
        write_cache(open_table(path))
    queries = [values[5], np.eye(8, dtype=np.float32)[3], -values[9]]
    for metric in METRICS:
        for query in queries:
            ids, distance = brute(path, query, metric)
            found = nearest(path, query, 500, metric=metric)
            assert found["id"].tolist() == ids
            assert np.allclose(found["distance"], distance, rtol=1e-9, atol=1e-12)
            assert nearest(path, query, 7, metric=metric)["id"].tolist() == ids[:7]
            some = nearest(path, query, 7, metric=metric, where={"op": "<", "args": [{"property": "row"}, 4]})
            assert some["id"].tolist() == [i for i in ids if int(i.split("/")[1]) < 4][:7]
    to_pgvector(path, tmp_path / "t.sql")
    text = (tmp_path / "t.sql").read_text(encoding="utf-8")
    assert json.loads(text.split("\titem-0\t", 1)[1].split("\t")[5])[3] == pytest.approx(40, abs=6)


@pytest.mark.parametrize("laid_out", [False, True])
def test_tables_with_offsets_of_their_own(tmp_path, laid_out):
    """Each file is read by its own footer; joined by another library, they are refused."""
    paths = [write(tmp_path / f"{a:g}.parquet", far(200, 8, a), dtype="int8") for a in (30.0, 500.0)]
    table = open_table(paths)
    if laid_out:
        write_cache(table)
    query = far(1, 8, 500.0)[0]
    known = sorted((d, str(p)) for p in paths for d in brute(p, query, "l2")[1].tolist())
    assert np.allclose(nearest(paths, query, 400, metric="l2")["distance"], [d for d, _ in known], rtol=1e-9)
    joined = pa.concat_tables([pq.read_table(p) for p in paths])
    pq.write_table(joined, tmp_path / "joined.parquet")
    with pytest.raises(
        CorruptDataError,
        match="holds 400 rows of int8, and its footer is of 200: tables with offsets of their own were joined",
    ):
        nearest(tmp_path / "joined.parquet", query)


def test_the_page_compares_from_the_median_and_says_so(tmp_path):
    values = far(500, 16, 200.0)
    made = places_of_items(adopted(tmp_path, values), "embeddings", 1 << 24)
    (note,) = made.notes
    assert note.startswith(
        "The vectors lie far from zero together, and are compared as seen from their median. As this page has them"
    )
    told = int(note.split("find ")[1].split("%")[0]) / 100
    small = made.vectors.astype(np.float64)
    shares = []
    for row in range(0, 500, 5):
        near = []
        for x in (values.astype(np.float64), small):
            cosine = x @ x[row] / np.linalg.norm(x, axis=1)
            cosine[row] = -np.inf
            near.append(set(np.argsort(-cosine)[:10].tolist()))
        shares.append(len(near[0] & near[1]) / 10)
    assert told == pytest.approx(np.mean(shares), abs=0.06)
    assert told > 0.6


def test_the_sample_is_bounded_and_even():
    sample = RecallSample(4)
    for start in range(0, 50_000, 1000):
        sample.add(np.arange(start, start + 1000, dtype=np.float32)[:, None] + np.ones((1, 4), np.float32))
    first = sample.rows[:, 0]
    assert len(first) == len(np.unique(first)) == 2000
    assert (np.diff(first) > 0).all()
    assert first.mean() == pytest.approx(25_000, rel=0.05)
    assert RecallSample(1 << 20).recall(np.empty((0, 1 << 20), np.float32)) == 1.0


def test_an_offset_that_is_none_is_refused(tmp_path):
    path = write(tmp_path / "t.parquet", far(60, 4), dtype="int8")
    table = pq.read_table(path)
    footer = json.loads(table.schema.metadata[b"latent"])
    for bad in ([1.0], ["a"] * 4, [float("nan")] * 4, 3):
        meta = {**table.schema.metadata, b"latent": json.dumps(footer | {"latent:quantization_offset": bad})}
        pq.write_table(table.replace_schema_metadata(meta), path)
        with pytest.raises(
            CorruptDataError,
            match=r"latent:quantization_offset .*; expected a number for each of 4 channels: publish it again",
        ):
            nearest(path, np.ones(4))


@pytest.mark.parametrize("method", ["linear", "per_vector"])
def test_offsets_of_others_are_added(tmp_path, method):
    """A table on a grid gives the same numbers as a raster and as rows."""
    codes = np.arange(48).reshape(16, 3).astype(np.uint8)
    col, row = np.arange(16) % 4, np.arange(16) // 4
    places = shapely.points(10 + 0.1 * col, 50 - 0.1 * row)
    scale = (
        np.linspace(0.5, 1, 16).astype(np.float32) if method == "per_vector" else np.full(16, 0.5, np.float32)
    )
    columns = {
        "v": pa.array(codes.tolist(), pa.list_(pa.uint8())),
        "scale": pa.array(scale),
        "geometry": pa.array(shapely.to_wkb(places)),
    }
    pq.write_table(
        pa.table(columns).replace_schema_metadata({"geo": json.dumps(GEO)}), tmp_path / "g.parquet"
    )
    fields = {
        "latent:columns": ["v"],
        "latent:quantization": method,
        "latent:quantization_offset": [-3.0],
    }
    if method == "linear":
        fields["latent:quantization_scale"] = [0.5]
    items = adopt(
        "any",
        tmp_path / "g.parquet",
        tmp_path / "c",
        producer="me",
        name="n",
        version="1",
        when="2024",
        crs="EPSG:4326",
        fields=fields,
    )
    want = codes * scale[:, None] - 3
    assert np.array_equal(np.stack(load_table(items)["vector"]), want)
    assert np.array_equal(load(items, upto="latent")["latent"].to_numpy()[0].reshape(3, 16).T, want)
