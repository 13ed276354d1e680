"""Which points are read from which Items, a few Items at a time, and the table that is made of what they hold."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pystac
import rasterio.errors

from stac_latent.aliases import Progress
from stac_latent.catalog.place.table import PointTable
from stac_latent.cube.bad_items import Errors
from stac_latent.cube.foreign_layout import absolute_href
from stac_latent.cube.grid.points import Integers, Pixels
from stac_latent.cube.points.latents import CellSamples
from stac_latent.cube.read.chunk_cache import workers
from stac_latent.errors import CatalogError, GridError, SourceWarning, StacLatentError, without_secrets
from stac_latent.geo.extents import times_in_utc
from stac_latent.net.answers import connections
from stac_latent.system.limits import memory
from stac_latent.system.links import is_remote

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

__all__ = ["COLUMNS", "Beside", "Plan", "Samples", "span_of", "threads_for"]

COLUMNS = ("point", "time", "item", "status")
"""Columns of every result."""
_ROW = 40
"""Bytes of a row of the result but for its values."""
_VECTOR = 50
"""Bytes of an array but for its numbers."""
_SHOWN = 5
"""Items that a warning names."""
_COPIES = 3
"""Of the values, while they are put in order."""


class Samples(Protocol):
    """What gives the values of one Item at points."""

    @property
    def boxes(self) -> list[GeoBox]:
        """Grids of its bands."""
        ...

    @property
    def names(self) -> Sequence[tuple[str, ...]]:
        """Bands on each of them."""
        ...

    @property
    def asked(self) -> Sequence[str]:
        """All bands, in the order in which they were asked for."""
        ...

    def read(self, pixels: Sequence[Pixels]) -> list[npt.NDArray[Any]]:
        """``(band, n)`` for the pixels of each grid, NaN without data."""
        ...


def threads_for(items: Sequence[pystac.Item]) -> int:
    """Items that are read at once: as many as decode, or as requests may be under way."""
    remote = any(is_remote(absolute_href(a.href, item)) for item in items for a in item.assets.values())
    return max(1, min(len(items), connections() if remote else workers()))


def span_of(item: pystac.Item) -> tuple[int, int]:
    """First and last time of an Item, in microseconds."""
    times = times_in_utc(item)
    if not times:
        raise CatalogError(f"item {item.id!r} has neither datetime nor start_datetime; correct the item")
    first, last = (
        pd.Timestamp(t).tz_convert(None).to_datetime64().astype("datetime64[us]").astype(int)
        for t in (times[0], times[-1])
    )
    return int(first), int(last)


class Beside:
    """Samples of one Item from several kinds of assets.

    Parameters
    ----------
    parts
        They.
    asked
        All bands, in the order in which they were asked for.
    """

    def __init__(self, parts: Sequence[Samples], asked: Sequence[str]) -> None:
        self._parts, self.asked = parts, asked
        self.boxes = [box for part in parts for box in part.boxes]
        """Grids of the bands."""
        self.names = [of_grid for part in parts for of_grid in part.names]
        """Bands on each of them."""

    def read(self, pixels: Sequence[Pixels]) -> list[npt.NDArray[Any]]:
        """``(band, n)`` for the pixels of each grid, NaN without data."""
        rest = list(pixels)
        out = []
        for part in self._parts:
            own, rest = rest[: len(part.boxes)], rest[len(part.boxes) :]
            out += part.read(own)
        return out


@dataclass(frozen=True)
class _Read:
    """Values of one Item."""

    points: Integers
    numbers: npt.NDArray[Any]
    """``(band, n)``."""
    problem: str = ""
    """Why it could not be read; empty where it could."""


def _values(source: Samples, pixels: Sequence[Pixels], held: Integers) -> npt.NDArray[Any]:
    """``(band, n)`` in the order in which bands were asked for; NaN where a point lies in another band's grid alone."""
    parts = source.read(pixels)
    names = [name for of_grid in source.names for name in of_grid]
    if all(len(found.points) == len(held) for found in pixels):
        values = np.concatenate(parts)
    else:
        values = np.full((sum(map(len, parts)), len(held)), math.nan, np.result_type(*parts))
        row = 0
        for found, part in zip(pixels, parts, strict=True):
            values[row : row + len(part), np.searchsorted(held, found.points)] = part
            row += len(part)
    return values if len(names) == 1 else values[[names.index(name) for name in source.asked]]


def _width(source: Samples) -> int:
    """Numbers of a row."""
    return source.dimensions if isinstance(source, CellSamples) else len(source.asked)


class Plan:
    """Which points are read from which Items, and the table that is made of it."""

    def __init__(
        self,
        known: PointTable,
        sources: Sequence[tuple[pystac.Item, Samples]],
        limit: int | None,
        match: str,
        errors: Errors = "raise",
    ) -> None:
        self.known, self._errors = known, errors
        self.items, self.sources = [item for item, _ in sources], [source for _, source in sources]
        self._limit, self._nearest = limit, match == "nearest"
        self._spans = [span_of(item) for item in self.items]
        self._off: Integers | None = None
        """How far the nearest Item is from the time of each point."""
        self.inside = np.zeros(len(known), bool)
        """Whether any Item holds a point."""
        far = np.iinfo(np.int64).max
        if known.times is not None and self._nearest:
            self._off = np.full(len(known), far)
        held = []
        for i, source in enumerate(self.sources):
            holds = self._holds(source)
            self.inside |= holds
            if self._off is not None:
                self._off[holds] = np.minimum(self._off[holds], self._distance(i)[holds])
            held.append(int(holds.sum()))
        self.rows = min(sum(held), len(known) * (1 if self._off is not None else len(self.items)))
        """Rows that the result has at most."""

    def _holds(self, source: Samples) -> npt.NDArray[np.bool_]:
        holds = np.zeros(len(self.known), bool)
        for box in source.boxes:
            holds[self.known.places.on(box).points] = True
        return holds

    def _distance(self, i: int) -> Integers:
        """Microseconds between an Item's time and that of each point."""
        first, last = self._spans[i]
        times = self.known.times
        assert times is not None  # noqa: S101 - asked for only then
        return np.maximum(np.maximum(first - times, times - last), 0)

    def _fits(self, i: int) -> npt.NDArray[np.bool_] | None:
        """Points whose time an Item is of; None: all."""
        if self.known.times is None:
            return None
        off = self._distance(i)
        fits = np.ones(len(off), bool) if self._off is None else off == self._off
        return fits if self._limit is None else fits & (off <= self._limit)

    def check_size(self) -> None:
        """Refuse a result that would not fit the memory."""
        first = self.sources[0]
        width = _width(first) * (4 if isinstance(first, CellSamples) else 8) + _VECTOR
        size = self.rows * (width * _COPIES + _ROW * 2) + len(self.known) * _ROW
        if size > memory():
            raise GridError(
                f"{len(self.known):,} points in {len(self.items):,} items make up to {self.rows:,} rows, which take {size / 2**30:.1f} GiB with "
                f"what it needs to put them in order; this machine has {memory() / 2**30:.1f}. Give the table in parts, or fewer bands or dates"
            )

    def read(self, progress: Progress | None) -> list[_Read]:
        """Values of each Item, a few at a time."""
        out = []
        with ThreadPoolExecutor(threads_for(self.items), "stac-latent-points") as pool:
            futures = [pool.submit(self._read, i) for i in range(len(self.items))]
            try:
                for done, future in enumerate(futures, start=1):
                    out.append(future.result())
                    if progress is not None:
                        progress("read", done, len(futures))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        bad = [r.problem for r in out if r.problem]
        if bad and self._errors == "warn":
            more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            warnings.warn(
                f"{len(bad)} of {len(out)} item(s) cannot be read, and have no values: {'; '.join(bad[:_SHOWN])}{more}",
                SourceWarning,
                stacklevel=4,
            )
        return out

    def _read(self, i: int) -> _Read:
        source, fits = self.sources[i], self._fits(i)
        pixels = [self.known.places.on(box) for box in source.boxes]
        if fits is not None:
            pixels = [found.where(fits) for found in pixels]
        held = np.unique(np.concatenate([found.points for found in pixels]))
        if not len(held):
            return _Read(held, np.empty((0, 0), np.float32))
        try:
            return _Read(held, _values(source, pixels, held))
        except (StacLatentError, OSError, rasterio.errors.RasterioError) as exc:
            if self._errors == "raise":
                raise
            lost = np.full((_width(source), len(held)), math.nan, np.float32)
            return _Read(held, lost, f"{self.items[i].id!r}: {without_secrets(str(exc))}")

    @property
    def _columns(self) -> Sequence[str]:
        """Bands in the order in which they were asked for."""
        return self.sources[0].asked

    def table(self, found: Sequence[_Read]) -> pd.DataFrame:
        """One row for each point and Item, and for each point without one."""
        full = [(i, r) for i, r in enumerate(found) if len(r.points)]
        at = np.concatenate([r.points for _, r in full]) if full else np.empty(0, np.int64)
        number = np.repeat([i for i, _ in full], [len(r.points) for _, r in full]).astype(np.int64)
        width = _width(self.sources[0])
        values = (
            np.concatenate([r.numbers for _, r in full], axis=1) if full else np.empty((width, 0), np.float32)
        )
        good = np.asarray(~np.isnan(values).all(axis=0))
        if self._off is not None:
            order = np.lexsort((number, ~good, at))
            order = order[np.unique(at[order], return_index=True)[1]]
        else:
            order = np.lexsort((number, at))
        failed = np.array([bool(r.problem) for r in found])
        lost = np.setdiff1d(np.arange(len(self.known)), at)
        at, number = (
            np.concatenate([at[order], lost]),
            np.concatenate([number[order], np.full(len(lost), -1)]),
        )
        status = np.concatenate(
            [
                np.select([good[order], failed[number[: len(order)]]], ["data", "unreadable"], "nodata"),
                np.where(self.inside[lost], "no date", "outside"),
            ]
        )
        values = np.concatenate(
            [values[:, order], np.full((width, len(lost)), math.nan, values.dtype)], axis=1
        )
        final = np.argsort(at, kind="stable")
        at, number, status, values = at[final], number[final], status[final], values[:, final]
        ids = np.array([*(item.id for item in self.items), None], dtype=object)
        starts = np.array([*(first for first, _ in self._spans), np.iinfo(np.int64).min])
        columns: dict[str, Any] = {
            "point": self.known.names[at],
            "time": starts[number].view("datetime64[us]"),
            "item": ids[number],
            "status": status.astype(object),
        }
        if isinstance(self.sources[0], CellSamples):
            columns["latent"] = list(np.ascontiguousarray(values.T))
        else:
            columns |= dict(zip(self._columns, values, strict=True))
        return pd.DataFrame(columns)
