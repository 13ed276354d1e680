"""Publishing latents as a table of vectors: one GeoParquet file, and a STAC Item that describes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

import pystac

from stac_latent.aliases import Progress
from stac_latent.catalog.adopt.table_rows import rows_of_table
from stac_latent.catalog.publish.inputs import are_tables, choose, destination, region_of
from stac_latent.catalog.publish.item import Extent, TableFile, embedding_fields, mirror_fields, table_item
from stac_latent.catalog.publish.recall import RecallSample
from stac_latent.catalog.publish.recipe import Recipe
from stac_latent.catalog.publish.rows import Cut, LatentSource, Pool, Rows, Unit, rows_of
from stac_latent.catalog.tree import write_json
from stac_latent.errors import CatalogError
from stac_latent.spec import Spec, Stats
from stac_latent.store.embeddings import BBox
from stac_latent.store.foreign.table import Invalid
from stac_latent.store.geoparquet.writer import EmbeddingsWriter, MiB, VectorType
from stac_latent.system.files import clear_killed, is_disk_full, placed, workplace
from stac_latent.system.links import local_path
from stac_latent.system.suggest import known_options

__all__ = ["publish"]

Opener = Callable[[pystac.Item, str], LatentSource]


@known_options()
def publish(
    items: pystac.Item | Iterable[pystac.Item],
    dest: str | Path,
    *,
    asset: str | None = None,
    by: Unit = "cell",
    patch: tuple[int, int] = (8, 8),
    pool: Pool = "mean",
    dtype: VectorType = "float16",
    standardise: bool = False,
    channels: int | Sequence[int] | None = None,
    bbox: BBox | None = None,
    intersects: Any = None,
    min_valid: float = 0.0,
    invalid: Invalid = "raise",
    compression_level: int = 15,
    row_group_bytes: int = MiB,
    partition: int | None = None,
    progress: Progress | None = None,
    reader: Opener | None = None,
) -> pystac.Item:
    """Write the latents of Items as a GeoParquet 1.1 table of vectors, with a STAC Item beside it.

    Rows follow one Hilbert curve over the Earth. File or folder and Item appear complete, or not at all. Peak memory is about
    500 MiB above the imports, for any number of rows; of adopted tables, a row group is read at a time.

    Parameters
    ----------
    items
        Items with a latent asset, all of one ``latent:space``: latents, or embeddings that :func:`stac_latent.adopt` described.
    dest
        Local path of the Parquet file, or of the folder where ``partition`` is given; the Item is written to ``<dest>.json``. An
        earlier table there is replaced.
    asset
        Key of the latent asset; by default the only one that each Item has.
    by
        One row for each ``"cell"``, each ``"patch"`` of ``patch`` cells, or each ``"item"``. An adopted table gives a row for each of
        its own.
    patch
        Cells (y, x) of a patch. Patches count from the origin of the CRS where the lattice allows it, so those of
        neighbouring scenes and other dates have the same footprints.
    pool
        ``"mean"``, ``"max"`` or ``"min"`` of the valid cells of a patch or Item.
    dtype
        Stored type; ``"int8"`` comes with a float32 scale for each vector, and, where the vectors share a large mean, an offset for each
        channel (``latent:quantization_offset``). What float16 and int8 still find of the ten nearest is measured on a sample, and stated
        as ``recall_at_10`` in footer and Item.
    standardise
        Subtract the codec's mean and divide by its deviation, channel by channel.
    channels
        The first so many channels, or the positions of those to keep.
    bbox
        West, south, east, north in degrees (west > east crosses the antimeridian): only cells that overlap it; rows of an adopted table
        that touch it.
    intersects
        GeoJSON or shapely geometry in longitude and latitude, instead of ``bbox``.
    min_valid
        Least share of valid pixels, 0 to 1. Rows without valid pixels are always dropped.
    invalid
        What happens to rows of an adopted table without a vector or a place, with NaN or infinite numbers, or of zeros alone:
        ``raise``, ``drop`` or ``keep``; see :func:`stac_latent.load_table`.
    compression_level
        Of Zstandard, 1 to 22.
    row_group_bytes
        Size of a row group in memory. Readers of a place read whole row groups, so that smaller ones are less to read; larger ones
        are a little less to store.
    partition
        Zoom of the OGC tile matrix set WorldCRS84Quad: a folder with one file ``tile=z-x-y/part-0.parquet`` for each tile, 180 /
        2^zoom degrees wide, that holds rows.
    progress
        Called with a label, the Items done, and their number.
    reader
        Opens the latent of an Item and asset; by default :func:`stac_latent.cube.read.driver.open_cells`.

    Returns
    -------
    pystac.Item
        The written Item, with its own href set. Its ``latent:space`` is the source's where the vectors are the
        source's or their means. Standardising, choosing channels and other pooling make a space of their own, with a
        digest derived from the source's; the ``latent`` footer and ``processing:expression`` say how.

    Raises
    ------
    CatalogError
        If an argument is out of range, an Item has no or several latent assets, spaces are mixed, nothing is left to
        publish, the type is too coarse for the vectors (less than half of the ten nearest are found; less than 0.9 are a
        :class:`~stac_latent.errors.RecallWarning`), or the files cannot be written.
    CorruptDataError
        If rows of an adopted table are not sound, and ``invalid`` is ``raise``.

    Examples
    --------
    >>> table = publish(items, "vectors.parquet", by="patch", patch=(4, 4), dtype="int8")  # doctest: +SKIP
    >>> table.assets["embeddings"].extra_fields["latent:dimensions"]  # doctest: +SKIP
    64
    """
    path = destination(dest, partition)
    cut = Cut.of(by, patch, pool, min_valid, region_of(bbox, intersects))
    if invalid not in get_args(Invalid):
        raise CatalogError(f"invalid={invalid!r}; expected 'raise', 'drop' or 'keep'")
    chosen, spec = choose(items, asset)
    tables = are_tables(chosen, cut.by)
    opener = reader or _open
    stats = _stats(None if tables else opener(*chosen[0]), spec) if standardise else None

    def reading(item: pystac.Item, key: str) -> Iterator[Rows]:
        if tables:
            return rows_of_table(item, key, cut.region, invalid)
        return rows_of(opener(item, key), cut)

    recipe = Recipe.of(spec, stats, channels, "mean" if by == "cell" else pool)
    with _workplace(path) as work:
        writer = EmbeddingsWriter(
            work,
            recipe.dimensions,
            dtype,
            compression_level=compression_level,
            row_group_bytes=row_group_bytes,
            zoom=partition,
        )
        sample = None if dtype == "float32" else RecallSample(recipe.dimensions)
        extent = _fill(writer, chosen, reading, cut=cut, recipe=recipe, sample=sample, progress=progress)
        found = {} if sample is None else sample.judged(writer.as_read(sample.rows), dtype, standardise)
        fields = embedding_fields(
            spec,
            space=recipe.space,
            dimensions=recipe.dimensions,
            rows=writer.rows,
            size=None if tables else cut.size,
            dtype=dtype,
            granularity=spec.granularity if tables else None,
            offset=writer.offset,
        )
        how = ({"by": "row"} if tables else cut.to_dict()) | recipe.to_dict() | found
        footer = {"latent": fields | {"publish": how}, "emb": mirror_fields(fields)}
        table = work / "table.parquet"
        if partition is None:
            files = [TableFile("", table, writer.finish(table, footer))]
        else:
            tiles = writer.finish_tiles(table, footer)
            files = [
                TableFile(name, table / f"tile={name}" / "part-0.parquet", info)
                for name, info in tiles.items()
            ]
        made = table_item(path, table, files=files, fields=fields, how=how, extent=extent)
        write_json(work / "item.json", made.to_dict(include_self_link=False, transform_hrefs=False))
        _commit(work, {table.name: path, "item.json": local_path(made.self_href)})
    return made


def _fill(
    writer: EmbeddingsWriter,
    chosen: Sequence[tuple[pystac.Item, str]],
    reading: Callable[[pystac.Item, str], Iterator[Rows]],
    *,
    cut: Cut,
    recipe: Recipe,
    sample: RecallSample | None,
    progress: Progress | None,
) -> Extent:
    """Append all rows; what was written, and from which Items."""
    extent = Extent()
    for number, (item, key) in enumerate(chosen):
        before = writer.rows
        time = item.datetime or item.common_metadata.start_datetime
        for rows in _told(item, reading(item, key)):
            values = recipe.apply(rows.values)
            if sample is not None:
                sample.add(values)
            writer.append(
                item.id,
                item.collection_id,
                time if rows.time is None else rows.time,
                row=rows.row,
                col=rows.col,
                valid=rows.valid,
                values=values,
                geometry=rows.geometry,
            )
            extent.add(rows.geometry)
        if writer.rows > before:
            extent.close(item)
        if progress is not None:
            progress("publish", number + 1, len(chosen))
    if not writer.rows:
        where = "" if cut.region is None else " overlaps the region"
        raise CatalogError(
            f"nothing to publish: no {cut.by} of {len(chosen)} items{where} holds valid pixels (at least "
            f"{cut.min_valid:g} of them); widen the selection, or lower min_valid"
        )
    return extent


def _told(item: pystac.Item, rows: Iterator[Rows]) -> Iterator[Rows]:
    """Rows of one Item; failing reads become errors that say of what."""
    try:
        yield from rows
    except OSError as exc:
        raise CatalogError(
            f"could not read the latent of item {item.id!r} ({exc}); nothing was written"
        ) from exc


def _open(item: pystac.Item, asset: str) -> LatentSource:
    from stac_latent.cube.read.driver import open_cells
    from stac_latent.cube.ref import LatentRef

    return open_cells(LatentRef.from_item(item, asset))


def _stats(source: LatentSource | None, spec: Spec) -> Stats:
    codec = None if source is None else source.codec
    stats = None if codec is None else codec.stats
    if stats is None:
        raise CatalogError(
            f"cannot standardise: the codec of space {spec.space} states no statistics of its channels; publish with "
            "standardise=False"
        )
    return stats


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder beside the destination that is gone afterwards; failing writes become errors that say where."""
    try:
        with workplace(path) as work:
            yield work
    except OSError as exc:
        space = "free some space, or " if is_disk_full(exc) else ""
        raise CatalogError(
            f"could not write {path} ({exc}); nothing was changed there; {space}choose another dest"
        ) from exc


def _commit(work: Path, moves: Mapping[str, Path]) -> None:
    """Move the finished files into place; if one cannot be, what was there before is restored."""
    with ExitStack() as stack:
        for name, target in moves.items():
            clear_killed(target)
            stack.enter_context(placed(work / name, target))
