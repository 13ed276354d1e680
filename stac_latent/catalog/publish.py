"""Publishing latents as a table of vectors: one GeoParquet file, and a STAC Item that describes it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
import shapely
import shapely.geometry

from stac_latent.catalog.recipe import Recipe
from stac_latent.catalog.rows import POOLS, UNITS, LatentSource, Pool, Unit, rows_of
from stac_latent.catalog.table_item import PARQUET, Extent, embedding_fields, mirror_fields, table_item
from stac_latent.errors import CatalogError
from stac_latent.spec import Spec, Stats
from stac_latent.store.embeddings import BBox
from stac_latent.store.geoparquet import EmbeddingsWriter, MiB, VectorType

__all__ = ["publish"]

Opener = Callable[[pystac.Item, str], LatentSource]


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
    compression_level: int = 15,
    row_group_bytes: int = 128 * MiB,
    progress: Callable[[int, int], None] | None = None,
    reader: Opener | None = None,
) -> pystac.Item:
    """Write the latents of Items as a GeoParquet 1.1 table of vectors, with a STAC Item beside it.

    Rows follow one Hilbert curve over the Earth. The two files appear complete, or not at all. Peak memory is about
    five times ``row_group_bytes`` above the imports, for any number of rows.

    Parameters
    ----------
    items
        Items with a latent asset, all of one ``latent:space``.
    dest
        Local path of the Parquet file; the Item is written to ``<dest>.json``. Existing files are replaced.
    asset
        Key of the latent asset; by default the only one that each Item has.
    by
        One row for each ``"cell"``, each ``"patch"`` of ``patch`` cells, or each ``"item"``.
    patch
        Cells (y, x) of a patch. Patches count from the origin of the CRS where the lattice allows it, so those of
        neighbouring scenes and other dates have the same footprints.
    pool
        ``"mean"``, ``"max"`` or ``"min"`` of the valid cells of a patch or Item.
    dtype
        Stored type; ``"int8"`` comes with a float32 scale for each vector.
    standardise
        Subtract the codec's mean and divide by its deviation, channel by channel.
    channels
        The first so many channels, or the positions of those to keep.
    bbox
        West, south, east, north in degrees (west > east crosses the antimeridian): only cells that overlap it.
    intersects
        GeoJSON or shapely geometry in longitude and latitude, instead of ``bbox``.
    min_valid
        Least share of valid pixels, 0 to 1. Rows without valid pixels are always dropped.
    compression_level
        Of Zstandard, 1 to 22.
    row_group_bytes
        Size of a row group in memory.
    progress
        Called with (items done, items in all).
    reader
        Opens the latent of an Item and asset; by default :meth:`stac_latent.cube.decode.LatentReader.open`.

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
        publish, or the files cannot be written.

    Examples
    --------
    >>> table = publish(items, "vectors.parquet", by="patch", patch=(4, 4), dtype="int8")  # doctest: +SKIP
    >>> table.assets["embeddings"].extra_fields["latent:dimensions"]  # doctest: +SKIP
    64
    """
    path = _destination(dest)
    _check(by, patch, pool, min_valid)
    chosen, spec = _choose(items, asset)
    opener = reader or _open
    stats = _stats(opener(*chosen[0]), spec) if standardise else None
    recipe = Recipe.of(spec, stats, channels, "mean" if by == "cell" else pool)
    cut = _Cut(by, (int(patch[0]), int(patch[1])), pool, min_valid, _region(bbox, intersects))
    with _workplace(path) as work:
        writer = EmbeddingsWriter(
            work,
            recipe.dimensions,
            dtype,
            compression_level=compression_level,
            row_group_bytes=row_group_bytes,
        )
        extent = _fill(writer, chosen, opener, cut=cut, recipe=recipe, progress=progress)
        fields = embedding_fields(
            spec,
            space=recipe.space,
            dimensions=recipe.dimensions,
            rows=writer.rows,
            size=cut.size,
            dtype=dtype,
        )
        how = cut.to_dict() | recipe.to_dict()
        info = writer.finish(
            work / "table.parquet", {"latent": fields | {"publish": how}, "emb": mirror_fields(fields)}
        )
        made = table_item(path, work / "table.parquet", info=info, fields=fields, how=how, extent=extent)
        _write_json(made, work / "item.json")
        _commit(work, {"table.parquet": path, "item.json": Path(made.self_href)})
    return made


@dataclass(frozen=True, slots=True)
class _Cut:
    """How latents are cut into rows."""

    by: Unit
    patch: tuple[int, int]
    pool: Pool
    min_valid: float
    region: shapely.Geometry | None

    @property
    def size(self) -> tuple[int, int] | None:
        """Cells (y, x) of a row; None for the whole Item."""
        return {"cell": (1, 1), "patch": self.patch, "item": None}[self.by]

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"by": self.by}
        if self.by == "patch":
            out["patch"] = list(self.patch)
        return out if self.by == "cell" else out | {"pool": self.pool}


def _fill(
    writer: EmbeddingsWriter,
    chosen: Sequence[tuple[pystac.Item, str]],
    opener: Opener,
    *,
    cut: _Cut,
    recipe: Recipe,
    progress: Callable[[int, int], None] | None,
) -> Extent:
    """Append all rows; what was written, and from which Items."""
    extent = Extent()
    for number, (item, key) in enumerate(chosen):
        source, before = opener(item, key), writer.rows
        time = item.datetime or item.common_metadata.start_datetime
        for rows in rows_of(
            source, by=cut.by, patch=cut.patch, pool=cut.pool, min_valid=cut.min_valid, region=cut.region
        ):
            writer.append(
                item.id,
                item.collection_id,
                time,
                row=rows.row,
                col=rows.col,
                valid=rows.valid,
                values=recipe.apply(rows.values),
                geometry=rows.geometry,
            )
            extent.add(rows.geometry)
        if writer.rows > before:
            extent.close(item)
        if progress is not None:
            progress(number + 1, len(chosen))
    if not writer.rows:
        where = "" if cut.region is None else " overlaps the region"
        raise CatalogError(
            f"nothing to publish: no {cut.by} of {len(chosen)} items{where} holds valid pixels (at least "
            f"{cut.min_valid:g} of them); widen the selection, or lower min_valid"
        )
    return extent


def _open(item: pystac.Item, asset: str) -> LatentSource:
    from stac_latent.cube.decode import LatentReader

    return LatentReader.open(item, asset)


def _stats(source: LatentSource, spec: Spec) -> Stats:
    stats = source.codec.stats if source.codec is not None else None
    if stats is None:
        raise CatalogError(
            f"cannot standardise: the codec of space {spec.space} states no statistics of its channels; publish with "
            "standardise=False"
        )
    return stats


def _destination(dest: str | Path) -> Path:
    if "://" in str(dest):
        raise CatalogError(
            f"cannot write to {dest}: dest is a local path; publish there, then copy both files"
        )
    path = Path(dest).absolute()
    if path.is_dir() or not path.suffix or path.suffix == ".json":
        raise CatalogError(f"cannot write to {dest}: dest is the path of a file, such as 'vectors.parquet'")
    return path


def _check(by: str, patch: tuple[int, int], pool: str, min_valid: float) -> None:
    if by not in UNITS:
        raise CatalogError(f"by={by!r} is unknown; one row is made by {', '.join(map(repr, UNITS))}")
    if pool not in POOLS:
        raise CatalogError(f"pool={pool!r} is unknown; vectors are pooled by {', '.join(map(repr, POOLS))}")
    if len(patch) != 2 or min(patch) < 1:
        raise CatalogError(f"patch={patch!r} is no size; it is (y, x) in cells, each at least 1")
    if not 0 <= min_valid <= 1:
        raise CatalogError(f"min_valid={min_valid!r} is no share; it is between 0 and 1")


def _region(bbox: BBox | None, intersects: Any) -> shapely.Geometry | None:
    if bbox is not None and intersects is not None:
        raise CatalogError("bbox and intersects were both given; choose one")
    if bbox is not None:
        if (
            len(bbox) != 4
            or bbox[1] > bbox[3]
            or max(map(abs, bbox[1::2])) > 90
            or max(map(abs, bbox[::2])) > 180
        ):
            raise CatalogError(f"bbox={tuple(bbox)} is not west, south, east, north in degrees")
        west, south, east, north = bbox
        parts = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        return shapely.union_all([shapely.box(w, south, e, north) for w, e in parts])
    if intersects is None or isinstance(intersects, shapely.Geometry):
        return intersects
    try:
        return shapely.geometry.shape(intersects)
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as exc:
        raise CatalogError(
            f"intersects={intersects!r} is neither GeoJSON nor a shapely geometry ({exc})"
        ) from exc


def _choose(
    items: pystac.Item | Iterable[pystac.Item], asset: str | None
) -> tuple[list[tuple[pystac.Item, str]], Spec]:
    """Each Item with the key of its latent asset, and the contract that all share."""
    found = [items] if isinstance(items, pystac.Item) else list(items)
    if not found:
        raise CatalogError("nothing to publish: no items were given; did the search match anything?")
    if wrong := [type(i).__name__ for i in found if not isinstance(i, pystac.Item)]:
        raise CatalogError(
            f"expected pystac Items, got {wrong[0]}; read one with pystac.Item.from_file(href)"
        )
    repeated = [name for name, n in Counter(i.id for i in found).items() if n > 1]
    if repeated:
        raise CatalogError(
            f"several items are named {_some(repeated)}, and rows are identified by the item's name; leave out "
            "duplicates, or publish them to several files"
        )
    chosen = [(item, _key(item, asset)) for item in found]
    specs = [Spec.from_fields(item.assets[key].extra_fields) for item, key in chosen]
    spaces: dict[str, list[str]] = {}
    for (item, _), spec in zip(chosen, specs, strict=True):
        spaces.setdefault(spec.space, []).append(item.id)
    if len(spaces) > 1:
        listing = "; ".join(f"{space}: {_some(names)}" for space, names in spaces.items())
        raise CatalogError(
            f"vectors of {len(spaces)} latent spaces cannot be compared, so they cannot share a file ({listing}); "
            "publish each space to a file of its own"
        )
    return chosen, specs[0]


def _key(item: pystac.Item, asset: str | None) -> str:
    """Key of the latent array to publish."""
    fit = {k: a for k, a in item.assets.items() if "latent" in (a.roles or ()) and a.media_type != PARQUET}
    if asset is not None and asset in fit:
        return asset
    listing = ", ".join(fit) or "none"
    if asset is not None:
        raise CatalogError(f"item {item.id!r} has no latent asset {asset!r}; its latent assets: {listing}")
    if len(fit) != 1:
        what = "no latent asset" if not fit else "several latent assets"
        hint = (
            f"its assets: {', '.join(item.assets) or 'none'}; encode it first"
            if not fit
            else "choose with asset="
        )
        raise CatalogError(f"item {item.id!r} has {what}" + (f" ({listing})" if fit else "") + f"; {hint}")
    return next(iter(fit))


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder beside the destination that is gone afterwards; failing writes become errors that say where."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as exc:
        raise CatalogError(
            f"could not write {path} ({exc}); nothing was left there: free space or choose another dest"
        ) from exc


def _write_json(item: pystac.Item, path: Path) -> None:
    text = json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _commit(work: Path, moves: Mapping[str, Path]) -> None:
    """Move the finished files into place; if one cannot be, what was there before is restored."""
    done: list[tuple[Path, Path | None]] = []
    try:
        for name, target in moves.items():
            old = work / f"old-{name}" if target.exists() else None
            if old is not None:
                target.replace(old)
                done.append((target, old))
            (work / name).replace(target)
            if old is None:
                done.append((target, None))
    except OSError:
        for target, old in reversed(done):
            target.unlink(missing_ok=True)
            if old is not None:
                old.replace(target)
        raise
