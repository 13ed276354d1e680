"""Checks: the grammar, the laws of every metric, and their values against oracles."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent.errors import CodecError
from stac_latent.quality import checks as module
from stac_latent.quality.checks import BUILTIN, Check, Checks, metric_class, metric_names
from stac_latent.quality.distortion import Distortion
from stac_latent.spec import Band
from stac_latent.testing import MetricConformance

BAND = Band("red", scale=1e-4)


class TestPsnr(MetricConformance):
    def make(self):
        return metric_class("psnr")()


class TestSam(MetricConformance):
    def make(self):
        return metric_class("sam")()


class TestMaxError(MetricConformance):
    def make(self):
        return metric_class("max_error")()


class TestMeanBias(MetricConformance):
    def make(self):
        return metric_class("mean_bias")()


class TestSsim(MetricConformance):
    def make(self):
        return metric_class("ssim")()


class TestDataSsim(MetricConformance):
    def make(self):
        return metric_class("dssim")()


class TestSpectrum(MetricConformance):
    def make(self):
        return metric_class("spectrum")()


class TestQuantile(MetricConformance):
    def make(self):
        return metric_class("quantile")(q=0.9)


class TestExceedance(MetricConformance):
    def make(self):
        return metric_class("exceedance")(q=0.9)


class TestHistogram(MetricConformance):
    def make(self):
        return metric_class("histogram")()


def field(seed=0, shape=(1, 64, 64)):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, 40, shape), axis=2) + 3000


def value(name, truth, decoded, **options):
    metric = metric_class(name)(**options)
    metric.add(truth, decoded, np.ones(truth.shape, bool), [BAND] * len(truth))
    return metric.value()


# -- values ----------------------------------------------------------------------------------------------------


def naive_ssim(a, b, c1, c2):
    """Equation 13 of Wang et al. 2004, window by window."""
    k = np.arange(11) - 5
    w = np.exp(-(k[:, None] ** 2 + k[None] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    out = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
            cov = (w * (p - mp) * (q - mq)).sum()
            out.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(out))


def test_ssim_is_that_of_the_paper():
    a = field(1, (1, 24, 20))
    b = a + np.random.default_rng(0).normal(0, 200, a.shape)
    assert value("ssim", a, b) == pytest.approx(naive_ssim(a[0], b[0], 100.0**2, 300.0**2), rel=1e-9)


def test_ssim_is_that_of_scikit_image():
    skimage = pytest.importorskip("skimage.metrics", reason="an oracle only")
    a = field(2)
    b = a + np.random.default_rng(1).normal(0, 200, a.shape)
    _, found = skimage.structural_similarity(
        a[0], b[0], data_range=10_000, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    assert value("ssim", a, b) == pytest.approx(float(found[5:-5, 5:-5].mean()), rel=1e-9)


def test_data_ssim_is_that_of_the_paper():
    a = field(3, (1, 22, 26))
    b = a + np.random.default_rng(2).normal(0, 20, a.shape)
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    x, y = (np.rint((v - low) / (high - low) * 255) / 255 for v in (a[0], b[0]))
    assert value("dssim", a, b) == pytest.approx(naive_ssim(x, y, 1e-8, 1e-8), rel=1e-7)


def test_spectrum_of_a_doubled_contrast_is_six_decibels():
    a = field(4)
    assert value("spectrum", a, 2 * a) == pytest.approx(20 * np.log10(2), rel=1e-6)


def test_spectrum_sees_what_smoothing_takes():
    a = field(5)
    smooth = sum(np.roll(a, k, axis=1) for k in (-1, 0, 1)) / 3
    assert value("spectrum", a, smooth) > 3 > value("spectrum", a, a + 1)


@settings(max_examples=20, deadline=None)
@given(shift=st.floats(-500, 500, allow_nan=False))
def test_a_shift_is_found(shift):
    a = field(6)
    for name in ("mean_bias", "quantile", "max_error"):
        assert value(name, a, a + shift) == pytest.approx(abs(shift), abs=1e-6)


def test_exceedance_counts_extremes():
    a = np.arange(10_000.0).reshape(1, 100, 100)
    clipped = np.minimum(a, 9949)  # takes away half of the highest hundred
    assert value("exceedance", a, clipped, q=0.99) == pytest.approx(0.0, abs=0.02)
    assert value("exceedance", a, np.minimum(a, 9000), q=0.99) == 1.0
    assert value("exceedance", a, a + 100, q=0.99) == pytest.approx(1.0, abs=0.02)


def test_histogram_is_the_share_that_moves():
    a = np.repeat(np.arange(64.0), 64).reshape(1, 64, 64)
    b = a.copy()
    b[0, :16] += 1
    assert value("histogram", a, b) == pytest.approx(_moved(a, b), abs=1e-12)
    assert value("histogram", a, a + 1000) == 1.0


def _moved(a, b):
    """Total variation with numpy's own histogram; what lies outside is a bin on each side."""
    edges = np.concatenate([[-np.inf], np.linspace(a.min(), a.max(), 65), [np.inf]])
    edges[-2] = np.nextafter(edges[-2], np.inf)
    p, q = (np.histogram(v, edges)[0] for v in (a, b))
    return np.abs(p - q).sum() / (2 * a.size)


def test_errors_are_those_of_the_distortion():
    a = np.concatenate([field(7), field(8)])
    b = a + np.random.default_rng(3).normal(0, 50, a.shape)
    found = Distortion([BAND] * 2)
    found.add(a, b)
    for name in ("psnr", "sam", "max_error"):
        assert value(name, a, b) == getattr(found, name)


def test_samples_are_bounded_and_paired():
    metric = metric_class("quantile")(q=0.5)
    for k in range(9):
        a = field(k, (1, 256, 256))
        metric.add(a, a + 7, np.ones(a.shape, bool), [BAND])
    assert metric.samples["red"].size <= 2**18
    assert metric.value() == pytest.approx(7)


def test_bands_of_larger_pixels_count_once():
    checks = Checks(["mean_bias<=0"])
    truth = np.zeros((2, 8, 8))
    decoded = truth.copy()
    decoded[1, ::2, ::2] = 4  # the pixel that stands for four
    checks.add(truth, decoded, np.ones((1, 8, 8), bool), [Band("a"), Band("b")], (1, 2))
    assert checks.values() == [4.0]


# -- the grammar -----------------------------------------------------------------------------------------------

names = st.sampled_from(sorted(BUILTIN))


@given(
    name=names, threshold=st.floats(-1e6, 1e6, allow_nan=False), action=st.sampled_from(["warn", "refuse"])
)
def test_a_check_reads_what_it_writes(name, threshold, action):
    check = Check(name, float(f"{threshold:g}"), action, {})
    assert Check.of(str(check)) == check


@given(text=st.text(max_size=30))
def test_any_other_text_is_refused(text):
    with suppress(CodecError):
        check = Check.of(text)
        assert Check.of(str(check)) == check


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("psnr", "check 'psnr' cannot be read; expected METRIC>=NUMBER:ACTION or METRIC<=NUMBER:ACTION"),
        ("psnr>=40:explode", "with the action warn or refuse, such as 'psnr>=40:refuse'"),
        (
            "psnr<=40",
            "check 'psnr<=40': higher values of psnr are better, so that its threshold is written with >=",
        ),
        ("sam>=1:warn", "lower values of sam are better, so that its threshold is written with <="),
        ("beauty>=1", "no metric 'beauty'; known are dssim, exceedance, histogram, max_error"),
        ("psnr>=much", "check 'psnr>=much': 'much' is no number"),
        ("exceedance(q=2)<=1", "q=2 is no quantile; expected more than 0 and less than 1, such as 0.99"),
        ("psnr(q=2)>=1", "metric 'psnr' does not take these options"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(CodecError, match=re.escape(message)):
        Check.of(text)


def test_a_value_that_is_not_defined_passes_and_nan_does_not():
    check = Check.of("psnr>=40")
    assert check.passes(None)
    assert not check.passes(float("nan"))


class Range:
    """A plug-in's metric: change of the range of values."""

    name = "range"
    better = "lower"

    def __init__(self):
        self.found = []

    def add(self, truth, decoded, valid, bands):
        for a, b, m in zip(truth, decoded, valid, strict=True):
            if m.any():
                self.found.append(abs(float(np.ptp(b[m]) - np.ptp(a[m]))))

    def value(self):
        return max(self.found, default=None)


class TestPlugIn(MetricConformance):
    def make(self):
        return Range()


def test_metrics_of_other_packages(monkeypatch):
    point = EntryPoint("range", f"{__name__}:Range", "stac_latent.metrics")
    monkeypatch.setattr(
        module, "entry_points", lambda name=None, **_: [point] if name in (None, "range") else []
    )
    metric_class.cache_clear()
    assert "range" in metric_names()
    checks = Checks(["range<=3:refuse"])
    checks.add(np.zeros((1, 2, 2)), np.array([[[0.0, 5.0], [0.0, 0.0]]]), np.ones((1, 2, 2), bool), [BAND])
    assert [(str(c), v) for c, v in checks.failed()] == [("range<=3:refuse", 5.0)]
    metric_class.cache_clear()
