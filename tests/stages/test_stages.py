"""Every shipped stage obeys the laws of a stage; transforms are what their names say."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neural_support import network

from stac_latent.errors import BundleError, CodecError, FieldError
from stac_latent.stages import BUILTIN, stage_class
from stac_latent.stages.base import rounded_shift
from stac_latent.stages.classical import Jpeg2000, Zstd
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.lin.pyramid import Pyramid
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.neural.stage import Fast
from stac_latent.stages.rans.stage import Rans
from stac_latent.stages.rans.tables import laplace_tables
from stac_latent.stages.transform.block_dct import BlockDCT, dct_matrix
from stac_latent.stages.transform.integer_wavelet import Wavelet, subband_norms
from stac_latent.stages.transform.klt import SpectralKLT, integer_matrix
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.stages.transform.quantise import Power, Uniform
from stac_latent.testing import StageConformance


def rotation(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


class TestNormalise(StageConformance):
    channels = 3

    def make(self):
        return Normalise([1000.0, 40.0, -3.0], [1.0, 1.0, 1.0])

    def example(self, cells, seed):
        return np.random.default_rng(seed).integers(0, 10000, (3, *cells)).astype(np.uint16)


class TestNormaliseFloat(TestNormalise):
    tolerance = 0.25 / 32 + 1e-9  # half of 2**-4 of the unit

    def make(self):
        return Normalise([270.5, 1.0, 0.0], [0.25, 0.25, 0.25])

    def example(self, cells, seed):
        return 270 + np.random.default_rng(seed).normal(size=(3, *cells))


class TestSpectralKLT(StageConformance):
    channels = 5
    tolerance = 4.0

    def make(self):
        return SpectralKLT(integer_matrix(rotation(5)))


class TestFewComponents(StageConformance):
    channels = 5
    tolerance = None

    def make(self):
        return SpectralKLT(integer_matrix(rotation(5)[:2]))


class TestBlockDCT8(StageConformance):
    channels = 2
    tolerance = 8.0  # half a stored unit: the basis is rounded to 2**-14

    def make(self):
        return BlockDCT(8, 2)


class TestBlockDCT2(TestBlockDCT8):
    def make(self):
        return BlockDCT(2, 2)


class TestBlockDCT16Kept(TestBlockDCT8):
    tolerance = None

    def make(self):
        return BlockDCT(16, 2, [0, 1, 16, 17, 256, 300])


class TestWavelet1(StageConformance):
    channels = 2

    def make(self):
        return Wavelet(1)


class TestWavelet2(TestWavelet1):
    def make(self):
        return Wavelet(2)


class TestWavelet3(TestWavelet1):
    def make(self):
        return Wavelet(3)


class TestWavelet4(TestWavelet1):
    channels = 1

    def make(self):
        return Wavelet(4)


class TestUniform(StageConformance):
    channels = 2
    tolerance = 96 * (1 - 6 / 16) + 1

    def make(self):
        return Uniform([96, 17], 6)


class TestUniformInt8(TestUniform):
    tolerance = 400.0

    def make(self):
        return Uniform([800, 800], 8, "int8")


class TestPower(StageConformance):
    channels = 2
    tolerance = None

    def make(self):
        return Power([0.3, 0.25], 2.0)


class TestRans(StageConformance):
    channels = 3

    def make(self):
        return Rans(laplace_tables(), np.array([9, 4, 0]), np.array([0]))

    def example(self, cells, seed):
        rng = np.random.default_rng(seed)
        return np.rint(rng.laplace(0, 5, (3, *cells)) * np.array([30, 1, 0.02])[:, None, None]).astype(
            np.int16
        )


class TestZstd(StageConformance):
    channels = 2

    def make(self):
        return Zstd(3)

    def example(self, cells, seed):
        return np.random.default_rng(seed).integers(0, 4000, (2, *cells)).astype(np.uint16)


class TestZstdFloat(TestZstd):
    def example(self, cells, seed):
        return np.random.default_rng(seed).normal(size=(2, *cells)).astype(np.float32)


class TestJpeg2000Lossless(TestZstd):
    def make(self):
        return Jpeg2000(100, reversible=True)


class TestJpeg2000(TestZstd):
    tolerance = None

    def make(self):
        return Jpeg2000(20)


class TestPyramid(StageConformance):
    channels = 2
    tolerance = 0.1  # float32, in 16ths of a unit

    def make(self):
        return Pyramid()


class TestLin(StageConformance):
    tolerance = None

    def make(self):
        basis = np.stack([rotation(2, seed) for seed in range(7)]).astype(np.float32)
        return Lin(basis, ContextModel.default(), step=32.0)

    def example(self, cells, seed):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[: 8 * cells[0], : 8 * cells[1]]
        field = [3000 * np.sin(x / 5 + y / (11 + b)) + rng.normal(0, 300, x.shape) for b in range(2)]
        return Pyramid().forward(16 * np.stack(field))


class TestFast(TestLin):
    def make(self):
        return Fast.on(super().make(), network(2, size=0.2))


def test_every_stage_has_its_suite():
    suites = {
        c.__name__: c for c in globals().values() if isinstance(c, type) and issubclass(c, StageConformance)
    }
    suites.pop("StageConformance")
    graphs = {"onnx", "onnx-tiles"}  # as codecs, by their suites in tests/fitting/test_embedder.py
    assert {c().make().name for c in suites.values()} | graphs == set(BUILTIN)
    assert all(stage_class(name).name == name for name in BUILTIN)


def test_unknown_stage():
    with pytest.raises(
        CodecError, match=r"unknown stage 'hyperprior'; this version knows dct, .*plug-in package"
    ):
        stage_class("hyperprior")


def test_third_party_stage_by_entry_point(monkeypatch):
    class Point:
        def load(self):
            return Zstd

    monkeypatch.setattr(
        "stac_latent.stages.entry_points", lambda **which: [Point()] if which["name"] == "mine" else []
    )
    stage_class.cache_clear()
    assert stage_class("mine") is Zstd
    stage_class.cache_clear()


# -- transforms are what their names say -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_dct_matrix_is_the_orthonormal_dct_ii(n):
    m = dct_matrix(n)
    np.testing.assert_allclose(m @ m.T, np.eye(n), atol=1e-12)
    expected = [[np.cos(np.pi * (2 * x + 1) * k / (2 * n)) for x in range(n)] for k in range(n)]
    np.testing.assert_allclose(
        m / np.abs(m).max(axis=1, keepdims=True),
        expected / np.abs(expected).max(axis=1, keepdims=True),
        atol=1e-12,
    )


def test_dct_equals_the_direct_sum():
    x = np.random.default_rng(0).integers(-30000, 30000, (1, 24, 16)).astype(float)
    y = BlockDCT(8).forward(x)
    m = dct_matrix(8)
    block = m @ x[0, 8:16, 8:] @ m.T
    np.testing.assert_allclose(y[:, 1, 1].reshape(8, 8), block, atol=4)


def test_klt_of_few_components_projects():
    r = rotation(4)
    stage = SpectralKLT(integer_matrix(r[:2]))
    x = np.random.default_rng(1).integers(-9999, 9999, (4, 5, 6)).astype(float)
    expected = np.einsum("kb,byx->kyx", r[:2], x)
    np.testing.assert_allclose(stage.forward(x), expected, atol=3)
    np.testing.assert_allclose(
        stage.inverse(stage.forward(x)), np.einsum("kb,kyx->byx", r[:2], expected), atol=5
    )
    assert (stage.inverse(np.zeros((2, 3, 3))) == np.zeros((4, 3, 3))).all()


def test_exactness_does_not_depend_on_the_order_of_summation():
    """Integers in float64: any split of the bands gives the very same sums."""
    stage = SpectralKLT(integer_matrix(rotation(12)))
    x = np.random.default_rng(2).integers(-(2**21), 2**21, (12, 40, 40)).astype(float)
    whole = stage.forward(x)
    k = stage.matrix.astype(np.int64)
    exact = np.einsum("kb,byx->kyx", k, x.astype(np.int64))
    assert np.abs(exact).max() < 2**53
    np.testing.assert_array_equal(whole, np.rint(exact / 2.0**14))


def test_wavelet_concentrates_a_ramp():
    y, x = np.mgrid[:64, :80]
    out = Wavelet(3).forward((16 * (3 * x + 5 * y)).astype(float)[None])
    energy = (out[:, 3:-3, 3:-3] ** 2).sum(axis=(1, 2))
    assert energy[0] > 0.999 * energy.sum()


def test_subband_norms_predict_the_error_of_the_field():
    rng = np.random.default_rng(0)
    noise = np.rint(rng.normal(0, 5000, (64, 40, 40)))
    predicted = 5000**2 * (subband_norms(3) ** 2).sum() / 64
    assert (Wavelet(3).inverse(noise) ** 2).mean() == pytest.approx(predicted, rel=0.03)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(0, 999))
def test_wavelet_is_exactly_invertible_at_extremes(levels, seed):
    x = np.random.default_rng(seed).choice([-(2.0**21), 2.0**21, 0.0], (1, 32, 48))
    stage = Wavelet(levels)
    np.testing.assert_array_equal(stage.inverse(stage.forward(x)), x)


def test_rounded_shift_is_exact():
    np.testing.assert_array_equal(rounded_shift(np.array([5.0, 6.0, 7.0, -6.0]), 2), [1.0, 2.0, 2.0, -2.0])


# -- quantisers ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5000), st.integers(1, 8), st.integers(-(2**24), 2**24))
def test_uniform_equals_integer_arithmetic(step, rounding, value):
    got = int(Uniform([step], rounding).forward(np.array([[[float(value)]]]))[0, 0, 0])
    size = min(32767, (abs(value) + step * rounding // 16) // step)
    assert got == (size if value > 0 else -size)


def test_uniform_clips_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        out = Uniform([1], 8, "int8").forward(np.array([[[500.0, -500.0, 3.0]]]))
    assert out.tolist() == [[[127, -127, 3]]]
    assert "2 symbols exceed int8" in caplog.text


def test_power_is_the_formula_of_alphaearth():
    stage = Power([1 / 127.5], 2.0)
    q = np.arange(-127, 128, dtype=np.int8).reshape(1, 1, -1)
    expected = (q / 127.5) ** 2.0 * np.sign(q)
    np.testing.assert_allclose(stage.quantization.dequantise(q), expected, atol=1e-6)
    np.testing.assert_array_equal(stage.forward(expected * 16), q)
    assert stage.forward(np.array([[[1e9, -1e9]]])).tolist() == [[[127, -127]]]
    assert stage.quantization.method == "power"
    assert Power([0.5]).quantization.method == "linear"


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Normalise([1.0], [1.0, 2.0]), r"\(1,\) means but \(2,\) units"),
        (lambda: Normalise([np.nan], [1.0]), "means must be finite"),
        (lambda: Normalise([0.0], [0.0]), "units positive"),
        (lambda: SpectralKLT(np.zeros((3, 2), np.int32)), "components <= bands"),
        (lambda: SpectralKLT.build({"bits": 12}, {}), r"2\*\*-12 is not known; expected 2\*\*-14"),
        (lambda: SpectralKLT.build({"bits": 14}, {}), "needs tensor 'matrix'; the bundle holds none"),
        (
            lambda: SpectralKLT.build({"bits": 14}, {"matrix": np.zeros((2, 2))}),
            "must have 2 dimensions and a type of kind",
        ),
        (lambda: BlockDCT(5), "size is 2, 4, 8 or 16"),
        (lambda: BlockDCT(4, keep=[3, 2]), "keep must be increasing channel numbers below 16"),
        (
            lambda: BlockDCT.build({"size": 4, "components": 1, "keep": None}, {}),
            "basis must be .4, 4. integers; got None",
        ),
        (lambda: Wavelet(5), "levels is 1 to 4; got 5"),
        (
            lambda: Wavelet.build({"levels": 2}, {"x": np.zeros(1)}),
            "Wavelet has no tensors; the bundle holds .'x'.",
        ),
        (lambda: Uniform([0]), "steps are positive integers"),
        (lambda: Uniform([1], 9), "rounding is 1 to 8"),
        (lambda: Power([-1.0]), "scales and power must be positive"),
        (lambda: Jpeg2000(0), "percentage of the raw bytes"),
    ],
)
def test_bad_parameters(make, text):
    with pytest.raises(BundleError, match=text):
        make()


def test_bad_fields():
    with pytest.raises(FieldError, match="NaN or infinite values outside its mask"):
        Normalise([0.0], [1.0]).forward(np.array([[[1.0, np.nan]]]))
    with pytest.raises(FieldError, match="jpeg2000 codes uint8, uint16 and int16; got float32"):
        Jpeg2000().forward(np.zeros((1, 8, 8), np.float32))
    with pytest.raises(FieldError, match=r"at once; got \(1, 0, 4\) of uint8"):
        Zstd().forward(np.zeros((1, 0, 4), np.uint8))
