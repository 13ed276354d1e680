"""Arrays of netCDF and GRIB files as rasters, one for each variable and time: small VRT files that name bands; nothing is copied."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from affine import Affine

from stac_latent.catalog.files.names import Named
from stac_latent.catalog.files.rasters import Raster, RasterBand, read_raster
from stac_latent.catalog.files.scenes import SceneMetadata, Told, placed
from stac_latent.catalog.files.sensors import Sensor
from stac_latent.catalog.files.times import since
from stac_latent.errors import CatalogError, GridError
from stac_latent.geo.crs import crs_text

__all__ = ["DRIVERS", "Step", "steps_of"]

DRIVERS = ("netCDF", "GRIB")
"""Of files whose bands are times and levels."""
_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32", "uint64": "UInt64",
    "int64": "Int64", "float32": "Float32", "float64": "Float64",
}  # fmt: skip
_SURFACE = re.compile(r"^(0|2|10|100)-(SFC|HTGL|MSL|EATM|NTAT)$")
"""Levels that the name of an element has in it, or that are no level."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One band of one array."""

    array: Raster
    source: str
    """As GDAL opens it."""
    index: int
    """From one."""
    variable: str
    name: str
    when: datetime | None


@dataclass(frozen=True, slots=True)
class Step:
    """What is of one time."""

    when: datetime | None
    """None where the file does not say."""
    layers: Sequence[_Layer]

    def rasters(self, sensor: Sensor, folder: Path) -> Iterator[tuple[Raster, Named, str]]:
        """A raster for each variable, with its name, and the VRT file that it is read from."""
        for variable, group in itertools.groupby(self.layers, key=lambda layer: layer.variable):
            some = list(group)
            array, turn = _from_180_west(some[0].array)
            path = folder / f"{variable}.vrt"
            bands = tuple(
                replace(layer.array.bands[layer.index - 1], description=layer.name) for layer in some
            )
            raster = replace(array, path=path, driver="VRT", bands=bands, parts=(), media_type=None)
            yield raster, Named(sensor, "", sensor.band(variable) or variable), _vrt(raster, some, turn)


def steps_of(path: Path, raster: Raster, said: SceneMetadata, told: Told) -> list[Step]:
    """The times of a file, in order, with the layers of each.

    Raises
    ------
    CatalogError
        If layers cannot be told apart, or the file has an axis of time that is not the clock's.
    GridError
        If no array says where it lies.
    """
    layers: list[_Layer] = []
    problem: GridError | None = None
    for source in raster.parts or (None,):
        array = raster if source is None else read_raster(path, source)
        try:
            array = placed(_on_lonlat(array), said, told)
        except GridError as exc:
            problem = problem or exc
            continue
        layers += _messages(array) if array.driver == "GRIB" else _bands(array, source)
    if not layers:
        raise problem or CatalogError(f"{path} has no bands")
    known = sorted({layer.when for layer in layers if layer.when is not None})
    times: list[datetime | None] = [*known] or [None]
    steps = [
        Step(when, sorted((la for la in layers if la.when in (when, None)), key=lambda la: la.variable))
        for when in times
    ]
    for step in steps:
        _check_apart(path, step)
    return steps


def _check_apart(path: Path, step: Step) -> None:
    seen: set[tuple[str, str]] = set()
    for layer in step.layers:
        if (layer.variable, layer.name) in seen:
            raise CatalogError(
                f"{path} holds {layer.name!r} more than once for {step.when}, as members of an ensemble are: bands of one Item cannot be "
                "told apart; split the file by member"
            )
        seen.add((layer.variable, layer.name))


def _on_lonlat(array: Raster) -> Raster:
    """An array on latitude and longitude, as CF has it, with that CRS."""
    units = {v for k, v in array.tags.items() if k.endswith("#units")}
    names = {v for k, v in array.tags.items() if k.endswith("#standard_name")}
    degrees = (
        any(u.startswith("degree") and u.endswith(("east", "_E")) for u in units) or "longitude" in names
    )
    plain = array.crs is None and array.transform is not None and degrees
    return replace(array, crs=crs_text("EPSG:4326")) if plain else array


def _bands(array: Raster, source: str | None) -> Iterator[_Layer]:
    """Layers of a netCDF variable: the last of its extra axes runs fastest."""
    variable = array.bands[0].tags.get("NETCDF_VARNAME") or (source or "").rpartition(":")[2] or "data"
    axes = re.findall(r"[^{},]+", array.tags.get("NETCDF_DIM_EXTRA", ""))
    values = [_values(array, axis) for axis in axes]
    if math.prod(len(v) for v in values) != len(array.bands):
        axes, values = ["band"], [[str(i + 1) for i in range(len(array.bands))]]
    where = source or f'NETCDF:"{array.path}":{variable}'
    for index, place in enumerate(itertools.product(*values)):
        when, levels = None, []
        for axis, value in zip(axes, place, strict=True):
            units = array.tags.get(f"{axis}#units", "")
            if " since " not in units:
                levels.append(value)
                continue
            when = since(float(value), units, array.tags.get(f"{axis}#calendar", "standard"))
            if when is None:
                raise CatalogError(
                    f"{array.path}: its time {value!r} in {units!r} ({array.tags.get(f'{axis}#calendar', 'standard')} calendar) is none of "
                    "the clock's; convert it, for instance with xarray: dataset.convert_calendar('standard')"
                )
        alone = all(
            len(v) == 1
            for a, v in zip(axes, values, strict=True)
            if " since " not in array.tags.get(f"{a}#units", "")
        )
        yield _Layer(
            array, where, index + 1, variable, variable if alone else "_".join([variable, *levels]), when
        )


def _values(array: Raster, axis: str) -> list[str]:
    """Values of an axis; places where the file has none."""
    text = array.tags.get(f"NETCDF_DIM_{axis}_VALUES", "")
    size = re.match(r"\{(\d+)", array.tags.get(f"NETCDF_DIM_{axis}_DEF", ""))
    found = [v.strip() for v in text.strip("{}").split(",") if v.strip()]
    return found or [str(i) for i in range(int(size[1]) if size else 1)]


def _messages(array: Raster) -> Iterator[_Layer]:
    """Layers of a GRIB file: each message says element, level and time."""
    for index, band in enumerate(array.bands):
        element = (band.tags.get("GRIB_ELEMENT") or f"b{index + 1}").lower()
        level = band.tags.get("GRIB_SHORT_NAME", "")
        seconds = re.match(r"\s*(-?\d+)", band.tags.get("GRIB_VALID_TIME", ""))
        when = None if seconds is None else datetime.fromtimestamp(int(seconds[1]), tz=UTC)
        name = element if not level or _SURFACE.match(level) else f"{element}_{level}"
        yield _Layer(array, str(array.path), index + 1, element, name, when)


# -- VRT files -----------------------------------------------------------------------------------------------------


def _from_180_west(array: Raster) -> tuple[Raster, int]:
    """A field round the Earth that begins at Greenwich, begun at 180 degrees west; and how many columns go to its end."""
    t, width = array.transform, array.shape[1]
    if (
        t is None
        or array.crs != "EPSG:4326"
        or t.b
        or t.d
        or not math.isclose(t.a * width, 360, rel_tol=1e-3)
    ):
        return array, 0
    columns = round((180 - t.c) / t.a)
    if not 0 < columns < width or t.c + t.a * width <= 180 + t.a:
        return array, 0
    moved = Affine(t.a, 0, t.c + columns * t.a - 360, 0, t.e, t.f)
    return replace(array, transform=moved), columns


def _vrt(raster: Raster, layers: Sequence[_Layer], turn: int) -> str:
    """A VRT file; paths are relative where file and VRT share a folder above."""
    height, width = raster.shape
    t = raster.transform or Affine.identity()
    lines = [
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">', f"  <SRS>{escape(str(raster.crs))}</SRS>",
        f"  <GeoTransform>{', '.join(repr(float(v)) for v in t.to_gdal())}</GeoTransform>",
    ]  # fmt: skip
    for number, (layer, band) in enumerate(zip(layers, raster.bands, strict=True)):
        source, near = _reached(layer, raster.path)
        lines += [
            f'  <VRTRasterBand dataType="{_TYPES[band.data_type]}" band="{number + 1}">',
            f"    <Description>{escape(layer.name)}</Description>", *_facts(band),
        ]  # fmt: skip
        parts = [(0, width, 0)] if not turn else [(turn, width - turn, 0), (0, turn, width - turn)]
        for first, columns, to in parts:
            lines += [
                "    <SimpleSource>",
                f'      <SourceFilename relativeToVRT="{near}">{escape(source)}</SourceFilename>',
                f"      <SourceBand>{layer.index}</SourceBand>",
                f'      <SrcRect xOff="{first}" yOff="0" xSize="{columns}" ySize="{height}"/>',
                f'      <DstRect xOff="{to}" yOff="0" xSize="{columns}" ySize="{height}"/>',
                "    </SimpleSource>",
            ]
        lines.append("  </VRTRasterBand>")
    return "\n".join([*lines, "</VRTDataset>", ""])


def _facts(band: RasterBand) -> list[str]:
    out = []
    if band.nodata is not None:
        out.append(f"    <NoDataValue>{band.nodata!r}</NoDataValue>")
    if band.unit:
        out.append(f"    <UnitType>{escape(band.unit)}</UnitType>")
    if (band.scale, band.offset) != (1.0, 0.0):
        out += [f"    <Offset>{band.offset!r}</Offset>", f"    <Scale>{band.scale!r}</Scale>"]
    return out


def _reached(layer: _Layer, vrt: Path) -> tuple[str, int]:
    """Name of a source as a VRT file has it, and whether it is relative to the VRT file."""
    path = layer.array.path.absolute()
    shared = path.drive == vrt.drive and os.path.commonpath([path, vrt.absolute()]) != path.anchor
    place = Path(os.path.relpath(path, vrt.parent)).as_posix() if shared else str(path)
    if layer.source == str(layer.array.path):
        return place, int(shared)
    return f"NETCDF:{quoteattr(place).replace('&quot;', '')}:{layer.source.rpartition(':')[2]}", int(shared)
