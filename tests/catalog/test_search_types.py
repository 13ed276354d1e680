"""stac-geoparquet of other writers: the types that they choose for times, text and numbers, and what numbers compare with."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS

from stac_latent import search
from stac_latent.catalog.search.arrow import python_values
from stac_latent.errors import SearchError

TIMES = [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3)]
PLACES = shapely.box(10 + np.arange(3), 50, 10.5 + np.arange(3), 51)


def written(path, footer="", **columns):
    """Three Items a, b and c of 2024-01, -02 and -03."""
    table = {
        "id": pa.array(["a", "b", "c"]),
        "geometry": pa.array(shapely.to_wkb(PLACES)),
        "collection": pa.array(["k"] * 3),
        "links": pa.array([[{"href": "./x.json", "rel": "self"}]] * 3),
        "assets": pa.array([{"d": {"href": "./d.tif", "type": "image/tiff"}}] * 3),
        "datetime": pa.array(TIMES, pa.timestamp("us", "UTC")),
    } | columns
    pq.write_table(pa.table(table).replace_schema_metadata({"geo": footer} if footer else None), path)
    return path


def found(path, **query):
    return [i.id for i in search(path, **query)]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([t.isoformat() for t in TIMES]),
        pa.array([t.isoformat() for t in TIMES], pa.string_view()),
        pa.array([t.isoformat() for t in TIMES]).dictionary_encode(),
        pa.array(["2024-01-01T00:00:00", "2024-02-01T00:00:00", "2024-03-01"], pa.large_string()),
        pa.array(TIMES, pa.timestamp("us", "UTC")).cast(pa.date32()),
        pa.array(TIMES, pa.timestamp("us", "UTC")).cast(pa.date64()),
        pa.array(TIMES, pa.timestamp("ns", "Europe/Berlin")),
        pa.array(TIMES, pa.timestamp("us", "UTC")).dictionary_encode(),
    ],
    ids=lambda a: str(a.type),
)
def test_times_of_any_type(tmp_path, times):
    path = written(tmp_path / "items.parquet", datetime=times)
    assert [i.datetime for i in search(path)] == TIMES
    assert found(path, datetime="2024-02") == ["b"]
    later = {"op": "t_after", "args": [{"property": "datetime"}, {"timestamp": "2024-01-15T00:00:00Z"}]}
    assert found(path, filter=later) == ["b", "c"]


def test_a_text_that_is_no_time(tmp_path):
    path = written(tmp_path / "items.parquet", datetime=pa.array(["2024-01-01", "last week", None]))
    with pytest.raises(
        SearchError, match=r"column 'datetime' is string and holds no RFC 3339 times \(.*'last week'"
    ):
        found(path, datetime="2024")


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_text_of_any_type(tmp_path, kind):
    path = written(
        tmp_path / "items.parquet", id=pa.array(["a", "b", "c"], kind), platform=pa.array(["x", "y", None], kind),
        assets=pa.array([{"d": {"href": "./d.tif"}}] * 3, pa.struct([("d", pa.struct([("href", kind)]))])) if "view" in str(kind)
        else pa.array([{"d": {"href": "./d.tif"}}] * 3),
    )  # fmt: skip
    assert found(path, filter={"op": "=", "args": [{"property": "platform"}, "y"]}) == ["b"]
    (item,) = search(path, ids="c")
    assert item.assets["d"].href.endswith("d.tif")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float32(), [0.7, 0.9, None]),
        (pa.float16(), [0.7, 0.9, None]),
        (pa.decimal128(5, 2), [None, None, None]),
        (pa.float64(), [0.7, 0.9, None]),
    ],
    ids=str,
)
def test_numbers_are_what_was_written(tmp_path, kind, values):
    """0.9 in float32 is at least 0.9, and a decimal is a number."""
    if pa.types.is_decimal(kind):
        numbers = pa.array([0.7, 0.9, None]).cast(kind)
    else:
        numbers = pa.array(
            [None if v is None else np.float16(v) for v in values] if kind == pa.float16() else values, kind
        )
    path = written(tmp_path / "items.parquet", **{"eo:snow_cover": numbers, "latent:psnr": numbers})
    cover = {"property": "eo:snow_cover"}
    assert found(path, filter={"op": ">=", "args": [cover, 0.9]}) == ["b"]
    assert found(path, filter={"op": "=", "args": [cover, 0.7]}) == ["a"]
    assert found(path, filter={"op": "between", "args": [cover, 0.7, 0.9]}) == ["a", "b"]
    assert found(path, min_psnr=0.9) == ["b"]
    assert [i.properties.get("eo:snow_cover") for i in search(path)] == [0.7, 0.9, None]


def test_whole_decimals_are_whole_numbers():
    assert python_values(pa.array([2, None], pa.decimal128(5, 0))) == [2, None]
    assert python_values(pa.array([[0.1], None], pa.list_(pa.float32()))) == [[0.1], None]
    assert python_values(pa.array([float("nan")], pa.float32()))[0] != 0


def test_a_measure_of_the_extension_as_text_is_refused(tmp_path):
    path = written(tmp_path / "items.parquet", **{"latent:psnr": pa.array(["40", "50", None])})
    with pytest.raises(
        SearchError,
        match=r"has 'latent:psnr' as text \(string\), which no number compares with; write the column as numbers",
    ):
        found(path, min_psnr=45)
    assert found(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            {"id": pa.array([1, 2, 3])},
            "has ids of int64, where a property is a column of its own and ids are text",
        ),
        (
            {"properties": pa.array([{"gsd": 1}] * 3)},
            "has a column 'properties', where a property is a column of its own",
        ),
    ],
)
def test_tables_that_are_none_of_items(tmp_path, columns, text):
    with pytest.raises(SearchError, match=text):
        found(written(tmp_path / "items.parquet", **columns))


def test_geometries_in_another_crs_are_brought_to_degrees(tmp_path):
    utm = shapely.box(500_000 + 1e5 * np.arange(3), 5_500_000, 510_000 + 1e5 * np.arange(3), 5_510_000)
    column = {"encoding": "WKB", "geometry_types": [], "crs": CRS(32633).to_json_dict()}
    footer = json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}})
    path = written(tmp_path / "items.parquet", footer, geometry=pa.array(shapely.to_wkb(utm)))
    assert found(path, bbox=(15, 49, 15.5, 50)) == ["a"]
    west, south, _, _ = shapely.geometry.shape(next(iter(search(path))).geometry).bounds
    assert (west, south) == pytest.approx((15, 49.646), abs=1e-2)


def test_items_of_a_period_without_the_column_datetime(tmp_path):
    ends = pa.array([t.replace(day=20) for t in TIMES], pa.timestamp("us", "UTC"))
    path = written(
        tmp_path / "items.parquet",
        start_datetime=pa.array(TIMES, pa.timestamp("ms", "UTC")),
        end_datetime=ends,
    )
    pq.write_table(pq.read_table(path).drop_columns(["datetime"]), path)
    assert found(path, datetime="2024-02-05/2024-02-06") == ["b"]
    assert found(path, datetime="2024-02-21/2024-02-28") == []
    assert next(iter(search(path))).common_metadata.end_datetime == TIMES[0].replace(day=20)


def test_a_second_geometry_and_boxes_as_lists(tmp_path):
    """As GeoParquet 1.0 files have them."""
    columns = {name: {"encoding": "WKB", "geometry_types": []} for name in ("geometry", "proj:geometry")}
    footer = json.dumps({"version": "1.0.0", "primary_column": "geometry", "columns": columns})
    other = {
        "proj:geometry": pa.array(shapely.to_wkb(PLACES)),
        "bbox": pa.array(shapely.bounds(PLACES).tolist()),
    }
    (item,) = search(written(tmp_path / "items.parquet", footer, **other), bbox=(11.1, 50.1, 11.2, 50.2))
    assert (item.id, item.bbox) == ("b", [11.0, 50.0, 11.5, 51.0])
    assert item.properties["proj:geometry"]["type"] == "Polygon"
