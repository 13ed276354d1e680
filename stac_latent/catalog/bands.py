"""Bring band descriptions of older Items to STAC 1.1, in which the latent asset beside them is described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pystac

from stac_latent.extension.schemas import EO_URI, RASTER_URI

__all__ = ["merge_bands"]

_CORE = ("name", "description", "nodata", "data_type", "statistics", "unit")
"""Fields that became part of STAC itself; the others took the prefix of their extension."""


def merge_bands(item: pystac.Item) -> None:
    """Turn ``eo:bands`` and ``raster:bands`` of the assets into ``bands``, in place.

    Version 2 of the eo and raster extensions replaces both lists by one, and its schemas refuse the old ones. Assets
    that have ``bands`` already keep them, with what the old lists add.

    Parameters
    ----------
    item
        Item of any STAC version that pystac reads.

    Examples
    --------
    >>> from datetime import datetime
    >>> item = pystac.Item("a", None, None, datetime(2024, 1, 1), {})
    >>> old = {"eo:bands": [{"name": "red", "common_name": "red"}], "raster:bands": [{"nodata": 0, "scale": 0.0001}]}
    >>> item.add_asset("red", pystac.Asset("red.tif", extra_fields=old))
    >>> merge_bands(item)
    >>> item.assets["red"].extra_fields
    {'bands': [{'name': 'red', 'eo:common_name': 'red', 'nodata': 0, 'raster:scale': 0.0001}]}
    """
    for asset in item.assets.values():
        fields = asset.extra_fields
        old = {prefix: fields.pop(f"{prefix}:bands", None) or [] for prefix in ("eo", "raster")}
        bands = fields.get("bands") or []
        count = max(len(bands), *(len(entries) for entries in old.values()))
        merged: list[dict[str, Any]] = [{} for _ in range(count)]
        for prefix, entries in old.items():
            for band, entry in zip(merged, entries, strict=False):
                band.update(_renamed(entry, prefix))
        for band, entry in zip(merged, bands, strict=False):
            band.update(entry)
        if any(old.values()):
            fields["bands"] = merged
    for current in (EO_URI, RASTER_URI):
        start = current.partition("/v2.")[0] + "/v1."
        kept = [uri for uri in item.stac_extensions if not uri.startswith(start)]
        if len(kept) < len(item.stac_extensions):
            item.stac_extensions = [*kept, current]


def _renamed(entry: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Fields of an old band object under their names of today; those with a prefix keep it."""
    return {k if k in _CORE or ":" in k else f"{prefix}:{k}": v for k, v in entry.items() if v is not None}
