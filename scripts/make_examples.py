"""Make the examples of the extension anew: STAC documents whose links lead to small stores that decode.

    python scripts/make_examples.py [OUT]

OUT is ``extensions/latent`` when left out; its folders ``examples`` and ``data`` are replaced. The first has the documents, the second
what they lead to: raw files, stores and codecs. Sources are the real Sentinel-2 sample in ``catalogs/sample/raw`` and
generated fields. The key of the encrypted example is 32 bytes from 0 to 31.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import rasterio
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent import adopt, encode, open_codec
from stac_latent.aliases import Array
from stac_latent.secure import Key
from stac_latent.system.links import local_path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "catalogs" / "sample" / "raw" / "spyndex-s2-sample"
FOUR = ("B02", "B03", "B04", "B08")
KEY = bytes(range(32))
WHEN = dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC)
_LEFT, _TOP = 600_030.0, 4_499_970.0
_TIMES = ("created", "updated", "processing:software")


def sample(
    height: int, width: int, y: int = 40, x: int = 60, bands: Sequence[str] = FOUR
) -> dict[str, Array]:
    """Bands of a window of the real sample, uint16."""
    out = {}
    for name in bands:
        with rasterio.open(SAMPLE / f"{name}.tif") as src:
            out[name] = src.read(1)[y : y + height, x : x + width]
    return out


def raw_item(
    folder: Path, name: str, fields: dict[str, Array], *, gsd: dict[str, int] | None = None, day: int = 1
) -> pystac.Item:
    """An Item with a GeoTIFF for each band, in ``folder``."""
    (folder / name).mkdir(parents=True)
    item = None
    for band, values in fields.items():
        size = (gsd or {}).get(band, 10)
        box = GeoBox(values.shape, Affine(size, 0, _LEFT, 0, -size, _TOP), "EPSG:32618")
        if item is None:
            outline = box.footprint("EPSG:4326", npoints=4)
            ring = [[round(x, 6), round(y, 6)] for x, y in outline.json["coordinates"][0][:-1]]
            xs, ys = zip(*ring, strict=True)
            place = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
            when = WHEN.replace(day=day)
            item = pystac.Item(
                name, place, [min(xs), min(ys), max(xs), max(ys)], when, {}, collection="examples"
            )
        path = folder / name / f"{band}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype,
            nodata=0, crs="EPSG:32618", transform=box.affine, compress="deflate", predictor=2,
        ) as out:  # fmt: skip
            out.write(values, 1)
        about = {
            "bands": [{"name": band}], "data_type": values.dtype.name, "nodata": 0, "raster:scale": 1e-4, "raster:offset": 0.0,
            "proj:code": "EPSG:32618", "proj:shape": list(values.shape), "proj:transform": list(box.affine)[:6],
        }  # fmt: skip
        item.add_asset(
            band,
            pystac.Asset(str(path), roles=["data"], media_type=pystac.MediaType.GEOTIFF, extra_fields=about),
        )
    assert item is not None  # noqa: S101 - there is a band
    item.stac_extensions = [
        f"https://stac-extensions.github.io/{n}/schema.json" for n in ("projection/v2.0.0", "raster/v2.0.0")
    ]
    item.set_self_href(str(folder / name / "item.json"))
    return item


def alphaearth_file(folder: Path) -> Path:
    """A GeoTIFF of int8 codes with overviews, as AlphaEarth has them."""
    path = folder / "annual" / "2024" / "18N" / "embedding.tiff"
    path.parent.mkdir(parents=True)
    x = np.random.default_rng(0).normal(size=(64, 24, 20))
    codes = (
        np.sign(x) * np.clip(np.rint(np.sqrt(np.abs(x) / np.linalg.norm(x, axis=0)) * 127.5), 0, 127)
    ).astype(np.int8)
    codes[:, 2:4, 5:8] = -128
    with rasterio.open(
        path, "w", driver="GTiff", height=24, width=20, count=64, dtype="int8", nodata=-128, crs="EPSG:32618",
        transform=Affine(10, 0, _LEFT, 0, 10, _TOP - 240), interleave="pixel", compress="deflate",
    ) as out:  # fmt: skip
        out.write(codes)
        out.build_overviews([2], rasterio.enums.Resampling.nearest)
    return path


def scaled_file(folder: Path) -> Path:
    """A NumPy array of int8 codes and one of their scales, as TESSERA has them."""
    name = "grid_-73.75_40.65"
    path = folder / "global_0.1_degree_representation" / "2024" / name / f"{name}.npy"
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(1)
    x = rng.normal(0, 3, (9, 12, 128)).astype(np.float32)
    scale = np.abs(x).max(axis=2) / np.float32(127)
    np.save(path, np.rint(x / scale[..., None]).astype(np.int8))
    np.save(path.with_name(f"{name}_scales.npy"), scale)
    (folder / "tessera_metadata.json").write_text('{"dataset_version": "v1", "dataset_variant": "vultr"}')
    mask = folder / "global_0.1_degree_tiff_all" / f"{name}.tiff"
    mask.parent.mkdir(parents=True)
    with rasterio.open(
        mask, "w", driver="GTiff", height=9, width=12, count=1, dtype="uint8", crs="EPSG:32618",
        transform=Affine(10, 0, _LEFT, 0, -10, _TOP),
    ) as out:  # fmt: skip
        out.write(np.ones((1, 9, 12), np.uint8))
    return path


def cube_store(folder: Path) -> Path:
    """A Zarr group with an array (time, band, y, x) of int8 codes, of two years; elsewhere, since vectors of one space have to agree."""
    left = _LEFT + 10_000
    group = zarr.open_group(str(folder / "years.zarr"), mode="w", zarr_format=3)
    group.attrs.update({"proj:code": "EPSG:32618", "spatial:transform": [10.0, 0.0, left, 0.0, -10.0, _TOP]})
    codes = np.random.default_rng(2).integers(-127, 128, (2, 64, 8, 10)).astype(np.int8)
    array = group.create_array(
        "embeddings", shape=codes.shape, dtype="int8", chunks=(1, 64, 8, 10), fill_value=-128,
        dimension_names=("time", "band", "y", "x"),
    )  # fmt: skip
    array[:] = codes
    for name, values, about in (
        ("time", np.array([2023, 2024], np.int32), {}),
        ("y", _TOP - 10 * (np.arange(8) + 0.5), {}),
        ("x", left + 10 * (np.arange(10) + 0.5), {}),
    ):
        axis = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=values.shape,
            dimension_names=(name,),
            attributes=about,
        )
        axis[:] = values
    return folder / "years.zarr"


def points_file(folder: Path) -> Path:
    """A table with longitude, latitude, year and 64 columns of numbers."""
    folder.mkdir(parents=True)
    vectors = np.random.default_rng(3).normal(size=(12, 64)).astype(np.float32)
    columns: dict[str, Any] = {
        "lon": -73.8 + 0.01 * np.arange(12), "lat": np.full(12, 40.6), "year": np.repeat([2023, 2024], 6),
    }  # fmt: skip
    columns |= {f"A{i:02d}": vectors[:, i] for i in range(64)}
    pq.write_table(pa.table(columns), folder / "points.parquet")
    return folder / "points.parquet"


@contextmanager
def predictable() -> Iterator[None]:
    """Random bytes that are the same in each run: for a key that protects nothing."""
    numbers = itertools.count()
    with mock.patch.object(
        os, "urandom", lambda n: hashlib.shake_256(f"example {next(numbers)}".encode()).digest(n)
    ):
        yield


def make(work: Path) -> Iterator[tuple[str, pystac.Item]]:
    """Everything below ``work``; each Item with the name of its document."""
    raw, cat = work / "data" / "raw", work / "catalog"
    scene = raw_item(raw, "scene", sample(96, 88))
    encode(scene, "s2-10m-4b", cat, psnr=44, checks=["psnr>=40:refuse", "mean_bias<=1"])
    (item,) = encode(scene, "s2-10m-embed", cat, asset="embedding")
    yield "item", item
    dct = open_codec("dct", bands=list(FOUR), step=96, mean=1500)
    (item,) = encode(scene, dct, cat, asset="coarse", mode="derived", resolution=20, resampling="average")
    yield "item-derived", item
    two = open_codec("lin", bands=["B04", "B08"], mean=1500)
    bounded = raw_item(raw, "bounds", sample(48, 56, bands=("B04", "B08")))
    (item,) = encode(bounded, two, cat, error_bound={"B04": 0, "*": "1%"}, psnr=40)
    yield "item-bounds", item
    odd = {k: v[::-1].copy() for k, v in sample(64, 64).items()}
    odd["B02"], odd["B08"] = (
        odd["B08"],
        (np.indices((64, 64)).sum(axis=0) * 7919 % 9001 + 1).astype(np.uint16),
    )
    (item,) = encode(
        raw_item(raw, "fallback", odd), "s2-10m-4b", cat, psnr=42, guard="fallback", fallback_bound=4
    )
    yield "item-fallback", item
    rough = sample(176, 176, 60, 60, bands=("B04", "B08"))
    later = {k: (v.astype(np.uint32) * 103 // 100).astype(np.uint16) for k, v in rough.items()}
    dates = [raw_item(raw, f"day-{d}", f, day=d) for d, f in ((1, rough), (6, later))]
    for item in encode(dates, two, cat, references=2, psnr=52):
        yield f"item-{item.id}", item
    secret = raw_item(raw, "encrypted", sample(40, 48, bands=("B04", "B08")))
    (item,) = encode(secret, two, cat, psnr=40, key=Key(KEY))
    yield "item-encrypted", item
    chips = [
        raw_item(raw, f"chip-{i}", sample(32, 32, 40 + 32 * i, bands=("B04", "B08")), day=i + 1)
        for i in range(2)
    ]
    for item in encode(chips, two, cat, pack=2, psnr=40):
        yield f"item-{item.id}", item
    gsd = {"B04": 10, "B05": 20, "B01": 60}
    fields = sample(60, 72, bands=("B04",))
    fields |= {b: fields["B04"][:: n // 10, :: n // 10] + np.uint16(n) for b, n in gsd.items() if n > 10}
    native = raw_item(raw, "native", fields, gsd=gsd)
    (item,) = encode(native, open_codec("lin", bands=list(gsd), mean=1500), cat, psnr=42)
    yield "item-native", item
    data = work / "data"
    (item,) = adopt("alphaearth", alphaearth_file(data / "alphaearth"), cat, collection="examples")
    yield "item-embedding", item
    (item,) = adopt("tessera", scaled_file(data / "tessera"), cat, collection="examples")
    yield "item-scales", item
    for item in adopt("alphaearth-zarr", cube_store(data / "years"), cat, collection="examples"):
        yield (
            f"item-array-{item.datetime.year if item.datetime else item.properties['start_datetime'][:4]}",
            item,
        )
    (item,) = adopt("alphaearth-points", points_file(data / "points"), cat, collection="examples")
    yield "item-table", item


def _as_javascript(value: Any) -> Any:
    """Values as JavaScript writes them: it knows one type of number, and 27.0 is 27."""
    if isinstance(value, dict):
        return {k: _as_javascript(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_as_javascript(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Gallery:
    """Documents in one flat folder, and what they lead to beside it."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out = work, out
        self.names: dict[str, str] = {}
        self.codecs: dict[Path, tuple[str, dict[str, Any]]] = {}

    def data(self, path: Path) -> str:
        """Copy a file or store to the data, and its address as seen from a document."""
        home = (
            self.work / "data"
            if path.is_relative_to(self.work / "data")
            else self.work / "catalog" / "examples"
        )
        place = path.relative_to(home)
        target = self.out / "data" / place
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target)
        return f"../data/{place.as_posix()}"

    def codec(self, href: str) -> tuple[str, dict[str, Any]]:
        """Address of the document of a codec, and its ``file:`` fields; it is written when it is first asked for."""
        path = local_path(href)
        if path not in self.codecs:
            doc = json.loads(path.read_text())
            folder = self.out / "data" / "codecs" / path.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            for asset in doc["assets"].values():
                name = Path(asset["href"]).name
                shutil.copyfile(path.parent / name, folder / name)
                asset["href"] = f"../data/codecs/{path.parent.name}/{name}"
            doc["links"] = [
                link
                for link in doc["links"]
                if link["rel"] not in ("root", "parent", "self", "collection", "item")
            ]
            doc["properties"] = {
                k: v for k, v in doc["properties"].items() if k not in ("created", "updated")
            }
            name = f"codec-{path.parent.name.rpartition('-')[0]}.json"
            data = self.write(name, doc)
            fields = {"file:size": len(data), "file:checksum": "1220" + hashlib.sha256(data).hexdigest()}
            self.codecs[path] = (f"./{name}", fields)
        return self.codecs[path]

    def write(self, name: str, doc: dict[str, Any]) -> bytes:
        """A document, as stac-node-validator lays it out."""
        data = (json.dumps(_as_javascript(doc), indent=2, ensure_ascii=False) + "\n").encode()
        (self.out / "examples" / name).write_bytes(data)
        return data

    def item(self, name: str, item: pystac.Item) -> dict[str, Any]:
        """An Item with its stores; the document."""
        doc = item.to_dict(transform_hrefs=False)
        home = item.get_self_href() or ""
        for key, asset in list(doc["assets"].items()):
            if asset.get("roles") == ["thumbnail"]:
                del doc["assets"][key]
                continue
            asset["href"] = self.data(local_path(item.assets[key].get_absolute_href() or ""))
            for field in _TIMES:
                asset.pop(field, None)
        links = [{"rel": "collection", "href": "./collection.json", "type": "application/json"}]
        for link in item.links:
            said = link.to_dict(transform_href=False)
            target = pystac.utils.make_absolute_href(str(said["href"]), home)
            if link.rel in ("latent:decoder", "latent:encoder"):
                href, fields = self.codec(target)
                links.append({**said, "href": href, **fields})
            elif link.rel == "latent:reference":
                links.append({**said, "href": f"./{self.names[target]}.json"})
            elif link.rel == "store":
                links.append({**said, "href": self.data(local_path(target))})
            elif link.rel == "derived_from" and not target.startswith("http"):
                links.append({**said, "href": "./item.json"})
            elif target.startswith("http"):
                links.append(said)
        doc["links"] = links
        doc["properties"] = {k: v for k, v in doc["properties"].items() if k not in _TIMES}
        doc["collection"] = "examples"
        self.names[home] = name
        self.write(f"{name}.json", doc)
        return doc


def collection_of(path: Path) -> dict[str, Any]:
    """The document of the Collection, for the flat folder."""
    doc: dict[str, Any] = json.loads(path.read_text())
    doc["links"] = []
    doc["description"] = "Examples of the latent extension: each Item leads to data that decode."
    for asset in (doc.get("item_assets") or {}).values():
        for field in _TIMES:
            asset.pop(field, None)
    return doc


def main(out: Path) -> None:
    """Replace the examples of the extension in a folder."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), predictable():
        warnings.simplefilter("ignore")
        work = Path(folder).resolve()
        for name in ("examples", "data"):
            shutil.rmtree(out / name, ignore_errors=True)
            (out / name).mkdir(parents=True)
        gallery = Gallery(work, out)
        made = list(make(work))
        order = sorted(made, key=lambda pair: any(link.rel == "latent:reference" for link in pair[1].links))
        for name, item in order:
            gallery.item(name, item)
        gallery.write("collection.json", collection_of(work / "catalog" / "examples" / "collection.json"))
    size = sum(p.stat().st_size for n in ("examples", "data") for p in (out / n).rglob("*") if p.is_file())
    print(f"{out}: {size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "extensions" / "latent").resolve())
