"""Cubes to files that other tools read: Cloud-Optimized GeoTIFF, NetCDF-4 and Zarr, with scales, units and nodata."""
