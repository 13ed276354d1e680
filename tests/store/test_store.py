"""Stores: what plain Zarr readers see, what a reader with nothing but the Item needs, and how few bytes it touches."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
import zarr
from core_support import BANDS, make_scene, small_codec
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from stac_latent import encode, open_codec
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.registry import remember
from stac_latent.codec.shipped import dct
from stac_latent.cube.grid.tiling import lattice_grid
from stac_latent.cube.open_codec import codec_of_item
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, CodecError, CorruptDataError, GridError, UnresolvedSpaceError
from stac_latent.net.hrefs import read_bytes
from stac_latent.store.zarr.codec import LatentZarrCodec
from stac_latent.store.zarr.group import GroupOptions, StoreLayout, create, open_arrays
from stac_latent.store.zarr.open_store import store_at
from stac_latent.system.files import tree_size
from stac_latent.system.links import is_local, local_path
from stac_latent.testing import make_field

SPACE_STEP = 61.0  # a space that no installed codec has


@pytest.fixture(scope="module")
def coded(tmp_path_factory, utm_scene):
    codec = dct(BANDS, step=SPACE_STEP)
    (item,) = encode(utm_scene.item, codec, tmp_path_factory.mktemp("coded"))
    return item


@pytest.fixture(scope="module")
def plain(tmp_path_factory, utm_scene):
    codec = dct(BANDS, step=SPACE_STEP)
    (item,) = encode(utm_scene.item, codec, tmp_path_factory.mktemp("plain"), payload="plain")
    return item


def whole(item):
    return LatentReader.open(item).read_symbols()


# -- plain readers -------------------------------------------------------------------------------------------------------


def test_a_plain_payload_opens_without_this_package(plain, tmp_path):
    """In a process that cannot import stac_latent, xarray shows the symbols, their coordinates and the contract."""
    np.save(tmp_path / "symbols.npy", whole(plain))
    code = f"""
import sys
sys.modules["stac_latent"] = None
import numpy as np, xarray as xr
ds = xr.open_zarr({LatentRef.from_item(plain).href!r})  # no option, no warning
assert (ds["latent"].values == np.load({str(tmp_path / "symbols.npy")!r})).all()
assert ds["latent"].dims == ("channel", "y", "x"), ds
assert ds["latent"].attrs["latent:space"] == {plain.properties["latent:spaces"][0]!r}
assert ds.attrs["proj:code"] == "EPSG:32633"
print(float(ds.x[1] - ds.x[0]), float(ds.y[1] - ds.y[0]), float(ds.x[0]))
"""
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ["80.0", "-80.0", "400040.0"]


def test_plain_values_dequantise_to_the_latent(plain):
    ds = xr.open_zarr(LatentRef.from_item(plain).href, consolidated=False)
    fields = plain.assets["latent"].extra_fields
    values = ds["latent"].values * np.float32(fields["latent:quantization_scale"][0])
    latent = LatentReader.open(plain).read_latent()
    known = ~np.isnan(latent)
    np.testing.assert_array_equal(latent[known], values[known])


def test_a_coded_payload_opens_in_xarray_once_its_codec_is_known(coded, plain):
    codec_of_item(coded)
    ds = xr.open_zarr(LatentRef.from_item(coded).href, consolidated=False)
    np.testing.assert_array_equal(ds["latent"].values, whole(plain))
    entry = json.loads((Path(LatentRef.from_item(coded).href) / "latent" / "zarr.json").read_text())
    inner = entry["codecs"][0]["configuration"]["codecs"]
    assert [c["name"] for c in inner] == ["stac_latent", "crc32c"]
    assert inner[0]["configuration"] == {
        "space": coded.properties["latent:spaces"][0],
        "bitstream": "stac-latent-rans-1",
    }


def test_an_unresolved_space_says_where_it_looked(coded, fresh_process):
    group = zarr.open_group(LatentRef.from_item(coded).href, mode="r")
    with pytest.raises(UnresolvedSpaceError) as caught:
        group["latent"][:, :2, :2]
    text = str(caught.value)
    for part in (
        "no codec bundle has digest sha256:",
        "codecs opened in this process",
        "installed codecs (dct,",
        "open the bundle first",
    ):
        assert part in text


def test_coded_is_smaller_than_plain(coded, plain):
    assert coded.assets["latent"].extra_fields["file:size"] < plain.assets["latent"].extra_fields["file:size"]


@pytest.fixture(scope="module")
def stock(tmp_path_factory, utm_scene):
    """A store of chunks that are files, for GDAL."""
    codec, layout = dct(BANDS, step=SPACE_STEP), StoreLayout(8, 16, sharded=False)
    (item,) = encode(utm_scene.item, codec, tmp_path_factory.mktemp("stock"), payload="plain", layout=layout)
    return item


def test_a_store_without_shards_has_no_codec_but_zstd(stock, plain):
    store = Path(LatentRef.from_item(stock).href)
    for name in ("latent", "mask"):
        meta = json.loads((store / name / "zarr.json").read_text())
        codecs = meta["codecs"]
        assert [c["name"] for c in codecs] == ["bytes", "zstd"]
        assert codecs[1]["configuration"]["checksum"]
    cells = stock.assets["latent"].extra_fields["latent:shape"][1:]
    files = [p for p in (store / "latent" / "c").rglob("*") if p.is_file()]
    assert len(files) == -(-cells[0] // 8) * -(-cells[1] // 8)
    assert "32633" in json.loads((store / "latent" / "zarr.json").read_text())["attributes"]["_CRS"]["wkt"]
    np.testing.assert_array_equal(whole(stock), whole(plain))


def test_damage_of_a_store_without_shards_is_noticed(stock, tmp_path):
    store = Path(shutil.copytree(LatentRef.from_item(stock).href, tmp_path / "s.zarr"))
    chunk = max(
        (p for p in (store / "latent" / "c").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    data = bytearray(chunk.read_bytes())
    for at in range(20, len(data) - 8, 97):
        damaged = bytearray(data)
        damaged[at] ^= 4
        chunk.write_bytes(damaged)
        with pytest.raises(CorruptDataError):
            open_arrays(str(store)).read_all(open_arrays(str(store)).latent)


@pytest.mark.skipif(
    tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) < (3, 12),
    reason="GDAL before 3.12 does not know Zarr's bytes",
)
def test_gdal_opens_a_store_without_shards(stock):
    with rasterio.open(f'ZARR:"{LatentRef.from_item(stock).href}":/latent') as src:
        assert src.crs.to_epsg() == 32633
        assert src.transform[0] == 80
        np.testing.assert_array_equal(src.read(), whole(stock))


# -- nothing but the Item ------------------------------------------------------------------------------------------------

STRICT = """
import sys
from importlib.metadata import Distribution, EntryPoints
honest = Distribution.entry_points.fget
hidden = lambda dist: EntryPoints() if dist.metadata["Name"] == "stac-latent" else honest(dist)
Distribution.entry_points = property(hidden)
import numpy as np, pystac
from stac_latent.codec.registry import codec_names
from stac_latent.cube.read.reader import LatentReader
assert codec_names() == [], codec_names()
item = pystac.Item.from_file(sys.argv[1])
reader = LatentReader.open(item)
np.save(sys.argv[2], reader.read_field(((9, 120), (31, 77))))
"""


@pytest.mark.parametrize("payload", ["coded", "plain"])
def test_a_process_without_any_codec_decodes_from_the_item_alone(request, payload, tmp_path):
    """The strictest test: no codec is registered, none cached; the Item and what it links to are all there is."""
    item = request.getfixturevalue(payload)
    out = subprocess.run(
        [sys.executable, "-c", STRICT, item.get_self_href(), str(tmp_path / "field.npy")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    np.testing.assert_array_equal(
        np.load(tmp_path / "field.npy"), LatentReader.open(item).read_field(((9, 120), (31, 77)))
    )


def without_decoder(item):
    clone = item.clone()
    clone.links = [link for link in clone.links if link.rel != "latent:decoder"]
    clone.set_self_href(item.get_self_href())
    return clone


def test_a_bundle_inside_the_store_will_do(coded, tmp_path, fresh_process):
    href = LatentRef.from_item(coded).href
    shutil.copytree(href, tmp_path / "latent.zarr")
    item = without_decoder(coded)
    item.assets["latent"].href = str(tmp_path / "latent.zarr")
    with pytest.raises(
        UnresolvedSpaceError,
        match=r"latent:decoder links of item 'scene' \(none with this space\); .*latent.zarr/bundle",
    ):
        LatentReader.open(item).read_field()
    save_bundle(dct(BANDS, step=SPACE_STEP), tmp_path / "latent.zarr" / "bundle")
    assert LatentReader.open(item).read_field().shape == (2, 187, 213)


def test_codecs_open_from_items(coded, fresh_process):
    codec = open_codec(coded)
    assert codec.space == coded.properties["latent:spaces"][0]
    decoder = pystac.Item.from_file(coded.get_single_link("latent:decoder").get_absolute_href())
    assert open_codec(decoder).space == codec.space


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        """Keep the test's output clean."""


def test_over_http(coded, fresh_process):
    """The same catalogue behind a web server: decoder, bundle and chunks are fetched by href."""
    root = Path(coded.get_self_href()).parents[2]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        doc = json.loads(Path(coded.get_self_href()).read_text())
        item = pystac.Item.from_dict(doc, href=f"{base}/scenes/scene/scene.json")
        got = LatentReader.open(item).read_field(((20, 60), (100, 140)))
        with pytest.raises(CatalogError, match="cannot read http"):
            read_bytes(f"{base}/nothing.json")
    finally:
        server.shutdown()
        server.server_close()
    np.testing.assert_array_equal(got, LatentReader.open(coded).read_field(((20, 60), (100, 140))))


# -- few bytes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bytes_read(monkeypatch):
    """Counts what is read from local Zarr stores."""
    seen = []
    honest = LocalStore.get

    async def counted(self, key, prototype, byte_range=None):
        out = await honest(self, key, prototype, byte_range)
        if out is not None:
            seen.append(len(out))
        return out

    monkeypatch.setattr(LocalStore, "get", counted)
    return seen


def test_a_window_touches_few_bytes(tmp_path, bytes_read):
    """A 512 x 512 window of a 5120 x 5120 scene: under 3 percent of the store, its metadata and indexes included."""
    codec = remember(dct(BANDS[:1]))
    grid = lattice_grid("EPSG:32633", (10, 0, 400_000, 0, -10, 5_200_000), (5120, 5120), codec.stride)
    path = tmp_path / "big.zarr"
    arrays = create(path, codec, grid, {}, GroupOptions())
    (inner, _), (shard, _), _ = StoreLayout().sizes(codec, grid.cells)
    piece = codec.encode(
        make_field([replace(b, nodata=None) for b in BANDS[:1]], (inner * 8,) * 2), upto="symbols"
    )
    arrays.latent[:] = np.tile(piece, (1, 640 // inner, 640 // inner))
    arrays.mask[:, :900, :900] = np.random.default_rng(0).random((1, 900, 900)) < 0.5
    ref = LatentRef("big", "latent", str(path), replace(codec.spec, bitstream=codec.bitstream), grid)
    bytes_read.clear()
    reader = LatentReader(ref, codec)
    window = ((1700, 2212), (2100, 2612))
    field = reader.read_field(window)
    share = sum(bytes_read) / tree_size(path)
    assert share < 0.03
    y, x = (np.arange(lo, hi) % (inner * 8) for lo, hi in window)
    np.testing.assert_array_equal(field, codec.decode(piece)[:, y][:, :, x])
    assert shard > inner


# -- what is refused -----------------------------------------------------------------------------------------------------


def test_windows_outside(coded):
    reader = LatentReader.open(coded)
    with pytest.raises(GridError, match=r"window .* is not inside the 187 x 213 pixels of the asset"):
        reader.read_field(((0, 188), (0, 5)))
    with pytest.raises(GridError, match=r"is not inside the 24 x 27 cells of the asset"):
        reader.read_latent(((3, 3), (0, 5)))


def test_a_codec_of_another_space(coded):
    with pytest.raises(GridError, match=r"codec 'zstd' is sha256:.*, asset 'latent' needs sha256:"):
        LatentReader(LatentRef.from_item(coded), small_codec("zstd"))


def test_a_store_that_contradicts_the_item(coded):
    ref = LatentRef.from_item(coded)
    other = lattice_grid("EPSG:32633", ref.grid.transform, (187, 300), (8, 8))
    with pytest.raises(
        CorruptDataError, match=r"latent has shape \(128, 24, 27\); the item declares \(128, 24, 38\)"
    ):
        open_arrays(ref.href, ref.spec, other)
    smaller = replace(ref.grid, shape=(186, 213), padding=(2, 4, 2, 1))
    with pytest.raises(
        CorruptDataError, match=r"mask has shape \(1, 187, 213\); the item declares \(186, 213\) pixels"
    ):
        open_arrays(ref.href, ref.spec, smaller)


def test_no_store(tmp_path):
    with pytest.raises(CorruptDataError, match=r"is no Zarr v3 group: it has no zarr.json"):
        open_arrays(str(tmp_path))
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(CorruptDataError, match="is no readable latent group: JSONDecodeError"):
        open_arrays(str(tmp_path))
    zarr.create_group(str(tmp_path / "empty"), zarr_format=3)
    with pytest.raises(CorruptDataError, match="is no readable latent group: KeyError: 'latent'"):
        open_arrays(str(tmp_path / "empty"))


def test_a_chunk_bomb_is_not_allocated(tmp_path):
    group = zarr.create_group(str(tmp_path / "bomb"), zarr_format=3)
    group.create_array("latent", shape=(100, 10**6, 10**6), chunks=(100, 10**5, 10**5), dtype="int16")
    with pytest.raises(
        CorruptDataError, match=r"declares chunks of \(100, 100000, 100000\); more than 1073741824 bytes"
    ):
        open_arrays(str(tmp_path / "bomb"))


def test_the_zarr_codec_needs_its_configuration():
    with pytest.raises(CorruptDataError, match=r"needs a space and a bitstream; got .'space': 'x'."):
        LatentZarrCodec.from_dict({"name": "stac_latent", "configuration": {"space": "x"}})
    codec = LatentZarrCodec("sha256:" + "1" * 64, "stac-latent-rans-1")
    assert LatentZarrCodec.from_dict(codec.to_dict()) == codec
    with pytest.raises(CorruptDataError, match="not known from 7 bytes"):
        codec.compute_encoded_size(7, None)


def test_a_chain_without_a_coder_cannot_be_stored_coded(tmp_path):
    embed = open_codec("s2-10m-embed")
    grid = lattice_grid("EPSG:32633", (10, 0, 0, 0, -10, 0), (64, 64), (8, 8))
    with pytest.raises(CodecError, match=r"has no entropy coder; write its symbols with payload='plain'"):
        create(tmp_path / "x", embed, grid, {}, GroupOptions())


def test_small_files(tmp_path):
    path = tmp_path / "a b.json"
    path.write_bytes(b"abc")
    assert read_bytes(path.as_uri()) == b"abc"
    assert is_local(path.as_uri())
    assert not is_local("s3://bucket/x")
    with pytest.raises(CatalogError, match=r"expected a local path, got s3:..bucket.x"):
        local_path("s3://bucket/x")
    with pytest.raises(CatalogError, match=r"is larger than the 2 bytes"):
        read_bytes(str(path), limit=2)
    with pytest.raises(CatalogError, match=r"cannot read .*none.json"):
        read_bytes(str(tmp_path / "none.json"))
    with pytest.raises(
        CorruptDataError,
        match=r"has checksum 1220ba7816bf.*the catalogue expects 1220ff; it was changed, or the link is stale",
    ):
        read_bytes(str(path), checksum="1220ff")


def test_metadata_is_written_in_little_room(coded):
    store = local_path(coded.assets["latent"].get_absolute_href())
    documents = {p.parent.name: p.read_text() for p in store.rglob("zarr.json")}
    group = json.loads(documents.pop(store.name))
    assert sorted(documents) == ["latent", "mask", "spatial_ref", "x", "y"]
    for name, text in documents.items():
        array = json.loads(text)
        assert array == group["consolidated_metadata"]["metadata"][name]
        assert text == json.dumps(array, separators=(",", ":"), ensure_ascii=False)
        assert array.get("attributes") != {}
        assert array.get("storage_transformers") != []


def test_masks_cost_little_where_nothing_is_missing(tmp_path):
    scene = make_scene(tmp_path / "raw", make_field([replace(b, nodata=None) for b in BANDS], (64, 64)))
    (item,) = encode(scene.item, small_codec("dct"), tmp_path / "cat")
    mask = Path(LatentRef.from_item(item).href) / "mask"
    assert [p.name for p in mask.rglob("*") if p.is_file()] == ["zarr.json"]


def test_parts_of_local_files_are_read_as_zarr_reads_them(tmp_path):
    """Ranges and ends, also beyond the file; nothing of what is no file, and refused where a file is empty."""
    (tmp_path / "zarr.json").write_text("{}")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_bytes(bytes(range(100)))
    (tmp_path / "a" / "none").write_bytes(b"")
    store = store_at(str(tmp_path))
    for part in (
        RangeByteRequest(3, 9),
        RangeByteRequest(90, 200),
        SuffixByteRequest(7),
        SuffixByteRequest(300),
    ):
        same = sync(store.get("a/c", default_buffer_prototype(), part))
        assert store.read("a/c", part) == same.to_bytes()
    for lacking in ("a/d", "a", "a/c/d"):
        assert store.read(lacking, SuffixByteRequest(7)) is None
    for key, part in (("a/none", SuffixByteRequest(7)), ("a/c", RangeByteRequest(100, 120))):
        with pytest.raises(ValueError, match=f"{key} is empty"):
            store.read(key, part)
