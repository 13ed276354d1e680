"""Write the golden payloads of residuals: ``python tests/golden/make_residual.py``. Once released they are never written again."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np

from stac_latent.field.error_bound import ErrorBound
from stac_latent.spec import Band
from stac_latent.stages.residual.payload import decode_residual, encode_residual

FOLDER = Path(__file__).parent / "residual-1"
CASES = {
    "whole": ("uint16", 2),
    "lossless": ("int16", 0),
    "share": ("uint16", "2%"),
    "real": ("float32", 0.25),
    "bits": ("float32", 0),
    "ratio": ("float64", "0.5%"),
    "nothing": ("uint16", 100),
}
SHAPE = (2, 70, 83)


def tile(dtype):
    """Values, base and valid pixels, from integer arithmetic alone."""
    c, y, x = np.indices(SHAPE)
    rough = (x * 7919 + y * 104729 + c * 1299709) % 61
    values = 900 + 40 * c + 3 * x + (y * y) // 9 + rough
    base = values // 32 * 32
    scale = 8 if np.dtype(dtype).kind == "f" else 1
    return (values / scale).astype(dtype), (base / scale).astype(dtype), ((x + y) % 17 != 0)[:1]


def bands(dtype):
    """Two of a type."""
    nodata = math.nan if np.dtype(dtype).kind == "f" else 0
    return [Band(n, dtype, nodata=nodata) for n in ("a", "b")]


def main():
    """Write payloads and what they decode to."""
    index = {}
    for name, (dtype, bound) in CASES.items():
        truth, base, valid = tile(dtype)
        data = encode_residual(truth, base, valid, ErrorBound.of(bound, bands(dtype)), bands(dtype))
        (FOLDER / f"{name}.bin").write_bytes(data)
        index[name] = zlib.crc32(decode_residual(data, base, valid, bands(dtype)).tobytes())
    (FOLDER / "crc32.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
