"""Compiled inner loops (extra ``fast``): the same integers as the numpy stages, several times sooner.

Everything here is exact integer arithmetic held in float64, so that compiled and plain code give identical results;
the tests compare them. Without numba, :data:`COMPILED` is false and the stages run as they are written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from stac_latent.codec import Array

__all__ = ["COMPILED", "group_positions", "histogram", "synthesise"]

F = TypeVar("F", bound=Callable[..., Any])
_UNIT = 2.0**-14

try:
    if os.environ.get("STAC_LATENT_NO_NUMBA"):
        raise ImportError("switched off by STAC_LATENT_NO_NUMBA")  # noqa: TRY301 - as if it were not installed
    from numba import njit

    COMPILED = True
except ImportError:
    COMPILED = False

    def njit(**_options: Any) -> Callable[[F], F]:  # type: ignore[no-redef, unused-ignore]
        """Leave functions as they are; nothing calls them then."""
        return lambda function: function


def group_positions(index: Array, classes: Array, middle: int, count: int) -> tuple[Array, Array]:
    """Flat positions of coded symbols in the order of their tables, and the size of each group.

    The table of a symbol is ``index + class - middle`` within ``0..count``; table 0, and every symbol of a channel
    with index 0, is not coded.

    Parameters
    ----------
    index, classes
        Scale index of each channel and activity class of each cell, int64.

    Returns
    -------
    order, counts
        int64; positions into ``(channel, cell)``, stable within a table, and ``(256,)`` group sizes.
    """
    if COMPILED:
        order, counts = _group_positions(index, classes, middle, count)
        return order, counts
    which = index[:, None] + (classes - middle)[None, :]
    np.clip(which, 0, count, out=which)
    which[index == 0] = 0
    flat = which.astype(np.uint8).ravel()
    coded = np.flatnonzero(flat)
    tables = flat[coded]
    return coded[np.argsort(tables, kind="stable")], np.bincount(tables, minlength=256)


@njit(cache=True, nogil=True)
def _group_positions(  # noqa: C901 - one pass to count, one to place
    index: Array, classes: Array, middle: int, count: int
) -> tuple[Array, Array]:
    cells = classes.size
    counts, seen, start = np.zeros(256, np.int64), np.zeros(256, np.int64), np.zeros(256, np.int64)
    for k in classes:
        seen[k] += 1
    for i in index:
        if i > 0:
            for k in range(256):
                if seen[k]:
                    counts[min(max(i + k - middle, 0), count)] += seen[k]
    counts[0] = 0
    for t in range(1, 256):
        start[t] = start[t - 1] + counts[t - 1]
    order = np.empty(counts.sum(), np.int64)
    for c in range(index.size):
        if index[c] > 0:
            for n in range(cells):
                t = min(max(index[c] + classes[n] - middle, 0), count)
                if t:
                    order[start[t]] = c * cells + n
                    start[t] += 1
    return order, counts


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


@njit(cache=True, nogil=True)
def _histogram(bins: Array, rows: Array, columns: Array, out: Array) -> None:
    for r in range(bins.shape[0]):
        for c in range(bins.shape[1]):
            out[rows[r], columns[c], bins[r, c]] += 1


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
