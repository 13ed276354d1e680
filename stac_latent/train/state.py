"""State of a training: weights, their average, the optimiser; as one safetensors file, and back bit for bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stac_latent.errors import TrainError
from stac_latent.system.files import replacing
from stac_latent.train.config import Config
from stac_latent.train.model import Residual

__all__ = ["CHECKPOINT", "State"]

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "stac-latent-train-1"


@dataclass
class State:
    """All that changes while training.

    Parameters
    ----------
    model, average
        Weights, and their exponential average.
    optimiser
        AdamW over ``model``.
    iteration
        Iterations done.
    best, best_score, best_iteration
        Average with the best score on the held-out places.
    since_best
        Looks at the held-out places since.
    seconds
        Of all sessions.
    history
        Rows of the log.
    """

    model: Residual
    average: Residual
    optimiser: torch.optim.AdamW
    iteration: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = 0.0
    best_iteration: int = 0
    since_best: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, config: Config, bands: int, device: torch.device) -> State:
        """A network that corrects nothing, from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = Residual(bands, config.net.widths, config.net.blocks)
        model = model.to(device).to(memory_format=torch.channels_last)
        o = config.optimiser
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=o.learning_rate, weight_decay=o.weight_decay, betas=(0.9, 0.98)
        )
        out = cls(model, copy.deepcopy(model), optimiser)
        out.keep_best()
        return out

    def keep_best(self) -> None:
        """The average of now is the best so far."""
        self.best = {k: v.detach().clone() for k, v in self.average.state_dict().items()}
        self.best_iteration, self.since_best = self.iteration, 0

    def follow(self, decay: float) -> None:
        """Move the average towards the weights; sooner at the start."""
        share = 1 - min(decay, self.iteration / (self.iteration + 20))
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(weight, share)

    def save(self, folder: Path, config: Config) -> Path:
        """Write the checkpoint; it appears whole or not at all."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        meta = {
            "format": _FORMAT, "config": config.identity(), "iteration": self.iteration, "best_score": self.best_score,
            "best_iteration": self.best_iteration, "since_best": self.since_best, "seconds": self.seconds,
            "history": self.history,
        }  # fmt: skip
        data = save(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"training": json.dumps(meta)}
        )
        path = folder / CHECKPOINT
        with replacing(path, parents=True) as part:
            part.write_bytes(data)
        return path

    def restore(self, folder: Path, config: Config) -> None:
        """Read the checkpoint.

        Raises
        ------
        TrainError
            If there is none, or it is of another configuration.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            raise TrainError(f"no checkpoint {path} to go on from; start without --resume")
        try:
            with safe_open(path, "pt") as file:
                meta = json.loads((file.metadata() or {}).get("training", "{}"))
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, ValueError) as exc:
            raise TrainError(f"{path} is no readable checkpoint: {exc}; delete it and start anew") from exc
        _check(meta, config, path)
        self.model.load_state_dict(_under(tensors, "model."))
        self.average.load_state_dict(_under(tensors, "average."))
        device = next(self.model.parameters()).device
        self.best = {k: v.to(device) for k, v in _under(tensors, "best.").items()}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "optimiser.").items():
            index, _, what = key.partition(".")
            states.setdefault(int(index), {})[what] = value
        self.optimiser.load_state_dict(
            {"state": states, "param_groups": self.optimiser.state_dict()["param_groups"]}
        )
        for name in ("iteration", "best_score", "best_iteration", "since_best", "seconds", "history"):
            setattr(self, name, meta[name])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _check(meta: Mapping[str, Any], config: Config, path: Path) -> None:
    if meta.get("format") != _FORMAT:
        raise TrainError(
            f"{path} has format {meta.get('format')!r}; this version reads {_FORMAT!r}: delete it and start anew"
        )
    mine, theirs = json.loads(json.dumps(config.identity())), meta["config"]
    changed = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
    if changed:
        raise TrainError(
            f"{path} belongs to another configuration: {', '.join(changed)} changed; restore them, or start without --resume "
            "(out= another folder keeps this one)"
        )
