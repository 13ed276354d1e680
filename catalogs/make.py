"""Build the small catalogue that tests and notebooks read: the same input gives the same symbols and fields.

    python catalogs/make.py [OUT]

OUT is ``catalogs/sample`` when left out, and is replaced. Three Items:

- ``spyndex-s2-sample``: the real 300 x 300 pixel Sentinel-2 sample of the spyndex wheel with its raw GeoTIFFs, and
  three latent assets: ``latent`` (entropy coded), ``plain`` (an 8 x 8 DCT, under zstd) and ``embedding``.
- ``spyndex-s2-sample-coarse``: a derived Item with latents of a lower quality alone.
- ``synthetic-later``: the middle of the sample at a later nominal date, with a field darkened and a corner missing;
  made to have a change and a mask to look at, and said to be so.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import rasterio
from rasterio.warp import transform_bounds
from rasterio.windows import Window, transform

from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.sample import sample_item
from stac_latent.cube.open_codec import open_codec

CODEC, EMBEDDER = "s2-10m-4b", "s2-10m-embed"
COLLECTION = "s2-sample"
SIZE, START = 160, 64
"""Pixels of the later scene and its offset in the sample, a multiple of the codec's stride."""


def later_item(first: pystac.Item, folder: Path) -> pystac.Item:
    """Cut the middle out of the sample, darken a field, and blank a corner."""
    folder.mkdir(parents=True)
    item = pystac.Item.from_dict(first.to_dict(transform_hrefs=False))
    item.id, item.datetime = "synthetic-later", datetime(2020, 7, 1, tzinfo=UTC)
    window = Window(START, START, SIZE, SIZE)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for key, asset in item.assets.items():
        with rasterio.open(asset.href) as src:
            values = src.read(1, window=window)
            profile = {
                **src.profile,
                "width": SIZE,
                "height": SIZE,
                "transform": transform(window, src.transform),
            }
        values[40:90, 60:120] = values[40:90, 60:120] * 3 // 5
        values[rows + columns < 40] = 0
        asset.href = str(folder / f"{key}.tif")
        with rasterio.open(asset.href, "w", **profile) as dst:
            dst.write(values, 1)
            west, south, east, north = transform_bounds(dst.crs, "OGC:CRS84", *dst.bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item.geometry, item.bbox = {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north]
    item.properties |= {
        "title": "Middle of the sample, changed",
        "description": "Synthetic: made from the sample by darkening a field and blanking a corner.",
        "proj:shape": [SIZE, SIZE], "proj:transform": list(profile["transform"])[:6],
    }  # fmt: skip
    item.set_self_href(str(folder / "item.json"))
    return item


def build(root: Path) -> Path:
    """Build the catalogue in an empty or missing folder; return the path of its root."""
    first = sample_item(root / "raw" / "spyndex-s2-sample")
    first.collection_id = COLLECTION
    later = later_item(first, root / "raw" / "synthetic-later")
    for item in (first, later):
        for key, codec, payload in (("latent", CODEC, None), ("embedding", EMBEDDER, None)):
            encode(item, codec, root, asset=key, payload=payload, thumbnail=False)
    dct = open_codec("dct", bands=["B02", "B03", "B04", "B08"], step=128, mean=1000)
    (whole,) = encode(first, dct, root, asset="plain", payload="plain", thumbnail=False)
    encode(whole, CODEC, root, asset="coarse", mode="derived", quality=25, thumbnail=False)
    return root / "catalog.json"


def main() -> None:
    """Build beside the old catalogue, then swap."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent / "sample")
    out = parser.parse_args().out.absolute()
    if out.exists() and not (out / "catalog.json").is_file():
        raise SystemExit(f"{out} is there and holds no catalogue; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        build(Path(folder) / out.name)
        shutil.rmtree(out, ignore_errors=True)
        (Path(folder) / out.name).rename(out)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out / 'catalog.json'}: {size:,} bytes")


if __name__ == "__main__":
    main()
