"""Moments added up chunk by chunk are those of the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent.errors import FieldError
from stac_latent.quality.moments import Moments


def field(bands=5, shape=(40, 30), seed=0, bright=True):
    """Correlated bands in a reflectance-like unit, with a bright corner."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(bands, bands))
    x = np.einsum("ij,jyx->iyx", mixing, rng.normal(size=(bands, *shape))) * 300 + 2000
    if bright:
        x[:, :5, :5] += 9000
    return np.rint(x).clip(1, 20000).astype(np.uint16)


def close(ours, theirs):
    for name in ("count", "weight", "seen", "low", "high", "mean", "covariance", "std"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=0, err_msg=name
        )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 7),
    st.lists(st.integers(0, 40), max_size=5),
    st.sampled_from([np.inf, 50.0]),
    st.integers(0, 9),
    st.booleans(),
)
def test_chunks_and_merged_parts_equal_the_whole(bands, cuts, floor, seed, masked):
    x = field(bands, seed=seed)
    rng = np.random.default_rng(seed)
    mask = rng.random((1 if seed % 2 else bands, *x.shape[1:])) < 0.8 if masked else None
    centre = [2000.0] * bands
    whole, chunked, left, right = (Moments(centre, floor) for _ in range(4))
    whole.add(x, mask)
    edges = [0, *sorted(cuts), x.shape[1]]
    for i, (a, b) in enumerate(pairwise(edges)):
        part = None if mask is None else mask[:, a:b]
        chunked.add(x[:, a:b], part)
        (left if i % 2 else right).add(x[:, a:b], part)
    left.merge(right)
    close(chunked, whole)
    close(left, whole)


def test_plain_moments_are_those_of_numpy():
    x = field()
    moments = Moments([1500.0] * 5)
    moments.add(x)
    flat = x.reshape(5, -1).astype(np.float64)
    np.testing.assert_allclose(moments.mean, flat.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(flat, bias=True), rtol=1e-10)
    np.testing.assert_array_equal(moments.low, flat.min(axis=1))


def test_weights_keep_bright_pixels_from_dominating():
    clean = field(bright=False)
    plain, robust, wanted = Moments([2000.0] * 5), Moments([2000.0] * 5, 50.0), Moments([2000.0] * 5)
    plain.add(field())
    robust.add(field())
    wanted.add(clean)
    gap = [np.abs(m.covariance - wanted.covariance).max() for m in (plain, robust)]
    assert gap[1] < gap[0] / 3


def test_masked_and_infinite_pixels_do_not_count():
    x = field(2).astype(np.float32)
    x[1, 3, :] = np.nan
    mask = np.ones((2, *x.shape[1:]), bool)
    mask[0, :, :10] = False
    moments = Moments([2000.0, 2000.0])
    moments.add(x, mask)
    assert moments.seen.tolist() == [40 * 20, 39 * 30]
    assert moments.count == 39 * 20
    assert np.isfinite(moments.covariance).all()


def test_nothing_seen_is_not_a_number():
    moments = Moments([0.0])
    assert np.isnan(moments.mean).all()
    assert np.isnan(moments.covariance).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(FieldError, match="moments of 2 bands cannot take a field of 3"):
        Moments([0.0, 0.0]).add(np.zeros((3, 2, 2)))
    with pytest.raises(FieldError, match=r"different centres.*cannot be merged; begin both alike"):
        Moments([0.0]).merge(Moments([1.0]))
    with pytest.raises(FieldError, match="different floors"):
        Moments([0.0], 1.0).merge(Moments([0.0], 2.0))
