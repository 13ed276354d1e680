"""Raw rasters, arrays and tables of others at http(s) and s3 addresses: read by ranges, told apart by state, no secret shown."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from adopt_support import (
    alphaearth_codes,
    alphaearth_truth,
    clay_columns,
    geo_footer,
    tessera_codes,
    tessera_truth,
    vectors_of,
    write_table,
    write_tessera,
    write_tessera_zarr,
    write_tiff,
)
from core_support import make_scene, scene_field, small_codec
from servers.files import FileServer

from stac_latent import adopt, encode, load, nearest, publish, search
from stac_latent.errors import CatalogError, CorruptDataError, RemoteError
from stac_latent.net.hrefs import read_bytes
from stac_latent.net.remote_file import RemoteFile, local_copy

SECRET = "c2VjcmV0"  # noqa: S105 - of nobody
OF_GDAL = ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each kind, and what it holds."""
    root = tmp_path_factory.mktemp("files")
    codes, scale = tessera_codes(0)
    tile = write_tessera(root, codes, scale)
    write_tessera_zarr(root, codes, scale)
    write_tiff(root / "2024" / "a.tif", alphaearth_codes(1), nodata=-128)
    vectors = vectors_of(2)
    write_table(root / "t.parquet", clay_columns(vectors), geo_footer())
    items = adopt(
        "any",
        [root / "t.parquet"],
        root / "cat",
        producer="me",
        name="mine",
        version="1",
        when="2024",
        fields={"latent:columns": ["embeddings"]},
    )
    publish(items, root / "v.parquet", dtype="float32")
    scene = make_scene(root / "raw", scene_field((40, 48)))
    return root, {
        "npy": tile.relative_to(root).as_posix(),
        "codes": codes,
        "scale": scale,
        "vectors": vectors,
        "scene": scene,
    }


SERVERS = """
import json, sys
from servers.files import FileServer
from servers.objects import ObjectServer
with FileServer(sys.argv[1]) as web, ObjectServer("others") as bucket:
    bucket.put(sys.argv[1])
    print(json.dumps([web.url, bucket.environment]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def places(files):
    """Addresses of the files, on servers of another process: GDAL holds this one while it waits."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", SERVERS, str(files[0])]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as running:
        url, environment = json.loads(running.stdout.readline())
        yield {"http": url, "s3": "s3://others"}, environment
        running.stdin.close()


@pytest.fixture
def web(files):
    """A server of this process, which counts."""
    with FileServer(files[0]) as running:
        yield running


@pytest.fixture(params=["http", "s3"])
def base(request, places, monkeypatch, tmp_path):
    for name, value in places[1].items():
        monkeypatch.setenv(name, value)
    for name in OF_GDAL:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path / "cache"))
    return places[0][request.param]


def test_a_raster(base, tmp_path):
    (item,) = adopt("alphaearth", [f"{base}/2024/a.tif"], tmp_path / "out")
    cube = load(search(str(tmp_path / "out")), upto="latent")["latent"].values[0]
    assert np.allclose(cube, alphaearth_truth(alphaearth_codes(1)), rtol=1e-6, equal_nan=True)
    assert item.id == "a"


def test_a_numpy_file(base, files, tmp_path):
    adopt("tessera", [f"{base}/{files[1]['npy']}"], tmp_path / "out", version="1.0-vultr")
    cube = load(search(str(tmp_path / "out")), upto="latent")["latent"].values[0]
    assert np.allclose(cube, tessera_truth(files[1]["codes"], files[1]["scale"]), equal_nan=True)


def test_a_zarr_store(base, files, tmp_path):
    adopt("tessera-zarr", [f"{base}/2024.zarr/utm33"], tmp_path / "out", version="1.0-vultr")
    cube = load(search(str(tmp_path / "out")), upto="latent")["latent"].values[0]
    assert np.allclose(cube, tessera_truth(files[1]["codes"], files[1]["scale"]), equal_nan=True)


def test_a_table(base, files, tmp_path):
    told = {
        "producer": "me",
        "name": "mine",
        "version": "1",
        "when": "2024",
        "fields": {"latent:columns": ["embeddings"]},
    }
    items = adopt("any", [f"{base}/t.parquet"], tmp_path / "out", **told)
    publish(items, tmp_path / "v.parquet", dtype="float32")
    found = np.stack(pq.read_table(tmp_path / "v.parquet")["vector"].to_pylist())
    assert np.array_equal(np.sort(found, axis=0), np.sort(files[1]["vectors"], axis=0))


def test_nearest(base, files):
    query = files[1]["vectors"][3]
    truth = nearest(files[0] / "v.parquet", query, 4)
    for source in (f"{base}/v.parquet", f"{base}/v.parquet.json"):
        found = nearest(source, query, 4)
        assert found["id"].tolist() == truth["id"].tolist()
        assert found["distance"].tolist() == truth["distance"].tolist()


def test_a_table_is_fetched_once(files, web, tmp_path, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path))
    nearest(f"{web.url}/v.parquet?sig=a", files[1]["vectors"][3], 4)
    web.reset()
    nearest(f"{web.url}/v.parquet?sig=b", files[1]["vectors"][3], 4)
    assert web.sent <= 2


def remote_item(scene, base, query=""):
    item = scene.item.clone()
    for asset in item.assets.values():
        asset.href = f"{base}/raw/{os.path.basename(asset.href)}{query}"  # noqa: PTH119
    return item


def test_raw_assets(base, files, tmp_path):
    scene = files[1]["scene"]
    query = f"?sv=2024&sig={SECRET}" if base.startswith("http") else ""
    (item,) = encode(remote_item(scene, base, query), small_codec(), tmp_path / "cat", guard="off")
    (local,) = encode(scene.item, small_codec(), tmp_path / "local", guard="off")
    assert np.array_equal(*(load(i, asset="latent").to_array().values for i in (item, local)))
    first = item.properties["updated"], item.assets["latent"].extra_fields["latent:input_digest"]
    (again,) = encode(remote_item(scene, base, query), small_codec(), tmp_path / "cat", guard="off")
    assert again.assets["latent"].extra_fields["latent:input_digest"] == first[1]


def test_a_raw_file_that_is_not_there_shows_no_secret(places, files, tmp_path):
    item = remote_item(files[1]["scene"], places[0]["http"], f"?sv=2024&sig={SECRET}")
    for asset in item.assets.values():
        asset.href = asset.href.replace("/raw/", f"/none-{asset.title}/").replace(
            "http://", "http://me:" + SECRET + "@"
        )
    with pytest.raises(CatalogError, match=r"sig=\.\.\.") as caught:
        encode(item, small_codec(), tmp_path / "cat", guard="off")
    chain, exc = [], caught.value
    while exc is not None:
        chain.append(str(exc))
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    assert SECRET not in "\n".join(chain)


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("clay", "none.parquet"),
        ("tessera", "2024/none.npy"),
        ("alphaearth", "2024/none.tif"),
        ("tessera-zarr", "2024none.zarr"),
    ],
)
def test_what_is_not_there(base, tmp_path, product, name):
    with pytest.raises((CatalogError, CorruptDataError), match=r"none") as caught:
        adopt(product, [f"{base}/{name}?sig={SECRET}"], tmp_path / "out", version="1", when="2024")
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("href", ["ftp://x.org/a.parquet", "memory://a.parquet"])
def test_kinds_of_addresses_that_are_not_read(tmp_path, href):
    with pytest.raises(
        CatalogError,
        match=r"is not read: expected a path, an http or https address, or one of an object store",
    ):
        adopt("clay", [href], tmp_path / "out", version="1", when="2024")


def test_only_what_is_asked_for_is_sent(web, files):
    data = np.arange(1 << 20, dtype=np.uint8).tobytes()
    (files[0] / "large.bin").write_bytes(data)
    with RemoteFile(f"{web.url}/large.bin") as file:
        assert file.seek(-10, io.SEEK_END) == len(data) - 10
        assert file.read() == data[-10:]
        file.seek(100)
        assert file.read(50) == data[100:150]
    assert web.sent <= 70


def test_a_file_that_changes_while_it_is_read(web, files):
    path = files[0] / "changes.bin"
    path.write_bytes(b"a" * 1000)
    with RemoteFile(f"{web.url}/changes.bin") as file:
        assert file.read(10) == b"a" * 10
        path.write_bytes(b"b" * 1000)
        with pytest.raises(CorruptDataError, match="was changed while it was read"):
            file.read(10)


def test_copies_are_of_one_state(web, files, tmp_path, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path))
    path = files[0] / "state.bin"
    path.write_bytes(b"one")
    first = local_copy(f"{web.url}/state.bin?sig=a")
    assert first.read_bytes() == b"one"
    assert local_copy(f"{web.url}/state.bin?sig=b") == first
    path.write_bytes(b"three")
    assert local_copy(f"{web.url}/state.bin").read_bytes() == b"three"
    assert not first.exists()


def test_bodies_that_are_packed(tmp_path):
    (tmp_path / "a.json").write_bytes(gzip.compress(b'{"a": 1}'))
    with FileServer(tmp_path) as web:
        web.headers = {"Content-Encoding": "gzip"}
        assert read_bytes(f"{web.url}/a.json") == b'{"a": 1}'
        web.headers = {"Content-Encoding": "br"}
        with pytest.raises(RemoteError, match=r"is packed \(br\), which is not read"):
            read_bytes(f"{web.url}/a.json?again")


def test_names_of_files_on_servers(places, files, tmp_path):
    folder = files[0] / "raw ä 2024"
    folder.mkdir(exist_ok=True)
    write_tiff(folder / "a b+c.tif", alphaearth_codes(1), nodata=-128)
    for name in ("raw ä 2024/a b+c.tif", "raw%20%C3%A4%202024/a%20b%2Bc.tif"):
        adopt("alphaearth", [f"{places[0]['http']}/{name}"], tmp_path / name[4], when="2024")
        cube = load(search(str(tmp_path / name[4])), upto="latent")["latent"].values[0]
        assert np.allclose(cube, alphaearth_truth(alphaearth_codes(1)), rtol=1e-6, equal_nan=True)


def test_archives_and_names_of_gdal(files, tmp_path):
    import zipfile

    scene = files[1]["scene"]
    item = scene.item.clone()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for asset in item.assets.values():
            archive.write(asset.href, os.path.basename(asset.href))  # noqa: PTH119
    truth = (
        load(encode(scene.item, small_codec(), tmp_path / "t", guard="off"), asset="latent").to_array().values
    )
    for i, form in enumerate(("zip://{}!{}", "/vsizip/{}/{}")):
        for key, asset in item.assets.items():
            asset.href = form.format(tmp_path / "a.zip", os.path.basename(scene.item.assets[key].href))  # noqa: PTH119
        with rasterio.open(next(iter(item.assets.values())).href) as src:
            assert src.count >= 1
        made = encode(item, small_codec(), tmp_path / f"c{i}", guard="off")
        assert np.array_equal(load(made, asset="latent").to_array().values, truth)
