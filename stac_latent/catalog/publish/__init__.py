"""The verb ``publish``: latents become a GeoParquet table of vectors and its STAC Item."""
