"""From pixels to a verified store."""
