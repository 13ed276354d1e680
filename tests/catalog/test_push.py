"""``push`` against an API that fails in every way, and search against the same."""

from __future__ import annotations

import json
import time

import pystac
import pytest
from search_support import as_dicts, ids, make_items, write_static
from servers.transactions import COLLECTIONS, CORE, ITEMS, SEARCH, TransactionApi
from typer.testing import CliRunner

from stac_latent import load, push, search
from stac_latent.catalog.push.queryables import queryables
from stac_latent.cli import app
from stac_latent.errors import CatalogError, GridError, SearchError, StacLatentError
from stac_latent.extension import LatentExtension

pytestmark = pytest.mark.usefixtures("short_pauses")
MADE = make_items(12)


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    return write_static(MADE, tmp_path_factory.mktemp("static"))


@pytest.mark.parametrize(("bulk", "together"), [(True, False), (False, True), (False, False)])
def test_every_way_of_sending(static, bulk, together):
    with TransactionApi(bulk=bulk, together=together) as api:
        done = push(static, api.url, batch=2)
        assert (done.new, done.refused, done.local) == (12, {}, 0)
        assert {k for k in api.items} == ids(MADE)  # noqa: C416
        first = api.sent()
        assert first[:3] == ["/collections"] * 3  # collections come first
        again = push(static, api.url)
        assert (again.new, again.changed, again.unchanged, again.collections) == (0, 0, 12, [])
        assert api.sent() == first
        assert api.sent("PUT") == []
        changed = [i.clone() for i in MADE]
        changed[5].properties["platform"] = "other"
        assert push(changed, api.url).changed == 1
        assert api.items[changed[5].collection_id, changed[5].id]["properties"]["platform"] == "other"
    ways = {"bulk_items": bulk, "items": not bulk}
    assert all(any(p.endswith(f"/{name}") for p in first[3:]) == used for name, used in ways.items())


def test_what_is_sent(tmp_path):
    """Absolute addresses, no links of the tree; the folder's address where it is published."""
    folder = tmp_path / "a catalogue"
    items = [i.clone() for i in MADE[:1]]
    items[0].assets = {"raw": pystac.Asset("./raw.tif")}
    path = write_static(items, folder)
    (file,) = folder.rglob("item-0000.json")
    document = json.loads(file.read_text())
    link = {"rel": "latent:decoder", "href": "../../codecs/x/item.json", "latent:space": "s"}
    file.write_text(json.dumps({**document, "links": [*document["links"], link]}))
    with TransactionApi() as api:
        assert push(path, api.url).local == 1
        (sent,) = api.items.values()
        assert sent["assets"]["raw"]["href"].startswith(folder.as_uri() + "/")
        assert push(path, api.url, href="https://example.com/data/").changed == 1
        (sent,) = api.items.values()
    assert sent["assets"]["raw"]["href"].startswith("https://example.com/data/c0/item-0000/")
    (link,) = sent["links"]
    assert link["rel"] == "latent:decoder"
    assert link["latent:space"] == "s"
    assert link["href"].startswith("https://example.com/data/")


def test_a_busy_server_is_asked_again():
    """429 with and without a wait, 503, 500, a cut connection: all in one push, which ends as if nothing had been."""
    faults = [
        ("POST", "/collections", 429, {"Retry-After": "1"}, b"slow down"),
        ("POST", "/items", 503, {}, b""),
        ("POST", "/items", 500, {}, b"oops"),
        ("POST", "/search", 429, {}, b""),
        ("POST", "/items", None, {}, b""),
        ("GET", "/collections/c1", 502, {}, b""),
    ]
    with TransactionApi(faults=faults, together=True) as api:
        start = time.monotonic()
        done = push(MADE, api.url)
        assert time.monotonic() - start >= 1
        assert (done.new, api.faults[1:]) == (12, [])  # nothing of a new collection is searched for
        assert len(api.items) == 12


def test_an_answer_that_was_lost():
    """The item was taken, and the server says so when it is sent again."""
    with TransactionApi() as api:
        push(MADE[:1], api.url)
        real = api._search
        api._search = lambda _body: {"type": "FeatureCollection", "features": [], "links": []}
        changed = MADE[0].clone()
        changed.properties["platform"] = "new"
        assert push([changed], api.url).refused == {}
        api._search = real
        assert api.sent("PUT") == ["/collections/c0/items/item-0000"]
        assert push([changed], api.url).unchanged == 1


def test_it_gives_up_in_the_end():
    faults = [("POST", "/items", 503, {}, b"down")] * 9
    with (
        TransactionApi(faults=faults) as api,
        pytest.raises(SearchError, match="HTTP 503: 'down'; it is busy: try again later"),
    ):
        push(MADE[:1], api.url, tries=2)
    assert len(api.sent(end="/items")) == 3


def test_a_long_wait_is_left_to_the_user():
    with TransactionApi(faults=[("GET", "/", 429, {"Retry-After": "3600"}, b"quota")]) as api:
        start = time.monotonic()
        with pytest.raises(SearchError, match="HTTP 429: 'quota'; it is busy: try again later"):
            push(MADE[:1], api.url)
        assert time.monotonic() - start < 5
        assert len(api.requests) == 1


def test_refused_items_do_not_stop_the_others():
    for options in ({"bulk": True}, {"together": True}, {}):
        with TransactionApi(refuse=["item-0003"], **options) as api:
            done = push(MADE, api.url)
            assert done.new == 11
            ((name, why),) = done.refused.items()
            assert name == "c0/item-0003"
            assert "HTTP 400" in why
            assert "item-0003 is not wanted" in why


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (
            [("GET", "/", 200, {}, b"<!DOCTYPE html><html>")],
            "is not JSON .* begins with '<!DOCTYPE html><html>'",
        ),
        ([("POST", "/items", 401, {}, b"who?")], r"HTTP 401: 'who\?'; pass headers="),
        ([("POST", "/items", 403, {}, b"")], "HTTP 403"),
        ([("POST", "/search", 200, {}, b"<html>")], "is not JSON .* begins with '<html>'"),
        ([("GET", "/collections/c0", "silent", {}, b"")] * 2, "timed out; check the address"),
        ([("POST", "/items", "silent", {}, b"")] * 2, "timed out; check the address"),
    ],
)
def test_faults_that_end_a_push(faults, message):
    with TransactionApi() as api:
        api.collections["c0"] = {"id": "c0"}
        api.faults = faults
        with pytest.raises(StacLatentError, match=message):
            push(MADE[:1], api.url, timeout=0.3, tries=1)


def test_an_api_that_takes_nothing():
    with (
        TransactionApi(conforms=[CORE, SEARCH]) as api,
        pytest.raises(
            CatalogError,
            match=r"takes no items: it does not conform to the transaction extension .*ENABLE_TRANSACTIONS",
        ),
    ):
        push(MADE, api.url)
    with (
        TransactionApi(conforms=[CORE, SEARCH, ITEMS]) as api,
        pytest.raises(
            CatalogError, match=r"takes no collections, and its 'c0' is missing: its operator has to add it"
        ),
    ):
        push(MADE, api.url)
    with (
        TransactionApi(faults=[("GET", "/", 200, {}, {"type": "Collection"})]) as api,
        pytest.raises(CatalogError, match="is no STAC API but a Collection"),
    ):
        push(MADE, api.url)
    assert COLLECTIONS


def test_bad_arguments(static):
    with pytest.raises(CatalogError, match="'catalog' is no address of a STAC API"):
        push(static, "catalog")
    with pytest.raises(CatalogError, match="batch must be a whole number from 1 to 10000, got 0"):
        push(static, "http://127.0.0.1:9", batch=0)
    with pytest.raises(CatalogError, match="href is for static catalogues"):
        push(MADE, "http://127.0.0.1:9", href="https://example.com")
    loose = MADE[0].clone()
    loose.collection_id = None
    nowhere = MADE[0].clone()
    nowhere.geometry = None
    with TransactionApi() as api:
        with pytest.raises(CatalogError, match="'item-0000' has no collection"):
            push([loose], api.url)
        with pytest.raises(CatalogError, match="'item-0000' has no geometry"):
            push([nowhere], api.url)


def test_command(static):
    run = CliRunner().invoke
    with TransactionApi(bulk=True) as api:
        first = run(app, ["push", str(static), api.url, "--header", "X-Key: k"])
        assert first.exit_code == 0, first.output
        assert "12 new, 0 changed, 0 unchanged, 0 refused item(s); 3 collection(s) sent" in first.output
        again = json.loads(run(app, ["push", str(static), api.url, "--json"]).stdout)
        assert (again["new"], again["unchanged"]) == (0, 12)
        assert run(app, ["push", str(static), api.url, "--header", "nonsense"]).exit_code == 2
    with TransactionApi(refuse=["item-0001"]) as api:
        refused = run(app, ["push", str(static), api.url])
        assert refused.exit_code == 1
        assert "refused c1/item-0001" in refused.output
    assert json.loads(run(app, ["queryables"]).stdout) == queryables()


def test_queryables_are_the_properties_of_the_extension():
    named = set(queryables()["properties"])
    assert {
        "latent:psnr",
        "latent:bits_per_pixel",
        "latent:max_error",
        "latent:kinds",
        "latent:spaces",
    } <= named
    assert "$ref" not in json.dumps(queryables())
    assert {k: v["type"] for k, v in queryables()["properties"].items()}["latent:spaces"] == "array"


# -- search against such servers -------------------------------------------------------------------------------------


def _page(features, number, link=True, **fields):
    links = (
        [{"rel": "next", "method": "POST", "href": "/search", "body": {"token": str(number)}}] if link else []
    )
    return {"type": "FeatureCollection", "features": features, "links": links, **fields}


def test_an_api_that_pages_for_ever():
    """New items, new links, on and on; it told of 35."""
    feature = as_dicts(MADE[:1])[0]

    def find(body, _requests):
        page = int(body.get("token", 0))
        features = [{**feature, "id": f"i{page}-{i}"} for i in range(100)]
        return _page(features, page + 1, numberMatched=35)

    with TransactionApi(find=find) as api:
        with pytest.raises(
            SearchError, match=r"paging does not end: .* told of 35 items and brought 1400 by now"
        ):
            list(search(api.url))
        assert len(list(search(api.url, max_items=300))) == 300
        assert search(api.url).matched() == 35


@pytest.mark.parametrize(
    "told", [{"numMatched": 7}, {"context": {"matched": 7}}, {"numberMatched": None}, {}]
)
def test_how_an_api_tells_the_number(told):
    with TransactionApi(find=lambda *_: _page(as_dicts(MADE), 1, link=False, **told)) as api:
        assert search(api.url).matched() == (7 if told and told != {"numberMatched": None} else None)


def test_a_search_waits_as_long_as_it_is_asked_to():
    faults = [("POST", "/search", 429, {"Retry-After": "1"}, b"")]
    with TransactionApi(faults=faults, find=lambda *_: _page(as_dicts(MADE), 1, link=False)) as api:
        start = time.monotonic()
        assert len(search(api.url)) == 12
        assert time.monotonic() - start >= 1
        api.faults = [("POST", "/search", 429, {"Retry-After": "600"}, b"quota")]
        with pytest.raises(SearchError, match="HTTP 429: 'quota'; it is busy"):
            len(search(api.url))
        api.faults = [("POST", "/search", None, {}, b"")]  # a connection that was kept too long
        assert len(search(api.url)) == 12
        api.faults = [("POST", "/search", "silent", {}, b"")]
        with pytest.raises(SearchError, match="timed out"):
            len(search(api.url, timeout=0.3))
        api.faults = [("POST", "/search", 200, {}, b"<html>")]
        with pytest.raises(SearchError, match="is not JSON"):
            len(search(api.url))


@pytest.mark.parametrize("broken", [{"properties": None}, {"assets": 3}, {"geometry": {"type": "Polygon"}}])
def test_features_that_are_none(broken):
    feature = {**as_dicts(MADE[:1])[0], **broken}
    with (
        TransactionApi(find=lambda *_: _page([feature], 1, link=False)) as api,
        pytest.raises(StacLatentError),
    ):
        load(list(search(api.url)), upto="latent")


def test_items_without_proj(sample):
    """Found as any other; what has no grid cannot be loaded, and the error says what is missing."""
    document = json.loads(json.dumps(sample.to_dict(transform_hrefs=False)))
    asset = {"href": "https://example.com/x.zarr", "roles": ["latent"], "latent:kind": "embedding"}
    fields = {
        "latent:space": "sha256:" + "a" * 64,
        "latent:granularity": "patch",
        "latent:dimensions": 4,
        "latent:shape": [4, 2, 2],
        "latent:dim_order": ["channel", "y", "x"],
        "latent:dtype": "float32",
        "latent:quantization": "none",
    }
    document["assets"] = {"latent": {**asset, **fields}}
    document["properties"] = {k: v for k, v in document["properties"].items() if not k.startswith("proj:")}
    document["properties"]["latent:kinds"] = ["embedding"]
    document["stac_extensions"] = [LatentExtension.get_schema_uri()]
    with TransactionApi(find=lambda *_: _page([document], 1, link=False)) as api:
        with pytest.warns(UserWarning, match="does not conform to the filter extension"):
            found = list(search(api.url, kind="embedding"))
        with pytest.raises(GridError, match="proj:"):
            load(found, upto="latent")
