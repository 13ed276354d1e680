"""Static STAC catalogues with georeferenced GeoTIFFs beside the Items."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform_geom

from stac_latent.catalog.files.sensors import open_sensors
from stac_latent.catalog.tree import write_json

L2A = [
    name for name, band in open_sensors("sentinel-2-l2a")[0].bands.items() if band["kind"] == "reflectance"
]
REFLECTANCE = {"raster:scale": 1e-4, "raster:offset": 0.0}
NOMINAL = "Place and date are nominal: the source states neither."
COPERNICUS = "Contains modified Copernicus Sentinel data."
EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
_LINKS = ("canonical", "license", "derived_from")


@dataclass(frozen=True)
class Raster:
    """What becomes one asset.

    Parameters
    ----------
    values
        ``(band, y, x)``, written as they are.
    transform
        Of the pixels.
    bands
        Band Objects; names suffice.
    fields
        Further fields of the asset: ``nodata``, ``raster:scale``, ``unit``, ``title`` ...
    roles
        Of the asset.
    """

    values: np.ndarray
    transform: Affine
    bands: list[dict[str, Any]]
    fields: Mapping[str, Any]
    roles: tuple[str, ...] = ("data",)


def named_bands(sensor: str, names: list[str]) -> list[dict[str, Any]]:
    """Band Objects of a sensor: names and common names."""
    (known,) = open_sensors(sensor)
    common = {b: known.bands[b].get("eo:common_name") for b in names}
    return [{"name": b} | ({} if c is None else {"eo:common_name": c}) for b, c in common.items()]


def s2_bands(names: list[str]) -> list[dict[str, Any]]:
    """Band Objects of Sentinel-2."""
    return named_bands("sentinel-2-l2a", names)


def read(path: Path | str, index: list[int] | int | None = None) -> tuple[np.ndarray, Affine, Any]:
    """Values ``(band, y, x)``, transform and CRS of a raster that GDAL opens."""
    with quiet(), rasterio.open(path) as src:
        values = src.read(index)
        return (values if values.ndim == 3 else values[None]), src.transform, src.crs


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings on files without georeferencing: their Items say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def whole_numbers(values: np.ndarray, dtype: str) -> np.ndarray:
    """Integers that a file holds as floats; refused where a value would change."""
    out = values.astype(dtype)
    if not np.array_equal(out, values):
        raise ValueError(f"the values are not all {dtype}")
    return out


def write_tiff(path: Path, values: np.ndarray, crs: str, transform: Affine, nodata: float | None) -> None:
    """Write ``(band, y, x)`` as a tiled GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype, "count": count, "height": height, "width": width}
    profile |= {"crs": crs, "transform": transform, "nodata": nodata, "tiled": True, "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(values)


def write_item(
    folder: Path,
    collection: str,
    identifier: str,
    crs: str,
    when: str,
    rasters: Mapping[str, Raster],
    properties: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the pixels of an Item below ``folder`` and describe it.

    Parameters
    ----------
    folder
        Root of the catalogue.
    collection, identifier
        Ids.
    crs
        As ``proj:code``.
    when
        RFC 3339.
    rasters
        By asset key.
    properties
        More properties: ``description``, ``gsd``, ``constellation`` ...
    """
    assets: dict[str, Any] = {}
    for key, raster in rasters.items():
        fields = dict(raster.fields)
        nodata = fields.get("nodata")
        number = None if nodata is None else float(nodata)
        write_tiff(
            folder / collection / identifier / f"{key}.tif", raster.values, crs, raster.transform, number
        )
        assets[key] = {
            "href": f"./{key}.tif", "type": "image/tiff; application=geotiff", "roles": list(raster.roles),
            "bands": raster.bands, "data_type": raster.values.dtype.name,
            "proj:shape": list(raster.values.shape[1:]), "proj:transform": list(raster.transform)[:6], **fields,
        }  # fmt: skip
    geometry, bbox = footprint(crs, next(iter(rasters.values())))
    text = json.dumps(assets)
    used = {"projection/v2.0.0": True, "raster/v2.0.0": '"raster:' in text, "eo/v2.0.0": '"eo:' in text + json.dumps(dict(properties))}  # fmt: skip
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": identifier, "collection": collection,
        "stac_extensions": [EXTENSION.format(name) for name, there in used.items() if there],
        "geometry": geometry, "bbox": bbox,
        "properties": {"datetime": when, **properties, "proj:code": crs}, "links": [], "assets": assets,
    }  # fmt: skip


def footprint(crs: str, raster: Raster) -> tuple[dict[str, Any], list[float]]:
    """Polygon and box in degrees; what reaches beyond the poles or the date line is cut off."""
    height, width = raster.values.shape[1:]
    corners = [
        raster.transform @ xy for xy in ((0, height), (width, height), (width, 0), (0, 0), (0, height))
    ]
    if crs == "EPSG:4326":
        ring = [[min(180.0, max(-180.0, x)), min(90.0, max(-90.0, y))] for x, y in corners]
        geometry = {"type": "Polygon", "coordinates": [ring]}
    else:
        polygon = {"type": "Polygon", "coordinates": [[list(xy) for xy in corners]]}
        geometry = json.loads(json.dumps(transform_geom(crs, "OGC:CRS84", polygon)))
    xs, ys = zip(*geometry["coordinates"][0], strict=True)
    return geometry, [min(xs), min(ys), max(xs), max(ys)]


def write_catalog(
    root: Path, title: str, docs: list[dict[str, Any]], titles: Mapping[str, str] | None = None
) -> Path:
    """Write root, Collections and Items as they are (no migration); return the root's path.

    ``titles`` are those of the Collections, where they differ from the catalogue's.
    """
    top = pystac.Catalog(root.name, title).to_dict(include_self_link=False)
    top["links"] = []
    for collection in dict.fromkeys(doc["collection"] for doc in docs):
        mine = [doc for doc in docs if doc["collection"] == collection]
        _write_collection(root, collection, (titles or {}).get(collection, title), mine)
        link = {"rel": "child", "href": f"{collection}/collection.json", "type": "application/json"}
        top["links"].append(link)
    write_json(root / "catalog.json", top)
    return root / "catalog.json"


def _write_collection(root: Path, collection: str, title: str, docs: list[dict[str, Any]]) -> None:
    items = [pystac.Item.from_dict(copy.deepcopy(doc)) for doc in docs]
    whole = pystac.Collection(
        collection, title, pystac.Extent.from_items(items), title=title, license="other"
    )
    up = {"href": "../catalog.json", "type": "application/json"}
    links = [
        {"rel": "item", "href": f"{d['id']}/{d['id']}.json", "type": "application/geo+json"} for d in docs
    ]
    node = whole.to_dict(include_self_link=False)
    node["links"] = [{"rel": "root", **up}, {"rel": "parent", **up}, *links]
    write_json(root / collection / "collection.json", node)
    for doc in docs:
        near = {"href": "../collection.json", "type": "application/json"}
        far = {"rel": "root", "href": "../../catalog.json", "type": "application/json"}
        kept = [link for link in doc["links"] if link["rel"] in _LINKS]
        doc["links"] = [far, {"rel": "parent", **near}, {"rel": "collection", **near}, *kept]
        write_json(root / collection / doc["id"] / f"{doc['id']}.json", doc)
