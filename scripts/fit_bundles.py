"""Fit the codec bundles that ship with the package; the same data give the same digests.

    python scripts/fit_bundles.py DATA [--out stac_latent/bundles] [--only NAME] [--guards]

DATA is laid out as the benchmark data (see ``stac_latent/bench/data/base.py``). Places are split: what a bundle is fitted on
is named in its card, and the figures there are of places that it never saw. Guards are calibrated on further places; with
--guards on bundles that are there, whose space stays as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import guard_tiles
import numpy as np

from stac_latent.bench.data.base import Dataset, Tile
from stac_latent.bench.data.open import open_dataset
from stac_latent.codec.bundle import load_bundle, save_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.shipped import embed_patch, fit
from stac_latent.field.validity import valid_mask
from stac_latent.fitting.lin import fit_lin
from stac_latent.quality.distortion import Distortion
from stac_latent.quality.ood_calibration import calibrated
from stac_latent.spec import Band

S2 = "Contains modified Copernicus Sentinel data; SSL4EO-S12 v1.1 (CC-BY-4.0)"
GUARDED = {"s2-10m-4b": (1, 2, 3, 7), "s2-l2a-12b": tuple(range(12))}
"""Bundles with a guard, and their bands among the twelve; of the others there are too few places."""
LANDSAT = ("blue", "green", "red", "nir08", "swir16", "swir22")


@dataclass(frozen=True)
class Recipe:
    """How one bundle is made.

    Parameters
    ----------
    dataset
        Name of the data set.
    places
        Places to fit on; all others are held out.
    bands
        Bands of the codec.
    convert
        Field of the data set to field of the codec.
    psnr
        Quality of the default step on the fitting tiles [dB].
    """

    dataset: str
    places: tuple[str, ...]
    bands: tuple[Band, ...]
    title: str
    attribution: str
    psnr: float
    limits: str
    convert: Callable[[np.ndarray], np.ndarray] = field(default=lambda x: x)
    license: str = "CC-BY-4.0"
    known_as: str = ""
    """What the places are called in the card, before their names."""


def pick(
    dataset: Dataset, names: Iterable[str]
) -> tuple[tuple[Band, ...], Callable[[np.ndarray], np.ndarray]]:
    """Bands of a data set by name, and the function that takes them out of its fields."""
    known = [b.name for b in dataset.groups[0]]
    index = [known.index(n) for n in names]
    return tuple(dataset.groups[0][i] for i in index), lambda x: x[index]


def landsat_numbers(x: np.ndarray) -> np.ndarray:
    """Reflectance times 10,000 to the numbers of Collection 2 Level 2; 0 stays nodata."""
    numbers = np.clip(np.rint((x * 1e-4 + 0.2) / 2.75e-5), 1, 65535)
    return np.where(x == 0, 0, numbers).astype(np.uint16)


def recipes(data: Path) -> dict[str, Recipe]:
    """The bundles that ship."""
    s2 = open_dataset(data, "s2")
    sites = ("0080717", "0173706")
    ten, take = pick(s2, ("B02", "B03", "B04", "B08"))
    s2_limits = "20 and 60 m bands of the fitting data were interpolated to 10 m; peak of PSNR is 10000"
    radar = open_dataset(data, "s1").groups[0]
    landsat = tuple(
        Band(n, "uint16", nodata=0, scale=2.75e-5, offset=-0.2, gsd=30, common_name=n) for n in LANDSAT
    )
    return {
        "s2-l2a-12b": Recipe("s2", sites, s2.groups[0], "Sentinel-2 L2A, 12 bands on one grid", S2, 48, s2_limits,
                             known_as="SSL4EO-S12 v1.1 site"),
        "s2-10m-4b": Recipe("s2", sites, ten, "Sentinel-2 L2A, 4 bands at 10 m", S2, 48, "peak of PSNR is 10000", take,
                            known_as="SSL4EO-S12 v1.1 site"),
        "s1-grd-db": Recipe(
            "s1", ("Ghana_53713", "Nigeria_812045", "ROIs1158_spring_101"), radar, "Sentinel-1, VV and VH in dB",
            "Contains modified Copernicus Sentinel data; Sen1Floods11 and SEN12MS-CR (CC-BY-4.0)", 36,
            "calibrated backscatter in dB, not linear power; speckle is most of what is coded; peak of PSNR is the range",
        ),
        "landsat-c2l2-6b": Recipe(
            "landsat", ("LE7022049",), landsat, "Landsat Collection 2 Level 2, 6 reflectance bands",
            "Landsat data courtesy of the U.S. Geological Survey", 48,
            "fitted on two Landsat 7 scenes whose reflectance was converted to the numbers of Collection 2; peak is 1 / scale",
            landsat_numbers, license="CC0-1.0",
        ),
        "era5-surface": Recipe(
            "era5-d2m", ("era5-d2m-month0",), (Band("t2m", "float32", nodata=float("nan"), unit="K"),),
            "ERA5, temperature or dew point at 2 m in kelvin", "Contains modified Copernicus Climate Change Service information",
            66, "fitted on one monthly mean of the dew point at 0.25 degrees, held out is another month; peak is the range; "
            "longitude is not treated as periodic",
        ),
    }  # fmt: skip


def measure(codec: Codec, tiles: list[tuple[Tile, np.ndarray]], **target: float) -> dict[str, Any]:
    """Rate and distortion over tiles."""
    d, size, samples = Distortion(codec.bands), 0, 0
    for _, x in tiles:
        data = codec.compress(x, **target)
        d.add(x, codec.decompress(data), valid_mask(x, codec.bands))
        size, samples = size + len(data), samples + x.size
    worst = None if d.max_error is None else float(f"{d.max_error:.4g}")
    angle = {} if d.sam is None else {"sam": round(d.sam, 3)}
    return {
        "bits_per_pixel": round(size * 8 / samples, 4),
        "psnr": round(d.psnr or 0, 2),
        "max_error": worst,
        **angle,
    }


def make(name: str, recipe: Recipe, dataset: Dataset) -> Codec:
    """Fit one bundle, and measure it on what it has not seen."""
    pairs = [(t, recipe.convert(t.fields[0])) for t in dataset.tiles]
    inside = [(t, x) for t, x in pairs if t.place in recipe.places]
    outside = [(t, x) for t, x in pairs if t.place not in recipe.places]
    masks = [valid_mask(x, recipe.bands) for _, x in inside]
    codec = fit_lin(
        name, lambda: zip([x for _, x in inside], masks, strict=True), recipe.bands, psnr=recipe.psnr
    )
    qualities = (recipe.psnr - 10, recipe.psnr - 4, recipe.psnr)
    curve = [measure(codec, outside, psnr=q) for q in qualities]
    about = {
        "title": f"{recipe.title}: wavelet, spectral rotations, integer contexts, rANS",
        "description": f"Closed-form codec for {recipe.title} ({', '.join(b.name for b in recipe.bands)})",
        "license": recipe.license,
        "attribution": recipe.attribution,
        "fitted_on": [f"{recipe.known_as} {p}".strip() for p in recipe.places],
        "held_out": {"places": sorted({t.place for t, _ in outside}), "tiles": len(outside), "curve": curve},
        "limits": recipe.limits,
    }
    return replace(codec, about=about)


def embedder(data: Path) -> Codec:
    """Features of 80 m patches, from a KLT and an 8 x 8 DCT of the four 10 m bands."""
    s2 = open_dataset(data, "s2")
    bands, take = pick(s2, ("B02", "B03", "B04", "B08"))
    sites = ("0080717", "0173706")
    about = {
        "title": "Sentinel-2, 4 bands at 10 m: features of 80 m patches",
        "license": "CC-BY-4.0",
        "attribution": S2,
        "fitted_on": [f"SSL4EO-S12 v1.1 site {s}" for s in sites],
    }
    base = fit(
        "base", [take(t.fields[0]) for t in s2.tiles if t.place in sites], bands, step=160.0, about=about
    )
    return embed_patch("s2-10m-embed", base, 32)


def guarded(codec: Codec, data: Path) -> Codec:
    """The codec with a guard, where there are places to calibrate it on."""
    if codec.name not in GUARDED:
        return codec
    first, second = guard_tiles.sentinel2(data, GUARDED[codec.name])
    return calibrated(codec, lambda: first, lambda: second, note=guard_tiles.ABOUT)


def main() -> None:
    """Fit, measure and write the bundles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "stac_latent" / "bundles")
    parser.add_argument("--only", help="one bundle")
    parser.add_argument(
        "--guards", action="store_true", help="calibrate the guards of the bundles in --out anew"
    )
    args = parser.parse_args()
    for name, recipe in recipes(args.data).items():
        if args.only in (None, name):
            if args.guards and name not in GUARDED:
                continue
            there = args.out / name
            codec = (
                load_bundle(there)
                if args.guards
                else make(name, recipe, open_dataset(args.data, recipe.dataset))
            )
            codec = guarded(codec, args.data)
            save_bundle(codec, args.out / name)
            print(name, codec.space, codec.chain()[-1], codec.about["held_out"])
    if args.only in (None, "s2-10m-embed") and not args.guards:
        codec = embedder(args.data)
        save_bundle(codec, args.out / codec.name)
        print(codec.name, codec.space)


if __name__ == "__main__":
    main()
