"""Codecs: chains with a name, a bundle of files, and a place where they are found."""
