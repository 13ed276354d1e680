"""Thumbnails: a small picture of each Item, of the pixels that its encoding reads anyway."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pystac
from PIL import Image

from stac_latent.aliases import Array
from stac_latent.spec import Band
from stac_latent.system.files import replacing
from stac_latent.system.links import href_of, is_local, local_path
from stac_latent.window import Window

if TYPE_CHECKING:
    from stac_latent.cube.raw.source import ItemSource

__all__ = ["KEY", "Picture", "can_be_drawn", "describe_thumbnail", "has_other", "placed_picture"]

KEY = "thumbnail"
"""Key of the asset, and name of its file."""
_SIDE, _COLOURS = 128, 64
_STRETCH = (2, 98)


class Picture:
    """Every so many-th pixel of what a source reads, as a PNG at the end.

    Parameters
    ----------
    sources
        Pixels of each lattice, before they are read; those of the lattice that is drawn are watched from here on.
    """

    def __init__(self, sources: Sequence[ItemSource]) -> None:
        self._source, self._bands = _drawn(sources)
        grid = self._source.grid
        self._step = -(-max(grid.shape) // _SIDE)
        shape = tuple(len(self._kept(n)) for n in grid.shape)
        self._values = np.zeros((len(self._bands), *shape), np.float32)
        self._there = np.zeros(shape, bool)
        self._source.seen = self._add

    def _kept(self, n: int) -> range:
        """Which of the pixels along an axis are drawn; one at least, of a scene that is a line."""
        return range(min(self._step, n) // 2, n, self._step)

    def _add(self, window: Window, field: Array, valid: Array) -> None:
        """Keep the pixels of the picture that lie in a window of the padded lattice."""
        inner, outer = [], []
        for span, lead, n in zip(window, self._source.grid.lead, self._source.grid.shape, strict=True):
            kept = np.asarray(self._kept(n))
            here = (kept + lead >= span.start) & (kept + lead < span.stop)
            inner.append(kept[here] + lead - span.start)
            outer.append(np.flatnonzero(here))
        (rows, columns), (ys, xs) = np.ix_(*inner), np.ix_(*outer)
        self._values[:, ys, xs] = field[self._bands][:, rows, columns]
        self._there[ys, xs] = valid[[min(b, len(valid) - 1) for b in self._bands]][:, rows, columns].all(
            axis=0
        )

    def png(self) -> bytes:
        """The picture: the 2nd to the 98th percentile in at most 63 colours or shades, transparent where there is no data."""
        self._source.seen = None
        there = self._there & np.isfinite(self._values).all(axis=0)
        return _encoded(_stretched(self._values, there), there)


def _drawn(sources: Sequence[ItemSource]) -> tuple[ItemSource, list[int]]:
    """The lattice that is drawn, and its bands: red, green and blue where it has them; else the first band of the first."""
    for source in sources:
        common = [b.common_name for b in source.decoded]
        if {"red", "green", "blue"} <= set(common):
            return source, [common.index(c) for c in ("red", "green", "blue")]
    return sources[0], [0]


def _stretched(values: npt.NDArray[np.float32], there: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    if not there.any():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[:, there], _STRETCH)
    unit = (values.astype(np.float64) - low) / (high - low or 1.0)
    out: npt.NDArray[np.uint8] = np.rint(255 * np.clip(np.nan_to_num(unit, nan=0.0), 0, 1)).astype(np.uint8)
    return out


def _encoded(shades: npt.NDArray[np.uint8], there: npt.NDArray[np.bool_]) -> bytes:
    """PNG with a palette, whose last entry is transparent if any pixel is."""
    image = Image.fromarray(np.moveaxis(np.repeat(shades, 4 - len(shades), axis=0)[:3], 0, -1))
    drawn = image.quantize(_COLOURS - 1, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    indices = np.array(drawn)
    palette = (drawn.getpalette() or [])[: 3 * (_COLOURS - 1)]
    palette += [0] * (3 * _COLOURS - len(palette))
    indices[~there] = _COLOURS - 1
    out = Image.fromarray(indices)
    out.putpalette(palette)
    options: dict[str, Any] = {} if there.all() else {"transparency": _COLOURS - 1}
    buffer = io.BytesIO()
    out.save(buffer, "png", optimize=True, **options)
    return buffer.getvalue()


def can_be_drawn(bands: Sequence[Band]) -> bool:
    """Whether the values are numbers that have shades: complex ones have not."""
    return not any(b.is_complex for b in bands)


def has_other(item: pystac.Item, path: Path) -> bool:
    """Whether an Item has a thumbnail, or an asset of that key, that is not the file that would be written."""
    return any(
        not (is_local(asset.href) and local_path(asset.get_absolute_href() or asset.href) == path)
        for key, asset in item.assets.items()
        if key == KEY or "thumbnail" in (asset.roles or ())
    )


def describe_thumbnail(item: pystac.Item, path: Path) -> None:
    """Add the asset to the Item."""
    item.add_asset(
        KEY,
        pystac.Asset(href_of(path), title="Thumbnail", media_type=pystac.MediaType.PNG, roles=["thumbnail"]),
    )


@contextmanager
def placed_picture(data: bytes | None, path: Path) -> Iterator[None]:
    """Put a picture in its place, instead of an older one; a first one goes again if the block fails. Nothing where there is none."""
    if data is None:
        yield
        return
    first = not path.exists()
    with replacing(path) as part:
        part.write_bytes(data)
    try:
        yield
    except BaseException:
        if first:
            path.unlink(missing_ok=True)
        raise
