"""Sentinel-2: whole tiles reduced, chips on one grid, and bands on their native 10, 20 and 60 m grids."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from affine import Affine

from real_sets.authoring import (
    COPERNICUS,
    L2A,
    NOMINAL,
    REFLECTANCE,
    Raster,
    read,
    s2_bands,
    whole_numbers,
    write_catalog,
    write_item,
    write_tiff,
)

SEASONS = ("2020-01-15", "2020-04-15", "2020-07-15", "2020-10-15")
UINT16 = {**REFLECTANCE, "nodata": 0}
ROLES = ("data", "reflectance")
S2 = {"constellation": "sentinel-2", "instruments": ["msi"]}
TERRAMIND_DATES = {"282D_485L_3_3": "2021-07-23T13:22:41Z", "433D_629L_3_1": "2020-04-08T14:37:29Z", "609U_541L_3_0": "2020-01-11T16:46:49Z"}  # fmt: skip


def mapchete(data: Path, root: Path) -> Path | None:
    """Earth Search items whose hrefs, shapes and transforms are those of the local, reduced pixels."""
    docs = []
    for path in sorted((data / "sentinel2" / "mapchete_33TWM").glob("*/*.json")):
        doc = json.loads(path.read_text(encoding="utf-8"))
        folder = root / doc["collection"] / doc["id"]
        local = {}
        for key, asset in doc["assets"].items():
            if "proj:transform" not in asset or not (path.parent / asset["href"]).is_file():
                continue
            values, _, _ = read(path.parent / asset["href"])
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
    return write_catalog(root, "Sentinel-2 L2A, tile 33TWM, reduced to 120 m", docs) if docs else None


def ssl4eo(data: Path, root: Path) -> Path | None:
    """Items with nominal places and dates: the data state neither."""
    docs = []
    paths = sorted((data / "sentinel2" / "ssl4eo_s12_seasons").glob("*.tif"))
    sites = sorted({re.split(r"[_.]", p.name)[2] for p in paths})
    for path in paths:
        site, season = re.split(r"[_.]", path.name)[2:4]
        transform = Affine(10, 0, 500_000 + 10_000 * sites.index(site), 0, -10, 5_000_000)
        raster = Raster(read(path)[0], transform, s2_bands(L2A), REFLECTANCE, ROLES)
        about = {"gsd": 10, "constellation": "sentinel-2", "description": NOMINAL}
        when = f"{SEASONS[int(season)]}T00:00:00Z"
        identifier = f"ssl4eo-{site}-{season}"
        docs.append(write_item(root, "ssl4eo-s12", identifier, "EPSG:32631", when, {"s2l2a": raster}, about))
    return write_catalog(root, "SSL4EO-S12 v1.1, Sentinel-2 L2A, four seasons", docs) if docs else None


def native(data: Path, root: Path) -> Path | None:
    """Bands on the grids that they were measured on, one asset for each, in three Collections."""
    docs = [*_dsen2(data / "sentinel2" / "dsen2_multires", root), *_bigearthnet(data / "sentinel2" / "bigearthnet_tiny", root)]  # fmt: skip
    docs += _desert(data / "sentinel2" / "S2A_29RKH_20200219_0_L2A_COG", root)
    titles = {
        "dsen2-l1c": "Sentinel-2 L1C, part of tile 33UUB at 10, 20 and 60 m (DSen2)",
        "bigearthnet-s2": "BigEarthNet, Sentinel-2 L2A patches at 10, 20 and 60 m",
        "sentinel-2-29rkh": "Sentinel-2 L2A, tile 29RKH, 20 and 60 m bands reduced ten times",
    }
    return write_catalog(root, "Sentinel-2 on native grids", docs, titles) if docs else None


def _band_asset(values: Any, transform: Affine, name: str, gsd: float) -> Raster:
    return Raster(values, transform, s2_bands([name]), {**UINT16, "gsd": gsd}, ROLES)


def _dsen2(source: Path, root: Path) -> list[dict[str, Any]]:
    groups = {
        10: ["B02", "B03", "B04", "B08"],
        20: ["B05", "B06", "B07", "B8A", "B11", "B12"],
        60: ["B01", "B09"],
    }
    docs = []
    for path in sorted(source.glob("*.mat")):
        assets = {}
        for gsd, names in groups.items():
            # MATLAB stores columns first, and GDAL gives the axes as they are stored.
            stack = whole_numbers(read(f'HDF5:"{path}"://im{gsd}')[0].transpose(0, 2, 1), "uint16")
            transform = Affine(gsd, 0, 300_000, 0, -gsd, 6_200_040)
            assets |= {n: _band_asset(stack[i : i + 1], transform, n, gsd) for i, n in enumerate(names)}
        note = (
            "Top of atmosphere (L1C); 6 km x 6 km of tile 33UUB. Where in the tile is not stated: the corner is nominal, "
            f"that of the tile. The time of day is nominal. {COPERNICUS}"
        )
        about = {**S2, "gsd": 10, "description": note, "license": "other"}
        docs.append(
            write_item(root, "dsen2-l1c", path.stem, "EPSG:32633", "2017-05-27T10:00:00Z", assets, about)
        )
    return docs


def _bigearthnet(source: Path, root: Path) -> list[dict[str, Any]]:
    docs = []
    for folder in sorted(p for p in source.glob("S2*") if p.is_dir()):
        assets = {}
        for name in L2A:
            values, transform, crs = read(folder / f"{folder.name}_{name}.tif")
            assets[name] = _band_asset(values, transform, name, transform.a)
        day = re.search(r"_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)_", folder.name)
        if day is None:
            continue
        when = "{}-{}-{}T{}:{}:{}Z".format(*day.groups())
        note = f"Surface reflectance (L2A), a patch of 1.2 km, native grids. {COPERNICUS}"
        about = {**S2, "gsd": 10, "description": note, "license": "CDLA-Permissive-1.0"}
        code = f"EPSG:{crs.to_epsg()}"
        docs.append(write_item(root, "bigearthnet-s2", folder.name, code, when, assets, about))
    return docs


def _desert(source: Path, root: Path) -> list[dict[str, Any]]:
    assets: dict[str, Raster] = {}
    for path in sorted(source.glob("*.tif")):
        values, transform, _ = read(path)
        if path.stem == "SCL":
            fields = {"nodata": 0, "gsd": transform.a, "title": "Scene classification"}
            assets["SCL"] = Raster(values, transform, [{"name": "SCL"}], fields, ("data",))
        else:
            assets[path.stem] = _band_asset(values, transform, path.stem, transform.a)
    if not assets:
        return []
    note = (
        "Surface reflectance (L2A) of a desert; 20 m bands reduced to 200 m, 60 m bands to 600 m, as overviews give them. "
        f"The time of day is nominal. {COPERNICUS}"
    )
    about = {**S2, "gsd": 200, "description": note, "license": "other"}
    when = "2020-02-19T11:00:00Z"
    return [
        write_item(root, "sentinel-2-29rkh", "S2A_29RKH_20200219_0_L2A", "EPSG:32629", when, assets, about)
    ]


def terramind(data: Path, root: Path) -> Path | None:
    """Three chips of twelve bands on one 10 m grid, with their places and times."""
    docs = []
    for path in sorted((data / "sentinel2" / "terramind_colocated" / "S2L2A").glob("*.tif")):
        values, transform, crs = read(path)
        note = f"Surface reflectance (L2A); 20 and 60 m bands interpolated to 10 m. {COPERNICUS}"
        about = {**S2, "gsd": 10, "description": note, "license": "CC-BY-SA-4.0"}
        raster = Raster(values, transform, s2_bands(L2A), REFLECTANCE, ROLES)
        code, when = f"EPSG:{crs.to_epsg()}", TERRAMIND_DATES[path.stem]
        docs.append(write_item(root, "terramesh-s2l2a", path.stem, code, when, {"s2l2a": raster}, about))
    return write_catalog(root, "TerraMesh chips, Sentinel-2 L2A", docs) if docs else None
