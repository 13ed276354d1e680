"""The xarray engine as others call it: indexers, decode flags, chunks, time, trees, files and what is refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import pickle
import shutil
from pathlib import Path

import dask
import numpy as np
import pystac
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from load_support import BANDS, NAMES, NOON, codec_of, encoded, pixel_grid, scene
from xarray.backends.netcdf3 import encode_nc3_attrs

import stac_latent
from stac_latent.cube.read import chunk_cache
from stac_latent.cube.read.engine.gather import Blocks
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, CorruptDataError, EncryptionError, SettingError
from stac_latent.secure import Key, key_ring
from stac_latent.spec import Band
from stac_latent.store.zarr.group import StoreLayout

SHAPE = (187, 213)
SIDE = 32
"""Pixels along a chunk: four cells of eight."""

opened = functools.partial(xr.open_dataset, engine="stac-latent")


@pytest.fixture(scope="module")
def item(tmp_path_factory):
    """A scene of 6 x 7 chunks, off the lattice, with a scale and an offset."""
    bands = [Band(b.name, nodata=0, common_name=b.common_name, scale=1e-4, offset=-0.1) for b in BANDS]
    return encoded(
        tmp_path_factory.mktemp("engine"), "s", scene(SHAPE), pixel_grid(SHAPE),
        codec=codec_of(bands=bands), layout=StoreLayout(4, 8),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(item):
    return stac_latent.load(item).isel(time=0)


@pytest.fixture
def decoded(monkeypatch):
    """Windows of the chunks that are decoded."""
    chunk_cache.forget()
    seen = []
    real = LatentReader._decode_alone

    def spy(self, window, bands):
        seen.append(window)
        return real(self, window, bands)

    monkeypatch.setattr(LatentReader, "_decode_alone", spy)
    return seen


# -- indexers ------------------------------------------------------------------------------------------------------


def places(n):
    """An indexer of one axis: basic, or outer with repeats, out of order, boolean or empty."""
    at = st.integers(-n, n - 1)
    steps = st.integers(-7, 7).filter(bool)
    return st.one_of(
        at,
        st.builds(slice, st.none() | at, st.none() | at, st.none() | steps),
        st.lists(at, max_size=6).map(lambda v: np.array(v, np.int64)),
        st.integers(0, 2**16).map(lambda seed: np.random.default_rng(seed).random(n) < 0.02),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(y=places(SHAPE[0]), x=places(SHAPE[1]), twice=st.booleans())
def test_outer_indexers_are_those_of_numpy(item, whole, y, x, twice):
    got, want = opened(item)["B03"], whole["B03"]
    if twice:  # an indexer of an indexer
        got, want = (a.isel(y=slice(None, None, -1)) for a in (got, want))
    np.testing.assert_array_equal(got.isel(y=y, x=x).values, want.isel(y=y, x=x).values)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    shape=st.sampled_from([(1,), (5,), (2, 3), (0,)]),
    kind=st.sampled_from(["yx", "y", "x", "twice"]),
)
def test_vectorised_indexers_are_those_of_numpy(item, whole, data, shape, kind):
    dims = ("p", "q")[: len(shape)]
    draw = lambda n: xr.DataArray(  # noqa: E731
        np.array(
            data.draw(st.lists(st.integers(-n, n - 1), min_size=(k := int(np.prod(shape))), max_size=k)), int
        ).reshape(shape),
        dims=dims,
    )
    by = {"y": draw(SHAPE[0]), "x": draw(SHAPE[1])}
    by = {k: v for k, v in by.items() if k in kind or kind == "twice"}
    got, want = opened(item)["B04"], whole["B04"]
    if kind == "twice":
        got, want = (a.isel(x=slice(100, None, -3)).isel(x=by["x"] % 30, y=by["y"]) for a in (got, want))
    else:
        got, want = got.isel(by), want.isel(by)
    assert got.dims == want.dims
    np.testing.assert_array_equal(got.values, want.values)


@pytest.mark.parametrize(
    "by",
    [
        {"channel": [3, 0, 3], "y": [5, 1], "x": slice(None, None, -2)},
        {"channel": -1, "y": 4},
        {"y": xr.DataArray([0, 22, 7, 7], dims="p"), "x": xr.DataArray([26, 0, 9, 9], dims="p")},
        {"channel": xr.DataArray([0, 5], dims="p"), "y": xr.DataArray([2, 9], dims="p")},
        {
            "channel": xr.DataArray([0, 5], dims="p"),
            "y": xr.DataArray([2, 9], dims="p"),
            "x": xr.DataArray([2, 2], dims="p"),
        },
        {"y": slice(4, 4)},
    ],
    ids=str,
)
@pytest.mark.parametrize("squeeze", [True, False])
def test_cells_by_any_indexer(item, by, squeeze):
    want = stac_latent.load(item, upto="latent")["latent"]
    got = opened(item, upto="latent", squeeze=squeeze)["latent"]
    want = want.isel(time=0, **by) if squeeze else want.isel(by)
    assert got.isel(by).dims == want.dims
    np.testing.assert_array_equal(got.isel(by).values, want.values)


def test_only_chunks_that_are_hit_are_decoded(item, whole, decoded):
    ends = {"y": [5, 180], "x": [5, 205]}
    np.testing.assert_array_equal(opened(item)["B04"].isel(ends), whole["B04"].isel(ends))
    assert len(decoded) == 4
    decoded.clear()
    chunk_cache.forget()
    points = {k: xr.DataArray(v, dims="p") for k, v in ends.items()}
    np.testing.assert_array_equal(opened(item)["B04"].isel(points), whole["B04"].isel(points))
    assert len(decoded) == 2
    decoded.clear()
    opened(item)["B02"].isel(points).load()
    assert decoded == []  # one decode for all bands


def test_a_million_points(item, whole):
    rng = np.random.default_rng(0)
    by = {
        d: xr.DataArray(rng.integers(0, n, 1_000_000), dims="p")
        for d, n in zip(("y", "x"), SHAPE, strict=True)
    }
    np.testing.assert_array_equal(opened(item)["B02"].isel(by).values, whole["B02"].isel(by).values)


@pytest.mark.parametrize(
    "by",
    [{"y": [187]}, {"x": -214}, {"y": xr.DataArray([0, 200], dims="p"), "x": xr.DataArray([0, 1], dims="p")}],
)
def test_places_out_of_range(item, by):
    with pytest.raises(IndexError, match=r"out of bounds|out of range"):
        opened(item)["B02"].isel(by).load()


# -- flags ---------------------------------------------------------------------------------------------------------

FLAGS = {
    "decode_times": True, "decode_timedelta": False, "use_cftime": None, "concat_characters": True, "decode_coords": "all", "group": None,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Usage of 'use_cftime':DeprecationWarning")
@pytest.mark.parametrize("flag", FLAGS)
def test_flags_that_change_nothing_are_taken(item, flag):
    xr.testing.assert_identical(opened(item, **{flag: FLAGS[flag]}), opened(item))


def test_as_tile_servers_open(item):
    opener = functools.partial(xr.open_dataset, engine="stac-latent", asset="latent")
    got = opener(item.get_self_href(), decode_times=True, decode_coords="all", group=None)
    xr.testing.assert_identical(got, opened(item))


def test_masked_and_scaled_as_physical(item):
    want = stac_latent.load(item, physical=True).isel(time=0)
    got = opened(item, mask_and_scale=True)
    for name in NAMES:
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name].values, want[name].values)
        assert got[name].attrs == {
            k: v for k, v in want[name].attrs.items() if k not in ("_FillValue", "nodata")
        }
        np.testing.assert_array_equal(got[name][::9, [7, 3]].values, want[name][::9, [7, 3]].values)
    assert np.isnan(got["B02"].values).any()
    for flag in (None, False):
        assert opened(item, mask_and_scale=flag)["B02"].dtype == np.uint16
    assert opened(item, decode_cf=False)["B02"].dtype == np.uint16
    mixed = opened(item, mask_and_scale={"B03": True})
    assert [mixed[n].dtype for n in NAMES] == [np.uint16, np.float32, np.uint16]
    with pytest.raises(CatalogError, match=r"mask_and_scale='yes' is neither True, False nor None"):
        opened(item, mask_and_scale="yes")


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("upto", ["field", "latent"])
def test_zarr_holds_what_was_opened(item, tmp_path, upto, flag):
    ds = opened(item, upto=upto, mask_and_scale=flag)
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    check_again(xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=flag, decode_coords="all"), ds)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("upto", ["field", "latent"])
def test_netcdf_3_holds_what_was_opened(item, tmp_path, upto, flag):
    pytest.importorskip("scipy.io", reason="xarray writes NetCDF-3 with scipy")
    ds = opened(item, upto=upto, mask_and_scale=flag)
    ds.to_netcdf(tmp_path / "a.nc", engine="scipy")
    check_again(
        xr.open_dataset(tmp_path / "a.nc", engine="scipy", mask_and_scale=flag, decode_coords="all"), ds
    )


def check_again(again, ds):
    for name in ds:
        np.testing.assert_allclose(again[name].values, ds[name].values, rtol=1e-6)
    assert again["time"] == ds["time"]
    assert again[next(iter(ds))].odc.geobox == ds.odc.geobox
    if "latent" in ds:
        assert json.loads(again["latent"].attrs["latent:bands"]) == NAMES
        assert again.stac_latent.space == ds.stac_latent.space


@pytest.mark.parametrize("upto", ["field", "latent"])
def test_attributes_are_those_of_netcdf_3(item, upto):
    for variable in opened(item, upto=upto).variables.values():
        encode_nc3_attrs(variable.attrs)
        for value in variable.attrs.values():
            assert np.asarray(value).dtype.kind != "U" or isinstance(value, str)


def test_physical_values_are_saved_as_they_were_stored(item, tmp_path, whole):
    opened(item, mask_and_scale=True).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    stored = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False)
    for name in NAMES:
        np.testing.assert_array_equal(stored[name].values, whole[name].values)


# -- chunks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "factor", "want"),
    [
        (Blocks(256, 0, 1000), 1, 256),
        (Blocks(256, 0, 1000), 8, 1000),
        (Blocks(256, 0, 5000), 8, 2048),
        (Blocks(256, 100, 600), 1, (156, 256, 188)),
        (Blocks(256, 100, 5000), 8, (1948, 2048, 1004)),
        (Blocks(256, 0, 300, step=2), 1, 128),
        (Blocks(256, 6, 300, step=2, offset=10), 1, (120, 128, 52)),
        (Blocks(100, 0, 100, step=3), 1, (34, 33, 33)),
        (Blocks(256, 0, 1), 1, 1),
    ],
    ids=str,
)
def test_how_chunks_cut_an_axis(blocks, factor, want):
    sizes = blocks.sizes(factor)
    assert sizes == want
    by_hand = [
        (i * blocks.step + blocks.offset + blocks.lead) // blocks.size // factor for i in range(blocks.length)
    ]
    assert np.unique(by_hand, return_counts=True)[1].tolist() == (
        list(want)
        if isinstance(want, tuple)
        else [want] * (blocks.length // want) + [blocks.length % want] * bool(blocks.length % want)
    )


@pytest.mark.parametrize("upto", ["field", "latent"])
@pytest.mark.parametrize("chunks", [{}, "auto"])
def test_chunks_are_shards(item, upto, chunks, decoded):
    ds = opened(item, upto=upto, chunks=chunks)
    variable = ds["B02" if upto == "field" else "latent"]
    lead = LatentReader.open(item).grid.lead
    assert upto == "latent" or any(lead)
    for dim, n, pad in zip(("y", "x"), SHAPE, lead, strict=True):
        whole = range(0, n + pad, 2 * SIDE) if upto == "field" else range(0, ds.sizes[dim], 8)
        starts = np.cumsum([0, *variable.chunksizes[dim][:-1]]).tolist()
        assert (
            starts == [max(0, w - (pad if upto == "field" else 0)) for w in whole]
            if chunks == {}
            else starts == [0]
        )
    xr.testing.assert_equal(ds.compute(), opened(item, upto=upto))
    assert len(set(decoded)) == len(decoded)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers(item, whole, scheduler):
    with dask.config.set(scheduler=scheduler, num_workers=2):
        got = opened(item, chunks={}).compute()
    for name in NAMES:
        np.testing.assert_array_equal(got[name], whole[name])


def test_pickles_stay_lazy(item, whole, decoded):
    ds = opened(item)
    data = pickle.dumps(ds)
    assert len(data) < 40_000
    assert decoded == []
    again = pickle.loads(data)  # noqa: S301 (made above)
    np.testing.assert_array_equal(again["B03"][3:9, ::5], whole["B03"][3:9, ::5])
    np.testing.assert_array_equal(ds.copy(deep=True)["B03"][:, 4], whole["B03"][:, 4])


def test_loading_beside_other_things(item, whole):
    async def load():
        return await opened(item)["B02"].isel(y=[5, 180], x=slice(None, None, -9)).load_async()

    np.testing.assert_array_equal(asyncio.run(load()), whole["B02"].isel(y=[5, 180], x=slice(None, None, -9)))


# -- one decode for all bands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [{}, {"y": slice(None, None, 3)}, {"y": [1, 50, 180], "x": [200, 3, 90]}], ids=str
)
def test_one_decode_where_the_cache_is_small(item, whole, decoded, monkeypatch, key):
    monkeypatch.setenv("STAC_LATENT_DECODED_BYTES", str(3 * SIDE * SIDE * 6))
    got = opened(item).isel(key).load()
    assert len(decoded) == len(set(decoded)) > 3
    for name in NAMES:
        np.testing.assert_array_equal(got[name], whole[name].isel(key))


def test_nothing_is_put_aside_for_bands_that_are_gone(item, decoded, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_DECODED_BYTES", "0")
    ds = opened(item)
    one = ds["B03"]
    arrays = [ds[n].variable._data.array.array.array for n in ("B02", "B04")]
    one.load()
    assert [a.aside is not None for a in arrays] == [True, True]
    ds["B02"][:9].load()  # something else is asked for
    assert arrays[0].aside is None
    alone = opened(item, bands=["B03"])
    group = alone["B03"].variable._data.array.array.array.group
    assert len(group.members) == 1
    decoded.clear()
    chunk_cache.forget()
    alone.load()
    assert len(decoded) == 6 * 7


def test_a_limit_that_is_no_number(item, monkeypatch):
    chunk_cache.forget()
    monkeypatch.setenv("STAC_LATENT_DECODED_BYTES", "much")
    with pytest.raises(SettingError, match=r"STAC_LATENT_DECODED_BYTES='much' is no number of bytes"):
        opened(item)["B02"].load()


# -- time ----------------------------------------------------------------------------------------------------------


def test_time_is_that_of_load(item, tmp_path):
    assert opened(item)["time"].values == stac_latent.load(item)["time"].values[0]
    span = item.clone()
    span.datetime = None
    span.properties |= {"start_datetime": "2024-03-01T01:00:00+02:00", "end_datetime": "2024-04-01T00:00:00Z"}
    assert opened(span)["time"].values == np.datetime64("2024-02-29T23:00:00")
    assert opened(span)["time"].values == stac_latent.load(span)["time"].values[0]
    span.properties |= {"start_datetime": "soon", "end_datetime": None}
    assert "time" not in opened(span).coords
    assert "time" not in opened(item.assets["latent"].get_absolute_href()).coords


@pytest.fixture(scope="module")
def dates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dates")
    return [
        encoded(
            folder,
            f"d{i}",
            scene((64, 72), seed=i),
            pixel_grid((64, 72)),
            when=NOON + dt.timedelta(days=days),
        )
        for i, days in enumerate((5, 0, 9))
    ]


@pytest.mark.parametrize("upto", ["field", "latent"])
@pytest.mark.parametrize(
    "how",
    [{"combine": "by_coords", "squeeze": False}, {"combine": "nested", "concat_dim": "time"}],
    ids=["by_coords", "nested"],
)
def test_several_dates(dates, how, upto):
    hrefs = [i.get_self_href() for i in dates]
    options = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "exact"}
    with xr.open_mfdataset(hrefs, engine="stac-latent", asset="latent", upto=upto, **how, **options) as got:
        want = stac_latent.load(dates, upto=upto)
        np.testing.assert_array_equal(got.sortby("time")["time"], want["time"])
        for name in want.data_vars:
            assert got[name].dims == want[name].dims
            np.testing.assert_array_equal(got.sortby("time")[name], want[name])


# -- keys, signatures, assets ---------------------------------------------------------------------------------------


def test_an_asset_and_its_owner(item, whole):
    np.testing.assert_array_equal(opened(item.assets["latent"])["B02"], whole["B02"])
    with pytest.raises(CatalogError, match=r"asset 'image' of item 's' is not a latent"):
        opened(item.assets["image"])
    with pytest.raises(CatalogError, match=r"was given with asset='image'; item 's' has it as latent"):
        opened(item.assets["latent"], asset="image")
    with pytest.raises(
        CatalogError, match=r"x\.zarr belongs to no Item, which says how it is decoded: open the Item"
    ):
        opened(pystac.Asset("x.zarr"))
    with pytest.raises(
        CatalogError, match=r"asset='latent' is of an Item, and .* is opened as a latent Zarr group"
    ):
        opened(item.assets["latent"].get_absolute_href(), asset="latent")


def test_keys(tmp_path, monkeypatch):
    monkeypatch.delenv("STAC_LATENT_KEY", raising=False)
    key = Key(b"k" * 32)
    item = encoded(tmp_path, "s", scene((64, 72)), pixel_grid((64, 72)), key=key, layout=StoreLayout(4, 8))
    before = dict(key_ring())
    try:
        key_ring().clear()
        href = item.assets["latent"].get_absolute_href()
        elsewhere = shutil.copytree(href, tmp_path / "elsewhere.zarr")  # readers that are open stay open
        ds = opened(elsewhere, chunks={})
        assert ds["B02"].chunksizes["y"][0] <= SIDE
        with pytest.raises(EncryptionError, match=r"Pass key= .*or name its file in STAC_LATENT_KEY"):
            ds.load()
        with pytest.raises(EncryptionError, match="is encrypted for key"):
            opened(elsewhere, key=Key(b"w" * 32)).load()
        with pytest.raises(EncryptionError, match=r"nothing\.key"):
            opened(elsewhere, key=tmp_path / "nothing.key")
        got = opened(elsewhere, key=key).load()
        np.testing.assert_array_equal(got["B02"], stac_latent.load(item)["B02"][0])
    finally:
        key_ring().clear()
        key_ring().update(before)


# -- trees ---------------------------------------------------------------------------------------------------------


def test_a_tree_of_one_grid_is_its_root(item):
    tree = xr.open_datatree(item, engine="stac-latent")
    assert tree.groups == ("/",)
    xr.testing.assert_identical(tree.to_dataset(), opened(item))
    xr.testing.assert_identical(opened(item, group="g10"), opened(item, group="/"))
    with pytest.raises(
        CatalogError, match=r"there is no group 'g20'; groups are none: all is in the root, leave group out"
    ):
        opened(item, group="g20")


def test_a_tree_of_several_assets(item, whole):
    both = item.clone()
    both.assets["other"] = both.assets["latent"].clone()
    tree = xr.open_datatree(both, engine="stac-latent", chunks={}, mask_and_scale=True)
    assert tree.groups == ("/", "/latent", "/other")
    assert tree["other/B02"].dtype == np.float32
    np.testing.assert_array_equal(opened(both, group="other")["B02"], whole["B02"])
    assert xr.open_datatree(both, engine="stac-latent", group="other").groups == ("/",)
    assert list(xr.open_groups(both, engine="stac-latent")) == ["/", "/latent", "/other"]
    with pytest.raises(CatalogError, match=r"several latent assets.*choose one with asset="):
        opened(both)
    with pytest.raises(CatalogError, match=r"there is no group 'b'; groups are 'latent', 'other'"):
        xr.open_datatree(both, engine="stac-latent", group="b")


def test_names_that_are_none(item):
    with pytest.raises(CatalogError, match=r"group=3 is no path; expected such as 'g20'"):
        opened(item, group=3)
    with pytest.raises(CatalogError, match=r"bands=\[\] names no band; asset 'latent' has B02, B03, B04"):
        opened(item, bands=[])
    with pytest.raises(CatalogError, match=r"no band 'B77' in asset 'latent'"):
        xr.open_datatree(item, engine="stac-latent", bands=["B77"])


# -- damage --------------------------------------------------------------------------------------------------------


def test_a_chunk_that_is_damaged(item, tmp_path):
    store = Path(shutil.copytree(item.assets["latent"].get_absolute_href(), tmp_path / "s.zarr"))
    shard = max(
        (p for p in (store / "latent").rglob("*") if p.is_file() and p.name != "zarr.json"),
        key=lambda p: p.stat().st_size,
    )
    data = bytearray(shard.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    shard.write_bytes(data)
    ds = opened(store)
    with pytest.raises(CorruptDataError, match=r"s\.zarr"):
        ds["B02"].load()
    shard.unlink()
    chunk_cache.forget()
    with pytest.raises(CorruptDataError, match="is missing; the store is incomplete"):
        ds["B02"][::9, ::9].load()


def test_an_option_that_is_none(item):
    with pytest.raises(TypeError, match="unexpected keyword argument 'band'"):
        opened(item, band="B02")
    with pytest.raises(TypeError, match="unexpected keyword argument 'band'"):
        xr.open_datatree(item, engine="stac-latent", band="B02")
