"""The model card of a fitted codec: what it was fitted on, and its rate and distortion on places that it was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pystac

from stac_latent.catalog.items import codec_item
from stac_latent.catalog.tree import write_json
from stac_latent.codec.codec import Codec
from stac_latent.field.validity import apply_nodata
from stac_latent.geo.extents import item_bbox, spanning, times_in_utc
from stac_latent.quality.distortion import Distortion
from stac_latent.quality.moments import Summary
from stac_latent.spec import Band
from stac_latent.stages.lin.grids import Nest

__all__ = ["QUALITIES", "band_table_of", "licence_of", "measure", "write_card"]

QUALITIES = (30, 40, 50, 60, 70)
"""Of ``compress(quality=)``: 50 is the codec's own step, ten more halve it."""
_LISTED = 200


def measure(
    codec: Codec,
    tiles: Callable[[], Iterable[list[tuple[Any, Any]]]],
    count: int,
    report: Callable[[int, int], None],
) -> list[dict[str, float]]:
    """Rate and distortion of real byte strings over all tiles, one point for each quality.

    Parameters
    ----------
    codec
        Fitted.
    tiles
        Gives the fields and masks of each lattice.
    count
        Their number.
    report
        Called with tiles done and their number, over all points.

    Returns
    -------
    list of dict
        ``quality``, ``bits_per_pixel`` (and band; headers and masks included), ``psnr`` [dB], ``max_error`` [stored unit of
        whichever band is worst] and ``sam`` [deg]. A codec of one rate gives one point, without a quality.
    """
    qualities: Sequence[int | None] = QUALITIES if codec.rate_control is not None else (None,)
    out, done = [], 0
    parts = codec.grid_chains
    for quality in qualities:
        errors, size, samples = [Distortion(p.bands, p.native_pixels) for p in parts], 0, 0
        for layers in tiles():
            fields = [apply_nodata(x, mask, p.bands) for (x, mask), p in zip(layers, parts, strict=True)]
            goal = {} if quality is None else {"quality": float(quality)}
            data, decoded = _round_trip(codec, fields, goal)
            for error, x, y, (_, mask) in zip(errors, fields, decoded, layers, strict=True):
                error.add(x, y, mask)
            size += len(data)
            samples += round(
                sum(f[0].size / s**2 for f, p in zip(fields, parts, strict=True) for s in p.native_pixels)
            )
            done += 1
            report(done, count * len(qualities))
        error = Distortion.merged(errors)
        point = {"quality": quality, "bits_per_pixel": 8 * size / samples, "psnr": error.psnr}
        point |= {"max_error": error.max_error, "sam": error.sam}
        out.append({k: float(f"{v:.5g}") for k, v in point.items() if v is not None})
    return out


def _round_trip(codec: Codec, fields: Sequence[Any], goal: dict[str, Any]) -> tuple[bytes, list[Any]]:
    """Bytes of a tile, and what they decode to."""
    parts = codec.grid_chains
    if len(parts) == 1 and max(codec.native_pixels) == 1:
        data = codec.compress(fields[0], **goal)
        return data, [codec.decompress(data)]
    nests = [Nest(tuple(Counter(p.native_pixels).values())) for p in parts]
    grids = [np.ascontiguousarray(g) for x, nest in zip(fields, nests, strict=True) for g in nest.gather(x)]
    data = codec.compress(grids, **goal)
    back = iter(codec.decompress(data))
    return data, [nest.spread([next(back) for _ in nest.counts]) for nest in nests]


def band_table_of(bands: Sequence[Band], moments: Summary) -> dict[str, dict[str, float]]:
    """Mean, deviation and range of each band over the fitting tiles, stored unit."""
    columns = {"mean": moments.mean, "std": moments.std, "min": moments.low, "max": moments.high}
    return {
        band.name: {k: float(f"{v[i]:.6g}") for k, v in columns.items() if np.isfinite(v[i])}
        for i, band in enumerate(bands)
    }


def licence_of(items: Sequence[pystac.Item]) -> str:
    """The one licence that all Items or their Collections state; ``other`` where there is none, or several."""
    found = set()
    for item in items:
        parent = item.get_collection() if item.get_single_link("collection") else None
        found.add(str(item.properties.get("license") or (parent.license if parent is not None else "other")))
    return found.pop() if len(found) == 1 else "other"


def write_card(
    codec: Codec, folder: Path, items: Sequence[pystac.Item], parameters: Mapping[str, Any]
) -> Path:
    """Write the MLM Item of a bundle beside it; return its path.

    Parameters
    ----------
    codec
        Its ``about`` is the card.
    folder
        Of the bundle.
    items
        That it was fitted on: the Item covers their places and times.
    parameters
        Of the fit, as ``mlm:hyperparameters``.
    """
    boxes = [b for b in map(item_bbox, items) if b is not None]
    box = spanning(boxes) if boxes else None
    times = [t for item in items for t in times_in_utc(item)]
    span: dict[str, Any] = {"interval": (min(times), max(times))} if times else {}
    kept = (
        "title",
        "description",
        "license",
        "attribution",
        "fitted_on",
        "held_out",
        "rate_distortion",
        "bands",
        "limits",
    )
    about = {k if k != "bands" else "band_statistics": codec.about[k] for k in kept if k in codec.about}
    for key in ("fitted_on",):
        about[key] = shortened(about[key])
    item = codec_item(
        codec, folder, bbox=box, properties=about | {"mlm:hyperparameters": dict(parameters)}, **span
    )
    path = folder / "item.json"
    write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False))
    return path


def shortened(texts: Sequence[str]) -> list[str]:
    """The first of a long list, and how many more there are."""
    more = len(texts) - _LISTED
    return list(texts) if more <= 0 else [*texts[:_LISTED], f"and {more} more; codec.json lists all"]
