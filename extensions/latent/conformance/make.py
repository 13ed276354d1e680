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
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pystac
import rasterio
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

sys.path.insert(0, str(Path(__file__).parent))

from decode import decode, pack

from stac_latent.aliases import Array
from stac_latent.catalog.encode.encode import encode
from stac_latent.catalog.tree import write_json
from stac_latent.codec.codec import Codec
from stac_latent.codec.shipped import dct, lin, s2_10m_4b, s2_10m_embed, wavelet
from stac_latent.errors import GuardWarning
from stac_latent.field.rate_target import Target
from stac_latent.secure import Key
from stac_latent.spec import Band
from stac_latent.stages.rans.stage import Rans
from stac_latent.stages.rans.tables import laplace_tables
from stac_latent.stages.transform.block_dct import BlockDCT
from stac_latent.stages.transform.klt import SpectralKLT
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.stages.transform.quantise import Power, Uniform
from stac_latent.store.zarr.group import StoreLayout
from stac_latent.system.digests import multihash

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
            for key in ("latent:source_bands", "latent:input_digest", "created", "updated"):
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
    k.pixels(sample(61, 70), s2_10m_4b(), psnr=42)


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


@case("nodata")
def nodata_one_band(k: Kitchen) -> None:
    """A hole in one band alone: the mask has a plane for each band."""
    fields = sample(56, 64)
    fields["B08"][20:35, 10:50] = 0
    k.pixels(fields, s2_10m_4b(), psnr=40)


def number(
    name: str, values: Array, nodata: float | None, scale: float | None = None
) -> tuple[dict[str, Array], Codec]:
    """A field of one band, and a codec for it."""
    band = Band(name, data_type=values.dtype.name, nodata=nodata, scale=scale or 1.0)
    return {name: values}, lin([band], step=4.0, mean=0.0)


def holed(values: Array, nodata: float) -> Array:
    """A corner and a hole without data."""
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    return np.where((x + y < 20) | ((y - 25) ** 2 + (x - 30) ** 2 < 40), values.dtype.type(nodata), values)


def kelvin(height: int, width: int, step: float) -> tuple[dict[str, Array], Codec]:
    """A field of temperatures, float32 with NaN where there are no data, and a codec for it."""
    values = (smooth(height, width, 4) / np.float32(100) + np.float32(280)).astype(np.float32)
    band = Band("t2m", data_type="float32", nodata=math.nan)
    return {"t2m": holed(values, math.nan)}, lin([band], step=step, mean=280.0, unit=0.25)


@case("nodata")
def nodata_int16(k: Kitchen) -> None:
    """int16, nodata -9999, values on both sides of zero."""
    fields, codec = number("dem", holed((smooth(40, 50, 1) - 1000).astype(np.int16), -9999), -9999)
    k.pixels(fields, codec, nodata=-9999, scale=None)


@case("nodata")
def nodata_int16_zero(k: Kitchen) -> None:
    """int16, nodata 0 amidst the values: a valid pixel that decodes to 0 is 1."""
    fields, codec = number("dem", holed((smooth(40, 50, 2) - 1000).astype(np.int16), 0), 0)
    k.pixels(fields, codec, nodata=0, scale=None)


@case("nodata")
def nodata_uint8(k: Kitchen) -> None:
    """uint8, nodata 255, the largest value: a valid pixel that decodes to 255 is 254."""
    values = np.minimum(smooth(40, 50, 3) / 4, 254).astype(np.uint8)
    values[5:30, 32:] = 254
    fields, codec = number("grey", holed(values, 255), 255)
    k.pixels(fields, codec, nodata=255, scale=None)


@case("nodata")
def nodata_float32(k: Kitchen) -> None:
    """float32, nodata NaN."""
    k.pixels(*kelvin(40, 50, 0.5), nodata=math.nan, scale=None)


@case("nodata")
def nodata_float32_number(k: Kitchen) -> None:
    """float32, nodata -9999."""
    values = (smooth(40, 50, 5) / np.float32(100)).astype(np.float32)
    band = Band("t2m", data_type="float32", nodata=-9999.0)
    k.pixels({"t2m": holed(values, -9999)}, lin([band], step=0.5, unit=0.25), nodata=-9999.0, scale=None)


@case("nodata")
def nodata_everywhere(k: Kitchen) -> None:
    """No valid pixel at all in the second of two tiles."""
    values = smooth(24, 420, 6).astype(np.uint16)
    values[:, 180:] = 0
    fields, codec = number("B04", values, 0, 1e-4)
    k.pixels(fields, codec)


@case("native grids")
def native_groups(k: Kitchen) -> None:
    """Bands of 20 m shifted by 10 m and of 30 m, which have groups of their own beside that of 10 m and 20 m."""
    fields = {
        "B02": smooth(43, 51, 1), "B05": smooth(22, 26, 2), "B8A": smooth(21, 25, 3), "T": smooth(15, 17, 4),
    }  # fmt: skip
    fields = {n: v.astype(np.uint16) for n, v in fields.items()}
    grids = {"B05": (20.0, -10.0, 10.0), "B8A": (20.0, 0.0, 10.0), "T": (30.0, -30.0, -20.0)}
    codec = lin([Band(n, nodata=0, scale=1e-4) for n in fields], step=40.0, mean=1000.0)
    k.encode(k.item(fields, grids=grids), codec)
    k.done()


@case("native grids")
def native_nodata(k: Kitchen) -> None:
    """Holes of their own in a band of 10 m and in one of 20 m: masks lie on the asset's grid."""
    fields = {"B02": smooth(48, 56, 1).astype(np.uint16), "B05": smooth(24, 28, 2).astype(np.uint16)}
    fields["B02"][:9, 20:40] = 0
    fields["B05"][15:, :7] = 0
    codec = lin([Band(n, nodata=0, scale=1e-4) for n in fields], step=40.0, mean=1000.0)
    k.encode(k.item(fields, grids={"B05": (20.0, -10.0, 10.0)}), codec)
    k.done()


@case("tiles")
def tiles(k: Kitchen) -> None:
    """Several tiles, the last of them smaller, and more than one shard along x."""
    fields, codec = number("B04", sample(16, 100, bands=["B04"])["B04"], 0, 1e-4)
    fields["B04"] = np.tile(fields["B04"], (1, 21))
    k.pixels(fields, codec, psnr=36)


@case("weights of bands")
def band_weights(k: Kitchen) -> None:
    """Payloads that have weights of bands."""
    codec = s2_10m_4b()
    k.pixels(sample(48, 56), codec.with_target(Target(step=60.0), band_weights=[1.0, 0.5, 2.0, 1.5]))


@case("lanes")
def lanes(k: Kitchen) -> None:
    """A fine step: as many as eight interleaved states, and tables that adapt."""
    fields = sample(72, 80, bands=("B03", "B08"))
    k.pixels(fields, lin([Band(n, nodata=0, scale=1e-4) for n in fields], mean=1000.0), step=4.0)


@case("escapes")
def escapes(k: Kitchen) -> None:
    """Noise over all of 16 bits: every symbol is an escape."""
    fields, codec = number("noise", noise(40, 48, 1, 65_000) + np.uint16(1), 0)
    k.pixels(fields, codec, scale=None, step=1.0)


@case("a tile in parts")
def parts(k: Kitchen) -> None:
    """Bands of 20 and 60 m that nearest-neighbour resampling repeated on pixels of 10 m."""
    fields = sample(96, 96, bands=("B02", "B04"))
    fields["B05"] = np.kron(sample(48, 48, 100, 100, ["B08"])["B08"], np.ones((2, 2), np.uint16))
    fields["B01"] = np.kron(sample(16, 16, 150, 30, ["B02"])["B02"], np.ones((6, 6), np.uint16))
    k.pixels(fields, lin([Band(n, nodata=0, scale=1e-4) for n in fields], mean=1000.0), psnr=48)
    stored = (k.kit / COLLECTION / k.name / "latent.zarr" / "latent" / "c" / "0" / "0" / "0").read_bytes()
    if b"SLR\x01" not in stored:
        raise SystemExit("the tile of the case 'parts' is not coded in parts")


@case("plain latents")
def plain(k: Kitchen) -> None:
    """Latents that are not entropy coded."""
    fields, codec = number("B04", sample(37, 45, bands=["B04"])["B04"], 0, 1e-4)
    k.pixels(fields, codec, payload="plain")


@case("plain latents")
def unsharded(k: Kitchen) -> None:
    """Plain latents in a store without shards."""
    fields, codec = number("B04", sample(37, 45, bands=["B04"])["B04"], 0, 1e-4)
    k.pixels(fields, codec, payload="plain", layout=StoreLayout(sharded=False))


@case("embedding")
def embedding_power(k: Kitchen) -> None:
    """int8 by a power law; a corner without data."""
    fields = sample(75, 90)
    for v in fields.values():
        v[:20, :30] = 0
    k.encode(k.item(fields), s2_10m_embed(), asset="embedding")
    k.done(asset="embedding", want="latents", tolerance=1e-6)


@case("embedding")
def embedding_linear(k: Kitchen) -> None:
    """int8, linear, a scale for each channel; no array `valid`."""
    keep = [0, 1, 8, 64, 65, 72]
    stages = (
        Normalise([1000.0] * 2, [1.0] * 2),
        BlockDCT(8, 2, keep),
        Power([80.0, 7.5, 7.5, 80.0, 7.5, 7.0]),
    )
    bands = tuple(Band(n, nodata=0, scale=1e-4) for n in ("B04", "B08"))
    codec = Codec("linear", stages, bands, kind="embedding", dimensions=len(keep))
    k.encode(k.item(sample(50, 66, bands=("B04", "B08"))), codec, asset="embedding")
    k.done(asset="embedding", want="latents", tolerance=1e-6)


@case("error bound")
def bound_absolute(k: Kitchen) -> None:
    """A residual keeps an absolute error of 5; a hole without data."""
    fields = sample(56, 64)
    for v in fields.values():
        v[20:30, 10:40] = 0
    k.pixels(fields, s2_10m_4b(), error_bound=5, psnr=38)


@case("error bound")
def bound_relative(k: Kitchen) -> None:
    """A residual keeps an error of one per cent of the value."""
    fields = sample(56, 64, bands=("B04", "B08"))
    k.pixels(
        fields, lin([Band(n, nodata=0, scale=1e-4) for n in fields], mean=1000.0), error_bound="1%", psnr=36
    )


@case("error bound")
def bound_float(k: Kitchen) -> None:
    """float32 within 0.02, NaN where there are no data, two tiles."""
    k.pixels(*kelvin(18, 396, 1.0), nodata=math.nan, scale=None, error_bound=0.02)


@case("error bound")
def bound_native(k: Kitchen) -> None:
    """Native grids of 10, 20 and 60 m, each group with residuals of its own."""
    fields = {"B02": smooth(48, 56, 1), "B05": smooth(24, 28, 2), "B01": smooth(8, 10, 3)}
    fields = {n: v.astype(np.uint16) for n, v in fields.items()}
    grids = {"B05": (20.0, -10.0, 10.0), "B01": (60.0, -30.0, -50.0)}
    codec = lin([Band(n, nodata=0, scale=1e-4) for n in fields], step=80.0, mean=1000.0)
    k.encode(k.item(fields, grids=grids), codec, error_bound=3)
    k.done()


def residual_of(k: Kitchen) -> bytes:
    """The first residual of the case's store."""
    array = zarr.open_group(str(k.kit / COLLECTION / k.name / "latent.zarr"), mode="r")["residual"]
    data = np.asarray(array[0, 0]).tobytes()
    return data[4 : 4 + int.from_bytes(data[:4], "little")]


@case("error bound")
def bound_kept(k: Kitchen) -> None:
    """Latents that keep the bound by themselves: a residual of form 0, which is a checksum of the base."""
    k.pixels(sample(32, 40), s2_10m_4b(), error_bound=400, psnr=50)
    if residual_of(k)[0] != 0:
        raise SystemExit("the residual of the case 'bound-kept' is not of form 0")


@case("error bound")
def bound_fold(k: Kitchen) -> None:
    """Rows and columns that all bands repeat, which the residual leaves out; a hole without data."""
    fields = {
        n: np.kron(v, np.ones((2, 3), np.uint16)) for n, v in sample(30, 20, bands=("B04", "B08")).items()
    }
    for v in fields.values():
        v[10:16, 30:42] = 0
    k.pixels(
        fields, lin([Band(n, nodata=0, scale=1e-4) for n in fields], mean=1000.0), error_bound=2, psnr=36
    )
    found = residual_of(k)
    if (found[0], found[5]) != (1, 1):
        raise SystemExit("the residual of the case 'bound-fold' has no fold")


@case("sparse fallback")
def fallback(k: Kitchen) -> None:
    """Two tiles, of which one is unlike what the codec was fitted to and has a residual."""
    fields = sample(16, 230, 100, 30)
    fields = {
        n: np.hstack([v, noise(16, 162, i, 9000) + np.uint16(1)]) for i, (n, v) in enumerate(fields.items())
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuardWarning)
        k.pixels(fields, s2_10m_4b(), guard="fallback", fallback_bound=400, psnr=36)
    path = k.kit / COLLECTION / k.name / f"{k.name}.json"
    if json.loads(path.read_text())["assets"]["latent"]["latent:fallback_tiles"] != 1:
        raise SystemExit("not one tile of the case 'fallback' is kept by a residual")


@case("lossless")
def lossless(k: Kitchen) -> None:
    """A residual leaves no error at all."""
    k.pixels(sample(48, 40), s2_10m_4b(), error_bound=0, psnr=40)


@case("lossless")
def lossless_float(k: Kitchen) -> None:
    """float32 with infinite values and large ones, bit for bit."""
    values = (smooth(24, 30, 4) / np.float32(7)).astype(np.float32)
    values[3, 4], values[5, 6], values[7, 8] = math.inf, -3e38, -0.0
    k.pixels(
        {"v": values},
        lin([Band("v", data_type="float32", nodata=None)], step=4.0, unit=1.0),
        nodata=None,
        scale=None,
        error_bound=0,
    )


@case("lossless")
def lossless_bits(k: Kitchen) -> None:
    """float32, bit for bit, by numbers in the order of floats: values on both sides of zero."""
    y, x = np.mgrid[:56, :64]
    values = (np.sin(y / 9.0) * np.cos(x / 7.0) * 4 + (x - 30) / 8.0).round(2).astype(np.float32)
    codec = lin([Band("v", data_type="float32", nodata=None)], step=0.02, mean=0.0, unit=0.01)
    k.pixels({"v": values}, codec, nodata=None, scale=None, error_bound=0)
    found = residual_of(k)
    side = int.from_bytes(found[8:12], "little")
    if (found[0], found[5]) != (1, 0) or zlib.decompress(found[28 : 28 + side])[0] != 3:
        raise SystemExit("the residual of the case 'lossless-bits' is not of kind 3")


@case("rans-1")
def rans_dct(k: Kitchen) -> None:
    """A block cosine transform under the entropy coder of stac-latent-rans-1."""
    fields = sample(61, 75, bands=("B04", "B08"))
    k.pixels(fields, dct([Band(n, nodata=0, scale=1e-4) for n in fields], step=48, mean=1000))


def small_wavelet() -> Codec:
    """An integer wavelet of one band, with few tables."""
    made = wavelet([Band("B04", nodata=0, scale=1e-4)], step=48, mean=1000)
    coder = Rans(laplace_tables(14), np.full(64, 4), np.array([0]))
    return replace(made, stages=(*made.stages[:-1], coder))


@case("latents")
def rans_latents(k: Kitchen) -> None:
    """Symbols of stac-latent-rans-1, dequantised to units."""
    k.done(item="../rans-dct/rans-dct.json", want="latents")


@case("rans-1")
def rans_wavelet(k: Kitchen) -> None:
    """An integer wavelet under the same: pixels near the border of a chunk need cells of the next."""
    k.pixels({"B04": np.tile(sample(40, 150, bands=["B04"])["B04"], (1, 2))}, small_wavelet())


@case("plain latents")
def plain_symbols(k: Kitchen) -> None:
    """Symbols of an integer wavelet, int16, that are not entropy coded."""
    k.pixels(sample(45, 53, bands=["B04"]), small_wavelet(), payload="plain")


@case("rans-1")
def rans_rotated(k: Kitchen) -> None:
    """A rotation of the bands before the cosine transform; some channels left out, a step for each; a step that lets escapes appear."""
    fields = sample(48, 56)
    fields["B04"][8:12, 8:12] = 60_000
    half = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.int32) << 13
    keep = [c for c in range(256) if c % 64 < 20 or c < 64]
    step = [40 + 3 * (c % 64) for c in keep]
    coder = Rans(laplace_tables(10), np.full(len(keep), 4), np.array([0, 64, 84]))
    stages = (
        Normalise([1000.0] * 4, [1.0, 1.0, 2.0, 0.5]),
        SpectralKLT(half),
        BlockDCT(8, 4, keep),
        Uniform(step, 6),
        coder,
    )
    bands = tuple(Band(n, nodata=0, scale=1e-4) for n in S2)
    k.pixels(fields, Codec("rotated", stages, bands, dimensions=len(keep)))


@case("chips")
def chips(k: Kitchen) -> None:
    """Items that share a store; one has a hole."""
    items = []
    for i in range(3):
        fields = sample(32, 40, 20 + 60 * i, 30 + 50 * i, ("B04", "B08"))
        if i == 1:
            for v in fields.values():
                v[:10, :10] = 0
        items.append(k.item(fields, name=f"chip-{i}"))
    codec = lin([Band(n, nodata=0, scale=1e-4) for n in ("B04", "B08")], mean=1000.0)
    k.encode(items, codec, pack=3, psnr=38)
    for i in (0, 1):
        k.done(f"chip-{i}")


@case("encryption")
def encrypted(k: Kitchen) -> None:
    """Chunks that are encrypted; native grids, so that there is a group."""
    fields = {"B02": smooth(40, 48, 1).astype(np.uint16), "B01": smooth(7, 9, 3).astype(np.uint16)}
    fields["B02"][:9, 20:40] = 0
    codec = lin([Band(n, nodata=0, scale=1e-4) for n in fields], step=40.0, mean=1000.0)
    k.encode(k.item(fields, grids={"B01": (60.0, -30.0, -50.0)}), codec, key=Key(KEY))
    k.done(key=KEY)
    k.done("encrypted-no-key", item="../encrypted/encrypted.json", refused="there is no key")
    k.done(
        "encrypted-wrong-key",
        item="../encrypted/encrypted.json",
        key=KEY[::-1],
        refused="the key is another one",
    )
    folder = k.copied(k.name, "encrypted-changed")
    edit(
        folder / f"{folder.name}.json",
        lambda doc: doc["assets"]["latent"]["bands"][0].update({"raster:scale": 0.001}),
    )
    k.done(folder.name, key=KEY, refused="a field of the asset was changed: the data key does not open")
    folder = k.copied(k.name, "encrypted-moved")
    (group,) = (folder / "latent.zarr").glob("g*")
    ours, theirs = (p / "latent" / "c" / "0" / "0" / "0" for p in (folder / "latent.zarr", group))
    data = ours.read_bytes(), theirs.read_bytes()
    ours.write_bytes(data[1])
    theirs.write_bytes(data[0])
    k.done(
        folder.name, key=KEY, refused="two chunks, each whole, have changed places: they do not open there"
    )
    folder = k.copied(k.name, "encrypted-metadata")
    store_of(folder, lambda array: array.update(fill_value=0.0))
    k.done(
        folder.name,
        key=KEY,
        refused="the metadata of an array were changed: the manifest has another checksum",
    )


@case("key frames")
def date(k: Kitchen) -> None:
    """A date that was coded against a key frame, in two tiles of which one stands alone; and the key frame."""
    first = (smooth(24, 420, 7) + noise(24, 420, 9, 700)).astype(np.uint16)
    later = (first * 0.9 + 60).astype(np.uint16)
    later[:, 240:] = smooth(24, 180, 8).astype(np.uint16)
    codec = lin([Band("B04", nodata=0, scale=1e-4)], mean=1000.0)
    day = dt.timedelta(days=5)
    (path,) = k.encode(k.item({"B04": first}, name="key-frame"), codec, psnr=44)
    dated = k.item({"B04": later}, when=WHEN + day)
    with mock.patch(
        "stac_latent.cube.keyframe.encode._METADATA", 0
    ):  # else so small a date would stand alone
        k.encode(dated, codec, references=pystac.Item.from_file(str(path)), psnr=44)
    k.done("key-frame", note="The key frame, which stands alone.")
    k.done()
    k.done(
        "date-latents",
        item="../date/date.json",
        want="latents",
        note="The latents of the date, with the key frame added.",
    )


# -- refusals --------------------------------------------------------------------------------------------------


def spoiled(
    k: Kitchen, name: str, because: str, spoil: Callable[[Path], None], of: str = "nodata-uint8"
) -> None:
    """A case that is to be refused: a copy of another one, spoiled."""
    folder = k.copied(of, name)
    spoil(folder)
    k.done(name, refused=because, note=f"The case {of}, spoiled.")


def asset_of(folder: Path, **fields: Any) -> None:
    """Change fields of the latent asset of a case."""

    def change(doc: dict[str, Any]) -> None:
        doc["assets"]["latent"] |= fields

    edit(folder / f"{folder.name}.json", change)


def store_of(folder: Path, change: Callable[[dict[str, Any]], None], array: str = "latent") -> None:
    """Change the metadata of an array, where it is and where it is gathered; for ``""`` those of the group."""
    root = folder / "latent.zarr" / "zarr.json"
    group = json.loads(root.read_text())
    change(group["consolidated_metadata"]["metadata"][array] if array else group)
    root.write_text(json.dumps(group, separators=(",", ":")))
    if array:
        path = folder / "latent.zarr" / array / "zarr.json"
        own = json.loads(path.read_text())
        change(own)
        path.write_text(json.dumps(own, separators=(",", ":")))


def coder_of(folder: Path, **members: Any) -> None:
    """Change the configuration of the Zarr codec; the checksum of metadata no longer holds, and goes."""

    def change(array: dict[str, Any]) -> None:
        codecs = array["codecs"]
        codecs = codecs[0]["configuration"]["codecs"] if codecs[0]["name"] == "sharding_indexed" else codecs
        codecs[0]["configuration"] |= members

    store_of(folder, change)
    edit(
        folder / f"{folder.name}.json",
        lambda doc: doc["assets"]["latent"].pop("latent:metadata_digest", None),
    )


def crc32c(data: bytes) -> bytes:
    """CRC-32C, little endian."""
    crc = 2**32 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return (crc ^ (2**32 - 1)).to_bytes(4, "little")


def payload_of(folder: Path, change: Callable[[bytearray], None], *, sealed: bool = True) -> None:
    """Change the one payload of a store; with ``sealed``, its CRC-32C holds."""
    path = folder / "latent.zarr" / "latent" / "c" / "0" / "0" / "0"
    shard = bytearray(path.read_bytes())
    offset, size = (int.from_bytes(shard[i : i + 8], "little") for i in (len(shard) - 20, len(shard) - 12))
    payload = shard[offset : offset + size - 4]
    change(payload)
    shard[offset : offset + size - 4] = payload
    if sealed:
        shard[offset + size - 4 : offset + size] = crc32c(bytes(payload))
    path.write_bytes(bytes(shard))


def codec_of(folder: Path, change: Callable[[Path], None]) -> None:
    """Give a case a copy of its codec, changed; the link has the checksum of what it leads to."""

    def link(doc: dict[str, Any]) -> None:
        (found,) = (x for x in doc["links"] if x["rel"] == "latent:decoder")
        shutil.copytree((folder / found["href"]).parent, folder / "codec")
        change(folder / "codec")
        data = (folder / "codec" / "item.json").read_bytes()
        found |= {"href": "./codec/item.json", "file:checksum": multihash(data), "file:size": len(data)}

    edit(folder / f"{folder.name}.json", link)


def flip(data: bytearray) -> None:
    """Change one bit."""
    data[len(data) // 2] ^= 4


def newer_bundle(codec: Path) -> None:
    """A later format of bundles, all checksums right."""
    edit(codec / "codec.json", lambda doc: doc.update(format="stac-latent-bundle-2"))
    data = (codec / "codec.json").read_bytes()

    def change(doc: dict[str, Any]) -> None:
        for asset in doc["assets"].values():
            if asset["href"].endswith("codec.json"):
                asset |= {"file:checksum": multihash(data), "file:size": len(data)}

    edit(codec / "item.json", change)


def changed_tensors(codec: Path) -> None:
    """One bit of the tensors."""
    data = bytearray((codec / "codec.safetensors").read_bytes())
    data[-9] ^= 1
    (codec / "codec.safetensors").write_bytes(data)


def anew(folder: Path) -> None:
    """Let the date expect another payload of its key frame."""
    path = folder / "latent.zarr" / "reference_crc" / "c" / "0" / "0"
    data = bytearray(path.read_bytes()[:-4])
    data[0] ^= 1
    path.write_bytes(bytes(data) + crc32c(bytes(data)))


@case("refusals")
def refusals(k: Kitchen) -> None:
    """Stores and Items that were changed, and what a later version may write."""
    newer = "stac-latent-lin-2"
    spoiled(
        k,
        "corrupt-chunk",
        "a bit of a stored chunk was changed: its CRC-32C differs",
        lambda f: payload_of(f, flip, sealed=False),
    )
    spoiled(
        k,
        "corrupt-payload",
        "a bit of a payload was changed: its own CRC-32 differs",
        lambda f: payload_of(f, flip),
    )
    spoiled(
        k,
        "missing-chunk",
        "a shard is missing",
        lambda f: (f / "latent.zarr" / "latent" / "c" / "0" / "0" / "0").unlink(),
    )
    spoiled(
        k,
        "codec-checksum",
        "a file of the codec was changed: its checksum differs",
        lambda f: codec_of(f, changed_tensors),
    )

    def wrong_link(folder: Path) -> None:
        def change(doc: dict[str, Any]) -> None:
            doc["links"][0]["file:checksum"] = "1220" + "ab" * 32

        edit(folder / f"{folder.name}.json", change)

    spoiled(k, "link-checksum", "the codec's Item has another checksum than the link says", wrong_link)

    def other_space(folder: Path) -> None:
        other = "sha256:" + "0" * 64

        def change(doc: dict[str, Any]) -> None:
            doc["links"][0]["latent:space"] = other
            doc["properties"]["latent:spaces"] = [other]

        edit(folder / f"{folder.name}.json", change)
        asset_of(folder, **{"latent:space": other})
        coder_of(folder, space=other)

    spoiled(k, "other-space", "the codec's digest is not the space of the asset", other_space)
    spoiled(
        k,
        "unknown-feature",
        "the asset requires a feature that nobody knows",
        lambda f: asset_of(f, **{"latent:required_features": ["tomorrow"]}),
    )

    def unknown_in_store(folder: Path) -> None:
        def change(group: dict[str, Any]) -> None:
            group.setdefault("attributes", {}).setdefault("latent", {})["required_features"] = ["tomorrow"]

        store_of(folder, change, "")

    spoiled(k, "unknown-feature-store", "the store requires a feature that nobody knows", unknown_in_store)
    spoiled(
        k, "unknown-coder", "the Zarr codec has a member that nobody knows", lambda f: coder_of(f, tomorrow=1)
    )

    def newer_bitstream(folder: Path) -> None:
        asset_of(folder, **{"latent:bitstream": newer})
        coder_of(folder, bitstream=newer)

    spoiled(k, "newer-bitstream", "a bitstream of a later version", newer_bitstream)

    def newer_payload(data: bytearray) -> None:
        data[2] = 2

    spoiled(k, "newer-payload", "a payload whose version is 2", lambda f: payload_of(f, newer_payload))
    spoiled(k, "newer-bundle", "a codec bundle of a later format", lambda f: codec_of(f, newer_bundle))
    spoiled(
        k,
        "newer-residual",
        "residuals of a later version",
        lambda f: asset_of(f, **{"latent:residual": "stac-latent-residual-2"}),
        "lossless-float",
    )

    def without_residual(folder: Path) -> None:
        shutil.rmtree(folder / "latent.zarr" / "residual")
        store_of(folder, lambda group: group["consolidated_metadata"]["metadata"].pop("residual"), "")
        edit(
            folder / f"{folder.name}.json",
            lambda doc: doc["assets"]["latent"].pop("latent:metadata_digest", None),
        )

    spoiled(
        k,
        "missing-residual",
        "the asset has residuals, the store has none",
        without_residual,
        "lossless-float",
    )
    spoiled(
        k,
        "missing-gains",
        "the store of a date has lost the gains on its key frame",
        lambda folder: shutil.rmtree(folder / "latent.zarr" / "reference_gain" / "c"),
        "date",
    )
    spoiled(k, "key-frame-anew", "the key frame is another one than the date was coded against", anew, "date")


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
