"""How a STAC API is asked: paging, filters and their fallback, sorting, headers, clients."""

from __future__ import annotations

import json
import sys
import warnings

import pystac_client
import pytest
from search_support import as_dicts, ids, make_items
from servers.stac_api import StacApi

from stac_latent import search
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet
from stac_latent.errors import SearchError

ITEMS = make_items(35)
FEATURES = as_dicts(ITEMS)
CODECS = {(i.collection_id, i.id) for i in ITEMS if "codec" in i.properties.get("latent:kinds", [])}


def searches(api):
    return [r for r in api.requests if r[1] == "/search"]


@pytest.mark.parametrize("post", [True, False])
def test_paging_asks_only_for_what_is_read(post):
    with StacApi(FEATURES, post=post) as api:
        results = search(api.url, limit=10)
        assert searches(api) == []
        assert results[3].id == ITEMS[3].id
        assert len(searches(api)) == 1
        assert [len(page) for page in results.pages()] == [10, 10, 10, 5]
        assert len(searches(api)) == 4
        assert {r[0] for r in searches(api)} == {"POST" if post else "GET"}
        assert [i.id for i in results] == [i.id for i in ITEMS]
        assert len(searches(api)) == 4


def test_max_items_makes_small_pages():
    with StacApi(FEATURES) as api:
        assert [i.id for i in search(api.url, max_items=3)] == [i.id for i in ITEMS[:3]]
        assert [r[2]["limit"] for r in searches(api)] == [3]


def test_the_whole_query_goes_to_the_api():
    with StacApi(FEATURES) as api:
        search(
            api.url,
            bbox=(-180, -90, 180, 90),
            datetime="2024/..",
            kind="codec",
            min_psnr=40,
            filter="platform <> 'x'",
            collections="c0",
            ids=["item-0003", "item-0006"],
            sortby="-datetime",
        ).item_collection()
        sent = searches(api)[0][2]
    assert sent["bbox"] == [-180, -90, 180, 90]
    assert sent["datetime"] == "2024-01-01T00:00:00Z/.."
    assert (sent["collections"], sent["ids"]) == (["c0"], ["item-0003", "item-0006"])
    assert sent["sortby"] == [
        {"field": "datetime", "direction": "desc"},
        {"field": "id", "direction": "asc"},
    ]
    assert sent["filter-lang"] == "cql2-json"
    assert sent["filter"] == {
        "op": "and",
        "args": [
            {"op": "a_contains", "args": [{"property": "latent:kinds"}, ["codec"]]},
            {
                "op": "or",
                "args": [
                    {"op": ">=", "args": [{"property": "latent:psnr"}, 40]},
                    {"op": "=", "args": [{"property": "latent:max_error"}, 0]},
                ],
            },
            {"op": "<>", "args": [{"property": "platform"}, "x"]},
        ],
    }


def test_geometry_goes_to_the_api():
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [0, 90], [0, 0]]]}
    with StacApi(FEATURES) as api:
        found = ids(search(api.url, intersects=triangle))
        sent = searches(api)[0][2]
    assert found == ids(search(ITEMS, intersects=triangle))
    assert json.loads(json.dumps(sent["intersects"])) == triangle
    assert "bbox" not in sent


@pytest.mark.parametrize("post", [True, False])
def test_api_without_filters(post):
    with StacApi(FEATURES, filters=False, post=post) as api:
        with pytest.warns(
            UserWarning,
            match="does not conform to the filter extension; the filter is applied here, to every",
        ):
            found = ids(search(api.url, kind="codec", limit=9))
        assert found == CODECS
        assert all("filter" not in r[2] for r in searches(api))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(search(api.url, collections="c0")) == 12


@pytest.mark.parametrize("post", [True, False])
def test_api_that_refuses_the_filter(post):
    with StacApi(FEATURES, fault="reject", post=post) as api:
        with pytest.warns(UserWarning, match=r"refused the filter .*HTTP 400: .*a_contains is not supported"):
            assert ids(search(api.url, kind="codec")) == CODECS
        assert ["filter" in r[2] for r in searches(api)] == [True, False]


def test_api_of_text_filters_only(monkeypatch):
    with StacApi(FEATURES, fault="text", post=False) as api:
        assert ids(search(api.url, kind="codec", min_psnr=0)) < CODECS
        sent = searches(api)[0][2]
        assert sent["filter-lang"] == "cql2-text"
        assert sent["filter"].startswith("a_contains(")
        monkeypatch.setitem(sys.modules, "cql2", None)
        with pytest.raises(
            SearchError, match=r"CQL2 text only, which needs the package cql2: pip install 'stac-latent\["
        ):
            list(search(api.url, kind="codec"))


def test_json_filters_need_no_cql2(monkeypatch):
    monkeypatch.setitem(sys.modules, "cql2", None)
    with StacApi(FEATURES) as api:
        assert ids(search(api.url, kind="codec")) == CODECS


def test_conformance_at_its_own_address():
    with StacApi(FEATURES, fault="conformance") as api:
        assert ids(search(api.url, kind="codec")) == CODECS
        assert "filter" in searches(api)[0][2]


def test_api_that_cannot_sort_is_sorted_here():
    with StacApi(FEATURES, sorts=False) as api:
        found = [i.id for i in search(api.url, sortby="-datetime", max_items=5)]
        assert "sortby" not in searches(api)[0][2]
    assert found == [i.id for i in search(ITEMS, sortby="-datetime", max_items=5)]


def test_items_without_the_sorted_property_come_last():
    for key, down in (("latent:psnr", False), ("-latent:psnr", True)):
        values = [i.properties.get("latent:psnr") for i in search(ITEMS, sortby=key)]
        known = [v for v in values if v is not None]
        assert known == sorted(known, reverse=down)
        assert values == known + [None] * (len(ITEMS) - len(known))
    pairs = [(i.collection_id, i.id) for i in search(ITEMS, sortby=["collection", "-id"])]
    assert pairs == sorted(sorted(pairs, key=lambda p: p[1], reverse=True), key=lambda p: p[0])


def test_headers_and_refusals():
    with StacApi(FEATURES) as api:
        list(search(api.url, headers={"Authorization": "Bearer abc"}))
        assert {r[3].get("Authorization") for r in api.requests} == {"Bearer abc"}


def test_an_opened_client_keeps_its_session_and_modifier():
    def sign(item):
        for asset in item.assets.values():
            asset.href += "?signed"

    with StacApi(FEATURES) as api:
        client = pystac_client.Client.open(api.url, headers={"X-Key": "k"}, modifier=sign)
        found = search(client, kind="codec")
        assert ids(found) == CODECS
        assert all(a.href.endswith("?signed") for i in found for a in i.assets.values())
        assert searches(api)[0][3]["X-Key"] == "k"


def test_several_apis_and_duplicates():
    with StacApi(FEATURES[:20]) as one, StacApi(FEATURES[10:]) as two:
        found = search([one.url, two.url], limit=6)
        assert [i.id for i in found] == [i.id for i in ITEMS]


def test_files_of_a_web_server(tmp_path):
    """A stac-geoparquet file, a FeatureCollection and a static catalogue by http."""
    parquet = to_geoparquet(ITEMS, tmp_path / "items.parquet").read_bytes()
    item = {**FEATURES[0], "links": [], "assets": {"raw": {"href": "./raw.tif"}}}
    catalog = {
        "type": "Catalog",
        "id": "c",
        "stac_version": "1.1.0",
        "description": "c",
        "links": [{"rel": "item", "href": "./sub/item.json"}, {"rel": "child", "href": "catalog.json"}],
    }
    files = {
        "items.parquet": parquet,
        "items": json.dumps({"type": "FeatureCollection", "features": FEATURES}).encode(),
        "catalog.json": json.dumps(catalog).encode(),
        "sub/item.json": json.dumps(item).encode(),
    }
    with StacApi([], files=files) as server:
        assert ids(search(f"{server.url}items.parquet", kind="codec")) == CODECS
        assert ids(search(f"{server.url}items", kind="codec")) == CODECS
        some = search(f"{server.url}items", kind="codec", max_items=2)
        assert (len(some), some.matched()) == (2, len(CODECS))
        (found,) = search(f"{server.url}catalog.json")
        assert found.assets["raw"].get_absolute_href() == f"{server.url}sub/raw.tif"
