"""The ``fast`` stage: the symbols of ``lin``, a correction that never hurts, and no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lin_support import LAW, needs_numba, plain, same_bits
from neural_support import BANDS, chains, network

from stac_latent.codec.bundle import load_bundle, save_bundle
from stac_latent.errors import BundleError, CorruptDataError
from stac_latent.stages.lin.lifting import analyse, levels_of
from stac_latent.stages.lin.payload import unpack
from stac_latent.stages.neural import ops
from stac_latent.stages.neural.network import Network, details, low_bands, rate_feature
from stac_latent.stages.neural.ops import activate, around, contrast, finer, point
from stac_latent.stages.neural.stage import Fast
from stac_latent.testing import CodecConformance, StageConformance, make_field


def tile(h=64, w=48, bands=2, seed=0):
    """Coefficients of a tile, in Mallat's layout."""
    x = make_field(BANDS[:bands], (h, w), seed).astype(np.float32)
    analyse(x, levels_of(h, w))
    return x


def halves(stage, payload):
    """Shares of the correction, and the payload of ``lin``."""
    size = (len(stage.network.scales) + 1) // 2
    return payload[:size], payload[size + 1 :]


# -- laws ------------------------------------------------------------------------------------------------------------


class TestStage(StageConformance):
    channels = 2 * 64
    tolerance = None

    def make(self):
        return chains()[1].stages[-1]

    def example(self, cells, seed):
        rng = np.random.default_rng(seed)
        return rng.normal(0, 300, (self.channels, *cells)).astype(np.float32)


class TestCodec(CodecConformance):
    def make(self):
        return chains()[1]

    def test_windows(self):
        """Tiles are coded alone, from the corner: windows are cut from what they decode to."""
        field, _ = self.scene((56, 6))
        latent = self.codec.encode(field, upto="latent")
        assert np.array_equal(self.codec.encode(field[:, :224], upto="latent"), latent[:, :28])
        payload, window = self.codec.encode(field), ((13, 301), (5, 17))
        cut = (slice(None), *(slice(*w) for w in window))
        assert np.array_equal(self.codec.decode(payload, window=window), self.codec.decode(payload)[cut])


# -- against lin -----------------------------------------------------------------------------------------------------


def test_a_network_of_zeros_is_lin_bit_for_bit():
    base, fast = chains(network())
    field = make_field(BANDS, (400, 40), 3)
    a, b = base.compress(field, step=60), fast.compress(field, step=60)
    assert np.array_equal(base.decompress(a), fast.decompress(b))
    tile_payloads = 2
    assert len(b) - len(a) == 2 * tile_payloads


def test_symbols_are_those_of_lin():
    base, fast = chains()
    field = make_field(BANDS, (64, 64), 3)
    mine, theirs = (c.entropy_encode(c.encode(field, upto="symbols")) for c in (fast, base))
    shares, payload = halves(fast.stages[-1], mine)
    assert payload == theirs
    assert len(shares) == 1


@LAW
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    weights=st.floats(0.01, 1.0),
    step=st.floats(0.5, 3000.0),
    seed=st.integers(0, 99),
)
def test_no_correction_hurts(size, weights, step, seed):
    lin, fast = (c.stages[-1] for c in chains(network(size=weights, seed=seed)))
    x = tile(*size, seed=seed)
    payload, mse = fast.code_measured(fast.prepare([x]), step)
    plain_payload, plain_mse = lin.code_measured(lin.prepare([x]), step)
    assert mse <= plain_mse
    errors = [
        float(np.square(s.decode_tile(p)[0] - x, dtype=np.float64).mean())
        for s, p in ((fast, payload), (lin, plain_payload))
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-5


def test_a_correction_that_helps_is_taken():
    """The network adds a constant to the finest details, which these tiles have."""
    bare = network(widths=(1,), blocks=(0,))
    scale = replace(bare.scales[0], leave_bias=np.full(6, 0.2, np.float32))
    lin, fast = (c.stages[-1] for c in chains(Network((scale,))))
    x = np.zeros((2, 64, 64), np.float32)
    for rows, columns in details(x.shape, levels_of(64, 64), 1):
        x[:, rows, columns] = 10.0
    payload, mse = fast.code_measured(fast.prepare([x]), 40.0)
    assert halves(fast, payload)[0] == bytes([10 << 4])  # 10 / (0.2 * 40) = 1.25
    (decoded,) = fast.decode_tile(payload)
    assert np.abs(decoded - x).max() < 1e-4
    assert mse < 1e-6 < lin.code_measured(lin.prepare([x]), 40.0)[1]


def test_targets_count_the_correction():
    _, fast = chains()
    field = make_field(BANDS, (80, 96), 5)
    data = fast.compress(field, psnr=45.0)
    error = fast.decompress(data).astype(float) - field
    valid = field != 0
    assert -10 * np.log10(np.square(error[valid]).mean() / 1e8) >= 44.9


def test_direct_is_the_chain():
    _, fast = chains()
    field = make_field(BANDS, (264, 520), 2)
    payload = fast.encode(np.maximum(field, 1))
    assert np.array_equal(fast.decode(payload), fast.decode(fast.entropy_decode(payload)))


def test_some_bands_are_those_of_all():
    _, fast = chains(network(size=0.3))
    payload = fast.encode(make_field(BANDS, (64, 64), 3))
    np.testing.assert_array_equal(fast.decode(payload, bands=[1]), fast.decode(payload)[1:2])


def test_latents_are_corrected():
    base, fast = chains(network(size=0.3))
    field = make_field(BANDS, (64, 64), 3)
    a, b = (c.decode(c.encode(field), upto="latent") for c in (base, fast))
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.float32


# -- bundles ---------------------------------------------------------------------------------------------------------


def test_bundle(tmp_path):
    _, fast = chains()
    again = load_bundle(save_bundle(fast, tmp_path), space=fast.space)
    field = make_field(BANDS, (70, 65), 1)
    data = fast.compress(field)
    assert again.compress(field) == data
    assert np.array_equal(again.decompress(data), fast.decompress(data))
    assert again.spec.determinism == "exact"
    assert again.bitstream == "stac-latent-fast-1"


def test_decodes_without_torch(tmp_path):
    _, fast = chains()
    save_bundle(fast, tmp_path / "bundle")
    field = make_field(BANDS, (64, 64), 1)
    (tmp_path / "data").write_bytes(fast.compress(field))
    np.save(tmp_path / "decoded.npy", fast.decompress((tmp_path / "data").read_bytes()))
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from pathlib import Path
from stac_latent import open_codec
folder = Path(sys.argv[1])
codec = open_codec(folder / "bundle")
assert np.array_equal(codec.decompress((folder / "data").read_bytes()), np.load(folder / "decoded.npy"))
"""
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr


def test_weights_of_other_shapes_are_refused():
    net = network()
    with pytest.raises(
        BundleError, match=r"weights of level 1 have shapes .*'rate': \(7,\).*expected .*'rate': \(8,\)"
    ):
        Network((replace(net.scales[0], rate=np.zeros(7, np.float32)), net.scales[1]))
    with pytest.raises(BundleError, match="the network is for 3 bands, the basis for 2"):
        chains(network(bands=3))
    with pytest.raises(BundleError, match="has no level"):
        Network(())
    with pytest.raises(BundleError, match="at most 6 levels; got 7"):
        chains(network(widths=(1,) * 7, blocks=(0,) * 7))
    with pytest.raises(BundleError, match=r"stage 'fast' needs tensor 'net.2.block0'"):
        Network.build({k: v for k, v in net.tensors().items() if not k.startswith("net.2")}, [1, 2])


# -- damage ----------------------------------------------------------------------------------------------------------


def test_damaged_shares():
    stage = chains()[1].stages[-1]
    payload = stage.code(stage.prepare([tile()]), 30.0)
    for at in range(4):
        for flip in (1, 16, 128):
            bad = payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :]
            with pytest.raises(
                CorruptDataError, match="fast: the checksum" if at < 2 else "no fast bitstream"
            ):
                stage.decode_tile(bad)
    for n in range(12):
        with pytest.raises(CorruptDataError):
            stage.decode_tile(payload[:n])
    with pytest.raises(CorruptDataError, match="it is no fast bitstream"):
        stage.decode_tile(halves(stage, payload)[1])


# -- the network -----------------------------------------------------------------------------------------------------


def slow_around(x, weight, bias):
    """3 x 3 convolution by its definition."""
    h, w = x.shape[1:]
    wide = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), h, w))
    for i in range(3):
        for j in range(3):
            out += np.einsum(
                "oc,chw->ohw", weight[:, :, 3 * i + j].astype(np.float64), wide[:, i : i + h, j : j + w]
            )
    return out + bias[:, None, None]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 7), (5, 9, 1), (4, 33, 260), (7, 40, 70)])
@pytest.mark.parametrize("outputs", [1, 6])
def test_convolutions(shape, outputs, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    weight = rng.normal(size=(outputs, shape[0], 9)).astype(np.float32)
    bias = rng.normal(size=outputs).astype(np.float32)
    wide, single = around(x, weight, bias), point(x, weight[:, :, 4].copy(), bias)
    assert np.allclose(wide, slow_around(x, weight, bias), atol=1e-4)
    assert np.allclose(single, np.einsum("oc,chw->ohw", weight[:, :, 4], x) + bias[:, None, None], atol=1e-5)
    monkeypatch.setattr(ops, "COMPILED", False)
    assert same_bits(around(x, weight, bias), wide)
    assert same_bits(point(x, weight[:, :, 4].copy(), bias), single)


@needs_numba
def test_pixels_are_the_same_without_numba(monkeypatch):
    _, fast = chains(network(size=0.1))
    monkeypatch.setattr(Fast, "_shares", lambda *_: ([9, 5], 0.0))
    field = np.maximum(make_field(BANDS, (72, 88), 1), 1)
    data = fast.encode(field)
    assert halves(fast.stages[-1], data)[0] == bytes([9 << 4 | 5])
    decoded = fast.decode(data)
    assert not np.array_equal(decoded, chains()[0].decode(halves(fast.stages[-1], data)[1]))
    with plain():
        monkeypatch.setattr(ops, "COMPILED", False)
        assert np.array_equal(fast.decode(data), decoded)
        assert fast.encode(field) == data


def test_contrast_is_what_differs_from_the_neighbours():
    x = np.zeros((1, 5, 4), np.float32)
    x[0, 0, 0] = 4.0
    got = contrast(x)
    assert got.shape == x.shape
    assert got[0, 0, 0] == 3 / (1 + 3 / 8)  # a mean of four at the corner
    assert np.isclose(got[0, 0, 1], -(4 / 6) / (1 + 4 / 6 / 8))
    assert got[0, 0, 2] == 0
    assert np.allclose(contrast(np.full((2, 3, 7), 11.0, np.float32)), 0, atol=1e-6)


def test_activation():
    assert activate(np.array([-8.0, 0.0, 3.0], np.float32)).tolist() == [-1.0, 0.0, 3.0]


def test_the_rate_is_exact_at_powers_of_two_and_rises():
    assert rate_feature(512.0) == 0.0
    assert rate_feature(64.0) == -1.0
    steps = np.geomspace(1, 1e4, 200)
    found = [rate_feature(s) for s in steps]
    assert np.all(np.diff(found) > 0)
    assert np.abs(np.array(found) - (np.log2(steps) / 3 - 3)).max() < 0.03


def test_finer_puts_four_channels_side_by_side():
    x = np.arange(4, dtype=np.float32).reshape(4, 1, 1)
    assert finer(x, 2, 2).tolist() == [[[0, 1], [2, 3]]]
    assert finer(x, 1, 2).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (13, 7), (40, 72), (104, 256)])
def test_low_bands(size):
    x = make_field(BANDS, size, 0).astype(np.float32)
    levels, full = levels_of(*size), x.copy()
    analyse(full, levels)
    kept = full.copy()
    found = low_bands(full, levels, 1, levels) if levels else {}
    assert np.array_equal(full, kept)
    assert sorted(found) == list(range(1, levels + 1))
    for level, low in found.items():
        want = x.copy()
        analyse(want, level)
        assert np.allclose(low, want[:, : low.shape[1], : low.shape[2]], atol=0.05)


def test_as_torch_has_it():
    torch = pytest.importorskip("torch", reason="compares with torch's own convolutions")
    from stac_latent.train.model import Residual, network_of

    torch.manual_seed(0)
    module = Residual(2, (4, 6, 5), (1, 2, 0))
    for p in module.parameters():
        torch.nn.init.normal_(p, 0, 0.2)
    net = network_of(module)
    assert Network.build(net.tensors(), net.blocks).macs == net.macs
    for size in ((64, 96), (8, 8), (72, 40), (13, 7), (1, 9)):
        levels = levels_of(*size)
        x = tile(*size) - 1000
        lows = low_bands(x, levels, 1, min(levels, 3)) if levels else {}
        with torch.no_grad():
            expected = module(
                torch.from_numpy(x)[None], levels, torch.tensor([300.0]),
                {k: torch.from_numpy(v)[None] for k, v in lows.items()},
            )[0].numpy()  # fmt: skip
        got = x.copy()
        for level, parts in net.corrections(x, levels, 300.0):
            for part, (rows, columns) in zip(parts, details(x.shape, levels, level), strict=True):
                got[:, rows, columns] += part
        assert np.allclose(got, expected, atol=2e-2)
        assert (
            unpack(chains()[0].stages[-1].code(chains()[0].stages[-1].prepare([x]), 5.0), 2)[0].levels
            == levels
        )


def test_stage_is_known_by_name():
    from stac_latent.stages import stage_class

    assert stage_class("fast") is Fast
