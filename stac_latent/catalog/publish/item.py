"""The STAC Item of a published table, and the fields that the table's footer repeats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely

from stac_latent import __version__
from stac_latent.extension import DECODER_REL, ENCODER_REL, SCHEMA_URI
from stac_latent.extension.schemas import FILE_URI, PROCESSING_URI, TABLE_URI
from stac_latent.geo.extents import bbox_of_parts, times_in_utc
from stac_latent.spec import Spec
from stac_latent.store.geoparquet.writer import COLUMNS, TableInfo
from stac_latent.system.digests import file_multihash
from stac_latent.system.links import href_of, link_href, relative

__all__ = ["ASSET_KEY", "PARQUET", "Extent", "TableFile", "embedding_fields", "mirror_fields", "table_item"]

ASSET_KEY = "embeddings"
PARQUET = "application/vnd.apache.parquet"
EXTENSIONS = [SCHEMA_URI, TABLE_URI, FILE_URI, PROCESSING_URI]


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table."""

    tile: str
    """Name z-x-y of its tile; empty where the table is one file."""
    path: Path
    """Where it lies now."""
    info: TableInfo
    """What the writer said of it."""

    @property
    def key(self) -> str:
        """Key of its asset."""
        return f"{ASSET_KEY}-{self.tile}" if self.tile else ASSET_KEY


class Extent:
    """Place and time of the rows, and the Items they came from, gathered while they are written."""

    def __init__(self) -> None:
        self._halves: dict[bool, list[shapely.Geometry]] = {}
        self._hulls: list[shapely.Geometry] = []
        self._bounds: list[npt.NDArray[np.float64]] = []
        self.items: list[pystac.Item] = []
        """Items that gave at least one row."""

    def add(self, geometry: npt.NDArray[np.object_]) -> None:
        """Footprints (n,) of rows of the current Item."""
        parts = shapely.get_parts(geometry)
        east = shapely.bounds(parts)[:, [0, 2]].sum(axis=1) >= 0
        for half in (False, True):
            if (east == half).any():
                xy = shapely.get_coordinates(parts[east == half])
                points: shapely.Geometry = shapely.LineString(np.resize(xy, (max(2, len(xy)), 2)))
                self._halves.setdefault(half, []).append(shapely.convex_hull(points))

    def close(self, item: pystac.Item) -> None:
        """The current Item is complete: its rows lie in their convex hull, or in two across the antimeridian."""
        hulls = [shapely.union_all(parts) for parts in self._halves.values()]
        west, _, east, _ = shapely.total_bounds(hulls)
        groups = [[h] for h in hulls] if east - west > 180 else [hulls]
        for group in groups:
            hull = shapely.convex_hull(shapely.union_all(group))
            self._bounds.append(shapely.bounds(hull))
            self._hulls.append(_simple(hull))
        self._halves = {}
        self.items.append(item)

    @property
    def geometry(self) -> shapely.Geometry:
        """Union of the Items' hulls."""
        return shapely.union_all(self._hulls)

    def bbox(self) -> list[float]:
        """West, south, east, north of all rows; west > east where that is the shorter way over the antimeridian."""
        return list(bbox_of_parts(np.array(self._bounds)))

    def times(self) -> tuple[datetime | None, datetime | None, datetime | None]:
        """Datetime (None for a period), start and end (None for an instant)."""
        times = [t for i in self.items for t in times_in_utc(i)]
        start, end = min(times), max(times)
        return (start, None, None) if start == end else (None, start, end)


def _simple(hull: shapely.Geometry) -> shapely.Geometry:
    """A convex hull with fewer points, which still holds all that it held and has the same bounds."""
    width = np.ptp(shapely.bounds(hull).reshape(2, 2), axis=0).max()
    out: shapely.Geometry = shapely.simplify(hull, width * 1e-3)
    lost = shapely.hausdorff_distance(out, hull)
    if not lost:
        return out
    wider = shapely.buffer(out, lost, join_style="mitre")
    whole: shapely.Geometry = shapely.intersection(wider, shapely.box(*shapely.bounds(hull)))
    return whole


def embedding_fields(
    spec: Spec,
    *,
    space: str,
    dimensions: int,
    rows: int,
    size: tuple[int, int] | None,
    dtype: str,
    granularity: str | None = None,
    offset: npt.NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """The ``latent:`` fields of a table's asset, with ``data_type`` and ``bands``.

    Parameters
    ----------
    spec
        Contract of the latents that the vectors were made from.
    space
        Digest of the vectors' space.
    dimensions, rows
        Shape of the table.
    size
        Cells (y, x) of one row; None where a row is a whole Item.
    dtype
        Stored type.
    granularity
        Of a row, where ``size`` does not tell it.
    offset
        What int8 vectors are counted from, (dimensions,); None for zero.
    """
    granularity = granularity or (
        "scene" if size is None else spec.granularity if size == (1, 1) else "patch"
    )
    per_vector = dtype == "int8"
    out: dict[str, Any] = {
        "latent:kind": "embedding",
        "latent:space": space,
        "latent:granularity": granularity,
        "latent:dimensions": dimensions,
        "latent:shape": [rows, dimensions],
        "latent:dim_order": ["row", "channel"],
        "latent:dtype": "float32" if per_vector else dtype,
        "latent:quantization": "per_vector" if per_vector else "none",
        "data_type": dtype,
    }
    if per_vector:
        out["latent:scale_asset"] = ASSET_KEY
    if offset is not None:
        out["latent:quantization_offset"] = offset.tolist()
    if size is not None:
        out["latent:stride"] = [spec.stride[0] * size[0], spec.stride[1] * size[1]]
    if spec.bands:
        out["bands"] = [b.to_stac() for b in spec.bands]
    return out


def mirror_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same facts in the names of the community's embedding specification (``emb``, v0.0.1)."""
    out: dict[str, Any] = {
        "emb:type": "pixel" if fields["latent:granularity"] == "pixel" else "chip",
        "emb:dimensions": fields["latent:dimensions"],
        "data_type": fields["data_type"],
    }
    if "latent:stride" in fields:
        stride = fields["latent:stride"]
        out["emb:chip_layout"] = {"layout_type": "regular_grid", "chip_size": stride, "stride": stride}
    if fields["latent:quantization"] == "per_vector":
        out["emb:quantization"] = {
            "method": "per-vector scale (column 'scale')"
            + (", plus latent:quantization_offset" if "latent:quantization_offset" in fields else ""),
            "original_dtype": fields["latent:dtype"],
            "quantized_dtype": fields["data_type"],
        }
    return out


def _codec_links(extent: Extent, how: Mapping[str, Any], space: str) -> list[pystac.Link]:
    """Encoder of the vectors; also decoder, where there is one and rows are whole cells of the space, unchanged."""
    codecs = {
        link_href(link) or link.href: link
        for item in extent.items
        for link in (*item.get_links(DECODER_REL), *item.get_links(ENCODER_REL))
        if link.extra_fields.get("latent:space") == how["source_space"]
        and {"file:checksum", "file:size"} <= link.extra_fields.keys()
    }
    whole = how["by"] == "cell" and space == how["source_space"]
    return [
        pystac.Link(rel, href, link.media_type, link.title, extra_fields=dict(link.extra_fields))
        for href, link in codecs.items()
        for rel in ((ENCODER_REL, DECODER_REL) if whole and link.rel == DECODER_REL else (ENCODER_REL,))
    ]


def table_item(
    path: Path,
    table: Path,
    *,
    files: Sequence[TableFile],
    fields: Mapping[str, Any],
    how: Mapping[str, Any],
    extent: Extent,
) -> pystac.Item:
    """The STAC Item of a table.

    Parameters
    ----------
    path
        Where the table will lie; the Item's own href is ``<path>.json``.
    table
        Where it lies now, to be measured: a file, or a folder of tiles.
    files
        The file, or those of the tiles.
    fields
        See :func:`embedding_fields`.
    how
        What was done to the source's latents, for ``processing:expression``.
    extent
        Place, time and source Items.
    """
    moment, start, end = extent.times()
    described = [{"name": n, "type": t, "description": COLUMNS[n]} for n, t in files[0].info.columns]
    properties = {
        "latent:spaces": [fields["latent:space"]],
        "latent:kinds": ["embedding"],
        "table:columns": described,
        "table:primary_geometry": "geometry",
        "table:row_count": sum(f.info.rows for f in files),
        "processing:lineage": f"Vectors by {how['by']} from the latents of {len(extent.items)} items",
        "processing:expression": {"format": "stac-latent-publish", "expression": dict(how)},
        "processing:software": {"stac-latent": __version__},
    }
    item = pystac.Item(
        path.stem,
        json.loads(shapely.to_geojson(extent.geometry)),
        extent.bbox(),
        moment,
        properties,
        start_datetime=start,
        end_datetime=end,
        stac_extensions=list(EXTENSIONS),
    )
    own = Path(f"{path}.json").absolute()
    item.set_self_href(href_of(own))
    for file in files:
        key, inside = file.key, file.path.relative_to(table).as_posix()
        href = f"./{path.name}" if inside == "." else f"./{path.name}/{inside}"
        title = f"Vectors of tile {file.tile}" if file.tile else "Vectors"
        extra = dict(fields) | {
            "file:size": file.path.stat().st_size,
            "file:checksum": file_multihash(file.path),
        }
        extra["latent:shape"] = [file.info.rows, fields["latent:dimensions"]]
        if "latent:scale_asset" in fields:
            extra["latent:scale_asset"] = key
        asset = pystac.Asset(href, title, media_type=PARQUET, roles=["data", "latent"], extra_fields=extra)
        item.add_asset(key, asset)
    sources = [(i.get_self_href(), i.id) for i in extent.items]
    links = [
        pystac.Link("derived_from", href, "application/geo+json", name) for href, name in sources if href
    ]
    for link in (*links, *_codec_links(extent, how, fields["latent:space"])):
        link.target = relative(str(link.target), own)
        item.add_link(link)
    return item
