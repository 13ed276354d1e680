"""Raster files below folders, and the products that they are parts of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stac_latent.errors import CatalogError
from stac_latent.system.links import is_local, local_path

__all__ = ["Found", "find_files", "raster_below"]

RASTERS = (
    ".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".img", ".nc", ".nc4", ".cdf", ".grib", ".grib2", ".grb", ".grb2", ".hdf", ".h5",
)  # fmt: skip
"""Endings of files that are looked at in a folder; a file that is named is looked at whatever its ending."""
_PRODUCT = re.compile(r"^S2[ABC]_.*MSIL(?:1C|2A).*?(?:\.SAFE)?$")
_STORE = (".zarr",)


@dataclass(frozen=True, slots=True)
class Found:
    """A file, or a folder that is one thing."""

    path: Path
    product: Path | None = None
    """Folder of the Sentinel-2 product that it is a band of."""


def find_files(given: Iterable[str | Path]) -> list[Found]:
    """Files that are named, and raster files in folders that are named and below, sorted; each once.

    A folder that a link leads to is looked into once, so that links in circles end.

    Raises
    ------
    CatalogError
        If something is not there, or is no file of this machine, or nothing was found.
    """
    out: dict[Path, Found] = {}
    names = [str(g) for g in given]
    for name in names:
        if not is_local(name):
            raise CatalogError(
                f"{name}: only files of this machine are described; mount or fetch it, or write its Item by hand"
            )
        path = local_path(name)
        if not path.exists():
            raise CatalogError(f"no such file or folder: {name}")
        for found in _below(path) if path.is_dir() else [Found(path)]:
            out.setdefault(Path(os.path.normpath(found.path.absolute())), found)
    if not names:
        raise CatalogError("no files were given; expected folders or raster files")
    if not out:
        raise CatalogError(
            f"{', '.join(names)}: no raster file in it or below; looked for {', '.join(RASTERS)}"
        )
    return [Found(path, found.product) for path, found in sorted(out.items())]


def raster_below(path: Path, most: int = 10_000) -> bool:
    """Whether a path is that of a raster file by its ending, or a folder that has one among the first files in it and below."""
    if not path.is_dir():
        return path.name.lower().endswith((*RASTERS, *_STORE))
    seen = 0
    for _, folders, files in os.walk(path):
        if any(f.lower().endswith(RASTERS) for f in files):
            return True
        seen += len(files) + len(folders)
        if seen > most:
            break
    return False


def _below(folder: Path) -> Iterator[Found]:
    if folder.name.lower().endswith(_STORE):
        yield Found(folder)
        return
    seen: set[tuple[int, int]] = set()
    inside = _product_above(folder)
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        state = here.stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders.sort()
        stores = [f for f in folders if f.lower().endswith(_STORE)]
        yield from (Found(here / f) for f in stores)
        folders[:] = [f for f in folders if f not in stores and not f.startswith(".")]
        product = inside or next(
            (p for p in (here, *here.parents) if p.is_relative_to(folder) and _is_product(p)), None
        )
        if product is not None and "IMG_DATA" not in here.parts:
            continue
        yield from (
            Found(here / f, product) for f in files if f.lower().endswith(RASTERS) and not f.startswith(".")
        )


def _product_above(folder: Path) -> Path | None:
    """The product that a folder is a part of."""
    whole = folder.absolute()
    return next((p for p in (whole, *whole.parents) if _is_product(p)), None)


def _is_product(folder: Path) -> bool:
    """Whether a folder is laid out as Sentinel-2 products are."""
    return _PRODUCT.match(folder.name) is not None and (folder / "GRANULE").is_dir()
