"""Addresses: folders and files of any name, file: URLs, what is local and what is not, and what no message shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
from adopt_support import alphaearth_codes, alphaearth_truth, geo_footer, write_table, write_tiff
from core_support import make_scene, scene_field, small_codec
from hypothesis import given
from hypothesis import strategies as st

from stac_latent import adopt, encode, load, nearest, publish, search
from stac_latent.errors import BundleError, CatalogError
from stac_latent.system.documents import parse_json
from stac_latent.system.links import (
    absolute,
    asset_href,
    check_link,
    href_of,
    is_file_url,
    is_http,
    is_local,
    is_object,
    is_remote,
    is_served,
    local_path,
    relative,
    shown,
    without_secrets,
)

NAMES = ["run#3", "q?x", "tab\there", "back\\slash", "a%20b", "50%", "[old] {1}", "ä ö 日本", "line\nend"]


@pytest.mark.parametrize("name", NAMES)
def test_a_catalogue_in_a_folder_of_any_name(tmp_path, name):
    scene = make_scene(tmp_path / "raw", scene_field((40, 48)))
    root = tmp_path / name / "cat"
    (item,) = encode(scene.item, small_codec(), root, guard="off")
    truth = load(item, asset="latent").to_array().values
    assert (root / item.collection_id / item.id / "latent.zarr" / "zarr.json").is_file()
    for source in (root, root / "catalog.json", (root / "catalog.json").as_uri()):
        (found,) = search(str(source))
        assert np.array_equal(load(found, asset="latent").to_array().values, truth)
    again = encode(scene.item, small_codec(), root, guard="off")  # finds what is done
    assert [i.id for i in again] == [item.id]
    assert [p for p in tmp_path.rglob("*") if p.name == "catalog.json"] == [root / "catalog.json"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_others_in_a_folder_of_any_name(tmp_path, name):
    codes = alphaearth_codes(1)
    write_tiff(tmp_path / name / "t_2024.tif", codes, nodata=-128)
    (item,) = adopt("alphaearth", [tmp_path / name / "t_2024.tif"], tmp_path / name / "out")
    (found,) = search(str(tmp_path / name / "out"))
    cube = load(found, upto="latent")["latent"].values[0]
    assert np.allclose(cube, alphaearth_truth(codes), rtol=1e-6, equal_nan=True)
    assert item.id == "t_2024"


@pytest.mark.parametrize("name", ["run#3", "tab\there", "back\\slash"])
def test_vectors_in_a_folder_of_any_name(tmp_path, name):
    import shapely

    columns = {"v": [[1.0, 0.0], [0.0, 1.0]], "geometry": shapely.to_wkb(shapely.box([1, 2], 0, [2, 3], 1))}
    (tmp_path / name).mkdir()
    write_table(tmp_path / name / "t.parquet", columns, geo_footer())
    told = {
        "producer": "me",
        "name": "mine",
        "version": "1",
        "when": "2024",
        "fields": {"latent:columns": ["v"]},
    }
    items = adopt("any", [tmp_path / name / "t.parquet"], tmp_path / name / "out", **told)
    publish(items, tmp_path / name / "v.parquet", dtype="float32")
    for source in (tmp_path / name / "v.parquet", tmp_path / name / "v.parquet.json"):
        assert nearest(source, np.array([1.0, 0.1]), 1)["distance"].iloc[0] < 0.01


def test_raw_files_beside_an_item_in_a_folder_with_marks(tmp_path):
    scene = make_scene(tmp_path / "raw", scene_field((40, 48)))
    doc = scene.item.to_dict(include_self_link=False, transform_hrefs=False)
    for asset in doc["assets"].values():
        asset["href"] = "./" + Path(asset["href"]).name
    (tmp_path / "raw").rename(tmp_path / "raw#1")
    (tmp_path / "raw#1" / "item.json").write_bytes(json.dumps(doc).encode("utf-16"))
    (raw,) = search(str(tmp_path / "raw#1" / "item.json"))
    (item,) = encode(raw, small_codec(), tmp_path / "cat", guard="off")
    truth = encode(scene_at(scene, tmp_path / "raw#1"), small_codec(), tmp_path / "other", guard="off")[0]
    assert np.array_equal(*(load(i, asset="latent").to_array().values for i in (item, truth)))


def test_backslashes_that_pystac_made_slashes(tmp_path):
    """The path of an asset is then that of no file; the file whose name pystac would write so is the one that is meant."""
    folder = tmp_path / "a\\b" / "c" / "d\\e\\f"
    folder.mkdir(parents=True)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (folder / "x\\1.tif").write_bytes(b"")
    asset = pystac.Asset(str(folder / "x\\1.tif"))
    assert asset.href == f"{tmp_path.as_posix()}/a/b/c/d/e/f/x/1.tif"
    assert local_path(asset_href(asset)) == folder / "x\\1.tif"
    other = folder.parent / "d\\e" / "f\\x"
    other.mkdir(parents=True)
    (other / "1.tif").write_bytes(b"")
    assert asset_href(asset) == asset.href  # two could be meant
    assert asset_href(pystac.Asset("/no/file")) == "/no/file"


def scene_at(scene, folder):
    item = scene.item.clone()
    for asset in item.assets.values():
        asset.href = str(folder / Path(asset.href).name)
    return item


PREDICATES = (is_local, is_file_url, is_remote, is_http, is_object, is_served)


@pytest.mark.parametrize(
    ("href", "holds"),
    [
        ("/data/x", {is_local}),
        ("x", {is_local}),
        ("C:/x", {is_local}),
        ("file:///data/x", {is_local, is_file_url}),
        ("file:/data/x", {is_local, is_file_url}),
        ("FILE:///x", {is_local, is_file_url}),
        ("https://x.org/a?b=file:///c", {is_remote, is_http, is_served}),
        ("HTTP://x.org", {is_remote, is_http, is_served}),
        ("s3://b/k#1", {is_remote, is_object, is_served}),
        ("S3A://b/k", {is_remote, is_object, is_served}),
        ("azure://b/k", {is_remote, is_object, is_served}),
        ("zip:///a.zip!b", {is_remote}),
        ("ftp://x.org/a", {is_remote}),
        ("/vsicurl/https://x.org/a.tif", set()),
    ],
)
def test_what_an_address_is(href, holds):
    assert {p for p in PREDICATES if p(href)} == holds


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("file:///data/a%2520b.json", "/data/a%20b.json"),
        ("file:/data/x", "/data/x"),
        ("FILE:///x", "/x"),
        ("/data/a%20b.json", "/data/a%20b.json"),
    ],
)
def test_file_urls_are_decoded_once(href, path):
    assert local_path(href) == Path(path)


@pytest.mark.parametrize("form", ["file:{}", "FILE://{}"])
def test_search_reads_and_publish_writes_at_file_urls(tmp_path, form):
    from stac_latent.catalog.publish.inputs import destination

    (tmp_path / "a%20b.json").write_text('{"type": "FeatureCollection", "features": []}')
    assert list(search(form.format(tmp_path / "a%2520b.json"))) == []
    assert destination(form.format(tmp_path / "v%201.parquet")) == tmp_path / "v 1.parquet"


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "FILE://{}", "file://localhost{}"])
def test_forms_of_file_urls(tmp_path, form):
    (tmp_path / "a b.json").write_text("{}")
    href = form.format(str(tmp_path / "a%20b.json"))
    assert is_local(href)
    assert not is_remote(href)
    assert local_path(href) == tmp_path / "a b.json"


def test_a_file_url_that_was_never_encoded(tmp_path):
    (tmp_path / "a%20b.json").write_text("{}")
    assert local_path(f"file://{tmp_path}/a%20b.json") == tmp_path / "a%20b.json"


def test_a_file_of_another_machine():
    with pytest.raises(CatalogError, match="file of another machine; expected file:///path"):
        local_path("file://server/share/a.json")


@given(
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1).filter(
        lambda t: t not in (".", "..")
    )
)
def test_any_path_survives_pystac(name):
    path = Path("/data") / name / "x.json"
    item = pystac.Item(
        "a",
        None,
        None,
        None,
        {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z"},
    )
    item.set_self_href(href_of(path))
    assert local_path(str(item.get_self_href())) == path
    assert local_path(absolute("./y.zarr", item.get_self_href())) == path.parent / "y.zarr"
    assert relative(href_of(path), path.parent / "up" / "z.json") == "../x.json"


@pytest.mark.parametrize("href", ["/vsicurl/https://x.org/a.tif", "zip:///a.zip!b.tif", "s3://b/k"])
def test_what_is_not_local(href):
    assert not is_local(href)
    assert absolute(href, "/data/item.json") == href
    with pytest.raises(CatalogError, match="expected a local path, got"):
        local_path(href)


@pytest.mark.parametrize(
    "href",
    ["/etc/passwd", "FILE:///etc/passwd", "file:/etc/passwd", "/vsizip/etc/a.zip", "zip:///etc/a.zip!b"],
)
def test_a_remote_document_leads_to_no_local_file(href):
    with pytest.raises(CatalogError, match=r"on this machine|may lead to abfs"):
        check_link(href, "https://8.8.8.8/item.json")


@pytest.mark.parametrize(
    "text",
    [
        "https://user:pa@ss@x.org/a.tif?X-Amz-Signature=SECRET&b=1",
        "cannot open '/vsicurl/https://x.org/a.tif?sv=1&sig=SECRET': 403",
        "/vsizip//vsicurl/https://me:SECRET@x.org/a.zip/b.tif",
        "Max retries exceeded with url: /t.tif?sv=2024&sig=SECRET (Caused by",
        "https://x.org/a.tif?SECRET",
        "https://x.org/a.tif#access_token=SECRET",
        "s3://AKIA:SECRET@bucket/key.",
        "see https://x.org/a?token=SECRET, then https://y.org/b;sig=1?p=SECRET",
    ],
)
def test_secrets_are_left_out(text):
    said = without_secrets(text)
    assert "SECRET" not in said
    assert "pa@ss" not in said
    assert "ss@" not in said
    assert without_secrets(said) == said


def test_what_is_shown_of_local_paths():
    assert shown("/data/a?b=c#d") == "/data/a?b=c#d"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_json_in_any_encoding(encoding):
    assert parse_json('{"id": "日本"}'.encode(encoding), "a") == {"id": "日本"}


def test_depth_counts_brackets_and_not_text():
    assert parse_json(json.dumps(["[" * 500]).encode(), "a") == ["[" * 500]
    with pytest.raises(CatalogError, match="a is nested deeper than the 200 levels"):
        parse_json(b'{"a":' * 250 + b"1" + b"}" * 250, "a")


@pytest.mark.parametrize("name", ["../../../climbs", "/opt/absolute", "a\nb", "", "x" * 300, "con:aux"])
def test_the_name_of_a_bundle_makes_no_path(tmp_path, name):
    from stac_latent.codec.bundle import load_bundle, save_bundle

    folder = save_bundle(small_codec(), tmp_path / "bundle")
    doc = json.loads((folder / "codec.json").read_text()) | {"name": name}
    (folder / "codec.json").write_text(json.dumps(doc))
    with pytest.raises(BundleError, match=r"name .* cannot be a file name"):
        load_bundle(folder)


@pytest.mark.parametrize("what", ["id", "key"])
@pytest.mark.parametrize("name", ["../../stolen", "/../../stolen", "a/../../../stolen", "\x1b[2J/x"])
def test_info_writes_nothing_where_a_name_says(run, tmp_path, monkeypatch, what, name):
    scene = make_scene(tmp_path / "raw", scene_field((40, 48)))
    (item,) = encode(scene.item, small_codec(), tmp_path / "cat", guard="off")
    path = Path(item.get_self_href())
    doc = json.loads(path.read_text())
    if what == "id":
        doc["id"] = name
    else:
        doc["assets"][name] = doc["assets"].pop("latent")
    path.write_text(json.dumps(doc))
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(work)
    code, _, _ = run("info", path)
    assert code == 0
    assert set(tmp_path.rglob("*")) == before


def test_marks_and_line_ends_that_were_put_into_pinned_documents(tmp_path):
    from stac_latent.errors import CorruptDataError
    from stac_latent.net.hrefs import read_bytes
    from stac_latent.system.digests import multihash

    path, pinned = tmp_path / "item.json", multihash(b'{\n "a": 1\n}\n')
    path.write_bytes(b'\xef\xbb\xbf{\r\n "a": 1\r\n}\r\n')
    assert read_bytes(str(path), checksum=pinned) == b'{\n "a": 1\n}\n'
    path.write_bytes(b'\xef\xbb\xbf{\r\n "a": 2\r\n}\r\n')
    with pytest.raises(CorruptDataError, match=r"has checksum .* the catalogue expects"):
        read_bytes(str(path), checksum=pinned)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_catalogues_in_other_encodings_on_servers(tmp_path, encoding):
    from servers.files import FileServer

    doc = {"type": "FeatureCollection", "features": []}
    (tmp_path / "a.json").write_bytes(json.dumps(doc).encode(encoding))
    with FileServer(tmp_path) as web:
        assert list(search(f"{web.url}/a.json")) == []
