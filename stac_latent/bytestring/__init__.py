"""Fields as self-contained byte strings, and back: one grid, several grids, within an error bound."""
