"""Files that are bands of one scene, put together; and what a scene's metadata say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stac_latent.catalog.adopt.period import Period
from stac_latent.catalog.files import times
from stac_latent.catalog.files.landsat import read_mtl
from stac_latent.catalog.files.listing import Found
from stac_latent.catalog.files.names import Named, Pattern, read_name, stem_of
from stac_latent.catalog.files.rasters import Raster
from stac_latent.catalog.files.sensors import ANY, Sensor
from stac_latent.catalog.files.sentinel2 import Sentinel2Metadata, read_metadata
from stac_latent.errors import CatalogError, GridError, StacLatentError
from stac_latent.geo.crs import crs_text
from stac_latent.system.names import plain_name

__all__ = ["Scene", "SceneMetadata", "Told", "group", "metadata_of", "placed", "time_of"]


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller says; None: nothing."""

    pattern: Pattern | None = None
    bands: Sequence[str] | None = None
    when: str | None = None
    datetime_pattern: str | None = None
    collection: str | None = None
    crs: str | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None

    def check(self) -> None:
        """Refuse what no file could mend, with :class:`stac_latent.errors.CatalogError` or :class:`stac_latent.errors.GridError`."""
        if self.when is not None:
            times.moment(self.when)
        if self.datetime_pattern is not None:
            times.check_format(self.datetime_pattern)
        if self.crs is not None:
            crs_text(self.crs)
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale):
            raise CatalogError(f"scale {self.scale:g} leads to no physical value; expected such as 0.0001")
        if self.bands is not None and len(set(self.bands)) < len(self.bands):
            raise CatalogError(f"bands {', '.join(self.bands)} names one twice; give each a name of its own")


@dataclass(slots=True)
class Scene:
    """What becomes one Item."""

    id: str
    sensor: Sensor
    collection: str
    files: list[tuple[Path, Named]]
    product: Path | None = None

    @property
    def paths(self) -> set[Path]:
        """Its files."""
        return {path for path, _ in self.files}


@dataclass(frozen=True, slots=True)
class SceneMetadata:
    """What names and metadata files say of a scene."""

    when: str | None
    properties: dict[str, Any]
    sentinel2: Sentinel2Metadata = field(default_factory=Sentinel2Metadata)
    baseline: str | None = None


def group(
    found: Iterable[Found], sensors: Sequence[Sensor], told: Told
) -> tuple[list[Scene], list[tuple[str, StacLatentError]]]:
    """Scenes of files, by their names; and files that are of none, with the reason.

    Raises
    ------
    CatalogError
        If names fit several sensors equally well.
    """
    scenes: dict[tuple[str, str, str], Scene] = {}
    failures: list[tuple[str, StacLatentError]] = []
    unclear: dict[tuple[str, ...], list[Path]] = {}
    for each in found:
        try:
            said = read_name(each.path, sensors, told.pattern)
        except StacLatentError as exc:
            failures.append((str(each.path), exc))
            continue
        if len(said) > 1:
            unclear.setdefault(tuple(n.sensor.name for n in said), []).append(each.path)
            continue
        _put(scenes, each, said[0], told)
    if unclear:
        raise CatalogError(_choices(unclear))
    kept, others = _with_ids(scenes)
    return kept, failures + others


def _put(scenes: dict[tuple[str, str, str], Scene], found: Found, named: Named, told: Told) -> None:
    """Add a file to its scene."""
    identifier, folder = named.scene, "" if named.whole else str(found.path.parent)
    if found.product is not None:
        identifier, folder = found.product.name.removesuffix(".SAFE"), str(found.product)
    key = (named.sensor.name, identifier, folder)
    if key not in scenes:
        collection = told.collection or named.sensor.collection
        scenes[key] = Scene(plain_name(identifier), named.sensor, collection, [], found.product)
    scenes[key].files.append((found.path, named))


def _choices(unclear: Mapping[tuple[str, ...], list[Path]]) -> str:
    """Which sensors names fit, with an example of each."""
    parts = [
        f"{len(paths):,} file(s) such as {paths[0]} may be {' or '.join(names)}"
        for names, paths in unclear.items()
    ]
    return f"{'; '.join(parts)}: names alone do not tell; choose one with --sensor (sensor=)"


def _with_ids(
    scenes: Mapping[tuple[str, str, str], Scene],
) -> tuple[list[Scene], list[tuple[str, StacLatentError]]]:
    """Scenes with ids that differ: those of one name get the folders in front that tell them apart; what is alike all the same is left out."""
    by_id: dict[tuple[str, str], list[Scene]] = {}
    for scene in scenes.values():
        by_id.setdefault((scene.collection, scene.id.casefold()), []).append(scene)
    for same in by_id.values():
        depth = 1
        while len(same) > 1 and depth < 8:
            folders = [s.files[0][0].parts[-depth - 1 : -1] for s in same]
            if len(set(folders)) == len(same):
                for scene, folder in zip(same, folders, strict=True):
                    scene.id = plain_name("_".join((*folder, scene.id)))
                break
            depth += 1
    kept: dict[tuple[str, str], Scene] = {}
    failures: list[tuple[str, StacLatentError]] = []
    for scene in sorted(scenes.values(), key=lambda s: (s.collection, s.id, s.files[0][0])):
        first = kept.setdefault((scene.collection, scene.id.casefold()), scene)
        if first is not scene:
            failures.append((scene.id, CatalogError(_same_id(first, scene))))
    return list(kept.values()), failures


def _same_id(first: Scene, scene: Scene) -> str:
    return (
        f"{scene.files[0][0]} and {first.files[0][0]} both give an item {scene.id!r}: ids are cut at 100 bytes and have no marks of paths; "
        "tell them apart with --pattern (pattern=), or put one into another --collection"
    )


def metadata_of(scene: Scene) -> SceneMetadata:
    """What names and the files beside the bands say."""
    first, named = scene.files[0]
    said = named.said
    properties = dict(scene.sensor.properties)
    if (platform := scene.sensor.platforms.get(said.get("platform", ""))) is not None:
        properties["platform"] = platform
    when, sentinel2, baseline = named.when, Sentinel2Metadata(), None
    tile = said.get("tile")
    if scene.sensor.name.startswith("sentinel-2"):
        sentinel2 = read_metadata(scene.product, first.parent)
        properties |= sentinel2.properties
        when, tile = sentinel2.when or when, tile or sentinel2.tile
        baseline = sentinel2.properties.get("s2:processing_baseline") or said.get("baseline")
        if baseline is not None and "." not in baseline:
            baseline = f"{baseline[:2]}.{baseline[2:]}"
            properties["s2:processing_baseline"] = baseline
    elif scene.sensor.name.startswith("landsat"):
        stated, more = read_mtl(first.parent, named.scene)
        when, properties = stated or when, {**properties, **more}
    if tile is not None and scene.sensor.grid is not None:
        properties["grid:code"] = _grid_code(scene.sensor.grid, tile)
    return SceneMetadata(when, properties, sentinel2, baseline)


def _grid_code(grid: str, tile: str) -> str:
    return f"WRS2-{tile[:3]}{tile[3:]}" if grid == "WRS2" else f"{grid}-{tile}"


def placed(raster: Raster, said: SceneMetadata, told: Told) -> Raster:
    """A file with the place that metadata or the caller give one that states none.

    Raises
    ------
    GridError
        If nothing says where its pixels lie.
    """
    crs, transform = raster.crs, raster.transform
    if crs is None and told.crs is not None:
        crs = crs_text(told.crs)
    if transform is None and (known := said.sentinel2.transform(raster.shape)) is not None:
        crs, transform = said.sentinel2.crs, known
    if transform is None and raster.points:
        raise GridError(
            f"{raster.path} has ground control points and no grid: warp it to one first, for instance with gdalwarp -t_srs EPSG:32633"
        )
    if transform is None:
        raise GridError(
            f"{raster.path} does not say where its pixels lie: it has no transform; write it with one (gdal_translate -a_srs ... -a_ullr ...)"
        )
    if crs is None:
        raise GridError(
            f"{raster.path} has no CRS; state the one of its coordinates with --crs EPSG:32633, or EPSG:4326 for degrees (crs=)"
        )
    return replace(raster, crs=crs, transform=transform)


def time_of(scene: Scene, told: Told, said: SceneMetadata, rasters: Sequence[Raster]) -> Period:
    """When a scene is of: as told, of its metadata, its names, or tags of its files.

    Raises
    ------
    CatalogError
        If nothing says it.
    """
    path, named = scene.files[0]
    text = f"{path.parent.name}/{stem_of(path)}"
    if told.when is not None:
        return times.moment(told.when)
    if told.datetime_pattern is not None:
        fields = (told.pattern.match(path) if told.pattern is not None else None) or {}
        return times.of_format(told.datetime_pattern, text if "time" in fields else fields.get("date", text))
    if said.when is not None:
        return times.moment(said.when)
    if named.when is not None:
        return times.moment(named.when)
    if (found := times.in_name(stem_of(path)) or times.in_name(scene.id)) is not None:
        return found
    for raster in rasters:
        if (found := times.in_tags(raster.tags)) is not None:
            return found
    kind = "" if scene.sensor.name == ANY else f" of sensor {scene.sensor.name}"
    raise CatalogError(
        f"{path}: neither its name nor its tags say of when this scene{kind} is; state it with --datetime 2020-06-01, or say how names "
        "have it with --datetime-pattern %Y%m%d, or --pattern '{site}_{date}_{band}.tif'"
    )
