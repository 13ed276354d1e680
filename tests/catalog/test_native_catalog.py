"""Bands of several native grids in a catalogue: one asset, each band decoded onto its own pixels, as the stock driver reads them."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import odc.stac
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lin_support import LAW
from load_support import CRS, NOON, PROJ
from odc.geo.geobox import GeoBox

from stac_latent import load, open_codec, publish, search
from stac_latent.catalog.encode.encode import encode
from stac_latent.codec.bundle import load_bundle, save_bundle
from stac_latent.codec.native_grids import native_codec
from stac_latent.cube.grid.native_grids import arrange, cover
from stac_latent.cube.read.band_views import NativeReader, view_of
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import (
    BundleError,
    CatalogError,
    CodecError,
    CorruptDataError,
    FieldError,
    GridError,
    TrainError,
)
from stac_latent.field.rate_target import Target
from stac_latent.fitting.items import fit
from stac_latent.page.describe import describe_asset
from stac_latent.spec import Band
from stac_latent.stages.lin.grids import Nest
from stac_latent.testing import make_field
from stac_latent.train.sample import check_base
from stac_latent.validation import validate

GSD = {"B02": 10, "B03": 10, "B05": 20, "B06": 20, "B01": 60}
LEFT, TOP = 400_020.0, 5_100_000.0
"""A corner on the pixels of all three grids, as those of Sentinel-2, and on no corner of a cell."""


ALL = tuple(sorted(GSD))


@functools.cache
def chain(names=ALL, dtype="uint16", nodata=0):
    bands = [Band(n, dtype, nodata=nodata, scale=1e-4) for n in names]
    return open_codec("lin", bands=bands, mean=1300.0, unit=0.1 if dtype == "float32" else 1.0)


def grid_of(gsd, shape, left=LEFT, top=TOP):
    """Pixels of one size that cover a scene of ``shape`` 10 m pixels."""
    return GeoBox(tuple(-(-n * 10 // gsd) for n in shape), Affine(gsd, 0, left, 0, -gsd, top), CRS)


def write(path, values, box, nodata):
    with rasterio.open(
        path, "w", driver="GTiff", height=box.shape.y, width=box.shape.x, count=1, dtype=values.dtype, crs=CRS,
        transform=box.affine, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(values, 1)


def native_item(folder, boxes, *, seed=0, kind="scene", dtype="uint16", nodata=0, name="scene"):
    """An Item with one GeoTIFF for each band on its own grid, and its pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    outline = next(iter(boxes.values())).footprint("EPSG:4326")
    item = pystac.Item(name, outline.json, list(outline.boundingbox.bbox), NOON, {}, stac_extensions=[PROJ])
    fields = {}
    for i, (band, box) in enumerate(boxes.items()):
        fields[band] = make_field([Band(band, dtype, nodata=nodata)], tuple(box.shape), seed + i, kind)[0]
        write(folder / f"{band}.tif", fields[band], box, nodata)
        about = {
            "proj:code": CRS, "proj:shape": list(box.shape), "proj:transform": list(box.affine)[:6], "nodata": nodata,
            "data_type": dtype, "raster:scale": 1e-4, "raster:offset": 0.0, "bands": [{"name": band}],
        }  # fmt: skip
        item.add_asset(
            band, pystac.Asset(str(folder / f"{band}.tif"), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=about)
        )  # fmt: skip
    return item, fields


def sentinel(folder, shape=(187, 213), **options):
    """An Item of bands of 10, 20 and 60 m over one scene."""
    return native_item(folder, {n: grid_of(g, shape) for n, g in GSD.items()}, **options)


def decoded(item, name):
    """A band on its own pixels, and their grid."""
    ref = LatentRef.from_item(item)
    view = view_of(ref, [b.name for b in ref.spec.bands].index(name))
    return NativeReader(LatentReader(view.ref), view.grid).read_field(bands=[view.index])[0], view.grid


def error_of(item, fields, nodata=0):
    """Largest error of all bands, each on its own pixels; the pixels without data must be the same."""
    worst = 0.0
    for name, truth in fields.items():
        got, _ = decoded(item, name)
        assert (got.shape, got.dtype) == (truth.shape, truth.dtype)
        valid = truth != nodata
        np.testing.assert_array_equal(~np.isnan(got) if got.dtype.kind == "f" else got != nodata, valid)
        worst = max(worst, float(np.abs(got[valid].astype(float) - truth[valid]).max(initial=0)))
    return worst


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """An encoded Item of three grids, its pixels, and an Item with the decoded bands as GeoTIFFs on their own grids."""
    folder = tmp_path_factory.mktemp("native")
    item, fields = sentinel(folder / "raw")
    out = encode(item, chain(), folder / "catalog", psnr=44)[0]
    plain = item.clone()
    for name in fields:
        values, grid = decoded(out, name)
        write(folder / f"decoded-{name}.tif", values, GeoBox(grid.shape, Affine(*grid.transform), CRS), 0)
        plain.assets[name].href = str(folder / f"decoded-{name}.tif")
    return out, fields, plain


# -- one asset -----------------------------------------------------------------------------------------------------


def test_one_asset_with_all_bands(scene):
    item, fields, _ = scene
    asset = item.assets["latent"].extra_fields
    assert [k for k, a in item.assets.items() if "latent" in (a.roles or [])] == ["latent"]
    assert [b["name"] for b in asset["bands"]] == ["B02", "B03", "B05", "B06", "B01"]
    assert [b["gsd"] for b in asset["bands"]] == [10, 10, 20, 20, 60]
    assert asset["latent:dimensions"] == 2 * 64 + 2 * 16
    assert asset["latent:stride"] == [8, 8]
    assert [b.get("latent:group") for b in asset["bands"]] == [None] * 4 + ["g60"]
    assert asset["bands"][2]["proj:shape"] == list(fields["B05"].shape)
    assert asset["bands"][4]["latent:dimensions"] == 64
    assert asset["latent:psnr"] >= 44
    assert {p.keyword for p in validate(item)} == {"unavailable"}


def test_quality_is_over_native_samples(scene):
    item, fields, _ = scene
    asset = item.assets["latent"].extra_fields
    errors = []
    for name, truth in fields.items():
        e = decoded(item, name)[0].astype(float) - truth
        errors.append(e[truth != 0])
    e = np.concatenate(errors)
    assert asset["latent:psnr"] == pytest.approx(10 * math.log10(1e8 / np.mean(e**2)), abs=1e-9)
    assert asset["latent:max_error"] == np.abs(e).max()
    samples = sum(x.size for x in fields.values())
    assert asset["latent:bits_per_pixel"] == pytest.approx(8 * asset["file:size"] / samples)
    assert "latent:sam" not in asset


@pytest.mark.parametrize("payload", ["coded", "plain"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_payloads_and_types(tmp_path, payload, dtype):
    nodata = 0 if dtype == "uint16" else -9999.0
    item, fields = sentinel(tmp_path / "raw", (61, 47), dtype=dtype, nodata=nodata)
    out = encode(item, chain(dtype=dtype, nodata=nodata), tmp_path / "catalog", payload=payload)[0]
    assert error_of(out, fields, nodata) < 1500
    assert out.assets["latent"].extra_fields.get("latent:bitstream") == (
        "stac-latent-lin-1" if payload == "coded" else None
    )


@settings(LAW, max_examples=15, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(-40, 40), st.integers(-40, 40), st.integers(0, 99))
@example(1, 1, 0, 0, 0)
@example(301, 270, 3, -5, 1)
def test_any_size_and_corner(tmp_path_factory, h, w, dy, dx, seed):
    """Odd sizes: the 10 m bands end before those of 20 and 60 m, which hold whole pixels; corners anywhere on 60 m."""
    folder = tmp_path_factory.mktemp("any")
    boxes = {n: grid_of(g, (h, w), LEFT + 60 * dx, TOP + 60 * dy) for n, g in GSD.items()}
    item, fields = native_item(folder / "raw", boxes, seed=seed)
    if not any(x.any() for x in fields.values()):
        with pytest.raises(FieldError, match="nothing to encode"):
            encode(item, chain(), folder / "catalog")
        return
    out = encode(item, chain(), folder / "catalog", max_error=20)[0]
    assert error_of(out, fields) <= 20
    assert out.assets["latent"].extra_fields["latent:max_error"] <= 20


def test_bands_that_begin_elsewhere(tmp_path):
    """A 20 m band that begins 20 m before the 10 m bands and ends later, on the same pixels."""
    boxes = {
        "B02": grid_of(10, (50, 66)),
        "B03": grid_of(10, (41, 66)),
        "B05": GeoBox((30, 40), Affine(20, 0, LEFT - 20, 0, -20, TOP + 40), CRS),
    }
    item, fields = native_item(tmp_path / "raw", boxes)
    out = encode(item, chain(tuple(boxes)), tmp_path / "catalog", max_error=10)[0]
    assert error_of(out, fields) <= 10
    asset = out.assets["latent"].extra_fields
    assert asset["proj:transform"][2] == LEFT - 20
    assert all("proj:shape" in b for b in asset["bands"])


def test_holes_of_one_grid_only(tmp_path):
    item, fields = sentinel(tmp_path / "raw", (80, 80), nodata=0)
    with rasterio.open(item.assets["B05"].href, "r+") as file:
        fields["B05"][5:20, 7:9] = 0
        file.write(fields["B05"], 1)
    out = encode(item, chain(), tmp_path / "catalog", max_error=15)[0]
    assert error_of(out, fields) <= 15


# -- loading: the stock driver on the decoded rasters is the oracle ------------------------------------------------


AREAS = [
    {},
    {"resolution": 10},
    {"resolution": 20, "resampling": "average"},
    {"resolution": 20, "resampling": "bilinear"},
    {"resolution": 60, "resampling": "average"},
    {"resolution": 17, "crs": "EPSG:32634", "resampling": "cubic"},
    {"bbox": (13.715, 46.035, 13.722, 46.04), "resolution": 10},
    {"resolution": 0.0002, "crs": "EPSG:4326"},
]


@pytest.mark.parametrize("chunks", [None, {"x": 70, "y": 50}])
@pytest.mark.parametrize("area", AREAS, ids=str)
@pytest.mark.parametrize("names", [["B02"], ["B05", "B06"], ["B01"]])
def test_load_equals_the_stock_driver(scene, area, names, chunks):
    item, _, plain = scene
    stock = plain.clone()
    stock.assets = {
        n: plain.assets[n] for n in names
    }  # those of other bands would have a say in the default grid
    want = odc.stac.load([stock], bands=names, chunks=chunks, **area).compute()
    got = load(item, bands=names, chunks=chunks, **area).compute()
    xr.testing.assert_equal(got, want)


@pytest.mark.parametrize("resolution", [10, 20, 60])
def test_all_bands_on_one_grid(scene, resolution):
    item, fields, plain = scene
    box = GeoBox.from_bbox(grid_of(10, (187, 213)).boundingbox, resolution=resolution, crs=CRS)
    want = odc.stac.load([plain], bands=list(fields), geobox=box, resampling="nearest").compute()
    got = load(item, geobox=box).compute()
    assert set(got) == set(fields)
    for name in fields:
        xr.testing.assert_equal(got[name], want[name])


def test_the_driver_by_name(scene):
    item, _, plain = scene
    box = grid_of(20, (187, 213))
    got = odc.stac.load(
        [item], bands=["latent.B05", "latent.B01"], geobox=box, driver="stac_latent.cube.LatentDriver"
    )
    want = odc.stac.load([plain], bands=["B05", "B01"], geobox=box)
    for name in ("B05", "B01"):
        np.testing.assert_array_equal(got[f"latent.{name}"].values, want[name].values)


def test_bands_of_one_lattice_decode_once(scene, monkeypatch):
    item, _, _ = scene
    calls = []
    real = LatentReader._decode_alone
    monkeypatch.setattr(
        LatentReader, "_decode_alone", lambda self, *a: calls.append(self.ref.part) or real(self, *a)
    )
    from stac_latent.cube.read import chunk_cache as chunks
    from stac_latent.cube.read import driver

    chunks.forget()
    driver._open.cache_clear()
    load(item, bands=["B02", "B05", "B06"], resolution=10, crs=CRS)
    assert calls == [0]


def test_latents_are_those_of_the_finest_lattice(scene):
    item, _, _ = scene
    ds = load(item, upto="latent")
    assert ds["latent"].sizes["channel"] == 160
    np.testing.assert_array_equal(ds["latent"].values[0], LatentReader.open(item).read_latent())
    fine = ds.isel(time=0).stac_latent.decode()
    assert list(fine) == ["B02", "B03", "B05", "B06"]


def test_engine(scene):
    item, _, _ = scene
    store = LatentRef.from_item(item).href
    for target in (item, store):
        ds = xr.open_dataset(target, engine="stac-latent", bands=["B05", "B06"])
        np.testing.assert_array_equal(ds["B05"].values, decoded(item, "B05")[0])
        np.testing.assert_array_equal(
            xr.open_dataset(target, engine="stac-latent", bands="B01")["B01"].values, decoded(item, "B01")[0]
        )
    np.testing.assert_array_equal(
        xr.open_dataset(f"{store}/g60", engine="stac-latent")["B01"].values, decoded(item, "B01")[0]
    )
    text = (
        r"several native grids \(B02, B03 in 'g10'; B05, B06 in 'g20'; B01 in 'g60'\): choose one with group= or bands=, "
        r"open all with xarray\.open_datatree"
    )
    with pytest.raises(GridError, match=text):
        xr.open_dataset(item, engine="stac-latent")


def test_tree(scene):
    item, _, _ = scene
    store = LatentRef.from_item(item).href
    for target in (item, store):
        tree = xr.open_datatree(target, engine="stac-latent", chunks={})
        assert tree.groups == ("/", "/g10", "/g20", "/g60")
        for group, names in {"g10": ["B02", "B03"], "g20": ["B05", "B06"], "g60": ["B01"]}.items():
            assert list(tree[group].data_vars) == names
            one = xr.open_dataset(target, engine="stac-latent", group=group)
            for name in names:
                want = decoded(item, name)[0]
                np.testing.assert_array_equal(tree[group][name].values, want)
                np.testing.assert_array_equal(one[name].values, want)
                np.testing.assert_array_equal(one[name][::-7, [9, 3, 9]].values, want[::-7, [9, 3, 9]])
                points = {d: xr.DataArray([0, -1, 5, 5], dims="p") for d in "yx"}
                np.testing.assert_array_equal(
                    one[name].isel(points).values, want[[0, -1, 5, 5], [0, -1, 5, 5]]
                )
    with pytest.raises(CatalogError, match=r"there is no group 'g30'; groups are 'g10', 'g20', 'g60'"):
        xr.open_dataset(item, engine="stac-latent", group="g30")


def test_zarr_alone(scene):
    """Whoever has the codec opens both arrays as plain Zarr."""
    item, _, _ = scene
    store = LatentRef.from_item(item).href
    root, group = xr.open_zarr(store), xr.open_zarr(store, group="g60")
    assert root["latent"].shape == (160, *LatentRef.from_item(item).grid.cells)
    assert group["latent"].shape[0] == 64
    np.testing.assert_array_equal(
        group["latent"].values, LatentReader(view_of(LatentRef.from_item(item), 4).ref).read_symbols()
    )


# -- which grids nest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "order", "lattices"),
    [
        ([grid_of(g, (60, 60)) for g in (60, 10, 20)], (1, 2, 0), ((1, 1), (1,))),
        ([grid_of(g, (61, 47), 400_000) for g in (10, 20, 40, 80)], (0, 1, 2, 3), ((1, 1, 1, 1),)),
        ([grid_of(g, (60, 60)) for g in (10, 40)], (0, 1), ((1,), (1,))),
        ([grid_of(g, (60, 60)) for g in (60, 60)], (0, 1), ((2,),)),
        ([grid_of(10, (8, 8)), grid_of(20, (8, 8), LEFT + 10)], (0, 1), ((1,), (1,))),
        ([grid_of(10, (8, 8)), grid_of(20, (8, 8), LEFT + 5)], (0, 1), ((1,), (1,))),
        ([grid_of(15, (60, 60), 7.5), grid_of(30, (60, 60), 15), grid_of(30, (60, 60), 15)], (0, 1, 2), ((1,), (2,))),
        ([grid_of(20, (60, 60)), grid_of(60, (60, 60)), grid_of(60, (60, 60))], (0, 1, 2), ((1,), (2,))),
    ],
)  # fmt: skip
def test_arrange(boxes, order, lattices):
    assert arrange(boxes) == (order, lattices)


@given(st.integers(1, 99), st.integers(1, 99), st.integers(-9, 9), st.integers(-9, 9))
def test_cover_holds_whole_pixels(h, w, dy, dx):
    boxes = [
        grid_of(10, (h, w), LEFT + 20 * dx, TOP - 20 * dy),
        grid_of(20, (h, w)),
        grid_of(40, (5, 5), 400_000),
    ]
    box = cover(boxes, [1, 2, 4])
    assert box.shape.y % 4 == 0
    assert box.shape.x % 4 == 0
    for b in boxes:
        left, bottom, right, top = b.boundingbox.bbox
        assert box.boundingbox.left <= left < right <= box.boundingbox.right
        assert box.boundingbox.bottom <= bottom < top <= box.boundingbox.top


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 4))
def test_nest_round_trips(counts, cy, cx):
    nest = Nest(tuple(counts))
    cells = np.random.default_rng(0).normal(size=(nest.channels, cy, cx)).astype(np.float32)
    tile = nest.unpack(cells)
    assert [t.shape for t in tile] == [(n, 8 * cy >> d, 8 * cx >> d) for d, n in enumerate(counts)]
    np.testing.assert_array_equal(nest.pack(tile), cells)
    for a, b in zip(nest.gather(nest.spread(tile)), tile, strict=True):
        np.testing.assert_array_equal(a, b)


# -- codecs --------------------------------------------------------------------------------------------------------


def test_derived_codec_is_a_bundle(tmp_path):
    codec = native_codec(open_codec("s2-l2a-12b"), [1, 2, 3, 7, 4, 5, 6, 8, 10, 11, 0, 9], ((4, 6), (2,)))
    save_bundle(codec, tmp_path)
    again = load_bundle(tmp_path, space=codec.space)
    assert again.space == codec.space != open_codec("s2-l2a-12b").space
    assert [p.dimensions for p in again.grid_chains] == [352, 128]
    assert {p.space for p in again.grid_chains} == {codec.space}
    for part in again.grid_chains:
        basis = part.stages[2].basis
        for level, rows in enumerate(basis):
            np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=5e-4, err_msg=str(level))


def test_derived_codec_compresses_lists(tmp_path):
    item, fields = sentinel(tmp_path / "raw", (60, 72))
    out = encode(item, chain(), tmp_path / "catalog")[0]
    codec = open_codec(out)
    grids = [
        np.stack([fields["B02"], fields["B03"]]),
        np.stack([fields["B05"], fields["B06"]]),
        fields["B01"][None],
    ]
    back = codec.decompress(codec.compress(grids, max_error=5))
    for x, y in zip(grids, back, strict=True):
        valid = x != 0
        np.testing.assert_array_equal(valid, y != 0)
        assert np.abs(x[valid].astype(int) - y[valid]).max(initial=0) <= 5


def test_a_native_codec_codes_further_items(tmp_path):
    first, _ = sentinel(tmp_path / "a", (60, 72))
    second, fields = sentinel(tmp_path / "b", (48, 31), name="second", seed=9)
    open_items = encode(first, chain(), tmp_path / "catalog")
    codec = open_codec(open_items[0])
    out = encode(second, codec, tmp_path / "catalog", max_error=9)[0]
    assert out.properties["latent:spaces"] == [codec.space]
    assert error_of(out, fields) <= 9
    both = load([open_items[0], out], bands=["B05", "B01"], geobox=grid_of(20, (60, 72)), groupby="id")
    assert both.sizes["time"] == 2


# -- errors --------------------------------------------------------------------------------------------------------


def test_other_chains_are_refused(tmp_path):
    item, _ = sentinel(tmp_path, (40, 40))
    dct = open_codec("dct", bands=[Band(n, nodata=0, scale=1e-4) for n in GSD])
    text = r"several native grids \(resolutions: B02 10.*Choose a codec of the lin family.*resolution="
    with pytest.raises(GridError, match=text):
        encode(item, dct, tmp_path / "catalog")


def test_resolution_still_resamples(tmp_path):
    item, _ = sentinel(tmp_path / "raw", (40, 40))
    out = encode(item, chain(), tmp_path / "catalog", resolution=20)[0]
    asset = out.assets["latent"].extra_fields
    assert asset["latent:dimensions"] == 5 * 64
    assert not any("proj:shape" in b for b in asset["bands"])


def test_one_load_over_items_of_one_grid_and_of_several(tmp_path):
    """Bands that share their pixels in one Item lie on several grids in another; each Item is read as it is alone."""
    item, _ = sentinel(tmp_path / "raw", (40, 40), name="one")
    one = encode(item, chain(), tmp_path / "one", resolution=20)[0]
    two = encode(sentinel(tmp_path / "other", (40, 40), seed=3, name="two")[0], chain(), tmp_path / "two")[0]
    box = grid_of(20, (40, 40))
    for items in ([one, two], [two, one]):
        both = load(items, geobox=box, groupby="id", resampling="average")
        assert sorted(both.data_vars) == sorted(GSD)
        for i, item in enumerate(items):
            alone = load(item, geobox=box, resampling="average")
            for name in GSD:
                np.testing.assert_array_equal(both[name].isel(time=i), alone[name].isel(time=0))


def test_references_are_refused(tmp_path):
    items = [sentinel(tmp_path / n, (40, 40), name=n)[0] for n in ("a", "b")]
    with pytest.raises(
        CatalogError, match="bands of item 'a' lie on several native grids, and key frames are for"
    ):
        encode(items, chain(), tmp_path / "catalog", references="auto")


def test_native_codec_refuses_other_grids(tmp_path):
    item, _ = sentinel(tmp_path / "a", (60, 72))
    codec = open_codec(encode(item, chain(), tmp_path / "catalog")[0])
    boxes = {n: grid_of(g, (40, 40), LEFT + (10 if g == 20 else 0)) for n, g in GSD.items()}
    off, _ = native_item(tmp_path / "b", boxes, name="off")
    text = r"grids of item 'off' \(resolutions: B02 10, .*do not nest as codec 'lin-native' has them: pixels 1, 1, 2, 2 times"
    with pytest.raises(GridError, match=text):
        encode(off, codec, tmp_path / "catalog")
    with pytest.raises(GridError, match=r"codes bands on their native grids .*; leave resolution out"):
        encode(item, codec, tmp_path / "other", resolution=10)
    assert not (tmp_path / "catalog" / "off").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"latent:group": "../../etc"}, "latent:group '../../etc'.*a group is named with letters"),
        ({"latent:group": ".."}, "latent:group '..'.*a group is named with letters"),
        ({"latent:group": "g60", "proj:shape": None}, "do not tell where it is"),
        ({"proj:shape": [1]}, "do not tell where it is"),
    ],
)
def test_bad_places_are_refused(scene, change, text):
    item = pystac.Item.from_dict(json.loads(json.dumps(scene[0].to_dict())))
    item.assets["latent"].extra_fields["bands"][4] |= change
    with pytest.raises(CatalogError, match=text):
        LatentRef.from_item(item, "latent")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"proj:shape": [400, 107]}, GridError, "which are not whole ones of the asset's"),
        ({"proj:transform": [20.0, 0.0, LEFT + 3, 0.0, -20.0, TOP]}, GridError, "which are not whole ones of the asset's"),
        ({"latent:group": "g90", "latent:dimensions": 32}, CorruptDataError, "names 2 group.*has 1|no readable latent group|no zarr.json"),
        ({"latent:group": "g60", "latent:dimensions": 5}, CorruptDataError, "the item declares"),
    ],
)  # fmt: skip
def test_items_that_contradict_the_store(scene, change, error, text):
    item = pystac.Item.from_dict(json.loads(json.dumps(scene[0].to_dict())))
    item.assets["latent"].extra_fields["bands"][2] |= change
    with pytest.raises(error, match=text):
        load(item, bands=["B05"], geobox=grid_of(20, (60, 60)))


@pytest.mark.parametrize("value", [[], [[]], [[0]], [[1, -1]], [["a"]], [[1], [1, 1]], [[1] * 5], 3])
def test_bad_lattices_are_refused(value):
    from stac_latent.stages.lin.pyramid import Pyramid

    with pytest.raises(BundleError, match="lattices"):
        Pyramid.build({"levels": 3, "tile": 256, "lattices": value}, {})


def test_derive_needs_lin():
    with pytest.raises(CodecError, match="codes bands of one grid"):
        native_codec(open_codec("dct", bands=["a", "b"]), [0, 1], ((1, 1),))


# -- the fit -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A codec fitted to four places, and an Item of a fifth."""
    folder = tmp_path_factory.mktemp("fit")
    items = []
    for i in range(5):
        boxes = {n: grid_of(g, (240, 252), LEFT + 6000 * i) for n, g in GSD.items()}
        item, fields = native_item(folder / str(i), boxes, seed=10 * i, name=f"place{i}")
        items.append(item)
    made = fit(items[:4], folder / "mine", pixels=200_000)
    return made, items[4], fields


def test_fit_knows_the_joint_family(fitted):
    codec = fitted[0].codec
    assert [b.name for b in codec.bands][-1] == "B01"
    assert [b.gsd for b in codec.bands] == [10, 10, 20, 20, 60]
    lin = codec.stages[2]
    assert lin.lattices == ((2, 2), (1,))
    eye = np.eye(5)
    for level, basis in enumerate(lin.basis):
        np.testing.assert_allclose(basis @ basis.T, eye, atol=1e-3)
        joint = {0: 4, 1: 2}.get(level, 4)  # details of the finest level are those of the 10 m bands alone
        np.testing.assert_array_equal(basis[joint:, joint:], eye[joint:, joint:])
        assert np.abs(basis[:joint, :joint] - eye[:joint, :joint]).max() > 0.01
    assert len(codec.stats.mean) == 160 + 64
    assert codec.about["rate_distortion"][2]["psnr"] == pytest.approx(46, abs=2)
    assert "sam" not in codec.about["rate_distortion"][2]
    assert load_bundle(fitted[0].path).space == codec.space


def test_fitted_codec_encodes_and_pays(fitted, tmp_path):
    made, item, fields = fitted
    out = encode(item, made.path, tmp_path / "catalog", psnr=40)[0]
    assert out.properties["latent:spaces"] == [made.codec.space]
    assert error_of(out, fields) < 2000
    grids = [np.stack([fields[n] for n in names]) for names in (("B02", "B03"), ("B05", "B06"), ("B01",))]
    plain = native_codec(
        open_codec("lin", bands=list(made.codec.bands), mean=1300.0), range(5), ((2, 2), (1,))
    )
    assert len(made.codec.compress(grids, psnr=40)) < len(plain.compress(grids, psnr=40))


def test_fit_refuses_empty_bands(tmp_path):
    items = []
    for i in range(2):
        item, _ = sentinel(tmp_path / str(i), (96, 96), name=f"i{i}", seed=i)
        with rasterio.open(item.assets["B05"].href, "r+") as file:
            file.write(np.zeros((48, 48), "uint16"), 1)
        items.append(item)
    with pytest.raises(CatalogError, match=r"band\(s\) B05 hold no data"):
        fit(items, tmp_path / "mine", holdout=0)


# -- what stays ----------------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize("version", sorted((GOLDEN / "native").glob("*")), ids=lambda v: v.name)
def test_golden_catalogue(version):
    sys.path.insert(0, str(GOLDEN))
    try:
        spec = importlib.util.spec_from_file_location("golden_native", GOLDEN / "make_native.py")
        make = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(make)
    finally:
        sys.path.remove(str(GOLDEN))
    index = json.loads((version / "index.json").read_text())
    item = pystac.Item.from_file(str(version / index["item"]))
    assert make.digests(item) == index["bands"]
    with pytest.raises(FileExistsError):
        make.main(version)


def test_search_and_geoparquet(scene, tmp_path):
    """Items go through stac-geoparquet, where absent keys of a band come back as nulls."""
    item, fields, _ = scene
    found = list(search(str(item.get_root().get_self_href()), min_psnr=44, kind="codec"))
    assert [i.id for i in found] == [item.id]
    assert list(search(str(item.get_root().get_self_href()), min_psnr=60)) == []
    rows = json.loads(json.dumps(item.to_dict(include_self_link=False)))
    keys = {k for b in rows["assets"]["latent"]["bands"] for k in b}
    for band in rows["assets"]["latent"]["bands"]:
        band.update(dict.fromkeys(keys - set(band)))
    again = pystac.Item.from_dict(rows, href=item.get_self_href())
    for name in fields:
        np.testing.assert_array_equal(decoded(again, name)[0], decoded(item, name)[0])


def test_inspect(scene):
    item, _, _ = scene
    facts = describe_asset(item, LatentRef.from_item(item))
    assert facts["native_grids"] == {"10": ["B02", "B03"], "20": ["B05", "B06"], "60": ["B01"]}
    assert facts["codec"] == "lin-native"


def test_publish_gives_the_cells_of_the_finest_lattice(fitted, tmp_path):
    made, item, _ = fitted
    out = encode(item, made.codec, tmp_path / "catalog")[0]
    table = publish(out, tmp_path / "cells.parquet", asset="latent")
    cells = math.prod(LatentRef.from_item(out).grid.cells)
    assert cells / 2 < table.properties["table:row_count"] <= cells
    (vectors,) = [
        f for f in pq.read_schema(tmp_path / "cells.parquet") if str(f.type).startswith("fixed_size_list")
    ]
    assert vectors.type.list_size == 160


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"latent:group": "a/b"}, "pattern"),
        ({"latent:group": ".."}, "pattern"),
        ({"latent:dimensions": 0}, "minimum"),
        ({"latent:dimensions": None}, "type"),
        ({"latent:stride": [8, 8]}, "pattern"),
    ],
)
def test_schema_of_bands(scene, change, keyword):
    doc = scene[0].to_dict()
    assert "unavailable" in {p.keyword for p in validate(doc)}
    doc["assets"]["latent"]["bands"][4] |= change
    assert keyword in {p.keyword for p in validate(doc)}


def test_schema_wants_a_whole_place(scene):
    doc = scene[0].to_dict()
    del doc["assets"]["latent"]["bands"][4]["proj:shape"]
    assert any(p.keyword.startswith("depend") for p in validate(doc))


def test_one_array_is_refused(fitted):
    codec = fitted[0].codec
    with pytest.raises(
        FieldError, match=r"'mine' codes bands on several native grids; give compress\(\) a list"
    ):
        codec.compress(np.ones((5, 16, 16), "uint16"))
    with pytest.raises(FieldError, match="a codec of 2 lattices codes each by itself"):
        codec.encode(np.ones((5, 16, 16), "uint16"), upto="symbols")
    roi = codec.grid_chains[0]
    with pytest.raises(CodecError, match="regions of interest are for fields on one grid"):
        roi.with_target(Target(psnr=40), weights=np.ones((16, 16), np.float32))


def test_training_is_refused(fitted):
    with pytest.raises(
        TrainError, match=r"lin for several native grids; training starts from .* of bands of one grid"
    ):
        check_base(fitted[0].codec)
