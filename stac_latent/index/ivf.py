"""Approximate search: an inverted file with 8-bit scalar quantisation (faiss), whose finds are ranked again in float64.

An index is of one metric and one whitening, and lies in the table's index folder. How many lists are probed is not guessed: it is twice the
least number that finds the share ``TARGET`` of the true neighbours of a sample of the table's own rows (or nearly what all lists find,
where that is less).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Progress
from stac_latent.errors import CatalogError, SearchError
from stac_latent.index.memory_map import Cache, layout_of, open_cache, unwritable, write_cache
from stac_latent.index.metric import F32, F64, Form
from stac_latent.index.scan import Rows, rank, scan
from stac_latent.index.table import PublishedTable
from stac_latent.system.files import put, workplace, write_whole
from stac_latent.system.locks import locked

if TYPE_CHECKING:
    import faiss

__all__ = ["InvertedIndex", "build_index", "open_index"]

TARGET = 0.998
"""Share of the ten nearest that must be found of the sample."""
MARGIN = 2
"""Times as many lists are probed: what is looked for is seldom a row of the table, and its neighbours are in more lists."""
SLACK = 0.002
"""How much less than all lists find is enough, where those miss the target."""
SAMPLE = 200
"""Rows that are looked for to choose the number of lists."""
AGAIN = 100
"""Finds that are ranked again, at least; four times k where that is more."""
FEW = 0.05
"""A selection of less than this share of the rows is scanned, which is exact."""
LEAST_PEAK = 2.0**-40
"""Tables whose longest vector is below this, or above its inverse, are brought to lengths of about 1 first."""
_ADDED = 1 << 16


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as exc:
        raise SearchError(
            "an index needs the package faiss-cpu: pip install 'stac-latent[search]', or search without index="
        ) from exc
    return faiss


def build_index(
    source: Any,
    form: Form | None = None,
    *,
    progress: Progress | None = None,
) -> InvertedIndex | None:
    """Lay a table out for searching, and build an index for a metric.

    Parameters
    ----------
    source
        As :func:`~stac_latent.index.table.open_table` takes it.
    form
        Metric and whitening of the index; None for the layout only, which makes exact searches fast.
    progress
        Called with a label, the rows done, and their number.

    Returns
    -------
    InvertedIndex or None
        None where no form was given.

    Raises
    ------
    SearchError
        If faiss is missing.
    CatalogError, CorruptDataError
        If the table cannot be read or the folder not be written.
    """
    from stac_latent.index.table import open_table

    table = open_table(source)
    if form is not None:
        _faiss()
    cache = _laid_out(table, progress)
    if form is None:
        return None
    made = _build(cache, form, progress)
    if layout_of(cache.folder) != cache.layout:
        raise CatalogError(f"{table.name} was published anew while its index was built; build it again")
    return made


def _laid_out(table: PublishedTable, progress: Progress | None = None) -> Cache:
    for _ in range(2):
        if (cache := open_cache(table)) is not None:
            return cache
        write_cache(table, progress)
    raise SearchError(f"{table.name} changes while its index is written; try again")


def _path(cache: Cache, form: Form) -> Path:
    name: str = form.metric
    if form.whitened:
        name += "-" + hashlib.sha256(form.mean.tobytes() + form.std.tobytes()).hexdigest()[:16]
    return cache.folder / f"ivf-{name}.faiss"


def open_index(source: Cache | PublishedTable, form: Form) -> InvertedIndex:
    """The index of a table for a metric; built where it is missing or of an older state of the table."""
    cache = source if isinstance(source, Cache) else _laid_out(source)
    path = _path(cache, form)
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        stat = path.stat()
        if (facts["layout"], facts["bytes"]) != (cache.layout, stat.st_size):
            return _build(cache, form, None)
        index = _read(str(path), stat.st_mtime_ns, stat.st_ino)
        nprobe, recall, factor = int(facts["nprobe"]), float(facts["recall"]), float(facts.get("factor", 1))
        return InvertedIndex(cache, form, index, nprobe, recall, path, factor)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        return _build(cache, form, None)


@lru_cache(maxsize=4)
def _read(path: str, _time: int, _inode: int) -> faiss.IndexIVF:
    found: faiss.IndexIVF = _faiss().read_index(path)
    return found


def _factor(cache: Cache, form: Form) -> float:
    """Power of two that brings the longest vector to about 1, where squares of lengths would leave float32: faiss ends the process."""
    if form.metric == "cosine":
        return 1.0
    most = [
        float(np.abs(form.whiten(x[np.isfinite(x).all(axis=1)])).max(initial=0)) for _, x in cache.blocks()
    ]
    peak = max(most, default=0.0)
    return 1.0 if peak == 0 or LEAST_PEAK < peak < 1 / LEAST_PEAK else float(2.0 ** -np.ceil(np.log2(peak)))


def _fed(x: npt.NDArray[Any], form: Form, factor: float) -> F32:
    """Vectors as the index holds them: whitened, of length 1 for the cosine, and times a factor."""
    if not form.whitened and form.metric != "cosine" and factor == 1:
        return np.asarray(x, np.float32)
    w = form.whiten(x) * factor
    if form.metric == "cosine":
        length = np.linalg.norm(w, axis=1, keepdims=True)
        w /= np.where(length > 0, length, 1)
    return w.astype(np.float32)


def _usable(x: F32, form: Form) -> npt.NDArray[np.bool_]:
    fine = np.isfinite(x).all(axis=1)
    if form.metric == "cosine":
        fine &= x.any(axis=1)
    return np.asarray(fine)


def _build(cache: Cache, form: Form, progress: Progress | None) -> InvertedIndex:
    lib = _faiss()
    n, k = cache.table.rows, cache.dimensions
    lists = int(np.clip(2 * n**0.5, 1, max(1, n // 39)))
    rng = np.random.default_rng(0)
    some = np.sort(rng.choice(n, min(n, max(40 * lists, 10_000)), replace=False))
    factor = _factor(cache, form)
    sample = _fed(cache.take(some), form, factor)
    sample = sample[_usable(sample, form)]
    if not len(sample):
        raise SearchError(f"{cache.table.name} holds no vector that can be indexed: all are zero or hold NaN")
    lists = min(lists, len(sample))
    product = (
        form.metric == "dot"
    )  # vectors of length 1 are ranked alike by either, and l2 leaves smaller errors of rounding
    kind = lib.METRIC_INNER_PRODUCT if product else lib.METRIC_L2
    coarse = lib.IndexFlatIP(k) if product else lib.IndexFlatL2(k)
    index = lib.IndexIVFScalarQuantizer(coarse, k, lists, lib.ScalarQuantizer.QT_8bit, kind)
    index.cp.min_points_per_centroid = 1  # small tables are no reason to warn
    index.train(sample)
    del sample
    for low in range(0, n, _ADDED):
        rows = np.arange(low, min(low + _ADDED, n))
        block = _fed(cache.take(rows), form, factor)
        fine = _usable(block, form)
        index.add_with_ids(block[fine], rows[fine])
        if progress is not None:
            progress("index", int(rows[-1]) + 1, n)
    path = _path(cache, form)
    found = InvertedIndex(cache, form, index, lists, 1.0, path, factor)._probed(rng)  # noqa: SLF001
    try:
        _write(found)
    except OSError as exc:
        raise unwritable(cache.folder, exc) from exc
    except RuntimeError as exc:  # of faiss, which has no errors of the system
        full = os.strerror(errno.ENOSPC) in str(exc)
        raise unwritable(cache.folder, OSError(errno.ENOSPC, "the disk is full") if full else exc) from exc
    return found


def _write(found: InvertedIndex) -> None:
    """Write an index and its facts into the folder of the layout that it was built from; nowhere where that is gone.

    A build may end when its table was published and laid out anew.
    """
    cache, path = found.cache, found.path
    with workplace(cache.folder) as work:
        part = work / path.name
        _faiss().write_index(found.index, str(part))
        facts: dict[str, Any] = {
            "layout": cache.layout,
            "bytes": part.stat().st_size,
            "lists": int(found.index.nlist),
        }
        facts |= {"nprobe": found.nprobe, "recall": found.recall, "rows": int(found.index.ntotal)}
        if found.factor != 1:
            facts["factor"] = found.factor
        with locked(cache.folder):
            if layout_of(cache.folder) == cache.layout:
                write_whole(path.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())
                put(part, path)


@dataclass(frozen=True)
class InvertedIndex:
    """An inverted file over the vectors of a table, for one metric and whitening."""

    cache: Cache
    form: Form
    index: faiss.IndexIVF
    nprobe: int
    """Lists that are probed for a query."""
    recall: float
    """Share of the ten nearest that it found of a sample of the table's rows, when it was built."""
    path: Path
    factor: float = 1.0
    """What vectors and queries are multiplied with for the index."""

    @property
    def nbytes(self) -> int:
        """Size of the index's file."""
        return self.path.stat().st_size

    def search(self, q: F64, k: int, keep: npt.NDArray[np.bool_] | None = None) -> list[tuple[Rows, F64]]:
        """As :func:`stac_latent.index.scan.scan`, approximately; exact where few rows are kept or less than k are found."""
        share = 1.0 if keep is None else float(np.count_nonzero(keep)) / len(keep)
        fed = q * self.factor
        if share < FEW or np.abs(fed).max() > 1 / LEAST_PEAK:
            return scan(self.cache, q, k, self.form, keep)
        lib = _faiss()
        count = max(AGAIN, 4 * k)
        probe = min(int(self.index.nlist), int(np.ceil(self.nprobe / share)))
        bits = None if keep is None else np.packbits(keep, bitorder="little")
        options = {} if bits is None else {"sel": lib.IDSelectorBitmap(bits)}
        parameters = lib.SearchParametersIVF(nprobe=probe, **options)
        _, found = self.index.search(fed.astype(np.float32), count, params=parameters)
        out = []
        for rows, query in zip(found, q, strict=True):
            near = np.sort(rows[rows >= 0])
            some = rank(self.cache, near, query, k, self.form)
            if len(some[0]) < min(k, int(self.index.ntotal)):
                (some,) = scan(self.cache, query[None], k, self.form, keep)
            out.append(some)
        return out

    def _probed(self, rng: np.random.Generator) -> InvertedIndex:
        """An index with the least number of lists that reaches the target on a sample of rows."""
        n = self.cache.table.rows
        rows = np.sort(rng.choice(n, min(n, SAMPLE), replace=False))
        x = self.cache.take(rows)
        fine = _usable(x, self.form)
        rows, q = rows[fine], self.form.queries(x[fine])
        k = min(11, n)
        truth = [
            set(r.tolist()) - {int(o)}
            for (r, _), o in zip(scan(self.cache, q, k, self.form), rows, strict=True)
        ]
        most = int(self.index.nlist)

        def recall(probe: int) -> float:
            got = replace(self, nprobe=probe, recall=0.0).search(q, k)
            shares = [len(t & set(r.tolist())) / len(t) for t, (r, _) in zip(truth, got, strict=True) if t]
            return float(np.mean(shares)) if shares else 1.0

        probe, found, best = 1, recall(1), recall(most)
        while found < min(TARGET, best - SLACK) and probe < most:
            probe = min(most, max(probe + 1, int(probe * 1.4)))
            found = recall(probe)
        probe = min(most, MARGIN * probe)
        return replace(self, nprobe=probe, recall=recall(probe))
