"""Tiles to race on: each with its place, and splits of them by place.

Splits are by place: what a codec was fitted on is never raced on. A place is a short text that model cards repeat in
``fitted_on`` (``about`` of a bundle), such as ``0080717`` for a site of SSL4EO-S12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stac_latent.aliases import Array
from stac_latent.spec import Band

__all__ = ["Dataset", "Tile", "cuts", "read", "split", "thinned"]


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
