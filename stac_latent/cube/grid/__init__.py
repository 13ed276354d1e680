"""Grids: the lattice of cells, its tiles, and the pixel grids that a cube may have."""
