"""Readers of radar, other optical sensors, elevation and weather in the benchmark data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from stac_latent.bench.coder import Array
from stac_latent.bench.data.base import Dataset, Tile, cuts, read
from stac_latent.spec import Band

__all__ = ["READERS"]

_RANGE = "the range of each band in the tile"
_LANDSAT = ("blue", "green", "red", "nir08", "swir16", "swir22")
_HLS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07")


def _float_bands(*names: str) -> tuple[tuple[Band, ...], ...]:
    return (tuple(Band(n, "float32", nodata=math.nan) for n in names),)


def s1(data: Path) -> Dataset:
    """Backscatter in dB."""
    title = "Sentinel-1, VV and VH in dB"
    return Dataset("s1", title, _float_bands("VV", "VH"), tuple(_s1(data / "sentinel1")), peak=_RANGE)


def _s1(root: Path) -> Iterator[Tile]:
    for path in sorted((root / "terramind_colocated" / "S1RTC").glob("*.tif")):
        yield Tile(f"terramind_{path.stem}", path.stem, (read(path).astype(np.float32),))
    for path in sorted((root / "sen12mscr" / "s1").glob("*.tif")):
        yield Tile(path.stem, path.stem.rpartition("_")[0], (read(path).astype(np.float32),))
    for path in sorted((root / "sen1floods11").glob("*_S1Hand.tif")):
        place = path.stem.removesuffix("_S1Hand")
        yield from (Tile(place + name, place, (cut,)) for name, cut in cuts(read(path).astype(np.float32)))
    for folder in sorted((root / "bigearthnet_tiny").glob("*")):
        both = [read(folder / f"{folder.name}_{b}.tif") for b in ("VV", "VH")]
        yield Tile(f"bigearthnet_{folder.name}", folder.name, (np.concatenate(both).astype(np.float32),))


def landsat(data: Path) -> Dataset:
    """Six reflectance bands."""
    bands = tuple(Band(n, "uint16", nodata=0, scale=1e-4, gsd=30, common_name=n) for n in _LANDSAT)
    return Dataset(
        "landsat",
        "Landsat 7 at 30 m and 8 resampled to 10 m, 6 reflectance bands",
        (bands,),
        tuple(_landsat(data / "other_sensors")),
    )


def _landsat(root: Path) -> Iterator[Tile]:
    for path in sorted((root / "landsat7_stack").glob("*.tif")):
        x = read(path, bands=[1, 2, 3, 4, 5, 6])
        yield Tile(path.stem, "LE7022049", (_positive(x, -9999),))
    for path in sorted((root / "worldcereal_minicubes").glob("*/L8_SR_*.nc")):
        site = path.parent.name
        dates = np.stack([read(f"netcdf:{path}:B0{b}") for b in range(2, 8)], axis=1)
        whole = [i for i, x in enumerate(dates) if (x > 0).all()]
        for i in whole[:: max(1, len(whole) // 4)]:
            yield Tile(f"worldcereal_l8_{site}_{i}", site, (dates[i].astype(np.uint16),))


def _positive(x: Array, nodata: float) -> Array:
    """Reflectance as uint16 with 0 for nodata; other zeros and negatives become 1."""
    return np.where(x == nodata, 0, np.maximum(x, 1)).astype(np.uint16)


def hls(data: Path) -> Dataset:
    """Seven reflectance bands of one chip."""
    bands = tuple(Band(n, "int16", nodata=-9999, scale=1e-4, gsd=30) for n in _HLS)
    paths = sorted((data / "other_sensors" / "hls_chip").glob("*.tif"))
    fields = [np.rint(read(p, bands=list(range(1, 8)))).astype(np.int16) for p in paths]
    tiles = (Tile(p.stem, p.stem, (x,)) for p, x in zip(paths, fields, strict=True))
    return Dataset("hls", "HLS, 7 reflectance bands", (bands,), tuple(tiles))


def enmap(data: Path) -> Dataset:
    """All bands; the tiles are of one scene, hence the split is by block and not by place."""
    paths = sorted((data / "other_sensors" / "enmap_potsdam").glob("*.tif"))
    fields = [np.rint(read(p)).astype(np.int16) for p in paths]
    count = len(fields[0]) if fields else 0
    bands = tuple(Band(f"b{i + 1:03d}", "int16", nodata=-32768, scale=1e-4, gsd=30) for i in range(count))
    tiles = (Tile(p.stem, p.stem, (x,)) for p, x in zip(paths, fields, strict=True))
    title = "EnMAP, 224 bands, blocks of one scene"
    return Dataset(
        "enmap", title, (bands,), tuple(tiles), ("enmap_potsdam_tile_192_160", "enmap_potsdam_tile_192_64")
    )


def dem(data: Path) -> Dataset:
    """Elevation in metres."""
    tiles = tuple(_dem(data / "dem_bathymetry"))
    return Dataset("dem", "Elevation in metres", _float_bands("elevation"), tiles, peak=_RANGE)


def _dem(root: Path) -> Iterator[Tile]:
    for path in sorted((root / "dem_stitcher").glob("*_ellipsoid.tif")):
        yield from (Tile(path.stem + n, path.stem, (c,)) for n, c in cuts(_finite(read(path), None)))
    for path in sorted((root / "vinschgau").glob("*.tif")):
        yield Tile(path.stem, "vinschgau", (_finite(read(path), -1e38),))
    for path in sorted((root / "etopo40").glob("*.nc")):
        yield from (Tile(path.stem + n, "etopo40", (c,)) for n, c in cuts(_finite(read(path), -1e30)))
    for path in sorted((root / "terramind_colocated" / "DEM").glob("*.tif")):
        yield Tile(f"terramind_{path.stem}", path.stem, (_finite(read(path), None),))


def _finite(x: Array, nodata_below: float | None) -> Array:
    """float32 with NaN for nodata."""
    y = x.astype(np.float32)
    if nodata_below is not None:
        y[x < nodata_below] = np.nan
    return y


def era5(data: Path) -> Dataset:
    """Geopotential and temperature of ensemble members; the split is by time, not by place."""
    import warnings

    import rasterio

    path = data / "weather_ocean" / "era5" / "era5-levels-members.grib"
    tiles: list[Tile] = []
    times: list[str] = []
    if path.exists():
        found: dict[tuple[str, int], dict[str, int]] = {}
        with warnings.catch_warnings(), rasterio.open(path) as src:
            warnings.simplefilter("ignore")
            for i in src.indexes:
                tags = src.tags(i)
                key = f"{tags['GRIB_ELEMENT'].lower()}{tags['GRIB_SHORT_NAME'].split('-')[0]}"
                time = tags["GRIB_VALID_TIME"].strip().split()[0]
                member = sum(k[0] == time and key in v for k, v in found.items())
                found.setdefault((time, member), {})[key] = i
        names = sorted(next(iter(found.values())))
        times = sorted({t for t, _ in found})
        for (time, member), where in sorted(found.items()):
            x = read(path, bands=[where[n] for n in names]).astype(np.float32)
            tiles.append(Tile(f"{time}_member{member}", f"era5-members-{time}", (x,)))
    else:
        names = ["t500"]
    title = "ERA5, geopotential and temperature at 500 and 850 hPa, 3 degrees, split by time"
    fit = tuple(f"era5-members-{t}" for t in times[:1])
    return Dataset("era5", title, _float_bands(*names), tuple(tiles), fit, peak=_RANGE)


def era5_d2m(data: Path) -> Dataset:
    """Monthly means of the 2 m dew point, 0.25 degrees."""
    tiles: list[Tile] = []
    for path in sorted((data / "weather_ocean" / "era5_0p25deg").glob("*.nc")):
        months = read(path) * np.float64(0.001503585050080327) + 252.6088139423382
        for i, month in enumerate(months.astype(np.float32)):
            tiles += [Tile(f"month{i}{n}", f"era5-d2m-month{i}", (c,)) for n, c in cuts(month[None])]
    title = "ERA5, 2 m dew point, monthly means, 0.25 degrees"
    bands = ((Band("d2m", "float32", nodata=math.nan, unit="K"),),)
    return Dataset("era5-d2m", title, bands, tuple(tiles), peak=_RANGE)


READERS: dict[str, Callable[[Path], Dataset]] = {
    "s1": s1,
    "landsat": landsat,
    "hls": hls,
    "enmap": enmap,
    "dem": dem,
    "era5": era5,
    "era5-d2m": era5_d2m,
}
