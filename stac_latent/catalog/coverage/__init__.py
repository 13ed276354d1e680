"""Which cells of an area have items in which periods."""
