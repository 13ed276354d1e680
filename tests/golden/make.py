"""Make the golden files: one small payload of each bitstream and container, and what it decodes to.

    python tests/golden/make.py NEW_FOLDER

Golden files are never remade: a new version of a format gets a new folder beside the old ones (``v1``, ``v2``, ...),
and every version stays readable for ever. The tests refuse to overwrite.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from stac_latent.bundle import save_bundle
from stac_latent.codecs import dct, fit, jpeg2000, zstd
from stac_latent.cube.tiling import lattice_grid
from stac_latent.registry import remember
from stac_latent.spec import Band
from stac_latent.store.zarr import create
from stac_latent.testing import make_field

BANDS = (Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4))


def digest(array: np.ndarray) -> str:
    """SHA-256 of type, shape and little-endian values."""
    head = f"{array.dtype.name}{array.shape}".encode()
    return hashlib.sha256(
        head + np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    ).hexdigest()


def main(folder: Path) -> None:
    """Write everything below a new folder."""
    folder.mkdir(parents=True)
    field = make_field(BANDS, (37, 45), 11)
    tiles = [make_field(BANDS, (64, 72), seed) for seed in range(2)]
    codecs = {
        "fitted": fit("golden-fitted", tiles, BANDS, step=24.0, size=4),
        "dct": dct(BANDS, step=40.0),
        "zstd": zstd(BANDS),
        "jpeg2000": jpeg2000(BANDS, 100, reversible=True),
    }
    index = {}
    for name, codec in codecs.items():
        save_bundle(codec, folder / name)
        data = codec.compress(field)
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
    codec = remember(codecs["dct"])
    for payload in ("coded", "plain"):
        grid = lattice_grid("EPSG:32633", (10, 0, 400_020, 0, -10, 5_100_000), (30, 42), codec.stride)
        symbols = codec.encode(
            np.pad(field, ((0, 0), (2, 1), (2, 1)), mode="edge")[:, :32, :48], upto="symbols"
        )
        spec = {"latent:space": codec.space}
        arrays = create(folder / f"{payload}.zarr", codec, grid, payload, 1, spec)
        arrays.latent[:] = symbols[:, : grid.cells[0], : grid.cells[1]]
        arrays.mask[:, :7, :9] = 0
        index[f"{payload}.zarr"] = {
            "space": codec.space,
            "grid": grid.to_fields(),
            "symbols": digest(arrays.latent[:]),
        }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
