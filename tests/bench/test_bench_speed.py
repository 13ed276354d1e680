"""The clock's surroundings: the setting that comes nearest to a quality, budgets, windows of a store."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from stac_latent import open_codec
from stac_latent.bench.byte_budget import budget_of
from stac_latent.bench.coder import Entrant, Framed, Team
from stac_latent.bench.data.base import Dataset, Tile
from stac_latent.bench.speed import nearest_knob, run_speed
from stac_latent.bench.windows import run_windows
from stac_latent.spec import Band
from stac_latent.testing import make_field

BANDS = (Band("B02", "uint16", nodata=0, scale=1e-4), Band("B03", "uint16", nodata=0, scale=1e-4))
X = np.add.outer(np.arange(160), np.arange(160))[None].repeat(2, axis=0).astype(np.uint16) * 9 + 500
TILE = Tile("t", "somewhere", (X,))
SET = Dataset("set", "A set", (BANDS,), (TILE,))


class Known:
    """PSNR of the knob, whatever the field."""

    def __init__(self, knobs):
        self.knobs, self.asked = knobs, []

    def encode(self, _, knob):
        self.asked.append(knob)
        return [bytes(8)]

    def decode(self, _):
        sign = np.where(np.indices(X.shape).sum(axis=0) % 2, 1.0, -1.0)
        return [(X + sign * round(10_000 * 10 ** (-self.asked[-1] / 20))).astype(np.uint16)]


class NoMemory(Framed):
    """A peer whose library gives up."""

    name = "greedy"
    knobs = (1.0,)

    def encode_filled(self, *_):
        raise MemoryError("out of it")


def test_the_setting_is_bisected_then_interpolated():
    team = Known(tuple(float(k) for k in range(30, 60, 4)))
    assert nearest_knob(team, SET, TILE, 43.1) == pytest.approx(43.1, abs=0.2)
    assert len(team.asked) < 7
    assert nearest_knob(Known((50.0, 55.0)), SET, TILE, 20.0) == 50.0
    assert nearest_knob(Known((0.0,)), SET, TILE, 42.0) == 0.0


def test_a_budget_names_the_parts_of_the_decoder():
    bands = [Band("a", scale=1e-4), Band("b", scale=1e-4)]
    codec = open_codec("lin", bands=bands)
    data = codec.compress(make_field(bands, (300, 80), 1), step=50)
    found = budget_of(SimpleNamespace(codec=codec), data)
    assert list(found) == ["frame", "entropy", "rotation", "wavelet", "types"]
    assert all(seconds > 0 for seconds in found.values())
    other = open_codec("zstd", bands=bands)
    assert budget_of(SimpleNamespace(codec=other), other.compress(make_field(bands, (8, 8), 1))) is None
    assert budget_of(SimpleNamespace(), b"") is None


def test_what_fails_is_skipped_with_the_reason():
    result = run_speed(SET, [], [TILE], [Entrant("greedy", NoMemory)], size=64, threads=[1])
    assert result["rows"] == []
    assert result["skipped"] == {"greedy": "MemoryError: out of it"}


def test_windows_of_a_store_cold_opened_and_warm():
    found = run_windows(X, open_codec("dct", bands=list(BANDS), step=40), size=64, count=3)
    assert found["windows"] == 3
    assert found["psnr"] > 40
    assert 0 < found["bits_per_pixel"] < 16
    assert found["warm"]["median_ms"] < found["cold"]["max_ms"]
    assert 0 < found["aligned"]["median_ms"] <= found["aligned"]["max_ms"]


def test_windows_take_a_step_and_floats():
    bands = [Band("t2m", "float32", nodata=math.nan, unit="K")]
    x = (280 + X[:1] / 500).astype(np.float32)
    x[:, :9, :9] = np.nan
    codec = open_codec("lin", bands=bands, unit=0.01)
    coarse, fine = (run_windows(x, codec, step=s, size=32, count=1)["bits_per_pixel"] for s in (2.0, 0.02))
    assert coarse < fine


def test_a_team_has_the_knobs_of_its_coders():
    one = SimpleNamespace(knobs=(1.0, 2.0), encode=lambda _, k: bytes(int(k)), decode=len)
    team = Team([one, one])
    assert team.knobs == (1.0, 2.0)
    assert team.decode(team.encode([X, X], 2.0)) == [2, 2]
