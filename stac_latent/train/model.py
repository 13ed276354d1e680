"""The network of :mod:`stac_latent.stages.neural.network` for training: the same sums in torch, on batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stac_latent.aliases import Array
from stac_latent.errors import TrainError
from stac_latent.stages.lin.lifting import sizes
from stac_latent.stages.neural.network import Network, Scale, details
from stac_latent.stages.neural.ops import LEAK

__all__ = ["Residual", "network_of"]

_LEAK = float(LEAK)


class Level(nn.Module):
    """Weights of one level; see :class:`~stac_latent.stages.neural.network.Scale`."""

    def __init__(self, bands: int, width: int, blocks: int, coarser: int) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Conv2d(4 * bands + (width if coarser else 0), width, 1)
        self.rate = nn.Parameter(torch.zeros(2 * width))
        self.rate_bias = nn.Parameter(torch.zeros(2 * width))
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.leave = nn.Conv2d(width, 3 * bands, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.up = nn.Conv2d(coarser, 4 * width, 1) if coarser else None

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs ``(batch, in, y, x)`` and rates ``(batch,)`` to features and corrections in steps."""
        scale, shift = (t[:, None] * self.rate + self.rate_bias)[:, :, None, None].chunk(2, dim=1)
        out = functional.leaky_relu(self.enter(x) * (1 + scale) + shift, _LEAK)
        for block in self.blocks:
            out = out + functional.leaky_relu(block(out), _LEAK)
        return out, self.leave(out)


class Residual(nn.Module):
    """Corrections of coefficients; zero before it is trained.

    Parameters
    ----------
    bands
        Number of bands.
    widths, blocks
        Features and 3 x 3 blocks of each level, finest first.
    """

    def __init__(self, bands: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.bands = bands
        coarser = [*widths[1:], 0]
        self.levels = nn.ModuleList(
            Level(bands, w, b, c) for w, b, c in zip(widths, blocks, coarser, strict=True)
        )

    def forward(self, tiles: Tensor, levels: int, steps: Tensor, lows: Mapping[int, Tensor]) -> Tensor:
        """Corrected coefficients.

        Parameters
        ----------
        tiles
            ``(batch, band, y, x)`` float32 in Mallat's layout after ``levels`` levels.
        steps
            ``(batch,)`` float32.
        lows
            Low bands by level; see :func:`~stac_latent.stages.neural.network.low_bands`.
        """
        n, bands = len(tiles), self.bands
        per = steps[:, None, None, None]
        mantissa, exponent = torch.frexp(steps)
        x, t = tiles / per, (exponent - 2 + 2 * mantissa) / 3 - 3  # rate_feature
        ys, xs = sizes(tiles.shape[2], levels), sizes(tiles.shape[3], levels)
        out = tiles.clone()
        features: Tensor | None = None
        for level in range(min(levels, len(self.levels)), 0, -1):
            net: Any = self.levels[level - 1]
            h, w = ys[level], xs[level]
            regions = details(tiles.shape, levels, level)
            parts = [
                functional.pad(x[:, :, r, c], (0, w - (c.stop - c.start), 0, h - (r.stop - r.start)))
                for r, c in regions
            ]
            low = lows[level] / per
            low = low - functional.avg_pool2d(low, 3, 1, 1, count_include_pad=False)
            parts.append(low / (1 + low.abs() / 8))
            if net.up is not None:
                before = (
                    x.new_zeros(n, net.width, h, w)
                    if features is None
                    else functional.pixel_shuffle(net.up(features), 2)[:, :, :h, :w]
                )
                parts.append(before)
            features, changes = net(torch.cat(parts, dim=1), t)
            changes = changes.float() * per
            for o, (r, c) in enumerate(regions):
                part = changes[:, o * bands : (o + 1) * bands, : r.stop - r.start, : c.stop - c.start]
                out[:, :, r, c] = tiles[:, :, r, c] + part
        return out


def _array(x: Tensor | None) -> Array:
    if x is None:
        raise TrainError("a weight of the network is missing")
    return np.ascontiguousarray(x.detach().cpu().numpy().astype(np.float32))


def network_of(module: Residual) -> Network:
    """The same network in numpy."""
    scales = []
    for level in module.levels:
        net: Any = level
        blocks = tuple(
            (_array(b.weight).reshape(net.width, net.width, 9), _array(b.bias)) for b in net.blocks
        )
        up = net.up
        scales.append(
            Scale(
                _array(net.enter.weight)[:, :, 0, 0], _array(net.enter.bias), _array(net.rate), _array(net.rate_bias), blocks,
                _array(net.leave.weight)[:, :, 0, 0], _array(net.leave.bias),
                None if up is None else _array(up.weight)[:, :, 0, 0], None if up is None else _array(up.bias),
            )
        )  # fmt: skip
    return Network(tuple(scales))
