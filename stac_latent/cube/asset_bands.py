"""Which bands an Item's raster assets hold, and which of them a codec's band is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

import pystac

from stac_latent.spec import Band

__all__ = ["band_lists", "band_table", "match"]


def band_table(item: pystac.Item) -> list[dict[str, Any]]:
    """Every band of every raster asset: its names (odc name first) and its metadata, asset-level values inherited."""
    out = []
    for key, asset in item.assets.items():
        roles = set(asset.roles or [])
        if roles & {"latent", "latent:mask", "thumbnail", "overview", "metadata"} or not _is_raster(asset):
            continue
        fields = asset.extra_fields
        lists, count = band_lists(asset)
        stem = PurePosixPath(urlparse(asset.href).path).stem
        for i in range(count):
            meta: dict[str, Any] = {
                k: fields[k] for k in ("nodata", "data_type", "raster:scale", "raster:offset") if k in fields
            }
            for entries in lists:
                if i < len(entries):
                    meta |= {k: v for k, v in entries[i].items() if v is not None}
            names = [key if i == 0 else f"{key}.{i + 1}", meta.get("name")]
            common = meta.get("eo:common_name", meta.get("common_name"))
            out.append(
                {
                    "asset": key,
                    "index": i + 1,
                    "meta": meta,
                    "names": names,
                    "common": common,
                    "stem": stem,
                    "count": count,
                }
            )
    return out


def band_lists(asset: pystac.Asset) -> tuple[list[list[dict[str, Any]]], int]:
    """Band descriptions of an asset, in the three forms that STAC has had, and the number of its bands."""
    lists = [asset.extra_fields.get(k) or [] for k in ("bands", "eo:bands", "raster:bands")]
    return lists, max(1, *(len(x) for x in lists))


def _is_raster(asset: pystac.Asset) -> bool:
    media = (asset.media_type or "").lower()
    if media:
        return media.startswith("image/") and not media.startswith(("image/png", "image/jpeg"))
    return PurePosixPath(urlparse(asset.href).path).suffix.lower() in (".tif", ".tiff", ".jp2", ".vrt")


def match(band: Band, table: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Row of the table that a codec's band is; None where there is none."""
    tests: tuple[Callable[[dict[str, Any]], bool], ...] = (
        lambda e: e["names"][0] == band.name,
        lambda e: e["names"][1] == band.name,
        lambda e: e["count"] == 1 and (e["stem"] == band.name or f"_{band.name}_" in f"_{e['stem']}_"),
        lambda e: band.common_name is not None and e["common"] == band.common_name,
    )
    for test in tests:
        hits = [e for e in table if test(e)]
        tiffs = [e for e in hits if not e["asset"].endswith("-jp2")]  # Earth Search lists each band twice
        if hits:
            return (tiffs or hits)[0]
    return None
