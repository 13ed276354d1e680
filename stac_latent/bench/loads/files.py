"""A scene on disk: an Item with one raster for each band, in any format that GDAL writes; and copies of it as a series of dates."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent.bench.coder import Array
from stac_latent.extension.schemas import PROJ_URI
from stac_latent.spec import Band

__all__ = ["COG", "FORMATS", "Format", "raster_item", "scene_box", "series"]

_CRS, _ORIGIN, _RESOLUTION = "EPSG:32633", (499_840, 5_200_000), 10
_DAY = datetime(2023, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Format:
    """A way to write rasters.

    Parameters
    ----------
    name
        Shown in tables.
    driver
        Of GDAL.
    options
        Creation options.
    setting
        Creation option that sets the loss; empty for formats without loss.
    ends
        Values of the setting between which the one of a quality is sought, coarse to fine.
    """

    name: str
    driver: str
    options: Mapping[str, Any]
    setting: str = ""
    ends: tuple[float, float] = (0.0, 0.0)

    def at(self, value: float) -> dict[str, Any]:
        """Creation options at a value of the setting."""
        return dict(self.options) | ({self.setting: f"{value:.6g}"} if self.setting else {})


_OVERVIEWS = {"overview_resampling": "average"}
COG = Format("COG deflate", "COG", {**_OVERVIEWS, "compress": "deflate", "predictor": "yes"})
FORMATS = (
    COG,
    Format("COG zstd", "COG", {**_OVERVIEWS, "compress": "zstd", "predictor": "yes"}),
    Format("COG LERC", "COG", {**_OVERVIEWS, "compress": "lerc_deflate"}, "max_z_error", (2000.0, 1.0)),
    Format(
        "JPEG 2000",
        "JP2OpenJPEG",
        {"reversible": "no", "resolutions": 6, "blockxsize": 512, "blockysize": 512},
        "quality",
        (0.05, 60.0),
    ),
)
"""The peers: GeoTIFFs as they are published, and what GDAL has with loss."""


def scene_box(shape: Sequence[int]) -> GeoBox:
    """Grid of a scene of so many rows and columns."""
    transform = Affine(_RESOLUTION, 0, _ORIGIN[0], 0, -_RESOLUTION, _ORIGIN[1])
    return GeoBox((shape[-2], shape[-1]), transform, _CRS)


def raster_item(
    field: Array, bands: Sequence[Band], folder: Path, driver: str, options: Mapping[str, Any]
) -> pystac.Item:
    """Write a field as an Item with one raster for each band.

    Parameters
    ----------
    field
        ``(band, y, x)`` in the stored unit.
    bands
        Its bands.
    folder
        Where to; made where it is absent.
    driver, options
        Of GDAL, and how the rasters are created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    box = scene_box(field.shape)
    outline = box.geographic_extent
    item = pystac.Item("scene", outline.json, list(outline.boundingbox.bbox), _DAY, {})
    suffix = "jp2" if driver.startswith("JP2") else "tif"
    profile = {
        "driver": driver, "count": 1, "height": field.shape[1], "width": field.shape[2], "dtype": field.dtype.name, "crs": _CRS,
        "transform": box.affine,
    }  # fmt: skip
    for x, band in zip(field, bands, strict=True):
        path = folder / f"{band.name}.{suffix}"
        if suffix == "tif":
            profile["nodata"] = band.nodata
        with rasterio.open(path, "w", **profile, **options) as dst:
            dst.write(x, 1)
        media = pystac.MediaType.COG if suffix == "tif" else pystac.MediaType.JPEG2000
        item.add_asset(
            band.name, pystac.Asset(str(path), media_type=media, roles=["data"], extra_fields=_facts(band))
        )
    item.properties |= {
        "proj:code": _CRS,
        "proj:shape": list(field.shape[1:]),
        "proj:transform": list(box.affine)[:6],
    }
    item.stac_extensions = [PROJ_URI]
    _save(item, folder / "item.json")
    return item


def _facts(band: Band) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "data_type": band.data_type,
        "raster:scale": band.scale,
        "raster:offset": band.offset,
    }
    if band.nodata is not None:
        facts["nodata"] = "nan" if np.isnan(band.nodata) else band.nodata
    return facts


def _save(item: pystac.Item, path: Path) -> None:
    item.set_self_href(str(path))
    path.write_text(json.dumps(item.to_dict(transform_hrefs=False)), encoding="utf-8")


def series(item: pystac.Item, folder: Path, dates: int) -> list[Path]:
    """Items of so many dates, each with files of its own in name: hard links, or copies where there can be none.

    Parameters
    ----------
    item
        With its assets on the local disk.
    folder
        Where to.
    dates
        How many.
    """
    out = []
    for i in range(dates):
        one = item.clone()
        one.id, one.datetime = f"{item.id}-{i:03}", _DAY + timedelta(days=i)
        here = folder / f"{i:03}"
        here.mkdir(parents=True, exist_ok=True)
        for key, asset in item.get_assets().items():
            source = Path(asset.get_absolute_href() or asset.href)
            if not source.exists():
                continue
            target = here / source.name
            if source.is_dir():
                shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)
            elif not target.exists():
                _link(source, target)
            one.assets[key].href = str(target)
        one.clear_links()
        _save(one, here / "item.json")
        out.append(here / "item.json")
    return out


def _link(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
