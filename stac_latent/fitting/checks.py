"""What the tiles of a fit hold: range and moments of the bands, and whether that is enough."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from stac_latent.errors import CatalogError
from stac_latent.fitting.sampling import Tile
from stac_latent.fitting.tile_cache import TileCache
from stac_latent.quality.moments import Moments, Summary
from stac_latent.spec import Band
from stac_latent.system.names import safe_name

__all__ = ["check_amount", "checked_name", "live_bands", "summarise"]

_NAME = re.compile(r"^[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]$")


def summarise(
    spool: TileCache, tiles: Sequence[Tile], bands: int, keep: Sequence[int] | None = None
) -> Summary:
    """Moments of the bands over tiles, about the mean of the first."""
    out: list[Moments] = []
    for layers in spool.layers(tiles, keep):
        if not out:
            for field, _ in layers:
                first = field.reshape(len(field), -1).astype(np.float64)
                centre = first.mean(axis=1) if first.size else np.zeros(len(field))
                out.append(Moments(np.nan_to_num(centre, posinf=0, neginf=0).tolist()))
        for moments, (field, mask) in zip(out, layers, strict=True):
            moments.add(field, mask)
    return Summary.of(out or [Moments([0.0] * bands)])


def live_bands(
    bands: Sequence[Band], moments: Summary, taken: Sequence[Tile], passed: int, named: bool
) -> list[int]:
    """Positions of the bands that hold data.

    Raises
    ------
    CatalogError
        If no tile does, or a band that was asked for by name does not.
    """
    if not taken:
        raise CatalogError(
            f"none of {passed} tile(s) is at least half valid: the sampled pixels are nodata; check the nodata value that the "
            "items state, or give items with data (--bbox, --datetime)"
        )
    live = np.flatnonzero(moments.seen > 0).tolist()
    dead = [b.name for i, b in enumerate(bands) if i not in live]
    if dead and named:
        shown = ", ".join(dead[:8]) + (f" and {len(dead) - 8} more" if len(dead) > 8 else "")
        raise CatalogError(
            f"band(s) {shown} hold no data in any of {len(taken)} tile(s); leave them out of bands= (--bands)"
        )
    return live


def check_amount(moments: Summary, bands: Sequence[Band]) -> None:
    """Refuse too few pixels, with :class:`CatalogError`."""
    needed = 10 * max(100, len(bands))
    if moments.count < needed:
        raise CatalogError(
            f"{moments.count} pixels are valid in all of the {len(bands)} bands; a fit needs {needed} at least: give more items, "
            "or fewer bands (--bands)"
        )


def checked_name(name: str) -> str:
    """The name of a codec, if it may be one.

    Raises
    ------
    CatalogError
        If it is no name of a file, or none that MLM allows.
    """
    safe_name(name, "name")
    if not _NAME.match(name):
        raise CatalogError(
            f"{name!r} cannot name a codec: expected at least three letters, digits, '_', '.' and '-', from a letter to a letter "
            "or digit; give another with name= (--name)"
        )
    return name
