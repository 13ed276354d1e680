"""The same items give the same answer from each kind of source, and that answer is the right one."""

from __future__ import annotations

import pystac
import pytest
from hypothesis import given, settings
from search_strategies import FILTERS, ITEMS, expected, latents, places, times
from search_support import as_dicts, ids, write_static
from servers.stac_api import StacApi
from shapely.geometry import shape

from stac_latent import search
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    parquet = to_geoparquet(ITEMS, folder / "items.parquet", row_group_size=25)
    feature_file = folder / "items.json"
    pystac.ItemCollection(ITEMS).save_object(str(feature_file))
    with StacApi(as_dicts(ITEMS)) as post, StacApi(as_dicts(ITEMS), post=False) as get:
        yield {
            "static": write_static(ITEMS, folder / "static"),
            "catalog object": pystac.Catalog.from_file(str(folder / "static" / "catalog.json")),
            "parquet": parquet,
            "item collection": feature_file,
            "items": ITEMS,
            "api (POST)": post.url,
            "api (GET)": get.url,
        }


@settings(max_examples=120, deadline=None)
@given(place=places(), time=times(), latent=latents())
def test_all_sources_give_the_right_answer(sources, place, time, latent):
    query = {**place, **time, **latent}
    answers = {name: ids(search(source, limit=7, **query)) for name, source in sources.items()}
    assert answers == dict.fromkeys(sources, expected(query))


@settings(max_examples=120, deadline=None)
@given(place=places(), latent=latents(), cql2=FILTERS)
def test_free_filters_agree_with_sql_in_all_sources(sources, place, latent, cql2):
    """The APIs of the tests run the filter as SQL in DuckDB; the other sources run ours."""
    query = {**place, **latent, "filter": cql2}
    answers = {name: ids(search(source, **query)) for name, source in sources.items()}
    assert answers == dict.fromkeys(sources, answers["api (POST)"])
    assert answers["items"] <= expected({**place, **latent})


def test_missing_property_is_unknown(sources):
    has = {(i.collection_id, i.id) for i in ITEMS if "latent:psnr" in i.properties}
    lossless = {(i.collection_id, i.id) for i in ITEMS if i.properties.get("latent:max_error") == 0}
    assert lossless - has
    for name, source in sources.items():
        low = ids(search(source, filter="NOT (latent:psnr > 40)"))
        high = ids(search(source, min_psnr=40.5))
        assert low | high == has | lossless, name
        assert low & high <= lossless, name
        assert ids(search(source, min_psnr=0)) == has | lossless, name


def test_items_are_the_same_from_all_sources(sources):
    wanted = {item.id: item for item in ITEMS}
    for name, source in sources.items():
        for item in search(source, kind="codec"):
            original = wanted[item.id]
            assert item.datetime == original.datetime, name
            assert item.properties == original.properties, name
            assert item.bbox == original.bbox, name
            assert shape(item.geometry).equals(shape(original.geometry)), name
            assets = {k: a.to_dict() for k, a in item.assets.items()}
            assert assets == {k: a.to_dict() for k, a in original.assets.items()}, name


@pytest.mark.parametrize("key", ["datetime", "-latent:bits_per_pixel", {"field": "id", "direction": "desc"}])
def test_sorted_alike(sources, key):
    """All items have the property: where some lack it, an API may place them anywhere."""
    query = {"filter": "datetime IS NOT NULL AND latent:bits_per_pixel IS NOT NULL", "sortby": key}
    if isinstance(key, dict):
        names = sorted((n for n in sources if "api" not in n), key=str)
    else:
        names = sorted(sources)
    orders = {name: [i.id for i in search(sources[name], **query)] for name in names}
    field = key["field"] if isinstance(key, dict) else key.lstrip("-")
    wanted = {i.id: i.id if field == "id" else i.properties.get(field) for i in ITEMS}
    for name, order in orders.items():
        values = [wanted[i] for i in order]
        assert len(order) > 5
        assert values == sorted(values, reverse=key != "datetime"), name


def test_several_sources_keep_the_first_of_equal_items(sources, tmp_path):
    changed = [item.clone() for item in ITEMS[:5]]
    for item in changed:
        item.properties["platform"] = "changed"
    path = to_geoparquet(changed, tmp_path / "changed.parquet")
    found = search([path, sources["static"], sources["api (POST)"], pystac.ItemCollection(ITEMS)])
    assert len(found) == len(ITEMS)
    assert sum(i.properties["platform"] == "changed" for i in found) == 5
    assert [i.properties["platform"] for i in search([sources["parquet"], path], ids="item-0001")] == [
        "sentinel-2b"
    ]


def test_antimeridian_bbox(sources):
    """West > east is the way round by 180 degrees."""
    west, east = ids(search(ITEMS, bbox=(150, -90, 180, 90))), ids(search(ITEMS, bbox=(-180, -90, -150, 90)))
    assert west
    assert east
    for name, source in sources.items():
        assert ids(search(source, bbox=(150, -90, -150, 90))) == west | east, name


def test_bbox_with_heights_ignores_them(sources):
    flat = ids(search(ITEMS, bbox=(0, -90, 100, 90)))
    assert flat
    for name, source in sources.items():
        assert ids(search(source, bbox=(0, -90, -500, 100, 90, 500))) == flat, name
