"""Rate control: what was asked for is reached on decoded values and counted bytes, and not at more cost than needed."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lin_support import LAW

from stac_latent import open_codec
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.rate_target import Target
from stac_latent.spec import Band
from stac_latent.stages.lin.rate_control import Reached, measure, search
from stac_latent.testing import make_field

BANDS = [Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4)]
FLOATS = [Band("t2m", "float32"), Band("sst", "float32", nodata=-999.0)]


def lin(bands=BANDS, **options):
    return open_codec("lin", bands=bands, **options)


def psnr(field, back, peak=1e4, valid=None):
    valid = field != 0 if valid is None else valid
    mse = np.square(field.astype(np.float64) - back)[valid].mean()
    return 200.0 if mse == 0 else 10 * math.log10(peak**2 / mse)


def tried(codec, field, **target):
    data = codec.compress(field, **target)
    return data, codec.decompress(data)


# a mask, padding on both sides, one tile; several tiles, one of them narrow
SCENES = {"small": make_field(BANDS, (61, 90), 3), "tiles": make_field(BANDS, (270, 130), 4)}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("goal", [36.0, 45.0, 70.0, 90.0])
def test_psnr_is_reached(scene, goal):
    field = SCENES[scene]
    _, back = tried(lin(), field, psnr=goal)
    got = psnr(field, back)
    assert goal - 0.02 <= got <= goal + 0.6


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("goal", [0.6, 2.5])
def test_the_rate_is_never_exceeded(scene, goal):
    field = SCENES[scene]
    data, back = tried(lin(), field, max_bits_per_pixel=goal)
    rate = 8 * len(data) / field.size
    assert 0.96 * goal <= rate <= goal
    assert psnr(field, back) > 40


@settings(LAW, max_examples=12)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(("scene", "noise", "sparse", "extremes")),
    bound=st.sampled_from((0, 0.5, 1, 2.7, 40)),
)
def test_no_integer_is_further_off(shape, seed, kind, bound):
    field = make_field(BANDS, shape, seed, kind)
    _, back = tried(lin(), field, max_error=bound)
    assert np.abs(field.astype(int) - back).max() <= bound


@settings(LAW, max_examples=12)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(("scene", "noise", "sparse", "extremes")),
    bound=st.sampled_from((0.1, 1, 50)),
)
def test_no_float_is_further_off(shape, seed, kind, bound):
    field = make_field(FLOATS, shape, seed, kind)
    _, back = tried(lin(FLOATS, unit=0.1), field, max_error=bound)
    assert np.abs(field.astype(np.float64) - back)[field != -999].max(initial=0) <= bound


def test_errors_are_spent():
    """A bound is not only kept: bytes fall with it, and the error comes near."""
    field = SCENES["small"]
    sizes = []
    for bound in (0, 3, 20, 200):
        data, back = tried(lin(), field, max_error=bound)
        sizes.append(len(data))
        assert np.abs(field.astype(int) - back).max() >= 0.7 * bound
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_quality_is_monotone():
    field = SCENES["small"]
    tries = [tried(lin(), field, quality=q) for q in (0, 20, 50, 80, 100)]
    sizes, quality = [len(d) for d, _ in tries], [psnr(field, b) for _, b in tries]
    assert sizes == sorted(sizes)
    assert quality == sorted(quality)
    assert tries[2][0] == lin().compress(field), "50 is the codec's own step"
    half = lin(step=32.0).compress(field)
    assert abs(len(tried(lin(), field, quality=60)[0]) - len(half)) < 8, "10 more make it half as large"


@pytest.mark.parametrize("unit", [1.0, 4.0])
def test_a_step_is_in_stored_units(unit):
    field = SCENES["small"]
    data, back = tried(lin(unit=unit), field, step=24.0)
    start = data.index(b"SL\x01")
    assert struct.unpack_from("<f", data, start + 12)[0] == 24.0 / unit
    assert abs(psnr(field, back) - psnr(field, tried(lin(), field, step=24.0)[1])) < 0.5


def test_a_region_gets_more():
    field = make_field(BANDS, (256, 140), 7)
    inside = np.zeros((256, 140), bool)
    inside[40:120, 30:100] = True
    _, flat = tried(lin(), field, max_bits_per_pixel=0.7)
    data, back = tried(lin(), field, max_bits_per_pixel=0.7, roi=inside)
    here = (field != 0) & inside
    assert 8 * len(data) / field.size <= 0.7
    assert psnr(field, back, valid=here) > psnr(field, flat, valid=here) + 1
    assert psnr(field, back, valid=(field != 0) & ~inside) < psnr(field, flat, valid=(field != 0) & ~inside)
    _, same = tried(lin(), field, max_bits_per_pixel=0.7, roi=inside, roi_weight=1)
    assert np.array_equal(same, flat)


def test_a_band_gets_more():
    field = SCENES["small"]
    _, flat = tried(lin(), field, psnr=45)
    data, back = tried(lin(), field, psnr=45, band_weights=[4, 1])
    assert psnr(field[:1], back[:1]) > psnr(field[:1], flat[:1]) + 1
    assert psnr(field[1:], back[1:]) < psnr(field[1:], flat[1:]) - 1
    assert psnr(field, back) >= 44.98
    assert np.array_equal(lin().decompress(data), back)
    assert np.array_equal(tried(lin(), field, psnr=45, band_weights=[1, 1])[1], flat)


def test_peaks_without_a_scale_are_the_range():
    field = 270 + make_field(FLOATS, (64, 72), 1) / 100
    field[1][:, 30:] = -999  # and what stands for missing pixels does not stretch it
    _, back = tried(lin(FLOATS, unit=0.01), field, psnr=50)
    valid = field != -999
    errors = [
        np.square(field[i] - back[i])[valid[i]].mean() / np.ptp(field[i][valid[i]]) ** 2 for i in (0, 1)
    ]
    counts = valid.sum(axis=(1, 2))
    got = -10 * math.log10(np.average(errors, weights=counts))
    assert 49.95 <= got <= 50.1


def test_constant_fields_reach_anything():
    field = np.full((2, 40, 40), 1234, np.uint16)
    for target in ({"psnr": 90}, {"max_error": 0}, {"max_bits_per_pixel": 1}):
        data, back = tried(lin(), field, **target)
        assert psnr(field, back) >= target.get("psnr", 0)
        assert len(data) < 300


# -- out of reach ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_reached_is_told():
    field = SCENES["small"]
    with pytest.raises(
        CodecError,
        match=r"no step reaches max_bits_per_pixel=0\.001: with hardly a coefficient left it is 0\.\d+; ask",
    ):
        lin().compress(field, max_bits_per_pixel=0.001)
    floats = make_field(FLOATS, (24, 24), 1)
    with pytest.raises(
        CodecError,
        match=r"no step reaches psnr=150: the best was \d+\.\d\d dB; ask for less, open the codec with a",
    ):
        lin(FLOATS, unit=1.0).compress(floats, psnr=150)
    text = r"max_error=0\.01: before it is coded, band 't2m' is rounded to within 0\.0\d+; .* with a smaller unit= than 1"
    with pytest.raises(CodecError, match=text):
        lin(FLOATS, unit=1.0).compress(floats, max_error=0.01)
    with pytest.raises(CodecError, match="band 't2m' is rounded"):
        lin(FLOATS, unit=0.1).compress(floats, max_error=0)


def test_steps_have_ends():
    field = SCENES["small"]
    with pytest.raises(FieldError, match=r"too fine for values of .*: at most 4194304 steps are coded"):
        lin().compress(field, step=1e-4)
    with pytest.raises(
        FieldError, match=r"the step must be .* to .* units of the normalised field; got 1e\+13"
    ):
        lin().compress(field, step=1e13)


def curve(step, quality=lambda s: 60 - 6 * math.log2(s), finest=0.0):
    """A coder whose PSNR and rate are straight in the logarithm of the step."""
    if step < finest:
        raise FieldError("too fine")
    return Reached(bytes(max(1, int(4000 / step))), 8 / step, quality(step), step / 2)


@pytest.mark.parametrize("own", [0.01, 1.0, 5000.0])
@pytest.mark.parametrize(
    ("target", "step"),
    [(Target(psnr=42), 8.0), (Target(max_bits_per_pixel=0.5), 16.0), (Target(max_error=1), 2.0)],
)
def test_search_finds_the_coarsest_or_finest_step(own, target, step):
    count = []

    def trial(s):
        count.append(s)
        return curve(s)

    best = search(trial, target, own)
    at = 8 / best.bits_per_pixel
    assert at == pytest.approx(step, rel=0.03)
    assert at >= step * 0.999 if target.max_bits_per_pixel else at <= step * 1.001
    assert len(count) <= 12


@pytest.mark.parametrize("own", [0.01, 1.0, 64.0])
def test_search_goes_round_steps_that_are_too_fine(own):
    best = search(lambda s: curve(s, finest=3.0), Target(psnr=45), own)
    assert best.psnr >= 45
    with pytest.raises(CodecError, match=r"no step reaches psnr=55: the best was 4\d\.\d\d dB"):
        search(lambda s: curve(s, finest=6.0), Target(psnr=55), own)

    def never(_step):
        raise FieldError("too fine")

    with pytest.raises(CodecError, match="no step reaches psnr=55: the values are too large to be coded"):
        search(never, Target(psnr=55), own)


def test_search_crosses_plateaus():
    """Quality that hardly changes for a while, then falls."""
    stairs = lambda s: 50.0 if s > 1 else 80.0  # noqa: E731
    assert search(lambda s: curve(s, stairs), Target(psnr=60), 3000.0).psnr == 80


def test_measures():
    truth = [np.zeros((2, 2, 2), np.uint16), np.zeros((2, 2, 1), np.uint16)]
    decoded = [np.full((2, 2, 2), 3, np.uint16), np.full((2, 2, 1), 3, np.uint16)]
    decoded[0][1, 0, 0] = 65535
    peaks = np.array([30.0, 30.0])
    hole = np.ones((2, 2, 2), bool)
    hole[1, 0, 0] = False
    got, worst = measure(truth, decoded, [hole, None], peaks)
    assert got == pytest.approx(20)
    assert worst.tolist() == [3, 3]
    assert measure(truth, truth, [None, None], peaks) == (200.0, pytest.approx([0, 0]))
    got, worst = measure(truth, decoded, [np.zeros((1, 2, 2), bool), np.zeros((1, 2, 1), bool)], peaks)
    assert (got, worst.tolist()) == (200.0, [0, 0])
    noisy, _ = measure(truth, truth, [None, None], peaks, np.array([9.0, 9.0]))
    assert noisy == pytest.approx(20)
