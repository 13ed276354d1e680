"""GeoParquet tables of vectors, written in Hilbert order."""
