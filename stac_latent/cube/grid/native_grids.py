"""Grids of an Item's bands: where they come from, which of them share a lattice of cells, and what covers them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pystac
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from stac_latent.errors import CatalogError, GridError
from stac_latent.geo.crs import crs_from_fields, crs_text
from stac_latent.net.raster import open_raster
from stac_latent.stages.lin.grids import DEEPEST, Lattices
from stac_latent.system.links import asset_href, shown
from stac_latent.system.suggest import did_you_mean

__all__ = ["arrange", "asset_geobox", "check_resampling", "cover", "native_geobox", "offset_of"]

_TOLERANCE = 1e-3
"""Part of a pixel by which grids may miss each other through rounding."""


def arrange(boxes: Sequence[GeoBox]) -> tuple[tuple[int, ...], Lattices]:
    """Which of the bands' grids share a lattice.

    Grids whose pixels are two, four or eight times as large as the finest's, with no step left out, and whose edges are
    edges of its pixels and of its cells, are carried by its cells; every other grid has a lattice of its own.

    Parameters
    ----------
    boxes
        Grid of each band.

    Returns
    -------
    order, lattices
        Positions of the bands, lattice by lattice, finest first; the number of bands of each grid of each lattice.
    """
    finest = min(boxes, key=lambda g: abs(g.affine.a))
    depths = [_depth(finest, g) for g in boxes]
    joint = [0]
    while len(joint) in depths and len(joint) <= DEEPEST:
        joint.append(len(joint))
    groups = [[[i for i, d in enumerate(depths) if d == depth] for depth in joint]]
    alone = sorted(
        (i for i, d in enumerate(depths) if d not in joint), key=lambda i: (abs(boxes[i].affine.a), i)
    )
    for i in alone:
        same_lattice = next((g for g in groups[1:] if _depth(boxes[g[0][0]], boxes[i]) == 0), None)
        if same_lattice is None:
            groups.append([[i]])
        else:
            same_lattice[0].append(i)
    order = tuple(i for grids in groups for members in grids for i in sorted(members))
    return order, tuple(tuple(len(members) for members in grids) for grids in groups)


def _depth(fine: GeoBox, box: GeoBox) -> int | None:
    """Halvings from the pixels of ``box`` to those of ``fine``; None where its pixels do not fit the cells of ``fine``."""
    t, u = fine.affine, box.affine
    if fine.crs != box.crs or any((t.b, t.d, u.b, u.d)):
        return 0 if fine == box else None
    ratio = u.a / t.a
    depth = round(math.log2(ratio)) if ratio > 0 else -1
    if not 0 <= depth <= DEEPEST or abs(ratio / 2**depth - 1) > _TOLERANCE / max(box.shape):
        return None
    if abs(u.e / t.e / 2**depth - 1) > _TOLERANCE / max(box.shape):
        return None
    gaps = (u.c - t.c) / t.a, (u.f - t.f) / t.e
    if any(abs(g - round(g)) > _TOLERANCE for g in gaps):
        return None
    first = _index(fine)
    return depth if all((i + round(g)) % 2**depth == 0 for i, g in zip(first, gaps, strict=True)) else None


def _index(box: GeoBox) -> tuple[int, int]:
    """Pixels (x, y) from the origin of the CRS to the corner, as the lattice counts them."""
    t = box.affine
    return (0, 0) if t.b or t.d else (round(t.c / t.a), round(t.f / t.e))


def offset_of(fine: Affine, other: Affine) -> tuple[int, int]:
    """Pixels of ``fine`` (y, x) from its corner to that of ``other``."""
    x, y = ~fine * (other.c, other.f)
    return round(y), round(x)


def cover(boxes: Sequence[GeoBox], steps: Sequence[int]) -> GeoBox:
    """Smallest grid of the finest pixels that holds all of some grids, and whole pixels of each at its corners.

    Parameters
    ----------
    boxes
        Grids that share a lattice.
    steps
        Finest pixels along a pixel of each.
    """
    if max(steps) == 1 and all(b == boxes[0] for b in boxes):
        return boxes[0]
    fine, deepest = boxes[list(steps).index(1)], max(steps)
    ix, iy = _index(fine)
    spans = []
    for box, step in zip(boxes, steps, strict=True):
        y, x = offset_of(fine.affine, box.affine)
        spans.append((y + iy, x + ix, y + iy + box.shape.y * step, x + ix + box.shape.x * step))
    top, left = (min(s[i] for s in spans) // deepest * deepest for i in (0, 1))
    bottom, right = (-(-max(s[i] for s in spans) // deepest) * deepest for i in (2, 3))
    corner = fine.affine * Affine.translation(left - ix, top - iy)
    return GeoBox((bottom - top, right - left), corner, fine.crs)


def check_resampling(resampling: str, resolution: float | None) -> None:
    """Refuse a way to resample that there is not, or that nothing would be done by.

    Raises
    ------
    GridError
        If it is unknown, or no resolution is given to resample to.
    """
    if resampling not in Resampling.__members__:
        names = list(Resampling.__members__)
        raise GridError(
            f"resampling={resampling!r}{did_you_mean(resampling, names)} is unknown; expected one of {', '.join(names)}"
        )
    if resolution is None and resampling != "nearest":
        raise GridError(
            f"resampling={resampling!r} without resolution=: bands are coded on their own pixels, and nothing is resampled. Give "
            "resolution=, too, or leave resampling out"
        )


def native_geobox(item_id: str, boxes: Mapping[str, GeoBox], resolution: float | None) -> GeoBox:
    """The one grid of an Item's bands, by their names, or that of a resolution.

    Where bands share their pixels and differ in extent, the grid covers them all.

    Raises
    ------
    GridError
        If they have several and no resolution is given, or lie in several CRSs.
    """
    distinct = {(tuple(g.shape.yx), tuple(g.affine), str(g.crs)): g for g in boxes.values()}
    if len(distinct) == 1 and resolution is None:
        return next(iter(distinct.values()))
    if resolution is None and arrange(list(boxes.values()))[1] == ((len(boxes),),):
        return cover(list(boxes.values()), [1] * len(boxes))
    if len({str(g.crs) for g in distinct.values()}) > 1:
        raise GridError(
            f"the bands of item {item_id!r} lie in several CRSs: {sorted({str(g.crs) for g in distinct.values()})}"
        )
    if resolution is None:
        sizes = ", ".join(f"{n} {abs(g.affine.a):g}" for n, g in boxes.items())
        raise GridError(
            f"the bands of item {item_id!r} have several native grids (resolutions: {sizes}). Choose a codec of the lin family, "
            "which codes each on its own grid, or state the grid to resample to with resolution="
        )
    for box in distinct.values():
        if math.isclose(abs(box.affine.a), resolution):
            return box
    finest = min(distinct.values(), key=lambda g: abs(g.affine.a))
    return GeoBox.from_bbox(finest.boundingbox, resolution=resolution, tight=True)


def asset_geobox(item: pystac.Item, key: str) -> GeoBox:
    """Grid of an asset from ``proj:`` fields, else from the file itself."""
    asset = item.assets[key]
    fields = {**item.properties, **asset.extra_fields}
    said = crs_from_fields(asset.extra_fields, item.properties)
    crs = None if said is None else crs_text(said)
    transform, shape = fields.get("proj:transform"), fields.get("proj:shape")
    if crs and transform and shape:
        return GeoBox((int(shape[0]), int(shape[1])), Affine(*transform[:6]), crs)
    href = asset_href(asset)
    try:
        with open_raster(href) as src:
            file_crs, affine, size = src.crs, src.transform, src.shape
    except CatalogError as exc:
        raise CatalogError(f"asset {key!r} of item {item.id!r} cannot be read: {exc}") from None
    if not file_crs and crs is None:
        raise GridError(
            f"asset {key!r} of item {item.id!r} has no CRS: neither proj:code, proj:transform and proj:shape in the Item nor "
            f"georeferencing in {shown(href)}; add the projection extension to the Item"
        )
    return GeoBox(size, Affine(*transform[:6]) if transform else affine, crs or crs_text(file_crs))
