"""What the xarray engine is made of: what was given to open, its arrays, and how they are indexed."""
