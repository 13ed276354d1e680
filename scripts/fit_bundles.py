"""Fit the codec bundles that ship with the package; the same data give the same digests.

    python scripts/fit_bundles.py DATA [--out stac_latent/bundles]

DATA holds ``sentinel2/ssl4eo_s12_seasons`` (SSL4EO-S12 v1.1, CC-BY-4.0, contains modified Copernicus Sentinel data).
Two sites are fitted on, one is held out: its figures go into the model card.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio

from stac_latent.bundle import save_bundle
from stac_latent.checks.metrics import Distortion
from stac_latent.codec import Codec
from stac_latent.codecs import fit
from stac_latent.spec import Band

NAMES = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
COMMON = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B8A": "nir08", "B09": "nir09",
          "B11": "swir16", "B12": "swir22"}  # fmt: skip
FIT_SITES, HELD_OUT = ("0080717", "0173706"), "0181476"
BUNDLES = {"s2-10m-4b": ("B02", "B03", "B04", "B08"), "s2-l2a-12b": tuple(NAMES)}
STEP = 160.0


def read(folder: Path, site: str, bands: tuple[str, ...]) -> list[np.ndarray]:
    """Tiles of a site, ``(band, y, x)`` uint16; their values carry no offset. Zero would be nodata."""
    index = [NAMES.index(b) for b in bands]
    out = []
    for path in sorted(folder.glob(f"*_{site}_*.tif")):
        with rasterio.open(path) as src:
            out.append(np.maximum(src.read(), 1).astype(np.uint16)[index])
    return out


def measure(codec: Codec, tiles: list[np.ndarray]) -> dict[str, float]:
    """Rate and distortion over tiles."""
    d, size, samples = Distortion(codec.bands), 0, 0
    for tile in tiles:
        data = codec.compress(tile)
        d.add(tile, codec.decompress(data))
        size, samples = size + len(data), samples + tile.size
    return {
        "bits_per_pixel": round(size * 8 / samples, 4),
        "psnr": round(d.psnr, 2),
        "max_error": d.max_error,
        "sam": round(d.sam, 3),
    }


def main() -> None:
    """Fit the bundles, and measure them on the held-out site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "stac_latent" / "bundles")
    args = parser.parse_args()
    folder = args.data / "sentinel2" / "ssl4eo_s12_seasons"
    for name, names in BUNDLES.items():
        bands = [Band(b, "uint16", nodata=0, scale=1e-4, gsd=10, common_name=COMMON.get(b)) for b in names]
        tiles = [t for site in FIT_SITES for t in read(folder, site, names)]
        codec = fit(name, tiles, bands, step=STEP)
        held_out = measure(codec, read(folder, HELD_OUT, names))
        about = {
            "title": f"Sentinel-2 L2A, {len(names)} bands: KLT, 8x8 DCT, rANS",
            "description": f"Closed-form transform codec for Sentinel-2 L2A reflectance ({', '.join(names)}) on one grid",
            "license": "CC-BY-4.0",
            "attribution": "Contains modified Copernicus Sentinel data; SSL4EO-S12 v1.1",
            "fitted_on": [f"SSL4EO-S12 v1.1 site {s}, 4 seasons" for s in FIT_SITES],
            "held_out": {"site": HELD_OUT, **held_out},
            "limits": "20 and 60 m bands of the fitting data were interpolated to 10 m; peak of PSNR is 10000",
        }
        codec = replace(codec, about=about)
        save_bundle(codec, args.out / name)
        print(name, codec.space, codec.dimensions, "channels; held out:", held_out)


if __name__ == "__main__":
    main()
