"""GeoParquet tables of vectors, written in Hilbert order."""

from stac_latent.store.geoparquet.writer import EmbeddingsWriter

__all__ = ["EmbeddingsWriter"]
