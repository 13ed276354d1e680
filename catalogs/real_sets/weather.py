"""Reanalyses on latitude and longitude, float32, one band for each variable and level.

Global fields are periodic: they begin at 180 degrees west and end one cell short of it. Cells are centred on the grid
points, so that the first and last reach beyond the date line and the poles by half a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from real_sets.authoring import Raster, quiet, write_catalog, write_item

ECMWF = "Contains modified Copernicus Climate Change Service information."
TL31 = {"sea_surface_temperature": "sst", "sea_ice_cover": "siconc", "u_component_of_wind": "u", "v_component_of_wind": "v",
        "geopotential": "z", "temperature": "t", "specific_humidity": "q", "specific_cloud_ice_water_content": "ciwc",
        "specific_cloud_liquid_water_content": "clwc"}  # fmt: skip
UNITS = {"sst": "K", "siconc": "1", "u": "m/s", "v": "m/s", "z": "m2/s2", "t": "K", "q": "kg/kg", "ciwc": "kg/kg",
         "clwc": "kg/kg", "d2m": "K", "t2m": "K"}  # fmt: skip
PERIODIC = "Longitude is periodic."


def era5(data: Path, root: Path) -> Path | None:
    """Fields of ERA5 and ERA-Interim, from 0.25 to 5.6 degrees."""
    source = data / "weather_ocean"
    docs = [*_tl31(source / "era5", root), *_monthly(source / "era5_0p25deg", root), *_interim(source / "era_interim", root)]  # fmt: skip
    docs += [*_members(source / "era5", root), *_uk(source / "era5", root)]
    titles = {
        "era5-tl31": "ERA5 on 37 levels, 5.6 degrees, one time",
        "era5-monthly": "ERA5 2 m dew point, monthly means, 0.25 degrees",
        "era-interim": "ERA-Interim monthly climatology, 0.75 degrees",
        "era5-members": "ERA5 ensemble members, 3 degrees",
        "era5-uk": "ERA5 2 m temperature round the United Kingdom, 0.25 degrees",
    }
    return write_catalog(root, "ERA5 and ERA-Interim", docs, titles) if docs else None


def _asset(name: str, values: np.ndarray, transform: Affine, levels: Sequence[int] | None = None) -> Raster:
    """One variable; its bands are named with their levels [hPa]."""
    bands = [{"name": name if levels is None else f"{name}{lev}"} for lev in (levels or [0])]
    fields = {"unit": UNITS[name], "nodata": "nan"}
    return Raster(np.ascontiguousarray(values, np.float32), transform, bands, fields)


def _from_greenwich(values: np.ndarray) -> np.ndarray:
    """Longitudes from -180 on, of fields that begin at Greenwich."""
    return np.roll(values, values.shape[-1] // 2, axis=-1)


def _centred(step_x: float, step_y: float, west: float, north: float) -> Affine:
    """Transform whose first cell is centred on ``west`` and ``north``."""
    return Affine(step_x, 0, west - step_x / 2, 0, -step_y, north + step_y / 2)


def _about(note: str) -> dict[str, Any]:
    return {"description": f"{note} {ECMWF}", "license": "CC-BY-4.0"}


def _physical(path: str) -> np.ndarray:
    """Values ``(band, y, x)`` with scale and offset of the file applied."""
    with quiet(), rasterio.open(path) as src:
        return np.stack(
            [src.read(i + 1) * s + o for i, (s, o) in enumerate(zip(src.scales, src.offsets, strict=True))]
        )


def _tl31(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(source.glob("era5_tl31_*.nc")):
        assets = {}
        step = 2 * 85.76058712 / 31
        transform = _centred(5.625, step, -180, 85.76058712)
        for variable, name in TL31.items():
            with quiet(), rasterio.open(f"netcdf:{path}:{variable}") as src:
                values, tags = src.read(), src.tags()
            # Stored as (longitude, latitude), southernmost first.
            values = _from_greenwich(values.transpose(0, 2, 1)[:, ::-1])
            text = tags.get("NETCDF_DIM_level_VALUES")
            levels = None if text is None else [int(v) for v in text.strip("{}").split(",")]
            assets[name] = _asset(name, values, transform, levels)
        note = (
            f"ERA5 on the TL31 grid. {PERIODIC} The latitudes are Gaussian; on this grid of equal steps they are off by "
            "0.1 degrees at most."
        )
        when = f"{path.stem[10:14]}-{path.stem[14:16]}-{path.stem[16:18]}T00:00:00Z"
        yield write_item(root, "era5-tl31", path.stem, "EPSG:4326", when, assets, _about(note))


def _monthly(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(source.glob("*.nc")):
        values = _from_greenwich(_physical(f"netcdf:{path}"))
        for month, field in zip(("2000-01", "2000-07"), values, strict=True):
            asset = _asset("d2m", field[None], _centred(0.25, 0.25, -180, 90))
            note = f"Mean of a month, unpacked from 16 bits: steps of 0.0015 K. {PERIODIC}"
            identifier = f"era5-d2m-{month}"
            yield write_item(root, "era5-monthly", identifier, "EPSG:4326", f"{month}-01T00:00:00Z", {"d2m": asset}, _about(note))  # fmt: skip


def _interim(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(source.glob("*.nc")):
        stacks = {name: _physical(f"netcdf:{path}:{name}") for name in ("z", "u", "v")}
        for i, month in enumerate(("01", "07")):
            # The file's longitudes begin at -180 already.
            transform = _centred(0.75, 0.75, -180, 90)
            assets = {
                n: _asset(n, v[3 * i : 3 * i + 3], transform, [200, 500, 850]) for n, v in stacks.items()
            }
            note = f"Mean of all Januaries or Julys, unpacked from 16 bits; the year is nominal. {PERIODIC}"
            identifier = f"era-interim-{month}"
            yield write_item(root, "era-interim", identifier, "EPSG:4326", f"2000-{month}-01T00:00:00Z", assets, _about(note))  # fmt: skip


def _messages(path: Path) -> Iterator[tuple[str, int, str, np.ndarray, Affine]]:
    """Element, level [hPa], valid time, values [SI] and transform of each GRIB message."""
    with rasterio.Env(GRIB_NORMALIZE_UNITS="NO"), rasterio.open(path) as src:
        for i in range(1, src.count + 1):
            tags = src.tags(i)
            when = str(np.datetime64(int(tags["GRIB_VALID_TIME"]), "s")) + "Z"
            level = int(tags["GRIB_SHORT_NAME"].partition("-")[0])
            level //= 100 if level > 2000 else 1  # Pa in newer GDAL
            yield tags["GRIB_ELEMENT"], level, when, src.read(i), src.transform


def _members(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(source.glob("*members.grib")):
        groups: dict[tuple[str, int, str], list[np.ndarray]] = {}
        transform = Affine.identity()
        for element, level, when, values, transform in _messages(path):  # noqa: B007 - the same for all
            groups.setdefault((element, level, when), []).append(values)
        times = sorted({when for _, _, when in groups})
        for when in times:
            for member in range(min(len(v) for v in groups.values())):
                assets = {
                    e.lower(): _asset(e.lower(), np.stack([groups[e, lev, when][member] for lev in (500, 850)]), transform, [500, 850])
                    for e in ("Z", "T")
                }  # fmt: skip
                note = f"Ensemble member {member}, 500 and 850 hPa, 3 degrees. {PERIODIC}"
                identifier = f"era5-{when[:13]}-member{member}"
                yield write_item(root, "era5-members", identifier, "EPSG:4326", when, assets, _about(note))


def _uk(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(source.glob("era5-2mt-*.grib")):
        for _, _, when, values, transform in _messages(path):
            if when[11:13] not in ("00", "06", "12", "18"):
                continue
            note = "Every sixth hour. A region, not periodic."
            asset = _asset("t2m", values[None], transform)
            yield write_item(
                root, "era5-uk", f"era5-t2m-{when[:13]}", "EPSG:4326", when, {"t2m": asset}, _about(note)
            )
