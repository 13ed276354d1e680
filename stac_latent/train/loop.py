"""The loop: draw, correct, compare, step; look at the held-out places, stop when they stop gaining."""

from __future__ import annotations

import csv
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stac_latent.aliases import Progress
from stac_latent.errors import TrainError
from stac_latent.stages.lin.pyramid import TILE
from stac_latent.train.config import Config
from stac_latent.train.data import LEAST, Scene
from stac_latent.train.model import Residual
from stac_latent.train.sample import Batch, Sampler
from stac_latent.train.state import State

__all__ = ["LOG", "Interrupted", "device_of", "gains", "run", "watched"]

LOG = "log.csv"
_DB = 10 / math.log(10)
_WATCHED_STEPS = 3
_WATCHED_TILES = 48
_SAVE_EVERY = 300.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: the checkpoint was written."""


def device_of(config: Config) -> torch.device:
    """Where to train.

    Raises
    ------
    TrainError
        If CUDA is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise TrainError(
            "device is 'cuda', but torch finds none; set device = 'auto' or 'cpu', or install a build with CUDA"
        )
    return torch.device("cuda" if there and config.device != "cpu" else "cpu")


@dataclass
class _Stop:
    asked: bool = field(default=False)


@contextmanager
def _interruptible() -> Iterator[_Stop]:
    """The first Ctrl-C ends the iteration; a second one ends the process as ever."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def watched(scenes: Sequence[Scene], sampler: Sampler) -> list[tuple[str, Batch]]:
    """Middles of held-out scenes, coded at fixed steps; each with its place.

    Scenes of all places in turn, up to a number that can be looked at often.
    """
    low, high = np.log(sampler.config.optimiser.step_range)
    steps = np.exp(low + (high - low) * (np.arange(_WATCHED_STEPS) + 0.5) / _WATCHED_STEPS)
    rank: dict[str, int] = {}
    order = []
    for i, scene in enumerate(scenes):
        rank[scene.place] = rank.get(scene.place, -1) + 1
        order.append((rank[scene.place], i))
    out = []
    for _, i in sorted(order)[:_WATCHED_TILES]:
        x = sampler.fields[i]
        h, w = (min(TILE, n // LEAST * LEAST) for n in x.shape[1:])
        y, z = (x.shape[1] - h) // 2, (x.shape[2] - w) // 2
        tile = x[:, y : y + h, z : z + w]
        out.append((scenes[i].place, sampler.coded([tile] * _WATCHED_STEPS, steps.tolist())))
    return out


def correct(model: Residual, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean squared errors of the tiles of a batch, before and after correction."""
    truth, decoded = (torch.from_numpy(a).to(device) for a in (batch.truth, batch.decoded))
    steps = torch.from_numpy(batch.steps).to(device)
    lows = {level: torch.from_numpy(a).to(device) for level, a in batch.lows.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        out = model(decoded, batch.levels, steps, lows)
    return (truth - decoded).square().mean((1, 2, 3)), (truth - out).square().mean((1, 2, 3))


def gains(model: Residual, batches: Sequence[tuple[str, Batch]], device: torch.device) -> dict[str, float]:
    """Mean gain [dB] on each place."""
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for place, batch in batches:
            before, after = correct(model, batch, device)
            value = (_DB * (before.clamp_min(1e-12).log() - after.clamp_min(1e-12).log())).mean()
            found.setdefault(place, []).append(float(value))
    return {place: float(np.mean(v)) for place, v in found.items()}


def learning_rate(config: Config, iteration: int) -> float:
    """Linear start, then half a cosine down to a fiftieth."""
    o = config.optimiser
    start = min(1.0, (iteration + 1) / max(1, o.warmup))
    return o.learning_rate * start * max(0.02, 0.5 * (1 + math.cos(math.pi * iteration / o.steps)))


def run(
    config: Config,
    state: State,
    sampler: Sampler,
    apart: Sequence[tuple[str, Batch]],
    progress: Progress | None = None,
) -> State:
    """Train until the steps are done or the held-out places stop gaining; ``state`` holds the best average then.

    Raises
    ------
    Interrupted
        After Ctrl-C, when the checkpoint is written.
    """
    report: Progress = progress or (lambda *_: None)
    device = next(state.model.parameters()).device
    o = config.optimiser
    writer = _board(config)
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    losses: list[float] = []
    with _interruptible() as stop, ThreadPoolExecutor(config.workers) as pool:
        ahead: list[Future[Batch]] = [
            pool.submit(sampler.batch, state.iteration + k)
            for k in range(min(config.workers + 1, o.steps - state.iteration))
        ]
        while state.iteration < o.steps and state.since_best < o.patience:
            batch = ahead.pop(0).result()
            following = state.iteration + len(ahead) + 1
            if following < o.steps:
                ahead.append(pool.submit(sampler.batch, following))
            losses.append(_step(config, state, batch, device))
            state.seconds = time.monotonic() - began
            report("train", state.iteration, o.steps)
            if state.iteration % o.check_every == 0 or state.iteration == o.steps:
                _look(config, state, apart, losses, writer)
                losses.clear()
            if stop.asked or time.monotonic() - saved > _SAVE_EVERY:
                state.save(config.dest, config)
                saved = time.monotonic()
            if stop.asked:
                for future in ahead:
                    future.cancel()
                raise Interrupted(f"stopped after {state.iteration} of {o.steps} steps; go on with --resume")
        for future in ahead:
            future.cancel()
    state.save(config.dest, config)
    if writer is not None:
        writer.close()
    return state


def _step(config: Config, state: State, batch: Batch, device: torch.device) -> float:
    """One iteration; its gain on what it saw [dB]."""
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config, state.iteration)
    before, after = correct(state.model, batch, device)
    floor = config.optimiser.floor**2
    loss = ((after + floor).log() - (before + floor).log()).mean()
    if not bool(torch.isfinite(loss)):
        raise TrainError(
            f"the loss is {loss.item()} at step {state.iteration}: the learning rate is too high, or the data hold values that "
            "are none; lower optimiser.learning_rate and start anew"
        )
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optimiser.clip)
    state.optimiser.step()
    state.iteration += 1
    state.follow(config.optimiser.ema)
    return -_DB * float(loss.detach())


def _look(
    config: Config, state: State, apart: Sequence[tuple[str, Batch]], losses: Sequence[float], writer: Any
) -> None:
    """Measure the average on the held-out places; keep it if it is the best; write the log."""
    device = next(state.model.parameters()).device
    score = float(np.mean(list(gains(state.average, apart, device).values())))
    if score > state.best_score:
        state.best_score = score
        state.keep_best()
    else:
        state.since_best += 1
    row = {
        "iteration": state.iteration, "seconds": round(state.seconds, 1), "train_gain_db": round(float(np.mean(losses)), 5),
        "held_out_gain_db": round(score, 5), "learning_rate": learning_rate(config, state.iteration),
    }  # fmt: skip
    state.history.append(row)
    _write_log(config.dest, state.history)
    if writer is not None:
        for name, value in row.items():
            writer.add_scalar(name, value, state.iteration)


def _write_log(folder: Path, rows: Sequence[dict[str, float]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


def _board(config: Config) -> Any:
    if not config.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise TrainError(
            "tensorboard = true, but the package is not installed; pip install tensorboard, or set it to false: log.csv is "
            "written in any case"
        ) from exc
    return SummaryWriter(str(config.dest / "tensorboard"))
