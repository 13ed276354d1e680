"""The guard: its statistics, its calibration, and what ``encode`` does about tiles unlike those it knows."""

from __future__ import annotations

import functools
import json
import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pystac
import pytest
import zarr
from core_support import BANDS, check, make_scene, scene_field
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.tree import CatalogTree
from stac_latent.cli import app
from stac_latent.codec.bundle import load_bundle, read_bundle, save_bundle, write_bundle
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import (
    BundleError,
    CatalogError,
    CodecError,
    CorruptDataError,
    GuardError,
    GuardWarning,
)
from stac_latent.fitting.lin import fit_lin
from stac_latent.quality.ood_calibration import calibrated, guards_of
from stac_latent.quality.ood_score import Guard, Seen, conformal_level, fit_guard, scene_score
from stac_latent.store.zarr.residual import read_residual
from stac_latent.testing import make_field


@functools.cache
def guarded():
    """A codec of two bands with a guard, made once."""
    tiles = [make_field(BANDS, (64, 64), seed) for seed in range(36)]
    plain = fit_lin("guarded", lambda: ((t, t != 0) for t in tiles[:6]), BANDS, psnr=46)
    halves = [[[(t, t != 0)] for t in part] for part in (tiles[:18], tiles[18:])]
    return plain, calibrated(plain, lambda: halves[0], lambda: halves[1], note="made")


def odd_field(shape=(430, 430)):
    """A scene whose left tiles are noise."""
    field = make_field(BANDS, shape, 99)
    field[:, :, :208] = np.random.default_rng(0).integers(1, 60_000, (2, shape[0], min(208, shape[1])))
    return field


# -- statistics ------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 3000), share=st.floats(0.5, 0.999))
def test_the_conformal_rank_guarantees_the_share_that_it_states(n, share):
    rank, stated = conformal_level(n, share)
    assert 1 <= rank <= n
    assert rank / (n + 1) >= stated - 1e-4
    assert stated <= share + 1e-9


@settings(deadline=None)
@given(n=st.integers(1, 90), share=st.sampled_from([0.8, 0.9, 0.95, 0.99]), seed=st.integers(0, 99))
def test_a_scene_passes_where_chance_explains_its_tiles(n, share, seed):
    scores = np.random.default_rng(seed).uniform(0, 2, n)
    parts = [math.comb(n, j) * (1 - share) ** j * share ** (n - j) for j in range(n)]
    tail = np.cumsum(parts)
    allowed = min(next((k for k, p in enumerate(tail) if p >= 0.95), n - 1), n - 1)
    assert scene_score(scores, share) == sorted(scores)[::-1][allowed]


def test_a_scene_of_tiles_that_are_too_small_has_no_score():
    assert math.isnan(scene_score(np.array([np.nan, np.nan]), 0.99))
    assert scene_score(np.array([np.nan, 0.5, np.inf]), 0.99) == math.inf


def seen(rng, shift=0.0, rate=0.0):
    return [
        Seen(rng.normal(shift, 1, 6), 4096.0, rate + float(rng.normal(-s, 0.1)), float(rng.normal(s, 0.1)), s)
        for s in (1.0, 2.0, 3.0)
    ]


def test_of_tiles_of_the_same_kind_the_share_passes():
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(20):
        guard = fit_guard([seen(rng) for _ in range(60)], [seen(rng) for _ in range(99)], np.ones(2), 0.9)
        passed += [guard.score(s).score <= 1 for _ in range(50) for s in seen(rng)]
        assert guard.share == 0.9
    assert 0.89 <= np.mean(passed) <= 0.99


def test_each_measure_finds_its_own():
    rng = np.random.default_rng(1)
    guard = fit_guard([seen(rng) for _ in range(60)], [seen(rng) for _ in range(99)], np.ones(2), 0.95)
    (_, far, _), (_, dear, _) = seen(rng, shift=9), seen(rng, rate=2)
    assert guard.score(far).latent == guard.score(far).score > 2
    assert guard.score(dear).rate == guard.score(dear).score > 2
    worse = replace(seen(rng)[1], error=4.0)
    assert guard.score(worse).error == guard.score(worse).score > 2
    other = replace(dear, step=9.0)  # far beyond the steps calibrated: rate and error say nothing
    assert math.isnan(guard.score(other).rate)
    assert math.isnan(guard.score(replace(far, pixels=100.0)).score)


def test_a_guard_reads_what_it_writes():
    _, codec = guarded()
    (guard,) = guards_of(codec)
    row = json.loads(json.dumps(guard.to_dict()))
    assert Guard.from_dict(row, 2).to_dict() == row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "the bundle's guard is not readable"),
        ({"whitening": [[1.0]]}, "the bundle's guard does not hold together (whitening)"),
        ({"units": [1.0, float("nan")]}, "does not hold together (units)"),
        ({"units": [0.0, 1.0]}, "sizes, or deviations that are not positive"),
        ({"limits": [1.0, 0.0, 1.0]}, "sizes, or deviations that are not positive"),
        ({"tiles": "many"}, "the bundle's guard is not readable: ValueError"),
    ],
)
def test_a_malformed_guard(change, message):
    _, codec = guarded()
    row = {**codec.about["guard"]["lattices"][0], **change}
    if change.get("steps", 1) is None:
        del row["steps"]
    with pytest.raises(BundleError, match=re.escape(message)):
        Guard.from_dict(row, 2)


def test_a_guard_of_another_form():
    _, codec = guarded()
    other = replace(codec, about={"guard": {"format": "stac-latent-guard-9"}})
    with pytest.raises(
        BundleError, match=re.escape("has a guard of the form 'stac-latent-guard-9'; this version reads")
    ):
        guards_of(other)
    with pytest.raises(BundleError, match="is not one of 1 lattice"):
        guards_of(replace(codec, about={"guard": {**codec.about["guard"], "lattices": []}}))


# -- calibration -----------------------------------------------------------------------------------------------


def test_a_guard_is_no_part_of_the_space(tmp_path):
    plain, codec = guarded()
    assert codec.space == plain.space
    again = load_bundle(save_bundle(codec, tmp_path / "b"))
    assert guards_of(again)[0].to_dict() == guards_of(codec)[0].to_dict()
    assert read_bundle(write_bundle(plain)).space == again.space
    assert guards_of(plain) is None


def test_too_few_tiles():
    plain, _ = guarded()
    tiles = [[(make_field(BANDS, (64, 64), k), None)] for k in range(7)]
    with pytest.raises(
        CodecError,
        match=re.escape("7 and 7 tiles are too few to calibrate a guard; each half needs at least 8"),
    ):
        calibrated(plain, lambda: tiles, lambda: tiles)


def test_so_few_tiles_state_a_lower_share():
    _, codec = guarded()
    (guard,) = guards_of(codec)
    assert guard.tiles == (18, 18)
    assert guard.share == pytest.approx(18 / 19, abs=1e-4)


# -- encode ----------------------------------------------------------------------------------------------------


def test_a_usual_scene_is_silent(tmp_path):
    _, codec = guarded()
    scene = make_scene(tmp_path / "raw", scene_field((430, 430), 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuardWarning)
        (item,) = encode(scene.item, codec, tmp_path / "cat")
    fields = item.assets["latent"].extra_fields
    assert 0 < fields["latent:ood_score"] <= 1
    assert item.properties["latent:ood_score"] == fields["latent:ood_score"]
    check(item.get_self_href())
    assert "latent:residual" not in fields


def test_warn_says_and_records_which_tiles(tmp_path):
    _, codec = guarded()
    scene = make_scene(tmp_path / "raw", odd_field())
    text = r"item 'scene': it is unlike what the codec was calibrated on: score .* \(1 is the edge that 94.74 % of such tiles keep\), 2 of 4 "
    with pytest.warns(GuardWarning, match=text):
        (item,) = encode(scene.item, codec, tmp_path / "cat")
    fields = item.assets["latent"].extra_fields
    assert fields["latent:ood_score"] > 1
    assert fields["latent:ood_tiles"] == 2
    scores = zarr.open_group(item.assets["latent"].get_absolute_href(), mode="r")["ood"]
    assert scores.attrs["measure"] == ["score", "rate", "latent", "error"]
    assert scores.shape == (4, 2, 2)
    assert (scores[0, :, 0] > 1).all()
    assert not (scores[0, :, 1] > 1).any()
    check(item.get_self_href())


def test_refuse_leaves_the_item_out(tmp_path):
    _, codec = guarded()
    scene = make_scene(tmp_path / "raw", odd_field())
    with pytest.raises(
        GuardError, match=r"item 'scene' is refused and was not catalogued: it is unlike .* with guard='warn'"
    ):
        encode(scene.item, codec, tmp_path / "cat", guard="refuse")
    assert list(CatalogTree(tmp_path / "cat").root.rglob("*.zarr")) == []
    assert list(CatalogTree(tmp_path / "cat").root.rglob("scene.json")) == []


@pytest.mark.parametrize("bound", [0.0, 20.0])
def test_fallback_keeps_flagged_tiles_and_leaves_the_others(tmp_path_factory, bound):
    _, codec = guarded()
    folder = tmp_path_factory.mktemp("fallback")
    scene = make_scene(folder / "raw", odd_field())
    with pytest.warns(GuardWarning, match=f"these are kept within an error of {bound:g}"):
        (item,) = encode(scene.item, codec, folder / "cat", guard="fallback", fallback_bound=bound)
    with pytest.warns(GuardWarning):
        (bare,) = encode(scene.item, codec, folder / "bare", guard="warn")
    fields = item.assets["latent"].extra_fields
    assert fields["latent:fallback_tiles"] == 2
    assert fields["latent:fallback_bound"] == bound
    assert fields["latent:residual"].endswith("-sparse")
    assert "latent:error_bound" not in fields
    check(item.get_self_href())
    reader, plain = LatentReader.open(item), LatentReader.open(bare)
    windows = dict(reader.chunk_windows())
    _, (_, x1) = windows[0, 0]
    got, other = reader.read_field().astype(int), plain.read_field().astype(int)
    error = np.abs(got - scene.field)
    assert error[:, :, :x1].max() <= bound
    assert np.array_equal(got[:, :, x1:], other[:, :, x1:])
    assert fields["latent:max_error"] == error.max()
    assert fields["latent:psnr"] > bare.assets["latent"].extra_fields["latent:psnr"]


def test_a_residual_that_is_lost_is_missed(tmp_path):
    _, codec = guarded()
    scene = make_scene(tmp_path / "raw", odd_field())
    with pytest.warns(GuardWarning):
        (item,) = encode(scene.item, codec, tmp_path / "cat", guard="fallback")
    array = zarr.open_array(f"{item.assets['latent'].get_absolute_href()}/residual", mode="r+")
    assert read_residual(array, 1, 1, sparse=True) == b""
    with pytest.raises(CorruptDataError, match="is missing or cut short"):
        read_residual(array, 1, 1)
    array[0, 0, :4] = 0
    with pytest.raises(CorruptDataError, match="is missing or cut short"):
        LatentReader.open(item).read_field()


def test_off_and_no_calibration(tmp_path):
    plain, codec = guarded()
    scene = make_scene(tmp_path / "raw", odd_field((128, 120)))
    for k, (which, policy) in enumerate([(codec, "off"), (replace(plain, name="bare"), None)]):
        (item,) = encode(scene.item, which, tmp_path / str(k), guard=policy)
        assert not any("ood" in f or "guard" in f for f in item.assets["latent"].extra_fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guard": "panic"}, "guard='panic'; expected 'warn', 'fallback', 'refuse', 'off'"),
        (
            {"guard": "fallback", "error_bound": 2},
            "error_bound keeps every tile within its bound already; leave it out",
        ),
        (
            {"guard": "fallback", "fallback_bound": -1},
            "fallback_bound=-1; expected a number from 0 on in the stored unit",
        ),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, options, message):
    _, codec = guarded()
    scene = make_scene(tmp_path / "raw", scene_field((128, 120)))
    with pytest.raises(CatalogError, match=re.escape(message)):
        encode(scene.item, codec, tmp_path / "cat", **options)


def test_a_policy_without_a_calibration(tmp_path):
    plain, _ = guarded()
    scene = make_scene(tmp_path / "raw", scene_field((128, 120)))
    with pytest.raises(CatalogError, match=re.escape("codec 'lin-2' has no guard: it was never calibrated.")):
        encode(scene.item, replace(plain, name="lin-2"), tmp_path / "cat", guard="warn")


def test_checks_are_recorded_warned_of_and_refused(tmp_path):
    plain, _ = guarded()
    scene = make_scene(tmp_path / "raw", scene_field((128, 120)))
    with pytest.warns(GuardWarning, match=r"item 'scene': check psnr>=200 is missed: psnr is \d\d\."):
        (item,) = encode(
            scene.item, plain, tmp_path / "cat", checks=["psnr>=200", "max_error<=60000:refuse", "sam<=90"]
        )
    fields = item.assets["latent"].extra_fields
    assert fields["latent:checks"] == ["psnr>=200:warn", "max_error<=60000:refuse", "sam<=90:warn"]
    assert fields["latent:check_values"][0] == pytest.approx(fields["latent:psnr"])
    assert fields["latent:check_values"][1] == fields["latent:max_error"]
    check(item.get_self_href())
    with pytest.raises(GuardError, match=r"item 'scene' is refused .* check psnr>=200 is missed"):
        encode(scene.item, plain, tmp_path / "other", checks=["psnr>=200:refuse"])


def test_from_the_command_line(tmp_path):
    _, codec = guarded()
    bundle = save_bundle(codec, tmp_path / "bundle")
    odd = make_scene(tmp_path / "odd", odd_field(), name="odd")
    usual = make_scene(tmp_path / "usual", scene_field((430, 430), 50), name="usual")
    raw = tmp_path / "raw.json"
    for scene in (odd, usual):
        scene.item.make_asset_hrefs_absolute()
    pystac.ItemCollection([odd.item, usual.item]).save_object(str(raw))
    run = CliRunner()
    args = ["encode", str(raw), str(tmp_path / "cat"), "--codec", str(bundle)]
    done = run.invoke(app, [*args, "--guard", "refuse", "--check", "psnr>=20:refuse", "--json"])
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert [row["id"] for row in result["items"]] == ["usual"]
    assert "item 'odd' is refused and was not catalogued" in result["refused"][0]
    assert "refused item 'odd'" in done.stderr
    again = run.invoke(app, [*args, "--ids", "odd", "--guard", "fallback", "--fallback-bound", "2"])
    assert again.exit_code == 0
    assert "warning item 'odd': it is unlike" in again.stderr
    assert "these are kept within an error of 2" in again.stderr
    wrong = run.invoke(app, [*args, "--guard", "panic"])
    assert wrong.exit_code == 2
    assert "--guard is warn or fallback or refuse or off" in wrong.output
