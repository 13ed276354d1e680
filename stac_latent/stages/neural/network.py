"""The residual network of the ``fast`` chain: corrections of dequantised wavelet coefficients.

Subbands are visited from coarse to fine. What enters at a level, in steps, are its three details, what the low band
differs from the mean of its neighbourhood, and the features of the level before, twice as fine; out come corrections
of the details, in steps. The rate enters as the logarithm of the step, which scales and shifts the features::

    details, low, features before -> 1 x 1 -> scale, shift -> leaky -> (3 x 3 -> leaky -> add) ... -> 1 x 1 -> corrections
                                                                                                 -> 1 x 1 -> twice as fine

One or two thousand multiplications a pixel of all bands, in an order that gives the same bits on every machine
(:mod:`stac_latent.stages.neural.ops`). Training writes the weights (:mod:`stac_latent.train`); reading them takes no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import BundleError
from stac_latent.stages.base import take
from stac_latent.stages.lin.lifting import sizes, synthesise
from stac_latent.stages.neural.ops import activate, around, contrast, finer, point

__all__ = ["Network", "Scale", "details", "low_bands", "rate_feature"]


def rate_feature(step: float) -> float:
    """What the network is told of the step: about -1 to 1 where codes are of interest.

    A third of its binary logarithm, linear between powers of two: exact, so that every machine has the same.
    """
    mantissa, exponent = math.frexp(step)
    return (exponent - 2 + 2 * mantissa) / 3 - 3


def details(shape: tuple[int, ...], levels: int, level: int) -> tuple[tuple[slice, slice], ...]:
    """Where the details of a level lie in Mallat's layout: horizontal, vertical, diagonal."""
    ys, xs = sizes(shape[-2], levels), sizes(shape[-1], levels)
    low_y, high_y = slice(0, ys[level]), slice(ys[level], ys[level - 1])
    low_x, high_x = slice(0, xs[level]), slice(xs[level], xs[level - 1])
    return (low_y, high_x), (high_y, low_x), (high_y, high_x)


def low_bands(tile: Array, levels: int, finest: int, coarsest: int) -> dict[int, Array]:
    """Low bands of a tile at the levels ``finest`` to ``coarsest``, by level.

    Parameters
    ----------
    tile
        ``(band, y, x)`` float32 in Mallat's layout after ``levels`` levels; is not changed.
    """
    ys, xs = sizes(tile.shape[1], levels), sizes(tile.shape[2], levels)
    part = np.ascontiguousarray(tile[:, : ys[finest], : xs[finest]])
    out = {}
    for level in range(levels, finest - 1, -1):
        if level < levels:
            here = np.ascontiguousarray(part[:, : ys[level], : xs[level]])
            synthesise(here, 1)
            part[:, : ys[level], : xs[level]] = here
        if level <= coarsest:
            out[level] = part[:, : ys[level], : xs[level]].copy()
    return out


@dataclass(frozen=True)
class Scale:
    """Weights of one level, float32.

    Parameters
    ----------
    enter, enter_bias
        ``(width, in)``, ``(width,)``.
    rate, rate_bias
        ``(2 * width,)``: slope and intercept of scale and shift over :func:`rate_feature`.
    blocks
        Pairs of ``(width, width, 9)`` and ``(width,)``.
    leave, leave_bias
        ``(3 * band, width)``, ``(3 * band,)``.
    up, up_bias
        ``(4 * width, width of the coarser level)``; None at the coarsest.
    """

    enter: Array
    enter_bias: Array
    rate: Array
    rate_bias: Array
    blocks: tuple[tuple[Array, Array], ...]
    leave: Array
    leave_bias: Array
    up: Array | None
    up_bias: Array | None

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.enter)


@dataclass(frozen=True)
class Network:
    """Levels of the network, finest first."""

    scales: tuple[Scale, ...]

    def __post_init__(self) -> None:
        if not self.scales:
            raise BundleError("fast: the network has no level; it needs one at least")
        bands = self.bands
        for k, s in enumerate(self.scales):
            before = s.width if k + 1 < len(self.scales) else 0
            wanted: dict[str, tuple[int, ...]] = {
                "enter": (s.width, 4 * bands + before), "enter_bias": (s.width,), "rate": (2 * s.width,),
                "rate_bias": (2 * s.width,), "leave": (3 * bands, s.width), "leave_bias": (3 * bands,),
            }  # fmt: skip
            if before:
                wanted |= {"up": (4 * s.width, self.scales[k + 1].width), "up_bias": (4 * s.width,)}
            found = {name: None if getattr(s, name) is None else getattr(s, name).shape for name in wanted}
            for i, (w, b) in enumerate(s.blocks):
                wanted |= {f"block{i}": (s.width, s.width, 9), f"block{i}_bias": (s.width,)}
                found |= {f"block{i}": w.shape, f"block{i}_bias": b.shape}
            if found != wanted:
                raise BundleError(f"fast: weights of level {k + 1} have shapes {found}; expected {wanted}")

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.scales[0].leave) // 3

    @property
    def macs(self) -> float:
        """Multiplications for a pixel of all bands."""
        every = [[s.enter, s.leave, *(b[0] for b in s.blocks)] for s in self.scales]
        inner = sum(w.size / 4 ** (k + 1) for k, ws in enumerate(every) for w in ws)
        return float(
            inner + sum(s.up.size / 4 ** (k + 2) for k, s in enumerate(self.scales) if s.up is not None)
        )

    def corrections(
        self, tile: Array, levels: int, step: float, finest: int = 1
    ) -> Iterator[tuple[int, list[Array]]]:
        """Corrections of the details of each level, coarsest first.

        Parameters
        ----------
        tile
            Dequantised coefficients ``(band, y, x)`` float32 in Mallat's layout after ``levels`` levels.
        step
            Quantiser step.
        finest
            Level to stop at.

        Yields
        ------
        level, corrections
            Three arrays as :func:`details` orders them, in the unit of the tile.
        """
        coarsest = min(levels, len(self.scales))
        if coarsest < finest:
            return
        inverse, t = np.float32(1 / step), np.float32(rate_feature(step))
        lows = low_bands(tile, levels, finest, coarsest)
        ys, xs = sizes(tile.shape[1], levels), sizes(tile.shape[2], levels)
        features: Array | None = None
        for level in range(coarsest, finest - 1, -1):
            s, h, w = self.scales[level - 1], ys[level], xs[level]
            bands, regions = self.bands, details(tile.shape, levels, level)
            x = np.zeros((s.enter.shape[1], h, w), np.float32)
            for o, (rows, columns) in enumerate(regions):
                part = tile[:, rows, columns]
                np.multiply(
                    part, inverse, out=x[o * bands : (o + 1) * bands, : part.shape[1], : part.shape[2]]
                )
            x[3 * bands : 4 * bands] = contrast(lows[level] * inverse)
            if features is not None and s.up is not None and s.up_bias is not None:
                x[4 * bands :] = finer(point(features, s.up, s.up_bias), h, w)
            features = self._features(s, x, t)
            out = point(features, s.leave, s.leave_bias)
            out *= np.float32(step)
            cut = [(r.stop - r.start, c.stop - c.start) for r, c in regions]
            yield level, [out[o * bands : (o + 1) * bands, :a, :b] for o, (a, b) in enumerate(cut)]

    @staticmethod
    def _features(s: Scale, x: Array, t: np.float32) -> Array:
        film = s.rate * t + s.rate_bias
        out = point(x, s.enter, s.enter_bias)
        out *= (1 + film[: s.width])[:, None, None]
        out += film[s.width :, None, None]
        activate(out)
        for weight, bias in s.blocks:
            out += activate(around(out, weight, bias))
        return out

    def tensors(self) -> dict[str, Array]:
        """Weights by name, ``net.<level>.<what>``."""
        out: dict[str, Array] = {}
        for k, s in enumerate(self.scales):
            names = ("enter", "enter_bias", "rate", "rate_bias", "leave", "leave_bias", "up", "up_bias")
            out |= {f"net.{k + 1}.{n}": getattr(s, n) for n in names if getattr(s, n) is not None}
            for i, (weight, bias) in enumerate(s.blocks):
                out |= {f"net.{k + 1}.block{i}": weight, f"net.{k + 1}.block{i}_bias": bias}
        return out

    @classmethod
    def build(cls, tensors: Mapping[str, Array], blocks: Sequence[int]) -> Network:
        """Rebuild from :meth:`tensors` and the number of blocks of each level."""

        def get(k: int, what: str, ndim: int) -> Array:
            return take(tensors, f"net.{k + 1}.{what}", "fast", ndim, "f").astype(np.float32)

        scales = []
        for k, count in enumerate(blocks):
            last = k + 1 == len(blocks)
            pairs = tuple((get(k, f"block{i}", 3), get(k, f"block{i}_bias", 1)) for i in range(count))
            scales.append(
                Scale(
                    get(k, "enter", 2), get(k, "enter_bias", 1), get(k, "rate", 1), get(k, "rate_bias", 1), pairs,
                    get(k, "leave", 2), get(k, "leave_bias", 1), None if last else get(k, "up", 2),
                    None if last else get(k, "up_bias", 1),
                )
            )  # fmt: skip
        return cls(tuple(scales))

    @property
    def blocks(self) -> list[int]:
        """Number of blocks of each level."""
        return [len(s.blocks) for s in self.scales]
