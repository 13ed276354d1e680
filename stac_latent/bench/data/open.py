"""Data sets by name, read from a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stac_latent.bench.data import native, other, sentinel
from stac_latent.bench.data.base import Dataset, Tile, cuts, read
from stac_latent.errors import CatalogError
from stac_latent.spec import Band

__all__ = ["dataset_names", "open_dataset"]


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
    return {
        **sentinel.READERS,
        "s2-native": native.s2_native,
        "s2-20m": native.s2_20m,
        **other.READERS,
    }


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
