"""BD-rate against curves whose difference is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_latent.bench.curves import Curve, bd_rate, pool

PSNR = np.array([34.0, 36.5, 38.0, 41.0, 44.5, 47.0])
RATE = 0.02 * np.exp(0.21 * (PSNR - 34) + 0.004 * (PSNR - 40) ** 2)


def curve(factor=1.0, shift=0.0, rate=RATE):
    return Curve(zip(rate * factor, PSNR + shift, strict=True))


@pytest.mark.parametrize("percent", [-60, -10, 0, 10, 150])
def test_a_shift_of_rate_is_the_bd_rate(percent):
    found = bd_rate(curve(), curve(1 + percent / 100))
    assert found.percent == pytest.approx(percent, abs=1e-9)
    assert (found.low, found.high) == (34, 47)


def test_bd_rate_of_straight_lines_is_their_mean_difference():
    a = Curve([(np.exp(x / 5), x) for x in (30.0, 40.0, 50.0)])
    b = Curve([(np.exp(x / 5 + 0.01 * (x - 30)), x) for x in (30.0, 40.0, 50.0)])
    assert bd_rate(a, b).percent == pytest.approx(100 * np.expm1(0.1), rel=1e-9)


def test_bd_rate_agrees_with_a_shift_of_quality():
    """Exponential curves: 1 dB more at the same rate is a factor in rate everywhere."""
    points = [(np.exp(0.2 * x), x) for x in np.linspace(30, 50, 9)]
    better = [(r, p + 1) for r, p in points]
    found = bd_rate(Curve(points), Curve(better))
    assert found.percent == pytest.approx(100 * np.expm1(-0.2), rel=1e-6)
    assert (found.low, found.high) == (31, 50)


def test_the_interval_is_respected_and_at_least_half_of_it_is_needed():
    assert bd_rate(curve(), curve(0.9), (36, 46)).low == 36
    assert bd_rate(curve(), curve(0.9), (44, 60)) is None
    assert bd_rate(curve(), curve(0.9), (42, 50)).high == 47
    assert bd_rate(curve(), curve(0.9, shift=20)) is None
    assert bd_rate(Curve([]), curve()) is None


def test_points_that_cost_more_for_less_are_left_out():
    spoilt = Curve([*zip(RATE, PSNR, strict=True), (RATE[2] * 1.5, PSNR[2] - 1)])
    assert bd_rate(curve(), spoilt).percent == pytest.approx(0, abs=1e-12)


def test_rate_passes_through_the_points_and_is_nan_outside():
    c = curve()
    assert c.rate(PSNR) == pytest.approx(RATE)
    assert np.isnan(c.rate([33.9, 47.1])).all()
    assert np.isnan(Curve([]).rate(40.0))
    assert Curve([(0.5, 40.0)]).rate(40.0) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(20, 60)), min_size=2, max_size=12))
def test_interpolation_is_monotone(points):
    c = Curve(points)
    at = np.linspace(c.low, c.high, 200)
    rates = c.rate(at)
    assert (np.diff(rates[np.isfinite(rates)]) >= -1e-9 * rates[np.isfinite(rates)][1:]).all()


def test_pchip_agrees_with_scipy():
    interpolate = pytest.importorskip("scipy.interpolate")
    at = np.linspace(34, 47, 100)
    peer = np.exp(interpolate.PchipInterpolator(PSNR, np.log(RATE))(at))
    assert curve().rate(at) == pytest.approx(peer, rel=1e-9)


def test_the_pooled_curve_is_the_mean_rate_at_each_quality():
    levels = [36.0, 40.0, 46.0, 48.0]
    pooled = pool([curve(), curve(3.0)], levels)
    assert pooled.psnr.tolist() == [36, 40, 46]
    assert pooled.rate(40.0) == pytest.approx(2 * curve().rate(40.0))
    assert pool([], levels).low == np.inf
