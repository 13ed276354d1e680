"""Items drawn at random, encoded, loaded, and held against their files.

Each Item has real files: one or several bands of any type, with nodata in the tag, in the Item, in both or in neither, masks,
scales, grids in many CRSs, Items that leave facts out or get them wrong, and times with offsets. It is encoded with a codec drawn
as well. The oracle is plain rasterio for pixels on the file's own grid, and odc-stac for the raw Item on another one. An Item may be
refused with an error of the package; one that is encoded has to come back with the stated error, the same missing pixels, the
file's type and place, and its time in UTC.

    python fuzz/items.py --items 20000 --seed 1          # adds to benchmarks/results/items.json
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import rasterio
from affine import Affine
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.warp import transform_bounds

from stac_latent import encode, load, open_codec
from stac_latent.errors import StacLatentError

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "items.json"
PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "float16")
SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
HRRR = "+proj=lcc +lat_0=38.5 +lon_0=-97.5 +lat_1=38.5 +lat_2=38.5 +R=6371229 +units=m +no_defs"
ALBERS = "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +datum=WGS84 +units=m +no_defs"
WORLD = 20037508.342789244
PLACES = (
    ("EPSG:32633", 399_990.0, 5_100_000.0, 10.0),
    ("EPSG:32601", 300_000.0, 7_000_000.0, 20.0),
    ("EPSG:32760", 700_000.0, 6_000_000.0, 30.0),
    ("EPSG:4326", 13.5, 46.0, 0.0002777777777777778),
    ("EPSG:4326", 179.9, 10.0, 0.005),
    ("EPSG:4326", -180.0, 10.0, 0.01),
    ("EPSG:3857", -WORLD, 1_000_000.0, 100.0),
    ("EPSG:3857", WORLD - 4000.0, 1_000_000.0, 100.0),
    ("EPSG:6933", 17_367_530.445161 - 4000.0, 0.0, 100.0),
    ("EPSG:3413", -500_000.0, 500_000.0, 500.0),
    ("EPSG:3031", -10_000.0, 10_000.0, 500.0),
    ("EPSG:4269", -100.0, 40.0, 0.000277777777777),
    ("ESRI:54009", 1_000_000.0, 5_000_000.0, 100.0),
    (SINUSOIDAL, 1_000_000.0, 5_000_000.0, 463.312716528),
    (HRRR, -500_000.0, 500_000.0, 3000.0),
    (ALBERS, 0.0, 1_500_000.0, 30.0),
)  # fmt: skip
BANDS = ("B02", "B03", "B08", "AOT", "dem", "vv")


@st.composite
def items(draw: Any) -> dict[str, Any]:
    """What an Item, its files and its codec are made of."""
    pick = lambda *values: draw(st.sampled_from(values))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    crs, x, y, size = draw(st.sampled_from(PLACES))
    bands = []
    for name in draw(st.lists(st.sampled_from(BANDS), min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(TYPES))
        bands.append({
            "name": name, "dtype": dtype, "values": pick("smooth", "smooth", "full", "constant", "low", "zeros"),
            "tag": pick(None, None, 0, "low", "high", "nan", 7), "stated": pick(None, None, "tag", 0, "high", "nan", -9999, 7),
            "holes": draw(st.booleans()), "mask": pick(None, None, None, None, "msk", "internal"),
            "data_type": pick("right", "right", None, "wrong"), "scale": pick(None, None, None, 1e-4, 0.01, -0.5),
            "offset": pick(None, None, 0.0, -0.1, 273.15), "own_scale": pick(None, None, None, None, 0.1),
        })  # fmt: skip
    hours, minutes = draw(st.integers(-11, 13)), pick(0, 0, 30, 45)
    return {
        "shape": shape, "crs": crs, "corner": (x, y), "size": size, "bands": bands,
        "turn": pick("north", "north", "north", "south", "sheared"), "joined": draw(st.booleans()) and len(bands) > 1,
        "proj": pick("all", "all", "none", "code", "transform", "epsg", "off a bit", "off much", "swapped", "wrong crs", "no crs in file"),
        "form": pick("bands", "raster:bands", "asset"), "picture": draw(st.booleans()), "quality": draw(st.booleans()),
        "zone": timezone(timedelta(hours=hours, minutes=minutes)), "interval": draw(st.booleans()),
        "geometry": pick("right", "right", "none", "wrong"), "bbox": pick(4, 4, 6), "baseline": pick(None, None, "05.11", "02.00"),
        "codec": pick("zstd", "lin", "dct", "wavelet", "jpeg2000", "lin"), "bound": pick(None, None, 0, 2, "1%"),
        "payload": pick(None, None, "plain"), "explicit": draw(st.booleans()), "seed": draw(st.integers(0, 2**31)),
    }  # fmt: skip


def nodata_of(word: Any, dtype: np.dtype[Any], tag: float | None = None) -> float | None:
    """Value of a word for nodata; None where the type has none such."""
    if word == "tag":
        return tag
    if word == "nan":
        return math.nan
    if word in ("low", "high"):
        info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        return float(info.min if word == "low" else info.max)
    return None if word is None else float(word)


def pixels(rng: np.random.Generator, shape: tuple[int, int], kind: str, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Values of one band."""
    whole = dtype.kind in "iu"
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if whole else (-1000.0, 1000.0)
    if kind == "constant":
        return np.full(shape, 5, dtype)
    if kind == "zeros":
        return np.zeros(shape, dtype)
    if kind == "full":
        values = rng.uniform(low, high, shape)
    else:
        y, x = np.mgrid[: shape[0], : shape[1]]
        values = np.sin(x / 5 + rng.uniform(0, 6)) + np.cos(y / 7) + rng.normal(0, 0.05, shape)
        span = min(float(high), 3000.0)
        values = (values + 2) / 4 * span if kind == "smooth" else low + (values + 2.2) * min(span, 100.0) / 8
    return np.clip(np.rint(values) if whole else values, low, high).astype(dtype)


class Case:
    """One Item on disk."""

    def __init__(self, drawn: dict[str, Any], folder: Path) -> None:
        self.d, self.folder = drawn, folder
        self.rng = np.random.default_rng(drawn["seed"])
        self.transform = self._transform()
        self.arrays = [self._array(b) for b in drawn["bands"]]
        self.item = self._item()

    def _transform(self) -> Affine:
        (x, y), s, (h, _) = self.d["corner"], self.d["size"], self.d["shape"]
        if self.d["turn"] == "south":
            return Affine(s, 0, x, 0, s, y - s * h)
        if self.d["turn"] == "sheared":
            return Affine(s, s * 0.1, x, -s * 0.05, -s, y)
        return Affine(s, 0, x, 0, -s, y)

    def _array(self, b: dict[str, Any]) -> np.ndarray[Any, Any]:
        dtype = np.dtype(b["dtype"])
        data = pixels(self.rng, self.d["shape"], b["values"], dtype)
        b["tag_value"] = nodata_of(b["tag"], dtype)
        if b["tag_value"] is not None and dtype.kind in "iu" and not self._holds(b["tag_value"], dtype):
            b["tag_value"] = None  # GDAL refuses such a tag
        b["stated_value"] = nodata_of(b["stated"], dtype, b["tag_value"])
        if b["holes"]:
            for v in (b["tag_value"], b["stated_value"]):
                if v is not None and self._holds(v, dtype):
                    data[self.rng.random(data.shape) < 0.1] = v
            if dtype.kind == "f":
                data[self.rng.random(data.shape) < 0.05] = np.nan
        b["hidden"] = self.rng.random(data.shape) < 0.2 if b["mask"] else np.zeros(data.shape, bool)
        return data

    @staticmethod
    def _holds(v: float, dtype: np.dtype[Any]) -> bool:
        if dtype.kind == "f":
            return True
        return not math.isnan(v) and np.iinfo(dtype).min <= v <= np.iinfo(dtype).max

    def _write(self, name: str, members: list[int]) -> Path:
        """One file of some bands; joined ones share type, nodata and mask."""
        path = self.folder / f"{name}.tif"
        first = self.d["bands"][members[0]]
        h, w = self.d["shape"]
        crs = None if self.d["proj"] == "no crs in file" else self.d["crs"]
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=first["mask"] == "internal"),
            rasterio.open(
                path, "w", driver="GTiff", height=h, width=w, count=len(members), dtype=first["dtype"], crs=crs,
                transform=self.transform, nodata=first["tag_value"], photometric="MINISBLACK",
            ) as dst,
        ):  # fmt: skip
            for i, k in enumerate(members, 1):
                dst.write(self.arrays[k], i)
            dst.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (len(members) - 1)
            if first["own_scale"] is not None:
                dst.scales = [first["own_scale"]] * len(members)
            if first["mask"]:
                dst.write_mask(~first["hidden"])
        return path

    def _facts(self, b: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if b["data_type"]:
            out["data_type"] = b["dtype"] if b["data_type"] == "right" else "int16" if b["dtype"] != "int16" else "uint8"
        if b["stated_value"] is not None:
            out["nodata"] = "nan" if math.isnan(b["stated_value"]) else b["stated_value"]
        prefix = "" if self.d["form"] == "raster:bands" else "raster:"
        for k in ("scale", "offset"):
            if b[k] is not None and b["scale"] is not None:
                out[prefix + k] = b[k]
        return out

    def _item(self) -> pystac.Item:
        d = self.d
        bands = d["bands"]
        if d["joined"]:
            for k, b in enumerate(bands[1:], 1):
                b |= {key: bands[0][key] for key in ("dtype", "tag", "tag_value", "mask", "hidden", "own_scale")}
                b["stated_value"] = bands[0]["stated_value"]
                self.arrays[k] = np.clip(self.arrays[k].astype("f8"), *self._limits(b["dtype"])).astype(b["dtype"]) if np.dtype(b["dtype"]).kind in "iu" else self.arrays[k].astype(b["dtype"])
                if np.dtype(b["dtype"]).kind in "iu":
                    self.arrays[k] = np.nan_to_num(self.arrays[k])
        h, w = d["shape"]
        corners = [self.transform * c for c in ((0, 0), (w, 0), (w, h), (0, h))]
        xs, ys = zip(*corners, strict=True)
        try:
            box = list(transform_bounds(d["crs"], "OGC:CRS84", min(xs), min(ys), max(xs), max(ys)))
        except Exception:  # noqa: BLE001
            box = [0.0, 0.0, 1.0, 1.0]
        if not all(map(math.isfinite, box)):
            box = [0.0, 0.0, 1.0, 1.0]
        if d["geometry"] == "wrong":
            box = [20.0, 20.0, 21.0, 21.0]
        ring = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]], [box[0], box[1]]]
        geometry = None if d["geometry"] == "none" else {"type": "Polygon", "coordinates": [ring]}
        bbox = None if geometry is None else box if d["bbox"] == 4 else [*box[:2], 0.0, *box[2:], 100.0]
        self.when = datetime(2024, 6, 1, 1, 30, tzinfo=d["zone"])
        props: dict[str, Any] = {}
        if d["interval"]:
            props = {"start_datetime": self.when.isoformat(), "end_datetime": (self.when + timedelta(days=5)).isoformat()}
        if d["baseline"]:
            props["s2:processing_baseline"] = d["baseline"]
        props |= self._proj()
        item = pystac.Item(
            f"i{d['seed']}", geometry, bbox, self.when, props, stac_extensions=[PROJ], collection="c"
        )
        if d["picture"]:
            with rasterio.open(self.folder / "tci.tif", "w", driver="GTiff", height=h, width=w, count=3, dtype="uint8", crs=d["crs"], transform=self.transform) as dst:
                dst.write(np.full((3, h, w), 77, "uint8"))
            tci = [{"name": b["name"], "data_type": "uint8"} for b in bands] + [{"name": f"x{i}"} for i in range(3 - len(bands))]
            item.add_asset("visual", pystac.Asset(str(self.folder / "tci.tif"), media_type="image/tiff; application=geotiff", roles=["visual"], extra_fields={"bands": tci[:3]}))
        if d["joined"]:
            entries = [{"name": b["name"], **self._facts(b)} for b in bands]
            path = self._write("all", list(range(len(bands))))
            form = {"raster:bands": [{k: v for k, v in e.items() if k != "name"} for e in entries], "eo:bands": [{"name": b["name"]} for b in bands]}
            fields = form if d["form"] == "raster:bands" else {"bands": entries}
            item.add_asset("all", pystac.Asset(str(path), media_type="image/tiff; application=geotiff", roles=["data"], extra_fields=fields))
        else:
            for k, b in enumerate(bands):
                path, facts = self._write(b["name"], [k]), self._facts(b)
                fields = {"bands": [{"name": b["name"], **facts}]} if d["form"] == "bands" else {"raster:bands": [facts]} if d["form"] == "raster:bands" else facts
                item.add_asset(b["name"], pystac.Asset(str(path), media_type="image/tiff; application=geotiff", roles=["data"], extra_fields=fields))
        if d["quality"]:
            with rasterio.open(self.folder / "scl_B02.tif", "w", driver="GTiff", height=h, width=w, count=1, dtype="uint8", crs=d["crs"], transform=self.transform) as dst:
                dst.write(np.full((1, h, w), 4, "uint8"))
            item.add_asset("scl", pystac.Asset(str(self.folder / "scl_B02.tif"), media_type="image/tiff; application=geotiff", roles=["data-mask"]))
        item.set_self_href(str(self.folder / "item.json"))
        return item

    @staticmethod
    def _limits(dtype: str) -> tuple[float, float]:
        info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
        return float(info.min), float(info.max)

    def _proj(self) -> dict[str, Any]:
        d, t = self.d, self.transform
        crs: dict[str, Any] = {"proj:code": d["crs"]} if ":" in d["crs"] and "=" not in d["crs"] else {"proj:wkt2": rasterio.crs.CRS.from_user_input(d["crs"]).to_wkt()}
        six, shape = {"proj:transform": list(t)[:6]}, {"proj:shape": list(d["shape"])}
        kind = d["proj"]
        if kind == "none":
            return {}
        if kind == "code":
            return crs
        if kind == "transform":
            return crs | six
        if kind == "epsg" and d["crs"].startswith("EPSG:"):
            return {"proj:epsg": int(d["crs"][5:])} | six | shape
        if kind in ("off a bit", "off much"):
            off = (0.2 if kind == "off a bit" else 3.0) * d["size"]
            return crs | shape | {"proj:transform": [t.a, t.b, t.c + off, t.d, t.e, t.f]}
        if kind == "swapped":
            return crs | six | {"proj:shape": list(d["shape"][::-1])}
        if kind == "wrong crs":
            return {"proj:code": "EPSG:32619"} | six | shape
        return crs | six | shape

    def truth(self, k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Stored values of a band by plain rasterio, and which of them are data."""
        b = self.d["bands"][k]
        name, index = ("all", k + 1) if self.d["joined"] else (b["name"], 1)
        with rasterio.open(self.folder / f"{name}.tif") as src:
            raw, tag = src.read(index), src.nodatavals[index - 1]
            shown = src.read_masks(index) > 0 if b["mask"] else np.ones(raw.shape, bool)
        valid = shown & ~np.isnan(raw.astype("f8"))
        for v in (tag, b["stated_value"]):
            if v is not None and not math.isnan(v):
                valid &= raw.astype("f8") != (float(raw.dtype.type(v)) if raw.dtype.kind == "f" else v)
        return raw, valid


def check(drawn: dict[str, Any], folder: Path) -> tuple[str, str]:
    """Outcome of one Item, and what to say of it: ``right``, ``refused`` or ``wrong``."""
    case = Case(drawn, folder)
    names = [b["name"] for b in drawn["bands"]]
    options: dict[str, Any] = {"guard": "off"} if False else {}
    if drawn["bound"] is not None:
        options["error_bound"] = drawn["bound"]
    if drawn["payload"]:
        options["payload"] = drawn["payload"]
    if drawn["explicit"]:
        options["bands"] = {n: (n if not drawn["joined"] else "all" if i == 0 else f"all.{i + 1}") for i, n in enumerate(names)}
    try:
        codec = open_codec(drawn["codec"], bands=names)
        (out,) = encode(case.item, codec, folder / "cat", **options)
    except StacLatentError as exc:
        return "refused", f"{type(exc).__name__}: {' '.join(str(exc).split()[:60])}"
    fields = out.assets["latent"].extra_fields
    cube = load(out)
    stated = fields.get("latent:band_max_error") or [fields["latent:max_error"]]
    for k, b in enumerate(drawn["bands"]):
        raw, valid = case.truth(k)
        got = cube[b["name"]]
        values = got.values[0]
        if values.shape != raw.shape:
            return "wrong", f"shape {values.shape} of {raw.shape}"
        nodata = got.attrs.get("nodata")
        there = ~np.isnan(values.astype("f8"))
        if nodata is not None and not math.isnan(float(nodata)):
            there &= values.astype("f8") != float(nodata)
        if (there != valid).any():
            return "wrong", f"{b['name']}: missing pixels differ: {int((there & ~valid).sum())} gained, {int((valid & ~there).sum())} lost; nodata {nodata}"
        gap = np.abs(values.astype("f8") - raw.astype("f8"))[valid]
        gap = gap[np.isfinite(gap)]
        if gap.size and gap.max() > stated[k] * (1 + 1e-6) + 1e-6:
            return "wrong", f"{b['name']}: error {gap.max():g}, said {stated[k]:g}"
        if drawn["bound"] == 0 and gap.size and gap.max() > 0:
            return "wrong", f"{b['name']}: error {gap.max():g} under a bound of 0"
        if isinstance(drawn["bound"], int) and gap.size and gap.max() > drawn["bound"]:
            return "wrong", f"{b['name']}: error {gap.max():g} under a bound of {drawn['bound']}"
        if drawn["codec"] == "zstd" and values.dtype != raw.dtype:
            return "wrong", f"{b['name']}: {values.dtype} of {raw.dtype}"
    if drawn["proj"] not in ("no crs in file",):
        box = cube.odc.geobox
        if not np.allclose(tuple(box.affine)[:6], tuple(case.transform)[:6], rtol=1e-9, atol=1e-6 * drawn["size"]):
            return "wrong", f"placed at {tuple(box.affine)[:6]} of {tuple(case.transform)[:6]}"
        if rasterio.crs.CRS.from_user_input(str(box.crs)) != rasterio.crs.CRS.from_user_input(drawn["crs"]):
            return "wrong", f"CRS {str(box.crs)[:60]} of {drawn['crs'][:60]}"
    when = cube.time.values[0].astype("datetime64[s]")
    if when != np.datetime64(case.when.astimezone(UTC).replace(tzinfo=None), "s"):
        return "wrong", f"time {when} of {case.when}"
    return against_odc(case, cube, out)


def against_odc(case: Case, cube: Any, out: pystac.Item) -> tuple[str, str]:
    """Half the pixels a side by nearest, from the latent and by odc-stac from the raw Item, where that knows all."""
    d = case.d
    lossless = max(out.assets["latent"].extra_fields.get("latent:band_max_error") or [out.assets["latent"].extra_fields["latent:max_error"]]) == 0
    plain = all(b["data_type"] == "right" and not b["mask"] and (b["stated"] is None or b["stated"] == "tag") and b["own_scale"] is None and b["dtype"] != "float16" for b in d["bands"])
    if not (lossless and plain and d["proj"] == "all" and d["turn"] == "north" and not d["joined"] and d["form"] == "asset" and not d["picture"]) or min(d["shape"]) < 4:
        return "right", "own grid"
    box = cube.odc.geobox.zoom_out(2)
    stock = odc.stac.load([case.item], bands=[b["name"] for b in d["bands"]], geobox=box)
    ours = load(out, like=stock)
    for b in d["bands"]:
        want, got = stock[b["name"]].values[0], ours[b["name"]].values[0]
        same = (want == got) | (np.isnan(want.astype("f8")) & np.isnan(got.astype("f8")))
        if not same.all() and b["tag_value"] is not None:
            return "wrong", f"{b['name']}: {int((~same).sum())} of {same.size} pixels on another grid are not odc-stac's"
    return "right", "own grid and odc-stac's"


def run(count: int, first: int, queue: Any) -> None:
    """Draw and check Items in this process; what was wrong goes to the queue."""
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="items-"))
    tally: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []

    @seed(first)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(items())
    def each(drawn: dict[str, Any]) -> None:
        own = folder / "one"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        given_as = {k: str(v) for k, v in drawn.items()}
        try:
            outcome, text = check(drawn, own)
        except Exception:  # noqa: BLE001
            outcome, text = "wrong", "".join(traceback.format_exc().splitlines(keepends=True)[-6:])
        tally[outcome] += 1
        if outcome == "wrong":
            wrong.append({"what": text, "drawn": given_as})
            print(text[-300:], {k: v for k, v in given_as.items() if k in ("codec", "bound", "seed", "proj", "turn")}, flush=True)
        else:
            reasons[text.split(":")[0] + ": " + " ".join(text.split(":", 1)[-1].split()[:60]) if outcome == "refused" else text] += 1

    each()
    shutil.rmtree(folder, ignore_errors=True)
    queue.put((dict(tally), reasons.most_common(60), wrong[:50]))


def main() -> None:
    """Split the Items among processes, and keep count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no results")
    asked = parser.parse_args()
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    share = -(-asked.items // asked.processes)
    workers = [context.Process(target=run, args=(share, asked.seed * 1000 + i, queue)) for i in range(asked.processes)]
    for w in workers:
        w.start()
    tally: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for _ in workers:
        counts, common, bad = queue.get()
        tally.update(counts)
        wrong += bad
        for text, n in common:
            reasons[text] += n
    for w in workers:
        w.join()
    seconds = round(time.perf_counter() - start)
    result = {"when": datetime.now(UTC).date().isoformat(), "seed": asked.seed, "seconds": seconds, **tally}
    print(json.dumps(result))
    for text, n in reasons.most_common(40):
        print(f"{n:6} {text[:200]}")
    if not asked.dry:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps([*known, result], indent=1) + "\n")
    sys.exit(1 if tally["wrong"] else 0)


if __name__ == "__main__":
    os.environ.setdefault("STAC_LATENT_CACHE", tempfile.mkdtemp(prefix="items-cache-"))
    main()
