"""Wavelet of a tile: inverse, energy, norms, and one result whichever form runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lin_support import LAW, needs_numba, plain, same_bits

from stac_latent.stages.lin import lifting
from stac_latent.stages.lin.lifting import NORMS, analyse, levels_of, sizes, synthesise

tiles = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))


def tile(shape, seed, scale=2000.0):
    y, x = np.mgrid[: shape[1], : shape[2]]
    rng = np.random.default_rng(seed)
    return np.stack(
        [scale * np.sin(x / 7 + y / 5 + b) + rng.normal(0, scale / 5, x.shape) for b in range(shape[0])]
    ).astype(np.float32)


def analysed(x, levels, start=0):
    out = x.copy()
    analyse(out, levels, start)
    return out


def synthesised(x, levels, stop=0):
    out = x.copy()
    synthesise(out, levels, stop)
    return out


@LAW
@given(shape=tiles, levels=st.integers(0, 6), seed=st.integers(0, 999))
def test_any_size_comes_back(shape, levels, seed):
    x = tile(shape, seed)
    back = synthesised(analysed(x, levels), levels)
    assert back.shape == x.shape
    assert np.abs(back - x).max() <= 1e-6 * (levels + 1) * max(1, np.abs(x).max())


@needs_numba
@LAW
@given(
    shape=tiles,
    levels=st.integers(1, 6),
    seed=st.integers(0, 999),
    scale=st.sampled_from((1e-3, 1.0, 2.0**21)),
)
def test_both_forms_give_the_same_bits(shape, levels, seed, scale):
    x = tile(shape, seed, scale)
    y = analysed(x, levels)
    back = synthesised(y, levels)
    with plain():
        assert same_bits(analysed(x, levels), y)
        assert same_bits(synthesised(y, levels), back)


@needs_numba
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (2, 7, 1), (1, 2, 2), (1, 3, 5), (2, 13, 22)])
def test_loops_stay_in_bounds(shape, monkeypatch):
    """As python they raise where compiled code would read beyond an array."""
    x = tile(shape, 0)
    y = analysed(x, 4)
    back = synthesised(y, 4)
    for name, thing in vars(lifting).copy().items():
        if hasattr(thing, "py_func"):
            monkeypatch.setattr(lifting, name, thing.py_func)
    assert same_bits(analysed(x, 4), y)
    assert same_bits(synthesised(y, 4), back)


@LAW
@given(shape=tiles, levels=st.integers(2, 6), seed=st.integers(0, 99), data=st.data())
def test_levels_one_after_the_other(shape, levels, seed, data):
    x, part = tile(shape, seed), data.draw(st.integers(1, levels - 1))
    y = analysed(x, levels)
    assert same_bits(analysed(analysed(x, part), levels, part), y)
    assert same_bits(synthesised(synthesised(y, levels, part), part), synthesised(y, levels))


@pytest.mark.parametrize("shape", [(1, 256, 256), (1, 200, 104), (1, 37, 53)])
def test_energy_is_nearly_kept(shape):
    noise = np.random.default_rng(0).normal(0, 100, shape).astype(np.float32)
    y = analysed(noise, levels_of(*shape[1:]))
    assert 0.9 < np.square(y).sum() / np.square(noise).sum() < 1.1
    # what quantising adds to the coefficients is what it adds to the pixels
    error = np.random.default_rng(1).uniform(-8, 8, shape).astype(np.float32)
    pixels = synthesised(y + error, levels_of(*shape[1:])) - synthesised(y, levels_of(*shape[1:]))
    assert 0.9 < np.square(pixels).sum() / np.square(error).sum() < 1.1


def test_norms_are_those_of_the_synthesis_functions():
    """Of a column, since the transform is separable: a unit in the middle of each band, and what it grows to."""
    n, low, high = 4096, 1.0, 1.0
    for level, (mixed, diagonal) in enumerate(NORMS, 1):
        norms = []
        for first in (0, n >> level):
            x = np.zeros((1, n, 1), np.float32)
            x[0, first + (n >> level + 1)] = 1
            synthesise(x, level)
            norms.append(float(np.sqrt(np.square(x, dtype=np.float64).sum())))
        low, high = norms
        assert mixed == pytest.approx(low * high, abs=6e-5)
        assert diagonal == pytest.approx(high * high, abs=6e-5)
        assert 0.97 < low * low < 1.07  # the coarsest band counts as 1


def test_constants_have_no_details():
    y = analysed(np.full((1, 96, 88), 1000, np.float32), 3)
    assert np.abs(y[:, :12, :11] - 8000).max() < 0.1
    y[:, :12, :11] = 0
    assert np.abs(y).max() < 0.01


@pytest.mark.parametrize(
    ("size", "levels"),
    [((256, 256), 6), ((255, 8), 5), ((128, 128), 5), ((64, 64), 4), ((63, 1), 3), ((8, 8), 3), ((1, 1), 3)],
)
def test_levels_of_a_tile(size, levels):
    assert levels_of(*size) == levels
    assert levels_of(*size[::-1]) == levels
    assert levels_of(*size, most=4) == min(4, levels)
    assert sizes(size[0], levels)[-1] == -(-size[0] // 2**levels)


def test_a_tile_is_changed_in_place_and_nothing_beside_it():
    whole = tile((2, 40, 48), 0)
    kept = whole.copy()
    part = whole[:, :23, :31]
    expected = analysed(part, 3)
    analyse(part, 3)
    assert same_bits(np.ascontiguousarray(part), expected)
    assert (whole[:, 23:] == kept[:, 23:]).all()
    assert (whole[:, :, 31:] == kept[:, :, 31:]).all()
