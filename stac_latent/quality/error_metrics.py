"""Metrics of the error of single pixels: PSNR, spectral angle, largest error, bias of the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from stac_latent.aliases import Array
from stac_latent.quality.distortion import Distortion
from stac_latent.spec import Band

__all__ = ["MaxError", "MeanBias", "Psnr", "Sam"]


class _Distorted:
    """What :class:`~stac_latent.quality.distortion.Distortion` measures."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, ...], Distortion] = {}

    def add(self, truth: Array, decoded: Array, valid: Array, bands: Sequence[Band]) -> None:
        """Add a window; see :meth:`stac_latent.quality.checks.Metric.add`."""
        names = tuple(b.name for b in bands)
        self.parts.setdefault(names, Distortion(list(bands))).add(truth, decoded, valid)

    @property
    def merged(self) -> Distortion | None:
        """Of all grids; None before the first window."""
        return Distortion.merged(list(self.parts.values())) if self.parts else None


class Psnr(_Distorted):
    """Peak signal-to-noise ratio in dB, as ``latent:psnr`` has it; 200 without an error."""

    name: ClassVar[str] = "psnr"
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def value(self) -> float | None:
        """Decibels; None without a valid pixel."""
        return None if self.merged is None else self.merged.psnr


class MaxError(_Distorted):
    """Largest absolute error of any band, stored unit."""

    name: ClassVar[str] = "max_error"
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def value(self) -> float | None:
        """In the stored unit; None without a valid pixel."""
        return None if self.merged is None else self.merged.max_error


class Sam(_Distorted):
    """Mean spectral angle in degrees, over the bands of each native grid that has several."""

    name: ClassVar[str] = "sam"
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def value(self) -> float | None:
        """Degrees; None where no grid has several bands."""
        count = sum(p.angle_count for p in self.parts.values())
        return sum(p.angle_sum for p in self.parts.values()) / count if count else None


class MeanBias:
    """Largest change of a band's mean, stored unit: whether sums and averages are conserved."""

    name: ClassVar[str] = "mean_bias"
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, truth: Array, decoded: Array, valid: Array, bands: Sequence[Band]) -> None:
        """Add a window; see :meth:`stac_latent.quality.checks.Metric.add`."""
        for band, a, b, mask in zip(bands, truth, decoded, valid, strict=True):
            total, count = self.sums.get(band.name, (0.0, 0))
            error = b[mask].astype(np.float64) - a[mask]
            self.sums[band.name] = (total + float(error.sum()), count + error.size)

    def value(self) -> float | None:
        """In the stored unit; None without a valid pixel."""
        found = [abs(total / count) for total, count in self.sums.values() if count]
        return max(found) if found else None
