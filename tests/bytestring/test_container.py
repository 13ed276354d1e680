"""compress() and decompress(): any field in, the same field out, and damage noticed."""

from __future__ import annotations

import numpy as np
import pytest
from core_support import BANDS, small_codec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stac_latent import open_codec
from stac_latent.bytestring.framing import ONE_GRID, frame, unframe
from stac_latent.codec.shipped import dct, jpeg2000, wavelet, zstd
from stac_latent.errors import CorruptDataError, FieldError
from stac_latent.field.validity import apply_nodata, valid_mask
from stac_latent.spec import Band
from stac_latent.testing import damaged, make_field

SHAPES = [(1, 1), (1, 57), (57, 1), (7, 8), (8, 8), (9, 17), (64, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["dct", "wavelet", "zstd", "jpeg2000", "fitted"])
def test_any_shape(name, shape):
    codec = small_codec(name)
    x = make_field(BANDS, shape, 3)
    back = codec.decompress(codec.compress(x))
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(back == 0, x == 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "band",
    [
        Band("a", "float32"), Band("a", "float32", nodata=float("nan")), Band("a", "float64", nodata=-9999.0),
        Band("a", "int16", nodata=-32768), Band("a", "int16"), Band("a", "uint8", nodata=255), Band("a", "int32"),
        Band("a", "uint16", nodata=65535),
    ],
)  # fmt: skip
def test_lossless_of_any_type(band, shape):
    codec = zstd([band, Band("b", band.data_type, nodata=band.nodata)])
    for kind in ("scene", "noise", "extremes", "empty"):
        x = make_field(codec.bands, shape, 5, kind)
        if x.dtype.kind == "f":
            x[0, 0, 0] = np.nan if band.nodata is None else band.nodata
        np.testing.assert_array_equal(codec.decompress(codec.compress(x)), x)


@pytest.mark.parametrize("make", [dct, wavelet, jpeg2000])
def test_no_pixel_is_valid(make):
    codec = make(BANDS)
    x = np.zeros((2, 30, 21), np.uint16)
    data = codec.compress(x)
    np.testing.assert_array_equal(codec.decompress(data), x)
    assert len(data) < 700


def test_negative_values():
    codec = wavelet([Band("dem", "int16", nodata=-32768)], step=2.0)
    x = make_field(codec.bands, (40, 33), 1).astype(np.int32) - 4000
    x = np.where(make_field(codec.bands, (40, 33), 1) == -32768, -32768, x).astype(np.int16)
    back = codec.decompress(codec.compress(x))
    np.testing.assert_array_equal(back == -32768, x == -32768)
    assert np.abs(back.astype(int) - x).max() <= 12


def test_full_range_of_uint16():
    codec = dct([Band("a", "uint16")], step=64.0)
    x = np.tile(np.array([0, 65535], np.uint16), (1, 24, 12))
    back = codec.decompress(codec.compress(x)).astype(int)
    assert np.abs(back - x).max() < 300  # clipped to the type, never wrapped


def test_nan_in_one_band_only():
    codec = wavelet([Band("a", "float32"), Band("b", "float32")], step=8.0, levels=2)
    x = make_field(codec.bands, (21, 30), 2)
    x[1, 3:9, 4:20] = np.nan
    back = codec.decompress(codec.compress(x))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(x))
    assert np.nanmax(np.abs(back - x)) < 40


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.floats(0, 1))
def test_any_mask(h, w, seed, share):
    codec = small_codec("dct")
    x = make_field(BANDS, (h, w), seed, "constant")
    rng = np.random.default_rng(seed)
    x[:, rng.random((h, w)) < share] = 0
    x[1, rng.random((h, w)) < share / 2] = 0
    back = codec.decompress(codec.compress(x))
    np.testing.assert_array_equal(back == 0, x == 0)


def test_masks_of_a_field():
    x = np.array([[[0, 1, 2]], [[0, 1, 0]]], np.uint16)
    codec = zstd([Band("a", nodata=0), Band("b", nodata=0)])
    assert valid_mask(x, codec.bands).tolist() == [[[False, True, True]], [[False, True, False]]]
    assert valid_mask(x[:, :, :2], codec.bands).tolist() == [[[False, True]]]
    assert valid_mask(x[:, :, 1:2], codec.bands) is None
    assert apply_nodata(np.ones((2, 1, 3), np.uint16), valid_mask(x, codec.bands), codec.bands).tolist() == [
        [[0, 1, 1]],
        [[0, 1, 0]],
    ]


# -- damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dct", "zstd", "jpeg2000"])
def test_every_damage_is_noticed(name):
    codec = small_codec(name)
    data = codec.compress(make_field(BANDS, (19, 23), 1))
    for bad in damaged(data, 3, 200):
        with pytest.raises(CorruptDataError):
            codec.decompress(bad)


@settings(deadline=None, max_examples=100)
@example(b"SLC1")
@given(st.binary(max_size=300).filter(lambda data: data[:4] != b"SLN1"))
def test_garbage(data):
    with pytest.raises(CorruptDataError, match=r"not b'SLC1'|checksum|header"):
        small_codec("dct").decompress(data)
    with pytest.raises(CorruptDataError, match=r"checksum|header"):
        small_codec("dct").decompress(b"SLC1" + data + bytes(8))


def forged(codec, data, **changes):
    """The same bytes with another header and a right checksum: what an attacker can write."""
    head, body = unframe(data, ONE_GRID, "")
    return frame(ONE_GRID, head | changes, body)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shape": [2, 10**6, 10**6]}, "which cannot be"),
        ({"shape": [3, 19, 23]}, "which cannot be"),
        ({"shape": [2, 0, 23]}, "which cannot be"),
        ({"shape": [2, 2**70, 23]}, "a number of more than 64 bits"),
        ({"shape": [2, 19, 230]}, "the mask inflates to|was declared"),
        ({"mask": [1, 10**9]}, "the mask inflates to|inflate|truncated"),
        ({"mask": [1, 0]}, "the mask inflates to 0 bytes"),
        ({"mask": [7, 4]}, "which cannot be"),
        ({"shape": []}, "which cannot be|inflate"),
        ({"shape": [], "mask": []}, "the header declares|which cannot be|inflate"),
    ],
)
def test_forged_headers(changes, text):
    codec = small_codec("dct")
    data = codec.compress(make_field(BANDS, (19, 23), 1))
    with pytest.raises(CorruptDataError, match=text):
        codec.decompress(forged(codec, data, **changes))


def test_forged_mask_does_not_inflate():
    codec = small_codec("dct")
    x = make_field(BANDS, (19, 23), 1)
    head, body = unframe(codec.compress(x), ONE_GRID, "")
    bad = frame(ONE_GRID, head, b"\xff\xff\xff\xff" + body[4:])
    with pytest.raises(CorruptDataError, match="the mask does not inflate"):
        codec.decompress(bad)


def test_another_space():
    data = small_codec("dct").compress(make_field(BANDS, (9, 9)))
    with pytest.raises(CorruptDataError, match=r"codec .zstd. is sha256:.*open the codec of that space"):
        small_codec("zstd").decompress(data)


# -- what is refused -----------------------------------------------------------------------------------------------------


def test_refused():
    codec = open_codec("s2-10m-4b")
    with pytest.raises(FieldError, match=r"at least one pixel; got shape \(4, 0, 5\)"):
        codec.compress(np.zeros((4, 0, 5), np.uint16))
    with pytest.raises(FieldError, match=r"codes 4 bands \(B02, B03, B04, B08\); got shape \(3, 8, 8\)"):
        codec.compress(np.zeros((3, 8, 8), np.uint16))
    with pytest.raises(FieldError, match=r"got float64\. Scale the field"):
        codec.compress(np.zeros((4, 8, 8)))
