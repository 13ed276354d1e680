"""Minicubes of 640 m in netCDF: every date of a period at one place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from real_sets.authoring import quiet, read


@dataclass(frozen=True)
class Cube:
    """One file: variables ``(time, y, x)`` in their stored integers."""

    path: Path
    site: str
    first: str
    """A variable."""

    @cached_property
    def tags(self) -> dict[str, str]:
        """Attributes of the file and of the variable's dimensions."""
        with quiet(), rasterio.open(f"netcdf:{self.path}:{self.first}") as src:
            return dict(src.tags())

    @property
    def crs(self) -> str:
        """As ``proj:code``."""
        return f"EPSG:{self.tags['NC_GLOBAL#epsg']}"

    @property
    def transform(self) -> Affine:
        """From the bounds in the file's attributes; rows run from north to south."""
        west, _, _, north = (float(v) for v in self.tags["NC_GLOBAL#bounds"].strip("()").split(","))
        size = float(self.tags["NC_GLOBAL#resolution"])
        return Affine(size, 0, west, 0, -size, north)

    @cached_property
    def times(self) -> list[str]:
        """Times of acquisition, RFC 3339."""
        text = self.tags["timestamp#units"].removeprefix("seconds since ")
        start = np.datetime64(text.replace(" ", "T"), "s")
        seconds = [int(v) for v in self.tags["NETCDF_DIM_timestamp_VALUES"].strip("{}").split(",")]
        return [f"{start + s}Z" for s in seconds]

    def stack(self, names: list[str]) -> np.ndarray:
        """Variables ``(time, band, y, x)`` as they are stored, without their scale."""
        return np.stack([read(f"netcdf:{self.path}:{name}")[0] for name in names], axis=1)


def cubes(source: Path, product: str) -> Iterator[Cube]:
    """Cubes of a product, as ``S2_L2A_10m``, one for each site."""
    for path in sorted(source.glob(f"*/{product}*.nc")):
        with quiet(), rasterio.open(f"netcdf:{path}") as src:
            first = src.subdatasets[0].rsplit(":", 1)[1]
        yield Cube(path, re.split(r"[/\\]", str(path))[-2], first)
