"""Codecs of arrays at equal absolute error bounds: ours beside those that Zarr users have, on one chunk of each kind of data.

Bytes, the largest error that is found, and seconds of CPU to encode and to decode, also as ratios to zstd in the same run. Coders that take
no NaN get the mean instead, and the deflated mask counts in their bytes. ``bitround`` keeps the fewest bits that hold the bound, and
``quantised`` is what many do by hand: whole numbers of twice the bound, then zstd. EBCC is not on PyPI. Run with::

    python benchmarks/arrays.py DATA       # writes benchmarks/results/arrays.json; needs h5py
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numcodecs
import numpy as np
import rasterio

from stac_latent.aliases import Array
from stac_latent.arrays import NumcodecsLatent

OUT = Path(__file__).parent / "results" / "arrays.json"
Coder = tuple[Callable[[Array], bytes], Callable[[bytes, Array], Array]]
"""Values to bytes; bytes and an array of their shape and type to values."""
ZSTD = numcodecs.Zstd(level=3)
REPEATS = 3


# -- data ------------------------------------------------------------------------------------------------------------


def samples(data: Path) -> Iterator[tuple[str, Array, tuple[float, ...]]]:
    """Name, one chunk, and bounds."""
    weather = data / "weather_ocean"
    with h5py.File(weather / "era5_0p25deg" / "era5_2m_dewpoint_temperature_2000_monthly.nc") as f:
        packed = f["d2m"]
        month = packed[-1] * packed.attrs["scale_factor"] + packed.attrs["add_offset"]
    d2m = month.astype(np.float32)
    yield "ERA5 dew point [K], 256 x 256", d2m[200:456, 200:456], (0.5, 0.1, 0.01)
    yield "ERA5 dew point [K], 64 x 64", d2m[200:264, 200:264], (0.5, 0.1, 0.01)
    with h5py.File(weather / "ocean_nemo" / "nemo_1m_20150101-20150201_grid-T.nc") as f:
        tos = f["tos"][0]
    tos = np.where(np.abs(tos) > 1e10, np.float32(np.nan), tos)
    yield "NEMO sea surface temperature [C], 330 x 360, land is 0 or NaN", tos, (0.1, 0.01)
    with h5py.File(weather / "reanalysis_monthly_2p5deg" / "test_input_z500_mon.nc") as f:
        yield "Z500 [m], 8 months of 73 x 144", f["hgt"][:8].astype(np.float32), (10.0, 1.0)
    path = min((data / "sentinel2" / "ssl4eo_s12_seasons").glob("*.tif"))
    with rasterio.open(path) as src:
        bands = src.read([2, 3, 4, 8])[:, :256, :256].astype(np.uint16)
    yield "Sentinel-2 [DN], 4 bands of 256 x 256", bands, (50, 10, 1, 0)
    with rasterio.open(data / "dem_bathymetry" / "dem_stitcher" / "los_angeles_dem_ellipsoid.tif") as src:
        yield "Elevation [m], 256 x 256", src.read(1)[:256, :256].astype(np.float32), (1.0, 0.1)


# -- coders ----------------------------------------------------------------------------------------------------------


def bytewise(codec: Any, filters: tuple[Any, ...] = ()) -> Coder:
    """A codec of numcodecs behind filters."""

    def encode(x: Array) -> bytes:
        for f in filters:
            x = f.encode(x)
        return bytes(codec.encode(np.ascontiguousarray(x)))

    def decode(data: bytes, like: Array) -> Array:
        out = codec.decode(data)
        for f in reversed(filters):
            out = f.decode(out)
        return np.frombuffer(np.ascontiguousarray(out), like.dtype).reshape(like.shape)

    return encode, decode


def without_nan(encode: Callable[[Array], bytes], decode: Callable[[bytes], Array]) -> Coder:
    """A coder of numbers, with the mask of NaN beside it."""

    def whole(x: Array) -> bytes:
        gone = np.isnan(x)
        if not gone.any():
            return b"\0" + encode(x)
        mask = zlib.compress(np.packbits(gone).tobytes(), 9)
        filled = np.where(gone, x[~gone].mean(dtype=np.float64).astype(x.dtype), x)
        return b"\1" + len(mask).to_bytes(4, "little") + mask + encode(filled)

    def back(data: bytes, like: Array) -> Array:
        if not data[0]:
            return np.asarray(decode(data[1:])).reshape(like.shape).astype(like.dtype)
        size = int.from_bytes(data[1:5], "little")
        bits = np.frombuffer(zlib.decompress(data[5 : 5 + size]), np.uint8)
        out = np.array(decode(data[5 + size :])).reshape(like.shape).astype(like.dtype)
        out[np.unpackbits(bits, count=like.size).astype(bool).reshape(like.shape)] = np.nan
        return out

    return whole, back


def as_float(encode: Callable[[Array], bytes]) -> Callable[[Array], bytes]:
    """A coder of floats, for integers too."""
    return lambda x: encode(np.ascontiguousarray(x if x.dtype.kind == "f" else x.astype(np.float32)))


def rounded(decode: Callable[[bytes], Array], like: Array) -> Callable[[bytes], Array]:
    """Decoded values as whole numbers where those are coded."""
    return decode if like.dtype.kind == "f" else lambda data: np.rint(decode(data))


def quantised(bound: float, *, whole: bool) -> Coder:
    """Whole numbers of twice the bound, in shuffled bytes."""
    step = float(2 * int(bound) + 1 if whole else 2 * bound * (1 - 1e-5))
    blosc = numcodecs.Blosc("zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)

    def encode(x: Array) -> bytes:
        return bytes(blosc.encode(np.rint(x.astype(np.float64) / step).astype(np.int32)))

    def decode(data: bytes) -> Array:
        return np.frombuffer(blosc.decode(data), np.int32) * step

    return without_nan(encode, decode)


def bitround(x: Array, bound: float) -> Coder | None:
    """Fewest bits that hold the bound, then shuffled bytes and zstd."""
    for bits in range(1, 24):
        codec = numcodecs.BitRound(keepbits=bits)
        y = codec.decode(codec.encode(x)).reshape(x.shape)
        if error(x, y) <= bound:
            return bytewise(ZSTD, (codec, numcodecs.Shuffle(4)))
    return None


def coders(x: Array, bound: float) -> Iterator[tuple[str, Coder]]:
    """Every coder that takes such values within such a bound."""
    yield "zstd", bytewise(ZSTD)
    ours = NumcodecsLatent(error_bound=bound)
    yield "ours", (ours.encode, lambda data, _: ours.decode(data))
    yield "blosc zstd, shuffle", bytewise(numcodecs.Blosc("zstd", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE))
    if x.dtype.kind == "f" and (found := bitround(x, bound)) is not None:
        yield "bitround + zstd", found
    yield "quantised + zstd", quantised(bound, whole=x.dtype.kind != "f")
    if not bound:
        return
    sz3 = as_float(lambda v: bytes(imagecodecs.sz3_encode(v, mode="abs", abs=bound)))
    yield "SZ3", without_nan(sz3, rounded(lambda d: imagecodecs.sz3_decode(d, shape=x.shape, dtype="f4"), x))
    zfp = as_float(lambda v: bytes(imagecodecs.zfp_encode(v, mode="a", level=bound)))
    yield "ZFP", without_nan(zfp, rounded(imagecodecs.zfp_decode, x))
    sperr = as_float(lambda v: bytes(imagecodecs.sperr_encode(v, mode="pwe", level=bound)))
    yield "SPERR", without_nan(sperr, rounded(imagecodecs.sperr_decode, x))


# -- measuring -------------------------------------------------------------------------------------------------------


def error(x: Array, y: Array) -> float:
    """Largest error; infinite where NaN is not where it was."""
    if x.dtype.kind == "f" and not np.array_equal(np.isnan(x), np.isnan(y)):
        return float("inf")
    gap = np.abs(x.astype(np.float64) - y.astype(np.float64))
    return float(np.nanmax(gap))


def seconds(work: Callable[[], Any]) -> float:
    """Least CPU time of some runs."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return max(best, 1e-7)


def measure(x: Array, bound: float) -> list[dict[str, Any]]:
    """A row for each coder."""
    rows: list[dict[str, Any]] = []
    for name, (encode, decode) in coders(x, bound):
        try:
            data = encode(x)
            found = error(x, decode(data, x))
        except Exception as exc:  # noqa: BLE001 - a peer that refuses is a row of the table
            rows.append({"codec": name, "refuses": f"{type(exc).__name__}: {exc}"[:80]})
            continue
        row = {
            "codec": name,
            "bytes": len(data),
            "max_error": found,
            "kept": found <= bound,
            "encode_s": seconds(lambda e=encode: e(x)),
            "decode_s": seconds(lambda d=decode, b=data: d(b, x)),
        }
        first = rows[0] if rows else row
        row["bytes_to_zstd"] = row["bytes"] / first["bytes"]
        row["encode_to_zstd"] = row["encode_s"] / first["encode_s"]
        row["decode_to_zstd"] = row["decode_s"] / first["decode_s"]
        rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    return rows


def main() -> None:
    """Measure all, print it and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    cases = []
    for name, x, bounds in samples(args.data):
        for bound in bounds:
            rows = measure(np.ascontiguousarray(x), bound)
            cases.append({"name": name, "bound": bound, "raw_bytes": x.nbytes, "rows": rows})
            print(name, bound, x.nbytes)
            for row in rows:
                print("   ", row)
    libraries = ("imagecodecs", "numcodecs", "numpy")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "versions": {n: version(n) for n in libraries},
        "cases": cases,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
