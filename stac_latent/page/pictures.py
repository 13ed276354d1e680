"""Pictures of Items for a page: raw, decoded and error of one window, or latents where there is no more."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
from PIL import Image
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from stac_latent.aliases import Array
from stac_latent.cube.raw.source import ItemSource
from stac_latent.cube.read.reader import LatentReader
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, FieldError, GridError, StacLatentError
from stac_latent.net.items import read_item
from stac_latent.page.facts import text
from stac_latent.page.preview import panels, picture, valid_pixels
from stac_latent.spec import Band, Grid
from stac_latent.system.links import link_href
from stac_latent.window import Window

__all__ = ["Picture", "PictureSet", "look"]


_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as a ``data:`` URI."""

    name: str
    uri: str


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures of one window of an Item, all of one size."""

    layers: tuple[Picture, ...]
    corners: tuple[tuple[float, float], ...]
    """Longitude and latitude of the top left, top right, bottom right and bottom left; steps are below 180 degrees."""
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Characters."""
        return sum(len(layer.uri) for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON object for the page."""
        return {
            "layers": [[layer.name, layer.uri] for layer in self.layers],
            "corners": [[round(x, 6), round(y, 6)] for x, y in self.corners],
            "notes": list(self.notes),
        }


def look(
    item: pystac.Item, asset: str, side: int = 384, *, whole: int = 2048, middle: int = 1024
) -> PictureSet:
    """Pictures of a latent asset.

    Parameters
    ----------
    item
        An Item with that asset.
    asset
        Its key. What decodes is shown as ``raw``, ``decoded`` and ``error``; where the raw bands cannot be read, as
        ``decoded`` and ``latent``. An embedding is shown as ``latent`` alone.
    side
        Longest side of a picture [pixels].
    whole
        Longest side [pixels] of an asset that is decoded whole.
    middle
        Side [pixels] of what is decoded of a larger one.

    Returns
    -------
    Look
        Of the whole asset, or of its middle.

    Raises
    ------
    StacLatentError
        If the asset cannot be read.
    """
    reader = LatentReader(LatentRef.from_item(item, asset))
    try:
        return _look(item, reader, side, *_window(reader.grid, whole, middle))
    except (OSError, ProjError) as exc:
        raise CatalogError(f"asset {asset!r} of item {item.id!r} cannot be read: {exc}") from exc


def _look(
    item: pystac.Item, reader: LatentReader, side: int, window: Window, notes: tuple[str, ...]
) -> PictureSet:
    corners = _corners(reader.grid, window)
    if reader.spec.kind == "embedding":
        latent, valid = _latent(reader, window)
        return PictureSet((Picture("latent", _uri(latent, valid, side)),), corners, (*notes, _LATENT))
    bands = reader.codec.bands
    decoded = reader.read_field(window)
    valid = valid_pixels(decoded, bands)
    try:
        raw = _raw(item, reader, window, bands)
    except (StacLatentError, OSError) as exc:
        own = Picture("decoded", _uri(picture(decoded, bands), valid, side))
        notes = (*notes, f"The raw bands cannot be read: {text(exc)}")
        if bands[0].is_complex:  # no latents of real numbers
            return PictureSet((own,), corners, notes)
        latent, share = _latent(reader, window)
        return PictureSet((own, Picture("latent", _uri(latent, share, side))), corners, (*notes, _LATENT))
    left, middle, error, top = panels(raw, decoded, bands)
    layers3 = tuple(
        Picture(name, _uri(p, valid, side))
        for name, p in (("raw", left), ("decoded", middle), ("error", error))
    )
    return PictureSet(
        layers3, corners, (*notes, f"Error: mean over bands, brightest at {top:.3g} stored units.")
    )


_LATENT = "Latent: the three channels that vary most, as red, green and blue."


def _window(grid: Grid, whole: int, middle: int) -> tuple[Window, tuple[str, ...]]:
    """Pixels to show: all, or the middle ones, on borders of cells; and what the page says of that."""
    if max(grid.shape) <= whole:
        return Window.whole(grid.shape), ()
    spans = []
    for n, s, lead in zip(grid.shape, grid.stride, grid.lead, strict=True):
        start = max(0, ((n - middle) // 2 + lead) // s * s - lead)
        spans.append((start, min(n, start + middle)))
    note = f"The middle of {grid.shape[1]} x {grid.shape[0]} pixels."
    return Window.of(spans), (note,)


def _raw(item: pystac.Item, reader: LatentReader, window: Window, bands: Sequence[Band]) -> Array:
    """Raw pixels ``(band, y, x)`` of a window, in the unit of the codec.

    Raises
    ------
    StacLatentError, OSError
        If the Item has not the bands, on the same grid, or they cannot be read.
    """
    source = _source(item, reader)
    grid = source.grid
    if (grid.crs, grid.shape, grid.stride) != (reader.grid.crs, reader.grid.shape, reader.grid.stride):
        raise GridError(f"they lie on {grid.shape} pixels in {grid.crs}, the latent does not")
    whole = grid.cells_of(window).scaled(grid.stride)
    field, valid = source.read(whole)
    if not valid.any():
        raise FieldError("they hold no data there")
    rows, columns = (
        slice(lo + lead - first, hi + lead - first)
        for (lo, hi), lead, first in zip(window, grid.lead, (whole.y.start, whole.x.start), strict=True)
    )
    field, valid = field[:, rows, columns], np.broadcast_to(valid, field.shape)[:, rows, columns]
    for layer, good, band in zip(field, valid, bands, strict=True):
        if band.nodata is not None:
            layer[~good] = band.nodata
    return field


def _source(item: pystac.Item, reader: LatentReader) -> ItemSource:
    """Raw bands of an Item, or of the one that it was derived from."""
    try:
        return ItemSource(item, reader.codec)
    except StacLatentError as exc:
        link = next(iter(item.get_links("derived_from")), None)
        href = None if link is None else link_href(link)
        if href is None:
            raise
        try:
            return ItemSource(read_item(href), reader.codec)
        except StacLatentError:
            raise exc from None


def _latent(reader: LatentReader, window: Window) -> tuple[Array, Array]:
    """The three channels of largest variance as a picture ``(y, x, 3)``, and its valid cells."""
    latent = reader.read_latent(reader.grid.cells_of(window))
    valid = np.isfinite(latent).all(axis=0)
    inside = latent[:, valid].astype(np.float64)
    if not inside.size:
        return np.zeros((*valid.shape, 3), np.uint8), valid
    chosen = np.sort(np.argsort(-inside.var(axis=1), kind="stable")[:3])
    low, high = np.percentile(inside[chosen], [2, 98], axis=1)
    unit = (latent[chosen] - low[:, None, None]) / np.maximum(high - low, 1e-9)[:, None, None]
    shown = np.moveaxis(np.rint(np.clip(np.nan_to_num(unit), 0, 1) * 255).astype(np.uint8), 0, -1)
    return np.repeat(shown, 3, axis=-1) if shown.shape[-1] == 1 else shown[
        ..., [0, min(1, shown.shape[-1] - 1), -1]
    ], valid


def _uri(colours: Array, valid: Array, side: int) -> str:
    """A WebP of at most ``side`` pixels, transparent where nothing is valid, as a ``data:`` URI."""
    image = Image.fromarray(colours)
    if not valid.all():
        image.putalpha(Image.fromarray(np.where(valid, 255, 0).astype(np.uint8)))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _corners(grid: Grid, window: Window) -> tuple[tuple[float, float], ...]:
    (y0, y1), (x0, x1) = window
    a, b, c, d, e, f = grid.transform
    pixels = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    try:
        transformer = Transformer.from_crs(CRS.from_user_input(grid.crs), "OGC:CRS84", always_xy=True)
    except ProjError as exc:
        raise GridError(f"unknown CRS {grid.crs!r}: the picture cannot be placed") from exc
    points = [transformer.transform(a * x + b * y + c, d * x + e * y + f) for x, y in pixels]
    if not np.isfinite(points).all():
        raise GridError(
            f"pixels of the grid in {grid.crs} have no longitude and latitude; check proj:transform"
        )
    first = points[0][0]
    if CRS.from_user_input(grid.crs).is_geographic:
        return tuple((float(x), float(y)) for x, y in points)
    return tuple((float(x - 360 * round((x - first) / 360)), float(y)) for x, y in points)
