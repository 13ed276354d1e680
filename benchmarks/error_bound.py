"""Bytes at an equal error bound: any chain with a residual, beside coders that bound their error or have none.

Each coder codes the same tiles; what it decodes to is checked against the bound, pixel by pixel, and tiles that break it are
counted. Coders of images without loss take part at wider bounds behind a quantiser of step ``2 eps + 1``, as is usual. Relative bounds are
those of each value; coders of absolute bounds get logarithms. Places that a codec was fitted on are left out. Run with::

    python benchmarks/error_bound.py DATA       # writes benchmarks/results/error_bound.json
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from stac_latent import open_codec
from stac_latent.aliases import Array
from stac_latent.bench.data.base import split, thinned
from stac_latent.bench.data.open import open_dataset
from stac_latent.codec.codec import Codec
from stac_latent.field.error_bound import ErrorBound
from stac_latent.spec import Band

Result = tuple[int, Array]
"""Bytes, and what they decode to."""
OUT = Path(__file__).parent / "results" / "error_bound.json"
COARSE = 64


@dataclass(frozen=True)
class Case:
    """Tiles of one kind, a codec for them, and bounds."""

    name: str
    dataset: str
    codec: Callable[[tuple[Band, ...]], Codec]
    bounds: tuple[float | str, ...]
    power: bool = False
    """From dB to linear power first."""


def _named(name: str) -> Callable[[tuple[Band, ...]], Codec]:
    return lambda _bands: open_codec(name)


def _any(unit: float, step: float) -> Callable[[tuple[Band, ...]], Codec]:
    return lambda bands: open_codec("lin", bands=list(bands), unit=unit, step=step)


WHOLE = (0, 1, 4, 16, 64)
SHARES = ("0.1%", "1%", "10%")
CASES = (
    Case("Sentinel-2, 12 bands, uint16", "s2", _named("s2-l2a-12b"), (*WHOLE, *SHARES)),
    Case("Landsat, 6 bands, uint16", "landsat", _named("landsat-c2l2-6b"), (*WHOLE, *SHARES)),
    Case("Sentinel-1 in dB, float32", "s1", _named("s1-grd-db"), (0, 0.01, 0.1, 0.5)),
    Case("Sentinel-1, power, float32", "s1", _any(1e-3, 64), SHARES, power=True),
    Case("Elevation in m, float32", "dem", _any(0.1, 64), (0, 0.1, 1, 10)),
    Case("ERA5 dew point in K, float32", "era5-d2m", _named("era5-surface"), (0, 0.01, 0.1, 0.5, *SHARES)),
)


# -- ours ------------------------------------------------------------------------------------------------------------


def _ours(codec: Codec, x: Array, bound: float | str, base: str) -> Result:
    target: dict[str, float] = {}
    tail: Any = codec.tail
    first: Any = codec.stages[0]
    if base == "coarse":
        own = tail.step * float(np.median(first.unit))
        median = float(np.median(np.abs(x)))
        eps = float(bound[:-1]) / 100 * median if isinstance(bound, str) else bound
        target = {"step": max(COARSE * (2 * eps + (x.dtype.kind != "f")), own * COARSE)}
    data = codec.compress(x, error_bound=bound, **target)
    return len(data), codec.decompress(data)


# -- peers -----------------------------------------------------------------------------------------------------------


def _absolute(x: Array, bound: float | str) -> tuple[Array, float, Callable[[Array], Array]]:
    """A float32 array and an absolute bound that stand for this one, and the way back."""
    whole = x.dtype.kind != "f"

    def back(y: Array) -> Array:
        return (
            np.clip(np.rint(y), np.iinfo(x.dtype).min, np.iinfo(x.dtype).max).astype(x.dtype)
            if whole
            else y.astype(x.dtype)
        )

    if not isinstance(bound, str):
        return x.astype(np.float32), max(bound, 0.49) if whole else bound, back
    share = float(bound[:-1]) / 100
    logs = np.log2(np.maximum(x, 1e-30).astype(np.float64)).astype(np.float32)
    return logs, float(np.log2(1 + share)) * (1 - 1e-3), lambda y: back(np.exp2(y.astype(np.float64)))


def _sz3(x: Array, bound: float | str) -> Result:
    y, eps, back = _absolute(x, bound)
    data = imagecodecs.sz3_encode(y, mode="abs", abs=eps)
    return len(data), back(imagecodecs.sz3_decode(data, shape=y.shape, dtype=np.float32))


def _sperr(x: Array, bound: float | str) -> Result:
    y, eps, back = _absolute(x, bound)
    shaped = y if len(y) > 1 else y[0]
    data = imagecodecs.sperr_encode(shaped, eps, "pwe")
    return len(data), back(imagecodecs.sperr_decode(data).reshape(x.shape))


def _zfp(x: Array, bound: float | str) -> Result:
    y, eps, back = _absolute(x, bound)
    data = imagecodecs.zfp_encode(y, level=eps, mode="a")
    return len(data), back(imagecodecs.zfp_decode(data).reshape(x.shape))


def _lerc(x: Array, bound: float | str) -> Result:
    y, eps, back = (x, bound, lambda v: v) if not isinstance(bound, str) else _absolute(x, bound)
    parts = [imagecodecs.lerc_encode(np.ascontiguousarray(b), level=eps, compression="zstd") for b in y]
    return sum(map(len, parts)), back(np.stack([imagecodecs.lerc_decode(p) for p in parts]))


def _levels(x: Array, bound: float | str) -> tuple[Array, Callable[[Array], Array]]:
    if isinstance(bound, str) or x.dtype.kind == "f":
        raise TypeError("of whole numbers and absolute bounds")
    step = 2 * int(bound) + 1
    return ((x.astype(np.int64) + int(bound)) // step).astype(x.dtype), lambda q: np.minimum(
        q.astype(np.int64) * step, np.iinfo(x.dtype).max
    ).astype(x.dtype)


def _by_band(encode: Callable[[Array], bytes], decode: Callable[[bytes], Array]) -> Callable[..., Result]:
    def run(x: Array, bound: float | str) -> Result:
        q, back = _levels(x, bound)
        parts = [encode(np.ascontiguousarray(b)) for b in q]
        return sum(map(len, parts)), back(np.stack([decode(p) for p in parts]))

    return run


def _jpegls(x: Array, bound: float | str) -> Result:
    if isinstance(bound, str) or x.dtype.kind == "f":
        raise TypeError("of whole numbers and absolute bounds")
    parts = [imagecodecs.jpegls_encode(np.ascontiguousarray(b), level=int(bound)) for b in x]
    return sum(map(len, parts)), np.stack([imagecodecs.jpegls_decode(p) for p in parts])


def _zstd(x: Array, bound: float | str) -> Result:
    if x.dtype.kind != "f":
        q, back = _levels(x, bound)
    elif bound == 0:
        q, back = x, lambda v: v
    else:
        raise TypeError("floats without loss alone")
    codec = open_codec("zstd", bands=[Band(f"b{i}", x.dtype.name) for i in range(len(x))], effort=19)
    data = codec.encode(q)
    return len(data), back(codec.decode(data))


def _pcodec(x: Array, bound: float | str) -> Result:
    if x.dtype.kind != "f" or bound != 0:
        raise TypeError("floats without loss alone")
    data = imagecodecs.pcodec_encode(x)
    return len(data), imagecodecs.pcodec_decode(data, shape=x.shape, dtype=x.dtype)


PEERS: dict[str, Callable[[Array, float | str], Result]] = {
    "SZ3": _sz3,
    "SPERR": _sperr,
    "ZFP": _zfp,
    "LERC": _lerc,
    "JPEG-LS": _jpegls,
    "JPEG XL": _by_band(
        lambda b: bytes(imagecodecs.jpegxl_encode(b, lossless=True, effort=7)), imagecodecs.jpegxl_decode
    ),
    "JPEG 2000": _by_band(
        lambda b: bytes(imagecodecs.jpeg2k_encode(b, level=0, reversible=True, codecformat="J2K")),
        imagecodecs.jpeg2k_decode,
    ),
    "zstd": _zstd,
    "pcodec": _pcodec,
}
LOSSY = {"SZ3", "SPERR", "ZFP"}
BASES = ("default", "coarse")


def _filled(x: Array) -> Array:
    """No nodata and no NaN: every coder gets the same numbers."""
    if x.dtype.kind != "f":
        return np.maximum(x, 1)
    out = x.copy()
    for band in out:
        band[~np.isfinite(band)] = np.nanmedian(np.where(np.isfinite(band), band, np.nan))
    return out


def measure(case: Case, data: Path, count: int) -> dict[str, Any]:
    """Bytes and broken bounds of every coder."""
    dataset = open_dataset(data, case.dataset)
    bands = dataset.groups[0]
    codec = case.codec(bands)
    fit, race = split(dataset, [str(t) for t in codec.about.get("fitted_on", ())])
    tiles = thinned(race or fit, count)
    fields = [_filled(t.fields[0][:, :256, :256]) for t in tiles]
    if case.power:
        fields = [(10 ** (x.astype(np.float64) / 10)).astype(np.float32) for x in fields]
    rows: list[dict[str, Any]] = []
    for bound in case.bounds:
        goal = ErrorBound.of(bound, codec.bands)
        row: dict[str, Any] = {"bound": bound, "bytes": {}, "by_tile": {}, "broken": {}, "cpu_s": {}}
        entrants = {f"ours, {b}": (lambda x, e, b=b: _ours(codec, x, e, b)) for b in BASES} | PEERS
        for name, run in entrants.items():
            if name in LOSSY and bound == 0 and fields[0].dtype.kind == "f":
                continue
            sizes, broken = [], 0
            start = time.process_time()
            try:
                for x in fields:
                    n, y = run(x, bound)
                    sizes.append(n)
                    broken += goal.broken(x, y, np.ones(x.shape, bool), codec.bands) is not None
            except TypeError:
                continue
            row["bytes"][name], row["by_tile"][name], row["broken"][name] = sum(sizes), sizes, broken
            row["cpu_s"][name] = round(time.process_time() - start, 2)
        rows.append(row)
        print(case.name, bound, row["bytes"], {k: v for k, v in row["broken"].items() if v}, flush=True)
    return {
        "name": case.name,
        "codec": codec.name,
        "tiles": [t.name for t in tiles],
        "held_out": bool(race),
        "samples": sum(x.size for x in fields),
        "raw_bytes": sum(x.nbytes for x in fields),
        "rows": rows,
    }


def main() -> None:
    """Measure all cases and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--tiles", type=int, default=4, help="of each case")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "versions": {p: version(p) for p in ("imagecodecs", "numpy", "stac-latent")},
        "cases": [measure(case, args.data, args.tiles) for case in CASES],
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
