"""Parquet files as other writers leave them: footers that are wrong, geometries without one, unusual types of columns."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS

from stac_latent import adopt, load_table, nearest, publish
from stac_latent.errors import CorruptDataError, GridError, StacLatentError

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
BOXES = shapely.box(10 + 0.01 * np.arange(6), 50, 10.01 + 0.01 * np.arange(6), 50.01)
ENGINEERING = {
    "type": "EngineeringCRS",
    "name": "site",
    "datum": {"type": "EngineeringDatum", "name": "peg"},
    "coordinate_system": {
        "subtype": "Cartesian",
        "axis": [
            {"name": name, "abbreviation": name, "direction": to, "unit": "metre"}
            for name, to in (("x", "east"), ("y", "north"))
        ],
    },
}  # fmt: skip


def geo(**column):
    column = {"encoding": "WKB", "geometry_types": []} | column
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def written(path, footer=None, *, vector=None, geometry=None, extra=()):
    """A file with vectors ``v`` and geometries; ``footer`` is the text under ``geo``."""
    shapes = pa.array(shapely.to_wkb(BOXES)) if geometry is None else geometry
    vector = pa.array(VECTORS.tolist(), pa.list_(pa.float32())) if vector is None else vector
    names, columns = ["v", "geometry"], [vector, shapes]
    for name, values in extra:
        names.append(name)
        columns.append(values)
    text = json.dumps(geo()) if footer is None else footer
    pq.write_table(
        pa.table(columns, names=names).replace_schema_metadata({"geo": text} if text else None), path
    )
    return path


def adopted(path, **options):
    told = {"producer": "me", "name": "mine", "version": "1", "when": "2024"}
    return adopt(
        "any",
        path,
        path.parent / f"of-{path.stem}",
        fields={"latent:columns": ["v"]},
        **told,
        **options,
    )


def ranked(path, **options):
    """Numbers of the rows that are nearest to the third."""
    publish(adopted(path), path.with_suffix(".published.parquet"), dtype="float32", **options)
    return nearest(path.with_suffix(".published.parquet"), VECTORS[2], k=99)["row"].tolist()


def truth(values=VECTORS):
    v = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        far = 1 - v @ VECTORS[2] / np.linalg.norm(v, axis=1) / np.linalg.norm(VECTORS[2])
    return [i for i in np.argsort(far, kind="stable").tolist() if np.isfinite(far[i])]


@pytest.mark.parametrize(
    ("footer", "text"),
    [
        ("{", "the 'geo' footer of .* is no JSON"),
        (json.dumps("geometry"), "holds 'geometry'; expected an object with primary_column and columns"),
        (json.dumps({**geo(), "columns": [geo()]}), "expected an object with primary_column and columns"),
        (json.dumps({**geo(), "columns": "geometry"}), "expected an object with primary_column and columns"),
        (json.dumps({**geo(), "primary_column": ["geometry"]}), r"primary_column \"\['geometry'\]\"; expected the name"),
        (json.dumps({"columns": geo()["columns"]}), r"primary_column 'None'; expected .* \(geometry\): write the file again"),
        (json.dumps({"primary_column": "g", "columns": {"g": {"encoding": "WKB"}}}), "names the geometry 'g', which is no column"),
        (json.dumps(geo(crs="")), "gives 'geometry' the CRS ''; expected PROJJSON"),
    ],
)  # fmt: skip
def test_footers_that_are_not_geoparquet(tmp_path, footer, text):
    with pytest.raises(CorruptDataError, match=text):
        adopted(written(tmp_path / "t.parquet", footer))


def test_a_crs_that_leads_nowhere(tmp_path):
    path = written(tmp_path / "t.parquet", json.dumps(geo(crs=ENGINEERING)))
    with pytest.raises(
        GridError,
        match=r"its geometry is in site, from which nothing leads to .*; write it in a CRS of the Earth",
    ):
        adopted(path)


@pytest.mark.parametrize("name", ["v", "geometry"])
def test_two_columns_of_one_name(tmp_path, name):
    other = written(tmp_path / "one.parquet")
    column = pq.read_table(other)[name]
    path = written(tmp_path / "two.parquet", extra=[(name, column)])
    with pytest.raises(
        CorruptDataError, match=f"has several columns '{name}', and which is meant is not known"
    ):
        adopted(path)


def test_two_columns_of_a_name_that_nobody_reads(tmp_path):
    more = [("note", pa.array(list("abcdef")))] * 2
    assert ranked(written(tmp_path / "t.parquet", extra=more)) == truth()


def test_a_geometry_of_another_srid_than_its_column(tmp_path):
    marked = shapely.to_wkb(shapely.set_srid(BOXES, 32633), include_srid=True)
    with pytest.raises(
        CorruptDataError, match=r"SRID 32633 \(EWKB\), and the column's CRS is WGS 84 \(CRS84\)"
    ):
        adopted(written(tmp_path / "t.parquet", geometry=pa.array(marked)))
    same = shapely.to_wkb(shapely.set_srid(BOXES, 4326), include_srid=True)
    assert ranked(written(tmp_path / "u.parquet", geometry=pa.array(same))) == truth()


@pytest.mark.parametrize("crs", ["", "OGC:CRS84", CRS(32633).to_json()])
def test_the_geometry_of_parquet_itself(tmp_path, crs):
    """DuckDB writes the logical type GEOMETRY, without a GeoParquet footer."""
    duckdb = pytest.importorskip("duckdb")
    place = shapely.box(500_000, 5_500_000, 500_100, 5_500_100) if "32633" in crs else BOXES[0]
    source = written(tmp_path / "source.parquet", extra=[("wkt", pa.array([place.wkt] * 6))])
    path = tmp_path / "duck.parquet"
    kind = f"GEOMETRY('{crs}')" if crs else "GEOMETRY"
    duckdb.sql(
        f"COPY (SELECT v, wkt::{kind} AS geometry FROM '{source}') TO '{path}' (FORMAT parquet, GEOPARQUET_VERSION 'NONE')"  # noqa: S608
    )
    assert b"geo" not in (pq.read_schema(path).metadata or {})
    (item,) = adopted(path)
    assert item.properties["table:primary_geometry"] == "geometry"
    lon, lat = shapely.box(*item.bbox).centroid.coords[0]
    assert (lon, lat) == pytest.approx((15, 49.65) if "32633" in crs else (10.005, 50.005), abs=0.01)


@pytest.mark.parametrize("empty", [999, 1000, 2500])
def test_the_first_thousand_rows_may_be_empty(tmp_path, empty):
    rows = pa.array([None] * empty + VECTORS.tolist(), pa.list_(pa.float32()))
    shapes = shapely.to_wkb(np.concatenate([np.repeat(BOXES[:1], empty), BOXES]))
    path = written(tmp_path / "t.parquet", vector=rows, geometry=pa.array(shapes))
    assert ranked(path, invalid="drop") == [empty + i for i in truth()]


@pytest.mark.parametrize("empty", [None, 4])
@pytest.mark.parametrize(
    "kind", [pa.list_view(pa.float32()), pa.large_list_view(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 4)], ids=str
)  # fmt: skip
def test_types_of_lists(tmp_path, kind, empty):
    rows = [None if i == empty else [np.float16(x) for x in r] for i, r in enumerate(VECTORS)]
    read = np.array([[np.nan] * 4 if r is None else r for r in rows], np.float32)
    vector = (
        pa.array([None if r is None else list(map(float, r)) for r in rows], kind)
        if kind.value_type != pa.float16()
        else pa.array(rows, kind)
    )
    assert ranked(written(tmp_path / "t.parquet", vector=vector), invalid="drop") == truth(read)


def test_tensors_of_one_axis_are_vectors(tmp_path):
    flat = pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS)
    assert ranked(written(tmp_path / "t.parquet", vector=flat)) == truth()
    square = pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS.reshape(6, 2, 2))
    with pytest.raises(
        CorruptDataError,
        match=r"v: extension<arrow.fixed_shape_tensor.*> is no vector; expected one column of lists",
    ):
        adopted(written(tmp_path / "u.parquet", vector=square))


def test_numbers_beyond_float32_are_said(tmp_path):
    """1e40 is infinite and 1e-60 zero as float32: named, or left out on request."""
    rows = VECTORS.astype(np.float64)
    rows[1] *= 1e40
    rows[4] *= 1e-60
    path = written(tmp_path / "t.parquet", vector=pa.array(rows.tolist(), pa.list_(pa.float64())))
    items = adopted(path)
    said = r"1 with NaN or infinite numbers \(first: row 1\) and 1 of zeros alone \(first: row 4\).* read as float32, which ends at 3.4e38"
    with pytest.raises(CorruptDataError, match=said):
        publish(items, tmp_path / "all.parquet", dtype="float32")
    assert ranked(path, invalid="drop") == [i for i in truth() if i not in (1, 4)]


def test_points_among_polygons_are_found_a_metre_off(tmp_path):
    shapes = BOXES.copy()
    shapes[3] = shapely.Point(20, 40)
    path = written(tmp_path / "t.parquet", geometry=pa.array(shapely.to_wkb(shapes)))
    publish(adopted(path), tmp_path / "v.parquet", dtype="float32")
    assert nearest(tmp_path / "v.parquet", (20.000005, 40.000005), k=1)["row"].tolist() == [3]
    with pytest.raises(
        StacLatentError,
        match=r"no row of .* lies at lon=10, lat=50.005; its rows lie within longitudes 10 to 20",
    ):
        nearest(tmp_path / "v.parquet", (9.999995, 50.005), k=1)  # polygons are where they are


def test_codes_of_two_files_with_scales_of_their_own(tmp_path):
    """One scale for both would bring vectors close that are not."""
    codes = np.random.default_rng(1).integers(-128, 128, (6, 4)).astype(np.int8)
    for name, scale, zero in (("a", 0.5, 3.0), ("b", 0.01, -2.0)):
        path = written(tmp_path / f"{name}.parquet", vector=pa.array(codes.tolist(), pa.list_(pa.int8())))
        told = {"producer": "me", "name": "mine", "version": "1", "when": "2024"}
        fields = {"latent:columns": ["v"], "latent:quantization": "linear"}
        fields |= {"latent:quantization_scale": [scale], "latent:quantization_offset": [-scale * zero]}
        items = adopt("any", path, tmp_path / name, fields=fields, **told)
        assert np.allclose(np.stack(load_table(items)["vector"]), (codes - zero) * scale, rtol=1e-6)
        publish(items, tmp_path / f"{name}.published.parquet", dtype="float32")
    both = [tmp_path / f"{name}.published.parquet" for name in "ab"]
    got = nearest(both, ((codes[2] + 2.0) * 0.01).astype(np.float32), 1, metric="l2")
    assert (got["row"][0], got["distance"][0]) == (2, pytest.approx(0, abs=1e-6))


def test_a_place_twice_is_two_rows(tmp_path):
    """Products repeat a cell for another date."""
    times = pa.array([datetime(2024, 1, d, tzinfo=UTC) for d in (1, 2, 3, 4, 5, 6)])
    shapes = BOXES.copy()
    shapes[4] = shapes[1]
    path = tmp_path / "t.parquet"
    columns = {
        "embedding": pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
        "timestamp": times,
        "geometry": pa.array(shapely.to_wkb(shapes)),
    }
    pq.write_table(pa.table(columns).replace_schema_metadata({"geo": json.dumps(geo())}), path)
    publish(adopt("major-tom", path, tmp_path / "c", version="1"), tmp_path / "v.parquet", dtype="float32")
    there = nearest(tmp_path / "v.parquet", (10.015, 50.005), 99, bbox=(10.012, 50.001, 10.018, 50.009))
    assert sorted(there["row"]) == [1, 4]
    assert there["row"][0] == 4  # the latest is looked for
    assert nearest(tmp_path / "v.parquet", (10.015, 50.005, "2024-01-02"), 1)["row"].tolist() == [1]


def test_rows_at_the_meridian_and_across_180_degrees_in_one_group(tmp_path):
    shapes = BOXES.copy()
    shapes[0] = shapely.box(-0.01, 50, 0.01, 50.01)
    shapes[1] = shapely.MultiPolygon(
        [shapely.box(179.99, 50, 180, 50.01), shapely.box(-180, 50, -179.99, 50.01)]
    )
    path = written(tmp_path / "t.parquet", geometry=pa.array(shapely.to_wkb(shapes)))
    publish(adopted(path), tmp_path / "v.parquet", dtype="float32")
    for bbox, rows in (((-1, 49, 1, 51), [0]), ((179, 49, -179, 51), [1]), ((9, 49, 11, 51), [2, 3, 4, 5])):
        assert sorted(nearest(tmp_path / "v.parquet", np.ones(4), 99, bbox=bbox)["row"]) == rows
    with pytest.raises(StacLatentError, match=r"no row of .* matches bbox"):
        nearest(tmp_path / "v.parquet", np.ones(4), bbox=(90, 49, 91, 51))
    assert nearest(tmp_path / "v.parquet", (-179.995, 50.005), 1)["row"].tolist() == [1]
