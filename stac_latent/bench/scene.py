"""A large scene made of real tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from stac_latent.bench.coder import Array
from stac_latent.bench.data.base import Tile
from stac_latent.errors import CatalogError

__all__ = ["assemble"]


def assemble(tiles: Sequence[Tile], size: int) -> Tile:
    """Tiles side by side, each turned and mirrored, always in the same way for the same tiles.

    Parameters
    ----------
    tiles
        Tiles of which those of the most frequent shape are used.
    size
        Pixels of a side, on the finest grid; coarser grids get their share.

    Returns
    -------
    Tile
        One field for each group, ``(band, size, size)`` on the finest grid.

    Raises
    ------
    CatalogError
        If no tile is square.
    """
    shapes = Counter(
        tuple(f.shape for f in t.fields) for t in tiles if all(f.shape[1] == f.shape[2] for f in t.fields)
    )
    if not shapes:
        raise CatalogError("no tile is square; a scene is made of square tiles of one shape")
    shape = shapes.most_common(1)[0][0]
    chosen = [t for t in tiles if tuple(f.shape for f in t.fields) == shape]
    side = max(s[1] for s in shape)
    n = -(-size // side)
    rng = np.random.default_rng(0)
    order = rng.permutation(np.arange(n * n) % len(chosen)).reshape(n, n)
    turn = rng.integers(0, 8, (n, n))
    fields = []
    for group, (bands, cell, _) in enumerate(shape):
        out = np.empty((bands, n * cell, n * cell), chosen[0].fields[group].dtype)
        for i, j in np.ndindex(n, n):
            piece = _turned(chosen[order[i, j]].fields[group], int(turn[i, j]))
            out[:, i * cell : (i + 1) * cell, j * cell : (j + 1) * cell] = piece
        crop = max(1, size * cell // side)
        fields.append(np.ascontiguousarray(out[:, :crop, :crop]))
    return Tile("scene", "several", tuple(fields))


def _turned(x: Array, turn: int) -> Array:
    """One of the eight symmetries of a square."""
    y = np.rot90(x, turn % 4, axes=(1, 2))
    return np.asarray(y[:, :, ::-1] if turn > 3 else y)
