"""Scenes to train on: read once, kept in their stored type, split by place."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.aliases import Array, Progress
from stac_latent.errors import TrainError
from stac_latent.spec import Band
from stac_latent.train.config import Config, Source, Split

__all__ = ["LEAST", "Scene", "Scenes", "read_scenes"]

LEAST = 32
"""Fewer pixels along a side are not worth a tile."""
_PIXELS_PER_ITEM = 4 * 256**2
_LEAST_VALID = 0.5
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One raster.

    Parameters
    ----------
    name, place
        What it is, and where; scenes of one place stay on one side of the split.
    field
        ``(band, y, x)`` in the stored unit.
    mask
        Valid pixels, ``(1 or band, y, x)``; None for all.
    source
        Position of its source in the configuration.
    """

    name: str
    place: str
    field: Array
    mask: Mask | None
    source: int

    @property
    def pixels(self) -> int:
        """Pixels of all bands."""
        return int(self.field[0].size)


@dataclass(frozen=True)
class Scenes:
    """Scenes of both sides of the split."""

    train: tuple[Scene, ...]
    held_out: tuple[Scene, ...]
    passed_over: int
    """Too small, or too empty."""


def read_scenes(config: Config, bands: Sequence[Band], progress: Progress | None = None) -> Scenes:
    """Read all sources and split their places.

    Parameters
    ----------
    config
        Of the training.
    bands
        Of the codec: scenes must have as many, in its stored unit.
    progress
        Called with a label, sources done, and their number.

    Raises
    ------
    TrainError
        If a source has nothing, a scene does not fit the bands, or one side of the split is empty.
    """
    found: list[Scene] = []
    passed = 0
    exclude = [re.compile(p) for p in config.split.exclude]
    for i, source in enumerate(config.data):
        reader = _items(i, source, bands) if source.items else _files(i, source, bands, config.data_root)
        count = 0
        for scene in reader:
            count += 1
            if any(p.search(scene.place) for p in exclude):
                continue
            if min(scene.field.shape[1:]) < LEAST or (
                scene.mask is not None and scene.mask.mean() < _LEAST_VALID
            ):
                passed += 1
                continue
            found.append(scene)
        if not count:
            where = source.items or config.data_root / source.files
            raise TrainError(
                f"source {i + 1} of the configuration, {where}, holds nothing; correct it, or leave it out"
            )
        if progress is not None:
            progress("read", i + 1, len(config.data))
    held = held_places({s.place for s in found}, config.split, config.seed)
    train = tuple(s for s in found if s.place not in held)
    apart = tuple(s for s in found if s.place in held)
    if not train or not apart:
        side = "train on" if not train else "hold out"
        raise TrainError(
            f"{len(found)} scene(s) of {len({s.place for s in found})} place(s): none is left to {side}; change split.hold_out or "
            "split.share, or give more places"
        )
    return Scenes(train, apart, passed)


def held_places(places: set[str], split: Split, seed: int) -> set[str]:
    """Places that are held out: those that match a pattern, and a share of the others by hash."""
    named = {p for p in places if any(re.search(pattern, p) for pattern in split.hold_out)}
    rest = sorted(places - named, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest())
    return named | set(rest[: round(split.share * len(rest))])


def _files(index: int, source: Source, bands: Sequence[Band], root: Path) -> Iterator[Scene]:
    pattern = re.compile(source.place) if source.place else None
    for path in sorted(root.glob(source.files)):
        name = path.relative_to(root).as_posix()
        if name.endswith((".zarr", ".zarr.zip")):
            yield from _chips(index, source, bands, path, name)
            continue
        hit = pattern.search(name) if pattern else None
        if pattern and not hit:
            raise TrainError(
                f"{name}: its path does not match place={source.place!r}; correct the expression"
            )
        place = name if hit is None else hit.group(1 if hit.re.groups else 0)
        field, nodata = _raster(path, source.bands)
        yield _scene(index, name, f"{source.collection}{place}", field, nodata, source, bands)


def _raster(path: Path, bands: Sequence[int]) -> tuple[Array, Any]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as src:
                return np.asarray(src.read(list(bands) or None)), src.nodata
        except (rasterio.errors.RasterioError, IndexError) as exc:
            raise TrainError(f"{path} cannot be read: {exc}") from exc


def _chips(index: int, source: Source, bands: Sequence[Band], path: Path, name: str) -> Iterator[Scene]:
    """Chips of arrays ``(chip, band, y, x)``."""
    import zarr
    from zarr.storage import LocalStore, ZipStore

    store: Any = ZipStore(path, mode="r") if path.suffix == ".zip" else LocalStore(path, read_only=True)
    node = zarr.open(store, mode="r")
    arrays = [node] if isinstance(node, zarr.Array) else [a for _, a in node.arrays()]
    chips = next((a for a in arrays if a.ndim == 4), None)
    if chips is None:
        raise TrainError(f"{path} holds no array (chip, band, y, x); found {[a.shape for a in arrays]}")
    every = np.asarray(chips[:])
    for k, chip in enumerate(every if not source.bands else every[:, [b - 1 for b in source.bands]]):
        place = f"{source.collection}{name}#{k // source.chips_per_place}"
        yield _scene(index, f"{name}#{k}", place, chip, None, source, bands)


def _scene(
    index: int, name: str, place: str, field: Array, nodata: Any, source: Source, bands: Sequence[Band]
) -> Scene:
    if len(field) != len(bands):
        raise TrainError(
            f"{name} has {len(field)} band(s), the codec {len(bands)} ({', '.join(b.name for b in bands)}); choose with bands="
        )
    if source.dark:
        return Scene(name, place, np.maximum(field, 1), None, index)
    masks = []
    for part, band in zip(field, bands, strict=True):
        gap = band.nodata if nodata is None else nodata
        good = np.isfinite(part)
        masks.append(good if gap is None or np.isnan(gap) else good & (part != gap))
    mask = np.stack(masks)
    return Scene(name, place, field, None if mask.all() else mask, index)


def _items(index: int, source: Source, bands: Sequence[Band]) -> Iterator[Scene]:
    """Windows of STAC Items, read as ``encode`` reads them."""
    from stac_latent.catalog.search.search import search
    from stac_latent.cube.raw.source import ItemSource
    from stac_latent.fitting.bands import stand_in
    from stac_latent.fitting.sampling import make_plan
    from stac_latent.fitting.sources import FitSource

    sources = [FitSource((ItemSource(item, stand_in(bands)),)) for item in search(source.items)]
    if not sources:
        return
    plan = make_plan(sources, _PIXELS_PER_ITEM * len(sources), 0.0, 0)
    pixels = 0
    for tile in plan.fit:
        ((field, mask),) = sources[tile.source].read(tile.window)
        if mask.mean() >= _LEAST_VALID:
            item = sources[tile.source].item
            yield Scene(
                f"{item.id} {tile.window}",
                source.collection + tile.place,
                field,
                None if mask.all() else mask,
                index,
            )
            pixels += tile.pixels
        if pixels >= _PIXELS_PER_ITEM * len(sources):
            return
