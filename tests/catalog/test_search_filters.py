"""CQL2 evaluated here: each operator, unknown values, literals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import shapely

from stac_latent.catalog.search.cql2 import compile_filter, parse_filter, properties_of
from stac_latent.catalog.search.measures import MeasuredLatent
from stac_latent.catalog.search.query import ItemRow, Query

ITEM = {
    "id": "a",
    "collection": "c",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]},
    "properties": {
        "datetime": "2024-06-05T10:00:00.5+02:00",
        "start_datetime": "2024-06-01T00:00:00Z",
        "end_datetime": "2024-06-30T00:00:00Z",
        "psnr": 40.5,
        "count": 3,
        "name": "Ångström_50%",
        "flag": True,
        "kinds": ["codec", "embedding"],
        "x": float("nan"),
        "proj:geometry": {"type": "Point", "coordinates": [1, 1]},
    },
}

CASES = {
    "psnr > 40": True,
    "psnr < 40": False,
    "psnr <> 40": True,
    "gone > 40": None,
    "NOT (gone > 40)": None,
    "gone > 40 OR psnr > 40": True,
    "gone > 40 AND psnr > 40": None,
    "gone > 40 AND psnr < 40": False,
    "gone > 40 OR psnr < 40": None,
    "gone IS NULL": True,
    "psnr IS NOT NULL": True,
    "x > 1": None,
    "NOT x > 1": None,
    "psnr = '40.5'": None,
    "name > 3": None,
    "flag = true": True,
    "flag = 1": None,
    "flag": True,
    "NOT flag": False,
    "NOT name": None,
    "properties.psnr = 40.5": True,
    "id = 'a' AND collection = 'c'": True,
    "psnr BETWEEN 40 AND 41": True,
    "psnr BETWEEN gone AND 40": False,
    "psnr BETWEEN gone AND 41": None,
    "psnr NOT BETWEEN 1 AND 2": True,
    "count IN (1, 2, 3)": True,
    "count IN (1, 2, gone)": None,
    "count NOT IN (1, 2)": True,
    "gone IN (1)": None,
    "name LIKE '%50\\%'": True,
    "name LIKE '%_50_'": True,
    "name LIKE '%50'": False,
    "name LIKE '.*'": False,
    "psnr LIKE '4%'": None,
    "CASEI(name) LIKE CASEI('ångSTRÖM%')": True,
    "ACCENTI(name) = ACCENTI('Angstrom_50%')": True,
    "ACCENTI(CASEI(name)) = 'angstrom_50%'": True,
    "CASEI(psnr) = 'a'": None,
    "ACCENTI(psnr) = 'a'": None,
    "count + 2 * count = 9": True,
    "count - 1 = 2 AND count / 2 = 1.5 AND count DIV 2 = 1 AND count % 2 = 1 AND count ^ 2 = 9": True,
    "count / 0 = 1": None,
    "count % 0 = 1": None,
    "count DIV 0 = 1": None,
    "name + 1 = 2": None,
    "(0 - count) ^ 0.5 = 1": None,
    "A_CONTAINS(kinds, ('codec'))": True,
    "A_CONTAINS(kinds, ('codec', 'other'))": False,
    "A_CONTAINS(psnr, ('codec'))": None,
    "A_CONTAINS(gone, ('codec'))": None,
    "A_CONTAINEDBY(kinds, ('codec', 'embedding', 'x'))": True,
    "A_EQUALS(kinds, ('codec', 'embedding'))": True,
    "A_OVERLAPS(kinds, ('x', 'codec'))": True,
    "A_OVERLAPS(kinds, ('x'))": False,
    "datetime = TIMESTAMP('2024-06-05T08:00:00.500Z')": True,
    "datetime < DATE('2024-06-06')": True,
    "datetime > '2024-06-05T08:00:00Z'": True,
    "datetime > 'never'": None,
    "datetime > 3": None,
    "T_AFTER(datetime, TIMESTAMP('2024-06-05T00:00:00Z'))": True,
    "T_BEFORE(datetime, DATE('2024-06-05'))": False,
    "T_DURING(datetime, INTERVAL('2024-06-01', '2024-07-01'))": True,
    "T_INTERSECTS(datetime, INTERVAL('2024-06-06', '..'))": False,
    "T_INTERSECTS(INTERVAL(start_datetime, end_datetime), INTERVAL('2024-06-30', '..'))": True,
    "T_DISJOINT(INTERVAL(start_datetime, end_datetime), INTERVAL('..', '2024-05-30'))": True,
    "T_CONTAINS(INTERVAL(start_datetime, end_datetime), datetime)": True,
    "T_EQUALS(datetime, datetime)": True,
    "T_STARTS(INTERVAL('2024-06-01', '2024-06-02'), INTERVAL(start_datetime, end_datetime))": True,
    "T_STARTEDBY(INTERVAL(start_datetime, end_datetime), INTERVAL('2024-06-01', '2024-06-02'))": True,
    "T_FINISHES(INTERVAL('2024-06-10', '2024-06-30'), INTERVAL(start_datetime, end_datetime))": True,
    "T_FINISHEDBY(INTERVAL(start_datetime, end_datetime), INTERVAL('2024-06-10', '2024-06-30'))": True,
    "T_MEETS(INTERVAL(start_datetime, end_datetime), INTERVAL('2024-06-30', '..'))": True,
    "T_METBY(INTERVAL(start_datetime, end_datetime), INTERVAL('..', '2024-06-01'))": True,
    "T_OVERLAPS(INTERVAL(start_datetime, end_datetime), INTERVAL('2024-06-10', '..'))": True,
    "T_OVERLAPPEDBY(INTERVAL(start_datetime, end_datetime), INTERVAL('..', '2024-06-10'))": True,
    "T_AFTER(gone, DATE('2024-06-05'))": None,
    "T_AFTER(name, DATE('2024-06-05'))": None,
    "T_AFTER(count, DATE('2024-06-05'))": None,
    "S_INTERSECTS(geometry, POINT(1 1))": True,
    "S_INTERSECTS(geometry, BBOX(3, 3, 9, 9))": True,
    "S_INTERSECTS(geometry, BBOX(3, 3, 0, 9, 9, 5))": True,
    "S_WITHIN(geometry, BBOX(-1, -1, 5, 5))": True,
    "S_CONTAINS(geometry, POINT(9 9))": False,
    "S_DISJOINT(geometry, POINT(9 9))": True,
    "S_TOUCHES(geometry, POINT(0 0))": True,
    "S_EQUALS(geometry, POLYGON((0 0, 0 4, 4 4, 4 0, 0 0)))": True,
    "S_OVERLAPS(geometry, POLYGON((2 2, 9 2, 9 9, 2 9, 2 2)))": True,
    "S_CROSSES(geometry, LINESTRING(-1 1, 9 1))": True,
    "S_INTERSECTS(name, POINT(1 1))": None,
    "S_INTERSECTS(gone, POINT(1 1))": None,
}


@pytest.mark.parametrize("text", CASES)
def test_operators(text):
    assert compile_filter(parse_filter(text))(ItemRow(ITEM)) is CASES[text]


def test_json_forms():
    row = ItemRow(ITEM)
    null = {"op": "=", "args": [{"property": "count"}, None]}
    assert compile_filter(null)(row) is None
    assert compile_filter(True)(row) is True
    mixed = {"op": "AND", "args": [{"op": "A_Contains", "args": [{"property": "kinds"}, ["codec"]]}, True]}
    assert compile_filter(mixed)(row) is True
    assert parse_filter('{"op": "isNull", "args": [{"property": "psnr"}]}') == {
        "op": "isNull",
        "args": [{"property": "psnr"}],
    }


def test_properties_that_a_query_reads():
    text = "a > b + 1 AND T_AFTER(INTERVAL(c, '..'), DATE('2024-01-01')) OR d IN (e, 'f') AND NOT g IS NULL"
    assert properties_of(parse_filter(text)) == set("abcdeg")
    query = Query.parse(
        bbox=(0, 0, 1, 1),
        datetime="2024",
        ids="x",
        collections="y",
        latent=MeasuredLatent.parse("codec", min_psnr=1),
    )
    times = {"datetime", "start_datetime", "end_datetime"}
    assert (
        query.properties()
        == {"geometry", "id", "collection", "latent:kinds", "latent:psnr", "latent:max_error"} | times
    )
    assert Query.parse().properties() == set()


def test_places():
    inside = ItemRow(ITEM)
    for place in ((4, 4, 5, 5), (2, 2, 2, 2), (2, -5, 2, 5), (-5, 2, 5, 2), (4, 4, 4, 4), (170, -5, 0, 5)):
        assert Query.parse(bbox=place).matches(inside), place
    for place in ((4.1, 4, 5, 5), (5, 5, 5, 5), (170, -5, -1, 5), (5, 0, 180, 4)):
        assert not Query.parse(bbox=place).matches(inside), place
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {}}
    for place in (
        feature,
        feature["geometry"],
        shapely.Point(1, 1),
        '{"type": "Point", "coordinates": [1, 1]}',
    ):
        assert Query.parse(intersects=place).matches(inside)
    assert not Query.parse(intersects=shapely.Point(9, 9)).matches(inside)


def test_times():
    june = {
        **ITEM,
        "properties": {"datetime": None, **{k: v for k, v in ITEM["properties"].items() if "_date" in k}},
    }
    for time in ("2024", "2024-06", "2024-06-30", "2024-06-30/..", "../2024-06-01", "2024-06-30T00:00:00Z"):
        assert Query.parse(datetime=time).matches(ItemRow(june)), time
    for time in ("2025", "2024-05", "2024-06-30T00:00:00.000001Z/..", "../2024-05-31", datetime(2024, 5, 31)):  # noqa: DTZ001
        assert not Query.parse(datetime=time).matches(ItemRow(june)), time
    instant = {**ITEM, "properties": {"datetime": "2024-02-29T23:59:59.9Z"}}
    for time in ("2024-02", "2024-02-29", "2024-02-29/2024-03", (None, datetime(2024, 3, 1, tzinfo=UTC))):
        assert Query.parse(datetime=time).matches(ItemRow(instant)), time
    assert Query.parse(datetime="2023-02").interval == "2023-02-01T00:00:00Z/2023-02-28T23:59:59.999999Z"
    assert Query.parse(datetime="2024-06-05T10:00:00+02:00").interval == "2024-06-05T08:00:00Z"
    assert Query.parse(datetime="../9999").interval == "../9999-12-31T23:59:59.999999Z"
