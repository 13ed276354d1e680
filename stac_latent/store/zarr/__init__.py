"""Latents in Zarr v3 groups."""
