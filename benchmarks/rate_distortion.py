"""Rate and distortion on places that no bundle was fitted on, beside JPEG 2000, in one run.

    python benchmarks/rate_distortion.py DATA

DATA holds ``sentinel2/ssl4eo_s12_seasons`` (one site is held out of the fit) and ``sentinel2/boadella_timeseries``.
Writes ``benchmarks/results/rate_distortion.json`` with every tile, and ``docs/assets/rate_distortion.png``. Peers:

- JPEG 2000 of each band, all at one rate, and of all bands with the rate allocated among them;
- JPEG 2000 of all bands after a KLT fitted on the very image, its matrix counted: the strongest classical chain.

Bytes are those of self-contained payloads: headers, tables and masks included. PSNR over all bands, peak 10000. Rates
are compared tile by tile at equal PSNR, over the tiles that every coder reaches that PSNR on: JPEG 2000 has the same
rate on every tile, the latents the same quality, and a mean over tiles of unlike PSNR would favour the latter.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from stac_latent import open_codec

mpl.use("Agg")
import matplotlib.pyplot as plt

PEAK = 10_000.0
LEVELS = (38, 40, 42, 44, 46, 48, 50)
Coder = Callable[[np.ndarray, float], tuple[int, np.ndarray]]


def tiles(data: Path) -> dict[str, np.ndarray]:
    """Tiles ``(12, y, x)`` uint16 of the held-out places."""
    found = sorted((data / "sentinel2" / "ssl4eo_s12_seasons").glob("*_0181476_*.tif"))
    found += sorted((data / "sentinel2" / "boadella_timeseries").glob("*.tif"))
    out = {}
    for path in found:
        with rasterio.open(path) as src:
            out[path.stem] = np.maximum(src.read()[:, :256, :256], 1).astype(np.uint16)
    return out


def jpeg2000(x: np.ndarray, quality: float) -> tuple[int, np.ndarray]:
    """Bytes and decoded values of a multi-component JPEG 2000; ``quality`` in percent of the raw bytes."""
    profile = {"count": x.shape[0], "height": x.shape[1], "width": x.shape[2], "dtype": x.dtype.name}
    with MemoryFile(ext=".jp2") as file:
        with file.open(driver="JP2OpenJPEG", QUALITY=str(quality), REVERSIBLE="NO", **profile) as dst:
            dst.write(x)
        size = len(file.read())
        with file.open(driver="JP2OpenJPEG") as src:
            return size, src.read()


def per_band(x: np.ndarray, quality: float) -> tuple[int, np.ndarray]:
    """JPEG 2000 of each band alone."""
    parts = [jpeg2000(band[None], quality) for band in x]
    return sum(p[0] for p in parts), np.concatenate([p[1] for p in parts])


def klt_jpeg2000(x: np.ndarray, quality: float) -> tuple[int, np.ndarray]:
    """KLT of this image, then JPEG 2000 of all components jointly."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    mean = flat.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(np.cov(flat - mean))
    matrix = vectors.T[::-1].astype(np.float32)
    components = np.clip(np.rint(matrix @ (flat - mean)), -32768, 32767).astype(np.int16).reshape(x.shape)
    size, decoded = jpeg2000(components, quality)
    back = matrix.T @ decoded.reshape(len(x), -1) + mean
    return size + matrix.nbytes + 4 * len(x), np.clip(np.rint(back), 1, 65535).reshape(x.shape)


def latents(x: np.ndarray, step: float) -> tuple[int, np.ndarray]:
    """The shipped codec at another quantiser step."""
    codec = open_codec("s2-l2a-12b", step=step)
    data = codec.compress(x)
    return len(data), codec.decompress(data)


CODERS: dict[str, tuple[Coder, tuple[float, ...]]] = {
    "s2-l2a-12b (KLT, DCT, rANS)": (latents, (60, 100, 160, 240, 360, 540, 800, 1200, 1800)),
    "KLT of the image + JPEG 2000": (klt_jpeg2000, (0.1, 0.2, 0.3, 0.5, 0.8, 1.3, 2.1, 3.4, 5.5, 9, 14)),
    "JPEG 2000, bands share the rate": (jpeg2000, (0.3, 0.5, 0.8, 1.3, 2.1, 3.4, 5.5, 9, 14)),
    "JPEG 2000, same rate for each band": (per_band, (0.3, 0.5, 0.8, 1.3, 2.1, 3.4, 5.5, 9, 14, 20)),
}


def rate_at(curve: list[dict[str, float]], psnr: float) -> float | None:
    """Rate at a PSNR, interpolated in its logarithm; None beyond the curve."""
    points = sorted((p["psnr"], np.log(p["bits_per_pixel"])) for p in curve)
    x, y = np.array(points).T
    return float(np.exp(np.interp(psnr, x, y))) if x[0] <= psnr <= x[-1] else None


def compare(rows: list[dict[str, Any]], names: list[str]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Mean rate of each coder at each PSNR over the tiles on which every coder reaches all of them, and these tiles."""
    rates: dict[tuple[str, str], list[float | None]] = {}
    for coder in CODERS:
        for name in names:
            curve = [r for r in rows if (r["coder"], r["tile"]) == (coder, name)]
            rates[coder, name] = [rate_at(curve, level) for level in LEVELS]
    common = [n for n in names if all(None not in rates[c, n] for c in CODERS)]
    mean = {c: np.mean([rates[c, n] for n in common], axis=0) for c in CODERS}
    return {c: {str(p): float(r) for p, r in zip(LEVELS, mean[c], strict=True)} for c in CODERS}, common


def main() -> None:
    """Measure, plot and write."""
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    scenes = tiles(args.data)
    every = []
    for name, (coder, knobs) in CODERS.items():
        for tile, x in scenes.items():
            for knob in knobs:
                size, decoded = coder(x, knob)
                psnr = float(10 * np.log10(PEAK**2 / np.square(decoded.astype(np.float64) - x).mean()))
                every.append(
                    {
                        "coder": name,
                        "tile": tile,
                        "knob": knob,
                        "bits_per_pixel": size * 8 / x.size,
                        "psnr": psnr,
                    }
                )
    table, used = compare(every, list(scenes))
    result = {
        "tiles": len(scenes),
        "tiles_compared": used,
        "bits_per_pixel_at_psnr": table,
        "every_tile": every,
    }
    here = Path(__file__).parent
    (here / "results" / "rate_distortion.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: result[k] for k in ("tiles_compared", "bits_per_pixel_at_psnr")}, indent=1))
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, rates in table.items():
        points = [(r, float(p)) for p, r in rates.items()]
        axes.plot(*zip(*points, strict=True), "o-", ms=4, label=name)
    axes.set(xscale="log", xlabel="bits per pixel and band", ylabel="PSNR [dB], peak 10000")
    axes.set_title(f"Sentinel-2 L2A, 12 bands, {len(used)} tiles of places unseen in the fit", fontsize=11)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    assets = here.parent / "docs" / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    figure.savefig(assets / "rate_distortion.png", dpi=120)


if __name__ == "__main__":
    main()
