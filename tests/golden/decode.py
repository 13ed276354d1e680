"""Decode every golden file in this process and print the digests as JSON; the tests run it under many conditions.

    python tests/golden/decode.py [--torch] [--threads N]

``--torch``: with torch imported and at work, once for oneDNN on and off and for float32 and bfloat16 as its type; the digests
of each are printed under a name. ``--threads``: of every pool. Without numba: set ``STAC_LATENT_NO_NUMBA``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent


def wanted() -> dict[str, str]:
    """Digests as the indices have them, by version, name and level."""
    out = {}
    for index in sorted(GOLDEN.glob("v*/index.json")):
        for name, entry in json.loads(index.read_text()).items():
            levels = [k for k in ("symbols", "field") if k in entry]
            out |= {f"{index.parent.name}/{name}/{level}": entry[level] for level in levels}
    for index in sorted(GOLDEN.glob("native/v*/index.json")):
        for band, value in json.loads(index.read_text())["bands"].items():
            out[f"native/{index.parent.name}/{band}"] = value
    return out


def found() -> dict[str, str]:
    """The same, decoded here."""
    import pystac
    from make import digest
    from make_native import digests

    from stac_latent.codec import registry
    from stac_latent.codec.bundle import load_bundle
    from stac_latent.codec.registry import remember
    from stac_latent.spec import Grid
    from stac_latent.store.zarr.group import open_arrays

    registry._codecs().opened.clear()
    out = {}
    for index in sorted(GOLDEN.glob("v*/index.json")):
        folder, version = index.parent, index.parent.name
        for name, entry in json.loads(index.read_text()).items():
            stored = name.endswith(".zarr")
            bundle = folder / (entry.get("codec", "dct") if stored else name)
            codec = remember(load_bundle(bundle, space=entry["space"], refresh=True))
            if stored:
                spec, grid = codec.spec, Grid.from_fields(entry["grid"])
                symbols = open_arrays(str(folder / name), spec, grid).read_symbols(
                    ((0, grid.cells[0]), (0, grid.cells[1]))
                )
                out[f"{version}/{name}/symbols"] = digest(symbols)
                continue
            payload = (folder / f"{name}.payload").read_bytes()
            out[f"{version}/{name}/symbols"] = digest(codec.entropy_decode(payload))
            out[f"{version}/{name}/field"] = digest(codec.decompress((folder / f"{name}.slc").read_bytes()))
    for index in sorted(GOLDEN.glob("native/v*/index.json")):
        item = pystac.Item.from_file(str(index.parent / json.loads(index.read_text())["item"]))
        out |= {f"native/{index.parent.name}/{band}": v for band, v in digests(item).items()}
    return out


@contextmanager
def torch_at_work(dtype: str, onednn: bool, threads: int) -> Iterator[None]:
    """Torch with a default type, with or without oneDNN, right after a convolution."""
    import torch

    before = torch.get_default_dtype()
    torch.set_num_threads(threads)
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.backends.mkldnn.flags(enabled=onednn):
            torch.nn.functional.conv2d(torch.ones(1, 8, 32, 32), torch.ones(8, 8, 3, 3))
            yield
    finally:
        torch.set_default_dtype(before)


def main() -> None:
    """Print the digests."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    os.cpu_count = lambda: args.threads  # type: ignore[assignment] # pools of threads are as large as that
    os.environ["STAC_LATENT_THREADS"] = str(args.threads)
    runs: dict[str, Any] = {}
    if args.torch:
        for dtype, onednn in itertools.product(("float32", "bfloat16"), (True, False)):
            with torch_at_work(dtype, onednn, args.threads):
                runs[f"torch, {dtype}, oneDNN {'on' if onednn else 'off'}"] = found()
    else:
        sys.modules["torch"] = None  # type: ignore[assignment] # cannot be imported
        runs["without torch"] = found()
    from stac_latent.stages.transform.kernels import COMPILED

    about = {
        "python": platform.python_version(),
        "numba": COMPILED,
        "threads": args.threads,
        "torch": args.torch,
    }
    sys.stdout.write(json.dumps({"about": about, "runs": runs}) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(GOLDEN))
    main()
