"""Make the golden catalogue of several native grids: one Item with bands of 10, 20 and 60 m, and what they decode to.

    python tests/golden/make_native.py NEW_FOLDER

As of ``make.py``: once released never remade, every version stays readable for ever.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import tempfile
from pathlib import Path

import pystac
import rasterio
from affine import Affine
from make import digest, make_field
from odc.geo.geobox import GeoBox

from stac_latent.catalog.encode.encode import encode
from stac_latent.codec.shipped import lin
from stac_latent.cube.read.band_views import NativeReader, view_of
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.spec import Band

GSD = {"B02": 10, "B05": 20, "B06": 20, "B01": 60}


def raw_item(folder: Path) -> pystac.Item:
    """Bands of one scene of 77 x 53 pixels of 10 m."""
    item = None
    for seed, (name, gsd) in enumerate(GSD.items()):
        box = GeoBox(
            (-(-770 // gsd), -(-530 // gsd)), Affine(gsd, 0, 400_020, 0, -gsd, 5_100_000), "EPSG:32633"
        )
        if item is None:
            outline = box.footprint("EPSG:4326")
            when = dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC)
            item = pystac.Item("golden", outline.json, list(outline.boundingbox.bbox), when, {})
        field = make_field([Band(name, nodata=0)], tuple(box.shape), seed)
        options = {"height": box.shape.y, "width": box.shape.x, "count": 1, "dtype": "uint16", "nodata": 0}
        with rasterio.open(
            folder / f"{name}.tif", "w", crs=str(box.crs), transform=box.affine, **options
        ) as out:
            out.write(field)
        about = {"nodata": 0, "data_type": "uint16", "raster:scale": 1e-4, "bands": [{"name": name}]}
        item.add_asset(name, pystac.Asset(str(folder / f"{name}.tif"), roles=["data"], extra_fields=about))
    return item


def digests(item: pystac.Item) -> dict[str, str]:
    """Digest of each band on its own pixels."""
    ref = LatentRef.from_item(item)
    out = {}
    for i, band in enumerate(ref.spec.bands):
        view = view_of(ref, i)
        out[band.name] = digest(
            NativeReader(LatentReader(view.ref), view.grid).read_field(bands=[view.index])
        )
    return out


def main(folder: Path) -> None:
    """Write a catalogue, without what leads out of it, and the digests."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as raw:
        codec = lin([Band(n, nodata=0, scale=1e-4) for n in GSD], step=60.0, mean=1300.0)
        item = encode(raw_item(Path(raw)), codec, folder, mode="derived")[0]
    path = Path(item.get_self_href())
    doc = json.loads(path.read_text())
    doc["links"] = [
        link for link in doc["links"] if not (link["rel"] == "derived_from" and link["href"].startswith("/"))
    ]
    path.write_text(json.dumps(doc, indent=1) + "\n")
    found = digests(pystac.Item.from_file(str(path)))
    index = {"item": str(path.relative_to(folder.resolve())), "bands": found}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(Path(sys.argv[1]))
