"""The decoder of this package, as ``run.py`` calls decoders.

    python extensions/latent/conformance/decode.py CASE_FOLDER OUTPUT_FILE

Writes what ``case.json`` in the folder asks for, in the format that README.md describes; or prints one sentence and exits
with 1.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import numpy as np
import pystac

from stac_latent.aliases import Array
from stac_latent.cube.read.band_views import NativeReader, view_of
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import StacLatentError
from stac_latent.secure import Key, use


def decode(folder: Path) -> dict[str, Array]:
    """Arrays that a case asks for, by name."""
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    if "key" in case:
        use(Key(base64.b64decode(case["key"])))
    item = pystac.Item.from_file(str(folder / case["item"]))
    ref = LatentRef.from_item(item, case["asset"])
    if case["want"] == "latents":
        return {"latent": LatentReader(ref).read_latent()}
    out = {}
    for i, band in enumerate(ref.spec.bands):
        view = view_of(ref, i)
        out[band.name] = NativeReader(LatentReader(view.ref), view.grid).read_field(bands=[view.index])[0]
    return out


def pack(arrays: dict[str, Array]) -> bytes:
    """A line of JSON, and the values of the arrays one after the other."""
    head = [{"name": n, "data_type": a.dtype.name, "shape": list(a.shape)} for n, a in arrays.items()]
    values = (np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes() for a in arrays.values())
    return json.dumps({"arrays": head}).encode() + b"\n" + b"".join(values)


def main(folder: str, out: str) -> int:
    """Decode a case; the exit code."""
    try:
        Path(out).write_bytes(pack(decode(Path(folder))))
    except StacLatentError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: decode.py CASE_FOLDER OUTPUT_FILE")
    raise SystemExit(main(*sys.argv[1:]))
