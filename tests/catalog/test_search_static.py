"""Static catalogues and items at hand: lazy reading, cycles, addresses, real catalogue entries."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest
from search_support import as_dicts, ids, make_items, write_static
from shapely.geometry import MultiPolygon, box, mapping

from stac_latent import search
from stac_latent.catalog.search.documents import Reader
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet

ITEMS = make_items(30)
REAL = Path(__file__).parents[3] / "shared" / "data" / "stac_embeddings"


@pytest.fixture
def read(monkeypatch):
    """Addresses that a search reads, in order."""
    seen = []
    original = Reader.json
    monkeypatch.setattr(
        Reader, "json", lambda self, href, **k: (seen.append(href), original(self, href, **k))[1]
    )
    return seen


def test_items_are_read_when_asked_for(tmp_path, read):
    path = write_static(ITEMS, tmp_path)
    results = search(path)
    assert len(read) == 1
    assert results[0].collection_id == "c0"
    assert len(read) == 3
    assert repr(results) == "<Results: 1 items so far>"
    assert len(results) == 30
    assert len(read) == len(set(read)) == 1 + 3 + 30
    assert repr(results) == "<Results: 30 items>"
    assert [i.id for i in results[2:4]] == [results[2].id, results[3].id]
    assert results[-1].id == results[29].id
    assert len(read) == 34


def test_max_items_stops_reading(tmp_path, read):
    assert len(search(write_static(ITEMS, tmp_path), max_items=2)) == 2
    assert sum("item-" in href for href in read) == 2


def test_empty_answers():
    assert not search([])
    assert not search(ITEMS, ids="no-such-item")
    assert search(ITEMS)
    assert list(search(ITEMS, ids="no-such-item").pages()) == []
    assert len(search(ITEMS, max_items=7).item_collection().items) == 7


def test_link_cycles_end(tmp_path, read):
    def catalogue(name, *links):
        links = [{"rel": rel, "href": href} for rel, href in links]
        document = {
            "type": "Catalog",
            "id": name,
            "stac_version": "1.1.0",
            "description": name,
            "links": links,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    catalogue(
        "catalog",
        ("child", "./b.json"),
        ("child", "./catalog.json"),
        ("item", "item.json"),
        ("root", "x.json"),
    )
    catalogue(
        "b", ("child", "../" + tmp_path.name + "/catalog.json"), ("item", "./item.json"), ("child", "b.json")
    )
    (tmp_path / "item.json").write_text(json.dumps(as_dicts(ITEMS[:1])[0]))
    for source in (tmp_path, tmp_path / "catalog.json", str(tmp_path), f"file://{tmp_path}/catalog.json"):
        read.clear()
        assert [i.id for i in search(source)] == ["item-0000"]
        assert len(read) == 3


def test_catalogue_in_memory_gives_its_own_items():
    catalog = pystac.Catalog("mem", "never saved")
    child = pystac.Catalog("child", "child")
    catalog.add_child(child)
    catalog.add_item(ITEMS[0].clone())
    child.add_items([i.clone() for i in ITEMS[1:4]])
    child.add_child(catalog, set_parent=False)
    found = search(catalog)
    assert [i.id for i in found] == [i.id for i in ITEMS[:4]]
    assert found[0] is next(catalog.get_items())


def test_found_items_know_where_they_are(tmp_path):
    item = ITEMS[0].clone()
    item.assets["raw"].href = "./raw.tif"
    path = write_static([item, ITEMS[1]], tmp_path)
    (found,) = search(path, ids=item.id)
    assert found.get_self_href() == str(tmp_path / "c0" / item.id / f"{item.id}.json")
    assert found.assets["raw"].get_absolute_href() == str(tmp_path / "c0" / item.id / "raw.tif")
    assert found.get_collection().id == "c0"
    collection_file = tmp_path / "items.json"
    pystac.ItemCollection([item]).save_object(str(collection_file))
    (found,) = search(collection_file)
    assert found.assets["raw"].href == str(tmp_path / "raw.tif")


def test_dictionaries_stay_as_they_are():
    features = as_dicts(ITEMS)
    before = json.dumps(features)
    found = search({"type": "FeatureCollection", "features": features})
    found[0].properties["platform"] = "changed"
    found[0].assets.clear()
    assert json.dumps(features) == before
    assert search(features[0])[0].id == "item-0000"


def test_a_single_item_file(tmp_path):
    path = tmp_path / "item.json"
    path.write_text(json.dumps(as_dicts(ITEMS[:1])[0]))
    assert ids(search([path, ITEMS[0], ITEMS[1]])) == ids(ITEMS[:2])


def test_items_without_time_or_place():
    bare = pystac.Item(
        "bare", None, None, None, {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "bad"}
    )
    assert search([bare])[0] is bare
    assert not search([bare], bbox=(-180, -90, 180, 90))
    assert not search([bare], datetime="2024/..")
    assert search([bare], filter="datetime IS NULL")
    assert search([bare], filter="end_datetime IS NULL")


def test_results_can_be_searched_again(tmp_path):
    first = search(write_static(ITEMS, tmp_path), kind="codec")
    assert ids(search(first, min_psnr=40)) == ids(search(ITEMS, kind="codec", min_psnr=40))


def test_a_search_of_files_needs_no_client_and_no_cql2(tmp_path):
    """Neither pystac-client nor cql2, duckdb, geopandas, rasterio or torch is imported for local sources."""
    parquet = to_geoparquet(ITEMS, tmp_path / "items.parquet")
    static = write_static(ITEMS, tmp_path / "static")
    code = f"""
import sys
from datetime import UTC, datetime
from stac_latent import search
for source in ({str(parquet)!r}, {str(static)!r}):
    assert len(search(source, kind="codec", bbox=(-180, -90, 180, 90), datetime="2024/..")) > 5
print(sorted({{"cql2", "duckdb", "geopandas", "rasterio", "torch", "pystac_client", "stac_geoparquet"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.shared
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data folder is absent")
def test_real_earth_search_items(tmp_path):
    """Real Sentinel-2 entries of Earth Search: as files, as one ItemCollection, and as stac-geoparquet."""
    paths = sorted((REAL / "earth_search_s2_l2a").glob("*.json"))
    items = [pystac.Item.from_file(str(p)) for p in paths]
    parquet = to_geoparquet(items, tmp_path / "s2.parquet")
    queries = [
        {},
        {"datetime": "2018"},
        {"bbox": (14, 46, 16, 48)},
        {"bbox": (14, 46, 16, 48), "datetime": "2018-06/2020-06", "filter": "eo:cloud_cover < 30"},
        {"filter": "platform = 'sentinel-2a' AND NOT eo:cloud_cover > 20"},
        {"min_psnr": 10},
    ]
    sizes = []
    for query in queries:
        answers = [ids(search(source, **query)) for source in (items, paths, parquet)]
        assert answers[0] == answers[1] == answers[2]
        sizes.append(len(answers[0]))
    assert sizes[0] == len(items)
    assert 0 < sizes[3] < sizes[2] < sizes[0]
    assert sizes[5] == 0
    by_id = {i.id: i for i in items}
    for found in search(parquet):
        original = by_id[found.id]
        assert found.datetime == original.datetime
        hrefs = {k: a.get_absolute_href() for k, a in original.assets.items()}
        assert {k: a.href for k, a in found.assets.items()} == hrefs


@pytest.mark.shared
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data folder is absent")
def test_real_items_at_the_antimeridian(tmp_path):
    items = [
        pystac.Item.from_file(str(p)) for p in sorted((REAL / "earth_search_antimeridian").glob("*.json"))
    ]
    parquet = to_geoparquet(items, tmp_path / "am.parquet")
    across = ids(search(items, bbox=(179, 50, -179, 75)))
    assert len(across) >= 3
    assert ids(search(parquet, bbox=(179, 50, -179, 75))) == across


REAL_TABLES = {
    "duckdb_100-landsat-items": (100, "landsat:cloud_cover_land < 10"),
    "duckdb_100-sentinel-2-items": (100, "s2:nodata_pixel_percentage > 20"),
    "duckdb_sentinel-1-global-mosaics": (4, "sar:polarizations IS NOT NULL"),
    "tests_naip": (5, "naip:state = 'pa' OR naip:year > '2000'"),
    "core_opr-one": (1, "opr:flight > 0"),
    "core_extended-item": (1, "eo:cloud_cover < 5"),
}


@pytest.mark.shared
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data folder is absent")
@pytest.mark.parametrize("name", REAL_TABLES)
def test_real_tables_of_other_writers(name):
    """Files written by rustac, stac-geoparquet and pandas: every row is an Item, and filters read its columns."""
    count, cql2 = REAL_TABLES[name]
    path = REAL / "stac_geoparquet" / f"{name}.parquet"
    items = search(path)
    assert len(items) == count
    for item in items:
        assert item.datetime is not None
        assert item.bbox[0] <= item.bbox[2]
        assert item.assets
        assert "null" not in json.dumps({**item.to_dict(transform_hrefs=False), "links": []})
    found = ids(search(path, filter=cql2))
    assert 0 < len(found) <= count
    assert found == ids(search(list(items), filter=cql2))


@pytest.mark.parametrize(("west", "east"), [(179, 181), (-181, -179)])
def test_footprints_beyond_180_degrees_are_found_on_both_sides(tmp_path, west, east):
    item = pystac.Item(
        "over", mapping(box(west, 0, east, 1)), [west, 0, east, 1], datetime(2024, 6, 1, tzinfo=UTC), {}
    )
    halves = MultiPolygon([box(179, 0, 180, 1), box(-180, 0, -179, 1)])
    split = pystac.Item("split", mapping(halves), [179, 0, -179, 1], datetime(2024, 6, 1, tzinfo=UTC), {})
    to_geoparquet([item], tmp_path / "one.parquet")
    for bbox in ((179.4, 0, 179.6, 1), (-179.6, 0, -179.4, 1), (179.9, 0, -179.9, 1)):
        assert [i.id for i in search([item, split], bbox=bbox)] == ["over", "split"]
        assert [i.id for i in search(tmp_path / "one.parquet", bbox=bbox)] == ["over"]
    assert not search([item, split], bbox=(-1, 0, 1, 1))
