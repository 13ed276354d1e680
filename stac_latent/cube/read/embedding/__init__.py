"""Embeddings in the containers of their producers, read as cells: rasters and arrays, and tables of vectors."""
