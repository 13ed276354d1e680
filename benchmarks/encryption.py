"""What encryption costs: bytes and processor time of one Item, encoded and loaded with and without a key.

The same Item is encoded twice. Bytes are those of the whole stores: encrypted chunks are not gathered in shards, so the
difference is that of nonces, tags, the manifest and metadata, less the indices of the shards. Times are processor time
of the whole process, the median of several runs; a window is read with a reader opened anew. Run with::

    python benchmarks/encryption.py                      # the sample; adds to benchmarks/results/encryption.json
    python benchmarks/encryption.py ITEM.json --codec s2-10m-4b
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac

RESULTS = Path(__file__).parent / "results" / "encryption.json"
WINDOW = 64


def seconds(run: Callable[[], Any], times: int) -> float:
    """Median processor time."""
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return round(statistics.median(found), 4)


def experiment(item: pystac.Item, codec: str, folder: Path, times: int = 5) -> dict[str, Any]:
    """Both stores, measured."""
    import numpy as np

    from stac_latent import encode
    from stac_latent.cube.read.reader import LatentReader
    from stac_latent.cube.ref import LatentRef
    from stac_latent.secure import Key
    from stac_latent.system.links import local_path

    key, out = Key(os.urandom(32)), {}
    for name, secret in (("warm", None), ("plain", None), ("encrypted", key)):
        done: list[pystac.Item] = []
        took = seconds(
            lambda n=name, s=secret, d=done: d.append(
                encode(item, codec, folder / "cat", asset=n, overwrite=True, key=s)[0]
            ),
            1 if name == "warm" else 3,
        )
        ref = LatentRef.from_item(done[-1], name)
        files = [p for p in local_path(ref.href).rglob("*") if p.is_file()]
        sizes = [p.stat().st_size for p in files]
        middle = tuple((n // 2 - WINDOW // 2, n // 2 + WINDOW // 2) for n in ref.grid.shape)
        out[name] = {
            "bytes": sum(sizes),
            "files": len(files),
            "chunk_bytes": sum(
                s for p, s in zip(files, sizes, strict=True) if "c" in p.parts and p.name != "zarr.json"
            ),
            "encode_s": took,
            "read_all_s": seconds(lambda r=ref: LatentReader(r).read_field(), times),
            "read_window_s": seconds(lambda r=ref, m=middle: LatentReader(r).read_field(m), times),
        }
        pixels = LatentReader(ref).read_field()
        if name == "plain":
            truth = pixels
        elif name == "encrypted" and not np.array_equal(truth, pixels):
            raise AssertionError("the encrypted asset decodes to other pixels")
    del out["warm"]
    return {
        "item": item.id, "pixels": list(ref.grid.shape), "bands": len(ref.spec.bands), "codec": codec, "window": WINDOW, **out,
        "more_bytes_percent": round(100 * (out["encrypted"]["bytes"] / out["plain"]["bytes"] - 1), 2),
    }  # fmt: skip


def main() -> None:
    """Measure one Item and add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("item", nargs="?", help="an Item with raw assets; the sample when left out")
    parser.add_argument("--codec", default="s2-10m-4b")
    args = parser.parse_args()
    from stac_latent.catalog.sample import sample_item

    with tempfile.TemporaryDirectory() as folder:
        item = pystac.Item.from_file(args.item) if args.item else sample_item(Path(folder) / "sample")
        found = experiment(item, args.codec, Path(folder))
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [r for r in rows if (r["item"], r["codec"]) != (found["item"], found["codec"])]
    about = {"python": platform.python_version(), "date": datetime.now(UTC).date().isoformat()}
    RESULTS.write_text(json.dumps({**about, "rows": [*rows, found]}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
