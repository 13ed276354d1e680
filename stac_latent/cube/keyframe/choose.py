"""Which dates are key frames, and which of them each other date refers to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array, Progress
from stac_latent.bytestring.bounded import codable
from stac_latent.codec.codec import Codec
from stac_latent.cube.grid.tiling import padded_shape
from stac_latent.cube.keyframe.decode import lin_stage, same_cells
from stac_latent.cube.keyframe.encode import whole_cells
from stac_latent.cube.keyframe.gains import best_gains
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.verify import Source
from stac_latent.errors import CatalogError
from stac_latent.spec import Grid
from stac_latent.window import Window

__all__ = ["Plan", "Rule", "Sample", "best_key_frame", "choose_key_frames", "plan_key_frames", "survey"]

Rule = int | Literal["auto"]
"""``auto``: as many key frames as pay. A number: one in each run of so many dates."""

_SIDE = 128
"""Pixels along a window of a survey."""
_WINDOWS = 4
_GAIN = 0.005
"""Share of all bytes that one more key frame must save."""


@dataclass(frozen=True)
class Plan:
    """What each date refers to: the position of its key frame, or None for a key frame."""

    of: tuple[int | None, ...]

    @property
    def order(self) -> list[int]:
        """Positions in the order of coding: key frames come before what refers to them."""
        return sorted(range(len(self.of)), key=lambda i: (self.of[i] is not None, i))


def plan_key_frames(
    sources: Sequence[Source],
    codec: Codec,
    rule: Rule,
    progress: Progress | None = None,
) -> Plan:
    """Choose key frames among dates by the bytes of samples.

    Parameters
    ----------
    sources
        Dates, in order of time. Only those of the same cells can refer to each other.
    codec
        What they are coded with.
    rule
        See :data:`Rule`.
    progress
        Called after each date.

    Raises
    ------
    CatalogError
        If the rule is no such.
    """
    if rule != "auto" and (isinstance(rule, bool) or not isinstance(rule, int) or rule < 2):
        raise CatalogError(
            f"references={rule!r}; expected 'auto', a number of dates from 2 on, or Items that are key frames"
        )
    groups: list[list[int]] = []
    for i, source in enumerate(sources):
        home = next((g for g in groups if same_cells(sources[g[0]].grid, source.grid)), None)
        if home is None:
            groups.append([i])
        else:
            home.append(i)
    of: list[int | None] = [None] * len(sources)
    done = 0
    for group in groups:
        runs = [group] if rule == "auto" else [group[k : k + rule] for k in range(0, len(group), rule)]
        for run in runs:
            found = []
            for i in run:
                found.append(survey(sources[i], codec) if len(run) > 1 else None)
                done += 1
                if progress:
                    progress("key frames", done, len(sources))
            if len(run) > 1:
                bits = _bits([f for f in found if f is not None])
                for i, key in enumerate(choose_key_frames(bits, None if rule == "auto" else 1)):
                    of[run[i]] = None if key is None else run[key]
    return Plan(tuple(of))


def choose_key_frames(bits: Array, most: int | None = None) -> list[int | None]:
    """Key frames that make the sum of all bytes small, and which one each other date refers to.

    Parameters
    ----------
    bits
        ``(n, n)``: bytes of each date (rows) against each other as a key frame, on the diagonal alone.
    most
        Largest number of key frames that others refer to; None for as many as pay.

    Returns
    -------
    list
        For each date the position of its key frame; None for those that stand alone.

    Notes
    -----
    Greedy: each key frame is the one that saves most beside those chosen before, and is exchanged afterwards while that
    helps. Clouds predict nothing, so that a cloudy date is never chosen where a clear one is.
    """
    n = len(bits)
    alone = np.diagonal(bits)

    def total(keys: list[int]) -> float:
        cost = np.minimum(alone, bits[:, keys].min(axis=1))
        cost[keys] = alone[keys]
        return float(cost.sum())

    keys: list[int] = []
    spent = float(alone.sum())
    while len(keys) < min(n, n if most is None else most):
        best = min((k for k in range(n) if k not in keys), key=lambda k: total([*keys, k]))
        if total([*keys, best]) > spent - _GAIN * float(alone.sum()):
            break
        keys.append(best)
        keys = _exchange(keys, total, n)
        spent = total(keys)
    if not keys:
        return [None] * n
    out: list[int | None] = []
    for i in range(n):
        best = keys[int(bits[i, keys].argmin())]
        out.append(None if i in keys or bits[i, best] >= alone[i] else best)
    return out


def _exchange(keys: list[int], total: Callable[[list[int]], float], n: int) -> list[int]:
    for place in range(len(keys)):
        tried = [[*keys[:place], k, *keys[place + 1 :]] for k in range(n) if k not in keys]
        keys = min([keys, *tried], key=total)
    return keys


def best_key_frame(
    source: Source, codec: Codec, candidates: Mapping[int, LatentRef], known: dict[int, Sample]
) -> int | None:
    """Which of several key frames a date is coded against; None where none helps.

    Parameters
    ----------
    source
        The date.
    codec
        What it is coded with.
    candidates
        Key frames by number; those of other cells or spaces, and those that have a reference themselves, are passed
        over.
    known
        Samples of key frames by number, kept from one date to the next; filled.
    """
    fit = [
        i
        for i, ref in candidates.items()
        if ref.reference is None and ref.spec.space == codec.space and same_cells(ref.grid, source.grid)
    ]
    if not fit:
        return None
    date = survey(source, codec)
    for i in fit:
        if i not in known:
            known[i] = survey(_Decoded(LatentReader(candidates[i])), codec)
    bits = [_against(date, known[i]) for i in fit]
    return fit[int(np.argmin(bits))] if min(bits) < sum(date.sizes) else None


class _Decoded:
    """A latent as a source of pixels."""

    def __init__(self, reader: LatentReader) -> None:
        self.reader, self.grid, self.decoded = reader, reader.grid, reader.spec.bands

    def read(self, window: Window) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Pixels of a window of the padded grid, those of the padding invalid."""
        top, left = self.grid.lead
        pixels = window.shifted((-top, -left))
        inside = Window.of(
            (max(0, lo), min(n, hi)) for (lo, hi), n in zip(pixels, self.grid.shape, strict=True)
        )
        part = self.reader.read_field(inside)
        mask = self.reader.arrays.read_mask(inside)
        margins = [(a - lo, hi - b) for (lo, hi), (a, b) in zip(pixels, inside, strict=True)]
        valid = np.ones((1, *part.shape[1:]), bool) if mask is None else mask
        return np.pad(part, [(0, 0), *margins]), np.pad(valid, [(0, 0), *margins])


@dataclass(frozen=True)
class Sample:
    """Windows of a date: latents, what they decode to, cells with data, bytes and step."""

    latents: tuple[Array, ...]
    decoded: tuple[Array, ...]
    cells: tuple[Array, ...]
    sizes: tuple[int, ...]
    steps: tuple[float, ...]


def survey(source: Source, codec: Codec) -> Sample:
    """Code a few windows of a date, spread over it; windows without data, and pixels that the chain cannot take, count nothing."""
    codec = codec.for_bands(source.decoded)
    latents, decoded, cells, sizes, steps = [], [], [], [], []
    for window in _windows(source.grid):
        field, valid = source.read(window)
        known = codable(field, valid, codec)
        latent = codec.encode(field, mask=valid if known is None else known, upto="symbols")
        payload = codec.entropy_encode(latent)
        latents.append(latent)
        decoded.append(codec.entropy_decode(payload))
        cells.append(whole_cells(valid, codec.stride))
        sizes.append(len(payload) if valid.any() else 0)
        steps.append(lin_stage(codec).step_of(payload))
    return Sample(tuple(latents), tuple(decoded), tuple(cells), tuple(sizes), tuple(steps))


def _windows(grid: Grid) -> list[Window]:
    """Windows of whole cells of the padded grid: the middles of quarters, or all where that is not more."""
    spans = []
    for n, stride in zip(padded_shape(grid), grid.stride, strict=True):
        side = min(n, _SIDE // stride * stride)
        if n < 2 * side:
            spans.append([((n - side) // 2 // stride * stride, (n - side) // 2 // stride * stride + side)])
            continue
        starts = [int(n * q - side / 2) // stride * stride for q in (0.25, 0.75)]
        spans.append([(s, s + side) for s in starts])
    return [Window.of((rows, columns)) for rows in spans[0] for columns in spans[1]][:_WINDOWS]


def _bits(samples: Sequence[Sample]) -> Array:
    """Bytes ``(n, n)`` of each date against each other, on the diagonal alone."""
    n = len(samples)
    out = np.empty((n, n))
    for i, date in enumerate(samples):
        for j, key in enumerate(samples):
            out[i, j] = sum(date.sizes) if i == j else _against(date, key)
    return out


def _against(date: Sample, key: Sample) -> float:
    """Bytes of a date against a key frame, as estimated."""
    return sum(
        size * best_gains(latent, reference, step, cells)[1] if cells.any() else size
        for latent, cells, size, step, reference in zip(
            date.latents, date.cells, date.sizes, date.steps, key.decoded, strict=True
        )
    )
