"""What a pixel has where several Items of a time step hold data, against numpy on stacked sources."""

from __future__ import annotations

import warnings

import numpy as np
import odc.stac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from load_support import NOON, encoded, pair, pixel_grid, scene, stock_item, write_tiff
from odc.loader.types import RasterLoadParams

from stac_latent.catalog.encode.encode import encode
from stac_latent.cube.grid.fusing import fuser_of, reduced
from stac_latent.cube.open_codec import open_codec
from stac_latent.cube.read.load import load
from stac_latent.errors import CatalogError
from stac_latent.spec import Band

METHODS = ["first", "last", "min", "max", "mean", "median"]


def keep_smallest(dst, src):
    """A fuser of a user's own."""
    assert dst.ndim == src.ndim == 2
    np.copyto(dst, src, where=(src > 0) & ((dst == 0) | (src < dst)))


def one_array(dst):
    """No fuser."""


def expected(stack, method):
    """What numpy makes of sources (source, ...) in float64, NaN without data."""
    if method in ("first", "last"):
        ordered = stack if method == "first" else stack[::-1]
        out = ordered[0].copy()
        for layer in ordered[1:]:
            out = np.where(np.isnan(out), layer, out)
        return out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return getattr(np, f"nan{method}")(stack, axis=0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("fusing"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three Items of one moment that lie across each other."""
    folder = tmp_path_factory.mktemp("three")
    corners = [(400_020.0, 5_099_980.0), (400_220.0, 5_099_800.0), (399_920.0, 5_099_700.0)]
    return [
        encoded(folder, f"t{i}", scene((64, 72), seed=i), pixel_grid((64, 72), *corner), when=NOON)
        for i, corner in enumerate(corners)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_those_of_numpy_and_the_same_with_dask(three, method):
    apart = load(three, ["B02", "red"], groupby="id")
    options = {"fuse_func": method, "geobox": apart.odc.geobox}
    eager = load(three, ["B02", "red"], **options)
    lazy = load(three, ["B02", "red"], chunks={"y": 31, "x": 43}, **options)
    assert eager.sizes["time"] == 1
    assert eager.identical(lazy.compute())
    for name in ("B02", "red"):
        stack = np.where(apart[name].data == 0, np.nan, apart[name].data.astype(float))
        assert (np.isfinite(stack).sum(axis=0) == 3).sum() > 500
        want = expected(stack, method)
        np.testing.assert_array_equal(eager[name].data[0], np.where(np.isnan(want), 0, np.rint(want)))


@pytest.mark.parametrize("chunks", [None, {"y": 40}], ids=["eager", "dask"])
def test_floats_and_resampled_ones_have_nan(three, chunks):
    box = load(three, chunks={}).odc.geobox.zoom_out(1.7)
    options = {"geobox": box, "resampling": "bilinear", "physical": True, "chunks": chunks}
    apart = load(three, ["B03"], groupby="id", **options).compute()
    for method in METHODS:
        got = load(three, ["B03"], fuse_func=method, **options).B03.compute().data[0]
        np.testing.assert_array_equal(got, expected(apart.B03.data.astype(float), method).astype("float32"))
        assert np.isnan(got).any()


def test_bands_may_be_fused_in_their_own_ways(three):
    got = load(three, fuse_func={"B02": "max", "B04": None, "*": "mean"})
    for name, method in (("B02", "max"), ("B03", "mean"), ("B04", "first")):
        np.testing.assert_array_equal(got[name].data, load(three, [name], fuse_func=method)[name].data)


@pytest.mark.parametrize("chunks", [None, {"y": 61, "x": 83}], ids=["eager", "dask"])
def test_a_function_of_ones_own_is_called_as_odc_calls_it(scenes, chunks):
    latents, plain = scenes
    name = f"{__name__}.keep_smallest"
    want = odc.stac.load(plain, bands=["image.1", "image.2"], fuse_func=name, chunks=chunks)
    for fuser in (keep_smallest, name, {"*": keep_smallest}):
        got = load(latents, ["B02", "B03"], fuse_func=fuser, chunks=chunks)
        for band, stock in (("B02", "image.1"), ("B03", "image.2")):
            np.testing.assert_array_equal(got[band].compute().data, want[stock].compute().data)
    assert not np.array_equal(
        want["image.1"].compute().data, odc.stac.load(plain, bands=["image.1"])["image.1"].data
    )


@pytest.mark.parametrize(
    ("fuser", "text"),
    [
        (
            "meen",
            r"fuse_func='meen' is unknown \(did you mean 'mean'\?\); expected one of first, last, min, max, mean",
        ),
        ("no.such", "fuse_func='no.such' cannot be imported .*; expected one of"),
        ("numpy.pi", "fuse_func='numpy.pi' is a float; expected"),
        (
            lambda dst, src: None,
            "is no function at the top of a module, by whose name workers could import it",
        ),
        (one_array, "one_array' does not take two arrays"),
        (7, "fuse_func=7 is none; expected one of"),
    ],
)
def test_fusers_that_are_none(scenes, fuser, text):
    with pytest.raises(CatalogError, match=text):
        load(scenes[0], fuse_func=fuser)


def test_latents_are_not_fused(scenes):
    with pytest.raises(CatalogError, match="fuse_func given with upto='latent'"):
        load(scenes[0], upto="latent", fuse_func="mean")


def test_complex_values_have_no_order(tmp_path):
    rng = np.random.default_rng(3)
    values = (rng.normal(size=(1, 32, 40)) + 1j * rng.normal(size=(1, 32, 40))).astype("complex64")
    codec, grid, items = open_codec("zstd", bands=["B02"]), pixel_grid((32, 40)), []
    for i in range(2):
        write_tiff(tmp_path / f"{i}.tif", values * (i + 1), grid, nodata=None)
        item = stock_item(f"c{i}", tmp_path / f"{i}.tif", grid, bands=[Band("B02", data_type="complex64")])
        items += encode(item, codec, tmp_path / "out")
    with pytest.raises(
        CatalogError,
        match=r"fuse_func='median' ranks values, and band 'B02' is complex64; .*first, last and mean",
    ):
        load(items, fuse_func="median")
    np.testing.assert_allclose(load(items, fuse_func="mean").B02.data, values * 1.5, rtol=1e-6)
    np.testing.assert_array_equal(load(items, fuse_func="last").B02.data, values * 2)


@pytest.mark.parametrize("method", METHODS[1:])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_sources_of_any_place_and_type(method, data):
    dtype, nodata = data.draw(
        st.sampled_from(
            [("uint8", 0), ("int16", -7), ("uint16", None), ("float32", np.nan), ("float32", -9.0)]
        )
    )
    shape = (5, 4)
    whole = np.full((data.draw(st.integers(1, 5)), 2, *shape), np.nan)
    empty = 0 if nodata is None else nodata
    parts = []
    numbers = st.integers(0, 9) if np.dtype(dtype).kind == "u" else st.integers(-9, 9)
    for layer in whole:
        (y0, y1), (x0, x1) = (
            sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape
        )
        pixels = data.draw(
            hnp.arrays(dtype, (2, y1 - y0, x1 - x0), elements=numbers.map(np.dtype(dtype).type))
        )
        parts.append(((slice(y0, y1), slice(x0, x1)), pixels))
        layer[:, y0:y1, x0:x1] = np.where(np.isnan(pixels) | (pixels == empty), np.nan, pixels)
    got = reduced(iter(parts), method, shape, RasterLoadParams(dtype, nodata))
    want = expected(whole, method)
    want = np.where(np.isnan(want), empty, np.rint(want) if np.dtype(dtype).kind in "iu" else want).astype(
        dtype
    )
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)


def test_a_median_sorts_strip_by_strip():
    rng = np.random.default_rng(5)
    parts = [
        ((slice(0, 50), slice(0, 30)), rng.integers(0, 99, (3, 50, 30)).astype("uint16")) for _ in range(4)
    ]
    cfg = RasterLoadParams("uint16", 0)
    whole = reduced(parts, "median", (50, 30), cfg)
    cut = reduced(parts, "median", (50, 30), cfg, strip=4 * 3 * 30 * 8 * 7)
    np.testing.assert_array_equal(cut, whole)


def test_the_name_of_a_function_is_its_own():
    assert fuser_of(keep_smallest, "B02") == f"{__name__}.keep_smallest"
    assert fuser_of({"B02": "mean"}, "B03") == "first"
