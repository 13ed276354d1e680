"""Published vectors of one space: one GeoParquet file, the files of a folder, or several of them."""

from __future__ import annotations

import itertools
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pystac

from stac_latent.errors import CatalogError, CorruptDataError, SearchError
from stac_latent.index.metric import F32, Form
from stac_latent.index.paths import files_of, path_of
from stac_latent.index.scan import Chunk, Rows
from stac_latent.net.items import read_item
from stac_latent.spec import Stats
from stac_latent.store.embeddings import BBox, groups_in, offset_in, open_embeddings, vectors
from stac_latent.store.geoparquet.file import UNREADABLE
from stac_latent.system.links import href_of

__all__ = ["PublishedTable", "open_table"]


@dataclass(frozen=True)
class _File:
    path: Path
    footer: dict[str, Any]
    first: int
    """Number of its first row in the table."""
    groups: tuple[int, ...]
    """Numbers of the first rows of its row groups, in the table, and of the first row after them."""

    def open(self) -> pq.ParquetFile:
        return open_embeddings(self.path)

    @property
    def rows(self) -> int:
        return self.groups[-1] - self.first


class PublishedTable:
    """Vectors that may be compared with each other, and what is known of each; see :func:`open_table`.

    Rows are numbered in the order of the files and of the rows in them. Nothing but footers is read until it is asked for.
    """

    def __init__(self, files: Sequence[Path], name: Path) -> None:
        self.name = name
        """Path of the file or folder, beside which an index is kept."""
        self.files: list[_File] = []
        first = 0
        for path in files:
            with open_embeddings(path) as file:
                meta = file.metadata
                self._names = list(file.schema_arrow.names)
                sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
                starts = tuple(itertools.accumulate(sizes, initial=first))
                self.files.append(_File(path, _footer(file, path), first, starts))
                first = starts[-1]
        self._stamp = self._times()
        self.rows = first
        """Number of vectors."""
        self._one_space()
        latent = self.files[0].footer
        self.space = str(latent["latent:space"])
        """Digest of the space that all vectors are of."""
        self.dimensions = int(latent["latent:dimensions"])
        """Length of a vector."""
        self.data_type = str(latent["data_type"])
        """Stored type: float16, float32 or int8."""
        self.recipe = dict(latent.get("publish") or {})
        """What was done to latents of ``recipe["source_space"]`` to make these vectors."""

    @cached_property
    def offset(self) -> F32 | None:
        """What int8 vectors are counted from, (dimensions,), by the first file; None for zero."""
        return offset_in(self.files[0].footer)

    @property
    def one_offset(self) -> bool:
        """Whether that is so of all files."""
        said = [f.footer.get("latent:quantization_offset") for f in self.files]
        return all(s == said[0] for s in said)

    def __repr__(self) -> str:
        size = f"{self.rows} x {self.dimensions} {self.data_type}"
        return f"<PublishedTable {self.name.name}: {size}, {len(self.files)} files, {self.space[:19]}>"

    def _one_space(self) -> None:
        first = self.files[0]
        for name, what in (
            ("latent:space", "spaces"),
            ("latent:dimensions", "dimensions"),
            ("data_type", "types"),
        ):
            for other in self.files[1:]:
                if other.footer[name] != first.footer[name]:
                    raise SearchError(
                        f"vectors of different {what} cannot be compared: {first.path} holds {first.footer[name]}, "
                        f"{other.path} holds {other.footer[name]}; search each of them by itself"
                    )

    def _times(self) -> list[tuple[int, int, int]]:
        stats = [f.path.stat() for f in self.files]
        return [(s.st_size, s.st_mtime_ns, s.st_ino) for s in stats]

    def unchanged(self) -> PublishedTable:
        """Return this table.

        Raises
        ------
        SearchError
            If a file was replaced since it was opened.
        """
        if self._times() != self._stamp:
            raise SearchError(f"{self.name} was published anew since it was opened; open it again")
        return self

    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._names)

    def groups(self, bbox: BBox | None = None) -> Iterator[tuple[_File, int]]:
        """Files and numbers of their row groups, those that may touch a box."""
        for part in self.files:
            with part.open() as file:
                found = range(len(part.groups) - 1) if bbox is None else groups_in(file, bbox)
            for group in found:
                yield part, group

    def read(self, part: _File, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Columns of some row groups of a file.

        Raises
        ------
        CorruptDataError
            If they cannot be read.
        """
        with part.open() as file:
            try:
                return file.read_row_groups(list(groups), columns=list(columns))
            except UNREADABLE as exc:
                raise CorruptDataError(
                    f"{part.path} holds damaged data ({exc}); fetch or publish it again"
                ) from exc

    @staticmethod
    def _geo(part: _File) -> dict[str, Any]:
        with part.open() as file:
            geo = json.loads(file.schema_arrow.metadata[b"geo"])
        return dict(geo["columns"][geo["primary_column"]])

    def extent_of(self, part: _File) -> list[float]:
        """West, south, east, north of a file."""
        return [float(v) for v in self._geo(part)["bbox"]]

    @cached_property
    def of_points(self) -> bool:
        """Whether the rows are points, which have no footprint that could hold a place."""
        return all(self._geo(f).get("geometry_types") == ["Point"] for f in self.files)

    @cached_property
    def has_points(self) -> bool:
        """Whether some rows may be points."""
        kinds = [self._geo(f).get("geometry_types") or ["Point"] for f in self.files]
        return any("Point" in kind for found in kinds for kind in found)

    def columns(self, names: Sequence[str], rows: Rows | None = None) -> pa.Table:
        """Columns of all rows, or of some, in the order asked for."""
        if rows is None:
            return pa.concat_tables(
                self.read(f, range(len(f.groups) - 1), names) for f in self.files
            ).replace_schema_metadata()
        order, position = np.unique(rows, return_inverse=True)
        parts = [
            self.read(f, [g], names).take(pa.array(own - f.groups[g])) for f, g, own in self._by_group(order)
        ]
        return pa.concat_tables(parts).replace_schema_metadata().take(pa.array(position))

    def _by_group(self, rows: Rows) -> Iterator[tuple[_File, int, Rows]]:
        """Ascending rows, by the row groups that hold them."""
        starts = [f.first for f in self.files]
        while len(rows):
            part = self.files[bisect_right(starts, int(rows[0])) - 1]
            group = bisect_right(part.groups, int(rows[0])) - 1
            count = int(np.searchsorted(rows, part.groups[group + 1]))
            yield part, group, rows[:count]
            rows = rows[count:]

    def _vectors(self, part: _File, group: int) -> F32:
        names = ["vector", "scale"] if self.data_type == "int8" else ["vector"]
        table = self.read(part, [group], names)
        try:
            found = vectors(table)
        except CorruptDataError as exc:
            raise CorruptDataError(f"{part.path}, row group {group}: {exc}") from exc
        if found.shape[1] != self.dimensions:
            raise CorruptDataError(
                f"{part.path} holds vectors of {found.shape[1]} values, its footer says {self.dimensions}; publish it again"
            )
        return found

    # -- vectors, read from the files each time ----------------------------------------------------------------

    def blocks(self, keep: npt.NDArray[np.bool_] | None = None) -> Iterator[tuple[Rows, F32]]:
        """Numbers of rows and their vectors, a row group at a time; those without a row to keep are not read."""
        for part in self.files:
            for group, (low, high) in enumerate(itertools.pairwise(part.groups)):
                if keep is None:
                    yield np.arange(low, high), self._vectors(part, group)
                elif keep[low:high].any():
                    use = np.flatnonzero(keep[low:high])
                    yield low + use, self._vectors(part, group)[use]

    def chunks(self, a: F32, form: Form, keep: npt.NDArray[np.bool_] | None) -> Iterator[Chunk]:
        """As :class:`~stac_latent.index.scan.Vectors` says."""
        none = np.zeros(len(a), np.float32)
        for rows, block in self.blocks(keep):
            yield Chunk(rows, a @ block.T, *form.norms(block), none)

    def take(self, rows: Rows) -> F32:
        """Vectors (n, k) of ascending rows."""
        parts = [self._vectors(f, g)[own - f.groups[g]] for f, g, own in self._by_group(rows)]
        return np.concatenate(parts) if parts else np.empty((0, self.dimensions), np.float32)

    # -- the space -----------------------------------------------------------------------------------------------

    @cached_property
    def item(self) -> pystac.Item | None:
        """STAC Item beside the table, where there is one."""
        path = Path(f"{self.name}.json")
        return read_item(href_of(path)) if path.is_file() else None

    def moments(self) -> Stats:
        """Mean and deviation of each channel over the table's own finite vectors."""
        count, mean, square = 0, np.zeros(self.dimensions), np.zeros(self.dimensions)
        for _, block in self.blocks():
            fine = block[np.isfinite(block).all(axis=1)].astype(np.float64)
            if not len(fine):
                continue
            own, deviation = fine.mean(axis=0), fine.var(axis=0) * len(fine)
            both = count + len(fine)
            square += deviation + (own - mean) ** 2 * (count * len(fine) / both)
            mean += (own - mean) * (len(fine) / both)
            count = both
        if not count:
            raise CatalogError(f"{self.name} holds no finite vector")
        return Stats(tuple(mean.tolist()), tuple(np.sqrt(square / count).tolist()))


def _footer(file: pq.ParquetFile, path: Path) -> dict[str, Any]:
    try:
        latent = dict(json.loads(file.schema_arrow.metadata[b"latent"]))
    except (ValueError, TypeError) as exc:
        raise CorruptDataError(
            f"the 'latent' footer of {path} is no JSON object ({exc}); publish it again"
        ) from exc
    needed = ("latent:space", "latent:dimensions", "data_type")
    if missing := [name for name in needed if name not in latent]:
        raise CorruptDataError(f"the 'latent' footer of {path} lacks {', '.join(missing)}; publish it again")
    size, kind = latent["latent:dimensions"], latent["data_type"]
    if not isinstance(size, int) or size < 1 or kind not in ("float16", "float32", "int8"):
        raise CorruptDataError(
            f"the 'latent' footer of {path} says {size!r} dimensions of {kind!r}; expected a number of them, and float16, float32 or "
            "int8: publish it again"
        )
    return latent


def open_table(source: Any) -> PublishedTable:
    """Open published vectors.

    Parameters
    ----------
    source
        Path or address of a file written by :func:`stac_latent.publish`, path of a folder of such files, the STAC Item of either, a
        :class:`PublishedTable`, or several of these.

    Raises
    ------
    CatalogError
        If there is no such file, or it was not written by publish.
    CorruptDataError
        If it is no complete Parquet file.
    SearchError
        If spaces, dimensions or types are mixed: the message names both files and both spaces.
    """
    if isinstance(source, PublishedTable):
        return source.unchanged()
    files: list[Path] = []
    many = isinstance(source, Iterable) and not isinstance(source, str | Path | pystac.Item)
    sources = list(source) if many else [source]
    for one in sources:
        files += [f.path for f in one.files] if isinstance(one, PublishedTable) else files_of(one)
    if not files:
        raise CatalogError("no table to search: give a published .parquet file, or a folder of them")
    name = sources[0].name if isinstance(sources[0], PublishedTable) else path_of(sources[0])
    return PublishedTable(files, name)
