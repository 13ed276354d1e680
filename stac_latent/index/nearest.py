"""The verb: the rows of published vectors that are most like a vector, a place, an Item, a chip or an area."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from stac_latent.catalog.search.arguments import Time
from stac_latent.errors import RecallWarning, SearchError
from stac_latent.index.conditions import mask_of
from stac_latent.index.memory_map import Cache, open_cache
from stac_latent.index.metric import F64, Form
from stac_latent.index.query import codec_of, resolve_query
from stac_latent.index.scan import Rows, scan
from stac_latent.index.table import PublishedTable, open_table
from stac_latent.spec import Stats
from stac_latent.system.suggest import known_options

if TYPE_CHECKING:
    import geopandas

__all__ = ["LEAST", "Whiten", "find", "low_recall", "nearest", "whitening"]

Whiten = bool | Literal["table"] | Stats
LEAST = 0.9
"""Share of the ten nearest that an index must have found when it was built, for a search to go by it."""


@known_options()
def nearest(
    source: Any,
    query: Any,
    k: int = 10,
    *,
    where: str | Mapping[str, Any] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Any = None,
    datetime: Time | Sequence[Time] = None,
    min_valid: float = 0.0,
    metric: str = "cosine",
    whiten: Whiten = False,
    index: bool = False,
    space: str | None = None,
    asset: str | None = None,
) -> geopandas.GeoDataFrame:
    """The k rows of a table of vectors that are nearest to what is looked for.

    The search is exact: of all rows that match the conditions, those at the least distance in float64, rows at equal distance in
    the table's order. Where :func:`~stac_latent.index.ivf.build_index` laid the table out, memory-mapped vectors are scanned;
    otherwise the file itself, a row group at a time.

    Parameters
    ----------
    source
        Path of a file or folder written by :func:`stac_latent.publish`, its STAC Item, an opened table
        (:func:`~stac_latent.index.table.open_table`), or several of one space.
    query
        A vector (k,) or vectors (m, k) as arrays; a point ``(lon, lat)`` or ``(lon, lat, time)`` as a tuple (the vector of the row
        there: nearest in time, or the latest); a pystac Item with a latent (pooled over its cells); a chip, an array (band, y,
        x) of pixels in the stored unit (encoded by the codec of the space); an area, shapely or GeoJSON (the mean of the
        rows that touch it); or a list of these.
    k
        How many rows for each query; all that match are returned where they are fewer.
    where
        CQL2 text (needs the extra ``search``) or JSON over the columns ``id``, ``item_id``, ``collection``, ``datetime``, ``row``,
        ``col``, ``valid``, ``geometry``.
    bbox, intersects, datetime
        Place and time as in :func:`stac_latent.search`: rows whose footprint touches it, and whose time lies in it.
    min_valid
        Least share of valid pixels, 0 to 1.
    metric
        ``"cosine"`` (1 - cosine), ``"l2"`` (Euclidean) or ``"dot"`` (the negative product): small is near in each.
    whiten
        Subtract the mean and divide by the deviation of each channel first: True takes the statistics of the space's codec,
        ``"table"`` those of the table's own vectors, or give a :class:`~stac_latent.spec.Stats`. A table that was published
        standardised is left as it is by True.
    index
        Search approximately through an inverted index (extra ``search``), built where it is missing or of an older state of
        the table. What it finds is ranked again in float64. One that found less than 0.9 of the ten nearest when it was built is
        left aside with a :class:`~stac_latent.errors.RecallWarning`, and every row is looked at.
    space
        Digest of the space that a query vector is of, to be checked against the table's.
    asset
        Key of the latent asset, for Items that have several.

    Returns
    -------
    geopandas.GeoDataFrame
        In OGC:CRS84, nearest first: ``rank`` (from 1), ``distance`` and the table's columns without the vector; for a list
        of queries also ``query``, its number. Rows that hold NaN, and zero vectors under the cosine, never appear.

    Raises
    ------
    SearchError
        If the query is of another space than the table (both are named), is no query, is zero under the cosine, no row matches, or none
        of those that do can be compared.
    CatalogError, CorruptDataError
        If the table cannot be read.

    Examples
    --------
    >>> nearest("cells.parquet", (13.4, 52.5), k=5, min_valid=0.9)  # doctest: +SKIP
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SearchError(f"k={k!r} is no number of rows; it is a whole number from 1")
    table = open_table(source)
    looked = resolve_query(table, query, space=space, asset=asset)
    form = Form.of(metric, table.dimensions, whitening(table, whiten))
    keep = mask_of(
        table, where=where, bbox=bbox, intersects=intersects, datetime=datetime, min_valid=min_valid
    )
    store, found = find(table, looked.vectors, int(k), form, keep, index=index)
    return _frame(table, store, found, looked.single, form)


def find(
    table: PublishedTable,
    vectors: npt.NDArray[Any],
    k: int,
    form: Form,
    keep: npt.NDArray[np.bool_] | None = None,
    *,
    index: bool = False,
) -> tuple[Cache | PublishedTable, list[tuple[Rows, F64]]]:
    """Rows and distances for each vector (m, k), and where their columns are read."""
    q = form.queries(vectors)
    store: Cache | PublishedTable
    if index:
        from stac_latent.index.ivf import open_index

        inverted = open_index(table, form)
        store = inverted.cache
        if inverted.recall < LEAST:
            warnings.warn(
                low_recall(table, form, inverted.recall) + "; every row was looked at instead",
                RecallWarning,
                stacklevel=3,
            )
            found = scan(store, q, k, form, keep)
        else:
            found = inverted.search(q, k, keep)
    else:
        cache = open_cache(table)
        store = table if cache is None else cache
        found = scan(store, q, k, form, keep)
    if not any(len(rows) for rows, _ in found):
        count = table.rows if keep is None else int(np.count_nonzero(keep))
        hint = ", or search with metric='l2'" if form.metric == "cosine" else ""
        raise SearchError(
            f"none of the {count} rows of {table.name} that are searched can be compared by {form.metric}: their vectors hold NaN"
            f"{' or are zero, which is no direction' if form.metric == 'cosine' else ''}; loosen the conditions{hint}"
        )
    return store, found


def low_recall(table: PublishedTable, form: Form, recall: float) -> str:
    """What is said of an index that finds too few."""
    return (
        f"the index of {table.name} for {form.metric} finds {recall:.0%} of the ten nearest rows, as measured when it was built (a few "
        "vectors are far longer than the others, for instance)"
    )


def whitening(table: PublishedTable, whiten: Whiten) -> Stats | None:
    """Statistics to whiten a table's vectors with; None for none.

    Raises
    ------
    SearchError
        If the codec of the space states none, or ``whiten`` is none of what it may be.
    """
    if isinstance(whiten, Stats):
        return whiten
    if whiten == "table":
        return table.moments()
    if whiten is not True and whiten is not False:
        raise SearchError(f"whiten={whiten!r} is unknown; it is True, False, 'table' or Stats")
    if not whiten or "mean" in table.recipe:
        return None
    codec = codec_of(table)
    if codec.stats is None:
        raise SearchError(
            f"the codec {codec.name!r} states no statistics of its channels; whiten with 'table' or with Stats"
        )
    channels = table.recipe.get("channels") or range(table.dimensions)
    return Stats(*(tuple(v[c] for c in channels) for v in (codec.stats.mean, codec.stats.std)))


def _frame(
    table: PublishedTable,
    store: Cache | PublishedTable,
    found: list[tuple[Rows, F64]],
    single: bool,
    form: Form,
) -> geopandas.GeoDataFrame:
    import geopandas

    rows = np.concatenate([r for r, _ in found])
    names = [n for n in table.names() if n not in ("vector", "scale", "bbox")]
    columns: pa.Table = store.columns(names, rows)
    made = {
        "query": np.repeat(np.arange(len(found)), [len(r) for r, _ in found]),
        "rank": np.concatenate([np.arange(1, len(r) + 1) for r, _ in found]),
        "distance": np.concatenate([d for _, d in found]),
    }
    frame = columns.drop_columns(["geometry"]).to_pandas()
    for place, (name, values) in enumerate(made.items()):
        frame.insert(place, name, values)
    shapes = shapely.from_wkb(columns["geometry"].to_numpy())
    out = geopandas.GeoDataFrame(
        frame.drop(columns=["query"]) if single else frame, geometry=shapes, crs="OGC:CRS84"
    )
    out.attrs |= {"latent:space": table.space, "metric": form.metric, "whitened": form.whitened}
    return out
