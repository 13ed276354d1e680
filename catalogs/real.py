"""Catalogues of real data from a folder of it, ready for ``stac-latent encode`` and ``stac-latent fit``.

    python catalogs/real.py DATA OUT [--only NAME ...]

DATA is laid out as the sets below ask; any of them may be absent. OUT gets ``<name>/catalog.json``, Collections, Items,
and georeferenced GeoTIFFs, one asset for each band or one of several bands as the product has it:

- ``mapchete``: three Earth Search items (STAC 1.0), reduced twelve times, whose files lost their georeferencing;
- ``ssl4eo``: SSL4EO-S12 v1.1, twelve bands, four seasons, without place and date;
- ``s2-native``: Sentinel-2 on native 10, 20 and 60 m grids (DSen2, BigEarthNet, a reduced desert tile);
- ``terramind-s2``: TerraMesh chips of twelve bands;
- ``sentinel-1``: VV and VH in dB (Sen1Floods11, SEN12MS-CR, TerraMesh RTC, BigEarthNet-MM);
- ``landsat``: surface reflectance of Landsat 7 and 8 (annual composites are left out: 8 bits, stretched);
- ``hls``, ``enmap`` (224 bands), ``dem``;
- ``era5``: ERA5 and ERA-Interim fields on latitude and longitude;
- ``boadella``, ``worldcereal``: time series of single places, clouds and all.

Where a source does not state place or date, the Item has a nominal one and says so. GDAL as rasterio brings it reads all
of them: GeoTIFF, netCDF, HDF5 and GRIB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from real_sets import others, sentinel1, sentinel2, series, weather

SETS: dict[str, Callable[[Path, Path], Path | None]] = {
    "mapchete": sentinel2.mapchete,
    "ssl4eo": sentinel2.ssl4eo,
    "s2-native": sentinel2.native,
    "terramind-s2": sentinel2.terramind,
    "sentinel-1": sentinel1.backscatter,
    "landsat": others.landsat,
    "hls": others.hls,
    "enmap": others.enmap,
    "dem": others.dem,
    "era5": weather.era5,
    "boadella": series.boadella,
    "worldcereal": series.worldcereal,
}


def main(argv: list[str] | None = None) -> int:
    """Prepare what is there; return 0, or 1 where nothing was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(SETS), metavar="NAME", help="some of the sets")
    args = parser.parse_args(argv)
    done = 0
    for name in args.only or SETS:
        made = SETS[name](args.data, args.out / name)
        print(made or f"{name}: its source is not in {args.data}: left out")
        done += made is not None
    return 0 if done else 1


if __name__ == "__main__":
    raise SystemExit(main())
