"""The verb ``items``: raster files become STAC Items with what names, headers and metadata say of them; nothing is copied."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pystac
from rasterio.errors import NotGeoreferencedWarning

from stac_latent.aliases import Progress
from stac_latent.catalog.files.describe import item_of
from stac_latent.catalog.files.listing import Found, find_files
from stac_latent.catalog.files.names import Pattern
from stac_latent.catalog.files.rasters import Raster, read_raster
from stac_latent.catalog.files.scenes import Scene, SceneMetadata, Told, group, metadata_of, placed, time_of
from stac_latent.catalog.files.sensors import ANY, AUTO, open_sensors
from stac_latent.catalog.files.steps import DRIVERS, steps_of
from stac_latent.catalog.tree import CatalogTree
from stac_latent.errors import CatalogError, SkippedWarning, SourceWarning, StacLatentError
from stac_latent.system.files import write_whole, writing
from stac_latent.system.links import href_of, local_path, relative
from stac_latent.system.suggest import known_options

__all__ = ["items_from_files"]

OnError = Literal["raise", "skip"]
Described = tuple[list[pystac.Item], list[str]]
"""Items of a scene, and what their maker should know."""

_BATCH = 1000
"""Scenes between two updates of the catalogue."""
_ABOUT = "Raster files of this machine, described where they are"


@known_options()
def items_from_files(
    files: str | Path | Iterable[str | Path],
    dest: str | Path | None = None,
    *,
    sensor: str = AUTO,
    pattern: str | None = None,
    bands: Sequence[str] | None = None,
    datetime: str | None = None,
    datetime_pattern: str | None = None,
    collection: str | None = None,
    crs: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
    on_error: OnError = "raise",
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[pystac.Item]:
    """Describe raster files as STAC Items, one for each scene, so that :func:`stac_latent.encode` takes them.

    Parameters
    ----------
    files
        Folders, which are searched with what is below them, or files: GeoTIFF, JPEG 2000, products of Sentinel-2 (``.SAFE``), and what
        else GDAL opens.
    dest
        Folder of a catalogue to write or to add to; None: nothing is written. Items that it has of the same files are passed over.
    sensor
        A name of :func:`stac_latent.catalog.sensor_names`, the beginning of some (``"hls"``), ``"any"`` for what files say themselves, a
        JSON file that describes one, or ``"auto"``: by the names of files.
    pattern
        How files are named: ``"{site}_{date}_{band}.tif"``. All fields but ``band`` make up the id.
    bands
        Names of the bands of files whose names do not give one, in their order.
    datetime
        Of all files: a day, a moment, a month, a year, or two with ``/`` between.
    datetime_pattern
        How names state it, as in ``strptime``: ``"%Y%m%d"``.
    collection
        Id of the Collection; by default the sensor's.
    crs
        Of files that state none.
    scale, offset
        That make reflectance, or what else a band holds, of stored numbers; by default as metadata, file or sensor say.
    nodata
        Stored number of pixels without data; by default as file or sensor say.
    overwrite
        Write Items anew that are there already.
    on_error
        ``"raise"``, or ``"skip"``: a scene that cannot be described is named in a :class:`stac_latent.errors.SkippedWarning`.
    progress
        Called with a label, the scenes done, and their number.
    tell
        Called with sentences: which sensors were taken, and what is there already.

    Returns
    -------
    list of pystac.Item
        Those that were made, with absolute hrefs.

    Raises
    ------
    CatalogError
        If no file is found, names fit several sensors, a scene has no date, two files for one band or bands without names, or a file
        is no sound raster.
    GridError
        If a file does not say where its pixels lie.

    Examples
    --------
    >>> import numpy as np
    >>> import rasterio
    >>> grid = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    >>> for band in ("B04", "B08"):
    ...     size = {"count": 1, "height": 8, "width": 8, "dtype": "uint16"}
    ...     with rasterio.open(f"lake_2020-06-01_{band}.tif", "w", driver="GTiff", **size, **grid) as dst:
    ...         dst.write(np.full((1, 8, 8), 900, "uint16"))
    >>> (item,) = items_from_files(".", sensor="sentinel-2-l2a")
    >>> item.id, list(item.assets)
    ('lake_2020-06-01', ['B04', 'B08'])
    >>> item.assets["B04"].extra_fields["bands"][0]["raster:scale"]
    0.0001
    """
    if on_error not in ("raise", "skip"):
        raise CatalogError(f"on_error is 'raise' or 'skip'; got {on_error!r}")
    own = None if pattern is None else Pattern(pattern)
    told = Told(own, bands, datetime, datetime_pattern, collection, crs, scale, offset, nodata)
    told.check()
    sensors = open_sensors(sensor)
    listed = [files] if isinstance(files, str | Path) else list(files)
    tree = None if dest is None else CatalogTree(Path(dest))
    scenes, failures = group(_outside(find_files(listed), tree), sensors, told)
    for name, exc in failures:
        _failed(name, exc, on_error)
    todo = _new(scenes, tree, overwrite, on_error)
    for text in (*_told_first(scenes, todo, sensor), *_told_twice(todo, tree)):
        (tell or _silent)(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # its place is asked for in words of our own
        return _made(todo, told, tree, overwrite, on_error, progress)


def _silent(_text: str) -> None:
    pass


def _told_first(scenes: Sequence[Scene], todo: Sequence[Scene], asked: str) -> Iterator[str]:
    """Which sensors the names were found to be of, where that was not said, and how much is done already."""
    for name, count in Counter(s.sensor.name for s in scenes).items():
        if name != asked and not asked.endswith(".json"):
            why = "no sensor's names: what the files say themselves" if name == ANY else "by their names"
            yield f"sensor {name}: {count:,} scene(s), {why}"
    if len(todo) < len(scenes):
        yield (
            f"{len(scenes) - len(todo):,} of {len(scenes):,} scenes are not new to the catalogue; --overwrite (overwrite=True) writes them anew"
        )


def _told_twice(todo: Sequence[Scene], tree: CatalogTree | None) -> Iterator[str]:
    """Which scenes the catalogue has in another collection already: after a run with another sensor or collection it would hold both."""
    folders = [] if tree is None else sorted(path.parent for path in tree.root.glob("*/collection.json"))
    for folder in folders:
        there = [
            s for s in todo if s.collection != folder.name and (folder / s.id / f"{s.id}.json").is_file()
        ]
        if there:
            yield (
                f"{len(there):,} of {len(todo):,} scenes are in collection {folder.name!r} of this catalogue already, which keeps them: encode takes "
                "both; write to another folder if these replace them"
            )


def _made(
    scenes: Sequence[Scene],
    told: Told,
    tree: CatalogTree | None,
    overwrite: bool,
    on_error: OnError,
    progress: Progress | None,
) -> list[pystac.Item]:
    """Items of scenes, written in batches."""
    out: list[pystac.Item] = []
    batch: list[pystac.Item] = []
    try:
        for number, (scene, result) in enumerate(_described(scenes, told, tree, overwrite)):
            if isinstance(result, StacLatentError):
                _failed(scene.id, result, on_error)
            else:
                batch += result[0]
                for note in result[1]:
                    warnings.warn(SourceWarning(note), stacklevel=3)
            if progress is not None:
                progress("items", number + 1, len(scenes))
            if len(batch) >= _BATCH:
                _write(tree, batch)
                out += batch
                batch = []
    finally:
        _write(tree, batch)  # what was described before an error, or an interruption, is kept
    return out + batch


def _failed(name: str, exc: StacLatentError, on_error: OnError) -> None:
    if on_error == "raise":
        raise exc
    warnings.warn(SkippedWarning(name, exc), stacklevel=3)


def _described(
    scenes: Sequence[Scene], told: Told, tree: CatalogTree | None, overwrite: bool
) -> Iterator[tuple[Scene, Described | StacLatentError]]:
    """Items of scenes, in order: files are opened on several threads, a bounded number ahead."""

    def one(scene: Scene) -> Described | StacLatentError:
        try:
            return _describe(scene, told, tree, overwrite)
        except StacLatentError as exc:
            return exc

    threads = min(32, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(scenes), 8 * threads):
            some = scenes[first : first + 8 * threads]
            yield from zip(some, pool.map(one, some), strict=True)


def _describe(scene: Scene, told: Told, tree: CatalogTree | None, overwrite: bool) -> Described:
    said = metadata_of(scene)
    found = [read_raster(path) for path, _ in scene.files]
    if found[0].driver in DRIVERS and len(found) == 1:
        return _of_steps(scene, found[0], said, told, tree, overwrite)
    if lost := [r for r in found if r.parts and not r.bands]:
        raise CatalogError(
            f"{lost[0].path} ({lost[0].driver}) holds {len(lost[0].parts)} arrays, of which encode reads none; write what you mean as GeoTIFFs, "
            f"for instance with gdal_translate '{lost[0].parts[0]}' 2020-06-01_B04.tif"
        )
    rasters = [placed(raster, said, told) for raster in found]
    item, notes = item_of(scene, rasters, said, time_of(scene, told, said, rasters), told)
    files = {local_path(asset.href) for asset in item.assets.values()}
    if tree is not None and not overwrite and tree.files_of(item.id, item.collection_id) == files:
        return [], []  # what was not catalogued of the scene are coarser copies of its bands
    return [item], notes


def _of_steps(
    scene: Scene, raster: Raster, said: SceneMetadata, told: Told, tree: CatalogTree | None, overwrite: bool
) -> Described:
    """Items of the times of a netCDF or GRIB file, with a VRT file for each variable beside them."""
    path, out = scene.files[0][0], []
    if tree is None:
        raise CatalogError(
            f"{path} ({raster.driver}) needs a catalogue, where small VRT files name its arrays: pass dest="
        )
    for step in steps_of(path, raster, said, told):
        name = scene.id if step.when is None else f"{scene.id}_{step.when:%Y%m%dT%H%M%S}"
        if not overwrite and tree.files_of(name, scene.collection) is not None:
            continue
        folder = tree.collection_folder(scene.collection) / name
        parts = list(step.rasters(scene.sensor, folder))
        with writing(tree.root):
            for part, _, text in parts:
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(part.path, text.encode())
        own = replace(scene, id=name, files=[(part.path, named) for part, named, _ in parts])
        rasters = [part for part, _, _ in parts]
        when = (step.when, step.when) if step.when is not None else time_of(scene, told, said, [raster])
        out.append(item_of(own, rasters, said, when, replace(told, bands=None)))
    return [item for item, _ in out], [note for _, notes in out for note in notes]


# -- the catalogue -------------------------------------------------------------------------------------------------


def _outside(found: Iterable[Found], tree: CatalogTree | None) -> list[Found]:
    """Files but those of the catalogue itself."""
    out = [f for f in found if tree is None or not f.path.is_relative_to(tree.root)]
    if tree is not None and not out:
        raise CatalogError(
            f"all files that were given lie in the catalogue {tree.root}; give it a folder of its own"
        )
    return out


def _new(
    scenes: Sequence[Scene], tree: CatalogTree | None, overwrite: bool, on_error: OnError
) -> list[Scene]:
    """Scenes that the catalogue has not, or not with all of their files."""
    if tree is None or overwrite:
        return list(scenes)
    out = []
    for scene in scenes:
        there = tree.files_of(scene.id, scene.collection)
        mine = scene.paths
        if there is None or there < mine or all(path.is_relative_to(tree.root) for path in there):
            out.append(scene)
        elif not mine <= there:
            _failed(scene.id, CatalogError(_taken(scene, sorted(there - mine))), on_error)
        elif not tree.links_to(scene.id, scene.collection):
            tree.relink(scene.id, scene.collection)
    return out


def _taken(scene: Scene, others: Sequence[Path]) -> str:
    return (
        f"item {scene.id!r} of collection {scene.collection!r} is there already, of other files such as {others[0]}; choose another "
        "collection (--collection, collection=) or catalogue, or replace it with --overwrite (overwrite=True)"
    )


def _write(tree: CatalogTree | None, items: Sequence[pystac.Item]) -> None:
    """Add Items to the catalogue; hrefs are relative where files and catalogue share a folder above."""
    if tree is None or not items:
        return
    with writing(tree.root):
        written = []
        for item in items:
            place = tree.item_folder(item) / f"{item.id}.json"
            copy = item.full_copy()
            for asset in copy.assets.values():
                asset.href = _relative(asset.href, place)
            written.append(copy)
            item.set_self_href(href_of(place))
        tree.add_many(written, _ABOUT)


def _relative(href: str, place: Path) -> str:
    path = local_path(href)
    shared = os.path.commonpath([path, place]) if path.drive == place.drive else path.anchor
    return href if shared == path.anchor else relative(href, place)
