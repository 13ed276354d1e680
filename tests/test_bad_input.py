"""Bad input: each with an error that says what is wrong and the way out, and nothing catalogued."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
from core_support import BANDS, make_scene, nothing_catalogued, scene_field, small_codec

from stac_latent import encode
from stac_latent.catalog import tree
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.shipped import zstd
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import (
    BundleError,
    CatalogError,
    CodecError,
    CorruptDataError,
    FieldError,
    GridError,
    StacLatentError,
    UnresolvedSpaceError,
    VerificationError,
)
from stac_latent.extension import SCHEMA_URI
from stac_latent.spec import Band
from stac_latent.store.zarr.group import StoreLayout

CODEC = "dct"


def refused(item, dest, error, text, codec=None, **options):
    with pytest.raises(error, match=text):
        encode(item, codec or small_codec(CODEC), dest, **options)
    assert nothing_catalogued(dest)


# -- Items that cannot be encoded ------------------------------------------------------------------------------------


def test_missing_band(tmp_path, utm_scene):
    codec = zstd([Band("red"), Band("swir16"), Band("B8A")])
    text = r"item 'scene' lacks band\(s\) swir16, B8A of codec 'zstd'; it has nir, red. Name the assets with bands="
    refused(utm_scene.item, tmp_path / "cat", CatalogError, text, codec)


def test_missing_band_of_a_mapping(tmp_path, utm_scene):
    text = r"lacks band\(s\) rot of codec"
    refused(utm_scene.item, tmp_path / "cat", CatalogError, text, bands={"red": "rot"})


def test_wrong_dtype(tmp_path):
    field = scene_field((40, 48)).astype(np.float32) / 10000
    scene = make_scene(tmp_path / "raw", field, nodata=None)
    for asset in scene.item.assets.values():
        del asset.extra_fields["raster:scale"], asset.extra_fields["raster:offset"]
    text = r"band 'red' of item 'scene' is float32; codec 'dct' takes uint16. Give the asset a raster:scale"
    refused(scene.item, tmp_path / "cat", FieldError, text)


def test_complex_dtype(tmp_path):
    field = np.ones((2, 32, 32), np.complex64)
    scene = make_scene(tmp_path / "raw", field, nodata=None)
    refused(
        scene.item,
        tmp_path / "cat",
        FieldError,
        r"asset 'red' of item 'scene' holds complex64 values.*as bands",
    )


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_no_crs(tmp_path):
    scene = make_scene(tmp_path / "raw", scene_field((40, 48)), crs=None, georeferenced=False)
    text = (
        r"asset 'red' of item 'scene' has no CRS: neither proj:code.*add the projection extension to the item"
    )
    refused(scene.item, tmp_path / "cat", GridError, text)


def test_bands_on_several_grids(tmp_path):
    fine = make_scene(tmp_path / "raw", scene_field((96, 104)))
    coarse = make_scene(
        tmp_path / "raw", scene_field((48, 52), 3)[1:], name="coarse", res=20.0, keys=("nir",)
    )
    item = fine.item
    item.assets["nir"] = coarse.item.assets["nir"]
    item.assets["nir"].extra_fields |= {
        k: v for k, v in coarse.item.properties.items() if k.startswith("proj:")
    }
    text = r"the bands of item 'scene' have several native grids \(resolutions: red 10, nir 20\).*resolution="
    refused(item, tmp_path / "cat", GridError, text)
    other = make_scene(
        tmp_path / "raw", scene_field((48, 52), 3)[1:], name="other", crs="EPSG:32634", keys=("nir",)
    )
    item.assets["nir"] = other.item.assets["nir"]
    item.assets["nir"].extra_fields |= {
        k: v for k, v in other.item.properties.items() if k.startswith("proj:")
    }
    text = r"lie in several CRSs: \['EPSG:32633', 'EPSG:32634'\]"
    refused(item, tmp_path / "cat", GridError, text, resolution=10.0)


def test_a_missing_file(tmp_path):
    scene = make_scene(tmp_path / "raw", scene_field((40, 48)), georeferenced=False)
    (scene.folder / "scene-red.tif").unlink()
    refused(
        scene.item,
        tmp_path / "cat",
        CatalogError,
        r"asset 'red' of item 'scene' cannot be read: .*No such file",
    )


def test_a_missing_file_of_an_item_that_states_its_grid(tmp_path):
    scene = make_scene(tmp_path / "raw", scene_field((40, 48)))
    (scene.folder / "scene-nir.tif").unlink()
    refused(scene.item, tmp_path / "cat", StacLatentError, r"scene-nir.tif")


def test_every_pixel_is_nodata(tmp_path):
    scene = make_scene(tmp_path / "raw", np.zeros((2, 40, 48), np.uint16))
    refused(scene.item, tmp_path / "cat", FieldError, r"no pixel of the source is valid: every one is nodata")


def test_duplicate_ids(tmp_path, utm_scene):
    twice = [utm_scene.item, utm_scene.item.clone()]
    refused(twice, tmp_path / "cat", CatalogError, r"two of the items have the same id")


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/b",
        "a\\b",
        "..",
        "",
        "a\nb",
        "x" * 201,
        "ä" * 101,
        "a:b",
        "a#b",
        "a?b",
        "50%",
        ".hidden",
        "a\u202eb",
        "a\ud800",
    ],
)
def test_ids_that_are_no_file_names(tmp_path, name):
    scene = make_scene(tmp_path / "raw", scene_field((40, 48)))
    scene.item.id = name
    text = r"id .* cannot be a file name: use letters, digits"
    refused(scene.item, tmp_path / "deep" / "cat", CatalogError, text)
    assert {p.name for p in tmp_path.iterdir()} <= {"raw", "deep"}
    scene.item.id, scene.item.collection_id = "fine", name or "."
    refused(scene.item, tmp_path / "deep" / "cat", CatalogError, text)


@pytest.mark.parametrize("key", ["../latent", "a/b", "", "l#1"])
def test_keys_that_are_no_file_names(tmp_path, utm_scene, key):
    refused(utm_scene.item, tmp_path / "deep" / "cat", CatalogError, r"cannot be a file name", asset=key)
    assert {p.name for p in tmp_path.iterdir()} <= {"deep"}


def test_a_key_that_is_a_raw_asset(tmp_path, utm_scene):
    refused(
        utm_scene.item,
        tmp_path / "cat",
        CatalogError,
        r"already has an asset 'red', and it is no latent",
        asset="red",
    )
    refused(
        utm_scene.item,
        tmp_path / "cat",
        CatalogError,
        r"'red', and it is no latent; choose another asset=",
        asset="red",
        overwrite=True,
    )


# -- arguments -------------------------------------------------------------------------------------------------------


def test_unknown_codec(tmp_path, utm_scene):
    refused(
        utm_scene.item,
        tmp_path / "cat",
        CodecError,
        r"no codec 'neural-9000': it is neither installed",
        "neural-9000",
    )


def test_other_arguments(tmp_path, utm_scene):
    refused([], tmp_path / "cat", CatalogError, "nothing to encode: no items were given")
    refused("catalog.json", tmp_path / "cat", CatalogError, "expected pystac Items, got str; read one with")
    refused(
        utm_scene.item,
        tmp_path / "cat",
        CatalogError,
        r"mode='inplace'; expected 'beside' or 'derived'",
        mode="inplace",
    )
    refused(utm_scene.item, tmp_path / "cat", CodecError, "has no entropy coder", "s2-10m-embed", payload="coded", bands={
        "B02": "red", "B03": "red", "B04": "red", "B08": "nir"})  # fmt: skip
    with pytest.raises(
        CatalogError,
        match=r"dest must be a local folder or the address of a folder in an object store .*, got https://a\.org/c; encode into a folder",
    ):
        encode(utm_scene.item, small_codec(CODEC), "https://a.org/c")


def test_a_destination_that_is_no_catalogue(tmp_path, utm_scene):
    (tmp_path / "catalog.json").write_text("[]")
    with pytest.raises(
        CatalogError, match=r"catalog.json is no STAC object: expected a JSON object, got list"
    ):
        encode(utm_scene.item, small_codec(CODEC), tmp_path)
    assert nothing_catalogued(tmp_path, but=("catalog.json",))


def test_a_bundle_whose_checksum_differs(tmp_path, utm_scene):
    folder = save_bundle(small_codec("fitted"), tmp_path / "bundle")
    weights = bytearray((folder / "codec.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 4
    (folder / "codec.safetensors").write_bytes(weights)
    text = r"codec.safetensors has checksum 1220.*; fetch the bundle again"
    refused(utm_scene.item, tmp_path / "cat", BundleError, text, folder)


# -- disks -------------------------------------------------------------------------------------------------------------


def full_disk(monkeypatch, target, name, after):
    """The named method works ``after`` times, then the disk is full."""
    honest, calls = getattr(target, name), []

    def limited(*args, **kwargs):
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(*args, **kwargs)

    monkeypatch.setattr(target, name, limited)
    return calls


FULL = r"writing to .*cat failed: .*No space left on device.*was not catalogued. Free some space"


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_disk_full_while_the_store_is_written(tmp_path, utm_scene, monkeypatch, after):
    from zarr.storage import LocalStore

    calls = full_disk(monkeypatch, LocalStore, "set", after)
    refused(utm_scene.item, tmp_path / "cat", VerificationError, FULL, layout=StoreLayout(4, 8))
    assert len(calls) > after


@pytest.mark.parametrize("after", range(5))
def test_disk_full_while_the_documents_are_written(tmp_path, utm_scene, monkeypatch, after):
    """Codec Item, Item, Collection, Catalog: whichever does not fit, the store goes too."""
    calls = full_disk(monkeypatch, tree, "write_whole", after)
    if after < 4:
        refused(utm_scene.item, tmp_path / "cat", VerificationError, FULL)
    else:
        encode(utm_scene.item, small_codec(CODEC), tmp_path / "cat")
        assert len(calls) == 4
    assert not [p for p in (tmp_path / "cat").rglob("*") if p.name.endswith(".part")]


def test_disk_full_while_the_bundle_is_written(tmp_path, utm_scene, monkeypatch):
    full_disk(monkeypatch, Path, "write_bytes", 1)
    refused(utm_scene.item, tmp_path / "cat", VerificationError, FULL)
    monkeypatch.undo()
    (item,) = encode(utm_scene.item, small_codec(CODEC), tmp_path / "cat")  # the half bundle is no obstacle
    assert LatentReader.open(item).read_field().shape == (2, 187, 213)


def test_disk_full_during_an_overwrite_keeps_the_old_one(tmp_path, utm_scene, monkeypatch):
    (old,) = encode(utm_scene.item, small_codec("zstd"), tmp_path / "cat")
    before = Path(old.get_self_href()).read_bytes()
    full_disk(
        monkeypatch, tree, "write_whole", 2
    )  # the codec's Item and the Item are written, the Collection is not
    with pytest.raises(VerificationError, match=FULL):
        encode(utm_scene.item, small_codec(CODEC), tmp_path / "cat", overwrite=True)
    assert Path(old.get_self_href()).read_bytes() == before
    item = pystac.Item.from_file(old.get_self_href())
    np.testing.assert_array_equal(LatentReader.open(item).read_field(), utm_scene.field)
    assert sorted(p.name for p in Path(old.get_self_href()).parent.iterdir()) == [
        "latent.zarr",
        "scene.json",
        "thumbnail.png",
    ]


def test_a_read_only_destination(tmp_path, utm_scene, monkeypatch):
    def denied(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    refused(
        utm_scene.item, tmp_path / "cat", VerificationError, r"writing to .*cat failed: .*Permission denied"
    )


KILLED = """
import os, signal, sys, pystac
from stac_latent import encode
sys.path.insert(0, sys.argv[3])
from core_support import small_codec
def kill(label, done, total):
    if label == sys.argv[4]:
        os.kill(os.getpid(), signal.SIGKILL)
encode(pystac.Item.from_file(sys.argv[1]), small_codec("dct"), sys.argv[2], progress=kill)
"""


@pytest.mark.parametrize("label", ["encode", "verify"])
@pytest.mark.slow
def test_killed_half_way(tmp_path, utm_scene, label):
    utm_scene.item.save_object(include_self_link=False, dest_href=str(tmp_path / "item.json"))
    dest = tmp_path / "cat"
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED,
            str(tmp_path / "item.json"),
            str(dest),
            str(Path(__file__).parent),
            label,
        ],
        check=False,
    )
    assert out.returncode == -signal.SIGKILL
    left = [p for p in dest.rglob("*") if "codecs" not in p.parts]
    assert not [p for p in left if p.suffix == ".json" and ".part" not in str(p)]
    assert not [p for p in left if p.name == "latent.zarr"]
    (item,) = encode(utm_scene.item, small_codec(CODEC), dest)
    assert LatentReader.open(item).read_field().shape == (2, 187, 213)


def test_an_interrupt_cleans_up(tmp_path, utm_scene):
    def interrupt(*_step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(utm_scene.item, small_codec(CODEC), tmp_path / "cat", progress=interrupt)
    assert nothing_catalogued(tmp_path / "cat")


def test_bytes_that_change_between_writing_and_verifying(tmp_path, utm_scene):
    """A disk that lies is caught by the cold decode, before anything is catalogued."""

    def spoil(label, done, total):
        shard = next((tmp_path / "cat" / "scenes" / "scene").glob(".latent.zarr.*.part/latent/c/0/0/0"), None)
        if label == "encode" and shard is not None:
            data = bytearray(shard.read_bytes())
            data[100] ^= 1
            shard.write_bytes(data)

    refused(
        utm_scene.item,
        tmp_path / "cat",
        CorruptDataError,
        "do not decode.*truncated or was changed",
        progress=spoil,
    )


def test_a_coder_that_loses_symbols_is_caught(tmp_path, utm_scene):
    """Valid bytes of other symbols: only comparing with what was encoded can tell."""
    import zarr

    def swap(label, done, total):
        if label == "encode":
            part = next((tmp_path / "cat" / "scenes" / "scene").glob(".latent.zarr.*.part"))
            array = zarr.open_group(str(part), mode="r+")["latent"]
            array[0, 5, 5] = array[0, 5, 5] + 1

    text = r"do not decode to the symbols that were written; nothing was catalogued"
    refused(utm_scene.item, tmp_path / "cat", VerificationError, text, progress=swap)


def test_a_mask_that_was_not_stored_is_caught(tmp_path, utm_scene):
    def forget(label, done, total):
        if label == "encode":
            for part in (tmp_path / "cat" / "scenes" / "scene").glob(".latent.zarr.*.part/mask/c"):
                shutil.rmtree(part)

    text = r"the stored mask of pixels .* differs from the raw files; nothing was catalogued"
    refused(utm_scene.item, tmp_path / "cat", VerificationError, text, progress=forget)


# -- damaged stores and links ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory, utm_scene):
    return {
        payload: encode(
            utm_scene.item, small_codec(CODEC), tmp_path_factory.mktemp(payload), payload=payload
        )[0]
        for payload in ("coded", "plain")
    }


@pytest.fixture(params=["coded", "plain"])
def copied(request, good, tmp_path):
    root = Path(good[request.param].get_self_href()).parents[2]
    shutil.copytree(root, tmp_path / "cat")
    return pystac.Item.from_file(str(tmp_path / "cat" / "scenes" / "scene" / "scene.json"))


def shard_of(item):
    return next((Path(LatentRef.from_item(item).href) / "latent" / "c").rglob("0"), None) or pytest.fail(
        "no shard"
    )


def the_shard(item):
    return max(
        (p for p in (Path(LatentRef.from_item(item).href) / "latent").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.9999])
def test_truncated_shard(copied, keep):
    shard = the_shard(copied)
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(
        CorruptDataError,
        match=r"latent.zarr/latent.*do not decode.*truncated or was changed, fetch or write it again",
    ):
        LatentReader.open(copied).read_field()


@pytest.mark.parametrize("at", [0, 40, 0.2, 0.5, 0.8, -30, -6, -1])
def test_flipped_byte(copied, at):
    shard = the_shard(copied)
    data = bytearray(shard.read_bytes())
    data[int(at * len(data)) if isinstance(at, float) else at] ^= 0x10
    shard.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"latent.zarr/latent.*do not decode"):
        LatentReader.open(copied).read_latent()


def test_damaged_mask(copied):
    mask = next(p for p in (Path(LatentRef.from_item(copied).href) / "mask" / "c").rglob("*") if p.is_file())
    data = bytearray(mask.read_bytes())
    data[len(data) // 2] ^= 1
    mask.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"latent.zarr/mask.*do not decode"):
        LatentReader.open(copied).read_field()


def test_damaged_metadata(copied):
    path = Path(LatentRef.from_item(copied).href) / "zarr.json"  # of all arrays, gathered
    honest = path.read_text()
    for text in (
        "",
        "{",
        "[]",
        honest.replace('"stac_latent"', '"stac_future"').replace('"zstd"', '"zstd9"'),
        honest[:200],
    ):
        path.write_text(text)
        with pytest.raises(CorruptDataError, match=r"latent.zarr"):
            LatentReader.open(copied).read_field()


def test_missing_store(copied):
    shutil.rmtree(LatentRef.from_item(copied).href)
    with pytest.raises(CorruptDataError, match=r"latent.zarr is no Zarr v3 group: it has no zarr.json"):
        LatentReader.open(copied).read_field()


def decoder_of(item):
    return Path(item.get_single_link("latent:decoder").get_absolute_href())


def test_decoder_item_whose_checksum_differs(copied, fresh_process):
    path = decoder_of(copied)
    path.write_text(path.read_text() + " ")
    with pytest.raises(
        CorruptDataError,
        match=r"codecs/.*item.json has checksum 1220.*, the catalogue expects 1220.*link is stale",
    ):
        LatentReader.open(copied).read_field()


@pytest.mark.parametrize("name", ["codec.json", "codec.safetensors"])
def test_bundle_whose_checksum_differs(copied, fresh_process, name):
    path = decoder_of(copied).with_name(name)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=rf"{name} has checksum 1220.*, the catalogue expects 1220"):
        LatentReader.open(copied).read_field()


def test_missing_decoder(copied, fresh_process):
    decoder_of(copied).unlink()
    with pytest.raises(CatalogError, match=r"cannot read .*item.json: .*No such file"):
        LatentReader.open(copied).read_field()


def test_decoder_link_without_checksum_to_nonsense(copied, fresh_process):
    path = decoder_of(copied)
    link = copied.get_single_link("latent:decoder")
    del link.extra_fields["file:checksum"]
    for text, error, match in (
        ("nonsense", CatalogError, "is not JSON .*points to the codec's MLM Item"),
        ("{}", UnresolvedSpaceError, r"has no asset codec.json and codec.safetensors \(assets: none\)"),
        ("[]", UnresolvedSpaceError, r"has no asset codec.json and codec.safetensors"),
    ):
        path.write_text(text)
        with pytest.raises(error, match=match):
            LatentReader.open(copied).read_field()


def test_decoder_of_another_space(copied, fresh_process, tmp_path):
    """A bundle swapped for another valid one, checksums and all, does not decode this Item."""
    path, link = decoder_of(copied), copied.get_single_link("latent:decoder")
    save_bundle(small_codec("fitted"), path.parent)
    doc = json.loads(path.read_text())
    for asset in doc["assets"].values():
        asset.pop("file:checksum", None)
    path.write_text(json.dumps(doc))
    del link.extra_fields["file:checksum"]
    with pytest.raises(BundleError, match=r"the item expects sha256:.*; it is another codec, or was changed"):
        LatentReader.open(copied).read_field()


def test_no_decoder_at_all(copied, fresh_process):
    copied.links = [link for link in copied.links if link.rel != "latent:decoder"]
    with pytest.raises(
        UnresolvedSpaceError,
        match=r"looked in: latent:decoder links of item 'scene' \(none with this space\); .*bundle; codecs opened",
    ):
        LatentReader.open(copied).read_field()


# -- Items ---------------------------------------------------------------------------------------------------------------


def test_newer_extension_version(copied):
    copied.stac_extensions = [
        uri.replace("v0.1.0", "v9.0.0") if uri == SCHEMA_URI else uri for uri in copied.stac_extensions
    ]
    with pytest.raises(CatalogError, match=r"9\.0\.0.*0\.1\.0"):
        LatentReader.open(copied)


def test_items_without_latents(utm_scene):
    with pytest.raises(
        CatalogError,
        match=r"item 'scene' has no latent asset \(assets: red, nir\).*'stac-latent encode' adds one",
    ):
        LatentReader.open(utm_scene.item)


@pytest.mark.parametrize(
    ("drop", "error", "text"),
    [
        ("latent:space", CatalogError, "not a latent asset: latent:space missing"),
        ("latent:dimensions", CatalogError, "not a latent asset: latent:dimensions missing"),
        ("proj:shape", GridError, "the asset has no grid: proj:shape missing"),
    ],
)
def test_missing_fields(copied, drop, error, text):
    del copied.assets["latent"].extra_fields[drop]
    copied.properties.pop(drop, None)
    with pytest.raises(error, match=text):
        LatentReader.open(copied)
    with pytest.raises(CatalogError, match=r"item 'scene' has no latent asset 'other'; it has latent"):
        LatentReader.open(copied, "other")


def test_a_field_that_lies_about_the_grid(copied):
    copied.assets["latent"].extra_fields["proj:shape"] = [190, 213]
    with pytest.raises(StacLatentError, match=r"not whole cells|the item declares"):
        LatentReader.open(copied).read_field()
    assert BANDS[0].nodata == 0
