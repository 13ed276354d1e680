"""Bands of several native resolutions in one byte string: 10, 20 and 60 m bands of Sentinel-2, none of them upsampled.

Grids whose pixels are two, four or eight times as large as the finest's join its pyramid where their levels meet, and are
rotated with the bands there; any other grid (60 m among 10 m) has a pyramid of its own.
"""

from stac_latent.native.coder import compress_native, decompress_native
from stac_latent.native.grids import Family, families

__all__ = ["Family", "compress_native", "decompress_native", "families"]
