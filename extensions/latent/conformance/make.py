"""Make the conformance kit anew: the same sources give the same bytes.

    python extensions/latent/conformance/make.py [OUT]

OUT is this folder when left out; its ``cases``, ``codecs`` and ``manifest.json`` are replaced. Sources are the real Sentinel-2
sample in ``catalogs/sample/raw`` and generated fields.
"""

from __future__ import annotations

import argparse
import base64
import datetime as dt
import gzip
import hashlib
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

sys.path.insert(0, str(Path(__file__).parent))

from decode import decode, pack

from stac_latent.aliases import Array
from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.tree import write_json
from stac_latent.codec.codec import Codec
from stac_latent.codec.shipped import lin, s2_10m_4b
from stac_latent.spec import Band

KIT = Path(__file__).parent
SAMPLE = KIT.parents[2] / "catalogs" / "sample" / "raw" / "spyndex-s2-sample"
COLLECTION = "cases"
S2 = ("B02", "B03", "B04", "B08")
WHEN = dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC)
ORIGIN = 600_030.0, 4_499_990.0
"""Upper left corner, off the lattice of 80 m along both axes."""
KEY = bytes(range(32))
_CASES: list[tuple[str, str, Callable[[Kitchen], None]]] = []


def case(feature: str) -> Callable[[Callable[[Kitchen], None]], Callable[[Kitchen], None]]:
    """Register a recipe of cases of a feature, named after it."""

    def register(recipe: Callable[[Kitchen], None]) -> Callable[[Kitchen], None]:
        _CASES.append((feature, recipe.__name__.replace("_", "-"), recipe))
        return recipe

    return register


def sample(height: int, width: int, y: int = 40, x: int = 60, bands: Sequence[str] = S2) -> dict[str, Array]:
    """Bands of a window of the real sample, uint16."""
    out = {}
    for name in bands:
        with rasterio.open(SAMPLE / f"{name}.tif") as src:
            out[name] = src.read(1)[y : y + height, x : x + width]
    return out


def noise(height: int, width: int, seed: int, most: int = 65_000) -> Array:
    """Integers without any order, of a generator that is written out here, so that no library can change them."""
    n = np.arange(height * width, dtype=np.uint64) + np.uint64(seed << 20)
    n = (n ^ (n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    n = (n ^ (n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((n ^ (n >> np.uint64(31))) % np.uint64(most)).astype(np.uint16).reshape(height, width)


def smooth(height: int, width: int, seed: int) -> Array:
    """A hilly field about 1000 with some noise, float64."""
    y, x = np.mgrid[:height, :width]
    hills = 300 * np.sin(y / 9.0 + seed) * np.cos(x / 7.0 - seed) + 4 * x - 3 * y
    return np.round(1000 + hills) + noise(height, width, seed, 21) - 10.0


class Kitchen:
    """Where a recipe cooks its cases: raw files in a folder of its own, results in the kit."""

    def __init__(self, kit: Path, raw: Path, feature: str, name: str, note: str) -> None:
        self.kit, self.raw, self.feature, self.name, self.note = kit, raw, feature, name, note
        self.cases: list[dict[str, Any]] = []

    def item(
        self, fields: dict[str, Array], *, name: str = "", nodata: float | None = 0, scale: float | None = 1e-4,
        grids: dict[str, tuple[float, float, float]] | None = None, when: dt.datetime = WHEN, crs: str = "EPSG:32618",
    ) -> pystac.Item:  # fmt: skip
        """An Item with a GeoTIFF for each band; ``grids`` are pixel size and offset from the origin, where not 10 m and none."""
        name = name or self.name
        folder = self.raw / name
        folder.mkdir(parents=True)
        item = None
        for key, values in fields.items():
            size, dx, dy = (grids or {}).get(key, (10.0, 0.0, 0.0))
            place = Affine(size, 0, ORIGIN[0] + dx, 0, -size, ORIGIN[1] - dy)
            if item is None:
                outline = GeoBox(values.shape, place, crs).footprint("EPSG:4326", npoints=4)
                ring = [[round(x, 6), round(y, 6)] for x, y in outline.json["coordinates"][0][:-1]]
                xs, ys = zip(*ring, strict=True)
                geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
                item = pystac.Item(
                    name, geometry, [min(xs), min(ys), max(xs), max(ys)], when, {}, collection=COLLECTION
                )
            about: dict[str, Any] = {"bands": [{"name": key}], "data_type": values.dtype.name}
            if nodata is not None:
                about["nodata"] = "nan" if math.isnan(nodata) else nodata
            if scale is not None:
                about |= {"raster:scale": scale, "raster:offset": 0.0}
            path = folder / f"{key}.tif"
            with rasterio.open(
                path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
                dtype=values.dtype, nodata=nodata, crs=crs, transform=place,
            ) as out:  # fmt: skip
                out.write(values, 1)
            item.add_asset(key, pystac.Asset(str(path), roles=["data"], extra_fields=about))
        assert item is not None  # noqa: S101 - there is a band
        item.set_self_href(str(folder / "item.json"))
        return item

    def encode(self, items: pystac.Item | list[pystac.Item], codec: Codec, **options: Any) -> list[Path]:
        """Encode Items into the kit, and make them lead nowhere outside; their files."""
        out = [
            Path(i.get_self_href())
            for i in encode(items, codec, self.kit, mode="beside", thumbnail=False, **options)
        ]
        for path in out:
            tidy(path)
        return out

    def pixels(
        self,
        fields: dict[str, Array],
        codec: Codec,
        *,
        nodata: float | None = 0,
        scale: float | None = 1e-4,
        **options: Any,
    ) -> None:
        """A case of one Item whose pixels are wanted."""
        self.encode(self.item(fields, nodata=nodata, scale=scale), codec, **options)
        self.done()

    def done(
        self, name: str = "", *, item: str = "", want: str = "pixels", asset: str = "latent", tolerance: float = 0,
        note: str = "", key: bytes | None = None, refused: str = "",
    ) -> None:  # fmt: skip
        """Write ``case.json`` and what is expected."""
        name = name or self.name
        folder = self.kit / COLLECTION / name
        folder.mkdir(exist_ok=True)
        doc: dict[str, Any] = {"name": name, "feature": self.feature, "note": note or self.note}
        doc |= {"item": item or f"{name}.json", "asset": asset, "want": want}
        if key is not None:
            doc["key"] = base64.b64encode(key).decode()
        doc |= {"outcome": "refused", "because": refused} if refused else {"outcome": "decoded"}
        write(folder / "case.json", doc)
        if not refused:
            data = pack(decode(folder))
            if tolerance:
                doc["tolerance"] = tolerance
            doc |= json.loads(data.partition(b"\n")[0])
            doc["checksum"] = "1220" + hashlib.sha256(data).hexdigest()
            doc["expected"] = "expected.gz"
            (folder / "expected.gz").write_bytes(gzip.compress(data, 9, mtime=0))
            write(folder / "case.json", doc)
        self.cases.append(doc)

    def copied(self, of: str, name: str) -> Path:
        """A copy of another case's Item and store, to be spoiled; its folder."""
        source, folder = self.kit / COLLECTION / of, self.kit / COLLECTION / name
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("case.json", "expected.gz"))
        doc = json.loads((folder / f"{of}.json").read_text())
        doc["id"] = name
        (folder / f"{of}.json").unlink()
        write(folder / f"{name}.json", doc)
        return folder


def write(path: Path, doc: dict[str, Any]) -> None:
    """A JSON document, laid out as those of catalogues are."""
    write_json(path, doc)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON document."""
    doc = json.loads(path.read_text())
    change(doc)
    write(path, doc)


def tidy(path: Path) -> None:
    """Leave the latents alone in an Item: no raw assets, no time of writing."""

    def change(doc: dict[str, Any]) -> None:
        doc["assets"] = {k: a for k, a in doc["assets"].items() if "data" not in a["roles"]}
        for asset in doc["assets"].values():
            for key in ("latent:sources", "latent:input", "created", "updated"):
                asset.pop(key, None)
        doc["properties"] = {k: v for k, v in doc["properties"].items() if k not in ("created", "updated")}
        doc["links"] = [link for link in doc["links"] if link["rel"].startswith("latent:")]
        doc.pop("collection", None)

    edit(path, change)


@contextmanager
def predictable() -> Iterator[None]:
    """Random bytes that are the same in each run: for keys that protect nothing."""
    numbers = itertools.count()

    def draw(n: int) -> bytes:
        return hashlib.shake_256(f"kit {next(numbers)}".encode()).digest(n)

    with mock.patch.object(os, "urandom", draw):
        yield


# -- the cases -------------------------------------------------------------------------------------------------


@case("fitted codec")
def fitted(k: Kitchen) -> None:
    """Four bands, whose upper left corner is off the lattice of cells."""
    k.pixels(sample(75, 90), s2_10m_4b(), psnr=42)


@case("latents")
def latents(k: Kitchen) -> None:
    """The store of the case before, decoded as far as the latents."""
    k.done(item="../fitted/fitted.json", want="latents")


@case("lin")
def lin_two_bands(k: Kitchen) -> None:
    """A codec without a fit."""
    fields = sample(61, 83, bands=("B04", "B08"))
    k.pixels(fields, lin([Band(n, nodata=0, scale=1e-4) for n in fields], mean=1000.0), psnr=40)


@case("nodata")
def nodata_wedge(k: Kitchen) -> None:
    """A wedge and a hole without data in all bands."""
    fields = sample(72, 72)
    y, x = np.mgrid[:72, :72]
    for v in fields.values():
        v[(y + 2 * x < 60) | ((y - 50) ** 2 + (x - 40) ** 2 < 60)] = 0
    k.pixels(fields, s2_10m_4b(), psnr=42)


@case("native grids")
def native_odd(k: Kitchen) -> None:
    """Odd numbers of pixels of 10 m, two bands of 20 m, and one of 60 m, which needs a group."""
    fields = {
        "B02": smooth(77, 53, 1).astype(np.uint16),
        "B05": smooth(39, 27, 2).astype(np.uint16),
        "B06": smooth(39, 27, 3).astype(np.uint16),
        "B01": smooth(13, 9, 4).astype(np.uint16),
    }
    grids = {"B05": (20.0, -10.0, 10.0), "B06": (20.0, -10.0, 10.0), "B01": (60.0, -30.0, -50.0)}
    codec = lin([Band(n, nodata=0, scale=1e-4) for n in fields], step=40.0, mean=1000.0)
    k.encode(k.item(fields, grids=grids), codec)
    k.done()


# -- all of it -------------------------------------------------------------------------------------------------


def build(kit: Path, raw: Path) -> None:
    """Make all cases in an empty folder."""
    done: list[dict[str, Any]] = []
    for feature, name, recipe in _CASES:
        kitchen = Kitchen(kit, raw, feature, name, " ".join((recipe.__doc__ or "").split()))
        with predictable():
            recipe(kitchen)
        done += [{**c, "folder": f"{COLLECTION}/{c['name']}"} for c in kitchen.cases]
    for doc in done:
        if "expected" in doc:
            doc["expected"] = f"{doc['folder']}/{doc['expected']}"
    (kit / "catalog.json").unlink()
    (kit / COLLECTION / "collection.json").unlink()
    write(kit / "manifest.json", {"format": "latent-conformance-1", "cases": done})


def main() -> None:
    """Build in a temporary folder, then replace."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", default=KIT)
    out = parser.parse_args().out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        kit = Path(folder) / "kit"
        build(kit, Path(folder) / "raw")
        for name in ("cases", "codecs"):
            shutil.rmtree(out / name, ignore_errors=True)
            shutil.copytree(kit / name, out / name)
        shutil.copy(kit / "manifest.json", out / "manifest.json")
    size = sum(p.stat().st_size for n in ("cases", "codecs") for p in (out / n).rglob("*") if p.is_file())
    print(f"{out}: {size:,} bytes")


if __name__ == "__main__":
    main()
