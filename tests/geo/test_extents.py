"""Boxes with heights, across 180 degrees or missing, geometries of null, times with offsets: what is written is valid and tells the truth."""

from __future__ import annotations

import json

import numpy as np
import pystac
import pytest
import shapely
from core_support import check
from test_crs import pixels, raster_item

from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.search.search import search
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.load import load
from stac_latent.errors import SearchError
from stac_latent.geo.extents import bbox_of, extent_of, flat_bbox, in_utc, spanning

UTM = "EPSG:32633"


def scene(folder, name="a", **kw):
    return raster_item(folder, UTM, pixels(), name=name, **kw)


def collection(folder):
    return json.loads((folder / "o/c/collection.json").read_text())["extent"]


def codec():
    return open_codec("zstd", bands=["v"])


def test_boxes_with_heights_widen_a_collection_on_the_ground(tmp_path):
    first, second = scene(tmp_path), scene(tmp_path, "b")
    first.bbox = [13.6, 46.0, 0, 13.8, 46.1, 900]
    second.bbox = [13.7, 45.5, -20, 14.0, 46.0, 300]
    encode([first, second], codec(), tmp_path / "o")
    assert collection(tmp_path)["spatial"]["bbox"] == [[13.6, 45.5, 14.0, 46.1]]


def test_boxes_across_the_antimeridian_widen_over_it(tmp_path):
    first, second = scene(tmp_path), scene(tmp_path, "b")
    first.bbox, second.bbox = [179.9, -18.0, -179.9, -17.0], [-179.0, -18.0, -178.0, -17.5]
    encode([first, second], codec(), tmp_path / "o")
    assert collection(tmp_path)["spatial"]["bbox"] == [[179.9, -18.0, -178.0, -17.0]]


def test_a_geometry_of_null_is_encoded_and_the_collection_says_where_the_raster_lies(tmp_path):
    item = scene(tmp_path)
    item.geometry = item.bbox = None
    (made,) = encode(item, codec(), tmp_path / "o")
    check(made)
    np.testing.assert_array_equal(load(made).v.values[0], pixels())
    (box,) = collection(tmp_path)["spatial"]["bbox"]
    assert box == pytest.approx([9.55, 8.76, 9.85, 9.02], abs=0.05)


def test_a_geometry_without_a_box_gets_one(tmp_path):
    item = scene(tmp_path)
    item.bbox = None
    halves = shapely.MultiPolygon([shapely.box(179, -1, 180, 1), shapely.box(-180, -1, -179.5, 1)])
    item.geometry = shapely.geometry.mapping(halves)
    (made,) = encode(item, codec(), tmp_path / "o")
    check(made)
    assert made.bbox == [179, -1, -179.5, 1]
    assert collection(tmp_path)["spatial"]["bbox"] == [[179, -1, -179.5, 1]]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-06-01T02:00:00+05:30", "2024-05-31T20:30:00"),
        ("2024-06-01T22:00:00.125-03:00", "2024-06-02T01:00:00.125"),
        ("2024-06-01T10:00:00Z", "2024-06-01T10:00:00"),
    ],
)
def test_times_with_an_offset_are_utc_everywhere(tmp_path, text, utc):
    doc = scene(tmp_path).to_dict()
    doc["properties"] = {"datetime": text, "created": text}
    item = pystac.Item.from_dict(doc)
    (made,) = encode(item, codec(), tmp_path / "o")
    written = json.loads((tmp_path / "o/c/a/a.json").read_text())["properties"]
    for name in ("datetime", "created"):
        assert written[name].endswith("Z")
        assert np.datetime64(written[name][:-1]) == np.datetime64(utc)
    check(made)
    assert load(made).time.values[0] == np.datetime64(utc)
    assert load(
        pystac.Item.from_dict({**made.to_dict(), "properties": {**made.properties, "datetime": text}})
    ).time.values[0] == np.datetime64(utc)
    day = utc[:10]
    assert [i.id for i in search(str(tmp_path / "o/catalog.json"), datetime=day)] == ["a"]


def test_spans_with_offsets_are_utc(tmp_path):
    doc = scene(tmp_path).to_dict()
    doc["properties"] = {
        "datetime": None, "start_datetime": "2024-06-01T02:00:00+05:30", "end_datetime": "2024-06-01T04:00:00+05:30",
    }  # fmt: skip
    (made,) = encode(pystac.Item.from_dict(doc), codec(), tmp_path / "o")
    check(made)
    assert made.properties["start_datetime"] == "2024-05-31T20:30:00Z"
    assert load(made).time.values[0] == np.datetime64("2024-05-31T20:30:00")
    assert collection(tmp_path)["temporal"]["interval"] == [["2024-05-31T20:30:00Z", "2024-05-31T22:30:00Z"]]


def test_boxes_are_read_and_joined():
    assert flat_bbox([1, 2, -5, 3, 4, 900]) == (1, 2, 3, 4)
    assert spanning([(-10, 0, 10, 1), (20, -1, 30, 0)]) == (-10, -1, 30, 1)
    assert spanning([(179, 0, -179, 1), (10, 0, 11, 1)]) == (10, 0, -179, 1)
    assert spanning([(100, 0, -100, 1), (-120, 0, 120, 1)]) == (-180, 0, 180, 1)
    assert bbox_of(shapely.box(1, 2, 3, 4)) == (1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"bbox must be 4 numbers .* or 6 with heights, got 5"):
        flat_bbox([1, 2, 3, 4, 5])
    with pytest.raises(
        SearchError, match="bbox has south 3 above north 2; the order is west, south, east, north"
    ):
        search([], bbox=(0, 3, 1, 2))


def test_text_that_is_no_time_stays_as_it_is():
    assert in_utc("last summer") == "last summer"
    assert in_utc(None) is None
    nowhere = pystac.Item(
        "a",
        None,
        None,
        None,
        {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-01-02T00:00:00Z"},
    )
    assert extent_of([nowhere]).spatial.bboxes == [[-180, -90, 180, 90]]
