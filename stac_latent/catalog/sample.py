"""The real Sentinel-2 sample that the spyndex wheel carries, as an ordinary STAC Item with GeoTIFFs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import pystac
import rasterio
from affine import Affine
from rasterio.warp import transform_geom

from stac_latent.catalog.tree import write_json
from stac_latent.errors import CatalogError
from stac_latent.extension.schemas import EO_URI, PROJ_URI, RASTER_URI

__all__ = ["sample_item"]

_BANDS = (("B02", "blue", 0.49), ("B03", "green", 0.56), ("B04", "red", 0.665), ("B08", "nir", 0.842))
_CRS, _ORIGIN, _RESOLUTION = "EPSG:32618", (600_000.0, 4_500_020.0), 10.0


def sample_item(folder: Path) -> pystac.Item:
    """Write the sample as four GeoTIFFs and ``item.json``, and return the Item that describes them.

    300 x 300 pixels, bands B02, B03, B04 and B08, surface reflectance times 10,000. The wheel states neither place
    nor date of the scene: the Item has a nominal position in UTM zone 18N and a nominal date, and says so.

    Parameters
    ----------
    folder
        Where the files go; made if need be.

    Raises
    ------
    CatalogError
        If spyndex is not installed.
    """
    try:
        text = (files("spyndex") / "data" / "S2_10m.json").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as exc:
        raise CatalogError(f"the sample comes from the spyndex wheel: {exc}; pip install spyndex") from exc
    # spyndex calls the axes (band, x, y); read as (band, y, x) the scene is only mirrored about its diagonal.
    values = np.asarray(json.loads(text), np.uint16)
    folder.mkdir(parents=True, exist_ok=True)
    shape = values.shape[1:]
    transform = Affine(_RESOLUTION, 0, _ORIGIN[0], 0, -_RESOLUTION, _ORIGIN[1])
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 1,
        "height": shape[0],
        "width": shape[1],
        "crs": _CRS,
    }
    profile |= {"transform": transform, "nodata": 0, "compress": "deflate", "predictor": 2, "tiled": True}
    for (name, _, _), layer in zip(_BANDS, values, strict=True):
        with rasterio.open(folder / f"{name}.tif", "w", **profile, blockxsize=256, blockysize=256) as dst:
            dst.write(layer, 1)
    return _describe(folder, shape, transform)


def _describe(folder: Path, shape: tuple[int, ...], transform: Affine) -> pystac.Item:
    left, top = _ORIGIN
    right, bottom = left + shape[1] * _RESOLUTION, top - shape[0] * _RESOLUTION
    ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
    geometry = json.loads(
        json.dumps(transform_geom(_CRS, "OGC:CRS84", {"type": "Polygon", "coordinates": [ring]}))
    )
    xs, ys = zip(*geometry["coordinates"][0], strict=True)
    item = pystac.Item(
        id="spyndex-s2-sample",
        geometry=geometry,
        bbox=[min(xs), min(ys), max(xs), max(ys)],
        datetime=datetime(2020, 1, 1, tzinfo=UTC),
        properties={
            "title": "Sentinel-2 L2A sample of the spyndex package",
            "description": "Real 10 m reflectance; position and date are nominal, the source states neither.",
            "constellation": "sentinel-2",
            "gsd": 10,
            "proj:code": _CRS,
            "proj:shape": list(shape),
            "proj:transform": list(transform)[:6],
        },
        stac_extensions=[PROJ_URI, RASTER_URI, EO_URI],
    )
    for name, common, wavelength in _BANDS:
        band = {"name": name, "eo:common_name": common, "eo:center_wavelength": wavelength}
        fields = {
            "bands": [band],
            "data_type": "uint16",
            "nodata": 0,
            "raster:scale": 0.0001,
            "raster:offset": 0.0,
        }
        item.add_asset(
            name,
            pystac.Asset(
                str((folder / f"{name}.tif").absolute()),
                media_type=pystac.MediaType.COG,
                roles=["data"],
                extra_fields=fields,
            ),
        )
    path = (folder / "item.json").absolute()
    item.set_self_href(str(path))
    doc = item.to_dict(include_self_link=False, transform_hrefs=False)
    for asset in doc["assets"].values():
        asset["href"] = "./" + Path(asset["href"]).name
    write_json(path, doc)
    return item
