"""Authoring, searching and publishing of STAC catalogues that hold latents."""
