"""Conformance suite of metrics: the laws of :class:`stac_latent.quality.checks.Metric`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stac_latent.aliases import Array
from stac_latent.quality.checks import Metric
from stac_latent.spec import Band
from stac_latent.testing.suites import LAW

__all__ = ["MetricConformance"]

BANDS = (Band("a", scale=1e-4), Band("b", scale=1e-4))


class MetricConformance(ABC):
    """Laws of a metric; inherit, name the class ``Test...`` and define :meth:`make`."""

    @abstractmethod
    def make(self) -> Metric:
        """Return a new metric without any window."""

    def test_protocol(self) -> None:
        """It is a metric, and without a window it has no value."""
        metric = self.make()
        assert isinstance(metric, Metric)
        assert metric.name
        assert metric.better in ("higher", "lower")
        assert metric.value() is None

    @LAW
    @given(seed=st.integers(0, 999))
    def test_equal_fields_are_best(self, seed: int) -> None:
        """No decoded field is better than the original."""
        truth, noise = _fields(seed)
        best, worse = (self._value(truth, truth + n) for n in (0 * noise, noise))
        assert best is not None
        assert worse is not None
        assert best >= worse if self.make().better == "higher" else best <= worse

    @LAW
    @given(seed=st.integers(0, 999))
    def test_pixels_without_data_do_not_count(self, seed: int) -> None:
        """What lies in holes changes nothing, be it NaN; inputs are left as they were."""
        truth, noise = _fields(seed)
        valid = np.ones(truth.shape, bool)
        valid[:, :20, :20] = False
        decoded = truth + noise
        values = []
        for filler in (0.0, math.nan):
            a, b = np.where(valid, truth, filler), np.where(valid, decoded, filler)
            kept = a.copy(), b.copy()
            metric = self.make()
            metric.add(a, b, valid, BANDS)
            metric.add(truth[:, 24:], decoded[:, 24:], np.ones(truth[:, 24:].shape, bool), BANDS)
            values.append(metric.value())
            assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(kept, (a, b), strict=True))
        assert values[0] is not None
        assert values[0] == values[1]

    @LAW
    @given(seed=st.integers(0, 999))
    def test_order_of_windows_does_not_matter(self, seed: int) -> None:
        """Windows in another order give the same value, but for rounding."""
        parts = [_fields(seed + k) for k in range(3)]
        values = []
        for order in (parts, parts[::-1]):
            metric = self.make()
            for truth, noise in order:
                metric.add(truth, truth + noise, np.ones(truth.shape, bool), BANDS)
            values.append(metric.value())
        assert values[0] is not None
        assert values[1] is not None
        assert math.isclose(values[0], values[1], rel_tol=1e-9, abs_tol=1e-12)

    def test_nothing_valid(self) -> None:
        """A window without a valid pixel has no value."""
        truth, noise = _fields(0)
        metric = self.make()
        metric.add(truth, truth + noise, np.zeros(truth.shape, bool), BANDS)
        assert metric.value() is None

    def _value(self, truth: Array, decoded: Array) -> float | None:
        metric = self.make()
        metric.add(truth, decoded, np.ones(truth.shape, bool), BANDS)
        return metric.value()


def _fields(seed: int) -> tuple[Array, Array]:
    """Smooth field and noise, ``(2, 64, 48)`` float64."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :48]
    planes = [2000 + 700 * np.sin(x / (4 + b) + rng.uniform(0, 6)) * np.cos(y / 9) for b in (0, 1)]
    truth = np.stack(planes) + rng.normal(0, 30, (2, 64, 48))
    return truth, rng.normal(5, 60, truth.shape)
