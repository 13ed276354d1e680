"""Distortion against direct formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent.quality.distortion import Distortion, peak_of
from stac_latent.spec import Band

REFLECTANCE = [Band(n, "uint16", nodata=0, scale=1e-4) for n in "abc"]


def pair(seed=0, shape=(3, 30, 41)):
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 6000, shape).astype(np.uint16)
    return (
        truth,
        np.clip(truth + rng.integers(-90, 90, shape), 1, 65535).astype(np.uint16),
        rng.random(shape) < 0.8,
    )


def test_against_direct_formulas():
    truth, decoded, valid = pair()
    d = Distortion(REFLECTANCE)
    d.add(truth, decoded, valid)
    error = (decoded.astype(float) - truth)[valid]
    assert d.psnr == pytest.approx(10 * np.log10(10000**2 / np.mean(error**2)), abs=1e-9)
    assert d.max_error == np.abs(error).max()
    every = valid.all(axis=0)
    a, b = truth[:, every].astype(float), decoded[:, every].astype(float)
    cosine = (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))
    assert d.sam == pytest.approx(np.degrees(np.arccos(cosine)).mean(), abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 29), st.integers(1, 40))
def test_windows_add_up(seed, y, x):
    truth, decoded, valid = pair(seed)
    whole, parts = Distortion(REFLECTANCE), Distortion(REFLECTANCE)
    whole.add(truth, decoded, valid)
    for rows in (slice(0, y), slice(y, None)):
        for cols in (slice(0, x), slice(x, None)):
            parts.add(truth[:, rows, cols], decoded[:, rows, cols], valid[:, rows, cols])
    assert parts.psnr == pytest.approx(whole.psnr)
    assert parts.sam == pytest.approx(whole.sam)
    assert parts.max_error == whole.max_error


def test_without_error_and_without_pixels():
    truth, _, _ = pair()
    d = Distortion(REFLECTANCE)
    assert (d.psnr, d.max_error, d.sam) == (None, None, None)
    d.add(truth, truth, np.zeros((1, 30, 41), bool))
    assert (d.psnr, d.max_error, d.sam) == (None, None, None)
    d.add(truth, truth)
    assert (d.psnr, d.max_error) == (200.0, 0.0)
    assert d.sam == pytest.approx(0, abs=1e-5)


def test_one_band_has_no_angle():
    truth, decoded, _ = pair()
    d = Distortion(REFLECTANCE[:1])
    d.add(truth[:1], decoded[:1])
    assert d.sam is None
    assert d.psnr > 30


def test_peaks():
    assert peak_of(Band("r", scale=1e-4), 500, 0) == pytest.approx(10000)
    assert peak_of(Band("dem", "int16"), 812.0, -3.0) == 815
    assert peak_of(Band("flat", "int16"), 7.0, 7.0) == 1
    assert peak_of(Band("flat", "float32"), 7.0, 7.0) == 1
    assert peak_of(Band("t", "float32"), 280.5, 280.0) == 0.5


def test_types_do_not_wrap():
    d = Distortion([Band("a", "uint8", scale=1 / 255)])
    d.add(np.array([[[3]]], np.uint8), np.array([[[250]]], np.uint8))
    assert d.max_error == 247
