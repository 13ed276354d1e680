"""Metrics of structure: SSIM, data SSIM and the radially averaged power spectrum.

They look at neighbourhoods within each window that is added, never across its edges, and at no neighbourhood with a pixel
without data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from stac_latent.aliases import Array
from stac_latent.spec import Band

__all__ = ["DataSsim", "Spectrum", "Ssim"]


_SIZE, _SIGMA = 11, 1.5
_LEAST_SIDE = 16


def _gauss() -> Array:
    x = np.arange(_SIZE) - _SIZE // 2
    w = np.exp(-0.5 * (x / _SIGMA) ** 2)
    return np.asarray(w / w.sum())


def _smooth(x: Array) -> Array:
    """Gaussian means of 11 x 11 pixels, where these lie inside."""
    for axis in (0, 1):
        n = x.shape[axis] - _SIZE + 1
        x = sum(w * x.take(range(k, k + n), axis=axis) for k, w in enumerate(_gauss()))
    return x


def ssim_map(a: Array, b: Array, c1: float, c2: float) -> Array:
    """Structural similarity of each window of 11 x 11 pixels, Gaussian weights of deviation 1.5.

    Wang, Bovik, Sheikh and Simoncelli 2004, equation 13, with biased variances as in section III-C.

    Parameters
    ----------
    a, b
        ``(y, x)`` float64, at least 11 x 11.
    c1, c2
        Constants, in the unit squared.
    """
    ma, mb = _smooth(a), _smooth(b)
    va, vb, cov = _smooth(a * a) - ma * ma, _smooth(b * b) - mb * mb, _smooth(a * b) - ma * mb
    return np.asarray((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)))


class _Windows(ABC):
    """Mean of a map of neighbourhoods for each band; the worst band is the value."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, truth: Array, decoded: Array, valid: Array, bands: Sequence[Band]) -> None:
        """Add a window; see :meth:`stac_latent.quality.checks.Metric.add`."""
        if min(truth.shape[1:]) < _SIZE:
            return
        for band, a, b, mask in zip(bands, truth, decoded, valid, strict=True):
            whole = (
                np.lib.stride_tricks.sliding_window_view(mask, (_SIZE, _SIZE)).all(axis=(2, 3))
                if not mask.all()
                else None
            )
            if whole is not None and not whole.any():
                continue
            fill = (
                a[mask][0] if whole is not None else 0
            )  # what lies in holes may be NaN, and is never looked at
            x, y = ((v if whole is None else np.where(mask, v, fill)).astype(np.float64) for v in (a, b))
            found = self._map(x, y, band)
            found = found.ravel() if whole is None else found[whole]
            total, count = self.sums.get(band.name, (0.0, 0))
            self.sums[band.name] = (total + float(found.sum()), count + found.size)

    @abstractmethod
    def _map(self, a: Array, b: Array, band: Band) -> Array: ...

    def value(self) -> float | None:
        """Of the worst band; None where no neighbourhood was whole."""
        found = [total / count for total, count in self.sums.values() if count]
        return min(found) if found else None


class Ssim(_Windows):
    """Mean structural similarity of the worst band; 1 is equal.

    The dynamic range is that of PSNR's peak, ``1 / scale``; of a band without a scale the range of the window's values.
    """

    name: ClassVar[str] = "ssim"
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def _map(self, a: Array, b: Array, band: Band) -> Array:
        span = band.peak(float(np.ptp(a)) or 1.0)
        return ssim_map(a, b, (0.01 * span) ** 2, (0.03 * span) ** 2)


class DataSsim(_Windows):
    """Data SSIM of the worst band, for fields of physical quantities: on values scaled to their range in 256 steps.

    Baker, Pinard and Hammerling 2022 (DSSIM: a structural similarity index for floating-point data), with constants of 1e-8;
    the range is that of both fields in the window. 1 is equal; 0.99995 is the threshold that the authors propose.
    """

    name: ClassVar[str] = "dssim"
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def _map(self, a: Array, b: Array, band: Band) -> Array:  # noqa: ARG002 - takes no peak
        low, high = min(a.min(), b.min()), max(a.max(), b.max())
        span = high - low or 1.0
        x, y = (np.rint((v - low) / span * 255) / 255 for v in (a, b))
        return ssim_map(x, y, 1e-8, 1e-8)


class Spectrum:
    """Change of the radially averaged power spectrum in dB: mean over wave numbers of the worst band.

    Only windows without a hole, at least 16 pixels along each side, count. Each is tapered by a Hann window after its mean is
    taken away; powers are averaged over rings of the width of one wave number of the shorter side, and over windows.
    """

    name: ClassVar[str] = "spectrum"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    _RINGS = 32

    def __init__(self) -> None:
        self.powers: dict[str, Array] = {}

    def add(self, truth: Array, decoded: Array, valid: Array, bands: Sequence[Band]) -> None:
        """Add a window; see :meth:`stac_latent.quality.checks.Metric.add`."""
        h, w = truth.shape[1:]
        if min(h, w) < _LEAST_SIDE:
            return
        taper = np.outer(np.hanning(h), np.hanning(w))
        fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
        radius = np.hypot(fy, fx)
        ring = np.minimum((radius * 2 * self._RINGS).astype(int), self._RINGS)
        ring[radius > 0.5] = self._RINGS  # corners, beyond the last whole ring
        for band, a, b, mask in zip(bands, truth, decoded, valid, strict=True):
            if not mask.all():
                continue
            rows = []
            for x in (a.astype(np.float64), b.astype(np.float64)):
                power = np.square(np.abs(np.fft.rfft2((x - x.mean()) * taper)))
                power /= h * w
                rows.append(np.bincount(ring.ravel(), power.ravel(), self._RINGS + 1)[: self._RINGS])
            self.powers[band.name] = self.powers.get(band.name, np.zeros((2, self._RINGS))) + np.array(rows)

    def value(self) -> float | None:
        """Decibels; None where no window was whole."""
        if not self.powers:
            return None
        worst = 0.0
        for truth, decoded in self.powers.values():
            floor = 1e-12 * max(truth.max(), decoded.max())
            if floor > 0:
                ratio = np.maximum(decoded, floor) / np.maximum(truth, floor)
                worst = max(worst, float(np.abs(10 * np.log10(ratio)).mean()))
        return worst
