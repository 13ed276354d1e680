"""GeoParquet tables of vectors, written in Hilbert order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.store.geoparquet.writer import EmbeddingsWriter as EmbeddingsWriter
else:
    __getattr__, __dir__, __all__ = lazy(__name__, {"writer": ["EmbeddingsWriter"]})
