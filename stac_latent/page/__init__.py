"""One page to look at items on: a map of footprints with pictures and similar places, in a file or in a notebook."""
