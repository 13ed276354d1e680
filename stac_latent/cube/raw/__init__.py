"""Raw files: which asset is a band, what file, Item and codec agree on, and pixels read from them."""
