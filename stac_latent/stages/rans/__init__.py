"""Entropy coding with rANS over integer tables."""
