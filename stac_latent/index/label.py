"""Labels from few examples: each row takes those of the examples that its vector is nearest to; the rows become a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely
import shapely.geometry

from stac_latent.catalog.search.arguments import Time
from stac_latent.errors import CatalogError, SearchError
from stac_latent.index.conditions import mask_of
from stac_latent.index.label_raster import MapGrid, burn
from stac_latent.index.memory_map import open_cache
from stac_latent.index.metric import F32, F64, Form
from stac_latent.index.nearest import Whiten, whitening
from stac_latent.index.query import resolve_query
from stac_latent.index.table import PublishedTable, open_table
from stac_latent.system.documents import read_json
from stac_latent.system.suggest import known_options

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["label"]

MOST_LABELS = 255


@known_options()
def label(
    source: Any,
    examples: Any,
    *,
    column: str = "label",
    k: int = 3,
    max_distance: float | None = None,
    where: str | Mapping[str, Any] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Any = None,
    datetime: Time | Sequence[Time] = None,
    min_valid: float = 0.0,
    metric: str = "cosine",
    whiten: Whiten = False,
    crs: Any = None,
    resolution: float | None = None,
) -> xr.Dataset:
    """A map of labels from a few examples, by the k nearest of them.

    Votes are weighted by the inverse of the distance. Where rows overlap, as those of several dates do, the latest is drawn;
    rows without a time are the oldest.

    Parameters
    ----------
    source
        Published vectors, as :func:`stac_latent.nearest` takes them.
    examples
        Points or areas with a label each: a GeoDataFrame, GeoJSON (path or FeatureCollection), or a list of pairs (query, label) with
        queries as :func:`stac_latent.nearest` takes them. Examples may lie outside ``bbox`` and the other conditions.
    column
        Name of the property with the label.
    k
        How many examples vote; never more than the least number of examples of a label.
    max_distance
        Rows farther than this from every example get no label.
    where, bbox, intersects, datetime, min_valid, metric, whiten
        Which rows are labelled, and how distances are measured, as in :func:`stac_latent.nearest`.
    crs, resolution
        Grid of the map; by default UTM and the median side of a footprint.

    Returns
    -------
    xarray.Dataset
        On ``(y, x)``: ``label`` uint8, 0 without one and else the position in the attribute ``flag_meanings``, from 1; ``agreement``
        float32, the share of the votes that it got; ``distance`` float32 to the nearest example of it. NaN without a label.

    Raises
    ------
    SearchError
        If there is no example, one lies outside the table, there are more than 255 labels, or an argument is out of range.

    Examples
    --------
    >>> found = label("cells.parquet", [((13.41, 52.52), "water"), ((13.38, 52.51), "wood")])  # doctest: +SKIP
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SearchError(f"k={k!r} is no number of examples; it is a whole number from 1")
    table = open_table(source)
    queries, names = _examples(examples, column)
    kinds = sorted(set(names))
    if len(kinds) > MOST_LABELS:
        raise SearchError(
            f"the examples have {len(kinds)} labels; a map holds at most {MOST_LABELS}: does {column!r} hold classes?"
        )
    codes = np.array([kinds.index(n) for n in names])
    form = Form.of(metric, table.dimensions, whitening(table, whiten))
    known = form.queries(resolve_query(table, queries).vectors)
    keep = mask_of(
        table, where=where, bbox=bbox, intersects=intersects, datetime=datetime, min_valid=min_valid
    )
    votes = min(int(k), int(np.bincount(codes).min()))
    rows, values = _vote(table, form, known, codes, votes, keep)
    if max_distance is not None:
        near = values[:, 2] <= np.float32(max_distance)
        rows, values = rows[near], values[near]
    if not len(rows):
        raise SearchError(
            "no row gets a label: none has a vector that can be compared within max_distance; raise it"
        )
    columns = table.columns(["geometry", "datetime"], rows)
    shapes = shapely.from_wkb(columns["geometry"].to_numpy())
    order = _drawing_order(columns["datetime"])
    grid = MapGrid.of(shapes, crs, resolution)
    bands = burn(shapes[order], values[order], grid)
    out = grid.dataset({"label": bands[0], "agreement": bands[1], "distance": bands[2]})
    out["label"] = out["label"].fillna(0).astype("uint8")
    out["label"].attrs |= {
        "flag_values": list(range(1, len(kinds) + 1)),
        "flag_meanings": " ".join(k.replace(" ", "_") for k in kinds),
        "nodata": 0,
    }
    out.attrs |= {"latent:space": table.space, "metric": metric, "examples": len(names), "votes": votes}
    return out


def _vote(
    table: PublishedTable,
    form: Form,
    known: F64,
    codes: npt.NDArray[Any],
    k: int,
    keep: npt.NDArray[np.bool_] | None,
) -> tuple[npt.NDArray[np.int64], F32]:
    """Rows that can be labelled, and for each its label (from 1), its share of the votes and its distance (n, 3)."""
    cache = open_cache(table)
    own = np.eye(int(codes.max()) + 1, dtype=np.float32)[codes]
    out_rows, out = [np.empty(0, np.int64)], [np.empty((0, 3), np.float32)]
    for rows, block in (table if cache is None else cache).blocks(keep):
        fine = np.isfinite(block).all(axis=1)
        if form.metric == "cosine":
            fine &= form.whiten(block).any(axis=1)
        x = block[fine]
        distance = np.stack([form.distances(x, q) for q in known], axis=1).astype(np.float32)
        near = np.argsort(distance, axis=1, kind="stable")[:, :k]
        gap = np.take_along_axis(distance, near, axis=1)
        if form.metric == "dot":  # a negative product is no distance: only its order counts
            gap = gap - gap[:, :1] + 1
        weight = 1 / (np.maximum(gap, 0) + np.float32(1e-6))
        votes = np.einsum("nk,nkc->nc", weight, own[near])
        best = votes.argmax(axis=1)
        nearest = np.where(codes[None] == best[:, None], distance, np.inf).min(axis=1)
        share = votes.max(axis=1) / votes.sum(axis=1)
        out_rows.append(rows[fine])
        out.append(np.stack([best + 1, share, nearest], axis=1).astype(np.float32))
    return np.concatenate(out_rows), np.concatenate(out)


def _drawing_order(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Positions of rows, the latest last and those without a time first; of equal times, that of the first row last, as queries take it."""
    known = pc.fill_null(times.cast(pa.int64()), np.iinfo(np.int64).min).to_numpy()
    return np.asarray(len(known) - 1 - np.argsort(known[::-1], kind="stable"))


def _examples(examples: Any, column: str) -> tuple[list[Any], list[str]]:
    """Queries and their labels."""
    if isinstance(examples, list | tuple):
        if not examples or any(not isinstance(e, tuple) or len(e) != 2 for e in examples):
            raise SearchError("examples are pairs (query, label), at least one")
        return [q for q, _ in examples], [str(name) for _, name in examples]
    features = _features(examples)
    queries, names = [], []
    for number, feature in enumerate(features):
        name = (feature.get("properties") or {}).get(column)
        if name is None:
            have = ", ".join(feature.get("properties") or {}) or "none"
            raise SearchError(
                f"example {number} has no {column!r} (it has {have}); name the property with column="
            )
        try:
            queries.append(shapely.geometry.shape(feature["geometry"]))
        except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as exc:
            raise SearchError(f"example {number} has no geometry that can be read ({exc})") from exc
        names.append(str(name))
    if not queries:
        raise SearchError("the examples are empty; give at least one place with a label")
    return queries, names


def _features(examples: Any) -> list[dict[str, Any]]:
    if hasattr(examples, "to_crs"):
        return list((examples if examples.crs is None else examples.to_crs("OGC:CRS84")).iterfeatures())
    if isinstance(examples, str | Path):
        try:
            examples = read_json(Path(examples))
        except CatalogError as exc:
            raise SearchError(f"cannot read the examples {examples} ({exc}); they are GeoJSON") from None
    if isinstance(examples, Mapping) and isinstance(examples.get("features"), list):
        return list(examples["features"])
    raise SearchError(
        f"examples are a GeoDataFrame, GeoJSON or pairs (query, label); got {str(examples)[:80]!r}"
    )
