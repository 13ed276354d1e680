"""Containers: bytes to assets and back. The only room that knows file formats."""
