"""A scene as latents, as Cloud-Optimized GeoTIFFs and as JPEG 2000, and the time that a cube of it takes from each."""

from __future__ import annotations
