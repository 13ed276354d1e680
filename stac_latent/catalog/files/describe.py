"""A scene's files as one Item: bands with what files and sensor say of them, grids, footprint and time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pystac
import shapely

from stac_latent.catalog.adopt.period import Period
from stac_latent.catalog.files.names import Named
from stac_latent.catalog.files.rasters import Raster, RasterBand
from stac_latent.catalog.files.scenes import Scene, SceneMetadata, Told
from stac_latent.catalog.files.sensors import ANY, Sensor
from stac_latent.catalog.footprints import footprints
from stac_latent.errors import CatalogError, GridError
from stac_latent.extension.schemas import EO_URI, PROJ_URI, RASTER_URI
from stac_latent.geo.crs import crs_fields
from stac_latent.geo.extents import bbox_of, rfc3339
from stac_latent.spec import Grid, stac_type
from stac_latent.system.links import href_of

__all__ = ["item_of"]

_BASE = "https://stac-extensions.github.io"
_EXTENSIONS = {
    "proj:": PROJ_URI, "eo:": EO_URI, "raster:": RASTER_URI, "grid:": f"{_BASE}/grid/v1.1.0/schema.json",
    "s2:": f"{_BASE}/sentinel-2/v1.0.0/schema.json", "view:": f"{_BASE}/view/v1.0.0/schema.json",
}  # fmt: skip
_BASELINE_4 = datetime(2022, 1, 25, tzinfo=UTC)
"""From this day on Sentinel-2 is processed with an offset."""


@dataclass(frozen=True, slots=True)
class Part:
    """One asset in the making."""

    key: str
    raster: Raster
    named: Named
    bands: tuple[str, ...]


def item_of(
    scene: Scene, rasters: Sequence[Raster], said: SceneMetadata, when: Period, told: Told
) -> tuple[pystac.Item, list[str]]:
    """The Item of a scene, and what its maker should know.

    Parameters
    ----------
    rasters
        Of its files, in their order, with their places.

    Raises
    ------
    CatalogError
        If bands have no names, or two files are of one band.
    GridError
        If the footprint cannot be told.
    """
    notes: list[str] = []
    parts = _finest(
        [_part(scene, r, named, told) for r, (_, named) in zip(rasters, scene.files, strict=True)],
        scene,
        notes,
    )
    start, end = when
    properties: dict[str, Any] = dict(said.properties)
    crss = {p.raster.crs for p in parts}
    if len(crss) == 1:
        properties |= crs_fields(str(parts[0].raster.crs))
    if start != end:
        properties |= {"start_datetime": rfc3339(start), "end_datetime": rfc3339(end)}
    whole_day = end - start < timedelta(days=1)
    geometry = _footprint(parts)
    item = pystac.Item(
        scene.id, geometry.__geo_interface__, [float(v) for v in bbox_of(geometry)], start if whole_day else None, properties,
        collection=scene.collection,
    )  # fmt: skip
    for part in parts:
        item.add_asset(part.key, _asset(part, scene.sensor, said, told, alone=len(crss) > 1))
    sizes = [a.extra_fields["gsd"] for a in item.assets.values() if "gsd" in a.extra_fields]
    if sizes:
        item.properties["gsd"] = min(sizes)
    used = {k.partition(":")[0] + ":" for k in _keys(item.to_dict(transform_hrefs=False))}
    item.stac_extensions = sorted(uri for prefix, uri in _EXTENSIONS.items() if prefix in used)
    if _offset_unknown(scene, parts, said, start, told):
        notes.append(
            f"scene {scene.id!r}: nothing says its processing baseline, and its offset was taken to be 0; from 04.00 on (2022) it is -0.1: "
            "state it with --offset -0.1 (offset=), and 0 ends this warning"
        )
    return item, notes


def _keys(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {str(k) for k in value} | {k for v in value.values() for k in _keys(v)}
    return {k for v in value for k in _keys(v)} if isinstance(value, list) else set()


# -- bands and assets ----------------------------------------------------------------------------------------------


def _part(scene: Scene, raster: Raster, named: Named, told: Told) -> Part:
    count = len(raster.bands)
    if not count:
        raise CatalogError(
            f"{raster.path} has no bands; it is a container whose parts are not read, or was cut off"
        )
    if named.band is not None and count == 1:
        return Part(named.band, raster, named, (named.band,))
    picture = scene.sensor.bands.get(named.band or "", {}).get("kind") == "picture"
    if named.band is not None and picture:
        return Part(
            named.band,
            raster,
            named,
            tuple(f"{named.band}_{'RGBA'[i] if i < 4 else i}" for i in range(count)),
        )
    names = _band_names(scene.sensor, raster, told)
    key = named.band or (names[0] if count == 1 else "data")
    return Part(_key(key), raster, named, names)


def _key(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text) or "data"


def _band_names(sensor: Sensor, raster: Raster, told: Told) -> tuple[str, ...]:
    """Names of the bands of a file whose name does not give one: as told, of the file, or of the product."""
    count = len(raster.bands)
    if told.bands is not None:
        if len(told.bands) != count:
            raise CatalogError(
                f"{raster.path} has {count} band(s), and --bands (bands=) names {len(told.bands)}: {', '.join(told.bands)}; name each "
                "band of the file in its order"
            )
        return tuple(sensor.band(b) or b for b in told.bands)
    described = [_described(sensor, b) for b in raster.bands]
    if None not in described and len(set(described)) == count:
        return tuple(str(d) for d in described)
    if len(sensor.order) == count:
        return tuple(sensor.order)
    if sensor.name == ANY:
        return tuple(f"b{i + 1}" for i in range(count))
    raise CatalogError(
        f"{raster.path} has {count} band(s), and neither its name nor its descriptions say which of sensor {sensor.name}: name them with "
        f"--bands (bands=), in the order of the file, such as {','.join(list(sensor.bands)[: min(count, 4)])}, or --pattern"
    )


def _described(sensor: Sensor, band: RasterBand) -> str | None:
    """A band's name by its description."""
    text = band.description or band.tags.get("DESCRIPTION") or band.tags.get("long_name")
    if not text or text == "bands":  # what rioxarray calls every band
        return None
    plain = re.sub(r"[^\w.+-]+", "_", re.sub(r"\(.*?\)", "", text)).strip("_")[:60]
    return sensor.band(text.strip()) or sensor.band(plain) or plain or None


def _finest(parts: Sequence[Part], scene: Scene, notes: list[str]) -> list[Part]:
    """One asset for each band: that with the finest pixels; of equal ones none is guessed."""
    by_key: dict[str, list[Part]] = {}
    for part in parts:
        by_key.setdefault(part.key, []).append(part)
    out, left = [], []
    for key, same in by_key.items():
        same.sort(key=lambda p: (p.raster.pixel, str(p.raster.path)))
        if len(same) > 1 and math.isclose(same[0].raster.pixel, same[1].raster.pixel, rel_tol=1e-3):
            kind = "are two files for" if len(same) == 2 else f"and {len(same) - 2} more are files for"
            raise CatalogError(
                f"{same[0].raster.path} and {same[1].raster.path} {kind} band {key!r} of scene {scene.id!r}; name the one that you mean, "
                "or tell the scenes apart with --pattern (pattern=)"
            )
        out.append(same[0])
        left += [p.raster.path.name for p in same[1:]]
    if left:
        notes.append(
            f"scene {scene.id!r}: {len(left)} coarser copies of its bands are left out, such as {left[0]}"
        )
    return out


def _asset(part: Part, sensor: Sensor, said: SceneMetadata, told: Told, *, alone: bool) -> pystac.Asset:
    raster = part.raster
    bands, roles, title = [], [], None
    for name, band in zip(part.bands, raster.bands, strict=True):
        own = sensor.facts(part.key if part.key in sensor.bands else name, band.data_type)
        roles += own.pop("roles")
        title = title or own.pop("title", None)
        own.pop("title", None)
        bands.append({"name": name, **_band_fields(name, band, own, part, said, told)})
    fields: dict[str, Any] = {
        "bands": bands,
        "proj:shape": list(raster.shape),
        "proj:transform": [float(v) for v in tuple(raster.transform or ())[:6]],
    }
    if (size := _metres(raster)) is not None:
        fields["gsd"] = size
    if alone:
        fields |= crs_fields(str(raster.crs))
    return pystac.Asset(
        href_of(raster.path), title if len(bands) == 1 or part.key in sensor.bands else None, media_type=raster.media_type,
        roles=list(dict.fromkeys(roles)), extra_fields=fields,
    )  # fmt: skip


def _band_fields(
    name: str, band: RasterBand, own: dict[str, Any], part: Part, said: SceneMetadata, told: Told
) -> dict[str, Any]:
    """Fields of a band: the caller's before the product's metadata, the file's header, and the sensor's."""
    kind = own.pop("kind", None)
    out: dict[str, Any] = {"data_type": stac_type(band.data_type), **own, **_wavelength(band)}
    integer = np.dtype(band.data_type).kind in "iu" and "raster:scale" in own
    if kind == "reflectance" and integer:
        out |= said.sentinel2.physical(name, said.baseline)
        out |= part.named.fields
    if (band.scale, band.offset) != (1.0, 0.0) and band.scale:
        out |= {"raster:scale": band.scale, "raster:offset": band.offset}
    if kind in (None, "reflectance"):
        out |= {
            f"raster:{k}": v for k, v in (("scale", told.scale), ("offset", told.offset)) if v is not None
        }
    nodata = told.nodata if told.nodata is not None and kind in (None, "reflectance") else band.nodata
    if nodata is not None:
        out["nodata"] = _plain(nodata)
    if band.unit or band.tags.get("units"):
        out["unit"] = band.unit or band.tags["units"]
    if band.description and band.description != name:
        out.setdefault("description", band.description)
    return out


def _plain(value: float) -> float | int | str:
    """A number as JSON and STAC have it."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def _wavelength(band: RasterBand) -> dict[str, float]:
    """Centre wavelength and width, as files of imaging spectrometers have them."""
    units = band.tags.get("wavelength_units", band.tags.get("CENTRAL_WAVELENGTH_UNITS", "")).lower()
    factor = (
        1e-3 if units.startswith(("nano", "nm")) else 1.0 if units.startswith(("micro", "um", "µm")) else None
    )
    text = band.tags.get("wavelength", "")
    if factor is None or not re.fullmatch(r"[\d.]+", text):
        centre, width = band.tags.get("CENTRAL_WAVELENGTH_UM", ""), band.tags.get("FWHM_UM", "")
        factor = 1.0
    else:
        centre, width = text, band.tags.get("fwhm", "")
    found = {"eo:center_wavelength": centre, "eo:full_width_half_max": width}
    return {k: float(f"{float(v) * factor:.9g}") for k, v in found.items() if re.fullmatch(r"\d+(\.\d*)?", v)}


def _offset_unknown(
    scene: Scene, parts: Sequence[Part], said: SceneMetadata, start: datetime, told: Told
) -> bool:
    if not scene.sensor.name.startswith("sentinel-2") or said.baseline is not None or told.offset is not None:
        return False
    counted = any(
        b.data_type in ("uint16", "int16")
        and (b.scale, b.offset) == (1.0, 0.0)
        and "raster:offset" not in p.named.fields
        for p in parts
        for b in p.raster.bands
    )
    return counted and start >= _BASELINE_4


# -- places --------------------------------------------------------------------------------------------------------


def _metres(raster: Raster) -> float | None:
    """Width of a pixel where the CRS counts metres."""
    if raster.crs is None or not _in_metres(raster.crs):
        return None
    return _plain_size(raster.pixel)


def _plain_size(size: float) -> float:
    return round(size) if math.isclose(size, round(size), rel_tol=1e-9) else float(f"{size:.6g}")


@lru_cache(maxsize=256)
def _in_metres(crs: str) -> bool:
    from pyproj import CRS

    found = CRS.from_user_input(crs)
    return bool(found.is_projected and found.axis_info and found.axis_info[0].unit_name in ("metre", "meter"))


def _footprint(parts: Sequence[Part]) -> Any:
    """Of all grids of a scene; those that cover the same area count once."""
    outlines: dict[tuple[Any, ...], Any] = {}
    for part in parts:
        raster = part.raster
        t, (height, width) = raster.transform, raster.shape
        if t is None or raster.crs is None:
            continue
        corners = tuple(round(v, 3 if abs(v) > 1000 else 9) for v in (t.c, t.f, *(t * (width, height))))
        if (raster.crs, corners) not in outlines:
            try:
                outlines[raster.crs, corners] = _outline(raster.crs, tuple(t)[:6], raster.shape)
            except GridError as exc:
                raise GridError(f"{raster.path}: {exc}") from exc
    found = list(outlines.values())
    return found[0] if len(found) == 1 else shapely.union_all(found)


@lru_cache(maxsize=1024)
def _outline(crs: str, transform: tuple[float, ...], shape: tuple[int, int]) -> Any:
    """Polygon in degrees; scenes of one series share it."""
    a, b, c, d, e, f = (float(v) for v in transform)
    grid = Grid(crs, (a, b, c, d, e, f), shape)
    return footprints(grid, np.array([0]), np.array([0]), grid.cells)[0]
