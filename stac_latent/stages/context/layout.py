"""Loops between wavelet coefficients and planes: moments, rotation onto components, layout, and back.

Sums run in a stated order, one addition at a time, or over integers: equal on any machine and with any number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from stac_latent.aliases import Array
from stac_latent.stages.transform.kernels import COMPILED, kernel

__all__ = ["lay_planes", "mix", "moments", "rotate_samples", "scratch"]

Box = tuple[int, int, int, int]
"""Top, left, height and width of samples in an array."""
_KEPT = 1 << 23
"""Samples of the largest buffer that a thread keeps."""


def moments(part: Array, box: Box, factors: Array, every: int, out: Array) -> int:
    """Add second moments of each ``every``-th sample of a region, times their factors and rounded: such sums are exact.

    Parameters
    ----------
    part
        float32 ``(member, y, x)``.
    box
        Where the samples lie.
    factors
        float32 ``(member,)``.
    every
        Of the samples counted row by row.
    out
        float64 ``(member, member)``.

    Returns
    -------
    int
        Samples that were added.
    """
    top, left, h, w = box
    count = -(-h * w // every)
    if COMPILED:
        _moments(part, top, left, h, w, factors, every, out)
        return count
    flat = part[:, top : top + h, left : left + w].reshape(len(part), -1)[:, ::every]
    few = np.rint(flat * factors[:, None]).astype(np.float64)
    out += few @ few.T
    return count


@kernel
def _moments(
    part: Array, top: int, left: int, h: int, w: int, factors: Array, every: int, out: Array
) -> None:
    n = part.shape[0]
    v = np.empty(n)
    for i in range(0, h * w, every):
        y, x = top + i // w, left + i % w
        for b in range(n):
            v[b] = np.rint(part[b, y, x] * factors[b])
        for a in range(n):
            f = v[a]
            for b in range(n):
                out[a, b] += f * v[b]


def rotate_samples(part: Array, box: Box, factors: Array, rows: Array, out: Array) -> Array:
    """Components of the samples of a region: ``rows @ (samples * factors)``, summed in order of the bands.

    Parameters
    ----------
    part, box, factors
        As :func:`moments` takes them.
    rows
        float32 ``(component, member)``.
    out
        float32 ``(component, y * x)``; filled.

    Returns
    -------
    ndarray
        Largest magnitude of each component, float32.
    """
    top, left, h, w = box
    if COMPILED:
        peaks = np.zeros(len(rows), np.int32)
        _rotate_samples(part, top, left, h, w, factors, rows, out, out.view(np.int32), peaks)
        return peaks.view(np.float32)
    flat = part[:, top : top + h, left : left + w].reshape(len(part), -1) * factors[:, None]
    out[:] = 0
    for c in range(len(rows)):
        for b in range(len(flat)):
            out[c] += rows[c, b] * flat[b]
    return np.asarray(np.abs(out).max(axis=1, initial=0.0))


@kernel
def _rotate_samples(
    part: Array, top: int, left: int, h: int, w: int, factors: Array, rows: Array, out: Array, bits: Array, peaks: Array
) -> None:  # fmt: skip
    n = part.shape[0]
    lines = np.empty((n, w), np.float32)
    for y in range(h):
        for b in range(n):
            f, source, line = factors[b], part[b, top + y, left : left + w], lines[b]
            for x in range(w):
                line[x] = source[x] * f
        for c in range(rows.shape[0]):
            target = out[c, y * w : y * w + w]
            target[:] = 0
            for b in range(n):
                f, line = rows[c, b], lines[b]
                for x in range(w):
                    target[x] += f * line[x]
            peak = peaks[c]  # magnitudes of floats are ordered as the integers of their bits
            magnitude = bits[c, y * w : y * w + w]
            for x in range(w):
                peak = max(peak, magnitude[x] & np.int32(0x7FFFFFFF))
            peaks[c] = peak


def lay_planes(parts: Sequence[Array], table: Array, factor: Any, out: Array) -> None:
    """Samples into the layout of a table, times a factor.

    Parameters
    ----------
    parts
        float32 ``(plane, y * x)``: the planes of the table in order, several at a time.
    table
        See :meth:`stac_latent.stages.lin.subbands.Layout.program`.
    factor
        float32.
    out
        float32, of the table's size.
    """
    p = 0
    for part in parts:
        rows = table[p : p + len(part)]
        p += len(part)
        if COMPILED:
            _lay_planes(part, rows, factor, out)
            continue
        for samples, (at, h, w) in zip(part, rows[:, :3].tolist(), strict=True):
            plane = out[at : at + (h + 2) * (w + 2)].reshape(h + 2, w + 2)
            np.multiply(samples.reshape(h, w), factor, out=plane[1:-1, 1:-1])


@kernel
def _lay_planes(part: Array, rows: Array, factor: Any, out: Array) -> None:
    for c in range(part.shape[0]):
        at, h, w = rows[c, 0], rows[c, 1], rows[c, 2]
        for y in range(h):
            source = part[c, y * w : y * w + w]
            target = out[at + (y + 1) * (w + 2) + 1 : at + (y + 1) * (w + 2) + 1 + w]
            for x in range(w):
                target[x] = source[x] * factor


def mix(q: Array, rows: Array, matrix: Array, out: Array, top: int, left: int) -> None:
    """Samples of all bands from the planes of their components, into a region of ``out``.

    Sums run over components in order, one addition at a time.

    Parameters
    ----------
    q, rows
        Planes, and their rows of the table.
    matrix
        float32 ``(band, component)``.
    out
        float32 ``(band, y, x)``, contiguous.
    top, left
        Upper left of the region.
    """
    if COMPILED:
        _mix(q, rows, np.ascontiguousarray(matrix), out, top, left)
        return
    h, w = int(rows[0, 1]), int(rows[0, 2])
    region = out[:, top : top + h, left : left + w]
    region[...] = 0
    for c, row in enumerate(rows):
        plane = q[row[0] : row[0] + (h + 2) * (w + 2)].reshape(h + 2, w + 2)[1:-1, 1:-1].astype(np.float32)
        for b in range(len(matrix)):
            region[b] += matrix[b, c] * plane


@kernel
def _mix(q: Array, rows: Array, matrix: Array, out: Array, top: int, left: int) -> None:
    h, w = rows[0, 1], rows[0, 2]
    n = rows.shape[0]
    lines, used = np.empty((n, w), np.float32), np.empty(n, np.int64)
    for y in range(h):
        count = 0  # components that are not zero all along the row
        for c in range(n):
            at = rows[c, 0] + (y + 1) * (w + 2) + 1
            source, line = q[at : at + w], lines[count]
            some = np.int32(0)
            for x in range(w):
                some |= source[x]
                line[x] = source[x]
            if some != 0:
                used[count] = c
                count += 1
        for b in range(out.shape[0]):
            target = out[b, top + y, left : left + w]
            target[:] = 0
            for i in range(count):
                f, line = matrix[b, used[i]], lines[i]
                for x in range(w):
                    target[x] += f * line[x]


_local = threading.local()


def scratch(name: str, size: int, dtype: Any) -> Array:
    """A buffer of this thread, kept from call to call: fresh pages cost more than the work on them."""
    held = getattr(_local, name, None)
    if held is None or held.size < size:
        held = np.empty(max(size, 1), dtype)
        if size <= _KEPT:
            setattr(_local, name, held)
    return cast("Array", held[:size])
