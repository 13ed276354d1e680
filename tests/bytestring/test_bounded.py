"""Byte strings within an error bound: any chain, any type, every pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from core_support import BANDS, small_codec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_residual import FIELDS, TYPES, field_of

from stac_latent import open_codec
from stac_latent.bytestring.bounded import base_step, codable
from stac_latent.bytestring.framing import BOUNDED
from stac_latent.errors import CodecError, CorruptDataError, FieldError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.spec import Band
from stac_latent.testing import make_field


def all_valid(x: np.ndarray) -> np.ndarray:
    return np.ones((1, *x.shape[1:]), bool)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    dtype=st.sampled_from(TYPES),
    kind=st.sampled_from(FIELDS),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    bound=st.sampled_from([0, 2, 100, 0.01, 1e36, "0.1%", "10%"]),
    codec=st.sampled_from(["lin", "lin", "zstd", "dct"]),
    spoiled=st.sampled_from([None, math.nan, math.inf, -math.inf]),
    seed=st.integers(0, 2**31),
)
def test_every_pixel_of_any_field_is_within_its_bound(dtype, kind, shape, bound, codec, spoiled, seed):
    rng = np.random.default_rng(seed)
    bands = [Band(f"b{i}", dtype) for i in range(shape[0])]
    x = field_of(kind, dtype, shape, rng)
    if spoiled is not None and x.dtype.kind == "f":
        x[rng.random(shape) < 0.1] = spoiled
    chain = open_codec(codec, bands=bands)
    y = chain.decompress(chain.compress(x, error_bound=bound))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    whole = ~np.isnan(x) if x.dtype.kind == "f" else np.ones(x.shape, bool)
    assert ErrorBound.of(bound, bands).broken(x, y, whole, bands) is None
    if x.dtype.kind == "f":
        assert np.array_equal(np.isnan(x), np.isnan(y))
        assert np.array_equal(np.isinf(x), np.isinf(y))


@pytest.mark.parametrize("name", ["dct", "wavelet", "zstd", "jpeg2000", "fitted"])
@pytest.mark.parametrize("bound", [0, 3, "2%"])
def test_any_chain_takes_a_bound(name, bound):
    codec = small_codec(name)
    x = make_field(BANDS, (70, 301), 4)
    valid = (x != 0).all(axis=0, keepdims=True)
    x[:, ~valid[0]] = 0
    y = codec.decompress(codec.compress(x, error_bound=bound))
    assert ErrorBound.of(bound, BANDS).broken(x, y, x != 0, BANDS) is None
    assert np.array_equal(x == 0, y == 0)


def test_the_codecs_own_part_stands_alone_and_is_of_its_space():
    codec = open_codec("lin", bands=list(BANDS))
    x = make_field(BANDS, (64, 64), 1)
    data = codec.compress(x, error_bound=1, step=32)
    alone = codec.compress(x, step=32)
    assert data[:4] == BOUNDED
    assert alone in data
    assert codec.decompress(alone).shape == x.shape


def test_bands_have_bounds_of_their_own_and_a_target_rules_the_base():
    codec = open_codec("lin", bands=list(BANDS))
    x = make_field(BANDS, (100, 90), 2)
    data = codec.compress(x, error_bound={"red": 0, "nir": 20}, psnr=45)
    y = codec.decompress(data)
    assert np.array_equal(x[0], y[0])
    assert 0 < np.abs(x[1].astype(int) - y[1]).max() <= 20


def test_native_grids_are_bounded_each():
    bands = [Band("B02", nodata=0, gsd=10), Band("B05", nodata=0, gsd=20)]
    codec = open_codec("lin", bands=bands)
    fields = [make_field(bands[:1], (96, 80), 1), make_field(bands[1:], (48, 40), 2)]
    back = codec.decompress(codec.compress(fields, error_bound={"B02": 5, "B05": "1%"}))
    assert np.abs(fields[0].astype(int) - back[0]).max() <= 5
    assert (np.abs(fields[1].astype(int) - back[1]) <= 0.01 * fields[1]).all()


def test_a_wide_bound_makes_the_base_coarser_and_a_narrow_one_leaves_it():
    codec = open_codec("s2-10m-4b")
    narrow, wide = (base_step(codec, ErrorBound.of(e, codec.bands), [1000.0] * 4) for e in (0, 100))
    assert narrow is None
    assert wide == pytest.approx(8 * 201)
    assert base_step(small_codec("dct"), ErrorBound.of(100, BANDS), [1.0, 1.0]) is None


def test_what_the_chain_cannot_take_is_left_to_the_residual():
    bands = [Band("a", "float32")]
    codec = open_codec("lin", bands=bands)
    x = np.zeros((1, 16, 16), np.float32)
    x[0, 0, :3] = [1e38, np.inf, np.nan]
    assert codable(x, None, codec)[0, 0, :4].tolist() == [False, False, False, True]
    y = codec.decompress(codec.compress(x, error_bound=0))
    assert x.tobytes() == y.tobytes()


def test_errors_say_what_to_do():
    codec = open_codec("lin", bands=["a"])
    x = np.ones((1, 9, 9), np.uint16)
    with pytest.raises(CodecError, match="a share below 100% such as '1%'"):
        codec.compress(x, error_bound="150%")
    with pytest.raises(FieldError, match="codes 1 bands"):
        codec.compress(np.ones((2, 9, 9), np.uint16), error_bound=1)
    with pytest.raises(FieldError, match="which its stored type uint16 cannot within"):
        codec.compress(x.astype(np.int32) - 40, error_bound=1)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_refused(data):
    codec = open_codec("lin", bands=["a"])
    x = np.arange(900, dtype=np.uint16).reshape(1, 30, 30)
    good = codec.compress(x, error_bound=1)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptDataError):
        codec.decompress(bytes(bad))
    with pytest.raises(CorruptDataError):
        codec.decompress(good[:at])
