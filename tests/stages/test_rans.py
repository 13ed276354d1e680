"""The entropy coder: exact, close to the entropy, and never more than an error away from damaged bytes."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent.errors import BundleError, CorruptDataError, FieldError
from stac_latent.stages.rans.coder import TOTAL, Decoder, Model
from stac_latent.stages.rans.stage import Rans
from stac_latent.stages.rans.tables import TableSet, counts_of, laplace_tables, run_tables
from stac_latent.stages.transform import kernels
from stac_latent.testing import damaged, symbols

TABLES = laplace_tables()


def coder(channels, typical=4, predicted=(0,)):
    return Rans(TABLES, np.full(channels, typical), np.array(predicted, np.int64))


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 5), st.sampled_from(["int16", "int8"]), st.integers(0, 24), st.booleans())
def test_round_trip(data, channels, dtype, typical, predict):
    x = data.draw(symbols(channels, dtype))
    stage = coder(channels, typical, range(channels) if predict else ())
    back = stage.inverse(stage.forward(x))
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 300), (2, 300, 1), (1, 7, 5)])
@pytest.mark.parametrize("value", [0, 1, -32767, 32767, -32768])
def test_constant_and_extreme(shape, value):
    x = np.full(shape, value, np.int16)
    stage = coder(shape[0])
    np.testing.assert_array_equal(stage.inverse(stage.forward(x)), x)
    x[..., -1] = -1 - value  # differences beyond int16 in the predicted channel
    np.testing.assert_array_equal(stage.inverse(stage.forward(x)), x)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(0, 999))
def test_any_tables(data, seed):
    """Whatever a fit or a stranger's bundle holds, as long as counts are positive and sum up."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 7))
    radius = rng.integers(0, 60, count)
    tables = [counts_of(rng.dirichlet(np.full(2 * r + 2, 0.2)) + 1e-12) for r in radius]
    for t in range(int(rng.integers(0, count + 1))):  # the first ones nearly all zero: coded by runs
        tables[t] = counts_of(np.where(np.arange(2 * radius[t] + 2) == radius[t], 0.99, 0.01 * rng.random()))
    odd = [counts_of(rng.dirichlet(np.ones(n)) + 1e-9) for n in (17, 2 * count + 1)]
    table_set = TableSet(tables, radius, *odd, *run_tables(tables))
    stage = Rans(table_set, rng.integers(0, count + 1, 3), np.array([1]))
    again = Rans.build(stage.config(), stage.tensors())
    x = data.draw(symbols(3))
    np.testing.assert_array_equal(again.inverse(stage.forward(x)), x)


# -- size ------------------------------------------------------------------------------------------------------------


def laplace_bits(scale):
    """Entropy of a laplacian rounded to integers, bits a symbol."""
    k = np.arange(-4000, 4001)
    edges = np.abs(k)
    p = np.where(
        k == 0,
        1 - np.exp(-0.5 / scale),
        0.5 * (np.exp(-(edges - 0.5) / scale) - np.exp(-(edges + 0.5) / scale)),
    )
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 3.7, 20.0, 130.0])
def test_size_is_close_to_the_entropy(scale):
    rng = np.random.default_rng(7)
    x = np.rint(rng.laplace(0, scale, (64, 48, 48))).astype(np.int16)
    bits = 8 * len(coder(64, predicted=()).forward(x))
    ideal = x.size * laplace_bits(scale)
    classes = 48 * 48 * 4.6  # side information: a class for each cell, as noisy as its activity
    assert 0.97 * ideal < bits < 1.04 * ideal + classes + 64 * 8


def test_classes_pay_where_activity_varies():
    """Cells of two kinds cost less than a static model of the mixture could reach."""
    rng = np.random.default_rng(3)
    scale = np.where(np.arange(96)[:, None] < 48, 0.15, 12.0) * np.ones((1, 96))
    x = np.rint(rng.laplace(0, 1, (64, 96, 96)) * scale).astype(np.int16)
    _, counts = np.unique(x, return_counts=True)
    p = counts / x.size
    static = -(p * np.log2(p)).sum() * x.size
    assert 8 * len(coder(64, predicted=()).forward(x)) < 0.9 * static


def test_dead_channels_cost_nothing():
    x = np.zeros((256, 32, 32), np.int16)
    assert len(coder(256).forward(x)) < 450
    x[3] = np.random.default_rng(0).integers(-3, 4, (32, 32))
    alone = len(coder(1, predicted=()).forward(x[3:4]))
    assert len(coder(256).forward(x)) < alone + 350


def test_a_lone_symbol_in_a_large_quiet_channel_is_not_lost():
    """However many bits it costs elsewhere, no symbol may get a table that codes nothing."""
    bins, classes = np.zeros((1, 4_000_000), np.uint8), np.full(4_000_000, 7)
    bins[0, 5], classes[5] = 1, 0
    index = TABLES._best_index(bins, classes)
    assert coder(1).which(index)[0, classes[5]] > 0


@pytest.mark.parametrize("seed", range(3))
def test_compiled_and_plain_code_give_the_same_bytes(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    scales = 2.0 ** rng.integers(-5, 9, 40)[:, None, None]
    x = np.rint(rng.laplace(0, 1, (40, 33, 35)) * scales).astype(np.int16)
    first = coder(40).forward(x)
    monkeypatch.setattr("stac_latent.stages.transform.kernels.COMPILED", not kernels.COMPILED)
    assert coder(40).forward(x) == first
    np.testing.assert_array_equal(coder(40).inverse(first), x)


def test_memory_grows_with_the_symbols_only():
    x = np.random.default_rng(0).integers(-2, 3, (4, 320, 320)).astype(np.int16)
    coder(4).forward(x[:, :8, :8])
    tracemalloc.start()
    payload = coder(4).forward(x)
    coder(4).inverse(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * x.size + 60e6


# -- the model is exact ------------------------------------------------------------------------------------------------


def boundaries(model, size):
    """First of the coder's 2**24 quantiles that decodes to each symbol, found by decoding known states."""

    def symbol(quantile):
        state = constriction.stream.stack.AnsCoder(np.array([quantile, 1], np.uint32))
        return int(state.decode(model, 1)[0])

    out = []
    for s in range(size):
        lo, hi = 0, 2**24 - 1
        while lo < hi:
            middle = (lo + hi) // 2
            lo, hi = (lo, middle) if symbol(middle) >= s else (middle + 1, hi)
        out.append(lo)
    return np.array(out)


@pytest.mark.parametrize("table", [0, 6, 11, "class", "random"])
def test_model_follows_from_the_counts_in_integers(table):
    """Counts over 2**20 are exact in binary: the library's float path has nothing to round, on any machine."""
    counts = {
        "class": TABLES.class_counts,
        "random": counts_of(np.random.default_rng(1).dirichlet(np.ones(29))),
    }
    c = (counts[table] if isinstance(table, str) else TABLES.tables[table]).astype(np.int64)
    left = np.cumsum(c) - c
    expected = left * (2**24 - c.size) // TOTAL + np.arange(c.size)
    np.testing.assert_array_equal(boundaries(Model(c).coder, c.size), expected)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=300).filter(lambda p: sum(p) > 0))
def test_counts_sum_and_are_positive(p):
    c = counts_of(np.array(p))
    assert c.dtype == np.int32
    assert int(c.sum(dtype=np.int64)) == TOTAL
    assert c.min() >= 1


# -- damage --------------------------------------------------------------------------------------------------------------


def payload_of(seed=0):
    rng = np.random.default_rng(seed)
    x = np.rint(rng.laplace(0, 6, (6, 9, 11))).astype(np.int16)
    x[0, 0, 0] = 32000  # an escape
    return coder(6), x, coder(6).forward(x)


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_always_noticed(seed):
    stage, x, payload = payload_of(seed)
    for bad in damaged(payload, seed, 300):
        try:
            got = stage.inverse(bad)
        except CorruptDataError as exc:
            assert "rans" in str(exc)  # noqa: PT017 - harmless bits raise nothing
        else:
            np.testing.assert_array_equal(got, x)  # a bit that carries no information


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200))
def test_garbage(data):
    stage, _, payload = payload_of()
    with pytest.raises(CorruptDataError, match="rans"):
        stage.inverse(data)
    with pytest.raises(CorruptDataError, match="rans"):
        stage.inverse(payload[:28] + data + b"x")


@pytest.mark.parametrize("cells", [(4096, 4096), (2**31, 1), (1, 2**20), (0, 5), (65536, 65536)])
def test_a_header_cannot_ask_for_the_moon(cells):
    stage, _, payload = payload_of()
    forged = payload[:8] + struct.pack("<2I", *cells) + payload[16:]
    tracemalloc.start()
    with pytest.raises(CorruptDataError, match=r"cells"):
        stage.inverse(forged)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_bomb_of_escapes_is_not_inflated():
    stage, _, payload = payload_of()
    n_tail = struct.unpack_from("<I", payload, 24)[0]
    bomb = zlib.compress(bytes(64 << 20), 9)
    forged = payload[:24] + struct.pack("<I", len(bomb)) + payload[28 : len(payload) - n_tail] + bomb
    with pytest.raises(CorruptDataError, match="more escapes than symbols"):
        stage.inverse(forged)


def test_other_tables_do_not_decode():
    stage, _, payload = payload_of()
    other = Rans(laplace_tables(rounding=0.5), stage.typical, stage.predicted)
    with pytest.raises(CorruptDataError, match="rans"):
        other.inverse(payload)


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 4, 4), np.int16),
        np.zeros((1, 4, 4), np.int32),
        np.zeros((1, 4, 4)),
        np.zeros((4, 4), np.int16),
    ],
)
def test_wrong_symbols(x):
    with pytest.raises(FieldError, match=r"rans codes int8 or int16 symbols \(1, y, x\); got shape"):
        coder(1).forward(x)


def test_too_many_cells():
    x = np.broadcast_to(np.zeros(1, np.int16), (1, 4097, 4096))
    with pytest.raises(FieldError, match=r"at once; got 4097 x 4096\. Encode it in tiles"):
        coder(1).forward(x)


@pytest.mark.parametrize(
    ("key", "change", "text"),
    [
        ("counts", lambda a: a[:-1], "radii do not match the tables"),
        ("counts", lambda a: np.where(a == a.max(), a + 1, a), "positive counts that sum to 1048576"),
        ("counts", lambda a: a - a.min(), "positive counts"),
        ("radius", lambda a: a * 0 + 40000, "radii do not match"),
        ("class_counts", lambda a: a[1:], "sizes do not match their radii"),
        ("typical", lambda a: a + 99, r"must lie in 0\.\.24"),
        ("predicted", lambda a: a + 99, "predicted channels must lie below 3"),
        ("typical", lambda a: a.astype(np.float32), "type of kind 'iu'"),
        ("index_counts", None, "needs tensor 'index_counts'"),
    ],
)
def test_bad_tables(key, change, text):
    tensors = coder(3).tensors()
    tensors = {k: v for k, v in tensors.items() if k != key} | ({key: change(tensors[key])} if change else {})
    with pytest.raises(BundleError, match=text):
        Rans.build(coder(3).config(), tensors)


def test_newer_bitstream():
    config = {**coder(1).config(), "bitstream": "stac-latent-rans-2"}
    with pytest.raises(
        BundleError, match=r"'stac-latent-rans-2' is not known; this version reads 'stac-latent-rans-1'"
    ):
        Rans.build(config, coder(1).tensors())


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_own_decoder_equals_constriction(seed, sizes):
    """Several tables in one stream, of any length, peaked and flat; then reading on past its end."""
    rng = np.random.default_rng(seed)
    models = [Model(counts_of(rng.dirichlet(np.full(rng.integers(2, 400), 0.05)) + 1e-9)) for _ in sizes]
    messages = [
        rng.integers(0, m.counts.size, n).astype(np.int32) for m, n in zip(models, sizes, strict=True)
    ]
    coder = constriction.stream.stack.AnsCoder()
    for model, message in reversed(list(zip(models, messages, strict=True))):
        coder.encode_reverse(message, model.coder)
    words = coder.get_compressed()
    both = Decoder(words), constriction.stream.stack.AnsCoder(words) if words.size else coder
    for model, message in zip(models, messages, strict=True):
        np.testing.assert_array_equal(both[0].decode(model, message.size), message)
        np.testing.assert_array_equal(both[1].decode(model.coder, message.size), message)
    np.testing.assert_array_equal(both[0].decode(models[0], 9), both[1].decode(models[0].coder, 9))
