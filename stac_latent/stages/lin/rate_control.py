"""Rate control: the step that reaches a target, searched on coded bytes and decoded pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stac_latent.aliases import Array
from stac_latent.chain import Chain
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.psnr import decibels
from stac_latent.field.rate_target import Target
from stac_latent.stages.base import FRACTION_BITS
from stac_latent.stages.transform.normalise import Normalise, store

__all__ = ["Objective", "Reached", "expected_step", "measure", "search"]

_TRIALS = 14
_SAMPLE = 2**16
_DEAD = 0.65
"""Magnitudes below this are mostly rounded to zero, in steps."""
_UNDER = 0.133
"""Octaves by which rounding to what is cheap raises the error above that of :func:`expected_step`."""
_TRUSTED = 5
"""Trials up to which a secant may end close to either side of what is known."""


@dataclass(frozen=True)
class Objective:
    """A target, and what it is measured in: stored values, their peaks (NaN: the range of the values) and their types."""

    target: Target
    first: Normalise
    chain: Chain
    peaks: Array
    integer: Array
    valid: Array | None = None
    """Pixels that count, bool ``(1 or band, y, x)``; None for all."""
    pixels: int | None = None
    """Pixels of a scene in this chunk of it, to which its rate refers; None for all that are coded."""
    overhead: int = 0
    """Bytes that are stored beside the payload and count in its rate."""
    samples: int | None = None
    """Pixels times bands that the rate refers to; None for those that are coded."""

    def stored(self, pixels: Array) -> Array:
        """Pixels in normalised units as they will be stored."""
        return store(pixels, self.first, self.chain.bands)

    @property
    def lost(self) -> Array:
        """Variance of each band that normalising takes: it keeps a 16th of the unit, and so any integer."""
        return np.where(
            self.integer & (self.first.unit < 12), 0, (self.first.unit * 2.0**-FRACTION_BITS) ** 2 / 12
        )

    def heights(self, truth: Sequence[Array], valid: Sequence[Array | None]) -> Array:
        """Peak of each band, in stored units; of one without a scale, the range of its valid pixels."""
        if not np.isnan(self.peaks).any():
            return self.peaks
        low, high = np.full(len(self.peaks), np.inf), np.full(len(self.peaks), -np.inf)
        for t, mask in zip(truth, valid, strict=True):
            x = t.astype(np.float64)
            here = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
            low = np.minimum(low, x.min(axis=(1, 2), where=here, initial=np.inf))
            high = np.maximum(high, x.max(axis=(1, 2), where=here, initial=-np.inf))
        spread = np.where(high >= low, high - low, 0.0)
        floor = np.where(self.integer, 1.0, max(float(spread.max()), 1e-30))
        return np.where(np.isnan(self.peaks), np.where(spread > 0, spread, floor), self.peaks)

    def bounds(self, truth: Sequence[Array]) -> Array:
        """Largest error of each band, in stored units, less what the field loses before it is coded.

        Raises
        ------
        CodecError
            If that is more than what was asked for.
        """
        largest = np.max([np.abs(t).reshape(len(t), -1).max(axis=1) for t in truth], axis=0) * self.first.unit
        lost = self.first.unit / 32 + largest * 2.0**-20
        bound = (self.target.max_error or 0.0) - np.where(self.integer & (lost < 0.4), 0, lost)
        bound = np.where(self.integer, np.floor(bound), bound)
        short = np.where(self.integer, bound < 0, bound <= 0)
        if short.any():
            i = int(short.argmax())
            raise CodecError(
                f"{self.target}: before it is coded, band {self.chain.bands[i].name!r} is rounded to within {lost[i]:.3g}; ask for "
                f"less, or open the codec with a smaller unit= than {self.first.unit[i]:g}"
            )
        return bound


@dataclass(frozen=True)
class Reached:
    """One trial: the bytes, their rate, and what they decode to."""

    payload: bytes
    bits_per_pixel: float
    psnr: float
    max_error: float
    """Largest error over its bound; 0 where no bound is wanted."""


def expected_step(u: Array, lost: float, samples: int, step: float, error: float) -> tuple[float, float]:
    """Step at which planes are likely to have a mean square error, and how that changes with the step.

    Parameters
    ----------
    u
        Samples of the planes in units of ``step``, before they are rounded.
    lost
        Squared error of what is in no plane, in normalised units.
    samples
        Number of samples in all.
    step
        Step of ``u``.
    error
        Mean square error, in normalised units.

    Returns
    -------
    step, slope
        The step, and octaves of the root mean square error for each octave of the step.
    """
    some = np.abs(u[:: 1 + u.size // _SAMPLE]).astype(np.float64)
    share = u.size / max(1, some.size)

    def log_error(octaves: float) -> float:
        v = some * 2.0**-octaves
        e = np.where(v < _DEAD, v, v - np.maximum(1, np.rint(v)))
        kept = float(np.square(e).sum()) * share * (step * 2.0**octaves) ** 2
        return 0.5 * math.log2(max(lost + kept, 1e-30) / samples)

    goal, low, high = 0.5 * math.log2(max(error, 1e-30)) - _UNDER, -12.0, 12.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if log_error(middle) > goal else (middle, high)
    slope = (log_error(low + 0.1) - log_error(low - 0.1)) / 0.2
    return step * 2.0**low, max(slope, 0.1)  # nothing is left to round where nothing is valid


def search(
    trial: Callable[[float], Reached],
    target: Target,
    own: float,
    *,
    near: bool = False,
    slope: float | None = None,
) -> Reached:
    """Code at the coarsest step that reaches a target.

    Parameters
    ----------
    trial
        Codes at a step.
    target
        What to reach.
    own
        Where the search starts.
    near
        Take the least where no step reaches a rate: of some pixels at the end of a scene the header alone may pass it.
    slope
        Octaves of the error for each octave of the step about the start, where they are known.

    Raises
    ------
    CodecError
        If no step reaches the target.

    Notes
    -----
    Secants on the logarithm of the step, kept between what reached the target and what did not: PSNR and the logarithm of the
    rate are nearly straight in it. Every trial is a real one; the coarsest that reached the target is returned.
    """
    if target.step is not None:
        return trial(target.step)
    if target.quality is not None:
        return trial(own * 2.0 ** ((50 - target.quality) / 10))
    gap: Callable[[Reached], float]
    if target.psnr is not None:
        goal = target.psnr
        gap, tolerance = (lambda r: (r.psnr - goal) / 6.02), 0.003
        slope = -0.55 if slope is None else -slope
    elif target.max_bits_per_pixel is not None:
        rate = target.max_bits_per_pixel
        gap, tolerance, slope = (lambda r: math.log2(rate / r.bits_per_pixel)), 0.01, 1.0
    else:
        gap, tolerance, slope = (lambda r: -math.log2(max(r.max_error, 2.0**-20))), 0.03, -1.0
    near = near and target.max_bits_per_pixel is not None
    return _secants(trial, gap, tolerance, slope, math.log2(own), target, near=near)


def _secants(
    trial: Callable[[float], Reached],
    gap: Callable[[Reached], float],
    tolerance: float,
    slope: float,
    start: float,
    target: Target,
    *,
    near: bool,
) -> Reached:
    """``gap`` is non-negative where the target is reached; ``slope`` is what it is likely to change by with each octave of the step."""
    at, best, nearest = start, None, None
    good: tuple[float, float] | None = None
    bad: tuple[float, float] | None = None
    tried, points = _Tried(), []
    for _ in range(_TRIALS):
        try:
            r = trial(2.0**at)
        except FieldError:  # too fine for the values
            at = tried.coarser(at)
            if math.isnan(at):
                break
            continue
        tried.steps.append(at)
        g = gap(r)
        if g >= 0:
            good = (at, g)
            better = best is None or (
                len(r.payload) < len(best.payload)
                if target.max_bits_per_pixel is None
                else r.psnr > best.psnr
            )
            best = r if better else best
            if g <= tolerance:
                break
        else:
            bad = (at, g)
            nearest = r if nearest is None or g > gap(nearest) else nearest
        points.append((at, g))
        at = _next(points, good, bad, slope, tolerance)
        if good and bad:
            if abs(good[0] - bad[0]) < 0.004:
                break
        else:
            at = tried.allowed(at)
        if not -30 < at < 40:
            break
    best = nearest if best is None and near else best
    if best is None:
        raise CodecError(_out_of_reach(target, nearest))
    return best


def _next(
    points: Sequence[tuple[float, float]],
    good: tuple[float, float] | None,
    bad: tuple[float, float] | None,
    slope: float,
    tolerance: float,
) -> float:
    """Where the secant of the last two trials, or the slope, reaches half of the tolerance; between ``good`` and ``bad`` where both are known."""
    at, g = points[-1]
    if len(points) > 1:
        before, h = points[-2]
        seen = (g - h) / (at - before) if at != before else slope
        slope = seen if 0.1 < seen / slope < 10 else slope
    step = (tolerance / 2 - g) / slope
    if good is None or bad is None:
        far = 2.0 ** max(0, len(points) - 2)
        return at + math.copysign(min(max(abs(step) * far, 0.02), 6.0), step)
    width = bad[0] - good[0]
    share = (at + step - good[0]) / width
    if not 0 < share < 1:
        share = (good[1] - tolerance / 2) / (good[1] - bad[1])
    edge = 0.05 if len(points) > _TRUSTED else min(0.05, 0.002 / abs(width))
    return good[0] + min(max(share, edge), 1 - edge) * width


class _Tried:
    """Steps that were tried, as logarithms, and the coarsest that was too fine for the values."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.fine = -math.inf

    def coarser(self, at: float) -> float:
        """What to try after a step that was too fine; NaN where nothing is left between."""
        self.fine = max(self.fine, at)
        return self.allowed(at)

    def allowed(self, at: float) -> float:
        """The step, or one that may not be too fine."""
        if at > self.fine:
            return at
        above = [s for s in self.steps if s > self.fine]
        if not above:
            return self.fine + 4
        return (self.fine + min(above)) / 2 if min(above) - self.fine > 0.1 else math.nan


def _out_of_reach(target: Target, nearest: Reached | None) -> str:
    if nearest is None:
        return f"no step reaches {target}: the values are too large to be coded"
    if target.max_bits_per_pixel is not None:
        return (
            f"no step reaches {target}: with hardly a coefficient left it is {nearest.bits_per_pixel:.3g}; "
            "ask for more, or code a larger field at once"
        )
    if target.psnr is not None:
        return f"no step reaches {target}: the best was {nearest.psnr:.2f} dB; ask for less, open the codec with a smaller unit=, or take a lossless one"
    return f"no step reaches {target}: the least was {nearest.max_error:.3g} times that; ask for less, or use a lossless codec"


def measure(
    truth: Sequence[Array],
    decoded: Sequence[Array],
    valid: Sequence[Array | None],
    peaks: Array,
    lost: Array | float = 0.0,
) -> tuple[float, Array]:
    """PSNR [dB] and largest error of each band of decoded tiles.

    Parameters
    ----------
    truth, decoded
        ``(band, y, x)`` of each tile, stored values.
    valid
        Pixels of each tile that count, ``(1 or band, y, x)``; None for all.
    peaks
        Peak of each band, stored unit.
    lost
        Variance of each band that the truth lacks already, stored unit squared.

    Returns
    -------
    psnr, worst
        dB, 200 where all is exact; float64 ``(band,)``, stored unit.
    """
    n = len(peaks)
    sse, worst, count = np.zeros(n), np.zeros(n), np.zeros(n)
    for a, b, mask in zip(truth, decoded, valid, strict=True):
        e = np.subtract(a, b, dtype=np.float64)
        if mask is not None:
            e *= mask
        e = e.reshape(n, -1)
        sse += np.einsum("ij,ij->i", e, e)
        worst = np.maximum(worst, np.abs(e).max(axis=1))
        count += e.shape[1] if mask is None else np.broadcast_to(mask, a.shape).reshape(n, -1).sum(axis=1)
    total = float(((sse + count * lost) / peaks**2).sum() / max(1.0, count.sum()))
    return decibels(total), worst
