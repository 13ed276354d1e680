"""What the guard of a shipped codec flags: unseen places, and data that are none of its own.

    python benchmarks/guard.py DATA         # writes benchmarks/results/guard.json and docs/assets/guard.png

Every tile is coded at the codec's own step and scored as ``encode`` scores it. No tile is of a place that the codec was fitted
on, or the guard calibrated on. Clouds, snow and clear sky are told by the scene classification that comes with the minicubes
(at least nine tenths of a date); water by NDWI of EuroSAT chips. The cost is processor time of ``encode`` with and without the
guard; the fallback's rate is that of a scene with flagged tiles kept without loss.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import rasterio.transform
import rasterio.warp
import shapely
import zarr
from PIL import Image
from shapely.geometry import mapping
from zarr.storage import ZipStore

from stac_latent.aliases import Array
from stac_latent.bench.data.open import open_dataset
from stac_latent.bench.data.sentinel import dark
from stac_latent.catalog.encode.encode import encode
from stac_latent.codec.codec import Codec
from stac_latent.cube.open_codec import open_codec
from stac_latent.errors import GuardWarning
from stac_latent.quality.ood_calibration import guards_of, judge

ROOT = Path(__file__).parents[1]
TAKE = [1, 2, 3, 7]
CLEAR, CLOUD, SNOW = (4, 5, 6, 7), (3, 8, 9, 10), (11,)
CLOUDY_DATES = {"Boadella_2020-01-18"}
"""By eye: the whole tile is under clouds."""
KINDS = {
    "unseen": "Sentinel-2 of unseen places",
    "unseen, clear minicubes": "clear dates of an unseen field, 64 pixels",
    "water": "water chips of unseen places",
    "clouds": "clouds, shadows, cirrus",
    "snow": "snow",
    "level 1C": "Sentinel-2 before atmospheric correction",
    "resampled to 30 m": "Sentinel-2 resampled to 30 m",
    "landsat": "Landsat, reflectance x 10,000",
    "landsat numbers": "Landsat, numbers of Collection 2",
    "offset of 1000": "offset of processing baseline 04.00 left in",
    "noise": "white noise, uniform",
    "noise added": "noise of deviation 300 added",
    "bands reversed": "bands in the opposite order",
    "negative": "10,000 minus the value",
    "mirrored": "smallest plus largest minus the value",
    "rows shuffled": "rows and columns shuffled",
    "constant": "one value",
}


def unseen(data: Path) -> dict[str, Array]:
    """Tiles of the benchmark that the codec does not know, four bands."""
    s2 = open_dataset(data, "s2")
    known = ("0080717", "0173706")
    return {t.name: t.fields[0][TAKE] for t in s2.tiles if t.place not in known}


def chips(data: Path) -> dict[str, Array]:
    """EuroSAT chips that the guard was not calibrated on."""
    with ZipStore(
        data / "sentinel2" / "eurosat_l2a_chips" / "eurosat_l2a_340chips.zarr.zip", mode="r"
    ) as store:
        node = zarr.open(store, mode="r")
        array = node if isinstance(node, zarr.Array) else next(a for _, a in node.arrays())
        every = np.asarray(array[:])
    held = [k * (len(every) // 3) + i for k in range(3) for i in range(16)]
    return {f"eurosat_{i}": dark(every[i])[TAKE] for i in held}


def minicubes(data: Path) -> Iterator[tuple[str, Array, Array]]:
    """Name, four bands and classes of each date of a field."""
    sys.path.insert(0, str(ROOT / "catalogs"))
    from real_sets.series import TENS, cubes

    root = data / "sentinel2" / "worldcereal_minicubes"
    coarse = {c.site: c for c in cubes(root, "S2_L2A_20m")}
    for fine in cubes(root, "S2_L2A_10m"):
        fields, classes = fine.stack(TENS), coarse[fine.site].stack(["SCL"])[:, 0].astype(int)
        for i, (field, scl) in enumerate(zip(fields, classes, strict=True)):
            if (field > 0).all():
                yield f"{fine.site}_{i}", dark(field), scl


def tiles(data: Path) -> dict[str, dict[str, Array]]:
    """All tiles by kind."""
    out: dict[str, dict[str, Array]] = {k: {} for k in KINDS}
    for name, x in unseen(data).items():
        kind = "clouds" if name in CLOUDY_DATES else "level 1C" if name.startswith("ROIs") else "unseen"
        if name == "rastereasy":
            kind = "resampled to 30 m"
        if "eurosat" not in name:
            out[kind][name] = x
    for name, x in chips(data).items():
        green, nir = x[1].astype(float), x[3].astype(float)
        out["water" if ((green - nir) / (green + nir)).mean() > 0.2 else "unseen"][name] = x
    for name, x, scl in minicubes(data):
        for kind, classes in (("unseen, clear minicubes", CLEAR), ("clouds", CLOUD), ("snow", SNOW)):
            if np.isin(scl, classes).mean() >= 0.9:
                out[kind][name] = x
    for t in open_dataset(data, "landsat").tiles:
        x = t.fields[0][:4]
        out["landsat"][t.name] = np.maximum(x, 1).astype(np.uint16)
        out["landsat numbers"][t.name] = np.clip(np.rint((x * 1e-4 + 0.2) / 2.75e-5), 1, 65535).astype(
            np.uint16
        )
    base = {k: v for k, v in out["unseen"].items() if "ssl4eo" in k or k.startswith("Boadella_2021")}
    altered(base, out)
    return out


def altered(base: dict[str, Array], out: dict[str, dict[str, Array]]) -> None:
    """Add what was made of real tiles."""
    rng = np.random.default_rng(0)
    for name, x in base.items():
        wide = x.astype(np.int64)
        ends = wide.min(axis=(1, 2), keepdims=True) + wide.max(axis=(1, 2), keepdims=True)
        made = {
            "offset of 1000": wide + 1000,
            "noise": rng.integers(1, 10_000, x.shape),
            "noise added": wide + np.rint(rng.normal(0, 300, x.shape)).astype(int),
            "bands reversed": wide[::-1],
            "negative": 10_000 - wide,
            "mirrored": ends - wide,
            "rows shuffled": wide[:, rng.permutation(x.shape[1])][:, :, rng.permutation(x.shape[2])],
            "constant": np.full(x.shape, int(np.median(x))),
        }
        for kind, field in made.items():
            out[kind][name] = np.clip(field, 1, 65535).astype(np.uint16)


def scored(codec: Codec, found: dict[str, dict[str, Array]]) -> dict[str, list[dict[str, Any]]]:
    """Score and measures of each tile."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for kind, fields in found.items():
        rows[kind] = []
        for name, x in fields.items():
            h, w = (n // 8 * 8 for n in x.shape[1:])
            s = judge(codec, np.ascontiguousarray(x[:, :h, :w]))
            values = {k: round(getattr(s, k), 3) for k in ("score", "rate", "latent", "error")}
            rows[kind].append({"tile": name, **values})
        print(kind, len(rows[kind]), sum(r["score"] > 1 for r in rows[kind]), flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tiles, share flagged, median score and how often each measure decides."""
    scores = np.array([r["score"] for r in rows])
    flagged = [r for r in rows if r["score"] > 1]
    return {
        "tiles": len(rows),
        "flagged": len(flagged),
        "share": round(float((scores > 1).mean()), 4),
        "median_score": round(float(np.median(scores)), 3),
        "decided_by": {k: sum(r[k] == r["score"] for r in flagged) for k in ("rate", "latent", "error")},
    }


def item_of(folder: Path, field: Array) -> pystac.Item:
    """A scene as an Item."""
    transform = rasterio.Affine(10, 0, 600_000, 0, -10, 5_000_000)
    ends = rasterio.transform.array_bounds(*field.shape[1:], transform)
    box = rasterio.warp.transform_bounds("EPSG:32633", "EPSG:4326", *ends)
    item = pystac.Item("scene", mapping(shapely.box(*box)), list(box), datetime(2026, 1, 1, tzinfo=UTC), {})
    for name, layer in zip(("B02", "B03", "B04", "B08"), field, strict=True):
        path = folder / f"{name}.tif"
        profile = {
            "driver": "GTiff",
            "height": layer.shape[0],
            "width": layer.shape[1],
            "count": 1,
            "dtype": "uint16",
            "crs": "EPSG:32633",
        }
        with rasterio.open(path, "w", transform=transform, nodata=0, **profile) as dst:
            dst.write(layer, 1)
        extra = {"raster:scale": 1e-4, "data_type": "uint16", "nodata": 0}
        item.add_asset(
            name,
            pystac.Asset(str(path), media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=extra),
        )
    item.set_self_href(str(folder / "scene.json"))
    return item


def cost(codec: Codec, found: dict[str, dict[str, Array]]) -> dict[str, Any]:
    """Processor time of encode with and without the guard, and with checks; rates of fallback and of a lossless whole."""
    base = [
        x for k, x in found["unseen"].items() if x.shape[1:] == (256, 256) and k[:6] in ("ssl4eo", "Boadel")
    ][:15]
    odd = found["clouds"]["Boadella_2020-01-18"]
    rows = [np.concatenate([*base[i : i + 4]][:4], axis=2) for i in (0, 4, 8)]
    scene = np.concatenate([*rows, np.concatenate([odd, *base[12:15]], axis=2)[:, :, :1024]], axis=1)
    checks = [
        "psnr>=40",
        "ssim>=0.9",
        "sam<=5",
        "spectrum<=3",
        "dssim>=0.1",
        "quantile<=99",
        "histogram<=1",
        "mean_bias<=9",
    ]
    times: dict[str, list[float]] = {}
    rates: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", GuardWarning)
        item = item_of(Path(folder), scene)
        runs: dict[str, dict[str, Any]] = {
            "off": {"guard": "off"}, "guard": {"guard": "warn"}, "guard and eight checks": {"checks": checks},
            "fallback": {"guard": "fallback"}, "lossless": {"guard": "off", "error_bound": 0},
        }  # fmt: skip
        for k in range(3):
            for name, options in runs.items():
                began = time.process_time()
                (made,) = encode(item, codec, Path(folder) / f"{name}{k}", **options)
                times.setdefault(name, []).append(time.process_time() - began)
                fields = made.assets["latent"].extra_fields
                rates[name] = {
                    n: round(fields[f"latent:{n}"], 4)
                    for n in ("bits_per_pixel", "psnr", "ood_score", "ood_tiles", "fallback_tiles")
                    if f"latent:{n}" in fields
                }
    return {
        "scene": list(scene.shape),
        "processor_seconds": {k: round(min(v), 3) for k, v in times.items()},
        "rates": rates,
    }


def picture(found: dict[str, dict[str, Array]], rows: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Tiles of each kind with their scores, flagged ones framed in red."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    columns = 6
    fig, axes = plt.subplots(len(KINDS), columns, figsize=(9, 1.42 * len(KINDS)), layout="constrained")
    for line, kind in zip(axes, KINDS, strict=True):
        every = rows[kind]
        shown = [every[i * len(every) // columns] for i in range(columns)] if len(every) > columns else every
        for ax in line:
            ax.set_axis_off()
        for k, (ax, row) in enumerate(zip(line, shown, strict=False)):
            rgb = found[kind][row["tile"]][[2, 1, 0]].astype(float).transpose(1, 2, 0)
            top = max(3000.0, float(np.quantile(rgb, 0.98)))
            ax.imshow(np.clip(rgb / top, 0, 1)[:256:2, :256:2] ** 0.7, interpolation="nearest", aspect="auto")
            flag = row["score"] > 1
            ax.set_axis_on()
            ax.set(xticks=[], yticks=[])
            for side in ax.spines.values():
                side.set(color="red" if flag else "0.6", linewidth=2.5 if flag else 0.6)
            ax.set_title(f"{row['score']:.2f}", fontsize=7, color="red" if flag else "black", pad=2)
            if not k:
                ax.set_ylabel(kind.replace(", ", ",\n"), fontsize=7)
    fig.savefig(out, dpi=70)
    with Image.open(out) as image:
        small = image.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(out, optimize=True)


def main() -> None:
    """Score, time and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--codec", default="s2-10m-4b")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "guard.json")
    args = parser.parse_args()
    codec = open_codec(args.codec)
    (guard,) = guards_of(codec) or ()
    found = tiles(args.data)
    rows = scored(codec, found)
    own = rows["unseen"] + rows["unseen, clear minicubes"] + rows["water"]
    result = {
        "codec": codec.name,
        "space": codec.space,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "guard": {"share": guard.share, "tiles": list(guard.tiles)},
        "in_distribution": {**summary(own), "stated_share": round(1 - guard.share, 4)},
        "kinds": {k: {"title": KINDS[k], **summary(r)} for k, r in rows.items() if r},
        "cost": cost(codec, found),
        "rows": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    picture(found, rows, ROOT / "docs" / "assets" / "guard.png")
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1))


if __name__ == "__main__":
    main()
