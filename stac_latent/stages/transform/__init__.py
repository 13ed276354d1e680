"""Exact integer transforms and quantisers."""
