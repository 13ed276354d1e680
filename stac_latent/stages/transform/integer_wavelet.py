"""Wavelet transform by integer lifting: subbands of ``levels`` dyadic levels packed into cells of 2**levels pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError
from stac_latent.stages.base import BaseStage

__all__ = ["Wavelet", "subband_norms"]

_BITS = 14
_LIFTING = tuple(round(v * 2**_BITS) for v in (-1.586134342, -0.052980118, 0.882911075, 0.443506852))
"""Lifting steps of CDF 9/7 (Daubechies and Sweldens 1998, table 4), in units of 2**-14."""


class Wavelet(BaseStage):
    """CDF 9/7 by integer lifting, without the final scaling: exactly invertible, and exact on every machine.

    Each input pixel block of ``2**levels`` squared becomes one cell with ``4**levels`` channels a component:
    first the lowest band, then HL, LH, HH from the coarsest level to the finest.

    Parameters
    ----------
    levels
        Dyadic levels, 1 to 4.

    Examples
    --------
    >>> stage = Wavelet(levels=2)
    >>> x = np.arange(64.0).reshape(1, 8, 8)
    >>> y = stage.forward(x)
    >>> y.shape, bool((stage.inverse(y) == x).all())
    ((16, 2, 2), True)
    """

    name: ClassVar[str] = "wavelet"
    level: ClassVar[Level] = "latent"

    def __init__(self, levels: int = 3) -> None:
        if not 1 <= levels <= 4:
            raise BundleError(f"wavelet: levels is 1 to 4; got {levels}")
        self.levels = levels

    @property
    def stride(self) -> tuple[int, int]:
        """``2**levels`` both ways."""
        return (2**self.levels, 2**self.levels)

    @property
    def halo(self) -> tuple[int, int]:
        """Four cells: the synthesis filters of all levels together reach less than four cells."""
        return (4, 4)

    @property
    def overlap(self) -> tuple[int, int]:
        """Four samples a level, summed in pixels."""
        n = 4 * (2**self.levels - 1)
        return (n, n)

    def forward(self, x: Array) -> Array:
        """``(component, y, x)`` to ``(component * 4**levels, y / 2**levels, x / 2**levels)``, integer valued."""
        c, h, w = x.shape
        low, parts = np.asarray(x, np.float64), []
        for _ in range(self.levels):
            a, b = _analyse(low, 2)
            (ll, lh), (hl, hh) = _analyse(a, 1), _analyse(b, 1)
            parts.append((hl, lh, hh))
            low = ll
        cy, cx = h // self.stride[0], w // self.stride[1]
        out = [low.reshape(c, 1, cy, cx)]
        for triple in reversed(parts):
            for band in triple:
                n = band.shape[1] // cy
                cells = band.reshape(c, cy, n, cx, n).transpose(0, 2, 4, 1, 3)
                out.append(cells.reshape(c, n * n, cy, cx))
        return np.concatenate(out, axis=1).reshape(-1, cy, cx)

    def inverse(self, y: Array) -> Array:
        """Inverse of :meth:`forward`, exactly."""
        per = 4**self.levels
        channels, cy, cx = y.shape
        c = channels // per
        z = np.asarray(y, np.float64).reshape(c, per, cy, cx)
        low, start = z[:, 0], 1
        for level in range(self.levels):
            n = 2**level
            bands = []
            for _ in range(3):
                cells = z[:, start : start + n * n].reshape(c, n, n, cy, cx)
                bands.append(cells.transpose(0, 3, 1, 4, 2).reshape(c, cy * n, cx * n))
                start += n * n
            hl, lh, hh = bands
            low = _synthesise(_synthesise(low, lh, 1), _synthesise(hl, hh, 1), 2)
        return low

    def config(self) -> dict[str, Any]:
        """Number of levels."""
        return {"levels": self.levels}


def subband_norms(levels: int) -> Array:
    """L2 norm of the synthesis basis of each channel of one component: a step over it weights errors equally."""
    stage = Wavelet(levels)
    cells = 17
    norms = np.empty(4**levels)
    for i in range(norms.size):
        y = np.zeros((norms.size, cells, cells))
        y[i, cells // 2, cells // 2] = 2.0**16
        norms[i] = np.sqrt((stage.inverse(y) ** 2).sum()) / 2.0**16
    return norms


def _lift(target: Array, other: Array, factor: int, axis: int, ahead: bool) -> None:
    """``target += rint(factor (other + its neighbour) / 2**14)``, symmetric at the ends."""
    other = np.moveaxis(other, axis, -1)
    target = np.moveaxis(target, axis, -1)
    near = np.empty_like(other)
    if ahead:
        near[..., :-1], near[..., -1] = other[..., 1:], other[..., -1]
    else:
        near[..., 1:], near[..., 0] = other[..., :-1], other[..., 0]
    near += other
    near *= factor * 2.0**-_BITS
    target += np.rint(near, out=near)


def _analyse(x: Array, axis: int) -> tuple[Array, Array]:
    even, odd = [slice(None)] * 3, [slice(None)] * 3
    even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
    s, d = x[tuple(even)].copy(), x[tuple(odd)].copy()
    a, b, c, e = _LIFTING
    _lift(d, s, a, axis, ahead=True)
    _lift(s, d, b, axis, ahead=False)
    _lift(d, s, c, axis, ahead=True)
    _lift(s, d, e, axis, ahead=False)
    return s, d


def _synthesise(s: Array, d: Array, axis: int) -> Array:
    s, d = s.copy(), d.copy()
    a, b, c, e = _LIFTING
    _lift(s, d, -e, axis, ahead=False)
    _lift(d, s, -c, axis, ahead=True)
    _lift(s, d, -b, axis, ahead=False)
    _lift(d, s, -a, axis, ahead=True)
    shape = list(s.shape)
    shape[axis] *= 2
    x = np.empty(shape)
    even, odd = [slice(None)] * 3, [slice(None)] * 3
    even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
    x[tuple(even)], x[tuple(odd)] = s, d
    return x
