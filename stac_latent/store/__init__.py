"""Containers: bytes to assets and back. The only room that knows file formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.store.embeddings import read_table as read_table
    from stac_latent.store.geoparquet.writer import EmbeddingsWriter as EmbeddingsWriter
    from stac_latent.store.zarr.group import StoreLayout as StoreLayout
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "embeddings": ["read_table"],
            "geoparquet.writer": ["EmbeddingsWriter"],
            "zarr.group": ["StoreLayout"],
        },
    )
