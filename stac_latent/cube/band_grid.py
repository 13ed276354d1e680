"""What a Band Object says of its band that differs from the asset: pixels of another size, latents in a group of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stac_latent.errors import MALFORMED, CatalogError

__all__ = ["BandGrid", "band_grids"]

_GROUP = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]*)?")


@dataclass(frozen=True, slots=True)
class BandGrid:
    """What differs for one band from the asset's fields; see :mod:`stac_latent.cube.read.band_views`."""

    shape: tuple[int, int] | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    group: str = ""
    """Group of the store that holds its latents; empty: the store itself."""
    dimensions: int | None = None
    """Channels of a cell in that group."""


def band_grids(fields: Mapping[str, Any]) -> tuple[BandGrid | None, ...]:
    """Grids of the bands of an asset; empty where all are as the asset says.

    Raises
    ------
    CatalogError
        If a group's name is none, or its fields are not those of a grid.
    """
    grids = tuple(map(_band_grid, fields.get("bands") or ()))
    return grids if any(grids) else ()


def _band_grid(band: Mapping[str, Any]) -> BandGrid | None:
    names = ("proj:shape", "proj:transform", "latent:group", "latent:dimensions")
    shape, transform, group, dimensions = (band.get(name) for name in names)
    group = "" if group is None else group
    if shape is None and transform is None and group == "":
        return None
    try:
        return _checked(shape, transform, group, dimensions)
    except MALFORMED as exc:
        raise CatalogError(
            f"band {band.get('name')!r:.100}: latent:group {group!r:.100}, latent:dimensions {dimensions!r:.100}, proj:shape "
            f"{shape!r:.100} and proj:transform {transform!r:.200} do not tell where it is: a group is named with letters, digits, "
            "'.' and '-', and needs the other three"
        ) from exc


def _checked(shape: Any, transform: Any, group: Any, dimensions: Any) -> BandGrid:
    size = None if shape is None else tuple(map(int, shape))
    affine = None if transform is None else tuple(map(float, transform))[:6]
    if (
        not _GROUP.fullmatch(group)
        or (group and None in (size, affine, dimensions))
        or (size is not None and (len(size) != 2 or not 0 < min(size) <= max(size) < 2**31))
        or (affine is not None and (len(affine) != 6 or not all(map(math.isfinite, affine))))
        or (dimensions is not None and not 0 < int(dimensions) < 2**31)
    ):
        raise ValueError("a value is out of range")
    return BandGrid(size, affine, group, None if dimensions is None else int(dimensions))
