"""What is looked for: vectors, places, Items, chips of pixels and areas become vectors of the table's space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely
import shapely.geometry

from stac_latent.catalog.adopt.table_rows import is_adopted_table
from stac_latent.catalog.publish.recipe import Recipe
from stac_latent.catalog.search.arguments import parse_datetime
from stac_latent.codec.codec import Codec
from stac_latent.cube.decoder import Decoder
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import SearchError, UnresolvedSpaceError
from stac_latent.extension import ENCODER_REL
from stac_latent.index.conditions import rows_at, rows_in
from stac_latent.index.metric import F32
from stac_latent.index.table import PublishedTable
from stac_latent.spec import Grid, Spec, Stats
from stac_latent.system.links import link_href

__all__ = ["QueryVectors", "codec_of", "recipe_of", "resolve_query"]

_POOL: dict[str, Any] = {"mean": np.nanmean, "max": np.nanmax, "min": np.nanmin}


@dataclass(frozen=True)
class QueryVectors:
    """Query vectors."""

    vectors: F32
    """(m, k) in the table's space."""
    single: bool
    """Whether one thing was looked for, and no list of them."""


def resolve_query(
    table: PublishedTable, query: Any, *, space: str | None = None, asset: str | None = None
) -> QueryVectors:
    """Vectors of one query or of a batch.

    Parameters
    ----------
    table
        Where is searched.
    query
        A vector (k,) or vectors (m, k); a point ``(lon, lat)`` or ``(lon, lat, time)`` as a tuple, or a shapely Point; a pystac
        Item with a latent; a chip, an array (band, y, x) in the stored unit of the bands; an area as shapely geometry or
        GeoJSON; or a list of these.
    space
        Digest of the space that the vectors are of, checked where it is given.
    asset
        Key of the latent asset of Items that have several.

    Raises
    ------
    SearchError
        If it is none of these, or of another space than the table: the message names both.
    """
    if space is not None and space != table.space:
        raise _other_space("the query", space, table, table.space)
    if isinstance(query, np.ndarray) and query.ndim <= 2:
        return QueryVectors(_checked(query, table), query.ndim == 1)
    if isinstance(query, list) and query and not isinstance(query[0], Real):
        rows = [resolve_query(table, one, asset=asset).vectors for one in query]
        return QueryVectors(np.concatenate(rows), single=False)
    if isinstance(query, list) and query:
        return QueryVectors(_checked(np.asarray(query), table), single=True)
    return QueryVectors(_checked(_one(table, query, asset), table), single=True)


def _one(table: PublishedTable, query: Any, asset: str | None) -> npt.NDArray[Any]:
    if isinstance(query, pystac.Item):
        return _of_item(table, query, asset)
    if isinstance(query, np.ndarray) and query.ndim == 3:
        return _of_chip(table, query)
    if isinstance(query, shapely.Point):
        query = (query.x, query.y)
    if isinstance(query, tuple) and len(query) in (2, 3) and all(isinstance(v, Real) for v in query[:2]):
        return _of_point(table, *query)
    if isinstance(query, shapely.Geometry | Mapping):
        return _of_area(table, query)
    raise SearchError(
        f"cannot search for {type(query).__name__} {str(query)[:80]!r}; give a vector of {table.dimensions} numbers, (lon, lat), "
        "(lon, lat, time), a pystac Item, an array (band, y, x), a polygon, or a list of these"
    )


def _checked(vectors: npt.NDArray[Any], table: PublishedTable) -> F32:
    """(m, k) finite float32."""
    try:
        found = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    except (ValueError, TypeError) as exc:
        raise SearchError(f"the query is no vector of {table.dimensions} numbers ({exc})") from exc
    if found.ndim != 2 or found.shape[1] != table.dimensions or not len(found):
        raise SearchError(
            f"the query has shape {tuple(np.shape(vectors))}; vectors of {table.name} hold {table.dimensions} values"
        )
    if not np.isfinite(found).all():
        bad = int(np.argmin(np.isfinite(found).all(axis=1)))
        raise SearchError(
            f"query {bad} holds NaN or infinity, which is at no distance from anything; replace it"
        )
    return found


def _of_point(table: PublishedTable, lon: float, lat: float, when: Any = None) -> npt.NDArray[Any]:
    """Vector of the row that holds a point: the one nearest in time, or the latest."""
    rows = rows_at(table, float(lon), float(lat))
    times = table.columns(["datetime"], rows)["datetime"].to_pylist()
    first = datetime(1, 1, 1, tzinfo=UTC)
    if when is None:
        best = max(range(len(rows)), key=lambda i: times[i] or first)
    else:
        start, end = parse_datetime(when)
        moment = start or end or first
        best = min(range(len(rows)), key=lambda i: abs((times[i] or first) - moment))
    return table.take(rows[best : best + 1])


def _of_area(table: PublishedTable, area: Any) -> npt.NDArray[Any]:
    """Mean of the vectors whose footprints touch an area."""
    if isinstance(area, Mapping):
        try:
            area = shapely.geometry.shape(area.get("geometry", area))
        except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as exc:
            raise SearchError(f"the query {str(area)[:80]} is no GeoJSON geometry ({exc})") from exc
    rows = rows_in(table, area)
    found = table.take(rows).astype(np.float64)
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found):
        raise SearchError(
            f"no row of {table.name} with a finite vector touches the area with bounds {area.bounds}"
        )
    return np.asarray(found.mean(axis=0))


def _of_item(table: PublishedTable, item: pystac.Item, asset: str | None) -> npt.NDArray[Any]:
    """Pooled cells of an Item, brought to the table's space."""
    from stac_latent.cube.read.driver import open_cells

    tables = [k for k, a in item.assets.items() if is_adopted_table(a)]
    if asset in tables or (asset is None and tables):
        raise SearchError(
            f"item {item.id!r} is a table of many vectors, and no query; look for one of its rows by its place, for the mean of an area, or "
            "for a vector of stac_latent.load_table"
        )
    reader = open_cells(LatentRef.from_item(item, asset))
    recipe = recipe_of(table)
    if reader.spec.space != recipe.source_space:
        raise _other_space(f"item {item.id!r}", reader.spec.space, table, recipe.source_space)
    return _pooled(reader.read_latent(), recipe)


def _of_chip(table: PublishedTable, chip: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pooled latents of pixels, encoded by the codec of the space; incomplete cells at the far edges are left out."""
    codec = codec_of(table)
    if chip.shape[0] != len(codec.bands):
        names = ", ".join(b.name for b in codec.bands)
        raise SearchError(
            f"the chip has {chip.shape[0]} bands; {codec.name!r} encodes {len(codec.bands)}: {names}"
        )
    y, x = ((n // s) * s for n, s in zip(chip.shape[1:], codec.stride, strict=True))
    if not y * x:
        raise SearchError(f"the chip has {chip.shape[1:]} pixels, less than one cell of {codec.stride}")
    symbols = codec.encode(np.ascontiguousarray(chip[:, :y, :x]), upto="symbols")
    return _pooled(codec.spec.quantization.dequantise(symbols), recipe_of(table))


def _pooled(latent: F32, recipe: Recipe) -> npt.NDArray[Any]:
    cells = latent.reshape(len(latent), -1)
    cells = cells[:, np.isfinite(cells).all(axis=0)]
    if not cells.shape[1]:
        raise SearchError("the query holds no valid pixel; choose another")
    return recipe.apply(_POOL[recipe.pool](cells, axis=1)[None].astype(np.float32))


def recipe_of(table: PublishedTable) -> Recipe:
    """What was done to latents to make the table's vectors."""
    how = table.recipe
    stats = Stats(tuple(how["mean"]), tuple(how["std"])) if "mean" in how else None
    channels = tuple(how["channels"]) if "channels" in how else None
    source = str(how.get("source_space", table.space))
    return Recipe(source, table.dimensions, stats, channels, how.get("pool", "mean"))


def codec_of(table: PublishedTable) -> Codec:
    """Codec of the space that the table's vectors were made in: by the link of its Item, or an installed one.

    Raises
    ------
    UnresolvedSpaceError
        If it is not found; the message lists where it was looked for.
    """
    space = recipe_of(table).source_space
    nowhere = Grid("EPSG:4326", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (1, 1))
    spec = Spec("embedding", space, table.dimensions, (1, 1), None)
    decoder = None
    for link in [] if table.item is None else table.item.get_links(ENCODER_REL):
        if link.extra_fields.get("latent:space") == space:
            decoder = Decoder(str(link_href(link)), link.extra_fields.get("file:checksum"))
    ref = LatentRef(table.name.name, "embeddings", str(table.name), spec, nowhere, decoder)
    try:
        return ref.open_codec()
    except UnresolvedSpaceError as exc:
        raise UnresolvedSpaceError(
            f"no codec of the vectors of {table.name} is at hand, so pixels cannot be encoded to be compared with them, nor are its "
            f"statistics known; search by a vector, a place or an area, and whiten with 'table': {exc}"
        ) from exc


def _other_space(what: str, space: str, table: PublishedTable, expected: str) -> SearchError:
    return SearchError(
        f"vectors of different spaces cannot be compared: {what} is of {space}, {table.name} of {expected}; encode it with the "
        "codec of the table, or search a table of its own space"
    )
