"""Chunks of arrays as byte strings: what comes back, within what, and what damage does."""

from __future__ import annotations

import math
import struct
import zlib
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from stac_latent.arrays.array_chunk import decode_chunk, encode_chunk
from stac_latent.arrays.chains import Scale, chain_for
from stac_latent.arrays.frames import full
from stac_latent.arrays.layout import Layout
from stac_latent.arrays.settings import Settings
from stac_latent.errors import CodecError, CorruptDataError

TYPES = [
    "?",
    "u1",
    "i1",
    "u2",
    "i2",
    "u4",
    "i4",
    "u8",
    "i8",
    "f2",
    "f4",
    "f8",
    "c8",
    "c16",
    ">f4",
    ">i2",
    ">u8",
]
SHAPES = [
    (),
    (7,),
    (0, 5),
    (200,),
    (30, 30),
    (24, 40),
    (3, 22, 23),
    (6, 20, 20),
    (2, 2, 8, 9),
    (40, 3, 2),
    (1, 1),
]
KINDS = ["walk", "walk", "fine", "far", "bits", "one"]
TARGETS = (
    {},
    {"psnr": 40},
    {"max_error": 0.01},
    {"step": 1.0},
    *({"error_bound": b} for b in (0, 1e-3, 0.5, 1, 2.7, 1000.0, 1e290, 1e-310, "1%", "50%", "0.0001%")),
)
FORMS = SAME, BITS, CODED = range(3)


def form_of(data):
    return data[8]


def values_of(rng, dtype, shape, kind):
    """Values of one kind: a random walk, at some scale, or any bits at all."""
    if kind == "bits" and dtype.kind != "b":
        return np.frombuffer(rng.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape).copy()
    scale = {"walk": 10.0, "fine": 1e-3, "far": 10.0 ** rng.integers(-300, 300), "one": 0.0, "bits": 1.0}[
        kind
    ]
    walk = np.cumsum(rng.normal(size=shape), axis=-1) if shape else rng.normal()
    with np.errstate(all="ignore"):
        return np.asarray(walk * scale + rng.choice([0, 1e3, -5])).astype(dtype)


@st.composite
def arrays(draw):
    """An array of any type and shape, with or without NaN, infinite values and a fill value."""
    dtype, shape = np.dtype(draw(st.sampled_from(TYPES))), draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = values_of(rng, dtype, shape, draw(st.sampled_from(KINDS)))
    if dtype.kind in "fc" and draw(st.booleans()):
        some = np.asarray(rng.random(shape))
        x[some < 0.1], x[some > 0.95], x[some > 0.98] = np.nan, np.inf, -np.inf
    fill = draw(st.sampled_from([None, 0, -9999, 1e20, math.nan, math.inf, -(2**63)]))
    if fill is not None and draw(st.booleans()):
        try:
            with np.errstate(all="ignore"):
                x[np.asarray(rng.random(shape)) < 0.3] = (
                    np.array(fill).astype(dtype) if dtype.kind in "fc" else fill
                )
        except (OverflowError, ValueError):
            fill = 0
    return (np.asfortranarray(x) if draw(st.booleans()) else x), fill


def exact_gap(x, y):
    """Differences as Python's numbers have them, which round nothing of integers."""
    return [abs(a - b) for a, b in zip(x.ravel().tolist(), y.ravel().tolist(), strict=True)]


def check_values(x, y, asked, fill):
    """What comes back is within what was asked, and NaN, infinite values and nodata are where they were."""
    if x.dtype.kind == "f":
        assert (np.isnan(x) == np.isnan(y)).all()
        assert (np.isinf(x) == np.isinf(y)).all()
    if fill is not None and not math.isnan(fill) and x.dtype.kind in "iuf":
        with np.errstate(all="ignore"):
            assert (
                ((x == x.dtype.type(fill)) == (y == x.dtype.type(fill))).all()
                if x.dtype.kind == "f"
                else (((x == fill) == (y == fill)).all())
            )
    good = np.isfinite(x)
    gap, size = exact_gap(x[good], y[good]), [abs(v) for v in x[good].ravel().tolist()]
    bound = asked.get("error_bound", asked.get("max_error", 0 if not asked else math.inf))
    share = float(bound[:-1]) / 100 if isinstance(bound, str) else None
    assert all(g <= (bound if share is None else share * s) for g, s in zip(gap, size, strict=True))


@settings(max_examples=25, deadline=None)
@given(arrays(), st.sampled_from(TARGETS), st.sampled_from(["lin", "lin", "lin", "zstd", "dct"]))
def test_arrays_come_back_within_what_was_asked(array, asked, codec):
    x, fill = array
    if codec != "lin":
        asked = {k: v for k, v in asked.items() if k == "error_bound"}
    how = Settings(codec, **asked)
    chunk = decode_chunk(encode_chunk(x, how, fill), how, x.shape, x.dtype)
    y = chunk.values
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert y.flags.f_contiguous == x.flags.f_contiguous or y.flags.c_contiguous == x.flags.c_contiguous
    if chunk.exact:
        assert y.tobytes() == x.tobytes()
    else:
        assert not how.exact
        check_values(x, y, asked, fill)


def scene(*shape, dtype="f4", seed=0):
    """A smooth field with a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    return (280 + 10 * np.sin(y / 9) * np.cos(x / 11) + rng.normal(0, 0.05, shape)).astype(dtype)


@pytest.mark.parametrize(
    "asked", [{"error_bound": 0.1}, {"error_bound": "0.1%"}, {"psnr": 50}, {"step": 0.5}, {}]
)
def test_a_chunk_holds_what_compress_writes(asked):
    x = scene(5, 40, 50)
    how = Settings(**asked)
    data = encode_chunk(x, how)
    assert form_of(data) == CODED
    y = decode_chunk(data, how).values
    together = 4 if how.bound is not None else 16
    exponent, units = read_scale(data, x.ndim)
    given = asked or {"error_bound": 0}
    for i in range(0, 5, together):
        part = x[i : i + together]
        chain = chain_for("lin", len(part), "float32", None, Scale(exponent, units))
        by_hand = chain.compress(part, **given)
        np.testing.assert_array_equal(chain.decompress(by_hand), y[i : i + together])


def read_scale(data, ndim):
    """Exponent and units of a chunk without nodata whose dimensions take a byte each."""
    at = 8 + 3 + ndim
    flags, axis = data[at : at + 2]
    assert (flags, axis) == (2, 0)
    (exponent,) = struct.unpack_from("<h", data, at + 6)
    units = shift = 0
    for byte in data[at + 8 :]:
        units |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return exponent, -(units >> 1) if units & 1 else units >> 1


def test_framing_costs_what_the_page_says():
    assert len(encode_chunk(np.full((256, 256), 7, "u2"), Settings())) == 17
    assert len(encode_chunk(np.full((4, 256, 256), np.nan, "f4"), Settings(error_bound=1))) == 20
    x = scene(64, 64)
    how = Settings(error_bound=0.1)
    chain = chain_for("lin", 1, "float32", None, Scale(*read_scale(encode_chunk(x, how), 2)))
    assert len(encode_chunk(x, how)) < len(chain.compress(x[None], error_bound=0.1))


def test_nothing_is_lost_without_a_target():
    for dtype in ("u2", "i4", "f4", "f8", "f2"):
        x = scene(50, 60, dtype=dtype)
        assert decode_chunk(encode_chunk(x, Settings()), Settings()).values.tobytes() == x.tobytes()
    odd = scene(50, 60)
    odd.view("u4")[3, 3:5] = 0x7FC00001, 0x80000000  # a NaN with a payload, and minus zero
    assert decode_chunk(encode_chunk(odd, Settings(), 0.0), Settings()).values.tobytes() == odd.tobytes()


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        (1e300 * scene(20, 20, dtype="f8"), 1.0),
        (1e300 * scene(20, 20, dtype="f8"), 1e290),
        (5e-324 * np.arange(400.0).reshape(20, 20), 1e-323),
        (2**62 + np.arange(400, dtype="i8").reshape(20, 20), 3),
        (np.uint64(2**63) + np.arange(400, dtype="u8").reshape(20, 20) ** 3, 3),
        (np.where(np.arange(400).reshape(20, 20) % 2, 1.7e308, -1.7e308), 1e300),
        (scene(20, 20, dtype="f8") + 2.0**40, 1e-4),
        (scene(40, 40, dtype="f4") * np.float32(1e-38), 1e-38),
    ],
)
def test_bounds_hold_where_numbers_are_at_their_ends(values, bound):
    how = Settings(error_bound=bound)
    y = decode_chunk(encode_chunk(values, how), how).values
    assert max(exact_gap(values, y)) <= bound


def test_nodata_and_nan_stay_apart():
    x = scene(30, 40)
    x[:10, :10], x[20:, 5], x[3, 20:30] = 0, np.nan, -np.inf
    how = Settings(error_bound=0.3)
    data = encode_chunk(x, how, 0.0)
    y = decode_chunk(data, how).values
    assert form_of(data) == CODED
    np.testing.assert_array_equal(x == 0, y == 0)
    np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
    np.testing.assert_array_equal(np.isneginf(x), np.isneginf(y))


@pytest.mark.parametrize("fill", [-np.finfo("f8").max, 1e300, 1e36])
def test_nodata_may_be_as_large_as_numbers_are(fill):
    x = scene(60, 60, dtype="f8")
    x[20:40, 10:30], x[5, 5:9] = fill, np.nan
    for rest in (x, np.where(np.isnan(x), 281.0, x)):
        for how in (Settings(error_bound=0.1), Settings(psnr=50)):
            data = encode_chunk(rest, how, fill)
            y = decode_chunk(data, how).values
            assert form_of(data) == CODED
            np.testing.assert_array_equal(rest == fill, y == fill)
            np.testing.assert_array_equal(np.isnan(rest), np.isnan(y))


def test_a_value_does_not_become_nodata():
    x = (np.arange(2500).reshape(50, 50) % 5).astype("i2")
    for how, fill in ((Settings(error_bound=2), 2), (Settings(error_bound=2, nodata=2), 0)):
        y = decode_chunk(encode_chunk(x, how, fill), how).values
        np.testing.assert_array_equal(y == 2, x == 2)


def test_never_larger_than_its_bits():
    noise = np.frombuffer(np.random.default_rng(1).bytes(2**14), "f4").reshape(64, 64)
    assert len(encode_chunk(noise, Settings())) <= noise.nbytes + 20
    assert len(encode_chunk(noise.view("u4"), Settings())) <= noise.nbytes + 20


def test_a_rate_that_cannot_be_kept_is_an_error():
    x = scene(64, 64)
    how = Settings(max_bits_per_pixel=1.5)
    assert 8 * len(encode_chunk(x, how)) <= 1.5 * x.size
    with pytest.raises(CodecError, match=r"no step reaches max_bits_per_pixel=0\.01"):
        encode_chunk(x, Settings(max_bits_per_pixel=0.01))


@pytest.mark.parametrize(
    "values", [scene(20, 20) * np.float32(1e36), np.arange(400).reshape(20, 20) ** 3 << 34]
)
def test_a_rate_is_no_less_an_error_where_only_bits_would_do(values):
    with pytest.raises(CodecError, match=r"can only be kept bit for bit, .* more than max_bits_per_pixel=2:"):
        encode_chunk(values, Settings(max_bits_per_pixel=2))


@pytest.mark.parametrize("asked", [{"psnr": 30}, {"step": 1e30}, {"max_bits_per_pixel": 40}])
def test_a_value_does_not_become_infinite(asked):
    largest = np.finfo("f4").max
    x = np.random.default_rng(0).choice(np.array([-largest, largest, largest / 2]), (30, 30))
    assert np.isfinite(decode_chunk(encode_chunk(x, Settings(**asked)), Settings(**asked)).values).all()


def test_shares_of_subnormal_numbers_are_kept_to_the_last_bit():
    x = 5e-320 * np.cumsum(np.random.default_rng(0).normal(size=(40, 40)), -1)
    how = Settings(error_bound="1%")
    y = decode_chunk(encode_chunk(x, how), how).values
    assert all(
        100 * Fraction(gap) <= abs(Fraction(v)) for gap, v in zip(exact_gap(x, y), x.ravel(), strict=True)
    )


def test_layouts():
    assert Layout((365, 4, 4)).field == (1, 365, 16)
    assert Layout((2, 3, 64, 64)).field == (6, 64, 64)
    assert Layout((3, 2, 64, 65), 0).field == (6, 64, 65)
    for shape, axis in (((3, 2, 17, 18), 0), ((17, 18, 4), -1), ((2, 17, 18, 4), 3), ((17, 4, 18), 1)):
        x = np.arange(math.prod(shape)).reshape(shape)
        layout = Layout(shape, axis)
        np.testing.assert_array_equal(layout.from_field(layout.to_field(x)), x)
        np.testing.assert_array_equal(
            layout.to_field(x)[0, 0, 1] - x.flat[0], x.strides[-1 if axis not in (-1, 3) else -2] // 8
        )


def test_bands_of_the_last_axis_are_coded_together():
    x = np.moveaxis(scene(1, 32, 32) + np.arange(4, dtype="f4").reshape(4, 1, 1), 0, -1)
    together, apart = Settings(error_bound=0.05, band_axis=-1), Settings(error_bound=0.05)
    data = encode_chunk(x, together)
    assert len(data) < 0.7 * len(encode_chunk(x, apart))
    assert np.abs(decode_chunk(data, together).values - x).max() <= 0.05
    np.testing.assert_array_equal(decode_chunk(data, apart).values, decode_chunk(data, together).values)


def test_codecs_with_bands_of_their_own():
    x = scene(2, 4, 32, 32) ** 2
    x = (x / 20 + np.random.default_rng(0).normal(0, 9, x.shape)).astype("u2")
    x[0, 0, :5] = 0
    how = Settings("s2-10m-4b", error_bound=2)
    data = encode_chunk(x, how, 0)
    y = decode_chunk(data, how).values
    assert form_of(data) == CODED
    assert np.abs(x.astype(int) - y).max() <= 2
    np.testing.assert_array_equal(x == 0, y == 0)
    with pytest.raises(CorruptDataError, match=r"written by another codec, or another version of it"):
        decode_chunk(data, Settings("lin"))


# -- damage ------------------------------------------------------------------------------------------------------


def payloads():
    x = scene(2, 30, 40)
    x[0, :5] = np.nan
    yield encode_chunk(np.full((9, 9), 3.0), Settings())
    yield encode_chunk(np.random.default_rng(0).normal(size=(20, 20)), Settings())
    yield encode_chunk(x, Settings(error_bound=0.2), 0)
    yield encode_chunk(x, Settings(psnr=40), 0)


@pytest.mark.parametrize("data", list(payloads()), ids=["same", "bits", "bound", "psnr"])
def test_every_damage_is_one_clear_error(data):
    rng = np.random.default_rng(len(data))
    for cut in {0, 1, 4, 7, 8, 11, len(data) // 2, len(data) - 1}:
        with pytest.raises(CorruptDataError, match=r"truncated|did not write it"):
            decode_chunk(data[:cut], Settings())
    for at in rng.integers(4, len(data), 40):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.integers(8)
        with pytest.raises(CorruptDataError, match="checksum"):
            decode_chunk(bytes(changed), Settings())
    with pytest.raises(CorruptDataError, match="did not write it"):
        decode_chunk(zlib.compress(data), Settings())


@pytest.mark.parametrize("data", list(payloads()), ids=["same", "bits", "bound", "psnr"])
def test_damage_under_a_right_checksum_is_found_or_decodes(data):
    rng = np.random.default_rng(len(data))
    found = 0
    for _ in range(60):
        changed = bytearray(data[8:])
        for at in rng.integers(0, min(len(changed), rng.choice([12, 60, 10**6])), rng.integers(1, 3)):
            changed[at] = rng.integers(256)
        forged = data[:4] + struct.pack("<I", zlib.crc32(changed)) + bytes(changed)
        try:
            decode_chunk(forged, Settings())
        except CorruptDataError:
            found += 1
    assert found


def test_a_header_that_claims_too_much_allocates_nothing():
    rest = bytes([SAME, 8, 2]) + b"\x80\x80\x80\x80\x80\x01" * 2 + b"\0" * 4
    forged = b"SLA1" + struct.pack("<I", zlib.crc32(rest)) + rest
    with pytest.raises(CorruptDataError, match="STAC_LATENT_MAX_BYTES"):
        decode_chunk(forged, Settings())
    with pytest.raises(CorruptDataError, match=r"the array has chunks of \(4, 4\)"):
        decode_chunk(forged, Settings(), (4, 4))


def test_another_array_s_chunk():
    data = encode_chunk(scene(20, 30), Settings())
    with pytest.raises(
        CorruptDataError, match=r"holds \(20, 30\) values; the array has chunks of \(30, 20\)"
    ):
        decode_chunk(data, Settings(), (30, 20))
    with pytest.raises(CorruptDataError, match=r"values of float32; the array is of int32"):
        decode_chunk(data, Settings(), (20, 30), np.dtype("i4"))


def test_thin_byte_strings_of_other_forms():
    with pytest.raises(CorruptDataError, match="form 9"):
        full(b"\x09", "sha256:" + "0" * 64, (1, 2, 2))
