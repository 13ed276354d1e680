"""Pictures to judge a decoded field by: raw, decoded and their difference, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stac_latent.aliases import Array
from stac_latent.spec import Band
from stac_latent.system.files import writing

__all__ = ["panels", "picture", "quicklook", "rgb_positions", "side_by_side", "valid_pixels"]

_RAMP = np.array(
    [[8, 8, 24], [66, 20, 110], [150, 40, 110], [225, 80, 70], [250, 160, 60], [252, 240, 170]], np.float64
)
"""Dark to bright, with growing lightness; for errors."""


def rgb_positions(bands: Sequence[Band]) -> list[int]:
    """Positions of red, green and blue among the bands; the first band alone where they are not named."""
    wanted = (("red", "B04"), ("green", "B03"), ("blue", "B02"))
    found = [
        next((i for i, b in enumerate(bands) if b.common_name == c or b.name == n), None) for c, n in wanted
    ]
    if all(i is not None for i in found):
        return [i for i in found if i is not None]
    return [0, 1, 2] if len(bands) >= 3 else [0]


def _stretch(field: Array, valid: Array, limits: Array | None = None) -> tuple[Array, Array]:
    """8-bit picture ``(y, x, 3)`` between the 2nd and 98th percentile of each channel, and those limits; magnitudes of complex values."""
    field = np.abs(field) if field.dtype.kind == "c" else field
    if limits is None:
        inside = field[:, valid] if valid.any() else np.zeros((len(field), 1))
        limits = np.percentile(inside.astype(np.float64), [2, 98], axis=1).T
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    unit = np.clip((np.where(valid, field, 0) - low) / np.maximum(high - low, 1e-9), 0, 1) ** 0.8
    picture = np.moveaxis(np.rint(unit * 255).astype(np.uint8), 0, -1)
    picture = np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture
    return np.where(valid[..., None], picture, np.uint8(235)), limits


def _heat(values: Array, top: float, valid: Array) -> Array:
    position = np.clip(np.where(valid, values, 0) / max(top, 1e-9), 0, 1) * (len(_RAMP) - 1)
    low = np.minimum(position.astype(int), len(_RAMP) - 2)
    picture = _RAMP[low] + (_RAMP[low + 1] - _RAMP[low]) * (position - low)[..., None]
    return np.where(valid[..., None], picture, 235).astype(np.uint8)


def picture(field: Array, bands: Sequence[Band]) -> Array:
    """8-bit picture ``(y, x, 3)`` of a field ``(band, y, x)``, in natural colours where the bands allow."""
    return _stretch(field[rgb_positions(bands)], valid_pixels(field, bands))[0]


def quicklook(field: Array, bands: Sequence[Band], path: Path) -> Path:
    """Write a PNG of a field ``(band, y, x)`` in natural colours where the bands allow; returns the path."""
    image = Image.fromarray(picture(field, bands))
    with writing(path, ValueError):
        image.save(path)
    return path


def panels(raw: Array, decoded: Array, bands: Sequence[Band]) -> tuple[Array, Array, Array, float]:
    """Raw, decoded and absolute error as 8-bit pictures ``(y, x, 3)``, the first two with one stretch.

    Parameters
    ----------
    raw, decoded
        ``(band, y, x)`` in the stored unit.
    bands
        Their bands.

    Returns
    -------
    raw, decoded, error, top
        Three pictures, and the error (mean over bands, stored unit) that is drawn brightest.
    """
    valid = valid_pixels(raw, bands)
    rgb = rgb_positions(bands)
    left, limits = _stretch(raw[rgb], valid)
    middle, _ = _stretch(decoded[rgb], valid, limits)
    error = np.abs(decoded.astype(np.result_type(decoded.dtype, np.float64)) - raw).mean(axis=0)
    top = float(np.percentile(error[valid], 99.5)) if valid.any() else 1.0
    return left, middle, _heat(error, top, valid), top


def side_by_side(raw: Array, decoded: Array, bands: Sequence[Band], path: Path, caption: str = "") -> Path:
    """Write a PNG with raw, decoded and absolute error (mean over bands, stored unit) next to each other.

    Parameters
    ----------
    raw, decoded
        ``(band, y, x)`` in the stored unit; shown with the same stretch.
    bands
        Their bands.
    path
        PNG to write.
    caption
        Printed below.
    """
    left, middle, error, top = panels(raw, decoded, bands)
    parts = [("raw", left), ("decoded", middle), (f"error (white = {top:.0f})", error)]
    scale = max(1, round(360 / raw.shape[1]))
    pictures = [
        (t, Image.fromarray(p).resize((p.shape[1] * scale, p.shape[0] * scale), Image.Resampling.NEAREST))
        for t, p in parts
    ]
    gap, head, foot = 12, 30, 34 if caption else 12
    w, h = pictures[0][1].size
    sheet = Image.new("RGB", (3 * w + 4 * gap, h + head + foot), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for i, (title, picture) in enumerate(pictures):
        x = gap + i * (w + gap)
        sheet.paste(picture, (x, head))
        draw.text((x, 7), title, fill=(30, 30, 30), font=font)
    if caption:
        draw.text((gap, head + h + 9), caption, fill=(30, 30, 30), font=font)
    sheet.save(path)
    return path


def valid_pixels(field: Array, bands: Sequence[Band]) -> Array:
    """Pixels ``(y, x)`` with data in every band, by the bands' nodata; NaN and infinity are none."""
    valid = np.ones(field.shape[1:], bool)
    for layer, band in zip(field, bands, strict=True):
        if band.nodata is not None:
            valid &= layer != band.nodata
        if layer.dtype.kind in "fc":
            valid &= np.isfinite(layer)
    return valid
