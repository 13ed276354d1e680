"""Training: configuration, split, resuming to the bit, what is written, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from core_support import make_scene
from neural_support import BANDS
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs torch")

from stac_latent.cli import app  # noqa: E402
from stac_latent.codec.bundle import load_bundle, save_bundle  # noqa: E402
from stac_latent.codec.shipped import dct, lin  # noqa: E402
from stac_latent.errors import TrainError  # noqa: E402
from stac_latent.testing import make_field  # noqa: E402
from stac_latent.train.config import Augment, Config, Net, Optimiser, Source, Split, read_config  # noqa: E402
from stac_latent.train.data import held_places, read_scenes  # noqa: E402
from stac_latent.train.loop import Interrupted, learning_rate  # noqa: E402
from stac_latent.train.model import Residual  # noqa: E402
from stac_latent.train.run import train  # noqa: E402
from stac_latent.train.sample import Sampler  # noqa: E402
from stac_latent.train.state import CHECKPOINT, State  # noqa: E402

SIDE = 64


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(path, field, nodata=0):
    """A GeoTIFF without a place on Earth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=field.shape[1], width=field.shape[2], count=len(field), dtype=field.dtype,
        nodata=nodata, transform=rasterio.Affine(1, 0, 0, 0, -1, 0.5),
    ) as dst:  # fmt: skip
        dst.write(field)


def doubled(seed, side=SIDE):
    """Bands of half the resolution, each pixel four times but for the last digit: fine details follow from the coarse ones."""
    field = np.maximum(make_field(BANDS, (side // 2, side // 2), seed), 1).repeat(2, axis=1).repeat(2, axis=2)
    return field + np.random.default_rng(seed).integers(0, 2, field.shape, field.dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four places with two dates each, and a base codec; not to be changed."""
    path = tmp_path_factory.mktemp("data")
    for place in range(4):
        for date in range(2):
            write(path / "scenes" / f"site{place}_{date}.tif", doubled(10 * place + date))
    save_bundle(replace(lin(BANDS, step=100.0, mean=1500.0), name="base"), path / "base")
    return path


def config(folder, out, **changes):
    """Four steps of a tiny network."""
    made = Config(
        "tiny", str(folder / "base"), (Source("scenes/*.tif", place=r"(site\d)", licence="CC0-1.0"),), str(out), str(folder),
        seed=3, split=Split(("site3",)), net=Net((4, 6), (1, 1)),
        optimiser=Optimiser(steps=4, batch_pixels=2 * SIDE**2, check_every=2, warmup=1, step_range=(60.0, 600.0)),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """One training; not to be changed."""
    torch.set_num_threads(1)
    return train(config(folder, tmp_path_factory.mktemp("run") / "out"))


# -- the whole line --------------------------------------------------------------------------------------------------


def test_bundle_opens_and_codes(trained):
    codec = load_bundle(trained.path, space=trained.codec.space)
    assert [s.name for s in codec.stages] == ["normalise", "pyramid", "fast"]
    field = make_field(BANDS, (90, 70), 5)
    decoded = codec.decompress(codec.compress(field, step=50))
    assert decoded.shape == field.shape
    assert np.array_equal(decoded == 0, field == 0)


def test_card(trained):
    about = trained.codec.about
    assert about["fitted_on"] == ["site0", "site1", "site2"]
    assert about["held_out"] == ["site3"]
    assert about["sources"] == [
        {"from": "scenes/*.tif", "licence": "CC0-1.0", "pixels": 6 * SIDE**2, "places": 3}
    ]
    assert about["training"]["iterations"] == 4
    assert about["training"]["torch"]
    assert about["network"]["widths"] == [4, 6]
    assert set(about["against_base"]["places"]) == {"site3"}
    assert about["against_base"]["tiles"] == 2
    item = json.loads((trained.path / "item.json").read_text())
    assert item["properties"]["mlm:hyperparameters"]["seed"] == 3


def test_log(trained):
    rows = (trained.path.parent / "log.csv").read_text().splitlines()
    assert rows[0] == "iteration,seconds,train_gain_db,held_out_gain_db,learning_rate"
    assert [r.split(",")[0] for r in rows[1:]] == ["2", "4"]


def test_the_same_seed_gives_the_same_codec(folder, tmp_path, trained):
    assert train(config(folder, tmp_path)).codec.space == trained.codec.space
    assert train(config(folder, tmp_path / "b", seed=4)).codec.space != trained.codec.space


def test_more_workers_draw_the_same(folder, tmp_path, trained):
    assert train(config(folder, tmp_path, workers=3)).codec.space == trained.codec.space


def test_ctrl_c_saves_and_resume_goes_on_to_the_same_bits(folder, tmp_path, trained):
    c = config(folder, tmp_path)
    seen = []

    def report(label, done, total):
        if label == "train":
            seen.append(done)
            if done == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped after 3 of 4 steps; go on with --resume"):
        train(c, progress=report)
    assert seen == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(TrainError, match="holds a checkpoint; go on from it with --resume"):
        train(c)
    done = train(c, resume=True)
    assert done.codec.space == trained.codec.space
    for name, value in trained.codec.tensors().items():
        assert np.array_equal(value, done.codec.tensors()[name]), name
    assert [r.split(",")[3] for r in (tmp_path / "log.csv").read_text().splitlines()] == [
        r.split(",")[3] for r in (trained.path.parent / "log.csv").read_text().splitlines()
    ]


def test_state_survives_its_file(folder, tmp_path):
    c = config(folder, tmp_path)
    a, b = (State.start(c, 2, torch.device("cpu")) for _ in range(2))
    for p in a.model.parameters():
        p.grad = torch.ones_like(p)
    a.optimiser.step()
    a.iteration, a.best_score, a.history = 7, 0.25, [{"iteration": 7}]
    a.follow(0.9)
    a.save(tmp_path, c)
    b.restore(tmp_path, c)
    for mine, theirs in ((a.model, b.model), (a.average, b.average)):
        assert all(torch.equal(x, y) for x, y in zip(mine.parameters(), theirs.parameters(), strict=True))
    assert (b.iteration, b.best_score, b.history) == (7, 0.25, [{"iteration": 7}])
    for mine, theirs in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(a.optimiser.state[mine]["exp_avg_sq"], b.optimiser.state[theirs]["exp_avg_sq"])


def test_learns_what_there_is_to_learn(folder, tmp_path):
    o = Optimiser(steps=60, batch_pixels=4 * SIDE**2, check_every=60, warmup=5, step_range=(100.0, 300.0))
    done = train(config(folder, tmp_path, net=Net((8, 8), (1, 1)), optimiser=o))
    assert done.summary["held_out_gain_db"] > 0.05
    assert done.summary["against_base"]["bd_rate_percent"] < 0


def test_stops_early_where_nothing_is_gained(folder, tmp_path):
    o = Optimiser(
        steps=50, batch_pixels=SIDE**2, check_every=1, patience=2, learning_rate=1e-30, weight_decay=0.0
    )
    done = train(config(folder, tmp_path, optimiser=o))
    assert done.summary["iterations"] == 2
    assert done.summary["best_iteration"] == 0
    assert not done.summary["worth_it"]
    base = load_bundle(folder / "base")
    field = make_field(BANDS, (64, 64), 5)
    assert np.array_equal(
        base.decompress(base.compress(field)), done.codec.decompress(done.codec.compress(field))
    )


# -- data ------------------------------------------------------------------------------------------------------------


def test_places_are_split_whole(folder, tmp_path):
    c = config(folder, tmp_path, split=Split(("site1",), share=0.34, exclude=("site0",)))
    scenes = read_scenes(c, BANDS)
    apart = {s.place for s in scenes.held_out}
    assert "site1" in apart
    assert len(apart) == 2
    assert {s.place for s in scenes.train}.isdisjoint(apart | {"site0"})
    assert len(scenes.train) == 2
    places = {f"p{k}" for k in range(40)}
    assert len(held_places(places, Split(share=0.25), 0)) == 10
    assert held_places(places, Split(share=0.25), 0) == held_places(places, Split(share=0.25), 0)
    assert held_places(places, Split(share=0.25), 0) != held_places(places, Split(share=0.25), 1)


def test_holes_small_scenes_and_dark_pixels(folder, tmp_path):
    x = np.maximum(make_field(BANDS, (70, 90), 0), 1)
    holed, empty = x.copy(), x.copy()
    holed[:, 10:20, 30:40], empty[:, 5:] = 0, 0
    for name, field in (("a-full", x), ("b-holed", holed), ("c-empty", empty), ("d-small", x[:, :20])):
        write(tmp_path / f"{name}.tif", field)
    c = config(tmp_path, tmp_path, data=(Source("*.tif"),), split=Split(("b-",)))
    scenes = read_scenes(c, BANDS)
    assert [s.name for s in scenes.train] == ["a-full.tif"]
    assert scenes.passed_over == 2
    assert scenes.held_out[0].mask.sum() == holed.size - 2 * 100
    dark = read_scenes(replace(c, data=(Source("*.tif", dark=True),)), BANDS)
    assert all(
        s.mask is None and s.field.min() == 1
        for s in (*dark.train, *dark.held_out)
        if s.name != "d-small.tif"
    )
    batch = Sampler(scenes.held_out, load_bundle(folder / "base"), c).batch(0)
    assert np.isfinite(batch.truth).all()


def test_chips_and_chosen_bands(tmp_path):
    import zarr

    chips = np.stack([np.concatenate([doubled(k, 32), doubled(k, 32)[:1]]) for k in range(6)])
    array = zarr.create_array(tmp_path / "chips.zarr", shape=chips.shape, dtype=chips.dtype)
    array[:] = chips
    source = Source("*.zarr", bands=(3, 2), chips_per_place=2, dark=True)
    scenes = read_scenes(config(tmp_path, tmp_path, data=(source,), split=Split(("#2",))), BANDS)
    assert sorted({s.place for s in scenes.train}) == ["chips.zarr#0", "chips.zarr#1"]
    assert np.array_equal(scenes.train[0].field, np.maximum(chips[0][[2, 1]], 1))


def test_items_of_a_catalogue(tmp_path, folder):
    import pystac

    made = [
        make_scene(
            tmp_path / "s",
            make_field(BANDS, (96, 96), k),
            name=f"s{k}",
            origin=(400_000.0 + 20_000 * k, 5_100_000.0),
        )
        for k in range(3)
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps(pystac.ItemCollection([m.item for m in made]).to_dict(transform_hrefs=False)))
    c = config(folder, tmp_path, data=(Source(items=str(path)),), split=Split(share=0.34))
    scenes = read_scenes(c, BANDS)
    assert len({s.place for s in (*scenes.train, *scenes.held_out)}) == 3
    assert len({s.place for s in scenes.held_out}) == 1
    assert Sampler(scenes.train, load_bundle(folder / "base"), c).batch(0).truth.shape[1] == 2


def test_a_batch_follows_from_its_number(folder, tmp_path):
    c = config(folder, tmp_path)
    scenes = read_scenes(c, BANDS)
    base = load_bundle(folder / "base")
    a, b = (Sampler(scenes.train, base, c) for _ in range(2))
    b.batch(0)
    first, again = a.batch(5), b.batch(5)
    assert np.array_equal(first.decoded, again.decoded)
    assert np.array_equal(first.steps, again.steps)
    assert not np.array_equal(first.truth, a.batch(6).truth)
    assert len(set(first.steps.tolist())) == 2
    still = Sampler(scenes.train, base, replace(c, augment=Augment(turns=False, gain=0.0, band_gain=0.0)))
    fields = list(still.fields)
    from stac_latent.stages.lin.lifting import synthesise

    x = still.batch(1).truth[0].copy()
    synthesise(x, 4)
    assert min(np.abs(x - f).max() for f in fields) < 0.05


# -- refusals --------------------------------------------------------------------------------------------------------

GOOD = """
name = "tiny"
base = "base"
[[data]]
files = "*.tif"
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 3", r"c.toml: base, data must be given"),
        (GOOD + "[optimizer]\nsteps = 3", r"unknown key 'optimizer'; did you mean 'optimiser'\?"),
        (GOOD + "[net]\nwidth = [3]", r"c.toml: net: unknown key 'width'; did you mean 'widths'\?"),
        (GOOD + "[net]\nwidths = 3", r"net: widths must be a list; got 3"),
        (GOOD + "[net]\nwidths = [3]", r"net: widths and blocks need as many entries"),
        (GOOD + "[optimiser]\nsteps = 1.5", r"steps must be int; got 1.5"),
        (GOOD + "[optimiser]\nstep_range = [3, 2, 1]", r"step_range must be a list of 2; got \[3, 2, 1\]"),
        (GOOD + "[optimiser]\nstep_range = [3, 2]", r"two positive numbers, the smaller first; got 3, 2"),
        (GOOD + "[split]\nhold_out = ['(']", r"'\(' is no regular expression: .*; escape it"),
        (GOOD + "[[data]]\nlicence = 'x'", r"each source has either files or items"),
        (GOOD.replace("name", "seed = true\nname"), r"seed must be int; got True"),
        (GOOD.replace("name", "device = 'tpu'\nname"), r"device is auto, cpu or cuda; got 'tpu'"),
        ("name = ", r"c.toml is no TOML"),
    ],
)
def test_configurations_that_are_none(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(TrainError, match=message):
        read_config(tmp_path / "c.toml")


def test_no_configuration(tmp_path):
    with pytest.raises(TrainError, match=r"no configuration .*c.toml: No such file"):
        read_config(tmp_path / "c.toml")


def test_paths_start_from_the_configuration(tmp_path):
    (tmp_path / "c.toml").write_text(GOOD)
    c = read_config(tmp_path / "c.toml")
    assert (c.dest, c.data_root) == (tmp_path / "train", tmp_path)


def test_data_that_do_not_fit(folder, tmp_path):
    c = config(folder, tmp_path)
    with pytest.raises(TrainError, match=r"source 1 of the configuration, .*nothing.*holds nothing"):
        train(replace(c, data=(Source("nothing*.tif"),)))
    with pytest.raises(
        TrainError, match=r"site0_0.tif has 1 band\(s\), the codec 2 \(red, nir\); choose with bands="
    ):
        train(replace(c, data=(Source("scenes/*.tif", bands=(1,)),)))
    with pytest.raises(TrainError, match="its path does not match place='town"):
        train(replace(c, data=(Source("scenes/*.tif", place="town"),)))
    with pytest.raises(TrainError, match=r"of 4 place\(s\): none is left to hold out"):
        train(replace(c, split=Split()))
    with pytest.raises(TrainError, match=r"none is left to train on"):
        train(replace(c, split=Split((".",))))


def test_bases_that_do_not_fit(folder, tmp_path):
    save_bundle(dct(BANDS), tmp_path / "dct")
    with pytest.raises(
        TrainError, match=r"base='dct' is normalise > dct > uniform > rans; training starts from"
    ):
        train(config(folder, tmp_path, base=str(tmp_path / "dct")))


def test_checkpoints_that_do_not_fit(folder, tmp_path):
    c = config(folder, tmp_path)
    with pytest.raises(TrainError, match=r"no checkpoint .* to go on from; start without --resume"):
        train(c, resume=True)
    state = State.start(c, 2, torch.device("cpu"))
    path = state.save(tmp_path, c)
    with pytest.raises(TrainError, match="belongs to another configuration: seed changed"):
        train(replace(c, seed=9), resume=True)
    path.write_bytes(b"nonsense")
    with pytest.raises(TrainError, match=f"{CHECKPOINT} is no readable checkpoint"):
        train(c, resume=True)


def test_a_device_that_is_not_there(folder, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(TrainError, match="device is 'cuda', but torch finds none"):
        train(config(folder, tmp_path, device="cuda"))


def test_tensorboard_that_is_not_there(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainError, match="pip install tensorboard, or set it to false"):
        train(config(folder, tmp_path, tensorboard=True))


def test_diverging(folder, tmp_path):
    o = Optimiser(steps=30, batch_pixels=SIDE**2, learning_rate=1e30, warmup=0, clip=1e30)
    with pytest.raises(TrainError, match=r"the loss is .* at step \d+: the learning rate is too high"):
        train(config(folder, tmp_path, optimiser=o))


def test_learning_rate_rises_and_falls(folder, tmp_path):
    c = config(folder, tmp_path, optimiser=Optimiser(steps=100, warmup=10, learning_rate=1.0))
    rates = [learning_rate(c, i) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.03)
    assert rates[-1] == pytest.approx(0.02)


def test_starts_from_nothing():
    module = Residual(2, (4, 6), (1, 1))
    x = torch.randn(1, 2, 32, 32) * 100
    lows = {1: torch.randn(1, 2, 16, 16), 2: torch.randn(1, 2, 8, 8)}
    assert torch.equal(module(x, 3, torch.tensor([50.0]), lows), x)


# -- the command -----------------------------------------------------------------------------------------------------


def test_command(folder, tmp_path):
    text = f"""
name = "tiny"
base = "{folder / "base"}"
root = "{folder}"
[[data]]
files = "scenes/*.tif"
place = '(site\\d)'
[split]
hold_out = ["site3"]
[net]
widths = [4]
blocks = [0]
[optimiser]
steps = 2
batch_pixels = 4096
check_every = 1
"""
    (tmp_path / "c.toml").write_text(text)
    out = CliRunner().invoke(app, ["train", str(tmp_path / "c.toml"), "--json"], catch_exceptions=False)
    assert out.exit_code == 0
    result = json.loads(out.stdout)
    assert result["iterations"] == 2
    assert load_bundle(result["bundle"]).space == result["space"]
    shown = CliRunner().invoke(
        app, ["train", str(tmp_path / "c.toml"), "--overwrite"], catch_exceptions=False
    )
    assert "site3" in shown.stdout
    assert "keep the base" in shown.stderr


def test_command_without_torch(tmp_path):
    code = """
import sys
sys.modules["torch"] = None
from stac_latent.cli import main
sys.argv = ["stac-latent", "train", "c.toml"]
main()
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert out.returncode == 1
    assert "training needs torch, which is not installed; pip install 'stac-latent[torch]'" in out.stderr
