"""The whole line on a real sample: encode, catalogue, search, load, publish, look."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.aliases import Progress
from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.publish.publish import publish
from stac_latent.catalog.sample import sample_item
from stac_latent.catalog.search.search import search
from stac_latent.cube.read.load import load
from stac_latent.errors import VerificationError
from stac_latent.page.preview import side_by_side

__all__ = ["run_demo"]


def run_demo(dest: Path, codec: str = "s2-10m-4b", progress: Progress | None = None) -> dict[str, Any]:
    """Run the whole line on the Sentinel-2 sample of the spyndex wheel; no network.

    Parameters
    ----------
    dest
        Folder for raw files, catalogue, GeoParquet and picture; latents of an earlier run are replaced.
    codec
        Codec of B02, B03, B04 and B08.

    Returns
    -------
    dict
        Paths ``catalog``, ``item``, ``geoparquet``, ``preview``; ``psnr`` [dB, peak 10000]; ``bits_per_pixel`` [bpppb];
        ``ratio`` of 16-bit pixels to stored bytes; ``raw_bytes``, ``latent_bytes``, ``embeddings``, ``seconds``.
    """
    start = time.perf_counter()
    dest = dest.absolute()
    raw = sample_item(dest / "raw")
    encode(raw, codec, dest / "catalog", overwrite=True, progress=progress)
    encode(raw, "s2-10m-embed", dest / "catalog", asset="embedding", overwrite=True, progress=progress)
    catalog = dest / "catalog" / "catalog.json"
    found = list(search(str(catalog), kind="codec", min_psnr=30))
    if len(found) != 1:
        raise VerificationError(
            f"the catalogue {catalog} should hold one item that decodes; a search found {len(found)}"
        )
    item = found[0]
    decoded = load(item, asset="latent")
    names = [b["name"] for b in item.assets["latent"].extra_fields["bands"]]
    pixels = np.stack([decoded[n].values[0] for n in names])
    source = load_raw(raw, names)
    parquet = dest / "embeddings.parquet"
    table = publish(item, parquet, asset="embedding", dtype="int8")
    fields = item.assets["latent"].extra_fields
    from stac_latent.cube.open_codec import open_codec

    bits, psnr = fields["latent:bits_per_pixel"], fields["latent:psnr"]
    caption = f"{codec}: {bits:.2f} bits per pixel and band ({16 / bits:.0f}x smaller than uint16), PSNR {psnr:.1f} dB"
    preview = side_by_side(
        source, pixels, open_codec(item, asset="latent").bands, dest / "preview.png", caption
    )
    return {
        "catalog": str(catalog),
        "item": str(item.get_self_href()),
        "geoparquet": str(parquet),
        "preview": str(preview),
        "psnr": psnr,
        "bits_per_pixel": bits,
        "ratio": 16 / bits,
        "raw_bytes": int(source.nbytes),
        "latent_bytes": int(fields["file:size"]),
        "embeddings": int(table.properties["table:row_count"]),
        "seconds": round(time.perf_counter() - start, 2),
    }


def load_raw(item: Any, names: list[str]) -> np.ndarray[Any, np.dtype[Any]]:
    """Raw pixels ``(band, y, x)`` of an Item whose bands lie on one grid, by the stock driver."""
    import odc.stac

    cube = odc.stac.load([item], bands=names)
    return np.stack([cube[n].values[0] for n in names])
