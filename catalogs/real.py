"""Catalogues of real Sentinel-2 scenes from a folder of test data, ready for ``stac-latent encode``.

    python catalogs/real.py DATA OUT

DATA holds ``sentinel2/mapchete_33TWM`` (three Earth Search items, STAC 1.0, with GeoTIFFs that were reduced twelve
times and lost their georeferencing) and ``sentinel2/ssl4eo_s12_seasons`` (SSL4EO-S12 v1.1: twelve bands, four seasons,
without place and date). Either may be absent. OUT gets ``mapchete/catalog.json`` and ``ssl4eo/catalog.json``, their
Items, and georeferenced copies of the pixels.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform_geom

from stac_latent.catalog.tree import write_json

L2A = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
COMMON = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B8A": "nir08", "B09": "nir09",
          "B11": "swir16", "B12": "swir22"}  # fmt: skip
SEASONS = ("2020-01-15", "2020-04-15", "2020-07-15", "2020-10-15")
EXTENSION = "https://stac-extensions.github.io/{}/schema.json"


def write_tiff(path: Path, values: np.ndarray, crs: str, transform: Affine, nodata: float | None) -> None:
    """Write ``(band, y, x)`` as a tiled GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype, "count": count, "height": height, "width": width}
    profile |= {"crs": crs, "transform": transform, "nodata": nodata, "tiled": True, "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(values)


def write_catalog(root: Path, title: str, collection: str, docs: list[dict[str, Any]]) -> Path:
    """Write root, Collection and Items as they are (no migration); return the root's path."""
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
        kept = [link for link in doc["links"] if link["rel"] in ("canonical", "license", "derived_from")]
        doc["links"] = [far, {"rel": "parent", **near}, {"rel": "collection", **near}, *kept]
        write_json(root / collection / doc["id"] / f"{doc['id']}.json", doc)
    top = pystac.Catalog(root.name, title).to_dict(include_self_link=False)
    top["links"] = [{"rel": "child", "href": f"{collection}/collection.json", "type": "application/json"}]
    write_json(root / "catalog.json", top)
    return root / "catalog.json"


def mapchete(source: Path, root: Path) -> Path:
    """Earth Search items whose hrefs, shapes and transforms are those of the local, reduced pixels."""
    docs = []
    for path in sorted(source.glob("*/*.json")):
        doc = json.loads(path.read_text(encoding="utf-8"))
        folder = root / doc["collection"] / doc["id"]
        local = {}
        for key, asset in doc["assets"].items():
            if "proj:transform" not in asset or not (path.parent / asset["href"]).is_file():
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path.parent / asset["href"]) as src:
                    values = src.read()
            factor = asset["proj:shape"][0] / values.shape[1]
            transform = Affine(*asset["proj:transform"]) * Affine.scale(factor)
            asset |= {
                "href": f"./{key}.tif",
                "proj:shape": list(values.shape[1:]),
                "proj:transform": list(transform)[:6],
            }
            asset["gsd"] = transform.a
            for band in asset["raster:bands"]:
                band["spatial_resolution"] = transform.a
            write_tiff(folder / f"{key}.tif", values, f"EPSG:{doc['properties']['proj:epsg']}", transform, 0)
            local[key] = asset
        doc["assets"] = local
        docs.append(doc)
    return write_catalog(root, "Sentinel-2 L2A, tile 33TWM, reduced to 120 m", "sentinel-2-l2a", docs)


def ssl4eo(source: Path, root: Path) -> Path:
    """Items with nominal places and dates: the data state neither."""
    docs = []
    crs, sites = "EPSG:32631", sorted({re.split(r"[_.]", p.name)[2] for p in source.glob("*.tif")})
    for path in sorted(source.glob("*.tif")):
        site, season = re.split(r"[_.]", path.name)[2:4]
        with rasterio.open(path) as src:
            values = src.read()
        transform = Affine(10, 0, 500_000 + 10_000 * sites.index(site), 0, -10, 5_000_000)
        identifier = f"ssl4eo-{site}-{season}"
        write_tiff(root / "ssl4eo-s12" / identifier / "s2l2a.tif", values, crs, transform, None)
        docs.append(ssl4eo_item(identifier, int(season), crs, transform, values))
    return write_catalog(root, "SSL4EO-S12 v1.1, Sentinel-2 L2A, four seasons", "ssl4eo-s12", docs)


def ssl4eo_item(
    identifier: str, season: int, crs: str, transform: Affine, values: np.ndarray
) -> dict[str, Any]:
    """One Item with one asset of twelve bands."""
    count, height, width = values.shape
    corners = [transform @ xy for xy in ((0, height), (width, height), (width, 0), (0, 0), (0, height))]
    polygon = {"type": "Polygon", "coordinates": [[list(xy) for xy in corners]]}
    geometry = json.loads(json.dumps(transform_geom(crs, "OGC:CRS84", polygon)))
    xs, ys = zip(*geometry["coordinates"][0], strict=True)
    names = L2A[:count]
    bands = [{"name": b} | ({"eo:common_name": COMMON[b]} if b in COMMON else {}) for b in names]
    asset = {
        "href": "./s2l2a.tif", "type": "image/tiff; application=geotiff", "roles": ["data", "reflectance"],
        "bands": bands, "data_type": values.dtype.name, "raster:scale": 1e-4, "raster:offset": 0.0,
    }  # fmt: skip
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": identifier, "collection": "ssl4eo-s12",
        "stac_extensions": [EXTENSION.format(e) for e in ("projection/v2.0.0", "raster/v2.0.0", "eo/v2.0.0")],
        "geometry": geometry, "bbox": [min(xs), min(ys), max(xs), max(ys)],
        "properties": {
            "datetime": f"{SEASONS[season]}T00:00:00Z", "gsd": 10, "constellation": "sentinel-2",
            "description": "Place and date are nominal: the source states neither.",
            "proj:code": crs, "proj:shape": [height, width], "proj:transform": list(transform)[:6],
        },
        "links": [], "assets": {"s2l2a": asset},
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Prepare what is there; return 0, or 1 where nothing was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(argv)
    done = 0
    for name, make in (("mapchete_33TWM", mapchete), ("ssl4eo_s12_seasons", ssl4eo)):
        source = args.data / "sentinel2" / name
        if source.is_dir():
            print(make(source, args.out / name.split("_")[0]))
            done += 1
        else:
            print(f"{source} is not there: left out")
    return 0 if done else 1


if __name__ == "__main__":
    raise SystemExit(main())
