"""Items for the search tests, and the same items in each kind of source."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pystac
import shapely

SPACES = [f"sha256:{digit * 64}" for digit in "abc"]
START = datetime(2024, 1, 1, tzinfo=UTC)


def make_items(count=60):
    """Items that differ in place, time, latents and in which fields they have; no order in any of them."""
    items = []
    for i in range(count):
        west, south = -175 + (i * 37) % 345, -80 + (i * 53) % 150
        footprint = shapely.Polygon(
            [(west, south), (west + 6, south + 1), (west + 5, south + 7), (west - 1, south + 6)]
        )
        start = START + timedelta(days=(i * 29) % 365, seconds=i * 997)
        properties = {"platform": f"sentinel-2{'ab'[i % 2]}"}
        span = i % 4 == 3
        if span:
            properties["start_datetime"] = start.isoformat().replace("+00:00", "Z")
            properties["end_datetime"] = (start + timedelta(days=10)).isoformat().replace("+00:00", "Z")
        if i % 5 != 4:
            properties["latent:kinds"] = [["codec"], ["embedding"], ["codec", "embedding"]][i % 3]
            properties["latent:spaces"] = [SPACES[i % 3], *([SPACES[(i + 1) % 3]] if i % 2 else [])]
        if i % 5 != 4 and i % 3 != 1:
            properties["latent:bits_per_pixel"] = round(0.1 + (i * 7 % 40) / 20, 3)
            if i % 7:
                properties["latent:psnr"] = 30.0 + (i * 11) % 25
            properties["latent:max_error"] = float((i * 13) % 50)
        if i % 3 == 0:
            properties["eo:cloud_cover"] = float((i * 17) % 100)
        item = pystac.Item(
            f"item-{i:04d}",
            shapely.geometry.mapping(footprint),
            list(footprint.bounds),
            None if span else start,
            properties,
            collection=f"c{i % 3}",
        )
        item.add_asset("raw", pystac.Asset(f"https://example.com/{i}/raw.tif", roles=["data"]))
        if i % 5 != 4:
            asset = pystac.Asset(
                f"https://example.com/{i}/latent.zarr",
                media_type="application/vnd.zarr; version=3",
                roles=["latent"],
            )
            asset.extra_fields["latent:stride"] = [16, 16]
            asset.extra_fields["bands"] = [{"name": "B02", "nodata": 0 if i % 2 else "nan"}]
            item.add_asset("latent", asset)
        items.append(item)
    return items


def as_dicts(items):
    return [json.loads(json.dumps(item.to_dict(transform_hrefs=False))) for item in items]


def write_static(items, folder):
    """A catalogue with one collection a child, and a second level below the first."""
    root = pystac.Catalog("root", "for tests")
    nowhere = pystac.Extent(
        pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[START, None]])
    )
    children = {
        name: pystac.Collection(name, name, nowhere) for name in sorted({i.collection_id for i in items})
    }
    first, *others = children.values()
    root.add_child(first)
    for child in others:
        first.add_child(child)
    for item in items:
        clone = item.clone()
        clone.collection_id = None
        children[item.collection_id].add_item(clone)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def ids(results):
    return {(item.collection_id, item.id) for item in results}
