"""The verb ``train``: from a configuration to a measured bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stac_latent.aliases import Progress
from stac_latent.codec.codec import Codec
from stac_latent.cube.open_codec import open_codec
from stac_latent.errors import TrainError
from stac_latent.train.card import MARGIN, bundle
from stac_latent.train.config import Config, read_config
from stac_latent.train.data import read_scenes
from stac_latent.train.loop import device_of, run, watched
from stac_latent.train.model import network_of
from stac_latent.train.sample import Sampler, check_base
from stac_latent.train.state import CHECKPOINT, State

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Parameters
    ----------
    codec
        The chain with the best average of the weights.
    path
        Folder of its bundle.
    summary
        Steps, times, gains and the comparison with the base; JSON.
    """

    codec: Codec
    path: Path
    summary: dict[str, Any]


def train(
    config: Config | str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train a correction for a ``lin`` chain, and write it as a bundle with its card.

    Parameters
    ----------
    config
        Configuration, or path of a TOML file.
    resume
        Go on from the checkpoint; the result is that of a training that was not interrupted, bit for bit on a CPU.
    overwrite
        Start anew where there is a checkpoint.
    progress
        Called with a label, steps done and their number.

    Raises
    ------
    TrainError
        If configuration, data, base or checkpoint do not fit.
    KeyboardInterrupt
        After Ctrl-C, when a checkpoint was written.
    """
    c = config if isinstance(config, Config) else read_config(config)
    if not resume and not overwrite and (c.dest / CHECKPOINT).exists():
        raise TrainError(
            f"{c.dest} holds a checkpoint; go on from it with --resume, or replace it with --overwrite"
        )
    if c.threads:
        torch.set_num_threads(c.threads)
    local = c.folder / c.base
    base = open_codec(local if (local / "codec.json").exists() else c.base)
    check_base(base)
    scenes = read_scenes(c, base.bands, progress)
    device = device_of(c)
    state = State.start(c, len(base.bands), device)
    if resume:
        state.restore(c.dest, c)
    sampler = Sampler(scenes.train, base, c)
    apart = watched(scenes.held_out, Sampler(scenes.held_out, base, c))
    run(c, state, sampler, apart, progress)
    state.average.load_state_dict(state.best)
    training = {
        "iterations": state.iteration, "best_iteration": state.best_iteration, "held_out_gain_db": round(state.best_score, 4),
        "seconds": round(state.seconds), "seed": c.seed, "passed_over": scenes.passed_over,
    }  # fmt: skip
    report: Progress = progress or (lambda *_: None)
    codec, measured = bundle(c, base, network_of(state.average), scenes, training, report)
    saved = measured["bd_rate_percent"]
    verdict = {"margin_percent": MARGIN, "worth_it": saved is not None and saved <= -MARGIN}
    return Trained(
        codec, c.dest / "bundle", {**training, "against_base": measured, **verdict, "space": codec.space}
    )
