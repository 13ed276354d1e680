"""Context coder of planes: one bitstream from both forms, exact inverses, and no damage that it does not notice."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lin_support import KINDS, LAW, clear_margins, models, needs_numba, plain, programs, same_bits, samples

from stac_latent.errors import BundleError, CorruptDataError
from stac_latent.stages.context import _numba_encode, _numpy
from stac_latent.stages.context.coder import Coded, ContextModel
from stac_latent.stages.context.model import (
    ADAPT_LIMIT,
    BINS,
    COUNT,
    ESCAPE,
    LOW,
    SYMBOLS,
    TOTAL,
    bin_table,
    bits_table,
    default_weights,
)
from stac_latent.stages.lin.subbands import layout_of
from stac_latent.stages.transform.kernels import COMPILED

kinds = st.sampled_from(KINDS)
lams = st.sampled_from((0.0, 0.12, 1.0))


def planes_of(program, kind, seed):
    table, size = program
    return clear_margins(samples(kind, size, seed), table)


def encode(model, u, table, lam=0.12, weight=None):
    return model.encode(u, np.ones(1, np.float32) if weight is None else weight, table, lam)


def equal(a, b):
    return a.raw_bits == b.raw_bits and all(
        same_bits(getattr(a, n), getattr(b, n)) for n in ("q", "words", "states", "raw")
    )


@LAW
@given(program=programs(), model=models(), kind=kinds, seed=st.integers(0, 999), lam=lams)
def test_planes_come_back(program, model, kind, seed, lam):
    table, size = program
    coded = encode(model, planes_of(program, kind, seed), table, lam)
    assert (model.decode(coded, table, size) == coded.q).all()
    if kind == "zeros":
        assert not coded.q.any()
        assert coded.raw_bits == 0


@needs_numba
@settings(LAW, max_examples=60)
@given(
    program=programs(), model=models(), kind=kinds, seed=st.integers(0, 999), lam=lams, weighted=st.booleans()
)
def test_both_forms_give_the_same_bytes(program, model, kind, seed, lam, weighted):
    table, size = program
    u = planes_of(program, kind, seed)
    weight = np.random.default_rng(seed).uniform(0.01, 1, size).astype(np.float32) if weighted else None
    coded = encode(model, u, table, lam, weight)
    with plain():
        again = encode(model, u, table, lam, weight)
        assert equal(coded, again)
        decoded = model.decode(coded, table, size).copy()
    assert same_bits(decoded, model.decode(coded, table, size))


@LAW
@given(program=programs(), kind=kinds, seed=st.integers(0, 999))
def test_without_a_price_each_sample_is_rounded(program, kind, seed):
    table, _ = program
    u = planes_of(program, kind, seed)
    coded = encode(ContextModel.default(), u, table, lam=0.0)
    assert np.abs(coded.q - u).max(initial=0) <= 0.5
    # with one they may go towards zero, by one step or all the way
    dear = np.abs(encode(ContextModel.default(), u, table, lam=0.5).q)
    nearest = np.floor(np.abs(u) + 0.5)
    assert ((dear == 0) | (dear == nearest) | (dear == nearest - 1)).all()


def test_weights_protect_what_matters():
    layout = layout_of(((1, 64, 64),), 1)
    table, size = layout.program([[1], [1, 1, 1]])
    u = clear_margins(np.random.default_rng(0).laplace(0, 0.8, size).astype(np.float32), table)
    weight = np.ones(size, np.float32)
    weight[: size // 2] = 0.1
    q = encode(ContextModel.default(), u, table, 0.3, weight).q
    errors = np.square(u - q)
    assert errors[: size // 2].sum() > 1.3 * errors[size // 2 :].sum()


# -- tables ------------------------------------------------------------------------------------------------------------


def test_bins_are_half_octaves_in_integers():
    lut = bin_table()
    assert lut[0] == 0
    assert [int(lut[2**k]) for k in range(11)] == list(range(1, 23, 2))
    assert (np.diff(lut.astype(int)) >= 0).all()
    assert int(lut[-1]) == BINS - 1
    assert bits_table()[TOTAL] == 0
    assert bits_table()[TOTAL // 2] == 1


def test_a_pass_knows_what_it_has_coded():
    """To the left one, above three, each at most an escape; nothing beyond the ends."""
    m = np.array([[1, 0, 40], [0, 2, 3]])
    left, above = _numpy.same_pass(m)
    assert left.tolist() == [[0, 1, 0], [0, 0, 2]]
    assert above.tolist() == [[0, 0, 0], [1, 16, 15]]


@pytest.mark.parametrize("seed", range(4))
def test_frequencies_fill_the_range(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 2 ** rng.integers(1, 18), (BINS, SYMBOLS))
    counts[3] = 1
    counts[4] = [ADAPT_LIMIT, *[1] * 15]
    other = counts.copy()
    freq, cum = _numpy.renormalise(counts)
    assert (freq >= 1).all()
    assert (freq.sum(axis=1) == TOTAL).all()
    assert (cum[:, 1:] == np.cumsum(freq, axis=1)[:, :-1]).all()
    assert (counts.sum(axis=1) <= ADAPT_LIMIT * 9).all()
    if COMPILED:
        f, c = np.zeros((BINS, SYMBOLS), np.int64), np.zeros((BINS, SYMBOLS), np.int64)
        seen, fresh = np.zeros(BINS, np.int64), np.zeros(BINS, bool)
        _numba_encode.renormalise(other, f, c, seen, fresh)
        assert fresh.all()
        assert (seen == other.sum(axis=1)).all()
        assert (f == freq).all()
        assert (c == cum).all()
        assert (other == counts).all()


def test_models_are_checked():
    good = ContextModel.default()
    again = ContextModel.build(good.tensors())
    assert all((v == again.tensors()[k]).all() for k, v in good.tensors().items())
    with pytest.raises(BundleError, match=r"must be \(\(20, 4, 8\)"):
        ContextModel(good.weights[:5], good.counts, good.runs, good.signs)
    with pytest.raises(BundleError, match="counts must be positive"):
        ContextModel(good.weights, np.zeros_like(good.counts), good.runs, good.signs)
    with pytest.raises(BundleError, match="weights 0 to 1023"):
        ContextModel(good.weights + 1024, good.counts, good.runs, good.signs)
    with pytest.raises(BundleError, match="needs tensor 'runs'"):
        ContextModel.build({"weights": good.weights, "counts": good.counts})
    assert default_weights().max() <= 1023


# -- damage ------------------------------------------------------------------------------------------------------------


def decode(model, coded, table, size):
    """The planes, or None where the coder refuses."""
    try:
        return model.decode(coded, table, size).copy()
    except CorruptDataError:
        return None


def changed(coded, seed):
    """The coded planes with a few words, states or raw bits changed, missing or added."""
    rng = np.random.default_rng(seed)
    words, states, raw, n = coded.words.copy(), coded.states.copy(), coded.raw.copy(), coded.raw_bits
    for _ in range(rng.integers(1, 4)):
        what = rng.integers(7)
        if what == 0 and words.size:
            words[rng.integers(words.size)] = rng.integers(65536)
        elif what == 1:
            states[rng.integers(states.size)] = rng.integers(2**32)
        elif what == 2 and raw.size:
            raw[rng.integers(raw.size)] = rng.integers(256)
        elif what == 3:
            words = words[: rng.integers(words.size + 1)]
        elif what == 4:
            n = int(rng.integers(n + 1))
            raw = raw[: -(-n // 8)]
        elif what == 5:
            raw, n = np.full(64, rng.choice([0, 255]), np.uint8), 512
        else:
            words = np.append(words, rng.integers(0, 65536, 3).astype(np.uint16))
    return Coded(coded.q, words, states, raw, n)


@settings(LAW, max_examples=60)
@given(program=programs(12), model=models(), kind=kinds, seed=st.integers(0, 9999))
def test_damage_is_noticed_or_decodes_alike(program, model, kind, seed):
    """Never an index out of range; whatever one form makes of it, the other does."""
    table, size = program
    bad = changed(encode(model, planes_of(program, kind, seed), table), seed)
    one = decode(model, bad, table, size)
    if COMPILED:
        with plain():
            other = decode(model, bad, table, size)
        assert (one is None) == (other is None)
        assert one is None or (one == other).all()


def test_every_cut_is_noticed():
    layout = layout_of(((2, 16, 16),), 3)
    table, size = layout.program([[2], [2] * 3, [2] * 3, [1] * 3])
    model = ContextModel.default()
    coded = encode(model, clear_margins(samples("dense", size, 3) / 8, table), table)
    assert decode(model, coded, table, size) is not None
    for n in range(coded.words.size):
        assert (
            decode(
                model, Coded(coded.q, coded.words[:n], coded.states, coded.raw, coded.raw_bits), table, size
            )
            is None
        )
    for n in range(coded.raw_bits):
        cut = Coded(coded.q, coded.words, coded.states, coded.raw[: -(-n // 8)], n)
        assert decode(model, cut, table, size) is None


def test_no_escape_is_longer_than_a_sample():
    table, size = layout_of(((1, 1, 1),), 0).program([[1]])
    model = ContextModel.default()
    coded = encode(model, clear_margins(np.full(size, 2.0**22, np.float32), table), table)
    assert coded.q.max() == 2**22
    long = Coded(coded.q, coded.words, coded.states, np.full(16, 255, np.uint8), 128)
    assert decode(model, long, table, size) is None
    with plain():
        assert decode(model, long, table, size) is None


def test_constants_that_the_bitstream_is_made_of():
    assert (BINS, SYMBOLS, ESCAPE, TOTAL, LOW, ADAPT_LIMIT, COUNT) == (24, 16, 15, 2**14, 2**16, 2**16, 32)


@pytest.mark.slow
@needs_numba
def test_compiled_loops_stay_in_bounds(tmp_path):
    """Once more with numba's own checks, which are too slow for anything else."""
    code = "import test_planes as t; t.test_planes_come_back(); t.test_damage_is_noticed_or_decodes_alike()"
    checks = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **checks, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
