"""Sentinel-1: VV and VH backscatter in dB, float32. All sets are distributed in dB; nothing was converted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from real_sets.authoring import COPERNICUS, Raster, read, write_catalog, write_item

S1 = {"constellation": "sentinel-1", "instruments": ["c-sar"], "gsd": 10}
EVENTS = {"Spain_7370579": "2019-09-17T00:00:00Z"}
TERRAMIND_DATES = {"282D_485L_3_3": "2021-07-21T08:40:10Z", "433D_629L_3_1": "2020-04-11T23:43:09Z", "609U_541L_3_0": "2020-01-11T23:27:23Z"}  # fmt: skip
TITLES = {
    "sen1floods11": "Sen1Floods11, Sentinel-1 GRD chips of floods",
    "sen12ms-cr": "SEN12MS-CR, Sentinel-1 GRD chips",
    "terramesh-s1rtc": "TerraMesh, Sentinel-1 RTC chips",
    "bigearthnet-s1": "BigEarthNet-MM, Sentinel-1 GRD patches",
}


def backscatter(data: Path, root: Path) -> Path | None:
    """Four Collections of VV and VH."""
    source = data / "sentinel1"
    docs = [
        *_floods(source, root),
        *_sen12ms(source, root),
        *_terramind(source, root),
        *_bigearthnet(source, root),
    ]
    return write_catalog(root, "Sentinel-1 backscatter in dB", docs, TITLES) if docs else None


def raster(values: np.ndarray, transform: Any) -> Raster:
    """An asset of VV and VH [dB]."""
    values = values.astype(np.float32)
    return Raster(values, transform, [{"name": "VV"}, {"name": "VH"}], {"unit": "dB", "nodata": "nan"})


def _item(root: Path, collection: str, path: Path, when: str, note: str, licence: str) -> dict[str, Any]:
    values, transform, crs = read(path)
    about = {**S1, "description": f"{note} {COPERNICUS}", "license": licence}
    identifier = path.stem.removesuffix("_S1Hand")
    code = f"EPSG:{crs.to_epsg()}"
    return write_item(root, collection, identifier, code, when, {"s1": raster(values, transform)}, about)


def _floods(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((source / "sen1floods11").glob("*_S1Hand.tif")):
        day = EVENTS.get(path.stem.removesuffix("_S1Hand"))
        note = "GRD backscatter in dB, distributed so."
        note += " The date is that of the event." if day else " The date is nominal: the source states none."
        yield _item(root, "sen1floods11", path, day or "2018-01-01T00:00:00Z", note, "CC-BY-4.0")


def _sen12ms(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((source / "sen12mscr" / "s1").glob("*.tif")):
        note = "GRD backscatter in dB, distributed so. The date is nominal: the source states spring 2018."
        yield _item(root, "sen12ms-cr", path, "2018-04-15T00:00:00Z", note, "CC-BY-4.0")


def _terramind(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((source / "terramind_colocated" / "S1RTC").glob("*.tif")):
        note = "Terrain corrected (RTC) backscatter in dB, distributed so as float64; float32 here."
        yield _item(root, "terramesh-s1rtc", path, TERRAMIND_DATES[path.stem], note, "CC-BY-SA-4.0")


def _bigearthnet(source: Path, root: Path) -> Iterator[dict[str, Any]]:
    for folder in sorted(p for p in (source / "bigearthnet_tiny").glob("S1*") if p.is_dir()):
        parts = [read(folder / f"{folder.name}_{name}.tif") for name in ("VV", "VH")]
        day = re.search(r"_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)_", folder.name)
        if day is None:
            continue
        when = "{}-{}-{}T{}:{}:{}Z".format(*day.groups())
        note = f"GRD backscatter in dB, distributed so; a patch of 1.2 km. {COPERNICUS}"
        about = {**S1, "description": note, "license": "CDLA-Permissive-1.0"}
        asset = raster(np.concatenate([p[0] for p in parts]), parts[0][1])
        code = f"EPSG:{parts[0][2].to_epsg()}"
        yield write_item(root, "bigearthnet-s1", folder.name, code, when, {"s1": asset}, about)
