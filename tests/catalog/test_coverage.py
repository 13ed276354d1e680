"""Coverage of an area: shares of cells and periods, against areas worked out otherwise."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from stac_latent import coverage
from stac_latent.catalog.coverage.picture import draw
from stac_latent.cli import app
from stac_latent.errors import CatalogError, SearchError

START = datetime(2024, 1, 1, tzinfo=UTC)


def item(name, box, when=START, end=None, **properties):
    shape = shapely.box(*box) if isinstance(box, tuple) else box
    if end is not None:
        times = {"start_datetime": when.isoformat(), "end_datetime": end.isoformat()}
        properties |= {k: v.replace("+00:00", "Z") for k, v in times.items()}
    return pystac.Item(
        name,
        shapely.geometry.mapping(shape),
        list(shape.bounds),
        None if end else when,
        properties,
        collection="c",
    )


BOXES = st.tuples(st.integers(-2, 9), st.integers(-2, 5), st.integers(1, 6), st.integers(1, 6)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(BOXES, st.integers(0, 70)), min_size=1, max_size=8))
def test_boxes_on_whole_degrees(boxes):
    """Against counting unit squares in an array."""
    items = [item(f"i{i}", box, START + timedelta(days=day)) for i, (box, day) in enumerate(boxes)]
    found = coverage(items, bbox=(0, 0, 8, 4), datetime="2024-01/2024-03", cells=4)
    assert found.cells == (2, 4)
    right = np.zeros((3, 4, 8))
    for (w, s, e, n), day in boxes:
        month = (START + timedelta(days=day)).month - 1
        right[month, 4 - min(max(n, 0), 4) : 4 - min(max(s, 0), 4), max(w, 0) : max(e, 0)] = 1
    shares = right.reshape(3, 2, 2, 4, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(found.share, shares, atol=1e-6)
    for row, share in zip(found.table(), shares, strict=True):
        assert (row["whole_cells"], row["missing_cells"]) == ((share == 1).sum(), (share == 0).sum())
        assert row["whole_cells"] + row["partial_cells"] + row["missing_cells"] == 8
    listed = list(found.missing())
    assert len(listed) == (shares < 1).sum()
    assert sum(cell["share"] for cell in listed) == pytest.approx(shares[shares < 1].sum())


@pytest.mark.parametrize(
    ("every", "interval", "count", "second"),
    [
        ("day", "2024-02-27/2024-03-01", 4, datetime(2024, 2, 28, tzinfo=UTC)),
        ("week", "2024-01-03/2024-01-31", 5, datetime(2024, 1, 10, tzinfo=UTC)),
        ("10d", "2024-01", 4, datetime(2024, 1, 11, tzinfo=UTC)),
        ("month", "2023-12-15/2024-02-01", 3, datetime(2024, 1, 1, tzinfo=UTC)),
        ("year", "2022/2024", 3, datetime(2023, 1, 1, tzinfo=UTC)),
    ],
)
def test_periods(every, interval, count, second):
    found = coverage([item("a", (0, 0, 1, 1))], bbox=(0, 0, 1, 1), datetime=interval, every=every, cells=1)
    assert len(found.periods) == count
    assert found.periods[1][0] == second
    for (_, after), (start, _) in zip(found.periods, found.periods[1:], strict=False):
        assert after == start


def test_a_span_counts_in_each_period_that_it_meets():
    span = item("a", (0, 0, 1, 1), START + timedelta(days=20), START + timedelta(days=70))
    found = coverage([span], bbox=(0, 0, 1, 1), datetime="2024-01/2024-04", cells=1)
    assert found.share[:, 0, 0].tolist() == [1, 1, 1, 0]
    assert found.items == (1, 1, 1, 0)


def test_extent_of_the_items_by_default():
    found = coverage([item("a", (0, 0, 2, 1)), item("b", (2, 0, 4, 2), START + timedelta(days=40))], cells=4)
    assert found.bbox == (0, 0, 4, 2)
    assert found.cells == (2, 4)
    assert [p[0].month for p in found.periods] == [1, 2]
    assert found.share[0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]
    assert found.share[1].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_area_is_of_the_sphere():
    """The northern half of 0 to 60 degrees north is smaller: 1 - sin 30 / sin 60 of it."""
    found = coverage([item("a", (0, 30, 1, 60))], bbox=(0, 0, 1, 60), datetime="2024-01", cells=2)
    assert found.table()[0]["area"] == pytest.approx(
        1 - np.sin(np.radians(30)) / np.sin(np.radians(60)), abs=1e-6
    )


def test_across_the_antimeridian():
    shape = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    found = coverage([item("a", shape)], bbox=(178, 0, -178, 1), datetime="2024-01", cells=4)
    assert found.bbox == (178, 0, 182, 1)
    assert found.share[0].tolist() == [[0, 1, 1, 0]]


def test_other_conditions_are_those_of_search():
    items = [
        item("a", (0, 0, 1, 1), **{"latent:kinds": ["codec"], "latent:psnr": 45.0}),
        item("b", (1, 0, 2, 1), **{"latent:kinds": ["codec"], "latent:psnr": 35.0}),
    ]
    query = {"bbox": (0, 0, 2, 1), "datetime": "2024-01", "cells": 2}
    assert coverage(items, **query).share[0].tolist() == [[1, 1]]
    assert coverage(items, min_psnr=40, **query).share[0].tolist() == [[1, 0]]
    assert coverage(items, kind="embedding", **query).table()[0]["missing_cells"] == 2


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"every": "fortnight"}, "every must be day, week, month, year, or days as '10d'; got 'fortnight'"),
        ({"every": "0d"}, "got '0d'"),
        ({"cells": 0}, "cells must be a whole number from 1 to 4096, got 0"),
        ({"bbox": (0, 0, 0, 1)}, "has no extent"),
        (
            {"cells": 4096, "every": "day", "datetime": "2020/2024"},
            "periods of .* are more than 20,000,000 in all",
        ),
        ({"min_psnr": 50}, "no item with a footprint and a time matches"),
    ],
)
def test_bad_arguments(query, message):
    with pytest.raises(CatalogError, match=message):
        coverage([item("a", (0, 0, 1, 1))], **query)


def test_malformed_footprint():
    bad = item("a", (0, 0, 1, 1))
    bad.geometry = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}
    with pytest.raises(SearchError, match="'a' has a malformed geometry"):
        coverage([bad], bbox=(0, 0, 1, 1), datetime="2024-01")


def test_map(tmp_path):
    found = coverage([item("a", (0, 0, 2, 1))], bbox=(0, 0, 4, 2), datetime="2024-01/2024-03", cells=4)
    with Image.open(draw(found, tmp_path / "map.png")) as picture:
        assert picture.size == (960, 960)
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert any(r > 150 > 2 * g for _, (r, g, b) in colours)  # red: never covered
    with pytest.raises(CatalogError, match="cannot write"):
        draw(found, tmp_path / "none" / "map.png")


def test_command(tmp_path):
    items = [item("a", (0, 0, 2, 1)), item("b", (2, 0, 4, 2), START + timedelta(days=40))]
    source = tmp_path / "items.json"
    pystac.ItemCollection(items).save_object(str(source))
    files = ["--map", str(tmp_path / "map.png"), "--missing", str(tmp_path / "missing.csv")]
    done = CliRunner().invoke(app, ["coverage", str(source), "--cells", "4", *files, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [row["missing_cells"] for row in report["periods"]] == [6, 4]
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "missing.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert rows[0] | {"share": float(rows[0]["share"])} == {
        "start": "2024-01-01T00:00:00Z", "row": "0", "column": "0", "west": "0.0", "south": "1.0", "east": "1.0",
        "north": "2.0", "share": 0.0,
    }  # fmt: skip
    shown = CliRunner().invoke(app, ["coverage", str(source), "--cells", "4"])
    assert "2024-02-01" in shown.output
