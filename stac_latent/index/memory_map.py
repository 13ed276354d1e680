"""A table's vectors laid out for searching: memory-mapped arrays beside it, valid as long as the table is the same.

The folder ``<table>.index`` holds ``meta.json``, ``vectors.npy`` (int8 symbols as stored, or float32), ``scale.npy`` (int8 only),
``norms.npy`` and ``rows.arrow`` (all other columns, uncompressed). It appears complete, or not at all.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stac_latent.aliases import Progress
from stac_latent.errors import CatalogError
from stac_latent.index.metric import F32, UNIT, Form
from stac_latent.index.scan import Chunk, Rows
from stac_latent.index.table import PublishedTable
from stac_latent.store.embeddings import symbols
from stac_latent.store.geoparquet.vector_types import restored
from stac_latent.system.digests import file_multihash
from stac_latent.system.files import is_disk_full, put, workplace
from stac_latent.system.locks import locked

__all__ = ["Cache", "cache_folder", "layout_of", "open_cache", "unwritable", "write_cache"]

VERSION = 2
BLOCK = 1 << 18
"""Values that are multiplied at a time: 1 MiB, so that int8 turned to float32 does not leave the processor's cache."""
FEW = 2
"""Queries up to which products in integers are faster than in float32."""
CHUNK = 1 << 16
"""Rows that are ranked at a time."""


def cache_folder(table: PublishedTable) -> Path:
    """Where the index of a table is kept."""
    return table.name.with_name(f"{table.name.name}.index")


def _stat(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"name": path.name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}


def write_cache(table: PublishedTable, progress: Progress | None = None) -> Path:
    """Lay a table out for searching; memory stays at a few row groups.

    Raises
    ------
    CatalogError
        If the folder cannot be written, or the table changes meanwhile.
    """
    folder = cache_folder(table)
    before = [_stat(f.path) for f in table.files]
    try:
        with workplace(folder) as work:
            made = work / "index"
            made.mkdir()
            _fill(table, made, progress)
            files = [
                s | {"checksum": file_multihash(f.path)} for s, f in zip(before, table.files, strict=True)
            ]
            if [_stat(f.path) for f in table.files] != before:
                raise CatalogError(f"{table.name} changed while its index was written; try again")
            meta = {"version": VERSION, "space": table.space, "rows": table.rows, "files": files}
            (made / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
            with locked(folder):
                put(made, folder)
    except OSError as exc:
        raise unwritable(folder, exc) from exc
    return folder


def layout_of(folder: Path) -> str | None:
    """Digest of what a layout says of its table; equal for layouts of one state of it, and None where there is none."""
    try:
        return hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()
    except OSError:
        return None


def unwritable(folder: Path, exc: Exception) -> CatalogError:
    """What to say where an index cannot be written."""
    space = "free some space, or " if is_disk_full(exc) else ""
    return CatalogError(f"could not write the index {folder} ({exc}); {space}search without an index")


def _fill(table: PublishedTable, work: Path, progress: Progress | None) -> None:
    """Write arrays and rows from first to last: a full disk is then an error, where memory that is mapped would end the process."""
    small = table.data_type == "int8" and table.one_offset
    plain = Form.of("dot", table.dimensions)
    names = [n for n in table.names() if n != "vector"]
    with ExitStack() as open_files:
        vectors = _array(
            open_files, work / "vectors.npy", "|i1" if small else "<f4", (table.rows, table.dimensions)
        )
        norms = _array(open_files, work / "norms.npy", "<f4", (table.rows,))
        scale = _array(open_files, work / "scale.npy", "<f4", (table.rows,)) if small else None
        writer = None
        for part, group in table.groups():
            rows = table.read(part, [group], names)
            block = table._vectors(part, group)  # noqa: SLF001
            _append(norms, plain.norms(block)[0], "<f4")
            if scale is None:
                _append(vectors, block, "<f4")
            else:
                _append(scale, rows["scale"].to_numpy(), "<f4")
                _append(vectors, symbols(table.read(part, [group], ["vector"])), "|i1")
            rows = rows.replace_schema_metadata().combine_chunks()
            if writer is None:
                writer = open_files.enter_context(pa.ipc.new_file(str(work / "rows.arrow"), rows.schema))
            writer.write_table(rows)
            if progress is not None:
                progress("index", part.groups[group + 1], table.rows)


def _array(open_files: ExitStack, path: Path, kind: str, shape: tuple[int, ...]) -> BinaryIO:
    """A .npy file of an array whose rows are appended."""
    file = open_files.enter_context(path.open("wb"))
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file


def _append(file: BinaryIO, rows: npt.NDArray[Any], kind: str) -> None:
    file.write(np.ascontiguousarray(rows, kind).data)


def open_cache(table: PublishedTable) -> Cache | None:
    """The index of a table; None where there is none, or where it is of another state of the table.

    Size and time of the files are compared first; where they differ, their SHA-256.
    """
    folder = cache_folder(table)
    try:
        layout = layout_of(folder)
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if (meta["version"], meta["space"], meta["rows"]) != (VERSION, table.space, table.rows):
            return None
        known = meta["files"]
        if len(known) != len(table.files):
            return None
        for file, entry in zip(table.files, known, strict=True):
            now = _stat(file.path)
            if any(now[key] != entry[key] for key in now) and entry["checksum"] != file_multihash(file.path):
                return None
        stat = (folder / "meta.json").stat()
        arrays = _mapped(folder, stat.st_mtime_ns, stat.st_ino)
        return arrays.of(table) if layout == arrays.layout == layout_of(folder) else None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=4)
def _mapped(folder: Path, _time: int, _inode: int) -> _Arrays:
    return _Arrays(folder)


class _Arrays:
    """What is mapped, and kept as long as it is in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stored = np.load(folder / "vectors.npy", mmap_mode="r")
        self.norms: F32 = np.load(folder / "norms.npy", mmap_mode="r")
        small = self.stored.dtype == np.int8
        self.scale: F32 | None = np.load(folder / "scale.npy", mmap_mode="r") if small else None
        self.rows = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow"))).read_all()
        self.layout = layout_of(folder)
        self.white: dict[bytes, F32] = {}

    def of(self, table: PublishedTable) -> Cache:
        if self.stored.shape != (table.rows, table.dimensions) or self.norms.shape != (table.rows,):
            raise ValueError("arrays of another shape")
        return Cache(table, self)


class Cache:
    """Memory-mapped vectors and columns of a table."""

    def __init__(self, table: PublishedTable, arrays: _Arrays) -> None:
        self.table, self.folder, self.dimensions = table, arrays.folder, table.dimensions
        self._stored, self._norms, self._scale = arrays.stored, arrays.norms, arrays.scale
        self._rows, self._white = arrays.rows, arrays.white
        self.layout = arrays.layout
        """As :func:`layout_of` has it."""

    def columns(self, names: Sequence[str], rows: Rows | None = None) -> pa.Table:
        """As :meth:`PublishedTable.columns`."""
        found = self._rows.select(list(names))
        if rows is None:
            return found
        batches = found.to_batches()  # one for each row group: taking from the whole would join their strings
        starts = list(itertools.accumulate((b.num_rows for b in batches), initial=0))
        which = np.searchsorted(starts, rows, "right") - 1
        order = np.argsort(which, kind="stable")
        parts = [
            batches[b].take(pa.array(rows[order[which[order] == b]] - starts[b])) for b in np.unique(which)
        ]
        back = np.argsort(order, kind="stable")
        return pa.Table.from_batches(parts, found.schema).combine_chunks().take(pa.array(back))

    def take(self, rows: Rows) -> F32:
        """Vectors (n, k) float32 of rows."""
        scale = None if self._scale is None else self._scale[rows]
        return restored(self._stored[rows], scale, None if scale is None else self.table.offset)

    def blocks(self, keep: npt.NDArray[np.bool_] | None = None) -> Iterator[tuple[Rows, F32]]:
        """As :meth:`PublishedTable.blocks`."""
        chosen = np.arange(self.table.rows) if keep is None else np.flatnonzero(keep)
        for start in range(0, len(chosen), CHUNK):
            rows = chosen[start : start + CHUNK]
            yield rows, self.take(rows)

    def _lengths(self, form: Form) -> F32:
        """Lengths of the whitened vectors, computed once for each whitening."""
        if not form.whitened:
            return self._norms
        key = form.mean.tobytes() + form.std.tobytes()
        if key not in self._white:
            step = max(1, BLOCK // self.dimensions)
            parts = [
                form.norms(self.take(np.arange(s, min(s + step, self.table.rows))))[1]
                for s in range(0, self.table.rows, step)
            ]
            self._white[key] = np.concatenate(parts)
        return self._white[key]

    def chunks(self, a: F32, form: Form, keep: npt.NDArray[np.bool_] | None) -> Iterator[Chunk]:
        """As :class:`~stac_latent.index.scan.Vectors` says; a selection of less than a third is gathered."""
        white = self._lengths(form)
        plain, moved = self._norms, None
        if self._scale is not None and (offset := self.table.offset) is not None:
            # products of the two parts may each be larger than that of their sum
            plain = plain + 2 * np.float32(np.linalg.norm(offset.astype(np.float64)))
            moved = (a.astype(np.float64) @ offset)[:, None].astype(np.float32)
        if keep is not None and 3 * np.count_nonzero(keep) < len(keep):
            none = np.zeros(len(a), np.float32)
            chosen = np.flatnonzero(keep)
            for start in range(0, len(chosen), CHUNK):
                rows = chosen[start : start + CHUNK]
                yield Chunk(rows, a @ self.take(rows).T, plain[rows], white[rows], none)
            return
        multiply = self._products(a)
        for low, high in itertools.pairwise([*range(0, self.table.rows, CHUNK), self.table.rows]):
            dots, extra = multiply(low, high)
            if moved is not None:
                dots += moved * (self._norms[low:high] > 0)  # vectors of zeros stay zero
            rows = np.arange(low, high)
            if keep is None:
                yield Chunk(rows, dots, plain[low:high], white[low:high], extra)
            else:
                use = keep[low:high]
                yield Chunk(rows[use], dots[:, use], plain[low:high][use], white[low:high][use], extra)

    def _products(self, a: F32) -> Callable[[int, int], tuple[F32, F32]]:
        """Function from a range of rows to their products with ``a`` (m, k), and the error for vectors of length 1."""
        few = len(a) <= FEW
        if few and self._scale is not None and (multiply := _integers(a)) is not None:
            stored, scale = self._stored, self._scale

            def integer(low: int, high: int) -> tuple[F32, F32]:
                dots, extra = multiply(stored[low:high])
                return dots * scale[low:high], extra

            return integer
        step = max(1, BLOCK // self.dimensions) if few else CHUNK
        none = np.zeros(len(a), np.float32)
        buffer = np.empty((step, self.dimensions), np.float32)

        def single(low: int, high: int) -> tuple[F32, F32]:
            out = np.empty((len(a), high - low), np.float32)
            for start in range(low, high, step):
                block = self._stored[start : min(start + step, high)]
                if self._scale is not None:
                    np.copyto(buffer[: len(block)], block)
                    block = buffer[: len(block)]
                np.matmul(a, block.T, out=out[:, start - low : start - low + len(block)])
            if self._scale is not None:
                out *= self._scale[low:high]
            return out, none

        return single


def _integers(a: F32) -> Callable[[npt.NDArray[np.int8]], tuple[F32, F32]] | None:
    """Products of int8 vectors with ``a`` in integers, where simsimd is installed.

    ``a`` is written as two int8 digits and a scale, ``a ~ s (d1 + d2 / 254)``; what is left over bounds the error.
    """
    try:
        import simsimd
    except ImportError:
        return None
    s = np.abs(a).max(axis=1, keepdims=True).astype(np.float64) / 127
    s = np.where(s > 0, s, 1)
    first = np.rint(a / s)
    second = np.clip(np.rint((a / s - first) * 254), -127, 127)
    left = np.linalg.norm(a - s * (first + second / 254), axis=1)
    digits = np.concatenate([first, second]).astype(np.int8)
    weight = s[:, 0].astype(np.float32)
    extra = (left + 8 * UNIT * np.linalg.norm(a, axis=1)).astype(np.float32)

    def multiply(block: npt.NDArray[np.int8]) -> tuple[F32, F32]:
        both = np.asarray(simsimd.cdist(digits, np.ascontiguousarray(block), metric="dot"), dtype=np.float32)
        m = len(weight)
        return (both[:m] + both[m:] / np.float32(254)) * weight[:, None], extra

    return multiply
