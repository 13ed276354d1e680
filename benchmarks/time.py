"""Dates of a series against key frames, and each by itself, at equal PSNR: bytes of the same coder in the same run.

Every date is coded as ``encode(..., psnr=...)`` does: each tile of 256 pixels reaches the target, measured on decoded pixels.
Bytes are those of the payloads, and 8 for each tile that refers to a key frame; PSNR refers to 10,000. Key frames are chosen by
:func:`stac_latent.cube.keyframe.choose.plan_key_frames`, or are every fourth clear date. Run with::

    python benchmarks/time.py --data FOLDER         # writes benchmarks/results/time.json

FOLDER has ``sentinel2/boadella_timeseries/*.tif`` and ``sentinel2/worldcereal_minicubes/*/*.nc`` (those need h5py). The
codec is the unfitted ``lin``, which has seen none of them; ``--codec`` takes a bundle for the series of its bands.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from stac_latent.codec.codec import Codec
from stac_latent.cube.grid.tiling import tiles
from stac_latent.cube.keyframe.choose import plan_key_frames
from stac_latent.cube.keyframe.encode import ReferenceCoder
from stac_latent.cube.keyframe.gains import predict
from stac_latent.cube.open_codec import open_codec
from stac_latent.field.rate_target import Target
from stac_latent.spec import Band, Grid
from stac_latent.stages.lin.pyramid import TILE

PSNR = (38.0, 42.0, 46.0)
FINER = 1.5
"""Better by so many dB are key frames in one of the trials."""
SIDE_BYTES = 8
TEN = ("B02", "B03", "B04", "B08")
TWENTY = ("B05", "B06", "B07", "B8A", "B11", "B12")
TWELVE = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
CLEAR_CLASSES = (2, 4, 5, 6, 7)
"""Of the scene classification: all but no data, defective, shadow, cloud, cirrus, snow."""
Array = np.ndarray[Any, Any]


@dataclass
class Series:
    """Dates of one place on one grid."""

    name: str
    bands: tuple[str, ...]
    days: list[str]
    fields: list[Array]
    """uint16 ``(band, y, x)``, whole cells."""
    clear: list[bool]


class ArraySource:
    """A field as a source of pixels."""

    def __init__(self, field: Array, bands: tuple[Band, ...]) -> None:
        self.field, self.decoded = field, bands
        self.grid = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), field.shape[1:], (8, 8))

    def read(self, window: Any) -> tuple[Array, Array]:
        """Pixels of a window, all valid."""
        (y0, y1), (x0, x1) = window
        part = self.field[:, y0:y1, x0:x1]
        return part, np.ones((1, *part.shape[1:]), bool)


def boadella(folder: Path) -> Series:
    """Twelve dates; those whose median blue is above 0.15 count as cloudy (thick cloud over half of the scene)."""
    out = Series("boadella, 12 bands", TWELVE, [], [], [])
    for path in sorted(folder.glob("sentinel2/boadella_timeseries/*.tif")):
        with rasterio.open(path) as src:
            field = np.maximum(src.read(), 0).astype(np.uint16)
        out.days.append(path.stem[-10:])
        out.fields.append(field[:, : field.shape[1] // 8 * 8, : field.shape[2] // 8 * 8])
        out.clear.append(bool(np.median(field[1]) <= 1500))
    return out


def minicubes(folder: Path) -> list[Series]:
    """All acquisitions of two places of 640 m, 10 m and 20 m bands on their native grids."""
    try:
        import h5py
    except ImportError:
        print("minicubes are left out: reading them takes h5py", file=sys.stderr)
        return []
    out = []
    for place in sorted(folder.glob("sentinel2/worldcereal_minicubes/*")):
        with h5py.File(next(place.glob("S2_L2A_20m_*"))) as file:
            stamps, scl = file["timestamp"], file["SCL"][()]
            units = stamps.attrs["units"]
            start = datetime.fromisoformat(
                (units if isinstance(units, str) else units.decode()).split("since ")[1]
            )
            days = [str((start + timedelta(seconds=int(t))).date()) for t in stamps[()]]
            clear = (np.isin(scl, CLEAR_CLASSES).mean(axis=(1, 2)) >= 0.9).tolist()
        for bands, size in ((TEN, "10m"), (TWENTY, "20m")):
            for path in place.glob(f"S2_L2A_{size}_*"):
                with h5py.File(path) as file:
                    fields = np.stack([file[b][()] for b in bands], axis=1)
                out.append(Series(f"minicube {place.name[-6:]}, {size}", bands, days, list(fields), clear))
    return out


@dataclass
class Coded:
    """A date as it was coded: bytes, squared error, decoded latents of each tile."""

    size: int
    sse: float
    latents: list[Array]


class Kept:
    """A coded date as a key frame."""

    def __init__(self, latents: list[Array], columns: int) -> None:
        self.latents, self.columns = latents, columns

    def chunk(self, y: int, x: int) -> tuple[Array, int]:
        """Decoded latents of a tile."""
        return self.latents[y * self.columns + x], 1


class Coder:
    """Codes dates at a target, alone and against others."""

    def __init__(self, codec: Codec, psnr: float) -> None:
        self.plain, self.codec = codec, codec.with_target(Target(psnr=psnr))

    def code(self, field: Array, key: Coded | None = None) -> Coded:
        """Code a date tile by tile; where a key frame saves no bytes, a tile stands alone."""
        out = Coded(0, 0.0, [])
        rows, columns = (-(-n // TILE) for n in field.shape[1:])
        coder = None if key is None else ReferenceCoder(Kept(key.latents, columns), (rows, columns))  # type: ignore[arg-type]
        for i, ((y0, y1), (x0, x1)) in enumerate(tiles(field.shape[1:], (TILE, TILE))):
            pixels, place = field[:, y0:y1, x0:x1], divmod(i, columns)
            latent = self.codec.encode(pixels, upto="symbols")
            if coder is None:
                payload = self.codec.entropy_encode(latent)
            else:
                _, payload = coder.code(self.codec, latent, place, np.ones(latent.shape[1:], bool))
            decoded = self.plain.entropy_decode(payload)
            if key is not None and coder is not None and coder.gains[:, *place].any():
                decoded = decoded + predict(key.latents[i], coder.gains[:, *place])
                out.size += SIDE_BYTES
            out.latents.append(decoded)
            out.size += len(payload)
            out.sse += float(np.square(self.plain.decode(decoded).astype(np.float64) - pixels).sum())
        return out


def previous_keys(series: Series, every: int) -> list[int | None]:
    """Key frame of each date when they come one by one: the latest, and every ``every``-th clear date is one."""
    of: list[int | None] = []
    key, since = None, 0
    for i, clear in enumerate(series.clear):
        since += clear
        if key is None or (clear and since > every):
            key, since = (i, 1) if clear else (key, since)
            of.append(None)
        else:
            of.append(key)
    return of


def race(series: Series, codec: Codec) -> dict[str, Any]:
    """Bytes of each way to choose key frames, at each PSNR."""
    bands = tuple(codec.bands)
    sources = [ArraySource(f, bands) for f in series.fields]
    aimed = codec.with_target(Target(psnr=42.0))
    clear = [i for i, c in enumerate(series.clear) if c]
    only = plan_key_frames([sources[i] for i in clear], aimed, "auto").of
    ways: dict[str, list[int | None]] = {
        "auto": list(plan_key_frames(sources, aimed, "auto").of),
        "one in 6": list(plan_key_frames(sources, aimed, 6).of),
        "previous, every 4th clear": previous_keys(series, 4),
    }
    ways["auto, clear dates only"] = [None] * len(sources)
    for i, k in zip(clear, only, strict=True):
        ways["auto, clear dates only"][i] = None if k is None else clear[k]
    rows, points = [], []
    for psnr in PSNR:
        coder = Coder(codec, psnr)
        alone = [coder.code(f) for f in series.fields]
        points.append(pooled(series, alone))
        for name, of in ways.items():
            coded = [
                alone[i] if k is None else coder.code(series.fields[i], alone[k]) for i, k in enumerate(of)
            ]
            rows.append(row(name, psnr, series, of, alone, coded))
        chain: list[Coded] = []
        last = None
        for i, field in enumerate(series.fields):
            chain.append(alone[i] if last is None else coder.code(field, chain[last]))
            last = i if series.clear[i] else last
        rows.append(
            row("each against the clear date before (a chain; not offered)", psnr, series, [], alone, chain)
        )
        print(
            series.name, psnr, [(r["way"], r["share"], r["share_clear"]) for r in rows[-5:]], file=sys.stderr
        )
    rows += finer_keys(series, codec, ways["auto"], points)
    found = {
        "series": series.name,
        "dates": len(series.days),
        "clear": len(clear),
        "bands": len(series.bands),
    }
    found["shape"] = list(series.fields[0].shape[1:])
    return {
        **found,
        "key_frames": {n: sum(k is None and i in of for i, k in enumerate(of)) for n, of in ways.items()},
        "rows": rows,
    }


def finer_keys(
    series: Series, codec: Codec, of: list[int | None], points: list[tuple[int, float]]
) -> list[dict[str, Any]]:
    """Key frames coded better than the rest; ``points`` are bytes and PSNR of all dates alone, for the comparison."""
    keys = {k for k in of if k is not None}
    out = []
    for psnr in PSNR[:-1]:
        better, coder = Coder(codec, psnr + FINER), Coder(codec, psnr)
        frames = {k: better.code(series.fields[k]) for k in keys}
        coded = [
            frames[i] if i in keys else coder.code(f, None if k is None else frames[k])
            for i, (f, k) in enumerate(zip(series.fields, of, strict=True))
        ]
        size, reached = pooled(series, coded)
        same = float(np.exp(np.interp(reached, [p[1] for p in points], np.log([p[0] for p in points]))))
        out.append(
            {"way": f"auto, key frames {FINER:g} dB better, at equal PSNR of all pixels", "psnr": round(reached, 2),
             "bytes": size, "bytes_alone": round(same), "share": round(size / same, 3)}
        )  # fmt: skip
    return out


def pooled(series: Series, coded: list[Coded]) -> tuple[int, float]:
    """Bytes of all dates, and the PSNR of all their pixels."""
    n = sum(f.size for f in series.fields)
    return sum(c.size for c in coded), float(10 * np.log10(1e8 * n / sum(c.sse for c in coded)))


def row(
    name: str, psnr: float, series: Series, of: list[int | None], alone: list[Coded], coded: list[Coded]
) -> dict[str, Any]:
    """Sums over all dates and over the clear ones."""
    clear = [i for i, c in enumerate(series.clear) if c]
    sums = {
        "bytes": sum(c.size for c in coded),
        "bytes_alone": sum(c.size for c in alone),
        "bytes_clear": sum(coded[i].size for i in clear),
        "bytes_alone_clear": sum(alone[i].size for i in clear),
    }
    out = {"way": name, "psnr": psnr, **sums, "share": round(sums["bytes"] / sums["bytes_alone"], 3)}
    out["share_clear"] = round(sums["bytes_clear"] / sums["bytes_alone_clear"], 3)
    if psnr == 42.0 and name == "auto":
        out["dates"] = [
            {"day": d, "clear": c, "bytes": b.size, "bytes_alone": a.size, "reference": series.days[k] if k is not None else None}
            for d, c, b, a, k in zip(series.days, series.clear, coded, alone, of or [None] * len(alone), strict=True)
        ]  # fmt: skip
    return out


def main() -> None:
    """Run all series and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--codec", type=Path, help="bundle; default: lin without a fit")
    parser.add_argument("--only", default="", help="part of the names of the series to run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "time.json")
    args = parser.parse_args()
    started, results = time.perf_counter(), []
    for series in [boadella(args.data), *minicubes(args.data)]:
        if args.only not in series.name:
            continue
        codec = open_codec("lin", bands=[Band(b, nodata=0, scale=1e-4) for b in series.bands])
        if args.codec is not None:
            codec = open_codec(args.codec)
            if tuple(b.name for b in codec.bands) != series.bands:
                continue
        results.append(race(series, codec))
    about = {
        "codec": "lin, unfitted" if args.codec is None else codec.name,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - started),
    }
    args.out.write_text(json.dumps({"about": about, "series": results}, indent=1) + "\n")
    print(args.out)


if __name__ == "__main__":
    main()
