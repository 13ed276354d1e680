"""Vectors of places for a page, as int8, with where they lie and which Items they are of."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely

from stac_latent.aliases import Progress
from stac_latent.catalog.adopt.load_table import load_table, table_assets
from stac_latent.catalog.publish.publish import publish
from stac_latent.catalog.publish.recall import WARNED, RecallSample
from stac_latent.cube.item_assets import latent_assets
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, StacLatentError
from stac_latent.page.facts import text
from stac_latent.page.shapes import pack, packed_bytes
from stac_latent.store.embeddings import read_every, table_size, vectors
from stac_latent.store.geoparquet.vector_types import offset_of

__all__ = ["ROW", "Places", "embedding_asset", "places_of_items", "places_of_table", "quantise"]

ROW = 48
"""Bytes of a row beside its vector, at most: its footprint and its Item."""
MOST_SAMPLED = 4096
"""Vectors that tell where the others lie."""
MOST_BYTES = 1 << 31
"""Vectors of tables that Items describe, in memory."""


@dataclass(frozen=True, slots=True)
class Places:
    """Vectors of one space and their footprints."""

    vectors: npt.NDArray[np.int8]
    """(n, k), each scaled to its own largest magnitude: directions, which is all that a cosine takes."""
    shapes: npt.NDArray[np.object_]
    """(n,) footprints in longitude and latitude."""
    item: npt.NDArray[np.int32]
    """(n,) position of the Item among those on the page; -1 where it is not there."""
    space: str
    origin: str
    """Where the vectors come from, in words."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON object for the page."""
        return {
            "count": len(self.vectors),
            "dimensions": self.vectors.shape[1],
            "vectors": packed_bytes(self.vectors),
            "shapes": pack(list(self.shapes)),
            "item": packed_bytes(self.item.astype("<i4")),
            "space": self.space,
            "origin": self.origin,
            "notes": list(self.notes),
        }


def quantise(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Vectors (n, k) as int8, each divided by its largest magnitude / 127.

    Examples
    --------
    >>> quantise(np.array([[0.5, -1.0, 0.25]], np.float32)).tolist()
    [[64, -127, 32]]
    """
    top = np.abs(values).max(axis=1, keepdims=True)
    return np.rint(values * (127 / np.where(top > 0, top, 1))).astype(np.int8)


def places_of_table(
    path: str | Path, items: Sequence[pystac.Item], limit: int, origin: str | None = None
) -> Places:
    """Places of a GeoParquet table of vectors.

    Parameters
    ----------
    path
        A file that :func:`stac_latent.publish` wrote.
    items
        Those on the page; rows name theirs by collection and id.
    limit
        Bytes at most, of vectors and footprints. Of more rows, evenly spaced ones along the table are taken: it
        follows a Hilbert curve, so they are spread evenly over the area.
    origin
        In words; the file's name by default.

    Raises
    ------
    CatalogError
        If the file is none of that kind, or no row has a direction.
    CorruptDataError
        If it is damaged.
    """
    rows, dimensions = table_size(path)
    step = max(1, math.ceil(rows * (dimensions + ROW) / max(limit, 1)))
    table = read_every(path, ["collection", "item_id", "vector", "scale", "geometry"], step)
    footer = json.loads(table.schema.metadata[b"latent"])
    known = {(i.collection_id, i.id): n for n, i in enumerate(items)}
    named = zip(table["collection"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    owner = np.array([known.get(pair, -1) for pair in named], np.int32)
    shapes = shapely.from_wkb(table["geometry"].to_numpy())
    told = origin or f"{Path(path).name}{_how(footer)}"
    return _kept(vectors(table), shapes, owner, rows, str(footer["latent:space"]), told)


def _kept(
    values: npt.NDArray[np.float32],
    shapes: npt.NDArray[np.object_],
    owner: npt.NDArray[np.int32],
    rows: int,
    space: str,
    origin: str,
) -> Places:
    """Rows that have a direction, out of ``rows`` that were thinned evenly."""
    good = np.isfinite(values).all(axis=1) & (np.abs(values).max(axis=1, initial=0) > 0)
    if not good.any():
        raise CatalogError(
            f"no vector of {origin} has a direction ({rows} rows, all zero or not finite): nothing can be similar; publish "
            "latents that hold values"
        )
    offset = offset_of(values[good][:: max(1, len(values) // MOST_SAMPLED)])
    notes = _found(values[good], offset)
    if offset is not None:
        values = values - offset
        good &= np.abs(values).max(axis=1, initial=0) > 0
    if len(values) < rows:
        notes.append(
            f"{len(values):,} of {rows:,} vectors, evenly spaced along the table, to keep this page small."
        )
    if not good.all():
        notes.append(f"{int((~good).sum()):,} vectors are zero or not finite and were left out.")
    return Places(quantise(values[good]), shapes[good], owner[good], space, origin, tuple(notes))


def _found(values: npt.NDArray[np.float32], offset: npt.NDArray[np.float32] | None) -> list[str]:
    """What is said of how well vectors as the page has them find their neighbours."""
    sample = RecallSample(values.shape[1])
    sample.add(values)
    small = quantise(sample.rows - (0 if offset is None else offset)).astype(np.float32)
    share = sample.recall(small, asked=True)
    if offset is None and share >= WARNED:
        return []
    why = (
        ""
        if offset is None
        else "The vectors lie far from zero together, and are compared as seen from their median. "
    )
    return [
        f"{why}As this page has them, vectors find {share:.0%} of their ten nearest by cosine (measured on {len(sample.rows):,} of them)."
    ]


def _how(footer: dict[str, Any]) -> str:
    how = footer.get("publish", {})
    unit = {"patch": f"by patches of {' x '.join(map(str, how.get('patch', [])))} cells"}.get(
        how.get("by", ""), f"by {how.get('by', 'row')}"
    )
    return f", {unit}"


def embedding_asset(items: Sequence[pystac.Item]) -> str | None:
    """Key of the embedding that the Items carry, a raster before a table; None where there is none, or several."""
    rasters = {
        key
        for item in items
        for key in latent_assets(item)
        if item.assets[key].extra_fields.get("latent:kind") == "embedding"
    }
    keys = rasters or {key for item in items for key in table_assets(item)}
    return next(iter(keys)) if len(keys) == 1 else None


def places_of_items(
    items: Sequence[pystac.Item], asset: str, limit: int, progress: Progress | None = None
) -> Places:
    """Places of the latents of an asset, pooled to patches that fit into the limit.

    Vectors are standardised where the codec states statistics of its channels: cosines of latents with a large common
    mean say little.

    Parameters
    ----------
    items
        Those on the page; those without the asset have no places.
    asset
        Key of a latent asset or a table of vectors, of one space.
    limit
        As in :func:`places_of_table`.
    progress
        Called with a label, the Items done, and their number.

    Raises
    ------
    CatalogError
        If no Item has the asset, or their spaces differ.
    """
    own = [i for i in items if asset in i.assets]
    if not own:
        raise CatalogError(
            f"no item has an asset {asset!r} to find similar places with; give the key of an embedding, or a .parquet file"
        )
    if all(asset in table_assets(i) for i in own):
        return _places_of_tables(items, own, asset, limit)
    refs = [LatentRef.from_item(i, asset) for i in own]
    cells = sum(math.prod(ref.grid.cells) for ref in refs)
    side = max(1, math.ceil(math.sqrt(cells * (refs[0].spec.dimensions + ROW) / limit)))
    standardise = _has_stats(refs[0])
    with tempfile.TemporaryDirectory(prefix="stac-latent-map-") as folder:
        path = Path(folder) / "places.parquet"
        publish(
            own, path, asset=asset, by="cell" if side == 1 else "patch", patch=(side, side), standardise=standardise,
            dtype="float32", compression_level=1, progress=progress,
        )  # fmt: skip
        unit = "cells" if side == 1 else f"patches of {side} x {side} cells"
        how = ", standardised" if standardise else ""
        return places_of_table(path, items, limit, f"asset {text(asset)!r}, by {unit}{how}")


def _has_stats(ref: LatentRef) -> bool:
    """Whether the codec of a latent is at hand, and states statistics of its channels; embeddings of others have none."""
    try:
        return LatentReader(ref).codec.stats is not None
    except StacLatentError:
        return False


def _places_of_tables(
    items: Sequence[pystac.Item], own: Sequence[pystac.Item], asset: str, limit: int
) -> Places:
    """Rows of tables that Items describe, whoever published them."""
    shape = [i.assets[asset].extra_fields.get("latent:shape") or (0, 0) for i in own]
    if (size := 4 * sum(n * k for n, k in shape)) > MOST_BYTES:
        raise CatalogError(
            f"the tables of asset {asset!r} hold {size:,} bytes of vectors, and {MOST_BYTES:,} are read at most; narrow the search"
        )
    frame = load_table(own, [], asset=asset, invalid="drop")
    rows, dimensions = len(frame), int(frame.attrs["latent"]["latent:dimensions"])
    step = max(1, math.ceil(rows * (dimensions + ROW) / max(limit, 1)))
    some = frame.iloc[::step]
    known = {i.id: n for n, i in enumerate(items)}
    return _kept(
        np.array(some["vector"].tolist(), np.float32).reshape(len(some), dimensions), some.geometry.to_numpy(),
        np.array([known[name] for name in some["item_id"]], np.int32), rows, str(frame.attrs["latent"]["latent:space"]),
        f"asset {text(asset)!r}, by row",
    )  # fmt: skip
