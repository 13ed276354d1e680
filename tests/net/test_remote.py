"""Over the network: what a window and a series ask for, faults of servers, signed addresses, the cache, object stores."""

from __future__ import annotations

import gc
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
import xarray as xr
from affine import Affine
from core_support import BANDS, make_scene, scene_field
from odc.geo.geobox import GeoBox
from servers.files import FileServer

from stac_latent import encode, load, open_codec, search
from stac_latent.catalog.push.object_store import copy
from stac_latent.catalog.verify import verify
from stac_latent.codec.registry import remember
from stac_latent.cube.grid.boxes import pixel_box
from stac_latent.cube.read.chunk_cache import forget
from stac_latent.cube.read.driver import _open
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import (
    CatalogError,
    CorruptDataError,
    OptionError,
    RemoteError,
    SearchError,
    StacLatentError,
)
from stac_latent.net import fetch, retry
from stac_latent.net.answers import connections
from stac_latent.net.disk_cache import Cache
from stac_latent.net.fetch import inner, read_remote
from stac_latent.net.hrefs import read_bytes
from stac_latent.net.retry import Retries, RetryPolicy
from stac_latent.store.zarr.known_metadata import absent_chunks
from stac_latent.store.zarr.remote_store import RemoteStore, part_of
from stac_latent.system.files import tree_size
from stac_latent.system.links import shown
from stac_latent.system.session import session
from stac_latent.system.threads import ProcessPool

DATES = 100
SHAPE = (700, 690)  # three by three chunks and a mask with holes
ITEM = "scenes/scene/scene.json"
SECRET = "c2VjcmV0LXNpZ25hdHVyZQ%3D%3D"  # noqa: S105 - of nobody
STORE = "scenes/scene/latent.zarr"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    scene = make_scene(tmp_path_factory.mktemp("raw"), scene_field(SHAPE, 5))
    out = tmp_path_factory.mktemp("cat")
    encode(scene.item, remember(open_codec("lin", bands=list(BANDS), step=32.0)), out)
    for i in range(DATES):
        (out / "scenes" / f"d{i}").symlink_to(out / "scenes" / "scene")
    return out


@pytest.fixture
def server(root):
    with FileServer(root) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path, short_pauses):
    """A cache of the test's own, short pauses, and readers that have read nothing."""
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path / "cache"))
    _open.cache_clear()
    forget()


def item_at(server, name="scene", query=""):
    doc = json.loads((server.root / ITEM).read_text())
    item = pystac.Item.from_dict(doc, href=f"{server.url}/scenes/{name}/scene.json")
    item.assets["latent"].href += query
    return item


def opened(server, **options):
    """Reader whose codec is at hand already."""
    reader = LatentReader.open(item_at(server, **options))
    assert reader.codec.name == "lin"
    server.requests.clear()
    return reader


def local(root):
    return LatentReader.open(pystac.Item.from_file(str(root / ITEM)))


def field_bytes(item):
    return item.assets["latent"].extra_fields


# -- how little is asked for ---------------------------------------------------------------------------------------------


def test_a_window_of_512_pixels(server, root):
    """Index and chunks of the one shard, neighbours together, and only those chunks of the mask that are stored."""
    window = ((100, 612), (50, 562))
    reader = opened(server)
    got = reader.read_field(window)
    np.testing.assert_array_equal(got, local(root).read_field(window))
    kinds = [("mask" if "/mask/" in r.path else r.range[:7] if r.range else r.path) for r in server.requests]
    assert kinds.count("bytes=-") == 1
    assert kinds.count("mask") <= 3
    assert len(kinds) <= 6, server.requests
    assert all(r.status in (200, 206) for r in server.requests)  # nothing is asked for that is not there
    assert server.sent < tree_size(root / STORE)


def test_a_point_through_100_dates(server, root):
    """At most three requests for each date: the shard's index, the chunk, and its mask; two where all is valid."""
    server.latency = 0.02
    items = [item_at(server, f"d{i}") for i in range(DATES)]
    for i, item in enumerate(items):
        item.id = f"d{i}"
        item.datetime = item.datetime.replace(year=1900 + i)
    grid = LatentRef.from_item(items[0]).grid
    whole = pixel_box(grid)
    free = absent_chunks(local(root).arrays.mask, field_bytes(items[0])["latent:mask_chunks"])[0]
    clear = tuple(256 * int(n) + 9 for n in free.split("/")[-2:])
    for y, x, most in ((*clear, 2), (SHAPE[0] // 2 + 3, 8, 3)):  # the second lies in the hole
        point = GeoBox((1, 1), whole.affine * Affine.translation(x, y), whole.crs)
        server.requests.clear()
        server.most_at_once = 0
        _open.cache_clear()
        cube = load(items, geobox=point)
        expected = local(root).read_field(((y, y + 1), (x, x + 1)))
        assert cube.sizes["time"] == DATES
        for band, value in zip(BANDS, expected[:, 0, 0], strict=True):
            assert set(np.unique(cube[band.name])) == {value}
        stores = [r for r in server.requests if "codecs" not in r.path]
        assert len(stores) <= most * DATES
        assert len(server.requests) - len(stores) <= 3  # the codec is read once
        assert server.most_at_once > 2


def test_metadata_is_read_where_the_item_does_not_pin_it(server, root, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE_BYTES", "0")
    item = item_at(server)
    for change in ({}, {"latent:metadata_digest": "sha256:" + "0" * 64}):
        for name in ("latent:metadata_digest", "latent:mask_chunks"):
            field_bytes(item).pop(name, None)
        field_bytes(item).update(change)
        reader = LatentReader.open(item)
        assert reader.codec
        server.requests.clear()
        got = reader.read_field(((300, 310), (5, 15)))
        np.testing.assert_array_equal(got, local(root).read_field(((300, 310), (5, 15))))
        assert server.requests[0].path.endswith("latent.zarr/zarr.json")
        assert len(server.requests) == 4


def test_chunks_of_a_mask_that_the_item_does_not_know(server):
    item = item_at(server)
    field_bytes(item)["latent:mask_chunks"] = "ff"
    with pytest.raises(CorruptDataError, match=r"latent:mask_chunks is 'ff'; a mask of 9 chunks has 2 bytes"):
        LatentReader.open(item).read_field(((0, 9), (0, 9)))


def test_verify_notices_other_metadata(root, tmp_path):
    item = pystac.Item.from_file(str(root / ITEM))
    assert verify(item)[0].problems == []
    item.assets["latent"].extra_fields["latent:metadata_digest"] = "sha256:" + "0" * 64
    item.assets["latent"].extra_fields["latent:mask_chunks"] = "0000"
    problems = " ".join(verify(item)[0].problems)
    assert "latent:metadata_digest is not that of the store's zarr.json" in problems
    assert "latent:mask_chunks is '0000', the store has" in problems


def test_whole_lines_over_http(server, root, tmp_path):
    """The verbs from the command line, on a catalogue on loopback that was named by its address."""
    from typer.testing import CliRunner

    from stac_latent.cli import app

    def run(*words):
        done = CliRunner().invoke(app, [str(w) for w in words])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    catalog = f"{server.url}/catalog.json"
    assert run("search", catalog, "--json")["matched"] == 1
    assert run("info", f"{server.url}/{ITEM}", "--preview", tmp_path / "a.png", "--json")[0]["codec"] == "lin"
    assert run("verify", catalog, "--no-raw", "--json")["failed"] == 0
    assert run("load", catalog, tmp_path / "a.zarr", "--json")["sizes"] == {
        "y": SHAPE[0],
        "x": SHAPE[1],
        "time": 1,
    }


def test_a_catalogue_may_not_lead_to_another_private_host(server):
    item = item_at(server)
    item.assets["latent"].href = "http://127.0.0.1:9/latent.zarr?sig=" + SECRET
    with pytest.raises(
        CatalogError, match=r"an address of a private network; set STAC_LATENT_ALLOW_PRIVATE=127.0.0.1"
    ) as caught:
        LatentReader.open(item)
    assert SECRET not in str(caught.value)


# -- faults ----------------------------------------------------------------------------------------------------------------

FOREVER = {
    "403": r"latent/c/0/0/0 answered HTTP 403: it wants credentials, or a signature .* patch_url",
    "404": r"latent/c/0/0/0 is missing; the store is incomplete, fetch or write it again",
    "500": r"answered HTTP 500; the server is busy or broken: try again later, .* \(tried 4 times\)",
    "429": r"answered HTTP 429; the server is busy .* \(tried 4 times\)",
    "418": r"answered HTTP 418; expected 200 or 206: check the address",
    "silent": r"sent nothing for 0.2 s; try again later, or set STAC_LATENT_TIMEOUT .* \(tried 4 times\)",
    "dead": r"cannot reach http://127.0.0.1:\d+/scenes.*; check the address and the network \(tried 4 times\)",
    "html": r"answers with a web page \(text/html\) where data was expected",
    "cut": r"ended after \d+ of \d+ bytes; the connection was cut, .* \(tried 4 times\)",
    "shift": r"sent the range 'bytes \d+-\d+/\d+' instead of the bytes from \d+ on",
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREVER)
def test_faults_for_ever(server, monkeypatch, kind):
    monkeypatch.setenv("STAC_LATENT_TIMEOUT", "0.2")
    reader = opened(server)
    if kind == "shift":
        assert reader.arrays.payloads.read(0, 0)  # the index is sent as it should be
    server.fail(kind, "latent/c/0")
    with pytest.raises(StacLatentError, match=FOREVER[kind]) as caught:
        reader.read_field(((300, 301), (300, 301)))
    assert server.url in str(caught.value)


def test_a_drip(server, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_TIMEOUT", "0.05")
    session().of(Retries).reads = RetryPolicy(0)
    server.fail("drip", "catalog.json")
    with pytest.raises(RemoteError, match=r"sent nothing for 0.05 s"):
        read_bytes(f"{server.url}/catalog.json")


@pytest.mark.parametrize("kind", ["429", "500", "503", "silent", "dead", "cut"])
def test_faults_that_pass(server, root, monkeypatch, kind):
    monkeypatch.setenv("STAC_LATENT_TIMEOUT", "0.3")
    reader = opened(server)
    server.fail(kind, times=2)
    window = ((250, 260), (250, 260))
    np.testing.assert_array_equal(reader.read_field(window), local(root).read_field(window))


def test_pauses_grow_and_heed_the_server(server, monkeypatch):
    slept, sleep = [], retry.time.sleep

    def counted(seconds):
        (slept.append if threading.current_thread() is threading.main_thread() else sleep)(seconds)

    monkeypatch.setattr(retry.time, "sleep", counted)
    server.fail(500, times=3)
    read_bytes(f"{server.url}/catalog.json")
    assert len(slept) == 3
    # Each is four times the one before, spread by a quarter.
    for pause, middle in zip(slept, (0.01, 0.04, 0.16), strict=True):
        assert 0.75 * middle <= pause <= 1.25 * middle
    slept.clear()
    server.fail(429, times=1, retry_after="7")
    read_bytes(f"{server.url}/{ITEM}")
    assert slept == [7.0]
    slept.clear()
    server.fail(503, times=1, retry_after="86400")
    read_bytes(f"{server.url}/scenes/collection.json")
    assert slept == [10.0]


def test_ranges_that_are_ignored(server, tmp_path):
    server.fail("whole", "latent/c")
    assert opened(server).read_field(((0, 9), (0, 9))).shape == (2, 9, 9)  # small files are read whole
    (tmp_path / "small").write_bytes(bytes(1 << 20))
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    with FileServer(tmp_path) as other:
        other.fail("whole", ".")
        assert read_remote(f"{other.url}/small", (5, 9), limit=99) == bytes(4)
        with pytest.raises(
            RemoteError,
            match=r"large ignores ranges: .* with the whole file, 1048577 bytes; serve it from one",
        ):
            read_remote(f"{other.url}/large", (5, 9), limit=99)


def test_redirects(server, root):
    server.fail("away", f"^/{STORE}/latent", target=f"{server.url}/scenes/d3/latent.zarr/latent/c/0/0/0")
    window = ((0, 9), (0, 9))
    np.testing.assert_array_equal(opened(server).read_field(window), local(root).read_field(window))
    server.faults.clear()
    server.fail("away", "catalog.json", target="http://127.0.0.1:9/x")
    with pytest.raises(CatalogError, match="an address of a private network"):
        read_bytes(f"{server.url}/catalog.json")
    server.faults.clear()
    server.fail("away", "collection.json", target=f"{server.url}/scenes/collection.json")
    with pytest.raises(
        RemoteError, match="is redirected more than 5 times; give the address that it leads to"
    ):
        read_bytes(f"{server.url}/scenes/collection.json")


def test_small_files(server):
    with pytest.raises(CatalogError, match=r"cannot read http.*none.json: there is no such file"):
        read_bytes(f"{server.url}/none.json")
    with pytest.raises(CatalogError, match=r"catalog.json is larger than the 3 bytes"):
        read_bytes(f"{server.url}/catalog.json", limit=3)
    with pytest.raises(CorruptDataError, match=r"has checksum 1220.*the catalogue expects 1220ff"):
        read_bytes(f"{server.url}/catalog.json?sig={SECRET}", checksum="1220ff")


def test_a_store_without_metadata(server):
    with pytest.raises(RemoteError, match="cannot be listed"):
        RemoteStore(f"{server.url}/x")._listed()
    item = item_at(server)
    item.assets["latent"].href = "./nothing.zarr"
    field_bytes(item).pop("latent:metadata_digest")
    with pytest.raises(StacLatentError, match=r"nothing.zarr"):
        LatentReader.open(item).read_field(((0, 9), (0, 9)))


# -- signatures -------------------------------------------------------------------------------------------------------------


def everything_said(caught):
    """Message, traceback and representations that an error leaves."""
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_what_an_address_is_signed_with_goes_to_its_objects(root, caplog):
    query = f"?sv=2024-11-04&sig={SECRET}"
    assert (
        inner(f"https://a.blob/c/x.zarr{query}", "latent/c/0") == f"https://a.blob/c/x.zarr/latent/c/0{query}"
    )
    with FileServer(root, token=SECRET) as server, caplog.at_level(logging.DEBUG):
        reader = LatentReader.open(item_at(server, query=query), "latent")
        ref = replace(reader.ref, decoder=None)
        reader = LatentReader(ref, local(root).codec)
        assert reader.read_field(((0, 300), (0, 300))).shape == (2, 300, 300)
        assert {r.query for r in server.requests} == {query[1:]}
        assert {r.status for r in server.requests} == {200, 206} or {r.status for r in server.requests} == {
            206
        }
        unsigned = replace(ref, href=ref.href.replace(SECRET, "wrong" + SECRET[:12]))
        with pytest.raises(RemoteError, match=r"sv=\.\.\.&sig=\.\.\. answered HTTP 403") as caught:
            LatentReader(unsigned, reader.codec).read_field(((0, 300), (300, 600)))
        said = (
            everything_said(caught) + repr(ref) + repr(reader.arrays.latent) + str(reader.arrays.latent.store)
        )
    assert caplog.text.count("latent.zarr") > 1  # urllib3 tells what it asks for
    for text in (said, caplog.text):
        assert SECRET not in text
        assert SECRET[:12] not in text
    assert pickle.loads(pickle.dumps(ref)) == ref  # noqa: S301
    assert SECRET in ref.text


def test_a_function_signs_each_object(root, caplog):
    """As of planetary_computer.sign, or of a function that signs each object by itself."""
    asked = []

    def sign(href):
        asked.append(href)
        return f"{href}?X-Amz-Signature={SECRET}"

    with FileServer(root, token=SECRET) as server, caplog.at_level(logging.DEBUG):
        item = item_at(server)
        with pytest.raises(RemoteError, match="answered HTTP 403"):
            load(item, bands=["red"])
        cube = load(item, bands=["red"], patch_url=sign)
        np.testing.assert_array_equal(cube.red[0], local(root).read_field()[0])
        assert (
            len(asked) == len({r.path for r in server.requests if SECRET in r.query}) + 2 or len(asked) >= 5
        )
        assert SECRET not in caplog.text + repr(cube) + str(cube.attrs) + str(cube.red.attrs)
        again = len(server.requests)
        _open.cache_clear()
        forget()
        load(item, bands=["red"], patch_url=lambda href: f"{href}?X-Amz-Signature=other-{SECRET}")
        assert len(server.requests) == again  # another signature is the same object


def test_the_xarray_engine_signs_what_it_opens(root):
    def sign(href):
        return f"{href}?X-Amz-Signature={SECRET}"

    with FileServer(root, token=SECRET) as server:
        item = item_at(server)
        with pytest.raises(RemoteError, match=r"answered HTTP 403: it wants credentials"):
            xr.open_dataset(item, engine="stac-latent")
        href = item.assets["latent"].get_absolute_href()
        for target in (item.get_self_href(), item, item.assets["latent"], href):
            ds = xr.open_dataset(target, engine="stac-latent", patch_url=sign, chunks={})
            np.testing.assert_array_equal(ds["red"].values, local(root).read_field()[0])
            said = repr(ds) + str(ds.encoding) + str(ds["red"].attrs) + str(list(ds["red"].data.dask))
            assert SECRET not in said


def test_a_function_that_signs_named_by_the_environment(root, monkeypatch):
    with FileServer(root, token=SECRET) as server:
        monkeypatch.setenv("STAC_LATENT_SIGN", "test_remote:signed_here")
        assert [i.id for i in search(f"{server.url}/catalog.json")] == ["scene"]
        assert load(item_at(server), bands=["nir"]).sizes["time"] == 1
        for name, text in {
            "none": "names no function", "test_remote:nothing": "names no function",
            "test_remote:raises": "could not be signed: ValueError in the function", "test_remote:gives_none": "to a NoneType",
        }.items():  # fmt: skip
            monkeypatch.setenv("STAC_LATENT_SIGN", name)
            with pytest.raises(CatalogError, match=text) as caught:
                read_bytes(f"{server.url}/{ITEM}?a={name}")
            assert SECRET not in everything_said(caught)


def signed_here(href):
    return f"{href}?sig={SECRET}"


def raises(href):
    raise ValueError(SECRET)


def gives_none(href):
    return None


def test_secrets_do_not_show_in_searches(root, caplog):
    with FileServer(root) as server, caplog.at_level(logging.DEBUG):
        for kind in ("403", "html", "404"):
            server.faults.clear()
            server.fail(kind)
            with pytest.raises(SearchError) as caught:
                list(search(f"{server.url}/catalog.json?sig={SECRET}"))
            assert SECRET not in everything_said(caught)
    assert SECRET not in caplog.text
    assert shown("https://me:word@x.org/a;b?x=1#f") == "https://...@x.org/a;b?x=...#..."
    assert shown("/a?b=c") == "/a?b=c"


def test_a_failure_that_is_passed_over_keeps_its_secret(server, caplog):
    server.fail("403", "latent/c")
    cube = load(item_at(server, query=f"?sig={SECRET}"), bands=["red"], fail_on_error=False)
    assert (cube.red == 0).all()
    assert "Ignoring read failure" in caplog.text
    assert SECRET not in caplog.text


# -- the cache ---------------------------------------------------------------------------------------------------------------


def test_what_was_read_is_not_asked_for_again(server, root, tmp_path, monkeypatch):
    window = ((100, 612), (50, 562))
    first = opened(server).read_field(window)
    count, size = len(server.requests), server.sent
    server.requests.clear()
    np.testing.assert_array_equal(opened(server).read_field(window), first)
    assert server.requests == []
    monkeypatch.setenv("STAC_LATENT_CACHE_SECONDS", "0")
    server.requests.clear()
    np.testing.assert_array_equal(opened(server).read_field(window), first)
    assert server.sent < size
    monkeypatch.setenv("STAC_LATENT_CACHE_BYTES", "0")
    server.requests.clear()
    np.testing.assert_array_equal(opened(server).read_field(window), first)
    assert (len(server.requests), server.sent) == (count, size)


def test_a_file_that_changed_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE_SECONDS", "0")
    for etags in (True, False):
        (tmp_path / "a.json").write_bytes(b"one")
        with FileServer(tmp_path, etags=etags) as server:
            assert read_bytes(f"{server.url}/a.json") == b"one"
            assert read_bytes(f"{server.url}/a.json") == b"one"
            assert [r.status for r in server.requests] == [200, 304 if etags else 200]
            (tmp_path / "a.json").write_bytes(b"two")
            assert read_bytes(f"{server.url}/a.json") == b"two"


def test_errors_are_never_kept(tmp_path):
    with FileServer(tmp_path) as server:
        for kind in ("403", "html"):
            server.faults.clear()
            server.fail(kind, times=1)
            with pytest.raises(RemoteError):
                read_bytes(f"{server.url}/a.json")
        assert read_remote(f"{server.url}/a.json", limit=99) is None
        (tmp_path / "a.json").write_bytes(b"there")
        assert read_bytes(f"{server.url}/a.json") == b"there"


def test_the_least_recently_used_goes_first(tmp_path):
    cache = Cache(tmp_path / "c", 64_000)
    for i in range(100):
        cache.put(f"https://x.org/{i}", (0, None), '"1"', bytes([i]) * 2000)
        os.utime(cache._entry(f"https://x.org/{i}", '"1"', (0, None)), (i, i))
    cache.find("https://x.org/90", (0, None))
    cache.trim()
    held = sum(p.stat().st_size for p in cache.folder.rglob("*") if p.is_file())
    assert held <= 64_000
    kept = [i for i in range(100) if cache.find(f"https://x.org/{i}", (0, None))]
    assert 90 in kept
    assert 99 in kept
    assert 0 not in kept


def test_a_damaged_entry_is_as_none(tmp_path):
    cache = Cache(tmp_path / "c", 1 << 20)
    cache.put("https://x.org/a", (5, 9), '"1"', b"data")
    assert cache.find("https://x.org/a", (5, 9)).data == b"data"
    assert cache.find("https://x.org/a", (5, 8)) is None
    path = cache._entry("https://x.org/a", '"1"', (5, 9))
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.find("https://x.org/a", (5, 9)) is None
    assert not path.exists()
    cache.put("https://x.org/a", (0, None), "", b"a state that nobody knows")
    assert cache.find("https://x.org/a", (0, None)) is None


WRITER = """
import sys
from pathlib import Path
from stac_latent.net.disk_cache import Cache
cache = Cache(Path(sys.argv[1]), 200_000)
for i in range(150):
    name, data = f"https://x.org/{i % 40}", bytes([i % 40]) * 9000
    found = cache.find(name, (0, None))
    assert found is None or found.data == data
    cache.put(name, (0, None), '"1"', data)
"""


def test_processes_and_threads_share_a_folder(tmp_path):
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "c")]) for _ in range(2)]
    cache = Cache(tmp_path / "c", 200_000)

    def use(i):
        cache.put(f"https://x.org/{i % 40}", (0, None), '"1"', bytes([i % 40]) * 9000)
        found = cache.find(f"https://x.org/{i % 40}", (0, None))
        return found is None or found.data == bytes([i % 40]) * 9000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(300)))
    assert [p.wait(60) for p in running] == [0, 0]
    cache.trim()
    files = [p for p in cache.folder.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 200_000
    assert [p for p in files if p.name.startswith(".")] == []


def test_a_folder_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path / "file"))
    assert read_bytes(f"{server.url}/catalog.json").startswith(b"{")


# -- object stores -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects():
    pytest.importorskip("moto", reason="the object store of the tests comes with moto")
    from servers.objects import ObjectServer

    with ObjectServer("latents") as running:
        yield running
    gc.collect()


def test_a_catalogue_in_an_object_store(objects, root, tmp_path, monkeypatch):
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    small = tmp_path / "cat"
    for path in sorted(
        p for p in root.rglob("*") if p.is_file() and "/d" not in str(p.relative_to(root).parent)
    ):
        (small / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (small / path.relative_to(root)).write_bytes(path.read_bytes())
    objects.requests.clear()
    done = [name for name, _ in copy(small, "s3://latents/a/b")]
    put = [r.path.removeprefix("/latents/a/b/") for r in objects.requests if r.method == "PUT"]
    assert put[-2:] == done[-2:]
    assert done[-1] == "catalog.json"
    assert done[-2] == "scenes/collection.json"
    assert sorted(done) == sorted(p.relative_to(small).as_posix() for p in small.rglob("*") if p.is_file())
    assert done.index(ITEM) > max(i for i, n in enumerate(done) if ".zarr" in n or n.endswith(".safetensors"))

    (item,) = search("s3://latents/a/b/catalog.json")
    reader = LatentReader.open(item)
    assert reader.codec.name == "lin"
    objects.requests.clear()
    window = ((100, 612), (50, 562))
    np.testing.assert_array_equal(reader.read_field(window), local(root).read_field(window))
    assert len(objects.requests) <= 6
    assert {r.status for r in objects.requests} <= {200, 206}
    assert objects.sent < tree_size(root / STORE)

    monkeypatch.setenv("STAC_LATENT_CACHE_SECONDS", "0")
    objects.requests.clear()
    read_bytes("s3://latents/a/b/catalog.json")
    assert [r.status for r in objects.requests] == [304]


def test_object_stores_that_do_not_answer_as_they_should(objects, root, monkeypatch):
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CatalogError, match=r"cannot read s3://latents/none.json: there is no such file"):
        read_bytes("s3://latents/none.json")
    with pytest.raises(RemoteError, match=r"s3://nobody does not take .*; what was written before stays"):
        copy(root, "s3://nobody")
    with pytest.raises(
        CatalogError, match=r"elsewhere is no address of an object store; expected such as s3://bucket"
    ):
        copy(root, "/tmp/elsewhere")  # noqa: S108
    with pytest.raises(CatalogError, match=r"is no local catalogue: give the folder of a catalog.json"):
        copy(root / "scenes" / "scene", "s3://latents/x")


def test_threads_do_not_wait_for_each_other(server, root, monkeypatch):
    """Six readers on two connections, with everything asked for ahead: nothing blocks."""
    monkeypatch.setenv("STAC_LATENT_CONNECTIONS", "2")
    monkeypatch.setattr(fetch, "_pool", ProcessPool(connections, "few"))
    expected = local(root).read_field(((0, 500), (0, 500)))
    readers = [opened(server, name=f"d{i}") for i in range(6)]
    out = []
    threads = [
        threading.Thread(target=lambda r=r: out.append(r.read_field(((0, 500), (0, 500)))), daemon=True)
        for r in readers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(out) == 6
    assert all((field == expected).all() for field in out)
    assert Path(root).is_dir()


def test_remote_stores_are_stores_as_zarr_has_them():
    known = {"zarr.json": b"abcdef"}
    store = RemoteStore("https://example.invalid/x", known=known, read_only=True)
    again = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert again == store
    assert again.read_only
    assert again.read("zarr.json", (1, 3)) == b"bc"
    with pytest.raises(RemoteError, match="is read only: write to a folder"):
        RemoteStore("https://example.invalid/x", read_only=False)
    with pytest.raises(OptionError, match=r"asked for as \(0, 2\); expected a RangeByteRequest"):
        part_of((0, 2))
