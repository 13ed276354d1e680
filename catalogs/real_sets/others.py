"""Landsat, HLS, EnMAP and elevation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from real_sets.authoring import (
    REFLECTANCE,
    Raster,
    named_bands,
    quiet,
    read,
    whole_numbers,
    write_catalog,
    write_item,
)
from real_sets.minicubes import Cube, cubes

OPTICAL = ("blue", "green", "red", "nir08", "swir16", "swir22")
ETM, OLI = (1, 2, 3, 4, 5, 7), (2, 3, 4, 5, 6, 7)
FILL = -9999
HLS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09", "B10", "B11"]


def landsat(data: Path, root: Path) -> Path | None:
    """Surface reflectance in six bands, keys as in Collection 2: blue, green, red, nir08, swir16, swir22."""
    source = data / "other_sensors"
    docs = [*_etm(source / "landsat7_stack", root), *_oli(source / "worldcereal_minicubes", root)]
    titles = {
        "landsat-7-sr": "Landsat 7 ETM+ surface reflectance, two dates of one place",
        "landsat-8-minicubes": "Landsat 8 OLI surface reflectance, minicubes of 640 m",
    }
    return write_catalog(root, "Landsat surface reflectance", docs, titles) if docs else None


def _optical(values: np.ndarray, transform: Any, sensor: str, numbers: tuple[int, ...]) -> dict[str, Raster]:
    """One asset for each band, int16 with a scale of 1e-4."""
    fields = {**REFLECTANCE, "nodata": FILL}
    return {
        name: Raster(
            values[i : i + 1],
            transform,
            [{"name": f"{sensor}_B{number}", "eo:common_name": name}],
            fields,
            ("data", "reflectance"),
        )
        for i, (name, number) in enumerate(zip(OPTICAL, numbers, strict=True))
    }


def _etm(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(source.glob("*.tif")):
        values, transform, crs = read(path, [1, 2, 3, 4, 5, 6])
        year, day = int(path.stem[9:13]), int(path.stem[13:16])
        when = str(np.datetime64(f"{year}-01-01") + (day - 1)) + "T16:00:00Z"
        note = (
            "Landsat 7 ETM+ surface reflectance of the first Collection or before, scale 1e-4 (Collection 2 has 2.75e-5 "
            "and an offset of -0.2); 16000 marks saturation and is left in. The time of day is nominal. U.S. Geological Survey."
        )
        about = {
            "platform": "landsat-7",
            "instruments": ["etm"],
            "gsd": 30,
            "description": note,
            "license": "other",
        }
        rasters = _optical(values, transform, "ETM", ETM)
        code = f"EPSG:{crs.to_epsg()}"
        yield write_item(root, "landsat-7-sr", path.stem.removesuffix("_stack"), code, when, rasters, about)


def _oli(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for cube in cubes(source, "L8_SR"):
        stack = cube.stack([f"B{n:02d}" for n in OLI])
        signed = stack.view(np.int16)  # negative reflectances were stored in 16 bits without a sign
        values = np.where((stack == 0) | (signed == -999), FILL, signed).astype(np.int16)
        clear = cube.stack(["pixel_qa"])[:, 0]
        for i, when in enumerate(cube.times):
            yield _oli_item(root, cube, i, when, values[i], clear[i])


def _oli_item(
    root: Path, cube: Cube, i: int, when: str, values: np.ndarray, qa: np.ndarray
) -> dict[str, Any]:
    note = (
        "Landsat 8 OLI surface reflectance of Collection 1, scale 1e-4 (Collection 2 has 2.75e-5 and an offset of -0.2), "
        "resampled from 30 m to 10 m by its distributor: neighbouring pixels repeat. Cloud cover is counted in pixel_qa. "
        "U.S. Geological Survey."
    )
    cloud = 100 * float(((qa >> 5) & 1).mean())
    about = {"platform": "landsat-8", "instruments": ["oli"], "gsd": 10, "eo:cloud_cover": round(cloud, 2), "description": note, "license": "other"}  # fmt: skip
    rasters = _optical(values, cube.transform, "OLI", OLI)
    quality = {"title": "pixel_qa of Collection 1"}
    rasters["pixel_qa"] = Raster(qa[None], cube.transform, [{"name": "pixel_qa"}], quality, ("data",))
    return write_item(root, "landsat-8-minicubes", f"{cube.site}-{i:03d}", cube.crs, when, rasters, about)


def hls(data: Path, root: Path) -> Path | None:
    """One chip of HLS with ten bands, taken to be those of L30."""
    docs = []
    for path in sorted((data / "other_sensors" / "hls_chip").glob("*.tif")):
        values, transform, crs = read(path)
        values = whole_numbers(values, "int16")
        fields = {"nodata": FILL, "gsd": 30}
        note = (
            "Harmonized Landsat Sentinel-2. The file names no bands; ten of them with these ranges are those of L30: seven "
            "reflectances, cirrus, and two thermal bands in 0.01 degC. Whole numbers, int16 as the product has them. The "
            "date is nominal: the file states none. NASA."
        )
        rasters = {}
        for i, (name, band) in enumerate(zip(HLS, named_bands("hls-l30", HLS), strict=True)):
            thermal = {"raster:scale": 0.01, "raster:offset": 0.0, "unit": "degC"}
            unit = thermal if name in ("B10", "B11") else REFLECTANCE
            rasters[name] = Raster(values[i : i + 1], transform, [band], {**fields, **unit})
        about = {"constellation": "hls", "gsd": 30, "description": note, "license": "other"}
        code, when = f"EPSG:{crs.to_epsg()}", "2020-07-01T00:00:00Z"
        docs.append(write_item(root, "hls-l30", path.stem, code, when, rasters, about))
    return write_catalog(root, "HLS chip", docs) if docs else None


def enmap(data: Path, root: Path) -> Path | None:
    """224 bands in one asset; those in the water vapour gap hold no data in any pixel."""
    docs = []
    for path in sorted((data / "other_sensors" / "enmap_potsdam").glob("*.tif")):
        values, transform, crs = read(path)
        with quiet(), rasterio.open(path) as src:
            texts, when = src.descriptions, src.tags()["start_time"] + "Z"
        bands = []
        for i, text in enumerate(texts):
            found = re.search(r"\(([\d.]+) Nano", text or "")
            center = {"eo:center_wavelength": round(float(found[1]) / 1000, 6)} if found else {}
            bands.append({"name": f"B{i + 1:03d}", **center})
        fields = {**REFLECTANCE, "nodata": -32768}
        raster = Raster(whole_numbers(values, "int16"), transform, bands, fields, ("data", "reflectance"))
        empty = [b["name"] for b, v in zip(bands, raster.values, strict=True) if (v == -32768).all()]
        note = f"EnMAP L2A, 32 x 32 pixels near Potsdam. No data at all in {', '.join(empty)}. DLR."
        about = {
            "platform": "enmap",
            "instruments": ["hsi"],
            "gsd": 30,
            "description": note,
            "license": "other",
        }
        code = f"EPSG:{crs.to_epsg()}"
        docs.append(write_item(root, "enmap-l2a", path.stem, code, when, {"hsi": raster}, about))
    return write_catalog(root, "EnMAP, 224 bands", docs) if docs else None


def dem(data: Path, root: Path) -> Path | None:
    """Elevation [m] at 10 m to 250 m, on UTM and geographic grids."""
    source = data / "dem_bathymetry"
    notes = {
        "terramind_colocated": "Copernicus DEM resampled to 10 m, whole metres.",
        "dem_stitcher": "Copernicus GLO-30 or NASADEM, one arc second, heights above the ellipsoid.",
        "vinschgau": "Elevation at 250 m.",
    }
    docs = []
    for folder, note in notes.items():
        for path in sorted((source / folder).rglob("*.tif")):
            if path.stem.endswith("_legacy"):
                continue  # the same place again
            with quiet(), rasterio.open(path) as src:
                nodata = src.nodata
            values, transform, crs = read(path)
            if nodata is not None and nodata < -1e30:
                values = np.where(values == np.float32(nodata), np.float32(FILL), values)
                nodata = float(FILL)
            fields = {"unit": "m"} | (
                {} if nodata is None else {"nodata": "nan" if np.isnan(nodata) else nodata}
            )
            raster = Raster(values, transform, [{"name": "elevation"}], fields)
            about = {"description": f"{note} The date is nominal.", "license": "other"}
            code = f"EPSG:{crs.to_epsg()}"
            identifier = f"{folder}-{path.stem}"
            when = "2021-01-01T00:00:00Z"
            docs.append(
                write_item(
                    root,
                    f"dem-{folder.replace('_', '-')}",
                    identifier,
                    code,
                    when,
                    {"elevation": raster},
                    about,
                )
            )
    return write_catalog(root, "Elevation", docs) if docs else None
