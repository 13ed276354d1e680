"""Bands of several native grids in one latent asset: where each band's pixels and latents are.

The asset's fields describe the lattice of the finest pixels and a grid that covers all of its bands. A Band Object says what
is different for its band: ``proj:shape`` and ``proj:transform`` where its pixels are others, and ``latent:group`` and
``latent:dimensions`` where its latents are in a group of the store of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_latent.aliases import Array
from stac_latent.cube.band_grid import BandGrid
from stac_latent.cube.grid.boxes import pixel_box
from stac_latent.cube.grid.native_grids import cover, offset_of
from stac_latent.cube.grid.tiling import lattice_grid
from stac_latent.cube.read.engine.gather import Blocks
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import MALFORMED, FieldError, GridError, StacLatentError
from stac_latent.net.fetch import inner
from stac_latent.spec import Grid, Spec
from stac_latent.window import Window, WindowLike

__all__ = [
    "BandView",
    "BandsAlone",
    "NativeReader",
    "band_objects",
    "group_names",
    "lattices_of",
    "steps_to",
    "view_of",
]


def group_names(boxes: Sequence[Sequence[GeoBox]]) -> list[str]:
    """Names of the groups of lattices, by their pixel sizes; that of the first is empty: it is the store itself."""
    out = [""]
    for mine in boxes[1:]:
        name = f"g{abs(mine[0].affine.a):g}"
        out.append(name if name not in out else f"{name}-{len(out)}")
    return out


def band_objects(
    objects: Sequence[Mapping[str, Any]], boxes: Sequence[GeoBox], grid: Grid, group: str, dimensions: int
) -> list[dict[str, Any]]:
    """Band Objects of one lattice, with what differs from the asset's fields.

    Parameters
    ----------
    objects
        Band Objects as of :meth:`~stac_latent.spec.Band.to_stac`.
    boxes
        Grid of each band.
    grid
        That of the asset.
    group, dimensions
        Of the lattice.
    """
    out = []
    for known, box in zip(objects, boxes, strict=True):
        extra: dict[str, Any] = {}
        if group or box != pixel_box(grid):
            extra = {"proj:shape": list(box.shape.yx), "proj:transform": list(box.affine)[:6]}
        if group:
            extra |= {"latent:group": group, "latent:dimensions": dimensions}
        out.append({**known, **extra})
    return out


@dataclass(frozen=True)
class BandView:
    """One band of an asset, as it is to be read."""

    ref: LatentRef
    """The lattice that carries it: the asset, or a group of its store."""
    grid: Grid
    """The band's own pixels."""
    index: int
    """Its position among the bands of the lattice."""


def view_of(ref: LatentRef, index: int) -> BandView:
    """Where a band of an asset is.

    Parameters
    ----------
    ref
        The asset.
    index
        Position among its bands.

    Raises
    ------
    GridError
        If the pixels of a band are not made of whole ones of its lattice.
    """
    try:
        return _view(ref, index)
    except MALFORMED as exc:
        if isinstance(exc, StacLatentError):
            raise
        raise GridError(
            f"the bands of asset {ref.asset!r} of item {ref.item_id!r} lie on no grids that share its pixels: {exc}"
        ) from exc


def _view(ref: LatentRef, index: int) -> BandView:
    own = ref.band_grids[index] if ref.band_grids else None
    if own is None or not own.group:
        grid = ref.grid if own is None else _pixels(ref.grid, own)
        return BandView(replace(ref, band_grids=()) if ref.band_grids else ref, grid, index)
    groups = list(dict.fromkeys(b.group for b in ref.band_grids if b is not None and b.group))
    members = [i for i, b in enumerate(ref.band_grids) if b is not None and b.group == own.group]
    grids = [_pixels(ref.grid, b) for b in ref.band_grids if b is not None and b.group == own.group]
    box = cover([pixel_box(g) for g in grids], [1] * len(grids))
    group_grid = lattice_grid(ref.grid.crs, list(box.affine)[:6], (box.shape.y, box.shape.x), ref.spec.stride)
    spec: Spec = replace(
        ref.spec, bands=tuple(ref.spec.bands[i] for i in members), dimensions=own.dimensions or 0
    )
    group_ref = replace(
        ref,
        href=inner(ref.href, own.group),
        metadata=None,
        masks=None,
        spec=spec,
        grid=group_grid,
        part=1 + groups.index(own.group),
        band_grids=(),
        sealed=None if ref.sealed is None else replace(ref.sealed, group=own.group),
    )
    return BandView(group_ref, grids[members.index(index)], members.index(index))


def lattices_of(ref: LatentRef) -> list[LatentRef]:
    """References to each lattice of an asset, the first one's first."""
    views = [view_of(ref, i).ref for i in range(len(ref.band_grids))] or [ref]
    return sorted({v.part: v for v in views}.values(), key=lambda v: v.part)


def _pixels(grid: Grid, own: BandGrid) -> Grid:
    return Grid(grid.crs, own.transform or grid.transform, own.shape or grid.shape)


class NativeReader:
    """Windows of bands on their own pixels, out of the field that a reader decodes on the finest ones.

    Parameters
    ----------
    reader
        Of the lattice that carries the bands.
    grid
        Pixels of the bands.

    Raises
    ------
    GridError
        If these are not made of whole pixels of the lattice.
    """

    def __init__(self, reader: LatentReader, grid: Grid) -> None:
        self.reader, self.grid, self.spec = reader, grid, reader.spec
        self.step, self.offset = steps_to(reader.grid, grid)
        ends = [o + n * self.step for o, n in zip(self.offset, grid.shape, strict=True)]
        inside = min(self.offset) >= 0 and all(e <= n for e, n in zip(ends, reader.grid.shape, strict=True))
        if not self.step or not inside:
            raise GridError(
                f"bands of asset {reader.ref.asset!r} of item {reader.ref.item_id!r} have pixels {grid.shape} at {grid.transform[:6]}, "
                f"which are not whole ones of the asset's {reader.grid.shape} at {reader.grid.transform[:6]}"
            )

    def blocks(self) -> list[Blocks]:
        """How stored chunks cut the rows and columns of :attr:`grid`."""
        lattice = zip(self.reader.chunk_pixels(), self.grid.shape, self.offset, strict=True)
        return [Blocks(size, lead, n, self.step, offset) for (size, lead), n, offset in lattice]

    def read_field(self, window: WindowLike | None = None, bands: Sequence[int] | None = None) -> Array:
        """Decoded pixels ``(band, y, x)`` of a window of :attr:`grid`; see :meth:`LatentReader.read_field`."""
        s = self.step
        own = Window.whole(self.grid.shape) if window is None else Window.of(window)
        field = self.reader.read_field(own.scaled((s, s)).shifted(self.offset), bands)
        if s == 1:
            return field
        if bands is None:
            raise FieldError("bands of several pixel sizes are read by name; pass bands=")
        return np.ascontiguousarray(field[:, ::s, ::s])


@dataclass(frozen=True)
class BandsAlone:
    """A reader, of bands besides which no others will be asked for; a source for :func:`~stac_latent.cube.read.resample.read_onto`."""

    reader: LatentReader

    @property
    def spec(self) -> Spec:
        """The asset's contract."""
        return self.reader.spec

    def read_field(self, window: WindowLike | None = None, bands: Sequence[int] | None = None) -> Array:
        """As :meth:`LatentReader.read_field`."""
        return self.reader.read_field(window, bands, alone=True)


def steps_to(fine: Grid, own: Grid) -> tuple[int, tuple[int, int]]:
    """Pixels of ``fine`` along one of ``own``, and to its corner (y, x); no step where they are not whole ones."""
    try:
        return _steps(Affine(*fine.transform), Affine(*own.transform))
    except ArithmeticError:
        return 0, (0, 0)


def _steps(fine: Affine, own: Affine) -> tuple[int, tuple[int, int]]:
    step, offset = max(1, round(own.a / fine.a)), offset_of(fine, own)
    corner = fine * Affine.translation(*offset[::-1]) * Affine.scale(step)
    near = max(abs(s - round(s)) for s in ~fine * (own.c, own.f)) < 1e-2
    same = corner.almost_equals(own, 1e-6 * abs(own.a) + 1e-9)
    return (step if near and same else 0), offset
