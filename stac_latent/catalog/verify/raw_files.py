"""The raw files that a latent asset was made from, as its Item tells where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pystac
from affine import Affine

from stac_latent.catalog.search.documents import Reader, to_item
from stac_latent.cube.raw.assets import check_raw_asset
from stac_latent.cube.raw.contract import Trust
from stac_latent.cube.raw.files import RawFiles
from stac_latent.cube.raw.location import crs_of
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError, StacLatentError
from stac_latent.geo.crs import crs_from_fields, crs_text
from stac_latent.net.raster import open_raster
from stac_latent.spec import Grid
from stac_latent.system.links import asset_href, check_link, link_href

__all__ = ["raw_files"]

_ALIGNED = 0.02
"""Part of a pixel that numbers may differ by through rounding."""


def raw_files(
    item: pystac.Item, fields: Mapping[str, Any], readers: Sequence[LatentReader], reader: Reader
) -> list[RawFiles] | str:
    """Raw files of the lattices of an asset, or why there are none.

    Parameters
    ----------
    item
        Item of the latent asset. Its own raw assets come first, then those of Items that ``derived_from`` links lead to.
    fields
        Of the latent asset: ``latent:source_bands`` names the raw bands, ``latent:source_resampling`` how they were brought to its grid.
    readers
        Of each lattice.
    reader
        Reads the Items that links lead to.

    Returns
    -------
    list of RawFiles, or str
        One for each lattice; else the reasons why the pixels cannot be compared.
    """
    reasons: list[str] = []
    for raw in _candidates(item, reader, reasons):
        try:
            return _opened(raw, fields, readers)
        except (StacLatentError, OSError) as exc:
            reasons.append(str(exc))
    return "; ".join(dict.fromkeys(reasons)) or "the item has no raw assets, and no link to an item that has"


def _candidates(item: pystac.Item, reader: Reader, reasons: list[str]) -> Iterator[pystac.Item]:
    yield item
    for link in item.links:
        href = link_href(link) if link.rel == "derived_from" else None
        if href is None:
            continue
        try:
            document = reader.json(check_link(href, item.get_self_href()))
            yield to_item(document, href, href=href)
        except (StacLatentError, OSError) as exc:
            reasons.append(str(exc))


def _opened(raw: pystac.Item, fields: Mapping[str, Any], readers: Sequence[LatentReader]) -> list[RawFiles]:
    bands = readers[0].spec.bands  # of all lattices; the others' are their own
    names = fields.get("latent:source_bands") or [b.name for b in bands]
    if not isinstance(names, list) or len(names) != len(bands):
        raise CatalogError(f"latent:source_bands names {names!r:.200}, which are not {len(bands)} raw bands")
    for key in {n if n in raw.assets else str(n).rpartition(".")[0] for n in names} & set(raw.assets):
        check_raw_asset(raw, key)
    out, start = [], 0
    for r in readers:
        part = slice(start, start + len(r.codec.bands))
        own, grid, start = names[part], _pixel_grid(r), part.stop
        out.append(
            RawFiles(
                raw, own, bands[part], grid, r.codec.native_pixels, str(fields.get("latent:source_resampling", "nearest")),
                _placed_by(raw, own, grid), infinite="latent:error_bounds" in fields,
            )
        )  # fmt: skip
    if any(t.assembled for t in out) and "latent:source_resampling" not in fields:
        raise CatalogError(
            f"the raw files of item {raw.id!r} lie on other pixels than the latent, which does not say how they were resampled"
        )
    return out


def _placed_by(raw: pystac.Item, names: Sequence[str], grid: Grid) -> Trust:
    """Who says that the raw pixels lie on a grid: the Item where it says so, and a file of theirs says something else."""
    crs = crs_of(grid)
    for name in names:
        asset = raw.assets.get(name, raw.assets.get(name.rpartition(".")[0]))
        if asset is None:
            continue
        fields = asset.extra_fields
        told = fields.get("proj:transform") or raw.properties.get("proj:transform")
        says_crs = crs_from_fields(fields, raw.properties)
        with open_raster(asset_href(asset)) as src:
            other = src.crs is not None and src.crs != crs
            own, (h, w) = src.transform, src.shape
        if other and says_crs is not None and crs_text(says_crs) == crs_text(grid.crs):
            return "item"
        if told is None:
            continue
        ours = Affine(*grid.transform), grid.shape
        near, far = (_gap((t, (h, w)), ours) for t in (Affine(*told[:6]), own))
        if near < far - abs(own.a) * _ALIGNED:
            return "item"
    return "file"


def _gap(one: tuple[Affine, tuple[int, int]], other: tuple[Affine, tuple[int, int]]) -> float:
    """How far the first and the last corners of two grids lie from each other, in units of their CRS."""
    (a, (ah, aw)), (b, (bh, bw)) = one, other
    return math.dist((a.c, a.f), (b.c, b.f)) + math.dist(a * (aw, ah), b * (bw, bh))


def _pixel_grid(reader: LatentReader) -> Grid:
    """Pixels of a lattice; under an embedding, whose grid is that of its cells, all pixels of the cells."""
    grid, (sy, sx) = reader.grid, reader.spec.stride
    if reader.spec.kind == "codec":
        return grid
    a, b, c, d, e, f = grid.transform
    shape = (grid.shape[0] * sy, grid.shape[1] * sx)
    return Grid(grid.crs, (a / sx, b / sy, c, d / sx, e / sy, f), shape, (sy, sx))
