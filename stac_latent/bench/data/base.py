"""Tiles to race on: named data sets read from a folder, each tile with its place.

Splits are by place: what a codec was fitted on is never raced on. A place is a short text that model cards repeat in
``fitted_on`` (``about`` of a bundle), such as ``0080717`` for a site of SSL4EO-S12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stac_latent.bench.coder import Array
from stac_latent.errors import CatalogError
from stac_latent.spec import Band

__all__ = ["Dataset", "Tile", "cuts", "dataset_names", "open_dataset", "read", "split", "thinned"]


@dataclass(frozen=True)
class Tile:
    """One tile: a field for each group of bands that share a grid.

    Parameters
    ----------
    name
        Unique in its data set.
    place
        Where it is; tiles of one place stay on one side of a split.
    fields
        ``(band, y, x)`` in the stored unit, one for each group of the data set.
    """

    name: str
    place: str
    fields: tuple[Array, ...]

    @property
    def samples(self) -> int:
        """Values of all groups, each on its native grid."""
        return sum(f.size for f in self.fields)

    @property
    def pixels(self) -> int:
        """Pixels of the finest grid."""
        return max(int(f[0].size) for f in self.fields)


@dataclass(frozen=True)
class Dataset:
    """Tiles that share their bands.

    Parameters
    ----------
    name, title
        Short name, and one line on what it is.
    groups
        Bands of each group.
    tiles
        Tiles of all places.
    fit_places
        Places that fits may use, unless a model card says otherwise.
    peak
        What PSNR refers to, in words.
    """

    name: str
    title: str
    groups: tuple[tuple[Band, ...], ...]
    tiles: tuple[Tile, ...]
    fit_places: tuple[str, ...] = ()
    peak: str = "10000 (reflectance 1)"


def split(
    dataset: Dataset, fitted_on: Iterable[str], per_place: int | None = None
) -> tuple[list[Tile], list[Tile]]:
    """Tiles to fit on, and tiles to race on.

    Parameters
    ----------
    dataset
        All tiles.
    fitted_on
        Texts of model cards; a tile whose place occurs in one of them is not raced on.
    per_place
        Race on at most so many tiles of a place, evenly chosen.
    """
    texts = [t.lower() for t in (*fitted_on, *dataset.fit_places)]
    fit = [t for t in dataset.tiles if any(t.place.lower() in text for text in texts)]
    groups: dict[str, list[Tile]] = {}
    for tile in dataset.tiles:
        if not any(tile.place.lower() in text for text in texts):
            groups.setdefault(tile.place, []).append(tile)
    race = []
    for tiles in groups.values():
        count = len(tiles) if per_place is None else min(per_place, len(tiles))
        race += [tiles[i * len(tiles) // count] for i in range(count)]
    return fit, race


def dataset_names() -> list[str]:
    """Names of the data sets."""
    return sorted(_readers())


def open_dataset(folder: Path, name: str | None = None) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    folder
        Folder laid out as the benchmark data, or any folder of GeoTIFFs.
    name
        One of :func:`dataset_names`, or ``tiffs``; None: ``s2`` where the folder has it, else ``tiffs``.

    Raises
    ------
    CatalogError
        If the folder holds no tile of that data set.
    """
    readers: dict[str, Callable[[Path], Dataset]] = {**_readers(), "tiffs": _tiffs}
    if name is not None and name not in readers:
        raise CatalogError(f"no data set {name!r}; known are {', '.join(sorted(readers))}")
    if not folder.is_dir():
        raise CatalogError(
            f"{folder} is no folder; --data takes a folder of GeoTIFFs or of the benchmark data"
        )
    found = readers[name or "s2"](folder)
    if not found.tiles and name is None:
        found = _tiffs(folder)
    if not found.tiles:
        raise CatalogError(
            f"{folder} holds no tile of data set {name or 'tiffs'!r}; choose with --dataset among {', '.join(sorted(readers))}"
        )
    return found


def _readers() -> dict[str, Callable[[Path], Dataset]]:
    from stac_latent.bench.data.base import native as data_native
    from stac_latent.bench.data.base import other
    from stac_latent.bench.data.base import sentinel

    native = {"s2-native": data_native.s2_native, "s2-20m": data_native.s2_20m}
    return {**sentinel.READERS, **native, **other.READERS}


def read(path: Path | str, size: int | None = None, bands: list[int] | None = None) -> Array:
    """Bands of a raster ``(band, y, x)``, the first ``size`` rows and columns."""
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.windows import Window

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as src:
            window = None if size is None else Window(0, 0, min(size, src.width), min(size, src.height))
            return np.asarray(src.read(bands, window=window))


def _tiffs(folder: Path) -> Dataset:
    """Any GeoTIFFs with the bands of the first: tiles of 256 pixels, each file a place."""
    import rasterio

    groups: tuple[tuple[Band, ...], ...] = ()
    tiles: list[Tile] = []
    for path in sorted([*folder.rglob("*.tif"), *folder.rglob("*.tiff")]):
        with rasterio.open(path) as src:
            names = tuple(d or f"band{i + 1}" for i, d in enumerate(src.descriptions))
            found = tuple(
                Band(
                    n if names.count(n) == 1 else f"{n}-{i + 1}",
                    src.dtypes[0],
                    nodata=src.nodata,
                    scale=src.scales[i],
                )
                for i, n in enumerate(names)
            )
        groups = groups or (found,)
        if [(b.data_type, b.nodata) for b in found] == [(b.data_type, b.nodata) for b in groups[0]]:
            place = str(path.relative_to(folder))
            tiles += [Tile(f"{place}{name}", place, (cut,)) for name, cut in cuts(read(path))]
    peaks = "1 / scale of each band, or the range of its values in the tile"
    return Dataset("tiffs", f"GeoTIFFs of {folder.name}", groups, tuple(tiles), peak=peaks)


def cuts(x: Array, size: int = 256) -> Iterator[tuple[str, Array]]:
    """Tiles of a field; the whole of a small one."""
    h, w = x.shape[1:]
    if h <= size and w <= size:
        yield "", x
        return
    for top in range(0, max(1, h - size // 2), size):
        for left in range(0, max(1, w - size // 2), size):
            yield f"@{top},{left}", np.ascontiguousarray(x[:, top : top + size, left : left + size])


def thinned(tiles: Sequence[Tile], count: int | None) -> list[Tile]:
    """So many of the tiles, evenly chosen."""
    if count is None or count >= len(tiles):
        return list(tiles)
    return [tiles[i * len(tiles) // count] for i in range(count)]
