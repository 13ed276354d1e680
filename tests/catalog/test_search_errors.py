"""What a search refuses, and that it says what it got, what it expected and the way out."""

from __future__ import annotations

import json
import re
import socket
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from search_support import SPACES, as_dicts, make_items
from servers.stac_api import StacApi

from stac_latent import search
from stac_latent.errors import SearchError

ITEMS = make_items(12)

BAD_ARGUMENTS = [
    (
        {"bbox": (1, 2, 3)},
        r"bbox must be 4 numbers \(west, south, east, north\) or 6 with heights, got 3: \(1, 2, 3\)",
    ),
    ({"bbox": (10, 47, 12, 45)}, r"bbox has south 47 above north 45; the order is west, south, east, north"),
    ({"bbox": "10,45,12,47"}, r"bbox must be numbers \(west, south, east, north\), got '10,45,12,47'"),
    ({"bbox": 7}, r"bbox must be numbers \(west, south, east, north\), got 7"),
    ({"bbox": (1, 2, 3, float("nan"))}, r"bbox must be 4 numbers"),
    (
        {"bbox": (500000, 5000000, 600000, 5100000)},
        r"spans longitudes 500000 to 600000 .* \(project other coordinates",
    ),
    (
        {"bbox": (0, 0, 1, 1), "intersects": {"type": "Point", "coordinates": [0, 0]}},
        r"either bbox or intersects, not",
    ),
    ({"intersects": {"type": "Nonsense"}}, r"intersects must be a GeoJSON geometry or Feature.*Nonsense"),
    ({"intersects": "POINT(1 2)"}, r"intersects must be a GeoJSON geometry or Feature.*POINT"),
    (
        {"intersects": {"type": "Polygon", "coordinates": []}},
        r"intersects is an empty geometry; leave it out",
    ),
    ({"intersects": {"type": "Point", "coordinates": [200, 0]}}, r"longitudes 200 to 200"),
    (
        {"datetime": "yesterday"},
        r"datetime 'yesterday' is not a time: .*expected for example 2024-06-01T10:00:00Z",
    ),
    ({"datetime": "2024-13"}, r"datetime '2024-13' is not a time: month must be in 1..12"),
    ({"datetime": "2024-02-30"}, r"datetime '2024-02-30' is not a time"),
    ({"datetime": "2024-02-01T25:00:00Z"}, r"is not a time: hour must be in 0..23"),
    ({"datetime": "2025/2024"}, r"datetime '2025/2024' ends before it begins; the order is begin/end"),
    ({"datetime": "../.."}, r"datetime '../..' is open at both ends; leave it out"),
    ({"datetime": ""}, r"datetime '' is open at both ends"),
    ({"datetime": "2024/2025/2026"}, r"one time or an interval 'begin/end', got '2024/2025/2026'"),
    ({"datetime": 2024.5}, r"datetime '2024.5' is not a time"),
    ({"kind": "latent"}, r"kind must be one of 'codec', 'embedding', got 'latent'"),
    (
        {"space": "klt-s2"},
        r"space must be 'sha256:' and 64 lower-case hexadecimal digits, got 'klt-s2'; it is latent:space",
    ),
    ({"space": SPACES[0].upper()}, r"space must be 'sha256:'"),
    ({"space": 3}, r"space must be 'sha256:' .* got 3"),
    ({"min_psnr": "40"}, r"min_psnr must be a number that is not negative, got '40'"),
    ({"min_psnr": True}, r"min_psnr must be a number that is not negative, got True"),
    ({"min_psnr": [40]}, r"min_psnr must be a number that is not negative, got \[40\]"),
    ({"max_bits_per_pixel": -1}, r"max_bits_per_pixel must be a number that is not negative, got -1"),
    ({"max_error": float("nan")}, r"max_error must be a number that is not negative, got nan"),
    ({"collections": []}, r"collections must be one name or several, got \[\]; leave it out to search all"),
    ({"ids": [1, 2]}, r"ids must be one name or several, got \[1, 2\]"),
    ({"ids": 5}, r"ids must be one name or several, got 5"),
    ({"limit": 0}, r"limit must be a whole number from 1 to 10000, got 0"),
    ({"limit": 10_001}, r"limit must be a whole number from 1 to 10000, got 10001"),
    ({"limit": 2.0}, r"limit must be a whole number from 1 to 10000, got 2.0"),
    ({"max_items": 0}, r"max_items must be a whole number from 1, got 0"),
    ({"timeout": 0}, r"timeout must be a positive number of seconds, got 0"),
    ({"sortby": ["-"]}, r"sortby takes property names such as 'datetime' or '-latent:psnr'.* got '-'"),
    ({"sortby": [3]}, r"sortby takes property names .* got 3"),
    ({"sortby": [{"direction": "asc"}]}, r"sortby takes property names"),
    ({"filter": "latent:psnr >"}, r"filter is not valid CQL2 text:\n(.|\n)*1:14(.|\n)*\^---"),
    ({"filter": "a = 1 AND (b = 2"}, r"filter is not valid CQL2 text:\n(.|\n)*1:17"),
    ({"filter": ""}, r"filter is not valid CQL2 text"),
    ({"filter": '{"op": "=",'}, r"filter is not valid JSON at line 1, column 12"),
    ({"filter": 5}, r"filter must be CQL2 text or CQL2 JSON \(a dict\), got int"),
    (
        {"filter": {"op": "and", "args": [{"op": "almost", "args": []}]}},
        r"filter.args\[0\]: unknown operator 'almost'; kno",
    ),
    (
        {"filter": {"op": "=", "args": [{"property": "a"}]}},
        r"filter: '=' needs a list of 2 args, got \[{\"property\"",
    ),
    ({"filter": {"op": "not", "args": []}}, r"filter: 'not' needs a list of 1 args, got \[\]"),
    ({"filter": {"op": "and", "args": []}}, r"filter: 'and' needs a list of 1 or more args, got \[\]"),
    (
        {"filter": {"op": "<", "args": [{"property": "datetime"}, {"timestamp": "noon"}]}},
        r"filter.args\[1\]: .*noon.* is no time",
    ),
    (
        {"filter": {"op": "s_intersects", "args": [{"property": "geometry"}, {"type": "Blob"}]}},
        r"args\[1\]: .* is no time or geo",
    ),
    ({"filter": {"psnr": 40}}, r"filter: expected an operator .* got {\"psnr\": 40}"),
    ({"filter": {}}, r"filter: expected an operator"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_ARGUMENTS, ids=[str(i) for i in range(len(BAD_ARGUMENTS))]
)
def test_bad_argument_is_refused_before_the_source_is_opened(arguments, message):
    with pytest.raises(SearchError, match=message):
        search("/does/not/exist/catalog.json", **arguments)


def test_deep_filter():
    expr = {"op": "isNull", "args": [{"property": "a"}]}
    for _ in range(150):
        expr = {"op": "not", "args": [expr]}
    with pytest.raises(SearchError, match="filter nests deeper than 100 levels; use one AND or OR"):
        search(ITEMS, filter=expr)


def test_text_filter_without_cql2_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cql2", None)
    with pytest.raises(
        SearchError, match=r"needs the package cql2: pip install 'stac-latent\[search\]', or give"
    ):
        search(ITEMS, filter="latent:psnr > 40")
    assert len(search(ITEMS, filter={"op": ">=", "args": [{"property": "latent:psnr"}, 0]}, kind="codec")) > 0


def test_datetime_types_that_are_fine():
    all_of_june = search(ITEMS, datetime=np.datetime64("2024-06"))
    assert {i.id for i in all_of_june} == {i.id for i in search(ITEMS, datetime="2024-06-01/2024-06-30")}
    assert {i.id for i in search(ITEMS, datetime="9999")} == set()


SOURCES = {
    "missing": (
        "nowhere/catalog.json",
        None,
        r"no such file: .*nowhere/catalog.json; expected a catalog.json, collection",
    ),
    "folder": (".", None, r"folder .* has no catalog.json or collection.json; expected"),
    "text": (
        "notes.txt",
        b"hello there",
        r"notes.txt is not JSON \(.*it begins with 'hello there'; expected a catalog.json",
    ),
    "binary": ("image.bin", b"II*\0\xff\xfe\x00", r"image.bin is not JSON .*; expected a catalog.json"),
    "raster": (
        "image.tif",
        b"II*\0\xff\xfe\x00",
        r"image.tif is one of raster files, not STAC Items: describe them with 'stac-latent items .*image.tif items'",
    ),
    "list": (
        "list.json",
        b"[1, 2]",
        r"list.json holds a JSON list; expected a STAC object; expected a catalog.json",
    ),
    "other json": (
        "x.json",
        b'{"type": "Topology"}',
        r"cannot search .*x.json \(JSON of type 'Topology'\): expected a",
    ),
    "empty": ("e.json", b"", r"e.json is not JSON"),
    "no parquet": ("x.parquet", b"PAR1 but no more", r"x.parquet is not a readable Parquet file: "),
    "bad ending": ("y.parquet", b"{}", r"y.parquet is not a readable Parquet file"),
    "scheme": (
        "ftp://bucket/catalog.json",
        None,
        r"ftp://bucket/catalog.json: only http and https addresses, those of object stores, and local files",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_bad_source(tmp_path, name):
    path, content, message = SOURCES[name]
    if "://" not in path:
        path = tmp_path / path
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SearchError, match=message):
        search(path)


def test_parquet_that_is_no_catalogue(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"id": ["a"], "value": [1]}), path)
    with pytest.raises(
        SearchError, match=r"is Parquet but not stac-geoparquet: it has no column geometry, links"
    ):
        search(path)


@pytest.mark.parametrize("thing", [None, 3, 2.5])
def test_things_that_are_no_source(thing):
    with pytest.raises(SearchError, match=f"cannot search {type(thing).__name__}: expected a catalog.json"):
        search(thing)
    with pytest.raises(SearchError, match=f"cannot search {type(thing).__name__}: expected a catalog.json"):
        search([ITEMS[0], thing])


def test_features_that_are_no_items():
    with pytest.raises(
        SearchError, match=r"a dictionary of type 'FeatureCollection': not a STAC Item \(a Feature with"
    ):
        list(search({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": None}]}))
    feature = {"type": "Feature", "id": "f", "properties": {}, "geometry": None, "stac_version": "1.1.0"}
    with pytest.raises(SearchError, match="'f' is no STAC Item"):
        list(search(feature))
    broken = {**as_dicts(ITEMS[:1])[0], "geometry": {"type": "Polygon", "coordinates": "none"}}
    with pytest.raises(SearchError, match="item 'item-0000' has a malformed geometry"):
        list(search(broken, bbox=(0, 0, 1, 1)))


def test_error_in_the_middle_is_raised_again(tmp_path):
    """A search that failed never looks like one that found less."""
    features = [*as_dicts(ITEMS[:2]), {"id": 1}]
    results = search({"type": "FeatureCollection", "features": features})
    assert results[0].id == "item-0000"
    for _ in range(2):
        with pytest.raises(SearchError, match="not a STAC Item"):
            list(results)


def test_sortby_values_without_order():
    odd = [item.clone() for item in ITEMS[:2]]
    odd[0].properties["x"], odd[1].properties["x"] = "text", 3
    with pytest.raises(SearchError, match="sortby: 'x' has values that have no common order"):
        list(search(odd, sortby="x"))


def test_unreachable_api():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    start = time.perf_counter()
    with pytest.raises(
        SearchError, match=f"cannot reach {url}: connection refused; check the address and the network, or"
    ):
        search(url)
    with pytest.raises(SearchError, match=f"cannot reach {url}items.parquet: connection refused"):
        search(f"{url}items.parquet")
    assert time.perf_counter() - start < 2


def test_api_that_never_answers():
    with StacApi(as_dicts(ITEMS), fault="silent") as api:
        results = search(api.url, timeout=0.3)
        start = time.perf_counter()
        with pytest.raises(SearchError, match=f"cannot reach {api.url}search: timed out; check the address"):
            list(results)
        assert time.perf_counter() - start < 2


API_FAULTS = {
    "html": r"search\S* is not JSON \(.*it begins with '<!DOCTYPE html><html>maintenance",
    "busy": r"search\S* answered HTTP 503: .*busy",
    "loop": r"paging does not end: the next link of a page leads back to .*/search\S*; the server is at fault",
    "stuck": r"paging does not advance: .*/search.* brings only items of earlier pages; the server is at fault",
    "no-collection": r"search\S* did not answer with a FeatureCollection: {\"type\": \"Catalog\"}",
}


@pytest.mark.parametrize("post", [True, False])
@pytest.mark.parametrize("fault", API_FAULTS)
def test_faulty_api(fault, post):
    with (
        StacApi(as_dicts(ITEMS), fault=fault, post=post) as api,
        pytest.raises(SearchError, match=API_FAULTS[fault]),
    ):
        list(search(api.url, limit=5))


def test_pages_of_the_web_that_are_no_catalogue():
    files = {"page": b"<html>welcome</html>", "old.parquet": b"PAR1", "things": b'{"type": "Things"}'}
    with StacApi(as_dicts(ITEMS), files=files) as api:
        with pytest.raises(SearchError, match=r"/page is not JSON .*begins with '<html>welcome"):
            search(f"{api.url}page")
        with pytest.raises(SearchError, match=r"/nothing answered HTTP 404: .*no /nothing"):
            search(f"{api.url}nothing")
        with pytest.raises(SearchError, match=r"old.parquet is not a readable Parquet file"):
            search(f"{api.url}old.parquet")
        with pytest.raises(SearchError, match=r"new.parquet answered HTTP 404"):
            search(f"{api.url}new.parquet")
        with pytest.raises(
            SearchError, match=r"cannot search .*/things \(JSON of type 'Things'\): expected a catalog"
        ):
            search(f"{api.url}things")


def test_api_that_cannot_search():
    with (
        StacApi(as_dicts(ITEMS), fault="no-search") as api,
        pytest.raises(
            SearchError, match=f"the STAC API at {api.url} has no search link, so it cannot be searched"
        ),
    ):
        search(api.url)


def test_collection_of_an_api(tmp_path):
    links = [
        {"rel": "items", "href": "https://example.com/items"},
        {"rel": "root", "href": "https://example.com/"},
    ]
    document = {"type": "Collection", "id": "s2", "stac_version": "1.0.0", "links": links}
    path = tmp_path / "collection.json"
    path.write_text(json.dumps(document))
    with pytest.raises(
        SearchError,
        match=r"belongs to a STAC API and lists no items itself; search https://example.com/ with",
    ):
        list(search(path))


def test_broken_link_of_a_catalogue(tmp_path):
    links = [{"rel": "item", "href": "./gone.json"}]
    document = {"type": "Catalog", "id": "c", "stac_version": "1.1.0", "description": "c", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(document))
    root = re.escape(str(tmp_path / "catalog.json"))
    with pytest.raises(
        SearchError, match=rf"cannot read .*gone.json: No such file or directory \(linked from {root}\)"
    ):
        list(search(tmp_path))
    (tmp_path / "gone.json").write_text('{"type": "Other"}')
    with pytest.raises(SearchError, match=r"gone.json \(linked from .*\) is no Catalog, Collection or Item"):
        list(search(tmp_path))
