"""Dates of a series that are coded against a key frame."""
