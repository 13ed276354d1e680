"""Describe tables of others: which columns hold vectors, places and times, and whether the rows are cells of a grid."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pystac
import shapely

from stac_latent.catalog.adopt.description import Description, UserMetadata, asset_fields
from stac_latent.catalog.adopt.period import Period, time_of
from stac_latent.catalog.adopt.products import Product
from stac_latent.catalog.adopt.space import space_of
from stac_latent.cube.foreign_layout import CONTAINERS
from stac_latent.cube.read.embedding.table import centres, in_lonlat, regular_grid
from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError
from stac_latent.extension import ROLE_SCALES
from stac_latent.geo.crs import crs_fields, crs_text
from stac_latent.geo.extents import bbox_of, bbox_of_parts
from stac_latent.store.foreign.axes import ArrayHeader
from stac_latent.store.foreign.table import VectorTable
from stac_latent.store.geoparquet.file import parquet_at

__all__ = ["describe_table"]


def describe_table(product: Product, href: str, told: UserMetadata, base: pystac.Item | None) -> Description:
    """Fields, time and place of a table; places are read, of the vectors the first row group at most.

    Raises
    ------
    CatalogError, CorruptDataError, GridError
        As :func:`stac_latent.catalog.adopt.adopt`.
    """
    said = {**product.asset, **told.fields}
    columns = _columns(product, href, said)
    method = said.get("latent:quantization")
    scale = str(product.vector.get("scale") or "scale") if method == "per_vector" else ""
    table = VectorTable(href, columns, _position(href, said), scale)
    dimensions = table.lengths()
    found: dict[str, Any] = {"data_type": table.dtype.name, "latent:dimensions": dimensions}
    fields = asset_fields(product, told, found, ArrayHeader(), href)
    fields |= {
        "latent:columns": columns,
        "latent:shape": [table.facts.rows, dimensions],
        "latent:dim_order": ["row", "channel"],
    }
    if table.position:
        fields["latent:position"] = list(table.position)
    else:
        fields.pop("latent:position", None)
    assets = {}
    if scale:
        fields["latent:scale_asset"] = "scales"
        assets["scales"] = pystac.Asset(
            href,
            "Scales",
            media_type=CONTAINERS["parquet"],
            roles=[ROLE_SCALES],
            extra_fields={"latent:columns": [scale]},
        )
    if told.crs is not None:
        box = regular_grid(centres(table, told.crs), told.crs, href)
        fields |= {
            **crs_fields(crs_text(told.crs)),
            "proj:shape": list(box.shape.yx),
            "proj:transform": list(box.affine)[:6],
        }
    when = _when(product, href, told, table, base)
    clock = product.time.get("column")
    if when[0] < when[1] and told.when is None and base is None and clock in dict(table.facts.columns):
        fields["latent:time_column"] = clock
    polygon = _outline(table)
    fields["latent:space"] = space_of(product, href, told, {}, table.facts.footer)
    properties = {
        "table:columns": [{"name": n, "type": t} for n, t in table.facts.columns],
        "table:row_count": table.facts.rows,
    }
    if table.facts.geometry is not None:
        properties["table:primary_geometry"] = table.facts.geometry
    return Description(
        fields, when, json.loads(shapely.to_geojson(polygon)), list(bbox_of(polygon)), assets, properties
    )  # fmt: skip


def _when(
    product: Product, href: str, told: UserMetadata, table: VectorTable, base: pystac.Item | None
) -> Period:
    if (
        base is not None
        and told.when is None
        and (start := base.datetime or base.common_metadata.start_datetime)
    ):
        return start, base.datetime or base.common_metadata.end_datetime or start
    return time_of(product.time, href, table=table, given=told.when)


def _columns(product: Product, href: str, said: dict[str, Any]) -> list[str]:
    """Columns of the vectors: as told, the first of the product's names that is there, or numbered ones in their order."""
    if said.get("latent:columns"):
        return list(said["latent:columns"])
    names = list(_schema(href).names)
    if pattern := product.vector.get("pattern"):
        numbered = [n for n in names if re.match(pattern, n)]
        if numbered:
            return sorted(numbered, key=lambda n: int(re.findall(r"\d+", n)[-1]))
    if chosen := next((n for n in product.vector.get("names", ()) if n in names), None):
        return [chosen]
    wanted = pattern or ", ".join(product.vector.get("names", ())) or "any"
    raise CatalogError(
        f"{href} has no column of vectors (looked for {wanted}); it has {', '.join(names)}: name it with --columns, or "
        "fields={'latent:columns': [...]}"
    )


def _position(href: str, said: dict[str, Any]) -> list[str]:
    """Columns of coordinates, where they are stated and there; else the geometry."""
    if not said.get("latent:position"):
        return []
    wanted = list(said["latent:position"])
    schema = _schema(href)
    return wanted if set(wanted) <= set(schema.names) or b"geo" not in (schema.metadata or {}) else []


def _schema(href: str) -> Any:
    try:
        with parquet_at(href) as table:
            return table.schema_arrow
    except StacLatentError:
        raise
    except (OSError, ValueError) as exc:
        raise CorruptDataError(f"{href} is no complete Parquet file ({exc}); fetch it again") from exc


def _outline(table: VectorTable) -> Any:
    """Box round all rows in longitude and latitude; two where the shorter way leads over 180 degrees.

    Raises
    ------
    CatalogError
        If no row has a place on the Earth.
    """
    groups = table.groups(table.place_columns)
    found = [shapely.bounds(shapely.get_parts(in_lonlat(table, table.shapes(g)))) for g in groups]
    boxes = np.concatenate(found) if found else np.empty((0, 4))
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(boxes):
        raise CatalogError(f"{table.href}: no row has a place")
    earthly = boxes[(np.abs(boxes) <= (180, 90, 180, 90)).all(axis=1)]
    if not len(earthly):
        raise CatalogError(
            f"{table.href}: a row lies at longitude {boxes[0, 0]:.8g}, latitude {boxes[0, 1]:.8g}, and none on the Earth: its coordinates "
            "are no degrees, or in the other order. Write the file with its CRS (geopandas: set_crs), or name its columns of longitude and "
            "latitude (latent:position, --position lon,lat)"
        )
    west, south, east, north = bbox_of_parts(earthly)
    low, high = max(south - 1e-6, -90.0), min(north + 1e-6, 90.0)
    west, east = max(west - 1e-6, -180.0), min(east + 1e-6, 180.0)
    if west > east:
        return shapely.MultiPolygon([shapely.box(west, low, 180, high), shapely.box(-180, low, east, high)])
    return shapely.box(-180, low, 180, high) if east - west > 180 else shapely.box(west, low, east, high)
