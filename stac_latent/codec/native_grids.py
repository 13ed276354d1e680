"""A codec of native grids from one that was made for a single grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stac_latent.aliases import Array
from stac_latent.chain import ChainT
from stac_latent.errors import CodecError
from stac_latent.stages.lin.grids import Lattices, Nest
from stac_latent.stages.lin.pyramid import Pyramid
from stac_latent.stages.lin.stage import Lin, stages_of
from stac_latent.stages.lin.tile import MAX_LEVELS
from stac_latent.stages.transform.normalise import Normalise

__all__ = ["block_basis", "members_of", "native_codec"]

_LEAST = 0.1
"""Part of a component that must be new for it to be kept among fewer bands."""


def native_codec(
    codec: ChainT, order: Sequence[int], lattices: Lattices, sizes: Sequence[float | None] | None = None
) -> ChainT:
    """The codec for bands of several native grids: the same normalisation, components of the bands that each group has.

    Parameters
    ----------
    codec
        A chain of ``lin`` for one grid.
    order
        Positions of its bands, lattice by lattice, finest first.
    lattices
        Number of bands of each grid of each lattice; see :mod:`stac_latent.stages.lin.grids`.
    sizes
        Pixel size of each band in metres, in the new order; None where that is not known.

    Raises
    ------
    CodecError
        If the chain is not that of ``lin``.

    Examples
    --------
    >>> from stac_latent import open_codec
    >>> made = native_codec(open_codec("lin", bands=["B01", "B02", "B05"]), [1, 2, 0], ((1, 1), (1,)))
    >>> made.name, [b.name for b in made.bands], [part.dimensions for part in made.grid_chains]
    ('lin-native', ['B02', 'B05', 'B01'], [80, 64])
    """
    first, tail = stages_of(codec)
    index = list(order)
    if type(tail) is not Lin or sorted(index) != list(range(len(codec.bands))):
        raise CodecError(f"codec {codec.name!r} cannot be turned into one of native grids; take one of 'lin'")
    blocks, at = [], 0
    for counts in lattices:
        mine = index[at : at + sum(counts)]
        blocks.append(_blocks(tail.basis[:, :, mine].astype(np.float64), Nest(counts)))
        at += sum(counts)
    gsd = sizes or [None] * len(index)
    stages = (
        Normalise(first.mean[index].tolist(), first.unit[index].tolist()),
        Pyramid(lattices),
        Lin(block_basis(blocks), tail.model, tail.step, tail.lam, lattices),
    )
    return replace(
        codec,
        name=f"{codec.name}-native",
        stages=stages,
        bands=tuple(replace(codec.bands[i], gsd=g) for i, g in zip(index, gsd, strict=True)),
        kind="codec",
        dimensions=sum(Nest(c).channels for c in lattices),
        stats=None,
        whole_space="",
        untyped=frozenset(),
        about={k: v for k, v in codec.about.items() if k in ("title", "description", "license")},
    )


def block_basis(blocks: Sequence[Sequence[Array]]) -> Array:
    """Bases of a codec from those of its lattices.

    Parameters
    ----------
    blocks
        Of each lattice and level: rows are components of as many bands as the group has.

    Returns
    -------
    ndarray
        float32 ``(level, band, band)``; bands that a group lacks, and those of other lattices, are their own components.
    """
    sizes = [max(len(b) for b in levels) for levels in blocks]
    out = np.tile(np.eye(sum(sizes), dtype=np.float32), (MAX_LEVELS + 1, 1, 1))
    at = 0
    for levels, size in zip(blocks, sizes, strict=True):
        for level, block in enumerate(levels):
            out[level, at : at + len(block), at : at + len(block)] = block
        at += size
    return out


def members_of(nest: Nest, level: int) -> int:
    """Number of bands, finest first, that a group of subbands of the finest grid has; level 0 is the coarsest band."""
    return sum(nest.counts[: level or None])


def _blocks(rows: Array, nest: Nest) -> list[Array]:
    """Orthonormal components of the members of each level, nearest to known ones ``(level, component, band)``."""
    scale = 1 / np.array(
        nest.steps
    )  # details of larger pixels are as much smaller than of those that were interpolated
    out = []
    for level in range(MAX_LEVELS + 1):
        m = members_of(nest, level)
        out.append(_orthonormal(rows[level][:, :m] * scale[:m]))
    return out


def _orthonormal(rows: Array) -> Array:
    """Rows made orthonormal one after the other; those that are nearly spanned by earlier ones are left out."""
    m = rows.shape[1]
    kept: list[Array] = []
    for row in [*rows, *np.eye(m)]:
        v, length = row.copy(), float(np.sqrt(np.square(row).sum()))
        for _ in range(2):
            for other in kept:
                v -= (v * other).sum() * other
        norm = float(np.sqrt(np.square(v).sum()))
        if len(kept) < m and norm > _LEAST * length:
            kept.append(v / norm * np.sign(v[np.abs(v).argmax()]))
    return np.rint(np.array(kept) * 2.0**14) * 2.0**-14
