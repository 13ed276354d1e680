"""The configuration of a training, read from TOML."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from stac_latent.errors import TrainError

__all__ = ["Augment", "Config", "Net", "Optimiser", "Source", "Split", "read_config"]


@dataclass(frozen=True)
class Source:
    """Where tiles come from: ``files`` or ``items``.

    Parameters
    ----------
    files
        Pattern of rasters below ``root``, or of Zarr arrays ``(chip, band, y, x)`` (``*.zarr``, ``*.zarr.zip``).
    items
        STAC Item, catalogue, item collection, stac-geoparquet file or STAC API.
    place
        Regular expression on a file's path; its first group names the place. Files of one place stay together.
    bands
        Numbers of the raster's bands, from 1 on; by default all.
    chips_per_place
        Neighbouring chips of an array that count as one place.
    dark
        Zeros are dark pixels, not gaps: they become 1.
    weight
        Of its pixels against those of other sources.
    collection, licence, note
        For the model card.
    """

    files: str = ""
    items: str = ""
    place: str = ""
    bands: tuple[int, ...] = ()
    chips_per_place: int = 1
    dark: bool = False
    weight: float = 1.0
    collection: str = ""
    licence: str = ""
    note: str = ""


@dataclass(frozen=True)
class Split:
    """Which places are not trained on.

    Parameters
    ----------
    hold_out
        Regular expressions of places that decide when to stop and are measured on.
    share
        Share of the other places that is held out too, by hash.
    exclude
        Regular expressions of places that are not read at all.
    """

    hold_out: tuple[str, ...] = ()
    share: float = 0.0
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Net:
    """Features and 3 x 3 blocks of each level, finest first."""

    widths: tuple[int, ...] = (16, 32, 32)
    blocks: tuple[int, ...] = (1, 1, 1)


@dataclass(frozen=True)
class Optimiser:
    """How the weights move.

    Parameters
    ----------
    steps
        Iterations; the learning rate falls to nought over them.
    batch_pixels
        Pixels (of all bands) of one iteration.
    learning_rate, warmup, weight_decay, clip
        Of AdamW; norm that gradients are clipped to.
    ema
        Decay of the average of the weights, which is what is measured and shipped.
    check_every, patience
        Iterations between two looks at the held-out places, and looks without a gain before stopping.
    step_range
        Quantiser steps, drawn log-uniformly for each tile, in units of the normalised field.
    floor
        Loss is ``log(MSE + floor**2)``: bright and dark tiles count alike, down to this error.
    """

    steps: int = 4000
    batch_pixels: int = 65536
    learning_rate: float = 5e-3
    warmup: int = 50
    weight_decay: float = 1e-3
    clip: float = 1.0
    ema: float = 0.995
    check_every: int = 200
    patience: int = 8
    step_range: tuple[float, float] = (120.0, 4500.0)
    floor: float = 20.0


@dataclass(frozen=True)
class Augment:
    """What keeps the physics: flips and right-angle turns, and gains of all bands and of each (deviation of the logarithm)."""

    turns: bool = True
    gain: float = 0.1
    band_gain: float = 0.05


@dataclass(frozen=True)
class Config:
    """A training.

    Parameters
    ----------
    name
        Of the codec.
    base
        A codec whose chain is ``normalise > pyramid > lin``: name or bundle folder. The network starts from it, at zero.
    out
        Folder of checkpoint, logs and bundle.
    data
        Sources.
    root
        Folder that patterns of files start from.
    seed
        Of weights, draws and split.
    threads
        Of torch; 0 for its own choice.
    workers
        Threads that code tiles ahead.
    device
        ``auto``, ``cpu`` or ``cuda``; on CUDA convolutions run in bfloat16, the correction is added in float32.
    tensorboard
        Write TensorBoard events too (package ``tensorboard``).
    description, licence, attribution
        For the model card.
    """

    name: str
    base: str
    data: tuple[Source, ...]
    out: str = "train"
    root: str = "."
    seed: int = 0
    threads: int = 0
    workers: int = 1
    device: str = "auto"
    tensorboard: bool = False
    description: str = ""
    licence: str = "other"
    attribution: str = ""
    split: Split = field(default_factory=Split)
    net: Net = field(default_factory=Net)
    optimiser: Optimiser = field(default_factory=Optimiser)
    augment: Augment = field(default_factory=Augment)
    folder: Path = field(default=Path(), compare=False)
    """Folder that relative paths start from: that of the file."""

    def __post_init__(self) -> None:
        o, low, high = self.optimiser, *self.optimiser.step_range
        patterns = (*self.split.hold_out, *self.split.exclude, *(s.place for s in self.data))
        problems = [
            (not self.data, "data: name at least one source, as [[data]] with files= or items="),
            (any(bool(s.files) == bool(s.items) for s in self.data), "data: each source has either files or items"),
            (self.device not in {"auto", "cpu", "cuda"}, f"device is auto, cpu or cuda; got {self.device!r}"),
            (not 1 <= len(self.net.widths) <= 6, f"net.widths: 1 to 6 levels; got {len(self.net.widths)}"),
            (len(self.net.widths) != len(self.net.blocks), "net: widths and blocks need as many entries"),
            (min((*self.net.widths, 1)) < 1 or min((*self.net.blocks, 0)) < 0, "net: widths are positive, blocks not negative"),
            (not 0 < low <= high, f"optimiser.step_range: two positive numbers, the smaller first; got {low:g}, {high:g}"),
            (min(o.steps, o.batch_pixels, o.check_every, o.patience) < 1, "optimiser: counts are positive"),
            (not (o.learning_rate > 0 and o.clip > 0 and o.floor > 0 and 0 <= o.ema < 1), "optimiser: rates are positive"),
            (not 0 <= self.split.share < 1, f"split.share is at least 0 and below 1; got {self.split.share:g}"),
            (any(not s.weight > 0 or s.chips_per_place < 1 for s in self.data), "data: weights are positive"),
            (self.workers < 1 or self.threads < 0, "workers is at least 1, threads at least 0"),
        ]  # fmt: skip
        for wrong, text in problems:
            if wrong:
                raise TrainError(f"the configuration of {self.name!r}: {text}")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as exc:
                raise TrainError(
                    f"{pattern!r} is no regular expression: {exc}; escape it, or correct it"
                ) from exc

    @property
    def dest(self) -> Path:
        """Where checkpoint, logs and bundle go."""
        return self.folder / self.out

    @property
    def data_root(self) -> Path:
        """Folder of the data."""
        return self.folder / self.root

    def identity(self) -> dict[str, Any]:
        """All that a checkpoint must agree with; JSON."""
        left_out = {
            "folder",
            "out",
            "root",
            "threads",
            "workers",
            "device",
            "tensorboard",
            "description",
            "licence",
            "attribution",
        }
        return {k: v for k, v in asdict(self).items() if k not in left_out}


def read_config(path: str | Path) -> Config:
    """Read a TOML file.

    Raises
    ------
    TrainError
        If it cannot be read, or holds keys or values that are none of a training.
    """
    file = Path(path)
    try:
        doc = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise TrainError(
            f"no configuration {file}: {exc.strerror or exc}; write one as in the guide on training"
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise TrainError(f"{file} is no TOML: {exc}") from exc
    made = _build(Config, doc, file.name)
    object.__setattr__(made, "folder", file.parent)
    return typing.cast("Config", made)


def _build(kind: type[Any], doc: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind) if f.name != "folder"}
    for key in doc:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise TrainError(f"{where}: unknown key {key!r}; {hint}")
    missing = [
        n for n, f in known.items() if n not in doc and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise TrainError(f"{where}: {', '.join(missing)} must be given")
    return kind(**{k: _value(hints[k], v, f"{where}: {k}") for k, v in doc.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise TrainError(f"{where} must be a table; got {value!r}")
        return _build(typing.cast("type[Any]", hint), value, where)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, list) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            raise TrainError(
                f"{where} must be a list{'' if inner[-1] is Ellipsis else f' of {len(inner)}'}; got {value!r}"
            )
        return tuple(_value(inner[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    wanted: type[Any] | types.UnionType = int | float if hint is float else hint
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise TrainError(f"{where} must be {hint.__name__}; got {value!r}")
    return hint(value)
