"""Items with real files, drawn at random: types, nodata, masks, scales, grids, Items that leave facts out or get them wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.warp import transform_bounds

PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
TIFF = "image/tiff; application=geotiff"
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
NAMES = ("B02", "B03", "B08", "AOT", "dem", "vv")
WORLD = 20037508.342789244
SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
HRRR = "+proj=lcc +lat_0=38.5 +lon_0=-97.5 +lat_1=38.5 +lat_2=38.5 +R=6371229 +units=m +no_defs"
ALBERS = "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +datum=WGS84 +units=m +no_defs"
PLACES = (
    ("EPSG:32633", 399_990.0, 5_100_000.0, 10.0),
    ("EPSG:32601", 300_000.0, 7_000_000.0, 20.0),
    ("EPSG:32760", 700_000.0, 6_000_000.0, 30.0),
    ("EPSG:4326", 13.5, 46.0, 0.0002777777777777778),
    ("EPSG:4326", 179.9, 10.0, 0.005),
    ("EPSG:4326", -180.0, 10.0, 0.01),
    ("EPSG:3857", -WORLD, 1_000_000.0, 100.0),
    ("EPSG:3857", WORLD - 4000.0, 1_000_000.0, 100.0),
    ("EPSG:6933", 17_363_530.445161, 0.0, 100.0),
    ("EPSG:3413", -500_000.0, 500_000.0, 500.0),
    ("EPSG:3031", -10_000.0, 10_000.0, 500.0),
    ("EPSG:4269", -100.0, 40.0, 0.000277777777777),
    ("ESRI:54009", 1_000_000.0, 5_000_000.0, 100.0),
    (SINUSOIDAL, 1_000_000.0, 5_000_000.0, 463.312716528),
    (HRRR, -500_000.0, 500_000.0, 3000.0),
    (ALBERS, 0.0, 1_500_000.0, 30.0),
)
"""CRS, corner and pixel size."""
CODECS = ("zstd", "lin", "dct", "wavelet", "jpeg2000", "lin")
GRIDS = (
    *["all"] * 6,
    "none",
    "code",
    "transform",
    "epsg",
    "off a bit",
    "off much",
    "swapped",
    "wrong crs",
    "no crs in file",
)
"""What the Item says of the grid."""


@dataclass
class DrawnBand:
    """One band: what its file holds, and what the Item says of it."""

    name: str
    dtype: str
    values: str
    tag: Any
    stated: Any
    holes: bool
    mask: str | None
    data_type: str | None
    scale: float | None
    offset: float | None
    own_scale: float | None
    array: Any = field(default=None, repr=False)
    hidden: Any = field(default=None, repr=False)
    """Pixels that a mask leaves out."""

    def fill(self, shape: tuple[int, int], rng: np.random.Generator) -> None:
        """Make the pixels, and turn words for nodata into values."""
        dtype = np.dtype(self.dtype)
        self.tag = word_value(self.tag, dtype, None)
        if dtype.kind in "iu" and self.tag is not None and not holds(dtype, self.tag):
            self.tag = None  # GDAL refuses such a tag
        self.stated = word_value(self.stated, dtype, self.tag)
        data = pixels(rng, shape, self.values, dtype)
        if self.holes:
            for v in (self.tag, self.stated):
                if v is not None and holds(dtype, v):
                    data[rng.random(shape) < 0.1] = v
            if dtype.kind == "f":
                data[rng.random(shape) < 0.05] = np.nan
        self.array, self.hidden = data, rng.random(shape) < 0.2

    def facts(self, prefix: str) -> dict[str, Any]:
        """What the Item says, with the prefix of scale and offset."""
        out: dict[str, Any] = {}
        if self.data_type is not None:
            wrong = "uint8" if self.dtype == "int16" else "int16"
            out["data_type"] = self.dtype if self.data_type == "right" else wrong
        if self.stated is not None:
            out["nodata"] = "nan" if math.isnan(self.stated) else self.stated
        if self.scale is not None:
            out[f"{prefix}scale"] = self.scale
            if self.offset is not None:
                out[f"{prefix}offset"] = self.offset
        return out

    def valid(self, raw: Any, shown: Any, tag: float | None) -> Any:
        """Which pixels are data, by the values of the file's tag and of the Item."""
        valid = shown & ~np.isnan(raw.astype("f8"))
        for v in (tag, self.stated):
            if v is not None and holds(raw.dtype, v) and not math.isnan(v):
                valid &= raw != raw.dtype.type(v)
        return valid


@dataclass
class Case:
    """One Item with its files in a folder, and how it is encoded."""

    shape: tuple[int, int]
    place: tuple[str, float, float, float]
    bands: list[DrawnBand]
    turn: str
    joined: bool
    """Whether all bands are in one file, and share type, nodata and mask."""
    grid: str
    form: str
    picture: bool
    quality: bool
    zone: timezone
    interval: bool
    geometry: str
    bbox: int
    baseline: str | None
    codec: str
    bound: Any
    payload: str | None
    explicit: bool
    seed: int
    folder: Path = field(default_factory=Path)

    @property
    def crs(self) -> str:
        """Code or PROJ string."""
        return self.place[0]

    @property
    def when(self) -> datetime:
        """Time of the Item, in its own zone."""
        return datetime(2024, 6, 1, 1, 30, tzinfo=self.zone)

    @property
    def transform(self) -> Affine:
        """Of the files."""
        _, x, y, s = self.place
        if self.turn == "south":
            return Affine(s, 0, x, 0, s, y - s * self.shape[0])
        if self.turn == "sheared":
            return Affine(s, s * 0.1, x, -s * 0.05, -s, y)
        return Affine(s, 0, x, 0, -s, y)

    @property
    def options(self) -> dict[str, Any]:
        """Of ``encode``."""
        out: dict[str, Any] = {}
        if self.bound is not None:
            out["error_bound"] = self.bound
        if self.payload is not None:
            out["payload"] = self.payload
        if self.explicit:
            out["bands"] = {b.name: self.source(k) for k, b in enumerate(self.bands)}
        return out

    def source(self, k: int) -> str:
        """Asset key of a band, with its number in a file of several."""
        return self.bands[k].name if not self.joined else "all" if k == 0 else f"all.{k + 1}"

    def write(self, folder: Path) -> pystac.Item:
        """Write the files; the Item that describes them."""
        self.folder = folder
        rng = np.random.default_rng(self.seed)
        if self.joined:
            first = self.bands[0]
            for b in self.bands:
                b.dtype, b.tag, b.stated, b.mask, b.own_scale = (
                    first.dtype,
                    first.tag,
                    first.stated,
                    first.mask,
                    first.own_scale,
                )
        for b in self.bands:
            b.fill(self.shape, rng)
        item = pystac.Item(
            f"i{self.seed}",
            *self._footprint(),
            self.when,
            self._properties(),
            stac_extensions=[PROJ],
            collection="c",
        )
        if self.picture:
            names = [{"name": b.name, "data_type": "uint8"} for b in self.bands] + [
                {"name": "x"},
                {"name": "y"},
            ]
            self._extra(
                item, "visual", "tci.tif", np.full((3, *self.shape), 77, "uint8"), {"bands": names[:3]}
            )
        for key, members in self._files().items():
            self._write(key, members)
            item.add_asset(
                key,
                pystac.Asset(
                    str(folder / f"{key}.tif"),
                    media_type=TIFF,
                    roles=["data"],
                    extra_fields=self._fields(members),
                ),
            )
        if self.quality:
            self._extra(item, "data-mask", "scl_B02.tif", np.full((1, *self.shape), 4, "uint8"), {})
        item.set_self_href(str(folder / "item.json"))
        return item

    def truth(self, k: int) -> tuple[Any, Any]:
        """Stored values of a band by plain rasterio, and which of them are data."""
        key, _, number = self.source(k).partition(".")
        with rasterio.open(self.folder / f"{key}.tif") as src:
            index = int(number or 1)
            raw, tag = src.read(index), src.nodatavals[index - 1]
            shown = src.read_masks(index) > 0 if self.bands[k].mask else np.ones(raw.shape, bool)
        return raw, self.bands[k].valid(raw, shown, tag)

    def _files(self) -> dict[str, list[DrawnBand]]:
        return {"all": self.bands} if self.joined else {b.name: [b] for b in self.bands}

    def _fields(self, members: list[DrawnBand]) -> dict[str, Any]:
        if self.form == "raster:bands":
            return {
                "raster:bands": [b.facts("") for b in members],
                "eo:bands": [{"name": b.name} for b in members],
            }
        if self.form == "asset" and len(members) == 1:
            return members[0].facts("raster:")
        return {"bands": [{"name": b.name, **b.facts("raster:")} for b in members]}

    def _write(self, key: str, members: list[DrawnBand]) -> None:
        first, (h, w) = members[0], self.shape
        crs = None if self.grid == "no crs in file" else self.crs
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=first.mask == "internal"),
            rasterio.open(
                self.folder / f"{key}.tif", "w", driver="GTiff", height=h, width=w, count=len(members), dtype=first.dtype, crs=crs,
                transform=self.transform, nodata=first.tag, photometric="MINISBLACK",
            ) as dst,
        ):  # fmt: skip
            dst.write(np.stack([b.array for b in members]))
            dst.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (len(members) - 1)
            if first.own_scale is not None:
                dst.scales = [first.own_scale] * len(members)
            if first.mask:
                dst.write_mask(~first.hidden)

    def _extra(self, item: pystac.Item, role: str, name: str, data: Any, fields: dict[str, Any]) -> None:
        """Write an asset that is no band: a picture, or a mask."""
        path, (n, h, w) = self.folder / name, data.shape
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=h,
            width=w,
            count=n,
            dtype="uint8",
            crs=self.crs,
            transform=self.transform,
        ) as dst:
            dst.write(data)
        item.add_asset(role, pystac.Asset(str(path), media_type=TIFF, roles=[role], extra_fields=fields))

    def _footprint(self) -> tuple[Any, Any]:
        """Geometry and bbox, which may be absent or elsewhere."""
        if self.geometry == "none":
            return None, None
        h, w = self.shape
        xs, ys = zip(*(self.transform * c for c in ((0, 0), (w, 0), (w, h), (0, h))), strict=True)
        box = [20.0, 20.0, 21.0, 21.0]
        if self.geometry == "right":
            box = list(transform_bounds(self.crs, "OGC:CRS84", min(xs), min(ys), max(xs), max(ys)))
            box = box if all(map(math.isfinite, box)) else [0.0, 0.0, 1.0, 1.0]
        west, south, east, north = box
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        bbox = box if self.bbox == 4 else [west, south, 0.0, east, north, 100.0]
        return {"type": "Polygon", "coordinates": [ring]}, bbox

    def _properties(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.interval:
            out["start_datetime"] = self.when.isoformat()
            out["end_datetime"] = (self.when + timedelta(days=5)).isoformat()
        if self.baseline:
            out["s2:processing_baseline"] = self.baseline
        return out | self._projection()

    def _projection(self) -> dict[str, Any]:
        """Fields of the projection extension, as ``grid`` has it."""
        t, shape = list(self.transform)[:6], list(self.shape)
        code: dict[str, Any] = {"proj:code": self.crs}
        if "+" in self.crs:
            code = {"proj:wkt2": rasterio.crs.CRS.from_user_input(self.crs).to_wkt()}
        every = code | {"proj:transform": t, "proj:shape": shape}
        off = (0.2 if self.grid == "off a bit" else 3.0) * self.place[3]
        moved = {"proj:transform": [t[0], t[1], t[2] + off, *t[3:]]}
        epsg = {"proj:epsg": int(self.crs[5:])} if self.crs.startswith("EPSG:") else code
        changed: dict[str, dict[str, Any]] = {
            "none": {}, "code": code, "transform": code | {"proj:transform": t}, "off a bit": every | moved, "off much": every | moved,
            "epsg": epsg | {"proj:transform": t, "proj:shape": shape}, "swapped": every | {"proj:shape": shape[::-1]},
            "wrong crs": {"proj:code": "EPSG:32619", "proj:transform": t, "proj:shape": shape},
        }  # fmt: skip
        return changed.get(self.grid, every)


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a pixel of a type can have a value."""
    if dtype.kind == "f":
        return True
    return not math.isnan(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def word_value(word: Any, dtype: np.dtype[Any], tag: float | None) -> float | None:
    """Value of a word for nodata; None for none."""
    if word == "tag":
        return tag
    if word == "nan":
        return math.nan
    if word in ("low", "high"):
        info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        return float(info.min if word == "low" else info.max)
    return None if word is None else float(word)


def pixels(rng: np.random.Generator, shape: tuple[int, int], kind: str, dtype: np.dtype[Any]) -> Any:
    """Values of one band: smooth, constant, near the lowest value of the type, or of its whole range."""
    whole = dtype.kind in "iu"
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if whole else (-1000.0, 1000.0)
    if kind in ("constant", "zeros"):
        return np.full(shape, 5 if kind == "constant" else 0, dtype)
    y, x = np.mgrid[: shape[0], : shape[1]]
    wave = (np.sin(x / 5 + rng.uniform(0, 6)) + np.cos(y / 7) + rng.normal(0, 0.05, shape) + 2.2) / 4.4
    span = min(float(high), 3000.0)
    ranges = {
        "smooth": wave * span,
        "low": low + wave * min(span, 50.0),
        "full": rng.uniform(low, high, shape),
    }
    values = ranges[kind]
    return np.clip(np.rint(values) if whole else values, low, high).astype(dtype)


@st.composite
def drawn_bands(draw: Any, name: str) -> DrawnBand:
    """Draw one band."""

    def pick(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    return DrawnBand(
        name, draw(st.sampled_from(TYPES)), values=pick("smooth", "smooth", "full", "constant", "low", "zeros"),
        tag=pick(None, None, 0, "low", "high", "nan", 7), stated=pick(None, None, "tag", 0, "high", "nan", -9999, 7),
        holes=draw(st.booleans()), mask=pick(None, None, None, None, "msk", "internal"), data_type=pick("right", "right", None, "wrong"),
        scale=pick(None, None, None, 1e-4, 0.01, -0.5), offset=pick(None, None, 0.0, -0.1, 273.15), own_scale=pick(None, None, None, 0.1),
    )  # fmt: skip


@st.composite
def cases(draw: Any) -> Case:
    """Draw one Item."""

    def pick(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    bands = [draw(drawn_bands(name)) for name in names]
    zone = timezone(timedelta(hours=draw(st.integers(-11, 13)), minutes=pick(0, 0, 30, 45)))
    return Case(
        (draw(st.integers(2, 40)), draw(st.integers(2, 40))), pick(*PLACES), bands, turn=pick("north", "north", "north", "south", "sheared"),
        joined=len(bands) > 1 and draw(st.booleans()), grid=pick(*GRIDS), form=pick("bands", "raster:bands", "asset"),
        picture=draw(st.booleans()), quality=draw(st.booleans()), zone=zone, interval=draw(st.booleans()),
        geometry=pick("right", "right", "none", "wrong"), bbox=pick(4, 4, 6), baseline=pick(None, None, "05.11", "02.00"),
        codec=pick(*CODECS), bound=pick(None, None, 0, 2, "1%"), payload=pick(None, None, "plain"), explicit=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )  # fmt: skip
