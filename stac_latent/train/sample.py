"""Pairs to learn from: tiles drawn, augmented, coded by ``lin`` at a random step, and decoded again.

A batch follows from seed and iteration alone, so that a training that goes on from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.errors import TrainError
from stac_latent.field.validity import fill_invalid
from stac_latent.stages.base import FRACTION_BITS
from stac_latent.stages.lin.lifting import analyse, levels_of
from stac_latent.stages.lin.pyramid import CELL, TILE
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.lin.tile import MAX_LEVELS, TileCoder
from stac_latent.stages.neural.network import low_bands
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.train.config import Config
from stac_latent.train.data import LEAST, Scene

__all__ = ["Batch", "Sampler", "check_base", "normalised"]


@dataclass(frozen=True)
class Batch:
    """Tiles of one size.

    Parameters
    ----------
    truth, decoded
        Coefficients ``(batch, band, y, x)`` float32 in Mallat's layout, before and after coding.
    steps
        float32 ``(batch,)``.
    levels
        Of the wavelet.
    lows
        Low bands of ``decoded`` by level.
    """

    truth: Array
    decoded: Array
    steps: Array
    levels: int
    lows: dict[int, Array]


def check_base(codec: Codec) -> tuple[Normalise, Lin]:
    """First and last stage of the chain that a training starts from.

    Raises
    ------
    TrainError
        If it is no plain ``lin`` chain.
    """
    first, last = codec.stages[0], codec.stages[-1]
    chain = [s.name for s in codec.stages]
    if (
        chain != ["normalise", "pyramid", "lin"]
        or not isinstance(first, Normalise)
        or not isinstance(last, Lin)
        or last.lattices is not None
    ):
        grids = "" if not isinstance(last, Lin) or last.lattices is None else " for several native grids"
        raise TrainError(
            f"base={codec.name!r} is {' > '.join(chain)}{grids}; training starts from a fitted chain normalise > pyramid > lin, "
            "as 'stac-latent fit' makes it of bands of one grid"
        )
    return first, last


def normalised(scene: Scene, stage: Normalise) -> Array:
    """A scene in normalised units, float32, holes filled, whole cells."""
    h, w = (n // CELL * CELL for n in scene.field.shape[1:])
    field = scene.field[:, :h, :w]
    if scene.mask is None:
        x = stage.forward(field)
    else:
        valid = np.broadcast_to(scene.mask[:, :h, :w], field.shape)
        x = fill_invalid(stage.forward(np.where(valid, field, 0)), valid, (CELL, CELL))
    return (x * 2.0**-FRACTION_BITS).astype(np.float32)


class Sampler:
    """Draws batches.

    Parameters
    ----------
    scenes
        To draw from.
    codec
        The base.
    config
        Of the training.
    """

    def __init__(self, scenes: Sequence[Scene], codec: Codec, config: Config) -> None:
        first, lin = check_base(codec)
        self.config, self.depth = config, len(config.net.widths)
        self.coder = TileCoder(lin.basis, lin.model, lin.lam)
        self.fields = [normalised(s, first) for s in scenes]
        weights = np.array(
            [config.data[s.source].weight * f[0].size for s, f in zip(scenes, self.fields, strict=True)]
        )
        sizes = [_size(f) for f in self.fields]
        self.sizes = sorted(set(sizes))
        self.members = [np.array([i for i, s in enumerate(sizes) if s == size]) for size in self.sizes]
        self.chance = [weights[m] / weights[m].sum() for m in self.members]
        total = np.array([weights[m].sum() for m in self.members])
        self.size_chance = total / total.sum()

    def batch(self, iteration: int) -> Batch:
        """Batch of an iteration, always the same."""
        o = self.config.optimiser
        rng = np.random.default_rng((self.config.seed, 1, iteration))
        k = int(rng.choice(len(self.sizes), p=self.size_chance))
        size = self.sizes[k]
        chosen = rng.choice(self.members[k], max(1, o.batch_pixels // (size[0] * size[1])), p=self.chance[k])
        low, high = np.log(o.step_range)
        steps = np.exp(rng.uniform(low, high, len(chosen)))
        tiles = [self._augmented(_crop(self.fields[i], size, rng), rng) for i in chosen]
        return self.coded(tiles, steps.tolist())

    def coded(self, tiles: Sequence[Array], steps: Sequence[float]) -> Batch:
        """Code tiles ``(band, y, x)`` in normalised units, all of one size, each at its step."""
        levels = levels_of(*tiles[0].shape[1:], most=MAX_LEVELS)
        truth, decoded = [], []
        for tile, step in zip(tiles, steps, strict=True):
            x = np.array(tile, np.float32, order="C")
            analyse(x, levels)
            payload = self.coder.code(self.coder.prepare([x]), float(step))
            truth.append(x)
            decoded.append(self.coder.decode_tile(payload)[0])
        lows = [low_bands(d, levels, 1, min(levels, self.depth)) for d in decoded]
        stacked = {level: np.stack([low[level] for low in lows]) for level in lows[0]}
        return Batch(np.stack(truth), np.stack(decoded), np.array(steps, np.float32), levels, stacked)

    def _augmented(self, x: Array, rng: np.random.Generator) -> Array:
        """Turned, flipped, brighter or darker; upright or lying tiles stay so."""
        a = self.config.augment
        if a.turns:
            quarter = 1 if x.shape[1] == x.shape[2] else 2
            x = np.rot90(x, quarter * int(rng.integers(4 // quarter)), (1, 2))
            x = x[:, ::-1] if rng.random() < 0.5 else x
        gain = np.exp(rng.normal(0, a.gain) + rng.normal(0, a.band_gain, (len(x), 1, 1)))
        return np.asarray(x * gain.astype(np.float32), np.float32)


def _size(field: Array) -> tuple[int, int]:
    """Tile that is cut from a scene; the longer side is the first."""
    h, w = sorted((min(TILE, n // LEAST * LEAST) for n in field.shape[1:]), reverse=True)
    return h, w


def _crop(field: Array, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """A window somewhere in a scene, with the longer side first."""
    h, w = size if min(TILE, field.shape[1] // LEAST * LEAST) == size[0] else size[::-1]
    y, x = (int(rng.integers(n - m + 1)) for n, m in zip(field.shape[1:], (h, w), strict=True))
    part = field[:, y : y + h, x : x + w]
    return part if h >= w else part.swapaxes(1, 2)
