"""Make six small catalogues, byte strings of each format and a table, and write the digests of what they hold.

    python tests/golden/written_bytes.py --update
    python tests/golden/written_bytes.py NEW_FOLDER

The first writes ``written_bytes.json`` beside this file, the second ``digests.json`` in the new folder, and leaves there what
was made. See ``../test_written_bytes.py``. Everything comes from integer arithmetic and the committed sample, through the
public verbs alone. STAC documents count without what changes from run to run (:data:`VOLATILE`, local paths) and with numbers
to nine digits, all other files byte for byte, tables by column and footer.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import platform
import sys
import tempfile
import zlib
from importlib.metadata import entry_points, version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent import encode, load, open_codec, publish, search

EXPECTED = Path(__file__).with_suffix(".json")
SAMPLE = Path(__file__).parents[2] / "catalogs" / "sample" / "raw" / "spyndex-s2-sample"
FOUR = ("B02", "B03", "B04", "B08")
GSD = {"B02": 10, "B03": 10, "B05": 20, "B06": 20, "B01": 60}
VOLATILE = frozenset({"created", "updated", "stac_version", "processing:software"})
"""Fields of STAC documents that are not compared."""
OWN = frozenset({"file:size", "file:checksum"})
"""Nor these where they tell of a STAC document or a table, which are compared by what they hold."""


# -- inputs ----------------------------------------------------------------------------------------------------------


def ground(shape, seed, gsd=10):
    """Slopes, fields, a river and some noise, uint16 around 1500, with a corner and a hole of nodata 0; integers alone."""
    y, x = (i * gsd // 10 for i in np.mgrid[: shape[0], : shape[1]].astype(np.uint64))
    noise = (y * 73_856_093 ^ x * 19_349_663 ^ np.uint64(seed * 83_492_791 + gsd)) * 2_654_435_761 >> 13
    plots = ((y // 24 * 7 + x // 31 * 13 + seed) * 2_654_435_761 >> 7) % 900
    river = ((x + y // 3 + seed) % 160 < 9) * np.uint64(700)
    field = 900 + 3 * y + 2 * x + plots - river + noise % 60
    field[(y + x < 30) | ((y // 16 == 4) & (x // 16 == 5))] = 0
    return field.astype(np.uint16)


def raw_item(folder, name, fields, gsd, when):
    """One GeoTIFF a band, bands of their own pixel size, and the Item that describes them."""
    folder.mkdir(parents=True)
    item = None
    for band, field in fields.items():
        box = GeoBox(field.shape, Affine(gsd[band], 0, 400_020, 0, -gsd[band], 5_100_000), "EPSG:32633")
        if item is None:
            ring = box.footprint("EPSG:4326")
            item = pystac.Item(
                name, ring.json, list(ring.boundingbox.bbox), when, {"gsd": 10}, collection="made"
            )
        path = folder / f"{name}-{band}.tif"
        shape = {"height": field.shape[0], "width": field.shape[1], "count": 1, "dtype": field.dtype.name}
        with rasterio.open(path, "w", crs="EPSG:32633", transform=box.affine, nodata=0, **shape) as dst:
            dst.write(field, 1)
        about = {"nodata": 0, "data_type": field.dtype.name, "raster:scale": 1e-4, "bands": [{"name": band}]}
        item.add_asset(band, pystac.Asset(str(path), roles=["data"], extra_fields=about))
    item.set_self_href(str(folder / f"{name}.json"))
    return item


def four_bands(folder, name, shape, seed, *, day=1, gain=100):
    """Bands of one grid; seeds apart by tens are other places, ``gain`` in percent another light."""
    lit = {b: ground(shape, seed + i).astype(np.uint32) * (gain + i) // 100 for i, b in enumerate(FOUR)}
    for b, field in lit.items():
        speckle = ground(shape, day * 17 + len(b)) % 23
        lit[b] = np.where(field > 0, field + speckle * (gain != 100), 0).astype(np.uint16)
    when = dt.datetime(2024, 6, day, 10, tzinfo=dt.UTC)
    return raw_item(folder / name, name, lit, dict.fromkeys(FOUR, 10), when)


def native_bands(shape=(211, 307)):
    """Fields of bands of 10, 20 and 60 m of one place."""
    return {
        b: ground(tuple(-(-n * 10 // g) for n in shape), 40 + i, g) for i, (b, g) in enumerate(GSD.items())
    }


# -- what is made of them ----------------------------------------------------------------------------------------------


def coded(raw, dest):
    yield from encode(four_bands(raw, "scene", (187, 301), 0), "s2-10m-4b", dest, psnr=44)
    yield from encode(sample_of(raw), "s2-10m-4b", dest, asset="small", mode="derived", psnr=42)


def sample_of(raw):
    """The committed sample, read from a copy so that no path of this checkout is written."""
    item = pystac.Item.from_file(str(SAMPLE / "item.json"))
    for key, asset in item.assets.items():
        path = raw / "sample" / f"{key}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(asset.get_absolute_href()).read_bytes())
        asset.href = str(path)
    item.set_self_href(str(raw / "sample" / "item.json"))
    return item


def plain(raw, dest):
    item = four_bands(raw, "scene", (143, 167), 10)
    dct = open_codec("dct", bands=list(FOUR), step=96, mean=1500)
    encode(item, dct, dest, asset="dct", payload="plain")
    yield from encode(item, "s2-10m-4b", dest, payload="plain")


def native(raw, dest):
    item = raw_item(raw / "native", "native", native_bands(), GSD, dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC))
    yield from encode(item, open_codec("lin", bands=list(GSD), mean=1500), dest, psnr=46)


def key_frames(raw, dest):
    dates = [
        four_bands(raw, f"day-{d}", (200, 280), 20, day=d, gain=g) for d, g in ((1, 100), (6, 104), (11, 97))
    ]
    yield from encode(dates, "s2-10m-4b", dest, references="auto", psnr=48)


def bounded(raw, dest):
    yield from encode(four_bands(raw, "scene", (130, 271), 30), "s2-10m-4b", dest, error_bound=2)
    other = four_bands(raw, "other", (70, 90), 50)
    yield from encode(other, "s2-10m-4b", dest, error_bound={"B02": 0, "*": "1%"}, psnr=40)


def embedding(raw, dest):
    items = [sample_of(raw), four_bands(raw, "scene", (187, 301), 60)]
    made = encode(items, "s2-10m-embed", dest)
    for unit, dtype in (("patch", "float16"), ("cell", "int8")):
        publish(made, dest / f"{unit}.parquet", by=unit, patch=(4, 4), dtype=dtype)
    yield from made


CATALOGUES = {f.__name__: f for f in (coded, plain, native, key_frames, bounded, embedding)}


def byte_strings(native_item):
    """One of each format and of each chain that writes it."""
    four = np.stack([ground((77, 150), 70 + i) for i in range(4)])
    bands = list(native_bands((121, 133)).values())
    several = [np.stack(bands[:2]), np.stack(bands[2:4]), np.stack(bands[4:])]
    shipped, grids = open_codec("s2-10m-4b"), open_codec(native_item)
    for name in ("dct", "wavelet", "lin", "zstd"):
        yield f"one grid, {name}", open_codec(name, bands=list(FOUR)), four, {}
    yield "one grid, s2-10m-4b", shipped, four, {"psnr": 45}
    yield "several grids", grids, several, {"psnr": 45}
    yield "bounded", shipped, four, {"error_bound": 3}
    yield "bounded, several grids", grids, several, {"error_bound": {"B01": "2%", "*": 1}}


# -- digests -----------------------------------------------------------------------------------------------------------


def sha(data):
    return hashlib.sha256(data).hexdigest()


def of_array(values):
    values = np.asarray(values)
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return sha(f"{values.dtype.name}{values.shape}".encode() + little.tobytes())


def of_document(doc):
    return sha(json.dumps(settled(doc), sort_keys=True).encode())


def settled(value):
    """JSON with a dash for what is volatile, so that its presence counts, and nine digits of each number."""
    if isinstance(value, dict):
        loose = VOLATILE | OWN if is_json_or_table(value.get("href")) else VOLATILE
        return {k: "-" if k in loose else settled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [settled(v) for v in value]
    if isinstance(value, str):
        return "-" if value.startswith(("/", "file:/")) else value
    return float(f"{value:.9g}") if isinstance(value, float) else value


def is_json_or_table(href):
    return isinstance(href, str) and href.endswith((".json", ".parquet"))


def of_table(path):
    """Digests of the columns of a table, and of its footer key by key."""
    table = pq.read_table(path)
    out = {f"column {f.name}: {f.type}": sha(repr(table[f.name].to_pylist()).encode()) for f in table.schema}
    for key, value in (table.schema.metadata or {}).items():
        if key != b"ARROW:schema":
            out[f"footer {key.decode()}"] = of_document(json.loads(value))
    return out


def of_files(root):
    """Digests of all files below a catalogue, by relative path."""
    out = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".parquet":
            out |= {f"{name}, {part}": digest for part, digest in of_table(path).items()}
        elif path.suffix == ".json" and path.name not in ("zarr.json", "codec.json"):
            out[name] = of_document(json.loads(path.read_text()))
        else:
            out[name] = sha(path.read_bytes())
    return out


def of_pixels(items):
    """Digests of what the Items load as, by Item, asset and variable: bands of one pixel size at a time."""
    out = {}
    for item in items:
        for key in [k for k, asset in item.assets.items() if asset.roles == ["latent"]]:
            fields = item.assets[key].extra_fields
            names = [b["name"] for b in fields["bands"]]
            of_gsd = [[n for n in names if GSD.get(n, 10) == gsd] for gsd in (10, 20, 60)]
            how = (
                [{"upto": "latent"}]
                if fields["latent:kind"] == "embedding"
                else [{"bands": b} for b in of_gsd if b]
            )
            cubes = [load(item, asset=key, **options) for options in how]
            out |= {f"{item.id}/{key}/{n}": of_array(v.values) for cube in cubes for n, v in cube.items()}
    return out


def folded(digests):
    return sha("".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())).encode())


def libraries():
    """Versions of what compresses, lays out files or places footprints besides the package itself."""
    named = {n: version(n) for n in ("numcodecs", "zarr", "pystac", "odc-geo", "pyarrow", "shapely")}
    linked = {"gdal": rasterio.__gdal_version__, "proj": rasterio.__proj_version__}
    return {**named, **linked, "zlib": zlib.ZLIB_RUNTIME_VERSION, "machine": platform.machine()}


def spaces():
    names = sorted({p.name for p in entry_points(group="stac_latent.codecs") if p.dist.name == "stac-latent"})
    chains = {"dct", "wavelet", "lin", "jpeg2000", "zstd"}
    return {n: open_codec(n, **({"bands": list(FOUR)} if n in chains else {})).space for n in names}


def made_in(folder):
    """Make everything below an empty folder; the digests of it."""
    out = {"libraries": libraries(), "spaces": spaces(), "catalogues": {}}
    for name, make in CATALOGUES.items():
        dest = folder / name / "catalogue"
        items = list(make(folder / name / "raw", dest))
        found = {i.id for i in search(str(dest / "catalog.json"))}
        assert found == {i.id for i in items}
        files = of_files(dest)
        out["catalogues"][name] = {
            "digest": folded(files),
            "pixels": of_pixels(items),
            "files": files,
        }
        if name == "native":
            grids = items[0]
        if name == "key_frames":
            assert any("latent:reference_item" in i.assets["latent"].extra_fields for i in items)
    out["byte strings"] = {}
    for name, codec, field, options in byte_strings(grids):
        data = codec.compress(field, **options)
        back = codec.decompress(data)
        decoded = of_array(back) if isinstance(back, np.ndarray) else [of_array(x) for x in back]
        out["byte strings"][name] = {
            "starts": data[:4].decode(),
            "size": len(data),
            "bytes": sha(data),
            "field": decoded,
        }
    return out


def main(args):
    """Write digests of all that is made below a new folder, or, with ``--update``, the committed ones."""
    update = args == ["--update"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) if update else Path(args[0])
        root.mkdir(exist_ok=True)
        text = json.dumps(made_in(root), indent=1, sort_keys=True) + "\n"
        (EXPECTED if update else root / "digests.json").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
