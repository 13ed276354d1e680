"""Compiled inner loops: the same integers as the numpy stages, several times sooner.

Everything here is exact integer arithmetic held in float64, so that compiled and plain code give identical results;
the tests compare them. Where numba cannot be imported, :data:`COMPILED` is false, the stages run as they are written, and
decoders say so once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np

from stac_latent.aliases import Array
from stac_latent.errors import SlowWarning

__all__ = [
    "COMPILED",
    "gather",
    "group_sizes",
    "histogram",
    "kernel",
    "scatter",
    "synthesise",
    "table_numbers",
    "warn_if_slow",
]

F = TypeVar("F", bound=Callable[..., Any])
_UNIT = 2.0**-14

try:
    if os.environ.get("STAC_LATENT_NO_NUMBA"):
        raise ImportError("switched off by STAC_LATENT_NO_NUMBA")  # noqa: TRY301 - as if it were not installed
    import numba

    COMPILED, _WHY = True, ""
except ImportError as exc:
    COMPILED, _WHY = False, str(exc)


@cache
def warn_if_slow() -> None:
    """Say once in a process that decoding runs without compiled loops, and why."""
    if not COMPILED:
        warnings.warn(
            f"decoding without numba ({_WHY}): the same pixels, up to 35 times slower; pip install numba",
            SlowWarning,
            stacklevel=2,
        )


def kernel(function: F) -> F:
    """Compile a loop that holds no lock; kept on disk where there is a place to. Without numba, leave it as it is."""
    if not COMPILED:
        return function
    try:
        compiled = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        compiled = numba.njit(nogil=True)(function)
    return cast("F", compiled)


def table_numbers(index: Array, middle: int, count: int, classes: int) -> Array:
    """Table of each channel and class, uint8 ``(channel, class)``: ``index + class - middle`` within ``0..count``.

    Table 0, which is that of every symbol of a channel with index 0, is not coded.
    """
    which = np.clip(index[:, None] + np.arange(classes) - middle, 0, count)
    which[index == 0] = 0
    return which.astype(np.uint8)


def group_sizes(which: Array, classes: Array) -> Array:
    """Coded symbols of each table, int64 ``(256,)``, from :func:`table_numbers` and the class of each cell."""
    cells = np.bincount(classes, minlength=which.shape[1])
    sizes = np.bincount(which.ravel(), weights=np.tile(cells, len(which)), minlength=256).astype(np.int64)
    sizes[0] = 0
    return sizes


def gather(flat: Array, which: Array, classes: Array, sizes: Array) -> Array:
    """Coded symbols in the order of their tables, and within a table by channel and cell.

    Parameters
    ----------
    flat
        int32 ``(channel, cell)``.
    which, classes, sizes
        See :func:`group_sizes`, which gives the last.
    """
    if COMPILED:
        out = np.empty(sizes.sum(), np.int32)
        _gather(flat, which, classes, np.cumsum(sizes) - sizes, out)
        return out
    return np.asarray(flat.ravel()[_order(which, classes)])


def scatter(values: Array, which: Array, classes: Array, sizes: Array) -> Array:
    """Inverse of :func:`gather`: int16 ``(channel, cell)``, zero where nothing is coded."""
    out = np.zeros((len(which), classes.size), np.int16)
    if COMPILED:
        _scatter(values, which, classes, np.cumsum(sizes) - sizes, out)
    else:
        out.ravel()[_order(which, classes)] = values
    return out


def _order(which: Array, classes: Array) -> Array:
    flat = which[:, classes].ravel()
    coded = np.flatnonzero(flat)
    return np.asarray(coded[np.argsort(flat[coded], kind="stable")])


@kernel
def _gather(flat: Array, which: Array, classes: Array, start: Array, out: Array) -> None:
    for c in range(flat.shape[0]):
        tables = which[c]
        for n in range(classes.size):
            t = tables[classes[n]]
            if t:
                out[start[t]] = flat[c, n]
                start[t] += 1


@kernel
def _scatter(values: Array, which: Array, classes: Array, start: Array, out: Array) -> None:
    for c in range(out.shape[0]):
        tables = which[c]
        for n in range(classes.size):
            t = tables[classes[n]]
            if t:
                out[c, n] = values[start[t]]
                start[t] += 1


def histogram(bins: Array, rows: Array, columns: Array, shape: tuple[int, int, int]) -> Array:
    """Count bins by the label of their row and column.

    Parameters
    ----------
    bins
        uint8 ``(row, column)``.
    rows, columns
        Label of each row and column, int64.
    shape
        Number of row labels, column labels and bins.

    Returns
    -------
    ndarray
        float64 ``(row labels, column labels * bins)``.
    """
    if COMPILED:
        out = np.zeros(shape)
        _histogram(bins, rows, columns, out)
        return out.reshape(shape[0], -1)
    where = (columns * shape[2])[None, :] + bins
    where += (rows * (shape[1] * shape[2]))[:, None]
    counts = np.bincount(where.ravel(), minlength=shape[0] * shape[1] * shape[2])
    return counts.reshape(shape[0], -1).astype(np.float64)


@kernel
def _histogram(bins: Array, rows: Array, columns: Array, out: Array) -> None:
    for r in range(bins.shape[0]):
        for c in range(bins.shape[1]):
            out[rows[r], columns[c], bins[r, c]] += 1


@kernel
def synthesise(
    symbols: Array, step: Array, keep: Array, basis: Array, klt: Array, scale: Array, low: Array, high: float, out: Array
) -> None:  # fmt: skip
    """Dequantise, invert block DCT, KLT and normalisation, round and clip, one row of cells at a time.

    Parameters
    ----------
    symbols
        int16 ``(channel, cy, cx)``.
    step
        Quantiser step of each channel, float64.
    keep
        Position of each channel among ``component * size**2 + frequency``.
    basis, klt
        Integer matrices in units of 2**-14 as float64: ``(frequency, sample)`` and ``(component, band)``.
    scale
        Gain and offset of the normalisation, ``(2, band)``.
    low, high
        Bounds of each band, and of the stored type.
    out
        ``(band, cy * size, cx * size)`` of the stored type; overwritten.
    """
    n, components, cx = basis.shape[0], klt.shape[0], symbols.shape[2]
    coefficient = np.zeros((components, n, n, cx))
    space = np.zeros((components, n, n, cx))
    half = np.zeros((n, n, cx))
    live = np.zeros((components, n), np.bool_)
    sums = np.zeros(cx)
    for row in range(symbols.shape[1]):
        _dequantise_row(symbols, row, step, keep, coefficient, live)
        for c in range(components):
            _inverse_dct(coefficient[c], live[c], basis, half, space[c], sums)
        _mix_row(space, klt, scale, low, high, out, row, sums)


@kernel
def _dequantise_row(
    symbols: Array, row: int, step: Array, keep: Array, coefficient: Array, live: Array
) -> None:
    n = live.shape[1]
    live[:] = False
    for i in range(keep.size):
        c, f = keep[i] // (n * n), keep[i] % (n * n)
        any_symbol = False
        for x in range(symbols.shape[2]):
            q = symbols[i, row, x]
            coefficient[c, f // n, f % n, x] = q * step[i]
            any_symbol |= q != 0
        live[c, f // n] |= any_symbol


@kernel
def _inverse_dct(  # noqa: C901 - two passes of one loop nest
    coefficient: Array, live: Array, basis: Array, half: Array, space: Array, sums: Array
) -> None:
    n, cx = live.size, sums.size
    for ky in range(n):
        if live[ky]:
            for px in range(n):
                sums[:] = 0
                for kx in range(n):
                    b = basis[kx, px]
                    for x in range(cx):
                        sums[x] += b * coefficient[ky, kx, x]
                for x in range(cx):
                    half[ky, px, x] = np.rint(sums[x] * _UNIT)
    for py in range(n):
        for px in range(n):
            sums[:] = 0
            for ky in range(n):
                if live[ky]:
                    b = basis[ky, py]
                    for x in range(cx):
                        sums[x] += b * half[ky, px, x]
            for x in range(cx):
                space[py, px, x] = np.rint(sums[x] * _UNIT)


@kernel
def _mix_row(
    space: Array, klt: Array, scale: Array, low: Array, high: float, out: Array, row: int, sums: Array
) -> None:  # fmt: skip
    n, cx = space.shape[1], sums.size
    for b in range(klt.shape[1]):
        for py in range(n):
            for px in range(n):
                sums[:] = 0
                for c in range(klt.shape[0]):
                    k = klt[c, b]
                    for x in range(cx):
                        sums[x] += k * space[c, py, px, x]
                for x in range(cx):
                    v = np.rint(np.rint(sums[x] * _UNIT) * scale[0, b] + scale[1, b])
                    out[b, row * n + py, x * n + px] = min(max(v, low[b]), high)
