"""Distortion of a decoded field, accumulated window by window over valid pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array
from stac_latent.field.psnr import decibels
from stac_latent.spec import Band

__all__ = ["Distortion", "peak_of"]


def peak_of(band: Band, largest: float, smallest: float) -> float:
    """Peak of a band whose values lie between two: as :meth:`~stac_latent.spec.Band.peak`, and never zero."""
    least = 1.0 if np.dtype(band.data_type).kind in "iu" else 0.0
    return band.peak(max(largest - smallest, least) or 1.0)


@dataclass
class Distortion:
    """Squared, absolute and angular error between a field and its decoded version.

    Of complex bands the magnitudes count: of the difference for errors, of the values for their range. They have no angle.

    Parameters
    ----------
    bands
        Bands of the fields, for peaks.
    steps
        Pixels of the fields along a native pixel of each band, where larger ones are repeated: one of each counts.

    Examples
    --------
    >>> d = Distortion([Band("a", scale=1e-4), Band("b", scale=1e-4)])
    >>> x = np.full((2, 4, 4), 1000.0)
    >>> d.add(x, x + 10)
    >>> round(d.psnr, 3), d.max_error
    (60.0, 10.0)
    """

    bands: Sequence[Band]
    steps: Sequence[int] = ()
    sse: Array = field(init=False)
    count: Array = field(init=False)
    worst: Array = field(init=False)
    low: Array = field(init=False)
    high: Array = field(init=False)
    angle_sum: float = 0.0
    angle_count: int = 0

    def __post_init__(self) -> None:
        n = len(self.bands)
        self.sse, self.count, self.worst = np.zeros(n), np.zeros(n, np.int64), np.zeros(n)
        self.low, self.high = np.full(n, np.inf), np.full(n, -np.inf)

    def add(self, truth: Array, decoded: Array, valid: npt.NDArray[np.bool_] | None = None) -> None:
        """Add one window.

        Parameters
        ----------
        truth, decoded
            ``(band, y, x)`` in the stored unit, from a corner that native pixels share.
        valid
            Pixels that count, ``(1 or band, y, x)``.
        """
        mask = np.broadcast_to(True if valid is None else valid, truth.shape)
        for i in range(len(truth)):  # band by band: float64 copies of one band at a time
            step = self.steps[i] if self.steps else 1
            chosen = mask[i, ::step, ::step]
            wide = np.complex128 if truth.dtype.kind == "c" else np.float64
            a = truth[i, ::step, ::step][chosen].astype(wide)
            if not a.size:
                continue
            e = decoded[i, ::step, ::step][chosen].astype(wide) - a
            if truth.dtype.kind == "c":
                a, e = np.abs(a), np.abs(e)
            self.sse[i] += float(
                np.einsum("i,i", e, e)
            )  # not BLAS: its threads would wait for each other here
            self.count[i] += e.size
            self.worst[i] = max(self.worst[i], float(np.abs(e).max()))
            self.low[i], self.high[i] = min(self.low[i], a.min()), max(self.high[i], a.max())
        if len(set(self.steps)) < 2:  # bands of several pixel sizes have no spectrum in common
            self._add_angles(truth, decoded, np.asarray(mask.all(axis=0)))

    def _add_angles(self, truth: Array, decoded: Array, valid: npt.NDArray[np.bool_]) -> None:
        if len(truth) < 2 or truth.dtype.kind == "c" or not valid.any():
            return
        dot, aa, bb = (np.zeros(valid.shape) for _ in range(3))
        for t, d in zip(truth, decoded, strict=True):
            a, b = t.astype(np.float64), d.astype(np.float64)
            dot += a * b
            aa += a * a
            bb += b * b
        use = valid & (aa > 0) & (bb > 0)
        cosine = dot[use] / np.sqrt(aa[use] * bb[use])
        self.angle_sum += float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).sum())
        self.angle_count += int(use.sum())

    @classmethod
    def merged(cls, parts: Sequence[Distortion]) -> Distortion:
        """All bands of several fields as one, without a spectral angle; a single one stays as it is."""
        if len(parts) == 1:
            return parts[0]
        out = cls([b for p in parts for b in p.bands])
        for name in ("sse", "count", "worst", "low", "high"):
            setattr(out, name, np.concatenate([getattr(p, name) for p in parts]))
        return out

    @property
    def psnr(self) -> float | None:
        """Decibels over all bands, each relative to its peak; 200.0 without any error, None without a valid pixel."""
        used = self.count > 0
        if not used.any():
            return None
        return decibels(float(self._relative()[used].sum() / self.count[used].sum()))

    @property
    def band_psnr(self) -> list[float]:
        """Decibels of each band; 200.0 without any error, or without a valid pixel."""
        return [decibels(s / max(n, 1)) for s, n in zip(self._relative(), self.count, strict=True)]

    @property
    def band_max_error(self) -> list[float]:
        """Largest absolute error of each band, stored unit."""
        return [float(v) for v in self.worst]

    def _relative(self) -> Array:
        """Sum of squared errors of each band, relative to its peak."""
        peaks = [
            peak_of(b, h, lo) if n else 1.0
            for b, h, lo, n in zip(self.bands, self.high, self.low, self.count, strict=True)
        ]
        return np.asarray(self.sse / np.square(peaks))

    @property
    def max_error(self) -> float | None:
        """Largest absolute error of any band, stored unit."""
        return float(self.worst.max()) if self.count.any() else None

    @property
    def magnitudes(self) -> list[float]:
        """Largest magnitude of each band's values, stored unit; 0 without a valid pixel."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        return [float(m) for m in np.where(self.count > 0, largest, 0.0)]

    @property
    def sam(self) -> float | None:
        """Mean spectral angle in degrees; None for one band."""
        return self.angle_sum / self.angle_count if self.angle_count else None
