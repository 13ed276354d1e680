"""The codec for numcodecs: what its users, Zarr 2 and benchmarks of error bounds ask of a codec."""

from __future__ import annotations

import json
import pickle

import numcodecs
import numpy as np
import pytest
import zarr

from stac_latent.arrays import NumcodecsLatent
from stac_latent.errors import CorruptDataError, FieldError, OptionError


def scene(*shape, dtype="f4"):
    """A smooth field with a little noise."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    noise = np.random.default_rng(0).normal(0, 0.05, shape)
    return (280 + 10 * np.sin(y / 9) * np.cos(x / 11) + noise).astype(dtype)


ARRAYS = [
    np.arange(1000, dtype="i4"),
    np.linspace(1000, 1001, 1000, dtype="f8"),
    scene(100, 10, dtype=">f4"),
    np.asfortranarray(scene(5, 20, 10)),
    np.random.default_rng(0).integers(0, 200, 1000).astype("u1").reshape(10, 10, 10),
    np.random.default_rng(0).integers(-(2**62), 2**62, 300).reshape(3, 100),
    np.array([True, False, True]),
    scene(20, 20).astype("c8"),
]


@pytest.mark.parametrize("x", ARRAYS, ids=[f"{x.dtype}{x.shape}" for x in ARRAYS])
def test_codes_arrays_and_buffers_without_loss(x):
    codec = NumcodecsLatent()
    data = codec.encode(x)
    assert type(data) is bytes
    y = codec.decode(data)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert y.tobytes(order="A") == x.tobytes(order="A")
    for buffer in (bytearray(data), memoryview(data), np.frombuffer(data, "u1")):
        np.testing.assert_array_equal(codec.decode(buffer), x)
    for out in (np.empty_like(x), bytearray(x.nbytes), np.empty(x.nbytes, "u1")):
        filled = codec.decode(data, out=out)
        assert np.asarray(filled).tobytes(order="A") == x.tobytes(order="A")
        assert np.asarray(memoryview(out)).tobytes(order="A") == x.tobytes(order="A")
    assert codec.decode(codec.encode(x.tobytes())).tobytes() == x.tobytes()
    with pytest.raises(CorruptDataError, match="out has 1"):
        codec.decode(data, out=bytearray(1))


@pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="long double is float64 here")
def test_floats_of_more_than_64_bits_are_refused():
    with pytest.raises(
        FieldError, match=r"takes numbers of 8 to 64 bits.*got float.*View or convert the array"
    ):
        NumcodecsLatent().encode(np.zeros((4, 4), "g"))


def test_configuration():
    codec = NumcodecsLatent(error_bound="1%", nodata=-9999, band_axis=-1)
    config = json.loads(json.dumps(codec.get_config()))
    assert config == {
        "id": "stac_latent.pixels",
        "codec": "lin",
        "error_bound": "1%",
        "nodata": -9999,
        "band_axis": -1,
    }
    assert numcodecs.get_codec(config) == codec == pickle.loads(pickle.dumps(codec))  # noqa: S301
    assert repr(codec) == "NumcodecsLatent(codec='lin', error_bound='1%', nodata=-9999, band_axis=-1)"
    with pytest.raises(OptionError, match=r"has no option 'cdec' \(did you mean 'codec'\?\)"):
        numcodecs.get_codec({"id": "stac_latent.pixels", "cdec": "lin"})


@pytest.mark.parametrize("bound", [1e-6, 0.1])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_absolute_and_relative_bounds_of_made_fields(dtype, bound):
    """As benchmarks of climate data ask: smooth, over decades, with holes, constant."""
    smooth = scene(20, 20, dtype=dtype)
    holes = smooth.copy()
    holes[5:9, 3:], holes[0, 0] = np.nan, np.inf
    for x in (smooth, np.exp(smooth - 280), holes, np.full((20, 20), 2.5, dtype), smooth - 280):
        some = np.isfinite(x)
        for given, limit in ((bound, bound), (f"{bound / 2:%}", bound / 2 * np.abs(x[some].astype("f8")))):
            codec = NumcodecsLatent(error_bound=given)
            y = codec.decode(codec.encode(x))
            np.testing.assert_array_equal(x[~some], y[~some])
            assert (np.abs(x[some].astype("f8") - y[some].astype("f8")) <= limit).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", ">f4", ">i2", "u1", "?"])
def test_zarr_2(tmp_path, order, dtype):
    x = scene(20, 30).astype(dtype)
    a = zarr.create_array(
        tmp_path / "a.zarr",
        shape=x.shape,
        chunks=(20, 20),
        dtype=x.dtype,
        order=order,
        zarr_format=2,
        compressors=NumcodecsLatent(error_bound=0.5),
    )
    a[...] = x
    again = zarr.open_array(tmp_path / "a.zarr", mode="r")
    assert np.abs(again[...].astype("f8") - x.astype("f8")).max() <= 0.5
    assert json.loads((tmp_path / "a.zarr/.zarray").read_text())["compressor"] == {
        "id": "stac_latent.pixels",
        "codec": "lin",
        "error_bound": 0.5,
    }
