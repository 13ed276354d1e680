"""Against a real STAC API, stac-fastapi-pgstac over PostgreSQL and PostGIS, where this machine can run one."""

from __future__ import annotations

import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pystac
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_duckdb import DuckSearch
from search_strategies import ITEMS, SPACES, expected, latents, places, times
from search_support import as_dicts, ids, make_items, write_static
from servers import pgstac

from stac_latent import load, push, search
from stac_latent.catalog.push.queryables import INDEXED, queryables
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet
from stac_latent.errors import CatalogError


@pytest.fixture(scope="module")
def server():
    if why := pgstac.missing():
        pytest.skip(why)
    with pgstac.Pgstac() as running:
        running.queryables(queryables(), index=INDEXED)
        yield running


@pytest.fixture(scope="module")
def sources(server, tmp_path_factory):
    """The same items in each kind of source; the API has them by ``push``."""
    folder = tmp_path_factory.mktemp("sources")
    static = write_static(ITEMS, folder / "static")
    done = push(static, server.url, batch=17)
    assert (done.new, done.changed, done.unchanged, done.refused) == (len(ITEMS), 0, 0, {})
    assert sorted(done.collections) == ["c0", "c1", "c2"]
    parquet = to_geoparquet(ITEMS, folder / "items.parquet", row_group_size=25)
    return {"static": static, "parquet": parquet, "items": ITEMS, "api": server.url}


@pytest.fixture(scope="module")
def duck(sources):
    return DuckSearch(sources["parquet"])


SORTS = st.sampled_from(
    [
        "-latent:psnr",
        "latent:psnr",
        "latent:bits_per_pixel",
        "-latent:max_error",
        "datetime",
        "-datetime",
        ["-latent:psnr", "latent:bits_per_pixel"],
        "id",
        "-id",
    ]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=places(), time=times(), latent=latents(), sortby=SORTS, count=st.sampled_from([None, 1, 7]))
def test_every_source_gives_the_same_items_in_the_same_order(
    sources, duck, place, time, latent, sortby, count
):
    query = {**place, **time, **latent}
    options = {**query, "sortby": sortby, "max_items": count}
    right = duck(**options)
    answers = {
        name: [(i.collection_id, i.id) for i in search(source, limit=7, **options)]
        for name, source in sources.items()
    }
    assert answers == dict.fromkeys(sources, right)
    whole = expected(query)
    assert set(right) == whole if count is None else set(right) <= whole
    assert {name: search(source, **options).matched() for name, source in sources.items()} == dict.fromkeys(
        sources, len(whole)
    )


FILTERS = [
    "latent:psnr >= 40",
    "NOT (latent:psnr > 40)",
    "latent:psnr IS NULL",
    "latent:psnr BETWEEN 30 AND 40",
    "latent:psnr IN (40, 41, 34)",
    "latent:psnr <> 40 OR latent:bits_per_pixel < 0.5",
    "latent:bits_per_pixel * 2 < 1",
    "latent:max_error <= 20 AND latent:psnr > 35",
    "latent:psnr < eo:cloud_cover",
    "A_CONTAINS(latent:kinds, ('codec'))",
    "A_EQUALS(latent:kinds, ('codec'))",
    f"A_OVERLAPS(latent:spaces, ('{SPACES[0]}', 'x'))",
    "platform LIKE '%2a'",
    "CASEI(platform) = CASEI('SENTINEL-2A')",
    "collection = 'c0' AND id <> 'item-0003'",
    "datetime > TIMESTAMP('2024-05-01T00:00:00Z')",
    "start_datetime > TIMESTAMP('2024-05-01T00:00:00Z')",
    "T_INTERSECTS(datetime, INTERVAL('2024-03-01', '..'))",
    "S_INTERSECTS(geometry, POLYGON((0 0, 90 0, 0 90, 0 0)))",
]


@pytest.mark.parametrize("cql2", FILTERS)
def test_cql2_on_every_field(sources, cql2):
    answers = {name: ids(search(source, filter=cql2)) for name, source in sources.items()}
    assert answers == dict.fromkeys(sources, answers["items"])
    assert 0 < len(answers["items"]) < len(ITEMS)


def test_a_filter_that_the_server_cannot_run_is_applied_here(sources):
    cql2 = "A_CONTAINEDBY(latent:kinds, ('codec', 'x'))"
    with pytest.warns(UserWarning, match="refused the filter .*HTTP 500"):
        found = ids(search(sources["api"], filter=cql2))
    assert found == ids(search(ITEMS, filter=cql2))


def test_items_come_back_as_they_were(sources):
    found = {i.id: i for i in search(sources["api"])}
    for original in as_dicts(ITEMS):
        item = found[original["id"]].to_dict(transform_hrefs=False)
        for name in ("geometry", "bbox", "properties", "assets", "collection", "stac_extensions"):
            assert item[name] == original[name], name


def test_a_second_push_sends_nothing_and_a_changed_item_alone(server, sources):
    requests_before = server.sql("select max(xmin::text::bigint) from pgstac.items")
    again = push(sources["static"], server.url)
    assert (again.new, again.changed, again.unchanged, again.collections) == (0, 0, len(ITEMS), [])
    assert server.sql("select max(xmin::text::bigint) from pgstac.items") == requests_before
    changed = [i.clone() for i in ITEMS]
    changed[4].properties["platform"] = "sentinel-2z"
    other = push(changed, server.url)
    assert (other.new, other.changed, other.unchanged) == (0, 1, len(ITEMS) - 1)
    assert ids(search(server.url, filter="platform = 'sentinel-2z'")) == {
        (ITEMS[4].collection_id, ITEMS[4].id)
    }
    assert push(ITEMS, server.url).changed == 1


def _own(prefix, count):
    items = make_items(count)
    for item in items:
        item.collection_id = f"{prefix}-{item.collection_id}"
    return items


def test_a_push_that_was_cut_short_goes_on(server):
    items = _own("cut", 90)

    def stop(_label, done, total):
        assert total == 90
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(items, server.url, batch=10, progress=stop)
    counts = []
    done = push(items, server.url, batch=10, progress=lambda _label, count, _total: counts.append(count))
    assert (done.new, done.unchanged, done.changed) == (50, 40, 0)
    assert counts == list(range(10, 91, 10))
    assert len(search(server.url, collections=["cut-c0", "cut-c1", "cut-c2"])) == 90


def test_pages_and_matched(server):
    items = _own("pages", 600)
    push(items, server.url)
    names = ["pages-c0", "pages-c1", "pages-c2"]
    for sortby in (None, "-latent:psnr"):
        found = search(server.url, collections=names, limit=50, sortby=sortby)
        assert found.matched() == 600
        assert [i.id for i in found[:1]] == [next(iter(search(items, sortby=sortby or "-datetime"))).id]
        assert len(ids(found)) == 600


def test_sorting_where_the_server_does_not_know_the_type(server, sources):
    """Without queryables pgstac sorts numbers as text; then it is sorted here."""
    with pytest.warns(
        UserWarning, match=r"does not name eo:cloud_cover among its queryables, so it may sort numbers as"
    ):
        found = [i.id for i in search(server.url, collections=["c0", "c1", "c2"], sortby="-eo:cloud_cover")]
    assert found == [i.id for i in search(ITEMS, sortby="-eo:cloud_cover")]


def test_a_refused_item_does_not_stop_the_others(server):
    items = _own("refused", 9)
    bad = items[4]
    bad.id = "no/slash"
    done = push(items, server.url)
    assert done.new == 8
    (name,) = done.refused
    assert name == f"{bad.collection_id}/no/slash"
    assert re.search(r"answered HTTP 400", done.refused[name])


@pytest.fixture
def published(monkeypatch):
    """The sample's folder on a web server of this machine, where items of another server may lead."""
    handler = partial(_Ranges, directory="catalogs/sample")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("STAC_LATENT_ALLOW_PRIVATE", "127.0.0.1")
        yield f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()
        thread.join()


class _Ranges(SimpleHTTPRequestHandler):
    """Files, whole or a range of their bytes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, asked = path.read_bytes(), re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        begin, end = 0, len(data)
        if asked and asked[1]:
            begin, end = int(asked[1]), min(end, int(asked[2]) + 1) if asked[2] else end
        elif asked:
            begin = max(0, end - int(asked[2]))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        self.wfile.write(data[begin:end])

    def log_message(self, *_):
        """Keep the tests' output quiet."""


def test_pixels_through_the_api(server, published):
    """The sample's catalogue, pushed; what the API's items load from the web is what the catalogue's do."""
    here = "catalogs/sample/catalog.json"
    query = {"collections": "s2-sample", "kind": "codec", "sortby": "-latent:psnr", "min_psnr": 40}
    local = push(pystac.Catalog.from_file(here), server.url)
    assert local.new == 3
    assert local.local > 0
    first = search(server.url, **query)[0]
    assert all(asset.href.startswith("file:///") for asset in first.assets.values())
    with pytest.raises(CatalogError, match="on this machine; remote documents may not name local files"):
        load(first, ["red"], asset="latent")
    done = push(here, server.url, href=published)
    assert (done.changed, done.local) == (3, 0)
    through, straight = search(server.url, **query), search(here, **query)
    assert [i.id for i in through] == [i.id for i in straight]
    decoder = next(link for link in through[0].links if link.rel == "latent:decoder")
    assert decoder.href.startswith(f"{published}codecs/")
    a, b = (load(found[0], ["red"], asset="latent") for found in (through, straight))
    assert a.identical(b)
