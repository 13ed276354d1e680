"""Tiles to race on: one module for each kind of data."""
