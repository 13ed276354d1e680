"""Times of adopted files: every form that is read, and those that are refused; truth is written out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime

import adopt_support as files
import numpy as np
import pyarrow as pa
import pytest

from stac_latent import adopt
from stac_latent.catalog.adopt.period import moments, period, time_of
from stac_latent.errors import CatalogError

DAYS = ["2020-05-10", "2021-02-03", "2022-07-08"]


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def rows(column):
    return moments(pa.chunked_array([column]), "t").to_pylist()


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("2024", utc(2024, 1, 1), utc(2024, 12, 31, 23, 59, 59)),
        (2024, utc(2024, 1, 1), utc(2024, 12, 31, 23, 59, 59)),
        (2024.0, utc(2024, 1, 1), utc(2024, 12, 31, 23, 59, 59)),
        ("2024-2", utc(2024, 2, 1), utc(2024, 2, 29, 23, 59, 59)),
        ("20240601", utc(2024, 6, 1), utc(2024, 6, 1, 23, 59, 59)),
        ("2024/6/1", utc(2024, 6, 1), utc(2024, 6, 1, 23, 59, 59)),
        (date(2024, 6, 1), utc(2024, 6, 1), utc(2024, 6, 1, 23, 59, 59)),
        ("2024-6-1 10:30", utc(2024, 6, 1, 10, 30), utc(2024, 6, 1, 10, 30)),
        ("20240601T103031", utc(2024, 6, 1, 10, 30, 31), utc(2024, 6, 1, 10, 30, 31)),
        ("2024-06-01T10:30:31+02:00", utc(2024, 6, 1, 8, 30, 31), utc(2024, 6, 1, 8, 30, 31)),
        ("1 June 2024", utc(2024, 6, 1), utc(2024, 6, 1)),
        ("2023-12/2024-01-02", utc(2023, 12, 1), utc(2024, 1, 2, 23, 59, 59)),
    ],
)
def test_forms_that_are_read(value, first, last):
    assert period(value) == (first, last)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("25/03/2020", "day and month cannot be told apart; write the year first"),
        ("04.05.2020", "day and month cannot be told apart"),
        ("202005", "it is a number, and neither a year nor a day written as 20240601"),
        (202005, "the number is no year and no day written as 20240601"),
        (2020.5, "years with fractions, do not say from when"),
        (1654012312000, "count seconds, milliseconds or days"),
        (True, "it is of type bool"),
        ("2020-02-30", "day is out of range"),
        ("2021/2020", "it ends before it begins"),
        ("2020/2021/2022/2023", "more than one '/'"),
    ],
)
def test_forms_that_are_refused(value, message):
    with pytest.raises(CatalogError, match=message):
        period(value)


def test_columns_of_every_type_give_the_time_of_each_row():
    wanted = [utc(2020, 5, 10), utc(2021, 2, 3), utc(2022, 7, 8)]
    stamps = pa.array(wanted, pa.timestamp("ms", tz="UTC"))
    days = pa.array([d.date() for d in wanted], pa.date32())
    intervals = pa.array([f"{d}/{d}" for d in DAYS])
    numbers = pa.array([20200510, 20210203, 20220708])
    texts = pa.array(DAYS)
    for column in (
        stamps,
        days,
        texts,
        texts.dictionary_encode(),
        stamps.dictionary_encode(),
        numbers,
        intervals,
    ):
        assert rows(column) == wanted, column.type
    assert rows(pa.array(["2020-05-10", " ", None, "NaT"])) == [utc(2020, 5, 10), None, None, None]
    assert rows(pa.array([2020.0, float("nan"), None])) == [utc(2020, 1, 1), None, None]
    assert rows(pa.nulls(2)) == [None, None]


@pytest.mark.parametrize(
    ("column", "first", "last"),
    [
        (["2020-12-1", "2020-5-10", "2020-10-3"], utc(2020, 5, 10), utc(2020, 12, 1)),
        (["2021", "2020", ""], utc(2020, 1, 1), utc(2021, 12, 31, 23, 59, 59)),
        (
            ["2020-01-01/2020-03-01", "2019-05-01/2019-06-01", None],
            utc(2019, 5, 1),
            utc(2020, 3, 1, 23, 59, 59),
        ),
    ],
)
def test_values_are_read_before_they_are_compared(tmp_path, column, first, last):
    """First and last are those of the times, not those of their texts."""
    columns = files.major_tom_columns(files.vectors_of(0, 3)) | {"timestamp": pa.array(column)}
    path = files.write_table(tmp_path / "a.parquet", columns, files.geo_footer(), row_group_size=2)
    (item,) = adopt("major-tom", path, tmp_path / "catalog", version="1")
    assert (item.common_metadata.start_datetime, item.common_metadata.end_datetime) == (first, last)


def test_a_column_that_counts_is_refused_with_the_way_out(tmp_path):
    columns = files.major_tom_columns(files.vectors_of(0, 3))
    columns["timestamp"] = pa.array(np.array([1589068800000] * 3))
    path = files.write_table(tmp_path / "a.parquet", columns, files.geo_footer())
    with pytest.raises(
        CatalogError, match=r"'timestamp' holds 1589068800000, which is no time: .*unit=.*or --datetime"
    ):
        adopt("major-tom", path, tmp_path / "catalog", version="1")
    (item,) = adopt("major-tom", path, tmp_path / "catalog", version="1", when="2020-05-10")
    assert item.common_metadata.start_datetime == utc(2020, 5, 10)


YEARS = {"href": [r"annual/(\d{4})/", r"(?:^|[/_.-])(\d{4}(?:\d{4})?)(?=[/_.-]|$)"], "years": [2017, None]}


@pytest.mark.parametrize(
    ("href", "year"),
    [
        ("aef_2021/tile_2048.tif", 2021),
        ("2019/grid_1920_2040.tif", 2019),
        ("/data/project_2015/2024/tile.tif", 2024),
        ("/data/2018/annual/2024/tile.tif", 2024),
        ("https://2020.example.org/2023/tile.tif", 2023),
        ("/data/2024/tile_20240601.tif", 2024),
    ],
)
def test_years_of_addresses_are_those_that_the_product_can_have(href, year):
    assert time_of(YEARS, href)[0].year == year


def test_the_narrower_of_two_times_that_agree():
    assert time_of(YEARS, "/data/2024/tile_20240601.tif")[0] == utc(2024, 6, 1)


def test_addresses_that_say_two_years_or_none_are_refused():
    with pytest.raises(
        CatalogError, match=r"names several times \(2018, 2020\); state which one it is of with --datetime"
    ):
        time_of(YEARS, "/data/2018/x_2020.tif")
    with pytest.raises(CatalogError, match="nothing says of when it is"):
        time_of(YEARS, "project_2015/tile_2048.tif")
