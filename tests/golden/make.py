"""Make the golden files: one small payload of each bitstream and container, and what it decodes to.

    python tests/golden/make.py NEW_FOLDER [CODEC ...]

Once released, golden files are never remade: a new version of a format gets a new folder beside the old ones (``v1``, ``v2``, ...),
and every version stays readable for ever. The tests refuse to overwrite. ``v1`` holds the first four codecs, ``v2`` the
``lin`` family: a tile with weights of bands, several tiles, and a fitted chain.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.registry import remember
from stac_latent.codec.shipped import dct, fit, jpeg2000, lin, zstd
from stac_latent.cube.grid.tiling import lattice_grid
from stac_latent.fitting.lin import fit_lin
from stac_latent.spec import Band
from stac_latent.store.zarr.group import GroupOptions, create

BANDS = (Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4))


def make_field(*args, **options) -> np.ndarray:
    """As of ``stac_latent.testing``, which needs pytest; reading golden files does not."""
    from stac_latent.testing import make_field as make

    return make(*args, **options)


def digest(array: np.ndarray) -> str:
    """SHA-256 of type, shape and little-endian values."""
    head = f"{array.dtype.name}{array.shape}".encode()
    return hashlib.sha256(
        head + np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    ).hexdigest()


def tiles():
    """What is fitted to, with all pixels valid."""
    return [(make_field(BANDS, (64, 72), seed, "noise") // 8 + 900, None) for seed in range(2)]


CODECS = {
    "fitted": lambda: fit(
        "golden-fitted", [make_field(BANDS, (64, 72), seed) for seed in range(2)], BANDS, step=24.0, size=4
    ),
    "dct": lambda: dct(BANDS, step=40.0),
    "zstd": lambda: zstd(BANDS),
    "jpeg2000": lambda: jpeg2000(BANDS, 100, reversible=True),
    "lin": lambda: lin(BANDS, step=60.0, mean=1300.0),
    "lin-weighed": lambda: lin(BANDS, step=60.0, mean=[1300.0, 1200.0], unit=[1.0, 2.0]),
    "lin-tiles": lambda: lin(BANDS, step=400.0),
    "lin-fitted": lambda: fit_lin("golden-lin", tiles, BANDS, step=90.0),
}
OPTIONS = {"lin-weighed": {"max_error": 20, "band_weights": [1, 3]}}
SHAPES = {"lin-tiles": (62, 390)}


def main(folder: Path, names: list[str]) -> None:
    """Write everything below a new folder."""
    folder.mkdir(parents=True)
    field = make_field(BANDS, (37, 45), 11)
    codecs = {name: CODECS[name]() for name in names or CODECS}
    index = {}
    for name, codec in codecs.items():
        save_bundle(codec, folder / name)
        data = codec.compress(make_field(BANDS, SHAPES.get(name, (37, 45)), 11), **OPTIONS.get(name, {}))
        (folder / f"{name}.slc").write_bytes(data)
        inner = field[:, :32, :40]
        payload = codec.entropy_encode(codec.encode(inner, upto="symbols"))
        (folder / f"{name}.payload").write_bytes(payload)
        index[name] = {
            "space": codec.space,
            "bitstream": codec.bitstream,
            "symbols": digest(codec.entropy_decode(payload)),
            "field": digest(codec.decompress(data)),
        }
    kept = "dct" if "dct" in codecs else names[0]
    codec = remember(codecs[kept])
    for payload in ("coded", "plain"):
        grid = lattice_grid("EPSG:32633", (10, 0, 400_020, 0, -10, 5_100_000), (30, 42), codec.stride)
        padded = np.pad(field, ((0, 0), (2, 1), (2, 1)), mode="edge")[:, :32, :48]
        symbols = codec.encode(padded, upto="symbols")
        spec = {"latent:space": codec.space}
        arrays = create(folder / f"{payload}.zarr", codec, grid, spec, GroupOptions(payload))
        arrays.latent[:] = symbols[:, : grid.cells[0], : grid.cells[1]]
        arrays.mask[:, :7, :9] = 0
        index[f"{payload}.zarr"] = {
            "codec": kept,
            "space": codec.space,
            "grid": grid.to_fields(),
            "symbols": digest(arrays.latent[:]),
        }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
