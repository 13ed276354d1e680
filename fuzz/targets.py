"""What is fuzzed: functions of bytes that may raise errors of the package and nothing else, with seeds and repairs.

A repair makes checksums right again after a mutation, as an attacker would: without it nearly every change ends at a CRC.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac
from mutate import mutate_bytes, mutate_json

from stac_latent import encode
from stac_latent.bytestring.framing import unpack_mask
from stac_latent.catalog.search.documents import to_item
from stac_latent.catalog.search.query import Query
from stac_latent.catalog.search.sources import StaticSource
from stac_latent.catalog.search.stac_geoparquet import ParquetSource, to_geoparquet
from stac_latent.codec.bundle import FILES, read_bundle, write_bundle
from stac_latent.codec.codec import Codec
from stac_latent.codec.native_grids import native_codec
from stac_latent.codec.shipped import dct, fit, jpeg2000, lin, wavelet, zstd
from stac_latent.cube.read.band_views import NativeReader, lattices_of, view_of
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import BundleError, SearchError, StacLatentError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.fitting.lin import fit_lin
from stac_latent.secure import Key
from stac_latent.spec import Band
from stac_latent.stages.residual.payload import decode_residual, encode_residual
from stac_latent.store.embeddings import read_table, vectors
from stac_latent.system.digests import multihash
from stac_latent.testing import make_field

BANDS = (Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4))
Mutate = Callable[[random.Random, bytes, bytes], bytes]


@dataclass
class Target:
    """One thing to feed bytes to."""

    seeds: list[bytes]
    run: Callable[[bytes], Any]
    """Raises errors of the package, or nothing."""
    repair: Callable[[bytes], bytes] = field(default=lambda data: data)
    mutate: Mutate = field(default=mutate_bytes)
    weight: int = 1
    """Share of the inputs, relative to others."""


def field_of(shape: tuple[int, int] = (32, 40), seed: int = 11) -> np.ndarray:
    """A small field of two bands."""
    return make_field(BANDS, shape, seed)


@cache
def codecs() -> dict[str, Codec]:
    """Small codecs of every bitstream."""
    tiles = [(make_field(BANDS, (64, 72), s, "noise") // 8 + 900, None) for s in range(2)]
    return {
        "lin": lin(BANDS, step=60.0, mean=1300.0),
        "lin-fitted": fit_lin("fuzz-lin", lambda: tiles, BANDS, step=90.0),
        "dct": dct(BANDS, step=40.0),
        "wavelet": wavelet(BANDS, step=40.0),
        "fitted": fit(
            "fuzz-fitted", [make_field(BANDS, (64, 72), s) for s in range(2)], BANDS, step=24.0, size=4
        ),
        "zstd": zstd(BANDS),
        "jpeg2000": jpeg2000(BANDS, 100, reversible=True),
    }


# -- repairs -----------------------------------------------------------------------------------------------------------


def repair_lin(data: bytes) -> bytes:
    """Checksum of a ``lin`` payload, or of those of several tiles left as they are."""
    if data[:3] != b"SL\x01" or len(data) < 7:
        return data
    return data[:3] + struct.pack("<I", zlib.crc32(data[7:])) + data[7:]


def repair_classical(data: bytes) -> bytes:
    """Checksum over header and payload of ``zstd`` and ``jpeg2000``."""
    if len(data) < 24:
        return data
    return data[:20] + struct.pack("<I", zlib.crc32(data[24:], zlib.crc32(data[:20]))) + data[24:]


def repair_frame(data: bytes) -> bytes:
    """Checksum of the container."""
    return data if len(data) < 12 else data[:8] + struct.pack("<I", zlib.crc32(data[12:])) + data[12:]


# -- targets -----------------------------------------------------------------------------------------------------------


def payload(name: str, repair: Callable[[bytes], bytes], weight: int) -> Target:
    """Payloads of a codec, decoded to symbols and to pixels."""
    codec = codecs()[name]
    fields = [field_of(), field_of((64, 64), 3), make_field(BANDS, (40, 32), 5, "noise")]
    seeds = [codec.encode(f) for f in fields]

    def run(data: bytes) -> None:
        codec.entropy_decode(data)
        codec.decode(data)

    return Target(seeds, run, repair, weight=weight)


def nested() -> Target:
    """Payloads of ``lin`` for bands of two pixel sizes that share cells."""
    codec = native_codec(codecs()["lin"], (0, 1), ((1, 1),), (10.0, 20.0)).parts[0]
    seeds = []
    for shape, seed in (((32, 48), 11), ((64, 64), 3)):
        whole = field_of(shape, seed)
        whole[1] = whole[1, ::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
        seeds.append(codec.encode(whole))

    def run(data: bytes) -> None:
        codec.entropy_decode(data)
        codec.decode(data)

    return Target(seeds, run, repair_lin, weight=10)


def several_tiles() -> Target:
    """Several tiles of ``lin`` in one payload: the outer header, with checksums of the tiles as they were."""
    codec = lin(BANDS, step=4000.0, mean=1300.0)
    return Target([codec.encode(field_of((264, 272), 2))], codec.decode, weight=1)


def container(name: str, inner: Callable[[bytes], bytes], weight: int) -> Target:
    """Byte strings of :meth:`Codec.compress`, with header and mask."""
    codec = codecs()[name]
    holes = field_of((37, 45))
    holes[0, 5:9, 7:20] = 0
    seeds = [codec.compress(field_of((37, 45))), codec.compress(holes)]

    def repair(data: bytes) -> bytes:
        with suppress(Exception):
            n = struct.unpack_from("<I", data, 4)[0]
            bits = json.loads(data[12 : 12 + n])["mask"][1]
            return repair_frame(data[: 12 + n + bits] + inner(data[12 + n + bits :]))
        return repair_frame(data)

    return Target(seeds, codec.decompress, repair, weight=weight)


def native() -> Target:
    """Several native grids in one byte string."""
    bands = [Band(b.name, nodata=0, scale=1e-4, gsd=g) for b, g in zip(BANDS, (10.0, 20.0), strict=True)]
    codec = lin(bands, step=60.0, mean=1300.0)
    whole = field_of((64, 64))
    seeds = [codec.compress([whole[:1], whole[1:, :32, :32]])]
    return Target(seeds, codec.decompress, repair_frame, weight=2)


def residual() -> Target:
    """Residuals of a tile, coded and plain, on the pixels that they refer to."""
    truth, valid = field_of((32, 40)), np.ones((2, 32, 40), bool)
    valid[:, 5:9, 7:20] = False
    base = codecs()["lin"].decode(codecs()["lin"].encode(truth))
    noise = make_field(BANDS, (32, 40), 5, "noise")
    seeds = [encode_residual(truth, base, valid, ErrorBound.of(b, BANDS), BANDS) for b in (0, 2, "1%")]
    seeds += [encode_residual(noise, base, valid, ErrorBound.of(0, BANDS), BANDS)]
    return Target(seeds, lambda data: decode_residual(data, base, valid, BANDS), weight=5)


def bounded() -> Target:
    """Byte strings of :meth:`Codec.compress` with an error bound."""
    codec, truth = codecs()["lin"], field_of((37, 45))
    seeds = [codec.compress(truth, error_bound=b) for b in (0, "1%")]
    return Target(seeds, codec.decompress, repair_frame, weight=5)


def mask() -> Target:
    """Deflated masks."""
    bits = np.random.default_rng(0).random((2, 37, 45)) > 0.5
    seeds = [zlib.compress(np.packbits(bits).tobytes(), 9), zlib.compress(bytes(10_000_000), 9)]
    return Target(seeds, lambda data: unpack_mask(data, 2, (37, 45)), weight=4)


def zstd_chunk() -> Target:
    """Chunks of plain arrays: frames of zstd."""
    from numcodecs.zstd import Zstd
    from zarr.core.array_spec import ArrayConfig, ArraySpec
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.dtype import Int16

    from stac_latent.store.zarr.trust import BoundedZstd

    prototype = default_buffer_prototype()
    spec = ArraySpec((2, 16, 16), Int16(), 0, ArrayConfig("C", write_empty_chunks=False), prototype)
    codec = BoundedZstd(level=9)

    def run(data: bytes) -> None:
        with suppress(
            RuntimeError, ValueError
        ):  # as zarr's callers in the package turn them into CorruptDataError
            codec._decode_sync(prototype.buffer.from_bytes(data), spec)  # noqa: SLF001

    rng = np.random.default_rng(1)
    values = rng.integers(-5, 5, (2, 16, 16)).astype(np.int16)
    return Target([bytes(Zstd().encode(values)), bytes(Zstd().encode(bytes(1 << 24)))], run, weight=4)


_CUT = b"\0FUZZ\0"


def bundle(name: str) -> Target:
    """Both files of a bundle; the digest that an attacker would write is put in."""
    seeds = [_CUT.join(write_bundle(codecs()[name])[n] for n in FILES)]

    def run(data: bytes) -> None:
        doc, _, weights = data.partition(_CUT)
        with suppress(BundleError):
            read_bundle({FILES[0]: doc, FILES[1]: weights}, refresh=True)
            return
        try:
            read_bundle({FILES[0]: doc, FILES[1]: weights}, refresh=True)
        except BundleError as exc:
            if found := re.search(r"digest is (sha256:\w+), codec.json", str(exc)):
                forged = json.loads(doc) | {"space": found[1]}
                read_bundle({FILES[0]: json.dumps(forged).encode(), FILES[1]: weights}, refresh=True)

    def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
        doc, _, weights = data.partition(_CUT)
        if rng.random() < 0.6:
            doc = mutate_json(rng, doc)
        else:
            weights = mutate_bytes(rng, weights, other)
        if rng.random() < 0.1:
            doc = mutate_bytes(rng, doc, other)
        return doc + _CUT + weights

    def repair(data: bytes) -> bytes:
        doc, _, weights = data.partition(_CUT)
        with suppress(Exception):
            parsed = json.loads(doc)
            parsed["tensors"] |= {"checksum": multihash(weights), "size": len(weights)}
            doc = json.dumps(parsed).encode()
        return doc + _CUT + weights

    return Target(seeds, run, repair, mutate, weight=1)


def _write_bands(folder: Path, name: str, sizes: dict[str, int]) -> pystac.Item:
    """An Item with one GeoTIFF for each band, of a pixel size each."""
    import rasterio
    from rasterio.transform import from_origin

    item = pystac.Item(
        name, {"type": "Point", "coordinates": [15, 46]}, [15, 46, 15, 46], None,
        {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-01-02T00:00:00Z"}, collection="c",
    )  # fmt: skip
    for seed, (band, size) in enumerate(sizes.items()):
        values = make_field([Band(band, nodata=0)], (-(-480 // size), -(-560 // size)), seed)[0]
        path = folder / f"{name}-{band}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=len(values), width=values.shape[1], count=1, dtype="uint16", crs="EPSG:32633",
            nodata=0, transform=from_origin(400_020, 5_100_000, size, size),
        ) as dst:  # fmt: skip
            dst.write(values, 1)
        fields = {"data_type": "uint16", "nodata": 0, "raster:scale": 1e-4, "bands": [{"name": band}]}
        item.add_asset(
            band, pystac.Asset(str(path), media_type="image/tiff; application=geotiff", extra_fields=fields)
        )
    item.set_self_href(str(folder / f"{name}.json"))
    return item


@cache
def catalogue() -> Path:
    """A small catalogue on disk, made once: bands of one grid, coded, plain and encrypted, and bands of several."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    one = _write_bands(folder, "scene", {b.name: 10 for b in BANDS})
    encode(one, codecs()["dct"], folder / "cat", asset="coded")
    encode(one, codecs()["dct"], folder / "cat", asset="plain", payload="plain")
    encode(one, codecs()["lin"], folder / "cat", asset="lin")
    encode(one, codecs()["dct"], folder / "cat", asset="sealed", key=Key(bytes(32)))
    encode(one, codecs()["lin"], folder / "cat", asset="bounded", error_bound=2)
    several = {"red": 10, "swir": 20, "coastal": 60}
    chain = lin([Band(n, nodata=0, scale=1e-4) for n in several], step=60.0, mean=1300.0)
    encode(_write_bands(folder, "native", several), chain, folder / "cat", asset="native")
    return folder / "cat"


def item_file(name: str = "scene") -> Path:
    """An Item of the catalogue."""
    return catalogue() / "c" / name / f"{name}.json"


def item() -> Target:
    """Items as a search gives them, from the network and from disk, read to what a loader needs."""
    seeds = [item_file().read_bytes(), item_file("native").read_bytes()]

    def run(data: bytes) -> None:
        with suppress(ValueError):  # what is no JSON object never gets here
            doc = json.loads(data)
            if not isinstance(doc, dict):
                return
            for href in (str(item_file()), "https://203.0.113.9/item.json"):
                found = None
                with suppress(StacLatentError):
                    found = to_item(json.loads(data), "fuzz", href=href)
                for key in ("coded", "plain", "lin", "sealed", "native") if found is not None else ():
                    with suppress(StacLatentError):
                        ref = LatentRef.from_item(found, key)
                        for i in range(len(ref.band_grids)):
                            view = view_of(ref, i)
                            NativeReader(LatentReader(view.ref), view.grid)

    return Target(seeds, run, mutate=lambda rng, data, _: mutate_json(rng, data), weight=2)


class _Documents:
    """A reader of documents in memory."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self.documents = documents

    def json(self, href: str, **_: Any) -> dict[str, Any]:
        if href not in self.documents:
            raise SearchError(f"nothing at {href}")
        return dict(self.documents[href])


def tree() -> Target:
    """Catalogues with links in circles, to nowhere, and to this machine."""
    base = "https://203.0.113.9/"
    docs = {
        f"{base}catalog.json": json.loads((catalogue() / "catalog.json").read_text()),
        f"{base}c/collection.json": json.loads((catalogue() / "c" / "collection.json").read_text()),
        f"{base}c/scene/scene.json": json.loads(item_file().read_text()),
    }

    def run(data: bytes) -> None:
        with suppress(ValueError):
            found = json.loads(data)
            if isinstance(found, dict) and all(isinstance(d, dict) for d in found.values()):
                source = StaticSource(f"{base}catalog.json", _Documents(found))  # type: ignore[arg-type]
                for i, _ in enumerate(source.items(Query(), 10)):
                    if i > 100:
                        break

    return Target([json.dumps(docs).encode()], run, mutate=lambda rng, data, _: mutate_json(rng, data))


def store(key: str, name: str = "scene", part: int = 0) -> Target:
    """Stores on disk: metadata and chunks changed, then a window read as pixels and as latents."""
    whole = LatentRef.from_item(pystac.Item.from_file(str(item_file(name))), key)
    codec, ref = whole.open_codec(), lattices_of(whole)[part]
    source = Path(ref.href)
    names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
    files = [
        n
        for n in names
        if n.endswith("zarr.json") or n.startswith(("latent/c", "mask/c", "residual/c", "manifest"))
    ]
    seeds = [json.dumps([n]).encode() + _CUT + (source / n).read_bytes() for n in files]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-store-")) / "s.zarr"
    shutil.copytree(source, folder)
    broken = replace(ref, href=str(folder))
    window = ((0, min(7, ref.grid.shape[0])), (0, min(7, ref.grid.shape[1])))

    def run(data: bytes) -> None:
        name, _, content = data.partition(_CUT)
        (where,) = json.loads(name)
        (folder / where).write_bytes(content)
        try:
            reader = LatentReader(broken, codec)
            with suppress(StacLatentError):
                reader.read_field(window)
            with suppress(StacLatentError):
                reader.read_latent(((0, 1), (0, 1)))
        finally:
            shutil.copyfile(source / where, folder / where)

    def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
        name, _, content = data.partition(_CUT)
        if b"zarr.json" in name and rng.random() < 0.9:
            return name + _CUT + mutate_json(rng, content)
        return name + _CUT + mutate_bytes(rng, content, other)

    return Target(seeds, run, mutate=mutate, weight=1)


def table() -> Target:
    """stac-geoparquet, searched."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-table-"))
    found = pystac.Item.from_file(str(item_file()))
    found.geometry = {"type": "Polygon", "coordinates": [[[15, 46], [15.1, 46], [15.1, 46.1], [15, 46]]]}
    seeds = [to_geoparquet([found], folder / "items.parquet").read_bytes()]

    def run(data: bytes) -> None:
        for item_ in ParquetSource("fuzz.parquet", data).items(Query(), 10):
            with suppress(StacLatentError):
                LatentRef.from_item(item_, "coded")

    return Target(seeds, run, weight=1)


def embeddings() -> Target:
    """Tables of vectors."""
    from stac_latent import publish

    folder = Path(tempfile.mkdtemp(prefix="fuzz-vectors-"))
    found = pystac.Item.from_file(str(item_file()))
    publish([found], folder / "v.parquet", asset="coded", by="cell", dtype="int8")
    seeds = [(folder / "v.parquet").read_bytes()]
    assert pq.read_metadata(folder / "v.parquet").num_rows
    path = folder / "changed.parquet"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        vectors(read_table(path))

    return Target(seeds, run, weight=1)


MAKERS: dict[str, Callable[[], Target]] = {
    "lin": lambda: payload("lin", repair_lin, 20),
    "lin-fitted": lambda: payload("lin-fitted", repair_lin, 10),
    "lin-nested": nested,
    "lin-tiles": several_tiles,
    "dct": lambda: payload("dct", lambda d: d, 15),
    "wavelet": lambda: payload("wavelet", lambda d: d, 5),
    "fitted": lambda: payload("fitted", lambda d: d, 15),
    "zstd": lambda: payload("zstd", repair_classical, 20),
    "jpeg2000": lambda: payload("jpeg2000", repair_classical, 1),
    "container-lin": lambda: container("lin", repair_lin, 10),
    "container-zstd": lambda: container("zstd", repair_classical, 10),
    "native": native,
    "residual": residual,
    "bounded": bounded,
    "mask": mask,
    "zstd-chunk": zstd_chunk,
    "bundle-lin": lambda: bundle("lin-fitted"),
    "bundle-rans": lambda: bundle("fitted"),
    "bundle-classical": lambda: bundle("zstd"),
    "item": item,
    "tree": tree,
    "store-coded": lambda: store("coded"),
    "store-plain": lambda: store("plain"),
    "store-lin": lambda: store("lin"),
    "store-sealed": lambda: store("sealed"),
    "store-bounded": lambda: store("bounded"),
    "store-native": lambda: store("native", "native"),
    "store-native-group": lambda: store("native", "native", 1),
    "table": table,
    "embeddings": embeddings,
}


def name_of(data: bytes) -> str:
    """Short name of an input, for a file."""
    return hashlib.sha256(data).hexdigest()[:16]
