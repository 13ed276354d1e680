"""Embeddings that others published: their files described as Items, and read as they are."""
