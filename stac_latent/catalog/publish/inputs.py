"""What publish accepts: a destination, Items with one latent each, a region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pystac
import shapely
import shapely.geometry

from stac_latent.catalog.adopt.table_rows import is_adopted_table
from stac_latent.catalog.publish.item import PARQUET
from stac_latent.cube.item_assets import as_items
from stac_latent.errors import CatalogError
from stac_latent.geo.extents import flat_bbox
from stac_latent.spec import Spec
from stac_latent.store.embeddings import BBox
from stac_latent.system.links import is_local, local_path

__all__ = ["are_tables", "choose", "destination", "region_of"]


def destination(dest: str | Path, partition: int | None = None) -> Path:
    """Absolute path of the Parquet file to write, or of the folder for tiles."""
    if not is_local(str(dest)):
        raise CatalogError(
            f"cannot write to {dest}: dest is a local path; publish there, then copy both files"
        )
    path = local_path(str(dest)).absolute()
    if partition is not None:
        foreign = [p.name for p in path.iterdir() if not p.name.startswith("tile=")] if path.is_dir() else []
        if path.is_file() or foreign:
            what = "a file" if path.is_file() else f"a folder that holds {_some(sorted(foreign))}"
            raise CatalogError(
                f"cannot write tiles to {path}: it is {what}; dest is the path of a new folder, or of published tiles"
            )
        return path
    if path.is_dir() or not path.suffix or path.suffix == ".json":
        raise CatalogError(f"cannot write to {dest}: dest is the path of a file, such as 'vectors.parquet'")
    return path


def region_of(bbox: BBox | None, intersects: Any) -> shapely.Geometry | None:
    """The selected region in OGC:CRS84; None where all is wanted."""
    if bbox is not None and intersects is not None:
        raise CatalogError("bbox and intersects were both given; choose one")
    if bbox is not None:
        try:
            west, south, east, north = flat_bbox(bbox)
        except ValueError as exc:
            raise CatalogError(str(exc)) from exc
        if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 180:
            raise CatalogError(f"bbox={tuple(bbox)} is not west, south, east, north in degrees")
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


def choose(
    items: pystac.Item | Iterable[pystac.Item], asset: str | None
) -> tuple[list[tuple[pystac.Item, str]], Spec]:
    """Each Item with the key of its latent asset, and the contract that all share."""
    found = as_items(items, "publish")
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


def are_tables(chosen: Sequence[tuple[pystac.Item, str]], by: str) -> bool:
    """Whether the rows are those of adopted tables; with ``by`` other than ``cell``, a table on a grid is a raster.

    Raises
    ------
    CatalogError
        If some are tables and others rasters, or the rows of a table would have to be pooled.
    """
    tables = [(item, key) for item, key in chosen if is_adopted_table(item.assets[key])]
    if not tables:
        return False
    item = tables[0][0]
    if by == "cell" and len(tables) < len(chosen):
        other = next(pair[0] for pair in chosen if pair not in tables)
        raise CatalogError(
            f"item {item.id!r} is a table of vectors and item {other.id!r} a raster; publish each to a file of its own, and search both"
        )
    if by != "cell" and (loose := [i for i, k in tables if "proj:shape" not in i.assets[k].extra_fields]):
        raise CatalogError(
            f"item {loose[0].id!r} is a table of vectors, and its rows are published as they are: by='cell'; got by={by!r}"
        )
    return by == "cell"


def _key(item: pystac.Item, asset: str | None) -> str:
    """Key of the latent array to publish."""
    latent = {k: a for k, a in item.assets.items() if "latent" in (a.roles or ())}
    fit = {k: a for k, a in latent.items() if a.media_type != PARQUET or is_adopted_table(a)}
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
