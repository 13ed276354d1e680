"""Every codec of the registry obeys the laws of a codec; chains, levels and errors."""

from __future__ import annotations

import numpy as np
import pytest
from core_support import BANDS, small_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent import open_codec
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import codec_names
from stac_latent.codec.shipped import dct, embed_patch, fit, jpeg2000, lin, zstd
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.validity import fill_invalid, zero_invalid
from stac_latent.spec import Band
from stac_latent.stages.transform.integer_wavelet import Wavelet
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.stages.transform.quantise import Uniform
from stac_latent.system.digests import canonical_json
from stac_latent.testing import CodecConformance, make_field


class TestS2L2a12b(CodecConformance):
    name = "s2-l2a-12b"

    def make(self):
        return open_codec(self.name)


class TestS210m4b(TestS2L2a12b):
    name = "s2-10m-4b"


class TestS210mEmbed(TestS2L2a12b):
    name = "s2-10m-embed"


class TestS1GrdDb(TestS2L2a12b):
    name = "s1-grd-db"
    reach = (-90.0, 40.0)


class TestLandsatC2L26b(TestS2L2a12b):
    name = "landsat-c2l2-6b"


class TestEra5Surface(TestS2L2a12b):
    name = "era5-surface"
    reach = (180.0, 340.0)


class TestLin(CodecConformance):
    name = "lin"
    max_error = 0.5  # latents are exact; bytes lose something

    def make(self):
        return open_codec("lin", bands=list(BANDS), step=16.0)


class TestLinFloat(CodecConformance):
    max_error = 0.02

    def make(self):
        bands = [Band("t2m", "float32", unit="K"), Band("sst", "float32", nodata=-999.0, unit="K")]
        return open_codec("lin", bands=bands, step=8.0, mean=1300.0, unit=0.1)


class TestDct(CodecConformance):
    name = "dct"
    max_error = 120.0

    def make(self):
        return open_codec(self.name, bands=BANDS, step=16.0)


class TestWavelet(TestDct):
    name = "wavelet"


class TestWavelet1(TestDct):
    name = "wavelet"

    def make(self):
        return open_codec("wavelet", bands=BANDS, levels=1)


class TestWaveletFloat(TestDct):
    name = "wavelet"
    max_error = 1.5

    def make(self):
        bands = [Band("t2m", "float32", unit="K"), Band("sst", "float32", nodata=-999.0, unit="K")]
        return open_codec("wavelet", bands=bands, step=8.0, mean=1300.0, unit=0.05, levels=2)


class TestFitted(CodecConformance):
    name = "fitted"
    max_error = 160.0

    def make(self):
        return small_codec("fitted")


class TestZstd(TestDct):
    name = "zstd"
    max_error = 0
    dtype = "uint16"

    def make(self):
        return open_codec("zstd", bands=[Band("a", self.dtype, nodata=0), Band("b", self.dtype, nodata=0)])


class TestZstdInt16(TestZstd):
    dtype = "int16"


class TestZstdUint8(TestZstd):
    dtype = "uint8"


class TestZstdFloat32(TestZstd):
    def make(self):
        return open_codec("zstd", bands=[Band("a", "float32"), Band("b", "float32")])


class TestZstdFloat64(TestZstd):
    def make(self):
        return open_codec("zstd", bands=[Band("a", "float64", nodata=-9999.0)])


class TestJpeg2000(TestDct):
    name = "jpeg2000"
    max_error = None

    def make(self):
        return open_codec("jpeg2000", bands=BANDS, quality=30)


class TestJpeg2000Lossless(TestZstd):
    name = "jpeg2000"

    def make(self):
        return open_codec("jpeg2000", bands=[Band("a", "int16", nodata=-9999)], quality=100, reversible=True)


def test_every_registered_codec_has_its_suite():
    suites = [c for c in globals().values() if isinstance(c, type) and issubclass(c, CodecConformance)]
    assert {c.name for c in suites if hasattr(c, "name")} >= set(codec_names())


# -- the chain -------------------------------------------------------------------------------------------------------


def test_levels_must_not_go_back():
    with pytest.raises(
        CodecError, match=r"levels of its stages are \['symbols', 'latent'\]; a chain goes from field"
    ):
        Codec("bad", (Uniform([1]), Normalise([0.0], [1.0])), (Band("a"),))
    with pytest.raises(CodecError, match="'empty' needs at least one stage and one band"):
        Codec("empty", (), (Band("a"),))


def test_nodata_must_fit_the_type():
    with pytest.raises(
        CodecError, match=r"band 'a' of codec 'zstd' is uint16, which cannot hold nodata -9999"
    ):
        zstd([Band("a", "uint16", nodata=-9999)])


def test_stride_halo_and_overlap_compose():
    bands = (Band("a"),)
    twice = Codec(
        "twice", (Normalise([0.0], [1.0]), Wavelet(1), Wavelet(2), Uniform([16])), bands, dimensions=64
    )
    assert twice.stride == (8, 8)
    assert twice.halo == (5, 5)  # 4 cells of the first are one of the second, and its own 4
    assert twice.overlap == (32, 32)  # 4 pixels, and 12 of 2: in whole cells
    x = make_field(bands, (96, 120))
    symbols = twice.encode(x, upto="symbols")
    whole = twice.decode(symbols)
    np.testing.assert_array_equal(twice.decode(symbols, window=((41, 55), (40, 81))), whole[:, 41:55, 40:81])
    part = twice.encode(x[:, 8:88, 16:96], upto="symbols")[:, 4:6, 4:6]
    np.testing.assert_array_equal(part, symbols[:, 5:7, 6:8])


def test_equal_chains_share_a_space_and_others_do_not():
    assert dct(BANDS).space == dct(BANDS).space
    spaces = {
        c.space
        for c in (dct(BANDS), dct(BANDS, step=63.0), dct(BANDS, mean=1.0), dct(BANDS[:1]), zstd(BANDS))
    }
    assert len(spaces) == 5
    assert all(s.startswith("sha256:") and len(s) == 71 for s in spaces)


def test_the_digest_is_that_of_canonical_json():
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_what_does_not_fit_is_refused():
    codec = dct(BANDS)
    with pytest.raises(FieldError, match=r"takes uint16; got float32. Scale the field to the codec's unit"):
        codec.encode(np.zeros((2, 8, 8), np.float32))
    with pytest.raises(FieldError, match=r"2 bands \(red, nir\); got shape \(3, 8, 8\)"):
        codec.encode(np.zeros((3, 8, 8), np.uint16))
    with pytest.raises(FieldError, match=r"window .* is not inside the 16 pixels of this axis"):
        codec.decode(np.zeros((128, 2, 2), np.int16), window=((0, 17), (0, 4)))
    plain = Codec("plain", codec.stages[:-1], BANDS, dimensions=128)
    with pytest.raises(CodecError, match="has no entropy coder; the furthest level is 'symbols'"):
        plain.encode(np.zeros((2, 8, 8), np.uint16))
    with pytest.raises(CodecError, match="cannot read a bitstream"):
        plain.decode(b"abc")


def test_pixel_coders_clip_to_the_band_instead_of_wrapping():
    """A shift of -1000 leaves negative values in an int32 field: they must not come back as 65,000."""
    codec = zstd([Band("a", "uint16", nodata=0)])
    x = np.array([[[-100, 0, 5, 70000]]], np.int32)
    assert codec.encode(x, upto="symbols").tolist() == [[[1, 1, 5, 65535]]]
    assert codec.decompress(codec.compress(x)).tolist() == [[[1, 0, 5, 65535]]]  # 0 is its nodata


def test_masked_nan_may_be_encoded():
    codec = open_codec("wavelet", bands=[Band("t", "float32")], levels=1)
    x = make_field(codec.bands, (8, 8))
    mask = np.ones((1, 8, 8), bool)
    mask[0, 2, 3] = False
    x[0, 2, 3] = np.nan
    assert codec.encode(x, mask=mask, upto="symbols").shape == (4, 4, 4)
    with pytest.raises(FieldError, match="NaN or infinite values outside its mask"):
        codec.encode(x, upto="symbols")


def test_valid_pixels_are_not_decoded_to_nodata():
    codec = dct([Band("a", "uint16", nodata=0)], step=500.0)
    x = make_field(codec.bands, (64, 64), kind="noise") % 90 + 1
    assert codec.decompress(codec.compress(x)).min() >= 1


@pytest.mark.parametrize("steps", [[16], None])
def test_compiled_synthesis_equals_the_stages(steps, monkeypatch):
    """One loop over the whole chain, where numba is installed, gives the stages' pixels to the last bit."""
    base = small_codec("fitted")
    if steps is None:
        steps = np.random.default_rng(0).integers(3, 900, base.dimensions).tolist()
    stages = tuple(Uniform(steps, 6) if isinstance(s, Uniform) else s for s in base.stages)
    fast, plain = (Codec("x", stages, BANDS, dimensions=base.dimensions) for _ in range(2))
    monkeypatch.setitem(plain.__dict__, "_fused", None)
    for seed in range(3):
        symbols = (
            np.random.default_rng(seed).laplace(0, 9 * seed + 0.2, (base.dimensions, 9, 11)).astype(np.int16)
        )
        np.testing.assert_array_equal(fast.decode(symbols), plain.decode(symbols))
        at = ((3, 20), (5, 41))
        np.testing.assert_array_equal(fast.decode(symbols, window=at), plain.decode(symbols)[:, 3:20, 5:41])


# -- masks -----------------------------------------------------------------------------------------------------------


def test_fill_is_the_mean_of_the_cell():
    x = np.arange(16.0).reshape(1, 4, 4)
    mask = x % 5 != 0
    out = fill_invalid(x, mask, (2, 2))
    assert (out[mask] == x[mask]).all()
    assert out[0, 0, 0] == np.rint((1 + 4) / 2)
    assert (fill_invalid(x, np.zeros((1, 4, 4), bool), (2, 2)) == 0).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.integers(0, 5), st.integers(0, 5))
def test_fill_does_not_depend_on_the_window(seed, row, col):
    rng = np.random.default_rng(seed)
    x, mask = rng.integers(0, 9999, (2, 48, 48)), rng.random((2, 48, 48)) < 0.4
    whole = fill_invalid(x, mask, (8, 8))
    y0, x0 = row * 8, col * 8
    np.testing.assert_array_equal(fill_invalid(x[:, y0:, x0:], mask[:, y0:, x0:], (8, 8)), whole[:, y0:, x0:])


def test_zero_invalid_touches_masked_floats_only():
    x = np.array([[[np.nan, 1.0, np.inf, np.nan]]])
    mask = np.array([[[False, False, False, True]]])
    out = zero_invalid(x, mask)
    assert out[0, 0, :3].tolist() == [0, 1, 0]
    assert np.isnan(out[0, 0, 3])
    ints = np.ones((1, 2, 2), np.int16)
    assert zero_invalid(ints, np.zeros((1, 2, 2), bool)) is ints


# -- rate and distortion -----------------------------------------------------------------------------------------------


def test_a_larger_step_is_smaller_and_worse():
    x = make_field(BANDS, (96, 104), 3)
    codec = lin(BANDS, mean=1000)
    sizes, errors = [], []
    for step in (8.0, 24.0, 96.0):
        data = codec.compress(x, step=step)
        sizes.append(len(data))
        errors.append(float(np.square(codec.decompress(data).astype(float) - x)[x > 0].mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_the_fitted_chain_beats_jpeg2000_of_the_same_size():
    """The reason to exist of a spectral transform: real bands are correlated."""
    bands = [Band(n, "uint16", nodata=0, scale=1e-4) for n in ("a", "b", "c", "d")]
    rng = np.random.default_rng(0)
    shade = make_field(bands[:1], (128, 128), 5).astype(float) + rng.normal(0, 80, (1, 128, 128))
    x = np.clip(
        shade * np.array([1.0, 0.8, 1.3, 0.6])[:, None, None] + rng.normal(0, 8, (4, 128, 128)), 1, 9999
    ).astype(np.uint16)
    ours = fit("four", [x[:, :, :64]], bands, step=64.0)
    data = ours.compress(x)
    theirs = jpeg2000(bands, quality=100 * len(data) / x.nbytes)
    mse = [
        np.square(c.decompress(d).astype(float) - x).mean()
        for c, d in ((ours, data), (theirs, theirs.compress(x)))
    ]
    assert mse[0] < mse[1]


def test_a_fit_needs_data():
    with pytest.raises(CodecError, match="only 0 valid pixels to fit 2 bands on; at least 20 are needed"):
        fit("none", [np.zeros((2, 16, 16), np.uint16)], BANDS)


def test_the_same_data_give_the_same_fit():
    tiles = [make_field(BANDS, (40, 48), 1)]
    assert fit("a", tiles, BANDS).space == fit("b", tiles, BANDS).space


def test_embedder_features_are_standardised_by_its_stats():
    embed = embed_patch("e", small_codec("fitted"), 8)
    x = make_field(BANDS, (160, 160), 0)
    latent = embed.decode(embed.encode(x, upto="symbols"), upto="latent")
    assert latent.shape == (8, 40, 40)
    z = embed.stats.standardise(latent)
    assert 0.3 < z.std() < 3
    with pytest.raises(CodecError, match="has no statistics; an embedder needs a fitted chain"):
        embed_patch("e", dct(BANDS), 8)
