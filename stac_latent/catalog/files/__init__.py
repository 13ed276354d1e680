"""From raster files to Items: which scene a name is of, what a file says of itself, and what is known of its sensor."""
