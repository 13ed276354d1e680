"""Targets: one at a time, within their bounds, refused by codecs of a fixed rate."""

from __future__ import annotations

import numpy as np
import pytest

from stac_latent import open_codec
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.rate_target import Target
from stac_latent.spec import Band

BANDS = [Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4)]
NAMES = ("psnr", "max_bits_per_pixel", "max_error", "quality", "step")


@pytest.mark.parametrize("name", NAMES)
def test_one_of_five(name):
    goal = Target(**{name: 30})
    assert goal.given == {name: 30}
    assert str(goal) == f"{name}=30"
    other = next(n for n in NAMES if n != name)
    with pytest.raises(CodecError, match=rf"one target at a time; got .*{name}=30"):
        Target(**{name: 30, other: 5})


def test_none():
    assert Target().given == {}
    assert str(Target()) == "the codec's own step"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("psnr", 0, r"psnr must be more than 0 and at most 200; got 0"),
        ("psnr", 201, r"psnr must be more than 0 and at most 200; got 201"),
        ("max_bits_per_pixel", 0, r"max_bits_per_pixel must be more than 0; got 0"),
        ("max_bits_per_pixel", -1, r"max_bits_per_pixel must be more than 0; got -1"),
        ("max_error", -0.5, r"max_error must be at least 0; got -0\.5"),
        ("quality", 101, r"quality must be at least 0 and at most 100; got 101"),
        ("step", 0, r"step must be more than 0; got 0"),
        ("psnr", float("nan"), r"psnr must be .*; got nan"),
        ("step", float("inf"), r"step must be .*; got inf"),
        ("max_error", float("inf"), r"max_error must be .*; got inf"),
    ],
)
def test_bounds(name, value, text):
    with pytest.raises(CodecError, match=text):
        Target(**{name: value})


def test_ends_of_the_ranges():
    assert Target(quality=0).given == {"quality": 0}
    assert Target(quality=100).given == {"quality": 100}
    assert Target(max_error=0).given == {"max_error": 0}
    assert Target(psnr=200).given == {"psnr": 200}


@pytest.mark.parametrize("name", ["dct", "wavelet", "zstd", "jpeg2000"])
def test_codecs_of_a_fixed_rate_refuse(name):
    codec = open_codec(name, bands=BANDS)
    field = np.full((2, 16, 16), 900, np.uint16)
    text = rf"codec '{name}' codes at the one rate that is part of its space; for psnr=40 take a chain that ends with 'lin'"
    with pytest.raises(CodecError, match=text):
        codec.compress(field, psnr=40)
    with pytest.raises(CodecError, match="codes at the one rate"):
        codec.compress(field, band_weights=[1, 2])
    assert codec.decompress(codec.compress(field)).shape == field.shape


def test_unknown_targets_are_no_targets():
    with pytest.raises(TypeError, match="psrn"):
        open_codec("lin", bands=BANDS).compress(np.ones((2, 8, 8), np.uint16), psrn=40)


def test_aimed_codecs_are_of_the_same_space():
    codec = open_codec("lin", bands=BANDS)
    aimed = codec.with_target(Target(psnr=40))
    assert aimed is not codec
    assert aimed.space == codec.space
    assert aimed.spec == codec.spec
    assert codec.with_target(Target()) is codec
    assert codec.measured_over(np.ones((1, 8, 8), bool)) is codec
    assert aimed.measured_over(None) is aimed
    assert aimed.measured_over(np.ones((1, 8, 8), bool)).space == codec.space


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -2], [1, np.nan]])
def test_weights_of_bands(weights):
    codec = open_codec("lin", bands=BANDS)
    with pytest.raises(CodecError, match="band_weights must be 2 positive numbers, one for each band; got"):
        codec.compress(np.ones((2, 8, 8), np.uint16), band_weights=weights)


def test_weights_of_bands_have_ends():
    codec = open_codec("lin", bands=BANDS)
    with pytest.raises(FieldError, match=r"gains of bands must be .* to .*; got"):
        codec.compress(np.ones((2, 8, 8), np.uint16), band_weights=[1, 1e9])


def test_regions_of_interest():
    codec = open_codec("lin", bands=BANDS)
    field = np.ones((2, 8, 9), np.uint16)
    with pytest.raises(FieldError, match=r"roi has shape \(8, 8\); the field has \(8, 9\) pixels"):
        codec.compress(field, psnr=40, roi=np.ones((8, 8), bool))
    for bad in (0, -1, 2):
        with pytest.raises(CodecError, match="roi_weight must be more than 0 and at most 1; got"):
            codec.compress(field, psnr=40, roi=np.ones((8, 9), bool), roi_weight=bad)
