"""Addresses of the schemas of extensions that documents of this package declare."""

from __future__ import annotations

__all__ = [
    "CUBE_URI",
    "EMB_URI",
    "EO_URI",
    "FILE_URI",
    "MLM_URI",
    "PROCESSING_URI",
    "PROJ_URI",
    "RASTER_URI",
    "TABLE_URI",
    "ZARR_URI",
]

_BASE = "https://stac-extensions.github.io"

CUBE_URI = f"{_BASE}/datacube/v2.3.0/schema.json"
EMB_URI = f"{_BASE}/embeddings/v0.0.1/schema.json"
EO_URI = f"{_BASE}/eo/v2.0.0/schema.json"
FILE_URI = f"{_BASE}/file/v2.1.0/schema.json"
MLM_URI = f"{_BASE}/mlm/v1.5.2/schema.json"
PROCESSING_URI = f"{_BASE}/processing/v1.2.0/schema.json"
PROJ_URI = f"{_BASE}/projection/v2.0.0/schema.json"
RASTER_URI = f"{_BASE}/raster/v2.0.0/schema.json"
TABLE_URI = f"{_BASE}/table/v1.2.0/schema.json"
ZARR_URI = f"{_BASE}/zarr/v1.1.0/schema.json"
