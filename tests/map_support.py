"""What the tests of the page share: items, hostile and not, and the data that a page holds."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pystac
import shapely

SAMPLE = Path(__file__).parents[1] / "catalogs" / "sample"
HOSTILE = (
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'>",
    "{{ script }} ${window.pwned = 3} \\u003cb\\u003e",
    "javascript:window.pwned=4",
    "]]><!--\u2028\u2029\u202egnp\x00\ud800",
)


def sample_items():
    """The real sample: one scene with a latent, an embedding and its raw bands."""
    from stac_latent import search

    return list(search(SAMPLE / "catalog.json", ids="spyndex-s2-sample"))


def plain(name, lon=10.0, lat=46.0, size=1.0, **properties):
    """An Item with a footprint and values, and no asset."""
    box = shapely.box(lon - size / 2, lat - size / 2, lon + size / 2, lat + size / 2)
    when = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    return pystac.Item(
        name, json.loads(shapely.to_geojson(box)), list(box.bounds), when, {f"latent:{k}": v for k, v in properties.items()}
    )  # fmt: skip


@functools.cache
def scattered(count, seed=0):
    """Items all over the Earth."""
    rng = np.random.default_rng(seed)
    place = zip(rng.uniform(-178, 178, count), rng.uniform(-70, 80, count), strict=True)
    return [
        plain(f"S2_{i:05d}", lon, lat, psnr=float(rng.normal(44, 2)), bits_per_pixel=float(rng.gamma(4, 0.2)))
        for i, (lon, lat) in enumerate(place)
    ]


def contents(path):
    """The data of a page."""
    text = Path(path).read_text(encoding="utf-8")
    (packed,) = re.findall(r'<script type="text/plain" id="data">([^<]*)</script>', text)
    return json.loads(zlib.decompress(base64.b64decode(packed, validate=True)))


def numbers(text, kind):
    """An array of the data."""
    return np.frombuffer(base64.b64decode(text), kind)


def rings_of(packed, unit):
    """Rings (m, 2) in degrees of each packed shape."""
    points = numbers(packed["points"], np.uint8)
    xy = np.cumsum(numbers(packed["xy"], "<i4").reshape(-1, 2), axis=0) * unit
    flat = np.split(xy, np.cumsum(points)[:-1]) if len(points) else []
    out, at = [], 0
    for n in numbers(packed["rings"], np.uint8).tolist():
        out.append(flat[at : at + n])
        at += n
    return out
