"""Sorting more rows than fit in memory: sorted runs on disk, cut at exact ranks, merged part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["KEY", "ExternalSort"]

KEY = "__key"
"""Name of the column of sort keys, in what is given back."""


def _sorted(table: pa.Table) -> pa.Table:
    order = np.argsort(table[KEY].to_numpy(), kind="stable")
    return table.take(pa.array(order))


def _cut(keys: list[npt.NDArray[np.uint64]], rank: int) -> list[int]:
    """How many rows of each sorted run are among the ``rank`` smallest of all; ties go to the earlier runs."""
    low, high = 0, 2**64 - 1
    while low < high:
        middle = (low + high) // 2
        if sum(int(np.searchsorted(k, np.uint64(middle), "right")) for k in keys) >= rank:
            high = middle
        else:
            low = middle + 1
    out = [int(np.searchsorted(k, np.uint64(low), "left")) for k in keys]
    left = rank - sum(out)
    for i, k in enumerate(keys):
        ties = min(left, int(np.searchsorted(k, np.uint64(low), "right")) - out[i])
        out[i] += ties
        left -= ties
    return out


class ExternalSort:
    """Collects Arrow tables with a sort key and gives them back in the key's order.

    Rows wait in memory until they exceed ``limit`` bytes; they are then sorted and written to ``folder`` as one
    run, uncompressed, which is read back through a memory map. So memory holds at most two to three times ``limit``
    while rows come, and twice the part that is given back, however many rows there are; the disk holds all of them
    once. Rows of equal keys keep the order in which they came.

    Parameters
    ----------
    folder
        An existing folder for the runs; its owner deletes it.
    limit
        Bytes of waiting rows.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._waiting: list[pa.Table] = []
        self._bytes = 0
        self._runs: list[Path] = []
        self.rows = 0
        """Rows so far."""
        self.nbytes = 0
        """Their size in memory, in bytes."""

    def append(self, table: pa.Table, key: npt.NDArray[np.uint64]) -> None:
        """Add rows; ``key`` is (n,) uint64. All tables have one schema."""
        table = table.append_column(KEY, pa.array(key))
        self._waiting.append(table)
        self._bytes += table.nbytes
        self.nbytes += table.nbytes
        self.rows += table.num_rows
        if self._bytes >= self._limit:
            self._flush()

    def _flush(self) -> None:
        run = _sorted(pa.concat_tables(self._waiting))
        self._waiting, self._bytes = [], 0
        path = self._folder / f"run{len(self._runs)}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, run.schema) as writer:
            writer.write_table(run)
        self._runs.append(path)

    def drain(self, rows: int) -> Iterator[pa.Table]:
        """All rows in the key's order, in tables of ``rows`` rows (the last may be shorter)."""
        rest = [_sorted(pa.concat_tables(self._waiting))] if self._waiting else []
        self._waiting, self._bytes = [], 0
        start = [0] * (len(self._runs) + len(rest))
        for rank in range(rows, self.rows + rows, rows):
            yield self._part(rest, start, min(rank, self.rows))

    def _part(self, rest: list[pa.Table], start: list[int], rank: int) -> pa.Table:
        """Rows of each run from ``start`` up to the rank, sorted; ``start`` is moved to their ends.

        The runs are mapped anew each time, so that pages that were read do not stay in memory.
        """
        runs = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in self._runs] + rest
        stop = _cut([run[KEY].chunk(0).to_numpy() for run in runs], rank)
        parts = [run.slice(a, b - a) for run, a, b in zip(runs, start, stop, strict=True) if b > a]
        start[:] = stop
        return _sorted(pa.concat_tables(parts))
