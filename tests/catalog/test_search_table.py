"""stac-geoparquet: Items go in and come out the same, whatever fields they have."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_support import make_items
from stac_geoparquet.arrow import stac_table_to_items

from stac_latent import search
from stac_latent.catalog.search.arrow import python_values
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet
from stac_latent.errors import CatalogError, SearchError

POINT = {"type": "Point", "coordinates": [11.5, 46.123456789012345]}


def item(name="a", geometry=POINT, when=datetime(2024, 6, 5, 10, 0, 0, 123456, tzinfo=UTC), **properties):
    times = {k: v for k, v in properties.items() if k.endswith("datetime")}
    bbox = None if geometry is None else [11.5, 46.1, 11.5, 46.2]
    return pystac.Item(name, geometry, bbox, None if times else when, properties)


def round_trip(items, folder, **options):
    return list(search(to_geoparquet(items, folder / "items.parquet", **options)))


def plain(one):
    return json.loads(json.dumps(one.to_dict(transform_hrefs=False)))


def test_round_trip(tmp_path):
    first, second = (
        item("a", collection="c"),
        item("b", start_datetime="2024-01-01T00:00:00Z", end_datetime="2024-02-01T00:00:00Z"),
    )
    first.properties = {
        "latent:psnr": 40.5,
        "latent:kinds": ["codec"],
        "gsd": 10,
    }
    first.properties["proj:geometry"] = POINT
    second.geometry = {"type": "Polygon", "coordinates": [[[0.1, 0.2], [1 / 3, 0.2], [0.5, 0.7], [0.1, 0.2]]]}
    second.bbox = [0.1, 0.2, 0.5, 0.7]
    first.stac_extensions = ["https://stac-latent.github.io/latent/v0.1.0/schema.json"]
    first.add_link(
        pystac.Link(
            "latent:decoder",
            "https://example.com/m.json",
            extra_fields={"latent:space": "sha256:0", "file:size": 7},
        )
    )
    second.add_link(pystac.Link("license", "https://example.com/l", title="x"))
    asset = pystac.Asset(
        "https://example.com/x.zarr", media_type="application/vnd.zarr; version=3", roles=["latent"]
    )
    asset.extra_fields = {
        "bands": [{"name": "B02", "nodata": "nan"}, {"name": "B03", "nodata": 0, "raster:scale": 0.1}],
        "proj:geometry": POINT,
        "proj:transform": [10.0, 0, 1, 0, -10, 2],
        "cube:dimensions": {"time": {"type": "temporal", "extent": [None, "2024-01-01T00:00:00Z"]}},
    }
    first.add_asset("latent", asset)
    second.add_asset("other.key", pystac.Asset("https://example.com/y", title="y"))
    found = round_trip([first, second], tmp_path)
    assert [plain(f) for f in found] == [plain(first), plain(second)]
    assert found[0].datetime == first.datetime


def test_nulls_and_empty_objects_are_left_out(tmp_path):
    one, two = (
        item("a", **{"latent:psnr": None, "platform": "x", "empty": {}}),
        item("b", **{"latent:psnr": 3.0}),
    )
    one.add_asset(
        "data", pystac.Asset("https://example.com/d", extra_fields={"nodata": None, "storage:schemes": {}})
    )
    found = round_trip([one, two], tmp_path)
    assert found[0].properties == {"datetime": "2024-06-05T10:00:00.123456Z", "platform": "x"}
    assert found[0].assets["data"].to_dict() == {"href": "https://example.com/d"}
    assert found[1].properties == two.properties
    assert found[1].assets == {}


NAMES = st.sampled_from(["latent:psnr", "latent:kinds", "platform", "flag", "deep", "proj:shape"])
VALUES = {
    "latent:psnr": st.floats(0, 100),
    "latent:kinds": st.lists(st.sampled_from(["codec", "embedding"]), max_size=2),
    "platform": st.text(max_size=5),
    "flag": st.booleans(),
    "deep": st.fixed_dictionaries(
        {}, optional={"a": st.integers(0, 9), "b": st.lists(st.integers(0, 9), max_size=2)}
    ).filter(len),
    "proj:shape": st.lists(st.integers(1, 10980), min_size=2, max_size=2),
}
PROPERTIES = st.sets(NAMES).flatmap(
    lambda names: st.fixed_dictionaries({n: VALUES[n] for n in sorted(names)})
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(PROPERTIES, st.sets(st.sampled_from("abc"))), min_size=1, max_size=6))
def test_any_fields_round_trip(tmp_path_factory, drawn):
    items = []
    for i, (properties, assets) in enumerate(drawn):
        one = item(f"item{i}", **properties)
        for name in sorted(assets):
            one.add_asset(name, pystac.Asset(f"https://example.com/{name}", extra_fields=dict(properties)))
        items.append(one)
    found = round_trip(items, tmp_path_factory.mktemp("any"), row_group_size=2)
    assert [plain(f) for f in found] == [plain(i) for i in items]


def test_other_readers_read_it(tmp_path):
    """The file is plain stac-geoparquet: its own reader gives the same items (with nulls)."""
    items = make_items(20)
    path = to_geoparquet(items, tmp_path / "items.parquet")
    meta = pq.read_schema(path).metadata
    assert json.loads(meta[b"geo"])["columns"]["geometry"]["encoding"] == "WKB"
    assert "version" in json.loads(meta[b"stac-geoparquet"])
    theirs = list(stac_table_to_items(pq.read_table(path)))
    assert [t["id"] for t in theirs] == [i.id for i in items]
    assert [t["properties"]["latent:kinds"] for t in theirs] == [
        i.properties.get("latent:kinds") for i in items
    ]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_relative_files_can_move(tmp_path):
    one = item()
    one.set_self_href(str(tmp_path / "old" / "items" / "a.json"))
    one.add_asset("latent", pystac.Asset("./a.zarr"))
    one.add_asset("far", pystac.Asset("https://example.com/far.tif"))
    (tmp_path / "old").mkdir()
    path = to_geoparquet([one], tmp_path / "old" / "items.parquet", relative=True)
    assert one.assets["latent"].href == "./a.zarr"
    (tmp_path / "old").rename(tmp_path / "new")
    (found,) = search(tmp_path / "new" / path.name)
    assert found.assets["latent"].href == str(tmp_path / "new" / "items" / "a.zarr")
    assert found.assets["far"].href == "https://example.com/far.tif"
    assert found.get_self_href() == str(tmp_path / "new" / "items" / "a.json")
    (found,) = search(to_geoparquet([one], tmp_path / "absolute.parquet"))
    assert found.assets["latent"].href == str(tmp_path / "old" / "items" / "a.zarr")


def test_bbox_is_made_where_it_is_missing(tmp_path):
    one = item()
    one.bbox = None
    assert round_trip([one], tmp_path)[0].bbox == [*POINT["coordinates"], *POINT["coordinates"]]
    high = item(geometry={"type": "Point", "coordinates": [1.0, 2.0, 3.0]})
    high.bbox = [1, 2, 3, 1, 2, 3]
    found = round_trip([high], tmp_path)[0]
    assert (found.bbox, found.geometry["coordinates"]) == ([1, 2, 3, 1, 2, 3], [1, 2, 3])


def test_refusals(tmp_path, monkeypatch):
    path = tmp_path / "items.parquet"
    with pytest.raises(
        CatalogError, match=r"no items to write to .*items.parquet; a stac-geoparquet file needs at least"
    ):
        to_geoparquet([], path)
    with pytest.raises(
        CatalogError, match="item 'a' has no geometry, which stac-geoparquet cannot hold; give it a foot"
    ):
        to_geoparquet([item(geometry=None)], path)
    mixed = [item("a", psnr=3), item("b", psnr="high"), item("c", psnr=[3])]
    message = "field properties.psnr is a number in item 'a', text in item 'b', a list in item 'c'; a table has one type"
    with pytest.raises(CatalogError, match=message):
        to_geoparquet(mixed, path)
    high = item("b")
    high.bbox = [0, 0, 0, 1, 1, 1]
    with pytest.raises(CatalogError, match=r"bbox has \[4, 6\] numbers in different items; drop the heights"):
        to_geoparquet([item("a"), high], path)
    with pytest.raises(CatalogError, match=r"the items do not fit one table: .*contains a 'links' key"):
        to_geoparquet([item("a", links="x")], path)
    with pytest.raises(CatalogError, match="the items do not fit one table"):
        to_geoparquet([item("a", created="last week")], path)
    monkeypatch.setitem(sys.modules, "stac_geoparquet.arrow", None)
    with pytest.raises(
        CatalogError, match=r"needs the package stac-geoparquet: pip install 'stac-latent\[search\]'"
    ):
        to_geoparquet([item()], path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = to_geoparquet([item("old")], tmp_path / "items.parquet")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stac_geoparquet.arrow.to_parquet", full)
    with pytest.raises(CatalogError, match=r"cannot write .*items.parquet: .*No space left on device"):
        to_geoparquet([item("new")], path)
    assert [i.id for i in search(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(CatalogError, match=r"cannot write .*gone/items.parquet: .*No such file or directory"):
        to_geoparquet([item("new")], tmp_path / "gone" / "items.parquet")


ARRAYS = [
    pa.array([1, None, 3]),
    pa.array(["a", None, "b"]).dictionary_encode(),
    pa.array([[1, 2], None, [], [3]]),
    pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
    pa.array([[1.5], None], pa.large_list(pa.float64())),
    pa.array([[{"a": [1]}, {"a": [2, None]}], None, [{"a": [3]}]]),
    pa.array([{"a": {"b": "x"}}, {"a": {"b": "y"}}, None]),
    pa.array([None, None]),
    pa.array([], pa.list_(pa.int8())),
    pa.array([True, None, False]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=[str(a.type) for a in ARRAYS])
def test_arrow_values(array):
    """As pyarrow's own conversion, also of slices and chunks."""
    assert python_values(array) == array.to_pylist()
    assert python_values(array[1:]) == array[1:].to_pylist()
    assert python_values(pa.chunked_array([array, array[1:]])) == array.to_pylist() + array[1:].to_pylist()


def test_arrow_values_as_stac_has_them():
    nested = pa.array(
        [{"a": 1.0, "b": None}, {"a": float("nan"), "b": {"c": None}}],
        pa.struct({"a": pa.float64(), "b": pa.struct({"c": pa.int8()})}),
    )
    assert python_values(nested) == [{"a": 1.0}, {"a": "nan"}]
    times = pa.array([0, 1_500_000_000_000_001, None], pa.timestamp("us", "UTC"))
    assert python_values(times) == ["1970-01-01T00:00:00Z", "2017-07-14T02:40:00.000001Z", None]
    assert python_values(times.cast(pa.timestamp("ns", "UTC"))) == python_values(times)
    assert python_values(pa.array([{}], pa.struct([]))) == [{}]


def test_truncated_file(tmp_path):
    path = to_geoparquet(make_items(200), tmp_path / "items.parquet", row_group_size=50)
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    with pytest.raises(SearchError, match=r"items.parquet: row group \d cannot be read"):
        list(search(path))


def test_broken_geometry(tmp_path):
    path = to_geoparquet(make_items(3), tmp_path / "items.parquet")
    table = pq.ParquetFile(path).read()
    index = table.schema.get_field_index("geometry")
    pq.write_table(table.set_column(index, "geometry", pa.array([b"abc"] * 3)), path)
    for query in ({}, {"bbox": (0, 0, 1, 1)}):
        with pytest.raises(SearchError, match=r"items.parquet: row group 0 cannot be read"):
            list(search(path, **query))
