"""Bytes and documents of an attacker: refused with an error of the package, whatever they ask for."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
from core_support import BANDS, make_scene, scene_field, small_codec

from stac_latent import encode, open_codec
from stac_latent.catalog.search.documents import Reader, to_item
from stac_latent.catalog.search.sources import StaticSource
from stac_latent.codec.bundle import FILES, read_bundle, write_bundle
from stac_latent.codec.shipped import zstd
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import (
    BundleError,
    CatalogError,
    CorruptDataError,
    GridError,
    SearchError,
    StacLatentError,
)
from stac_latent.spec import Band, Grid
from stac_latent.store.zarr.group import open_arrays
from stac_latent.store.zarr.trust import inflated_size
from stac_latent.system import links as access
from stac_latent.system.digests import multihash
from stac_latent.system.limits import at_most, check_bytes
from stac_latent.system.links import check_link

REMOTE = "https://203.0.113.9/cat/item.json"


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    scene = make_scene(folder / "raw", scene_field((40, 48)))
    return encode(scene.item, small_codec("dct"), folder / "cat", payload="plain")[0]


@pytest.fixture
def store(encoded, tmp_path):
    """A copy of a store that may be changed, and the reference to it."""
    ref = LatentRef.from_item(encoded)
    shutil.copytree(ref.href, tmp_path / "s.zarr")
    return replace(ref, href=str(tmp_path / "s.zarr"))


def edit(path, change):
    doc = json.loads(Path(path).read_text())
    change(doc)
    Path(path).write_text(json.dumps(doc))


# -- links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "text"),
    [
        ("/etc/passwd", "on this machine"),
        ("file:///etc/passwd", "on this machine"),
        ("../../x.zarr", "on this machine"),
        ("http://127.0.0.1/x", "private network; set STAC_LATENT_ALLOW_PRIVATE=127.0.0.1"),
        ("http://localhost:8080/x", "private network"),
        ("http://10.0.0.7/x", "private network"),
        ("http://169.254.169.254/latest/meta-data", "private network"),
        ("http://[::1]/x", "private network"),
        ("http://[::ffff:127.0.0.1]/x", "private network"),
        ("http://2130706433/x", "private network"),
        ("http:///x", "names no host"),
        ("ftp://203.0.113.9/x", "may lead to .* addresses only"),
        ("zip://a::file:///etc/passwd", "may lead to .* addresses only"),
        ("https://8.8.8.8/x::file:///etc/passwd", "may lead to .* addresses only"),
    ],
)
def test_where_remote_documents_may_not_lead(href, text):
    with pytest.raises(CatalogError, match=text):
        check_link(href, "https://8.8.4.4/item.json")
    assert check_link(href, "/data/item.json") == href
    assert check_link(href, None) == href


def test_where_remote_documents_may_lead(monkeypatch):
    for href in ("https://8.8.8.8/x", "s3://bucket/x", "https://8.8.4.4:443/x"):
        assert check_link(href, "https://8.8.4.4/item.json") == href
    local = "http://127.0.0.1:8000/x"
    assert check_link(local, "http://127.0.0.1:8000/item.json") == local
    with pytest.raises(CatalogError, match="private network"):
        check_link(local, "http://127.0.0.1:9000/item.json")
    monkeypatch.setenv("STAC_LATENT_ALLOW_PRIVATE", "10.0.0.1, 127.0.0.1")
    assert check_link(local, "https://8.8.4.4/item.json") == local
    monkeypatch.setattr(access.socket, "getaddrinfo", lambda *_a, **_k: [(0, 0, 0, "", ("192.168.1.2", 0))])
    with pytest.raises(CatalogError, match="private network"):
        check_link("https://inside.example/x", "https://8.8.4.4/item.json")


def test_an_item_from_the_network_that_names_local_files(encoded):
    """Its assets, its decoder and its own address are held against where it came from."""
    doc = encoded.to_dict(transform_hrefs=False)
    doc["links"].append({"rel": "self", "href": "/etc/item.json"})
    doc["assets"]["latent"]["href"] = "/data/latent.zarr"
    item = to_item(doc, "test", href=REMOTE)
    with pytest.raises(CatalogError, match=r"leads to '/data/latent.zarr', on this machine"):
        LatentRef.from_item(item)
    doc = encoded.to_dict(transform_hrefs=False)
    doc["assets"]["latent"]["href"] = "https://203.0.113.9/l.zarr"
    doc["links"] = [
        {"rel": "self", "href": "/etc/item.json"},
        {"rel": "latent:decoder", "href": "file:///etc/x", "latent:space": small_codec("dct").space},
    ]
    with pytest.raises(CatalogError, match=r"leads to 'file:///etc/x', on this machine"):
        LatentRef.from_item(to_item(doc, "test", base=REMOTE))


def test_catalogues_in_circles_and_to_this_machine():
    base = "https://203.0.113.9/"
    links = [{"rel": "child", "href": "./catalog.json"}, {"rel": "child", "href": "./catalog.json?again"}]
    docs = {"type": "Catalog", "id": "c", "links": links}

    class Documents(Reader):
        def json(self, _href, **_):
            return docs

    from stac_latent.catalog.search.query import Query

    assert list(StaticSource(base + "catalog.json", Documents()).items(Query(), 9)) == []
    docs["links"] = [{"rel": "item", "href": "file:///etc/passwd"}]
    with pytest.raises(SearchError, match="on this machine"):
        list(StaticSource(base + "catalog.json", Documents()).items(Query(), 9))
    docs["links"] = "not a list"
    with pytest.raises(SearchError, match="links must be a list of objects"):
        list(StaticSource(base + "catalog.json", Documents()).items(Query(), 9))


def test_a_catalogue_that_makes_up_links_ends():
    from stac_latent.catalog.search.query import Query

    class Endless(Reader):
        def json(self, href, **_):
            return {"type": "Catalog", "id": "c", "links": [{"rel": "child", "href": f"{href}x"}]}

    with pytest.raises(SearchError, match="leads to more than 50 documents"):
        list(StaticSource("https://203.0.113.9/c", Endless(), most=50).items(Query(), 9))


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"proj:shape": [10**12, 10**12]}, GridError, "are no grid"),
        ({"proj:shape": [0, 5]}, GridError, "are no grid"),
        ({"proj:shape": "large"}, GridError, "not as the extensions have it"),
        ({"proj:transform": [1, 0, 0, 0, float("nan"), 0]}, GridError, "maps no pixels"),
        ({"proj:transform": [0, 0, 0, 0, 0, 0]}, GridError, "maps no pixels"),
        ({"proj:transform": [1]}, GridError, "not as the extensions have it"),
        ({"latent:stride": [0, 0]}, GridError, "are no grid"),
        ({"latent:dimensions": "many"}, CatalogError, "a field is not as the latent extension has it"),
        ({"latent:kind": "weird"}, CatalogError, "latent:kind 'weird'"),
        ({"data_type": "9" * 5000}, CatalogError, "types"),
        ({"data_type": "object"}, CatalogError, "types"),
        ({"bands": [{"name": "a", "data_type": "complex256"}]}, CatalogError, "is of type 'complex256'"),
        ({"bands": [7]}, CatalogError, "a field is not as"),
    ],
)
def test_fields_that_are_not_what_they_should_be(encoded, fields, error, text):
    item = encoded.clone()
    item.assets["latent"].extra_fields |= fields
    with pytest.raises(error, match=text):
        LatentRef.from_item(item)


def test_roles_and_media_types_of_other_kinds(encoded):
    item = encoded.clone()
    item.assets["red"].roles, item.assets["nir"].media_type = 7, 1.5
    assert LatentRef.from_item(item).asset == "latent"


def test_a_grid_has_pixels():
    with pytest.raises(GridError, match="are no grid"):
        Grid("EPSG:4326", (1, 0, 0, 0, -1, 0), (4, 4), (0, 4))


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_limits():
    with (
        pytest.raises(
            CorruptDataError, match=r"x declares \(2, 3\) values, 48 bytes; at most 40 are allowed"
        ),
        at_most(40),
    ):
        check_bytes((2, 3), 8, "x")
    check_bytes((2, 3), 8, "x")
    with at_most(100), at_most(1 << 40), pytest.raises(CorruptDataError, match="at most 100"):
        check_bytes((101,), 1, "x")


def test_a_payload_that_asks_for_gigabytes(monkeypatch):
    """A header of 28 bytes that declares 2 GB, with a checksum that holds."""
    monkeypatch.setenv("STAC_LATENT_MAX_BYTES", str(64 << 20))
    head = struct.pack("<4s3I4s", b"SLZ1", 1, 2**14, 2**14, b"<f8 ")
    data = head + struct.pack("<I", zlib.crc32(b"", zlib.crc32(head)))
    with pytest.raises(CorruptDataError, match="2147483648 bytes; at most 67108864 are allowed"):
        zstd(BANDS).entropy_decode(data)
    many = b"SLT\x01" + struct.pack("<IIBB", 2**11, 2**11, 32, 32) + bytes(4 * 64**2)
    with pytest.raises(CorruptDataError, match=r"cannot hold|bytes; at most|the tiles end"):
        open_codec("lin", bands=["a"]).entropy_decode(many)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.update(shape=[128, 10**9, 10**9]), "declares|has shape"),
        (lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[128, 2**20, 2**20]), "declares chunks|no readable"),
        (lambda d: d.update(codecs=[{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 5}}]),
         "codec GzipCodec"),
        (lambda d: d.update(data_type="complex128", fill_value=[0, 0]), "must be an array|no readable"),
    ],
)  # fmt: skip
def test_zarr_metadata_that_asks_for_too_much(store, change, text):
    for name in ("zarr.json", "latent/zarr.json"):
        path = Path(store.href) / name

        def both(doc):
            inner = doc.get("consolidated_metadata", {}).get("metadata", {}).get("latent")
            change(doc if inner is None else inner)

        edit(path, both)
    with pytest.raises(CorruptDataError, match=text):
        open_arrays(store.href, store.spec, store.grid)


def test_a_zstd_bomb_in_a_chunk(store):
    """A frame that says that it inflates to 100 GB, and one that says nothing, in place of the mask."""
    from numcodecs.zstd import Zstd

    frame = bytes(Zstd().encode(bytes(1000)))
    assert inflated_size(frame) == 1000
    assert inflated_size(b"\x28\xb5\x2f\xfd\xe0" + (10**11).to_bytes(8, "little") + b"\0") == 10**11
    assert inflated_size(b"\x28\xb5\x2f\xfd\x00\x58\x00") is None
    assert inflated_size(b"nothing") is None
    from google_crc32c import value

    for bomb in (
        b"\x28\xb5\x2f\xfd\xe0" + (10**11).to_bytes(8, "little") + bytes(9),
        b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00",
    ):
        chunk = next(
            p for p in (Path(store.href) / "mask").rglob("*") if p.is_file() and p.name != "zarr.json"
        )
        chunk.write_bytes(bomb + value(bomb).to_bytes(4, "little"))
        with pytest.raises(CorruptDataError, match="a zstd chunk declares"):
            LatentReader(store).read_field()


def test_a_window_larger_than_memory(store, monkeypatch):
    from stac_latent.store.zarr import group as room

    monkeypatch.setattr(room, "memory", lambda: 1000)
    with pytest.raises(CorruptDataError, match="bytes; at most 1000 are allowed here: read it in windows"):
        LatentReader(store).read_latent()


# -- bundles: the chain of an attacker fits together or is refused ---------------------------------------------------------


def forged(codec, change):
    """The bundle with a changed chain, under the digest that an attacker would write."""
    import re

    files = write_bundle(codec)
    doc = json.loads(files[FILES[0]])
    change(doc)
    doc["tensors"]["checksum"] = multihash(files[FILES[1]])
    data = {FILES[0]: json.dumps(doc).encode(), FILES[1]: files[FILES[1]]}
    try:
        return read_bundle(data, refresh=True)
    except BundleError as exc:
        found = re.search(r"digest is (sha256:\w+), codec.json", str(exc))
        if found is None:
            raise
        data[FILES[0]] = json.dumps(doc | {"space": found[1]}).encode()
        return read_bundle(data, refresh=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["chain"][0].update(mean=[0.0], unit=[1.0]),
        lambda d: d["chain"][2].update(components=1, keep=list(range(16))),
        lambda d: d["bands"].append(dict(d["bands"][0], name="third")),
        lambda d: d["bands"].pop(),
        lambda d: d["chain"][3].update(step=[1, 2, 3]),
    ],
)
def test_a_chain_whose_parts_do_not_fit(change):
    """The compiled loops look at no bounds: shapes that do not fit were memory corruption once."""
    with pytest.raises(BundleError):
        forged(small_codec("fitted"), change)


@pytest.mark.parametrize("names", ["a", "abc"])
def test_a_chain_of_more_or_fewer_bands_than_its_codec_names(names):
    """Where no compiled loop stands in the way, too."""
    from stac_latent.field.storage_type import to_field

    for dtype in ("uint16", "float32"):
        with pytest.raises(BundleError, match=f"gives 2 bands of pixels, but its codec names {len(names)}"):
            to_field(np.zeros((2, 4, 4), np.float32), [Band(name, dtype) for name in names])


def test_a_band_of_a_type_that_is_none():
    with pytest.raises(StacLatentError, match="is of type '99999"):
        Band("a", "9" * 5000)


# -- Parquet --------------------------------------------------------------------------------------------------------------


def test_a_table_whose_vectors_are_no_vectors(tmp_path):
    import pyarrow as pa

    from stac_latent.store.embeddings import vectors

    with pytest.raises(CorruptDataError, match="expected lists of one length"):
        vectors(pa.table({"vector": [[1.0], [1.0, 2.0]]}))


def test_a_footer_that_declares_too_much(tmp_path):
    import pyarrow as pa

    from stac_latent.store.geoparquet.file import open_parquet

    pq.write_table(pa.table({"a": np.arange(1000)}), tmp_path / "a.parquet")
    with pytest.raises(
        CorruptDataError, match=r"a declares row groups of 1000 rows .* at most 800 bytes are"
    ):
        open_parquet(tmp_path / "a.parquet", "a", most=800)


def test_the_metadata_of_columns_is_left_alone():
    """pyarrow ends the process where a footer's column is damaged (ParquetException in RowGroupMetaData.column)."""
    root = Path(access.__file__).parent
    asked = [
        p.name for p in root.rglob("*.py") if ".row_group(" in p.read_text() and ").column(" in p.read_text()
    ]
    assert asked == []


def test_deep_json_is_no_recursion(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(SearchError, match="nested deeper than the 200 levels"):
        Reader().json(str(path))
    assert pystac is not None
